//! HTTP/1.1 on one connection of the HTTPS door: head, body, answer, and the next, for as long as the client keeps to
//! the rules and the deadlines.
//!
//! It knows a stream and a deadline, and nothing of TLS.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::budget::{Budget, Taken};
use super::deadline::Deadline;
use crate::api::{Api, ClientTransport, HEAD_BYTES_MAX, Reply, RequestHead, Route};
use crate::http::{self, Body};

/// Longest silence between two requests.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Longest time for a head, from its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Longest time for a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for an answer as a whole, and for none of it to be taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
const ANSWER_SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long, and how many bytes, a client that is refused may go on sending, so that it gets to read the answer.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Longest body of a refused request that is read for the sake of the connection; bodies and answers up to this length
/// are not asked whether there is memory for them.
const SHORT_BYTES_MAX: usize = 64 << 10;
/// Longest wait for a turn to unpack a body, or to find an answer that may be long.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Most header lines: browsers send twenty, proxies a few more.
const HEADERS_MAX: usize = 64;
/// Longest line before a chunk, extensions included; nobody sends any.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes asked for at a time: heads, and what a connection keeps of memory between requests.
const READ_BYTES: usize = 4 << 10;
/// The same where more is known to come.
const READ_BYTES_MAX: usize = 64 << 10;

/// A connection between two requests.
pub(super) struct Connection<'a, S> {
    stream: S,
    deadline: &'a Deadline,
    api: &'a Api,
    peer: ClientTransport<'a>,
    budget: &'a Budget,
    /// What has come and is not used yet.
    buffer: Vec<u8>,
}

