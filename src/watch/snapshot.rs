//! What a receiver answers, as rows: its list of hosts, or the summaries of one host.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Deserialize;

use super::Query;
use super::alerts::{self, Alert};
use super::graph::{Graph, Graphs};
use super::summaries::{Average, Summary, slots};
use crate::client::Client;
use crate::url::encode;

/// Most hosts in one answer, and most answers that are put together: those of 20,000 hosts, or of 10,000 labels.
const PAGE_HOSTS: usize = 1000;
const PAGES_MAX: usize = 20;
/// Percent from which a disk or memory needs attention, as on the page.
const DISK_ATTENTION: f64 = 90.0;
const MEMORY_ATTENTION: f64 = 95.0;
/// Intervals of an hour by minute and of a day by hour.
const MINUTES: usize = 60;
const HOURS: usize = 24;

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Snapshot {
    Hosts(HostList),
    Host(HostDetail),
    /// The receiver does not know the host of this name.
    Unknown(String),
}

/// The list of hosts, those with problems first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HostList {
    /// The labels whose series each host has.
    pub(super) labels: Vec<String>,
    pub(super) rows: Vec<HostRow>,
    /// How many hosts the receiver has: `rows` may be the first of them.
    pub(super) count: usize,
}

/// One host of the list.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct HostRow {
    pub(super) host: String,
    pub(super) state: String,
    pub(super) age_sec: u64,
    /// Means of the last hour by minute for each label, the running minute last.
    #[serde(default)]
    pub(super) series: BTreeMap<String, Vec<Option<f64>>>,
    /// The newest values of all file systems.
    #[serde(default)]
    pub(super) latest: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    /// What fires by the receiver's rules.
    #[serde(skip)]
    pub(super) alerts: Vec<Alert>,
    /// When the first of these minutes begins, in seconds since the Unix epoch.
    #[serde(skip)]
    pub(super) start_sec: u64,
}

/// What is wrong with a host, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Well,
    /// It reports late, or two monitors report under its name.
    Late,
    /// Memory runs out.
    Memory,
    /// A disk fills.
    Disk,
    /// A rule of the receiver fires.
    Alert,
    Down,
}

impl HostRow {
    /// What is wrong with it now: the thresholds of the page.
    pub(super) fn severity(&self) -> Severity {
        let memory = self.value("mem");
        match self.state.as_str() {
            "down" => Severity::Down,
            _ if !self.alerts.is_empty() => Severity::Alert,
            _ if self.value("disk").is_some_and(|percent| percent >= DISK_ATTENTION) => Severity::Disk,
            _ if memory.is_some_and(|percent| percent >= MEMORY_ATTENTION) => Severity::Memory,
            "up" => Severity::Well,
            _ => Severity::Late,
        }
    }

    /// The newest value of a label within two minutes: one that has just begun may have no sample yet. Of `disk` it is
    /// that of the fullest file system.
    pub(super) fn value(&self, label: &str) -> Option<f64> {
        let newest = self.series.get(label).and_then(|minutes| minutes.iter().rev().take(2).find_map(|value| *value));
        if label != "disk" {
            return newest;
        }
        self.latest.values().copied().chain(newest).reduce(f64::max)
    }

    /// Puts the minutes of an earlier answer before those of this one, as many as make an hour.
    fn extend(&mut self, earlier: &Self) {
        let added = MINUTES.saturating_sub(self.series.values().map(Vec::len).max().unwrap_or(MINUTES)) as u64;
        let first = self.start_sec.saturating_sub(added * 60);
        for (label, minutes) in &mut self.series {
            let before = earlier.series.get(label).map_or(&[][..], Vec::as_slice);
            let minute = |at: u64| *before.get(usize::try_from(at.checked_sub(earlier.start_sec)? / 60).ok()?)?;
            let kept = (0..added).map(|number| minute(first + number * 60));
            *minutes = kept.chain(minutes.iter().copied()).collect();
        }
        self.start_sec = self.start_sec.saturating_sub(added * 60);
    }
}

/// The labels of one host.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct HostDetail {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) age_sec: u64,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) alerts: Vec<Alert>,
    pub(super) rows: Vec<LabelRow>,
    /// The receiver's clock, in seconds since the Unix epoch.
    pub(super) now_sec: u64,
    /// Whether the receiver has rules.
    pub(super) is_judged: bool,
    pub(super) graph: Option<Graph>,
}

impl HostDetail {
    /// Whether an alert about a label fires.
    pub(super) fn has_alert(&self, row: &LabelRow) -> bool {
        self.alerts.iter().any(|alert| alert.is_of(&row.label))
    }
}

/// One label of a host. Mean, minimum and maximum are those of the last hour.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct LabelRow {
    pub(super) label: String,
    /// Means by minute and by hour, the running intervals last.
    pub(super) minutes: Vec<Option<f64>>,
    pub(super) hours: Vec<Option<f64>>,
    pub(super) mean: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

