//! What is kept beyond an hour and a day: `--keep`, ranges, CSV, `lizm export`, and how a directory's setting is changed.

#[cfg(feature = "disk")]
use std::path::Path;
#[cfg(feature = "redis")]
use std::time::{Duration, Instant};

#[cfg(feature = "disk")]
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[cfg(feature = "redis")]
use crate::harness::await_some;
use crate::harness::{Served, lizm, now};
#[cfg(feature = "redis")]
use crate::servers::Redis;

const DAY: u64 = 86_400;

/// Posts a sample of `cpu` and of a label that CSV has to quote.
fn post(receiver: &Served, host: &str, epoch: u64, value: f64) {
    let body = json!({"cpu": value, "a \"b\", c": -value}).to_string();
    let answer = receiver.post(&format!("/api/perf/{host}/{epoch}"), &body);
    assert_eq!(answer, (200, json!({"stored": 2, "expired": 0})));
}

/// Number, sum of the means and of the samples of the averages of `cpu` in an answer.
fn averages(answer: &Value, window: &str) -> (usize, u64, f64) {
    let averages = answer[format!("summary:{window}:cpu")]["averages"].as_array().cloned().unwrap_or_default();
    let sum = |name: &str| averages.iter().map(|average| average[name].as_f64().unwrap()).sum::<f64>();
    (averages.len(), sum("num-samples") as u64, sum("mean"))
}

