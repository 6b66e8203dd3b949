//! The UDP listener: datagrams of line protocol.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};

use super::batch::{Batch, DRAIN_WITHIN, DropReporter, FAILED_PAUSE, MESSAGE_BYTES_MAX, POLL_EVERY};
use crate::ingest::Ingest;

/// Datagrams read by one system call.
const DATAGRAMS_MAX: usize = 64;
/// Receive buffer that the kernel is asked for, in bytes: it holds a datagram of each of ten thousand hosts.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// The reported size of a receive buffer over the one asked for: Linux doubles it for bookkeeping (`socket(7)`).
const BUFFER_REPORTED_TIMES: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

/// A socket that receives datagrams.
pub(super) struct Socket {
    socket: UdpSocket,
    address: SocketAddr,
    /// Receive buffer in bytes, with the kernel's bookkeeping.
    buffer_bytes: usize,
}

impl Socket {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(POLL_EVERY))?;
        // Only the superuser may go past net.core.rmem_max; anybody else gets as much as that.
        #[cfg(target_os = "linux")]
        let is_forced = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_ok();
        #[cfg(not(target_os = "linux"))]
        let is_forced = false;
        if !is_forced {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
        }
        #[cfg(target_os = "linux")]
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let buffer_bytes = nix::sys::socket::getsockopt(&socket, sockopt::RcvBuf)?;
        let address = socket.local_addr()?;
        if buffer_bytes < RECEIVE_BUFFER_BYTES * BUFFER_REPORTED_TIMES {
            log::warn!(
                "udp://{address}: the receive buffer is smaller than {RECEIVE_BUFFER_BYTES} bytes; net.core.rmem_max limits it"
            );
        }
        Ok(Self { socket, address, buffer_bytes })
    }

    pub(super) fn description(&self) -> String {
        format!("udp://{}, with a receive buffer of {} bytes", self.address, self.buffer_bytes)
    }

    /// Stores what is received, until `closing` is set and no datagram waits any more.
    pub(super) fn run(&self, ingest: &Ingest, closing: &AtomicBool) {
        let (mut buffer, mut batch, mut drops) = (Buffer::new(), Batch::default(), DropReporter::default());
        let (name, mut drain_until) = (format!("udp://{}", self.address), None);
        loop {
            let is_closing = closing.load(Ordering::Acquire);
            let drain_until = is_closing.then(|| *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_WITHIN));
            let mut received_at = None;
            batch.clear();
            let received = buffer.receive(&self.socket, is_closing, |datagram| match datagram {
                Datagram::Whole(text) => {
                    batch.push(text, ingest, *received_at.get_or_insert_with(|| ingest.clock().now_sec()), &mut drops);
                }
                Datagram::Truncated => {
                    drops.truncated += 1;
                    ingest.stats().datagrams_truncated.add(1);
                }
                Datagram::Dropped(count) => {
                    drops.dropped += u64::from(count);
                    ingest.stats().datagrams_dropped.add(count as usize);
                }
            });
            if let Some(now) = received_at {
                batch.submit(ingest, now, now, |_| true, |_, error| drops.add(ingest, &error));
            }
            match received {
                Ok(()) if drain_until.is_some_and(|until| Instant::now() > until) => break,
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if is_closing {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    drops.failed = Some(error.to_string());
                    std::thread::sleep(FAILED_PAUSE);
                }
            }
            drops.log(&name, false);
        }
        drops.log(&name, true);
    }
}

/// What a call to receive gives.
enum Datagram<'a> {
    Whole(&'a [u8]),
    /// A datagram that was longer than the limit.
    Truncated,
    /// How many datagrams the kernel has dropped since the last such report.
    Dropped(u32),
}

/// The memory for the datagrams of one call.
struct Buffer {
    bytes: Vec<u8>,
    #[cfg(target_os = "linux")]
    dropped: u32,
}

#[cfg(target_os = "linux")]
impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; DATAGRAMS_MAX * MESSAGE_BYTES_MAX], dropped: 0 }
    }

    /// Receives the datagrams that are there. Waits for one, unless `at_once` is set.
    fn receive(&mut self, socket: &UdpSocket, at_once: bool, mut take: impl FnMut(Datagram<'_>)) -> io::Result<()> {
        use nix::cmsg_space;
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg};
        use std::io::IoSliceMut;
        use std::os::fd::AsRawFd;

        // The kernel writes lengths into the headers, so that they serve for one call.
        let mut headers = MultiHeaders::<()>::preallocate(DATAGRAMS_MAX, Some(cmsg_space!(u32)));
        let mut slices: Vec<_> =
            self.bytes.chunks_exact_mut(MESSAGE_BYTES_MAX).map(|slice| [IoSliceMut::new(slice)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE | if at_once { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        for datagram in recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)? {
            for message in datagram.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::RxqOvfl(dropped) = message
                    && dropped != self.dropped
                {
                    take(Datagram::Dropped(dropped.wrapping_sub(self.dropped)));
                    self.dropped = dropped;
                }
            }
            if datagram.flags.contains(MsgFlags::MSG_TRUNC) {
                take(Datagram::Truncated);
            } else {
                take(Datagram::Whole(datagram.iovs().next().unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// Where there is no `recvmmsg`, one datagram a call, and no count of what the kernel dropped.
#[cfg(not(target_os = "linux"))]
impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; MESSAGE_BYTES_MAX + 1] }
    }

    fn receive(&mut self, socket: &UdpSocket, at_once: bool, mut take: impl FnMut(Datagram<'_>)) -> io::Result<()> {
        socket.set_nonblocking(at_once)?;
        let length = socket.recv(&mut self.bytes)?;
        take(if length > MESSAGE_BYTES_MAX { Datagram::Truncated } else { Datagram::Whole(&self.bytes[..length]) });
        Ok(())
    }
}
