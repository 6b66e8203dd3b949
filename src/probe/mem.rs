//! `mem`: memory that is not available, in percent, by `/proc/meminfo`. With `--scope cgroup`, what the monitor's
//! cgroup uses, in percent of its limit.

use std::borrow::Cow;

use super::cgroup::Cgroup;
use super::proc_file::ProcFiles;
use super::zfs::Arc;
use super::{About, Label, Memory, Probe, Scope, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "mem",
    target: Target::None,
    labels: &[Label { name: "mem", unit: "%", what: "memory that is not available" }],
    source: "/proc/meminfo",
    is_default: true,
    new: |setup| {
        let is_of_cgroup = setup.options.scope == Scope::Cgroup;
        let counts_zfs = setup.options.probes.iter().any(|(about, _)| about.name == "zfs");
        Ok(Box::new(Mem { cgroup: is_of_cgroup.then(|| Cgroup::find(&setup.options.procfs)), counts_zfs }))
    },
};

struct Mem {
    /// The cgroup to measure, instead of the machine.
    cgroup: Option<Result<Cgroup, String>>,
    /// Whether memory that the cache of ZFS can give back is available.
    counts_zfs: bool,
}

impl Probe for Mem {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let memory = Meminfo::read(tick.files).and_then(|meminfo| match &self.cgroup {
            None => meminfo.memory(),
            Some(cgroup) => cgroup.as_ref().map_err(Clone::clone)?.memory(meminfo.required("MemTotal")?),
        });
        let mut memory = tick.ok(memory);
        if let Some(memory) = memory.as_mut().filter(|_| self.counts_zfs && self.cgroup.is_none())
            && let Ok(arc) = Arc::read(tick.files)
        {
            let available_bytes = memory.available_bytes.saturating_add(arc.available_bytes);
            memory.available_bytes = available_bytes.min(memory.total_bytes);
        }
        tick.give("mem", None, memory.and_then(|memory| memory.used_percent()));
    }
}

/// `/proc/meminfo`. Sandboxes and old kernels lack most of its fields, so that each is looked for by its name.
pub(super) struct Meminfo<'a>(Cow<'a, str>);

impl<'a> Meminfo<'a> {
    pub(super) fn read(files: &'a mut ProcFiles) -> Result<Self, String> {
        files.text("meminfo").map(Self)
    }

    /// The bytes of a field, if there is one of the name.
    pub(super) fn field(&self, name: &str) -> Result<Option<u64>, String> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let Some(value) = values.next() else { return Ok(None) };
        let kilobytes = value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
        kilobytes
            .map(|kilobytes| Some(kilobytes.saturating_mul(1024)))
            .ok_or_else(|| format!("{name} in meminfo is not a number of kB"))
    }

    pub(super) fn required(&self, name: &str) -> Result<u64, String> {
        self.field(name)?.ok_or_else(|| format!("meminfo has no {name}"))
    }

    fn memory(&self) -> Result<Memory, String> {
        let total_bytes = self.required("MemTotal")?;
        let available_bytes = match self.field("MemAvailable")? {
            Some(available_bytes) => available_bytes,
            // Before Linux 3.14: free memory and caches, as `free` of procps 3.3.9 counts them.
            None => {
                let mut with_caches = self.required("MemFree")?;
                for name in ["Buffers", "Cached", "SReclaimable"] {
                    with_caches = with_caches.saturating_add(self.field(name)?.unwrap_or(0));
                }
                with_caches.saturating_sub(self.field("Shmem")?.unwrap_or(0))
            }
        };
        Ok(Memory { total_bytes, available_bytes: available_bytes.min(total_bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};
    use super::*;

    const MEMINFO: &str = include_str!("../../tests/procfs/round-numbers/meminfo");

    #[test]
    fn used_memory_is_what_is_not_available() {
        assert_eq!(Memory { total_bytes: 1000, available_bytes: 649 }.used_percent(), Some(35.1));
        assert_eq!(Memory { total_bytes: 1000, available_bytes: 2000 }.used_percent(), Some(0.0));
        assert_eq!(Memory { total_bytes: 0, available_bytes: 0 }.used_percent(), None);
        assert_eq!(Host::new("mem", &[("meminfo", MEMINFO)]).values(&[]), [is("mem", 25.0)]);
    }

    #[test]
    fn kernels_before_3_14_have_no_available_memory() {
        let old: String =
            MEMINFO.lines().filter(|line| !line.starts_with("MemAvailable")).flat_map(|line| [line, "\n"]).collect();
        // MemFree 4000000 + Buffers 100000 + Cached 1500000 + SReclaimable 200000 - Shmem 50000, in kB.
        let memory = Meminfo(old.into()).memory().unwrap();
        assert_eq!(memory.available_bytes, 5_750_000 * 1024);
    }

    #[test]
    fn sandboxes_show_little_of_memory_and_wrong_fields_are_named() {
        let read = |text: &'static str| Meminfo(text.into()).memory();
        let expected = Memory { total_bytes: 1000 * 1024, available_bytes: 500 * 1024 };
        assert_eq!(read("MemTotal:       1000 kB\nMemFree:   250 kB\nCached:  250 kB\n"), Ok(expected));
        for (text, problem) in [
            ("MemFree: 1 kB\n", "meminfo has no MemTotal"),
            ("MemTotal: 1 kB\n", "meminfo has no MemFree"),
            ("MemTotal: 1 MB\nMemAvailable: 1 kB", "MemTotal in meminfo is not a number of kB"),
            ("MemTotal: -1 kB\n", "MemTotal in meminfo is not a number of kB"),
            ("MemTotal", "meminfo has no MemTotal"),
        ] {
            assert_eq!(read(text), Err(problem.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_field_takes_no_other_value_away() {
        let meminfo = "MemTotal: 100 kB\nMemAvailable: 25 kB\nSwapTotal: many\n";
        let reading = Host::new("mem,swap", &[("meminfo", meminfo)]).read(&[]);
        assert_eq!(reading.values, [("mem".into(), 75.0)]);
        assert_eq!(reading.problems, ["probe swap: SwapTotal in meminfo is not a number of kB"]);
    }
}
