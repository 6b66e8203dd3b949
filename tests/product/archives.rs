//! Archives of what has closed: InfluxDB, VictoriaMetrics, and a server that keeps to the documented statuses of `_bulk`.
//! What they have is compared value by value with what the receiver keeps.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use flate2::read::GzDecoder;
use lizm::url::encode;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::durable::kills;
use crate::harness::{Heard, Process, Served, Treatment, await_some, lizm, now, play_receiver, python_program};
use crate::peers::{Peer, fetch};

/// Count, sum, minimum and maximum of each interval, by host, label and start.
type Intervals = BTreeMap<(String, String, u64), (u64, f64, f64, f64)>;

/// Hosts and labels with all that line protocol escapes.
const HOSTS: [&str; 2] = ["jarvis", "jar vis,C:\\x=1"];
const LABELS: [&str; 3] = ["cpu", "net.rx,if=eth0", "disk /var \"ü\""];

/// The start of a minute that ended `minutes` ago.
fn minute(minutes: u64) -> u64 {
    (now() / 60 - minutes) * 60
}

/// Posts a sample of all labels; the number makes its values others than those of any other.
fn post(receiver: &Served, host: &str, epoch: u64, number: u64) {
    let values: BTreeMap<&str, f64> =
        LABELS.iter().zip(0..).map(|(label, place)| (*label, number as f64 / 8.0 + f64::from(place))).collect();
    let path = format!("/api/perf/{}/{epoch}", encode(host));
    // A disk or a Redis that is slow for a moment is answered by 503.
    await_some("a post to be stored", || {
        let (status, answer) = receiver.post(&path, &json!(values).to_string());
        assert!([200, 503].contains(&status), "{path}: {status} {answer}");
        (status == 200).then_some(())
    });
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut is_quoted) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => fields.last_mut().unwrap().extend(characters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    fields
}

/// What the receiver keeps of the last two hours by minute.
fn kept(receiver: &Served, hosts: &[&str]) -> Intervals {
    let mut intervals = Intervals::new();
    for host in hosts {
        let path = format!("/api/perf/{}?from=-2h&by=minute&format=csv", encode(host));
        let csv = fetch(&receiver.url(&path)).unwrap_or_default();
        for fields in csv.lines().skip(1).map(fields) {
            let number = |place: usize| fields[place].parse::<f64>().unwrap();
            let value = (number(4) as u64, number(6), number(7), number(8));
            intervals.insert((fields[0].clone(), fields[1].clone(), number(2) as u64), value);
        }
    }
    intervals
}

/// Waits until an archive has what is expected, and nothing else.
fn await_same(what: &str, expected: impl Fn() -> Intervals, archive: impl Fn() -> Intervals) {
    let mut last = (Intervals::new(), Intervals::new());
    let found = (0..300).any(|_| {
        last = (expected(), archive());
        let is_same = last.0 == last.1 && !last.0.is_empty();
        if !is_same {
            thread::sleep(Duration::from_millis(100));
        }
        is_same
    });
    let lacks = last.0.iter().filter(|(key, value)| last.1.get(key) != Some(value)).take(3).collect::<Vec<_>>();
    let beyond = last.1.iter().filter(|(key, value)| last.0.get(key) != Some(value)).take(3).collect::<Vec<_>>();
    assert!(found, "{what}: of {} intervals it lacks {lacks:?}; of {} it has {beyond:?}", last.0.len(), last.1.len());
}

