//! Text -> rules: a scanner of one line, and a function for each phrase of the grammar.

use std::collections::HashSet;
use std::path::Path;

use super::super::event::{Comparison, Severity};
use super::super::globs::{Globs, Piece};
use super::super::notify::Target;
use super::super::zone::{Zone, days_before};
use super::{
    Function, HOUR_SEC, Kept, MINUTE_SEC, Mistake, RULES_MAX, Rule, Rules, Silence, TEXT_BYTES_MAX, Test, Until, When,
};
use crate::sample::{VALUE_MAGNITUDE_MAX, parse_epoch};

/// Bytes of a name of a rule or target: it stands in `/metrics`, and in messages.
const NAME_BYTES_MAX: usize = 64;
/// Characters of `text`: a message of Slack or Telegram holds some thousands for all its alerts.
const TEXT_CHARS_MAX: usize = 500;
/// Characters of a pattern: as many as a host's name has bytes.
const PATTERN_CHARS_MAX: usize = 255;
/// Longest time of any kind.
const SPAN_SEC_MAX: u64 = 366 * 86_400;
/// Points that a line through averages needs.
const FORECAST_POINTS: u64 = 4;
/// The alerts of the receiver itself begin with this.
const RESERVED: &str = "lizm-";
const ZONEINFO: &str = "/usr/share/zoneinfo";
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A mistake in a line: the byte at which it is, and what is wrong.
type Wrong = (usize, String);
/// Names of targets, each with the byte at which it stands.
type Names = Vec<(usize, String)>;

/// Options of a rule, or of `default`.
#[derive(Default)]
struct Options {
    notify: Option<Names>,
    severity: Option<Severity>,
    every_sec: Option<Option<u64>>,
    needs_percent: Option<u8>,
    text: Option<String>,
}

/// Reads files of rules, each a name and its text. `variable` gives variables of the environment.
///
/// # Errors
/// All mistakes, of each line the first.
pub fn parse(
    files: &[(&str, &str)],
    kept: Kept,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Rules, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut found = Found::default();
    if files.iter().map(|(_, text)| text.len()).sum::<usize>() > TEXT_BYTES_MAX {
        let why = format!("rules: more than {TEXT_BYTES_MAX} bytes");
        return Err(vec![Mistake { file: files[0].0.to_owned(), line: 1, column: 1, why }]);
    }
    for (file, text) in files {
        for (index, line) in text.lines().enumerate() {
            let mut scanner = Scanner { text: line, at: 0 };
            let place = Place { file, line: index + 1, text: line };
            if let Err(wrong) = statement(&mut scanner, place, &mut found, kept, &variable) {
                mistakes.push(place.mistake(wrong));
            }
        }
    }
    let mut rules = Rules { rules: Vec::new(), targets: found.targets, silences: found.silences, ..Rules::default() };
    let targets: HashSet<String> = rules.targets.iter().map(|target| target.name().to_owned()).collect();
    let unknown = |names: &Option<Names>| {
        let unknown = names.iter().flatten().find(|(_, name)| !targets.contains(name));
        unknown.map(|(at, name)| (*at, format!("notify: there is no target {name}")))
    };
    let default = found.default;
    mistakes.extend(found.default_places.iter().filter_map(|(place, names)| Some(place.mistake(unknown(names)?))));
    rules.default_notify = default.notify.iter().flatten().map(|(_, name)| name.clone()).collect();
    for (place, mut rule, options) in found.rules {
        mistakes.extend(unknown(&options.notify).map(|wrong| place.mistake(wrong)));
        let names = options.notify.as_ref().or(default.notify.as_ref());
        rule.notify = names.into_iter().flatten().map(|(_, name)| name.clone()).collect();
        rule.severity = options.severity.or(default.severity).unwrap_or_default();
        rule.every_sec = options.every_sec.or(default.every_sec).flatten();
        rule.needs_percent = options.needs_percent.or(default.needs_percent).unwrap_or(50);
        rule.text = options.text.or_else(|| default.text.clone());
        rules.rules.push(rule);
    }
    mistakes.sort();
    mistakes.dedup_by(|a, b| (&a.file, a.line) == (&b.file, b.line));
    if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
}

/// Reads a time such as `5m`, in seconds.
#[must_use]
pub fn parse_span(text: &str) -> Option<u64> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.span().ok().filter(|_| scanner.rest().is_empty())
}

/// A line of a file.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
}

impl Place<'_> {
    fn mistake(self, (at, why): Wrong) -> Mistake {
        let column = self.text.get(..at).unwrap_or(self.text).chars().count() + 1;
        Mistake { file: self.file.to_owned(), line: self.line, column, why }
    }
}

