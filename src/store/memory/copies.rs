//! What readers get of the hosts in memory: copies, which are made while a shard is locked, and sorted after that.

use smol_str::SmolStr;

use super::{MemoryStore, locked};
use crate::store::host::Host;
use crate::store::{LabelPage, Pulse, Status};
use crate::summary::{Bucket, IntervalRange, Intervals, Series, Tail};

impl MemoryStore {
    /// Copies what an answer without a range lists of a page of labels, sorted by label. No more than a page is copied while
    /// the shard is locked.
    pub(in crate::store) fn series(&self, host: &str, page: &LabelPage<'_>, now: u64) -> Vec<(SmolStr, Series)> {
        self.copy(host, page, |_, series| series.listed(&self.keep, now))
    }

    /// Copies a range of the intervals of a page of labels, sorted by label.
    pub(in crate::store) fn range(
        &self,
        host: &str,
        page: &LabelPage<'_>,
        range: IntervalRange,
    ) -> Vec<(SmolStr, Intervals)> {
        self.copy(host, page, |_, series| series.range(&self.keep, range))
    }

    /// Copies of a range what memory holds of a page of labels, sorted by label, and where a part of the range is on disk the
    /// number by which that is found there.
    #[cfg(feature = "disk")]
    pub(in crate::store) fn range_and_disk(
        &self,
        host: &str,
        page: &LabelPage<'_>,
        range: IntervalRange,
    ) -> Vec<(SmolStr, (Intervals, Option<u64>))> {
        self.copy(host, page, |host, series| {
            let is_on_disk = series.is_on_disk(&self.keep, range);
            (series.range(&self.keep, range), is_on_disk.then_some(u64::from(host.disk_id)))
        })
    }

    fn copy<T>(&self, host: &str, page: &LabelPage<'_>, copy: impl Fn(&Host, &Series) -> T) -> Vec<(SmolStr, T)> {
        let shard = self.shard(host);
        let Some(host) = shard.get(host) else { return Vec::new() };
        let mut series: Vec<_> = host.series.iter().filter(|(label, _)| page.matches(label)).collect();
        if page.labels_max < series.len() {
            series.select_nth_unstable_by(page.labels_max, |(a, _), (b, _)| a.cmp(b));
            series.truncate(page.labels_max);
        }
        let mut series: Vec<_> =
            series.into_iter().map(|(label, series)| (label.clone(), copy(host, series))).collect();
        drop(shard);
        series.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        series
    }

    /// How many series a host has.
    pub(in crate::store) fn series_of(&self, host: &str) -> usize {
        self.shard(host).get(host).map_or(0, |host| host.series.len())
    }

    /// Copies what a host has reported in the running minute, sorted by label.
    pub(in crate::store) fn running(&self, host: &str, now: u64) -> Vec<(SmolStr, Bucket)> {
        let shard = self.shard(host);
        let Some(host) = shard.get(host) else { return Vec::new() };
        let running = host.series.iter().filter_map(|(label, series)| Some((label.clone(), series.running(now)?)));
        let mut running: Vec<_> = running.collect();
        drop(shard);
        running.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        running
    }

    /// The names of all hosts, sorted.
    pub(in crate::store) fn hosts(&self) -> Vec<SmolStr> {
        let mut names = Vec::new();
        for shard in &self.shards {
            names.extend(locked(shard).keys().cloned());
        }
        names.sort_unstable();
        names
    }

    /// Copies what the list of hosts shows of `host`, with the last hour of the labels `recent`.
    pub(in crate::store) fn status(&self, host: &str, recent: &[&str], now: u64) -> Option<Status> {
        let shard = self.shard(host);
        let host = shard.get(host)?;
        let mut status = Status {
            last_epoch: host.last_epoch,
            interval_sec: host.interval_sec(),
            clock_skew_sec: host.skew.map(|skew| skew.ahead_sec),
            is_in_conflict: host.is_in_conflict(now),
            tags: host.tags(),
            labels: host.series.iter().map(|(label, _)| label.to_string()).collect(),
            recent: recent.iter().flat_map(|wanted| host.recent(wanted, now)).collect(),
        };
        drop(shard);
        status.labels.sort_unstable();
        Some(status)
    }

    /// The signs of life of all hosts, sorted by name.
    pub(in crate::store) fn pulses(&self) -> Vec<Pulse> {
        let mut pulses = Vec::new();
        for shard in &self.shards {
            pulses.extend(locked(shard).iter().map(|(name, host)| host.pulse(name)));
        }
        pulses.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        pulses
    }

    /// Copies the newest intervals of each series of a host, as many as `intervals` says, sorted by label.
    pub(in crate::store) fn tails(
        &self,
        host: &str,
        mut intervals: impl FnMut(&SmolStr) -> Option<[u64; 2]>,
    ) -> Vec<(SmolStr, [Tail; 2])> {
        let shard = self.shard(host);
        let Some(host) = shard.get(host) else { return Vec::new() };
        let tails = host
            .series
            .iter()
            .filter_map(|(label, series)| Some((label.clone(), series.tails(&self.keep, intervals(label)?))));
        let mut tails: Vec<_> = tails.collect();
        drop(shard);
        tails.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        tails
    }
}
