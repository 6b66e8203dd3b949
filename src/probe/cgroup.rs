//! What the cgroup of this process uses of what it may use, under version 1 and 2 of cgroups.
//!
//! Where its files are is in `/proc/self/cgroup` and `/proc/self/mountinfo` (`cgroups(7)`, `proc(5)`). Limits of the
//! cgroups around it hold too, as far as they can be seen; inside a container that is the container's own.

use std::path::{Path, PathBuf};

use super::{Cpu, Memory};

/// Where the files of a controller are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    is_v1: bool,
    /// The cgroup of this process.
    own: PathBuf,
    /// The outermost one that can be seen.
    top: PathBuf,
}

/// The cgroup of this process, for each of the controllers that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    memory: Place,
    /// Version 1 may have time and quota in two hierarchies.
    cpu_time: Place,
    cpu_quota: Place,
}

impl Cgroup {
    /// Finds it by the files of this process below `procfs`.
    pub(super) fn find(procfs: &Path) -> Result<Self, String> {
        let read = |name: &str| read(&procfs.join("self").join(name));
        let (cgroups, mounts) = (read("cgroup")?, read("mountinfo")?);
        let place = |controller: &str| {
            place(controller, &cgroups, &mounts)
                .ok_or_else(|| format!("no cgroup of the controller {controller} is mounted for this process"))
        };
        Ok(Self { memory: place("memory")?, cpu_time: place("cpuacct")?, cpu_quota: place("cpu")? })
    }

    /// Used memory without the part of the page cache that nobody used lately, against the lowest of the limits and
    /// the machine's `total_bytes`: what container runtimes show as usage.
    pub(super) fn memory(&self, total_bytes: u64) -> Result<Memory, String> {
        let Place { is_v1, own, .. } = &self.memory;
        let [usage, limit, inactive] = match is_v1 {
            true => ["memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"],
            false => ["memory.current", "memory.max", "inactive_file"],
        };
        let usage_bytes = number(&own.join(usage))?;
        let stat = read(&own.join("memory.stat"))?;
        let cached_bytes = field(&stat, inactive).unwrap_or(0);
        // "max" of version 2 is no number, and the root of a hierarchy has no such file: neither limits anything.
        let limits = self.memory.up().filter_map(|cgroup| number(&cgroup.join(limit)).ok());
        let limit_bytes = limits.fold(total_bytes, u64::min);
        let used_bytes = usage_bytes.saturating_sub(cached_bytes);
        Ok(Memory { total_bytes: limit_bytes, available_bytes: limit_bytes.saturating_sub(used_bytes) })
    }

    /// Processor time, and how many processors' worth of it there may be each second: the lowest of the quotas and
    /// `processors`.
    pub(super) fn cpu(&self, processors: usize) -> Result<Cpu, String> {
        let Place { is_v1, own, .. } = &self.cpu_time;
        let used_usec = if *is_v1 {
            number(&own.join("cpuacct.usage"))? / 1000
        } else {
            let path = own.join("cpu.stat");
            field(&read(&path)?, "usage_usec").ok_or_else(|| format!("{} has no usage_usec", path.display()))?
        };
        let quotas = self.cpu_quota.up().filter_map(|cgroup| quota(&cgroup, self.cpu_quota.is_v1));
        #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
        let processors = quotas.fold(processors as f64, f64::min);
        Ok(Cpu::Cgroup { used_usec, processors })
    }
}

impl Place {
    /// The cgroup and those around it, as far as they can be seen.
    fn up(&self) -> impl Iterator<Item = PathBuf> {
        let top = self.top.clone();
        self.own.ancestors().take_while(move |cgroup| cgroup.starts_with(&top)).map(Path::to_owned)
    }
}

