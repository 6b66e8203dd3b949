//! The plain HTTP door: tiny_http, a pool of workers, and the care that tiny_http 0.12 needs from outside.
//!
//! tiny_http has an accept thread and a thread a connection, without timeouts, and hands requests to workers through
//! a queue. What accepted sockets inherit from the listener on Linux gives them timeouts; a watchdog finds
//! the door dead when it is, and builds another on the same socket; and what each worker does with a request is
//! the desk's. Routes and bodies are [`crate::api`]'s.

mod cookie;
mod desk;
mod left_behind;
mod request;
mod turns;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tiny_http::{Request, Server};

use crate::api::Api;
use crate::stats::{Counter, Heartbeat, PANICS};
use desk::Desk;
use turns::{Begun, Turn};

/// Longest silence of a connection in seconds, between requests and within one: above the keep-alive of 60 that
/// nginx and most clients have, so that they close first.
const RECEIVE_SEC_MAX: i64 = 75;
/// Longest time a write may stand still, and a short answer may take, before its client is given up.
const SEND_SEC_MAX: u64 = 5;
/// Longest time sent bytes may stay unacknowledged, or a client may have no room for more, before the kernel ends the
/// connection: one that asks and asks, and never reads, holds a worker twice at most.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS_MAX: u32 = 10_000;
/// Connections the kernel holds for us until they are accepted: a fleet that reconnects in one second fits.
const BACKLOG: i32 = 4096;

/// The watchdog's beat.
const BEAT: Duration = Duration::from_millis(50);
/// How often it nudges a door that answers nothing. That also keeps `accept` below the timeout it inherits as well.
const NUDGE_EVERY: Duration = Duration::from_secs(1);
/// Most nudges of a beat.
const NUDGES_MAX: u64 = 16;
/// The most for connections that have bytes unread, which the next count finds again if it was too few.
const UNREAD_NUDGES_MAX: usize = 256;
/// How often it asks for `/health`, and how long it waits for the answer.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The same while a panic since the last answer makes it likely that the door is dead.
const PROBE_TIMEOUT_IN_DOUBT: Duration = Duration::from_millis(250);
/// Longest time without an answer to a probe of a door that is well: two were missed, and it was opened anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Unanswered probes in a row that tell that the door is dead, if there are workers to answer; in doubt it is one.
const PROBES_MISSED_MAX: u32 = 2;
/// How often it counts the connections that tiny_http does not let go, or does not read.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// First and longest wait before another rebuild, doubled while the door does not come to life.
const REBUILD_FIRST: Duration = Duration::from_millis(250);
const REBUILD_LONGEST: Duration = Duration::from_millis(500);
/// How often the caretaker of an old server looks whether its time has come.
const CARETAKER_BEAT: Duration = Duration::from_millis(500);
/// How often a closing door looks whether its threads are done.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// An open door. Dropping it leaves it open: [`Door::close`] it.
pub struct Door {
    address: SocketAddr,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    watchdog: JoinHandle<()>,
}

/// What the threads of the door share.
struct Shared {
    desk: Desk,
    /// Stays open as long as the door: each server listens on a copy of it.
    listener: TcpListener,
    current: Mutex<Current>,
    workers: usize,
    busy_workers: AtomicUsize,
    /// Requests that workers are done with.
    done: Counter,
    /// Beats when the door has answered a probe.
    pulse: Heartbeat,
    newcomers: Newcomers,
    accept_failed: AtomicBool,
    closing: AtomicBool,
}

/// The server that accepts connections, and how many workers have come to it.
struct Current {
    server: Arc<Queue>,
    workers: usize,
}

/// A tiny_http server, and the right to take its next request.
///
/// Requests of one connection are handed over in order, and must come to their turns in that order: a thread that
/// answers the second first waits inside tiny_http for the first, which waits for its turn. So one thread at a time
/// takes a request, and holds on to that right until the request has its place.
struct Queue {
    server: Server,
    order: Mutex<()>,
}