/// What the lines until now have.
#[derive(Default)]
struct Found<'a> {
    rules: Vec<(Place<'a>, Rule, Options)>,
    targets: Vec<Target>,
    silences: Vec<Silence>,
    default: Options,
    default_places: Vec<(Place<'a>, Option<Names>)>,
}

/// Reads a line.
fn statement<'a>(
    line: &mut Scanner<'a>,
    place: Place<'a>,
    found: &mut Found<'a>,
    kept: Kept,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), Wrong> {
    line.skip_space();
    if line.is_at_end() {
        return Ok(());
    }
    let start = line.at;
    let count = found.rules.len().max(found.targets.len()).max(found.silences.len());
    if count >= RULES_MAX {
        return Err((start, format!("rules: more than {RULES_MAX}")));
    }
    let name = line.take_while(is_name_character);
    match (name, line.eat(":")) {
        ("", _) => return Err(line.wanted("a rule NAME: …, default: …, target NAME: … or silence …")),
        ("default", true) => {
            let options = options(line, true)?;
            found.default_places.push((place, options.notify.clone()));
            merge_default(&mut found.default, options).map_err(|why| (start, why))?;
        }
        (_, true) => {
            check_name("name", name).map_err(|why| (start, why))?;
            let mut rule = rule(line, name, kept)?;
            let options = options(line, false)?;
            line.end()?;
            rule.line = place.line;
            rule.source = place.text[start..line.at].trim_end().to_owned();
            found.rules.push((place, rule, options));
        }
        ("target", false) => {
            let target = target(line, variable)?;
            if found.targets.iter().any(|known| known.name() == target.name()) {
                return Err((start, format!("target {}: there is one of this name already", target.name())));
            }
            found.targets.push(target);
        }
        ("silence", false) => found.silences.push(silence(line)?),
        (name, false) => return Err(line.wanted(&format!("':' after {name}"))),
    }
    line.end()
}

fn merge_default(default: &mut Options, more: Options) -> Result<(), String> {
    fn set<T>(name: &str, known: &mut Option<T>, more: Option<T>) -> Result<(), String> {
        if known.is_some() && more.is_some() {
            return Err(format!("default: {name} is given twice"));
        }
        *known = known.take().or(more);
        Ok(())
    }
    set("notify", &mut default.notify, more.notify)?;
    set("severity", &mut default.severity, more.severity)?;
    set("every", &mut default.every_sec, more.every_sec)?;
    set("needs", &mut default.needs_percent, more.needs_percent)?;
    set("text", &mut default.text, more.text)
}

/// Reads a rule behind its name, up to its options.
fn rule(line: &mut Scanner<'_>, name: &str, kept: Kept) -> Result<Rule, Wrong> {
    line.skip_space();
    let test_at = line.at;
    let Parsed { mut test, span_sec } = test(line)?;
    let mut for_sec = 0;
    let for_at = line.at;
    if line.eat_word("for") {
        for_sec = line.span()?;
    }
    line.skip_space();
    let until_at = line.at;
    let mut until = None;
    if line.eat_word("until") {
        let comparison = line.comparison()?;
        let threshold = line.number()?;
        let for_sec = if line.eat_word("for") { Some(line.span()?) } else { None };
        let Test::Series { comparison: bad, threshold: bad_from, .. } = &test else {
            return Err((until_at, "until: only a test of a series has it".to_owned()));
        };
        let is_apart = if is_upward(*bad) { threshold <= *bad_from } else { threshold >= *bad_from };
        if is_upward(comparison) == is_upward(*bad) || !is_apart {
            let why =
                format!("until: {} {threshold} must be the other side of {} {bad_from}", comparison.sign(), bad.sign());
            return Err((until_at, why));
        }
        until = Some(Until { comparison, threshold, for_sec });
    }
    let hosts = if line.eat_word("on") { line.globs(true)? } else { Globs::default() };
    let longest_sec = until.map_or(for_sec, |until| for_sec.max(until.for_sec.unwrap_or(0)));
    let mut interval_sec = MINUTE_SEC;
    if let Test::Series { function, .. } = &mut test {
        if span_sec.max(longest_sec) > HOUR_SEC {
            interval_sec = HOUR_SEC;
        }
        *function = function.in_intervals(interval_sec);
        if let Function::Forecast { over, .. } = function
            && *over < FORECAST_POINTS
        {
            let why =
                format!("forecast: a line needs {FORECAST_POINTS} averages; these are {over}, of {interval_sec} s");
            return Err((test_at, why));
        }
        let (kept_sec, unit) =
            if interval_sec == HOUR_SEC { (kept.hours_sec, "hours") } else { (kept.minutes_sec, "minutes") };
        let reach = function.intervals() + longest_sec.div_ceil(interval_sec).max(1) - 1;
        if reach > kept_sec / interval_sec {
            let at = if longest_sec > span_sec { for_at } else { test_at };
            let why = format!("it looks back {reach} {unit}, and {} are kept", kept_sec / interval_sec);
            return Err((at, why));
        }
    }
    Ok(Rule { test, interval_sec, for_sec, until, hosts, text: None, ..Rule::own(name, String::new(), Vec::new()) })
}

