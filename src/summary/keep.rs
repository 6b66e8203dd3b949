//! What is kept: which intervals, and each for how long.

use std::fmt;
use std::str::FromStr;

use super::CHUNK_INTERVALS;
use crate::clock::date;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// The intervals that can be kept: how they are written, the name of their summaries, their length in seconds, and how
/// far back an answer without a range lists them. Each is a multiple of the one before, so that a coarser interval is
/// the merge of its finer ones.
const INTERVALS: [(&str, &str, u64, u64); 4] = [
    ("1m", "by-minute", MINUTE, HOUR),
    ("10m", "by-10-minutes", 10 * MINUTE, 10 * HOUR),
    ("1h", "by-hour", HOUR, DAY),
    ("1d", "by-day", DAY, 60 * DAY),
];

/// The units of windows, in seconds.
const UNITS: [(&str, u64); 6] =
    [("mo", 31 * DAY), ("y", 366 * DAY), ("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", MINUTE)];

/// The names of all windows that there can be.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    INTERVALS.iter().map(|(_, name, ..)| *name)
}

/// Most windows of a setting.
pub(super) const WINDOWS_MAX: usize = INTERVALS.len();

/// Most intervals of a series, of all windows together: 2.8 MB of memory.
const KEPT_INTERVALS_MAX: u64 = 100_000;

/// How long a sample may be sent again under its idempotency key unless the command line says otherwise: longer than a
/// monitor's backlog is likely to wait.
const RETRY_HORIZON_SEC: u64 = 8 * DAY;

/// One kind of summary, and how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The NAME of the key `summary:NAME:LABEL`.
    pub name: &'static str,
    /// Length of an interval in seconds.
    pub interval_sec: u64,
    /// Length of the window in seconds.
    pub span_sec: u64,
    /// How far back a series holds it in memory, in seconds. What is older is on disk, where this is less than the window.
    pub memory_sec: u64,
    /// The second from which nothing is kept of it; `u64::MAX` where it is asked for.
    pub ends_sec: u64,
}

/// The windows that are kept by default.
pub const WINDOWS: [Window; 2] = [
    Window { name: "by-minute", interval_sec: MINUTE, span_sec: HOUR, memory_sec: HOUR, ends_sec: u64::MAX },
    Window { name: "by-hour", interval_sec: HOUR, span_sec: DAY, memory_sec: DAY, ends_sec: u64::MAX },
];

impl Window {
    /// Number of the interval that holds `epoch`; interval `n` begins at `n * interval_sec`.
    pub(crate) fn number(&self, epoch: u64) -> u64 {
        self.whole_intervals(epoch.saturating_sub(1))
    }

    /// Number of the oldest interval that is kept at `now`; of a window that has ended one that no sample is in.
    pub(crate) fn oldest(&self, now: u64) -> u64 {
        self.oldest_of(self.span_sec, now)
    }

    /// Number of the oldest interval that an answer without a range lists at `now`.
    pub(crate) fn oldest_listed(&self, now: u64) -> u64 {
        self.oldest_of(self.listed_sec(), now)
    }

    /// Number of the oldest interval that memory holds at `now`. Where older ones are on disk it is the first of its chunk.
    pub(crate) fn oldest_in_memory(&self, now: u64) -> u64 {
        let oldest = self.oldest_of(self.memory_sec, now);
        if self.has_older() { oldest / CHUNK_INTERVALS * CHUNK_INTERVALS } else { oldest }
    }

    fn oldest_of(&self, span_sec: u64, now: u64) -> u64 {
        self.whole_intervals(if now < self.ends_sec { now.saturating_sub(span_sec) } else { u64::MAX })
    }

    /// Whether it is kept because it was asked for once, until what was kept then has left it.
    fn is_ending(&self) -> bool {
        self.ends_sec < u64::MAX
    }

    /// Whether what is older than memory holds is on disk.
    pub(crate) fn has_older(&self) -> bool {
        self.memory_sec < self.span_sec
    }

    pub(crate) fn intervals(&self) -> u64 {
        self.whole_intervals(self.span_sec)
    }

    pub(crate) fn intervals_in_memory(&self) -> u64 {
        self.whole_intervals(self.memory_sec)
    }

