//! Messages of line protocol, by a PULL socket of ZeroMQ.
//!
//! Nothing is dropped here to make room. Past the high-water mark libzmq stops reading a peer's connection, and the
//! peer's own queue fills until its send waits or fails. A store that takes nothing for a while holds the socket back
//! in the same way: a line waits until it can be stored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{DRAIN_WITHIN, FAILED_PAUSE, LOOK_EVERY, MESSAGE_BYTES_MAX, Trouble};
use crate::ingest::{Ingest, Refused};
use crate::sample::line::{self, Precision};
use crate::server::unix_now_sec;
use crate::trust::split_token;

/// Messages of one peer that wait in this process: 32 MB of the longest, and a millisecond of the fastest. It is whole
/// messages that libzmq counts: the parts of one that is never ended have no limit.
const WAITING_MAX: i32 = 1000;
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
        let mut message = zmq::Message::new();
        let mut trouble = Trouble::default();
        while !closing.load(Ordering::Acquire) {
            match self.socket.recv(&mut message, 0) {
                Ok(()) => self.store(ingest, &message, &mut trouble, closing),
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
        while Instant::now() < drain_until && self.socket.recv(&mut message, 0).is_ok() {
            self.store(ingest, &message, &mut trouble, closing);
        }
        trouble.tell(&self.endpoint, true);
    }

    /// Stores the lines of a message that can be; where the store takes none, waits until it does, or `closing` is set.
    fn store(&self, ingest: &Ingest, message: &[u8], trouble: &mut Trouble, closing: &AtomicBool) {
        let came_at = unix_now_sec();
        let (token, text) = split_token(message);
        let speaker = match ingest.admit(token, came_at) {
            Ok(speaker) => speaker,
            Err(refusal) => return trouble.refuse_all(ingest, text, &refusal),
        };
        for (_, line) in line::lines(text) {
            loop {
                match ingest.submit_line(&speaker, line, Precision::ByMagnitude, None, came_at) {
                    Ok(_) => break,
                    Err(Refused::Unavailable(unavailable)) if !closing.load(Ordering::Acquire) => {
                        trouble.failed = Some(format!("messages wait: {unavailable}"));
                        trouble.tell(&self.endpoint, false);
                        std::thread::sleep(FAILED_PAUSE);
                    }
                    Err(refused) => {
                        trouble.refuse(ingest, &refused);
                        break;
                    }
                }
            }
        }
    }
}
