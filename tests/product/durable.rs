//! The store in a directory: nothing lost, nothing counted twice, whatever ends the process or damages the files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Process, Served, agent, answer, await_some, lizm, now};

fn store_in(path: &Path) -> Served {
    Served::start(&["--store", path.to_str().unwrap()])
}

/// The same by each HTTP server in its turn: a thread of tiny_http waits for the journal, the loop of the other does not.
fn store_in_by_turns(path: &Path, turn: u64) -> Served {
    let server = if turn.is_multiple_of(2) { "builtin" } else { "tiny_http" };
    Served::start(&["--store", path.to_str().unwrap(), "--http-server", server])
}

/// Starts a receiver that is to fail. Returns its exit code and what it printed.
fn refused_start(path: &Path) -> (Option<i32>, String) {
    let output =
        lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1", "--store", path.to_str().unwrap()]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// All that a receiver answers of its hosts, without what depends on the time of the request.
fn everything(receiver: &Served) -> Value {
    let (_, mut hosts) = receiver.get("/api/hosts");
    let mut all = serde_json::Map::new();
    for host in hosts["hosts"].as_array_mut().unwrap() {
        let name = host["host"].as_str().unwrap().to_owned();
        let mut summaries = receiver.get(&format!("/api/perf/{name}")).1;
        for summary in summaries.as_object_mut().unwrap().values_mut() {
            summary.as_object_mut().unwrap().retain(|key, _| key == "averages");
        }
        host.as_object_mut().unwrap().retain(|key, _| key != "age-sec" && key != "state");
        all.insert(name, json!({ "status": host, "summaries": summaries }));
    }
    all.into()
}

/// Copies a directory and what is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/by/lizm");
    let at = now() / 60 * 60 - 60;
    let mut before = Value::Null;
    for (start, ending) in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        let receiver = store_in(&path);
        if start > 0 {
            assert_eq!(everything(&receiver), before, "start {start}");
            let again = receiver.post_once(&format!("/api/perf/a/{at}"), "s1-7", "{\"cpu\":1}");
            assert_eq!(again, (200, json!({"stored": 0, "duplicate": true})));
        }
        let hour = at - 3600 * start as u64;
        assert_eq!(receiver.post(&format!("/api/perf/b/{hour}"), "{\"cpu\":2.5,\"mem/x\":\"7\"}").1["stored"], 2);
        assert_eq!(receiver.post(&format!("/api/perf/gone/{hour}"), "{\"cpu\":2.5}").1["stored"], 1);
        if start == 0 {
            assert_eq!(receiver.post_once(&format!("/api/perf/a/{at}"), "s1-7", "{\"cpu\":1}").1["stored"], 1);
        }
        assert_eq!(receiver.delete("/api/perf/gone").0, 200);
        before = everything(&receiver);
        assert_eq!(before.as_object().unwrap().len(), 2);
        let _ = receiver.process.stop(ending);
    }
}

