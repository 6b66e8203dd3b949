//! The monitoring side: a tick that reads this host, and for each destination a backlog and a thread that publishes it.
//!
//! Reading and publishing are apart: a slow or dead destination delays neither the readings nor the others. Each
//! destination gets the samples strictly in order, one request at a time; a sample leaves its backlog when it was
//! taken, refused for good, or pushed out by newer ones. Datagrams alone have no backlog: they leave at once.

mod destination;
mod publisher;
mod retry_queue;
mod token_refresher;
mod udp;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::unix_now;

use crate::auth::TOKEN_LINE;
use crate::probe::{self, Probes, Reading};
use crate::sample::Sample;
use crate::sample::line::{Precision, encode_line};
use crate::stats::Heartbeat;
use crate::supervisor::spawn_supervised;
use crate::url::Url;
pub use destination::Destination;
use publisher::{Http, Publisher};
use retry_queue::{Backlog, QueuedSample};
use token_refresher::Token;

/// Longest sleep at once, so that a clock that was set is noticed.
const SLEEP_LONGEST: Duration = Duration::from_secs(1);
/// Longest time without a look at the clock of a monitor that is well: it is the reading of this host that hangs then.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a stop waits for a reading that is on its way.
const TICK_WITHIN: Duration = Duration::from_secs(1);
/// How long a stop waits for what is still to be published.
const STOP_WITHIN: Duration = Duration::from_secs(3);
const STOP_POLL: Duration = Duration::from_millis(5);

/// What `lizm monitor` is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this host, checked by [`crate::sample::check_host`].
    pub host: String,
    /// Where to publish.
    pub destinations: Vec<Destination>,
    /// Seconds between samples, 1 or more.
    pub interval_sec: u64,
    /// What to read of this host.
    pub probe: probe::Options,
    /// Most samples that wait for one destination.
    pub backlog_max: usize,
    /// Directory in which what waits survives the end of this process.
    pub spool: Option<PathBuf>,
    /// What it shows to receivers, and whom it trusts.
    pub credentials: Credentials,
}

/// What a monitor shows to receivers, and whom it trusts: files, all of them PEM but the token.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Authorities of the certificates of https receivers; without it those of the web.
    pub ca: Option<PathBuf>,
    /// This host's certificate, and those that lead from it to a root.
    pub certificate: Option<PathBuf>,
    /// The key of its certificate.
    pub key: Option<PathBuf>,
    /// The receiver that gives tokens for all destinations; without it each https one gives its own.
    pub token_from: Option<String>,
    /// A token for all destinations.
    pub token_file: Option<PathBuf>,
}

/// Where a sample goes from the thread that has read it.
enum Sink {
    /// To wait for a thread that publishes it.
    Backlog(Arc<Backlog>),
    /// Away at once.
    Udp(udp::Sender),
}

/// A monitor that runs until it is stopped.
pub struct Monitor {
    stop_ticks: mpsc::Sender<()>,
    ticks: JoinHandle<()>,
    /// Beats when this host was read, and while the next tick is waited for.
    heartbeat: Arc<Heartbeat>,
    publishers: Vec<(Arc<Backlog>, JoinHandle<()>)>,
}

impl Monitor {
    /// Takes the first reading and starts to publish; the first sample comes one interval later.
    ///
    /// # Errors
    /// When a file of the credentials cannot be used, a spool not be opened, or a thread not be started.
    pub fn start(options: &Options) -> io::Result<Self> {
        let probes = Probes::new(&options.probe)?;
        let (mut outlets, mut publishers) = (Vec::new(), Vec::new());
        let mut tokens = Tokens::new(&options.credentials)?;
        for destination in &options.destinations {
            let name = destination.to_string();
            let token = tokens.token_for(destination)?;
            if let Destination::Udp(url) = destination {
                outlets.push(Sink::Udp(udp::Sender::new(url, token)));
                continue;
            }
            let backlog = Arc::new(Backlog::open(&name, options.backlog_max, options.spool.as_deref())?);
            let (mut publisher, queue) = (Publisher::new(destination, &tokens.http, token)?, backlog.clone());
            let thread = spawn_supervised("publish", move || publisher.run(&queue))?;
            outlets.push(Sink::Backlog(backlog.clone()));
            publishers.push((backlog, thread));
        }
        let (stop_ticks, stopped) = mpsc::channel();
        let (options, heartbeat) = (options.clone(), Arc::new(Heartbeat::default()));
        let beating = heartbeat.clone();
        let run = move || read_until(&stopped, probes, &options, &mut outlets, &beating);
        let ticks = thread::Builder::new().name("tick".into()).spawn(run)?;
        Ok(Self { stop_ticks, ticks, heartbeat, publishers })
    }

    /// Why another process should take the place of this one, if so. A receiver that is gone is no reason.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        self.heartbeat.liveness_error("the reading of this host", SILENCE_MAX)
    }

    /// Stops reading, gives what waits a moment to be published, and says in the log what was not.
    pub fn stop(self) {
        drop(self.stop_ticks);
        if !is_soon(TICK_WITHIN, || self.ticks.is_finished()) {
            log::error!("The reading of this host hangs, and is not waited for");
        } else if self.ticks.join().is_err() {
            log::error!("The reading of this host had panicked");
        }
        self.publishers.iter().for_each(|(backlog, _)| backlog.close());
        is_soon(STOP_WITHIN, || self.publishers.iter().all(|(_, thread)| thread.is_finished()));
        self.publishers.iter().for_each(|(backlog, _)| backlog.tell_end());
    }
}

