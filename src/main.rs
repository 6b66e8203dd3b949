//! The program: it reads the command line, wires the modules of the library for each command, and decides the exit code.

mod alerts_command;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator;
mod check;
mod export;
mod forget;
mod logging;
mod options;
#[cfg(feature = "tls")]
mod token_command;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "disk")]
use lizm::clock::unix_now_sec;
use lizm::monitor::{self, Destination, Monitor};
use lizm::probe::{self, Probes, Reading};
use lizm::receiver::{self, Receiver};
use lizm::sanitize::{self, MESSAGE_CHARS_MAX, visible};
use lizm::sd_notify;
#[cfg(feature = "disk")]
use lizm::store;
use lizm::units::unit_of;
use lizm::watch;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use options::{Command, Parsed};

/// Exit codes: 0 done, 1 failed, 2 wrong usage.
fn main() -> ExitCode {
    let Parsed { command, logging, warnings } = match options::parse() {
        Ok(parsed) => parsed,
        Err(usage) => {
            complain(&usage);
            return ExitCode::from(2);
        }
    };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if matches!(command, Command::Receiver(_) | Command::Demo(_)) {
        allocator::reexec_with_malloc_tunables();
    }
    match logging {
        Some(logging) => {
            logging::start(logging);
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
        }
        None => warnings.iter().for_each(|warning| complain(warning)),
    }
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Writes an error or a warning to standard error. Names and answers of others may be part of it.
fn complain(why: &str) {
    eprintln!("lizm: {}", sanitize::message(why, MESSAGE_CHARS_MAX));
}

fn run(command: &Command) -> Result<(), String> {
    let io_failed = |error: io::Error| error.to_string();
    match command {
        Command::Print(text) => io::stdout().write_all(text.as_bytes()).map_err(io_failed),
        Command::Check(options) => {
            let result = sanitize::message(&check::check(options)?, MESSAGE_CHARS_MAX);
            writeln!(io::stdout(), "{result}").map_err(io_failed)
        }
        Command::Forget(options) => {
            let result = sanitize::message(&forget::forget(options)?, MESSAGE_CHARS_MAX);
            writeln!(io::stdout(), "{result}").map_err(io_failed)
        }
        Command::Alerts(asked) => alerts_command::run(asked, &mut io::stdout()).map_err(|mut mistakes| {
            let last = mistakes.pop().unwrap_or_default();
            mistakes.iter().for_each(|mistake| complain(mistake));
            last
        }),
        #[cfg(feature = "disk")]
        Command::Backup(directory, target) => {
            let result = store::backup(directory, target, unix_now_sec())?;
            writeln!(io::stdout(), "{result}").map_err(io_failed)
        }
        #[cfg(feature = "tls")]
        Command::Token(asked) => token_command::run(asked, &mut io::stdout()),
        Command::Watch(options) => watch::run(options),
        Command::Export(options) => export::export(options, &mut io::stdout().lock()),
        Command::Receiver(options) => {
            let signals = block_signals()?;
            let receiver = Receiver::start(options).map_err(io_failed)?;
            sd_notify::serving(|| receiver.liveness_error(), || wait_for_signal(signals))?;
            receiver.stop();
            Ok(())
        }
        Command::Monitor(options) => {
            let signals = block_signals()?;
            let monitor = Monitor::start(options).map_err(io_failed)?;
            sd_notify::serving(|| monitor.liveness_error(), || wait_for_signal(signals))?;
            monitor.stop();
            Ok(())
        }
        Command::Once(options, is_json) => once(options, *is_json),
        Command::Demo(options) => demo(&options.0, &options.1),
    }
}

/// How long after the timeout of programs `--once` ends whatever does not answer: a program that was killed is told of.
const ONCE_GRACE: Duration = Duration::from_secs(3);

/// Prints what the probes measure within a second, and on standard error what they lack. Waits for what answers slowly,
/// and says what has not.
fn once(options: &probe::Options, is_json: bool) -> Result<(), String> {
    let mut probes = Probes::new(options).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let _ = probes.read(start.elapsed());
    let reading = loop {
        thread::sleep(Duration::from_secs(1));
        let reading = probes.read(start.elapsed());
        if probes.pending().next().is_none() || start.elapsed() > options.exec.timeout + ONCE_GRACE {
            break reading;
        }
    };
    let Reading { values, problems, left_out } = reading;
    problems.iter().chain(&left_out).for_each(|why| complain(why));
    probes.pending().for_each(|name| complain(&format!("probe {name}: not all of it has answered")));
    let text = if is_json {
        let sample: BTreeMap<_, _> = values.into_iter().collect();
        serde_json::to_string_pretty(&sample).map_err(|error| error.to_string())? + "\n"
    } else {
        let unit = |label| unit_of(label).symbol();
        let line = |label, value| format!("{:30} {value} {}", visible(label), unit(label)).trim_end().to_owned() + "\n";
        values.iter().map(|(label, value)| line(label, value)).collect()
    };
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

/// Runs a receiver on loopback and a monitor of this machine. Where the port is taken, the receiver gets another.
fn demo(receiver: &receiver::Options, monitor: &monitor::Options) -> Result<(), String> {
    let signals = block_signals()?;
    let receiver = Receiver::start(receiver)
        .or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Receiver::start(&receiver::Options { port: 0, ..receiver.clone() }),
            _ => Err(error),
        })
        .map_err(|error| error.to_string())?;
    let address = receiver.address().ok_or("the demo has no HTTP server")?;
    let url = format!("http://{address}");
    let destination = Destination::parse(&url)?;
    log::info!("Open {url}/ in a browser; Ctrl+C ends the demo");
    let monitor = monitor::Options { destinations: vec![destination], ..monitor.clone() };
    let monitor = Monitor::start(&monitor).map_err(|error| error.to_string())?;
    wait_for_signal(signals)?;
    monitor.stop();
    receiver.stop();
    Ok(())
}

/// Blocks SIGTERM and SIGINT for [`wait_for_signal`], in this thread and those it starts, and raises the limit of
/// descriptors. The kernel drops a signal of PID 1 that is neither blocked nor handled.
fn block_signals() -> Result<SigSet, String> {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::warn!("The limit of descriptors could not be raised to {hard}: {error}");
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    Ok(signals)
}

fn wait_for_signal(signals: SigSet) -> Result<(), String> {
    let signal = signals.wait().map_err(|error| format!("cannot wait for signals: {error}"))?;
    log::info!("Stopping on {signal}");
    Ok(())
}