/// A test, whose spans are in seconds yet, and the longest of them.
struct Parsed {
    test: Test,
    span_sec: u64,
}

fn test(line: &mut Scanner<'_>) -> Result<Parsed, Wrong> {
    let start = line.at;
    let is = |test| Ok(Parsed { test, span_sec: 0 });
    if line.eat_word("host") {
        if line.eat_word("down") {
            return is(Test::Down);
        } else if line.eat_word("late") {
            return is(Test::Late);
        }
        line.at = start;
    } else if line.eat_word("no") {
        line.skip_space();
        if line.is_glob_next() {
            return is(Test::Absent(line.globs(false)?));
        }
        line.at = start;
    }
    let function = ["avg", "min", "max", "change", "forecast"].into_iter().find(|name| {
        let rest = &line.text[line.at..];
        rest.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('('))
    });
    let (function, series, span_sec) = match function {
        Some(name) => call(line, name)?,
        None => (Function::Average(MINUTE_SEC), line.globs(false)?, 0),
    };
    let comparison = line.comparison()?;
    let threshold = line.number()?;
    Ok(Parsed { test: Test::Series { function, series, comparison, threshold }, span_sec })
}

/// Reads a function with its series and spans.
fn call(line: &mut Scanner<'_>, name: &str) -> Result<(Function, Globs, u64), Wrong> {
    let start = line.at;
    line.eat(name);
    line.skip_space();
    line.eat("(");
    let mut series = Globs::default();
    let mut spans = Vec::new();
    loop {
        line.skip_space();
        let at = line.at;
        match line.span() {
            Ok(span) if line.is_argument_end() => spans.push(span),
            _ => {
                line.at = at;
                if !spans.is_empty() {
                    return Err(line.wanted("a time such as 5m"));
                }
                line.glob(false, &mut series)?;
            }
        }
        line.skip_space();
        if !line.eat(",") {
            break;
        }
    }
    if !line.eat(")") {
        return Err(line.wanted("',' or ')'"));
    }
    let wrong = |usage: &str| Err((start, format!("{name}: it is written {usage}")));
    if series.is_empty() {
        return wrong(&format!("{name}(SERIES, …)"));
    }
    let function = match (name, &*spans) {
        ("avg", []) => Function::Average(MINUTE_SEC),
        ("avg", [span]) => Function::Average(*span),
        ("min", []) => Function::Min(MINUTE_SEC),
        ("min", [span]) => Function::Min(*span),
        ("max", []) => Function::Max(MINUTE_SEC),
        ("max", [span]) => Function::Max(*span),
        ("change", [span]) => Function::Change(*span),
        ("forecast", [over, ahead_sec]) => Function::Forecast { over: *over, ahead_sec: *ahead_sec },
        ("change", _) => return wrong("change(SERIES, TIME)"),
        ("forecast", _) => return wrong("forecast(SERIES, OVER, AHEAD)"),
        _ => return wrong(&format!("{name}(SERIES, TIME)")),
    };
    Ok((function, series, spans.first().copied().unwrap_or(0)))
}

impl Function {
    /// With its spans in intervals, rounded up, instead of seconds.
    fn in_intervals(self, interval_sec: u64) -> Self {
        let intervals = |sec: u64| sec.div_ceil(interval_sec).max(1);
        match self {
            Self::Average(sec) => Self::Average(intervals(sec)),
            Self::Min(sec) => Self::Min(intervals(sec)),
            Self::Max(sec) => Self::Max(intervals(sec)),
            Self::Change(sec) => Self::Change(intervals(sec)),
            Self::Forecast { over, ahead_sec } => Self::Forecast { over: intervals(over), ahead_sec },
        }
    }
}

/// Reads options: behind a rule each begins with a semicolon, behind `default:` the first does not.
fn options(line: &mut Scanner<'_>, is_default: bool) -> Result<Options, Wrong> {
    let mut options = Options::default();
    let mut is_first = is_default;
    loop {
        line.skip_space();
        if !is_first && !line.eat(";") {
            if !line.is_at_end() && !is_default {
                return Err(line.wanted("for, until, on, ';' or the end"));
            }
            return Ok(options);
        }
        is_first = false;
        line.skip_space();
        let at = line.at;
        let word = line.take_while(|c| c.is_ascii_alphabetic());
        line.skip_space();
        let is_new = match word {
            "notify" => {
                let mut names = Vec::new();
                loop {
                    line.skip_space();
                    let at = line.at;
                    let name = line.take_while(is_name_character);
                    if name.is_empty() {
                        return Err(line.wanted("the name of a target"));
                    }
                    names.push((at, name.to_owned()));
                    line.skip_space();
                    if !line.eat(",") {
                        break;
                    }
                }
                options.notify.replace(names).is_none()
            }
            "severity" => {
                let all = [Severity::Info, Severity::Warning, Severity::Critical];
                let severity = all.into_iter().find(|severity| line.eat_word(severity.word()));
                let severity = severity.ok_or_else(|| line.wanted("info, warning or critical"))?;
                options.severity.replace(severity).is_none()
            }
            "every" => {
                let every = if line.eat_word("never") { None } else { Some(line.span()?) };
                options.every_sec.replace(every).is_none()
            }
            "needs" => {
                let percent = line.take_while(|c| c.is_ascii_digit()).parse().ok();
                let percent = percent.filter(|percent| (1..=100).contains(percent) && line.eat("%"));
                options.needs_percent.replace(percent.ok_or_else(|| line.wanted("1% to 100%"))?).is_none()
            }
            "text" => {
                let text = line.string()?;
                if text.chars().count() > TEXT_CHARS_MAX {
                    return Err((at, format!("text: longer than {TEXT_CHARS_MAX} characters")));
                }
                options.text.replace(text).is_none()
            }
            _ => return Err((at, format!("{word:?} is no option; there are notify, severity, every, needs and text"))),
        };
        if !is_new {
            return Err((at, format!("{word}: given twice")));
        }
    }
}

