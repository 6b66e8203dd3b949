//! The thread that judges: it reads the rules again when they change, looks every ten seconds, and keeps what fires and what
//! is to be told in the store.
//!
//! Transitions and their messages are written in one batch, and a message is sent once the store has it, or cannot take it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, fs, io, mem};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alert::{Alert, Transition};
use super::evaluator::{Evaluator, Outcome};
use super::event::{AlertKey, Event};
use super::notify::{Client, Notification, Notifier, Reason};
use super::rules::{Retention, Rules, Silence, parse, parse_span};
use crate::clock::ReceiverClock;
use crate::reload::Reloaded;
use crate::store::{AlertRecords, Store};
use crate::supervisor::spawn_supervised;

/// Time between two evaluations.
const EVALUATE_EVERY: Duration = Duration::from_secs(10);
/// Time between two checks of the file.
const TICK: Duration = Duration::from_secs(1);
/// Transitions that are remembered for people.
const HISTORY_MAX: usize = 1000;
/// Silences that may be asked for at a time.
const SILENCES_MAX: usize = 1000;
/// Longest silence that may be asked for: one that is longer belongs into the file.
const SILENCE_SEC_MAX: u64 = 31 * 86_400;
/// Mistakes of a file that the log and the alert name.
const MISTAKES_MAX: usize = 5;
/// What the keys of records begin with.
const ALERT: char = 's';
const NOTIFICATION: char = 'p';
const SILENCE: char = 'q';

/// Where the rules come from, and how targets are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The file of rules.
    pub file: Option<PathBuf>,
    /// Rules of the command line and of the environment.
    pub rules: Vec<String>,
    /// The authorities of the targets' certificates, as PEM.
    pub notify_ca: Option<PathBuf>,
}

impl Options {
    /// Whether there are rules at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.rules.is_empty()
    }

    /// Reads and parses all rules.
    ///
    /// # Errors
    /// The mistakes, in one sentence.
    fn read(&self, retention: Retention) -> Result<Rules, String> {
        let options = self.rules.join("\n");
        let file = self.file.as_ref().map(|path| (path.display().to_string(), path));
        let text =
            file.as_ref().map(|(name, path)| fs::read_to_string(path).map_err(|error| format!("{name}: {error}")));
        let text = text.transpose()?;
        let mut files: Vec<(&str, &str)> = file.iter().zip(&text).map(|((name, _), text)| (&**name, &**text)).collect();
        files.push(("--alert", &options));
        parse(&files, retention, |name| env::var(name).ok()).map_err(|mistakes| {
            let named: Vec<String> = mistakes.iter().take(MISTAKES_MAX).map(ToString::to_string).collect();
            let more = mistakes.len().saturating_sub(MISTAKES_MAX);
            named.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() }
        })
    }
}

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

/// The alerts of a receiver.
pub struct Alerts {
    store: Arc<Store>,
    clock: Arc<ReceiverClock>,
    rules: Reloaded<Mutex<Option<Rules>>>,
    notifier: Notifier,
    state: Mutex<State>,
    is_stopping: AtomicBool,
    wake: SyncSender<()>,
}

struct State {
    evaluator: Evaluator,
    rules: Arc<Rules>,
    silences: Vec<AskedSilence>,
    history: VecDeque<Event>,
    /// What the store does not have yet.
    unsaved: AlertRecords,
    evaluated_at: Option<u64>,
    /// Whether it is known that the store takes no records.
    has_failed: bool,
}

