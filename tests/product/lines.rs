//! Line protocol, whatever it comes by: HTTP as clients of InfluxDB speak it, datagrams, and the monitor.

use std::io::Write;
use std::net::{Shutdown, UdpSocket};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Answer, Process, Served, await_some, be_busy, last_minute, lizm, monitor_of_fixture, now};

/// A request to `/write` with a body of a declared length.
fn request(query: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /write{query} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A request whose body comes in chunks of these sizes, over and over.
fn chunked(target: &str, headers: &str, body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let (mut request, mut left) = (head.into_bytes(), body);
    for size in sizes.iter().cycle() {
        let (chunk, rest) = left.split_at((*size).min(left.len()));
        request.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        if chunk.is_empty() {
            break;
        }
        left = rest;
    }
    request
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
    compressed.write_all(text).unwrap();
    compressed.finish().unwrap()
}

fn write(receiver: &Served, query: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    receiver.raw(&request(query, headers, body.as_ref()))
}

/// Status of an answer, and its sentence where it is an error.
fn status(answer: &Answer) -> (u16, String) {
    (answer.status, if answer.status < 400 { answer.body.clone() } else { answer.error() })
}

fn assert_refused(answer: &Answer, status: u16, part: &str) {
    assert!(answer.status == status && answer.error().contains(part), "{status} with {part:?}: {answer:?}");
}

fn last_epoch(receiver: &Served, host: &str) -> Value {
    let (_, list) = receiver.get("/api/hosts");
    let found = list["hosts"].as_array().unwrap().iter().find(|entry| entry["host"] == host);
    found.map(|entry| entry["last-epoch"].clone()).unwrap_or_default()
}

#[test]
fn lines_are_summarised_as_what_the_api_takes() {
    let receiver = Served::start(&[]);
    let (minute, mut lines) = (last_minute(), String::new());
    for (second, cpu) in (50..).zip([5.1, 4.9, 4.8, 5.2, 4.9]) {
        let epoch = minute + second;
        for host in ["a", "b"] {
            lines += &format!("perf,host={host} cpu={cpu},mem=35i,on=t,os=\"a, \\\"b\\\" = c\" {epoch}\n");
        }
        lines += &format!("disk,path=/var,host=c,dev=sda used={cpu},free=1e3 {epoch}000\r\n");
        let json = format!("{{\"cpu\": {cpu}, \"mem\": 35, \"on\": 1}}");
        assert_eq!(receiver.post(&format!("/api/perf/by-api/{epoch}"), &json).0, 200);
        let json = format!("{{\"disk.used,dev=sda,path=/var\": {cpu}, \"disk.free,dev=sda,path=/var\": 1000}}");
        assert_eq!(receiver.post(&format!("/api/perf/disk-by-api/{epoch}"), &json).0, 200);
    }
    // The second request finds the connection as the answer without a body has left it.
    let mut stream = receiver.connect();
    for body in [lines.as_bytes(), b"\n# nothing\n", b""] {
        stream.write_all(&request("?db=any&rp=&consistency=all&u=me&p=secret", "", body)).unwrap();
        let answer = Answer::read(&mut stream);
        assert_eq!((answer.status, &*answer.body), (204, ""));
        assert!(answer.header("content-length").is_none() && answer.header("content-type").is_none(), "{answer:?}");
    }
    let by_api = receiver.averages("by-api");
    assert_eq!(by_api.len(), 6);
    assert_eq!((receiver.averages("a"), receiver.averages("b")), (by_api.clone(), by_api));
    let disk = receiver.averages("disk-by-api");
    assert_eq!((disk.len(), receiver.averages("c")), (4, disk));
}

#[test]
fn a_body_that_is_partly_bad_keeps_the_good_and_names_the_others() {
    let receiver = Served::start(&["--max-series", "3"]);
    let (at, ahead) = (now(), now() + 1000);
    // Which of the new series of a body come first is not promised, so those there may be are known before.
    let known = format!("perf,host=a cpu=1 {at}\nperf,host=b cpu=1,mem=2 {at}\n");
    assert_eq!(status(&write(&receiver, "", "", known)).0, 204);
    let lines = format!(
        "perf,host=a cpu=1 {at}\nnonsense\n# comment\n\nperf,host=a cpu=x {at}\nperf,host=b cpu=1,mem=2 {at}\n\
         perf cpu=1\nperf,host=c os=\"only\" {at}\nperf,host=d cpu=1 {ahead}\nperf,host=b disk=1,cpu=2,net=1 {at}\n\
         perf,host=e cpu=1 {at}"
    );
    let answer = write(&receiver, "", "", &lines);
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")));
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(said["stored"], 4);
    assert!(said["error"].as_str().unwrap().starts_with("6 of 9 lines were not stored whole; line 2: tag \"host\""));
    let expected = [
        (2, "tag \"host\": missing"),
        (5, "field \"cpu\": \"x\" is not a number"),
        (7, "tag \"host\": missing"),
        (9, "the limit is 300"),
        (10, "2 of its labels are new series, past --max-series"),
        (11, "--max-series 3"),
    ];
    let named = said["lines"].as_array().unwrap();
    assert_eq!(named.len(), expected.len(), "{said}");
    for (found, (line, part)) in named.iter().zip(expected) {
        assert!(found["line"] == line && found["error"].as_str().unwrap().contains(part), "{line} {part}: {found}");
    }
    assert_eq!((receiver.samples("a", "cpu"), receiver.samples("b", "cpu"), receiver.samples("b", "disk")), (2, 3, 0));
    assert_eq!(receiver.get("/api/hosts").1["count"], 2);

    // A receiver whose clock is behind is waited for, as by the API.
    let too_early = write(&receiver, "", "", format!("perf,host=a cpu=1 {ahead}\nperf,host=b cpu=1 {ahead}\n"));
    assert_refused(&too_early, 422, "seconds ahead of the receiver's clock");
    let long_ago = write(&receiver, "", "", format!("perf,host=a cpu=1 {}\n", at - 100_000));
    assert_refused(&long_ago, 400, "line 1: time: so long ago");
    let capped = write(&receiver, "", "", format!("perf,host=e cpu=1 {at}\nperf,host=f cpu=1 {at}\n"));
    assert_refused(&capped, 429, "2 of 2 lines");
    // The first of many are explained, though what the cap refuses is known after what is malformed.
    let capped: String = (0..60).map(|n| format!("perf,host=e{n} cpu=1 {at}\n")).collect();
    let many = write(&receiver, "", "", capped + &"nonsense\n".repeat(90));
    assert_refused(&many, 400, "150 of 150 lines were not stored whole; line 1: label: every label here");
    let many: Value = serde_json::from_str(&many.body).unwrap();
    let named: Vec<u64> = many["lines"].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!((named, &many["stored"]), ((1..=100).collect(), &json!(0)));
    assert_refused(&write(&receiver, "", "", b"perf,host=h \xff=1\n"), 400, "UTF-8");
}

#[test]
fn a_body_has_ten_thousand_lines_and_eight_mebibytes_at_most() {
    let receiver = Served::start(&[]);
    let lines = format!("perf,host=h cpu=1 {}\n", now()).repeat(10_000);
    assert_eq!(status(&write(&receiver, "", "", &lines)), (204, String::new()));
    assert_eq!(receiver.samples("h", "cpu"), 10_000);
    assert_refused(&write(&receiver, "", "", lines + "perf,host=h cpu=1"), 413, "more than 10000 lines");
    let comment = vec![b'#'; 8 << 20];
    assert_eq!(status(&write(&receiver, "", "", &comment)), (204, String::new()));
    assert_refused(&write(&receiver, "", "", [&*comment, b"#"].concat()), 413, "the limit is 8388608");
    assert_eq!(receiver.samples("h", "cpu"), 10_000, "nothing of a body that is refused is stored");
}

#[test]
fn a_body_may_be_compressed() {
    let receiver = Served::start(&[]);
    let line = |host: &str| format!("perf,host={host} cpu=1 {}\n", now()).into_bytes();
    for (encoding, body) in [
        ("gzip", gzip(&line("a"))),
        ("GZIP", gzip(&line("b"))),
        ("identity", line("c")),
        ("gzip", [gzip(&line("d")), gzip(&line("e"))].concat()),
    ] {
        let answer = write(&receiver, "", &format!("Content-Encoding: {encoding}\r\n"), body);
        assert_eq!(status(&answer), (204, String::new()), "{encoding}");
    }
    let compressed = gzip(&line("f"));
    let bomb = gzip(&vec![b'\n'; 100 << 20]);
    assert!(bomb.len() < 1 << 20);
    let corrupt: Vec<u8> =
        compressed.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == compressed.len() - 6)).collect();
    for (encoding, body, status, part) in [
        ("gzip", &*bomb, 413, "8388608 bytes once decompressed"),
        ("gzip", &compressed[..compressed.len() - 9], 400, "not whole gzip"),
        ("gzip", &compressed[..compressed.len() - 1], 400, "not whole gzip"),
        ("gzip", &corrupt, 400, "not whole gzip"),
        ("gzip", &*line("f"), 400, "not whole gzip"),
        ("gzip", b"", 400, "not whole gzip"),
        ("deflate", &compressed, 415, "only gzip"),
        ("br", &compressed, 415, "only gzip"),
        ("gzip, gzip", &compressed, 415, "only gzip"),
    ] {
        assert_refused(&write(&receiver, "", &format!("Content-Encoding: {encoding}\r\n"), body), status, part);
    }
    assert_eq!(receiver.get("/api/hosts").1["count"], 5);
}

