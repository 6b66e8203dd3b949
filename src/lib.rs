//! Host metrics without a monitoring stack. The rooms, in the order a sample passes through them:
//!
//! - [`probe`] reads this host; [`monitor`] does so on every tick and publishes what it read.
//! - [`server`] is the plain HTTP door; [`api`] decides what is answered to a request.
//! - [`tls`] is the HTTPS door, over the same API; [`trust`] decides who may submit and who may read.
//! - [`intake`] takes datagrams and messages, which are not answered.
//! - [`ingest`] is the one way in for samples; [`sample`] decodes them and holds every limit on input.
//! - [`store`] keeps the hosts; [`summary`] is the arithmetic of their averages.
//! - [`stats`] is what the process counts about itself; [`metrics`] writes it, and the hosts, as Prometheus reads them.
//! - [`watch`] shows in a terminal what a receiver serves.
//! - [`receiver`] puts the rooms of the receiving side together.
//! - [`notify`] tells a service manager how the process is.
//!
//! Below the doors time is an argument, in seconds since the Unix epoch. `ARCHITECTURE.md` says what may import what.

pub mod api;
mod http;
pub mod ingest;
pub mod intake;
pub mod metrics;
pub mod monitor;
pub mod notify;
pub mod probe;
pub mod receiver;
mod reread;
pub mod sample;
pub mod server;
pub mod stats;
pub mod store;
pub mod summary;
mod threads;
#[cfg(feature = "tls")]
pub mod tls;
pub mod trust;
pub mod watch;
