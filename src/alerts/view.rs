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
                "stale-since": alert.stale_since, "rule": alert.rule, "told": told(&alert.key),
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
