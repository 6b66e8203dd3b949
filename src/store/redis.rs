//! The store in Redis, which any number of receivers share. Redis keeps everything: a receiver has connections, and an
//! estimate of how many series there are.
//!
//! One script records a sample, all of it or nothing. The keys of a host have its name as their hash tag, so that a
//! cluster keeps them on one node. The index of hosts is spread over a few keys. A host is written to the index before
//! its first sample of an hour is recorded, so that the index has every host. Where the index's node is away, the sample
//! is recorded all the same and the host is listed with a later one.

mod address;
mod alerts;
mod archives;
mod expiry;
mod layout;
mod node;
mod nodes;
mod recording;
mod replies;
mod setting;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ::redis::Value;
use smol_str::SmolStr;

use super::host::{forgotten_from, is_in_conflict};
use super::{KeepOptions, LabelPage, Limits, MATCHES_MAX, Status, StoreError, is_wanted};
use crate::sample::Tags;
use crate::summary::{self, ANSWER_INTERVALS_MAX, Bucket, IntervalRange, Intervals, Keep, RECENT, Series, round2};
pub use address::Address;
use expiry::Trimmed;
use layout::{HostKeys, INDEX_PARTS, Scripts};
use nodes::{ANSWER_WITHIN, Command, Nodes};
pub(super) use recording::Recording;
use setting::Known;

/// Hosts whose status is asked for in one batch: with the last hour of a few series, some hundred kilobytes of replies
/// for each thread that asks.
const STATUSES_PER_BATCH: usize = 16;
/// Most labels of a host whose windows are read as whole hashes: about 30,000 fields, some milliseconds of Redis's time.
/// Of a host with more, the fields of so few labels at a time are read that other commands come in between.
const LABELS_READ_WHOLE_MAX: usize = 256;
/// Labels whose fields one batch reads of a host with more labels: some 10,000 fields.
const LABELS_PER_BATCH: usize = 64;
/// Intervals that one batch reads of a range: some milliseconds of Redis's time.
const FIELDS_PER_BATCH: usize = 10_000;

/// Hosts in a shared Redis.
pub(super) struct Redis {
    address: Address,
    nodes: Nodes,
    scripts: Scripts,
    /// An estimate of how many series there are: what the last sweep counted, and what this receiver has added since.
    series: AtomicUsize,
    limits: Limits,
    known: Known,
    trimmed: Mutex<Trimmed>,
    /// Which of the receivers reads for archives.
    reader: u64,
}

impl Redis {
    /// Prepares connections to the Redis at an address. The first sweep counts what it holds.
    ///
    /// # Errors
    /// When it keeps something else than this receiver is asked for. Where it does not answer that shows later.
    pub(super) fn open(address: &Address, limits: Limits, options: &KeepOptions) -> Result<Self, String> {
        let scripts = Scripts::new(limits);
        let nodes = Nodes::open(address, scripts.loads.clone())?;
        let (series, known) = (AtomicUsize::new(0), Known::new(options));
        let reader = RandomState::new().hash_one(0);
        let (address, trimmed) = (address.clone(), Mutex::default());
        let redis = Self { address, nodes, scripts, series, limits, known, trimmed, reader };
        // What else fails is tried again before the first sample.
        let agreed = redis.agree();
        match redis.known.refusal() {
            Some(refusal) => Err(format!("store {}: {}", redis.address, refusal.reason)),
            None => agreed.map(drop).or(Ok(())).map(|()| redis),
        }
    }

    pub(super) fn keep(&self) -> Keep {
        self.known.setting().keep
    }

    pub(super) fn description(&self) -> String {
        let kept = self
            .known
            .agreed()
            .map_or_else(|| "does not say yet what it keeps".to_owned(), |setting| format!("keeps {}", setting.keep));
        format!("Store is {}, which {kept}, shared by all receivers that name it", self.address)
    }

