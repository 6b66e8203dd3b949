//! A sample on its way into the store.

#[cfg(any(feature = "disk", feature = "redis"))]
use std::task::Waker;
use std::time::Instant;

#[cfg(feature = "disk")]
use super::disk;
use super::outcome::{RecordOutcome, StoreError};
#[cfg(feature = "redis")]
use super::redis;

/// Threads that are woken together, once each.
#[cfg(any(feature = "disk", feature = "redis"))]
#[derive(Default)]
pub(super) struct Wakers(Vec<Waker>);

#[cfg(any(feature = "disk", feature = "redis"))]
impl Wakers {
    pub(super) fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|other| other.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// A sample that [`super::Store::begin_record`] has given to the store.
pub struct Recording(State);

enum State {
    Over(Result<RecordOutcome, StoreError>),
    #[cfg(feature = "disk")]
    Journal(disk::Recording),
    #[cfg(feature = "redis")]
    Redis(Box<redis::Recording>),
}

impl Recording {
    pub(super) fn over(outcome: Result<RecordOutcome, StoreError>) -> Self {
        Self(State::Over(outcome))
    }

    #[cfg(feature = "disk")]
    pub(super) fn journal(begun: Result<disk::Recording, StoreError>) -> Self {
        Self(begun.map_or_else(|error| State::Over(Err(error)), State::Journal))
    }

    #[cfg(feature = "redis")]
    pub(super) fn redis(begun: redis::Recording) -> Self {
        Self(State::Redis(Box::new(begun)))
    }

    /// Whether [`Recording::finish`] would not wait at `now`.
    #[must_use]
    #[cfg_attr(
        not(any(feature = "disk", feature = "redis")),
        expect(unused_variables, reason = "memory waits for nothing")
    )]
    pub fn is_over(&self, now: Instant) -> bool {
        match &self.0 {
            State::Over(_) => true,
            #[cfg(feature = "disk")]
            State::Journal(recording) => recording.is_over(now),
            #[cfg(feature = "redis")]
            State::Redis(recording) => recording.is_over(now),
        }
    }

    /// Whether a thread that may wait has to call [`Recording::finish`]: there is more to do.
    #[must_use]
    pub fn must_go_on(&self) -> bool {
        match &self.0 {
            #[cfg(feature = "redis")]
            State::Redis(recording) => recording.must_go_on(),
            _ => false,
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
            #[cfg(feature = "redis")]
            State::Redis(recording) => recording.finish(),
        }
    }
}
