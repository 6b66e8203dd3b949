//! The kill list: bytes that mean no good, as a table. Each entry has a name, what is sent, and how either door ends it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::now;

/// How a connection ends that was sent an entry, after which this side has said that nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is answered with this status first, interim ones aside, and closed.
    Answered(u16),
    /// It is closed without an answer.
    Closed,
    /// It is refused while it is still being sent: the answer may be lost with the connection.
    Cut(u16),
    /// It is answered, and a thread of the plain door stays behind that the door has counted as parked.
    Parked(u16),
    /// A thread of tiny_http stays behind, before the door hears of a request; it counts the connection once the client
    /// has gone.
    Stuck,
}

use End::{Answered, Closed, Cut, Parked, Stuck};

/// One way to mean no good.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) plain: End,
    pub(super) https: End,
}

/// An entry that both doors end alike.
fn both(name: &'static str, bytes: impl Into<Vec<u8>>, end: End) -> Entry {
    each(name, bytes, end, end)
}

fn each(name: &'static str, bytes: impl Into<Vec<u8>>, plain: End, https: End) -> Entry {
    Entry { name, bytes: bytes.into(), plain, https }
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /api/perf/abuser/{} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}", now())
}

/// A request with a whole body of JSON.
fn json(body: &str) -> String {
    post(&format!("Content-Length: {}\r\n", body.len()), body)
}