/// Processors' worth of time that a cgroup may use, if it is limited.
fn quota(cgroup: &Path, is_v1: bool) -> Option<f64> {
    let (quota_usec, period_usec) = if is_v1 {
        (number(&cgroup.join("cpu.cfs_quota_us")).ok()?, number(&cgroup.join("cpu.cfs_period_us")).ok()?)
    } else {
        let max = read(&cgroup.join("cpu.max")).ok()?;
        let (quota, period) = max.trim().split_once(' ')?;
        (quota.parse().ok()?, period.parse().ok()?)
    };
    #[expect(clippy::cast_precision_loss, reason = "a ratio of microseconds")]
    let processors = quota_usec as f64 / period_usec as f64;
    (quota_usec > 0 && period_usec > 0).then_some(processors)
}

/// Finds the files of a controller: in the hierarchy of version 1 that has it, else in that of version 2, which has
/// all others.
fn place(controller: &str, cgroups: &str, mounts: &str) -> Option<Place> {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let v1 = paths().find_map(|[controllers, path]: [&str; 2]| has(controllers).then_some(path));
    let v1 = v1.and_then(|path| Some((path, mount(mounts, "cgroup", has)?)));
    let (is_v1, (path, (root, top))) = match v1 {
        Some(found) => (true, found),
        None => {
            let path = paths().find_map(|[controllers, path]| controllers.is_empty().then_some(path))?;
            (false, (path, mount(mounts, "cgroup2", |_| true)?))
        }
    };
    // The mount shows the hierarchy from `root` on. In a container that is often its own cgroup, whatever the path.
    let below = Path::new(path).strip_prefix(root).ok().filter(|below| !below.starts_with(".."));
    let own = below.map_or_else(|| top.clone(), |below| top.join(below));
    let own = if own.is_dir() { own } else { top.clone() };
    Some(Place { is_v1, own, top })
}

/// The root and the mount point of a file system of `kind` whose options `is_wanted` accepts, out of `mountinfo`.
fn mount<'a>(mounts: &'a str, kind: &str, is_wanted: impl Fn(&str) -> bool) -> Option<(&'a str, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, top) = (head.next()?, head.next()?);
        let mut tail = tail.split(' ');
        (tail.next()? == kind && is_wanted(tail.nth(1)?)).then(|| (root, top.into()))
    })
}

