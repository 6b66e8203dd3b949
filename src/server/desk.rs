//! Where the requests of the plain door are answered, each in its turn: by a worker, or in the lane.
//!
//! tiny_http hands over a request with a body of up to 1 KiB in memory. A longer one is read by the worker that has it
//! while no more than half of the workers do so, and else in the lane, as a long answer is written: on a bounded number
//! of threads of its own. What it has no room for is answered 503. So half of the workers never wait for a client. A
//! request that must not be dropped, because tiny_http would allocate its declared length to read it away, is parked.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Method, ReadWrite, Request, Response};

use super::SEND_SEC_MAX;
use super::request::{
    BODY_SEC_MAX, DROPPED_BYTES_MAX, Unread, header, is_last, pairs, read_away, read_body, read_chunks,
};
use super::turns::{Begun, Turn, Turns};
use crate::api::{Api, ClientTransport, HEAD_BYTES_MAX, Reply, RequestHead};
use crate::clock::unix_now_sec;
use crate::http::{self, Body};
use crate::stats::Stats;

/// Answers up to this many bytes are written by the worker: the kernel takes them at once.
const SENT_INLINE_BYTES_MAX: usize = 32 << 10;
/// Long bodies read and long answers written at the same time; each holds a thread.
const LANE_THREADS_MAX: usize = 256;
/// How long such a thread waits for more to do.
const LANE_IDLE_MAX: Duration = Duration::from_secs(2);
/// Those that wait for such a thread.
const LANE_WAITING_MAX: usize = 4096;
/// Most bytes of the answers among them.
const LANE_WAITING_BYTES_MAX: usize = 256 << 20;
/// Clients with long bodies that are told at the same time that the lane has no room; each holds a thread, for as long as
/// the body may take that is read away. What comes beyond is parked.
const TURNED_AWAY_MAX: usize = 1024;
/// Longest time for a long answer as a whole, if its client takes some of it every few seconds.
const ANSWER_SEC_MAX: u64 = 300;
/// Where requests are answered.
#[derive(Clone)]
pub(super) struct Desk(Arc<Shared>);

struct Shared {
    api: Arc<Api>,
    turns: Turns,
    lane: Lane,
    /// The workers that read a long body themselves, which spares the way to another thread: most are there already.
    readers: Threads,
    /// The threads that answer what the lane has no room for.
    turning_away: Threads,
}

/// Threads that do something which takes a client's time, counted so that there are not too many.
struct Threads {
    count: Arc<AtomicUsize>,
    most: usize,
}

/// One of them, for as long as it is held.
struct Counted(Arc<AtomicUsize>);

impl Threads {
    fn new(most: usize) -> Self {
        Self { count: Arc::default(), most }
    }

