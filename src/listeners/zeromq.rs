//! Messages of line protocol, by a PULL socket of ZeroMQ.
//!
//! Nothing is dropped here to make room. Past the high-water mark libzmq stops reading a peer's connection, and the
//! peer's own queue fills until its send waits or fails. A store that takes nothing for a while holds the socket back
//! in the same way: a line waits until it can be stored. One that it was told of, and may have stored without an answer,
//! is not stored again: it would be counted twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{DRAIN_WITHIN, DropReporter, FAILED_PAUSE, LOOK_EVERY, MESSAGE_BYTES_MAX, Together};
use crate::clock::unix_now_sec;
use crate::ingest::{Ingest, IngestError};
use crate::sample::line::Precision;

/// Messages of one peer that wait in this process: 32 MB of the longest, and a millisecond of the fastest. It is whole
/// messages that libzmq counts: the parts of one that is never ended have no limit.
const WAITING_MAX: i32 = 1000;
/// Messages that are stored together: they bound what is lost of time by one that waits for the store.
const TOGETHER_MAX: usize = 256;
/// How often a peer is asked whether it is there, and how long it may take to say so.
const HEARTBEAT_MS: i32 = 30_000;

/// A socket that takes messages.
pub(super) struct Socket {
    socket: zmq::Socket,
    endpoint: String,
}

impl Socket {
    pub(super) fn open(endpoint: &str) -> zmq::Result<Self> {
        let socket = zmq::Context::new().socket(zmq::PULL)?;
        socket.set_rcvhwm(WAITING_MAX)?;
        socket.set_maxmsgsize(MESSAGE_BYTES_MAX as i64)?;
        socket.set_rcvtimeo(i32::try_from(LOOK_EVERY.as_millis()).unwrap_or(i32::MAX))?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_ipv6(endpoint.contains('['))?;
        socket.bind(endpoint)?;
        let endpoint = socket.get_last_endpoint()?.unwrap_or_else(|_| endpoint.to_owned());
        Ok(Self { socket, endpoint })
    }

    pub(super) fn description(&self) -> String {
        format!("zmq {}, where up to {WAITING_MAX} messages of a peer wait", self.endpoint)
    }

    /// Stores what comes, until `closing` is set and nothing waits any more.
    pub(super) fn run(&self, ingest: &Ingest, closing: &AtomicBool) {
        let (mut message, mut together) = (zmq::Message::new(), Together::default());
        let mut trouble = DropReporter::default();
        while !closing.load(Ordering::Acquire) {
            match self.receive(&mut message, &mut together, ingest, &mut trouble) {
                Ok(()) => self.store(ingest, &together, &mut trouble, closing),
                Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {}
                Err(error) => {
                    trouble.failed = Some(error.to_string());
                    std::thread::sleep(FAILED_PAUSE);
                }
            }
            trouble.tell(&self.endpoint, false);
        }
        // What peers have sent may still be on its way through libzmq: it is done when none comes for a while.
        let drain_until = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < drain_until && self.receive(&mut message, &mut together, ingest, &mut trouble).is_ok() {
            self.store(ingest, &together, &mut trouble, closing);
        }
        trouble.tell(&self.endpoint, true);
    }

    /// Waits for a message, and takes those that have come with it.
    fn receive(
        &self,
        message: &mut zmq::Message,
        together: &mut Together,
        ingest: &Ingest,
        trouble: &mut DropReporter,
    ) -> zmq::Result<()> {
        together.clear();
        self.socket.recv(message, 0)?;
        let came_at = unix_now_sec();
        together.push(message, ingest, came_at, trouble);
        while together.len() < TOGETHER_MAX && self.socket.recv(message, zmq::DONTWAIT).is_ok() {
            together.push(message, ingest, came_at, trouble);
        }
        Ok(())
    }

    /// Stores the lines of messages that can be; where the store takes none, waits until it does, or `closing` is set.
    fn store(&self, ingest: &Ingest, together: &Together, trouble: &mut DropReporter, closing: &AtomicBool) {
        let came_at = unix_now_sec();
        let mut waiting: Option<Vec<usize>> = None;
        loop {
            let is_closing = closing.load(Ordering::Acquire);
            let is_waiting =
                |number: usize| waiting.as_ref().is_none_or(|waiting| waiting.binary_search(&number).is_ok());
            let lines = together.lines().filter(|(number, ..)| is_waiting(*number));
            let mut again = Vec::new();
            ingest.submit_lines(lines, Precision::ByMagnitude, came_at, |number, became| match became {
                Ok(_) => {}
                Err(IngestError::Store(unavailable)) if !unavailable.is_uncertain && !is_closing => {
                    trouble.failed = Some(format!("messages wait: {unavailable}"));
                    again.push(number);
                }
                Err(refused) => trouble.refuse(ingest, &refused),
            });
            if again.is_empty() {
                return;
            }
            again.sort_unstable();
            waiting = Some(again);
            trouble.tell(&self.endpoint, false);
            std::thread::sleep(FAILED_PAUSE);
        }
    }
}
