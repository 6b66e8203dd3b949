//! Connections of which tiny_http tells nobody: those that it never lets go, and those that wait for a thread.
//!
//! It answers a request of HTTP/2.0 or later with 505, and waits for itself for good before it does. Its thread looks like
//! any other; but the kernel knows the connection as one that its client has closed and this process has not. A
//! connection that was given to such a thread while it was about to be lost waits for another one, with bytes that nobody
//! reads.

/// What the kernel knows of the connections to a port of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Connections {
    /// Their clients have closed them, and the process behind the port has not. Among them are for a moment those that
    /// are about to be.
    pub(super) left: usize,
    /// They have bytes that were not read. Among them are for a moment those that have just come.
    pub(super) unread: usize,
}

/// Counts them; none where they cannot be known.
#[cfg(target_os = "linux")]
pub(super) fn count(port: u16) -> Connections {
    use procfs::net::{TcpState, tcp, tcp6};

    let mut connections = Connections::default();
    for entry in [tcp(), tcp6()].into_iter().flatten().flatten().filter(|entry| entry.local_address.port() == port) {
        connections.left += usize::from(entry.state == TcpState::CloseWait);
        // The end that a client has sent counts as a byte; a listener has the length of its queue there.
        connections.unread += usize::from(entry.rx_queue > 1 && entry.state != TcpState::Listen);
    }
    connections
}

/// The same where there is no `/proc`.
#[cfg(not(target_os = "linux"))]
pub(super) fn count(_port: u16) -> Connections {
    Connections::default()
}
