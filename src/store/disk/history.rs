//! Intervals that memory does not hold: a series has them in chunks of the keyspace `history`, which are read when a range
//! asks for them.
//!
//! The samples of an interval are spread over the ring in memory, what waits in memory for its chunk, and the chunk; each is
//! in one of them. A checkpoint moves what memory need not hold, and late samples for what it does not hold, to their
//! chunks. One batch writes the chunks, the records of what memory still holds, and the number of the newest batch of
//! samples in both: a restart finds all of a series as it was at that number, and adds the batches behind it from the log.
//!
//! A reader adds the three up without a lock that posts need. [`Moves`] says whether something was on its way meanwhile; then
//! it reads again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch, UserKey};

use super::keyspaces::Keyspaces;
use crate::store::StoreError;
use crate::store::memory::{SHARDS, locked};
use crate::summary::{
    Bucket, CHUNK_INTERVALS, Intervals, Keep, Window, decode_chunk, encode_chunk, first_number, merge_intervals,
};

/// How long an interval may be in a chunk after it has left its window: the hours of a chunk leave it one by one, and go six
/// together; the days do not wait for each other.
pub(super) const OVERDUE_SEC: u64 = 6 * 3600;
/// Keys that are removed at once.
const EXPIRE_KEYS: usize = 1000;

/// What the thread that writes shares with those who read.
pub(super) struct Moves {
    /// By shard of hosts, a number that is odd while intervals of one of them are on their way to the disk.
    versions: Vec<AtomicU64>,
    /// About how many bytes of memory wait for a checkpoint that moves them to the disk.
    pub(super) waiting_bytes: AtomicU64,
    keyspaces: Mutex<Option<Keyspaces>>,
}

impl Moves {
    pub(super) fn new() -> Arc<Self> {
        let versions = (0..SHARDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { versions, waiting_bytes: AtomicU64::new(0), keyspaces: Mutex::new(None) })
    }

    /// Notes that intervals of a shard are on their way, or that they have arrived.
    pub(super) fn step(&self, shard: usize) {
        self.versions.get(shard).map(|version| version.fetch_add(1, Ordering::SeqCst));
    }

    /// The number of a shard while nothing is on its way.
    pub(super) fn version(&self, shard: usize) -> Option<u64> {
        let version = self.versions.get(shard).map_or(0, |version| version.load(Ordering::SeqCst));
        version.is_multiple_of(2).then_some(version)
    }

    pub(super) fn set_keyspaces(&self, keyspaces: Option<Keyspaces>) {
        *locked(&self.keyspaces) = keyspaces;
    }

    /// The database, unless it is closed because the disk has failed.
    pub(super) fn keyspaces(&self) -> Result<Keyspaces, StoreError> {
        let keyspaces = locked(&self.keyspaces).clone();
        keyspaces.ok_or_else(|| StoreError::new("what is not in memory cannot be read until the disk can be written"))
    }
}

/// What the keys of the chunks of a window of a series begin with, by the number of the host.
fn prefix(disk_id: u64, label: &str, window: &Window) -> Vec<u8> {
    let mut key = disk_id.to_be_bytes().to_vec();
    key.extend_from_slice(label.as_bytes());
    key.push(0);
    key.extend_from_slice(&(window.interval_sec as u32).to_be_bytes());
    key
}

fn with_number(mut prefix: Vec<u8>, chunk: u64) -> Vec<u8> {
    prefix.extend_from_slice(&chunk.to_be_bytes());
    prefix
}

/// A key, taken apart: the number of the host, the length of an interval in seconds, the number of the chunk, and what the
/// keys of its window begin with.
fn parse(key: &[u8]) -> Option<(u64, u64, u64, &[u8])> {
    let (prefix, chunk) = key.split_last_chunk()?;
    let (id, label) = prefix.split_first_chunk()?;
    let (_, interval_sec) = label.split_last_chunk()?;
    Some((u64::from_be_bytes(*id), u32::from_be_bytes(*interval_sec).into(), u64::from_be_bytes(*chunk), prefix))
}

fn damaged(key: &[u8]) -> String {
    format!("it is damaged: the chunk {} is malformed", key.escape_ascii())
}

/// Reads the intervals of a series from `first` to `last`.
pub(super) fn read(
    keyspaces: &Keyspaces,
    disk_id: u64,
    label: &str,
    window: &Window,
    first: u64,
    last: u64,
) -> Result<Intervals, String> {
    let mut intervals = Intervals::new();
    if disk_id == 0 || first > last {
        return Ok(intervals);
    }
    let prefix = prefix(disk_id, label, window);
    let (from, to) =
        (with_number(prefix.clone(), first / CHUNK_INTERVALS), with_number(prefix, last / CHUNK_INTERVALS));
    for guard in keyspaces.history.range(from..=to) {
        let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
        let chunk = parse(&key).and_then(|(_, _, chunk, _)| decode_chunk(chunk, &value));
        let chunk = chunk.ok_or_else(|| damaged(&key))?;
        intervals.extend(chunk.into_iter().filter(|(number, _)| (first..=last).contains(number)));
    }
    Ok(intervals)
}

/// A chunk, by its key.
pub(super) type KeyValue = (Vec<u8>, Vec<u8>);

