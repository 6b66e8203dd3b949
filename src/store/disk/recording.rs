//! A sample on its way into the journal.

use std::sync::Arc;
use std::time::Instant;

use super::queue::Reply;
use crate::store::{BatchOutcome, RecordOutcome, StoreError};

/// A sample that the journal's thread has to record.
pub(in crate::store) struct Recording(pub(super) Arc<Reply<BatchOutcome>>);

impl Recording {
    /// Whether [`Recording::finish`] would not wait at `now`.
    pub(in crate::store) fn is_over(&self, now: Instant) -> bool {
        self.0.is_over(now)
    }

    /// Waits until the sample is recorded.
    ///
    /// # Errors
    /// When it could not be written to the log in time.
    pub(in crate::store) fn finish(self) -> Result<RecordOutcome, StoreError> {
        let BatchOutcome { stored, mut others } = self.0.wait()?;
        others.pop().map_or(Ok(RecordOutcome { stored, ..RecordOutcome::default() }), |(_, outcome)| outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::thread;

    use super::super::tests::{open, stall};
    use super::*;
    use crate::sample::Sample;

    const NOW: u64 = 1_465_001_814;

    #[test]
    fn posts_that_come_together_wake_a_waker_once() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), NOW);
        let counts = [0, 1].map(|_| Arc::new(Count(AtomicUsize::new(0))));
        let wakers = counts.each_ref().map(|count| Waker::from(count.clone()));
        let release = stall(&store);
        let begun: Vec<Recording> = (0..8)
            .map(|post| {
                let sample = Sample { host: "h".into(), epoch: NOW, values: vec![("cpu".into(), 1.0)] };
                store.begin_record(sample.view(), None, NOW, Some(&wakers[post % 2])).unwrap()
            })
            .collect();
        assert!(!begun.iter().any(|recording| recording.is_over(Instant::now())));
        drop(release);
        while counts.iter().any(|count| count.0.load(Ordering::SeqCst) == 0) {
            thread::yield_now();
        }
        for recording in begun {
            assert!(recording.is_over(Instant::now()));
            assert_eq!(recording.finish().unwrap().stored, 1);
        }
        assert_eq!(counts.map(|count| count.0.load(Ordering::SeqCst)), [1, 1]);
    }
}