    /// Lets a thread begin, unless as many are at it as may.
    fn begin(&self) -> Option<Counted> {
        let counted = Counted(self.count.clone());
        (self.count.fetch_add(1, Ordering::AcqRel) < self.most).then_some(counted)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is to be done for a request.
enum Work {
    Role(Request),
    /// Only the answer is left to write.
    Send(Request, Reply),
}

/// How a request's turn ended.
enum Served {
    /// The connection can have another.
    Done,
    /// Its client has not taken the answer, and is there; or a panic has taken the request.
    Lost,
    /// What follows on the connection is not to be trusted, which is still to be answered.
    Refused(Box<Refusal>),
    /// The rest takes a client's time.
    ForLane(Box<Work>),
}

/// The answer to a request of which it is not certain where it ends, or how much of it is still to come.
struct Refusal {
    request: Request,
    unread: Unread,
    reply: Reply,
    /// What is left of a body is read away by a worker that is counted as one that reads.
    _reading: Option<Counted>,
}

impl Work {
    fn request(&self) -> &Request {
        match self {
            Self::Role(request) | Self::Send(request, _) => request,
        }
    }

    /// Memory that the answer takes while it waits.
    fn answer_bytes(&self) -> usize {
        match self {
            Self::Role(_) => 0,
            Self::Send(_, reply) => reply.body.len(),
        }
    }
}

impl Desk {
    /// A desk for `workers` threads that take the requests of the door at an address.
    pub(super) fn new(api: Arc<Api>, server: SocketAddr, workers: usize) -> Self {
        let (readers, turning_away) = (Threads::new(workers / 2), Threads::new(TURNED_AWAY_MAX));
        Self(Arc::new(Shared { api, turns: Turns::new(server), lane: Lane::default(), readers, turning_away }))
    }

    /// What the process counts.
    pub(super) fn stats(&self) -> &Stats {
        self.0.api.stats()
    }

    /// Whether nothing long is on its way.
    pub(super) fn lane_is_empty(&self) -> bool {
        let lane = self.0.lane.lock();
        lane.threads == lane.idle && lane.waiting.is_empty() && self.0.turning_away.count() == 0
    }

    /// Gives a request its place on its connection, and its turn where it is the first. The requests of a connection
    /// must come here in their order.
    pub(super) fn begin(&self, request: Request) -> Begun {
        match request.remote_addr().copied() {
            Some(client) => self.0.turns.begin(client, request),
            None => Begun::LetGo(vec![request]),
        }
    }

    /// Drops requests without answers, and without their bodies being read.
    pub(super) fn let_go(&self, requests: Vec<Request>) {
        requests.into_iter().for_each(|request| self.0.let_go(request));
    }

    /// Answers a request, and those of its connection that came meanwhile; or sends it to the lane.
    pub(super) fn take(&self, turn: Turn) {
        self.work(turn.client, Work::Role(turn.request), false);
    }

    fn work(&self, client: SocketAddr, mut work: Work, in_lane: bool) {
        loop {
            let is_last = is_last(work.request());
            let serve = || match work {
                Work::Role(request) => self.0.serve(request, in_lane),
                Work::Send(request, reply) => send(request, &reply, false, ANSWER_SEC_MAX),
            };
            // A request that a panic drops is answered by tiny_http with 500; the panic hook tells of it.
            match catch_unwind(AssertUnwindSafe(serve)).unwrap_or(Served::Lost) {
                Served::ForLane(rest) => return self.go_to_lane(client, *rest),
                Served::Done => {}
                // Nothing comes behind it that would have to be let go.
                Served::Refused(refusal) if is_last => unless_it_panics(|| self.0.refuse(*refusal)),
                Served::Lost if is_last => {}
                Served::Refused(refusal) => return self.end(client, || self.0.refuse(*refusal)),
                Served::Lost => return self.end(client, || {}),
            }
            match self.0.turns.next(client) {
                // A client that waits for its answers has one request here, or one more that has just overtaken the end
                // of this turn. One that does not may not read them either.
                Some((request, waiting)) if waiting > 0 && !in_lane => {
                    return self.go_to_lane(client, Work::Role(request));
                }
                Some((request, _)) => work = Work::Role(request),
                None => return,
            }
        }
    }

    /// Ends a connection with its last answer.
    fn end(&self, client: SocketAddr, last_answer: impl FnOnce()) {
        self.let_go(self.0.turns.end(client, || unless_it_panics(last_answer)));
    }

    /// Has work done in the lane: by a new thread, or later by one that is done with what it has.
    fn go_to_lane(&self, client: SocketAddr, work: Work) {
        let mut lane = self.0.lane.lock();
        let waiting_bytes = lane.waiting_bytes + work.answer_bytes();
        if lane.waiting.len() >= LANE_WAITING_MAX || waiting_bytes > LANE_WAITING_BYTES_MAX {
            drop(lane);
            return self.turn_away(client, work);
        }
        lane.waiting.push_back((client, work));
        lane.waiting_bytes = waiting_bytes;
        if lane.waiting.len() <= lane.idle {
            self.0.lane.has_work.notify_one();
        } else if lane.threads < LANE_THREADS_MAX {
            lane.threads += 1;
            drop(lane);
            let desk = self.clone();
            let spawned = thread::Builder::new().name("http-lane".into()).spawn(move || desk.run_lane(false));
            if let Err(error) = spawned {
                log::error!("No thread for a long body or answer: {error}");
                self.run_lane_without_thread();
            }
        }
    }

    /// Answers what the lane has no room for, a request by a thread of its own, and ends the connection: for what waits on
    /// it there is no room either.
    fn turn_away(&self, client: SocketAddr, mut work: Work) {
        if let Work::Role(_) = work
            && let Some(counted) = self.0.turning_away.begin()
        {
            let desk = self.clone();
            let turn_away = move |work| {
                desk.end(client, || desk.0.answer_without_lane(work, true));
                drop(counted);
            };
            match hand_over("http-no-room", work, turn_away) {
                Ok(()) => return,
                Err(back) => work = back,
            }
        }
        self.end(client, || self.0.answer_without_lane(work, false));
    }

    /// Does what waits where no thread is to be had, unless another does so already: one worker at most.
    fn run_lane_without_thread(&self) {
        let mut lane = self.0.lane.lock();
        if lane.has_worker {
            lane.threads -= 1;
            return;
        }
        lane.has_worker = true;
        drop(lane);
        self.run_lane(true);
    }

    /// A thread of the lane, or a worker in its stead: does what waits, until nothing does any more.
    fn run_lane(&self, is_worker: bool) {
        let Lane { has_work, .. } = &self.0.lane;
        let idle_max = if is_worker { Duration::ZERO } else { LANE_IDLE_MAX };
        loop {
            let mut lane = self.0.lane.lock();
            lane.idle += 1;
            let waited = has_work.wait_timeout_while(lane, idle_max, |lane| lane.waiting.is_empty());
            lane = waited.unwrap_or_else(PoisonError::into_inner).0;
            lane.idle -= 1;
            let Some((client, work)) = lane.waiting.pop_front() else {
                lane.threads -= 1;
                lane.has_worker &= !is_worker;
                return;
            };
            lane.waiting_bytes -= work.answer_bytes();
            drop(lane);
            self.work(client, work, true);
        }
    }
}

/// Long bodies to be read and long answers to be written, where a thread waits for the client.
#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    has_work: Condvar,
}

#[derive(Default)]
struct LaneState {
    threads: usize,
    /// Those of the threads that wait for work.
    idle: usize,
    /// One of the threads is a worker, since none was to be had.
    has_worker: bool,
    waiting: VecDeque<(SocketAddr, Work)>,
    /// Of the answers among them.
    waiting_bytes: usize,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn serve(&self, mut request: Request, in_lane: bool) -> Served {
        let unread = Unread::of(&request);
        let reading = if unread.is_to_be_read() && !in_lane { self.readers.begin() } else { None };
        if unread.is_to_be_read() && !in_lane && reading.is_none() {
            return Served::ForLane(Box::new(Work::Role(request)));
        }
        let answer = self.answer(&mut request, &unread);
        self.api.stats().answered(answer.as_ref().map_or_else(|refusal| refusal.status, |reply| reply.status));
        match (answer, unread) {
            (Ok(reply), _) if reply.body.len() > SENT_INLINE_BYTES_MAX && !in_lane => {
                Served::ForLane(Box::new(Work::Send(request, reply)))
            }
            (Ok(reply), _) => send(request, &reply, false, if in_lane { ANSWER_SEC_MAX } else { SEND_SEC_MAX }),
            (Err(reply), Unread::Nothing) if http::head_error(pairs(request.headers())).is_none() => {
                send(request, &reply, false, SEND_SEC_MAX)
            }
            (Err(reply), unread) => Served::Refused(Box::new(Refusal { request, unread, reply, _reading: reading })),
        }
    }

