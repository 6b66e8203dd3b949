//! The list of hosts: what is asked of it, and what is answered.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use smol_str::SmolStr;

use super::form::{decode_form, decode_list, pairs};
use super::reply::Reply;
use super::summaries::{Page, RangeQuery};
use crate::sample::Tags;
use crate::store::{Status, Store, StoreError, is_wanted};
use crate::summary::{self, Intervals, KeyFilter, RangeSummaries, Series, Summaries};

/// Most labels in `?series=`, and in `?latest=`: what a page shows of a host at a glance.
const LIST_SERIES_MAX: usize = 16;
/// Hosts that the store is asked for at a time.
const STEP_HOSTS: usize = 256;
/// Names of hosts and labels, and values, after which a page ends: some 20 MB of JSON. Ten thousand hosts of thirty labels,
/// with the last hour of two, are fewer.
const TEXTS_MAX: usize = 2_000_000;

/// Which hosts, and what of them.
#[derive(Debug, Default)]
pub(super) struct HostsQuery {
    host: Option<String>,
    /// Labels, or beginnings of labels with `*` behind: those of which minutes are listed, and those of which the newest is.
    series: Vec<String>,
    latest: Vec<String>,
    /// How many of the newest minutes `series` lists.
    minutes: Option<usize>,
    /// Whether the names of all labels are left out.
    without_labels: bool,
    after: Option<String>,
    limit: Option<usize>,
    /// With `host`: its labels up to this one are left out.
    label_after: String,
    /// With `host`: the range of its summaries.
    range: RangeQuery,
}

impl HostsQuery {
    pub(super) fn parse(query: &str) -> Result<Self, Reply> {
        let (mut parsed, mut limit_text) = (Self::default(), None);
        for (name, text) in pairs(query) {
            let value = || decode_form(name, text);
            match name {
                "host" => parsed.host = Some(value()?),
                "series" => parsed.series.extend(decode_list(name, text)?),
                "latest" => parsed.latest.extend(decode_list(name, text)?),
                "minutes" => {
                    let minutes = value()?.parse().ok().filter(|n| (1..=summary::ANSWER_INTERVALS_MAX).contains(n));
                    let wrong = || Reply::error(400, "minutes: not a whole number between 1 and 60");
                    parsed.minutes = Some(minutes.ok_or_else(wrong)?);
                }
                "labels" => match &*value()? {
                    "none" => parsed.without_labels = true,
                    _ => return Err(Reply::error(400, "labels: only none is known here, which leaves them out")),
                },
                "after" => parsed.after = Some(value()?),
                "limit" => {
                    let limit = value()?;
                    let wrong = || Reply::error(400, "limit: not a whole number above 0");
                    parsed.limit = Some(limit.parse().ok().filter(|limit| *limit > 0).ok_or_else(wrong)?);
                    limit_text = Some(limit);
                }
                "label-after" => parsed.label_after = value()?,
                _ if parsed.range.take(name, &value()?)? => {}
                _ => {
                    let sentence = "query: only host, series, latest, minutes, labels, after, limit, label-after, from, \
                                    to and by are known here";
                    return Err(Reply::error(400, sentence));
                }
            }
        }
        if parsed.range.is_given() {
            if parsed.host.is_none() {
                return Err(Reply::error(400, "from: goes with host, and is of the summaries of one"));
            }
            if let Some(limit) = limit_text {
                parsed.range.take("limit", &limit)?;
                parsed.limit = None;
            }
        }
        if parsed.host.is_some() && (parsed.after.is_some() || parsed.limit.is_some()) {
            return Err(Reply::error(400, "host: lists one host, with which after and limit mean nothing"));
        }
        if parsed.host.is_none() && !parsed.label_after.is_empty() {
            return Err(Reply::error(400, "label-after: goes with host, and pages the labels of one"));
        }
        for (name, labels) in [("series", &parsed.series), ("latest", &parsed.latest)] {
            if labels.len() > LIST_SERIES_MAX {
                return Err(Reply::error(400, &format!("{name}: the limit is {LIST_SERIES_MAX} labels")));
            }
        }
        Ok(parsed)
    }

    /// The host that is asked for, if it is one.
    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Whether a range of summaries is asked for.
    pub(super) fn is_ranged(&self) -> bool {
        self.range.is_given()
    }

    /// The hosts that are asked for, in the order of their names.
    pub(super) fn reply(&self, store: &Store, about: About, now: u64) -> Result<Reply, StoreError> {
        match &self.host {
            Some(host) => self.reply_one(store, host, about, now),
            None => self.reply_page(store, about, now),
        }
    }

    /// One host, with the summaries of a page of its labels.
    fn reply_one(&self, store: &Store, host: &str, about: About, now: u64) -> Result<Reply, StoreError> {
        let all = KeyFilter::containing("");
        let status = store.statuses(&[host.into()], &self.recent(), now)?.pop().flatten();
        let mut answer = self.answer(Vec::new(), 0, now);
        let keep = store.keep();
        let range = match self.range.resolve(&keep, false, now) {
            Ok(range) => range,
            Err(reply) => return Ok(reply),
        };
        let Some(status) = status else {
            answer.about = about;
            return Ok(Reply::json(200, &answer));
        };
        let (listed, ranged): (Page<Series>, Page<Intervals>);
        let (summaries, next) = if let Some(range) = &range {
            ranged = Page::range(store, host, &all, &self.label_after, range.intervals, now)?;
            let summaries = HostSummaries::Range(range.summaries(&ranged, &all));
            (summaries, ranged.last_label().filter(|_| ranged.has_more))
        } else {
            listed = Page::listed(store, host, &all, &self.label_after, now)?;
            let summaries = Summaries { series: &listed.series, filter: &all, keep: &keep, now };
            (HostSummaries::Listed(summaries), listed.last_label().filter(|_| listed.has_more))
        };
        let labels = summaries.labels();
        let mut entry = self.entry(host, Status { labels, ..status }, now);
        entry.summaries = Some(summaries);
        answer = self.answer(vec![entry], 1, now);
        answer.next_label_after = next;
        answer.about = about;
        Ok(Reply::json(200, &answer))
    }

