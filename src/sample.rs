//! A sample: what one host measured in the second that ends at one epoch.
//!
//! Decoding and encoding live here together with every limit and check on input, so that each way into
//! the receiver refuses the same things in the same words. Nothing here touches files, sockets, clocks or locks.

pub mod line;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;

/// Longest host name in bytes, after percent-decoding: what DNS allows, and any asset id fits.
pub const HOST_BYTES_MAX: usize = 255;
/// Longest label in bytes: a label is shown in a column and kept once a series.
pub const LABEL_BYTES_MAX: usize = 128;
/// Most labels in one body: what one host measures at once, with room; more is a mistake or an attack.
pub const LABELS_MAX: usize = 256;
/// Most digits of an epoch: seconds until the year 33,658, while milliseconds sent by mistake are refused.
pub const EPOCH_DIGITS_MAX: usize = 12;
/// Largest epoch: the largest that [`EPOCH_DIGITS_MAX`] digits can say.
pub const EPOCH_MAX: u64 = 10_u64.pow(EPOCH_DIGITS_MAX as u32) - 1;
/// Largest magnitude of a value: sums of as many as an hour can bring still fit an `f64`.
pub const VALUE_MAGNITUDE_MAX: f64 = 1e300;
/// Longest JSON body in bytes: 256 labels of 128 bytes, every byte escaped, fit several times.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest sentence in characters about a JSON body: serde's may quote all of a string, and ours have a label of 128 bytes.
const SENTENCE_CHARS_MAX: usize = 300;
/// How far in seconds an epoch may lie ahead of the receiver's clock: more is a wrong clock.
pub const AHEAD_SEC_MAX: u64 = 300;
/// Longest SOURCE of an idempotency key in bytes.
pub const SOURCE_BYTES_MAX: usize = 64;

/// Labels and their values, in the order they came; no label twice.
pub type Values<'a> = Vec<(Cow<'a, str>, f64)>;

/// What one host measured in the second that ends at `epoch`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Name of the host, checked by [`check_host`].
    pub host: Cow<'a, str>,
    /// Seconds since the Unix epoch at which the measured second ends.
    pub epoch: u64,
    /// What was measured.
    pub values: Values<'a>,
}

impl Sample<'_> {
    /// The sample as the store takes it.
    #[must_use]
    pub fn view(&self) -> SampleRef<'_> {
        SampleRef { host: &self.host, epoch: self.epoch, values: &self.values }
    }
}

/// A [`Sample`] whose parts stand elsewhere, among those of other samples perhaps.
#[derive(Debug, Clone, Copy)]
pub struct SampleRef<'a> {
    /// Name of the host, checked by [`check_host`].
    pub host: &'a str,
    /// Seconds since the Unix epoch at which the measured second ends.
    pub epoch: u64,
    /// What was measured, no label twice.
    pub values: &'a [(Cow<'a, str>, f64)],
}

/// Marks one request, so that its retry is not counted again: the header `Idempotency-Key: SOURCE-SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey<'a> {
    /// Chosen at random by the sender at each of its starts, 1 to 64 of `[0-9A-Za-z]`.
    pub source: &'a str,
    /// Rises with each request of this source.
    pub seq: u64,
}

/// Checks the name of a host: 1 to 255 bytes, no `/` and no control characters.
///
/// # Errors
/// A sentence that names the field and the limit.
pub fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return Err(format!("host: {} bytes long, the limit is 1 to {HOST_BYTES_MAX}", host.len()));
    }
    // Most names are letters, digits and points: one look at each byte tells.
    if host.bytes().all(|byte| matches!(byte, b' '..=b'.' | b'0'..=b'~')) {
        return Ok(());
    }
    if host.bytes().any(|byte| byte == b'/') {
        return Err("host: has a '/', which a host name cannot have".to_owned());
    }
    if has_control(host) {
        return Err("host: has a control character, which a host name cannot have".to_owned());
    }
    Ok(())
}

/// Checks a label: 1 to 128 bytes, no control characters.
///
/// # Errors
/// A sentence that names the field and the limit.
pub fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(format!("label: {} bytes long, the limit is 1 to {LABEL_BYTES_MAX}", label.len()));
    }
    if has_control(label) {
        return Err(format!("label {label:?}: has a control character, which a label cannot have"));
    }
    Ok(())
}

/// Whether a text has a control character. Most texts are ASCII, where a byte tells.
fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) && text.chars().any(char::is_control)
}

