//! `exec:NAME=PROGRAM` and `--exec DIR`: what programs print, lines of `label number` or the performance data of a
//! plugin of Nagios, with `NAME.status`, its exit code.
//!
//! A program runs in a process group of its own, which is killed whole when the program has ended or takes too long. It
//! never runs twice at a time: one that cannot be killed, because it waits for a dead disk, is not started again. It
//! sees no `LIZM_` variable, for these hold passwords. The tick takes what the last run gave, and waits for none.

mod output;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::background::BackgroundCall;
use super::{About, Label, Probe, Target, Tick};
use output::{Outcome, UNKNOWN, understand};

pub(super) const ABOUT: About = About {
    name: "exec",
    target: Target::Required("NAME=PROGRAM"),
    labels: &[Label { name: "NAME.status", unit: "", what: "exit code of a Nagios plugin; NAME.… are its figures" }],
    source: "what it prints",
    is_default: false,
    new: |setup| {
        let targets: Vec<String> = setup.targets.into_iter().flatten().collect();
        Ok(Box::new(Exec::new(&setup.options.exec, &targets, setup.is_of_a_probe)?))
    },
};

/// Most programs of a directory.
const PROGRAMS_MAX: usize = 32;
/// Most bytes that a program may print.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Longest name of a program in bytes: its labels have room for a name of their own.
const NAME_BYTES_MAX: usize = 64;
/// Most characters of what the log has of a program's standard error.
const STDERR_CHARS_MAX: usize = 200;
/// How often the log has it.
const STDERR_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Longest pause between two looks at a program that runs.
const POLL_LONGEST: Duration = Duration::from_millis(50);

/// Which programs are run, beside those of `exec:NAME=PROGRAM`, and when.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory of programs.
    pub directory: Option<PathBuf>,
    /// How often each runs.
    pub every: Duration,
    /// When one that still runs is killed.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { directory: None, every: Duration::from_secs(60), timeout: Duration::from_secs(10) }
    }
}

/// Checks the name of a program, which begins labels.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_of_a_name) {
        return Err(format!("the name is not of 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores"));
    }
    Ok(())
}

/// A program and its arguments.
#[derive(Debug, Clone)]
struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<String>,
}

/// What is known of a program.
#[derive(Default)]
struct State {
    is_running: bool,
    /// Its process group while it runs.
    group: Option<Pid>,
    /// What the last run gave; `None` before the first one has ended.
    outcome: Option<Outcome>,
    stderr_logged_at: Option<Instant>,
}

/// All programs by name. No lock is held while one is waited for.
struct Shared {
    states: Mutex<States>,
    timeout: Duration,
    /// Whether a label is one that some probe gives.
    is_of_a_probe: fn(&str) -> bool,
}

#[derive(Default)]
struct States {
    programs: BTreeMap<String, State>,
    is_stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state of a program, unless its file is gone.
    fn with<T>(&self, name: &str, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.lock().programs.get_mut(name).map(change)
    }
}

pub(super) struct Exec {
    every: Duration,
    /// Starts the programs. A directory may hang. It answers with what is wrong with the directory.
    call: BackgroundCall<Vec<String>>,
    asked_at: Option<Duration>,
    problems: Option<Vec<String>>,
    shared: Arc<Shared>,
}

impl Exec {
    /// Programs `NAME=PROGRAM`, and those of the directory.
    pub(super) fn new(options: &Options, targets: &[String], is_of_a_probe: fn(&str) -> bool) -> io::Result<Self> {
        let mut programs: Vec<Program> = Vec::new();
        for target in targets {
            let program = parse_program(target).ok_or(io::ErrorKind::InvalidInput)?;
            if programs.iter().any(|known| known.name == program.name) {
                return Err(io::Error::other(format!("probe exec:{}: two programs have this name", program.name)));
            }
            programs.push(program);
        }
        let shared = Arc::new(Shared { states: Mutex::default(), timeout: options.timeout, is_of_a_probe });
        let (directory, states) = (options.directory.clone(), shared.clone());
        let call = BackgroundCall::start("exec", move || {
            let (mut programs, mut problems) = (programs.clone(), Vec::new());
            if let Some(directory) = &directory {
                list(directory, &mut programs, &mut problems);
            }
            start_all(&programs, &states, &mut problems);
            problems
        })?;
        Ok(Self { every: options.every, call, asked_at: None, problems: None, shared })
    }
}

