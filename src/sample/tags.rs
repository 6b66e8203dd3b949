//! The tags of a host, `role=web,site=ams`: what it is for, where it stands. A host that sends others replaces them.
//!
//! In the header `Lizm-Tags` they stand as they are, with all that is not printable ASCII percent-encoded. A name is
//! such that Prometheus takes it for that of a label.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use smol_str::SmolStr;

/// Most tags of a host: all of them are listed with it in each answer.
pub const TAGS_MAX: usize = 16;
/// Longest tag in bytes, its name, the equals sign and its value together.
pub const TAG_BYTES_MAX: usize = 64;
/// The header of a submission that has the tags of its host.
pub const TAGS_HEADER: &str = "Lizm-Tags";
/// The name that `/metrics` has for the host itself.
const HOST: &str = "host";

/// The tags of a host, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(SmolStr);

impl Tags {
    /// Reads `NAME=VALUE` and more of them, separated by commas; an empty text has none.
    ///
    /// # Errors
    /// A message that names the tag and the limit.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tags = text.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        let tags = tags.map(|tag| {
            tag.split_once('=').ok_or_else(|| format!("tag {:?}: is not NAME=VALUE, such as role=web", shown(tag)))
        });
        Self::from_pairs(tags.collect::<Result<_, _>>()?)
    }

    /// The tags of these names and values.
    ///
    /// # Errors
    /// A message that names the tag and the limit.
    pub fn from_pairs(mut tags: Vec<(&str, &str)>) -> Result<Self, String> {
        if tags.len() > TAGS_MAX {
            return Err(format!("tags: {} of them, the limit is {TAGS_MAX}", tags.len()));
        }
        tags.iter().try_for_each(|(name, value)| check(name, value))?;
        tags.sort_unstable();
        if let Some(twice) = tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("tag {:?}: given twice", twice[0].0));
        }
        let tags: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(Self(tags.join(",").into()))
    }

    /// Reads the value of the header [`TAGS_HEADER`].
    ///
    /// # Errors
    /// Those of [`Tags::parse`], or that it is not UTF-8.
    pub fn from_header(value: &str) -> Result<Self, String> {
        let text = percent_decode_str(value).decode_utf8();
        text.map_err(|_| "not UTF-8 when it is percent-decoded".to_owned()).and_then(|text| Self::parse(&text))
    }

    /// The value of the header.
    #[must_use]
    pub fn to_header(&self) -> String {
        const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
        utf8_percent_encode(&self.0, ENCODED).to_string()
    }

    /// Name and value of each, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(',').filter_map(|tag| tag.split_once('='))
    }

    /// All as one text, as [`Tags::parse`] reads it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && !name.starts_with("__");
    if !is_name {
        let name = shown(name);
        return Err(format!("tag {name:?}: a name has letters, digits and _, and begins with no digit and no __"));
    }
    if name == HOST {
        return Err("tag \"host\": is the host's own name".to_owned());
    }
    if value.is_empty() {
        return Err(format!("tag {:?}: has no value", shown(name)));
    }
    if value.contains(',') || value.chars().any(char::is_control) {
        return Err(format!("tag {:?}: has a comma or a control character in its value", shown(name)));
    }
    let bytes = name.len() + 1 + value.len();
    if bytes > TAG_BYTES_MAX {
        return Err(format!("tag {:?}: {bytes} bytes long with its value, the limit is {TAG_BYTES_MAX}", shown(name)));
    }
    Ok(())
}

/// The beginning of a text, for an error message.
fn shown(text: &str) -> &str {
    text.char_indices().nth(TAG_BYTES_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_are_sorted_and_bounded() {
        let tags = Tags::parse(" role=web , env=a=b,").unwrap();
        assert_eq!(tags.as_str(), "env=a=b,role=web");
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("env", "a=b"), ("role", "web")]);
        assert!(Tags::parse("").unwrap().is_empty() && Tags::default().iter().next().is_none());
        let many = |count: usize| (0..count).map(|tag| format!("t{tag}=1")).collect::<Vec<_>>().join(",");
        assert_eq!(Tags::parse(&many(TAGS_MAX)).unwrap().iter().count(), TAGS_MAX);
        let long = |bytes: usize| format!("t={}", "x".repeat(bytes - 2));
        assert!(Tags::parse(&long(TAG_BYTES_MAX)).is_ok());
        for (wrong, part) in [
            (&*many(17), "17 of them, the limit is 16"),
            (&long(65), "tag \"t\": 65 bytes long with its value, the limit is 64"),
            ("role", "tag \"role\": is not NAME=VALUE"),
            ("role=", "tag \"role\": has no value"),
            ("=web", "tag \"\": a name has letters"),
            ("1st=x", "begins with no digit"),
            ("__name__=x", "no __"),
            ("a-b=x", "tag \"a-b\": a name has letters"),
            ("host=x", "tag \"host\": is the host's own name"),
            ("role=a,role=b", "tag \"role\": given twice"),
            ("role=\u{1b}[2J", "a control character"),
        ] {
            let why = Tags::parse(wrong).unwrap_err();
            assert!(why.contains(part), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_header_holds_any_text() {
        let tags = Tags::parse("site=Köln,share=5%20").unwrap();
        assert_eq!(tags.to_header(), "share=5%2520,site=K%C3%B6ln");
        assert_eq!(Tags::from_header("role=web, a=100%"), Tags::parse("a=100%,role=web"));
        assert!(Tags::from_header("a=%ff").is_err() && Tags::from_header("a=%0a").is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(tags in "([a-z_]{1,3}=[^,\\x00-\\x1f\\x7f-\\x9f]{1,20},?){0,5}") {
            if let Ok(tags) = Tags::parse(&tags) {
                prop_assert_eq!(&Tags::parse(tags.as_str()).unwrap(), &tags);
                let header = tags.to_header();
                prop_assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert_eq!(Tags::from_header(&header).unwrap(), tags);
            }
        }
    }
}
