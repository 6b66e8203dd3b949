//! InfluxDB line protocol: text with one sample a line.
//!
//! `perf,host=jarvis cpu=4.98,mem=35.1 1465001847` is a measurement with its tags, the fields, and a time. Grammar and
//! escapes are those of InfluxDB's published reference. A backslash escapes a comma, an equals sign, a space or a
//! backslash, and is an ordinary character before anything else. Only strings, the values of fields, are quoted.
//!
//! The tag `host` names the host. A field of the measurement `perf` is a label as it is. A field of another measurement
//! has the label `measurement.field`. All other tags are appended to the label as `,tag=value`, sorted by name. The
//! measurement `lizm_tags` has no sample: its fields are the tags of the host.

mod cursor;
mod fast_path;
mod number;
mod split;
mod tags;
mod time;

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{LABEL_BYTES_MAX, LABELS_MAX, Sample, Values, check_host, check_label, check_value};
use cursor::{COMMA, Cursor, END_OF_KEY, SPACE, is_special};
pub use split::{Lines, has_more_than, lines};
pub use tags::{decode_tags, encode_tags, is_tags};
pub use time::Precision;

/// Longest body of lines in bytes: [`LINES_MAX`] lines of 800 bytes.
pub const LINES_BYTES_MAX: usize = 8 << 20;
/// Most lines in a body: twice the largest batch that Telegraf's documentation suggests.
pub const LINES_MAX: usize = 10_000;
/// Most tags of a line besides `host`. Each adds at least four bytes, `,t=v`, to a label of at least one byte.
const TAGS_MAX: usize = (LABEL_BYTES_MAX - 1) / 4;

/// Initial capacity of a decoder: the values of a thousand lines of two, so that its vector seldom grows.
const VALUES_CAPACITY: usize = 2048;

/// The measurement whose fields are labels as they are.
const BARE_MEASUREMENT: &str = "perf";
const HOST_TAG: &str = "host";

/// A decoded line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// The sample. Without a time in the line its epoch is the time of decoding.
    pub sample: Sample<'a>,
    /// How many of its fields are strings, which are skipped.
    pub strings: usize,
}

/// Decodes one line without its newline. `now`, in seconds since the Unix epoch, is the epoch of a line without a time.
///
/// # Errors
/// A message that names the part of the line and the limit.
pub fn decode_line(line: &str, precision: Precision, now: u64) -> Result<Line<'_>, String> {
    let mut decoder = Decoder::new(precision, now);
    let LineHead { host, epoch, strings, .. } = decoder.decode(line)?;
    Ok(Line { sample: Sample { host, epoch, values: decoder.values }, strings })
}

/// A decoded line without its values.
#[derive(Debug)]
pub struct LineHead<'a> {
    /// Name of the host.
    pub host: Cow<'a, str>,
    /// Seconds since the Unix epoch at which the measured second ends.
    pub epoch: u64,
    /// How many of its fields are strings.
    pub strings: usize,
    /// Whether the line has a time of its own.
    pub has_time: bool,
}

/// Decodes the lines of one text, each as [`decode_line`] does.
#[derive(Debug)]
pub struct Decoder<'a> {
    precision: Precision,
    now: u64,
    /// Time of the last line and its epoch. The lines of a text mostly have the same time.
    latest: (&'a str, u64),
    /// The values of all lines decoded so far, in their order.
    pub values: Values<'a>,
}

impl<'a> Decoder<'a> {
    /// A decoder for one text. `now`, in seconds since the Unix epoch, is the epoch of lines without a time.
    #[must_use]
    pub fn new(precision: Precision, now: u64) -> Self {
        Self { precision, now, latest: ("", now), values: Values::with_capacity(VALUES_CAPACITY) }
    }

