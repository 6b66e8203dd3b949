//! Telling: the targets, a thread for each, and what they are still to be told.
//!
//! The [`Outbox`] is the pure part. A [`Notifier`] runs it: one thread a target, so that one that hangs delays no other.
//! Nothing is sent before the store has it, or its owner says that it cannot; what was answered is noted in the store before
//! the next message.

mod batch;
mod body;
mod exec;
mod http;
mod message;
mod outbox;
mod queue;
mod target;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::event::{AlertKey, Event};
use crate::clock::ReceiverClock;
use crate::supervisor::spawn_supervised;
pub use batch::{Batch, Counts, Item, Next, Outcome, Reason};
pub use http::Client;
pub(super) use message::rfc3339;
pub use outbox::{Changes, NOTIFY_ALERT, Outbox};
pub use queue::{Delivered, Delivery, Notification, Semantics};
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
    /// How often the outbox has become another.
    term: u64,
    /// What another receiver has told, while that one tells.
    followed: Vec<Notification>,
    /// Until when this process may send; `None` where no other does.
    sends_until: Option<Instant>,
    targets: BTreeMap<SmolStr, Arc<Target>>,
    /// Which threads go on: those of an older generation end.
    generation: u64,
    is_stopping: bool,
    judged_at: Option<Instant>,
}

