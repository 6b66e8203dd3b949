//! One alert: its state, what a rule makes of it, and what of that is still to be reported.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::evaluation::Evaluation;
use super::event::{AlertKey, Comparison, Event, Resolution, Severity};
use super::rules::{Rule, Test};

/// Within this time a second firing is flapping.
const FLAPPING_SEC: u64 = 3600;

/// One alert: its state, and what was reported of it. What fires, is about to or was reported is stored, the rest is derived
/// again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Which alert.
    pub key: AlertKey,
    /// The severities whose rules fire now.
    firing: BTreeSet<Severity>,
    /// The severity whose rule does not fire yet, and since when its test holds.
    #[serde(default)]
    pub pending: Option<(Severity, u64)>,
    /// The newest value, where the rule has one.
    pub value: Option<f64>,
    /// Its comparison and threshold.
    pub test: Option<(Comparison, f64)>,
    /// The line of the rule that decided last.
    pub rule: String,
    /// The rule's own words.
    pub text: Option<String>,
    /// When it fired last.
    pub fired_at: u64,
    /// When it was resolved last, and why.
    resolved: Option<(u64, Resolution)>,
    /// Since when nothing new is known of it.
    pub stale_since: Option<u64>,
    /// How often it has fired again within the hour.
    doublings: u32,
    /// The targets that its firing was reported to.
    notified: BTreeSet<SmolStr>,
    /// The highest severity that was reported, and the number of that transition.
    reported: Option<(Severity, u64)>,
    /// The targets of the rule of the highest severity.
    notify: Vec<String>,
    /// Seconds after which it is reported again.
    every_sec: Option<u64>,
    /// Whether a silence or its host's being down keeps it from being reported.
    pub is_suppressed: bool,
}

impl Alert {
    pub(super) fn new(key: AlertKey) -> Self {
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
            notified: BTreeSet::new(),
            reported: None,
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

    /// Whether the rules of a severity fire.
    pub(super) fn fires_at(&self, severity: Severity) -> bool {
        self.firing.contains(&severity)
    }

    /// How often it has fired again within the hour.
    pub(super) fn doublings(&self) -> u32 {
        self.doublings
    }

    /// Whether it is to be stored.
    pub(super) fn is_durable(&self) -> bool {
        self.pending.is_some() || !self.firing.is_empty() || self.reported.is_some()
    }

    /// Whether it is to be remembered: what is over is for an hour, so that flapping is seen.
    pub(super) fn is_remembered(&self, now: u64) -> bool {
        self.is_durable() || self.has_fired_lately(now)
    }

    fn has_fired_lately(&self, now: u64) -> bool {
        self.fired_at > 0 && now.saturating_sub(self.fired_at) < FLAPPING_SEC
    }

    /// Takes what a rule says.
    pub(super) fn apply(&mut self, rule: &Rule, evaluation: Evaluation, now: u64) {
        let severity = rule.severity;
        if self.pending.is_some_and(|(pending, _)| pending == severity) {
            self.pending = None;
        }
        match evaluation {
            Evaluation::Quiet => return,
            Evaluation::Stale => return self.mark_stale(now),
            Evaluation::Gone => return self.resolve(severity, Resolution::Gone, now),
            Evaluation::Pending(_, since) => {
                if self.pending.is_none_or(|(other, _)| other < severity) && !self.firing.contains(&severity) {
                    self.pending = Some((severity, since));
                }
            }
            Evaluation::Fires(_) => self.fire(severity, now),
            Evaluation::Holds(_) => {}
            Evaluation::Resolves(_) => self.resolve(severity, Resolution::Good, now),
        }
        self.stale_since = None;
        // The highest level speaks for the alert; when it is resolved, the one that was right last.
        if self.severity().is_none_or(|highest| highest == severity) {
            self.value = evaluation.value();
            self.test = match rule.test {
                Test::Series { comparison, threshold, .. } => Some((comparison, threshold)),
                _ => None,
            };
            if self.firing.contains(&severity) || self.rule.is_empty() {
                self.rule.clone_from(&rule.source);
                self.text.clone_from(&rule.text);
                self.notify.clone_from(&rule.notify);
                self.every_sec = rule.every_sec;
            }
        }
    }

    fn fire(&mut self, severity: Severity, now: u64) {
        if self.firing.is_empty() {
            self.doublings = if self.has_fired_lately(now) { self.doublings + 1 } else { 0 };
            self.fired_at = now;
        }
        self.firing.insert(severity);
    }

    /// A severity fires no more. The alert is resolved when none does.
    fn resolve(&mut self, severity: Severity, why: Resolution, now: u64) {
        if self.firing.remove(&severity) && self.firing.is_empty() {
            self.resolved = Some((now, why));
        }
    }

    /// Resolves the severities that `is_kept` is not true of.
    pub(super) fn keep_levels(&mut self, is_kept: impl Fn(Severity) -> bool, why: Resolution, now: u64) {
        self.pending = self.pending.filter(|(severity, _)| is_kept(*severity));
        let ended: Vec<Severity> = self.firing.iter().copied().filter(|severity| !is_kept(*severity)).collect();
        ended.into_iter().for_each(|severity| self.resolve(severity, why, now));
    }

    /// Nothing new is known of it.
    pub(super) fn mark_stale(&mut self, now: u64) {
        self.stale_since.get_or_insert(now);
    }

    /// Compares its state with what was reported, and takes it as reported now. `number` gives a transition its number.
    pub(super) fn report(&mut self, now: u64, number: impl FnOnce() -> u64) -> Option<Report> {
        match (self.severity(), self.reported) {
            (Some(severity), reported) if reported.is_none_or(|(reported, _)| reported < severity) => {
                let number = number();
                self.reported = Some((severity, number));
                let targets: Vec<SmolStr> = self.notify.iter().map(SmolStr::from).collect();
                self.notified.extend(targets.iter().cloned());
                Some(Report::Transition(Transition { event: self.event(severity, None, number), targets }))
            }
            (Some(severity), Some((_, number))) => {
                let every_sec = self.every_sec.filter(|_| self.stale_since.is_none())?;
                let targets = self.notified.iter().cloned().collect();
                Some(Report::Reminder(Reminder { event: self.event(severity, None, number), targets, every_sec }))
            }
            (None, Some((severity, _))) => {
                self.reported = None;
                let targets = std::mem::take(&mut self.notified).into_iter().collect();
                let resolved = self.resolved.or(Some((now, Resolution::Good)));
                Some(Report::Transition(Transition { event: self.event(severity, resolved, number()), targets }))
            }
            _ => None,
        }
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

/// What is to be reported, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// What happened.
    pub event: Event,
    /// Names of targets.
    pub targets: Vec<SmolStr>,
}

/// A repeat that may be due: that is known by when each target took the last one.
#[derive(Debug, Clone, PartialEq)]
pub struct Reminder {
    /// What still fires.
    pub event: Event,
    /// Names of targets.
    pub targets: Vec<SmolStr>,
    /// Seconds after the last one that was delivered.
    pub every_sec: u64,
}

/// What an alert has to report.
pub(super) enum Report {
    /// It has begun to fire, has risen, or is resolved.
    Transition(Transition),
    /// It still fires, and its rule wants it to be reported again and again.
    Reminder(Reminder),
}
