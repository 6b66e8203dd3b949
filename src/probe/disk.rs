//! `disk`: used space of file systems in percent, as `df` shows it, and `disk-free`: what users other than root may
//! still write. By `statvfs(3)`.
//!
//! `disk` is the root file system, and every other one that is on a disk or a server as `disk:PATH`; `disk:PATH` selects
//! the one that holds the path. The root and those selected are read each tick, the others every ten seconds by a
//! thread each, and their values hold.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::background::BackgroundCall;
use super::filesystem::{Usage, usage};
use super::mounts::{Mount, parse_mounts};
use super::{About, Label, Probe, Target, Tick};
use crate::sample::check_label;

pub(super) const ABOUT: About = About {
    name: "disk",
    target: Target::Optional("PATH"),
    labels: &[
        Label { name: "disk", unit: "%", what: "used space of the root and of all others, or of that of PATH" },
        Label { name: "disk-free", unit: "B", what: "space that is left to users" },
    ],
    source: "statvfs(3)",
    is_default: true,
    new: |setup| {
        let mut paths = Vec::new();
        for target in &setup.targets {
            paths.push((setup.filesystems.add(target.as_deref().unwrap_or("/"))?, target.clone()));
        }
        let others = setup.targets.contains(&None).then(|| Others {
            mountinfo: setup.options.mountinfo(),
            rootfs: setup.options.rootfs.clone(),
            globs: setup.options.disks.clone(),
            selected: setup.targets.into_iter().flatten().collect(),
            listed_at: None,
            disks: Vec::new(),
        });
        Ok(Box::new(Disk { paths, others }))
    },
};

/// How often mounts are listed.
const LISTED_EVERY: Duration = Duration::from_secs(60);
/// How often the file systems that are listed are read.
const READ_EVERY: Duration = Duration::from_secs(10);
/// How long a value holds while a file system does not answer.
const HELD_FOR: Duration = Duration::from_secs(30);
/// Most file systems that are listed, beside the root: those whose paths come first.
const OTHERS_MAX: usize = 31;

/// File systems of other machines and of pools, whose sources are no paths.
const REAL_KINDS: [&str; 4] = ["zfs", "virtiofs", "9p", "ceph"];
/// File systems that are full by nature, in memory, or a view of others.
const UNREAL_KINDS: [&str; 10] =
    ["autofs", "cramfs", "devtmpfs", "erofs", "iso9660", "overlay", "ramfs", "squashfs", "tmpfs", "udf"];

struct Disk {
    /// Each selected file system by its index, and the path that the label has.
    paths: Vec<(usize, Option<String>)>,
    others: Option<Others>,
}

impl Probe for Disk {
    fn read(&mut self, tick: &mut Tick<'_>) {
        for (filesystem, path) in &self.paths {
            match tick.filesystems.usage(*filesystem, tick.until) {
                Ok(usage) => give(tick, path.as_deref(), usage),
                Err(why) => tick.report(path.as_deref(), &why),
            }
        }
        if let Some(others) = &mut self.others {
            others.read(tick);
        }
    }

    fn is_pending(&self) -> bool {
        self.others.iter().flat_map(|others| &others.disks).any(|disk| disk.answer.is_none())
    }
}

fn give(tick: &mut Tick<'_>, path: Option<&str>, usage: Option<Usage>) {
    tick.give("disk", path, usage.map(|usage| usage.used_percent));
    #[expect(clippy::cast_precision_loss, reason = "file systems have less than 2^53 bytes, or it does not matter")]
    tick.give("disk-free", path, usage.map(|usage| usage.free_bytes as f64));
}

/// The file systems beside the root, as they are mounted now.
struct Others {
    mountinfo: &'static str,
    rootfs: PathBuf,
    /// Patterns of the paths to read.
    globs: Vec<String>,
    /// Paths that are read each tick.
    selected: Vec<String>,
    listed_at: Option<Duration>,
    disks: Vec<Other>,
}

/// One of them.
struct Other {
    path: String,
    call: BackgroundCall<Result<Usage, String>>,
    asked_at: Option<Duration>,
    answered_at: Duration,
    answer: Option<Result<Usage, String>>,
}

