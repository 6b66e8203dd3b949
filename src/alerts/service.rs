//! The thread that evaluates the rules: it reads them again when they change, evaluates every ten seconds, and keeps what
//! fires and what is to be sent in the store.
//!
//! Transitions and their messages are written in one batch, and a message is sent once the store has it, or cannot take it.
//! Of receivers that share a store one evaluates: it holds a lease, and the store takes no records of another.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem, process};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::alert::{Alert, Transition};
use super::evaluator::{Evaluator, Outcome};
use super::event::{AlertKey, Event};
use super::notify::{Client, Notification, Notifier};
use super::rules::{Retention, Rules, Silence, parse, parse_span};
use super::source::Options;
use crate::clock::ReceiverClock;
use crate::reload::Reloaded;
use crate::sample::SampleRef;
use crate::store::{AlertLease, Records, Store, StoreError, Swap};
use crate::supervisor::spawn_supervised;

/// Time between two evaluations.
pub(super) const EVALUATE_EVERY: Duration = Duration::from_secs(10);
/// Time between two checks of the file, and of the lease.
const TICK: Duration = Duration::from_secs(1);
/// How long a lease lasts that is not renewed: a receiver that is killed is replaced within this time.
const LEASE: Duration = Duration::from_secs(20);
/// How long before its end a receiver sends nothing any more that cannot renew it: another may begin by then.
const LEASE_SPARE: Duration = Duration::from_secs(5);
/// Transitions that are remembered for people.
const HISTORY_MAX: u64 = 1000;
/// Silences that may be asked for at a time.
const SILENCES_MAX: usize = 1000;
/// Longest silence that may be asked for: one that is longer belongs into the file.
const SILENCE_SEC_MAX: u64 = 31 * 86_400;
/// The series that the receiver offers of its own host: days until its certificate ends, below 0 since.
const CERT_DAYS: &str = "cert-days";
const DAY_SEC: f64 = 86_400.0;
/// Labels of which is remembered how far rules look back at them.
const LABELS_MAX: usize = 100_000;
/// What the keys of records begin with.
const ALERT: char = 's';
const NOTIFICATION: char = 'p';
const SILENCE: char = 'q';
const TRANSITION: char = 'h';
const KINDS: [char; 4] = [ALERT, NOTIFICATION, SILENCE, TRANSITION];

/// A silence that was asked for while the receiver runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AskedSilence {
    alerts: String,
    hosts: String,
    from: u64,
    to: u64,
}

impl AskedSilence {
    /// As a line of a file has it.
    fn parse(&self) -> Result<Silence, String> {
        let Self { alerts, hosts, from, to } = self;
        if alerts.chars().chain(hosts.chars()).any(char::is_control) {
            return Err("silence: has control characters".to_owned());
        }
        let on = if hosts.is_empty() { String::new() } else { format!(" on {hosts}") };
        let line = format!("silence {alerts}{on} {from} to {to}");
        let rules = parse(&[("silence", &line)], Retention::default(), |_| None);
        let rules = rules.map_err(|mistakes| mistakes.first().map_or(String::new(), |mistake| mistake.why.clone()))?;
        rules.silences.into_iter().next().ok_or_else(|| "silence: names no alerts".to_owned())
    }
}

/// A transition with its number among all that were remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Remembered {
    serial: u64,
    pub(super) event: Event,
}

/// The alerts of a receiver.
pub struct Alerts {
    pub(super) store: Arc<Store>,
    clock: Arc<ReceiverClock>,
    rules: Reloaded<Mutex<Option<Rules>>>,
    pub(super) notifier: Notifier,
    state: Mutex<State>,
    is_stopping: AtomicBool,
    wake: SyncSender<()>,
    /// The name of this process in the lease.
    holder: String,
    /// The host of the receiver, and the file of its certificate.
    certificate: Option<(String, PathBuf)>,
}

