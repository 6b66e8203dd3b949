//! Line protocol: the text in which InfluxDB and what speaks to it write samples, one a line.
//!
//! `perf,host=jarvis cpu=4.98,mem=35.1 1465001847` is a measurement with its tags, the fields, and a time. Grammar and
//! escapes are those of InfluxDB's published line protocol reference: a backslash takes the meaning from a comma, an
//! equals sign, a space or a backslash, and stands for itself before anything else; only a field's string is quoted.
//!
//! The tag `host` names the host. The fields of the measurement `perf` are its labels as they stand; those of any
//! other measurement are called `measurement.field`, and the other tags follow as `,tag=value` in the order of their
//! names.

mod cursor;
mod fast_path;
mod number;
mod time;

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{LABEL_BYTES_MAX, LABELS_MAX, Sample, Values, check_host, check_label, check_value};
use cursor::{COMMA, Cursor, END_OF_KEY, SPACE, is_special};
pub use time::Precision;

/// Longest body of lines in bytes: the most lines, of 800 bytes each.
pub const LINES_BYTES_MAX: usize = 8 << 20;
/// Most lines in a body: twice what Telegraf sends at once when it is told to send much.
pub const LINES_MAX: usize = 10_000;
/// Most tags of a line besides `host`: each takes four bytes of the label at least, `,t=v`, and the field has one.
const TAGS_MAX: usize = (LABEL_BYTES_MAX - 1) / 4;

/// Values that a decoder has room for from the start: those of a thousand lines of two, so that they are not moved again
/// and again.
const VALUES_ROOM: usize = 2048;

/// The measurement whose fields are labels as they stand.
const PLAIN_MEASUREMENT: &str = "perf";
const HOST_TAG: &str = "host";

/// The lines of a text that are neither empty nor a comment, each with its number, which counts from 1; one that is not
/// UTF-8 is a sentence that says so.
///
/// A line ends at a newline that is not in a quoted string. Where a string is never closed, it and every later one end
/// with their lines: newlines in strings are beyond the published reference, and InfluxDB takes them all the same.
#[must_use]
pub fn lines(text: &[u8]) -> Lines<'_> {
    let next_quote = memchr::memchr(b'"', text).unwrap_or(usize::MAX);
    Lines { text, utf8: str::from_utf8(text).ok(), at: 0, number: 0, next_quote, one_stays_open: false }
}

/// Whether a text has more than `most` [`lines`].
#[must_use]
pub fn has_more_than(text: &[u8], most: usize) -> bool {
    // There is at most one more than there are newlines, which are counted much quicker.
    memchr::memchr_iter(b'\n', text).count() >= most && lines(text).nth(most).is_some()
}

/// See [`lines`].
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    text: &'a [u8],
    /// The same, where all of it is UTF-8: to look at it once costs a fraction of a look at each line.
    utf8: Option<&'a str>,
    at: usize,
    number: usize,
    /// Where the first quote stands that is not before `at`; past all texts where there is none.
    next_quote: usize,
    /// Whether the text was searched to its end for the end of a string, in vain: that is done once.
    one_stays_open: bool,
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
    /// Where the line ends that begins at `at`.
    fn end(&mut self) -> usize {
        let rest = &self.text[self.at..];
        let newline = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        if self.at + newline < self.next_quote {
            return self.at + newline;
        }
        let quoted = if self.one_stays_open { None } else { end_of_quoted_line(rest) };
        self.one_stays_open |= quoted.is_none();
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

/// Where a line ends that has a quote somewhere; `None` where a string is not closed before the text ends.
///
/// A string begins with a quote right behind an equals sign of a field, one that no backslash precedes.
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

/// A line that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// What it says. One without a time was measured now.
    pub sample: Sample<'a>,
    /// How many of its fields are strings, which no average can be made of.
    pub strings: usize,
}

/// Reads one line, without its newline, at `now` in seconds since the Unix epoch.
///
/// # Errors
/// A sentence that names the part of the line and the limit.
pub fn decode_line(line: &str, precision: Precision, now: u64) -> Result<Line<'_>, String> {
    let mut decoder = Decoder::new(precision, now);
    let LineHead { host, epoch, strings } = decoder.decode(line)?;
    Ok(Line { sample: Sample { host, epoch, values: decoder.values }, strings })
}

/// What a line says besides its values.
#[derive(Debug)]
pub struct LineHead<'a> {
    /// Name of the host.
    pub host: Cow<'a, str>,
    /// Seconds since the Unix epoch at which the measured second ends.
    pub epoch: u64,
    /// How many of its fields are strings.
    pub strings: usize,
}

/// Reads the lines of one text, each as [`decode_line`] does.
#[derive(Debug)]
pub struct Decoder<'a> {
    precision: Precision,
    now: u64,
    /// The latest time and its epoch: the lines of a text mostly bear the same.
    latest: (&'a str, u64),
    /// The values of all lines that were read, in their order.
    pub values: Values<'a>,
}

impl<'a> Decoder<'a> {
    /// Begins to read a text at `now`, in seconds since the Unix epoch.
    #[must_use]
    pub fn new(precision: Precision, now: u64) -> Self {
        Self { precision, now, latest: ("", now), values: Values::with_capacity(VALUES_ROOM) }
    }

