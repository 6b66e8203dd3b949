//! What fires by the receiver's rules, for the rows, the notice and the graphs of `lizm watch`.

use serde::Deserialize;

use super::format::number;
use crate::client::Client;
use crate::sanitize::visible;

/// An alert as `/api/alerts` lists it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) host: String,
    /// The series; none or an empty one where a rule is about the host itself.
    #[serde(default)]
    pub(super) series: Option<String>,
    state: String,
    value: Option<f64>,
    comparison: Option<String>,
    pub(super) threshold: Option<f64>,
    /// When it fired, in seconds since the Unix epoch.
    pub(super) fired_at: Option<u64>,
}

#[derive(Deserialize)]
struct AlertsAnswer {
    alerts: Vec<Alert>,
}

/// A transition of an alert, as `/api/alerts?history=1` lists it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Past {
    pub(super) host: String,
    pub(super) series: String,
    fired_at: u64,
    resolved_at: Option<u64>,
}

#[derive(Deserialize)]
struct HistoryAnswer {
    history: Vec<Past>,
}

impl Past {
    /// When it fired and was resolved, in seconds since the Unix epoch: one that fires on is resolved at no time.
    pub(super) fn times(&self) -> (u64, u64) {
        (self.fired_at, self.resolved_at.unwrap_or(self.fired_at))
    }
}

/// Asks what has fired.
///
/// # Errors
/// Why there is no answer.
pub(super) fn past(client: &Client) -> Result<Vec<Past>, String> {
    client.get::<HistoryAnswer>("/api/alerts", Some("history=1")).map(|answer| answer.history)
}

/// Asks what fires, where the list of hosts says how many do.
///
/// # Errors
/// Why there is no answer.
pub(super) fn firing(client: &Client, count: Option<usize>) -> Result<Vec<Alert>, String> {
    if count.unwrap_or(0) == 0 {
        return Ok(Vec::new());
    }
    let mut answer: AlertsAnswer = client.get("/api/alerts", None)?;
    answer.alerts.retain(|alert| alert.state == "firing");
    Ok(answer.alerts)
}

impl Alert {
    /// Whether it is about a label.
    pub(super) fn is_of(&self, label: &str) -> bool {
        self.series.as_deref() == Some(label)
    }

    /// Its name, and the value that fires with its threshold.
    pub(super) fn text(&self) -> String {
        let label = self.series.as_deref().unwrap_or_default();
        let mut text = visible(&self.name);
        if !label.is_empty() && label != self.name {
            text += &format!(" {}", visible(label));
        }
        if let Some(value) = self.value {
            text += &format!(" {}", number(label, Some(value)));
        }
        if let (Some(comparison), Some(threshold)) = (&self.comparison, self.threshold) {
            text += &format!(" ({} {})", visible(comparison), number(label, Some(threshold)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_a_short_text() {
        let of = |json: &str| serde_json::from_str::<Alert>(json).unwrap().text();
        let disk = r#"{"name": "disk", "host": "a", "series": "disk:/var", "state": "firing", "value": 97.25,
                       "comparison": ">", "threshold": 90, "severity": "critical"}"#;
        assert_eq!(of(disk), "disk disk:/var 97.2% (> 90.0%)");
        let gone = r#"{"name": "gone\u001b", "host": "a", "series": "", "state": "firing", "value": null}"#;
        assert_eq!(of(gone), "gone\u{fffd}");
    }
}
