//! What a store is opened with: where it keeps its data, what it keeps, and its bounds.

use std::path::{Path, PathBuf};

#[cfg(feature = "redis")]
use super::RedisAddress;
use crate::summary::{Keep, Window};

/// Where a store keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In memory only.
    Memory,
    /// In a directory, which is created if it does not exist.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether each sample is on the device before it is reported as stored. If not, it is there a second later.
        fsync_always: bool,
    },
    /// In a Redis or a Redis Cluster, which any number of receivers share.
    #[cfg(feature = "redis")]
    Redis(RedisAddress),
}

impl Location {
    /// Its name in `/metrics`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Directory { .. } => "directory",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
        }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether other receivers may use the same data.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        #[cfg(feature = "redis")]
        return matches!(self, Self::Redis(_));
        #[cfg(not(feature = "redis"))]
        false
    }
}

/// What bounds a store: its series, and how long it keeps hosts that are down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most series in all, a label of a host each: `--max-series`.
    pub series_max: usize,
    /// Most labels of one host: `--max-labels-per-host`.
    pub labels_per_host_max: usize,
    /// Seconds after the hour of its newest sample until a host is forgotten: `--forget-hosts`. A host whose summaries
    /// hold a sample is kept in any case.
    pub forget_hosts_sec: u64,
}

impl Limits {
    /// Most labels of a host unless the command line says otherwise. A host with more has mostly put an identifier into
    /// a label.
    pub const LABELS_PER_HOST: usize = 10_000;
    /// How long hosts are kept that are down, unless the command line says otherwise: a holiday, or a month's report.
    pub const FORGET_HOSTS_SEC: u64 = 31 * 86_400;
}

/// As many series in all, and the other limits as they are where the command line does not set them.
impl From<usize> for Limits {
    fn from(series_max: usize) -> Self {
        Self { series_max, labels_per_host_max: Self::LABELS_PER_HOST, forget_hosts_sec: Self::FORGET_HOSTS_SEC }
    }
}

/// What is to be kept of each series, as the command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepOptions {
    /// `--keep`; without it a directory keeps what it has kept before.
    pub asked: Option<Keep>,
    /// `--keep-change`: whether less than before may be kept.
    pub may_drop: bool,
    /// `--retry-horizon`, in seconds.
    pub retry_horizon_sec: u64,
}

impl Default for KeepOptions {
    fn default() -> Self {
        Self { asked: None, may_drop: false, retry_horizon_sec: Keep::default().retry_horizon_sec }
    }
}

impl KeepOptions {
    /// What a store keeps from `now` on that has kept `kept`, and a new one that is asked for nothing `otherwise`; and what
    /// it drops of that, in words. `count` says how many intervals of a window are before a number.
    ///
    /// # Errors
    /// When that is less, and may not be.
    pub(super) fn following(
        &self,
        kept: Option<&Keep>,
        otherwise: Keep,
        now: u64,
        count: impl Fn(&Window, u64) -> Option<u64>,
    ) -> Result<(Keep, Option<String>), String> {
        let (keep, dropped) = match (self.asked, kept) {
            (Some(asked), Some(kept)) => (asked.following(kept, now), asked.drops(kept, now, count)),
            (asked, kept) => (asked.or(kept.copied()).unwrap_or(otherwise), None),
        };
        match (kept, self.asked, dropped) {
            (Some(kept), Some(asked), Some(dropped)) if !self.may_drop => Err(format!(
                "it keeps {kept}, and with --keep {asked} would remove {dropped}; with --keep-change it does"
            )),
            (.., dropped) => Ok((keep.with_retry_horizon(self.retry_horizon_sec), dropped)),
        }
    }
}