impl Alerts {
    /// Reads the rules and what the store has of alerts, and starts to judge and to tell.
    ///
    /// # Errors
    /// The mistakes in the rules; or why the store cannot be read.
    pub fn start(
        options: &Options,
        store: Arc<Store>,
        clock: Arc<ReceiverClock>,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (source, retention) = (options.clone(), Retention::from(store.keep()));
        let files = options.file.iter().cloned().collect();
        let rules =
            Reloaded::new(files, move || Ok(Mutex::new(Some(source.read(retention)?)))).map_err(io::Error::other)?;
        let client = Client::new(options.notify_ca.as_deref()).map_err(io::Error::other)?;
        let (wake, woken) = sync_channel(1);
        let notify = wake.clone();
        let notifier = Notifier::new(client, clock.clone(), move || {
            let _ = notify.try_send(());
        });
        let (mut alerts, mut notifications, mut silences) = (Vec::new(), Vec::new(), Vec::new());
        let records = store.alert_records().map_err(|error| io::Error::other(error.to_string()))?;
        for (key, value) in records.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            let is_read = match key.chars().next() {
                Some(ALERT) => serde_json::from_slice::<Alert>(&value).map(|alert| alerts.push(alert)),
                Some(NOTIFICATION) => {
                    serde_json::from_slice::<Notification>(&value).map(|notification| notifications.push(notification))
                }
                Some(SILENCE) => serde_json::from_slice::<AskedSilence>(&value).map(|silence| silences.push(silence)),
                _ => Ok(()),
            };
            if let Err(error) = is_read {
                log::error!("Alerts: a record of the store is left out: {error}");
            }
        }
        let mut state = State {
            evaluator: Evaluator::new(Arc::default(), alerts, clock.now_sec()),
            rules: Arc::default(),
            silences,
            history: VecDeque::new(),
            unsaved: AlertRecords::new(),
            evaluated_at: None,
            has_failed: false,
        };
        state.take_silences(clock.now_sec());
        let state = Mutex::new(state);
        let service = Self { store, clock, rules, notifier, state, is_stopping: AtomicBool::new(false), wake };
        let service = Arc::new(service);
        service.reload();
        service.notifier.begin(notifications);
        let judging = service.clone();
        let thread = spawn_supervised("alerts", move || judging.run(&woken))?;
        Ok((service, thread))
    }

    /// One line on what is judged.
    #[must_use]
    pub fn description(&self) -> String {
        let forgets = match self.store.is_durable() {
            true => "",
            false => "; a store in memory forgets at a restart what fires and what was told",
        };
        format!("Alerts: {} rules are judged{forgets}", self.state().rules.rules.len())
    }

    /// Ends the thread, when the store has what is known.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let _ = self.wake.try_send(());
        self.notifier.stop();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, woken: &Receiver<()>) {
        let mut next = Instant::now();
        while !self.is_stopping.load(Ordering::Relaxed) {
            self.reload();
            if Instant::now() >= next {
                next = Instant::now() + EVALUATE_EVERY;
                self.evaluate();
            }
            self.save();
            let _ = woken.recv_timeout(TICK);
        }
        self.save();
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
        let rules = state.rules.clone();
        state.evaluator.set_rules(rules);
        drop(state);
        self.notifier.set_targets(targets);
    }

    /// Judges what has changed, and queues what is to be told.
    fn evaluate(&self) {
        let now = self.clock.now_sec();
        let pulses = match self.store.pulses() {
            Ok(pulses) => pulses,
            Err(error) => return log::error!("Alerts: {error}"),
        };
        let mut state = self.state();
        state.take_silences(now);
        let depth = state.rules.reach();
        let outcome = state.evaluator.evaluate(now, &pulses, |pulse| self.store.tails(&pulse.host, depth));
        let Outcome { transitions, reminders, changes } = outcome;
        for (key, alert) in changes {
            let record = alert.map(|alert| serde_json::to_vec(&alert).unwrap_or_default());
            state.unsaved.insert(record_key(ALERT, "", &key), record);
        }
        for Transition { event, targets } in transitions {
            log::info!("Alert {}", sentence(&event));
            self.notifier.enqueue(&event, targets.iter().map(AsRef::as_ref));
            if state.history.len() == HISTORY_MAX {
                state.history.pop_front();
            }
            state.history.push_back(event);
        }
        for reminder in reminders {
            let every = Duration::from_secs(reminder.every_sec);
            self.notifier.remind(&reminder.event, reminder.targets.iter().map(AsRef::as_ref), every);
        }
        state.evaluated_at = Some(now);
        drop(state);
        self.notifier.judged();
    }

    /// Gives the store what it does not have yet.
    fn save(&self) {
        let changes = self.notifier.changes();
        let mut state = self.state();
        let mut records = state.unsaved.clone();
        for (target, key, notification) in changes.iter().flat_map(|changes| &changes.notifications) {
            let record = notification.as_ref().map(|notification| serde_json::to_vec(notification).unwrap_or_default());
            records.insert(record_key(NOTIFICATION, target, key), record);
        }
        if records.is_empty() {
            return;
        }
        let written = self.store.write_alert_records(&records);
        if let (Err(error), false) = (&written, state.has_failed) {
            log::error!("Alerts: what is sent cannot be kept, and may be sent again after a restart: {error}");
        }
        state.has_failed = written.is_err();
        match (written, changes) {
            (Ok(()), changes) => {
                state.unsaved.clear();
                drop(state);
                changes.iter().for_each(|changes| self.notifier.stored(changes.serial));
            }
            (Err(_), Some(changes)) => {
                drop(state);
                // A full disk is what people are to hear of: it is told all the same, and kept when there is room.
                let serial = changes.serial;
                self.notifier.not_stored(changes);
                self.notifier.stored(serial);
            }
            (Err(_), None) => {}
        }
    }

    /// Silences alerts of hosts for a time, as `silence` in the file does. Returns until when.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn silence(&self, alerts: &str, hosts: &str, span: &str, now: u64) -> Result<u64, String> {
        let sec = parse_span(span).filter(|sec| *sec <= SILENCE_SEC_MAX);
        let sec = sec.ok_or("for: a time such as 30m, 2h or 7d is wanted, up to 31d")?;
        let asked = AskedSilence { alerts: alerts.to_owned(), hosts: hosts.to_owned(), from: now, to: now + sec };
        asked.parse()?;
        let mut state = self.state();
        if state.silences.len() >= SILENCES_MAX {
            return Err(format!("silences: more than {SILENCES_MAX} at a time"));
        }
        let record = serde_json::to_vec(&asked).map_err(|error| error.to_string())?;
        state.unsaved.insert(silence_key(&asked), Some(record));
        state.silences.push(asked);
        state.take_silences(now);
        drop(state);
        let _ = self.wake.try_send(());
        Ok(now + sec)
    }

    /// How many alerts fire.
    #[must_use]
    pub fn firing(&self) -> usize {
        let is_firing = |alert: &&Alert| alert.is_shown() && alert.shown().state == "firing";
        let firing = self.state().evaluator.alerts().filter(is_firing).count();
        firing + self.notifier.problems().len()
    }

    /// What `GET /api/alerts` answers.
    #[must_use]
    pub fn list(&self) -> Value {
        let state = self.state();
        let told = |key: &AlertKey| -> Vec<Value> {
            let deliveries = self.notifier.deliveries(key).into_iter();
            let told = deliveries.map(|delivery| {
                json!({
                    "target": delivery.target, "delivered-at": delivery.delivered_at, "tries": delivery.tries,
                    "last-error": delivery.last_error,
                })
            });
            told.collect()
        };
        let of = |alert: &Alert| {
            let shown = alert.shown();
            json!({
                "name": alert.key.name, "host": alert.key.host, "series": alert.key.series, "state": shown.state,
                "severity": shown.severity, "value": alert.value, "comparison": alert.test.map(|test| test.0),
                "threshold": alert.test.map(|test| test.1), "since": shown.since, "fired-at": shown.fired_at,
                "stale-since": alert.stale_since, "rule": alert.rule, "told": told(&alert.key),
            })
        };
        let problems = self.notifier.problems().into_iter().map(|event| {
            json!({
                "name": event.key.name, "host": event.key.host, "series": event.key.series, "state": "firing",
                "severity": event.severity, "since": event.fired_at, "fired-at": event.fired_at, "rule": event.rule,
                "text": event.text, "told": told(&event.key),
            })
        });
        let alerts: Vec<Value> =
            state.evaluator.alerts().filter(|alert| alert.is_shown()).map(of).chain(problems).collect();
        json!({ "alerts": alerts, "rules": state.rules.rules.len(), "evaluated-at": state.evaluated_at })
    }

    /// What `GET /api/alerts?history=1` answers: the last transitions, the newest first.
    #[must_use]
    pub fn history(&self) -> Value {
        json!({ "history": self.state().history.iter().rev().collect::<Vec<_>>() })
    }

    /// The lines of `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, labels: &[(&str, &str)], value: f64| {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            text += &match labels.is_empty() {
                true => format!("{name} {value}\n"),
                false => format!("{name}{{{}}} {value}\n", labels.join(",")),
            };
        };
        let state = self.state();
        line(
            "# TYPE ALERTS gauge\n# TYPE ALERTS_FOR_STATE gauge\nlizm_alert_rules",
            &[],
            state.rules.rules.len() as f64,
        );
        for alert in state.evaluator.alerts().filter(|alert| alert.is_shown()) {
            let (shown, key) = (alert.shown(), &alert.key);
            let names = [("alertname", key.name.as_str()), ("host", &key.host), ("series", &key.series)];
            let state = [("alertstate", shown.state), ("severity", shown.severity.word())];
            line("ALERTS", &[names.as_slice(), &state].concat(), 1.0);
            line("ALERTS_FOR_STATE", &[names.as_slice(), &state[1..]].concat(), shown.since as f64);
        }
        for (target, counts) in self.notifier.counts() {
            line("lizm_notifications_total", &[("target", &target)], counts.delivered as f64);
            line("lizm_notification_queue", &[("target", &target)], counts.queued as f64);
            for (reason, count) in Reason::ALL.iter().zip(counts.failed) {
                line(
                    "lizm_notifications_failed_total",
                    &[("target", &target), ("reason", reason.word())],
                    count as f64,
                );
            }
        }
        if let Some(at) = state.evaluated_at {
            line("lizm_alert_evaluation_timestamp_seconds", &[], at as f64);
        }
        text
    }
}

