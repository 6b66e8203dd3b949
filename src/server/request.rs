//! One request of tiny_http: reading its body, answering it, and passing over a body that was not read.
//!
//! tiny_http reads a body of up to 1 KiB into memory before it hands the request over. Of a longer one it reads what is
//! left when the request is dropped, into memory of that length: a declared petabyte would abort the process.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Header, Method, Request, Response, StatusCode};

use super::RECEIVE_SEC_MAX;
use crate::api::{Api, ClientTransport, HEAD_BYTES_MAX, Reply, RequestHead, is_prometheus};
use crate::clock::unix_now;
use crate::http::{self, Body};

/// Bodies up to this many bytes are in memory when tiny_http hands a request over (`tiny_http::request`).
const IN_MEMORY_BYTES_MAX: usize = 1024;
/// Longest declared body in bytes of a request that may be dropped unread.
const DROPPED_BYTES_MAX: usize = 64 << 20;
/// Bytes asked for at a time where it is not known how many come.
const READ_BYTES: usize = 16 << 10;
/// Longest time for a body to come in.
const BODY_SEC_MAX: u64 = 30;
/// Longest time for an answer to be taken.
const ANSWER_SEC_MAX: u64 = 30;

/// What is left of a request's body on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PendingBody {
    /// Nothing: there is no body, or it is in memory.
    None,
    /// Bytes that tiny_http reads away when the request is dropped.
    Sized,
    /// Chunks, or any body behind `Connection: Upgrade`: tiny_http does not read them away.
    Unframed,
    /// More bytes than may be dropped.
    Undroppable,
}

impl PendingBody {
    pub(super) fn of(request: &Request) -> Self {
        let headers = request.headers();
        let is_buffered = |length| length <= IN_MEMORY_BYTES_MAX && header(headers, "Expect").is_none();
        match request.body_length() {
            None if header(headers, "Transfer-Encoding").is_some() => Self::Unframed,
            None | Some(0) => Self::None,
            Some(_) if asks_for_upgrade(request) => Self::Unframed,
            Some(length) if is_buffered(length) => Self::None,
            Some(length) if length > DROPPED_BYTES_MAX => Self::Undroppable,
            Some(_) => Self::Sized,
        }
    }
}

/// Answers a request. Once `is_draining` is set, the answer says that the connection ends.
pub(super) fn serve(api: &Api, mut request: Request, is_draining: &AtomicBool) {
    let pending = PendingBody::of(&request);
    if pending == PendingBody::Undroppable {
        // tiny_http drops what it answers. The connection and its thread are lost.
        return std::mem::forget(request);
    }
    let found = catch_unwind(AssertUnwindSafe(|| find_reply(api, &mut request)));
    let found = found.unwrap_or_else(|_| Err(Reply::error(500, "the receiver failed on this request; see its log")));
    let is_refused = found.is_err();
    let (Ok(reply) | Err(reply)) = found;
    let reply = reply.shaped(is_prometheus(request.url()));
    api.stats().answered(reply.status);
    let sent = if is_refused && pending == PendingBody::Sized {
        respond(request, &reply)
    } else {
        let is_uncertain = is_refused && http::head_error(pairs(request.headers())).is_some();
        if is_refused && pending == PendingBody::Unframed {
            read_away(&mut request);
        }
        send(request, reply, is_uncertain || is_draining.load(Ordering::Acquire))
    };
    if let Err(error) = sent {
        log::debug!("An answer was not taken by its client: {error}");
    }
}

/// The reply to a request; as an error, the reply to one whose body was not read to its end.
fn find_reply(api: &Api, request: &mut Request) -> Result<Reply, Reply> {
    let refuse = |status, sentence: String| Err(Reply::error(status, &sentence));
    let headers = pairs(request.headers());
    let header_bytes: usize = headers.clone().map(|(name, value)| name.len() + value.len() + 4).sum();
    let head_bytes = request.url().len() + header_bytes;
    if head_bytes > HEAD_BYTES_MAX {
        return refuse(431, format!("head: {head_bytes} bytes long, the limit is {HEAD_BYTES_MAX}"));
    }
    if let Some(sentence) = http::head_error(headers.clone()) {
        return refuse(400, sentence.to_owned());
    }
    let address = request.remote_addr().map(SocketAddr::ip);
    let head = RequestHead::new(request.method().as_str(), request.url(), ClientTransport::Plain, address, headers);
    let route = api.route(&head, api.now_sec())?;
    let is_chunked = header(request.headers(), "Transfer-Encoding").is_some();
    let body = http::body(&route, request.body_length(), is_chunked)?;
    let body = read_body(request, &body, route.body_bytes_max(), route.is_compressed())?;
    Ok(api.reply(&route, &body, api.now_sec()))
}

/// The headers of a request, as names and values.
fn pairs(headers: &[Header]) -> impl Iterator<Item = (&str, &str)> + Clone {
    headers.iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()))
}

fn header<'h>(headers: &'h [Header], name: &'static str) -> Option<&'h str> {
    http::header(pairs(headers), name)
}

