//! Splits a text of line protocol into its lines.

use super::cursor::is_special;
use crate::sample::without_bom;

/// Iterates over the lines of a text that are neither empty nor a comment. Each comes with its number, counted from 1. A
/// line that is not UTF-8 comes as an error message.
///
/// A line ends at a newline outside of a quoted string. The published reference allows no newline in a string, but
/// InfluxDB takes it. If a string is never closed, that string and all later ones end with their lines. A byte order mark
/// at the start of the text is skipped.
#[must_use]
pub fn lines(text: &[u8]) -> Lines<'_> {
    let text = without_bom(text);
    let next_quote = memchr::memchr(b'"', text).unwrap_or(usize::MAX);
    Lines { text, utf8: str::from_utf8(text).ok(), at: 0, number: 0, next_quote, has_open_string: false }
}

/// Whether a text has more than `most` [`lines`].
#[must_use]
pub fn has_more_than(text: &[u8], most: usize) -> bool {
    // There is at most one more line than newlines, and newlines are counted much faster.
    memchr::memchr_iter(b'\n', text).count() >= most && lines(text).nth(most).is_some()
}

/// The iterator that [`lines`] returns.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    text: &'a [u8],
    /// `text` if all of it is UTF-8. One check of the whole text costs a fraction of a check of each line.
    utf8: Option<&'a str>,
    at: usize,
    number: usize,
    /// Position of the first quote at or after `at`; `usize::MAX` if there is none.
    next_quote: usize,
    /// Whether a search for the end of a string has reached the end of the text. It is made once, so that many open
    /// strings do not take quadratic time.
    has_open_string: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, Result<&'a str, String>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.text.len() {
            let (start, number) = (self.at, self.number + 1);
            let end = self.end();
            self.number += 1;
            self.at = end + 1;
            let line = &self.text[start..end];
            let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
            if first.is_some_and(|first| *first != b'#') {
                let utf8 = self.utf8.map_or_else(|| utf8(line.trim_ascii()), |text| Ok(text[start..end].trim_ascii()));
                return Some((number, utf8));
            }
        }
        None
    }
}

impl Lines<'_> {
    /// Position of the end of the line that begins at `at`.
    fn end(&mut self) -> usize {
        let rest = &self.text[self.at..];
        let newline = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        if self.at + newline < self.next_quote {
            return self.at + newline;
        }
        let quoted = if self.has_open_string { None } else { end_of_quoted_line(rest) };
        self.has_open_string |= quoted.is_none();
        let length = quoted.unwrap_or(newline);
        self.number += memchr::memchr_iter(b'\n', &rest[..length]).count();
        let end = self.at + length;
        self.next_quote = memchr::memchr(b'"', &self.text[end..]).map_or(usize::MAX, |quote| end + quote);
        end
    }
}

fn utf8(line: &[u8]) -> Result<&str, String> {
    str::from_utf8(line).map_err(|error| format!("line: is not UTF-8 at byte {}", error.valid_up_to()))
}

/// Position of the end of a line that has a quote; `None` if a string is still open where the text ends.
///
/// A string begins with a quote directly after the equals sign of a field, unless a backslash precedes that sign.
fn end_of_quoted_line(text: &[u8]) -> Option<usize> {
    let start = text.len() - text.trim_ascii_start().len();
    if text.get(start) == Some(&b'#') {
        return Some(memchr::memchr(b'\n', text).unwrap_or(text.len()));
    }
    let (mut at, mut in_fields, mut in_string, mut is_value) = (start, false, false, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if in_string || text.get(at + 1).is_some_and(|next| is_special(char::from(*next))) => at += 1,
            b'"' if in_string => in_string = false,
            _ if in_string => {}
            b'\n' => return Some(at),
            b' ' => in_fields = true,
            b'"' if is_value => in_string = true,
            _ => {}
        }
        is_value = *byte == b'=' && in_fields && !in_string;
        at += 1;
    }
    (!in_string).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_end_where_a_newline_is_not_in_a_string() {
        let cases: &[(&'static str, &[(usize, &str)])] = &[
            ("", &[]),
            ("\n \n\r\n# a comment with \"one quote\n", &[]),
            ("a\nb", &[(1, "a"), (2, "b")]),
            ("\u{feff}", &[]),
            ("\u{feff}#c\na", &[(2, "a")]),
            ("\u{feff}m s=\"\n\"\nb", &[(1, "m s=\"\n\""), (3, "b")]),
            ("a\n\u{feff}b", &[(1, "a"), (2, "\u{feff}b")]),
            ("\n a \r\n#c\nb\n", &[(2, "a"), (4, "b")]),
            ("# \"x\"\nm s=\"a\nb\",v=1\nc", &[(2, "m s=\"a\nb\",v=1"), (4, "c")]),
            (" #m s=\"\nm s=\"a\nb\"\n#\"", &[(2, "m s=\"a\nb\"")]),
            ("m,host=h s=\"a\nb\",v=1\nc", &[(1, "m,host=h s=\"a\nb\",v=1"), (3, "c")]),
            ("m,host=h s=\"a\\\"\nb\"\nc", &[(1, "m,host=h s=\"a\\\"\nb\""), (3, "c")]),
            ("m,host=h s=\"open\nc", &[(1, "m,host=h s=\"open"), (2, "c")]),
            ("m,host=h a\\=\"b=1\nm c=\"x\"\nd", &[(1, "m,host=h a\\=\"b=1"), (2, "m c=\"x\""), (3, "d")]),
            ("  m,host=\"h v=1\nm c=\"x\"\nd", &[(1, "m,host=\"h v=1"), (2, "m c=\"x\""), (3, "d")]),
            ("m,host=h s=\"a\\\\\"\nc", &[(1, "m,host=h s=\"a\\\\\""), (2, "c")]),
            ("m \"v\\\nc", &[(1, "m \"v\\"), (2, "c")]),
            ("m,host=h s=\"x\nm s=\"a\nb", &[(1, "m,host=h s=\"x\nm s=\"a"), (3, "b")]),
            ("m,host=h s=\"x\nm s=\"y\" z=\"\nb", &[(1, "m,host=h s=\"x"), (2, "m s=\"y\" z=\""), (3, "b")]),
            ("m,host=\"h\n v=1\"\nc", &[(1, "m,host=\"h"), (2, "v=1\""), (3, "c")]),
        ];
        for (text, expected) in cases {
            let found: Vec<(usize, &str)> =
                lines(text.as_bytes()).map(|(number, line)| (number, line.unwrap())).collect();
            assert_eq!(found, *expected, "{text:?}");
        }
    }

    /// Each of these lines opens a string that no later line closes. A search to the end of the text for each of them
    /// would take minutes.
    #[test]
    fn many_open_strings_are_searched_once() {
        let text = ["a=\"b c=\"\n".repeat(200_000), "x".repeat(4 << 20)].concat();
        assert_eq!(lines(text.as_bytes()).count(), 200_001);
    }

    proptest! {
        #[test]
        fn a_comment_in_front_changes_nothing(
            comment in "[ \\t]?#[ =,\"\\\\aü]{0,8}", text in "([#m] s=\"[a\\n]{0,2}\"?,v=1\\n?){0,4}"
        ) {
            let with_comment = format!("{comment}\n{text}");
            let rest: Vec<_> = lines(with_comment.as_bytes()).map(|(number, line)| (number - 1, line)).collect();
            prop_assert_eq!(rest, lines(text.as_bytes()).collect::<Vec<_>>());
        }
    }
}
