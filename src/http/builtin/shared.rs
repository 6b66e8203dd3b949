//! What the loops, the pools and the threads that accept connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Options;
use super::limits::ConnectionLimits;
use crate::api::Api;
use crate::http::pool::Pool;

/// Memory for long bodies and answers of all connections: 32 bodies of the longest.
pub(super) const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Most threads that wait for the store to record.
const STORE_THREADS_MAX: usize = 192;
/// Most threads that find long answers. Each has one in memory before its length is known.
const READ_THREADS_MAX: usize = 8;

pub(super) struct Shared {
    pub(super) api: Arc<Api>,
    pub(super) budget: Arc<Budget>,
    pub(super) store_pool: Arc<Pool>,
    pub(super) read_pool: Arc<Pool>,
    pub(super) limits: Arc<ConnectionLimits>,
    /// Listeners that are open.
    pub(super) accepting: AtomicUsize,
    pub(super) closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(api: &Arc<Api>, options: &Options) -> Self {
        Self {
            api: api.clone(),
            budget: Budget::new(MEMORY_BYTES_MAX),
            store_pool: Pool::new("http-store", STORE_THREADS_MAX),
            read_pool: Pool::new("http-read", READ_THREADS_MAX),
            limits: ConnectionLimits::new(*options, api.trusted_proxies()),
            accepting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether the server closes and accepts no more. Only then does an answer end its connection: while clients keep
    /// theirs, few new ones come, which the end of a listener would reset.
    pub(super) fn is_draining(&self) -> bool {
        self.is_closing() && self.accepting.load(Ordering::SeqCst) == 0
    }
}

/// Memory for long bodies and answers: bytes that may be reserved at a time, over all connections.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

/// Reserved bytes, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(bytes)))
    }

    /// Reserves bytes, where so many are left.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Reservation { budget: self.clone(), bytes })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}
