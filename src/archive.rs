//! Archives: what has closed goes to databases that keep it for longer, or where it is looked at with other tools.
//!
//! Of each host the finest intervals are sent once they are closed. What waits is no queue: the store knows for each host and
//! archive which minute is next, and which ones before it have changed since, and what is sent is read from it. So an archive
//! that was away goes on where it was, as far back as the store keeps.

mod bulk;
mod client;
mod due;
mod lines;
mod service;
mod target;
mod view;

use std::path::PathBuf;
use std::time::Duration;

pub use service::Archives;
pub use target::Target;

/// Options of archives.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The archives.
    pub targets: Vec<Target>,
    /// How old a minute is when it is sent: samples that come until then are in it.
    pub after: Duration,
    /// The authorities of their certificates, as PEM; without it those of the web.
    pub ca: Option<PathBuf>,
}

/// What is sent of one interval of one series.
#[derive(Debug, Clone, Copy)]
struct Point<'a> {
    host: &'a str,
    label: &'a str,
    /// Number of the minute.
    minute: u64,
    bucket: crate::summary::Bucket,
}

impl Point<'_> {
    /// When its interval begins, in seconds since the Unix epoch.
    fn start_sec(&self) -> u64 {
        self.minute * INTERVAL_SEC
    }
}

/// Length of the intervals that are sent.
const INTERVAL_SEC: u64 = 60;

/// What came of sending some points.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// All are there, but for so many that the archive refuses for good, and what it says of one of them.
    Taken { refused: usize, why: Option<String> },
    /// Of each point what the archive says.
    Each(Vec<Verdict>),
    /// It does not take all of them together. In smaller parts it may.
    TooMuch(String),
    /// It takes nothing now, and may have said for how long.
    Later { why: String, retry_after: Option<Duration> },
}

/// What an archive says of one point.
#[derive(Debug, PartialEq)]
enum Verdict {
    Taken,
    Again(String),
    Refused(String),
}

/// An answer of an archive.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: String,
}

/// Longest part of an answer in characters that the log shows.
const SENTENCE_CHARS_MAX: usize = 300;

impl Answer {
    /// What it says, for the log.
    fn said(&self) -> String {
        let said = format!("HTTP {} {}", self.status, self.body.trim());
        crate::sanitize::message(said.trim_end(), SENTENCE_CHARS_MAX)
    }

    /// What a status that is no success means: the one place that decides what is tried again.
    ///
    /// | status | what is done |
    /// |---|---|
    /// | 400, 413, 422 | it is sent in halves, and a single point that is not taken is given up |
    /// | any other | it is tried again: somebody may start the archive, make its database or correct a password |
    fn failure(&self) -> Outcome {
        match self.status {
            400 | 413 | 422 => Outcome::TooMuch(self.said()),
            _ => Outcome::Later { why: self.said(), retry_after: self.retry_after },
        }
    }
}
