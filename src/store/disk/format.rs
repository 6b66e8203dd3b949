//! The records of the store in a directory, encoded and decoded.
//!
//! The format, whose number is [`FORMAT`]; all numbers are little-endian but those in keys, which are big-endian:
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `state` | `f` | the format, in digits |
//! | `state` | `k` | what is kept, as [`Keep::stored`] has it; without it `1m:1h,1h:1d` |
//! | `state` | `c` | number of the newest batch that the records of all hosts contain (8 bytes) |
//! | `state` | `h` 0 HOST | newest batch that all chunks of the host contain (8), last epoch (8), gaps (3 × 4), sources: count (2), each name (1 + n), sequence number (8), time of its newest sample (8); skew of its clock (4) and when that was learned (4), if known |
//! | `state` | `b` 0 HOST 0 LABEL 0 WINDOW `:` SECONDS 0 chunk (8) | newest batch in it (8), then as [`Series::take_changes`](crate::summary::Series::take_changes) gives it |
//! | `state` | `t` 0 HOST | the tags of the host, `role=web,site=ams`; none if it has none |
//! | `state` | `x` 0 HOST | what archives have of the host, as [`Archives::encode`](crate::store::archived::Archives::encode) has it; none without archives |
//! | `state` | `i` 0 HOST | the number by which its chunks in `history` are found (8), from 1 |
//! | `state` | `s` 0 HOST 0 LABEL | newest batch that all chunks of the series contain (8), and for each window with chunks in `history` the seconds of an interval (4) and the number after that of the newest interval there (8) |
//! | `state` | `a` 0, and a key whose first letter is the kind | a record of alerts, or of who has joined, as JSON |
//! | `log-0`, `log-1` | number of a batch (8), from 1 | the entries of the batch, one after the other: 1 now (8) epoch (8) host (1 + n) source (1 + n) sequence number (8) count (2), each label (1 + n) and value (8); or 2 host (1 + n): the host was removed |
//! | `history` | number of the host (8) LABEL 0 seconds of an interval (4) chunk (8) | intervals that memory does not hold, as [`encode_chunk`](crate::summary::encode_chunk) packs them |
//!
//! Of a window that memory holds a part of, `state` has the chunks of that part alone. Format 4 had no decimals packed in
//! `history`. Format 3 had all chunks in `state`, and no `history`. Format 2 had neither other windows than `by-minute` and `by-hour`, nor `k`. Format 1 had one entry in each batch, and
//! chunks without the number.

use std::borrow::Cow;

use super::super::host::Host;
use crate::sample::{IdempotencyKey, SampleRef};
use crate::summary::{CHUNK_ENTRY_BYTES, CHUNK_INTERVALS, Keep};

/// The format that is written, and the newest that is read.
pub(super) const FORMAT: u64 = 5;

/// What the keys of records begin with.
pub(super) const RECORD_PREFIX: &[u8] = b"a\0";

const SAMPLE: u8 = 1;
const REMOVAL: u8 = 2;

pub(super) fn host_key(host: &str) -> Vec<u8> {
    [b"h\0", host.as_bytes()].concat()
}

pub(super) fn record_key(key: &str) -> Vec<u8> {
    [RECORD_PREFIX, key.as_bytes()].concat()
}

pub(super) fn tags_key(host: &str) -> Vec<u8> {
    [b"t\0", host.as_bytes()].concat()
}

/// The key of what archives have of a host.
pub(super) fn archives_key(host: &str) -> Vec<u8> {
    [b"x\0", host.as_bytes()].concat()
}

/// The key of the number of a host.
pub(super) fn id_key(host: &str) -> Vec<u8> {
    [b"i\0", host.as_bytes()].concat()
}

/// The key of what a series has in `history`.
pub(super) fn series_key(host: &str, label: &str) -> Vec<u8> {
    [b"s\0", host.as_bytes(), b"\0", label.as_bytes()].concat()
}

/// The host and the label of such a key.
pub(super) fn parse_series_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key.strip_prefix(b"s\0")?).ok()?.split_once('\0')
}

/// What a series has in `history`: up to before which interval of each window.
pub(super) fn series_record(newest_batch: u64, keep: &Keep, ends: &[u64]) -> Vec<u8> {
    let mut record = newest_batch.to_le_bytes().to_vec();
    for (window, end) in keep.windows().iter().zip(ends).filter(|(_, end)| **end > 0) {
        record.extend_from_slice(&(window.interval_sec as u32).to_le_bytes());
        record.extend_from_slice(&end.to_le_bytes());
    }
    record
}

