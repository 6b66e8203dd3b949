//! `zfs`: size of ZFS's cache, the ARC, by `/proc/spl/kstat/zfs/arcstats`. The kernel counts it as used memory; where
//! this probe runs, `mem` takes what the cache can give back, `size - c_min`, for available. A container whose memory is
//! not the machine's, as lxcfs shows it, has no value.

use super::proc_file::ProcFiles;
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "zfs",
    target: Target::None,
    labels: &[Label { name: "zfs-arc", unit: "B", what: "size of the cache of ZFS (ARC)" }],
    source: "/proc/spl/kstat/zfs/arcstats",
    is_default: false,
    new: |_| Ok(Box::new(Zfs)),
};

/// The figures below the mount of the proc file system.
const ARCSTATS: &str = "spl/kstat/zfs/arcstats";

struct Zfs;

impl Probe for Zfs {
    fn read(&mut self, tick: &mut Tick<'_>) {
        match Arc::read(tick.files) {
            #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
            Ok(arc) => tick.give("zfs-arc", None, Some(arc.size_bytes as f64)),
            Err(why) => tick.leave_out(&why),
        }
    }
}

/// The cache of ZFS.
#[derive(Debug, PartialEq)]
pub(super) struct Arc {
    size_bytes: u64,
    /// What it can give back.
    pub(super) available_bytes: u64,
}

impl Arc {
    pub(super) fn read(files: &mut ProcFiles) -> Result<Self, String> {
        if files.is_covered("meminfo") {
            return Err("the memory here is a container's, and the cache is the machine's".to_owned());
        }
        let arc = Self::parse(&files.text(ARCSTATS)?);
        arc.ok_or_else(|| files.wrong(ARCSTATS, "it has no size and c_min"))
    }

    /// Parses lines of a name, a type and a number.
    fn parse(text: &str) -> Option<Self> {
        let number = |name: &str| {
            let mut words = text
                .lines()
                .map(str::split_ascii_whitespace)
                .find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
            words.nth(1)?.parse::<u64>().ok()
        };
        let size_bytes = number("size")?;
        Some(Self { size_bytes, available_bytes: size_bytes.saturating_sub(number("c_min")?) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};
    use super::*;

    const ARC: &str = "13 1 0x01 147 39984 1234567 89\nname                            type data\n\
                       hits                            4    12\nc_min                           4    1024000\n\
                       size                            4    5120000\ncompressed_size                 4    9\n";

    #[test]
    fn memory_is_less_by_what_the_cache_can_give_back() {
        let meminfo = "MemTotal: 10000 kB\nMemAvailable: 2500 kB\n";
        let files = [("meminfo", meminfo), (ARCSTATS, ARC)];
        assert_eq!(Host::new("mem,zfs", &files).values(&[]), [is("mem", 35.0), is("zfs-arc", 5_120_000.0)]);
        assert_eq!(Host::new("mem", &files).values(&[]), [is("mem", 75.0)]);
        let reading = Host::new("mem,zfs", &[("meminfo", meminfo)]).read(&[]);
        assert_eq!((reading.values.len(), reading.left_out.len(), reading.problems.len()), (1, 1, 0));
        // A container has a meminfo of its own, of another file system.
        let mut host = Host::new("mem,zfs", &files);
        let meminfo = host.root.path().join("meminfo");
        std::fs::remove_file(&meminfo).unwrap();
        std::os::unix::fs::symlink("/proc/meminfo", meminfo).unwrap();
        let reading = host.read(&[]);
        assert_eq!((reading.values.len(), reading.left_out.len(), reading.problems.len()), (1, 1, 0), "{reading:?}");
        for wrong in ["", "size 4\n", "size 4 x\nc_min 4 1\n", "c_min 4 1\n"] {
            assert_eq!(Arc::parse(wrong), None, "{wrong:?}");
        }
    }
}
