//! Time zones: by their IANA names from the system's zoneinfo, or as a POSIX TZ string.
//!
//! The format of the files is RFC 9636's; of them only the newest block is read, with 64-bit times. Behind their last change
//! their footer holds, which is a POSIX TZ string (POSIX.1-2024, 8.3).

use std::fs;
use std::path::Path;

/// Most bytes of a file of zoneinfo: the largest of them have some 4 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
const DAY_SEC: i64 = 86_400;

/// How local time is got from the time since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Changes in ascending order: from a second on, seconds to add.
    changes: Vec<(i64, i64)>,
    /// Seconds to add before the first change.
    before_sec: i64,
    /// What holds after the last change.
    after: Option<PosixZone>,
}

/// A POSIX TZ string: standard time, and when daylight saving time begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PosixZone {
    standard_sec: i64,
    daylight: Option<Daylight>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Daylight {
    offset_sec: i64,
    begin: DayRule,
    end: DayRule,
}

/// A day of each year, and the seconds of local time since its midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DayRule {
    day: Day,
    at_sec: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Day {
    /// `Jn`: day 1 to 365, without the 29th of February.
    Julian(i64),
    /// `n`: day 0 to 365.
    OfYear(i64),
    /// `Mm.w.d`: weekday d of week w of month m; week 5 is the last.
    OfMonth { month: i64, week: i64, weekday: i64 },
}

impl Zone {
    /// Coordinated Universal Time.
    #[must_use]
    pub fn utc() -> Self {
        Self::posix(PosixZone { standard_sec: 0, daylight: None })
    }

    fn posix(zone: PosixZone) -> Self {
        Self { changes: Vec::new(), before_sec: zone.standard_sec, after: Some(zone) }
    }

    /// The zone of a name in `zoneinfo`, such as `Europe/Berlin`, or of a POSIX TZ string, such as `CET-1CEST,M3.5.0,M10.5.0`.
    /// `None` if it is neither.
    #[must_use]
    pub fn find(name: &str, zoneinfo: &Path) -> Option<Self> {
        let is_name = name.split('/').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+'))
        });
        let path = zoneinfo.join(name);
        let file = if is_name && fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX) {
            fs::read(path).ok().and_then(|bytes| Self::parse_file(&bytes))
        } else {
            None
        };
        let utc = || matches!(name, "UTC" | "Etc/UTC").then(Self::utc);
        file.or_else(utc).or_else(|| PosixZone::parse(name).map(Self::posix))
    }

    /// Seconds of local time since 1970 began there.
    #[must_use]
    pub fn local_sec(&self, now: u64) -> i64 {
        let now = i64::try_from(now).unwrap_or(i64::MAX / 2);
        let passed = self.changes.partition_point(|(from, _)| *from <= now);
        let offset_sec = match (&self.after, passed.checked_sub(1)) {
            (Some(after), last) if passed == self.changes.len() && (last.is_some() || passed == 0) => {
                after.offset_sec(now)
            }
            (_, Some(last)) => self.changes[last].1,
            (_, None) => self.before_sec,
        };
        now.saturating_add(offset_sec)
    }

    /// Reads a file of zoneinfo.
    fn parse_file(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let first = Header::parse(&mut rest)?;
        if first.version < b'2' {
            return None;
        }
        take(&mut rest, first.block_bytes(4)?)?;
        let header = Header::parse(&mut rest)?;
        let times = take(&mut rest, header.times.checked_mul(8)?)?;
        let indexes = take(&mut rest, header.times)?;
        let types = take(&mut rest, header.types.checked_mul(6)?)?;
        take(&mut rest, header.rest_bytes(8)?)?;
        let offset = |index: usize| {
            let bytes = types.get(6 * index..6 * index + 4)?;
            Some(i64::from(i32::from_be_bytes(bytes.try_into().ok()?)))
        };
        let time = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?));
        let changes = times.chunks(8).zip(indexes).map(|(at, index)| Some((time(at)?, offset(usize::from(*index))?)));
        let footer = std::str::from_utf8(rest).ok()?.trim_matches('\n');
        let changes = changes.collect::<Option<Vec<_>>>()?;
        Some(Self { changes, before_sec: offset(0)?, after: PosixZone::parse(footer) })
    }
}

/// The counts at the head of a block of a file.
struct Header {
    version: u8,
    is_ut: usize,
    is_standard: usize,
    leaps: usize,
    times: usize,
    types: usize,
    characters: usize,
}

impl Header {
    fn parse(rest: &mut &[u8]) -> Option<Self> {
        let head = take(rest, 44)?;
        let count = |place: usize| {
            let bytes = head.get(20 + 4 * place..24 + 4 * place)?;
            usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
        };
        (head.starts_with(b"TZif")).then_some(())?;
        let [is_ut, is_standard, leaps, times, types, characters] = [0, 1, 2, 3, 4, 5].map(count);
        Some(Self {
            version: head[4],
            is_ut: is_ut?,
            is_standard: is_standard?,
            leaps: leaps?,
            times: times?,
            types: types?,
            characters: characters?,
        })
    }

