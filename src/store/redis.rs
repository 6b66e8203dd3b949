//! The store in Redis, which any number of receivers share and which keeps everything: a receiver has no state of its
//! own but connections, and about how many series there are.
//!
//! A sample is recorded by one script, with all or nothing of it. The keys of a host have its name as their hash tag, so
//! that a cluster keeps them together; a list of all hosts is spread over a few keys. The list is told of a host before
//! the host's sums are written, and once an hour again, so that nothing is kept that no list knows of.

mod address;
mod layout;
mod node;
mod nodes;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ::redis::Value;
use smol_str::SmolStr;

use super::{BatchOutcome, RecordOutcome, Status, StoreError};
use crate::sample::{IdempotencyKey, SampleRef};
use crate::summary::{self, ANSWER_INTERVALS_MAX, KeyFilter, RECENT, Series, round2};
pub use address::Address;
use layout::{HostKeys, INDEX_PARTS, ScriptReply, Scripts};
use nodes::{ANSWER_WITHIN, Command, Nodes};

/// Hosts whose state is asked for at once: with the last hour of a few series, some hundred kilobytes of replies, for
/// each worker that asks.
const STATUSES_AT_ONCE: usize = 16;

/// Hosts in a shared Redis.
pub(super) struct Redis {
    address: Address,
    nodes: Nodes,
    scripts: Scripts,
    /// About how many series there are: counted by each sweep, and with what this receiver has added since.
    series: AtomicUsize,
    series_max: usize,
}

/// What the index is to be told of a host before some of its samples are recorded.
#[derive(Default)]
struct Listing<'a> {
    hour: u64,
    series: u64,
    /// SeriesTable that would be new, and whether there is room for them.
    new: HashMap<&'a str, bool>,
    /// Places of samples, and in each of values whose series would be new.
    samples: Vec<(usize, Vec<usize>)>,
}

impl Redis {
    /// Gets ready to speak to the Redis at an address. What it holds is counted by the first sweep.
    pub(super) fn open(address: &Address, series_max: usize) -> Result<Self, String> {
        let scripts = Scripts::new();
        let nodes = Nodes::open(address, scripts.loads.clone())?;
        Ok(Self { address: address.clone(), nodes, scripts, series: AtomicUsize::new(0), series_max })
    }

    pub(super) fn description(&self) -> String {
        format!("Store is {}, shared by all receivers that name it", self.address)
    }

    pub(super) fn series_max(&self) -> usize {
        self.series_max
    }

