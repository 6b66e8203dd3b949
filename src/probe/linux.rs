//! Linux: the files of `/proc`, parsed by the procfs crate.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use procfs::{ExplicitSystemInfo, FromBufRead, FromBufReadSI, KernelStats, Meminfo, ProcResult};

use super::{CpuTimes, Memory, Reading};

/// Room for the files of most machines; those of a hundred processors and more take another call.
const FILE_BYTES: usize = 8 << 10;
/// Longest file in bytes: `/proc/stat` of the largest machines has a few hundred thousand.
const FILE_BYTES_MAX: u64 = 4 << 20;

pub(super) struct Probe {
    procfs: PathBuf,
}

impl Probe {
    pub(super) fn new(procfs: PathBuf) -> Self {
        Self { procfs }
    }

    pub(super) fn read(&self) -> Reading {
        Reading { cpu: read_cpu(&self.procfs.join("stat")), memory: read_memory(&self.procfs.join("meminfo")) }
    }
}

fn read_cpu(path: &Path) -> Result<CpuTimes, String> {
    // Ratios of ticks are all that is used, so their length does not matter.
    let system =
        ExplicitSystemInfo { boot_time_secs: 0, ticks_per_second: 100, page_size: 4096, is_little_endian: true };
    let total = parse(path, |file| KernelStats::from_buf_read(file, &system))?.total;
    let known = |ticks: Option<u64>| ticks.unwrap_or(0);
    Ok(CpuTimes {
        busy: [total.user, total.nice, total.system, known(total.irq), known(total.softirq), known(total.steal)],
        idle: [total.idle, known(total.iowait)],
    })
}

fn read_memory(path: &Path) -> Result<Memory, String> {
    let memory = parse(path, |file| Meminfo::from_buf_read(file))?;
    // Before Linux 3.14 there is no MemAvailable: then what `free` of procps 3.3.9 counts as free with its caches.
    let reclaimable = memory.buffers.saturating_add(memory.cached).saturating_add(memory.s_reclaimable.unwrap_or(0));
    let estimate = memory.mem_free.saturating_add(reclaimable).saturating_sub(memory.shmem.unwrap_or(0));
    Ok(Memory {
        total_bytes: memory.mem_total,
        available_bytes: memory.mem_available.unwrap_or(estimate).min(memory.mem_total),
    })
}

fn parse<T>(path: &Path, parser: impl FnOnce(&[u8]) -> ProcResult<T>) -> Result<T, String> {
    let content = read_file(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parser(&content).map_err(|error| format!("cannot parse {}: {error}", path.display()))
}

/// Reads a file of `/proc` in one call: the kernel does not tell its length beforehand.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(FILE_BYTES);
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::values;
    use std::fs;

    const MEMINFO: &str = include_str!("../../tests/procfs/round-numbers/meminfo");
    const STAT: &str = include_str!("../../tests/procfs/round-numbers/stat");

    fn probe_of(stat: &str, meminfo: &str) -> (Probe, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("stat"), stat).unwrap();
        fs::write(root.path().join("meminfo"), meminfo).unwrap();
        (Probe::new(root.path().to_owned()), root)
    }

    #[test]
    fn files_in_the_form_of_the_kernel_are_read() {
        let (probe, root) = probe_of(STAT, MEMINFO);
        let before = probe.read();
        assert_eq!(before.problems().count(), 0);
        // 300 ticks of user (100 of them a guest's), 100 of system, 500 idle, 100 waiting.
        let later = STAT.replacen(
            "cpu  74608 2520 24433 1117073 6176 0 4054 1 17 0",
            "cpu  74908 2520 24533 1117573 6276 0 4054 1 117 0",
            1,
        );
        assert_ne!(later, STAT);
        fs::write(root.path().join("stat"), later).unwrap();
        assert_eq!(values(&before, &probe.read()), vec![("cpu".into(), 40.0), ("mem".into(), 25.0)]);
    }

    #[test]
    fn kernels_that_lack_fields_are_read() {
        let old: String =
            MEMINFO.lines().filter(|line| !line.starts_with("MemAvailable")).flat_map(|line| [line, "\n"]).collect();
        let (probe, _root) = probe_of("cpu  10 0 10 100\nctxt 1\nbtime 1\nprocesses 1\n", &old);
        let reading = probe.read();
        assert_eq!(reading.cpu, Ok(CpuTimes { busy: [10, 0, 10, 0, 0, 0], idle: [100, 0] }));
        // MemFree 4000000 + Buffers 100000 + Cached 1500000 + SReclaimable 200000 - Shmem 50000, in kB.
        assert_eq!(reading.memory.unwrap().available_bytes, 5_750_000 * 1024);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_path() {
        let (probe, root) = probe_of("cpu  1 2 x", "MemTotal: lots");
        let said: Vec<String> = probe.read().problems().map(str::to_owned).collect();
        assert!(said.len() == 2 && said[0].contains("stat: ") && said[1].contains("meminfo: "), "{said:?}");
        drop(root);
        assert!(probe.read().problems().all(|problem| problem.starts_with("cannot read ")));
    }
}
