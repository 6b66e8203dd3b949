//! Reading a directory: the chunks of the series, the records of the hosts, and the batches written since.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::num::NonZeroU32;

use fjall::{Guard, PersistMode};
use foldhash::HashMap;

use super::super::host::{Host, Skew, Source};
use super::super::memory::MemoryStore;
use super::Keyspaces;
use super::format::{
    Chunk, Entry, FORMAT, Fields, host_key, parse_chunk_record, parse_series_key, parse_series_record,
};
use super::history;
use crate::sample::{AHEAD_SEC_MAX, EPOCH_MAX, Tags, check_host, check_label, check_value};
use crate::store::archived::Archives;
use crate::store::{KeepOptions, LabelPage, Limits};
use crate::summary::{IntervalRange, Keep, KeyFilter, SampleTime, Window, is_chunk_expired, merge_intervals};

/// What a directory holds.
pub(super) struct Restored {
    pub(super) memory: MemoryStore,
    /// Number of the newest batch that was found.
    pub(super) newest: u64,
    /// How many batches before it are missing.
    pub(super) missing: u64,
    /// Which log takes batches from now on.
    pub(super) active: usize,
    /// Whether the other log is empty.
    pub(super) spare_is_empty: bool,
    /// What the directory says it keeps; `None` if it is new.
    pub(super) kept: Option<Keep>,
    /// What it does not keep any more, in words.
    pub(super) dropped: Option<String>,
    /// The number of the next host that gets one.
    pub(super) next_disk_id: u64,
}

/// The newest batches that the records on disk contain: entries of these batches are not applied again.
#[derive(Default)]
struct Applied {
    hosts: HashMap<Box<str>, u64>,
    /// Series whose chunks are newer than the record of their host, which was not written before the process ended.
    series: HashMap<Box<str>, HashMap<Box<str>, u64>>,
}

impl Applied {
    fn host(&self, host: &str) -> u64 {
        self.hosts.get(host).copied().unwrap_or(0)
    }

    fn series(&self, host: &str, label: &str) -> u64 {
        self.series.get(host).and_then(|series| series.get(label)).copied().unwrap_or(0)
    }
}

/// Reads what a directory holds.
pub(super) fn restore(keyspaces: &Keyspaces, limits: Limits, keep: &KeepOptions, now: u64) -> Result<Restored, String> {
    check_format(keyspaces)?;
    let noted = kept(keyspaces)?;
    let before = noted.map(|kept| kept.at(now));
    let as_before = LazyCell::new(|| restore(keyspaces, limits, &KeepOptions { asked: None, ..*keep }, now).ok());
    let (keep, dropped) = keep.following(before.as_ref(), Keep::of_new_directory(), now, |window, end| {
        count(keyspaces, &as_before.as_ref()?.memory, window, end, now)
    })?;
    drop(as_before);
    let kept = before.unwrap_or(keep);
    let memory = MemoryStore::new(limits, keep.on_disk());
    let mut applied = Applied::default();
    restore_series(keyspaces, &memory, &kept, now, &mut applied)?;
    restore_older(keyspaces, &memory, now, &mut applied)?;
    restore_hosts(keyspaces, &memory, &mut applied)?;
    let only_logged = restore_archives(keyspaces, &memory)?;
    let next_disk_id = restore_ids(keyspaces, &memory)?.max(history::newest_id(keyspaces)?) + 1;
    // Before the logs, whose samples count in every window.
    let is_new = |interval_sec: u64| kept.window(interval_sec).is_none();
    if keep.windows().iter().any(|window| is_new(window.interval_sec)) {
        history::remove_windows(keyspaces, is_new).map_err(cannot_read)?;
        fill(keyspaces, &memory, |window| is_new(window.interval_sec), now)?;
    }
    let mut restored = restore_logs(keyspaces, memory, &mut applied)?;
    // An older version may have removed them, and left that record.
    let is_unknown = |host: &String| restored.memory.with_host(host, |host| host.last_epoch == 0) == Some(true);
    for host in only_logged.iter().filter(|host| is_unknown(host)) {
        restored.memory.remove(host);
    }
    for guard in keyspaces.state.prefix("t\0") {
        let (key, tags) = read(guard)?;
        restore_tags(&key, &tags, &restored.memory)?;
    }
    (restored.kept, restored.dropped, restored.next_disk_id) = (noted, dropped, next_disk_id);
    restored.memory.note_aged(now);
    Ok(restored)
}

