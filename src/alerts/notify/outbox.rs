//! What each target is still to be told, and what it was told. No clock, no thread, no network: `now_ms` is an argument,
//! in milliseconds since the Unix epoch.
//!
//! A target has one place for each alert. A newer event replaces an older one that was not sent. What an attempt of
//! unknown outcome may have told counts as told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::alerts::event::{AlertKey, Event, Resolution, Severity};

/// How long the first event waits for others that go in the same message.
const GROUP_MS: u64 = 10_000;
/// Least time between two messages of one target.
const PAUSE_MS: u64 = 1000;
/// First wait after an attempt that failed; it doubles up to the longest.
const BACKOFF_FIRST_MS: u64 = 1000;
const BACKOFF_MAX_MS: u64 = 300_000;
/// Longest wait that a target may ask for.
const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
/// How long an event is kept that cannot be told.
const EXPIRES_MS: u64 = 86_400_000;
/// How long a target fails before the other targets are told.
const FAILING_MS: u64 = 900_000;
/// How often an Alertmanager is told what still fires.
const REFRESH_MS: u64 = 60_000;
/// Most characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 300;
/// The alert about a target that cannot be told.
pub const NOTIFY_ALERT: &str = "lizm-notify";

/// What the kind of a target asks of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Most events of one message.
    pub batch_max: usize,
    /// Whether the target knows a message again by its key. One of unknown outcome is then sent again as it was.
    pub knows_key: bool,
    /// Whether the target forgets what it is not told every minute.
    pub forgets: bool,
}

/// One target's place for one alert: what the store keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The name of the target.
    pub target: SmolStr,
    /// The newest event.
    pub event: Event,
    /// Since when the newest event waits, in milliseconds; `None` once it was told or given up.
    pub queued_at: Option<u64>,
    /// Which repeat of the event it is.
    pub repeat: u32,
    /// That the alert fires was told, or may have been.
    pub told: Option<Told>,
    /// What is being sent, or was with an outcome that is not known.
    pub sending: Option<Item>,
    /// Attempts since the last one that succeeded.
    pub tries: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// What a target was told of a firing alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When, in milliseconds; `None` when no answer has confirmed it.
    pub at: Option<u64>,
}

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
    /// Send this, and report by [`Outbox::done`].
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

/// The places that have changed since they were last taken, for the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// What [`Outbox::stored`] is to be given once the store has them.
    pub serial: u64,
    /// Each with its target and alert; `None` is to be removed from the store.
    pub places: Vec<(SmolStr, AlertKey, Option<Place>)>,
}

/// The queues of all targets.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: BTreeMap<SmolStr, Queue>,
    /// Places that have changed since [`Outbox::changes`].
    changed: BTreeSet<(SmolStr, AlertKey)>,
    serial: u64,
    stored: u64,
    /// The state of the generator of jitter.
    random: u64,
}

#[derive(Debug)]
struct Queue {
    manner: Manner,
    places: BTreeMap<AlertKey, Place>,
    /// Keys of places that have something to tell.
    waiting: BTreeSet<AlertKey>,
    is_sending: bool,
    /// Whether the target may have the message that is being sent, from an attempt before.
    is_unsure: bool,
    not_before: u64,
    /// Attempts in a row that failed, and since when.
    failures: u32,
    failing_since: Option<u64>,
    /// The alert about this target, which the other targets are told.
    problem: Option<Event>,
    refreshed_at: u64,
    counts: Counts,
}

impl Outbox {
    /// Queues of `targets`, with the places that the store has kept. Places of targets that are gone are removed.
    /// `random` seeds the jitter.
    pub fn restore(
        targets: impl IntoIterator<Item = (SmolStr, Manner)>,
        places: impl IntoIterator<Item = Place>,
        random: u64,
        now_ms: u64,
    ) -> Self {
        let mut outbox = Self { random, ..Self::default() };
        outbox.set_targets(targets, now_ms);
        for mut place in places {
            let (target, key) = (place.target.clone(), place.event.key.clone());
            let Some(queue) = outbox.queues.get_mut(&target) else {
                outbox.change(target, key);
                continue;
            };
            if !queue.manner.knows_key && place.sending.take().is_some() {
                // The process has ended between the attempt and its note.
                place.attempted();
                outbox.change(target.clone(), key.clone());
            }
            let queue = outbox.queues.get_mut(&target).unwrap_or_else(|| unreachable!());
            queue.is_unsure |= place.sending.is_some();
            if place.is_waiting() {
                queue.waiting.insert(key.clone());
            }
            let (is_problem, event) = (key.name == NOTIFY_ALERT && place.event.is_firing(), place.event.clone());
            queue.places.insert(key.clone(), place);
            match outbox.queues.get_mut(&key.series) {
                Some(failing) if is_problem => failing.problem = Some(event),
                None if is_problem => outbox.resolve_problem(event, Resolution::RuleRemoved, now_ms),
                _ => {}
            }
        }
        outbox
    }

    /// Takes another set of targets. Those that stay keep their places; the places of others are removed.
    pub fn set_targets(&mut self, targets: impl IntoIterator<Item = (SmolStr, Manner)>, now_ms: u64) {
        let mut old = std::mem::take(&mut self.queues);
        for (name, manner) in targets {
            let queue = old.remove(&name).map_or_else(|| Queue::new(manner, now_ms), |queue| Queue { manner, ..queue });
            self.queues.insert(name, queue);
        }
        for (name, queue) in old {
            queue.places.into_keys().for_each(|key| self.change(name.clone(), key));
            if let Some(problem) = queue.problem {
                self.resolve_problem(problem, Resolution::RuleRemoved, now_ms);
            }
        }
    }

