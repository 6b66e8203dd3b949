//! A receiver whose wall clock differs from what its last run's mark says.

use std::fs;
#[cfg(feature = "redis")]
use std::io::{BufRead, BufReader, Read, Write};
#[cfg(feature = "redis")]
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
#[cfg(feature = "redis")]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
#[cfg(feature = "redis")]
use std::thread;

use lizm::sample::Sample;
use lizm::store::{KeepOptions, Location, Store};
use lizm::summary::Keep;
use nix::sys::signal::Signal;

use crate::harness::{Served, await_some, now};

const DAY_SEC: u64 = 86_400;

/// A directory that keeps an hour and a day, with a sample of each of the 30 minutes before `then`, and a mark of another boot at `then`.
fn store_of(directory: &Path, then: u64) {
    let location = Location::Directory { path: directory.to_owned(), fsync_always: false };
    let keep = KeepOptions { asked: Some(Keep::default()), ..KeepOptions::default() };
    let store = Store::open_to_keep(&location, 100, &keep, then).unwrap();
    for minute in 0..30 {
        let sample = Sample { host: "old".into(), epoch: then - 60 * minute, values: vec![("v".into(), 1.0)] };
        assert_eq!(store.record(sample.view(), None, then).unwrap().stored, 1);
    }
    store.sync_now().unwrap();
    drop(store);
    fs::write(directory.join("clock"), format!("{} 5000 another-boot\n", then * 1000)).unwrap();
}

fn status_of(receiver: &Served, host: &str, epoch: u64) -> u16 {
    receiver.post(&format!("/api/perf/{host}/{epoch}"), "{\"v\":1}").0
}

#[test]
fn a_wall_clock_that_nothing_confirms_expires_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let then = now() - 2 * DAY_SEC;
    store_of(directory.path(), then);
    let receiver = Served::start(&["--store", directory.path().to_str().unwrap()]);
    receiver.process.line_with("WARNING: Clock of this machine has jumped by +1728");
    assert_eq!(receiver.samples("old", "v"), 30);
    // A monitor on this machine has the same clock.
    assert_eq!(status_of(&receiver, "old", now()), 422);
    assert_eq!(receiver.post("/write", &format!("perf,host=old v=1 {}", now())).0, 422);
    assert_eq!(status_of(&receiver, "old", then + 1), 200);
    assert_eq!(receiver.post("/write", "perf,host=old v=1").0, 204);
    assert_eq!(receiver.samples("old", "v"), 32);
    // The receiver's clock outlives it.
    receiver.process.kill();
    let receiver = Served::start(&["--store", directory.path().to_str().unwrap()]);
    assert_eq!((receiver.samples("old", "v"), status_of(&receiver, "old", now())), (32, 422));
}

#[test]
fn three_hosts_confirm_the_wall_clock() {
    let directory = tempfile::tempdir().unwrap();
    store_of(directory.path(), now() - 2 * DAY_SEC);
    let receiver = Served::start(&["--store", directory.path().to_str().unwrap()]);
    await_some("all three to be stored", || {
        let statuses = ["a", "b", "c"].map(|host| status_of(&receiver, host, now()));
        (statuses == [200; 3]).then_some(())
    });
    receiver.process.line_with("INFO: Clock of this machine is believed: 3 hosts agree with it");
    assert!(receiver.averages("old").is_empty(), "the outage was real");
    let (status, lines) = receiver.process.stop(Signal::SIGTERM);
    assert!(status.success(), "{lines:?}");
    let receiver = Served::start(&["--store", directory.path().to_str().unwrap()]);
    assert_eq!((receiver.samples("a", "v"), status_of(&receiver, "a", now())), (1, 200));
}

#[test]
fn a_kill_right_after_the_first_sample_leaves_a_mark() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Served::start(&["--store", directory.path().to_str().unwrap()]);
    assert_eq!(status_of(&receiver, "h", now()), 200);
    receiver.process.kill();
    let mark = fs::read_to_string(directory.path().join("clock")).unwrap();
    let marked_sec = mark.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000;
    assert!(marked_sec.abs_diff(now()) < 60, "{mark}");
}

#[test]
fn an_empty_store_follows_the_wall_clock() {
    let directory = tempfile::tempdir().unwrap();
    for mark in ["7000 5000 another-boot\n", "99999999999000 5000 another-boot\n", "damaged"] {
        fs::write(directory.path().join("clock"), mark).unwrap();
        let receiver = Served::start(&["--store", directory.path().to_str().unwrap()]);
        assert_eq!((status_of(&receiver, "h", now()), receiver.samples("h", "v")), (200, 1), "{mark}");
        assert_eq!(receiver.delete("/api/perf/h").0, 200);
    }
}

#[test]
fn a_receiver_that_refuses_all_samples_as_ahead_suspects_its_own_clock() {
    let receiver = Served::start(&[]);
    assert_eq!(status_of(&receiver, "h", now() + 3600), 422);
    receiver.process.line_with("it is likely that its own clock is behind");
    assert_eq!(status_of(&receiver, "h", now() - 2 * DAY_SEC), 200);
    receiver.process.line_with("WARNING: 1 values were too old for every summary");
}

/// Plays a Redis that knows the time, less `behind_sec`, and agrees to all else.
#[cfg(feature = "redis")]
fn play_redis(behind_sec: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, behind_sec) = (BufReader::new(stream.unwrap()), behind_sec.clone());
            thread::spawn(move || {
                while let Some(command) = read_command(&mut stream) {
                    let sec = (now() - behind_sec.load(Ordering::Relaxed)).to_string();
                    let reply = match command.as_str() {
                        "TIME" => format!("*2\r\n${}\r\n{sec}\r\n$1\r\n0\r\n", sec.len()),
                        "EVALSHA" => ":0\r\n".to_owned(),
                        _ => "+OK\r\n".to_owned(),
                    };
                    if stream.get_mut().write_all(reply.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// The name of the next command of a client.
#[cfg(feature = "redis")]
fn read_command(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let number = |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let mut parts = Vec::new();
    for _ in 0..number(stream)? {
        let mut part = vec![0; number(stream)? + 2];
        stream.read_exact(&mut part).ok()?;
        parts.push(String::from_utf8_lossy(&part).trim_end().to_owned());
    }
    parts.into_iter().next()
}

#[test]
#[cfg(feature = "redis")]
fn a_receiver_that_is_far_from_the_clock_of_its_redis_goes_by_that_and_is_not_well() {
    let behind_sec = Arc::new(AtomicU64::new(2 * DAY_SEC));
    let redis = format!("redis://{}", play_redis(behind_sec.clone()));
    let receiver = Served::start(&["--store", &redis]);
    receiver
        .process
        .line_with("ERROR: The receiver goes by the store's clock, because the clock of this machine is +1728");
    assert_eq!(status_of(&receiver, "h", now()), 422);
    let (status, health) = receiver.get("/health");
    assert!(status == 503 && health["reason"].as_str().unwrap().contains("from that of the store"), "{health}");
    // Five minutes are no reason.
    behind_sec.store(240, Ordering::Relaxed);
    receiver.process.line_with("INFO: Clock of this machine agrees with that of the store again");
    assert_eq!(receiver.get("/health").0, 200);
    assert_ne!(status_of(&receiver, "h", now()), 422);
}
