//! What is kept of one host: its series, when it was last heard, and which requests of its sources were counted.

use std::borrow::Cow;

use super::labels::Labels;
use crate::sample::{AHEAD_SEC_MAX, Key};
use crate::summary::WINDOWS;

/// Sources remembered for one host: more than ever publish for one at a time. The one longest unheard gives way, which
/// is one of a monitor that was started anew since.
pub(super) const SOURCES_PER_HOST_MAX: usize = 64;

/// Gaps between epochs that the interval of a host is learned from: one lost sample in three does not mislead it.
const GAPS: usize = 3;

/// Newest sequence number of one source, so that a retry is known.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Box<str>,
    pub(super) seq: u64,
    pub(super) heard_sec: u64,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) series: Labels,
    pub(super) sources: Vec<Source>,
    pub(super) last_epoch: u64,
    pub(super) gaps_sec: [u32; GAPS],
    /// Whether it differs from what the newest checkpoint has of it.
    pub(super) changed: bool,
}

impl Host {
    /// Records values that are to be stored. The cap has been looked at.
    pub(super) fn apply(&mut self, epoch: u64, values: &[(Cow<'_, str>, f64)], key: Option<Key<'_>>, now: u64) {
        let mut likely = 0;
        for (label, value) in values {
            let (place, series) = self.series.get_or_make(label, likely);
            series.record(epoch, *value, now);
            likely = place + 1;
        }
        self.hear_of(epoch, key, now);
    }

    /// Notes that a sample was recorded.
    pub(super) fn hear_of(&mut self, epoch: u64, key: Option<Key<'_>>, now: u64) {
        self.hear(epoch, now);
        if let Some(key) = key {
            self.remember(key, now);
        }
        self.changed = true;
    }

    pub(super) fn is_duplicate(&self, key: Key<'_>) -> bool {
        self.sources.iter().any(|source| *source.name == *key.source && source.seq >= key.seq)
    }

    fn remember(&mut self, key: Key<'_>, now: u64) {
        if let Some(source) = self.sources.iter_mut().find(|source| *source.name == *key.source) {
            source.seq = key.seq;
            source.heard_sec = now;
            return;
        }
        if self.sources.len() >= SOURCES_PER_HOST_MAX {
            let oldest = self.sources.iter().enumerate().min_by_key(|(_, source)| source.heard_sec);
            if let Some((place, _)) = oldest {
                self.sources.swap_remove(place);
            }
        }
        self.sources.reserve_exact(1);
        self.sources.push(Source { name: key.source.into(), seq: key.seq, heard_sec: now });
    }

    /// Makes the next checkpoint write everything.
    #[cfg(feature = "disk")]
    pub(super) fn mark_all_changed(&mut self) {
        self.changed = true;
        self.series.iter_mut().for_each(|(_, series)| series.mark_all_changed());
    }

    /// Learns the interval between samples from one that is newer than all before.
    fn hear(&mut self, epoch: u64, now: u64) {
        if self.last_epoch > now.saturating_add(AHEAD_SEC_MAX) {
            // The clock was set back since: what was heard then tells nothing any more.
            (self.last_epoch, self.gaps_sec) = (0, [0; GAPS]);
        }
        if epoch > self.last_epoch {
            if self.last_epoch > 0 {
                self.gaps_sec.rotate_right(1);
                self.gaps_sec[0] = u32::try_from(epoch - self.last_epoch).unwrap_or(u32::MAX);
            }
            self.last_epoch = epoch;
        }
    }

    pub(super) fn interval_sec(&self) -> Option<u64> {
        self.gaps_sec.iter().filter(|gap_sec| **gap_sec > 0).min().map(|gap_sec| u64::from(*gap_sec))
    }

    /// Lets go of what no answer and no retry needs any more, and says how many series went.
    pub(super) fn expire(&mut self, now: u64) -> usize {
        let before = self.series.len();
        self.series.retain(|series| !series.expire(now));
        // A retry that comes after its sample has left every window is answered as expired: the key is not needed.
        self.sources.retain(|source| now.saturating_sub(source.heard_sec) < source_kept_sec());
        before - self.series.len()
    }
}

/// How long a source is remembered after it was last heard: as long as a sample it sent then can still be stored.
pub(super) fn source_kept_sec() -> u64 {
    let longest = WINDOWS.iter().map(|window| window.span_sec + window.interval_sec).max().unwrap_or(0);
    longest + AHEAD_SEC_MAX
}
