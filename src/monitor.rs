//! The monitor: a thread that samples this host, and for each destination a retry queue and a thread that publishes it.
//!
//! Sampling and publishing are apart: a slow or dead destination delays neither the sampling nor the others. Each
//! destination gets the samples strictly in order, one at a time. A sample leaves its queue when it was published, refused
//! for good, or dropped for newer ones. The sampling thread touches no network and, but for what it reads, no disk.

mod destination;
mod http;
mod own_token;
mod publisher;
mod retry_queue;
mod spool;
mod token;
mod udp;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::unix_now;
use crate::probe::{self, Probes, Reading};
use crate::sample::{Sample, Tags, parse_key};
use crate::stats::Heartbeat;
use crate::supervisor::spawn_supervised;
use crate::url::Url;
pub use destination::{Destination, token_url};
use publisher::Publisher;
use retry_queue::RetryQueue;
use spool::SpoolDir;
use token::TokenSources;

/// Longest sleep at once, so that a step of the clock is noticed.
const SLEEP_LONGEST: Duration = Duration::from_secs(1);
/// Longest time without a heartbeat of a sampling thread that is well; after it the sampling of this host hangs.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A problem that comes and goes is logged again after so many readings without it.
const REPORTED_AGAIN_AFTER: u64 = 60;
/// How long a stop waits for a sampling that is on its way.
const TICK_WITHIN: Duration = Duration::from_secs(1);
/// How long a stop waits for what is still to be published.
const PUBLISH_WITHIN: Duration = Duration::from_secs(3);
/// How long a stop waits for the spools to be written.
const SPOOL_WITHIN: Duration = Duration::from_secs(3);
const STOP_POLL: Duration = Duration::from_millis(5);

/// The options of `lizm monitor`.
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
    /// Directory of the spools, in which waiting samples survive the end of the process.
    pub spool: Option<PathBuf>,
    /// What the monitor shows to receivers, and whom it trusts.
    pub credentials: Credentials,
    /// The tags of this host, if it is to say which it has.
    pub tags: Option<Tags>,
    /// Whether the log has a line for each sample, or only for what changes.
    pub logs_each: bool,
}

/// What a monitor shows to receivers, and whom it trusts. The files are PEM, but for the token's.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Authorities of the certificates of https receivers; without it those of the web.
    pub ca: Option<PathBuf>,
    /// This host's certificate, and its chain.
    pub certificate: Option<PathBuf>,
    /// The key of its certificate.
    pub key: Option<PathBuf>,
    /// Where a receiver gives tokens for all destinations, of [`token_url`]; without it each https one gives its own.
    pub token_from: Option<Url>,
    /// A token for all destinations.
    pub token_file: Option<PathBuf>,
    /// How this host joins.
    pub join: Option<JoinOptions>,
}

/// How a host joins, which gives it a token of its own.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The token to join with.
    pub token: JoinToken,
    /// The directory that keeps the host's own token.
    pub state: PathBuf,
}

/// Where the token to join with is.
#[derive(Clone)]
pub enum JoinToken {
    /// Here.
    Given(String),
    /// In a file.
    File(PathBuf),
    /// Nowhere: a host that has joined goes on by its own, and another shows none.
    None,
}

/// No token is ever logged.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

/// A sample on its way, the same for every destination.
#[derive(Debug, PartialEq)]
struct QueuedSample {
    sample: Sample<'static>,
    /// The idempotency key: it keeps a retry from counting twice.
    key: String,
}

/// A monitor that runs until it is stopped.
pub struct Monitor {
    stop_sampling: mpsc::Sender<()>,
    sampling: JoinHandle<()>,
    /// Recorded when this host was sampled, and while the next tick is waited for.
    heartbeat: Arc<Heartbeat>,
    sinks: Vec<Sink>,
    /// Locks the directory of the spools.
    _spools: Option<SpoolDir>,
}