    pub(super) fn series_count(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    pub(super) fn unavailable(&self) -> Option<StoreError> {
        self.nodes.unavailable()
    }

    pub(super) fn record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, StoreError> {
        let mut became = self.record_all(&[sample], key, now);
        became.pop().unwrap_or_else(|| Ok(RecordOutcome::default()))
    }

    pub(super) fn record_many(&self, samples: &[SampleRef<'_>], now: u64) -> BatchOutcome {
        let mut many = BatchOutcome::default();
        let became = self.record_all(samples, None, now);
        became.into_iter().enumerate().for_each(|(place, became)| many.add(place, became));
        many
    }

    /// Records samples, in one round trip where the index knows of them all, and in three where not.
    fn record_all(
        &self,
        samples: &[SampleRef<'_>],
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Vec<Result<RecordOutcome, StoreError>> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let expired =
            |sample: &SampleRef<'_>| Ok(RecordOutcome { expired: sample.values.len(), ..RecordOutcome::default() });
        let mut became: Vec<Result<RecordOutcome, StoreError>> = samples.iter().map(expired).collect();
        let places = (0..samples.len()).filter(|place| !summary::is_expired(samples[*place].epoch, now));
        let (places, keys): (Vec<usize>, Vec<HostKeys>) =
            places.map(|place| (place, HostKeys::of(samples[place].host))).unzip();
        let commands =
            places.iter().zip(&keys).map(|(place, keys)| keys.record(&self.scripts, &samples[*place], key, "", now));
        let replies = self.nodes.run(&commands.collect::<Vec<_>>(), deadline);
        let mut listings: BTreeMap<&str, Listing<'_>> = BTreeMap::new();
        for (place, reply) in places.into_iter().zip(replies) {
            let sample = &samples[place];
            match understood(reply, layout::read_recorded) {
                Ok(ScriptReply::Became(recorded)) => became[place] = Ok(recorded),
                Ok(ScriptReply::Unlisted { series, hour, new }) => {
                    let listing = listings.entry(sample.host).or_default();
                    listing.hour = listing.hour.max(hour.unwrap_or(0)).max(layout::hour_of(sample.epoch));
                    listing.series = listing.series.max(series);
                    listing.samples.push((place, new));
                }
                Err(unavailable) => became[place] = Err(unavailable),
            }
        }
        if !listings.is_empty() {
            self.list_and_record(samples, key, now, deadline, listings, &mut became);
        }
        became
    }

    /// Tells the index of hosts, and then records those of their samples for which there is room.
    fn list_and_record<'a>(
        &self,
        samples: &[SampleRef<'a>],
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        deadline: Instant,
        mut listings: BTreeMap<&'a str, Listing<'a>>,
        became: &mut [Result<RecordOutcome, StoreError>],
    ) {
        let (mut commands, mut again) = (Vec::new(), Vec::new());
        for (host, Listing { hour, series, new, samples: waiting }) in &mut listings {
            let keys = HostKeys::of(host);
            let before = again.len();
            for (place, new_values) in waiting {
                let values = samples[*place].values;
                let mut granted = String::from(" ");
                for at in new_values.iter().filter(|at| **at < values.len()) {
                    if *new.entry(&*values[*at].0).or_insert_with(|| self.reserve_series()) {
                        let _ = write!(granted, "{} ", at + 1);
                    }
                }
                if granted == " " && new_values.len() == values.len() {
                    became[*place] = Ok(RecordOutcome { refused: values.len(), ..RecordOutcome::default() });
                } else {
                    again.push((
                        *place,
                        commands.len(),
                        keys.record(&self.scripts, &samples[*place], key, &granted, now),
                    ));
                }
            }
            if again.len() > before {
                let series = *series + new.values().filter(|is_granted| **is_granted).count() as u64;
                commands.push(layout::list(keys.index_part(), host, *hour, series));
            }
        }
        let listed = self.nodes.run(&commands, deadline);
        let (mut places, mut commands) = (Vec::new(), Vec::new());
        for (place, of_host, command) in again {
            match listed.get(of_host) {
                // It was said before that the sample is not stored.
                Some(Err(unavailable)) => {
                    became[place] = Err(StoreError { is_uncertain: false, ..unavailable.clone() });
                }
                _ => {
                    places.push(place);
                    commands.push(command);
                }
            }
        }
        for (place, reply) in places.into_iter().zip(self.nodes.run(&commands, deadline)) {
            became[place] = understood(reply, |reply| match layout::read_recorded(reply)? {
                ScriptReply::Became(recorded) => Some(recorded),
                ScriptReply::Unlisted { .. } => None,
            });
        }
    }

    /// Whether there is room for one series more; then it is taken.
    fn reserve_series(&self) -> bool {
        let has_room = |count: usize| (count < self.series_max).then_some(count + 1);
        self.series.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok()
    }

    /// In about four reads: the hashes of the hours and of the days that the answer lists something of.
    pub(super) fn series(
        &self,
        host: &str,
        wanted: &KeyFilter,
        now: u64,
    ) -> Result<Vec<(SmolStr, Series)>, StoreError> {
        let (hashes, commands): (Vec<_>, Vec<_>) = HostKeys::of(host)
            .summaries(now)
            .into_iter()
            .map(|(window, first, command)| ((window, first), command))
            .unzip();
        let mut series: BTreeMap<SmolStr, Option<Series>> = BTreeMap::new();
        for ((window, first), reply) in hashes.into_iter().zip(self.ask(&commands)) {
            for (field, bucket) in layout::pairs(&reply?) {
                let Some((place, label)) = layout::read_field(field) else { continue };
                let Some(bucket) = layout::read_bucket(bucket) else { continue };
                let new = |label: &SmolStr| wanted.any_of(label).then(Series::default);
                if let Some(series) = series.entry(label).or_insert_with_key(new) {
                    series.add(window, first + place, bucket, now);
                }
            }
        }
        Ok(series.into_iter().filter_map(|(label, series)| Some((label, series?))).collect())
    }

    pub(super) fn hosts(&self, now: u64) -> Result<Vec<SmolStr>, StoreError> {
        let commands: Vec<Command> = (0..INDEX_PARTS).map(layout::listed).collect();
        let mut hosts = Vec::new();
        for reply in self.ask(&commands) {
            let reply = reply?;
            let listed = layout::pairs(&reply).filter_map(|(host, entry)| layout::read_listed(host, entry));
            hosts.extend(listed.filter(|(_, until)| *until > now).map(|(host, _)| SmolStr::new(host)));
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
        for hosts in hosts.chunks(STATUSES_AT_ONCE) {
            let (mut commands, mut fields) = (Vec::new(), Vec::new());
            for host in hosts {
                let keys = HostKeys::of(host);
                commands.extend(keys.about());
                let means = if recent.is_empty() { Vec::new() } else { keys.recent(recent, now) };
                fields.push(means.iter().map(|(fields, _)| fields.clone()).collect::<Vec<_>>());
                commands.extend(means.into_iter().map(|(_, command)| command));
            }
            let mut replies = self.ask(&commands).into_iter();
            let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
            for fields in fields {
                let (about, labels) = (next()?, next()?);
                let means = fields.into_iter().map(|fields| Ok((fields, next()?))).collect::<Result<Vec<_>, _>>()?;
                statuses.push(status(&about, &labels, recent, &means, now));
            }
        }
        Ok(statuses)
    }

    pub(super) fn remove(&self, host: &str, now: u64) -> Result<bool, StoreError> {
        let keys = HostKeys::of(host);
        // The list first: a sample that comes in between finds its host unknown, and lists it again.
        let unlisted = self.ask(&[layout::unlist(keys.index_part(), host)]);
        unlisted.into_iter().try_for_each(|reply| reply.map(drop))?;
        let reply = self.ask(&[keys.remove(&self.scripts, now)]).pop().unwrap_or(Ok(Value::Nil))?;
        let Value::Int(series) = reply else { return Err(not_understood(&reply)) };
        let Ok(series) = usize::try_from(series) else { return Ok(false) };
        let less = |count: usize| Some(count.saturating_sub(series));
        let _ = self.series.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(true)
    }

    /// Takes hosts off the list that have expired, and counts the series of the others. The keys of a host expire by
    /// themselves. Where Redis does not answer, the next sweep does it.
    pub(super) fn sweep(&self, now: u64) {
        let commands: Vec<Command> = (0..INDEX_PARTS).map(|part| layout::sweep(&self.scripts, part, now)).collect();
        let counted = self.ask(&commands).into_iter().map(|reply| match reply {
            Ok(Value::Int(series)) => usize::try_from(series).ok(),
            _ => None,
        });
        if let Some(series) = counted.sum::<Option<usize>>() {
            self.series.store(series, Ordering::Relaxed);
        }
    }

    fn ask(&self, commands: &[Command]) -> Vec<Result<Value, StoreError>> {
        self.nodes.run(commands, Instant::now() + ANSWER_WITHIN)
    }
}

/// What the list of hosts shows of one, where any of its labels is listed.
fn status(
    about: &Value,
    labels: &Value,
    recent: &[&str],
    means: &[(Vec<(u64, usize)>, Value)],
    now: u64,
) -> Option<Status> {
    let mut labels: Vec<String> =
        layout::pairs(labels).filter_map(|(label, hour)| layout::read_label(label, hour, now)).collect();
    labels.sort_unstable();
    let (last_epoch, gaps_sec, clock_skew_sec) = layout::read_about(about).filter(|_| !labels.is_empty())?;
    let first = summary::recent_start(now) / RECENT.interval_sec;
    let mut by_label: Vec<Vec<Option<f64>>> = vec![vec![None; ANSWER_INTERVALS_MAX]; recent.len()];
    for (fields, buckets) in means {
        let Value::Array(buckets) = buckets else { continue };
        for ((number, label), bucket) in fields.iter().zip(buckets) {
            let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            if let Some(mean) = place.and_then(|place| by_label[*label].get_mut(place)) {
                *mean = layout::read_bucket(bucket).map(|bucket| round2(bucket.mean()));
            }
        }
    }
    let recent = recent.iter().zip(by_label).filter(|(label, _)| labels.iter().any(|known| known == *label));
    Some(Status {
        last_epoch,
        interval_sec: gaps_sec.into_iter().filter(|gap_sec| *gap_sec > 0).min(),
        clock_skew_sec,
        recent: recent.map(|(label, means)| ((*label).to_owned(), means)).collect(),
        labels,
    })
}

fn understood<T>(reply: Result<Value, StoreError>, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, StoreError> {
    reply.and_then(|reply| read(&reply).ok_or_else(|| not_understood(&reply)))
}

fn not_understood(reply: &Value) -> StoreError {
    StoreError::uncertain(format!("Redis has answered {reply:?}, which is not understood"))
}
