//! Messages to a receiver, by a PUSH socket of ZeroMQ: there is no answer, and success means that a connected peer's
//! queue has taken one. libzmq connects by itself, and connects again, but to one address of a name alone.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::url::Url;

/// Messages that wait in libzmq for the connection to take them; further ones stay in the retry queue.
const WAITING_MAX: i32 = 100;
/// How long messages on their way may take when the monitor stops.
const LINGER_MS: i32 = 1000;
/// First and longest wait before libzmq connects again.
const RECONNECT_FIRST_MS: i32 = 250;
const RECONNECT_LONGEST_MS: i32 = 5000;
/// How often the receiver is asked whether it is there: a connection that has died in silence is given up after it.
const HEARTBEAT_MS: i32 = 5000;
/// How long an address may take nothing before the name's next address is tried.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The same for an address that has taken messages, which a disconnect could lose.
const KNOWN_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Sends messages to one destination, whose name may have several addresses.
pub(super) struct Sender {
    socket: zmq::Socket,
    url: Url,
    current: Option<Connection>,
}

/// The address that the socket connects to.
struct Connection {
    address: SocketAddr,
    /// When it took a message last, or else when it was connected to.
    taken_at: Instant,
    has_taken: bool,
}

impl Sender {
    /// A sender to a host and a port. Nothing is resolved yet.
    pub(super) fn new(url: &Url) -> zmq::Result<Self> {
        let socket = zmq::Context::new().socket(zmq::PUSH)?;
        // Without a connection a send fails, instead of seeming to have succeeded.
        socket.set_immediate(true)?;
        socket.set_sndhwm(WAITING_MAX)?;
        socket.set_linger(LINGER_MS)?;
        socket.set_reconnect_ivl(RECONNECT_FIRST_MS)?;
        socket.set_reconnect_ivl_max(RECONNECT_LONGEST_MS)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_ipv6(true)?;
        Ok(Self { socket, url: url.clone(), current: None })
    }

    /// Gives a message to libzmq.
    ///
    /// # Errors
    /// Why libzmq has not taken it.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), String> {
        let silence_max = |current: &Connection| if current.has_taken { KNOWN_SILENCE_MAX } else { SILENCE_MAX };
        if self.current.as_ref().is_none_or(|current| current.taken_at.elapsed() >= silence_max(current)) {
            self.connect_next()?;
        }
        match self.socket.send(message, zmq::DONTWAIT) {
            Ok(()) => {
                if let Some(current) = &mut self.current {
                    (current.taken_at, current.has_taken) = (Instant::now(), true);
                }
                Ok(())
            }
            Err(zmq::Error::EAGAIN) => Err(format!("no connection, or {WAITING_MAX} messages wait for it already")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Resolves the name, and connects to the address that follows the current one.
    fn connect_next(&mut self) -> Result<(), String> {
        let addresses = self.url.authority().to_socket_addrs();
        let addresses =
            Vec::from_iter(addresses.map_err(|error| format!("the host name cannot be resolved: {error}"))?);
        let address = after(&addresses, self.current.as_ref().map(|current| current.address));
        let address = address.ok_or("the host name has no address")?;
        if let Some(current) = self.current.take_if(|current| current.address != address) {
            let disconnected = self.socket.disconnect(&format!("tcp://{}", current.address));
            disconnected.map_err(|error| format!("cannot disconnect from {}: {error}", current.address))?;
        }
        if self.current.is_none() {
            let connected = self.socket.connect(&format!("tcp://{address}"));
            connected.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        }
        self.current = Some(Connection { address, taken_at: Instant::now(), has_taken: false });
        Ok(())
    }
}

/// The address that follows `current`, or else the first.
fn after(addresses: &[SocketAddr], current: Option<SocketAddr>) -> Option<SocketAddr> {
    let place = addresses.iter().position(|address| Some(*address) == current).map_or(0, |place| place + 1);
    addresses.get(place).or(addresses.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_name_take_turns() {
        let [one, two, other]: [SocketAddr; 3] =
            ["[::1]:5557", "127.0.0.1:5557", "10.0.0.1:5557"].map(|address| address.parse().unwrap());
        assert_eq!((after(&[], None), after(&[], Some(one))), (None, None));
        assert_eq!((after(&[one, two], None), after(&[one, two], Some(one))), (Some(one), Some(two)));
        assert_eq!((after(&[one, two], Some(two)), after(&[one, two], Some(other))), (Some(one), Some(one)));
        assert_eq!(after(&[one], Some(one)), Some(one));
    }

    #[test]
    fn an_address_that_takes_nothing_gives_way() {
        let context = zmq::Context::new();
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.set_rcvtimeo(30_000).unwrap();
        receiver.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = receiver.get_last_endpoint().unwrap().unwrap();
        let mut sender = Sender::new(&Url::parse(&endpoint.replace("tcp", "zmq")).unwrap()).unwrap();
        // As if the name had led to another address first, which has taken nothing for long.
        let dead = "127.83.1.9:9".parse().unwrap();
        sender.socket.connect(&format!("tcp://{dead}")).unwrap();
        let taken_at = Instant::now().checked_sub(SILENCE_MAX).unwrap();
        sender.current = Some(Connection { address: dead, taken_at, has_taken: false });
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(why) = sender.send(b"a sample") {
            assert!(why.contains("no connection") && Instant::now() < deadline, "{why}");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(receiver.recv_bytes(0).unwrap(), b"a sample");
    }
}
