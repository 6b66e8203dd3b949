//! Chunks: the unit in which a series is written to disk.
//!
//! Those of what memory holds are written whole at each checkpoint, and read back at a start ([`Series::take_changes`],
//! [`Series::restore`]). Those of what is older are packed ([`encode_chunk`], [`decode_chunk`]).

use super::{Bucket, CHUNK_INTERVALS, Intervals, Keep, Series, WINDOWS_MAX, Window};
use crate::sample::AHEAD_SEC_MAX;

/// Upper limit of chunk numbers: such a chunk would begin after the largest epoch.
const CHUNKS_END: u64 = 1 << 40;

/// Bytes of an interval within a chunk: its index in the chunk, then its bucket.
pub(crate) const CHUNK_ENTRY_BYTES: usize = 1 + 28;

/// In the first byte of an interval that is packed: the least and the greatest are the same, and the sum is too.
const ONE_VALUE: u8 = 0x80;
const SUM_IS_VALUE: u8 = 0x40;
/// In the first byte: how the values are packed, and the index in the chunk.
const FORM: u8 = 0x30;
const FORM_SHIFT: u32 = 4;
const INDEX: u8 = 0x0f;
/// By what the values are multiplied, by their form: most are measured to so many digits. None are with form 0.
const SCALES: [f64; 4] = [0.0, 1.0, 10.0, 100.0];

/// What a series is to add to its chunks on disk.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Intervals by the place of their window.
    pub(crate) intervals: [Intervals; WINDOWS_MAX],
    /// One past the newest interval on disk of each window; 0 where there is none.
    pub(crate) ends: [u64; WINDOWS_MAX],
}

impl Series {
    /// Encodes the chunks of what memory holds that have changed since the last call. `write` gets the window, the number of
    /// the chunk, and its bytes; none for a chunk that is to be removed, because memory does not hold it any more. A chunk
    /// has an entry for each interval with samples: index in the chunk (a byte), count (4), sum, min and max (8 each), all
    /// little-endian.
    pub fn take_changes(&mut self, keep: &Keep, mut write: impl FnMut(&Window, u64, &[u8])) {
        for (window, ring, mut older) in self.parts_mut(keep) {
            if let Some(older) = &mut older {
                older.take_stale(ring, |chunk| write(window, chunk, &[]));
            }
            let from = std::mem::replace(&mut ring.changed_from, u64::MAX).max(ring.first());
            if ring.is_empty() || from > ring.newest {
                continue;
            }
            let mut write = |chunk: u64, bytes: &[u8]| {
                write(window, chunk, bytes);
                older.iter_mut().for_each(|older| older.note_saved(chunk));
            };
            let mut chunk = (from / CHUNK_INTERVALS, Vec::new());
            for (number, bucket) in ring.held().filter(|(number, _)| number / CHUNK_INTERVALS >= from / CHUNK_INTERVALS)
            {
                if number / CHUNK_INTERVALS != chunk.0 && !chunk.1.is_empty() {
                    write(chunk.0, &chunk.1);
                    chunk.1.clear();
                }
                chunk.0 = number / CHUNK_INTERVALS;
                let Bucket { count, sum, min, max } = bucket;
                chunk.1.push((number % CHUNK_INTERVALS) as u8);
                chunk.1.extend_from_slice(&count.to_le_bytes());
                [sum, min, max].iter().for_each(|value| chunk.1.extend_from_slice(&value.to_le_bytes()));
            }
            write(chunk.0, &chunk.1);
        }
    }

