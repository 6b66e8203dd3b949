//! A client: its socket, its connection, and who it is. It moves between the loop and the threads that may wait.

use std::io;
use std::task::Waker;
#[cfg(feature = "tls")]
use std::time::Duration;
use std::time::Instant;

use super::connection::{Buffers, Connection, Context, Now, Pause};
use super::limits::ConnectionGuard;
use super::readiness::Ready;
use super::shared::Shared;
use super::stream::{Came, Stream};
use crate::api::ClientTransport;
use crate::auth::LastToken;
#[cfg(feature = "tls")]
use crate::auth::{Identity, identity_of};

/// Longest time for a handshake: two round trips, and a slow client's arithmetic.
#[cfg(feature = "tls")]
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long a client's certificate is good for without another look at it: as long as a token by it, commonly.
#[cfg(feature = "tls")]
const VERIFIED_FOR: Duration = Duration::from_secs(300);

/// One client.
pub(super) struct Client {
    stream: Stream,
    connection: Connection,
    who: Who,
    #[cfg(feature = "tls")]
    is_handshaking: bool,
    /// What the socket may be ready for.
    pub(super) ready: Ready,
    /// Whether the client sends nothing more, and whether it was told that this side does not.
    has_ended: bool,
    was_told_end: bool,
}

/// Who a client is.
struct Who {
    guard: ConnectionGuard,
    last_token: LastToken,
    #[cfg(feature = "tls")]
    accepted: Instant,
    #[cfg(feature = "tls")]
    is_tls: bool,
    /// The owner of the certificate that was verified.
    #[cfg(feature = "tls")]
    identity: Option<Identity>,
}

impl Who {
    fn context<'c>(&'c self, shared: &'c Shared, now: Now, waker: Option<&'c Waker>) -> Context<'c> {
        #[cfg(feature = "tls")]
        let (transport, must_verify_again) = (
            if self.is_tls { ClientTransport::Tls(self.identity.as_ref()) } else { ClientTransport::Plain },
            self.identity.is_some() && now.instant.duration_since(self.accepted) >= VERIFIED_FOR,
        );
        #[cfg(not(feature = "tls"))]
        let (transport, must_verify_again) = (ClientTransport::Plain, false);
        Context {
            api: &shared.api,
            budget: &shared.budget,
            transport,
            last_token: &self.last_token,
            peer: Some(self.guard.address()),
            now,
            is_closing: must_verify_again || shared.is_draining(),
            waker,
        }
    }
}

/// What a client is to be given next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing until its socket is ready.
    Wait,
    /// Another turn, after the others.
    Again,
    /// Another turn, when its sample is stored.
    Stored,
    /// A thread that may wait for the store.
    Store,
    /// A thread that may take long to read.
    Read,
    /// Its end.
    Close,
}