#[test]
fn a_backup_that_is_taken_under_load_is_restored_without_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (path, target) = (dir.path().join("store"), dir.path().join("backup"));
    let [from, to] = [&path, &target].map(|path| path.to_str().unwrap());
    let (receiver, at) = (store_in(&path), now() / 60 * 60 - 60);
    let post = |address: SocketAddr, client: usize, seq: u64| {
        let request = agent().post(format!("http://{address}/api/perf/h{client}/{at}"));
        let answer = answer(request.header("Idempotency-Key", format!("c{client}-{seq}")).send("{\"cpu\":1}"));
        assert_eq!(answer.0, 200, "{answer:?}");
        answer.1["stored"].as_u64().unwrap()
    };
    // The ledger: how many samples of each client were answered with 200.
    let ledger: [AtomicU64; 4] = Default::default();
    let sent = || ledger.iter().map(|sent| sent.load(Ordering::SeqCst)).collect::<Vec<_>>();
    let is_done = AtomicBool::new(false);
    let before = thread::scope(|scope| {
        for (client, sent) in ledger.iter().enumerate() {
            let (address, is_done) = (receiver.address, &is_done);
            scope.spawn(move || {
                while !is_done.load(Ordering::SeqCst) {
                    let seq = sent.load(Ordering::SeqCst) + 1;
                    assert_eq!(post(address, client, seq), 1);
                    sent.store(seq, Ordering::SeqCst);
                }
            });
        }
        await_some("some samples of each client", || sent().iter().all(|sent| *sent >= 50).then_some(()));
        let before = sent();
        let output = lizm(&["backup", from, to]).output().unwrap();
        is_done.store(true, Ordering::SeqCst);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && said.contains("4 hosts and 4 series, up to batch "), "{said}");
        before
    });
    receiver.process.kill();
    let after = sent();
    let restored = store_in(&target);
    for client in 0..ledger.len() {
        let held = restored.samples(&format!("h{client}"), "cpu");
        assert!((before[client]..=after[client]).contains(&held), "{held} of {} to {}", before[client], after[client]);
        // All of the ledger once more: what the backup has is known, and nothing else is.
        let stored: u64 = (1..=after[client]).map(|seq| post(restored.address, client, seq)).sum();
        assert_eq!(held + stored, after[client]);
        assert_eq!(restored.samples(&format!("h{client}"), "cpu"), after[client]);
    }
    // A target that is there is left alone.
    let output = lizm(&["backup", from, to]).output().unwrap();
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("exists already"));
}

#[test]
fn every_batch_can_be_on_the_device_before_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Served::start(&["--store", dir.path().to_str().unwrap(), "--fsync", "always"]);
    let noted = || fs::read_to_string(dir.path().join("durable")).map_or(0, |note| note.trim().parse::<u64>().unwrap());
    for batch in 1..=20 {
        // A disk that is busy with others may take longer than a post waits.
        await_some("a post to be on the device", || {
            (receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").0 == 200).then_some(())
        });
        assert!(noted() >= batch, "{} noted, {batch} answered", noted());
    }
}

#[test]
fn a_directory_is_one_process_and_one_format() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = store_in(dir.path());
    let (code, said) = refused_start(dir.path());
    assert!(code == Some(1) && said.contains("held by another process"), "{said}");
    drop(receiver);

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (code, said) = refused_start(&file);
    assert!(code == Some(2) && said.contains("is a file"), "{said}");
}

/// One sample of a ledger: posted until it is acknowledged, under a key of its own.
pub(crate) struct Writer {
    host: String,
    address: Arc<Mutex<SocketAddr>>,
    connection: Option<BufReader<TcpStream>>,
    written: BTreeMap<u64, u64>,
}

