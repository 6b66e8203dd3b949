//! Reads this host, and turns two readings into the values of a sample.
//!
//! A reading holds the counters and gauges as the system gives them; what it lacks or cannot read is absent, and said,
//! never a zero. Linux reads `/proc`; macOS asks `sysctl`, `vm_stat` and `iostat`, which has not been run on a Mac.
//! File systems and textfiles are read aside, so that one that hangs holds up nothing.

mod background;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the rules are tested everywhere, and used on Linux"))]
mod cgroup;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the parsers are tested everywhere, and used on Linux"))]
mod devices;
mod filesystem;
#[cfg(target_os = "linux")]
mod linux;
#[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "the parsers are tested everywhere, and run on a Mac"))]
mod macos;
#[cfg(target_os = "linux")]
mod proc_file;
mod selection;
mod textfile;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sample::Values;
use background::ANSWER_WITHIN;
use devices::Traffic;
use filesystem::Mount;
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;
use selection::Kind;
pub use selection::{PROBES_MAX, Probes, Scope};
use textfile::{Textfiles, Texts};

/// What to read, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to measure.
    pub probes: Probes,
    /// Whose processors and memory.
    pub scope: Scope,
    /// Where the proc file system is mounted.
    pub procfs: PathBuf,
    /// Where the root file system is mounted whose disks are measured.
    pub rootfs: PathBuf,
    /// Directory of files with numbers of people's own.
    pub textfile: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let (procfs, rootfs) = ("/proc".into(), "/".into());
        Self { probes: Probes::default(), scope: Scope::Host, procfs, rootfs, textfile: None }
    }
}

/// Time the processors spent since the system started, in a unit of the system's own, summed over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct CpuTimes {
    /// The parts that count as busy. On Linux user, nice, system, irq, softirq and steal; guest time is within user.
    busy: [u64; 6],
    /// The parts that do not: idle and, where there is such a thing, waiting for I/O.
    idle: [u64; 2],
}

impl CpuTimes {
    /// What was spent after `before`. A counter that went backwards, as iowait may and all do when a processor is
    /// taken away, counts as zero.
    fn since(&self, before: &Self) -> Self {
        let mut passed = *self;
        passed.busy.iter_mut().zip(before.busy).for_each(|(now, before)| *now = now.saturating_sub(before));
        passed.idle.iter_mut().zip(before.idle).for_each(|(now, before)| *now = now.saturating_sub(before));
        passed
    }

    fn total(&self) -> u64 {
        self.busy.iter().chain(&self.idle).fold(0, |sum, part| sum.saturating_add(*part))
    }
}

/// What processors have done since some moment.
#[derive(Debug, Clone, PartialEq)]
enum Cpu {
    Machine(CpuTimes),
    Cgroup {
        used_usec: u64,
        /// How many processors' worth of time there may be in each second.
        processors: f64,
    },
}

/// Memory or swap in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    /// All of it.
    total_bytes: u64,
    /// What new work could have: of memory, without swapping.
    available_bytes: u64,
}

/// What the system said at one moment; what was not asked for or could not be read is absent.
#[derive(Debug, Default)]
pub struct Reading {
    /// On a clock that only rises.
    at: Duration,
    cpu: Option<Cpu>,
    times: Option<CpuTimes>,
    memory: Option<Memory>,
    swap: Option<Memory>,
    load1: Option<f64>,
    processes: Option<u64>,
    uptime_sec: Option<u64>,
    disks: Option<Vec<Traffic>>,
    interfaces: Option<Vec<Traffic>>,
    /// Used percent of each file system asked for.
    used: Vec<Option<f64>>,
    texts: Arc<Texts>,
    /// Why parts of it could not be read.
    pub problems: Vec<String>,
}

impl Reading {
    /// What was read, or nothing, with the reason among the problems.
    fn keep<T>(&mut self, read: Result<T, String>) -> Option<T> {
        read.map_err(|problem| self.problems.push(problem)).ok()
    }
}

/// Reads this host.
pub struct Probe {
    kinds: Vec<Kind>,
    system: system::System,
    /// A file system for each [`Kind::Disk`], in their order.
    mounts: Vec<Mount>,
    textfiles: Option<Textfiles>,
}

