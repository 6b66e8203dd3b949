//! Traffic of disks and network interfaces: `/proc/diskstats` and `/proc/net/dev`, and what two readings of them make.
//!
//! What all disks or interfaces of a machine moved is told without those whose traffic another one counts already.

use std::time::Duration;

use smol_str::SmolStr;

/// Length of a sector in `/proc/diskstats`, whatever the disk's own (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

/// Beginnings of the names of block devices that are made of others (`md`, `dm`, `bcache`, `drbd`, `zd`), of memory or
/// files (`ram`, `zram`, `loop`), or hold no disk by nature (`sr`, `fd`).
const NO_DISKS: [&str; 10] = ["loop", "ram", "zram", "dm-", "md", "bcache", "drbd", "zd", "sr", "fd"];

/// Beginnings of the names of interfaces that hand on what others carry, or what never leaves the machine. `br` is one
/// with a digit or a dash behind it, as `lo` is by itself.
const NO_INTERFACES: [&str; 24] = [
    "veth",
    "docker",
    "virbr",
    "vmbr",
    "vnet",
    "cni",
    "flannel",
    "cali",
    "lxc",
    "cilium",
    "kube-",
    "nodelocaldns",
    "tun",
    "tap",
    "wg",
    "dummy",
    "ifb",
    "bond",
    "team",
    "vxlan",
    "gre",
    "sit",
    "ip6tnl",
    "tailscale",
];

/// Bytes that a device has moved since the system started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) name: SmolStr,
    /// Read and written, or received and sent.
    pub(super) bytes: [u64; 2],
}

/// Reads `/proc/diskstats`: of each line the name and, in sectors, what was read and written. Lines of seven fields,
/// which partitions had before Linux 2.6.25, are passed over.
pub(super) fn parse_diskstats(text: &str) -> Result<Vec<Traffic>, String> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [_, _, name, _, _, read, _, _, _, written] = fields[..] else {
            return if fields.len() == 7 { Some(None) } else { None };
        };
        let bytes = |sectors: &str| Some(sectors.parse::<u64>().ok()?.wrapping_mul(SECTOR_BYTES));
        Some(Some(Traffic { name: name.into(), bytes: [bytes(read)?, bytes(written)?] }))
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.filter_map(|line| parse(line).ok_or_else(|| format!("{line:?} is no line of a device")).transpose()).collect()
}

/// Reads `/proc/net/dev`: of each line after the two of the heading the name, and received and sent bytes.
pub(super) fn parse_net_dev(text: &str) -> Result<Vec<Traffic>, String> {
    let parse = |line: &str| {
        // Old kernels have no space behind the colon, and the name of an alias has a colon of its own.
        let (name, numbers) = line.rsplit_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        let bytes = [numbers.next()?.ok()?, numbers.nth(7)?.ok()?];
        Some(Traffic { name: name.trim().into(), bytes })
    };
    let lines = text.lines().skip(2);
    lines.map(|line| parse(line).ok_or_else(|| format!("{line:?} is no line of an interface"))).collect()
}

/// Whether a block device is a disk of its own, as the others in the list tell.
pub(super) fn is_disk(name: &str, all: &[Traffic]) -> bool {
    !NO_DISKS.iter().any(|start| name.starts_with(start)) && !all.iter().any(|other| is_partition(name, &other.name))
}

/// Whether a name is that of a partition of `disk`: `sda1` of `sda`, `nvme0n1p2` of `nvme0n1`, but no `nvme0n10`.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else { return false };
    let number = if disk.ends_with(|last: char| last.is_ascii_digit()) { rest.strip_prefix('p') } else { Some(rest) };
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether an interface is where traffic leaves and enters the machine or container.
pub(super) fn is_interface(name: &str, _all: &[Traffic]) -> bool {
    let is_bridge =
        name.strip_prefix("br").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
    let is_part_of_another = name.contains(['.', ':', '@']);
    let is_left_out = name == "lo" || NO_INTERFACES.iter().any(|start| name.starts_with(start));
    !is_bridge && !is_part_of_another && !is_left_out
}

