//! What was written and is not in memory: it is written again where the disk fails before the device has it.

use fjall::OwnedWriteBatch;

use super::keyspaces::Keyspaces;

/// A record that memory does not hold.
pub(super) struct Unsynced {
    is_history: bool,
    key: Vec<u8>,
    /// `None` where the key is removed.
    value: Option<Vec<u8>>,
}

impl Unsynced {
    /// A record of `state`.
    pub(super) fn state(key: Vec<u8>, value: Option<Vec<u8>>) -> Self {
        Self { is_history: false, key, value }
    }

    pub(super) fn history(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { is_history: true, key, value: Some(value) }
    }

    /// Whether it is a chunk of `history`.
    #[cfg(test)]
    pub(super) fn is_history(&self) -> bool {
        self.is_history
    }

    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    /// Adds it to a batch.
    pub(super) fn put(&self, keyspaces: &Keyspaces, batch: &mut OwnedWriteBatch) {
        let keyspace = if self.is_history { &keyspaces.history } else { &keyspaces.state };
        match &self.value {
            Some(value) => batch.insert(keyspace, self.key.as_slice(), value.as_slice()),
            None => batch.remove(keyspace, self.key.as_slice()),
        }
    }
}
