//! What a request asks for, found by its head alone.

use std::borrow::Cow;

use super::hosts::HostsQuery;
use super::{Api, Reply, dashboard, influx};
use crate::auth::{Identity, Principal, bearer};
use crate::sample::line::LINES_BYTES_MAX;
use crate::sample::{self, BODY_BYTES_MAX};
use crate::summary::KeyFilter;
use crate::url;

/// Longest body in bytes where there is nothing to store: a statement of a client of InfluxDB, or one without meaning.
const OTHER_BYTES_MAX: usize = 64 << 10;

/// The request line and the headers that routes look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHead<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request target, as sent: path and query.
    pub target: &'a str,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// The header `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// The header `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// The door it came by.
    pub peer: ClientTransport<'a>,
}

/// The door a request came by, and who is on the other side.
#[derive(Debug, Clone, Copy, Default)]
pub enum ClientTransport<'a> {
    /// The plain door: anybody.
    #[default]
    Plain,
    /// The HTTPS door: the owner of a certificate that was verified, or anybody.
    Tls(Option<&'a Identity>),
}

/// What a request asks for, checked as far as its head goes.
#[derive(Debug)]
pub struct Route<'a>(pub(super) Action<'a>);

#[derive(Debug)]
pub(super) enum Action<'a> {
    Submit { speaker: Principal, host: Cow<'a, str>, epoch: u64, key: Option<sample::IdempotencyKey<'a>> },
    Summaries { host: Cow<'a, str>, wanted: KeyFilter },
    Remove { host: Cow<'a, str> },
    Hosts(HostsQuery),
    Page { is_held: bool },
    Health,
    Write(Principal, influx::Write<'a>),
    Token(ClientTransport<'a>),
    Metrics,
    Ping,
    Query { statement: Option<String> },
}

impl Route<'_> {
    /// Its name among [`crate::stats::ROUTES`].
    pub(super) fn name(&self) -> &'static str {
        match self.0 {
            Action::Submit { .. } => "submit",
            Action::Summaries { .. } => "summaries",
            Action::Remove { .. } => "remove",
            Action::Hosts(_) => "hosts",
            Action::Page { .. } => "page",
            Action::Health => "health",
            Action::Metrics => "metrics",
            Action::Write(..) => "write",
            Action::Token(_) => "token",
            Action::Ping => "ping",
            Action::Query { .. } => "query",
        }
    }

    /// Longest body in bytes this route takes.
    #[must_use]
    pub fn body_bytes_max(&self) -> usize {
        match self.0 {
            Action::Write(..) => LINES_BYTES_MAX,
            Action::Submit { .. } => BODY_BYTES_MAX,
            _ => OTHER_BYTES_MAX,
        }
    }

    /// Whether the body may come in chunks, without a declared length.
    #[must_use]
    pub fn takes_chunks(&self) -> bool {
        matches!(self.0, Action::Write(..))
    }

    /// Whether the body is packed, in a form that tells by itself whether it is whole.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        matches!(&self.0, Action::Write(_, write) if write.is_packed())
    }

    /// Whether the answer is read from the store, and may be long.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.0, Action::Summaries { .. } | Action::Hosts(_) | Action::Metrics)
    }

    /// Whether the route needs a body of a declared length.
    #[must_use]
    pub fn needs_length(&self) -> bool {
        matches!(self.0, Action::Submit { .. } | Action::Write(..))
    }
}

/// What a receiver serves of all there is. Those that share a store may be two services, which scale each alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// It takes samples, and deletes hosts: all that changes the store.
    Intake,
    /// It answers what was asked of the store.
    Summaries,
}

