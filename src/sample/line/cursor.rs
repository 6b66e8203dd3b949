//! A cursor over a line, which reads names with escapes, values and strings.

use std::borrow::Cow;

use super::number;

/// A position in a line.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of a line.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips a byte. All callers have seen that it is ASCII.
    pub(super) fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Reads a name up to one of `ends` that is not escaped, and unescapes it.
    pub(super) fn name(&mut self, ends: u8) -> Cow<'a, str> {
        let start = self.at;
        self.skip_to(ends | BACKSLASH);
        if self.peek() == Some(b'\\') {
            self.at = start;
            return self.escaped_name(ends);
        }
        Cow::Borrowed(&self.text[start..self.at])
    }

    /// Slow path of [`Cursor::name`] for a name with a backslash.
    #[cold]
    fn escaped_name(&mut self, ends: u8) -> Cow<'a, str> {
        let (bytes, from) = (self.text.as_bytes(), self.at);
        while let Some(byte) = bytes.get(self.at).copied().filter(|byte| !is_of(*byte, ends)) {
            let escapes = byte == b'\\' && bytes.get(self.at + 1).is_some_and(|next| is_special(char::from(*next)));
            self.at += if escapes { 2 } else { 1 };
        }
        Cow::Owned(unescape(&self.text[from..self.at]))
    }

    /// Reads a number by the fast path of [`number::short`]; `None` if the field goes on after it.
    pub(super) fn short_number(&mut self) -> Option<f64> {
        let (number, length) = number::short(&self.text.as_bytes()[self.at..])?;
        let is_whole = self.text.as_bytes().get(self.at + length).is_none_or(|byte| is_of(*byte, COMMA | SPACE));
        is_whole.then(|| {
            self.at += length;
            number
        })
    }

    /// Reads up to a comma or a space.
    pub(super) fn value(&mut self) -> &'a str {
        let start = self.at;
        self.skip_to(COMMA | SPACE);
        &self.text[start..self.at]
    }

    fn skip_to(&mut self, ends: u8) {
        while self.peek().is_some_and(|byte| !is_of(byte, ends)) {
            self.at += 1;
        }
    }

    /// Reads a quoted string, and unescapes it; `None` if it is not closed.
    pub(super) fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at + 1;
        self.skip_string()?;
        let quoted = &self.text[start..self.at - 1];
        if !quoted.contains('\\') {
            return Some(Cow::Borrowed(quoted));
        }
        let (mut plain, mut characters) = (String::with_capacity(quoted.len()), quoted.chars().peekable());
        while let Some(character) = characters.next() {
            let is_escape = character == '\\' && matches!(characters.peek(), Some('"' | '\\'));
            plain.push(if is_escape { characters.next().unwrap_or(character) } else { character });
        }
        Some(Cow::Owned(plain))
    }

    /// Skips a quoted string; `None` if it is not closed.
    pub(super) fn skip_string(&mut self) -> Option<()> {
        self.next();
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.at += usize::from(!self.is_at_end()),
                _ => {}
            }
        }
    }
}

/// Classes of delimiters, a bit each.
pub(super) const COMMA: u8 = 1;
pub(super) const SPACE: u8 = 2;
const EQUALS: u8 = 4;
const BACKSLASH: u8 = 8;

/// Delimiters after the name of a tag or a field, and after the value of a tag.
pub(super) const END_OF_KEY: u8 = COMMA | SPACE | EQUALS;

/// The class of each byte. One lookup serves every set of delimiters.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    classes[b',' as usize] = COMMA;
    classes[b' ' as usize] = SPACE;
    classes[b'=' as usize] = EQUALS;
    classes[b'\\' as usize] = BACKSLASH;
    classes
};

fn is_of(byte: u8, classes: u8) -> bool {
    CLASSES[usize::from(byte)] & classes != 0
}

/// Whether a backslash escapes a character.
pub(super) fn is_special(character: char) -> bool {
    matches!(character, ',' | '=' | ' ' | '\\')
}

fn unescape(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let is_escape = character == '\\' && characters.peek().copied().is_some_and(is_special);
        plain.push(if is_escape { characters.next().unwrap_or(character) } else { character });
    }
    plain
}