    /// Adds a chunk that [`Series::take_changes`] encoded. A chunk of an unknown window is left out. So is an interval that
    /// no sample can be in at `now`: it was written while the clock was ahead, and would push out newer samples.
    ///
    /// # Errors
    /// When the bytes are not a valid chunk.
    pub fn restore(
        &mut self,
        keep: &Keep,
        name: &str,
        interval_sec: u64,
        chunk: u64,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), &'static str> {
        let is_whole = |entry: &[u8]| u64::from(entry[0]) < CHUNK_INTERVALS;
        if chunk >= CHUNKS_END
            || bytes.is_empty()
            || !bytes.len().is_multiple_of(CHUNK_ENTRY_BYTES)
            || !bytes.chunks(CHUNK_ENTRY_BYTES).all(is_whole)
        {
            return Err("not a chunk of intervals");
        }
        let known = self.parts_mut(keep).find(|(w, ..)| w.name == name && w.interval_sec == interval_sec);
        let Some((window, ring, mut older)) = known else { return Ok(()) };
        older.iter_mut().for_each(|older| older.note_saved(chunk));
        let newest_possible = window.number(now.saturating_add(AHEAD_SEC_MAX));
        for entry in bytes.chunks(CHUNK_ENTRY_BYTES) {
            let float = |at: usize| f64::from_le_bytes(entry[at..at + 8].try_into().unwrap_or_default());
            let count = u32::from_le_bytes(entry[1..5].try_into().unwrap_or_default());
            let bucket = Bucket { count, sum: float(5), min: float(13), max: float(21) };
            if !is_sound(bucket) {
                return Err("a bucket without samples, or with a number that is not finite");
            }
            let number = chunk * CHUNK_INTERVALS + u64::from(entry[0]);
            if number <= newest_possible {
                ring.merge(window, number, bucket, now, older.as_deref_mut());
                ring.changed_from = u64::MAX;
            }
        }
        Ok(())
    }

    /// Makes the next [`Series::take_changes`] encode everything.
    pub fn mark_all_changed(&mut self, keep: &Keep) {
        self.parts_mut(keep).for_each(|(_, ring, _)| ring.changed_from = 0);
        self.more.iter_mut().for_each(|more| more.is_changed = true);
    }

    /// Whether [`Series::age`] has something to move at `now`, or [`Series::take_outgoing`] to take.
    pub(crate) fn has_aged(&mut self, keep: &Keep, now: u64) -> bool {
        self.parts_mut(keep).any(|(window, ring, older)| {
            let is_old = |ring: &super::Ring| !ring.is_empty() && ring.first() < window.oldest_in_memory(now);
            older.is_some_and(|older| older.has_pending() || is_old(ring))
        })
    }

    /// Has the intervals that memory need not hold at `now` wait for the disk.
    pub(crate) fn age(&mut self, keep: &Keep, now: u64) {
        for (window, ring, older) in self.parts_mut(keep) {
            if let Some(older) = older {
                ring.evict(window.oldest_in_memory(now), older);
            }
        }
    }

    /// The ranges that [`Series::take_outgoing`] would take now: the places of their windows, first and last interval.
    pub(crate) fn waiting(&self) -> Vec<(usize, u64, u64)> {
        let ranges = self.older().enumerate().flat_map(|(place, older)| {
            older.waiting_chunks().into_iter().map(move |chunk| (place, chunk * CHUNK_INTERVALS))
        });
        ranges.map(|(place, first)| (place, first, first + CHUNK_INTERVALS - 1)).collect()
    }

    /// How many intervals wait for the disk.
    pub(crate) fn waiting_count(&self) -> usize {
        self.older().map(super::Older::waiting_count).sum()
    }

    /// Takes what is to be added to the chunks on disk, if anything is.
    pub(crate) fn take_outgoing(&mut self) -> Option<Outgoing> {
        let more = self.more.as_deref_mut()?;
        let has_pending = more.older.iter().any(super::Older::has_pending);
        let is_changed = std::mem::take(&mut more.is_changed);
        let ends = self.older_ends();
        let is_due = has_pending || (is_changed && ends.iter().any(|end| *end > 0));
        if !is_due {
            return None;
        }
        let mut intervals: [Intervals; WINDOWS_MAX] = Default::default();
        let older = self.more.iter_mut().flat_map(|more| &mut more.older);
        intervals.iter_mut().zip(older).for_each(|(intervals, older)| *intervals = older.take_pending());
        Some(Outgoing { intervals, ends })
    }

    /// Has what [`Series::take_outgoing`] gave wait again.
    pub(crate) fn put_back(&mut self, outgoing: Outgoing) {
        let more = self.more.get_or_insert_default();
        more.is_changed = true;
        for (older, intervals) in more.older.iter_mut().zip(outgoing.intervals) {
            intervals.into_iter().for_each(|(number, bucket)| older.take(number, bucket));
        }
    }

    /// One past the newest interval on disk of each window, or that is to be added there; 0 where there is none.
    fn older_ends(&self) -> [u64; WINDOWS_MAX] {
        let mut ends = [0; WINDOWS_MAX];
        ends.iter_mut().zip(self.older()).for_each(|(end, older)| *end = older.end);
        ends
    }

    /// Notes that intervals of a window up to before `end` are on disk.
    pub(crate) fn note_older(&mut self, keep: &Keep, interval_sec: u64, end: u64) {
        let known = self.parts_mut(keep).find(|(window, ..)| window.interval_sec == interval_sec);
        if let Some((_, _, Some(older))) = known {
            older.end = older.end.max(end);
        }
    }
}

