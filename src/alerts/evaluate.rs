//! What rules mean: the alerts, and their transitions at each look.
//!
//! An [`Evaluator`] is pure: `now` and what is kept go in, transitions come out. One host is judged at a time, on its closed
//! minutes by its own clock (`judge.rs`). Judging knows nothing of telling: a look first brings every alert's state up to
//! date and then compares it with what was told, so that silences, restarts and muted hosts need no rules of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::event::{AlertKey, Comparison, Event, Resolution, Severity};
use super::judge::{Verdict, closed, judge};
use super::rules::{Rule, Rules, Silence, Test};
use crate::store::Pulse;
use crate::summary::{Bucket, Tail};

const MINUTE_SEC: u64 = 60;
const HOUR_SEC: u64 = 3600;
/// How much faster than the receiver's clock a host's epochs go, in seconds between two looks, where a backlog is coming.
const BACKLOG_SEC: u64 = 30;
/// Offset of a host's clock above which it is an alert, and how long it must last.
const CLOCK_OFF_SEC: u64 = 300;
const CLOCK_OFF_FOR_SEC: u64 = 300;
/// Seconds between samples while a host's own interval is not known, and the least silence of a host that is down.
const INTERVAL_SEC: u64 = 6;
const DOWN_SEC: u64 = 60;
/// Within this time a second firing is flapping.
const FLAPPING_SEC: u64 = 3600;
/// The alert about a host's clock.
pub const CLOCK_ALERT: &str = "lizm-clock";
/// The alert about a file of rules with a mistake.
pub const CONFIG_ALERT: &str = "lizm-config";
/// The series that the receiver offers of each host: seconds that its clock is ahead.
pub const CLOCK_SKEW: &str = "clock-skew";
/// Transitions are numbered from the second of their look, so that numbers rise over restarts: this many bits within one.
const NUMBER_BITS: u32 = 20;
/// Minutes that are kept of series that the receiver offers itself.
const OWN_MINUTES: usize = 61;

/// The series of a host that is judged, by label in ascending order: the minutes and the hours of each.
pub type Kept = Vec<(SmolStr, [Tail; 2])>;

/// One alert: its state, and what was told of it. What fires or was told is stored, the rest is derived again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Which alert.
    pub key: AlertKey,
    /// The severities whose rules fire now.
    firing: BTreeSet<Severity>,
    /// The severity whose rule does not fire yet, and since when its test holds.
    #[serde(skip)]
    pub pending: Option<(Severity, u64)>,
    /// The newest value, where the rule has one.
    pub value: Option<f64>,
    /// Its comparison and threshold.
    pub test: Option<(Comparison, f64)>,
    /// The line of the rule that decided last.
    pub rule: String,
    /// The rule's own words.
    text: Option<String>,
    /// When it fired last.
    pub fired_at: u64,
    /// When it was resolved last, and why.
    resolved: Option<(u64, Resolution)>,
    /// Since when nothing new is known of it.
    pub stale_since: Option<u64>,
    /// How often it has fired again within the hour.
    doublings: u32,
    /// Who was told that it fires.
    told: BTreeSet<SmolStr>,
    /// At which severity, the highest, and in which transition.
    told_severity: Option<(Severity, u64)>,
    /// Who is to be told, by the rule of the highest severity.
    notify: Vec<String>,
    /// Seconds after which it is told again.
    every_sec: Option<u64>,
    /// Whether a silence or its host's being down keeps it from being told.
    #[serde(skip)]
    pub is_suppressed: bool,
}

impl Alert {
    fn new(key: AlertKey) -> Self {
        Self {
            key,
            firing: BTreeSet::new(),
            pending: None,
            value: None,
            test: None,
            rule: String::new(),
            text: None,
            fired_at: 0,
            resolved: None,
            stale_since: None,
            doublings: 0,
            told: BTreeSet::new(),
            told_severity: None,
            notify: Vec::new(),
            every_sec: None,
            is_suppressed: false,
        }
    }

    /// The highest severity that fires.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.firing.last().copied()
    }

    /// Whether it is one for people to see: it fires, or is about to.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.pending.is_some() || !self.firing.is_empty()
    }

    /// As people are shown it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let (pending, since) = self.pending.unwrap_or_default();
        let (state, severity, since) = match self.severity() {
            Some(severity) if self.is_suppressed => ("suppressed", severity, self.fired_at),
            Some(severity) => ("firing", severity, self.fired_at),
            None => ("pending", pending, since),
        };
        Shown { state, severity, since, fired_at: (!self.firing.is_empty()).then_some(self.fired_at) }
    }

    /// Whether it is to be stored.
    fn is_durable(&self) -> bool {
        !self.firing.is_empty() || self.told_severity.is_some()
    }

    fn event(&self, severity: Severity, resolved: Option<(u64, Resolution)>, number: u64) -> Event {
        Event {
            key: self.key.clone(),
            severity,
            resolution: resolved.map(|(_, why)| why),
            value: self.value,
            test: self.test,
            rule: self.rule.clone(),
            text: self.text.clone(),
            fired_at: self.fired_at,
            resolved_at: resolved.map(|(at, _)| at),
            number,
        }
    }
}

/// What people are shown of an alert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// `pending`, `firing` or `suppressed`.
    pub state: &'static str,
    /// Its highest level.
    pub severity: Severity,
    /// Since when it is in this state.
    pub since: u64,
    /// When it fired.
    pub fired_at: Option<u64>,
}

/// What is to be told, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// What happened.
    pub event: Event,
    /// Names of targets.
    pub targets: Vec<SmolStr>,
}

/// A repeat that may be due: the targets decide by when they were told last.
#[derive(Debug, Clone, PartialEq)]
pub struct Reminder {
    /// What still fires.
    pub event: Event,
    /// Names of targets.
    pub targets: Vec<SmolStr>,
    /// Seconds after the last one that was delivered.
    pub every_sec: u64,
}

/// What came of a look.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is to be told.
    pub transitions: Vec<Transition>,
    /// What may be told again.
    pub reminders: Vec<Reminder>,
    /// Keys of alerts whose stored state has changed, with the new one; `None` is to be removed.
    pub changes: Vec<(AlertKey, Option<Alert>)>,
}

/// What is remembered of a host between two looks. Nothing of it is stored.
#[derive(Default)]
struct Host {
    judged: Option<Judged>,
    /// Its newest epoch at the look before, and when that came.
    before: Option<(u64, u64)>,
    is_backlogged: bool,
    clock_off_since: Option<u64>,
    /// Its skew, of each minute at which it was judged.
    skew: Tail,
    /// What the plan was made of.
    labels: Vec<SmolStr>,
    tags: Vec<String>,
    plan: Vec<Planned>,
}

