//! Averages by interval: by minute, by hour, and by what else a [`Keep`] says.
//!
//! The formula is lizmon's (`_summarize` in its `liz-receiver`): an interval of S seconds holds the samples with
//! `start < epoch <= end`, both multiples of S, because a sample measures the second that ends at its epoch.
//! No sample is kept. A [`Series`] has one bucket for each interval, so recording is O(1) in whatever order samples come.
//! This module touches no files, sockets, clocks or locks.

#[cfg(feature = "disk")]
mod chunks;
mod json;
mod keep;
mod older;
mod ring;

use crate::sample::AHEAD_SEC_MAX;
#[cfg(feature = "disk")]
pub(crate) use chunks::{CHUNK_ENTRY_BYTES, Outgoing, decode_chunk, encode_chunk, first_number, is_chunk_expired};
pub use json::{KeyFilter, RangeSummaries, Summaries, csv, round2};
use keep::WINDOWS_MAX;
pub use keep::{Keep, WINDOWS, Window, parse_span};
use older::Older;
use ring::Ring;
pub use ring::{Bucket, Tail};

/// The window that [`Series::recent`] shows. Its intervals are always kept, for an hour at most.
pub const RECENT: &Window = &WINDOWS[0];

/// How far past an interval the newest sample of a host is when the interval is closed: the others of its second have come.
pub const CLOSED_AFTER_SEC: u64 = 5;

/// Most intervals in an answer. An hour that does not begin on a minute overlaps 61; as lizmon does, an answer has the
/// newest 60.
pub const ANSWER_INTERVALS_MAX: usize = 60;

/// Intervals of a durable chunk, the unit in which a series is written to disk and restored. Part of the disk format.
pub const CHUNK_INTERVALS: u64 = 12;

/// The end of the hour that a sample of `epoch` is in, in seconds.
pub(crate) fn hour_end(epoch: u64) -> u64 {
    (WINDOWS[1].number(epoch) + 1).saturating_mul(WINDOWS[1].interval_sec)
}

/// Whether a sample of `epoch` is too old for every window at `now`.
#[must_use]
pub fn is_expired(keep: &Keep, epoch: u64, now: u64) -> bool {
    keep.windows().iter().all(|window| window.number(epoch) < window.oldest(now))
}

/// The sample time: the epoch of a sample, the time of its arrival, and its interval in each window. It is computed once
/// for all values of the sample, because that takes divisions.
#[derive(Debug, Clone, Copy)]
pub struct SampleTime {
    epoch: u64,
    now: u64,
    numbers: [u64; WINDOWS_MAX],
    is_expired: bool,
    is_past_retry: bool,
}

impl SampleTime {
    /// The sample time of a sample of `epoch` that arrives at `now`.
    #[must_use]
    pub fn new(keep: &Keep, epoch: u64, now: u64) -> Self {
        let mut numbers = [0; WINDOWS_MAX];
        keep.windows().iter().zip(&mut numbers).for_each(|(window, number)| *number = window.number(epoch));
        let (is_expired, is_past_retry) = (is_expired(keep, epoch, now), keep.is_past_retry(epoch, now));
        Self { epoch, now, numbers, is_expired, is_past_retry }
    }

    /// Seconds since the Unix epoch at which the measured second ends.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The receiver's clock when the sample arrived.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Number of its minute, the finest interval that is kept.
    pub(crate) fn minute(&self) -> u64 {
        self.numbers[0]
    }

    /// In how many windows memory does not hold its interval, if the newest sample is of now.
    #[cfg(feature = "disk")]
    pub(crate) fn windows_on_disk(&self, keep: &Keep) -> usize {
        let windows = keep.windows().iter().zip(self.numbers).filter(|(window, _)| window.has_older());
        windows.filter(|(w, number)| (w.oldest(self.now)..w.oldest_in_memory(self.now)).contains(number)).count()
    }

    /// Whether the sample is too old for every window, or, if it has an idempotency key, for that to be remembered.
    #[must_use]
    pub fn is_expired(&self, has_key: bool) -> bool {
        self.is_expired || (has_key && self.is_past_retry)
    }
}

/// The buckets of one label of one host.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The rings of the first two windows.
    rings: [Ring; 2],
    /// What a series has besides that is kept in more windows, or of which a part is on disk alone.
    more: Option<Box<More>>,
}

