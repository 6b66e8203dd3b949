//! `/api/alerts` and `/api/silences`: what fires, what happened, and what is not to be told for a while.

use serde::Deserialize;
use serde_json::json;

use super::reply::Reply;
use crate::alerts::{Alerts, SilenceError};

/// A host that no token is for, so that only an operator's authorizes what is about all hosts.
pub(super) const ANY_HOST: &str = "*";
const NOT_HERE: &str = "alerts: none are judged here; see --alerts";

/// The body of `POST /api/silences`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Silence {
    /// Names of alerts, as in the file of rules.
    alerts: String,
    /// Hosts, as in the file of rules; all without it.
    #[serde(default)]
    on: String,
    /// How long, such as `2h`.
    r#for: String,
}

pub(super) fn list(alerts: Option<&Alerts>, is_history: bool) -> Reply {
    match alerts {
        None => Reply::error(404, NOT_HERE),
        Some(alerts) => Reply::json(200, &if is_history { alerts.history() } else { alerts.list() }),
    }
}

pub(super) fn silence(alerts: Option<&Alerts>, body: &[u8], now: u64) -> Reply {
    let Some(alerts) = alerts else { return Reply::error(404, NOT_HERE) };
    let asked: Silence = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => {
            let form = r#"{"alerts": "disk", "on": "db-*", "for": "2h"}"#;
            return Reply::error(400, &format!("body: is not {form}: {error}"));
        }
    };
    match alerts.silence(&asked.alerts, &asked.on, &asked.r#for, now) {
        Ok(until) => Reply::json(200, &json!({ "silenced-until": until })),
        Err(SilenceError::Invalid(why)) => Reply::error(400, &why),
        Err(SilenceError::Unavailable(error)) => Reply::error(503, &error.to_string()),
    }
}
