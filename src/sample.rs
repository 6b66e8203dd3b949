//! A sample: what one host measured in the second that ends at one epoch.
//!
//! This module decodes and encodes samples and holds every limit on them, so that all transports refuse the same input
//! with the same message. It touches no files, sockets, clocks or locks.

pub mod line;
mod tags;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use smol_str::SmolStr;

pub use tags::{TAG_BYTES_MAX, TAGS_HEADER, TAGS_MAX, Tags};

/// Longest host name in bytes, after percent-decoding. It is the limit of a DNS name.
pub const HOST_BYTES_MAX: usize = 255;
/// Longest label in bytes. Each series keeps a copy of its label, and pages show labels in a column.
pub const LABEL_BYTES_MAX: usize = 128;
/// Most labels in one body. The monitor sends a few dozen.
pub const LABELS_MAX: usize = 256;
/// Most digits of an epoch. Milliseconds have 13, so that they are refused.
pub const EPOCH_DIGITS_MAX: usize = 12;
/// Largest epoch, the largest number of [`EPOCH_DIGITS_MAX`] digits.
pub const EPOCH_MAX: u64 = 10_u64.pow(EPOCH_DIGITS_MAX as u32) - 1;
/// Largest magnitude of a value. The sum of an hour's values still fits an `f64`.
pub const VALUE_MAGNITUDE_MAX: f64 = 1e300;
/// Longest JSON body in bytes. 256 labels of 128 escaped bytes take a fifth of it.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest error message about a JSON body in characters. serde may quote a whole string of the body.
const MESSAGE_CHARS_MAX: usize = 300;
/// How far in seconds an epoch may be ahead of the receiver's clock. A sample further ahead comes from a wrong clock.
pub const AHEAD_SEC_MAX: u64 = 300;
/// Longest SOURCE of an idempotency key in bytes.
pub const SOURCE_BYTES_MAX: usize = 64;

/// Labels and their values in the order of the body. No label occurs twice.
pub type Values<'a> = Vec<(Cow<'a, str>, f64)>;

/// What one host measured in the second that ends at `epoch`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Name of the host, as [`check_host`] accepts it.
    pub host: Cow<'a, str>,
    /// Seconds since the Unix epoch at which the measured second ends.
    pub epoch: u64,
    /// The values measured.
    pub values: Values<'a>,
}

impl Sample<'_> {
    /// Borrows the sample in the form the store takes.
    #[must_use]
    pub fn view(&self) -> SampleRef<'_> {
        SampleRef { host: &self.host, epoch: self.epoch, values: &self.values }
    }
}

/// A borrowed [`Sample`]. Its values may be a slice of those of many samples.
#[derive(Debug, Clone, Copy)]
pub struct SampleRef<'a> {
    /// Name of the host, as [`check_host`] accepts it.
    pub host: &'a str,
    /// Seconds since the Unix epoch at which the measured second ends.
    pub epoch: u64,
    /// The values measured. No label occurs twice.
    pub values: &'a [(Cow<'a, str>, f64)],
}

/// The header `Idempotency-Key: SOURCE-SEQ`, by which the store recognises the retry of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey<'a> {
    /// Name of the sending process: 1 to 64 of `[0-9A-Za-z]`, chosen at random.
    pub source: &'a str,
    /// Sequence number, which rises with each request of the source.
    pub seq: u64,
    /// The address that it came from, where that is known. It names the source in the log, and tells nothing apart.
    pub address: Option<IpAddr>,
}

impl<'a> IdempotencyKey<'a> {
    /// A key from an address that is not known.
    #[must_use]
    pub fn new(source: &'a str, seq: u64) -> Self {
        Self { source, seq, address: None }
    }
}

/// An [`IdempotencyKey`] that outlives the request it came with.
#[derive(Debug)]
pub struct OwnedKey {
    source: SmolStr,
    seq: u64,
    address: Option<IpAddr>,
}

impl OwnedKey {
    /// The key in the form the store takes.
    #[must_use]
    pub fn borrowed(&self) -> IdempotencyKey<'_> {
        IdempotencyKey { source: &self.source, seq: self.seq, address: self.address }
    }
}

impl From<IdempotencyKey<'_>> for OwnedKey {
    fn from(IdempotencyKey { source, seq, address }: IdempotencyKey<'_>) -> Self {
        Self { source: source.into(), seq, address }
    }
}

