//! The tags of a host as a line: `lizm_tags,host=jarvis role="web",site="ams"`, its fields strings. A string that is empty
//! is no tag.

use std::borrow::Cow;

use super::cursor::{Cursor, END_OF_KEY};
use super::{HOST_TAG, Precision, SeriesKey, escape, shown, time};
use crate::sample::Tags;

/// How a line of tags begins: with its measurement.
const BEGINNING: &str = "lizm_tags,";

/// Whether a line has the tags of a host, and no sample.
#[must_use]
pub fn is_tags(line: &str) -> bool {
    line.starts_with(BEGINNING)
}

/// Decodes a line of tags: the host, and its tags. The time that it may have means nothing.
///
/// # Errors
/// A message that names the part of the line and the limit.
pub fn decode_tags(line: &str, precision: Precision) -> Result<(Cow<'_, str>, Tags), String> {
    let mut cursor = Cursor::new(line);
    let SeriesKey { host, tags, .. } = SeriesKey::read(&mut cursor)?;
    if let Some((tag, _)) = tags.first() {
        return Err(format!("tag {:?}: the tags of a host are fields of its line", shown(tag)));
    }
    cursor.skip_spaces();
    let mut tags: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    loop {
        let name = cursor.name(END_OF_KEY);
        if cursor.peek() != Some(b'=') {
            return Err(format!("field {:?}: has no value", shown(&name)));
        }
        cursor.next();
        let value = cursor.peek().filter(|byte| *byte == b'"').and_then(|_| cursor.string());
        let value = value.ok_or_else(|| format!("field {:?}: is not a string in double quotes", shown(&name)))?;
        if !value.is_empty() {
            tags.push((name, value));
        }
        match cursor.peek() {
            Some(b',') => cursor.next(),
            Some(b' ') | None => break,
            Some(_) => return Err("fields: a string is followed by neither a comma nor a space".to_owned()),
        };
    }
    let epoch = cursor.rest().trim_matches(' ');
    if !epoch.is_empty() {
        time::parse(epoch, precision)?;
    }
    let tags = Tags::from_pairs(tags.iter().map(|(name, value)| (&**name, &**value)).collect())?;
    Ok((host, tags))
}

/// Encodes the tags of a host as one line, without a newline. Without tags its one field is empty.
#[must_use]
pub fn encode_tags(host: &str, tags: &Tags) -> String {
    let mut line = format!("{BEGINNING}{HOST_TAG}=");
    escape(host, &mut line);
    let mut before = ' ';
    for (name, value) in if tags.is_empty() { vec![("tags", "")] } else { tags.iter().collect() } {
        line.push(before);
        before = ',';
        line.extend([name, "=\"", &value.replace('\\', "\\\\").replace('"', "\\\""), "\""]);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(line: &str) -> Result<(String, String), String> {
        assert!(is_tags(line), "{line}");
        decode_tags(line, Precision::ByMagnitude).map(|(host, tags)| (host.into_owned(), tags.as_str().to_owned()))
    }

    #[test]
    fn a_line_has_the_tags_of_one_host() {
        let read = |host: &str, tags: &str| Ok((host.to_owned(), tags.to_owned()));
        assert_eq!(decode("lizm_tags,host=h role=\"web\",a=\"\\\"x\\\\ y\""), read("h", "a=\"x\\ y,role=web"));
        assert_eq!(decode("lizm_tags,host=a\\ b role=\"web\" 1465839830100400200"), read("a b", "role=web"));
        assert_eq!(decode("lizm_tags,host=h tags=\"\""), read("h", ""));
        for (wrong, part) in [
            ("lizm_tags,role=web x=\"1\"", "tag \"host\": missing"),
            ("lizm_tags,host=h,role=web x=\"1\"", "tag \"role\": the tags of a host are fields"),
            ("lizm_tags,host=h", "has no value"),
            ("lizm_tags,host=h role=1", "field \"role\": is not a string in double quotes"),
            ("lizm_tags,host=h role=\"web", "field \"role\": is not a string"),
            ("lizm_tags,host=h role=\"web\"x", "neither a comma nor a space"),
            ("lizm_tags,host=h role=\"a,b\"", "a comma"),
            ("lizm_tags,host=h role=\"web\" soon", "time"),
            ("lizm_tags,host=h a-b=\"web\"", "tag \"a-b\": a name has letters"),
        ] {
            let why = decode(wrong).unwrap_err();
            assert!(why.contains(part), "{wrong}: {why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(host in "[^/\\x00-\\x1f\\x7f-\\x9f]{1,20}", value in "[^,\\x00-\\x1f\\x7f-\\x9f]{0,20}") {
            let tags = Tags::from_pairs(vec![("role", &value)]).unwrap_or_default();
            let line = encode_tags(&host, &tags);
            prop_assert_eq!(decode_tags(&line, Precision::Seconds).unwrap(), (Cow::Borrowed(&*host), tags));
        }

        #[test]
        fn no_line_panics(rest in "[a-z=\",\\\\ 0-9ü]{0,40}") {
            let _ = decode_tags(&format!("lizm_tags,host=h {rest}"), Precision::ByMagnitude);
        }
    }
}
