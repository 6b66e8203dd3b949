//! The layout of the store in Redis: names of keys, and arguments of scripts. `docs/redis.md`
//! describes it for people; the scripts say what happens to it.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use redis::{Cmd, Value};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use smol_str::SmolStr;

use super::super::Limits;
use super::super::host::{
    OVERLAP_SEC, SKEW_KEPT_SEC, SOURCE_SILENT_SEC, SOURCES_PER_HOST, SOURCES_PER_HOST_MAX, source_kept_sec,
};
use super::nodes::{Command, slot_of};
use super::replies::{pairs, read_bucket, read_field, text};
use crate::sample::{AHEAD_SEC_MAX, IdempotencyKey, SampleRef, Tags};
use crate::summary::{Bucket, Keep, RECENT, Window, hour_end, recent_start};

/// Parts of the index of hosts: enough for a cluster to spread them, few enough to be read in one batch.
pub(super) const INDEX_PARTS: u16 = 16;
/// Bytes that are percent-encoded in a hash tag: those that are in a path, so that no brace of a name ends the tag early.
const TAG: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Seconds that a key is kept beyond the last answer that lists it, because clocks differ: as many as a sample may be
/// ahead.
pub(super) const SPARE_SEC: u64 = AHEAD_SEC_MAX;
/// Longest time that a host is kept which is down: `--forget-hosts never` is a century here, since keys need an end.
pub(super) const FORGET_SEC_MAX: u64 = 100 * 366 * 86_400;
const HOUR: u64 = 3600;
/// What the index adds to the end of a host's newest hour: a day, whatever is kept.
const INDEX_SEC: u64 = 86_400;

/// The scripts, each as the SHA-1 hash that `EVALSHA` takes.
pub(super) struct Scripts {
    record: String,
    remove: String,
    sweep: String,
    tags: String,
    pub(super) trim: String,
    pub(super) settle: String,
    pub(super) fill: String,
    pub(super) change: String,
    pub(super) alerts: String,
    pub(super) archives: String,
    pub(super) swap: String,
    /// `SCRIPT LOAD` of each, for a node that misses one.
    pub(super) loads: Vec<Vec<u8>>,
}

impl Scripts {
    pub(super) fn new(limits: Limits) -> Self {
        let forget_sec = limits.forget_hosts_sec.min(FORGET_SEC_MAX);
        let constants = format!(
            "local SOURCES_MAX, AHEAD_SEC_MAX, INDEX_SEC = {SOURCES_PER_HOST_MAX}, {AHEAD_SEC_MAX}, {INDEX_SEC}\n\
             local SOURCES_KEPT, SOURCE_SILENT_SEC = {SOURCES_PER_HOST}, {SOURCE_SILENT_SEC}\n\
             local SKEW_KEPT_SEC, OVERLAP_SEC = {SKEW_KEPT_SEC}, {OVERLAP_SEC}\n\
             local FLOAT_MAX, FORGET_SEC, LABELS_MAX = {:e}, {forget_sec}, {}\n",
            f64::MAX,
            limits.labels_per_host_max
        );
        let mut loads = Vec::new();
        let mut hash = |text: &str| {
            loads.push(redis::cmd("SCRIPT").arg("LOAD").arg(text).get_packed_command());
            let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let with_constants = |text: &str| constants.clone() + include_str!("common.lua") + text;
        let record = hash(&with_constants(include_str!("record.lua")));
        let (remove, sweep) = (hash(include_str!("remove.lua")), hash(&with_constants(include_str!("sweep.lua"))));
        let (tags, trim) = (hash(include_str!("tags.lua")), hash(include_str!("trim.lua")));
        let (alerts, archives) = (hash(include_str!("alerts.lua")), hash(include_str!("archives.lua")));
        let (settle, fill) = (hash(include_str!("settle.lua")), hash(&with_constants(include_str!("fill.lua"))));
        let (change, swap) = (hash(include_str!("change.lua")), hash(include_str!("swap.lua")));
        Self { record, remove, sweep, tags, trim, settle, fill, change, alerts, archives, swap, loads }
    }
}

/// A setting, which is newer than those of lower numbers. Until there is one it is the default, of number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) number: u64,
    pub(super) keep: Keep,
}

