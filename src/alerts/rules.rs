//! The file of rules: one rule a line, and what may stand between them (defaults, targets, silences).
//!
//! [`parse`] reads whole files and names the first mistake of each line. It touches no files, sockets or clocks; variables
//! of the environment are an argument. `docs/alerts.md` has the grammar.

mod lexer;
mod parser;

use std::fmt;

use super::event::{Comparison, Severity};
use super::globs::Globs;
use super::notify::Target;
use super::zone::Zone;
use crate::summary::Keep;
pub use parser::{parse, parse_span};

/// Most rules, targets and silences each: more than anyone writes, and a bound for what each evaluation costs.
pub const RULES_MAX: usize = 10_000;
/// Most bytes of all files together.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// Percent of the expected samples that make a minute known, unless a rule says otherwise.
const NEEDS_PERCENT: u8 = 50;
/// Longest time for which a rule that flaps must be right before its alert is resolved.
pub(super) const FLAPPING_SEC_MAX: u64 = 3600;
/// Fewest minutes, and hours where any are, that are read of a series: of fewer one gap would look like its rhythm.
const REACH_MIN: u64 = 11;
const MINUTE_SEC: u64 = 60;
const HOUR_SEC: u64 = 3600;

/// What was parsed.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The rules, in the order of the file.
    pub rules: Vec<Rule>,
    /// Where messages go.
    pub targets: Vec<Target>,
    /// When and for what nothing is told.
    pub silences: Vec<Silence>,
    /// Targets of rules that name none.
    pub default_notify: Vec<String>,
}

impl Rules {
    /// The targets of the receiver's own alerts: those of the default, or all.
    #[must_use]
    pub fn own_targets(&self) -> Vec<String> {
        let all = || self.targets.iter().filter(|target| target.semantics().is_some());
        match self.default_notify.is_empty() {
            true => all().map(|target| target.name().to_owned()).collect(),
            false => self.default_notify.clone(),
        }
    }

    /// Intervals by minute and by hour that the rules about a label look back at: while nothing fires, and while something
    /// does. There are so many at least that those with samples show how often a series is reported. `None` if no rule is
    /// about it.
    #[must_use]
    pub fn reach(&self, label: &str) -> Option<[[u64; 2]; 2]> {
        let mut reach = None;
        for rule in self.rules.iter().filter(|rule| rule.test.is_about(label)) {
            let [quiet, firing] = reach.get_or_insert([[REACH_MIN, 0]; 2]);
            let (place, function) = match rule.test {
                Test::Series { function, .. } => (usize::from(rule.interval_sec == HOUR_SEC), function.intervals()),
                _ => {
                    // What is silent for long has hours alone.
                    (quiet[1], firing[1]) = (quiet[1].max(REACH_MIN), firing[1].max(REACH_MIN));
                    continue;
                }
            };
            // One runs, and one may not have closed yet.
            let intervals = |sec: u64| (function + 1 + sec.div_ceil(rule.interval_sec)).max(REACH_MIN);
            let until_sec = rule.until.and_then(|until| until.for_sec).unwrap_or(0);
            quiet[place] = quiet[place].max(intervals(rule.for_sec));
            firing[place] = firing[place].max(intervals(rule.for_sec.max(until_sec).max(FLAPPING_SEC_MAX)));
        }
        reach
    }
}

/// One rule: a level of the alert `name`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, which rules of other severities or hosts may share.
    pub name: String,
    /// Line in its file, from 1.
    pub line: usize,
    /// The rule as it was written, without a comment.
    pub source: String,
    /// What is tested.
    pub test: Test,
    /// Seconds of the intervals that it goes by: a minute, or an hour if `for` or a span of the test is longer.
    pub interval_sec: u64,
    /// `for` in seconds; 0 without one.
    pub for_sec: u64,
    /// When it is right again; without it when the test does not hold.
    pub until: Option<Until>,
    /// The hosts that it is about.
    pub hosts: Globs,
    /// Names of the targets.
    pub notify: Vec<String>,
    /// Its level.
    pub severity: Severity,
    /// Seconds after which an alert that still fires is told again; `None` is never.
    pub every_sec: Option<u64>,
    /// Percent of the expected samples that make a minute known.
    pub needs_percent: u8,
    /// A sentence for the messages.
    pub text: Option<String>,
}

/// The test of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A function of each series against a threshold.
    Series {
        /// What is computed.
        function: Function,
        /// Of which series.
        series: Globs,
        /// Which side of the threshold is bad.
        comparison: Comparison,
        /// In the unit of the series.
        threshold: f64,
    },
    /// The host says nothing for ten of its intervals, a minute at least.
    Down,
    /// The host says nothing for three of its intervals.
    Late,
    /// The series say nothing.
    Absent(Globs),
}

