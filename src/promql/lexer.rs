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

/// The units of spans, in milliseconds. Those of two letters come first.
const UNITS: [(&str, i64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
    ("y", 365 * 86_400_000),
];

/// Reads a span such as `5m` or `1h30m`, in milliseconds.
fn parse_span(text: &str) -> Option<i64> {
    let (mut rest, mut sum) = (text, 0_i64);
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, ms) = UNITS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        sum = sum.checked_add(number.parse::<i64>().ok()?.checked_mul(*ms)?)?;
        rest = &behind[unit.len()..];
    }
    (sum > 0).then_some(sum)
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
                let token = match word.to_ascii_lowercase().as_str() {
                    "inf" => Token::Number(f64::INFINITY),
                    "nan" => Token::Number(f64::NAN),
                    _ => Token::Word(word.to_owned()),
                };
                (token, word.len())
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
    let wrong = |text: &str| format!("bad number or duration {:?}", cut(text));
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
    let word = &rest[..end];
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        #[expect(clippy::cast_precision_loss, reason = "a number is an f64")]
        let number = u64::from_str_radix(digits, 16).map(|number| number as f64);
        return number.map(|number| (Token::Number(number), end)).map_err(|_| wrong(word));
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
        Ok(number) if is_plain => Ok((Token::Number(number), end)),
        _ => Err(wrong(word)),
    }
}

/// Reads a text in quotes, and says how many bytes it has with them.
fn text(rest: &str, quote: char) -> Result<(Token, usize), String> {
    let (mut text, mut characters) = (String::new(), rest.chars());
    characters.next();
    while let Some(character) = characters.next() {
        match character {
            _ if character == quote => return Ok((Token::Text(text), rest.len() - characters.as_str().len())),
            '\\' if quote != '`' => text.push(escaped(&mut characters).ok_or("unknown escape sequence in a string")?),
            '\n' if quote != '`' => break,
            other => text.push(other),
        }
    }
    Err("unterminated quoted string".to_owned())
}

/// What the characters behind a backslash stand for.
fn escaped(characters: &mut Chars<'_>) -> Option<char> {
    let letter = characters.next()?;
    let mut code = |digits: usize| {
        let code: String = characters.take(digits).collect();
        u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
    };
    match letter {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'x' => code(2),
        'u' => code(4),
        '\\' | '"' | '\'' => Some(letter),
        _ => None,
    }
}
