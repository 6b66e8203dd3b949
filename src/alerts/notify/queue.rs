//! The queue of one target: of each alert one notification, which is the newest event and what was delivered of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::batch::{Counts, Item, Next, Outcome, Reason};
use crate::alerts::event::{AlertKey, Event};

/// How long the first event waits for others that go in the same message.
const GROUP_MS: u64 = 10_000;
/// Least time between two messages of one target.
pub(super) const PAUSE_MS: u64 = 1000;
/// First wait after an attempt that failed; it doubles up to the longest.
const BACKOFF_FIRST_MS: u64 = 1000;
const BACKOFF_MAX_MS: u64 = 300_000;
/// Longest wait that a target may ask for.
pub(super) const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
/// How long an event is kept that cannot be told.
pub(super) const EXPIRES_MS: u64 = 86_400_000;
/// How often an Alertmanager is told what still fires.
const REFRESH_MS: u64 = 60_000;
/// Most characters of an error that are kept.
pub(super) const ERROR_CHARS_MAX: usize = 300;

/// What the kind of a target asks of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Semantics {
    /// Most events of one message.
    pub batch_max: usize,
    /// Whether the target knows a message again by its key. One of unknown outcome is then sent again as it was.
    pub knows_key: bool,
    /// Whether the target forgets what it is not told every minute.
    pub forgets: bool,
}

/// What one target is told of one alert, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The name of the target.
    pub target: SmolStr,
    /// The newest event.
    pub event: Event,
    /// Since when the newest event waits, in milliseconds; `None` once it was told or given up.
    pub queued_at: Option<u64>,
    /// Which repeat of the event it is.
    pub repeat: u32,
    /// That the alert fires was told, or may have been.
    pub delivered: Option<Delivered>,
    /// What is being sent, or was with an outcome that is not known.
    pub sending: Option<Item>,
    /// Attempts since the last one that succeeded.
    pub tries: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// What a target was told of a firing alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// When, in milliseconds; `None` when no answer has confirmed it.
    pub at: Option<u64>,
}

/// What a target was told of an alert, for `GET /api/alerts`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delivery {
    /// The name of the target.
    pub target: SmolStr,
    /// When it was last told that the alert fires, in seconds.
    pub delivered_at: Option<u64>,
    /// Attempts since the last one that succeeded.
    pub tries: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// What a target is still to be told, and what it was told.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) semantics: Semantics,
    pub(super) notifications: BTreeMap<AlertKey, Notification>,
    /// Keys of notifications that have something to tell.
    pub(super) waiting: BTreeSet<AlertKey>,
    pub(super) is_sending: bool,
    /// Whether the target may have the message that is being sent, from an attempt before.
    pub(super) is_unsure: bool,
    pub(super) not_before: u64,
    /// Attempts in a row that failed, and since when.
    pub(super) failures: u32,
    pub(super) failing_since: Option<u64>,
    /// The alert about this target, which the other targets are told.
    pub(super) problem: Option<Event>,
    pub(super) refreshed_at: u64,
    pub(super) counts: Counts,
}

impl Queue {
    pub(super) fn new(semantics: Semantics, now_ms: u64) -> Self {
        Self {
            semantics,
            notifications: BTreeMap::new(),
            waiting: BTreeSet::new(),
            is_sending: false,
            is_unsure: false,
            not_before: 0,
            failures: 0,
            failing_since: None,
            problem: None,
            // What the store has kept is told at once: it may have been forgotten.
            refreshed_at: now_ms.saturating_sub(REFRESH_MS),
            counts: Counts::default(),
        }
    }

    /// Returns whether it has changed anything.
    pub(super) fn enqueue(&mut self, target: &SmolStr, event: &Event, now_ms: u64) -> bool {
        match self.notifications.get_mut(&event.key) {
            Some(notification) if event.number <= notification.event.number => return false,
            // Nobody was told, and nobody is to be.
            Some(notification)
                if !event.is_firing() && notification.delivered.is_none() && !notification.is_waiting() =>
            {
                self.notifications.remove(&event.key);
                return true;
            }
            Some(notification) => {
                (notification.event, notification.queued_at, notification.repeat) = (event.clone(), Some(now_ms), 0);
            }
            None => {
                let notification = Notification {
                    target: target.clone(),
                    event: event.clone(),
                    queued_at: Some(now_ms),
                    repeat: 0,
                    delivered: None,
                    sending: None,
                    tries: 0,
                    last_error: None,
                };
                self.notifications.insert(event.key.clone(), notification);
            }
        }
        self.waiting.insert(event.key.clone());
        true
    }