impl State {
    /// Gives the evaluator the silences that hold, and forgets those that are over.
    fn take_silences(&mut self, now: u64) {
        let (over, left): (Vec<_>, Vec<_>) =
            mem::take(&mut self.silences).into_iter().partition(|asked| asked.to <= now);
        over.iter().for_each(|asked| drop(self.unsaved.insert(silence_key(asked), None)));
        self.evaluator.set_silences(left.iter().filter_map(|asked| asked.parse().ok()).collect());
        self.silences = left;
    }
}

fn silence_key(asked: &AskedSilence) -> String {
    format!("{SILENCE}{} {} {} {}", asked.from, asked.to, asked.alerts, asked.hosts)
}

fn record_key(kind: char, target: &str, key: &AlertKey) -> String {
    format!("{kind}{target}\n{}\n{}\n{}", key.name, key.host, key.series)
}

/// A transition, for the log.
fn sentence(event: &Event) -> String {
    let AlertKey { name, host, series } = &event.key;
    let about =
        [host.as_str(), series.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let value = match (event.value, event.test) {
        (Some(value), Some((comparison, threshold))) => format!(", {value:.2} {} {threshold}", comparison.sign()),
        _ => String::new(),
    };
    match event.resolution {
        None => format!("{name} fires ({}): {about}{value}", event.severity),
        Some(why) => {
            let why = if why.words().is_empty() { String::new() } else { format!(", {}", why.words()) };
            format!("{name} is resolved: {about}{why}")
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