    /// A page of all hosts. It ends early where the answer would become too long.
    fn reply_page(&self, store: &Store, about: About, now: u64) -> Result<Reply, StoreError> {
        let names = store.hosts(now)?;
        let after = self.after.as_deref();
        let rest = &names[after.map_or(0, |after| names.partition_point(|name| **name <= *after))..];
        let rest = &rest[..self.limit.unwrap_or(usize::MAX).min(rest.len())];
        let (mut hosts, mut texts, mut next) = (Vec::new(), 0, None);
        for step in rest.chunks(STEP_HOSTS) {
            if texts >= TEXTS_MAX {
                next = hosts.last().map(|entry: &HostEntry<'_>| entry.host);
                break;
            }
            for (name, status) in step.iter().zip(store.statuses(step, &self.recent(), now)?) {
                let Some(status) = status else { continue };
                texts += 1 + status.labels.len() + status.recent.len() * summary::ANSWER_INTERVALS_MAX;
                hosts.push(self.entry(name, status, now));
            }
        }
        let mut answer = self.answer(hosts, names.len(), now);
        answer.next_after = next;
        answer.about = about;
        Ok(Reply::json(200, &answer))
    }

    /// The labels of which the store is asked for minutes.
    fn recent(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self.series.iter().chain(&self.latest).map(String::as_str).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// How many of the oldest minutes of the hour are left out.
    fn skipped(&self) -> usize {
        self.minutes.map_or(0, |minutes| summary::ANSWER_INTERVALS_MAX.saturating_sub(minutes))
    }

    fn entry<'a>(&self, host: &'a str, mut status: Status, now: u64) -> HostEntry<'a> {
        let is_among = |wanted: &[String], label: &str| wanted.iter().any(|wanted| is_wanted(wanted, label));
        let newest = |(label, means): &(String, Vec<Option<f64>>)| {
            let newest = means.iter().rev().find_map(|mean| *mean)?;
            is_among(&self.latest, label).then(|| (label.clone(), newest))
        };
        let latest = (!self.latest.is_empty()).then(|| status.recent.iter().filter_map(newest).collect());
        status.recent.retain(|(label, _)| is_among(&self.series, label));
        for (_, means) in &mut status.recent {
            means.drain(..self.skipped().min(means.len()));
        }
        HostEntry {
            host,
            state: status.state(now).name(),
            last_epoch: status.last_epoch,
            age_sec: status.age_sec(now),
            interval_sec: status.interval_sec,
            clock_skew_sec: status.clock_skew_sec,
            tags: status.tags,
            series: (!self.series.is_empty()).then(|| status.recent.into_iter().collect()),
            latest,
            labels: (!self.without_labels).then_some(status.labels),
            summaries: None,
        }
    }

    fn answer<'a>(&self, hosts: Vec<HostEntry<'a>>, count: usize, now: u64) -> HostsAnswer<'a> {
        let has_series = !self.series.is_empty();
        HostsAnswer {
            hosts,
            count,
            next_after: None,
            next_label_after: None,
            about: About::default(),
            series_start_sec: has_series
                .then(|| summary::recent_start(now) + self.skipped() as u64 * summary::RECENT.interval_sec),
            series_interval_sec: has_series.then_some(summary::RECENT.interval_sec),
        }
    }
}

/// What is said of the receiver beside the hosts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct About {
    /// How many alerts fire, where rules are judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) firing: Option<usize>,
    /// Whether anyone on other machines may submit and remove.
    #[serde(rename = "open", skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_open: bool,
}

/// The list of hosts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct HostsAnswer<'a> {
    hosts: Vec<HostEntry<'a>>,
    /// How many hosts there are, of which a page lists some; with `host` asked for, how many are listed.
    count: usize,
    /// Where the page has ended early: the next one is behind this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<&'a str>,
    /// Where there are more labels of the host: their next page is behind this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_label_after: Option<&'a str>,
    #[serde(flatten)]
    about: About,
    #[serde(skip_serializing_if = "Option::is_none")]
    series_start_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series_interval_sec: Option<u64>,
}

/// A host as the list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct HostEntry<'a> {
    host: &'a str,
    state: &'static str,
    last_epoch: u64,
    age_sec: u64,
    interval_sec: Option<u64>,
    clock_skew_sec: Option<i32>,
    #[serde(skip_serializing_if = "Tags::is_empty", serialize_with = "serialize_tags")]
    tags: Tags,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    /// The newest mean of the last hour by minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<BTreeMap<String, f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<BTreeMap<String, Vec<Option<f64>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summaries: Option<HostSummaries<'a>>,
}

/// Tags as an object of names and values.
fn serialize_tags<S: Serializer>(tags: &Tags, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tags.iter())
}

/// The summaries of a page of the labels of a host.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum HostSummaries<'a> {
    Listed(Summaries<'a, SmolStr>),
    Range(RangeSummaries<'a, SmolStr>),
}

impl HostSummaries<'_> {
    fn labels(&self) -> Vec<String> {
        match self {
            Self::Listed(summaries) => summaries.series.iter().map(|(label, _)| label.to_string()).collect(),
            Self::Range(summaries) => summaries.series.iter().map(|(label, _)| label.to_string()).collect(),
        }
    }
}