#[test]
fn times_have_the_unit_that_the_request_names() {
    let receiver = Served::start(&[]);
    let at = now() - 2 * 3600;
    for (precision, time, epoch) in [
        ("ns", at * 1_000_000_000 - 1, at),
        ("n", at * 1_000_000_000, at),
        ("us", at * 1_000_000, at),
        ("u", at * 1_000_000 - 999_999, at),
        ("%C2%B5", at * 1_000_000 + 1, at + 1),
        ("ms", at * 1000 - 1, at),
        ("s", at, at),
        ("m", at / 60, at / 60 * 60),
        ("h", at / 3600, at / 3600 * 3600),
        ("", at * 1_000_000_000 - 1, at),
    ] {
        let host = format!("in-{}", precision.trim_start_matches('%'));
        let answer =
            write(&receiver, &format!("?db=x&precision={precision}"), "", format!("perf,host={host} v=1 {time}"));
        assert_eq!(status(&answer), (204, String::new()), "{precision}");
        assert_eq!(last_epoch(&receiver, &host), epoch, "{precision}");
    }
    for unknown in ["d", "S", "sec", "%20"] {
        let answer = write(&receiver, &format!("?precision={unknown}"), "", "perf,host=h v=1");
        assert_refused(&answer, 400, "is not one of ns, us, ms, s, m and h");
    }
    assert_eq!(status(&write(&receiver, "", "", "perf,host=now v=1")).0, 204);
    assert!(last_epoch(&receiver, "now").as_u64().unwrap().abs_diff(now()) <= 5, "a line without a time is of now");
}