    /// Removes the values and keeps their allocation.
    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// Decodes a line and appends its values to `values`.
    ///
    /// # Errors
    /// Those of [`decode_line`]. Then nothing is appended.
    pub fn decode(&mut self, line: &'a str) -> Result<LineHead<'a>, String> {
        let first = self.values.len();
        if let Some(host) = fast_path::read(line, self.latest.0, &mut self.values, first) {
            return Ok(LineHead { host: Cow::Borrowed(host), epoch: self.latest.1, strings: 0, has_time: true });
        }
        self.values.truncate(first);
        self.decode_from(line, first).inspect_err(|_| self.values.truncate(first))
    }

    fn decode_from(&mut self, line: &'a str, first: usize) -> Result<LineHead<'a>, String> {
        let mut cursor = Cursor::new(line);
        let series = SeriesKey::read(&mut cursor)?;
        cursor.skip_spaces();
        if cursor.is_at_end() {
            return Err("fields: missing; a line is measurement,tags fields time".to_owned());
        }
        let mut strings = 0;
        loop {
            match read_field(&mut cursor, &series)? {
                Some((label, value)) => add_value(label, value, &mut self.values, first)?,
                None => strings += 1,
            }
            match cursor.peek() {
                Some(b',') => cursor.next(),
                Some(b' ') | None => break,
                Some(_) => return Err("fields: a string is followed by neither a comma nor a space".to_owned()),
            };
        }
        cursor.skip_spaces();
        if cursor.rest() != self.latest.0 {
            let time = cursor.rest().trim_end_matches(' ');
            let epoch = if time.is_empty() { self.now } else { time::parse(time, self.precision)? };
            self.latest = (cursor.rest(), epoch);
        }
        let has_time = !self.latest.0.is_empty();
        Ok(LineHead { host: series.host, epoch: self.latest.1, strings, has_time })
    }
}

/// The part of a line before its fields: measurement and tags.
struct SeriesKey<'a> {
    host: Cow<'a, str>,
    measurement: Cow<'a, str>,
    /// All tags but `host`, sorted by name.
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> SeriesKey<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, String> {
        let measurement = cursor.name(COMMA | SPACE);
        if measurement.is_empty() {
            return Err("measurement: missing; a line is measurement,tags fields time".to_owned());
        }
        let (mut host, mut tags) = (None, Vec::new());
        while cursor.peek() == Some(b',') {
            cursor.next();
            let tag = cursor.name(END_OF_KEY);
            if tag.is_empty() {
                return Err("tag: has no name".to_owned());
            }
            let is_given = cursor.peek() == Some(b'=') && cursor.next().is_some();
            let value = if is_given { cursor.name(END_OF_KEY) } else { Cow::Borrowed("") };
            if cursor.peek() == Some(b'=') {
                return Err(format!(
                    "tag {:?}: has an equals sign in its value, and no backslash before it",
                    shown(&tag)
                ));
            }
            if value.is_empty() {
                return Err(format!("tag {:?}: has no value", shown(&tag)));
            }
            if tag != HOST_TAG {
                if tags.len() == TAGS_MAX {
                    return Err(format!("tags: more than {TAGS_MAX} besides \"host\", the limit of one line"));
                }
                tags.push((tag, value));
            } else if host.replace(value).is_some() {
                return Err("tag \"host\": given twice".to_owned());
            }
        }
        let host = host.ok_or("tag \"host\": missing; it names the host of the sample")?;
        check_host(&host)?;
        tags.sort_unstable();
        if let Some(twice) = tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("tag {:?}: given twice", shown(&twice[0].0)));
        }
        Ok(Self { host, measurement, tags })
    }

    /// The label of a field.
    fn label(&self, field: Cow<'a, str>) -> Cow<'a, str> {
        if self.measurement == BARE_MEASUREMENT && self.tags.is_empty() {
            return field;
        }
        let mut label = String::with_capacity(64);
        if self.measurement != BARE_MEASUREMENT {
            label.push_str(&self.measurement);
            label.push('.');
        }
        label.push_str(&field);
        for (tag, value) in &self.tags {
            label.extend([",", tag, "=", value]);
        }
        Cow::Owned(label)
    }
}

/// Reads one field: its label and value, or `None` if the value is a string.
fn read_field<'a>(cursor: &mut Cursor<'a>, series: &SeriesKey<'a>) -> Result<Option<(Cow<'a, str>, f64)>, String> {
    let field = cursor.name(END_OF_KEY);
    if field.is_empty() {
        return Err("field: has no name".to_owned());
    }
    if cursor.peek() != Some(b'=') {
        return Err(format!("field {:?}: has no value", shown(&field)));
    }
    cursor.next();
    if cursor.peek() == Some(b'"') {
        cursor.skip_string().ok_or_else(|| format!("field {:?}: its string is not closed", shown(&field)))?;
        return Ok(None);
    }
    if let Some(value) = cursor.short_number() {
        return Ok(Some((series.label(field), value)));
    }
    let text = cursor.value();
    if text.is_empty() {
        return Err(format!("field {:?}: has no value", shown(&field)));
    }
    let wrong = || {
        let (field, text) = (shown(&field), shown(text));
        format!("field {field:?}: {text:?} is not a number, a boolean, or a string in double quotes")
    };
    let value = number::parse(text).ok_or_else(wrong)?;
    Ok(Some((series.label(field), value)))
}

