//! Removing from the disk what has left its window, and what is of hosts that are not known any more.

use std::time::Duration;

use smol_str::SmolStr;

use super::format::{Chunk, parse_series_key};
use super::journal::Journal;
use super::keyspaces::Keyspaces;
use super::{DiskStore, MAINTENANCE_WITHIN, history};
use crate::store::StoreError;
use crate::store::memory::locked;
use crate::summary::is_chunk_expired;

/// Longest that the chunks are searched at a time for those that have expired.
const EXPIRE_WITHIN: Duration = Duration::from_secs(1);
/// Expired keys that are removed at once.
const EXPIRE_KEYS: usize = 1000;
/// The tables are written again when one in so many of their chunks is removed: a year's about once a day.
const GARBAGE_MOST: usize = 4;

impl DiskStore {
    /// Removes from the disk what no answer lists any more.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub(in crate::store) fn expire(&self, now: u64) -> Result<(), StoreError> {
        let keyspaces = self.ask(MAINTENANCE_WITHIN, Journal::keyspaces)?;
        let is_expired = |chunk: Chunk<'_>| {
            is_chunk_expired(self.memory.keep(), chunk.window, chunk.interval_sec, chunk.number, now)
        };
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

    /// Removes chunks that have expired, for a while. The next call goes on.
    fn expire_history(&self, keyspaces: &Keyspaces, now: u64) -> Result<(), StoreError> {
        // Hosts that get a number after this are none of those that are not known.
        let next_id = self.ask(MAINTENANCE_WITHIN, |journal| Ok(journal.next_disk_id))?;
        let ids = self.memory.disk_ids();
        let is_known = |id: u64| id >= next_id || ids.binary_search(&id).is_ok();
        let mut progress = locked(&self.expiry);
        let Progress { next, removed } = &mut *progress;
        let expired = history::expire(keyspaces, self.memory.keep(), now, is_known, next, EXPIRE_WITHIN);
        *removed += expired.map_err(|error| self.fail(&error))?;
        // The tables have what was removed until they are written again.
        if *removed * GARBAGE_MOST >= keyspaces.history.approximate_len().max(1) {
            keyspaces.compact_history().map_err(|error| self.fail(&error))?;
            *removed = 0;
        }
        Ok(())
    }
}

/// How far the search for expired chunks is.
#[derive(Default)]
pub(super) struct Progress {
    /// Where the next search begins.
    next: Vec<u8>,
    /// How many chunks were removed that the tables may still have.
    removed: usize,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{KeepOptions, POST_WITHIN};
    use super::*;
    use crate::sample::Sample;

    const NOW: u64 = 1_465_001_814;
    const DAY: u64 = 86_400;

    fn open(path: &Path) -> DiskStore {
        let keep = KeepOptions { asked: "1m:6h,1h:3d,1d:70d".parse().ok(), ..KeepOptions::default() };
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
    fn the_disk_is_given_back_once_windows_have_passed() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
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
        let chunks = history::chunk_ends(&keyspaces(&store));
        assert!(chunks.len() > 3 * values.len());
        for (interval_sec, end) in chunks {
            let window = store.memory.keep().window(interval_sec).unwrap();
            assert!(end + window.span_sec + DAY > now, "{}: {} s", window.name, now - end - window.span_sec);
        }
        let keyspaces = keyspaces(&store);
        keyspaces.flush_records().unwrap();
        assert!(keyspaces.history.disk_space() > 0);
        // All hosts are down.
        now += 71 * DAY;
        (0..2).for_each(|_| maintain(&store, now));
        assert_eq!((history::chunk_ends(&keyspaces), keyspaces.history.disk_space()), (Vec::new(), 0));
    }
}