impl Drop for Exec {
    /// Kills what runs: nothing outlives the monitor.
    fn drop(&mut self) {
        let mut states = self.shared.lock();
        states.is_stopped = true;
        states.programs.values().filter_map(|state| state.group).for_each(kill);
    }
}

impl Probe for Exec {
    fn read(&mut self, tick: &mut Tick<'_>) {
        if let Some(problems) = self.call.poll() {
            self.problems = Some(problems);
        }
        if self.asked_at.is_none_or(|at| tick.at.saturating_sub(at) >= self.every) {
            if self.asked_at.is_some() && self.problems.is_none() {
                tick.report(None, "the directory of programs does not answer");
            }
            self.call.ask();
            self.asked_at = Some(tick.at);
        }
        self.problems.iter().flatten().for_each(|problem| tick.report(None, problem));
        for (name, state) in &self.shared.lock().programs {
            let Some(outcome) = &state.outcome else { continue };
            outcome.problem.iter().for_each(|problem| tick.report(Some(name), problem));
            for (label, value) in &outcome.values {
                if tick.reading.values.iter().any(|(known, _)| known == label) {
                    tick.report(Some(name), &format!("the label {label:?} is that of another program"));
                } else {
                    tick.reading.values.push((label.clone().into(), *value));
                }
            }
        }
    }

    fn is_pending(&self) -> bool {
        self.problems.is_none() && self.shared.lock().programs.is_empty()
            || self.shared.lock().programs.values().any(|state| state.outcome.is_none())
    }
}

/// Parses `NAME=PROGRAM ARGUMENT…`. There is no shell, and nothing quotes a space.
fn parse_program(text: &str) -> Option<Program> {
    let (name, command) = text.split_once('=')?;
    let mut words = command.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
    Some(Program { name: name.to_owned(), path: words.next()?.into(), arguments: words.collect() })
}

/// Adds the programs of a directory: its files that can be executed, each under its name up to a dot.
fn list(directory: &Path, programs: &mut Vec<Program>, problems: &mut Vec<String>) {
    let mut paths: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => return problems.push(format!("cannot read {}: {error}", directory.display())),
    };
    paths.sort_unstable();
    let mut count = 0;
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if file.starts_with('.') || !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            continue;
        }
        let name = file.split('.').next().unwrap_or_default().to_owned();
        count += 1;
        let why = if count > PROGRAMS_MAX {
            return problems.push(format!("{} has more than {PROGRAMS_MAX} programs", directory.display()));
        } else if metadata.permissions().mode() & 0o002 != 0 {
            "everybody can write it".to_owned()
        } else if programs.iter().any(|known| known.name == name) {
            "another program has its name".to_owned()
        } else if let Err(why) = check_name(&name) {
            why
        } else {
            programs.push(Program { name, path, arguments: Vec::new() });
            continue;
        };
        problems.push(format!("the program {file:?} is not run: {why}"));
    }
}

/// Starts the programs that do not run, and forgets those that are gone.
fn start_all(programs: &[Program], shared: &Arc<Shared>, problems: &mut Vec<String>) {
    let mut states = shared.lock();
    states.programs.retain(|name, state| state.is_running || programs.iter().any(|program| program.name == *name));
    for program in programs {
        let state = states.programs.entry(program.name.clone()).or_default();
        if state.is_running {
            continue;
        }
        state.is_running = true;
        let (shared, named) = (shared.clone(), program.clone());
        let run = move || {
            let _running = Running(&shared, &named.name);
            run(&named, &shared);
        };
        if let Err(error) = thread::Builder::new().name("program".to_owned()).spawn(run) {
            state.is_running = false;
            problems.push(format!("cannot start a thread for {}: {error}", program.name));
        }
    }
}

/// A program that runs, until this is dropped, by a panic too.
struct Running<'a>(&'a Shared, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.with(self.1, |state| state.is_running = false);
    }
}