#[derive(Debug, Clone, Default)]
struct More {
    /// The rings of the other windows.
    rings: [Ring; WINDOWS_MAX - 2],
    /// What is older than the rings hold, by window.
    older: [Older; WINDOWS_MAX],
    /// Whether the record of that on disk is to be written again.
    #[cfg(feature = "disk")]
    is_changed: bool,
}

/// A range of intervals of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntervalRange {
    /// The window.
    pub window: Window,
    /// Number of the first interval.
    pub first: u64,
    /// Number of the last interval.
    pub last: u64,
}

impl IntervalRange {
    /// How many intervals it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

/// Number and bucket of the intervals of a range that have samples, the oldest first.
pub type Intervals = Vec<(u64, Bucket)>;

impl Series {
    /// Records a value. A window that the sample is too old for leaves it out.
    pub fn record(&mut self, keep: &Keep, time: &SampleTime, value: f64) {
        let (first, others) = time.numbers[..keep.windows().len()].split_at(keep.windows().len().min(self.rings.len()));
        let mut is_fresh = true;
        for (ring, number) in self.rings.iter_mut().zip(first) {
            is_fresh &= ring.add_newest(*number, value);
        }
        for (ring, number) in self.more.iter_mut().flat_map(|more| &mut more.rings).zip(others) {
            is_fresh &= ring.add_newest(*number, value);
        }
        if !is_fresh || (self.more.is_none() && !others.is_empty()) {
            for ((window, ring, older), number) in self.parts_mut(keep).zip(time.numbers) {
                if ring.newest != number {
                    ring.merge(window, number, Bucket::of(value), time.now, older);
                }
            }
        }
    }

    fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.rings.iter().chain(self.more.iter().flat_map(|more| more.rings.iter()))
    }

    /// What is older than the rings hold, by window.
    fn older(&self) -> impl Iterator<Item = &Older> {
        self.more.iter().flat_map(|more| more.older.iter())
    }

