//! What alerts need of a shared store: the lease of the receiver that evaluates the rules, records, of others too, and the
//! newest intervals of hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};
use smol_str::SmolStr;

use super::super::{AlertLease, Pulse, Records, StoreError, Swap};
use super::layout::{self, HostKeys};
use super::nodes::{Command, slot_of};
use super::replies;
use super::{Redis, not_understood};
use crate::sample::AHEAD_SEC_MAX;
use crate::summary::{Tail, WINDOWS, Window};

/// The hash tag of all records, so that one script reaches them. Alerts had the first ones.
const TAG: &str = "alerts";
/// Hosts that are asked for in one batch.
const PULSES_PER_BATCH: usize = 500;
/// Intervals with samples that show how often a series is reported: with fewer all are read.
const KNOWN_MIN: usize = 3;

impl Redis {
    /// The signs of life of all hosts, sorted by name.
    pub(in super::super) fn pulses(&self, now: u64) -> Result<Vec<Pulse>, StoreError> {
        let hosts = self.hosts(now)?;
        let mut pulses = Vec::with_capacity(hosts.len());
        for hosts in hosts.chunks(PULSES_PER_BATCH) {
            let commands: Vec<Command> = hosts.iter().map(|host| HostKeys::of(host).heard()).collect();
            for (host, reply) in hosts.iter().zip(self.ask(&commands)) {
                let Some(about) = replies::read_about(&reply?) else { continue };
                let skew_sec = about.skew_sec.map(i64::from);
                pulses.push(Pulse {
                    host: host.clone(),
                    last_epoch: about.last_epoch,
                    // When a sample came is not kept. Its epoch and the difference of the clocks say about when.
                    heard_at: about.last_epoch.saturating_add_signed(-skew_sec.unwrap_or(0)),
                    interval_sec: about.gaps_sec.into_iter().filter(|gap_sec| *gap_sec > 0).min(),
                    skew_sec,
                    late_samples: 0,
                    tags: about.tags,
                });
            }
        }
        Ok(pulses)
    }

    /// Copies of the newest minutes and hours of the series of a host, as in memory, but of each series as many as of the one of
    /// which `wanted` says the most, and all that are kept where fewer than three of them have samples. `newest` is the
    /// host's newest epoch.
    pub(in super::super) fn tails(
        &self,
        host: &str,
        newest: u64,
        mut wanted: impl FnMut(&SmolStr) -> Option<[u64; 2]>,
        now: u64,
    ) -> Result<Vec<(SmolStr, [Tail; 2])>, StoreError> {
        let keys = HostKeys::of(host);
        let known = self.ask(&[keys.labels()]).pop().unwrap_or(Ok(Value::Nil))?;
        let keep = self.keep();
        let labels = replies::pairs(&known).filter_map(|(label, hour)| layout::read_label(&keep, label, hour, now));
        let mut intervals = [0; 2];
        let mut is_wanted = |label: &SmolStr| {
            let asked = wanted(label);
            asked.iter().for_each(|asked| intervals = [0, 1].map(|place| intervals[place].max(asked[place])));
            asked.is_some()
        };
        let mut labels: Vec<SmolStr> = labels.map(SmolStr::from).filter(&mut is_wanted).collect();
        labels.sort_unstable();
        let newest = newest.min(now.saturating_add(AHEAD_SEC_MAX));
        let windows = WINDOWS.map(|window| keep.window(window.interval_sec).copied());
        let first = |(window, count): (&Option<Window>, u64)| {
            let window = window.filter(|_| count > 0)?;
            Some((window, window.number(newest).saturating_sub(count)))
        };
        let firsts: Vec<Option<(Window, u64)>> = windows.iter().zip(intervals).map(first).collect();
        let mut tails = self.read_tails(&keys, labels, newest, &firsts)?;
        let is_scarce = |tails: &[Tail; 2]| {
            let is_scarce = |(tail, count): (&Tail, u64)| count > 0 && tail.held().count() < KNOWN_MIN;
            tails.iter().zip(intervals).any(is_scarce)
        };
        let scarce: Vec<SmolStr> =
            tails.iter().filter(|(_, tails)| is_scarce(tails)).map(|(label, _)| label.clone()).collect();
        let firsts: Vec<Option<(Window, u64)>> =
            windows.map(|window| window.map(|window| (window, window.oldest_listed(now)))).into();
        tails.extend(self.read_tails(&keys, scarce, newest, &firsts)?);
        Ok(tails.into_iter().collect())
    }

    /// Reads the intervals of some labels, of each window from its first one on.
    fn read_tails(
        &self,
        keys: &HostKeys,
        labels: Vec<SmolStr>,
        newest: u64,
        firsts: &[Option<(Window, u64)>],
    ) -> Result<BTreeMap<SmolStr, [Tail; 2]>, StoreError> {
        if labels.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut reads = Vec::new();
        for (place, first) in firsts.iter().enumerate() {
            let of_window =
                first.as_ref().map(|(window, first)| keys.intervals(window, *first, window.number(newest), &labels));
            reads.extend(of_window.into_iter().flatten().map(|(fields, command)| (place, fields, command)));
        }
        let replies = self.ask(&reads.iter().map(|(.., command)| command.clone()).collect::<Vec<_>>());
        let mut tails: Vec<[Tail; 2]> = vec![<[Tail; 2]>::default(); labels.len()];
        for ((place, fields, _), reply) in reads.iter().zip(replies) {
            let Value::Array(buckets) = reply? else { continue };
            let window = firsts.get(*place).and_then(Option::as_ref).map(|(window, _)| window);
            let kept = usize::try_from(window.map_or(0, |window| window.intervals_in_memory() + 1)).unwrap_or(0);
            for ((number, label), bucket) in fields.iter().zip(&buckets) {
                let tail = tails.get_mut(*label).and_then(|tails| tails.get_mut(*place));
                if let (Some(tail), Some(bucket)) = (tail, replies::read_bucket(bucket)) {
                    tail.push(*number, bucket, kept);
                }
            }
        }
        Ok(labels.into_iter().zip(tails).collect())
    }

