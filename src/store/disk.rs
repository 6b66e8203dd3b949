//! The durable side of the store, on fjall: a log of samples, and checkpoints of the series they went into.
//!
//! Memory holds everything; the disk is what a restart reads. A sample is appended to the log under the lock of its
//! host's shard, before it is applied, so that disk and memory see one order. Each batch of the log has a number; the
//! numbers have no gaps. A checkpoint writes the hosts that have changed, each with the number of the newest batch in
//! it, and then clears the log they came from; meanwhile samples go to a second log. What a restart finds in both is
//! counted once, by these numbers.

mod checksums;
mod format;
mod keyspaces;
mod restore;

use std::borrow::Cow;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fjall::PersistMode;
use smol_str::SmolStr;

use super::StoreError;
use super::host::Host;
use super::memory::{MemoryStore, Shard, locked};
use crate::sample::IdempotencyKey;
use crate::summary::is_chunk_expired;
use format::{Chunk, FORGET, SAMPLE, host_key, host_record, put_changes, put_count, put_text};
use keyspaces::Keyspaces;
use restore::restore;
pub(super) use restore::restore_record;

/// Bytes of samples after which fjall is made to let go of logs that were cleared: with what it keeps beside each sample,
/// twice as much memory.
const CLEARED_BYTES_MAX: u64 = 8 << 20;
/// Hosts of a checkpoint that are written while their shard is locked: about a millisecond.
const CHECKPOINT_HOSTS: usize = 64;
/// Expired keys that are removed at once.
const EXPIRE_KEYS: usize = 1000;
/// Longest time between two rounds of [`Disk::sync`].
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A store's directory.
pub(super) struct Disk {
    path: PathBuf,
    description: String,
    /// Whether batches were missing when it was opened.
    pub(super) is_damaged: bool,
    fsync_always: bool,
    journal: Mutex<Journal>,
    durable: Mutex<Durable>,
    durable_changed: Condvar,
}

struct Journal {
    /// `None` while it is opened anew.
    tree: Option<Keyspaces>,
    /// Why nothing can be written, until it is opened anew.
    failed: Option<String>,
    /// Number of the next batch.
    next: u64,
    /// Which log takes samples.
    active: usize,
    /// Whether the other log is known to be empty.
    spare_is_empty: bool,
    /// Bytes of the samples that are in logs fjall has not let go of.
    logged_bytes: u64,
}

#[derive(Default)]
struct Durable {
    /// Number of the newest batch the device has.
    number: u64,
    /// Batches that somebody waits for, if above `number`.
    wanted: u64,
}

impl Disk {
    /// Opens a directory and fills `store` with what it holds.
    pub(super) fn open(path: &Path, fsync_always: bool, store: &mut MemoryStore, now: u64) -> Result<Self, String> {
        let started = Instant::now();
        let failed = |why: String| format!("store {}: {why}", path.display());
        fs::create_dir_all(path).map_err(|error| failed(format!("cannot be made: {error}")))?;
        let tree = Keyspaces::open(path).map_err(failed)?;
        let restored = catch_unwind(AssertUnwindSafe(|| restore(&tree, store, now)));
        let restored = restored.unwrap_or_else(|_| Err("it is damaged".to_owned())).map_err(failed)?;
        let noted = read_note(path);
        let name = path.display();
        let description = format!(
            "Store is {name}: {} hosts and {} series were there, up to batch {}, read in {} ms",
            store.hosts().len(),
            store.series_count(),
            restored.newest,
            started.elapsed().as_millis()
        );
        if noted > restored.newest {
            let lost = noted - restored.newest;
            log::error!("Store {name} is damaged: the newest {lost} batches of samples that were durable are gone");
        }
        if restored.missing > 0 {
            log::error!(
                "Store {name} is damaged: {} batches of samples are missing, the averages lack them",
                restored.missing
            );
        }
        let journal = Journal {
            tree: Some(tree),
            failed: None,
            next: restored.newest.max(noted) + 1,
            active: restored.active,
            spare_is_empty: restored.spare_is_empty,
            // Reading fjall's journals has filled and cleared the logs anew.
            logged_bytes: CLEARED_BYTES_MAX,
        };
        Ok(Self {
            path: path.to_owned(),
            description,
            is_damaged: noted > restored.newest || restored.missing > 0,
            fsync_always,
            journal: Mutex::new(journal),
            durable: Mutex::default(),
            durable_changed: Condvar::new(),
        })
    }

