//! The store in a directory: the hosts in memory, and on disk what a restart needs, written through fjall.
//!
//! Memory holds what an answer without a range lists; what is older is on disk alone ([`history`]). Samples are written to a log before they are applied to
//! memory and answered, in batches whose numbers have no gaps. A checkpoint writes the hosts that have changed, each with
//! the number of the newest batch in it, and clears the log that these batches are in; meanwhile batches go to a second
//! log. What a restart finds in both is counted once, by these numbers.
//!
//! One thread writes ([`journal`]). Callers queue, and wait for it or are woken by it, a post for a second at most, so that a
//! disk that stalls holds nobody else up. Readers use memory, and read the disk for ranges that memory does not hold.

mod backup;
mod checkpoint;
mod checksums;
mod expiry;
mod format;
mod history;
mod journal;
mod keyspaces;
mod lock;
mod queue;
mod ranges;
mod read_only;
mod recording;
mod restore;
mod unsynced;

use std::fs;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::memory::MemoryStore;
use super::{ArchiveDone, BatchOutcome, KeepOptions, Limits, RecordOutcome, Records, StoreError, Swap};
use crate::sample::{IdempotencyKey, SampleRef, Tags};
use crate::summary::SampleTime;
pub(super) use backup::backup;
use format::{RECORD_PREFIX, put_sample, record_key};
use history::Moves;
use journal::{Journal, WAITING_BYTES_MAX, read_note};
use keyspaces::Keyspaces;
use lock::DirectoryLock;
use queue::{Queue, Reply, Samples};
use read_only::{restore_copy, unwritable};
pub(super) use recording::Recording;
pub(super) use restore::restore_record;
use restore::{Restored, restore, write_format};

/// Longest that a post waits for the disk.
const POST_WITHIN: Duration = Duration::from_secs(1);
/// Longest that the maintenance of the store waits for the disk, or for one step of a checkpoint, and the end of the process.
const MAINTENANCE_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A store in a directory.
pub(super) struct DiskStore {
    memory: Arc<MemoryStore>,
    queue: Arc<Queue<Journal>>,
    moves: Arc<Moves>,
    expiry: Mutex<expiry::Progress>,
    description: String,
    /// `None` when the thread has ended.
    thread: Option<JoinHandle<()>>,
}

impl DiskStore {
    /// Opens the store in a directory with all that it holds, at `now`. The directory is created if it does not exist.
    ///
    /// # Errors
    /// When it is held by another process, of a newer format, damaged, or cannot be read.
    pub(super) fn open(
        path: &Path,
        fsync_always: bool,
        limits: Limits,
        keep: &KeepOptions,
        now: u64,
    ) -> Result<Self, String> {
        let started = Instant::now();
        let name = path.display();
        let failed = |why: String| format!("store {name}: {why}");
        fs::create_dir_all(path).map_err(|error| failed(format!("cannot be made: {error}")))?;
        let lock = DirectoryLock::acquire(path).map_err(failed)?;
        let unwritable = unwritable(path).map(|error| format!("cannot be written: {error}"));
        let read = catch_unwind(AssertUnwindSafe(|| read(path, unwritable.as_deref(), limits, keep, now)));
        let read = read.unwrap_or_else(|_| Err("it is damaged".to_owned()));
        let (keyspaces, restored) = read.map_err(failed)?;
        let keep = restored.memory.keep();
        let keeps_other = restored.kept.is_some_and(|kept| kept.stored() != keep.stored());
        let description = format!(
            "Store is {name}, which {}: {} hosts and {} series were there, up to batch {}, read in {} ms",
            match restored.kept {
                Some(kept) if keeps_other => format!("kept {kept}, and keeps {} from now on", restored.memory.keep()),
                _ => format!("keeps {}", restored.memory.keep()),
            },
            restored.memory.hosts().len(),
            restored.memory.series_count(),
            restored.newest,
            started.elapsed().as_millis()
        );
        if let Some(dropped) = &restored.dropped {
            log::warn!("Store {name} removes {dropped}");
        }
        let is_damaged = report_missing(path, &restored);
        let queue = Queue::new();
        // What is there is served, and the journal's thread tries to open the directory.
        queue.set_failed(unwritable);
        let journal = Journal::new(path, fsync_always, lock, keyspaces, restored, queue.clone());
        let (memory, moves) = (journal.memory(), journal.moves.clone());
        let thread = thread::Builder::new().name("journal".into()).spawn(|| journal.run());
        let thread = Some(thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?);
        let store = Self { memory, queue, moves, expiry: Mutex::default(), description, thread };
        if is_damaged && store.unavailable().is_none() {
            // What is missing is reported once: from here on the numbers have no gap again.
            store.checkpoint().map_err(|error| error.to_string())?;
        }
        if keeps_other && store.unavailable().is_none() {
            // First what was filled from finer intervals, which the next start does not fill again.
            let changed = store.checkpoint().and_then(|()| store.ask(MAINTENANCE_WITHIN, Journal::write_keep));
            changed.and_then(|()| store.expire(now)).map_err(|error| error.to_string())?;
        }
        Ok(store)
    }

