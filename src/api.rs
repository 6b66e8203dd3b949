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
    /// The reply to a request that can be refused by its head.
    pub fn route(&self, head: &RequestHead<'_>, now: u64) -> Result<Route, Reply> {
        self.check_browser(head, now)?;
        let is_head = head.method == "HEAD";
        if is_head || head.method == "GET" || prometheus::is_below(route::path(head.target)) {
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
            // A directory's journal is not waited for: it wakes who would wait.
            Action::Submit(Submit { tags: None, .. }) => self.ingest.store().is_shared(),
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

    /// Answers as [`Api::reply`] does, but waits for no journal: a sample may have yet to be stored. `waker` is woken then.
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
mod tests {
    use super::*;
    use crate::sample::{IdempotencyKey, Sample};
    use crate::store::{Limits, Store};
    use serde_json::Value;

    const NOW: u64 = 1_465_001_814;

    fn api(limits: impl Into<Limits>) -> Api {
        let ingest = Ingest::new(Arc::new(Store::new(limits)), Authorizer::allow_all(), Arc::default());
        Api::new(Arc::new(ingest), ReadAccess::Anyone)
    }

    fn ask(api: &Api, method: &str, target: &str, body: &str) -> (u16, Value) {
        ask_with(api, method, target, body, None)
    }

    fn ask_with(api: &Api, method: &str, target: &str, body: &str, idempotency_key: Option<&str>) -> (u16, Value) {
        let head = RequestHead { method, target, idempotency_key, ..RequestHead::default() };
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
            ("POST", "/api/perf/h/1/2", "{}", 405, "a host has no '/', nor its escape %2F"),
            ("PUT", "/api/perf/h/1/2", "", 405, "only GET, HEAD are served here"),
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
            ("GET", "/api/hosts?label-after=g", "", 400, "label-after: goes with host"),
            ("GET", "/api/perf/h?after=%ff", "", 400, "after: is not UTF-8"),
            ("GET", "/api/hosts?series=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "", 400, "series: the limit is 16"),
            ("GET", "/api/hosts?series=a,b,c,d,e,f,g,h&series=i,j,k,l,m,n,o,p,q", "", 400, "series: the limit is 16"),
            ("GET", "/api/hosts?latest=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "", 400, "latest: the limit is 16"),
            ("GET", "/api/hosts?series=a&minutes=0", "", 400, "minutes: not a whole number between 1 and 60"),
            ("GET", "/api/hosts?series=a&minutes=61", "", 400, "minutes: not a whole number between 1 and 60"),
            ("GET", "/api/hosts?labels=all", "", 400, "labels: only none"),
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
            (Role::Intake, "/api/perf/h", &["GET", "HEAD"][..], "--serve summaries"),
            (Role::Intake, "/api/hosts", &["GET"], "--serve summaries"),
            (Role::Intake, "/", &["GET"], "--serve summaries"),
            (Role::Summaries, "/api/perf/h/1", &["POST"], "--serve intake"),
            (Role::Summaries, "/api/perf/h", &["DELETE"], "--serve intake"),
            (Role::Summaries, "/write", &["POST"], "--serve intake"),
            (Role::Summaries, "/api/v2/write", &["POST"], "--serve intake"),
            (Role::Summaries, "/ping", &["GET"], "--serve intake"),
        ] {
            for method in methods {
                let head = RequestHead { method, target, ..RequestHead::default() };
                let refused = api(1).serving(serve).route(&head, NOW).unwrap_err();
                let said = String::from_utf8(refused.body).unwrap();
                assert!(refused.status == 404 && said.contains(other), "{method} {target}: {said}");
                let others = if serve == Role::Intake { Role::Summaries } else { Role::Intake };
                assert!(api(1).serving(others).route(&head, NOW).is_ok() && api(1).route(&head, NOW).is_ok());
            }
            let head = RequestHead { method: "GET", target: "/health", ..RequestHead::default() };
            assert!(api(1).serving(serve).route(&head, NOW).is_ok());
        }
    }

    #[test]
    fn a_405_says_what_is_allowed() {
        let head = RequestHead { method: "PATCH", target: "/api/perf/h/1", ..RequestHead::default() };
        assert_eq!(api(1).route(&head, NOW).unwrap_err().headers, [("Allow", "GET, HEAD, POST".into())]);
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
    fn machines_under_one_name_are_listed_as_a_conflict() {
        let api = api(10);
        for now in (NOW - 200..=NOW).step_by(10) {
            for source in ["a", "b"] {
                let sample = Sample { host: "h".into(), epoch: now, values: vec![("cpu".into(), 1.0)] };
                let key = Some(IdempotencyKey::new(source, now));
                assert_eq!(api.ingest().submit(&Principal::Anyone, &sample, key, now).unwrap().stored, 1);
            }
        }
        assert_eq!(ask(&api, "GET", "/api/hosts", "").1["hosts"][0]["state"], "conflict");
        let metrics = metrics::write(api.ingest(), metrics::Options::default(), NOW);
        for line in ["lizm_host_up{host=\"h\"} 1", "lizm_host_conflict{host=\"h\"} 1"] {
            assert!(metrics.lines().any(|written| written == line), "{metrics}");
        }
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
    fn a_refresh_of_the_list_asks_for_what_is_new() {
        let api = api(100);
        for (ago, body) in
            [(120, r#"{"cpu":1,"disk":50}"#), (0, r#"{"cpu":2,"disk:/":7,"disk:/var":8,"disk-free:/":9}"#)]
        {
            assert_eq!(post(&api, &format!("/api/perf/h/{}", NOW - ago), body).0, 200);
        }
        let query = "series=cpu&minutes=2&latest=disk,disk:*,none&labels=none";
        let (_, answer) = ask(&api, "GET", &format!("/api/hosts?{query}"), "");
        let host = &answer["hosts"][0];
        assert_eq!(host["latest"], json!({ "disk": 50.0, "disk:/": 7.0, "disk:/var": 8.0 }));
        assert_eq!(host["series"], json!({ "cpu": [null, 2.0] }));
        assert!(host.get("labels").is_none());
        assert_eq!(answer["series-start-sec"], (NOW - 1) / 60 * 60 - 60);
        let (_, all) = ask(&api, "GET", "/api/hosts?series=disk*&host=h", "");
        assert_eq!(all["hosts"][0]["series"].as_object().unwrap().len(), 4);
        assert!(all["hosts"][0].get("latest").is_none());
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
        assert_eq!((listed.len(), &listed[0]["host"], &answer["count"]), (1, &json!(".."), &json!(1)));
        assert_eq!(listed[0]["summaries"], ask(&api, "GET", "/api/perf/%2e%2e", "").1);
        assert_eq!(listed[0]["summaries"].as_object().unwrap().len(), 4);
        let (_, series) = ask(&api, "GET", "/api/hosts?host=b&series=cpu", "");
        assert_eq!(series["hosts"][0]["series"]["cpu"][59], 1.0);
        assert_eq!(ask(&api, "GET", "/api/hosts?host=aa", ""), (200, json!({"hosts": [], "count": 0})));
        assert_eq!(ask(&api, "GET", "/api/hosts?host=c&series=cpu", "").1["count"], 0);
    }

    #[test]
    fn the_labels_of_a_host_come_in_pages() {
        let api = api(Limits { labels_per_host_max: 20_000, ..Limits::from(20_000) });
        for first in (0..12_000).step_by(200) {
            let values: Vec<_> = (first..first + 200).map(|label| format!("\"l {label:05}\":1")).collect();
            assert_eq!(post(&api, &format!("/api/perf/h/{NOW}"), &format!("{{{}}}", values.join(","))).0, 200);
        }
        let get = |target: &str| {
            let head = RequestHead { method: "GET", target, ..RequestHead::default() };
            let reply = api.reply(&api.route(&head, NOW).unwrap(), b"", NOW);
            let link = reply.headers.iter().find(|(name, _)| *name == "Link").map(|(_, link)| link.to_string());
            (serde_json::from_slice::<Value>(&reply.body).unwrap(), link)
        };
        let (first, link) = get("/api/perf/h/minute");
        assert_eq!((first.as_object().unwrap().len(), &*link.unwrap()), (10_000, "<?after=l%2009999>; rel=\"next\""));
        let (second, link) = get("/api/perf/h/minute?x=1&after=l%2009999");
        assert_eq!((second.as_object().unwrap().len(), link), (2000, None));
        assert!(second.get("summary:by-minute:l 10000").is_some());
        let listed = get("/api/hosts?host=h").0;
        assert_eq!(
            (&listed["hosts"][0]["labels"][9999], &listed["next-label-after"]),
            (&json!("l 09999"), &json!("l 09999"))
        );
        let listed = get("/api/hosts?host=h&label-after=l%2009999").0;
        assert_eq!(listed["hosts"][0]["labels"].as_array().unwrap().len(), 2000);
        assert_eq!(listed["hosts"][0]["summaries"].as_object().unwrap().len(), 4000);
        assert_eq!(listed.get("next-label-after"), None);
    }

    #[test]
    fn a_head_has_no_body_where_one_would_be_built() {
        let api = api(10);
        assert_eq!(post(&api, &format!("/api/perf/h/{NOW}"), "{\"cpu\":1}").0, 200);
        for (target, has_length) in
            [("/api/perf/h", false), ("/api/hosts", false), ("/metrics", false), ("/health", true), ("/", true)]
        {
            let head = RequestHead { method: "HEAD", target, ..RequestHead::default() };
            let reply = api.reply(&api.route(&head, NOW).unwrap(), b"", NOW);
            assert_eq!((reply.status, reply.content_length().is_some()), (200, has_length), "{target}");
            assert!(has_length || reply.body.is_empty(), "{target}");
        }
    }

    #[test]
    fn a_comma_stands_between_labels_and_an_escaped_one_within() {
        let api = api(10);
        let values = "{\"disk,path=/var\":1,\"cpu\":2,\"mem\":3,\"a b\":4}";
        assert_eq!(post(&api, &format!("/api/perf/h/{}", NOW), values).0, 200);
        let labels = |query: &str| {
            let (status, answer) = ask(&api, "GET", &format!("/api/hosts?{query}"), "");
            assert_eq!(status, 200, "{query}");
            answer["hosts"][0]["series"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(labels("series=disk%2Cpath=/var"), ["disk,path=/var"]);
        assert_eq!(labels("series=mem,cpu"), ["cpu", "mem"]);
        assert_eq!(labels("series=mem&series=disk%2cpath%3D/var,a+b"), ["a b", "disk,path=/var", "mem"]);
        assert!(labels("series=disk,path=/var").is_empty());
    }

    #[test]
    fn the_wire_shape_is_the_references() {
        let api = api(10);
        for (epoch, cpu) in (NOW - 4..).zip([5.1, 4.9, 4.8, 5.2, 4.9]) {
            assert_eq!(post(&api, &format!("/api/perf/jarvis/{epoch}"), &format!("{{\"cpu\":{cpu}}}")).0, 200);
        }
        let expected = json!({"summary:by-minute:cpu": {
            "averages": [{"start-sec": 1_465_001_760, "end-sec": 1_465_001_820, "interval-size-sec": 60,
                "num-samples": 5, "avg": 4.98, "mean": 4.9799999999999995, "min": 4.8, "max": 5.2}],
            "start": 1_464_998_160, "end": NOW, "timeslice-size-sec": 60, "average-count": 1}});
        assert_eq!(ask(&api, "GET", "/api/perf/jarvis/by-minute:cpu", ""), (200, expected));
    }
}