impl Setting {
    pub(super) fn new(number: u64, keep: Keep) -> Self {
        Self { number, keep }
    }

    /// As Redis has it: `3 1m:1d,1h:90d`, as [`Keep::stored`] has it; nothing for that of number 0.
    pub(super) fn text(&self) -> String {
        if self.number == 0 { String::new() } else { format!("{} {}", self.number, self.keep.stored()) }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::new(0, Keep::default()));
        }
        let (number, keep) = text.split_once(' ')?;
        Some(Self::new(number.parse().ok().filter(|number| *number > 0)?, Keep::parse_stored(keep)?))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// The keys of one host, all in one slot.
pub(super) struct HostKeys {
    prefix: String,
    pub(super) slot: u16,
}

impl HostKeys {
    pub(super) fn of(host: &str) -> Self {
        let tag = utf8_percent_encode(host, TAG).to_string();
        Self { slot: slot_of(tag.as_bytes()), prefix: format!("lizm:{{{tag}}}:") }
    }

    pub(super) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The hash that holds an interval of a window.
    pub(super) fn of_interval(&self, window: &Window, number: u64) -> String {
        let intervals = intervals_of_hash(window);
        format!("{}{}:{}", self.prefix, window.name, number / intervals * intervals * window.interval_sec)
    }

    /// The part of the index that lists the host.
    pub(super) fn index_part(&self) -> u16 {
        self.slot % INDEX_PARTS
    }

    pub(super) fn command(&self, command: &Cmd, writes: bool) -> Command {
        Command { slot: self.slot, bytes: command.get_packed_command(), writes }
    }

    /// The hashes that hold the intervals `first` to `last` of a window: number of the first interval in each, and key.
    pub(super) fn hashes(&self, window: &Window, first: u64, last: u64) -> impl Iterator<Item = (u64, String)> {
        let intervals = intervals_of_hash(window);
        (first / intervals..=last / intervals)
            .map(move |hash| (hash * intervals, self.of_interval(window, hash * intervals)))
    }

    /// Reads of all buckets that an answer at `now` may list: `HGETALL` of each hash.
    pub(super) fn summaries(&self, keep: &Keep, now: u64) -> Vec<BucketRead> {
        let read = |(window, first, key)| {
            let command = self.command(redis::cmd("HGETALL").arg(key), false);
            BucketRead { window, first, fields: Vec::new(), command }
        };
        self.listed_hashes(keep, now).map(read).collect()
    }

    /// Reads of the buckets of some labels that an answer at `now` may list: `HMGET` of their fields in each hash.
    pub(super) fn summaries_of(&self, keep: &Keep, labels: &[String], now: u64) -> Vec<BucketRead> {
        let read = |(window, first, key): (usize, u64, String)| {
            let intervals = keep.windows().get(window).map_or(0, intervals_of_hash);
            self.read_fields(window, first, &key, 0..intervals, labels)
        };
        self.listed_hashes(keep, now).map(read).collect()
    }

    /// A read of the running minute of some labels, of which there is one at least.
    pub(super) fn running(&self, labels: &[String], now: u64) -> BucketRead {
        let number = RECENT.number(now);
        let place = number % intervals_of_hash(RECENT);
        self.read_fields(0, number - place, &self.of_interval(RECENT, number), place..place + 1, labels)
    }

    /// `HMGET` of the intervals at some places of a hash, for some labels.
    fn read_fields(&self, window: usize, first: u64, key: &str, places: Range<u64>, labels: &[String]) -> BucketRead {
        let fields: Vec<(u64, SmolStr)> =
            places.flat_map(|place| labels.iter().map(move |label| (place, label.into()))).collect();
        let mut command = redis::cmd("HMGET");
        command.arg(key);
        for (place, label) in &fields {
            command.arg(format!("{place} {label}"));
        }
        BucketRead { window, first, command: self.command(&command, false), fields }
    }

    /// The hashes that hold what an answer at `now` may list: place of the window, number of the first interval, key.
    fn listed_hashes(&self, keep: &Keep, now: u64) -> impl Iterator<Item = (usize, u64, String)> {
        keep.windows().iter().enumerate().flat_map(move |(place, window)| {
            let hashes = self.hashes(window, window.oldest_listed(now), window.number(now));
            hashes.map(move |(first, key)| (place, first, key))
        })
    }

