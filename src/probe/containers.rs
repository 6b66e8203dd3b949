//! `containers`: processor time, memory and network of each container, by the files of its cgroup and without the socket
//! of an engine. Format: `cgroups(7)`, and `Documentation/admin-guide/cgroup-v2.rst` of the kernel.
//!
//! A cgroup is a container's by its name: that of Docker, Podman, containerd, CRI-O and Kubernetes ends with an id of 64
//! hexadecimal digits, LXC's is `lxc.payload.NAME` or `lxc/NAME`, and systemd-nspawn's `systemd-nspawn@NAME.service` or
//! `machine-NAME.scope`. The name of a container is in the files of Docker and Podman, which root alone can read, and in
//! the links below `/var/log/containers`; else it is the first 12 digits of the id. The network is that of a process in
//! it, as far as it has a network namespace of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::background::BackgroundPass;
use super::{About, Label, Probe, Target, Tick, one_decimal};
use crate::sample::check_label;

pub(super) const ABOUT: About = About {
    name: "containers",
    target: Target::None,
    labels: &[
        Label { name: "containers", unit: "", what: "number of containers" },
        Label { name: "container-cpu", unit: "%", what: "container-cpu:NAME, part of all processors' time" },
        Label { name: "container-mem", unit: "B", what: "memory without the page cache that is not in use" },
        Label { name: "container-net-in", unit: "B/s", what: "received by its own network" },
        Label { name: "container-net-out", unit: "B/s", what: "sent by it" },
    ],
    source: "/sys/fs/cgroup",
    is_default: false,
    new: |setup| {
        let options = setup.options;
        let mut scanner = Scanner::new(options.sysfs(), options.procfs.clone(), options.rootfs.clone());
        Ok(Box::new(Containers(BackgroundPass::start("cgroups", move |at| scanner.pass(at))?)))
    },
};

/// Most containers that have labels: those that used most processor time.
const CONTAINERS_MAX: usize = 50;
/// How often the cgroups are listed, and the busiest chosen.
const LISTED_EVERY: Duration = Duration::from_secs(10);
/// How deep, and how many cgroups are looked at.
const DEPTH_MAX: u32 = 8;
const CGROUPS_MAX: u32 = 20_000;
/// Digits of an id, and those of them that stand for a name.
const ID_DIGITS: usize = 64;
const SHORT_DIGITS: usize = 12;

struct Containers(BackgroundPass<Pass>);

/// What a pass has found.
#[derive(Debug, PartialEq)]
struct Pass {
    count: usize,
    /// Labels, names and values.
    values: Vec<(&'static str, String, f64)>,
}

impl Probe for Containers {
    fn ask(&mut self, at: Duration) {
        self.0.ask(at, Duration::ZERO);
    }

