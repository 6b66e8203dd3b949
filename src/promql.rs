//! The part of Prometheus's query language that is answered here, over what the store keeps
//! (<https://prometheus.io/docs/prometheus/latest/querying/basics/>). `docs/grafana.md` says which part.
//!
//! It is no query engine. An interval holds count, sum, minimum and maximum, so a step that is longer merges intervals, and
//! one that is shorter repeats them; there are no samples to choose among.

mod budget;
mod evaluator;
mod functions;
mod lexer;
mod parser;
mod reader;
mod regex;
mod selection;

use std::fmt;

use smol_str::SmolStr;

use crate::store::StoreError;
pub use budget::{Budget, CPU_MAX};
pub use evaluator::{Answer, Matrix, Steps, instant, range};
pub use lexer::parse_seconds;
pub use parser::{Expr, Matcher, Selector, parse, parse_selector};
pub use selection::{MetricInfo, Selection};

/// Most points of a series in an answer, as Prometheus has it, and intervals of a series that are read.
pub const POINTS_MAX: u64 = 11_000;
/// Most series that a query selects.
pub const SERIES_MAX: usize = 1000;
/// Most points of all series of a query together: 32 MB.
pub const POINTS_OF_QUERY_MAX: u64 = 2_000_000;

/// Why a query has no answer. The kinds are those of Prometheus's API.
#[derive(Debug, PartialEq)]
pub enum Error {
    /// The query is malformed.
    BadData(String),
    /// It cannot be evaluated here: it uses what is not known, or passes a limit.
    Execution(String),
    /// It takes too long.
    Timeout(String),
    /// The store cannot be read.
    Store(StoreError),
}

impl Error {
    /// A mistake at a byte of a query.
    fn bad_query(query: &str, at: usize, why: &str) -> Self {
        let before = query.get(..at).unwrap_or(query);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self::BadData(format!("invalid parameter \"query\": {line}:{column}: parse error: {why}"))
    }

    /// What is not known here.
    fn unknown(what: &str) -> Self {
        Self::Execution(format!("query: {what} is not known here; docs/grafana.md has what is"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadData(why) | Self::Execution(why) | Self::Timeout(why) => f.write_str(why),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The label that holds the name of a metric.
pub const NAME: &str = "__name__";

/// Names and values of the labels of a series, sorted by name; [`NAME`] is among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Vec<(SmolStr, SmolStr)>);

impl Labels {
    /// These labels.
    #[must_use]
    pub fn new(mut labels: Vec<(SmolStr, SmolStr)>) -> Self {
        labels.sort();
        Self(labels)
    }

    /// The value of a label; an empty one where there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same without the name of the metric.
    fn without_name(mut self) -> Self {
        self.0.retain(|(name, _)| name != NAME);
        self
    }

    /// Those of `names`, or, with `is_without`, the others but the name of the metric.
    fn grouped(&self, names: &[String], is_without: bool) -> Self {
        let is_named = |name: &SmolStr| names.iter().any(|named| named == name);
        let is_kept = |name: &SmolStr| if is_without { !is_named(name) && name != NAME } else { is_named(name) };
        Self(self.0.iter().filter(|(name, _)| is_kept(name)).cloned().collect())
    }
}

#[cfg(test)]
#[cfg(feature = "regex")]
mod tests;
