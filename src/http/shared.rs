//! What the threads of the builtin server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::budget::Budget;
use super::pool::Pool;
use crate::api::Api;

/// What its loops, its pools and the threads that accept connections have in common.
pub(super) struct Shared {
    pub(super) api: Arc<Api>,
    pub(super) budget: Arc<Budget>,
    pub(super) store_pool: Arc<Pool>,
    pub(super) read_pool: Arc<Pool>,
    /// Listeners that are open.
    pub(super) accepting: AtomicUsize,
    pub(super) closing: AtomicBool,
}

impl Shared {
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether the server closes and accepts no more. Only then does an answer end its connection: while clients keep
    /// theirs, few new ones come, which the end of a listener would reset.
    pub(super) fn is_draining(&self) -> bool {
        self.is_closing() && self.accepting.load(Ordering::SeqCst) == 0
    }
}
