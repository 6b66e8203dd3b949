//! The ZeroMQ listener: messages of line protocol, by a PULL socket.
//!
//! No message is dropped to make room. Past the high-water mark libzmq stops reading a peer's connection, and the peer's
//! own queue fills until its send waits or fails. A store that is away holds the socket back in the same way: a line
//! waits until it can be stored. A line that the store may have stored without an answer is not stored again, since it
//! could count twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::batch::{Batch, DRAIN_WITHIN, DropReporter, FAILED_PAUSE, MESSAGE_BYTES_MAX, POLL_EVERY};
use crate::ingest::{Ingest, IngestError};

/// Messages of one peer that wait in this process: 32 MB of the longest. libzmq counts whole messages only, and has no
/// limit on the parts of a message that never ends.
const WAITING_MAX: i32 = 1000;
/// Most messages of a batch: all of it waits while the store is away.
const BATCH_MESSAGES_MAX: usize = 256;
/// How often a peer is asked whether it is there, and how long it may take to answer.
const HEARTBEAT_MS: i32 = 30_000;

/// A socket that receives messages.
pub(super) struct Socket {
    socket: zmq::Socket,
    endpoint: String,
}

impl Socket {
    pub(super) fn open(endpoint: &str) -> zmq::Result<Self> {
        let socket = zmq::Context::new().socket(zmq::PULL)?;
        socket.set_rcvhwm(WAITING_MAX)?;
        socket.set_maxmsgsize(MESSAGE_BYTES_MAX as i64)?;
        socket.set_rcvtimeo(i32::try_from(POLL_EVERY.as_millis()).unwrap_or(i32::MAX))?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_ipv6(endpoint.contains('['))?;
        socket.bind(endpoint)?;
        let endpoint = socket.get_last_endpoint()?.unwrap_or_else(|_| endpoint.to_owned());
        Ok(Self { socket, endpoint })
    }

    pub(super) fn description(&self) -> String {
        format!("zmq {}, where up to {WAITING_MAX} messages of a peer wait", self.endpoint)
    }

    /// Stores what is received, until `closing` is set and no message waits any more.
    pub(super) fn run(&self, ingest: &Ingest, closing: &AtomicBool) {
        let (mut message, mut batch, mut drops) = (zmq::Message::new(), Batch::default(), DropReporter::default());
        while !closing.load(Ordering::Acquire) {
            match self.receive(&mut message, &mut batch, ingest, &mut drops) {
                Ok(received_at) => self.store(ingest, &batch, received_at, &mut drops, closing),
                Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {}
                Err(error) => {
                    drops.failed = Some(error.to_string());
                    std::thread::sleep(FAILED_PAUSE);
                }
            }
            drops.log(&self.endpoint, false);
        }
        // Messages may still be under way within libzmq: the socket is drained when none comes for a while.
        let drain_until = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < drain_until
            && let Ok(received_at) = self.receive(&mut message, &mut batch, ingest, &mut drops)
        {
            self.store(ingest, &batch, received_at, &mut drops, closing);
        }
        drops.log(&self.endpoint, true);
    }

    /// Waits for a message, and receives those that are there behind it. Returns the time of that.
    fn receive(
        &self,
        message: &mut zmq::Message,
        batch: &mut Batch,
        ingest: &Ingest,
        drops: &mut DropReporter,
    ) -> zmq::Result<u64> {
        batch.clear();
        self.socket.recv(message, 0)?;
        let received_at = ingest.clock().now_sec();
        batch.push(message, ingest, received_at, drops);
        while batch.len() < BATCH_MESSAGES_MAX && self.socket.recv(message, zmq::DONTWAIT).is_ok() {
            batch.push(message, ingest, received_at, drops);
        }
        Ok(received_at)
    }

    /// Stores the lines of a batch. While the store cannot take them, it waits, until `closing` is set. Tokens are checked
    /// again at each try, since one may expire meanwhile.
    fn store(&self, ingest: &Ingest, batch: &Batch, received_at: u64, drops: &mut DropReporter, closing: &AtomicBool) {
        let mut waiting: Option<Vec<usize>> = None;
        loop {
            let is_closing = closing.load(Ordering::Acquire);
            let selected =
                |number: usize| waiting.as_ref().is_none_or(|waiting| waiting.binary_search(&number).is_ok());
            let mut again = Vec::new();
            batch.submit(ingest, received_at, ingest.clock().now_sec(), selected, |number, error| match error {
                IngestError::Store(error) if !error.is_uncertain && !is_closing => {
                    drops.failed = Some(format!("messages wait: {error}"));
                    again.push(number);
                }
                error => drops.add(ingest, &error),
            });
            if again.is_empty() {
                return;
            }
            again.sort_unstable();
            waiting = Some(again);
            drops.log(&self.endpoint, false);
            std::thread::sleep(FAILED_PAUSE);
        }
    }
}
