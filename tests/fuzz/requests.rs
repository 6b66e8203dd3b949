//! Requests as the specification lets a client send them, and generated ones, answered by a connection of the builtin
//! server.

use proptest::prelude::*;

use crate::asked::{NOW, api};
use crate::https_heads::statuses;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

fn answered(sends: &[u8], piece_bytes: usize) -> Vec<u16> {
    statuses(&lizm::http::answer(sends.chunks(piece_bytes), &api()))
}

/// A post with further header fields, its length among them.
fn post(fields: &str, body: &str) -> String {
    format!("POST /api/perf/h/{NOW} HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
}

/// Lines of line protocol in chunks, each with an extension, and a trailer.
fn chunks(chunk_bytes: usize, count: usize) -> String {
    let lines = "perf,host=h cpu=1\n".repeat(50);
    let chunk = format!("{chunk_bytes:X};name=value\r\n{}\r\n", &lines[..chunk_bytes]);
    let head = "POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{}0\r\nX-Checksum: 1\r\n\r\n", chunk.repeat(count))
}

#[test]
fn what_the_specification_lets_a_client_send_is_answered() {
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n");
    let sample = "{\"a\":1}";
    let long = "x".repeat(100_000);
    for (sends, statuses) in [
        (get("GET http://x/health HTTP/1.1", "Host: x\r\n"), &[200][..]),
        (get("GET /health HTTP/1.0", ""), &[200]),
        (get("GET /health HTTP/1.1", "Host:\r\n"), &[200]),
        (get("GET /health HTTP/1.1", "Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"), &[200]),
        (get("GET /health HTTP/1.1", ""), &[400]),
        (get("GET /health HTTP/1.1", "Host: a\r\nHost: a\r\n"), &[400]),
        (get("GET /health HTTP/1.0", "Host: a\r\nHost: a\r\n"), &[400]),
        (post("Content-Length: 7\r\n", sample) + "\r\n" + HEALTH, &[200, 200]),
        (post("Content-Length: 7\r\nExpect: 100-continue\r\n", sample) + HEALTH, &[200, 200]),
        (chunks(18, 3) + HEALTH, &[204, 200]),
        // The body of a refused request is passed over, if it has a known end.
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{long}{HEALTH}"), &[404, 200]),
        (format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{long}"), &[404]),
        (get("GET /health HTTP/1.0", "") + HEALTH, &[200]),
        (get("GET /health HTTP/1.0", "Connection: keep-alive\r\n") + HEALTH, &[200, 200]),
        (get("GET /health HTTP/1.1", "Host: x\r\nConnection: foo, Close\r\n") + HEALTH, &[200]),
    ] {
        assert_eq!(answered(sends.as_bytes(), usize::MAX), statuses, "{sends:.200}");
    }
}

#[test]
fn a_client_that_waits_for_it_is_told_to_go_on_once_its_head_is_accepted() {
    let said = |head: String| lizm::http::answer([head.as_bytes()], &api());
    let expect = |length: usize| said(post(&format!("Content-Length: {length}\r\nExpect: 100-continue\r\n"), ""));
    assert_eq!(expect(7), b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(expect(9_999_999).starts_with(b"HTTP/1.1 413 "));
}

/// Requests, good ones and others, of which some end the connection.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let nowhere = |length| format!("PUT /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    prop_oneof![
        4 => Just(HEALTH.into()),
        4 => (1..40_000_usize).prop_map(|length| post(&format!("Content-Length: {length}\r\n"), &" ".repeat(length)).into()),
        4 => (1..900_usize, 0..40_usize).prop_map(|(chunk_bytes, count)| chunks(chunk_bytes, count).into()),
        2 => (0..40_000_usize).prop_map(move |length| (nowhere(length) + &"x".repeat(length)).into()),
        2 => Just("\r\n\r\n".into()),
        1 => Just("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into()),
        1 => Just("GET /health HTTP/1.1\nHost: x\n\n".into()),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn requests_are_the_same_wherever_they_are_cut(
        requests in proptest::collection::vec(request(), 1..12),
        piece_bytes in prop_oneof![1..20_usize, 20..20_000_usize],
    ) {
        let sends = requests.concat();
        prop_assert_eq!(answered(&sends, piece_bytes), answered(&sends, usize::MAX));
    }
}
