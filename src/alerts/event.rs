//! An alert as targets are told it, and as the store keeps what was told.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Which alert: the name of its rules, a host, and one of its series. There is one of it, whatever its level.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AlertKey {
    /// The name of the rule.
    pub name: SmolStr,
    /// The host; empty for what is no host's, such as `lizm-config`.
    pub host: SmolStr,
    /// The series; empty where a rule is about the host itself.
    pub series: SmolStr,
}

/// How bad it is, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    #[default]
    Warning,
    /// To be looked at now.
    Critical,
}

impl Severity {
    /// Its word in rules, messages and labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a value is compared with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Above it.
    #[serde(rename = ">")]
    Above,
    /// At it or above.
    #[serde(rename = ">=")]
    AtLeast,
    /// Below it.
    #[serde(rename = "<")]
    Below,
    /// At it or below.
    #[serde(rename = "<=")]
    AtMost,
}

impl Comparison {
    /// Its sign in rules.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
        }
    }

    /// Its words in messages, where some targets take the signs for markup.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::AtLeast => "at least",
            Self::Below => "below",
            Self::AtMost => "at most",
        }
    }

    /// Whether `value` compares so with `threshold`.
    #[must_use]
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
        }
    }
}

/// Why an alert is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// What the rule asks is right again.
    Good,
    /// The series is no longer reported, while its host reports.
    Gone,
    /// The host was removed.
    HostRemoved,
    /// No rule asks for it any more.
    RuleRemoved,
}

impl Resolution {
    /// What a message says of it; empty for the plain case.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Good => "",
            Self::Gone => "no longer reported",
            Self::HostRemoved => "the host was removed",
            Self::RuleRemoved => "the rule was removed",
        }
    }
}

/// A transition of an alert: it has begun to fire, has changed its level, or is resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Which alert.
    pub key: AlertKey,
    /// Of a firing alert its level; of a resolved one the highest that it had.
    pub severity: Severity,
    /// Why it is resolved; `None` while it fires.
    pub resolution: Option<Resolution>,
    /// The value that decided, where there is one.
    pub value: Option<f64>,
    /// How it was compared, and with what; `None` for rules without a number.
    pub test: Option<(Comparison, f64)>,
    /// The rule's line as it was written, without its comment.
    pub rule: String,
    /// The rule's own words for people.
    pub text: Option<String>,
    /// When it fired, in seconds since the Unix epoch. It stays the same when the level changes.
    pub fired_at: u64,
    /// When it was resolved, in seconds since the Unix epoch.
    pub resolved_at: Option<u64>,
    /// The number of the transition: no other has it, and those of an alert rise.
    pub number: u64,
}

impl Event {
    /// Whether the alert fires.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        self.resolution.is_none()
    }

    /// The transition as a sentence for the log.
    #[must_use]
    pub fn sentence(&self) -> String {
        let AlertKey { name, host, series } = &self.key;
        let about: Vec<&str> = [host.as_str(), series.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
        let about = about.join(" ");
        let value = match (self.value, self.test) {
            (Some(value), Some((comparison, threshold))) => format!(", {value:.2} {} {threshold}", comparison.sign()),
            _ => String::new(),
        };
        match self.resolution {
            None => format!("{name} fires ({}): {about}{value}", self.severity),
            Some(why) => {
                let why = if why.words().is_empty() { String::new() } else { format!(", {}", why.words()) };
                format!("{name} is resolved: {about}{why}")
            }
        }
    }
}
