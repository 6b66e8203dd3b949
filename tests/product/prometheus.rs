//! `/api/v1/…` as Grafana and the tools of Prometheus ask it, what Prometheus makes of `/metrics`, and what is deployed for
//! both.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Served, agent, answer, await_some, last_minute, now, python_program};
use crate::http::{self, on_each_server};
use crate::peers::Peer;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A receiver with four samples of two hosts in the last whole minute.
fn served(arguments: &[&str]) -> (Served, u64) {
    let (receiver, minute) = (Served::start(arguments), last_minute());
    for second in 1..=4 {
        let a =
            format!("{{\"cpu\": {second}, \"cpu:0\": 1, \"cpu:1\": {second}, \"disk:/var\": 97.5, \"net-in\": 1e6}}");
        assert_eq!(receiver.post(&format!("/api/perf/a/{}", minute + second), &a).0, 200);
        assert_eq!(receiver.post(&format!("/api/perf/b/{}", minute + second), "{\"cpu\": 10}").0, 200);
    }
    (receiver, minute)
}

/// Asks by GET; what is given is percent-encoded.
fn ask(receiver: &Served, path: &str, pairs: &[(&str, &str)]) -> (u16, Value) {
    let request = agent().get(receiver.url(&format!("/api/v1/{path}")));
    answer(pairs.iter().fold(request, |request, (name, value)| request.query(name, value)).call())
}

/// Asks by POST, as a form.
fn post(receiver: &Served, path: &str, pairs: &[(&str, &str)]) -> (u16, Value) {
    answer(agent().post(receiver.url(&format!("/api/v1/{path}"))).send_form(pairs.iter().copied()))
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn queries_are_answered_in_the_shape_of_prometheus() {
    let (receiver, minute) = served(&[]);
    let at = (minute + 60).to_string();
    let pairs = [("query", "lizm_cpu"), ("time", at.as_str())];
    let (status, body) = ask(&receiver, "query", &pairs);
    let expected = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"__name__": "lizm_cpu", "host": "a"}, "value": [minute + 60, "2.5"]},
        {"metric": {"__name__": "lizm_cpu", "host": "b"}, "value": [minute + 60, "10"]}]}});
    assert_eq!((status, &body), (200, &expected));
    assert_eq!(post(&receiver, "query", &pairs).1, expected);
    let (start, end) = (format!("{}.5", minute + 10), format!("{}.5", minute + 40));
    let pairs = [("query", "sum by (host) (lizm_cpu_core)"), ("start", &start), ("end", &end), ("step", "15s")];
    let (status, body) = post(&receiver, "query_range", &pairs);
    let points: Vec<Value> = [10.5, 25.5, 40.5].map(|at| json!([minute as f64 + at, "3.5"])).into();
    let expected = json!({"resultType": "matrix", "result": [{"metric": {"host": "a"}, "values": points}]});
    assert_eq!((status, &body["data"]), (200, &expected));
    let scalar = ask(&receiver, "query", &[("query", "1/0"), ("time", "2016-06-04T01:00:10.25Z")]).1;
    assert_eq!(scalar["data"], json!({"resultType": "scalar", "result": [1_465_002_010.25, "+Inf"]}));
    // Clients that read a stream want the type before the result.
    let raw = receiver.raw(b"GET /api/v1/query?query=1%2B1&time=5 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(raw.body, r#"{"status":"success","data":{"resultType":"scalar","result":[5,"2"]}}"#);
    assert_eq!(raw.header("access-control-allow-origin"), None);
}

