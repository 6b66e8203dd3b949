//! `io`: bytes a second that the disks of the machine read and wrote; `io:DEVICE`: those of one block device. By
//! `/proc/diskstats`.
//!
//! A block device that passes on what others carry does not count towards the sum, so that each byte counts once.

use std::fs;
use std::path::Path;

use smol_str::SmolStr;

use super::traffic::{Lines, Meter, Traffic};
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "io",
    target: Target::Optional("DEVICE"),
    labels: &[
        Label { name: "disk-read", unit: "B/s", what: "read from all disks, or from DEVICE" },
        Label { name: "disk-write", unit: "B/s", what: "written to them" },
    ],
    source: "/proc/diskstats",
    is_default: true,
    new: |setup| {
        Ok(Box::new(Io(Meter {
            device: "block device",
            labels: ["disk-read", "disk-write"],
            targets: setup.targets,
            count: disks,
            sysfs: setup.options.sysfs(),
            before: None,
            counted: None,
        })))
    },
};

/// Length of a sector in `/proc/diskstats`, whatever the disk's own (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

/// Beginnings of the names of block devices that are no disks: they are made of others (`md`, `dm`, `bcache`, `drbd`,
/// `zd`), of other ways to the same disk (`emcpower`, `sddlm`, `vpath`, `VxDMP`), or of memory or files (`ram`,
/// `zram`, `loop`), or hold removable media (`sr`, `fd`).
const NO_DISKS: [&str; 14] =
    ["loop", "ram", "zram", "dm-", "md", "bcache", "drbd", "zd", "emcpower", "sddlm", "vpath", "VxDMP", "sr", "fd"];

struct Io(Meter);

impl Probe for Io {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let lines = tick.files.text("diskstats").map(|text| parse(&text));
        self.0.read(tick, lines);
    }
}

/// Parses `/proc/diskstats`. Lines of seven fields, which partitions had before Linux 2.6.25, are left out.
fn parse(text: &str) -> Lines {
    let lines = text.lines().filter(|line| ![0, 7].contains(&line.split_ascii_whitespace().take(8).count()));
    Lines::parse(lines, |line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?.into();
        let mut bytes = |skipped| Some(fields.nth(skipped)?.parse::<u64>().ok()?.wrapping_mul(SECTOR_BYTES));
        Some(Traffic { name, bytes: [bytes(2)?, bytes(3)?] })
    })
}

/// The disks among block devices, each once. Where sysfs has none, as in some sandboxes, names decide.
fn disks(sysfs: &Path, devices: &[Traffic]) -> Vec<SmolStr> {
    let names = || devices.iter().map(|device| device.name.clone());
    let block = sysfs.join("block");
    let disks: Vec<SmolStr> = names().filter(|name| is_disk(&block, name)).collect();
    if disks.is_empty() { names().filter(|name| is_disk_by_name(name, devices)).collect() } else { disks }
}

/// Whether a block device is a disk, by its directory in sysfs. Partitions have none there. What is made of others has
/// `slaves`, and what is made by software alone is no `device` of a bus, but for network block devices, which have the
/// `pid` of a client. A `hidden` device is one of several ways to a disk that is listed too.
fn is_disk(block: &Path, name: &str) -> bool {
    let directory = block.join(name.replace('/', "!"));
    let has = |file: &str| directory.join(file).exists();
    let is_hidden = || fs::read_to_string(directory.join("hidden")).is_ok_and(|hidden| hidden.trim() == "1");
    let has_slaves = || fs::read_dir(directory.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some());
    let is_removable_medium = name.starts_with("sr") || name.starts_with("fd");
    (has("device") || has("pid")) && !is_removable_medium && !is_hidden() && !has_slaves()
}

fn is_disk_by_name(name: &str, devices: &[Traffic]) -> bool {
    !NO_DISKS.iter().any(|start| name.starts_with(start))
        && !is_path_of_nvme(name)
        && !devices.iter().any(|other| is_partition(name, &other.name))
}

