//! The HTTPS door: rustls over TCP, a thread a connection, and a deadline for whatever a client may take its time with.
//!
//! It shares nothing with the plain door but what is answered, [`crate::api`], and how heads are read, `http`. A client
//! can hold a thread for as long as the deadlines let it, and there are as many threads as connections may be: nothing
//! it sends, or does not send, holds up another.

mod budget;
mod connection;
mod deadline;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::{CertificateError, ServerConfig, ServerConnection, StreamOwned};

use crate::api::{Api, ClientTransport};
use crate::auth::{Authorizer, certificates, client_verifier, identity_of, private_key, sentence};
use crate::clock::unix_now_sec;
use crate::reload::Reloaded;
use crate::server::listen;
use crate::stats::Heartbeat;
use budget::Budget;
use connection::Connection;
use deadline::{Deadline, Timed};

/// Longest time for a handshake: two round trips, and a slow client's arithmetic.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long a client's certificate is good for without another look at it: as long as a token by it, commonly.
const VERIFIED_FOR: Duration = Duration::from_secs(300);
/// Longest time to tell a client that nothing follows.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// How often a thread in `accept` looks whether the door is to close.
const LOOK_EVERY_SEC: i64 = 1;
/// Longest time without such a look of a door that is well.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted, for want of descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the log says that connections could not be taken.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Stack of a connection's thread: a handshake and an answer in JSON take a tenth of it.
const STACK_BYTES: usize = 512 << 10;
/// Memory for bodies and answers on their way, beyond the little that each connection has: 64 bodies of the longest.
const MEMORY_BYTES_MAX: usize = 512 << 20;
/// Bodies that are unpacked, and answers that are found which may be long, at a time: as many as the plain door's workers.
const TURNS: usize = 16;
/// How often a closing door looks whether its connections are done.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// What the HTTPS door is told on the command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port to listen on; 0 picks one.
    pub port: u16,
    /// The chain of the receiver's own certificate, its own first, as PEM.
    pub certificate: PathBuf,
    /// The key of its certificate, as PEM.
    pub key: PathBuf,
    /// Roots and intermediates of the certificates that clients may have, as PEM.
    pub trust: Option<PathBuf>,
    /// Most connections at a time.
    pub connections_max: usize,
}

/// Answers the requests of a stream as the door does what it has decrypted, until one of them or its end ends it. The
/// deadlines are the stream's own matter.
///
/// # Errors
/// Those of the stream.
pub fn answer(stream: impl Read + Write, api: &Api) -> io::Result<()> {
    let budget = Budget::new(MEMORY_BYTES_MAX, TURNS);
    Connection::new(stream, &Deadline::default(), api, ClientTransport::Tls(None), &budget).serve(|_| true)
}

/// An open door. Dropping it leaves it open: [`Door::close`] it.
pub struct Door {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the threads of the door share.
struct Shared {
    api: Arc<Api>,
    config: Reloaded<ServerConfig>,
    connections: Mutex<HashMap<u64, Arc<Line>>>,
    connections_max: usize,
    budget: Budget,
    /// Beats while connections are accepted, or waited for.
    pulse: Heartbeat,
    closing: AtomicBool,
}

/// A connection as others than its thread see it.
struct Line {
    stream: TcpStream,
    /// Whether it is between two requests.
    is_idle: AtomicBool,
}

impl Door {
    /// Listens on `address` (its port 0 picks one) and serves `api`.
    ///
    /// # Errors
    /// When a certificate or key cannot be used, or the address not be listened on; the message names it.
    pub fn open(address: SocketAddr, options: &Options, api: &Arc<Api>) -> io::Result<Self> {
        let files = [Some(&options.certificate), Some(&options.key), options.trust.as_ref()];
        let read = {
            let options = options.clone();
            move || server_config(&options)
        };
        let config = Reloaded::new(files.into_iter().flatten().cloned().collect(), read).map_err(io::Error::other)?;
        let listener = listen(address, LOOK_EVERY_SEC)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        let shared = Arc::new(Shared {
            api: api.clone(),
            config,
            connections: Mutex::default(),
            connections_max: options.connections_max,
            budget: Budget::new(MEMORY_BYTES_MAX, TURNS),
            pulse: Heartbeat::default(),
            closing: AtomicBool::new(false),
        });
        let address = listener.local_addr()?;
        let accepting = shared.clone();
        let accepting =
            thread::Builder::new().name("https-accept".into()).spawn(move || accepting.accept(&listener))?;
        Ok(Self { address, shared, accepting })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the door is not well, if so: it accepts no connections.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        self.shared.pulse.liveness_error("the HTTPS door", SILENCE_MAX)
    }