/// A request of lines in chunks.
fn chunks(body: &str) -> String {
    format!("POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

fn packed(body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST /write HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Everything that is sent. None of it stores anything.
pub(super) fn entries() -> Vec<Entry> {
    [lines(), headers(), lengths(), codings(), targets(), bodies()].into_iter().flatten().collect()
}

/// Request lines, and bytes that are none.
fn lines() -> Vec<Entry> {
    let whole = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    vec![
        each("nonsense", "nonsense\r\n\r\n", Answered(400), Answered(400)),
        each("zeros", [&[0; 100][..], b"\r\n\r\n"].concat(), Answered(400), Answered(400)),
        each("bytes that are no UTF-8", b"\xff\xfe\xfd\r\n\r\n".to_vec(), Closed, Answered(400)),
        each(
            "a hello of TLS",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n".to_vec(),
            Answered(400),
            Answered(400),
        ),
        each("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Stuck, Answered(505)),
        each("HTTP/2.0", whole("GET /health HTTP/2.0"), Stuck, Answered(505)),
        each("HTTP/3.0", whole("GET /health HTTP/3.0"), Stuck, Answered(505)),
        each("HTTP/9.9", whole("GET /health HTTP/9.9"), Answered(400), Answered(505)),
        each("HTTP/1.1 with a sign", whole("GET /health HTTP/+1.1"), Answered(400), Answered(505)),
        each("HTTP/0.9", "GET /health\r\n\r\n", Answered(400), Answered(400)),
        each("two spaces", whole("GET  /health HTTP/1.1"), Answered(400), Answered(400)),
        each("a method of nothing", whole(" /health HTTP/1.1"), Answered(400), Answered(400)),
        each("a method in small letters", whole("get /health HTTP/1.1"), Answered(405), Answered(405)),
        each(
            "a method of 4,000 bytes",
            whole(&format!("{} /health HTTP/1.1", "A".repeat(4000))),
            Answered(405),
            Answered(405),
        ),
        each("CONNECT", whole("CONNECT example.org:443 HTTP/1.1"), Answered(404), Answered(404)),
        each("TRACE", whole("TRACE / HTTP/1.1"), Answered(405), Answered(405)),
        each("OPTIONS *", whole("OPTIONS * HTTP/1.1"), Answered(404), Answered(404)),
        each("lines that end in LF", "GET /health HTTP/1.1\nHost: x\n\n", Closed, Answered(400)),
        each("a CR alone", "GET /health HTTP/1.1\r\nX: a\rb\r\n\r\n", Answered(200), Answered(400)),
        each(
            "a line of 20,000 bytes",
            whole(&format!("GET /{} HTTP/1.1", "a".repeat(20_000))),
            Answered(431),
            Answered(431),
        ),
        each("a line of 10 MB without an end", vec![b'A'; 10_000_000], Closed, Cut(431)),
        each("a target of 10 MB", whole(&format!("GET /{} HTTP/1.1", "a".repeat(10_000_000))), Answered(431), Cut(431)),
    ]
}

fn headers() -> Vec<Entry> {
    let flood = |count: usize| "X: y\r\n".repeat(count);
    vec![
        each("a zero in a header", get("/health", "X: \0\r\n"), Answered(200), Answered(400)),
        each("control bytes in a header", get("/health", "X: \x01\x7f\x1b[2J\r\n"), Answered(200), Answered(400)),
        each("a folded header", get("/health", "X: a\r\n b\r\n"), Answered(400), Answered(400)),
        each("a header folded by a tab", get("/health", "X: a\r\n\tb\r\n"), Answered(400), Answered(400)),
        each("a header without a colon", get("/health", "X\r\n"), Answered(400), Answered(400)),
        each("a header without a name", get("/health", ": x\r\n"), Answered(200), Answered(400)),
        each("a space before the colon", post("Content-Length : 3\r\n", "{}\n"), Answered(400), Answered(400)),
        each("100 headers", get("/health", &flood(100)), Answered(200), Answered(431)),
        both("100,000 headers", get("/health", &flood(100_000)), Answered(431)),
        both("a header of 20,000 bytes", get("/health", &format!("X: {}\r\n", "x".repeat(20_000))), Answered(431)),
        both("a header of 10 MB", get("/health", &format!("X: {}\r\n", "x".repeat(10_000_000))), Cut(431)),
        both("half a head", "GET /health HTTP/1.1\r\nHost:", Closed),
        both("10,000 requests at once", get("/ping", "").repeat(10_000), Answered(204)),
        both(
            "an upgrade to h2c",
            get("/health", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
            Answered(400),
        ),
        both("an upgrade to a web socket", get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n"), Answered(400)),
        each("Expect of tea", post("Expect: tea\r\nContent-Length: 2\r\n", "{}"), Answered(417), Answered(417)),
        each(
            "a key that is none",
            post("Idempotency-Key: \u{e9}\r\nContent-Length: 2\r\n", "{}"),
            Closed,
            Answered(400),
        ),
    ]
}

fn lengths() -> Vec<Entry> {
    let of = |length: &str| post(&format!("Content-Length: {length}\r\n"), "{}");
    let twice = |length: &str| post(&format!("Content-Length: 2\r\nContent-Length: {length}\r\n"), "{}");
    vec![
        each("a length of 10^15", of("1000000000000000"), Parked(413), Answered(413)),
        each("a length of 2^63", of("9223372036854775808"), Parked(413), Answered(413)),
        each("a length of 2^64 - 1", of("18446744073709551615"), Parked(400), Answered(400)),
        each("a length of 2^64", of("18446744073709551616"), Answered(400), Answered(400)),
        both("a length with a plus", of("+2"), Answered(400)),
        both("a length with a minus", of("-2"), Answered(400)),
        both("a hexadecimal length", of("0x2"), Answered(400)),
        both("a length with a point", of("2.0"), Answered(400)),
        both("lengths in a list", of("2, 2"), Answered(400)),
        both("a length of nothing", of(""), Answered(400)),
        both("the same length twice", twice("2"), Answered(400)),
        both("two lengths", twice("9"), Answered(400)),
        both("no length", post("", "{}"), Answered(411)),
        both("a length past the limit", of("1048577"), Answered(413)),
        each("a body cut short", of("100"), Closed, Closed),
        each("a long body cut short", of("100000"), Answered(400), Closed),
        both(
            "smuggled by a length",
            post("Content-Length: 0x0\r\n", "DELETE /api/perf/kept HTTP/1.1\r\n\r\n"),
            Answered(400),
        ),
    ]
}

fn codings() -> Vec<Entry> {
    let coded = |headers: &str| post(headers, "0\r\n\r\n");
    vec![
        both("a length and chunks", coded("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Answered(400)),
        both("chunks and a length", coded("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Answered(400)),
        both("an unknown coding", coded("Transfer-Encoding: xchunked\r\n"), Answered(400)),
        both("chunked twice", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Answered(400)),
        both("chunks where none are taken", coded("Transfer-Encoding: chunked\r\n"), Answered(411)),
        both("a chunk of no size", chunks("\r\n\r\n"), Answered(400)),
        both("a chunk of a negative size", chunks("-1\r\n\r\n"), Answered(400)),
        both("a chunk past 2^64", chunks("ffffffffffffffffff\r\n"), Answered(400)),
        each("a chunk of 2^63 - 1", chunks("7fffffffffffffff\r\n"), Answered(204), Answered(413)),
        both("a chunk longer than it says", chunks("1\r\nabc\r\n0\r\n\r\n"), Answered(400)),
        each("half a chunk", chunks("9\r\nperf"), Answered(400), Closed),
        both("10,000 chunks of a byte", chunks(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(10_000))), Answered(400)),
        both("a trailer that ends in LF", chunks("0\r\n\nX: y\r\n\r\n"), Answered(400)),
        each(
            "trailers without an end",
            chunks(&format!("0\r\n{}", "X: y\r\n".repeat(3000))),
            Answered(400),
            Answered(431),
        ),
    ]
}

fn targets() -> Vec<Entry> {
    let of = |target: &str, status| (get(target, ""), status);
    [
        ("a percent alone", of("/api/perf/%", Answered(400))),
        ("percents that are no number", of("/api/perf/%zz", Answered(400))),
        ("percents that are no UTF-8", of("/api/perf/%ff%fe", Answered(400))),
        ("an overlong slash", of("/api/perf/%c0%af", Answered(400))),
        ("half a surrogate", of("/api/perf/%ed%a0%80", Answered(400))),
        ("a zero in a host", of("/api/perf/a%00b", Answered(400))),
        ("a slash in a host", of("/api/perf/a%2fb", Answered(400))),
        ("a newline in a host", of("/api/perf/a%0d%0aSet-Cookie:b", Answered(400))),
        ("a host of 256 bytes", of(&format!("/api/perf/{}", "h".repeat(256)), Answered(400))),
        ("percents twice", of("/api/perf/%252e%252e%252f", Answered(200))),
        ("the parent of all", of("/../../../../etc/passwd", Answered(404))),
        ("a page of nothing", of("/api/hosts?limit=0", Answered(400))),
        ("a page past 2^64", of("/api/hosts?limit=18446744073709551616", Answered(400))),
    ]
    .map(|(name, (bytes, end))| both(name, bytes, end))
    .into()
}

fn bodies() -> Vec<Entry> {
    let long_label = format!("{{\"{}\":1}}", "l".repeat(129));
    let many: Vec<String> = (0..257).map(|n| format!("\"l{n}\":1")).collect();
    let bomb = gzip(&vec![b'\n'; 64 << 20]);
    let mut torn = gzip(b"perf,host=abuser cpu=1\n");
    torn.truncate(torn.len() - 4);
    let mut all = vec![
        each("a gzip of 64 MiB", packed(&bomb), Answered(413), Answered(413)),
        each("a gzip of a gzip", packed(&gzip(&bomb)), Answered(400), Answered(400)),
        each("a torn gzip", packed(&torn), Answered(400), Answered(400)),
        each("no gzip", packed(b"perf,host=abuser cpu=1\n"), Answered(400), Answered(400)),
    ];
    let of = [
        ("no body", String::new()),
        ("JSON 1,000 deep", format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000))),
        ("objects 1,000 deep", format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000))),
        ("1e400", "{\"cpu\":1e400}".to_owned()),
        ("a number past the limit", "{\"cpu\":1e301}".to_owned()),
        ("NaN", "{\"cpu\":NaN}".to_owned()),
        ("a string of NaN", "{\"cpu\":\"nan\"}".to_owned()),
        ("a string of infinity", "{\"cpu\":\"-inf\"}".to_owned()),
        ("a number of 1,000 digits", format!("{{\"cpu\":{}}}", "9".repeat(1000))),
        ("duplicate keys", "{\"cpu\":1,\"cpu\":2}".to_owned()),
        ("duplicate keys, one escaped", "{\"cpu\":1,\"c\\u0070u\":2}".to_owned()),
        ("half a surrogate in a label", "{\"\\ud800\":1}".to_owned()),
        ("a zero in a label", "{\"a\\u0000\":1}".to_owned()),
        ("a raw control byte", "{\"a\u{1}\":1}".to_owned()),
        ("a label of 129 bytes", long_label),
        ("257 labels", format!("{{{}}}", many.join(","))),
        ("a list", "[1]".to_owned()),
        ("two objects", "{}{}".to_owned()),
        ("a byte order mark", "\u{feff}{}".to_owned()),
    ];
    all.extend(of.into_iter().map(|(name, body)| both(name, json(&body), Answered(400))));
    all
}

/// Datagrams, and messages: each is one line or several that are refused, and no other is.
pub(super) fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("nonsense", text("nonsense")),
        ("a zero", vec![0]),
        ("no UTF-8", b"\xff\xfe".to_vec()),
        ("control bytes", text("perf,host=a\x01 cpu=1")),
        ("no host", text("perf cpu=1")),
        ("an empty host", text("perf,host= cpu=1")),
        ("a slash in a host", text("perf,host=a/b cpu=1")),
        ("a host of 256 bytes", text(&format!("perf,host={} cpu=1", "h".repeat(256)))),
        ("two hosts", text("perf,host=a,host=b cpu=1")),
        ("no field", text("perf,host=a")),
        ("a field without a value", text("perf,host=a cpu=")),
        ("a label of 129 bytes", text(&format!("perf,host=a {}=1", "l".repeat(129)))),
        ("1e400", text("perf,host=a cpu=1e400")),
        ("NaN", text("perf,host=a cpu=NaN")),
        ("a field twice", text("perf,host=a cpu=1,cpu=2")),
        ("a string without an end", text("perf,host=a cpu=\"x")),
        ("a time that is none", text("perf,host=a cpu=1 now")),
        ("a negative time", text("perf,host=a cpu=1 -1")),
        ("a time past 2^64", text("perf,host=a cpu=1 18446744073709551616")),
        ("a request of HTTP", text("GET / HTTP/1.1")),
        ("a backslash at the end", text("perf,host=a\\")),
        ("32 KiB of one line", vec![b'a'; 32 << 10]),
    ]
}