/// Fills windows that were not kept before from finer intervals.
fn fill(keyspaces: &Keyspaces, memory: &MemoryStore, is_new: impl Fn(&Window) -> bool, now: u64) -> Result<(), String> {
    let all = KeyFilter::containing("");
    let windows = memory.keep().windows();
    for host in memory.hosts() {
        for (place, pair) in windows.windows(2).enumerate() {
            let [finer, window] = pair else { continue };
            if !is_new(window) {
                continue;
            }
            let range = IntervalRange { window: *finer, first: finer.oldest(now), last: finer.number(u64::MAX) };
            for (label, (held, disk_id)) in memory.range_and_disk(&host, &LabelPage::all(&all), range) {
                let read = history::read(keyspaces, disk_id.unwrap_or(0), &label, finer, range.first, range.last)?;
                memory.with_host(&host, |host| {
                    let (_, series) = host.series.get_or_make(&label, 0);
                    for (number, bucket) in merge_intervals(read, held) {
                        let number = number * finer.interval_sec / window.interval_sec;
                        series.add(memory.keep(), place + 1, number, bucket, now);
                    }
                    host.changed = true;
                });
            }
        }
    }
    Ok(())
}

/// What a directory keeps; `None` if it is new. Before format 3 there was nothing to choose.
fn kept(keyspaces: &Keyspaces) -> Result<Option<Keep>, String> {
    match keyspaces.state.get("k").map_err(cannot_read)? {
        Some(keep) => {
            let keep = std::str::from_utf8(&keep).ok().and_then(Keep::parse_stored);
            keep.map(Some).ok_or_else(|| "it is damaged: what it keeps is malformed".to_owned())
        }
        None => Ok((!keyspaces.state.is_empty().map_err(cannot_read)?).then(Keep::default)),
    }
}

/// How many intervals of a window are kept at `now` and are before `end`; `None` where some cannot be read.
fn count(keyspaces: &Keyspaces, memory: &MemoryStore, window: &Window, end: u64, now: u64) -> Option<u64> {
    let (mut count, all) = (0, KeyFilter::containing(""));
    let range = IntervalRange { window: *window, first: window.oldest(now), last: end.checked_sub(1)? };
    for host in memory.hosts() {
        for (label, (held, disk_id)) in memory.range_and_disk(&host, &LabelPage::all(&all), range) {
            let read = history::read(keyspaces, disk_id.unwrap_or(0), &label, window, range.first, range.last).ok()?;
            count += merge_intervals(read, held).len() as u64;
        }
    }
    Some(count)
}

/// Notes what is kept, once the records of the hosts have it.
pub(super) fn write_keep(keyspaces: &Keyspaces, keep: &Keep) -> fjall::Result<()> {
    keyspaces.state.insert("k", keep.stored())?;
    keyspaces.db.persist(PersistMode::SyncAll)
}

/// Refuses a newer format.
fn check_format(keyspaces: &Keyspaces) -> Result<(), String> {
    match keyspaces.state.get("f").map_err(cannot_read)? {
        Some(format) => match std::str::from_utf8(&format).ok().and_then(|format| format.parse::<u64>().ok()) {
            Some(1..=FORMAT) => Ok(()),
            Some(format) => Err(format!("it is of format {format}, and this lizm knows {FORMAT}")),
            None => Err("it is damaged: its format is not a number".to_owned()),
        },
        None if keyspaces.state.is_empty().map_err(cannot_read)? => Ok(()),
        None => Err("it is damaged: its format is missing".to_owned()),
    }
}

