//! One Redis server: two connections, each with a thread that sends all waiting commands in one pipeline, and a circuit
//! breaker, so that nobody waits for a server that is known not to answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use redis::io::tcp::TcpSettings;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionLike, IntoConnectionInfo, RedisConnectionInfo, RedisResult,
    TlsCertificates, Value,
};

use super::super::StoreError;
use super::super::recording::Wakers;
use super::address::Address;
use crate::supervisor::spawn_supervised;

/// Connections to a server. While one waits for replies, commands gather for the other. With more connections pipelines
/// are shorter and cost more.
const CONNECTIONS: usize = 2;
/// Longest time to connect, for a reply to a probe, and between two reads of a reply: half of what a client is
/// promised.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// How long a read waits for a server that answers nobody: who looks at a page is told within a tenth of a second. A server
/// that is slow to reach gets a multiple of the time to connect, which is two round trips or more.
const READ_SILENCE_MAX: Duration = Duration::from_millis(75);
const CONNECTS_PER_READ: u32 = 3;
/// Commands that queue behind those that were sent, from which on a read waits no longer than that.
const QUEUED_MIN: usize = 8;
/// How often a server is probed that does not answer, or takes no writes.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How often a server is probed that has nothing to do, so that `/health` knows of its end before a request does.
const PROBE_IDLE_EVERY: Duration = Duration::from_secs(2);
/// Commands of one pipeline: a few milliseconds of the server's time.
const PIPELINE_COMMANDS_MAX: usize = 1000;
/// Most bytes of commands that wait for a server: those of a hundred threads with a body of lines each.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A server and its connections.
pub(super) struct Node {
    address: Address,
    client: Client,
    state: Mutex<NodeState>,
    changed: Condvar,
    started: Instant,
    /// For each connection the milliseconds from `started` to its last reply, or to the command that it waits on since;
    /// 0 while it waits for nothing.
    waiting_since_ms: [AtomicU64; CONNECTIONS],
    /// The milliseconds from `started` to the last reply over any connection.
    heard_ms: AtomicU64,
    /// How many milliseconds it took to connect.
    connect_ms: AtomicU64,
}

struct NodeState {
    waiting: VecDeque<Job>,
    waiting_bytes: usize,
    circuit: CircuitState,
    /// Rises each time that the server comes back. A connection of an older generation is not used again.
    generation: u64,
    is_closing: bool,
    /// The key that a probe writes.
    probe_key: String,
    /// Whether the eviction policy has been looked at.
    is_policy_known: bool,
}

/// State of the circuit breaker; its texts say why it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CircuitState {
    /// Commands are sent.
    Closed,
    /// The server takes no writes: it is out of memory, read-only, or unable to save. Reads are sent.
    ReadOnly(String),
    /// The server does not answer. Nothing is sent.
    Open(String),
}

/// Commands for one server, each with one reply.
pub(super) struct Job {
    pub(super) bytes: Vec<u8>,
    pub(super) replies: usize,
    pub(super) writes: bool,
    pub(super) answer: Arc<Answer>,
}

/// The replies to a job, once they have come.
pub(super) struct Answer {
    replies: Mutex<Option<Result<Vec<Value>, StoreError>>>,
    came: Condvar,
    /// What wakes the thread that looks with [`Answer::peek`] instead of waiting.
    waker: Option<Waker>,
}

impl Answer {
    pub(super) fn new(waker: Option<Waker>) -> Self {
        Self { replies: Mutex::default(), came: Condvar::new(), waker }
    }

    /// Gives the replies to whoever waits. The waker is added to those that are woken later.
    fn give(&self, replies: Result<Vec<Value>, StoreError>, wakers: &mut Wakers) {
        *self.replies.lock().unwrap_or_else(PoisonError::into_inner) = Some(replies);
        match &self.waker {
            Some(waker) => wakers.add(waker),
            None => self.came.notify_one(),
        }
    }

