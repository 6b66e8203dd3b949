//! A client: its socket and its connection. It moves between the loop and the threads that may wait.

use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::connection::{Buffers, Connection, Context, Now, Pause};
use super::limits::ConnectionGuard;
use super::readiness::Ready;
use super::shared::Shared;
use super::stream::Stream;
use crate::api::ClientTransport;

/// Longest time for a handshake: two round trips, and a slow client's arithmetic.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long a client's certificate is good for without another look at it: as long as a token by it, commonly.
const VERIFIED_FOR: Duration = Duration::from_secs(300);

/// The other side of a connection.
struct Peer {
    stream: Stream,
    guard: ConnectionGuard,
    accepted: Instant,
}

impl Peer {
    fn context<'c>(&'c self, shared: &'c Shared, now: Now, waker: Option<&'c Waker>) -> Context<'c> {
        let transport = self.stream.transport();
        let is_verified = matches!(transport, ClientTransport::Tls(Some(_)));
        let must_verify_again = is_verified && now.instant.duration_since(self.accepted) >= VERIFIED_FOR;
        Context {
            api: &shared.api,
            budget: &shared.budget,
            transport,
            peer: Some(self.guard.address),
            now,
            is_closing: must_verify_again || shared.is_draining(),
            waker,
        }
    }
}

/// One client.
pub(super) struct Client {
    peer: Peer,
    connection: Connection,
    /// What the socket may be ready for.
    pub(super) ready: Ready,
    /// Whether the client sends nothing more, and whether it was told that this side does not.
    has_ended: bool,
    was_told_end: bool,
}

impl Client {
    pub(super) fn new(stream: Stream, guard: ConnectionGuard, now: Instant) -> Self {
        let (peer, connection) = (Peer { stream, guard, accepted: now }, Connection::new(now));
        let ready = Ready { is_readable: true, has_ended: false };
        Self { peer, connection, ready, has_ended: false, was_told_end: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.peer.stream.socket()
    }

    /// Reads what there is, answers it, and sends the answers, each as far as it goes without waiting; without a
    /// `waker` the store may be waited for. A panic costs this connection alone.
    pub(super) fn proceed(&mut self, shared: &Shared, buffers: &mut Buffers, now: Now, waker: Option<&Waker>) -> Pause {
        self.connection.borrow(buffers);
        let proceeded = catch_unwind(AssertUnwindSafe(|| self.try_proceed(shared, now, waker)));
        let pause = proceeded.unwrap_or(Ok(Pause::End)).unwrap_or_else(|error| {
            self.note_error(&error, shared);
            Pause::End
        });
        self.connection.give_back(buffers);
        pause
    }

    fn try_proceed(&mut self, shared: &Shared, now: Now, waker: Option<&Waker>) -> io::Result<Pause> {
        if !self.flush(now)? && !self.connection.has_begun_sample() {
            return Ok(Pause::Output);
        }
        if self.ready.is_readable && self.connection.wants_input() {
            self.has_ended = self.peer.stream.read(self.connection.input(), &mut self.ready)?;
        }
        if self.peer.stream.is_handshaking() {
            return if self.has_ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(self.wait()) };
        }
        loop {
            let pause = self.connection.advance(&self.peer.context(shared, now, waker));
            // A sample that the store has begun goes on all the same. The worker gives a client that waits for one no other turn.
            let is_of_sample = matches!(pause, Pause::Sample | Pause::Store) && self.connection.has_begun_sample();
            if !self.flush(now)? && !is_of_sample {
                return Ok(Pause::Output);
            }
            match pause {
                Pause::Output => {}
                Pause::Input => break,
                pause => return Ok(pause),
            }
        }
        if (self.has_ended || self.connection.is_closing()) && !self.was_told_end {
            self.was_told_end = true;
            self.peer.stream.end();
        }
        Ok(if self.has_ended { Pause::End } else { self.wait() })
    }

    fn wait(&self) -> Pause {
        if self.ready.is_readable { Pause::Others } else { Pause::Input }
    }

    /// Sends what there is to send, and tells whether all of it was.
    fn flush(&mut self, now: Now) -> io::Result<bool> {
        while self.connection.has_output() || self.peer.stream.has_output() {
            let Some(sent) = self.peer.stream.write(self.connection.output())? else { return Ok(false) };
            self.connection.sent(sent, now.instant);
        }
        Ok(true)
    }

    /// When its time is over, unless it goes on.
    pub(super) fn deadline(&self) -> Instant {
        if self.peer.stream.is_handshaking() {
            self.peer.accepted + HANDSHAKE_WITHIN
        } else {
            self.connection.deadline()
        }
    }

    /// Takes note that its time is over.
    pub(super) fn expire(&mut self, shared: &Shared, buffers: &mut Buffers, now: Now, waker: &Waker) -> Pause {
        let waker = Some(waker);
        if self.peer.stream.is_handshaking() {
            self.note_error(&io::ErrorKind::TimedOut.into(), shared);
        } else if self.connection.expire(&self.peer.context(shared, now, waker)) {
            return self.proceed(shared, buffers, now, waker);
        }
        Pause::End
    }

    fn note_error(&self, error: &io::Error, shared: &Shared) {
        if self.peer.stream.is_handshaking() {
            shared.api.stats().handshakes_failed.add(1);
            #[cfg(feature = "tls")]
            super::tls::log_certificate_error(&shared.api, error);
        }
        log::debug!("A connection ended: {error}");
    }

    /// Whether it can go on: [`Connection::can_go_on`].
    pub(super) fn can_go_on(&self, now: Now) -> bool {
        self.connection.can_go_on(now.instant)
    }

    /// Whether its last request was for something to read.
    pub(super) fn is_reader(&self) -> bool {
        self.connection.is_reader()
    }

    /// Whether it is between two requests.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_idle() && !self.peer.stream.has_output()
    }
}
