//! A program that is told: no shell, its input on standard input, and an end for all that it starts.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::http::Attempt;
use super::{Outcome, Reason};

/// Longest time that a program has.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked at.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Most bytes that are kept of what it prints.
const OUTPUT_BYTES_MAX: usize = 4096;

/// Runs a program with `input` on its standard input, in a process group of its own, which is killed after `timeout`.
/// What exits 0 was told.
pub(super) fn run(program: &str, arguments: &[String], input: &[u8]) -> Attempt {
    match run_within(program, arguments, input, TIMEOUT) {
        Ok(said) => Attempt { said: format!("exit 0 {said}").trim_end().to_owned(), outcome: Outcome::Delivered },
        Err((why, may_have)) => {
            let outcome =
                Outcome::Later { why: why.clone(), reason: Reason::Unanswered, retry_after_ms: None, may_have };
            Attempt { said: why, outcome }
        }
    }
}

/// What a program printed that has exited 0; else why not, and whether it may have done its work all the same.
fn run_within(program: &str, arguments: &[String], input: &[u8], timeout: Duration) -> Result<String, (String, bool)> {
    let failed = |error: io::Error| (format!("{program} cannot be run: {error}"), false);
    let (mut output, its_output) = io::pipe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::piped());
    command.stdout(its_output.try_clone().map_err(failed)?).stderr(its_output);
    let mut child = command.spawn().map_err(failed)?;
    // The command holds the ends that the program writes to.
    drop(command);
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let mut stdin = child.stdin.take();
    let mut kept = Vec::new();
    let mut rest = input;
    let _ = stdin.iter().try_for_each(set_nonblocking).and_then(|()| set_nonblocking(&output));
    let deadline = Instant::now() + timeout;
    let status = loop {
        if let Some(pipe) = &mut stdin {
            match pipe.write(rest) {
                Ok(written) if written < rest.len() => rest = &rest[written..],
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // All is written, or the program reads no more.
                Ok(_) | Err(_) => stdin = None,
            }
        }
        drain(&mut output, &mut kept);
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL_EVERY),
            Ok(None) | Err(_) => break None,
        }
    };
    drain(&mut output, &mut kept);
    let said = String::from_utf8_lossy(&kept).trim().to_owned();
    let Some(status) = status else {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
        return Err((format!("{program} was killed after {} seconds: {said}", timeout.as_secs_f32()), true));
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(said),
        (Some(code), _) => Err((format!("{program} has exited {code}: {said}"), false)),
        (None, signal) => Err((format!("{program} was ended by signal {}: {said}", signal.unwrap_or_default()), true)),
    }
}

fn set_nonblocking(pipe: impl AsFd) -> io::Result<()> {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what is there, but not for ever, and keeps its beginning.
fn drain(output: &mut PipeReader, kept: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        let Ok(read @ 1..) = output.read(&mut buffer) else { return };
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}