impl Writer {
    fn write(&mut self, seq: u64, epoch: u64, patience: &AtomicBool) {
        while !patience.load(Ordering::Relaxed) {
            match self.attempt(seq, epoch) {
                Some(200) => {
                    *self.written.entry((epoch - 1) / 60 * 60).or_default() += 1;
                    return;
                }
                // Of a proxy, 502 and 504 say that a receiver behind it may have taken the sample.
                Some(502..=504) => thread::sleep(Duration::from_millis(5)),
                Some(status) => panic!("HTTP {status}"),
                None => {
                    self.connection = None;
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// One attempt; `None` where no answer came.
    fn attempt(&mut self, seq: u64, epoch: u64) -> Option<u16> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(*self.address.lock().unwrap()).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.set_nodelay(true).unwrap();
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut()?;
        let request = format!(
            "POST /api/perf/{}/{epoch} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: w-{seq}\r\nContent-Length: 18\r\n\r\n{{\"cpu\":1, \"mem\":2}}",
            self.host
        );
        connection.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).ok()? == 0 {
                return None;
            }
            status = status.or_else(|| line.split(' ').nth(1)?.parse().ok());
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        connection.read_exact(&mut vec![0; length]).ok()?;
        status
    }
}

/// Starts writers, each with a ledger of its own, until `stop`.
pub(crate) fn start_writers(
    count: usize,
    address: &Arc<Mutex<SocketAddr>>,
    stop: &Arc<AtomicBool>,
) -> Vec<thread::JoinHandle<Writer>> {
    start_writers_at(count, address, stop, |base, seq| base + seq * 7 % 2300)
}

/// Starts writers whose samples have the epochs that `epoch` gives, by the start of the last 40 minutes and their number.
fn start_writers_at(
    count: usize,
    address: &Arc<Mutex<SocketAddr>>,
    stop: &Arc<AtomicBool>,
    epoch: fn(u64, u64) -> u64,
) -> Vec<thread::JoinHandle<Writer>> {
    let base = now() / 60 * 60 - 2400;
    (0..count)
        .map(|writer| {
            let (address, stop) = (address.clone(), stop.clone());
            thread::spawn(move || {
                let host = format!("host-{writer}");
                let mut writer = Writer { host, address, connection: None, written: BTreeMap::new() };
                for seq in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // An acknowledgement may be what the end comes between, so the last one is waited for.
                    writer.write(seq, epoch(base, seq), &AtomicBool::new(false));
                }
                writer
            })
        })
        .collect()
}

/// Compares the summaries of each writer's host with its ledger: nothing lost, nothing counted twice.
pub(crate) fn compare(receiver: &Served, writers: &[Writer]) -> u64 {
    let mut total = 0;
    for writer in writers {
        let (_, answer) = receiver.get(&format!("/api/perf/{}/by-minute", writer.host));
        for label in ["cpu", "mem"] {
            let averages = &answer[format!("summary:by-minute:{label}")]["averages"];
            let averages = averages.as_array().unwrap_or_else(|| panic!("{answer}"));
            let counted =
                averages.iter().map(|a| (a["start-sec"].as_u64().unwrap(), a["num-samples"].as_u64().unwrap()));
            assert_eq!(counted.collect::<BTreeMap<_, _>>(), writer.written, "{} {label}", writer.host);
        }
        total += writer.written.values().sum::<u64>();
    }
    total
}

/// How many times a receiver is killed: more in `make kills`.
pub(crate) fn kills(usual: u64) -> u64 {
    std::env::var("LIZM_TEST_KILLS").map_or(usual, |kills| kills.parse().unwrap())
}

#[test]
fn killed_at_random_it_loses_nothing_and_counts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = store_in_by_turns(dir.path(), 1);
    let address = Arc::new(Mutex::new(receiver.address));
    let stop = Arc::new(AtomicBool::new(false));
    let writers = start_writers(4, &address, &stop);
    for kill in 0..kills(20) {
        // A moment that differs from kill to kill.
        thread::sleep(Duration::from_millis(20 + kill * 7919 % 180));
        receiver.process.kill();
        receiver = store_in_by_turns(dir.path(), kill);
        *address.lock().unwrap() = receiver.address;
    }
    stop.store(true, Ordering::Relaxed);
    let writers: Vec<Writer> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let total = compare(&receiver, &writers);
    println!("{total} samples in the ledger, 0 lost, 0 doubled, {} kills", kills(20));
    receiver.process.kill();
    compare(&store_in(dir.path()), &writers);
}

/// What is kept, longer than memory holds it, and keys that last as long.
const HISTORY: [&str; 4] = ["--keep", "1m:1d,1h:90d,1d:2y", "--retry-horizon", "366d"];

/// Compares what is kept of each writer's host by hour and by day, in memory and on disk, with its ledger.
fn compare_history(receiver: &Served, writers: &[Writer]) {
    let at = now();
    for writer in writers {
        for (from, by, interval_sec) in
            [(86_000, "minute", 60), (89 * 86_400, "hour", 3600), (700 * 86_400, "day", 86_400)]
        {
            let first = (at - from).next_multiple_of(interval_sec);
            let mut expected = BTreeMap::<u64, u64>::new();
            for (minute, count) in writer.written.range(first..) {
                *expected.entry(minute / interval_sec * interval_sec).or_default() += count;
            }
            let path = format!("/api/perf/{}?from={first}&by={by}&limit=11000", writer.host);
            let (_, answer) = receiver.get(&path);
            for label in ["cpu", "mem"] {
                let averages = &answer[format!("summary:by-{by}:{label}")]["averages"];
                let averages = averages.as_array().unwrap_or_else(|| panic!("{path}: {answer}"));
                let counted = averages
                    .iter()
                    .map(|a| (a["start-sec"].as_u64().unwrap(), a["num-samples"].as_u64().unwrap()))
                    .collect::<BTreeMap<_, _>>();
                assert_eq!(counted, expected, "{} {label} by {by}", writer.host);
            }
        }
    }
}

