//! One rule held against one series: does it fire, is it right again, or is too little known?
//!
//! All of it is a function of what is kept, so that samples may come in any order before their minute closes.

use super::event::Comparison;
use super::rules::{FLAPPING_SEC_MAX, Function, Rule, Test};
use crate::summary::{Bucket, CLOSED_AFTER_SEC, Tail};

const MINUTE_SEC: u64 = 60;
/// Intervals with samples from which a series' own rhythm is learned: enough that one odd one does not matter, and few, so
/// that a new rhythm holds after some minutes.
const LEARNED_FROM: usize = 9;
/// Intervals that the newest known one may be old, unless a fifth of `for` is more.
const AGE_MAX: u64 = 3;
/// Percent of the intervals of `for` that must be known.
const KNOWN_PERCENT: u64 = 80;
/// Averages that a line needs.
const FORECAST_POINTS: usize = 4;
/// Longest time for which a rule must be right before its alert is resolved, unless `until` says how long.
const RESOLVE_SEC_MAX: u64 = 300;
/// Least time without a report after which a series is gone while its host reports.
pub(super) const GONE_SEC: u64 = 900;

/// What a rule says of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Evaluation {
    /// Nothing is wrong, or too little is known to say so.
    Quiet,
    /// The newest interval is bad, since this time, and `for` has not passed.
    Pending(Option<f64>, u64),
    /// All that the rule asks for is so.
    Fires(Option<f64>),
    /// It goes on as it was.
    Holds(Option<f64>),
    /// It goes on as it was, and nothing new is known.
    Stale,
    /// It is right again.
    Resolves(Option<f64>),
    /// The series has not been reported for long, while its host reports.
    Gone,
}

impl Evaluation {
    /// The newest value.
    pub(super) fn value(self) -> Option<f64> {
        match self {
            Self::Pending(value, _) | Self::Fires(value) | Self::Holds(value) | Self::Resolves(value) => value,
            Self::Quiet | Self::Stale | Self::Gone => None,
        }
    }
}

/// Number of the newest closed interval of a host: the one whose end its own newest epoch has passed by over five seconds.
pub(super) fn closed(last_epoch: u64, interval_sec: u64) -> Option<u64> {
    (last_epoch.checked_sub(CLOSED_AFTER_SEC + 1)? / interval_sec).checked_sub(1)
}

/// The intervals of a series up to the newest closed one, in its own rhythm.
struct Track<'a> {
    tail: &'a Tail,
    /// Intervals of the store between two reports, of a series that is reported less than once an interval; else 1.
    slot: u64,
    /// Samples that make a slot known.
    needed: f64,
}

impl<'a> Track<'a> {
    fn new(tail: &'a Tail, closed: u64, needs_percent: u8) -> Self {
        let held: Vec<(u64, u32)> =
            tail.held().rev().filter(|(number, _)| *number <= closed).take(LEARNED_FROM).collect();
        let median = |mut numbers: Vec<u64>| {
            numbers.sort_unstable();
            numbers.get(numbers.len() / 2).copied().unwrap_or(1)
        };
        // One gap is no rhythm yet.
        let gaps: Vec<u64> = held.windows(2).map(|pair| pair[0].0 - pair[1].0).collect();
        let slot = if gaps.len() > 1 { median(gaps) } else { 1 };
        let count = median(held.iter().map(|(_, count)| u64::from(*count)).collect());
        Self { tail, slot, needed: count as f64 * f64::from(needs_percent) / 100.0 }
    }

    /// The samples of the slots that end with interval `end`, if enough of them are known.
    fn merged(&self, end: u64, slots: u64) -> Option<Bucket> {
        let mut merged = Bucket::default();
        for number in (end + 1).saturating_sub(slots * self.slot)..=end {
            merged.merge(self.tail.get(number));
        }
        (merged.count > 0 && f64::from(merged.count) >= self.needed * slots as f64).then_some(merged)
    }

    /// The value of a function as of interval `end`, if it is known.
    fn value(&self, function: Function, end: u64, interval_sec: u64) -> Option<f64> {
        let in_slots = |intervals: u64| intervals.div_ceil(self.slot).max(1);
        let mean = |end| self.merged(end, 1).map(Bucket::mean);
        match function {
            Function::Average(span) => self.merged(end, in_slots(span)).map(Bucket::mean),
            Function::Min(span) => self.merged(end, in_slots(span)).map(|bucket| bucket.min),
            Function::Max(span) => self.merged(end, in_slots(span)).map(|bucket| bucket.max),
            Function::Change(span) => Some(mean(end)? - mean(end.checked_sub(in_slots(span) * self.slot)?)?),
            Function::Forecast { over, ahead_sec } => {
                let ends = (0..in_slots(over)).map_while(|slot| end.checked_sub(slot * self.slot));
                let points = ends.filter_map(|at| Some((-((end - at) as f64), mean(at)?)));
                line_at(&points.collect::<Vec<_>>(), ahead_sec as f64 / interval_sec as f64)
            }
        }
        .filter(|value| value.is_finite())
    }
}

