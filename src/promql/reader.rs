//! What the store keeps of series, as values at the times of a query.
//!
//! An interval is taken for all times in it. A step that is longer than an interval merges those that have ended since the
//! step before, so each counts once.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::functions::OverTime;
use super::selection::{Found, Own, Selection};
use super::{Budget, Error, Labels, POINTS_MAX, POINTS_OF_QUERY_MAX, SERIES_MAX, Selector};
use crate::metric_names::Stat;
use crate::store::{HostState, LabelPage, Store};
use crate::summary::{Bucket, IntervalRange, Intervals, Keep, KeyFilter, Window};

/// How far back an instant query looks for the newest interval, in milliseconds.
const LOOK_BACK_MS: i64 = 300_000;
/// Intervals that are read of a store at a time.
const STEP_INTERVALS: u64 = 60_000;
/// Times of a query after which its budget is looked at.
const STEP_TIMES: usize = 128;
/// Labels that are read at a time.
const STEP_LABELS: usize = 500;
/// What of a range a window need not cover: the tenth part.
const SLACK_PART: i64 = 10;
/// Seconds without a sample after which a host is down, unless ten of its intervals are longer.
const DOWN_SEC: u64 = 60;

/// The times of a query, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// The first.
    pub start_ms: i64,
    /// From one to the next; 0 for an instant query.
    pub step_ms: i64,
    /// How many.
    pub count: u64,
}

impl Steps {
    /// The one time of an instant query.
    #[must_use]
    pub fn at(time_ms: i64) -> Self {
        Self { start_ms: time_ms, step_ms: 0, count: 1 }
    }

    pub(super) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |step| self.start_ms + self.step_ms * i64::try_from(step).unwrap_or(0))
    }

    fn last_ms(self) -> i64 {
        self.times().last().unwrap_or(self.start_ms)
    }
}

/// Series with the times, in milliseconds since the Unix epoch, and values of their points.
pub type Matrix = Vec<(Labels, Vec<(i64, f64)>)>;

/// A series at the times of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) labels: Labels,
    pub(super) values: Vec<Option<f64>>,
}

/// Which value the intervals of a time have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fold {
    /// That of all, merged.
    Merge,
    /// That of the newest.
    Newest,
    /// A function of all samples.
    Over(OverTime),
}

/// The intervals of a window that the times of a query see.
struct View {
    range: IntervalRange,
    /// For each time the number before its first interval, and that of the last.
    bounds: Vec<(i64, i64)>,
}

impl View {
    /// Chooses the finest window that covers the times in [`POINTS_MAX`] intervals, and finds the intervals. A coarser one
    /// is taken where its intervals give the same, as `is_mergeable` allows.
    fn new(keep: &Keep, steps: Steps, span_ms: i64, is_mergeable: bool, now: u64) -> Self {
        let (first_ms, last_ms) = (steps.start_ms, steps.last_ms());
        // Within a range the first step may miss a part of its span.
        let (from_ms, slack_ms) = match steps.step_ms {
            0 => (first_ms - span_ms, 0),
            step_ms => (first_ms - span_ms, step_ms.max((last_ms - first_ms) / SLACK_PART)),
        };
        let interval_ms = |window: &Window| milliseconds(window.interval_sec);
        let covers = |window: &Window| {
            milliseconds(window.oldest(now) * window.interval_sec) <= from_ms + slack_ms.max(interval_ms(window))
        };
        let count = |window: &Window| (last_ms - from_ms) / interval_ms(window) + 1;
        let windows = || keep.windows_at(now);
        let covering = || windows().filter(|window| covers(window));
        let most = i64::try_from(POINTS_MAX).unwrap_or(i64::MAX);
        let finest = covering().find(|window| count(window) <= most).or_else(|| covering().next_back());
        let mut window = finest.unwrap_or_else(|| keep.longest_at(now));
        let finest_sec = window.interval_sec;
        for coarser in windows().filter(|coarser| is_mergeable && coarser.interval_sec > finest_sec) {
            let is_multiple = |ms: i64| ms.rem_euclid(interval_ms(coarser)) == 0;
            if covers(coarser) && [first_ms, steps.step_ms, span_ms].into_iter().all(is_multiple) {
                window = coarser;
            }
        }
        let number = |ms: i64| (ms - 1).div_euclid(interval_ms(window));
        let bounds = |ms: i64| (number(ms - span_ms).min(number(ms) - 1), number(ms));
        let bounds: Vec<(i64, i64)> = steps.times().map(bounds).collect();
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        let first = bounds.first().map_or(0, |(before, _)| unsigned(before + 1)).max(window.oldest(now));
        let last = bounds.last().map_or(0, |(_, last)| unsigned(*last));
        let range = IntervalRange { window: *window, first, last };
        Self { range, bounds }
    }

