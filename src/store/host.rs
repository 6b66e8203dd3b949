//! What is kept of one host: its series, when it was last heard, how its clock differs, and which requests of its sources
//! were counted.

use std::borrow::Cow;
use std::num::NonZeroU32;

use super::series_table::SeriesTable;
use crate::sample::{AHEAD_SEC_MAX, IdempotencyKey};
use crate::summary::{SampleTime, WINDOWS};

/// Sources remembered for one host: more than ever publish for one at a time. The one longest unheard gives way, which
/// is one of a monitor that was started anew since.
pub(super) const SOURCES_PER_HOST_MAX: usize = 64;

/// Gaps between epochs that the interval of a host is learned from: one lost sample in three does not mislead it.
const GAPS: usize = 3;

/// How long an estimate of a clock's skew stands against lower ones: a clock that was set back is seen a minute later.
pub(super) const SKEW_KEPT_SEC: u32 = 60;

/// How far the clock of a host is ahead of the receiver's.
///
/// A sample comes when its second has ended, or later: from a backlog, or over a slow network. So its epoch less the
/// receiver's clock is never above the skew, and the greatest of these differences comes nearest to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew {
    /// Below 0 where it is behind.
    pub(super) ahead_sec: i32,
    /// The receiver's clock when it was learned, of which the low half tells an age; never 0, so that an unknown skew
    /// takes no room of its own.
    pub(super) heard_sec: NonZeroU32,
}

impl Skew {
    /// What one sample of `epoch` tells that came at `now`.
    fn of(epoch: u64, now: u64) -> Self {
        let ahead_sec = i64::try_from(epoch).unwrap_or(i64::MAX).saturating_sub_unsigned(now);
        let ahead_sec = ahead_sec.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Self { ahead_sec, heard_sec: NonZeroU32::new(now as u32).unwrap_or(NonZeroU32::MIN) }
    }

    /// Whether it takes the place of one that is known: where that is lower, old, or of a clock that was set back since.
    fn replaces(self, known: Self) -> bool {
        let age_sec = self.heard_sec.get().wrapping_sub(known.heard_sec.get());
        self.ahead_sec >= known.ahead_sec || age_sec >= SKEW_KEPT_SEC
    }
}

/// Newest sequence number of one source, so that a retry is known.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Box<str>,
    pub(super) seq: u64,
    pub(super) heard_sec: u64,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) series: SeriesTable,
    pub(super) sources: Vec<Source>,
    pub(super) last_epoch: u64,
    pub(super) gaps_sec: [u32; GAPS],
    pub(super) skew: Option<Skew>,
    /// Whether it differs from what the newest checkpoint has of it.
    pub(super) changed: bool,
}

impl Host {
    /// Records values that are to be stored. The cap has been looked at.
    pub(super) fn apply(
        &mut self,
        moment: &SampleTime,
        values: &[(Cow<'_, str>, f64)],
        key: Option<IdempotencyKey<'_>>,
    ) {
        let mut likely = 0;
        for (label, value) in values {
            let (place, series) = self.series.get_or_make(label, likely);
            series.record(moment, *value);
            likely = place + 1;
        }
        self.hear_of(moment, key);
    }

    /// Notes that a sample was recorded.
    pub(super) fn hear_of(&mut self, moment: &SampleTime, key: Option<IdempotencyKey<'_>>) {
        let (epoch, now) = (moment.epoch(), moment.now());
        self.hear(epoch, now);
        let skew = Skew::of(epoch, now);
        if self.skew.is_none_or(|known| skew.replaces(known)) {
            self.skew = Some(skew);
        }
        if let Some(key) = key {
            self.remember(key, now);
        }
        self.changed = true;
    }

    pub(super) fn is_duplicate(&self, key: IdempotencyKey<'_>) -> bool {
        self.sources.iter().any(|source| *source.name == *key.source && source.seq >= key.seq)
    }

    fn remember(&mut self, key: IdempotencyKey<'_>, now: u64) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    /// What is known after samples of which each came at a time, so many seconds after its epoch, below 0 before.
    fn skew_after(came: &[(u64, i64)]) -> i32 {
        let mut host = Host::default();
        came.iter().for_each(|(now, late_sec)| {
            host.hear_of(&SampleTime::new(now.saturating_sub_signed(*late_sec), *now), None)
        });
        host.skew.unwrap().ahead_sec
    }

    #[test]
    fn the_skew_is_the_greatest_difference_of_a_minute() {
        assert_eq!(skew_after(&[(NOW, 600)]), -600);
        assert_eq!(skew_after(&[(NOW, -240), (NOW + 1, -239), (NOW + 2, -238)]), 240);
        // A backlog looks like a clock behind, until it has caught up; one that comes between does not.
        assert_eq!(skew_after(&[(NOW, 3600), (NOW, 1800), (NOW + 1, 0), (NOW + 2, 1)]), 0);
        assert_eq!(skew_after(&[(NOW, -100), (NOW + 1, 3600)]), 100);
        // A clock that was set back is believed when nothing else was heard for a minute.
        assert_eq!(skew_after(&[(NOW, 0), (NOW + 59, 600)]), 0);
        assert_eq!(skew_after(&[(NOW, 0), (NOW + 59, 600), (NOW + 60, 601), (NOW + 61, 600)]), -600);
    }

    #[test]
    fn the_skew_follows_the_receivers_clock() {
        // Ahead of everybody for a minute, and back; then an hour back.
        let day = 86_400;
        assert_eq!(skew_after(&[(NOW, 0), (NOW + 86_400, day)]), -86_400);
        assert_eq!(skew_after(&[(NOW, 0), (NOW + 86_400, day), (NOW + 1, 0)]), 0);
        assert_eq!(skew_after(&[(NOW, 0), (NOW - 3600, 10)]), -10);
        // The low half of the clock turns over in 2106.
        let turn = 1 << 32;
        assert_eq!(skew_after(&[(turn - 30, 0), (turn, 9), (turn + 29, 9)]), 0);
        assert_eq!(skew_after(&[(turn - 30, 0), (turn + 30, 9)]), -9);
        assert_eq!(skew_after(&[(NOW, -(1 << 39))]), i32::MAX);
    }

    #[test]
    fn the_skew_takes_eight_bytes_of_a_host() {
        assert_eq!(size_of::<Option<Skew>>(), 8);
    }
}