    /// Bytes of the block behind this head, whose times have `time_bytes` each.
    fn block_bytes(&self, time_bytes: usize) -> Option<usize> {
        let changes = self.times.checked_mul(time_bytes + 1)?.checked_add(self.types.checked_mul(6)?)?;
        changes.checked_add(self.rest_bytes(time_bytes)?)
    }

    /// Bytes of the block behind its types.
    fn rest_bytes(&self, time_bytes: usize) -> Option<usize> {
        let leaps = self.leaps.checked_mul(time_bytes + 4)?;
        self.characters.checked_add(leaps)?.checked_add(self.is_standard)?.checked_add(self.is_ut)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

impl PosixZone {
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        parse_name(&mut rest)?;
        let standard_sec = -parse_time(&mut rest, 24)?;
        if rest.is_empty() {
            return Some(Self { standard_sec, daylight: None });
        }
        parse_name(&mut rest)?;
        let offset_sec = if rest.starts_with(',') { standard_sec + 3600 } else { -parse_time(&mut rest, 24)? };
        let begin = DayRule::parse(&mut rest)?;
        let end = DayRule::parse(&mut rest)?;
        rest.is_empty().then_some(Self { standard_sec, daylight: Some(Daylight { offset_sec, begin, end }) })
    }

    fn offset_sec(&self, now: i64) -> i64 {
        let Some(daylight) = &self.daylight else { return self.standard_sec };
        let year = year_of((now + self.standard_sec).div_euclid(DAY_SEC));
        let begin = daylight.begin.local_sec(year) - self.standard_sec;
        let end = daylight.end.local_sec(year) - daylight.offset_sec;
        // South of the equator it goes from one year into the next.
        let is_daylight = if begin < end { (begin..end).contains(&now) } else { !(end..begin).contains(&now) };
        if is_daylight { daylight.offset_sec } else { self.standard_sec }
    }
}

impl DayRule {
    fn parse(rest: &mut &str) -> Option<Self> {
        *rest = rest.strip_prefix(',')?;
        let day = if let Some(after) = rest.strip_prefix('M') {
            *rest = after;
            let month = parse_number(rest, 1, 12)?;
            *rest = rest.strip_prefix('.')?;
            let week = parse_number(rest, 1, 5)?;
            *rest = rest.strip_prefix('.')?;
            Day::OfMonth { month, week, weekday: parse_number(rest, 0, 6)? }
        } else if let Some(after) = rest.strip_prefix('J') {
            *rest = after;
            Day::Julian(parse_number(rest, 1, 365)?)
        } else {
            Day::OfYear(parse_number(rest, 0, 365)?)
        };
        let at_sec = match rest.strip_prefix('/') {
            Some(after) => {
                *rest = after;
                parse_time(rest, 167)?
            }
            None => 2 * 3600,
        };
        Some(Self { day, at_sec })
    }

    /// Seconds of local time since 1970 at which it holds in a year.
    fn local_sec(&self, year: i64) -> i64 {
        let day = match self.day {
            Day::OfYear(day) => days_before(year, 1) + day,
            Day::Julian(day) => days_before(year, 1) + day - 1 + i64::from(is_leap(year) && day > 59),
            Day::OfMonth { month, week, weekday } => {
                let first = days_before(year, month);
                let next = if month == 12 { days_before(year + 1, 1) } else { days_before(year, month + 1) };
                let day = first + (weekday - (first + 4)).rem_euclid(7) + 7 * (week - 1);
                if day < next { day } else { day - 7 }
            }
        };
        day * DAY_SEC + self.at_sec
    }
}

/// Skips a name: three letters or more, or anything in angle brackets.
fn parse_name(rest: &mut &str) -> Option<()> {
    let end = match rest.strip_prefix('<') {
        Some(quoted) => quoted.find('>')? + 2,
        None => rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()),
    };
    *rest = rest.get(end..)?;
    (end >= 3).then_some(())
}

/// Reads `[+-]hh[:mm[:ss]]` as seconds.
fn parse_time(rest: &mut &str, hours_max: i64) -> Option<i64> {
    let (sign, digits) = match rest.as_bytes().first()? {
        b'-' => (-1, &rest[1..]),
        b'+' => (1, &rest[1..]),
        _ => (1, *rest),
    };
    *rest = digits;
    let mut sec = 3600 * parse_number(rest, 0, hours_max)?;
    for unit_sec in [60, 1] {
        let Some(after) = rest.strip_prefix(':') else { break };
        *rest = after;
        sec += unit_sec * parse_number(rest, 0, 59)?;
    }
    Some(sign * sec)
}

