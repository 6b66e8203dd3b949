//! `lizm check`: asks a receiver whether it is healthy, for containers and cron.

use lizm::client::{self, Client};
use lizm::url;
use serde::Deserialize;

/// The options of `lizm check`.
#[derive(Debug)]
pub(crate) struct CheckOptions {
    pub(crate) receiver: client::Options,
    /// A host that must be up.
    pub(crate) host: Option<String>,
}

/// The answer of `/health`.
#[derive(Deserialize)]
struct Health {
    status: String,
}

/// The answer of `/api/hosts`.
#[derive(Deserialize)]
struct Hosts {
    hosts: Vec<Host>,
}

/// A host of the list.
#[derive(Deserialize)]
struct Host {
    host: String,
    state: String,
}

/// Checks that the receiver is healthy and, where the options name a host, that the host is up there; says so.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(options: &CheckOptions) -> Result<String, String> {
    let (client, url) = (Client::new(&options.receiver)?, &options.receiver.url);
    let health: Health = client.get("/health", None)?;
    if health.status != "ok" {
        return Err(format!("{url}: its status is {}", health.status));
    }
    let Some(host) = &options.host else {
        return Ok(format!("{url} is healthy"));
    };
    let listed: Hosts = client.get("/api/hosts", Some(&format!("host={}", url::encode(host))))?;
    match listed.hosts.iter().find(|listed| listed.host == *host) {
        Some(listed) if listed.state == "up" => Ok(format!("{host} is up")),
        Some(listed) => Err(format!("{host} is {}", listed.state)),
        None => Err(format!("{host} is not known there")),
    }
}