/// What a host was judged on: a host of which that has not changed is not judged again.
#[derive(PartialEq)]
struct Judged {
    minute: Option<u64>,
    late_samples: u32,
}

/// A series with the rules of one name that are about it.
struct Planned {
    key: AlertKey,
    /// Place in the list of series.
    place: usize,
    /// Of each severity the first that fits.
    rules: Vec<usize>,
}

/// The rules, the alerts, and what they were judged on.
pub struct Evaluator {
    rules: Arc<Rules>,
    started_at: u64,
    hosts: HashMap<SmolStr, Host>,
    alerts: BTreeMap<AlertKey, Alert>,
    /// Silences that were asked for while the receiver runs.
    silences: Vec<Silence>,
    /// The alerts that there were when a look began, by host.
    known: HashMap<SmolStr, Vec<AlertKey>>,
    last_number: u64,
    /// The mistake in the file, while it has one.
    config_error: Option<String>,
}

impl Evaluator {
    /// An evaluator of `rules` that begins at `now` with what was stored.
    #[must_use]
    pub fn new(rules: Arc<Rules>, stored: Vec<Alert>, now: u64) -> Self {
        let alerts = stored.into_iter().map(|alert| (alert.key.clone(), alert)).collect();
        let (hosts, silences) = (HashMap::new(), Vec::new());
        let known = HashMap::new();
        Self { rules, started_at: now, hosts, alerts, silences, known, last_number: 0, config_error: None }
    }

