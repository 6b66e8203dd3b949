//! The list of hosts: what is asked of it, and what is answered.

use std::collections::BTreeMap;

use serde::Serialize;
use smol_str::SmolStr;

use super::form::{decode_form, pairs};
use super::reply::Reply;
use crate::store::{Store, StoreError};
use crate::summary::{self, KeyFilter, Summaries};

/// Most labels in `?series=`: what a page shows of a host at a glance.
const LIST_SERIES_MAX: usize = 16;

/// Which hosts, and what of them.
#[derive(Debug, Default)]
pub(super) struct HostsQuery {
    host: Option<String>,
    series: Vec<String>,
    after: Option<String>,
    limit: Option<usize>,
}

impl HostsQuery {
    pub(super) fn parse(query: &str) -> Result<Self, Reply> {
        let mut parsed = Self::default();
        for (name, value) in pairs(query) {
            let value = || decode_form(name, value);
            match name {
                "host" => parsed.host = Some(value()?),
                "series" => parsed.series = value()?.split(',').map(str::to_owned).collect(),
                "after" => parsed.after = Some(value()?),
                "limit" => {
                    let limit = value()?.parse().ok().filter(|limit| *limit > 0);
                    let wrong = || Reply::error(400, "limit: not a whole number above 0");
                    parsed.limit = Some(limit.ok_or_else(wrong)?);
                }
                _ => return Err(Reply::error(400, "query: only host, series, after and limit are known here")),
            }
        }
        if parsed.host.is_some() && (parsed.after.is_some() || parsed.limit.is_some()) {
            return Err(Reply::error(400, "host: lists one host, with which after and limit mean nothing"));
        }
        if parsed.series.len() > LIST_SERIES_MAX {
            return Err(Reply::error(400, &format!("series: the limit is {LIST_SERIES_MAX} labels")));
        }
        Ok(parsed)
    }

    /// The hosts that are asked for, in the order of their names.
    pub(super) fn reply(&self, store: &Store, now: u64) -> Result<Reply, StoreError> {
        let names = store.hosts(now)?;
        let listed = match (&self.host, &self.after) {
            (Some(host), _) => match names.binary_search_by(|name| (**name).cmp(host.as_str())) {
                Ok(place) => &names[place..=place],
                Err(_) => &[],
            },
            (None, Some(after)) => &names[names.partition_point(|name| **name <= **after)..],
            (None, None) => &names[..],
        };
        let listed = &listed[..self.limit.unwrap_or(usize::MAX).min(listed.len())];
        let series: Vec<&str> = self.series.iter().map(String::as_str).collect();
        let all = KeyFilter::containing("");
        let kept = self.host.as_ref().map(|host| store.series(host, &all, now)).transpose()?;
        let statuses = store.statuses(listed, &series, now)?;
        let hosts = listed.iter().zip(statuses).filter_map(|(name, status)| {
            let status = status?;
            Some(HostEntry {
                host: name,
                state: status.state(now).name(),
                last_epoch: status.last_epoch,
                age_sec: status.age_sec(now),
                interval_sec: status.interval_sec,
                clock_skew_sec: status.clock_skew_sec,
                series: (!series.is_empty()).then(|| status.recent.into_iter().collect()),
                labels: status.labels,
                summaries: kept.as_ref().map(|series| Summaries { series, filter: &all, now }),
            })
        });
        let answer = HostsAnswer {
            hosts: hosts.collect(),
            count: names.len(),
            series_start_sec: (!series.is_empty()).then(|| summary::recent_start(now)),
            series_interval_sec: (!series.is_empty()).then_some(summary::RECENT.interval_sec),
        };
        Ok(Reply::json(200, &answer))
    }
}

/// The list of hosts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct HostsAnswer<'a> {
    hosts: Vec<HostEntry<'a>>,
    /// All hosts there are, of which a page lists some.
    count: usize,
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
    labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<BTreeMap<String, Vec<Option<f64>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summaries: Option<Summaries<'a, SmolStr>>,
}
