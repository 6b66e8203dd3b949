//! Memory for what clients send and read slowly, shared by all connections; and turns, for what takes memory of which it
//! is not known before how much.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may be taken at a time, and turns.
pub(super) struct Budget {
    left: AtomicUsize,
    free_turns: Mutex<usize>,
    turn_ended: Condvar,
}

/// A turn, until this is dropped.
pub(super) struct Turn<'a>(&'a Budget);

/// Bytes that are taken, until this is dropped.
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize, turns: usize) -> Self {
        Self { left: AtomicUsize::new(bytes), free_turns: Mutex::new(turns), turn_ended: Condvar::new() }
    }

    /// Waits for a turn, for up to `within`.
    pub(super) fn turn(&self, within: Duration) -> Option<Turn<'_>> {
        let waited = self.turn_ended.wait_timeout_while(self.free_turns(), within, |free| *free == 0);
        let mut free = waited.unwrap_or_else(PoisonError::into_inner).0;
        *free = free.checked_sub(1)?;
        Some(Turn(self))
    }

    fn free_turns(&self) -> MutexGuard<'_, usize> {
        self.free_turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes, if there are so many left.
    pub(super) fn take(&self, bytes: usize) -> Option<Taken<'_>> {
        let less = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Taken { budget: self, bytes })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free_turns() += 1;
        self.0.turn_ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10, 0);
        let six = budget.take(6).unwrap();
        assert!(budget.take(5).is_none() && budget.take(4).is_some());
        drop(six);
        assert!(budget.take(10).is_some() && budget.take(11).is_none());
    }

    #[test]
    fn turns_are_waited_for_and_never_more_than_there_are() {
        let budget = Budget::new(0, 2);
        let (at_it, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let take_turns = || {
            for _ in 0..100 {
                let _turn = budget.turn(Duration::MAX).unwrap();
                most.fetch_max(at_it.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                at_it.fetch_sub(1, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(take_turns))));
        assert!((1..=2).contains(&most.into_inner()));
        let both = [budget.turn(Duration::ZERO).unwrap(), budget.turn(Duration::ZERO).unwrap()];
        assert!(budget.turn(Duration::from_millis(1)).is_none());
        drop(both);
        assert!(budget.turn(Duration::ZERO).is_some());
    }
}
