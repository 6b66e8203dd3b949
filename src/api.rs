//! What is answered to a request: routes, statuses and bodies, the same for every server.
//!
//! A server first asks for the [`Route`] of a head, before it reads the body, and then for the reply to both. A request
//! that lacks a token or a password is refused by its head alone.

mod access;
mod alerts;
mod browser;
mod dashboard;
mod form;
mod gzip;
mod hosts;
mod influx;
mod joins;
mod prometheus;
mod reply;
mod request;
mod route;
mod submit;
mod summaries;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use serde_json::json;

use crate::alerts::Alerts;
use crate::archive::Archives;
use crate::auth::{Authorizer, Principal, ReadAccess, bearer};
use crate::ingest::Ingest;
use crate::metrics;
use crate::stats::Stats;
use browser::BrowserGuard;
use gzip::VARY;
use hosts::About;
pub use reply::Reply;
pub use request::{ClientTransport, HEAD_BYTES_MAX, RequestHead, Role};
use route::Action;
pub use route::Route;
pub use submit::Submission;
use submit::Submit;

/// Most series that a short answer is read from: with all that is kept of them that takes below a millisecond. To compress
/// one takes four times as long.
const SHORT_SERIES_MAX: usize = 32;
const SHORT_COMPRESSED_SERIES_MAX: usize = SHORT_SERIES_MAX / 4;

/// The description of the API that programs read (OpenAPI 3.1).
const OPENAPI: &str = include_str!("../docs/openapi.json");

/// Whether a target belongs to Prometheus's API, whose errors have another shape: [`Reply::shaped`].
#[must_use]
pub fn is_prometheus(target: &str) -> bool {
    prometheus::is_below(route::path(target))
}

/// What a request has come to without waiting.
pub enum Begun {
    /// Its reply.
    Replied(Reply),
    /// A sample on its way to the store. [`Api::finish`] has the reply.
    Submitted(Submission),
}

/// The answers of one receiver.
pub struct Api {
    ingest: Arc<Ingest>,
    read_access: ReadAccess,
    browser_guard: BrowserGuard,
    metrics: metrics::Options,
    role: Role,
    trusted_proxies: Vec<IpAddr>,
    alerts: Option<Arc<Alerts>>,
    archives: Option<Arc<Archives>>,
    /// Whether anyone on other machines may submit.
    is_open: bool,
}

impl Api {
    /// The API over `ingest` and its store, for those who have `read_access`.
    #[must_use]
    pub fn new(ingest: Arc<Ingest>, read_access: ReadAccess) -> Self {
        let browser_guard = BrowserGuard::new(&[], false);
        let (metrics, role, trusted_proxies) = (metrics::Options::default(), Role::All, Vec::new());
        let (alerts, archives, is_open) = (None, None, false);
        Self { ingest, read_access, browser_guard, metrics, role, trusted_proxies, alerts, archives, is_open }
    }

    /// The same, which browsers may reach under the names `allowed` too.
    #[must_use]
    pub fn allowing_hosts(self, allowed: &[String]) -> Self {
        let is_protected = !self.read_access.allows_all() && !self.authorizer().allows_all();
        Self { browser_guard: BrowserGuard::new(allowed, is_protected), ..self }
    }

    /// The same, behind proxies that name their clients by `X-Forwarded-For`.
    #[must_use]
    pub fn trusting_proxies(self, addresses: &[IpAddr]) -> Self {
        Self { trusted_proxies: addresses.iter().map(IpAddr::to_canonical).collect(), ..self }
    }

    /// The proxies that it trusts, IPv4 as IPv4.
    #[must_use]
    pub fn trusted_proxies(&self) -> &[IpAddr] {
        &self.trusted_proxies
    }

    /// The same, of which only the part of `role` is served.
    #[must_use]
    pub fn serving(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The same with the alerts that are judged here.
    #[must_use]
    pub fn with_alerts(self, alerts: Option<Arc<Alerts>>) -> Self {
        Self { alerts, ..self }
    }

    /// The same with the archives of what has closed.
    #[must_use]
    pub fn with_archives(self, archives: Option<Arc<Archives>>) -> Self {
        Self { archives, ..self }
    }

    /// The same, which says whether anyone on other machines may submit and remove.
    #[must_use]
    pub fn open_to_anyone(self, is_open: bool) -> Self {
        Self { is_open, ..self }
    }

    /// The same with `options` for `/metrics`.
    #[must_use]
    pub fn with_metrics(self, options: metrics::Options) -> Self {
        Self { metrics: options, ..self }
    }

    /// Where its samples go.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Seconds since the Unix epoch by the receiver's clock, for [`Api::route`] and [`Api::reply`].
    #[must_use]
    pub fn now_sec(&self) -> u64 {
        self.ingest.clock().now_sec()
    }

    /// Decides who may submit and remove.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer {
        self.ingest.authorizer()
    }