/// What ends a request before its time.
enum Failed {
    /// It is answered, and the connection ends with it.
    Refused(Reply),
    /// There is nobody to answer.
    Gone(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

fn refused(status: u16, sentence: &str) -> Failed {
    Failed::Refused(Reply::error(status, sentence))
}

/// What a request is refused with that there is no memory for now.
fn busy() -> Failed {
    refused(503, "too much is on its way on this door; try again later")
}

/// What a step that came too late is refused with; one without an end otherwise is [`Failed::Gone`].
fn too_slow(error: io::Error, what: &str, within: Duration) -> Failed {
    if error.kind() == io::ErrorKind::TimedOut {
        return refused(408, &format!("{what}: not whole after {} seconds, the limit", within.as_secs()));
    }
    Failed::Gone(error)
}

/// Whether what httparse takes for the line before a chunk is one. It takes a line without a digit for a size of zero, and
/// an LF alone for a part of an extension, where others end the line: who differs on that, differs on where a request ends.
fn is_chunk_line(line: &[u8]) -> bool {
    line.len() <= CHUNK_LINE_BYTES_MAX
        && line.first().is_some_and(u8::is_ascii_hexdigit)
        && memchr::memchr(b'\n', line) == Some(line.len() - 1)
}

/// A request that was answered.
struct Answered {
    /// Whether another may follow.
    keeps: bool,
}

impl<'a, S: Read + Write> Connection<'a, S> {
    pub(super) fn new(
        stream: S,
        deadline: &'a Deadline,
        api: &'a Api,
        peer: ClientTransport<'a>,
        budget: &'a Budget,
    ) -> Self {
        Self { stream, deadline, api, peer, budget, buffer: Vec::new() }
    }

    /// Answers requests until one ends the connection. `goes_on` is told when the connection begins and ends to be
    /// idle, and says whether it may go on.
    pub(super) fn serve(mut self, goes_on: impl Fn(bool) -> bool) -> io::Result<()> {
        loop {
            self.deadline.set(IDLE_MAX);
            if self.buffer.is_empty() && !(goes_on(true) && self.read_more(READ_BYTES)? > 0) {
                return Ok(());
            }
            let may_follow = goes_on(false);
            match self.request(may_follow) {
                Ok(Answered { keeps: true }) if may_follow => {}
                Ok(_) => return Ok(()),
                Err(Failed::Refused(reply)) => {
                    self.buffer = Vec::new();
                    self.answer(&reply, false, Some("close"))?;
                    return self.linger();
                }
                Err(Failed::Gone(error)) => return Err(error),
            }
            self.buffer.shrink_to(READ_BYTES);
        }
    }

    /// Reads one request and answers it.
    fn request(&mut self, may_follow: bool) -> Result<Answered, Failed> {
        let bytes = self.read_head()?;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(refused(400, "head: ends before its time")),
            Err(httparse::Error::Version) => {
                return Err(refused(505, "head: only HTTP/1.0 and HTTP/1.1 are spoken here"));
            }
            Err(httparse::Error::TooManyHeaders) => {
                return Err(refused(431, &format!("head: more than {HEADERS_MAX} header lines, the limit")));
            }
            Err(error) => return Err(refused(400, &format!("head: {error}"))),
        }
        // What is not UTF-8 is none of the values that mean anything here.
        let text = |value| std::str::from_utf8(value).unwrap_or("\u{fffd}");
        let pairs = || request.headers.iter().map(|header| (header.name, text(header.value)));
        if let Some(sentence) = http::head_error(pairs()) {
            return Err(refused(400, sentence));
        }
        let header = |name| http::header(pairs(), name);
        let method = request.method.unwrap_or_default();
        let target = request.path.unwrap_or_default();
        let head = RequestHead::new(method, target, self.peer, None, pairs());
        let length = header("Content-Length").map(|digits| digits.parse().unwrap_or(usize::MAX));
        let is_chunked = header("Transfer-Encoding").is_some();
        if is_chunked && request.version == Some(0) {
            return Err(refused(400, "header Transfer-Encoding: HTTP/1.0 knows none"));
        }
        let expects = header("Expect");
        if expects.is_some_and(|expects| !expects.eq_ignore_ascii_case("100-continue")) {
            return Err(refused(417, "header Expect: only 100-continue is known here"));
        }
        self.deadline.set(BODY_WITHIN);
        let (reply, _memory) = match self.api.route(&head, self.api.now_sec()) {
            Ok(route) => self.reply(&route, length, is_chunked, expects.is_some())?,
            Err(reply) => {
                // A short body is on its way, most likely, and the connection good for another request.
                let length = length.unwrap_or(0);
                if is_chunked || length > SHORT_BYTES_MAX || length > 0 && expects.is_some() {
                    return Err(Failed::Refused(reply));
                }
                self.read_until(length).map_err(|error| too_slow(error, "body", BODY_WITHIN))?;
                self.buffer.drain(..length);
                (reply, None)
            }
        };
        let connection = http::connection(header("Connection"), request.version == Some(0), !may_follow);
        self.answer(&reply, method == "HEAD", connection)?;
        Ok(Answered { keeps: connection != Some("close") })
    }

    /// Reads the body that a route takes, and replies, with the memory that the answer takes.
    fn reply(
        &mut self,
        route: &Route,
        length: Option<usize>,
        is_chunked: bool,
        expects: bool,
    ) -> Result<(Reply, Option<Taken<'a>>), Failed> {
        let body = http::body(route, length, is_chunked).map_err(Failed::Refused)?;
        let (in_buffer, bytes_max) = match body {
            Body::Length(length) => (length, length),
            Body::Chunks => (0, route.body_bytes_max()),
        };
        let _memory = self.memory_for(bytes_max).ok_or_else(busy)?;
        if expects && self.buffer.is_empty() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            self.stream.flush()?;
        }
        let chunks = match body {
            Body::Length(length) => {
                self.read_until(length).map_err(|error| too_slow(error, "body", BODY_WITHIN))?;
                None
            }
            Body::Chunks => Some(self.read_chunks(bytes_max)?),
        };
        let needs_turn = route.is_compressed() || route.is_read();
        let _turn = needs_turn.then(|| self.budget.turn(TURN_WITHIN).ok_or_else(busy)).transpose()?;
        let body = chunks.as_deref().unwrap_or(&self.buffer[..in_buffer]);
        let reply = self.api.reply(route, body, self.api.now_sec());
        self.buffer.drain(..in_buffer);
        self.buffer.shrink_to(READ_BYTES);
        let memory = self.memory_for(reply.body.len());
        // What was done is answered in any case.
        if memory.is_none() && route.is_read() { Err(busy()) } else { Ok((reply, memory)) }
    }