    /// `sec / interval_sec`: a processor divides faster by a number that the compiler knows.
    fn whole_intervals(&self, sec: u64) -> u64 {
        match self.interval_sec {
            MINUTE => sec / MINUTE,
            HOUR => sec / HOUR,
            other => sec / other,
        }
    }

    fn listed_sec(&self) -> u64 {
        let known = INTERVALS.iter().find(|(.., interval_sec, _)| *interval_sec == self.interval_sec);
        known.map_or(self.span_sec, |(.., listed_sec)| self.span_sec.min(*listed_sec))
    }
}

/// What is kept of each series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// From the finest interval to the coarsest; the first [`Keep::len`] count.
    windows: [Window; WINDOWS_MAX],
    len: usize,
    /// How old in seconds a sample with an idempotency key may be: the key of an older one may be forgotten.
    pub retry_horizon_sec: u64,
}

/// Minutes for an hour and hours for a day.
impl Default for Keep {
    fn default() -> Self {
        let [minutes, hours] = WINDOWS;
        Self { windows: [minutes, hours, hours, hours], len: 2, retry_horizon_sec: RETRY_HORIZON_SEC }
    }
}

impl Keep {
    /// What a new directory keeps: minutes for a day, hours for 90 days, and days for two years.
    #[cfg(feature = "disk")]
    #[must_use]
    pub fn of_new_directory() -> Self {
        let [minutes, hours] = WINDOWS;
        let kept = |window: Window, span_sec| Window { span_sec, memory_sec: span_sec, ..window };
        let days = kept(Window { name: "by-day", interval_sec: DAY, ..hours }, 732 * DAY);
        Self::of(&[kept(minutes, DAY), kept(hours, 90 * DAY), days])
    }

