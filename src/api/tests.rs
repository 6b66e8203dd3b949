//! Requests and their answers, without a socket.

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
    assert_eq!(keys(&format!("{host}/Disk%20/VAR?x=1")), ["summary:by-hour:disk /var", "summary:by-minute:disk /var"]);
    assert_eq!(keys(&format!("http://other:8080{host}/hour")).len(), 2);
    assert!(keys(&format!("{host}/nothing")).is_empty() && keys("/api/perf/nobody").is_empty());
}

#[test]
fn a_refresh_of_the_list_asks_for_what_is_new() {
    let api = api(100);
    for (ago, body) in [(120, r#"{"cpu":1,"disk":50}"#), (0, r#"{"cpu":2,"disk:/":7,"disk:/var":8,"disk-free:/":9}"#)] {
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
