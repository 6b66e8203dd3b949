//! The buckets of one window of one series.

use std::collections::VecDeque;

use super::older::Older;
use super::{CHUNK_INTERVALS, Window};
use crate::sample::AHEAD_SEC_MAX;

/// Intervals that a ring may hold beyond its window: the two that the ends of the window cut, and those of samples up to
/// five minutes ahead of the clock. It bounds the size of a ring whatever epochs come.
const INTERVALS_SPARE: u64 = 8;

/// Intervals beyond those of its memory that a ring keeps where older ones are on disk: the next checkpoint moves them
/// there, so that few have to wait in memory for it.
const INTERVALS_WAITING: u64 = 2 * CHUNK_INTERVALS;

/// Count, sum, minimum and maximum of the samples of one interval.
///
/// The sum is a plain `f64` sum, so a mean depends on the order of the samples where their magnitudes differ by more than
/// the 53 bits of an `f64`: 1e16, 1 and -1e16 may sum to 0. A compensated sum would add 8 bytes to a bucket.
///
/// The struct is packed to 28 bytes, an eighth less than aligned: a full series has 84 buckets, and there may be a million
/// series.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C, packed(4))]
pub struct Bucket {
    /// Number of samples.
    pub count: u32,
    /// Their sum, clamped to finite numbers.
    pub sum: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
}

impl Bucket {
    /// The bucket of one sample.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self { count: 1, sum: value, min: value, max: value }
    }

    /// Adds one sample, as [`Bucket::merge`] does.
    fn add(&mut self, value: f64) {
        if self.count == 0 {
            *self = Self::of(value);
        } else if self.count < u32::MAX {
            self.count += 1;
            self.sum = (self.sum + value).clamp(f64::MIN, f64::MAX);
            if value < self.min {
                self.min = value;
            }
            if value > self.max {
                self.max = value;
            }
        }
    }

    /// Adds the samples of `other`, unless the count would reach 2^32, which is a million a second for an hour.
    pub fn merge(&mut self, other: Self) {
        let (count, more) = (self.count, other.count);
        if count == 0 {
            *self = other;
        } else if more > 0 && count.checked_add(more).is_some() {
            *self = Self {
                count: count + more,
                sum: (self.sum + other.sum).clamp(f64::MIN, f64::MAX),
                min: f64::min(self.min, other.min),
                max: f64::max(self.max, other.max),
            };
        }
    }

    /// Mean of the samples; NaN if there are none.
    #[must_use]
    pub fn mean(self) -> f64 {
        self.sum / f64::from(self.count)
    }
}

/// A copy of the newest intervals of a window of a series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tail {
    /// Number of the first interval; interval `n` begins at `n` times its length.
    first: u64,
    /// The buckets from there on without a gap. An interval without samples has a count of 0.
    buckets: VecDeque<Bucket>,
}

impl Tail {
    /// The bucket of an interval, with a count of 0 where there is none.
    #[must_use]
    pub fn get(&self, number: u64) -> Bucket {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.buckets.get(place)).copied().unwrap_or_default()
    }

    /// Numbers of the intervals that have samples, with how many, the oldest first.
    pub fn held(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> {
        let counts = self.buckets.iter().enumerate().map(|(place, bucket)| (self.first + place as u64, bucket.count));
        counts.filter(|(_, count)| *count > 0)
    }

    /// Puts a bucket at the place of an interval, and keeps up to `intervals_max` of the newest. One that is too old is left
    /// out.
    pub fn push(&mut self, number: u64, bucket: Bucket, intervals_max: usize) {
        let end = self.first + self.buckets.len() as u64;
        if self.buckets.is_empty() || number >= end + intervals_max as u64 {
            (self.first, self.buckets) = (number, [bucket].into());
            return;
        }
        (end..=number).for_each(|_| self.buckets.push_back(Bucket::default()));
        while self.buckets.len() > intervals_max {
            self.buckets.pop_front();
            self.first += 1;
        }
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(held) = place.and_then(|place| self.buckets.get_mut(place)) {
            *held = bucket;
        }
    }
}

