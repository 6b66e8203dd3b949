//! One Redis server: a few connections, each with a thread that sends all that waits in one pipeline, and a circuit that
//! opens when the server does not answer, so that nobody waits for it in vain.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::io::tcp::TcpSettings;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionLike, IntoConnectionInfo, RedisConnectionInfo, RedisResult,
    TlsCertificates, Value,
};

use super::super::StoreError;
use super::address::Address;
use crate::supervisor::spawn_supervised;

/// Connections to a server. While one waits for its answers, what comes is gathered for the other; with more of them,
/// pipelines get shorter and cost more.
const CONNECTIONS: usize = 2;
/// Longest silence of a server that is asked something, and longest time to connect: half of what a client is promised.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// How often a server that does not answer, or takes nothing, is tried again.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How often a connection without work is tried, so that one that has ended is found by nobody's request.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Commands of one pipeline: a few milliseconds of the server's time.
const PIPELINE_COMMANDS_MAX: usize = 1000;
/// Bytes of commands that may wait: those of a hundred threads, each with a run of lines.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A server and its connections.
pub(super) struct Node {
    address: Address,
    client: Client,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    waiting_bytes: usize,
    condition: CircuitState,
    /// Counts the times the server came back: a connection from before is not used again.
    generation: u64,
    is_closing: bool,
    /// A key that this server may be asked to write, to see whether it writes.
    probe_key: String,
    was_greeted: bool,
}

/// How a server is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CircuitState {
    Well,
    /// It answers, and takes nothing: out of memory, read-only, or unable to save.
    Refusing(String),
    Away(String),
}

/// Commands that go to a server together, each with one reply.
pub(super) struct Job {
    pub(super) bytes: Vec<u8>,
    pub(super) replies: usize,
    pub(super) writes: bool,
    pub(super) answer: Arc<Answer>,
}

/// Where the replies to a job come.
#[derive(Default)]
pub(super) struct Answer {
    replies: Mutex<Option<Result<Vec<Value>, StoreError>>>,
    came: Condvar,
}

impl Answer {
    fn give(&self, replies: Result<Vec<Value>, StoreError>) {
        *self.replies.lock().unwrap_or_else(PoisonError::into_inner) = Some(replies);
        self.came.notify_one();
    }

    /// Waits for the replies, until a deadline.
    pub(super) fn wait(&self, deadline: Instant) -> Result<Vec<Value>, StoreError> {
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let within = deadline.saturating_duration_since(Instant::now());
        let waited = self.came.wait_timeout_while(replies, within, |replies| replies.is_none());
        let mut replies = waited.unwrap_or_else(PoisonError::into_inner).0;
        let late = || Err(StoreError::uncertain("Redis has not answered in time"));
        replies.take().unwrap_or_else(late)
    }
}

/// What a connection's thread does next.
enum Next {
    Exchange(Vec<Job>),
    Ping,
    Probe,
    End,
}

impl Node {
    /// Starts the threads of a server's connections. They connect when there is something to do.
    pub(super) fn start(address: Address, probe_key: String) -> Result<Arc<Self>, String> {
        let client = client(&address).map_err(|error| format!("store {address}: {error}"))?;
        let state = State {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            condition: CircuitState::Well,
            generation: 0,
            is_closing: false,
            probe_key,
            was_greeted: false,
        };
        let node = Arc::new(Self { address, client, state: Mutex::new(state), changed: Condvar::new() });
        for number in 0..CONNECTIONS {
            let node = node.clone();
            let spawned = spawn_supervised(&format!("redis-{number}"), move || node.run(number == 0));
            spawned.map_err(|error| format!("store: no thread for a connection to Redis: {error}"))?;
        }
        Ok(node)
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Ends the connections; what waits is answered that it is not stored.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.changed.notify_all();
    }

    /// Why it takes no samples now, if so.
    pub(super) fn unavailable(&self) -> Option<StoreError> {
        match &self.state().condition {
            CircuitState::Well => None,
            CircuitState::Refusing(why) | CircuitState::Away(why) => Some(StoreError::new(why.clone())),
        }
    }

