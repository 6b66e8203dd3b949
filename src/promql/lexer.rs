//! The words of a query.

use std::str::Chars;

use super::Error;

/// A word of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A number without a unit.
    Number(f64),
    /// A span, in milliseconds.
    Span(i64),
    /// A text, without its quotes.
    Text(String),
    /// A name or a keyword.
    Word(String),
    /// A sign.
    Sign(&'static str),
    /// The end of the query.
    End,
}

impl Token {
    /// As an error shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Number(number) => format!("number {number}"),
            Self::Span(ms) => format!("duration of {ms} ms"),
            Self::Text(text) => format!("string {:?}", cut(text)),
            Self::Word(word) => format!("{:?}", cut(word)),
            Self::Sign(sign) => format!("{sign:?}"),
            Self::End => "end of input".to_owned(),
        }
    }
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Signs, those of two characters first.
const SIGNS: [&str; 24] = [
    "==", "!=", ">=", "<=", "=~", "!~", "(", ")", "{", "}", "[", "]", ",", "+", "-", "*", "/", "%", "^", "=", "<", ">",
    ":", "@",
];

/// The units of spans, in milliseconds, in the order in which they may stand.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// The longest span, in years, as Prometheus has it: no sum of a time and spans passes what a number holds.
const YEARS_MAX: i64 = 292;

/// Reads a span such as `5m` or `1h30m`, in milliseconds.
fn parse_span(text: &str) -> Option<i64> {
    let (mut rest, mut sum, mut units) = (text, 0_i64, UNITS.iter());
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (name, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let (_, ms) = units.find(|(unit, _)| *unit == name)?;
        sum = sum.checked_add(number.parse::<i64>().ok()?.checked_mul(*ms)?)?;
        rest = behind;
    }
    (1..=YEARS_MAX * UNITS[0].1).contains(&sum).then_some(sum)
}

/// Reads the milliseconds of a span or a number of seconds with fractions, as `step` and `timeout` have them.
#[must_use]
pub fn parse_seconds(text: &str) -> Option<i64> {
    let seconds = text.parse::<f64>().ok().filter(|sec| sec.is_finite() && *sec > 0.0 && *sec < 1e11);
    #[expect(clippy::cast_possible_truncation, reason = "it is below 1e14")]
    seconds.map(|sec| (sec * 1000.0).round() as i64).or_else(|| parse_span(text))
}

/// Splits a query into words, each with the byte that it begins at.
pub(super) fn tokens(query: &str) -> Result<Vec<(Token, usize)>, Error> {
    let mut tokens = Vec::new();
    let mut rest = query;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix('#') {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
            continue;
        }
        let at = query.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, at));
            return Ok(tokens);
        };
        let bad = |why: String| Error::bad_query(query, at, &why);
        let (token, length) = match first {
            '"' | '\'' | '`' => text(rest, first).map_err(bad)?,
            '0'..='9' | '.' => number(rest).map_err(bad)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
                (Token::Word(word.to_owned()), word.len())
            }
            other => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => (Token::Sign(sign), sign.len()),
                None => return Err(bad(format!("unexpected character {other:?}"))),
            },
        };
        tokens.push((token, at));
        rest = &rest[length..];
    }
}

/// Reads a number or a span, and says how many bytes it has.
fn number(rest: &str) -> Result<(Token, usize), String> {
    let wrong = |text: &str| format!("bad number or duration {:?}; a duration is of up to {YEARS_MAX}y", cut(text));
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
    let word = &rest[..end];
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return radix(digits, 16).map(|number| (Token::Number(number), end)).ok_or_else(|| wrong(word));
    }
    // As Prometheus has it, by Go's rules.
    if let Some(number) = word.strip_prefix('0').and_then(|digits| radix(digits, 8)) {
        return Ok((Token::Number(number), end));
    }
    if let Some(ms) = parse_span(word) {
        return Ok((Token::Span(ms), end));
    }
    // The sign of an exponent is part of the number.
    let signed = word.ends_with(['e', 'E']).then(|| rest[end..].strip_prefix(['+', '-'])).flatten();
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let end = signed.map_or(end, |signed| end + 1 + digits(signed));
    let word = &rest[..end];
    let is_plain = word.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match word.parse::<f64>() {
        Ok(number) if is_plain && number.is_finite() => Ok((Token::Number(number), end)),
        _ => Err(wrong(word)),
    }
}

/// Reads the digits of a whole number.
fn radix(digits: &str, radix: u32) -> Option<f64> {
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    #[expect(clippy::cast_precision_loss, reason = "a number is an f64")]
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number).map(|number| number as f64)
}

/// Reads a text in quotes, and says how many bytes it has with them.
fn text(rest: &str, quote: char) -> Result<(Token, usize), String> {
    let (mut text, mut characters) = (Vec::new(), rest.chars());
    characters.next();
    while let Some(character) = characters.next() {
        match character {
            _ if character == quote => {
                let text = String::from_utf8(text).map_err(|_| "a string that is not UTF-8")?;
                return Ok((Token::Text(text), rest.len() - characters.as_str().len()));
            }
            '\\' if quote != '`' => {
                text.extend(escaped(&mut characters, quote).ok_or("unknown escape sequence in a string")?);
            }
            '\n' if quote != '`' => break,
            other => text.extend(other.to_string().bytes()),
        }
    }
    Err("unterminated quoted string".to_owned())
}

/// The bytes that the characters behind a backslash stand for, by Go's rules.
fn escaped(characters: &mut Chars<'_>, quote: char) -> Option<Vec<u8>> {
    let rest = characters.as_str();
    let letter = characters.next()?;
    let mut code = |at: usize, digits: usize, radix: u32| {
        let code = rest.get(at..at + digits).filter(|code| code.chars().all(|digit| digit.is_digit(radix)))?;
        *characters = rest[at + digits..].chars();
        u32::from_str_radix(code, radix).ok()
    };
    let byte = match letter {
        'a' => 7,
        'b' => 8,
        't' => b'\t',
        'n' => b'\n',
        'v' => 11,
        'f' => 12,
        'r' => b'\r',
        'x' => u8::try_from(code(1, 2, 16)?).ok()?,
        '0'..='7' => u8::try_from(code(0, 3, 8)?).ok()?,
        'u' => return Some(char::from_u32(code(1, 4, 16)?)?.to_string().into()),
        'U' => return Some(char::from_u32(code(1, 8, 16)?)?.to_string().into()),
        '\\' => b'\\',
        other if other == quote => u8::try_from(quote).ok()?,
        _ => return None,
    };
    Some(vec![byte])
}
