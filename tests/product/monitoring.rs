//! The monitor against receivers that are well, slow, dead, and of few words.

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Heard, PATIENCE, Process, Served, Treatment, await_some, lizm, now, play_receiver, replace};

fn monitor(arguments: &[&str]) -> Process {
    Process::start(lizm(&[&["monitor", "--host", "jarvis"], arguments].concat()))
}

#[test]
fn it_publishes_what_proc_says_and_logs_as_lizmon_did() {
    let receiver = Served::start(&[]);
    let root = tempfile::tempdir().unwrap();
    let stat = include_str!("../procfs/round-numbers/stat");
    replace(&root.path().join("stat"), stat);
    replace(&root.path().join("meminfo"), include_str!("../procfs/round-numbers/meminfo"));
    let (procfs, url) = (root.path().to_str().unwrap(), receiver.url("/api/perf/"));
    let monitor = monitor(&["--probes", "cpu,mem", "--procfs", procfs, "--publish", &url]);
    let line = monitor.line();
    let epoch = line.strip_prefix(&format!("INFO: Publish was successful to {}/", receiver.url("/api/perf/jarvis")));
    assert!(epoch.expect(&line).parse::<u64>().unwrap().abs_diff(now()) <= 5);
    // Until the counters move there is no cpu to tell; then 400 ticks of 1,000 were busy.
    assert!(receiver.get("/api/perf/jarvis/cpu").1.as_object().unwrap().is_empty());
    replace(
        &root.path().join("stat"),
        &stat.replacen("cpu  74608 2520 24433 1117073 6176", "cpu  74908 2520 24533 1117573 6276", 1),
    );
    let average = |label: &str| {
        let (_, answer) = receiver.get(&format!("/api/perf/jarvis/by-hour:{label}"));
        answer[format!("summary:by-hour:{label}")]["averages"].as_array()?.last().cloned()
    };
    let cpu = await_some("cpu", || average("cpu"));
    assert_eq!((&cpu["avg"], &cpu["num-samples"]), (&40.0.into(), &1.into()));
    assert_eq!(average("mem").unwrap()["avg"], 25.0);
}

#[test]
fn a_root_that_cannot_be_read_is_said_once_and_does_not_stop_the_rest() {
    let root = tempfile::tempdir().unwrap();
    replace(&root.path().join("meminfo"), include_str!("../procfs/round-numbers/meminfo"));
    let receiver = Served::start(&[]);
    let mut command = lizm(&["monitor", "--host", "h", "--probes=cpu,mem", "--publish", &receiver.url("")]);
    command.env("HOST_PROC", root.path());
    let monitor = Process::start(command);
    let line = monitor.line();
    assert!(line.starts_with("ERROR: probe cpu: cannot read ") && line.contains("stat"), "{line}");
    for _ in 0..2 {
        let line = monitor.line();
        assert!(line.starts_with("INFO: Publish was successful"), "{line}");
    }
    assert_eq!(receiver.get("/api/hosts").1["hosts"][0]["labels"], serde_json::json!(["mem"]));
}

#[test]
fn ticks_are_consecutive_seconds_and_keys_rise() {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        sender.send(request.clone()).unwrap();
        Treatment::Answer("200 OK")
    });
    let _monitor = monitor(&["--publish", &format!("http://{address}")]);
    let requests: Vec<Heard> = (0..4).map(|_| heard.recv_timeout(PATIENCE).unwrap()).collect();
    let epochs: Vec<u64> =
        requests.iter().map(|r| r.path.strip_prefix("/api/perf/jarvis/").unwrap().parse().unwrap()).collect();
    assert!(epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{epochs:?}");
    let sources: Vec<(&str, u64)> =
        requests.iter().map(|r| r.key.split_once('-').map(|(s, n)| (s, n.parse().unwrap())).unwrap()).collect();
    assert!(sources.windows(2).all(|pair| pair[1] == (pair[0].0, pair[0].1 + 1)), "{sources:?}");
    for request in &requests {
        let values = request.body.as_object().unwrap();
        let is_percent = |label: &str| (0.0..=100.0).contains(&values[label].as_f64().unwrap());
        assert!(is_percent("cpu") && is_percent("mem"), "{values:?}");
    }
}