    /// What `look` says of the replies; `None` where they have not come yet.
    pub(super) fn peek(&self, look: impl FnOnce(&Result<Vec<Value>, StoreError>) -> bool) -> Option<bool> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    /// Waits for the replies; `None` where they have not come by the deadline.
    fn wait(&self, deadline: Instant) -> Option<Result<Vec<Value>, StoreError>> {
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let within = deadline.saturating_duration_since(Instant::now());
        let waited = self.came.wait_timeout_while(replies, within, |replies| replies.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// What a connection's thread does next.
enum Next {
    Exchange(Vec<Job>),
    Probe,
    End,
}

impl Node {
    /// Starts the threads of a server's connections. A thread connects when it has something to send.
    pub(super) fn start(address: Address, probe_key: String) -> Result<Arc<Self>, String> {
        let client = client(&address).map_err(|error| format!("store {address}: {error}"))?;
        let state = NodeState {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            circuit: CircuitState::Closed,
            generation: 0,
            is_closing: false,
            probe_key,
            is_policy_known: false,
        };
        let node = Arc::new(Self {
            address,
            client,
            state: Mutex::new(state),
            changed: Condvar::new(),
            started: Instant::now(),
            waiting_since_ms: Default::default(),
            heard_ms: AtomicU64::new(0),
            connect_ms: AtomicU64::new(0),
        });
        for number in 0..CONNECTIONS {
            let node = node.clone();
            let spawned = spawn_supervised(&format!("redis-{number}"), move || node.run(number));
            spawned.map_err(|error| format!("store: no thread for a connection to Redis: {error}"))?;
        }
        Ok(node)
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Ends the connections. Jobs that wait fail.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.changed.notify_all();
    }

    /// Why the server takes no writes now, if so.
    pub(super) fn unavailable(&self) -> Option<StoreError> {
        match &self.state().circuit {
            CircuitState::Closed => None,
            CircuitState::ReadOnly(why) | CircuitState::Open(why) => Some(StoreError::new(why.clone())),
        }
    }

    /// Queues a job, and returns the generation in which it waits. It fails at once while the circuit is open for it.
    pub(super) fn submit(&self, job: Job) -> Result<u64, StoreError> {
        let mut state = self.state();
        match &state.circuit {
            CircuitState::Open(why) => return Err(StoreError::new(why.clone())),
            CircuitState::ReadOnly(why) if job.writes => return Err(StoreError::new(why.clone())),
            _ if state.is_closing => return Err(StoreError::new(format!("{} is not used any more", self.address))),
            _ => {}
        }
        if state.waiting_bytes + job.bytes.len() > WAITING_BYTES_MAX {
            return Err(StoreError::new(format!(
                "{WAITING_BYTES_MAX} bytes wait for {} already, the limit",
                self.address
            )));
        }
        state.waiting_bytes += job.bytes.len();
        state.waiting.push_back(job);
        // Where more wait, a thread was woken before, and takes all of them.
        let (is_first, generation) = (state.waiting.len() == 1, state.generation);
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
        Ok(generation)
    }

    /// Waits for the replies to a job until the deadline; to one that reads not while the server stands still. Where a
    /// connection has waited for a whole reply for longer than [`SILENCE_MAX`] at the deadline, the circuit opens: bytes
    /// that come in one by one would keep the server in use for good. Not if the server has come back since
    /// `generation`, in which the job was submitted: the silence may be from before.
    pub(super) fn wait(
        &self,
        answer: &Answer,
        writes: bool,
        generation: u64,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        while !writes
            && let until = self.read_until()
            && until < deadline
        {
            if let Some(replies) = answer.wait(until) {
                return replies;
            }
            if self.read_until() <= Instant::now() {
                let silence_ms = self.read_silence().as_millis();
                return Err(StoreError::new(format!("{} has answered nobody for {silence_ms} ms", self.address)));
            }
        }
        answer.wait(deadline).unwrap_or_else(|| {
            let now_ms = self.since_start_ms();
            let is_silent = |since_ms: &AtomicU64| match since_ms.load(Ordering::Relaxed) {
                0 => false,
                since_ms => u128::from(now_ms.saturating_sub(since_ms)) > SILENCE_MAX.as_millis(),
            };
            if self.waiting_since_ms.iter().any(is_silent) {
                self.open_circuit(CircuitState::Open(self.silence()), generation);
            }
            Err(StoreError::uncertain(format!("{} has not answered in time", self.address)))
        })
    }

    /// Until when a read waits if the server answers nobody meanwhile: the silence begins with the last reply over any
    /// connection, or with the oldest command that waits for one. While few commands queue few people wait, and a server
    /// that is only short of processor time is waited for.
    fn read_until(&self) -> Instant {
        let since = self.waiting_since_ms.iter().map(|since_ms| since_ms.load(Ordering::Relaxed));
        let is_waited_for = |since_ms: &u64| *since_ms > 0 && self.state().waiting.len() >= QUEUED_MIN;
        let since_ms = since.min().filter(is_waited_for).unwrap_or_else(|| self.since_start_ms());
        self.started + Duration::from_millis(since_ms.max(self.heard_ms.load(Ordering::Relaxed))) + self.read_silence()
    }

    fn read_silence(&self) -> Duration {
        let connected_within = Duration::from_millis(self.connect_ms.load(Ordering::Relaxed));
        (CONNECTS_PER_READ * connected_within).clamp(READ_SILENCE_MAX, SILENCE_MAX)
    }

    /// Milliseconds since the node was started, and never 0.
    fn since_start_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn state(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread of a connection. The first one probes the server.
    fn run(&self, number: usize) {
        let mut connection: Option<(Connection, u64)> = None;
        let mut probed = Instant::now();
        loop {
            let (next, generation) = self.next((number == 0).then_some(probed));
            connection = connection.filter(|(_, of)| *of == generation);
            match next {
                Next::End => return,
                Next::Probe => {
                    probed = Instant::now();
                    self.probe();
                }
                Next::Exchange(jobs) => {
                    if let Err((why, generation)) = self.serve(number, &mut connection, generation, jobs) {
                        connection = None;
                        self.open_circuit(CircuitState::Open(why), generation);
                    }
                }
            }
        }
    }

    /// Sends jobs over the connection, or over a new one, and hands out the replies. Where that fails the jobs fail; the
    /// error is why the circuit opens, and the generation that it is about.
    fn serve(
        &self,
        number: usize,
        connection: &mut Option<(Connection, u64)>,
        generation: u64,
        jobs: Vec<Job>,
    ) -> Result<(), (String, u64)> {
        let was_there = connection.is_some();
        let since_ms = &self.waiting_since_ms[number];
        let waits = || since_ms.store(self.since_start_ms(), Ordering::Relaxed);
        let replied = || {
            waits();
            self.heard_ms.store(self.since_start_ms(), Ordering::Relaxed);
        };
        waits();
        let exchanged = match connection {
            Some((there, _)) => exchange(there, &jobs, replied),
            None => self.connect().and_then(|new| {
                waits();
                exchange(&mut connection.insert((new, generation)).0, &jobs, replied)
            }),
        };
        since_ms.store(0, Ordering::Relaxed);
        let error = match exchanged {
            Ok(replies) => {
                self.answer(jobs, replies);
                return Ok(());
            }
            Err(error) => error,
        };
        let why = self.failure(&error);
        let as_error = if connection.is_some() { StoreError::uncertain } else { StoreError::new };
        if !was_there || error.is_timeout() {
            fail(jobs, &as_error(why.clone()));
            return Err((why, generation));
        }
        // The connection has ended, perhaps long ago, and so have others of its generation; the server may be there.
        // Writes may have been carried out. Reads are sent again.
        *connection = None;
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            state.generation
        };
        let (writes, reads): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.writes);
        fail(writes, &as_error(why));
        if reads.is_empty() { Ok(()) } else { self.serve(number, connection, generation, reads) }
    }

    /// Waits for what to do next. `probed` is when the thread that probes last did so.
    fn next(&self, probed: Option<Instant>) -> (Next, u64) {
        let mut state = self.state();
        let since = Instant::now();
        loop {
            let generation = state.generation;
            if state.is_closing {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                fail(waiting, &StoreError::new(format!("{} is not used any more", self.address)));
                return (Next::End, generation);
            }
            // A probe comes before what waits: reads may never end where writes are refused.
            if probed.is_some_and(|probed| state.circuit != CircuitState::Closed && probed.elapsed() >= PROBE_EVERY) {
                self.changed.notify_one();
                return (Next::Probe, generation);
            }
            if !state.waiting.is_empty() {
                let (mut jobs, mut commands) = (Vec::new(), 0);
                while commands < PIPELINE_COMMANDS_MAX {
                    let Some(job) = state.waiting.pop_front() else { break };
                    (state.waiting_bytes, commands) = (state.waiting_bytes - job.bytes.len(), commands + job.replies);
                    jobs.push(job);
                }
                if !state.waiting.is_empty() {
                    self.changed.notify_one();
                }
                return (Next::Exchange(jobs), generation);
            }
            let due = match (probed, &state.circuit) {
                (None, _) => since + PROBE_IDLE_EVERY,
                (Some(_), CircuitState::Closed) if since.elapsed() >= PROBE_IDLE_EVERY => {
                    return (Next::Probe, generation);
                }
                (Some(_), CircuitState::Closed) => since + PROBE_IDLE_EVERY,
                (Some(probed), _) => probed + PROBE_EVERY,
            };
            let within = due.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, within).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives each job its replies, and opens the circuit where a reply says that the server is not well.
    fn answer(&self, jobs: Vec<Job>, replies: Vec<Value>) {
        let generation = self.state().generation;
        let unwell = replies.iter().find_map(|reply| self.unwell(reply));
        let (mut replies, mut wakers) = (replies.into_iter(), Wakers::default());
        for job in jobs {
            job.answer.give(Ok(replies.by_ref().take(job.replies).collect()), &mut wakers);
        }
        wakers.wake();
        if let Some(circuit) = unwell {
            self.open_circuit(circuit, generation);
        }
    }

    /// Opens the circuit: jobs fail at once until a probe succeeds. What is known of an older generation changes nothing.
    fn open_circuit(&self, circuit: CircuitState, generation: u64) {
        let mut state = self.state();
        if state.generation != generation || state.circuit == circuit {
            return;
        }
        let (CircuitState::Open(why) | CircuitState::ReadOnly(why)) = &circuit else { return };
        let error = StoreError::new(why.clone());
        if state.circuit == CircuitState::Closed {
            log::error!("Store: {why}; it is tried again every {} ms", PROBE_EVERY.as_millis());
        }
        let is_open = matches!(circuit, CircuitState::Open(_));
        let (failed, kept) = std::mem::take(&mut state.waiting).into_iter().partition(|job| is_open || job.writes);
        state.waiting = kept;
        state.waiting_bytes = state.waiting.iter().map(|job| job.bytes.len()).sum();
        state.circuit = circuit;
        drop(state);
        self.changed.notify_all();
        fail(failed, &error);
    }

    /// Writes a key over a new connection, because the name of the server may lead to another one now, and sets the
    /// circuit by the reply. A reply that takes longer than [`SILENCE_MAX`] in all is none.
    fn probe(&self) {
        let (key, began) = (self.state().probe_key.clone(), Instant::now());
        // A redirection of a key that is not this node's any more shows as well that it works.
        let command = redis::cmd("SET").arg(key).arg("").arg("PX").arg(1000).get_packed_command();
        let probed = self.connect().and_then(|mut connection| {
            connection.send_packed_command(&command)?;
            connection.recv_response()
        });
        let circuit = match probed {
            Ok(_) if began.elapsed() > 2 * SILENCE_MAX => CircuitState::Open(self.silence()),
            Ok(reply) => self.unwell(&reply).unwrap_or(CircuitState::Closed),
            Err(error) => CircuitState::Open(self.failure(&error)),
        };
        let mut state = self.state();
        if circuit != CircuitState::Closed {
            let generation = state.generation;
            drop(state);
            return self.open_circuit(circuit, generation);
        }
        if state.circuit != CircuitState::Closed {
            log::info!("Store: {} is back", self.address);
            state.generation += 1;
            state.circuit = circuit;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The state of the circuit that follows from an error which concerns every command.
    fn unwell(&self, reply: &Value) -> Option<CircuitState> {
        let Value::ServerError(error) = reply else { return None };
        let says = |code: &&str| {
            error.code() == *code || error.details().is_some_and(|text| text.contains(&format!("-{code} ")))
        };
        let why = || format!("{} answers {} {}", self.address, error.code(), error.details().unwrap_or_default());
        if ["OOM", "READONLY", "MISCONF", "NOREPLICAS"].iter().any(&says) {
            return Some(CircuitState::ReadOnly(why()));
        }
        let is_open = ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "NOPERM", "BUSY"].iter().any(says);
        is_open.then(|| CircuitState::Open(why()))
    }

    fn failure(&self, error: &redis::RedisError) -> String {
        if error.is_timeout() { self.silence() } else { format!("{} has failed: {error}", self.address) }
    }

    fn silence(&self) -> String {
        format!("{} has not answered for {} ms", self.address, SILENCE_MAX.as_millis())
    }

    fn connect(&self) -> RedisResult<Connection> {
        let began_ms = self.since_start_ms();
        let mut connection = connect(&self.client)?;
        self.connect_ms.store(self.since_start_ms() - began_ms, Ordering::Relaxed);
        let is_first = !std::mem::replace(&mut self.state().is_policy_known, true);
        if is_first
            && let Some(policy) = eviction_policy(&mut connection)
            && policy != "noeviction"
        {
            log::warn!(
                "Store: {} has maxmemory-policy {policy}, which may drop summaries when memory runs short; set noeviction",
                self.address
            );
        }
        Ok(connection)
    }
}

/// Sends one command over a connection of its own.
pub(super) fn ask_once(address: &Address, command: &redis::Cmd) -> Result<Value, String> {
    let asked = client(address).and_then(|client| connect(&client)?.req_command(command));
    asked.map_err(|error| format!("{address}: {error}"))
}

/// Connects; no read or write of the connection waits longer than [`SILENCE_MAX`].
fn connect(client: &Client) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(SILENCE_MAX)?;
    connection.set_read_timeout(Some(SILENCE_MAX))?;
    connection.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(connection)
}

/// Sends the commands of some jobs, and reads their replies up to the first failure. `replied` is called after each.
fn exchange(connection: &mut Connection, jobs: &[Job], replied: impl Fn()) -> RedisResult<Vec<Value>> {
    match jobs {
        [job] => connection.send_packed_command(&job.bytes)?,
        _ => connection.send_packed_command(&jobs.iter().map(|job| &*job.bytes).collect::<Vec<_>>().concat())?,
    }
    (0..jobs.iter().map(|job| job.replies).sum()).map(|_| connection.recv_response().inspect(|_| replied())).collect()
}

/// The client of a server, with TLS where the address has it.
fn client(address: &Address) -> RedisResult<Client> {
    let (host, port) = address.nodes.first().cloned().unwrap_or_default();
    let mut settings = RedisConnectionInfo::default().set_db(address.db);
    if let Some(user) = &address.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &address.password {
        settings = settings.set_password(password);
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    let plain = ConnectionAddr::Tcp(host.clone(), port);
    if !address.is_tls {
        return Client::open(plain.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp));
    }
    let root_cert = address.ca.as_ref().map(std::fs::read).transpose()?;
    let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
    let info = addr.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp);
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
}

fn fail(jobs: impl IntoIterator<Item = Job>, error: &StoreError) {
    let mut wakers = Wakers::default();
    jobs.into_iter().for_each(|job| job.answer.give(Err(error.clone()), &mut wakers));
    wakers.wake();
}

/// The server's `maxmemory-policy`, where it tells.
fn eviction_policy(connection: &mut Connection) -> Option<String> {
    let info: String = redis::cmd("INFO").arg("memory").query(connection).ok()?;
    info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(|policy| policy.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_from_before_the_server_came_back_opens_no_circuit() {
        let address = Address::parse("redis://127.0.0.1", None).unwrap();
        let node = Node {
            client: client(&address).unwrap(),
            address,
            state: Mutex::new(NodeState {
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                circuit: CircuitState::Closed,
                generation: 1,
                is_closing: false,
                probe_key: String::new(),
                is_policy_known: false,
            }),
            changed: Condvar::new(),
            started: Instant::now() - 2 * SILENCE_MAX,
            waiting_since_ms: [AtomicU64::new(1), AtomicU64::new(0)],
            heard_ms: AtomicU64::new(0),
            connect_ms: AtomicU64::new(0),
        };
        for (generation, opens) in [(0, false), (1, true)] {
            node.wait(&Answer::new(None), true, generation, Instant::now()).unwrap_err();
            assert_eq!(node.unavailable().is_some(), opens);
        }
    }
}
