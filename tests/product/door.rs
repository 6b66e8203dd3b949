//! The plain door over the wire: statuses, framing, and requests that mean no good.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::libc::linger;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt, sockopt};
use serde_json::json;

use crate::harness::{Answer, Process, Served, await_some, connect, now, raise_limit};

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn every_refusal_has_its_status_and_a_sentence() {
    let receiver = Served::start(&[]);
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
        (post(&at, "Content-Length: +2\r\n", "{}"), 400, "digits"),
        (post(&at, "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 400, "together"),
        (post(&at, "Content-Length: 2\r\nConnection: upgrade\r\nUpgrade: h2c\r\n", "{}"), 400, "upgrade"),
        (post(&at, "Idempotency-Key: 1\r\nContent-Length: 2\r\n", "{}"), 400, "Idempotency-Key"),
        (post(&at, "Content-Length: 10\r\n", "{\"cpu\":no}"), 400, "label \"cpu\""),
        (post(&at, "", ""), 411, "Content-Length"),
        (post(&at, "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 411, "Content-Length"),
        (post(&at, &long_body, ""), 413, "the limit is 1048576"),
        (post(&at, "Content-Length: 1000000000000000\r\n", ""), 413, "the limit is 1048576"),
        (post(&ahead, "Content-Length: 9\r\n", "{\"cpu\":1}"), 422, "the limit is 300"),
        (post(&at, &long_head, ""), 431, "the limit is 8192"),
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

#[test]
fn a_connection_is_kept_and_head_is_get_without_its_body() {
    let receiver = Served::start(&[]);
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
        assert_eq!((head.status, head.header("content-length")), (get.status, get.header("content-length")), "{path}");
    }
}

/// Two workers that take the two requests of a connection at the same time must not answer them the wrong way round:
/// inside tiny_http the second waits for the first, which then never has its turn. One in a thousand did.
#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let receiver = Served::start(&[]);
    let address = receiver.address;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..2500 {
                    let mut stream = connect(address);
                    let two = b"GET /health HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n";
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

#[test]
fn a_body_is_read_whatever_way_it_comes() {
    let receiver = Served::start(&[]);
    let at = now();
    let labels: Vec<String> = (0..100).map(|label| format!("\"a rather long label {label}\":{label}")).collect();
    let body = format!("{{{}}}", labels.join(","));
    assert!(body.len() > 2048);
    let mut stream = receiver.connect();
    for host in ["whole", "parts"] {
        let request = post(&format!("/api/perf/{host}/{at}"), &format!("Content-Length: {}\r\n", body.len()), &body);
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

#[test]
fn a_thousand_declared_petabytes_leave_the_same_process_serving() {
    let receiver = Served::start(&[]);
    let request = post("/api/perf/h/1", "Content-Length: 1000000000000000\r\n", "");
    for _ in 0..1000 {
        assert_eq!(receiver.raw(&request).status, 413);
    }
    assert_eq!(receiver.get("/health").0, 200);
    let (status, lines) = receiver.process.stop(Signal::SIGINT);
    assert!(status.success() && lines.last().unwrap().ends_with("1000 parked"), "{lines:?}");
}

#[test]
fn past_its_budget_of_parked_requests_the_door_says_that_it_is_not_well() {
    let receiver = Served::start(&[]);
    let request = post("/api/perf/h/1", "Content-Length: 1000000000000000\r\n", "");
    for _ in 0..2048 {
        assert_eq!(receiver.raw(&request).status, 413);
    }
    let (status, health) = receiver.get("/health");
    assert_eq!(status, 200, "{health}");
    assert_eq!(receiver.raw(&request).status, 413);
    let (status, health) = receiver.get("/health");
    assert!(status == 503 && health["reason"].as_str().unwrap().contains("2049"), "{health}");
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").0, 200, "it serves on all the same");
}

#[test]
#[ignore = "takes a minute or more"]
fn running_out_of_descriptors_ends_with_them() {
    // The shell sets the limit that the receiver would raise.
    let receiver = format!("ulimit -n 40; exec {} receiver --port 0 --bind 127.0.0.1", env!("CARGO_BIN_EXE_lizm"));
    let mut command = Command::new("sh");
    command.args(["-c", &receiver]).stdin(Stdio::null()).stdout(Stdio::piped());
    let receiver = Served::from(Process::start(command));
    for round in 0..20 {
        // Each connection takes two descriptors of the receiver, so that twice as many as it has are wanted.
        let held: Vec<TcpStream> = (0..40).map(|_| receiver.connect()).collect();
        let mut last = receiver.connect();
        last.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        last.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        assert!(last.read(&mut [0]).is_err(), "round {round}: there was a descriptor left");
        drop((held, last));
        // A connection that is taken without a descriptor left for it is reset.
        let health = receiver.url("/health");
        await_some("the door to open again", || ureq::get(&health).call().ok());
    }
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
}

#[test]
fn connections_that_are_reset_leave_it_serving() {
    let receiver = Served::start(&[]);
    for round in 0..500 {
        let mut stream = receiver.connect();
        setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        if round % 2 == 1 {
            stream.write_all(b"POST /api/perf/h/1 HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").unwrap();
        }
        drop(stream);
    }
    assert_eq!(receiver.get("/health").0, 200);
}

#[test]
fn clients_that_do_not_read_their_answers_hold_nobody() {
    let receiver = Served::start(&[]);
    let labels: Vec<String> = (0..256).map(|label| format!("\"label {label}\":1")).collect();
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), &format!("{{{}}}", labels.join(","))).0, 200);
    // More than there are workers, each asking for more than the buffers of two sockets hold.
    let deaf = |path: &str, requests: usize| {
        let mut stream = receiver.connect();
        setsockopt(&stream, sockopt::RcvBuf, &4096).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").repeat(requests).as_bytes()).unwrap();
        stream
    };
    let long: Vec<TcpStream> = (0..20).map(|_| deaf("/api/perf/h", 40)).collect();
    let short: Vec<TcpStream> = (0..20).map(|_| deaf("/api/perf/h/label%201", 2000)).collect();
    for _ in 0..20 {
        assert_eq!(receiver.get("/health").0, 200);
    }
    drop((long, short));
}

/// A receiver that has the host `h`, which a request that is done by mistake deletes.
fn receiver_of_a_host() -> Served {
    let receiver = Served::start(&[]);
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").0, 200);
    receiver
}

#[test]
fn nothing_is_done_after_a_body_of_uncertain_end() {
    let receiver = receiver_of_a_host();
    for length in ["Content-Length: 0x24\r\n", "Content-Length: 0\r\nContent-Length: 36\r\n"] {
        let mut stream = receiver.connect();
        stream.write_all(&post("/api/perf/h/1", length, "DELETE /api/perf/h HTTP/1.1\r\n\r\n")).unwrap();
        let answer = Answer::read(&mut stream);
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert_eq!(rest_of(stream), "", "what follows is not answered");
    }
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
}

/// However long the body takes that comes before what follows, and however long after the answer that is.
#[test]
fn nothing_is_done_after_a_body_of_uncertain_end_whenever_it_comes() {
    let receiver = receiver_of_a_host();
    let mut stream = receiver.connect();
    stream.write_all(&post("/api/perf/h/1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "")).unwrap();
    // Longer than an end is remembered where the kernel does not tell connections apart.
    let longer = Duration::from_millis(1200);
    thread::sleep(longer);
    let follower = b"DELETE /api/perf/h HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(&[b"0\r\n\r\n", &follower[..]].concat()).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 400);
    thread::sleep(longer);
    stream.write_all(follower).unwrap();
    assert_eq!(rest_of(stream), "", "what follows is not answered");
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
}

/// Its client does not read the answer, so that the end of its connection is a reset, behind which it is not there.
#[test]
fn nothing_is_done_that_comes_just_before_a_reset() {
    let receiver = receiver_of_a_host();
    let uncertain = post("/api/perf/h/1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n");
    let streams: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = receiver.connect();
            stream.write_all(&uncertain).unwrap();
            assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(1200));
    for mut stream in streams {
        stream.write_all(b"DELETE /api/perf/h HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    // Nothing tells that they have come.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(receiver.get("/api/hosts").1["count"], 1);
}

/// What else comes on a connection of which this side has said that nothing follows.
fn rest_of(mut stream: TcpStream) -> String {
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(rest).unwrap(),
    }
}

#[test]
fn long_bodies_of_many_clients_are_all_taken() {
    let receiver = Served::start(&[]);
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

#[test]
fn bodies_that_stall_hold_nobody() {
    let receiver = Served::start(&[]);
    let at = now();
    let stall = |headers: &str, body: &str| {
        let mut stream = receiver.connect();
        stream.write_all(&post("/api/perf/h/1", headers, body)).unwrap();
        stream
    };
    // What is left of a body that is refused is read away.
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

#[test]
#[ignore = "needs 4,700 threads"]
fn those_that_the_lane_has_no_room_for_are_told_so_and_leave_nothing_behind() {
    raise_limit();
    let receiver = Served::start(&["--workers", "2"]);
    let numbers = || receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body;
    // One is read by a worker, 256 by the threads of the lane, and 4,096 wait; those beyond are told already.
    let held = post("/api/perf/h/1", "Content-Length: 100000\r\n", "{");
    let beyond = 40;
    let _held: Vec<TcpStream> = (0..1 + 256 + 4096 + beyond)
        .map(|_| {
            let mut stream = receiver.connect();
            stream.write_all(&held).unwrap();
            stream
        })
        .collect();
    await_some("the first to be told", || {
        let told = format!("lizm_http_responses_total{{code=\"503\"}} {beyond}\n");
        numbers().contains(&told).then_some(())
    });
    let body = format!("{{\"cpu\":1{}}}", " ".repeat(20_000));
    let in_bytes = post("/api/perf/h/1", &format!("Content-Length: {}\r\n", body.len()), &body);
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let in_chunks = post("/write", "Transfer-Encoding: chunked\r\n", &chunk);
    for request in [in_bytes, in_chunks].iter().cycle().take(100) {
        let mut stream = receiver.connect();
        stream.write_all(request).unwrap();
        let answer = Answer::read(&mut stream);
        assert!(answer.status == 503 && answer.error().contains("4096 long ones wait already"), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert!(numbers().contains("\nlizm_http_requests_leaked_total 0\n"), "{}", numbers());
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").0, 200);
}

#[test]
#[ignore = "takes a minute or more"]
fn silent_connections_are_ended() {
    let receiver = Served::start(&[]);
    let mut idle = receiver.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut half_a_head = receiver.connect();
    half_a_head.write_all(b"GET /health HTTP/1.1\r\nHost:").unwrap();
    let mut half_a_body = receiver.connect();
    half_a_body.write_all(&post("/api/perf/h/1", "Content-Length: 100\r\n", "{")).unwrap();
    for mut stream in [idle, half_a_head, half_a_body] {
        stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        assert_eq!(stream.read(&mut [0]).expect("an end within 90 seconds"), 0);
    }
}

#[test]
#[ignore = "takes a minute or more"]
fn a_minute_of_standstill_is_survived() {
    let receiver = Served::start(&[]);
    let mut kept = receiver.connect();
    kill(receiver.process.pid(), Signal::SIGSTOP).unwrap();
    // Longer than accept and reads may wait, so that both wake to a timeout that has passed.
    thread::sleep(Duration::from_secs(80));
    kept.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    kill(receiver.process.pid(), Signal::SIGCONT).unwrap();
    assert_eq!(receiver.get("/health").0, 200);
    for host in 0..20 {
        assert_eq!(receiver.post(&format!("/api/perf/h{host}/{}", now()), "{\"cpu\":1}").0, 200);
    }
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
}

/// A client's socket at a port of loopback that others may have too; 0 picks one.
fn bound_to(port: u16) -> OwnedFd {
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    socket
}

fn connect_from(port: u16, receiver: &Served) -> TcpStream {
    let socket = bound_to(port);
    socket::connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, receiver.address.port())).unwrap();
    // A reset leaves nothing of the connection, so that another can have its port at once.
    setsockopt(&socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// After requests of uncertain end: the client resets the first two connections, as it is told to or by itself, and the
/// door the third, for what it has not read of it.
#[test]
fn a_port_is_served_again_at_once_after_its_connection_was_ended() {
    let receiver = Served::start(&[]);
    // Nobody else is given the port while this socket has it too.
    let kept = bound_to(0);
    let port = socket::getsockname::<SockaddrIn>(kept.as_raw_fd()).unwrap().port();
    let head = "POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";
    let uncertain = [
        format!("{head}Content-Length: 5\r\n\r\n0\r\n\r\n"),
        format!("{head}Content-Length: 5\r\nConnection: close\r\n\r\n0\r\n\r\n"),
        format!("{head}\r\n0\r\n{}", "X: y\r\n".repeat(3000)),
    ];
    for request in uncertain.iter().cycle().take(30) {
        let mut stream = connect_from(port, &receiver);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 400);
    }
}
