//! `lizm export`: what a receiver keeps, as CSV or JSON, for scripts and spreadsheets.

use std::io::{ErrorKind, Write};

use lizm::client::{self, Client};
use lizm::url::encode;
use serde::Deserialize;

/// The options of `lizm export`.
#[derive(Debug)]
pub(crate) struct ExportOptions {
    pub(crate) receiver: client::Options,
    /// The host; without it all hosts.
    pub(crate) host: Option<String>,
    /// A text that the labels contain.
    pub(crate) label: Option<String>,
    /// The ends of the range, as the API takes them.
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    /// The interval, as the API takes it.
    pub(crate) by: Option<&'static str>,
    pub(crate) is_json: bool,
}

/// A page of the answer of `/api/hosts`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Hosts {
    hosts: Vec<Host>,
    next_after: Option<String>,
}

/// A host of the list.
#[derive(Deserialize)]
struct Host {
    host: String,
}

/// Prints the summaries of the hosts that the options name, a page of labels at a time.
///
/// # Errors
/// Why a page cannot be had or printed, or that the host is not known. A reader that has closed its pipe is none.
pub(crate) fn export(options: &ExportOptions, to: &mut impl Write) -> Result<(), String> {
    let client = Client::new(&options.receiver)?;
    let hosts = hosts(&client, options.host.as_deref())?;
    if let Some(host) = options.host.as_deref().filter(|_| hosts.is_empty()) {
        return Err(format!("{host} is not known there"));
    }
    let mut is_first = true;
    for host in hosts {
        let mut path = format!("/api/perf/{}", encode(&host));
        if let Some(label) = &options.label {
            path = format!("{path}/{}", encode(label));
        }
        let mut next = Some(query(options));
        while let Some(query) = next {
            let (page, following) = client.get_page(&path, &query)?;
            let written = if options.is_json {
                // A page is one line of JSON.
                let host = serde_json::Value::from(host.as_str());
                writeln!(to, "{{\"host\":{host},\"summaries\":{page}}}")
            } else {
                let rows = page.split_once('\n').filter(|_| !is_first).map_or(&*page, |(_, rows)| rows);
                to.write_all(rows.as_bytes())
            };
            match written {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|error| error.to_string())?,
            }
            (is_first, next) = (false, following);
        }
    }
    to.flush().map_err(|error| error.to_string())
}

/// The names of all hosts, or of the one that is asked for if it is known.
fn hosts(client: &Client, host: Option<&str>) -> Result<Vec<String>, String> {
    let mut query = host.map(|host| format!("host={}&labels=none", encode(host)));
    let mut names = Vec::new();
    loop {
        let page: Hosts = client.get("/api/hosts", query.as_deref())?;
        names.extend(page.hosts.into_iter().map(|host| host.host));
        match page.next_after {
            Some(after) => query = Some(format!("after={}", encode(&after))),
            None => return Ok(names),
        }
    }
}

fn query(options: &ExportOptions) -> String {
    let format = if options.is_json { "json" } else { "csv" };
    let mut query = format!("from={}&limit=11000&format={format}", encode(&options.from));
    for (name, value) in [("to", options.to.as_deref()), ("by", options.by)] {
        query += &value.map_or_else(String::new, |value| format!("&{name}={}", encode(value)));
    }
    query
}
