//! The summaries of a host, a page of its labels at a time: what is listed by default, or a range.

use smol_str::SmolStr;

use super::reply::Reply;
use crate::sample::{AHEAD_SEC_MAX, parse_epoch};
use crate::store::{LabelPage, Store, StoreError};
use crate::summary::{
    IntervalRange, Intervals, Keep, KeyFilter, RangeSummaries, Series, Summaries, Window, csv, parse_span,
};
use crate::url;

/// Most labels of a page.
const LABELS_MAX: usize = 10_000;
/// Intervals after which a page ends: some 7 MB of JSON.
const INTERVALS_MAX: usize = 60_000;
/// Labels that the store is asked for at a time: it is locked while it copies them.
const STEP_LABELS: usize = 500;
/// Most intervals of a range unless `limit` says otherwise: more than a chart is wide.
const RANGE_INTERVALS: u64 = 1500;
/// The most that `limit` may say: the minutes of a week fit.
const RANGE_INTERVALS_MAX: u64 = 11_000;
/// The range of an answer as CSV that names none.
const CSV_SEC: u64 = 3600;

/// A page of the labels of a host, of each what is asked for.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) series: Vec<(SmolStr, T)>,
    /// Whether there are labels behind the page.
    pub(super) has_more: bool,
}

impl Page<Series> {
    /// Reads what an answer without a range lists of the page that begins behind the label `after`.
    pub(super) fn listed(
        store: &Store,
        host: &str,
        filter: &KeyFilter,
        after: &str,
        now: u64,
    ) -> Result<Self, StoreError> {
        let read = |after: &str| store.series(host, &LabelPage { filter, after, labels_max: STEP_LABELS }, now);
        Self::collect(after, STEP_LABELS, read, Series::interval_count)
    }
}

impl Page<Intervals> {
    /// Reads a range of the page that begins behind the label `after`.
    pub(super) fn range(
        store: &Store,
        host: &str,
        filter: &KeyFilter,
        after: &str,
        range: IntervalRange,
        now: u64,
    ) -> Result<Self, StoreError> {
        let labels_max = (INTERVALS_MAX / range.count().max(1) as usize).clamp(1, STEP_LABELS);
        let read = |after: &str| store.range(host, &LabelPage { filter, after, labels_max }, range, now);
        Self::collect(after, labels_max, read, Vec::len)
    }
}

impl<T> Page<T> {
    fn collect(
        after: &str,
        step_labels: usize,
        read: impl Fn(&str) -> Result<Vec<(SmolStr, T)>, StoreError>,
        count: impl Fn(&T) -> usize,
    ) -> Result<Self, StoreError> {
        let (mut page, mut intervals) = (Self { series: Vec::new(), has_more: true }, 0);
        while page.has_more {
            let step = read(page.last_label().unwrap_or(after))?;
            page.has_more = step.len() == step_labels;
            for (label, series) in step {
                if page.series.len() == LABELS_MAX || intervals >= INTERVALS_MAX {
                    page.has_more = true;
                    return Ok(page);
                }
                intervals += count(&series);
                page.series.push((label, series));
            }
        }
        Ok(page)
    }

    /// The last label of the page.
    pub(super) fn last_label(&self) -> Option<&str> {
        self.series.last().map(|(label, _)| label.as_str())
    }
}

/// What is asked of the summaries of one host.
#[derive(Debug, Default)]
pub(super) struct SummaryQuery {
    /// The page begins behind this label.
    pub(super) after: String,
    pub(super) range: RangeQuery,
    /// Whether the answer is to be CSV.
    pub(super) is_csv: bool,
    /// All of the query but `after`, as it was sent, for the link to the next page.
    pub(super) rest: String,
}

