//! Starts the product, reads its log, talks to it, and plays the peers it talks to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt, sockopt};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest wait for anything that is bound to happen: far above what it takes, so that a slow machine does not fail. What a
/// receiver's sweep does takes 30 seconds or a little more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The start of the newest minute that has ended, so that no test is cut by the turn of one.
pub(crate) fn last_minute() -> u64 {
    now() / 60 * 60 - 60
}

/// Replaces a file at once, as the kernel's are: a reader sees the old or the new.
pub(crate) fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// A monitor of a fixture in `root`, of which mem is 25.0 and cpu is nothing until [`be_busy`].
pub(crate) fn monitor_of_fixture(root: &Path, host: &str, urls: &[&str]) -> Process {
    replace(&root.join("stat"), include_str!("../procfs/round-numbers/stat"));
    replace(&root.join("meminfo"), include_str!("../procfs/round-numbers/meminfo"));
    let procfs = root.to_str().unwrap();
    let arguments = ["monitor", "--host", host, "--probes", "cpu,mem", "--procfs", procfs, "--publish"];
    Process::start(lizm(&[&arguments[..], urls].concat()))
}

/// Makes cpu of a fixture 40.0 for one sample: of 1,000 ticks 400 were busy.
pub(crate) fn be_busy(root: &Path) {
    let stat = include_str!("../procfs/round-numbers/stat");
    let busy = stat.replacen("cpu  74608 2520 24433 1117073 6176", "cpu  74908 2520 24533 1117573 6276", 1);
    replace(&root.join("stat"), &busy);
}

/// Polls until `probe` gives something.
pub(crate) fn await_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The HTTP servers that this build has.
pub(crate) fn http_servers() -> &'static [&'static str] {
    if cfg!(all(feature = "builtin", target_os = "linux")) { &["tiny_http", "builtin"] } else { &["tiny_http"] }
}

/// A command of the binary under test, with an environment of its own. `LIZM_TEST_BINARY` puts another in its place.
pub(crate) fn lizm(arguments: &[&str]) -> Command {
    let binary = std::env::var("LIZM_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_lizm").to_owned());
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running process of the product, killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| sender.send(line.clone()).is_ok())
                .count()
        });
        Self { child, lines }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The next line of the log, but for those of what this machine does not have to measure.
    pub(crate) fn line(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a line of the log");
            if !line.contains(" is left out: ") {
                return line;
            }
        }
    }

    /// The next line of the log, or `None` where it ends without one.
    pub(crate) fn line_or_end(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("neither a line of the log nor its end"),
        }
    }

    /// Ends it at once, as a power cut does for a process.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself: exit status and the lines of its log.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        let lines = self.lines.iter().collect();
        (self.child.wait().unwrap(), lines)
    }

    /// The next line of the log that has `part` in it.
    pub(crate) fn line_with(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.line();
            if line.contains(part) {
                return line;
            }
            assert!(Instant::now() < deadline, "no line of the log has {part:?}");
        }
    }

    /// Sends a signal, and waits for the end: exit status and the lines of the log that were not read before.
    pub(crate) fn stop(mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        kill(self.pid(), signal).unwrap();
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it did not end; its log: {lines:?}"),
            }
        }
        (self.child.wait().unwrap(), lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running receiver.
pub(crate) struct Served {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let all = [&["receiver", "--port", "0", "--bind", "127.0.0.1"], arguments].concat();
        Self::from(Process::start(lizm(&all)))
    }

    pub(crate) fn from(process: Process) -> Self {
        // A receiver that goes on with alerts may log these first.
        let line = process.line_with("INFO: Receiver is listening on http://");
        let address = line.rsplit("://").next().unwrap().parse().expect(&line);
        Self { process, address }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(self.url(path)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        answer(agent().post(self.url(path)).send(body))
    }

    /// Posts with an idempotency key.
    pub(crate) fn post_once(&self, path: &str, key: &str, body: &str) -> (u16, Value) {
        answer(agent().post(self.url(path)).header("Idempotency-Key", key).send(body))
    }

    /// The averages of all summaries of a host.
    pub(crate) fn averages(&self, host: &str) -> BTreeMap<String, Value> {
        let (_, summaries) = self.get(&format!("/api/perf/{host}"));
        let of = |(key, summary): (&String, &Value)| (key.clone(), summary["averages"].clone());
        summaries.as_object().unwrap().iter().map(of).collect()
    }

    /// How many samples of a label of a host came within the day.
    pub(crate) fn samples(&self, host: &str, label: &str) -> u64 {
        let averages = self.averages(host).remove(&format!("summary:by-hour:{label}")).unwrap_or_default();
        let count = |average: &Value| average["num-samples"].as_u64().unwrap();
        averages.as_array().into_iter().flatten().map(count).sum()
    }

    pub(crate) fn await_samples(&self, host: &str, label: &str, count: u64) {
        await_some(&format!("{count} samples of {label} of {host}"), || {
            (self.samples(host, label) >= count).then_some(())
        });
        assert_eq!(self.samples(host, label), count, "samples of {label} of {host}");
    }

    /// Where it takes datagrams, as its log says.
    pub(crate) fn udp(&self) -> SocketAddr {
        let line = self.process.line_with("INFO: Receiver is listening on udp://");
        let address = line.split("udp://").nth(1).and_then(|rest| rest.split(',').next()).expect(&line);
        address.parse().unwrap()
    }

    /// The endpoint where it takes messages of ZeroMQ, as its log says.
    #[cfg(feature = "zeromq")]
    pub(crate) fn zmq(&self) -> String {
        let line = self.process.line_with("INFO: Receiver is listening on zmq ");
        line.split(' ').nth(6).and_then(|endpoint| endpoint.strip_suffix(',')).expect(&line).to_owned()
    }

    pub(crate) fn delete(&self, path: &str) -> (u16, Value) {
        answer(agent().delete(self.url(path)).call())
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends bytes over a new connection and reads one answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Answer::read(&mut stream)
    }
}

/// An address for a server that cannot pick one by itself. A socket that does not listen is bound to it until the tests
/// end, so that nothing else gets the port; a server that sets `SO_REUSEADDR` can listen on it all the same.
pub(crate) fn reserved_address() -> SocketAddr {
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = socket::getsockname::<SockaddrIn>(socket.as_raw_fd()).unwrap().port();
    std::mem::forget(socket);
    ([127, 0, 0, 1], port).into()
}

/// A program of the Python environment that `make test` installs.
pub(crate) fn python_program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin").join(name);
    assert!(program.exists(), "{name} is missing: `make target/python/ready` installs it, as `make test` does");
    program
}

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