#[test]
fn series_labels_and_metadata_are_listed() {
    let (receiver, _) = served(&["--alert", "disk: disk:* > 90; severity critical; needs 5%"]);
    let data = |path: &str, pairs: &[(&str, &str)]| {
        let (status, body) = ask(&receiver, path, pairs);
        assert_eq!(status, 200, "{path}: {body}");
        body["data"].clone()
    };
    assert_eq!(data("labels", &[]), json!(["__name__", "core", "host", "path"]));
    assert_eq!(post(&receiver, "labels", &[("match[]", "lizm_cpu")]).1["data"], json!(["__name__", "host"]));
    assert_eq!(data("label/host/values", &[]), json!(["a", "b"]));
    assert_eq!(data("label/core/values", &[("match[]", "{host=\"a\"}")]), json!(["0", "1"]));
    let names = data("label/__name__/values", &[]);
    assert!(names.as_array().unwrap().contains(&json!("lizm_net_in_max")), "{names}");
    let series = data("series", &[("match[]", "lizm_disk_path"), ("match[]", "lizm_cpu{host=\"b\"}")]);
    assert_eq!(
        series,
        json!([{"__name__": "lizm_cpu", "host": "b"}, {"__name__": "lizm_disk_path", "host": "a", "path": "/var"}])
    );
    let limited = ask(&receiver, "label/host/values", &[("limit", "1")]).1;
    assert_eq!(limited["data"], json!(["a"]));
    assert_eq!(limited["warnings"], json!(["results truncated due to limit"]));
    let metadata = data("metadata", &[("metric", "lizm_net_in")]);
    let help = "What hosts report as net_in in bytes per second: average of an interval.";
    assert_eq!(metadata, json!({"lizm_net_in": [{"type": "gauge", "help": help, "unit": "bytes_per_second"}]}));
    assert_eq!(data("query_exemplars", &[("query", "x")]), json!([]));
    let build = data("status/buildinfo", &[]);
    assert_eq!((&build["version"], &build["features"]), (&json!("2.24.0"), &json!({})));
    let rules = data("rules", &[]);
    let rule = &rules["groups"][0]["rules"][0];
    assert_eq!((&rule["name"], &rule["type"], &rule["duration"]), (&json!("disk"), &json!("alerting"), &json!(0)));
    await_some("the alert", || {
        // The minute is closed once the host is past it.
        assert_eq!(receiver.post(&format!("/api/perf/a/{}", now()), "{\"cpu\": 1}").0, 200);
        let alerts = data("alerts", &[]);
        let labels = json!({"alertname": "disk", "host": "a", "series": "disk:/var", "severity": "critical"});
        alerts["alerts"].as_array()?.iter().find(|alert| alert["labels"] == labels && alert["state"] == "firing")?;
        Some(())
    });
    assert_eq!(data("rules", &[])["groups"][0]["rules"][0]["state"], "firing");
    let without_rules = Served::start(&[]);
    assert_eq!(ask(&without_rules, "rules", &[]).1["data"], json!({"groups": []}));
    assert_eq!(ask(&without_rules, "alerts", &[]).1["data"], json!({"alerts": []}));
}

#[test]
fn errors_have_the_shape_of_prometheus() {
    let (receiver, _) = served(&[]);
    for (path, pairs, status, kind, part) in [
        ("query", &[][..], 400, "bad_data", "\"query\": is missing"),
        ("query", &[("query", "lizm_cpu{")], 400, "bad_data", "1:10: parse error"),
        ("query", &[("query", "1"), ("time", "noon")], 400, "bad_data", "\"time\": cannot parse \"noon\""),
        ("query", &[("query", "1"), ("timeout", "x")], 400, "bad_data", "\"timeout\": not seconds"),
        ("query", &[("query", "rate(lizm_cpu[5m])")], 422, "execution", "the function \"rate\" is not known here"),
        ("query_range", &[("query", "1"), ("start", "0"), ("end", "1")], 400, "bad_data", "\"step\": is missing"),
        ("query_range", &[("query", "1"), ("start", "0"), ("end", "1"), ("step", "0")], 400, "bad_data", "\"step\""),
        ("query_range", &[("query", "1"), ("start", "2"), ("end", "1"), ("step", "1")], 400, "bad_data", "\"end\""),
        (
            "query_range",
            &[("query", "1"), ("start", "0"), ("end", "11000"), ("step", "1")],
            400,
            "bad_data",
            "11000 points",
        ),
        ("series", &[], 400, "bad_data", "no match[]"),
        ("series", &[("match[]", "1")], 400, "bad_data", "is no series selector"),
        ("labels", &[("limit", "x")], 400, "bad_data", "\"limit\""),
        ("status/tsdb", &[], 404, "not_found", "path"),
    ] {
        let (was, body) = ask(&receiver, path, pairs);
        let error = body["error"].as_str().unwrap_or_default();
        assert_eq!((was, body["status"].as_str(), body["errorType"].as_str()), (status, Some("error"), Some(kind)));
        assert!(error.contains(part), "{path} {pairs:?}: {error}");
    }
    assert_eq!(post(&receiver, "label/host/values", &[]).0, 405);
    assert_eq!(receiver.delete("/api/v1/query").0, 405);
    // No other site's page may ask.
    let foreign = agent().post(receiver.url("/api/v1/query")).header("Origin", "http://evil.example").send("query=1");
    assert_eq!(answer(foreign).0, 403);
}

