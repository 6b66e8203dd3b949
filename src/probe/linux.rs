//! Linux: the files of `/proc`; `stat` is parsed by the procfs crate.

use std::path::Path;
use std::thread;

use procfs::{ExplicitSystemInfo, FromBufReadSI, KernelStats};

use super::cgroup::Cgroup;
use super::devices::{Traffic, parse_diskstats, parse_net_dev};
use super::proc_file::{ProcFile, Processes};
use super::selection::Kind;
use super::{Cpu, CpuTimes, Memory, Options, Reading, Scope};

/// The files of one mount of the proc file system.
pub(super) struct System {
    stat: ProcFile,
    meminfo: ProcFile,
    loadavg: ProcFile,
    uptime: ProcFile,
    diskstats: ProcFile,
    /// Interfaces are those of a network namespace. In a mount of another one's `/proc` they are those of its first
    /// process, since `net` leads to this one's.
    net_dev: ProcFile,
    processes: Processes,
    /// What is read of one file, and then of the next.
    buffer: Vec<u8>,
    /// The cgroup of this process, where that is what is measured, and the processors it has without a quota.
    cgroup: Option<(Result<Cgroup, String>, usize)>,
}

impl System {
    pub(super) fn new(options: &Options) -> Self {
        let procfs = &options.procfs;
        let of_first = procfs.join("1/net/dev");
        let is_foreign = procfs != Path::new("/proc") && of_first.exists();
        let cgroup = (options.scope == Scope::Cgroup).then(|| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            (Cgroup::find(procfs), processors)
        });
        let file = |name: &str| ProcFile::new(procfs.join(name));
        Self {
            stat: file("stat"),
            meminfo: file("meminfo"),
            loadavg: file("loadavg"),
            uptime: file("uptime"),
            diskstats: file("diskstats"),
            net_dev: if is_foreign { ProcFile::new(of_first) } else { file("net/dev") },
            processes: Processes::new(procfs.clone()),
            buffer: Vec::new(),
            cgroup,
        }
    }

    /// Reads the files that the probes need, each once.
    pub(super) fn read(&mut self, kinds: &[Kind], reading: &mut Reading) {
        let has = |kind: Kind| kinds.contains(&kind);
        let buffer = &mut self.buffer;
        if has(Kind::CpuParts) || has(Kind::Cpu) && self.cgroup.is_none() {
            reading.times = reading.keep(read_cpu(&mut self.stat, buffer));
        }
        if has(Kind::Cpu) {
            reading.cpu = match &self.cgroup {
                None => reading.times.map(Cpu::Machine),
                Some((Ok(cgroup), processors)) => reading.keep(cgroup.cpu(*processors)),
                Some((Err(problem), _)) => reading.keep(Err(problem.clone())),
            };
        }
        if has(Kind::Mem) || has(Kind::Swap) {
            let text = reading.keep(self.meminfo.read_text(buffer));
            let meminfo = text.map(|text| Meminfo { text, file: &self.meminfo });
            if let Some(meminfo) = meminfo.as_ref().filter(|_| has(Kind::Mem)) {
                reading.memory = match &self.cgroup {
                    None => reading.keep(meminfo.memory()),
                    Some((Ok(cgroup), _)) => {
                        let total_bytes = meminfo.needed("MemTotal");
                        reading.keep(total_bytes.and_then(|total_bytes| cgroup.memory(total_bytes)))
                    }
                    Some((Err(problem), _)) => reading.keep(Err(problem.clone())),
                };
            }
            if let Some(meminfo) = meminfo.filter(|_| has(Kind::Swap)) {
                reading.swap = reading.keep(meminfo.swap());
            }
        }
        if has(Kind::Load) {
            reading.load1 = reading.keep(first_number(&mut self.loadavg, buffer));
        }
        if has(Kind::Uptime) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds are kept of it")]
            let whole_sec = |sec: f64| sec as u64;
            reading.uptime_sec = reading.keep(first_number(&mut self.uptime, buffer)).map(whole_sec);
        }
        if has(Kind::Processes) {
            reading.processes = reading.keep(self.processes.count());
        }
        if kinds.iter().any(|kind| matches!(kind, Kind::Io(_))) {
            reading.disks = reading.keep(read_traffic(&mut self.diskstats, buffer, parse_diskstats));
        }
        if kinds.iter().any(|kind| matches!(kind, Kind::Net(_))) {
            reading.interfaces = reading.keep(read_traffic(&mut self.net_dev, buffer, parse_net_dev));
        }
        tell_missing(kinds, reading);
    }
}

