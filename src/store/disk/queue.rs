//! The queue of a thread that works for others, and how long each of these waits for it.
//!
//! Its locks are held for a moment each, never while the disk is read or written.

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
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
    /// A task of many steps. Other requests are carried out before it and between two steps, but no other such task.
    LongTask(Box<dyn FnOnce(&mut T) + Send>),
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
        // Where more wait, the thread was woken before, and takes all of them.
        let is_first = state.requests.len() == 1;
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Adds a task.
    pub(super) fn push_task(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        self.push(Request::Task(Box::new(task)));
    }

    /// Adds a task of many steps.
    pub(super) fn push_long_task(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        self.push(Request::LongTask(Box::new(task)));
    }

    fn push(&self, request: Request<T>) {
        locked(&self.state).requests.push(request);
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

    /// Takes the requests that wait already and are short, between two steps of something longer.
    pub(super) fn take_waiting(&self) -> Vec<Request<T>> {
        let mut state = locked(&self.state);
        state.busy_since = Some(Instant::now());
        let is_long = |request: &Request<T>| matches!(request, Request::LongTask(_));
        let (long, short) = std::mem::take(&mut state.requests).into_iter().partition(is_long);
        state.requests = long;
        short
    }

    /// Whether the thread has taken a step within a time, or has nothing to do.
    pub(super) fn goes_on(&self, within: Duration) -> bool {
        locked(&self.state).busy_since.is_none_or(|since| since.elapsed() < within)
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
    /// How long it is awaited, and until when.
    within: Duration,
    until: Instant,
    /// What wakes the thread that looks at [`Reply::is_over`] instead of waiting.
    waker: Option<Waker>,
}

enum Progress<T> {
    Waiting,
    Begun,
    Done(Result<T, StoreError>),
    /// Nobody waits for it any more.
    Abandoned,
}

impl<T> Reply<T> {
    /// The answer to a request that begins now. One that is not begun within that time is not carried out any more.
    pub(super) fn new(within: Duration, waker: Option<&Waker>) -> Arc<Self> {
        let (progress, until) = (Mutex::new(Progress::Waiting), Instant::now() + within);
        Arc::new(Self { progress, changed: Condvar::new(), within, until, waker: waker.cloned() })
    }

    /// Begins the request, and returns whether anybody still waits for it.
    pub(super) fn begin(&self) -> bool {
        let mut progress = locked(&self.progress);
        if matches!(*progress, Progress::Waiting) {
            *progress = Progress::Begun;
        }
        matches!(*progress, Progress::Begun)
    }

    /// Ends the request. Whoever has a waker is woken later, once for all requests that end together.
    pub(super) fn finish(&self, result: Result<T, StoreError>) {
        *locked(&self.progress) = Progress::Done(result);
        if self.waker.is_none() {
            self.changed.notify_one();
        }
    }

    pub(super) fn waker(&self) -> Option<&Waker> {
        self.waker.as_ref()
    }

    /// Whether [`Reply::wait`] would not wait at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until || matches!(*locked(&self.progress), Progress::Done(_))
    }

    /// Waits for the end of the request.
    ///
    /// # Errors
    /// When the request failed, or is not done in time; if it was begun by then, that is not certain.
    pub(super) fn wait(&self) -> Result<T, StoreError> {
        self.wait_while(|| false)
    }

    /// Waits for the end of the request, and as long again each time that `goes_on` holds.
    ///
    /// # Errors
    /// See [`Reply::wait`].
    pub(super) fn wait_while(&self, mut goes_on: impl FnMut() -> bool) -> Result<T, StoreError> {
        let is_open = |progress: &mut Progress<T>| matches!(progress, Progress::Waiting | Progress::Begun);
        let mut left = self.until.saturating_duration_since(Instant::now());
        let mut progress = loop {
            let waited = self.changed.wait_timeout_while(locked(&self.progress), left, is_open);
            let (progress, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            if !waited.timed_out() {
                break progress;
            }
            drop(progress);
            if !goes_on() {
                break locked(&self.progress);
            }
            left = self.within;
        };
        let no_answer = || format!("the disk has not answered within {} seconds", self.within.as_secs());
        match std::mem::replace(&mut *progress, Progress::Abandoned) {
            Progress::Done(result) => result,
            Progress::Begun => Err(StoreError::uncertain(no_answer())),
            Progress::Waiting | Progress::Abandoned => Err(StoreError::new(no_answer())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_carried_out_or_abandoned_and_never_both() {
        for waker in [None, Some(Waker::noop())] {
            let reply = Reply::<u8>::new(Duration::ZERO, waker);
            assert!(!reply.wait().unwrap_err().is_uncertain, "not begun");
            assert!(!reply.begin(), "abandoned");
            let reply = Reply::<u8>::new(Duration::ZERO, waker);
            assert!(reply.begin());
            assert!(reply.wait().unwrap_err().is_uncertain, "begun");
            let reply = Reply::new(Duration::ZERO, waker);
            assert!(reply.begin());
            reply.finish(Ok(7));
            assert_eq!(reply.wait(), Ok(7));
        }
    }

    #[test]
    fn a_request_that_goes_on_is_awaited_beyond_its_time() {
        let (reply, mut looks) = (Reply::new(Duration::ZERO, None), 0);
        let done = reply.wait_while(|| {
            looks += 1;
            match looks {
                2 => assert!(reply.begin()),
                3 => reply.finish(Ok(7)),
                _ => {}
            }
            true
        });
        assert_eq!((done, looks), (Ok(7), 3));
        let reply = Reply::<u8>::new(Duration::ZERO, None);
        let mut steps = [true, true, false].into_iter();
        assert!(reply.wait_while(|| steps.next().unwrap()).is_err());
        assert!(!reply.begin(), "abandoned");
    }

    #[test]
    fn a_long_task_is_left_until_another_has_ended() {
        let queue = Queue::<u8>::new();
        queue.push_long_task(|_| ());
        queue.push_task(|_| ());
        assert!(matches!(queue.take_waiting()[..], [Request::Task(_)]));
        assert!(queue.take_waiting().is_empty() && queue.goes_on(Duration::MAX) && !queue.goes_on(Duration::ZERO));
        assert!(matches!(queue.take(Instant::now())[..], [Request::LongTask(_)]));
    }

    #[test]
    fn a_request_is_over_when_it_is_done_or_its_time_is() {
        let (now, within) = (Instant::now(), Duration::from_secs(60));
        let reply = Reply::new(within, Some(Waker::noop()));
        assert!(!reply.is_over(now) && reply.is_over(now + 2 * within));
        assert!(reply.begin() && !reply.is_over(now));
        reply.finish(Ok(7));
        assert!(reply.is_over(now));
    }
}
