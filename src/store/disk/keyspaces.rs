//! fjall's database: its keyspaces, its journal files, and how to keep them small.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use fjall::config::PartitioningPolicy;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use nix::sys::statvfs::statvfs;

use super::checksums::check_tables;
use super::format::FORMAT;

/// fjall's cache of blocks. A restart reads each block once.
const CACHE_BYTES: u64 = 4 << 20;
/// Bytes of a keyspace in memory at which fjall writes them to a table.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Bytes of fjall's journals at which their content is moved to tables, so that a restart need not read it. fjall makes
/// a journal of 64 MiB ahead, and begins another only when that is full.
const JOURNALS_BYTES_MAX: u64 = 64 << 20;
/// fjall's threads. One alone may wait for room in a queue that only it empties; of two, one flushes while the other
/// compacts.
const WORKERS: usize = 2;
/// Time between two looks at whether a table is written, and longest time until it is.
const FLUSH_POLL: Duration = Duration::from_millis(5);
const FLUSH_WITHIN: Duration = Duration::from_secs(300);
/// The file beside fjall's directory with the number of the oldest of its journals that is to be read.
pub(super) const FIRST_JOURNAL: &str = "first-journal";

/// The database with the records of the hosts, and the two logs of batches.
#[derive(Clone)]
pub(super) struct Keyspaces {
    pub(super) db: Database,
    pub(super) state: Keyspace,
    pub(super) logs: [Keyspace; 2],
    /// What memory does not hold.
    pub(super) history: Keyspace,
}

impl Keyspaces {
    /// Opens the database in a store's directory, which is made if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        remove_replaced_journals(path).map_err(|error| format!("its journals cannot be listed: {error}"))?;
        check_tables(&path.join("fjall"))?;
        // fjall may panic on files that are damaged.
        let opened = catch_unwind(AssertUnwindSafe(|| -> fjall::Result<Self> {
            let db = Database::builder(path.join("fjall"))
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNALS_BYTES_MAX)
                .worker_threads(WORKERS)
                .open()?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            let keyspace = |name| db.keyspace(name, options);
            let (state, logs) = (keyspace("state")?, [keyspace("log-0")?, keyspace("log-1")?]);
            // Whole, the index and the filter of a table may be larger than the cache: each look for a chunk would read them.
            let in_parts = || PartitioningPolicy::all(true);
            let history = db.keyspace("history", || {
                options().index_block_partitioning_policy(in_parts()).filter_block_partitioning_policy(in_parts())
            })?;
            Ok(Self { db, state, logs, history })
        }));
        match opened {
            Ok(Ok(keyspaces)) => Ok(keyspaces),
            Ok(Err(fjall::Error::Locked)) => Err("it is held by another process".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it is damaged".to_owned()),
        }
    }

    /// Moves the content of fjall's journals to tables if they have grown long. fjall does so by itself only for a
    /// keyspace that is written much; and it keeps every journal since the newest table of each keyspace, and a log that
    /// was cleared has no table. So each keyspace gets something to write: the format again, batch 0, which is none, and a
    /// key that is too short for a chunk.
    pub(super) fn release_journals(&self) -> fjall::Result<()> {
        if self.db.journal_disk_space()? > JOURNALS_BYTES_MAX {
            self.state.insert("f", FORMAT.to_string())?;
            self.flush(&self.state)?;
            for log in &self.logs {
                log.insert(0_u64.to_be_bytes(), [])?;
                self.flush(log)?;
            }
            self.history.insert([0], [])?;
            self.flush(&self.history)?;
        }
        Ok(())
    }

    /// Moves the records of the hosts to a table. That frees the memory and the tables of logs that were cleared, too: fjall
    /// keeps them for readers of older versions until some keyspace is flushed that was written to since.
    pub(super) fn flush_state(&self) -> fjall::Result<()> {
        self.state.insert("f", FORMAT.to_string())?;
        self.flush(&self.state)
    }

    /// Whether some of a log is on its way to a table. Fails when that cannot be written.
    pub(super) fn is_flushing(&self, log: usize) -> fjall::Result<bool> {
        self.db.persist(PersistMode::Buffer)?;
        Ok(self.logs[log].sealed_memtable_count() > 0)
    }

    /// Clears a log of which nothing is on its way to a table. fjall would forget its tables and leave their files, so they
    /// are dropped before.
    pub(super) fn clear_log(&self, log: usize) -> fjall::Result<()> {
        let log = &self.logs[log];
        if log.tree.table_count() > 0 {
            log.tree.drop_range::<&[u8], _>(..)?;
        }
        log.clear()
    }

    /// Moves all records to tables.
    pub(super) fn flush_records(&self) -> fjall::Result<()> {
        self.flush(&self.state).and_then(|()| self.flush(&self.history))
    }

    /// Writes the tables of records and of what memory does not hold again, without what was removed. That needs room for
    /// both meanwhile. Returns whether there was.
    pub(super) fn compact(&self) -> fjall::Result<bool> {
        let about = statvfs(self.history.path()).map_err(io::Error::from)?;
        let free_bytes = about.blocks_available() as f64 * about.fragment_size() as f64;
        if free_bytes <= 2.0 * self.history.disk_space().max(self.state.disk_space()) as f64 {
            return Ok(false);
        }
        self.flush_records()?;
        for keyspace in [&self.history, &self.state] {
            if let Err(error) = keyspace.major_compact() {
                log::warn!("Store: the disk is not given back yet: {error}");
                return Ok(false);
            }
            // Removes the tables that were replaced.
            self.flush_state()?;
        }
        Ok(true)
    }

    /// Moves what a keyspace has in memory to a table, and waits until that is written. When it cannot be written, a
    /// thread of fjall poisons the database and ends, or panics. fjall's own wait does not notice, and would not end.
    fn flush(&self, keyspace: &Keyspace) -> fjall::Result<()> {
        if keyspace.rotate_memtable()? {
            let begun = Instant::now();
            while keyspace.sealed_memtable_count() > 0 {
                if begun.elapsed() > FLUSH_WITHIN {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                // Fails when the database is poisoned. Else it has nothing to do, because every write has done it.
                self.db.persist(PersistMode::Buffer)?;
                thread::sleep(FLUSH_POLL);
            }
        }
        Ok(())
    }

    /// The batches of a log, the oldest first.
    pub(super) fn batches(&self, log: usize) -> fjall::Iter {
        self.logs[log].range(1_u64.to_be_bytes()..)
    }
}

