//! The records of the store in a directory, written and taken apart.
//!
//! The format, which [`FORMAT`] numbers; all numbers are little-endian but those in keys, which are big-endian:
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `state` | `f` | the format, in digits |
//! | `state` | `c` | number of the newest batch that every host's state has (8 bytes) |
//! | `state` | `h` 0 HOST | newest batch in it (8), last epoch (8), gaps (3 × 4), sources: count (2), each name (1 + n), sequence number (8), heard at (8); skew of its clock (4), learned at (4), where it is known |
//! | `state` | `b` 0 HOST 0 LABEL 0 WINDOW `:` SECONDS 0 chunk (8) | as [`Series::take_changes`] gives it |
//! | `log-0`, `log-1` | number (8), from 1 | 1 now (8) epoch (8) host (1 + n) source (1 + n) sequence number (8) count (2), each label (1 + n) and value (8); or 2 host (1 + n): the host is forgotten |

use fjall::{Keyspace, OwnedWriteBatch};

use super::super::host::Host;
use crate::summary::Series;

/// The format this lizm writes, and the newest it reads.
pub(super) const FORMAT: u64 = 1;

pub(super) const SAMPLE: u8 = 1;
pub(super) const FORGET: u8 = 2;

pub(super) fn host_key(host: &str) -> Vec<u8> {
    [b"h\0", host.as_bytes()].concat()
}

pub(super) fn host_record(host: &Host, newest: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(64);
    record.extend_from_slice(&newest.to_le_bytes());
    record.extend_from_slice(&host.last_epoch.to_le_bytes());
    host.gaps_sec.iter().for_each(|gap| record.extend_from_slice(&gap.to_le_bytes()));
    put_count(&mut record, host.sources.len());
    for source in &host.sources {
        put_text(&mut record, &source.name);
        record.extend_from_slice(&source.seq.to_le_bytes());
        record.extend_from_slice(&source.heard_sec.to_le_bytes());
    }
    // A lizm that does not know of it leaves what stands here unread.
    if let Some(skew) = host.skew {
        record.extend_from_slice(&skew.ahead_sec.to_le_bytes());
        record.extend_from_slice(&skew.heard_sec.get().to_le_bytes());
    }
    record
}

pub(super) fn put_changes(batch: &mut OwnedWriteBatch, state: &Keyspace, host: &str, label: &str, series: &mut Series) {
    series.take_changes(|window, chunk, bytes| {
        let mut key = format!("b\0{host}\0{label}\0{}:{}\0", window.name, window.interval_sec).into_bytes();
        key.extend_from_slice(&chunk.to_be_bytes());
        batch.insert(state, key, bytes);
    });
}

/// The key of a chunk, taken apart. No name in it has a zero byte, as no control character is let in.
pub(super) struct Chunk<'a> {
    pub(super) host: &'a str,
    pub(super) label: &'a str,
    pub(super) window: &'a str,
    pub(super) interval_sec: u64,
    pub(super) number: u64,
}

impl<'a> Chunk<'a> {
    pub(super) fn parse(key: &'a [u8]) -> Option<Self> {
        let (names, number) = key.strip_prefix(b"b\0")?.split_last_chunk::<8>()?;
        let mut names = std::str::from_utf8(names).ok()?.strip_suffix('\0')?.split('\0');
        let (host, label, window) = (names.next()?, names.next()?, names.next()?);
        let (window, interval_sec) = window.rsplit_once(':')?;
        let interval_sec = interval_sec.parse().ok()?;
        Some(Self { host, label, window, interval_sec, number: u64::from_be_bytes(*number) })
    }
}

/// Appends a text of at most 255 bytes; hosts, labels and sources are no longer.
pub(super) fn put_text(to: &mut Vec<u8>, text: &str) {
    debug_assert!(u8::try_from(text.len()).is_ok(), "a name of over 255 bytes was let in");
    to.push(text.len() as u8);
    to.extend_from_slice(text.as_bytes());
}

pub(super) fn put_count(to: &mut Vec<u8>, count: usize) {
    debug_assert!(u16::try_from(count).is_ok(), "over 65,535 values were let in");
    to.extend_from_slice(&(count as u16).to_le_bytes());
}

/// Reads the fields of a record one after the other; `None` where it is cut short.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn count(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub(super) fn short(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn checksum(&mut self) -> Option<u128> {
        self.bytes().map(u128::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}
