//! The samples that wait for one destination, in memory and, with `--spool`, in a file that outlives the process.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::QueuedSample;
use super::spool::Spool;

/// How often the log says that samples were dropped, or that a spool cannot be written.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Wait before a spool is written again that could not be written.
const SPOOL_RETRY: Duration = Duration::from_secs(1);

/// The samples that wait for one destination, the oldest first. The sampling thread pushes, the publisher takes from the
/// front, and a third thread keeps the spool like the queue.
#[derive(Debug)]
pub(super) struct RetryQueue {
    contents: Mutex<Contents>,
    changed: Condvar,
    destination: String,
    samples_max: usize,
}

#[derive(Debug, Default)]
struct Contents {
    samples: VecDeque<Arc<QueuedSample>>,
    /// How many samples have left the queue since the start, and the last of them.
    left: u64,
    last_left: Option<Arc<QueuedSample>>,
    /// How many samples that have left the spool knows to have left.
    left_in_spool: u64,
    /// How many samples, of all since the start, are in the spool or have left.
    spooled: u64,
    dropped: u64,
    drop_logged_at: Option<Instant>,
    is_closed: bool,
    is_spool_closed: bool,
}

impl Contents {
    fn pop(&mut self) {
        if let Some(sample) = self.samples.pop_front() {
            self.left += 1;
            self.last_left = Some(sample);
            self.spooled = self.spooled.max(self.left);
        }
    }

    /// How many samples at the front are in the spool.
    fn spooled_in_front(&self) -> usize {
        usize::try_from(self.spooled - self.left).unwrap_or(usize::MAX).min(self.samples.len())
    }

    /// Whether the spool has what the queue has, and nothing else.
    fn is_spooled(&self) -> bool {
        self.left_in_spool == self.left && self.spooled_in_front() == self.samples.len()
    }

    fn log_dropped(&mut self, destination: &str) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.drop_logged_at = Some(Instant::now());
            log::warn!("The queue for {destination} is full: its {dropped} oldest samples were dropped");
        }
    }
}

impl RetryQueue {
    /// A queue of up to `samples_max` samples, which begins with `spooled`, those of the destination's spool.
    pub(super) fn new(destination: String, samples_max: usize, spooled: VecDeque<Arc<QueuedSample>>) -> Self {
        let contents = Contents { spooled: spooled.len() as u64, samples: spooled, ..Contents::default() };
        Self { contents: Mutex::new(contents), changed: Condvar::new(), destination, samples_max }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a sample; a full queue drops its oldest. Nothing is written to a disk here.
    pub(super) fn push(&self, sample: Arc<QueuedSample>) {
        let mut contents = self.lock();
        if contents.samples.len() >= self.samples_max {
            contents.pop();
            contents.dropped += 1;
        }
        contents.samples.push_back(sample);
        self.changed.notify_all();
        if contents.drop_logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            contents.log_dropped(&self.destination);
        }
    }

    /// Waits for the oldest sample, which stays until [`RetryQueue::done`]; `None` when the queue is closed and empty.
    pub(super) fn front(&self) -> Option<Arc<QueuedSample>> {
        let is_open_and_empty = |contents: &mut Contents| contents.samples.is_empty() && !contents.is_closed;
        let waited = self.changed.wait_while(self.lock(), is_open_and_empty);
        waited.unwrap_or_else(PoisonError::into_inner).samples.front().cloned()
    }

    /// Removes the sample that [`RetryQueue::front`] gave, unless it was dropped meanwhile. Returns how many are left.
    pub(super) fn done(&self, sample: &Arc<QueuedSample>) -> usize {
        let mut contents = self.lock();
        if contents.samples.front().is_some_and(|front| Arc::ptr_eq(front, sample)) {
            contents.pop();
            self.changed.notify_all();
        }
        contents.samples.len()
    }

    /// How many samples have not left.
    pub(super) fn waiting(&self) -> usize {
        self.lock().samples.len()
    }