    /// The windows, from the finest interval to the coarsest, which is kept the longest of those that are asked for.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows[..self.len]
    }

    /// The windows that have not ended at `now`.
    pub(crate) fn windows_at(&self, now: u64) -> impl DoubleEndedIterator<Item = &Window> {
        self.windows().iter().filter(move |window| now < window.ends_sec)
    }

    /// The window of an interval of so many seconds.
    #[must_use]
    pub fn window(&self, interval_sec: u64) -> Option<&Window> {
        self.windows().iter().find(|window| window.interval_sec == interval_sec)
    }

    /// The place of the window of an interval of so many seconds.
    pub(super) fn place(&self, interval_sec: u64) -> Option<usize> {
        self.windows().iter().position(|window| window.interval_sec == interval_sec)
    }

    /// The same where a directory has what no answer without a range lists: that is not held in memory.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(crate) fn on_disk(mut self) -> Self {
        self.windows.iter_mut().for_each(|window| window.memory_sec = window.listed_sec());
        self
    }

    /// Whether a part of what is kept is on disk alone.
    pub(crate) fn has_older(&self) -> bool {
        self.windows().iter().any(Window::has_older)
    }

    /// The window that is kept the longest.
    pub(crate) fn longest(&self) -> &Window {
        self.longest_at(0)
    }

    /// The same of those that have not ended at `now`.
    pub(crate) fn longest_at(&self, now: u64) -> &Window {
        self.windows_at(now).max_by_key(|window| window.span_sec).unwrap_or(&self.windows[0])
    }

    /// The same without the windows that have ended at `now`.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(crate) fn at(&self, now: u64) -> Self {
        let windows: Vec<Window> = self.windows_at(now).copied().collect();
        Self { retry_horizon_sec: self.retry_horizon_sec, ..Self::of(&windows) }
    }

    /// The same without the windows that are not asked for any more.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(crate) fn asked(&self) -> Self {
        self.at(u64::MAX - 1)
    }

    /// What a store keeps that has kept `before` and is asked at `now` for this: the other windows of it too, until all has
    /// left them that is in them now. Samples count in them meanwhile, so that no answer has a gap, and one that is asked
    /// for again is whole.
    pub(crate) fn following(&self, before: &Self, now: u64) -> Self {
        let others = before.windows_at(now).filter(|window| self.window(window.interval_sec).is_none());
        let ending = others.map(|window| {
            let left_sec = (window.number(now) + 1) * window.interval_sec + window.span_sec;
            Window { ends_sec: window.ends_sec.min(left_sec), ..*window }
        });
        let mut windows: Vec<Window> = self.windows().iter().copied().chain(ending).collect();
        windows.sort_unstable_by_key(|window| window.interval_sec);
        Self { retry_horizon_sec: self.retry_horizon_sec, ..Self::of(&windows) }
    }

    /// The same with another horizon of retries.
    pub(crate) fn with_retry_horizon(self, retry_horizon_sec: u64) -> Self {
        Self { retry_horizon_sec, ..self }
    }

    /// Whether the key of a sample may have been forgotten at `now`, and it could count twice.
    pub(crate) fn is_past_retry(&self, epoch: u64, now: u64) -> bool {
        now.saturating_sub(epoch) > self.retry_horizon_sec
    }

    /// Bytes of memory that a series takes whose windows are full.
    #[must_use]
    pub fn full_series_bytes(&self) -> u64 {
        let intervals: u64 = self.windows().iter().map(|window| window.intervals() + 1).sum();
        intervals * size_of::<super::Bucket>() as u64 + size_of::<super::Series>() as u64
    }

    /// What of `kept` a store does not keep that is asked at `now` for this setting, in words; `None` where it keeps all of it.
    /// `count` says how many intervals of a window are before a number, if that is known.
    #[must_use]
    pub fn drops(&self, kept: &Self, now: u64, count: impl Fn(&Window, u64) -> Option<u64>) -> Option<String> {
        let mut dropped = Vec::new();
        for before in kept.windows_at(now) {
            let many = |end| count(before, end).map_or_else(String::new, |count| format!("{count} intervals "));
            let window = self.window(before.interval_sec);
            if let Some(window) = window.filter(|window| window.span_sec < before.span_sec) {
                let (many, span) = (many(window.oldest(now)), span(window.span_sec));
                dropped.push(format!("what is kept {} and is older than {span} ({many}at once)", before.name));
            } else if window.is_none() && !before.is_ending() {
                let ends = self.following(kept, now).window(before.interval_sec).map_or(now, |window| window.ends_sec);
                dropped.push(format!("all that is kept {} ({}by {})", before.name, many(u64::MAX), date(ends)));
            }
        }
        (!dropped.is_empty()).then(|| dropped.join(", "))
    }

    /// Reads what [`Keep::stored`] has written.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(crate) fn parse_stored(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let mut windows = parts.next()?.parse::<Self>().ok()?.windows().to_vec();
        for part in parts {
            let (pair, ends_sec) = part.split_once('@')?;
            let ends_sec = ends_sec.parse().ok().filter(|ends_sec| *ends_sec <= crate::sample::EPOCH_MAX)?;
            windows.push(Window { ends_sec, ..parse_pair(pair).ok()? });
        }
        windows.sort_unstable_by_key(|window| window.interval_sec);
        let is_twice = windows.windows(2).any(|pair| pair[0].interval_sec == pair[1].interval_sec);
        (!is_twice).then(|| Self::of(&windows))
    }

    /// As a store notes it: what is asked for, and each window that ends with when that is, such as
    /// `1m:1h,1h:1d 1d:60d@1793664000`.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(crate) fn stored(&self) -> String {
        let ending = self.windows().iter().filter(|window| window.is_ending());
        ending.fold(self.asked().to_string(), |text, window| format!("{text} {window}@{}", window.ends_sec))
    }

    fn of(windows: &[Window]) -> Self {
        let mut keep = Self { len: windows.len(), ..Self::default() };
        keep.windows[..windows.len()].copy_from_slice(windows);
        keep
    }
}

/// A span as it is written in a setting, in the coarsest unit that is exact.
fn span(sec: u64) -> String {
    let unit =
        UNITS.iter().filter(|(name, _)| !matches!(*name, "mo" | "w")).find(|(_, unit)| sec.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{sec}s"), |(name, unit)| format!("{}{name}", sec / unit))
}

/// The seconds of a span such as `90d`: a whole number and a unit, `m`, `h`, `d`, `w`, `mo` (31 days) or `y` (366).
#[must_use]
pub fn parse_span(text: &str) -> Option<u64> {
    let (number, unit_sec) = UNITS.iter().find_map(|(unit, sec)| Some((text.strip_suffix(unit)?, *sec)))?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit_sec)
}