    /// The windows, each with its ring and, where memory holds a part alone, with what is older.
    fn parts_mut<'a>(
        &'a mut self,
        keep: &'a Keep,
    ) -> impl Iterator<Item = (&'a Window, &'a mut Ring, Option<&'a mut Older>)> {
        let windows = keep.windows();
        let (rings, mut older) = if windows.len() > self.rings.len() || keep.has_older() {
            let more = self.more.get_or_insert_default();
            (&mut more.rings[..], Some(more.older.iter_mut()))
        } else {
            (&mut [][..], None)
        };
        windows.iter().zip(self.rings.iter_mut().chain(rings)).map(move |(window, ring)| {
            let older = older.as_mut().and_then(Iterator::next);
            (window, ring, older.filter(|_| window.has_older()))
        })
    }

    /// Number of samples in the newest intervals of all windows together.
    #[must_use]
    pub fn running_samples(&self) -> usize {
        self.rings().map(|ring| ring.running.count as usize).sum()
    }

    /// Number of intervals that are kept, of all windows together.
    #[must_use]
    pub fn interval_count(&self) -> usize {
        self.rings().map(|ring| ring.held().count()).sum()
    }

    /// A copy of the intervals that an answer without a range lists at `now`.
    #[must_use]
    pub fn listed(&self, keep: &Keep, now: u64) -> Self {
        let mut listed = Self::default();
        for ((window, to, _), from) in listed.parts_mut(keep).zip(self.rings()) {
            *to = from.since(window.oldest_listed(now));
        }
        listed
    }

    /// The intervals of a range that have samples, as far as memory has them.
    #[must_use]
    pub fn range(&self, keep: &Keep, range: IntervalRange) -> Intervals {
        let IntervalRange { window, first, last } = range;
        let Some(place) = keep.place(window.interval_sec) else { return Intervals::new() };
        let held = self.rings().nth(place).map_or_else(Vec::new, |ring| ring.between(first, last).collect());
        let older = self.older().nth(place).map_or_else(Vec::new, |older| older.between(first, last));
        merge_intervals(older, held)
    }

    /// Whether some of the intervals of a range are on disk.
    #[must_use]
    pub fn is_on_disk(&self, keep: &Keep, range: IntervalRange) -> bool {
        let older = keep.place(range.window.interval_sec).and_then(|place| self.older().nth(place));
        older.is_some_and(|older| older.end > range.first)
    }

    /// Adds the samples of one interval. `window` is the place of its window. An interval that no sample can be in at
    /// `now` is left out.
    pub fn add(&mut self, keep: &Keep, window: usize, number: u64, bucket: Bucket, now: u64) {
        let Some((window, ring, older)) = self.parts_mut(keep).nth(window) else { return };
        if (window.oldest(now)..=window.number(now.saturating_add(AHEAD_SEC_MAX))).contains(&number) {
            ring.merge(window, number, bucket, now, older);
        }
    }

    /// Copies about as many of the newest minutes and hours as are asked for; no hours where none are kept or
    /// asked for.
    #[must_use]
    pub fn tails(&self, keep: &Keep, intervals: [u64; 2]) -> [Tail; 2] {
        let hours = keep.place(WINDOWS[1].interval_sec);
        let hours = hours.filter(|_| intervals[1] > 0).and_then(|place| self.rings().nth(place));
        [self.rings[0].tail(intervals[0]), hours.map_or_else(Tail::default, |hours| hours.tail(intervals[1]))]
    }

    /// The bucket of the interval of [`RECENT`] that `now` is in, if it has samples.
    #[must_use]
    pub fn running(&self, now: u64) -> Option<Bucket> {
        let ring = &self.rings[0];
        (ring.newest == RECENT.number(now) && ring.running.count > 0).then_some(ring.running)
    }

    /// Adds the buckets of another series of the same label.
    pub fn merge(&mut self, keep: &Keep, other: &Self, now: u64) {
        for (place, more) in other.rings().enumerate().take(keep.windows().len()) {
            for (number, bucket) in more.held() {
                if let Some((window, ring, older)) = self.parts_mut(keep).nth(place) {
                    ring.merge(window, number, bucket, now, older);
                }
            }
        }
    }

    /// Removes the intervals that have left their windows at `now`, and those that no sample can be in yet: they were
    /// recorded while the clock was ahead. Returns whether nothing is left.
    pub fn expire(&mut self, keep: &Keep, now: u64) -> bool {
        let mut is_empty = true;
        for (window, ring, older) in self.parts_mut(keep) {
            let newest_possible = window.number(now.saturating_add(AHEAD_SEC_MAX));
            match older {
                Some(older) => {
                    // Those that have left memory are moved to the disk before.
                    ring.expire_ahead(newest_possible);
                    if older.end <= window.oldest(now) && !older.has_pending() {
                        older.end = 0;
                    }
                    is_empty &= older.end == 0;
                }
                None => ring.expire(window.oldest(now), newest_possible),
            }
            is_empty &= ring.is_empty();
        }
        is_empty
    }

    /// Means of the newest [`ANSWER_INTERVALS_MAX`] intervals of [`RECENT`], rounded by [`round2`]. The first begins at
    /// [`recent_start`]; the last is the one that `now` is in. An interval without samples is `None`.
    #[must_use]
    pub fn recent(&self, now: u64) -> Vec<Option<f64>> {
        let ring = &self.rings[0];
        let first = recent_start(now) / RECENT.interval_sec;
        let mut means = vec![None; ANSWER_INTERVALS_MAX];
        for (number, bucket) in ring.held() {
            let index = number.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            if let Some(mean) = index.and_then(|index| means.get_mut(index)) {
                *mean = Some(round2(bucket.mean()));
            }
        }
        means
    }
}

/// Start in seconds of the first interval of [`Series::recent`] at `now`.
#[must_use]
pub fn recent_start(now: u64) -> u64 {
    (RECENT.number(now) + 1).saturating_sub(ANSWER_INTERVALS_MAX as u64) * RECENT.interval_sec
}

