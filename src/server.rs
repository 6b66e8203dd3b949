//! The plain HTTP server: tiny_http 0.12, a pool of workers, a second pool for long bodies, and a watchdog.
//!
//! tiny_http accepts connections on one thread, reads each on a thread of its own, and queues the requests. It has no
//! timeouts: accepted sockets inherit them from the listener, on Linux. It stops accepting after one error: the watchdog
//! then starts another tiny_http on the same listener. `docs/limits.md` says what this server cannot do.

mod request;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tiny_http::Request;

use crate::api::Api;
use crate::http::{self, pool::Pool};
use crate::stats::{Counter, Heartbeat, PANICS};
use request::PendingBody;

/// Longest silence of a connection in seconds, between requests and within one: above the keep-alive of 60 that
/// nginx and most clients have, so that they close first.
const RECEIVE_SEC_MAX: i64 = 75;
/// Longest time in seconds for a client to take any of an answer.
const SEND_SEC_MAX: i64 = 5;
/// Long bodies that are read at the same time; each holds a thread, and memory for the body.
const BODY_READERS: usize = 64;
/// How long a worker waits for a request before it looks whether there is another tiny_http.
const RECEIVE_WAIT: Duration = Duration::from_millis(250);
/// A closing server has closed when no request has come for this long.
const CLOSE_QUIET: Duration = Duration::from_millis(250);
const CLOSE_POLL: Duration = Duration::from_millis(5);
/// The watchdog's interval.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(50);
/// Wake-up connects of an interval in which requests were served, and the time between two of an idle server.
const WAKE_UPS: u64 = 4;
const WAKE_UP_EVERY: Duration = Duration::from_secs(1);
/// How often the watchdog asks for `/health`, and how long it waits for the answer.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Unanswered probes in a row after which another tiny_http is started.
const PROBES_MISSED_MAX: u32 = 2;
/// Pause after a start of tiny_http.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// Longest time without an answer to a probe before the process calls itself unwell.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Whether a listener was shut down by this process: what tiny_http then logs as an error is none.
pub static HAS_SHUT_LISTENER: AtomicBool = AtomicBool::new(false);

/// A running server. Dropping it leaves it running: [`Server::close`] it.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What the threads of the server share.
struct Shared {
    api: Arc<Api>,
    listener: TcpListener,
    /// The tiny_http that accepts connections. Nobody waits while the lock is held.
    tiny: Mutex<Arc<tiny_http::Server>>,
    /// One worker at a time waits for a request: each that comes wakes one thread.
    turn: Mutex<()>,
    accept_failed: AtomicBool,
    worker_count: usize,
    busy_workers: AtomicUsize,
    /// Requests that workers have served.
    served: Counter,
    /// The second pool, and the requests with long bodies that it has. A connection has at most one among them, since
    /// tiny_http reads its next request behind the body.
    body_readers: Arc<Pool>,
    long_bodies: AtomicUsize,
    heartbeat: Heartbeat,
    is_closing: AtomicBool,
    /// Each answer says that its connection ends.
    is_draining: AtomicBool,
}

impl Server {
    /// Listens on `address` (port 0 picks one) and serves `api` with `workers` threads.
    ///
    /// # Errors
    /// When the address cannot be listened on, or there are no threads.
    pub fn open(address: SocketAddr, workers: usize, api: &Arc<Api>) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            api: api.clone(),
            tiny: Mutex::new(accept_on(&listener)?),
            turn: Mutex::default(),
            listener,
            accept_failed: AtomicBool::new(false),
            worker_count: workers,
            busy_workers: AtomicUsize::new(0),
            served: Counter::default(),
            body_readers: Pool::new("http-body", BODY_READERS),
            long_bodies: AtomicUsize::new(0),
            heartbeat: Heartbeat::default(),
            is_closing: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        });
        for _ in 0..workers {
            shared.spawn("http-worker", work)?;
        }
        shared.spawn("http-watchdog", move |shared| watch(shared, address))?;
        Ok(Self { address, shared })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the server is not well, if so: it does not answer.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        self.shared.heartbeat.liveness_error("the HTTP server", SILENCE_MAX)
    }

    /// Accepts no more connections, and answers what comes on those there are, with `Connection: close`, until nothing
    /// comes any more. Says whether all of it was answered within `within`; what comes later is answered too.
    #[must_use]
    pub fn close(self, within: Duration) -> bool {
        let (shared, deadline) = (self.shared, Instant::now() + within);
        shared.is_closing.store(true, Ordering::Release);
        // A shutdown resets the connections that nobody has accepted. Few new ones come while the others are kept.
        while has_waiting(&shared.listener) && Instant::now() < deadline {
            thread::sleep(CLOSE_POLL);
        }
        HAS_SHUT_LISTENER.store(true, Ordering::Release);
        // macOS refuses this, and goes on accepting.
        let _ = socket::shutdown(shared.listener.as_raw_fd(), socket::Shutdown::Read);
        shared.is_draining.store(true, Ordering::Release);
        let (mut served, mut quiet_since) = (shared.served.get(), Instant::now());
        loop {
            let now = Instant::now();
            if shared.is_busy() || shared.served.get() > served {
                (served, quiet_since) = (shared.served.get(), now);
            }
            if now - quiet_since >= CLOSE_QUIET || now >= deadline {
                return !shared.is_busy();
            }
            thread::sleep(CLOSE_POLL);
        }
    }
}