/// Begins a new journal file of a database that is closed, and returns its number. After a failed fsync the kernel may
/// have dropped pages of the old file and report none of that again: nothing may be appended behind them.
pub(super) fn begin_journal(path: &Path) -> io::Result<u64> {
    let fjall = path.join("fjall");
    fs::create_dir_all(&fjall)?;
    let number = journals(&fjall)?.into_iter().max().map_or(0, |newest| newest + 1);
    if number > 0 {
        File::create_new(journal_path(&fjall, number))?.sync_all()?;
        File::open(&fjall)?.sync_all()?;
    }
    Ok(number)
}

/// Removes a journal file that [`begin_journal`] has made, if it can be removed.
pub(super) fn remove_journal(path: &Path, number: u64) {
    if number > 0 {
        let _ = fs::remove_file(journal_path(&path.join("fjall"), number));
    }
}

/// Notes that all journals before one are replaced by tables and by that one, so that the next start does not read them.
pub(super) fn replace_journals_before(path: &Path, number: u64) -> io::Result<()> {
    let new = path.join("first-journal.new");
    fs::write(&new, format!("{number}\n"))?;
    File::open(&new)?.sync_all()?;
    fs::rename(new, path.join(FIRST_JOURNAL))?;
    File::open(path)?.sync_all()
}

fn remove_replaced_journals(path: &Path) -> io::Result<()> {
    let first = fs::read_to_string(path.join(FIRST_JOURNAL)).ok().and_then(|number| number.trim().parse().ok());
    let Some(first) = first.filter(|first: &u64| *first > 0) else { return Ok(()) };
    let fjall = path.join("fjall");
    let numbers = journals(&fjall)?;
    if numbers.iter().all(|number| *number < first) {
        // The note is of a database that was removed.
        return fs::remove_file(path.join(FIRST_JOURNAL));
    }
    numbers.into_iter().filter(|number| *number < first).try_for_each(|old| fs::remove_file(journal_path(&fjall, old)))
}

/// The numbers of fjall's journal files.
fn journals(fjall: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    match fs::read_dir(fjall) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok()));
            }
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(error),
    }
    Ok(numbers)
}

fn journal_path(fjall: &Path, number: u64) -> std::path::PathBuf {
    fjall.join(format!("{number}.jnl"))
}

#[cfg(test)]
mod tests {
    use super::super::journal::CLEARED_BYTES_MAX;
    use super::super::{DiskStore, Journal, POST_WITHIN};
    use super::*;
    use crate::sample::{IdempotencyKey, Sample};
    use crate::store::LabelPage;

    const NOW: u64 = 1_465_001_814;

    fn open(path: &Path) -> DiskStore {
        super::super::tests::open(path, NOW)
    }

