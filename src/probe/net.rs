//! `net`: bytes a second that the machine received and sent; `net:INTERFACE`: those of one interface. By
//! `/proc/net/dev`.
//!
//! An interface that passes on what others carry, as bridges, VLANs and tunnels do, does not count towards the sum, so
//! that each byte counts once. Interfaces belong to a network namespace: those of a mount of another machine's or
//! namespace's `/proc` are those of its first process.

use std::fs;
use std::path::Path;

use smol_str::SmolStr;

use super::traffic::{Lines, Meter, Traffic};
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "net",
    target: Target::Optional("INTERFACE"),
    labels: &[
        Label { name: "net-in", unit: "B/s", what: "received by all network cards, or by INTERFACE" },
        Label { name: "net-out", unit: "B/s", what: "sent by them" },
    ],
    source: "/proc/net/dev",
    is_default: true,
    new: |setup| {
        let meter = Meter {
            device: "network interface",
            labels: ["net-in", "net-out"],
            targets: setup.targets,
            count: own_interfaces,
            sysfs: setup.options.sysfs(),
            before: None,
            counted: None,
        };
        Ok(Box::new(Net { file: file(&setup.options.procfs), meter }))
    },
};

/// Beginnings of the names of interfaces that pass on what others carry, or whose traffic never leaves the machine:
/// they decide where there is no sysfs to ask.
const NO_OWN_TRAFFIC: [&str; 49] = [
    "antrea",
    "bond",
    "cali",
    "cbr",
    "cilium",
    "cni",
    "datapath",
    "docker",
    "dummy",
    "erspan",
    "flannel",
    "fwbr",
    "fwln",
    "fwpr",
    "genev",
    "gre",
    "ifb",
    "incusbr",
    "ip6_vti",
    "ip6gre",
    "ip6tnl",
    "ip_vti",
    "ipsec",
    "kube-",
    "lxc",
    "lxdbr",
    "macvlan",
    "macvtap",
    "nerdctl",
    "nodelocaldns",
    "ovs-",
    "podman",
    "ppp",
    "sit",
    "tailscale",
    "tap",
    "team",
    "tun",
    "vboxnet",
    "veth",
    "virbr",
    "vlan",
    "vmbr",
    "vmnet",
    "vnet",
    "vxlan",
    "weave",
    "wg",
    "zt",
];

struct Net {
    file: &'static str,
    meter: Meter,
}

impl Probe for Net {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let lines = tick.files.text(self.file).map(|text| parse(&text));
        self.meter.read(tick, lines);
    }
}

/// The file of the interfaces. In a mount of `/proc` for another namespace, `net` leads to the namespace of this
/// process; only the first process's is sure to be the host's.
fn file(procfs: &Path) -> &'static str {
    let is_of_another = procfs != Path::new("/proc") && (is_mount(procfs) || procfs.join("1/net/dev").exists());
    if is_of_another { "1/net/dev" } else { "net/dev" }
}

