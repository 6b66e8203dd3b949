//! The monitoring side: a tick that reads this host, and for each destination a backlog and a thread that publishes it.
//!
//! Reading and publishing are apart: a slow or dead destination delays neither the readings nor the others. Each
//! destination gets the samples strictly in order, one request at a time; a sample leaves its backlog when it was
//! taken, refused for good, or pushed out by newer ones.

mod backlog;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::probe::{self, Probe};
use crate::sample::encode_values;
use backlog::{Backlog, Outgoing};

/// First and longest wait before a sample is tried again; the wait doubles in between.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Pause between samples of a backlog: a receiver that is back gets up to 250 a second from each monitor.
const REPLAY_PAUSE: Duration = Duration::from_millis(4);
/// Longest time for a connection, and for a whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes read of an answer; the receiver's own are far shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Longest wait that a receiver's `Retry-After` is honoured for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Longest sleep at once, so that a clock that was set is noticed.
const SLEEP_LONGEST: Duration = Duration::from_secs(1);
/// How long a stop waits for what is still to be published.
const STOP_WITHIN: Duration = Duration::from_secs(3);
const STOP_POLL: Duration = Duration::from_millis(5);

/// What a path segment keeps as it is (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What `lizm monitor` is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this host, checked by [`crate::sample::check_host`].
    pub host: String,
    /// Where to publish.
    pub destinations: Vec<Destination>,
    /// Seconds between samples, 1 or more.
    pub interval_sec: u64,
    /// Where the proc file system is mounted.
    pub procfs: PathBuf,
    /// Most samples that wait for one destination.
    pub backlog_max: usize,
    /// Directory in which what waits survives the end of this process.
    pub spool: Option<PathBuf>,
}

/// A receiver's API: the URL that host and epoch are appended to, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(String);

impl Destination {
    /// Reads a publish URL: a path is the prefix of the API, no path means `/api/perf`.
    ///
    /// # Errors
    /// A sentence that names the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{url:?}: {why}"));
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("not a URL such as http://receiver:8080");
        };
        if !scheme.eq_ignore_ascii_case("http") {
            return wrong("the scheme is not http, the only one this version publishes by");
        }
        if rest.contains(['?', '#']) {
            return wrong("has a query or a fragment, which the path of the API cannot have");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.trim_end_matches('/').is_empty() { "/api/perf" } else { path.trim_end_matches('/') };
        let prefix = format!("http://{authority}{path}");
        match prefix.parse::<ureq::http::Uri>() {
            Ok(uri) if uri.host().is_none_or(str::is_empty) => wrong("names no host"),
            Ok(uri) if uri.port().is_none() && authority.rsplit(']').next().is_some_and(|end| end.contains(':')) => {
                wrong("the port is not a number up to 65535")
            }
            Ok(_) => Ok(Self(prefix)),
            Err(error) => wrong(&error.to_string()),
        }
    }

    /// Where the receiver shows what `host` has published.
    #[must_use]
    pub fn host_url(&self, host: &str) -> String {
        format!("{}/{}", self.0, utf8_percent_encode(host, SEGMENT))
    }
}

/// A monitor that runs until it is stopped.
pub struct Monitor {
    stop_ticks: mpsc::Sender<()>,
    ticks: JoinHandle<()>,
    publishers: Vec<(Arc<Backlog>, JoinHandle<()>)>,
}

