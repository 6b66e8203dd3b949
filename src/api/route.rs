//! What a request asks for, found by its head alone.

use std::net::IpAddr;

use smol_str::SmolStr;

use super::form::{decode, decode_form, pairs};
use super::hosts::HostsQuery;
use super::prometheus::PrometheusQuery;
use super::reply::Reply;
use super::request::{ClientTransport, RequestHead, Role};
use super::submit::Submit;
use super::summaries::SummaryQuery;
use super::{dashboard, influx};
use crate::auth::Principal;
use crate::metrics::Format;
use crate::sample::line::LINES_BYTES_MAX;
use crate::sample::{self, BODY_BYTES_MAX};
use crate::summary::KeyFilter;

/// Longest body in bytes where there is nothing to store: a statement of a client of InfluxDB, or one without meaning.
const OTHER_BYTES_MAX: usize = 64 << 10;

/// What a request asks for, checked as far as its head goes, and who asks.
#[derive(Debug)]
pub struct Route {
    pub(super) action: Action,
    /// Who submits or removes; anyone where that does not matter.
    pub(super) principal: Principal,
    /// Whether the body of the answer is left out.
    pub(super) is_head: bool,
    /// Whether the client takes an answer in gzip.
    pub(super) takes_gzip: bool,
}

#[derive(Debug)]
pub(super) enum Action {
    Submit(Submit),
    Summaries { host: SmolStr, filter: KeyFilter, query: SummaryQuery },
    Remove { host: SmolStr },
    Hosts(HostsQuery),
    Dashboard { is_cached: bool },
    Alerts { is_history: bool },
    Silence,
    Health,
    Write(influx::Write),
    Token { from: TokenClient },
    Joins { after: String },
    ShutOut { host: SmolStr },
    Metrics(Format),
    Ping,
    OpenApi,
    Prometheus(PrometheusQuery),
    Query { statement: Option<String> },
}

/// Who asks for a token, for the log.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without the feature there are no tokens"))]
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenClient {
    pub(super) address: Option<IpAddr>,
    /// Whether it asks over plain HTTP, where others may read the token.
    pub(super) is_plain: bool,
}

impl Route {
    /// Its name among [`crate::stats::ROUTES`].
    pub(super) fn name(&self) -> &'static str {
        match self.action {
            Action::Submit(_) => "submit",
            Action::Summaries { .. } => "summaries",
            Action::Remove { .. } => "remove",
            Action::Hosts(_) => "hosts",
            Action::Dashboard { .. } => "page",
            Action::Alerts { .. } | Action::Silence => "alerts",
            Action::Health => "health",
            Action::Metrics(_) => "metrics",
            Action::Write(_) => "write",
            Action::Token { .. } | Action::Joins { .. } | Action::ShutOut { .. } => "token",
            Action::Ping => "ping",
            Action::OpenApi => "other",
            Action::Prometheus(_) => "prometheus",
            Action::Query { .. } => "query",
        }
    }

    /// Longest body in bytes that this route takes.
    #[must_use]
    pub fn body_bytes_max(&self) -> usize {
        match self.action {
            Action::Write(_) => LINES_BYTES_MAX,
            Action::Submit(_) => BODY_BYTES_MAX,
            _ => OTHER_BYTES_MAX,
        }
    }

    /// Whether the body may come in chunks, without a declared length.
    #[must_use]
    pub fn takes_chunks(&self) -> bool {
        matches!(self.action, Action::Write(_))
    }

    /// Whether the body is compressed, in a format that shows by itself whether the body is whole.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        matches!(&self.action, Action::Write(write) if write.is_compressed())
    }

    /// Whether the answer is read from the store, and may be long.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let is_list = matches!(self.action, Action::Summaries { .. } | Action::Hosts(_) | Action::Joins { .. });
        is_list || matches!(self.action, Action::Metrics(_) | Action::Prometheus(_))
    }

    /// Whether the route needs a body of a declared length.
    #[must_use]
    pub fn needs_length(&self) -> bool {
        matches!(self.action, Action::Submit(_) | Action::Write(_) | Action::Silence)
    }
}