fn export(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = lizm(&[&["export"], arguments].concat()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Asks a receiver that keeps `1m:6h,1h:3d,1d:30d` and has a sample of 5 hours, of 2 days and of 20 days ago, at `at`.
fn check_ranges(receiver: &Served, at: u64) {
    let get = |query: &str| receiver.get(&format!("/api/perf/h{query}")).1;
    // Without parameters nothing else is listed than ever, but for the days.
    let listed = get("");
    assert_eq!(averages(&listed, "by-minute"), (0, 0, 0.0));
    assert_eq!(averages(&listed, "by-hour"), (1, 1, 1.0));
    assert_eq!(averages(&listed, "by-day").1, 3);
    for (query, window, samples) in [
        ("?from=-6h", "by-minute", 1),
        ("?from=-6h&by=hour", "by-hour", 1),
        ("?from=-3d", "by-hour", 2),
        ("?from=-3d&to=-1d", "by-hour", 1),
        ("?from=-30d", "by-day", 3),
        ("?from=-3d&limit=10", "by-day", 2),
        ("/CPU?from=-30d", "by-day", 3),
    ] {
        let answer = get(query);
        assert_eq!(averages(&answer, window).1, samples, "{query}: {answer}");
        assert_eq!(answer.as_object().unwrap().len(), if query.starts_with("/CPU") { 1 } else { 2 }, "{query}");
    }
    let minute = &get(&format!("?from={}&to={at}", at - 6 * 3600 + 60))["summary:by-minute:cpu"];
    let start = (at - 5 * 3600 - 1) / 60 * 60;
    assert_eq!(
        minute["averages"][0],
        json!({"start-sec": start, "end-sec": start + 60, "interval-size-sec": 60, "num-samples": 1, "avg": 1.0,
            "mean": 1.0, "min": 1.0, "max": 1.0})
    );
    assert_eq!((&minute["end"], &minute["timeslice-size-sec"]), (&json!(at), &json!(60)));
    assert!(get("?from=-1y")["kept-from"].as_u64().unwrap() <= at - 29 * DAY);
    assert_eq!(get("?from=-30d").get("kept-from"), None);
    let host = &receiver.get("/api/hosts?host=h&from=-30d&limit=100").1["hosts"][0];
    assert_eq!(averages(&host["summaries"], "by-day").1, 3);
    for (path, field) in [("/api/perf/h?from=x", "from"), ("/api/hosts?host=h&from=-1h&limit=99999", "limit")] {
        let (status, answer) = receiver.get(path);
        assert!(status == 400 && answer["error"].as_str().unwrap().starts_with(&format!("{field}: ")), "{answer}");
    }
}

#[test]
fn a_range_is_answered_from_what_is_kept() {
    let receiver = Served::start(&["--keep", "1m:6h,1h:3d,1d:30d"]);
    receiver.process.line_with("which keeps 1m:6h,1h:3d,1d:30d in 13");
    let at = now();
    for (age, value) in [(5 * 3600, 1.0), (2 * DAY, 2.0), (20 * DAY, 4.5)] {
        post(&receiver, "h", at - age, value);
    }
    check_ranges(&receiver, at);
    // An answer as CSV, asked for by either way, and the same by the command.
    let asked = |target: &str, accept: &str| {
        receiver.raw(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").as_bytes())
    };
    let csv = asked("/api/perf/h?from=-30d&format=csv", "*/*");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = csv.body;
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows[0], "host,label,start-sec,end-sec,num-samples,mean,sum,min,max");
    let day = (at - 20 * DAY - 1) / DAY * DAY;
    assert_eq!(rows[1], format!("h,\"a \"\"b\"\", c\",{day},{},1,-4.5,-4.5,-4.5,-4.5", day + DAY));
    assert_eq!(asked("/api/perf/h?from=-30d", "text/csv").body, text);
    let exported = export(&[&receiver.url(""), "--host", "h", "--from", "-30d", "--by", "day"]);
    assert_eq!(exported, (Some(0), text, String::new()));
    // All hosts, with one head.
    post(&receiver, "i", at - 60, 8.0);
    let (_, csv, _) = export(&[&receiver.url(""), "--label", "cpu"]);
    let hosts: Vec<&str> = csv.lines().map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(hosts, ["host", "h", "i"]);
    let (_, lines, _) = export(&[&receiver.url(""), "--format", "json", "--from", "-2h"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["host"].as_str().unwrap()).collect::<Vec<_>>(), ["h", "i"]);
    assert_eq!(averages(&lines[1]["summaries"], "by-minute").1, 1);
    let (code, _, why) = export(&[&receiver.url(""), "--host", "h", "--from", "-30d", "--by", "10-minutes"]);
    assert!(code == Some(1) && why.contains("by: not kept here; kept are by-minute, by-hour, by-day"), "{why}");
    let (code, text, why) = export(&[&receiver.url(""), "--host", "nobody"]);
    assert!(code == Some(1) && text.is_empty() && why.contains("nobody is not known there"), "{text}{why}");
}

#[test]
fn a_wrong_setting_is_wrong_usage() {
    for (arguments, sentence) in [
        (&["--keep", "1h:1d"][..], "option --keep: \"1h:1d\": the first interval is 1m"),
        (&["--keep-change"], "option --keep-change: goes with --keep"),
        (&["--retry-horizon", "1m"], "option --retry-horizon: "),
    ] {
        let output = lizm(&[&["receiver", "--port", "0"], arguments].concat()).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && why.contains(sentence), "{arguments:?}: {why}");
    }
}

#[test]
fn a_key_lasts_as_long_as_its_sample_may_come() {
    let receiver = Served::start(&["--keep", "1m:1h,1h:10d", "--retry-horizon", "2d"]);
    let post = |age: u64| receiver.post_once(&format!("/api/perf/h/{}", now() - age), "s1-7", "{\"cpu\":1}").1;
    assert_eq!(post(2 * DAY + 10), json!({"stored": 0, "expired": 1}));
    assert_eq!(post(2 * DAY - 60), json!({"stored": 1, "expired": 0}));
    assert_eq!(post(0), json!({"stored": 0, "duplicate": true}));
    let late = receiver.post(&format!("/api/perf/h/{}", now() - 9 * DAY), "{\"cpu\":1}");
    assert_eq!(late.1, json!({"stored": 1, "expired": 0}), "without a key it may come later");
}

#[cfg(feature = "disk")]
fn start(path: &Path, arguments: &[&str]) -> Served {
    Served::start(&[&["--store", path.to_str().unwrap()], arguments].concat())
}

#[cfg(feature = "disk")]
#[test]
fn a_directory_keeps_its_setting_and_all_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let at = now();
    let receiver = start(dir.path(), &["--keep", "1m:6h,1h:3d,1d:30d"]);
    for (age, value) in [(5 * 3600, 1.0), (2 * DAY, 2.0), (20 * DAY, 4.5)] {
        post(&receiver, "h", at - age, value);
    }
    check_ranges(&receiver, at);
    receiver.process.kill();
    // Without the option as with it.
    for arguments in [&[][..], &["--keep", "1m:6h,1h:3d,1d:30d"], &[]] {
        let receiver = start(dir.path(), arguments);
        receiver.process.line_with("which keeps 1m:6h,1h:3d,1d:30d: 1 hosts and 2 series were there");
        check_ranges(&receiver, at);
        let _ = receiver.process.stop(Signal::SIGTERM);
    }
    let shorter = ["--store", dir.path().to_str().unwrap(), "--keep", "1m:6h,1h:1d"];
    let output = lizm(&[&["receiver", "--port", "0"], &shorter[..]].concat()).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{why}");
    let dropped = "by-hour and is older than 1d (2 intervals at once), all that is kept by-day (6 intervals by 20";
    for part in ["keeps 1m:6h,1h:3d,1d:30d", dropped, "--keep-change"] {
        assert!(why.contains(part), "{why}");
    }
    // Longer, with an interval that was not kept: it is filled from minutes.
    let receiver = start(dir.path(), &["--keep", "1m:12h,10m:1d,1h:3d,1d:60d"]);
    check_ranges(&receiver, at);
    let filled = receiver.get("/api/perf/h/cpu?from=-6h&by=10-minutes").1;
    assert_eq!(averages(&filled, "by-10-minutes"), (1, 1, 1.0));
    receiver.process.kill();
    let receiver = start(dir.path(), &["--keep", "1m:6h,1h:1d", "--keep-change"]);
    receiver.process.line_with("kept 1m:12h,10m:1d,1h:3d,1d:60d, and keeps 1m:6h,1h:1d and 10m:1d until 20");
    assert_eq!(averages(&receiver.get("/api/perf/h?from=-6h").1, "by-minute"), (1, 1, 1.0));
    assert_eq!(averages(&receiver.get("/api/perf/h?from=-2d&by=hour").1, "by-hour"), (1, 1, 1.0));
    receiver.process.kill();
    // What is not asked for any more is read until it has left its window: by name, where nothing else reaches as far, and
    // after a start with the same option. It is there whole for who asks for it again.
    for arguments in [&["--keep", "1m:6h,1h:1d"][..], &[], &["--keep", "1m:6h,1h:1d,1d:60d"], &[]] {
        let receiver = start(dir.path(), arguments);
        assert_eq!(averages(&receiver.get("/api/perf/h?from=-1d&by=10-minutes").1, "by-10-minutes"), (1, 1, 1.0));
        assert_eq!(averages(&receiver.get("/api/perf/h?from=-40d").1, "by-day").1, 3);
        let exported = export(&[&receiver.url(""), "--host", "h", "--label", "cpu", "--from", "-40d"]);
        assert_eq!(exported.1.lines().count(), 4, "{exported:?}");
        post(&receiver, "i", at - 30 * DAY, 1.0);
        let _ = receiver.process.stop(Signal::SIGTERM);
    }
    let receiver = start(dir.path(), &[]);
    receiver.process.line_with("keeps 1m:6h,1h:1d,1d:60d and 10m:1d until 20");
    assert_eq!(averages(&receiver.get("/api/perf/i?from=-40d").1, "by-day"), (1, 4, 1.0));
}