/// As a pair of the command line: `1h:1d`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = INTERVALS.iter().find(|(.., interval_sec, _)| *interval_sec == self.interval_sec);
        write!(f, "{}:{}", known.map_or("", |(text, ..)| *text), span(self.span_sec))
    }
}

/// As it is written on the command line, `1m:1h,1h:1d`, and until when what else is kept.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ending, asked): (Vec<&Window>, Vec<&Window>) =
            self.windows().iter().partition(|window| window.is_ending());
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        f.write_str(&asked.join(","))?;
        ending.iter().try_for_each(|window| write!(f, " and {window} until {}", date(window.ends_sec)))
    }
}

/// Reads `INTERVAL:WINDOW`.
fn parse_pair(pair: &str) -> Result<Window, String> {
    let (interval, kept) = pair.split_once(':').ok_or("not INTERVAL:WINDOW, such as 1m:1d")?;
    let known = INTERVALS.iter().copied().find(|(known, ..)| *known == interval);
    let (_, name, interval_sec, _) = known.ok_or("the interval is one of 1m, 10m, 1h and 1d")?;
    let units = "a whole number with m, h, d, w, mo (31 days) or y (366 days), such as 90d";
    let span_sec = parse_span(kept).ok_or_else(|| format!("the window is {units}"))?;
    if span_sec < 2 * interval_sec {
        return Err(format!("a window holds two intervals at least: {interval}:{}", span(2 * interval_sec)));
    }
    Ok(Window { name, interval_sec, span_sec, memory_sec: span_sec, ends_sec: u64::MAX })
}

impl FromStr for Keep {
    type Err = String;

