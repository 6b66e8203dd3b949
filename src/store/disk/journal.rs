//! The one thread that writes a store's directory.
//!
//! Posts queue their samples and wait for it. It takes all that wait as one group: it plans what each sample would do,
//! writes the group to the log as one batch under the next number, and then applies it to memory. So posts that come
//! together share one write, disk and memory see one order, and no lock that readers take is held while a disk works.
//!
//! When a write or an fsync has failed, the directory is opened again. Unless the disk was only full, all that memory
//! holds is then written again behind a new journal file, before anything else is taken: after a failed fsync nobody
//! knows which pages of the old file the device has.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch, PersistMode};
use foldhash::HashSet;
use smol_str::SmolStr;

use super::format::{
    Entry, Fields, archives_key, host_key, id_key, put_removal, put_sample, record_key, series_key, tags_key,
};
use super::history::Moves;
use super::keyspaces::{Keyspaces, begin_journal, remove_journal, replace_journals_before};
use super::lock::DirectoryLock;
use super::queue::{Queue, Request, Samples};
use super::restore::{Restored, write_format, write_keep};
use super::unsynced::Unsynced;
use crate::sample::{IdempotencyKey, SampleRef, Tags};
use crate::store::archived::Archives;
use crate::store::memory::{MemoryStore, Plan};
use crate::store::recording::Wakers;
use crate::store::records::kind_of;
use crate::store::{ArchiveDone, BatchOutcome, RecordOutcome, Records, StoreError, Swap};
use crate::summary::{Keep, SampleTime};

/// Longest time until the device has what was written.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Shortest pause between two attempts to open the directory again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a batch past which it gets no more entries.
const GROUP_BYTES: usize = 1 << 20;
/// Bytes of batches after which fjall is made to free the memory of logs that were cleared. With what it keeps beside
/// each batch, that is up to twice as much memory.
pub(super) const CLEARED_BYTES_MAX: u64 = 8 << 20;

/// Bytes of memory that may wait for the disk until there is a checkpoint, and until it is not awaited any more.
pub(super) const WAITING_BYTES_MAX: u64 = 64 << 20;
/// Bytes of memory that a late value takes in a window, about.
pub(super) const LATE_VALUE_BYTES: u64 = 64;

/// The file beside the database with the number of the newest batch that the device has.
pub(super) const DURABLE_NOTE: &str = "durable";

/// The state of the journal's thread.
pub(super) struct Journal {
    path: PathBuf,
    fsync_always: bool,
    memory: Arc<MemoryStore>,
    queue: Arc<Queue<Self>>,
    lock: DirectoryLock,
    /// `None` from a failure until the directory was opened again.
    keyspaces: Option<Keyspaces>,
    /// Number of the next batch.
    next: u64,
    /// Which log takes batches.
    pub(super) active: usize,
    /// Whether the other log is known to be empty.
    pub(super) spare_is_empty: bool,
    /// Bytes of batches in logs whose memory fjall has not freed.
    pub(super) logged_bytes: u64,
    /// Number of the newest batch that the device has.
    durable: u64,
    synced_at: Instant,
    /// Whether the disk may lack something that was written to it.
    needs_rewrite: bool,
    reopen_at: Instant,
    pub(super) moves: Arc<Moves>,
    /// Shards of which something is on its way to the disk.
    pub(super) moving: Vec<usize>,
    /// The number of the next host of which something moves to the disk.
    pub(super) next_disk_id: u64,
    /// What was written since the last sync and is not in memory.
    pub(super) unsynced: Vec<Unsynced>,
    /// Whether all that memory holds is being written again.
    pub(super) is_rewriting: bool,
}

/// Samples that are to be one batch of the log.
#[derive(Default)]
struct Group<'r> {
    samples: Vec<Planned<'r>>,
    values: Vec<(Cow<'r, str>, f64)>,
    /// The entries of the batch.
    entries: Vec<u8>,
    /// Hosts and sources of the keys in it.
    sources: HashSet<(&'r str, &'r str)>,
}