    /// Enqueues a transition. That an alert fires is told to `targets`; that it is resolved is told to those who were told
    /// that it fires, or would be. An event whose number a target has already changes nothing.
    pub fn enqueue<'a>(&mut self, event: &Event, targets: impl IntoIterator<Item = &'a str>, now_ms: u64) {
        let targets: Vec<SmolStr> = if event.is_firing() {
            targets
                .into_iter()
                .filter_map(|name| self.queues.get_key_value(name))
                .map(|(name, _)| name.clone())
                .collect()
        } else {
            let has_place = |(_, queue): &(&SmolStr, &Queue)| queue.places.contains_key(&event.key);
            self.queues.iter().filter(has_place).map(|(name, _)| name.clone()).collect()
        };
        for target in targets {
            let Some(queue) = self.queues.get_mut(&target) else { continue };
            if queue.enqueue(&target, event, now_ms) {
                self.change(target, event.key.clone());
            }
        }
    }

    /// Enqueues what still fires once more for those of `targets` that were last told `every_ms` ago or before.
    pub fn remind<'a>(
        &mut self,
        event: &Event,
        targets: impl IntoIterator<Item = &'a str>,
        every_ms: u64,
        now_ms: u64,
    ) {
        for target in targets {
            let Some(queue) = self.queues.get_mut(target) else { continue };
            let Some(place) = queue.places.get_mut(&event.key) else { continue };
            let told_at = place.told.as_ref().and_then(|told| told.at);
            if place.queued_at.is_none()
                && place.event.is_firing()
                && told_at.is_some_and(|at| now_ms.saturating_sub(at) >= every_ms)
            {
                // The number stays: it is the same transition. The value is the newest.
                place.event = Event { number: place.event.number, ..event.clone() };
                place.repeat += 1;
                place.queued_at = Some(now_ms);
                queue.waiting.insert(event.key.clone());
                self.change(target.into(), event.key.clone());
            }
        }
    }

    /// The places that have changed since the last call; `None` when there are none.
    pub fn changes(&mut self) -> Option<Changes> {
        let changed = std::mem::take(&mut self.changed);
        let of = |(target, key): (SmolStr, AlertKey)| {
            let place = self.queues.get(&target).and_then(|queue| queue.places.get(&key)).cloned();
            (target, key, place)
        };
        let changes = Changes { serial: self.serial, places: changed.into_iter().map(of).collect() };
        (!changes.places.is_empty()).then_some(changes)
    }

    /// Notes that the store has the changes up to `serial`.
    pub fn stored(&mut self, serial: u64) {
        self.stored = self.stored.max(serial);
    }

    /// Notes that the store has not taken `changes`: they are among those of the next call of [`Outbox::changes`].
    pub fn not_stored(&mut self, changes: Changes) {
        self.changed.extend(changes.places.into_iter().map(|(target, key, _)| (target, key)));
    }

    /// Whether the store has the changes up to `serial`.
    #[must_use]
    pub fn is_stored(&self, serial: u64) -> bool {
        self.stored >= serial
    }

    /// The serial of the last change.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// What each target was told of an alert.
    #[must_use]
    pub fn deliveries(&self, key: &AlertKey) -> Vec<Delivery> {
        let places = self.queues.values().filter_map(|queue| queue.places.get(key));
        let delivery = |place: &Place| Delivery {
            target: place.target.clone(),
            delivered_at: place.told.as_ref().and_then(|told| told.at).map(|at| at / 1000),
            tries: place.tries,
            last_error: place.last_error.clone(),
        };
        places.map(delivery).collect()
    }

    /// The alerts about targets that cannot be told.
    pub fn problems(&self) -> impl Iterator<Item = &Event> {
        self.queues.values().filter_map(|queue| queue.problem.as_ref())
    }

    /// What was counted of each target.
    pub fn counts(&self) -> impl Iterator<Item = (&SmolStr, Counts)> {
        let of = |queue: &Queue| Counts { queued: queue.waiting.len(), ..queue.counts };
        self.queues.iter().map(move |(name, queue)| (name, of(queue)))
    }

    /// What `target` has to do now.
    pub fn next(&mut self, target: &str, now_ms: u64) -> Next {
        let Some(queue) = self.queues.get_mut(target) else { return Next::Idle };
        if queue.is_sending {
            return Next::Idle;
        }
        let expired = queue.expire(now_ms);
        let count = expired.len();
        expired.into_iter().for_each(|key| self.change(target.into(), key));
        if count > 0 {
            let hours = EXPIRES_MS / 3_600_000;
            log::error!("Target {target} was not told {count} alerts within {hours} hours: they are dropped");
            self.raise_problem(target, &format!("{count} alerts were not told within {hours} hours"), now_ms);
        }
        let Some(queue) = self.queues.get_mut(target) else { return Next::Idle };
        if let Some(wait) = queue.wait(now_ms) {
            return wait;
        }
        let (still, items) = (queue.still(now_ms), queue.begin());
        let keys: Vec<AlertKey> = items.iter().map(|item| item.event.key.clone()).collect();
        keys.into_iter().for_each(|key| self.change(target.into(), key));
        Next::Send(Batch { still, serial: self.serial, ..Batch::new(target.into(), items) })
    }

    /// Notes what came of a message that [`Outbox::next`] gave.
    pub fn done(&mut self, batch: &Batch, outcome: &Outcome, now_ms: u64) {
        self.random = xorshift(self.random);
        let random = self.random;
        let Some(queue) = self.queues.get_mut(&batch.target) else { return };
        queue.is_sending = false;
        queue.is_unsure |= matches!(outcome, Outcome::Later { may_have: true, .. });
        for item in &batch.items {
            queue.note(item, outcome, now_ms);
        }
        let failing_for = queue.failing_since.map_or(0, |since| now_ms.saturating_sub(since));
        let problem = match outcome {
            Outcome::Delivered => {
                queue.counts.delivered += 1;
                (queue.failures, queue.failing_since) = (0, None);
                queue.not_before = now_ms + PAUSE_MS;
                if !batch.still.is_empty() {
                    queue.refreshed_at = now_ms;
                }
                None
            }
            Outcome::Later { why, reason, retry_after_ms, .. } => {
                queue.counts.failed[*reason as usize] += 1;
                queue.failures += 1;
                queue.failing_since.get_or_insert(now_ms);
                let wait = retry_after_ms
                    .map_or_else(|| backoff_ms(queue.failures, random), |asked| asked.min(RETRY_AFTER_MAX_MS));
                queue.not_before = now_ms + wait.max(PAUSE_MS);
                (failing_for >= FAILING_MS).then_some(why)
            }
            Outcome::Refused(why) => {
                queue.counts.failed[Reason::Refused as usize] += 1;
                queue.not_before = now_ms + PAUSE_MS;
                queue.refreshed_at = now_ms;
                Some(why)
            }
        };
        match (problem, queue.problem.clone()) {
            (Some(why), _) => self.raise_problem(&batch.target, why, now_ms),
            (None, Some(problem)) if *outcome == Outcome::Delivered => {
                self.resolve_problem(problem, Resolution::Good, now_ms);
            }
            _ => {}
        }
        batch.items.iter().for_each(|item| self.change(batch.target.clone(), item.event.key.clone()));
    }

    /// Tells the other targets that `target` cannot be told, once until it can.
    fn raise_problem(&mut self, target: &str, why: &str, now_ms: u64) {
        let Some(queue) = self.queues.get_mut(target).filter(|queue| queue.problem.is_none()) else { return };
        let event = Event {
            key: AlertKey { name: NOTIFY_ALERT.into(), host: SmolStr::default(), series: target.into() },
            severity: Severity::Critical,
            resolution: None,
            value: None,
            test: None,
            rule: String::new(),
            text: Some(format!("the target {target} is not told: {}", crate::sanitize::message(why, ERROR_CHARS_MAX))),
            fired_at: now_ms / 1000,
            resolved_at: None,
            number: now_ms,
        };
        queue.problem = Some(event.clone());
        let others: Vec<SmolStr> = self.queues.keys().filter(|name| *name != target).cloned().collect();
        self.enqueue(&event, others.iter().map(SmolStr::as_str), now_ms);
    }

    fn resolve_problem(&mut self, problem: Event, resolution: Resolution, now_ms: u64) {
        if let Some(queue) = self.queues.get_mut(&problem.key.series) {
            queue.problem = None;
        }
        let number = now_ms.max(problem.number + 1);
        let resolved_at = Some(now_ms / 1000);
        self.enqueue(&Event { resolution: Some(resolution), resolved_at, number, ..problem }, [], now_ms);
    }

    fn change(&mut self, target: SmolStr, key: AlertKey) {
        self.serial += 1;
        self.changed.insert((target, key));
    }
}