/// Whether tiny_http takes the request for the last of its connection and leaves its body as it came.
fn asks_for_upgrade(request: &Request) -> bool {
    header(request.headers(), "Connection").is_some_and(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Reads the body of a request and ends where the body does.
fn body_reader(request: &mut Request) -> Box<dyn Read + '_> {
    let (is_raw, length) = (asks_for_upgrade(request), request.body_length());
    let reader = request.as_reader();
    match length {
        _ if !is_raw => Box::new(reader),
        Some(length) => Box::new(reader.take(length as u64)),
        None => Box::new(chunked_transfer::Decoder::new(reader)),
    }
}

/// Reads a body whole, of chunks up to `bytes_max`.
///
/// The decoder does not distinguish chunks that were cut short from a whole body. A compressed body shows it by itself; of
/// lines, the last must have its newline.
fn read_body(request: &mut Request, body: &Body, bytes_max: usize, is_compressed: bool) -> Result<Vec<u8>, Reply> {
    let length = if let Body::Length(length) = body { Some(*length) } else { None };
    let deadline = Instant::now() + Duration::from_secs(BODY_SEC_MAX);
    let (mut reader, mut bytes, mut filled) = (body_reader(request), vec![0; length.unwrap_or(0)], 0);
    let refuse = |status, sentence: &str| Err(Reply::error(status, &format!("body: {sentence}")));
    while length != Some(filled) {
        if length.is_none() {
            bytes.resize(filled + READ_BYTES, 0);
        }
        match reader.read(&mut bytes[filled..]) {
            Ok(0) if length.is_none() => break,
            Ok(0) => return refuse(400, &format!("ended after {filled} bytes, before its declared length")),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return refuse(400, &format!("after {filled} bytes of it a chunk is malformed, or cut short"));
            }
            Err(_) => return refuse(408, &format!("{filled} bytes came, then none for {RECEIVE_SEC_MAX} seconds")),
        }
        if length.is_none() && filled > bytes_max {
            return refuse(413, &format!("longer than {bytes_max} bytes, the limit"));
        }
        if length != Some(filled) && Instant::now() > deadline {
            return refuse(408, &format!("{filled} bytes came, the limit is {BODY_SEC_MAX} seconds"));
        }
    }
    bytes.truncate(filled);
    if length.is_none() && !is_compressed && bytes.last().is_some_and(|last| *last != b'\n') {
        return refuse(400, "the last line has no newline, so it may be cut short; in chunks it needs one");
    }
    Ok(bytes)
}

/// Reads the body of a refused request away, so that its client gets to read the answer.
fn read_away(request: &mut Request) {
    let deadline = Instant::now() + Duration::from_secs(BODY_SEC_MAX);
    let (mut reader, mut scratch) = (body_reader(request), [0; READ_BYTES]);
    while Instant::now() < deadline && reader.read(&mut scratch).is_ok_and(|read| read > 0) {}
}

/// Answers a request whose body was not read; tiny_http reads the rest of it away afterwards.
fn respond(request: Request, reply: &Reply) -> io::Result<()> {
    // tiny_http replaces a content type that it has already.
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_ref()));
    let headers = [("Content-Type", "application/json")].into_iter().chain(headers);
    let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok());
    let (body, length) = (reply.body.as_slice(), reply.body.len());
    request.respond(Response::new(StatusCode(reply.status), headers.collect(), body, Some(length), None))
}

/// Answers a request whose body was read. With `close` the answer says that the connection ends.
fn send(request: Request, reply: Reply, close: bool) -> io::Result<()> {
    let close = close || asks_for_upgrade(&request);
    let asked = header(request.headers(), "Connection");
    let connection = http::connection(asked, *request.http_version() == HTTPVersion(1, 0), close);
    let mut answer = Vec::new();
    http::append(&mut answer, reply, request.method() == &Method::Head, connection, unix_now().as_secs());
    let mut writer = request.into_writer();
    let deadline = Instant::now() + Duration::from_secs(ANSWER_SEC_MAX);
    let mut left = &*answer;
    while !left.is_empty() {
        left = match writer.write(left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => left,
            written => &left[written?..],
        };
        if !left.is_empty() && Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use tiny_http::TestRequest;

    use super::*;

    #[test]
    fn what_is_pending_of_a_body_tells_whether_its_request_may_be_dropped() {
        let above = (DROPPED_BYTES_MAX + 1).to_string();
        for (headers, expected) in [
            (&[("Content-Length", "0")][..], PendingBody::None),
            (&[("Content-Length", "7")], PendingBody::None),
            (&[("Content-Length", "7"), ("Expect", "100-continue")], PendingBody::Sized),
            (&[("Content-Length", "7"), ("Connection", "keep-alive, Upgrade")], PendingBody::Unframed),
            (&[("Content-Length", "1025")], PendingBody::Sized),
            (&[("Content-Length", &above)], PendingBody::Undroppable),
            (&[("Content-Length", "18446744073709551615")], PendingBody::Undroppable),
            (&[("Content-Length", "18446744073709551616")], PendingBody::None),
            (&[("Content-Length", &above), ("Transfer-Encoding", "chunked")], PendingBody::Unframed),
        ] {
            let headers_of = |(name, value): &(&str, &str)| Header::from_bytes(*name, *value).unwrap();
            let request = headers.iter().map(headers_of).fold(TestRequest::new(), TestRequest::with_header);
            let request = Request::from(request.with_body("{\"a\":1}"));
            assert_eq!(PendingBody::of(&request), expected, "{headers:?}");
            std::mem::forget(request);
        }
    }
}
