//! Datagrams to a receiver: there is no answer, and success means that one has left this host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// How often the name of a destination is looked up again, since nothing tells that it has moved.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

/// Sends datagrams to one destination.
pub(super) struct Sender {
    authority: String,
    connected: Option<(UdpSocket, Instant)>,
}

impl Sender {
    pub(super) fn new(authority: &str) -> Self {
        Self { authority: authority.to_owned(), connected: None }
    }

    /// Sends one datagram. An error tells that it has not left, or that the one before has been turned away.
    pub(super) fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = match self.connected.take() {
            Some((socket, since)) if since.elapsed() < LOOK_UP_EVERY => (socket, since),
            _ => (connect(&self.authority)?, Instant::now()),
        };
        socket.0.send(datagram)?;
        self.connected = Some(socket);
        Ok(())
    }
}

fn connect(authority: &str) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        let from: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        match UdpSocket::bind(from).and_then(|socket| socket.connect(address).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
