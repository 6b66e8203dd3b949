//! Removing from the disk what has left its window, and what is of hosts that are not known any more.

use std::time::Duration;

use fjall::UserKey;
use smol_str::SmolStr;

use super::format::{Chunk, chunk_record, parse_chunk_record, parse_series_key};
use super::journal::Journal;
use super::keyspaces::Keyspaces;
use super::{DiskStore, MAINTENANCE_WITHIN, history};
use crate::store::StoreError;
use crate::store::memory::locked;
use crate::summary::{CHUNK_ENTRY_BYTES, Keep, is_chunk_expired};

/// Longest that the chunks are searched at a time for those that have expired.
const EXPIRE_WITHIN: Duration = Duration::from_secs(1);
/// Expired keys that are removed at once.
const EXPIRE_KEYS: usize = 1000;
/// How often the tables are written again without what was removed. What has left its window may be in a chunk for
/// [`history::OVERDUE_SEC`] before, and has left the disk within a day.
const COMPACT_SEC: u64 = 16 * 3600;

impl DiskStore {
    /// Removes from the disk what no answer lists any more.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub(in crate::store) fn expire(&self, now: u64) -> Result<(), StoreError> {
        let keyspaces = self.ask(MAINTENANCE_WITHIN, Journal::keyspaces)?;
        let keep = self.memory.keep();
        let is_expired =
            |chunk: &Chunk<'_>| is_chunk_expired(keep, chunk.window, chunk.interval_sec, chunk.number, now);
        let (mut expired, mut overdue, mut unknown) = (Vec::new(), Vec::new(), Vec::<SmolStr>::new());
        for guard in keyspaces.state.prefix("b\0") {
            let (key, record) = guard.into_inner().map_err(|error| self.fail(&error))?;
            match Chunk::parse(&key) {
                Some(chunk) if !is_expired(&chunk) => {
                    let first = chunk.numbers(&record).next().unwrap_or(u64::MAX);
                    if history::is_overdue(keep, chunk.interval_sec, first, now) {
                        overdue.push(key);
                    }
                }
                _ => expired.push(key),
            }
        }
        self.trim(&overdue, now, false)?;
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
        let mut series = Vec::new();
        for guard in keyspaces.state.prefix("s\0") {
            let key = guard.key().map_err(|error| self.fail(&error))?;
            let names = parse_series_key(&key).filter(|(host, label)| !self.memory.has_series(host, label));
            series.extend(names.map(|(host, label)| (SmolStr::from(host), SmolStr::from(label))));
        }
        self.expire_history(&keyspaces, now)?;
        drop(keyspaces);
        for series in series.chunks(EXPIRE_KEYS) {
            let series = series.to_vec();
            self.ask(MAINTENANCE_WITHIN, move |journal| journal.remove_series(&series))?;
        }
        for hosts in unknown.chunks(EXPIRE_KEYS) {
            let hosts = hosts.to_vec();
            self.ask(MAINTENANCE_WITHIN, move |journal| journal.remove_records(&hosts))?;
        }
        Ok(())
    }

    /// Has the journal's thread write chunks again without what has left its window.
    fn trim(&self, keys: &[UserKey], now: u64, is_history: bool) -> Result<(), StoreError> {
        keys.chunks(EXPIRE_KEYS).try_for_each(|keys| {
            let keys = keys.to_vec();
            self.ask(MAINTENANCE_WITHIN, move |journal| journal.trim(&keys, now, is_history))
        })
    }

    /// Removes chunks that have expired, for a while. The next call goes on.
    fn expire_history(&self, keyspaces: &Keyspaces, now: u64) -> Result<(), StoreError> {
        // Hosts that get a number after this are none of those that are not known.
        let next_id = self.ask(MAINTENANCE_WITHIN, |journal| Ok(journal.next_disk_id))?;
        let ids = self.memory.disk_ids();
        let is_known = |id: u64| id >= next_id || ids.binary_search(&id).is_ok();
        let mut progress = locked(&self.expiry);
        let Progress { next, compacted_at } = &mut *progress;
        let (keep, mut overdue) = (self.memory.keep(), Vec::new());
        let expired = history::expire(keyspaces, keep, now, is_known, next, EXPIRE_WITHIN, |key| overdue.push(key));
        expired.map_err(|error| self.fail(&error))?;
        self.trim(&overdue, now, true)?;
        // The tables have what was removed until they are written again.
        let is_due = next.is_empty() && now.abs_diff(*compacted_at) >= COMPACT_SEC;
        if is_due && keyspaces.compact().map_err(|error| self.fail(&error))? {
            *compacted_at = now;
        }
        Ok(())
    }
}

impl Journal {
    /// Writes chunks again without what has left its window at `now`. The thread that adds to them does it.
    fn trim(&mut self, keys: &[UserKey], now: u64, is_history: bool) -> Result<(), StoreError> {
        let (keyspaces, memory) = (self.keyspaces()?, self.memory());
        let keyspace = if is_history { &keyspaces.history } else { &keyspaces.state };
        let mut batch = keyspaces.db.batch();
        for key in keys {
            let value = keyspace.get(key).map_err(|error| self.fail(&format!("cannot be read: {error}"), true))?;
            let Some(value) = value else { continue };
            let trimmed = match is_history {
                true => history::trimmed(memory.keep(), key, &value, now),
                false => Ok(trimmed(memory.keep(), key, &value, now)),
            };
            match trimmed.map_err(|why| self.fail(&format!("cannot be read: {why}"), true))? {
                Some(trimmed) => batch.insert(keyspace, key.clone(), trimmed),
                None => batch.remove(keyspace, key.clone()),
            }
        }
        batch.commit().map_err(|error| self.fail(&format!("cannot be written: {error}"), true))
    }
}

