//! What is answered to a request: routes, statuses and bodies, the same for every door.
//!
//! A door first asks for the [`Route`] of a head, before it reads the body, and then for the reply to both. What needs
//! a token or a password is refused by the head alone.

mod dashboard;
mod hosts;
mod influx;
mod route;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::auth::{AuthError, Authorizer, Principal, ReadAccess};
use crate::ingest::{Ingest, IngestError};
use crate::metrics;
use crate::sample::{self, Sample};
use crate::stats::Stats;
use crate::store::RecordOutcome;
use crate::summary::Summaries;
use route::Action;
pub use route::{ClientTransport, RequestHead, Role, Route};

/// Longest request line and header lines together, in bytes: the longest host and label, escaped, fit several times.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// Most requests a door may have parked before the process says that it is not well: each keeps a thread and two
/// descriptors, and all of them together what a process commonly may have.
const PARKED_MAX: u64 = 2048;

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
    fn untrusted(refusal: &AuthError) -> Self {
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

/// The answers of one receiver.
pub struct Api {
    ingest: Arc<Ingest>,
    readers: ReadAccess,
    metrics: metrics::Options,
    serve: Role,
}

impl Api {
    /// The API over what `ingest` leads to, for `readers`.
    #[must_use]
    pub fn new(ingest: Arc<Ingest>, readers: ReadAccess) -> Self {
        Self { ingest, readers, metrics: metrics::Options::default(), serve: Role::All }
    }

    /// The same, of which only `serve` is served here.
    #[must_use]
    pub fn serving(self, serve: Role) -> Self {
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
    pub fn gate(&self) -> &Authorizer {
        self.ingest.gate()
    }

    /// What the process counts.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.ingest.stats()
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
                Ok(series) => Reply::json(200, &Summaries { series: &series, filter: wanted, now }),
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
            Action::Page { is_held } => dashboard::reply(*is_held),
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
        self.liveness_error()
    }

    /// Why another process should take its place, if so: of what it lacks a restart would help.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        if self.ingest.stats().maintenance_ended.get() > 0 {
            return Some("the maintenance of the store has ended by a panic".to_owned());
        }
        let (parked, left) = (self.ingest.stats().parked.get(), self.ingest.stats().left_behind.get());
        if parked > PARKED_MAX {
            return Some(format!("{parked} requests are parked, and the limit is {PARKED_MAX}"));
        }
        (left > PARKED_MAX).then(|| format!("{left} connections are left behind, and the limit is {PARKED_MAX}"))
    }

    fn submit(
        &self,
        speaker: &Principal,
        sample: Result<Sample<'_>, String>,
        key: Option<sample::IdempotencyKey<'_>>,
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
            Ok(RecordOutcome { duplicate: true, .. }) => Reply::json(200, &json!({ "stored": 0, "duplicate": true })),
            Ok(RecordOutcome { stored, expired, refused, .. }) => {
                Reply::json(200, &Submitted { stored, expired, refused: (refused > 0).then_some(refused) })
            }
            Err(IngestError::Untrusted(refusal)) => Reply::untrusted(&refusal),
            Err(refused) => {
                let status = match refused {
                    IngestError::Malformed(_) | IngestError::Untrusted(_) => 400,
                    IngestError::Ahead { .. } => 422,
                    IngestError::Store(_) => 503,
                    IngestError::SeriesCap { .. } => 429,
                };
                Reply::error(status, &refused.to_string())
            }
        }
    }

    /// Gives the owner of a certificate a token for the hosts that it names.
    #[cfg(feature = "tls")]
    fn token(&self, peer: ClientTransport<'_>, now: u64) -> Reply {
        let gate = self.ingest.gate();
        let refuse = |status, sentence: &str, of: &str| {
            self.stats().untrusted.add(1);
            gate.tell_of(&format!("{sentence}; {of}"), now);
            let mut reply = Reply::error(status, sentence);
            reply.headers.push(("WWW-Authenticate", "Bearer realm=\"lizm\", error=\"invalid_client\""));
            reply
        };
        let nobody = "subject not known";
        let ClientTransport::Tls(source) = peer else {
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
    fn token(&self, _: ClientTransport<'_>, _: u64) -> Reply {
        Reply::error(403, &format!("token: {}", crate::auth::WITHOUT_TLS))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use serde_json::Value;

    const NOW: u64 = 1_465_001_814;

    fn api(series_max: usize) -> Api {
        let ingest = Ingest::new(Arc::new(Store::new(series_max)), Authorizer::wide_open(), Arc::default());
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
            (Role::Intake, "/api/perf/h", &["GET", "HEAD"][..], "--serve summaries"),
            (Role::Intake, "/api/hosts", &["GET"], "--serve summaries"),
            (Role::Intake, "/", &["GET"], "--serve summaries"),
            (Role::Summaries, "/api/perf/h/1", &["POST"], "--serve intake"),
            (Role::Summaries, "/api/perf/h", &["DELETE"], "--serve intake"),
            (Role::Summaries, "/write", &["POST"], "--serve intake"),
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
