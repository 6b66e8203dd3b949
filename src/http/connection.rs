//! An HTTP/1.1 connection without any I/O: bytes in, requests out; replies in, bytes out. All limits and deadlines of a
//! connection are here, and the time is an argument.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Budget, Reservation};
use super::chunks::Chunks;
use super::head::{self, Head};
use super::{Body, append};
use crate::api::{Api, ClientTransport, Reply, Route};
use crate::auth::LastToken;

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
/// How long, and how many bytes, a client may go on sending after the last answer. A connection that is closed with bytes
/// unread is reset, and the answer is lost with it.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Longest body of a refused request that is passed over, so that the connection can be kept.
const SKIPPED_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at a time, and the longest bodies and answers that need no reservation of memory.
const SHORT_BYTES_MAX: usize = 16 << 10;
/// Memory for long bodies and answers of all connections: 32 bodies of the longest.
pub(super) const MEMORY_BYTES_MAX: usize = 256 << 20;
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
    pub(super) last_token: &'c LastToken,
    /// The address of the other side.
    pub(super) peer: Option<IpAddr>,
    pub(super) now: Now,
    /// Whether the next answer ends the connection.
    pub(super) is_closing: bool,
    /// Whether this thread may wait for the store, or take long.
    pub(super) may_wait: bool,
}

/// Why a connection does not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// It waits for its client to send.
    Input,
    /// It waits for its client to take what it was answered.
    Output,
    /// It has a whole request whose answer may wait. Another thread is to go on with it.
    Store,
    /// The same, for an answer that is read and may be long.
    Read,
    /// It has answered what takes longer than a post, and more has come: others come first.
    Others,
}

/// A request whose head was accepted.
struct Request {
    route: Route,
    body: RequestBody,
    head_only: bool,
    /// The header `Connection` of its answer.
    connection: Option<&'static str>,
}

