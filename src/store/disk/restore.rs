//! Reading a directory back: the series of the checkpoints, the states of the hosts, and the batches since.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use fjall::{Guard, PersistMode};
use foldhash::{HashMap, HashMapExt};

use super::super::host::{Host, Skew, Source};
use super::super::memory::MemoryStore;
use super::Keyspaces;
use super::format::{Chunk, FORGET, FORMAT, Fields, SAMPLE, host_key};
use crate::sample::{AHEAD_SEC_MAX, EPOCH_MAX, IdempotencyKey, check_host, check_label, check_value};
use crate::summary::{SampleTime, is_chunk_expired};

/// What a directory held.
pub(super) struct Restored {
    /// Number of the newest batch that was found.
    pub(super) newest: u64,
    /// Batches before it that were not.
    pub(super) missing: u64,
    /// Which log takes samples from now on.
    pub(super) active: usize,
    /// Whether the other is empty.
    pub(super) spare_is_empty: bool,
}

/// Fills `store` with what a directory holds.
pub(super) fn restore(tree: &Keyspaces, store: &mut MemoryStore, now: u64) -> Result<Restored, String> {
    check_format(tree)?;
    restore_series(tree, store, now)?;
    let applied = restore_hosts(tree, store)?;
    restore_logs(tree, store, &applied)
}

fn check_format(tree: &Keyspaces) -> Result<(), String> {
    match tree.state.get("f").map_err(cannot_read)? {
        Some(format) => match std::str::from_utf8(&format).ok().and_then(|format| format.parse::<u64>().ok()) {
            Some(FORMAT) => Ok(()),
            Some(format) => Err(format!("it is of format {format}, and this lizm knows {FORMAT}")),
            None => Err("it is damaged: its format is not a number".to_owned()),
        },
        None if tree.state.is_empty().map_err(cannot_read)? => {
            let made = tree.state.insert("f", FORMAT.to_string()).and_then(|()| tree.db.persist(PersistMode::SyncAll));
            made.map_err(|error| format!("cannot be written: {error}"))
        }
        None => Err("it is damaged: its format is missing".to_owned()),
    }
}

fn restore_series(tree: &Keyspaces, store: &mut MemoryStore, now: u64) -> Result<(), String> {
    // The chunks of a host are side by side.
    let (mut host, mut host_now) = (String::new(), now);
    for guard in tree.state.prefix("b\0") {
        let (key, bytes) = read(guard)?;
        let chunk = parse_chunk(&key)?;
        if chunk.host != host {
            host = chunk.host.to_owned();
            host_now = host_now_sec(tree, &host, now)?;
        }
        restore_chunk(&chunk, &bytes, store, now, host_now)?;
    }
    Ok(())
}

/// The time that the chunks of a host are restored at. While its newest sample is further ahead than samples may be,
/// nothing tells whether the clock was ahead then or is behind now, and what was written last is kept.
fn host_now_sec(tree: &Keyspaces, host: &str, now: u64) -> Result<u64, String> {
    let record = tree.state.get(host_key(host)).map_err(cannot_read)?;
    let last_epoch = record.and_then(|record| {
        let mut fields = Fields(&record);
        let _newest_batch = fields.number()?;
        fields.number()
    });
    Ok(last_epoch.filter(|epoch| *epoch > now.saturating_add(AHEAD_SEC_MAX)).unwrap_or(now))
}

fn parse_chunk(key: &[u8]) -> Result<Chunk<'_>, String> {
    Chunk::parse(key).ok_or_else(|| "it is damaged: a key is none of ours".to_owned())
}

/// Restores a chunk, unless it has expired at `now`.
fn restore_chunk(chunk: &Chunk<'_>, bytes: &[u8], store: &MemoryStore, now: u64, host_now: u64) -> Result<(), String> {
    check_host(chunk.host).and_then(|()| check_label(chunk.label)).map_err(|why| format!("it is damaged: {why}"))?;
    if is_chunk_expired(chunk.window, chunk.interval_sec, chunk.number, now) {
        return Ok(());
    }
    let mut shard = store.shard(chunk.host);
    let host = shard.entry(chunk.host.into()).or_default();
    let before = host.series.len();
    let (_, series) = host.series.get_or_make(chunk.label, before.saturating_sub(1));
    series
        .restore(chunk.window, chunk.interval_sec, chunk.number, bytes, host_now)
        .map_err(|why| format!("it is damaged: of {} {}: {why}", chunk.host, chunk.label))?;
    store.series.fetch_add(host.series.len() - before, Ordering::Relaxed);
    Ok(())
}

/// Restores the states of hosts, and gives the number of the newest batch in each.
fn restore_hosts(tree: &Keyspaces, store: &MemoryStore) -> Result<HashMap<Box<str>, u64>, String> {
    let mut applied = HashMap::new();
    for guard in tree.state.prefix("h\0") {
        let (key, bytes) = read(guard)?;
        let (name, number) = restore_state(&key, &bytes, store)?;
        applied.insert(name.into(), number);
    }
    Ok(applied)
}

fn restore_state<'k>(key: &'k [u8], bytes: &[u8], store: &MemoryStore) -> Result<(&'k str, u64), String> {
    let name = std::str::from_utf8(&key[2..]).map_err(|_| "it is damaged: a key is none of ours")?;
    let number =
        restore_host(bytes, store.shard(name).get_mut(name)).ok_or("it is damaged: a host's state is cut short")?;
    Ok((name, number))
}