impl Shared {
    fn spawn(self: &Arc<Self>, name: &str, f: impl FnOnce(&Arc<Self>) + Send + 'static) -> io::Result<()> {
        let shared = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || f(&shared)).map(drop)
    }

    fn tiny(&self) -> MutexGuard<'_, Arc<tiny_http::Server>> {
        self.tiny.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is on its way.
    fn is_busy(&self) -> bool {
        self.busy_workers.load(Ordering::Acquire) + self.long_bodies.load(Ordering::Acquire) > 0
    }

    /// Serves a request, or has the second pool serve it.
    fn take(self: &Arc<Self>, request: Request) {
        self.busy_workers.fetch_add(1, Ordering::AcqRel);
        match PendingBody::of(&request) {
            PendingBody::None | PendingBody::Undroppable => self.serve(request),
            PendingBody::Sized | PendingBody::Unframed => {
                self.long_bodies.fetch_add(1, Ordering::AcqRel);
                let shared = self.clone();
                let job = move || {
                    shared.serve(request);
                    shared.long_bodies.fetch_sub(1, Ordering::AcqRel);
                };
                if let Err(error) = self.body_readers.run(job) {
                    log::warn!("No thread to read the body of a request with: {error}");
                    self.long_bodies.fetch_sub(1, Ordering::AcqRel);
                }
            }
        }
        self.busy_workers.fetch_sub(1, Ordering::AcqRel);
        self.served.add(1);
    }

    /// A panic costs one request, and is logged by its hook.
    fn serve(&self, request: Request) {
        drop(catch_unwind(AssertUnwindSafe(|| request::serve(&self.api, request, &self.is_draining))));
    }

    /// Starts another tiny_http on the listener. The workers move to it, and a thread serves what is still connected to
    /// the old one.
    fn reopen(self: &Arc<Self>) -> io::Result<()> {
        let new = accept_on(&self.listener)?;
        let old = std::mem::replace(&mut *self.tiny(), new);
        self.spawn("http-drainer", move |shared| drain(shared, &old))
    }
}

/// A listener whose accepted sockets inherit its timeouts too, on Linux.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = http::listen(address)?;
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::new(RECEIVE_SEC_MAX, 0))?;
    setsockopt(&listener, sockopt::SendTimeout, &TimeVal::new(SEND_SEC_MAX, 0))?;
    Ok(listener)
}