#[cfg(feature = "disk")]
#[test]
fn a_window_that_is_not_asked_for_any_more_ends() {
    use lizm::sample::Sample;
    use lizm::store::{KeepOptions, LabelPage, Location, Store};
    use lizm::summary::{IntervalRange, Keep, KeyFilter};

    let (dir, at) = (tempfile::tempdir().unwrap(), 1_465_001_814);
    let location = Location::Directory { path: dir.path().to_owned(), fsync_always: false };
    let open = |keep: &str, now: u64| {
        let options = KeepOptions { asked: keep.parse().ok(), may_drop: true, ..KeepOptions::default() };
        Store::open_to_keep(&location, 1000, &options, now).unwrap()
    };
    let record = |store: &Store, epoch: u64, now: u64| {
        let sample = Sample { host: "h".into(), epoch, values: vec![("cpu".into(), 1.0)] };
        store.record(sample.view(), None, now).unwrap().stored
    };
    let days = |store: &Store, now: u64| {
        let (all, window) = (KeyFilter::containing(""), "1m:6h,1d:30d".parse::<Keep>().unwrap().windows()[1]);
        let range = IntervalRange { window, first: 0, last: now / DAY };
        store.range("h", &LabelPage::all(&all), range, now).unwrap().iter().map(|(_, days)| days.len()).sum::<usize>()
    };
    let store = open("1m:6h,1d:100d", at);
    [0, 90 * DAY].iter().for_each(|age| assert_eq!(record(&store, at - age, at), 1));
    drop(store);
    let store = open("1m:6h", at);
    // Samples count there meanwhile, also where nothing else keeps them.
    assert_eq!((record(&store, at - 10 * DAY, at), days(&store, at)), (1, 3));
    store.checkpoint().unwrap();
    let end = (at / DAY + 1) * DAY + 100 * DAY;
    assert_eq!(record(&store, end - 2 * DAY, end - 1), 1);
    assert_eq!(record(&store, end - 2 * DAY, end), 0, "it has ended");
    let maintain = |store: &Store, now: u64| {
        store.sweep(now);
        store.checkpoint().unwrap();
        store.expire_disk(now).unwrap();
        store.sweep(now);
    };
    maintain(&store, end);
    assert_eq!(days(&store, end), 0);
    assert_eq!(record(&store, end, end), 1);
    drop(store);
    // Asked for again it has what the minutes have.
    let store = open("1m:6h,1d:100d", end);
    assert_eq!((store.keep().to_string().as_str(), days(&store, end)), ("1m:6h,1d:100d", 1));
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn a_redis_gives_back_each_day_within_a_day() {
    use lizm::sample::Sample;
    use lizm::store::{KeepOptions, Location, RedisAddress, Store};

    let redis = Redis::start(&[]);
    let location = Location::Redis(RedisAddress::parse(&redis.url(), None).unwrap());
    let options = KeepOptions { asked: "1m:1h,1d:40d".parse().ok(), ..KeepOptions::default() };
    // The first day of a hash. In the past, because what is removed is so by the earlier clock, and Redis has its own.
    let start = (now() / DAY / 32 - 4) * 32 * DAY;
    let store = Store::open_to_keep(&location, 1000, &options, start).unwrap();
    let key = |host: &str| format!("lizm:{{{host}}}:by-day:{start}");
    let days = |host: &str| {
        let fields = redis.ask(&["HKEYS", &key(host)]);
        let fields: Vec<&str> =
            fields.lines().filter(|line| line.ends_with(" cpu") || line.ends_with(" mem")).collect();
        fields.iter().map(|field| field.split(' ').next().unwrap().parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    for day in 0..=64 {
        let at = start + day * DAY + 600;
        for host in ["up", "down"].iter().filter(|host| day < 20 || **host == "up") {
            let values = vec![("cpu".into(), 1.0), ("mem".into(), 2.0)];
            let sample = Sample { host: (*host).into(), epoch: at, values };
            assert_eq!(store.record(sample.view(), None, at).unwrap().stored, 2);
        }
        let forgotten = store.sweep(at);
        assert_eq!(forgotten, if day == 60 { vec!["down"] } else { vec![] }, "day {day}");
        for (host, last) in [("up", 31), ("down", 19)] {
            let kept: Vec<u64> = (day.saturating_sub(40)..=day.min(last)).flat_map(|day| [day, day]).collect();
            let mut found = days(host);
            found.sort_unstable();
            assert_eq!(found, kept, "{host} at day {day}");
        }
        if day == 20 {
            let ttl: u64 = redis.ask(&["TTL", &key("down")]).trim_start_matches(':').trim().parse().unwrap();
            assert!(ttl <= 40 * DAY + DAY, "it ends with its newest day: {} days", ttl / DAY);
        }
    }
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn a_redis_counts_what_would_go_also_where_its_hash_stays() {
    let redis = Redis::start(&[]);
    let receiver = Served::start(&["--store", &redis.url(), "--keep", "1m:1h,1d:60d"]);
    [31, 35, 40].iter().for_each(|days| post(&receiver, "h", now() - days * DAY, 1.0));
    let shorter = ["receiver", "--port", "0", "--store", &redis.url(), "--keep", "1m:1h,1d:30d"];
    let output = lizm(&shorter).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{why}");
    let url = redis.url();
    let sentence = format!("lizm: store {url}: its receivers keep 1m:1h,1d:60d, and --keep 1m:1h,1d:30d");
    assert!(why.starts_with(&sentence) && why.contains("older than 30d (6 intervals at once)"), "{why}");
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn a_receiver_that_was_started_without_redis_says_soon_that_it_was_asked_for_something_else() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let first = Served::start(&["--store", &redis.url(), "--keep", "1m:1h,1d:60d"]);
    post(&first, "h", now(), 1.0);
    drop(first);
    redis.kill();
    let second = Served::start(&["--store", &redis.url(), "--keep", "1m:1h,1d:30d"]);
    let started = Instant::now();
    await_some("Redis to be away", || (second.get("/health").0 == 503).then_some(()));
    redis.start_again();
    let says = |sentence: &str| second.get("/health").1.to_string().contains(sentence).then_some(());
    await_some("what the store keeps", || says("its receivers keep 1m:1h,1d:60d"));
    assert!(started.elapsed() < Duration::from_secs(25), "by a sweep every 30 seconds: {:?}", started.elapsed());
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn a_redis_keeps_one_setting_for_all_its_receivers() {
    let redis = Redis::start(&[]);
    let start = |arguments: &[&str]| Served::start(&[&["--store", &redis.url()], arguments].concat());
    let at = now();
    let first = start(&["--keep", "1m:6h,1h:3d,1d:30d"]);
    first.process.line_with("which keeps 1m:6h,1h:3d,1d:30d, shared by all receivers");
    for (age, value) in [(5 * 3600, 1.0), (2 * DAY, 2.0), (20 * DAY, 4.5)] {
        post(&first, "h", at - age, value);
    }
    post(&first, "down", at - 4 * 3600, 1.0);
    check_ranges(&first, at);
    // Another receiver keeps the same with the option and without it, and is refused with another.
    for arguments in [&[][..], &["--keep", "1m:6h,1h:3d,1d:30d"]] {
        check_ranges(&start(arguments), at);
    }
    for (keep, removed) in [
        ("1m:6h,1h:1d", "is older than 1d (2 intervals at once), all that is kept by-day (8"),
        ("1m:6h,1h:3d,1d:60d", ""),
    ] {
        let output = lizm(&["receiver", "--port", "0", "--store", &redis.url(), "--keep", keep]).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{why}");
        for part in ["its receivers keep 1m:6h,1h:3d,1d:30d, and --keep 1m:6h,1h:", "with --keep-change", removed] {
            assert!(why.contains(part), "{why}");
        }
    }
    // Longer, with an interval that was not kept: it is filled from minutes, and the first takes it up.
    let second = start(&["--keep", "1m:12h,10m:1d,1h:3d,1d:60d", "--keep-change"]);
    post(&second, "h", at - 11 * 3600, 1.0);
    post(&first, "h", at - 5 * 3600, 3.0);
    first.process.line_with("keeps 1m:12h,10m:1d,1h:3d,1d:60d from now on");
    for receiver in [&first, &second] {
        let get = |query: &str| receiver.get(&format!("/api/perf/{query}")).1;
        assert_eq!(averages(&get("h/cpu?from=-12h&by=10-minutes"), "by-10-minutes"), (2, 3, 3.0));
        assert_eq!(averages(&get("h/cpu?from=-12h&by=minute"), "by-minute"), (2, 3, 3.0));
        assert_eq!(averages(&get("h/cpu?from=-60d&by=day"), "by-day").1, 5);
        // Of a host that is down the sweep fills it.
        crate::harness::await_some("what is filled", || {
            let filled = receiver.get("/api/perf/down/cpu?from=-12h&by=10-minutes").1;
            (averages(&filled, "by-10-minutes") == (1, 1, 1.0)).then_some(())
        });
    }
    // Shorter: what is kept no more is gone, and the keys of it; an interval that is not asked for is read until it has left
    // its window.
    let third = start(&["--keep", "1m:1h,1h:1d", "--keep-change"]);
    third.process.line_with("which keeps 1m:1h,1h:1d and 10m:1d until 20");
    post(&third, "h", at, 1.0);
    for receiver in [&third, &start(&["--keep", "1m:1h,1h:1d"])] {
        assert_eq!(averages(&receiver.get("/api/perf/h?from=-1d&by=hour").1, "by-hour").1, 4);
        assert_eq!(averages(&receiver.get("/api/perf/h/cpu?from=-40d").1, "by-day").1, 6);
    }
    // It ends for all of them.
    let setting = redis.ask(&["GET", "lizm:keep"]);
    let setting = setting.lines().nth(1).unwrap().to_owned();
    let (before, ends) = setting.rsplit_once('@').unwrap();
    redis.ask(&["SET", "lizm:keep", &format!("9{}@{}", &before[1..], at - 1)]);
    crate::harness::await_some("the end of the days", || {
        let (status, answer) = third.get("/api/perf/h?from=-1d&by=day");
        (status == 400 && answer["error"].as_str().unwrap().contains("kept are by-minute, by-10-minutes, by-hour"))
            .then_some(())
    });
    crate::harness::await_some("a setting without them", || {
        (!redis.ask(&["GET", "lizm:keep"]).contains("1d:60d")).then_some(())
    });
    assert!(ends.parse::<u64>().unwrap() > at + 60 * DAY);
    // Asked for again it has what the hours have.
    let fourth = start(&["--keep", "1m:1h,1h:1d,1d:60d", "--keep-change"]);
    post(&fourth, "h", at, 1.0);
    assert_eq!(averages(&fourth.get("/api/perf/h/cpu?from=-40d").1, "by-day").1, 7);
}
