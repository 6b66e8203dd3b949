//! `lizm watch`: the hosts of a receiver, or the labels of one host, in a terminal.
//!
//! It asks the receiver's public JSON. Three threads wait, for keys, signals and answers; the main thread draws. Without a
//! terminal, or with one that cannot move its cursor, it prints plain text instead.

mod alerts;
mod format;
mod graph;
mod render;
mod snapshot;
mod summaries;
mod terminal;
mod view;

use std::borrow::Cow;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use graph::GraphQuery;
use render::Style;
use snapshot::{Fetcher, Snapshot};
use terminal::{Key, Terminal};
use view::{Action, View};

use crate::client::{self, Client};
use crate::sanitize::{self, MESSAGE_CHARS_MAX};

/// How often the receiver is asked: most hosts report as often.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Most answers, keys and signals that wait while a slow terminal draws.
const EVENTS_MAX: usize = 8;
/// Columns of plain text where neither a terminal nor COLUMNS says how many there are, and most that COLUMNS may say.
const PLAIN_COLUMNS: usize = 100;
const PLAIN_COLUMNS_MAX: usize = 1000;
/// Series shown of each host when no label is named.
const DEFAULT_LABELS: [&str; 2] = ["cpu", "mem"];
/// Most labels in the list of hosts: more do not fit a screen side by side.
const LABELS_MAX: usize = 8;

/// The options of `lizm watch`.
#[derive(Debug, Clone)]
pub struct Options {
    /// The receiver to ask.
    pub receiver: client::Options,
    /// The host whose labels are shown; without one, the list of hosts is.
    pub host: Option<String>,
    /// With a host, a text that the shown labels contain; without one, the labels of the list, separated by commas:
    /// `%2C` is a comma within a label.
    pub label: Option<String>,
    /// Whether to print one snapshot and end.
    pub once: bool,
}

/// What to ask the receiver for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Query {
    Hosts { labels: Vec<String> },
    Host { name: String, text: String, graph: Option<GraphQuery> },
}

/// What the main thread waits for.
enum Event {
    Keys(Vec<Key>),
    Resized,
    Quit,
    Answer(Result<Snapshot, String>),
}

impl Options {
    fn query(&self) -> Query {
        let text = self.label.clone().unwrap_or_default();
        match &self.host {
            Some(name) => Query::Host { name: name.clone(), text, graph: None },
            None => {
                let labels = text.split(',').filter(|label| !label.is_empty()).take(LABELS_MAX);
                let labels = labels.map(|label| label.replace("%2C", ",").replace("%2c", ","));
                Query::Hosts {
                    labels: if text.is_empty() { DEFAULT_LABELS.map(str::to_owned).into() } else { labels.collect() },
                }
            }
        }
    }
}

/// What the output can show.
#[derive(Clone, Copy)]
struct Output {
    style: Style,
    is_utf8: bool,
}

impl Output {
    /// What standard output can show, by the variables of the environment.
    fn detect() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let is_dumb = variable("TERM").is_none_or(|terminal| terminal == "dumb");
        let style = match io::stdout().is_terminal() {
            true if is_dumb => Style::Plain,
            true if variable("NO_COLOR").is_some() => Style::Uncoloured,
            true => Style::Colour,
            false => Style::Plain,
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
        Self { style, is_utf8: locale.is_none_or(|locale| is_utf8(&locale)) }
    }

    fn encode(self, line: &str) -> Cow<'_, str> {
        if self.is_utf8 { line.into() } else { format::ascii(line).into() }
    }
}

/// Whether a locale such as `en_GB.UTF-8` has UTF-8. Where none is set, as in most containers, the terminal has it.
fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Shows what the options name, until a person or a signal ends it.
///
/// # Errors
/// With `once`, when the receiver does not answer or does not know the host; else when the terminal cannot be used.
pub fn run(options: &Options) -> Result<(), String> {
    let fetcher = Fetcher::new(Client::new(&options.receiver)?);
    let output = Output::detect();
    if options.once || output.style == Style::Plain || !io::stdin().is_terminal() {
        return print(fetcher, options, output);
    }
    show(fetcher, options, output)
}

