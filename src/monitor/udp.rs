//! Datagrams to a receiver: there is no answer, and success means that one has left this host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use crate::url::Url;

/// How often the name is resolved again, since nothing says that it has moved.
const RESOLVE_EVERY: Duration = Duration::from_secs(60);
/// The same while sending fails.
const RESOLVE_EVERY_ON_FAILURE: Duration = Duration::from_secs(5);
/// Most bytes of a datagram over IPv4.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Sends datagrams to one destination, whose name may have several addresses.
pub(super) struct Sender {
    url: Url,
    addresses: Vec<SocketAddr>,
    /// The place in `addresses` of the address that datagrams go to.
    current: usize,
    /// A socket connected to it, made for the first datagram.
    socket: Option<UdpSocket>,
    resolved_at: Option<Instant>,
}

impl Sender {
    /// A sender to a host and a port. Nothing is resolved yet.
    pub(super) fn new(url: &Url) -> Self {
        Self { url: url.clone(), addresses: Vec::new(), current: 0, socket: None, resolved_at: None }
    }

    /// Sends a datagram to the address that took the one before. Where that address refuses, the others are tried.
    ///
    /// # Errors
    /// Why no address took it; it has not left this host then.
    pub(super) fn send(&mut self, datagram: &[u8]) -> Result<(), String> {
        if self.addresses.is_empty() || self.resolved_at.is_none_or(|at| at.elapsed() >= RESOLVE_EVERY) {
            self.resolve()?;
        }
        let mut failure = String::new();
        for _ in 0..self.addresses.len() {
            let address = self.addresses[self.current];
            match self.send_to(address, datagram) {
                Ok(()) => return Ok(()),
                Err(error) => failure = format!("{error}, by {address}"),
            }
            self.current = (self.current + 1) % self.addresses.len();
            self.socket = None;
        }
        if self.resolved_at.is_none_or(|at| at.elapsed() >= RESOLVE_EVERY_ON_FAILURE) {
            self.resolve()?;
        }
        Err(failure)
    }

    fn send_to(&mut self, address: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(connect(address)?),
        };
        socket.send(datagram).map(drop)
    }

    /// Resolves the name. The current address stays the current one where it is still one of the name's.
    fn resolve(&mut self) -> Result<(), String> {
        self.resolved_at = Some(Instant::now());
        let current = self.addresses.get(self.current).copied();
        match self.url.authority().to_socket_addrs().map(Vec::from_iter) {
            Ok(addresses) if !addresses.is_empty() => self.addresses = addresses,
            // Addresses that were good are kept while their name cannot be resolved.
            _ if !self.addresses.is_empty() => return Ok(()),
            Ok(_) => return Err("the host name has no address".to_owned()),
            Err(error) => return Err(format!("the host name cannot be resolved: {error}")),
        }
        self.current = self.addresses.iter().position(|address| Some(*address) == current).unwrap_or(0);
        // A connected socket keeps the address that this host had when it was made.
        self.socket = None;
        Ok(())
    }
}

fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let from: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from)?;
    socket.connect(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender to addresses that are known, without a name.
    fn sender(addresses: &[SocketAddr]) -> Sender {
        let mut sender = Sender::new(&Url::parse("udp://name.invalid:1").unwrap());
        (sender.addresses, sender.resolved_at) = (addresses.to_vec(), Some(Instant::now()));
        sender
    }

    fn receiver() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn heard(socket: &UdpSocket) -> u8 {
        let mut datagram = [0];
        assert_eq!(socket.recv(&mut datagram).unwrap(), 1);
        datagram[0]
    }

    #[test]
    fn an_address_that_refuses_gives_way_to_one_that_takes() {
        let (_, gone) = receiver();
        let (takes, address) = receiver();
        let mut sender = sender(&[gone, gone, address]);
        // Each refusal is known when the next datagram is sent, which nobody has refused: the loopback is as quick.
        for number in 1..=6 {
            assert_eq!(sender.send(&[number]), Ok(()));
        }
        assert_eq!([3, 4, 5, 6], [(); 4].map(|()| heard(&takes)));
    }

    #[test]
    fn one_address_alone_is_tried_again_when_it_has_refused() {
        let (receiver, address) = receiver();
        drop(receiver);
        let mut sender = sender(&[address]);
        assert_eq!(sender.send(&[1]), Ok(()));
        assert!(sender.send(&[2]).unwrap_err().ends_with(&format!(", by {address}")));
        let back = UdpSocket::bind(address).unwrap();
        assert_eq!(sender.send(&[2]), Ok(()));
        assert_eq!(heard(&back), 2);
    }

    #[test]
    fn a_name_without_an_address_is_an_error_each_time() {
        let mut sender = Sender::new(&Url::parse("udp://name.invalid:1").unwrap());
        for _ in 0..2 {
            assert!(sender.send(&[1]).unwrap_err().contains("cannot be resolved"));
        }
    }
}
