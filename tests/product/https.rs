//! HTTPS over the wire: hostile requests, bytes that are no requests, and crowds of connections.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::certificates::{Secured, Tls, Trust, bearer, request, token};
use crate::harness::{Answer, await_some, connect, now, raise_limit};

/// Longest wait for the server to end a crowd of connections: idle connections end after 30 seconds.
const SHED_WITHIN: Duration = Duration::from_secs(60);

/// Threads and descriptors of a process.
fn held(pid: Pid) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    (count("task"), count("fd"))
}

fn await_held(receiver: &Secured, before: (usize, usize)) {
    let deadline = Instant::now() + SHED_WITHIN;
    loop {
        let (threads, descriptors) = held(receiver.served.process.pid());
        if threads <= before.0 && descriptors <= before.1 {
            return;
        }
        assert!(Instant::now() < deadline, "{threads} threads and {descriptors} descriptors, {before:?} before");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Reads until the other side ends the connection, whichever way it does.
fn read_to_end(mut stream: impl Read) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return all,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) => {
                let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!timed_out, "the connection was not ended");
                return all;
            }
        }
    }
}

/// Bytes inside TLS, and the status they are answered with; 0 is no answer.
fn hostile_heads() -> Vec<(&'static str, Vec<u8>, u16)> {
    let at = format!("POST /api/perf/jarvis/{} HTTP/1.1\r\nHost: x\r\n", now());
    let (token, write) =
        (bearer(&token(&["jarvis"])), "POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n");
    let post = |headers: &str, body: &str| format!("{at}{headers}\r\n{body}").into_bytes();
    let lines = |body: &str| format!("{write}{token}\r\n{body}").into_bytes();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("nonsense", text("nonsense\r\n\r\n"), 400),
        ("zeros", [&[0; 100][..], b"\r\n\r\n"].concat(), 400),
        ("HTTP/2", text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505),
        ("HTTP/0.9", text("GET /health\r\n\r\n"), 400),
        ("no version", text("GET /health HTTP/9.9\r\n\r\n"), 505),
        ("lines that end in LF", text("GET /health HTTP/1.1\nHost: x\n\n"), 400),
        ("a CR alone", text("GET /health HTTP/1.1\r\nX: a\rb\r\n\r\n"), 400),
        ("a zero in a header", text("GET /health HTTP/1.1\r\nX: \0\r\n\r\n"), 400),
        ("a folded header", text("GET /health HTTP/1.1\r\nX: a\r\n b\r\n\r\n"), 400),
        ("a space before the colon", post("Content-Length : 3\r\n", "{}\n"), 400),
        ("a head without an end", [&b"GET /health HTTP/1.1\r\nX: "[..], &[b'x'; 20_000]].concat(), 431),
        ("a line without an end", vec![b'A'; 20_000], 431),
        ("a hundred headers", format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100)).into_bytes(), 431),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 9\r\n", "{}"), 400),
        ("the same length twice", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400),
        ("a hexadecimal length", post("Content-Length: 0x2\r\n", "{}"), 400),
        ("a length with a sign", post("Content-Length: +2\r\n", "{}"), 400),
        ("lengths in a list", post("Content-Length: 2, 2\r\n", "{}"), 400),
        ("petabytes", post(&format!("{token}Content-Length: 1000000000000000\r\n"), "{}"), 413),
        ("a length of twenty digits", post(&format!("{token}Content-Length: 18446744073709551617\r\n"), "{}"), 400),
        ("a length and chunks", post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("an unknown coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("chunks where none are taken", post(&format!("{token}Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"), 411),
        ("no Host", text("GET /health HTTP/1.1\r\n\r\n"), 400),
        ("two Hosts", text("GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400),
        ("an unknown Expect", post("Expect: tea\r\nContent-Length: 0\r\n", ""), 417),
        ("a chunk of no size", lines("\r\n\r\n"), 400),
        ("an LF alone in the line of a chunk", lines("11;x\n;y\r\nperf,host=h cpu=1\r\n0\r\n\r\n"), 400),
        ("a line of a chunk that is long", lines(&format!("0;{}\r\n\r\n", "x".repeat(256))), 400),
        ("a chunk of a negative size", lines("-1\r\n\r\n"), 400),
        ("a chunk past all limits", lines("ffffffffffffffffff\r\n"), 400),
        ("a chunk past the limit of a body", lines("7fffffffffffffff\r\n"), 413),
        ("a chunk longer than it says", lines("1\r\nabc\r\n0\r\n\r\n"), 400),
        ("an endless extension", lines(&format!("1;{}", "x".repeat(9000))), 400),
        ("endless trailers", lines(&format!("0\r\n{}", "X: y\r\n".repeat(3000))), 431),
        ("half a head", text("GET /health HTTP/1.1\r\nHost:"), 0),
        ("half a body", post(&format!("{token}Content-Length: 100\r\n"), "{"), 0),
        ("half a chunk", lines("9\r\nperf"), 0),
        ("smuggled by a length", post("Content-Length: 0x0\r\n", "DELETE /api/perf/kept HTTP/1.1\r\n\r\n"), 400),
    ]
}

/// Bytes instead of TLS.
fn hostile_records() -> Vec<(&'static str, Vec<u8>)> {
    let record = |kind: u8, length: u16, body: &[u8]| [&[kind, 3, 3][..], &length.to_be_bytes(), body].concat();
    vec![
        ("plain HTTP", b"GET /health HTTP/1.1\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
        ("zeros", vec![0; 1000]),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2]),
        ("half a record", record(22, 500, &[1; 10])),
        ("a record past the limit", record(22, 0xffff, &[1; 1000])),
        ("data before a handshake", record(23, 5, b"hello")),
        ("an alert", record(21, 2, &[2, 40])),
        ("endless warnings", record(21, 2, &[1, 90]).repeat(2000)),
        ("empty records", record(22, 0, &[]).repeat(2000)),
        ("a hello of nonsense", record(22, 8, &[1, 0, 0, 4, 9, 9, 9, 9])),
        ("a hello of megabytes", record(22, 5, &[1, 0xff, 0xff, 0xff, 0])),
        ("another handshake message", record(22, 4, &[20, 0, 0, 0])),
        ("a change of ciphers first", record(20, 1, &[1]).repeat(100)),
    ]
}

#[test]
fn hostile_bytes_are_refused_and_leave_nothing_behind() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let kept = request("POST", &format!("/api/perf/kept/{}", now()), &bearer(&token(&["kept"])), "{\"cpu\":1}");
    assert_eq!(receiver.raw(&kept).status, 200);
    let before = held(receiver.served.process.pid());
    let mut good = receiver.connect();
    for (what, bytes, status) in hostile_heads() {
        let mut stream = receiver.connect();
        // What is refused before it is whole may be ended while it is still sent.
        let _ = stream.write_all(&bytes);
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
        let answer = String::from_utf8(read_to_end(stream)).unwrap();
        let given: u16 = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        assert_eq!(given, status, "{what}: {answer}");
        assert_eq!(answer.matches("\r\nDate: ").count(), usize::from(status > 0), "{what}: {answer}");
        good.write_all(&request("GET", "/health", "", "")).unwrap();
        assert_eq!(Answer::read(&mut good).status, 200, "{what}");
    }
    for (what, bytes) in hostile_records() {
        let mut stream = connect(receiver.https);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let answer = read_to_end(&stream);
        assert!(!answer.starts_with(b"HTTP") && answer.len() < 1000, "{what}: {answer:?}");
        good.write_all(&request("GET", "/health", "", "")).unwrap();
        assert_eq!(Answer::read(&mut good).status, 200, "{what}");
    }
    drop(good);
    await_held(&receiver, before);
    assert_eq!(receiver.served.get("/api/hosts").1["count"], 1);
    assert_eq!(receiver.served.samples("kept", "cpu"), 1);
}