    /// `HGETALL` of the labels of the host.
    pub(super) fn labels(&self) -> Command {
        self.command(redis::cmd("HGETALL").arg(self.named("labels")), false)
    }

    /// Forgets that the host is listed, so that its next sample lists it.
    pub(super) fn mark_unlisted(&self) -> Command {
        self.command(redis::cmd("HDEL").arg(self.named("host")).arg("listed"), true)
    }

    /// `HMGET` of the newest minutes of some labels, as many as an answer lists. For each hash the number of the interval
    /// and the place of the label of each field, and the command.
    pub(super) fn recent(&self, labels: &[SmolStr], now: u64) -> Vec<(Vec<(u64, usize)>, Command)> {
        self.intervals(RECENT, recent_start(now) / RECENT.interval_sec, RECENT.number(now), labels)
    }

    /// The same of the intervals `first` to `last` of a window.
    pub(super) fn intervals(
        &self,
        window: &Window,
        first: u64,
        last: u64,
        labels: &[SmolStr],
    ) -> Vec<(Vec<(u64, usize)>, Command)> {
        let commands = self.hashes(window, first, last).map(|(start, key)| {
            let numbers = first.max(start)..=last.min(start + intervals_of_hash(window) - 1);
            let fields: Vec<(u64, usize)> =
                numbers.flat_map(|number| (0..labels.len()).map(move |label| (number, label))).collect();
            let mut command = redis::cmd("HMGET");
            command.arg(key);
            for (number, label) in &fields {
                command.arg(format!("{} {}", number - start, labels[*label]));
            }
            let command = self.command(&command, false);
            (fields, command)
        });
        commands.collect()
    }

    /// `HMGET` of when the host was heard, how far its clock is ahead, when it was last seen in conflict, and its tags; and
    /// [`HostKeys::labels`].
    pub(super) fn about(&self) -> [Command; 2] {
        [self.heard(), self.labels()]
    }

    /// The first of [`HostKeys::about`].
    pub(super) fn heard(&self) -> Command {
        self.command(redis::cmd("HMGET").arg(self.named("host")).arg(&["heard", "skew", "conflict", "tags"]), false)
    }

    /// The key of what is known of the host itself.
    pub(super) fn host(&self) -> String {
        self.named("host")
    }

    /// Reads where archives are with the host.
    pub(super) fn archives(&self) -> Command {
        self.command(redis::cmd("HGET").arg(self.host()).arg("archives"), false)
    }

    /// Sets the tags of the host, if it is known.
    pub(super) fn set_tags(&self, scripts: &Scripts, tags: &Tags) -> Command {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&scripts.tags).arg(1).arg(self.named("host")).arg(tags.as_str());
        self.command(&command, true)
    }

    pub(super) fn remove(&self, scripts: &Scripts, keep: &Keep, now: u64) -> Command {
        let mut keys = vec![self.named("host"), self.named("labels"), self.named("sources")];
        keep.windows().iter().for_each(|window| keys.extend(self.kept_hashes(window, now).map(|(_, key)| key)));
        let mut command = redis::cmd("EVALSHA");
        command.arg(&scripts.remove).arg(keys.len()).arg(keys);
        self.command(&command, true)
    }

    /// The hashes of a window that there may be at `now`.
    pub(super) fn kept_hashes(&self, window: &Window, now: u64) -> impl Iterator<Item = (u64, String)> {
        self.hashes(window, window.oldest(now), window.number(now.saturating_add(AHEAD_SEC_MAX)))
    }

    /// The script that records a sample, once for its idempotency key.
    pub(super) fn record(
        &self,
        scripts: &Scripts,
        setting: &Setting,
        sample: &SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        index: Index<'_>,
        now: u64,
    ) -> Command {
        let SampleRef { epoch, values, .. } = *sample;
        let keep = &setting.keep;
        let windows = keep.windows().iter().map(|window| (window, window.number(epoch)));
        let mut windows: Vec<_> = windows.filter(|(window, number)| *number >= window.oldest(now)).collect();
        windows.sort_by_key(|(window, _)| window.span_sec);
        let mut command = Packed::new(15 + windows.len() + values.len() * (1 + windows.len()));
        command.arg("EVALSHA").arg(&scripts.record).arg(3 + windows.len());
        command.arg(self.named("host")).arg(self.named("labels")).arg(self.named("sources"));
        for (window, number) in &windows {
            command.arg(self.of_interval(window, *number));
        }
        let hour = hour_of(epoch);
        command.arg(now).arg(epoch).arg(listing(setting, hour));
        command.arg(key.map_or("", |key| key.source)).arg(key.map_or(0, |key| key.seq));
        match key.and_then(|key| key.address) {
            Some(address) => command.arg(address),
            None => command.arg("-"),
        };
        command.arg(index.argument()).arg(setting.text());
        let kept_sec = listed_until(keep, hour).saturating_sub(now).saturating_add(SPARE_SEC);
        let Window { interval_sec, span_sec, .. } = keep.longest();
        let mut seldom = format!("[{kept_sec},{interval_sec},{span_sec},{}", source_kept_sec(keep));
        for (window, number) in &windows {
            let _ = write!(seldom, ",{}", interval_kept_sec(window, *number, now).max(0));
        }
        command.arg(seldom + "]");
        for (_, value) in values {
            command.arg(format_args!("{value:?}"));
        }
        for (window, number) in &windows {
            let place = number % intervals_of_hash(window);
            for (label, _) in values {
                command.arg(format_args!("{place} {label}"));
            }
        }
        Command { slot: self.slot, bytes: command.bytes, writes: true }
    }
}

