//! Alerts: rules over real samples, told to a program, over restarts and kills.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Served, await_some, lizm, now, replace};

/// Puts samples of `x` into the minutes before the epoch `end`, and one at it.
pub(crate) fn put_minutes(receiver: &Served, host: &str, end: u64, minutes: u64, value: f64) {
    for epoch in (end - 60 * minutes..=end).step_by(10) {
        // A Redis on a busy machine may not answer in time.
        await_some("a sample to be stored", || {
            let (status, answer) = receiver.post(&format!("/api/perf/{host}/{epoch}"), &format!(r#"{{"x": {value}}}"#));
            assert!([200, 503].contains(&status), "{answer}");
            (status == 200).then_some(())
        });
    }
}

fn alerts(receiver: &Served, name: &str) -> Vec<Value> {
    let (status, answer) = receiver.get("/api/alerts");
    assert_eq!(status, 200, "{answer}");
    answer["alerts"].as_array().unwrap().iter().filter(|alert| alert["name"] == name).cloned().collect()
}

fn alert(receiver: &Served, name: &str) -> Option<Value> {
    alerts(receiver, name).pop()
}

pub(crate) fn await_state(receiver: &Served, name: &str, state: &str) -> Value {
    let in_state = || alerts(receiver, name).into_iter().find(|alert| alert["state"] == state);
    await_some(&format!("{name} {state}"), in_state)
}

/// The names of the transitions, the oldest first.
fn history(receiver: &Served) -> Vec<(String, bool)> {
    let (_, answer) = receiver.get("/api/alerts?history=1");
    let of = |event: &Value| (event["name"].as_str().unwrap().to_owned(), event["state"] == "firing");
    answer["history"].as_array().unwrap().iter().rev().map(of).collect()
}

#[test]
fn a_rule_fires_and_resolves() {
    let rules = ["--alert", "a: x > 90 for 2m until < 50", "--alert", "b: x > 99", "--alert", "c: y > 1"];
    let receiver = Served::start(&rules);
    put_minutes(&receiver, "h", now(), 4, 95.0);
    let firing = await_state(&receiver, "a", "firing");
    assert_eq!((&firing["host"], &firing["series"], &firing["value"]), (&json!("h"), &json!("x"), &json!(95.0)));
    assert_eq!((&firing["comparison"], &firing["threshold"]), (&json!(">"), &json!(90.0)));
    assert_eq!(firing["rule"], "a: x > 90 for 2m until < 50");
    let metrics = receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let line = r#"ALERTS{alertname="a",host="h",series="x",alertstate="firing",severity="warning"} 1"#;
    assert!(metrics.body.contains(line), "{}", metrics.body);
    let listed = lizm(&["alerts", &receiver.url("")]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.starts_with("firing\twarning\ta\th\tx\t95.00\t"), "{listed}");
    // A clock may be up to five minutes ahead, so that the test need not wait for minutes to pass.
    put_minutes(&receiver, "h", now() + 240, 3, 10.0);
    await_some("resolved", || alert(&receiver, "a").is_none().then_some(()));
    assert_eq!(history(&receiver), [("a".to_owned(), true), ("a".to_owned(), false)]);
}

#[test]
fn mistakes_are_named_at_the_start_and_a_receiver_without_rules_says_so() {
    let output = lizm(&["receiver", "--port", "0", "--alert", "a: x >> 5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--alert:1:7: a number is wanted"), "{said}");
    let receiver = Served::start(&[]);
    assert_eq!(receiver.get("/api/alerts").0, 404);
    assert_eq!(receiver.post("/api/silences", "{}").0, 404);
}

#[test]
fn a_file_is_read_again_and_a_mistake_in_it_is_an_alert() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules");
    fs::write(&file, "a: x > 90\n").unwrap();
    let receiver = Served::start(&["--alerts", file.to_str().unwrap()]);
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "a", "firing");
    replace(&file, "a: x > 90\nb: x >> 5\n");
    let text = await_state(&receiver, "lizm-config", "firing")["text"].clone();
    assert!(text.as_str().unwrap().ends_with("rules:2:7: a number is wanted, not \">\""), "{text}");
    assert_eq!(await_state(&receiver, "a", "firing")["rule"], "a: x > 90");
    replace(&file, "b: x > 80\n");
    await_state(&receiver, "b", "firing");
    assert_eq!((alert(&receiver, "a"), alert(&receiver, "lizm-config")), (None, None));
}