impl Action {
    /// Finds what a request of a client asks for.
    ///
    /// # Errors
    /// The reply to a request that asks for nothing there is.
    pub(super) fn find(head: &RequestHead<'_>, client: Option<IpAddr>) -> Result<Self, Reply> {
        let (path, query) = split_target(head.target);
        match path {
            "/" => {
                allow(head.method, "GET, HEAD")?;
                Ok(Self::Dashboard { is_cached: head.if_none_match.is_some_and(dashboard::is_cached) })
            }
            "/api/hosts" => {
                allow(head.method, "GET, HEAD")?;
                HostsQuery::parse(query).map(Self::Hosts)
            }
            "/api/alerts" => {
                allow(head.method, "GET, HEAD")?;
                Ok(Self::Alerts { is_history: pairs(query).any(|(name, value)| name == "history" && value == "1") })
            }
            "/api/silences" => allow(head.method, "POST").map(|()| Self::Silence),
            "/health" => allow(head.method, "GET, HEAD").map(|()| Self::Health),
            "/metrics" => allow(head.method, "GET, HEAD").map(|()| Self::Metrics(Format::of(head.accept))),
            "/write" | "/api/v2/write" => {
                allow(head.method, "POST")?;
                influx::Write::parse(head, query, client).map(Self::Write)
            }
            "/api/token" => {
                allow(head.method, "POST")?;
                let is_plain = matches!(head.transport, ClientTransport::Plain);
                Ok(Self::Token { from: TokenClient { address: client, is_plain } })
            }
            "/api/joins" => {
                allow(head.method, "GET, HEAD")?;
                let after = pairs(query).find(|(name, _)| *name == "after");
                let after = after.map(|(name, text)| decode_form(name, text)).transpose()?;
                Ok(Self::Joins { after: after.unwrap_or_default() })
            }
            "/api/openapi.json" => allow(head.method, "GET, HEAD").map(|()| Self::OpenApi),
            "/ping" => allow(head.method, "GET, HEAD").map(|()| Self::Ping),
            "/query" => {
                allow(head.method, "GET, HEAD, POST")?;
                influx::statement(query).map(|statement| Self::Query { statement })
            }
            _ if super::prometheus::is_below(path) => {
                PrometheusQuery::parse(head.method, path, query).map(Self::Prometheus)
            }
            _ if path.starts_with("/api/joins/") => {
                allow(head.method, "DELETE")?;
                let host: SmolStr = decode("host", &path["/api/joins/".len()..])?.into();
                sample::check_host(&host).map_err(|why| Reply::error(400, &why))?;
                Ok(Self::ShutOut { host })
            }
            _ => match path.strip_prefix("/api/perf/") {
                Some(rest) if !rest.is_empty() => Self::find_perf(head, rest, query, client),
                _ => Err(Reply::error(404, "path: nothing is served here; /api/hosts lists the hosts")),
            },
        }
    }

    /// Finds what follows `/api/perf/`: a host, and after a slash an epoch or a label.
    fn find_perf(head: &RequestHead<'_>, rest: &str, query: &str, client: Option<IpAddr>) -> Result<Self, Reply> {
        let bad = |sentence: String| Reply::error(400, &sentence);
        let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = match rest {
            "" => "GET, HEAD, DELETE",
            _ if !rest.contains('/') => "GET, HEAD, POST",
            _ => "GET, HEAD",
        };
        if head.method == "POST" && rest.contains('/') {
            let sentence = "path: POST takes /api/perf/HOST/EPOCH; a host has no '/', nor its escape %2F";
            return Err(Reply::error(405, sentence).with("Allow", allowed));
        }
        allow(head.method, allowed)?;
        let host: SmolStr = decode("host", host)?.into();
        sample::check_host(&host).map_err(bad)?;
        match head.method {
            "POST" => {
                let epoch = sample::parse_epoch(&decode("epoch", rest)?).map_err(bad)?;
                let (key, tags) = (head.key(client).map_err(bad)?, head.host_tags().map_err(bad)?);
                Ok(Self::Submit(Submit { host, epoch, key, tags }))
            }
            "DELETE" => Ok(Self::Remove { host }),
            _ => {
                let label = decode("label", rest)?;
                Ok(Self::Summaries { host, filter: KeyFilter::containing(&label), query: summary_query(head, query)? })
            }
        }
    }

    /// Refuses what a receiver of this role leaves to another.
    pub(super) fn check_role(&self, role: Role) -> Result<(), Reply> {
        let other = match (role, self) {
            (
                Role::Intake,
                Self::Summaries { .. }
                | Self::Hosts(_)
                | Self::Alerts { .. }
                | Self::Dashboard { .. }
                | Self::Prometheus(_),
            ) => "summaries",
            (
                Role::Summaries,
                Self::Submit(_) | Self::Remove { .. } | Self::Write(_) | Self::Ping | Self::Query { .. },
            ) => "intake",
            _ => return Ok(()),
        };
        let sentence = format!("path: not served here; a receiver that was started with --serve {other} serves it");
        Err(Reply::error(404, &sentence))
    }
}

/// What the query of a request for the summaries of a host asks for.
fn summary_query(head: &RequestHead<'_>, query: &str) -> Result<SummaryQuery, Reply> {
    let is_csv = head.accept.is_some_and(|accept| accept.to_ascii_lowercase().contains("text/csv"));
    let mut parsed = SummaryQuery { is_csv, ..SummaryQuery::default() };
    let mut rest = Vec::new();
    for (name, text) in pairs(query) {
        let value = decode_form(name, text)?;
        match name {
            "after" => parsed.after = value,
            "format" => match &*value {
                "csv" => parsed.is_csv = true,
                "json" => parsed.is_csv = false,
                _ => return Err(Reply::error(400, "format: one of json and csv")),
            },
            _ => {
                parsed.range.take(name, &value)?;
            }
        }
        if name != "after" {
            rest.push((name, text));
        }
    }
    // A link leads to the next page by the query as it was sent.
    let rest = rest.into_iter().filter(|_| parsed.range.is_given() || parsed.is_csv);
    parsed.rest = rest.map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join("&");
    Ok(parsed)
}

/// The path of a request target. Of an absolute one (RFC 9112, 3.2.2) the authority is left out.
pub(super) fn path(target: &str) -> &str {
    split_target(target).0
}

/// Splits a request target into path and query.
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
    Err(Reply::error(405, &format!("method: only {allowed} are served here")).with("Allow", allowed))
}
