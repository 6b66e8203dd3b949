//! Reads this host. A probe measures one thing, and is one file of this folder.
//!
//! `table::PROBES` lists the probes that `--probes` selects from. Each file begins with its line of that table: the
//! name, the labels with their units, and the source. To add a probe, write its file and add it to the table.
//!
//! What a probe cannot read is left out of the sample and reported as a problem; it is never published as zero. Calls
//! that may hang, into file systems and directories of textfiles, run on threads of their own, so that a tick never
//! waits for them. Linux reads `/proc` and `/sys`; macOS runs `sysctl`, `vm_stat` and `iostat`, which has not been
//! tried on a Mac.

#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most probes measure Linux alone"))]

mod background;
mod cgroup;
mod containers;
mod cores;
mod cpu;
mod cpu_parts;
mod disk;
mod exec;
mod filesystem;
mod gpu;
mod inodes;
mod io;
mod lines;
mod load;
#[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "the parsers are tested on every system"))]
mod macos;
mod mem;
mod mounts;
mod net;
mod pressure;
mod proc_file;
mod process_table;
mod processes;
mod procs;
mod readonly;
mod selection;
mod swap;
mod table;
mod temp;
mod textfile;
mod top;
mod traffic;
mod units;
mod uptime;
mod zfs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sample::{LABELS_MAX, Values};
use background::ANSWER_WITHIN;
use exec::Exec;
pub use exec::Options as ExecOptions;
use filesystem::FileSystems;
use proc_file::ProcFiles;
use process_table::ProcessTable;
use selection::is_of_a_probe;
pub use selection::{Scope, Selection};
pub use table::{help, names};
use textfile::Textfiles;

/// What to read, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The probes that run.
    pub probes: Selection,
    /// Whose processors and memory `cpu` and `mem` measure.
    pub scope: Scope,
    /// Mount point of the proc file system.
    pub procfs: PathBuf,
    /// Mount point of the root file system below which the paths of `disk` begin.
    pub rootfs: PathBuf,
    /// Patterns of the paths of file systems that `disk` measures beside the root, with `*` and `?`.
    pub disks: Vec<String>,
    /// Directory of textfiles: files of labels and values that other programs write.
    pub textfile: Option<PathBuf>,
    /// Which programs are run, beside those of `exec:NAME=PROGRAM`, and when.
    pub exec: ExecOptions,
}

impl Default for Options {
    fn default() -> Self {
        let (procfs, rootfs) = ("/proc".into(), "/".into());
        let disks = vec!["*".to_owned()];
        let (probes, scope, exec) = (Selection::default(), Scope::Host, ExecOptions::default());
        Self { probes, scope, procfs, rootfs, disks, textfile: None, exec }
    }
}

impl Options {
    /// Mount point of sysfs: `sys` beside the proc file system, as `/sys` beside `/proc`.
    fn sysfs(&self) -> PathBuf {
        self.procfs.with_file_name("sys")
    }

    /// The file of the machine's mounts. In a mount of another namespace's `/proc` those are the first process's.
    fn mountinfo(&self) -> &'static str {
        if self.procfs != Path::new("/proc") && self.procfs.join("1/mountinfo").exists() {
            "1/mountinfo"
        } else {
            "self/mountinfo"
        }
    }
}

/// What one tick measured.
#[derive(Debug, Default, PartialEq)]
pub struct Reading {
    /// Labels and values: those of the probes in the order of their table, then those of textfiles.
    pub values: Values<'static>,
    /// Why values are missing, a sentence each that begins with the probe's name.
    pub problems: Vec<String>,
    /// What this system does not have, likewise. That is no problem.
    pub left_out: Vec<String>,
}

