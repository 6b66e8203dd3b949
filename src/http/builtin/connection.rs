//! An HTTP/1.1 connection without any I/O: bytes in, requests out; replies in, bytes out. All limits and deadlines of a
//! connection are here, and the time is an argument.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::chunks::Chunks;
use super::head::{self, Head};
use super::shared::{Budget, Reservation};
use crate::api::{Api, Begun, ClientTransport, Reply, Route, Submission, is_prometheus};
use crate::auth::LastToken;
use crate::http::{self, Body};

/// Longest wait for the first request.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for another: above the keep-alive of 60 s that nginx and most clients have, so that they close first.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// Longest time for a head, from its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Longest time for a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for answers to be taken, and for none of their bytes to be.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
const ANSWER_SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a client may go on sending after the last answer. What it sends is thrown away. A connection that is closed
/// with bytes unread is reset, and the answer is lost with it: nginx answers 502 in its place.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Longest body of a refused request that is passed over, so that the connection can be kept.
const SKIPPED_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at a time, and the longest bodies and answers that need no reservation of memory.
const SHORT_BYTES_MAX: usize = 16 << 10;
/// Answers in bytes that may wait to be sent before the next request of the connection is looked at.
const OUTPUT_BYTES_MAX: usize = 16 << 10;

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// By the clock that deadlines go by.
    pub(super) instant: Instant,
    /// Seconds since the Unix epoch.
    pub(super) unix_sec: u64,
}

impl Now {
    pub(super) fn of_clocks(api: &Api) -> Self {
        Self { instant: Instant::now(), unix_sec: api.now_sec() }
    }
}

/// What a connection answers its requests with.
pub(super) struct Context<'c> {
    pub(super) api: &'c Api,
    pub(super) budget: &'c Arc<Budget>,
    pub(super) transport: ClientTransport<'c>,
    /// The address of the other side.
    pub(super) peer: Option<IpAddr>,
    pub(super) now: Now,
    /// Whether the next answer ends the connection.
    pub(super) is_closing: bool,
    /// What wakes this thread when a sample is stored, if it may neither wait for the store nor take long.
    pub(super) waker: Option<&'c Waker>,
}

impl Context<'_> {
    fn may_wait(&self) -> bool {
        self.waker.is_none()
    }
}

/// Why a connection does not go on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// It waits for its client to send.
    Input,
    /// It waits for its client to take what it was answered.
    Output,
    /// It waits for a sample to be stored: [`Connection::can_go_on`].
    Sample,
    /// It has a whole request whose answer may wait. Another thread is to go on with it.
    Store,
    /// The same, for an answer that is read and may be long.
    Read,
    /// More may be done at once, but others come first.
    Others,
    /// It is over.
    End,
}

/// A request whose head was accepted.
struct Request {
    route: Route,
    body: Body,
    /// How far a body in chunks is decoded.
    chunks: Chunks,
    head_only: bool,
    /// The header `Connection` of its answer.
    connection: Option<&'static str>,
    /// Its sample, when the body is used up.
    submission: Option<Submission>,
}

/// What a connection is at, and so which limit of time it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Body,
    Answer,
    Linger,
}

/// One connection.
pub(super) struct Connection {
    /// What has come and is not used yet.
    input: Vec<u8>,
    /// Bytes of a refused request's body that are still to be passed over.
    skipped: usize,
    /// Whether the running request is for Prometheus's API, whose errors have another shape.
    is_prometheus: bool,
    /// Whether the last request was for something to read.
    is_reader: bool,
    /// The request whose body is at the start of the input, or still to come.
    request: Option<Request>,
    /// Answers, and how much of them was sent.
    output: Vec<u8>,
    sent: usize,
    /// For the request's body, or for the long answer that is sent.
    memory: Option<Reservation>,
    last_token: LastToken,
    /// Whether another request may follow.
    is_open: bool,
    phase: Phase,
    deadline: Instant,
    /// When answers that are being sent must be taken.
    answer_until: Instant,
}