/// A destination's queue, and the threads that empty it and keep its spool.
struct Sink {
    queue: Arc<RetryQueue>,
    publishing: JoinHandle<()>,
    spooling: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Takes the first reading and starts to publish; the first sample comes one interval later.
    ///
    /// # Errors
    /// When a file of the credentials cannot be used, a spool not be opened, or a thread not be started.
    pub fn start(options: &Options) -> io::Result<Self> {
        let probes = Probes::new(&options.probe)?;
        let agent = http::shared_agent(&options.credentials).map_err(io::Error::other)?;
        let mut tokens = TokenSources::new(&options.credentials, &options.host, agent.clone());
        let spools = options.spool.as_deref().map(SpoolDir::open).transpose()?;
        let mut keys = Keys::new(spools.as_ref().map(|spools| spools.source.clone()));
        let mut sinks = Vec::new();
        if !options.logs_each {
            let destinations: Vec<String> = options.destinations.iter().map(ToString::to_string).collect();
            let (host, probes, interval) = (&options.host, options.probe.probes.names(), options.interval_sec);
            let destinations = destinations.join(", ");
            log::info!("Host {host} is measured every {interval} s by {probes}, and published to {destinations}");
        }
        tokens.check(&options.destinations)?;
        for destination in &options.destinations {
            let publisher = Publisher::new(destination, &agent, tokens.of(destination)?, options)?;
            sinks.push(Sink::start(destination, publisher, options.backlog_max, spools.as_ref(), &mut keys)?);
        }
        let (stop_sampling, stopped) = mpsc::channel();
        let (options, heartbeat) = (options.clone(), Arc::new(Heartbeat::default()));
        let queues: Vec<Arc<RetryQueue>> = sinks.iter().map(|sink| sink.queue.clone()).collect();
        let recorded = heartbeat.clone();
        let run = move || sample_until(&stopped, probes, &options, keys, &queues, &recorded);
        let sampling = thread::Builder::new().name("sample".into()).spawn(run)?;
        Ok(Self { stop_sampling, sampling, heartbeat, sinks, _spools: spools })
    }

    /// Why another process should take the place of this one, if so. A receiver that is gone is no reason.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        self.heartbeat.liveness_error("the reading of this host", SILENCE_MAX)
    }

    /// Stops sampling, gives what waits a moment to be published, and says in the log what was not.
    pub fn stop(self) {
        drop(self.stop_sampling);
        if !is_soon(TICK_WITHIN, || self.sampling.is_finished()) {
            log::error!("The reading of this host hangs, and is not waited for");
        } else if self.sampling.join().is_err() {
            log::error!("The reading of this host had panicked");
        }
        self.sinks.iter().for_each(|sink| sink.queue.close());
        is_soon(PUBLISH_WITHIN, || self.sinks.iter().all(|sink| sink.publishing.is_finished()));
        self.sinks.iter().for_each(|sink| sink.queue.close_spool());
        is_soon(SPOOL_WITHIN, || self.sinks.iter().all(Sink::is_spooled));
        self.sinks.iter().for_each(|sink| sink.queue.log_end(sink.spooling.is_some() && sink.is_spooled()));
    }
}

impl Sink {
    /// Opens the spool of a destination, and starts its threads.
    fn start(
        destination: &Destination,
        mut publisher: Publisher,
        samples_max: usize,
        spools: Option<&SpoolDir>,
        keys: &mut Keys,
    ) -> io::Result<Self> {
        let name = destination.to_string();
        // A datagram has no key: a sample that was sent again after a restart would count twice.
        let spools = spools.filter(|_| !matches!(destination, Destination::Udp(_)));
        let (mut spool, mut waiting) = (None, VecDeque::new());
        if let Some(spools) = spools {
            let (opened, restored) = spools.open_spool(&name, samples_max)?;
            log::info!("Spool {} has {} samples for {name}", opened.path().display(), restored.samples.len());
            restored.last_key.iter().for_each(|key| keys.continue_after(key));
            (spool, waiting) = (Some(opened), restored.samples);
        }
        let queue = Arc::new(RetryQueue::new(name, samples_max, waiting));
        let (published, spooled) = (queue.clone(), queue.clone());
        let publishing = spawn_supervised("publish", move || publisher.run(&published))?;
        let spooling = spool.map(|mut spool| spawn_supervised("spool", move || spooled.keep_spool(&mut spool)));
        Ok(Self { queue, publishing, spooling: spooling.transpose()? })
    }

