//! `lizm alerts`: lists what fires at a receiver, checks a file of rules, and tries out a target.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use lizm::alerts::notify::{Client as TargetClient, Target};
use lizm::alerts::rules::{Retention, Rules, parse};
use lizm::client::{self, Client};
use lizm::clock::unix_now;
use lizm::sanitize;
use serde::Deserialize;

/// What `lizm alerts` is asked.
#[derive(Debug)]
pub(crate) enum AlertsCommand {
    /// What fires at a receiver, and what is pending.
    List(client::Options),
    /// Whether a file of rules has mistakes.
    Check(PathBuf),
    /// Whether a target can be told.
    Test {
        /// The name of the target.
        target: String,
        /// The file that names it.
        file: PathBuf,
        /// What its certificate must lead to.
        ca: Option<PathBuf>,
    },
}

/// Answers on `out`.
///
/// # Errors
/// All mistakes of the file, or why the target was not told.
pub(crate) fn run(asked: &AlertsCommand, out: &mut impl Write) -> Result<(), Vec<String>> {
    let failed = |error: io::Error| vec![error.to_string()];
    match asked {
        AlertsCommand::List(receiver) => {
            let listed: Listed =
                Client::new(receiver).and_then(|client| client.get("/api/alerts", None)).map_err(|why| vec![why])?;
            listed.alerts.iter().try_for_each(|alert| writeln!(out, "{alert}")).map_err(failed)
        }
        AlertsCommand::Check(file) => {
            let Rules { rules, targets, silences, .. } = read(file)?;
            let (rules, targets, silences) = (rules.len(), targets.len(), silences.len());
            writeln!(out, "{}: {rules} rules, {targets} targets, {silences} silences", file.display()).map_err(failed)
        }
        AlertsCommand::Test { target, file, ca } => {
            let rules = read(file)?;
            let known = rules.targets.iter().find(|known| known.name() == target).ok_or_else(|| {
                let names: Vec<&str> = rules.targets.iter().map(Target::name).collect();
                vec![format!("{}: there is no target {target}; there are: {}", file.display(), names.join(", "))]
            })?;
            let client = TargetClient::new(ca.as_deref()).map_err(|why| vec![why])?;
            let now_ms = u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX);
            let (said, is_told) = known.try_out(&client, now_ms);
            said.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(failed)?;
            if is_told { Ok(()) } else { Err(vec![format!("the target {target} was not told")]) }
        }
    }
}

/// The answer of `/api/alerts`.
#[derive(Deserialize)]
struct Listed {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    name: String,
    host: String,
    series: String,
    state: String,
    severity: String,
    #[serde(default)]
    value: Option<f64>,
    since: u64,
    rule: String,
}

/// A line with tabs between: state, severity, name, host, series, value, since when in seconds, rule. An empty one is `-`.
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or_else(String::new, |value| format!("{value:.2}"));
        let since = self.since.to_string();
        let columns = [&self.state, &self.severity, &self.name, &self.host, &self.series, &value, &since, &self.rule];
        let shown = columns.map(|text| if text.is_empty() { "-".to_owned() } else { sanitize::visible(text) });
        f.write_str(&shown.join("\t"))
    }
}

fn read(file: &Path) -> Result<Rules, Vec<String>> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| vec![format!("{name}: {error}")])?;
    parse(&[(&name, &text)], Retention::default(), |name| env::var(name).ok())
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}
