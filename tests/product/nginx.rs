//! Receivers behind nginx with the configuration that is deployed: as two services on one Redis, restarted one after the
//! other, and with clients that nginx must not let harm others.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Answer, Process, Served, await_some, connect, lizm, now, reserved_address};
use crate::servers::{Nginx, Redis};

/// Two intakes, two summarizers, nginx before them and Redis behind.
struct Fleet {
    services: Vec<(Vec<String>, Served)>,
    redis: Redis,
    nginx: Nginx,
}

impl Fleet {
    fn start() -> Self {
        Self::start_with("always", "tiny_http", &[])
    }

    /// Starts Redis with its `appendfsync`, the services with one of the HTTP servers, and nginx with some lines of its
    /// configuration replaced.
    fn start_with(fsync: &str, server: &str, replaced: &[(&'static str, &str)]) -> Self {
        let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", fsync]);
        let services: Vec<(Vec<String>, Served)> = ["intake", "intake", "summaries", "summaries"]
            .map(|serve| {
                // A service that is started again has to have the port that nginx knows.
                let port = reserved_address().port();
                let options = format!("--serve {serve} --store {} --port {port} --http-server {server}", redis.url());
                let options: Vec<String> = options.split(' ').map(str::to_owned).collect();
                let served = Self::start_service(&options);
                (options, served)
            })
            .into();
        let port = |at: usize| services[at].1.address.port();
        let https = reserved_address().port();
        let nginx = Nginx::start_with([port(0), port(1)], [port(2), port(3)], https, replaced);
        Self { services, redis, nginx }
    }

    fn start_service(options: &[String]) -> Served {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Served::from(Process::start(lizm(&[&["receiver", "--bind", "127.0.0.1"], &options[..]].concat())))
    }

    /// Kills one of the services or Redis, and starts it again.
    fn kill(&mut self, number: u64) {
        let at = (number % 5) as usize;
        if at == self.services.len() {
            self.redis.kill();
            return self.redis.start_again();
        }
        self.restart(at, Process::kill);
    }

    /// Ends one of the services, and starts it again at its address.
    fn restart(&mut self, at: usize, end: impl FnOnce(Process)) {
        let (options, served) = self.services.remove(at);
        end(served.process);
        let served = Self::start_service(&options);
        self.services.insert(at, (options, served));
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.nginx.port))
    }

    /// The whole, as one receiver at the address of nginx.
    fn through_nginx(&mut self) -> Served {
        let (_, served) = self.services.pop().unwrap();
        Served { address: self.address(), process: served.process }
    }
}

#[cfg(feature = "disk")]
#[test]
#[ignore = "needs redis-server and nginx"]
fn two_services_behind_nginx_lose_nothing_whichever_is_killed() {
    use std::sync::{Arc, Mutex};

    use crate::durable::{compare, kills, start_writers};

    let mut fleet = Fleet::start();
    let (address, stop) = (Arc::new(Mutex::new(fleet.address())), Arc::new(AtomicBool::new(false)));
    let writers = start_writers(4, &address, &stop);
    for kill in 0..kills(30) {
        // A moment that differs from kill to kill.
        thread::sleep(Duration::from_millis(50 + kill * 7919 % 180));
        fleet.kill(kill);
    }
    stop.store(true, Ordering::Relaxed);
    let writers: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for (_, service) in &fleet.services {
        await_some("a service to be well", || (service.get("/health").0 == 200).then_some(()));
    }
    let whole = fleet.through_nginx();
    let total = compare(&whole, &writers);
    println!("{total} samples in the ledger, 0 lost, 0 doubled, {} kills", kills(30));
}