    fn keyspaces(store: &DiskStore) -> Keyspaces {
        store.ask(POST_WITHIN, Journal::keyspaces).unwrap()
    }

    /// Bytes of batches that fjall has in memory: of the logs, and of those that were cleared.
    fn kept_bytes(keyspaces: &Keyspaces) -> u64 {
        keyspaces.logs.iter().map(|log| log.tree.get_version_history_lock().memtable_size_sum()).sum()
    }

    /// Bytes of the tables of the logs, also of those that no list has.
    fn log_table_bytes(keyspaces: &Keyspaces) -> u64 {
        let tables = keyspaces.logs.iter().flat_map(|log| fs::read_dir(log.path().join("tables")).unwrap());
        tables.filter_map(|table| Some(table.unwrap().metadata().ok()?.len())).sum()
    }

    #[test]
    fn a_log_that_was_cleared_leaves_no_tables() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let values: Vec<_> = (0..256).map(|place| (format!("{place:0128}").into(), 1.0)).collect();
        let sample = Sample { host: "h".into(), epoch: NOW, values };
        let keyspaces = keyspaces(&store);
        for _ in 0..2 {
            // fjall moves what has grown long to a table.
            while log_table_bytes(&keyspaces) < MEMTABLE_BYTES / 2 {
                let _ = store.record(sample.view(), None, NOW);
            }
            store.checkpoint().unwrap();
            await_below(MEMTABLE_BYTES / 16, "tables of logs", || log_table_bytes(&keyspaces));
        }
    }

    #[test]
    fn a_table_that_cannot_be_written_fails_the_checkpoint_until_the_store_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let sample = Sample { host: "h".into(), epoch: NOW, values: vec![("cpu".into(), 1.0)] };
        store.record(sample.view(), None, NOW).unwrap();
        let tables = keyspaces(&store).state.path().join("tables");
        let away = tables.with_extension("away");
        fs::rename(&tables, &away).unwrap();
        // The first checkpoint since it was opened writes a table.
        store.checkpoint().unwrap_err();
        fs::rename(&away, &tables).unwrap();
        while store.unavailable().is_some() {
            thread::sleep(FLUSH_POLL);
        }
        store.record(sample.view(), None, NOW).unwrap();
        store.checkpoint().unwrap();
        assert!(fs::read_dir(&tables).unwrap().next().is_some(), "a table was written");
    }

    /// Waits until a number of bytes is below a limit: fjall's threads free some after what we wait for.
    fn await_below(limit: u64, what: &str, bytes: impl Fn() -> u64) {
        let begun = Instant::now();
        while bytes() >= limit {
            assert!(begun.elapsed() < FLUSH_WITHIN, "{what}: {} bytes are kept, the limit is {limit}", bytes());
            thread::sleep(FLUSH_POLL);
        }
    }

    #[test]
    fn neither_memory_nor_journals_keep_what_was_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let values: Vec<_> = (0..256).map(|place| (format!("{place:0128}").into(), 1.0)).collect();
        let sample = Sample { host: "h".into(), epoch: NOW, values };
        let (samples_each, sample_bytes) = (100, 256 * (128 + 8));
        let mut logged_bytes = 0;
        while logged_bytes < 2 * JOURNALS_BYTES_MAX {
            for _ in 0..samples_each {
                logged_bytes += sample_bytes;
                let key = Some(IdempotencyKey::new("s", logged_bytes));
                // A disk that is busy with others may take longer than a post waits.
                while store.record(sample.view(), key, NOW).is_err() {
                    thread::sleep(FLUSH_POLL);
                }
            }
            store.checkpoint().unwrap();
            let keyspaces_now = keyspaces(&store);
            await_below(2 * CLEARED_BYTES_MAX, "memory", || kept_bytes(&keyspaces_now));
            // A full journal is removed when its last batch is in a log that is cleared.
            await_below(2 * JOURNALS_BYTES_MAX, "journals", || keyspaces_now.db.journal_disk_space().unwrap());
            drop(keyspaces_now);
            if logged_bytes % (10 * samples_each * sample_bytes) == 0 {
                // A restart reads the journals again, and its first checkpoint frees that.
                drop(store);
                store = open(dir.path());
                store.checkpoint().unwrap();
                let keyspaces_now = keyspaces(&store);
                await_below(CLEARED_BYTES_MAX, "memory after a restart", || kept_bytes(&keyspaces_now));
            }
        }
        let all = crate::summary::KeyFilter::containing("");
        let (_, series) = store.memory().series("h", &LabelPage::all(&all), NOW).pop().unwrap();
        assert_eq!(u64::from(series.running_samples() as u32), 2 * logged_bytes / sample_bytes, "in both windows");
    }
}