    /// Waits, and returns whether the queue was closed before or meanwhile.
    pub(super) fn closes_within(&self, wait: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |contents| !contents.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    /// Ends [`RetryQueue::front`] when the queue is empty.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Ends [`RetryQueue::keep_spool`], once the spool is like the queue.
    pub(super) fn close_spool(&self) {
        self.lock().is_spool_closed = true;
        self.changed.notify_all();
    }

    /// Keeps the spool like the queue: appends what is new, and notes which samples have left.
    pub(super) fn keep_spool(&self, spool: &mut Spool) {
        let mut logged_at: Option<Instant> = None;
        loop {
            let is_idle = |contents: &mut Contents| contents.is_spooled() && !contents.is_spool_closed;
            let contents = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
            let (is_last, left) = (contents.is_spool_closed, contents.left);
            let is_rewrite = is_last || spool.needs_rewrite(contents.samples.len());
            let from = if is_rewrite { 0 } else { contents.spooled_in_front() };
            let samples: Vec<Arc<QueuedSample>> = contents.samples.range(from..).cloned().collect();
            let spooled = left + contents.samples.len() as u64;
            let done = contents.last_left.clone().filter(|_| contents.left_in_spool != left);
            drop(contents);
            let done = done.as_ref().map(|sample| sample.key.as_str());
            let written = if is_rewrite { spool.rewrite(&samples, done) } else { spool.append(&samples, done) };
            let mut contents = self.lock();
            match written {
                Ok(()) => {
                    contents.left_in_spool = left;
                    contents.spooled = spooled.max(contents.left);
                }
                Err(error) => {
                    if logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                        logged_at = Some(Instant::now());
                        log::error!("The spool for {} cannot be written: {error}", self.destination);
                    }
                    let is_open = |contents: &mut Contents| !contents.is_spool_closed;
                    drop(self.changed.wait_timeout_while(contents, SPOOL_RETRY, is_open));
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// Says in the log what is left at the end, and whether the spool has it.
    pub(super) fn log_end(&self, has_spool: bool) {
        let mut contents = self.lock();
        let left = contents.samples.len();
        if left > 0 && has_spool && contents.is_spooled() {
            log::info!("Monitor stopped with {left} samples in the spool for {}", self.destination);
        } else if left > 0 {
            log::warn!("Monitor stopped with {left} samples not published to {}", self.destination);
        }
        contents.log_dropped(&self.destination);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::spool::tests::{keys, sample};
    use super::*;

    fn queue(samples_max: usize) -> RetryQueue {
        RetryQueue::new("http://r".to_owned(), samples_max, VecDeque::new())
    }

    /// Takes everything that waits.
    fn drain(queue: &RetryQueue) -> Vec<String> {
        queue.close();
        let taken = std::iter::from_fn(|| queue.front().inspect(|sample| _ = queue.done(sample)));
        taken.map(|sample| sample.key.clone()).collect()
    }

    #[test]
    fn it_is_bounded_and_keeps_its_order() {
        let queue = queue(3);
        (1..=3).for_each(|seq| queue.push(sample(seq)));
        let in_flight = queue.front().unwrap();
        assert_eq!(in_flight.key, "s-1");
        queue.push(sample(4));
        assert_eq!(queue.done(&in_flight), 3, "a sample that was dropped does not take the next with it");
        queue.push(sample(5));
        assert_eq!(drain(&queue), ["s-3", "s-4", "s-5"]);
    }

    #[test]
    fn the_spool_becomes_like_the_queue() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut spool, restored) = Spool::open(path.clone(), 10).unwrap();
        let queue = queue(5);
        thread::scope(|scope| {
            scope.spawn(|| queue.keep_spool(&mut spool));
            // Seven are dropped, three are published, and the others wait.
            (1..=12).for_each(|seq| queue.push(sample(seq)));
            (0..3).for_each(|_| _ = queue.done(&queue.front().unwrap()));
            queue.close_spool();
        });
        queue.log_end(true);
        assert_eq!((restored.samples.len(), queue.lock().spooled_in_front()), (0, 2));
        let (_, restored) = Spool::open(path, 10).unwrap();
        assert_eq!((keys(&restored.samples), restored.last_key.as_deref()), (vec!["s-11", "s-12"], Some("s-12")));
    }
}
