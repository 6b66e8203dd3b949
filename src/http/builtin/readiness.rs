//! Which sockets are ready, by Linux's epoll. rustix has it and is linked anyway; mio would be one crate more.

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Poller;
#[cfg(target_os = "linux")]
pub(super) use linux::Poller;

/// What a socket has become ready for since it was last reported; it may be writable too.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    pub(super) is_readable: bool,
    /// Whether the other side sends nothing more. That is reported once, so that a read has to go on until the end.
    pub(super) has_ended: bool,
}

impl Ready {
    /// Adds what was reported later.
    pub(super) fn add(&mut self, later: Self) {
        self.is_readable |= later.is_readable;
        self.has_ended |= later.has_ended;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::time::Duration;

    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::event::{EventfdFlags, Timespec, eventfd};
    use rustix::fd::{AsFd, OwnedFd};
    use rustix::io::Errno;

    use super::Ready;

    /// Sockets whose readiness is taken at a time.
    const EVENTS_MAX: usize = 256;
    /// Stands for the waker among the keys.
    const WAKER: u64 = u64::MAX;

    /// The sockets that one thread waits for. A socket leaves it when it is closed.
    pub(in super::super) struct Poller {
        epoll: OwnedFd,
        waker: OwnedFd,
    }

    impl Poller {
        pub(in super::super) fn new() -> io::Result<Self> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            epoll::add(&epoll, &waker, EventData::new_u64(WAKER), EventFlags::IN | EventFlags::ET)?;
            Ok(Self { epoll, waker })
        }

        /// Reports a socket as `key` whenever it becomes ready.
        pub(in super::super) fn add(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key as u64), flags)?)
        }

        /// Ends the wait of its thread, or the next one.
        pub(in super::super) fn wake(&self) {
            // It cannot fail: the count would have to reach 2^64.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }

        /// Waits for up to `within`, below a second, and adds the keys of sockets that have become ready to `found`.
        pub(in super::super) fn wait(&self, found: &mut Vec<(usize, Ready)>, within: Duration) -> io::Result<()> {
            let within = Timespec { tv_sec: 0, tv_nsec: within.subsec_nanos().into() };
            let mut events = [const { std::mem::MaybeUninit::uninit() }; EVENTS_MAX];
            let (events, _) = match epoll::wait(&self.epoll, &mut events[..], Some(&within)) {
                Err(Errno::INTR) => return Ok(()),
                events => events?,
            };
            let events = events.iter().map(|event| (event.data.u64(), event.flags)).filter(|(key, _)| *key != WAKER);
            #[expect(clippy::cast_possible_truncation, reason = "a key was a usize before")]
            found.extend(events.map(|(key, flags)| {
                let has_ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                (key as usize, Ready { is_readable: flags != EventFlags::OUT, has_ended })
            }));
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::convert::Infallible;
    use std::io;
    use std::time::Duration;

    use rustix::fd::AsFd;

    use super::Ready;

    /// There is none: the builtin server runs on Linux only.
    pub(in super::super) struct Poller(Infallible);

    impl Poller {
        pub(in super::super) fn new() -> io::Result<Self> {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the builtin HTTP server, and so HTTPS, needs Linux"))
        }

        pub(in super::super) fn add(&self, _: impl AsFd, _: usize) -> io::Result<()> {
            match self.0 {}
        }

        pub(in super::super) fn wake(&self) {
            match self.0 {}
        }

        pub(in super::super) fn wait(&self, _: &mut Vec<(usize, Ready)>, _: Duration) -> io::Result<()> {
            match self.0 {}
        }
    }
}
