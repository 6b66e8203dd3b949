//! Times of a query: seconds with fractions, or RFC 3339.

/// The latest time in seconds: the year 9999.
const SEC_MAX: f64 = 253_402_300_800.0;

/// Reads a time, to milliseconds since the Unix epoch.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    match text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "it is below the year 9999")]
        Ok(sec) if is_number && sec.abs() < SEC_MAX => Some((sec * 1000.0).round() as i64),
        _ => parse_rfc3339(text),
    }
}

/// Reads `2026-11-30T07:08:09.5+01:00`.
fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone_at);
    let offset_min = match zone {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))?
        }
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction_ms = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok().filter(|_| is_fraction)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let fits = (1..=12).contains(&month) && (1..=days_of_month).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 in years that begin in March, so that the leap day is the last.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = march_year * 365 + march_year.div_euclid(4) - march_year.div_euclid(100)
        + march_year.div_euclid(400)
        + (march_month * 153 + 2) / 5
        + day
        - 1
        - 719_468;
    Some(((days * 24 + hour) * 3600 + (minute - offset_min) * 60 + second) * 1000 + fraction_ms)
}

/// Numbers of so many digits each, with a separator between.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let (mut parts, mut numbers) = (text.split(separator), [0; N]);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = part.parse().ok().filter(|_| is_number)?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1465002010", Some(1_465_002_010_000)),
            ("1465002010.781", Some(1_465_002_010_781)),
            ("1.46500201e9", Some(1_465_002_010_000)),
            ("-1", Some(-1000)),
            ("2016-06-04T01:00:10Z", Some(1_465_002_010_000)),
            ("2016-06-04T03:00:10.5+02:00", Some(1_465_002_010_500)),
            ("2016-06-03t20:30:10.1234-04:30", Some(1_465_002_010_123)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000)),
            ("1969-12-31T23:59:59Z", Some(-1000)),
            ("2100-02-29T00:00:00Z", None),
            ("2016-06-04", None),
            ("2016-06-04T01:00:10", None),
            ("2016-13-04T01:00:10Z", None),
            ("2016-06-04T24:00:10Z", None),
            ("2016-06-04T01:00:10.Z", None),
            ("2016-06-04T01:00:10+1:00", None),
            ("1e300", None),
            ("inf", None),
            ("nan", None),
            ("now", None),
            ("", None),
            ("2016-06-04Tä", None),
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }
}