fn parse_number(rest: &mut &str, least: i64, most: i64) -> Option<i64> {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..end].parse().ok().filter(|number| (least..=most).contains(number))?;
    *rest = &rest[end..];
    Some(number)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

/// Days from the first of January 1970 to the first of a month.
pub(super) fn days_before(year: i64, month: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let past = year - 1;
    let leap_days = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 477;
    365 * (year - 1970) + leap_days + BEFORE[(month - 1) as usize] + i64::from(month > 2 && is_leap(year))
}

fn year_of(day: i64) -> i64 {
    let guess = 1970 + day.div_euclid(365) - day.div_euclid(365 * 1461);
    let mut year = guess + 1;
    while days_before(year, 1) > day {
        year -= 1;
    }
    year
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn hour(zone: &Zone, now: u64) -> i64 {
        zone.local_sec(now).rem_euclid(DAY_SEC) / 3600
    }

    #[test]
    fn daylight_saving_time_begins_and_ends() {
        let berlin = Zone::find(BERLIN, Path::new("/nowhere")).unwrap();
        // 2026-03-29 01:00 UTC and 2026-10-25 01:00 UTC.
        let (begin, end) = (1_774_746_000, 1_792_890_000);
        assert_eq!([begin - 1, begin, end - 1, end].map(|now| hour(&berlin, now)), [1, 3, 2, 2]);
        // Sydney: from October to April.
        let sydney = Zone::find("AEST-10AEDT,M10.1.0,M4.1.0/3", Path::new("/nowhere")).unwrap();
        let january = 1_768_435_200;
        assert_eq!(hour(&sydney, january), 11);
        assert_eq!(hour(&sydney, january + 180 * 86_400), 10);
    }

    #[test]
    fn forms_of_posix() {
        for (text, offset_sec) in [
            ("UTC0", 0),
            ("<+0330>-3:30", 12_600),
            ("<-03>3", -10_800),
            ("EST5", -18_000),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", 0),
            ("XXX-1YYY,J60/0,300", 3600),
        ] {
            let zone = Zone::find(text, Path::new("/nowhere")).unwrap();
            let january = 1_768_435_200;
            assert_eq!(zone.local_sec(january) - january as i64, offset_sec, "{text}");
        }
        for wrong in
            ["", "Europe/Nowhere", "AB1", "CET", "CET-1CEST", "CET-1CEST,M13.1.0,M1.1.0", "../etc/passwd", "CET-25"]
        {
            assert_eq!(Zone::find(wrong, Path::new("/nowhere")), None, "{wrong}");
        }
    }

    #[test]
    fn days_of_leap_years() {
        assert_eq!((days_before(1970, 1), days_before(2000, 3), days_before(2026, 11)), (0, 11_017, 20_758));
        for year in [1970, 1999, 2000, 2024, 2026, 2100, 2400] {
            assert_eq!((year_of(days_before(year, 1)), year_of(days_before(year + 1, 1) - 1)), (year, year));
        }
    }

    /// A file with one change, in version 2: first 32-bit times, then 64-bit ones.
    fn file(footer: &str) -> Vec<u8> {
        let block = |time: &[u8]| {
            let mut bytes = b"TZif2".to_vec();
            bytes.extend([0; 15]);
            [0, 0, 0, 1, 2, 4_u32].iter().for_each(|count| bytes.extend(count.to_be_bytes()));
            bytes.extend(time);
            bytes.push(1);
            bytes.extend(0_i32.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(3600_i32.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(b"AAA\0");
            bytes
        };
        let mut bytes = block(&1000_i32.to_be_bytes());
        bytes.extend(block(&1000_i64.to_be_bytes()));
        bytes.extend(format!("\n{footer}\n").bytes());
        bytes
    }

    #[test]
    fn files_of_zoneinfo() {
        let zone = Zone::parse_file(&file("")).unwrap();
        assert_eq!((zone.local_sec(999), zone.local_sec(1000)), (999, 4600));
        let zone = Zone::parse_file(&file(BERLIN)).unwrap();
        assert_eq!((zone.local_sec(999), hour(&zone, 1_774_746_000)), (999, 3));
        let whole = file(BERLIN);
        for end in 0..whole.len() - BERLIN.len() - 2 {
            assert_eq!(Zone::parse_file(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn the_systems_zones_agree_with_the_rule() {
        let Some(file) = Zone::find("Europe/Berlin", Path::new("/usr/share/zoneinfo")) else { return };
        let rule = Zone::find(BERLIN, Path::new("/nowhere")).unwrap();
        for now in (1_700_000_000..2_400_000_000).step_by(86_399) {
            assert_eq!(file.local_sec(now), rule.local_sec(now), "{now}");
        }
    }
}
