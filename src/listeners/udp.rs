//! Datagrams of line protocol.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};

use super::{DRAIN_WITHIN, DropReporter, FAILED_PAUSE, LOOK_EVERY, MESSAGE_BYTES_MAX, Together};
use crate::clock::unix_now_sec;
use crate::ingest::Ingest;
use crate::sample::line::Precision;

/// Datagrams read by one system call.
const BATCH: usize = 64;
/// Bytes the kernel is asked to hold until they are read: a fleet of ten thousand that reports in one moment.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// How many times what was asked for the kernel reports: Linux doubles it for its own bookkeeping (`socket(7)`).
const BUFFER_REPORTED_TIMES: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

/// A socket that takes datagrams.
pub(super) struct Socket {
    socket: UdpSocket,
    address: SocketAddr,
    /// Bytes the kernel holds, of its own bookkeeping too.
    buffer_bytes: usize,
}

impl Socket {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
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

    /// Stores what comes, until `closing` is set and nothing waits any more.
    pub(super) fn run(&self, ingest: &Ingest, closing: &AtomicBool) {
        let (mut batch, mut together) = (Batch::new(), Together::default());
        let mut trouble = DropReporter::default();
        let (name, mut drain_until) = (format!("udp://{}", self.address), None);
        loop {
            let is_closing = closing.load(Ordering::Acquire);
            let drain_until = is_closing.then(|| *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_WITHIN));
            let mut came_at = None;
            together.clear();
            let received = batch.receive(&self.socket, is_closing, |datagram| match datagram {
                Datagram::Whole(text) => {
                    together.push(text, ingest, *came_at.get_or_insert_with(unix_now_sec), &mut trouble);
                }
                Datagram::Truncated => {
                    trouble.truncated += 1;
                    ingest.stats().datagrams_truncated.add(1);
                }
                Datagram::Dropped(count) => {
                    trouble.dropped += u64::from(count);
                    ingest.stats().datagrams_dropped.add(count as usize);
                }
            });
            if let Some(came_at) = came_at {
                store(ingest, &together, came_at, &mut trouble);
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
                    trouble.failed = Some(error.to_string());
                    std::thread::sleep(FAILED_PAUSE);
                }
            }
            trouble.tell(&name, false);
        }
        trouble.tell(&name, true);
    }
}

/// Stores the lines of some datagrams that can be.
fn store(ingest: &Ingest, together: &Together, came_at: u64, trouble: &mut DropReporter) {
    ingest.submit_lines(together.lines(), Precision::ByMagnitude, came_at, |_, became| {
        if let Err(refused) = became {
            trouble.refuse(ingest, &refused);
        }
    });
}

/// What a receive call tells of.
enum Datagram<'a> {
    Whole(&'a [u8]),
    /// It was longer than the limit.
    Truncated,
    /// So many were dropped by the kernel since it was last told.
    Dropped(u32),
}

/// Room for the datagrams of one call.
struct Batch {
    buffer: Vec<u8>,
    #[cfg(target_os = "linux")]
    dropped: u32,
}

#[cfg(target_os = "linux")]
impl Batch {
    fn new() -> Self {
        Self { buffer: vec![0; BATCH * MESSAGE_BYTES_MAX], dropped: 0 }
    }

    /// Waits for a datagram, or with `at_once` does not, and takes those that have come with it.
    fn receive(&mut self, socket: &UdpSocket, at_once: bool, mut take: impl FnMut(Datagram<'_>)) -> io::Result<()> {
        use nix::cmsg_space;
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg};
        use std::io::IoSliceMut;
        use std::os::fd::AsRawFd;

        // The kernel leaves in the headers how much room it took of them, so they serve for one call.
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, Some(cmsg_space!(u32)));
        let mut slices: Vec<_> =
            self.buffer.chunks_exact_mut(MESSAGE_BYTES_MAX).map(|room| [IoSliceMut::new(room)]).collect();
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
impl Batch {
    fn new() -> Self {
        Self { buffer: vec![0; MESSAGE_BYTES_MAX + 1] }
    }

    fn receive(&mut self, socket: &UdpSocket, at_once: bool, mut take: impl FnMut(Datagram<'_>)) -> io::Result<()> {
        socket.set_nonblocking(at_once)?;
        let length = socket.recv(&mut self.buffer)?;
        take(if length > MESSAGE_BYTES_MAX { Datagram::Truncated } else { Datagram::Whole(&self.buffer[..length]) });
        Ok(())
    }
}
