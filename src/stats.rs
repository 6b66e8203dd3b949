//! What the process counts about itself. Counters only rise, and are read without stopping what they count.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

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
    pub connections_turned_away: Counter,
    /// Requests that were a retry of one already counted.
    pub duplicates: Counter,
    /// Requests of the plain door that could not be dropped safely: each keeps a thread and two descriptors.
    pub parked: Counter,
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
            (&self.connections_turned_away, "connections turned away"),
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