#[test]
fn what_is_refused_by_its_head_has_the_shape_of_prometheus_too() {
    for receiver in on_each_server() {
        let long_head = format!("X: {}\r\n", "x".repeat(9000));
        let query = |headers: &str, body: &str| http::post("/api/v1/query", headers, body);
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
        for (request, status, kind) in [
            (query("Content-Length: +1\r\n", "x"), 400, "bad_data"),
            (query("Origin: http://evil.example\r\n", ""), 403, "bad_data"),
            (query("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 411, "bad_data"),
            (query("Content-Length: 65537\r\n", ""), 413, "bad_data"),
            (query(&long_head, ""), 431, "bad_data"),
            (get("/api/v1/status/tsdb"), 404, "not_found"),
            (get("http://x/api/v1/label/%ff/values?limit=1"), 400, "bad_data"),
            (http::post("/api/v1/label/host/values", "Content-Length: 0\r\n", ""), 405, "bad_data"),
        ] {
            let answer = receiver.raw(&request);
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            let shown = String::from_utf8_lossy(&request);
            assert_eq!(
                (answer.status, &body["status"], &body["errorType"]),
                (status, &json!("error"), &json!(kind)),
                "{shown}"
            );
            assert!(body["error"].is_string(), "{shown}: {body}");
        }
        let elsewhere = receiver.raw(&get("/elsewhere")).body;
        assert!(elsewhere.starts_with("{\"error\":"), "{elsewhere}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn who_asks_needs_the_password_of_readers() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let closed = Served::start(&["--read-password-file", password.to_str().unwrap()]);
    let (status, body) = ask(&closed, "query", &[("query", "1")]);
    assert_eq!((status, &body["errorType"]), (401, &json!("bad_data")), "{body}");
    assert_eq!(post(&closed, "query", &[("query", "1")]).0, 401);
    let with = agent().post(closed.url("/api/v1/query")).header("Authorization", "Basic eDpzZWNyZXQ=").send("query=1");
    assert_eq!(answer(with).0, 200);
}

#[test]
fn metrics_are_negotiated() {
    let (receiver, _) = served(&[]);
    let raw =
        |accept: &str| receiver.raw(format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").as_bytes());
    let open = raw("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(
        open.body.ends_with("\n# EOF\n") && open.body.contains("# TYPE lizm_values_stored counter\n"),
        "{}",
        open.body
    );
    let text = raw("text/plain");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.body.contains("# TYPE lizm_values_stored_total counter\n") && !text.body.contains("# EOF"));
    let plain = agent().get(receiver.url("/metrics")).header("Accept-Encoding", "identity").call().unwrap();
    assert_eq!(plain.headers().get("content-encoding"), None);
    let packed = agent().get(receiver.url("/metrics")).header("Accept-Encoding", "gzip").call().unwrap();
    assert_eq!(packed.headers().get("content-encoding").map(|value| value.as_bytes()), Some(&b"gzip"[..]));
}

#[test]
#[ignore = "needs prometheus"]
fn promtool_asks() {
    let (receiver, minute) = served(&[]);
    let promtool = |arguments: &[&str]| {
        let (command, rest) = arguments.split_first().unwrap();
        let (options, rest) = rest.split_at(rest.iter().take_while(|argument| argument.starts_with('-')).count());
        run(Command::new("promtool").args(["query", command]).args(options).arg(receiver.url("")).args(rest))
    };
    let at = (minute + 60).to_string();
    let time = format!("--time={at}");
    assert_eq!(
        promtool(&["instant", &time, "lizm_cpu"]),
        format!("lizm_cpu{{host=\"a\"}} => 2.5 @[{at}]\nlizm_cpu{{host=\"b\"}} => 10 @[{at}]\n")
    );
    assert_eq!(promtool(&["instant", &time, "count(lizm_cpu > 5)"]), format!("{{}} => 1 @[{at}]\n"));
    let (start, end) = (format!("--start={}", minute + 30), format!("--end={}", minute + 60));
    assert_eq!(
        promtool(&["range", &start, &end, "--step=30s", "max(lizm_cpu_core_max)"]),
        format!("{{}} =>\n4 @[{}]\n4 @[{}]\n", minute + 30, minute + 60)
    );
    assert_eq!(
        promtool(&["series", "--match=lizm_disk_path"]),
        "{__name__=\"lizm_disk_path\", host=\"a\", path=\"/var\"}\n"
    );
    assert_eq!(promtool(&["labels", "core"]), "0\n1\n");
    let wrong = Command::new("promtool").args(["query", "instant", &receiver.url(""), "rate(lizm_cpu[1m])"]).output();
    let said = String::from_utf8(wrong.unwrap().stderr).unwrap();
    assert!(said.contains("the function \"rate\" is not known here"), "{said}");
}

#[test]
#[ignore = "needs prometheus-api-client from PyPI"]
fn the_python_client_of_prometheus_reads() {
    let (receiver, minute) = served(&[]);
    let script = r#"
import datetime, sys
from prometheus_api_client import PrometheusConnect
client, minute = PrometheusConnect(url=sys.argv[1]), int(sys.argv[2])
assert client.check_prometheus_connection()
assert "lizm_cpu" in client.all_metrics() and "core" in client.get_label_names()
assert client.get_label_values("host") == ["a", "b"]
assert client.get_current_metric_value("lizm_disk_path", {"host": "a"})[0]["value"][1] == "97.5"
start = datetime.datetime.fromtimestamp(minute - 60)
end = datetime.datetime.fromtimestamp(minute + 60)
chunks = client.get_metric_range_data("lizm_cpu", {"host": "a"}, start, end, datetime.timedelta(minutes=1))
assert [chunk["values"] for chunk in chunks] == [[[minute + 60, "2.5"]]], chunks
values = client.custom_query_range("sum(lizm_cpu)", start, end, "30s")[0]["values"]
assert values == [[minute + 30, "12.5"], [minute + 60, "12.5"]], values
print("read")
"#;
    let mut python = Command::new(python_program("python"));
    assert_eq!(run(python.args(["-c", script, &receiver.url(""), &minute.to_string()])), "read\n");
}

/// What a Prometheus that has scraped constant values gives for the same queries.
const QUERIES: [&str; 60] = [
    "lizm_cpu",
    "lizm_cpu{host=\"a\"}",
    "lizm_cpu{host!=\"a\"}",
    "lizm_cpu{host=~\"a|c\"}",
    "lizm_cpu{host=~\"(a|b)\"}",
    "lizm_cpu{host!~\"a.*\"}",
    "lizm_cpu_min",
    "lizm_cpu_max{host=\"c\"}",
    "lizm_cpu_core",
    "lizm_cpu_core{core=\"1\"}",
    "lizm_disk_path{path=~\"/v.*\"}",
    "lizm_disk_used{path=\"/var\"}",
    "lizm_net_in_interface",
    "{__name__=~\"lizm_(cpu|mem)\",host=\"a\"}",
    "{__name__=\"lizm_mem\"}",
    "{__name__!~\"lizm_(host_value|.*_samples)\",host=\"a\",core=\"\",path=\"\",interface=\"\",__name__=~\"lizm_(cpu|mem|net).*\"}",
    "lizm_nothing",
    "lizm_host_up",
    "sum(lizm_host_up)",
    "sum(lizm_cpu)",
    "avg(lizm_cpu)",
    "min(lizm_cpu)",
    "max(lizm_cpu)",
    "count(lizm_cpu)",
    "sum by (host) (lizm_cpu_core)",
    "sum(lizm_cpu_core) without (core)",
    "avg by (core) (lizm_cpu_core)",
    "count by (path) (lizm_disk_path)",
    "topk(1, lizm_cpu)",
    "topk(2, lizm_cpu)",
    "bottomk(1, lizm_cpu)",
    "topk by (host) (1, lizm_cpu_core)",
    "bottomk(10, lizm_disk_path)",
    "lizm_cpu + lizm_mem",
    "lizm_cpu - 5",
    "100 - lizm_mem",
    "lizm_net_in / 1e6 * 8",
    "lizm_net_in % 7",
    "lizm_cpu ^ 2",
    "2 ^ 3 ^ 2",
    "-lizm_cpu",
    "-2 ^ 2",
    "lizm_cpu > 20",
    "lizm_cpu > bool 20",
    "20 <= lizm_cpu",
    "lizm_cpu == 12.5",
    "lizm_cpu != 12.5",
    "lizm_cpu > lizm_mem",
    "lizm_cpu < bool lizm_mem",
    "lizm_cpu >= lizm_cpu_min",
    "abs(lizm_cpu - 50)",
    "ceil(lizm_cpu)",
    "floor(lizm_cpu)",
    "round(lizm_cpu)",
    "round(lizm_mem, 0.5)",
    "clamp_min(lizm_cpu, 20)",
    "clamp_max(lizm_cpu, 20)",
    "max_over_time(lizm_cpu[5s])",
    "avg_over_time(lizm_mem[5s]) / 100",
    "last_over_time(lizm_cpu_core[5s])",
];

#[test]
#[ignore = "needs prometheus"]
fn prometheus_gives_the_same() {
    let receiver = Served::start(&[]);
    let post_all = || {
        let values = r#"{"cpu": 12.5, "cpu:0": 5, "cpu:1": 20, "mem": 35.25, "disk:/": 10, "disk:/var": 97.5, "net-in": 123456789,
            "net-in:eth0": 1, "net-in:eth1": 2, "disk.used,path=/var": 7}"#;
        for (host, values) in
            [("a", values), ("b", "{\"cpu\": 80, \"mem\": 60}"), ("c", "{\"cpu\": 20.25, \"mem\": 20.25}")]
        {
            assert_eq!(receiver.post(&format!("/api/perf/{host}/{}", now()), values).0, 200);
        }
    };
    let prometheus = Peer::prometheus(receiver.address);
    // The times of the two are not the same moment, and the order of a vector is nobody's. Of a range the end counts.
    let values = |body: &Value| -> Vec<(String, f64)> {
        let result = &body["data"]["result"];
        let number = |point: &Value| point[1].as_str().unwrap().parse().unwrap();
        let value = |series: &Value| {
            let point = series["values"].as_array().map_or(&series["value"], |points| points.last().unwrap());
            (series["metric"].to_string(), number(point))
        };
        let mut values: Vec<_> = match body["data"]["resultType"].as_str() {
            Some("scalar") => vec![(String::new(), number(result))],
            _ => result.as_array().unwrap().iter().map(value).collect(),
        };
        values.sort_by(|one: &(String, f64), other| one.0.cmp(&other.0));
        values
    };
    await_some("a scrape", || {
        post_all();
        prometheus.ask("query", &[("query", "lizm_cpu")]).filter(|body| values(body).len() == 3)
    });
    for query in QUERIES {
        for path in ["query", "query_range"] {
            // At the turn of a minute a scrape finds nothing until there are new samples.
            let mut last = None;
            let deadline = Instant::now() + PATIENCE;
            loop {
                post_all();
                let (start, end) = ((now() - 2).to_string(), now().to_string());
                let range = [("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "1")];
                let pairs = if path == "query" { &range[..1] } else { &range[..] };
                let (status, ours) = ask(&receiver, path, pairs);
                assert_eq!(status, 200, "{query}: {ours}");
                let theirs = prometheus.ask(path, pairs);
                if theirs.as_ref().is_some_and(|theirs| values(theirs) == values(&ours)) {
                    break;
                }
                assert!(Instant::now() < deadline, "{path} {query}: {last:?}");
                last = Some((theirs, ours));
            }
        }
    }
}

#[cfg(all(feature = "disk", feature = "redis"))]
#[test]
#[ignore = "needs redis-server"]
fn every_store_gives_the_same() {
    let (directory, redis) = (tempfile::tempdir().unwrap(), crate::servers::Redis::start(&[]));
    let (in_directory, in_redis) = (directory.path().join("store"), redis.url());
    let minute = last_minute();
    let answers = |store: &str| -> Vec<Value> {
        let receiver = Served::start(&["--store", store, "--keep", "1m:1h,1h:1d"]);
        for (host, age) in [("a", 0), ("a", 60), ("a", 1800), ("b", 0), ("b", 7200)] {
            let values = format!("{{\"cpu\": {age}.5, \"cpu:0\": 2, \"cpu:1\": 3, \"x-y\": 4, \"x.y\": 5}}");
            assert_eq!(receiver.post(&format!("/api/perf/{host}/{}", minute - age + 7), &values).0, 200);
        }
        let (start, end) = ((minute - 3000).to_string(), (minute + 60).to_string());
        let day_ago = (minute - 80_000).to_string();
        let mut answers = vec![ask(&receiver, "labels", &[]).1, ask(&receiver, "metadata", &[]).1];
        for query in
            ["lizm_cpu", "sum by (core) (lizm_cpu_core)", "{__name__=~\"lizm_x_y.*\"}", "max_over_time(lizm_cpu[40m])"]
        {
            answers.push(ask(&receiver, "query", &[("query", query), ("time", &end)]).1);
            for (start, step) in [(&start, "60"), (&start, "600"), (&day_ago, "3600")] {
                let pairs = [("query", query), ("start", start.as_str()), ("end", &end), ("step", step)];
                answers.push(post(&receiver, "query_range", &pairs).1);
            }
        }
        answers
    };
    let in_memory = answers("memory");
    assert!(in_memory.iter().all(|answer| answer["status"] == "success" && answer["data"]["result"] != json!([])));
    assert_eq!(answers(&in_redis), in_memory);
    assert_eq!(answers(in_directory.to_str().unwrap()), in_memory);
}

#[cfg(feature = "regex")]
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = std::fs::read_to_string(root().join("deploy/grafana/lizm.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    let mut open = vec![&dashboard["panels"]];
    while let Some(value) = open.pop() {
        queries.extend(value["expr"].as_str());
        open.extend(value.as_array().into_iter().flatten());
        open.extend(value.as_object().into_iter().flat_map(|object| object.values()));
    }
    assert!(queries.len() > 20, "{queries:?}");
    let (receiver, end) = (Served::start(&[]), last_minute() + 60);
    let labels = "cpu cpu-user cpu-system cpu-iowait cpu-steal mem swap disk disk:/var inodes disk-free disk-read disk-write \
                  net-in net-out load1 load-per-core pressure-cpu pressure-mem pressure-io temp processes uptime";
    let values: Vec<String> = labels.split_whitespace().map(|label| format!("\"{label}\": 50")).collect();
    for epoch in [end, end + 1] {
        assert_eq!(receiver.post(&format!("/api/perf/web-1/{epoch}"), &format!("{{{}}}", values.join(","))).0, 200);
    }
    for query in queries {
        let query =
            query.replace("$host", "(web\\\\-1|web-1|db)").replace("$__interval", "1m").replace("$__range", "1h");
        assert!(!query.contains('$'), "{query}");
        let (start, end) = ((end - 600).to_string(), (end + 1).to_string());
        let pairs = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", "60")];
        let (status, body) = post(&receiver, "query_range", &pairs);
        assert_eq!(status, 200, "{query}: {body}");
        // Nothing is down, and nothing is over a threshold.
        let is_some = !body["data"]["result"].as_array().unwrap().is_empty();
        assert!(is_some || query.contains("== 0") || query.contains("> 9"), "{query}: {body}");
    }
}

#[test]
#[ignore = "needs prometheus"]
fn promtool_tests_the_rules() {
    let directory = root().join("deploy/prometheus");
    let said = run(Command::new("promtool").args(["check", "rules", "rules.yml"]).current_dir(&directory));
    assert!(said.contains("10 rules found"), "{said}");
    run(Command::new("promtool").args(["test", "rules", "rules_test.yml"]).current_dir(&directory));
    // Each rule is about what /metrics has.
    let (receiver, _) = served(&[]);
    let text = receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").body;
    let rules = std::fs::read_to_string(directory.join("rules.yml")).unwrap();
    let names = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("lizm_"));
    for name in names.filter(|name| {
        ["lizm_host_", "lizm_samples_", "lizm_store_", "lizm_clock_"].iter().any(|own| name.starts_with(own))
    }) {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}
