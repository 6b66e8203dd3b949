//! The hosts and their summaries: in memory, in a directory, or in a Redis that any number of receivers share.
//!
//! [`Store`] is all that other modules use. Its answers are the same whichever store is behind it, and every result is a
//! copy.

#[cfg(feature = "disk")]
mod disk;
mod host;
mod memory;
#[cfg(feature = "redis")]
mod redis;
mod series_table;

use std::fmt;
use std::path::{Path, PathBuf};

use smol_str::SmolStr;

use crate::sample::{IdempotencyKey, SampleRef};
use crate::summary::{Bucket, KeyFilter, Series};
use memory::MemoryStore;
#[cfg(feature = "redis")]
pub use redis::Address as RedisAddress;
#[cfg(feature = "redis")]
use redis::Redis;

/// Seconds without a sample after which a host is down, unless ten of its intervals are longer.
const DOWN_SEC: u64 = 60;

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

/// Why the store cannot do what it was asked to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    reason: String,
    /// Whether it may do it all the same: it has the request, and has not answered in time.
    pub is_uncertain: bool,
}

impl StoreError {
    /// The request was not carried out.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_uncertain: false }
    }

    /// The request may have been carried out, or may yet be.
    #[cfg(feature = "redis")]
    fn uncertain(reason: impl Into<String>) -> Self {
        Self { is_uncertain: true, ..Self::new(reason) }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store: {}", self.reason)
    }
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
    /// The sample is a retry of one that was counted before; nothing was stored.
    pub duplicate: bool,
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
    fn add(&mut self, place: usize, outcome: Result<RecordOutcome, StoreError>) {
        match outcome {
            Ok(RecordOutcome { stored, duplicate: false, expired: 0, refused: 0 }) => self.stored += stored,
            other => self.others.push((place, other)),
        }
    }
}

/// How current a host is, by the age of its newest sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// Its samples come as often as they did.
    Up,
    /// It has sent nothing for three of its intervals.
    Late,
    /// It has sent nothing for a minute and for ten of its intervals.
    Down,
}

impl HostState {
    /// Its name in the list of hosts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Late => "late",
            Self::Down => "down",
        }
    }
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
        } else if self.interval_sec.is_some() && age_sec > 3 * interval_sec {
            HostState::Late
        } else {
            HostState::Up
        }
    }
}

/// A page of the labels of a host.
#[derive(Debug, Clone, Copy)]
pub struct LabelPage<'a> {
    /// Which labels.
    pub filter: &'a KeyFilter,
    /// The page begins behind this label; an empty one is before all.
    pub after: &'a str,
    /// Most labels of the page.
    pub labels_max: usize,
}

impl<'a> LabelPage<'a> {
    /// All labels that `filter` matches, as one page.
    #[must_use]
    pub fn all(filter: &'a KeyFilter) -> Self {
        Self { filter, after: "", labels_max: usize::MAX }
    }

    fn matches(&self, label: &str) -> bool {
        label > self.after && self.filter.matches_label(label)
    }
}

/// The hosts of one receiver, or of all that share a store.
pub struct Store(Kind);

enum Kind {
    /// Kept by this process.
    MemoryStore(MemoryStore),
    #[cfg(feature = "redis")]
    Redis(Redis),
}

#[cfg_attr(
    not(feature = "redis"),
    expect(
        unused_variables,
        reason = "what this process keeps is swept; of what Redis keeps the time says what is listed"
    )
)]
impl Store {
    /// An empty store in memory for up to `series_max` series, a label of a host each.
    #[must_use]
    pub fn new(series_max: usize) -> Self {
        Self(Kind::MemoryStore(MemoryStore::new(series_max)))
    }

    /// Opens the store at `location` with all that it holds, at `now`.
    ///
    /// # Errors
    /// When it is held by another process, of a newer format, damaged, or cannot be read or written. A Redis that does
    /// not answer is no error: it may come later than this process.
    pub fn open(location: &Location, series_max: usize, now: u64) -> Result<Self, String> {
        match location {
            Location::Memory => Ok(Self::new(series_max)),
            #[cfg(feature = "disk")]
            Location::Directory { path, fsync_always } => {
                MemoryStore::open(path, *fsync_always, series_max, now).map(|local| Self(Kind::MemoryStore(local)))
            }
            #[cfg(not(feature = "disk"))]
            Location::Directory { path, .. } => {
                let (path, _) = (path.display(), now);
                Err(format!(
                    "store {path}: this lizm was built without the feature disk, which keeps a store in a directory"
                ))
            }
            #[cfg(feature = "redis")]
            Location::Redis(address) => Redis::open(address, series_max).map(|redis| Self(Kind::Redis(redis))),
        }
    }

    /// Restores one record of a directory into a store in memory, as opening that directory would: by its key in the
    /// keyspace `state`, or by its number in a log, 8 bytes. This is the way in for bytes a disk has changed.
    ///
    /// # Errors
    /// When the record is none of ours.
    #[cfg(feature = "disk")]
    pub fn restore_record(&self, key: &[u8], record: &[u8], now: u64) -> Result<(), String> {
        self.local().map_or(Ok(()), |local| disk::restore_record(local, key, record, now))
    }