/// Appends a value to those of its line, which begin at index `first`.
fn add_value<'a>(label: Cow<'a, str>, value: f64, values: &mut Values<'a>, first: usize) -> Result<(), String> {
    check_label(&label)?;
    let value = check_value(&label, value)?;
    let of_line = &values[first..];
    if of_line.len() == LABELS_MAX {
        return Err(format!("fields: more than {LABELS_MAX}, the limit of one line"));
    }
    if of_line.iter().any(|(known, _)| *known == label) {
        return Err(format!("label {label:?}: listed twice"));
    }
    values.push((label, value));
    Ok(())
}

/// The first 40 characters of a text, for an error message.
fn shown(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

/// Encodes a sample as one line of the measurement `perf`, without a newline.
#[must_use]
pub fn encode_line(sample: &Sample<'_>, precision: Precision) -> String {
    let mut line = String::with_capacity(64 + 32 * sample.values.len());
    line.extend([BARE_MEASUREMENT, ",", HOST_TAG, "="]);
    escape(&sample.host, &mut line);
    let mut before = ' ';
    for (label, value) in &sample.values {
        line.push(before);
        before = ',';
        escape(label, &mut line);
        // Debug uses exponents for large and small numbers. Display would write up to 300 zeros.
        let written = write!(line, "={value:?}");
        debug_assert!(written.is_ok(), "a String takes whatever is written");
    }
    let written = write!(line, " {}", precision.time(sample.epoch));
    debug_assert!(written.is_ok(), "a String takes whatever is written");
    line
}

/// Appends a name with a backslash before each special character. A backslash gets one only where it would otherwise
/// escape what follows: InfluxDB 1.x reads two backslashes as two.
pub(crate) fn escape(name: &str, line: &mut String) {
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let needs_escape = match character {
            '\\' => characters.peek().copied().is_none_or(is_special),
            other => is_special(other),
        };
        if needs_escape {
            line.push('\\');
        }
        line.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_465_001_850;

    fn decode(line: &str) -> Result<Line<'_>, String> {
        decode_line(line, Precision::ByMagnitude, NOW)
    }

    /// Host, epoch and values of a line, and its number of strings.
    fn parts(line: &str) -> (String, u64, Vec<(String, f64)>, usize) {
        let Line { sample, strings } = decode(line).unwrap();
        let values = sample.values.into_iter().map(|(label, value)| (label.into_owned(), value)).collect();
        (sample.host.into_owned(), sample.epoch, values, strings)
    }

    fn values(line: &str) -> Vec<(String, f64)> {
        parts(line).2
    }

    /// The shortest tags possible, sorted by name.
    fn tags(count: usize) -> String {
        ('A'..='Z').chain('a'..='z').take(count).flat_map(|name| [',', name, '=', '1']).collect()
    }

    /// Among the lines are the examples of InfluxDB's documentation, with a host.
    #[test]
    fn a_malformed_line_is_refused_with_a_message_that_names_the_part() {
        let many: Vec<String> = (0..257).map(|field| format!("f{field}=1")).collect();
        let many = format!("perf,host=h {}", many.join(","));
        let many_tags = format!("perf{},host=h v=1", tags(TAGS_MAX + 1));
        let long_host = format!("perf,host={} cpu=1", "h".repeat(256));
        let long_label = format!("perf,host=h {}=1", "l".repeat(129));
        let cases: &[(&str, &str)] = &[
            ("perf", "tag \"host\": missing"),
            ("perf cpu=1", "tag \"host\": missing"),
            ("perf,rack=a cpu=1 1465839830100400200", "tag \"host\": missing"),
            (",host=h cpu=1", "measurement: missing"),
            ("perf,host=h", "fields: missing"),
            ("perf,host=h ", "fields: missing"),
            ("weather,host=us-midwest 1465839830100400200", "field \"1465839830100400200\": has no value"),
            (
                "weather,host=us-midwest,temperature=82 1465839830100400200",
                "field \"1465839830100400200\": has no value",
            ),
            ("weather,host=us-midwest temperature=82 wind=3 1465839830100400200", "time: followed by more"),
            ("weather,host=us-midwest temperature=82, wind=3", "field: has no name"),
            ("weather, host=us-midwest temperature=82", "tag: has no name"),
            ("weather,host=us-midwest,=a temperature=82", "tag: has no name"),
            ("weather,host= temperature=82", "tag \"host\": has no value"),
            ("weather,host temperature=82", "tag \"host\": has no value"),
            ("weather,host=a,rack= temperature=82", "tag \"rack\": has no value"),
            ("weather,host=a=b temperature=82", "tag \"host\": has an equals sign in its value"),
            ("weather,host=a,host=b temperature=82", "tag \"host\": given twice"),
            ("weather,host=a,rack=1,rack=2 temperature=82", "tag \"rack\": given twice"),
            ("weather,host=us-midwest =82", "field: has no name"),
            ("weather,host=us-midwest temperature=", "field \"temperature\": has no value"),
            ("weather,host=us-midwest temperature", "field \"temperature\": has no value"),
            ("weather,host=us-midwest temperature= 82", "field \"temperature\": has no value"),
            ("weather,host=us-midwest temperature='too warm'", "\"'too\" is not a number, a boolean, or a string"),
            ("weather,host=us-midwest temperature=too\\ warm", "is not a number, a boolean, or a string"),
            ("weather,host=us-midwest temperature=\"too warm", "its string is not closed"),
            ("weather,host=us-midwest temperature=\"too\"warm", "a string is followed by neither"),
            ("weather,host=us-midwest temperature=82 \"1465839830100400200\"", "is not a whole number"),
            ("weather,host=us-midwest temperature=82 2016-06-13", "time: \"2016-06-13\" is not a whole number"),
            ("weather,host=us-midwest temperature=82 1465839830100400200i", "is not a whole number"),
            ("weather,host=us-midwest temperature=82 1.5", "is not a whole number"),
            ("weather,host=us-midwest temperature=82 -1", "time: lies before 1970"),
            ("weather,host=us-midwest temperature=82 99999999999999999999", "time: lies after the epoch 999999999999"),
            ("perf,host=h cpu=1.1i", "\"1.1i\" is not a number"),
            ("perf,host=h cpu=9223372036854775808i", "is not a number"),
            ("perf,host=h cpu=18446744073709551616u", "is not a number"),
            ("perf,host=h cpu=-1u", "is not a number"),
            ("perf,host=h cpu=+1", "is not a number"),
            ("perf,host=h cpu=0x1", "is not a number"),
            ("perf,host=h cpu=1_000", "is not a number"),
            ("perf,host=h cpu=.", "is not a number"),
            ("perf,host=h cpu=-", "is not a number"),
            ("perf,host=h cpu=--1", "is not a number"),
            ("perf,host=h cpu=NaN", "is not a number"),
            ("perf,host=h cpu=-inf", "is not a number"),
            ("perf,host=h cpu=tRUE", "is not a number"),
            ("perf,host=h cpu=1e301", "label \"cpu\": the value is not a number between"),
            ("perf,host=h cpu=1e400", "label \"cpu\": the value is not a number between"),
            ("perf,host=h cpu=1,cpu=2", "label \"cpu\": listed twice"),
            ("perf,host=a/b cpu=1", "host: has a '/'"),
            ("perf,host=a\tb cpu=1", "host: has a control character"),
            ("perf,host=h c\tpu=1", "has a control character"),
            (&long_host, "host: 256 bytes long, the limit is 1 to 255"),
            (&long_label, "label: 129 bytes long, the limit is 1 to 128"),
            (&many, "fields: more than 256"),
            (&many_tags, "tags: more than 31 besides \"host\", the limit of one line"),
        ];
        for (line, part) in cases {
            let message = decode(line).expect_err(line);
            assert!(message.contains(part), "{line}: {message}");
        }
        let message = lines(b"a\nperf,host=h \xff=1").nth(1).unwrap().1.unwrap_err();
        assert_eq!(message, "line: is not UTF-8 at byte 12");
    }

    #[test]
    fn the_documented_forms_are_decoded() {
        let one = |label: &str, value| vec![(label.to_owned(), value)];
        assert_eq!(
            parts("perf,host=jarvis cpu=4.98,mem=35.1 1465001847"),
            ("jarvis".into(), 1_465_001_847, vec![("cpu".into(), 4.98), ("mem".into(), 35.1)], 0)
        );
        assert_eq!(parts("perf,host=jarvis cpu=5i"), ("jarvis".into(), NOW, one("cpu", 5.0), 0));
        for (text, value) in [
            ("82", 82.0),
            ("-82.5", -82.5),
            ("1.", 1.0),
            (".5", 0.5),
            ("-.5", -0.5),
            ("1e3", 1000.0),
            ("1.5E-3", 0.0015),
            ("1.e+3", 1000.0),
            ("-7i", -7.0),
            ("18446744073709551615u", u64::MAX as f64),
            ("t", 1.0),
            ("TRUE", 1.0),
            ("False", 0.0),
            ("f", 0.0),
        ] {
            assert_eq!(values(&format!("perf,host=h v={text}")), one("v", value), "{text}");
        }
        assert_eq!(values("disk,host=h used=1"), one("disk.used", 1.0));
        assert_eq!(values("disk,path=/var,host=h,dev=sda used=1"), one("disk.used,dev=sda,path=/var", 1.0));
        assert_eq!(values("perf,host=h,core=0 cpu=1"), one("cpu,core=0", 1.0));
        let spaced = parts("my\\,me\\ as\\=ure,ho\\ st=a,host=my\\ host\\,\\=\\\\1 fi\\,eld\\ k\\=ey=1   1465001847  ");
        assert_eq!(spaced, ("my host,=\\1".into(), 1_465_001_847, one("my,me as=ure.fi,eld k=ey,ho st=a", 1.0), 0));
        assert_eq!(parts("perf,host=C:\\dir\\ x\\ü cpu=1").0, "C:\\dir x\\ü");
        let with_strings = "perf,host=h a=\"x, y=\\\"1\\\" \\\\\",cpu=1,b=\"\" 1465001847";
        assert_eq!(parts(with_strings), ("h".into(), 1_465_001_847, one("cpu", 1.0), 2));
        assert_eq!(parts("perf,host=h a=\"only\""), ("h".into(), NOW, vec![], 1));
    }

    #[test]
    fn a_label_fits_the_most_tags_and_no_more() {
        let most = tags(TAGS_MAX);
        let label = format!("v{most}");
        assert!(label.len() <= LABEL_BYTES_MAX && format!("v{}", tags(TAGS_MAX + 1)).len() > LABEL_BYTES_MAX);
        assert_eq!(values(&format!("perf{most},host=h v=1")), [(label, 1.0)]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            host in "[^/\\x00-\\x1f\\x7f-\\x9f]{1,30}",
            epoch in 1u64..4_000_000_000,
            values in proptest::collection::btree_map("[^\\x00-\\x1f\\x7f-\\x9f]{1,20}", -1e300..1e300, 1..20)
        ) {
            let values: Values<'_> = values.into_iter().map(|(label, value)| (Cow::Owned(label), value)).collect();
            let sample = Sample { host: Cow::Owned(host), epoch, values };
            for precision in [Precision::Nanoseconds, Precision::Milliseconds, Precision::Seconds] {
                let line = encode_line(&sample, precision);
                prop_assert_eq!(lines(line.as_bytes()).count(), 1);
                let decoded = decode_line(&line, precision, 0).unwrap();
                prop_assert_eq!(&decoded.sample, &sample);
            }
        }

        #[test]
        fn names_full_of_escapes_decode_to_the_same(host in "[\\\\,= a]{1,12}", label in "[\\\\,= \"a]{1,12}") {
            let sample = Sample { host: host.into(), epoch: 7, values: vec![(label.into(), 1.0)] };
            let line = encode_line(&sample, Precision::Seconds);
            prop_assert_eq!(decode_line(&line, Precision::Seconds, 0).unwrap().sample, sample);
        }

        #[test]
        fn no_text_panics_and_every_line_is_of_it(text in "[perf,host= \\\\\"#\\n1e.-itü]{0,80}") {
            let mut seen = 0;
            for (number, line) in lines(text.as_bytes()) {
                let line = line.unwrap();
                prop_assert!(number > seen && !line.is_empty());
                seen = number;
                drop(decode_line(line, Precision::ByMagnitude, 0));
            }
            prop_assert!(seen <= text.matches('\n').count() + 1);
        }
    }
}