fn target(line: &mut Scanner<'_>, variable: &impl Fn(&str) -> Option<String>) -> Result<Target, Wrong> {
    line.skip_space();
    let at = line.at;
    let name = line.take_while(is_name_character).to_owned();
    check_name("target", &name).map_err(|why| (at, why))?;
    if !line.eat(":") {
        return Err(line.wanted("':' after the name of the target"));
    }
    line.skip_space();
    let at = line.at;
    let word = line.take_while(|c| c.is_ascii_alphabetic());
    let mut arguments = Vec::new();
    loop {
        line.skip_space();
        if line.is_at_end() {
            break;
        }
        let at = line.at;
        let word = if line.peek() == Some('"') {
            line.string()?
        } else {
            line.take_while(|c| !c.is_whitespace() && !c.is_control()).to_owned()
        };
        if word.is_empty() {
            return Err(line.wanted("no control characters"));
        }
        arguments.push(with_variables(&word, variable).map_err(|why| (at, why))?);
    }
    Target::new(&name, word, &arguments).map_err(|why| (at, why))
}

/// Puts variables of the environment in the places of `${NAME}`.
fn with_variables(word: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut whole, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("${ without }")?;
        let value = variable(name).filter(|value| !value.is_empty());
        whole += before;
        whole += &value.ok_or_else(|| format!("${{{name}}}: not set in the environment"))?;
        rest = after;
    }
    Ok(whole + rest)
}

fn silence(line: &mut Scanner<'_>) -> Result<Silence, Wrong> {
    line.skip_space();
    let alerts = line.globs(false)?;
    let hosts = if line.eat_word("on") { line.globs(true)? } else { Globs::default() };
    line.skip_space();
    let at = line.at;
    let first = line.word();
    if let Some(from) = parse_stamp(first) {
        if !line.eat_word("to") {
            return Err(line.wanted("to and a time"));
        }
        line.skip_space();
        let at = line.at;
        let to = parse_stamp(line.word()).filter(|to| *to > from);
        let to = to.ok_or_else(|| (at, "a time after the first is wanted, such as 2026-11-29T05:00".to_owned()))?;
        return Ok(Silence { alerts, hosts, when: When::Once { from, to } });
    }
    let mut days = [true; 7];
    let mut times = first;
    let mut times_at = at;
    if first.starts_with(|c: char| c.is_ascii_alphabetic()) {
        days = [false; 7];
        for word in first.split(',') {
            let day = DAYS.iter().position(|day| *day == word);
            days[day.ok_or_else(|| (at, format!("{word:?} is no day; there are {}", DAYS.join(", "))))?] = true;
        }
        line.skip_space();
        times_at = line.at;
        times = line.word();
    }
    let minutes = times.split_once('-').and_then(|(from, to)| Some((parse_minute(from)?, parse_minute(to)?)));
    let minutes = minutes.filter(|(from, to)| from != to && *from < 1440);
    let (from_min, to_min) =
        minutes.ok_or_else(|| (times_at, "HH:MM-HH:MM is wanted, or two times such as 2026-11-29T02:00".to_owned()))?;
    line.skip_space();
    let zone_at = line.at;
    let zone = match line.is_at_end() {
        true => Zone::utc(),
        false => {
            let name = line.word();
            Zone::find(name, Path::new(ZONEINFO)).ok_or_else(|| {
                (
                    zone_at,
                    format!(
                        "{name:?} is no time zone in {ZONEINFO}, and no TZ string such as CET-1CEST,M3.5.0,M10.5.0/3"
                    ),
                )
            })?
        }
    };
    Ok(Silence { alerts, hosts, when: When::Weekly { days, from_min, to_min, zone } })
}

/// Reads `HH:MM`, up to 24:00.
fn parse_minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u32>().ok()).flatten();
    let minutes = 60 * number(hour)? + number(minute).filter(|minute| *minute < 60)?;
    (minutes <= 1440).then_some(minutes)
}

