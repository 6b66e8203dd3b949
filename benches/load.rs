//! Loads that wrk does not send. `cargo bench -q --bench load -- udp ADDRESS RATE SECONDS` sends datagrams of one line
//! each, RATE a second, or as fast as it goes with 0; `… --features zeromq --bench load -- zmq ENDPOINT COUNT` sends so
//! many messages. Both print `sent N`. `… -- posts ADDRESS CONNECTIONS RATE SECONDS` is a fleet: its connections post
//! in turns, RATE times a second together. It prints `sent N errors N p50 MS p99 MS`.

use std::process::ExitCode;

const USAGE: &str = "udp ADDRESS RATE SECONDS, zmq ENDPOINT COUNT or posts ADDRESS CONNECTIONS RATE SECONDS";

fn main() -> ExitCode {
    // cargo adds flags of its own, such as `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sent = match arguments[..] {
        ["udp", address, rate, seconds] => udp(address, rate, seconds).map(|sent| sent.to_string()),
        ["zmq", endpoint, count] => zmq(endpoint, count).map(|sent| sent.to_string()),
        ["posts", address, connections, rate, seconds] => posts(address, connections, rate, seconds),
        // That is no failure: a `cargo bench` of everything comes by here too.
        [] => {
            eprintln!("load: give {USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(format!("takes {USAGE}")),
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

/// Posts over so many connections in turns, at so many posts a second. The time of an answer counts from the moment that its post was
/// due, so that what holds the load up is not left out.
#[cfg(all(target_os = "linux", feature = "builtin"))]
fn posts(address: &str, connections: &str, rate: &str, seconds: &str) -> Result<String, String> {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use rustix::event::Timespec;
    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

    /// Answers that are read before the next posts are sent.
    const EVENTS_MAX: usize = 256;

    struct Client {
        stream: TcpStream,
        /// When the post was due that is not answered yet.
        due: Option<Instant>,
    }

    let (count, seconds) = (parsed::<usize>("CONNECTIONS", connections)?, parsed::<usize>("SECONDS", seconds)?);
    let rate = parsed::<u32>("RATE", rate)?.max(1);
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let client = |key: usize| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&epoll, &stream, EventData::new_u64(key as u64), EventFlags::IN)?;
        Ok(Client { stream, due: None })
    };
    let clients = (0..count).map(client).collect::<std::io::Result<Vec<_>>>();
    let mut clients = clients.map_err(failed)?;
    let (start, period, total) = (Instant::now(), Duration::from_secs(1) / rate, rate as usize * seconds);
    let (mut sent, mut errors, mut times) = (0, 0, Vec::with_capacity(total));
    let mut answer = [0; 1024];
    while times.len() + errors < total {
        let due = |sent: usize| start + period * u32::try_from(sent).unwrap_or(u32::MAX);
        while sent < total && due(sent) <= Instant::now() {
            let key = sent % count;
            let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let head =
                format!("POST /api/perf/host-{key}/{epoch} HTTP/1.1\r\nHost: bench\r\nContent-Length: 12\r\n\r\n");
            let written = clients[key].stream.write(format!("{head}{{\"cpu\":4.98}}").as_bytes());
            if written.is_err() || clients[key].due.replace(due(sent)).is_some() {
                // It was refused, or the one before it has no answer yet.
                errors += 1;
            }
            sent += 1;
        }
        if start.elapsed().as_secs() > seconds as u64 + 10 {
            errors = total - times.len();
            break;
        }
        let mut found = [const { std::mem::MaybeUninit::uninit() }; EVENTS_MAX];
        let within = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let (found, _) = epoll::wait(&epoll, &mut found[..], Some(&within)).map_err(|error| failed(error.into()))?;
        for key in found.iter().map(|event: &Event| event.data.u64() as usize) {
            match clients[key].stream.read(&mut answer) {
                Ok(read) if answer[..read].starts_with(b"HTTP/1.1 20") => {
                    times.extend(clients[key].due.take().map(|due| due.elapsed()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => {
                    errors += 1;
                    clients[key].due = None;
                    epoll::delete(&epoll, &clients[key].stream).map_err(|error| failed(error.into()))?;
                }
            }
        }
    }
    times.sort_unstable();
    let ms = |percent: usize| times.get(times.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    Ok(format!("{sent} errors {errors} p50 {:.3} p99 {:.3}", ms(50), ms(99)))
}

#[cfg(not(all(target_os = "linux", feature = "builtin")))]
fn posts(_address: &str, _connections: &str, _rate: &str, _seconds: &str) -> Result<String, String> {
    Err("a fleet needs Linux, and the feature builtin".to_owned())
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