/// Says which devices that were asked for by name are not there.
fn tell_missing(kinds: &[Kind], reading: &mut Reading) {
    for kind in kinds {
        let (what, name, found) = match kind {
            Kind::Io(Some(name)) => ("block device", name, &reading.disks),
            Kind::Net(Some(name)) => ("network interface", name, &reading.interfaces),
            _ => continue,
        };
        if found.as_ref().is_some_and(|found| !found.iter().any(|device| device.name == **name)) {
            reading.problems.push(format!("there is no {what} {name:?}"));
        }
    }
}

fn read_cpu(file: &mut ProcFile, buffer: &mut Vec<u8>) -> Result<CpuTimes, String> {
    // Ratios of ticks are all that is used, so their length does not matter.
    let system =
        ExplicitSystemInfo { boot_time_secs: 0, ticks_per_second: 100, page_size: 4096, is_little_endian: true };
    let stat = KernelStats::from_buf_read(file.read(buffer)?, &system);
    let total = stat.map_err(|error| file.wrong(&error.to_string()))?.total;
    let known = |ticks: Option<u64>| ticks.unwrap_or(0);
    Ok(CpuTimes {
        busy: [total.user, total.nice, total.system, known(total.irq), known(total.softirq), known(total.steal)],
        idle: [total.idle, known(total.iowait)],
    })
}

/// The number that a file begins with.
fn first_number(file: &mut ProcFile, buffer: &mut Vec<u8>) -> Result<f64, String> {
    let text = file.read_text(buffer)?;
    let number = text.split_ascii_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    let number = number.filter(|number| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| file.wrong("it begins with no number"))
}

/// `/proc/meminfo`. The fields that are used are read by name: the procfs crate wants others too, which the `/proc` of
/// some sandboxes lacks.
struct Meminfo<'a> {
    text: &'a str,
    file: &'a ProcFile,
}

impl Meminfo<'_> {
    /// The bytes of a field, if there is one of the name.
    fn field(&self, name: &str) -> Result<Option<u64>, String> {
        let is_named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let Some(line) = self.text.lines().find(is_named) else { return Ok(None) };
        let kilobytes = line[name.len() + 1..].trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
        kilobytes
            .map(|kilobytes| Some(kilobytes.saturating_mul(1024)))
            .ok_or_else(|| self.file.wrong(&format!("{name} is no number of kB")))
    }

    fn needed(&self, name: &str) -> Result<u64, String> {
        self.field(name)?.ok_or_else(|| self.file.wrong(&format!("it has no {name}")))
    }

    fn memory(&self) -> Result<Memory, String> {
        let total_bytes = self.needed("MemTotal")?;
        let available_bytes = match self.field("MemAvailable")? {
            Some(available_bytes) => available_bytes,
            // Before Linux 3.14: what `free` of procps 3.3.9 counts as free with its caches.
            None => {
                let [buffers, cached, reclaimable, shared] =
                    [self.field("Buffers")?, self.field("Cached")?, self.field("SReclaimable")?, self.field("Shmem")?]
                        .map(|bytes| bytes.unwrap_or(0));
                let with_caches =
                    [self.needed("MemFree")?, buffers, cached, reclaimable].into_iter().fold(0, u64::saturating_add);
                with_caches.saturating_sub(shared)
            }
        };
        Ok(Memory { total_bytes, available_bytes: available_bytes.min(total_bytes) })
    }

    /// Swap. A machine without any has a total of 0; where it is not told of there is none either.
    fn swap(&self) -> Result<Memory, String> {
        let total_bytes = self.field("SwapTotal")?.unwrap_or(0);
        let available_bytes = if total_bytes > 0 { self.needed("SwapFree")? } else { 0 };
        Ok(Memory { total_bytes, available_bytes })
    }
}

