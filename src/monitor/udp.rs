//! Datagrams to a receiver: there is no answer, and success means that one has left this host.
//!
//! A datagram is sent by the thread that reads this host: it never waits, and a thread of its own would cost as much as
//! the reading. What does wait, the look-up of a name, has its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sample::Sample;
use crate::sample::line::{Precision, encode_line};

/// How often a name is looked up again, since nothing tells that it has moved.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);
/// The same while sending fails.
const LOOK_UP_EVERY_IN_NEED: Duration = Duration::from_secs(5);

/// Sends samples to one destination.
pub(super) struct Sender {
    url: String,
    authority: String,
    socket: io::Result<UdpSocket>,
    looked_up_at: Instant,
    look_up: Option<mpsc::Receiver<io::Result<UdpSocket>>>,
}

impl Sender {
    /// Begins to look up where `authority`, a host and a port, is. The log calls the destination `url`.
    pub(super) fn new(authority: &str, url: String) -> Self {
        let socket = match authority.parse() {
            Ok(address) => connect(address),
            Err(_) => Err(io::Error::other("the name is still being looked up")),
        };
        let (looked_up_at, authority) = (Instant::now(), authority.to_owned());
        let mut sender = Self { url, authority, socket, looked_up_at, look_up: None };
        if sender.socket.is_err() {
            sender.begin_look_up();
        }
        sender
    }

    /// Sends a sample, and says in the log what came of it. An error tells that it has not left: mostly because the
    /// datagram before it was turned away.
    pub(super) fn publish(&mut self, sample: &Sample<'_>) {
        self.renew();
        let line = encode_line(sample, Precision::Nanoseconds);
        let sent = match &self.socket {
            Ok(socket) => socket.send(line.as_bytes()).map(drop),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match sent {
            Ok(()) => log::info!("Publish was successful to {}", self.url),
            Err(error) => {
                log::error!("Publish failed to {}, details: {error}", self.url);
                if self.looked_up_at.elapsed() >= LOOK_UP_EVERY_IN_NEED {
                    self.begin_look_up();
                }
            }
        }
    }

    /// Takes the socket of a look-up that is done, and begins another when it is time.
    fn renew(&mut self) {
        match self.look_up.as_ref().map(mpsc::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => {}
            None | Some(Err(TryRecvError::Disconnected)) => {
                if self.looked_up_at.elapsed() >= LOOK_UP_EVERY {
                    self.begin_look_up();
                }
            }
            Some(Ok(found)) => {
                self.look_up = None;
                // An address that was good is kept while its name cannot be looked up.
                if found.is_ok() || self.socket.is_err() {
                    self.socket = found;
                }
            }
        }
    }

    /// An address that stands in the URL itself needs no look-up, and has none unless its socket could not be had.
    fn begin_look_up(&mut self) {
        self.looked_up_at = Instant::now();
        if self.socket.is_ok() && self.authority.parse::<SocketAddr>().is_ok() {
            return;
        }
        let (tell, found) = mpsc::channel();
        let authority = self.authority.clone();
        let look_up = move || drop(tell.send(look_up(&authority)));
        match thread::Builder::new().name("look-up".into()).spawn(look_up) {
            Ok(_) => self.look_up = Some(found),
            Err(error) => log::error!("No thread to look up {}: {error}", self.authority),
        }
    }
}

/// A socket for the first address of a name that one can be had for.
fn look_up(authority: &str) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match connect(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let from: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from)?;
    socket.connect(address)?;
    // A send buffer that is full loses a datagram, and must not hold up the reading.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