#[test]
#[ignore = "needs redis-server and nginx"]
fn one_address_leads_to_both_services_and_below_a_path_too() {
    let mut fleet = Fleet::start();
    let (intake, summaries) = (fleet.services[0].1.address, fleet.services[2].1.address);
    let whole = fleet.through_nginx();
    let name = "caf%C3%A9%20%2525";
    for (below, samples) in [("", 1), ("/lizm", 2)] {
        let at = format!("{below}/api/perf/{name}");
        assert_eq!(whole.post(&format!("{at}/{}", now()), "{\"a/b\":1}").0, 200);
        let (_, answer) = whole.get(&format!("{at}/by-hour:a%2Fb"));
        assert_eq!(answer["summary:by-hour:a/b"]["averages"][0]["num-samples"], samples);
        assert_eq!(whole.get(&format!("{below}/api/hosts?limit=1")).1["hosts"][0]["host"], "café %25");
        assert_eq!(whole.get(&format!("{below}/ping")).0, 204);
        assert_eq!(whole.post(&format!("{below}/write?precision=s"), "perf,host=lines cpu=1\n").0, 204);
        // A query by POST reads, and what a client accepts gets through.
        let query = whole.post(&format!("{below}/api/v1/query"), "query=lizm_cpu{host=\"lines\"}");
        assert_eq!((query.0, &query.1["data"]["result"][0]["value"][1]), (200, &json!("1")), "{}", query.1);
        let csv =
            whole.raw(format!("GET {below}/api/perf/lines HTTP/1.1\r\nHost: h\r\nAccept: text/csv\r\n\r\n").as_bytes());
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
        let page = whole.raw(format!("GET {below}/ HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    }
    let moved = whole.raw(b"GET /lizm HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((moved.status, moved.header("location")), (301, Some("/lizm/")));
    assert_eq!(whole.samples("lines", "cpu"), 2);
    assert_eq!(whole.delete(&format!("/api/perf/{name}")), (200, json!({"removed": true})));
    // Each by itself names the other.
    let mut at = whole;
    at.address = intake;
    assert!(at.get("/api/hosts").1["error"].as_str().unwrap().contains("--serve summaries"));
    at.address = summaries;
    let refused = at.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").1;
    assert!(refused["error"].as_str().unwrap().contains("--serve intake"));
}

#[cfg(feature = "tls")]
#[test]
#[ignore = "needs nginx"]
fn https_is_passed_through_with_the_certificates_of_clients() {
    use crate::certificates::{Client, Trust, Wanted, request};

    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let plain = receiver.served.address.port();
    let nginx = Nginx::start([plain; 2], [plain; 2], receiver.https.port());
    let client = Client::new(&trust.root, Some(&trust.root.sign(&Wanted::client(&["jarvis"]))));
    let mut stream = client.connect(SocketAddr::from(([127, 0, 0, 1], nginx.passed_port))).unwrap();
    stream.write_all(&request("POST", "/api/token", "", "")).unwrap();
    let answer = Answer::read(&mut stream);
    let given: serde_json::Value = serde_json::from_str(&answer.body).expect(&answer.body);
    assert_eq!((answer.status, &given["hosts"]), (200, &json!(["jarvis"])));
}

/// Requests whose end two servers may see in different places, each with another one behind it, which nginx must not let
/// through.
const TRICKS: &[(&str, &str)] = &[
    ("a length and chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nINNER"),
    ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n\r\nINNER"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 9\r\n\r\nINNER"),
    ("a list of lengths", "Content-Length: 0, 9\r\n\r\nINNER"),
    ("a length with a sign", "Content-Length: +0\r\n\r\nINNER"),
    ("a length in hexadecimal", "Content-Length: 0x0\r\n\r\nINNER"),
    ("a length below zero", "Content-Length: -1\r\n\r\nINNER"),
    ("a length past 2^64", "Content-Length: 18446744073709551616\r\n\r\nINNER"),
    ("a blank before the colon", "Content-Length : 0\r\n\r\nINNER"),
    ("a blank before the name", " Content-Length: 0\r\n\r\nINNER"),
    ("a line that goes on", "X: a\r\n Content-Length: 0\r\n\r\nINNER"),
    ("chunks of another name", "Transfer-Encoding: xchunked\r\n\r\nINNER"),
    ("chunks and something else", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nINNER"),
    ("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nINNER"),
    ("chunks after a vertical tab", "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nINNER"),
    ("a chunk of no size", "Transfer-Encoding: chunked\r\n\r\n\r\nINNER"),
    ("a chunk of a negative size", "Transfer-Encoding: chunked\r\n\r\n-1\r\nINNER"),
    ("an end of line alone in a value", "X: a\rContent-Length: 0\r\n\r\nINNER"),
    ("a null in a value", "X: a\0b\r\nContent-Length: 0\r\n\r\nINNER"),
];

/// The status of each answer on a connection, until it ends or is silent.
fn statuses(address: SocketAddr, request: &str) -> Vec<u16> {
    let mut stream = connect(address);
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // One that is refused early may be gone before it was sent whole.
    let _ = stream.write_all(request.as_bytes());
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    let answers = String::from_utf8_lossy(&answers).into_owned();
    let lines = answers.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    lines.filter(|status| *status != 100).collect()
}

#[test]
#[ignore = "needs redis-server and nginx"]
fn tricks_with_the_end_of_a_request_have_one_verdict_behind_nginx_and_without() {
    let mut fleet = Fleet::start();
    let intake = fleet.services[0].1.address;
    let whole = fleet.through_nginx();
    for (trick, rest) in TRICKS {
        for target in [format!("/api/perf/outer/{}", now()), "/write".to_owned()] {
            let send = |address, host| {
                let at = now();
                let inner =
                    format!("POST /api/perf/{host}/{at} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{\"cpu\":1}}");
                let request = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{rest}").replace("INNER", &inner);
                statuses(address, &request)
            };
            let (through, directly) = (send(whole.address, "smuggled"), send(intake, "inner"));
            let is_refused = |statuses: &[u16]| statuses.first().is_none_or(|status| *status >= 400);
            assert!(
                through.first() == directly.first() || is_refused(&through) || is_refused(&directly),
                "{trick}, {target}: {through:?} through nginx, {directly:?} directly"
            );
            let (_, hosts) = whole.get("/api/hosts");
            let is_smuggled = hosts["hosts"].as_array().unwrap().iter().any(|host| host["host"] == "smuggled");
            assert!(!is_smuggled, "{trick}, {target}: {through:?} through nginx, {directly:?} directly");
        }
    }
}

/// A stopped service answers what nginx sends it on kept connections, each for the last time.
#[test]
#[ignore = "needs redis-server and nginx"]
fn a_rolling_restart_under_load_shows_no_client_an_error() {
    restart_under_load("tiny_http", &[]);
}

#[cfg(feature = "builtin")]
#[test]
#[ignore = "needs redis-server and nginx"]
fn a_rolling_restart_of_builtin_servers_shows_no_client_an_error() {
    restart_under_load("builtin", &[]);
}

/// As nginx is where nobody has asked it to keep its connections: each request has one of its own.
const NOT_KEPT: &[(&str, &str)] = &[("keepalive 64;", ""), ("Connection \"\"", "Connection close")];

#[test]
#[ignore = "needs redis-server and nginx"]
fn a_rolling_restart_behind_an_nginx_that_keeps_no_connection() {
    restart_under_load("tiny_http", NOT_KEPT);
}

#[cfg(feature = "builtin")]
#[test]
#[ignore = "needs redis-server and nginx"]
fn a_rolling_restart_of_builtin_servers_behind_an_nginx_that_keeps_no_connection() {
    restart_under_load("builtin", NOT_KEPT);
}

fn restart_under_load(server: &str, replaced: &[(&'static str, &str)]) {
    // No disk has a part in it: one that stands still for half a second is answered 503.
    let mut fleet = Fleet::start_with("no", server, replaced);
    let (address, is_over) = (fleet.address(), AtomicBool::new(false));
    let send = |client: usize| {
        let (mut stream, mut requests) = (connect(address), 0);
        while !is_over.load(Ordering::Relaxed) {
            let head = format!("POST /api/perf/h{client}/{} HTTP/1.1\r\nHost: x\r\n", now());
            let post = format!("{head}Content-Length: 9\r\n\r\n{{\"cpu\":1}}");
            for request in [&post, "GET /api/hosts HTTP/1.1\r\nHost: x\r\n\r\n"] {
                stream.write_all(request.as_bytes()).unwrap();
                let answer = Answer::read(&mut stream);
                assert_eq!(answer.status, 200, "{answer:?}");
                requests += 1;
            }
            if requests % 500 == 0 {
                // nginx ends a connection after a thousand requests.
                stream = connect(address);
            }
        }
        requests
    };
    let requests = thread::scope(|scope| {
        let (send, clients) = (&send, 0..8);
        let clients: Vec<_> = clients.map(|client| scope.spawn(move || send(client))).collect();
        for at in [0, 2, 1, 3] {
            fleet.restart(at, |process| assert!(process.stop(Signal::SIGTERM).0.success()));
            // Until nginx takes it for one that is there.
            let route = if at < 2 { "submit" } else { "hosts" };
            let count = format!("lizm_http_request_duration_seconds_count{{route=\"{route}\"}}");
            await_some("the service to get requests again", || {
                let metrics =
                    fleet.services[at].1.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                metrics.body.contains(&count).then_some(())
            });
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
    });
    println!("{requests} requests answered over four restarts");
}

/// tiny_http ends a connection without an answer at a byte beyond ASCII, and nginx takes out a receiver that does so.
#[test]
#[ignore = "needs nginx"]
fn what_one_client_sends_takes_no_receiver_out() {
    let receivers = [Served::start(&[]), Served::start(&[])];
    let [one, two] = [0, 1].map(|at| receivers[at].address.port());
    let nginx = Nginx::start([one, two], [one, two], one);
    let address = SocketAddr::from(([127, 0, 0, 1], nginx.port));
    let send = |request: &[u8]| {
        let mut stream = connect(address);
        stream.write_all(request).unwrap();
        Answer::read(&mut stream)
    };
    let get = |target: &[u8], headers: &[u8]| {
        [b"GET ", target, b" HTTP/1.1\r\nConnection: close\r\nHost: x", headers, b"\r\n\r\n"].concat()
    };
    for (hostile, status) in [
        (get(b"/api/perf/stra\xdfe", b""), 400),
        (get(b"/api/hosts", b".\xe9"), 400),
        (get(b"/api/hosts", b"\r\nX-Forwarded-For: \xff"), 400),
        (get(b"/api/hosts", b"\r\nIdempotency-Key: \x80-1"), 400),
        (get(b"/api/hosts", b"\r\nReferer: \xff"), 200),
    ] {
        for _ in 0..3 {
            let answer = send(&hostile);
            assert_eq!(answer.status, status, "{} {answer:?}", String::from_utf8_lossy(&hostile));
            assert_eq!(send(&get(b"/api/hosts", b"")).status, 200, "others are served on");
        }
    }
}

#[test]
#[ignore = "needs nginx"]
fn refusals_reach_the_client() {
    refuse_behind_nginx("tiny_http");
}

#[cfg(feature = "builtin")]
#[test]
#[ignore = "needs nginx"]
fn refusals_of_the_builtin_server_reach_the_client() {
    refuse_behind_nginx("builtin");
}

/// With the sentence of the receiver, whatever the length of the body.
fn refuse_behind_nginx(server: &str) {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("token.key");
    std::fs::write(&key, "a key of a test, of more than thirty-two bytes\n").unwrap();
    let receiver = Served::start(&["--http-server", server, "--token-key", key.to_str().unwrap()]);
    let port = receiver.address.port();
    let nginx = Nginx::start([port; 2], [port; 2], port);
    for (port, length) in
        [10, 1500, 200_000, 8 << 20].into_iter().flat_map(|length| [(port, length), (nginx.port, length)])
    {
        let mut stream = connect(([127, 0, 0, 1], port).into());
        let head = format!("POST /api/perf/h/{} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n", now());
        stream.write_all(&[head.as_bytes(), &vec![b'x'; length]].concat()).unwrap();
        let answer = Answer::read(&mut stream);
        assert!(answer.status == 401 && answer.error().contains("token"), "{length} to {port}: {answer:?}");
    }
}