/// Buffers that connections borrow while they have something to read or to send, so that idle ones have none.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Connection {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            input: Vec::new(),
            skipped: 0,
            is_prometheus: false,
            is_reader: false,
            request: None,
            output: Vec::new(),
            sent: 0,
            memory: None,
            last_token: LastToken::default(),
            is_open: true,
            phase: Phase::Idle,
            deadline: now + FIRST_WITHIN,
            answer_until: now,
        }
    }

    /// Borrows buffers where this connection has none.
    pub(super) fn borrow(&mut self, buffers: &mut Buffers) {
        if self.input.capacity() == 0 {
            mem::swap(&mut self.input, &mut buffers.input);
        }
        if self.output.capacity() == 0 {
            mem::swap(&mut self.output, &mut buffers.output);
        }
    }

    /// Gives back what is empty.
    pub(super) fn give_back(&mut self, buffers: &mut Buffers) {
        for (own, lent) in [(&mut self.input, &mut buffers.input), (&mut self.output, &mut buffers.output)] {
            if own.is_empty() {
                let buffer = mem::take(own);
                if buffer.capacity() <= 4 * SHORT_BYTES_MAX {
                    *lent = buffer;
                }
            }
        }
    }

    /// Where to append what comes, with room for it. [`Connection::advance`] looks at it.
    pub(super) fn input(&mut self) -> &mut Vec<u8> {
        match &self.request {
            Some(Request { body: Body::Length(length), .. }) => {
                self.input.reserve_exact(length.saturating_sub(self.input.len()).max(1));
            }
            _ if self.input.capacity() - self.input.len() < SHORT_BYTES_MAX / 4 => self.input.reserve(SHORT_BYTES_MAX),
            _ => {}
        }
        &mut self.input
    }

    /// Whether more bytes of the client are of use now.
    pub(super) fn wants_input(&self) -> bool {
        self.request.as_ref().map_or(!self.has_output(), |request| request.submission.is_none())
    }

    /// What is to be sent.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output().is_empty()
    }

    /// Takes note that bytes of the output were sent.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.sent += bytes;
        if self.has_output() {
            self.deadline = self.answer_until.min(now + ANSWER_SILENCE_MAX);
            return;
        }
        self.output.clear();
        self.sent = 0;
        if self.request.is_none() {
            self.memory = None;
        }
        self.enter_phase(now);
    }

    /// Whether all is sent, and nothing more will be.
    pub(super) fn is_closing(&self) -> bool {
        !self.is_open && !self.has_output()
    }

    /// Whether it can go on: it waits for no sample, or the sample is stored, given up, or left to a thread that may wait.
    pub(super) fn can_go_on(&self, now: Instant) -> bool {
        self.submission().is_none_or(|submission| submission.is_over(now) || submission.must_go_on())
    }

    /// Whether it has given a sample to the store, and has yet to answer it.
    pub(super) fn has_begun_sample(&self) -> bool {
        self.submission().is_some()
    }

    fn submission(&self) -> Option<&Submission> {
        self.request.as_ref()?.submission.as_ref()
    }

    /// Whether its last request was for something to read.
    pub(super) fn is_reader(&self) -> bool {
        self.is_reader
    }

    /// Whether it is between two requests.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// When [`Connection::expire`] is due.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes note that the deadline is over, and tells whether an answer says so. If not, the connection is to be dropped.
    pub(super) fn expire(&mut self, context: &Context<'_>) -> bool {
        let (what, within) = match self.phase {
            _ if !self.is_open => return false,
            Phase::Head => ("head", HEAD_WITHIN),
            Phase::Body if self.skipped == 0 => ("body", BODY_WITHIN),
            _ => return false,
        };
        let sentence = format!("{what}: not whole after {} seconds, the limit", within.as_secs());
        self.answer_last(Reply::error(408, &sentence), context);
        self.enter_phase(context.now.instant);
        true
    }

    /// Answers the requests that have come, as far as that does not wait.
    pub(super) fn advance(&mut self, context: &Context<'_>) -> Pause {
        let mut input = mem::take(&mut self.input);
        let mut used = 0;
        let pause = loop {
            let is_full = self.output.len() > OUTPUT_BYTES_MAX;
            if !self.is_open || is_full {
                break if self.is_open { Pause::Output } else { Pause::Input };
            }
            match self.step(&mut input, &mut used, context) {
                Ok(None) => {}
                Ok(Some(pause)) => break pause,
                Err(reply) => self.answer_last(reply, context),
            }
        };
        if self.is_open {
            input.drain(..used);
        } else {
            input.clear();
        }
        self.input = input;
        self.enter_phase(context.now.instant);
        pause
    }

    /// Begins the limit of time of what comes next.
    fn enter_phase(&mut self, now: Instant) {
        let phase = if self.has_output() || self.submission().is_some() {
            Phase::Answer
        } else if !self.is_open {
            Phase::Linger
        } else if self.request.is_some() || self.skipped > 0 {
            Phase::Body
        } else if self.input.is_empty() {
            Phase::Idle
        } else {
            Phase::Head
        };
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        self.deadline = now
            + match phase {
                Phase::Idle => IDLE_MAX,
                Phase::Head => HEAD_WITHIN,
                Phase::Body => BODY_WITHIN,
                Phase::Answer => {
                    self.answer_until = now + ANSWER_WITHIN;
                    ANSWER_SILENCE_MAX
                }
                Phase::Linger => LINGER_MAX,
            };
    }

    /// Goes on with the request at `used`, and tells why that goes no further.
    ///
    /// # Errors
    /// The reply to a request with which the connection ends.
    fn step(&mut self, input: &mut Vec<u8>, used: &mut usize, context: &Context<'_>) -> Result<Option<Pause>, Reply> {
        let Some(request) = &mut self.request else {
            return self.begin(input, used, context);
        };
        let begun = if let Some(submission) = request.submission.take() {
            Begun::Submitted(submission)
        } else {
            let (is_whole, body_bytes) = match request.body {
                Body::Length(length) => (input.len() - *used >= length, length),
                Body::Chunks => {
                    let bytes_max = request.route.body_bytes_max();
                    let is_whole = request.chunks.decode(input, *used, bytes_max)?;
                    if request.chunks.len > SHORT_BYTES_MAX && self.memory.is_none() {
                        self.memory = Some(context.budget.reserve(bytes_max).ok_or_else(busy)?);
                    }
                    (is_whole, request.chunks.len)
                }
            };
            if !is_whole {
                return Ok(Some(Pause::Input));
            }
            if !context.may_wait() && (body_bytes > SHORT_BYTES_MAX || context.api.may_wait(&request.route)) {
                return Ok(Some(if request.route.is_read() { Pause::Read } else { Pause::Store }));
            }
            let (body, now) = (&input[*used..*used + body_bytes], context.now.unix_sec);
            *used += body_bytes;
            self.memory = None;
            match context.waker {
                None => Begun::Replied(context.api.reply(&request.route, body, now)),
                Some(waker) => context.api.begin(&request.route, body, now, waker),
            }
        };
        let mut reply = match begun {
            Begun::Replied(reply) => reply,
            Begun::Submitted(submission) if context.may_wait() || submission.is_over(context.now.instant) => {
                context.api.finish(submission)
            }
            Begun::Submitted(submission) => {
                let pause = if submission.must_go_on() { Pause::Store } else { Pause::Sample };
                request.submission = Some(submission);
                return Ok(Some(pause));
            }
        };
        let (is_read, head_only, connection) = (request.route.is_read(), request.head_only, request.connection);
        if reply.body.len() > SHORT_BYTES_MAX {
            reply.body.shrink_to_fit();
            self.memory = context.budget.reserve(reply.body.len());
            // What was done is answered in any case.
            if self.memory.is_none() && is_read {
                return Err(busy());
            }
        }
        self.request = None;
        self.answer(reply, head_only, connection, context);
        Ok((is_read && !context.may_wait() && *used < input.len()).then_some(Pause::Others))
    }

    /// Begins the next request, if its head is whole.
    fn begin(&mut self, input: &[u8], used: &mut usize, context: &Context<'_>) -> Result<Option<Pause>, Reply> {
        let skipped = self.skipped.min(input.len() - *used);
        self.skipped -= skipped;
        *used += skipped;
        if self.skipped > 0 {
            return Ok(Some(Pause::Input));
        }
        // Some clients send an empty line after a body.
        while input[*used..].starts_with(b"\r\n") {
            *used += 2;
        }
        self.is_prometheus = is_prometheus(head::target(&input[*used..]));
        let Some(head_bytes) = head::find_end("head", &input[*used..])? else {
            return Ok(Some(Pause::Input));
        };
        let (head, rest) = input[*used..].split_at(head_bytes);
        *used += head_bytes;
        self.accept(head, rest.is_empty(), context)?;
        Ok(None)
    }

    /// Accepts the head of a request, or answers it where the connection goes on all the same. `is_last` is whether nothing
    /// has come behind it.
    fn accept(&mut self, head: &[u8], is_last: bool, context: &Context<'_>) -> Result<(), Reply> {
        let Head { mut request, length, is_chunked, expects, is_http_1_0, connection } =
            head::parse(head, context.transport, context.peer)?;
        request.last_token = Some(&self.last_token);
        let accepted = context.api.route(&request, context.now.unix_sec).and_then(|route| {
            let body = http::body(&route, length, is_chunked)?;
            Ok((route, body))
        });
        let connection = http::connection(connection, is_http_1_0, context.is_closing);
        let head_only = request.method == "HEAD";
        let (route, body) = match accepted {
            Ok(accepted) => accepted,
            // A body that is known to be on its way is passed over, and the connection is good for another request.
            Err(reply) if !is_chunked && !expects && length <= Some(SKIPPED_BYTES_MAX) => {
                self.skipped = length.unwrap_or(0);
                self.answer(reply, head_only, connection, context);
                return Ok(());
            }
            Err(reply) => return Err(reply),
        };
        self.is_reader = route.is_read();
        if let Body::Length(length) = body
            && length > SHORT_BYTES_MAX
        {
            self.memory = Some(context.budget.reserve(length).ok_or_else(busy)?);
        }
        if expects && is_last && length != Some(0) && !is_http_1_0 {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.request =
            Some(Request { route, body, chunks: Chunks::default(), head_only, connection, submission: None });
        Ok(())
    }

    fn answer(&mut self, reply: Reply, head_only: bool, connection: Option<&str>, context: &Context<'_>) {
        let reply = reply.shaped(self.is_prometheus);
        context.api.stats().answered(reply.status);
        http::append(&mut self.output, reply, head_only, connection, context.now.unix_sec);
        self.is_open = connection != Some("close");
    }

    /// Answers the running request, with which the connection ends.
    fn answer_last(&mut self, reply: Reply, context: &Context<'_>) {
        (self.request, self.memory) = (None, None);
        self.answer(reply, false, Some("close"), context);
    }
}

/// The reply to a request that there is no memory for now.
fn busy() -> Reply {
    Reply::error(503, "too much is on its way here; try again later")
}

#[cfg(test)]
mod tests;
