//! What is answered to a request: routes, statuses and bodies, the same for every door.
//!
//! A door first asks for the [`Route`] of a head, before it reads the body, and then for the reply to both. What needs
//! a token or a password is refused by the head alone.

mod influx;
mod page;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use smol_str::SmolStr;

use crate::ingest::{Ingest, Refused};
use crate::metrics;
use crate::sample::line::LINES_BYTES_MAX;
use crate::sample::{self, BODY_BYTES_MAX, Sample};
use crate::stats::Stats;
use crate::store::{Recorded, Unavailable};
use crate::summary::{self, Summaries, Wanted};
use crate::trust::{Gate, Readers, Refusal, Source, Speaker, bearer};

/// Longest request line and header lines together, in bytes: the longest host and label, escaped, fit several times.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// Most requests a door may have parked before the process says that it is not well: each keeps a thread and two
/// descriptors, and all of them together what a process commonly may have.
const PARKED_MAX: u64 = 2048;

/// Longest body in bytes where there is nothing to store: a statement of a client of InfluxDB, or one without meaning.
const OTHER_BYTES_MAX: usize = 64 << 10;

/// Most labels in `?series=`: what a page shows of a host at a glance.
const LIST_SERIES_MAX: usize = 16;

/// An answer, ready to be written to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers beyond those of every answer: name and value. The body is JSON where `Content-Type` is not among them.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body; nothing for a 204 and a 304.
    pub body: Vec<u8>,
}

impl Reply {
    /// An error with one sentence for people.
    #[must_use]
    pub fn error(status: u16, sentence: &str) -> Self {
        Self::json(status, &json!({ "error": sentence }))
    }

    /// The answer to one that is not trusted, with its challenge.
    fn untrusted(refusal: &Refusal) -> Self {
        let (status, challenge) = refusal.status();
        let mut reply = Self::error(status, &refusal.to_string());
        reply.headers.push(("WWW-Authenticate", challenge));
        reply
    }

    fn nothing() -> Self {
        Self { status: 204, headers: Vec::new(), body: Vec::new() }
    }

    fn json(status: u16, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self { status, headers: Vec::new(), body },
            Err(error) => Self::error(500, &format!("the answer could not be written as JSON: {error}")),
        }
    }
}

/// The request line and the headers that routes look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
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
    pub peer: Peer<'a>,
}

/// The door a request came by, and who is on the other side.
#[derive(Debug, Clone, Copy, Default)]
pub enum Peer<'a> {
    /// The plain door: anybody.
    #[default]
    Plain,
    /// The HTTPS door: the owner of a certificate that was verified, or anybody.
    Tls(Option<&'a Source>),
}

/// What a request asks for, checked as far as its head goes.
#[derive(Debug)]
pub struct Route<'a>(Action<'a>);

