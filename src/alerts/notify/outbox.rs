//! What each target is still to be told, and what it was told. No clock, no thread, no network: `now_ms` is an argument,
//! in milliseconds since the Unix epoch.
//!
//! A target has one notification for each alert. A newer event replaces an older one that was not sent. What an attempt of
//! unknown outcome may have told counts as told.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::batch::{Batch, Counts, Next, Outcome, Reason};
use super::queue::{
    Delivery, ERROR_CHARS_MAX, EXPIRES_MS, Notification, PAUSE_MS, Queue, RETRY_AFTER_MAX_MS, Semantics, backoff_ms,
};
use crate::alerts::event::{AlertKey, Event, Resolution, Severity};

/// How long a target fails before the other targets are told.
const FAILING_MS: u64 = 900_000;
/// The alert about a target that cannot be told.
pub const NOTIFY_ALERT: &str = "lizm-notify";

/// The notifications that have changed since they were last taken, for the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// What [`Outbox::stored`] is to be given once the store has them.
    pub serial: u64,
    /// Each with its target and alert; `None` is to be removed from the store.
    pub notifications: Vec<(SmolStr, AlertKey, Option<Notification>)>,
}

/// The queues of all targets.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: BTreeMap<SmolStr, Queue>,
    /// Notifications that have changed since [`Outbox::changes`].
    changed: BTreeSet<(SmolStr, AlertKey)>,
    serial: u64,
    stored: u64,
    /// The state of the generator of jitter.
    random: u64,
}

impl Outbox {
    /// Queues of `targets`, with the notifications that the store has kept. Those of targets that are gone are removed.
    /// `random` seeds the jitter.
    pub fn restore(
        targets: impl IntoIterator<Item = (SmolStr, Semantics)>,
        notifications: impl IntoIterator<Item = Notification>,
        random: u64,
        now_ms: u64,
    ) -> Self {
        let mut outbox = Self { random, ..Self::default() };
        outbox.set_targets(targets, now_ms);
        for mut notification in notifications {
            let (target, key) = (notification.target.clone(), notification.event.key.clone());
            let Some(queue) = outbox.queues.get_mut(&target) else {
                outbox.change(target, key);
                continue;
            };
            if !queue.semantics.knows_key && notification.sending.take().is_some() {
                // The process has ended between the attempt and its note.
                notification.attempted();
                outbox.change(target.clone(), key.clone());
            }
            let queue = outbox.queues.get_mut(&target).unwrap_or_else(|| unreachable!());
            queue.is_unsure |= notification.sending.is_some();
            if notification.is_waiting() {
                queue.waiting.insert(key.clone());
            }
            let (is_problem, event) =
                (key.name == NOTIFY_ALERT && notification.event.is_firing(), notification.event.clone());
            queue.notifications.insert(key.clone(), notification);
            match outbox.queues.get_mut(&key.series) {
                Some(failing) if is_problem => failing.problem = Some(event),
                None if is_problem => outbox.resolve_problem(event, Resolution::RuleRemoved, now_ms),
                _ => {}
            }
        }
        outbox
    }

    /// Takes another set of targets. Those that stay keep their notifications; the notifications of others are removed.
    pub fn set_targets(&mut self, targets: impl IntoIterator<Item = (SmolStr, Semantics)>, now_ms: u64) {
        let mut old = std::mem::take(&mut self.queues);
        for (name, semantics) in targets {
            let queue =
                old.remove(&name).map_or_else(|| Queue::new(semantics, now_ms), |queue| Queue { semantics, ..queue });
            self.queues.insert(name, queue);
        }
        for (name, queue) in old {
            queue.notifications.into_keys().for_each(|key| self.change(name.clone(), key));
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
            let is_queued = |(_, queue): &(&SmolStr, &Queue)| queue.notifications.contains_key(&event.key);
            self.queues.iter().filter(is_queued).map(|(name, _)| name.clone()).collect()
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
            let Some(notification) = queue.notifications.get_mut(&event.key) else { continue };
            let told_at = notification.delivered.as_ref().and_then(|told| told.at);
            if notification.queued_at.is_none()
                && notification.event.is_firing()
                && told_at.is_some_and(|at| now_ms.saturating_sub(at) >= every_ms)
            {
                // The number stays: it is the same transition. The value is the newest.
                notification.event = Event { number: notification.event.number, ..event.clone() };
                notification.repeat += 1;
                notification.queued_at = Some(now_ms);
                queue.waiting.insert(event.key.clone());
                self.change(target.into(), event.key.clone());
            }
        }
    }

    /// The notifications that have changed since the last call; `None` when there are none.
    pub fn changes(&mut self) -> Option<Changes> {
        let changed = std::mem::take(&mut self.changed);
        let of = |(target, key): (SmolStr, AlertKey)| {
            let notification = self.queues.get(&target).and_then(|queue| queue.notifications.get(&key)).cloned();
            (target, key, notification)
        };
        let changes = Changes { serial: self.serial, notifications: changed.into_iter().map(of).collect() };
        (!changes.notifications.is_empty()).then_some(changes)
    }

    /// Notes that the store has the changes up to `serial`.
    pub fn stored(&mut self, serial: u64) {
        self.stored = self.stored.max(serial);
    }

    /// Notes that the store has not taken `changes`: they are among those of the next call of [`Outbox::changes`].
    pub fn not_stored(&mut self, changes: Changes) {
        self.changed.extend(changes.notifications.into_iter().map(|(target, key, _)| (target, key)));
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
        self.queues.values().filter_map(|queue| queue.notifications.get(key)).map(Notification::delivery).collect()
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

/// The next of pseudo-random numbers (Marsaglia's xorshift64).
fn xorshift(state: u64) -> u64 {
    let mut state = state.max(1);
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

#[cfg(test)]
mod tests;
