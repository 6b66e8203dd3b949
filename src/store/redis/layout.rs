//! What is kept in Redis, and where: the names of keys, what a script is given, what is read back. `docs/redis.md` tells
//! it to people; the scripts say what happens to it.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use redis::{Cmd, Script, Value};
use smol_str::SmolStr;

use super::super::RecordOutcome;
use super::super::host::{SKEW_KEPT_SEC, SOURCES_PER_HOST_MAX, source_kept_sec};
use super::nodes::{Command, slot_of};
use crate::sample::{AHEAD_SEC_MAX, IdempotencyKey, SampleRef};
use crate::summary::{Bucket, RECENT, WINDOWS, Window, recent_start};

/// Parts of the list of hosts: so many that a cluster spreads them, so few that they are read at once.
pub(super) const INDEX_PARTS: u16 = 16;
/// What the name of a host may have in a hash tag: what it may have in a path, so that no brace ends it early.
const TAG: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How much longer than anybody lists it a key is kept, because clocks differ: as far as samples may be ahead.
const SPARE_SEC: u64 = AHEAD_SEC_MAX;
/// The longest window: the last of [`WINDOWS`]. While it lists an interval of a host, the host is listed.
const LONGEST: &Window = &WINDOWS[WINDOWS.len() - 1];

/// The scripts, by the hashes that Redis knows them by.
pub(super) struct Scripts {
    record: String,
    remove: String,
    sweep: String,
    /// The commands that load them.
    pub(super) loads: Vec<Vec<u8>>,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let limits = format!(
            "local SOURCES_MAX, SOURCE_KEPT_SEC, AHEAD_SEC_MAX = {SOURCES_PER_HOST_MAX}, {}, {AHEAD_SEC_MAX}\n\
             local SKEW_KEPT_SEC = {SKEW_KEPT_SEC}\n\
             local LISTED_INTERVAL_SEC, LISTED_SPAN_SEC, FLOAT_MAX = {}, {}, {:e}\n",
            source_kept_sec(),
            LONGEST.interval_sec,
            LONGEST.span_sec,
            f64::MAX
        );
        let mut loads = Vec::new();
        let mut hash = |text: &str| {
            loads.push(redis::cmd("SCRIPT").arg("LOAD").arg(text).get_packed_command());
            Script::new(text).get_hash().to_owned()
        };
        let record = hash(&(limits + include_str!("record.lua")));
        let (remove, sweep) = (hash(include_str!("remove.lua")), hash(include_str!("sweep.lua")));
        Self { record, remove, sweep, loads }
    }
}

/// The keys of one host: all in one slot.
pub(super) struct HostKeys {
    prefix: String,
    pub(super) slot: u16,
}