    /// Takes other rules. What no rule asks for any more is resolved by the next look.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        for host in self.hosts.values_mut() {
            (host.judged, host.labels) = (None, Vec::new());
        }
    }

    /// Notes that the file of rules has a mistake, or none any more.
    pub fn set_config_error(&mut self, error: Option<String>) {
        self.config_error = error;
    }

    /// Takes the silences that were asked for.
    pub fn set_silences(&mut self, silences: Vec<Silence>) {
        self.silences = silences;
    }

    /// All alerts that fire, are pending, or have not told their end.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().filter(|alert| alert.pending.is_some() || alert.is_durable())
    }

    /// Judges all hosts of which something new is known. `tags` and `kept` give what is kept of a host.
    pub fn look<'t>(
        &mut self,
        now: u64,
        pulses: &[Pulse],
        tags: impl Fn(&str) -> &'t [String],
        mut kept: impl FnMut(&str) -> Kept,
    ) -> Outcome {
        let rules = self.rules.clone();
        let before: BTreeMap<AlertKey, Alert> = self.durable();
        self.known.clear();
        self.alerts.keys().for_each(|key| self.known.entry(key.host.clone()).or_default().push(key.clone()));
        let absences: Vec<&Rule> = rules.rules.iter().filter(|rule| matches!(rule.test, Test::Absent(_))).collect();
        let offers_skew = rules.rules.iter().any(|rule| rule.test.names(CLOCK_SKEW));
        for pulse in pulses {
            let tags = tags(&pulse.host);
            let mut host = self.hosts.remove(&pulse.host).unwrap_or_default();
            self.judge_clock(&mut host, pulse, now);
            let judged = Judged { minute: closed(pulse.last_epoch, MINUTE_SEC), late_samples: pulse.late_samples };
            let heard_at = pulse.heard_at.max(self.started_at);
            host.is_backlogged = host.is_behind(pulse, heard_at);
            host.before = Some((pulse.last_epoch, heard_at));
            let needs_series = !host.is_backlogged && host.judged.as_ref() != Some(&judged);
            if needs_series || absences.iter().any(|rule| rule.hosts.matches_host(&pulse.host, tags)) {
                let mut series = kept(&pulse.host);
                if let Some(minute) = judged.minute.filter(|_| offers_skew) {
                    host.add_skew(&mut series, pulse, minute);
                }
                if needs_series {
                    self.judge_series(&rules, &mut host, pulse, tags, &series, now);
                    host.judged = Some(judged);
                }
                self.judge_absence(&rules, pulse, tags, &series, now);
            }
            self.judge_silence(&rules, pulse, tags, now);
            self.hosts.insert(pulse.host.clone(), host);
        }
        self.judge_unseen(&rules, pulses, now);
        self.forget_removed(&rules, pulses, &tags, now);
        self.judge_config(now);
        self.tell(&rules, &tags, now, &before)
    }

    fn durable(&self) -> BTreeMap<AlertKey, Alert> {
        let durable = self.alerts.iter().filter(|(_, alert)| alert.is_durable());
        durable.map(|(key, alert)| (key.clone(), alert.clone())).collect()
    }

    /// Holds all rules against the series of a host whose minute has closed.
    fn judge_series(
        &mut self,
        rules: &Rules,
        host: &mut Host,
        pulse: &Pulse,
        tags: &[String],
        series: &Kept,
        now: u64,
    ) {
        let is_same = host.tags == tags
            && host.labels.len() == series.len()
            && host.labels.iter().zip(series).all(|(a, (b, _))| a == b);
        if !is_same {
            host.labels = series.iter().map(|(label, _)| label.clone()).collect();
            host.tags = tags.to_vec();
            host.plan = plan(rules, &pulse.host, tags, &host.labels);
        }
        let newest = [MINUTE_SEC, HOUR_SEC].map(|sec| closed(pulse.last_epoch, sec));
        for Planned { key, place, rules: levels } in &host.plan {
            for index in levels {
                let rule = &rules.rules[*index];
                let by_hour = usize::from(rule.interval_sec == HOUR_SEC);
                let Some(newest) = newest[by_hour] else { continue };
                let alert = self.alerts.get(key);
                let is_firing = alert.is_some_and(|alert| alert.firing.contains(&rule.severity));
                let doublings = alert.map_or(0, |alert| alert.doublings);
                let verdict = judge(rule, &series[*place].1[by_hour], newest, is_firing, doublings);
                if verdict != Verdict::Quiet || alert.is_some_and(|alert| alert.pending.is_some()) {
                    self.apply(key, rule, verdict, now);
                }
            }
        }
        // A series that is no longer kept at all.
        let is_kept = |label: &str| series.binary_search_by(|(known, _)| known.as_str().cmp(label)).is_ok();
        for key in self.keys_of(&pulse.host) {
            let rule =
                rules.rules.iter().find(|rule| rule.name == key.name && matches!(rule.test, Test::Series { .. }));
            if let Some(rule) = rule.filter(|_| !key.series.is_empty() && !is_kept(&key.series)) {
                let firing = self.alerts.get(&key).map(|alert| alert.firing.clone()).unwrap_or_default();
                let of = |severity| Rule { severity, ..rule.clone() };
                firing.into_iter().for_each(|severity| self.apply(&key, &of(severity), Verdict::Gone, now));
            }
        }
    }

    /// The host's own silence, for `host down` and `host late`.
    fn judge_silence(&mut self, rules: &Rules, pulse: &Pulse, tags: &[String], now: u64) {
        let interval_sec = pulse.interval_sec.unwrap_or(INTERVAL_SEC);
        let silent_sec = now.saturating_sub(pulse.heard_at.max(self.started_at));
        let key =
            |rule: &Rule| AlertKey { name: rule.name.as_str().into(), host: pulse.host.clone(), series: "".into() };
        for rule in first_of_each_level(rules, |rule| rule.hosts.matches_host(&pulse.host, tags)) {
            let limit_sec = match rule.test {
                Test::Down => DOWN_SEC.max(10 * interval_sec),
                Test::Late => 3 * interval_sec,
                _ => continue,
            };
            self.apply_silence(&key(rule), rule, silent_sec, limit_sec, now);
        }
        // What fires goes on while its host says nothing, and is stale.
        if silent_sec > (3 * interval_sec).max(3 * MINUTE_SEC) {
            for key in self.keys_of(&pulse.host) {
                if let Some(alert) = self.alerts.get_mut(&key).filter(|alert| !alert.key.series.is_empty()) {
                    alert.stale_since.get_or_insert(now);
                }
            }
        }
    }

    /// The silence of series, for `no`.
    fn judge_absence(&mut self, rules: &Rules, pulse: &Pulse, tags: &[String], series: &Kept, now: u64) {
        let skew_sec = pulse.skew_sec.unwrap_or(0);
        for rule in first_of_each_level(rules, |rule| rule.hosts.matches_host(&pulse.host, tags)) {
            let Test::Absent(globs) = &rule.test else { continue };
            let expects = rule.hosts.literals().any(|host| host == pulse.host);
            let unseen = globs.literals().filter(|label| expects && !series.iter().any(|(known, _)| known == label));
            let seen = series.iter().filter(|(label, _)| globs.matches(label)).map(|(label, [minutes, hours])| {
                let minute = minutes.held().next_back().map(|(number, _)| (number + 1) * MINUTE_SEC);
                let hour = hours.held().next_back().map(|(number, _)| (number + 1) * HOUR_SEC);
                let last = minute.or(hour).unwrap_or(0).min(pulse.last_epoch);
                (label.clone(), last.saturating_add_signed(-skew_sec))
            });
            for (label, last) in seen.chain(unseen.map(|label| (label.into(), 0))).collect::<Vec<_>>() {
                let key = AlertKey { name: rule.name.as_str().into(), host: pulse.host.clone(), series: label };
                self.apply_silence(&key, rule, now.saturating_sub(last.max(self.started_at)), DOWN_SEC, now);
            }
        }
    }

    /// What a literal label on a literal host is due that was never seen.
    fn judge_unseen(&mut self, rules: &Rules, pulses: &[Pulse], now: u64) {
        for rule in &rules.rules {
            let expected: Vec<String> = match &rule.test {
                Test::Absent(globs) => globs.literals().collect(),
                Test::Down | Test::Late => vec![String::new()],
                Test::Series { .. } => continue,
            };
            let is_seen = |host: &String| pulses.binary_search_by(|pulse| pulse.host.as_str().cmp(host)).is_ok();
            for host in rule.hosts.literals().filter(|host| !is_seen(host)) {
                for series in &expected {
                    let key =
                        AlertKey { name: rule.name.as_str().into(), host: host.as_str().into(), series: series.into() };
                    self.apply_silence(&key, rule, now.saturating_sub(self.started_at), DOWN_SEC, now);
                }
            }
        }
    }

    fn apply_silence(&mut self, key: &AlertKey, rule: &Rule, silent_sec: u64, limit_sec: u64, now: u64) {
        // `no x for 2h` is two hours without it; `host down for 5m` is five minutes of being down.
        let fires_sec = match rule.test {
            Test::Absent(_) => {
                if rule.for_sec > 0 {
                    rule.for_sec
                } else {
                    limit_sec
                }
            }
            _ => limit_sec + rule.for_sec,
        };
        let verdict = match silent_sec {
            _ if silent_sec > fires_sec => Verdict::Fires(silent_sec as f64),
            _ if silent_sec > limit_sec => Verdict::Pending(silent_sec as f64, now - silent_sec),
            _ => Verdict::Resolves(silent_sec as f64),
        };
        let is_known = self.alerts.contains_key(key);
        if is_known || !matches!(verdict, Verdict::Resolves(_)) {
            self.apply(key, rule, verdict, now);
        }
    }

    /// A clock that is off by much, for long, while no backlog explains it.
    fn judge_clock(&mut self, host: &mut Host, pulse: &Pulse, now: u64) {
        let is_off = !host.is_backlogged && pulse.skew_sec.is_some_and(|sec| sec.unsigned_abs() > CLOCK_OFF_SEC);
        let since = if is_off { Some(host.clock_off_since.unwrap_or(now)) } else { None };
        host.clock_off_since = since;
        let key = AlertKey { name: CLOCK_ALERT.into(), host: pulse.host.clone(), series: "".into() };
        let value = pulse.skew_sec.unwrap_or(0) as f64;
        let verdict = match since {
            Some(since) if now - since >= CLOCK_OFF_FOR_SEC => Verdict::Fires(value),
            Some(_) => return,
            None if self.alerts.contains_key(&key) => Verdict::Resolves(value),
            None => return,
        };
        self.apply_own(&key, verdict, "the host's clock is off by more than 5 minutes".to_owned(), now);
    }

    fn judge_config(&mut self, now: u64) {
        let key = AlertKey { name: CONFIG_ALERT.into(), host: "".into(), series: "".into() };
        match self.config_error.clone() {
            Some(error) => self.apply_own(&key, Verdict::Fires(0.0), error, now),
            None if self.alerts.contains_key(&key) => self.apply_own(&key, Verdict::Resolves(0.0), String::new(), now),
            None => {}
        }
    }

    /// An alert of the receiver itself goes to the default's targets, or to all.
    fn apply_own(&mut self, key: &AlertKey, verdict: Verdict, text: String, now: u64) {
        let rule = Rule::own(&key.name, text, self.rules.own_targets());
        self.apply(key, &rule, verdict, now);
    }

    /// Resolves the alerts of hosts that were removed, and of rules that were.
    fn forget_removed<'t>(&mut self, rules: &Rules, pulses: &[Pulse], tags: &impl Fn(&str) -> &'t [String], now: u64) {
        let is_known = |host: &str| pulses.binary_search_by(|pulse| pulse.host.as_str().cmp(host)).is_ok();
        self.hosts.retain(|host, _| is_known(host));
        for alert in self.alerts.values_mut() {
            let key = &alert.key;
            let is_own = [CLOCK_ALERT, CONFIG_ALERT].contains(&key.name.as_str());
            if is_own && (key.host.is_empty() || is_known(&key.host)) {
                continue;
            }
            let asks = |rule: &&Rule| {
                let about_series = match &rule.test {
                    Test::Series { series, .. } | Test::Absent(series) => {
                        series.matches(&key.series) && !key.series.is_empty()
                    }
                    Test::Down | Test::Late => key.series.is_empty(),
                };
                rule.name == key.name && about_series && rule.hosts.matches_host(&key.host, tags(&key.host))
            };
            let asking: Vec<&Rule> = rules.rules.iter().filter(asks).collect();
            let is_expected = asking.iter().any(|rule| {
                !matches!(rule.test, Test::Series { .. }) && rule.hosts.literals().any(|host| host == key.host)
            });
            let why = match asking.is_empty() {
                true if is_own => Resolution::HostRemoved,
                true => Resolution::RuleRemoved,
                false if !is_known(&key.host) && !is_expected => Resolution::HostRemoved,
                false => {
                    // A level whose rule is gone.
                    alert.firing.retain(|severity| asking.iter().any(|rule| rule.severity == *severity));
                    if alert.firing.is_empty()
                        && alert.resolved.is_none_or(|(at, _)| at < alert.fired_at)
                        && alert.fired_at > 0
                    {
                        alert.resolved = Some((now, Resolution::RuleRemoved));
                    }
                    continue;
                }
            };
            alert.pending = None;
            if !alert.firing.is_empty() {
                alert.firing.clear();
                alert.resolved = Some((now, why));
            }
        }
    }

    /// Brings an alert up to date with what a rule says.
    fn apply(&mut self, key: &AlertKey, rule: &Rule, verdict: Verdict, now: u64) {
        let alert = self.alerts.entry(key.clone()).or_insert_with(|| Alert::new(key.clone()));
        let severity = rule.severity;
        if alert.pending.is_some_and(|(pending, _)| pending == severity) {
            alert.pending = None;
        }
        let was_firing = !alert.firing.is_empty();
        let value = match verdict {
            Verdict::Quiet => return,
            Verdict::Stale => {
                alert.stale_since.get_or_insert(now);
                return;
            }
            Verdict::Gone => {
                alert.firing.remove(&severity);
                if was_firing && alert.firing.is_empty() {
                    alert.resolved = Some((now, Resolution::Gone));
                }
                return;
            }
            Verdict::Pending(value, since) => {
                if alert.pending.is_none_or(|(other, _)| other < severity) && !alert.firing.contains(&severity) {
                    alert.pending = Some((severity, since));
                }
                value
            }
            Verdict::Fires(value) => {
                alert.firing.insert(severity);
                if !was_firing {
                    let again = alert.fired_at > 0 && now.saturating_sub(alert.fired_at) < FLAPPING_SEC;
                    alert.doublings = if again { alert.doublings + 1 } else { 0 };
                    alert.fired_at = now;
                }
                value
            }
            Verdict::Holds(value) => value,
            Verdict::Resolves(value) => {
                alert.firing.remove(&severity);
                if was_firing && alert.firing.is_empty() {
                    alert.resolved = Some((now, Resolution::Good));
                }
                value
            }
        };
        alert.stale_since = None;
        // The highest level speaks for the alert; when it is resolved, the one that was right last.
        if alert.severity().is_none_or(|highest| highest == severity) {
            alert.value = Some(value);
            alert.test = match rule.test {
                Test::Series { comparison, threshold, .. } => Some((comparison, threshold)),
                _ => None,
            };
            if alert.firing.contains(&severity) || alert.rule.is_empty() {
                alert.rule.clone_from(&rule.source);
                alert.text.clone_from(&rule.text);
                alert.notify.clone_from(&rule.notify);
                alert.every_sec = rule.every_sec;
            }
        }
    }

    /// Compares what is so with what was told.
    fn tell<'t>(
        &mut self,
        rules: &Rules,
        tags: &impl Fn(&str) -> &'t [String],
        now: u64,
        before: &BTreeMap<AlertKey, Alert>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let is_of_down = |key: &AlertKey| {
            rules.rules.iter().any(|rule| rule.test == Test::Down && rule.name == key.name && key.series.is_empty())
        };
        let down = self.alerts.values().filter(|alert| !alert.firing.is_empty() && is_of_down(&alert.key));
        let down: BTreeSet<SmolStr> = down.map(|alert| alert.key.host.clone()).collect();
        let active: Vec<&Silence> = rules.silences.iter().chain(&self.silences).filter(|s| s.when.holds(now)).collect();
        for alert in self.alerts.values_mut() {
            let key = &alert.key;
            let is_silenced = active.iter().any(|silence| {
                silence.alerts.matches(&key.name) && silence.hosts.matches_host(&key.host, tags(&key.host))
            });
            alert.is_suppressed = is_silenced || (down.contains(&key.host) && !is_of_down(key));
            if alert.is_suppressed {
                continue;
            }
            match (alert.severity(), alert.told_severity) {
                (Some(severity), told) if told.is_none_or(|(told, _)| told < severity) => {
                    self.last_number = (self.last_number + 1).max(now << NUMBER_BITS);
                    alert.told_severity = Some((severity, self.last_number));
                    let targets: Vec<SmolStr> = alert.notify.iter().map(SmolStr::from).collect();
                    alert.told.extend(targets.iter().cloned());
                    outcome
                        .transitions
                        .push(Transition { event: alert.event(severity, None, self.last_number), targets });
                }
                (Some(severity), Some((_, number))) => {
                    if let Some(every_sec) = alert.every_sec.filter(|_| alert.stale_since.is_none()) {
                        let targets = alert.told.iter().cloned().collect();
                        outcome.reminders.push(Reminder {
                            event: alert.event(severity, None, number),
                            targets,
                            every_sec,
                        });
                    }
                }
                (None, Some((severity, _))) => {
                    self.last_number = (self.last_number + 1).max(now << NUMBER_BITS);
                    alert.told_severity = None;
                    let targets = std::mem::take(&mut alert.told).into_iter().collect();
                    let resolved = alert.resolved.or(Some((now, Resolution::Good)));
                    outcome
                        .transitions
                        .push(Transition { event: alert.event(severity, resolved, self.last_number), targets });
                }
                _ => {}
            }
        }
        // What is over is remembered for an hour, so that flapping is seen.
        self.alerts.retain(|_, alert| {
            alert.pending.is_some()
                || alert.is_durable()
                || (alert.fired_at > 0 && now.saturating_sub(alert.fired_at) < FLAPPING_SEC)
        });
        let after = self.durable();
        let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
        let changed = after.iter().filter(|(key, alert)| before.get(*key) != Some(*alert));
        outcome.changes = gone.chain(changed.map(|(key, alert)| (key.clone(), Some(alert.clone())))).collect();
        outcome
    }

    /// The alerts of a host.
    fn keys_of(&self, host: &str) -> Vec<AlertKey> {
        self.known.get(host).cloned().unwrap_or_default()
    }
}

