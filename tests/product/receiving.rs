//! A node that reports, and people who read what the receiver makes of it.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Served, last_minute, lizm, now};

#[test]
fn a_reporting_node_is_summarised_as_the_reference_does() {
    let receiver = Served::start(&[]);
    let minute = last_minute();
    for (second, cpu) in (50..).zip([5.1, 4.9, 4.8, 5.2, 4.9]) {
        let path = format!("/api/perf/jarvis/{}", minute + second);
        let posted = receiver.post(&path, &format!("{{\"cpu\": {cpu}, \"mem\": \"35\"}}"));
        assert_eq!(posted, (200, json!({"stored": 2, "expired": 0})));
    }
    let (status, answer) = receiver.get("/api/perf/jarvis/by-minute:cpu");
    let summary = &answer["summary:by-minute:cpu"];
    let end = summary["end"].as_u64().unwrap();
    let expected = json!({"summary:by-minute:cpu": {
        "averages": [{"start-sec": minute, "end-sec": minute + 60, "interval-size-sec": 60, "num-samples": 5,
            "avg": 4.98, "mean": 4.9799999999999995, "min": 4.8, "max": 5.2}],
        "start": (end - 3600) / 60 * 60, "end": end, "timeslice-size-sec": 60, "average-count": 1}});
    assert_eq!((status, &answer), (200, &expected));
    assert!(end.abs_diff(now()) <= 5);

    let keys = |path: &str| receiver.get(path).1.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = ["summary:by-hour:cpu", "summary:by-hour:mem", "summary:by-minute:cpu", "summary:by-minute:mem"];
    assert_eq!(keys("/api/perf/jarvis"), all);
    assert_eq!(keys("/api/perf/jarvis/MINUTE"), all[2..]);
    assert_eq!(keys("/api/perf/jarvis/Hour%3Amem"), all[1..2]);
    assert!(keys("/api/perf/jarvis/disk").is_empty() && keys("/api/perf/nobody").is_empty());
}

#[test]
fn a_retry_counts_once_and_an_old_sample_is_answered_as_expired() {
    let receiver = Served::start(&[]);
    let path = format!("/api/perf/h/{}", last_minute());
    assert_eq!(receiver.post_once(&path, "a1-7", "{\"cpu\":1}"), (200, json!({"stored": 1, "expired": 0})));
    assert_eq!(receiver.post_once(&path, "a1-7", "{\"cpu\":1}"), (200, json!({"stored": 0, "duplicate": true})));
    assert_eq!(receiver.post_once(&path, "a1-8", "{\"cpu\":1}"), (200, json!({"stored": 1, "expired": 0})));
    let old = format!("/api/perf/old/{}", now() - 100_000);
    assert_eq!(receiver.post(&old, "{\"cpu\":1,\"mem\":2}"), (200, json!({"stored": 0, "expired": 2})));
    assert_eq!(receiver.post(&path, "{}"), (200, json!({"stored": 0, "expired": 0})));
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
    assert_eq!(receiver.get("/api/perf/h/hour:cpu").1["summary:by-hour:cpu"]["averages"][0]["num-samples"], 2);
}