/// Restores one record of a directory, as an opening one would: of the keyspace `state`, or by its number of a log.
pub(in crate::store) fn restore_record(store: &MemoryStore, key: &[u8], bytes: &[u8], now: u64) -> Result<(), String> {
    if key.starts_with(b"b\0") {
        restore_chunk(&parse_chunk(key)?, bytes, store, now, now)
    } else if key.starts_with(b"h\0") {
        restore_state(key, bytes, store).map(drop)
    } else {
        restore_entry(bytes, batch_number(key)?, store, &HashMap::new())
    }
}

fn restore_host(bytes: &[u8], host: Option<&mut Host>) -> Option<u64> {
    let mut fields = Fields(bytes);
    let number = fields.number()?;
    let last_epoch = fields.number()?;
    let gaps_sec = [fields.short()?, fields.short()?, fields.short()?];
    let count = fields.count()?;
    let sources = (0..count).map(|_| {
        let name = fields.text()?.into();
        Some(Source { name, seq: fields.number()?, heard_sec: fields.number()? })
    });
    let sources = sources.collect::<Option<Vec<_>>>()?;
    let skew = fields.short().zip(fields.short().and_then(NonZeroU32::new));
    let skew = skew.map(|(ahead_sec, heard_sec)| Skew { ahead_sec: ahead_sec.cast_signed(), heard_sec });
    // A host whose series have all expired is not known any more.
    if let Some(host) = host {
        (host.last_epoch, host.gaps_sec, host.sources, host.skew) = (last_epoch, gaps_sec, sources, skew);
    }
    Some(number)
}

/// Applies the batches that are in no host's state yet, the older log first.
fn restore_logs(
    tree: &Keyspaces,
    store: &mut MemoryStore,
    applied: &HashMap<Box<str>, u64>,
) -> Result<Restored, String> {
    let checkpoint = tree.state.get("c").map_err(cannot_read)?;
    let checkpoint = checkpoint
        .map_or(Ok(0), |bytes| Fields(&bytes).number().ok_or("it is damaged: its checkpoint is no number"))?;
    let mut first = [u64::MAX; 2];
    for (log, first) in first.iter_mut().enumerate() {
        if let Some(guard) = tree.batches(log).next() {
            *first = batch_number(&read(guard)?.0)?;
        }
    }
    let older = usize::from(first[1] < first[0]);
    let mut restored = Restored {
        newest: applied.values().copied().max().unwrap_or(0).max(checkpoint),
        missing: 0,
        active: if first[older ^ 1] == u64::MAX { older } else { older ^ 1 },
        spare_is_empty: first[older ^ 1] == u64::MAX,
    };
    let mut found = 0;
    let mut newest_logged = checkpoint;
    for place in [older, older ^ 1] {
        for guard in tree.batches(place) {
            let (key, bytes) = read(guard)?;
            let number = batch_number(&key)?;
            if number > newest_logged {
                (found, newest_logged) = (found + 1, number);
                restore_entry(&bytes, number, store, applied)?;
            }
        }
    }
    restored.newest = restored.newest.max(newest_logged);
    restored.missing = newest_logged - checkpoint - found;
    Ok(restored)
}

fn restore_entry(
    bytes: &[u8],
    number: u64,
    store: &MemoryStore,
    applied: &HashMap<Box<str>, u64>,
) -> Result<(), String> {
    let applied = apply_entry(bytes, number, store, applied);
    applied.ok_or_else(|| "it is damaged: a batch of its log is none of ours".to_owned())
}

fn apply_entry(bytes: &[u8], number: u64, store: &MemoryStore, applied: &HashMap<Box<str>, u64>) -> Option<()> {
    let mut fields = Fields(bytes);
    match fields.byte()? {
        SAMPLE => {
            let (now, epoch) = (fields.number()?, fields.number()?);
            let name = fields.text()?;
            let (source, seq) = (fields.text()?, fields.number()?);
            let key = (!source.is_empty()).then_some(IdempotencyKey { source, seq });
            let count = fields.count()?;
            let values = (0..count).map(|_| Some((Cow::Borrowed(fields.text()?), f64::from_bits(fields.number()?))));
            let values = values.collect::<Option<Vec<_>>>()?;
            // What no door lets in was not written, but changed since.
            let is_sound =
                |(label, value): &(Cow<'_, str>, f64)| check_label(label).is_ok() && check_value(label, *value).is_ok();
            if check_host(name).is_err() || epoch > EPOCH_MAX || !values.iter().all(is_sound) {
                return None;
            }
            if applied.get(name).is_none_or(|newest| number > *newest) {
                let mut shard = store.shard(name);
                let host = shard.entry(name.into()).or_default();
                let before = host.series.len();
                host.apply(&SampleTime::new(epoch, now), &values, key);
                store.series.fetch_add(host.series.len() - before, Ordering::Relaxed);
            }
        }
        FORGET => {
            let name = fields.text()?;
            if applied.get(name).is_none_or(|newest| number > *newest) {
                let removed = store.shard(name).swap_remove(name);
                store.release_series(removed.map_or(0, |host| host.series.len()));
            }
        }
        _ => return None,
    }
    Some(())
}

fn read(guard: Guard) -> Result<(fjall::UserKey, fjall::UserValue), String> {
    guard.into_inner().map_err(cannot_read)
}

fn cannot_read(error: fjall::Error) -> String {
    format!("it is damaged or cannot be read: {error}")
}

fn batch_number(key: &[u8]) -> Result<u64, String> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| "it is damaged: a key of its log is no number".to_owned())
}
