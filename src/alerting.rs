//! `lizm alerts`: checks a file of rules, and tries out a target.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fs};

use lizm::alerts::notify::{Client, Target};
use lizm::alerts::rules::{Kept, Rules, parse};
use lizm::clock::unix_now;

/// What `lizm alerts` is asked.
#[derive(Debug)]
pub(crate) enum Alerting {
    /// Whether a file of rules has mistakes.
    Check(PathBuf),
    /// Whether a target can be told.
    Test {
        /// The name of the target.
        target: String,
        /// The file that names it.
        file: PathBuf,
        /// What its certificate must lead to.
        ca: Option<PathBuf>,
    },
}

/// Answers on `out`.
///
/// # Errors
/// All mistakes of the file, or why the target was not told.
pub(crate) fn run(asked: &Alerting, out: &mut impl Write) -> Result<(), Vec<String>> {
    let failed = |error: io::Error| vec![error.to_string()];
    match asked {
        Alerting::Check(file) => {
            let Rules { rules, targets, silences, .. } = read(file)?;
            let (rules, targets, silences) = (rules.len(), targets.len(), silences.len());
            writeln!(out, "{}: {rules} rules, {targets} targets, {silences} silences", file.display()).map_err(failed)
        }
        Alerting::Test { target, file, ca } => {
            let rules = read(file)?;
            let known = rules.targets.iter().find(|known| known.name() == target).ok_or_else(|| {
                let names: Vec<&str> = rules.targets.iter().map(Target::name).collect();
                vec![format!("{}: there is no target {target}; there are: {}", file.display(), names.join(", "))]
            })?;
            let client = Client::new(ca.as_deref()).map_err(|why| vec![why])?;
            let now_ms = u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX);
            let (said, is_told) = known.try_out(&client, now_ms);
            said.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(failed)?;
            if is_told { Ok(()) } else { Err(vec![format!("the target {target} was not told")]) }
        }
    }
}

fn read(file: &Path) -> Result<Rules, Vec<String>> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| vec![format!("{name}: {error}")])?;
    parse(&[(&name, &text)], Kept::default(), |name| env::var(name).ok())
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}