#[test]
fn killed_at_random_while_a_third_of_the_samples_is_late_it_loses_nothing_and_counts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    kill_while_samples_are_late(dir.path().to_str().unwrap());
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn on_redis_killed_at_random_while_a_third_of_the_samples_is_late_it_loses_nothing_and_counts_nothing_twice() {
    let redis = crate::servers::Redis::start(&[]);
    kill_while_samples_are_late(&redis.url());
}

fn kill_while_samples_are_late(store: &str) {
    let start = || Served::start(&[&["--store", store], &HISTORY[..]].concat());
    let mut receiver = start();
    let address = Arc::new(Mutex::new(receiver.address));
    let stop = Arc::new(AtomicBool::new(false));
    let writers = start_writers_at(4, &address, &stop, |base, seq| {
        let late_hours = [0, 0, 2, 0, 0, 7, 0, 0, 20, 0, 0, 50, 0, 0, 24 * 30, 0, 0, 24 * 100, 0, 0, 24 * 300];
        base + seq * 7 % 2300 - 3600 * late_hours[(seq % 21) as usize]
    });
    for kill in 0..kills(20) {
        // The first checkpoint of each start moves the late samples of the log to the disk.
        thread::sleep(Duration::from_millis(20 + kill * 7919 % 180));
        receiver.process.kill();
        receiver = start();
        *address.lock().unwrap() = receiver.address;
    }
    stop.store(true, Ordering::Relaxed);
    let writers: Vec<Writer> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    compare_history(&receiver, &writers);
    let total: u64 = writers.iter().flat_map(|writer| writer.written.values()).sum();
    println!("{total} samples in the ledger, a third of them late, 0 lost, 0 doubled, {} kills", kills(20));
    receiver.process.kill();
    compare_history(&start(), &writers);
}

#[test]
fn stopped_under_load_twenty_times_it_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = store_in(dir.path());
    let address = Arc::new(Mutex::new(receiver.address));
    let stop = Arc::new(AtomicBool::new(false));
    let writers = start_writers(4, &address, &stop);
    for round in 0..20 {
        thread::sleep(Duration::from_millis(50));
        let (status, lines) = receiver.process.stop(Signal::SIGTERM);
        assert!(status.success(), "round {round}: {lines:?}");
        receiver = store_in_by_turns(dir.path(), round);
        *address.lock().unwrap() = receiver.address;
    }
    stop.store(true, Ordering::Relaxed);
    let writers: Vec<Writer> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    compare(&receiver, &writers);
}

/// A proxy that forwards requests and drops one in ten of the answers.
fn lossy_proxy(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let eaten = Arc::new(AtomicU64::new(0));
    let counter = eaten.clone();
    let answers = Arc::new(AtomicU64::new(0));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
            let (eaten, answers) = (counter.clone(), answers.clone());
            let (mut requests, mut upstream) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut requests, &mut upstream);
                let _ = upstream.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                let (mut server, mut client) = (server, client);
                let mut buffer = [0; 4096];
                // The writers wait for each answer, and an answer of the receiver is one segment.
                while let Ok(length) = server.read(&mut buffer) {
                    if length == 0 || answers.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
                        eaten.fetch_add(u64::from(length > 0), Ordering::Relaxed);
                        let _ = client.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                    if client.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, eaten)
}

#[test]
fn an_answer_that_is_lost_counts_once() {
    let receiver = Served::start(&[]);
    let (proxy, eaten) = lossy_proxy(receiver.address);
    let address = Arc::new(Mutex::new(proxy));
    let base = now() / 60 * 60 - 2400;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let address = address.clone();
            thread::spawn(move || {
                let host = format!("host-{writer}");
                let mut writer = Writer { host, address, connection: None, written: BTreeMap::new() };
                (1..=5000).for_each(|seq| writer.write(seq, base + seq * 7 % 2300, &AtomicBool::new(false)));
                writer
            })
        })
        .collect();
    let writers: Vec<Writer> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    assert_eq!(compare(&receiver, &writers), 20_000);
    assert!(eaten.load(Ordering::Relaxed) > 2000, "the proxy ate {}", eaten.load(Ordering::Relaxed));
}

