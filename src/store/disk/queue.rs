//! The queue of a thread that works for others, and how long each of these waits for it.
//!
//! Its locks are held for a moment each, never while the disk is read or written.

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::memory::locked;
use crate::store::{BatchOutcome, StoreError};

/// Longest that the thread may be at one thing before the disk counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Something to be done by the thread, whose state is a `T`.
pub(super) enum Request<T> {
    /// Samples to be recorded.
    Record(Samples),
    /// Anything else whose place in the order matters.
    Task(Box<dyn FnOnce(&mut T) + Send>),
}

/// Samples that came together.
pub(super) struct Samples {
    /// Their entries, as the log has them.
    pub(super) entries: Vec<u8>,
    /// The address that they came from, which entries do not have.
    pub(super) address: Option<IpAddr>,
    pub(super) reply: Arc<Reply<BatchOutcome>>,
}

/// The requests that wait for the thread.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    requests: Vec<Request<T>>,
    /// Since when the thread is at one thing.
    busy_since: Option<Instant>,
    /// Why nothing can be written, until the directory was opened again.
    failed: Option<String>,
    is_closed: bool,
}

impl<T> State<T> {
    fn unavailable(&self) -> Option<StoreError> {
        if let Some(why) = &self.failed {
            return Some(StoreError::new(why.clone()));
        }
        let stalled = self.busy_since.map(|since| since.elapsed()).filter(|elapsed| *elapsed >= STALLED_AFTER)?;
        Some(StoreError::new(format!("the disk has not answered for {} seconds", stalled.as_secs())))
    }
}

impl<T> Queue<T> {
    pub(super) fn new() -> Arc<Self> {
        let state = State { requests: Vec::new(), busy_since: None, failed: None, is_closed: false };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Why nothing can be written now, if so.
    pub(super) fn unavailable(&self) -> Option<StoreError> {
        locked(&self.state).unavailable()
    }

    /// Sets why nothing can be written, or that something can. Returns whether that is new.
    pub(super) fn set_failed(&self, why: Option<String>) -> bool {
        let mut state = locked(&self.state);
        let is_new = state.failed != why;
        state.failed = why;
        is_new
    }

    /// Adds samples, unless nothing can be written.
    pub(super) fn push_samples(&self, samples: Samples) -> Result<(), StoreError> {
        let mut state = locked(&self.state);
        state.unavailable().map_or(Ok(()), Err)?;
        state.requests.push(Request::Record(samples));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a task.
    pub(super) fn push_task(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        locked(&self.state).requests.push(Request::Task(Box::new(task)));
        self.changed.notify_one();
    }

    /// Takes all requests, for the thread. Waits for one until `deadline`.
    pub(super) fn take(&self, deadline: Instant) -> Vec<Request<T>> {
        let mut state = locked(&self.state);
        state.busy_since = None;
        let wait = deadline.saturating_duration_since(Instant::now());
        let is_idle = |state: &mut State<T>| state.requests.is_empty() && !state.is_closed;
        let waited = self.changed.wait_timeout_while(state, wait, is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.busy_since = Some(Instant::now());
        std::mem::take(&mut state.requests)
    }

    /// Takes the requests that wait already, between two steps of something longer.
    pub(super) fn take_waiting(&self) -> Vec<Request<T>> {
        let mut state = locked(&self.state);
        state.busy_since = Some(Instant::now());
        std::mem::take(&mut state.requests)
    }

    /// How many requests wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        locked(&self.state).requests.len()
    }

    /// Ends the thread when it has done what it was asked to.
    pub(super) fn close(&self) {
        locked(&self.state).is_closed = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        locked(&self.state).is_closed
    }
}

/// The answer to one request.
pub(super) struct Reply<T> {
    progress: Mutex<Progress<T>>,
    changed: Condvar,
}

enum Progress<T> {
    Waiting,
    Begun,
    Done(Result<T, StoreError>),
    /// Nobody waits for it any more.
    Abandoned,
}

impl<T> Reply<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { progress: Mutex::new(Progress::Waiting), changed: Condvar::new() })
    }

    /// Begins the request, and returns whether anybody still waits for it.
    pub(super) fn begin(&self) -> bool {
        let mut progress = locked(&self.progress);
        if matches!(*progress, Progress::Waiting) {
            *progress = Progress::Begun;
        }
        matches!(*progress, Progress::Begun)
    }

    /// Ends the request.
    pub(super) fn finish(&self, result: Result<T, StoreError>) {
        *locked(&self.progress) = Progress::Done(result);
        self.changed.notify_one();
    }

    /// Waits for the end of the request. One that is not begun within that time is not carried out any more.
    ///
    /// # Errors
    /// When the request failed, or is not done in time; if it was begun by then, that is not certain.
    pub(super) fn wait(&self, within: Duration) -> Result<T, StoreError> {
        let is_open = |progress: &mut Progress<T>| matches!(progress, Progress::Waiting | Progress::Begun);
        let waited = self.changed.wait_timeout_while(locked(&self.progress), within, is_open);
        let mut progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        match std::mem::replace(&mut *progress, Progress::Abandoned) {
            Progress::Done(result) => result,
            Progress::Begun => Err(StoreError::uncertain(no_answer(within))),
            Progress::Waiting | Progress::Abandoned => Err(StoreError::new(no_answer(within))),
        }
    }
}

fn no_answer(within: Duration) -> String {
    format!("the disk has not answered within {} seconds", within.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_carried_out_or_abandoned_and_never_both() {
        let reply = Reply::<u8>::new();
        assert!(!reply.wait(Duration::ZERO).unwrap_err().is_uncertain, "not begun");
        assert!(!reply.begin(), "abandoned");
        let reply = Reply::<u8>::new();
        assert!(reply.begin());
        assert!(reply.wait(Duration::ZERO).unwrap_err().is_uncertain, "begun");
        let reply = Reply::new();
        assert!(reply.begin());
        reply.finish(Ok(7));
        assert_eq!(reply.wait(Duration::ZERO), Ok(7));
    }
}
