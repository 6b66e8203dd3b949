//! The ways in that give no answer: datagrams by UDP and messages by ZeroMQ, one or several lines of line protocol each.
//!
//! What cannot be stored is counted in [`crate::stats`], and told of in the log at most once a minute.

mod udp;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::auth::{AuthError, Principal, split_token};
use crate::ingest::{Ingest, IngestError};
use crate::sample::line;
use crate::supervisor::spawn_supervised;

/// Longest datagram or message in bytes. A longer datagram would travel in more than 22 fragments, of which none may be
/// lost; of messages it bounds what waits for one peer.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// What to do about a ZeroMQ socket that this program was built without.
pub const WITHOUT_ZEROMQ: &str =
    "this lizm was built without the feature zeromq; cargo build --release --features zeromq has it";
/// How often what cannot be stored is told of.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Longest wait in a socket before a look at whether it is to close, and what is to be told.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a closing socket may take in what has come.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// Pause after a failure of a socket, which may last.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// Which sockets to open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where to take datagrams; port 0 picks one.
    pub udp: Option<SocketAddr>,
    /// Where to take messages, as ZeroMQ writes it: `tcp://0.0.0.0:5557`.
    pub zmq: Option<String>,
}

/// Open sockets, each read by a thread of its own.
pub struct MessageListeners {
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    descriptions: Vec<String>,
}

impl MessageListeners {
    /// Opens the sockets asked for, and stores what comes by them through `ingest`.
    ///
    /// # Errors
    /// When one cannot be opened; the message names it.
    pub fn open(options: &Options, ingest: &Arc<Ingest>) -> io::Result<Self> {
        let mut intake = Self { closing: Arc::default(), threads: Vec::new(), descriptions: Vec::new() };
        if let Some(address) = options.udp {
            let socket = udp::Socket::open(address).map_err(|error| named(&format!("udp://{address}"), &error))?;
            intake.descriptions.push(socket.description());
            let (ingest, closing) = (ingest.clone(), intake.closing.clone());
            intake.spawn("udp", move || socket.run(&ingest, &closing))?;
        }
        if let Some(endpoint) = &options.zmq {
            #[cfg(not(feature = "zeromq"))]
            return Err(named(endpoint, &io::Error::other(WITHOUT_ZEROMQ)));
            #[cfg(feature = "zeromq")]
            {
                let socket = zeromq::Socket::open(endpoint).map_err(|error| named(endpoint, &error.into()))?;
                intake.descriptions.push(socket.description());
                let (ingest, closing) = (ingest.clone(), intake.closing.clone());
                intake.spawn("zmq", move || socket.run(&ingest, &closing))?;
            }
        }
        Ok(intake)
    }

    /// One line for each socket, on where it listens.
    #[must_use]
    pub fn descriptions(&self) -> &[String] {
        &self.descriptions
    }

    fn spawn(&mut self, name: &str, run: impl FnMut() + Send + 'static) -> io::Result<()> {
        self.threads.push(spawn_supervised(name, run)?);
        Ok(())
    }

    /// Stores what has come, and closes the sockets.
    pub fn close(self) {
        self.closing.store(true, Ordering::Release);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Datagrams or messages that came together: their lines are stored together, so that a store that other receivers share
/// is asked once for all of them.
#[derive(Default)]
struct Together {
    text: Vec<u8>,
    /// Who says each of them, and where it ends.
    texts: Vec<(Principal, usize)>,
}

impl Together {
    /// Takes a datagram or a message that came at `now`. What nobody says that is trusted is lost.
    fn push(&mut self, message: &[u8], ingest: &Ingest, now: u64, trouble: &mut DropReporter) {
        let (token, text) = split_token(message);
        match ingest.admit(token, now) {
            Ok(speaker) => {
                self.text.extend_from_slice(text);
                self.texts.push((speaker, self.text.len()));
            }
            Err(refusal) => trouble.refuse_all(ingest, text, &refusal),
        }
    }

    #[cfg(feature = "zeromq")]
    fn len(&self) -> usize {
        self.texts.len()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.texts.clear();
    }

    /// The lines of each text, numbered through, and who says them.
    fn lines(&self) -> impl Iterator<Item = (usize, &Principal, Result<&str, String>)> {
        let starts = [0].into_iter().chain(self.texts.iter().map(|(_, end)| *end));
        let texts = starts.zip(&self.texts).map(|(start, (speaker, end))| (speaker, &self.text[start..*end]));
        let lines = texts.flat_map(|(speaker, text)| line::lines(text).map(move |(_, line)| (speaker, line)));
        lines.enumerate().map(|(number, (speaker, line))| (number, speaker, line))
    }
}

fn named(address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

/// What could not be stored of what came by one socket, since it was last told of.
#[derive(Default)]
struct DropReporter {
    lines: u64,
    latest: String,
    truncated: u64,
    dropped: u64,
    failed: Option<String>,
    told_at: Option<Instant>,
}

impl DropReporter {
    /// A line is lost: nobody can be told of it, so that it is counted whatever the reason.
    fn refuse(&mut self, ingest: &Ingest, refused: &IngestError) {
        if let IngestError::Store(_) = refused {
            ingest.stats().refused_unavailable.add(1);
            ingest.stats().lines_refused.add(1);
        }
        self.lines += 1;
        self.latest = refused.to_string();
    }

    /// All lines of a text are lost, since nobody that is trusted says them.
    fn refuse_all(&mut self, ingest: &Ingest, text: &[u8], refusal: &AuthError) {
        let lines = line::lines(text).count();
        ingest.stats().lines_refused.add(lines);
        self.lines += lines as u64;
        self.latest = refusal.to_string();
    }

    /// Tells, if there is something to tell and nothing was for a minute, or `at_once`.
    fn tell(&mut self, address: &str, at_once: bool) {
        let is_due = at_once || self.told_at.is_none_or(|told_at| told_at.elapsed() >= TELL_EVERY);
        let Self { lines, latest, truncated, dropped, failed, .. } = self;
        if !is_due || (*lines, *truncated, *dropped) == (0, 0, 0) && failed.is_none() {
            return;
        }
        let mut said = Vec::new();
        if *lines > 0 {
            said.push(format!("{lines} lines were not stored, the latest because of {latest}"));
        }
        if *truncated > 0 {
            said.push(format!("{truncated} datagrams were longer than {MESSAGE_BYTES_MAX} bytes"));
        }
        if *dropped > 0 {
            said.push(format!("{dropped} datagrams came faster than they were read"));
        }
        said.extend(failed.take());
        log::warn!("{address}: {}", said.join("; "));
        *self = Self { told_at: Some(Instant::now()), ..Self::default() };
    }
}
