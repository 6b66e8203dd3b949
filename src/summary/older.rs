//! What a series has on disk of one window, where memory holds the newest intervals alone.
//!
//! The samples of an interval are spread over three places, and each is in one of them: the ring in memory, the chunk on
//! disk, and what is still to be added to that chunk. A reader adds all three.

use std::collections::BTreeMap;

use super::{Bucket, Intervals, Window};
#[cfg(feature = "disk")]
use super::{CHUNK_INTERVALS, Ring};

/// The intervals of one window that have left memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Older {
    /// What is to be added to the chunks on disk, by the numbers of the intervals.
    pending: BTreeMap<u64, Bucket>,
    /// One past the newest interval that is on disk or is to be added there; 0 where there is none.
    pub(super) end: u64,
    /// The chunks of the ring that are on disk, which a restart reads back to memory.
    #[cfg(feature = "disk")]
    saved: Vec<u64>,
}

impl Older {
    /// Adds the samples of an interval, unless it has left its window at `now`.
    pub(super) fn add(&mut self, window: &Window, number: u64, bucket: Bucket, now: u64) {
        if number >= window.oldest(now) {
            self.take(number, bucket);
        }
    }

    /// Adds the samples of an interval.
    pub(super) fn take(&mut self, number: u64, bucket: Bucket) {
        if bucket.count > 0 {
            self.pending.entry(number).or_default().merge(bucket);
            self.end = self.end.max(number + 1);
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How many intervals something is to be added to.
    #[cfg(feature = "disk")]
    pub(super) fn waiting_count(&self) -> usize {
        self.pending.len()
    }

    /// The numbers of the chunks that something is to be added to.
    #[cfg(feature = "disk")]
    pub(super) fn waiting_chunks(&self) -> Vec<u64> {
        let mut chunks: Vec<u64> = self.pending.keys().map(|number| number / CHUNK_INTERVALS).collect();
        chunks.dedup();
        chunks
    }

    /// Takes what is to be added to the chunks on disk.
    #[cfg(feature = "disk")]
    pub(super) fn take_pending(&mut self) -> Intervals {
        std::mem::take(&mut self.pending).into_iter().collect()
    }

    /// What is to be added to the intervals of a range.
    pub(super) fn between(&self, first: u64, last: u64) -> Intervals {
        if first > last {
            return Intervals::new();
        }
        self.pending.range(first..=last).map(|(number, bucket)| (*number, *bucket)).collect()
    }

    /// Notes that a chunk of the ring is on disk.
    #[cfg(feature = "disk")]
    pub(super) fn note_saved(&mut self, chunk: u64) {
        if !self.saved.contains(&chunk) {
            self.saved.push(chunk);
        }
    }

    /// Names the chunks on disk whose intervals the ring does not hold any more, and forgets them.
    #[cfg(feature = "disk")]
    pub(super) fn take_stale(&mut self, ring: &Ring, mut stale: impl FnMut(u64)) {
        let held = ring.first() / CHUNK_INTERVALS..=ring.newest / CHUNK_INTERVALS;
        self.saved.retain(|chunk| {
            let is_held = !ring.is_empty() && held.contains(chunk);
            if !is_held {
                stale(*chunk);
            }
            is_held
        });
    }
}
