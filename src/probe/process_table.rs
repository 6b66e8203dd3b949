//! One pass over the processes of `/proc` for `procs` and `top`, on a thread of its own: the files of a process whose
//! memory is locked may hang.
//!
//! `/proc/PID/stat` has the processor time of a process, and that of its children that ended and were waited for. What
//! of it the last pass had not seen of them was used since, and counts for the command that ended, or else for the one
//! that waited: a build's thousand short compilers are seen this way. Children of one who ignores `SIGCHLD` leave
//! nothing. Format: `proc_pid_stat(5)`,
//! `proc_pid_statm(5)`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::background::BackgroundPass;
use super::cpu::CpuTimes;
use super::disk::is_like;
use super::percent;

/// Past so many processes a pass is made every [`PASS_EVERY`] alone.
const PROCESSES_MANY: usize = 2000;
const PASS_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of a command line that patterns see.
const COMMAND_LINE_BYTES_MAX: u64 = 4096;
/// Longest name that the kernel keeps of a command.
const COMM_BYTES: usize = 15;
/// The flag of the kernel's own threads (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What processes use together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Usage {
    /// How many there are; what has ended and was not waited for is none.
    pub(super) count: u32,
    /// Ticks of processor time since the pass before.
    pub(super) cpu_ticks: u64,
    /// Memory that is resident; what processes share counts for each.
    pub(super) mem_bytes: u64,
}

/// What a pass has found.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// For each pattern the processes that are like it.
    pub(super) patterns: Vec<Usage>,
    /// By the name of the command, in which numbers of the kernel's threads are left out.
    pub(super) commands: HashMap<String, Usage>,
    /// Ticks of all processors since the pass before.
    pub(super) all_ticks: Option<u64>,
    /// How many there are.
    pub(super) processes: usize,
}

impl Pass {
    /// Processor time in percent of all processors', as `cpu` is.
    pub(super) fn cpu_percent(&self, usage: &Usage) -> Option<f64> {
        percent(usage.cpu_ticks, self.all_ticks?)
    }
}

/// The processes, as the last pass has found them.
#[derive(Default)]
pub(super) struct ProcessTable {
    patterns: Vec<String>,
    pass: Option<BackgroundPass<Pass>>,
}

impl ProcessTable {
    /// Adds a pattern, and returns its index in [`Pass::patterns`].
    pub(super) fn add(&mut self, pattern: String) -> usize {
        self.patterns.push(pattern);
        self.patterns.len() - 1
    }

    /// Starts the thread, once all patterns are known.
    pub(super) fn start(&mut self, procfs: &Path) -> io::Result<()> {
        let mut scanner = Scanner::new(procfs.to_owned(), self.patterns.clone());
        self.pass = Some(BackgroundPass::start("processes", move |_| scanner.pass())?);
        Ok(())
    }

    /// Starts the pass of this tick, if one is due.
    pub(super) fn ask(&mut self, at: Duration) {
        let Some(pass) = &mut self.pass else { return };
        let is_many = matches!(pass.last(), Some(Ok(last)) if last.processes > PROCESSES_MANY);
        pass.ask(at, if is_many { PASS_EVERY } else { Duration::ZERO });
    }

    /// Whether there are no rates yet.
    pub(super) fn is_pending(&self) -> bool {
        let has_rates = |last: &Result<Arc<Pass>, String>| last.as_ref().map_or(true, |pass| pass.all_ticks.is_some());
        self.pass.as_ref().is_some_and(|pass| !pass.last().is_some_and(has_rates))
    }

    /// What the last pass has found; `None` where no pass has ended yet.
    pub(super) fn pass(&mut self, at: Duration, until: Instant) -> Result<Option<Arc<Pass>>, String> {
        self.pass.as_mut().map_or(Ok(None), |pass| pass.answer(at, until))
    }
}

/// One process, as a pass found it.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    /// When it started: with its number that tells it from others.
    start: u64,
    parent: u32,
    name: String,
    is_kernels: bool,
    is_zombie: bool,
    /// Ticks of its own processor time, and of its children that were waited for.
    own_ticks: u64,
    children_ticks: u64,
    pages: u64,
    /// Of each pattern a bit, whether it is like it.
    is_like: u64,
}

/// Parses `/proc/PID/stat`. The name may have any characters.
fn parse(stat: &str) -> Option<Process> {
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // The children's are signed, and may be -1 in old kernels.
    let children = |index: usize| fields.get(index)?.parse::<i64>().ok().map(|ticks| u64::try_from(ticks).unwrap_or(0));
    Some(Process {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        is_kernels: number(6)? & KERNEL_THREAD != 0,
        own_ticks: number(11)?.saturating_add(number(12)?),
        children_ticks: children(13)?.saturating_add(children(14)?),
        start: number(19)?,
        pages: children(21)?,
        name: name.to_owned(),
        is_like: 0,
    })
}

