//! A service manager's view: the tests hold the socket that systemd would, and hear what it is told.

use std::io::{ErrorKind, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Process, Served, lizm, replace};

/// A tenth of a second between datagrams, as the watchdog wants it here.
const WATCHDOG_USEC: &str = "200000";

/// The socket of a service manager, and its name in the environment.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at(directory: &Path) -> Self {
        let path = directory.join("notify");
        Self::bound(UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap())
    }

    fn of(test: &str) -> Self {
        let name = format!("lizm-test-{}-{test}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::bound(UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"))
    }

    fn bound(socket: UnixDatagram, name: &str) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name: name.to_owned() }
    }

    fn manages(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.name).env("WATCHDOG_USEC", WATCHDOG_USEC);
    }

    fn hear(&self) -> String {
        let mut datagram = [0; 256];
        let length = self.socket.recv(&mut datagram).expect("a datagram");
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    /// Takes what has come, and asserts that nothing follows for five times of the watchdog.
    fn assert_silence(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 256]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let heard = self.socket.recv(&mut [0; 256]);
        assert!(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "nothing is told");
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

fn receiver_of(manager: &Manager) -> Served {
    let mut command = lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1"]);
    manager.manages(&mut command);
    Served::from(Process::start(command))
}

#[test]
fn a_receiver_notifies_that_it_serves_is_well_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    for manager in [Manager::at(directory.path()), Manager::of("serves")] {
        let receiver = receiver_of(&manager);
        assert_eq!(manager.hear(), "READY=1");
        assert_eq!(receiver.get("/health").0, 200);
        (0..10).for_each(|_| assert_eq!(manager.hear(), "WATCHDOG=1"));
        assert!(receiver.process.stop(Signal::SIGTERM).0.success());
        let last = std::iter::from_fn(|| Some(manager.hear())).find(|heard| heard != "WATCHDOG=1");
        assert_eq!(last.as_deref(), Some("STOPPING=1"));
    }
}

#[test]
fn a_monitor_notifies_of_its_ticks_and_not_of_the_time() {
    let (root, manager) = (tempfile::tempdir().unwrap(), Manager::of("ticks"));
    // Nobody is there to publish to, which is no reason for another monitor.
    let mut monitor = lizm(&["monitor", "--host", "h", "--publish", "http://127.0.0.1:9", "--interval", "2"]);
    monitor.args(["--procfs", root.path().to_str().unwrap()]);
    manager.manages(&mut monitor);
    let stat = root.path().join("stat");
    replace(&root.path().join("meminfo"), include_str!("../procfs/round-numbers/meminfo"));
    replace(&stat, include_str!("../procfs/round-numbers/stat"));
    let monitor = Process::start(monitor);
    assert_eq!(manager.hear(), "READY=1");
    (0..30).for_each(|_| assert_eq!(manager.hear(), "WATCHDOG=1"));
    // Who opens a FIFO waits for one who writes: so does the next tick.
    std::fs::remove_file(&stat).unwrap();
    assert!(Command::new("mkfifo").arg(&stat).status().unwrap().success());
    let line = monitor.line_with("ERROR: The watchdog is not notified");
    assert!(line.contains("the reading of this host has stood still"), "{line}");
    manager.assert_silence();
    // One who writes lets the tick go on; the next one finds a file.
    let mut fifo = std::fs::OpenOptions::new().write(true).open(&stat).unwrap();
    replace(&stat, include_str!("../procfs/round-numbers/stat"));
    fifo.write_all(include_bytes!("../procfs/round-numbers/stat")).unwrap();
    drop(fifo);
    assert_eq!(manager.hear(), "WATCHDOG=1");
    assert!(monitor.stop(Signal::SIGTERM).0.success());
}

#[test]
fn without_a_manager_that_can_be_notified_it_serves_all_the_same() {
    for (socket, said) in [("vsock:2:1", Some("cannot be notified")), ("/nowhere/notify", None)] {
        let mut command = lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1"]);
        command.env("NOTIFY_SOCKET", socket);
        let receiver = Served::from(Process::start(command));
        assert_eq!(receiver.get("/health").0, 200);
        let line = receiver.process.line_with("WARNING: The service manager");
        assert!(line.contains(said.unwrap_or("could not be notified of READY=1")), "{line}");
        assert!(receiver.process.stop(Signal::SIGTERM).0.success());
    }
}

/// The process that a manager has started is the one that serves, by its number and its name.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_receiver_is_started_again_with_an_allocator_that_keeps_less() {
    let receiver = Served::start(&[]);
    let of_process = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", receiver.process.pid())).unwrap();
    let processors = std::thread::available_parallelism().unwrap().get().max(2);
    // glibc takes the variable apart where it stands: each tunable in it ends there.
    let environment = of_process("environ");
    let arenas = format!("GLIBC_TUNABLES=glibc.malloc.arena_max={processors}");
    assert!(environment.split('\0').any(|variable| variable == arenas), "{environment}");
    assert!(of_process("cmdline").split('\0').nth(1) == Some("receiver"), "{}", of_process("cmdline"));
    let binary = lizm(&[]).get_program().to_owned();
    let name = std::path::Path::new(&binary).file_name().unwrap().to_str().unwrap();
    assert_eq!(of_process("comm").trim(), name);
}
