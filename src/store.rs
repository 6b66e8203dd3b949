//! The hosts and their summaries: in memory, in a directory, or in a Redis that any number of receivers share.
//!
//! [`Store`] is all that other modules use. Its answers are the same whichever store is behind it, and every result is a
//! copy.

mod archived;
#[cfg(feature = "disk")]
mod disk;
mod host;
mod memory;
mod outcome;
mod recording;
mod records;
#[cfg(feature = "redis")]
mod redis;
mod series_table;
mod settings;
mod status;

#[cfg(feature = "disk")]
use std::path::Path;
#[cfg(feature = "redis")]
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use smol_str::SmolStr;

use crate::sample::{IdempotencyKey, SampleRef, Tags};
use crate::summary::{Bucket, IntervalRange, Intervals, Keep, KeyFilter, Series, Tail};
pub use archived::{ARCHIVES_MAX, ArchiveCursor, ArchiveDone, ArchiveDue, Minutes};
#[cfg(feature = "disk")]
use disk::DiskStore;
use memory::MemoryStore;
pub use outcome::{BatchOutcome, Conflict, Limit, RecordOutcome, StoreError};
pub use recording::Recording;
use records::MemoryRecords;
pub use records::{Records, Swap};
#[cfg(feature = "redis")]
pub use redis::Address as RedisAddress;
#[cfg(feature = "redis")]
use redis::Redis;
pub use settings::{KeepOptions, Limits, Location};
use status::MATCHES_MAX;
pub use status::{HostState, Pulse, Status, is_wanted};

/// The right to evaluate the rules of alerts, of which receivers that share a store have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertLease {
    /// Who has it.
    pub holder: String,
    /// Rises each time that it is taken. The store takes no records under a lower number.
    pub fence: u64,
    /// For how long after it was renewed.
    pub lasts: Duration,
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

/// Copies the store in a directory to `target` while a receiver may write to it, and reads the copy back at `now`. What was
/// stored before this began is in it. Returns what it holds, as a sentence.
///
/// # Errors
/// When there is no store, the copy cannot be written, or it is not whole. There is no `target` then.
#[cfg(feature = "disk")]
pub fn backup(directory: &Path, target: &Path, now: u64) -> Result<String, String> {
    disk::backup(directory, target, now)
}

/// The hosts of one receiver, or of all that share a store.
pub struct Store {
    kind: Kind,
    limits: Limits,
    /// The records of a store in memory.
    memory_records: MemoryRecords,
}

enum Kind {
    Memory(MemoryStore),
    #[cfg(feature = "disk")]
    Disk(DiskStore),
    #[cfg(feature = "redis")]
    Redis(Arc<Redis>),
}

#[cfg_attr(not(feature = "redis"), expect(unused_variables, reason = "only what Redis lists depends on the time"))]
impl Store {
    /// An empty store in memory that keeps the default.
    #[must_use]
    pub fn new(limits: impl Into<Limits>) -> Self {
        let limits = limits.into();
        Self {
            kind: Kind::Memory(MemoryStore::new(limits, Keep::default())),
            limits,
            memory_records: MemoryRecords::default(),
        }
    }

    /// Opens the store at `location` with all that it holds, at `now`. It keeps what it kept before.
    ///
    /// # Errors
    /// As [`Store::open_to_keep`].
    pub fn open(location: &Location, limits: impl Into<Limits>, now: u64) -> Result<Self, String> {
        Self::open_to_keep(location, limits, &KeepOptions::default(), now)
    }

    /// Opens the store at `location` with all that it holds, at `now`.
    ///
    /// # Errors
    /// When it is held by another process, of a newer format, damaged, or cannot be read; or when it would keep less than
    /// before. A Redis that does not answer is no error: it may come later than this process.
    pub fn open_to_keep(
        location: &Location,
        limits: impl Into<Limits>,
        options: &KeepOptions,
        now: u64,
    ) -> Result<Self, String> {
        let limits = limits.into();
        let kind = match location {
            Location::Memory => {
                let (keep, _) = options.following(None, Keep::default(), now, |_, _| None)?;
                Kind::Memory(MemoryStore::new(limits, keep))
            }
            #[cfg(feature = "disk")]
            Location::Directory { path, fsync_always } => {
                Kind::Disk(DiskStore::open(path, *fsync_always, limits, options, now)?)
            }
            #[cfg(not(feature = "disk"))]
            Location::Directory { path, .. } => {
                return Err(format!(
                    "store {}: this lizm was built without the feature disk, which keeps a store in a directory",
                    path.display()
                ));
            }
            #[cfg(feature = "redis")]
            Location::Redis(address) => Kind::Redis(Arc::new(Redis::open(address, limits, options)?)),
        };
        Ok(Self { kind, limits, memory_records: MemoryRecords::default() })
    }