/// A command as it is sent, written argument by argument: samples are what comes most often.
struct Packed {
    bytes: Vec<u8>,
    argument: String,
}

impl Packed {
    fn new(arguments: usize) -> Self {
        let mut bytes = Vec::with_capacity(256 + 24 * arguments);
        bytes.extend_from_slice(format!("*{arguments}\r\n").as_bytes());
        Self { bytes, argument: String::new() }
    }

    fn arg(&mut self, argument: impl Display) -> &mut Self {
        self.argument.clear();
        let _ = write!(self.argument, "{argument}");
        let _ = write!(self.bytes, "${}\r\n{}\r\n", self.argument.len(), self.argument);
        self
    }
}

/// What a host has as the hour that the index has it for. By a setting of its own it bears the number of the layout: the
/// script of a receiver that knows no settings fails on it before it writes anything.
fn listing(setting: &Setting, hour: u64) -> String {
    if setting.number == 0 { hour.to_string() } else { format!("{hour} 2") }
}

/// Intervals of a hash: the minutes of an hour, the hours of a day. What is kept does not change it, and that of a coarser
/// interval holds a whole number of those of a finer one.
pub(super) fn intervals_of_hash(window: &Window) -> u64 {
    match window.interval_sec {
        60 => 60,
        600 => 144,
        3600 => 24,
        _ => 32,
    }
}

/// Seconds from `now` until no answer lists an interval any more, with some to spare: as long as a hash lasts whose last
/// it is.
pub(super) fn interval_kept_sec(window: &Window, number: u64, now: u64) -> i64 {
    let until = (number + 1) * window.interval_sec + window.span_sec;
    (until.min(window.ends_sec) + SPARE_SEC).cast_signed() - now.cast_signed()
}

/// The hour of a sample. A host has labels until the longest window has lost the interval of its newest hour.
pub(super) fn hour_of(epoch: u64) -> u64 {
    (hour_end(epoch) - 1) / HOUR
}

/// The second from which a host has no labels any more whose newest sample is in `hour`.
pub(super) fn listed_until(keep: &Keep, hour: u64) -> u64 {
    let longest = keep.longest();
    let intervals = hour.saturating_add(1).saturating_mul(HOUR).div_ceil(longest.interval_sec);
    intervals.saturating_mul(longest.interval_sec).saturating_add(longest.span_sec)
}

fn index_key(part: u16) -> String {
    format!("lizm:hosts:{{{part}}}")
}

fn index_command(part: u16, command: &Cmd, writes: bool) -> Command {
    Command { slot: slot_of(part.to_string().as_bytes()), bytes: command.get_packed_command(), writes }
}

/// Lists a host with its newest hour and its number of labels.
pub(super) fn list(part: u16, host: &str, hour: u64, labels: u64) -> Command {
    let entry = format!("{} {labels}", (hour + 1) * HOUR + INDEX_SEC);
    index_command(part, redis::cmd("HSET").arg(index_key(part)).arg(host).arg(entry), true)
}

