//! `cpu`: busy time of the processors in percent, by the first line of `/proc/stat`. With `--scope cgroup`, processor
//! time that the monitor's cgroup used, in percent of what it may use.
//!
//! Busy is everything but idle and waiting for I/O. Guest time is within user time.

use std::time::Duration;

use super::cgroup::{Cgroup, CpuUsage};
use super::proc_file::ProcFiles;
use super::{About, Label, Probe, Scope, Target, Tick, one_decimal, percent};

pub(super) const ABOUT: About = About {
    name: "cpu",
    target: Target::None,
    labels: &[Label { name: "cpu", unit: "%", what: "processor time that is neither idle nor waiting for I/O" }],
    source: "/proc/stat",
    is_default: true,
    new: |setup| match setup.options.scope {
        Scope::Host => Ok(Box::new(HostCpu { before: None })),
        Scope::Cgroup => Ok(Box::new(CgroupCpu { cgroup: Cgroup::find(&setup.options.procfs), before: None })),
    },
};

/// Time that all processors together spent since the system started, in ticks of the system's own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CpuTimes {
    /// Busy time: on Linux user, nice, system, irq, softirq and steal.
    pub(super) busy: [u64; 6],
    /// Idle time, but for `iowait`.
    pub(super) idle: u64,
    /// Idle time while I/O is under way, where the system counts it.
    pub(super) iowait: u64,
}

/// Time that processors spent between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuSpent {
    /// As in [`CpuTimes`].
    pub(super) busy: [u64; 6],
    /// As in [`CpuTimes`]; `None` where it went backwards.
    pub(super) iowait: Option<u64>,
    /// Busy and idle.
    pub(super) total: u64,
}

impl CpuTimes {
    /// The times of all processors together: the first line of `/proc/stat`.
    pub(super) fn read(files: &mut ProcFiles) -> Result<Self, String> {
        let times = files.text("stat")?.lines().next().and_then(|line| Self::parse(line.strip_prefix("cpu ")?));
        times.ok_or_else(|| files.wrong("stat", "its first line is not of the processors' times"))
    }

    /// Parses the columns of a line. Old kernels have fewer of them.
    pub(super) fn parse(columns: &str) -> Option<Self> {
        let columns: Vec<u64> =
            columns.split_ascii_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
        let [user, nice, system, idle, ref rest @ ..] = columns[..] else { return None };
        let rest = |n: usize| rest.get(n).copied().unwrap_or(0);
        let [iowait, irq, softirq, steal] = [0, 1, 2, 3].map(rest);
        Some(Self { busy: [user, nice, system, irq, softirq, steal], idle, iowait })
    }

    /// Time spent after `before`; `None` where a counter went backwards, as after a suspend.
    ///
    /// `iowait` may go backwards by itself: the present idle time of a processor counts as `iowait` while I/O is under
    /// way, and as `idle` as soon as it is done. The sum of both only rises.
    pub(super) fn since(&self, before: &Self) -> Option<CpuSpent> {
        let mut busy = self.busy;
        for (spent, before) in busy.iter_mut().zip(before.busy) {
            *spent = spent.checked_sub(before)?;
        }
        let all_idle = |times: &Self| times.idle.checked_add(times.iowait);
        let idle = all_idle(self)?.checked_sub(all_idle(before)?)?;
        let total = busy.iter().try_fold(idle, |sum, part| sum.checked_add(*part))?;
        Some(CpuSpent { busy, iowait: self.iowait.checked_sub(before.iowait), total })
    }
}

impl CpuSpent {
    /// Busy time in percent of all time.
    pub(super) fn busy_percent(&self) -> Option<f64> {
        percent(self.busy.iter().sum(), self.total)
    }
}

struct HostCpu {
    before: Option<CpuTimes>,
}

impl Probe for HostCpu {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let times = CpuTimes::read(tick.files);
        let times = tick.ok(times);
        let before = std::mem::replace(&mut self.before, times);
        let spent = before.zip(times).and_then(|(before, times)| times.since(&before));
        tick.give("cpu", None, spent.and_then(|spent| spent.busy_percent()));
    }
}

struct CgroupCpu {
    cgroup: Result<Cgroup, String>,
    /// Time of the reading before, and the processor time used until then.
    before: Option<(Duration, Duration)>,
}

