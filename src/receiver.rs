//! The receiving side, put together: store, API, doors, and the upkeep of the store.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::api::{Api, Role};
use crate::auth::{self, Authorizer, ReadAccess};
use crate::clock::unix_now_sec;
use crate::ingest::Ingest;
use crate::listeners::{self, MessageListeners};
use crate::metrics;
use crate::server::Door;
use crate::stats::Stats;
use crate::store::{ClockStepGuard, Location, Store, StoreError};
use crate::supervisor::spawn_supervised;
#[cfg(feature = "tls")]
use crate::tls;

/// How often the store is swept and written to disk: what has left its window is gone half a minute later, and a
/// restart reads half a minute of samples.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How many sweeps go by before the disk is looked through for what has left its window.
const SWEEPS_PER_DISK_EXPIRY: usize = 20;
/// How long a stop waits for answers that are on their way.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// What `lizm receiver` is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port to listen on; 0 picks one.
    pub port: u16,
    /// Whether to open the plain door, on `port`.
    pub plain: bool,
    /// The HTTPS door.
    #[cfg(feature = "tls")]
    pub https: Option<tls::Options>,
    /// Who may submit and who may read.
    pub auth: auth::Options,
    /// Threads that answer requests.
    pub workers: usize,
    /// Most series, a label of a host each.
    pub series_max: usize,
    /// Where to keep what was received.
    pub store: Location,
    /// Hosts whose values `/metrics` has.
    pub metrics_hosts_max: usize,
    /// What of it all to serve.
    pub role: Role,
    /// Ways in besides HTTP.
    pub listeners: listeners::Options,
}

/// A receiver that runs until it is stopped.
pub struct Receiver {
    door: Option<Door>,
    #[cfg(feature = "tls")]
    https: Option<tls::Door>,
    intake: MessageListeners,
    api: Arc<Api>,
    store: Arc<Store>,
    stats: Arc<Stats>,
    stop_upkeep: mpsc::Sender<()>,
    upkeep: JoinHandle<()>,
}

impl Receiver {
    /// Opens the doors; the receiver serves when this returns.
    ///
    /// # Errors
    /// When the store cannot be opened, a file not be used, or an address not be listened on; the message names it.
    pub fn start(options: &Options) -> io::Result<Self> {
        let store = Store::open(&options.store, options.series_max, unix_now_sec()).map_err(io::Error::other)?;
        let (store, stats) = (Arc::new(store), Arc::new(Stats::default()));
        let gate = Authorizer::open(&options.auth).map_err(io::Error::other)?;
        let anyone_may_submit = gate.lets_anyone_in() && !options.bind.is_loopback();
        let readers = ReadAccess::of(&options.auth).map_err(io::Error::other)?;
        let ingest = Arc::new(Ingest::new(store.clone(), gate, stats.clone()));
        // Of receivers that share a store, those that answer for hosts have their values.
        let hosts_max = if options.role == Role::Intake { 0 } else { options.metrics_hosts_max };
        let metrics = metrics::Options { hosts_max, store_kind: options.store.kind() };
        let api = Api::new(ingest.clone(), readers).with_metrics(metrics).serving(options.role);
        let api = Arc::new(api);
        // The doors come last: what they answer is lost where the process ends for want of another socket.
        let intake = MessageListeners::open(&options.listeners, &ingest)?;
        #[cfg(feature = "tls")]
        let https = match &options.https {
            Some(https) => Some(tls::Door::open(SocketAddr::new(options.bind, https.port), https, &api)?),
            None => None,
        };
        let address = SocketAddr::new(options.bind, options.port);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let door = options.plain.then(|| Door::open(address, options.workers, &api)).transpose().map_err(failed)?;
        if let Some(door) = &door {
            log::info!("Receiver is listening on http://{}", door.address());
        }
        #[cfg(feature = "tls")]
        if let Some(https) = &https {
            log::info!("Receiver is listening on https://{}", https.address());
        }
        intake.descriptions().iter().for_each(|socket| log::info!("Receiver is listening on {socket}"));
        log::info!("{}", store.description());
        ingest.gate().note().iter().for_each(|note| log::info!("{note}"));
        if anyone_may_submit {
            log::warn!("Anyone who reaches this receiver may submit and delete; see --trust and --token-key");
        }
        let (stop_upkeep, stopped) = mpsc::channel();
        let (kept, is_shared) = (store.clone(), options.store.is_shared());
        let upkeep = spawn_maintenance(&stats, move || {
            if is_shared {
                // Counts what others have stored.
                kept.sweep(unix_now_sec());
            }
            maintain(&stopped, &kept);
        })?;
        if store.is_synced() {
            let synced = store.clone();
            // Ends with the process: what is left is made durable by the stop.
            spawn_supervised("sync", move || {
                loop {
                    synced.sync();
                }
            })?;
        }
        Ok(Self {
            door,
            #[cfg(feature = "tls")]
            https,
            intake,
            api,
            store,
            stats,
            stop_upkeep,
            upkeep,
        })
    }