/// The newest batch of such a record, and the seconds of the intervals with their ends.
pub(super) fn parse_series_record(record: &[u8]) -> Option<(u64, Vec<(u64, u64)>)> {
    let mut fields = Fields(record);
    let (newest_batch, mut ends) = (fields.number()?, Vec::new());
    while !fields.0.is_empty() {
        ends.push((fields.short()?.into(), fields.number()?));
    }
    Some((newest_batch, ends))
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
    // Versions that do not know the skew leave the rest unread.
    if let Some(skew) = host.skew {
        record.extend_from_slice(&skew.ahead_sec.to_le_bytes());
        record.extend_from_slice(&skew.heard_sec.get().to_le_bytes());
    }
    record
}

/// The key of a chunk.
pub(super) fn chunk_key(host: &str, label: &str, window: &str, interval_sec: u64, number: u64) -> Vec<u8> {
    let mut key = format!("b\0{host}\0{label}\0{window}:{interval_sec}\0").into_bytes();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The value of a chunk: the newest batch in it, and its intervals.
pub(super) fn chunk_record(newest_batch: u64, intervals: &[u8]) -> Vec<u8> {
    [&newest_batch.to_le_bytes(), intervals].concat()
}

/// The newest batch in a chunk, and its intervals. A chunk of format 1 has no number, and gives 0.
pub(super) fn parse_chunk_record(record: &[u8]) -> (u64, &[u8]) {
    match record.split_first_chunk() {
        Some((number, intervals)) if !record.len().is_multiple_of(CHUNK_ENTRY_BYTES) => {
            (u64::from_le_bytes(*number), intervals)
        }
        _ => (0, record),
    }
}

/// Appends the entry of a sample that arrived at `now`.
pub(super) fn put_sample(to: &mut Vec<u8>, sample: SampleRef<'_>, key: Option<IdempotencyKey<'_>>, now: u64) {
    to.reserve(64 + sample.host.len() + 24 * sample.values.len());
    to.push(SAMPLE);
    to.extend_from_slice(&now.to_le_bytes());
    to.extend_from_slice(&sample.epoch.to_le_bytes());
    put_text(to, sample.host);
    put_text(to, key.map_or("", |key| key.source));
    to.extend_from_slice(&key.map_or(0, |key| key.seq).to_le_bytes());
    put_count(to, sample.values.len());
    for (label, value) in sample.values {
        put_text(to, label);
        to.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends the entry of the removal of a host.
pub(super) fn put_removal(to: &mut Vec<u8>, host: &str) {
    to.push(REMOVAL);
    put_text(to, host);
}

/// An entry of a batch.
pub(super) enum Entry<'a> {
    /// A sample was recorded, whose values were added to a vector.
    Sample {
        host: &'a str,
        epoch: u64,
        key: Option<IdempotencyKey<'a>>,
        /// When it arrived.
        now: u64,
    },
    /// A host was removed.
    Removal { host: &'a str },
}

impl<'a> Entry<'a> {
    /// Reads an entry, and adds the values of its sample to `values`; `None` where it is malformed.
    pub(super) fn parse(fields: &mut Fields<'a>, values: &mut Vec<(Cow<'a, str>, f64)>) -> Option<Self> {
        match fields.byte()? {
            SAMPLE => {
                let (now, epoch, host) = (fields.number()?, fields.number()?, fields.text()?);
                let (source, seq) = (fields.text()?, fields.number()?);
                let key = (!source.is_empty()).then_some(IdempotencyKey::new(source, seq));
                for _ in 0..fields.count()? {
                    values.push((Cow::Borrowed(fields.text()?), f64::from_bits(fields.number()?)));
                }
                Some(Self::Sample { host, epoch, key, now })
            }
            REMOVAL => Some(Self::Removal { host: fields.text()? }),
            _ => None,
        }
    }
}

/// A decoded key of a chunk. Names have no zero bytes, because control characters are refused.
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

    /// The numbers of the intervals in its record, the first first.
    pub(super) fn numbers(&self, record: &[u8]) -> impl Iterator<Item = u64> {
        let (first, (_, intervals)) = (self.number.saturating_mul(CHUNK_INTERVALS), parse_chunk_record(record));
        intervals.chunks(CHUNK_ENTRY_BYTES).map(move |entry| first.saturating_add(entry[0].into()))
    }
}

/// Appends a text of at most 255 bytes; hosts, labels and sources are no longer.
fn put_text(to: &mut Vec<u8>, text: &str) {
    debug_assert!(u8::try_from(text.len()).is_ok(), "a name of over 255 bytes");
    to.push(text.len() as u8);
    to.extend_from_slice(text.as_bytes());
}

fn put_count(to: &mut Vec<u8>, count: usize) {
    debug_assert!(u16::try_from(count).is_ok(), "over 65,535 values");
    to.extend_from_slice(&(count as u16).to_le_bytes());
}

/// Reads the fields of a record one after the other. Each call gives `None` where the record is too short.
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