#[test]
fn what_fails_is_tried_again_in_order_under_the_same_key() {
    let (sender, heard) = mpsc::channel();
    let mut requests = 0;
    let address = play_receiver(move |request| {
        requests += 1;
        let (taken, treatment) = match requests {
            1..=3 => (false, Treatment::Answer("503 Service Unavailable")),
            4 => (false, Treatment::Drop),
            6 => (false, Treatment::Answer("429 Too Many Requests")),
            _ => (true, Treatment::Answer("200 OK")),
        };
        sender.send((request.clone(), taken)).unwrap();
        treatment
    });
    let monitor = monitor(&["--publish", &format!("http://{address}")]);
    let mut expected: Option<u64> = None;
    let (mut taken_count, mut last_key) = (0, String::new());
    while taken_count < 4 {
        let (request, taken) = heard.recv_timeout(PATIENCE).unwrap();
        let epoch: u64 = request.path.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(epoch, *expected.get_or_insert(epoch), "in order, none left out");
        assert!(last_key.is_empty() || last_key == request.key, "a retry has the key of the first try");
        last_key = if taken { String::new() } else { request.key };
        if taken {
            taken_count += 1;
            expected = Some(epoch + 1);
        }
    }
    let line = monitor.line();
    let (url, details) = line.strip_prefix("ERROR: Publish failed to ").unwrap().split_once(", details: ").unwrap();
    assert!(url.starts_with(&format!("http://{address}/api/perf/jarvis/")) && details == "HTTP 503", "{line}");
}

#[test]
fn what_there_is_no_room_for_is_tried_once_more() {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        sender.send(request.key.clone()).unwrap();
        Treatment::Answer("429 Too Many Requests\r\nRetry-After: 1")
    });
    let _monitor = monitor(&["--publish", &format!("http://{address}")]);
    let keys: Vec<String> = (0..6).map(|_| heard.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(keys.chunks(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
    assert!(keys[1] != keys[2] && keys[3] != keys[4], "{keys:?}");
}

#[test]
fn a_spool_outlives_the_monitor() {
    let spool = tempfile::tempdir().unwrap();
    let (sender, heard) = mpsc::channel();
    let mut takes = false;
    let first_run = Arc::new(AtomicBool::new(true));
    let is_first = first_run.clone();
    let address = play_receiver(move |request| {
        sender.send((request.path.clone(), request.key.clone())).unwrap();
        takes |= !is_first.load(Ordering::Relaxed);
        Treatment::Answer(if takes { "200 OK" } else { "503 Service Unavailable" })
    });
    let start = || monitor(&["--publish", &format!("http://{address}"), "--spool", spool.path().to_str().unwrap()]);
    let first = start();
    let oldest = heard.recv_timeout(PATIENCE).unwrap();
    // Three more samples are read while the first is tried.
    let file = std::fs::read_dir(spool.path()).unwrap().next().unwrap().unwrap().path();
    let lines = || std::fs::read_to_string(&file).unwrap().lines().count();
    await_some("samples in the spool", || (lines() >= 4).then_some(()));
    let (_, log) = first.stop(Signal::SIGKILL);
    assert!(log.iter().all(|line| !line.contains("successful")), "{log:?}");
    let spooled = std::fs::read_to_string(&file).unwrap();
    first_run.store(false, Ordering::Relaxed);
    let second = start();
    let taken: Vec<(String, String)> = std::iter::from_fn(|| heard.recv_timeout(PATIENCE).ok())
        .skip_while(|tried| *tried == oldest)
        .take(spooled.lines().count() - 1)
        .collect();
    let expected: Vec<(String, String)> = spooled
        .lines()
        .skip(1)
        .map(|line| line.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>())
        .map(|fields| (format!("/api/perf/{}", fields[0]), fields[1].clone()))
        .collect();
    assert_eq!(taken, expected, "each under the key it had, in order");
    await_some("the spool to be empty", || (lines() == 0).then_some(()));
    drop(second);
}

#[test]
#[ignore = "takes a minute or more"]
fn a_minute_without_a_receiver_costs_no_sample() {
    let store = tempfile::tempdir().unwrap();
    let store = store.path().to_str().unwrap();
    // An address of 127.0.0.0/8 of its own, so that nobody takes the port while the receiver is away.
    let arguments = ["receiver", "--bind", "127.83.1.8", "--store", store, "--port"];
    let start_at = |port: &str| Served::from(Process::start(lizm(&[&arguments[..], &[port]].concat())));
    let receiver = start_at("0");
    let (port, url) = (receiver.address.port().to_string(), receiver.url(""));
    let monitors: Vec<Process> =
        (0..3).map(|n| Process::start(lizm(&["monitor", "--host", &format!("h{n}"), "--publish", &url]))).collect();
    let epoch_of = |line: &str| line.rsplit('/').next().unwrap().parse::<u64>().unwrap();
    let mut taken: Vec<Vec<u64>> = monitors.iter().map(|m| vec![epoch_of(&m.line_with("successful"))]).collect();
    let resident_kb = |monitor: &Process| -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", monitor.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before: Vec<i64> = monitors.iter().map(resident_kb).collect();
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
    std::thread::sleep(Duration::from_secs(60));
    let grown: Vec<i64> = monitors.iter().zip(&before).map(|(monitor, before)| resident_kb(monitor) - before).collect();
    let receiver = start_at(&port);
    let caught_up = now() + 2;
    for (n, (monitor, epochs)) in monitors.into_iter().zip(&mut taken).enumerate() {
        while epochs.last().is_none_or(|last| *last < caught_up) {
            epochs.push(epoch_of(&monitor.line_with("successful")));
        }
        let (_, log) = monitor.stop(Signal::SIGTERM);
        epochs.extend(log.iter().filter(|line| line.contains("successful")).map(|line| epoch_of(line)));
        assert!(epochs.len() > 60 && epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{epochs:?}");
        let (_, answer) = receiver.get(&format!("/api/perf/h{n}/by-minute:mem"));
        let averages = answer["summary:by-minute:mem"]["averages"].as_array().unwrap();
        let counted: u64 = averages.iter().map(|average| average["num-samples"].as_u64().unwrap()).sum();
        assert_eq!(counted, epochs.len() as u64, "each sample once");
    }
    println!("memory of the monitors grew by {grown:?} KB");
    assert!(grown.iter().all(|kb| *kb < 5000), "{grown:?} KB");
}

#[test]
fn what_is_refused_for_good_is_not_tried_again() {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        sender.send(request.clone()).unwrap();
        Treatment::Answer("403 Forbidden")
    });
    let monitor = monitor(&["--publish", &format!("http://{address}")]);
    let keys: Vec<String> = (0..3).map(|_| heard.recv_timeout(PATIENCE).unwrap().key).collect();
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
    assert!(monitor.line().ends_with("details: HTTP 403"));
}

#[test]
fn a_kept_connection_that_has_ended_costs_no_sample_and_no_error() {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        sender.send(request.path.clone()).unwrap();
        Treatment::AnswerAndClose("200 OK")
    });
    let monitor = monitor(&["--publish", &format!("http://{address}")]);
    let paths: Vec<String> = (0..3).map(|_| heard.recv_timeout(PATIENCE).unwrap()).collect();
    for path in paths {
        assert_eq!(monitor.line(), format!("INFO: Publish was successful to http://{address}{path}"));
    }
}