    /// The values of intervals at each time.
    fn values(
        &self,
        intervals: &Intervals,
        stat: Stat,
        fold: Fold,
        budget: &Budget,
    ) -> Result<Vec<Option<f64>>, Error> {
        let mut rest = &intervals[..];
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut value = |(before, last): &(i64, i64)| {
            rest = &rest[rest.partition_point(|(at, _)| number(*at) <= *before)..];
            let seen = rest.iter().take_while(|(at, _)| number(*at) <= *last).map(|(_, bucket)| part(*bucket, stat));
            match fold {
                Fold::Newest => seen.last().map(|bucket| natural(bucket, stat)),
                Fold::Over(OverTime::Last) => seen.last().map(|bucket| OverTime::Last.of_bucket(bucket)),
                Fold::Merge => merged(seen).map(|bucket| natural(bucket, stat)),
                Fold::Over(function) => merged(seen).map(|bucket| function.of_bucket(bucket)),
            }
        };
        let mut values = Vec::with_capacity(self.bounds.len());
        for step in self.bounds.chunks(STEP_TIMES) {
            budget.check()?;
            values.extend(step.iter().map(&mut value));
        }
        Ok(values)
    }

    /// The end of an interval, or the last time if that is before.
    fn time_ms(&self, number: u64, last_ms: i64) -> i64 {
        milliseconds((number + 1).saturating_mul(self.range.window.interval_sec)).min(last_ms)
    }
}

fn milliseconds(sec: u64) -> i64 {
    i64::try_from(sec).unwrap_or(i64::MAX).saturating_mul(1000)
}

/// The samples of an interval that a stat has: all of them, or the stat itself as the only one.
fn part(bucket: Bucket, stat: Stat) -> Bucket {
    match stat {
        Stat::Mean => bucket,
        other => Bucket::of(other.of(bucket)),
    }
}

/// The value of such samples.
fn natural(bucket: Bucket, stat: Stat) -> f64 {
    match stat {
        Stat::Mean => bucket.mean(),
        Stat::Min => bucket.min,
        Stat::Max => bucket.max,
        Stat::Samples => bucket.sum,
    }
}

fn merged(buckets: impl Iterator<Item = Bucket>) -> Option<Bucket> {
    buckets.reduce(|mut sum, bucket| {
        sum.merge(bucket);
        sum
    })
}

/// What reads the series of a query.
pub(super) struct Reader<'a> {
    selection: Selection<'a>,
    budget: &'a Budget,
    series: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(selection: Selection<'a>, budget: &'a Budget) -> Self {
        Self { selection, budget, series: 0 }
    }

    pub(super) fn budget(&self) -> &Budget {
        self.budget
    }

    /// The series of a selector at the times of a query.
    pub(super) fn lines(&mut self, selector: &Selector, steps: Steps) -> Result<Vec<Line>, Error> {
        match steps.step_ms {
            0 => self.read(selector, steps, LOOK_BACK_MS, Fold::Newest),
            step_ms => self.read(selector, steps, step_ms, Fold::Merge),
        }
    }

    /// A function of a span of each series.
    pub(super) fn lines_over(
        &mut self,
        function: OverTime,
        selector: &Selector,
        span_ms: i64,
        steps: Steps,
    ) -> Result<Vec<Line>, Error> {
        self.read(selector, steps, span_ms, Fold::Over(function))
    }

    fn read(&mut self, selector: &Selector, steps: Steps, span_ms: i64, fold: Fold) -> Result<Vec<Line>, Error> {
        let shifted = Steps { start_ms: steps.start_ms - selector.offset_ms, ..steps };
        let mut lines = Vec::new();
        let (budget, is_mergeable) = (self.budget, fold == Fold::Merge);
        let view = View::new(&self.selection.store.keep(), shifted, span_ms, is_mergeable, self.selection.now);
        self.each(selector, &view, steps.count, |labels, stat, intervals| {
            let values = view.values(intervals, stat, fold, budget)?;
            if values.iter().any(Option::is_some) {
                lines.push(Line { labels, values });
            }
            Ok(())
        })?;
        Ok(lines)
    }

    /// The intervals of a span before a time, each at its end.
    pub(super) fn intervals(&mut self, selector: &Selector, span_ms: i64, time_ms: i64) -> Result<Matrix, Error> {
        let last_ms = time_ms - selector.offset_ms;
        let view = View::new(&self.selection.store.keep(), Steps::at(last_ms), span_ms, false, self.selection.now);
        let mut matrix = Vec::new();
        self.each(selector, &view, view.range.count(), |labels, stat, intervals| {
            let point =
                |(number, bucket): &(u64, Bucket)| (view.time_ms(*number, last_ms), natural(part(*bucket, stat), stat));
            if !intervals.is_empty() {
                matrix.push((labels, intervals.iter().map(point).collect()));
            }
            Ok(())
        })?;
        Ok(matrix)
    }

    /// Reads the intervals of all series of a selector, each of which gives up to `points` points.
    fn each(
        &mut self,
        selector: &Selector,
        view: &View,
        points: u64,
        mut take: impl FnMut(Labels, Stat, &Intervals) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (store, now, budget, series) = (self.selection.store, self.selection.now, self.budget, &mut self.series);
        let range = view.range;
        self.selection.find(selector, budget, |found| {
            *series += found.count();
            if *series > SERIES_MAX {
                return Err(Error::Execution(format!("query: selects more than {SERIES_MAX} series, the limit")));
            }
            if *series as u64 * points > POINTS_OF_QUERY_MAX {
                let sentence = format!("query: {series} series and more of {points} points each are more than");
                return Err(Error::Execution(format!("{sentence} {POINTS_OF_QUERY_MAX} points, the limit")));
            }
            for (own, labels) in &found.own {
                let intervals = own_intervals(&found, *own, view, store, budget, now)?;
                take(labels.clone(), Stat::Mean, &intervals)?;
            }
            let filter = KeyFilter::of_labels(found.labels.keys().cloned());
            let has_labels = !found.labels.is_empty() && range.count() > 0;
            each_page(&filter, range, has_labels, |page| {
                budget.check()?;
                let read = store.range(&found.host, &page, range, now)?;
                for (label, intervals) in &read {
                    for (stat, labels) in found.labels.get(label).into_iter().flatten() {
                        take(labels.clone(), *stat, intervals)?;
                    }
                }
                Ok(read.last().filter(|_| read.len() == page.labels_max).map(|(label, _)| label.clone()))
            })?;
            Ok(true)
        })
    }
}

