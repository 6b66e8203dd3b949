//! How the value of an option is read: by its row of the table, from the command line or else from the environment.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lizm::url::redact;
use pico_args::Arguments;

use super::help;
use super::table::{COMMANDS, CommandSpec, OptionSpec, Value};

/// The arguments of a command that are not read yet.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) arguments: Arguments,
    pub(super) spec: &'static CommandSpec,
}

impl Options {
    /// The row of the table for an option.
    fn row(&self, option: &str) -> &'static OptionSpec {
        let row = self.spec.options().find(|row| row.names().any(|name| name == option));
        row.unwrap_or_else(|| panic!("option {option} of {} is not in the table", self.spec.name))
    }

    /// A whole number in the range of the table.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, option: &'static str) -> Result<T, String> {
        let text = self.text_or_default(option)?;
        parsed_number(self.row(option), option, &text)
    }

    /// A whole number in the range of the table, of an option without a default.
    #[cfg(any(feature = "builtin", feature = "tls"))]
    pub(super) fn optional_number<T: TryFrom<u64>>(&mut self, option: &'static str) -> Result<Option<T>, String> {
        self.text(option)?.map(|text| parsed_number(self.row(option), option, &text)).transpose()
    }

    /// The value of an option, read as a type.
    pub(super) fn parsed<T: FromStr>(&mut self, option: &'static str, form: &str) -> Result<T, String> {
        parsed(option, &self.text_or_default(option)?, form)
    }

    /// One of the words of the table; the case of letters is ignored.
    pub(super) fn word(&mut self, option: &'static str) -> Result<&'static str, String> {
        let text = self.text_or_default(option)?;
        self.one_of(option, &text)
    }

    /// The word of the table that a text is.
    pub(super) fn one_of(&self, option: &'static str, text: &str) -> Result<&'static str, String> {
        let Value::OneOf(words) = self.row(option).value else { return Ok("") };
        let word = words.iter().copied().find(|word| word.eq_ignore_ascii_case(text));
        word.ok_or_else(|| format!("option {option}: {text:?} is not one of {}", words.join(", ")))
    }

    /// A file or a directory. A directory may be missing, but may not be something else.
    pub(super) fn path(&mut self, option: &'static str) -> Result<Option<PathBuf>, String> {
        let path = self.text(option)?.map(PathBuf::from);
        if let (Some(path), Value::Directory) = (&path, &self.row(option).value) {
            check_directory(option, path)?;
        }
        Ok(path)
    }

    /// Whether an option without a value is given; in the environment it is 1 or 0.
    pub(super) fn flag(&mut self, option: &'static str) -> Result<bool, String> {
        if self.arguments.contains(option) {
            return Ok(true);
        }
        let name = variable(option);
        match env_value(&name)?.as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => Err(format!("{name}: {other:?} is not 1 or 0")),
        }
    }

    /// The value of an option, or the default of the table.
    pub(super) fn text_or_default(&mut self, option: &'static str) -> Result<String, String> {
        Ok(self.text(option)?.unwrap_or_else(|| self.row(option).default.to_owned()))
    }

    /// The value of an option by any of its names, from the command line or else from the environment.
    pub(super) fn text(&mut self, option: &'static str) -> Result<Option<String>, String> {
        let spec = self.row(option);
        for name in spec.names() {
            if let Some(value) = self.argument(name)? {
                return Ok(Some(value));
            }
        }
        for name in spec.long_names() {
            if let Some(value) = env_value(&variable(name))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value of an option on the command line by one of its names; each call takes one occurrence.
    fn argument(&mut self, name: &'static str) -> Result<Option<String>, String> {
        let value: Option<String> =
            self.arguments.opt_value_from_str(name).map_err(|error| format!("option {name}: {error}"))?;
        match value {
            Some(value) if value.starts_with("--") => Err(format!("option {name}: has no value")),
            value => Ok(value),
        }
    }

    /// Refuses arguments that are no options, when all options are read.
    pub(super) fn no_more(&mut self) -> Result<(), String> {
        match self.free_arguments()?.first() {
            Some(more) => Err(format!("{}: {:?} is not expected", self.spec.name, redact(more))),
            None => Ok(()),
        }
    }

    /// The arguments that are no options, when all options are read.
    pub(super) fn free_arguments(&mut self) -> Result<Vec<String>, String> {
        let left = std::mem::replace(&mut self.arguments, Arguments::from_vec(Vec::new())).finish();
        let left: Vec<String> = left.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let Some(option) = left.iter().find(|argument| argument.starts_with('-')) else { return Ok(left) };
        let option = option.split('=').next().unwrap_or(option);
        let mut names = self.spec.options().flat_map(OptionSpec::names);
        if names.any(|name| name == option) {
            return Err(format!("option {option}: given twice, or does not go with the others"));
        }
        let nearest = help::nearest(option, self.spec.options().flat_map(OptionSpec::long_names));
        Err(format!("option {option}: not known; {}", suggestion(nearest, &format!("lizm {}", self.spec.name))))
    }

    /// Refuses an option on the command line that does nothing without another. In the environment it may be there for
    /// another command.
    pub(super) fn check_partners(&self) -> Result<(), String> {
        let given = self.arguments.clone().finish();
        let given: Vec<_> = given.iter().map(|argument| argument.to_string_lossy()).collect();
        for OptionSpec { names: option, partners, .. } in self.spec.options().filter(|row| !row.partners.is_empty()) {
            let is_given = given.iter().any(|argument| argument.split('=').next() == Some(*option));
            if is_given && !partners.iter().any(|partner| self.has(partner)) {
                return Err(format!("option {option}: goes with {} alone", partners.join(" or ")));
            }
        }
        Ok(())
    }

    /// Whether there is an option, an option with a value, or a word, on the command line or in the environment.
    fn has(&self, partner: &'static str) -> bool {
        let mut left = self.clone();
        match partner.split_once(' ') {
            Some((option, value)) => left.text_or_default(option).is_ok_and(|given| given.eq_ignore_ascii_case(value)),
            None if !partner.starts_with('-') => left.arguments.finish().iter().any(|argument| argument == partner),
            None if matches!(self.row(partner).value, Value::Flag) => left.flag(partner) == Ok(true),
            None => left.text(partner).is_ok_and(|given| given.is_some()),
        }
    }

    /// The values of an option that may be repeated. In the environment they are separated by spaces.
    pub(super) fn list(&mut self, option: &'static str) -> Result<Vec<String>, String> {
        let given = self.occurrences(option)?;
        if !given.is_empty() {
            return Ok(given);
        }
        let listed = env_value(&variable(option))?.unwrap_or_default();
        Ok(listed.split_whitespace().map(str::to_owned).collect())
    }

    /// The values of an option that may be repeated and hold spaces. In the environment there is one a line.
    pub(super) fn lines(&mut self, option: &'static str) -> Result<Vec<String>, String> {
        let given = self.occurrences(option)?;
        if !given.is_empty() {
            return Ok(given);
        }
        Ok(env_value(&variable(option))?.unwrap_or_default().lines().map(str::to_owned).collect())
    }

    /// The values of an option on the command line.
    pub(super) fn occurrences(&mut self, option: &'static str) -> Result<Vec<String>, String> {
        std::iter::from_fn(|| self.argument(option).transpose()).collect()
    }

    /// A span of time in the range of the table; `None` for a word that stands beside them.
    pub(super) fn span_or(&mut self, option: &'static str, word: &str) -> Result<Option<Duration>, String> {
        match self.text_or_default(option)? == word {
            true => Ok(None),
            false => self.span(option).map(Some).map_err(|why| format!("{why}, or {word}")),
        }
    }

    /// A span of time in the range of the table.
    pub(super) fn span(&mut self, option: &'static str) -> Result<Duration, String> {
        let text = self.text_or_default(option)?;
        self.parse_span(option, &text)
    }

    /// The same where none may be given.
    #[cfg(feature = "tls")]
    pub(super) fn optional_span(&mut self, option: &'static str) -> Result<Option<Duration>, String> {
        self.text(option)?.map(|text| self.parse_span(option, &text)).transpose()
    }

    fn parse_span(&self, option: &'static str, text: &str) -> Result<Duration, String> {
        let Value::Span(least, most) = self.row(option).value else { return Ok(Duration::ZERO) };
        let sec = span_sec(text).filter(|sec| (least..=most).contains(sec));
        sec.map(Duration::from_secs).ok_or_else(|| {
            let (least, most) = (help::span(least), help::span(most));
            format!("option {option}: {text:?} is not a time such as 90s, 5m, 12h or 30d, from {least} to {most}")
        })
    }
}

/// What to try instead of a name that is not known to `program`.
pub(super) fn suggestion(nearest: Option<&str>, program: &str) -> String {
    nearest.map_or_else(|| format!("'{program} --help' lists them"), |nearest| format!("did you mean {nearest}?"))
}

/// Checks that a path is a directory, or nothing yet.
pub(super) fn check_directory(option: &str, path: &Path) -> Result<(), String> {
    match path.exists() && !path.is_dir() {
        true => Err(format!("option {option}: {path:?} is a file; a directory is wanted")),
        false => Ok(()),
    }
}

/// The variable of the environment that an option can be given in.
fn variable(option: &str) -> String {
    format!("LIZM_{}", option.trim_start_matches('-').to_uppercase().replace('-', "_"))
}

/// A variable of the environment; one that is empty, or an address of Kubernetes, counts as not set.
pub(super) fn env_value(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => {
            let is_ignored = value.is_empty() || (name == "LIZM_PORT" && is_of_kubernetes(name, &value));
            Ok((!is_ignored).then_some(value))
        }
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name}: is not UTF-8")),
    }
}