impl Others {
    fn read(&mut self, tick: &mut Tick<'_>) {
        if self.listed_at.is_none_or(|at| tick.at.saturating_sub(at) >= LISTED_EVERY) {
            self.listed_at = Some(tick.at);
            self.list(tick);
        }
        for disk in &mut self.disks {
            if disk.asked_at.is_none_or(|at| tick.at.saturating_sub(at) >= READ_EVERY) {
                disk.call.ask();
                disk.asked_at = Some(tick.at);
            }
            if let Some(answer) = disk.call.poll() {
                (disk.answer, disk.answered_at) = (Some(answer), tick.at);
            }
            if tick.at.saturating_sub(disk.answered_at) >= HELD_FOR {
                disk.answer = Some(Err("the file system does not answer".to_owned()));
            }
            match &disk.answer {
                Some(Ok(usage)) => give(tick, Some(&disk.path), Some(*usage)),
                Some(Err(why)) => tick.report(Some(&disk.path), why),
                None => {}
            }
        }
    }

    /// Adds the file systems that are mounted now, and removes those that are not.
    fn list(&mut self, tick: &mut Tick<'_>) {
        // Without mountinfo, as in sandboxes, there is the root alone.
        let Ok(text) = tick.files.text(self.mountinfo) else { return };
        let mut paths = paths(&parse_mounts(&text), &self.globs);
        paths.retain(|path| !self.selected.contains(path));
        if paths.len() > OTHERS_MAX {
            tick.leave_out(&format!(
                "{} file systems have no label, {OTHERS_MAX} beside the root have",
                paths.len() - OTHERS_MAX
            ));
            paths.truncate(OTHERS_MAX);
        }
        self.disks.retain(|disk| paths.contains(&disk.path));
        for path in paths {
            if self.disks.iter().any(|disk| disk.path == path) {
                continue;
            }
            let (rootfs, below) = (self.rootfs.clone(), PathBuf::from(&path));
            match BackgroundCall::start("statvfs", move || usage(&rootfs, &below)) {
                Ok(call) => {
                    self.disks.push(Other { path, call, asked_at: None, answered_at: tick.at, answer: None });
                }
                Err(error) => tick.report(Some(&path), &format!("cannot start a thread: {error}")),
            }
        }
    }
}

/// Where the file systems beside the root are mounted that are on a disk or a server: each once, by its shortest path.
fn paths(mounts: &[Mount], globs: &[String]) -> Vec<String> {
    let is_real = |mount: &Mount| {
        let has_source = mount.source.contains(['/', ':']) || REAL_KINDS.contains(&&*mount.kind);
        has_source && !UNREAL_KINDS.contains(&&*mount.kind)
    };
    // Container engines mount single files there.
    let is_directory = |mount: &Mount| !mount.point.starts_with("/etc");
    let mut real: Vec<&Mount> = mounts.iter().filter(|mount| is_real(mount) && is_directory(mount)).collect();
    real.sort_by_key(|mount| mount.point.as_os_str().len());
    let mut once: Vec<&Mount> = Vec::new();
    for mount in real {
        if !once.iter().any(|known| known.device == mount.device || known.source == mount.source) {
            once.push(mount);
        }
    }
    let mut paths: Vec<String> = once
        .into_iter()
        .filter(|mount| mount.point != Path::new("/"))
        .filter_map(|mount| Some(mount.point.to_str()?.to_owned()))
        .filter(|path| {
            globs.iter().any(|glob| is_like(glob, path)) && check_label(&format!("disk-free:{path}")).is_ok()
        })
        .collect();
    paths.sort_unstable();
    paths
}

