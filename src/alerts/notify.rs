//! Telling: the targets, a thread for each, and what they are still to be told.
//!
//! The [`Outbox`] is the pure part. A [`Notifier`] runs it: one thread a target, so that one that hangs delays no other.
//! Nothing is sent before the store has it, and what was answered is noted in the store before the next message.

mod body;
mod exec;
mod http;
mod message;
mod outbox;
mod target;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::event::{AlertKey, Event};
use crate::clock::ReceiverClock;
use crate::supervisor::spawn_supervised;
pub use http::Client;
pub use outbox::{
    Batch, Changes, Counts, Delivery, Item, Manner, NOTIFY_ALERT, Next, Outbox, Outcome, Place, Reason, Told,
};
pub use target::Target;

/// How often a dead man's switch outside is asked, and how recent the last look of the rules must be.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);
/// Longest wait of a thread that has nothing to do.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// Tells targets, by a thread for each.
pub struct Notifier {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    clock: Arc<ReceiverClock>,
    client: Client,
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State {
    /// `None` while this process does not tell.
    outbox: Option<Outbox>,
    targets: BTreeMap<SmolStr, Arc<Target>>,
    /// Which threads go on: those of an older generation end.
    generation: u64,
    is_stopping: bool,
    judged_at: Option<Instant>,
}

impl Notifier {
    /// A notifier without targets. `wake` is called when there are [`Notifier::changes`] for the store; it must not wait.
    pub fn new(client: Client, clock: Arc<ReceiverClock>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let state =
            State { outbox: None, targets: BTreeMap::new(), generation: 0, is_stopping: false, judged_at: None };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), clock, client, wake: Box::new(wake) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes another set of targets. Those that stay under their name keep what they are still to be told.
    pub fn set_targets(&self, targets: impl IntoIterator<Item = Target>) {
        let mut state = self.shared.lock();
        state.targets = targets.into_iter().map(|target| (target.name().into(), Arc::new(target))).collect();
        state.generation += 1;
        let (manners, now_ms) = (state.manners(), self.shared.clock.now_ms());
        if let Some(outbox) = &mut state.outbox {
            outbox.set_targets(manners, now_ms);
        }
        for target in state.targets.values() {
            let (shared, target, generation) = (self.shared.clone(), target.clone(), state.generation);
            let name = format!("tell {}", target.name());
            if let Err(error) = spawn_supervised(&name, move || shared.run(&target, generation)) {
                log::error!("The thread of a target cannot be started: {error}");
            }
        }
        drop(state);
        self.shared.changed.notify_all();
        (self.shared.wake)();
    }

    /// Begins to tell, with what the store has kept.
    pub fn begin(&self, places: impl IntoIterator<Item = Place>) {
        let mut state = self.shared.lock();
        let (manners, now_ms) = (state.manners(), self.shared.clock.now_ms());
        state.outbox = Some(Outbox::restore(manners, places, RandomState::new().hash_one(0), now_ms));
        drop(state);
        self.shared.changed.notify_all();
        (self.shared.wake)();
    }

    /// Tells no more: another receiver does. What waits is in the store.
    pub fn end(&self) {
        self.shared.lock().outbox = None;
        self.shared.changed.notify_all();
    }

    /// Enqueues a transition: see [`Outbox::enqueue`]. It is sent once [`Notifier::stored`] says so.
    pub fn enqueue<'a>(&self, event: &Event, targets: impl IntoIterator<Item = &'a str>) {
        self.shared.with(|outbox, now_ms| outbox.enqueue(event, targets, now_ms));
    }

    /// Enqueues a repeat where it is due: see [`Outbox::remind`].
    pub fn remind<'a>(&self, event: &Event, targets: impl IntoIterator<Item = &'a str>, every: Duration) {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        self.shared.with(|outbox, now_ms| outbox.remind(event, targets, every_ms, now_ms));
    }

    /// What the store is to be given: with the transitions that were enqueued, in one write. It ends with
    /// [`Notifier::stored`] or [`Notifier::not_stored`].
    #[must_use]
    pub fn changes(&self) -> Option<Changes> {
        self.shared.lock().outbox.as_mut()?.changes()
    }

    /// Notes that the store has the changes up to `serial`.
    pub fn stored(&self, serial: u64) {
        self.shared.with(|outbox, _| outbox.stored(serial));
    }

    /// Notes that the store has not taken `changes`. They are given again.
    pub fn not_stored(&self, changes: Changes) {
        self.shared.with(|outbox, _| outbox.not_stored(changes));
    }

    /// Notes that the rules were judged, which heartbeats report.
    pub fn judged(&self) {
        self.shared.lock().judged_at = Some(Instant::now());
    }

    /// What each target was told of an alert.
    #[must_use]
    pub fn deliveries(&self, key: &AlertKey) -> Vec<Delivery> {
        self.shared.lock().outbox.as_ref().map_or_else(Vec::new, |outbox| outbox.deliveries(key))
    }

    /// The alerts about targets that cannot be told.
    #[must_use]
    pub fn problems(&self) -> Vec<Event> {
        self.shared.lock().outbox.as_ref().map_or_else(Vec::new, |outbox| outbox.problems().cloned().collect())
    }

    /// What was counted of each target since the start.
    #[must_use]
    pub fn counts(&self) -> Vec<(SmolStr, Counts)> {
        let of = |(name, counts): (&SmolStr, Counts)| (name.clone(), counts);
        self.shared.lock().outbox.as_ref().map_or_else(Vec::new, |outbox| outbox.counts().map(of).collect())
    }

    /// Ends the threads. One that waits for an answer ends when it has it, or with the process.
    pub fn stop(&self) {
        self.shared.lock().is_stopping = true;
        self.shared.changed.notify_all();
    }
}