/// Whether Kubernetes sets a variable for a service whose name begins with lizm.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].into_iter().any(|scheme| value.starts_with(scheme));
    (name.ends_with("_PORT") && is_address) || name.contains("_SERVICE_") || name.contains("_PORT_")
}

/// What a person should know of the variables that are set for this program.
pub(super) fn environment_warnings() -> Vec<String> {
    let options = || COMMANDS.iter().flat_map(CommandSpec::options).flat_map(OptionSpec::long_names);
    let known: Vec<String> = options().map(variable).collect();
    let mut warnings = Vec::new();
    for (name, value) in env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))) {
        let value = value.to_string_lossy();
        if name == "LIZM_PORT" && is_of_kubernetes(&name, &value) {
            warnings.push("LIZM_PORT is ignored: it is the address Kubernetes gives a service named lizm".to_owned());
        } else if name.starts_with("LIZM_") && !known.contains(&name) && !is_of_kubernetes(&name, &value) {
            let nearest = help::nearest(&name, known.iter().map(String::as_str));
            let advice = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
            warnings.push(format!("{name} in the environment is no option of lizm{advice}"));
        }
    }
    warnings
}

/// The value of an option, read as a type. `form` says what it should have been.
pub(super) fn parsed<T: FromStr>(option: &str, text: &str, form: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("option {option}: {:?} is not {form}", redact(text)))
}