    /// Drops what has waited for too long, and returns the keys.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<AlertKey> {
        let is_old = |key: &&AlertKey| {
            let notification = self.notifications.get(*key);
            let since = notification.and_then(|notification| match &notification.sending {
                Some(item) => Some(item.queued_at),
                None => notification.queued_at,
            });
            since.is_some_and(|since| now_ms.saturating_sub(since) > EXPIRES_MS)
        };
        let keys: Vec<AlertKey> = self.waiting.iter().filter(is_old).cloned().collect();
        keys.iter().for_each(|key| self.give_up(key, Reason::Expired));
        keys
    }

    /// Gives up what is being sent, or else what waits.
    pub(super) fn give_up(&mut self, key: &AlertKey, reason: Reason) {
        let Some(notification) = self.notifications.get_mut(key) else { return };
        if reason == Reason::Expired {
            self.counts.failed[reason as usize] += 1;
            notification.last_error = Some("it has waited for a day".to_owned());
        }
        let number = notification.sending.take().map_or(notification.event.number, |item| item.event.number);
        if number == notification.event.number {
            notification.queued_at = None;
        }
        self.settle(key);
    }

    /// What `next` answers when there is nothing to send now.
    pub(super) fn wait(&self, now_ms: u64) -> Option<Next> {
        let forgotten_at = self.semantics.forgets.then(|| self.refreshed_at + REFRESH_MS);
        let refresh_at = forgotten_at.filter(|_| self.notifications.values().any(Notification::is_delivered_firing));
        let is_frozen =
            |key: &AlertKey| self.notifications.get(key).is_some_and(|notification| notification.sending.is_some());
        let first = self.waiting.iter().filter_map(|key| self.notifications.get(key)?.queued_at).min();
        let grouped_at = if self.waiting.iter().any(is_frozen) { Some(0) } else { first.map(|at| at + GROUP_MS) };
        let Some(at) = grouped_at.into_iter().chain(refresh_at).min() else { return Some(Next::Idle) };
        let at = at.max(self.not_before);
        // A time further ahead than any wait can be is from before the clock was set back.
        (at > now_ms && at <= now_ms + RETRY_AFTER_MAX_MS).then_some(Next::Wait(at))
    }

    /// Takes the items of the next message.
    pub(super) fn begin(&mut self) -> Vec<Item> {
        self.is_sending = true;
        let waiting = || self.waiting.iter().filter_map(|key| self.notifications.get(key));
        let frozen: Vec<Item> = waiting().filter_map(|notification| notification.sending.clone()).collect();
        if !frozen.is_empty() {
            return frozen;
        }
        self.is_unsure = false;
        let mut notifications: Vec<&Notification> = waiting().collect();
        notifications.sort_by_key(|notification| {
            (notification.tries, Reverse(notification.event.severity), notification.queued_at)
        });
        let items: Vec<Item> =
            notifications.into_iter().take(self.semantics.batch_max).filter_map(Notification::item).collect();
        for item in &items {
            if let Some(notification) = self.notifications.get_mut(&item.event.key) {
                notification.sending = Some(item.clone());
            }
        }
        items
    }

    /// What a target that forgets is told again.
    pub(super) fn still(&self, now_ms: u64) -> Vec<Event> {
        if !self.semantics.forgets || now_ms.saturating_sub(self.refreshed_at) < REFRESH_MS {
            return Vec::new();
        }
        let notifications = self
            .notifications
            .values()
            .filter(|notification| notification.is_delivered_firing() && !notification.is_waiting());
        notifications.map(|notification| notification.event.clone()).collect()
    }

    /// Notes what came of one item.
    pub(super) fn note(&mut self, item: &Item, outcome: &Outcome, now_ms: u64) {
        let Some(notification) = self.notifications.get_mut(&item.event.key) else { return };
        match outcome {
            Outcome::Delivered => {
                notification.sending = None;
                (notification.tries, notification.last_error) = (0, None);
                notification.delivered = item.event.is_firing().then_some(Delivered { at: Some(now_ms) });
                if (notification.event.number, notification.repeat) == (item.event.number, item.repeat) {
                    notification.queued_at = None;
                }
            }
            Outcome::Later { why, may_have, .. } => {
                notification.tries += 1;
                notification.last_error = Some(crate::sanitize::message(why, ERROR_CHARS_MAX));
                if !self.semantics.knows_key || !self.is_unsure {
                    notification.sending = None;
                }
                if !self.semantics.knows_key && *may_have {
                    notification.attempted();
                }
            }
            Outcome::Refused(why) => {
                notification.tries += 1;
                notification.last_error = Some(crate::sanitize::message(why, ERROR_CHARS_MAX));
                self.give_up(&item.event.key, Reason::Refused);
                return;
            }
        }
        self.settle(&item.event.key);
    }

    /// Keeps `waiting` true, and removes a notification of which nothing is left.
    pub(super) fn settle(&mut self, key: &AlertKey) {
        let Some(notification) = self.notifications.get(key) else { return };
        if notification.is_waiting() {
            self.waiting.insert(key.clone());
            return;
        }
        self.waiting.remove(key);
        if !notification.event.is_firing() {
            self.notifications.remove(key);
        }
    }
}

impl Notification {
    /// What is said of it in `GET /api/alerts`.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        Delivery {
            target: self.target.clone(),
            delivered_at: self.delivered.as_ref().and_then(|delivered| delivered.at).map(|at| at / 1000),
            tries: self.tries,
            last_error: self.last_error.clone(),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.queued_at.is_some() || self.sending.is_some()
    }

    pub(super) fn is_delivered_firing(&self) -> bool {
        self.event.is_firing() && self.delivered.is_some()
    }

    /// Notes an attempt whose outcome is not known.
    pub(super) fn attempted(&mut self) {
        self.delivered.get_or_insert(Delivered { at: None });
    }

    pub(super) fn item(&self) -> Option<Item> {
        Some(Item {
            event: self.event.clone(),
            repeat: self.repeat,
            is_past: !self.event.is_firing() && self.delivered.is_none(),
            queued_at: self.queued_at?,
        })
    }
}

/// The wait after a number of failures in a row: doubling, and between half of it and all of it.
pub(super) fn backoff_ms(failures: u32, random: u64) -> u64 {
    let whole = BACKOFF_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(BACKOFF_MAX_MS);
    whole / 2 + random % (whole / 2 + 1)
}
