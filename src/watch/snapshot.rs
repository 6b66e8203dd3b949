//! What a receiver answers, as rows: its list of hosts, or the summaries of one host.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Query;
use crate::client::Client;
use crate::url::encode;

/// Most hosts in one answer, and most answers that are put together: those of 20,000 hosts, or of 10,000 labels.
const PAGE_HOSTS: usize = 1000;
const PAGES_MAX: usize = 20;
/// Intervals of an hour by minute and of a day by hour.
const MINUTES: usize = 60;
const HOURS: usize = 24;

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Snapshot {
    Hosts(HostList),
    Host(HostDetail),
}

/// The list of hosts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HostList {
    /// The labels whose series each host has.
    pub(super) labels: Vec<String>,
    pub(super) rows: Vec<HostRow>,
    /// How many hosts the receiver has: `rows` may be the first of them.
    pub(super) count: usize,
}

/// One host of the list.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct HostRow {
    pub(super) host: String,
    pub(super) state: String,
    pub(super) age_sec: u64,
    /// Means of the last hour by minute for each label, the running minute last.
    #[serde(default)]
    pub(super) series: BTreeMap<String, Vec<Option<f64>>>,
}

/// The labels of one host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HostDetail {
    pub(super) name: String,
    pub(super) rows: Vec<LabelRow>,
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
}

/// The summaries of one host in the answer of `/api/hosts?host=NAME`.
#[derive(Deserialize)]
struct HostSummaries {
    summaries: BTreeMap<String, Summary>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    end: u64,
    timeslice_size_sec: u64,
    averages: Vec<Average>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Average {
    start_sec: u64,
    num_samples: u32,
    avg: f64,
    min: f64,
    max: f64,
}

/// Asks a receiver.
///
/// # Errors
/// Why there is nothing to show.
pub(super) fn fetch(client: &Client, query: &Query) -> Result<Snapshot, String> {
    match query {
        Query::Hosts { labels } => hosts(client, labels).map(Snapshot::Hosts),
        Query::Host { name, text } => host(client, name, text).map(Snapshot::Host),
    }
}

fn hosts(client: &Client, labels: &[String]) -> Result<HostList, String> {
    let series = labels.iter().map(|label| encode(label)).collect::<Vec<_>>().join(",");
    let mut list = HostList { labels: labels.to_vec(), rows: Vec::new(), count: 0 };
    let mut query = format!("series={series}&limit={PAGE_HOSTS}");
    for _ in 0..PAGES_MAX {
        let page: HostsAnswer<HostRow> = client.get("/api/hosts", Some(&query))?;
        let last = page.hosts.last().filter(|_| page.hosts.len() == PAGE_HOSTS).map(|row| row.host.clone());
        list.count = page.count;
        list.rows.extend(page.hosts);
        let Some(next) = page.next_after.or(last) else { break };
        query = format!("series={series}&limit={PAGE_HOSTS}&after={}", encode(&next));
    }
    Ok(list)
}

fn host(client: &Client, name: &str, text: &str) -> Result<HostDetail, String> {
    let (mut summaries, mut query) = (BTreeMap::new(), format!("host={}", encode(name)));
    for _ in 0..PAGES_MAX {
        let page: HostsAnswer<HostSummaries> = client.get("/api/hosts", Some(&query))?;
        let host = page.hosts.into_iter().next().ok_or_else(|| format!("host {name} is not known there"))?;
        summaries.extend(host.summaries);
        let Some(next) = page.next_label_after else { break };
        query = format!("host={}&label-after={}", encode(name), encode(&next));
    }
    Ok(HostDetail { name: name.to_owned(), rows: rows(&summaries, text) })
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
                let sum: f64 = of(|average| average.avg * f64::from(average.num_samples)).sum();
                row.mean = (samples > 0.0).then(|| sum / samples);
            }
            "by-hour" => row.hours = slots(summary, HOURS),
            _ => {}
        }
    }
    rows.into_values().collect()
}

/// The means of a summary, each at the index of its interval; an interval without samples is a gap.
fn slots(summary: &Summary, count: usize) -> Vec<Option<f64>> {
    let mut slots = vec![None; count];
    let interval_sec = summary.timeslice_size_sec.max(1);
    // The running interval is the last. A sample on a boundary belongs to the interval that it ends.
    let running = summary.end.saturating_sub(1) / interval_sec;
    for average in &summary.averages {
        let age = running.checked_sub(average.start_sec / interval_sec).and_then(|age| usize::try_from(age).ok());
        if let Some(slot) = age.and_then(|age| count.checked_sub(age + 1)).and_then(|index| slots.get_mut(index)) {
            *slot = Some(average.avg);
        }
    }
    slots
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
    fn intervals_outside_the_window_have_no_place() {
        let average = |start_sec| Average { start_sec, num_samples: 1, avg: 1.0, min: 1.0, max: 1.0 };
        let summary =
            Summary { end: 7200, timeslice_size_sec: 60, averages: vec![average(0), average(7140), average(999_999)] };
        let slots = slots(&summary, MINUTES);
        assert_eq!((slots.iter().flatten().count(), slots[59]), (1, Some(1.0)));
    }
}
