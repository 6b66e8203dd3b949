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
/// Longest that the maintenance of the store waits for the disk, and the end of the process.
const MAINTENANCE_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A store in a directory.
pub(super) struct DiskStore {
    memory: Arc<MemoryStore>,
    queue: Arc<Queue<Journal>>,
    moves: Arc<Moves>,
    /// Where the next search for expired chunks begins.
    expire_from: Mutex<Vec<u8>>,
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
        let keeps_other = restored.kept.is_some_and(|kept| kept.to_string() != keep.to_string());
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
        let is_damaged = report_missing(path, &restored);
        let queue = Queue::new();
        // What is there is served, and the journal's thread tries to open the directory.
        queue.set_failed(unwritable);
        let journal = Journal::new(path, fsync_always, lock, keyspaces, restored, queue.clone());
        let (memory, moves) = (journal.memory(), journal.moves.clone());
        let thread = thread::Builder::new().name("journal".into()).spawn(|| journal.run());
        let thread = Some(thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?);
        let store = Self { memory, queue, moves, expire_from: Mutex::default(), description, thread };
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
        let (keyspaces, frees) = self.ask(MAINTENANCE_WITHIN, Journal::checkpoint)?;
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
        let answered = reply.clone();
        self.queue.push_task(move |journal| {
            if answered.begin() {
                answered.finish(task(journal));
            }
        });
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
pub(super) mod tests {
    use std::borrow::Cow;
    use std::sync::mpsc;

    use super::*;
    use crate::sample::Sample;
    use crate::store::LabelPage;
    use crate::summary::{Keep, KeyFilter, Summaries};
    use serde_json::Value;

    const NOW: u64 = 1_465_001_814;

    pub(super) fn open_as_it_is(path: &Path, now: u64) -> DiskStore {
        DiskStore::open(path, false, 1000.into(), &KeepOptions::default(), now).unwrap()
    }

    /// Opens a directory that keeps what memory holds, minutes for an hour and hours for a day.
    pub(super) fn open(path: &Path, now: u64) -> DiskStore {
        let keep = KeepOptions { asked: Some(Keep::default()), ..KeepOptions::default() };
        DiskStore::open(path, false, 1000.into(), &keep, now).unwrap()
    }

