//! The builtin server: it accepts connections, for plain HTTP and for HTTPS, and gives each to one of a few loops.

mod chunks;
mod client;
mod connection;
mod head;
mod limits;
mod readiness;
mod shared;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::listen;
use crate::api::{Api, ClientTransport};
use crate::supervisor::spawn_supervised;
use client::Client;
use connection::{Connection, Context, Now, Pause};
use readiness::Poller;
use shared::{Budget, MEMORY_BYTES_MAX, Shared};
use stream::Stream;
#[cfg(feature = "tls")]
use tls::Certificates;
#[cfg(feature = "tls")]
pub use tls::HttpsOptions;
use worker::{Inbox, Worker};

/// Most loops: a post takes some microseconds, so that one loop keeps a core busy with 100,000 a second.
const WORKERS_MAX: usize = 8;
/// Longest time without a sign of life of a server that is well.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted, for want of descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait of a thread that accepts connections before it looks around.
const ACCEPT_WAIT: Duration = Duration::from_millis(500);
/// How often the log says that connections were rejected.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How often a closing server looks whether its threads are done.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// What the command line says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most connections at a time.
    pub connections_max: usize,
    /// Most connections at a time from one address, or from one /64 of IPv6.
    pub connections_per_address_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections_max: 4096, connections_per_address_max: 1024 }
    }
}

/// A running server. Dropping it leaves it running: [`Server::close`] it.
pub struct Server {
    shared: Arc<Shared>,
    inboxes: Arc<[Arc<Inbox>]>,
    addresses: Vec<(&'static str, SocketAddr)>,
    /// What the threads that accept connections wait with.
    acceptors: Vec<Arc<Poller>>,
    threads: Vec<JoinHandle<()>>,
}

/// A socket that connections come by.
struct Listener {
    socket: TcpListener,
    poller: Arc<Poller>,
    #[cfg(feature = "tls")]
    certificates: Option<Certificates>,
}

impl Server {
    /// Serves `api` without any listener yet.
    ///
    /// # Errors
    /// When the system has no descriptors or threads for it.
    pub fn start(options: &Options, api: &Arc<Api>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // The other half of the cores is for the store, for long answers, and for what else runs here.
        let inboxes = (0..(cores / 2).clamp(1, WORKERS_MAX)).map(|_| Inbox::new().map(Arc::new));
        let inboxes = inboxes.collect::<io::Result<Arc<[_]>>>()?;
        let shared = Arc::new(Shared::new(api, options));
        let threads = inboxes.iter().map(|inbox| {
            let mut worker = Worker::new(shared.clone(), inbox.clone());
            spawn_supervised("http", move || worker.run())
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Self { shared, inboxes, addresses: Vec::new(), acceptors: Vec::new(), threads })
    }

    /// Listens for plain HTTP on `address`, whose port 0 picks one.
    ///
    /// # Errors
    /// When the address cannot be listened on; the message names it.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        self.accept("http", Listener::bind(address)?)
    }

    /// Listens for HTTPS on `address`, whose port 0 picks one.
    ///
    /// # Errors
    /// When a certificate or key cannot be used, or the address not be listened on; the message names it.
    #[cfg(feature = "tls")]
    pub fn listen_https(&mut self, address: SocketAddr, options: &HttpsOptions) -> io::Result<()> {
        let certificates = Some(Certificates::open(options).map_err(io::Error::other)?);
        self.accept("https", Listener { certificates, ..Listener::bind(address)? })
    }

    /// Starts the thread that accepts connections.
    fn accept(&mut self, scheme: &'static str, listener: Listener) -> io::Result<()> {
        self.addresses.push((scheme, listener.socket.local_addr()?));
        self.acceptors.push(listener.poller.clone());
        let (shared, inboxes) = (self.shared.clone(), self.inboxes.clone());
        shared.accepting.fetch_add(1, Ordering::SeqCst);
        let accept = move || {
            listener.accept(&shared, &inboxes);
            drop(listener);
            shared.accepting.fetch_sub(1, Ordering::SeqCst);
            inboxes.iter().for_each(|inbox| inbox.poller.wake());
        };
        self.threads.push(thread::Builder::new().name("http-accept".into()).spawn(accept)?);
        Ok(())
    }

