//! One host: its series, the epoch of its newest sample, the skew of its clock, and the sequence numbers of its sources.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU32;

use smol_str::SmolStr;

use super::archived::Archives;
use super::series_table::SeriesTable;
use super::{Conflict, MATCHES_MAX, Pulse, is_wanted};
use crate::sample::{AHEAD_SEC_MAX, IdempotencyKey, Tags};
use crate::summary::{CLOSED_AFTER_SEC, Keep, RECENT, SampleTime, Series, hour_end};

/// Sources remembered for one host, however long they are silent: more than ever publish for one at a time. Beyond them
/// a new source takes the place of the one that has been silent the longest, if that is [`SOURCE_SILENT_SEC`] or more.
pub(super) const SOURCES_PER_HOST: usize = 64;
/// How long a source is silent before others may take its place: what it sent may be sent again until then.
pub(super) const SOURCE_SILENT_SEC: u64 = 3 * 3600;
/// Most sources remembered for one host, however lately they were heard: the bound of its memory.
pub(super) const SOURCES_PER_HOST_MAX: usize = 512;

/// Gaps between epochs from which the interval of a host is learned: the smallest counts, so one lost sample in three
/// does not change it.
const GAPS: usize = 3;

/// How long an estimate of a clock's skew outweighs lower ones: a clock that was set back is noticed after a minute.
pub(super) const SKEW_KEPT_SEC: u32 = 60;

/// How far the clock of a host is ahead of the receiver's.
///
/// A sample arrives when its second has ended, or later: from a backlog, or over a slow network. So the difference of its
/// epoch and the receiver's clock is never above the skew, and the greatest of these differences is the best estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew {
    /// Seconds ahead; below 0 where it is behind.
    pub(super) ahead_sec: i32,
    /// The low 32 bits of the receiver's clock when the estimate was made, enough to tell its age; never 0, so that
    /// `Option<Skew>` needs no more bytes.
    pub(super) heard_sec: NonZeroU32,
}

impl Skew {
    /// The estimate from one sample of `epoch` that arrived at `now`.
    fn of(epoch: u64, now: u64) -> Self {
        let ahead_sec = i64::try_from(epoch).unwrap_or(i64::MAX).saturating_sub_unsigned(now);
        let ahead_sec = ahead_sec.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Self { ahead_sec, heard_sec: NonZeroU32::new(now as u32).unwrap_or(NonZeroU32::MIN) }
    }

    /// Whether this estimate replaces `known`: when that is lower, or older than [`SKEW_KEPT_SEC`]. An estimate from
    /// before the receiver's clock was set back looks old, because ages wrap around.
    fn replaces(self, known: Self) -> bool {
        let age_sec = self.heard_sec.get().wrapping_sub(known.heard_sec.get());
        self.ahead_sec >= known.ahead_sec || age_sec >= SKEW_KEPT_SEC
    }
}

/// The newest sequence number of one source, by which a retry is recognised.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Box<str>,
    pub(super) seq: u64,
    pub(super) heard_sec: u64,
    /// Since when it is heard without a pause of [`overlap_sec`]; not kept over a restart, which begins again.
    pub(super) since_sec: u64,
    /// Hash of the first label of its newest sample.
    pub(super) label: u32,
    pub(super) address: Option<IpAddr>,
}

impl Source {
    /// A source as a record has it.
    #[cfg(feature = "disk")]
    pub(super) fn restored(name: Box<str>, seq: u64, heard_sec: u64) -> Self {
        Self { name, seq, heard_sec, since_sec: u64::MAX, label: 0, address: None }
    }
}

/// How long two sources publish side by side until their host is in conflict, and longest pause of a source within that
/// time: a monitor that takes over from another, after a restart or in a rolling update, overlaps it for less.
pub(super) fn overlap_sec(interval_sec: Option<u64>) -> u64 {
    OVERLAP_SEC.max(3 * interval_sec.unwrap_or(0))
}

/// The least of [`overlap_sec`].
pub(super) const OVERLAP_SEC: u64 = 60;

/// What few hosts have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// When two sources that publish side by side were last noticed; 0 if never.
    conflict_sec: u64,
    tags: Tags,
    /// What archives have of it.
    archives: Archives,
}