/// Whether a text is like a pattern, in which `*` stands for any characters and `?` for one.
pub(super) fn is_like(pattern: &str, text: &str) -> bool {
    let (mut wanted, mut rest) = (pattern.chars(), text.chars());
    // What follows the last star, and the first of the text that the star has not taken.
    let mut star = None;
    loop {
        match (wanted.next(), rest.clone().next()) {
            (Some('*'), _) => star = Some((wanted.clone(), rest.clone())),
            (None, None) => return true,
            (Some(want), Some(c)) if want == '?' || want == c => drop(rest.next()),
            _ => {
                // The star takes one more.
                let Some((behind, from)) = &mut star else { return false };
                if from.next().is_none() {
                    return false;
                }
                (wanted, rest) = (behind.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Host;
    use super::*;

    const MOUNTS: &str = "\
        22 1 8:2 / / rw - ext4 /dev/sda2 rw\n\
        23 22 8:2 /srv /var/snapshot rw - ext4 /dev/sda2 rw\n\
        24 22 8:1 / /boot rw - ext4 /dev/sda1 rw\n\
        25 24 8:3 / /boot/efi rw - vfat /dev/sda3 rw\n\
        26 22 0:30 / /tmp rw - tmpfs tmpfs rw\n\
        27 22 0:31 / /proc rw - proc proc rw\n\
        28 22 0:32 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw,lowerdir=/a:/b\n\
        29 22 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro\n\
        30 22 0:40 / /home rw - nfs4 nas:/home rw\n\
        31 22 0:41 / /tank rw - zfs tank rw\n\
        32 22 0:42 /@a /data/sub/a rw - btrfs /dev/sdb rw\n\
        33 22 0:43 /@ /data rw - btrfs /dev/sdb rw\n\
        34 22 8:2 /hosts /etc/hosts rw - ext4 /dev/sda9 rw\n\
        35 22 0:50 / /run/user/1000/doc rw - fuse.portal portal rw\n";

    #[test]
    fn real_file_systems_are_listed_once_each() {
        let listed = |globs: &[&str]| {
            paths(&parse_mounts(MOUNTS), &globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(listed(&["*"]), ["/boot", "/boot/efi", "/data", "/home", "/tank"]);
        assert_eq!(listed(&["/boot*", "/da?a"]), ["/boot", "/boot/efi", "/data"]);
        assert_eq!(listed(&[]), [""; 0]);
    }

    #[test]
    fn only_so_many_are_read_and_the_rest_is_counted() {
        let line = |n: u32| format!("{n} 1 8:{n} / /nonexistent/{n} rw - ext4 /dev/sd{n} rw\n");
        let mounts: String = (10..50).map(line).collect();
        let mut host = Host::new("disk", &[("self/mountinfo", &mounts)]);
        let all = "probe disk is left out: 9 file systems have no label, 31 beside the root have";
        assert_eq!(host.read(&[]).left_out, [all]);
        while host.read(&[]).problems.len() < OTHERS_MAX {
            // The threads answer a while later.
            std::thread::yield_now();
        }
    }

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, path, is) in [
            ("/var", "/var", true),
            ("/var", "/var/lib", false),
            ("/var*", "/var/lib", true),
            ("*lib", "/var/lib", true),
            ("/?ar", "/var", true),
            ("/?", "/", false),
            ("", "", true),
            ("*", "/ä", true),
            ("**a*b*", "/xaxxb", true),
            ("*a*b", "/xaxxbc", false),
            ("/?", "/ä", true),
            ("/ä", "/a", false),
        ] {
            assert_eq!(is_like(pattern, path), is, "{pattern} {path}");
        }
    }

    #[test]
    fn other_file_systems_are_read_beside_the_root_and_left_out_when_they_are_gone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().to_str().unwrap();
        let line = format!("30 1 8:9 / {path} rw - ext4 /dev/sdz rw\n");
        let mut host = Host::new("disk", &[("self/mountinfo", &line)]);
        let label = format!("disk:{path}");
        let has = |reading: &super::super::Reading| reading.values.iter().any(|(known, _)| *known == label);
        let reading = loop {
            let reading = host.read(&[]);
            if has(&reading) {
                break reading;
            }
            // The thread that reads it answers a while later.
            std::thread::yield_now();
        };
        let names: Vec<&str> = reading.values.iter().map(|(name, _)| name.split(':').next().unwrap()).collect();
        assert_eq!(names, ["disk", "disk-free", "disk", "disk-free"]);
        let gone = (0..40).map(|_| host.read(&[("self/mountinfo", "")])).last().unwrap();
        assert!(!has(&gone) && gone.values.len() == 2, "{gone:?}");
    }
}