/// The answer of `/api/hosts`. A long one is a page: the next begins behind the host or the label that it names.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostsAnswer<T> {
    hosts: Vec<T>,
    count: usize,
    next_after: Option<String>,
    next_label_after: Option<String>,
    series_start_sec: Option<u64>,
    /// How many alerts fire, where rules are judged.
    firing: Option<usize>,
}

/// The summaries of one host in the answer of `/api/hosts?host=NAME`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostSummaries {
    state: String,
    age_sec: u64,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    summaries: BTreeMap<String, Summary>,
}

/// Asks a receiver, and keeps the last list of hosts, so that it asks for an hour of minutes once only.
pub(super) struct Fetcher {
    client: Client,
    /// The last list, if it has the whole hour of every host, and when it was asked for.
    last: Option<(HostList, Instant)>,
    graphs: Graphs,
}

impl Fetcher {
    pub(super) fn new(client: Client) -> Self {
        Self { client, last: None, graphs: Graphs::default() }
    }

    /// Asks for what a query wants.
    ///
    /// # Errors
    /// Why there is nothing to show.
    pub(super) fn fetch(&mut self, query: &Query) -> Result<Snapshot, String> {
        match query {
            Query::Hosts { labels } => self.hosts(labels).map(Snapshot::Hosts),
            Query::Host { name, text, graph } => {
                let mut snapshot = host(&self.client, name, text)?;
                if let (Snapshot::Host(host), Some(graph)) = (&mut snapshot, graph) {
                    host.graph = Some(self.graphs.fetch(&self.client, &host.name, host.is_judged, graph)?);
                }
                Ok(snapshot)
            }
        }
    }

    fn hosts(&mut self, labels: &[String]) -> Result<HostList, String> {
        let last = self.last.take().filter(|(list, _)| list.labels == labels);
        // The minute before the running one may have got its last samples since.
        let minutes = last.as_ref().map_or(MINUTES as u64, |(_, at)| at.elapsed().as_secs() / 60 + 2);
        let minutes = minutes.min(MINUTES as u64);
        let began = Instant::now();
        let mut list = hosts(&self.client, labels, minutes)?;
        let mut is_whole = true;
        if let Some((last, _)) = last.filter(|_| minutes < MINUTES as u64) {
            let earlier: HashMap<&str, &HostRow> = last.rows.iter().map(|row| (&*row.host, row)).collect();
            for row in &mut list.rows {
                match earlier.get(&*row.host) {
                    Some(earlier) => row.extend(earlier),
                    None => is_whole = false,
                }
            }
        }
        list.rows.sort_by_key(|row| std::cmp::Reverse(row.severity()));
        // A host that was not in the last list may have an hour behind it: all is asked for again.
        self.last = is_whole.then(|| (list.clone(), began));
        Ok(list)
    }
}

/// Asks for all hosts, with some of the newest minutes of `labels`.
fn hosts(client: &Client, labels: &[String], minutes: u64) -> Result<HostList, String> {
    let series = labels.iter().map(|label| encode(label)).collect::<Vec<_>>().join(",");
    let mut list = HostList { labels: labels.to_vec(), rows: Vec::new(), count: 0 };
    let first = format!("series={series}&latest=disk,disk:*&minutes={minutes}&labels=none&limit={PAGE_HOSTS}");
    let (mut query, mut firing) = (first.clone(), None);
    for _ in 0..PAGES_MAX {
        let mut page: HostsAnswer<HostRow> = client.get("/api/hosts", Some(&query))?;
        let last = page.hosts.last().filter(|_| page.hosts.len() == PAGE_HOSTS).map(|row| row.host.clone());
        page.hosts.iter_mut().for_each(|row| row.start_sec = page.series_start_sec.unwrap_or(0));
        (list.count, firing) = (page.count, page.firing);
        list.rows.extend(page.hosts);
        let Some(next) = page.next_after.or(last) else { break };
        query = format!("{first}&after={}", encode(&next));
    }
    let alerts = alerts::firing(client, firing)?;
    for row in list.rows.iter_mut().filter(|_| !alerts.is_empty()) {
        row.alerts = alerts.iter().filter(|alert| alert.host == row.host).cloned().collect();
    }
    Ok(list)
}

fn host(client: &Client, name: &str, text: &str) -> Result<Snapshot, String> {
    let (mut summaries, mut query) = (BTreeMap::new(), format!("host={}", encode(name)));
    let mut detail = HostDetail { name: name.to_owned(), ..HostDetail::default() };
    let mut firing = None;
    for _ in 0..PAGES_MAX {
        let page: HostsAnswer<HostSummaries> = client.get("/api/hosts", Some(&query))?;
        let Some(host) = page.hosts.into_iter().next() else { return Ok(Snapshot::Unknown(name.to_owned())) };
        (detail.state, detail.age_sec, detail.tags) = (host.state, host.age_sec, host.tags);
        firing = page.firing;
        summaries.extend(host.summaries);
        let Some(next) = page.next_label_after else { break };
        query = format!("host={}&label-after={}", encode(name), encode(&next));
    }
    detail.is_judged = firing.is_some();
    detail.now_sec = summaries.values().map(|summary| summary.end).max().unwrap_or(0);
    detail.alerts = alerts::firing(client, firing)?;
    detail.alerts.retain(|alert| alert.host == name);
    detail.rows = rows(&summaries, text);
    Ok(Snapshot::Host(detail))
}