#[derive(Debug)]
enum Action<'a> {
    Submit { speaker: Speaker, host: Cow<'a, str>, epoch: u64, key: Option<sample::Key<'a>> },
    Summaries { host: Cow<'a, str>, wanted: Wanted },
    Remove { host: Cow<'a, str> },
    Hosts(HostsQuery),
    Page { is_held: bool },
    Health,
    Write(Speaker, influx::Write<'a>),
    Token(Peer<'a>),
    Metrics,
    Ping,
    Query { statement: Option<String> },
}

#[derive(Debug, Default)]
struct HostsQuery {
    host: Option<String>,
    series: Vec<String>,
    after: Option<String>,
    limit: Option<usize>,
}

impl Route<'_> {
    /// Its name among [`crate::stats::ROUTES`].
    fn name(&self) -> &'static str {
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

    /// Whether the route needs a body of a declared length.
    #[must_use]
    pub fn needs_length(&self) -> bool {
        matches!(self.0, Action::Submit { .. } | Action::Write(..))
    }
}

/// What a receiver serves of all there is. Those that share a store may be two services, which scale each alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serve {
    /// Everything.
    #[default]
    All,
    /// It takes samples, and deletes hosts: all that changes the store.
    Intake,
    /// It answers what was asked of the store.
    Summaries,
}

/// The answers of one receiver.
pub struct Api {
    ingest: Arc<Ingest>,
    readers: Readers,
    metrics: metrics::Options,
    serve: Serve,
}

impl Api {
    /// The API over what `ingest` leads to, for `readers`.
    #[must_use]
    pub fn new(ingest: Arc<Ingest>, readers: Readers) -> Self {
        Self { ingest, readers, metrics: metrics::Options::default(), serve: Serve::All }
    }

    /// The same, of which only `serve` is served here.
    #[must_use]
    pub fn serving(self, serve: Serve) -> Self {
        Self { serve, ..self }
    }

    /// The same with `options` for `/metrics`.
    #[must_use]
    pub fn with_metrics(self, options: metrics::Options) -> Self {
        Self { metrics: options, ..self }
    }

    /// The way in that it stands before.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// What stands before submitting and removing.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        self.ingest.gate()
    }

    /// What the process counts.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.ingest.stats()
    }

    /// Finds what a request asks for, at `now` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The reply to a request that can be refused by its head.
    pub fn route<'a>(&self, head: &Head<'a>, now: u64) -> Result<Route<'a>, Reply> {
        let (path, query) = split_target(head.target);
        if path != "/health" && matches!(head.method, "GET" | "HEAD") && !self.readers.admit(head.authorization) {
            let mut reply = Reply::error(401, "password: needed to read here, by HTTP Basic; see --read-password-file");
            reply.headers.push(("WWW-Authenticate", "Basic realm=\"lizm\", charset=\"UTF-8\""));
            return Err(reply);
        }
        let action = match path {
            "/" => {
                allow(head.method, "GET, HEAD")?;
                Action::Page { is_held: head.if_none_match.is_some_and(page::is_held) }
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
            (Serve::Intake, Action::Summaries { .. } | Action::Hosts(_) | Action::Page { .. }) => "summaries",
            (
                Serve::Summaries,
                Action::Submit { .. } | Action::Remove { .. } | Action::Write(..) | Action::Ping | Action::Query { .. },
            ) => "intake",
            _ => return Ok(()),
        };
        let sentence = format!("path: not served here; a receiver that was started with --serve {other} serves it");
        Err(Reply::error(404, &sentence))
    }

    /// Routes what follows `/api/perf/`: a host, and after a slash an epoch or a label.
    fn route_perf<'a>(&self, head: &Head<'a>, rest: &'a str, now: u64) -> Result<Action<'a>, Reply> {
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
            _ => Ok(Action::Summaries { host, wanted: Wanted::containing(&decode("label", rest)?) }),
        }
    }

    /// Who submits, by the token in the head.
    fn speaker(&self, head: &Head<'_>, now: u64) -> Result<Speaker, Reply> {
        let token = head.authorization.and_then(bearer);
        self.ingest.admit(token, now).map_err(|refusal| Reply::untrusted(&refusal))
    }

    /// The same, where it may speak for `host`.
    fn speaker_for(&self, host: &str, head: &Head<'_>, now: u64) -> Result<Speaker, Reply> {
        let speaker = self.speaker(head, now)?;
        self.ingest.check(&speaker, host, now).map_err(|refusal| Reply::untrusted(&refusal))?;
        Ok(speaker)
    }

    /// Answers a request whose body has been read, at `now` in seconds since the Unix epoch.
    #[must_use]
    pub fn reply(&self, route: &Route<'_>, body: &[u8], now: u64) -> Reply {
        let began = Instant::now();
        let reply = self.find_reply(route, body, now);
        self.stats().observe(route.name(), began.elapsed());
        reply
    }

    fn find_reply(&self, route: &Route<'_>, body: &[u8], now: u64) -> Reply {
        match &route.0 {
            Action::Submit { speaker, host, epoch, key } => {
                let sample =
                    sample::decode_values(body).map(|values| Sample { host: (**host).into(), epoch: *epoch, values });
                self.submit(speaker, sample, *key, now)
            }
            Action::Summaries { host, wanted } => match self.ingest.store().series(host, wanted, now) {
                Ok(series) => Reply::json(200, &Summaries { series: &series, wanted, now }),
                Err(unavailable) => Reply::error(503, &unavailable.to_string()),
            },
            Action::Remove { host } => match self.ingest.remove(host, now) {
                Ok(true) => Reply::json(200, &json!({ "removed": true })),
                Ok(false) => Reply::error(404, "host: not known here"),
                Err(unavailable) => Reply::error(503, &unavailable.to_string()),
            },
            Action::Hosts(query) => {
                self.hosts(query, now).unwrap_or_else(|unavailable| Reply::error(503, &unavailable.to_string()))
            }
            Action::Page { is_held } => page::reply(*is_held),
            Action::Health => match self.failing() {
                None => Reply::json(200, &json!({ "status": "ok" })),
                Some(reason) => Reply::json(503, &json!({ "status": "failing", "reason": reason })),
            },
            Action::Write(speaker, write) => write.reply(&self.ingest, speaker, body, now),
            Action::Token(peer) => self.token(*peer, now),
            Action::Metrics => Reply {
                status: 200,
                headers: vec![("Content-Type", metrics::CONTENT_TYPE)],
                body: metrics::write(&self.ingest, self.metrics, now),
            },
            Action::Ping => influx::ping(),
            Action::Query { statement } => influx::query(statement.as_deref(), body),
        }
    }

    /// Why this process does not do its job, if so.
    fn failing(&self) -> Option<String> {
        if let Some(unavailable) = self.ingest.store().unavailable() {
            return Some(unavailable.to_string());
        }
        self.worn_out()
    }

    /// Why another process should take its place, if so: of what it lacks a restart would help.
    #[must_use]
    pub fn worn_out(&self) -> Option<String> {
        let (parked, left) = (self.ingest.stats().parked.get(), self.ingest.stats().left_behind.get());
        if parked > PARKED_MAX {
            return Some(format!("{parked} requests are parked, and the limit is {PARKED_MAX}"));
        }
        (left > PARKED_MAX).then(|| format!("{left} connections are left behind, and the limit is {PARKED_MAX}"))
    }

    fn submit(
        &self,
        speaker: &Speaker,
        sample: Result<Sample<'_>, String>,
        key: Option<sample::Key<'_>>,
        now: u64,
    ) -> Reply {
        let sample = match sample {
            Ok(sample) => sample,
            Err(sentence) => {
                self.stats().refused_malformed.add(1);
                return Reply::error(400, &sentence);
            }
        };
        match self.ingest.submit(speaker, &sample, key, now) {
            Ok(Recorded { duplicate: true, .. }) => Reply::json(200, &json!({ "stored": 0, "duplicate": true })),
            Ok(Recorded { stored, expired, refused, .. }) => {
                Reply::json(200, &Submitted { stored, expired, refused: (refused > 0).then_some(refused) })
            }
            Err(Refused::Untrusted(refusal)) => Reply::untrusted(&refusal),
            Err(refused) => {
                let status = match refused {
                    Refused::Malformed(_) | Refused::Untrusted(_) => 400,
                    Refused::Ahead { .. } => 422,
                    Refused::Unavailable(_) => 503,
                    Refused::SeriesCap { .. } => 429,
                };
                Reply::error(status, &refused.to_string())
            }
        }
    }

    /// Gives the owner of a certificate a token for the hosts that it names.
    #[cfg(feature = "tls")]
    fn token(&self, peer: Peer<'_>, now: u64) -> Reply {
        let gate = self.ingest.gate();
        let refuse = |status, sentence: &str, of: &str| {
            self.stats().untrusted.add(1);
            gate.tell_of(&format!("{sentence}; {of}"), now);
            let mut reply = Reply::error(status, sentence);
            reply.headers.push(("WWW-Authenticate", "Bearer realm=\"lizm\", error=\"invalid_client\""));
            reply
        };
        let nobody = "subject not known";
        let Peer::Tls(source) = peer else {
            return refuse(403, "token: given over HTTPS alone, to the owner of a certificate", nobody);
        };
        let Some(tokens) = gate.tokens() else {
            return Reply::error(404, "token: none is needed here; this receiver runs without --token-key");
        };
        let Some(source) = source else {
            return refuse(401, "token: given to the owner of a certificate, and this connection has none", nobody);
        };
        match tokens.issue(source.clone(), now) {
            Ok(issued) => {
                let mut reply = Reply::json(200, &issued);
                reply.headers.push(("Cache-Control", "no-store"));
                reply
            }
            Err(why) => refuse(403, &format!("certificate: {why}"), &source.to_string()),
        }
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with the feature tls it is used")]
    fn token(&self, _: Peer<'_>, _: u64) -> Reply {
        Reply::error(403, &format!("token: {}", crate::trust::WITHOUT_TLS))
    }

    fn hosts(&self, query: &HostsQuery, now: u64) -> Result<Reply, Unavailable> {
        let store = self.ingest.store();
        let names = store.hosts(now)?;
        let listed = match (&query.host, &query.after) {
            (Some(host), _) => match names.binary_search_by(|name| (**name).cmp(host.as_str())) {
                Ok(place) => &names[place..=place],
                Err(_) => &[],
            },
            (None, Some(after)) => &names[names.partition_point(|name| **name <= **after)..],
            (None, None) => &names[..],
        };
        let listed = &listed[..query.limit.unwrap_or(usize::MAX).min(listed.len())];
        let series: Vec<&str> = query.series.iter().map(String::as_str).collect();
        let all = Wanted::containing("");
        let kept = query.host.as_ref().map(|host| store.series(host, &all, now)).transpose()?;
        let statuses = store.statuses(listed, &series, now)?;
        let hosts = listed.iter().zip(statuses).filter_map(|(name, status)| {
            let status = status?;
            Some(HostEntry {
                host: name,
                state: status.state(now).name(),
                last_epoch: status.last_epoch,
                age_sec: status.age_sec(now),
                interval_sec: status.interval_sec,
                clock_skew_sec: status.clock_skew_sec,
                series: (!series.is_empty()).then(|| status.recent.into_iter().collect()),
                labels: status.labels,
                summaries: kept.as_ref().map(|series| Summaries { series, wanted: &all, now }),
            })
        });
        let answer = HostsAnswer {
            hosts: hosts.collect(),
            count: names.len(),
            series_start_sec: (!series.is_empty()).then(|| summary::recent_start(now)),
            series_interval_sec: (!series.is_empty()).then_some(summary::RECENT.interval_sec),
        };
        Ok(Reply::json(200, &answer))
    }
}

