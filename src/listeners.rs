//! Listeners for messages without an answer: datagrams by UDP and messages by ZeroMQ, of one or more lines of line protocol.
//!
//! Lines that cannot be stored are counted in [`crate::stats`], and logged at most once a minute.

mod batch;
mod udp;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::ingest::Ingest;
use crate::supervisor::spawn_supervised;

/// Which sockets to open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The address for datagrams; port 0 picks one.
    pub udp: Option<SocketAddr>,
    /// The endpoint for messages, as ZeroMQ writes it: `tcp://0.0.0.0:5557`.
    pub zmq: Option<String>,
}

/// The open sockets, each with a thread that reads it.
pub struct MessageListeners {
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    descriptions: Vec<String>,
}

impl MessageListeners {
    /// Opens the sockets that `options` ask for, and stores what they receive through `ingest`.
    ///
    /// # Errors
    /// When one cannot be opened; the message names it.
    pub fn open(options: &Options, ingest: &Arc<Ingest>) -> io::Result<Self> {
        let mut listeners = Self { closing: Arc::default(), threads: Vec::new(), descriptions: Vec::new() };
        if let Some(address) = options.udp {
            let socket = udp::Socket::open(address).map_err(|error| named(&format!("udp://{address}"), &error))?;
            listeners.descriptions.push(socket.description());
            let (ingest, closing) = (ingest.clone(), listeners.closing.clone());
            listeners.spawn("udp", move || socket.run(&ingest, &closing))?;
        }
        if let Some(endpoint) = &options.zmq {
            #[cfg(not(feature = "zeromq"))]
            return Err(named(endpoint, &io::Error::other(crate::features::WITHOUT_ZEROMQ)));
            #[cfg(feature = "zeromq")]
            {
                let socket = zeromq::Socket::open(endpoint).map_err(|error| named(endpoint, &error.into()))?;
                listeners.descriptions.push(socket.description());
                let (ingest, closing) = (ingest.clone(), listeners.closing.clone());
                listeners.spawn("zmq", move || socket.run(&ingest, &closing))?;
            }
        }
        Ok(listeners)
    }

    /// The address of each socket, as a line for the log.
    #[must_use]
    pub fn descriptions(&self) -> &[String] {
        &self.descriptions
    }

    fn spawn(&mut self, name: &str, run: impl FnMut() + Send + 'static) -> io::Result<()> {
        self.threads.push(spawn_supervised(name, run)?);
        Ok(())
    }

    /// Stores what was received, and closes the sockets.
    pub fn close(self) {
        self.closing.store(true, Ordering::Release);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

fn named(address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}