#[test]
fn a_key_marks_a_body_of_one_line() {
    let receiver = Served::start(&[]);
    let line = format!("# by a monitor\nperf,host=h cpu=1 {}\n", now());
    let keyed = |key: &str, body: &str| write(&receiver, "", &format!("Idempotency-Key: {key}\r\n"), body);
    for key in ["a1-7", "a1-7", "a1-8", "a1-8"] {
        assert_eq!(status(&keyed(key, &line)), (204, String::new()));
    }
    // The API and lines have one memory of keys.
    let by_api = receiver.post_once(&format!("/api/perf/h/{}", now()), "a1-8", "{\"cpu\":1}");
    assert_eq!(by_api, (200, json!({"stored": 0, "duplicate": true})));
    assert_refused(&keyed("a1-9", &line.repeat(2)), 400, "Idempotency-Key");
    assert_refused(&keyed("a1", &line), 400, "Idempotency-Key");
    assert_eq!(receiver.samples("h", "cpu"), 2);
}

#[test]
fn heads_that_cannot_be_are_refused() {
    let receiver = Served::start(&[]);
    assert_refused(&receiver.raw(b"POST /write HTTP/1.1\r\nHost: x\r\n\r\n"), 411, "Content-Length");
    let get = receiver.raw(b"GET /write HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_refused(&get, 405, "POST");
    assert_eq!(get.header("allow"), Some("POST"));
    assert_eq!(receiver.post("/write/", "perf,host=h v=1").0, 404);
}

#[test]
fn a_body_in_chunks_is_taken_however_it_is_cut() {
    let receiver = Served::start(&[]);
    let at = now();
    let lines: String = (0..200).map(|n| format!("perf,host=h{n} cpu={n},mem=1 {at}\n")).collect();
    let compressed = gzip(lines.as_bytes());
    for (headers, body) in [("", lines.as_bytes()), ("Content-Encoding: gzip\r\n", &compressed)] {
        for (sizes, piece) in [(&[body.len()][..], usize::MAX), (&[1, 7, 100], 64), (&[1000, 3], 999)] {
            let mut stream = receiver.connect();
            stream.set_nodelay(true).unwrap();
            for part in chunked("/write", headers, body, sizes).chunks(piece) {
                stream.write_all(part).unwrap();
            }
            assert_eq!(status(&Answer::read(&mut stream)), (204, String::new()), "{sizes:?}");
        }
    }
    assert_eq!((receiver.get("/api/hosts").1["count"].clone(), receiver.samples("h199", "mem")), (json!(200), 6));
    for empty in [&b""[..], b"\n"] {
        assert_eq!(receiver.raw(&chunked("/write", "", empty, &[1])).status, 204);
    }
    // Sizes in capitals, with zeros before them and an extension after them.
    let spelled = format!("perf,host=spelled cpu=1 {at}\n");
    let extended = format!("00{:X};a=\"b\"\r\n{spelled}\r\n0\r\n\r\n", spelled.len());
    let head = "POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(status(&receiver.raw(format!("{head}{extended}").as_bytes())).0, 204);
    assert_eq!(receiver.samples("spelled", "cpu"), 1);
}

/// Telegraf's `outputs.influxdb` with `content_encoding = "gzip"`: one connection, a request an interval.
#[test]
fn telegrafs_requests_are_taken_one_after_another() {
    let receiver = Served::start(&[]);
    let mut stream = receiver.connect();
    let create = "q=CREATE+DATABASE+%22telegraf%22";
    let head = "POST /query HTTP/1.1\r\nHost: x\r\nUser-Agent: Telegraf/1.24.4\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{create}", create.len()).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 200);
    let headers = "User-Agent: Telegraf/1.24.4 Go/1.19.4\r\nContent-Encoding: gzip\r\n\
                   Content-Type: text/plain; charset=utf-8\r\nAccept-Encoding: gzip\r\n";
    for sent in 1..=3_u64 {
        let at = (now() - 3 + sent) * 1_000_000_000;
        let lines: String = (0..500)
            .map(|cpu| format!("cpu,cpu=cpu{cpu},host=jarvis usage_idle=97.5,usage_user={sent} {at}\n"))
            .collect();
        let body = gzip(lines.as_bytes());
        let request = chunked("/write?db=telegraf&precision=ns&consistency=any", headers, &body, &[4096]);
        stream.write_all(&request).unwrap();
        assert_eq!(status(&Answer::read(&mut stream)), (204, String::new()));
        assert_eq!(receiver.samples("jarvis", "cpu.usage_user,cpu=cpu499"), sent);
    }
}