/// A sample without its values.
struct Sample<'r> {
    host: &'r str,
    time: SampleTime,
    key: Option<IdempotencyKey<'r>>,
}

/// A sample of a group.
struct Planned<'r> {
    /// Which request it came with, and its place there.
    request: usize,
    place: usize,
    sample: Sample<'r>,
    /// Its values among those of the group.
    values: Range<usize>,
    outcome: RecordOutcome,
}

impl Journal {
    /// The thread of a directory that was read.
    pub(super) fn new(
        path: &Path,
        fsync_always: bool,
        lock: DirectoryLock,
        keyspaces: Option<Keyspaces>,
        restored: Restored,
        queue: Arc<Queue<Self>>,
    ) -> Self {
        let now = Instant::now();
        let moves = Moves::new();
        moves.set_keyspaces(keyspaces.clone());
        Self {
            path: path.to_owned(),
            fsync_always,
            memory: Arc::new(restored.memory),
            queue,
            lock,
            needs_rewrite: keyspaces.is_none(),
            keyspaces,
            next: restored.newest.max(read_note(path)) + 1,
            active: restored.active,
            spare_is_empty: restored.spare_is_empty,
            // Reading fjall's journals has filled and cleared the logs again.
            logged_bytes: CLEARED_BYTES_MAX,
            durable: 0,
            synced_at: now,
            reopen_at: now + REOPEN_PAUSE,
            moves,
            moving: Vec::new(),
            next_disk_id: restored.next_disk_id,
            unsynced: Vec::new(),
            is_rewriting: false,
        }
    }

    pub(super) fn memory(&self) -> Arc<MemoryStore> {
        self.memory.clone()
    }

    /// Number of the newest batch.
    pub(super) fn newest_batch(&self) -> u64 {
        self.next - 1
    }

    /// Notes what is kept.
    pub(super) fn write_keep(&mut self) -> Result<(), StoreError> {
        let keyspaces = self.keyspaces()?;
        let written = write_keep(&keyspaces, self.memory.keep());
        written.map_err(|error| self.fail(&format!("cannot be written: {error}"), true))
    }

    /// Carries out requests until the queue is closed.
    pub(super) fn run(mut self) {
        loop {
            let deadline = if self.keyspaces.is_some() { self.synced_at + SYNC_EVERY } else { self.reopen_at };
            let requests = self.queue.take(deadline);
            let is_last = requests.is_empty() && self.queue.is_closed();
            let carried_out = catch_unwind(AssertUnwindSafe(|| {
                self.carry_out(requests);
                self.maintain(is_last);
            }));
            if carried_out.is_err() {
                self.fail("cannot be written: its thread has panicked", true);
            }
            if is_last {
                break;
            }
        }
    }

    /// Carries out the requests that wait, between two steps of something longer.
    pub(super) fn carry_out_waiting(&mut self) {
        let requests = self.queue.take_waiting();
        self.carry_out(requests);
    }