/// What is computed of a series at the end of an interval. Spans are in intervals of [`Rule::interval_sec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The mean of the span.
    Average(u64),
    /// Its smallest sample.
    Min(u64),
    /// Its largest sample.
    Max(u64),
    /// The newest average less that of the span ago.
    Change(u64),
    /// The line through the averages of `over`, read `ahead_sec` later.
    Forecast {
        /// Intervals.
        over: u64,
        /// Seconds.
        ahead_sec: u64,
    },
}

impl Test {
    /// Whether it is about the values of series, and not about silence.
    #[must_use]
    pub fn is_of_values(&self) -> bool {
        matches!(self, Self::Series { .. })
    }

    /// Whether it is about the series of this label; an empty one is the host itself.
    #[must_use]
    pub fn is_about(&self, label: &str) -> bool {
        match self {
            Self::Series { series, .. } | Self::Absent(series) => !label.is_empty() && series.matches(label),
            Self::Down | Self::Late => label.is_empty(),
        }
    }

    /// Whether it names a series without a wildcard.
    #[must_use]
    pub fn names(&self, label: &str) -> bool {
        matches!(self, Self::Series { series, .. } if series.literals().any(|literal| literal == label))
    }
}

impl Function {
    /// Intervals that it reads.
    #[must_use]
    pub fn intervals(self) -> u64 {
        match self {
            Self::Average(span) | Self::Min(span) | Self::Max(span) => span,
            Self::Change(span) => span + 1,
            Self::Forecast { over, .. } => over,
        }
    }
}

impl Rule {
    /// A rule with a test, and nothing else yet.
    pub(super) fn new(name: &str, test: Test) -> Self {
        Self {
            name: name.to_owned(),
            line: 0,
            source: name.to_owned(),
            test,
            interval_sec: MINUTE_SEC,
            for_sec: 0,
            until: None,
            hosts: Globs::default(),
            notify: Vec::new(),
            severity: Severity::default(),
            every_sec: None,
            needs_percent: NEEDS_PERCENT,
            text: None,
        }
    }
}

/// When a rule that fired is right again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Until {
    /// Which side is good.
    pub comparison: Comparison,
    /// In the unit of the series.
    pub threshold: f64,
    /// Seconds that it must be good; without it those of the rule, at most five minutes.
    pub for_sec: Option<u64>,
}

/// A time in which some alerts of some hosts are not told.
#[derive(Debug, Clone)]
pub struct Silence {
    /// Names of alerts.
    pub alerts: Globs,
    /// Hosts.
    pub hosts: Globs,
    /// When.
    pub when: When,
}

/// When a silence holds.
#[derive(Debug, Clone)]
pub enum When {
    /// From the first minute of a day until before the second one, or on the next day if that is not later.
    Weekly {
        /// The days on which it begins, Sunday first.
        days: [bool; 7],
        /// Minutes since midnight.
        from_min: u32,
        /// Minutes since midnight, up to 24:00.
        to_min: u32,
        /// Whose midnight.
        zone: Zone,
    },
    /// Once, in seconds since the Unix epoch; the end is not part of it.
    Once {
        /// First second.
        from: u64,
        /// First second after it.
        to: u64,
    },
}

impl When {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn holds(&self, now: u64) -> bool {
        match self {
            Self::Once { from, to } => (*from..*to).contains(&now),
            Self::Weekly { days, from_min, to_min, zone } => {
                let local_min = zone.local_sec(now).div_euclid(MINUTE_SEC as i64);
                let (day, minute) = (local_min.div_euclid(1440), local_min.rem_euclid(1440) as u32);
                // The first of January 1970 was a Thursday.
                let begins = |day: i64| days[(day + 4).rem_euclid(7) as usize];
                match from_min < to_min {
                    true => begins(day) && (*from_min..*to_min).contains(&minute),
                    false => (begins(day) && minute >= *from_min) || (begins(day - 1) && minute < *to_min),
                }
            }
        }
    }
}

/// Seconds for which a store keeps minutes and hours, which bounds how far back rules may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Of minutes.
    pub minutes_sec: u64,
    /// Of hours.
    pub hours_sec: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self::from(&Keep::default())
    }
}

impl From<&Keep> for Retention {
    fn from(keep: &Keep) -> Self {
        // Rules read what memory holds; what a directory has on disk alone is for ranges.
        let of = |interval_sec| keep.window(interval_sec).map_or(0, |window| window.memory_sec);
        Self { minutes_sec: of(MINUTE_SEC), hours_sec: of(HOUR_SEC) }
    }
}

/// A mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file, or the option.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.why)
    }
}