impl Probe {
    /// Makes ready what the options need. Nothing is read yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(options: &Options) -> std::io::Result<Self> {
        let kinds = options.probes.0.clone();
        let mounts = kinds.iter().filter_map(|kind| match kind {
            Kind::Disk(path) => Some(Mount::new(&options.rootfs, path.as_deref().unwrap_or("/"))),
            _ => None,
        });
        Ok(Self {
            mounts: mounts.collect::<std::io::Result<_>>()?,
            textfiles: options.textfile.as_deref().map(Textfiles::new).transpose()?,
            system: system::System::new(options),
            kinds,
        })
    }

    /// Reads this host now, at `at` on a clock that only rises. Waits a few milliseconds at most for file systems and
    /// textfiles that do not answer, and for nothing else.
    #[must_use]
    pub fn read(&mut self, at: Duration) -> Reading {
        let mut reading = Reading { at, ..Reading::default() };
        self.mounts.iter_mut().for_each(Mount::ask);
        self.textfiles.iter_mut().for_each(Textfiles::ask);
        self.system.read(&self.kinds, &mut reading);
        let until = Instant::now() + ANSWER_WITHIN;
        for mount in &mut self.mounts {
            let used = reading.keep(mount.answer(until));
            reading.used.push(used);
        }
        if let Some(textfiles) = &mut self.textfiles {
            reading.texts = reading.keep(textfiles.answer(until)).unwrap_or_default();
            reading.problems.extend(reading.texts.problems.iter().cloned());
        }
        reading
    }

    /// The values of the time between two readings, each where it is known: those of the probes in their order, and
    /// then those of textfiles.
    #[must_use]
    pub fn values(&self, before: &Reading, after: &Reading) -> Values<'static> {
        let mut values = Vec::with_capacity(self.kinds.len() + after.texts.values.len());
        let mut used = after.used.iter();
        for kind in &self.kinds {
            let mut give = |stem: &str, value: Option<f64>| {
                values.extend(value.map(|value| (kind.label(stem).into(), value)));
            };
            match kind {
                Kind::Cpu => give(
                    "cpu",
                    before.cpu.as_ref().zip(after.cpu.as_ref()).and_then(|(before_cpu, cpu)| {
                        busy_percent(before_cpu, cpu, after.at.saturating_sub(before.at))
                    }),
                ),
                Kind::Mem => give("mem", after.memory.as_ref().and_then(used_percent)),
                Kind::Swap => give("swap", after.swap.as_ref().and_then(used_percent)),
                Kind::Load => give("load1", after.load1),
                Kind::Disk(_) => give("disk", used.next().copied().flatten()),
                Kind::Io(device) => {
                    let [read, written] = rates(&before.disks, &after.disks, device, devices::is_disk, before, after);
                    give("disk-read", read);
                    give("disk-write", written);
                }
                Kind::Net(device) => {
                    let [received, sent] =
                        rates(&before.interfaces, &after.interfaces, device, devices::is_interface, before, after);
                    give("net-in", received);
                    give("net-out", sent);
                }
                #[expect(clippy::cast_precision_loss, reason = "no system has 2^53 processes")]
                Kind::Processes => give("processes", after.processes.map(|count| count as f64)),
                #[expect(clippy::cast_precision_loss, reason = "no system runs for 2^53 seconds")]
                Kind::Uptime => give("uptime", after.uptime_sec.map(|sec| sec as f64)),
                Kind::CpuParts => {
                    let passed = before.times.zip(after.times).map(|(before, after)| after.since(&before));
                    for (stem, part) in cpu_parts(passed) {
                        give(stem, part);
                    }
                }
            }
        }
        values.extend(after.texts.values.iter().map(|(label, value)| (label.clone().into(), *value)));
        values
    }
}

/// Share of what processors could have done that they did; `None` where no time went by.
fn busy_percent(before: &Cpu, after: &Cpu, elapsed: Duration) -> Option<f64> {
    match (before, after) {
        (Cpu::Machine(before), Cpu::Machine(after)) => {
            let passed = after.since(before);
            percent(passed.busy.iter().fold(0, |sum, part| sum.saturating_add(*part)), passed.total())
        }
        (Cpu::Cgroup { used_usec: before, .. }, Cpu::Cgroup { used_usec: after, processors }) => {
            let used_sec = Duration::from_micros(after.checked_sub(*before)?).as_secs_f64();
            let share = used_sec / (elapsed.as_secs_f64() * processors);
            share.is_finite().then(|| one_decimal(share * 100.0))
        }
        _ => None,
    }
}