/// Notes that what is written from now on is of the newest format, and in a new directory what is kept.
pub(super) fn write_format(keyspaces: &Keyspaces, new_keep: Option<&Keep>) -> fjall::Result<()> {
    let mut batch = keyspaces.db.batch();
    batch.insert(&keyspaces.state, "f", FORMAT.to_string());
    new_keep.into_iter().for_each(|keep| batch.insert(&keyspaces.state, "k", keep.stored()));
    batch.commit()?;
    keyspaces.db.persist(PersistMode::SyncAll)
}

fn restore_series(
    keyspaces: &Keyspaces,
    memory: &MemoryStore,
    kept: &Keep,
    now: u64,
    applied: &mut Applied,
) -> Result<(), String> {
    // The chunks of a host are side by side.
    let (mut host, mut record) = (String::new(), HostNumbers::default());
    for guard in keyspaces.state.prefix("b\0") {
        let (key, bytes) = read(guard)?;
        let chunk = parse_chunk(&key)?;
        if chunk.host != host {
            host = chunk.host.to_owned();
            record = host_numbers(keyspaces, &host)?;
        }
        // Chunks of a window that was not kept any more are as old as when it was dropped.
        if kept.window(chunk.interval_sec).is_none() {
            keyspaces.state.remove(key.clone()).map_err(cannot_read)?;
            continue;
        }
        let newest = restore_chunk(&chunk, &bytes, memory, now, record.restored_at(now))?;
        if newest > record.newest_batch {
            let series = applied.series.entry(host.as_str().into()).or_default();
            let known = series.entry(chunk.label.into()).or_default();
            *known = newest.max(*known);
        }
    }
    Ok(())
}

/// Restores what the series have in `history`, but for what has expired at `now`.
fn restore_older(keyspaces: &Keyspaces, memory: &MemoryStore, now: u64, applied: &mut Applied) -> Result<(), String> {
    let (mut name, mut host_batch) = (String::new(), 0);
    for guard in keyspaces.state.prefix("s\0") {
        let (key, record) = read(guard)?;
        let (host, label) = parse_series_key(&key).ok_or("it is damaged: a key is malformed")?;
        check_host(host).and_then(|()| check_label(label)).map_err(|why| format!("it is damaged: {why}"))?;
        let (newest, ends) =
            parse_series_record(&record).ok_or("it is damaged: the record of a series is cut short")?;
        if host != name {
            name = host.to_owned();
            host_batch = host_numbers(keyspaces, host)?.newest_batch;
        }
        let is_kept = |interval_sec: &u64, end: &u64| {
            memory.keep().window(*interval_sec).is_some_and(|window| window.has_older() && *end > window.oldest(now))
        };
        let kept: Vec<_> = ends.into_iter().filter(|(interval_sec, end)| is_kept(interval_sec, end)).collect();
        if !kept.is_empty() {
            memory.change_series(host, |host| {
                let hint = host.series.len().saturating_sub(1);
                let (_, series) = host.series.get_or_make(label, hint);
                kept.iter().for_each(|(interval_sec, end)| series.note_older(memory.keep(), *interval_sec, *end));
            });
        }
        if newest > host_batch {
            let known = applied.series.entry(host.into()).or_default().entry(label.into()).or_default();
            *known = newest.max(*known);
        }
    }
    Ok(())
}

/// Restores the numbers by which the chunks of hosts are found in `history`. Returns the greatest.
fn restore_ids(keyspaces: &Keyspaces, memory: &MemoryStore) -> Result<u64, String> {
    let mut greatest = 0;
    for guard in keyspaces.state.prefix("i\0") {
        let (key, record) = read(guard)?;
        let id = Fields(&record).number().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or("it is damaged: the number of a host is malformed")?;
        let host = std::str::from_utf8(&key[2..]).map_err(|_| "it is damaged: a key is malformed")?;
        memory.with_host(host, |host| host.disk_id = id);
        greatest = greatest.max(id.into());
    }
    Ok(greatest)
}

