//! What the process counts about itself, in atomics: counting and reading never wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Panics of this process, in any of its threads. The panic hook counts them.
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

/// Upper bounds of the buckets of a [`Histogram`] in seconds; a last one has no bound. A submission takes some tens of
/// microseconds, a list of many hosts some tens of milliseconds.
pub const BOUNDS_SEC: [f64; 6] = [0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_SEC.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let took_sec = took.as_secs_f64();
        self.buckets[BOUNDS_SEC.partition_point(|bound_sec| *bound_sec < took_sec)].add(1);
        self.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many durations were at most each of [`BOUNDS_SEC`], and last how many there were in all.
    #[must_use]
    pub fn cumulative(&self) -> [u64; BOUNDS_SEC.len() + 1] {
        let mut sum = 0;
        self.buckets.each_ref().map(|bucket| {
            sum += bucket.get();
            sum
        })
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed))
    }
}

/// The routes that durations are counted by.
pub const ROUTES: [&str; 14] = [
    "submit",
    "write",
    "token",
    "page",
    "summaries",
    "hosts",
    "alerts",
    "remove",
    "health",
    "metrics",
    "ping",
    "query",
    "prometheus",
    "other",
];

/// The statuses that answers are counted by. The last, 0, stands for any other.
pub const STATUSES: [u16; 20] =
    [200, 204, 304, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417, 422, 429, 431, 500, 503, 505, 0];

/// When a loop last made progress, for a watchdog.
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

/// The time before the first record.
const NEVER: u64 = u64::MAX;

impl Heartbeat {
    /// Records that the loop has made progress.
    pub fn record(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Why the loop, which the sentence calls `what`, is not well: it has recorded nothing yet, or nothing for longer than
    /// `silence_max`.
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
    /// Lines of line protocol of which nothing was stored, because of their grammar or a limit.
    pub lines_refused: Counter,
    /// String fields of lines, which are skipped.
    pub strings: Counter,
    /// Datagrams that were longer than the limit, and dropped.
    pub datagrams_truncated: Counter,
    /// Datagrams that the kernel dropped because they came faster than they were read.
    pub datagrams_dropped: Counter,
    /// Requests, datagrams, messages and lines that were refused without a token that is good for them.
    pub untrusted: Counter,
    /// Requests with a wrong password.
    pub passwords_wrong: Counter,
    /// Requests whose password was not looked at, since their address had sent too many wrong ones.
    pub passwords_limited: Counter,
    /// Requests of browsers that a web page of another site has caused, and that would have changed the store.
    pub browsers_cross_site: Counter,
    /// Requests of browsers under a name that is not this receiver's.
    pub browsers_other_host: Counter,
    /// HTTPS connections whose handshake failed.
    pub handshakes_failed: Counter,
    /// HTTPS connections that were rejected for a limit.
    pub connections_rejected: Counter,
    /// Retries of requests that were counted before.
    pub duplicates: Counter,
    /// Samples and lines that break the grammar or a limit.
    pub refused_malformed: Counter,
    /// Samples and lines that were refused because their epoch lies ahead of the clock.
    pub refused_ahead: Counter,
    /// Samples and lines that the store could not take.
    pub refused_unavailable: Counter,
    /// Samples and lines whose values would all have been new series over the cap.
    pub refused_series_cap: Counter,
    /// How long it took to find the answers, by [`ROUTES`].
    pub durations: [Histogram; ROUTES.len()],
    /// Answers by [`STATUSES`].
    pub answers: [Counter; STATUSES.len()],
    /// 1 after a panic has ended the maintenance of the store.
    pub maintenance_ended: Counter,
}

impl Stats {
    /// Counts how long it took to find the answer to a request of a route.
    pub fn observe(&self, route: &str, took: Duration) {
        let place = ROUTES.iter().position(|known| *known == route).unwrap_or(ROUTES.len() - 1);
        self.durations[place].observe(took);
    }

    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        self.answers[place].add(1);
    }
}

impl fmt::Display for Stats {
    /// The counts that are not 0, as one line for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values stored", self.stored.get())?;
        let others = [
            (&self.expired, "expired"),
            (&self.refused, "refused"),
            (&self.duplicates, "requests duplicate"),
            (&self.untrusted, "not trusted"),
            (&self.passwords_wrong, "wrong passwords"),
            (&self.handshakes_failed, "TLS handshakes failed"),
            (&self.connections_rejected, "connections rejected"),
            (&self.lines_refused, "lines refused"),
            (&self.strings, "strings skipped"),
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
    fn a_heartbeat_is_well_while_it_is_recorded() {
        let heartbeat = Heartbeat::default();
        assert_eq!(heartbeat.liveness_error("the server", Duration::MAX).unwrap(), "the server has not begun");
        heartbeat.record();
        assert_eq!(heartbeat.liveness_error("the server", Duration::from_secs(60)), None);
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
        assert_eq!(stats.durations[ROUTES.len() - 1].cumulative(), [0, 0, 0, 0, 1, 1, 1]);
    }
}