pub(super) struct State {
    pub(super) evaluator: Evaluator,
    pub(super) rules: Arc<Rules>,
    /// How far the rules look back at labels, as far as that was asked.
    reach: HashMap<SmolStr, Option<[[u64; 2]; 2]>>,
    silences: Vec<AskedSilence>,
    pub(super) history: VecDeque<Remembered>,
    /// What the store does not have yet.
    unsaved: Records,
    pub(super) evaluated_at: Option<u64>,
    /// Whether it is known that the store takes no records.
    has_failed: bool,
    /// The lease, while this receiver is the one that evaluates.
    lease: Option<AlertLease>,
    /// Since when the store answers: absence is counted from then on.
    reachable_since: Option<u64>,
}

/// What the store has of alerts.
#[derive(Default)]
struct Stored {
    alerts: Vec<Alert>,
    notifications: Vec<Notification>,
    silences: Vec<AskedSilence>,
    history: Vec<Remembered>,
}

impl Stored {
    fn read(store: &Store, kinds: &[char]) -> Result<Self, StoreError> {
        let mut stored = Self::default();
        for kind in kinds {
            for (_, record) in store.records(*kind)? {
                let record = record.unwrap_or_default();
                let is_read = match *kind {
                    ALERT => serde_json::from_slice(&record).map(|alert| stored.alerts.push(alert)),
                    NOTIFICATION => serde_json::from_slice(&record).map(|one| stored.notifications.push(one)),
                    SILENCE => serde_json::from_slice(&record).map(|silence| stored.silences.push(silence)),
                    _ => serde_json::from_slice(&record).map(|transition| stored.history.push(transition)),
                };
                if let Err(error) = is_read {
                    log::error!("Alerts: a record of the store is left out: {error}");
                }
            }
        }
        stored.history.sort_by_key(|transition| transition.serial);
        Ok(stored)
    }

    /// The highest number of a transition.
    fn last_number(&self) -> u64 {
        let notifications = self.notifications.iter().map(|notification| notification.event.number);
        notifications.chain(self.history.iter().map(|transition| transition.event.number)).max().unwrap_or(0)
    }
}

impl Alerts {
    /// Reads the rules and what the store has of alerts, and starts to evaluate and to notify.
    ///
    /// # Errors
    /// The mistakes in the rules; or why the store cannot be read.
    pub fn start(
        options: &Options,
        store: Arc<Store>,
        clock: Arc<ReceiverClock>,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (source, retention) = (options.clone(), Retention::from(&store.keep()));
        let files = options.file.iter().cloned().collect();
        let rules =
            Reloaded::new(files, move || Ok(Mutex::new(Some(source.read(retention)?)))).map_err(io::Error::other)?;
        let client = Client::new(options.notify_ca.as_deref()).map_err(io::Error::other)?;
        let (wake, woken) = sync_channel(1);
        let notify = wake.clone();
        let notifier = Notifier::new(client, clock.clone(), move || {
            let _ = notify.try_send(());
        });
        let state = State {
            evaluator: Evaluator::new(Arc::default(), Vec::new(), clock.now_sec()),
            rules: Arc::default(),
            reach: HashMap::new(),
            silences: Vec::new(),
            history: VecDeque::new(),
            unsaved: Records::new(),
            evaluated_at: None,
            has_failed: false,
            lease: None,
            reachable_since: Some(clock.now_sec()),
        };
        let holder = format!("{} {:016x}", process::id(), RandomState::new().hash_one(0));
        let (is_stopping, certificate) = (AtomicBool::new(false), options.certificate.clone());
        let service =
            Self { store, clock, rules, notifier, state: Mutex::new(state), is_stopping, wake, holder, certificate };
        let service = Arc::new(service);
        service.reload();
        if !service.store.is_shared() {
            service.renew_lease().map_err(|error| io::Error::other(error.to_string()))?;
        }
        let evaluating = service.clone();
        let thread = spawn_supervised("alerts", move || evaluating.run(&woken))?;
        Ok((service, thread))
    }

