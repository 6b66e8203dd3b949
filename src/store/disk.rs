//! The store in a directory: the hosts in memory, and on disk what a restart needs, written through fjall.
//!
//! Memory holds everything; the disk is what a restart reads. Samples are written to a log before they are applied to
//! memory and answered, in batches whose numbers have no gaps. A checkpoint writes the hosts that have changed, each with
//! the number of the newest batch in it, and clears the log that these batches are in; meanwhile batches go to a second
//! log. What a restart finds in both is counted once, by these numbers.
//!
//! One thread writes ([`journal`]). Callers queue and wait for it, a post for a second at most, so that a disk that
//! stalls holds nobody else up. Readers only ever use memory.

mod checkpoint;
mod checksums;
mod format;
mod journal;
mod keyspaces;
mod lock;
mod queue;
mod restore;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::memory::MemoryStore;
use super::{BatchOutcome, Limits, RecordOutcome, StoreError};
use crate::sample::{IdempotencyKey, SampleRef};
use crate::summary::{SampleTime, is_chunk_expired};
use format::{Chunk, put_sample};
use journal::{Journal, read_note};
use keyspaces::Keyspaces;
use lock::DirectoryLock;
use queue::{Queue, Reply, Samples};
pub(super) use restore::restore_record;
use restore::{Restored, restore, write_format};

/// Longest that a post waits for the disk.
const POST_WITHIN: Duration = Duration::from_secs(1);
/// Longest that the maintenance of the store waits for the disk, and the end of the process.
const MAINTENANCE_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Expired keys that are removed at once.
const EXPIRE_KEYS: usize = 1000;

/// A store in a directory.
pub(super) struct DiskStore {
    memory: Arc<MemoryStore>,
    queue: Arc<Queue<Journal>>,
    description: String,
    /// `None` when the thread has ended.
    thread: Option<JoinHandle<()>>,
}

impl DiskStore {
    /// Opens the store in a directory with all that it holds, at `now`. The directory is created if it does not exist.
    ///
    /// # Errors
    /// When it is held by another process, of a newer format, damaged, or cannot be read.
    pub(super) fn open(path: &Path, fsync_always: bool, limits: Limits, now: u64) -> Result<Self, String> {
        let started = Instant::now();
        let name = path.display();
        let failed = |why: String| format!("store {name}: {why}");
        fs::create_dir_all(path).map_err(|error| failed(format!("cannot be made: {error}")))?;
        let lock = DirectoryLock::acquire(path).map_err(failed)?;
        let keyspaces = Keyspaces::open(path).map_err(failed)?;
        let restored = catch_unwind(AssertUnwindSafe(|| restore(&keyspaces, limits, now)));
        let restored = restored.unwrap_or_else(|_| Err("it is damaged".to_owned())).map_err(failed)?;
        write_format(&keyspaces).map_err(|error| failed(format!("cannot be written: {error}")))?;
        let description = format!(
            "Store is {name}: {} hosts and {} series were there, up to batch {}, read in {} ms",
            restored.memory.hosts().len(),
            restored.memory.series_count(),
            restored.newest,
            started.elapsed().as_millis()
        );
        let is_damaged = report_missing(path, &restored);
        let queue = Queue::new();
        let journal = Journal::new(path, fsync_always, lock, Some(keyspaces), restored, queue.clone());
        let memory = journal.memory();
        let thread = thread::Builder::new().name("journal".into()).spawn(|| journal.run());
        let thread = Some(thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?);
        let store = Self { memory, queue, description, thread };
        if is_damaged {
            // What is missing is reported once: from here on the numbers have no gap again.
            store.checkpoint().map_err(|error| error.to_string())?;
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
        let mut entries = Vec::new();
        put_sample(&mut entries, sample, key, now);
        let BatchOutcome { stored, mut others } = self.write(entries)?;
        others.pop().map_or(Ok(RecordOutcome { stored, ..RecordOutcome::default() }), |(_, outcome)| outcome)
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
        self.write(entries).unwrap_or_else(|error| {
            // What can be said of them without the disk is said.
            let outcome = |place| match SampleTime::new(sample(place).epoch, now).is_expired() {
                true => Ok(RecordOutcome { expired: sample(place).values.len(), ..RecordOutcome::default() }),
                false => Err(error.clone()),
            };
            BatchOutcome { stored: 0, others: (0..count).map(|place| (place, outcome(place))).collect() }
        })
    }

    fn write(&self, entries: Vec<u8>) -> Result<BatchOutcome, StoreError> {
        let reply = Reply::new();
        self.queue.push_samples(Samples { entries, reply: reply.clone() })?;
        reply.wait(POST_WITHIN)
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
        let (keyspaces, frees) = self.ask(MAINTENANCE_WITHIN, Journal::checkpoint)?;
        // Here, because it waits for tables to be written.
        let freed = keyspaces.release_journals().and_then(|()| if frees { keyspaces.flush_state() } else { Ok(()) });
        freed.map_err(|error| self.fail(&error))
    }

    /// Removes from the disk what no answer lists any more.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub(super) fn expire(&self, now: u64) -> Result<(), StoreError> {
        let keyspaces = self.ask(MAINTENANCE_WITHIN, Journal::keyspaces)?;
        let is_expired = |chunk: Chunk<'_>| is_chunk_expired(chunk.window, chunk.interval_sec, chunk.number, now);
        let (mut expired, mut unknown) = (Vec::new(), Vec::<SmolStr>::new());
        for guard in keyspaces.state.prefix("b\0") {
            let key = guard.key().map_err(|error| self.fail(&error))?;
            if Chunk::parse(&key).is_none_or(is_expired) {
                expired.push(key);
            }
        }
        for keys in expired.chunks(EXPIRE_KEYS) {
            let mut batch = keyspaces.db.batch();
            keys.iter().for_each(|key| batch.remove(&keyspaces.state, key.clone()));
            batch.commit().map_err(|error| self.fail(&error))?;
        }
        for guard in keyspaces.state.prefix("h\0") {
            let key = guard.key().map_err(|error| self.fail(&error))?;
            let host = std::str::from_utf8(&key[2..]).unwrap_or_default();
            if !self.memory.has_host(host) {
                unknown.push(host.into());
            }
        }
        drop(keyspaces);
        for hosts in unknown.chunks(EXPIRE_KEYS) {
            let hosts = hosts.to_vec();
            self.ask(MAINTENANCE_WITHIN, move |journal| journal.remove_records(&hosts))?;
        }
        Ok(())
    }