/// Restores what archives have of the hosts. Before the logs, whose samples may be late for an archive. Returns the hosts
/// that have no other record: those that no checkpoint has written.
fn restore_archives(keyspaces: &Keyspaces, memory: &MemoryStore) -> Result<Vec<String>, String> {
    let mut only_logged = Vec::new();
    for guard in keyspaces.state.prefix("x\0") {
        let (key, record) = read(guard)?;
        let (host, archives) = parse_archives(&key, &record)?;
        if !memory.has_host(host) {
            only_logged.push(host.to_owned());
        }
        memory.change_series(host, |host| *host.archives_mut() = archives);
    }
    Ok(only_logged)
}

fn parse_archives<'k>(key: &'k [u8], record: &[u8]) -> Result<(&'k str, Archives), String> {
    let host = std::str::from_utf8(&key[2..]).map_err(|_| "it is damaged: a key is malformed")?;
    check_host(host).map_err(|why| format!("it is damaged: {why}"))?;
    let archives = Archives::decode(record).ok_or("it is damaged: what archives have of a host is malformed")?;
    Ok((host, archives))
}

/// The first numbers of a host's record.
#[derive(Default)]
struct HostNumbers {
    newest_batch: u64,
    last_epoch: u64,
}

impl HostNumbers {
    /// The time at which the chunks of the host are restored. If its newest sample is further ahead than samples may be,
    /// the clock was ahead then or is behind now. Nothing tells which, and the newest chunks are kept.
    fn restored_at(&self, now: u64) -> u64 {
        if self.last_epoch > now.saturating_add(AHEAD_SEC_MAX) { self.last_epoch } else { now }
    }
}

fn host_numbers(keyspaces: &Keyspaces, host: &str) -> Result<HostNumbers, String> {
    let Some(record) = keyspaces.state.get(host_key(host)).map_err(cannot_read)? else {
        return Ok(HostNumbers::default());
    };
    let mut fields = Fields(&record);
    let numbers = fields.number().zip(fields.number());
    Ok(numbers.map_or_else(HostNumbers::default, |(newest_batch, last_epoch)| HostNumbers { newest_batch, last_epoch }))
}

fn parse_chunk(key: &[u8]) -> Result<Chunk<'_>, String> {
    Chunk::parse(key).ok_or_else(|| "it is damaged: a key is malformed".to_owned())
}

/// Restores a chunk, unless it has expired at `now`, and returns the newest batch in it.
fn restore_chunk(
    chunk: &Chunk<'_>,
    record: &[u8],
    memory: &MemoryStore,
    now: u64,
    restored_at: u64,
) -> Result<u64, String> {
    check_host(chunk.host).and_then(|()| check_label(chunk.label)).map_err(|why| format!("it is damaged: {why}"))?;
    let (newest_batch, intervals) = parse_chunk_record(record);
    if is_chunk_expired(memory.keep(), chunk.window, chunk.interval_sec, chunk.number, now) {
        return Ok(newest_batch);
    }
    memory.change_series(chunk.host, |host| {
        let hint = host.series.len().saturating_sub(1);
        let (_, series) = host.series.get_or_make(chunk.label, hint);
        series
            .restore(memory.keep(), chunk.window, chunk.interval_sec, chunk.number, intervals, restored_at)
            .map_err(|why| format!("it is damaged: of {} {}: {why}", chunk.host, chunk.label))
    })?;
    Ok(newest_batch)
}

fn restore_hosts(keyspaces: &Keyspaces, memory: &MemoryStore, applied: &mut Applied) -> Result<(), String> {
    for guard in keyspaces.state.prefix("h\0") {
        let (key, record) = read(guard)?;
        let (host, newest_batch) = restore_host_record(&key, &record, memory)?;
        applied.hosts.insert(host.into(), newest_batch);
    }
    Ok(())
}