    /// Answers what the lane has no room for, and with `in_time` reads the rest of a body away.
    fn answer_without_lane(&self, work: Work, in_time: bool) {
        let request = match work {
            Work::Role(request) => request,
            // What was read can be read again. It is counted as the answer that it was to be.
            Work::Send(request, reply) if reply.status == 200 => {
                let reply = Reply::error(503, "answer: as many long ones are on their way as this door has room for");
                return drop(send(request, &reply, true, SEND_SEC_MAX));
            }
            Work::Send(request, reply) => return drop(send(request, &reply, true, SEND_SEC_MAX)),
        };
        let reply =
            Reply::error(503, &format!("body: {LANE_WAITING_MAX} long ones wait already, the limit of this door"));
        self.api.stats().answered(reply.status);
        match Unread::of(&request) {
            Unread::Bytes(_) | Unread::Chunks if !in_time => self.park(request, &reply),
            unread => self.refuse(Refusal { request, unread, reply, _reading: None }),
        }
    }

    fn refuse(&self, refusal: Refusal) {
        let Refusal { mut request, unread, reply, _reading } = refusal;
        match unread {
            Unread::Nothing => drop(send(request, &reply, true, SEND_SEC_MAX)),
            Unread::Bytes(length) if length <= DROPPED_BYTES_MAX => self.refuse_unread(request, &reply),
            Unread::Bytes(_) => self.park(request, &reply),
            // tiny_http would take what is left of them for the next requests.
            Unread::Chunks if !read_away(&mut request) => self.park(request, &reply),
            Unread::Chunks => drop(send(request, &reply, true, SEND_SEC_MAX)),
        }
    }

    /// Answers, and then reads the rest of the body away for as long as a body may take, so that a client that is still
    /// sending gets to read the answer.
    fn refuse_unread(&self, request: Request, reply: &Reply) {
        let mut stream = answer_and_take(request, reply);
        let deadline = Instant::now() + Duration::from_secs(BODY_SEC_MAX);
        let mut scratch = [0; 16 << 10];
        while Instant::now() < deadline {
            match stream.read(&mut scratch) {
                Ok(0) => return,
                // Silence: tiny_http reads the rest away, for as long as some of it comes now and then.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return hand_over("http-silence", stream, drop).unwrap_or_else(|stream| self.forget(stream));
                }
                Err(_) => return,
                Ok(_) => {}
            }
        }
        self.forget(stream);
    }