    fn read(&mut self, tick: &mut Tick<'_>) {
        let Some(Some(pass)) = tick.ok(self.0.answer(tick.at, tick.until)) else { return };
        if pass.count > CONTAINERS_MAX {
            tick.leave_out(&format!("but for the {CONTAINERS_MAX} busiest, containers have no label"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of containers")]
        tick.give("containers", None, Some(pass.count as f64));
        for (label, name, value) in &pass.values {
            tick.give(label, Some(name), Some(*value));
        }
    }

    fn is_pending(&self) -> bool {
        self.0.last().is_none()
    }
}

/// Where the files of the cgroups are.
#[derive(Debug, Clone)]
enum Hierarchy {
    V2(PathBuf),
    V1 { cpu: PathBuf, memory: PathBuf },
}

impl Hierarchy {
    fn find(sysfs: &Path) -> Result<Self, String> {
        let root = sysfs.join("fs/cgroup");
        if root.join("cgroup.controllers").exists() {
            return Ok(Self::V2(root));
        }
        let cpu = ["cpu,cpuacct", "cpuacct"].map(|name| root.join(name)).into_iter().find(|path| path.is_dir());
        let cpu = cpu.ok_or_else(|| format!("no cgroups are mounted at {}", root.display()))?;
        Ok(Self::V1 { cpu, memory: root.join("memory") })
    }

    /// The directory that has the cgroups, with their processes and processor time.
    fn tree(&self) -> &Path {
        let (Self::V2(tree) | Self::V1 { cpu: tree, .. }) = self;
        tree
    }

    fn cpu_used(&self, cgroup: &Path) -> Option<Duration> {
        match self {
            Self::V2(root) => field(&root.join(cgroup).join("cpu.stat"), "usage_usec").map(Duration::from_micros),
            Self::V1 { cpu, .. } => number(&cpu.join(cgroup).join("cpuacct.usage")).map(Duration::from_nanos),
        }
    }

    fn mem_bytes(&self, cgroup: &Path) -> Option<u64> {
        let (directory, usage, inactive) = match self {
            Self::V2(root) => (root.join(cgroup), "memory.current", "inactive_file"),
            Self::V1 { memory, .. } => (memory.join(cgroup), "memory.usage_in_bytes", "total_inactive_file"),
        };
        let inactive = field(&directory.join("memory.stat"), inactive).unwrap_or(0);
        Some(number(&directory.join(usage))?.saturating_sub(inactive))
    }
}

/// A container, as the last pass found it.
#[derive(Debug, Default)]
struct Container {
    name: String,
    /// A process in it that has a network namespace of its own.
    pid: Option<u32>,
    /// Processor time when the cgroups were listed last.
    cpu_listed: Duration,
    is_shown: bool,
    /// The time of the last pass, and the counters then: processor time, and bytes received and sent.
    before: Option<(Duration, Option<Duration>, Option<[u64; 2]>)>,
}

struct Scanner {
    hierarchy: Option<Hierarchy>,
    sysfs: PathBuf,
    procfs: PathBuf,
    rootfs: PathBuf,
    listed_at: Option<Duration>,
    /// By the path of the cgroup.
    containers: BTreeMap<PathBuf, Container>,
}

impl Scanner {
    fn new(sysfs: PathBuf, procfs: PathBuf, rootfs: PathBuf) -> Self {
        Self { hierarchy: None, sysfs, procfs, rootfs, listed_at: None, containers: BTreeMap::new() }
    }

    fn pass(&mut self, at: Duration) -> Result<Pass, String> {
        let hierarchy = match self.hierarchy.take() {
            Some(hierarchy) => hierarchy,
            None => Hierarchy::find(&self.sysfs)?,
        };
        if self.listed_at.is_none_or(|listed| at.saturating_sub(listed) >= LISTED_EVERY) {
            self.listed_at = Some(at);
            self.list(&hierarchy);
        }
        let processors = fs::read_to_string(self.procfs.join("stat")).unwrap_or_default();
        let processors = processors.lines().skip(1).take_while(|line| line.starts_with("cpu")).count().max(1);
        let mut pass = Pass { count: self.containers.len(), values: Vec::new() };
        for (cgroup, container) in self.containers.iter_mut().filter(|(_, container)| container.is_shown) {
            let network = container.pid.and_then(|pid| traffic(&self.procfs.join(pid.to_string()).join("net/dev")));
            let cpu = hierarchy.cpu_used(cgroup);
            let before = container.before.replace((at, cpu, network));
            let mut give = |label, value: Option<f64>| {
                pass.values.extend(value.map(|value| (label, container.name.clone(), value)));
            };
            let elapsed = before.map_or(0.0, |(before, ..)| at.saturating_sub(before).as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
            let percent = |used: Duration| one_decimal(used.as_secs_f64() / elapsed / processors as f64 * 100.0);
            let (_, cpu_before, network_before) = before.unwrap_or_default();
            let used = cpu.zip(cpu_before).and_then(|(cpu, before)| cpu.checked_sub(before));
            give("container-cpu", used.filter(|_| elapsed > 0.0).map(percent));
            #[expect(clippy::cast_precision_loss, reason = "bytes")]
            give("container-mem", hierarchy.mem_bytes(cgroup).map(|bytes| bytes as f64));
            for (n, label) in ["container-net-in", "container-net-out"].into_iter().enumerate() {
                let bytes = network.zip(network_before).and_then(|(now, before)| now[n].checked_sub(before[n]));
                #[expect(clippy::cast_precision_loss, reason = "bytes a second")]
                give(label, bytes.filter(|_| elapsed > 0.0).map(|bytes| (bytes as f64 / elapsed).round()));
            }
        }
        self.hierarchy = Some(hierarchy);
        Ok(pass)
    }

    /// Finds the containers, their names and their processes, and chooses the busiest.
    fn list(&mut self, hierarchy: &Hierarchy) {
        let (mut found, mut left) = (Vec::new(), CGROUPS_MAX);
        walk(hierarchy.tree(), Path::new(""), DEPTH_MAX, &mut left, &mut found);
        let mut before = std::mem::take(&mut self.containers);
        let names = Names::read(&self.rootfs);
        let host_network = network_of(&self.procfs, 1);
        let mut used = Vec::new();
        for (cgroup, id) in found {
            let mut container = before.remove(&cgroup).unwrap_or_default();
            // The file that has its name may come after the container.
            if id.starts_with(&container.name) {
                container.name = names.of(&id);
            }
            let has_own = |pid: &u32| network_of(&self.procfs, *pid).is_some_and(|own| Some(own) != host_network);
            container.pid = first_pid(&hierarchy.tree().join(&cgroup), 3).filter(has_own);
            let cpu = hierarchy.cpu_used(&cgroup).unwrap_or_default();
            used.push((cpu.saturating_sub(container.cpu_listed), cgroup.clone()));
            container.cpu_listed = cpu;
            self.containers.insert(cgroup, container);
        }
        used.sort_unstable_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.cmp(other)));
        for (n, (_, cgroup)) in used.iter().enumerate() {
            if let Some(container) = self.containers.get_mut(cgroup) {
                container.is_shown = n < CONTAINERS_MAX;
                container.before = container.before.take().filter(|_| container.is_shown);
            }
        }
        self.tell_apart();
    }

    /// Two containers of one name are told apart by a number.
    fn tell_apart(&mut self) {
        let mut names = Vec::new();
        for container in self.containers.values_mut() {
            let name = container.name.clone();
            let mut number = 2;
            while names.contains(&container.name) {
                container.name = format!("{name}#{number}");
                number += 1;
            }
            names.push(container.name.clone());
        }
    }
}

/// Finds the cgroups of containers with their ids. What is in a container is its own.
fn walk(tree: &Path, cgroup: &Path, depth: u32, left: &mut u32, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(tree.join(cgroup)).into_iter().flatten().flatten() {
        if *left == 0 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        *left -= 1;
        let name = entry.file_name().to_string_lossy().into_owned();
        let child = cgroup.join(entry.file_name());
        match id_of(&name, cgroup.file_name().and_then(|name| name.to_str()).unwrap_or_default()) {
            Some(id) => found.push((child, id)),
            None if depth > 0 => walk(tree, &child, depth - 1, left, found),
            None => {}
        }
    }
}

/// The id or the name of the container whose cgroup has this name, in a cgroup of the name `parent`.
fn id_of(name: &str, parent: &str) -> Option<String> {
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    let (engine, id) = unit.rsplit_once('-').unwrap_or(("", unit));
    if id.len() == ID_DIGITS && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        // The monitor that an engine has for each container is in a cgroup beside it.
        return (!engine.ends_with("conmon")).then(|| id.to_owned());
    }
    let nspawn = name.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service"));
    let machine = name.strip_prefix("machine-").and_then(|name| name.strip_suffix(".scope"));
    let lxc = name.strip_prefix("lxc.payload.").or(matches!(parent, "lxc" | "lxc.payload").then_some(name));
    // systemd escapes dashes.
    Some(nspawn.or(machine).or(lxc)?.replace("\\x2d", "-"))
}

/// A process of a cgroup, or of one in it. A process of another PID namespace has the number 0.
fn first_pid(cgroup: &Path, depth: u32) -> Option<u32> {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let pid = pids.lines().find_map(|pid| pid.parse().ok().filter(|pid| *pid > 0));
    let mut inside = fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|_| depth > 0);
    pid.or_else(|| inside.find_map(|entry| first_pid(&entry.path(), depth - 1)))
}

/// What tells the network namespace of a process from others: the number of its file of the interfaces.
fn network_of(procfs: &Path, pid: u32) -> Option<u64> {
    fs::metadata(procfs.join(pid.to_string()).join("net/dev")).ok().map(|file| file.ino())
}

/// Bytes received and sent by all interfaces but the loopback. Format: `proc_pid_net(5)`.
fn traffic(path: &Path) -> Option<[u64; 2]> {
    let mut sums = [0_u64; 2];
    for line in fs::read_to_string(path).ok()?.lines().skip(2) {
        let (name, columns) = line.split_once(':')?;
        let columns: Vec<&str> = columns.split_ascii_whitespace().collect();
        for (sum, column) in sums.iter_mut().zip([0, 8]).filter(|_| name.trim() != "lo") {
            *sum = sum.saturating_add(columns.get(column)?.parse().ok()?);
        }
    }
    Some(sums)
}

/// The names of containers, as far as files say them.
struct Names {
    docker: PathBuf,
    /// By id, of Podman and Kubernetes.
    known: BTreeMap<String, String>,
}

impl Names {
    fn read(rootfs: &Path) -> Self {
        let mut known = BTreeMap::new();
        let podman = rootfs.join("var/lib/containers/storage/overlay-containers/containers.json");
        for container in json(&podman).as_ref().and_then(serde_json::Value::as_array).into_iter().flatten() {
            if let (Some(id), Some(name)) = (container["id"].as_str(), container["names"][0].as_str()) {
                known.insert(id.to_owned(), name.to_owned());
            }
        }
        // POD_NAMESPACE_CONTAINER-ID.log
        for entry in fs::read_dir(rootfs.join("var/log/containers")).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some((names, id)) = file.strip_suffix(".log").and_then(|file| file.rsplit_once('-')) else { continue };
            if let [pod, _, container] = names.split('_').collect::<Vec<_>>()[..] {
                known.insert(id.to_owned(), format!("{pod}/{container}"));
            }
        }
        Self { docker: rootfs.join("var/lib/docker/containers"), known }
    }