    /// What the process counts.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.ingest.stats()
    }

    /// Finds what a request asks for, and who asks, at `now` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The reply to a request that can be refused by its head, which the server has yet to shape.
    pub fn route(&self, head: &RequestHead<'_>, now: u64) -> Result<Route, Reply> {
        self.check_browser(head, now)?;
        let is_head = head.method == "HEAD";
        if is_head || head.method == "GET" || is_prometheus(head.target) {
            self.check_read_access(head, now)?;
        }
        let action = Action::find(head, head.client(&self.trusted_proxies))?;
        action.check_role(self.role)?;
        let principal = match &action {
            Action::Submit(submit) => {
                let principal = self.authenticate(head, now)?;
                self.ingest.authorize(&principal, &submit.host, now).map_err(|error| Reply::from(&error))?;
                principal
            }
            Action::Remove { host } => {
                let principal = self.authenticate(head, now)?;
                self.ingest.authorize_removal(&principal, host, now).map_err(|error| Reply::from(&error))?;
                principal
            }
            Action::Silence | Action::ShutOut { .. } => {
                let principal = self.authenticate(head, now)?;
                self.ingest
                    .authorize_removal(&principal, alerts::ANY_HOST, now)
                    .map_err(|error| Reply::from(&error))?;
                principal
            }
            Action::Write(_) => self.authenticate(head, now)?,
            Action::Token { .. } if head.authorization.and_then(bearer).is_some() => self.joiner(head, now)?,
            Action::Token { .. } => self.certificate_owner(head.transport, now)?,
            _ => Principal::Anyone,
        };
        let takes_gzip = head.accept_encoding.is_some_and(gzip::is_accepted);
        Ok(Route { action, principal, is_head, takes_gzip })
    }

    /// Whether the reply to a request may wait for the store, or take long to find.
    #[must_use]
    pub fn may_wait(&self, route: &Route) -> bool {
        match &route.action {
            // The store is not waited for: it wakes who would wait.
            Action::Submit(Submit { tags: None, .. }) => false,
            Action::Submit(_) | Action::Remove { .. } => self.ingest.store().may_wait(),
            Action::Token { .. } | Action::ShutOut { .. } => self.ingest.store().may_wait(),
            Action::Write(_) => route.is_compressed() || self.ingest.store().may_wait(),
            // They are locked while all of them are judged.
            Action::Alerts { .. } | Action::Silence => self.alerts.is_some(),
            Action::Hosts(_) if self.alerts.is_some() => true,
            _ if route.is_head => route.is_read(),
            Action::Summaries { host, query, .. } => query.range.is_given() || !self.is_short(Some(host), route),
            Action::Hosts(query) => query.is_ranged() || !self.is_short(query.host(), route),
            _ => route.is_read(),
        }
    }

    /// Whether an answer about `host`, or about all hosts, is short and waits for nothing.
    fn is_short(&self, host: Option<&str>, route: &Route) -> bool {
        let most = if route.takes_gzip { SHORT_COMPRESSED_SERIES_MAX } else { SHORT_SERIES_MAX };
        self.ingest.store().series_at_hand(host).is_some_and(|series| series <= most)
    }

    /// Answers a request whose body has been read, at `now` in seconds since the Unix epoch.
    #[must_use]
    pub fn reply(&self, route: &Route, body: &[u8], now: u64) -> Reply {
        let began = Instant::now();
        let reply = match (route.is_read(), route.is_head) {
            (true, true) => self.head_reply(route, now).with(VARY.0, VARY.1),
            (true, false) => gzip::compress_reply(self.find_reply(route, body, now), route.takes_gzip),
            (false, _) => self.find_reply(route, body, now),
        };
        self.stats().observe(route.name(), began.elapsed());
        reply
    }

    /// Answers as [`Api::reply`] does, but waits for no store: a sample may have yet to be stored. `waker` is woken then.
    #[must_use]
    pub fn begin(&self, route: &Route, body: &[u8], now: u64, waker: &Waker) -> Begun {
        match &route.action {
            Action::Submit(submit @ Submit { tags: None, .. }) => {
                Begun::Submitted(submit.begin(&self.ingest, &route.principal, body, now, Some(waker)))
            }
            _ => Begun::Replied(self.reply(route, body, now)),
        }
    }

    /// Answers a submission when it is over; before that it waits.
    #[must_use]
    pub fn finish(&self, submission: Submission) -> Reply {
        let began = submission.began;
        let reply = submission.finish(&self.ingest, None);
        self.stats().observe("submit", began.elapsed());
        reply
    }

    /// Answers a HEAD for what a GET would read from the store: whether the store can be read.
    fn head_reply(&self, route: &Route, now: u64) -> Reply {
        match (self.ingest.store().hosts(now), &route.action) {
            (Err(error), _) => Reply::from(&error),
            (Ok(_), Action::Metrics(format)) => Reply::head().with("Content-Type", format.content_type()),
            (Ok(_), _) => Reply::head(),
        }
    }

    fn find_reply(&self, route: &Route, body: &[u8], now: u64) -> Reply {
        match &route.action {
            Action::Submit(submit) => {
                let submission = submit.begin(&self.ingest, &route.principal, body, now, None);
                submission.finish(&self.ingest, submit.tags.as_ref())
            }
            Action::Summaries { host, filter, query } => {
                let reply = query.reply(self.ingest.store(), host, filter, now);
                reply.unwrap_or_else(|error| Reply::from(&error))
            }
            Action::Remove { host } => match self.ingest.remove(&route.principal, host, now) {
                Ok(true) => Reply::json(200, &json!({ "removed": true })),
                Ok(false) => Reply::error(404, "host: not known here"),
                Err(error) => Reply::from(&error),
            },
            Action::Hosts(query) => {
                let about = About { firing: self.alerts.as_deref().map(Alerts::firing), is_open: self.is_open };
                let reply = query.reply(self.ingest.store(), about, now);
                reply.unwrap_or_else(|error| Reply::from(&error))
            }
            Action::Dashboard { is_cached } => dashboard::reply(*is_cached, route.takes_gzip),
            Action::Health => match self.health_error() {
                None => Reply::json(200, &json!({ "status": "ok" })),
                Some(reason) => Reply::json(503, &json!({ "status": "failing", "reason": reason })),
            },
            Action::Write(write) => write.reply(&self.ingest, &route.principal, body, now),
            Action::Token { from } => self.issue_token(&route.principal, from, body, now),
            Action::Joins { after } => joins::list(self, after),
            Action::ShutOut { host } => joins::shut_out(self, host, now),
            Action::Metrics(format) => {
                let mut text = metrics::write(&self.ingest, self.metrics, now);
                text.extend(self.alerts.iter().map(|alerts| alerts.metrics()));
                text.extend(self.archives.iter().map(|archives| archives.metrics(now)));
                Reply::new(200, format.of_text(text).into_bytes()).with("Content-Type", format.content_type())
            }
            Action::Alerts { is_history } => alerts::list(self.alerts.as_deref(), *is_history),
            Action::Silence => alerts::silence(self.alerts.as_deref(), body, now),
            Action::Prometheus(query) => query.reply(body, self.ingest.store(), self.alerts.as_deref(), now),
            Action::OpenApi => Reply::new(200, OPENAPI.as_bytes().to_vec()),
            Action::Ping => influx::ping(),
            Action::Query { statement } => influx::query(statement.as_deref(), body),
        }
    }

    /// Why this process does not do its job, if so.
    fn health_error(&self) -> Option<String> {
        if let Some(error) = self.ingest.store().unavailable() {
            return Some(error.to_string());
        }
        self.ingest.clock().error().or_else(|| self.liveness_error())
    }

    /// Why this process should be restarted, if so: only errors that a restart clears.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        let has_ended = self.stats().maintenance_ended.get() > 0;
        has_ended.then(|| "the maintenance of the store has ended by a panic".to_owned())
    }
}

#[cfg(test)]
mod tests;
