//! Reads this host, and turns two readings into the values of a sample.
//!
//! A reading holds the counters and gauges as the system gives them; what one system lacks is an error in its place,
//! never a zero. Linux reads `/proc`; macOS asks `sysctl`, `vm_stat` and `iostat`, which has not been run on a Mac.

use std::path::PathBuf;

use crate::sample::Values;

#[cfg(target_os = "linux")]
mod linux;
#[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "the parsers are tested everywhere, and run on a Mac"))]
mod macos;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;

/// Time the processors spent since the system started, in a unit of the system's own, summed over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// The parts that count as busy. On Linux user, nice, system, irq, softirq and steal; guest time is within user.
    pub busy: [u64; 6],
    /// The parts that do not: idle and, where there is such a thing, waiting for I/O.
    pub idle: [u64; 2],
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What new work could have without swapping.
    pub available_bytes: u64,
}

/// What the system said at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Time the processors spent, or why it could not be read.
    pub cpu: Result<CpuTimes, String>,
    /// Memory, or why it could not be read.
    pub memory: Result<Memory, String>,
}

impl Reading {
    /// Why parts of it could not be read.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        [self.cpu.as_ref().err(), self.memory.as_ref().err()].into_iter().flatten().map(String::as_str)
    }
}

/// Reads this host.
pub struct Probe(system::Probe);

impl Probe {
    /// A probe that reads `procfs` where the system has one.
    #[must_use]
    pub fn new(procfs: PathBuf) -> Self {
        Self(system::Probe::new(procfs))
    }

    /// Reads this host now, without waiting for anything.
    #[must_use]
    pub fn read(&self) -> Reading {
        self.0.read()
    }
}

/// The values of the time between two readings: `cpu` and `mem` in percent with one decimal, each where it is known.
#[must_use]
pub fn values(before: &Reading, after: &Reading) -> Values<'static> {
    let cpu = match (&before.cpu, &after.cpu) {
        (Ok(before), Ok(after)) => busy_percent(before, after),
        _ => None,
    };
    let mem = after.memory.as_ref().ok().and_then(used_percent);
    [("cpu", cpu), ("mem", mem)].into_iter().filter_map(|(label, value)| Some((label.into(), value?))).collect()
}

/// Share of the time between two readings that was busy; `None` where no time went by.
fn busy_percent(before: &CpuTimes, after: &CpuTimes) -> Option<f64> {
    // A counter that goes backwards, as iowait may and all do when a processor is taken away, counts as zero.
    fn passed(before: &[u64], after: &[u64]) -> u64 {
        before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).fold(0, u64::saturating_add)
    }
    let (busy, idle) = (passed(&before.busy, &after.busy), passed(&before.idle, &after.idle));
    percent(busy, busy.saturating_add(idle))
}

fn used_percent(memory: &Memory) -> Option<f64> {
    percent(memory.total_bytes.saturating_sub(memory.available_bytes), memory.total_bytes)
}

/// `part` of `whole` in percent with one decimal; `None` where there is no whole.
fn percent(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is kept of it")]
    let percent = part as f64 / whole as f64 * 100.0;
    (whole > 0).then(|| (percent * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(busy: [u64; 6], idle: [u64; 2]) -> Reading {
        Reading { cpu: Ok(CpuTimes { busy, idle }), memory: Err("not read".to_owned()) }
    }

    #[test]
    fn cpu_is_everything_but_idle_and_waiting() {
        let before = cpu([100, 10, 50, 5, 5, 1], [1000, 100]);
        let after = cpu([130, 11, 60, 6, 6, 3], [1140, 115]);
        assert_eq!(values(&before, &after), vec![("cpu".into(), 22.5)]);
        let idle = cpu([100, 10, 50, 5, 5, 1], [1200, 100]);
        assert_eq!(values(&before, &idle), vec![("cpu".into(), 0.0)]);
    }

    #[test]
    fn counters_that_go_backwards_count_as_zero() {
        let before = cpu([100, 10, 50, 5, 5, 1], [1000, 100]);
        let waited_less = cpu([150, 10, 50, 5, 5, 1], [1050, 40]);
        assert_eq!(values(&before, &waited_less), vec![("cpu".into(), 50.0)]);
        let one_processor_less = cpu([60, 5, 25, 2, 2, 0], [500, 50]);
        assert!(values(&before, &one_processor_less).is_empty(), "no time went by, and that is not 0 percent");
        assert!(values(&before, &before).is_empty());
        let most = cpu([u64::MAX; 6], [u64::MAX; 2]);
        assert_eq!(values(&before, &most), vec![("cpu".into(), 100.0)]);
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let read = |total_bytes, available_bytes| Reading {
            cpu: Err("not read".to_owned()),
            memory: Ok(Memory { total_bytes, available_bytes }),
        };
        let mem = |reading: Reading| values(&reading, &reading);
        assert_eq!(mem(read(1000, 649)), vec![("mem".into(), 35.1)]);
        assert_eq!(mem(read(1000, 2000)), vec![("mem".into(), 0.0)]);
        assert!(mem(read(0, 0)).is_empty());
    }
}
