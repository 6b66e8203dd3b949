//! HTTP/1.1 as both servers speak it: which heads are refused, how a body is framed, and the bytes of an answer. Below are
//! the builtin server, and threads for what may wait.

#[cfg(feature = "builtin")]
mod builtin;
pub(crate) mod pool;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;
use nix::sys::socket::{self, Backlog, setsockopt, sockopt};

use crate::api::{Reply, Route};
#[cfg(feature = "tls")]
pub use builtin::HttpsOptions;
#[cfg(feature = "builtin")]
pub use builtin::{Options, Server, answer};

/// Longest body in bytes that is copied behind its head. Before a longer one the head is inserted: there is memory for one.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// Longest time sent bytes may stay unacknowledged before the kernel ends the connection.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS_MAX: u32 = 10_000;
/// Connections the kernel holds until they are accepted: a fleet that reconnects in one second fits.
const BACKLOG: i32 = 4096;

/// Listens on `address`, with options that accepted sockets inherit on Linux.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // An answer may leave in two segments, the second of which would wait for the client's delayed ACK.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(&listener, sockopt::KeepAlive, &true)?;
    #[cfg(target_os = "linux")]
    setsockopt(&listener, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS_MAX)?;
    socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// The first header field of that name.
pub(crate) fn header<'a>(mut headers: impl Iterator<Item = (&'a str, &'a str)>, name: &str) -> Option<&'a str> {
    headers.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Why a head is refused whatever it asks for: the end of its body, its sender or its host is uncertain.
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
    let once = [("Authorization", "header Authorization: given twice"), ("Host", "header Host: given twice")];
    once.into_iter().find(|(name, _)| all(name).nth(1).is_some()).map(|(_, sentence)| sentence)
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

/// The header `Connection` of an answer, where one is needed; `asked` is the request's own.
pub(crate) fn connection(asked: Option<&str>, is_http_1_0: bool, close: bool) -> Option<&'static str> {
    let has = |option: &str| {
        asked.is_some_and(|asked| asked.split(',').any(|given| given.trim().eq_ignore_ascii_case(option)))
    };
    if close || has("close") {
        Some("close")
    } else if is_http_1_0 {
        Some(if has("keep-alive") { "keep-alive" } else { "close" })
    } else {
        None
    }
}

/// Appends an answer to `to`, at `now` in seconds since the Unix epoch.
pub(crate) fn append(to: &mut Vec<u8>, reply: Reply, head_only: bool, connection: Option<&str>, now: u64) {
    let written = write_head(to, &reply, connection, now);
    debug_assert!(written.is_ok(), "memory takes what is written to it");
    match reply.body {
        _ if head_only => {}
        short if short.len() <= COPIED_BYTES_MAX => to.extend_from_slice(&short),
        mut long => {
            long.reserve_exact(to.len());
            drop(long.splice(..0, to.drain(..)));
            *to = long;
        }
    }
}

fn write_head(to: &mut Vec<u8>, reply: &Reply, connection: Option<&str>, now: u64) -> io::Result<()> {
    let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(now));
    let reason = tiny_http::StatusCode(reply.status).default_reason_phrase();
    write!(to, "HTTP/1.1 {} {reason}\r\nDate: {date}\r\n", reply.status)?;
    if !matches!(reply.status, 204 | 304) && !reply.headers.iter().any(|(name, _)| *name == "Content-Type") {
        to.extend_from_slice(b"Content-Type: application/json\r\n");
    }
    if let Some(length) = reply.content_length() {
        write!(to, "Content-Length: {length}\r\n")?;
    }
    let headers = reply.headers.iter().map(|(name, value)| (*name, &**value));
    for (name, value) in headers.chain(connection.map(|value| ("Connection", value))) {
        write!(to, "{name}: {value}\r\n")?;
    }
    to.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_behind_its_head_whatever_its_length() {
        for length in [0, 1, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1] {
            let body: Vec<u8> = (0..length).map(|place| b'a' + (place % 26) as u8).collect();
            let (mut whole, mut head_only) = (b"before".to_vec(), b"before".to_vec());
            append(&mut whole, Reply::new(200, body.clone()), false, None, 0);
            append(&mut head_only, Reply::new(200, body.clone()), true, None, 0);
            assert!(head_only.ends_with(format!("Content-Length: {length}\r\n\r\n").as_bytes()), "{length}");
            assert_eq!(whole, [head_only, body].concat(), "{length}");
        }
    }
}
