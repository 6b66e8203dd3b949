//! The monitor against receivers that are well, slow, dead, and of few words.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

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
    // There is no cpu until the counters move; then 400 ticks of 1,000 were busy.
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
fn a_log_of_changes_has_the_start_and_trouble_once_and_no_program_outlives_the_monitor() {
    let (receiver, root) = (Served::start(&[]), tempfile::tempdir().unwrap());
    let programs = root.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let pid = root.path().join("pid");
    let script = format!("#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}; exec sleep 1000\n", pid.display());
    std::fs::write(programs.join("slow.sh"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(programs.join("slow.sh"), mode).unwrap();
    // Nobody listens on a port that was given and taken back.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{dead}");
    let (url, programs) = (receiver.url(""), programs.to_str().unwrap().to_owned());
    let options = ["--log-publish", "changes", "--probes", "load", "--exec", &programs, "--exec-timeout", "1h"];
    let monitor = monitor(&[&options[..], &["--publish", &url, &dead]].concat());
    let line = monitor.line();
    let destinations = format!("{url}/api/perf, {dead}/api/perf");
    assert_eq!(line, format!("INFO: Host jarvis is measured every 1 s by load, and published to {destinations}"));
    await_some("three samples", || (receiver.samples("jarvis", "load1") >= 3).then_some(()));
    let pid = await_some("the program", || std::fs::read_to_string(&pid).ok());
    let (status, lines) = monitor.stop(Signal::SIGTERM);
    assert!(status.success() && !lines.iter().any(|line| line.contains("successful")), "{lines:?}");
    let mut failures = lines.iter().filter(|line| line.contains("Publish failed"));
    assert!(failures.next().is_some_and(|line| !line.ends_with(" samples wait")), "{lines:?}");
    assert!(failures.all(|line| line.ends_with(" samples wait")), "one a minute: {lines:?}");
    let stat = format!("/proc/{}/stat", pid.trim());
    await_some("the end of the program", || {
        // Whoever is given the orphan may not have waited for it yet.
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn epochs_and_keys_rise() {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        sender.send(request.clone()).unwrap();
        Treatment::Answer("200 OK")
    });
    let _monitor = monitor(&["--publish", &format!("http://{address}")]);
    let requests: Vec<Heard> = (0..4).map(|_| heard.recv_timeout(PATIENCE).unwrap()).collect();
    let epochs: Vec<u64> =
        requests.iter().map(|r| r.path.strip_prefix("/api/perf/jarvis/").unwrap().parse().unwrap()).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    let keys: Vec<(&str, u64)> =
        requests.iter().map(|r| r.key.split_once('-').map(|(s, n)| (s, n.parse().unwrap())).unwrap()).collect();
    assert!(keys.is_sorted_by(|a, b| a.0 == b.0 && a.1 < b.1), "{keys:?}");
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
            // The receiver's clock is behind, and has caught up when it is asked again.
            8 | 9 => (false, Treatment::Answer("422 Unprocessable Content")),
            _ => (true, Treatment::Answer("200 OK")),
        };
        sender.send((request.clone(), taken)).unwrap();
        treatment
    });
    let monitor = monitor(&["--publish", &format!("http://{address}")]);
    let (mut taken_count, mut last_epoch, mut tried) = (0, 0, None);
    while taken_count < 4 {
        let (request, taken) = heard.recv_timeout(PATIENCE).unwrap();
        let epoch: u64 = request.path.rsplit('/').next().unwrap().parse().unwrap();
        let this = (epoch, request.key);
        match tried.replace(this.clone()) {
            Some(tried) => assert_eq!(this, tried, "a retry is the same sample under the same key"),
            None => assert!(epoch > last_epoch, "in order"),
        }
        if taken {
            (taken_count, last_epoch, tried) = (taken_count + 1, epoch, None);
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

/// The lines of a spool's only file that are samples: host and epoch, key.
fn spooled(directory: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let spools =
        files.filter(|file| file.file_name() != "source" && !file.file_name().to_string_lossy().ends_with('w'));
    let text: String = spools.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect();
    let fields = |line: &str| line.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
    let samples = text.lines().filter(|line| !line.starts_with("done ")).map(fields);
    samples.map(|fields| (fields[0].clone(), fields[1].clone())).collect()
}

#[test]
fn a_spool_outlives_the_monitor() {
    let spool = tempfile::tempdir().unwrap();
    let (sender, heard) = mpsc::channel();
    let is_first_run = Arc::new(AtomicBool::new(true));
    let is_first = is_first_run.clone();
    let address = play_receiver(move |request| {
        sender.send((request.path.clone(), request.key.clone())).unwrap();
        Treatment::Answer(if is_first.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" })
    });
    let start = || monitor(&["--publish", &format!("http://{address}"), "--spool", spool.path().to_str().unwrap()]);
    let first = start();
    // More samples are read while the first is tried.
    await_some("samples in the spool", || (spooled(spool.path()).len() >= 3).then_some(()));
    let (_, log) = first.stop(Signal::SIGKILL);
    assert!(log.iter().all(|line| !line.contains("successful")), "{log:?}");
    let expected: Vec<(String, String)> =
        spooled(spool.path()).into_iter().map(|(sample, key)| (format!("/api/perf/{sample}"), key)).collect();
    let failed: Vec<_> = heard.try_iter().collect();
    assert!(failed.iter().all(|tried| *tried == expected[0]), "{failed:?}");
    is_first_run.store(false, Ordering::SeqCst);
    let second = start();
    let taken: Vec<(String, String)> =
        (0..=expected.len()).map(|_| heard.recv_timeout(PATIENCE).expect("a request")).collect();
    assert_eq!(taken[..expected.len()], expected, "each under the key it had, in order");
    let number = |key: &str| key.split_once('-').map(|(source, seq)| (source.to_owned(), seq.parse::<u64>().unwrap()));
    let (last, new) = (number(&expected.last().unwrap().1).unwrap(), number(&taken[expected.len()].1).unwrap());
    assert!(new.0 == last.0 && new.1 > last.1, "what is read now has the same source: {last:?} {new:?}");
    assert!(second.stop(Signal::SIGTERM).0.success());
    assert_eq!(spooled(spool.path()), [], "nothing waits any more");
}

#[test]
fn a_spool_that_is_killed_again_and_again_gets_smaller_and_counts_once() {
    const SAMPLES: u64 = 1200;
    let receiver = Served::start(&[]);
    let (spool, url) = (tempfile::tempdir().unwrap(), receiver.url("/api/perf"));
    // What a monitor without a receiver has left.
    let first = now() - SAMPLES;
    let lines: String =
        (0..SAMPLES).map(|n| format!("jarvis/{} 0123abcd-{} {{\"old\":1}}\n", first + n, n + 1)).collect();
    std::fs::write(spool.path().join("source"), "0123abcd\n").unwrap();
    std::fs::write(spool.path().join(lizm::url::encode(&url)), lines).unwrap();
    let start = || monitor(&["--publish", &url, "--probes", "load", "--spool", spool.path().to_str().unwrap()]);
    let in_spool = |monitor: &Process| -> u64 {
        let line = monitor.line_with("INFO: Spool ");
        line.split(" has ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let mut waiting = vec![u64::MAX];
    while *waiting.last().unwrap() > 400 {
        let monitor = start();
        waiting.push(in_spool(&monitor));
        (0..300).for_each(|_| drop(monitor.line_with("successful")));
        monitor.kill();
        // Other sources of this host come and go.
        for other in 0..70 {
            let key = format!("{}other{other}-1", waiting.len());
            assert_eq!(receiver.post_once(&format!("/api/perf/jarvis/{}", now()), &key, "{\"new\":1}").0, 200);
        }
    }
    let last = start();
    let left = in_spool(&last);
    (0..left).for_each(|_| drop(last.line_with("successful")));
    assert!(last.stop(Signal::SIGTERM).0.success());
    waiting.push(left);
    assert!(waiting[1] == SAMPLES && waiting.is_sorted_by(|a, b| a > b), "{waiting:?}");
    assert_eq!(spooled(spool.path()), []);
    assert_eq!(receiver.samples("jarvis", "old"), SAMPLES);
}

#[test]
fn restarts_between_a_request_and_its_answer_count_once() {
    let receiver = Served::start(&[]);
    let target = receiver.address;
    let spool = tempfile::tempdir().unwrap();
    // Forwards every request, and keeps back the answers until the end.
    let answers = Arc::new(AtomicBool::new(false));
    let (passes_on, forwarded) = (answers.clone(), Arc::new(Mutex::new(BTreeSet::new())));
    let seen = forwarded.clone();
    let address = play_receiver(move |request| {
        let url = format!("http://{target}{}", request.path);
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let posted = agent.post(url).header("Idempotency-Key", &request.key).send(request.body.to_string());
        assert_eq!(posted.unwrap().status(), 200);
        seen.lock().unwrap().insert(request.path.clone());
        if passes_on.load(Ordering::SeqCst) { Treatment::Answer("200 OK") } else { Treatment::Drop }
    });
    let url = format!("http://{address}");
    let start = || monitor(&["--publish", &url, "--probes", "load", "--spool", spool.path().to_str().unwrap()]);
    for samples in 1..=3 {
        let monitor = start();
        await_some("one more sample in the spool", || (spooled(spool.path()).len() >= samples).then_some(()));
        monitor.line_with("Publish failed");
        monitor.kill();
    }
    answers.store(true, Ordering::SeqCst);
    let waiting = spooled(spool.path()).len();
    let last = start();
    (0..=waiting).for_each(|_| drop(last.line_with("successful")));
    assert!(last.stop(Signal::SIGTERM).0.success());
    let forwarded = forwarded.lock().unwrap().len() as u64;
    assert!(forwarded > 3);
    assert_eq!(receiver.samples("jarvis", "load1"), forwarded);
}

#[test]
#[ignore = "takes half a minute"]
fn a_receiver_that_is_away_costs_no_sample() {
    const AWAY_SEC: u64 = 20;
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
    let gone_at = now();
    await_some("samples that nobody takes", || (now() >= gone_at + AWAY_SEC).then_some(()));
    let grown: Vec<i64> = monitors.iter().zip(&before).map(|(monitor, before)| resident_kb(monitor) - before).collect();
    let receiver = start_at(&port);
    let caught_up = now() + 2;
    for (n, (monitor, epochs)) in monitors.into_iter().zip(&mut taken).enumerate() {
        while epochs.last().is_none_or(|last| *last < caught_up) {
            epochs.push(epoch_of(&monitor.line_with("successful")));
        }
        let (_, log) = monitor.stop(Signal::SIGTERM);
        epochs.extend(log.iter().filter(|line| line.contains("successful")).map(|line| epoch_of(line)));
        assert!(epochs.len() as u64 > AWAY_SEC / 2 && epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
        assert!(log.iter().all(|line| !line.contains("dropped")), "{log:?}");
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
fn what_a_receiver_does_not_keep_is_no_success() {
    let mut requests = 0;
    let address = play_receiver(move |_| {
        requests += 1;
        Treatment::Json(match requests {
            1 => r#"{"stored":0,"expired":3}"#,
            2 => r#"{"stored":2,"expired":0,"refused":1}"#,
            3 => r#"{"stored":0,"expired":2,"refused":1}"#,
            4 => r#"{"stored":0,"duplicate":true}"#,
            _ => r#"{"stored":3,"expired":0}"#,
        })
    });
    let url = format!("http://{address}");
    let monitor = monitor(&["--probes", "load", "--publish", &url]);
    let reason = "too old for every summary (is this host's clock behind, or the receiver's ahead?)";
    assert_eq!(monitor.line(), format!("WARNING: Values not kept by {url}/api/perf: 3 {reason}"));
    let successes: Vec<u64> =
        (0..3).map(|_| monitor.line()).map(|line| line[line.len() - 10..].parse().unwrap()).collect();
    assert!(successes[1] - successes[0] >= 2, "the third was no success: {successes:?}");
    // The rest is counted until the next minute, or the end.
    let (_, lines) = monitor.stop(Signal::SIGTERM);
    let rest =
        format!("WARNING: Values not kept by {url}/api/perf: 2 {reason}; 2 of series above the receiver's limit");
    assert!(lines.contains(&rest), "{lines:?}");
}

#[test]
fn a_url_that_cannot_be_used_is_refused_at_the_start_without_its_password() {
    for (url, part) in [
        ("http://me:secret@[fe80::7%25eth1]:8080", "zone"),
        ("https://me:secret@r:99999", "port"),
        ("udp://me:secret@r:8089", "has a user"),
        ("http://me:se/secret@r", "%2F"),
        ("http://r/write?p=secret&precision=fortnights", "precision"),
    ] {
        let output = lizm(&["monitor", "--host", "h", "--publish", url]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(part) && !said.contains("secret"), "{url}: {said}");
    }
}

#[test]
fn a_spool_is_refused_that_is_a_link_or_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("target"), "a secret\n").unwrap();
    for name in ["links", "used"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    std::os::unix::fs::symlink(path("target"), path("links").join(lizm::url::encode("http://127.0.0.1:9/api/perf")))
        .unwrap();
    let command = |name: &str| {
        let spool = path(name);
        lizm(&["monitor", "--host", "h", "--publish", "http://127.0.0.1:9", "--spool", spool.to_str().unwrap()])
    };
    let start = |name: &str| Process::start(command(name));
    let first = start("used");
    first.line_with("INFO: Spool ");
    let wrong = [("links", 1, "is a link"), ("used", 1, "in use by another monitor"), ("target", 2, "is a file")];
    for (name, code, part) in wrong {
        let output = command(name).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(code) && said.contains(part) && !said.contains("secret"),
            "{name}: {said}"
        );
    }
    assert_eq!(std::fs::read_to_string(path("target")).unwrap(), "a secret\n");
    first.kill();
    start("used").line_with("INFO: Spool ");
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
    // An address of 127.0.0.0/8 on which nobody listens.
    let nobody = "http://127.83.1.9:9";
    let receiver = Served::start(&[]);
    let monitor = monitor(&["--publish", &silent, nobody, "--publish", &receiver.url(""), "--interval=1"]);
    // One that waited for the silent destination would see it fail before each of its own.
    let (mut successes, mut failures) = (0, 0);
    while successes < 4 {
        let line = monitor.line();
        successes += usize::from(line.starts_with("INFO: Publish was successful"));
        failures += usize::from(line.contains(&format!("failed to {silent}")));
    }
    assert!(failures < 3, "{failures} failures");
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
