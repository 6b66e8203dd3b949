//! Threads for clients whose answers may wait, so that the loop never does. They are started when needed, and end when not.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread without work stays.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Some threads, and the work that waits for them.
pub(crate) struct Pool {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    has_work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    pub(crate) fn new(name: &'static str, threads_max: usize) -> Arc<Self> {
        Arc::new(Self { name, threads_max, state: Mutex::default(), has_work: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do `job`, now or when one is free.
    ///
    /// # Errors
    /// When there is no thread, and none to be had; the job is dropped.
    pub(crate) fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.state();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            self.has_work.notify_one();
        } else if state.threads < self.threads_max {
            let pool = self.clone();
            match thread::Builder::new().name(self.name.into()).spawn(move || pool.work()) {
                Ok(_) => state.threads += 1,
                // The others will come to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    state.jobs.pop_back();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A panic costs the job, and the panic hook logs it.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state();
                continue;
            }
            state.idle += 1;
            let (woken, wait) = self.has_work.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if wait.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_more_threads_than_there_may_be_work_and_a_panic_ends_none() {
        let (pool, (done, is_done), start) = (Pool::new("test", 3), mpsc::channel(), Arc::new(Mutex::new(())));
        let held = start.lock().unwrap();
        for number in 0..100 {
            let (done, start) = (done.clone(), start.clone());
            let job = move || {
                drop(start.lock().unwrap_or_else(PoisonError::into_inner));
                assert!(number > 0, "this is a test");
                done.send(()).unwrap();
            };
            pool.run(job).unwrap();
        }
        assert_eq!(pool.state().threads, 3);
        drop((held, done));
        assert_eq!(is_done.iter().count(), 99);
        assert_eq!(pool.state().threads, 3);
    }
}