    /// Reads `INTERVAL:WINDOW,…`. The error names the pair that is wrong, and says what would be right.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut windows: Vec<Window> = Vec::new();
        for pair in text.split(',') {
            let wrong = |why: String| format!("{pair:?}: {why}");
            let window = parse_pair(pair).map_err(wrong)?;
            match windows.last() {
                None if window.interval_sec != MINUTE => {
                    return Err(wrong(format!("the first interval is 1m, such as 1m:1h,{pair}")));
                }
                Some(before) if before.interval_sec >= window.interval_sec => {
                    return Err(wrong("intervals stand from the finest to the coarsest, each once".to_owned()));
                }
                Some(before) if before.span_sec >= window.span_sec => {
                    let before = span(before.span_sec);
                    return Err(wrong(format!(
                        "the window is longer than that of the finer interval, which is {before}"
                    )));
                }
                _ => windows.push(window),
            }
            let intervals: u64 = windows.iter().map(Window::intervals).sum();
            if intervals > KEPT_INTERVALS_MAX {
                return Err(wrong(format!(
                    "a series would have {intervals} intervals, and the limit is {KEPT_INTERVALS_MAX}: keep finer ones \
                     for a shorter time"
                )));
            }
        }
        Ok(Self::of(&windows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_465_001_814;

    #[test]
    fn a_setting_is_written_as_it_is_read() {
        for text in ["1m:1h", "1m:1h,1h:1d", "1m:1d,1h:90d,1d:2y", "1m:6h,10m:2d,1h:30d,1d:10y"] {
            assert_eq!(text.parse::<Keep>().map(|keep| keep.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("1m:60m,1h:24h".parse(), Ok(Keep::default()));
        assert_eq!("1m:1w,1h:12mo".parse::<Keep>().unwrap().windows()[1].span_sec, 12 * 31 * DAY);
        assert_eq!(Keep::default().windows(), WINDOWS);
        #[cfg(feature = "disk")]
        assert_eq!("1m:1d,1h:90d,1d:2y".parse(), Ok(Keep::of_new_directory()));
    }

    #[test]
    fn a_mistake_names_the_pair_and_what_would_be_right() {
        for (text, sentence) in [
            ("", "\"\": not INTERVAL:WINDOW, such as 1m:1d"),
            ("1m", "\"1m\": not INTERVAL:WINDOW, such as 1m:1d"),
            ("1m:1h,", "\"\": not INTERVAL:WINDOW, such as 1m:1d"),
            ("5m:1h", "\"5m:1h\": the interval is one of 1m, 10m, 1h and 1d"),
            ("1h:1d", "\"1h:1d\": the first interval is 1m, such as 1m:1h,1h:1d"),
            ("1m:1m", "\"1m:1m\": a window holds two intervals at least: 1m:2m"),
            ("1m:1h,1d:1d", "\"1d:1d\": a window holds two intervals at least: 1d:2d"),
            ("1m:1d,1h:1d", "\"1h:1d\": the window is longer than that of the finer interval, which is 1d"),
            ("1m:1h,1m:1d", "\"1m:1d\": intervals stand from the finest to the coarsest, each once"),
            (
                "1m:1h,1h:5",
                "\"1h:5\": the window is a whole number with m, h, d, w, mo (31 days) or y (366 days), such as 90d",
            ),
            (
                "1m:1y",
                "\"1m:1y\": a series would have 527040 intervals, and the limit is 100000: keep finer ones for a \
                 shorter time",
            ),
        ] {
            assert_eq!(text.parse::<Keep>(), Err(sentence.to_owned()));
        }
        for wrong in ["1m:", "1m:h", "1m:+1h", "1m:-1h", "1m:1 h", "1m:1H", "1m:99999999999999999999y", "1m:1.5h"] {
            assert!(wrong.parse::<Keep>().unwrap_err().contains("the window is a whole number"), "{wrong}");
        }
    }

    #[test]
    fn what_a_setting_drops_is_said() {
        let keep = |text: &str| text.parse::<Keep>().unwrap();
        let kept = keep("1m:1d,1h:90d,1d:2y");
        assert_eq!(kept.drops(&Keep::default(), NOW, |_, _| None), None);
        let said = keep("1m:1h,1h:91d").drops(&kept, NOW, |window, end| Some(window.interval_sec + end % 10));
        let said = said.unwrap();
        assert_eq!(
            said,
            "what is kept by-minute and is older than 1h (66 intervals at once), all that is kept by-day (86405 intervals \
             by 2018-06-07)"
        );
    }

    #[cfg(any(feature = "disk", feature = "redis"))]
    #[test]
    fn what_is_not_asked_for_any_more_is_kept_until_it_has_left_its_window() {
        let keep = |text: &str| text.parse::<Keep>().unwrap();
        let kept = keep("1m:6h,10m:1d,1h:90d,1d:2y");
        let (asked, ends) = (keep("1m:6h,1d:3y"), (NOW / HOUR + 1) * HOUR + 90 * DAY);
        let next = asked.following(&kept, NOW);
        assert_eq!(next.to_string(), "1m:6h,1d:3y and 10m:1d until 2016-06-05 and 1h:90d until 2016-09-02");
        let text = format!("1m:6h,1d:3y 10m:1d@{} 1h:90d@{ends}", (NOW / 600 + 1) * 600 + DAY);
        assert_eq!((next.stored(), Keep::parse_stored(&text)), (text, Some(next)));
        assert_eq!((next.asked(), next.longest().name), (asked, "by-day"));
        // The same asked for again changes nothing, and drops nothing.
        assert_eq!(asked.following(&next, NOW + HOUR), next);
        assert_eq!(asked.drops(&next, NOW + HOUR, |_, _| None), None);
        // One that is asked for again does not end.
        assert_eq!(kept.following(&next, NOW).windows()[..3], kept.windows()[..3]);
        assert_eq!(next.at(NOW + DAY + HOUR).windows().len(), 3);
        let hours = next.window(HOUR).unwrap();
        assert!(hours.oldest(ends - 1) == NOW / HOUR && hours.oldest(ends) > crate::sample::EPOCH_MAX);
        for wrong in ["1m:6h 1h:90d", "1m:6h 1h:90d@x", "1m:6h 1m:6h@1", "1m:6h 1h:90d@99999999999999", "1h:90d@1"] {
            assert_eq!(Keep::parse_stored(wrong), None, "{wrong}");
        }
    }
}
