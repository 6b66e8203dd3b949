//! The keyspaces in fjall, and what it has to be told so that they cost no more than what is in them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::checksums::check_tables;
use super::format::FORMAT;

/// Memory of fjall: blocks read (a restart reads each once), and writes of a keyspace that are not in tables yet.
const CACHE_BYTES: u64 = 4 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Size of fjall's own journals at which what they hold is moved to tables, so that a restart need not read it. fjall
/// makes one of 64 MiB ahead, and begins another only when that is full.
const JOURNALS_BYTES_MAX: u64 = 64 << 20;
/// Threads of fjall. One alone may wait for room in a queue that it alone empties; of two, one looks on busily while the
/// other compacts.
const WORKERS: usize = 2;
/// Time between two looks at whether a table is written, and longest time until it is.
const FLUSH_POLL: Duration = Duration::from_millis(5);
const FLUSH_WITHIN: Duration = Duration::from_secs(300);

/// The state of the hosts, and the two logs of samples.
#[derive(Clone)]
pub(super) struct Keyspaces {
    pub(super) db: Database,
    pub(super) state: Keyspace,
    pub(super) logs: [Keyspace; 2],
}

impl Keyspaces {
    /// Opens it, after a look at what fjall believes.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        check_tables(&path.join("fjall"))?;
        // fjall may panic on files that are damaged.
        let opened = catch_unwind(AssertUnwindSafe(|| -> fjall::Result<Self> {
            let db = Database::builder(path.join("fjall"))
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNALS_BYTES_MAX)
                .worker_threads(WORKERS)
                .open()?;
            let keyspace =
                |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
            let (state, logs) = (keyspace("state")?, [keyspace("log-0")?, keyspace("log-1")?]);
            Ok(Self { db, state, logs })
        }));
        match opened {
            Ok(Ok(tree)) => Ok(tree),
            Ok(Err(fjall::Error::Locked)) => Err("it is held by another process".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it is damaged".to_owned()),
        }
    }

    /// Moves what fjall's journals hold to tables, where they have grown long. By itself it does so only for a keyspace
    /// that is written much; and it keeps every journal since the newest table of each keyspace, of which a log that
    /// was cleared has none. So each is given something to write: the format again, and batch 0, which is none.
    pub(super) fn let_go_of_journals(&self) -> fjall::Result<()> {
        if self.db.journal_disk_space()? > JOURNALS_BYTES_MAX {
            self.state.insert("f", FORMAT.to_string())?;
            self.flush(&self.state)?;
            for log in &self.logs {
                log.insert(0_u64.to_be_bytes(), [])?;
                self.flush(log)?;
            }
        }
        Ok(())
    }

    /// Frees the memory of logs that were cleared, which fjall keeps for readers of old until a keyspace next moves what
    /// it has in memory to a table; and ours may never have enough for that.
    pub(super) fn let_go_of_cleared(&self) -> fjall::Result<()> {
        self.flush(&self.state)
    }

    /// Moves what a keyspace has in memory to a table, and waits until that is written. When it cannot be, fjall's
    /// worker poisons the database and ends, or panics; fjall's own wait does not look at that, and would last for ever.
    fn flush(&self, keyspace: &Keyspace) -> fjall::Result<()> {
        if keyspace.rotate_memtable()? {
            let begun = Instant::now();
            while keyspace.sealed_memtable_count() > 0 {
                if begun.elapsed() > FLUSH_WITHIN {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                // Fails when the database is poisoned, and has nothing to do otherwise: every write has done it.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use fjall::AbstractTree;

    use super::super::CLEARED_BYTES_MAX;
    use super::*;
    use crate::sample::Sample;
    use crate::store::memory::MemoryStore;

    const NOW: u64 = 1_465_001_814;

    /// Bytes of samples that fjall has in memory: of the logs, and of those that were cleared.
    fn kept_bytes(tree: &Keyspaces) -> u64 {
        tree.logs.iter().map(|log| log.tree.get_version_history_lock().memtable_size_sum()).sum()
    }

    #[test]
    fn a_table_that_cannot_be_written_fails_the_checkpoint_until_the_store_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::open(dir.path(), false, 1000, NOW).unwrap();
        let disk = store.disk.as_ref().unwrap();
        let record = || {
            let sample = Sample { host: "h".into(), epoch: NOW, values: vec![("cpu".into(), 1.0)] };
            store.record(sample.view(), None, NOW).unwrap();
        };
        record();
        let tables = disk.journal().tree.as_ref().unwrap().state.path().join("tables");
        let away = tables.with_extension("away");
        fs::rename(&tables, &away).unwrap();
        // The first checkpoint since it was opened writes a table.
        store.checkpoint().unwrap_err();
        fs::rename(&away, &tables).unwrap();
        assert!(disk.reopen(), "{:?}", disk.unavailable());
        record();
        store.checkpoint().unwrap();
        assert!(fs::read_dir(&tables).unwrap().next().is_some(), "a table was written");
    }

    #[test]
    fn neither_memory_nor_journals_keep_what_was_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = MemoryStore::open(dir.path(), false, 1000, NOW).unwrap();
        let values: Vec<_> = (0..256).map(|place| (format!("{place:0128}").into(), 1.0)).collect();
        let (samples_each, sample_bytes) = (100, 256 * (128 + 8));
        let mut logged_bytes = 0;
        while logged_bytes < 2 * JOURNALS_BYTES_MAX {
            for _ in 0..samples_each {
                let sample = Sample { host: "h".into(), epoch: NOW, values: values.clone() };
                store.record(sample.view(), None, NOW).unwrap();
                logged_bytes += sample_bytes;
            }
            store.checkpoint().unwrap();
            let tree = store.disk.as_ref().unwrap().journal().tree.clone().unwrap();
            let kept = kept_bytes(&tree);
            assert!(kept < 2 * CLEARED_BYTES_MAX, "{kept} bytes of {logged_bytes} are kept in memory");
            let journals = tree.db.journal_disk_space().unwrap();
            // One that is full is let go of when its last sample is in the log that is cleared.
            assert!(journals < 2 * JOURNALS_BYTES_MAX, "{journals} bytes of {logged_bytes} are kept in journals");
            drop(tree);
            if logged_bytes % (10 * samples_each * sample_bytes) == 0 {
                // A restart reads the journals anew, and lets go of it by its first checkpoint.
                drop(store);
                store = MemoryStore::open(dir.path(), false, 1000, NOW).unwrap();
                store.checkpoint().unwrap();
                let tree = store.disk.as_ref().unwrap().journal().tree.clone().unwrap();
                assert!(kept_bytes(&tree) < CLEARED_BYTES_MAX, "after a restart");
            }
        }
        let (_, series) =
            store.series("h", &crate::store::LabelPage::all(&crate::summary::KeyFilter::containing(""))).pop().unwrap();
        assert_eq!(u64::from(series.running_samples() as u32), 2 * logged_bytes / sample_bytes, "in both windows");
    }
}
