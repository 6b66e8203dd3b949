//! Which connection it is that has a client's address and port now.
//!
//! A client's port is free at once where its connection was reset, or was closed by the door first, and its next connection
//! may have it within the second. The kernel gives each connection a number of its own, the cookie of `sock_diag(7)`,
//! which anyone may ask for.

use std::net::SocketAddr;

/// Tells the connections of a door apart.
pub(super) struct Cookies {
    /// Where the door listens.
    server: SocketAddr,
    /// Whether the kernel answers at all. It may have no `inet_diag`, which it looks for whenever it is asked.
    is_told: bool,
}

impl Cookies {
    /// Those of the door that listens at an address.
    pub(super) fn new(server: SocketAddr) -> Self {
        // Where there is no such connection it tells of the listener.
        Self { server, is_told: ask(server, server).is_some() }
    }

    /// The cookie of the connection that a client has now, while requests may come on it. `None` where it is gone, and
    /// where the kernel does not tell: of a door on all addresses, it is asked for the one that this machine would
    /// answer from by itself, which may not be the one that the client has called.
    pub(super) fn of(&self, client: SocketAddr) -> Option<u64> {
        let socket = self.is_told.then(|| ask(self.server, client)).flatten()?;
        socket.is_open.then_some(socket.cookie)
    }
}

/// A socket that the kernel has told of.
struct Socket {
    cookie: u64,
    /// Whether requests may come on it.
    is_open: bool,
}

/// What the kernel says of a client's connection to `server`.
#[cfg(target_os = "linux")]
fn ask(server: SocketAddr, client: SocketAddr) -> Option<Socket> {
    linux::ask(server, client)
}

/// The same where there is no `sock_diag`.
#[cfg(not(target_os = "linux"))]
fn ask(_server: SocketAddr, _client: SocketAddr) -> Option<Socket> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::Socket;
    use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP, NLM_F_REQUEST};
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

    /// The type of a question after a socket, and of its answer (`linux/sock_diag.h`).
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    /// Lengths of `nlmsghdr`, and of it with an `inet_diag_req_v2`, in bytes (`linux/netlink.h`, `linux/inet_diag.h`).
    const HEADER_BYTES: usize = 16;
    const REQUEST_BYTES: u32 = 72;
    /// Where an answer, an `inet_diag_msg` behind the header, has its state and its cookie.
    const STATE_AT: usize = HEADER_BYTES + 1;
    const COOKIE_AT: usize = HEADER_BYTES + 44;
    /// The states in which requests come: `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT`, in which the client has sent its end.
    const OPEN: [u8; 2] = [1, 8];

    pub(super) fn ask(server: SocketAddr, client: SocketAddr) -> Option<Socket> {
        let diag = SockProtocol::NetlinkSockDiag;
        let kernel = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, diag).ok()?;
        send(kernel.as_raw_fd(), &question(local(server, client)?, client), MsgFlags::empty()).ok()?;
        let mut answer = [0; 512];
        // It is there: the kernel answers while it is asked.
        let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
        let answer = &answer[..length];
        if answer.get(4..6)? != SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
            return None;
        }
        let cookie = u64::from_ne_bytes(answer.get(COOKIE_AT..COOKIE_AT + 8)?.try_into().ok()?);
        Some(Socket { cookie, is_open: OPEN.contains(answer.get(STATE_AT)?) })
    }

    /// This end of the connection: where the door listens on all addresses, the one that this machine answers from by itself.
    fn local(mut server: SocketAddr, client: SocketAddr) -> Option<SocketAddr> {
        if server.ip().is_unspecified() {
            let any: IpAddr =
                if client.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let probe = UdpSocket::bind((any, 0)).ok()?;
            probe.connect(client).ok()?;
            server.set_ip(probe.local_addr().ok()?.ip());
        }
        Some(server)
    }

    /// An `nlmsghdr` and an `inet_diag_req_v2` for one connection in any state.
    fn question(local: SocketAddr, client: SocketAddr) -> Vec<u8> {
        let (family, interface) = match client {
            SocketAddr::V4(_) => (AF_INET, 0),
            SocketAddr::V6(client) => (AF_INET6, client.scope_id()),
        };
        let mut question = Vec::with_capacity(REQUEST_BYTES as usize);
        question.extend(REQUEST_BYTES.to_ne_bytes());
        question.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "constants of a byte")]
        {
            question.extend((NLM_F_REQUEST as u16).to_ne_bytes());
            // The sequence and the sender, which is the kernel's to set.
            question.extend([0; 8]);
            question.extend([family as u8, IPPROTO_TCP as u8, 0, 0]);
        }
        question.extend(u32::MAX.to_ne_bytes());
        question.extend(local.port().to_be_bytes());
        question.extend(client.port().to_be_bytes());
        for end in [local, client] {
            let mut address = [0; 16];
            match end.ip() {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address = ip.octets(),
            }
            question.extend(address);
        }
        question.extend(interface.to_ne_bytes());
        // No cookie is known (INET_DIAG_NOCOOKIE).
        question.extend([0xff; 8]);
        question
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpStream;

    use super::super::bind_where_there_is;
    use super::*;

    #[test]
    fn each_connection_has_its_own_for_as_long_as_it_is_open() {
        // The last of them takes IPv4 as well.
        let doors = [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")];
        for (door, from) in doors {
            let Some(listener) = bind_where_there_is(door) else { continue };
            let server = listener.local_addr().unwrap();
            let connect = || {
                let client = TcpStream::connect((from, server.port())).unwrap();
                let accepted = listener.accept().unwrap();
                (client, accepted.0, accepted.1)
            };
            let ((kept, first, first_client), (_second_kept, _second, second_client)) = (connect(), connect());
            let cookies = Cookies::new(server);
            let cookie = cookies.of(first_client);
            assert!(cookie.is_some(), "{door}: this kernel has no inet_diag");
            assert_eq!(cookies.of(first_client), cookie);
            assert_ne!(cookies.of(second_client), cookie);
            drop(first);
            drop(kept);
            assert_eq!(cookies.of(first_client), None);
        }
    }
}