    /// Takes or renews the lease of the receiver that evaluates rules; `None` where another has it. A lease that lasts no
    /// time is given up.
    pub(in super::super) fn lease_alerts(
        &self,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<AlertLease>, StoreError> {
        let fence = self.ask_fence("lease", holder, lasts, None, &Records::new())?;
        Ok(fence.map(|fence| AlertLease { holder: holder.to_owned(), fence, lasts }))
    }

    /// Takes or renews the lease of the receiver that sends to an archive, and returns whether it has it.
    pub(in super::super) fn lease_archive(&self, id: u64, holder: &str, lasts: Duration) -> Result<bool, StoreError> {
        let fence = self.ask_fence(&format!("archive-{id:x}"), holder, lasts, None, &Records::new())?;
        Ok(fence.is_some())
    }

    /// Writes records, all or none, under the lease of alerts. Without one they are written whoever has it.
    pub(in super::super) fn write_records(
        &self,
        records: &Records,
        lease: Option<&AlertLease>,
    ) -> Result<(), StoreError> {
        let Some(lease) = lease else {
            let write = |(key, record): (&String, &Option<Vec<u8>>)| {
                let (hash, field) = place_of(key);
                match record {
                    Some(record) => command(cmd("HSET").arg(hash).arg(field).arg(record.as_slice()), true),
                    None => command(cmd("HDEL").arg(hash).arg(field), true),
                }
            };
            let commands: Vec<Command> = records.iter().map(write).collect();
            return self.ask(&commands).into_iter().try_for_each(|reply| reply.map(drop));
        };
        let fence = self.ask_fence("lease", &lease.holder, lease.lasts, Some(lease.fence), records)?;
        fence.map(drop).ok_or_else(|| StoreError::new("another receiver evaluates the rules by now"))
    }

    /// The records of a kind, which is the first character of their keys.
    pub(in super::super) fn records(&self, kind: char) -> Result<Records, StoreError> {
        let hash = place_of(&kind.to_string()).0;
        let reply = self.ask(&[command(cmd("HGETALL").arg(hash), false)]).pop().unwrap_or(Ok(Value::Nil))?;
        let record = |(field, value): (&Value, &Value)| match (field, value) {
            (Value::BulkString(field), Value::BulkString(value)) => {
                Some((format!("{kind}{}", String::from_utf8_lossy(field)), Some(value.clone())))
            }
            _ => None,
        };
        Ok(replies::pairs(&reply).filter_map(record).collect())
    }

    /// Replaces a record that is `old`, or makes it.
    pub(in super::super) fn swap_record(
        &self,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        records_max: usize,
    ) -> Result<Swap, StoreError> {
        let (hash, field) = place_of(key);
        let mut script = cmd("EVALSHA");
        script.arg(&self.scripts.swap).arg(1).arg(hash).arg(field);
        script.arg(old.unwrap_or_default()).arg(new).arg(records_max);
        match self.ask(&[command(&script, true)]).pop().unwrap_or(Ok(Value::Nil))? {
            Value::Int(1) => Ok(Swap::Done),
            Value::Int(0) => Ok(Swap::Full),
            Value::BulkString(held) => Ok(Swap::Other((!held.is_empty()).then_some(held))),
            other => Err(not_understood(&other)),
        }
    }

    /// Runs the script of the lease, which writes records under a fencing number. Returns the one that holds.
    fn ask_fence(
        &self,
        lease: &str,
        holder: &str,
        lasts: Duration,
        fence: Option<u64>,
        records: &Records,
    ) -> Result<Option<u64>, StoreError> {
        let mut hashes: Vec<String> = records.keys().map(|key| place_of(key).0).collect();
        hashes.dedup();
        let mut script = cmd("EVALSHA");
        script.arg(&self.scripts.alerts).arg(2 + hashes.len());
        script.arg(format!("lizm:{{{TAG}}}:{lease}")).arg(format!("lizm:{{{TAG}}}:fence")).arg(&hashes);
        script.arg(holder).arg(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        script.arg(fence.map_or(String::new(), |fence| fence.to_string()));
        for (key, record) in records {
            let (hash, field) = place_of(key);
            let place = hashes.iter().position(|known| *known == hash).unwrap_or_default();
            script.arg(place + 1).arg(field).arg(record.as_deref().unwrap_or_default());
        }
        match self.ask(&[command(&script, true)]).pop().unwrap_or(Ok(Value::Nil))? {
            Value::Int(fence) => Ok(u64::try_from(fence).ok().filter(|fence| *fence > 0)),
            other => Err(not_understood(&other)),
        }
    }
}

/// The hash of a record, and its field.
fn place_of(key: &str) -> (String, &str) {
    let (kind, field) = key.split_at(key.chars().next().map_or(0, char::len_utf8));
    (format!("lizm:{{{TAG}}}:{kind}"), field)
}

fn command(command: &Cmd, writes: bool) -> Command {
    Command { slot: slot_of(TAG.as_bytes()), bytes: command.get_packed_command(), writes }
}
