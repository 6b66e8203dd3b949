//! Summaries as JSON: keys, intervals, rounding.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use smol_str::SmolStr;

use super::keep::names;
use super::{ANSWER_INTERVALS_MAX, Bucket, IntervalRange, Intervals, Keep, Ring, Series, Window};

/// Rounds to two decimals, half to even on the binary value, as Python's `round(x, 2)` does.
///
/// Rust's formatting is exact in the same way. The fast path is arithmetic: below ten million its error is at most 2e-7 of
/// a hundredth, so it gives the same result unless the number is near the middle between two hundredths.
#[must_use]
pub fn round2(value: f64) -> f64 {
    let hundredths = value * 100.0;
    let nearest = hundredths.round();
    if hundredths.abs() < 1e9 && (hundredths - nearest).abs() < 0.499_999 {
        nearest / 100.0
    } else if value.fract() == 0.0 {
        value
    } else {
        format!("{value:.2}").parse().unwrap_or(value)
    }
}

/// One interval of an answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Average {
    start_sec: u64,
    end_sec: u64,
    interval_size_sec: u64,
    num_samples: u32,
    /// The mean, rounded by [`round2`].
    avg: f64,
    mean: f64,
    min: f64,
    max: f64,
}

impl Average {
    fn new(window: &Window, number: u64, bucket: Bucket) -> Self {
        Self {
            start_sec: number * window.interval_sec,
            end_sec: (number + 1) * window.interval_sec,
            interval_size_sec: window.interval_sec,
            num_samples: bucket.count,
            avg: round2(bucket.mean()),
            mean: bucket.mean(),
            min: bucket.min,
            max: bucket.max,
        }
    }
}

/// One series in one window of an answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    start: u64,
    end: u64,
    averages: Vec<Average>,
    timeslice_size_sec: u64,
    average_count: usize,
}

impl Series {
    fn summary(&self, window: &Window, ring: &Ring, now: u64) -> Option<Summary> {
        let listed = ring
            .held()
            .filter(|(number, _)| *number >= window.oldest_listed(now) && number * window.interval_sec < now);
        let mut averages: Vec<Average> = listed
            .rev()
            .take(ANSWER_INTERVALS_MAX)
            .map(|(number, bucket)| Average::new(window, number, bucket))
            .collect();
        averages.reverse();
        (!averages.is_empty()).then(|| Summary::new(window, window.oldest_listed(now), now, averages))
    }
}

impl Summary {
    fn new(window: &Window, oldest: u64, end: u64, averages: Vec<Average>) -> Self {
        Self {
            start: oldest * window.interval_sec,
            end,
            timeslice_size_sec: window.interval_sec,
            average_count: averages.len(),
            averages,
        }
    }
}

/// Selects the summaries whose key contains a text, ignoring case, or those of some labels.
#[derive(Debug)]
pub struct KeyFilter {
    text: String,
    labels: Option<BTreeSet<SmolStr>>,
}

impl KeyFilter {
    /// Selects the summaries whose key contains `text`. An empty text selects all.
    #[must_use]
    pub fn containing(text: &str) -> Self {
        Self { text: text.to_lowercase(), labels: None }
    }

    /// Selects all summaries of these labels.
    #[must_use]
    pub fn of_labels(labels: impl IntoIterator<Item = SmolStr>) -> Self {
        Self { text: String::new(), labels: Some(labels.into_iter().collect()) }
    }

    /// Whether any summary of `label` is selected.
    #[must_use]
    pub fn matches_label(&self, label: &str) -> bool {
        let is_among = self.labels.as_ref().is_none_or(|labels| labels.contains(label));
        is_among && (self.text.is_empty() || names().any(|name| self.matches_key(&key(name, label))))
    }

    fn matches_key(&self, key: &str) -> bool {
        self.text.is_empty() || key.to_lowercase().contains(&self.text)
    }
}

fn key(name: &str, label: &str) -> String {
    format!("summary:{name}:{label}")
}

/// The summaries of a host, which serialize as one JSON object of keys and summaries. A series without samples in a window
/// is left out.
#[derive(Debug)]
pub struct Summaries<'a, L> {
    /// Labels and series.
    pub series: &'a [(L, Series)],
    /// The summaries to write.
    pub filter: &'a KeyFilter,
    /// What the store keeps.
    pub keep: &'a Keep,
    /// The receiver's clock.
    pub now: u64,
}

