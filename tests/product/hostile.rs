//! Hostile clients: the corpus, and floods of names and of connections. The same process serves on, holds no more than
//! before, and has counted what it refused.
//!
//! Each entry is sent a few times here, and as often as `LIZM_TEST_HOSTILE` says by `make hostile`.

mod corpus;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::iter;
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Answer, Served, await_some, connect, now};
use corpus::{End, Entry, HELD_BY_TINY_HTTP};

/// How often an entry is sent, unless `LIZM_TEST_HOSTILE` says how often.
const TIMES: usize = 3;
/// Threads that send it, and the time between two requests of a client that does nothing wrong meanwhile.
const SENDERS: usize = 8;
const KEEP_EVERY: Duration = Duration::from_millis(10);
/// Most memory that the receiver may have had under all of it, in bytes.
const RESIDENT_BYTES_MAX: u64 = 256_000_000;
/// Most memory in bytes for each thread that tiny_http is left with, when all is over.
const THREAD_BYTES_MAX: usize = 64 << 10;
/// Longest wait for an answer of tiny_http, which gives it behind what all others have sent at once.
const BEHIND_FLOODS: Duration = Duration::from_secs(120);
/// Descriptors that may be more than at the start, when all is over, and threads, of which tiny_http keeps idle ones.
const DESCRIPTORS_MORE_MAX: usize = 4;
const THREADS_MORE_MAX: usize = 32;
/// Stands for the status of a connection that was not ended within the patience of a test.
const NOT_ENDED: u16 = u16::MAX;
/// Longest wait until they are.
const HELD_WITHIN: Duration = Duration::from_secs(60);

fn times() -> usize {
    of_environment("LIZM_TEST_HOSTILE", TIMES)
}

/// The numbers of `/metrics`.
fn metrics(receiver: &Served) -> BTreeMap<String, f64> {
    let mut stream = receiver.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 200);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let number = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    lines.filter_map(number).collect()
}

/// The most memory that a receiver has had so far.
fn most_resident_bytes(receiver: &Served) -> u64 {
    of_status(receiver, "VmHWM:")
}

/// The memory that it has now.
fn resident_bytes(receiver: &Served) -> u64 {
    of_status(receiver, "VmRSS:")
}

fn of_status(receiver: &Served, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", receiver.process.pid())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    1024 * kib.unwrap().parse::<u64>().unwrap()
}

/// Threads and descriptors of a receiver. It is not asked: each request would keep an idle thread of tiny_http from ending.
fn held(receiver: &Served) -> [usize; 2] {
    ["task", "fd"].map(|of| std::fs::read_dir(format!("/proc/{}/{of}", receiver.process.pid())).unwrap().count())
}

/// Waits until threads and descriptors are back to those of `before`.
fn await_held(receiver: &Served, before: [usize; 2]) {
    let deadline = Instant::now() + HELD_WITHIN;
    loop {
        let after = held(receiver);
        if after[0] <= before[0] + THREADS_MORE_MAX && after[1] <= before[1] + DESCRIPTORS_MORE_MAX {
            return;
        }
        assert!(Instant::now() < deadline, "{after:?} threads and descriptors, {before:?} before");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The same, and it has never had much memory.
fn await_release(receiver: &Served, before: [usize; 2]) {
    await_held(receiver, before);
    assert!(most_resident_bytes(receiver) < RESIDENT_BYTES_MAX, "{}", most_resident_bytes(receiver));
}

/// Reads what an entry is answered with until the other side ends the connection: the first status, 0 for
/// none, or [`NOT_ENDED`].
fn first_status(mut stream: impl Read) -> u16 {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) => {
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                    return NOT_ENDED;
                }
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&all);
    let statuses = text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    statuses.into_iter().find(|status| *status != 100).unwrap_or(0)
}

/// Whether an entry that was to end like `end` has done so.
fn is_as_wanted(end: End, status: u16) -> bool {
    match end {
        End::Answered(wanted) => status == wanted,
        End::Cut(wanted) => status == wanted || status == 0,
        End::Closed => status == 0,
    }
}

/// Stores one sample, of a host that entries of the corpus try to remove.
fn keep(mut stream: impl Read + Write) {
    let body = "{\"cpu\":1}";
    let head = format!("POST /api/perf/kept/{} HTTP/1.1\r\nHost: x\r\nContent-Length: {}", now(), body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 200);
}