    /// Restores one record of a directory into a store in memory, as opening that directory would: by its key in the
    /// keyspace `state`, or by its number in a log, 8 bytes. It is there to be tested with damaged bytes.
    ///
    /// # Errors
    /// When the record is malformed.
    #[cfg(feature = "disk")]
    pub fn restore_record(&self, key: &[u8], record: &[u8], now: u64) -> Result<(), String> {
        self.memory().map_or(Ok(()), |memory| disk::restore_record(memory, key, record, now))
    }

    /// One line on where it keeps its data.
    #[must_use]
    pub fn description(&self) -> String {
        match &self.kind {
            Kind::Memory(memory) => format!(
                "Store is memory, which keeps {} in {} bytes a full series: what was received is gone when the receiver \
                 stops",
                memory.keep(),
                memory.keep().full_series_bytes()
            ),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.description(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.description(),
        }
    }

    /// Whether what changes it may wait for a disk or another process.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        !matches!(self.kind, Kind::Memory(_))
    }

    /// Most series it holds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it keeps of each series.
    #[must_use]
    pub fn keep(&self) -> Keep {
        match &self.kind {
            Kind::Memory(memory) => *memory.keep(),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => *disk.memory().keep(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.keep(),
        }
    }

    /// Why it cannot take samples now, if so. Its data may be read all the same. It never waits for a disk.
    #[must_use]
    pub fn unavailable(&self) -> Option<StoreError> {
        match &self.kind {
            Kind::Memory(_) => None,
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.unavailable(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.unavailable(),
        }
    }

    /// Records a sample, unless `key` says that it was recorded before. When this returns, the sample survives the end of
    /// the process if the store is not memory, and with `fsync_always` a power cut. A disk is waited for for a second.
    ///
    /// # Errors
    /// When the store cannot take it. Nothing of it is recorded then, unless [`StoreError::is_uncertain`].
    pub fn record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.record(sample, key, now)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.record(sample, key, now),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.record(sample, key, now),
        }
    }