pub(super) fn unlist(part: u16, host: &str) -> Command {
    index_command(part, redis::cmd("HDEL").arg(index_key(part)).arg(host), true)
}

pub(super) fn listed(part: u16) -> Command {
    index_command(part, redis::cmd("HGETALL").arg(index_key(part)), false)
}

/// Asks a server for its time.
pub(super) fn time() -> Command {
    index_command(0, &redis::cmd("TIME"), false)
}
pub(super) fn sweep(scripts: &Scripts, keep: &Keep, part: u16, now: u64) -> Command {
    let (mut command, longest) = (redis::cmd("EVALSHA"), keep.longest());
    command.arg(&scripts.sweep).arg(1).arg(index_key(part)).arg(now).arg(longest.interval_sec).arg(longest.span_sec);
    index_command(part, &command, true)
}

/// What the record script is told of the index.
#[derive(Debug, Clone, Copy)]
pub(super) enum Index<'a> {
    /// Nothing: the script replies [`ScriptReply::Unlisted`](super::replies::ScriptReply::Unlisted) where the index must be written first.
    Unknown,
    /// The index has the host. The labels at the places in `granted`, such as ` 1 3 `, may be new.
    Listed { granted: &'a str },
    /// The index cannot be written now. The next sample tries again.
    Away { granted: &'a str },
}

impl Index<'_> {
    fn argument(self) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::Listed { granted } => granted.to_owned(),
            Self::Away { granted } => format!("away{granted}"),
        }
    }
}

/// A read of buckets from one hash of a window.
pub(super) struct BucketRead {
    /// Place of the window in what is kept.
    pub(super) window: usize,
    /// Number of the first interval in the hash.
    first: u64,
    /// Place and label of each field of an `HMGET`; nothing for an `HGETALL`, whose reply names them.
    fields: Vec<(u64, SmolStr)>,
    pub(super) command: Command,
}

impl BucketRead {
    /// The buckets in the reply, each with the number of its interval and its label.
    pub(super) fn buckets<'a>(&'a self, reply: &'a Value) -> Box<dyn Iterator<Item = (u64, SmolStr, Bucket)> + 'a> {
        if self.fields.is_empty() {
            Box::new(pairs(reply).filter_map(|(field, bucket)| {
                let (place, label) = read_field(field)?;
                Some((self.first + place, label, read_bucket(bucket)?))
            }))
        } else {
            let buckets: &[Value] = if let Value::Array(buckets) = reply { buckets } else { &[] };
            Box::new(
                self.fields.iter().zip(buckets).filter_map(|((place, label), bucket)| {
                    Some((self.first + place, label.clone(), read_bucket(bucket)?))
                }),
            )
        }
    }
}

/// A host of the index, and the end of the hour of its newest sample.
pub(super) fn read_listed<'a>(host: &'a Value, entry: &Value) -> Option<(&'a str, u64)> {
    let until: u64 = text(entry)?.split(' ').next()?.parse().ok()?;
    Some((text(host)?, until.saturating_sub(INDEX_SEC)))
}

/// Reads a label of a host; `None` where the newest hour that it has samples in is not listed any more.
pub(super) fn read_label(keep: &Keep, label: &Value, hour: &Value, now: u64) -> Option<String> {
    let hour: u64 = text(hour)?.parse().ok()?;
    (listed_until(keep, hour) > now).then(|| text(label).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_as_it_is_written() {
        for text in ["", "1 1m:1h", "7 1m:1d,1h:90d,1d:2y"] {
            assert_eq!(Setting::parse(text).unwrap().text(), text);
        }
        for wrong in ["0 1m:1h", "1", "x 1m:1h", "1 1h:1d", "-1 1m:1h", "1  1m:1h"] {
            assert_eq!(Setting::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_keys_of_a_host_are_in_one_slot_whatever_its_name() {
        for (host, prefix) in [
            ("jarvis", "lizm:{jarvis}:"),
            ("a}b{c", "lizm:{a%7Db%7Bc}:"),
            ("}", "lizm:{%7D}:"),
            ("ü 1%", "lizm:{%C3%BC%201%25}:"),
        ] {
            assert_eq!(HostKeys::of(host).prefix, prefix);
        }
    }
}