/// Restores the record of a host, and returns its name and the newest batch that all its chunks contain.
fn restore_host_record<'k>(key: &'k [u8], record: &[u8], memory: &MemoryStore) -> Result<(&'k str, u64), String> {
    let name = std::str::from_utf8(&key[2..]).map_err(|_| "it is damaged: a key is malformed")?;
    let (newest_batch, restored) =
        parse_host_record(record).ok_or("it is damaged: the record of a host is cut short")?;
    check_host(name).map_err(|why| format!("it is damaged: {why}"))?;
    // A host whose series have all expired is down. The sweep forgets it in time.
    memory.change_series(name, |host| {
        let series = std::mem::take(&mut host.series);
        *host = restored;
        host.series = series;
    });
    Ok((name, newest_batch))
}

fn parse_host_record(record: &[u8]) -> Option<(u64, Host)> {
    let mut fields = Fields(record);
    let newest_batch = fields.number()?;
    let last_epoch = fields.number()?;
    let gaps_sec = [fields.short()?, fields.short()?, fields.short()?];
    let count = fields.count()?;
    let sources = (0..count).map(|_| {
        let name: Box<str> = fields.text()?.into();
        Some(Source::restored(name, fields.number()?, fields.number()?))
    });
    let sources = sources.collect::<Option<Vec<_>>>()?;
    let skew = fields.short().zip(fields.short().and_then(NonZeroU32::new));
    let skew = skew.map(|(ahead_sec, heard_sec)| Skew { ahead_sec: ahead_sec.cast_signed(), heard_sec });
    Some((newest_batch, Host { sources, last_epoch, gaps_sec, skew, ..Host::default() }))
}

/// Restores the tags of a host, if it is known.
fn restore_tags(key: &[u8], tags: &[u8], memory: &MemoryStore) -> Result<(), String> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "it is damaged: the tags of a host are malformed");
    let tags = Tags::parse(text(tags)?).map_err(|why| format!("it is damaged: {why}"))?;
    memory.set_tags(text(&key[2..])?, &tags);
    Ok(())
}

/// Restores one record of a directory: of the keyspace `state`, or by its number of a log.
pub(in crate::store) fn restore_record(
    memory: &MemoryStore,
    key: &[u8],
    record: &[u8],
    now: u64,
) -> Result<(), String> {
    if key.starts_with(b"b\0") {
        restore_chunk(&parse_chunk(key)?, record, memory, now, now).map(drop)
    } else if key.starts_with(b"h\0") {
        restore_host_record(key, record, memory).map(drop)
    } else if key.starts_with(b"t\0") {
        restore_tags(key, record, memory)
    } else if key.starts_with(b"x\0") {
        let (host, archives) = parse_archives(key, record)?;
        memory.change_archives(host, |known| *known = archives);
        Ok(())
    } else {
        restore_batch(record, batch_number(key)?, memory, &mut Applied::default())
    }
}

/// Applies the batches that the records do not contain, the older log first.
fn restore_logs(keyspaces: &Keyspaces, memory: MemoryStore, applied: &mut Applied) -> Result<Restored, String> {
    let checkpoint = keyspaces.state.get("c").map_err(cannot_read)?;
    let checkpoint = checkpoint
        .map_or(Ok(0), |bytes| Fields(&bytes).number().ok_or("it is damaged: its checkpoint is not a number"))?;
    let mut first = [u64::MAX; 2];
    for (log, first) in first.iter_mut().enumerate() {
        if let Some(guard) = keyspaces.batches(log).next() {
            *first = batch_number(&read(guard)?.0)?;
        }
    }
    let older = usize::from(first[1] < first[0]);
    let spare_is_empty = first[older ^ 1] == u64::MAX;
    let (mut found, mut newest_logged) = (0, checkpoint);
    for log in [older, older ^ 1] {
        for guard in keyspaces.batches(log) {
            let (key, record) = read(guard)?;
            let number = batch_number(&key)?;
            if number > newest_logged {
                (found, newest_logged) = (found + 1, number);
                restore_batch(&record, number, &memory, applied)?;
            }
        }
    }
    Ok(Restored {
        memory,
        newest: applied.hosts.values().copied().max().unwrap_or(0).max(newest_logged),
        missing: newest_logged - checkpoint - found,
        active: if spare_is_empty { older } else { older ^ 1 },
        spare_is_empty,
        kept: None,
        dropped: None,
        next_disk_id: 1,
    })
}