/// The buckets of one window. The newest is a field of its own, so that recording a fresh sample touches no other memory.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    /// Number of the interval of `running`.
    pub(super) newest: u64,
    /// Number of the oldest interval that has changed since [`super::Series::take_changes`].
    pub(super) changed_from: u64,
    pub(super) running: Bucket,
    /// The buckets of the intervals before `newest` without a gap, the oldest first. An interval without samples has a
    /// count of 0.
    history: VecDeque<Bucket>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { newest: 0, changed_from: u64::MAX, running: Bucket::default(), history: VecDeque::new() }
    }
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.running.count == 0
    }

    /// Number of the oldest interval in the ring.
    pub(super) fn first(&self) -> u64 {
        self.newest - self.history.len() as u64
    }

    /// Adds one sample if it is of the newest interval, and returns whether it is.
    pub(super) fn add_newest(&mut self, number: u64, value: f64) -> bool {
        if number != self.newest {
            return false;
        }
        self.changed_from = self.changed_from.min(number);
        self.running.add(value);
        true
    }

    /// Adds the samples of an interval. Those of one that the ring does not hold any more go to `older`, if the window has
    /// that.
    pub(super) fn merge(&mut self, window: &Window, number: u64, bucket: Bucket, now: u64, older: Option<&mut Older>) {
        if self.newest > number {
            let newest_possible = window.number(now.saturating_add(AHEAD_SEC_MAX));
            if self.newest > newest_possible && number <= newest_possible {
                self.remove_after(newest_possible);
            }
        }
        if self.is_empty() {
            if number < window.oldest_in_memory(now)
                && let Some(older) = older
            {
                return older.add(window, number, bucket, now);
            }
            self.newest = number;
            return self.merge_newest(bucket);
        }
        if number == self.newest {
            return self.merge_newest(bucket);
        }
        let newest = self.newest.max(number);
        // The window ends at the newest sample if that is behind the clock: a sample pushes out nothing because of the
        // clock alone.
        let oldest = window
            .oldest_in_memory(now.min((newest + 1) * window.interval_sec))
            .max((newest + 1).saturating_sub(window.intervals_in_memory() + INTERVALS_SPARE));
        if number > self.newest {
            self.advance(window, number, oldest, older);
            self.changed_from = self.changed_from.min(number);
            self.running = bucket;
        } else if number >= oldest || (older.is_some() && number >= self.first()) {
            self.changed_from = self.changed_from.min(number);
            while self.first() > number {
                self.reserve(window, self.first() - number);
                self.history.push_front(Bucket::default());
            }
            let index = number - self.first();
            if let Some(held) = usize::try_from(index).ok().and_then(|index| self.history.get_mut(index)) {
                held.merge(bucket);
            }
        } else if let Some(older) = older {
            older.add(window, number, bucket, now);
        }
    }

    fn merge_newest(&mut self, bucket: Bucket) {
        self.changed_from = self.changed_from.min(self.newest);
        self.running.merge(bucket);
    }

    /// Removes the intervals after `number`: they were recorded while the clock was ahead, and would make the ring refuse
    /// the samples that come now that it was set back.
    fn remove_after(&mut self, number: u64) {
        while self.newest > number || self.running.count == 0 {
            let Some(before) = self.history.pop_back() else {
                *self = Self::default();
                return;
            };
            self.running = before;
            self.newest -= 1;
        }
    }

    /// Makes `number` the newest interval and removes those before `oldest`.
    fn advance(&mut self, window: &Window, number: u64, oldest: u64, older: Option<&mut Older>) {
        let oldest = match older {
            Some(older) => {
                let oldest = oldest.saturating_sub(INTERVALS_WAITING) / CHUNK_INTERVALS * CHUNK_INTERVALS;
                self.evict(oldest, older);
                oldest
            }
            None => {
                self.trim(oldest);
                oldest
            }
        };
        if !self.is_empty() && self.newest >= oldest {
            self.reserve(window, number - self.newest);
            self.history.push_back(self.running);
            self.history.resize(self.history.len() + (number - self.newest - 1) as usize, Bucket::default());
        }
        self.newest = number;
    }

    /// Moves the intervals before `oldest`, which is the first of its chunk, to those that are older.
    pub(super) fn evict(&mut self, oldest: u64, older: &mut Older) {
        let evicted = usize::try_from(oldest.saturating_sub(self.first())).unwrap_or(usize::MAX);
        let first = self.first();
        for (number, bucket) in (first..).zip(self.history.drain(..evicted.min(self.history.len()))) {
            older.take(number, bucket);
        }
        if self.newest < oldest {
            older.take(self.newest, self.running);
            *self = Self::default();
        }
        self.trim(0);
        if self.history.len() < self.history.capacity() / 2 {
            self.history.shrink_to_fit();
        }
    }

    /// Grows the capacity by doubling up to the length of the window, and as needed beyond it.
    fn reserve(&mut self, window: &Window, additional: u64) {
        let needed = self.history.len() + additional as usize;
        if needed > self.history.capacity() {
            let capacity = needed.next_power_of_two().min(window.intervals_in_memory() as usize).max(needed);
            self.history.reserve_exact(capacity - self.history.len());
        }
    }

    /// Removes the history before interval `oldest`, and leading intervals without samples.
    fn trim(&mut self, oldest: u64) {
        while !self.history.is_empty()
            && (self.first() < oldest || self.history.front().is_some_and(|bucket| bucket.count == 0))
        {
            self.history.pop_front();
        }
    }

    /// Removes everything before interval `oldest` and after interval `newest_possible`, and frees its memory.
    pub(super) fn expire(&mut self, oldest: u64, newest_possible: u64) {
        self.expire_ahead(newest_possible);
        self.trim(oldest);
        if self.newest < oldest {
            *self = Self::default();
        } else if self.history.len() < self.history.capacity() / 2 {
            self.history.shrink_to_fit();
        }
    }

    /// Removes everything after interval `newest_possible`.
    pub(super) fn expire_ahead(&mut self, newest_possible: u64) {
        if self.newest > newest_possible {
            self.remove_after(newest_possible);
        }
    }

    /// Copies the newest `intervals`, and all if fewer than three of these have samples.
    pub(super) fn tail(&self, intervals: u64) -> Tail {
        if self.is_empty() {
            return Tail::default();
        }
        let copy = |length: u64| {
            let length = length.clamp(1, self.history.len() as u64 + 1);
            let skipped = self.history.len() + 1 - length as usize;
            let mut buckets = VecDeque::with_capacity(length as usize);
            buckets.extend(self.history.range(skipped..));
            buckets.push_back(self.running);
            Tail { first: self.newest + 1 - length, buckets }
        };
        let tail = copy(intervals);
        if tail.buckets.iter().filter(|bucket| bucket.count > 0).count() < 3 { copy(u64::MAX) } else { tail }
    }

    /// A copy of the intervals from `oldest` on.
    pub(super) fn since(&self, oldest: u64) -> Self {
        let skipped = usize::try_from(oldest.saturating_sub(self.first())).unwrap_or(usize::MAX);
        if self.newest < oldest {
            return Self::default();
        }
        let history = self.history.range(skipped.min(self.history.len())..).copied().collect();
        Self { history, ..*self }
    }

    /// Number and bucket of the intervals from `first` to `last` that have samples, the oldest first.
    pub(super) fn between(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, Bucket)> {
        let place = |number: u64| usize::try_from(number.saturating_sub(self.first())).unwrap_or(usize::MAX);
        let start = place(first).min(self.history.len());
        let end = place(last.saturating_add(1)).clamp(start, self.history.len());
        let start_number = self.first() + start as u64;
        let history =
            self.history.range(start..end).enumerate().map(move |(at, bucket)| (start_number + at as u64, *bucket));
        let running =
            [(self.newest, self.running)].into_iter().filter(move |(number, _)| (first..=last).contains(number));
        history.chain(running).filter(|(_, bucket)| bucket.count > 0)
    }

    /// Number and bucket of the intervals that have samples, the oldest first.
    pub(super) fn held(&self) -> impl DoubleEndedIterator<Item = (u64, Bucket)> {
        let first = self.first();
        let history = self.history.iter().enumerate().map(move |(index, bucket)| (first + index as u64, *bucket));
        history.chain([(self.newest, self.running)]).filter(|(_, bucket)| bucket.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::WINDOWS;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_epoch_makes_a_ring_grow_past_its_window(epochs in proptest::collection::vec(any::<u64>().prop_map(|e| e % 1_000_000_000_000), 1..200), now in 0..2_000_000_000_u64) {
            for window in &WINDOWS {
                let mut ring = Ring::default();
                for epoch in &epochs {
                    ring.merge(window, window.number(*epoch), Bucket::of(1.0), now, None);
                    prop_assert!(ring.history.len() as u64 <= window.intervals() + INTERVALS_SPARE);
                }
            }
        }
    }

    #[test]
    fn sums_stay_finite() {
        let mut bucket = Bucket::of(f64::MAX);
        bucket.merge(Bucket::of(f64::MAX));
        assert!(bucket.mean().is_finite());
        let mut full = Bucket { count: u32::MAX, sum: 1.0, min: 0.0, max: 1.0 };
        full.merge(Bucket::of(7.0));
        assert_eq!({ full.count }, u32::MAX);
        assert_eq!({ full.max }, 1.0);
    }
}
