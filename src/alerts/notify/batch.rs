//! A message to a target, and what came of it.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::alerts::event::Event;

/// One event of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The event.
    pub event: Event,
    /// Which repeat of it, from 0.
    pub repeat: u32,
    /// Whether it is over and the target was never told that it fired.
    pub is_past: bool,
    /// Since when it waits, in milliseconds.
    pub queued_at: u64,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The name of the target.
    pub target: SmolStr,
    /// What it says.
    pub items: Vec<Item>,
    /// What still fires and was told, for a target that forgets.
    pub still: Vec<Event>,
    /// The same for the same items, and for no others.
    pub key: String,
    /// The store must have this serial before the message is sent.
    pub serial: u64,
}

impl Batch {
    pub(super) fn new(target: SmolStr, items: Vec<Item>) -> Self {
        Self { key: key_of(&target, &items), target, items, still: Vec::new(), serial: 0 }
    }
}

/// What a target has to do.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Send this, and report by [`super::Outbox::done`].
    Send(Batch),
    /// Ask again at this time, in milliseconds, or when something is enqueued.
    Wait(u64),
    /// Ask again when something is enqueued.
    Idle,
}

/// What came of an attempt to send.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The target has it.
    Delivered,
    /// It is to be tried again.
    Later {
        /// Why, for people.
        why: String,
        /// For the counters.
        reason: Reason,
        /// The wait that the target asks for.
        retry_after_ms: Option<u64>,
        /// Whether the target may have it all the same.
        may_have: bool,
    },
    /// The target will never take it.
    Refused(String),
}

/// Why an event was not told, as `/metrics` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There was no answer.
    Unanswered,
    /// The target asks to be tried again.
    Busy,
    /// The target will never take it.
    Refused,
    /// It has waited for too long.
    Expired,
}

impl Reason {
    /// All of them, in the order of [`Counts::failed`].
    pub const ALL: [Self; 4] = [Self::Unanswered, Self::Busy, Self::Refused, Self::Expired];

    /// Its label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// What was counted of a target since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were delivered.
    pub delivered: u64,
    /// Attempts that failed, and events that expired, by [`Reason::ALL`].
    pub failed: [u64; 4],
    /// Events that wait.
    pub queued: usize,
}

/// The key of a message.
fn key_of(target: &str, items: &[Item]) -> String {
    let mut items: Vec<_> = items.iter().map(|item| (&item.event.key, item.event.number, item.repeat)).collect();
    items.sort_unstable();
    let mut hash = Fnv::default();
    hash.write(target);
    for (key, number, repeat) in items {
        [&key.name, &key.host, &key.series].into_iter().for_each(|name| hash.write(name));
        hash.write(&format!("{number}/{repeat}"));
    }
    format!("lizm-{:016x}", hash.0)
}

/// FNV-1a of 64 bits, which stays the same in each version and on each machine. It is also what Alertmanager takes for
/// its fingerprints.
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds a text and the byte 0xff, which is in no text.
    pub(super) fn write(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