    /// Answers what has been taken, for up to `within`, and says whether all of it was answered.
    #[must_use]
    pub fn close(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.shared.closing.store(true, Ordering::SeqCst);
        loop {
            let connections = self.shared.connections();
            if connections.is_empty() && self.accepting.is_finished() {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            for line in connections.values().filter(|line| line.is_idle.load(Ordering::SeqCst)) {
                // Its thread reads the end of the stream, and ends. One that has ended already is as good.
                let _ = line.stream.shutdown(std::net::Shutdown::Read);
            }
            drop(connections);
            thread::sleep(CLOSE_POLL);
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Line>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut told_at: Option<Instant> = None;
        while !self.is_closing() {
            self.pulse.record();
            let trouble = match listener.accept() {
                Ok((stream, _)) => match self.begin(stream) {
                    Ok(()) => continue,
                    Err(trouble) => trouble,
                },
                Err(error) if is_for_another_time(error.kind()) => continue,
                Err(error) => {
                    thread::sleep(ACCEPT_PAUSE);
                    error.to_string()
                }
            };
            self.api.stats().connections_rejected.add(1);
            if told_at.is_none_or(|told_at| told_at.elapsed() >= TELL_EVERY) {
                log::warn!("A connection to the HTTPS door was turned away: {trouble}");
                told_at = Some(Instant::now());
            }
        }
    }

    /// Starts the thread of a connection, if there may be one more.
    fn begin(self: &Arc<Self>, stream: TcpStream) -> Result<(), String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (number, line) = (NEXT.fetch_add(1, Ordering::Relaxed), Arc::new(Line { stream, is_idle: false.into() }));
        {
            let mut connections = self.connections();
            if connections.len() >= self.connections_max {
                return Err(format!("there are {} already, as --max-connections says", self.connections_max));
            }
            connections.insert(number, line.clone());
        }
        let place = Place { shared: self.clone(), number };
        let spawned = thread::Builder::new().name("https".into()).stack_size(STACK_BYTES).spawn(move || {
            if let Err(error) = place.shared.serve(&line) {
                log::debug!("A connection to the HTTPS door ended: {error}");
            }
            drop(place);
        });
        spawned.map(drop).map_err(|error| format!("no thread for it: {error}"))
    }

    fn serve(&self, line: &Arc<Line>) -> io::Result<()> {
        let deadline = Deadline::default();
        let mut timed = Timed::new(line.clone(), deadline.clone());
        let mut tls = ServerConnection::new(self.config.current()).map_err(io::Error::other)?;
        deadline.set(HANDSHAKE_WITHIN);
        while tls.is_handshaking() {
            if let Err(error) = tls.complete_io(&mut timed) {
                self.api.stats().handshakes_failed.add(1);
                tell_of_certificate(self.api.authorizer(), &error);
                return Err(error);
            }
        }
        let source = tls.peer_certificates().and_then(<[_]>::first).map(identity_of);
        let mut stream = StreamOwned::new(tls, timed);
        let peer = ClientTransport::Tls(source.as_ref());
        let verified_at = Instant::now();
        let ended = Connection::new(&mut stream, &deadline, &self.api, peer, &self.budget).serve(|is_idle| {
            line.is_idle.store(is_idle, Ordering::SeqCst);
            let is_verified = source.is_none() || verified_at.elapsed() < VERIFIED_FOR;
            is_verified && !self.is_closing()
        });
        stream.conn.send_close_notify();
        deadline.set(FAREWELL_WITHIN);
        ended.and(stream.conn.write_tls(&mut stream.sock).map(drop))
    }
}

/// A connection's place among those there may be, for as long as its thread runs.
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.number);
    }
}

/// What ends neither a listener nor the right to go on.
fn is_for_another_time(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, ConnectionAborted | ConnectionReset | Interrupted | TimedOut | WouldBlock)
}

/// Says in the log whose certificate was not trusted, and why.
fn tell_of_certificate(gate: &Authorizer, error: &io::Error) {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) = error {
        gate.log_refusal(&why.0.to_string(), unix_now_sec());
    }
}

/// Reads what the door needs of its files.
fn server_config(options: &Options) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("certificate", &options.certificate)?;
    let key = private_key("key", &options.key)?;
    let verifier = match &options.trust {
        None => Arc::new(NoClientAuth),
        Some(file) => client_verifier(certificates("trust", file)?, provider.signature_verification_algorithms)
            .map_err(|why| format!("trust {}: {why}", file.display()))?,
    };
    let wrong = |error| sentence(&options.certificate, &options.key, &error);
    let builder = with_provider(provider)?.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // A resumed session would go on with a certificate that has expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn with_provider(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, String> {
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}
