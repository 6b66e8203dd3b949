//! What a program has printed: lines of `label number`, or the figures of a plugin of Nagios.
//! Format: <https://nagios-plugins.org/doc/guidelines.html>.

use std::process::ExitStatus;

use super::super::lines::parse_lines;
use crate::sample::{check_label, check_value};

/// Most values of one program.
const VALUES_MAX: usize = 128;
/// The exit code of a plugin that knows nothing.
pub(super) const UNKNOWN: i32 = 3;

/// What a run gave.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) values: Vec<(String, f64)>,
    pub(super) problem: Option<String>,
    pub(super) is_plugin: bool,
}

/// What a program meant. A plugin's first line has a bar or one of four words; text without a line of a label and a
/// number is a plugin's too.
pub(super) fn understand(name: &str, text: &str, status: ExitStatus, is_of_a_probe: fn(&str) -> bool) -> Outcome {
    let is_plugin_line = |line: &str| {
        let words = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
        let is_word = |word: &str| words.contains(&word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
        line.contains('|') || line.split_ascii_whitespace().any(is_word)
    };
    let text = text.trim();
    let lines = parse_lines(text, is_of_a_probe);
    let is_prose = !text.is_empty() && lines.wrong == text.lines().count();
    if is_prose || text.lines().next().is_some_and(is_plugin_line) {
        return understand_plugin(name, text, status);
    }
    let mut outcome = Outcome::default();
    if !status.success() {
        outcome.problem = Some(format!("it ended with {status}"));
        return outcome;
    }
    outcome.problem = lines.first_wrong;
    lines.values.into_iter().for_each(|(_, label, value)| add(&mut outcome, label.to_owned(), value));
    outcome
}

/// The exit code of a plugin, and the figures behind its bars: one in the first line, and one in those that follow.
fn understand_plugin(name: &str, text: &str, status: ExitStatus) -> Outcome {
    let code = status.code().filter(|code| (0..=UNKNOWN).contains(code)).unwrap_or(UNKNOWN);
    let mut outcome = Outcome { is_plugin: true, ..Outcome::default() };
    add(&mut outcome, format!("{name}.status"), f64::from(code));
    if status.code() != Some(code) {
        outcome.problem = Some(format!("it ended with {status}, which is no plugin's"));
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    for figures in [first, rest].iter().filter_map(|part| Some(part.split_once('|')?.1)) {
        match parse_figures(figures) {
            Some(figures) => figures.into_iter().for_each(|(label, value)| {
                add(&mut outcome, format!("{name}.{label}"), value);
            }),
            None => outcome.problem = Some("what stands behind the bar is no performance data".to_owned()),
        }
    }
    outcome
}

fn add(outcome: &mut Outcome, label: String, value: f64) {
    if outcome.values.len() == VALUES_MAX {
        outcome.problem = Some(format!("it has more than {VALUES_MAX} values, the limit"));
    } else if let Err(why) = check_label(&label).and_then(|()| check_value(&label, value).map(drop)) {
        outcome.problem = Some(why);
    } else if !outcome.values.iter().any(|(known, _)| *known == label) {
        outcome.values.push((label, value));
    }
}

/// Parses `'label'=value[UNIT];[warn];[crit];[min];[max] …`; `None` where that is not what it is. A value of `U` is not
/// known. Numbers stay in the plugin's unit.
fn parse_figures(text: &str) -> Option<Vec<(String, f64)>> {
    let (mut figures, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let mut label = String::new();
        if let Some(mut quoted) = rest.strip_prefix('\'') {
            loop {
                let (part, behind) = quoted.split_once('\'')?;
                label += part;
                quoted = behind;
                // Two quotes are one.
                let Some(more) = quoted.strip_prefix('\'') else { break };
                label.push('\'');
                quoted = more;
            }
            rest = quoted.strip_prefix('=')?;
        } else {
            let (name, behind) = rest.split_once('=')?;
            (label, rest) = (name.to_owned(), behind);
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let value = rest[..end].split(';').next().unwrap_or_default();
        rest = rest[end..].trim_start();
        let unit = value.find(|c: char| !(c.is_ascii_digit() || "+-.,".contains(c))).unwrap_or(value.len());
        if value == "U" || value.is_empty() {
            continue;
        }
        figures.push((label, value[..unit].replace(',', ".").parse().ok()?));
    }
    Some(figures)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn ended(name: &str, text: &str, code: i32) -> Outcome {
        understand(name, text, ExitStatus::from_raw(code << 8), |label| label == "cpu")
    }

    fn values(outcome: &Outcome) -> Vec<(&str, f64)> {
        outcome.values.iter().map(|(label, value)| (&**label, *value)).collect()
    }

    #[test]
    fn plugins_are_understood_as_nagios_does() {
        let load = ended("load", "OK - load average: 0.10|load1=0.100;5.000;10.000;0; 'load 5'=2,5s;;;0", 0);
        assert_eq!(values(&load), [("load.status", 0.0), ("load.load1", 0.1), ("load.load 5", 2.5)]);
        let disk = "DISK CRITICAL - free space: / 10 MB | /=2643MB;5948;5958;0;5968\n/ 15272 MB\n/var 12 MB | \
                    /boot='68MB;88;93;0;98\n";
        assert_eq!(ended("d", disk, 2).problem.unwrap(), "what stands behind the bar is no performance data");
        let disk = disk.replace("'68", "68").replace("/ 15272 MB\n", "more\n") + "'it''s'=U '=x'=-1.5%;1 b=;1";
        let outcome = ended("d", &disk, 2);
        assert_eq!(values(&outcome), [("d.status", 2.0), ("d./", 2643.0), ("d./boot", 68.0), ("d.=x", -1.5)]);
        assert_eq!((outcome.is_plugin, outcome.problem), (true, None));
        assert_eq!(values(&ended("u", "nothing to say", 1)), [("u.status", 1.0)]);
        let strange = ended("u", "UNKNOWN", 127);
        assert_eq!((values(&strange)[0].1, strange.problem.is_some()), (3.0, true));
        let many: String = (0..200).map(|n| format!("a{n}={n} ")).collect();
        let many = ended("m", &format!("OK|{many}"), 0);
        assert_eq!((many.values.len(), many.problem.is_some()), (VALUES_MAX, true));
        assert!(ended("m", "OK | a\u{7}=1", 0).problem.is_some_and(|why| why.contains("control character")));
    }

    #[test]
    fn lines_are_labels_and_numbers() {
        let outcome = ended("q", "# mail\nqueue 7\nroom temperature 21.5\nqueue 8\n", 0);
        assert_eq!(values(&outcome), [("queue", 7.0), ("room temperature", 21.5)]);
        assert_eq!(ended("q", "queue 7\ncpu 7\n", 0).problem.unwrap(), "line 2: the label is one of a probe");
        let failed = ended("q", "queue 7\n", 1);
        assert_eq!((failed.values.len(), failed.problem.unwrap().as_str()), (0, "it ended with exit status: 1"));
        assert_eq!(ended("q", "", 0), Outcome::default());
        assert!(ended("q", "", 1).problem.is_some());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_printed_gives_labels_and_numbers_or_a_problem(
            text in "[ -~\n\t|=';é]{0,200}|(OK \\|( ?'?[a-c=']{1,3}'?=[-+0-9.,eU]{0,6}[%sKMB]{0,2}(;[0-9]*){0,4}){0,4})",
            code in 0..256,
        ) {
            let outcome = ended("x", &text, code);
            for (label, value) in &outcome.values {
                proptest::prop_assert!(check_label(label).is_ok() && value.is_finite(), "{} {}", label, value);
            }
            proptest::prop_assert!(outcome.values.len() <= VALUES_MAX);
        }
    }
}