/// What busy time is made of, and the wait for I/O, in percent.
fn cpu_parts(passed: Option<CpuTimes>) -> [(&'static str, Option<f64>); 4] {
    let share = |part: fn(&CpuTimes) -> u64| passed.as_ref().and_then(|passed| percent(part(passed), passed.total()));
    [
        ("cpu-user", share(|passed| passed.busy[0].saturating_add(passed.busy[1]))),
        ("cpu-system", share(|passed| passed.busy[2..5].iter().fold(0, |sum, part| sum.saturating_add(*part)))),
        ("cpu-iowait", share(|passed| passed.idle[1])),
        ("cpu-steal", share(|passed| passed.busy[5])),
    ]
}

/// Bytes a second both ways: of one device, or of all that `counts` accepts.
fn rates(
    devices_before: &Option<Vec<Traffic>>,
    devices_after: &Option<Vec<Traffic>>,
    device: &Option<String>,
    counts: fn(&str, &[Traffic]) -> bool,
    before: &Reading,
    after: &Reading,
) -> [Option<f64>; 2] {
    let (Some(devices_before), Some(devices_after)) = (devices_before, devices_after) else { return [None; 2] };
    let elapsed = after.at.saturating_sub(before.at);
    let rates = match device {
        Some(device) => devices::rates(devices_before, devices_after, elapsed, |name, _| name == device),
        None => devices::rates(devices_before, devices_after, elapsed, counts),
    };
    rates.map_or([None; 2], |rates| rates.map(Some))
}

fn used_percent(memory: &Memory) -> Option<f64> {
    percent(memory.total_bytes.saturating_sub(memory.available_bytes), memory.total_bytes)
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
mod tests {
    use super::*;

    fn values(probes: &str, before: &Reading, after: &Reading) -> Vec<(String, f64)> {
        let probe = Probe::new(&Options { probes: probes.parse().unwrap(), ..Options::default() }).unwrap();
        probe.values(before, after).into_iter().map(|(label, value)| (label.into_owned(), value)).collect()
    }

    fn cpu(busy: [u64; 6], idle: [u64; 2]) -> Reading {
        let times = CpuTimes { busy, idle };
        Reading { cpu: Some(Cpu::Machine(times)), times: Some(times), ..Reading::default() }
    }

    fn is(label: &str, value: f64) -> (String, f64) {
        (label.to_owned(), value)
    }

    #[test]
    fn cpu_is_everything_but_idle_and_waiting() {
        let before = cpu([100, 10, 50, 5, 5, 1], [1000, 100]);
        let after = cpu([130, 11, 60, 6, 6, 3], [1140, 115]);
        assert_eq!(values("cpu", &before, &after), [is("cpu", 22.5)]);
        let idle = cpu([100, 10, 50, 5, 5, 1], [1200, 100]);
        assert_eq!(values("cpu", &before, &idle), [is("cpu", 0.0)]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn parts_of_cpu_add_up_to_it_with_the_wait_for_io_beside() {
        let before = cpu([100, 10, 50, 5, 5, 1], [1000, 100]);
        let after = cpu([130, 11, 60, 6, 6, 3], [1140, 115]);
        let expected =
            [is("cpu", 22.5), is("cpu-user", 15.5), is("cpu-system", 6.0), is("cpu-iowait", 7.5), is("cpu-steal", 1.0)];
        assert_eq!(values("cpu,cpu-parts", &before, &after), expected);
        assert!(values("cpu-parts", &before, &before).is_empty());
    }

    #[test]
    fn counters_that_go_backwards_count_as_zero() {
        let before = cpu([100, 10, 50, 5, 5, 1], [1000, 100]);
        let waited_less = cpu([150, 10, 50, 5, 5, 1], [1050, 40]);
        assert_eq!(values("cpu", &before, &waited_less), [is("cpu", 50.0)]);
        let one_processor_less = cpu([60, 5, 25, 2, 2, 0], [500, 50]);
        assert!(values("cpu", &before, &one_processor_less).is_empty(), "no time went by, and that is not 0 percent");
        assert!(values("cpu", &before, &before).is_empty());
        let most = cpu([u64::MAX; 6], [u64::MAX; 2]);
        assert_eq!(values("cpu", &before, &most), [is("cpu", 100.0)]);
    }

    #[test]
    fn cpu_of_a_cgroup_is_against_what_it_may_use() {
        let read = |at_sec, used_usec, processors| Reading {
            at: Duration::from_secs(at_sec),
            cpu: Some(Cpu::Cgroup { used_usec, processors }),
            ..Reading::default()
        };
        let before = read(10, 1_000_000, 4.0);
        assert_eq!(values("cpu", &before, &read(12, 1_500_000, 0.5)), [is("cpu", 50.0)]);
        assert_eq!(values("cpu", &before, &read(12, 1_500_000, 4.0)), [is("cpu", 6.3)]);
        assert!(values("cpu", &before, &read(12, 900_000, 4.0)).is_empty(), "it is another cgroup");
        assert!(values("cpu", &before, &read(10, 1_500_000, 4.0)).is_empty(), "no time went by");
        assert!(values("cpu", &before, &read(12, 1_000_000, 0.0)).is_empty());
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let mem = |total_bytes, available_bytes| {
            let memory = Some(Memory { total_bytes, available_bytes });
            let reading = Reading { memory, swap: memory, ..Reading::default() };
            values("mem", &reading, &reading)
        };
        assert_eq!(mem(1000, 649), [is("mem", 35.1)]);
        assert_eq!(mem(1000, 2000), [is("mem", 0.0)]);
        assert!(mem(0, 0).is_empty());
    }

    #[test]
    fn values_of_textfiles_come_after_those_of_probes() {
        let texts = Texts { values: vec![("queue".to_owned(), 7.0)], problems: Vec::new() };
        let reading = Reading { load1: Some(0.5), used: vec![None], texts: Arc::new(texts), ..Reading::default() };
        assert_eq!(values("load,disk", &reading, &reading), [is("load1", 0.5), is("queue", 7.0)]);
    }
}
