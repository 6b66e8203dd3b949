//! What the process counts about itself. Counters only rise, and are read without stopping what they count.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Panics of this process, in any of its threads; the hook that tells of them counts here.
pub static PANICS: Counter = Counter(AtomicU64::new(0));

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
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
    /// Requests that were a retry of one already counted.
    pub duplicates: Counter,
    /// Requests of the plain door that could not be dropped safely: each keeps a thread and two descriptors.
    pub parked: Counter,
}
