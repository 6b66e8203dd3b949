//! What the listeners share: messages that were received together, and the report of what was dropped.

use std::time::{Duration, Instant};

use crate::auth::{AuthError, LastToken, Principal, split_token};
use crate::ingest::{Ingest, IngestError, LineOptions};
use crate::sample::line::{self, Precision};

/// Longest datagram or message in bytes. A longer datagram would travel in more than 22 fragments, and the loss of one
/// loses it. For messages the limit bounds the memory that waits for one peer.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Longest wait in a socket before its thread looks whether it should close.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(250);
/// How long a socket that closes may go on receiving what is there.
pub(super) const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// Pause after an error of a socket or the store, which may last.
pub(super) const FAILED_PAUSE: Duration = Duration::from_millis(100);
/// How often drops are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Datagrams or messages that were received together. Their lines are stored together, so that a store that receivers
/// share is asked once for all of them.
#[derive(Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    /// The principal of each message, and where the message ends in `text`.
    messages: Vec<(Principal, usize)>,
}

impl Batch {
    /// Adds a message that was received at `now`. A message without a good token is dropped.
    pub(super) fn push(&mut self, message: &[u8], ingest: &Ingest, now: u64, drops: &mut DropReporter) {
        let (token, text) = split_token(message);
        match ingest.authenticate(token, &LastToken::default(), now) {
            Ok(principal) => {
                self.text.extend_from_slice(text);
                self.messages.push((principal, self.text.len()));
            }
            Err(error) => drops.add_message(ingest, text, &error),
        }
    }

    #[cfg(feature = "zeromq")]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.messages.clear();
    }

    /// Stores the lines whose number `selected` accepts, and calls `report` for each that was not stored whole. The lines of
    /// all messages are numbered through. Lines without a timestamp are of `received_at`.
    pub(super) fn submit(
        &self,
        ingest: &Ingest,
        received_at: u64,
        now: u64,
        selected: impl Fn(usize) -> bool,
        mut report: impl FnMut(usize, IngestError),
    ) {
        let options = LineOptions { precision: Precision::ByMagnitude, received_at, key: None };
        let lines = self.lines().filter(|(number, ..)| selected(*number));
        ingest.submit_lines(lines, &options, now, |number, outcome| {
            if let Err(error) = outcome {
                report(number, error);
            }
        });
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &Principal, Result<&str, String>)> {
        let starts = [0].into_iter().chain(self.messages.iter().map(|(_, end)| *end));
        let messages = starts.zip(&self.messages).map(|(start, (principal, end))| (principal, &self.text[start..*end]));
        let lines = messages.flat_map(|(principal, text)| line::lines(text).map(move |(_, line)| (principal, line)));
        lines.enumerate().map(|(number, (principal, line))| (number, principal, line))
    }
}

/// Counts what one socket has dropped, and logs it at most once a minute.
#[derive(Default)]
pub(super) struct DropReporter {
    lines: u64,
    latest: String,
    /// Datagrams that were longer than the limit.
    pub(super) truncated: u64,
    /// Datagrams that the kernel dropped.
    pub(super) dropped: u64,
    /// The latest error of the socket or the store.
    pub(super) failed: Option<String>,
    logged_at: Option<Instant>,
}

impl DropReporter {
    /// Counts a line that is lost. The sender gets no answer, so an error of the store counts as a lost line too.
    pub(super) fn add(&mut self, ingest: &Ingest, error: &IngestError) {
        if let IngestError::Store(_) = error {
            ingest.stats().refused_unavailable.add(1);
            ingest.stats().lines_refused.add(1);
        }
        self.lines += 1;
        self.latest = error.to_string();
    }

    /// Counts the lines of a message without a good token.
    fn add_message(&mut self, ingest: &Ingest, text: &[u8], error: &AuthError) {
        let lines = line::lines(text).count();
        ingest.stats().lines_refused.add(lines);
        self.lines += lines as u64;
        self.latest = error.to_string();
    }

    /// Logs what was dropped since the last report, if a minute has passed or `at_once` is set.
    pub(super) fn log(&mut self, address: &str, at_once: bool) {
        let is_due = at_once || self.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_EVERY);
        let Self { lines, latest, truncated, dropped, failed, .. } = self;
        if !is_due || (*lines, *truncated, *dropped) == (0, 0, 0) && failed.is_none() {
            return;
        }
        let mut parts = Vec::new();
        if *lines > 0 {
            parts.push(format!("{lines} lines were not stored, the latest because of {latest}"));
        }
        if *truncated > 0 {
            parts.push(format!("{truncated} datagrams were longer than {MESSAGE_BYTES_MAX} bytes"));
        }
        if *dropped > 0 {
            parts.push(format!("{dropped} datagrams came faster than they were read"));
        }
        parts.extend(failed.take());
        log::warn!("{address}: {}", parts.join("; "));
        *self = Self { logged_at: Some(Instant::now()), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{Authorizer, Identity};
    use crate::store::Store;

    #[test]
    fn a_token_that_expires_while_its_message_waits_is_refused() {
        const END: u64 = 1_795_440_000;
        let ingest = Ingest::new(Arc::new(Store::new(10)), Authorizer::allow_all(), Arc::default());
        let of = |host: &str, expires_at| {
            Principal::Identity(Identity { hosts: vec![host.into()], expires_at, ..Identity::default() }.into())
        };
        let (short, long) = ("perf,host=jarvis cpu=1\n", "perf,host=friday cpu=1\nperf,host=jarvis cpu=1\n");
        let batch = Batch {
            text: format!("{short}{long}").into(),
            messages: vec![(of("jarvis", Some(END)), short.len()), (of("friday", None), short.len() + long.len())],
        };
        let refused_at = |now| {
            let mut refused = Vec::new();
            batch.submit(&ingest, END - 10, now, |_| true, |number, error| refused.push((number, error.to_string())));
            refused
        };
        let other_host = || (2, "token: not for host \"jarvis\"; it is for friday".to_owned());
        assert_eq!(refused_at(END - 1), [other_host()]);
        assert_eq!(refused_at(END + 5), [(0, "token: expired 5 seconds ago".to_owned()), other_host()]);
        assert_eq!((ingest.stats().stored.get(), ingest.stats().untrusted.get()), (3, 3));
    }
}
