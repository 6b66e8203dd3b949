//! What rules mean: the alerts, and their transitions at each evaluation.
//!
//! An [`Evaluator`] is pure: `now` and what is kept go in, transitions come out. One host is evaluated at a time, on its
//! closed minutes by its own clock (`evaluation.rs`). An evaluation first brings every alert's state up to date. Then it
//! compares that with what was reported, so that silences, restarts and muted hosts need no rules of their own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use smol_str::SmolStr;

use super::alert::{Alert, Reminder, Report, Transition};
use super::evaluation::{Evaluation, closed, evaluate};
use super::event::{AlertKey, Resolution};
use super::rules::{Rule, Rules, Silence, Test};
use crate::sample::Tags;
use crate::store::Pulse;
use crate::summary::{Bucket, Tail};

const MINUTE_SEC: u64 = 60;
const HOUR_SEC: u64 = 3600;
/// How much faster than the receiver's clock a host's epochs go, in seconds between two evaluations, where a backlog is coming.
const BACKLOG_SEC: u64 = 30;
/// Offset of a host's clock above which it is an alert, and how long it must last.
const CLOCK_OFF_SEC: u64 = 300;
const CLOCK_OFF_FOR_SEC: u64 = 300;
/// Seconds between samples while a host's own interval is not known, and the least silence of a host that is down.
const INTERVAL_SEC: u64 = 6;
const DOWN_SEC: u64 = 60;
/// The alert about a host's clock.
pub const CLOCK_ALERT: &str = "lizm-clock";
/// The alert about a file of rules with a mistake.
pub const CONFIG_ALERT: &str = "lizm-config";
/// The series that the receiver offers of each host: seconds that its clock is ahead.
pub const CLOCK_SKEW: &str = "clock-skew";
/// Transitions are numbered from the second of their evaluation, so that numbers rise over restarts: this many bits within one.
const NUMBER_BITS: u32 = 20;
/// Minutes that are kept of series that the receiver offers itself.
const OWN_MINUTES: usize = 61;

/// The series of a host, by label in ascending order: the minutes and the hours of each.
pub type HostSeries = Vec<(SmolStr, [Tail; 2])>;

/// What came of an evaluation.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is to be reported.
    pub transitions: Vec<Transition>,
    /// What may be reported again.
    pub reminders: Vec<Reminder>,
    /// Keys of alerts whose stored state has changed, with the new one; `None` is to be removed.
    pub changes: Vec<(AlertKey, Option<Alert>)>,
}

/// What is remembered of a host between two evaluations. Nothing of it is stored.
#[derive(Default)]
struct Host {
    evaluated: Option<EvaluatedOn>,
    /// Its newest epoch at the evaluation before, and when that came.
    before: Option<(u64, u64)>,
    is_backlogged: bool,
    clock_off_since: Option<u64>,
    /// Its skew, of each minute at which it was evaluated.
    skew: Tail,
    /// What the plans were made of: the serial of the rules, the host's tags and its labels.
    serial: u64,
    tags: Tags,
    labels: Vec<SmolStr>,
    /// Places of the rules that are about it.
    rules: Vec<usize>,
    /// Which of these are about which of its series.
    plan: Vec<Planned>,
    /// Each series that a rule `no` is about.
    seen: Vec<Seen>,
    /// What `seen` was read at.
    seen_at: Option<Version>,
    /// Until when by its own clock it said nothing: nothing is known of its series before.
    silent_until: u64,
}

/// A series, and the place of the rule `no` that is about it.
struct Seen {
    rule: usize,
    label: SmolStr,
    /// The end of the newest interval that has samples; 0 of one that was never seen and is expected.
    end: u64,
}

/// What of a host changes with each sample: its newest epoch, and how many came late.
type Version = (u64, u32);

/// What a host was evaluated on: a host of which that has not changed is not evaluated again.
#[derive(PartialEq)]
struct EvaluatedOn {
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

/// The rules, the alerts, and what they were evaluated on.
pub struct Evaluator {
    rules: Arc<Rules>,
    /// How often the rules have become others.
    serial: u64,
    started_at: u64,
    hosts: HashMap<SmolStr, Host>,
    alerts: BTreeMap<AlertKey, Alert>,
    /// Silences that were asked for while the receiver runs.
    silences: Vec<Silence>,
    /// The alerts that there were when an evaluation began, by host.
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
        Self { rules, serial: 1, started_at: now, hosts, alerts, silences, known, last_number: 0, config_error: None }
    }