    /// The address of the plain door, where it is open.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.door.as_ref().map(Door::address)
    }

    /// Why another process should take the place of this one, if so. That the store takes nothing is no reason: it is
    /// opened anew by itself, and can be read meanwhile.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        let door = self.door.as_ref().and_then(Door::liveness_error);
        #[cfg(feature = "tls")]
        let door = door.or_else(|| self.https.as_ref().and_then(tls::Door::liveness_error));
        door.or_else(|| self.api.liveness_error())
    }

    /// Finishes what was taken, and says in the log what was counted.
    pub fn stop(self) {
        self.intake.close();
        let closed = self.door.is_none_or(|door| door.close(STOP_WITHIN));
        #[cfg(feature = "tls")]
        let closed = self.https.is_none_or(|door| door.close(STOP_WITHIN)) && closed;
        if !closed {
            log::warn!("Some requests were not answered within {} seconds", STOP_WITHIN.as_secs());
        }
        drop(self.stop_upkeep);
        drop(self.upkeep.join());
        if let Err(unavailable) = self.store.sync_now() {
            log::error!("What was received last may be lost: {unavailable}");
        }
        log::info!("Receiver stopped: {}", self.stats);
    }
}

/// Starts the thread of the upkeep. Where a panic ends it the process is not well: what it has left half done is not to be
/// gone on with.
fn spawn_maintenance(stats: &Arc<Stats>, keep: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let stats = stats.clone();
    thread::Builder::new().name("upkeep".into()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(keep)).is_err() {
            stats.maintenance_ended.add(1);
        }
    })
}

fn maintain(stopped: &mpsc::Receiver<()>, store: &Store) {
    let tell = |written: Result<(), StoreError>| {
        if let Err(unavailable) = written {
            log::error!("The upkeep of the store failed: {unavailable}");
        }
    };
    // What a restart has read again need not be read by the next.
    tell(store.checkpoint());
    let (mut gate, started, mut sweeps) = (ClockStepGuard::default(), Instant::now(), 0);
    while stopped.recv_timeout(SWEEP_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = unix_now_sec();
        tell(store.checkpoint());
        if gate.is_open(now, started.elapsed().as_secs()) {
            store.sweep(now);
            sweeps += 1;
            if sweeps % SWEEPS_PER_DISK_EXPIRY == 0 {
                tell(store.expire_disk(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_upkeep_is_counted() {
        let stats = Arc::new(Stats::default());
        spawn_maintenance(&stats, || ()).unwrap().join().unwrap();
        assert_eq!(stats.maintenance_ended.get(), 0);
        spawn_maintenance(&stats, || panic!("this is a test")).unwrap().join().unwrap();
        assert_eq!(stats.maintenance_ended.get(), 1);
    }
}
