//! The times of line protocol, and their units.

use super::shown;
use crate::sample::EPOCH_MAX;

/// A time without a precision is in seconds, milliseconds or microseconds up to these limits, and in nanoseconds beyond.
/// Each unit covers the years 1973 to 5138.
const SECONDS_MAX: u64 = 100_000_000_000;
const MILLISECONDS_MAX: u64 = SECONDS_MAX * 1000;
const MICROSECONDS_MAX: u64 = MILLISECONDS_MAX * 1000;

/// The unit of the times in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// The unit by which the time is between the years 1973 and 5138.
    #[default]
    ByMagnitude,
    /// Nanoseconds, InfluxDB's default.
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Precision {
    /// Parses the value of `precision=`, by the names of InfluxDB's APIs 1 and 2.
    ///
    /// # Errors
    /// A message that lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "" => Ok(Self::ByMagnitude),
            "ns" | "n" => Ok(Self::Nanoseconds),
            "us" | "u" | "µ" => Ok(Self::Microseconds),
            "ms" => Ok(Self::Milliseconds),
            "s" => Ok(Self::Seconds),
            "m" => Ok(Self::Minutes),
            "h" => Ok(Self::Hours),
            _ => Err(format!("precision: {name:?} is not one of ns, us, ms, s, m and h")),
        }
    }

    /// The epoch of a sample of `time`: the end of the second that `time` is in.
    fn epoch(self, time: u64) -> Option<u64> {
        Some(match self {
            Self::ByMagnitude => return by_magnitude(time).epoch(time),
            Self::Nanoseconds => time.div_ceil(1_000_000_000),
            Self::Microseconds => time.div_ceil(1_000_000),
            Self::Milliseconds => time.div_ceil(1000),
            Self::Seconds => time,
            Self::Minutes => time.checked_mul(60)?,
            Self::Hours => time.checked_mul(3600)?,
        })
    }

    /// The time of a sample of `epoch`, which [`Precision::epoch`] turns back into `epoch` if the unit is fine enough.
    pub(super) fn time(self, epoch: u64) -> u64 {
        match self {
            Self::Nanoseconds => epoch.saturating_mul(1_000_000_000),
            Self::Microseconds => epoch.saturating_mul(1_000_000),
            Self::Milliseconds => epoch.saturating_mul(1000),
            Self::ByMagnitude | Self::Seconds => epoch,
            Self::Minutes => epoch / 60,
            Self::Hours => epoch / 3600,
        }
    }
}

fn by_magnitude(time: u64) -> Precision {
    match time {
        ..SECONDS_MAX => Precision::Seconds,
        SECONDS_MAX..MILLISECONDS_MAX => Precision::Milliseconds,
        MILLISECONDS_MAX..MICROSECONDS_MAX => Precision::Microseconds,
        _ => Precision::Nanoseconds,
    }
}

/// Parses the time of a line and returns its epoch.
pub(super) fn parse(text: &str, precision: Precision) -> Result<u64, String> {
    if text.contains(' ') {
        return Err("time: followed by more, and nothing belongs there".to_owned());
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("time: {:?} is not a whole number", shown(text)));
    }
    if digits.len() < text.len() && digits.bytes().any(|byte| byte != b'0') {
        return Err("time: lies before 1970".to_owned());
    }
    let epoch = digits.parse().ok().and_then(|time| precision.epoch(time));
    epoch
        .filter(|epoch| *epoch <= EPOCH_MAX)
        .ok_or_else(|| format!("time: lies after the epoch {EPOCH_MAX}, the limit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::line::decode_line;

    #[test]
    fn a_time_has_a_unit_by_name_or_by_magnitude() {
        let epoch = |time: &str, precision: &str| {
            let line = format!("perf,host=h cpu=1 {time}");
            let precision = Precision::parse(precision).unwrap();
            decode_line(&line, precision, 0).map(|line| line.sample.epoch).unwrap()
        };
        for (time, precision) in [
            ("1465001847", ""),
            ("1465001847000", ""),
            ("1465001847000000", ""),
            ("1465001847000000000", ""),
            ("1465001846000000001", "ns"),
            ("1465001846000000001", "n"),
            ("1465001846000001", "us"),
            ("1465001847000000", "u"),
            ("1465001846999", "ms"),
            ("1465001847", "s"),
        ] {
            assert_eq!(epoch(time, precision), 1_465_001_847, "{time} {precision}");
        }
        assert_eq!((epoch("24416698", "m"), epoch("406945", "h")), (1_465_001_880, 1_465_002_000));
        assert_eq!((epoch("0", ""), epoch("-0", "ns"), epoch("1", "ns")), (0, 0, 1));
        assert_eq!((epoch("99999999999", ""), epoch("100000000000", "")), (99_999_999_999, 100_000_000));
        assert!(Precision::parse("d").unwrap_err().starts_with("precision: \"d\""));
        assert!(decode_line("perf,host=h cpu=1 18446744073709551615", Precision::Hours, 0).is_err());
    }
}