/// The files of a store, with their sizes up to the zeros that fjall writes ahead.
fn files(path: &Path, into: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), into);
        } else if let Some(last) = fs::read(entry.path()).unwrap().iter().rposition(|byte| *byte != 0) {
            into.push((entry.path(), last as u64 + 1));
        }
    }
}

/// Starts on a damaged copy: it refuses, or says what is missing, or has everything.
fn start_damaged(path: &Path, whole: &Value, damage: &str) -> &'static str {
    let process =
        Process::start(lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1", "--store", path.to_str().unwrap()]));
    let mut said = false;
    let first = loop {
        match process.line_or_end() {
            Some(line) if line.contains("Receiver is listening") => break line,
            Some(line) => said |= line.starts_with("ERROR: Store ") && line.contains("is damaged"),
            None => {
                let (status, lines) = process.end();
                assert_eq!(status.code(), Some(1), "{damage}: {lines:?}");
                return "refused";
            }
        }
    };
    if said {
        return "said";
    }
    let receiver = Served { address: first.rsplit("http://").next().unwrap().parse().unwrap(), process };
    assert_eq!(&everything(&receiver), whole, "{damage}: wrong, and nothing said");
    "whole"
}

#[test]
#[ignore = "takes a minute or more"]
fn no_damage_makes_a_wrong_average_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    let receiver = store_in(&original);
    let at = now() / 60 * 60 - 60;
    // Two checkpoints' worth: a part of it is in series, a part in the log.
    for round in 0..2 {
        for sample in 0..200 {
            let path = format!("/api/perf/host-{}/{}", sample % 5, at - 60 * (sample % 30) - 3600 * (sample % 7));
            assert_eq!(receiver.post(&path, &format!("{{\"cpu\":{sample},\"mem\":{round}}}")).0, 200);
        }
        if round == 0 {
            let state = original.join("fjall");
            let before = fs::read_dir(&state).unwrap().count();
            assert!(before > 0);
            thread::sleep(Duration::from_secs(32));
        }
    }
    let whole = everything(&receiver);
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
    let mut all = Vec::new();
    files(&original.join("fjall"), &mut all);
    all.sort();
    let bytes: u64 = all.iter().map(|(_, size)| size).sum();
    let mut seen = BTreeMap::<&str, u32>::new();
    let copy_of = dir.path().join("copy");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for trial in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of the places anywhere, which is mostly in the journal, half in each file as often as in any other.
        let (mut place, mut file) = ((random >> 20) % bytes, 0);
        if trial % 4 < 2 {
            file = (random >> 40) as usize % all.len();
            place %= all[file].1;
        } else {
            while place >= all[file].1 {
                place -= all[file].1;
                file += 1;
            }
        }
        fs::remove_dir_all(&copy_of)
            .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .unwrap();
        copy(&original, &copy_of);
        let target = copy_of.join(all[file].0.strip_prefix(&original).unwrap());
        let mut content = fs::read(&target).unwrap();
        let damage = if trial % 2 == 0 {
            content.truncate(usize::try_from(place).unwrap());
            format!("{} cut at {place}", target.display())
        } else {
            content[usize::try_from(place).unwrap()] ^= 1 << (random >> 61);
            format!("bit {} of byte {place} of {}", random >> 61, target.display())
        };
        fs::write(&target, content).unwrap();
        *seen.entry(start_damaged(&copy_of, &whole, &damage)).or_default() += 1;
    }
    println!("{seen:?}");
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_disk_refuses_and_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::mount(&["-t", "tmpfs", "-o", "size=100m", "tmpfs"], &dir.path().join("mounted"));
    let (store, ballast) = (mounted.0.join("store"), mounted.0.join("ballast"));
    let receiver = store_in(&store);
    let labels: Vec<String> =
        (0..256).map(|label| format!("\"a rather long label, to fill the disk {label}\":1")).collect();
    let body = format!("{{{}}}", labels.join(","));
    assert_eq!(receiver.post(&format!("/api/perf/first/{}", now()), "{\"cpu\":1}").0, 200);
    fs::write(&ballast, vec![0; 20 << 20]).unwrap();
    let refused = (0..100_000).find_map(|sample| {
        let (status, answer) = receiver.post(&format!("/api/perf/h{}/{}", sample % 10, now()), &body);
        (status != 200).then_some((status, answer))
    });
    let (status, answer) = refused.unwrap();
    assert!(status == 503 && answer["error"].as_str().unwrap().starts_with("store: "), "{answer}");
    assert!(!receiver.get("/api/perf/first").1.as_object().unwrap().is_empty(), "reads go on");
    assert_eq!(receiver.get("/health").0, 503);
    let before = everything(&receiver);
    fs::remove_file(&ballast).unwrap();
    await_some("the store to be opened again", || {
        (receiver.post(&format!("/api/perf/last/{}", now()), "{\"cpu\":1}").0 == 200).then_some(())
    });
    assert_eq!(receiver.get("/health").0, 200);
    receiver.process.kill();
    let mut after = everything(&store_in(&store));
    assert!(after.as_object_mut().unwrap().remove("last").is_some());
    assert_eq!(after, before, "what was answered 503 is not there, all else is");
}