impl HostKeys {
    pub(super) fn of(host: &str) -> Self {
        let tag = utf8_percent_encode(host, TAG).to_string();
        Self { slot: slot_of(tag.as_bytes()), prefix: format!("lizm:{{{tag}}}:") }
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The hash that has an interval of a window: of the intervals of a span that begins at a multiple of it.
    fn of_interval(&self, window: &Window, number: u64) -> String {
        format!("{}{}:{}", self.prefix, window.name, number / window.intervals() * window.span_sec)
    }

    /// The part of the index that lists the host.
    pub(super) fn index_part(&self) -> u16 {
        self.slot % INDEX_PARTS
    }

    pub(super) fn command(&self, command: &Cmd, writes: bool) -> Command {
        Command { slot: self.slot, bytes: command.get_packed_command(), writes }
    }

    /// The hashes of a window that may have an interval between two, both included.
    fn hashes(&self, window: &Window, first: u64, last: u64) -> impl Iterator<Item = (u64, String)> {
        let intervals = window.intervals();
        (first / intervals..=last / intervals)
            .map(move |hash| (hash * intervals, self.of_interval(window, hash * intervals)))
    }

    /// `HGETALL` of each hash that an answer of `now` lists something of: place of the window, number of the first
    /// interval in the hash, command.
    pub(super) fn summaries(&self, now: u64) -> Vec<(usize, u64, Command)> {
        let windows = WINDOWS.iter().enumerate();
        let hashes = windows.flat_map(|(place, window)| {
            let hashes = self.hashes(window, window.oldest(now), window.number(now));
            hashes.map(move |(first, key)| (place, first, key))
        });
        hashes.map(|(place, first, key)| (place, first, self.command(redis::cmd("HGETALL").arg(key), false))).collect()
    }

    /// `HMGET` of the newest minutes of some labels, as many as an answer lists: number of the interval and place of the
    /// label of each field, and command.
    pub(super) fn recent(&self, labels: &[&str], now: u64) -> Vec<(Vec<(u64, usize)>, Command)> {
        let (first, last) = (recent_start(now) / RECENT.interval_sec, RECENT.number(now));
        let commands = self.hashes(RECENT, first, last).map(|(start, key)| {
            let numbers = first.max(start)..=last.min(start + RECENT.intervals() - 1);
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

    /// `HMGET` of when the host was heard and how its clock differs, and `HGETALL` of its labels.
    pub(super) fn about(&self) -> [Command; 2] {
        [
            self.command(redis::cmd("HMGET").arg(self.named("host")).arg(&["heard", "skew"]), false),
            self.command(redis::cmd("HGETALL").arg(self.named("labels")), false),
        ]
    }

    pub(super) fn remove(&self, scripts: &Scripts, now: u64) -> Command {
        let mut keys = vec![self.named("host"), self.named("labels"), self.named("sources")];
        for window in &WINDOWS {
            let last = window.number(now.saturating_add(AHEAD_SEC_MAX));
            keys.extend(self.hashes(window, window.oldest(now), last).map(|(_, key)| key));
        }
        let mut command = redis::cmd("EVALSHA");
        command.arg(&scripts.remove).arg(keys.len()).arg(keys);
        self.command(&command, true)
    }

    /// The script that records a sample, of which the series of the values at `granted` may be new.
    pub(super) fn record(
        &self,
        scripts: &Scripts,
        sample: &SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        granted: &str,
        now: u64,
    ) -> Command {
        let SampleRef { epoch, values, .. } = *sample;
        let windows = WINDOWS.iter().map(|window| (window, window.number(epoch)));
        let windows: Vec<_> = windows.filter(|(window, number)| *number >= window.oldest(now)).collect();
        let mut command = Cmd::with_capacity(16 + 2 * values.len(), 256 + 64 * values.len());
        command.arg("EVALSHA").arg(&scripts.record).arg(3 + windows.len());
        command.arg(self.named("host")).arg(self.named("labels")).arg(self.named("sources"));
        for (window, number) in &windows {
            command.arg(self.of_interval(window, *number));
        }
        let hour = LONGEST.number(epoch);
        let kept_sec = listed_until(hour).saturating_sub(now) + SPARE_SEC;
        command.arg(now).arg(epoch).arg(hour).arg(kept_sec);
        command.arg(key.map_or("", |key| key.source)).arg(key.map_or(0, |key| key.seq)).arg(granted);
        for (window, number) in &windows {
            let ends_listed = (number / window.intervals() + 2) * window.span_sec;
            command.arg(number % window.intervals()).arg(ends_listed.saturating_sub(now) + SPARE_SEC);
        }
        let mut text = String::new();
        for (label, value) in values {
            text.clear();
            let _ = write!(text, "{value:?}");
            command.arg(&**label).arg(&text);
        }
        self.command(&command, true)
    }
}

/// The hour of a sample, by which its host is listed.
pub(super) fn hour_of(epoch: u64) -> u64 {
    LONGEST.number(epoch)
}

/// When a host is listed no more whose newest sample is in an hour.
fn listed_until(hour: u64) -> u64 {
    (hour + 1) * LONGEST.interval_sec + LONGEST.span_sec
}

fn index_key(part: u16) -> String {
    format!("lizm:hosts:{{{part}}}")
}

fn index_command(part: u16, command: &Cmd, writes: bool) -> Command {
    Command { slot: slot_of(part.to_string().as_bytes()), bytes: command.get_packed_command(), writes }
}

/// Lists a host with so many series until an hour is listed no more.
pub(super) fn list(part: u16, host: &str, hour: u64, series: u64) -> Command {
    let entry = format!("{} {series}", listed_until(hour));
    index_command(part, redis::cmd("HSET").arg(index_key(part)).arg(host).arg(entry), true)
}

pub(super) fn unlist(part: u16, host: &str) -> Command {
    index_command(part, redis::cmd("HDEL").arg(index_key(part)).arg(host), true)
}

pub(super) fn listed(part: u16) -> Command {
    index_command(part, redis::cmd("HGETALL").arg(index_key(part)), false)
}

pub(super) fn sweep(scripts: &Scripts, part: u16, now: u64) -> Command {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&scripts.sweep).arg(1).arg(index_key(part)).arg(now);
    index_command(part, &command, true)
}

/// What the record script says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScriptReply {
    Became(RecordOutcome),
    /// The index is to be told first: how many series the host has, the hour it is listed for, and the places of values
    /// whose series would be new, from 0.
    Unlisted {
        series: u64,
        hour: Option<u64>,
        new: Vec<usize>,
    },
}

/// Reads the reply of the record script; `None` where it is none.
pub(super) fn read_recorded(reply: &Value) -> Option<ScriptReply> {
    let Value::Array(reply) = reply else { return None };
    let number = |at: usize| match reply.get(at) {
        Some(Value::Int(number)) => usize::try_from(*number).ok(),
        _ => None,
    };
    match text(reply.first()?)? {
        "duplicate" => Some(ScriptReply::Became(RecordOutcome { duplicate: true, ..RecordOutcome::default() })),
        "stored" => Some(ScriptReply::Became(RecordOutcome {
            stored: number(1)?,
            refused: number(2)?,
            ..RecordOutcome::default()
        })),
        "unlisted" => Some(ScriptReply::Unlisted {
            series: number(1)? as u64,
            hour: number(2).map(|hour| hour as u64),
            new: (3..reply.len()).map(|at| number(at)?.checked_sub(1)).collect::<Option<_>>()?,
        }),
        _ => None,
    }
}

/// A host of the index and when it is listed no more.
pub(super) fn read_listed<'a>(host: &'a Value, entry: &Value) -> Option<(&'a str, u64)> {
    Some((text(host)?, text(entry)?.split(' ').next()?.parse().ok()?))
}

/// A field of a window's hash: place in the hash and label.
pub(super) fn read_field(field: &Value) -> Option<(u64, SmolStr)> {
    let (place, label) = text(field)?.split_once(' ')?;
    Some((place.parse().ok()?, label.into()))
}

/// A bucket: `count sum min max`.
pub(super) fn read_bucket(bucket: &Value) -> Option<Bucket> {
    let mut parts = text(bucket)?.split(' ');
    let count = parts.next()?.parse().ok().filter(|count| *count > 0)?;
    let mut number = || parts.next()?.parse::<f64>().ok().filter(|number| number.is_finite());
    Some(Bucket { count, sum: number()?, min: number()?, max: number()? })
}

/// The newest epoch of a host, the gaps before it, and how far its clock is ahead.
pub(super) fn read_about(about: &Value) -> Option<(u64, Vec<u64>, Option<i32>)> {
    let Value::Array(about) = about else { return None };
    let skew = about.get(1).and_then(text).and_then(|skew| skew.split(' ').next()?.parse().ok());
    let mut numbers = text(about.first()?)?.split(' ').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.collect(), skew))
}

