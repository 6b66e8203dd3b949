//! The log: a line a record on standard output, as `LEVEL: message` or as JSON.

use lizm::clock::unix_now;
use std::io::{self, Write};
use std::panic;

use lizm::stats::PANICS;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// How to log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logging {
    pub(crate) level: LevelFilter,
    pub(crate) json: bool,
}

/// Starts to log, panics too.
pub(crate) fn start(logging: Logging) {
    if log::set_boxed_logger(Box::new(Lines { json: logging.json })).is_ok() {
        log::set_max_level(logging.level);
    }
    panic::set_hook(Box::new(|panic| {
        PANICS.add(1);
        // tiny_http panics on a connection that was reset before it was accepted: that is the client's doing.
        let is_ours = panic.location().is_none_or(|location| !location.file().contains("tiny_http"));
        log::log!(if is_ours { Level::Error } else { Level::Debug }, "A thread stopped: {panic}");
    }));
}

struct Lines {
    json: bool,
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries have to say below a warning is for those who look for a fault.
        let is_ours = metadata.target().starts_with("lizm");
        let quietest = if is_ours || log::max_level() >= Level::Debug { Level::Trace } else { Level::Warn };
        metadata.level() <= log::max_level().to_level().unwrap_or(Level::Error).min(quietest)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = if self.json { json_line(record) } else { text_line(record) };
            // Where the log cannot be written there is nowhere left to say so.
            let _ = io::stdout().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// The names that lizmon's lines begin with, which are those of Python's logging.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}

/// One line whatever the message holds: a host name in it may have been chosen by a stranger.
fn text_line(record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{}: {message}\n", level_name(record.level()))
}

fn json_line(record: &Record<'_>) -> String {
    let ms = unix_now().as_millis();
    let message = record.args().to_string();
    let level = level_name(record.level()).to_lowercase();
    format!("{}\n", serde_json::json!({ "ts": ms as f64 / 1000.0, "level": level, "message": message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<R>(level: Level, with: impl FnOnce(&Record<'_>) -> R) -> R {
        with(&Record::builder().level(level).args(format_args!("a\n\u{1b}\"b\"")).build())
    }

    #[test]
    fn a_record_is_one_line() {
        assert_eq!(record(Level::Info, text_line), "INFO: a  \"b\"\n");
        assert_eq!(record(Level::Warn, text_line), "WARNING: a  \"b\"\n");
        let line = record(Level::Error, json_line);
        assert_eq!(line.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&parsed["level"], &parsed["message"]), (&"error".into(), &"a\n\u{1b}\"b\"".into()));
        assert!(parsed["ts"].as_f64() > Some(1.7e9));
    }
}
