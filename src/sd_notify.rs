//! Notifies the service manager that the process serves, that it is well, and that it stops.
//!
//! systemd, and whatever speaks as it does, names a socket in `NOTIFY_SOCKET` and takes datagrams of `NAME=value` there,
//! as sd_notify(3) and sd_watchdog_enabled(3) say. Each datagram but the last follows a check of the process: a timer
//! alone would report a process that hangs as well. Without such a socket this module does nothing.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often a process that does not serve yet, or is not well, is checked again.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for a manager that has no room for a datagram: it must not hold up a stop.
const SEND_WITHIN: Duration = Duration::from_secs(2);

/// Runs `until`, which returns when the process is to stop. Meanwhile it notifies the service manager, if there is one:
/// when `liveness_error` returns nothing for the first time, and from then on twice in the watchdog's time as long as it
/// returns nothing. A liveness error is a sentence for the log.
pub fn serving<T>(liveness_error: impl Fn() -> Option<String> + Sync, until: impl FnOnce() -> T) -> T {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let Some(socket) = variable("NOTIFY_SOCKET") else { return until() };
    let manager = match Manager::open(&socket) {
        Ok(manager) => manager,
        Err(error) => {
            log::warn!("The service manager cannot be notified, NOTIFY_SOCKET {}: {error}", socket.display());
            return until();
        }
    };
    let watchdog = watchdog_of(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
    let (stop, stopped) = mpsc::channel();
    thread::scope(|scope| {
        let (manager, liveness_error) = (&manager, &liveness_error);
        let notify = move || manager.notify_while_serving(watchdog, liveness_error, &stopped);
        if let Err(error) = thread::Builder::new().name("notify".into()).spawn_scoped(scope, notify) {
            log::error!("The service manager cannot be notified: {error}");
        }
        let result = until();
        drop(stop);
        manager.notify("STOPPING=1");
        result
    })
}

/// The time within which the watchdog wants a notification from the process `pid`, if it wants any.
fn watchdog_of(usec: Option<OsString>, watched_pid: Option<OsString>, pid: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    // A child inherits the variables, which are not meant for it.
    let is_meant = watched_pid.is_none_or(|watched| number(watched) == Some(pid.into()));
    usec.and_then(number).filter(|usec| *usec > 0 && is_meant).map(Duration::from_micros)
}

/// The manager's socket.
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    fn open(socket: &OsStr) -> io::Result<Self> {
        let address = address_of(socket)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_WITHIN))?;
        Ok(Self { socket, address })
    }

    fn notify(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.address) {
            log::warn!("The service manager could not be notified of {state}: {error}");
        }
    }

    fn notify_while_serving(
        &self,
        watchdog: Option<Duration>,
        liveness_error: impl Fn() -> Option<String>,
        stopped: &mpsc::Receiver<()>,
    ) {
        let goes_on = |wait: Duration| stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
        while liveness_error().is_some() {
            if !goes_on(CHECK_EVERY) {
                return;
            }
        }
        self.notify("READY=1");
        let Some(half) = watchdog.map(|watchdog| watchdog / 2) else { return };
        let mut is_logged = false;
        loop {
            let error = liveness_error();
            let wait = if error.is_none() { half } else { CHECK_EVERY.min(half) };
            match &error {
                None => self.notify("WATCHDOG=1"),
                Some(error) if !is_logged => log::error!("The watchdog is not notified: {error}"),
                Some(_) => {}
            }
            is_logged = error.is_some();
            if !goes_on(wait) {
                return;
            }
        }
    }
}

/// A path, or the name of an abstract socket after an `@`.
fn address_of(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(socket),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path from / on nor an abstract name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let address = address_of(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(address.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        for bad in ["vsock:2:1234", "notify", &format!("/{}", "x".repeat(200)), &format!("@{}", "x".repeat(200))] {
            assert!(address_of(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_watchdog_wants_to_hear_of_one_process() {
        let watchdog = |usec: &str, pid: Option<&str>| watchdog_of(Some(usec.into()), pid.map(Into::into), 42);
        assert_eq!(watchdog("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(watchdog("30000000", Some("42")), Some(Duration::from_secs(30)));
        for (usec, pid) in [("30000000", Some("43")), ("30000000", Some("x")), ("0", None), ("-1", None), ("x", None)] {
            assert_eq!(watchdog(usec, pid), None, "{usec} {pid:?}");
        }
        assert_eq!(watchdog_of(None, None, 42), None);
    }
}
