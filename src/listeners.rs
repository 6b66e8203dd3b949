//! Listeners for messages without an answer: datagrams by UDP and messages by ZeroMQ, of one or more lines of line protocol.
//!
//! Lines that cannot be stored are counted in [`crate::stats`], and logged at most once a minute.

mod batch;
mod udp;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::io;
use std::net::{IpAddr, SocketAddr};
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

impl Options {
    /// The sockets that other machines can reach.
    pub fn reachable(&self) -> impl Iterator<Item = String> {
        let udp = self.udp.filter(|address| !address.ip().is_loopback()).map(|address| format!("udp://{address}"));
        udp.into_iter().chain(self.zmq.clone().filter(|endpoint| !is_local(endpoint)))
    }
}

/// Whether only this machine reaches an endpoint of ZeroMQ. Its address may be that of an interface, by name.
fn is_local(endpoint: &str) -> bool {
    let Some(address) = endpoint.strip_prefix("tcp://") else { return true };
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip).trim_start_matches('[').trim_end_matches(']');
    ip == "lo" || ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_loopback_are_reached_by_this_machine_alone() {
        let reachable = |udp: &str, zmq: &str| {
            let options = Options { udp: Some(udp.parse().unwrap()), zmq: Some(zmq.to_owned()) };
            options.reachable().collect::<Vec<_>>()
        };
        assert_eq!(reachable("0.0.0.0:8089", "tcp://*:5557"), ["udp://0.0.0.0:8089", "tcp://*:5557"]);
        assert_eq!(reachable("[::]:1", "tcp://[fe80::1]:5557"), ["udp://[::]:1", "tcp://[fe80::1]:5557"]);
        assert_eq!(reachable("127.9.9.9:1", "tcp://eth0:5557"), ["tcp://eth0:5557"]);
        for local in ["tcp://127.0.0.1:*", "tcp://[::1]:5557", "tcp://lo:5557", "ipc:///run/lizm"] {
            assert!(reachable("[::1]:1", local).is_empty(), "{local}");
        }
    }
}
