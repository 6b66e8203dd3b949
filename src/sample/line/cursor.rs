//! A place in a line, and what can be read there: names with their escapes, values, strings.

use std::borrow::Cow;

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
    pub(super) fn name(&mut self, is_end: impl Fn(u8) -> bool) -> Cow<'a, str> {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| byte == b'\\' || is_end(byte)).unwrap_or(rest.len());
        if rest.as_bytes().get(length) == Some(&b'\\') {
            return self.escaped_name(is_end);
        }
        self.at += length;
        Cow::Borrowed(&rest[..length])
    }

    /// The same of a name that has a backslash, which few have.
    #[cold]
    fn escaped_name(&mut self, is_end: impl Fn(u8) -> bool) -> Cow<'a, str> {
        let (bytes, from) = (self.text.as_bytes(), self.at);
        while let Some(byte) = bytes.get(self.at).copied().filter(|byte| !is_end(*byte)) {
            let escapes = byte == b'\\' && bytes.get(self.at + 1).is_some_and(|next| is_special(char::from(*next)));
            self.at += if escapes { 2 } else { 1 };
        }
        Cow::Owned(unescape(&self.text[from..self.at]))
    }

    /// Everything up to a comma or a space.
    pub(super) fn value(&mut self) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
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

/// What ends the name of a tag or a field, and the value of a tag.
pub(super) fn is_end_of_key(byte: u8) -> bool {
    matches!(byte, b',' | b'=' | b' ')
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