/// The line through points by least squares, read at `x`.
fn line_at(points: &[(f64, f64)], x: f64) -> Option<f64> {
    if points.len() < FORECAST_POINTS {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    Some(mean_y + covariance / variance * (x - mean_x))
}

/// Holds a rule against a series. `closed` is the newest closed interval of the rule's kind, `is_firing` whether this rule
/// fires for it now, `doublings` how often its alert has fired again within the hour, `silent_until` until when its host said
/// nothing.
pub(super) fn evaluate(
    rule: &Rule,
    tail: &Tail,
    closed: u64,
    is_firing: bool,
    doublings: u32,
    silent_until: u64,
) -> Evaluation {
    let Test::Series { function, comparison, threshold, .. } = &rule.test else { return Evaluation::Quiet };
    let is_bad = |value| comparison.holds(value, *threshold);
    // Most series are right, and their newest interval says so: the rest need not be read.
    if !is_firing && is_plainly_good(*function, tail, closed, *comparison, *threshold) {
        return Evaluation::Quiet;
    }
    let track = Track::new(tail, closed, rule.needs_percent);
    let slot_sec = rule.interval_sec * track.slot;
    let slots = |sec: u64| sec.div_ceil(slot_sec).max(1);
    let value = |end| track.value(*function, end, rule.interval_sec);
    let n = slots(rule.for_sec);
    let age_max = AGE_MAX.max(n / 5) * track.slot;
    let recent = (closed.saturating_sub(age_max)..=closed).rev();
    let newest = recent.filter(|end| tail.get(*end).count > 0).find_map(|end| Some((end, value(end)?)));
    let Some((end, now_value)) = newest else {
        let last = tail.held().map(|(number, _)| number).rfind(|number| *number <= closed);
        let last_end = last.map_or(0, |number| (number + 1) * rule.interval_sec);
        let silent_sec = ((closed + 1) * rule.interval_sec).saturating_sub(last_end.max(silent_until));
        let gone_sec = rule.for_sec.max(GONE_SEC).max(AGE_MAX * slot_sec);
        return match is_firing {
            false => Evaluation::Quiet,
            true if silent_sec > gone_sec => Evaluation::Gone,
            true => Evaluation::Stale,
        };
    };
    // How many of the last slots are known, and whether all of these are as they should be.
    let all = |count: u64, is_so: &dyn Fn(f64) -> bool| {
        let known = (0..count).filter_map(|slot| value(end.checked_sub(slot * track.slot)?));
        let mut counted = 0;
        let are_so = known.inspect(|_| counted += 1).all(is_so);
        are_so && counted * 100 >= count * KNOWN_PERCENT
    };
    if is_firing {
        let until = rule.until.as_ref();
        let is_good = |value| until.map_or(!is_bad(value), |until| until.comparison.holds(value, until.threshold));
        let good_sec = until.and_then(|until| until.for_sec).unwrap_or(rule.for_sec.min(RESOLVE_SEC_MAX));
        let longest = FLAPPING_SEC_MAX.max(good_sec);
        let good_sec = good_sec.max(MINUTE_SEC).saturating_mul(1 << doublings.min(6)).min(longest);
        return match all(slots(good_sec), &is_good) {
            true => Evaluation::Resolves(Some(now_value)),
            false => Evaluation::Holds(Some(now_value)),
        };
    }
    if !is_bad(now_value) {
        return Evaluation::Quiet;
    }
    if all(n, &is_bad) {
        return Evaluation::Fires(Some(now_value));
    }
    let since = (0..n).map_while(|slot| end.checked_sub(slot * track.slot));
    let since = since.take_while(|at| value(*at).is_none_or(is_bad)).last().unwrap_or(end);
    Evaluation::Pending(Some(now_value), (since + 1) * rule.interval_sec)
}

/// Whether the newest interval alone shows that a rule does not fire. A mean of one interval is what it is; a least value
/// above the threshold needs all of them above, and so on.
fn is_plainly_good(function: Function, tail: &Tail, closed: u64, comparison: Comparison, threshold: f64) -> bool {
    let bucket = tail.get(closed);
    let is_upward = matches!(comparison, Comparison::Above | Comparison::AtLeast);
    let value = match function {
        Function::Average(1) => bucket.mean(),
        Function::Min(_) if is_upward => bucket.min,
        Function::Max(1) => bucket.max,
        Function::Max(_) if !is_upward => bucket.max,
        _ => return false,
    };
    // With few samples the one before may count, which the rest of this decides.
    bucket.count > 0
        && !comparison.holds(value, threshold)
        && tail.get(closed.saturating_sub(1)).count <= 2 * bucket.count
}