#[test]
fn bodies_share_the_memory_that_there_is_for_them() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let token = bearer(&token(&["h"]));
    let headers = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", 8 << 20);
    let head = format!("POST /write HTTP/1.1\r\nHost: x\r\n{token}{headers}\r\n");
    // A client that is told to go on has its memory, and keeps it while its body is awaited.
    let ask = |stream: &mut Tls| {
        stream.write_all(head.as_bytes()).unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        String::from_utf8(begin.to_vec()).unwrap()
    };
    // 256 MiB are 32 of the longest.
    let mut streams: Vec<Tls> = (0..33).map(|_| receiver.connect()).collect();
    let begins: Vec<String> = streams.iter_mut().map(ask).collect();
    assert!(begins[..32].iter().all(|begin| begin == "HTTP/1.1 100"), "{begins:?}");
    assert_eq!(begins[32], "HTTP/1.1 503");
    assert_eq!(receiver.raw(&request("POST", "/write", &token, "perf,host=h cpu=1")).status, 204);
    drop(streams);
    await_some("memory that was given back", || (ask(&mut receiver.connect()) == "HTTP/1.1 100").then_some(()));
}

#[test]
#[ignore = "takes half a minute"]
fn crowds_that_hold_on_are_shed_and_nobody_else_hears_of_them() {
    raise_limit();
    let trust = Trust::new();
    let receiver = trust.receiver(&["--max-connections-per-address", "4096"]);
    let good_token = bearer(&token(&["good"]));
    let target = format!("/api/perf/good/{}", now());
    let post = request("POST", &target, &good_token, "{\"cpu\":1}");
    // What the first connections start stays.
    assert_eq!((receiver.raw(&post).status, receiver.served.raw(&post).status), (200, 200));
    let before = held(receiver.served.process.pid());
    let idle: Vec<Tls> = (0..250).map(|_| receiver.connect()).collect();
    let silent: Vec<TcpStream> = (0..250).map(|_| connect(receiver.https)).collect();
    let mut dripping: Vec<Tls> = (0..500).map(|_| receiver.connect()).collect();
    let stalled: Vec<Tls> = (0..100)
        .map(|_| {
            let mut stream = receiver.connect();
            let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{good_token}Content-Length: 100000\r\n\r\n");
            stream.write_all(&[head.as_bytes(), &[b'x'; 50_000]].concat()).unwrap();
            stream
        })
        .collect();
    let mut good = receiver.connect();
    let mut posts = 0;
    let mut begun = Instant::now();
    let drips = b"GET /health HTTP/1.1\r\nX-Drip: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in drips {
        // One that is refused is closed.
        dripping.retain_mut(|stream| stream.write_all(&[*byte]).is_ok() && stream.flush().is_ok());
        while begun.elapsed() < Duration::from_secs(1) {
            good.write_all(&post).unwrap();
            assert_eq!(Answer::read(&mut good).status, 200, "after {posts} posts");
            assert_eq!(receiver.raw(&post).status, 200, "on a new connection, after {posts} posts");
            posts += 1;
        }
        begun = Instant::now();
        if dripping.is_empty() {
            break;
        }
    }
    drop(good);
    await_held(&receiver, before);
    // They were ended, and not by this side.
    for stream in idle.into_iter().chain(stalled) {
        read_to_end(stream);
    }
    silent.into_iter().for_each(|stream| assert_eq!(read_to_end(stream), b""));
    assert_eq!(receiver.served.get("/api/hosts").1["count"], 1);
}