#[test]
fn the_list_of_hosts_shows_how_each_is() {
    let receiver = Served::start(&[]);
    let now = now();
    for (host, interval, age) in [("up", 5, 0), ("late", 1, 20), ("down", 1, 100), ("slow", 60, 100)] {
        for sample in (0..4).rev() {
            let path = format!("/api/perf/{host}/{}", now - age - sample * interval);
            assert_eq!(receiver.post(&path, "{\"mem\":2,\"cpu\":1}").0, 200);
        }
    }
    let (_, list) = receiver.get("/api/hosts");
    let of = |field: &str| list["hosts"].as_array().unwrap().iter().map(|host| host[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("host"), ["down", "late", "slow", "up"]);
    assert_eq!(of("state"), ["down", "late", "up", "up"]);
    assert_eq!(of("interval-sec"), [1, 1, 60, 5]);
    assert_eq!(of("last-epoch"), [now - 100, now - 20, now - 100, now]);
    assert_eq!(list["hosts"][0]["labels"], json!(["cpu", "mem"]));
    assert!(list["hosts"][0]["age-sec"].as_u64().unwrap() >= 100);
    assert_eq!(list["count"], 4);

    let (_, page) = receiver.get("/api/hosts?after=down&limit=2&series=cpu");
    let hosts = page["hosts"].as_array().unwrap();
    assert_eq!((hosts.len(), &hosts[0]["host"], &page["count"]), (2, &json!("late"), &json!(4)));
    let cpu = hosts[0]["series"]["cpu"].as_array().unwrap();
    assert_eq!(cpu.len(), 60);
    assert!(cpu.iter().filter(|mean| **mean == 1.0).count() >= 1 && hosts[0]["series"].get("mem").is_none());
    let start = page["series-start-sec"].as_u64().unwrap();
    assert!(start % 60 == 0 && now.abs_diff(start + 3600) < 120);
}

#[test]
fn a_host_can_be_removed() {
    let receiver = Served::start(&[]);
    let path = format!("/api/perf/a%20b/{}", now());
    assert_eq!(receiver.post(&path, "{\"cpu\":1}").0, 200);
    assert_eq!(receiver.delete("/api/perf/a%20b"), (200, json!({"removed": true})));
    assert_eq!(receiver.delete("/api/perf/a%20b").0, 404);
    assert_eq!(receiver.get("/api/perf/a%20b"), (200, json!({})));
    assert_eq!(receiver.post(&path, "{\"cpu\":1}").0, 200, "a host that still reports is known again");
}

#[test]
fn the_cap_on_series_refuses_new_ones_only() {
    let receiver = Served::start(&["--max-series", "2"]);
    let at = now();
    assert_eq!(receiver.post(&format!("/api/perf/a/{at}"), "{\"cpu\":1,\"mem\":1}").0, 200);
    let (status, refused) = receiver.post(&format!("/api/perf/b/{at}"), "{\"cpu\":1}");
    assert!(status == 429 && refused["error"].as_str().unwrap().contains("--max-series 2"), "{refused}");
    let mixed = receiver.post(&format!("/api/perf/a/{at}"), "{\"cpu\":1,\"disk\":1}");
    assert_eq!(mixed, (200, json!({"stored": 1, "expired": 0, "refused": 1})));
}

#[test]
fn every_answered_post_is_counted_when_it_stops() {
    let receiver = Served::start(&[]);
    let at = now();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let url = receiver.url(&format!("/api/perf/h{thread}/{at}"));
            std::thread::spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
                let mut stored = 0_u64;
                while let Ok(mut response) = agent.post(&url).send("{\"cpu\":1,\"mem\":2}") {
                    let answer: Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
                    stored += answer["stored"].as_u64().unwrap();
                }
                stored
            })
        })
        .collect();
    // A fifth client, so that the stop comes while the others are at it.
    for _ in 0..200 {
        assert_eq!(receiver.post(&format!("/api/perf/h/{at}"), "{\"cpu\":1}").0, 200);
    }
    let (status, lines) = receiver.process.stop(Signal::SIGTERM);
    assert!(status.success());
    let stored = 200 + threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>();
    let last = lines.last().unwrap();
    let counted: u64 = last.split(' ').nth(3).unwrap().parse().expect(last);
    // An answer that was on its way when the process ended is counted here and not by its client.
    assert!(counted >= stored && counted <= stored + 8, "{counted} counted, {stored} answered");
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let receiver = Served::start(&[]);
    let port = receiver.address.port().to_string();
    let output = lizm(&["receiver", "--bind", "127.0.0.1", "--port", &port]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
}

#[test]
fn epochs_of_any_kind_are_counted_where_they_say_or_refused() {
    let receiver = Served::start(&[]);
    let at = now();
    let post = |host: &str, epoch: String| receiver.post(&format!("/api/perf/{host}/{epoch}"), "{\"cpu\":1}").0;
    // The second 1970 began with and one of last year are older than every summary; nothing of them is stored.
    for epoch in [0, at - 366 * 86_400] {
        let answer = receiver.post(&format!("/api/perf/past/{epoch}"), "{\"cpu\":1}");
        assert_eq!(answer, (200, json!({"stored": 0, "expired": 1})));
    }
    assert_eq!(post("future", (at + 400).to_string()), 422);
    assert_eq!(post("huge", "9".repeat(12)), 422);
    assert_eq!(post("huge", "9".repeat(13)), 400);
    assert_eq!(post("huge", "9".repeat(30)), 400);
    assert_eq!(receiver.get("/api/hosts").1["count"], 0);
    // A clock four minutes ahead and one ten minutes behind; and a second that comes twice, as a leap second does.
    assert_eq!((post("ahead", (at + 240).to_string()), post("behind", (at - 600).to_string())), (200, 200));
    (0..2).for_each(|_| assert_eq!(post("leap", at.to_string()), 200));
    assert_eq!(receiver.samples("leap", "cpu"), 2);
    for (host, skew_sec) in [("ahead", 240), ("behind", -600), ("leap", 0)] {
        let known = receiver.get(&format!("/api/hosts?host={host}")).1["hosts"][0]["clock-skew-sec"].as_i64().unwrap();
        // The receiver's clock may have gone on meanwhile.
        assert!((skew_sec - 10..=skew_sec).contains(&known), "{host}: {known}");
    }
    let behind = receiver.get("/api/perf/behind/by-minute:cpu").1;
    let start = behind["summary:by-minute:cpu"]["averages"][0]["start-sec"].as_u64().unwrap();
    assert_eq!(start, (at - 601) / 60 * 60);
}