/// A mounted file system, which is unmounted when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(arguments: &[&str], path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        run("mount", &[arguments, &[path.to_str().unwrap()]].concat());
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file system that answers no writes, until this is dropped. Before that no process that writes to it can end.
struct Frozen(PathBuf);

impl Frozen {
    fn freeze(path: &Path) -> Self {
        run("fsfreeze", &["-f", path.to_str().unwrap()]);
        Self(path.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "{program} {arguments:?}");
}

/// How many samples of `cpu` are in the last hour of a host.
fn counted(receiver: &Served, host: &str) -> u64 {
    let (_, answer) = receiver.get(&format!("/api/perf/{host}/by-minute"));
    let averages = answer["summary:by-minute:cpu"]["averages"].as_array().cloned().unwrap_or_default();
    averages.iter().map(|average| average["num-samples"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "needs root, to freeze a small file system"]
fn a_frozen_disk_refuses_posts_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(200 << 20).unwrap();
    run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
    let mounted = Mounted::mount(&["-o", "loop", image.to_str().unwrap()], &dir.path().join("mounted"));
    let store = mounted.0.join("store");
    let alerts = ["--http-server", "builtin", "--alert", "busy: cpu > 90"];
    let receiver = Served::start(&[&["--store", store.to_str().unwrap()], &alerts[..]].concat());
    let at = now();
    let post = |seq: u32| receiver.post_once(&format!("/api/perf/h/{at}"), &format!("s-{seq}"), "{\"cpu\":1}");
    assert_eq!(post(1).1["stored"], 1);
    let frozen = Frozen::freeze(&mounted.0);
    // A silence is as durable as a sample.
    assert_eq!(receiver.post("/api/silences", r#"{"alerts": "busy", "on": "*", "for": "1h"}"#).0, 503);
    // Many that wait hold nobody up, and each is answered.
    let crowd = Vec::from_iter((0..300).map(|_| {
        let mut client = TcpStream::connect(receiver.address).unwrap();
        let head = format!("POST /api/perf/crowd/{at} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n");
        client.write_all((head + "{\"cpu\":1}").as_bytes()).unwrap();
        client
    }));
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
    for mut client in crowd {
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        assert_eq!(status, *b"HTTP/1.1 503");
    }
    // The first may be given to the disk, which keeps it when it answers again. The others are refused at once.
    for seq in 2..=9 {
        let (status, answer) = post(seq);
        assert!(status == 503 && answer["error"].as_str().unwrap().contains("the disk has not answered"), "{answer}");
    }
    assert_eq!((receiver.get("/health").0, counted(&receiver, "h")), (503, 1));
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
    assert_eq!(receiver.get("/api/alerts").0, 200);
    assert_eq!(receiver.delete("/api/perf/h").0, 503);
    drop(frozen);
    await_some("the disk to answer", || (receiver.get("/health").0 == 200).then_some(()));
    for seq in 2..=9 {
        assert_eq!(post(seq).0, 200);
    }
    assert_eq!(counted(&receiver, "h"), 9, "neither lost nor doubled");
    receiver.process.kill();
    assert_eq!(counted(&store_in(&mounted.0.join("store")), "h"), 9);
}

#[test]
fn a_directory_that_is_removed_is_reported_at_once_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let receiver = store_in(&path);
    let post = |host: &str| receiver.post(&format!("/api/perf/{host}/{}", now()), "{\"cpu\":1}").0;
    assert_eq!(post("first"), 200);
    // The receiver may write a file while the directory is emptied.
    await_some("the directory to be removed", || fs::remove_dir_all(&path).ok());
    assert_eq!(post("refused"), 503);
    await_some("the directory to be made again", || (post("last") == 200).then_some(()));
    let before = everything(&receiver);
    assert_eq!(before.as_object().unwrap().len(), 2);
    receiver.process.kill();
    assert_eq!(everything(&store_in(&path)), before);
}

#[test]
fn a_directory_that_another_receiver_has_made_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("store"), dir.path().join("away"));
    let first = store_in(&path);
    let post = |receiver: &Served, host: &str| receiver.post(&format!("/api/perf/{host}/{}", now()), "{\"cpu\":1}").0;
    assert_eq!(post(&first, "first"), 200);
    fs::rename(&path, &away).unwrap();
    let second = store_in(&path);
    assert_eq!((post(&second, "second"), post(&first, "refused")), (200, 503));
    await_some("the first to see the second's directory", || {
        first.get("/health").1["reason"].as_str()?.contains("belongs to another receiver").then_some(())
    });
    assert!(second.process.stop(Signal::SIGTERM).0.success());
    assert_eq!(post(&first, "refused"), 503, "nor after that has stopped");
    assert_eq!(everything(&store_in(&path)).as_object().unwrap().keys().collect::<Vec<_>>(), ["second"]);
    // Its own is taken up when it is back. Meanwhile what it holds is served.
    assert_eq!(everything(&first).as_object().unwrap().keys().collect::<Vec<_>>(), ["first"]);
    fs::rename(&path, dir.path().join("others")).unwrap();
    fs::rename(&away, &path).unwrap();
    await_some("the first to have its directory back", || (post(&first, "third") == 200).then_some(()));
    let before = everything(&first);
    first.process.kill();
    assert_eq!(everything(&store_in(&path)), before);
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_start_on_a_disk_that_cannot_be_written_serves_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::mount(&["-t", "tmpfs", "-o", "size=100m", "tmpfs"], &dir.path().join("mounted"));
    let (mount, path, ballast) = (mounted.0.to_str().unwrap(), mounted.0.join("store"), mounted.0.join("ballast"));
    let receiver = store_in(&path);
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").0, 200);
    let before = everything(&receiver);
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
    let fill = || drop(fs::File::create(&ballast).and_then(|mut file| file.write_all(&vec![1; 200 << 20])));
    let empty = || fs::remove_file(&ballast).unwrap();
    let read_only = || run("mount", &["-o", "remount,ro", mount]);
    let writable = || run("mount", &["-o", "remount,rw", mount]);
    for (spoil, mend) in [(&read_only as &dyn Fn(), &writable as &dyn Fn()), (&fill, &empty)] {
        spoil();
        let receiver = store_in(&path);
        assert_eq!(everything(&receiver), before);
        let (status, answer) = receiver.post(&format!("/api/perf/new/{}", now()), "{\"cpu\":1}");
        assert!(status == 503 && answer["error"].as_str().unwrap().starts_with("store: cannot be"), "{answer}");
        mend();
        await_some("the store to be opened", || {
            (receiver.post(&format!("/api/perf/new/{}", now()), "{\"cpu\":1}").0 == 200).then_some(())
        });
        receiver.process.kill();
        let receiver = store_in(&path);
        let mut after = everything(&receiver);
        assert!(after.as_object_mut().unwrap().remove("new").is_some());
        assert_eq!(after, before);
        assert_eq!(receiver.delete("/api/perf/new").0, 200);
        assert!(receiver.process.stop(Signal::SIGTERM).0.success());
    }
}
