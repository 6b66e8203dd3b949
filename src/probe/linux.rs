//! Linux: the files of `/proc`; `stat` is parsed by the procfs crate.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use procfs::{ExplicitSystemInfo, FromBufReadSI, KernelStats};

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
    let stat = KernelStats::from_buf_read(&*read_file(path)?, &system);
    let total = stat.map_err(|error| format!("cannot parse {}: {error}", path.display()))?.total;
    let known = |ticks: Option<u64>| ticks.unwrap_or(0);
    Ok(CpuTimes {
        busy: [total.user, total.nice, total.system, known(total.irq), known(total.softirq), known(total.steal)],
        idle: [total.idle, known(total.iowait)],
    })
}

/// Reads the fields that are used: the procfs crate wants others too, which the `/proc` of some sandboxes lacks.
fn read_memory(path: &Path) -> Result<Memory, String> {
    let wrong = |why: String| format!("cannot parse {}: {why}", path.display());
    let content = read_file(path)?;
    let text = std::str::from_utf8(&content).map_err(|error| wrong(error.to_string()))?;
    let field = |name: &str| {
        let is_named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let Some(line) = text.lines().find(is_named) else { return Ok(None) };
        let kilobytes = line[name.len() + 1..].trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
        kilobytes
            .map(|kilobytes| Some(kilobytes.saturating_mul(1024)))
            .ok_or_else(|| wrong(format!("{name} is no number of kB")))
    };
    let needed = |name: &str| field(name)?.ok_or_else(|| wrong(format!("it has no {name}")));
    let total_bytes = needed("MemTotal")?;
    let available_bytes = match field("MemAvailable")? {
        Some(available_bytes) => available_bytes,
        // Before Linux 3.14: what `free` of procps 3.3.9 counts as free with its caches.
        None => {
            let [buffers, cached, reclaimable, shared] =
                [field("Buffers")?, field("Cached")?, field("SReclaimable")?, field("Shmem")?]
                    .map(|bytes| bytes.unwrap_or(0));
            let with_caches =
                [needed("MemFree")?, buffers, cached, reclaimable].into_iter().fold(0, u64::saturating_add);
            with_caches.saturating_sub(shared)
        }
    };
    Ok(Memory { total_bytes, available_bytes: available_bytes.min(total_bytes) })
}

/// Reads a file of `/proc` in one call: the kernel does not tell its length beforehand.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::with_capacity(FILE_BYTES);
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut content));
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
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
    fn a_sandbox_shows_little_of_memory() {
        let (probe, root) = probe_of(STAT, "MemTotal:       1000 kB\nMemFree:   250 kB\nCached:  250 kB\n");
        let expected = Memory { total_bytes: 1000 * 1024, available_bytes: 500 * 1024 };
        assert_eq!(probe.read().memory, Ok(expected));
        for (meminfo, part) in [
            ("MemFree: 1 kB\n", "it has no MemTotal"),
            ("MemTotal: 1 kB\n", "it has no MemFree"),
            ("MemTotal: 1 MB\nMemAvailable: 1 kB", "MemTotal is no number of kB"),
            ("MemTotal: -1 kB\n", "MemTotal is no number of kB"),
            ("MemTotal", "it has no MemTotal"),
        ] {
            fs::write(root.path().join("meminfo"), meminfo).unwrap();
            let said = probe.read().memory.unwrap_err();
            assert!(said.contains("meminfo: ") && said.contains(part), "{meminfo:?}: {said}");
        }
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