impl Client {
    pub(super) fn new(stream: Stream, guard: ConnectionGuard, now: Instant) -> Self {
        let who = Who {
            guard,
            last_token: LastToken::default(),
            #[cfg(feature = "tls")]
            accepted: now,
            #[cfg(feature = "tls")]
            is_tls: stream.session().is_some(),
            #[cfg(feature = "tls")]
            identity: None,
        };
        Self {
            #[cfg(feature = "tls")]
            is_handshaking: who.is_tls,
            stream,
            connection: Connection::new(now),
            who,
            ready: Ready { is_readable: true, has_ended: false },
            has_ended: false,
            was_told_end: false,
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Reads what there is, answers it, and sends the answers, each as far as it goes without waiting; without a
    /// `waker` the store may be waited for.
    pub(super) fn proceed(&mut self, shared: &Shared, buffers: &mut Buffers, now: Now, waker: Option<&Waker>) -> Turn {
        self.connection.borrow(buffers);
        let turn = self.try_proceed(shared, now, waker).unwrap_or_else(|error| {
            self.note_error(&error, shared, now);
            Turn::Close
        });
        self.connection.give_back(buffers);
        turn
    }

    fn try_proceed(&mut self, shared: &Shared, now: Now, waker: Option<&Waker>) -> io::Result<Turn> {
        if !self.flush(now)? {
            return Ok(Turn::Wait);
        }
        if self.ready.is_readable && self.connection.wants_input() {
            match self.stream.read(self.connection.input())? {
                Came::Bytes { may_have_more } => self.ready.is_readable = may_have_more || self.ready.has_ended,
                Came::End => (self.ready.is_readable, self.has_ended) = (false, true),
            }
        }
        if !self.is_ready() {
            return if self.has_ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(self.wait()) };
        }
        loop {
            let pause = self.connection.advance(&self.who.context(shared, now, waker));
            if !self.flush(now)? {
                return Ok(Turn::Wait);
            }
            match pause {
                Pause::Sample => return Ok(Turn::Stored),
                Pause::Store => return Ok(Turn::Store),
                Pause::Read => return Ok(Turn::Read),
                Pause::Others => return Ok(Turn::Again),
                Pause::Output => {}
                Pause::Input => break,
            }
        }
        if self.has_ended || self.connection.has_lingered() {
            self.tell_end();
            return Ok(Turn::Close);
        }
        if self.connection.is_closing() {
            self.tell_end();
        }
        Ok(self.wait())
    }

    fn wait(&self) -> Turn {
        if self.ready.is_readable { Turn::Again } else { Turn::Wait }
    }

    /// Whether requests can be answered, which a handshake goes before.
    fn is_ready(&mut self) -> bool {
        #[cfg(feature = "tls")]
        if self.is_handshaking
            && let Some(session) = self.stream.session()
        {
            self.is_handshaking = session.is_handshaking();
            self.who.identity = session.peer_certificates().and_then(identity_of);
            return !self.is_handshaking;
        }
        true
    }

    /// Sends what there is to send, and tells whether all of it was.
    fn flush(&mut self, now: Now) -> io::Result<bool> {
        while self.connection.has_output() || self.stream.has_output() {
            let Some(sent) = self.stream.write(self.connection.output())? else { return Ok(false) };
            self.connection.sent(sent, now.instant);
        }
        Ok(true)
    }

    fn tell_end(&mut self) {
        if !self.was_told_end {
            self.was_told_end = true;
            self.stream.end();
        }
    }

    /// When its time is over, unless it goes on.
    pub(super) fn deadline(&self) -> Instant {
        #[cfg(feature = "tls")]
        if self.is_handshaking {
            return self.who.accepted + HANDSHAKE_WITHIN;
        }
        self.connection.deadline()
    }

    /// Takes note that its time is over.
    pub(super) fn expire(&mut self, shared: &Shared, buffers: &mut Buffers, now: Now, waker: &Waker) -> Turn {
        #[cfg(feature = "tls")]
        if self.is_handshaking {
            self.note_error(&io::ErrorKind::TimedOut.into(), shared, now);
            return Turn::Close;
        }
        if self.connection.expire(&self.who.context(shared, now, Some(waker))) {
            self.proceed(shared, buffers, now, Some(waker))
        } else {
            Turn::Close
        }
    }

    fn note_error(&self, error: &io::Error, shared: &Shared, now: Now) {
        #[cfg(feature = "tls")]
        if self.is_handshaking {
            shared.api.stats().handshakes_failed.add(1);
            super::tls::log_certificate_error(shared.api.authorizer(), error, now.unix_sec);
        }
        #[cfg(not(feature = "tls"))]
        let _ = (shared, now);
        log::debug!("A connection ended: {error}");
    }

    /// Whether its sample is stored, or given up.
    pub(super) fn is_stored(&self, now: Now) -> bool {
        self.connection.is_stored(now.instant)
    }

    /// Whether it is between two requests.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_idle() && !self.stream.has_output()
    }
}
