//! HTTP/1.1 as both doors speak it: which heads are refused whatever they ask for, and the bytes of an answer.

use std::io::{self, Write};
use std::time::SystemTime;

use httpdate::HttpDate;

use crate::api::{Reply, Route};

/// Room for the head of an answer, which most fit into.
const HEAD_BYTES_EXPECTED: usize = 256;
/// Longest body in bytes that is copied behind its head: what a kernel takes at once.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// A header of that name, the first of it.
pub(crate) fn header<'a>(mut headers: impl Iterator<Item = (&'a str, &'a str)>, name: &str) -> Option<&'a str> {
    headers.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What makes the end of a body or the sender of a request uncertain.
pub(crate) fn head_error<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<&'static str> {
    let all = |name: &'static str| headers.clone().filter(move |(given, _)| given.eq_ignore_ascii_case(name));
    let mut lengths = all("Content-Length");
    if let Some((_, digits)) = lengths.next() {
        if lengths.next().is_some() {
            return Some("header Content-Length: given twice");
        }
        if digits.is_empty() || digits.len() > 19 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Some("header Content-Length: not a number of 1 to 19 digits");
        }
        if all("Transfer-Encoding").next().is_some() {
            return Some("header Transfer-Encoding: given together with Content-Length");
        }
    }
    let mut encodings = all("Transfer-Encoding");
    if let Some((_, encoding)) = encodings.next()
        && (!encoding.eq_ignore_ascii_case("chunked") || encodings.next().is_some())
    {
        return Some("header Transfer-Encoding: only chunked is known here, given once");
    }
    all("Authorization").nth(1).map(|_| "header Authorization: given twice")
}

/// How the body of a request comes.
pub(crate) enum Body {
    /// Of a declared length in bytes, or none at all.
    Length(usize),
    Chunks,
}

/// Finds how a body comes, where `route` takes it so.
pub(crate) fn body(route: &Route, length: Option<usize>, is_chunked: bool) -> Result<Body, Reply> {
    let bytes_max = route.body_bytes_max();
    match length {
        Some(length) if length > bytes_max => {
            Err(Reply::error(413, &format!("body: {length} bytes long, the limit is {bytes_max}")))
        }
        Some(length) => Ok(Body::Length(length)),
        None if is_chunked && route.takes_chunks() => Ok(Body::Chunks),
        None if is_chunked || route.needs_length() => {
            Err(Reply::error(411, "header Content-Length: missing, and this request needs it"))
        }
        None => Ok(Body::Length(0)),
    }
}

/// What the header `Connection` of an answer says, if it is needed: a request's own says `asked`.
pub(crate) fn connection(asked: Option<&str>, is_http_1_0: bool, close: bool) -> Option<&'static str> {
    let asked = asked.unwrap_or_default().to_ascii_lowercase();
    if close || asked.contains("close") {
        Some("close")
    } else if is_http_1_0 {
        Some(if asked.contains("keep-alive") { "keep-alive" } else { "close" })
    } else {
        None
    }
}

/// The bytes of an answer: in one piece, so that they leave in as few segments as they can, but for a long body, which
/// comes behind its head as it is.
pub(crate) fn encode<'r>(reply: &'r Reply, head_only: bool, connection: Option<&str>) -> (Vec<u8>, &'r [u8]) {
    let (first, rest): (&[u8], &[u8]) = match &*reply.body {
        _ if head_only => (&[], &[]),
        short if short.len() <= COPIED_BYTES_MAX => (short, &[]),
        long => (&[], long),
    };
    let mut answer = Vec::with_capacity(HEAD_BYTES_EXPECTED + first.len());
    let written = write_head(&mut answer, reply, connection);
    debug_assert!(written.is_ok(), "memory takes what is written to it");
    answer.extend_from_slice(first);
    (answer, rest)
}

fn write_head(answer: &mut Vec<u8>, reply: &Reply, connection: Option<&str>) -> io::Result<()> {
    let date = HttpDate::from(SystemTime::now());
    write!(answer, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", reply.status, reason(reply.status))?;
    if !matches!(reply.status, 204 | 304) {
        if !reply.headers.iter().any(|(name, _)| *name == "Content-Type") {
            answer.extend_from_slice(b"Content-Type: application/json\r\n");
        }
    }
    if let Some(length) = reply.content_length() {
        write!(answer, "Content-Length: {length}\r\n")?;
    }
    let headers = reply.headers.iter().map(|(name, value)| (*name, &**value));
    for (name, value) in headers.chain(connection.map(|value| ("Connection", value))) {
        write!(answer, "{name}: {value}\r\n")?;
    }
    answer.extend_from_slice(b"\r\n");
    Ok(())
}

/// The phrase of a status (RFC 9110, 15).
fn reason(status: u16) -> &'static str {
    tiny_http::StatusCode(status).default_reason_phrase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_behind_its_head_and_a_long_one_is_not_copied() {
        for length in [0, 1, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1, 3 * COPIED_BYTES_MAX] {
            let body: Vec<u8> = (0..length).map(|place| b'a' + (place % 26) as u8).collect();
            let reply = Reply::new(200, body);
            let (first, rest) = encode(&reply, false, None);
            let answer = [&first, rest].concat();
            let (head, sent) = answer.split_at(answer.len() - length);
            assert!(head.ends_with(format!("Content-Length: {length}\r\n\r\n").as_bytes()), "{length}");
            assert_eq!(sent, reply.body, "{length}");
            assert_eq!(rest.len(), if length > COPIED_BYTES_MAX { length } else { 0 }, "{length}");
            let (head_only, nothing) = encode(&reply, true, None);
            assert_eq!((head_only.len(), nothing.len()), (head.len(), 0), "{length}: the answer to HEAD");
        }
    }
}
