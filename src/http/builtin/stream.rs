//! A client's socket, with TLS over it or not. It never waits.

#[cfg(feature = "tls")]
use std::io::Read;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};

use rustix::buffer::spare_capacity;
#[cfg(feature = "tls")]
use rustls::ServerConnection;

use super::readiness::Ready;
use crate::api::ClientTransport;
#[cfg(feature = "tls")]
use crate::auth::{Identity, identity_of};

/// Encrypted bytes that may wait for a client to take them.
#[cfg(feature = "tls")]
const ENCRYPTED_BYTES_MAX: usize = 16 << 10;

/// One socket.
pub(super) struct Stream {
    socket: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<Box<ServerConnection>>,
    /// The owner of the certificate that was verified.
    #[cfg(feature = "tls")]
    identity: Option<Identity>,
}

impl Stream {
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            identity: None,
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(socket: TcpStream, mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        Self { tls: Some(Box::new(tls)), ..Self::plain(socket) }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether a handshake goes before requests.
    pub(super) fn is_handshaking(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        #[cfg(not(feature = "tls"))]
        false
    }

    /// How requests come, and who sends them.
    pub(super) fn transport(&self) -> ClientTransport<'_> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return ClientTransport::Tls(self.identity.as_ref());
        }
        ClientTransport::Plain
    }

    /// Reads what there is into the spare capacity of `into`; with TLS into as much as it takes. Takes note of whether more
    /// may be there already, and tells whether the other side sends nothing more.
    ///
    /// # Errors
    /// Those of the socket, and of TLS as [`io::ErrorKind::InvalidData`].
    pub(super) fn read(&mut self, into: &mut Vec<u8>, ready: &mut Ready) -> io::Result<bool> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            let (mut socket, was_handshaking) =
                (Watched { socket: &self.socket, is_drained: true }, tls.is_handshaking());
            let read = would_block(tls.read_tls(&mut socket))?;
            ready.is_readable = !socket.is_drained || ready.has_ended;
            let came = tls.process_new_packets();
            // After an error that is the alert which says why.
            while tls.wants_write() && would_block(tls.write_tls(&mut &self.socket))?.is_some() {}
            let came = came.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if was_handshaking && !tls.is_handshaking() {
                self.identity = tls.peer_certificates().and_then(identity_of);
            }
            let before = into.len();
            into.resize(before + came.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut into[before..])?;
            return Ok(read == Some(0) || came.peer_has_closed());
        }
        let spare = into.capacity() - into.len();
        let read = would_block(rustix::io::read(&self.socket, spare_capacity(into)).map_err(io::Error::from))?;
        ready.is_readable = read == Some(spare) || ready.has_ended;
        Ok(read == Some(0))
    }

    /// Writes as much as is taken now, and tells how much; `None` where nothing is taken until the socket is writable.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            let taken = tls.writer().write(bytes)?;
            while tls.wants_write() {
                if would_block(tls.write_tls(&mut &self.socket))?.is_none() {
                    return Ok(Some(taken).filter(|taken| *taken > 0));
                }
            }
            return Ok(Some(taken));
        }
        would_block((&self.socket).write(bytes))
    }

    /// Whether encrypted bytes wait to be sent.
    pub(super) fn has_output(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Tells the other side that nothing follows.
    pub(super) fn end(&mut self) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // One that does not take it is told by the end of the connection.
            let _ = tls.write_tls(&mut &self.socket);
        }
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// `None` where the socket has nothing, or takes nothing, now.
fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A socket that is watched for whether a read has left nothing.
#[cfg(feature = "tls")]
struct Watched<'s> {
    socket: &'s TcpStream,
    is_drained: bool,
}

#[cfg(feature = "tls")]
impl Read for Watched<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(to)?;
        self.is_drained = read < to.len();
        Ok(read)
    }
}
