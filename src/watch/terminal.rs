//! The terminal: its raw mode and alternate screen, its size, its keys, and the signals about it. The terminal is as it
//! was when this process ends, by a panic too.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::SyncSender;
use std::{panic, process, thread};

use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::Event;

/// Enters the alternate screen, without cursor and line wrapping; and leaves it.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Columns and rows of a terminal that has no size.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// Exit code of a program that panics.
const PANICKED: i32 = 101;

/// Columns and rows, where there is a terminal that has them.
pub(super) fn size(of: impl AsFd) -> Option<(usize, usize)> {
    let size = tcgetwinsize(of).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// The terminal in raw mode, with the alternate screen.
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Sets the terminal up. Dropping it, or a panic in any thread, restores the terminal.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let terminal = Self { before };
        write(ENTER)?;
        let (before, hook) = (terminal.before.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            restore(&before);
            hook(panic);
            process::exit(PANICKED);
        }));
        Ok(terminal)
    }

    pub(super) fn size(&self) -> (usize, usize) {
        size(io::stdout()).unwrap_or(DEFAULT_SIZE)
    }

    /// Shows lines from the top, and nothing below them.
    pub(super) fn draw<'a>(&self, lines: impl Iterator<Item = Cow<'a, str>>) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for (row, line) in lines.enumerate() {
            frame += if row == 0 { "" } else { "\r\n" };
            // Behind a line as wide as the terminal the cursor stands on its last character.
            frame += "\x1b[K";
            frame += &line;
        }
        frame += "\x1b[J";
        write(frame.as_bytes())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

/// Restores the terminal. A terminal that is gone needs nothing.
fn restore(before: &Termios) {
    let _ = write(LEAVE);
    let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// A key that means something here.
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

/// Reads keys in a thread, to the end of standard input.
pub(super) fn spawn_keys(events: SyncSender<Event>) -> io::Result<()> {
    thread::Builder::new().name("keys".into()).spawn(move || {
        let mut bytes = [0; 256];
        loop {
            let event = match io::stdin().lock().read(&mut bytes) {
                Ok(0) | Err(_) => Event::Quit,
                Ok(count) => Event::Keys(keys(&bytes[..count])),
            };
            let is_last = matches!(event, Event::Quit);
            if events.send(event).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(())
}

/// The keys of one read. A terminal sends the bytes of one key together.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
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

/// The key of the escape sequence that a text begins with, if it means something, and the length of the sequence.
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

/// Blocks the signals that end a program or report a new size, in this thread and those it starts later, and waits for
/// them in a thread.
pub(super) fn spawn_signals(events: SyncSender<Event>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGWINCH]);
    signals.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            let is_resized = signal == Signal::SIGWINCH && io::stdout().is_terminal();
            if events.send(if is_resized { Event::Resized } else { Event::Quit }).is_err() {
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
    fn bytes_of_a_terminal_become_keys() {
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
        for (bytes, expected) in cases {
            assert_eq!(keys(bytes), *expected, "{bytes:?}");
        }
    }
}
