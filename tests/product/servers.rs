//! The servers that lizm is run with, real ones, each in a directory of its own: Redis, alone and as a cluster.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{PATIENCE, await_some, reserved_address};

/// A server of Debian's, killed when dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Redis that can be ended and started again with what it had on disk.
pub(crate) struct Redis {
    directory: TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
    server: Option<Server>,
}

impl Redis {
    /// Starts one that keeps nothing on disk unless told to.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let redis = Self::start_without_waiting(arguments);
        redis.await_ready();
        redis
    }

    /// The same, for one that does not answer everybody.
    pub(crate) fn start_without_waiting(arguments: &[&str]) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), reserved_address().port());
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Self { directory, port, arguments, server: None };
        redis.spawn();
        redis
    }

    /// Starts it with what it had on disk.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
        self.await_ready();
    }

    fn spawn(&mut self) {
        let (port, directory) = (self.port.to_string(), self.directory.path().to_str().unwrap().to_owned());
        let mut arguments = vec!["--port", &port, "--dir", &directory, "--bind", "127.0.0.1", "--save", ""];
        arguments.extend(self.arguments.iter().map(String::as_str));
        self.server = Some(Server::start("redis-server", &arguments));
    }

    fn await_ready(&self) {
        await_some("redis-server", || (self.try_ask(&["PING"])? == "+PONG\r\n").then_some(()));
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.server.as_ref().unwrap().signal(signal);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What it answers to a command, as it comes over the wire.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("an answer of redis-server")
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("*{}\r\n", command.len());
        command.iter().for_each(|part| request += &format!("${}\r\n{part}\r\n", part.len()));
        // Having answered this it ends the connection, so that the answer has an end.
        request += "*1\r\n$4\r\nQUIT\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.strip_suffix("+OK\r\n")?.to_owned())
    }
}

/// A cluster of three masters, made as its handbook says.
pub(crate) struct Cluster(pub(crate) Vec<Redis>);

impl Cluster {
    pub(crate) fn start() -> Self {
        let nodes: Vec<Redis> = (0..3)
            .map(|_| {
                let bus = reserved_address().port().to_string();
                let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
                Redis::start(&[&options[..], &["--appendonly", "yes", "--appendfsync", "always"]].concat())
            })
            .collect();
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(&addresses).arg("--cluster-yes");
        let made = create.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self(nodes);
        cluster.await_ok();
        cluster
    }

    pub(crate) fn await_ok(&self) {
        let is_ok = |node: &Redis| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        await_some("the cluster", || self.0.iter().all(is_ok).then_some(()));
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<String> = self.0.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }
}

/// Makes a certificate authority and a certificate of it for localhost: `ca.pem`, `cert.pem` and `key.pem`.
pub(crate) fn make_certificates(directory: &Path) {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let authority = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a test's authority"];
    run(&[&authority[..], &new_key].concat());
    std::fs::write(directory.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
    run(&[&["req", "-keyout", "key.pem", "-out", "request", "-subj", "/CN=localhost"][..], &new_key[..5]].concat());
    let signed = ["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    run(&[&signed[..], &["-out", "cert.pem", "-days", "2", "-extfile", "names"]].concat());
}

/// nginx with the configuration that is deployed, but for addresses and files.
pub(crate) struct Nginx {
    directory: TempDir,
    _server: Server,
    pub(crate) port: u16,
    /// Where it passes the HTTPS server through.
    pub(crate) passed_port: u16,
}

/// A test that fails shows why nginx did not pass a request on.
impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.directory.path().join("error")).unwrap_or_default());
        }
    }
}

impl Nginx {
    /// Starts it before the HTTP servers of two intakes and two summarizers, and the HTTPS server of an intake.
    pub(crate) fn start(intakes: [u16; 2], summarizers: [u16; 2], https: u16) -> Self {
        Self::start_with(intakes, summarizers, https, &[])
    }

    /// Starts it with some lines of its configuration replaced.
    pub(crate) fn start_with(
        intakes: [u16; 2],
        summarizers: [u16; 2],
        https: u16,
        replaced: &[(&'static str, &str)],
    ) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), reserved_address().port());
        make_certificates(directory.path());
        let folder = directory.path().to_str().unwrap();
        let [tls_port, passed_port] = [(); 2].map(|()| reserved_address().port());
        let mut config = include_str!("../../deploy/nginx.conf").to_owned();
        let replaced = replaced.iter().map(|(deployed, here)| (*deployed, (*here).to_owned()));
        let here = [
            ("listen 80;", format!("listen 127.0.0.1:{port};")),
            ("listen 443 ssl;", format!("listen 127.0.0.1:{tls_port} ssl;")),
            ("listen 8443;", format!("listen 127.0.0.1:{passed_port};")),
            ("/etc/nginx/lizm.pem", format!("{folder}/cert.pem")),
            ("/etc/nginx/lizm.key", format!("{folder}/key.pem")),
            ("intake-1:8080", format!("127.0.0.1:{}", intakes[0])),
            ("intake-2:8080", format!("127.0.0.1:{}", intakes[1])),
            ("summaries-1:8080", format!("127.0.0.1:{}", summarizers[0])),
            ("summaries-2:8080", format!("127.0.0.1:{}", summarizers[1])),
            ("intake-1:8443", format!("127.0.0.1:{https}")),
            ("intake-2:8443", format!("127.0.0.1:{https}")),
            ("http {", format!("http {{ client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;")),
        ];
        for (deployed, here) in here.into_iter().chain(replaced) {
            assert!(config.contains(deployed), "{deployed}");
            config = config.replace(deployed, &here);
        }
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        // Workers of a master would outlive it when it is killed.
        let global = format!("master_process off; daemon off; pid {folder}/pid; error_log {folder}/error;");
        let server = Server::start("nginx", &["-c", path.to_str().unwrap(), "-g", &global]);
        await_some("nginx", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { directory, _server: server, port, passed_port }
    }
}