/// Whether a connection waits to be accepted.
fn has_waiting(listener: &TcpListener) -> bool {
    let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Starts a tiny_http, which panics where it can have no thread.
fn accept_on(listener: &TcpListener) -> io::Result<Arc<tiny_http::Server>> {
    let listener = listener.try_clone()?;
    let started = catch_unwind(AssertUnwindSafe(|| tiny_http::Server::from_listener(listener, None)));
    started.map_err(|_| io::Error::other("no thread to be had"))?.map(Arc::new).map_err(io::Error::other)
}

/// A worker: serves requests as long as the process lives.
fn work(shared: &Arc<Shared>) {
    loop {
        let turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let tiny = shared.tiny().clone();
        match tiny.recv_timeout(RECEIVE_WAIT) {
            Ok(Some(request)) => {
                drop(turn);
                shared.take(request);
            }
            Ok(None) => {}
            // tiny_http's accept thread has ended.
            Err(_) => shared.accept_failed.store(true, Ordering::Release),
        }
    }
}

/// Serves the connections of a tiny_http that accepts no more, until the last one must have timed out.
fn drain(shared: &Arc<Shared>, old: &tiny_http::Server) {
    let mut last_request = Instant::now();
    while last_request.elapsed() < Duration::from_secs(2 * RECEIVE_SEC_MAX.unsigned_abs()) {
        if let Ok(Some(request)) = old.recv_timeout(RECEIVE_WAIT) {
            shared.take(request);
            last_request = Instant::now();
        }
    }
}

/// The watchdog: starts another tiny_http when the one there is has stopped accepting.
///
/// It also connects now and then. tiny_http may queue two connections for one idle thread: the second then waits until
/// any thread is done with its own. One that comes and goes frees such a thread. An unspecified address leads to loopback.
/// A connection that was reset before it was accepted ends its thread by a panic. What is queued behind it waits for another
/// thread, which a connect starts; it may meet the next panic, so that twice as many connects follow.
fn watch(shared: &Arc<Shared>, address: SocketAddr) {
    let (mut woken, mut served, mut panics) = (Instant::now(), 0, PANICS.get());
    let (mut probed, mut missed) = (None::<Instant>, 0);
    while !shared.is_closing.load(Ordering::Acquire) {
        thread::sleep(WATCHDOG_INTERVAL);
        let served_before = std::mem::replace(&mut served, shared.served.get());
        let panics_before = std::mem::replace(&mut panics, PANICS.get());
        let wake_ups = match (panics - panics_before, served > served_before) {
            (0, true) => WAKE_UPS,
            (0, false) => u64::from(woken.elapsed() >= WAKE_UP_EVERY),
            (lost, _) => (2 * lost).min(16 * WAKE_UPS),
        };
        if wake_ups > 0 {
            woken = Instant::now();
            // Where one fails the kernel's queue is full, and other connections come anyway.
            (0..wake_ups).all(|_| TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok());
        }
        if missed > 0 || probed.is_none_or(|probed| probed.elapsed() >= PROBE_EVERY) {
            probed = Some(Instant::now());
            // Where all workers are busy, the probe waits like any other request.
            let are_workers_busy = || shared.busy_workers.load(Ordering::Acquire) == shared.worker_count;
            match probe(address) {
                Some(false) if !are_workers_busy() => missed += 1,
                Some(false) if shared.served.get() == served => {}
                Some(_) => {
                    missed = 0;
                    shared.heartbeat.record();
                }
                None => {}
            }
        }
        let has_stopped = shared.accept_failed.swap(false, Ordering::AcqRel) || missed >= PROBES_MISSED_MAX;
        if has_stopped && !shared.is_closing.load(Ordering::Acquire) {
            missed = 0;
            match shared.reopen() {
                Ok(()) => log::warn!("The HTTP server did not accept connections any more, and was opened again"),
                Err(error) => {
                    log::error!("The HTTP server accepts no connections, and cannot be opened again: {error}");
                    shared.accept_failed.store(true, Ordering::Release);
                }
            }
            thread::sleep(REOPEN_EVERY);
        }
    }
}

/// Whether the server answers a request for `/health`, whatever it answers. `None` where this process could not ask.
fn probe(address: SocketAddr) -> Option<bool> {
    let mut stream = match TcpStream::connect_timeout(&address, PROBE_TIMEOUT) {
        Ok(stream) => stream,
        Err(error) => return (error.kind() == io::ErrorKind::TimedOut).then_some(false),
    };
    let asked = stream
        .set_read_timeout(Some(PROBE_TIMEOUT))
        .and_then(|()| stream.write_all(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        .and_then(|()| stream.read_exact(&mut [0; 12]));
    Some(asked.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Authorizer, ReadAccess};
    use crate::ingest::Ingest;
    use crate::store::Store;

    fn await_true(what: &str, is_true: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_true() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(CLOSE_POLL);
        }
    }

    #[test]
    fn a_failed_accept_is_mended_and_old_connections_are_served_on() {
        let ingest = Ingest::new(Arc::new(Store::new(1)), Authorizer::allow_all(), Arc::default());
        let api = Arc::new(Api::new(Arc::new(ingest), ReadAccess::Anyone));
        // Workers that wait must not keep the watchdog from opening another.
        let server = Server::open(([127, 0, 0, 1], 0).into(), 16, &api).unwrap();
        let mut kept = TcpStream::connect(server.address()).unwrap();
        let mut ask = || {
            let mut answer = [0; 1024];
            kept.write_all(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let length = kept.read(&mut answer).unwrap();
            answer[..length].starts_with(b"HTTP/1.1 200")
        };
        assert!(ask());
        // An accept that would have to wait fails from now on; the one that waits already does not.
        server.shared.listener.set_nonblocking(true).unwrap();
        await_true("the end of accepting", || probe(server.address()) == Some(false));
        server.shared.listener.set_nonblocking(false).unwrap();
        await_true("an answer", || probe(server.address()) == Some(true));
        assert!(ask());
        assert!(server.close(Duration::from_secs(30)));
    }
}