/// Goes through the labels that `filter` has, a page at a time, as long as `read` names the last label of one.
fn each_page(
    filter: &KeyFilter,
    range: IntervalRange,
    has_labels: bool,
    mut read: impl FnMut(LabelPage<'_>) -> Result<Option<SmolStr>, Error>,
) -> Result<(), Error> {
    let labels_max = usize::try_from(STEP_INTERVALS / range.count().max(1)).unwrap_or(1).clamp(1, STEP_LABELS);
    let mut after = has_labels.then(SmolStr::default);
    while let Some(last) = after {
        after = read(LabelPage { filter, after: &last, labels_max })?;
    }
    Ok(())
}

/// The intervals of what the receiver knows of a host: from its first samples in the range until now.
fn own_intervals(
    found: &Found,
    own: Own,
    view: &View,
    store: &Store,
    budget: &Budget,
    now: u64,
) -> Result<Intervals, Error> {
    let window = view.range.window;
    let (running, newest) = (window.number(now), window.number(found.status.last_epoch));
    let last = view.range.last.min(running);
    let all_1 = |first: u64| (first..=last).map(|number| (number, Bucket::of(1.0))).collect();
    if own == Own::Info {
        return Ok(all_1(view.range.first));
    }
    // As long as it may be silent and is not down.
    let silent = DOWN_SEC.max(found.status.interval_sec.unwrap_or(0).saturating_mul(10)) / window.interval_sec;
    let range = IntervalRange { first: view.range.first.saturating_sub(silent), last, ..view.range };
    let mut present = BTreeSet::new();
    let filter = KeyFilter::containing("");
    each_page(&filter, range, range.count() > 0, |page| {
        budget.check()?;
        let read = store.range(&found.host, &page, range, now)?;
        present.extend(read.iter().flat_map(|(_, intervals)| intervals).map(|(number, _)| *number));
        let is_whole = present.len() as u64 >= range.count();
        Ok(read.last().filter(|_| read.len() == page.labels_max && !is_whole).map(|(label, _)| label.clone()))
    })?;
    let first = match present.first() {
        Some(first) => view.range.first.max(*first),
        None if newest < view.range.first => view.range.first,
        None => return Ok(Intervals::new()),
    };
    let is_up = |number: u64| match number == running {
        true => matches!(found.status.state(now), HostState::Up | HostState::Conflict),
        false => present.range(number.saturating_sub(silent)..=number).next().is_some(),
    };
    Ok((first..=last).map(|number| (number, Bucket::of(f64::from(u8::from(is_up(number)))))).collect())
}