    pub(super) fn put(
        store: &DiskStore,
        host: &str,
        epoch: u64,
        values: &[(&'static str, f64)],
        seq: u64,
        now: u64,
    ) -> RecordOutcome {
        let values = values.iter().map(|(label, value)| (Cow::Borrowed(*label), *value)).collect();
        store
            .record(Sample { host: host.into(), epoch, values }.view(), Some(IdempotencyKey::new("s", seq)), now)
            .unwrap()
    }

    pub(super) fn answer(store: &DiskStore, host: &str, now: u64) -> Value {
        let filter = KeyFilter::containing("");
        let series = store.memory().series(host, &LabelPage::all(&filter), now);
        serde_json::to_value(Summaries { series: &series, filter: &filter, keep: store.memory().keep(), now }).unwrap()
    }

    pub(super) fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target)
            } else {
                drop(fs::copy(entry.path(), target))
            }
        }
    }

    #[test]
    fn checkpoints_and_logs_restore_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Value::Null;
        for round in 0..6_u64 {
            let store = open(dir.path(), NOW);
            if round > 0 {
                assert_eq!(answer(&store, "h", NOW), expected, "round {round}");
                assert!(put(&store, "h", NOW, &[("cpu", 1.0)], 10 * round, NOW).duplicate);
            }
            for step in 1..=10_u64 {
                let epoch = NOW - 600 * (step % 5) - 7000 * (step % 3);
                assert_eq!(put(&store, "h", epoch, &[("cpu", 0.5), ("mem", 8.0)], 10 * round + step, NOW).stored, 2);
                // Restarts after no checkpoint, one, and several, with and without samples after it.
                if step % (round + 1) == 0 && round > 0 {
                    store.checkpoint().unwrap();
                }
            }
            assert_eq!(put(&store, "forgotten", NOW, &[("cpu", 0.5)], round, NOW).stored, 1);
            assert!(store.remove("forgotten").unwrap());
            expected = answer(&store, "h", NOW);
        }
    }

    #[test]
    fn a_restart_keeps_the_last_hour_where_the_clock_was_ahead_or_is_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        let ahead = NOW + 5 * 3600;
        assert_eq!(put(&store, "h", ahead, &[("cpu", 9.0)], 1, ahead).stored, 1);
        store.checkpoint().unwrap();
        for minute in 0..60 {
            let now = NOW - 60 * (59 - minute);
            assert_eq!(put(&store, "h", now, &[("cpu", 1.0)], 2 + minute, now).stored, 1);
        }
        store.checkpoint().unwrap();
        let expected = answer(&store, "h", NOW);
        assert_eq!(expected["summary:by-minute:cpu"]["average-count"], 60);
        drop(store);
        for clock in [NOW, NOW - 2 * 3600] {
            assert_eq!(answer(&open(dir.path(), clock), "h", NOW), expected, "opened at {clock}");
        }
    }

    #[test]
    fn what_has_expired_leaves_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        for host in ["a", "b"] {
            assert_eq!(put(&store, host, NOW, &[("cpu", 1.0)], 1, NOW).stored, 1);
        }
        store.checkpoint().unwrap();
        let later = NOW + 33 * 86_400;
        assert_eq!(put(&store, "a", later, &[("cpu", 2.0)], 2, later).stored, 1);
        store.checkpoint().unwrap();
        assert_eq!(store.memory().sweep(later), ["b"]);
        store.expire(later).unwrap();
        let keyspaces = store.ask(POST_WITHIN, Journal::keyspaces).unwrap();
        let keys: Vec<Vec<u8>> = keyspaces.state.iter().map(|guard| guard.key().unwrap().to_vec()).collect();
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"b\0")).count(), 2, "a chunk of each window");
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"h\0")).collect::<Vec<_>>(), [b"h\0a"]);
    }

    #[test]
    fn a_host_that_is_down_is_there_after_restarts_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        assert_eq!(put(&store, "a", NOW, &[("cpu", 1.0)], 1, NOW).stored, 1);
        store.checkpoint().unwrap();
        drop(store);
        let later = NOW + 20 * 86_400;
        for restart in 0..2 {
            let store = open(dir.path(), later);
            assert!(store.memory().sweep(later).is_empty());
            store.expire(later).unwrap();
            let status = store.memory().status("a", &[], later).unwrap();
            assert_eq!((status.last_epoch, status.labels.len()), (NOW, 0), "restart {restart}");
        }
        let later = NOW + 32 * 86_400;
        let store = open(dir.path(), later);
        assert_eq!(store.memory().sweep(later), ["a"]);
        store.expire(later).unwrap();
        drop(store);
        assert!(open(dir.path(), later).memory().hosts().is_empty());
    }

    fn record(store: &DiskStore, host: &str, labels: usize, seq: u64) -> Result<RecordOutcome, StoreError> {
        let values = (0..labels).map(|label| (format!("label-{label}").into(), 1.0)).collect();
        let sample = Sample { host: host.into(), epoch: NOW, values };
        store.record(sample.view(), Some(IdempotencyKey::new("s", seq)), NOW)
    }

    /// How many samples of each label are in the hour that runs.
    fn counts(store: &DiskStore, host: &str) -> Vec<u64> {
        let summaries = answer(store, host, NOW);
        let hours = summaries.as_object().unwrap().iter().filter(|(key, _)| key.contains("by-hour"));
        hours.map(|(_, hour)| hour["averages"][0]["num-samples"].as_u64().unwrap()).collect()
    }

    fn await_available(store: &DiskStore) {
        while store.unavailable().is_some() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has the journal's thread stand still until the returned sender is dropped.
    pub(in crate::store) fn stall(store: &DiskStore) -> mpsc::Sender<()> {
        let ((begin, begun), (release, released)) = (mpsc::channel(), mpsc::channel());
        store.queue.push_task(move |_| {
            begin.send(()).unwrap();
            let _ = released.recv();
        });
        begun.recv().unwrap();
        release
    }

    #[test]
    fn a_disk_that_stalls_refuses_posts_and_serves_reads() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        record(&store, "h", 1, 1).unwrap();
        let release = stall(&store);
        let refused = record(&store, "h", 1, 2).unwrap_err();
        assert!(refused.to_string().contains("the disk has not answered") && !refused.is_uncertain, "{refused}");
        assert!(store.unavailable().is_some());
        assert!(record(&store, "h", 1, 3).is_err() && store.remove("h").is_err());
        assert_eq!((store.memory().hosts(), counts(&store, "h")), (vec!["h".into()], vec![1]));
        drop(release);
        await_available(&store);
        // Neither was kept, so that the retry is no duplicate.
        assert_eq!(record(&store, "h", 1, 2).unwrap().stored, 1);
        assert!(record(&store, "h", 1, 2).unwrap().duplicate);
        assert_eq!(counts(&store, "h"), [2]);
    }

    #[test]
    fn posts_that_come_together_are_one_batch() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        (0..8).for_each(|host| assert_eq!(record(&store, &format!("h{host}"), 3, 1).unwrap().stored, 3));
        let newest = || store.ask(POST_WITHIN, |journal| Ok(journal.newest_batch())).unwrap();
        let before = newest();
        let release = stall(&store);
        thread::scope(|scope| {
            // The last is a retry that overtakes the answer to its first attempt.
            let posts: Vec<_> = (0..9)
                .map(|post| {
                    let store = &store;
                    scope.spawn(move || record(store, &format!("h{}", post % 8), 3, 2).unwrap())
                })
                .collect();
            while store.queue.waiting() < 9 {
                thread::yield_now();
            }
            drop(release);
            let outcomes: Vec<_> = posts.into_iter().map(|post| post.join().unwrap()).collect();
            assert_eq!(outcomes.iter().filter(|outcome| outcome.stored == 3).count(), 8);
            assert_eq!(outcomes.iter().filter(|outcome| outcome.duplicate).count(), 1);
        });
        assert!(newest() <= before + 2, "{} batches", newest() - before);
        drop(store);
        let store = open(dir.path(), NOW);
        (0..8).for_each(|host| assert_eq!(counts(&store, &format!("h{host}")), [2, 2, 2]));
    }

    #[test]
    fn after_a_failed_fsync_nothing_depends_on_the_old_journal() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        (1..=20).for_each(|seq| assert_eq!(record(&store, "h", 2, seq).unwrap().stored, 2));
        record(&store, "removed", 2, 1).unwrap();
        store.checkpoint().unwrap();
        assert_eq!(store.remove("removed"), Ok(true));
        let failed: Result<(), _> = store.ask(POST_WITHIN, |journal| Err(journal.fail("cannot be written", true)));
        assert!(record(&store, "h", 2, 21).is_err(), "{failed:?}");
        await_available(&store);
        (21..=30).for_each(|seq| assert_eq!(record(&store, "h", 2, seq).unwrap().stored, 2));
        drop(store);
        // Of the old journal the device has lost a page, if it is there at all.
        if let Ok(mut old) = fs::read(dir.path().join("fjall/0.jnl")) {
            let written = old.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            old[written / 2..written].fill(0);
            fs::write(dir.path().join("fjall/0.jnl"), old).unwrap();
        }
        let store = open(dir.path(), NOW);
        assert_eq!((store.memory().hosts(), counts(&store, "h")), (vec!["h".into()], vec![30, 30]));
        assert!(record(&store, "h", 2, 30).unwrap().duplicate);
    }

    /// The process ends between two steps of a checkpoint, after samples that some of the chunks have.
    #[test]
    fn a_checkpoint_that_was_cut_short_counts_each_sample_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        let store = open(&path, NOW);
        let labels = 700;
        (1..=3).for_each(|seq| assert_eq!(record(&store, "h", labels, seq).unwrap().stored, labels));
        let (queue, from, to) = (store.queue.clone(), path.clone(), cut.clone());
        let checkpoint = store.ask(MAINTENANCE_WITHIN, move |journal| {
            // Carried out between two steps: another sample, and after the next step the copy.
            let between = queue.clone();
            queue.push_task(move |_| {
                let mut entries = Vec::new();
                let values: Vec<_> = (0..labels).map(|label| (format!("label-{label}").into(), 1.0)).collect();
                let sample = SampleRef { host: "h", epoch: NOW, values: &values };
                put_sample(&mut entries, sample, Some(IdempotencyKey::new("s", 4)), NOW);
                let reply = Reply::new(POST_WITHIN, None);
                between.push_samples(Samples { entries, address: None, reply }).unwrap();
                between.push_task(move |_| copy(&from, &to));
            });
            journal.checkpoint().map(drop)
        });
        checkpoint.unwrap();
        assert_eq!(counts(&store, "h"), vec![4; labels]);
        let store = open(&cut, NOW);
        assert_eq!(counts(&store, "h"), vec![4; labels]);
        assert!(record(&store, "h", labels, 4).unwrap().duplicate);
        store.checkpoint().unwrap();
        drop(store);
        assert_eq!(counts(&open(&cut, NOW), "h"), vec![4; labels]);
    }
}