    /// Has the journal's thread do something, and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        within: Duration,
        task: impl FnOnce(&mut Journal) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reply = Reply::new();
        let answered = reply.clone();
        self.queue.push_task(move |journal| {
            if answered.begin() {
                answered.finish(task(journal));
            }
        });
        reply.wait(within)
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
        // A disk that stalls is not waited for. What it was given may be lost, which nobody was told is stored.
        if self.unavailable().is_none()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
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
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::sample::Sample;
    use crate::store::LabelPage;
    use crate::summary::{KeyFilter, Summaries};
    use serde_json::{Value, json};

    const NOW: u64 = 1_465_001_814;

    fn open(path: &Path, now: u64) -> DiskStore {
        DiskStore::open(path, false, 1000.into(), now).unwrap()
    }

    fn put(
        store: &DiskStore,
        host: &str,
        epoch: u64,
        values: &[(&'static str, f64)],
        seq: u64,
        now: u64,
    ) -> RecordOutcome {
        let values = values.iter().map(|(label, value)| (Cow::Borrowed(*label), *value)).collect();
        store
            .record(Sample { host: host.into(), epoch, values }.view(), Some(IdempotencyKey { source: "s", seq }), now)
            .unwrap()
    }

    fn answer(store: &DiskStore, host: &str, now: u64) -> Value {
        let filter = KeyFilter::containing("");
        let series = store.memory().series(host, &LabelPage::all(&filter));
        serde_json::to_value(Summaries { series: &series, filter: &filter, now }).unwrap()
    }

    fn copy(from: &Path, to: &Path) {
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

    /// `tests/store-format-1` was written by a version of format 1: three samples of one host and one of another, a
    /// checkpoint, two samples more, and a host that came and was removed.
    #[test]
    fn the_first_format_opens_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store-format-1");
        copy(&fixture, dir.path());
        // A version control system does not keep the folders without a table.
        (0..4).for_each(|keyspace| {
            fs::create_dir_all(dir.path().join(format!("fjall/keyspaces/{keyspace}/tables"))).unwrap()
        });
        let now: u64 = fs::read_to_string(fixture.join("now")).unwrap().trim().parse().unwrap();
        let store = open(dir.path(), now);
        assert_eq!(store.memory().hosts(), ["b c", "jarvis"]);
        let jarvis = answer(&store, "jarvis", now);
        let hour = &jarvis["summary:by-hour:cpu"]["averages"];
        let counted: u64 =
            hour.as_array().unwrap().iter().map(|average| average["num-samples"].as_u64().unwrap()).sum();
        assert_eq!((counted, &hour[0]["min"], &hour[0]["max"]), (5, &json!(4.5), &json!(8.25)));
        let minutes = jarvis["summary:by-minute:cpu"]["averages"].as_array().unwrap();
        assert_eq!(
            minutes.iter().map(|average| &average["avg"]).collect::<Vec<_>>(),
            [&json!(4.5), &json!(5.5), &json!(6.88), &json!(8.25)]
        );
        assert_eq!(jarvis["summary:by-hour:load"]["averages"][0]["avg"], 0.12);
        assert_eq!(answer(&store, "b c", now)["summary:by-hour:disk /var"]["averages"][0]["avg"], -1e300);
        let again = IdempotencyKey { source: "abc", seq: 5 };
        let sample = Sample { host: "jarvis".into(), epoch: now, values: vec![("cpu".into(), 1.0)] };
        assert!(store.record(sample.view(), Some(again), now).unwrap().duplicate);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), NOW));
        Keyspaces::open(dir.path()).unwrap().state.insert("f", "3").unwrap();
        let refused = DiskStore::open(dir.path(), false, 1000.into(), NOW).err().unwrap();
        assert!(refused.contains("format 3") && refused.contains("knows 2"), "{refused}");
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
        let later = NOW + 3 * 86_400;
        assert_eq!(put(&store, "a", later, &[("cpu", 2.0)], 2, later).stored, 1);
        store.checkpoint().unwrap();
        store.memory().sweep(later);
        store.expire(later).unwrap();
        let keyspaces = store.ask(POST_WITHIN, Journal::keyspaces).unwrap();
        let keys: Vec<Vec<u8>> = keyspaces.state.iter().map(|guard| guard.key().unwrap().to_vec()).collect();
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"b\0")).count(), 2, "a chunk of each window");
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"h\0")).collect::<Vec<_>>(), [b"h\0a"]);
    }
}
