//! Small records beside the hosts: of alerts, and of who has joined.
//!
//! A record has a key, whose first character is its kind, and bytes that the store does not look into.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{AlertLease, Kind, Store, StoreError};

/// Records by their keys; `None` is one that is removed.
pub type Records = BTreeMap<String, Option<Vec<u8>>>;

/// What became of [`Store::swap_record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The new record is there.
    Done,
    /// Nothing has changed: there is another record than the one that was expected, or none.
    Other(Option<Vec<u8>>),
    /// Nothing has changed: there are as many records of this kind as may be.
    Full,
}

impl Swap {
    /// Why a record is not swapped, if it is not: by what there is, and how many of its kind there are where one is added.
    pub(super) fn refused(old: Option<&[u8]>, held: Option<&[u8]>, is_full: impl FnOnce() -> bool) -> Option<Self> {
        match held {
            held if held != old => Some(Self::Other(held.map(<[u8]>::to_vec))),
            None if is_full() => Some(Self::Full),
            _ => None,
        }
    }
}

#[cfg_attr(not(feature = "redis"), expect(unused_variables, reason = "only a shared store has a lease"))]
impl Store {
    /// The records whose keys begin with `kind`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn records(&self, kind: char) -> Result<Records, StoreError> {
        match &self.kind {
            Kind::Memory(_) => Ok(self.memory_records.of_kind(kind)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.records(kind),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.records(kind),
        }
    }

    /// Keeps records, as durable as samples are. With a lease it is all or none, if the lease of alerts still holds. Without
    /// one a shared store keeps them one after the other, in the order of their keys, whoever has the lease.
    ///
    /// # Errors
    /// When the store cannot be written, or another receiver has the lease.
    pub fn write_records(&self, records: &Records, lease: Option<&AlertLease>) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Memory(_) => {
                self.memory_records.write(records);
                Ok(())
            }
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.write_records(records),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.write_records(records, lease),
        }
    }

    /// Replaces a record if it is `old`, or makes it if there is none and `old` is `None`, as one step for all that share
    /// the store. None is made beyond `records_max` of its kind.
    ///
    /// # Errors
    /// When the store cannot be written. The record may be there then, if [`StoreError::is_uncertain`].
    pub fn swap_record(
        &self,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        records_max: usize,
    ) -> Result<Swap, StoreError> {
        match &self.kind {
            Kind::Memory(_) => Ok(self.memory_records.swap(key, old, new, records_max)),
            #[cfg(feature = "disk")]
            Kind::Disk(disk) => disk.swap_record(key, old, new, records_max),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.swap_record(key, old, new, records_max),
        }
    }
}

/// The kind of a key: its first character.
pub(super) fn kind_of(key: &str) -> &str {
    key.split_at(key.chars().next().map_or(0, char::len_utf8)).0
}

/// The records of a store in memory.
#[derive(Default)]
pub(super) struct MemoryRecords(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryRecords {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of_kind(&self, kind: char) -> Records {
        let records = self.lock();
        let of_kind = records.range(kind.to_string()..).take_while(|(key, _)| key.starts_with(kind));
        of_kind.map(|(key, record)| (key.clone(), Some(record.clone()))).collect()
    }

    pub(super) fn write(&self, records: &Records) {
        let mut held = self.lock();
        for (key, record) in records {
            match record {
                Some(record) => held.insert(key.clone(), record.clone()),
                None => held.remove(key),
            };
        }
    }

    pub(super) fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8], records_max: usize) -> Swap {
        let mut held = self.lock();
        let is_full = || {
            let kind = kind_of(key);
            held.range(kind.to_owned()..).take_while(|(key, _)| key.starts_with(kind)).count() >= records_max
        };
        if let Some(refused) = Swap::refused(old, held.get(key).map(Vec::as_slice), is_full) {
            return refused;
        }
        held.insert(key.to_owned(), new.to_vec());
        Swap::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_swapped_for_the_one_that_was_expected_alone() {
        let records = MemoryRecords::default();
        assert_eq!(records.swap("ja", None, b"1", 2), Swap::Done);
        assert_eq!(records.swap("ja", None, b"2", 2), Swap::Other(Some(b"1".to_vec())));
        assert_eq!(records.swap("ja", Some(b"1"), b"2", 0), Swap::Done);
        assert_eq!(records.swap("jb", Some(b"1"), b"2", 2), Swap::Other(None));
        assert_eq!((records.swap("jb", None, b"1", 2), records.swap("jc", None, b"1", 2)), (Swap::Done, Swap::Full));
        assert_eq!(records.swap("kc", None, b"1", 2), Swap::Done, "another kind has a number of its own");
        records.write(&Records::from([("ja".to_owned(), None), ("jd".to_owned(), Some(b"4".to_vec()))]));
        assert_eq!(records.of_kind('j').into_keys().collect::<Vec<_>>(), ["jb", "jd"]);
    }
}