impl SummaryQuery {
    /// The summaries of a page, with a link to the next one (RFC 8288).
    pub(super) fn reply(&self, store: &Store, host: &str, filter: &KeyFilter, now: u64) -> Result<Reply, StoreError> {
        let keep = &store.keep();
        let (reply, next) = match self.range.resolve(keep, self.is_csv, now) {
            Err(reply) => return Ok(reply),
            Ok(None) => {
                let page = Page::listed(store, host, filter, &self.after, now)?;
                let summaries = Summaries { series: &page.series, filter, keep, now };
                (Reply::json(200, &summaries), page.last_label().filter(|_| page.has_more).map(url::encode))
            }
            Ok(Some(range)) => {
                let page = Page::range(store, host, filter, &self.after, range.intervals, now)?;
                let summaries = range.summaries(&page, filter);
                let reply = match self.is_csv {
                    true => Reply::new(200, csv(host, &summaries).into_bytes())
                        .with("Content-Type", "text/csv; charset=utf-8"),
                    false => Reply::json(200, &summaries),
                };
                (reply, page.last_label().filter(|_| page.has_more).map(url::encode))
            }
        };
        Ok(match next {
            Some(next) => {
                let and = if self.rest.is_empty() { "" } else { "&" };
                reply.with("Link", format!("<?{}{and}after={next}>; rel=\"next\"", self.rest))
            }
            None => reply,
        })
    }
}

/// A range of time, as a query has it.
#[derive(Debug, Default)]
pub(super) struct RangeQuery {
    from: Option<RangeTime>,
    to: Option<RangeTime>,
    /// The interval that is asked for, in seconds.
    by_sec: Option<u64>,
    limit: Option<u64>,
}

/// One end of a range.
#[derive(Debug, Clone, Copy)]
enum RangeTime {
    /// Seconds since the Unix epoch.
    At(u64),
    /// Seconds before now.
    Ago(u64),
}

impl RangeTime {
    fn parse(field: &str, text: &str) -> Result<Self, Reply> {
        let time = match text.strip_prefix('-') {
            Some(span) => parse_span(span).map(Self::Ago),
            None => parse_epoch(text).ok().map(Self::At),
        };
        let wrong = "not seconds since 1970, nor a time before now such as -2h, -7d or -1y";
        time.ok_or_else(|| Reply::error(400, &format!("{field}: {wrong}")))
    }

    fn at(self, now: u64) -> u64 {
        match self {
            // No sample is further ahead.
            Self::At(epoch) => epoch.min(now.saturating_add(AHEAD_SEC_MAX)),
            Self::Ago(sec) => now.saturating_sub(sec),
        }
    }
}

/// The intervals of a range, and what is said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResolvedRange {
    pub(super) intervals: IntervalRange,
    end: u64,
    kept_from: Option<u64>,
}

impl ResolvedRange {
    pub(super) fn summaries<'a>(
        &'a self,
        page: &'a Page<Intervals>,
        filter: &'a KeyFilter,
    ) -> RangeSummaries<'a, SmolStr> {
        let (range, window) = (self.intervals, &self.intervals.window);
        RangeSummaries { series: &page.series, filter, window, range, end: self.end, kept_from: self.kept_from }
    }
}