    /// Where it listens, each with the scheme of its URL, in the order in which that began.
    #[must_use]
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// Why the server is not well, if so: one of its loops stands still.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        let mut heartbeats = self.inboxes.iter().map(|inbox| &inbox.heartbeat);
        heartbeats.find_map(|heartbeat| heartbeat.liveness_error("the builtin HTTP server", SILENCE_MAX))
    }

    /// Answers what was taken and accepts nothing new, for up to `within`, and tells whether all of it was answered.
    #[must_use]
    pub fn close(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.shared.closing.store(true, Ordering::SeqCst);
        let loops = self.inboxes.iter().map(|inbox| &inbox.poller);
        self.acceptors.iter().map(|poller| &**poller).chain(loops).for_each(Poller::wake);
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(CLOSE_POLL);
        }
        true
    }
}

impl Listener {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let (socket, poller) = (listen(address).map_err(failed)?, Arc::new(Poller::new()?));
        socket.set_nonblocking(true)?;
        poller.add(&socket, 0)?;
        Ok(Self {
            socket,
            poller,
            #[cfg(feature = "tls")]
            certificates: None,
        })
    }

    fn stream(&self, socket: TcpStream) -> Result<Stream, String> {
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            return Ok(Stream::tls(socket, certificates.begin()?));
        }
        Ok(Stream::plain(socket))
    }

    /// Accepts connections until the server closes, and then those that have come before.
    fn accept(&self, shared: &Shared, inboxes: &[Arc<Inbox>]) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};

        let (mut events, mut next, mut logged_at) = (Vec::new(), inboxes.iter().cycle(), None::<Instant>);
        let mut reject = |why: &str| {
            shared.api.stats().connections_rejected.add(1);
            if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_EVERY) {
                log::warn!("A connection was rejected: {why}");
                logged_at = Some(Instant::now());
            }
        };
        loop {
            let is_last = shared.is_closing();
            let end = loop {
                match self.socket.accept() {
                    Ok((socket, address)) => match self.client(socket, address, shared) {
                        Ok(client) => {
                            if let Some(inbox) = next.next() {
                                inbox.put((client, None, Pause::Input));
                            }
                        }
                        Err(why) => reject(&why),
                    },
                    // The connection has gone before it was accepted.
                    Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) => {}
                    Err(error) => break error,
                }
            };
            let has_failed = end.kind() != WouldBlock;
            if has_failed {
                reject(&end.to_string());
            }
            if is_last {
                return;
            }
            if has_failed {
                thread::sleep(ACCEPT_PAUSE);
            } else if let Err(error) = self.poller.wait(&mut events, ACCEPT_WAIT) {
                log::error!("Connections cannot be waited for: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
            events.clear();
        }
    }

    fn client(&self, socket: TcpStream, address: SocketAddr, shared: &Shared) -> Result<Box<Client>, String> {
        let guard = shared.limits.admit(address.ip())?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(Box::new(Client::new(self.stream(socket)?, guard, Instant::now())))
    }
}

/// Answers bytes that come in pieces as a connection does, until one of its answers or their end ends it.
#[must_use]
pub fn answer<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, api: &Api) -> Vec<u8> {
    let (budget, now) = (Budget::new(MEMORY_BYTES_MAX), Now::of_clocks(api));
    let transport = ClientTransport::Plain;
    let context = Context { api, budget: &budget, transport, peer: None, now, is_closing: false, waker: None };
    let (mut connection, mut answers) = (Connection::new(now.instant), Vec::new());
    for piece in pieces {
        connection.input().extend_from_slice(piece);
        loop {
            let pause = connection.advance(&context);
            answers.extend_from_slice(connection.output());
            connection.sent(connection.output().len(), now.instant);
            if pause != Pause::Output {
                break;
            }
        }
    }
    answers
}
