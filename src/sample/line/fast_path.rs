//! The fast path for the usual form of a line, `perf,host=jarvis cpu=4.98,mem=35.1 1465001847`: names of printable ASCII
//! without a backslash, short decimals, and the same time as the line before.
//!
//! All other lines, and all invalid ones, go to the full grammar, which has the error messages.

use std::borrow::Cow;

use super::{BARE_MEASUREMENT, number};
use crate::sample::{LABEL_BYTES_MAX, LABELS_MAX, Values};

/// Reads a line that ends with the time `latest` and appends its values, which begin at index `first`. Returns the host, or
/// `None` if the line has another form; then some of its values may have been appended.
pub(super) fn read<'a>(line: &'a str, latest: &str, values: &mut Values<'a>, first: usize) -> Option<&'a str> {
    let (host, mut rest) = name(line.strip_prefix(BARE_MEASUREMENT)?.strip_prefix(",host=")?, b' ')?;
    loop {
        let (label, number) = name(rest, b'=')?;
        let (value, length) = number::short(number.as_bytes())?;
        if values.len() == first + LABELS_MAX || values[first..].iter().any(|(known, _)| known == label) {
            return None;
        }
        values.push((Cow::Borrowed(label), value));
        let (end, after) = number.as_bytes()[length..].split_first()?;
        match end {
            b',' => rest = &number[length + 1..],
            b' ' => return (after == latest.as_bytes() && !after.is_empty()).then_some(host),
            _ => return None,
        }
    }
}

/// Splits a text into a name that `end` follows and the rest after `end`. Such a name is valid for a host and a label.
fn name(text: &str, end: u8) -> Option<(&str, &str)> {
    let length = text.bytes().position(|byte| !IS_LITERAL[usize::from(byte)])?;
    let is_name = text.as_bytes()[length] == end && (1..=LABEL_BYTES_MAX).contains(&length);
    is_name.then(|| (&text[..length], &text[length + 1..]))
}

/// The bytes that are literal in every name: printable ASCII but delimiters, the backslash, and the slash, which is
/// invalid in a host.
const IS_LITERAL: [bool; 256] = {
    let mut is_literal = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        is_literal[byte as usize] = !matches!(byte, b',' | b'=' | b'\\' | b'/');
        byte += 1;
    }
    is_literal
};

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Precision};
    use super::*;
    use proptest::prelude::*;

    const LATEST: &str = "1465001847";

    fn reads(line: &str) -> bool {
        read(line, LATEST, &mut Values::new(), 0).is_some()
    }

    #[test]
    fn the_usual_form_is_read_and_no_other() {
        let long = "x".repeat(129);
        for line in ["perf,host=jarvis cpu=4.98,mem=-35 1465001847", "perf,host=a.b-c:1 disk:x=.5 1465001847"] {
            assert!(reads(line), "{line}");
        }
        for line in [
            "perf,host=jarvis cpu=4.98 1465001848",
            "perf,host=jarvis cpu=4.98",
            "perf,host=jarvis cpu=4.98 ",
            "perf,host=jarvis cpu=4.98i 1465001847",
            "perf,host=jarvis cpu=4.98,cpu=1 1465001847",
            "perf,host=jarvis cpu= 1465001847",
            "perf,host=jarvis =1 1465001847",
            "perf,host= cpu=1 1465001847",
            "perf,host=a/b cpu=1 1465001847",
            "perf,host=a\\ b cpu=1 1465001847",
            "perf,host=ü cpu=1 1465001847",
            "perf,host=h cpu=1ü 1465001847",
            "perf,host=h,rack=a cpu=1 1465001847",
            "load,host=h cpu=1 1465001847",
            &format!("perf,host={long} cpu=1 1465001847"),
            &format!("perf,host=h {long}=1 1465001847"),
        ] {
            assert!(!reads(line), "{line}");
        }
        let many: Vec<String> = (0..=LABELS_MAX).map(|label| format!("l{label}=1")).collect();
        assert!(reads(&format!("perf,host=h {} {LATEST}", many[..LABELS_MAX].join(","))));
        assert!(!reads(&format!("perf,host=h {} {LATEST}", many.join(","))));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_grammar_reads(
            line in "perf,host=[a-b,/ \\\\ü]{0,3} ([a-bü,\\\\]{0,2}=[0-9ü.,=i-]{0,3},?){1,3} (1465001847)?[ 1ü]?"
        ) {
            let mut grammar = Decoder::new(Precision::ByMagnitude, 1);
            grammar.decode("perf,host=h cpu=1 1465001847").unwrap();
            grammar.clear();
            let mut values = Values::new();
            if let Some(host) = read(&line, LATEST, &mut values, 0) {
                let head = grammar.decode_from(&line, 0).unwrap();
                prop_assert_eq!((&*head.host, head.epoch, head.strings), (host, 1_465_001_847, 0));
                prop_assert_eq!(&grammar.values, &values);
            }
        }
    }
}