impl RangeQuery {
    /// Takes a parameter of a query, and says whether it is one of a range.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, Reply> {
        match name {
            "from" => self.from = Some(RangeTime::parse(name, value)?),
            "to" => self.to = Some(RangeTime::parse(name, value)?),
            "by" => {
                let by_sec = match value {
                    "minute" => 60,
                    "10-minutes" => 600,
                    "hour" => 3600,
                    "day" => 86_400,
                    _ => return Err(Reply::error(400, "by: one of minute, 10-minutes, hour and day")),
                };
                self.by_sec = Some(by_sec);
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=RANGE_INTERVALS_MAX).contains(limit));
                let wrong = || format!("limit: not a whole number from 1 to {RANGE_INTERVALS_MAX}");
                self.limit = Some(limit.ok_or_else(|| Reply::error(400, &wrong()))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn is_given(&self) -> bool {
        self.from.is_some()
    }

    /// Finds the intervals to answer with: the finest that are kept since `from` and are no more than the limit, or those
    /// that are asked for. `None` where there is no range.
    ///
    /// # Errors
    /// The reply to a range that cannot be answered.
    pub(super) fn resolve(&self, keep: &Keep, is_csv: bool, now: u64) -> Result<Option<ResolvedRange>, Reply> {
        let bad = |sentence: String| Err(Reply::error(400, &sentence));
        let from = match self.from {
            Some(from) => from,
            None if self.to.is_some() || self.by_sec.is_some() || self.limit.is_some() => {
                return bad("from: missing; to, by and limit go with it".to_owned());
            }
            None if is_csv => RangeTime::Ago(CSV_SEC),
            None => return Ok(None),
        };
        let (from, end) = (from.at(now), self.to.map_or(now, |to| to.at(now)));
        if from >= end {
            return bad("from: not before to".to_owned());
        }
        let windows = || keep.windows_at(now);
        let covers = |window: &Window| window.oldest(now) * window.interval_sec <= from;
        let count = |window: &Window| window.number(end) + 1 - (from / window.interval_sec);
        let limit = self.limit.unwrap_or(RANGE_INTERVALS);
        let asked = self.by_sec.map(|by_sec| windows().find(|window| window.interval_sec == by_sec));
        let chosen = match asked {
            Some(Some(asked)) => Some(asked),
            Some(None) => {
                let names: Vec<&str> = windows().map(|window| window.name).collect();
                return bad(format!("by: not kept here; kept are {}", names.join(", ")));
            }
            None => {
                let mut covering = windows().filter(|window| covers(window));
                let first = covering.next();
                first.into_iter().chain(covering).find(|window| count(window) <= limit).or(first)
            }
        };
        let window = chosen.unwrap_or_else(|| keep.longest_at(now));
        let first = (from / window.interval_sec).max(window.oldest(now));
        let intervals = IntervalRange { window: *window, first, last: window.number(end) };
        if intervals.count() > limit {
            return bad(format!(
                "limit: the range has {} intervals {}, and the limit is {limit}; take a shorter range, or a coarser \
                 interval if one is kept",
                intervals.count(),
                window.name
            ));
        }
        let kept_from = (!covers(window)).then(|| window.oldest(now) * window.interval_sec);
        Ok(Some(ResolvedRange { intervals, end, kept_from }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    fn resolve(keep: &str, query: &str) -> Result<(&'static str, u64, Option<u64>), String> {
        let keep: Keep = keep.parse().unwrap();
        let mut range = RangeQuery::default();
        let taken = super::super::form::pairs(query).try_for_each(|(name, value)| range.take(name, value).map(drop));
        let resolved = taken.and_then(|()| range.resolve(&keep, false, NOW));
        let resolved = resolved.map_err(|reply| String::from_utf8(reply.body).unwrap())?.unwrap();
        let name = resolved.intervals.window.name;
        Ok((name, resolved.intervals.count(), resolved.kept_from))
    }

    #[test]
    fn the_finest_interval_that_covers_a_range_within_the_limit_is_taken() {
        let keep = "1m:1d,1h:90d,1d:2y";
        for (query, expected) in [
            ("from=-2h", ("by-minute", 121, None)),
            ("from=-1d", ("by-minute", 1441, None)),
            ("from=-1d&limit=100", ("by-hour", 25, None)),
            ("from=-7d", ("by-hour", 169, None)),
            ("from=-90d", ("by-day", 91, None)),
            ("from=-90d&limit=11000", ("by-hour", 2161, None)),
            ("from=-2y", ("by-day", 733, None)),
            ("from=-7d&by=day", ("by-day", 8, None)),
            ("from=-2h&to=-1h", ("by-minute", 61, None)),
            ("from=1465001000&to=999999999999", ("by-minute", 19, None)),
            // Two years are kept, and a day that they cut.
            ("from=-3y", ("by-day", 733, Some((NOW / 86_400 - 732) * 86_400))),
            ("from=-2d&by=minute", ("by-minute", 1441, Some((NOW - 86_400) / 60 * 60))),
            ("from=0&to=1000", ("by-day", 0, Some((NOW / 86_400 - 732) * 86_400))),
        ] {
            assert_eq!(resolve(keep, query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_wrong_range_is_refused_by_the_name_of_its_field() {
        for (query, begin) in [
            ("to=-1h", "from: missing"),
            ("by=hour", "from: missing"),
            ("from=yesterday", "from: not seconds since 1970"),
            ("from=-1h&to=-2h", "from: not before to"),
            ("from=-1h&limit=0", "limit: not a whole number from 1 to 11000"),
            ("from=-1h&limit=11001", "limit: not a whole number from 1 to 11000"),
            ("from=-1h&by=year", "by: one of minute, 10-minutes, hour and day"),
            ("from=-1h&by=day", "by: not kept here; kept are by-minute, by-hour"),
            ("from=-1h&by=minute&limit=10", "limit: the range has 61 intervals by-minute, and the limit is 10"),
        ] {
            let refused = resolve("1m:1h,1h:2h", query).unwrap_err();
            assert!(refused.starts_with(&format!("{{\"error\":\"{begin}")), "{query}: {refused}");
        }
    }
}