    /// The hosts, for those who read.
    pub(super) fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// What was found when it was opened.
    pub(super) fn description(&self) -> String {
        self.description.clone()
    }

    /// Why it cannot take samples now, if so.
    pub(super) fn unavailable(&self) -> Option<StoreError> {
        self.queue.unavailable()
    }

    /// Has the journal's thread record a sample, unless `key` says that it was recorded before, and then wake `waker`.
    ///
    /// # Errors
    /// When nothing can be written now.
    pub(super) fn begin_record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        waker: Option<&Waker>,
    ) -> Result<Recording, StoreError> {
        let mut entries = Vec::new();
        put_sample(&mut entries, sample, key, now);
        self.write(entries, key.and_then(|key| key.address), waker).map(Recording)
    }

    /// Records a sample, unless `key` says that it was recorded before.
    ///
    /// # Errors
    /// When it could not be written to the log in time.
    pub(super) fn record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, StoreError> {
        self.begin_record(sample, key, now, None)?.finish()
    }

    /// Records `count` samples, each as [`DiskStore::record`] does, in their order.
    pub(super) fn record_many<'v>(
        &self,
        count: usize,
        sample: impl Fn(usize) -> SampleRef<'v>,
        now: u64,
    ) -> BatchOutcome {
        let mut entries = Vec::new();
        (0..count).for_each(|place| put_sample(&mut entries, sample(place), None, now));
        self.write(entries, None, None).and_then(|reply| reply.wait()).unwrap_or_else(|error| {
            // What can be said of them without the disk is said.
            let outcome = |place| match SampleTime::new(self.memory.keep(), sample(place).epoch, now).is_expired(false)
            {
                true => Ok(RecordOutcome { expired: sample(place).values.len(), ..RecordOutcome::default() }),
                false => Err(error.clone()),
            };
            BatchOutcome { stored: 0, others: (0..count).map(|place| (place, outcome(place))).collect() }
        })
    }

    fn write(
        &self,
        entries: Vec<u8>,
        address: Option<IpAddr>,
        waker: Option<&Waker>,
    ) -> Result<Arc<Reply<BatchOutcome>>, StoreError> {
        let reply = Reply::new(POST_WITHIN, waker);
        self.queue.push_samples(Samples { entries, address, reply: reply.clone() })?;
        Ok(reply)
    }

    /// Replaces the tags of a host, and returns whether it is known. Nothing is written where it has them already.
    ///
    /// # Errors
    /// When they could not be written in time.
    pub(super) fn set_tags(&self, host: &str, tags: &Tags) -> Result<bool, StoreError> {
        match self.memory.with_host(host, |host| host.tags() == *tags) {
            None => return Ok(false),
            Some(true) => return Ok(true),
            Some(false) => self.queue.unavailable().map_or(Ok(()), Err)?,
        }
        let (host, tags) = (host.to_owned(), tags.clone());
        self.ask(POST_WITHIN, move |journal| journal.set_tags(&host, &tags))
    }

    /// Removes a host, and returns whether it was known.
    ///
    /// # Errors
    /// When that could not be written in time.
    pub(super) fn remove(&self, host: &str) -> Result<bool, StoreError> {
        if !self.memory.has_host(host) {
            return Ok(false);
        }
        self.queue.unavailable().map_or(Ok(()), Err)?;
        let host = host.to_owned();
        self.ask(POST_WITHIN, move |journal| journal.remove(&host))
    }

    /// Whether much of memory waits for a checkpoint.
    pub(super) fn needs_checkpoint(&self) -> bool {
        self.moves.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX
    }

    /// Makes durable what was recorded until now.
    ///
    /// # Errors
    /// When it could not be.
    pub(super) fn sync_now(&self) -> Result<(), StoreError> {
        self.ask(STOP_WITHIN, Journal::sync)
    }

    /// Writes the hosts that have changed, so that a restart need not read their samples again.
    ///
    /// # Errors
    /// When the disk cannot be written; the samples stay in the log then.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        self.read_ahead();
        let reply = Reply::new(MAINTENANCE_WITHIN, None);
        self.queue.push_long_task(answering(&reply, Journal::checkpoint));
        // It may take minutes. A thread that has panicked has dropped its end of the reply.
        let goes_on = || self.queue.goes_on(MAINTENANCE_WITHIN) && Arc::strong_count(&reply) > 1;
        let (keyspaces, frees) = reply.wait_while(goes_on)?;
        // Here, because it waits for tables to be written.
        let freed = keyspaces.release_journals().and_then(|()| if frees { keyspaces.flush_state() } else { Ok(()) });
        freed.map_err(|error| self.fail(&error))
    }

    /// The records whose keys begin with `kind`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(super) fn records(&self, kind: char) -> Result<Records, StoreError> {
        let keyspaces = self.ask(MAINTENANCE_WITHIN, Journal::keyspaces)?;
        let mut records = Records::new();
        for guard in keyspaces.state.prefix(record_key(&kind.to_string())) {
            let (key, value) = guard.into_inner().map_err(|error| self.fail(&error))?;
            let key = String::from_utf8_lossy(&key[RECORD_PREFIX.len()..]).into_owned();
            records.insert(key, Some(value.to_vec()));
        }
        Ok(records)
    }

    /// Writes records in one batch, as durable as samples are.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub(super) fn write_records(&self, records: &Records) -> Result<(), StoreError> {
        let records = records.clone();
        self.ask(MAINTENANCE_WITHIN, move |journal| journal.write_records(&records))
    }

    /// Replaces a record that is `old`.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub(super) fn swap_record(
        &self,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        records_max: usize,
    ) -> Result<Swap, StoreError> {
        let (key, old, new) = (key.to_owned(), old.map(<[u8]>::to_vec), new.to_vec());
        self.ask(POST_WITHIN, move |journal| journal.swap_record(&key, old.as_deref(), &new, records_max))
    }

    /// Notes what an archive has got of hosts, in one batch that is as durable as samples are.
    ///
    /// # Errors
    /// When the disk cannot be written. It is noted in memory all the same.
    pub(super) fn note_archived(&self, id: u64, done: &[ArchiveDone]) -> Result<(), StoreError> {
        let done = done.to_vec();
        self.ask(MAINTENANCE_WITHIN, move |journal| journal.note_archived(id, &done))
    }

    /// Has the journal's thread do something, and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        within: Duration,
        task: impl FnOnce(&mut Journal) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reply = Reply::new(within, None);
        self.queue.push_task(answering(&reply, task));
        reply.wait()
    }

    /// Has the directory opened again after another thread has failed to read or write it.
    fn fail(&self, error: &fjall::Error) -> StoreError {
        let why = format!("cannot be written: {error}");
        let error = StoreError::new(why.clone());
        let failed: Result<(), StoreError> = self.ask(POST_WITHIN, move |journal| Err(journal.fail(&why, true)));
        failed.err().unwrap_or(error)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.queue.close();
        // A disk that stalls is not waited for. No request that it holds up was answered 200.
        if self.unavailable().is_none()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

/// A task that answers with what another returns, if anybody still waits for it when it begins.
fn answering<T: Send + 'static>(
    reply: &Arc<Reply<T>>,
    task: impl FnOnce(&mut Journal) -> Result<T, StoreError> + Send + 'static,
) -> impl FnOnce(&mut Journal) + Send + 'static {
    let reply = reply.clone();
    move |journal| {
        if reply.begin() {
            reply.finish(task(journal));
        }
    }
}