    /// One line on where it keeps what it holds.
    #[must_use]
    pub fn description(&self) -> String {
        match &self.0 {
            Kind::MemoryStore(local) => local.description(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.description(),
        }
    }

    /// Whether [`Store::sync`] is to be called on and on.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        match &self.0 {
            Kind::MemoryStore(local) => local.is_durable(),
            #[cfg(feature = "redis")]
            Kind::Redis(_) => false,
        }
    }

    /// Whether what changes it may wait for a disk or another process.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        match &self.0 {
            Kind::MemoryStore(local) => local.is_durable(),
            #[cfg(feature = "redis")]
            Kind::Redis(_) => true,
        }
    }

    /// Most series it holds.
    #[must_use]
    pub fn series_max(&self) -> usize {
        match &self.0 {
            Kind::MemoryStore(local) => local.series_max(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.series_max(),
        }
    }

    /// Why it cannot take samples now, if so. What it holds may be read all the same.
    #[must_use]
    pub fn unavailable(&self) -> Option<StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => local.unavailable(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.unavailable(),
        }
    }

    /// Records a sample, unless `key` says that it was recorded before. [`Store::wait_durable`] makes sure of it.
    ///
    /// # Errors
    /// When the store cannot take it; then nothing of it is recorded, but for one that Redis was given and has not
    /// answered in time.
    pub fn record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => local.record(sample, key, now),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.record(sample, key, now),
        }
    }

    /// Records `count` samples, each as [`Store::record`] does, of which `sample` gives the one at a place. Those of one
    /// host are recorded in their order, but that Redis takes those last that its list of hosts is to be told of before.
    pub fn record_many<'v>(&self, count: usize, sample: impl Fn(usize) -> SampleRef<'v>, now: u64) -> BatchOutcome {
        match &self.0 {
            Kind::MemoryStore(local) => local.record_many(count, sample, now),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.record_many(&(0..count).map(sample).collect::<Vec<_>>(), now),
        }
    }

    /// Returns when all that was recorded is as durable as the store promises: kept from the end of the process it is
    /// already, and with `fsync_always` from a power cut then.
    ///
    /// # Errors
    /// When it could not be made so.
    pub fn wait_durable(&self) -> Result<(), StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => local.wait_durable(),
            #[cfg(feature = "redis")]
            Kind::Redis(_) => Ok(()),
        }
    }

    /// Copies the series of a page of the labels of `host`, sorted by label. A host that is not known has none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn series(&self, host: &str, page: &LabelPage<'_>, now: u64) -> Result<Vec<(SmolStr, Series)>, StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => Ok(local.series(host, page)),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.series(host, page, now),
        }
    }

    /// Copies what each of `hosts` has reported in the running minute: labels, sorted, and their buckets.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn running(&self, hosts: &[SmolStr], now: u64) -> Result<Vec<Vec<(SmolStr, Bucket)>>, StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => Ok(hosts.iter().map(|host| local.running(host, now)).collect()),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.running(hosts, now),
        }
    }

    /// The names of all hosts, sorted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn hosts(&self, now: u64) -> Result<Vec<SmolStr>, StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => Ok(local.hosts()),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.hosts(now),
        }
    }

    /// Copies what the list of hosts shows of each of `hosts`, with the last hour of the labels `recent`; `None` for
    /// one that is not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn statuses(&self, hosts: &[SmolStr], recent: &[&str], now: u64) -> Result<Vec<Option<Status>>, StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => Ok(hosts.iter().map(|host| local.status(host, recent, now)).collect()),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.statuses(hosts, recent, now),
        }
    }

    /// Forgets a host, and says whether it was known.
    ///
    /// # Errors
    /// When that could not be made durable; then the host is still known.
    pub fn remove(&self, host: &str, now: u64) -> Result<bool, StoreError> {
        match &self.0 {
            Kind::MemoryStore(local) => local.remove(host),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.remove(host, now),
        }
    }

    /// Lets go of the buckets, series, hosts and idempotency records whose windows have passed.
    pub fn sweep(&self, now: u64) {
        match &self.0 {
            Kind::MemoryStore(local) => local.sweep(now),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.sweep(now),
        }
    }

    /// The clock of a store that receivers share, in milliseconds since the Unix epoch; `None` if the store has none or does
    /// not answer.
    #[must_use]
    pub fn time_ms(&self) -> Option<i64> {
        match &self.0 {
            Kind::MemoryStore(_) => None,
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.time_ms(),
        }
    }

    /// How many series it holds; where it is shared, about how many.
    #[must_use]
    pub fn series_count(&self) -> usize {
        match &self.0 {
            Kind::MemoryStore(local) => local.series_count(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.series_count(),
        }
    }

    /// Makes durable what was recorded, in rounds: each call waits for its turn and is one.
    pub fn sync(&self) {
        if let Some(local) = self.local() {
            local.sync();
        }
    }

    /// Makes durable what was recorded until now.
    ///
    /// # Errors
    /// When it could not be.
    pub fn sync_now(&self) -> Result<(), StoreError> {
        self.local().map_or(Ok(()), MemoryStore::sync_now)
    }

    /// Writes the hosts that have changed, so that a restart need not read their samples again.
    ///
    /// # Errors
    /// When the disk cannot be written; the samples stay in the log then.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.local().map_or(Ok(()), MemoryStore::checkpoint)
    }

    /// Removes from the disk what no answer lists any more.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub fn expire_disk(&self, now: u64) -> Result<(), StoreError> {
        self.local().map_or(Ok(()), |local| local.expire_disk(now))
    }

    /// What this process keeps itself, if it does: Redis makes durable and expires by itself.
    fn local(&self) -> Option<&MemoryStore> {
        match &self.0 {
            Kind::MemoryStore(local) => Some(local),
            #[cfg(feature = "redis")]
            Kind::Redis(_) => None,
        }
    }
}
