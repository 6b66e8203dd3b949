//! The receiver: wires the store, the API, the servers, and the maintenance of the store.

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
use crate::server::Server;
use crate::stats::Stats;
use crate::store::{ClockStepGuard, Location, Store, StoreError};
use crate::supervisor::spawn_supervised;
#[cfg(feature = "tls")]
use crate::tls;

/// Time between two runs of the maintenance. A restart reads the samples of that time from the log again.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(30);
/// Number of sweeps between two searches of the disk for what has left its window.
const SWEEPS_PER_DISK_EXPIRY: usize = 20;
/// Longest time that a stop waits for open requests.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// Options of `lizm receiver`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port to listen on; 0 picks one.
    pub port: u16,
    /// Whether to serve HTTP, on `port`.
    pub plain: bool,
    /// The HTTPS server.
    #[cfg(feature = "tls")]
    pub https: Option<tls::Options>,
    /// Who may submit and who may read.
    pub auth: auth::Options,
    /// Threads that answer requests.
    pub workers: usize,
    /// Most series. Each label of each host is one.
    pub series_max: usize,
    /// Where the store keeps its data.
    pub store: Location,
    /// Most hosts with values in `/metrics`.
    pub metrics_hosts_max: usize,
    /// The routes to serve.
    pub role: Role,
    /// The UDP and ZeroMQ listeners.
    pub listeners: listeners::Options,
}

/// A receiver that runs until it is stopped.
pub struct Receiver {
    server: Option<Server>,
    #[cfg(feature = "tls")]
    https: Option<tls::Door>,
    listeners: MessageListeners,
    api: Arc<Api>,
    store: Arc<Store>,
    stats: Arc<Stats>,
    stop_maintenance: mpsc::Sender<()>,
    maintenance: JoinHandle<()>,
}

impl Receiver {
    /// Opens the store and the servers. The receiver serves when this returns.
    ///
    /// # Errors
    /// When the store cannot be opened, a file cannot be used, or an address cannot be listened on. The message names it.
    pub fn start(options: &Options) -> io::Result<Self> {
        let store = Store::open(&options.store, options.series_max, unix_now_sec()).map_err(io::Error::other)?;
        let (store, stats) = (Arc::new(store), Arc::new(Stats::default()));
        let authorizer = Authorizer::from_options(&options.auth).map_err(io::Error::other)?;
        let anyone_may_submit = authorizer.allows_all() && !options.bind.is_loopback();
        let readers = ReadAccess::from_options(&options.auth).map_err(io::Error::other)?;
        let ingest = Arc::new(Ingest::new(store.clone(), authorizer, stats.clone()));
        // Of receivers that share a store, those that serve summaries have the hosts' values in /metrics.
        let hosts_max = if options.role == Role::Intake { 0 } else { options.metrics_hosts_max };
        let metrics = metrics::Options { hosts_max, store_kind: options.store.kind() };
        let api = Api::new(ingest.clone(), readers)
            .allowing_hosts(&options.auth.allowed_hosts)
            .with_metrics(metrics)
            .serving(options.role);
        let api = Arc::new(api);
        // The servers start last: a failure to open another socket must not end a process that has answered requests.
        let listeners = MessageListeners::open(&options.listeners, &ingest)?;
        #[cfg(feature = "tls")]
        let https = match &options.https {
            Some(https) => Some(tls::Door::open(SocketAddr::new(options.bind, https.port), https, &api)?),
            None => None,
        };
        let address = SocketAddr::new(options.bind, options.port);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let server = options.plain.then(|| Server::open(address, options.workers, &api)).transpose().map_err(failed)?;
        if let Some(server) = &server {
            log::info!("Receiver is listening on http://{}", server.address());
        }
        #[cfg(feature = "tls")]
        if let Some(https) = &https {
            log::info!("Receiver is listening on https://{}", https.address());
        }
        listeners.descriptions().iter().for_each(|socket| log::info!("Receiver is listening on {socket}"));
        log::info!("{}", store.description());
        ingest.authorizer().note().iter().for_each(|note| log::info!("{note}"));
        if anyone_may_submit {
            log::warn!("Anyone who reaches this receiver may submit and delete; see --trust and --token-key");
        }
        let (stop_maintenance, stopped) = mpsc::channel();
        let (maintained, is_shared) = (store.clone(), options.store.is_shared());
        let maintenance = spawn_maintenance(&stats, move || {
            if is_shared {
                // Counts the series that other receivers have stored.
                maintained.sweep(unix_now_sec());
            }
            maintain(&stopped, &maintained);
        })?;
        if store.is_synced() {
            let synced = store.clone();
            // The thread ends with the process. The stop makes the rest durable.
            spawn_supervised("sync", move || {
                loop {
                    synced.sync();
                }
            })?;
        }
        Ok(Self {
            server,
            #[cfg(feature = "tls")]
            https,
            listeners,
            api,
            store,
            stats,
            stop_maintenance,
            maintenance,
        })
    }

    /// The address of the HTTP server, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Errors that only a restart of the process clears. A store that refuses writes is none: it is opened again, and can
    /// be read until then.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        let error = self.server.as_ref().and_then(Server::liveness_error);
        #[cfg(feature = "tls")]
        let error = error.or_else(|| self.https.as_ref().and_then(tls::Door::liveness_error));
        error.or_else(|| self.api.liveness_error())
    }

    /// Answers the open requests, makes the store durable, and logs what was counted.
    pub fn stop(self) {
        self.listeners.close();
        let closed = self.server.is_none_or(|server| server.close(STOP_WITHIN));
        #[cfg(feature = "tls")]
        let closed = self.https.is_none_or(|server| server.close(STOP_WITHIN)) && closed;
        if !closed {
            log::warn!("Some requests were not answered within {} seconds", STOP_WITHIN.as_secs());
        }
        drop(self.stop_maintenance);
        drop(self.maintenance.join());
        if let Err(unavailable) = self.store.sync_now() {
            log::error!("What was received last may be lost: {unavailable}");
        }
        log::info!("Receiver stopped: {}", self.stats);
    }
}

/// Starts the maintenance thread. If it panics, the process is not well: it may have left the store half changed.
fn spawn_maintenance(stats: &Arc<Stats>, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let stats = stats.clone();
    thread::Builder::new().name("maintenance".into()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            stats.maintenance_ended.add(1);
        }
    })
}

fn maintain(stopped: &mpsc::Receiver<()>, store: &Store) {
    let log_error = |result: Result<(), StoreError>| {
        if let Err(error) = result {
            log::error!("Maintenance of the store failed: {error}");
        }
    };
    // The next restart need not read again what this one has read.
    log_error(store.checkpoint());
    let (mut guard, started, mut sweeps) = (ClockStepGuard::default(), Instant::now(), 0);
    while stopped.recv_timeout(MAINTENANCE_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = unix_now_sec();
        log_error(store.checkpoint());
        if guard.is_open(now, started.elapsed().as_secs()) {
            store.sweep(now);
            sweeps += 1;
            if sweeps % SWEEPS_PER_DISK_EXPIRY == 0 {
                log_error(store.expire_disk(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_maintenance_is_counted() {
        let stats = Arc::new(Stats::default());
        spawn_maintenance(&stats, || ()).unwrap().join().unwrap();
        assert_eq!(stats.maintenance_ended.get(), 0);
        spawn_maintenance(&stats, || panic!("this is a test")).unwrap().join().unwrap();
        assert_eq!(stats.maintenance_ended.get(), 1);
    }
}