/// What passes keep from one to the next.
struct Scanner {
    procfs: PathBuf,
    patterns: Vec<String>,
    page_bytes: u64,
    before: HashMap<u32, Process>,
    times_before: Option<CpuTimes>,
    buffer: Vec<u8>,
}

impl Scanner {
    fn new(procfs: PathBuf, patterns: Vec<String>) -> Self {
        let (before, buffer) = (HashMap::new(), Vec::new());
        Self { procfs, patterns, page_bytes: procfs::page_size(), before, times_before: None, buffer }
    }

    fn pass(&mut self) -> Result<Pass, String> {
        let now = self.read_all().map_err(|error| format!("cannot read {}: {error}", self.procfs.display()))?;
        let stat = fs::read_to_string(self.procfs.join("stat")).unwrap_or_default();
        let times = stat.lines().next().and_then(|line| CpuTimes::parse(line.strip_prefix("cpu ")?));
        let before = std::mem::replace(&mut self.times_before, times);
        let all_ticks = times.zip(before).and_then(|(times, before)| times.since(&before)).map(|spent| spent.total);
        let mut pass = Pass { patterns: vec![Usage::default(); self.patterns.len()], ..Pass::default() };
        (pass.all_ticks, pass.processes) = (all_ticks, now.len());
        for process in now.values() {
            pass.add(process, |usage| {
                usage.count += u32::from(!process.is_zombie);
                usage.mem_bytes = usage.mem_bytes.saturating_add(process.pages.saturating_mul(self.page_bytes));
            });
        }
        if !self.before.is_empty() {
            spend(&self.before, &now, all_ticks.unwrap_or(0), &mut pass);
        }
        self.before = now;
        Ok(pass)
    }

    fn read_all(&mut self) -> io::Result<HashMap<u32, Process>> {
        let mut now = HashMap::with_capacity(self.before.len());
        for entry in fs::read_dir(&self.procfs)? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            match self.read(pid) {
                Ok(Some(process)) => drop(now.insert(pid, process)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(hidden()),
                // It has ended since.
                Ok(None) | Err(_) => {}
            }
        }
        // Every PID namespace has a process 1.
        if now.contains_key(&1) { Ok(now) } else { Err(hidden()) }
    }

    fn read(&mut self, pid: u32) -> io::Result<Option<Process>> {
        let directory = self.procfs.join(pid.to_string());
        self.buffer.clear();
        File::open(directory.join("stat"))?.take(COMMAND_LINE_BYTES_MAX).read_to_end(&mut self.buffer)?;
        let Some(mut process) = parse(&String::from_utf8_lossy(&self.buffer)) else { return Ok(None) };
        // The number of `stat` lags behind by some pages a processor.
        self.buffer.clear();
        let statm = File::open(directory.join("statm")).and_then(|mut file| file.read_to_end(&mut self.buffer));
        let resident = || std::str::from_utf8(&self.buffer).ok()?.split(' ').nth(1)?.parse().ok();
        process.pages = statm.ok().and_then(|_| resident()).unwrap_or(process.pages);
        let known = self.before.get(&pid).filter(|known| known.start == process.start && known.name == process.name);
        process.is_like = match known {
            Some(known) => known.is_like,
            None if self.patterns.is_empty() => 0,
            None => {
                self.buffer.clear();
                let file = File::open(directory.join("cmdline"))?;
                file.take(COMMAND_LINE_BYTES_MAX).read_to_end(&mut self.buffer)?;
                likeness(&self.patterns, &process.name, &String::from_utf8_lossy(&self.buffer))
            }
        };
        Ok(Some(process))
    }
}

fn hidden() -> io::Error {
    io::Error::other("processes of other users are hidden, as by the mount option hidepid")
}

/// Of each pattern a bit, whether a name or a command line is like it. Where the kernel has cut the name, the whole one
/// of the program counts too.
fn likeness(patterns: &[String], name: &str, command_line: &str) -> u64 {
    let line = command_line.trim_end_matches('\0').replace('\0', " ");
    let program = command_line.split('\0').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let program = if name.len() == COMM_BYTES && program.starts_with(name) { program } else { name };
    let is_like = |pattern: &String| is_like(pattern, name) || is_like(pattern, program) || is_like(pattern, &line);
    patterns.iter().take(64).enumerate().fold(0, |bits, (n, pattern)| bits | (u64::from(is_like(pattern)) << n))
}

