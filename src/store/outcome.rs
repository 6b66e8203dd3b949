//! What becomes of samples: stored, expired, refused by a limit, or not taken because the store cannot.

use std::fmt;
use std::net::IpAddr;

/// Why the store cannot do what it was asked to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    pub(super) reason: String,
    /// Whether it may do it all the same: it has the request, and has not answered in time.
    pub is_uncertain: bool,
}

impl StoreError {
    /// The request was not carried out.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_uncertain: false }
    }

    /// The request may have been carried out, or may yet be.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(super) fn uncertain(reason: impl Into<String>) -> Self {
        Self { is_uncertain: true, ..Self::new(reason) }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store: {}", self.reason)
    }
}

/// A limit on series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// On all series of the store: `--max-series`.
    Series,
    /// On the labels of one host: `--max-labels-per-host`.
    LabelsPerHost,
}

impl Limit {
    /// The option that sets it.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Series => "--max-series",
            Self::LabelsPerHost => "--max-labels-per-host",
        }
    }
}

/// Two sources that publish one host side by side, and mostly are two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The addresses that their newest samples came from, where those are known.
    pub addresses: [Option<IpAddr>; 2],
}

/// The outcome of recording one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordOutcome {
    /// Values that are now part of the summaries.
    pub stored: usize,
    /// Values too old for every window, which are not kept.
    pub expired: usize,
    /// Values of new series beyond a limit on series, which are not kept.
    pub refused: usize,
    /// The limit that has refused them.
    pub refused_by: Option<Limit>,
    /// The sample is a retry of one that was counted before; nothing was stored.
    pub duplicate: bool,
    /// A conflict of sources that has begun with it.
    pub conflict: Option<Conflict>,
}

/// The outcome of recording many samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchOutcome {
    /// How many values were stored of the samples that were stored whole.
    pub stored: usize,
    /// The outcomes of the other samples, each with its place in the batch, in ascending order.
    pub others: Vec<(usize, Result<RecordOutcome, StoreError>)>,
}

impl BatchOutcome {
    /// Adds the outcome of the sample at a place.
    pub(super) fn add(&mut self, place: usize, outcome: Result<RecordOutcome, StoreError>) {
        match outcome {
            Ok(RecordOutcome { stored, duplicate: false, expired: 0, refused: 0, conflict: None, .. }) => {
                self.stored += stored
            }
            other => self.others.push((place, other)),
        }
    }
}
