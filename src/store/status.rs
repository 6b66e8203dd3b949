//! What a store says of a host: how current it is, its labels, and its signs of life.

use smol_str::SmolStr;

use crate::sample::Tags;
#[cfg(doc)]
use crate::summary::Series;

/// Seconds without a sample after which a host is down, unless ten of its intervals are longer.
const DOWN_SEC: u64 = 60;

/// How current a host is, by the age of its newest sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// Its samples come as often as they did.
    Up,
    /// It has sent nothing for three of its intervals.
    Late,
    /// It has sent nothing for a minute and for ten of its intervals.
    Down,
    /// Two sources publish it side by side, and mix their values.
    Conflict,
}

impl HostState {
    /// Its name in the list of hosts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Late => "late",
            Self::Down => "down",
            Self::Conflict => "conflict",
        }
    }
}

/// Most labels of a host that a beginning with `*` behind it names.
pub(super) const MATCHES_MAX: usize = 64;

/// Whether `wanted` names a label: it is the label, or the beginning of it with `*` behind.
#[must_use]
pub fn is_wanted(wanted: &str, label: &str) -> bool {
    wanted == label || wanted.strip_suffix('*').is_some_and(|beginning| label.starts_with(beginning))
}

/// A copy of what the list of hosts shows of one host.
#[derive(Debug, Clone)]
pub struct Status {
    /// Epoch of its newest sample.
    pub last_epoch: u64,
    /// Seconds between its samples, learned from their epochs; `None` until there are two samples.
    pub interval_sec: Option<u64>,
    /// Seconds that its clock is ahead of the receiver's, below 0 behind: the greatest difference among the samples of
    /// the last minute. If all of them came late, its clock looks behind by as much.
    pub clock_skew_sec: Option<i32>,
    /// Whether two sources publish it side by side.
    pub is_in_conflict: bool,
    /// Its tags.
    pub tags: Tags,
    /// Its labels, sorted.
    pub labels: Vec<String>,
    /// Means of the last hour by minute of the requested labels that it has, as [`Series::recent`] gives them.
    pub recent: Vec<(String, Vec<Option<f64>>)>,
}

impl Status {
    /// Seconds since the newest sample.
    #[must_use]
    pub fn age_sec(&self, now: u64) -> u64 {
        now.saturating_sub(self.last_epoch)
    }

    /// How current the host is. While its interval is not known it is up for a minute, then down.
    #[must_use]
    pub fn state(&self, now: u64) -> HostState {
        let age_sec = self.age_sec(now);
        let interval_sec = self.interval_sec.unwrap_or(DOWN_SEC / 10);
        if age_sec > DOWN_SEC.max(10 * interval_sec) {
            HostState::Down
        } else if self.is_in_conflict {
            HostState::Conflict
        } else if self.interval_sec.is_some() && age_sec > 3 * interval_sec {
            HostState::Late
        } else {
            HostState::Up
        }
    }
}

/// The signs of life of a host, by which alerts find what has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulse {
    /// Its name.
    pub host: SmolStr,
    /// Its newest epoch, by its own clock.
    pub last_epoch: u64,
    /// When its newest sample came, by the receiver's clock; 0 if that was before the receiver's start.
    pub heard_at: u64,
    /// Seconds between its samples, if known.
    pub interval_sec: Option<u64>,
    /// Seconds that its clock is ahead, if known.
    pub skew_sec: Option<i64>,
    /// Changes with each sample of a minute that was closed.
    pub late_samples: u32,
    /// Its tags.
    pub tags: Tags,
}
