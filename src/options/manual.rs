//! Manual pages of the program and of each command (man(7)), written from the table of options.

use std::fmt::Write;

use super::help::{ENVIRONMENT, EXIT_CODES, option_text};
use super::table::{COMMANDS, CommandSpec};

/// The manual page of the program.
pub(super) fn program() -> String {
    let mut page = head("lizm", "host metrics without a monitoring stack");
    page += ".SH SYNOPSIS\n.B lizm\n.I COMMAND\n[options]\n.SH COMMANDS\n";
    for command in COMMANDS {
        let _ = write!(page, ".TP\n\\fBlizm\\-{}\\fR(1)\n{}\n", escaped(command.name), escaped(command.summary));
    }
    page + &foot()
}

/// The manual page of a command.
pub(super) fn command(spec: &CommandSpec) -> String {
    let CommandSpec { name, summary, usage, notes, examples, .. } = spec;
    let mut page = head(&format!("lizm-{name}"), summary);
    let _ = write!(page, ".SH SYNOPSIS\n.B lizm {}\n{}\n", escaped(name), escaped(usage));
    if spec.options().next().is_some() {
        page += ".SH OPTIONS\n";
    }
    for option in spec.options() {
        let names: Vec<String> = option.names().map(|name| format!("\\fB{}\\fR", escaped(name))).collect();
        let placeholder = match option.placeholder {
            "" => String::new(),
            placeholder => format!(" \\fI{}\\fR", escaped(placeholder)),
        };
        let _ = write!(page, ".TP\n{}{placeholder}\n{}\n", names.join(", "), escaped(&option_text(option)));
    }
    if *name == "monitor" {
        let _ = write!(page, ".SH PROBES\n.EX\n{}.EE\n", escaped(&lizm::probe::help()));
    }
    if !notes.is_empty() {
        let _ = write!(page, ".SH NOTES\n.nf\n{}.fi\n", escaped(notes));
    }
    let _ = write!(page, ".SH EXAMPLES\n.EX\n{}.EE\n", escaped(examples));
    page + &foot()
}

fn head(name: &str, summary: &str) -> String {
    let (title, version) = (escaped(&name.to_ascii_uppercase()), env!("CARGO_PKG_VERSION"));
    let (name, summary) = (escaped(name), escaped(summary));
    format!(".TH {title} 1 \"\" \"lizm {version}\" \"lizm\"\n.SH NAME\n{name} \\- {summary}\n")
}

fn foot() -> String {
    let (environment, codes) = (escaped(ENVIRONMENT), escaped(EXIT_CODES));
    format!(".SH ENVIRONMENT\n{environment}\n.SH EXIT STATUS\n{codes}\n.SH SEE ALSO\n.BR lizm (1)\n")
}

/// A text that troff shows as it stands: hyphens to copy, backslashes, and no line that is a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.split('\n').map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_a_request() {
        assert_eq!(escaped("a-b\\\n.SH c\n'd"), "a\\-b\\e\n\\&.SH c\n\\&'d");
        for spec in COMMANDS {
            let page = command(spec);
            for option in spec.options() {
                assert!(option.names().all(|name| page.contains(&escaped(name))), "{}", option.names);
            }
        }
    }
}