/// The chunks of a series, each by its key, as they are with more intervals of a window.
pub(super) fn merged(
    keyspaces: &Keyspaces,
    disk_id: u64,
    label: &str,
    window: &Window,
    more: &[(u64, Bucket)],
) -> Result<Vec<KeyValue>, String> {
    let prefix = prefix(disk_id, label, window);
    let mut chunks = Vec::new();
    for more in more.chunk_by(|(a, _), (b, _)| a / CHUNK_INTERVALS == b / CHUNK_INTERVALS) {
        let number = more.first().map_or(0, |(number, _)| number / CHUNK_INTERVALS);
        let key = with_number(prefix.clone(), number);
        let merged = match keyspaces.history.get(&key).map_err(|error| error.to_string())? {
            Some(value) => merge_intervals(decode_chunk(number, &value).ok_or_else(|| damaged(&key))?, more.to_vec()),
            None => more.to_vec(),
        };
        chunks.push((key, encode_chunk(&merged)));
    }
    Ok(chunks)
}

/// Removes the chunks of windows that are not kept, so that they can be filled.
pub(super) fn remove_windows(keyspaces: &Keyspaces, is_removed: impl Fn(u64) -> bool) -> fjall::Result<()> {
    let expires = |_, interval_sec, _| is_removed(interval_sec);
    remove(keyspaces, expires, &mut Vec::new(), None, |_, _| ())
}

/// Removes chunks that have left their windows at `now`, and those of hosts that `is_known` does not have, and gives `trim`
/// the keys of those that [`is_overdue`]. It ends after `within`, and the next call goes on at `cursor`, which is empty where
/// it has come to the end.
pub(super) fn expire(
    keyspaces: &Keyspaces,
    keep: &Keep,
    now: u64,
    is_known: impl Fn(u64) -> bool,
    cursor: &mut Vec<u8>,
    within: Duration,
    mut trim: impl FnMut(UserKey),
) -> fjall::Result<()> {
    let expires = |id, interval_sec, chunk: u64| {
        let end = chunk.saturating_add(1).saturating_mul(CHUNK_INTERVALS);
        !is_known(id) || keep.window(interval_sec).is_none_or(|window| end <= window.oldest(now))
    };
    remove(keyspaces, expires, cursor, Some(within), |key, value| {
        let first =
            parse(&key).and_then(|(_, interval_sec, chunk, _)| Some((interval_sec, first_number(chunk, value)?)));
        if first.is_some_and(|(interval_sec, first)| is_overdue(keep, interval_sec, first, now)) {
            trim(key);
        }
    })
}

/// Whether a chunk that begins with an interval is to be written again without what has left its window.
pub(super) fn is_overdue(keep: &Keep, interval_sec: u64, first: u64, now: u64) -> bool {
    keep.window(interval_sec).is_some_and(|window| first < window.oldest(now.saturating_sub(OVERDUE_SEC)))
}

/// A chunk without what has left its window at `now`; `None` where that is all of it.
pub(super) fn trimmed(keep: &Keep, key: &[u8], value: &[u8], now: u64) -> Result<Option<Vec<u8>>, String> {
    let (_, interval_sec, chunk, _) = parse(key).ok_or_else(|| damaged(key))?;
    let mut intervals = decode_chunk(chunk, value).ok_or_else(|| damaged(key))?;
    let oldest = keep.window(interval_sec).map_or(u64::MAX, |window| window.oldest(now));
    intervals.retain(|(number, _)| *number >= oldest);
    Ok((!intervals.is_empty()).then(|| encode_chunk(&intervals)))
}

/// Removes the first chunks of each window of each series for which `expires` holds, by host, interval and number. Gives
/// `first_kept` the chunk behind them.
fn remove(
    keyspaces: &Keyspaces,
    expires: impl Fn(u64, u64, u64) -> bool,
    cursor: &mut Vec<u8>,
    within: Option<Duration>,
    mut first_kept: impl FnMut(UserKey, &[u8]),
) -> fjall::Result<()> {
    let begun = Instant::now();
    while within.is_none_or(|within| begun.elapsed() < within) {
        let (mut batch, mut keys, mut next) = (keyspaces.db.batch(), 0, None);
        let mut window: Option<Vec<u8>> = None;
        for guard in keyspaces.history.range(cursor.clone()..) {
            let (key, value) = guard.into_inner()?;
            let Some((id, interval_sec, chunk, prefix)) = parse(&key) else { continue };
            let is_same = *window.get_or_insert_with(|| prefix.to_vec()) == prefix;
            if !is_same || keys == EXPIRE_KEYS {
                next = Some(key.to_vec());
                break;
            }
            if !expires(id, interval_sec, chunk) {
                // Behind the last chunk of the window.
                next = Some([with_number(prefix.to_vec(), u64::MAX), vec![0]].concat());
                first_kept(key, &value);
                break;
            }
            batch.remove(&keyspaces.history, key.clone());
            keys += 1;
        }
        commit(batch, keys)?;
        match next {
            Some(next) => *cursor = next,
            None => {
                cursor.clear();
                break;
            }
        }
    }
    Ok(())
}

fn commit(batch: OwnedWriteBatch, keys: usize) -> fjall::Result<()> {
    if keys > 0 { batch.commit() } else { Ok(()) }
}

/// The greatest number of a host of which there are chunks.
pub(super) fn newest_id(keyspaces: &Keyspaces) -> Result<u64, String> {
    let last =
        keyspaces.history.last_key_value().map(fjall::Guard::key).transpose().map_err(|error| error.to_string())?;
    Ok(last.and_then(|key| parse(&key).map(|(id, ..)| id)).unwrap_or(0))
}

/// Of each chunk the length of its intervals and the number of the first.
#[cfg(test)]
pub(super) fn firsts(keyspaces: &Keyspaces) -> Vec<(u64, u64)> {
    let chunks = keyspaces.history.iter().map(|guard| guard.into_inner().unwrap());
    let first = |(key, value): (UserKey, fjall::UserValue)| {
        parse(&key).map(|(_, interval_sec, chunk, _)| (interval_sec, first_number(chunk, &value).unwrap()))
    };
    chunks.filter_map(first).collect()
}