#[test]
fn a_silence_holds_until_it_ends() {
    let receiver = Served::start(&["--alert", "a: x > 90"]);
    for (body, status) in [
        ("{}", 400),
        (r#"{"alerts": "a,", "for": "2h"}"#, 400),
        (r#"{"alerts": "a", "for": "2y"}"#, 400),
        (r#"{"alerts": "a\nb: x > 1", "for": "2h"}"#, 400),
        (r#"{"alerts": "a", "on": "h*", "for": "2h"}"#, 200),
    ] {
        let (found, answer) = receiver.post("/api/silences", body);
        assert_eq!(found, status, "{body}: {answer}");
    }
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "a", "suppressed");
    put_minutes(&receiver, "other", now(), 3, 95.0);
    await_state(&receiver, "a", "firing");
    assert_eq!(history(&receiver).len(), 1);
}

#[test]
fn the_command_line_silences_and_tries_rules_on_what_is_kept() {
    let receiver = Served::start(&["--alert", "a: x > 90"]);
    let run = |arguments: &[&str]| {
        let output = lizm(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let url = receiver.url("");
    let (code, _, said) = run(&["alerts", &url, "--silence", "a"]);
    assert!(code == Some(2) && said.contains("--for"), "{said}");
    let (code, _, said) = run(&["alerts", &url, "--silence", "a", "--for", "2y"]);
    assert!(code == Some(1) && said.contains("for: a time such as 30m"), "{said}");
    let (code, out, said) = run(&["alerts", &url, "--silence", "a", "--on", "h*", "--for", "2h"]);
    assert_eq!((code, out.as_str(), said.as_str()), (Some(0), "a silenced for 2h\n", ""));
    put_minutes(&receiver, "h", now(), 5, 95.0);
    await_state(&receiver, "a", "suppressed");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "a: x > 90\nb: x > 99\nc: no y for 2m on h\n").unwrap();
    let file = file.path().to_str().unwrap();
    let (code, out, said) = run(&["alerts", "check", file, &url]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "1\t1\t0\ta: x > 90",
            "\tfiring\th\tx",
            "0\t0\t0\tb: x > 99",
            "1\t1\t0\tc: no y for 2m on h",
            "\tfiring\th\ty"
        ]
    );
    let (code, _, said) = run(&["alerts", "check", file, "http://127.0.0.1:1"]);
    assert!(code == Some(1) && said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn rules_may_go_back_as_far_as_is_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "a: change(x, 7d) > 5\n").unwrap();
    let file = file.path().to_str().unwrap();
    let check = |more: &[&str]| lizm(&[&["alerts", "check", file], more].concat()).output().unwrap().status.code();
    assert_eq!((check(&[]), check(&["--keep", "1m:1h,1h:14d"])), (Some(1), Some(0)));
    Served::start(&["--alerts", file, "--keep", "1m:1h,1h:14d"]);
}

#[cfg(feature = "disk")]
#[test]
fn a_silence_outlives_a_kill_behind_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--store", directory.path().to_str().unwrap(), "--alert", "a: x > 90"];
    let receiver = Served::start(&arguments);
    assert_eq!(receiver.post("/api/silences", r#"{"alerts": "a", "for": "2h"}"#).0, 200);
    receiver.process.kill();
    let receiver = Served::start(&arguments);
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "a", "suppressed");
}

#[cfg(feature = "disk")]
fn told(log: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let statuses = text.split("\"status\":").skip(1).map(|rest| rest.trim_start().chars().take(9).collect::<String>());
    statuses.collect()
}

#[cfg(feature = "disk")]
#[test]
fn what_fires_and_what_was_told_outlives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (store, rules, log) =
        (directory.path().join("store"), directory.path().join("rules"), directory.path().join("log"));
    let append = format!("target ops: exec sh -c \"cat >> {}\"\na: x > 90; notify ops\n", log.display());
    fs::write(&rules, append).unwrap();
    let arguments = ["--store", store.to_str().unwrap(), "--alerts", rules.to_str().unwrap()];
    let receiver = Served::start(&arguments);
    put_minutes(&receiver, "h", now(), 3, 95.0);
    let fired_at = await_state(&receiver, "a", "firing")["fired-at"].clone();
    await_some("told", || (!told(&log).is_empty()).then_some(()));
    let delivered = || alert(&receiver, "a").filter(|alert| alert["told"][0]["delivered-at"].is_u64());
    await_some("delivered", delivered);
    let before = told(&log);
    receiver.process.kill();
    let receiver = Served::start(&arguments);
    assert_eq!(await_state(&receiver, "a", "firing")["fired-at"], fired_at);
    put_minutes(&receiver, "h", now() + 240, 3, 10.0);
    await_some("resolved", || alert(&receiver, "a").is_none().then_some(()));
    await_some("told again", || (told(&log).len() > before.len()).then_some(()));
    assert_eq!(history(&receiver), [("a".to_owned(), true), ("a".to_owned(), false)]);
}