impl Host {
    /// Whether a backlog is on its way: the host's epochs go faster than their receipt. At the first look the skew of its clock says
    /// so, which looks behind then.
    fn is_behind(&self, pulse: &Pulse, heard_at: u64) -> bool {
        let spare_sec = BACKLOG_SEC.max(2 * pulse.interval_sec.unwrap_or(0));
        match self.before {
            Some((epoch, at)) => pulse.last_epoch.saturating_sub(epoch) > heard_at.saturating_sub(at) + spare_sec,
            None => pulse.heard_at > 0 && pulse.skew_sec.is_some_and(|sec| sec < 0 && sec.unsigned_abs() > spare_sec),
        }
    }

    /// Adds the skew of the host's clock to its series, as of its newest closed minute.
    fn add_skew(&mut self, series: &mut Kept, pulse: &Pulse, minute: u64) {
        if let Some(skew_sec) = pulse.skew_sec {
            self.skew.push(minute, Bucket::of(skew_sec as f64), OWN_MINUTES);
        }
        if let Err(place) = series.binary_search_by(|(label, _)| label.as_str().cmp(CLOCK_SKEW)) {
            series.insert(place, (CLOCK_SKEW.into(), [self.skew.clone(), Tail::default()]));
        }
    }
}

/// Which rules are about which series of a host: of each name and severity the first that fits.
fn plan(rules: &Rules, host: &SmolStr, tags: &[String], labels: &[SmolStr]) -> Vec<Planned> {
    let of_host: Vec<(usize, &Rule)> =
        rules.rules.iter().enumerate().filter(|(_, rule)| rule.hosts.matches_host(host, tags)).collect();
    let mut plan: Vec<Planned> = Vec::new();
    for (place, label) in labels.iter().enumerate() {
        let first = plan.len();
        for (index, rule) in &of_host {
            let Test::Series { series, .. } = &rule.test else { continue };
            if !series.matches(label) {
                continue;
            }
            let planned = match plan[first..].iter().position(|planned| planned.key.name == rule.name) {
                Some(at) => &mut plan[first + at],
                None => {
                    let key = AlertKey { name: rule.name.as_str().into(), host: host.clone(), series: label.clone() };
                    plan.push(Planned { key, place, rules: Vec::new() });
                    let at = plan.len() - 1;
                    &mut plan[at]
                }
            };
            if planned.rules.iter().all(|other| rules.rules[*other].severity != rule.severity) {
                planned.rules.push(*index);
            }
        }
    }
    plan
}