/// Opens the database of a directory and reads what it holds; if it cannot be written, a copy of it.
fn read(
    path: &Path,
    unwritable: Option<&str>,
    limits: Limits,
    keep: &KeepOptions,
    now: u64,
) -> Result<(Option<Keyspaces>, Restored), String> {
    if let Some(unwritable) = unwritable {
        let restored = restore_copy(path, limits, keep, now).or_else(|why| {
            // The directory for temporary files may be as full. fjall needs little room to open what is there.
            let keyspaces = Keyspaces::open(path).map_err(|_| format!("{unwritable}, and {why}"))?;
            restore(&keyspaces, limits, keep, now)
        });
        return Ok((None, restored?));
    }
    let keyspaces = Keyspaces::open(path)?;
    let restored = restore(&keyspaces, limits, keep, now)?;
    let new_keep = restored.kept.is_none().then_some(restored.memory.keep());
    write_format(&keyspaces, new_keep).map_err(|error| format!("cannot be written: {error}"))?;
    Ok((Some(keyspaces), restored))
}

/// Logs which batches are missing in a directory, if any.
fn report_missing(path: &Path, restored: &Restored) -> bool {
    let (name, noted) = (path.display(), read_note(path));
    if noted > restored.newest {
        let lost = noted - restored.newest;
        log::error!("Store {name} is damaged: the newest {lost} batches of samples that were durable are gone");
    }
    if restored.missing > 0 {
        let missing = restored.missing;
        log::error!("Store {name} is damaged: {missing} batches of samples are missing, the averages lack them");
    }
    noted > restored.newest || restored.missing > 0
}

#[cfg(test)]
pub(super) mod tests;