fn is_sound(bucket: Bucket) -> bool {
    bucket.count > 0 && [bucket.sum, bucket.min, bucket.max].iter().all(|value| value.is_finite())
}

/// The number of the first interval of a chunk that [`encode_chunk`] has packed.
pub(crate) fn first_number(chunk: u64, bytes: &[u8]) -> Option<u64> {
    Some(chunk.checked_mul(CHUNK_INTERVALS)? + u64::from(*bytes.first()? & INDEX))
}

/// Packs the intervals of one chunk. Of each: its index in the chunk, two flags and a form (a byte), its count (LEB128),
/// and its least, sum and greatest, of which those are left out that the flags say are the same.
///
/// With form 0 each is 8 bytes, little-endian. With another the values are decimals of no, one or two digits. Each is its
/// number of units (LEB128), the greatest beyond the least. Behind a sum with digits is by how many floats it is from that
/// number, because rounding has added up.
pub(crate) fn encode_chunk(intervals: &[(u64, Bucket)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(intervals.len() * CHUNK_ENTRY_BYTES);
    for (number, bucket) in intervals {
        let Bucket { count, sum, min, max } = *bucket;
        let is_one = min.to_bits() == max.to_bits();
        let is_sum = is_one && sum.to_bits() == min.to_bits();
        let flags = if is_one { ONE_VALUE } else { 0 } | if is_sum { SUM_IS_VALUE } else { 0 };
        let packed = (1..SCALES.len()).find_map(|form| Some((form, Decimals::of(*bucket, form)?)));
        let form = packed.as_ref().map_or(0, |(form, _)| *form as u8);
        bytes.push((number % CHUNK_INTERVALS) as u8 | form << FORM_SHIFT | flags);
        put_number(&mut bytes, count.into());
        match packed {
            Some((form, Decimals { min, sum, off, more })) => {
                put_number(&mut bytes, zigzag(min));
                if !is_sum {
                    put_number(&mut bytes, zigzag(sum));
                    if form > 1 {
                        put_number(&mut bytes, zigzag(off));
                    }
                }
                if !is_one {
                    put_number(&mut bytes, more);
                }
            }
            None => {
                bytes.extend_from_slice(&min.to_le_bytes());
                if !is_sum {
                    bytes.extend_from_slice(&sum.to_le_bytes());
                }
                if !is_one {
                    bytes.extend_from_slice(&max.to_le_bytes());
                }
            }
        }
    }
    bytes
}

/// The values of a bucket in units of a decimal place.
struct Decimals {
    min: i64,
    sum: i64,
    /// By how many floats the sum is from its units.
    off: i64,
    /// How much the greatest is above the least.
    more: u64,
}

impl Decimals {
    /// The values of a bucket by a form; `None` where that would not give them back to the last bit.
    fn of(bucket: Bucket, form: usize) -> Option<Self> {
        let (min, sum) = (units(bucket.min, form), units(bucket.sum, form));
        let off = bucket.sum.to_bits().wrapping_sub(value(sum, form).to_bits()).cast_signed();
        let more = u64::try_from(units(bucket.max, form) - min).ok()?;
        let is_small = off.unsigned_abs() <= OFF_MAX && (off == 0 || form > 1);
        let packed = Self { min, sum, off, more };
        let Bucket { min, sum, max, .. } = packed.bucket(bucket.count, form)?;
        let is_same = [min, sum, max].map(f64::to_bits) == [bucket.min, bucket.sum, bucket.max].map(f64::to_bits);
        (is_small && is_same).then_some(packed)
    }

    fn bucket(&self, count: u32, form: usize) -> Option<Bucket> {
        let sum = f64::from_bits(value(self.sum, form).to_bits().wrapping_add_signed(self.off));
        let max = self.min.checked_add_unsigned(self.more)?;
        Some(Bucket { count, sum, min: value(self.min, form), max: value(max, form) })
    }
}

/// Most floats that a packed sum may be from its units: with more its 8 bytes would be no longer.
const OFF_MAX: u64 = 1 << 20;

/// A value in units of a form, rounded and within what a float counts exactly.
fn units(value: f64, form: usize) -> i64 {
    ((value * SCALES[form]).round() as i64).clamp(-1 << 53, 1 << 53)
}

fn value(units: i64, form: usize) -> f64 {
    units as f64 / SCALES[form]
}

/// Numbers of either sign as ones that are small where these are near 0.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Appends a number, LEB128.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number off the front, LEB128.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

fn take_float(bytes: &mut &[u8]) -> Option<f64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(f64::from_le_bytes(*first))
}