    /// One line on what is evaluated.
    #[must_use]
    pub fn description(&self) -> String {
        let more = match (self.store.is_durable(), self.store.is_shared()) {
            (false, _) => "; a store in memory forgets at a restart what fires and what was told",
            (_, true) => ", by one of the receivers that share the store",
            _ => "",
        };
        format!("Alerts: {} rules are judged{more}", self.state().rules.rules.len())
    }

    /// Ends the thread, when the store has what is known.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let _ = self.wake.try_send(());
        self.notifier.stop();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, woken: &Receiver<()>) {
        let (mut next, mut renew_at, mut was_well) = (Instant::now(), Instant::now(), true);
        while !self.is_stopping.load(Ordering::Relaxed) {
            self.reload();
            if self.store.is_shared() && Instant::now() >= renew_at {
                renew_at = Instant::now() + TICK;
                // The store says by itself that it does not answer. It is asked again in a second.
                let _ = self.renew_lease();
            }
            if Instant::now() >= next {
                next = Instant::now() + EVALUATE_EVERY;
                self.record_certificate();
                let done = if self.state().lease.is_some() { self.evaluate() } else { self.follow() };
                if let (Err(error), true) = (&done, was_well) {
                    log::error!("Alerts: the rules are not judged: {error}");
                }
                was_well = done.is_ok();
            }
            self.save();
            let _ = woken.recv_timeout(TICK);
        }
        self.save();
        if self.store.is_shared() && self.state().lease.take().is_some() {
            // Another need not wait for its end.
            let _ = self.store.lease_alerts(&self.holder, Duration::ZERO);
        }
    }

    /// Takes the rules of the file where it has changed.
    fn reload(&self) {
        let current = self.rules.current();
        let taken = current.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = self.state();
        state.evaluator.set_config_error(self.rules.error());
        let Some(mut rules) = taken else { return };
        rules.default_notify = rules.own_targets();
        let targets = mem::take(&mut rules.targets);
        state.rules = Arc::new(rules);
        state.reach.clear();
        let rules = state.rules.clone();
        state.evaluator.set_rules(rules);
        drop(state);
        self.notifier.set_targets(targets);
    }

    /// Takes the lease or renews it. With a new one it begins with what the store has.
    fn renew_lease(&self) -> Result<(), StoreError> {
        let until = Instant::now() + LEASE - LEASE_SPARE;
        let lease = self.store.lease_alerts(&self.holder, LEASE)?;
        let mut state = self.state();
        match lease {
            Some(lease) if state.lease.as_ref() == Some(&lease) => {}
            Some(lease) => {
                let stored = Stored::read(&self.store, &KINDS)?;
                let notifications = state.take(stored, self.clock.now_sec());
                state.lease = Some(lease);
                drop(state);
                self.notifier.begin(notifications);
                if self.store.is_shared() {
                    log::info!("Alerts: this receiver evaluates the rules from now on");
                }
            }
            None => {
                if state.lease.take().is_some() {
                    drop(state);
                    self.notifier.end();
                    log::warn!("Alerts: another receiver evaluates the rules now");
                }
                return Ok(());
            }
        }
        if self.store.is_shared() {
            self.notifier.send_until(until);
        }
        Ok(())
    }

    /// Records for how many days the receiver's own certificate is valid yet, where a rule asks for it.
    fn record_certificate(&self) {
        let is_asked = self.state().rules.rules.iter().any(|rule| rule.test.names(CERT_DAYS));
        let Some((host, file)) = self.certificate.as_ref().filter(|_| is_asked) else { return };
        let now = self.clock.now_sec();
        #[cfg(feature = "tls")]
        let end = crate::auth::certificate_end(file);
        #[cfg(not(feature = "tls"))]
        let end: Result<u64, String> = Err(format!("{}: {}", file.display(), crate::features::WITHOUT_TLS));
        let recorded = end.and_then(|end| {
            let values = [(CERT_DAYS.into(), (end as f64 - now as f64) / DAY_SEC)];
            let sample = SampleRef { host, epoch: now, values: &values };
            self.store.record(sample, None, now).map_err(|error| error.to_string())
        });
        if let Err(error) = recorded {
            log::error!("Alerts: {CERT_DAYS} is not known: {error}");
        }
    }

    /// Shows what another receiver has found.
    fn follow(&self) -> Result<(), StoreError> {
        let stored = Stored::read(&self.store, &KINDS)?;
        let notifications = self.state().take(stored, self.clock.now_sec());
        self.notifier.follow(notifications);
        Ok(())
    }

    /// Evaluates what has changed, and queues what is to be sent.
    fn evaluate(&self) -> Result<(), StoreError> {
        let now = self.clock.now_sec();
        let read = self.store.pulses(now).and_then(|pulses| match self.store.is_shared() {
            true => Ok((pulses, Some(Stored::read(&self.store, &[SILENCE])?.silences))),
            false => Ok((pulses, None)),
        });
        let mut state = self.state();
        let (pulses, silences) = match read {
            Ok(read) => read,
            Err(error) => {
                state.reachable_since = None;
                return Err(error);
            }
        };
        if state.reachable_since.is_none() {
            // Nobody could report meanwhile.
            state.reachable_since = Some(now);
            state.evaluator.count_absence_from(now);
        }
        if let Some(silences) = silences {
            state.silences = silences;
        }
        state.take_silences(now);
        let State { evaluator, rules, reach, .. } = &mut *state;
        let mut failed = None;
        if reach.len() > LABELS_MAX {
            reach.clear();
        }
        let outcome = evaluator.evaluate(now, &pulses, |pulse, may_fire| {
            if failed.is_some() {
                return None;
            }
            let intervals = |label: &SmolStr| {
                let known = reach.get(label).copied();
                let reach = known.unwrap_or_else(|| *reach.entry(label.clone()).or_insert(rules.reach(label)));
                reach.map(|reach| reach[usize::from(may_fire)])
            };
            self.store.tails(pulse, intervals, now).map_err(|error| failed = Some(error)).ok()
        });
        let Outcome { transitions, reminders, changes } = outcome;
        for (key, alert) in changes {
            let record = alert.map(|alert| serde_json::to_vec(&alert).unwrap_or_default());
            state.unsaved.insert(record_key(ALERT, "", &key), record);
        }
        for Transition { event, targets } in transitions {
            log::info!("Alert {}", event.sentence());
            self.notifier.enqueue(&event, targets.iter().map(AsRef::as_ref));
            state.remember(event);
        }
        for reminder in reminders {
            let every = Duration::from_secs(reminder.every_sec);
            self.notifier.remind(&reminder.event, reminder.targets.iter().map(AsRef::as_ref), every);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        state.evaluated_at = Some(now);
        drop(state);
        self.notifier.judged();
        Ok(())
    }

    /// Gives the store what it does not have yet.
    fn save(&self) {
        let (lease, mut records) = {
            let state = self.state();
            let Some(lease) = state.lease.clone() else { return };
            (lease, state.unsaved.clone())
        };
        let changes = self.notifier.changes();
        for (target, key, notification) in changes.iter().flat_map(|changes| &changes.notifications) {
            let record = notification.as_ref().map(|one| serde_json::to_vec(one).unwrap_or_default());
            records.insert(record_key(NOTIFICATION, target, key), record);
        }
        if records.is_empty() {
            return;
        }
        // Nobody who asks for alerts waits for the store.
        let written = self.store.write_records(&records, Some(&lease));
        let mut state = self.state();
        if let (Err(error), false) = (&written, state.has_failed) {
            log::error!("Alerts: what is sent cannot be kept, and may be sent again after a restart: {error}");
        }
        state.has_failed = written.is_err();
        match (written, changes) {
            (Ok(()), changes) => {
                // What has changed meanwhile is written by the next call.
                state.unsaved.retain(|key, record| records.get(key) != Some(record));
                drop(state);
                changes.iter().for_each(|changes| self.notifier.stored(changes.serial));
            }
            (Err(_), Some(changes)) => {
                drop(state);
                let serial = changes.serial;
                self.notifier.not_stored(changes);
                if !self.store.is_shared() {
                    // A full disk is what people are to hear of: it is sent all the same, and kept when there is room. From
                    // a shared store that does not answer another receiver may send it.
                    self.notifier.stored(serial);
                }
            }
            (Err(_), None) => {}
        }
    }

    /// Silences alerts of hosts for a time, as `silence` in the file does. Returns until when.
    ///
    /// # Errors
    /// What is wrong with it, or that the store does not take it.
    pub fn silence(&self, alerts: &str, hosts: &str, span: &str, now: u64) -> Result<u64, SilenceError> {
        let sec = parse_span(span).filter(|sec| *sec <= SILENCE_SEC_MAX);
        let sec = sec.ok_or("for: a time such as 30m, 2h or 7d is wanted, up to 31d".to_owned());
        let sec = sec.map_err(SilenceError::Invalid)?;
        let asked = AskedSilence { alerts: alerts.to_owned(), hosts: hosts.to_owned(), from: now, to: now + sec };
        asked.parse().map_err(SilenceError::Invalid)?;
        let record = serde_json::to_vec(&asked).map_err(|error| SilenceError::Invalid(error.to_string()))?;
        let kept = self.store.swap_record(&silence_key(&asked), None, &record, SILENCES_MAX);
        if kept.map_err(SilenceError::Unavailable)? == Swap::Full {
            return Err(SilenceError::Invalid(format!("silences: more than {SILENCES_MAX} at a time")));
        }
        let mut state = self.state();
        state.silences.push(asked);
        state.take_silences(now);
        drop(state);
        let _ = self.wake.try_send(());
        Ok(now + sec)
    }
}

