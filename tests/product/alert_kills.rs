//! Receivers that are killed while alerts fire and are resolved: nothing is lost, and nothing is told twice to a target that
//! knows keys. `make kills` does it 200 times.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::alerts::put_minutes;
use crate::durable::kills;
use crate::harness::{Heard, Served, Treatment, await_some, now, play_receiver};

/// What a target has heard of each host: how often that it fires, and that it is resolved.
type Told = Arc<Mutex<BTreeMap<String, [u64; 2]>>>;

/// A webhook, which takes no message twice whose key it knows.
fn play_webhook() -> (SocketAddr, Told) {
    let (told, mut keys) = (Told::default(), HashSet::new());
    let heard = told.clone();
    let address = play_receiver(move |request: &Heard| {
        if keys.insert(request.key.clone()) {
            let mut heard = heard.lock().unwrap();
            for alert in request.body["alerts"].as_array().unwrap() {
                let host = alert["labels"]["host"].as_str().unwrap().to_owned();
                heard.entry(host).or_default()[usize::from(alert["status"] == "resolved")] += 1;
            }
        }
        Treatment::AnswerAndClose("200 OK")
    });
    (address, told)
}

/// A target for people, which knows no keys.
fn play_people() -> (SocketAddr, Told) {
    let told = Told::default();
    let heard = told.clone();
    let address = play_receiver(move |request: &Heard| {
        let text = request.body["text"].as_str().unwrap().to_owned();
        let mut heard = heard.lock().unwrap();
        for line in text.lines().filter_map(|line| line.split_once(": a on ")) {
            let host = line.1.split([':', ',', ' ']).next().unwrap().to_owned();
            heard.entry(host).or_default()[usize::from(!line.0.starts_with("FIRING"))] += 1;
        }
        Treatment::AnswerAndClose("200 OK")
    });
    (address, told)
}

struct Targets {
    webhook: Told,
    people: Told,
    rules: String,
}

impl Targets {
    fn play() -> Self {
        let ((hook, webhook), (slack, people)) = (play_webhook(), play_people());
        let rules = format!(
            "target hook: webhook http://{hook}\ntarget people: slack http://{slack}/services/x\n\
             a: x > 90; notify hook,people"
        );
        Self { webhook, people, rules }
    }

    /// Waits until all hosts were told to both, and compares how often.
    fn compare(&self, hosts: u64, place: usize, killed: u64) {
        let of = |told: &Told| -> Vec<u64> {
            let told = told.lock().unwrap();
            (0..hosts).map(|host| told.get(&format!("h{host}")).map_or(0, |counts| counts[place])).collect()
        };
        for told in [&self.webhook, &self.people] {
            await_some("all hosts to be told", || of(told).iter().all(|count| *count > 0).then_some(()));
        }
        assert!(of(&self.webhook).iter().all(|count| *count == 1), "{:?}", of(&self.webhook));
        let most = of(&self.people).into_iter().max().unwrap_or(0);
        assert!(most <= 1 + killed, "{:?}", of(&self.people));
        let extra: u64 = of(&self.people).iter().map(|count| count - 1).sum();
        println!("{hosts} alerts told, {extra} of them again to a target without keys, {killed} kills");
    }
}

/// A moment that differs from kill to kill.
fn pause(kill: u64) {
    thread::sleep(Duration::from_millis(20 + kill * 7919 % 700));
}

#[test]
fn killed_at_random_each_alert_is_told_once() {
    let (directory, targets) = (tempfile::tempdir().unwrap(), Targets::play());
    let start = || Served::start(&["--store", directory.path().to_str().unwrap(), "--alert", &targets.rules]);
    let mut receiver = start();
    let hosts = kills(6) / 2;
    for (place, value) in [95.0, 10.0].into_iter().enumerate() {
        for host in 0..hosts {
            // The host's clock is ahead later, so that the test need not wait for minutes to pass.
            put_minutes(&receiver, &format!("h{host}"), now() + 240 * place as u64, 2 + place as u64, value);
            pause(host);
            receiver.process.kill();
            receiver = start();
        }
        targets.compare(hosts, place, hosts);
    }
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn of_two_receivers_killed_in_turns_each_alert_is_told_once() {
    let (redis, targets) = (crate::servers::Redis::start(&[]), Targets::play());
    let start = || Served::start(&["--store", &redis.url(), "--alert", &targets.rules]);
    let mut receivers = [start(), start()];
    let hosts = kills(6) / 2;
    for (place, value) in [95.0, 10.0].into_iter().enumerate() {
        for host in 0..hosts {
            let epoch = now() + 240 * place as u64;
            put_minutes(&receivers[(host % 2) as usize], &format!("h{host}"), epoch, 2 + place as u64, value);
            pause(host);
            let killed = std::mem::replace(&mut receivers[(host / 2 % 2) as usize], start());
            killed.process.kill();
            // Its lease ends, or that of the other, which must notice.
            redis.ask(&["DEL", "lizm:{alerts}:lease"]);
        }
        targets.compare(hosts, place, hosts);
    }
    let fence = redis.ask(&["GET", "lizm:{alerts}:fence"]);
    let fence: u64 = fence.lines().nth(1).and_then(|fence| fence.parse().ok()).unwrap();
    println!("{fence} leases");
    let listed = receivers[0].get("/api/alerts").1;
    assert!(listed["alerts"].as_array().is_some());
}
