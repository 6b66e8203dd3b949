//! A sample on its way into the store.

use std::time::Instant;

#[cfg(feature = "disk")]
use super::disk;
use super::outcome::{RecordOutcome, StoreError};

/// A sample that [`super::Store::begin_record`] has given to the store.
pub struct Recording(State);

enum State {
    Over(Result<RecordOutcome, StoreError>),
    #[cfg(feature = "disk")]
    Journal(disk::Recording),
}

impl Recording {
    pub(super) fn over(outcome: Result<RecordOutcome, StoreError>) -> Self {
        Self(State::Over(outcome))
    }

    #[cfg(feature = "disk")]
    pub(super) fn journal(begun: Result<disk::Recording, StoreError>) -> Self {
        Self(begun.map_or_else(|error| State::Over(Err(error)), State::Journal))
    }

    /// Whether [`Recording::finish`] would not wait at `now`.
    #[must_use]
    #[cfg_attr(not(feature = "disk"), expect(unused_variables, reason = "only a directory lets anybody wait"))]
    pub fn is_over(&self, now: Instant) -> bool {
        match &self.0 {
            State::Over(_) => true,
            #[cfg(feature = "disk")]
            State::Journal(recording) => recording.is_over(now),
        }
    }

    /// Waits for the outcome, as [`super::Store::record`] does.
    ///
    /// # Errors
    /// When the store cannot take the sample. Nothing of it is recorded then, unless [`StoreError::is_uncertain`].
    pub fn finish(self) -> Result<RecordOutcome, StoreError> {
        match self.0 {
            State::Over(outcome) => outcome,
            #[cfg(feature = "disk")]
            State::Journal(recording) => recording.finish(),
        }
    }
}