/// Checks the value of a label: a number between -1e300 and 1e300.
///
/// # Errors
/// A sentence that names the label and the limit.
pub fn check_value(label: &str, value: f64) -> Result<f64, String> {
    if value.abs() <= VALUE_MAGNITUDE_MAX {
        return Ok(value);
    }
    Err(format!("label {label:?}: the value is not a number between -1e300 and 1e300"))
}

/// Reads an epoch: 1 to 12 digits and nothing else.
///
/// # Errors
/// A sentence that names the field and the limit.
pub fn parse_epoch(text: &str) -> Result<u64, String> {
    let wrong = || format!("epoch: not seconds since 1970 in 1 to {EPOCH_DIGITS_MAX} digits");
    if text.is_empty() || text.len() > EPOCH_DIGITS_MAX || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// Reads an idempotency key: `SOURCE-SEQ`.
///
/// # Errors
/// A sentence that names the header and its grammar.
pub fn parse_key(text: &str) -> Result<IdempotencyKey<'_>, String> {
    let wrong = || {
        format!(
            "header Idempotency-Key: not SOURCE-SEQ, with a SOURCE of 1 to {SOURCE_BYTES_MAX} letters and digits and a SEQ below 2^64"
        )
    };
    let (source, seq) = text.split_once('-').ok_or_else(wrong)?;
    let source_is_good =
        (1..=SOURCE_BYTES_MAX).contains(&source.len()) && source.bytes().all(|b| b.is_ascii_alphanumeric());
    if !source_is_good || seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    Ok(IdempotencyKey { source, seq: seq.parse().map_err(|_| wrong())? })
}

/// Reads the JSON body of a submission: one object of labels and numbers, a numeric string counting as its number.
///
/// # Errors
/// A sentence that names the label, or the place in the body, and the limit. One wrong value refuses the whole body.
pub fn decode_values(body: &[u8]) -> Result<Values<'_>, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let values = json.deserialize_map(ValuesVisitor).and_then(|values| json.end().map(|()| values));
    values.map_err(|error| format!("body: {:.SENTENCE_CHARS_MAX$}", error.to_string()))
}

/// Writes the JSON body of a submission.
#[must_use]
pub fn encode_values(values: &[(Cow<'_, str>, f64)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 * values.len());
    let mut json = serde_json::Serializer::new(&mut body);
    let written = serde::Serializer::serialize_map(&mut json, Some(values.len())).and_then(|mut map| {
        values.iter().try_for_each(|(label, value)| map.serialize_entry(label, value))?;
        map.end()
    });
    debug_assert!(written.is_ok(), "labels and numbers are always JSON");
    body
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of labels and numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values: Values<'de> = Vec::new();
        while let Some(label) = map.next_key_seed(Label)? {
            check_label(&label).map_err(A::Error::custom)?;
            if values.len() == LABELS_MAX {
                return Err(A::Error::custom(format!("more than {LABELS_MAX} labels, the limit of one body")));
            }
            if values.iter().any(|(known, _)| *known == label) {
                return Err(A::Error::custom(format!("label {label:?}: listed twice")));
            }
            let value = map.next_value_seed(Number { label: &label })?;
            values.push((label, value));
        }
        Ok(values)
    }
}

/// Borrows a label from the body where no escape stands in the way.
struct Label;

impl<'de> DeserializeSeed<'de> for Label {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Label {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label")
    }

    fn visit_borrowed_str<E>(self, label: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(label))
    }

    fn visit_str<E>(self, label: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(label.to_owned()))
    }
}

/// Reads the value of `label`, which its errors name.
struct Number<'l> {
    label: &'l str,
}

impl<'de> DeserializeSeed<'de> for Number<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        let label = self.label;
        deserializer.deserialize_any(self).map_err(|error| {
            let said = error.to_string();
            // Errors of JSON itself (a number out of range, a body cut short) do not know the label yet.
            if said.contains("label ") { error } else { D::Error::custom(format!("label {label:?}: {said}")) }
        })
    }
}