/// Of the rules that are not about values, of each name and severity the first that fits.
fn first_of_each_level(rules: &Rules, fits: impl Fn(&Rule) -> bool) -> Vec<&Rule> {
    let mut found: Vec<&Rule> = Vec::new();
    for rule in rules.rules.iter().filter(|rule| !matches!(rule.test, Test::Series { .. })) {
        let is_new = !found.iter().any(|other| other.name == rule.name && other.severity == rule.severity);
        if is_new && fits(rule) {
            found.push(rule);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rules::{self, parse};
    use super::*;
    use crate::summary::{Keep, SampleTime, Series};

    /// The first second of a minute and of an hour.
    const START: u64 = 1_795_964_400;
    const STEP_SEC: u64 = 10;

    fn rules(text: &str) -> Arc<Rules> {
        let targets = "target ops: exec a\ntarget pager: exec b\n";
        Arc::new(parse(&[("f", &format!("{targets}{text}"))], rules::Kept::default(), |_| None).unwrap())
    }

    /// Hosts with their series, and an evaluator of what they keep.
    struct World {
        evaluator: Evaluator,
        series: BTreeMap<String, BTreeMap<String, Series>>,
        pulses: BTreeMap<String, Pulse>,
        told: Vec<Transition>,
        stored: BTreeMap<AlertKey, Alert>,
        rules: Arc<Rules>,
    }

    impl World {
        fn new(text: &str) -> Self {
            let rules = rules(text);
            Self {
                evaluator: Evaluator::new(rules.clone(), Vec::new(), START),
                series: BTreeMap::new(),
                pulses: BTreeMap::new(),
                told: Vec::new(),
                stored: BTreeMap::new(),
                rules,
            }
        }

        fn put(&mut self, host: &str, label: &str, epoch: u64, value: f64, now: u64) {
            let series = self.series.entry(host.to_owned()).or_default().entry(label.to_owned()).or_default();
            series.record(&Keep::default(), &SampleTime::new(&Keep::default(), epoch, now), value);
            let pulse = self.pulses.entry(host.to_owned()).or_insert_with(|| Pulse {
                host: host.into(),
                last_epoch: 0,
                heard_at: 0,
                interval_sec: Some(STEP_SEC),
                skew_sec: None,
                late_samples: 0,
            });
            if epoch + 66 < pulse.last_epoch {
                pulse.late_samples += 1;
            }
            pulse.last_epoch = pulse.last_epoch.max(epoch);
            pulse.heard_at = now;
            pulse.skew_sec = Some(epoch as i64 - now as i64);
        }

        fn look(&mut self, now: u64) -> Vec<Transition> {
            let pulses: Vec<Pulse> = self.pulses.values().cloned().collect();
            let series = &self.series;
            let kept = |host: &str| {
                let of_host = series.get(host).into_iter().flatten();
                of_host.map(|(label, series)| (label.into(), series.tails(&Keep::default(), [70, 26]))).collect()
            };
            let outcome = self.evaluator.look(now, &pulses, |_| &[], kept);
            for (key, alert) in outcome.changes {
                match alert {
                    Some(alert) => drop(self.stored.insert(key, alert)),
                    None => drop(self.stored.remove(&key)),
                }
            }
            self.told.extend(outcome.transitions.clone());
            outcome.transitions
        }

        /// Starts again with what was stored.
        fn restart(&mut self, now: u64) {
            let stored = serde_json::to_string(&self.stored.values().collect::<Vec<_>>()).unwrap();
            self.evaluator = Evaluator::new(self.rules.clone(), serde_json::from_str(&stored).unwrap(), now);
            self.pulses.values_mut().for_each(|pulse| pulse.heard_at = 0);
        }
    }

    /// The samples of `x` in a minute, by a letter: g(ood) 10, m(iddle) 87, b(ad) 95, w(orse) 99, one bad peak among good ones
    /// (p), one sample alone that is bad (s) or good (t), none of `x` (.), and none of the host (_).
    fn minute(letter: char) -> Vec<f64> {
        match letter {
            'g' => vec![10.0; 6],
            'm' => vec![87.0; 6],
            'b' => vec![95.0; 6],
            'w' => vec![99.0; 6],
            'p' => [vec![10.0; 5], vec![1000.0]].concat(),
            's' => vec![95.0],
            't' => vec![10.0],
            _ => Vec::new(),
        }
    }

    /// What a look after each minute tells: F(ires), C(ritical), R(esolved), G(one); `,` pending and `~` firing but stale.
    fn letters(world: &mut World, minutes: &str, from: u64) -> String {
        let mut said = String::new();
        for (number, letter) in minutes.chars().enumerate() {
            let start = START + 60 * (from + number as u64);
            if letter == '!' {
                world.restart(start);
            }
            for (place, value) in minute(letter).into_iter().enumerate() {
                let epoch = start + STEP_SEC * (place as u64 + 1);
                world.put("h", "x", epoch, value, epoch);
            }
            if letter != '_' {
                (1..=7).for_each(|step| world.put("h", "beat", start + STEP_SEC * step, 1.0, start + STEP_SEC * step));
            }
            let told = world.look(start + 72);
            let alert = world.evaluator.alerts().find(|alert| alert.key.name == "a");
            said.push(match told.iter().rev().find(|transition| transition.event.key.name == "a") {
                Some(Transition { event, .. }) => match (event.resolution, event.severity) {
                    (Some(Resolution::Good), _) => 'R',
                    (Some(_), _) => 'G',
                    (None, Severity::Critical) => 'C',
                    (None, _) => 'F',
                },
                None if alert.is_some_and(|alert| alert.stale_since.is_some()) => '~',
                None if alert.is_some_and(|alert| alert.pending.is_some() && alert.severity().is_none()) => ',',
                None => '.',
            });
        }
        said
    }

    #[test]
    fn what_a_rule_means() {
        let mut wrong = Vec::new();
        for (rule, minutes, said) in [
            // Without `for` one minute decides, both ways.
            ("a: x > 90", "ggbg", "..FR"),
            ("a: x > 90", "ggbbbg", "..F..R"),
            ("a: x > 90", "gggggg", "......"),
            ("a: x >= 95", "ggbg", "..FR"),
            ("a: x > 95", "ggbg", "...."),
            ("a: x < 50", "bbgb", "..FR"),
            ("a: x <= 10", "bbgb", "..FR"),
            ("a: x < 10", "bbgb", "...."),
            ("a: x > 90", "b", "F"),
            // `for`: every minute is bad.
            ("a: x > 90 for 3m", "ggbbbg", "..,,F."),
            ("a: x > 90 for 3m", "ggbbgbb", "..,,.,,"),
            ("a: x > 90 for 3m", "ggbbbggg", "..,,F..R"),
            ("a: x > 90 for 3m", "ggbbbggbggg", "..,,F.....R"),
            ("a: x > 90 for 90s", "ggbbgg", "..,F.R"),
            ("a: x > 90 for 1m", "ggbg", "..FR"),
            // It resolves after five minutes at most.
            ("a: x > 90 for 7m", "gbbbbbbbggggg", ".,,,,,,F....R"),
            ("a: x > 90 for 2m", "gbbgg", ".,F.R"),
            // A gap neither starts `for` again nor ends it.
            ("a: x > 90 for 5m", "gbb.bb", ".,,,,F"),
            ("a: x > 90 for 5m", "gbb..bb", ".,,,,,,"),
            ("a: x > 90 for 5m", "gbb..bbb", ".,,,,,,,"),
            ("a: x > 90 for 5m", "gbb..bbbb", ".,,,,,,,F"),
            ("a: x > 90 for 3m", "gbb.b", ".,,,,"),
            // It does not fire on scraps.
            ("a: x > 90", "gggs", "...."),
            ("a: x > 90 for 3m", "gggbsb", "...,,,"),
            ("a: x > 90 for 5m", "gggbbsbb", "...,,,,F"),
            ("a: x > 90; needs 10%", "gggs", "...F"),
            ("a: x > 90; needs 100%", "gggb", "...F"),
            // A scrap does not resolve, either.
            ("a: x > 90", "ggbtg", "..F.R"),
            ("a: x > 90", "ggbt", "..F."),
            // A gap while it fires: it goes on, and is stale.
            ("a: x > 90", "ggb....g", "..F...~R"),
            ("a: x > 90", "ggb....b", "..F...~."),
            ("a: x > 90", "ggb___g", "..F..~R"),
            ("a: x > 90", "ggb_____b", "..F..~~~."),
            // What is not reported while its host reports is gone.
            ("a: x > 90", "ggb................", "..F...~~~~~~~~~~~~G"),
            ("a: x > 90", "ggb________________", "..F..~~~~~~~~~~~~~~"),
            ("a: x > 90", "gg................", ".................."),
            // `until`: between the thresholds nothing changes.
            ("a: x > 90 until < 85", "ggbmmg", "..F..R"),
            ("a: x > 90 until < 85", "ggmmm", "....."),
            ("a: x > 90 until < 85 for 2m", "ggbgg", "..F.R"),
            ("a: x > 90 until < 85 for 2m", "ggbgmgg", "..F...R"),
            ("a: x < 50 until >= 87", "bbgmb", "..FR."),
            ("a: x > 90 for 3m until < 85", "gbbbggg", ".,,F..R"),
            // Levels of one alert.
            ("a: x > 90\na: x > 98; severity critical", "gbwg", ".FCR"),
            ("a: x > 90\na: x > 98; severity critical", "gwbg", ".C.R"),
            ("a: x > 90\na: x > 98; severity critical", "gwbwg", ".C..R"),
            ("a: x > 98; severity critical\na: x > 90", "gbwg", ".FCR"),
            ("a: x > 90 for 3m\na: x > 98; severity critical", "gwwwg", ".C..."),
            ("a: x > 90; severity info\na: x > 98", "gbwg", ".FFR"),
            // Of one severity the first that fits counts.
            ("a: x > 98 on h\na: x > 90", "gbwg", "..FR"),
            ("a: x > 98 on other\na: x > 90", "gbwg", ".F.R"),
            ("a: x > 98 on !other\na: x > 90", "gbwg", "..FR"),
            ("a: x > 98 on !h\na: x > 90", "gbwg", ".F.R"),
            ("a: x > 90 on h*", "gb", ".F"),
            ("a: x > 90 on tag:role=db", "gb", ".."),
            ("a: y > 90", "gb", ".."),
            ("a: * > 90", "gb", ".F"),
            ("a: !x > 90", "gb", ".."),
            // Functions.
            ("a: min(x, 3m) > 90", "gbbb", "...F"),
            ("a: min(x, 3m) > 90", "gbpb", "...."),
            ("a: min(x) > 90", "gbg", ".FR"),
            ("a: max(x, 3m) > 500", "gpgggg", ".F..R."),
            ("a: max(x) > 500", "gpg", ".FR"),
            ("a: x > 500", "gpg", "..."),
            ("a: avg(x, 2m) > 50", "ggbgg", "..F.R"),
            ("a: avg(x, 3m) > 50", "gggbg", "....."),
            ("a: avg(x, 3m) > 50", "gggbb", "....F"),
            ("a: change(x, 2m) > 50", "gggbbg", "...F.R"),
            ("a: change(x, 2m) < -50", "bbbgb", "...FR"),
            ("a: change(x, 2m) > 50", "g..b", "...."),
            ("a: forecast(x, 5m, 5m) > 98", "gggmmm", "...F.."),
            ("a: forecast(x, 4m, 1h) > 98", "mmm", "..."),
            ("a: forecast(x, 4m, 1h) > 98", "mmmb", "...F"),
            ("a: forecast(x, 4m, 1h) < 20", "bbbm", "...F"),
            ("a: max(x, 3m) < 50", "bggg", "...F"),
            // Flapping: right for twice as long, each time that it fires again.
            ("a: x > 90", "gbgbggbgggg", ".FRF.RF...R"),
            ("a: x > 90 for 2m", "gbbggbbgggg", ".,F.R,F...R"),
            ("a: x > 90", "gbgbgbgg", ".FRF...R"),
            // A restart changes nothing.
            ("a: x > 90", "ggb!g", "..F.R"),
            ("a: x > 90", "ggb!b", "..F.."),
            ("a: x > 90 for 5m", "gbb!bb", ".,,,,F"),
            ("a: x > 90", "gg!gb", "....F"),
            // The host's own silence.
            ("a: host down", "gg___g", "...F.R"),
            ("a: host late", "gg__g", "..F.R"),
            ("a: host down for 3m", "gg______g", "...,,,F.R"),
            ("a: no x", "gg...g", "..F..R"),
            ("a: no x for 3m", "gg....g", "..,,F.R"),
            ("a: no y for 3m on h", "ggggg", ",,F.."),
            ("a: no y for 3m", "ggggg", "....."),
            ("a: no y,z for 3m on other", "ggggg", ",,F.."),
            ("a: host down on other", "ggggg", "F...."),
            ("a: host down on oth*", "ggggg", "....."),
            // Beside what hosts publish.
            ("a: clock-skew >= 0 for 2m", "ggg", ",F."),
            // Silences: judged on, told at their end.
            ("a: x > 90\nsilence a 1795964400 to 1795964640", "gbbbbb", "...F.."),
            ("a: x > 90\nsilence a 1795964400 to 1795964640", "gbgggg", "......"),
            ("a: x > 90\nsilence a 1795964520 to 1795964760", "bgggggg", "F....R."),
            ("a: x > 90\nsilence b 1795964400 to 1795964640", "gb", ".F"),
            ("a: x > 90\nsilence a on i* 1795964400 to 1795964640", "gb", ".F"),
            ("a: x > 90\nsilence * on h 1795964400 to 1795964640", "gbbbb", "...F."),
            // A host that is down mutes its other alerts.
            ("a: no x for 3m\nd: host down", "gg_____", "..,,~~~"),
        ] {
            let mut world = World::new(rule);
            let found = letters(&mut world, minutes, 0);
            if found != said {
                wrong.push(format!("{rule}\n  {minutes}\n  {said} is right\n  {found} was found"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn said(told: &[Transition]) -> Vec<(String, Severity, Option<Resolution>)> {
        told.iter().map(|t| (t.event.key.name.to_string(), t.event.severity, t.event.resolution)).collect()
    }

    #[test]
    fn each_level_tells_its_targets_and_the_end_tells_all() {
        let rule = "a: x > 90; notify ops\na: x > 98; severity critical; notify pager\nb: x > 90 on other";
        let mut world = World::new(rule);
        assert_eq!(letters(&mut world, "gbwg", 0), ".FCR");
        let targets: Vec<Vec<&str>> =
            world.told.iter().map(|t| t.targets.iter().map(SmolStr::as_str).collect()).collect();
        assert_eq!(targets, [vec!["ops"], vec!["pager"], vec!["ops", "pager"]]);
        let [fired, risen, resolved] = [0, 1, 2].map(|place| &world.told[place].event);
        assert_eq!((fired.value, fired.test), (Some(95.0), Some((Comparison::Above, 90.0))));
        assert_eq!((risen.rule.as_str(), risen.fired_at), (rule.lines().nth(1).unwrap(), fired.fired_at));
        assert_eq!((resolved.severity, resolved.resolved_at), (Severity::Critical, Some(START + 252)));
        assert!(fired.number < risen.number && risen.number < resolved.number);
        assert!(world.stored.is_empty());
    }

    #[test]
    fn reports_every_five_minutes_fire_and_resolve() {
        for (rule, fires) in [("a: x > 90", "...bbbgg"), ("a: x > 90 for 10m", "....bbgg")] {
            let mut world = World::new(rule);
            for (number, value) in [10.0, 10.0, 10.0, 95.0, 95.0, 95.0, 10.0, 10.0].into_iter().enumerate() {
                let epoch = START + 300 * (number as u64 + 1);
                world.put("h", "x", epoch, value, epoch);
                world.look(epoch + 2);
                // The minute is closed once the host's clock has passed it, by another series here.
                for look in 1..29 {
                    world.put("h", "beat", epoch + 10 * look, 1.0, epoch + 10 * look);
                    world.look(epoch + 10 * look + 2);
                }
                let is_firing = world.evaluator.alerts().any(|alert| alert.severity().is_some());
                assert_eq!(is_firing, fires.as_bytes()[number] == b'b', "{rule}: {number}");
            }
        }
    }

    #[test]
    fn long_windows_go_by_closed_hours() {
        let mut world = World::new("a: x > 90 for 2h");
        let mut fired = Vec::new();
        for minute in 0..360 {
            let start = START + 60 * minute;
            let value = if (60..240).contains(&minute) { 95.0 } else { 10.0 };
            (1..=6).for_each(|step| world.put("h", "x", start + 10 * step, value, start + 10 * step));
            world.put("h", "beat", start + 70, 1.0, start + 70);
            fired.extend(world.look(start + 72).iter().map(|t| (minute, t.event.is_firing())));
        }
        assert_eq!(fired, [(179, true), (299, false)]);
    }

    #[test]
    fn history_does_not_notify() {
        let mut world = World::new("a: x > 90");
        // An hour that was bad comes within two minutes, and now all is well.
        let now = START + 7200;
        for step in 0..12 {
            let (from, at) = (START + 3600 + 300 * step, now + 10 * step);
            (0..30).for_each(|place| world.put("h", "x", from + 10 * place, if step < 11 { 95.0 } else { 10.0 }, at));
            assert_eq!(said(&world.look(at + 1)), [], "{step}");
        }
        (0..12).for_each(|step| world.put("h", "x", now + 120 + 10 * step, 10.0, now + 120 + 10 * step));
        assert_eq!(said(&world.look(now + 240)), []);
        // A clock that is wrong by a steady offset hides nothing.
        let mut world = World::new("a: x > 90");
        for step in 0..60 {
            world.put("h", "x", START + 10 * step, 95.0, START + 4000 + 10 * step);
            world.look(START + 4001 + 10 * step);
        }
        let names: Vec<_> = said(&world.told).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "lizm-clock"]);
        world.pulses.clear();
        let gone = said(&world.look(START + 5000));
        assert_eq!(gone.iter().map(|(_, _, why)| *why).collect::<Vec<_>>(), [Some(Resolution::HostRemoved); 2]);
    }

    #[test]
    fn what_is_removed_is_resolved_and_says_why() {
        let why = |world: &mut World| world.look(START + 200).iter().map(|t| t.event.resolution).collect::<Vec<_>>();
        let mut world = World::new("a: x > 90");
        letters(&mut world, "gbb", 0);
        world.pulses.clear();
        assert_eq!(why(&mut world), [Some(Resolution::HostRemoved)]);
        let mut world = World::new("a: x > 90");
        letters(&mut world, "gbb", 0);
        world.evaluator.set_rules(rules("b: x > 98"));
        assert_eq!(why(&mut world), [Some(Resolution::RuleRemoved)]);
        // Another threshold is judged again.
        let mut world = World::new("a: x > 90");
        letters(&mut world, "gbb", 0);
        world.evaluator.set_rules(rules("a: x > 98"));
        assert_eq!(why(&mut world), [Some(Resolution::Good)]);
    }

    #[test]
    fn a_mistake_in_the_file_is_an_alert() {
        let mut world = World::new("a: x > 90");
        world.evaluator.set_config_error(Some("f:1:1: a mistake".to_owned()));
        let told = world.look(START);
        assert_eq!((told[0].event.key.name.as_str(), told[0].targets.len()), (CONFIG_ALERT, 2));
        assert_eq!(told[0].event.text.as_deref(), Some("f:1:1: a mistake"));
        world.evaluator.set_config_error(None);
        let good = (CONFIG_ALERT.to_owned(), Severity::Warning, Some(Resolution::Good));
        assert_eq!(said(&world.look(START + 10)), [good]);
    }

    #[test]
    fn reminders_stop_while_nothing_is_known() {
        let mut world = World::new("a: x > 90; every 1h; notify ops");
        letters(&mut world, "gbb", 0);
        let pulses: Vec<Pulse> = world.pulses.values().cloned().collect();
        let mut reminded = |now| world.evaluator.look(now, &pulses, |_| &[], |_| Vec::new()).reminders;
        let reminders = reminded(START + 195);
        assert_eq!((reminders.len(), reminders[0].every_sec), (1, 3600));
        assert_eq!(reminders[0].event.number, world.told[0].event.number);
        assert_eq!(reminded(START + 900), []);
    }

    proptest! {
        /// Samples of ten minutes in any order, each of which comes before its minute is closed, and looks at any part of a
        /// minute.
        #[test]
        fn order_and_lateness_do_not_matter(
            values in proptest::collection::vec(prop_oneof![Just(10.0), Just(95.0), Just(f64::NAN)], 60),
            orders in proptest::collection::vec(any::<u64>(), 60),
            looks in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let rule = "a: x > 90 for 2m\na: x > 94 for 4m; severity critical\nb: min(x, 2m) > 90 until < 50";
            let (mut plain, mut mixed) = (World::new(rule), World::new(rule));
            for minute in 0..10_usize {
                let start = START + 60 * minute as u64;
                let put = |world: &mut World, place: usize| {
                    let (value, epoch) = (values[6 * minute + place], start + 10 * (place as u64 + 1));
                    if !value.is_nan() {
                        world.put("h", "x", epoch, value, epoch);
                    }
                };
                let mut places: Vec<usize> = (0..6).collect();
                places.iter().for_each(|place| put(&mut plain, *place));
                places.sort_by_key(|place| orders[6 * minute + place]);
                for place in places {
                    put(&mut mixed, place);
                    if looks[6 * minute + place] {
                        mixed.look(start + 61);
                    }
                }
                for world in [&mut plain, &mut mixed] {
                    world.put("h", "beat", start + 66, 1.0, start + 66);
                    world.look(start + 67);
                }
            }
            let state = |world: &World| world.evaluator.alerts().map(|alert| format!("{alert:?}")).collect::<Vec<_>>();
            prop_assert_eq!(state(&plain), state(&mixed));
            prop_assert_eq!(plain.told, mixed.told);
        }

        /// Whatever comes (gaps, restarts, steps of a host's clock, removals, backlogs), firing and resolved take turns, and
        /// what was told is what is stored.
        #[test]
        fn what_is_told_is_consistent(steps in proptest::collection::vec((0..8_u8, 0..120_u64, 0..3_usize), 1..120)) {
            let rule = "a: x > 90 for 2m; notify ops\na: x > 98; severity critical\nd: host down\nn: no x for 3m";
            let mut world = World::new(rule);
            let (mut now, mut ahead) = (START + 7200, 0_i64);
            let mut open: BTreeMap<AlertKey, Severity> = BTreeMap::new();
            for (step, sec, value) in steps {
                now += sec;
                let epoch = now.saturating_add_signed(ahead);
                let value = [10.0, 95.0, 99.0][value];
                match step {
                    0..=3 => (0..sec / 10).for_each(|place| world.put("h", "x", epoch - 10 * place, value, now)),
                    4 => ahead = if ahead == 0 { -3600 } else { 0 },
                    5 => world.restart(now),
                    6 if value > 98.0 => {
                        world.pulses.clear();
                        world.series.clear();
                    }
                    6 => (0..60).for_each(|place| world.put("h", "x", epoch - 600 + 10 * place, value, now)),
                    _ => {}
                }
                for transition in world.look(now) {
                    let Event { key, severity, resolution, .. } = transition.event;
                    match resolution {
                        None => prop_assert!(open.insert(key, severity).is_none_or(|before| before < severity)),
                        Some(_) => prop_assert!(open.remove(&key).is_some()),
                    }
                }
                prop_assert!(open.keys().all(|key| world.stored.contains_key(key)));
            }
        }
    }
}