    /// What was found when it was opened.
    pub(super) fn description(&self) -> String {
        self.description.clone()
    }

    pub(super) fn unavailable(&self) -> Option<StoreError> {
        self.journal().failed.clone().map(StoreError::new)
    }

    /// Appends a sample to the log.
    pub(super) fn append_sample(
        &self,
        host: &str,
        epoch: u64,
        values: &[(Cow<'_, str>, f64)],
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut entry = Vec::with_capacity(64 + host.len() + 24 * values.len());
        entry.push(SAMPLE);
        entry.extend_from_slice(&now.to_le_bytes());
        entry.extend_from_slice(&epoch.to_le_bytes());
        put_text(&mut entry, host);
        put_text(&mut entry, key.map_or("", |key| key.source));
        entry.extend_from_slice(&key.map_or(0, |key| key.seq).to_le_bytes());
        put_count(&mut entry, values.len());
        for (label, value) in values {
            put_text(&mut entry, label);
            entry.extend_from_slice(&value.to_le_bytes());
        }
        let entry_bytes = entry.len() as u64;
        self.write(entry_bytes, |tree, active, number| tree.logs[active].insert(number.to_be_bytes(), entry))
    }

    /// Removes all that is kept of a host.
    pub(super) fn forget(&self, host: &str) -> Result<(), StoreError> {
        self.write(0, |tree, active, number| {
            let mut batch = tree.db.batch();
            batch.remove(&tree.state, host_key(host));
            for guard in tree.state.prefix([b"b\0", host.as_bytes(), b"\0"].concat()) {
                batch.remove(&tree.state, guard.key()?);
            }
            let mut entry = vec![FORGET];
            put_text(&mut entry, host);
            batch.insert(&tree.logs[active], number.to_be_bytes(), entry);
            batch.commit()
        })
    }

    /// Writes a batch under its number. After a failure nothing is written until the directory was opened anew.
    fn write(
        &self,
        sample_bytes: u64,
        write: impl FnOnce(&Keyspaces, usize, u64) -> fjall::Result<()>,
    ) -> Result<(), StoreError> {
        let mut journal = self.journal();
        let Journal { tree, failed, next, active, logged_bytes, .. } = &mut *journal;
        let Some(tree) = tree.as_ref().filter(|_| failed.is_none()) else {
            return Err(StoreError::new(failed.clone().unwrap_or_default()));
        };
        match write(tree, *active, *next) {
            Ok(()) => {
                *next += 1;
                *logged_bytes += sample_bytes;
                Ok(())
            }
            Err(error) => {
                let why = format!("cannot be written: {error}");
                log::error!("Store {} {why}; it will be opened anew", self.path.display());
                *failed = Some(why.clone());
                Err(StoreError::new(why))
            }
        }
    }

    /// Where every batch is to be durable before it is acknowledged, waits until those written so far are.
    pub(super) fn await_durable(&self) -> Result<(), StoreError> {
        if !self.fsync_always {
            return Ok(());
        }
        let number = self.journal().next - 1;
        let mut durable = locked(&self.durable);
        durable.wanted = durable.wanted.max(number);
        self.durable_changed.notify_all();
        while durable.number < number {
            // A round that failed tells so by the journal.
            let waited = self.durable_changed.wait_timeout(durable, SYNC_EVERY);
            durable = waited.unwrap_or_else(PoisonError::into_inner).0;
            if durable.number < number {
                drop(durable);
                if let Some(unavailable) = self.unavailable() {
                    return Err(unavailable);
                }
                durable = locked(&self.durable);
            }
        }
        Ok(())
    }

    /// A round of making durable what was written: begins when somebody waits for it, or a second after the last.
    /// Says whether the directory had to be opened anew, and everything is to be written again.
    pub(super) fn sync(&self) -> bool {
        let durable = locked(&self.durable);
        let idle = |durable: &mut Durable| durable.wanted <= durable.number;
        drop(self.durable_changed.wait_timeout_while(durable, SYNC_EVERY, idle));
        self.sync_now();
        if self.unavailable().is_none() {
            return false;
        }
        std::thread::sleep(SYNC_EVERY);
        self.reopen()
    }

    /// Makes durable what was written.
    pub(super) fn sync_now(&self) {
        let (db, number) = {
            let journal = self.journal();
            let Some(tree) = journal.tree.as_ref().filter(|_| journal.failed.is_none()) else { return };
            (tree.db.clone(), journal.next - 1)
        };
        if locked(&self.durable).number < number {
            match db.persist(PersistMode::SyncAll) {
                Ok(()) => {
                    if let Err(error) = write_note(&self.path, number) {
                        log::warn!("Store {}: cannot note what is durable: {error}", self.path.display());
                    }
                    locked(&self.durable).number = number;
                }
                Err(error) => self.fail(&error),
            }
            self.durable_changed.notify_all();
        }
    }

    fn fail(&self, error: &fjall::Error) {
        let why = format!("cannot be written: {error}");
        log::error!("Store {} {why}; it will be opened anew", self.path.display());
        self.journal().failed = Some(why);
    }

    /// Opens the directory anew after a failure, and says whether it did.
    fn reopen(&self) -> bool {
        let old = {
            let mut journal = self.journal();
            if journal.failed.is_none() {
                return false;
            }
            journal.tree.take()
        };
        // Ends fjall's threads and lets go of its lock, which takes its time.
        drop(old);
        match Keyspaces::open(&self.path) {
            Ok(tree) => {
                let mut journal = self.journal();
                (journal.tree, journal.failed, journal.spare_is_empty) = (Some(tree), None, false);
                journal.logged_bytes = CLEARED_BYTES_MAX;
                log::info!("Store {} was opened anew", self.path.display());
                true
            }
            Err(why) => {
                self.journal().failed = Some(format!("cannot be opened: {why}"));
                false
            }
        }
    }

    /// Begins a checkpoint: samples go to the other log from now on, if it is empty. Gives the number that every batch
    /// below is in a host that has changed.
    fn begin_checkpoint(&self) -> Result<u64, StoreError> {
        let mut journal = self.journal();
        if let Some(why) = &journal.failed {
            return Err(StoreError::new(why.clone()));
        }
        if journal.spare_is_empty {
            journal.active ^= 1;
            journal.spare_is_empty = false;
        }
        Ok(journal.next)
    }

    /// Writes what has changed of some hosts of a shard.
    fn write_hosts(&self, shard: &mut Shard, names: &[SmolStr]) -> Result<(), StoreError> {
        let journal = self.journal();
        let Some(tree) = journal.tree.as_ref().filter(|_| journal.failed.is_none()) else {
            return Err(StoreError::new(journal.failed.clone().unwrap_or_default()));
        };
        let mut batch = tree.db.batch();
        for name in names {
            let Some(host) = shard.get_mut(name) else { continue };
            batch.insert(&tree.state, host_key(name), host_record(host, journal.next - 1));
            for (label, series) in host.series.iter_mut() {
                put_changes(&mut batch, &tree.state, name, label, series);
            }
        }
        let committed = batch.commit();
        drop(journal);
        for name in names {
            let Some(host) = shard.get_mut(name) else { continue };
            match &committed {
                Ok(()) => host.changed = false,
                Err(_) => host.mark_all_changed(),
            }
        }
        committed.map_err(|error| {
            self.fail(&error);
            StoreError::new(error.to_string())
        })
    }

    /// Ends a checkpoint: once what was written is on the device, the log it came from is cleared.
    fn end_checkpoint(&self, mark: u64) -> Result<(), StoreError> {
        let tree = {
            let journal = self.journal();
            let Some(tree) = journal.tree.as_ref().filter(|_| journal.failed.is_none()) else {
                return Err(StoreError::new(journal.failed.clone().unwrap_or_default()));
            };
            tree.clone()
        };
        let (spare, logged_bytes) = {
            let journal = self.journal();
            (journal.active ^ 1, journal.logged_bytes)
        };
        let lets_go = logged_bytes >= CLEARED_BYTES_MAX;
        let ended = tree
            .state
            .insert("c", (mark - 1).to_le_bytes())
            .and_then(|()| tree.db.persist(PersistMode::SyncAll))
            .and_then(|()| tree.logs[spare].clear())
            .and_then(|()| tree.let_go_of_journals())
            .and_then(|()| if lets_go { tree.let_go_of_cleared() } else { Ok(()) });
        ended.map_err(|error| {
            self.fail(&error);
            StoreError::new(error.to_string())
        })?;
        let mut journal = self.journal();
        journal.spare_is_empty = true;
        if lets_go {
            // What came meanwhile is in the log that is next to be cleared.
            journal.logged_bytes = journal.logged_bytes.saturating_sub(logged_bytes);
        }
        Ok(())
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        locked(&self.journal)
    }
}

impl MemoryStore {
    /// Makes durable what was recorded, in rounds: each call waits for its turn and is one.
    pub(super) fn sync(&self) {
        let Some(disk) = &self.disk else { return };
        if disk.sync() {
            for shard in &self.shards {
                locked(shard).values_mut().for_each(Host::mark_all_changed);
            }
        }
    }

    /// Makes durable what was recorded until now.
    ///
    /// # Errors
    /// When it could not be.
    pub(super) fn sync_now(&self) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.sync_now();
        disk.unavailable().map_or(Ok(()), Err)
    }

    /// Writes the hosts that have changed, so that a restart need not read their samples again.
    ///
    /// # Errors
    /// When the disk cannot be written; the samples stay in the log then.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let mark = disk.begin_checkpoint()?;
        for shard in &self.shards {
            let changed: Vec<SmolStr> =
                locked(shard).iter().filter(|(_, host)| host.changed).map(|(name, _)| name.clone()).collect();
            for names in changed.chunks(CHECKPOINT_HOSTS) {
                disk.write_hosts(&mut locked(shard), names)?;
            }
        }
        disk.end_checkpoint(mark)
    }