pub(crate) fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = result.unwrap();
    let body = response.body_mut().read_to_string().unwrap();
    // A 204 has no body.
    let value = if body.is_empty() { Value::Null } else { serde_json::from_str(&body).expect(&body) };
    (response.status().as_u16(), value)
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads one answer with a body of the declared length, past interim ones.
    pub(crate) fn read(stream: &mut impl Read) -> Self {
        let answer = Self::read_any(stream, true);
        if answer.status == 100 { Self::read(stream) } else { answer }
    }

    /// Reads the answer to a HEAD.
    pub(crate) fn read_head(stream: &mut impl Read) -> Self {
        Self::read_any(stream, false)
    }

    fn read_any(stream: &mut impl Read, with_body: bool) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if with_body { length } else { 0 }];
        stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn error(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).expect(&self.body);
        body["error"].as_str().expect("an error sentence").to_owned()
    }
}

/// One request that a peer of the test's own was sent.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) bytes: Vec<u8>,
}

/// How a peer of the test's own treats one request.
pub(crate) enum Treatment {
    Answer(&'static str),
    /// Answers 200 with a body in JSON.
    Json(&'static str),
    /// Answers 200 with this body in JSON as Elasticsearch does, and ends the connection.
    Text(String),
    /// Answers with a status, fields of the head behind it, and a body.
    Whole(&'static str, &'static str),
    /// Answers, and ends the connection without a word.
    AnswerAndClose(&'static str),
    /// Takes the request and ends the connection without an answer.
    Drop,
}

/// A peer that plays a receiver: for each request `treat` says what to do with it.
pub(crate) fn play_receiver(treat: impl FnMut(&Heard) -> Treatment + Send + 'static) -> SocketAddr {
    play_receiver_at(([127, 0, 0, 1], 0).into(), treat)
}

/// The same at an address.
pub(crate) fn play_receiver_at(
    address: SocketAddr,
    mut treat: impl FnMut(&Heard) -> Treatment + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some(heard) = hear(&mut stream) {
                let (status, body, goes_on) = match treat(&heard) {
                    Treatment::Answer(status) => (status, "{}".to_owned(), true),
                    Treatment::Whole(status, body) => (status, body.to_owned(), true),
                    Treatment::Json(body) => ("200 OK", body.to_owned(), true),
                    Treatment::Text(body) => (
                        "200 OK\r\nContent-Type: application/json\r\nX-Elastic-Product: Elasticsearch\r\nConnection: close",
                        body,
                        false,
                    ),
                    Treatment::AnswerAndClose(status) => (status, "{}".to_owned(), false),
                    Treatment::Drop => break,
                };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.get_mut().write_all(answer.as_bytes()).is_err() || !goes_on {
                    break;
                }
            }
        }
    });
    address
}

fn hear(stream: &mut BufReader<TcpStream>) -> Option<Heard> {
    let (mut path, mut key, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => key = value.to_owned(),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(_) => {}
            None => path = line.split(' ').nth(1)?.to_owned(),
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Heard { path, key, body: serde_json::from_slice(&body).unwrap_or_default(), bytes: body })
}