impl Probe for CgroupCpu {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let usage = self.cgroup.as_ref().map_err(Clone::clone).and_then(|cgroup| cgroup.cpu(tick.files));
        let usage = tick.ok(usage);
        let now = usage.as_ref().map(|usage| (tick.at, usage.used));
        let before = std::mem::replace(&mut self.before, now);
        tick.give("cpu", None, before.zip(usage).and_then(|(before, usage)| cgroup_percent(before, tick.at, &usage)));
    }
}

/// Processor time used since `before`, in percent of what the cgroup could have used.
fn cgroup_percent((at_before, used_before): (Duration, Duration), at: Duration, usage: &CpuUsage) -> Option<f64> {
    let used = usage.used.checked_sub(used_before)?;
    let could = at.checked_sub(at_before)?.as_secs_f64() * usage.processors;
    (could > 0.0).then(|| one_decimal(used.as_secs_f64() / could * 100.0))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};
    use super::*;

    const ZERO: CpuTimes = CpuTimes { busy: [0; 6], idle: 0, iowait: 0 };

    #[test]
    fn busy_is_everything_but_idle_and_iowait() {
        let before = CpuTimes { busy: [100, 10, 50, 5, 5, 1], idle: 1000, iowait: 100 };
        let after = CpuTimes { busy: [130, 11, 60, 6, 6, 3], idle: 1140, iowait: 115 };
        assert_eq!(after.since(&before).unwrap().busy_percent(), Some(22.5));
        assert_eq!(CpuTimes { idle: 1200, ..before }.since(&before).unwrap().busy_percent(), Some(0.0));
        assert_eq!(before.since(&before).unwrap().busy_percent(), None, "no time went by");
    }

    #[test]
    fn a_counter_that_goes_backwards_is_no_sample() {
        let before = CpuTimes { busy: [100, 10, 50, 5, 5, 1], idle: 1000, iowait: 100 };
        for n in 0..6 {
            let mut after = CpuTimes { idle: 1100, ..before };
            after.busy[n] -= 1;
            assert_eq!(after.since(&before), None, "busy time {n}");
        }
        assert_eq!(CpuTimes { busy: [200; 6], idle: 999, ..before }.since(&before), None);
        assert_eq!(CpuTimes { idle: u64::MAX, ..before }.since(&ZERO), None, "more than there can be");
        let io_is_done = CpuTimes { busy: [150, 10, 50, 5, 5, 1], idle: 1090, iowait: 60 };
        let spent = CpuSpent { busy: [50, 0, 0, 0, 0, 0], iowait: None, total: 100 };
        assert_eq!(io_is_done.since(&before), Some(spent), "idle time that counted as iowait before");
    }

    #[test]
    fn only_the_first_line_of_stat_matters() {
        let rests = ["", "btime x\n", "cpu0 a\nprocs_blocked 18446744073709551615\n", "intr \u{fffd}\n"];
        for rest in rests {
            let stat = |line: &str| format!("cpu  {line}\n{rest}");
            let mut host = Host::new("cpu", &[("stat", &stat("10 0 10 100"))]);
            assert_eq!(host.values(&[]), []);
            assert_eq!(host.values(&[("stat", &stat("30 0 10 160"))]), [is("cpu", 25.0)], "{rest:?}");
        }
        for wrong in ["", "cpu", "cpu  1 2 3", "cpu0 1 2 3 4", "cpu  1 2 x 4", "cpu  1 2 3 4 -5"] {
            let problems = Host::new("cpu", &[("stat", wrong)]).read(&[]).problems;
            assert!(problems[0].ends_with("stat: its first line is not of the processors' times"), "{problems:?}");
        }
    }

    #[test]
    fn a_cgroup_is_measured_against_what_it_may_use() {
        let at = Duration::from_secs;
        let usage = |used_ms, processors| CpuUsage { used: Duration::from_millis(used_ms), processors };
        let before = (at(10), Duration::from_millis(1000));
        assert_eq!(cgroup_percent(before, at(12), &usage(1500, 0.5)), Some(50.0));
        assert_eq!(cgroup_percent(before, at(12), &usage(1500, 4.0)), Some(6.3));
        assert_eq!(cgroup_percent(before, at(12), &usage(900, 4.0)), None, "it is another cgroup");
        assert_eq!(cgroup_percent(before, at(10), &usage(1500, 4.0)), None, "no time went by");
        assert_eq!(cgroup_percent(before, at(12), &usage(1000, 0.0)), None);
    }
}