/// One probe: what it is called, and what it measures.
struct About {
    /// Its name in `--probes`.
    name: &'static str,
    /// What may follow a colon behind the name.
    target: Target,
    /// Its labels; where a target was selected, each is followed by a colon and the target.
    labels: &'static [Label],
    /// Where its values come from.
    source: &'static str,
    /// Whether it runs where `--probes` does not say otherwise.
    is_default: bool,
    /// Makes the probe.
    new: fn(Setup<'_>) -> std::io::Result<Box<dyn Probe>>,
}

/// What follows a colon behind the name of a probe, as the help calls it.
enum Target {
    None,
    /// The name may stand alone: `disk`, `disk:PATH`.
    Optional(&'static str),
    /// It may not: `procs:PATTERN`. Of `NAME=PROGRAM` labels have the part before the `=`.
    Required(&'static str),
}

impl Target {
    /// Whether the probe can be selected with such a target, or without one.
    fn allows(&self, target: Option<&str>) -> bool {
        match self {
            Self::None => target.is_none(),
            Self::Optional(_) => true,
            Self::Required(_) => target.is_some(),
        }
    }
}

/// One label of a probe.
struct Label {
    name: &'static str,
    /// The unit of its values; empty for numbers.
    unit: &'static str,
    /// What it is, for people.
    what: &'static str,
}

impl About {
    /// The forms of its name in `--probes`: `disk, disk:PATH`.
    fn forms(&self) -> String {
        match self.target {
            Target::None => self.name.to_owned(),
            Target::Optional(target) => format!("{0}, {0}:{target}", self.name),
            Target::Required(target) => format!("{}:{target}", self.name),
        }
    }
}

/// Memory or swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    /// All of it.
    total_bytes: u64,
    /// What new work could have: of memory, without swapping.
    available_bytes: u64,
}

impl Memory {
    fn used_percent(&self) -> Option<f64> {
        percent(self.total_bytes.saturating_sub(self.available_bytes), self.total_bytes)
    }
}

/// A probe of the selection, with all of the paths or devices that it was selected for.
trait Probe: Send {
    /// Starts the calls on other threads whose answers [`Self::read`] takes.
    fn ask(&mut self, _at: Duration) {}

    /// Measures, and adds values and problems to the reading.
    fn read(&mut self, tick: &mut Tick<'_>);

    /// Whether the first answer of something slow is still to come.
    fn is_pending(&self) -> bool {
        false
    }
}

/// What a probe is made of.
struct Setup<'a> {
    options: &'a Options,
    filesystems: &'a mut FileSystems,
    processes: &'a mut ProcessTable,
    /// Whether a label is one that some probe gives, which no program may.
    is_of_a_probe: fn(&str) -> bool,
    /// The paths or devices it is selected for; `None` is the probe's name alone.
    targets: Vec<Option<String>>,
}

/// What a probe works with during one tick.
struct Tick<'a> {
    /// Name of the running probe.
    probe: &'static str,
    /// Time of the tick, on a clock that only rises.
    at: Duration,
    /// Until when the tick waits for the answers of other threads.
    until: Instant,
    files: &'a mut ProcFiles,
    filesystems: &'a mut FileSystems,
    processes: &'a mut ProcessTable,
    reading: &'a mut Reading,
}

impl Tick<'_> {
    /// Adds a value, if it is known. `target` is the path or device behind the label's colon.
    fn give(&mut self, label: &'static str, target: Option<&str>, value: Option<f64>) {
        let Some(value) = value else { return };
        let label = target.map_or(label.into(), |target| format!("{label}:{target}").into());
        self.reading.values.push((label, value));
    }

    /// Reports why the probe, or its part for a `target`, has no value.
    fn report(&mut self, target: Option<&str>, why: &str) {
        let (probe, target) = (self.probe, target.map_or(String::new(), |target| format!(":{target}")));
        self.reading.problems.push(format!("probe {probe}{target}: {why}"));
    }

    /// Notes that this system does not have what the probe measures.
    fn leave_out(&mut self, why: &str) {
        self.reading.left_out.push(format!("probe {} is left out: {why}", self.probe));
    }

    /// The value of a result, or `None` with the error reported.
    fn ok<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.report(None, &why)).ok()
    }
}

/// The probes of a monitor.
pub struct Probes {
    probes: Vec<(&'static str, Box<dyn Probe>)>,
    files: ProcFiles,
    filesystems: FileSystems,
    processes: ProcessTable,
}

impl Probes {
    /// Makes ready what the options select. Nothing is measured yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(options: &Options) -> std::io::Result<Self> {
        let (mut filesystems, mut processes) = (FileSystems::new(options.rootfs.clone()), ProcessTable::default());
        let mut probes = Vec::new();
        for (about, targets) in options.probes.iter() {
            let (filesystems, processes) = (&mut filesystems, &mut processes);
            let targets = targets.cloned().collect();
            let setup = Setup { options, filesystems, processes, is_of_a_probe, targets };
            probes.push((about.name, (about.new)(setup)?));
        }
        if probes.iter().any(|(name, _)| is_of_processes(name)) {
            processes.start(&options.procfs)?;
        }
        if options.exec.directory.is_some() && !probes.iter().any(|(name, _)| *name == exec::ABOUT.name) {
            probes.push((exec::ABOUT.name, Box::new(Exec::new(&options.exec, &[], is_of_a_probe)?)));
        }
        if let Some(path) = &options.textfile {
            probes.push(("textfile", Box::new(Textfiles::new(path)?)));
        }
        Ok(Self { probes, files: ProcFiles::new(options.procfs.clone()), filesystems, processes })
    }