impl Api {
    /// Finds what a request asks for, at `now` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The reply to a request that can be refused by its head.
    pub fn route<'a>(&self, head: &RequestHead<'a>, now: u64) -> Result<Route<'a>, Reply> {
        let (path, query) = split_target(head.target);
        if path != "/health" && matches!(head.method, "GET" | "HEAD") && !self.readers.admit(head.authorization) {
            let mut reply = Reply::error(401, "password: needed to read here, by HTTP Basic; see --read-password-file");
            reply.headers.push(("WWW-Authenticate", "Basic realm=\"lizm\", charset=\"UTF-8\""));
            return Err(reply);
        }
        let action = match path {
            "/" => {
                allow(head.method, "GET, HEAD")?;
                Action::Page { is_held: head.if_none_match.is_some_and(dashboard::is_held) }
            }
            "/api/hosts" => {
                allow(head.method, "GET, HEAD")?;
                Action::Hosts(HostsQuery::parse(query)?)
            }
            "/health" => {
                allow(head.method, "GET, HEAD")?;
                Action::Health
            }
            "/metrics" => {
                allow(head.method, "GET, HEAD")?;
                Action::Metrics
            }
            "/write" => {
                allow(head.method, "POST")?;
                Action::Write(self.speaker(head, now)?, influx::Write::parse(head, query)?)
            }
            "/api/token" => {
                allow(head.method, "POST")?;
                Action::Token(head.peer)
            }
            "/ping" => {
                allow(head.method, "GET, HEAD")?;
                Action::Ping
            }
            "/query" => {
                allow(head.method, "GET, HEAD, POST")?;
                Action::Query { statement: influx::statement(query)? }
            }
            _ => {
                let rest = path.strip_prefix("/api/perf/").filter(|rest| !rest.is_empty());
                let rest =
                    rest.ok_or_else(|| Reply::error(404, "path: nothing is served here; /api/hosts lists the hosts"))?;
                self.route_perf(head, rest, now)?
            }
        };
        self.check_served(&action)?;
        Ok(Route(action))
    }

    /// Refuses what is another service's.
    fn check_served(&self, action: &Action<'_>) -> Result<(), Reply> {
        let other = match (self.serve, action) {
            (Role::Intake, Action::Summaries { .. } | Action::Hosts(_) | Action::Page { .. }) => "summaries",
            (
                Role::Summaries,
                Action::Submit { .. } | Action::Remove { .. } | Action::Write(..) | Action::Ping | Action::Query { .. },
            ) => "intake",
            _ => return Ok(()),
        };
        let sentence = format!("path: not served here; a receiver that was started with --serve {other} serves it");
        Err(Reply::error(404, &sentence))
    }

    /// Routes what follows `/api/perf/`: a host, and after a slash an epoch or a label.
    fn route_perf<'a>(&self, head: &RequestHead<'a>, rest: &'a str, now: u64) -> Result<Action<'a>, Reply> {
        let bad = |sentence: String| Reply::error(400, &sentence);
        let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = match rest {
            "" => "GET, HEAD, DELETE",
            _ if !rest.contains('/') => "GET, HEAD, POST",
            _ => "GET, HEAD",
        };
        allow(head.method, allowed)?;
        let host = decode("host", host)?;
        sample::check_host(&host).map_err(bad)?;
        match head.method {
            "POST" => Ok(Action::Submit {
                speaker: self.speaker_for(&host, head, now)?,
                host,
                epoch: sample::parse_epoch(&decode("epoch", rest)?).map_err(bad)?,
                key: head.idempotency_key.map(sample::parse_key).transpose().map_err(bad)?,
            }),
            "DELETE" => {
                self.speaker_for(&host, head, now)?;
                Ok(Action::Remove { host })
            }
            _ => Ok(Action::Summaries { host, wanted: KeyFilter::containing(&decode("label", rest)?) }),
        }
    }

    /// Who submits, by the token in the head.
    fn speaker(&self, head: &RequestHead<'_>, now: u64) -> Result<Principal, Reply> {
        let token = head.authorization.and_then(bearer);
        self.ingest.admit(token, now).map_err(|refusal| Reply::untrusted(&refusal))
    }

    /// The same, where it may speak for `host`.
    fn speaker_for(&self, host: &str, head: &RequestHead<'_>, now: u64) -> Result<Principal, Reply> {
        let speaker = self.speaker(head, now)?;
        self.ingest.check(&speaker, host, now).map_err(|refusal| Reply::untrusted(&refusal))?;
        Ok(speaker)
    }
}

/// Splits a request target into path and query; of an absolute one (RFC 9112, 3.2.2) the authority is left out.
fn split_target(target: &str) -> (&str, &str) {
    let path = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    path.split_once('?').unwrap_or((path, ""))
}

fn allow(method: &str, allowed: &'static str) -> Result<(), Reply> {
    if allowed.split(", ").any(|known| known == method) {
        return Ok(());
    }
    let mut reply = Reply::error(405, &format!("method: only {allowed} are served here"));
    reply.headers.push(("Allow", allowed));
    Err(reply)
}

/// The names and values of a query or a form, as they stand.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a value of a query or a form, in which a plus sign is a space.
pub(super) fn decode_form(field: &str, value: &str) -> Result<String, Reply> {
    decode(field, &value.replace('+', " ")).map(Cow::into_owned)
}

/// Percent-decodes a part of the target, once.
fn decode<'a>(field: &str, text: &'a str) -> Result<Cow<'a, str>, Reply> {
    url::decode(text).map_err(|why| Reply::error(400, &format!("{field}: {why}")))
}