    /// Goes on with other alerts that were stored, and with numbers of transitions behind `last_number`.
    pub fn restart(&mut self, stored: Vec<Alert>, last_number: u64) {
        self.hosts.clear();
        self.last_number = self.last_number.max(last_number);
        self.alerts = stored.into_iter().map(|alert| (alert.key.clone(), alert)).collect();
    }

    /// Counts the absence of hosts and series from `now` on: nobody could report before.
    pub fn count_absence_from(&mut self, now: u64) {
        self.started_at = now;
    }

    /// Takes other rules. What no rule asks for any more is resolved by the next evaluation.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.serial += 1;
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
        self.alerts.values().filter(|alert| alert.is_durable())
    }

    /// Evaluates all hosts of which something new is known. `kept` gives what is kept of one, as far back as [`Rules::reach`]
    /// says where something may fire or not, or nothing where that cannot be read: the next evaluation tries again.
    pub fn evaluate(
        &mut self,
        now: u64,
        pulses: &[Pulse],
        mut kept: impl FnMut(&Pulse, bool) -> Option<HostSeries>,
    ) -> Outcome {
        let rules = self.rules.clone();
        let before: BTreeMap<AlertKey, Alert> = self.durable();
        self.known.clear();
        self.alerts.keys().for_each(|key| self.known.entry(key.host.clone()).or_default().push(key.clone()));
        let offers_skew = rules.rules.iter().any(|rule| rule.test.names(CLOCK_SKEW));
        for pulse in pulses {
            let new = || Host { silent_until: on_its_clock(pulse, now), ..Host::default() };
            let mut host = self.hosts.remove(&pulse.host).unwrap_or_else(new);
            self.evaluate_clock(&mut host, pulse, now);
            let may_fire = self.known.contains_key(&pulse.host);
            let mut kept = || kept(pulse, may_fire);
            let evaluated =
                EvaluatedOn { minute: closed(pulse.last_epoch, MINUTE_SEC), late_samples: pulse.late_samples };
            let heard_at = pulse.heard_at.max(self.started_at);
            host.is_backlogged = host.is_behind(pulse, heard_at);
            host.before = Some((pulse.last_epoch, heard_at));
            host.prepare(&rules, self.serial, pulse);
            let is_due = !host.is_backlogged && host.evaluated.as_ref() != Some(&evaluated);
            if let Some(mut series) = is_due.then(&mut kept).flatten() {
                if let Some(minute) = evaluated.minute.filter(|_| offers_skew) {
                    host.add_skew(&mut series, pulse, minute);
                }
                host.note_seen(&rules, pulse, &series);
                self.evaluate_series(&rules, &mut host, pulse, &series, now);
                host.evaluated = Some(evaluated);
            }
            self.evaluate_absence(&rules, &mut host, pulse, now, kept);
            self.evaluate_host(&rules, &mut host, pulse, now);
            self.hosts.insert(pulse.host.clone(), host);
        }
        self.evaluate_unseen(&rules, pulses, now);
        self.forget_removed(&rules, pulses, now);
        self.apply_own(CONFIG_ALERT, "", self.config_error.clone(), now);
        self.report(&rules, now, &before)
    }

    fn durable(&self) -> BTreeMap<AlertKey, Alert> {
        let durable = self.alerts.iter().filter(|(_, alert)| alert.is_durable());
        durable.map(|(key, alert)| (key.clone(), alert.clone())).collect()
    }

    /// Holds all rules against the series of a host whose minute has closed.
    fn evaluate_series(&mut self, rules: &Rules, host: &mut Host, pulse: &Pulse, series: &HostSeries, now: u64) {
        let is_same = host.labels.len() == series.len()
            && host.labels.iter().zip(series).all(|(known, (label, _))| known == label);
        if !is_same {
            host.labels = series.iter().map(|(label, _)| label.clone()).collect();
            host.plan = plan(rules, &host.rules, &pulse.host, &host.labels);
        }
        let newest = [MINUTE_SEC, HOUR_SEC].map(|sec| closed(pulse.last_epoch, sec));
        for Planned { key, place, rules: levels } in &host.plan {
            for index in levels {
                let rule = &rules.rules[*index];
                let by_hour = usize::from(rule.interval_sec == HOUR_SEC);
                let Some(newest) = newest[by_hour] else { continue };
                let alert = self.alerts.get(key);
                let is_firing = alert.is_some_and(|alert| alert.fires_at(rule.severity));
                let doublings = alert.map_or(0, Alert::doublings);
                let tail = &series[*place].1[by_hour];
                let evaluation = evaluate(rule, tail, newest, is_firing, doublings, host.silent_until);
                if evaluation != Evaluation::Quiet || alert.is_some_and(|alert| alert.pending.is_some()) {
                    self.apply(key, rule, evaluation, now);
                }
            }
        }
        // A series that is no longer kept at all.
        let is_kept = |label: &str| series.binary_search_by(|(known, _)| known.as_str().cmp(label)).is_ok();
        for key in self.keys_of(&pulse.host) {
            let is_of_series = |severity| {
                let mut levels = rules.rules.iter().filter(|rule| rule.name == key.name && rule.severity == severity);
                levels.any(|rule| rule.test.is_of_values())
            };
            if let Some(alert) = self.alerts.get_mut(&key).filter(|_| !key.series.is_empty() && !is_kept(&key.series)) {
                alert.keep_levels(|severity| !is_of_series(severity), Resolution::Gone, now);
            }
        }
    }

    /// The host's own silence, for `host down` and `host late`.
    fn evaluate_host(&mut self, rules: &Rules, host: &mut Host, pulse: &Pulse, now: u64) {
        let interval_sec = pulse.interval_sec.unwrap_or(INTERVAL_SEC);
        for (place, rule) in host.rules.iter().map(|index| &rules.rules[*index]).enumerate() {
            let limit_sec = match rule.test {
                Test::Down => DOWN_SEC.max(10 * interval_sec),
                Test::Late => 3 * interval_sec,
                _ => continue,
            };
            if counts(rules, &host.rules, place, "") {
                let key = AlertKey { name: rule.name.as_str().into(), host: pulse.host.clone(), series: "".into() };
                self.apply_silence(&key, rule, pulse.heard_at, limit_sec, now);
            }
        }
        // What fires goes on while its host says nothing, and is stale. That a series is silent is known.
        let silent_sec = now.saturating_sub(pulse.heard_at.max(self.started_at));
        if silent_sec > (3 * interval_sec).max(3 * MINUTE_SEC) {
            host.silent_until = on_its_clock(pulse, now);
            for key in self.keys_of(&pulse.host) {
                if let Some(alert) = self.alerts.get_mut(&key).filter(|alert| alert.test.is_some()) {
                    alert.mark_stale(now);
                }
            }
        }
    }

    /// The silence of series, for `no`. The series are read only where what is known of them may be too old to say that
    /// one is silent, or that one is no longer.
    fn evaluate_absence(
        &mut self,
        rules: &Rules,
        host: &mut Host,
        pulse: &Pulse,
        now: u64,
        kept: impl FnOnce() -> Option<HostSeries>,
    ) {
        let is_in_doubt = |(key, _, last): (AlertKey, &Rule, u64)| {
            now.saturating_sub(last.max(self.started_at)) > DOWN_SEC || self.alerts.contains_key(&key)
        };
        let is_unknown = host.seen_at.is_none() || host.silences(rules, pulse).any(is_in_doubt);
        if is_unknown && host.seen_at != Some(version(pulse)) {
            // Without it nobody knows whether the series are silent.
            let Some(series) = kept() else { return };
            host.note_seen(rules, pulse, &series);
        }
        for (key, rule, last) in host.silences(rules, pulse) {
            self.apply_silence(&key, rule, last, DOWN_SEC, now);
        }
    }

    /// What a literal label on a literal host is due that was never seen.
    fn evaluate_unseen(&mut self, rules: &Rules, pulses: &[Pulse], now: u64) {
        let is_seen = |host: &String| pulses.binary_search_by(|pulse| pulse.host.as_str().cmp(host)).is_ok();
        let mut plans: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, rule) in rules.rules.iter().enumerate().filter(|(_, rule)| !rule.test.is_of_values()) {
            for host in rule.hosts.literals().filter(|host| !is_seen(host)) {
                plans.entry(host).or_default().push(index);
            }
        }
        for (host, of_host) in plans {
            for (place, rule) in of_host.iter().map(|index| &rules.rules[*index]).enumerate() {
                let expected = match &rule.test {
                    Test::Absent(globs) => globs.literals().collect(),
                    _ => vec![String::new()],
                };
                for series in expected.into_iter().filter(|series| counts(rules, &of_host, place, series)) {
                    let key =
                        AlertKey { name: rule.name.as_str().into(), host: host.as_str().into(), series: series.into() };
                    self.apply_silence(&key, rule, 0, DOWN_SEC, now);
                }
            }
        }
    }

    /// Holds a rule against a silence since `last`.
    fn apply_silence(&mut self, key: &AlertKey, rule: &Rule, last: u64, limit_sec: u64, now: u64) {
        let silent_sec = now.saturating_sub(last.max(self.started_at));
        // `no x for 2h` is two hours without it; `host down for 5m` is five minutes of being down.
        let fires_sec = match rule.test {
            Test::Absent(_) if rule.for_sec > 0 => rule.for_sec,
            _ => limit_sec + rule.for_sec,
        };
        let value = Some(silent_sec as f64);
        let evaluation = match silent_sec {
            _ if silent_sec > fires_sec => Evaluation::Fires(value),
            _ if silent_sec > limit_sec => Evaluation::Pending(value, now - silent_sec),
            _ => Evaluation::Resolves(value),
        };
        let alert = self.alerts.get(key);
        // What fired before the start fires on until something is heard.
        let is_known = last > self.started_at || alert.is_none_or(|alert| !alert.fires_at(rule.severity));
        if is_known && (alert.is_some() || !matches!(evaluation, Evaluation::Resolves(_))) {
            self.apply(key, rule, evaluation, now);
        }
    }

    /// A clock that is off by much, for long, while no backlog explains it.
    fn evaluate_clock(&mut self, host: &mut Host, pulse: &Pulse, now: u64) {
        let is_off = !host.is_backlogged && pulse.skew_sec.is_some_and(|sec| sec.unsigned_abs() > CLOCK_OFF_SEC);
        host.clock_off_since = is_off.then(|| host.clock_off_since.unwrap_or(now));
        let is_long = host.clock_off_since.map(|since| now - since >= CLOCK_OFF_FOR_SEC);
        if is_long != Some(false) {
            let skew_sec = pulse.skew_sec.unwrap_or(0);
            let side = if skew_sec < 0 { "behind" } else { "ahead" };
            let text = is_long.map(|_| format!("the host's clock is {} minutes {side}", skew_sec.unsigned_abs() / 60));
            self.apply_own(CLOCK_ALERT, &pulse.host, text, now);
        }
    }

    /// An alert of the receiver itself, which fires while there is a text. It goes to the targets of the default, or to all.
    fn apply_own(&mut self, name: &str, host: &str, text: Option<String>, now: u64) {
        let key = AlertKey { name: name.into(), host: host.into(), series: SmolStr::default() };
        let evaluation = match text {
            Some(_) => Evaluation::Fires(None),
            None if self.alerts.contains_key(&key) => Evaluation::Resolves(None),
            None => return,
        };
        let rule = Rule { text, notify: self.rules.own_targets(), ..Rule::new(name, Test::Late) };
        self.apply(&key, &rule, evaluation, now);
    }

    /// Resolves the alerts of hosts that were removed, and of rules that were.
    fn forget_removed(&mut self, rules: &Rules, pulses: &[Pulse], now: u64) {
        let is_known = |host: &str| pulses.binary_search_by(|pulse| pulse.host.as_str().cmp(host)).is_ok();
        // All hosts of the pulses are among these by now.
        if self.hosts.len() > pulses.len() {
            self.hosts.retain(|host, _| is_known(host));
        }
        for alert in self.alerts.values_mut() {
            let (key, tags) = (&alert.key, tags_of(&self.hosts, &alert.key.host));
            let is_own = [CLOCK_ALERT, CONFIG_ALERT].contains(&key.name.as_str());
            if is_own && (key.host.is_empty() || is_known(&key.host)) {
                continue;
            }
            let asks = |rule: &&Rule| {
                rule.name == key.name && rule.test.is_about(&key.series) && rule.hosts.matches_host(&key.host, &tags)
            };
            let asking: Vec<&Rule> = rules.rules.iter().filter(asks).collect();
            let is_expected = asking
                .iter()
                .any(|rule| !rule.test.is_of_values() && rule.hosts.literals().any(|host| host == key.host));
            let why = match asking.is_empty() {
                true if is_own => Resolution::HostRemoved,
                true => Resolution::RuleRemoved,
                false if !is_known(&key.host) && !is_expected => Resolution::HostRemoved,
                false => {
                    let asks = |severity| asking.iter().any(|rule| rule.severity == severity);
                    alert.keep_levels(asks, Resolution::RuleRemoved, now);
                    continue;
                }
            };
            alert.keep_levels(|_| false, why, now);
        }
    }

    fn apply(&mut self, key: &AlertKey, rule: &Rule, evaluation: Evaluation, now: u64) {
        let alert = self.alerts.entry(key.clone()).or_insert_with(|| Alert::new(key.clone()));
        alert.apply(rule, evaluation, now);
    }

    /// Compares what is so with what was reported.
    fn report(&mut self, rules: &Rules, now: u64, before: &BTreeMap<AlertKey, Alert>) -> Outcome {
        let mut outcome = Outcome::default();
        let of_down: Vec<&Rule> = rules.rules.iter().filter(|rule| rule.test == Test::Down).collect();
        let is_of_down = |alert: &Alert| {
            let is_so = |rule: &&Rule| rule.name == alert.key.name && alert.fires_at(rule.severity);
            alert.key.series.is_empty() && of_down.iter().any(is_so)
        };
        let down = self.alerts.values().filter(|alert| is_of_down(alert));
        let down: BTreeSet<SmolStr> = down.map(|alert| alert.key.host.clone()).collect();
        let active: Vec<&Silence> = rules.silences.iter().chain(&self.silences).filter(|s| s.when.holds(now)).collect();
        for alert in self.alerts.values_mut() {
            let (key, tags) = (&alert.key, tags_of(&self.hosts, &alert.key.host));
            let is_silenced = active
                .iter()
                .any(|silence| silence.alerts.matches(&key.name) && silence.hosts.matches_host(&key.host, &tags));
            alert.is_suppressed = is_silenced || (down.contains(&key.host) && !is_of_down(alert));
            if alert.is_suppressed {
                continue;
            }
            let last_number = &mut self.last_number;
            let number = || {
                *last_number = (*last_number + 1).max(now << NUMBER_BITS);
                *last_number
            };
            match alert.report(now, number) {
                Some(Report::Transition(transition)) => outcome.transitions.push(transition),
                Some(Report::Reminder(reminder)) => outcome.reminders.push(reminder),
                None => {}
            }
        }
        self.alerts.retain(|_, alert| alert.is_remembered(now));
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
    /// Brings what the plans are made of up to date.
    fn prepare(&mut self, rules: &Rules, serial: u64, pulse: &Pulse) {
        if self.serial != serial || self.tags != pulse.tags {
            (self.serial, self.tags, self.labels) = (serial, pulse.tags.clone(), Vec::new());
            (self.plan, self.evaluated, self.seen_at) = (Vec::new(), None, None);
            let rules = rules.rules.iter().enumerate();
            let about = rules.filter(|(_, rule)| rule.hosts.matches_host(&pulse.host, &self.tags));
            self.rules = about.map(|(index, _)| index).collect();
        }
    }

    /// Notes when the series that rules `no` are about have been seen last. A label without a wildcard is remembered for
    /// longer than a store keeps its samples: `no backup for 26h` outlasts a day.
    fn note_seen(&mut self, rules: &Rules, pulse: &Pulse, series: &HostSeries) {
        let before = mem::take(&mut self.seen);
        let known = |label: &str| before.iter().find(|seen| seen.label == label).map(|seen| seen.end);
        let place_of = |label: &str| series.binary_search_by(|(kept, _)| kept.as_str().cmp(label)).ok();
        for (place, index) in self.rules.iter().enumerate() {
            let rule = &rules.rules[*index];
            let Test::Absent(globs) = &rule.test else { continue };
            let is_expected = rule.hosts.literals().any(|host| host == pulse.host);
            let is_due = |label: &String| place_of(label).is_none() && (is_expected || known(label).is_some());
            let literals = globs.literals().filter(is_due).map(SmolStr::from);
            let labels = series.iter().map(|(label, _)| label.clone()).chain(literals);
            for label in labels.filter(|label| counts(rules, &self.rules, place, label)) {
                let end = |tail: &Tail, sec| tail.held().next_back().map(|(number, _)| (number + 1) * sec);
                let of = |[minutes, hours]: &[Tail; 2]| end(minutes, MINUTE_SEC).or(end(hours, HOUR_SEC));
                let kept = place_of(&label).and_then(|place| of(&series[place].1));
                let end = kept.or_else(|| known(&label)).unwrap_or(0);
                self.seen.push(Seen { rule: *index, label, end });
            }
        }
        self.seen_at = Some(version(pulse));
    }

    /// The series that rules `no` are about, each with its rule and when it was seen last by the receiver's clock.
    fn silences<'a>(&'a self, rules: &'a Rules, pulse: &'a Pulse) -> impl Iterator<Item = (AlertKey, &'a Rule, u64)> {
        self.seen.iter().map(|Seen { rule, label, end }| {
            let rule = &rules.rules[*rule];
            let key = AlertKey { name: rule.name.as_str().into(), host: pulse.host.clone(), series: label.clone() };
            // 0 stays 0: it was never seen.
            let last = (*end).min(pulse.last_epoch);
            (key, rule, if last > 0 { last.saturating_add_signed(-pulse.skew_sec.unwrap_or(0)) } else { 0 })
        })
    }

    /// Whether a backlog is on its way: the host's epochs go faster than their receipt. At the first evaluation the skew of its clock says
    /// so, which looks behind then.
    fn is_behind(&self, pulse: &Pulse, heard_at: u64) -> bool {
        let spare_sec = BACKLOG_SEC.max(2 * pulse.interval_sec.unwrap_or(0));
        match self.before {
            Some((epoch, at)) => pulse.last_epoch.saturating_sub(epoch) > heard_at.saturating_sub(at) + spare_sec,
            None => pulse.heard_at > 0 && pulse.skew_sec.is_some_and(|sec| sec < 0 && sec.unsigned_abs() > spare_sec),
        }
    }

    /// Adds the skew of the host's clock to its series, as of its newest closed minute.
    fn add_skew(&mut self, series: &mut HostSeries, pulse: &Pulse, minute: u64) {
        if let Some(skew_sec) = pulse.skew_sec {
            self.skew.push(minute, Bucket::of(skew_sec as f64), OWN_MINUTES);
        }
        if let Err(place) = series.binary_search_by(|(label, _)| label.as_str().cmp(CLOCK_SKEW)) {
            series.insert(place, (CLOCK_SKEW.into(), [self.skew.clone(), Tail::default()]));
        }
    }
}