/// Runs a program, and keeps what it gave.
fn run(program: &Program, shared: &Shared) {
    let keep = |outcome: Result<Outcome, String>| {
        shared.with(&program.name, |state| {
            let is_plugin = state.outcome.as_ref().is_some_and(|outcome| outcome.is_plugin);
            state.outcome = Some(outcome.unwrap_or_else(|problem| {
                let status = (format!("{}.status", program.name), f64::from(UNKNOWN));
                let values = is_plugin.then_some(status).into_iter().collect();
                Outcome { values, problem: Some(problem), is_plugin }
            }));
        })
    };
    let mut child = match start(program) {
        Ok(child) => child,
        Err(error) => {
            keep(Err(format!("cannot run {}: {error}", program.path.display())));
            return;
        }
    };
    #[expect(clippy::cast_possible_wrap, reason = "a process id is an i32 of the kernel's")]
    let group = Pid::from_raw(child.id() as i32);
    {
        let mut states = shared.lock();
        if states.is_stopped {
            kill(group);
        } else if let Some(state) = states.programs.get_mut(&program.name) {
            state.group = Some(group);
        }
    }
    let printed = watch(&mut child, group, shared.timeout);
    // The program is not waited for yet, so that its group has no other one's number.
    kill(group);
    shared.with(&program.name, |state| state.group = None);
    match printed {
        Ok((stdout, stderr)) => {
            let status = child.wait();
            keep(
                status
                    .map(|status| understand(&program.name, &stdout, status, shared.is_of_a_probe))
                    .map_err(|error| error.to_string()),
            );
            let is_due = |state: &mut State| {
                let is_due = state.stderr_logged_at.is_none_or(|at| at.elapsed() >= STDERR_LOGGED_EVERY);
                state.stderr_logged_at = if is_due { Some(Instant::now()) } else { state.stderr_logged_at };
                is_due
            };
            if !stderr.trim().is_empty() && shared.with(&program.name, is_due) == Some(true) {
                let text: String = stderr.trim().chars().take(STDERR_CHARS_MAX).collect();
                log::warn!("probe exec:{} wrote to standard error: {text}", program.name);
            }
        }
        Err(why) => {
            keep(Err(why));
            let _ = child.wait();
        }
    }
}

fn kill(group: Pid) {
    // It fails where the group has ended.
    let _ = killpg(group, Signal::SIGKILL);
}

/// Starts a program in a process group of its own.
fn start(program: &Program) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"LIZM_") || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    command.args(&program.arguments).env("LC_ALL", "C").process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let set = child.stdout.iter().map(AsFd::as_fd).chain(child.stderr.iter().map(AsFd::as_fd));
    if let Some(error) = set.map(|pipe| fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))).find_map(Result::err) {
        let _ = child.kill();
        return Err(error.into());
    }
    Ok(child)
}

/// What a program prints until it ends.
fn watch(child: &mut Child, group: Pid, timeout: Duration) -> Result<(String, String), String> {
    let deadline = Instant::now() + timeout;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut pause = Duration::from_millis(1);
    loop {
        // What it has printed before its end is in the pipes.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let has_ended = !matches!(waitid(Id::Pid(group), flags), Ok(WaitStatus::StillAlive));
        read(&mut child.stdout, &mut stdout)?;
        read(&mut child.stderr, &mut stderr)?;
        if has_ended {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Ok((text(&stdout), text(&stderr)));
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(format!("it did not end within {} s, and was killed", timeout.as_secs()));
        }
        thread::sleep(pause.min(rest));
        pause = (pause * 2).min(POLL_LONGEST);
    }
}