    /// Takes memory for a body or an answer, where there is some left; a short one needs none.
    fn memory_for(&self, bytes: usize) -> Option<Taken<'a>> {
        self.budget.take(if bytes > SHORT_BYTES_MAX { bytes } else { 0 })
    }

    /// Takes the bytes of a head from the buffer, and from the client what is missing of it. Every line ends in CRLF:
    /// what takes LF alone for the end of one, and what does not, differ on where a request ends.
    fn read_head(&mut self) -> Result<Vec<u8>, Failed> {
        self.deadline.set(HEAD_WITHIN);
        let mut line_start = 0;
        loop {
            while let Some(newline) = memchr::memchr(b'\n', &self.buffer[line_start..]) {
                let line = &self.buffer[line_start..line_start + newline];
                let Some((b'\r', line)) = line.split_last() else {
                    return Err(refused(400, "head: a line ends in LF without CR"));
                };
                let is_end = line.is_empty() && line_start > 0;
                line_start += newline + 1;
                if line_start > HEAD_BYTES_MAX {
                    break;
                }
                if is_end {
                    return Ok(self.buffer.drain(..line_start).collect());
                }
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(refused(431, &format!("head: longer than {HEAD_BYTES_MAX} bytes, the limit")));
            }
            if self.read_more(READ_BYTES).map_err(|error| too_slow(error, "head", HEAD_WITHIN))? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Takes the chunks of a body, whose end is sure (RFC 9112, 7.1).
    fn read_chunks(&mut self, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let mut body = Vec::new();
        loop {
            let (line_bytes, size) = match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((line_bytes, size))) if is_chunk_line(&self.buffer[..line_bytes]) => {
                    (line_bytes, size)
                }
                Ok(httparse::Status::Partial) if self.buffer.len() <= CHUNK_LINE_BYTES_MAX => {
                    self.read_until(self.buffer.len() + 1).map_err(|error| too_slow(error, "body", BODY_WITHIN))?;
                    continue;
                }
                _ => return Err(refused(400, &format!("body: after {} bytes of it a chunk is malformed", body.len()))),
            };
            self.buffer.drain(..line_bytes);
            if size == 0 {
                self.read_trailers()?;
                return Ok(body);
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > bytes_max - body.len() {
                return Err(refused(413, &format!("body: longer than {bytes_max} bytes, the limit")));
            }
            self.read_until(size + 2).map_err(|error| too_slow(error, "body", BODY_WITHIN))?;
            if &self.buffer[size..size + 2] != b"\r\n" {
                return Err(refused(400, &format!("body: after {} bytes of it a chunk is malformed", body.len())));
            }
            body.extend_from_slice(&self.buffer[..size]);
            self.buffer.drain(..size + 2);
        }
    }

    /// Passes over the lines after the last chunk, to the empty one.
    fn read_trailers(&mut self) -> Result<(), Failed> {
        let mut bytes = 0;
        loop {
            let Some(newline) = memchr::memchr(b'\n', &self.buffer) else {
                if bytes + self.buffer.len() > HEAD_BYTES_MAX {
                    return Err(refused(431, &format!("trailers: longer than {HEAD_BYTES_MAX} bytes, the limit")));
                }
                self.read_until(self.buffer.len() + 1).map_err(|error| too_slow(error, "body", BODY_WITHIN))?;
                continue;
            };
            let Some((b'\r', line)) = self.buffer[..newline].split_last() else {
                return Err(refused(400, "trailers: a line ends in LF without CR"));
            };
            let is_end = line.is_empty();
            self.buffer.drain(..=newline);
            bytes += newline + 1;
            if is_end {
                return Ok(());
            }
            if bytes > HEAD_BYTES_MAX {
                return Err(refused(431, &format!("trailers: longer than {HEAD_BYTES_MAX} bytes, the limit")));
            }
        }
    }

    /// Reads until the buffer holds `length` bytes.
    fn read_until(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            if self.read_more(missing.clamp(READ_BYTES, READ_BYTES_MAX))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads what there is of up to `bytes_max`, at least one but for the end of the stream, and says how many.
    fn read_more(&mut self, bytes_max: usize) -> io::Result<usize> {
        let before = self.buffer.len();
        self.buffer.resize(before + bytes_max, 0);
        let read = loop {
            match self.stream.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(before + read.as_ref().map_or(0, |read| *read));
        read
    }

    fn answer(&mut self, reply: &Reply, head_only: bool, connection: Option<&str>) -> io::Result<()> {
        self.api.stats().answered(reply.status);
        self.deadline.set_with_silence(ANSWER_WITHIN, ANSWER_SILENCE_MAX);
        let (answer, rest) = http::encode(reply, head_only, connection);
        self.stream.write_all(&answer)?;
        self.stream.write_all(rest)?;
        self.stream.flush()
    }

    /// Reads away what a refused client still sends, for a while: a connection that is closed with bytes unread is
    /// reset, and the answer with it.
    fn linger(&mut self) -> io::Result<()> {
        self.deadline.set(LINGER_MAX);
        let mut read = 0;
        while read < LINGER_BYTES_MAX {
            self.buffer.clear();
            match self.read_more(READ_BYTES_MAX)? {
                0 => break,
                more => read += more,
            }
        }
        Ok(())
    }
}
