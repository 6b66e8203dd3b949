//! The terminal: its raw mode and alternate screen, which end with this process however it ends, its size, its keys,
//! and the signals that matter to it.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::SyncSender;
use std::{panic, process, thread};

use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::Event;

/// The alternate screen, without a cursor and without line breaks of its own; and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";
/// A size where the terminal tells none.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// Exit code of a program that panics.
const PANICKED: i32 = 101;

/// Columns and rows, where there is a terminal that tells.
pub(super) fn size(of: impl AsFd) -> Option<(usize, usize)> {
    let size = tcgetwinsize(of).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// The terminal while it is ours.
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal; dropping it, or a panic in any thread, gives it back.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let terminal = Self { before };
        write(ENTER)?;
        let (before, hook) = (terminal.before.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            leave(&before);
            hook(panic);
            process::exit(PANICKED);
        }));
        Ok(terminal)
    }

    pub(super) fn size(&self) -> (usize, usize) {
        size(io::stdout()).unwrap_or(DEFAULT_SIZE)
    }

    /// Shows lines from the top, and nothing below them.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for (place, line) in lines.iter().enumerate() {
            frame += if place == 0 { "" } else { "\r\n" };
            frame += line;
            frame += "\x1b[K";
        }
        frame += "\x1b[J";
        write(frame.as_bytes())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave(&self.before);
    }
}

/// Gives the terminal back; where it is gone there is nothing to give.
fn leave(before: &Termios) {
    let _ = write(LEAVE);
    let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// A key, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Character(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Interrupt,
}

/// Reads keys in a thread of their own, until there are none to come.
pub(super) fn spawn_keys(events: SyncSender<Event>) -> io::Result<()> {
    thread::Builder::new().name("keys".into()).spawn(move || {
        let mut typed = [0; 256];
        loop {
            let event = match io::stdin().lock().read(&mut typed) {
                Ok(0) | Err(_) => Event::Quit,
                Ok(count) => Event::Keys(keys(&typed[..count])),
            };
            let is_last = matches!(event, Event::Quit);
            if events.send(event).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(())
}

/// The keys of what was typed at once. A terminal sends a key that is more than a character as one such piece.
fn keys(typed: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(typed);
    let (mut rest, mut keys) = (&*text, Vec::new());
    while let Some(character) = rest.chars().next() {
        let sequence = sequence(rest);
        let (key, length) = sequence.unwrap_or_else(|| (key(character), character.len_utf8()));
        keys.extend(key);
        rest = &rest[length..];
    }
    keys
}

fn key(character: char) -> Option<Key> {
    match character {
        '\r' | '\n' => Some(Key::Enter),
        '\x1b' => Some(Key::Escape),
        '\x7f' | '\x08' => Some(Key::Backspace),
        '\x03' => Some(Key::Interrupt),
        other => (!other.is_control()).then_some(Key::Character(other)),
    }
}

/// The key of an escape sequence that a text begins with, if it is known, and its length.
fn sequence(text: &str) -> Option<(Option<Key>, usize)> {
    let body = text.strip_prefix("\x1b[").or_else(|| text.strip_prefix("\x1bO"))?;
    let end = body.find(|character: char| ('@'..='~').contains(&character))?;
    let key = match &body[..=end] {
        "A" => Some(Key::Up),
        "B" => Some(Key::Down),
        "H" | "1~" | "7~" => Some(Key::Home),
        "F" | "4~" | "8~" => Some(Key::End),
        "5~" => Some(Key::PageUp),
        "6~" => Some(Key::PageDown),
        _ => None,
    };
    Some((key, 2 + end + 1))
}

/// Holds the signals that end a program or tell of another size, for this thread and those it starts, and waits for them
/// in a thread.
pub(super) fn spawn_signals(events: SyncSender<Event>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGWINCH]);
    signals.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            let is_resize = signal == Signal::SIGWINCH && io::stdout().is_terminal();
            if events.send(if is_resize { Event::Resized } else { Event::Quit }).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_keys() {
        let cases: &[(&[u8], &[Key])] = &[
            (b"q", &[Key::Character('q')]),
            (b"\x03", &[Key::Interrupt]),
            (b"\x1b", &[Key::Escape]),
            (b"\x1b[A\x1bOB\x1b[6~", &[Key::Up, Key::Down, Key::PageDown]),
            (b"\x1b[1;5Cx", &[Key::Character('x')]),
            ("ä\r\x7f\x01".as_bytes(), &[Key::Character('ä'), Key::Enter, Key::Backspace]),
            (b"\x1b[", &[Key::Escape, Key::Character('[')]),
            (b"\xff", &[Key::Character('\u{fffd}')]),
            (b"", &[]),
        ];
        for (typed, expected) in cases {
            assert_eq!(keys(typed), *expected, "{typed:?}");
        }
    }
}