/// Checks the name of a host: 1 to 255 bytes, no `/` and no control characters.
///
/// # Errors
/// A message that names the field and the limit.
pub fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return Err(format!("host: {} bytes long, the limit is 1 to {HOST_BYTES_MAX}", host.len()));
    }
    // Fast path: most names are printable ASCII.
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
/// A message that names the field and the limit.
pub fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(format!("label: {} bytes long, the limit is 1 to {LABEL_BYTES_MAX}", label.len()));
    }
    if has_control(label) {
        return Err(format!("label {label:?}: has a control character, which a label cannot have"));
    }
    Ok(())
}

/// Whether a text has a control character. Printable ASCII takes the fast path.
fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) && text.chars().any(char::is_control)
}

/// Checks the value of a label: a number between -1e300 and 1e300.
///
/// # Errors
/// A message that names the label and the limit.
pub fn check_value(label: &str, value: f64) -> Result<f64, String> {
    if value.abs() <= VALUE_MAGNITUDE_MAX {
        return Ok(value);
    }
    Err(format!("label {label:?}: the value is not a number between -1e300 and 1e300"))
}

/// Parses an epoch of 1 to 12 digits.
///
/// # Errors
/// A message that names the field and the limit.
pub fn parse_epoch(text: &str) -> Result<u64, String> {
    let wrong = || format!("epoch: not seconds since 1970 in 1 to {EPOCH_DIGITS_MAX} digits");
    if text.is_empty() || text.len() > EPOCH_DIGITS_MAX || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// Parses an idempotency key, `SOURCE-SEQ`.
///
/// # Errors
/// A message that names the header and its grammar.
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
    Ok(IdempotencyKey::new(source, seq.parse().map_err(|_| wrong())?))
}

/// Parses the JSON body of a submission: one object of labels and numbers. A numeric string counts as its number.
///
/// A byte order mark before the object is skipped: editors and PowerShell write one.
///
/// # Errors
/// A message that names the label, or the position in the body, and the limit. One invalid value makes the whole body
/// invalid.
pub fn decode_values(body: &[u8]) -> Result<Values<'_>, String> {
    let mut json = serde_json::Deserializer::from_slice(without_bom(body));
    let values = json.deserialize_map(ValuesVisitor).and_then(|values| json.end().map(|()| values));
    values.map_err(|error| format!("body: {:.MESSAGE_CHARS_MAX$}", error.to_string()))
}

/// `text` without the UTF-8 byte order mark it may begin with.
#[must_use]
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Encodes the JSON body of a submission.
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

/// Deserializes a label. It is borrowed from the body unless it has escapes.
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

/// Deserializes the value of `label`. Errors name the label.
struct Number<'l> {
    label: &'l str,
}

impl<'de> DeserializeSeed<'de> for Number<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        let label = self.label;
        deserializer.deserialize_any(self).map_err(|error| {
            let message = error.to_string();
            // Errors of serde_json itself, such as a number out of range, do not name the label.
            if message.contains("label ") { error } else { D::Error::custom(format!("label {label:?}: {message}")) }
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
    fn an_invalid_body_is_refused_with_a_message_that_names_the_field() {
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
            let message = decode_values(body.as_bytes()).expect_err(body);
            assert!(message.starts_with("body: ") && message.contains(part), "{body}: {message}");
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX + "body: ".len(), "{message}");
        }
        assert!(decode_values(b"{\"\xff\":1}").is_err());
    }

    #[test]
    fn valid_bodies_are_decoded() {
        let decode = |body: &'static str| decode_values(body.as_bytes()).unwrap();
        assert_eq!(decode("{}"), vec![]);
        assert_eq!(decode(" {\"cpu\" : 4.98, \"mem\":35} "), vec![("cpu".into(), 4.98), ("mem".into(), 35.0)]);
        assert_eq!(decode("{\"cpu\":\" -7.25 \"}"), vec![("cpu".into(), -7.25)]);
        assert_eq!(decode("{\"a\\\"b\":1e300}"), vec![("a\"b".into(), 1e300)]);
        assert_eq!(decode("\u{feff}{\"cpu\":1}"), vec![("cpu".into(), 1.0)], "a byte order mark is skipped");
        assert!(decode_values("\u{feff}\u{feff}{}".as_bytes()).is_err(), "one, and no more");
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
        assert_eq!(parse_key("a9Z-18446744073709551615"), Ok(IdempotencyKey::new("a9Z", u64::MAX)));
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
