//! Memory for what clients send and read slowly, shared by all connections.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be taken at a time.
pub(super) struct Budget {
    left: AtomicUsize,
}

/// Bytes that are taken, until this is dropped.
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let six = budget.take(6).unwrap();
        assert!(budget.take(5).is_none() && budget.take(4).is_some());
        drop(six);
        assert!(budget.take(10).is_some() && budget.take(11).is_none());
    }
}
