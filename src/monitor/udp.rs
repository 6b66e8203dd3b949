//! Datagrams to a receiver: there is no answer, and success means that one has left this host.
//!
//! A datagram is sent by the thread that reads this host: it never waits, and a thread of its own would cost as much as
//! the reading. What does wait, the look-up of a name, has its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::message;
use super::token_refresher::Token;
use crate::sample::Sample;
use crate::url::Url;

/// How often a name is looked up again, since nothing tells that it has moved.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);
/// The same while sending fails.
const LOOK_UP_EVERY_IN_NEED: Duration = Duration::from_secs(5);

/// Sends samples to one destination.
pub(super) struct Sender {
    url: Url,
    /// The destination where the URL has it as an address, which needs no look-up.
    address: Option<SocketAddr>,
    socket: io::Result<UdpSocket>,
    looked_up_at: Instant,
    /// Tells the outcome of the look-up that is on its way.
    look_up: Option<mpsc::Receiver<io::Result<UdpSocket>>>,
    token: Arc<Token>,
}

impl Sender {
    /// Begins to look up where `url`, a host and a port, is. Each datagram begins with `token`.
    pub(super) fn new(url: &Url, token: Arc<Token>) -> Self {
        let mut sender = Self {
            url: url.clone(),
            address: url.authority().parse().ok(),
            socket: Err(io::Error::other("the name is still being looked up")),
            looked_up_at: Instant::now(),
            look_up: None,
            token,
        };
        sender.connect();
        sender
    }

    /// Sends a sample, and says in the log what came of it.
    pub(super) fn publish(&mut self, sample: &Sample<'_>) {
        self.renew();
        // This thread must not wait: until there is a token, samples are not sent.
        let token = self.token.current(Duration::ZERO).map_err(io::Error::other);
        match token.and_then(|token| self.send(message(sample, token.as_deref()).as_bytes())) {
            Ok(()) => log::info!("Publish was successful to {}", self.url),
            Err(error) => {
                log::error!("Publish failed to {}, details: {error}", self.url);
                if self.looked_up_at.elapsed() >= LOOK_UP_EVERY_IN_NEED {
                    self.connect();
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let socket = self.socket.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let sent = socket.send(datagram);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // The one before was turned away, which is what there is to tell; this one leaves all the same.
            socket.send(datagram)?;
        }
        sent.map(drop)
    }

    /// Takes the outcome of a look-up that is done, and begins another when it is time.
    fn renew(&mut self) {
        match self.look_up.as_ref().map(mpsc::Receiver::try_recv) {
            Some(Ok(found)) => {
                self.look_up = None;
                // An address that was good is kept while its name cannot be looked up.
                if found.is_ok() || self.socket.is_err() {
                    self.socket = found;
                }
            }
            Some(Err(TryRecvError::Disconnected)) => self.look_up = None,
            Some(Err(TryRecvError::Empty)) => {}
            None if self.address.is_none() && self.looked_up_at.elapsed() >= LOOK_UP_EVERY => self.connect(),
            None => {}
        }
    }

    /// Makes the socket anew: what is connected keeps the address that this host had then.
    fn connect(&mut self) {
        if self.look_up.is_some() {
            return;
        }
        self.looked_up_at = Instant::now();
        if let Some(address) = self.address {
            self.socket = connect(address);
            return;
        }
        let (tell, found) = mpsc::channel();
        let authority = self.url.authority().to_owned();
        let look_up = move || drop(tell.send(look_up(&authority)));
        match thread::Builder::new().name("look-up".into()).spawn(look_up) {
            Ok(_) => self.look_up = Some(found),
            Err(error) => log::error!("No thread to look up {}: {error}", self.url),
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