/// Columns of plain text.
fn plain_columns() -> usize {
    let given = || env::var("COLUMNS").ok()?.parse().ok().filter(|columns| (1..=PLAIN_COLUMNS_MAX).contains(columns));
    terminal::size(io::stdout()).map(|(columns, _)| columns).or_else(given).unwrap_or(PLAIN_COLUMNS)
}

/// Prints snapshots one below the other.
fn print(mut fetcher: Fetcher, options: &Options, output: Output) -> Result<(), String> {
    let columns = plain_columns();
    let (mut reported, mut separator) = (None, "");
    loop {
        let began = Instant::now();
        match fetcher.fetch(&options.query()) {
            Err(why) if options.once => return Err(why),
            Ok(Snapshot::Unknown(name)) if options.once => return Err(format!("host {name} is not known there")),
            Err(why) => {
                // An error that lasts is reported once.
                if reported.as_ref() != Some(&why) {
                    eprintln!("lizm: {}", sanitize::message(&why, MESSAGE_CHARS_MAX));
                }
                reported = Some(why);
            }
            Ok(snapshot) => {
                reported = None;
                let lines = render::table(&snapshot, columns, output.style).join("\n");
                let mut stdout = io::stdout().lock();
                match writeln!(stdout, "{separator}{}", output.encode(&lines)).and_then(|()| stdout.flush()) {
                    // A reader such as `head` has read enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(|error| format!("standard output: {error}"))?,
                }
                separator = "\n";
            }
        }
        if options.once {
            return Ok(());
        }
        thread::sleep(POLL_EVERY.saturating_sub(began.elapsed()));
    }
}

/// Shows snapshots in the whole terminal, and obeys keys.
fn show(fetcher: Fetcher, options: &Options, output: Output) -> Result<(), String> {
    let failed = |error: io::Error| format!("terminal: {error}");
    let (events, received) = mpsc::sync_channel(EVENTS_MAX);
    // Signals are blocked before any thread starts, so that only the thread that waits for them gets them.
    terminal::spawn_signals(events.clone()).map_err(failed)?;
    let (queries, asked) = mpsc::channel();
    let (answers, query) = (events.clone(), options.query());
    let poller = thread::Builder::new().name("poll".into());
    poller.spawn(move || poll(fetcher, query, &asked, &answers)).map_err(failed)?;
    let terminal = Terminal::enter().map_err(failed)?;
    terminal::spawn_keys(events).map_err(failed)?;
    let mut view = View::new(options);
    loop {
        let (columns, rows) = terminal.size();
        let lines = view.draw(columns, rows, output.style);
        terminal.draw(lines.iter().map(|line| output.encode(line))).map_err(failed)?;
        let event = match received.recv_timeout(POLL_EVERY) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // A slow terminal draws once for all events that wait.
        for event in std::iter::once(event).chain(received.try_iter()) {
            match event {
                Event::Quit => return Ok(()),
                Event::Resized => {}
                Event::Answer(answer) => view.update(answer, Instant::now()),
                Event::Keys(keys) => {
                    for key in keys {
                        match view.handle_key(key, rows) {
                            Action::None => {}
                            Action::Ask(query) => drop(queries.send(query)),
                            Action::Quit => return Ok(()),
                        }
                    }
                }
            }
        }
    }
}

/// Asks the receiver every [`POLL_EVERY`], and at once when the query changes.
fn poll(mut fetcher: Fetcher, mut query: Query, queries: &Receiver<Query>, answers: &SyncSender<Event>) {
    loop {
        let began = Instant::now();
        if answers.send(Event::Answer(fetcher.fetch(&query))).is_err() {
            return;
        }
        match queries.recv_timeout(POLL_EVERY.saturating_sub(began.elapsed())) {
            Ok(next) => query = queries.try_iter().last().unwrap_or(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_says_whether_it_has_utf_8() {
        assert!(["C.UTF-8", "en_GB.utf8", "de_DE.UTF-8@euro"].into_iter().all(is_utf8));
        assert!(!["C", "POSIX", "de_DE.ISO-8859-1", "ja_JP.eucJP"].into_iter().any(is_utf8));
    }
}
