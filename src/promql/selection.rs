//! Which series there are: the labels of the hosts as metrics, and what the receiver knows of a host.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smol_str::SmolStr;

use super::{Budget, Error, Labels, NAME, Selector};
use crate::metric_names::{Metric, MetricNames, Stat, help};
use crate::store::{Status, Store};

/// Hosts that the store is asked for at a time.
const STEP_HOSTS: usize = 100;
/// The label of the host.
pub(super) const HOST: &str = "host";
/// The label that tells series apart which would be one.
const LABEL: &str = "label";

/// What the receiver knows of a host, as a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// 1 while it reports.
    Up,
    /// 1, with its tags as labels.
    Info,
}

const OWN: [(Own, &str, &str); 2] = [
    (Own::Up, "lizm_host_up", "1 while the host reports; over a longer step the part of the time."),
    (Own::Info, "lizm_host_info", "Tags of the host, where it has any; the value means nothing."),
];

/// What a selector has found of one host.
pub(super) struct Found {
    pub(super) host: SmolStr,
    pub(super) status: Status,
    /// The labels of the host, each with the metrics that match.
    pub(super) labels: BTreeMap<SmolStr, Vec<(Stat, Labels)>>,
    pub(super) own: Vec<(Own, Labels)>,
}

impl Found {
    /// The labels of all series.
    pub(super) fn into_series(self) -> impl Iterator<Item = Labels> {
        let reported = self.labels.into_values().flatten().map(|(_, labels)| labels);
        reported.chain(self.own.into_iter().map(|(_, labels)| labels))
    }

    pub(super) fn count(&self) -> usize {
        self.labels.values().map(Vec::len).sum::<usize>() + self.own.len()
    }
}

/// What the metadata say of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricInfo {
    /// A sentence.
    pub help: String,
    /// The unit as Prometheus writes it, or nothing.
    pub unit: &'static str,
}

/// The series of a store at a time.
pub struct Selection<'a> {
    pub(super) store: &'a Store,
    pub(super) now: u64,
    names: MetricNames,
}

impl<'a> Selection<'a> {
    /// The series of `store` at `now`, in seconds since the Unix epoch.
    #[must_use]
    pub fn new(store: &'a Store, now: u64) -> Self {
        Self { store, now, names: MetricNames::default() }
    }

    /// Calls `each` with the labels of the series that match any of `selectors`, or of all without one, as long as it is
    /// true. A series that matches two comes twice.
    ///
    /// # Errors
    /// When the time is over, or the store cannot be read.
    pub fn visit(
        &mut self,
        selectors: &[Selector],
        budget: &Budget,
        mut each: impl FnMut(Labels) -> bool,
    ) -> Result<(), Error> {
        let everything = [Selector { matchers: Vec::new(), offset_ms: 0 }];
        let selectors = if selectors.is_empty() { &everything } else { selectors };
        selectors
            .iter()
            .try_for_each(|selector| self.find(selector, budget, |found| Ok(found.into_series().all(&mut each))))
    }