    /// Whether nothing is to be written to the spool any more.
    fn is_spooled(&self) -> bool {
        self.spooling.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Makes the idempotency keys of the samples: a source, and numbers that rise from one process to the next.
struct Keys {
    source: String,
    last_seq: u64,
}

impl Keys {
    /// Keys of a source, or of a random one.
    fn new(source: Option<String>) -> Self {
        Self { source: source.unwrap_or_else(|| format!("{:016x}", random())), last_seq: 0 }
    }

    /// Has the next keys come after one that was given before.
    fn continue_after(&mut self, key: &str) {
        if let Some(key) = parse_key(key).ok().filter(|key| key.source == self.source) {
            self.last_seq = self.last_seq.max(key.seq);
        }
    }

    /// The next key. Its number is the time in milliseconds where that is free, so that it is above those of a process
    /// that could not note what it gave.
    fn next(&mut self, now: Duration) -> String {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_seq = now_ms.max(self.last_seq.saturating_add(1));
        format!("{}-{}", self.source, self.last_seq)
    }
}

/// Waits up to `within` for a condition, and returns whether it came.
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

/// The second of the first sample: a whole one, an interval from `now` to the nearest second.
fn first_tick(now: Duration, interval_sec: u64) -> u64 {
    (now + Duration::from_secs(interval_sec) + Duration::from_millis(500)).as_secs()
}

/// The latest of the ticks `tick`, `tick + interval_sec`, … that is not after `now`: those slept through are left out.
fn latest_tick(tick: u64, now: Duration, interval_sec: u64) -> u64 {
    tick + now.as_secs().saturating_sub(tick) / interval_sec * interval_sec
}

/// Waits until the wall clock reaches `tick` and returns the tick to take, or `None` on a stop.
fn wait_for(mut tick: u64, interval_sec: u64, stopped: &mpsc::Receiver<()>, heartbeat: &Heartbeat) -> Option<u64> {
    loop {
        heartbeat.record();
        let now = unix_now();
        let Some(wait) = Duration::from_secs(tick).checked_sub(now).filter(|wait| !wait.is_zero()) else {
            return Some(latest_tick(tick, now, interval_sec));
        };
        if wait > Duration::from_secs(interval_sec + 1) {
            // The clock was set back: the ticks begin again.
            tick = first_tick(now, interval_sec);
        } else if stopped.recv_timeout(wait.min(SLEEP_LONGEST)) != Err(RecvTimeoutError::Timeout) {
            return None;
        }
    }
}

fn sample_until(
    stopped: &mpsc::Receiver<()>,
    mut probes: Probes,
    options: &Options,
    mut keys: Keys,
    queues: &[Arc<RetryQueue>],
    heartbeat: &Heartbeat,
) {
    let started = Instant::now();
    let mut problems = Problems::default();
    // The first reading has no rates, and is not published.
    problems.log(&probes.read(started.elapsed()));
    let mut next = first_tick(unix_now(), options.interval_sec);
    while let Some(tick) = wait_for(next, options.interval_sec, stopped, heartbeat) {
        let reading = probes.read(started.elapsed());
        problems.log(&reading);
        let values = reading.values;
        if !values.is_empty() {
            let sample = Sample { host: options.host.clone().into(), epoch: tick, values };
            let queued = Arc::new(QueuedSample { sample, key: keys.next(unix_now()) });
            queues.iter().for_each(|queue| queue.push(queued.clone()));
        }
        next = tick + options.interval_sec;
    }
}

/// The problems of the last readings.
#[derive(Default)]
struct Problems {
    /// Each with the reading that had it last.
    known: Vec<(String, u64)>,
    readings: u64,
}

impl Problems {
    /// Logs what a reading lacks and the last ones did not.
    fn log(&mut self, reading: &Reading) {
        self.readings += 1;
        self.known.retain(|(_, last)| self.readings - last <= REPORTED_AGAIN_AFTER);
        let problems = reading.problems.iter().map(|problem| (log::Level::Error, problem));
        let left_out = reading.left_out.iter().map(|what| (log::Level::Info, what));
        for (level, problem) in problems.chain(left_out) {
            if let Some((_, last)) = self.known.iter_mut().find(|(known, _)| known == problem) {
                *last = self.readings;
            } else {
                log::log!(level, "{problem}");
                self.known.push((problem.clone(), self.readings));
            }
        }
    }
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

    #[test]
    fn keys_rise_whatever_the_clock_does() {
        let mut keys = Keys::new(Some("s".to_owned()));
        let at = |ms| Duration::from_millis(ms);
        assert_eq!([keys.next(at(5000)), keys.next(at(5000)), keys.next(at(1000))], ["s-5000", "s-5001", "s-5002"]);
        keys.continue_after("other-9000");
        keys.continue_after("s-4000");
        assert_eq!(keys.next(at(0)), "s-5003");
        keys.continue_after("s-7000");
        assert_eq!([keys.next(at(0)), keys.next(at(8000))], ["s-7001", "s-8000"]);
        assert_eq!(Keys::new(None).source.len(), 16);
    }
}
