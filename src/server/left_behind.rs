//! Connections of which tiny_http tells nobody: those that it never lets go, and those that wait for a thread.
//!
//! It answers a request of HTTP/2.0 or later with 505, and waits for itself for good before it does. Its thread looks like
//! any other; but the kernel knows the connection as one that its client has closed and this process has not, or this
//! process has a socket of the door that a reset has left without a client. A connection that was given to such a thread
//! while it was about to be lost waits for another one, with bytes that nobody reads.

use std::net::SocketAddr;

/// What the kernel knows of the connections to a door.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Connections {
    /// Their clients have closed or reset them, and this process has not. Among them are for a moment those that are
    /// about to be.
    pub(super) left: usize,
    /// They have bytes that were not read. Among them are for a moment those that have just come.
    pub(super) unread: usize,
}

/// Counts those of the door that listens at an address; none where they cannot be known.
#[cfg(target_os = "linux")]
pub(super) fn count(door: SocketAddr) -> Connections {
    use procfs::net::TcpState;

    // The tables of this process, which it may see where it sees no others of `/proc`.
    let Ok(process) = procfs::process::Process::myself() else { return Connections::default() };
    let tables = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
    let (mut connections, mut listeners) = (Connections::default(), Vec::new());
    // Another process may have the same port of another address.
    let is_of_door = |local: SocketAddr| local.port() == door.port() && (door.ip().is_unspecified() || local == door);
    for entry in tables.filter(|entry| is_of_door(entry.local_address)) {
        if entry.state == TcpState::Listen {
            listeners.push(entry.inode);
            continue;
        }
        connections.left += usize::from(entry.state == TcpState::CloseWait);
        // The end that a client has sent counts as a byte.
        connections.unread += usize::from(entry.rx_queue > 1);
    }
    if listeners.is_empty() {
        return Connections::default();
    }
    // A door of UDP may have the same port.
    let datagrams = [process.udp(), process.udp6()].into_iter().flatten().flatten();
    let others: Vec<u64> = datagrams
        .filter(|entry| entry.local_address.port() == door.port())
        .map(|entry| entry.inode)
        .chain(listeners)
        .collect();
    connections.left += linux::unconnected(door.port()).iter().filter(|inode| !others.contains(inode)).count();
    connections
}

/// The same where there is no `/proc`.
#[cfg(not(target_os = "linux"))]
pub(super) fn count(_door: SocketAddr) -> Connections {
    Connections::default()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::fs::{self, DirEntry};
    use std::os::fd::RawFd;

    use nix::errno::Errno;
    use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};

    /// The sockets of this process at a port that have nobody at the other end, by their inodes: those that listen, those
    /// of UDP, and those that were reset, which the kernel's tables do not have any more.
    pub(super) fn unconnected(port: u16) -> HashSet<u64> {
        let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let is_unconnected = |descriptor: RawFd| {
            // It may be closed by now, or another's: nothing is done to it.
            getsockname(descriptor).is_ok_and(|here: SockaddrStorage| port_of(&here) == Some(port))
                && getpeername::<SockaddrStorage>(descriptor) == Err(Errno::ENOTCONN)
        };
        let unconnected = descriptors.filter(|entry| {
            let descriptor = entry.file_name().to_str().and_then(|name| name.parse().ok());
            descriptor.is_some_and(is_unconnected)
        });
        // The descriptors of a connection have one socket.
        let inode = |entry: DirEntry| {
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        };
        unconnected.filter_map(inode).collect()
    }

    fn port_of(address: &SockaddrStorage) -> Option<u16> {
        let v4 = address.as_sockaddr_in().map(|address| address.port());
        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.port()))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{TcpStream, UdpSocket};

    use nix::libc::linger;
    use nix::sys::socket::{setsockopt, sockopt};

    use super::super::bind_where_there_is;
    use super::*;

    #[test]
    fn clients_that_have_gone_are_seen_until_their_connections_are_closed_here_too() {
        for address in ["127.0.0.1", "::"] {
            let Some(listener) = bind_where_there_is(address) else { continue };
            let door = listener.local_addr().unwrap();
            let _datagrams = UdpSocket::bind(door).unwrap();
            let connect = || (TcpStream::connect(("localhost", door.port())).unwrap(), listener.accept().unwrap().0);
            let await_count = |left, unread| {
                let wanted = Connections { left, unread };
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
                while count(door) != wanted {
                    assert!(std::time::Instant::now() < deadline, "{:?}, not {wanted:?}", count(door));
                }
            };
            await_count(0, 0);
            let (mut reset, closed, kept) = (connect(), connect(), connect());
            let copy = reset.1.try_clone().unwrap();
            reset.0.write_all(b"x").unwrap();
            reset.0.write_all(b"y").unwrap();
            await_count(0, 1);
            setsockopt(&reset.0, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
            drop(reset.0);
            await_count(1, 0);
            drop(closed.0);
            await_count(2, 0);
            drop((reset.1, copy));
            await_count(1, 0);
            drop(closed.1);
            await_count(0, 0);
            drop(kept);
        }
    }
}
