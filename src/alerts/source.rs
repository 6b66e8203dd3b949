//! Where the rules of a receiver come from: a file, and the command line.

use std::path::PathBuf;
use std::{env, fs};

use super::rules::{Retention, Rules, parse};

/// Mistakes of a file that the log and the alert name.
const MISTAKES_MAX: usize = 5;

/// Where the rules come from, and how targets are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The file of rules.
    pub file: Option<PathBuf>,
    /// Rules of the command line and of the environment.
    pub rules: Vec<String>,
    /// The host of the receiver, and the file of its certificate, whose days are the series `cert-days`.
    pub certificate: Option<(String, PathBuf)>,
    /// The authorities of the targets' certificates, as PEM.
    pub notify_ca: Option<PathBuf>,
}

impl Options {
    /// Whether there are rules at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.rules.is_empty()
    }

    /// Reads and parses all rules.
    ///
    /// # Errors
    /// The mistakes, in one sentence.
    pub(super) fn read(&self, retention: Retention) -> Result<Rules, String> {
        let options = self.rules.join("\n");
        let file = self.file.as_ref().map(|path| (path.display().to_string(), path));
        let text =
            file.as_ref().map(|(name, path)| fs::read_to_string(path).map_err(|error| format!("{name}: {error}")));
        let text = text.transpose()?;
        let mut files: Vec<(&str, &str)> = file.iter().zip(&text).map(|((name, _), text)| (&**name, &**text)).collect();
        files.push(("--alert", &options));
        parse(&files, retention, |name| env::var(name).ok()).map_err(|mistakes| {
            let named: Vec<String> = mistakes.iter().take(MISTAKES_MAX).map(ToString::to_string).collect();
            let more = mistakes.len().saturating_sub(MISTAKES_MAX);
            named.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() }
        })
    }
}
