//! What the cgroup of this process uses of what it may use, in version 1 and 2 of cgroups.
//!
//! `/proc/self/cgroup` names the cgroup, and `/proc/self/mountinfo` where its files are (`cgroups(7)`, `proc(5)`). The
//! limits of the cgroups around it hold too, as far as they are mounted; in a container that is often its own cgroup
//! alone.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::Memory;
use super::mounts::{Mount, parse_mounts};
use super::proc_file::ProcFiles;

/// Processor time of a cgroup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CpuUsage {
    /// Time that it used since it was made.
    pub(super) used: Duration,
    /// Processors that it may use at once: the lowest of its quotas, and those of its affinity.
    pub(super) processors: f64,
}

/// The cgroup of this process, for each of the controllers that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    memory: Directory,
    /// Version 1 may have time and quota in two hierarchies.
    cpu_time: Directory,
    cpu_quota: Directory,
}

/// Where the files of a cgroup are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    is_v1: bool,
    /// The cgroup of this process.
    own: PathBuf,
    /// The outermost cgroup around it that is mounted.
    top: PathBuf,
}

impl Cgroup {
    /// Finds the cgroup of this process by its files below `procfs`.
    pub(super) fn find(procfs: &Path) -> Result<Self, String> {
        let read = |name: &str| read(&procfs.join("self").join(name));
        let (cgroups, mounts) = (read("cgroup")?, parse_mounts(&read("mountinfo")?));
        let find = |controller: &str| {
            find(controller, &cgroups, &mounts)
                .ok_or_else(|| format!("no mount shows this process's cgroup of the controller {controller}"))
        };
        Ok(Self { memory: find("memory")?, cpu_time: find("cpuacct")?, cpu_quota: find("cpu")? })
    }

    /// Used memory without the part of the page cache that was not used lately, as container runtimes show it, against
    /// the lowest of the limits and the machine's `total_bytes`.
    pub(super) fn memory(&self, total_bytes: u64) -> Result<Memory, String> {
        let Directory { is_v1, own, .. } = &self.memory;
        // Past `memory.high` the kernel slows the cgroup down and takes memory back.
        let (usage, inactive, limits): (_, _, &[&str]) = match is_v1 {
            true => ("memory.usage_in_bytes", "total_inactive_file", &["memory.limit_in_bytes"]),
            false => ("memory.current", "inactive_file", &["memory.max", "memory.high"]),
        };
        let usage_bytes = number(&own.join(usage))?;
        let stat = read(&own.join("memory.stat"))?;
        let cached_bytes = field(&stat, inactive).unwrap_or(0);
        // A limit of "max" is no number, and the root of a hierarchy has no such files: neither limits anything.
        let limits = self.memory.up().flat_map(|cgroup| limits.iter().map(move |limit| cgroup.join(limit)));
        let limit_bytes = limits.filter_map(|limit| number(&limit).ok()).fold(total_bytes, u64::min);
        let used_bytes = usage_bytes.saturating_sub(cached_bytes);
        Ok(Memory { total_bytes: limit_bytes, available_bytes: limit_bytes.saturating_sub(used_bytes) })
    }

    /// Used processor time, and how many processors may be used.
    pub(super) fn cpu(&self, files: &mut ProcFiles) -> Result<CpuUsage, String> {
        let Directory { is_v1, own, .. } = &self.cpu_time;
        let used = if *is_v1 {
            Duration::from_nanos(number(&own.join("cpuacct.usage"))?)
        } else {
            let path = own.join("cpu.stat");
            let usec = field(&read(&path)?, "usage_usec");
            Duration::from_micros(usec.ok_or_else(|| format!("{} has no usage_usec", path.display()))?)
        };
        let quotas = self.cpu_quota.up().filter_map(|cgroup| quota(&cgroup, self.cpu_quota.is_v1));
        Ok(CpuUsage { used, processors: quotas.fold(affinity(files), f64::min) })
    }
}

impl Directory {
    /// The cgroup and those around it, as far as they are mounted.
    fn up(&self) -> impl Iterator<Item = PathBuf> {
        let top = self.top.clone();
        self.own.ancestors().take_while(move |cgroup| cgroup.starts_with(&top)).map(Path::to_owned)
    }
}

/// Processors that this process may run on.
fn affinity(files: &mut ProcFiles) -> f64 {
    let status = files.text("self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let count = list.and_then(|list| count_of_list(list.trim()));
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    // The standard library rounds the quota down to whole processors, which is worse than the affinity.
    let count = count.unwrap_or_else(|| thread::available_parallelism().map_or(1, |count| count.get() as u64)) as f64;
    count
}

/// How many numbers are in a list such as `0-3,8`.
fn count_of_list(list: &str) -> Option<u64> {
    list.split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let count = last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?;
        Some(sum + u64::from(count) + 1)
    })
}

/// How many processors' time a cgroup may use, if it is limited.
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

/// Finds the files of a controller: in its hierarchy of version 1, else in that of version 2, which has all others.
fn find(controller: &str, cgroups: &str, mounts: &[Mount]) -> Option<Directory> {
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let path_of = |is_hierarchy: &dyn Fn(&str) -> bool| {
        cgroups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_hierarchy(controllers).then_some(path)
        })
    };
    let v1 = path_of(&has).and_then(|path| {
        directory(path, mounts.iter().filter(|mount| mount.kind == "cgroup" && mount.has_option(controller)), true)
    });
    v1.or_else(|| directory(path_of(&str::is_empty)?, mounts.iter().filter(|mount| mount.kind == "cgroup2"), false))
}