/// Adds up two lists of intervals, each the oldest first.
pub(crate) fn merge_intervals(mut a: Intervals, b: Intervals) -> Intervals {
    if a.is_empty() {
        return b;
    }
    if b.is_empty() {
        return a;
    }
    a.extend(b);
    a.sort_by_key(|(number, _)| *number);
    a.dedup_by(|(number, bucket), (kept, merged)| {
        let is_same = number == kept;
        if is_same {
            merged.merge(*bucket);
        }
        is_same
    });
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    pub(super) const NOW: u64 = 1_465_001_814;

    pub(super) fn keep() -> Keep {
        Keep::default()
    }

    pub(super) fn answer(series: &Series, now: u64) -> Value {
        let series = [("cpu", series.clone())];
        serde_json::to_value(Summaries { series: &series, filter: &KeyFilter::containing(""), keep: &keep(), now })
            .unwrap()
    }

    pub(super) fn recorded(samples: &[(u64, f64)], now: u64) -> Series {
        let mut series = Series::default();
        samples
            .iter()
            .for_each(|(epoch, value)| series.record(&keep(), &SampleTime::new(&keep(), *epoch, now), *value));
        series
    }

    /// The formula of lizmon: each interval is computed from all samples.
    fn reference(samples: &[(u64, f64)], now: u64) -> Value {
        let mut summaries = serde_json::Map::new();
        for window in &WINDOWS {
            let start = (now - window.span_sec) / window.interval_sec * window.interval_sec;
            let mut averages = Vec::new();
            for from in (start..now).step_by(window.interval_sec as usize) {
                let to = from + window.interval_sec;
                let held: Vec<f64> = samples
                    .iter()
                    .filter(|(epoch, _)| from < *epoch && *epoch <= to)
                    .map(|(_, value)| *value)
                    .collect();
                if !held.is_empty() {
                    let mean = held.iter().sum::<f64>() / held.len() as f64;
                    let avg = round2(mean);
                    let min = held.iter().copied().fold(f64::INFINITY, f64::min);
                    let max = held.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    averages.push(json!({"start-sec": from, "end-sec": to, "interval-size-sec": window.interval_sec,
                        "num-samples": held.len(), "avg": avg, "mean": mean, "min": min, "max": max}));
                }
            }
            let averages = averages.split_off(averages.len().saturating_sub(60));
            if !averages.is_empty() {
                summaries.insert(
                    format!("summary:{}:cpu", window.name),
                    json!({"start": start, "end": now, "timeslice-size-sec": window.interval_sec,
                        "average-count": averages.len(), "averages": averages}),
                );
            }
        }
        summaries.into()
    }

    /// Samples of the 26 hours before `NOW` and the five minutes after. The values are eighths, whose sums are exact in
    /// any order.
    pub(super) fn samples() -> impl Strategy<Value = Vec<(u64, f64)>> {
        let recent = NOW - 4000..NOW + 300;
        let day = NOW - 93_600..NOW + 300;
        proptest::collection::vec(
            (prop_oneof![recent, day], (-8000..8000_i32).prop_map(|v| f64::from(v) / 8.0)),
            1..300,
        )
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_the_reference(samples in samples()) {
            prop_assert_eq!(answer(&recorded(&samples, NOW), NOW), reference(&samples, NOW));
        }

        #[test]
        fn any_order_of_arrival_gives_the_same_answer(samples in samples(), by in any::<u64>()) {
            let mut shuffled = samples.clone();
            shuffled.sort_by_key(|(epoch, value)| (epoch ^ value.to_bits()).wrapping_mul(by | 1));
            prop_assert_eq!(answer(&recorded(&samples, NOW), NOW), answer(&recorded(&shuffled, NOW), NOW));
        }

        #[test]
        fn merging_two_halves_is_recording_the_whole(samples in samples(), at in 0..300_usize) {
            let (a, b) = samples.split_at(at.min(samples.len()));
            let mut merged = recorded(a, NOW);
            merged.merge(&keep(), &recorded(b, NOW), NOW);
            prop_assert_eq!(answer(&merged, NOW), answer(&recorded(&samples, NOW), NOW));
        }

        #[test]
        fn windows_roll_over_as_now_moves(samples in samples(), steps in proptest::collection::vec(0..4000_u64, 1..20)) {
            let mut series = recorded(&samples, NOW);
            let mut now = NOW;
            for step in steps {
                now += step;
                prop_assert_eq!(answer(&series, now), reference(&samples, now));
                series.expire(&keep(), now);
                prop_assert_eq!(answer(&series, now), reference(&samples, now));
            }
            prop_assert!(series.expire(&keep(), NOW + 2 * 86_400));
        }
    }

    #[test]
    fn answers_match_the_golden_vectors() {
        let vectors: Value = serde_json::from_str(include_str!("../tests/vectors/summaries.json")).unwrap();
        let vectors = vectors.as_array().unwrap();
        assert_eq!(vectors.len(), 32);
        for vector in vectors {
            let now = vector["now"].as_u64().unwrap();
            for (host, expected) in vector["summaries"].as_object().unwrap() {
                let mut labels = std::collections::BTreeMap::<String, Series>::new();
                for sample in vector["samples"].as_array().unwrap().iter().filter(|sample| sample[0] == **host) {
                    let body = sample[2].to_string();
                    for (label, value) in crate::sample::decode_values(body.as_bytes()).unwrap() {
                        let time = SampleTime::new(&keep(), sample[1].as_u64().unwrap(), now);
                        labels.entry(label.into_owned()).or_default().record(&keep(), &time, value);
                    }
                }
                let series: Vec<_> = labels.into_iter().collect();
                let summaries = Summaries { series: &series, filter: &KeyFilter::containing(""), keep: &keep(), now };
                let mut answer = serde_json::to_value(summaries).unwrap();
                for average in
                    answer.as_object_mut().unwrap().values_mut().flat_map(|s| s["averages"].as_array_mut().unwrap())
                {
                    let average = average.as_object_mut().unwrap();
                    let mut number = |name| average.remove(name).unwrap().as_f64().unwrap();
                    let (min, mean, max) = (number("min"), number("mean"), number("max"));
                    assert!(min <= mean && mean <= max);
                    assert_eq!(Some(round2(mean)), average["avg"].as_f64());
                }
                assert_eq!(&answer, expected, "{}: {host}", vector["name"]);
            }
        }
    }

    #[test]
    fn a_clock_that_is_a_day_ahead_for_a_while_evicts_nothing() {
        let minutes: Vec<(u64, f64)> = (0..61).map(|minute| (NOW - 60 * minute, 1.0)).collect();
        let mut series = recorded(&minutes, NOW);
        let before = answer(&series, NOW);
        series.record(&keep(), &SampleTime::new(&keep(), NOW - 90, NOW + 86_400), 1.0);
        series.record(&keep(), &SampleTime::new(&keep(), NOW + 1, NOW + 86_400), 1.0);
        let after = answer(&series, NOW);
        assert_eq!(after["summary:by-minute:cpu"]["average-count"], before["summary:by-minute:cpu"]["average-count"]);
    }

    #[test]
    fn what_comes_after_a_clock_was_set_back_is_kept() {
        for ahead in [600, 7200, 3 * 86_400] {
            let mut series = recorded(&[(NOW - 60, 5.0)], NOW - 60);
            series.record(&keep(), &SampleTime::new(&keep(), NOW + ahead, NOW + ahead), 9.0);
            let after: Vec<(u64, f64)> = (0..600).map(|second| (NOW + second, 1.0)).collect();
            after
                .iter()
                .for_each(|(epoch, value)| series.record(&keep(), &SampleTime::new(&keep(), *epoch, *epoch), *value));
            let averages = &answer(&series, NOW + 600)["summary:by-hour:cpu"]["averages"];
            let counted = averages.as_array().unwrap().iter().map(|average| average["num-samples"].as_u64().unwrap());
            assert!(counted.sum::<u64>() >= 600, "{ahead}: {averages}");
        }
    }

    #[test]
    fn what_was_recorded_ahead_of_a_clock_that_was_set_back_expires() {
        for ahead in [600, 7200, 3 * 86_400] {
            let mut series = recorded(&[(NOW + ahead, 9.0), (NOW + ahead + 60, 9.0)], NOW + ahead + 60);
            assert!(series.expire(&keep(), NOW - 3600), "{ahead}");
        }
        // What the ring still has of before stays.
        let mut series = recorded(&[(NOW, 5.0)], NOW);
        series.record(&keep(), &SampleTime::new(&keep(), NOW + 7200, NOW + 7200), 9.0);
        series.expire(&keep(), NOW);
        assert_eq!(answer(&series, NOW)["summary:by-hour:cpu"]["averages"][0]["max"], 5.0);
        let mut series = recorded(&[(NOW + AHEAD_SEC_MAX, 1.0)], NOW);
        assert!(!series.expire(&keep(), NOW), "five minutes ahead are allowed");
    }

    #[test]
    fn recent_means_end_with_the_running_minute() {
        let series =
            recorded(&[(NOW, 3.0), (NOW - 60, 1.0), (NOW - 60, 2.0), (NOW - 3541, 9.0), (NOW - 3600, 7.0)], NOW);
        let recent = series.recent(NOW);
        assert_eq!(recent.len(), 60);
        assert_eq!(recent[58..], [Some(1.5), Some(3.0)]);
        assert_eq!(recent[0], Some(9.0));
        assert_eq!(recent_start(NOW), 1_465_001_760 - 59 * 60);
        assert!(recent[1..58].iter().all(Option::is_none));
    }
}