    /// The name of a container by its id; LXC and nspawn have the name in its place.
    fn of(&self, id: &str) -> String {
        let docker = || Some(json(&self.docker.join(id).join("config.v2.json"))?["Name"].as_str()?.to_owned());
        let short = id.get(..SHORT_DIGITS).filter(|_| id.len() == ID_DIGITS).unwrap_or(id);
        let name = self.known.get(id).cloned().or_else(docker).unwrap_or_else(|| short.to_owned());
        let name = name.trim_start_matches('/').to_owned();
        let is_label = |name: &String| !name.is_empty() && check_label(&format!("container-net-out:{name}#99")).is_ok();
        Some(name).filter(is_label).unwrap_or_else(|| short.chars().filter(|c| !c.is_control()).take(64).collect())
    }
}

/// Longest file of an engine that is read.
const JSON_BYTES_MAX: u64 = 1 << 20;

fn json(path: &Path) -> Option<serde_json::Value> {
    (fs::metadata(path).ok()?.len() <= JSON_BYTES_MAX).then_some(())?;
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The number behind a name in a file of names and numbers.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaa0000000000000000000000000000000000000000000000000000";
    const B: &str = "bbbbbbbbbbbb0000000000000000000000000000000000000000000000000000";

    #[test]
    fn cgroups_of_containers_are_known_by_their_names() {
        let names = [
            (format!("docker-{A}.scope"), "system.slice", Some(A)),
            (A.to_owned(), "docker", Some(A)),
            (format!("cri-containerd-{A}.scope"), "kubepods-pod1.slice", Some(A)),
            (format!("crio-{A}.scope"), "kubepods.slice", Some(A)),
            (A.to_owned(), "pod12", Some(A)),
            (format!("libpod-{A}.scope"), "machine.slice", Some(A)),
            (format!("libpod-conmon-{A}.scope"), "machine.slice", None),
            ("lxc.payload.web".to_owned(), "", Some("web")),
            ("lxc.monitor.web".to_owned(), "", None),
            ("101".to_owned(), "lxc", Some("101")),
            ("systemd-nspawn@build.service".to_owned(), "machine.slice", Some("build")),
            (r"machine-my\x2dbox.scope".to_owned(), "machine.slice", Some("my-box")),
            ("ssh.service".to_owned(), "system.slice", None),
            (A[1..].to_owned(), "docker", None),
        ];
        for (name, parent, id) in names {
            assert_eq!(id_of(&name, parent).as_deref(), id, "{name}");
        }
    }

    fn write(root: &Path, files: &[(String, String)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn file(name: String, content: impl ToString) -> (String, String) {
        (name, content.to_string())
    }

    /// The files of a container of version 2.
    fn v2(id: &str, usec: u64) -> Vec<(String, String)> {
        let at = |name: &str| format!("sys/fs/cgroup/system.slice/docker-{id}.scope/{name}");
        vec![
            file(at("cpu.stat"), format!("usage_usec {usec}\nuser_usec 1\nsystem_usec 1\n")),
            file(at("memory.current"), 5000),
            file(at("memory.stat"), "anon 1\ninactive_file 1000\n"),
            file(at("cgroup.procs"), "0\n"),
        ]
    }

    fn scanner(root: &Path) -> Scanner {
        let stat = file("proc/stat".to_owned(), "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 1\n");
        write(root, &[stat]);
        Scanner::new(root.join("sys"), root.join("proc"), root.to_owned())
    }

    fn values(pass: &Pass) -> Vec<(String, f64)> {
        pass.values.iter().map(|(label, name, value)| (format!("{label}:{name}"), *value)).collect()
    }

    fn is(label: &str, value: f64) -> (String, f64) {
        (label.to_owned(), value)
    }

    #[test]
    fn a_container_has_its_time_memory_and_network() {
        let root = tempfile::tempdir().unwrap();
        let net = |bytes: u64| {
            let lines = format!("a\nb\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: {bytes} 1 0 0 0 0 0 0 {} 1\n", 2 * bytes);
            file("proc/77/net/dev".to_owned(), lines)
        };
        let mut scanner = scanner(root.path());
        assert!(scanner.pass(Duration::ZERO).unwrap_err().starts_with("no cgroups are mounted at "));
        write(root.path(), &[file("sys/fs/cgroup/cgroup.controllers".to_owned(), "cpu memory\n")]);
        let name = file(format!("var/lib/docker/containers/{A}/config.v2.json"), r#"{"ID": "x", "Name": "/web"}"#);
        let host = file("proc/1/net/dev".to_owned(), "a\nb\n");
        write(root.path(), &[v2(A, 1_000_000), v2(B, 0), vec![name, host, net(1000)]].concat());
        write(root.path(), &[file(format!("sys/fs/cgroup/system.slice/docker-{A}.scope/init/cgroup.procs"), "77\n")]);
        fs::remove_file(root.path().join(format!("sys/fs/cgroup/system.slice/docker-{A}.scope/cgroup.procs"))).unwrap();
        let first = scanner.pass(Duration::from_secs(1)).unwrap();
        assert_eq!(values(&first), [is("container-mem:web", 4000.0), is("container-mem:bbbbbbbbbbbb", 4000.0)]);
        write(root.path(), &[v2(A, 2_000_000), vec![net(3000)]].concat());
        let second = scanner.pass(Duration::from_secs(3)).unwrap();
        let expected = [
            is("container-cpu:web", 25.0),
            is("container-mem:web", 4000.0),
            is("container-net-in:web", 1000.0),
            is("container-net-out:web", 2000.0),
            is("container-cpu:bbbbbbbbbbbb", 0.0),
            is("container-mem:bbbbbbbbbbbb", 4000.0),
        ];
        assert_eq!((values(&second), second.count), (expected.to_vec(), 2));
        // Counters that went back have no rate, and what is gone has no series.
        write(root.path(), &[v2(A, 5), vec![net(3)]].concat());
        fs::remove_dir_all(root.path().join(format!("sys/fs/cgroup/system.slice/docker-{B}.scope"))).unwrap();
        assert_eq!(values(&scanner.pass(Duration::from_secs(20)).unwrap()), [is("container-mem:web", 4000.0)]);
    }

    #[test]
    fn version_1_and_the_names_of_podman_and_kubernetes_are_known() {
        let root = tempfile::tempdir().unwrap();
        let v1 = |id: &str, nsec: u64| {
            let cpu = format!("sys/fs/cgroup/cpu,cpuacct/kubepods/podx/{id}/cpuacct.usage");
            let memory = format!("sys/fs/cgroup/memory/kubepods/podx/{id}/memory");
            let stat = file(format!("{memory}.stat"), "inactive_file 1\ntotal_inactive_file 500\n");
            [file(cpu, nsec), file(format!("{memory}.usage_in_bytes"), 2500), stat]
        };
        let podman = "var/lib/containers/storage/overlay-containers/containers.json".to_owned();
        let names = [
            file(podman, format!(r#"[{{"id": "{B}", "names": ["db"]}}, {{"id": 5}}]"#)),
            file(format!("var/log/containers/shop-7d9_prod_cart-{A}.log"), ""),
        ];
        let mut scanner = scanner(root.path());
        write(root.path(), &[&v1(A, 0)[..], &v1(B, 0)[..], &names[..]].concat());
        scanner.pass(Duration::ZERO).unwrap();
        write(root.path(), &v1(A, 2_000_000_000));
        let expected = [
            is("container-cpu:shop-7d9/cart", 100.0),
            is("container-mem:shop-7d9/cart", 2000.0),
            is("container-cpu:db", 0.0),
            is("container-mem:db", 2000.0),
        ];
        assert_eq!(values(&scanner.pass(Duration::from_secs(1)).unwrap()), expected);
    }

    #[test]
    fn a_name_that_comes_after_the_container_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let mut scanner = scanner(root.path());
        write(root.path(), &[file("sys/fs/cgroup/cgroup.controllers".to_owned(), "")]);
        write(root.path(), &v2(A, 0));
        assert_eq!(values(&scanner.pass(Duration::ZERO).unwrap()), [is("container-mem:aaaaaaaaaaaa", 4000.0)]);
        write(root.path(), &[file(format!("var/log/containers/shop-7d9_prod_cart-{A}.log"), "")]);
        let expected = [is("container-cpu:shop-7d9/cart", 0.0), is("container-mem:shop-7d9/cart", 4000.0)];
        assert_eq!(values(&scanner.pass(LISTED_EVERY).unwrap()), expected);
    }

    #[test]
    fn the_busiest_have_labels_and_the_rest_counts() {
        let root = tempfile::tempdir().unwrap();
        let mut scanner = scanner(root.path());
        write(root.path(), &[file("sys/fs/cgroup/cgroup.controllers".to_owned(), "")]);
        let id = |n: usize| format!("{n:012x}{}", "0".repeat(52));
        (0..60).for_each(|n| write(root.path(), &v2(&id(n), n as u64 * 1000)));
        let pass = scanner.pass(Duration::ZERO).unwrap();
        assert_eq!((pass.count, pass.values.len()), (60, CONTAINERS_MAX));
        assert!(pass.values.iter().all(|(_, name, _)| name.as_str() >= &id(10)[..12]));
        // The first becomes busy.
        write(root.path(), &v2(&id(0), 9_000_000));
        let pass = scanner.pass(Duration::from_secs(10)).unwrap();
        assert!(
            pass.values.iter().any(|(_, name, _)| name.as_str() == &id(0)[..12])
                && pass.values.len() < 2 * CONTAINERS_MAX
        );
    }
}
