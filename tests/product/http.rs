//! Both HTTP servers over the wire: statuses and framing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use crate::harness::{Answer, Served, connect, http_servers, now};

/// A receiver for each server that this build has.
pub(crate) fn on_each_server() -> Vec<Served> {
    http_servers().iter().map(|server| Served::start(&["--http-server", server])).collect()
}

pub(crate) fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn every_refusal_has_its_status_and_a_sentence() {
    for receiver in on_each_server() {
        let at = format!("/api/perf/h/{}", now());
        let ahead = format!("/api/perf/h/{}", now() + 1000);
        let long_head = format!("X: {}\r\n", "x".repeat(9000));
        let long_body = format!("Content-Length: {}\r\n", (1 << 20) + 1);
        let cases: &[(Vec<u8>, u16, &str)] = &[
            (b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 404, "path"),
            (b"PATCH /api/perf/h/1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 405, "GET, HEAD, POST"),
            (post("/api/perf/a%2fb/1", "Content-Length: 2\r\n", "{}"), 400, "host"),
            (post("/api/perf/h/now", "Content-Length: 2\r\n", "{}"), 400, "epoch"),
            (post(&at, "Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400, "given twice"),
            (post(&at, "Host: y\r\nContent-Length: 2\r\n", "{}"), 400, "Host: given twice"),
            (post(&at, "Content-Length: +2\r\n", "{}"), 400, "digits"),
            (post(&at, "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 400, "together"),
            (post(&at, "Idempotency-Key: 1\r\nContent-Length: 2\r\n", "{}"), 400, "Idempotency-Key"),
            (post(&at, "Content-Length: 10\r\n", "{\"cpu\":no}"), 400, "label \"cpu\""),
            (post(&at, "", ""), 411, "Content-Length"),
            (post(&at, "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 411, "Content-Length"),
            (post(&at, &long_body, ""), 413, "the limit is 1048576"),
            (post(&at, "Content-Length: 64000000\r\n", ""), 413, "the limit is 1048576"),
            (post(&ahead, "Content-Length: 9\r\n", "{\"cpu\":1}"), 422, "the limit is 300"),
            (post(&at, &long_head, ""), 431, "8192"),
        ];
        for (request, status, part) in cases {
            let answer = receiver.raw(request);
            let shown = String::from_utf8_lossy(request);
            assert!(answer.status == *status && answer.error().contains(part), "{shown}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{shown}");
            assert_eq!(answer.header("allow").is_some(), *status == 405, "{shown}");
        }
        assert_eq!(receiver.get("/api/hosts"), (200, json!({"hosts": [], "count": 0})));
    }
}

#[test]
fn long_answers_are_compressed_for_clients_that_take_it() {
    for receiver in on_each_server() {
        let labels: Vec<String> = (0..200).map(|n| format!("\"a label of some length {n}\":1")).collect();
        assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), &format!("{{{}}}", labels.join(","))).0, 200);
        for (target, coding, is_compressed) in [
            ("/", "gzip, deflate, br", true),
            ("/api/hosts", "gzip", true),
            ("/api/perf/h", "*", true),
            ("/metrics", "gzip;q=0.5", true),
            ("/metrics", "gzip;q=0", false),
            ("/api/hosts", "br", false),
            ("/api/hosts?labels=none", "gzip", false),
        ] {
            let mut stream = receiver.connect();
            let head =
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: {coding}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nVary: Accept-Encoding\r\n"), "{head}");
            assert_eq!(head.contains("\r\nContent-Encoding: gzip\r\n"), is_compressed, "{target} {coding}: {head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", answer.len() - end)), "{head}");
            let mut text = String::new();
            match is_compressed {
                true => flate2::read::GzDecoder::new(&answer[end..]).read_to_string(&mut text).unwrap(),
                false => (&answer[end..]).read_to_string(&mut text).unwrap(),
            };
            assert!(text.len() > 100, "{target}");
        }
    }
}

#[test]
fn a_connection_is_kept_and_head_is_get_without_its_body() {
    for receiver in on_each_server() {
        let mut stream = receiver.connect();
        let sample = format!("/api/perf/h/{}", now());
        for _ in 0..3 {
            stream.write_all(&post(&sample, "Content-Length: 9\r\n", "{\"cpu\":1}")).unwrap();
            assert_eq!(Answer::read(&mut stream).status, 200);
        }
        for path in ["/api/perf/h", "/api/hosts", "/health", "/nothing"] {
            let mut ask = |method: &str| {
                stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
                if method == "HEAD" { Answer::read_head(&mut stream) } else { Answer::read(&mut stream) }
            };
            let (head, get) = (ask("HEAD"), ask("GET"));
            assert_eq!(head.status, get.status, "{path}");
            // A long answer is not built for a HEAD, so that its length is not known.
            let is_long = path.starts_with("/api/");
            assert!(is_long || head.header("content-length") == get.header("content-length"), "{path}: {head:?}");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    for receiver in on_each_server() {
        let address = receiver.address;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for _ in 0..2500 {
                        let mut stream = connect(address);
                        let two = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                        stream.write_all(two).unwrap();
                        let (first, second) = (Answer::read(&mut stream), Answer::read(&mut stream));
                        assert_eq!((first.status, first.header("connection")), (200, None));
                        assert_eq!((second.status, second.header("connection")), (404, Some("close")));
                        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                    }
                });
            }
        });
    }
}