/// Reads what a pipe has.
fn read(pipe: &mut Option<impl Read>, printed: &mut Vec<u8>) -> Result<(), String> {
    let mut buffer = [0; 4096];
    while let Some(open) = pipe {
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(bytes) => printed.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if printed.len() > OUTPUT_BYTES_MAX {
            return Err(format!("it printed more than {OUTPUT_BYTES_MAX} bytes, the limit, and was killed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Host;
    use super::super::{Options as ProbeOptions, Reading};
    use super::*;

    /// A directory of scripts by their names.
    fn programs(scripts: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let path = root.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    fn host(directory: &Path, probes: &str, timeout: Duration) -> Host {
        let exec = Options { directory: Some(directory.to_owned()), every: Duration::from_secs(2), timeout };
        let options = ProbeOptions { probes: probes.parse().unwrap(), exec, ..ProbeOptions::default() };
        Host::with(options, &[("loadavg", "0.5 0 0 1/2 3\n")])
    }

    /// Reads until a condition holds, which may take as long as a slow machine takes.
    fn until(host: &mut Host, what: &str, condition: impl Fn(&Reading) -> bool) -> Reading {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let reading = host.read(&[]);
            if condition(&reading) {
                return reading;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {reading:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn programs_of_a_directory_and_of_the_list_are_run() {
        let root = programs(&[
            ("check_users.sh", "echo 'USERS WARNING - 7 users |users=7;5;10;0'; exit 1"),
            ("secret", "echo \"seen ${LIZM_PUBLISH:-0}\""),
            ("all", "echo x 1"),
            ("bad name", "echo y 1"),
        ]);
        fs::set_permissions(root.path().join("all"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(root.path().join("README"), "no program").unwrap();
        let mut host = host(root.path(), "load,exec:words=/bin/echo  two 2", Duration::from_secs(30));
        let reading = until(&mut host, "all values", |reading| reading.values.len() == 5);
        let values: Vec<(&str, f64)> = reading.values[1..].iter().map(|(label, value)| (&**label, *value)).collect();
        assert_eq!(values, [("check_users.status", 1.0), ("check_users.users", 7.0), ("seen", 0.0), ("two", 2.0)]);
        assert_eq!(reading.problems.len(), 2, "{reading:?}");
        assert_eq!(reading.problems[0], "probe exec: the program \"all\" is not run: everybody can write it");
        fs::remove_file(root.path().join("check_users.sh")).unwrap();
        until(&mut host, "one less", |reading| reading.values.len() == 3);
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_its_children_and_holds_nothing_up() {
        let root = programs(&[
            ("hangs", "echo $$ >> \"$0.pids\"; sleep 1000 & echo $! >> \"$0.pids\"; wait"),
            ("leaves", "sleep 1000 & echo $! > \"$0.pids\"; echo 'OK | a=1'"),
            ("floods", "exec yes"),
        ]);
        let mut host = host(root.path(), "load", Duration::from_secs(1));
        let reading = until(&mut host, "all to end", |reading| reading.problems.len() == 2);
        assert!(reading.problems[0].starts_with("probe exec:floods: it printed more than 65536 bytes"), "{reading:?}");
        assert_eq!(reading.problems[1], "probe exec:hangs: it did not end within 1 s, and was killed");
        let left: Vec<(&str, f64)> = reading.values[1..].iter().map(|(label, value)| (&**label, *value)).collect();
        assert_eq!(left, [("leaves.status", 0.0), ("leaves.a", 1.0)]);
        drop(host);
        for name in ["hangs.pids", "leaves.pids"] {
            let pids = fs::read_to_string(root.path().join(name)).unwrap();
            for pid in pids.split_whitespace() {
                // Nobody may have waited for it yet.
                let is_gone =
                    || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
                let deadline = Instant::now() + Duration::from_secs(30);
                while !is_gone() {
                    assert!(Instant::now() < deadline, "{pid} of {name} still runs");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    #[test]
    fn one_never_runs_twice_at_a_time_and_what_cannot_start_is_named() {
        let root =
            programs(&[("slow", "mkdir \"$0.lock\" || echo twice 1; sleep 0.2; rmdir \"$0.lock\"; echo slow 1")]);
        let mut host = host(root.path(), "exec:gone=/nonexistent/program", Duration::from_secs(30));
        let reading = until(&mut host, "both", |reading| !reading.values.is_empty() && !reading.problems.is_empty());
        assert!(reading.problems[0].starts_with("probe exec:gone: cannot run /nonexistent/program: "), "{reading:?}");
        for _ in 0..50 {
            assert_eq!(host.read(&[]).values, [("slow".into(), 1.0)], "each reading is two seconds later");
            thread::sleep(Duration::from_millis(10));
        }
        let twice = ["exec:a=/bin/true x".to_owned(), "exec:a=/bin/false".to_owned()].map(|text| text[5..].to_owned());
        assert!(
            Exec::new(&Options::default(), &twice, |_| false)
                .is_err_and(|error| error.to_string().contains("two programs"))
        );
    }
}