/// Sends each entry of the corpus as often as it is to be; `send` tells the status of one that has not ended as wanted.
/// Meanwhile a client that does nothing wrong stores samples by `keep`; the number of them is returned.
fn survives_the_corpus(send: impl Fn(&Entry) -> Option<u16> + Sync, mut keep: impl FnMut()) -> u64 {
    let (entries, next) = (corpus::entries(), AtomicUsize::new(0));
    let all = times() * entries.len();
    let send_some = || {
        let numbers = iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)).take_while(|number| *number < all);
        let entries = numbers.map(|number| &entries[number / times()]);
        entries.filter_map(|entry| Some((entry.name, send(entry)?))).collect::<Vec<_>>()
    };
    let mut waits = thread::scope(|scope| {
        let senders = [(); SENDERS].map(|()| scope.spawn(send_some));
        let mut waits = Vec::new();
        while next.load(Ordering::Relaxed) < all {
            let began = Instant::now();
            keep();
            waits.push(began.elapsed());
            thread::sleep(KEEP_EVERY);
        }
        let wrong: Vec<_> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        assert!(wrong.is_empty(), "of {all} requests {} ended in another way: {wrong:?}", wrong.len());
        waits
    });
    waits.sort_unstable();
    let [p99, most] = [waits.len() * 99 / 100, waits.len() - 1].map(|place| waits[place]);
    println!("{all} hostile requests, {} good ones meanwhile: p99 {p99:?}, at most {most:?}", waits.len());
    waits.len() as u64
}

/// Nothing of the corpus is left: threads and descriptors are those of `before`, and what is stored is those samples alone.
#[cfg(feature = "builtin")]
fn assert_kept_alone(receiver: &Served, before: [usize; 2], samples: u64) {
    await_release(receiver, before);
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
    assert_eq!(receiver.samples("kept", "cpu"), samples);
}