/// The directory of the cgroup of this path, in the first of the mounts that shows it.
///
/// A mount shows the cgroups from its root on; other mounts may show other containers' or, with a root above that of
/// this process's cgroup namespace (`/..`), the host's. Of two mounts at one point only the later one can be seen.
fn directory<'a>(path: &str, mounts: impl Iterator<Item = &'a Mount>, is_v1: bool) -> Option<Directory> {
    let mounts: Vec<&Mount> = mounts.collect();
    let is_seen = |index: usize| !mounts[index + 1..].iter().any(|later| later.point == mounts[index].point);
    mounts.iter().enumerate().filter(|(index, _)| is_seen(*index)).find_map(|(_, mount)| {
        let below = Path::new(path).strip_prefix(&mount.root).ok()?;
        let own = mount.point.join(below);
        own.is_dir().then(|| Directory { is_v1, own, top: mount.point.clone() })
    })
}

/// The number behind a name in a file of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(path: &Path) -> Result<u64, String> {
    read(path)?.trim().parse().map_err(|_| format!("cannot parse {}: it is not a number", path.display()))
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

    /// Processor time in microseconds, and processors, of which the machine has as many as are given.
    fn cpu(root: &TempDir, processors: usize) -> Result<(u128, f64), String> {
        fs::write(root.path().join("proc/self/status"), format!("Cpus_allowed_list:\t0-{}\n", processors - 1)).unwrap();
        let usage = find(root)?.cpu(&mut ProcFiles::new(root.path().join("proc")))?;
        Ok((usage.used.as_micros(), usage.processors))
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
        assert_eq!(cpu(&root, 4), Ok((5_000_000, 0.5)));
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
        assert_eq!(cpu(&root, 8), Ok((7, 1.5)));
        assert_eq!(cpu(&root, 1), Ok((7, 1.0)));
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
        assert_eq!(cpu(&root, 4), Ok((1_234_567, 2.0)));
        fs::write(root.path().join("cg/cpu/cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(cpu(&root, 4), Ok((1_234_567, 4.0)));
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
        assert_eq!(cpu(&root, 8), Ok((9, 2.0)));
    }

    #[test]
    fn what_is_missing_is_reported() {
        let root = tree("0::/\n", "25 30 0:23 / /sys rw - sysfs sysfs rw\n", &[]);
        assert!(find(&root).unwrap_err().contains("controller memory"));
        let root = tree("0::/\n", V2_MOUNT, &[("cg/cpu.stat", "nr_periods 0\n")]);
        let cgroup = find(&root).unwrap();
        assert!(cgroup.memory(1).unwrap_err().contains("memory.current"), "the root cgroup has no figures");
        assert!(cpu(&root, 1).unwrap_err().contains("usage_usec"));
        let problem = Cgroup::find(Path::new("/nowhere")).unwrap_err();
        assert!(problem.contains("/nowhere/self/cgroup"), "{problem}");
    }

    #[test]
    fn quotas_are_not_rounded_to_whole_processors() {
        let root = tree("0::/\n", V2_MOUNT, &[("cg/cpu.stat", "usage_usec 7\n"), ("cg/cpu.max", "250000 100000\n")]);
        assert_eq!(cpu(&root, 3), Ok((7, 2.5)));
        assert_eq!(
            ["0", "0-3", "0-3,8,10-11", "", "3-1", "x"].map(count_of_list),
            [Some(1), Some(4), Some(7), None, None, None]
        );
    }

    #[test]
    fn memory_high_limits_below_the_maximum() {
        let files = [("cg/memory.current", "100\n"), ("cg/memory.stat", ""), ("cg/memory.max", "1000\n")];
        for (high, total_bytes) in [("400\n", 400), ("5000\n", 1000), ("max\n", 1000)] {
            let root = tree("0::/\n", V2_MOUNT, &[&files[..], &[("cg/memory.high", high)]].concat());
            assert_eq!(find(&root).unwrap().memory(8 << 30).unwrap().total_bytes, total_bytes);
        }
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_this_cgroup_is_read() {
        let files = [("own/app/cpu.stat", "usage_usec 7\n"), ("other/cpu.stat", "usage_usec 8\n")];
        let root = tree(
            "0::/slice/app\n",
            "50 40 0:26 /../.. {}/other rw - cgroup2 cgroup rw\n51 40 0:26 /else {}/other rw - cgroup2 cgroup rw\n\
             52 40 0:26 /sli {}/other rw - cgroup2 cgroup rw\n53 40 0:26 /slice {}/own rw - cgroup2 cgroup rw\n",
            &files,
        );
        assert_eq!(cpu(&root, 1), Ok((7, 1.0)));
        let covered =
            "50 40 0:26 /slice {}/own rw - cgroup2 cgroup rw\n51 40 0:26 /else {}/own rw - cgroup2 cgroup rw\n";
        let root = tree("0::/slice/app\n", covered, &files);
        assert!(
            find(&root).unwrap_err().starts_with("no mount shows this process's cgroup"),
            "the later one covers it"
        );
    }

    #[test]
    fn paths_with_spaces_and_backslashes_are_found() {
        let mounts = r"29 25 0:26 /my\040pods {}/c\134g rw - cgroup2 cgroup rw";
        let root = tree("0::/my pods/app\n", mounts, &[(r"c\g/app/cpu.stat", "usage_usec 3\n")]);
        assert_eq!(cpu(&root, 2), Ok((3, 2.0)));
    }
}
