//! Messages to a receiver, by a PUSH socket of ZeroMQ: there is no answer, and success means that a connected peer's
//! queue has taken one. libzmq connects, and connects again, by itself.

/// Messages that wait in libzmq for the connection to take them; what does not fit stays in the backlog.
const WAITING_MAX: i32 = 100;
/// How long messages on their way may take when the monitor stops.
const LINGER_MS: i32 = 1000;
/// First and longest wait before libzmq connects again.
const RECONNECT_FIRST_MS: i32 = 250;
const RECONNECT_LONGEST_MS: i32 = 5000;
/// How often the receiver is asked whether it is there: a connection that has died in silence is given up after it.
const HEARTBEAT_MS: i32 = 5000;

/// Sends messages to one destination.
pub(super) struct Sender(zmq::Socket);

impl Sender {
    pub(super) fn connect(authority: &str) -> zmq::Result<Self> {
        let socket = zmq::Context::new().socket(zmq::PUSH)?;
        // Without a connection a send fails, instead of seeming to have succeeded.
        socket.set_immediate(true)?;
        socket.set_sndhwm(WAITING_MAX)?;
        socket.set_linger(LINGER_MS)?;
        socket.set_reconnect_ivl(RECONNECT_FIRST_MS)?;
        socket.set_reconnect_ivl_max(RECONNECT_LONGEST_MS)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_ipv6(true)?;
        socket.connect(&format!("tcp://{authority}"))?;
        Ok(Self(socket))
    }

    /// Gives a message to libzmq.
    pub(super) fn send(&self, message: &[u8]) -> Result<(), String> {
        match self.0.send(message, zmq::DONTWAIT) {
            Ok(()) => Ok(()),
            Err(zmq::Error::EAGAIN) => Err(format!("no connection, or {WAITING_MAX} messages wait for it already")),
            Err(error) => Err(error.to_string()),
        }
    }
}