impl Queue {
    /// Receives a request and gives it its place on its connection. `None` where none came, or another is before it.
    fn next(
        &self,
        shared: &Shared,
        receive: impl FnOnce(&Server) -> io::Result<Option<Request>>,
    ) -> io::Result<Option<Turn>> {
        let begun = {
            let _in_order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(request) = receive(&self.server)? else { return Ok(None) };
            if shared.newcomers.see(request.remote_addr()) {
                shared.desk.stats().connections.add(1);
            }
            shared.desk.begin(request)
        };
        match begun {
            Begun::Turn(turn) => return Ok(Some(turn)),
            Begun::Waits => {}
            // tiny_http may write what it still has for their client, for as long as a write may take.
            Begun::LetGo(requests) => shared.desk.let_go(requests),
        }
        Ok(None)
    }
}

impl Current {
    fn new(server: Server) -> Self {
        Self { server: Arc::new(Queue { server, order: Mutex::new(()) }), workers: 0 }
    }

    /// Makes every worker that has come to the server return from `recv` once.
    fn unblock(&self) {
        (0..self.workers).for_each(|_| self.server.server.unblock());
    }
}

impl Door {
    /// Listens on `address` (port 0 picks one) and serves `api` with `workers` threads.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn open(address: SocketAddr, workers: usize, api: &Arc<Api>) -> io::Result<Self> {
        let listener = listen(address, RECEIVE_SEC_MAX)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            desk: Desk::new(api.clone(), address, workers),
            current: Mutex::new(Current::new(serve_on(&listener)?)),
            listener,
            workers,
            busy_workers: AtomicUsize::new(0),
            done: Counter::default(),
            pulse: Heartbeat::default(),
            newcomers: Newcomers::default(),
            accept_failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let threads = (0..workers).map(|_| {
            let shared = shared.clone();
            thread::Builder::new().name("http-worker".into()).spawn(move || work(&shared))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        let watched = shared.clone();
        let watchdog = thread::Builder::new().name("http-watchdog".into()).spawn(move || watch(&watched, address))?;
        Ok(Self { address, shared, workers: threads, watchdog })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the door is not well, if so: it does not answer.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        self.shared.pulse.liveness_error("the HTTP door", SILENCE_MAX)
    }

    /// Answers what has been taken, for up to `within`, and says whether all of it was answered.
    #[must_use]
    pub fn close(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.shared.closing.store(true, Ordering::Release);
        self.shared.current().unblock();
        let is_done = || {
            self.workers.iter().chain([&self.watchdog]).all(JoinHandle::is_finished) && self.shared.desk.lane_is_empty()
        };
        while !is_done() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(CLOSE_POLL);
        }
        true
    }
}

/// Counts connections by their first requests, roughly: each slot knows the last client that fell to it.
struct Newcomers {
    slots: [AtomicU64; 4096],
    count: AtomicU64,
}

impl Default for Newcomers {
    fn default() -> Self {
        Self { slots: [const { AtomicU64::new(0) }; 4096], count: AtomicU64::new(0) }
    }
}