    /// The names of all hosts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn hosts(&self) -> Result<Vec<SmolStr>, Error> {
        Ok(self.store.hosts(self.now)?)
    }

    /// All metrics by name, and the names of all labels.
    ///
    /// # Errors
    /// When the time is over, or the store cannot be read.
    pub fn metrics(&mut self, budget: &Budget) -> Result<(BTreeMap<String, MetricInfo>, BTreeSet<SmolStr>), Error> {
        let (mut places, mut metrics, mut names) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let (hosts, mut has_tags) = (self.hosts()?, false);
        for step in hosts.chunks(STEP_HOSTS) {
            budget.check()?;
            for status in self.store.statuses(step, &[], self.now)?.into_iter().flatten() {
                places.extend(status.labels.iter().map(|label| self.names.place(label)));
                has_tags |= !status.tags.is_empty();
                names.extend(status.tags.iter().map(|(name, _)| SmolStr::from(name)));
                if !self.names.shared(status.labels.iter().map(String::as_str)).is_empty() {
                    names.insert(LABEL.into());
                }
            }
        }
        for (own, name, help) in OWN {
            if !hosts.is_empty() && (own == Own::Up || has_tags) {
                metrics.insert(name.to_owned(), MetricInfo { help: help.to_owned(), unit: "" });
            }
        }
        if !hosts.is_empty() {
            names.extend([NAME.into(), HOST.into()]);
        }
        for (metric, unit) in places.into_iter().filter_map(|place| self.names.metric(place)) {
            names.extend(metric.labels.iter().map(|(name, _)| name.clone()));
            for stat in Stat::ALL {
                let unit_word = if stat == Stat::Samples { "" } else { unit.word() };
                let info = || MetricInfo { help: help(&metric.name, stat, unit), unit: unit_word };
                metrics.entry(metric.name_of(stat).to_string()).or_insert_with(info);
            }
        }
        Ok((metrics, names))
    }

    /// Finds the series of a selector, host by host, until `each` says that it has enough.
    pub(super) fn find(
        &mut self,
        selector: &Selector,
        budget: &Budget,
        mut each: impl FnMut(Found) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut stats_by_place = HashMap::new();
        for step in self.hosts()?.chunks(STEP_HOSTS) {
            budget.check()?;
            let mut wanted = Vec::new();
            for host in step {
                budget.check()?;
                wanted.extend(selector.allows(HOST, host).then(|| host.clone()));
            }
            let statuses = if wanted.is_empty() { Vec::new() } else { self.store.statuses(&wanted, &[], self.now)? };
            for (host, status) in wanted.iter().zip(statuses) {
                let Some(status) = status else { continue };
                let found = self.find_host(selector, host, status, &mut stats_by_place, budget)?;
                if found.count() > 0 && !each(found)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn find_host(
        &mut self,
        selector: &Selector,
        host: &SmolStr,
        status: Status,
        stats_by_place: &mut HashMap<usize, Vec<Stat>>,
        budget: &Budget,
    ) -> Result<Found, Error> {
        let shared = self.names.shared(status.labels.iter().map(String::as_str));
        let mut labels = BTreeMap::new();
        for label in &status.labels {
            let place = self.names.place(label);
            let Some((metric, _)) = self.names.metric(place) else { continue };
            let told_apart = shared.contains(label.as_str()).then_some(label.as_str());
            let series = |stat| labels_of(metric, stat, host, told_apart);
            // The same metric of another host matches too: the hosts that are asked for have been chosen before.
            let known = stats_by_place.get(&place).filter(|_| told_apart.is_none());
            let stats = match known {
                Some(stats) => stats.clone(),
                None => {
                    let mut stats = Vec::new();
                    for stat in Stat::ALL {
                        // Expressions may be long.
                        budget.check()?;
                        stats.extend(selector.matches(&series(stat)).then_some(stat));
                    }
                    if told_apart.is_none() {
                        stats_by_place.insert(place, stats.clone());
                    }
                    stats
                }
            };
            if !stats.is_empty() {
                labels.insert(label.into(), stats.into_iter().map(|stat| (stat, series(stat))).collect());
            }
        }
        let own = OWN.iter().filter(|(own, ..)| *own == Own::Up || !status.tags.is_empty()).map(|(own, name, _)| {
            let mut labels = vec![(NAME.into(), (*name).into()), (HOST.into(), host.clone())];
            if *own == Own::Info {
                labels.extend(status.tags.iter().map(|(name, value)| (name.into(), value.into())));
            }
            (*own, Labels::new(labels))
        });
        let own = own.filter(|(_, labels)| selector.matches(labels)).collect();
        Ok(Found { host: host.clone(), status, labels, own })
    }
}

fn labels_of(metric: &Metric, stat: Stat, host: &SmolStr, told_apart: Option<&str>) -> Labels {
    let mut labels = vec![(NAME.into(), metric.name_of(stat)), (HOST.into(), host.clone())];
    labels.extend(metric.labels.iter().cloned());
    if let Some(label) = told_apart.filter(|_| metric.labels.iter().all(|(name, _)| name != LABEL)) {
        labels.push((LABEL.into(), label.into()));
    }
    Labels::new(labels)
}
