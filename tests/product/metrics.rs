//! `/metrics` as Prometheus and its tools read it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Answer, Served, await_some, now};
use crate::peers::Peer;

/// The text, and the value of a sample in it.
fn scrape(receiver: &Served) -> String {
    let answer = receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.body
}

fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

/// A receiver that has stored, refused, and been asked for what is not there.
fn busy_receiver(arguments: &[&str]) -> Served {
    let receiver = Served::start(arguments);
    let url = |host: &str, epoch: u64| format!("/api/perf/{host}/{epoch}");
    assert_eq!(
        receiver.post(&url("jarvis", now()), "{\"cpu\": 12.5, \"mem\": 35, \"a \\\"b\\\" \\\\\": 1e300}").0,
        200
    );
    assert_eq!(receiver.post(&url("jarvis", 1), "{\"cpu\": 1}").1["expired"], 1);
    assert_eq!(receiver.post(&url("jarvis", now() + 10_000), "{\"cpu\": 1}").0, 422);
    assert_eq!(receiver.post(&url("jarvis", now()), "{\"cpu\": \"much\"}").0, 400);
    assert_eq!(receiver.post_once(&url("b%22%5C%C3%A4", now()), "s-1", "{\"cpu\": 1}").0, 200);
    assert_eq!(receiver.post_once(&url("b%22%5C%C3%A4", now()), "s-1", "{\"cpu\": 1}").1["duplicate"], true);
    assert_eq!(receiver.post("/write", "perf,host=lines cpu=1\nnonsense\n").0, 400);
    assert_eq!(receiver.get("/nothing").0, 404);
    receiver
}

#[test]
fn what_happened_is_counted() {
    let receiver = busy_receiver(&["--metrics-hosts", "2"]);
    let text = scrape(&receiver);
    for (sample, expected) in [
        ("lizm_values_stored_total", 5.0),
        ("lizm_values_expired_total", 1.0),
        ("lizm_requests_duplicate_total", 1.0),
        ("lizm_samples_refused_total{reason=\"malformed\"}", 2.0),
        ("lizm_samples_refused_total{reason=\"ahead\"}", 1.0),
        ("lizm_http_responses_total{code=\"404\"}", 1.0),
        ("lizm_http_responses_total{code=\"400\"}", 2.0),
        ("lizm_http_request_duration_seconds_count{route=\"submit\"}", 6.0),
        ("lizm_http_request_duration_seconds_bucket{route=\"submit\",le=\"+Inf\"}", 6.0),
        ("lizm_http_request_duration_seconds_count{route=\"write\"}", 1.0),
        ("lizm_hosts", 3.0),
        ("lizm_hosts_omitted", 1.0),
        ("lizm_series", 5.0),
        ("lizm_store_up", 1.0),
        ("lizm_clock_jump_seconds", 0.0),
        ("lizm_host_up{host=\"jarvis\"}", 1.0),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample} in {text}");
    }
    if cfg!(target_os = "linux") {
        assert!(value(&text, "process_resident_memory_bytes").unwrap() > 1e6);
        assert!(value(&text, "process_open_fds").unwrap() > 3.0);
        assert!((value(&text, "process_start_time_seconds").unwrap() - now() as f64).abs() < 60.0);
    }
    // Asked again, for the turn of a minute may have come between.
    let cpu = "lizm_host_value{host=\"jarvis\",label=\"cpu\",stat=\"avg\"}";
    await_some("the running minute", || {
        assert_eq!(receiver.post(&format!("/api/perf/jarvis/{}", now()), "{\"cpu\": 12.5}").0, 200);
        (value(&scrape(&receiver), cpu) == Some(12.5)).then_some(())
    });
    let mut stream = receiver.connect();
    stream.write_all(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(Answer::read_head(&mut stream).status, 200);
    assert_eq!(receiver.post("/metrics", "").0, 405);
}

#[test]
#[ignore = "needs prometheus"]
fn promtool_has_nothing_to_say_of_it() {
    let receiver = busy_receiver(&[]);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(scrape(&receiver).as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    // Of the names that a host's labels make it may think what it likes.
    let text = String::from_utf8(said.stderr).unwrap();
    let is_of_host = |line: &str| line.starts_with("lizm_a__b_");
    assert!(
        text.lines().all(is_of_host) && said.stdout.is_empty() && [0, 3].contains(&said.status.code().unwrap()),
        "{text}"
    );
}

#[test]
#[ignore = "needs prometheus"]
fn prometheus_scrapes_it_and_answers_a_query() {
    let receiver = busy_receiver(&[]);
    let prometheus = Peer::prometheus(receiver.address);
    let ask = |query: &str| -> Option<Vec<Value>> {
        let answer = prometheus.ask("query", &[("query", query)])?;
        answer["data"]["result"].as_array().filter(|result| !result.is_empty()).cloned()
    };
    let values = await_some("an answer to a query", || {
        assert_eq!(receiver.post(&format!("/api/perf/jarvis/{}", now()), "{\"cpu\": 12.5}").0, 200);
        ask("lizm_host_value{host=\"jarvis\",label=\"cpu\",stat=\"max\"}")
    });
    assert_eq!(values[0]["value"][1], "12.5");
    let strange = await_some("a host with a strange name", || ask("lizm_host_up{host=\"b\\\"\\\\ä\"}"));
    assert_eq!(strange[0]["value"][1], "1");
    let quantile = "histogram_quantile(0.99, lizm_http_request_duration_seconds_bucket{route=\"submit\"}) < 10";
    assert_eq!(await_some("a quantile", || ask(quantile)).len(), 1);
    assert_eq!(await_some("its own state", || ask("up{job=\"lizm\"} == 1")).len(), 1);
}