    fn carry_out(&mut self, requests: Vec<Request<Self>>) {
        let (mut samples, mut long_tasks) = (Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Record(request) if request.reply.begin() => samples.push(request),
                // Nobody waits for it any more.
                Request::Record(_) => {}
                Request::Task(task) => {
                    self.record(&std::mem::take(&mut samples));
                    task(self);
                }
                // What was taken with it would wait for all its steps.
                Request::LongTask(task) => long_tasks.push(task),
            }
        }
        self.record(&samples);
        long_tasks.into_iter().for_each(|task| task(self));
    }

    /// Makes durable what was written, every second, or opens the directory again after a failure.
    fn maintain(&mut self, is_last: bool) {
        let now = Instant::now();
        if self.keyspaces.is_none() {
            if now >= self.reopen_at && !is_last {
                self.reopen();
            }
        } else if now >= self.synced_at + SYNC_EVERY || is_last {
            if self.moves.waiting_bytes.load(Ordering::Relaxed) > 2 * WAITING_BYTES_MAX {
                let _ = self.checkpoint();
            }
            self.synced_at = now;
            // A failure is noted where it occurs.
            let _ = self.sync();
        }
    }

    /// Records the samples of requests, and answers these.
    fn record(&mut self, requests: &[Samples]) {
        let mut outcomes: Vec<BatchOutcome> = requests.iter().map(|_| BatchOutcome::default()).collect();
        let (mut group, mut values) = (Group::default(), Vec::new());
        for (request, samples) in requests.iter().enumerate() {
            let (mut fields, mut place) = (Fields(&samples.entries), 0);
            while let Some((mut sample, entry)) = parse_sample(self.memory.keep(), &mut fields, &mut values) {
                sample.key = sample.key.map(|key| IdempotencyKey { address: samples.address, ..key });
                let mut plan = self.memory.plan(sample.host, &values, sample.key, &sample.time);
                if group.must_precede(&sample, &plan) {
                    self.write_group(&mut group, &mut outcomes);
                    plan = self.memory.plan(sample.host, &values, sample.key, &sample.time);
                }
                let first_value = group.values.len();
                let outcome = plan.outcome;
                match plan.values {
                    Cow::Borrowed([]) => {}
                    Cow::Borrowed(_) => {
                        group.entries.extend_from_slice(entry);
                        group.values.append(&mut values);
                    }
                    Cow::Owned(left) => {
                        let left_of_it =
                            SampleRef { host: sample.host, epoch: sample.time.epoch(), values: left.as_slice() };
                        put_sample(&mut group.entries, left_of_it, sample.key, sample.time.now());
                        group.values.extend(left);
                    }
                }
                group.sources.extend(sample.key.map(|key| (sample.host, key.source)));
                let values = first_value..group.values.len();
                group.samples.push(Planned { request, place, sample, values, outcome });
                place += 1;
                if group.entries.len() >= GROUP_BYTES {
                    self.write_group(&mut group, &mut outcomes);
                }
            }
        }
        self.write_group(&mut group, &mut outcomes);
        let mut wakers = Wakers::default();
        for (samples, outcome) in requests.iter().zip(outcomes) {
            samples.reply.finish(Ok(outcome));
            samples.reply.waker().into_iter().for_each(|waker| wakers.add(waker));
        }
        wakers.wake();
    }

    /// Writes a group to the log and applies it to memory, or neither.
    fn write_group(&mut self, group: &mut Group<'_>, outcomes: &mut [BatchOutcome]) {
        let Group { samples, values, entries, sources } = group;
        let written = if entries.is_empty() { Ok(()) } else { self.write_batch(entries) };
        for Planned { request, place, sample, values: range, mut outcome } in samples.drain(..) {
            if written.is_ok() && !range.is_empty() {
                let late = sample.time.windows_on_disk(self.memory.keep()) * range.len();
                if late > 0 {
                    self.moves.waiting_bytes.fetch_add(late as u64 * LATE_VALUE_BYTES, Ordering::Relaxed);
                }
                outcome.conflict = self.memory.apply(sample.host, &sample.time, &values[range], sample.key);
            }
            outcomes[request].add(place, written.clone().map(|()| outcome));
        }
        values.clear();
        entries.clear();
        sources.clear();
    }

    /// Writes entries to the log as the next batch.
    fn write_batch(&mut self, entries: &[u8]) -> Result<(), StoreError> {
        let keyspaces = self.keyspaces()?;
        let log = &keyspaces.logs[self.active];
        self.end_batch(log.insert(self.next.to_be_bytes(), entries), entries.len())
    }

    /// Counts a batch that was written, and has it on the device if every batch is to be there at once.
    fn end_batch(&mut self, written: fjall::Result<()>, bytes: usize) -> Result<(), StoreError> {
        match written {
            // It was cut short, and its number is free.
            Err(fjall::Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(self.fail(&format!("cannot be written: {error}"), false));
            }
            // It may be on the disk, where it counts for nothing: its number is not used again.
            Err(error) => {
                self.next += 1;
                return Err(self.fail(&format!("cannot be written: {error}"), true));
            }
            Ok(()) => self.next += 1,
        }
        self.logged_bytes += bytes as u64;
        if self.fsync_always { self.sync() } else { Ok(()) }
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let (keyspaces, newest) = (self.keyspaces()?, self.next - 1);
        if self.durable < newest || !self.unsynced.is_empty() {
            let synced = keyspaces.db.persist(PersistMode::SyncAll);
            synced.map_err(|error| self.fail(&format!("cannot be written: {error}"), true))?;
            if let Err(error) = write_note(&self.path, newest) {
                log::warn!("Store {}: cannot note what is durable: {error}", self.path.display());
            }
            self.durable = newest;
            self.note_synced();
        }
        Ok(())
    }

    /// Adds to a batch what memory does not hold.
    pub(super) fn put(&mut self, keyspaces: &Keyspaces, batch: &mut OwnedWriteBatch, write: Unsynced) {
        write.put(keyspaces, batch);
        self.unsynced.push(write);
    }

    /// Notes that the device has all that was written.
    pub(super) fn note_synced(&mut self) {
        if !self.is_rewriting {
            self.unsynced.clear();
        }
    }

    /// Writes records in one batch.
    pub(super) fn write_records(&mut self, records: &Records) -> Result<(), StoreError> {
        self.write_state(records.iter().map(|(key, record)| (record_key(key), record.as_deref())))
    }

    /// Replaces a record that is `old`, or makes it.
    pub(super) fn swap_record(
        &mut self,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        records_max: usize,
    ) -> Result<Swap, StoreError> {
        let state = self.keyspaces()?.state;
        let held = state.get(record_key(key)).map_err(|error| self.fail(&format!("cannot be read: {error}"), true))?;
        let is_full = || state.prefix(record_key(kind_of(key))).count() >= records_max;
        if let Some(refused) = Swap::refused(old, held.as_deref(), is_full) {
            return Ok(refused);
        }
        self.write_state([(record_key(key), Some(new))].into_iter())?;
        Ok(Swap::Done)
    }

    /// Replaces the tags of a host, and returns whether it is known.
    pub(super) fn set_tags(&mut self, host: &str, tags: &Tags) -> Result<bool, StoreError> {
        if self.memory.has_host(host) {
            let record = (!tags.is_empty()).then_some(tags.as_str().as_bytes());
            self.write_state([(tags_key(host), record)].into_iter())?;
        }
        Ok(self.memory.set_tags(host, tags))
    }

    /// Notes what an archive has got of hosts. Nothing else changes that, or records samples, meanwhile.
    pub(super) fn note_archived(&mut self, id: u64, done: &[ArchiveDone]) -> Result<(), StoreError> {
        let noted = done.iter().filter_map(|done| {
            let change = |archives: &mut Archives| {
                archives.done(id, done);
                archives.encode()
            };
            Some((archives_key(&done.host), self.memory.change_archives(&done.host, change)?))
        });
        let noted: Vec<(Vec<u8>, Vec<u8>)> = noted.collect();
        self.write_state(noted.iter().map(|(key, record)| (key.clone(), Some(record.as_slice()))))
    }

    /// Writes or removes entries of `state` in one batch, as durable as samples are.
    fn write_state<'r>(
        &mut self,
        records: impl Iterator<Item = (Vec<u8>, Option<&'r [u8]>)>,
    ) -> Result<(), StoreError> {
        let keyspaces = self.keyspaces()?;
        let mut batch = keyspaces.db.batch();
        for (key, record) in records {
            self.put(&keyspaces, &mut batch, Unsynced::state(key, record.map(<[u8]>::to_vec)));
        }
        let written = batch.commit().and_then(|()| keyspaces.db.persist(PersistMode::Buffer));
        written.map_err(|error| self.fail(&format!("cannot be written: {error}"), true))?;
        if self.fsync_always { self.sync() } else { Ok(()) }
    }

    /// The database, if it can be written and its directory is still there.
    pub(super) fn keyspaces(&mut self) -> Result<Keyspaces, StoreError> {
        match &self.keyspaces {
            Some(_) if !self.lock.is_in_place() => Err(self.fail("cannot be written: its directory is gone", true)),
            Some(keyspaces) => Ok(keyspaces.clone()),
            None => Err(self.queue.unavailable().unwrap_or_else(|| StoreError::new("it is being opened again"))),
        }
    }

    /// Closes the database after a failure. `loses` says that the disk may lack something that was written before.
    pub(super) fn fail(&mut self, why: &str, loses: bool) -> StoreError {
        self.moves.set_keyspaces(None);
        if self.keyspaces.take().is_some() {
            log::error!("Store {} {why}; it will be opened again", self.path.display());
            self.queue.set_failed(Some(why.to_owned()));
            self.reopen_at = Instant::now() + REOPEN_PAUSE;
        }
        self.needs_rewrite |= loses;
        StoreError::new(why)
    }

    /// Opens the directory again after a failure.
    fn reopen(&mut self) {
        let begun = Instant::now();
        match self.lock.reacquire().and_then(|()| self.open_again()) {
            Ok(()) => {
                self.needs_rewrite = false;
                self.moves.set_keyspaces(self.keyspaces.clone());
                self.queue.set_failed(None);
                log::info!("Store {} was opened again", self.path.display());
            }
            Err(why) => {
                self.keyspaces = None;
                let why = format!("cannot be opened: {why}");
                if self.queue.set_failed(Some(why.clone())) {
                    log::error!("Store {} {why}", self.path.display());
                }
                self.reopen_at = Instant::now() + REOPEN_PAUSE.max(begun.elapsed());
            }
        }
    }

    fn open_again(&mut self) -> Result<(), String> {
        if !self.needs_rewrite {
            self.keyspaces = Some(Keyspaces::open(&self.path)?);
            (self.spare_is_empty, self.logged_bytes) = (false, CLEARED_BYTES_MAX);
            return Ok(());
        }
        let cannot_begin = |error: io::Error| format!("a new journal cannot be made: {error}");
        let journal = begin_journal(&self.path).map_err(cannot_begin)?;
        self.is_rewriting = true;
        let rewritten = self.rewrite(journal);
        self.is_rewriting = false;
        if rewritten.is_err() {
            // What is in it is in memory too, and the next attempt begins another.
            self.keyspaces = None;
            remove_journal(&self.path, journal);
        }
        rewritten
    }

    /// Opens the database, whose journal has just begun, and writes all that memory holds.
    fn rewrite(&mut self, journal: u64) -> Result<(), String> {
        let keyspaces = Keyspaces::open(&self.path)?;
        self.keyspaces = Some(keyspaces.clone());
        self.end_moves();
        let mut batch = keyspaces.db.batch();
        self.unsynced.iter().for_each(|write| write.put(&keyspaces, &mut batch));
        batch.commit().map_err(|error| error.to_string())?;
        self.memory.mark_all_changed();
        self.spare_is_empty = false;
        write_format(&keyspaces, None).map_err(|error| error.to_string())?;
        self.checkpoint().map_err(|error| error.to_string())?;
        write_keep(&keyspaces, self.memory.keep()).map_err(|error| error.to_string())?;
        // Both logs: all their batches are in the records now. Their removal, and those of hosts, is in the old journal
        // perhaps, which a table replaces.
        let replaced = (0..keyspaces.logs.len()).try_for_each(|log| keyspaces.clear_log(log));
        let replaced = replaced.and_then(|()| keyspaces.flush_records());
        replaced.and_then(|()| keyspaces.db.persist(PersistMode::SyncAll)).map_err(|error| error.to_string())?;
        (self.spare_is_empty, self.logged_bytes, self.durable) = (true, CLEARED_BYTES_MAX, self.next - 1);
        replace_journals_before(&self.path, journal)
            .and_then(|()| write_note(&self.path, self.durable))
            .map_err(|error| format!("a note cannot be written: {error}"))?;
        self.unsynced.clear();
        Ok(())
    }

    /// Removes all that is kept of a host, and returns whether it was known.
    pub(super) fn remove(&mut self, host: &str) -> Result<bool, StoreError> {
        if !self.memory.has_host(host) {
            return Ok(false);
        }
        let keyspaces = self.keyspaces()?;
        let mut entries = Vec::new();
        put_removal(&mut entries, host);
        let bytes = entries.len();
        let mut batch = keyspaces.db.batch();
        let keys = keys_of(&keyspaces, host);
        let keys = keys.map_err(|error| self.fail(&format!("cannot be read: {error}"), true))?;
        // Its chunks in `history` are removed later: nothing finds them any more.
        keys.into_iter().for_each(|key| self.put(&keyspaces, &mut batch, Unsynced::state(key, None)));
        batch.insert(&keyspaces.logs[self.active], self.next.to_be_bytes(), entries);
        let written = batch.commit();
        self.end_batch(written, bytes)?;
        Ok(self.memory.remove(host))
    }

    /// Removes the records of hosts that are not known any more.
    pub(super) fn remove_records(&mut self, hosts: &[SmolStr]) -> Result<(), StoreError> {
        let keyspaces = self.keyspaces()?;
        let mut batch = keyspaces.db.batch();
        let memory = self.memory();
        for host in hosts.iter().filter(|host| !memory.has_host(host)) {
            for key in [host_key(host), id_key(host), tags_key(host), archives_key(host)] {
                self.put(&keyspaces, &mut batch, Unsynced::state(key, None));
            }
        }
        batch.commit().map_err(|error| self.fail(&format!("cannot be written: {error}"), true))
    }

    /// Removes what was noted of series that have nothing in `history` any more.
    pub(super) fn remove_series(&mut self, series: &[(SmolStr, SmolStr)]) -> Result<(), StoreError> {
        let keyspaces = self.keyspaces()?;
        let mut batch = keyspaces.db.batch();
        let memory = self.memory();
        for (host, label) in series.iter().filter(|(host, label)| !memory.has_series(host, label)) {
            self.put(&keyspaces, &mut batch, Unsynced::state(series_key(host, label), None));
        }
        batch.commit().map_err(|error| self.fail(&format!("cannot be written: {error}"), true))
    }
}