/// Whether a name is that of one way to an NVMe disk, such as `nvme0c1n1`.
fn is_path_of_nvme(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|rest| rest.contains('c'))
}

/// Whether a name is that of a partition of `disk`: `sda1` of `sda`, `nvme0n1p2` of `nvme0n1`, but no `nvme0n10`.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else { return false };
    let number = if disk.ends_with(|last: char| last.is_ascii_digit()) { rest.strip_prefix('p') } else { Some(rest) };
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(name: &str, bytes: [u64; 2]) -> Traffic {
        Traffic { name: name.into(), bytes }
    }

    #[test]
    fn diskstats_of_old_and_new_kernels_are_parsed() {
        let text = "   8       0 sda 10 1 200 5 20 2 400 9 0 14 14\n   8       1 sda1 5 6 7 8\n\n\
                    259       0 nvme0n1 1 0 8 1 1 0 16 1 0 1 1 0 0 0 0 3 4\n";
        let devices = vec![traffic("sda", [102_400, 204_800]), traffic("nvme0n1", [4096, 8192])];
        assert_eq!(parse(text), Lines { devices, problem: None });
        assert_eq!(parse(""), Lines { devices: Vec::new(), problem: None });
    }

    #[test]
    fn a_wrong_line_takes_no_other_one_away() {
        for wrong in ["8 0 sda", "8 0 sda 1 2 x 4 5 6 7 8 9 10 11", "8 0 sda 1 2 3 4 5 6 -7 8 9 10 11"] {
            let Lines { devices, problem } = parse(&format!("8 16 sdb 1 1 1 1 1 1 1 1\n{wrong}\n{wrong}\n"));
            assert_eq!(devices, [traffic("sdb", [512, 512])], "{wrong}");
            assert_eq!(problem, Some("line 2 of the devices cannot be parsed".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn names_tell_disks_where_there_is_no_sysfs() {
        let names = "sda sda1 sdaa sdaa12 nvme0n1 nvme0n1p1 nvme0n10 nvme0c1n1 mmcblk0 mmcblk0p2 xvda1 vdb nbd0 loop0 \
                     ram1 zram0 dm-0 md127 md127p1 sr0 fd0 bcache0 zd16 emcpowera sddlmaa VxDMP1";
        let devices: Vec<Traffic> = names.split(' ').map(|name| traffic(name, [0, 0])).collect();
        let expected = ["sda", "sdaa", "nvme0n1", "nvme0n10", "mmcblk0", "xvda1", "vdb", "nbd0"];
        assert_eq!(disks(Path::new("/nowhere"), &devices), expected);
    }

    #[test]
    fn sysfs_tells_disks_whatever_their_names() {
        let sysfs = tempfile::tempdir().unwrap();
        for directory in [
            "sda/device",
            "sdb/device",
            "dm-3/slaves/sda",
            "nvme1n1/device",
            "nvme1c2n1/device",
            "cciss!c0d0/device",
            "nbd0/pid",
            "nbd1/queue",
            "powerdisk0/queue",
            "sr0/device",
            "odd0/device",
            "odd0/slaves/sdb",
        ] {
            fs::create_dir_all(sysfs.path().join("block").join(directory)).unwrap();
        }
        fs::write(sysfs.path().join("block/nvme1c2n1/hidden"), "1\n").unwrap();
        fs::write(sysfs.path().join("block/nvme1n1/hidden"), "0\n").unwrap();
        let names = "sda sda1 sdb dm-3 nvme1n1 nvme1c2n1 cciss/c0d0 nbd0 nbd1 powerdisk0 sr0 odd0";
        let devices: Vec<Traffic> = names.split(' ').map(|name| traffic(name, [0, 0])).collect();
        assert_eq!(disks(sysfs.path(), &devices), ["sda", "sdb", "nvme1n1", "cciss/c0d0", "nbd0"]);
    }
}
