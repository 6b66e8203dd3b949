//! What people read of the alerts of a receiver: the list, the history, and the lines of `/metrics`.

use serde_json::{Value, json};

use super::alert::Alert;
use super::event::{AlertKey, Event};
use super::notify::Reason;
use super::service::Alerts;

impl Alerts {
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
                "stale-since": alert.stale_since, "rule": alert.rule, "text": alert.text, "told": told(&alert.key),
            })
        };
        let problems = self.notifier.problems().into_iter().map(|event| {
            let mut problem = of_event(&event);
            problem["since"] = event.fired_at.into();
            problem["told"] = told(&event.key).into();
            problem
        });
        let alerts: Vec<Value> =
            state.evaluator.alerts().filter(|alert| alert.is_shown()).map(of).chain(problems).collect();
        json!({ "alerts": alerts, "rules": state.rules.rules.len(), "evaluated-at": state.evaluated_at })
    }

    /// What `GET /api/alerts?history=1` answers: the last transitions, the newest first.
    #[must_use]
    pub fn history(&self) -> Value {
        let state = self.state();
        let history: Vec<_> = state.history.iter().rev().map(|transition| of_event(&transition.event)).collect();
        json!({ "history": history })
    }

    /// The lines of `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> String {
        let state = self.state();
        let (mut alerts, mut for_state) = (Family::gauge("ALERTS"), Family::gauge("ALERTS_FOR_STATE"));
        for alert in state.evaluator.alerts().filter(|alert| alert.is_shown()) {
            let (shown, key) = (alert.shown(), &alert.key);
            let names = [("alertname", key.name.as_str()), ("host", &key.host), ("series", &key.series)];
            let state = [("alertstate", shown.state), ("severity", shown.severity.word())];
            alerts.add(&[names.as_slice(), &state].concat(), 1.0);
            for_state.add(&[names.as_slice(), &state[1..]].concat(), shown.since as f64);
        }
        for Event { key, severity, fired_at, .. } in self.notifier.problems() {
            let names = [("alertname", key.name.as_str()), ("host", &key.host), ("series", &key.series)];
            let state = [("alertstate", "firing"), ("severity", severity.word())];
            alerts.add(&[names.as_slice(), &state].concat(), 1.0);
            for_state.add(&[names.as_slice(), &state[1..]].concat(), fired_at as f64);
        }
        let mut delivered = Family::counter("lizm_notifications_total");
        let mut queued = Family::gauge("lizm_notification_queue");
        let mut failed = Family::counter("lizm_notifications_failed_total");
        for (target, counts) in self.notifier.counts() {
            delivered.add(&[("target", &target)], counts.delivered as f64);
            queued.add(&[("target", &target)], counts.queued as f64);
            for (reason, count) in Reason::ALL.iter().zip(counts.failed) {
                failed.add(&[("target", &target), ("reason", reason.word())], count as f64);
            }
        }
        let mut rules = Family::gauge("lizm_alert_rules");
        rules.add(&[], state.rules.rules.len() as f64);
        let mut evaluated = Family::gauge("lizm_alert_evaluation_timestamp_seconds");
        state.evaluated_at.iter().for_each(|at| evaluated.add(&[], *at as f64));
        [rules, alerts, for_state, delivered, queued, failed, evaluated].map(|family| family.text).concat()
    }
}

/// The lines of one metric, which stand together.
struct Family {
    name: &'static str,
    text: String,
}

impl Family {
    fn gauge(name: &'static str) -> Self {
        Self { name, text: format!("# TYPE {name} gauge\n") }
    }

    fn counter(name: &'static str) -> Self {
        Self { name, text: format!("# TYPE {name} counter\n") }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.text += &match labels.is_empty() {
            true => format!("{} {value}\n", self.name),
            false => format!("{}{{{}}} {value}\n", self.name, labels.join(",")),
        };
    }
}

/// A transition in the words of the list.
fn of_event(event: &Event) -> Value {
    json!({
        "name": event.key.name, "host": event.key.host, "series": event.key.series,
        "state": if event.is_firing() { "firing" } else { "resolved" }, "severity": event.severity, "value": event.value,
        "comparison": event.test.map(|test| test.0), "threshold": event.test.map(|test| test.1),
        "fired-at": event.fired_at, "resolved-at": event.resolved_at, "resolution": event.resolution,
        "rule": event.rule, "text": event.text,
    })
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