    /// The reply to a request, or as an error the reply to one whose body was not read to its end.
    fn answer(&self, request: &mut Request, unread: &Unread) -> Result<Reply, Reply> {
        let refuse = |status, sentence: String| Err(Reply::error(status, &sentence));
        let head_bytes = request.url().len()
            + request.headers().iter().map(|h| h.field.as_str().as_str().len() + h.value.len() + 4).sum::<usize>();
        if head_bytes > HEAD_BYTES_MAX {
            return refuse(431, format!("head: {head_bytes} bytes long, the limit is {HEAD_BYTES_MAX}"));
        }
        if let Some(sentence) = http::head_error(pairs(request.headers())) {
            return refuse(400, sentence.to_owned());
        }
        let head = RequestHead::new(
            request.method().as_str(),
            request.url(),
            ClientTransport::Plain,
            request.remote_addr().map(SocketAddr::ip),
            pairs(request.headers()),
        );
        let route = self.api.route(&head, unix_now_sec())?;
        let is_chunked = matches!(unread, Unread::Chunks);
        let body = match http::body(&route, request.body_length(), is_chunked)? {
            Body::Length(length) => read_body(request, length)?,
            Body::Chunks => read_chunks(request, route.body_bytes_max(), route.is_compressed())?,
        };
        Ok(self.api.reply(&route, &body, unix_now_sec()))
    }

    /// Drops a request without an answer. One of which tiny_http would read the body first is parked.
    fn let_go(&self, request: Request) {
        match Unread::of(&request) {
            Unread::Nothing => drop(request.into_writer()),
            Unread::Bytes(_) | Unread::Chunks => {
                self.api.stats().requests_leaked.add(1);
                std::mem::forget(request);
            }
        }
    }

    /// Answers a request that tiny_http must not drop, and then forgets it: a thread and two descriptors stay behind.
    fn park(&self, request: Request, reply: &Reply) {
        let stream = answer_and_take(request, reply);
        self.forget(stream);
    }

    fn forget(&self, stream: Box<dyn ReadWrite + Send>) {
        self.api.stats().requests_leaked.add(1);
        std::mem::forget(stream);
    }
}

/// Answers a request whose body was not read, and takes its connection.
///
/// The interim 100 that tiny_http writes here, which clients pass over (RFC 9110, 15.2), is the only way of 0.12 to
/// get at the connection without reading the body first.
fn answer_and_take(request: Request, reply: &Reply) -> Box<dyn ReadWrite + Send> {
    let (answer, rest) = http::encode(reply, request.method() == &Method::Head, Some("close"));
    let mut stream = request.upgrade("none", Response::empty(100));
    give_up_quietly(stream.write_all(&answer).and_then(|()| stream.write_all(rest)).and_then(|()| stream.flush()));
    stream
}

/// Has a new thread do something with a value, which is given back where there is no thread to be had.
fn hand_over<T: Send + 'static>(name: &str, value: T, take: impl FnOnce(T) + Send + 'static) -> Result<(), T> {
    let (give, given) = mpsc::channel();
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || given.recv().map(take));
    if let Err(error) = spawned {
        log::error!("No thread for {name}: {error}");
        return Err(value);
    }
    give.send(value).map_err(|mpsc::SendError(value)| value)
}

/// A panic is told of by its hook, and takes nothing else with it.
fn unless_it_panics(answer: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(answer)));
}

/// Writes an answer, for up to `answer_sec_max`, and gives its connection back to tiny_http.
fn send(request: Request, reply: &Reply, close: bool, answer_sec_max: u64) -> Served {
    let asked = header(request.headers(), "Connection");
    let connection = http::connection(asked, *request.http_version() == HTTPVersion(1, 0), close);
    let (answer, mut rest) = http::encode(reply, request.method() == &Method::Head, connection);
    let mut writer = request.into_writer();
    let deadline = Instant::now() + Duration::from_secs(answer_sec_max);
    let mut left = &*answer;
    while !left.is_empty() {
        let written = writer.write(left).and_then(|written| {
            let is_late = written < left.len() && Instant::now() > deadline;
            if is_late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(written) }
        });
        match written {
            Ok(written) if written == left.len() => left = std::mem::take(&mut rest),
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return not_taken(error),
        }
    }
    writer.flush().map_or_else(not_taken, |()| Served::Done)
}

/// Where a client has gone, what it sent before is done all the same, and no answer to it waits for anybody. It is there
/// where its time is over, by the timeout of a write or the one of an answer, which is no error of the kernel's.
fn not_taken(error: io::Error) -> Served {
    let has_gone = error.raw_os_error().is_some() && error.kind() != io::ErrorKind::WouldBlock;
    give_up_quietly(Err(error));
    if has_gone { Served::Done } else { Served::Lost }
}

/// A client that has gone, or does not read, loses its answer, and nobody else anything.
fn give_up_quietly(result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("An answer was not taken by its client: {error}");
    }
}
