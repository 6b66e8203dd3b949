//! How replies of Redis and of the scripts are read. What has another shape is none of them.

use redis::Value;
use smol_str::SmolStr;

use super::super::{Conflict, Limit, RecordOutcome};
use crate::sample::Tags;
use crate::summary::Bucket;

/// The reply of the record script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScriptReply {
    /// The script recorded the sample, knew it, or refused it.
    Recorded(RecordOutcome),
    /// The script did nothing: what is kept of the host is by another setting, this one.
    Unsettled(String),
    /// The script did nothing: the index must be written first.
    Unlisted {
        /// How many labels the host has.
        labels: u64,
        /// The hour that the host is listed for.
        hour: Option<u64>,
        /// How many values have labels for which the host has no room.
        over: usize,
        /// Places of the values whose labels would be new, and for which it has room, from 0.
        new: Vec<usize>,
    },
}

/// Reads the reply of the record script; `None` for anything else.
pub(super) fn read_recorded(reply: &Value) -> Option<ScriptReply> {
    let reply = match reply {
        Value::Int(stored) => {
            let stored = usize::try_from(*stored).ok()?;
            return Some(ScriptReply::Recorded(RecordOutcome { stored, ..RecordOutcome::default() }));
        }
        Value::Array(reply) => reply,
        _ => return None,
    };
    let number = |at: usize| match reply.get(at) {
        Some(Value::Int(number)) => usize::try_from(*number).ok(),
        _ => None,
    };
    match text(reply.first()?)? {
        "duplicate" => Some(ScriptReply::Recorded(RecordOutcome { duplicate: true, ..RecordOutcome::default() })),
        "stored" => Some(ScriptReply::Recorded(RecordOutcome {
            stored: number(1)?,
            refused: number(2)?,
            // As in memory: what the host has no room for is not asked for room in the store.
            refused_by: match (number(2)?, number(3)?) {
                (0, _) => None,
                (refused, over) if over < refused => Some(Limit::Series),
                _ => Some(Limit::LabelsPerHost),
            },
            conflict: (reply.len() > 5).then(|| {
                let address = |at: usize| text(&reply[at]).and_then(|address| address.parse().ok());
                Conflict { addresses: [address(4), address(5)] }
            }),
            ..RecordOutcome::default()
        })),
        "unsettled" => Some(ScriptReply::Unsettled(text(reply.get(1)?)?.to_owned())),
        "unlisted" => Some(ScriptReply::Unlisted {
            labels: number(1)? as u64,
            hour: number(2).map(|hour| hour as u64),
            over: number(3)?,
            new: (4..reply.len()).map(|at| number(at)?.checked_sub(1)).collect::<Option<_>>()?,
        }),
        _ => None,
    }
}

/// Reads the reply of the sweep script: how many labels there are. The names of hosts that it has forgotten are added to
/// `forgotten`. `None` for anything else.
pub(super) fn read_swept(reply: &Value, forgotten: &mut Vec<SmolStr>) -> Option<usize> {
    let Value::Array(reply) = reply else { return None };
    let [Value::Int(labels), Value::Array(names)] = &reply[..] else { return None };
    forgotten.extend(names.iter().filter_map(text).map(SmolStr::new));
    usize::try_from(*labels).ok()
}

/// Reads a field of a window's hash: place of the interval in the hash, and label.
pub(super) fn read_field(field: &Value) -> Option<(u64, SmolStr)> {
    let (place, label) = text(field)?.split_once(' ')?;
    Some((place.parse().ok()?, label.into()))
}

/// Reads a bucket, `count sum min max`.
pub(super) fn read_bucket(bucket: &Value) -> Option<Bucket> {
    let mut parts = text(bucket)?.split(' ');
    let count = parts.next()?.parse().ok().filter(|count| *count > 0)?;
    let mut number = || parts.next()?.parse::<f64>().ok().filter(|number| number.is_finite());
    Some(Bucket { count, sum: number()?, min: number()?, max: number()? })
}