/// A metric of `/metrics` of the only archive.
fn metric(receiver: &Served, name: &str) -> u64 {
    let text = fetch(&receiver.url("/metrics")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What an InfluxDB has.
fn in_influxdb(peer: &Peer) -> Intervals {
    let query = "SELECT count, sum, min, max FROM lizm GROUP BY host, label, interval";
    let answer = fetch(&peer.at(&format!("/query?db=x&epoch=s&q={}", encode(query)))).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let mut intervals = Intervals::new();
    for series in answer["results"][0]["series"].as_array().into_iter().flatten() {
        assert_eq!(series["tags"]["interval"], "60");
        let tag = |name: &str| series["tags"][name].as_str().unwrap().to_owned();
        for point in series["values"].as_array().unwrap() {
            let number = |place: usize| point[place].as_f64().unwrap();
            let value = (point[1].as_u64().unwrap(), number(2), number(3), number(4));
            intervals.insert((tag("host"), tag("label"), point[0].as_u64().unwrap()), value);
        }
    }
    intervals
}

/// What a VictoriaMetrics has, and how many points that is: it may have an interval twice.
fn in_victoria_metrics(peer: &Peer) -> (Intervals, usize) {
    fetch(&peer.at("/internal/force_flush"));
    let text = fetch(&peer.at("/api/v1/export?match[]={__name__=~%22lizm_.*%22}")).unwrap_or_default();
    let (mut intervals, mut points) = (Intervals::new(), 0);
    for line in text.lines() {
        let series: Value = serde_json::from_str(line).unwrap();
        let tag = |name: &str| series["metric"][name].as_str().unwrap().to_owned();
        let times = series["timestamps"].as_array().unwrap();
        for (ms, value) in times.iter().zip(series["values"].as_array().unwrap()) {
            let interval = intervals.entry((tag("host"), tag("label"), ms.as_u64().unwrap() / 1000)).or_default();
            let value = value.as_f64().unwrap();
            match tag("__name__").as_str() {
                "lizm_count" => {
                    interval.0 = value as u64;
                    points += 1;
                }
                "lizm_sum" => interval.1 = value,
                "lizm_min" => interval.2 = value,
                _ => interval.3 = value,
            }
        }
    }
    (intervals, points)
}

#[test]
#[ignore = "needs influxdb"]
fn influxdb_has_what_has_closed_and_what_came_late_though_it_was_away() {
    let (peer, directory) = (Peer::influxdb(), tempfile::tempdir().unwrap());
    let url = peer.at("/write?db=x&u=me&p=5eCr3t");
    let start = || {
        let store = directory.path().to_str().unwrap();
        Served::start(&["--store", store, "--archive", &url, "--archive-after", "0s"])
    };
    let receiver = start();
    assert!(receiver.process.line_with("Archive is ").contains("&p=***"), "no password is shown");
    for number in 0..200 {
        for host in HOSTS {
            post(&receiver, host, minute(40) + 7 * number, number);
        }
    }
    await_same("InfluxDB", || kept(&receiver, &HOSTS), || in_influxdb(&peer));
    post(&receiver, HOSTS[1], minute(30) + 5, 1000);
    await_same("InfluxDB, late", || kept(&receiver, &HOSTS), || in_influxdb(&peer));
    assert_eq!(
        (metric(&receiver, "lizm_archive_refused_total"), metric(&receiver, "lizm_archive_skipped_total")),
        (0, 0)
    );
    // What comes while the receiver is killed is of the next one; so is what came late before.
    for kill in 0..kills(3) {
        post(&receiver, HOSTS[0], minute(35) + kill, 2000 + kill);
        post(&receiver, HOSTS[1], minute(3), 2000 + kill);
    }
    receiver.process.kill();
    let receiver = start();
    await_same("InfluxDB after a kill", || kept(&receiver, &HOSTS), || in_influxdb(&peer));
}

#[test]
#[ignore = "needs victoria-metrics"]
fn victoriametrics_has_each_interval_once_and_late_changes_are_counted() {
    let peer = Peer::victoria_metrics();
    let receiver = Served::start(&["--archive", &peer.at("/write?db=x&archive=append"), "--archive-after", "1s"]);
    let begun = minute(20);
    (0..60).for_each(|number| post(&receiver, HOSTS[1], begun + 9 * number, number));
    let hosts = [HOSTS[1]];
    await_same("VictoriaMetrics", || kept(&receiver, &hosts), || in_victoria_metrics(&peer).0);
    let expected = kept(&receiver, &hosts);
    post(&receiver, HOSTS[1], begun + 61, 1000);
    assert!(kept(&receiver, &hosts) != expected);
    // The next minute is sent, and the late change is not.
    (61..80).for_each(|number| post(&receiver, HOSTS[1], begun + 9 * number, number));
    await_some("the change to be skipped", || (metric(&receiver, "lizm_archive_skipped_total") > 0).then_some(()));
    let more = || {
        let changed = |key: &(String, String, u64)| key.2 == begun + 60;
        let kept = kept(&receiver, &hosts).into_iter().filter(|(key, _)| !changed(key));
        kept.chain(expected.clone().into_iter().filter(|(key, _)| changed(key))).collect::<Intervals>()
    };
    await_same("VictoriaMetrics, later", more, || in_victoria_metrics(&peer).0);
    let (intervals, points) = in_victoria_metrics(&peer);
    assert_eq!(points, intervals.len(), "none is there twice");
}

/// What a server of `_bulk` has, by index and id.
#[derive(Default)]
struct Documents {
    documents: BTreeMap<(String, String), (u64, Value)>,
    template: Option<Value>,
    requests: u64,
    items: u64,
    /// How many items were refused for good.
    refused: u64,
}

impl Documents {
    /// Carries out a request of `_bulk`, and gives its answer: of every few items one is told to come again, and those of the
    /// label `bad` are wrong.
    fn carry_out(&mut self, body: &str) -> String {
        assert!(body.ends_with('\n'), "the last line has no end");
        let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let (mut items, mut errors) = (Vec::new(), false);
        for [action, document] in lines.as_chunks().0 {
            self.items += 1;
            let action = &action["index"];
            assert_eq!(action["version_type"], "external");
            let text = |name: &str| action[name].as_str().unwrap().to_owned();
            let (key, version) = ((text("_index"), text("_id")), action["version"].as_u64().unwrap());
            let known = self.documents.get(&key).map(|(version, _)| *version);
            let status = match document["label"].as_str().unwrap() {
                "bad" => 400,
                _ if self.items.is_multiple_of(7) => 429,
                _ if known.is_some_and(|known| known >= version) => 409,
                _ => 201,
            };
            self.refused += u64::from(status == 400);
            let mut item = json!({ "status": status });
            if status >= 400 {
                errors = true;
                item["error"] = json!({ "type": "an_exception", "reason": format!("status {status}") });
            } else {
                self.documents.insert(key, (version, document.clone()));
            }
            items.push(json!({ "index": item }));
        }
        json!({ "took": 3, "errors": errors, "items": items }).to_string()
    }

    fn intervals(&self) -> Intervals {
        let interval = |((index, id), (version, document)): (&(String, String), &(u64, Value))| {
            let text = |name: &str| document[name].as_str().unwrap().to_owned();
            let number = |name: &str| document[name].as_f64().unwrap();
            let start = document["@timestamp"].as_u64().unwrap() / 1000;
            assert_eq!((document["interval"].as_u64(), document["count"].as_u64()), (Some(60), Some(*version)));
            assert!(index.starts_with("lizm-20") && id.starts_with(&format!("60/{start}/")), "{index} {id}");
            assert_eq!(number("mean"), number("sum") / *version as f64);
            ((text("host"), text("label"), start), (*version, number("sum"), number("min"), number("max")))
        };
        self.documents.iter().map(interval).collect()
    }
}

/// A server of `_bulk`. Each few requests one is told to come again, one is carried out and not answered, and one is not
/// carried out and not answered.
fn play_bulk() -> (SocketAddr, Arc<Mutex<Documents>>) {
    let documents = Arc::new(Mutex::new(Documents::default()));
    let held = documents.clone();
    let address = play_receiver(move |request: &Heard| {
        let mut documents = held.lock().unwrap();
        if request.path == "/_index_template/lizm" {
            documents.template = Some(request.body.clone());
            return Treatment::Text(r#"{"acknowledged":true}"#.to_owned());
        }
        if request.path.contains("/_search") {
            let hit = |((index, id), (version, document)): (&(String, String), &(u64, Value))| json!({ "_index": index, "_id": id, "_version": version, "_source": document });
            let hits: Vec<Value> = documents.documents.iter().map(hit).collect();
            return Treatment::Text(json!({ "hits": { "hits": hits } }).to_string());
        }
        assert!(request.path.starts_with("/_bulk?filter_path="), "{}", request.path);
        documents.requests += 1;
        let mut body = String::new();
        GzDecoder::new(&request.bytes[..]).read_to_string(&mut body).expect("gzip");
        match documents.requests % 6 {
            1 => Treatment::AnswerAndClose("429 Too Many Requests\r\nRetry-After: 0\r\nConnection: close"),
            3 => Treatment::Drop,
            5 => {
                documents.carry_out(&body);
                Treatment::Drop
            }
            _ => Treatment::Text(documents.carry_out(&body)),
        }
    });
    (address, documents)
}

/// What a client of Python finds.
fn found(client: [&str; 2], url: &str) -> Intervals {
    let script = r#"
import importlib, json, sys
client = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(sys.argv[3])
hits = client.search(index="lizm-*", size=10000, version=True)["hits"]["hits"]
print(json.dumps([[hit["_index"], hit["_id"], hit["_version"], hit["_source"]] for hit in hits]))
"#;
    let mut python = Command::new(python_program("python"));
    let output = python.args(["-c", script, client[0], client[1], url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let hits: Vec<(String, String, u64, Value)> = serde_json::from_slice(&output.stdout).unwrap();
    let documents = hits.into_iter().map(|(index, id, version, document)| ((index, id), (version, document)));
    Documents { documents: documents.collect(), ..Documents::default() }.intervals()
}

#[test]
#[ignore = "needs elasticsearch, opensearch-py and osmem-server from PyPI"]
fn the_official_clients_find_what_was_sent_and_what_came_late() {
    // It poses as OpenSearch, here without its dictionary, which takes long to read.
    let mut command = Command::new(python_program("python"));
    let script =
        "import os, osmem_server as o; os.execv(o.resolve_binary(), ['osmem-server', '-no-ja', '-no-stdin-watch'])";
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let osmem = Process::start(command);
    let line: Value = serde_json::from_str(&osmem.line_with("\"url\"")).unwrap();
    let opensearch = line["url"].as_str().unwrap().to_owned();
    let elasticsearch = format!("http://{}", play_bulk().0);
    for (client, url) in
        [(["opensearchpy", "OpenSearch"], opensearch), (["elasticsearch", "Elasticsearch"], elasticsearch)]
    {
        let archive = format!("elasticsearch{}/lizm", url.strip_prefix("http").unwrap());
        let receiver = Served::start(&["--archive", &archive, "--archive-after", "0s"]);
        for number in 0..40 {
            post(&receiver, HOSTS[(number % 2) as usize], minute(20) + 13 * number, number);
        }
        await_same(client[1], || kept(&receiver, &HOSTS), || found(client, &url));
        post(&receiver, HOSTS[0], minute(18), 1000);
        await_same(client[1], || kept(&receiver, &HOSTS), || found(client, &url));
    }
}

#[test]
fn killed_at_random_each_interval_is_in_the_index_once() {
    let (directory, (address, documents)) = (tempfile::tempdir().unwrap(), play_bulk());
    let start = || {
        let store = directory.path().to_str().unwrap();
        let url = format!("elasticsearch://{address}/lizm");
        Served::start(&["--store", store, "--archive", &url, "--archive-after", "0s"])
    };
    let (kills, mut number) = (kills(6), 0);
    let mut receiver = start();
    for kill in 0..kills {
        for sample in 0..40 {
            number += 1;
            let host = HOSTS[usize::from(number % 3 == 0)];
            // A third is late, for any minute of the hour before.
            let epoch = match sample % 3 {
                0 => minute(60) + number * 7919 % 3000,
                _ => minute(81) + kill % 20 * 60 + sample,
            };
            post(&receiver, host, epoch, number);
        }
        thread::sleep(Duration::from_millis(20 + kill * 7919 % 3000));
        receiver.process.kill();
        receiver = start();
    }
    await_same("the index", || kept(&receiver, &HOSTS), || documents.lock().unwrap().intervals());
    let documents = documents.lock().unwrap();
    assert_eq!(documents.template.as_ref().unwrap()["index_patterns"], json!(["lizm-*"]));
    let (requests, items, intervals) = (documents.requests, documents.items, documents.documents.len());
    println!("{kills} kills: {intervals} intervals by {requests} requests of {items} items");
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn of_two_receivers_that_are_killed_in_turns_one_sends_each_interval() {
    let (redis, (address, documents)) = (crate::servers::Redis::start(&[]), play_bulk());
    let url = format!("elasticsearch://{address}/lizm");
    let start = || Served::start(&["--store", &redis.url(), "--archive", &url, "--archive-after", "0s"]);
    let mut receivers = [start(), start()];
    let (kills, mut number) = (kills(4), 0);
    for kill in 0..kills {
        for sample in 0..40 {
            number += 1;
            // A third is late.
            let epoch = match sample % 3 {
                0 => minute(30) + number * 7919 % 1200,
                _ => minute(30) + kill % 20 * 60 + sample,
            };
            post(&receivers[(number % 2) as usize], HOSTS[(number % 2) as usize], epoch, number);
        }
        thread::sleep(Duration::from_millis(20 + kill * 7919 % 3000));
        std::mem::replace(&mut receivers[(kill % 2) as usize], start()).process.kill();
        // Its lease ends.
        let leases = redis.ask(&["KEYS", "lizm:{alerts}:archive-*"]);
        for lease in leases.lines().filter(|line| line.starts_with("lizm:")) {
            redis.ask(&["DEL", lease]);
        }
    }
    await_same("the index", || kept(&receivers[0], &HOSTS), || documents.lock().unwrap().intervals());
    let documents = documents.lock().unwrap();
    let (requests, items, intervals) = (documents.requests, documents.items, documents.documents.len());
    println!("{kills} kills: {intervals} intervals by {requests} requests of {items} items");
}

#[test]
fn what_an_index_refuses_is_counted_and_holds_nothing_up() {
    let (address, documents) = play_bulk();
    let url = format!("elasticsearch://me:5eCr3t@{address}/lizm");
    let receiver = Served::start(&["--archive", &url, "--archive-after", "0s"]);
    assert!(receiver.process.line_with("Archive is ").contains("//me:***@"), "no password is shown");
    for number in 0..12 {
        post(&receiver, HOSTS[0], minute(20) + 60 * number, number);
        let path = format!("/api/perf/{}/{}", HOSTS[0], minute(20) + 60 * number);
        assert_eq!(receiver.post(&path, r#"{"bad": 1}"#).0, 200);
    }
    let good = |intervals: Intervals| intervals.into_iter().filter(|(key, _)| key.1 != "bad").collect();
    let kept = || good(kept(&receiver, &HOSTS));
    await_same("the index", kept, || documents.lock().unwrap().intervals());
    await_some("all to be refused", || (metric(&receiver, "lizm_archive_refused_total") >= 12).then_some(()));
    let line = receiver.process.line_with("does not take");
    assert!(line.starts_with("WARNING: Archive elasticsearch://me:***@") && line.ends_with("status 400"), "{line}");
    await_some("nothing to be due", || (metric(&receiver, "lizm_archive_behind_seconds") == 0).then_some(()));
    assert!(documents.lock().unwrap().refused >= 12);
    let (status, log) = receiver.process.stop(Signal::SIGTERM);
    assert!(status.success() && log.iter().all(|line| !line.contains("5eCr3t")), "{log:?}");
}

#[test]
fn an_archive_that_is_away_is_said_to_be_and_gets_all_when_it_is_back() {
    let address = crate::harness::reserved_address();
    let url = format!("http://me:5eCr3t@{address}/write?db=x");
    let receiver = Served::start(&["--archive", &url, "--archive-after", "0s"]);
    post(&receiver, HOSTS[0], minute(5), 1);
    let line = receiver.process.line_with("Archive failed");
    assert!(
        line.starts_with(&format!("ERROR: Archive failed to http://me:***@{address}/write?db=x, details: ")),
        "{line}"
    );
    // Nothing older waits, though an hour is kept.
    assert!((240..3000).contains(&metric(&receiver, "lizm_archive_behind_seconds")));
    let lines = Arc::new(Mutex::new(String::new()));
    let heard = lines.clone();
    crate::harness::play_receiver_at(address, move |request| {
        assert_eq!(request.path, "/write?db=x&precision=s");
        GzDecoder::new(&request.bytes[..]).read_to_string(&mut heard.lock().unwrap()).unwrap();
        Treatment::Answer("204 No Content")
    });
    let line = receiver.process.line_with("Archive is successful again");
    assert!(line.contains(" failures in "), "{line}");
    let start = minute(6);
    let mut expected = String::new();
    for (label, sum) in [("cpu", "0.125"), ("disk\\ /var\\ \"ü\"", "2.125"), ("net.rx\\,if\\=eth0", "1.125")] {
        let tags = format!("lizm,host=jarvis,label={label},interval=60");
        let _ = writeln!(expected, "{tags} count=1i,sum={sum},min={sum},max={sum} {start}");
    }
    await_some("the lines", || (!lines.lock().unwrap().is_empty()).then_some(()));
    assert_eq!(*lines.lock().unwrap(), expected);
}

#[test]
fn a_wrong_archive_is_refused_and_no_secret_is_shown() {
    for (url, why) in [
        ("http://me:5eCr3t@h/write", "names no database"),
        ("http://me:5eCr3t@h/?db=x", "does not end with /write"),
        ("elasticsearch://me:5eCr3t@h/", "the name of the indices"),
        ("riak://me:5eCr3t@h/x", "an archive begins with"),
        ("5eCr3t@h", "not a URL"),
    ] {
        let output = lizm(&["receiver", "--port", "0", "--archive", url]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("option --archive: ") && stderr.contains(why), "{stderr}");
        assert!(!stderr.contains("5eCr3t"), "{stderr}");
    }
    let twice = ["receiver", "--archive", "http://h/write?db=x", "--archive", "http://h/write?db=x"];
    let output = lizm(&twice).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("one archive is given twice"));
}
