//! Host metrics without a monitoring stack. The rooms, in the order a sample passes through them:
//!
//! - [`probe`] reads this host; [`monitor`] does so on every tick and publishes what it read.
//! - [`server`] serves HTTP by tiny_http, and [`http`] serves HTTP and HTTPS by itself; [`api`] decides what is answered.
//! - [`auth`] decides who may submit and who may read.
//! - [`listeners`] takes datagrams and messages, which are not answered.
//! - [`ingest`] is the one way in for samples; [`sample`] decodes them and holds every limit on input.
//! - [`joins`] is who has joined with a token, and who is shut out.
//! - [`store`] keeps the hosts; [`summary`] is the arithmetic of their averages.
//! - [`alerts`] judges rules over what the store keeps, and tells people.
//! - [`stats`] is what the process counts about itself; [`metrics`] writes it, and the hosts, as Prometheus reads them.
//! - [`units`] has the unit of each label, for the terminal and the page, and [`metric_names`] the metric that it becomes.
//! - [`promql`] answers the queries of Grafana and Prometheus's tools from what the store keeps.
//! - [`watch`] shows in a terminal what a receiver serves.
//! - [`sanitize`] is the one way out for text that others have chosen.
//! - [`receiver`] puts the rooms of the receiving side together.
//! - [`url`] reads URLs, which it never shows with a password, and percent-encodes.
//! - [`agent`] makes the HTTP clients of the commands, and explains their errors.
//! - [`sd_notify`] tells a service manager how the process is.
//!
//! Below the doors time is an argument, in seconds since the Unix epoch. `ARCHITECTURE.md` says what may import what.

pub mod agent;
pub mod alerts;
pub mod api;
pub mod archive;
pub mod auth;
pub mod client;
pub mod clock;
pub mod features;
pub mod http;
pub mod ingest;
pub mod joins;
pub mod listeners;
pub mod metric_names;
pub mod metrics;
pub mod monitor;
pub mod probe;
pub mod promql;
pub mod receiver;
mod reload;
pub mod sample;
pub mod sanitize;
pub mod sd_notify;
pub mod server;
pub mod stats;
pub mod store;
pub mod summary;
mod supervisor;
mod trouble;
pub mod units;
pub mod url;
pub mod watch;
