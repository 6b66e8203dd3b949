//! Black-box tests: they start the real binary on port 0 and talk to it as its clients do.

#![cfg_attr(
    not(all(feature = "disk", feature = "tls")),
    allow(dead_code, reason = "some helpers serve the tests of the durable store or of HTTPS alone")
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "disk")]
mod alert_kills;
mod alert_targets;
mod alerts;
#[cfg(feature = "redis")]
mod alerts_shared;
#[cfg(feature = "disk")]
mod archives;
mod browsers;
#[cfg(feature = "builtin")]
mod builtin;
#[cfg(feature = "tls")]
mod certificates;
mod checking;
#[cfg(feature = "disk")]
mod clocks;
mod command_line;
#[cfg(all(feature = "builtin", target_os = "linux"))]
mod differential;
#[cfg(all(feature = "disk", feature = "tls"))]
mod docs;
#[cfg(feature = "disk")]
mod durable;
mod harness;
mod history;
#[cfg(target_os = "linux")]
mod hostile;
mod http;
#[cfg(feature = "tls")]
mod https;
#[cfg(all(feature = "disk", feature = "tls"))]
mod joins;
mod lines;
mod logging;
mod merging;
mod metrics;
mod monitoring;
#[cfg(feature = "redis")]
mod nginx;
mod openapi;
mod page;
mod peers;
#[cfg(target_os = "linux")]
mod probes;
mod prometheus;
mod receiving;
mod scripts;
#[cfg(feature = "redis")]
mod servers;
#[cfg(target_os = "linux")]
mod service;
#[cfg(feature = "redis")]
mod shared;
mod shells;
#[cfg(feature = "tls")]
mod sources;
mod stores;
mod tagging;
mod tiny_http;
#[cfg(feature = "tls")]
mod trust;
mod watching;
