//! The words of a line of rules: names, patterns, numbers, times.

use super::super::event::Comparison;
use super::super::globs::{Globs, Piece};
use super::super::zone::days_before;
use crate::sample::{VALUE_MAGNITUDE_MAX, parse_epoch};

/// Characters of a pattern: as many as a host's name has bytes.
const PATTERN_CHARS_MAX: usize = 255;
/// Longest time of any kind.
const SPAN_SEC_MAX: u64 = 366 * 86_400;

/// A mistake in a line: the byte at which it is, and what is wrong.
pub(super) type Wrong = (usize, String);

/// What is left of a line.
pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    /// The byte at which the next word begins.
    pub(super) at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Whether only a comment is left. It begins with # at the beginning of a word.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest().is_empty() || self.rest().starts_with('#')
    }

    pub(super) fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    pub(super) fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    pub(super) fn word(&mut self) -> &'a str {
        self.take_while(|character| !character.is_whitespace())
    }

    pub(super) fn eat(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    /// Takes a word behind spaces, if it is the next one.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
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
    pub(super) fn wanted(&self, what: &str) -> Wrong {
        let found: String = self.rest().trim_start().chars().take_while(|c| !c.is_whitespace()).take(20).collect();
        let found = if self.is_at_end() { "the end".to_owned() } else { format!("{found:?}") };
        (self.at, format!("{what} is wanted, not {found}"))
    }

    /// That nothing but a comment is left.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        self.skip_space();
        if self.is_at_end() { Ok(()) } else { Err(self.wanted("the end of the line")) }
    }

    pub(super) fn comparison(&mut self) -> Result<Comparison, Wrong> {
        self.skip_space();
        let all = [Comparison::AtLeast, Comparison::AtMost, Comparison::Above, Comparison::Below];
        all.into_iter().find(|comparison| self.eat(comparison.sign())).ok_or_else(|| self.wanted(">, >=, < or <="))
    }

    pub(super) fn number(&mut self) -> Result<f64, Wrong> {
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
    pub(super) fn span(&mut self) -> Result<u64, Wrong> {
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

    pub(super) fn is_argument_end(&mut self) -> bool {
        self.skip_space();
        matches!(self.peek(), Some(',' | ')'))
    }

    pub(super) fn is_glob_next(&self) -> bool {
        !self.is_at_end() && self.peek().is_some_and(|c| c == '"' || c == '!' || is_pattern_character(c))
    }

    /// A list of patterns; of hosts also `tag:KEY=VALUE`.
    pub(super) fn globs(&mut self, is_of_hosts: bool) -> Result<Globs, Wrong> {
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

    pub(super) fn glob(&mut self, is_of_hosts: bool, globs: &mut Globs) -> Result<(), Wrong> {
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
    pub(super) fn string(&mut self) -> Result<String, Wrong> {
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

/// Reads `HH:MM`, up to 24:00.
pub(super) fn parse_minute(text: &str) -> Option<u32> {
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

pub(super) fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}
