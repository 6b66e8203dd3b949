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
}

#[derive(Deserialize)]
struct AlertsAnswer {
    alerts: Vec<Alert>,
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