impl Monitor {
    /// Takes the first reading and starts to publish; the first sample comes one interval later.
    ///
    /// # Errors
    /// When a spool cannot be opened or a thread not be started.
    pub fn start(options: &Options) -> io::Result<Self> {
        let publishers = options
            .destinations
            .iter()
            .map(|destination| {
                let backlog = Backlog::open(&destination.0, options.backlog_max, options.spool.as_deref())?;
                let backlog = Arc::new(backlog);
                let (publisher, queue) = (Publisher::new(), backlog.clone());
                let thread = thread::Builder::new().name("publish".into()).spawn(move || publisher.run(&queue))?;
                Ok((backlog, thread))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let (stop_ticks, stopped) = mpsc::channel();
        let backlogs: Vec<_> = publishers.iter().map(|(backlog, _)| backlog.clone()).collect();
        let options = options.clone();
        let ticks =
            thread::Builder::new().name("tick".into()).spawn(move || read_until(&stopped, &options, &backlogs))?;
        Ok(Self { stop_ticks, ticks, publishers })
    }

    /// Stops reading, gives what waits a moment to be published, and says in the log what was not.
    pub fn stop(self) {
        drop(self.stop_ticks);
        if self.ticks.join().is_err() {
            log::error!("The reading of this host had panicked");
        }
        let deadline = Instant::now() + STOP_WITHIN;
        self.publishers.iter().for_each(|(backlog, _)| backlog.close());
        while Instant::now() < deadline && !self.publishers.iter().all(|(_, thread)| thread.is_finished()) {
            thread::sleep(STOP_POLL);
        }
        self.publishers.iter().for_each(|(backlog, _)| backlog.tell_end());
    }
}

/// The wall clock since the Unix epoch.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
fn wait_for(mut tick: u64, interval_sec: u64, stopped: &mpsc::Receiver<()>) -> Option<u64> {
    loop {
        let now = wall_clock();
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

fn read_until(stopped: &mpsc::Receiver<()>, options: &Options, backlogs: &[Arc<Backlog>]) {
    let (probe, source) = (Probe::new(options.procfs.clone()), format!("{:016x}", random()));
    let host = utf8_percent_encode(&options.host, SEGMENT).to_string();
    let mut before = probe.read();
    let mut problems = Vec::new();
    let mut next = first_tick(wall_clock(), options.interval_sec);
    for seq in 1_u64.. {
        let Some(tick) = wait_for(next, options.interval_sec, stopped) else { return };
        let after = probe.read();
        let found: Vec<String> = after.problems().map(str::to_owned).collect();
        if found != problems {
            found.iter().for_each(|problem| log::error!("Reading this host failed, details: {problem}"));
            problems = found;
        }
        let values = probe::values(&before, &after);
        if !values.is_empty() {
            let (path, key) = (format!("{host}/{tick}"), format!("{source}-{seq}"));
            let sample = Arc::new(Outgoing { path, key, body: encode_values(&values) });
            backlogs.iter().for_each(|backlog| backlog.push(sample.clone()));
        }
        before = after;
        next = tick + options.interval_sec;
    }
}

/// What came of one attempt to publish a sample.
#[derive(Debug)]
enum Outcome {
    Published,
    /// The receiver will never take it.
    Refused(String),
    /// The receiver did not take it now, and may have said when it will.
    Later(String, Option<Duration>),
    /// The receiver has no room for it: it is tried once more.
    NoRoom(String, Option<Duration>),
    /// The connection has ended without an answer: the receiver may have it or not.
    Unanswered(String),
}

/// Publishes the samples of one backlog to its destination.
struct Publisher {
    agent: ureq::Agent,
}

impl Publisher {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The environment's proxy is for the web; a receiver is a neighbour.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .user_agent(concat!("lizm/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into() }
    }

    fn run(&self, backlog: &Backlog) {
        let (mut retry, mut kept_connection, mut had_no_room) = (Retry::default(), false, false);
        while let Some(sample) = backlog.front() {
            let url = format!("{}/{}", backlog.destination(), sample.path);
            let again = match self.publish(&url, &sample) {
                Outcome::Published => {
                    log::info!("Publish was successful to {url}");
                    None
                }
                // A kept connection may have ended since the sample before: that alone is no failure.
                Outcome::Unanswered(_) if kept_connection => {
                    kept_connection = false;
                    continue;
                }
                Outcome::NoRoom(details, after) if !had_no_room => {
                    had_no_room = true;
                    Some((details, after))
                }
                Outcome::Refused(details) | Outcome::NoRoom(details, _) => {
                    log::error!("Publish failed to {url}, details: {details}");
                    None
                }
                Outcome::Later(details, after) => Some((details, after)),
                Outcome::Unanswered(details) => Some((details, None)),
            };
            if let Some((details, after)) = again {
                log::error!("Publish failed to {url}, details: {details}");
                if backlog.closes_within(retry.next_wait(random()).max(after.unwrap_or_default())) {
                    return;
                }
                continue;
            }
            (retry, kept_connection, had_no_room) = (Retry::default(), true, false);
            if backlog.done(&sample) > 0 {
                backlog.closes_within(REPLAY_PAUSE);
            }
        }
    }

    fn publish(&self, url: &str, sample: &Outgoing) -> Outcome {
        let request =
            self.agent.post(url).header("Content-Type", "application/json").header("Idempotency-Key", &sample.key);
        let mut response = match request.send(&sample.body[..]) {
            Ok(response) => response,
            Err(error @ ureq::Error::Timeout(_)) => return Outcome::Later(error.to_string(), None),
            Err(error) => return Outcome::Unanswered(error.to_string()),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("Retry-After").and_then(|after| after.to_str().ok());
        let after = after.and_then(|after| retry_after(after, SystemTime::now()));
        let answer = match response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string() {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unanswered(format!("HTTP {status}, and its body: {error}")),
        };
        let said = serde_json::from_str::<serde_json::Value>(&answer).ok();
        let said =
            said.as_ref().and_then(|answer| answer["error"].as_str()).map_or(String::new(), |said| format!(": {said}"));
        match status {
            200..=299 => Outcome::Published,
            429 => Outcome::NoRoom(format!("HTTP {status}{said}"), after),
            401 | 408 | 500..=599 => Outcome::Later(format!("HTTP {status}{said}"), after),
            _ => Outcome::Refused(format!("HTTP {status}{said}")),
        }
    }
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The wait before a sample is tried again.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    /// From a quarter of a second, doubled each time up to five, and of that between half and all by chance, so that
    /// the monitors of a fleet do not come back at one moment.
    fn next_wait(&mut self, random: u64) -> Duration {
        let longest = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        self.failures += 1;
        let half_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) / 2;
        Duration::from_millis(half_ms + random % (half_ms + 1)).max(RETRY_FIRST)
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
    fn urls_are_the_prefix_of_the_api() {
        let url = |url: &str| Destination::parse(url).map(|destination| destination.host_url("jar vis/1"));
        for (given, prefix) in [
            ("http://r", "http://r/api/perf"),
            ("HTTP://r:8080/", "http://r:8080/api/perf"),
            ("http://[::1]:8080/api/perf/", "http://[::1]:8080/api/perf"),
            ("http://r/lizm/api/perf", "http://r/lizm/api/perf"),
        ] {
            assert_eq!(url(given), Ok(format!("{prefix}/jar%20vis%2F1")), "{given}");
        }
        for bad in
            ["", "r:8080", "http://", "http:///api", "ftp://r", "http://r/api?x=1", "http://r x", "http://r:port"]
        {
            assert!(url(bad).unwrap_err().contains(&format!("{bad:?}")), "{bad:?}");
        }
    }

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
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_465_001_814);
        let wait = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!((wait("0"), wait(" 17 "), wait("86400")), (Some(0), Some(17), Some(300)));
        let later = httpdate::fmt_http_date(now + Duration::from_secs(20));
        assert_eq!((wait(&later), wait("Sat, 01 Jan 2000 00:00:00 GMT"), wait("soon")), (Some(20), Some(0), None));
    }

    #[test]
    fn waits_grow_to_five_seconds_and_start_anew() {
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let mut retry = Retry::default();
            let waits: Vec<Duration> = (0..40).map(|_| retry.next_wait(random)).collect();
            assert!(waits.iter().all(|wait| (RETRY_FIRST..=RETRY_LONGEST).contains(wait)), "{waits:?}");
            assert!(waits[10] >= RETRY_LONGEST / 2);
        }
    }
}
