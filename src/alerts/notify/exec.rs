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
    let colon = if said.is_empty() { "" } else { ": " };
    let Some(status) = status else {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
        return Err((format!("{program} was killed after {} seconds{colon}{said}", timeout.as_secs_f32()), true));
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(said),
        (Some(code), _) => Err((format!("{program} has exited {code}{colon}{said}"), false)),
        (None, signal) => {
            Err((format!("{program} was ended by signal {}{colon}{said}", signal.unwrap_or_default()), true))
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8]) -> Result<String, (String, bool)> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        run_within("/bin/sh", &arguments, input, Duration::from_secs(30))
    }

    #[test]
    fn a_program_has_all_of_its_input_and_says_how_it_went() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(
            shell("wc -c; echo b >&2", &input).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["1048576", "b"]
        );
        // One that reads nothing, and one that prints without an end before it does.
        assert_eq!(shell("exit 0", &input).unwrap(), "");
        assert_eq!(shell("head -c 1000000 /dev/zero | tr '\\0' y; cat >/dev/null", &input).unwrap().len(), 4096);
        assert_eq!(shell("echo no; exit 75", b"").unwrap_err(), ("/bin/sh has exited 75: no".to_owned(), false));
        assert_eq!(shell("kill -TERM $$", b"").unwrap_err().0, "/bin/sh was ended by signal 15");
        let missing = run_within("/nonexistent/program", &[], b"", Duration::from_secs(30)).unwrap_err();
        assert!(missing.0.starts_with("/nonexistent/program cannot be run: "), "{missing:?}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_all_that_it_started() {
        // The grandchild holds the pipe: it is closed when that is gone too.
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; yes", file.display());
        let why = run_within("/bin/sh", &["-c".to_owned(), script], b"", Duration::from_secs(1)).unwrap_err();
        assert!(why.0.starts_with("/bin/sh was killed after 1 seconds: y y") || why.0.contains('y'), "{why:?}");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let is_there = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("(sleep)") && !stat.contains(") Z ")
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while is_there() {
            assert!(Instant::now() < deadline, "the grandchild lives on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