impl Queue {
    fn new(manner: Manner, now_ms: u64) -> Self {
        Self {
            manner,
            places: BTreeMap::new(),
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
    fn enqueue(&mut self, target: &SmolStr, event: &Event, now_ms: u64) -> bool {
        match self.places.get_mut(&event.key) {
            Some(place) if event.number <= place.event.number => return false,
            // Nobody was told, and nobody is to be.
            Some(place) if !event.is_firing() && place.told.is_none() && !place.is_waiting() => {
                self.places.remove(&event.key);
                return true;
            }
            Some(place) => {
                (place.event, place.queued_at, place.repeat) = (event.clone(), Some(now_ms), 0);
            }
            None => {
                let place = Place {
                    target: target.clone(),
                    event: event.clone(),
                    queued_at: Some(now_ms),
                    repeat: 0,
                    told: None,
                    sending: None,
                    tries: 0,
                    last_error: None,
                };
                self.places.insert(event.key.clone(), place);
            }
        }
        self.waiting.insert(event.key.clone());
        true
    }

    /// Drops what has waited for too long, and returns the keys.
    fn expire(&mut self, now_ms: u64) -> Vec<AlertKey> {
        let is_old = |key: &&AlertKey| {
            let place = self.places.get(*key);
            let since = place.and_then(|place| match &place.sending {
                Some(item) => Some(item.queued_at),
                None => place.queued_at,
            });
            since.is_some_and(|since| now_ms.saturating_sub(since) > EXPIRES_MS)
        };
        let keys: Vec<AlertKey> = self.waiting.iter().filter(is_old).cloned().collect();
        keys.iter().for_each(|key| self.give_up(key, Reason::Expired));
        keys
    }

    /// Gives up what is being sent, or else what waits.
    fn give_up(&mut self, key: &AlertKey, reason: Reason) {
        let Some(place) = self.places.get_mut(key) else { return };
        if reason == Reason::Expired {
            self.counts.failed[reason as usize] += 1;
            place.last_error = Some("it has waited for a day".to_owned());
        }
        let number = place.sending.take().map_or(place.event.number, |item| item.event.number);
        if number == place.event.number {
            place.queued_at = None;
        }
        self.settle(key);
    }

    /// What `next` answers when there is nothing to send now.
    fn wait(&self, now_ms: u64) -> Option<Next> {
        let forgotten_at = self.manner.forgets.then(|| self.refreshed_at + REFRESH_MS);
        let refresh_at = forgotten_at.filter(|_| self.places.values().any(Place::is_told_firing));
        let is_frozen = |key: &AlertKey| self.places.get(key).is_some_and(|place| place.sending.is_some());
        let first = self.waiting.iter().filter_map(|key| self.places.get(key)?.queued_at).min();
        let grouped_at = if self.waiting.iter().any(is_frozen) { Some(0) } else { first.map(|at| at + GROUP_MS) };
        let Some(at) = grouped_at.into_iter().chain(refresh_at).min() else { return Some(Next::Idle) };
        let at = at.max(self.not_before);
        // A time further ahead than any wait can be is from before the clock was set back.
        (at > now_ms && at <= now_ms + RETRY_AFTER_MAX_MS).then_some(Next::Wait(at))
    }

    /// Takes the items of the next message.
    fn begin(&mut self) -> Vec<Item> {
        self.is_sending = true;
        let waiting = || self.waiting.iter().filter_map(|key| self.places.get(key));
        let frozen: Vec<Item> = waiting().filter_map(|place| place.sending.clone()).collect();
        if !frozen.is_empty() {
            return frozen;
        }
        self.is_unsure = false;
        let mut places: Vec<&Place> = waiting().collect();
        places.sort_by_key(|place| (place.tries, Reverse(place.event.severity), place.queued_at));
        let items: Vec<Item> = places.into_iter().take(self.manner.batch_max).filter_map(Place::item).collect();
        for item in &items {
            if let Some(place) = self.places.get_mut(&item.event.key) {
                place.sending = Some(item.clone());
            }
        }
        items
    }

    /// What a target that forgets is told again.
    fn still(&self, now_ms: u64) -> Vec<Event> {
        if !self.manner.forgets || now_ms.saturating_sub(self.refreshed_at) < REFRESH_MS {
            return Vec::new();
        }
        let places = self.places.values().filter(|place| place.is_told_firing() && !place.is_waiting());
        places.map(|place| place.event.clone()).collect()
    }

    /// Notes what came of one item.
    fn note(&mut self, item: &Item, outcome: &Outcome, now_ms: u64) {
        let Some(place) = self.places.get_mut(&item.event.key) else { return };
        match outcome {
            Outcome::Delivered => {
                place.sending = None;
                (place.tries, place.last_error) = (0, None);
                place.told = item.event.is_firing().then_some(Told { at: Some(now_ms) });
                if (place.event.number, place.repeat) == (item.event.number, item.repeat) {
                    place.queued_at = None;
                }
            }
            Outcome::Later { why, may_have, .. } => {
                place.tries += 1;
                place.last_error = Some(crate::sanitize::message(why, ERROR_CHARS_MAX));
                if !self.manner.knows_key || !self.is_unsure {
                    place.sending = None;
                }
                if !self.manner.knows_key && *may_have {
                    place.attempted();
                }
            }
            Outcome::Refused(why) => {
                place.tries += 1;
                place.last_error = Some(crate::sanitize::message(why, ERROR_CHARS_MAX));
                self.give_up(&item.event.key, Reason::Refused);
                return;
            }
        }
        self.settle(&item.event.key);
    }

    /// Keeps `waiting` true, and removes a place of which nothing is left.
    fn settle(&mut self, key: &AlertKey) {
        let Some(place) = self.places.get(key) else { return };
        if place.is_waiting() {
            self.waiting.insert(key.clone());
            return;
        }
        self.waiting.remove(key);
        if !place.event.is_firing() {
            self.places.remove(key);
        }
    }
}

impl Place {
    fn is_waiting(&self) -> bool {
        self.queued_at.is_some() || self.sending.is_some()
    }

    fn is_told_firing(&self) -> bool {
        self.event.is_firing() && self.told.is_some()
    }

    /// Notes an attempt whose outcome is not known.
    fn attempted(&mut self) {
        self.told.get_or_insert(Told { at: None });
    }

    fn item(&self) -> Option<Item> {
        Some(Item {
            event: self.event.clone(),
            repeat: self.repeat,
            is_past: !self.event.is_firing() && self.told.is_none(),
            queued_at: self.queued_at?,
        })
    }
}

/// The wait after a number of failures in a row: doubling, and between half of it and all of it.
fn backoff_ms(failures: u32, random: u64) -> u64 {
    let whole = BACKOFF_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(BACKOFF_MAX_MS);
    whole / 2 + random % (whole / 2 + 1)
}

/// The next of pseudo-random numbers (Marsaglia's xorshift64).
fn xorshift(state: u64) -> u64 {
    let mut state = state.max(1);
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const PEOPLE: Manner = Manner { batch_max: 1000, knows_key: false, forgets: false };
    const WEBHOOK: Manner = Manner { knows_key: true, ..PEOPLE };
    const PAGER: Manner = Manner { batch_max: 1, ..PEOPLE };
    const ALERTMANAGER: Manner = Manner { forgets: true, ..PEOPLE };
    const START: u64 = 1_800_000_000_000;
    const MIN: u64 = 60_000;
    const HOUR: u64 = 60 * MIN;

    fn outbox(targets: &[(&str, Manner)]) -> Outbox {
        let targets = targets.iter().map(|(name, manner)| (SmolStr::from(*name), *manner));
        Outbox::restore(targets, [], 7, START)
    }

    fn firing(host: &str, number: u64) -> Event {
        Event {
            key: AlertKey { name: "disk".into(), host: host.into(), series: "disk:/".into() },
            severity: Severity::Warning,
            resolution: None,
            value: Some(96.5),
            test: None,
            rule: "disk: disk > 90".to_owned(),
            text: None,
            fired_at: START / 1000,
            resolved_at: None,
            number,
        }
    }

    fn resolved(host: &str, number: u64) -> Event {
        Event { resolution: Some(Resolution::Good), resolved_at: Some(START / 1000 + 60), ..firing(host, number) }
    }

    fn later(may_have: bool) -> Outcome {
        Outcome::Later { why: "HTTP 500".to_owned(), reason: Reason::Busy, retry_after_ms: None, may_have }
    }

    fn asked(retry_after_ms: u64) -> Outcome {
        let retry_after_ms = Some(retry_after_ms);
        Outcome::Later { why: "HTTP 429".to_owned(), reason: Reason::Busy, retry_after_ms, may_have: false }
    }

    /// Goes on to the next message of a target, within a day and an hour.
    fn await_batch(outbox: &mut Outbox, target: &str, now: &mut u64) -> Option<Batch> {
        let end = *now + 25 * HOUR;
        while *now < end {
            match outbox.next(target, *now) {
                Next::Send(batch) => return Some(batch),
                Next::Idle => return None,
                Next::Wait(until) => {
                    assert!(until > *now);
                    *now = until;
                }
            }
        }
        panic!("it waits for ever");
    }

    /// What a message says: hosts with `+` firing, `-` resolved, `~` over and told late, `*` repeats.
    fn said(batch: &Batch) -> String {
        let sign = |item: &Item| match item {
            Item { is_past: true, .. } => '~',
            Item { repeat: 1.., .. } => '*',
            item if item.event.is_firing() => '+',
            _ => '-',
        };
        batch.items.iter().map(|item| format!("{}{}", sign(item), item.event.key.host)).collect::<Vec<_>>().join(" ")
    }

    /// Takes the next message and its outcome.
    fn tell(outbox: &mut Outbox, target: &str, now: &mut u64, outcome: &Outcome) -> String {
        let Some(batch) = await_batch(outbox, target, now) else { return String::new() };
        outbox.done(&batch, outcome, *now);
        said(&batch)
    }

    fn places(outbox: &mut Outbox) -> Vec<Place> {
        outbox.queues.values().flat_map(|queue| queue.places.values().cloned()).collect()
    }

    #[test]
    fn what_begins_within_ten_seconds_goes_together() {
        let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE), ("other", PEOPLE)]), START);
        outbox.enqueue(&firing("a", 1), ["ops"], now);
        assert_eq!(outbox.next("ops", now), Next::Wait(START + 10_000));
        outbox.enqueue(&firing("b", 2), ["ops", "unknown"], now + 9999);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "+a +b");
        assert_eq!(now, START + 10_000);
        assert_eq!((outbox.next("ops", now), outbox.next("other", now)), (Next::Idle, Next::Idle));
        // What is enqueued while a message is under way goes with the next, a second later at least.
        outbox.enqueue(&resolved("a", 3), [], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "-a");
        let of_b = outbox.deliveries(&firing("b", 2).key);
        assert_eq!((of_b.len(), of_b[0].delivered_at, of_b[0].tries), (1, Some(START / 1000 + 10), 0));
        assert_eq!(outbox.deliveries(&firing("a", 1).key), [], "what is over is forgotten");
    }

    #[test]
    fn there_is_at_most_a_message_a_second() {
        let (mut outbox, mut now) = (outbox(&[("pager", PAGER)]), START);
        for number in 1..=20 {
            outbox.enqueue(
                &Event { severity: Severity::Info, ..firing(&format!("h{number:02}"), number) },
                ["pager"],
                now,
            );
        }
        outbox.enqueue(&Event { severity: Severity::Critical, ..firing("z", 21) }, ["pager"], now);
        assert_eq!(tell(&mut outbox, "pager", &mut now, &Outcome::Delivered), "+z", "the worst goes first");
        for number in 1..=20 {
            let before = now;
            assert_eq!(tell(&mut outbox, "pager", &mut now, &Outcome::Delivered), format!("+h{number:02}"));
            assert_eq!(now - before, 1000);
        }
    }

    #[test]
    fn newer_replaces_older_and_what_is_over_is_told_as_one() {
        let ok = Outcome::Delivered;
        // Each: what is enqueued with its outcome of each attempt, and what is then told.
        let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
        outbox.enqueue(&firing("a", 1), ["ops"], now);
        outbox.enqueue(&resolved("a", 2), [], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "~a", "neither was sent");
        assert_eq!(places(&mut outbox), []);
        // A rise replaces the first level, and what was told before is resolved in full.
        outbox.enqueue(&firing("a", 3), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+a");
        outbox.enqueue(&firing("a", 4), ["ops"], now);
        outbox.enqueue(&resolved("a", 5), [], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "-a");
        // Resolved and firing again before it is told: the target knows that it fires.
        outbox.enqueue(&firing("a", 6), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+a");
        outbox.enqueue(&resolved("a", 7), [], now);
        outbox.enqueue(&firing("a", 8), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+a");
        outbox.enqueue(&resolved("a", 9), [], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "-a");
        // What comes while the message is under way.
        outbox.enqueue(&firing("a", 10), ["ops"], now);
        let batch = await_batch(&mut outbox, "ops", &mut now).unwrap();
        outbox.enqueue(&resolved("a", 11), [], now);
        assert_eq!(outbox.next("ops", now), Next::Idle, "one at a time");
        outbox.done(&batch, &ok, now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "-a");
        // What failed for certain becomes one; what may have been told is resolved.
        for (may_have, expected) in [(false, "~a"), (true, "-a")] {
            let number = now;
            outbox.enqueue(&firing("a", number), ["ops"], now);
            assert_eq!(tell(&mut outbox, "ops", &mut now, &later(may_have)), "+a");
            outbox.enqueue(&resolved("a", number + 1), [], now);
            assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), expected);
        }
        // What nobody was told is not resolved, and an event is taken once.
        outbox.enqueue(&resolved("b", 1), [], now);
        assert_eq!(outbox.next("ops", now), Next::Idle);
        outbox.enqueue(&firing("c", 5), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+c");
        outbox.enqueue(&firing("c", 5), ["ops"], now);
        outbox.enqueue(&firing("c", 4), ["ops"], now);
        assert_eq!(outbox.next("ops", now), Next::Idle);
    }

    #[test]
    fn a_webhook_gets_a_message_of_unknown_outcome_again_as_it_was() {
        let (mut outbox, mut now) = (outbox(&[("hook", WEBHOOK)]), START);
        outbox.enqueue(&firing("a", 1), ["hook"], now);
        outbox.enqueue(&firing("b", 2), ["hook"], now);
        let first = await_batch(&mut outbox, "hook", &mut now).unwrap();
        outbox.done(&first, &later(true), now);
        outbox.enqueue(&resolved("a", 3), [], now);
        outbox.enqueue(&firing("c", 4), ["hook"], now);
        // Over a restart too.
        let kept = places(&mut outbox);
        outbox = Outbox::restore([("hook".into(), WEBHOOK)], kept, 1, now);
        let second = await_batch(&mut outbox, "hook", &mut now).unwrap();
        assert_eq!((&second.items, &second.key), (&first.items, &first.key));
        outbox.done(&second, &Outcome::Delivered, now);
        let third = await_batch(&mut outbox, "hook", &mut now).unwrap();
        assert_eq!(said(&third), "-a +c");
        assert_ne!(third.key, first.key);
        // An answer that says no is one: what is sent then has the newest state, and another key.
        outbox.done(&third, &later(false), now);
        outbox.enqueue(&firing("a", 5), ["hook"], now);
        let fourth = await_batch(&mut outbox, "hook", &mut now).unwrap();
        assert_eq!(said(&fourth), "+c +a", "a first try goes before a second");
    }

    #[test]
    fn a_restart_tells_what_may_not_have_been_told() {
        for (manner, expected) in [(PEOPLE, "+a"), (WEBHOOK, "+a"), (PAGER, "+a"), (ALERTMANAGER, "+a")] {
            let (mut outbox, mut now) = (outbox(&[("ops", manner)]), START);
            outbox.enqueue(&firing("a", 1), ["ops"], now);
            let batch = await_batch(&mut outbox, "ops", &mut now).unwrap();
            let kept = places(&mut outbox);
            // The process ends here: the message is sent again, and then no more.
            outbox = Outbox::restore([("ops".into(), manner)], kept, 1, now);
            let again = await_batch(&mut outbox, "ops", &mut now).unwrap();
            assert_eq!((said(&again), again.key == batch.key), (expected.to_owned(), true));
            outbox.done(&again, &Outcome::Delivered, now);
            let kept = places(&mut outbox);
            outbox = Outbox::restore([("ops".into(), manner)], kept.clone(), 1, now);
            if !manner.forgets {
                assert_eq!(outbox.next("ops", now + HOUR), Next::Idle);
            }
            // It is resolved to those who may know.
            outbox.enqueue(&resolved("a", 2), [], now);
            assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "-a");
            // A target that is gone takes its places with it.
            outbox = Outbox::restore([], kept, 1, now);
            let changes = outbox.changes().unwrap();
            assert!(changes.places.iter().all(|(target, _, place)| target == "ops" && place.is_none()));
        }
    }

    #[test]
    fn waits_double_and_have_an_end() {
        let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
        outbox.enqueue(&firing("a", 1), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+a");
        let mut waits = Vec::new();
        for _ in 0..14 {
            let before = now;
            assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+a");
            waits.push(now - before);
        }
        for (tries, wait) in waits.iter().enumerate() {
            let whole = (1000 << tries).min(300_000);
            assert!((whole / 2).max(1000) <= *wait && *wait <= whole, "{tries}: {wait}");
        }
        let delivery = &outbox.deliveries(&firing("a", 1).key)[0];
        assert_eq!((delivery.tries, delivery.last_error.as_deref()), (15, Some("HTTP 500")));
        // The target's own wait wins, up to an hour, and the next failure does not.
        for (ask, wait) in [(0, 1000), (20_000, 20_000), (HOUR, HOUR), (u64::MAX, HOUR)] {
            assert_eq!(tell(&mut outbox, "ops", &mut now, &asked(ask)), "+a");
            let before = now;
            assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+a");
            assert_eq!(now - before, wait);
        }
        assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "+a");
        outbox.enqueue(&firing("b", 2), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+b");
        let before = now;
        assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "+b");
        assert_eq!(now - before, 1000, "the first wait is the shortest again");
        assert_eq!(outbox.counts().next().unwrap().1, Counts { delivered: 2, failed: [0, 24, 0, 0], queued: 0 });
    }

    #[test]
    fn one_target_that_fails_delays_no_other() {
        let (mut outbox, mut now) = (outbox(&[("bad", WEBHOOK), ("good", PEOPLE)]), START);
        outbox.enqueue(&firing("a", 1), ["bad", "good"], now);
        let hanging = await_batch(&mut outbox, "bad", &mut now).unwrap();
        assert_eq!(tell(&mut outbox, "good", &mut now, &Outcome::Delivered), "+a");
        for number in 1..50 {
            outbox.enqueue(&resolved("a", 2 * number), [], now);
            assert_eq!(tell(&mut outbox, "good", &mut now, &Outcome::Delivered), "-a");
            outbox.enqueue(&firing("a", 2 * number + 1), ["bad", "good"], now);
            assert_eq!(tell(&mut outbox, "good", &mut now, &Outcome::Delivered), "+a");
        }
        let bad = outbox.counts().next().unwrap();
        assert_eq!((bad.0.as_str(), bad.1.queued), ("bad", 1), "one place for an alert");
        outbox.done(&hanging, &Outcome::Delivered, now);
    }

    #[test]
    fn what_a_target_refuses_is_told_through_the_others_once() {
        let (mut outbox, mut now) = (outbox(&[("bad", PEOPLE), ("good", PEOPLE)]), START);
        let refused = Outcome::Refused("HTTP 404 no_service\u{1b}".to_owned());
        outbox.enqueue(&firing("a", 1), ["bad"], now);
        assert_eq!(tell(&mut outbox, "bad", &mut now, &refused), "+a");
        assert_eq!(outbox.next("bad", now + HOUR), Next::Idle, "it is given up");
        let batch = await_batch(&mut outbox, "good", &mut now).unwrap();
        let event = &batch.items[0].event;
        assert_eq!((&*event.key.name, &*event.key.series), (NOTIFY_ALERT, "bad"));
        assert_eq!(event.text.as_deref(), Some("the target bad is not told: HTTP 404 no_service\u{fffd}"));
        outbox.done(&batch, &Outcome::Delivered, now);
        assert_eq!(outbox.problems().count(), 1);
        // What was refused is not resolved, and further ones are not told again.
        outbox.enqueue(&resolved("a", 2), [], now);
        outbox.enqueue(&firing("b", 3), ["bad"], now);
        assert_eq!(tell(&mut outbox, "bad", &mut now, &refused), "+b");
        assert_eq!(outbox.next("good", now + HOUR), Next::Idle);
        // A restart remembers it; what is delivered again resolves it.
        let kept = places(&mut outbox);
        outbox = Outbox::restore([("bad".into(), PEOPLE), ("good".into(), PEOPLE)], kept, 1, now);
        outbox.enqueue(&firing("c", 4), ["bad"], now);
        assert_eq!(tell(&mut outbox, "bad", &mut now, &Outcome::Delivered), "+c");
        let batch = await_batch(&mut outbox, "good", &mut now).unwrap();
        assert_eq!((batch.items[0].event.resolution, batch.items[0].is_past), (Some(Resolution::Good), false));
        outbox.done(&batch, &Outcome::Delivered, now);
        assert_eq!((outbox.problems().count(), outbox.deliveries(&event.key).len()), (0, 0));
        // Two that refuse do not tell each other for ever.
        for number in 10..30 {
            outbox.enqueue(&firing("d", number), ["bad", "good"], now);
            tell(&mut outbox, "bad", &mut now, &refused);
            tell(&mut outbox, "good", &mut now, &refused);
        }
        assert!(places(&mut outbox).len() <= 6, "{:?}", places(&mut outbox));
    }

    #[test]
    fn a_target_that_fails_for_long_is_told_of_and_what_is_a_day_old_is_dropped() {
        let (mut outbox, mut now) = (outbox(&[("gone", PEOPLE), ("good", PEOPLE)]), START);
        outbox.enqueue(&firing("a", 1), ["gone"], now);
        while now < START + 14 * MIN {
            assert_eq!(outbox.problems().count(), 0);
            assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "+a");
        }
        while now < START + 22 * MIN {
            assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "+a");
        }
        assert_eq!(outbox.problems().count(), 1);
        // A newer event begins its own day.
        now = START + 23 * HOUR;
        outbox.enqueue(&resolved("a", 2), [], now);
        now = START + 40 * HOUR;
        assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "~a");
        now = START + 47 * HOUR + 1;
        assert_eq!(outbox.next("gone", now), Next::Idle);
        let (_, counts) = outbox.counts().next().unwrap();
        assert_eq!((counts.failed[Reason::Expired as usize], counts.queued), (1, 0));
        assert_eq!(outbox.deliveries(&firing("a", 1).key), []);
    }

    #[test]
    fn repeats_run_from_the_last_one_delivered() {
        let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
        let event = firing("a", 1);
        outbox.remind(&event, ["ops"], HOUR, now);
        outbox.enqueue(&event, ["ops"], now);
        outbox.remind(&event, ["ops"], 0, now);
        let first = await_batch(&mut outbox, "ops", &mut now).unwrap();
        now += 5 * HOUR;
        outbox.remind(&event, ["ops"], HOUR, now);
        outbox.done(&first, &Outcome::Delivered, now);
        outbox.remind(&event, ["ops"], HOUR, now + HOUR - 1);
        assert_eq!(outbox.next("ops", now + HOUR - 1), Next::Idle, "not before it was delivered for an hour");
        now += HOUR;
        let newer = Event { value: Some(99.0), ..event.clone() };
        outbox.remind(&newer, ["ops"], HOUR, now);
        outbox.remind(&newer, ["ops"], HOUR, now);
        let second = await_batch(&mut outbox, "ops", &mut now).unwrap();
        assert_eq!((said(&second), second.items[0].event.value), ("*a".to_owned(), Some(99.0)));
        assert_ne!(second.key, first.key);
        outbox.done(&second, &Outcome::Delivered, now);
        assert_eq!(outbox.next("ops", now + HOUR), Next::Idle);
    }

    #[test]
    fn an_alertmanager_is_told_each_minute_what_still_fires() {
        let (mut outbox, mut now) = (outbox(&[("am", ALERTMANAGER)]), START);
        outbox.enqueue(&firing("a", 1), ["am"], now);
        let batch = await_batch(&mut outbox, "am", &mut now).unwrap();
        assert_eq!((said(&batch).as_str(), batch.still.len()), ("+a", 0));
        outbox.done(&batch, &Outcome::Delivered, now);
        outbox.stored(outbox.serial());
        _ = outbox.changes();
        for _ in 0..3 {
            let before = now;
            let batch = await_batch(&mut outbox, "am", &mut now).unwrap();
            assert_eq!((batch.items.len(), batch.still.len()), (0, 1));
            outbox.done(&batch, &Outcome::Delivered, now);
            assert!(now - before <= MIN && outbox.changes().is_none(), "nothing is written for it");
        }
        // After a restart at once, and no more when it is resolved.
        let kept = places(&mut outbox);
        outbox = Outbox::restore([("am".into(), ALERTMANAGER)], kept, 1, now);
        let before = now;
        let batch = await_batch(&mut outbox, "am", &mut now).unwrap();
        assert_eq!((batch.still.len(), now), (1, before));
        outbox.done(&batch, &later(false), now);
        outbox.enqueue(&resolved("a", 2), [], now);
        assert_eq!(tell(&mut outbox, "am", &mut now, &Outcome::Delivered), "-a");
        assert_eq!(outbox.next("am", now + HOUR), Next::Idle);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_nothing_for_long() {
        let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
        outbox.enqueue(&firing("a", 1), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &asked(HOUR)), "+a");
        let mut before = now - 100 * HOUR;
        assert_eq!(tell(&mut outbox, "ops", &mut before, &Outcome::Delivered), "+a");
        assert_eq!(before, now - 100 * HOUR);
    }

    #[test]
    fn a_place_is_kept_as_it_is() {
        let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
        let test = Some((crate::alerts::event::Comparison::AtLeast, 0.1));
        outbox.enqueue(&Event { test, text: Some("ä\n".to_owned()), ..firing("a", 1) }, ["ops"], now);
        let changes = outbox.changes().unwrap();
        assert!(outbox.changes().is_none() && !outbox.is_stored(changes.serial));
        outbox.not_stored(changes.clone());
        assert_eq!(outbox.changes(), Some(changes.clone()));
        outbox.stored(changes.serial);
        let batch = await_batch(&mut outbox, "ops", &mut now).unwrap();
        assert!(!outbox.is_stored(batch.serial), "that it is being sent is kept before it is");
        for place in places(&mut outbox) {
            let text = serde_json::to_string(&place).unwrap();
            assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place, "{text}");
        }
    }

    /// One step of the property test.
    #[derive(Debug, Clone)]
    enum Step {
        Fire(u8),
        Resolve(u8),
        Pass(u64),
        Send(u8),
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..4u8).prop_map(Step::Fire),
            (0..4u8).prop_map(Step::Resolve),
            (0..400_000u64).prop_map(Step::Pass),
            (0..6u8).prop_map(Step::Send),
            (0..6u8).prop_map(Step::Send),
            Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        /// Whatever fails, a target knows in the end what fires, nothing is told twice to one that knows keys, and
        /// nothing is resolved that it was not told.
        #[test]
        fn a_target_knows_in_the_end_what_fires(steps in steps(), knows_key: bool, is_pager: bool) {
            let manner = Manner { batch_max: if is_pager { 1 } else { 1000 }, knows_key, forgets: false };
            let mut outbox = Outbox::restore([("t".into(), manner)], [], 3, START);
            let (mut now, mut number, mut last_sent) = (START, 0, 0);
            let mut truth: HashMap<String, bool> = HashMap::new();
            // What the target has taken: of each alert whether it fires; keys; events, with how often.
            let mut known: HashMap<String, bool> = HashMap::new();
            let mut keys = BTreeSet::new();
            let mut taken: HashMap<(String, u64), u32> = HashMap::new();
            let mut unsure = 0;
            for step in steps.into_iter().chain((0..30).map(|_| Step::Pass(400_000))) {
                let is_end = matches!(step, Step::Pass(400_000));
                match &step {
                    Step::Fire(host) | Step::Resolve(host) => {
                        number += 1;
                        let (host, fires) = (format!("h{host}"), matches!(step, Step::Fire(_)));
                        let event = if fires { firing(&host, number) } else { resolved(&host, number) };
                        outbox.enqueue(&event, ["t"], now);
                        truth.insert(host, fires);
                    }
                    Step::Pass(ms) => now += ms,
                    Step::Restart => {
                        let kept = places(&mut outbox);
                        outbox = Outbox::restore([("t".into(), manner)], kept, 5, now);
                        last_sent = 0;
                    }
                    Step::Send(_) => {}
                }
                let kind = match step { Step::Send(kind) => kind, _ if is_end => 0, _ => continue };
                let Next::Send(batch) = outbox.next("t", now) else { continue };
                prop_assert!(now >= last_sent + PAUSE_MS);
                last_sent = now;
                let is_taken = matches!(kind, 0..=2 | 4);
                if is_taken && (!knows_key || keys.insert(batch.key.clone())) {
                    for item in &batch.items {
                        let host = item.event.key.host.to_string();
                        *taken.entry((host.clone(), item.event.number)).or_default() += 1;
                        let knew = known.insert(host, item.event.is_firing()) == Some(true);
                        if !item.event.is_firing() && knows_key {
                            prop_assert!(knew != item.is_past, "resolved what was not told, or late what was");
                        }
                    }
                }
                match kind {
                    0..=2 => outbox.done(&batch, &Outcome::Delivered, now),
                    3 => outbox.done(&batch, &later(false), now),
                    4 => { unsure += 1; outbox.done(&batch, &later(true), now) }
                    // The process ends before it has sent.
                    _ => {
                        let kept = places(&mut outbox);
                        outbox = Outbox::restore([("t".into(), manner)], kept, 5, now);
                        last_sent = 0;
                    }
                }
            }
            for (host, fires) in truth {
                prop_assert_eq!(known.get(&host).copied().unwrap_or(false), fires, "{}", host);
            }
            for (event, count) in taken {
                prop_assert!(count <= 1 + if knows_key { 0 } else { unsure }, "{:?}: {}", event, count);
            }
            prop_assert_eq!(outbox.counts().next().unwrap().1.queued, 0);
        }
    }
}
