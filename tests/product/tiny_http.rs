//! The tiny_http server: what it withstands, how it refuses long bodies, and how it ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Answer, Process, Served, await_some, now};

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

/// tiny_http would allocate what they declare, and abort.
#[test]
fn declared_petabytes_leave_the_same_process_serving() {
    let receiver = Served::start(&[]);
    for length in ["67108865", "1000000000000000", "9223372036854775807", "18446744073709551615"] {
        for _ in 0..50 {
            let headers = format!("Content-Length: {length}\r\n");
            receiver.connect().write_all(&post("/api/perf/h/1", &headers, "{}")).unwrap();
        }
        assert_eq!(receiver.get("/health").0, 200, "{length}");
    }
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
}

#[test]
fn a_refusal_comes_before_the_body_and_the_connection_is_kept() {
    let receiver = Served::start(&[]);
    for length in [1025, 100_000, 3_000_000] {
        let mut stream = receiver.connect();
        let body = "x".repeat(length);
        stream.write_all(&post("/nowhere", &format!("Content-Length: {length}\r\n"), &body[..1000])).unwrap();
        let answer = Answer::read(&mut stream);
        assert_eq!((answer.status, answer.header("upgrade")), (404, None), "{length}");
        stream.write_all(&body.as_bytes()[1000..]).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut stream).status, 200, "{length}");
    }
}

/// What came before the signal is answered, and what comes on kept connections; new ones are refused.
#[test]
fn a_stop_answers_what_was_taken_and_accepts_nothing_new() {
    let receiver = Served::start(&[]);
    let sample = format!("/api/perf/h/{}", now());
    let mut kept = receiver.connect();
    kept.write_all(&post(&sample, "Content-Length: 9\r\n", "{\"cpu\":1}")).unwrap();
    assert_eq!(Answer::read(&mut kept).header("connection"), None);
    let body = format!("{{\"cpu\":1{}}}", " ".repeat(2000));
    let mut begun = receiver.connect();
    let head = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
    begun.write_all(&post(&sample, &head, "")).unwrap();
    assert_eq!(Answer::read_head(&mut begun).status, 100);
    kill(receiver.process.pid(), Signal::SIGTERM).unwrap();
    await_some("connections to be refused", || {
        TcpStream::connect(receiver.address)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            .then_some(())
    });
    kept.write_all(&post(&sample, "Content-Length: 9\r\n", "{\"cpu\":1}")).unwrap();
    begun.write_all(body.as_bytes()).unwrap();
    for mut stream in [kept, begun] {
        let answer = Answer::read(&mut stream);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    let (status, lines) = receiver.process.end();
    assert!(status.success() && lines.last().unwrap().contains("3 values stored"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("ERROR")), "{lines:?}");
}

#[test]
#[ignore = "takes a minute or more"]
fn running_out_of_descriptors_ends_with_them() {
    // The shell sets the limit that the receiver would raise.
    let receiver = format!("ulimit -n 40; exec {} receiver --port 0 --bind 127.0.0.1", env!("CARGO_BIN_EXE_lizm"));
    let mut command = Command::new("sh");
    command.args(["-c", &receiver]).stdin(Stdio::null()).stdout(Stdio::piped());
    let receiver = Served::from(Process::start(command));
    for round in 0..2 {
        // Each connection takes two descriptors of the receiver, so that twice as many as it has are wanted.
        let held: Vec<TcpStream> = (0..40).map(|_| receiver.connect()).collect();
        let mut last = receiver.connect();
        last.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        last.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        assert!(last.read(&mut [0]).is_err(), "round {round}: there was a descriptor left");
        drop((held, last));
        // A connection that is taken without a descriptor left for it is reset, or not answered: clients try again.
        let health = receiver.url("/health");
        let ask = || ureq::get(&health).config().timeout_global(Some(Duration::from_secs(3))).build().call().ok();
        await_some("the server to accept again", ask);
    }
    assert!(receiver.process.stop(Signal::SIGTERM).0.success());
}

/// Each of them holds a worker, of which there are as many, until it is given up.
#[test]
fn clients_that_do_not_read_are_given_up() {
    let receiver = Served::start(&["--workers", "2"]);
    let labels: Vec<String> = (0..16).map(|label| format!("l{label}")).collect();
    let values: Vec<String> = labels.iter().map(|label| format!("{label}=1")).collect();
    let line = |host: usize| format!("perf,host=h{host} {} {}\n", values.join(","), now());
    assert_eq!(receiver.post("/write", &(0..4000).map(line).collect::<String>()).0, 204);
    let ask = format!("GET /api/hosts?series={} HTTP/1.1\r\nHost: x\r\n\r\n", labels.join(","));
    let deaf: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = receiver.connect();
            setsockopt(&stream, sockopt::RcvBuf, &4096).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            stream
        })
        .collect();
    deaf.iter().for_each(|stream| assert_eq!(stream.peek(&mut [0]).unwrap(), 1, "the answer has begun"));
    assert_eq!(receiver.get("/health").0, 200);
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