/// Everything kept of one host.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) series: SeriesTable,
    pub(super) sources: Vec<Source>,
    pub(super) last_epoch: u64,
    pub(super) gaps_sec: [u32; GAPS],
    pub(super) skew: Option<Skew>,
    /// The receiver's clock at its newest sample; 0 if that came before a restart.
    pub(super) heard_at: u64,
    /// How many samples came for a minute that was closed.
    pub(super) late_samples: u32,
    /// What few hosts have, so that the others have no room for it.
    pub(super) rare: Option<Box<Rare>>,
    /// Whether anything of it changed since it was last written to disk.
    pub(super) changed: bool,
    /// By which number its intervals on disk are found that memory does not hold; 0 until there are any.
    #[cfg(feature = "disk")]
    pub(super) disk_id: u32,
}

impl Host {
    /// Records the values of a sample. The caller has checked the limits on series. What it returns, see
    /// [`Host::note_sample`].
    pub(super) fn apply(
        &mut self,
        keep: &Keep,
        time: &SampleTime,
        values: &[(Cow<'_, str>, f64)],
        key: Option<IdempotencyKey<'_>>,
    ) -> Option<Conflict> {
        let mut hint = 0;
        for (label, value) in values {
            let (place, series) = self.series.get_or_make(label, hint);
            series.record(keep, time, *value);
            hint = place + 1;
        }
        self.note_sample(time, values, key)
    }

    /// Notes that a sample was recorded: its epoch, what it says of the host's clock, and its key. Returns a conflict of
    /// sources that has begun with it.
    pub(super) fn note_sample(
        &mut self,
        time: &SampleTime,
        values: &[(Cow<'_, str>, f64)],
        key: Option<IdempotencyKey<'_>>,
    ) -> Option<Conflict> {
        let (epoch, now) = (time.epoch(), time.now());
        if epoch.next_multiple_of(RECENT.interval_sec) + CLOSED_AFTER_SEC < self.last_epoch {
            self.late_samples = self.late_samples.wrapping_add(1);
        }
        self.heard_at = now;
        self.learn_interval(epoch, now);
        let skew = Skew::of(epoch, now);
        if self.skew.is_none_or(|known| skew.replaces(known)) {
            self.skew = Some(skew);
        }
        self.changed = true;
        if let Some(rare) = &mut self.rare {
            rare.archives.note(time.minute());
        }
        let (key, (label, _)) = key.zip(values.first())?;
        self.remember(key, label_hash(label), now)
    }

    /// Whether a sample of the same source, with this sequence number or a later one, was recorded before.
    pub(super) fn is_duplicate(&self, key: IdempotencyKey<'_>) -> bool {
        self.sources.iter().any(|source| *source.name == *key.source && source.seq >= key.seq)
    }

    fn remember(&mut self, key: IdempotencyKey<'_>, label: u32, now: u64) -> Option<Conflict> {
        if let Some(place) = self.sources.iter().position(|source| *source.name == *key.source) {
            let overlap_sec = overlap_sec(self.interval_sec());
            let source = &mut self.sources[place];
            if source.since_sec == u64::MAX || now.saturating_sub(source.heard_sec) > overlap_sec {
                source.since_sec = now;
            }
            let is_looked_at = now / OVERLAP_SEC != source.heard_sec / OVERLAP_SEC;
            (source.seq, source.heard_sec, source.label, source.address) = (key.seq, now, label, key.address);
            return if is_looked_at { self.find_conflict(place, overlap_sec) } else { None };
        }
        if self.sources.len() >= SOURCES_PER_HOST {
            let oldest = self.sources.iter().enumerate().min_by_key(|(_, source)| source.heard_sec);
            let is_full = self.sources.len() >= SOURCES_PER_HOST_MAX;
            let gives_way = |source: &Source| is_full || now.saturating_sub(source.heard_sec) >= SOURCE_SILENT_SEC;
            if let Some((place, _)) = oldest.filter(|(_, source)| gives_way(source)) {
                self.sources.swap_remove(place);
            }
        }
        self.sources.reserve_exact(1);
        let Self { sources, .. } = self;
        let IdempotencyKey { source, seq, address } = key;
        sources.push(Source { name: source.into(), seq, heard_sec: now, since_sec: now, label, address });
        None
    }

    /// Looks for a source that publishes beside the one at a place, which was heard just now. Returns it if it is news.
    ///
    /// A source is a monitor's process, or its spool: the random name in its keys. Neither its address nor its principal
    /// tells it from others: a laptop moves, a dual-stack host has two addresses, all machines behind a NAT have one, and
    /// a certificate is renewed. What has no key, such as Telegraf or a cron job by curl, is not told apart, and neither
    /// are sources of other labels: the label that a sample begins with stands for all of its labels.
    fn find_conflict(&mut self, place: usize, overlap_sec: u64) -> Option<Conflict> {
        let source = &self.sources[place];
        let now = source.heard_sec;
        let is_beside = |other: &&Source| {
            other.name != source.name
                && other.label == source.label
                && now.saturating_sub(other.heard_sec) <= overlap_sec
                && other.heard_sec.saturating_sub(other.since_sec.max(source.since_sec)) >= overlap_sec
        };
        let beside = self.sources.iter().filter(is_beside);
        let other = beside.max_by(|a, b| (a.heard_sec, &a.name).cmp(&(b.heard_sec, &b.name)))?;
        let conflict = Conflict { addresses: [other.address, source.address] };
        let was_known = self.is_in_conflict(now);
        self.rare.get_or_insert_default().conflict_sec = now;
        (!was_known).then_some(conflict)
    }

    /// Whether two sources publish side by side, or did so a moment ago.
    pub(super) fn is_in_conflict(&self, now: u64) -> bool {
        is_in_conflict(self.rare.as_ref().map_or(0, |rare| rare.conflict_sec), self.interval_sec(), now)
    }

    /// Its tags.
    pub(super) fn tags(&self) -> Tags {
        self.rare.as_ref().map_or_else(Tags::default, |rare| rare.tags.clone())
    }

    /// Replaces its tags.
    pub(super) fn set_tags(&mut self, tags: &Tags) {
        if !tags.is_empty() || self.rare.is_some() {
            self.rare.get_or_insert_default().tags = tags.clone();
        }
    }

    /// What archives have of it, if there are any.
    pub(super) fn archives(&self) -> Option<&Archives> {
        self.rare.as_ref().map(|rare| &rare.archives).filter(|archives| !archives.is_empty())
    }

    /// The same, to be changed.
    pub(super) fn archives_mut(&mut self) -> &mut Archives {
        &mut self.rare.get_or_insert_default().archives
    }

    /// Has the next checkpoint look at the host if memory need not hold all of it at `now`.
    #[cfg(feature = "disk")]
    pub(super) fn note_aged(&mut self, keep: &Keep, now: u64) {
        if !self.changed && keep.has_older() {
            self.changed = self.series.iter_mut().any(|(_, series)| series.has_aged(keep, now));
        }
    }

    /// Where a step of a checkpoint begins that ends before the series `end`, has up to `series_max` series, and but for the
    /// first of them about `intervals_max` intervals that wait for the disk.
    #[cfg(feature = "disk")]
    pub(super) fn step_start(&mut self, end: usize, series_max: usize, intervals_max: usize) -> usize {
        let first = end.saturating_sub(series_max);
        let waiting: Vec<usize> = self.series.range_mut(first..end).map(|(_, series)| series.waiting_count()).collect();
        let mut intervals = 0;
        for (place, waiting) in waiting.into_iter().enumerate().rev() {
            intervals += waiting;
            if intervals >= intervals_max {
                return first + place;
            }
        }
        first
    }

    /// Makes the next checkpoint write all of the host.
    #[cfg(feature = "disk")]
    pub(super) fn mark_all_changed(&mut self, keep: &Keep) {
        self.changed = true;
        self.series.iter_mut().for_each(|(_, series)| series.mark_all_changed(keep));
    }

    /// Learns the interval between samples from a sample that is newer than all before.
    fn learn_interval(&mut self, epoch: u64, now: u64) {
        if self.last_epoch > now.saturating_add(AHEAD_SEC_MAX) {
            // The receiver's clock was set back since: the old epochs mean nothing any more.
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

    /// The last hour of the labels that `wanted` names.
    pub(super) fn recent(&self, wanted: &str, now: u64) -> Vec<(String, Vec<Option<f64>>)> {
        let minutes = |(label, series): (&str, &Series)| (label.to_owned(), series.recent(now));
        if !wanted.ends_with('*') {
            return self.series.get(wanted).map(|series| minutes((wanted, series))).into_iter().collect();
        }
        let all = self.series.iter().map(|(label, series)| (label.as_str(), series));
        all.filter(|(label, _)| is_wanted(wanted, label)).take(MATCHES_MAX).map(minutes).collect()
    }

    /// Its signs of life.
    pub(super) fn pulse(&self, name: &SmolStr) -> Pulse {
        Pulse {
            host: name.clone(),
            last_epoch: self.last_epoch,
            heard_at: self.heard_at,
            interval_sec: self.interval_sec(),
            skew_sec: self.skew.map(|skew| skew.ahead_sec.into()),
            late_samples: self.late_samples,
            tags: self.tags(),
        }
    }

    /// Seconds between its samples; `None` until there are two.
    pub(super) fn interval_sec(&self) -> Option<u64> {
        self.gaps_sec.iter().filter(|gap_sec| **gap_sec > 0).min().map(|gap_sec| u64::from(*gap_sec))
    }

    /// Removes series and sources that no answer and no retry needs any more.
    pub(super) fn expire(&mut self, keep: &Keep, now: u64) {
        self.series.retain(|series| !series.expire(keep, now));
        #[cfg(feature = "disk")]
        self.note_aged(keep, now);
        // A retry whose sample has left every window is answered as expired: its key is not needed.
        self.sources.retain(|source| now.saturating_sub(source.heard_sec) < source_kept_sec(keep));
        if self.sources.is_empty() {
            self.sources.shrink_to_fit();
        }
    }

    /// How many series it counts as: one at least, so that the limit on series bounds hosts that are down too.
    pub(super) fn counted_series(&self) -> usize {
        self.series.len().max(1)
    }

    /// Whether the host, of which no series is left, is to be forgotten at `now`. One whose newest sample is ahead of the
    /// clock was heard while that was ahead: nothing tells since when it is down.
    pub(super) fn is_forgotten(&self, now: u64, forget_sec: u64) -> bool {
        self.series.is_empty()
            && (now >= forgotten_from(self.last_epoch, forget_sec)
                || self.last_epoch > now.saturating_add(AHEAD_SEC_MAX))
    }
}

/// The second from which a host is forgotten whose newest sample is of `last_epoch`. The hours are counted from the end of
/// that sample's hour, because Redis knows no more of a host that is down.
pub(super) fn forgotten_from(last_epoch: u64, forget_sec: u64) -> u64 {
    hour_end(last_epoch).saturating_add(forget_sec)
}

/// Whether a conflict that was last noticed at `conflict_sec` lasts: its sources are looked at once a minute each.
pub(super) fn is_in_conflict(conflict_sec: u64, interval_sec: Option<u64>, now: u64) -> bool {
    conflict_sec > 0 && now.saturating_sub(conflict_sec) <= 2 * overlap_sec(interval_sec)
}

/// The hash of a label that is kept of a source (FNV-1a).
fn label_hash(label: &str) -> u32 {
    label.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Seconds that a source is remembered after its newest sample: as long as a retry of that sample could be stored.
pub(super) fn source_kept_sec(keep: &Keep) -> u64 {
    let longest = keep.longest().span_sec + keep.longest().interval_sec;
    longest.min(keep.retry_horizon_sec) + AHEAD_SEC_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    /// The skew after samples, each given by its arrival and by how many seconds it was late.
    fn skew_after(samples: &[(u64, i64)]) -> i32 {
        let mut host = Host::default();
        samples.iter().for_each(|(now, late_sec)| {
            host.note_sample(&SampleTime::new(&Keep::default(), now.saturating_sub_signed(*late_sec), *now), &[], None);
        });
        host.skew.unwrap().ahead_sec
    }

    #[test]
    fn the_skew_is_the_greatest_difference_of_a_minute() {
        assert_eq!(skew_after(&[(NOW, 600)]), -600);
        assert_eq!(skew_after(&[(NOW, -240), (NOW + 1, -239), (NOW + 2, -238)]), 240);
        // A backlog looks like a clock that is behind, until it has caught up. A late sample among others does not.
        assert_eq!(skew_after(&[(NOW, 3600), (NOW, 1800), (NOW + 1, 0), (NOW + 2, 1)]), 0);
        assert_eq!(skew_after(&[(NOW, -100), (NOW + 1, 3600)]), 100);
        // A clock that was set back is believed after a minute without higher estimates.
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
        // The low 32 bits of the clock wrap around in 2106.
        let turn = 1 << 32;
        assert_eq!(skew_after(&[(turn - 30, 0), (turn, 9), (turn + 29, 9)]), 0);
        assert_eq!(skew_after(&[(turn - 30, 0), (turn + 30, 9)]), -9);
        assert_eq!(skew_after(&[(NOW, -(1 << 39))]), i32::MAX);
    }

    #[test]
    fn what_few_hosts_have_takes_no_room_in_the_others() {
        assert_eq!((size_of::<Option<Skew>>(), size_of::<Host>()), (8, 112));
    }
}
