//! The help of the program and of each command, written from the table of options.

use std::fmt::Write;

use super::table::{COMMANDS, CommandSpec, OptionSpec, Value};

/// Columns before the help of an option, and of all of a line.
const INDENT: usize = 24;
const WIDTH: usize = 118;
/// Most letters to add, leave out or change in a name that is suggested.
const TYPOS_MAX: usize = 2;

/// What the environment is for.
pub(super) const ENVIRONMENT: &str = "\
Every option --some-name can be given as LIZM_SOME_NAME in the environment too, but for the --host of lizm token; the
command line wins.";
pub(super) const EXIT_CODES: &str = "0 done, 1 failed, 2 wrong usage.";

/// The help of the program.
pub(super) fn program() -> String {
    let mut help = format!("lizm {} - host metrics without a monitoring stack\n\nUsage:\n", env!("CARGO_PKG_VERSION"));
    for command in COMMANDS {
        let _ = writeln!(help, "  lizm {} {}\n      {}", command.name, command.usage, command.summary);
    }
    let ask = "'lizm COMMAND --help' explains the options of a command; 'lizm --version' prints the version.";
    help + &format!("\n{ask}\n\n{ENVIRONMENT}\nExit codes: {EXIT_CODES}\n")
}

/// The help of a command.
pub(super) fn command(command: &CommandSpec) -> String {
    let CommandSpec { name, summary, usage, notes, examples, .. } = command;
    let mut help = format!("lizm {name} - {summary}\n\nUsage: lizm {name} {usage}\n");
    let mut options: String = command.options().map(option_help).collect();
    if *name == "monitor" {
        options += "\nProbes with their labels, units and sources; those with * are the default:\n";
        options += &lizm::probe::help();
    }
    for part in [&*options, *notes, "Examples:\n"].into_iter().filter(|part| !part.is_empty()) {
        help.push('\n');
        help += part;
    }
    for line in examples.lines() {
        let _ = writeln!(help, "  {line}");
    }
    help
}

/// What an option is for, with its range and default.
pub(super) fn option_text(option: &OptionSpec) -> String {
    let mut text = option.help.to_owned();
    match option.value {
        Value::Number(least, most) => text += &format!(" ({least} to {most})"),
        Value::Span(least, most) => text += &format!(" ({} to {})", span(least), span(most)),
        _ => {}
    }
    if !option.default.is_empty() {
        text += &format!(" [{}]", option.default);
    }
    text
}

/// The lines of one option: names, and what it is for.
fn option_help(option: &OptionSpec) -> String {
    let text = option_text(option);
    let indent = if option.names.starts_with("--") { "      " } else { "  " };
    let (mut lines, mut head) = (String::new(), format!("{indent}{} {}", option.names, option.placeholder));
    if head.len() + 2 > INDENT {
        lines = std::mem::take(&mut head) + "\n";
    }
    for line in text.lines().flat_map(wrapped) {
        let _ = writeln!(lines, "{head:<INDENT$}{line}");
        head.clear();
    }
    lines
}

/// A line as lines that fit between [`INDENT`] and [`WIDTH`]. Spaces side by side stay.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if INDENT + last.chars().count() + 1 + word.chars().count() <= WIDTH => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A span of time in the largest unit that has it whole.
pub(super) fn span(sec: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let (unit_sec, unit) = units.into_iter().find(|(unit_sec, _)| sec.is_multiple_of(*unit_sec)).unwrap_or((1, "s"));
    format!("{}{unit}", sec / unit_sec)
}

/// The name that a person has probably meant.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.trim_start_matches('-');
    let typos = |name: &str| if given.len() > 3 && name.starts_with(given) { 0 } else { distance(given, name) };
    let nearest = names.map(|name| (typos(name.trim_start_matches('-')), name)).min()?;
    // Of a short name, two letters are most of it.
    (nearest.0 <= TYPOS_MAX.min(given.chars().count() / 2)).then_some(nearest.1)
}

/// How many letters to add, leave out or change to make one text of another (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_help_that_fits_a_terminal() {
        for spec in COMMANDS {
            let help = command(spec);
            assert!(help.lines().all(|line| line.chars().count() <= WIDTH + 2), "{help}");
            assert!(help.contains("\n\nExamples:\n  lizm ") && !help.contains("\n\n\n"), "{help}");
            for option in spec.options() {
                assert!(option.names().all(|name| help.contains(name)) && !option.help.is_empty(), "{}", option.names);
                if let Value::OneOf(words) = option.value {
                    assert!(words.iter().all(|word| help.contains(word)), "{}", option.names);
                    assert!(option.default.is_empty() || words.contains(&option.default), "{}", option.names);
                }
            }
        }
        let help = command(&COMMANDS[0]);
        assert!(
            help.contains("  -p, --port PORT       port to listen on; 0 picks a free one (0 to 65535) [8080]\n"),
            "{help}"
        );
        assert!(help.contains("how long a token is valid that is given for a certificate (10s to 1d) [5m]"), "{help}");
    }

    #[test]
    fn a_name_with_few_typos_is_suggested() {
        let suggest = |given| nearest(given, ["--port", "--publish", "--password-file", "-p"].into_iter());
        assert_eq!(
            (suggest("--prot"), suggest("--publsh"), suggest("--Port")),
            (Some("--port"), Some("--publish"), Some("--port"))
        );
        assert_eq!(suggest("--password"), Some("--password-file"));
        assert_eq!((suggest("--verbose"), suggest("-x"), suggest("")), (None, None, None));
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("äb", "ab")), (3, 3, 1));
    }
}
