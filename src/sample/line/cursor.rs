//! A place in a line, and what can be read there: names with their escapes, values, strings.

use std::borrow::Cow;

use super::number;

/// A place in a line.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The start of a line.
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

    /// Goes past a byte, which is ASCII wherever this is called.
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

    /// A name up to one of its ends that no backslash precedes, without its backslashes.
    pub(super) fn name(&mut self, ends: u8) -> Cow<'a, str> {
        let start = self.at;
        self.skip_to(ends | BACKSLASH);
        if self.peek() == Some(b'\\') {
            self.at = start;
            return self.escaped_name(ends);
        }
        Cow::Borrowed(&self.text[start..self.at])
    }

    /// The same of a name that has a backslash, which few have.
    #[cold]
    fn escaped_name(&mut self, ends: u8) -> Cow<'a, str> {
        let (bytes, from) = (self.text.as_bytes(), self.at);
        while let Some(byte) = bytes.get(self.at).copied().filter(|byte| !is_of(*byte, ends)) {
            let escapes = byte == b'\\' && bytes.get(self.at + 1).is_some_and(|next| is_special(char::from(*next)));
            self.at += if escapes { 2 } else { 1 };
        }
        Cow::Owned(unescape(&self.text[from..self.at]))
    }

    /// A number of the short kind that [`number::short`] reads, where nothing else follows in its field.
    pub(super) fn short_number(&mut self) -> Option<f64> {
        let (number, length) = number::short(&self.text.as_bytes()[self.at..])?;
        let is_whole = self.text.as_bytes().get(self.at + length).is_none_or(|byte| is_of(*byte, COMMA | SPACE));
        is_whole.then(|| {
            self.at += length;
            number
        })
    }

    /// Everything up to a comma or a space.
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

    /// Goes past a quoted string.
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

/// Kinds of bytes that end something, a bit each.
pub(super) const COMMA: u8 = 1;
pub(super) const SPACE: u8 = 2;
const EQUALS: u8 = 4;
const BACKSLASH: u8 = 8;

/// What ends the name of a tag or a field, and the value of a tag.
pub(super) const END_OF_KEY: u8 = COMMA | SPACE | EQUALS;

/// The kind of each byte: a look at it costs the same for every set of ends.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    kinds[b',' as usize] = COMMA;
    kinds[b' ' as usize] = SPACE;
    kinds[b'=' as usize] = EQUALS;
    kinds[b'\\' as usize] = BACKSLASH;
    kinds
};

fn is_of(byte: u8, kinds: u8) -> bool {
    KINDS[usize::from(byte)] & kinds != 0
}

/// What a backslash takes the meaning from.
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