/// A whole number in the range of a row of the table.
fn parsed_number<T: TryFrom<u64>>(spec: &OptionSpec, option: &str, text: &str) -> Result<T, String> {
    let Value::Number(least, most) = spec.value else { return Err(format!("option {option}: takes no number")) };
    let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("option {option}: {text:?} is not a whole number from {least} to {most}"))
}

/// The seconds of a whole number and s, m, h or d.
fn span_sec(text: &str) -> Option<u64> {
    let unit_sec = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    text.get(..text.len() - 1)?.parse::<u64>().ok()?.checked_mul(unit_sec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_kubernetes_sets_are_no_options() {
        for (name, value) in [
            ("LIZM_PORT", "tcp://10.0.0.1:80"),
            ("LIZM_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("LIZM_SERVICE_HOST", "10.0.0.1"),
            ("LIZM_RECEIVER_PORT", "udp://10.0.0.1:80"),
        ] {
            assert!(is_of_kubernetes(name, value), "{name}");
        }
        assert!(!is_of_kubernetes("LIZM_PORT", "8080") && !is_of_kubernetes("LIZM_PROT", "tcp://r:1"));
    }

    #[test]
    fn a_span_has_a_unit() {
        assert_eq!(["90s", "5m", "24h", "1d", "0s"].map(span_sec), [90, 300, 86_400, 86_400, 0].map(Some));
        for wrong in ["", "s", "5", "5 m", "-5m", "18446744073709551615d", "5ä", "5M"] {
            assert_eq!(span_sec(wrong), None, "{wrong:?}");
        }
    }
}