/// A chunk of `state` without what has left its window at `now`; `None` where that is all of it.
fn trimmed(keep: &Keep, key: &[u8], record: &[u8], now: u64) -> Option<Vec<u8>> {
    let (chunk, (newest_batch, intervals)) = (Chunk::parse(key)?, parse_chunk_record(record));
    let oldest = keep.window(chunk.interval_sec)?.oldest(now);
    let kept = intervals.chunks(CHUNK_ENTRY_BYTES).zip(chunk.numbers(record)).filter(|(_, number)| *number >= oldest);
    let kept: Vec<u8> = kept.flat_map(|(entry, _)| entry).copied().collect();
    (!kept.is_empty()).then(|| chunk_record(newest_batch, &kept))
}

/// How far the search for expired chunks is.
#[derive(Default)]
pub(super) struct Progress {
    /// Where the next search begins.
    next: Vec<u8>,
    /// When the tables were last written again; 0 where that was before the start.
    compacted_at: u64,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::{KeepOptions, POST_WITHIN};
    use super::*;
    use crate::sample::Sample;

    const NOW: u64 = 1_465_001_814;
    const DAY: u64 = 86_400;

    fn open(path: &Path, keep: &str) -> DiskStore {
        let keep = KeepOptions { asked: keep.parse().ok(), ..KeepOptions::default() };
        DiskStore::open(path, false, 10_000.into(), &keep, NOW).unwrap()
    }

    fn maintain(store: &DiskStore, now: u64) {
        store.checkpoint().unwrap();
        store.memory.sweep(now);
        store.expire(now).unwrap();
    }

    fn keyspaces(store: &DiskStore) -> Keyspaces {
        store.ask(POST_WITHIN, Journal::keyspaces).unwrap()
    }

    #[test]
    fn little_of_much_leaves_the_disk_within_a_day_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), "1m:1h,1h:40d");
        // An hour each day: of a host that is down those of three days, of others the newest thirty.
        for (host, days) in [("down", 36..39), ("up-1", 0..30), ("up-2", 0..30), ("up-3", 0..30)] {
            for day in days {
                let sample = Sample { host: host.into(), epoch: NOW - day * DAY, values: vec![("cpu".into(), 1.0)] };
                assert_eq!(store.record(sample.view(), None, NOW).unwrap().stored, 1);
            }
        }
        let keyspaces = keyspaces(&store);
        maintain(&store, NOW);
        for hour in 1..=5 * 24 {
            maintain(&store, NOW + hour * 3600);
        }
        assert_eq!((history::firsts(&keyspaces).len(), keyspaces.history.approximate_len()), (90, 90));
        for keyspace in [&keyspaces.history, &keyspaces.state] {
            let files = fs::read_dir(keyspace.path().join("tables")).unwrap();
            assert_eq!(files.count(), keyspace.table_count(), "none that was replaced");
        }
    }

    #[test]
    fn the_disk_is_given_back_once_windows_have_passed() {
        given_back("1m:6h,1h:3d,1d:70d");
        given_back("1m:1h,1h:1d,1d:40d");
    }

    fn given_back(keep: &str) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), keep);
        let values: Vec<_> = (0..4).map(|label| (format!("label-{label}").into(), 1.0 / 3.0)).collect();
        let mut now = NOW;
        for _ in 0..80 {
            now += DAY;
            for host in 0..3 {
                let sample = Sample { host: format!("h{host}").into(), epoch: now, values: values.clone() };
                assert_eq!(store.record(sample.view(), None, now).unwrap().stored, values.len());
            }
            maintain(&store, now);
        }
        let keyspaces = keyspaces(&store);
        let of_state = |guard: fjall::Guard| {
            let (key, record) = guard.into_inner().unwrap();
            let chunk = Chunk::parse(&key).unwrap();
            (chunk.interval_sec, chunk.numbers(&record).next().unwrap())
        };
        let chunks =
            || keyspaces.state.prefix("b\0").map(of_state).chain(history::firsts(&keyspaces)).collect::<Vec<_>>();
        assert!(chunks().len() > 3 * values.len());
        for hour in 0..24 {
            for (interval_sec, first) in chunks() {
                let window = store.memory.keep().window(interval_sec).unwrap();
                let left = (first + 1) * interval_sec + window.span_sec;
                assert!(left + DAY > now, "{keep}: {} at hour {hour}: {} s", window.name, now - left);
            }
            now += 3600;
            maintain(&store, now);
        }
        keyspaces.flush_records().unwrap();
        // All hosts are down.
        now += 71 * DAY;
        (0..2).for_each(|_| maintain(&store, now));
        assert_eq!((chunks(), keyspaces.history.disk_space()), (Vec::new(), 0));
    }
}