    /// Removes from the disk what no answer lists any more.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub(super) fn expire_disk(&self, now: u64) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let Some(tree) = disk.journal().tree.clone() else { return Ok(()) };
        let failed = |error: fjall::Error| {
            disk.fail(&error);
            StoreError::new(error.to_string())
        };
        let mut expired = Vec::new();
        for guard in tree.state.prefix("b\0") {
            let key = guard.key().map_err(failed)?;
            if Chunk::parse(&key)
                .is_none_or(|chunk| is_chunk_expired(chunk.window, chunk.interval_sec, chunk.number, now))
            {
                expired.push(key);
            }
        }
        for keys in expired.chunks(EXPIRE_KEYS) {
            let mut batch = tree.db.batch();
            keys.iter().for_each(|key| batch.remove(&tree.state, key.clone()));
            batch.commit().map_err(failed)?;
        }
        for guard in tree.state.prefix("h\0") {
            let key = guard.key().map_err(failed)?;
            let name = std::str::from_utf8(&key[2..]).unwrap_or_default();
            // Locked, so that the host does not come back in between.
            let shard = self.shard(name);
            if !shard.contains_key(name) {
                tree.state.remove(key.clone()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Notes beside the store which batch is the newest that the device has.
fn write_note(path: &Path, number: u64) -> std::io::Result<()> {
    fs::write(path.join("durable.new"), format!("{number}\n"))?;
    fs::rename(path.join("durable.new"), path.join("durable"))
}

fn read_note(path: &Path) -> u64 {
    fs::read_to_string(path.join("durable")).ok().and_then(|note| note.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use crate::store::RecordOutcome;
    use crate::summary::{KeyFilter, Summaries};
    use serde_json::{Value, json};

    const NOW: u64 = 1_465_001_814;

    fn open(path: &Path, now: u64) -> MemoryStore {
        MemoryStore::open(path, false, 1000, now).unwrap()
    }

    fn put(
        store: &MemoryStore,
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

    fn answer(store: &MemoryStore, host: &str, now: u64) -> Value {
        let wanted = KeyFilter::containing("");
        serde_json::to_value(Summaries {
            series: &store.series(host, &crate::store::LabelPage::all(&wanted)),
            filter: &wanted,
            now,
        })
        .unwrap()
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

    /// `tests/store-format-1` was written by the first version of the format: three samples of one host and one of
    /// another, a checkpoint, two samples more, and a host that came and was forgotten.
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
        assert_eq!(store.hosts(), ["b c", "jarvis"]);
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
        Keyspaces::open(dir.path()).unwrap().state.insert("f", "2").unwrap();
        let refused = MemoryStore::open(dir.path(), false, 1000, NOW).err().unwrap();
        assert!(refused.contains("format 2") && refused.contains("knows 1"), "{refused}");
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
        store.sweep(later);
        store.expire_disk(later).unwrap();
        let tree = store.disk.as_ref().unwrap().journal().tree.clone().unwrap();
        let keys: Vec<Vec<u8>> = tree.state.iter().map(|guard| guard.key().unwrap().to_vec()).collect();
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"b\0")).count(), 2, "a chunk of each window");
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"h\0")).collect::<Vec<_>>(), [b"h\0a"]);
    }
}