/// The intervals of a chunk that [`encode_chunk`] has packed; `None` where the bytes are no such chunk.
pub(crate) fn decode_chunk(chunk: u64, mut bytes: &[u8]) -> Option<Intervals> {
    let mut intervals = Intervals::new();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        let index = u64::from(first & INDEX);
        let (is_one, is_sum) = (first & ONE_VALUE != 0, first & SUM_IS_VALUE != 0);
        let count = u32::try_from(take_number(&mut bytes)?).ok()?;
        let bucket = match usize::from((first & FORM) >> FORM_SHIFT) {
            0 => {
                let min = take_float(&mut bytes)?;
                let sum = if is_sum { min } else { take_float(&mut bytes)? };
                let max = if is_one { min } else { take_float(&mut bytes)? };
                Bucket { count, sum, min, max }
            }
            form => {
                let mut number = || take_number(&mut bytes);
                let min = unzigzag(number()?);
                let sum = if is_sum { min } else { unzigzag(number()?) };
                let off = if is_sum || form == 1 { 0 } else { unzigzag(number()?) };
                let more = if is_one { 0 } else { number()? };
                Decimals { min, sum, off, more }.bucket(count, form)?
            }
        };
        if index >= CHUNK_INTERVALS || chunk >= CHUNKS_END || !is_sound(bucket) {
            return None;
        }
        intervals.push((chunk * CHUNK_INTERVALS + index, bucket));
    }
    Some(intervals)
}