/// Why a silence was not taken.
#[derive(Debug)]
pub enum SilenceError {
    /// It is wrong.
    Invalid(String),
    /// The store does not take it now.
    Unavailable(StoreError),
}

impl State {
    /// Begins with what the store has. Returns the notifications.
    fn take(&mut self, stored: Stored, now: u64) -> Vec<Notification> {
        let last_number = stored.last_number();
        self.evaluator.restart(stored.alerts, last_number);
        (self.history, self.silences) = (stored.history.into(), stored.silences);
        self.unsaved.clear();
        self.take_silences(now);
        stored.notifications
    }

    /// Gives the evaluator the silences that hold, and forgets those that are over.
    fn take_silences(&mut self, now: u64) {
        let (over, left): (Vec<_>, Vec<_>) =
            mem::take(&mut self.silences).into_iter().partition(|asked| asked.to <= now);
        over.iter().for_each(|asked| drop(self.unsaved.insert(silence_key(asked), None)));
        self.evaluator.set_silences(left.iter().filter_map(|asked| asked.parse().ok()).collect());
        self.silences = left;
    }

    /// Adds a transition to the history, in the place of the oldest one where that is full.
    fn remember(&mut self, event: Event) {
        let serial = self.history.back().map_or(0, |last| last.serial + 1);
        let remembered = Remembered { serial, event };
        let record = serde_json::to_vec(&remembered).unwrap_or_default();
        self.unsaved.insert(format!("{TRANSITION}{}", serial % HISTORY_MAX), Some(record));
        self.history.push_back(remembered);
        if self.history.len() as u64 > HISTORY_MAX {
            self.history.pop_front();
        }
    }
}

fn silence_key(asked: &AskedSilence) -> String {
    format!("{SILENCE}{} {} {} {}", asked.from, asked.to, asked.alerts, asked.hosts)
}

fn record_key(kind: char, target: &str, key: &AlertKey) -> String {
    format!("{kind}{target}\n{}\n{}\n{}", key.name, key.host, key.series)
}