fn read_traffic(
    file: &mut ProcFile,
    buffer: &mut Vec<u8>,
    parse: fn(&str) -> Result<Vec<Traffic>, String>,
) -> Result<Vec<Traffic>, String> {
    parse(file.read_text(buffer)?).map_err(|why| file.wrong(&why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Probe;
    use std::fs;
    use std::time::Duration;

    const MEMINFO: &str = include_str!("../../tests/procfs/round-numbers/meminfo");
    const STAT: &str = include_str!("../../tests/procfs/round-numbers/stat");

    fn probe_of(probes: &str, stat: &str, meminfo: &str) -> (Probe, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("stat"), stat).unwrap();
        fs::write(root.path().join("meminfo"), meminfo).unwrap();
        let options = Options { probes: probes.parse().unwrap(), procfs: root.path().to_owned(), ..Options::default() };
        (Probe::new(&options).unwrap(), root)
    }

    fn memory_of(meminfo: &str) -> (Option<Memory>, Vec<String>) {
        let (mut probe, _root) = probe_of("mem", STAT, meminfo);
        let reading = probe.read(Duration::ZERO);
        (reading.memory, reading.problems)
    }

    #[test]
    fn files_in_the_form_of_the_kernel_are_read() {
        let (mut probe, root) = probe_of("cpu,mem", STAT, MEMINFO);
        let before = probe.read(Duration::ZERO);
        assert_eq!(before.problems, [""; 0]);
        // 300 ticks of user (100 of them a guest's), 100 of system, 500 idle, 100 waiting.
        let later = STAT.replacen(
            "cpu  74608 2520 24433 1117073 6176 0 4054 1 17 0",
            "cpu  74908 2520 24533 1117573 6276 0 4054 1 117 0",
            1,
        );
        assert_ne!(later, STAT);
        fs::write(root.path().join("stat"), later).unwrap();
        let after = probe.read(Duration::from_secs(1));
        assert_eq!(probe.values(&before, &after), vec![("cpu".into(), 40.0), ("mem".into(), 25.0)]);
    }

    #[test]
    fn kernels_that_lack_fields_are_read() {
        let old: String =
            MEMINFO.lines().filter(|line| !line.starts_with("MemAvailable")).flat_map(|line| [line, "\n"]).collect();
        let (mut probe, _root) = probe_of("cpu,mem", "cpu  10 0 10 100\nctxt 1\nbtime 1\nprocesses 1\n", &old);
        let reading = probe.read(Duration::ZERO);
        assert_eq!(reading.cpu, Some(Cpu::Machine(CpuTimes { busy: [10, 0, 10, 0, 0, 0], idle: [100, 0] })));
        // MemFree 4000000 + Buffers 100000 + Cached 1500000 + SReclaimable 200000 - Shmem 50000, in kB.
        assert_eq!(reading.memory.unwrap().available_bytes, 5_750_000 * 1024);
    }

    #[test]
    fn a_sandbox_shows_little_of_memory() {
        let expected = Memory { total_bytes: 1000 * 1024, available_bytes: 500 * 1024 };
        let read = memory_of("MemTotal:       1000 kB\nMemFree:   250 kB\nCached:  250 kB\n");
        assert_eq!(read, (Some(expected), Vec::new()));
        for (meminfo, part) in [
            ("MemFree: 1 kB\n", "it has no MemTotal"),
            ("MemTotal: 1 kB\n", "it has no MemFree"),
            ("MemTotal: 1 MB\nMemAvailable: 1 kB", "MemTotal is no number of kB"),
            ("MemTotal: -1 kB\n", "MemTotal is no number of kB"),
            ("MemTotal", "it has no MemTotal"),
        ] {
            let (memory, said) = memory_of(meminfo);
            assert!(
                memory.is_none() && said[0].contains("meminfo: ") && said[0].contains(part),
                "{meminfo:?}: {said:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_path() {
        let (mut probe, root) = probe_of("cpu,mem", "cpu  1 2 x", "MemTotal: lots");
        let said = probe.read(Duration::ZERO).problems;
        assert!(said.len() == 2 && said[0].contains("stat: ") && said[1].contains("meminfo: "), "{said:?}");
        drop(root);
        let said = probe.read(Duration::ZERO).problems;
        assert!(said.len() == 2 && said.iter().all(|problem| problem.starts_with("cannot read ")), "{said:?}");
    }

    #[test]
    fn each_file_is_read_only_where_a_probe_needs_it() {
        let (mut probe, _root) = probe_of("load,swap,processes,uptime,io,net:eth0", "", "SwapTotal: 0 kB\n");
        let said = probe.read(Duration::ZERO).problems;
        let files = ["loadavg", "uptime", "has no processes", "diskstats", "net/dev"];
        assert!(
            said.len() == files.len() && said.iter().zip(files).all(|(said, file)| said.contains(file)),
            "{said:?}"
        );
        let (mut probe, root) = probe_of("load,io:sdb", "", "");
        fs::write(root.path().join("loadavg"), "nan 0 0 1/2 3\n").unwrap();
        fs::write(root.path().join("diskstats"), "8 0 sda 1 1 1 1 1 1 1 1 0 1 1\n").unwrap();
        let said = probe.read(Duration::ZERO).problems;
        assert!(said[0].contains("loadavg: it begins with no number") && said[1] == "there is no block device \"sdb\"");
    }
}