#[test]
fn a_body_in_chunks_that_is_not_whole_stores_nothing() {
    let receiver = Served::start(&[]);
    let at = now();
    let line = format!("perf,host=h cpu=12 {at}\n");
    let lines = line.repeat(200);
    let whole = chunked("/write", "", lines.as_bytes(), &[1000]);
    let compressed = chunked("/write", "Content-Encoding: gzip\r\n", &gzip(lines.as_bytes()), &[1000]);
    let head = whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let cut_short = |bytes: &[u8]| {
        let mut stream = receiver.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        Answer::read(&mut stream)
    };
    // Within a line of the first chunk and of later ones, and within the last one's newline.
    for cut in [head + 80, whole.len() / 2, whole.len() - 20, whole.len() - 8] {
        let answer = cut_short(&whole[..cut]);
        assert!(answer.status == 400, "cut after {cut} bytes: {answer:?}");
    }
    for cut in [compressed.len() / 2, compressed.len() - 20] {
        assert_refused(&cut_short(&compressed[..cut]), 400, "body: ");
    }
    let head = "POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let length = line.len();
    for malformed in [
        format!("zz\r\n{line}\r\n0\r\n\r\n"),
        format!("-{length:x}\r\n{line}\r\n0\r\n\r\n"),
        format!("\r\n{line}\r\n0\r\n\r\n"),
        format!("{length:x}\r\n{line}xx\r\n0\r\n\r\n"),
        format!("ffffffffffffffffff\r\n{line}\r\n0\r\n\r\n"),
    ] {
        assert_refused(&cut_short(format!("{head}{malformed}").as_bytes()), 400, "body: ");
    }
    for headers in ["", "Content-Encoding: identity\r\n"] {
        assert_refused(&receiver.raw(&chunked("/write", headers, line.trim_end().as_bytes(), &[9])), 400, "newline");
    }
    assert_eq!(receiver.get("/api/hosts").1["count"], 0);
    assert_eq!(receiver.raw(&whole).status, 204);
    assert_eq!(receiver.samples("h", "cpu"), 200);
}

