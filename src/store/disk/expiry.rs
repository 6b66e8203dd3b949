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
        let mut expire_from = locked(&self.expire_from);
        let expired = history::expire(keyspaces, self.memory.keep(), now, is_known, &mut expire_from, EXPIRE_WITHIN);
        expired.map(drop).map_err(|error| self.fail(&error))
    }
}