    /// Forgets the values, and keeps the room they took.
    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// Reads a line, and appends its values to those of the lines before it.
    ///
    /// # Errors
    /// As those of [`decode_line`]; nothing of the line is appended then.
    pub fn decode(&mut self, line: &'a str) -> Result<LineHead<'a>, String> {
        let first = self.values.len();
        if let Some(host) = fast_path::read(line, self.latest.0, &mut self.values, first) {
            return Ok(LineHead { host: Cow::Borrowed(host), epoch: self.latest.1, strings: 0 });
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
        Ok(LineHead { host: series.host, epoch: self.latest.1, strings })
    }
}

/// What comes before the fields: it says of which host and series they are.
struct SeriesKey<'a> {
    host: Cow<'a, str>,
    measurement: Cow<'a, str>,
    /// The tags other than `host`, in the order of their names.
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
        let host = host.ok_or("tag \"host\": missing; it says whose sample this is")?;
        check_host(&host)?;
        tags.sort_unstable();
        if let Some(twice) = tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("tag {:?}: given twice", shown(&twice[0].0)));
        }
        Ok(Self { host, measurement, tags })
    }

    /// The label of one of its fields.
    fn label(&self, field: Cow<'a, str>) -> Cow<'a, str> {
        if self.measurement == PLAIN_MEASUREMENT && self.tags.is_empty() {
            return field;
        }
        let mut label = String::with_capacity(64);
        if self.measurement != PLAIN_MEASUREMENT {
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

/// Reads one field: its label and its value, or nothing where that is a string.
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

/// Adds a value to those of its line, which begin at `first`.
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

/// The start of a text that may be long, for a sentence.
fn shown(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

/// Writes a sample as one line of the measurement `perf`, without a newline.
#[must_use]
pub fn encode_line(sample: &Sample<'_>, precision: Precision) -> String {
    let mut line = String::with_capacity(64 + 32 * sample.values.len());
    line.extend([PLAIN_MEASUREMENT, ",", HOST_TAG, "="]);
    escape(&sample.host, &mut line);
    let mut before = ' ';
    for (label, value) in &sample.values {
        line.push(before);
        before = ',';
        escape(label, &mut line);
        // Debug writes the exponent of what is large or small, where Display writes up to 300 zeros.
        let written = write!(line, "={value:?}");
        debug_assert!(written.is_ok(), "a String takes whatever is written");
    }
    let written = write!(line, " {}", precision.time(sample.epoch));
    debug_assert!(written.is_ok(), "a String takes whatever is written");
    line
}

/// Puts a backslash before what would end a name. Before a backslash there is one only where it would be read as one:
/// InfluxDB 1.x keeps both of two.
fn escape(name: &str, line: &mut String) {
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

    fn read(line: &str) -> Result<Line<'_>, String> {
        decode_line(line, Precision::ByMagnitude, NOW)
    }

    /// Host, epoch and values of a line, and how many strings it has.
    fn parts(line: &str) -> (String, u64, Vec<(String, f64)>, usize) {
        let Line { sample, strings } = read(line).unwrap();
        let values = sample.values.into_iter().map(|(label, value)| (label.into_owned(), value)).collect();
        (sample.host.into_owned(), sample.epoch, values, strings)
    }

    fn values(line: &str) -> Vec<(String, f64)> {
        parts(line).2
    }

    /// The shortest tags there are, in the order of their names.
    fn tags(count: usize) -> String {
        ('A'..='Z').chain('a'..='z').take(count).flat_map(|name| [',', name, '=', '1']).collect()
    }

    /// Those of InfluxDB's documentation among them: its lines with the host where they lack one.
    #[test]
    fn malformed_lines_are_refused_by_a_sentence_that_names_the_part() {
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
            let said = read(line).expect_err(line);
            assert!(said.contains(part), "{line}: {said}");
        }
        let said = lines(b"a\nperf,host=h \xff=1").nth(1).unwrap().1.unwrap_err();
        assert_eq!(said, "line: is not UTF-8 at byte 12");
    }

    #[test]
    fn the_documented_forms_are_read() {
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
    fn a_label_has_room_for_the_most_tags_and_no_more() {
        let most = tags(TAGS_MAX);
        let label = format!("v{most}");
        assert!(label.len() <= LABEL_BYTES_MAX && format!("v{}", tags(TAGS_MAX + 1)).len() > LABEL_BYTES_MAX);
        assert_eq!(values(&format!("perf{most},host=h v=1")), [(label, 1.0)]);
    }

    #[test]
    fn lines_end_where_a_newline_is_not_in_a_string() {
        let split = |text: &'static str| {
            lines(text.as_bytes()).map(|(number, line)| (number, line.unwrap().to_owned())).collect()
        };
        let expect = |expected: &[(usize, &str)]| -> Vec<(usize, String)> {
            expected.iter().map(|(number, line)| (*number, (*line).to_owned())).collect()
        };
        let cases: &[(&'static str, &[(usize, &str)])] = &[
            ("", &[]),
            ("\n \n\r\n# a comment with \"one quote\n", &[]),
            ("a\nb", &[(1, "a"), (2, "b")]),
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
            let found: Vec<(usize, String)> = split(text);
            assert_eq!(found, expect(expected), "{text:?}");
        }
    }

    /// Each of these lines leaves a string open as seen from its own start, and closes one as seen from within: a search
    /// to the end of the text for each takes minutes for this text.
    #[test]
    fn many_open_strings_are_searched_once() {
        let text = ["a=\"b c=\"\n".repeat(200_000), "x".repeat(4 << 20)].concat();
        assert_eq!(lines(text.as_bytes()).count(), 200_001);
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
        fn a_comment_in_front_changes_nothing(
            comment in "[ \\t]?#[ =,\"\\\\aü]{0,8}", text in "([#m] s=\"[a\\n]{0,2}\"?,v=1\\n?){0,4}"
        ) {
            let with_comment = format!("{comment}\n{text}");
            let rest: Vec<_> = lines(with_comment.as_bytes()).map(|(number, line)| (number - 1, line)).collect();
            prop_assert_eq!(rest, lines(text.as_bytes()).collect::<Vec<_>>());
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