/// Whether all intervals of a durable chunk have left their window at `now`, by one chunk or more. Chunks of an unknown
/// window have expired.
#[must_use]
pub(crate) fn is_chunk_expired(keep: &Keep, name: &str, interval_sec: u64, chunk: u64, now: u64) -> bool {
    let window = keep.window(interval_sec).filter(|window| window.name == name);
    window.is_none_or(|window| chunk.saturating_add(2) <= window.oldest(now) / CHUNK_INTERVALS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{NOW, answer, keep, recorded, samples};
    use super::super::{IntervalRange, SampleTime, merge_intervals};
    use super::*;

    fn bucket() -> impl Strategy<Value = Bucket> {
        let decimal = (-100_000..100_000_i32, 0..4).prop_map(|(units, digits)| f64::from(units) / 10_f64.powi(digits));
        let value = prop_oneof![Just(0.0), Just(-0.0), -1e300..1e300_f64, -1e18..1e18_f64, decimal.clone(), decimal];
        let counts = prop_oneof![Just(1), 1..300_u32, any::<u32>().prop_map(|count| count.max(1))];
        (counts, value.clone(), value.clone(), value, any::<bool>()).prop_map(|(count, sum, min, max, is_one)| {
            if is_one { Bucket { count, sum: min, min, max: min } } else { Bucket { count, sum, min, max } }
        })
    }

    proptest! {
        #[test]
        fn packed_chunks_are_read_as_they_were(buckets in proptest::collection::btree_map(0..CHUNK_INTERVALS, bucket(), 1..12), chunk in 0..CHUNKS_END) {
            let intervals: Intervals = buckets.into_iter().map(|(index, bucket)| (chunk * CHUNK_INTERVALS + index, bucket)).collect();
            let bytes = encode_chunk(&intervals);
            prop_assert!(bytes.len() <= intervals.len() * (1 + 5 + 27));
            prop_assert_eq!(decode_chunk(chunk, &bytes), Some(intervals));
            for end in 0..bytes.len() {
                let _ = decode_chunk(chunk, &bytes[..end]);
            }
        }

        #[test]
        fn no_bytes_make_a_packed_chunk_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), chunk in any::<u64>()) {
            let _ = decode_chunk(chunk, &bytes);
        }

        /// The ring, what waits and what was taken for the disk are together all that was recorded, whatever came when.
        #[test]
        fn each_sample_is_in_memory_or_on_disk_and_never_in_both(
            samples in proptest::collection::vec((0..40 * 86_400_u64, -8000..8000_i32), 1..400),
            steps in proptest::collection::vec((1..60_usize, 0..9000_u64, any::<bool>()), 1..40),
        ) {
            let keep: Keep = "1m:1d,1h:30d,1d:90d".parse().unwrap();
            let (plain, keep) = (keep, keep.on_disk());
            let (mut whole, mut series, mut now) = (Series::default(), Series::default(), NOW);
            let mut disk: [Intervals; WINDOWS_MAX] = Default::default();
            let mut saved = std::collections::BTreeMap::new();
            let mut rest = samples.iter();
            for (count, step, is_checkpoint) in steps {
                now += step;
                for (age, value) in rest.by_ref().take(count) {
                    let (epoch, value) = (now - age, f64::from(*value) / 8.0);
                    whole.record(&plain, &SampleTime::new(&plain, epoch, now), value);
                    series.record(&keep, &SampleTime::new(&keep, epoch, now), value);
                }
                series.expire(&keep, now);
                if is_checkpoint {
                    series.age(&keep, now);
                    series.take_changes(&keep, |window, chunk, bytes| {
                        match bytes.is_empty() {
                            true => saved.remove(&(window.name, chunk)).map(drop),
                            false => saved.insert((window.name, chunk), bytes.to_vec()).map(drop),
                        };
                    });
                    if let Some(outgoing) = series.take_outgoing() {
                        for (disk, more) in disk.iter_mut().zip(outgoing.intervals) {
                            *disk = merge_intervals(std::mem::take(disk), more);
                        }
                    }
                    // A restart reads the ring from its chunks.
                    let mut restored = Series::default();
                    for ((name, chunk), bytes) in &saved {
                        let window = keep.windows().iter().find(|window| window.name == *name).unwrap();
                        restored.restore(&keep, name, window.interval_sec, *chunk, bytes, now).unwrap();
                    }
                    for (place, window) in keep.windows().iter().enumerate() {
                        restored.note_older(&keep, window.interval_sec, series.older_ends()[place]);
                    }
                    for window in keep.windows().iter().copied() {
                        let all = IntervalRange { window, first: 0, last: u64::MAX - 1 };
                        prop_assert_eq!(restored.range(&keep, all), series.range(&keep, all));
                    }
                    series = restored;
                }
                for (place, window) in keep.windows().iter().enumerate() {
                    let (first, last) = (window.oldest(now), window.number(now));
                    let range = IntervalRange { window: *window, first, last };
                    let held = disk[place].iter().copied().filter(|(number, _)| (first..=last).contains(number));
                    prop_assert_eq!(merge_intervals(held.collect(), series.range(&keep, range)), whole.range(&keep, range), "{} at {}", window.name, now);
                }
            }
        }
    }

    /// The intervals of an hour by minute, of values with so many digits each second.
    fn hour(digits: i32) -> Intervals {
        let value = |second: u64| (second * 7919 % 1000) as f64 / 10_f64.powi(digits);
        let minutes = (0..CHUNK_INTERVALS).map(|minute| {
            let mut bucket = Bucket::default();
            (0..60).for_each(|second| bucket.merge(Bucket::of(value(60 * minute + second))));
            (minute, bucket)
        });
        minutes.collect()
    }

    #[test]
    fn values_of_few_digits_are_packed_in_few_bytes() {
        for (digits, bytes_max) in [(0, 9), (1, 11), (2, 11), (3, 26)] {
            let packed = encode_chunk(&hour(digits));
            assert_eq!(decode_chunk(0, &packed), Some(hour(digits)));
            assert!(packed.len() as u64 <= bytes_max * CHUNK_INTERVALS, "{} bytes, {digits} digits", packed.len());
        }
    }

    /// What format 4 has written: no value is packed there.
    #[test]
    fn chunks_without_packed_values_are_read() {
        let bytes = [&[0x02, 60][..], &1_f64.to_le_bytes(), &90_f64.to_le_bytes(), &2_f64.to_le_bytes()].concat();
        let [one, sum] = [[0x83, 1], [0xc4, 1]].map(|head| [&head[..], &0.5_f64.to_le_bytes()].concat());
        let bytes = [bytes, one, 8_f64.to_le_bytes().to_vec(), sum].concat();
        let bucket = |count, sum, min, max| Bucket { count, sum, min, max };
        let read = vec![(14, bucket(60, 90.0, 1.0, 2.0)), (15, bucket(1, 8.0, 0.5, 0.5)), (16, Bucket::of(0.5))];
        assert_eq!(decode_chunk(1, &bytes), Some(read));
    }

    /// Adds the chunks of `series` to `into`.
    fn restored(series: &mut Series, into: Option<Series>, now: u64) -> Series {
        let mut restored = into.unwrap_or_default();
        series.take_changes(&keep(), |window, chunk, bytes| {
            restored.restore(&keep(), window.name, window.interval_sec, chunk, bytes, now).unwrap();
        });
        restored
    }

    proptest! {
        #[test]
        fn chunks_restore_a_series(samples in samples()) {
            let mut series = recorded(&samples, NOW);
            prop_assert_eq!(answer(&restored(&mut series, None, NOW), NOW), answer(&series, NOW));
            series.take_changes(&keep(), |_, _, _| panic!("nothing has changed since"));
            series.mark_all_changed(&keep());
            prop_assert_eq!(answer(&restored(&mut series, None, NOW), NOW), answer(&series, NOW));
        }

        #[test]
        fn the_newest_version_of_each_chunk_is_the_series(samples in samples(), every in 1..50_usize) {
            let (mut series, mut chunks) = (Series::default(), std::collections::BTreeMap::new());
            for batch in samples.chunks(every) {
                batch.iter().for_each(|(epoch, value)| series.record(&keep(), &SampleTime::new(&keep(), *epoch, NOW), *value));
                series.take_changes(&keep(), |window, chunk, bytes| {
                    chunks.insert((window.name, window.interval_sec, chunk), bytes.to_vec());
                });
            }
            let mut restored = Series::default();
            for ((name, interval_sec, chunk), bytes) in chunks {
                restored.restore(&keep(), name, interval_sec, chunk, &bytes, NOW).unwrap();
            }
            prop_assert_eq!(answer(&restored, NOW), answer(&series, NOW));
        }

        #[test]
        fn no_bytes_make_a_wrong_chunk_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), chunk in any::<u64>()) {
            let mut series = Series::default();
            let _ = series.restore(&keep(), "by-minute", 60, chunk, &bytes, NOW);
        }
    }

    #[test]
    fn chunks_of_a_clock_that_was_ahead_are_left_out() {
        for ahead in [600, 7200, 3 * 86_400] {
            let mut of_ahead = recorded(&[(NOW + ahead, 9.0)], NOW + ahead);
            let real = recorded(&[(NOW - 3500, 1.0), (NOW, 2.0)], NOW);
            let both = restored(&mut of_ahead, Some(real.clone()), NOW);
            assert_eq!(answer(&both, NOW), answer(&real, NOW), "{ahead}");
        }
    }

    #[test]
    fn chunks_of_an_unknown_window_are_left_out_and_expire() {
        let mut series = recorded(&[(NOW, 1.0)], NOW);
        let mut other = Series::default();
        series.take_changes(&keep(), |_, chunk, bytes| {
            other.restore(&keep(), "by-day", 86_400, chunk, bytes, NOW).unwrap()
        });
        assert!(answer(&other, NOW).as_object().unwrap().is_empty());
        assert!(
            is_chunk_expired(&keep(), "by-day", 86_400, u64::MAX - 2, NOW)
                && is_chunk_expired(&keep(), "by-minute", 61, 0, NOW)
        );
        let chunk = NOW / 60 / CHUNK_INTERVALS;
        assert!(!is_chunk_expired(&keep(), "by-minute", 60, chunk, NOW + 3600));
        assert!(is_chunk_expired(&keep(), "by-minute", 60, chunk, NOW + 3600 + 3 * 720));
    }
}
