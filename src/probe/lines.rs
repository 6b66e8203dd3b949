//! Lines of a label and a number, as textfiles have them and programs print them.

use crate::sample::{LABEL_BYTES_MAX, check_label, check_value};

/// The labels and numbers of a text.
#[derive(Debug, Default)]
pub(super) struct Lines<'a> {
    /// The number of the line, its label and value.
    pub(super) values: Vec<(usize, &'a str, f64)>,
    /// What is wrong with the first wrong line, by its number.
    pub(super) first_wrong: Option<String>,
    /// How many lines are wrong.
    pub(super) wrong: usize,
}

/// Parses the lines of a text.
pub(super) fn parse_lines(text: &str, is_of_a_probe: fn(&str) -> bool) -> Lines<'_> {
    let mut lines = Lines::default();
    for (number, line) in (1..).zip(text.lines()) {
        match parse_line(line, is_of_a_probe) {
            Ok(value) => lines.values.extend(value.map(|(label, value)| (number, label, value))),
            Err(why) => {
                lines.first_wrong.get_or_insert_with(|| format!("line {number}: {why}"));
                lines.wrong += 1;
            }
        }
    }
    lines
}

/// Parses a label and a value; `None` for an empty line or a comment. Errors do not quote the line.
fn parse_line(line: &str, is_of_a_probe: fn(&str) -> bool) -> Result<Option<(&str, f64)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (label, value) = line.rsplit_once(char::is_whitespace).ok_or("has no value behind a label")?;
    let label = label.trim_end();
    let is_wrong = |_| format!("the label is not of 1 to {LABEL_BYTES_MAX} bytes without control characters");
    check_label(label).map_err(is_wrong)?;
    if is_of_a_probe(label) {
        return Err("the label is one of a probe".to_owned());
    }
    let value = value.parse().ok().and_then(|value| check_value(label, value).ok());
    Ok(Some((label, value.ok_or("the value is not a number between -1e300 and 1e300")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<(&str, f64)>, String> {
        parse_line(line, |label| label == "cpu" || label.starts_with("disk:"))
    }

    #[test]
    fn lines_are_labels_and_values() {
        assert_eq!(parse("queue 7"), Ok(Some(("queue", 7.0))));
        assert_eq!(parse("  room \t -2.5e1  "), Ok(Some(("room", -25.0))));
        assert_eq!(parse("with spaces 1"), Ok(Some(("with spaces", 1.0))));
        assert_eq!((parse(""), parse("# queue 7")), (Ok(None), Ok(None)));
        let long = format!("{} 1", "secret".repeat(22));
        for (line, part) in [
            ("secret", "no value"),
            ("secret secret", "the value is not a number"),
            ("secret NaN", "the value is not a number"),
            ("secret 1e301", "the value is not a number"),
            ("cpu 99", "one of a probe"),
            ("disk:/secret 1", "one of a probe"),
            ("secret\u{7}b 1", "control characters"),
            (&long, "1 to 128 bytes"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(part) && !problem.contains("secret"), "{line:?}: {problem}");
        }
    }
}