impl State {
    /// The manners of the targets that are told alerts.
    fn manners(&self) -> Vec<(SmolStr, Manner)> {
        let manner = |(name, target): (&SmolStr, &Arc<Target>)| Some((name.clone(), target.manner()?));
        self.targets.iter().filter_map(manner).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the outbox, and has the threads look at it again.
    fn with(&self, change: impl FnOnce(&mut Outbox, u64)) {
        let now_ms = self.clock.now_ms();
        if let Some(outbox) = &mut self.lock().outbox {
            change(outbox, now_ms);
        }
        self.changed.notify_all();
    }

    fn run(&self, target: &Target, generation: u64) {
        if target.manner().is_some() { self.tell(target, generation) } else { self.beat(target, generation) }
    }

    /// Waits up to `wait` for a change; `None` where the thread is to end.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, wait: Duration, generation: u64) -> Option<MutexGuard<'a, State>> {
        let goes_on = |state: &State| !state.is_stopping && state.generation == generation;
        if !goes_on(&state) {
            return None;
        }
        let (state, _) = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
        goes_on(&state).then_some(state)
    }

    /// Tells one target, until there is another generation.
    fn tell(&self, target: &Target, generation: u64) {
        let mut state = Some(self.lock());
        while let Some(mut open) = state {
            let now_ms = self.clock.now_ms();
            let next = open.outbox.as_mut().map_or(Next::Idle, |outbox| outbox.next(target.name(), now_ms));
            let batch = match next {
                Next::Send(batch) => batch,
                Next::Wait(until) => {
                    state = self.wait(open, Duration::from_millis(until.saturating_sub(now_ms)), generation);
                    continue;
                }
                Next::Idle => {
                    state = self.wait(open, IDLE_WAIT, generation);
                    continue;
                }
            };
            let Some(open) = self.await_stored(open, batch.serial) else { return };
            drop(open);
            let outcome = target.send(&self.client, &batch, self.clock.now_ms());
            log_outcome(target, &batch, &outcome);
            let now_ms = self.clock.now_ms();
            let mut open = self.lock();
            let Some(outbox) = &mut open.outbox else {
                state = Some(open);
                continue;
            };
            outbox.done(&batch, &outcome, now_ms);
            let serial = outbox.serial();
            self.changed.notify_all();
            let Some(open) = self.await_stored(open, serial) else { return };
            state = Some(open);
        }
    }

    /// Waits until the store has the changes up to `serial`, or this process tells no more. `None` when it stops.
    fn await_stored<'a>(&'a self, state: MutexGuard<'a, State>, serial: u64) -> Option<MutexGuard<'a, State>> {
        drop(state);
        (self.wake)();
        let is_waiting = |state: &mut State| {
            !state.is_stopping && state.outbox.as_ref().is_some_and(|outbox| !outbox.is_stored(serial))
        };
        let state = self.changed.wait_while(self.lock(), is_waiting).unwrap_or_else(PoisonError::into_inner);
        (!state.is_stopping).then_some(state)
    }

    /// Asks a dead man's switch each minute while the rules are judged.
    fn beat(&self, target: &Target, generation: u64) {
        let mut state = Some(self.lock());
        let mut due = Instant::now();
        while let Some(open) = state {
            let is_judged = open.judged_at.is_some_and(|at| at.elapsed() < HEARTBEAT_EVERY);
            if !is_judged || due > Instant::now() {
                state = self.wait(open, Duration::from_secs(1), generation);
                continue;
            }
            drop(open);
            due = Instant::now() + HEARTBEAT_EVERY;
            if let Outcome::Later { why, .. } | Outcome::Refused(why) = target.beat(&self.client) {
                log::warn!("Target {}: {why}", target.name());
            }
            state = Some(self.lock());
        }
    }
}

/// Logs what failed. What is tried again is logged at its first try alone.
fn log_outcome(target: &Target, batch: &Batch, outcome: &Outcome) {
    let (name, count) = (target.name(), batch.items.len());
    match outcome {
        Outcome::Delivered => log::info!("Target {name} was told {count} alerts"),
        Outcome::Later { why, .. } => log::warn!("Target {name} is tried again: {why}"),
        Outcome::Refused(why) => log::error!("Target {name} has refused {count} alerts: {why}"),
    }
}