#[test]
fn a_body_is_read_whatever_way_it_comes() {
    for receiver in on_each_server() {
        let at = now();
        let labels: Vec<String> = (0..100).map(|label| format!("\"a rather long label {label}\":{label}")).collect();
        let body = format!("{{{}}}", labels.join(","));
        assert!(body.len() > 2048);
        let mut stream = receiver.connect();
        for host in ["whole", "parts"] {
            let request =
                post(&format!("/api/perf/{host}/{at}"), &format!("Content-Length: {}\r\n", body.len()), &body);
            let parts = if host == "whole" { 1 } else { 7 };
            for part in request.chunks(request.len().div_ceil(parts)) {
                stream.write_all(part).unwrap();
            }
            assert_eq!(Answer::read(&mut stream).body, "{\"stored\":100,\"expired\":0}");
        }
        let head = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
        stream.write_all(&post(&format!("/api/perf/waits/{at}"), &head, "")).unwrap();
        assert_eq!(Answer::read_head(&mut stream).status, 100);
        stream.write_all(body.as_bytes()).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 200);
        assert_eq!(receiver.get("/api/hosts").1["count"], 3);
    }
}

#[test]
fn long_bodies_of_many_clients_are_all_taken() {
    for receiver in on_each_server() {
        let body = format!("{{\"cpu\":1{}}}", " ".repeat(2000));
        let mut streams: Vec<TcpStream> = (0..400).map(|_| receiver.connect()).collect();
        let request = |client: usize| {
            post(&format!("/api/perf/h{client}/{}", now()), &format!("Content-Length: {}\r\n", body.len()), &body)
        };
        for (client, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&request(client)[..1000]).unwrap();
        }
        for (client, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&request(client)[1000..]).unwrap();
        }
        streams.iter_mut().for_each(|stream| assert_eq!(Answer::read(stream).status, 200));
        assert_eq!(receiver.get("/api/hosts").1["count"], 400);
    }
}

#[test]
fn an_offer_of_another_protocol_is_ignored() {
    for receiver in on_each_server() {
        let at = now();
        let lines = |count: usize| format!("perf,host=h cpu=1 {at}\n").repeat(count);
        let (short, long) = (lines(1), lines(100));
        let in_chunks = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
        for (headers, body) in [
            (format!("Content-Length: {}\r\n", short.len()), &short),
            (format!("Content-Length: {}\r\n", long.len()), &long),
            ("Transfer-Encoding: chunked\r\n".to_owned(), &in_chunks),
        ] {
            let mut stream = receiver.connect();
            let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n";
            stream.write_all(&post("/write", &format!("{offer}{headers}"), body)).unwrap();
            assert_eq!(Answer::read(&mut stream).status, 204, "{headers}");
        }
        assert_eq!(receiver.samples("h", "cpu"), 201);
    }
}

#[test]
fn connections_that_are_reset_leave_it_serving() {
    for receiver in on_each_server() {
        // tiny_http loses a thread to each that is reset before it was accepted; what waits behind them is answered.
        for round in 0..5000 {
            let mut stream = receiver.connect();
            setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
            if round % 2 == 1 {
                stream.write_all(b"POST /api/perf/h/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").unwrap();
            }
            drop(stream);
            if round % 500 == 499 {
                assert_eq!(receiver.get("/health").0, 200);
            }
        }
    }
}

#[test]
fn slow_bodies_do_not_hold_the_workers() {
    for receiver in on_each_server() {
        let at = now();
        let stall = |headers: &str, body: &str| {
            let mut stream = receiver.connect();
            stream.write_all(&post("/api/perf/h/1", headers, body)).unwrap();
            stream
        };
        // What is left of a body that is refused is read away, by the threads that read long bodies.
        let refused = ["Content-Length: 2000000\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"];
        let _refused: Vec<TcpStream> = refused.repeat(50).into_iter().map(|headers| stall(headers, "5\r\nx")).collect();
        let mut stalled: Vec<TcpStream> =
            (0..100).map(|_| stall("Content-Length: 100000\r\n", &"x".repeat(50_000))).collect();
        for _ in 0..200 {
            assert_eq!(receiver.post(&format!("/api/perf/h/{at}"), "{\"cpu\":1}").0, 200);
        }
        for stream in &mut stalled {
            stream.set_nonblocking(true).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it still waits for the rest");
        }
    }
}