impl Newcomers {
    /// Counts a client, and says whether it is a newcomer.
    fn see(&self, client: Option<&SocketAddr>) -> bool {
        let Some(client) = client else { return false };
        let ip = match client.ip() {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            #[expect(clippy::cast_possible_truncation, reason = "the interface part tells clients apart")]
            IpAddr::V6(ip) => u128::from(ip) as u64,
        };
        let client_tag = ip << 16 | u64::from(client.port());
        let slot = &self.slots[usize::from(client.port()) % self.slots.len()];
        let is_new = slot.load(Ordering::Relaxed) != client_tag;
        if is_new {
            slot.store(client_tag, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker comes to the server that accepts connections, unless it is there already.
    fn come_to_current(&self, from: Option<&Arc<Queue>>) -> Option<Arc<Queue>> {
        let mut current = self.current();
        if from.is_some_and(|from| Arc::ptr_eq(from, &current.server)) {
            return None;
        }
        current.workers += 1;
        Some(current.server.clone())
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Puts another server on the listener. The workers move to it, and what the old one still has connected is left
    /// to a caretaker.
    fn rebuild(self: &Arc<Self>) -> io::Result<()> {
        let new = Current::new(serve_on(&self.listener)?);
        let old = std::mem::replace(&mut *self.current(), new);
        old.unblock();
        let shared = self.clone();
        thread::Builder::new().name("http-caretaker".into()).spawn(move || take_care(&shared, &old.server))?;
        Ok(())
    }
}

/// A listener with the options that accepted sockets inherit on Linux.
pub(crate) fn listen(address: SocketAddr, receive_sec_max: i64) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // An answer may leave in two segments, the second of which would wait for the client's delayed ACK.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(&listener, sockopt::KeepAlive, &true)?;
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::new(receive_sec_max, 0))?;
    setsockopt(&listener, sockopt::SendTimeout, &TimeVal::new(SEND_SEC_MAX as i64, 0))?;
    #[cfg(target_os = "linux")]
    setsockopt(&listener, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS_MAX)?;
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

fn serve_on(listener: &TcpListener) -> io::Result<Server> {
    Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)
}

/// Where this process reaches its own door.
fn loopback(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// A worker: serves the current server until the door closes.
fn work(shared: &Shared) {
    let mut server = shared.come_to_current(None);
    while let Some(at) = &server
        && !shared.is_closing()
    {
        match at.next(shared, |server| server.recv().map(Some)) {
            Ok(Some(turn)) => {
                shared.busy_workers.fetch_add(1, Ordering::AcqRel);
                shared.desk.take(turn);
                shared.busy_workers.fetch_sub(1, Ordering::AcqRel);
                shared.done.add(1);
            }
            Ok(None) => {}
            Err(_) if shared.is_closing() => {}
            Err(_) => match shared.come_to_current(Some(at)) {
                Some(new) => server = Some(new),
                // Not unblocked by a rebuild: tiny_http's accept failed, and this worker alone hears of it.
                None => shared.accept_failed.store(true, Ordering::Release),
            },
        }
    }
}

/// Serves the connections of a server that accepts no more, until they must all have timed out.
fn take_care(shared: &Shared, old: &Queue) {
    let silence_max = Duration::from_secs(2 * RECEIVE_SEC_MAX.unsigned_abs());
    let mut last_request = Instant::now();
    while !shared.is_closing() && last_request.elapsed() < silence_max {
        let (mut has_come, mut was_called) = (false, false);
        let turn = old.next(shared, |server| {
            let asked = Instant::now();
            let received = server.recv_timeout(CARETAKER_BEAT);
            has_come = matches!(received, Ok(Some(_)));
            was_called = !has_come && asked.elapsed() < CARETAKER_BEAT;
            received
        });
        if has_come {
            last_request = Instant::now();
        }
        if was_called {
            // This was meant for a worker, each of which is called once, and has to find its way here.
            old.server.unblock();
            thread::sleep(BEAT);
        }
        if let Ok(Some(turn)) = turn {
            shared.desk.take(turn);
        }
    }
}

/// The watchdog: finds out that the door is dead, and builds another.
///
/// It also nudges. tiny_http gives a connection to an idle thread even where that thread has just been given another
/// one, or dies of it; the connection then waits until some thread is done with its own. One that comes and goes makes
/// such a thread, for one that waits. How many wait is not known at once: about as many as have just come and were served.
/// Those that wait behind threads which never come back are seen by what they have unread.
fn watch(shared: &Arc<Shared>, door: SocketAddr) {
    let address = loopback(door);
    let (mut nudged, mut probed, mut rebuilt) = (Instant::now(), None::<Instant>, Instant::now());
    let (mut missed, mut wait) = (0, Duration::ZERO);
    let (mut newcomers, mut panics, mut in_doubt) = (0, 0, false);
    let (mut counted, mut left_behind) = (Instant::now(), 0);
    while !shared.is_closing() {
        thread::sleep(BEAT);
        if counted.elapsed() >= COUNT_EVERY {
            counted = Instant::now();
            let connections = left_behind::count(door);
            // The less of two: few that are only about to be let go are still there the next time.
            let before = std::mem::replace(&mut left_behind, connections.left);
            shared.desk.stats().connections_stuck.set(before.min(left_behind));
            nudge(address, connections.unread.min(UNREAD_NUDGES_MAX));
        }
        let new_panics = PANICS.get() - panics;
        let signs = shared.newcomers.count.load(Ordering::Relaxed) - newcomers + new_panics;
        (newcomers, panics) = (newcomers + signs - new_panics, panics + new_panics);
        if signs > 0 || nudged.elapsed() >= NUDGE_EVERY {
            nudged = Instant::now();
            nudge(address, signs.clamp(1, NUDGES_MAX) as usize);
        }
        in_doubt |= new_panics > 0;
        if in_doubt || missed > 0 || probed.is_none_or(|probed| probed.elapsed() >= PROBE_EVERY) {
            probed = Some(Instant::now());
            let done = shared.done.get();
            match probe(address, if in_doubt { PROBE_TIMEOUT_IN_DOUBT } else { PROBE_TIMEOUT }) {
                Probed::Answered => {
                    (missed, wait, in_doubt) = (0, Duration::ZERO, false);
                    shared.pulse.record();
                }
                // Where all workers are busy, the probe waits its turn like any other request.
                Probed::Missed if shared.busy_workers.load(Ordering::Acquire) < shared.workers => missed += 1,
                // So it does where they are busy with one request after the other.
                Probed::Missed if shared.done.get() > done => shared.pulse.record(),
                Probed::Missed | Probed::NotSent => {}
            }
        }
        let missed_max = if in_doubt { 1 } else { PROBES_MISSED_MAX };
        let is_dead = shared.accept_failed.load(Ordering::Acquire) || missed >= missed_max;
        if is_dead && rebuilt.elapsed() >= wait && !shared.is_closing() {
            shared.accept_failed.store(false, Ordering::Release);
            (rebuilt, missed) = (Instant::now(), 0);
            wait = (wait * 2).clamp(REBUILD_FIRST, REBUILD_LONGEST);
            // tiny_http panics where it can have no thread.
            let rebuilt = catch_unwind(AssertUnwindSafe(|| shared.rebuild()));
            match rebuilt.unwrap_or_else(|_| Err(io::Error::other("no thread to be had"))) {
                Ok(()) => log::warn!("The HTTP door did not accept connections any more, and was opened anew"),
                Err(error) => {
                    log::error!("The HTTP door accepts no connections, and cannot be opened anew: {error}");
                    shared.accept_failed.store(true, Ordering::Release);
                }
            }
        }
    }
}

/// Connects and goes, some times. Where the kernel's queue is full, connections come by themselves.
fn nudge(address: SocketAddr, times: usize) {
    for _ in 0..times {
        let nudged = TcpStream::connect_timeout(&address, PROBE_TIMEOUT);
        if nudged.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return;
        }
    }
}

enum Probed {
    Answered,
    Missed,
    /// This process could not ask, which tells nothing of the door.
    NotSent,
}

fn probe(address: SocketAddr, timeout: Duration) -> Probed {
    let mut stream = match TcpStream::connect_timeout(&address, timeout) {
        Ok(stream) => stream,
        // Nobody takes connections from the kernel's queue, and it is full.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Probed::Missed,
        Err(_) => return Probed::NotSent,
    };
    let mut answer = [0; 12];
    let asked = stream
        .set_read_timeout(Some(timeout))
        .and_then(|()| stream.write_all(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        .and_then(|()| stream.read_exact(&mut answer));
    if asked.is_ok() { Probed::Answered } else { Probed::Missed }
}

/// Listens on a port of an address, unless it is one of IPv6 where there is none.
#[cfg(all(test, target_os = "linux"))]
fn bind_where_there_is(address: &str) -> Option<TcpListener> {
    let bound = TcpListener::bind((address, 0));
    if let Err(error) = &bound {
        assert!(address.contains(':'), "{address}: {error}");
        println!("there is no IPv6 here: {error}");
    }
    bound.ok()
}
