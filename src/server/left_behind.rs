//! Connections that tiny_http never lets go.
//!
//! It answers a request of HTTP/2.0 or later with 505, and waits for itself for good before it does. Nobody is told of
//! that request, and its thread looks like any other; but the kernel knows the connection as one that its client has
//! closed and this process has not.

/// How many connections to a port of this machine their clients have closed, and the process behind it has not. Among
/// them are for a moment those that are about to be; 0 where it cannot be known.
#[cfg(target_os = "linux")]
pub(super) fn count(port: u16) -> usize {
    use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};

    let is_left = |entry: &TcpNetEntry| entry.state == TcpState::CloseWait && entry.local_address.port() == port;
    [tcp(), tcp6()].into_iter().flatten().flatten().filter(is_left).count()
}

/// The same where there is no `/proc`.
#[cfg(not(target_os = "linux"))]
pub(super) fn count(_port: u16) -> usize {
    0
}