/// The tags of a host, if it is known.
fn tags_of(hosts: &HashMap<SmolStr, Host>, host: &str) -> Tags {
    hosts.get(host).map_or_else(Tags::default, |host| host.tags.clone())
}

/// Whether the rule at a place among those of a host is the one that counts for a series: of each name and severity the first
/// that is about it.
fn counts(rules: &Rules, of_host: &[usize], place: usize, series: &str) -> bool {
    let (before, rule) = (&of_host[..place], &rules.rules[of_host[place]]);
    let is_same =
        |other: &Rule| other.severity == rule.severity && other.name == rule.name && other.test.is_about(series);
    rule.test.is_about(series) && !before.iter().any(|index| is_same(&rules.rules[*index]))
}

/// Which rules of a host are about which of its series.
fn plan(rules: &Rules, of_host: &[usize], host: &SmolStr, labels: &[SmolStr]) -> Vec<Planned> {
    let mut plan: Vec<Planned> = Vec::new();
    for (place, label) in labels.iter().enumerate() {
        let first = plan.len();
        for (rank, index) in of_host.iter().enumerate() {
            let rule = &rules.rules[*index];
            if !rule.test.is_of_values() || !counts(rules, of_host, rank, label) {
                continue;
            }
            match plan[first..].iter().position(|planned| planned.key.name == rule.name) {
                Some(at) => plan[first + at].rules.push(*index),
                None => {
                    let key = AlertKey { name: rule.name.as_str().into(), host: host.clone(), series: label.clone() };
                    plan.push(Planned { key, place, rules: vec![*index] });
                }
            }
        }
    }
    plan
}

/// The time `now` by the clock of a host.
fn on_its_clock(pulse: &Pulse, now: u64) -> u64 {
    now.saturating_add_signed(pulse.skew_sec.unwrap_or(0))
}

fn version(pulse: &Pulse) -> Version {
    (pulse.last_epoch, pulse.late_samples)
}

#[cfg(test)]
mod tests;