#[test]
fn chunks_that_are_not_wanted_leave_the_receiver_serving() {
    let receiver = Served::start(&[]);
    let long = [&vec![b'#'; 9 << 20][..], b"\n"].concat();
    assert_refused(&receiver.raw(&chunked("/write", "", &long, &[60_000])), 413, "longer than 8388608 bytes");
    let at = now();
    for target in [format!("/api/perf/h/{at}"), "/query".to_owned()] {
        assert_refused(&receiver.raw(&chunked(&target, "", b"{\"cpu\":1}", &[4])), 411, "Content-Length");
    }
    assert_refused(&receiver.raw(&chunked("/write?precision=d", "", &long, &[60_000])), 400, "precision");
    let deflated = chunked("/write", "Content-Encoding: deflate\r\n", &long, &[60_000]);
    assert_refused(&receiver.raw(&deflated), 415, "only gzip");
    let twice = chunked("/write", "Transfer-Encoding: chunked\r\n", b"perf,host=h cpu=1\n", &[9]);
    assert_refused(&receiver.raw(&twice), 400, "Transfer-Encoding");
    assert_eq!(receiver.get("/api/hosts"), (200, json!({"hosts": [], "count": 0})));
    assert_eq!(receiver.raw(&chunked("/write", "", b"perf,host=h cpu=1\n", &[5])).status, 204);
    let (status, lines) = receiver.process.stop(Signal::SIGTERM);
    assert!(status.success() && lines.last().unwrap().contains("1 values stored"), "{lines:?}");
}