/// A row for each label that contains `text`; case is ignored.
fn rows(summaries: &BTreeMap<String, Summary>, text: &str) -> Vec<LabelRow> {
    let mut rows: BTreeMap<&str, LabelRow> = BTreeMap::new();
    let text = text.to_lowercase();
    for (key, summary) in summaries {
        let mut parts = key.splitn(3, ':').skip(1);
        let (Some(window), Some(label)) = (parts.next(), parts.next()) else { continue };
        if !label.to_lowercase().contains(&text) {
            continue;
        }
        let row = rows.entry(label).or_insert_with(|| LabelRow { label: label.to_owned(), ..LabelRow::default() });
        match window {
            "by-minute" => {
                row.minutes = slots(summary, MINUTES);
                let of = |value: fn(&Average) -> f64| summary.averages.iter().map(value);
                row.min = of(|average| average.min).reduce(f64::min);
                row.max = of(|average| average.max).reduce(f64::max);
                let samples: f64 = of(|average| f64::from(average.num_samples)).sum();
                let sum: f64 = of(|average| average.mean() * f64::from(average.num_samples)).sum();
                row.mean = (samples > 0.0).then(|| sum / samples);
            }
            "by-hour" => row.hours = slots(summary, HOURS),
            _ => {}
        }
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_become_rows_with_gaps() {
        let answer = r#"{
            "summary:by-minute:cpu": {"start": 3600, "end": 7230, "timeslice-size-sec": 60, "average-count": 2, "averages": [
                {"start-sec": 7080, "end-sec": 7140, "interval-size-sec": 60, "num-samples": 60, "avg": 10.0, "min": 1.0, "max": 20.0},
                {"start-sec": 7200, "end-sec": 7260, "interval-size-sec": 60, "num-samples": 30, "avg": 40.0, "min": 30.0, "max": 55.5}]},
            "summary:by-hour:cpu": {"start": 0, "end": 7200, "timeslice-size-sec": 3600, "average-count": 1, "averages": [
                {"start-sec": 3600, "end-sec": 7200, "interval-size-sec": 3600, "num-samples": 90, "avg": 20.0, "min": 1.0, "max": 55.5}]},
            "summary:by-hour:disk:/var": {"start": 0, "end": 7200, "timeslice-size-sec": 3600, "average-count": 0, "averages": []}
        }"#;
        let summaries: BTreeMap<String, Summary> = serde_json::from_str(answer).unwrap();
        let all = rows(&summaries, "");
        assert_eq!(all.iter().map(|row| row.label.as_str()).collect::<Vec<_>>(), ["cpu", "disk:/var"]);
        assert_eq!(all[0].minutes[57..], [Some(10.0), None, Some(40.0)]);
        assert_eq!(
            (all[0].hours[23], all[0].mean, all[0].min, all[0].max),
            (Some(20.0), Some(20.0), Some(1.0), Some(55.5))
        );
        assert_eq!(rows(&summaries, "DISK").len(), 1);
    }

    #[test]
    fn new_minutes_are_put_behind_those_of_an_earlier_answer() {
        let row = |start_sec, minutes: &[f64]| HostRow {
            host: "h".into(),
            state: "up".into(),
            age_sec: 0,
            series: [("cpu".into(), minutes.iter().copied().map(Some).collect())].into(),
            start_sec,
            ..HostRow::default()
        };
        let hour: Vec<f64> = (0..60).map(f64::from).collect();
        // One minute has passed: the last two minutes of the answer take the place of one, and add one.
        let mut next = row(36_000 + 59 * 60, &[100.0, 101.0]);
        next.extend(&row(36_000, &hour));
        let minutes = &next.series["cpu"];
        assert_eq!((minutes.len(), minutes[0], next.start_sec), (60, Some(1.0), 36_060));
        assert_eq!(minutes[57..], [Some(58.0), Some(100.0), Some(101.0)]);
        // Nothing is known of minutes that neither has.
        let mut later = row(36_000 + 100 * 60, &[7.0]);
        later.extend(&row(36_000, &hour));
        assert_eq!(later.series["cpu"][..19], [&(41..60).map(|n| Some(f64::from(n))).collect::<Vec<_>>()[..]].concat());
        assert_eq!(later.series["cpu"][19..59], [None; 40]);
    }
}