/// The number behind a name in a file of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(path: &Path) -> Result<u64, String> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| format!("cannot parse {}: {:?} is no number", path.display(), text.trim()))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// A proc root and cgroup files in one directory, of which `{}` in mountinfo stands for the path.
    fn tree(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display().to_string();
        let own = [("proc/self/cgroup", cgroup.to_owned()), ("proc/self/mountinfo", mountinfo.replace("{}", &at))];
        let files = files.iter().map(|(path, content)| (*path, (*content).to_owned()));
        for (path, content) in own.into_iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn find(root: &TempDir) -> Result<Cgroup, String> {
        Cgroup::find(&root.path().join("proc"))
    }

    const V2_MOUNT: &str = "25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                            29 25 0:26 / {}/cg rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn a_container_of_version_2_sees_its_own_limits() {
        let root = tree(
            "0::/\n",
            V2_MOUNT,
            &[
                ("cg/memory.current", "314572800\n"),
                ("cg/memory.stat", "anon 100\nfile 200\ninactive_file 104857600\nactive_file 1\n"),
                ("cg/memory.max", "419430400\n"),
                ("cg/cpu.stat", "usage_usec 5000000\nuser_usec 4000000\nsystem_usec 1000000\n"),
                ("cg/cpu.max", "50000 100000\n"),
            ],
        );
        let cgroup = find(&root).unwrap();
        let memory = Memory { total_bytes: 400 << 20, available_bytes: 200 << 20 };
        assert_eq!(cgroup.memory(8 << 30), Ok(memory));
        assert_eq!(cgroup.cpu(4), Ok(Cpu::Cgroup { used_usec: 5_000_000, processors: 0.5 }));
    }

    #[test]
    fn the_limits_of_the_cgroups_around_it_hold_too() {
        let root = tree(
            "0::/pod/app\n",
            V2_MOUNT,
            &[
                ("cg/pod/app/memory.current", "100\n"),
                ("cg/pod/app/memory.stat", "inactive_file 300\n"),
                ("cg/pod/app/memory.max", "max\n"),
                ("cg/pod/app/cpu.stat", "usage_usec 7\n"),
                ("cg/pod/app/cpu.max", "max 100000\n"),
                ("cg/pod/memory.max", "1000\n"),
                ("cg/pod/cpu.max", "150000 100000\n"),
            ],
        );
        let cgroup = find(&root).unwrap();
        let nothing_used = Memory { total_bytes: 1000, available_bytes: 1000 };
        assert_eq!(cgroup.memory(8 << 30), Ok(nothing_used), "more cache than usage is no usage");
        assert_eq!(cgroup.cpu(8), Ok(Cpu::Cgroup { used_usec: 7, processors: 1.5 }));
        assert_eq!(cgroup.cpu(1), Ok(Cpu::Cgroup { used_usec: 7, processors: 1.0 }));
    }

    const V1_FILES: [(&str, &str); 6] = [
        ("cg/memory/memory.usage_in_bytes", "2000\n"),
        ("cg/memory/memory.stat", "cache 1\ninactive_file 7\ntotal_inactive_file 500\n"),
        ("cg/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("cg/cpu/cpuacct.usage", "1234567890\n"),
        ("cg/cpu/cpu.cfs_quota_us", "200000\n"),
        ("cg/cpu/cpu.cfs_period_us", "100000\n"),
    ];

    #[test]
    fn a_container_of_version_1_is_found_by_its_mounts() {
        // The path is the host's, and the mount shows the container's cgroup alone.
        let root = tree(
            "4:memory:/docker/12ab\n3:cpu,cpuacct:/docker/12ab\n1:name=systemd:/docker/12ab\n",
            "31 23 0:28 / {}/cg rw - tmpfs tmpfs rw\n\
             33 31 0:30 /docker/12ab {}/cg/cpu ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 /docker/12ab {}/cg/memory ro - cgroup cgroup rw,memory\n",
            &V1_FILES,
        );
        let cgroup = find(&root).unwrap();
        let memory = Memory { total_bytes: 8 << 30, available_bytes: (8 << 30) - 1500 };
        assert_eq!(cgroup.memory(8 << 30), Ok(memory));
        assert_eq!(cgroup.cpu(4), Ok(Cpu::Cgroup { used_usec: 1_234_567, processors: 2.0 }));
        fs::write(root.path().join("cg/cpu/cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(cgroup.cpu(4), Ok(Cpu::Cgroup { used_usec: 1_234_567, processors: 4.0 }));
    }

    #[test]
    fn both_versions_may_be_mounted_side_by_side() {
        let mut files = V1_FILES.to_vec();
        files.push(("cg/cpu/slice/cpuacct.usage", "9000\n"));
        let root = tree(
            "4:memory:/\n2:cpuacct:/slice\n1:cpu:/slice\n0::/slice\n",
            "32 31 0:29 / {}/cg/cpu rw - cgroup cgroup rw,cpu\n33 31 0:30 / {}/cg/cpu rw - cgroup cgroup rw,cpuacct\n\
             35 31 0:32 / {}/cg/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / {}/cg/unified rw - cgroup2 none rw\n",
            &files,
        );
        let cgroup = find(&root).unwrap();
        assert_eq!(cgroup.cpu(8), Ok(Cpu::Cgroup { used_usec: 9, processors: 2.0 }));
    }

    #[test]
    fn what_is_missing_is_said() {
        let root = tree("0::/\n", "25 30 0:23 / /sys rw - sysfs sysfs rw\n", &[]);
        assert!(find(&root).unwrap_err().contains("controller memory"));
        let root = tree("0::/\n", V2_MOUNT, &[("cg/cpu.stat", "nr_periods 0\n")]);
        let cgroup = find(&root).unwrap();
        assert!(cgroup.memory(1).unwrap_err().contains("memory.current"), "the root cgroup has no figures");
        assert!(cgroup.cpu(1).unwrap_err().contains("usage_usec"));
        let said = Cgroup::find(Path::new("/nowhere")).unwrap_err();
        assert!(said.contains("/nowhere/self/cgroup"), "{said}");
    }
}