/// Whether a directory is a mount of the proc file system, and not a copy of its files.
#[cfg(target_os = "linux")]
fn is_mount(procfs: &Path) -> bool {
    use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
    statfs(procfs).is_ok_and(|about| about.filesystem_type() == PROC_SUPER_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_mount(_procfs: &Path) -> bool {
    false
}

/// Parses `/proc/net/dev`: a name, received and sent bytes in each line after the two of the heading.
fn parse(text: &str) -> Lines {
    Lines::parse(text.lines().skip(2), |line| {
        // Old kernels have no space behind the colon, and the name of an alias has a colon of its own.
        let (name, numbers) = line.rsplit_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        let bytes = [numbers.next()?.ok()?, numbers.nth(7)?.ok()?];
        Some(Traffic { name: name.trim().into(), bytes })
    })
}

/// The interfaces by which traffic enters and leaves the machine or container.
///
/// Those are the devices of sysfs. Where none of them is up, as in a container, it is the only interface but `lo` that
/// is up, and where there are more, names decide.
fn own_interfaces(sysfs: &Path, interfaces: &[Traffic]) -> Vec<SmolStr> {
    let class = sysfs.join("class/net");
    let names = || interfaces.iter().map(|interface| interface.name.clone());
    let is_up = |name: &str| read(&class, name, "operstate").as_deref() != Some("down");
    let devices: Vec<SmolStr> = names().filter(|name| is_own_device(&class, name)).collect();
    if devices.iter().any(|name| is_up(name)) {
        return devices;
    }
    let others: Vec<SmolStr> = names().filter(|name| name != "lo" && is_up(name)).collect();
    if others.len() == 1 { others } else { names().filter(|name| is_own_by_name(name)).collect() }
}

/// Whether an interface is a device whose traffic no other device counts too, by its directory in sysfs.
///
/// A port of a switch chip lies over another interface (`iflink`). The fast path of a virtual machine's interface has
/// that one for its `master`, and the hypervisor's end of one is on the bus `xen-backend`.
fn is_own_device(class: &Path, name: &str) -> bool {
    let directory = class.join(name);
    let link_name =
        |link: &str| fs::read_link(directory.join(link)).ok().and_then(|to| Some(to.file_name()?.to_owned()));
    let is_device = directory.join("device").exists();
    let is_over_another = || read(class, name, "iflink") != read(class, name, "ifindex");
    let is_part_of_device = || directory.join("master/device").exists();
    let is_end_of_guest = || link_name("device/subsystem").is_some_and(|bus| bus == "xen-backend");
    is_device && !is_over_another() && !is_part_of_device() && !is_end_of_guest()
}

fn read(class: &Path, name: &str, attribute: &str) -> Option<String> {
    fs::read_to_string(class.join(name).join(attribute)).ok().map(|text| text.trim().to_owned())
}

fn is_own_by_name(name: &str) -> bool {
    // Bridges have a digit or a dash behind `br`; VLANs, aliases and pairs have another name within theirs.
    let is_bridge =
        name.strip_prefix("br").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
    let is_left_out = name == "lo" || NO_OWN_TRAFFIC.iter().any(|start| name.starts_with(start));
    !is_bridge && !name.contains(['.', ':', '@']) && !is_left_out
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};
    use super::*;

    const HEAD: &str = "Inter-|   Receive  |  Transmit\n face |bytes    packets |bytes\n";

    fn traffic(name: &str, bytes: [u64; 2]) -> Traffic {
        Traffic { name: name.into(), bytes }
    }

    fn own(sysfs: &Path, names: &str) -> Vec<SmolStr> {
        own_interfaces(sysfs, &names.split(' ').map(|name| traffic(name, [0, 0])).collect::<Vec<_>>())
    }

    #[test]
    fn net_dev_of_old_and_new_kernels_is_parsed() {
        let lines = "    lo:1000 9 0 0 0 0 0 0 1000 9 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n\
                     eth0:1: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let devices = vec![traffic("lo", [1000, 1000]), traffic("eth0", [5, 7]), traffic("eth0:1", [0, 0])];
        assert_eq!(parse(&format!("{HEAD}{lines}")), Lines { devices: devices.clone(), problem: None });
        for wrong in ["eth1: 1 2 3\n", "eth1 1 2 3\n", "eth1: -1 0 0 0 0 0 0 0 0 0\n"] {
            let problem = Some("line 4 of the devices cannot be parsed".to_owned());
            assert_eq!(parse(&format!("{HEAD}{lines}{wrong}")), Lines { devices: devices.clone(), problem }, "{wrong}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_takes_no_other_one_away() {
        let line = |bytes| format!("  eth0: {bytes} 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n");
        let mut host = Host::new("net:eth0", &[("net/dev", "")]);
        for (bytes, values) in [(5, vec![]), (25, vec![is("net-in:eth0", 10.0), is("net-out:eth0", 0.0)])] {
            let mut text = format!("{HEAD}{}", line(bytes)).into_bytes();
            text.extend(b"  \xfe\xff: 1 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n");
            fs::write(host.root.path().join("net/dev"), text).unwrap();
            assert_eq!(host.values(&[]), values);
        }
    }

    #[test]
    fn names_tell_interfaces_where_there_is_no_sysfs() {
        let names = "lo eth0 eth0.100 eth0:1 enp3s0 wlan0 wlp2s0 ens5 venet0 veth12ab docker0 br-12ab34cd br0 brcm0 \
                     virbr0 bond0 wg0 tun0 ib0 ifb0 usb0 eno1 wwan0 vlan20 podman1 lxdbr1 macvtap3 ppp1 ztxyz ovs-netdev \
                     fwln101i0 ipsec1 vboxnet1";
        let expected = ["eth0", "enp3s0", "wlan0", "wlp2s0", "ens5", "venet0", "brcm0", "ib0", "usb0", "eno1", "wwan0"];
        assert_eq!(own(Path::new("/nowhere"), names), expected);
        assert_eq!(own(Path::new("/nowhere"), "lo ppp0"), ["ppp0"], "the only way out");
    }

    /// A sysfs of interfaces: the name, files with their contents, and directories that end with a slash.
    fn sysfs(interfaces: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, files) in interfaces {
            let directory = root.path().join("class/net").join(name);
            fs::create_dir_all(&directory).unwrap();
            for (file, content) in *files {
                if file.ends_with('/') {
                    fs::create_dir_all(directory.join(file)).unwrap();
                } else {
                    fs::write(directory.join(file), content).unwrap();
                }
            }
        }
        root
    }

    #[test]
    fn devices_of_sysfs_count_whatever_their_names() {
        let (index, link, device) = (("ifindex", "2\n"), ("iflink", "2\n"), ("device/", ""));
        let root = sysfs(&[
            ("lo", &[]),
            ("uplink", &[device, index, link, ("operstate", "up\n")]),
            ("tap-like", &[device, index, link]),
            ("eth9", &[index, link]),
            ("lan1", &[device, index, ("iflink", "3\n")]),
            ("fast0", &[device, index, link, ("master/device/", "")]),
            ("member", &[device, index, link, ("master/", "")]),
            ("vif1.0", &[index, link, device]),
        ]);
        std::os::unix::fs::symlink("../../../bus/xen-backend", root.path().join("class/net/vif1.0/device/subsystem"))
            .unwrap();
        let names = "lo uplink tap-like eth9 lan1 fast0 member vif1.0 gone";
        assert_eq!(own(root.path(), names), ["uplink", "tap-like", "member"]);
    }

    #[test]
    fn the_only_interface_that_is_up_counts_where_no_device_is() {
        let (up, down) = (("operstate", "unknown\n"), ("operstate", "down\n"));
        let root = sysfs(&[("lo", &[up]), ("eth0", &[("device/", ""), down]), ("ppp0", &[up]), ("sit0", &[down])]);
        assert_eq!(own(root.path(), "lo eth0 ppp0 sit0"), ["ppp0"]);
        let container = sysfs(&[("lo", &[up]), ("eth0", &[up]), ("wg0", &[up])]);
        assert_eq!(own(container.path(), "lo eth0 wg0"), ["eth0"], "by their names");
    }

    #[test]
    fn a_mount_of_another_proc_is_read_by_its_first_process() {
        assert_eq!(file(Path::new("/proc")), "net/dev");
        let root = tempfile::tempdir().unwrap();
        assert_eq!(file(root.path()), "net/dev");
        fs::create_dir_all(root.path().join("1/net/dev")).unwrap();
        assert_eq!(file(root.path()), "1/net/dev");
        if cfg!(target_os = "linux") {
            assert_eq!(file(Path::new("/proc/self/root/proc")), "1/net/dev", "though it may be hidden");
        }
    }
}