#[test]
fn clients_of_influxdb_find_what_they_ask_for_before_they_write() {
    let receiver = Served::start(&[]);
    for method in ["GET", "HEAD"] {
        let mut stream = receiver.connect();
        stream.write_all(format!("{method} /ping?verbose=true HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let answer = Answer::read_head(&mut stream);
        assert_eq!((answer.status, answer.header("x-influxdb-version")), (204, Some("1.8.10")));
    }
    let created = (200, json!({"results": [{"statement_id": 0}]}));
    assert_eq!(receiver.post("/query", "q=CREATE+DATABASE+%22my+hosts%22"), created);
    assert_eq!(receiver.post("/query?q=CREATE%20DATABASE%20%22x%22&db=x", ""), created);
    assert_eq!(receiver.post("/query?u=me&p=secret", "db=&q=create%20database%20x%3B"), created);
    let (status, shown) = receiver.get("/query?q=SHOW+DATABASES");
    assert_eq!((status, &shown["results"][0]["series"][0]["values"]), (200, &json!([["lizm"]])));
    assert_eq!(receiver.post("/query", "q=SHOW+DATABASES"), (200, shown));
    for statement in ["SELECT+*+FROM+perf", "DROP+DATABASE+x", "SHOW+MEASUREMENTS", "CREATE+USER+me", ""] {
        let (status, answer) = receiver.get(&format!("/query?q={statement}"));
        let sentence = answer["error"].as_str().unwrap();
        assert!(status == 400 && sentence.starts_with("q: only CREATE DATABASE and SHOW DATABASES"), "{answer}");
    }
    assert_eq!((receiver.get("/query").0, receiver.post("/query", "nothing").0), (400, 400));
    assert_eq!(receiver.get("/query?q=%zz").0, 400);
    assert_eq!(receiver.post("/ping", "").0, 405);
}

fn udp_receiver(address: &str) -> (Served, UdpSocket) {
    let receiver = Served::start(&["--udp", address]);
    let to = receiver.udp();
    let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
    socket.connect(to).unwrap();
    (receiver, socket)
}

#[test]
fn datagrams_hold_one_line_or_several() {
    let (receiver, socket) = udp_receiver("127.0.0.1:0");
    let at = now();
    socket.send(format!("perf,host=a cpu=1,mem=2,os=\"x\" {at}").as_bytes()).unwrap();
    socket.send(format!("perf,host=a cpu=3 {at}000000000\n\n# c\nperf,host=b cpu=1 {at}\n").as_bytes()).unwrap();
    socket
        .send(format!("nonsense\nperf,host=a cpu=5 {at}\nperf,host=a cpu=\nperf,host=a cpu=7 {at}").as_bytes())
        .unwrap();
    socket.send(b"").unwrap();
    socket.send(b"\xff\xfe\n").unwrap();
    socket.send(format!("perf,host=b cpu=1 {at}\n").as_bytes()).unwrap();
    receiver.await_samples("b", "cpu", 2);
    assert_eq!((receiver.samples("a", "cpu"), receiver.samples("a", "mem")), (4, 1));
    let (status, lines) = receiver.process.stop(Signal::SIGTERM);
    let last = "INFO: Receiver stopped: 7 values stored, 3 lines refused, 1 strings skipped";
    assert!(status.success() && lines.last().unwrap() == last, "{lines:?}");
}

#[test]
fn a_datagram_that_is_too_long_is_dropped_and_counted() {
    let (receiver, socket) = udp_receiver("127.0.0.1:0");
    let of_length = |host: &str, length: usize| {
        let line = format!("perf,host={host} cpu=1\n");
        format!("{line}{}", "#".repeat(length - line.len()))
    };
    for (host, length) in [("longest", 32 << 10), ("too-long", (32 << 10) + 1), ("last", 100)] {
        socket.send(of_length(host, length).as_bytes()).unwrap();
    }
    receiver.await_samples("last", "cpu", 1);
    assert_eq!((receiver.samples("longest", "cpu"), receiver.samples("too-long", "cpu")), (1, 0));
    let (_, lines) = receiver.process.stop(Signal::SIGTERM);
    assert!(lines.iter().any(|line| line.starts_with("WARNING: udp://") && line.contains("1 datagrams were longer")));
    assert_eq!(lines.last().unwrap(), "INFO: Receiver stopped: 2 values stored, 1 datagrams too long");
}

#[test]
fn malformed_datagrams_do_not_fill_the_log() {
    let (receiver, socket) = udp_receiver("127.0.0.1:0");
    for batch in 1..=10 {
        for _ in 0..100 {
            socket.send(b"nonsense").unwrap();
        }
        // No faster than they are read, so that the kernel drops none.
        socket.send(b"perf,host=h cpu=1").unwrap();
        receiver.await_samples("h", "cpu", batch);
    }
    let (_, lines) = receiver.process.stop(Signal::SIGTERM);
    let warnings: Vec<&String> = lines.iter().filter(|line| line.starts_with("WARNING: udp://")).collect();
    assert!((1..=2).contains(&warnings.len()), "one at once, one at the end: {warnings:?}");
    let logged = |line: &&String| line.split(' ').nth(2)?.parse::<u64>().ok();
    assert_eq!(warnings.iter().filter_map(logged).sum::<u64>(), 1000, "{warnings:?}");
    assert!(warnings[0].contains("lines were not stored, the latest because of tag \"host\": missing"), "{warnings:?}");
    assert!(lines.last().unwrap().contains("10 values stored, 1000 lines refused"), "{lines:?}");
}

#[test]
fn datagrams_that_have_come_are_stored_when_it_stops() {
    let (receiver, socket) = udp_receiver("127.0.0.1:0");
    for _ in 0..100 {
        socket.send(b"perf,host=h cpu=1,mem=2").unwrap();
    }
    let (status, lines) = receiver.process.stop(Signal::SIGTERM);
    assert!(status.success() && lines.last().unwrap() == "INFO: Receiver stopped: 200 values stored", "{lines:?}");
}

#[test]
fn datagrams_come_by_ipv6_too() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("there is no IPv6 here");
        return;
    }
    let (receiver, socket) = udp_receiver("[::1]:0");
    socket.send(b"perf,host=h cpu=1").unwrap();
    receiver.await_samples("h", "cpu", 1);
    let url = format!("udp://{}", socket.peer_addr().unwrap());
    let monitor = Process::start(lizm(&["monitor", "--host", "jarvis", "--publish", &url]));
    assert_eq!(monitor.line(), format!("INFO: Publish was successful to {url}"));
    await_some("a sample of the monitor", || (receiver.samples("jarvis", "mem") > 0).then_some(()));
}