/// What became of the values of a submission.
#[derive(Debug, Serialize)]
struct Submitted {
    stored: usize,
    expired: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
}

/// The list of hosts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct HostsAnswer<'a> {
    hosts: Vec<HostEntry<'a>>,
    /// All hosts there are, of which a page lists some.
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    series_start_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series_interval_sec: Option<u64>,
}

/// A host as the list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct HostEntry<'a> {
    host: &'a str,
    state: &'static str,
    last_epoch: u64,
    age_sec: u64,
    interval_sec: Option<u64>,
    clock_skew_sec: Option<i32>,
    labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<BTreeMap<String, Vec<Option<f64>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summaries: Option<Summaries<'a, SmolStr>>,
}

impl HostsQuery {
    fn parse(query: &str) -> Result<Self, Reply> {
        let mut parsed = Self::default();
        for (name, value) in pairs(query) {
            let value = || decode_form(name, value);
            match name {
                "host" => parsed.host = Some(value()?),
                "series" => parsed.series = value()?.split(',').map(str::to_owned).collect(),
                "after" => parsed.after = Some(value()?),
                "limit" => {
                    let limit = value()?.parse().ok().filter(|limit| *limit > 0);
                    let wrong = || Reply::error(400, "limit: not a whole number above 0");
                    parsed.limit = Some(limit.ok_or_else(wrong)?);
                }
                _ => return Err(Reply::error(400, "query: only host, series, after and limit are known here")),
            }
        }
        if parsed.host.is_some() && (parsed.after.is_some() || parsed.limit.is_some()) {
            return Err(Reply::error(400, "host: lists one host, with which after and limit mean nothing"));
        }
        if parsed.series.len() > LIST_SERIES_MAX {
            return Err(Reply::error(400, &format!("series: the limit is {LIST_SERIES_MAX} labels")));
        }
        Ok(parsed)
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
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a value of a query or a form, in which a plus sign is a space.
fn decode_form(field: &str, value: &str) -> Result<String, Reply> {
    decode(field, &value.replace('+', " ")).map(Cow::into_owned)
}

/// Percent-decodes a part of the target, once.
fn decode<'a>(field: &str, text: &'a str) -> Result<Cow<'a, str>, Reply> {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err(Reply::error(400, &format!("{field}: has a '%' that two hexadecimal digits do not follow")));
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Reply::error(400, &format!("{field}: is not UTF-8 once decoded")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use serde_json::Value;

    const NOW: u64 = 1_465_001_814;

    fn api(series_max: usize) -> Api {
        let ingest = Ingest::new(Arc::new(Store::new(series_max)), Gate::wide_open(), Arc::default());
        Api::new(Arc::new(ingest), Readers::Anyone)
    }

    fn ask(api: &Api, method: &str, target: &str, body: &str) -> (u16, Value) {
        ask_with(api, method, target, body, None)
    }

    fn ask_with(api: &Api, method: &str, target: &str, body: &str, idempotency_key: Option<&str>) -> (u16, Value) {
        let head = Head { method, target, idempotency_key, ..Head::default() };
        let reply = match api.route(&head, NOW) {
            Ok(route) => api.reply(&route, body.as_bytes(), NOW),
            Err(reply) => reply,
        };
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    fn post(api: &Api, target: &str, body: &str) -> (u16, Value) {
        ask(api, "POST", target, body)
    }

    #[test]
    fn refusals_name_the_field_and_the_limit() {
        let api = api(1);
        assert_eq!(post(&api, &format!("/api/perf/h/{NOW}"), "{\"cpu\":1}").0, 200);
        let long_host = format!("/api/perf/{}/1", "h".repeat(256));
        let ahead = format!("/api/perf/h/{}", NOW + 301);
        let fresh = format!("/api/perf/h/{NOW}");
        let cases: &[(&str, &str, &str, u16, &str)] = &[
            ("POST", "/", "", 405, "GET, HEAD"),
            ("GET", "/index.html", "", 404, "path"),
            ("GET", "/api/perf", "", 404, "path"),
            ("GET", "/api/perf/", "", 404, "path"),
            ("GET", "/api/perfect/h", "", 404, "path"),
            ("POST", "/api/hosts", "", 405, "GET, HEAD"),
            ("DELETE", "/health", "", 405, "GET, HEAD"),
            ("POST", "/api/perf/h", "", 405, "GET, HEAD, DELETE"),
            ("POST", "/api/perf/h/1/2", "", 405, "GET, HEAD"),
            ("PUT", "/api/perf/h/1", "", 405, "GET, HEAD, POST"),
            ("get", "/api/perf/h", "", 405, "GET, HEAD, DELETE"),
            ("POST", "/api/perf//1", "{}", 400, "host: 0 bytes"),
            ("POST", &long_host, "{}", 400, "host: 256 bytes long, the limit is 1 to 255"),
            ("POST", "/api/perf/a%2Fb/1", "{}", 400, "host: has a '/'"),
            ("GET", "/api/perf/a%0Ab", "", 400, "host: has a control character"),
            ("GET", "/api/perf/a%zzb", "", 400, "host: has a '%'"),
            ("GET", "/api/perf/a%f", "", 400, "host: has a '%'"),
            ("GET", "/api/perf/a%ff", "", 400, "host: is not UTF-8"),
            ("GET", "/api/perf/h/%ff", "", 400, "label: is not UTF-8"),
            ("POST", "/api/perf/h/now", "{}", 400, "epoch: not seconds"),
            ("POST", "/api/perf/h/1465001814000", "{}", 400, "1 to 12 digits"),
            ("POST", &fresh, "{\"cpu\":true}", 400, "body: "),
            ("POST", &ahead, "{\"cpu\":1}", 422, "epoch: 301 seconds ahead"),
            ("POST", &fresh, "{\"mem\":1}", 429, "--max-series 1"),
            ("GET", "/api/hosts?limit=0", "", 400, "limit"),
            ("GET", "/api/hosts?limit=x", "", 400, "limit"),
            ("GET", "/api/hosts?sort=x", "", 400, "query"),
            ("GET", "/api/hosts?host=h&limit=1", "", 400, "host: lists one"),
            ("GET", "/api/hosts?host=h&after=g", "", 400, "host: lists one"),
            ("GET", "/api/hosts?series=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "", 400, "series: the limit is 16"),
            ("DELETE", "/api/perf/nobody", "", 404, "host"),
        ];
        for (method, target, body, status, part) in cases {
            let (answered, reply) = ask(&api, method, target, body);
            let said = reply["error"].as_str().unwrap();
            assert!(answered == *status && said.contains(part), "{method} {target}: {answered} {said}");
        }
        let (status, reply) = ask_with(&api, "POST", &fresh, "{}", Some("3e1b-4f"));
        assert!(status == 400 && reply["error"].as_str().unwrap().contains("Idempotency-Key"), "{reply}");
    }

    #[test]
    fn each_of_two_services_names_the_other() {
        for (serve, target, methods, other) in [
            (Serve::Intake, "/api/perf/h", &["GET", "HEAD"][..], "--serve summaries"),
            (Serve::Intake, "/api/hosts", &["GET"], "--serve summaries"),
            (Serve::Intake, "/", &["GET"], "--serve summaries"),
            (Serve::Summaries, "/api/perf/h/1", &["POST"], "--serve intake"),
            (Serve::Summaries, "/api/perf/h", &["DELETE"], "--serve intake"),
            (Serve::Summaries, "/write", &["POST"], "--serve intake"),
            (Serve::Summaries, "/ping", &["GET"], "--serve intake"),
        ] {
            for method in methods {
                let head = Head { method, target, ..Head::default() };
                let refused = api(1).serving(serve).route(&head, NOW).unwrap_err();
                let said = String::from_utf8(refused.body).unwrap();
                assert!(refused.status == 404 && said.contains(other), "{method} {target}: {said}");
                let others = if serve == Serve::Intake { Serve::Summaries } else { Serve::Intake };
                assert!(api(1).serving(others).route(&head, NOW).is_ok() && api(1).route(&head, NOW).is_ok());
            }
            let head = Head { method: "GET", target: "/health", ..Head::default() };
            assert!(api(1).serving(serve).route(&head, NOW).is_ok());
        }
    }

    #[test]
    fn a_405_says_what_is_allowed() {
        let head = Head { method: "PATCH", target: "/api/perf/h/1", ..Head::default() };
        assert_eq!(api(1).route(&head, NOW).unwrap_err().headers, [("Allow", "GET, HEAD, POST")]);
    }

    #[test]
    fn what_is_submitted_is_counted() {
        let api = api(3);
        let at = |epoch: u64| format!("/api/perf/h/{epoch}");
        assert_eq!(post(&api, &at(NOW), "{}"), (200, json!({"stored": 0, "expired": 0})));
        assert_eq!(ask(&api, "GET", "/api/hosts", "").1["count"], 0);
        assert_eq!(post(&api, &at(NOW), "{\"cpu\":1,\"mem\":\"2\"}"), (200, json!({"stored": 2, "expired": 0})));
        assert_eq!(post(&api, &at(NOW - 90_000), "{\"cpu\":1}"), (200, json!({"stored": 0, "expired": 1})));
        assert_eq!(
            post(&api, &at(NOW), "{\"a\":1,\"b\":1,\"cpu\":1}"),
            (200, json!({"stored": 2, "expired": 0, "refused": 1}))
        );
        let keyed = |key| ask_with(&api, "POST", &at(NOW), "{\"cpu\":1}", Some(key));
        assert_eq!(keyed("s-1"), (200, json!({"stored": 1, "expired": 0})));
        assert_eq!(keyed("s-1"), (200, json!({"stored": 0, "duplicate": true})));
        assert_eq!(ask(&api, "DELETE", "/api/perf/h", ""), (200, json!({"removed": true})));
        assert_eq!(ask(&api, "GET", "/api/perf/h", ""), (200, json!({})));
    }

    #[test]
    fn hosts_and_labels_are_decoded_once() {
        let api = api(10);
        assert_eq!(post(&api, &format!("/api/perf/caf%C3%A9%20%2525/{NOW}"), "{\"disk /var\":1,\"CPU\":2}").0, 200);
        assert_eq!(ask(&api, "GET", "/api/hosts", "").1["hosts"][0]["host"], "café %25");
        let keys = |target: &str| {
            let (status, reply) = ask(&api, "GET", target, "");
            assert_eq!(status, 200, "{target}");
            reply.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        let host = "/api/perf/caf%c3%a9%20%2525";
        assert_eq!(keys(host).len(), 4);
        assert_eq!(keys(&format!("{host}/")).len(), 4);
        assert_eq!(keys(&format!("{host}/by-minute:cpu")), ["summary:by-minute:CPU"]);
        assert_eq!(
            keys(&format!("{host}/Disk%20/VAR?x=1")),
            ["summary:by-hour:disk /var", "summary:by-minute:disk /var"]
        );
        assert_eq!(keys(&format!("http://other:8080{host}/hour")).len(), 2);
        assert!(keys(&format!("{host}/nothing")).is_empty() && keys("/api/perf/nobody").is_empty());
    }

    #[test]
    fn the_list_of_hosts_pages_and_adds_series() {
        let api = api(100);
        for (host, epoch) in [("b", NOW), ("b", NOW - 1), ("a", NOW - 90), ("a", NOW - 91), ("c", NOW)] {
            assert_eq!(post(&api, &format!("/api/perf/{host}/{epoch}"), "{\"cpu\":1.005,\"mem\":3}").0, 200);
        }
        let (_, all) = ask(&api, "GET", "/api/hosts", "");
        assert_eq!(
            all["hosts"][0],
            json!({"host": "a", "state": "down", "last-epoch": NOW - 90, "age-sec": 90, "interval-sec": null, "clock-skew-sec": -90, "labels": ["cpu", "mem"]})
        );
        let (_, page) = ask(&api, "GET", "/api/hosts?after=a&limit=1&series=cpu,none", "");
        assert_eq!((page["hosts"].as_array().unwrap().len(), &page["count"]), (1, &json!(3)));
        assert_eq!(page["hosts"][0]["host"], "b");
        assert_eq!(page["hosts"][0]["state"], "up");
        assert_eq!(page["series-interval-sec"], 60);
        assert_eq!(page["series-start-sec"], 1_464_998_220);
        assert_eq!(page["hosts"][0]["series"]["cpu"][59], 1.0);
        assert_eq!(page["hosts"][0]["series"]["cpu"][58], Value::Null);
        assert_eq!(page["hosts"][0]["series"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn one_host_is_listed_with_all_that_is_kept_of_it() {
        let api = api(100);
        // A path with such a name in it is another path to browsers and proxies; a query is not.
        for host in ["a", "%2E%2E", "b"] {
            assert_eq!(post(&api, &format!("/api/perf/{host}/{NOW}"), "{\"cpu\":1,\"mem\":3}").0, 200);
        }
        let (_, answer) = ask(&api, "GET", "/api/hosts?host=%2e%2e", "");
        let listed = answer["hosts"].as_array().unwrap();
        assert_eq!((listed.len(), &listed[0]["host"], &answer["count"]), (1, &json!(".."), &json!(3)));
        assert_eq!(listed[0]["summaries"], ask(&api, "GET", "/api/perf/%2e%2e", "").1);
        assert_eq!(listed[0]["summaries"].as_object().unwrap().len(), 4);
        let (_, series) = ask(&api, "GET", "/api/hosts?host=b&series=cpu", "");
        assert_eq!(series["hosts"][0]["series"]["cpu"][59], 1.0);
        assert_eq!(ask(&api, "GET", "/api/hosts?host=aa", ""), (200, json!({"hosts": [], "count": 3})));
        assert_eq!(ask(&api, "GET", "/api/hosts?host=c", ""), (200, json!({"hosts": [], "count": 3})));
    }

    #[test]
    fn the_wire_shape_is_the_references() {
        let api = api(10);
        for (epoch, cpu) in (NOW - 4..).zip([5.1, 4.9, 4.8, 5.2, 4.9]) {
            assert_eq!(post(&api, &format!("/api/perf/jarvis/{epoch}"), &format!("{{\"cpu\":{cpu}}}")).0, 200);
        }
        let expected = json!({"summary:by-minute:cpu": {
            "averages": [{"start-sec": 1_465_001_760, "end-sec": 1_465_001_820, "interval-size-sec": 60,
                "num-samples": 5, "avg": 4.98, "min": 4.8, "max": 5.2}],
            "start": 1_464_998_160, "end": NOW, "timeslice-size-sec": 60, "average-count": 1}});
        assert_eq!(ask(&api, "GET", "/api/perf/jarvis/by-minute:cpu", ""), (200, expected));
    }
}