/// The keys of all records of a host.
fn keys_of(keyspaces: &Keyspaces, host: &str) -> fjall::Result<Vec<Vec<u8>>> {
    let mut keys = vec![host_key(host), id_key(host), tags_key(host), archives_key(host)];
    for prefix in [[b"b\0", host.as_bytes(), b"\0"].concat(), series_key(host, "")] {
        for guard in keyspaces.state.prefix(prefix) {
            keys.push(guard.key()?.to_vec());
        }
    }
    Ok(keys)
}

impl Group<'_> {
    /// Whether the group must be applied before a sample is planned: what that would do may depend on it.
    fn must_precede(&self, sample: &Sample<'_>, plan: &Plan<'_, '_>) -> bool {
        let is_of_known_source = |key: IdempotencyKey<'_>| self.sources.contains(&(sample.host, key.source));
        !self.samples.is_empty() && (plan.has_new_labels || sample.key.is_some_and(is_of_known_source))
    }
}

/// Reads the next entry of a request, and its values. Returns the bytes of the entry too.
fn parse_sample<'r>(
    keep: &Keep,
    fields: &mut Fields<'r>,
    values: &mut Vec<(Cow<'r, str>, f64)>,
) -> Option<(Sample<'r>, &'r [u8])> {
    let entry = fields.0;
    values.clear();
    match Entry::parse(fields, values)? {
        Entry::Sample { host, epoch, key, now } => {
            let entry = &entry[..entry.len() - fields.0.len()];
            Some((Sample { host, time: SampleTime::new(keep, epoch, now), key }, entry))
        }
        Entry::Removal { .. } => None,
    }
}

/// Notes beside the database which batch is the newest that the device has.
fn write_note(path: &Path, number: u64) -> io::Result<()> {
    fs::write(path.join("durable.new"), format!("{number}\n"))?;
    fs::rename(path.join("durable.new"), path.join(DURABLE_NOTE))
}

/// The number of the newest batch that the device had.
pub(super) fn read_note(path: &Path) -> u64 {
    fs::read_to_string(path.join(DURABLE_NOTE)).ok().and_then(|note| note.trim().parse().ok()).unwrap_or(0)
}