/// What tiny_http answers to an entry is not asked. It lives, answers everybody else, and ends every connection but those
/// that it is known to hold. Of a thousand times most is spent on heads of 10 MB, which it reads byte by byte.
#[test]
fn tiny_http_survives_the_corpus_and_is_left_with_what_it_holds_for_good() {
    let receiver = Served::start(&[]);
    let (address, before) = (receiver.address, held(&receiver));
    let connect_patiently = || {
        let stream = connect(address);
        stream.set_read_timeout(Some(BEHIND_FLOODS)).unwrap();
        stream
    };
    let send = |entry: &Entry| {
        let mut stream = connect_patiently();
        // What is refused before it is whole may be ended while it is still sent.
        let _ = stream.write_all(&entry.bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        if !HELD_BY_TINY_HTTP.contains(&entry.name) {
            return Some(first_status(stream)).filter(|status| *status == NOT_ENDED);
        }
        keep(connect_patiently());
        None
    };
    survives_the_corpus(send, || keep(connect_patiently()));
    let for_good = HELD_BY_TINY_HTTP.len() * times();
    // Each thread that may be more may have a connection too.
    await_held(&receiver, [before[0] + for_good, before[1] + 2 * (for_good + THREADS_MORE_MAX)]);
    let (bytes, bytes_max) = (resident_bytes(&receiver), RESIDENT_BYTES_MAX + (THREAD_BYTES_MAX * for_good) as u64);
    println!(
        "{for_good} threads are held for good; {bytes} bytes resident, {} at most",
        most_resident_bytes(&receiver)
    );
    assert!(bytes < bytes_max, "{bytes} bytes resident, the limit is {bytes_max}");
    assert_eq!(receiver.get("/health").0, 200);
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
}

#[cfg(feature = "builtin")]
#[test]
fn the_builtin_server_survives_the_corpus_and_keeps_nothing() {
    let receiver = Served::start(&["--http-server", "builtin"]);
    let (address, mut kept, before) = (receiver.address, receiver.connect(), held(&receiver));
    let send = |entry: &Entry| {
        let mut stream = connect(address);
        let _ = stream.write_all(&entry.bytes);
        let _ = stream.shutdown(Shutdown::Write);
        Some(first_status(stream)).filter(|status| !is_as_wanted(entry.end, *status))
    };
    let samples = survives_the_corpus(send, || keep(&mut kept));
    assert_kept_alone(&receiver, before, samples);
}

#[cfg(feature = "tls")]
#[test]
fn https_survives_the_corpus_and_keeps_nothing() {
    let trust = crate::certificates::Trust::new();
    let receiver = trust.open_receiver(&[]);
    let (client, address) = (&receiver.client, receiver.https);
    let (mut kept, before) = (receiver.connect(), held(&receiver.served));
    let send = |entry: &Entry| {
        let mut stream = client.connect(address).unwrap();
        let _ = stream.write_all(&entry.bytes);
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
        Some(first_status(stream)).filter(|status| !is_as_wanted(entry.end, *status))
    };
    let samples = survives_the_corpus(send, || keep(&mut kept));
    assert_kept_alone(&receiver.served, before, samples);
}

/// What connections have sent when they are reset.
const SENT_BEFORE_RESET: [&[u8]; 4] =
    [b"", b"GET /hea", b"GET /health HTTP/1.1\r\n\r\n", b"POST /write HTTP/1.1\r\nContent-Length: 9\r\n\r\n"];

/// Has a connection end by a reset, when it is closed.
fn reset_at_the_end(stream: &TcpStream) {
    setsockopt(stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

#[test]
fn connections_that_are_reset_leave_nothing_behind() {
    let receiver = Served::start(&[]);
    let before = held(&receiver);
    for bytes in SENT_BEFORE_RESET {
        for _ in 0..times() {
            let mut stream = receiver.connect();
            let _ = stream.write_all(bytes);
            reset_at_the_end(&stream);
        }
    }
    await_release(&receiver, before);
}

#[cfg(feature = "tls")]
#[test]
fn connections_of_tls_that_are_reset_leave_nothing_behind() {
    let trust = crate::certificates::Trust::new();
    let receiver = trust.open_receiver(&[]);
    let before = held(&receiver.served);
    for bytes in SENT_BEFORE_RESET {
        for _ in 0..times() {
            let mut secured = receiver.connect();
            let _ = secured.write_all(bytes).and_then(|()| secured.flush());
            reset_at_the_end(&secured.sock);
            let mut plain = connect(receiver.https);
            let _ = plain.write_all(bytes);
            reset_at_the_end(&plain);
        }
    }
    await_release(&receiver.served, before);
}

#[test]
fn every_hostile_datagram_is_counted_and_none_is_stored() {
    let receiver = Served::start(&["--udp", "127.0.0.1:0"]);
    let to = receiver.udp();
    let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
    let before = held(&receiver);
    let mut sent = 0;
    for (name, bytes) in corpus::datagrams() {
        for _ in 0..times() {
            socket.send_to(&bytes, to).unwrap();
            sent += 1;
            // One at a time, so that no buffer overflows.
            await_some(&format!("{name} to be counted, {sent} with it"), || {
                let after = metrics(&receiver);
                (after["lizm_samples_refused_total{reason=\"malformed\"}"] == f64::from(sent)).then_some(())
            });
        }
    }
    await_release(&receiver, before);
    assert_eq!(receiver.get("/api/hosts").1["count"], 0);
}

#[cfg(feature = "zeromq")]
#[test]
fn every_hostile_message_is_counted_and_none_is_stored() {
    let receiver = Served::start(&["--zmq", "tcp://127.0.0.1:0"]);
    let socket = zmq::Context::new().socket(zmq::PUSH).unwrap();
    socket.connect(&receiver.zmq()).unwrap();
    let before = held(&receiver);
    let messages = corpus::datagrams();
    for (_, bytes) in messages.iter().cycle().take(times() * messages.len()) {
        socket.send(bytes, 0).unwrap();
    }
    let sent = (times() * messages.len()) as f64;
    await_some("all of them to be counted", || {
        (metrics(&receiver)["lizm_samples_refused_total{reason=\"malformed\"}"] >= sent).then_some(())
    });
    assert_eq!(metrics(&receiver)["lizm_samples_refused_total{reason=\"malformed\"}"], sent);
    await_release(&receiver, before);
    assert_eq!(receiver.get("/api/hosts").1["count"], 0);
}

/// Connections that are held, and for how many seconds, unless the environment says how many.
const CONNECTIONS: usize = 500;
const HOLD_SEC: usize = 3;
/// Threads that hold them.
const HOLDERS: usize = 20;

fn of_environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

#[test]
fn every_connection_of_a_fleet_is_answered_each_second() {
    let connections = of_environment("LIZM_TEST_CONNECTIONS", CONNECTIONS);
    let hold_sec = of_environment("LIZM_TEST_HOLD_SEC", HOLD_SEC);
    let receiver = Served::start(&[]);
    let started = Instant::now();
    let address = receiver.address;
    let hold = |holder: usize| {
        let mut streams: Vec<TcpStream> = (holder..connections).step_by(HOLDERS).map(|_| connect(address)).collect();
        for second in 0..hold_sec {
            thread::sleep((started + Duration::from_secs(second as u64)).saturating_duration_since(Instant::now()));
            for (place, stream) in streams.iter_mut().enumerate() {
                let head = format!("POST /api/perf/h{holder}-{place}/{} HTTP/1.1\r\nHost: x\r\n", now());
                stream.write_all(format!("{head}Content-Length: 9\r\n\r\n{{\"cpu\":1}}").as_bytes()).unwrap();
            }
            streams.iter_mut().for_each(|stream| assert_eq!(Answer::read(stream).status, 200));
        }
    };
    thread::scope(|scope| (0..HOLDERS).for_each(|holder| drop(scope.spawn(move || hold(holder)))));
    let after = metrics(&receiver);
    assert_eq!(after["lizm_hosts"], connections as f64);
    assert_eq!(after["lizm_values_stored_total"], (connections * hold_sec) as f64);
    println!("{connections} connections for {hold_sec} s: {} bytes resident", after["process_resident_memory_bytes"]);
}

/// Most series of the receivers that are flooded with names.
const SERIES_MAX: usize = 10_000;
/// New names that each flood has, unless `LIZM_TEST_FLOOD` says how many.
const FLOOD: usize = 30_000;
/// Bytes by which memory may grow once the cap is met.
const GROWN_BYTES_MAX: f64 = 16e6;

#[test]
fn floods_of_names_meet_the_cap_and_existing_series_are_served_on() {
    let flood = of_environment("LIZM_TEST_FLOOD", FLOOD);
    let receiver = Served::start(&["--max-series", &SERIES_MAX.to_string()]);
    let at = now();
    let kept = format!("/api/perf/kept/{at}");
    assert_eq!(receiver.post(&kept, "{\"cpu\":1}").0, 200);
    let mut stream = receiver.connect();
    let (mut posts, mut resident_bytes) = (1, None);
    let forms: [fn(usize) -> String; 2] = [|n| format!("perf,host=h{n} cpu=1"), |n| format!("perf,host=kept l{n}=1")];
    for form in forms {
        for first in (0..flood).step_by(10_000) {
            let lines: Vec<String> = (first..flood.min(first + 10_000)).map(|n| format!("{} {at}", form(n))).collect();
            let body = lines.join("\n") + "\n";
            let head = format!("POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
            // Of the first there is room for all but one.
            assert_eq!(Answer::read(&mut stream).status, if posts == 1 { 400 } else { 429 });
            assert_eq!(receiver.post(&kept, "{\"cpu\":1}"), (200, serde_json::json!({"stored": 1, "expired": 0})));
            posts += 1;
            resident_bytes.get_or_insert_with(|| metrics(&receiver)["process_resident_memory_bytes"]);
        }
    }
    let after = metrics(&receiver);
    let grown_bytes = after["process_resident_memory_bytes"] - resident_bytes.unwrap();
    assert!(grown_bytes < GROWN_BYTES_MAX, "{grown_bytes}");
    assert_eq!(after["lizm_series"], SERIES_MAX as f64);
    // One series was there before.
    let refused = 2 * flood - (SERIES_MAX - 1);
    assert_eq!(after["lizm_samples_refused_total{reason=\"max_series\"}"], refused as f64);
    assert_eq!(receiver.samples("kept", "cpu"), posts);
    assert!(most_resident_bytes(&receiver) < RESIDENT_BYTES_MAX, "{}", most_resident_bytes(&receiver));
}

/// A thread of tiny_http that is held for good may have been given another connection too.
#[test]
fn who_comes_behind_a_burst_that_holds_its_threads_is_answered() {
    let receiver = Served::start(&[]);
    for _ in 0..30 {
        for _ in 0..40 {
            receiver.connect().write_all(b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n").unwrap();
        }
        assert_eq!(receiver.get("/health").0, 200);
    }
}