    /// The probes whose first answers, of what is slow as programs are, were still to come when this host was read last.
    pub fn pending(&self) -> impl Iterator<Item = &'static str> {
        let is_pending = move |(name, probe): &&(&'static str, Box<dyn Probe>)| {
            probe.is_pending() || is_of_processes(name) && self.processes.is_pending()
        };
        self.probes.iter().filter(is_pending).map(|(name, _)| *name)
    }

    /// Measures this host now. `at` is the time on a clock that only rises. Rates are between this call and the one
    /// before it, so that the first has none. Waits some 20 milliseconds at most for file systems and textfiles that
    /// do not answer.
    pub fn read(&mut self, at: Duration) -> Reading {
        let mut reading = Reading::default();
        self.files.begin_tick();
        self.filesystems.ask();
        self.processes.ask(at);
        self.probes.iter_mut().for_each(|(_, probe)| probe.ask(at));
        let until = Instant::now() + ANSWER_WITHIN;
        for (name, probe) in &mut self.probes {
            let (files, filesystems, processes) = (&mut self.files, &mut self.filesystems, &mut self.processes);
            probe.read(&mut Tick { probe: name, at, until, files, filesystems, processes, reading: &mut reading });
            if reading.values.len() > LABELS_MAX {
                reading.values.truncate(LABELS_MAX);
                reading.problems.push(format!("probe {name}: a sample has no room for more than {LABELS_MAX} values"));
            }
        }
        reading
    }
}

/// Whether a probe has its values from the pass over all processes.
fn is_of_processes(name: &str) -> bool {
    [procs::ABOUT.name, top::ABOUT.name].contains(&name)
}

/// `part` of `whole` in percent with one decimal; `None` where there is no whole.
fn percent(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is kept of it")]
    let percent = part as f64 / whole as f64 * 100.0;
    (whole > 0).then(|| one_decimal(percent))
}

fn one_decimal(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod testing {
    //! Probes over a proc root that a test writes.

    use super::*;
    use std::fs;

    /// A proc root in a directory of its own, and probes that read it.
    pub(super) struct Host {
        pub(super) root: tempfile::TempDir,
        probes: Probes,
        now: Duration,
    }

    impl Host {
        pub(super) fn new(probes: &str, files: &[(&str, &str)]) -> Self {
            Self::with(Options { probes: probes.parse().unwrap(), ..Options::default() }, files)
        }

        /// Probes with other options than the default ones; the proc root is the test's.
        pub(super) fn with(mut options: Options, files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            options.procfs = root.path().to_owned();
            write(&root, files);
            Self { probes: Probes::new(&options).unwrap(), root, now: Duration::ZERO }
        }

        /// Replaces files, and measures two seconds after the time before.
        pub(super) fn read(&mut self, files: &[(&str, &str)]) -> Reading {
            write(&self.root, files);
            self.now += Duration::from_secs(2);
            self.probes.read(self.now)
        }

        /// The values of [`Self::read`], where there is no problem.
        pub(super) fn values(&mut self, files: &[(&str, &str)]) -> Vec<(String, f64)> {
            let Reading { values, problems, .. } = self.read(files);
            assert_eq!(problems, [""; 0]);
            values.into_iter().map(|(label, value)| (label.into_owned(), value)).collect()
        }
    }

    fn write(root: &tempfile::TempDir, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    pub(super) fn is(label: &str, value: f64) -> (String, f64) {
        (label.to_owned(), value)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Host, is};
    use super::*;

    #[test]
    fn values_follow_the_table_and_those_of_textfiles_come_last() {
        let texts = tempfile::tempdir().unwrap();
        std::fs::write(texts.path().join("a.txt"), "queue 7\n").unwrap();
        let textfile = Some(texts.path().to_owned());
        let options = Options { probes: "uptime,load".parse().unwrap(), textfile, ..Options::default() };
        let mut host = Host::with(options, &[("loadavg", "0.5 0 0 1/2 3\n"), ("uptime", "12.9 1\n")]);
        assert_eq!(host.values(&[]), [is("load1", 0.5), is("uptime", 12.0), is("queue", 7.0)]);
    }

    #[test]
    fn a_probe_that_cannot_read_is_reported_by_its_name_and_the_others_go_on() {
        let mut host = Host::new("load,swap,uptime,io,net:eth0,processes", &[("loadavg", "1.5 0 0 1/2 3\n")]);
        let Reading { values, problems, .. } = host.read(&[]);
        assert_eq!(values, [("load1".into(), 1.5)]);
        let parts =
            ["swap: cannot read ", "io: cannot read ", "net: cannot read ", "processes: ", "uptime: cannot read "];
        assert_eq!(problems.len(), parts.len());
        let are_named = problems.iter().zip(parts).all(|(problem, part)| problem.starts_with(&format!("probe {part}")));
        assert!(are_named, "{problems:?}");
    }
}
