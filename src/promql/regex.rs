//! Regular expressions of matchers, always against the whole text. A match takes no longer than the size of an expression
//! times that of the text.

#[cfg(feature = "regex")]
use regex_lite::RegexBuilder;

/// Most bytes of an expression: a list of some hundred hosts fits.
#[cfg(feature = "regex")]
const BYTES_MAX: usize = 16 << 10;
/// Most bytes of it once it is compiled, some 32 for each character. Each group that captures costs as much again.
#[cfg(feature = "regex")]
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Most groups within each other.
#[cfg(feature = "regex")]
const DEPTH_MAX: u32 = 32;

/// A regular expression.
#[cfg(feature = "regex")]
#[derive(Debug, Clone)]
pub(super) struct Regex(regex_lite::Regex);

/// There is none without the feature.
#[cfg(not(feature = "regex"))]
#[derive(Debug, Clone)]
pub(super) enum Regex {}

#[cfg(feature = "regex")]
impl Regex {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, or not known here.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("longer than {BYTES_MAX} bytes, the limit"));
        }
        let build = |text: &str, bytes_max: usize| {
            let built = RegexBuilder::new(text).size_limit(bytes_max).nest_limit(DEPTH_MAX).build();
            built.map_err(|error| match error.to_string() {
                why if why.contains("size limit") => {
                    format!("larger than {COMPILED_BYTES_MAX} bytes with all repetitions and groups, the limit")
                }
                why if why.contains("nesting") => format!("more than {DEPTH_MAX} groups within each other, the limit"),
                why => why,
            })
        };
        // By itself first, so that no parenthesis of it ends what the anchors stand around.
        let groups = build(text, COMPILED_BYTES_MAX)?.captures_len();
        build(&format!("^(?:{text})$"), COMPILED_BYTES_MAX / groups).map(Self)
    }

    /// Whether all of `text` matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

#[cfg(not(feature = "regex"))]
impl Regex {
    pub(super) fn parse(_: &str) -> Result<Self, String> {
        Err(crate::features::WITHOUT_REGEX.to_owned())
    }

    pub(super) fn is_match(&self, _: &str) -> bool {
        match *self {}
    }
}

#[cfg(test)]
#[cfg(feature = "regex")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_expression_matches_whole_texts() {
        for (expression, yes, no) in [
            ("", &[""][..], &["a"][..]),
            (".*", &["", "ä", "abc"], &["a\nb"]),
            ("web-.*|db", &["web-", "web-1", "db"], &["db1", "xweb-1"]),
            ("web-\\d{1,2}", &["web-1", "web-12"], &["web-", "web-123"]),
            ("(?:a|b)*c", &["c", "abac"], &["ab"]),
            ("(a|)b", &["ab", "b"], &["a"]),
            ("^web$", &["web"], &["web1"]),
            ("(?m)^web$", &["web"], &["web\n", "a\nweb"]),
            ("(?i)WEB[a-c]", &["webA", "Webc"], &["webd"]),
            ("10\\.0\\.0\\.1", &["10.0.0.1"], &["10a0.0.1"]),
            ("größe.", &["größe1"], &["grosse1"]),
            ("a||b", &["a", "", "b"], &["c"]),
        ] {
            let regex = Regex::parse(expression).unwrap();
            assert!(yes.iter().all(|text| regex.is_match(text)), "{expression}: {yes:?}");
            assert!(!no.iter().any(|text| regex.is_match(text)), "{expression}: {no:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let too_large = "larger than 1048576 bytes with all repetitions and groups, the limit";
        for (expression, why) in [
            ("(a", "found open group without closing ')'"),
            ("a)|(?:b", "found closing ')' without matching '('"),
            ("\\pL", "Unicode character classes are not supported"),
            (&"a".repeat(16_385), "longer than 16384 bytes, the limit"),
            ("(a{1000}){1000}", too_large),
            ("(?:(?:(?:(?:){1000}){1000}){1000}){1000}", too_large),
            (&"(a)".repeat(1000), too_large),
            (&"(".repeat(40), "more than 32 groups within each other, the limit"),
        ] {
            assert_eq!(Regex::parse(expression).unwrap_err(), why, "{expression}");
        }
        let hosts: Vec<String> = (0..500).map(|n| format!("web-server-{n}")).collect();
        assert!(Regex::parse(&format!("({})", hosts.join("|"))).unwrap().is_match("web-server-499"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(expression in "[ab|*+?(){},\\[\\]\\\\^$.0-9-]{0,20}|\\PC{0,20}", text in "[ab]{0,8}") {
            if let Ok(regex) = Regex::parse(&expression) {
                regex.is_match(&text);
            }
        }
    }
}