/// Reads a time: seconds since the Unix epoch, or `YYYY-MM-DDTHH:MM[:SS]` with `Z`, `+HH:MM`, `-HH:MM` or nothing, which is
/// UTC (RFC 3339).
pub(super) fn parse_stamp(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return parse_epoch(text).ok();
    }
    let (date, time) = text.split_once(['T', 't'])?;
    let number = |text: &str, digits: usize, most: i64| {
        let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_number && *number <= most)
    };
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { return None };
    let (year, month, day) = (number(year, 4, 9999)?, number(month, 2, 12)?, number(day, 2, 31)?);
    let next = |month| if month == 12 { days_before(year + 1, 1) } else { days_before(year, month + 1) };
    if year < 1970 || month == 0 || day == 0 || days_before(year, month) + day > next(month) {
        return None;
    }
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let zone_sec = match zone.get(..1) {
        None | Some("Z" | "z") if zone.len() < 2 => 0,
        Some(sign) => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let sec = 3600 * number(hours, 2, 23)? + 60 * number(minutes, 2, 59)?;
            if sign == "-" { -sec } else { sec }
        }
        None => return None,
    };
    let parts: Vec<&str> = time.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let sec = 3600 * number(hour, 2, 23)? + 60 * number(minute, 2, 59)? + number(second, 2, 59)?;
    u64::try_from(86_400 * (days_before(year, month) + day - 1) + sec - zone_sec).ok()
}

fn is_upward(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Above | Comparison::AtLeast)
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        Err(format!("{what}: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.' are wanted"))
    } else if name.starts_with(RESERVED) {
        Err(format!("{what}: names that begin with {RESERVED} are those of lizm itself"))
    } else {
        Ok(())
    }
}

/// What is left of a line.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Whether only a comment is left. It begins with # at the beginning of a word.
    fn is_at_end(&self) -> bool {
        self.rest().is_empty() || self.rest().starts_with('#')
    }

    fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn word(&mut self) -> &'a str {
        self.take_while(|character| !character.is_whitespace())
    }

    fn eat(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    /// Takes a word behind spaces, if it is the next one.
    fn eat_word(&mut self, word: &str) -> bool {
        let start = self.at;
        self.skip_space();
        let ends = |rest: &str| rest.chars().next().is_none_or(|next| next.is_whitespace() || next == ';');
        if self.rest().strip_prefix(word).is_some_and(ends) {
            self.at += word.len();
            return true;
        }
        self.at = start;
        false
    }

    /// That something else should stand here.
    fn wanted(&self, what: &str) -> Wrong {
        let found: String = self.rest().chars().take_while(|c| !c.is_whitespace()).take(20).collect();
        let found = if self.is_at_end() { "the end".to_owned() } else { format!("{found:?}") };
        (self.at, format!("{what} is wanted, not {found}"))
    }

    /// That nothing but a comment is left.
    fn end(&mut self) -> Result<(), Wrong> {
        self.skip_space();
        if self.is_at_end() { Ok(()) } else { Err(self.wanted("the end of the line")) }
    }

    fn comparison(&mut self) -> Result<Comparison, Wrong> {
        self.skip_space();
        let all = [Comparison::AtLeast, Comparison::AtMost, Comparison::Above, Comparison::Below];
        all.into_iter().find(|comparison| self.eat(comparison.sign())).ok_or_else(|| self.wanted(">, >=, < or <="))
    }

    fn number(&mut self) -> Result<f64, Wrong> {
        self.skip_space();
        let start = self.at;
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
        let is_plain = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
        let number = text.parse::<f64>().ok().filter(|number| is_plain && number.abs() <= VALUE_MAGNITUDE_MAX);
        number.ok_or_else(|| {
            self.at = start;
            self.wanted("a number")
        })
    }

    /// A whole number and `s`, `m`, `h` or `d`, as seconds.
    fn span(&mut self) -> Result<u64, Wrong> {
        self.skip_space();
        let start = self.at;
        let text = self.take_while(|c| c.is_ascii_alphanumeric());
        let unit = |unit| match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            "d" => Some(86_400),
            _ => None,
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let sec = digits.parse::<u64>().ok().zip(unit(&text[digits.len()..])).and_then(|(n, unit)| n.checked_mul(unit));
        sec.filter(|sec| (1..=SPAN_SEC_MAX).contains(sec)).ok_or_else(|| {
            self.at = start;
            self.wanted("a time such as 30s, 5m, 2h or 1d, up to 366d,")
        })
    }

    fn is_argument_end(&mut self) -> bool {
        self.skip_space();
        matches!(self.peek(), Some(',' | ')'))
    }

    fn is_glob_next(&self) -> bool {
        !self.is_at_end() && self.peek().is_some_and(|c| c == '"' || c == '!' || is_pattern_character(c))
    }

    /// A list of patterns; of hosts also `tag:KEY=VALUE`.
    fn globs(&mut self, is_of_hosts: bool) -> Result<Globs, Wrong> {
        let mut globs = Globs::default();
        loop {
            self.skip_space();
            self.glob(is_of_hosts, &mut globs)?;
            let start = self.at;
            self.skip_space();
            if !self.eat(",") {
                self.at = start;
                return Ok(globs);
            }
        }
    }

    fn glob(&mut self, is_of_hosts: bool, globs: &mut Globs) -> Result<(), Wrong> {
        let start = self.at;
        let is_negated = self.eat("!");
        let is_tag = is_of_hosts && self.eat("tag:");
        if !self.is_glob_next() {
            return Err(self.wanted("a name or a pattern"));
        }
        let mut pattern = Vec::new();
        if self.eat("\"") {
            let mut characters = self.rest().char_indices();
            let end = loop {
                match characters.next() {
                    Some((end, '"')) => break end + 1,
                    Some((_, '\\')) => pattern.extend(characters.next().map(|(_, c)| Piece::Character(c))),
                    Some((_, character)) => pattern.push(piece(character)),
                    None => return Err((start, "the second \" is missing".to_owned())),
                }
            };
            self.at += end;
        } else {
            pattern.extend(self.take_while(is_pattern_character).chars().map(piece));
        }
        if pattern.is_empty() || pattern.len() > PATTERN_CHARS_MAX {
            return Err((start, format!("a pattern has 1 to {PATTERN_CHARS_MAX} characters")));
        }
        globs.push(is_negated, is_tag, pattern);
        Ok(())
    }

    /// Text between quotes; `\` takes the next character as it is.
    fn string(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        if !self.eat("\"") {
            return Err(self.wanted("text between \"\""));
        }
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        loop {
            match characters.next() {
                Some((end, '"')) => {
                    self.at += end + 1;
                    return Ok(text);
                }
                Some((_, '\\')) => text.extend(characters.next().map(|(_, character)| character)),
                Some((_, character)) => text.push(character),
                None => return Err((start, "the second \" is missing".to_owned())),
            }
        }
    }
}