/// Waits for a condition, for up to `within`, and says whether it has come.
fn is_soon(within: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(STOP_POLL);
    }
    true
}

/// The tokens of a monitor's destinations, each asked for once.
struct Tokens<'a> {
    credentials: &'a Credentials,
    http: Http,
    known: HashMap<String, Arc<Token>>,
}

impl<'a> Tokens<'a> {
    fn new(credentials: &'a Credentials) -> io::Result<Self> {
        let http = publisher::http(credentials).map_err(io::Error::other)?;
        Ok(Self { credentials, http, known: HashMap::new() })
    }

    fn token_for(&mut self, destination: &Destination) -> io::Result<Arc<Token>> {
        let Credentials { certificate, token_from, token_file, .. } = self.credentials;
        let url = match (token_from, certificate) {
            (Some(url), _) => Some(destination::token_url_of(url).map_err(io::Error::other)?),
            (None, Some(_)) => destination.token_url(),
            (None, None) => None,
        };
        let name = url
            .as_ref()
            .map(Url::to_string)
            .or(token_file.as_ref().map(|file| file.display().to_string()))
            .unwrap_or_default();
        if let Some(token) = self.known.get(&name) {
            return Ok(token.clone());
        }
        let token = Arc::new(match (url, token_file) {
            (Some(url), None) => Token::given_by(url, self.http.clone())?,
            (_, Some(file)) => Token::in_file(file).map_err(io::Error::other)?,
            (None, None) => Token::None,
        });
        self.known.insert(name, token.clone());
        Ok(token)
    }
}

/// A sample as a datagram or a message: a line, and before it one with the token, if there is one.
fn message(sample: &Sample<'_>, token: Option<&str>) -> String {
    let line = encode_line(sample, Precision::Nanoseconds);
    token.map_or_else(|| line.clone(), |token| format!("{TOKEN_LINE}{token}\n{line}"))
}

/// The second of the first sample: a whole one, an interval from `now` to the nearest second.
fn first_tick(now: Duration, interval_sec: u64) -> u64 {
    (now + Duration::from_secs(interval_sec) + Duration::from_millis(500)).as_secs()
}

/// The latest tick of the row that `tick` begins that is not after `now`: those slept through are left out.
fn latest_tick(tick: u64, now: Duration, interval_sec: u64) -> u64 {
    tick + now.as_secs().saturating_sub(tick) / interval_sec * interval_sec
}

/// Waits until the wall clock reaches `tick` and returns the tick to take, or `None` when told to stop.
fn wait_for(mut tick: u64, interval_sec: u64, stopped: &mpsc::Receiver<()>, heartbeat: &Heartbeat) -> Option<u64> {
    loop {
        heartbeat.record();
        let now = unix_now();
        let Some(wait) = Duration::from_secs(tick).checked_sub(now).filter(|wait| !wait.is_zero()) else {
            return Some(latest_tick(tick, now, interval_sec));
        };
        if wait > Duration::from_secs(interval_sec + 1) {
            // The clock was set back: the row of ticks begins anew.
            tick = first_tick(now, interval_sec);
        } else if stopped.recv_timeout(wait.min(SLEEP_LONGEST)) != Err(RecvTimeoutError::Timeout) {
            return None;
        }
    }
}

fn read_until(
    stopped: &mpsc::Receiver<()>,
    mut probes: Probes,
    options: &Options,
    outlets: &mut [Sink],
    heartbeat: &Heartbeat,
) {
    let (started, source) = (Instant::now(), format!("{:016x}", random()));
    let mut problems = Vec::new();
    // The first reading has no rates, and is not published.
    log_new(&mut problems, probes.read(started.elapsed()).problems);
    let mut next = first_tick(unix_now(), options.interval_sec);
    for seq in 1_u64.. {
        let Some(tick) = wait_for(next, options.interval_sec, stopped, heartbeat) else { return };
        let Reading { values, problems: found } = probes.read(started.elapsed());
        log_new(&mut problems, found);
        if !values.is_empty() {
            let sample = Sample { host: options.host.clone().into(), epoch: tick, values };
            let outgoing = Arc::new(QueuedSample { sample, key: format!("{source}-{seq}") });
            outlets.iter_mut().for_each(|outlet| match outlet {
                Sink::Backlog(backlog) => backlog.push(outgoing.clone()),
                Sink::Udp(sender) => sender.publish(&outgoing.sample),
            });
        }
        next = tick + options.interval_sec;
    }
}

/// Logs the problems of a reading that the one before did not have.
fn log_new(problems: &mut Vec<String>, found: Vec<String>) {
    found.iter().filter(|problem| !problems.contains(problem)).for_each(|problem| log::error!("{problem}"));
    *problems = found;
}

/// A random number: the standard library seeds the keys of its hash maps from the operating system.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_whole_seconds_without_drift() {
        let at = |ms| Duration::from_millis(ms);
        assert_eq!((first_tick(at(10_000), 1), first_tick(at(10_499), 1), first_tick(at(10_500), 1)), (11, 11, 12));
        assert_eq!(first_tick(at(10_700), 60), 71);
        assert_eq!(latest_tick(11, at(11_003), 1), 11);
        assert_eq!(latest_tick(11, at(15_900), 1), 15, "ticks slept through are left out");
        assert_eq!(latest_tick(71, at(200_000), 60), 191);
    }
}
