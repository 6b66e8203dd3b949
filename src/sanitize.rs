//! The one way out for text that others have chosen: names of hosts and labels, answers of receivers, errors of
//! libraries.
//!
//! Such text reaches a terminal, the log and messages only through this module. The page has the same rule in
//! `dashboard/text.js`.

/// Most characters of a message: enough for a sentence with a URL and two names in it.
pub const MESSAGE_CHARS_MAX: usize = 2000;

/// Replaces every character that steers a terminal, ends a line, turns the direction of writing or cannot be seen.
///
/// Line breaks and tabs become spaces, all others U+FFFD. The answer has as many characters as `text`.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars().map(replaced).collect()
}

/// A message of one line: [`visible`], cut with an ellipsis after `chars_max` characters.
#[must_use]
pub fn message(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => visible(&text[..end]) + "…",
        None => visible(text),
    }
}

/// The character to show for a character.
fn replaced(character: char) -> char {
    match character {
        '\t' | '\n' | '\r' => ' ',
        _ if character.is_control() || is_unseen(character) => char::REPLACEMENT_CHARACTER,
        _ => character,
    }
}

/// Whether a character ends a line, turns the direction of writing or cannot be seen: Unicode's
/// `Default_Ignorable_Code_Point`, its separators of lines and paragraphs, and its marks of annotations.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal_ends_a_line_or_hides() {
        assert_eq!(visible("a\u{1b}[2J\r\nb\t\u{7f}"), "a\u{fffd}[2J  b \u{fffd}");
        let replaced = [
            0x00, 0x07, 0x1b, 0x80, 0x85, 0x9b, 0xad, 0x61c, 0x200b, 0x200d, 0x200e, 0x2028, 0x2029, 0x202a, 0x202e,
            0x2060, 0x2066, 0x2069, 0x3164, 0xfe0f, 0xfeff, 0xfff9, 0xe0041,
        ];
        for code in replaced {
            let text = format!("x{}y", char::from_u32(code).unwrap());
            assert_eq!(visible(&text), "x\u{fffd}y", "{code:x}");
        }
        for text in ["jarvis ä 漢", "e\u{301}", "עברית", "العربية", "हिन्दी", "👩", "a\u{a0}b", "\u{fffd}"]
        {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn a_message_has_an_end() {
        assert_eq!(message("äöü", 3), "äöü");
        assert_eq!(message("äöü\n", 3), "äöü…");
        assert_eq!(message("\u{202e}ab", 2), "\u{fffd}a…");
        assert_eq!(message("", 0), "");
    }
}