#[test]
fn an_address_for_datagrams_must_be_free_and_whole() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |udp: &str| {
        let output = lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1", "--udp", udp]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&address);
    assert!(code == Some(1) && said.contains(&format!("cannot listen on udp://{address}")), "{said}");
    for wrong in ["localhost:1", "127.0.0.1", "8089", "127.0.0.1:70000"] {
        let (code, said) = run(wrong);
        assert!(code == Some(2) && said.contains("--udp") && said.contains("0.0.0.0:8089"), "{said}");
    }
}

#[test]
fn zeromq_needs_its_feature_and_an_endpoint() {
    let run = |arguments: &[&str]| {
        let output = lizm(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let others = ["tcp://", "tcp://nonsense", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://:5557", "ipc://"];
    let others = others.iter().chain(&["127.0.0.1:5557", "udp://127.0.0.1:5557", "inproc://x", "tcp//127.0.0.1:0"]);
    for endpoint in others {
        let (code, said) = run(&["receiver", "--port", "0", "--bind", "127.0.0.1", "--zmq", endpoint]);
        assert!(code == Some(2) && said.contains("--zmq"), "{endpoint}: {code:?} {said}");
    }
    #[cfg(not(feature = "zeromq"))]
    for (arguments, option) in [
        (&["receiver", "--zmq", "tcp://127.0.0.1:0"][..], "--zmq"),
        (&["monitor", "--host", "h", "--publish", "zmq://127.0.0.1:5557"], "--publish"),
    ] {
        let (code, said) = run(arguments);
        let how = "cargo build --release --features zeromq has it";
        assert!(code == Some(2) && said.contains(option) && said.contains(how), "{code:?} {said}");
    }
}

#[test]
fn the_monitor_publishes_lines() {
    let receiver = Served::start(&["--udp", "127.0.0.1:0"]);
    let by_udp = format!("udp://{}", receiver.udp());
    for url in [receiver.url("/write?db=hosts&precision=ms"), receiver.url("/write"), by_udp] {
        let root = tempfile::tempdir().unwrap();
        let monitor = monitor_of_fixture(root.path(), "jarvis", &[&url]);
        assert_eq!(monitor.line(), format!("INFO: Publish was successful to {url}"));
        be_busy(root.path());
        let average = |label: &str| {
            receiver.averages("jarvis").get(&format!("summary:by-hour:{label}"))?.as_array()?.last().cloned()
        };
        let cpu = await_some("cpu", || average("cpu"));
        assert_eq!((&cpu["avg"], &cpu["num-samples"]), (&40.0.into(), &1.into()), "{url}");
        assert_eq!(average("mem").unwrap()["avg"], 25.0, "{url}");
        assert!(last_epoch(&receiver, "jarvis").as_u64().unwrap().abs_diff(now()) <= 5);
        assert!(monitor.stop(Signal::SIGTERM).0.success());
        // A sample that arrives after this would make the host known again.
        assert_eq!(receiver.delete("/api/perf/jarvis").0, 200);
    }
}

#[test]
fn a_sample_that_comes_by_two_ways_counts_once_if_both_carry_its_key() {
    let receiver = Served::start(&["--udp", "127.0.0.1:0"]);
    let by_udp = format!("udp://{}", receiver.udp());
    let root = tempfile::tempdir().unwrap();
    let (by_api, by_lines) = (receiver.url("/api/perf"), receiver.url("/write"));
    // Publishes to both until each has four samples, and says how many.
    let published = |urls: [&str; 2]| {
        let monitor = monitor_of_fixture(root.path(), "jarvis", &urls);
        let mut log = Vec::new();
        let count = |log: &[String], url: &str| {
            let to = format!("INFO: Publish was successful to {url}");
            log.iter().filter(|line| line.starts_with(&to)).count() as u64
        };
        while urls.iter().any(|url| count(&log, url) < 4) {
            log.push(monitor.line());
        }
        log.extend(monitor.stop(Signal::SIGTERM).1);
        assert!(log.iter().all(|line| !line.starts_with("ERROR")), "{log:?}");
        urls.map(|url| count(&log, url))
    };
    let [first, second] = published([&by_api, &by_lines]);
    assert_eq!(first, second);
    assert_eq!(receiver.samples("jarvis", "mem"), first, "one key, one sample");
    assert_eq!(receiver.delete("/api/perf/jarvis").0, 200);
    let [by_api, by_udp] = published([&by_api, &by_udp]);
    assert_eq!(by_api, by_udp);
    receiver.await_samples("jarvis", "mem", by_api + by_udp);
    let (_, lines) = receiver.process.stop(Signal::SIGTERM);
    assert!(lines.last().unwrap().ends_with(&format!("{first} requests duplicate")), "{lines:?}");
}

#[test]
fn a_closed_port_for_datagrams_is_logged() {
    // An address of 127.0.0.0/8 of its own, so that nobody takes the port while the receiver is away.
    let address = UdpSocket::bind("127.83.1.9:0").unwrap().local_addr().unwrap();
    let root = tempfile::tempdir().unwrap();
    let url = format!("udp://{address}");
    let monitor = monitor_of_fixture(root.path(), "jarvis", &[&url]);
    let line = monitor.line_with("ERROR");
    assert!(line.starts_with(&format!("ERROR: Publish failed to {url}, details: Connection refused")), "{line}");
    let receiver = Served::start(&["--udp", &address.to_string()]);
    await_some("a sample once it is there", || (receiver.samples("jarvis", "mem") > 0).then_some(()));
}

#[cfg(feature = "zeromq")]
#[test]
fn the_monitor_publishes_messages() {
    let receiver = Served::start(&["--zmq", "tcp://127.0.0.1:0"]);
    let (url, root) = (receiver.zmq().replace("tcp://", "zmq://"), tempfile::tempdir().unwrap());
    let monitor = monitor_of_fixture(root.path(), "jarvis", &[&url]);
    assert_eq!(monitor.line_with("INFO"), format!("INFO: Publish was successful to {url}"));
    be_busy(root.path());
    await_some("cpu", || (receiver.samples("jarvis", "cpu") == 1).then_some(()));
    let averages = receiver.averages("jarvis");
    let average = |label: &str| averages[&format!("summary:by-hour:{label}")][0]["avg"].clone();
    assert_eq!((average("cpu"), average("mem")), (json!(40.0), json!(25.0)));
}
