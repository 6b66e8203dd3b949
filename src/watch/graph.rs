//! What the graph of a label shows: the page's ranges, and when an alert about the label has fired.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::alerts::{self, Past};
use super::summaries::{Summary, slots};
use crate::client::Client;
use crate::url::encode;

/// Intervals that a terminal has room for, and most of an answer, for a receiver that keeps no coarser ones.
const INTERVALS_FITTING: u64 = 400;
const INTERVALS_MAX: u64 = 11_000;
/// How long an answer is good for: an interval is a minute at least.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// How far back a graph goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Range {
    #[default]
    Hour,
    Day,
    Week,
    NinetyDays,
    Year,
}

impl Range {
    /// The one that the key `r` leads to.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Hour => Self::Day,
            Self::Day => Self::Week,
            Self::Week => Self::NinetyDays,
            Self::NinetyDays => Self::Year,
            Self::Year => Self::Hour,
        }
    }

    /// When it begins.
    pub(super) fn oldest(self) -> &'static str {
        match self {
            Self::Hour => "60 min ago",
            Self::Day => "24 h ago",
            Self::Week => "7 days ago",
            Self::NinetyDays => "90 days ago",
            Self::Year => "a year ago",
        }
    }

    pub(super) fn hours(self) -> u64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::NinetyDays => 90 * 24,
            Self::Year => 366 * 24,
        }
    }
}

/// A graph that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GraphQuery {
    pub(super) label: String,
    pub(super) range: Range,
}

/// What a graph shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Graph {
    pub(super) query: GraphQuery,
    /// Means by interval, the running one last; none of the last hour, which the label itself has.
    pub(super) values: Vec<Option<f64>>,
    /// When alerts about the label have fired and were resolved, in seconds since the Unix epoch.
    pub(super) fired: Vec<(u64, u64)>,
}

/// The last graph, with its host and when it was asked for.
#[derive(Default)]
pub(super) struct Graphs(Option<(String, Instant, Graph)>);

impl Graphs {
    /// Asks for a graph of a label of a host, unless the last one is good. `is_judged` is whether there are rules.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) fn fetch(
        &mut self,
        client: &Client,
        host: &str,
        is_judged: bool,
        query: &GraphQuery,
    ) -> Result<Graph, String> {
        let is_good = |(name, at, graph): &&(String, Instant, Graph)| {
            name == host && graph.query == *query && at.elapsed() < GOOD_FOR
        };
        if let Some((.., graph)) = self.0.as_ref().filter(is_good) {
            return Ok(graph.clone());
        }
        let fired = if is_judged { alerts::past(client)? } else { Vec::new() };
        let fired = fired.iter().filter(|past| past.host == host && past.series == query.label).map(Past::times);
        let graph = Graph { query: query.clone(), values: values(client, host, query)?, fired: fired.collect() };
        self.0 = Some((host.to_owned(), Instant::now(), graph.clone()));
        Ok(graph)
    }
}

/// The answer of `/api/perf/HOST/TEXT` over a range.
#[derive(Deserialize)]
struct Ranged {
    /// Since when there is something, where that is not the whole range. The graph shows it.
    #[serde(rename = "kept-from")]
    _kept_from: Option<u64>,
    #[serde(flatten)]
    summaries: BTreeMap<String, Summary>,
}

/// Means of the range by the finest intervals that fit.
fn values(client: &Client, host: &str, GraphQuery { label, range }: &GraphQuery) -> Result<Vec<Option<f64>>, String> {
    if *range == Range::Hour {
        return Ok(Vec::new());
    }
    let path = format!("/api/perf/{}/{}", encode(host), encode(label));
    let ask = |limit| client.get::<Ranged>(&path, Some(&format!("from=-{}h&limit={limit}", range.hours())));
    let Ranged { summaries, .. } = ask(INTERVALS_FITTING).or_else(|_| ask(INTERVALS_MAX))?;
    let of_label = |(key, _): &(&String, &Summary)| key.splitn(3, ':').nth(2) == Some(label);
    let summary = summaries.iter().find(of_label).map(|(_, summary)| summary);
    Ok(summary.map_or_else(Vec::new, |summary| {
        let intervals = (range.hours() * 3600).div_ceil(summary.timeslice_size_sec.max(1)).min(INTERVALS_MAX);
        slots(summary, usize::try_from(intervals).unwrap_or(0))
    }))
}