    /// Begins to record a sample as [`Store::record`] does. The outcome of a directory or of Redis comes later, and `waker` is
    /// woken then. Without a waker a thread has to wait for it.
    #[cfg_attr(not(any(feature = "disk", feature = "redis")), expect(unused_variables, reason = "memory wakes nobody"))]
    pub fn begin_record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        waker: Option<&Waker>,
    ) -> Recording {
        match &self.kind {
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Recording::journal(disk.begin_record(sample, key, now, waker)),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => match waker {
                Some(waker) => Recording::redis(redis.begin_record(sample, key, now, waker)),
                None => Recording::over(redis.record(sample, key, now)),
            },
            Kind::Memory(memory) => Recording::over(Ok(memory.record(sample, key, now))),
        }
    }

    /// Records `count` samples, each as [`Store::record`] does; `sample` gives the one at a place. Those of one host are
    /// recorded in their order, except that Redis records samples last whose hosts its list of hosts lacks.
    pub fn record_many<'v>(&self, count: usize, sample: impl Fn(usize) -> SampleRef<'v>, now: u64) -> BatchOutcome {
        match &self.kind {
            Kind::Memory(memory) => memory.record_many(count, sample, now),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.record_many(count, sample, now),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.record_many(&(0..count).map(sample).collect::<Vec<_>>(), now),
        }
    }

    /// Copies what an answer without a range lists of a page of the labels of `host`, sorted by label. A host that is not
    /// known has none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn series(&self, host: &str, page: &LabelPage<'_>, now: u64) -> Result<Vec<(SmolStr, Series)>, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.series(host, page, now)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(disk.memory().series(host, page, now)),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.series(host, page, now),
        }
    }

    /// Copies a range of the intervals of a page of the labels of `host`, sorted by label.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn range(
        &self,
        host: &str,
        page: &LabelPage<'_>,
        range: IntervalRange,
        now: u64,
    ) -> Result<Vec<(SmolStr, Intervals)>, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.range(host, page, range)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.range(host, page, range),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.range(host, page, range, now),
        }
    }

    /// Copies what each of `hosts` has reported in the running minute: labels, sorted, and their buckets.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn running(&self, hosts: &[SmolStr], now: u64) -> Result<Vec<Vec<(SmolStr, Bucket)>>, StoreError> {
        let running = |memory: &MemoryStore| hosts.iter().map(|host| memory.running(host, now)).collect();
        match &self.kind {
            Kind::Memory(memory) => Ok(running(memory)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(running(disk.memory())),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.running(hosts, now),
        }
    }

    /// The names of all hosts, sorted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn hosts(&self, now: u64) -> Result<Vec<SmolStr>, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.hosts()),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(disk.memory().hosts()),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.hosts(now),
        }
    }

    /// Copies what the list of hosts shows of each of `hosts`, with the last hour of the labels that `recent` names as
    /// [`is_wanted`] says, up to 64 for each item; `None` for a host that is not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn statuses(&self, hosts: &[SmolStr], recent: &[&str], now: u64) -> Result<Vec<Option<Status>>, StoreError> {
        let statuses = |memory: &MemoryStore| hosts.iter().map(|host| memory.status(host, recent, now)).collect();
        match &self.kind {
            Kind::Memory(memory) => Ok(statuses(memory)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(statuses(disk.memory())),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.statuses(hosts, recent, now),
        }
    }

    /// Replaces the tags of a host, which are kept as its samples are. Returns whether the host is known: tags alone make none.
    ///
    /// # Errors
    /// When that could not be made durable.
    pub fn set_tags(&self, host: &str, tags: &Tags) -> Result<bool, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.set_tags(host, tags)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.set_tags(host, tags),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.set_tags(host, tags),
        }
    }

    /// Removes a host, and returns whether it was known.
    ///
    /// # Errors
    /// When that could not be made durable. The host is still known then, unless [`StoreError::is_uncertain`].
    pub fn remove(&self, host: &str, now: u64) -> Result<bool, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.remove(host)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.remove(host),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.remove(host, now),
        }
    }

    /// Removes the buckets, series and idempotency records whose windows have passed, and the hosts that are to be
    /// forgotten. Returns the names of these hosts; of a shared store, those that no other receiver has removed.
    pub fn sweep(&self, now: u64) -> Vec<SmolStr> {
        match &self.kind {
            Kind::Memory(memory) => memory.sweep(now),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.memory().sweep(now),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.sweep(now),
        }
    }

    /// The clock of a store that receivers share, in milliseconds since the Unix epoch; `None` if the store has none or does
    /// not answer.
    #[must_use]
    pub fn time_ms(&self) -> Option<i64> {
        match &self.kind {
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.time_ms(),
            _ => None,
        }
    }

    /// Whether what it has taken is there after a restart.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        !matches!(self.kind, Kind::Memory(_))
    }

    /// The signs of life of all hosts, sorted by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pulses(&self, now: u64) -> Result<Vec<Pulse>, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.pulses()),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(disk.memory().pulses()),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.pulses(now),
        }
    }

    /// Copies about as many of the newest minutes and hours of each series of a host as `intervals` says, sorted by label.
    /// Those of which it says nothing are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tails(
        &self,
        pulse: &Pulse,
        intervals: impl FnMut(&SmolStr) -> Option<[u64; 2]>,
        now: u64,
    ) -> Result<Vec<(SmolStr, [Tail; 2])>, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.tails(&pulse.host, intervals)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(disk.memory().tails(&pulse.host, intervals)),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.tails(&pulse.host, pulse.last_epoch, intervals, now),
        }
    }

    /// Takes or renews the lease of the receiver that evaluates the rules of alerts, for a time; with none it is given up.
    /// `None` where another receiver has it. A store that is not shared gives it to whoever asks.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn lease_alerts(&self, holder: &str, lasts: Duration) -> Result<Option<AlertLease>, StoreError> {
        match &self.kind {
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.lease_alerts(holder, lasts),
            _ => Ok(Some(AlertLease { holder: holder.to_owned(), fence: 0, lasts })),
        }
    }

    /// Forgets all archives but those of `ids`: what hosts have of others is of no use. A shared store knows those of other
    /// receivers too, and replaces the one that was asked for the longest ago.
    pub fn retain_archives(&self, ids: &[u64]) {
        if let Some(memory) = self.memory() {
            memory.retain_archives(ids);
        }
    }

    /// Where an archive is with each of some hosts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn archive_cursors(&self, id: u64, hosts: &[SmolStr]) -> Result<Vec<ArchiveCursor>, StoreError> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.archive_cursors(id, hosts)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(disk.memory().archive_cursors(id, hosts)),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.archive_cursors(id, hosts),
        }
    }

    /// Begins to read for an archive what is late of a host, and what is before the minute `end`: a sample that is recorded
    /// for these from now on is late. No minute from `limit` on is closed yet. `None` where the host is not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn begin_archiving(&self, id: u64, host: &str, limit: u64, end: u64) -> Result<Option<ArchiveDue>, StoreError> {
        let begin = |memory: &MemoryStore| memory.change_archives(host, |archives| archives.begin(id, limit, end));
        match &self.kind {
            Kind::Memory(memory) => Ok(begin(memory)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Ok(begin(disk.memory())),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.begin_archiving(id, host, limit, end),
        }
    }

    /// Notes what an archive has got of hosts, as durable as samples are. Hosts that are not known any more are left out.
    ///
    /// # Errors
    /// When that could not be made durable: after a restart they may be sent again.
    pub fn note_archived(&self, id: u64, done: &[ArchiveDone]) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Memory(memory) => {
                for done in done {
                    memory.change_archives(&done.host, |archives| archives.done(id, done));
                }
                Ok(())
            }
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.note_archived(id, done),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.note_archived(id, done),
        }
    }

    /// Takes or renews the lease of the receiver that sends to an archive, for a time; with none it is given up. Returns
    /// whether this receiver has it. A store that is not shared gives it to whoever asks.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn lease_archive(&self, id: u64, holder: &str, lasts: Duration) -> Result<bool, StoreError> {
        match &self.kind {
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.lease_archive(id, holder, lasts),
            _ => Ok(true),
        }
    }

    /// Whether other receivers may use the same data.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        #[cfg(feature = "redis")]
        return matches!(self.kind, Kind::Redis(_));
        #[cfg(not(feature = "redis"))]
        false
    }

    /// How many series it holds, where a host that has none left counts as one; where it is shared, about how many.
    #[must_use]
    pub fn series_count(&self) -> usize {
        match &self.kind {
            Kind::Memory(memory) => memory.series_count(),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.memory().series_count(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.series_count(),
        }
    }

    /// How many series of `host`, or of all hosts, an answer is read from, where reading them waits for nothing.
    #[must_use]
    pub fn series_at_hand(&self, host: Option<&str>) -> Option<usize> {
        let memory = self.memory()?;
        Some(host.map_or_else(|| memory.series_count(), |host| memory.series_of(host)))
    }

    /// Makes durable what was recorded until now, at the end of the process. A directory does so every second by itself.
    ///
    /// # Errors
    /// When it could not be.
    pub fn sync_now(&self) -> Result<(), StoreError> {
        match &self.kind {
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.sync_now(),
            _ => Ok(()),
        }
    }

    /// Writes the hosts that have changed, so that a restart need not read their samples again.
    ///
    /// # Errors
    /// When the disk cannot be written; the samples stay in the log then.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        match &self.kind {
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.checkpoint(),
            _ => Ok(()),
        }
    }

    /// Whether a checkpoint is due, because much of memory waits for the disk.
    #[must_use]
    pub fn needs_checkpoint(&self) -> bool {
        match &self.kind {
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.needs_checkpoint(),
            _ => false,
        }
    }

    /// Removes from the disk what no answer lists any more.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    #[cfg_attr(not(feature = "disk"), expect(unused_variables, reason = "only a directory has a disk"))]
    pub fn expire_disk(&self, now: u64) -> Result<(), StoreError> {
        match &self.kind {
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.expire(now),
            _ => Ok(()),
        }
    }

    /// Has the disk stand still until what is returned is dropped.
    #[cfg(all(test, feature = "disk", feature = "builtin"))]
    pub(crate) fn stall(&self) -> Option<std::sync::mpsc::Sender<()>> {
        if let Kind::Disk(disk) = &self.kind { Some(disk::tests::stall(disk)) } else { None }
    }

    /// The hosts, where this process holds them.
    fn memory(&self) -> Option<&MemoryStore> {
        match &self.kind {
            Kind::Memory(memory) => Some(memory),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => Some(disk.memory()),
            #[cfg(feature = "redis")]
            Kind::Redis(_) => None,
        }
    }
}