    /// Hands over commands. Where the server is known not to answer, or to take nothing, that is said at once.
    pub(super) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.state();
        match &state.condition {
            CircuitState::Away(why) => return Err(StoreError::new(why.clone())),
            CircuitState::Refusing(why) if job.writes => return Err(StoreError::new(why.clone())),
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
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection's thread. One of them looks after a server that is not well.
    fn run(&self, is_prober: bool) {
        let mut connection: Option<(Connection, u64)> = None;
        let mut probed = Instant::now();
        loop {
            let (next, generation) = self.next(is_prober.then_some(probed));
            connection = connection.filter(|(_, of)| *of == generation);
            match next {
                Next::End => return,
                Next::Probe => {
                    probed = Instant::now();
                    self.probe();
                }
                Next::Ping => {
                    if connection.as_mut().is_some_and(|(known, _)| !known.check_connection()) {
                        connection = None;
                    }
                }
                Next::Exchange(jobs) => {
                    if let Err((why, generation)) = self.serve(&mut connection, generation, jobs) {
                        connection = None;
                        self.trip(CircuitState::Away(why), generation);
                    }
                }
            }
        }
    }

    /// Sends jobs over a connection, a new one if there is none, and hands out the replies. Where that fails the jobs
    /// are told; the error is for the circuit.
    fn serve(
        &self,
        connection: &mut Option<(Connection, u64)>,
        generation: u64,
        jobs: Vec<Job>,
    ) -> Result<(), (String, u64)> {
        let was_there = connection.is_some();
        let exchanged = match connection {
            Some((there, _)) => exchange(there, &jobs),
            None => self.connect().and_then(|new| exchange(&mut connection.insert((new, generation)).0, &jobs)),
        };
        let error = match exchanged {
            Ok(replies) => {
                self.hand_out(jobs, replies);
                return Ok(());
            }
            Err(error) => error,
        };
        let why = self.away(&error);
        let told = if connection.is_some() { StoreError::uncertain } else { StoreError::new };
        if !was_there || error.is_timeout() {
            fail(jobs, &told(why.clone()));
            return Err((why, generation));
        }
        // It has ended, perhaps long ago, and the server may well be there: so are other connections from before. What
        // was to be written may have been; what only reads is asked again.
        *connection = None;
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            state.generation
        };
        let (writes, reads): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.writes);
        fail(writes, &told(why));
        if reads.is_empty() { Ok(()) } else { self.serve(connection, generation, reads) }
    }

    /// Waits for what to do next; the thread that looks after the server says when it last did.
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
            let probed = probed.filter(|_| state.condition != CircuitState::Well);
            // Before what waits: a server that takes nothing may be read on and on.
            if probed.is_some_and(|probed| probed.elapsed() >= PROBE_EVERY) {
                return (Next::Probe, generation);
            }
            if !state.waiting.is_empty() {
                let (mut jobs, mut commands) = (Vec::new(), 0);
                while commands < PIPELINE_COMMANDS_MAX {
                    let Some(job) = state.waiting.pop_front() else { break };
                    (state.waiting_bytes, commands) = (state.waiting_bytes - job.bytes.len(), commands + job.replies);
                    jobs.push(job);
                }
                return (Next::Exchange(jobs), generation);
            }
            if since.elapsed() >= PING_EVERY {
                return (Next::Ping, generation);
            }
            let due = probed.map_or(since + PING_EVERY, |probed| probed + PROBE_EVERY);
            let within = due.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, within).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives each job its replies, and looks whether they say that the server takes nothing.
    fn hand_out(&self, jobs: Vec<Job>, replies: Vec<Value>) {
        let generation = self.state().generation;
        let trouble = replies.iter().find_map(|reply| self.trouble(reply));
        let mut replies = replies.into_iter();
        for job in jobs {
            job.answer.give(Ok(replies.by_ref().take(job.replies).collect()));
        }
        if let Some(trouble) = trouble {
            self.trip(trouble, generation);
        }
    }

    /// Opens the circuit: from now on everything is refused at once, until a probe succeeds.
    fn trip(&self, condition: CircuitState, generation: u64) {
        let mut state = self.state();
        if state.generation != generation || state.condition == condition {
            return;
        }
        let (CircuitState::Away(why) | CircuitState::Refusing(why)) = &condition else { return };
        let unavailable = StoreError::new(why.clone());
        if state.condition == CircuitState::Well {
            log::error!("Store: {why}; it is tried again every {} ms", PROBE_EVERY.as_millis());
        }
        let is_away = matches!(condition, CircuitState::Away(_));
        let (failed, kept) = std::mem::take(&mut state.waiting).into_iter().partition(|job| is_away || job.writes);
        state.waiting = kept;
        state.waiting_bytes = state.waiting.iter().map(|job| job.bytes.len()).sum();
        state.condition = condition;
        drop(state);
        self.changed.notify_all();
        fail(failed, &unavailable);
    }

    /// Tries a server that is not well, over a new connection: its name may lead to another one now.
    fn probe(&self) {
        let key = self.state().probe_key.clone();
        // A key that is not this node's any more shows that it works, too.
        let command = redis::cmd("SET").arg(key).arg("").arg("PX").arg(1000).get_packed_command();
        let probed = self.connect().and_then(|mut connection| {
            connection.send_packed_command(&command)?;
            connection.recv_response()
        });
        let condition = match probed {
            Ok(reply) => self.trouble(&reply).unwrap_or(CircuitState::Well),
            Err(error) => CircuitState::Away(self.away(&error)),
        };
        let mut state = self.state();
        if condition == CircuitState::Well {
            log::info!("Store: {} is back", self.address);
            state.generation += 1;
        }
        state.condition = condition;
        drop(state);
        self.changed.notify_all();
    }

    /// What an answer tells of the server, where it is one that concerns every command.
    fn trouble(&self, reply: &Value) -> Option<CircuitState> {
        let Value::ServerError(error) = reply else { return None };
        let says = |code: &&str| {
            error.code() == *code || error.details().is_some_and(|text| text.contains(&format!("-{code} ")))
        };
        let why = || format!("{} answers {} {}", self.address, error.code(), error.details().unwrap_or_default());
        if ["OOM", "READONLY", "MISCONF", "NOREPLICAS"].iter().any(&says) {
            return Some(CircuitState::Refusing(why()));
        }
        let is_away = ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "NOPERM", "BUSY"].iter().any(says);
        is_away.then(|| CircuitState::Away(why()))
    }

    fn away(&self, error: &redis::RedisError) -> String {
        match error.is_timeout() {
            true => format!("{} has not answered for {} ms", self.address, SILENCE_MAX.as_millis()),
            false => format!("{} has failed: {error}", self.address),
        }
    }

    fn connect(&self) -> RedisResult<Connection> {
        let mut connection = connect(&self.client)?;
        let is_first = !std::mem::replace(&mut self.state().was_greeted, true);
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

/// Asks a server one thing over a connection of its own.
pub(super) fn ask_once(address: &Address, command: &redis::Cmd) -> Result<Value, String> {
    let asked = client(address).and_then(|client| connect(&client)?.req_command(command));
    asked.map_err(|error| format!("{address}: {error}"))
}

/// Connects, and waits no longer for anything than [`SILENCE_MAX`].
fn connect(client: &Client) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(SILENCE_MAX)?;
    connection.set_read_timeout(Some(SILENCE_MAX))?;
    connection.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(connection)
}

/// Sends the commands of some jobs, and reads the replies to all of them, up to the first failure: what comes after it
/// would be waited for in vain.
fn exchange(connection: &mut Connection, jobs: &[Job]) -> RedisResult<Vec<Value>> {
    match jobs {
        [job] => connection.send_packed_command(&job.bytes)?,
        _ => connection.send_packed_command(&jobs.iter().map(|job| &*job.bytes).collect::<Vec<_>>().concat())?,
    }
    (0..jobs.iter().map(|job| job.replies).sum()).map(|_| connection.recv_response()).collect()
}

/// The client of a server. It connects over TLS where the address says so.
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

fn fail(jobs: impl IntoIterator<Item = Job>, unavailable: &StoreError) {
    jobs.into_iter().for_each(|job| job.answer.give(Err(unavailable.clone())));
}

/// What the server does when memory runs short, where it tells.
fn eviction_policy(connection: &mut Connection) -> Option<String> {
    let info: String = redis::cmd("INFO").arg("memory").query(connection).ok()?;
    info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(|policy| policy.trim().to_owned())
}
