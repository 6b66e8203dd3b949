//! Receivers that share a Redis, and what they do when it goes away.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Answer, Process, Served, await_some, connect, http_servers, lizm, now, reserved_address};
use crate::servers::{Cluster, Redis, make_certificates};

fn on(redis: &Redis) -> Served {
    with_server(&redis.url(), "tiny_http")
}

fn with_server(store: &str, server: &str) -> Served {
    Served::start(&["--store", store, "--http-server", server])
}

fn post(receiver: &Served, host: &str) -> (u16, Value) {
    receiver.post(&format!("/api/perf/{host}/{}", now()), "{\"cpu\":1}")
}

fn await_stored(receiver: &Served, host: &str) {
    await_some("a sample to be stored", || (post(receiver, host).0 == 200).then_some(()));
}

/// Threads of a process.
fn threads(receiver: &Served) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", receiver.process.pid())).unwrap().count()
}

/// How long the server is stopped: longer in `make soak`.
fn stopped_for() -> Duration {
    let seconds = std::env::var("LIZM_TEST_STOPPED_SEC").map_or(4, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

/// That it takes no longer than a second is what the receiver promises.
#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_stands_still_is_answered_503_within_a_second() {
    for server in http_servers() {
        let redis = Redis::start(&[]);
        let receiver = with_server(&redis.url(), server);
        assert_eq!(post(&receiver, "h"), (200, json!({"stored": 1, "expired": 0})));
        let (threads_before, until) = (threads(&receiver), Instant::now() + stopped_for());
        // One connection for all of it: each new one would make or keep a thread of tiny_http.
        let mut stream = receiver.connect();
        let mut health = || {
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            Answer::read(&mut stream)
        };
        // Reads are answered earlier: before it is known for certain that the server does not answer.
        let early = AtomicUsize::new(0);
        redis.signal(Signal::SIGSTOP);
        thread::scope(|scope| {
            for client in 0..40 {
                let (address, early) = (receiver.address, &early);
                scope.spawn(move || {
                    let mut stream = connect(address);
                    while Instant::now() < until {
                        let line = if client % 4 == 0 {
                            "GET /api/hosts"
                        } else {
                            &format!("POST /api/perf/h{client}/{}", now())
                        };
                        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{\"cpu\":1}}");
                        let asked = Instant::now();
                        stream.write_all(request.as_bytes()).unwrap();
                        let answer = Answer::read(&mut stream);
                        assert!(answer.status == 503 && answer.error().starts_with("store: "), "{answer:?}");
                        if answer.error().contains("has answered nobody for") {
                            assert!(client % 4 == 0 && answer.header("retry-after") == Some("1"), "{answer:?}");
                            early.fetch_add(1, Ordering::Relaxed);
                        }
                        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}: {answer:?}", asked.elapsed());
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            await_some("/health to say so", || (health().status == 503).then_some(()));
        });
        assert!(health().body.contains("has not answered for 500 ms"));
        assert!(early.into_inner() > 0);
        // Idle threads of tiny_http end after five seconds.
        await_some("its threads to be few", || (threads(&receiver) <= threads_before + 16).then_some(()));
        redis.signal(Signal::SIGCONT);
        await_stored(&receiver, "h");
        assert_eq!(receiver.get("/health").0, 200);
    }
}

/// What the server was told before it stood still it does when it goes on: whoever tells it again counts it twice.
#[cfg(feature = "zeromq")]
#[test]
#[ignore = "needs redis-server"]
fn messages_that_a_redis_may_have_stored_are_not_stored_again() {
    let redis = Redis::start(&[]);
    let receiver = Served::start(&["--store", &redis.url(), "--zmq", "tcp://127.0.0.1:0"]);
    let socket = zmq::Context::new().socket(zmq::PUSH).unwrap();
    socket.connect(&receiver.zmq()).unwrap();
    let (at, sent) = (now(), 100);
    let send = || socket.send(&*format!("perf,host=h cpu=1 {at}"), 0).unwrap();
    send();
    receiver.await_samples("h", "cpu", 1);
    redis.signal(Signal::SIGSTOP);
    (1..sent).for_each(|_| send());
    receiver.process.line_with("has not answered for 500 ms");
    redis.signal(Signal::SIGCONT);
    await_some("all messages to be stored, or counted as uncertain", || {
        let metrics = receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body;
        let number = |name: &str| -> Option<u64> {
            metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        let uncertain = number("lizm_samples_refused_total{reason=\"store_unavailable\"}")?;
        (number("lizm_values_stored_total")? + uncertain == sent).then_some(())
    });
    receiver.await_samples("h", "cpu", sent);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_takes_nothing_is_told_of_and_read_all_the_same() {
    for server in http_servers() {
        let redis = Redis::start(&[]);
        let receiver = with_server(&redis.url(), server);
        let nowhere = reserved_address().port().to_string();
        await_stored(&receiver, "h");
        for (refuse, accept, part) in [
            (&["CONFIG", "SET", "maxmemory", "1"][..], &["CONFIG", "SET", "maxmemory", "0"][..], "OOM"),
            (&["REPLICAOF", "127.0.0.1", &nowhere], &["REPLICAOF", "NO", "ONE"], "READONLY"),
        ] {
            assert_eq!(redis.ask(refuse), "+OK\r\n");
            let samples = receiver.samples("h", "cpu");
            let (status, said) = post(&receiver, "h");
            assert!(status == 503 && said["error"].as_str().unwrap().contains(part), "{status} {said}");
            let (status, said) = receiver.get("/health");
            assert!(status == 503 && said["reason"].as_str().unwrap().contains(part), "{status} {said}");
            assert_eq!(receiver.samples("h", "cpu"), samples);
            assert_eq!(redis.ask(accept), "+OK\r\n");
            await_some("the receiver to be well", || {
                // Reading goes on meanwhile.
                assert_eq!(receiver.get("/api/perf/h").0, 200);
                (receiver.get("/health").0 == 200).then_some(())
            });
            assert_eq!(post(&receiver, "h").0, 200);
        }
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_may_come_late_and_go_and_come_back() {
    for server in http_servers() {
        let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        redis.kill();
        let receiver = with_server(&redis.url(), server);
        assert_eq!(post(&receiver, "h").0, 503);
        for round in 1..=3 {
            redis.start_again();
            await_stored(&receiver, "h");
            assert_eq!(receiver.samples("h", "cpu"), round, "what was acknowledged is there, and no more");
            redis.kill();
            let (status, said) = post(&receiver, "h");
            assert!(status == 503 && said["error"].as_str().unwrap().starts_with("store: "), "{said}");
        }
    }
}

#[test]
#[ignore = "needs redis-server"]
fn an_eviction_policy_that_drops_summaries_is_warned_of() {
    let redis = Redis::start(&["--maxmemory-policy", "allkeys-lru"]);
    let receiver = Process::start(lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1", "--store", &redis.url()]));
    let line = receiver.line_with("WARNING: ");
    assert!(line.contains("allkeys-lru") && line.contains("noeviction"), "{line}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_is_trusted_by_the_certificates_that_are_named() {
    let files = tempfile::tempdir().unwrap();
    make_certificates(files.path());
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let tls_port = reserved_address().port();
    let tls = ["--tls-port", &tls_port.to_string(), "--tls-auth-clients", "no", "--requirepass", "secret"];
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(file);
    let certificates = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let _redis = Redis::start_without_waiting(&[&tls[..], &certificates].concat());
    let url = format!("rediss://:secret@localhost:{tls_port}");
    let receiver = Served::start(&["--store", &url, "--store-ca", &ca]);
    await_stored(&receiver, "h");

    let others = tempfile::tempdir().unwrap();
    make_certificates(others.path());
    let other = others.path().join("ca.pem");
    let receiver = Served::start(&["--store", &url, "--store-ca", other.to_str().unwrap()]);
    let (status, said) = post(&receiver, "h");
    let said = said["error"].as_str().unwrap();
    assert!(status == 503 && said.contains("certificate") && !said.contains("secret"), "{said}");
}

/// A node that is killed takes its hosts with it until it is back; the others go on.
#[test]
#[ignore = "needs redis-server"]
fn a_node_of_a_cluster_may_go_and_come_back() {
    for server in http_servers() {
        let mut cluster = Cluster::start();
        // Otherwise a cluster without one of its masters takes nothing at all.
        for node in &cluster.0 {
            assert_eq!(node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "+OK\r\n");
        }
        let receiver = with_server(&cluster.url(), server);
        let hosts: Vec<String> = (0..30).map(|n| format!("host-{n}")).collect();
        hosts.iter().for_each(|host| assert_eq!(post(&receiver, host).0, 200));
        cluster.0[1].kill();
        let answered: BTreeSet<u16> = hosts.iter().map(|host| post(&receiver, host).0).collect();
        assert_eq!(answered, BTreeSet::from([200, 503]));
        assert_eq!(receiver.get("/health").0, 503);
        let of_others: Vec<&String> = hosts.iter().filter(|host| post(&receiver, host).0 == 200).collect();
        assert!(of_others.iter().all(|host| post(&receiver, host).0 == 200 && receiver.samples(host, "cpu") == 4));
        // A host of another node is stored though its part of the index may be away: redis-cli gives the second of three
        // nodes the slots 5461 to 10922.
        let slot = |host: &str| -> u16 {
            let said = cluster.0[0].ask(&["CLUSTER", "KEYSLOT", &format!("lizm:{{{host}}}:host")]);
            said.trim_start_matches(':').trim_end().parse().unwrap()
        };
        let new: Vec<String> = (0..30).map(|n| format!("new-{n}")).collect();
        let new: Vec<&String> = new.iter().filter(|host| !(5461..10_923).contains(&slot(host))).collect();
        assert!(new.iter().any(|host| (5461..10_923).contains(&slot(&(slot(host) % 16).to_string()))));
        new.iter().for_each(|host| assert_eq!(post(&receiver, host).0, 200, "{host}"));
        for host in &new {
            let ask = |node: usize| cluster.0[node].ask(&["TTL", &format!("lizm:{{{host}}}:host")]);
            let lasts = |said: &str| said.trim_start_matches(':').trim_end().parse().is_ok_and(|sec: i64| sec > 0);
            assert!(lasts(&ask(0)) || lasts(&ask(2)), "{host}: {} {}", ask(0), ask(2));
        }
        cluster.0[1].start_again();
        cluster.await_ok();
        hosts.iter().for_each(|host| await_stored(&receiver, host));
        await_some("the receiver to be well", || (receiver.get("/health").0 == 200).then_some(()));
        let back = hosts.iter().filter(|host| !of_others.contains(host));
        back.for_each(|host| assert_eq!(receiver.samples(host, "cpu"), 2, "{host}"));
        // Their next samples list those that the index has missed.
        new.iter().for_each(|host| await_stored(&receiver, host));
        let listed = receiver.get("/api/hosts").1;
        let listed: BTreeSet<&str> =
            listed["hosts"].as_array().unwrap().iter().map(|host| host["host"].as_str().unwrap()).collect();
        assert!(new.iter().all(|host| listed.contains(host.as_str())), "{listed:?}");
    }
}

/// A removal that Redis refuses half-way leaves nothing that hides a host which goes on reporting.
#[test]
#[ignore = "needs redis-server"]
fn a_host_whose_removal_fails_is_listed_with_its_next_sample() {
    let redis = Redis::start(&[]);
    let receiver = on(&redis);
    await_stored(&receiver, "h");
    assert_eq!(redis.ask(&["ACL", "SETUSER", "default", "-unlink"]), "+OK\r\n");
    assert_eq!(receiver.delete("/api/perf/h").0, 503);
    let is_listed = || receiver.get("/api/hosts").1["count"] == 1;
    assert!(!is_listed());
    assert_eq!(post(&receiver, "h").0, 200);
    assert!(is_listed());
    assert_eq!(redis.ask(&["ACL", "SETUSER", "default", "+unlink"]), "+OK\r\n");
    assert_eq!(receiver.delete("/api/perf/h"), (200, json!({"removed": true})));
    assert!(!is_listed());
}

/// A host of many labels is read a few labels at a time: its answer is the same.
#[test]
#[ignore = "needs redis-server"]
fn a_host_of_many_labels_is_answered_as_in_memory() {
    let redis = Redis::start(&[]);
    let (shared, memory) = (on(&redis), Served::start(&[]));
    let at = now();
    for from in [0, 200] {
        let values: Vec<String> = (from..from + 200).map(|n| format!("\"label {n}\":{n}")).collect();
        let body = format!("{{{}}}", values.join(","));
        for receiver in [&shared, &memory] {
            assert_eq!(receiver.post(&format!("/api/perf/h/{at}"), &body).0, 200);
        }
    }
    for path in ["/api/perf/h", "/api/perf/h/label%2039", "/api/perf/h/nothing"] {
        let answers = [&shared, &memory].map(|receiver| {
            let (status, answer) = receiver.get(path);
            let averages = answer.as_object().unwrap().iter();
            (status, averages.map(|(key, summary)| (key.clone(), summary["averages"].clone())).collect::<Vec<_>>())
        });
        assert_eq!(answers[0], answers[1], "{path}");
    }
    // The running minute of every label, which may have turned since it was posted.
    let values = |receiver: &Served| -> Vec<String> {
        let metrics = receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body;
        metrics.lines().filter(|line| line.starts_with("lizm_host_value{")).map(str::to_owned).collect()
    };
    await_some("the same running minute", || {
        for receiver in [&shared, &memory] {
            assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":5,\"mem\":7}").0, 200);
        }
        let (shared, memory) = (values(&shared), values(&memory));
        (shared == memory && shared.len() >= 6).then_some(())
    });
}

/// A server whose replies come in bytewise is one that does not answer.
#[test]
#[ignore = "needs redis-server"]
fn a_redis_whose_replies_drip_is_one_that_does_not_answer() {
    let redis = Redis::start(&[]);
    let (proxy, drips) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicBool::new(false)));
    let store = format!("redis://{}", proxy.local_addr().unwrap());
    let (port, dripping) = (redis.port, drips.clone());
    thread::spawn(move || {
        for client in proxy.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            let (mut to_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut client, &mut to_server)));
            let dripping = dripping.clone();
            thread::spawn(move || {
                let mut byte = [0];
                while matches!(server.read(&mut byte), Ok(1)) && to_client.write_all(&byte).is_ok() {
                    if dripping.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(300));
                    }
                }
            });
        }
    });
    let receiver = Served::start(&["--store", &store]);
    await_stored(&receiver, "h");
    drips.store(true, Ordering::Relaxed);
    await_some("/health to say so", || {
        let (stored, health) = (post(&receiver, "h").0, receiver.get("/health"));
        assert!([200, 503].contains(&stored), "{stored}");
        (health.0 == 503 && health.1["reason"].as_str().unwrap().contains("has not answered")).then_some(())
    });
    drips.store(false, Ordering::Relaxed);
    await_stored(&receiver, "h");
}