/// Bytes a second of the devices for which `counts` says so. A device that was not there before, or whose counter
/// went backwards because it is another one now, is left out this time; `None` where no device is left.
pub(super) fn rates(
    before: &[Traffic],
    after: &[Traffic],
    elapsed: Duration,
    counts: impl Fn(&str, &[Traffic]) -> bool,
) -> Option<[f64; 2]> {
    let moved = |device: &Traffic| {
        let old = before.iter().find(|old| old.name == device.name)?;
        let [first, second] = [0, 1].map(|way| device.bytes[way].checked_sub(old.bytes[way]));
        Some([first?, second?])
    };
    let sum = after
        .iter()
        .filter(|device| counts(&device.name, after))
        .filter_map(moved)
        .reduce(|sum, more| [0, 1].map(|way| sum[way].saturating_add(more[way])))?;
    #[expect(clippy::cast_precision_loss, reason = "whole bytes a second are kept of it")]
    let per_sec = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64()).round();
    (!elapsed.is_zero()).then(|| sum.map(per_sec))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn traffic(name: &str, bytes: [u64; 2]) -> Traffic {
        Traffic { name: name.into(), bytes }
    }

    #[test]
    fn diskstats_of_old_and_new_kernels_are_read() {
        let text = "   8       0 sda 10 1 200 5 20 2 400 9 0 14 14\n   8       1 sda1 5 6 7 8\n\
                    259       0 nvme0n1 1 0 8 1 1 0 16 1 0 1 1 0 0 0 0 3 4\n";
        let expected = vec![traffic("sda", [102_400, 204_800]), traffic("nvme0n1", [4096, 8192])];
        assert_eq!(parse_diskstats(text), Ok(expected));
        assert_eq!(parse_diskstats(""), Ok(Vec::new()));
        for wrong in ["8 0 sda", "8 0 sda 1 2 x 4 5 6 7 8 9 10 11", "8 0 sda 1 2 3 4 5 6 -7 8 9 10 11"] {
            assert!(parse_diskstats(wrong).unwrap_err().contains("sda"), "{wrong}");
        }
    }

    #[test]
    fn net_dev_of_old_and_new_kernels_is_read() {
        let head = "Inter-|   Receive  |  Transmit\n face |bytes    packets |bytes\n";
        let lines = "    lo:1000 9 0 0 0 0 0 0 1000 9 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n\
                     eth0:1: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let expected = vec![traffic("lo", [1000, 1000]), traffic("eth0", [5, 7]), traffic("eth0:1", [0, 0])];
        assert_eq!(parse_net_dev(&format!("{head}{lines}")), Ok(expected));
        assert!(parse_net_dev(&format!("{head} eth0: 1 2 3\n")).is_err());
        assert!(parse_net_dev(&format!("{head} eth0 1 2 3\n")).is_err());
    }

    #[test]
    fn partitions_and_what_is_made_of_disks_are_no_disks() {
        let names = [
            "sda",
            "sda1",
            "sdaa",
            "sdaa12",
            "nvme0n1",
            "nvme0n1p1",
            "nvme0n10",
            "mmcblk0",
            "mmcblk0p2",
            "xvda1",
            "vdb",
            "loop0",
            "ram1",
            "zram0",
            "dm-0",
            "md127",
            "md127p1",
            "sr0",
            "fd0",
            "bcache0",
            "zd16",
        ];
        let all: Vec<Traffic> = names.iter().map(|name| traffic(name, [0, 0])).collect();
        let disks: Vec<&str> = names.into_iter().filter(|name| is_disk(name, &all)).collect();
        assert_eq!(disks, ["sda", "sdaa", "nvme0n1", "nvme0n10", "mmcblk0", "xvda1", "vdb"]);
    }

    #[test]
    fn interfaces_that_hand_on_what_others_carry_do_not_count() {
        let names = [
            "lo",
            "eth0",
            "eth0.100",
            "eth0:1",
            "enp3s0",
            "wlan0",
            "wlp2s0",
            "ens5",
            "venet0",
            "veth12ab",
            "docker0",
            "br-12ab34cd",
            "br0",
            "brcm0",
            "virbr0",
            "bond0",
            "wg0",
            "tun0",
            "ib0",
            "ifb0",
            "usb0",
            "eno1",
            "wwan0",
        ];
        let kept: Vec<&str> = names.into_iter().filter(|name| is_interface(name, &[])).collect();
        let expected = ["eth0", "enp3s0", "wlan0", "wlp2s0", "ens5", "venet0", "brcm0", "ib0", "usb0", "eno1", "wwan0"];
        assert_eq!(kept, expected);
    }

    #[test]
    fn devices_come_and_go_and_are_replaced_without_nonsense() {
        let any = |_: &str, _: &[Traffic]| true;
        let before = [traffic("a", [100, 1000]), traffic("b", [5000, 0])];
        let after = [traffic("a", [300, 1000]), traffic("b", [5100, 50])];
        assert_eq!(rates(&before, &after, 2 * SECOND, any), Some([150.0, 25.0]));
        assert_eq!(rates(&before, &before, SECOND, any), Some([0.0, 0.0]));
        let only_a = |name: &str, _: &[Traffic]| name == "a";
        assert_eq!(rates(&before, &after, SECOND, only_a), Some([200.0, 0.0]));
        let swapped = [traffic("a", [300, 1000]), traffic("b", [0, 50]), traffic("c", [1 << 60, 1 << 60])];
        assert_eq!(rates(&before, &swapped, SECOND, any), Some([200.0, 0.0]), "b is another one, and c is new");
        assert_eq!(rates(&before, &[], SECOND, any), None, "no disk is not a disk that is idle");
        assert_eq!(rates(&before, &after, Duration::ZERO, any), None);
        let most = [traffic("a", [u64::MAX; 2]), traffic("b", [u64::MAX; 2])];
        assert!(rates(&before, &most, SECOND, any).unwrap().iter().all(|rate| rate.is_finite()));
    }
}
