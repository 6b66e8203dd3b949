//! The log: one line a record on standard output, as `LEVEL: message` or as JSON.
//!
//! Every message passes [`sanitize`](lizm::sanitize), and those of libraries are limited in length and rate: a client
//! can make a library log, and choose what.

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lizm::clock::unix_now;
use lizm::sanitize::{MESSAGE_CHARS_MAX, message};
use lizm::server::HAS_SHUT_LISTENER;
use lizm::stats::PANICS;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Most characters of a library's message.
const LIBRARY_CHARS_MAX: usize = 200;
/// Least time between two warnings or errors of libraries.
const LIBRARY_EVERY: Duration = Duration::from_secs(10);

/// How to log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logging {
    pub(crate) level: LevelFilter,
    pub(crate) json: bool,
}

/// Starts to log, panics too.
pub(crate) fn start(logging: Logging) {
    if log::set_boxed_logger(Box::new(Logger { json: logging.json, libraries: Mutex::default() })).is_ok() {
        log::set_max_level(logging.level);
    }
    panic::set_hook(Box::new(|panic| {
        PANICS.add(1);
        // tiny_http panics on a connection that was reset before it was accepted: that is the client's doing.
        let is_ours = panic.location().is_none_or(|location| !location.file().contains("tiny_http"));
        log::log!(if is_ours { Level::Error } else { Level::Debug }, "A thread panicked: {panic}");
    }));
}

struct Logger {
    json: bool,
    libraries: Mutex<RateLimit>,
}

/// At most one line in [`LIBRARY_EVERY`].
#[derive(Default)]
struct RateLimit {
    last: Option<Instant>,
    /// Lines left out since then.
    suppressed: u64,
}

impl RateLimit {
    /// How many lines were left out before the line that is due at `now`; `None` leaves this one out too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < LIBRARY_EVERY) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Logger {
    /// What to log for a record at `now`; `None` where the limit of libraries leaves it out.
    fn message(&self, record: &Record<'_>, now: Instant) -> Option<String> {
        let text = record.args().to_string();
        if is_ours(record.metadata()) {
            return Some(message(&text, MESSAGE_CHARS_MAX));
        }
        let of_end = record.target() == "tiny_http" && text.starts_with("Error accepting new client");
        if of_end && HAS_SHUT_LISTENER.load(Ordering::Acquire) {
            return None;
        }
        let text = format!("{}: {}", record.target(), message(&text, LIBRARY_CHARS_MAX));
        // Whoever asks for debug lines gets all of them.
        if record.level() > Level::Warn {
            return Some(text);
        }
        match self.libraries.lock().unwrap_or_else(PoisonError::into_inner).admit(now)? {
            0 => Some(text),
            more => Some(format!("{text} ({more} warnings of libraries before it were not logged)")),
        }
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "lizm" || metadata.target().starts_with("lizm::")
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries log their warnings, and the rest only at the level debug.
        let quietest = if is_ours(metadata) || log::max_level() >= Level::Debug { Level::Trace } else { Level::Warn };
        metadata.level() <= log::max_level().to_level().unwrap_or(Level::Error).min(quietest)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some(message) = self.message(record, Instant::now())
        {
            let line =
                if self.json { json_line(record.level(), &message) } else { text_line(record.level(), &message) };
            // An error of the log itself has nowhere to go.
            let _ = io::stdout().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// The name of a level, as Python's logging has it: lizmon's lines begin with it.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}

fn text_line(level: Level, message: &str) -> String {
    format!("{}: {message}\n", level_name(level))
}

fn json_line(level: Level, message: &str) -> String {
    let ts = unix_now().as_millis() as f64 / 1000.0;
    let level = level_name(level).to_lowercase();
    format!("{}\n", serde_json::json!({ "ts": ts, "level": level, "message": message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(logger: &Logger, target: &str, text: &str, now: Instant) -> Option<String> {
        logger.message(&Record::builder().level(Level::Warn).target(target).args(format_args!("{text}")).build(), now)
    }

    #[test]
    fn a_record_is_one_line_that_steers_nothing() {
        let logger = Logger { json: true, libraries: Mutex::default() };
        let message = logged(&logger, "lizm::api", "a\n\u{1b}\u{9b}\u{202e}\"b\"\u{2028}", Instant::now()).unwrap();
        let shown = "a \u{fffd}\u{fffd}\u{fffd}\"b\"\u{fffd}";
        assert_eq!(text_line(Level::Warn, &message), format!("WARNING: {shown}\n"));
        let line = json_line(Level::Error, &message);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&parsed["level"], &parsed["message"]), (&"error".into(), &shown.into()));
        assert!(parsed["ts"].as_f64() > Some(1.7e9) && line.matches('\n').count() == 1);
        let long = logged(&logger, "lizm", &"x".repeat(100_000), Instant::now()).unwrap();
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn a_library_cannot_fill_the_log() {
        let (logger, start) = (Logger { json: false, libraries: Mutex::default() }, Instant::now());
        let first = logged(&logger, "rustls::msgs", &"\u{7}".repeat(60_000), start).unwrap();
        assert!(first.starts_with("rustls::msgs: \u{fffd}") && first.len() < 1000, "{first}");
        for target in ["rustls::msgs", "tiny_http", "lizmish"] {
            assert_eq!(logged(&logger, target, "again", start + Duration::from_secs(9)), None, "{target}");
        }
        assert!(logged(&logger, "lizm::tls", "ours", start).is_some());
        let next = logged(&logger, "ureq", "late", start + LIBRARY_EVERY).unwrap();
        assert_eq!(next, "ureq: late (3 warnings of libraries before it were not logged)");
    }
}