fn is_pattern_character(character: char) -> bool {
    !character.is_whitespace()
        && !character.is_control()
        && !matches!(character, ',' | '<' | '>' | ';' | '(' | ')' | '"' | '!')
}

fn piece(character: char) -> Piece {
    match character {
        '*' => Piece::Any,
        '?' => Piece::One,
        _ => Piece::Character(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variable(name: &str) -> Option<String> {
        (name == "PD_KEY").then(|| "secret".to_owned())
    }

    fn parsed(text: &str) -> Rules {
        parse(&[("file", text)], Kept::default(), variable).unwrap_or_else(|mistakes| panic!("{text}: {}", mistakes[0]))
    }

    #[cfg(feature = "tls")]
    const EXAMPLE: &str = r#"
default: notify ops; every 1d
target ops: ntfy http://ntfy.sh/lizm-4f1c
target pager: pagerduty ${PD_KEY}
disk: disk,disk:* > 90 for 10m until < 85 on web-*,!web-test
disk: disk,disk:* > 97 for 2m on web-*; severity critical; notify ops,pager     # same name: levels of one alert
disk-soon: forecast(disk,disk:*, 6h, 24h) > 99 for 30m
cpu-pinned: min(cpu, 5m) > 95                                             # every sample of five minutes
cpu: cpu > 98 for 15m on build-*                                          # of one severity the first that fits a host counts
cpu: cpu > 90 for 5m
leak: change(mem, 30m) > 20; every never
gone: host down; severity critical; notify pager
backup: no backup.ok for 2h on tag:role=db
silence disk,cpu on db-* sun 02:00-05:00 Europe/Berlin
"#;

    #[cfg(feature = "tls")]
    #[test]
    fn the_example_of_the_docs() {
        let Rules { rules, targets, silences, .. } =
            parsed(&EXAMPLE.replace("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"));
        assert_eq!((rules.len(), targets.len(), silences.len()), (9, 2, 1));
        assert!(!format!("{targets:?}").contains("secret"));
        let disk = &rules[0];
        assert_eq!(
            (disk.line, disk.source.as_str()),
            (5, "disk: disk,disk:* > 90 for 10m until < 85 on web-*,!web-test")
        );
        assert_eq!((disk.for_sec, disk.interval_sec, disk.every_sec), (600, 60, Some(86_400)));
        assert_eq!((disk.notify.as_slice(), disk.severity), (&["ops".to_owned()][..], Severity::Warning));
        assert_eq!(rules[1].source, "disk: disk,disk:* > 97 for 2m on web-*; severity critical; notify ops,pager");
        assert_eq!((rules[1].severity, rules[1].notify.len()), (Severity::Critical, 2));
        let Test::Series { function, .. } = &rules[2].test else { panic!() };
        assert_eq!((*function, rules[2].interval_sec), (Function::Forecast { over: 6, ahead_sec: 86_400 }, 3600));
        let Test::Series { function, .. } = &rules[3].test else { panic!() };
        assert_eq!((*function, rules[3].for_sec, rules[3].interval_sec), (Function::Min(5), 0, 60));
        assert_eq!(rules[6].every_sec, None);
        assert_eq!((&rules[7].test, &rules[7].notify[..]), (&Test::Down, &["pager".to_owned()][..]));
        let Test::Absent(series) = &rules[8].test else { panic!() };
        assert!(series.matches("backup.ok") && rules[8].hosts.matches_host("x", &["role=db".to_owned()]));
        // A Sunday of November at 01:30 UTC is 02:30 in Berlin.
        assert!(silences[0].when.holds(1_795_915_800) && !silences[0].when.holds(1_795_915_800 - 3600));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn forms_that_are_right() {
        for right in [
            "",
            "   # only a comment",
            "a: cpu>5",
            "a:cpu >= -1.5e3 for 90s",
            "a: min(cpu) < 1",
            "host: host > 5",
            "no: no > 5",
            "no: no x",
            "late: host late for 5m on !db",
            "a: \"odd, name; here\",b > 1; text \"say \\\"it\\\"\"",
            "a: max( cpu , mem,1h ) > 1",
            "a: min > 5",
            "a: \"5m\" > 5",
            "a: avg(\"5m\", 5m) > 5",
            "a: cpu > 5 for 1h; severity info ;every 30m;needs 80%",
            "a: cpu < 5 until > 6 for 1m on x # y",
            "a: change(mem, 23h) > 1",
            "a: cpu > 1 for 24h",
            "silence * 22:00-06:00",
            "silence a mon,tue 00:00-24:00 UTC0",
            "silence a on b 2026-11-29T02:00 to 2026-11-29T05:00:30+01:00",
            "silence a 1000 to 2000",
            "target x: exec /bin/mail -s \"a b\" root",
            "target x: telegram a b # c",
            "target x: slack http://h/%23c",
            "target: cpu > 1",
            "silence: cpu > 1",
            "default: severity info",
            "b: cpu > 1; text \"# no comment\"",
        ] {
            parsed(right);
        }
    }

    #[test]
    fn mistakes_name_their_place() {
        for (line, column, why) in [
            ("disk", 5, "':' after disk is wanted"),
            (">", 1, "a rule NAME"),
            ("ü: cpu > 1", 1, "a rule NAME"),
            ("lizm-clock: cpu > 1", 1, "those of lizm itself"),
            ("a: cpu", 7, ">, >=, < or <= is wanted, not the end"),
            ("a: cpu = 5", 8, ">, >=, < or <="),
            ("a: cpu > x", 10, "a number is wanted, not \"x\""),
            ("a: cpu > inf", 10, "a number"),
            ("a: cpu > 1e301", 10, "a number"),
            ("a: cpu > 5 for", 15, "a time such as 30s"),
            ("a: cpu > 5 for 5", 16, "a time"),
            ("a: cpu > 5 for 5 m", 16, "a time"),
            ("a: cpu > 5 for 0m", 16, "a time"),
            ("a: cpu > 5 for 5m for 6m", 19, "for, until, on, ';' or the end"),
            ("a: cpu > 5 on x until < 3", 17, "for, until, on, ';' or the end"),
            ("a: cpu > 5 until > 3", 12, "until: > 3 must be the other side of > 5"),
            ("a: cpu > 5 until < 6", 12, "until"),
            ("a: host down until < 6", 14, "until: only a test of a series"),
            ("a: cpu > 5 for 25h", 11, "it looks back 25 hours, and 24 are kept"),
            ("a: min(cpu, 30m) > 5 for 45m", 21, "it looks back 74 minutes, and 60 are kept"),
            ("a: change(cpu, 1h) > 5", 4, "it looks back 61 minutes"),
            ("a: change(cpu, 24h) > 5", 4, "it looks back 25 hours"),
            ("a: forecast(disk, 3m, 1h) > 5", 4, "a line needs 4 averages"),
            ("a: forecast(disk, 6h) > 5", 4, "forecast(SERIES, OVER, AHEAD)"),
            ("a: change(disk) > 5", 4, "change(SERIES, TIME)"),
            ("a: min(5m) > 5", 4, "min(SERIES, …)"),
            ("a: min(cpu, 5m, mem) > 5", 17, "a time such as 5m is wanted"),
            ("a: min(cpu, 5m > 5", 16, "',' or ')'"),
            ("a: \"cpu > 5", 4, "the second \" is missing"),
            ("a: cpu,,mem > 5", 8, "a name or a pattern"),
            ("a: cpu > 5; severity bad", 22, "info, warning or critical"),
            ("a: cpu > 5; needs 0%", 20, "1% to 100%"),
            ("a: cpu > 5; notify", 19, "the name of a target"),
            ("a: cpu > 5; notify nobody", 20, "notify: there is no target nobody"),
            ("a: cpu > 5; every 1d; every 2d", 23, "every: given twice"),
            ("a: cpu > 5; loud", 13, "\"loud\" is no option"),
            ("a: cpu > 5; text hello", 18, "text between"),
            ("default: notify nobody", 17, "there is no target nobody"),
            ("target x: mail root", 11, "\"mail\" is no kind of target"),
            ("target x: slack hooks.slack.com", 11, "the URL: not a URL"),
            ("target x: telegram a", 11, "telegram TOKEN CHAT"),
            ("target x: pagerduty ${NO_KEY}", 21, "${NO_KEY}: not set"),
            ("target x: pagerduty ${NO_KEY", 21, "${ without }"),
            ("silence disk", 13, "HH:MM-HH:MM is wanted"),
            ("silence disk so 02:00-03:00", 14, "\"so\" is no day"),
            ("silence disk 02:00-02:00", 14, "HH:MM-HH:MM"),
            ("silence disk 02:00-25:00", 14, "HH:MM-HH:MM"),
            ("silence disk 02:00-03:00 Europe/Nowhere", 26, "is no time zone"),
            ("silence disk 2026-02-30T00:00 to 2026-03-01T00:00", 14, "HH:MM-HH:MM"),
            ("silence disk 2026-03-30T00:00 to 2026-03-01T00:00", 34, "a time after the first"),
        ] {
            let mistakes = parse(&[("f", line)], Kept::default(), variable).expect_err(line);
            assert!(mistakes.len() == 1 && mistakes[0].why.contains(why), "{line}: {}", mistakes[0]);
            assert_eq!(mistakes[0].column, column, "{line}: {}", mistakes[0]);
        }
        let twice = parse(&[("f", "default: every 1d\ndefault: every 2d")], Kept::default(), variable).unwrap_err();
        assert_eq!(twice[0].to_string(), "f:2:1: default: every is given twice");
    }

    #[test]
    fn every_mistake_of_a_long_file_is_named() {
        let line = |number: usize| match number % 10 {
            0 => format!("rule-{number}: cpu >> 5\n"),
            _ => format!("rule-{number}: cpu,disk:* > {number} for 5m on web-*; severity critical\n"),
        };
        let text: String = (1..=10_000).map(line).collect();
        let mistakes = parse(&[("f", &text)], Kept::default(), variable).unwrap_err();
        assert_eq!(mistakes.iter().map(|m| m.line).collect::<Vec<_>>(), (10..=10_000).step_by(10).collect::<Vec<_>>());
        let text: String = (0..=RULES_MAX).map(|number| format!("a{number}: cpu > 1\n")).collect();
        assert_eq!(parse(&[("f", &text)], Kept::default(), variable).unwrap_err()[0].line, RULES_MAX + 1);
    }

    #[test]
    fn defaults_hold_wherever_they_stand() {
        let rules = parsed(
            "a: cpu > 1\nb: cpu > 1; severity info; every never\ndefault: severity critical; every 1h; needs 90%",
        )
        .rules;
        assert_eq!(
            (rules[0].severity, rules[0].every_sec, rules[0].needs_percent),
            (Severity::Critical, Some(3600), 90)
        );
        assert_eq!((rules[1].severity, rules[1].every_sec), (Severity::Info, None));
    }

    #[test]
    fn stamps() {
        for (text, stamp) in [
            ("1970-01-01T00:00", Some(0)),
            ("2026-11-29T15:12:29Z", Some(1_795_965_149)),
            ("2026-11-29T15:12:29+01:00", Some(1_795_961_549)),
            ("2024-02-29T00:00", Some(1_709_164_800)),
            ("1795965149", Some(1_795_965_149)),
            ("2023-02-29T00:00", None),
            ("2023-00-01T00:00", None),
            ("2023-01-01", None),
            ("2023-01-01T24:00", None),
            ("2023-01-01T00:00x", None),
            ("", None),
        ] {
            assert_eq!(parse_stamp(text), stamp, "{text}");
        }
    }

    #[test]
    fn a_silence_may_pass_midnight() {
        let silences = parsed("silence a sat 22:00-06:00").silences;
        // 2026-11-28 was a Saturday; 22:00 UTC.
        let begin = 1_795_903_200;
        for (now, holds) in [
            (begin - 1, false),
            (begin, true),
            (begin + 8 * 3600 - 1, true),
            (begin + 8 * 3600, false),
            (begin - 86_400, false),
        ] {
            assert_eq!(silences[0].when.holds(now), holds, "{now}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(default|target|silence|a): ?(cpu|min\\(|no|host)?[ -~ä\n]{0,60}") {
            if let Err(mistakes) = parse(&[("f", &text)], Kept::default(), variable) {
                prop_assert!(!mistakes.is_empty());
            }
        }
    }
}