/// A label of a host, while the newest hour it has samples in is listed.
pub(super) fn read_label(label: &Value, hour: &Value, now: u64) -> Option<String> {
    let hour: u64 = text(hour)?.parse().ok()?;
    (hour >= LONGEST.oldest(now)).then(|| text(label).map(str::to_owned))?
}

/// The pairs of a reply to `HGETALL`.
pub(super) fn pairs(reply: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let flat: &[Value] = if let Value::Array(flat) = reply { flat } else { &[] };
    flat.chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_not_a_reply_of_a_script_is_not_taken_for_one() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let reply = |values: &[Value]| read_recorded(&Value::Array(values.to_vec()));
        assert_eq!(
            reply(&[bulk("stored"), Value::Int(2), Value::Int(1)]),
            Some(ScriptReply::Became(RecordOutcome { stored: 2, refused: 1, ..RecordOutcome::default() }))
        );
        assert_eq!(
            reply(&[bulk("unlisted"), Value::Int(4), Value::Int(-1), Value::Int(1), Value::Int(3)]),
            Some(ScriptReply::Unlisted { series: 4, hour: None, new: vec![0, 2] })
        );
        for wrong in [&[bulk("stored")][..], &[bulk("unlisted"), Value::Int(0), Value::Int(0), Value::Int(0)], &[]] {
            assert_eq!(reply(wrong), None);
        }
        for wrong in ["", "0 1 1 1", "1 1 1", "1 x 1 1", "1 inf 1 1", "-1 1 1 1"] {
            assert_eq!(read_bucket(&bulk(wrong)), None, "{wrong:?}");
        }
        assert_eq!(read_field(&bulk("29 disk /var")), Some((29, "disk /var".into())));
    }
}
