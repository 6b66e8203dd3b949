//! `lizm watch`: the hosts of a receiver, or the labels of one, in a terminal.
//!
//! It speaks the public JSON alone. Three threads wait, for keys, signals and answers, and one draws what they bring. Where
//! standard output is not a terminal it prints plain text instead, again and again or once.

mod client;
mod format;
mod render;
mod terminal;
mod view;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use client::{Client, Snapshot};
use render::Style;
use terminal::{Key, Terminal};
use view::{Next, View};

use crate::sanitize::{self, MESSAGE_CHARS_MAX};

/// How often the receiver is asked, which is how often most hosts report.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Most answers, keys and signals that wait until a slow terminal is drawn.
const EVENTS_MAX: usize = 8;
/// Columns of plain text where there is no terminal to tell how many fit.
const PLAIN_COLUMNS: usize = 100;
/// Series shown of each host when no label is named.
const DEFAULT_LABELS: [&str; 2] = ["cpu", "mem"];
/// Most labels of the list of hosts: more do not fit a screen side by side.
const LABELS_MAX: usize = 8;

/// What `lizm watch` is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// The receiver, such as `http://localhost:8080`.
    pub url: String,
    /// The host whose labels are shown; without one it is the list of hosts.
    pub host: Option<String>,
    /// Of a host, the text that its labels contain; of the list, the labels shown, with commas between them.
    pub label: Option<String>,
    /// Whether to print one picture and end.
    pub once: bool,
    /// Authorities of the receiver's certificate, as PEM.
    pub ca: Option<PathBuf>,
    /// The file of the password that reading may need.
    pub password_file: Option<PathBuf>,
}

/// What to ask the receiver for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Query {
    Hosts { labels: Vec<String> },
    Host { name: String, text: String },
}

/// What the thread that draws waits for.
enum Event {
    Keys(Vec<Key>),
    Resized,
    Quit,
    Answer(Result<Snapshot, String>),
}

impl Options {
    fn want(&self) -> Query {
        let text = self.label.clone().unwrap_or_default();
        match &self.host {
            Some(name) => Query::Host { name: name.clone(), text },
            None => {
                let labels = text.split(',').filter(|label| !label.is_empty()).take(LABELS_MAX).map(str::to_owned);
                Query::Hosts {
                    labels: if text.is_empty() { DEFAULT_LABELS.map(str::to_owned).into() } else { labels.collect() },
                }
            }
        }
    }
}

/// Shows what the options ask for, until told to end.
///
/// # Errors
/// With `once`, when the receiver does not answer or does not know the host; else when the terminal cannot be used.
pub fn run(options: &Options) -> Result<(), String> {
    let client = Client::new(options)?;
    let style = match (io::stdout().is_terminal(), env::var_os("NO_COLOR")) {
        (false, _) => Style::Plain,
        (true, Some(value)) if !value.is_empty() => Style::Uncoloured,
        (true, _) => Style::Colour,
    };
    if options.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return print(&client, options, style);
    }
    show(client, options, style)
}

/// Prints pictures one below the other.
fn print(client: &Client, options: &Options, style: Style) -> Result<(), String> {
    let columns = terminal::size(io::stdout()).map_or(PLAIN_COLUMNS, |(columns, _)| columns);
    let (mut trouble, mut is_first) = (None, true);
    loop {
        let began = Instant::now();
        let answer = client.ask(&options.want());
        if options.once
            && let Err(why) = &answer
        {
            return Err(why.clone());
        }
        let problem = answer.as_ref().err().cloned();
        if let Some(why) = problem.as_ref().filter(|_| problem != trouble) {
            eprintln!("lizm: {}", sanitize::message(why, MESSAGE_CHARS_MAX));
        }
        trouble = problem;
        if let Ok(picture) = answer {
            let lines = render::table(&picture, columns, style).join("\n");
            let between = if is_first { "" } else { "\n" };
            is_first = false;
            let mut stdout = io::stdout().lock();
            match writeln!(stdout, "{between}{lines}").and_then(|()| stdout.flush()) {
                // Whoever read has read enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|error| format!("standard output: {error}"))?,
            }
        }
        if options.once {
            return Ok(());
        }
        thread::sleep(ASK_EVERY.saturating_sub(began.elapsed()));
    }
}

/// Shows pictures in the whole terminal, and obeys keys.
fn show(client: Client, options: &Options, style: Style) -> Result<(), String> {
    let failed = |error: io::Error| format!("terminal: {error}");
    let (events, happened) = mpsc::sync_channel(EVENTS_MAX);
    // Signals are held before any thread starts, so that one thread gets them.
    terminal::spawn_signals(events.clone()).map_err(failed)?;
    let (wants, wanted) = mpsc::channel();
    let answers = events.clone();
    let want = options.want();
    thread::Builder::new().name("ask".into()).spawn(move || ask(&client, want, &wanted, &answers)).map_err(failed)?;
    let terminal = Terminal::enter().map_err(failed)?;
    terminal::spawn_keys(events).map_err(failed)?;
    let mut view = View::new(options);
    loop {
        let (columns, rows) = terminal.size();
        let lines = view.draw(columns, rows, style);
        terminal.draw(&lines).map_err(failed)?;
        let event = match happened.recv_timeout(ASK_EVERY) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // A terminal that is slower than what happens is shown the last of it.
        for event in std::iter::once(event).chain(happened.try_iter()) {
            match event {
                Event::Quit => return Ok(()),
                Event::Resized => {}
                Event::Answer(answer) => view.take(answer, Instant::now()),
                Event::Keys(keys) => {
                    for key in keys {
                        match view.press(key, rows) {
                            Next::Stay => {}
                            Next::Ask(want) => drop(wants.send(want)),
                            Next::Quit => return Ok(()),
                        }
                    }
                }
            }
        }
    }
}

/// Asks for what is wanted, once a second and at once where something else is.
fn ask(client: &Client, mut want: Query, wanted: &Receiver<Query>, answers: &SyncSender<Event>) {
    loop {
        let began = Instant::now();
        if answers.send(Event::Answer(client.ask(&want))).is_err() {
            return;
        }
        match wanted.recv_timeout(ASK_EVERY.saturating_sub(began.elapsed())) {
            Ok(other) => want = wanted.try_iter().last().unwrap_or(other),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