/// How a body comes.
enum RequestBody {
    Length(usize),
    Chunks(Chunks),
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
    /// How much of it was searched for the end of a head.
    searched: usize,
    /// Bytes of a refused request's body that are still to be passed over.
    skipped: usize,
    /// The request whose body is at the start of the input, or still to come.
    request: Option<Request>,
    /// Answers, a long body behind them, and how much of both was sent.
    output: Vec<u8>,
    long_body: Vec<u8>,
    sent: usize,
    /// For the request's body, or for the long one that is sent.
    memory: Option<Reservation>,
    /// Whether another request may follow.
    is_open: bool,
    lingered_bytes: usize,
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
            searched: 0,
            skipped: 0,
            request: None,
            output: Vec::new(),
            long_body: Vec::new(),
            sent: 0,
            memory: None,
            is_open: true,
            lingered_bytes: 0,
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
            Some(Request { body: RequestBody::Length(length), .. }) => {
                self.input.reserve_exact(length.saturating_sub(self.input.len()).max(1));
            }
            _ if self.input.capacity() - self.input.len() < SHORT_BYTES_MAX / 4 => self.input.reserve(SHORT_BYTES_MAX),
            _ => {}
        }
        &mut self.input
    }

    /// Whether more bytes of the client are of use now.
    pub(super) fn wants_input(&self) -> bool {
        self.request.is_some() || !self.has_output()
    }

    /// What is to be sent.
    pub(super) fn output(&self) -> [&[u8]; 2] {
        let of_output = self.sent.min(self.output.len());
        [&self.output[of_output..], &self.long_body[self.sent - of_output..]]
    }

    fn output_bytes(&self) -> usize {
        self.output.len() + self.long_body.len() - self.sent
    }

    pub(super) fn has_output(&self) -> bool {
        self.output_bytes() > 0
    }

    /// Takes note that bytes of the output were sent.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.sent += bytes;
        if self.has_output() {
            self.deadline = self.answer_until.min(now + ANSWER_SILENCE_MAX);
            return;
        }
        self.output.clear();
        if !self.long_body.is_empty() {
            (self.long_body, self.memory) = (Vec::new(), None);
        }
        self.sent = 0;
        self.enter_phase(now);
    }

    /// Whether all is sent, and nothing more will be.
    pub(super) fn is_closing(&self) -> bool {
        !self.is_open && !self.has_output()
    }

    /// Whether the client has sent enough after the last answer.
    pub(super) fn has_lingered(&self) -> bool {
        self.lingered_bytes > LINGER_BYTES_MAX
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
            let is_full = self.output_bytes() > OUTPUT_BYTES_MAX || !self.long_body.is_empty();
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
            self.lingered_bytes += input.len();
            input.clear();
        }
        self.input = input;
        self.enter_phase(context.now.instant);
        pause
    }

    /// Begins the limit of time of what comes next.
    fn enter_phase(&mut self, now: Instant) {
        let phase = if self.has_output() {
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
        let Some(mut request) = self.request.take() else {
            return self.begin(input, used, context);
        };
        let body_bytes = match &mut request.body {
            RequestBody::Length(length) if input.len() - *used < *length => None,
            RequestBody::Length(length) => Some(*length),
            RequestBody::Chunks(chunks) => {
                let bytes_max = request.route.body_bytes_max();
                let is_whole = chunks.decode(input, *used, bytes_max)?;
                if chunks.len > SHORT_BYTES_MAX && self.memory.is_none() {
                    self.memory = Some(context.budget.reserve(bytes_max).ok_or_else(busy)?);
                }
                is_whole.then_some(chunks.len)
            }
        };
        let Some(body_bytes) = body_bytes else {
            self.request = Some(request);
            return Ok(Some(Pause::Input));
        };
        if !context.may_wait && (body_bytes > SHORT_BYTES_MAX || context.api.may_wait(&request.route)) {
            let pause = if request.route.is_read() { Pause::Read } else { Pause::Store };
            self.request = Some(request);
            return Ok(Some(pause));
        }
        let mut reply = context.api.reply(&request.route, &input[*used..*used + body_bytes], context.now.unix_sec);
        *used += body_bytes;
        self.memory = None;
        if reply.body.len() > SHORT_BYTES_MAX {
            reply.body.shrink_to_fit();
            self.memory = context.budget.reserve(reply.body.len());
            // What was done is answered in any case.
            if self.memory.is_none() && request.route.is_read() {
                return Err(busy());
            }
        }
        self.answer(reply, request.head_only, request.connection, context);
        Ok((request.route.is_read() && !context.may_wait && *used < input.len()).then_some(Pause::Others))
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
            (*used, self.searched) = (*used + 2, 0);
        }
        let Some(head_bytes) = head::find_end(&input[*used..], self.searched)? else {
            self.searched = input.len() - *used;
            return Ok(Some(Pause::Input));
        };
        self.searched = 0;
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
        request.last_token = Some(context.last_token);
        let accepted = context.api.route(&request, context.now.unix_sec).and_then(|route| {
            let body = super::body(&route, length, is_chunked)?;
            Ok((route, body))
        });
        let connection = super::connection(connection, is_http_1_0, context.is_closing);
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
        let body = match body {
            Body::Length(length) => {
                if length > SHORT_BYTES_MAX {
                    self.memory = Some(context.budget.reserve(length).ok_or_else(busy)?);
                }
                RequestBody::Length(length)
            }
            Body::Chunks => RequestBody::Chunks(Chunks::default()),
        };
        if expects && is_last && length != Some(0) && !is_http_1_0 {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.request = Some(Request { route, body, head_only, connection });
        Ok(())
    }

    fn answer(&mut self, reply: Reply, head_only: bool, connection: Option<&str>, context: &Context<'_>) {
        context.api.stats().answered(reply.status);
        let is_long = !append(&mut self.output, &reply, head_only, connection, context.now.unix_sec).is_empty();
        if is_long {
            self.long_body = reply.body;
        } else {
            self.memory = None;
        }
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
mod tests {
    use super::*;
    use crate::auth::{Authorizer, ReadAccess};
    use crate::ingest::Ingest;
    use crate::store::Store;

    fn api() -> Api {
        let ingest = Ingest::new(Arc::new(Store::new(100)), Authorizer::allow_all(), Arc::default());
        Api::new(Arc::new(ingest), ReadAccess::Anyone)
    }

    /// A connection over an empty store, and a clock that is moved by hand.
    struct Fixture {
        api: Api,
        budget: Arc<Budget>,
        connection: Connection,
        now: Now,
        is_closing: bool,
    }

    impl Fixture {
        fn new(memory_bytes: usize) -> Self {
            let now = Now { instant: Instant::now(), unix_sec: 1_465_001_814 };
            let connection = Connection::new(now.instant);
            Self { api: api(), budget: Budget::new(memory_bytes), connection, now, is_closing: false }
        }

        fn with<T>(&mut self, may_wait: bool, act: impl FnOnce(&mut Connection, &Context<'_>) -> T) -> T {
            let context = Context {
                api: &self.api,
                budget: &self.budget,
                transport: ClientTransport::Plain,
                last_token: &LastToken::default(),
                peer: None,
                now: self.now,
                is_closing: self.is_closing,
                may_wait,
            };
            act(&mut self.connection, &context)
        }

        /// Sends bytes to the connection, which may wait.
        fn send(&mut self, bytes: &[u8]) -> Pause {
            self.connection.input().extend_from_slice(bytes);
            self.with(true, Connection::advance)
        }

        /// Takes all of the output.
        fn take(&mut self) -> String {
            let output = self.connection.output().concat();
            self.connection.sent(output.len(), self.now.instant);
            String::from_utf8(output).unwrap()
        }

        /// Sends bytes, and tells the statuses of the answers.
        fn statuses(&mut self, bytes: &[u8]) -> Vec<u16> {
            let (mut pause, mut output) = (self.send(bytes), self.take());
            while pause == Pause::Output {
                pause = self.send(b"");
                output += &self.take();
            }
            output.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
        }

        fn pass(&mut self, time: Duration) -> bool {
            self.now.instant += time;
            self.connection.deadline() <= self.now.instant
        }

        fn expire(&mut self) -> bool {
            self.with(true, Connection::expire)
        }
    }

    const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

    /// A post with more header fields, its length among them.
    fn post(fields: &str, body: &str) -> Vec<u8> {
        format!("POST /api/perf/h/1465001814 HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}").into_bytes()
    }

    #[test]
    fn a_connection_outlives_a_refusal_whose_body_has_a_known_end() {
        let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
        let refused = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
        assert_eq!(fixture.statuses(refused), [404]);
        for _ in 0..10 {
            assert_eq!(fixture.statuses(&[b'x'; 10_000]), [0; 0]);
        }
        assert_eq!(fixture.statuses(HEALTH), [200]);
        assert!(!fixture.connection.is_closing());
        assert_eq!(fixture.statuses(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"), [404]);
        assert!(fixture.connection.is_closing());
        for _ in 0..=LINGER_BYTES_MAX / 10_000 {
            assert!(!fixture.connection.has_lingered());
            assert_eq!(fixture.statuses(&[b'x'; 10_000]), [0; 0]);
        }
        assert!(fixture.connection.has_lingered());
    }

    #[test]
    fn a_client_that_reads_nothing_is_answered_no_further() {
        let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
        for _ in 0..100 {
            if !fixture.connection.wants_input() {
                break;
            }
            fixture.send(&HEALTH.repeat(400));
        }
        assert!(fixture.connection.output_bytes() < 2 * OUTPUT_BYTES_MAX);
        assert!(fixture.connection.input.len() <= 400 * HEALTH.len());
        let before = fixture.statuses(b"").len();
        assert_eq!(before, 400);
    }

    #[test]
    fn memory_is_reserved_for_long_bodies_and_comes_back() {
        let mut fixture = Fixture::new(100_000);
        let long = |length| post(&format!("Content-Length: {length}\r\n"), "");
        assert_eq!(fixture.statuses(&long(60_000)), [0; 0]);
        assert!(fixture.budget.reserve(60_000).is_none());
        assert_eq!(fixture.statuses(&[b' '; 60_000]), [400]);
        assert!(fixture.budget.reserve(100_000).is_some());
        assert_eq!(fixture.statuses(&long(100_001)), [503]);
        assert!(fixture.connection.is_closing());
    }

    #[test]
    fn what_may_wait_is_left_to_a_thread_that_may() {
        let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
        let long = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        fixture.connection.input().extend_from_slice(&[long, HEALTH].concat());
        assert_eq!(fixture.with(false, Connection::advance), Pause::Read);
        assert_eq!(fixture.with(false, Connection::advance), Pause::Read);
        assert_eq!(fixture.statuses(b""), [200, 200]);
        // Of short answers others come before the next.
        let short = b"GET /api/perf/h HTTP/1.1\r\nHost: x\r\n\r\n";
        fixture.connection.input().extend_from_slice(&[&short.repeat(2), HEALTH].concat());
        for (pause, answers) in [(Pause::Others, 1), (Pause::Others, 2), (Pause::Input, 3)] {
            assert_eq!(fixture.with(false, Connection::advance), pause);
            let output = String::from_utf8(fixture.connection.output().concat()).unwrap();
            assert_eq!(output.matches("HTTP/1.1 200 OK").count(), answers);
        }
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
        let (head, rest) = HEALTH.split_at(5);
        assert!(!fixture.pass(FIRST_WITHIN - HEAD_WITHIN));
        fixture.send(head);
        assert!(!fixture.pass(HEAD_WITHIN / 2));
        fixture.send(&rest[..1]);
        assert!(fixture.pass(HEAD_WITHIN / 2) && fixture.expire());
        assert!(fixture.take().contains("HTTP/1.1 408 Request Timeout") && fixture.connection.is_closing());
        assert!(fixture.pass(LINGER_MAX) && !fixture.expire());

        let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
        fixture.send(&post("Content-Length: 100\r\n", "{"));
        assert!(!fixture.pass(HEAD_WITHIN));
        assert!(fixture.pass(BODY_WITHIN - HEAD_WITHIN) && fixture.expire());
        assert!(fixture.take().contains("body: not whole after 10 seconds, the limit"));

        let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
        fixture.send(HEALTH);
        for _ in 0..ANSWER_WITHIN.as_secs() / 4 - 1 {
            assert!(!fixture.pass(Duration::from_secs(4)));
            fixture.connection.sent(1, fixture.now.instant);
        }
        assert!(fixture.pass(ANSWER_SILENCE_MAX) && !fixture.expire());
        fixture.take();
        assert!(!fixture.pass(IDLE_MAX / 2) && fixture.connection.is_idle());
        assert!(fixture.pass(IDLE_MAX / 2) && !fixture.expire());
    }

    #[test]
    fn a_closing_server_says_that_its_answer_is_the_last() {
        let mut fixture = Fixture { is_closing: true, ..Fixture::new(MEMORY_BYTES_MAX) };
        fixture.send(&HEALTH.repeat(2));
        let answers = fixture.take();
        assert!(answers.contains("Connection: close\r\n") && answers.matches("HTTP/1.1").count() == 1, "{answers}");
        assert!(fixture.connection.is_closing());
    }
}
