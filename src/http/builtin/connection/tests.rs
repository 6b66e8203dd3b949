use super::super::shared::MEMORY_BYTES_MAX;
use super::*;
use crate::auth::{Authorizer, ReadAccess};
use crate::ingest::Ingest;
#[cfg(feature = "disk")]
use crate::store::Location;
use crate::store::Store;

fn api(store: Store) -> Api {
    let ingest = Ingest::new(Arc::new(store), Authorizer::allow_all(), Arc::default());
    Api::new(Arc::new(ingest), ReadAccess::Anyone)
}

/// A connection over an empty store, and a clock that is moved by hand.
struct Fixture {
    api: Api,
    budget: Arc<Budget>,
    connection: Connection,
    now: Now,
}

impl Fixture {
    fn new(memory_bytes: usize) -> Self {
        let now = Now { instant: Instant::now(), unix_sec: 1_465_001_814 };
        let connection = Connection::new(now.instant);
        Self { api: api(Store::new(100)), budget: Budget::new(memory_bytes), connection, now }
    }

    fn with<T>(&mut self, may_wait: bool, act: impl FnOnce(&mut Connection, &Context<'_>) -> T) -> T {
        let context = Context {
            api: &self.api,
            budget: &self.budget,
            transport: ClientTransport::Plain,
            peer: None,
            now: self.now,
            is_closing: false,
            waker: (!may_wait).then_some(Waker::noop()),
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
        let output = self.connection.output().to_vec();
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
fn what_follows_the_last_answer_is_thrown_away_for_some_time_whatever_its_length() {
    let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
    assert_eq!(fixture.statuses(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"), [404]);
    assert!(fixture.connection.is_closing() && !fixture.pass(LINGER_MAX / 2));
    for _ in 0..900 {
        assert_eq!(fixture.statuses(&[b'x'; 10_000]), [0; 0]);
        assert!(fixture.connection.input.is_empty() && fixture.connection.wants_input());
    }
    assert!(fixture.connection.input.capacity() <= 4 * SHORT_BYTES_MAX);
    assert!(fixture.pass(LINGER_MAX / 2) && !fixture.expire());
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
    assert!(fixture.connection.output().len() < 2 * OUTPUT_BYTES_MAX);
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
        let output = String::from_utf8(fixture.connection.output().to_vec()).unwrap();
        assert_eq!(output.matches("HTTP/1.1 200 OK").count(), answers);
    }
}

#[cfg(feature = "disk")]
#[test]
fn what_follows_a_sample_comes_when_that_is_stored_or_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Directory { path: dir.path().to_owned(), fsync_always: false };
    let mut fixture = Fixture::new(MEMORY_BYTES_MAX);
    fixture.api = api(Store::open(&location, 100, fixture.now.unix_sec).unwrap());
    let requests = [post("Content-Length: 9\r\n", "{\"cpu\":1}"), b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()];
    for (is_given_up, answer) in
        [(false, "{\"stored\":1"), (true, "the disk has not answered"), (false, "{\"stored\":1")]
    {
        let stalled = fixture.api.ingest().store().stall();
        fixture.connection.input().extend_from_slice(&requests.concat());
        for _ in 0..2 {
            assert_eq!(fixture.with(false, Connection::advance), Pause::Sample);
            assert!(!fixture.connection.can_go_on(fixture.now.instant));
            assert!(!fixture.connection.wants_input() && !fixture.connection.has_output());
        }
        if is_given_up {
            fixture.now.instant = Instant::now() + Duration::from_secs(1);
        } else {
            drop(stalled);
        }
        while !fixture.connection.can_go_on(fixture.now.instant) {
            std::thread::yield_now();
        }
        assert_eq!(fixture.with(false, Connection::advance), Pause::Input);
        let answers = fixture.take();
        let places = [answers.find(answer), answers.find("204 No Content")];
        assert!(places[0].is_some() && places[0] < places[1], "{answers}");
    }
    let answer = b"GET /api/perf/h/by-minute HTTP/1.1\r\nHost: x\r\n\r\n";
    fixture.send(answer);
    assert!(fixture.take().contains("\"num-samples\":2"), "what was given up is not stored");
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