    pub(super) fn series_count(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    pub(super) fn unavailable(&self) -> Option<StoreError> {
        self.nodes.unavailable().or_else(|| self.known.refusal())
    }

    /// The series of a host whose keys a filter has, sorted by label.
    ///
    /// A host of few labels costs one batch of about five reads. One of many costs a batch for every few labels, so that
    /// a single reader does not hold Redis, and the connections to it, for long.
    pub(super) fn series(
        &self,
        host: &str,
        page: &LabelPage<'_>,
        now: u64,
    ) -> Result<Vec<(SmolStr, Series)>, StoreError> {
        let keys = HostKeys::of(host);
        let known = self.ask(&[keys.labels()]).pop().unwrap_or(Ok(Value::Nil))?;
        let is_small = replies::pairs(&known).count() <= LABELS_READ_WHOLE_MAX;
        let (keep, labels) = (&self.keep(), self.labels_of(&known, page, now));
        let mut series: BTreeMap<SmolStr, Series> =
            labels.iter().map(|label| (label.into(), Series::default())).collect();
        for labels in labels.chunks(if is_small { LABELS_READ_WHOLE_MAX } else { LABELS_PER_BATCH }) {
            let reads = if is_small { keys.summaries(keep, now) } else { keys.summaries_of(keep, labels, now) };
            let replies = self.ask(&reads.iter().map(|read| &read.command).cloned().collect::<Vec<_>>());
            for (read, reply) in reads.iter().zip(replies) {
                let oldest = keep.windows().get(read.window).map_or(0, |window| window.oldest_listed(now));
                for (number, label, bucket) in read.buckets(&reply?).filter(|(number, ..)| *number >= oldest) {
                    if let Some(series) = series.get_mut(&label) {
                        series.add(keep, read.window, number, bucket, now);
                    }
                }
            }
        }
        Ok(series.into_iter().collect())
    }

    /// A range of the intervals of a page of the labels of a host, sorted by label: some thousand intervals a batch.
    pub(super) fn range(
        &self,
        host: &str,
        page: &LabelPage<'_>,
        range: IntervalRange,
        now: u64,
    ) -> Result<Vec<(SmolStr, Intervals)>, StoreError> {
        let keys = HostKeys::of(host);
        let known = self.ask(&[keys.labels()]).pop().unwrap_or(Ok(Value::Nil))?;
        let labels = self.labels_of(&known, page, now);
        let mut ranges: Vec<(SmolStr, Intervals)> =
            labels.iter().map(|label| (label.into(), Intervals::new())).collect();
        for ranges in ranges.chunks_mut(LABELS_PER_BATCH) {
            let labels: Vec<SmolStr> = ranges.iter().map(|(label, _)| label.clone()).collect();
            let reads = if range.first > range.last {
                Vec::new()
            } else {
                keys.intervals(&range.window, range.first, range.last, &labels)
            };
            let fields = reads.iter().map(|(fields, _)| fields.len()).max().unwrap_or(1);
            for reads in reads.chunks((FIELDS_PER_BATCH / fields).max(1)) {
                let replies = self.ask(&reads.iter().map(|(_, command)| command.clone()).collect::<Vec<_>>());
                for ((fields, _), reply) in reads.iter().zip(replies) {
                    let Value::Array(buckets) = reply? else { continue };
                    for ((number, label), bucket) in fields.iter().zip(&buckets) {
                        let intervals = ranges.get_mut(*label).map(|(_, intervals)| intervals);
                        if let (Some(intervals), Some(bucket)) = (intervals, replies::read_bucket(bucket)) {
                            intervals.push((*number, bucket));
                        }
                    }
                }
            }
        }
        Ok(ranges)
    }

    /// The labels of a page, sorted, of those that Redis has of a host.
    fn labels_of(&self, known: &Value, page: &LabelPage<'_>, now: u64) -> Vec<String> {
        let keep = &self.keep();
        let labels = replies::pairs(known).filter_map(|(label, hour)| layout::read_label(keep, label, hour, now));
        let mut labels: Vec<String> = labels.filter(|label| page.matches(label)).collect();
        labels.sort_unstable();
        labels.truncate(page.labels_max);
        labels
    }

    /// What each of some hosts has reported in the running minute, sorted by label: two batches for a few hosts.
    pub(super) fn running(&self, hosts: &[SmolStr], now: u64) -> Result<Vec<Vec<(SmolStr, Bucket)>>, StoreError> {
        let (mut running, keep) = (Vec::with_capacity(hosts.len()), &self.keep());
        for hosts in hosts.chunks(STATUSES_PER_BATCH) {
            let keys: Vec<HostKeys> = hosts.iter().map(|host| HostKeys::of(host)).collect();
            let known = self.ask(&keys.iter().map(HostKeys::labels).collect::<Vec<_>>());
            let mut reads = Vec::with_capacity(hosts.len());
            for (keys, known) in keys.iter().zip(known) {
                let known = known?;
                let labels =
                    replies::pairs(&known).filter_map(|(label, hour)| layout::read_label(keep, label, hour, now));
                let mut labels: Vec<String> = labels.collect();
                labels.sort_unstable();
                reads.push((!labels.is_empty()).then(|| keys.running(&labels, now)));
            }
            let mut replies =
                self.ask(&reads.iter().flatten().map(|read| read.command.clone()).collect::<Vec<_>>()).into_iter();
            for read in reads {
                let Some(read) = read else {
                    running.push(Vec::new());
                    continue;
                };
                let reply = replies.next().unwrap_or(Ok(Value::Nil))?;
                running.push(read.buckets(&reply).map(|(_, label, bucket)| (label, bucket)).collect());
            }
        }
        Ok(running)
    }

    pub(super) fn hosts(&self, now: u64) -> Result<Vec<SmolStr>, StoreError> {
        self.listed_hosts(&self.keep(), now)
    }

    /// The names of the hosts that are not to be forgotten where so much is kept.
    fn listed_hosts(&self, keep: &Keep, now: u64) -> Result<Vec<SmolStr>, StoreError> {
        let commands: Vec<Command> = (0..INDEX_PARTS).map(layout::listed).collect();
        let mut hosts = Vec::new();
        for reply in self.ask(&commands) {
            let reply = reply?;
            let listed = replies::pairs(&reply).filter_map(|(host, entry)| layout::read_listed(host, entry));
            let is_kept = |newest: u64| now < self.forgotten_from(keep, newest);
            hosts.extend(listed.filter(|(_, newest)| is_kept(*newest)).map(|(host, _)| SmolStr::new(host)));
        }
        hosts.sort_unstable();
        Ok(hosts)
    }

    pub(super) fn statuses(
        &self,
        hosts: &[SmolStr],
        recent: &[&str],
        now: u64,
    ) -> Result<Vec<Option<Status>>, StoreError> {
        let mut statuses = Vec::with_capacity(hosts.len());
        for hosts in hosts.chunks(STATUSES_PER_BATCH) {
            let wanted = self.wanted_labels(hosts, recent, now)?;
            let (mut commands, mut fields) = (Vec::new(), Vec::new());
            for (host, recent) in hosts.iter().zip(&wanted) {
                let keys = HostKeys::of(host);
                commands.extend(keys.about());
                let means = if recent.is_empty() { Vec::new() } else { keys.recent(recent, now) };
                fields.push(means.iter().map(|(fields, _)| fields.clone()).collect::<Vec<_>>());
                commands.extend(means.into_iter().map(|(_, command)| command));
            }
            let mut replies = self.ask(&commands).into_iter();
            let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
            for (fields, recent) in fields.into_iter().zip(&wanted) {
                let (about, labels) = (next()?, next()?);
                let means = fields.into_iter().map(|fields| Ok((fields, next()?))).collect::<Result<Vec<_>, _>>()?;
                let is_kept = |status: &Status| now < self.forgotten_from(&self.keep(), status.last_epoch);
                statuses.push(status(&self.keep(), &about, &labels, recent, &means, now).filter(is_kept));
            }
        }
        Ok(statuses)
    }

    /// The second from which a host is forgotten: nothing is kept of it any more then.
    fn forgotten_from(&self, keep: &Keep, last_epoch: u64) -> u64 {
        let listed_until = layout::listed_until(keep, layout::hour_of(last_epoch));
        forgotten_from(last_epoch, self.limits.forget_hosts_sec).max(listed_until)
    }

    /// The labels of each of some hosts that `recent` names. Only where beginnings are among them Redis is asked.
    fn wanted_labels(&self, hosts: &[SmolStr], recent: &[&str], now: u64) -> Result<Vec<Vec<SmolStr>>, StoreError> {
        let exact = recent.iter().filter(|wanted| !wanted.ends_with('*'));
        let exact: Vec<SmolStr> = exact.map(SmolStr::new).collect();
        let mut wanted = vec![exact; hosts.len()];
        let beginnings: Vec<&&str> = recent.iter().filter(|wanted| wanted.ends_with('*')).collect();
        if beginnings.is_empty() {
            return Ok(wanted);
        }
        let keep = &self.keep();
        let commands: Vec<Command> = hosts.iter().map(|host| HostKeys::of(host).labels()).collect();
        for (reply, wanted) in self.ask(&commands).into_iter().zip(&mut wanted) {
            let reply = reply?;
            let pairs = || replies::pairs(&reply);
            let labels = || pairs().filter_map(|(label, hour)| layout::read_label(keep, label, hour, now));
            for beginning in &beginnings {
                let matches = labels().filter(|label| is_wanted(beginning, label));
                wanted.extend(matches.take(MATCHES_MAX).map(SmolStr::from));
            }
            wanted.sort_unstable();
            wanted.dedup();
        }
        Ok(wanted)
    }

    pub(super) fn set_tags(&self, host: &str, tags: &Tags) -> Result<bool, StoreError> {
        let reply = self.ask(&[HostKeys::of(host).set_tags(&self.scripts, tags)]).pop().unwrap_or(Ok(Value::Nil));
        understood(reply, |reply| if let Value::Int(known) = reply { Some(*known == 1) } else { None })
    }

    pub(super) fn remove(&self, host: &str, now: u64) -> Result<bool, StoreError> {
        let keys = HostKeys::of(host);
        // Wherever this ends half-way, the host's next sample finds that it is not listed, and lists it again.
        for step in [keys.mark_unlisted(), layout::unlist(keys.index_part(), host)] {
            self.ask(&[step]).into_iter().try_for_each(|reply| reply.map(drop))?;
        }
        let reply = self.ask(&[keys.remove(&self.scripts, &self.keep(), now)]).pop().unwrap_or(Ok(Value::Nil))?;
        let Value::Int(labels) = reply else { return Err(not_understood(&reply)) };
        let Ok(labels) = usize::try_from(labels) else { return Ok(false) };
        let less = |count: usize| Some(count.saturating_sub(labels));
        let _ = self.series.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(true)
    }

    /// The clock of one of its servers, in milliseconds since the Unix epoch; `None` if that does not answer.
    pub(super) fn time_ms(&self) -> Option<i64> {
        replies::read_time_ms(&self.ask(&[layout::time()]).pop()?.ok()?)
    }

    /// Removes hosts from the index that are to be forgotten, returns their names, and counts the series of the others. The
    /// keys of a host expire by themselves, but for days that share a hash. Where Redis does not answer, the next sweep does this.
    pub(super) fn sweep(&self, now: u64) -> Vec<SmolStr> {
        if let Err(error) = self.sweep_settings(now).and_then(|()| self.trim_days(now)) {
            log::debug!("Setting and days of the store could not be looked at: {error}");
        }
        let keep = &self.keep();
        let commands: Vec<Command> =
            (0..INDEX_PARTS).map(|part| layout::sweep(&self.scripts, keep, part, now)).collect();
        let mut forgotten = Vec::new();
        let counted = self.ask(&commands).into_iter().map(|reply| replies::read_swept(&reply.ok()?, &mut forgotten));
        // Every part is read, whether or not one before it has failed.
        let counted: Vec<Option<usize>> = counted.collect();
        if let Some(series) = counted.into_iter().sum::<Option<usize>>() {
            self.series.store(series, Ordering::Relaxed);
        }
        if let Err(error) = self.trim_forgotten(&forgotten, now) {
            log::debug!("Days of hosts that are forgotten are kept until their hashes expire: {error}");
        }
        forgotten
    }

    fn ask(&self, commands: &[Command]) -> Vec<Result<Value, StoreError>> {
        self.nodes.run(commands, Instant::now() + ANSWER_WITHIN)
    }
}

/// The status of a host; `None` where it is not known.
fn status(
    keep: &Keep,
    about: &Value,
    labels: &Value,
    recent: &[SmolStr],
    means: &[(Vec<(u64, usize)>, Value)],
    now: u64,
) -> Option<Status> {
    let mut labels: Vec<String> =
        replies::pairs(labels).filter_map(|(label, hour)| layout::read_label(keep, label, hour, now)).collect();
    labels.sort_unstable();
    let about = replies::read_about(about)?;
    let interval_sec = about.gaps_sec.into_iter().filter(|gap_sec| *gap_sec > 0).min();
    let first = summary::recent_start(now) / RECENT.interval_sec;
    let mut by_label: Vec<Vec<Option<f64>>> = vec![vec![None; ANSWER_INTERVALS_MAX]; recent.len()];
    for (fields, buckets) in means {
        let Value::Array(buckets) = buckets else { continue };
        for ((number, label), bucket) in fields.iter().zip(buckets) {
            let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            if let Some(mean) = place.and_then(|place| by_label[*label].get_mut(place)) {
                *mean = replies::read_bucket(bucket).map(|bucket| round2(bucket.mean()));
            }
        }
    }
    let recent = recent.iter().zip(by_label).filter(|(label, _)| labels.iter().any(|known| *known == **label));
    Some(Status {
        last_epoch: about.last_epoch,
        interval_sec,
        clock_skew_sec: about.skew_sec,
        is_in_conflict: is_in_conflict(about.conflict_sec, interval_sec, now),
        tags: about.tags,
        recent: recent.map(|(label, means)| (label.to_string(), means)).collect(),
        labels,
    })
}

fn understood<T>(reply: Result<Value, StoreError>, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, StoreError> {
    reply.and_then(|reply| read(&reply).ok_or_else(|| not_understood(&reply)))
}

fn not_understood(reply: &Value) -> StoreError {
    StoreError::uncertain(format!("Redis has answered {reply:?}, which no script of this version gives"))
}
