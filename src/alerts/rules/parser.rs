//! Text -> rules: a function for each phrase of the grammar. `lexer.rs` reads the words.

use std::collections::HashSet;
use std::path::Path;

use super::super::event::{Comparison, Severity};
use super::super::globs::Globs;
use super::super::notify::Target;
use super::super::zone::Zone;
use super::lexer::{Lexer, Wrong, is_name_character, parse_minute, parse_stamp};
use super::{
    Function, HOUR_SEC, MINUTE_SEC, Mistake, NEEDS_PERCENT, RULES_MAX, Retention, Rule, Rules, Silence, TEXT_BYTES_MAX,
    Test, Until, When,
};

/// Bytes of a name of a rule or target: it stands in `/metrics`, and in messages.
const NAME_BYTES_MAX: usize = 64;
/// Characters of `text`: a message of Slack or Telegram holds some thousands for all its alerts.
const TEXT_CHARS_MAX: usize = 500;
/// Points that a line through averages needs.
const FORECAST_POINTS: u64 = 4;
/// The alerts of the receiver itself begin with this.
const RESERVED: &str = "lizm-";
const ZONEINFO: &str = "/usr/share/zoneinfo";
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

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
    kept: Retention,
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
            let mut lexer = Lexer { text: line, at: 0 };
            let place = Place { file, line: index + 1, text: line };
            if let Err(wrong) = statement(&mut lexer, place, &mut found, kept, &variable) {
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
        rule.needs_percent = options.needs_percent.or(default.needs_percent).unwrap_or(NEEDS_PERCENT);
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
    let mut lexer = Lexer { text, at: 0 };
    lexer.span().ok().filter(|_| lexer.rest().is_empty())
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
    line: &mut Lexer<'a>,
    place: Place<'a>,
    found: &mut Found<'a>,
    kept: Retention,
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
fn rule(line: &mut Lexer<'_>, name: &str, kept: Retention) -> Result<Rule, Wrong> {
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
    let kept_sec = kept.hours_sec.max(kept.minutes_sec);
    if matches!(&test, Test::Absent(series) if for_sec > kept_sec && !series.is_literal()) {
        let why = format!("a pattern finds what is kept, {} hours: for more, name the series", kept_sec / HOUR_SEC);
        return Err((for_at, why));
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
    Ok(Rule { interval_sec, for_sec, until, hosts, ..Rule::new(name, test) })
}

/// A test, whose spans are in seconds yet, and the longest of them.
struct Parsed {
    test: Test,
    span_sec: u64,
}

fn test(line: &mut Lexer<'_>) -> Result<Parsed, Wrong> {
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
fn call(line: &mut Lexer<'_>, name: &str) -> Result<(Function, Globs, u64), Wrong> {
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
fn options(line: &mut Lexer<'_>, is_default: bool) -> Result<Options, Wrong> {
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

fn target(line: &mut Lexer<'_>, variable: &impl Fn(&str) -> Option<String>) -> Result<Target, Wrong> {
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
    let (mut arguments, mut secrets) = (Vec::new(), Vec::new());
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
        arguments.push(with_variables(&word, variable, &mut secrets).map_err(|why| (at, why))?);
    }
    Target::new(&name, word, &arguments, secrets).map_err(|why| (at, why))
}

/// Puts variables of the environment in the places of `${NAME}`, and their values into `secrets`.
fn with_variables(
    word: &str,
    variable: &impl Fn(&str) -> Option<String>,
    secrets: &mut Vec<String>,
) -> Result<String, String> {
    let (mut whole, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("${ without }")?;
        let value = variable(name).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("${{{name}}}: not set in the environment"))?;
        whole += before;
        whole += &value;
        secrets.push(value);
        rest = after;
    }
    Ok(whole + rest)
}

fn silence(line: &mut Lexer<'_>) -> Result<Silence, Wrong> {
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
    line.at = at;
    let is_day_next = line.peek().is_some_and(char::is_alphabetic);
    let mut days = [!is_day_next; 7];
    let mut has_more = is_day_next;
    while has_more {
        line.skip_space();
        let at = line.at;
        let word = line.take_while(char::is_alphanumeric);
        let day = DAYS.iter().position(|day| *day == word);
        days[day.ok_or_else(|| (at, format!("{word:?} is no day; there are {}", DAYS.join(", "))))?] = true;
        line.skip_space();
        has_more = line.eat(",");
    }
    let times_at = line.at;
    let times = line.word();
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

fn is_upward(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Above | Comparison::AtLeast)
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

#[cfg(test)]
mod tests;
