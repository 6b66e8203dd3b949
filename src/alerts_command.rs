//! `lizm alerts`: lists what fires at a receiver, silences it, checks a file of rules, and tries out a target.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fmt, fs};

use lizm::alerts::notify::{Client as TargetClient, Target};
use lizm::alerts::replay::{KeptHost, replay};
use lizm::alerts::rules::{Retention, Rules, parse};
use lizm::client::{self, Client};
use lizm::clock::unix_now;
use lizm::sample::Tags;
use lizm::summary::{Bucket, Keep, Tail};
use lizm::url::encode;
use lizm::{auth, sanitize};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

/// Intervals that are asked for at a time: as many as an answer may have.
const INTERVALS_MAX: usize = 11_000;

/// What `lizm alerts` is asked.
#[derive(Debug)]
pub(crate) enum AlertsCommand {
    /// What fires at a receiver, and what is pending.
    List(client::Options),
    /// To report nothing of some alerts for a while.
    Silence {
        /// Where.
        receiver: client::Options,
        /// Names of alerts.
        alerts: String,
        /// Hosts; empty for all.
        on: String,
        /// How long.
        span: String,
        /// The file of an operator's token.
        token_file: Option<PathBuf>,
    },
    /// Whether a file of rules has mistakes, and what they would do at a receiver.
    Check {
        /// The file.
        file: PathBuf,
        /// What the receiver keeps.
        keep: Keep,
        /// The receiver.
        receiver: Option<client::Options>,
    },
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
    let one = |why: String| vec![why];
    match asked {
        AlertsCommand::List(receiver) => {
            let listed: Listed =
                Client::new(receiver).and_then(|client| client.get("/api/alerts", None)).map_err(one)?;
            listed.alerts.iter().try_for_each(|alert| writeln!(out, "{alert}")).map_err(failed)
        }
        AlertsCommand::Silence { receiver, alerts, on, span, token_file } => {
            let token = token_file.as_deref().map(auth::read_token).transpose().map_err(one)?;
            let body = json!({ "alerts": alerts, "on": on, "for": span }).to_string();
            let _: IgnoredAny = Client::new(receiver)
                .and_then(|client| client.post("/api/silences", token.as_deref(), &body))
                .map_err(one)?;
            writeln!(out, "{alerts} silenced for {span}").map_err(failed)
        }
        AlertsCommand::Check { file, keep, receiver } => {
            let rules = read(file, keep)?;
            let (count, targets, silences) = (rules.rules.len(), rules.targets.len(), rules.silences.len());
            writeln!(out, "{}: {count} rules, {targets} targets, {silences} silences", file.display())
                .map_err(failed)?;
            let Some(receiver) = receiver else { return Ok(()) };
            let hosts = Client::new(receiver).and_then(|client| hosts(&client)).map_err(one)?;
            let rules = Arc::new(rules);
            let mut replayed = replay(&rules, &hosts, unix_now().as_secs());
            for rule in &rules.rules {
                // The same line twice is one rule to its alerts.
                let Some(done) = replayed.remove(&rule.source) else { continue };
                let count = |state| done.now.iter().filter(|(known, ..)| *known == state).count();
                let (firing, pending) = (count("firing") + count("suppressed"), count("pending"));
                writeln!(out, "{}\t{firing}\t{pending}\t{}", done.fired, sanitize::visible(&rule.source))
                    .map_err(failed)?;
                for (state, host, series) in &done.now {
                    let name = |name: &str| if name.is_empty() { "-".to_owned() } else { sanitize::visible(name) };
                    writeln!(out, "\t{state}\t{}\t{}", name(host), name(series)).map_err(failed)?;
                }
            }
            Ok(())
        }
        AlertsCommand::Test { target, file, ca } => {
            let rules = read(file, &Keep::default())?;
            let known = rules.targets.iter().find(|known| known.name() == target).ok_or_else(|| {
                let names: Vec<&str> = rules.targets.iter().map(Target::name).collect();
                vec![format!("{}: there is no target {target}; there are: {}", file.display(), names.join(", "))]
            })?;
            let client = TargetClient::new(ca.as_deref()).map_err(one)?;
            let now_ms = u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX);
            let (said, is_told) = known.try_out(&client, now_ms);
            said.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(failed)?;
            if is_told { Ok(()) } else { Err(vec![format!("the target {target} was not told")]) }
        }
    }
}

/// A page of the list of hosts.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostPage {
    hosts: Vec<Host>,
    #[serde(default)]
    next_after: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Host {
    host: String,
    last_epoch: u64,
    interval_sec: Option<u64>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// The summaries of a host, by `summary:by-minute:LABEL` and the like.
#[derive(Deserialize)]
struct Summaries {
    #[serde(default, rename = "kept-from")]
    _kept_from: IgnoredAny,
    #[serde(flatten)]
    summaries: BTreeMap<String, Summary>,
}

#[derive(Deserialize)]
struct Summary {
    averages: Vec<Interval>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Interval {
    start_sec: u64,
    num_samples: u32,
    mean: f64,
    min: f64,
    max: f64,
}

/// All hosts of a receiver, with their minutes and hours.
fn hosts(client: &Client) -> Result<Vec<KeptHost>, String> {
    let (mut hosts, mut query) = (Vec::new(), None);
    loop {
        let page: HostPage = client.get("/api/hosts", query.as_deref())?;
        for Host { host, last_epoch, interval_sec, tags } in page.hosts {
            let mut series: BTreeMap<String, [Tail; 2]> = BTreeMap::new();
            for (place, (by, interval_sec)) in [("minute", 60), ("hour", 3600)].into_iter().enumerate() {
                add_intervals(client, &host, by, |label, interval| {
                    let Interval { start_sec, num_samples, mean, min, max } = interval;
                    let bucket = Bucket { count: num_samples, sum: mean * f64::from(num_samples), min, max };
                    if let Some(tail) = series.entry(label.to_owned()).or_default().get_mut(place) {
                        tail.push(start_sec / interval_sec, bucket, INTERVALS_MAX);
                    }
                })?;
            }
            let tags = tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let tags = Tags::from_pairs(tags)?;
            let series = series.into_iter().map(|(label, tails)| (label.into(), tails)).collect();
            hosts.push(KeptHost { host: host.into(), tags, last_epoch, interval_sec, series });
        }
        match page.next_after {
            Some(after) => query = Some(format!("after={}", encode(&after))),
            None => break,
        }
    }
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(hosts)
}

/// Reads what is kept of a host by an interval, as far as rules can go back, a page of labels at a time.
fn add_intervals(client: &Client, host: &str, by: &str, mut add: impl FnMut(&str, Interval)) -> Result<(), String> {
    let unit = by.chars().next().unwrap_or('m');
    let mut next = Some(format!("from=-{}{unit}&by={by}&limit={INTERVALS_MAX}", INTERVALS_MAX - 1));
    while let Some(query) = next {
        let (text, following) = client.get_page(&format!("/api/perf/{}", encode(host)), &query)?;
        let page: Summaries = serde_json::from_str(&text).map_err(|error| format!("{host}: {error}"))?;
        for (key, summary) in page.summaries {
            let label = key.splitn(3, ':').nth(2).unwrap_or_default();
            summary.averages.into_iter().for_each(|interval| add(label, interval));
        }
        next = following;
    }
    Ok(())
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

fn read(file: &Path, keep: &Keep) -> Result<Rules, Vec<String>> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| vec![format!("{name}: {error}")])?;
    parse(&[(&name, &text)], Retention::from(keep), |name| env::var(name).ok())
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}
