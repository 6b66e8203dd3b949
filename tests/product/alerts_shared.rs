//! Alerts of receivers that share a Redis: one of them evaluates and notifies, and another takes its place.

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::alerts::{await_state, put_minutes};
use crate::harness::{Heard, PATIENCE, Served, Treatment, await_some, lizm, now, play_receiver};
use crate::servers::Redis;

/// Longest time within which a receiver is replaced that was killed.
const LEASE: Duration = Duration::from_secs(20);

/// A webhook that takes everything, and what it hears.
fn play() -> (String, Receiver<Heard>) {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        let _ = sender.send(request.clone());
        Treatment::AnswerAndClose("200 OK")
    });
    (format!("target hook: webhook http://{address}"), heard)
}

fn start(redis: &Redis, target: &str) -> Served {
    let soon = "soon: x > 90 for 30m";
    Served::start(&["--store", &redis.url(), "--alert", target, "--alert", "a: x > 90; notify hook", "--alert", soon])
}

/// Whether a receiver is the one that evaluates.
fn evaluates(receiver: &Served) -> bool {
    receiver.get("/api/alerts").1["evaluated-at"].is_u64()
}

fn next(heard: &Receiver<Heard>) -> Value {
    heard.recv_timeout(2 * PATIENCE).expect("a message").body["status"].clone()
}

#[test]
#[ignore = "needs redis-server"]
fn two_receivers_tell_once_and_one_that_is_killed_is_replaced() {
    let redis = Redis::start(&[]);
    let (target, heard) = play();
    let first = start(&redis, &target);
    await_some("the first to evaluate", || evaluates(&first).then_some(()));
    let second = start(&redis, &target);
    put_minutes(&second, "h", now(), 3, 95.0);
    let fired_at = await_state(&first, "a", "firing")["fired-at"].clone();
    assert_eq!(next(&heard), "firing");
    // Both say what fires and who was told.
    for receiver in [&first, &second] {
        await_some("told", || await_state(receiver, "a", "firing")["told"][0]["delivered-at"].as_u64());
    }
    assert!(!evaluates(&second));
    // Either takes a silence, and both heed it.
    let (status, _) = second.post("/api/silences", r#"{"alerts": "a", "on": "other", "for": "2h"}"#);
    assert_eq!(status, 200);
    put_minutes(&first, "other", now(), 3, 95.0);
    await_state(&first, "a", "suppressed");
    await_state(&second, "a", "suppressed");
    // What is about to fire is seen at both, too.
    for receiver in [&first, &second] {
        await_state(receiver, "soon", "pending");
    }
    let killed_at = Instant::now();
    first.process.kill();
    await_some("the second to evaluate", || evaluates(&second).then_some(()));
    assert!(killed_at.elapsed() < LEASE + Duration::from_secs(10), "{:?}", killed_at.elapsed());
    assert_eq!(await_state(&second, "a", "firing")["fired-at"], fired_at);
    put_minutes(&second, "h", now() + 240, 3, 10.0);
    assert_eq!(next(&heard), "resolved");
    let history = || second.get("/api/alerts?history=1").1["history"].as_array().unwrap().len();
    await_some("the history of both", || (history() == 2).then_some(()));
    assert!(heard.try_recv().is_err(), "told once");
    // One that is stopped is replaced at once.
    let third = start(&redis, &target);
    await_some("the third to follow", || {
        (third.get("/api/alerts?history=1").1["history"].as_array().unwrap().len() == 2).then_some(())
    });
    let stopped_at = Instant::now();
    nix::sys::signal::kill(second.process.pid(), Signal::SIGTERM).unwrap();
    await_some("the third to evaluate", || evaluates(&third).then_some(()));
    assert!(stopped_at.elapsed() < LEASE, "{:?}", stopped_at.elapsed());
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_stands_still_holds_messages_back_and_hangs_nobody() {
    let redis = Redis::start(&[]);
    let (target, heard) = play();
    let receiver = start(&redis, &target);
    await_some("it to evaluate", || evaluates(&receiver).then_some(()));
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "a", "firing");
    // The message waits for others for ten seconds: it is not sent meanwhile.
    redis.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(12) {
        let asked = Instant::now();
        assert_eq!(receiver.get("/api/alerts").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, answer) = receiver.post("/api/silences", r#"{"alerts": "b", "for": "2h"}"#);
    assert_eq!(status, 503, "{answer}");
    assert!(heard.try_recv().is_err(), "nothing is sent that is not kept");
    redis.signal(Signal::SIGCONT);
    assert_eq!(next(&heard), "firing");
    // That nobody was heard meanwhile is no absence, and a receiver without a Redis starts and judges later.
    assert!(heard.try_recv().is_err());
    let listed = lizm(&["alerts", &receiver.url("")]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().starts_with("firing\twarning\ta\th\tx\t"));
}