impl Visitor<'_> for Number<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number for label {:?}", self.label)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<f64, E> {
        check_value(self.label, value).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<f64, E> {
        #[expect(clippy::cast_precision_loss, reason = "a JSON number is an f64 to every reader of the answers")]
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<f64, E> {
        #[expect(clippy::cast_precision_loss, reason = "a JSON number is an f64 to every reader of the answers")]
        self.visit_f64(value as f64)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<f64, E> {
        match text.trim().parse::<f64>() {
            Ok(value) => self.visit_f64(value),
            Err(_) => Err(E::custom(format!("label {:?}: the string is not a number", self.label))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_bodies_are_refused_by_a_sentence_that_names_the_field() {
        let many = format!("{{{}}}", (0..257).map(|i| format!("\"l{i}\":1")).collect::<Vec<_>>().join(","));
        let long = format!("{{\"{}\":1}}", "x".repeat(129));
        let text = format!("\"{}\"", "\u{fc}".repeat(100_000));
        let deep = format!("{{\"cpu\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
        let cases: &[(&str, &str)] = &[
            ("", "EOF"),
            ("[]", "an object of labels and numbers"),
            ("null", "an object of labels and numbers"),
            (&text, "invalid type: string"),
            ("{\"cpu\":1", "EOF"),
            ("{\"cpu\":1}{", "trailing characters"),
            ("{\"cpu\":}", "label \"cpu\": expected value"),
            ("{\"cpu\":true}", "a number for label \"cpu\""),
            ("{\"cpu\":null}", "a number for label \"cpu\""),
            ("{\"cpu\":[1]}", "a number for label \"cpu\""),
            ("{\"cpu\":{\"a\":1}}", "a number for label \"cpu\""),
            (&deep, "a number for label \"cpu\""),
            ("{\"cpu\":\"\"}", "label \"cpu\": the string is not a number"),
            ("{\"cpu\":\"12 %\"}", "label \"cpu\": the string is not a number"),
            ("{\"cpu\":\"NaN\"}", "label \"cpu\": the value is not a number between"),
            ("{\"cpu\":\"-inf\"}", "label \"cpu\": the value is not a number between"),
            ("{\"cpu\":NaN}", "label \"cpu\": expected value"),
            ("{\"cpu\":1e301}", "label \"cpu\": the value is not a number between"),
            ("{\"cpu\":1e400}", "label \"cpu\": number out of range"),
            ("{\"cpu\":1,\"cpu\":2}", "label \"cpu\": listed twice"),
            ("{\"cpu\":1,\"\\u0063pu\":2}", "label \"cpu\": listed twice"),
            ("{\"\":1}", "label: 0 bytes long, the limit is 1 to 128"),
            ("{\"a\\nb\":1}", "has a control character"),
            (&long, "label: 129 bytes long, the limit is 1 to 128"),
            (&many, "more than 256 labels"),
        ];
        for (body, part) in cases {
            let said = decode_values(body.as_bytes()).expect_err(body);
            assert!(said.starts_with("body: ") && said.contains(part), "{body}: {said}");
            assert!(said.chars().count() <= SENTENCE_CHARS_MAX + "body: ".len(), "{said}");
        }
        assert!(decode_values(b"{\"\xff\":1}").is_err());
    }

    #[test]
    fn good_bodies_are_read() {
        let read = |body: &'static str| decode_values(body.as_bytes()).unwrap();
        assert_eq!(read("{}"), vec![]);
        assert_eq!(read(" {\"cpu\" : 4.98, \"mem\":35} "), vec![("cpu".into(), 4.98), ("mem".into(), 35.0)]);
        assert_eq!(read("{\"cpu\":\" -7.25 \"}"), vec![("cpu".into(), -7.25)]);
        assert_eq!(read("{\"a\\\"b\":1e300}"), vec![("a\"b".into(), 1e300)]);
        let most = format!("{{{}}}", (0..256).map(|i| format!("\"l{i}\":1")).collect::<Vec<_>>().join(","));
        assert_eq!(decode_values(most.as_bytes()).unwrap().len(), 256);
    }

    #[test]
    fn hosts_epochs_and_keys_have_limits() {
        assert!(check_host("jarvis").is_ok() && check_host(&"h".repeat(255)).is_ok() && check_host("ü 1").is_ok());
        for bad in ["", "a/b", "a\nb", "a\u{7f}", &"h".repeat(256)] {
            assert!(check_host(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_epoch("1465001847"), Ok(1_465_001_847));
        assert_eq!(parse_epoch("000000000007"), Ok(7));
        for bad in ["", "-1", "+1", "1.5", " 1", "1465001847000", "١"] {
            assert!(parse_epoch(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_key("a9Z-18446744073709551615"), Ok(IdempotencyKey { source: "a9Z", seq: u64::MAX }));
        let long = format!("{}-1", "s".repeat(65));
        for bad in ["", "-", "a-", "-1", "a1", "a-b", "a-+1", "a-1-2", "a_b-1", "a-18446744073709551616", &long] {
            assert!(parse_key(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(values in proptest::collection::btree_map("[^\\x00-\\x1f\\x7f-\\x9f]{1,20}", -1e300..1e300, 0..20)) {
            let values: Values<'_> = values.into_iter().map(|(label, value)| (Cow::Owned(label), value)).collect();
            let body = encode_values(&values);
            prop_assert_eq!(decode_values(&body).unwrap(), values);
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_values(&body);
        }
    }
}