#[test]
fn one_dead_destination_never_holds_another() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", dead.local_addr().unwrap());
    let nobody = {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", closed.local_addr().unwrap())
    };
    let receiver = Served::start(&[]);
    let monitor = monitor(&["--publish", &silent, &nobody, "--publish", &receiver.url(""), "--interval=1"]);
    let started = Instant::now();
    let mut epochs = Vec::new();
    while epochs.len() < 3 {
        let line = monitor.line_with("INFO: Publish was successful");
        epochs.push(line.rsplit('/').next().unwrap().parse::<u64>().unwrap());
    }
    assert!(epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{epochs:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "the silent destination is given ten seconds, these none");
    let (status, lines) = monitor.stop(Signal::SIGTERM);
    assert!(status.success());
    assert!(lines.iter().any(|line| line.contains(&format!("not published to {silent}"))), "{lines:?}");
}

#[test]
fn the_demo_shows_this_machine() {
    let mut demo = lizm(&["demo", "--port", "0"]);
    let demo = Served::from(Process::start(std::mem::replace(&mut demo, lizm(&[]))));
    let page = demo.process.line_with("Open http://");
    assert_eq!(page.split(' ').nth(2), Some(&*demo.url("/")));
    let averages = await_some("the first average", || {
        let hosts = demo.get("/api/hosts").1;
        let host = hosts["hosts"][0]["host"].as_str()?;
        demo.averages(host).remove("summary:by-minute:cpu")
    });
    assert!(averages[0]["avg"].as_f64().unwrap() <= 100.0);
    assert!(demo.process.stop(Signal::SIGINT).0.success());
}

#[test]
fn a_reading_that_hangs_does_not_hold_up_a_stop() {
    let root = tempfile::tempdir().unwrap();
    // Who opens a FIFO waits for one who writes, and nobody does.
    assert!(Command::new("mkfifo").arg(root.path().join("stat")).status().unwrap().success());
    let (proc_root, spool) = (root.path().to_str().unwrap(), root.path().join("spool"));
    let arguments = ["monitor", "--host", "h", "--publish", "http://127.0.0.1:9", "--procfs", proc_root, "--spool"];
    let monitor = Process::start(lizm(&[&arguments[..], &[spool.to_str().unwrap()]].concat()));
    monitor.line_with("INFO: Spool");
    let (status, lines) = monitor.stop(Signal::SIGTERM);
    assert!(status.success() && lines.iter().any(|line| line.contains("hangs")), "{lines:?}");
}
