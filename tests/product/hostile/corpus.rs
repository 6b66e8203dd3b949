//! The corpus: hostile requests and datagrams as a table. Each entry has a name, what is sent, and how the builtin server
//! ends it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::now;

/// How a connection ends that was sent an entry, after which the client has said that nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is answered with this status first, interim ones aside, and closed.
    Answered(u16),
    /// It is closed without an answer.
    Closed,
    /// It is refused while it is still being sent: the answer may be lost with the connection.
    Cut(u16),
}

use End::{Answered, Closed, Cut};

/// One hostile request.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) end: End,
}

fn entry(name: &'static str, bytes: impl Into<Vec<u8>>, end: End) -> Entry {
    Entry { name, bytes: bytes.into(), end }
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

/// What holds a thread of tiny_http and a connection, two descriptors, until the process ends.
pub(super) const HELD_BY_TINY_HTTP: [&str; 6] =
    ["the preface of HTTP/2", "HTTP/2.0", "HTTP/3.0", "a length of 10^15", "a length of 2^63", "a length of 2^64 - 1"];

/// Everything that is sent. None of it stores anything.
pub(super) fn entries() -> Vec<Entry> {
    [lines(), headers(), lengths(), codings(), targets(), bodies()].into_iter().flatten().collect()
}

/// Request lines, and bytes that are none.
fn lines() -> Vec<Entry> {
    let whole = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    vec![
        entry("nonsense", "nonsense\r\n\r\n", Answered(400)),
        entry("zeros", [&[0; 100][..], b"\r\n\r\n"].concat(), Answered(400)),
        entry("bytes that are no UTF-8", b"\xff\xfe\xfd\r\n\r\n".to_vec(), Answered(400)),
        entry("a hello of TLS", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n".to_vec(), Answered(400)),
        entry("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Answered(505)),
        entry("HTTP/2.0", whole("GET /health HTTP/2.0"), Answered(505)),
        entry("HTTP/3.0", whole("GET /health HTTP/3.0"), Answered(505)),
        entry("HTTP/9.9", whole("GET /health HTTP/9.9"), Answered(505)),
        entry("HTTP/1.1 with a sign", whole("GET /health HTTP/+1.1"), Answered(505)),
        entry("HTTP/0.9", "GET /health\r\n\r\n", Answered(400)),
        entry("two spaces", whole("GET  /health HTTP/1.1"), Answered(400)),
        entry("a method of nothing", whole(" /health HTTP/1.1"), Answered(400)),
        entry("a method in small letters", whole("get /health HTTP/1.1"), Answered(405)),
        entry("a method of 4,000 bytes", whole(&format!("{} /health HTTP/1.1", "A".repeat(4000))), Answered(405)),
        entry("CONNECT", whole("CONNECT example.org:443 HTTP/1.1"), Answered(404)),
        entry("TRACE", whole("TRACE / HTTP/1.1"), Answered(405)),
        entry("OPTIONS *", whole("OPTIONS * HTTP/1.1"), Answered(404)),
        entry("lines that end in LF", "GET /health HTTP/1.1\nHost: x\n\n", Answered(400)),
        entry("a CR alone", "GET /health HTTP/1.1\r\nX: a\rb\r\n\r\n", Answered(400)),
        entry("a line of 20,000 bytes", whole(&format!("GET /{} HTTP/1.1", "a".repeat(20_000))), Answered(431)),
        entry("a line of 10 MB without an end", vec![b'A'; 10_000_000], Cut(431)),
        entry("a target of 10 MB", whole(&format!("GET /{} HTTP/1.1", "a".repeat(10_000_000))), Cut(431)),
    ]
}

fn headers() -> Vec<Entry> {
    let flood = |count: usize| "X: y\r\n".repeat(count);
    vec![
        entry("a zero in a header", get("/health", "X: \0\r\n"), Answered(400)),
        entry("control bytes in a header", get("/health", "X: \x01\x7f\x1b[2J\r\n"), Answered(400)),
        entry("a folded header", get("/health", "X: a\r\n b\r\n"), Answered(400)),
        entry("a header folded by a tab", get("/health", "X: a\r\n\tb\r\n"), Answered(400)),
        entry("a header without a colon", get("/health", "X\r\n"), Answered(400)),
        entry("a header without a name", get("/health", ": x\r\n"), Answered(400)),
        entry("a space before the colon", post("Content-Length : 3\r\n", "{}\n"), Answered(400)),
        entry("100 headers", get("/health", &flood(100)), Answered(431)),
        entry("100,000 headers", get("/health", &flood(100_000)), Answered(431)),
        entry("a header of 20,000 bytes", get("/health", &format!("X: {}\r\n", "x".repeat(20_000))), Answered(431)),
        entry("a header of 10 MB", get("/health", &format!("X: {}\r\n", "x".repeat(10_000_000))), Cut(431)),
        entry("half a head", "GET /health HTTP/1.1\r\nHost:", Closed),
        entry("10,000 requests at once", get("/ping", "").repeat(10_000), Answered(204)),
        entry(
            "an upgrade to h2c",
            get("/health", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
            Answered(200),
        ),
        entry("an upgrade to a web socket", get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n"), Answered(200)),
        entry("Expect of tea", post("Expect: tea\r\nContent-Length: 2\r\n", "{}"), Answered(417)),
        entry("a key that is none", post("Idempotency-Key: \u{e9}\r\nContent-Length: 2\r\n", "{}"), Answered(400)),
    ]
}

fn lengths() -> Vec<Entry> {
    let of = |length: &str| post(&format!("Content-Length: {length}\r\n"), "{}");
    let twice = |length: &str| post(&format!("Content-Length: 2\r\nContent-Length: {length}\r\n"), "{}");
    vec![
        entry("a length of 10^15", of("1000000000000000"), Answered(413)),
        entry("a length of 2^63", of("9223372036854775808"), Answered(413)),
        entry("a length of 2^64 - 1", of("18446744073709551615"), Answered(400)),
        entry("a length of 2^64", of("18446744073709551616"), Answered(400)),
        entry("a length with a plus", of("+2"), Answered(400)),
        entry("a length with a minus", of("-2"), Answered(400)),
        entry("a hexadecimal length", of("0x2"), Answered(400)),
        entry("a length with a point", of("2.0"), Answered(400)),
        entry("lengths in a list", of("2, 2"), Answered(400)),
        entry("a length of nothing", of(""), Answered(400)),
        entry("the same length twice", twice("2"), Answered(400)),
        entry("two lengths", twice("9"), Answered(400)),
        entry("no length", post("", "{}"), Answered(411)),
        entry("a length past the limit", of("1048577"), Answered(413)),
        entry("a body cut short", of("100"), Closed),
        entry("a long body cut short", of("100000"), Closed),
        entry(
            "smuggled by a length",
            post("Content-Length: 0x0\r\n", "DELETE /api/perf/kept HTTP/1.1\r\n\r\n"),
            Answered(400),
        ),
    ]
}

fn codings() -> Vec<Entry> {
    let coded = |headers: &str| post(headers, "0\r\n\r\n");
    vec![
        entry("a length and chunks", coded("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Answered(400)),
        entry("chunks and a length", coded("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Answered(400)),
        entry("an unknown coding", coded("Transfer-Encoding: xchunked\r\n"), Answered(400)),
        entry("chunked twice", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Answered(400)),
        entry("chunks where none are taken", coded("Transfer-Encoding: chunked\r\n"), Answered(411)),
        entry("a chunk of no size", chunks("\r\n\r\n"), Answered(400)),
        entry("a chunk of a negative size", chunks("-1\r\n\r\n"), Answered(400)),
        entry("a chunk past 2^64", chunks("ffffffffffffffffff\r\n"), Answered(400)),
        entry("a chunk of 2^63 - 1", chunks("7fffffffffffffff\r\n"), Answered(413)),
        entry("a chunk longer than it says", chunks("1\r\nabc\r\n0\r\n\r\n"), Answered(400)),
        entry("a chunk that ends in LF", chunks("1\r\na\n0\r\n\r\n"), Answered(400)),
        entry("the line of a chunk that ends in LF", chunks("1;x\n;y\r\na\r\n0\r\n\r\n"), Answered(400)),
        entry("a line of a chunk that is long", chunks(&format!("1;{}\r\n", "x".repeat(254))), Answered(400)),
        entry("half a line of a chunk that is long", chunks(&format!("1;{}", "x".repeat(255))), Answered(400)),
        entry("half a chunk", chunks("9\r\nperf"), Closed),
        entry("10,000 chunks of a byte", chunks(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(10_000))), Answered(400)),
        entry("a trailer that ends in LF", chunks("0\r\n\nX: y\r\n\r\n"), Answered(400)),
        entry("trailers without an end", chunks(&format!("0\r\n{}", "X: y\r\n".repeat(3000))), Answered(431)),
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
    .map(|(name, (bytes, end))| entry(name, bytes, end))
    .into()
}

fn bodies() -> Vec<Entry> {
    let long_label = format!("{{\"{}\":1}}", "l".repeat(129));
    let many: Vec<String> = (0..257).map(|n| format!("\"l{n}\":1")).collect();
    let bomb = gzip(&vec![b'\n'; 64 << 20]);
    let mut torn = gzip(b"perf,host=abuser cpu=1\n");
    torn.truncate(torn.len() - 4);
    let mut all = vec![
        entry("a gzip of 64 MiB", packed(&bomb), Answered(413)),
        entry("a gzip of a gzip", packed(&gzip(&bomb)), Answered(400)),
        entry("a torn gzip", packed(&torn), Answered(400)),
        entry("no gzip", packed(b"perf,host=abuser cpu=1\n"), Answered(400)),
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
    ];
    all.extend(of.into_iter().map(|(name, body)| entry(name, json(&body), Answered(400))));
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
