//! What tiny_http tells of a request, and how its body comes in.

use std::io;
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Header, Request};

use super::RECEIVE_SEC_MAX;
use crate::api::Reply;
use crate::http;

/// Bodies up to this many bytes are in memory when tiny_http hands a request over (`tiny_http::request`).
const BUFFERED_BYTES_MAX: usize = 1024;
/// Longest unread body in bytes that may be dropped: tiny_http allocates its length to do so, and a petabyte aborts.
pub(super) const DROPPED_BYTES_MAX: usize = 64 << 20;
/// Longest time for a body to come in.
pub(super) const BODY_SEC_MAX: u64 = 30;

/// What tiny_http has not read of a body when it hands the request over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unread {
    Nothing,
    Bytes(usize),
    Chunks,
}

impl Unread {
    /// Whether it takes a client's time. One that is refused by its length alone does not: nothing of it is read.
    pub(super) fn is_to_be_read(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bytes(length) => length <= DROPPED_BYTES_MAX,
            Self::Chunks => true,
        }
    }

    pub(super) fn of(request: &Request) -> Self {
        let headers = request.headers();
        match request.body_length() {
            // The connection ends with such a request, so nothing after its head is read.
            _ if http::asks_for_upgrade(pairs(headers)) => Self::Nothing,
            None if header(headers, "Transfer-Encoding").is_some() => Self::Chunks,
            Some(length) if length > BUFFERED_BYTES_MAX || length > 0 && header(headers, "Expect").is_some() => {
                Self::Bytes(length)
            }
            _ => Self::Nothing,
        }
    }
}

/// Whether tiny_http takes nothing more from a connection after this request.
pub(super) fn is_last(request: &Request) -> bool {
    let asked = header(request.headers(), "Connection").unwrap_or_default().to_ascii_lowercase();
    let is_kept = asked.contains("keep-alive") || *request.http_version() != HTTPVersion(1, 0);
    asked.contains("close") || asked.contains("upgrade") || !is_kept
}

/// The headers of a request, as names and values.
pub(super) fn pairs(headers: &[Header]) -> impl Iterator<Item = (&str, &str)> + Clone {
    headers.iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()))
}

pub(super) fn header<'a>(headers: &'a [Header], name: &'static str) -> Option<&'a str> {
    http::header(pairs(headers), name)
}

pub(super) fn read_body(request: &mut Request, length: usize) -> Result<Vec<u8>, Reply> {
    let deadline = Instant::now() + Duration::from_secs(BODY_SEC_MAX);
    let mut body = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match request.as_reader().read(&mut body[filled..]) {
            Ok(0) => return Err(Reply::error(400, &format!("body: ended after {filled} of {length} bytes"))),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(too_slow(filled, length, &format!("then none for {RECEIVE_SEC_MAX} seconds"))),
        }
        if filled < length && Instant::now() > deadline {
            return Err(too_slow(filled, length, &format!("the limit is {BODY_SEC_MAX} seconds")));
        }
    }
    Ok(body)
}

fn too_slow(filled: usize, length: usize, why: &str) -> Reply {
    Reply::error(408, &format!("body: {filled} of {length} bytes came, {why}"))
}

/// Reads a body in chunks.
///
/// tiny_http does not tell one that was cut short within a chunk from a whole one. What is packed tells by itself; of
/// lines the last must have its newline, so that those that came are whole.
pub(super) fn read_chunks(request: &mut Request, bytes_max: usize, is_packed: bool) -> Result<Vec<u8>, Reply> {
    let deadline = Instant::now() + Duration::from_secs(BODY_SEC_MAX);
    let (mut body, mut scratch) = (Vec::new(), [0; 16 << 10]);
    loop {
        let read = match request.as_reader().read(&mut scratch) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let sentence = format!("body: after {} bytes of it a chunk is malformed, or cut short", body.len());
                return Err(Reply::error(400, &sentence));
            }
            Err(_) => {
                let (came, silent) = (body.len(), RECEIVE_SEC_MAX);
                let sentence = format!("body: {came} bytes of it came, then none for {silent} seconds");
                return Err(Reply::error(408, &sentence));
            }
        };
        body.extend_from_slice(&scratch[..read]);
        if body.len() > bytes_max {
            return Err(Reply::error(413, &format!("body: longer than {bytes_max} bytes, the limit")));
        }
        if read == 0 && !is_packed && body.last().is_some_and(|last| *last != b'\n') {
            let sentence = "body: the last line has no newline, so it may be cut short; in chunks it needs one";
            return Err(Reply::error(400, sentence));
        }
        if read == 0 {
            return Ok(body);
        }
        if Instant::now() > deadline {
            let sentence = format!("body: {} bytes of it came, the limit is {BODY_SEC_MAX} seconds", body.len());
            return Err(Reply::error(408, &sentence));
        }
    }
}

/// Reads the chunks of a refused request away, so that a client that is still sending gets to read the answer, and says
/// whether they, or what can be read of them, came within the time that a body may take.
pub(super) fn read_away(request: &mut Request) -> bool {
    let deadline = Instant::now() + Duration::from_secs(BODY_SEC_MAX);
    let mut scratch = [0; 16 << 10];
    while Instant::now() < deadline {
        if !request.as_reader().read(&mut scratch).is_ok_and(|read| read > 0) {
            return true;
        }
    }
    false
}