/// The name of a command as a label has it: of the kernel's threads without numbers, as of `kworker/0:1-events`.
fn command_name(process: &Process) -> String {
    let name = if process.is_kernels { process.name.split('/').next().unwrap_or_default() } else { &process.name };
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.is_empty() { "?".to_owned() } else { name }
}

impl Pass {
    /// Changes the usage of the patterns and of the command of a process.
    fn add(&mut self, process: &Process, mut change: impl FnMut(&mut Usage)) {
        let is_like = |n: usize| n < 64 && process.is_like >> n & 1 == 1;
        self.patterns.iter_mut().enumerate().filter(|(n, _)| is_like(*n)).for_each(|(_, usage)| change(usage));
        change(self.commands.entry(command_name(process)).or_default());
    }
}

/// Counts the processor time that was spent since the pass before.
fn spend(before: &HashMap<u32, Process>, now: &HashMap<u32, Process>, all_ticks: u64, pass: &mut Pass) {
    let lives = |pid: u32| now.get(&pid).zip(before.get(&pid)).is_some_and(|(now, then)| now.start == then.start);
    // Of each process that lives, what its descendants that ended had used when the last pass saw them, and one of them;
    // `None` where they were different commands.
    let mut ended: HashMap<u32, (u64, Option<&Process>)> = HashMap::new();
    for (pid, process) in before.iter().filter(|(pid, _)| !lives(**pid)) {
        let mut parent = process.parent;
        // Numbers that were given again could lead in a circle.
        for _ in 0..64 {
            match before.get(&parent) {
                Some(up) if !lives(parent) && parent != *pid => parent = up.parent,
                _ => break,
            }
        }
        let (seen, known) = ended.entry(parent).or_insert((0, Some(process)));
        *seen = seen.saturating_add(process.own_ticks).saturating_add(process.children_ticks);
        *known = known.filter(|known| known.name == process.name);
    }
    for (pid, process) in now {
        let then = before.get(pid).filter(|then| then.start == process.start);
        let (own, children) = then.map_or((0, 0), |then| (then.own_ticks, then.children_ticks));
        let own = process.own_ticks.saturating_sub(own);
        pass.add(process, |usage| usage.cpu_ticks = usage.cpu_ticks.saturating_add(own));
        let children = process.children_ticks.saturating_sub(children);
        let (seen, known) = ended.get(pid).copied().unwrap_or_default();
        let rest = children.saturating_sub(seen);
        // A process that takes others' children, as init does, may be given the whole life of one.
        if rest > 0 && rest <= all_ticks {
            pass.add(known.unwrap_or(process), |usage| usage.cpu_ticks = usage.cpu_ticks.saturating_add(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, name: &str, parent: u32, own: u64, children: u64, start: u64) -> String {
        format!(
            "{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 {own} 0 {children} 0 20 0 1 0 {start} 9999 25 18446"
        )
    }

    /// A scanner over a root, of which each pass is a list of processes after 100 more ticks of two processors.
    struct Host(tempfile::TempDir, Scanner, u64);

    impl Host {
        fn new(patterns: &[&str]) -> Self {
            let root = tempfile::tempdir().unwrap();
            let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let scanner = Scanner { page_bytes: 4096, ..Scanner::new(root.path().to_owned(), patterns) };
            Self(root, scanner, 0)
        }

        fn pass(&mut self, processes: &[(u32, String, &str)]) -> Pass {
            for entry in fs::read_dir(self.0.path()).unwrap().flatten() {
                let _ = fs::remove_dir_all(entry.path());
            }
            self.2 += 200;
            fs::write(self.0.path().join("stat"), format!("cpu  {} 0 0 0\n", self.2)).unwrap();
            for (pid, stat, command_line) in processes {
                let directory = self.0.path().join(pid.to_string());
                fs::create_dir(&directory).unwrap();
                fs::write(directory.join("stat"), stat).unwrap();
                fs::write(directory.join("cmdline"), command_line.replace(' ', "\0")).unwrap();
            }
            self.1.pass().unwrap()
        }
    }

    fn cpu(pass: &Pass, command: &str) -> Option<f64> {
        pass.cpu_percent(&pass.commands[command])
    }

    #[test]
    fn a_name_may_have_spaces_and_brackets() {
        let parsed = parse("12 (a) b (c) R 3 1 1 0 -1 2129984 1 2 3 4 50 6 7 -1 20 0 1 0 888 9999 25 18446").unwrap();
        assert_eq!((&*parsed.name, parsed.parent, parsed.own_ticks, parsed.children_ticks), ("a) b (c", 3, 56, 7));
        assert_eq!((parsed.start, parsed.pages, parsed.is_kernels, parsed.is_zombie), (888, 25, true, false));
        for wrong in
            ["", "12", "12 (a", "12 (a)", "12 (a) R 3", ")(", "1 (a) R x 1 1 0 -1 0 1 2 3 4 5 6 7 8 9 9 9 9 9 9 9"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn processes_count_by_pattern_and_by_name() {
        let mut host = Host::new(&["nginx", "*nginx: worker*", "prometheus-node-exporter"]);
        let processes = |ticks: u64| {
            vec![
                (1, stat(1, "systemd", 0, 0, 0, 1), "/sbin/init"),
                (7, stat(7, "nginx", 1, ticks, 0, 70), "nginx: master"),
                (8, stat(8, "nginx", 7, 2 * ticks, 0, 70), "nginx: worker process"),
                (9, stat(9, "prometheus-node", 1, 0, 0, 70), "/usr/bin/prometheus-node-exporter --web"),
            ]
        };
        let first = host.pass(&processes(1000));
        assert_eq!(first.patterns.iter().map(|usage| usage.count).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!((first.patterns[0].mem_bytes, cpu(&first, "nginx")), (2 * 25 * 4096, None));
        let second = host.pass(&processes(1010));
        assert_eq!((cpu(&second, "nginx"), cpu(&second, "systemd")), (Some(15.0), Some(0.0)));
        assert_eq!(second.cpu_percent(&second.patterns[1]), Some(10.0));
        // The same number is another process now.
        let mut other = processes(1010);
        other[1].1 = stat(7, "nginx", 1, 4, 0, 71);
        assert_eq!(cpu(&host.pass(&other), "nginx"), Some(2.0));
    }

    #[test]
    fn what_has_ended_counts_as_far_as_its_parent_says() {
        let mut host = Host::new(&["cc1"]);
        let make = |children| (5, stat(5, "make", 1, 10, children, 50), "make");
        let init = || (1, stat(1, "init", 0, 0, 0, 1), "init");
        host.pass(&[init(), make(100), (6, stat(6, "cc1", 5, 30, 0, 60), "cc1")]);
        // It was seen with 30 ticks, and ended with 50.
        let pass = host.pass(&[init(), make(150)]);
        assert_eq!((cpu(&pass, "make"), pass.cpu_percent(&pass.patterns[0])), (Some(0.0), Some(10.0)));
        // Nobody has seen what used these.
        assert_eq!(cpu(&host.pass(&[init(), make(170)]), "make"), Some(10.0));
        // More than there was to use.
        assert_eq!(cpu(&host.pass(&[init(), make(1000)]), "make"), Some(0.0));
        assert_eq!(cpu(&host.pass(&[init(), make(0)]), "make"), Some(0.0));
    }

    #[test]
    fn past_many_processes_a_pass_is_made_every_five_seconds() {
        let root = tempfile::tempdir().unwrap();
        let directory = |pid: u32| root.path().join(pid.to_string());
        for pid in 1..=2001 {
            fs::create_dir(directory(pid)).unwrap();
            fs::write(directory(pid).join("stat"), stat(pid, "a", 1, 0, 0, 1)).unwrap();
        }
        let mut table = ProcessTable::default();
        table.start(root.path()).unwrap();
        let mut count = |sec| {
            let at = Duration::from_secs(sec);
            table.ask(at);
            table.pass(at, Instant::now() + Duration::from_secs(60)).unwrap().map(|pass| pass.processes)
        };
        assert_eq!(count(1), Some(2001));
        fs::remove_dir_all(directory(2001)).unwrap();
        assert_eq!([count(2), count(5), count(6)], [Some(2001), Some(2001), Some(2000)]);
        fs::remove_dir_all(directory(2000)).unwrap();
        assert_eq!(count(7), Some(1999), "they are not many any more");
    }

    #[test]
    fn names_of_the_kernels_threads_have_no_numbers_and_hidden_processes_are_an_error() {
        let mut host = Host::new(&[]);
        let worker = |pid| stat(pid, "kworker/0:1-ev", 2, 0, 0, 1).replace("4194560", "69238880");
        let pass = host.pass(&[(1, stat(1, "in\u{7}it", 0, 0, 0, 1), ""), (3, worker(3), ""), (4, worker(4), "")]);
        assert_eq!((pass.commands["kworker"].count, pass.commands["in?it"].count), (2, 1));
        fs::remove_dir_all(host.0.path().join("1")).unwrap();
        assert!(host.1.pass().unwrap_err().ends_with("hidden, as by the mount option hidepid"));
    }
}