/// What Redis says of a host beside its labels.
pub(super) struct About {
    /// Its newest epoch, and the gaps before it in seconds.
    pub(super) last_epoch: u64,
    pub(super) gaps_sec: Vec<u64>,
    /// The seconds that its clock is ahead.
    pub(super) skew_sec: Option<i32>,
    /// When it was last seen in conflict; 0 if never.
    pub(super) conflict_sec: u64,
    pub(super) tags: Tags,
}

/// Reads the reply to the first of [`HostKeys::about`](super::layout::HostKeys::about).
pub(super) fn read_about(about: &Value) -> Option<About> {
    let Value::Array(about) = about else { return None };
    let skew = about.get(1).and_then(text).and_then(|skew| skew.split(' ').next()?.parse().ok());
    let mut numbers = text(about.first()?)?.split(' ').map_while(|number| number.parse().ok());
    let conflict_sec = about.get(2).and_then(text).and_then(|sec| sec.parse().ok());
    Some(About {
        last_epoch: numbers.next()?,
        gaps_sec: numbers.collect(),
        skew_sec: skew,
        conflict_sec: conflict_sec.unwrap_or(0),
        tags: about.get(3).and_then(text).and_then(|tags| Tags::parse(tags).ok()).unwrap_or_default(),
    })
}

/// Reads the reply to [`time`](super::layout::time): milliseconds since the Unix epoch.
pub(super) fn read_time_ms(reply: &Value) -> Option<i64> {
    let Value::Array(parts) = reply else { return None };
    let [sec, us] = parts.as_slice() else { return None };
    let number = |value| text(value)?.parse::<i64>().ok();
    number(sec)?.checked_mul(1000)?.checked_add(number(us)? / 1000)
}

/// The pairs of a reply to `HGETALL`.
pub(super) fn pairs(reply: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let flat: &[Value] = if let Value::Array(flat) = reply { flat } else { &[] };
    flat.chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
}

pub(super) fn text(value: &Value) -> Option<&str> {
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
    fn the_time_of_a_server_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let time = |parts: &[&str]| read_time_ms(&Value::Array(parts.iter().map(|part| text(part)).collect()));
        assert_eq!(time(&["1465001814", "123999"]), Some(1_465_001_814_123));
        for parts in [&[][..], &["1"], &["1", "2", "3"], &["x", "2"], &["9223372036854775807", "0"]] {
            assert_eq!(time(parts), None, "{parts:?}");
        }
        assert_eq!(read_time_ms(&Value::Int(1)), None);
    }

    #[test]
    fn only_replies_of_the_script_are_read() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let reply = |values: &[Value]| read_recorded(&Value::Array(values.to_vec()));
        assert_eq!(
            reply(&[bulk("stored"), Value::Int(2), Value::Int(1), Value::Int(0)]),
            Some(ScriptReply::Recorded(RecordOutcome {
                stored: 2,
                refused: 1,
                refused_by: Some(Limit::Series),
                ..RecordOutcome::default()
            }))
        );
        assert_eq!(
            reply(&[bulk("unlisted"), Value::Int(4), Value::Int(-1), Value::Int(5), Value::Int(1), Value::Int(3)]),
            Some(ScriptReply::Unlisted { labels: 4, hour: None, over: 5, new: vec![0, 2] })
        );
        let stored = |stored| Some(ScriptReply::Recorded(RecordOutcome { stored, ..RecordOutcome::default() }));
        assert_eq!(read_recorded(&Value::Int(2)), stored(2));
        assert_eq!(read_recorded(&Value::Int(-1)), None);
        for wrong in [
            &[bulk("stored")][..],
            &[bulk("unlisted"), Value::Int(0), Value::Int(0), Value::Int(0), Value::Int(0)],
            &[],
        ] {
            assert_eq!(reply(wrong), None);
        }
        for wrong in ["", "0 1 1 1", "1 1 1", "1 x 1 1", "1 inf 1 1", "-1 1 1 1"] {
            assert_eq!(read_bucket(&bulk(wrong)), None, "{wrong:?}");
        }
        assert_eq!(read_field(&bulk("29 disk /var")), Some((29, "disk /var".into())));
    }
}
