//! A load for the ways in that give no answer. `cargo bench -q --bench load -- udp ADDRESS RATE SECONDS` sends
//! datagrams of one line each, RATE a second, or as fast as it goes with 0; `… --features zeromq --bench load -- zmq
//! ENDPOINT COUNT` sends so many messages. Both print `sent N`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // cargo adds flags of its own, such as `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sent = match arguments[..] {
        ["udp", address, rate, seconds] => udp(address, rate, seconds),
        ["zmq", endpoint, count] => zmq(endpoint, count),
        // That is no failure: a `cargo bench` of everything comes by here too.
        [] => {
            eprintln!("load: give udp ADDRESS RATE SECONDS or zmq ENDPOINT COUNT");
            return ExitCode::SUCCESS;
        }
        _ => Err("takes udp ADDRESS RATE SECONDS or zmq ENDPOINT COUNT".to_owned()),
    };
    match sent {
        Ok(sent) => {
            println!("sent {sent}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Lines to send in turns, one of each host, measured now.
#[cfg(any(target_os = "linux", feature = "zeromq"))]
fn lines() -> Vec<String> {
    use std::time::{SystemTime, UNIX_EPOCH};

    const HOSTS: usize = 1000;

    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (0..HOSTS).map(|host| format!("perf,host=host-{host} cpu=4.98 {epoch}")).collect()
}

#[cfg(any(target_os = "linux", feature = "zeromq"))]
fn parsed<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{what}: {text:?} is not a number it can be"))
}

/// Sends datagrams for so many seconds, and says how many. What a pause of this process held back is made up for.
#[cfg(target_os = "linux")]
fn udp(address: &str, rate: &str, seconds: &str) -> Result<usize, String> {
    use std::io::IoSlice;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};

    /// Datagrams sent by one system call.
    const BATCH: usize = 64;
    /// How long the next datagrams are waited for: 31 of them at 125,000 a second.
    const PAUSE: Duration = Duration::from_micros(250);

    let (rate, seconds) = (parsed::<f64>("RATE", rate)?, parsed::<f64>("SECONDS", seconds)?);
    let socket = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(address).map(|()| socket));
    let socket = socket.map_err(|error| format!("{address}: {error}"))?;
    let lines = lines();
    let slices: Vec<_> = lines.iter().map(|line| [IoSlice::new(line.as_bytes())]).collect();
    // The socket is connected: no datagram has an address of its own.
    let (mut headers, addresses) = (MultiHeaders::<()>::preallocate(BATCH, None), [None; BATCH]);
    let (start, mut sent) = (Instant::now(), 0);
    loop {
        let elapsed = start.elapsed().as_secs_f64();
        if elapsed >= seconds {
            return Ok(sent);
        }
        let due = if rate > 0.0 { (rate * elapsed) as usize - sent } else { BATCH };
        if due == 0 {
            std::thread::sleep(PAUSE);
            continue;
        }
        let batch = slices[sent % slices.len()..].iter().take(due.min(BATCH));
        let taken = sendmmsg(socket.as_raw_fd(), &mut headers, batch, addresses, [], MsgFlags::empty());
        sent += taken.map_err(|error| format!("{address}: {error}"))?.count();
    }
}

#[cfg(not(target_os = "linux"))]
fn udp(_address: &str, _rate: &str, _seconds: &str) -> Result<usize, String> {
    Err("datagrams are sent on Linux alone, many by one system call".to_owned())
}

/// Sends so many messages; when this returns the kernel has taken them all.
#[cfg(feature = "zeromq")]
fn zmq(endpoint: &str, count: &str) -> Result<usize, String> {
    let count = parsed("COUNT", count)?;
    let push = || {
        let socket = zmq::Context::new().socket(zmq::PUSH)?;
        socket.connect(endpoint)?;
        // Each waits for room in the queue, and the end of the socket for the queue to be empty.
        lines().iter().cycle().take(count).try_for_each(|line| socket.send(line, 0))
    };
    push().map_err(|error| format!("{endpoint}: {error}"))?;
    Ok(count)
}

#[cfg(not(feature = "zeromq"))]
fn zmq(_endpoint: &str, _count: &str) -> Result<usize, String> {
    Err("this load was built without the feature zeromq; cargo bench --features zeromq --bench load has it".to_owned())
}