fn restore_batch(record: &[u8], number: u64, memory: &MemoryStore, applied: &mut Applied) -> Result<(), String> {
    let (mut fields, mut values) = (Fields(record), Vec::new());
    while !fields.0.is_empty() {
        values.clear();
        let entry = Entry::parse(&mut fields, &mut values).filter(|entry| is_sound(entry, &values));
        let entry = entry.ok_or("it is damaged: a batch of its log is malformed")?;
        let (Entry::Sample { host, .. } | Entry::Removal { host }) = &entry;
        if number <= applied.host(host) {
            continue;
        }
        match entry {
            Entry::Sample { host, epoch, key, now } => {
                values.retain(|(label, _)| number > applied.series(host, label));
                memory.apply(host, &SampleTime::new(memory.keep(), epoch, now), &values, key);
            }
            Entry::Removal { host } => {
                memory.remove(host);
                applied.series.remove(host);
            }
        }
    }
    Ok(())
}

/// Whether a sample keeps the limits of samples. One that does not was damaged after it was written.
fn is_sound(entry: &Entry<'_>, values: &[(Cow<'_, str>, f64)]) -> bool {
    let is_sound =
        |(label, value): &(Cow<'_, str>, f64)| check_label(label).is_ok() && check_value(label, *value).is_ok();
    match entry {
        Entry::Sample { host, epoch, .. } => {
            check_host(host).is_ok() && *epoch <= EPOCH_MAX && values.iter().all(is_sound)
        }
        Entry::Removal { .. } => true,
    }
}

fn read(guard: Guard) -> Result<(fjall::UserKey, fjall::UserValue), String> {
    guard.into_inner().map_err(cannot_read)
}

fn cannot_read(error: fjall::Error) -> String {
    format!("it is damaged or cannot be read: {error}")
}

fn batch_number(key: &[u8]) -> Result<u64, String> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| "it is damaged: a key of its log is not a number".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::DiskStore;
    use super::super::tests::{answer, copy, open_as_it_is, put};
    use super::*;
    use crate::sample::{IdempotencyKey, Sample};

    const NOW: u64 = 1_465_001_814;

    /// A copy of `tests/store-format-N`, opened at the time at which it was written.
    fn open_fixture(name: &str) -> (tempfile::TempDir, DiskStore, u64) {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        copy(&fixture, dir.path());
        // A version control system does not keep the folders without a table.
        for keyspace in fs::read_dir(dir.path().join("fjall/keyspaces")).unwrap() {
            fs::create_dir_all(keyspace.unwrap().path().join("tables")).unwrap();
        }
        let now: u64 = fs::read_to_string(fixture.join("now")).unwrap().trim().parse().unwrap();
        let store = open_as_it_is(dir.path(), now);
        assert_eq!(store.memory().hosts(), ["b c", "jarvis"]);
        (dir, store, now)
    }

    /// The means by minute of a label, and how many samples it has by hour.
    fn means_and_samples(summaries: &Value, label: &str) -> (Vec<f64>, u64) {
        let averages = |window: &str| summaries[format!("summary:{window}:{label}")]["averages"].as_array().unwrap();
        let means = averages("by-minute").iter().map(|average| average["avg"].as_f64().unwrap()).collect();
        (means, averages("by-hour").iter().map(|average| average["num-samples"].as_u64().unwrap()).sum())
    }

    /// `tests/store-format-1` was written by a version of format 1: three samples of one host and one of another, a
    /// checkpoint, two samples more, and a host that came and was removed.
    #[test]
    fn the_first_format_opens_for_ever() {
        let (_dir, store, now) = open_fixture("store-format-1");
        let jarvis = answer(&store, "jarvis", now);
        assert_eq!(means_and_samples(&jarvis, "cpu"), (vec![4.5, 5.5, 6.88, 8.25], 5));
        let hour = &jarvis["summary:by-hour:cpu"]["averages"][0];
        assert_eq!((&hour["min"], &hour["max"]), (&json!(4.5), &json!(8.25)));
        assert_eq!(jarvis["summary:by-hour:load"]["averages"][0]["avg"], 0.12);
        assert_eq!(answer(&store, "b c", now)["summary:by-hour:disk /var"]["averages"][0]["avg"], -1e300);
        let again = IdempotencyKey::new("abc", 5);
        let sample = Sample { host: "jarvis".into(), epoch: now, values: vec![("cpu".into(), 1.0)] };
        assert!(store.record(sample.view(), Some(again), now).unwrap().duplicate);
    }

    /// `tests/store-format-2` was written by a version of format 2, killed after the same steps.
    #[test]
    fn the_second_format_opens_for_ever() {
        let (_dir, store, now) = open_fixture("store-format-2");
        let jarvis = answer(&store, "jarvis", now);
        assert_eq!(means_and_samples(&jarvis, "cpu"), (vec![5.5, 7.75, 0.5], 5));
        assert_eq!(jarvis["summary:by-hour:load"]["averages"][0]["mean"], 0.125);
        assert_eq!(answer(&store, "b c", now)["summary:by-minute:disk /var"]["averages"][0]["mean"], -1e300);
        assert!(put(&store, "jarvis", now, &[("cpu", 1.0)], 5, now).stored == 1, "another source");
        let again = IdempotencyKey::new("abc", 5);
        let sample = Sample { host: "jarvis".into(), epoch: now, values: vec![("cpu".into(), 1.0)] };
        assert!(store.record(sample.view(), Some(again), now).unwrap().duplicate);
    }

    /// `tests/store-format-3` was written by a version of format 3 with `1m:1d,1h:90d,1d:2y`, killed after samples as old as
    /// 400 days, a checkpoint, and samples after that. What memory does not hold any more moves to the chunks of history.
    #[test]
    fn the_third_format_opens_for_ever() {
        holds_what_was_written_for_400_days("store-format-3");
    }

    /// `tests/store-format-4` was written by a version of format 4 in the same steps. Its chunks of history have no decimals
    /// packed, and samples that came after the checkpoint are added to one.
    #[test]
    fn the_fourth_format_opens_for_ever() {
        holds_what_was_written_for_400_days("store-format-4");
    }

    fn holds_what_was_written_for_400_days(fixture: &str) {
        let (dir, mut store, now) = open_fixture(fixture);
        for round in 0..3 {
            let counts = |label: &str, window: usize| {
                let filter = KeyFilter::containing(label);
                let range = IntervalRange { window: store.memory().keep().windows()[window], first: 0, last: now };
                let series = store.range("jarvis", &LabelPage::all(&filter), range).unwrap();
                series[0].1.iter().map(|(_, bucket)| (bucket.count, bucket.sum)).collect::<Vec<_>>()
            };
            let hours = counts("cpu", 1);
            assert_eq!(
                (hours[..2].to_vec(), hours.iter().map(|(_, sum)| sum).sum::<f64>()),
                (vec![(2, 66.0), (2, 12.0)], 126.0)
            );
            assert_eq!(counts("cpu", 0).iter().map(|(count, _)| count).sum::<u32>(), 4, "round {round}");
            assert_eq!(counts("cpu", 2)[..2], [(1, 1.0), (2, 66.0)]);
            assert_eq!(counts("load", 2), [(1, 0.125)]);
            let again = IdempotencyKey::new("abc", 5);
            let sample = Sample { host: "jarvis".into(), epoch: now, values: vec![("cpu".into(), 1.0)] };
            assert!(store.record(sample.view(), Some(again), now).unwrap().duplicate);
            if round == 0 {
                store.checkpoint().unwrap();
            } else {
                drop(store);
                store = open_as_it_is(dir.path(), now);
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_as_it_is(dir.path(), NOW));
        Keyspaces::open(dir.path()).unwrap().state.insert("f", "6").unwrap();
        let refused = DiskStore::open(dir.path(), false, 1000.into(), &KeepOptions::default(), NOW).err().unwrap();
        assert!(refused.contains("format 6") && refused.contains("knows 5"), "{refused}");
    }
}
