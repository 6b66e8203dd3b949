//! The alerts and rules of a receiver as Prometheus's API has them.

use serde_json::{Map, Value, json};

use super::alert::Alert;
use super::event::{AlertKey, Severity};
use super::notify::rfc3339;
use super::service::{Alerts, EVALUATE_EVERY};

impl Alerts {
    /// The `data` of `/api/v1/alerts`: what fires or is about to.
    #[must_use]
    pub fn prometheus_alerts(&self) -> Value {
        let state = self.state();
        let alerts = state.evaluator.alerts().filter(|alert| alert.is_shown()).map(of_alert);
        let problems = self.notifier.problems().into_iter().map(|event| {
            let text = event.text.as_deref().unwrap_or_default();
            json!({
                "labels": labels(&event.key, event.severity), "annotations": annotations(&event.rule, text),
                "state": "firing", "activeAt": rfc3339(event.fired_at), "value": "",
            })
        });
        json!({ "alerts": alerts.chain(problems).collect::<Vec<Value>>() })
    }

    /// The `data` of `/api/v1/rules`: one group of all rules, each with its alerts. The `query` is the rule's own line.
    #[must_use]
    pub fn prometheus_rules(&self) -> Value {
        let state = self.state();
        let evaluated_at = state.evaluated_at.map_or(Value::Null, |at| rfc3339(at).into());
        let rules = state.rules.rules.iter().map(|rule| {
            let is_of = |alert: &&Alert| alert.key.name == rule.name && alert.shown().severity == rule.severity;
            let alerts: Vec<Value> =
                state.evaluator.alerts().filter(|alert| alert.is_shown()).filter(is_of).map(of_alert).collect();
            let has = |state: &str| alerts.iter().any(|alert| alert["state"] == state);
            let state = if has("firing") {
                "firing"
            } else if has("pending") {
                "pending"
            } else {
                "inactive"
            };
            json!({
                "state": state, "name": rule.name, "query": rule.source, "duration": rule.for_sec,
                "keepFiringFor": 0, "labels": { "severity": rule.severity.word() },
                "annotations": annotations(&rule.source, rule.text.as_deref().unwrap_or_default()), "alerts": alerts,
                "health": "ok", "evaluationTime": 0, "lastEvaluation": evaluated_at, "type": "alerting",
            })
        });
        let rules: Vec<Value> = rules.collect();
        json!({ "groups": [{
            "name": "lizm", "file": "", "interval": EVALUATE_EVERY.as_secs(), "limit": 0, "evaluationTime": 0,
            "lastEvaluation": evaluated_at, "rules": rules,
        }] })
    }
}

fn of_alert(alert: &Alert) -> Value {
    let shown = alert.shown();
    let state = if shown.state == "pending" { "pending" } else { "firing" };
    let text = alert.text.as_deref().unwrap_or_default();
    json!({
        "labels": labels(&alert.key, shown.severity), "annotations": annotations(&alert.rule, text), "state": state,
        "activeAt": rfc3339(shown.since), "value": alert.value.map_or(String::new(), |value| value.to_string()),
    })
}

fn labels(key: &AlertKey, severity: Severity) -> Value {
    json!({ "alertname": key.name, "host": key.host, "series": key.series, "severity": severity.word() })
}

fn annotations(rule: &str, text: &str) -> Value {
    let pairs = [("rule", rule), ("text", text)].into_iter().filter(|(_, text)| !text.is_empty());
    Value::Object(pairs.map(|(name, text)| (name.to_owned(), text.into())).collect::<Map<_, _>>())
}
