//! What the process counts about itself. Counters only rise, and are read without stopping what they count.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Panics of this process, in any of its threads; the hook that tells of them counts here.
pub static PANICS: Counter = Counter(AtomicU64::new(0));

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: usize) {
        if n > 0 {
            self.0.fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is measured now and then.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Measured to be `n`.
    pub fn set(&self, n: usize) {
        self.0.store(n as u64, Ordering::Relaxed);
    }

    /// The number when it was last measured.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`] in seconds; a last one has no bound. A submission takes some tens of
/// microseconds, a list of many hosts some tens of milliseconds.
pub const BOUNDS_SEC: [f64; 6] = [0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0];

/// How long things took, by how many took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_SEC.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one thing that took so long.
    pub fn observe(&self, took: Duration) {
        let took_sec = took.as_secs_f64();
        self.buckets[BOUNDS_SEC.partition_point(|bound_sec| *bound_sec < took_sec)].add(1);
        self.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many took up to each of [`BOUNDS_SEC`], and last how many there were.
    #[must_use]
    pub fn cumulative(&self) -> [u64; BOUNDS_SEC.len() + 1] {
        let mut sum = 0;
        self.buckets.each_ref().map(|bucket| {
            sum += bucket.get();
            sum
        })
    }

    /// How long all of them took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed))
    }
}

/// What requests ask for, as it is counted.
pub const ROUTES: [&str; 12] =
    ["submit", "write", "token", "page", "summaries", "hosts", "remove", "health", "metrics", "ping", "query", "other"];

/// Statuses of answers, as they are counted; any other is among the last.
pub const STATUSES: [u16; 20] =
    [200, 204, 304, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417, 422, 429, 431, 500, 503, 505, 0];
/// When something that goes on and on was last seen to do so.
#[derive(Debug)]
pub struct Heartbeat {
    since: Instant,
    last_ms: AtomicU64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { since: Instant::now(), last_ms: AtomicU64::new(NEVER) }
    }
}

/// The time of a beat that has not come.
const NEVER: u64 = u64::MAX;

impl Heartbeat {
    /// It goes on.
    pub fn record(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Why it does not go on as it should, in words with `what` it is: nothing was seen of it yet, or not for a time
    /// longer than `silence_max`.
    #[must_use]
    pub fn liveness_error(&self, what: &str, silence_max: Duration) -> Option<String> {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        if last_ms == NEVER {
            return Some(format!("{what} has not begun"));
        }
        let silence = Duration::from_millis(self.now_ms().saturating_sub(last_ms));
        (silence > silence_max).then(|| format!("{what} has stood still for {} seconds", silence.as_secs()))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// The receiver's counters.
#[derive(Debug, Default)]
pub struct Stats {
    /// Values that were stored.
    pub stored: Counter,
    /// Values that were too old for every window.
    pub expired: Counter,
    /// Values that the cap on series refused.
    pub refused: Counter,
    /// Lines of line protocol of which nothing was stored, because of what they say or of a limit.
    pub lines_refused: Counter,
    /// Fields of lines that are strings, which are passed over.
    pub strings: Counter,
    /// Datagrams that were longer than the limit, and dropped.
    pub datagrams_truncated: Counter,
    /// Datagrams that the kernel dropped because they came faster than they were read.
    pub datagrams_dropped: Counter,
    /// Requests, datagrams, messages and lines that were refused for want of a token that is good for them.
    pub untrusted: Counter,
    /// Connections of the HTTPS door that ended before a request could be sent.
    pub handshakes_failed: Counter,
    /// Connections that the HTTPS door had no room for.
    pub connections_rejected: Counter,
    /// Requests that were a retry of one already counted.
    pub duplicates: Counter,
    /// Samples and lines that were refused for what they say.
    pub refused_malformed: Counter,
    /// Samples and lines that were refused because their epoch lies ahead.
    pub refused_ahead: Counter,
    /// Samples and lines that the store could not take.
    pub refused_unavailable: Counter,
    /// Samples and lines whose values would all have been new series over the cap.
    pub refused_series_cap: Counter,
    /// How long answers took to find, by [`ROUTES`].
    pub durations: [Histogram; ROUTES.len()],
    /// Answers by [`STATUSES`].
    pub answers: [Counter; STATUSES.len()],
    /// Connections of the plain door, by their first requests.
    pub connections: Counter,
    /// Whether a panic has ended the maintenance of the store: 1 then.
    pub maintenance_ended: Counter,
    /// Requests of the plain door that could not be dropped safely: each keeps a thread and two descriptors.
    pub parked: Counter,
    /// Connections of the plain door whose clients have gone, and which it does not let go: those of parked requests,
    /// and those that tiny_http has got stuck with. Each keeps a thread.
    pub left_behind: Gauge,
}

impl Stats {
    /// Counts how long the answer to a request of a route took to find.
    pub fn observe(&self, route: &str, took: Duration) {
        let place = ROUTES.iter().position(|known| *known == route).unwrap_or(ROUTES.len() - 1);
        self.durations[place].observe(took);
    }

    /// Counts an answer that a door gives.
    pub fn answered(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        self.answers[place].add(1);
    }
}

impl fmt::Display for Stats {
    /// One line for the log, of what there was.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values stored", self.stored.get())?;
        let others = [
            (&self.expired, "expired"),
            (&self.refused, "refused"),
            (&self.duplicates, "requests duplicate"),
            (&self.untrusted, "not trusted"),
            (&self.handshakes_failed, "TLS handshakes failed"),
            (&self.connections_rejected, "connections turned away"),
            (&self.parked, "parked"),
            (&self.lines_refused, "lines refused"),
            (&self.strings, "strings passed over"),
            (&self.datagrams_truncated, "datagrams too long"),
            (&self.datagrams_dropped, "datagrams dropped by the kernel"),
        ];
        others
            .iter()
            .filter(|(counter, _)| counter.get() > 0)
            .try_for_each(|(counter, what)| write!(f, ", {} {what}", counter.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_well_while_it_beats() {
        let heartbeat = Heartbeat::default();
        assert_eq!(heartbeat.liveness_error("the door", Duration::MAX).unwrap(), "the door has not begun");
        heartbeat.record();
        assert_eq!(heartbeat.liveness_error("the door", Duration::from_secs(60)), None);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        let stopped = Heartbeat { since: long_ago, last_ms: AtomicU64::new(500) };
        assert_eq!(stopped.liveness_error("it", Duration::from_secs(60)).unwrap(), "it has stood still for 89 seconds");
    }

    #[test]
    fn durations_fall_into_their_buckets() {
        let stats = Stats::default();
        for ns in [0, 100_000, 100_001, 2_000_000_000, 60_000_000_000] {
            stats.observe("hosts", Duration::from_nanos(ns));
        }
        stats.observe("brew", Duration::from_secs(1));
        assert_eq!(stats.durations[5].cumulative(), [2, 3, 3, 3, 3, 4, 5]);
        assert_eq!(stats.durations[5].sum(), Duration::from_nanos(62_000_200_001));
        assert_eq!(stats.durations[11].cumulative(), [0, 0, 0, 0, 1, 1, 1]);
    }
}
