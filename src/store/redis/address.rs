//! Where a shared store is: `redis://[user:password@]host:port/db`, `rediss://…`, `redis+cluster://host1:port,host2:port`.

use std::fmt;
use std::path::PathBuf;

use crate::url::{decode, redact};

/// The port of Redis where none is given.
const DEFAULT_PORT: u16 = 6379;
/// Most nodes of a cluster that may be named: one that answers names the others.
const NODES_MAX: usize = 64;

/// The address of a Redis server, or of nodes of a Redis Cluster, of which one that answers is enough.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) nodes: Vec<(String, u16)>,
    pub(super) is_cluster: bool,
    pub(super) is_tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: i64,
    /// A file with the certificates to trust, in PEM; without it those of the system are.
    pub(super) ca: Option<PathBuf>,
}

impl Address {
    /// Reads a URL; `ca` is the file of `--store-ca`.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without the password.
    pub fn parse(url: &str, ca: Option<PathBuf>) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let (is_tls, is_cluster) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+cluster" => (false, true),
            "rediss+cluster" => (true, true),
            _ => return Err(format!("{scheme}:// is not redis://, rediss:// or redis+cluster://")),
        };
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (hosts, db) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => (None, None),
        };
        if user.is_some() && password.is_none() {
            return Err("the URL has a user and no password; a password alone is written :PASSWORD@".to_owned());
        }
        let nodes = hosts.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()?;
        if nodes.len() > if is_cluster { NODES_MAX } else { 1 } {
            return Err(if is_cluster {
                format!("more than {NODES_MAX} nodes; one that answers is enough")
            } else {
                "more than one host; the nodes of a cluster are named by redis+cluster://".to_owned()
            });
        }
        let wrong_db = || format!("{:?} is not the number of a database, such as 0", redact(db));
        let db = if db.is_empty() { 0 } else { db.parse().ok().filter(|db| *db >= 0).ok_or_else(wrong_db)? };
        if is_cluster && db != 0 {
            return Err("a Redis Cluster has no database but 0".to_owned());
        }
        if ca.is_some() && !is_tls {
            return Err("--store-ca goes with rediss:// alone, which is encrypted".to_owned());
        }
        Ok(Self { nodes, is_cluster, is_tls, user, password, db, ca })
    }

    /// The same Redis at another address: a node of the same cluster.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        Self { nodes: vec![(host.to_owned(), port)], ..self.clone() }
    }
}

impl fmt::Display for Address {
    /// The URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, is_cluster, is_tls, db, .. } = self;
        let scheme = if *is_tls { "rediss" } else { "redis" };
        let nodes: Vec<_> = nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        write!(f, "{scheme}{}://{}", if *is_cluster { "+cluster" } else { "" }, nodes.join(","))?;
        if *db == 0 { Ok(()) } else { write!(f, "/{db}") }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decoded(text: &str) -> Result<Option<String>, String> {
    let decoded = decode(text).map_err(|why| format!("the user or password {why}"))?;
    Ok(Some(decoded.into_owned()).filter(|text| !text.is_empty()))
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    // What stands for the port may be a password, whose host is missing: it is not shown.
    let form = format!("a host and a port such as localhost:{DEFAULT_PORT}");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| format!("not {form}: the port is not a number up to 65535"))?)
        }
        _ => (text, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '?') {
        Err(format!("not {form}: the host is empty, or has a space or a '?'"))
    } else {
        Ok((host.to_owned(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_their_password() {
        let read = |url: &str| Address::parse(url, None).unwrap();
        let full = read("redis://me:p%40ss@db.example:7000/3");
        assert_eq!((full.user.as_deref(), full.password.as_deref(), full.db), (Some("me"), Some("p@ss"), 3));
        assert_eq!(full.to_string(), "redis://db.example:7000/3");
        assert_eq!(format!("{full:?}"), "redis://db.example:7000/3");
        assert_eq!(read("rediss://:secret@[::1]").nodes, [("::1".to_owned(), 6379)]);
        let cluster = read("redis+cluster://a:1,b,c:3");
        assert!(cluster.is_cluster && cluster.nodes.len() == 3 && cluster.nodes[1].1 == 6379);
        assert_eq!(cluster.at("d", 4).to_string(), "redis+cluster://d:4");
    }

    #[test]
    fn wrong_urls_are_refused_by_a_sentence() {
        for (url, part) in [
            ("redis://", "not a host and a port"),
            ("redis://me:s%zz@a", "the user or password has a '%'"),
            ("redis://a:x", "not a host and a port"),
            ("redis://a:70000", "not a host and a port"),
            ("redis://a/x", "not the number of a database"),
            ("redis://a/-1", "not the number of a database"),
            ("redis://a,b", "more than one host"),
            ("redis+cluster://a/1", "no database but 0"),
            ("redis://me@a", "no password"),
            ("http://a", "is not redis://"),
        ] {
            let said = Address::parse(url, None).unwrap_err();
            assert!(said.contains(part), "{url}: {said}");
        }
        for url in ["redis://:secret@a:x", "redis://me:secret", "redis://a/0?password=secret", "redis://:se/secret@a:x"]
        {
            let said = Address::parse(url, None).unwrap_err();
            assert!(!said.contains("secret"), "{said}");
        }
        assert!(Address::parse("redis://a", Some("ca.pem".into())).unwrap_err().contains("--store-ca"));
    }
}