impl<L: AsRef<str>> Serialize for Summaries<'_, L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, window) in self.keep.windows().iter().enumerate() {
            for (label, series) in self.series {
                let key = key(window.name, label.as_ref());
                let ring = series.rings().nth(index).filter(|_| self.filter.matches_key(&key));
                if let Some(summary) = ring.and_then(|ring| series.summary(window, ring, self.now)) {
                    map.serialize_entry(&key, &summary)?;
                }
            }
        }
        map.end()
    }
}

/// The summaries of a host over a range, which serialize as [`Summaries`] do. With them stands `kept-from`, in seconds
/// since the Unix epoch, if the range begins before anything is kept.
#[derive(Debug)]
pub struct RangeSummaries<'a, L> {
    /// Labels, and the intervals of each that have samples.
    pub series: &'a [(L, Intervals)],
    /// The summaries to write.
    pub filter: &'a KeyFilter,
    /// The window of the intervals.
    pub window: &'a Window,
    /// The range.
    pub range: IntervalRange,
    /// The end of the range in seconds since the Unix epoch.
    pub end: u64,
    /// Where what is kept begins, if that is in the range.
    pub kept_from: Option<u64>,
}

impl<L: AsRef<str>> Serialize for RangeSummaries<'_, L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(kept_from) = self.kept_from {
            map.serialize_entry("kept-from", &kept_from)?;
        }
        for (label, intervals) in self.series.iter().filter(|(_, intervals)| !intervals.is_empty()) {
            let key = key(self.window.name, label.as_ref());
            if self.filter.matches_key(&key) {
                let averages = intervals.iter().map(|(number, bucket)| Average::new(self.window, *number, *bucket));
                let summary = Summary::new(self.window, self.range.first, self.end, averages.collect());
                map.serialize_entry(&key, &summary)?;
            }
        }
        map.end()
    }
}

/// The first line of [`csv`].
const CSV_HEAD: &str = "host,label,start-sec,end-sec,num-samples,mean,sum,min,max\n";

/// The intervals of a host over a range as CSV (RFC 4180, with lines that end as on Unix).
#[must_use]
pub fn csv<L: AsRef<str>>(host: &str, summaries: &RangeSummaries<'_, L>) -> String {
    let RangeSummaries { series, filter, window, .. } = summaries;
    let mut text = CSV_HEAD.to_owned();
    for (label, intervals) in *series {
        if !filter.matches_key(&key(window.name, label.as_ref())) {
            continue;
        }
        for (number, bucket) in intervals {
            let (start, end) = (number * window.interval_sec, (number + 1) * window.interval_sec);
            let Bucket { count, sum, min, max } = *bucket;
            let (host, label, mean) = (csv_field(host), csv_field(label.as_ref()), bucket.mean());
            let _ = writeln!(text, "{host},{label},{start},{end},{count},{mean:?},{sum:?},{min:?},{max:?}");
        }
    }
    text
}

fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounding_equals_that_of_python() {
        // Pairs of x and round(x, 2) of CPython 3.11.
        let pairs = [
            (0.125, 0.12),
            (0.375, 0.38),
            (2.675, 2.67),
            (1.005, 1.0),
            (-0.125, -0.12),
            (5.015, 5.01),
            (0.005, 0.01),
            (1e300, 1e300),
            (123_456_789.125, 123_456_789.12),
            (4.98, 4.98),
            (-0.001, -0.0),
            (36.0, 36.0),
        ];
        for (value, rounded) in pairs {
            assert_eq!(round2(value).to_bits(), f64::to_bits(rounded), "{value}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_path_rounds_as_formatting_does(value in -1e8..1e8_f64, hundredth in -20_000..20_000_i32, off in -3..=3_i32) {
            let beside_middle = (f64::from(hundredth) + 0.5) / 100.0 + f64::from(off) * 1e-9;
            for value in [value, value / 1e5, beside_middle] {
                prop_assert_eq!(round2(value).to_bits(), format!("{value:.2}").parse::<f64>().unwrap().to_bits(), "{}", value);
            }
        }
    }
}