impl Notifier {
    /// A notifier without targets. `wake` is called when there are [`Notifier::changes`] for the store; it must not wait.
    pub fn new(client: Client, clock: Arc<ReceiverClock>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let state = State {
            outbox: None,
            term: 0,
            followed: Vec::new(),
            sends_until: None,
            targets: BTreeMap::new(),
            generation: 0,
            is_stopping: false,
            judged_at: None,
        };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), clock, client, wake: Box::new(wake) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes another set of targets. Those that stay under their name keep what they are still to be told.
    pub fn set_targets(&self, targets: impl IntoIterator<Item = Target>) {
        let mut state = self.shared.lock();
        state.targets = targets.into_iter().map(|target| (target.name().into(), Arc::new(target))).collect();
        state.generation += 1;
        let (semantics, now_ms) = (state.semantics(), self.shared.clock.now_ms());
        if let Some(outbox) = &mut state.outbox {
            outbox.set_targets(semantics, now_ms);
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
    pub fn begin(&self, notifications: impl IntoIterator<Item = Notification>) {
        let mut state = self.shared.lock();
        let (semantics, now_ms) = (state.semantics(), self.shared.clock.now_ms());
        state.outbox = Some(Outbox::restore(semantics, notifications, RandomState::new().hash_one(0), now_ms));
        state.term += 1;
        drop(state);
        self.shared.changed.notify_all();
        (self.shared.wake)();
    }

    /// Tells no more: another receiver does. What waits is in the store.
    pub fn end(&self) {
        let mut state = self.shared.lock();
        state.outbox = None;
        state.term += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Shows what another receiver has told.
    pub fn follow(&self, notifications: Vec<Notification>) {
        self.shared.lock().followed = notifications;
    }

    /// Sends until this time, and then no more unless it is told a later one: another receiver may do so by then.
    pub fn send_until(&self, until: Instant) {
        self.shared.lock().sends_until = Some(until);
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
        let state = self.shared.lock();
        let of_others =
            || state.followed.iter().filter(|one| one.event.key == *key).map(Notification::delivery).collect();
        state.outbox.as_ref().map_or_else(of_others, |outbox| outbox.deliveries(key))
    }

    /// The alerts about targets that cannot be told.
    #[must_use]
    pub fn problems(&self) -> Vec<Event> {
        let state = self.shared.lock();
        let of_others = || {
            let events = state.followed.iter().map(|one| &one.event);
            let problems = events.filter(|event| event.key.name == NOTIFY_ALERT && event.is_firing());
            problems.map(|event| (&event.key, event)).collect::<BTreeMap<_, _>>().into_values().cloned().collect()
        };
        state.outbox.as_ref().map_or_else(of_others, |outbox| outbox.problems().cloned().collect())
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
    /// The outbox, if it is still that of `term`.
    fn outbox_of(&mut self, term: u64) -> Option<&mut Outbox> {
        self.outbox.as_mut().filter(|_| self.term == term)
    }

    /// The semantics of the targets that are told alerts.
    fn semantics(&self) -> Vec<(SmolStr, Semantics)> {
        let semantics = |(name, target): (&SmolStr, &Arc<Target>)| Some((name.clone(), target.semantics()?));
        self.targets.iter().filter_map(semantics).collect()
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
        if target.semantics().is_some() { self.tell(target, generation) } else { self.beat(target, generation) }
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
            if open.sends_until.is_some_and(|until| until <= Instant::now()) {
                state = self.wait(open, Duration::from_secs(1), generation);
                continue;
            }
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
            let term = open.term;
            let open = self.await_stored(open, batch.serial);
            if open.is_stopping {
                return;
            }
            if open.term != term {
                state = Some(open);
                continue;
            }
            drop(open);
            let outcome = target.send(&self.client, &batch, self.clock.now_ms());
            log_outcome(target, &batch, &outcome);
            let now_ms = self.clock.now_ms();
            let mut open = self.lock();
            if let Some(outbox) = open.outbox_of(term) {
                outbox.done(&batch, &outcome, now_ms);
                let serial = outbox.serial();
                open = self.await_stored(open, serial);
            }
            state = Some(open);
        }
    }

    /// Waits until the store has the changes up to `serial`, this process tells no more, or it stops.
    fn await_stored<'a>(&'a self, state: MutexGuard<'a, State>, serial: u64) -> MutexGuard<'a, State> {
        let term = state.term;
        drop(state);
        self.changed.notify_all();
        (self.wake)();
        let is_waiting = |state: &mut State| {
            let is_stored = state.outbox.as_ref().is_none_or(|outbox| outbox.is_stored(serial));
            !state.is_stopping && state.term == term && !is_stored
        };
        self.changed.wait_while(self.lock(), is_waiting).unwrap_or_else(PoisonError::into_inner)
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

/// Logs what came of a message. That an Alertmanager was told again what still fires is no news.
fn log_outcome(target: &Target, batch: &Batch, outcome: &Outcome) {
    let (name, count) = (target.name(), batch.items.len());
    match outcome {
        Outcome::Delivered if count == 0 => {}
        Outcome::Delivered => log::info!("Target {name} was told {count} alerts"),
        Outcome::Later { why, .. } => log::warn!("Target {name} is tried again: {why}"),
        Outcome::Refused(why) => log::error!("Target {name} has refused {count} alerts: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::{self, Receiver};
    use std::thread;

    use super::super::event::{Resolution, Severity};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A server that answers 200 to each request once it may, and what it hears.
    fn play(answers: bool) -> (SocketAddr, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut buffer) = (String::new(), [0; 4096]);
                while !request.contains("\"version\"") {
                    let read = stream.read(&mut buffer).unwrap();
                    request += std::str::from_utf8(&buffer[..read]).unwrap();
                }
                let _ = sender.send(request);
                if answers {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                } else {
                    open.push(stream);
                }
            }
        });
        (address, heard)
    }

    fn event(number: u64) -> Event {
        Event {
            key: AlertKey { name: "disk".into(), host: "a".into(), series: "disk:/".into() },
            severity: Severity::Warning,
            resolution: None,
            value: None,
            test: None,
            rule: String::new(),
            text: None,
            fired_at: 1,
            resolved_at: None,
            number,
        }
    }

    /// A notifier whose store is a map, and what wakes it.
    struct Stored {
        notifier: Notifier,
        woken: Receiver<()>,
        notifications: BTreeMap<(SmolStr, AlertKey), Notification>,
    }

    impl Stored {
        fn new(targets: &[(&str, SocketAddr)]) -> Self {
            let (wake, woken) = mpsc::channel();
            let clock = Arc::new(ReceiverClock::default());
            let notifier = Notifier::new(Client::new(None).unwrap(), clock, move || _ = wake.send(()));
            let target = |(name, address): &(&str, SocketAddr)| {
                Target::new(name, "webhook", &[format!("http://{address}/")], Vec::new()).unwrap()
            };
            notifier.set_targets(targets.iter().map(target));
            Self { notifier, woken, notifications: BTreeMap::new() }
        }

        /// Enqueues as if it had been ten seconds ago, so that it is sent at once.
        fn begin(&mut self, event: &Event) {
            let now_ms = u64::try_from(crate::clock::unix_now().as_millis()).unwrap() - 10_000;
            let semantics = self.notifier.shared.lock().semantics();
            let mut outbox = Outbox::restore(semantics, self.notifications.values().cloned(), 1, now_ms);
            outbox.enqueue(event, ["good", "hangs"], now_ms);
            self.take(outbox.changes().unwrap());
            self.notifier.begin(self.notifications.values().cloned());
        }

        fn take(&mut self, changes: Changes) {
            for (target, key, notification) in changes.notifications {
                match notification {
                    Some(notification) => drop(self.notifications.insert((target, key), notification)),
                    None => drop(self.notifications.remove(&(target, key))),
                }
            }
        }

        /// Keeps what changes until `is_done`.
        fn keep_until(&mut self, is_done: impl Fn(&Self) -> bool) {
            let deadline = Instant::now() + PATIENCE;
            while !is_done(self) {
                assert!(Instant::now() < deadline, "{:?}", self.notifications);
                let _ = self.woken.recv_timeout(Duration::from_millis(100));
                if let Some(changes) = self.notifier.changes() {
                    let serial = changes.serial;
                    self.take(changes);
                    self.notifier.stored(serial);
                }
            }
        }

        fn notification(&self, target: &str) -> Option<&Notification> {
            self.notifications.get(&(target.into(), event(0).key))
        }
    }

    #[test]
    fn a_target_that_hangs_delays_no_other_and_what_was_told_is_kept() {
        let ((hangs, of_hangs), (good, of_good)) = (play(false), play(true));
        let mut stored = Stored::new(&[("hangs", hangs), ("good", good)]);
        stored.begin(&event(1));
        stored.keep_until(|stored| {
            stored.notification("good").is_some_and(|notification| notification.delivered.is_some())
        });
        assert!(of_good.recv_timeout(PATIENCE).unwrap().contains("firing"));
        assert!(of_hangs.recv_timeout(PATIENCE).unwrap().contains("firing"));
        let sending = stored.notification("hangs").and_then(|notification| notification.sending.clone());
        assert_eq!(sending.map(|item| item.event.number), Some(1), "that it is being sent was kept before");
        let deliveries = stored.notifier.deliveries(&event(0).key);
        assert_eq!(deliveries.iter().map(|told| told.delivered_at.is_some()).collect::<Vec<_>>(), [true, false]);
        // Another term begins while a message is under way: it goes on from what is kept.
        stored.notifier.end();
        assert!(stored.notifier.changes().is_none() && stored.notifier.counts().is_empty());
        let resolved = Event { resolution: Some(Resolution::Good), resolved_at: Some(2), ..event(2) };
        stored.begin(&resolved);
        stored.keep_until(|stored| stored.notification("good").is_none());
        assert!(of_good.recv_timeout(PATIENCE).unwrap().contains("resolved"));
        assert!(stored.notification("hangs").is_some());
        stored.notifier.stop();
    }

    #[test]
    fn nothing_is_sent_that_is_not_kept() {
        let (good, heard) = play(true);
        let mut stored = Stored::new(&[("good", good)]);
        stored.begin(&event(1));
        // The store does not take it: the thread waits, until another receiver tells.
        let deadline = Instant::now() + PATIENCE;
        let changes = loop {
            assert!(Instant::now() < deadline);
            let _ = stored.woken.recv_timeout(Duration::from_millis(100));
            if let Some(changes) = stored.notifier.changes() {
                break changes;
            }
        };
        stored.notifier.not_stored(changes);
        stored.notifier.end();
        assert!(heard.try_recv().is_err());
        stored.begin(&event(2));
        stored.keep_until(|stored| {
            stored.notification("good").is_some_and(|notification| notification.delivered.is_some())
        });
        assert_eq!(stored.notification("good").map(|notification| notification.event.number), Some(2));
        stored.notifier.stop();
    }
}
