//! Usage of file systems, by `statvfs(3)`. The call hangs where the server of a file system is gone, so that a thread
//! of its own makes it for each path.
//!
//! The root alone is asked by the tick itself where it cannot hang: two threads that wake each other cost as much as a
//! quarter of a tick.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

#[cfg(target_os = "linux")]
use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::background::BackgroundCall;
use super::{one_decimal, percent};

/// Most symbolic links in one path, as in the kernel.
const LINKS_MAX: u32 = 40;

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// Used space in percent of what users other than root may have. Above 100 where root has used what is reserved
    /// for it.
    pub(super) used_percent: f64,
    /// Space that users other than root may still write.
    pub(super) free_bytes: u64,
    /// Inodes in use in percent; `None` where their number is not fixed.
    pub(super) inodes_percent: Option<f64>,
}

/// The file systems that probes ask for.
pub(super) struct FileSystems {
    rootfs: PathBuf,
    calls: Vec<FileSystem>,
}

/// The file system that holds one path.
struct FileSystem {
    path: PathBuf,
    /// `None` where the tick makes the call itself.
    call: Option<BackgroundCall<Result<Usage, String>>>,
    /// What this tick has found, for all probes that ask.
    answer: Option<Result<Option<Usage>, String>>,
}

impl FileSystems {
    /// File systems of the system whose root is mounted at `rootfs`.
    pub(super) fn new(rootfs: PathBuf) -> Self {
        Self { rootfs, calls: Vec::new() }
    }

    /// Adds the file system that holds `path`, which begins with `/`, unless it is there, and returns its index.
    pub(super) fn add(&mut self, path: &str) -> io::Result<usize> {
        if let Some(index) = self.calls.iter().position(|known| known.path == Path::new(path)) {
            return Ok(index);
        }
        let path = PathBuf::from(path);
        let call = if self.rootfs == Path::new("/") && cannot_hang(&path) {
            None
        } else {
            let (rootfs, path) = (self.rootfs.clone(), path.clone());
            Some(BackgroundCall::start("statvfs", move || usage(&rootfs, &path))?)
        };
        self.calls.push(FileSystem { path, call, answer: None });
        Ok(self.calls.len() - 1)
    }

    /// Starts the calls of this tick.
    pub(super) fn ask(&mut self) {
        for filesystem in &mut self.calls {
            filesystem.answer = None;
            filesystem.call.iter_mut().for_each(BackgroundCall::ask);
        }
    }

    /// The usage of the file system with this index; `None` if it does not answer before `until`, and an error once it
    /// hangs.
    pub(super) fn usage(&mut self, index: usize, until: Instant) -> Result<Option<Usage>, String> {
        let FileSystem { path, call, answer } = &mut self.calls[index];
        let ask = || match call {
            None => usage(&self.rootfs, path).map(Some),
            Some(call) => match call.answer(until) {
                Some(answer) => answer.map(Some),
                None if call.hangs() => Err("the file system does not answer".to_owned()),
                None => Ok(None),
            },
        };
        answer.get_or_insert_with(ask).clone()
    }
}

/// Whether the file system of a path answers without a disk or a server, and no mount can put another one in its place
/// while this process runs: that is sure of the root alone.
#[cfg(target_os = "linux")]
fn cannot_hang(path: &Path) -> bool {
    // The number of ext4 is that of ext2 and ext3 too. XFS may wait for its disk, and overlayfs asks another one.
    path == Path::new("/")
        && statfs(path).is_ok_and(|about| [EXT4_SUPER_MAGIC, TMPFS_MAGIC].contains(&about.filesystem_type()))
}

#[cfg(not(target_os = "linux"))]
fn cannot_hang(_path: &Path) -> bool {
    false
}

/// Usage of the file system that holds `path` below `rootfs`.
pub(super) fn usage(rootfs: &Path, path: &Path) -> Result<Usage, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such path".to_owned(),
        _ => format!("cannot read the file system: {error}"),
    };
    let path = if rootfs == Path::new("/") { path.to_owned() } else { resolve(rootfs, path).map_err(failed)? };
    let about = statvfs(&path).map_err(|error| failed(error.into()))?;
    let [blocks, free, available, inodes, free_inodes, fragment_bytes] = [
        about.blocks(),
        about.blocks_free(),
        about.blocks_available(),
        about.files(),
        about.files_free(),
        about.fragment_size(),
    ]
    // They have 32 bits on macOS.
    .map(|count| -> u64 {
        #[allow(clippy::useless_conversion, reason = "their type differs between systems")]
        count.into()
    });
    let used_percent = used_percent(blocks, free, available).ok_or("the file system has no size")?;
    let inodes_percent = inodes.checked_sub(free_inodes).and_then(|used| percent(used, inodes));
    let available = u64::try_from(available.cast_signed()).unwrap_or(0);
    let free_bytes = available.saturating_mul(fragment_bytes);
    Ok(Usage { used_percent, free_bytes, inodes_percent })
}

/// Used blocks in percent of those that users other than root may have, as `df` computes it.
///
/// `available` is negative, as a number of 64 bits, where root has used more than all others may.
fn used_percent(blocks: u64, free: u64, available: u64) -> Option<f64> {
    let used = blocks.checked_sub(free)?;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is kept of it")]
    let (used, for_users) = (used as f64, used as f64 + available.cast_signed() as f64);
    if blocks == 0 {
        return None;
    }
    Some(if for_users > 0.0 { one_decimal(used / for_users * 100.0) } else { 100.0 })
}

/// Follows the symbolic links of a path as a process whose root is `root` would: absolute targets begin there, and
/// `..` does not leave it.
fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut resolved = PathBuf::new();
    let mut rest: Vec<PathBuf> = components(path);
    let mut links = 0;
    while let Some(component) = rest.pop() {
        if component == Path::new("/") {
            resolved.clear();
        } else if component == Path::new("..") {
            resolved.pop();
        } else {
            let below = resolved.join(&component);
            match root.join(&below).read_link() {
                Ok(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(nix::errno::Errno::ELOOP.into());
                    }
                    rest.extend(components(&target));
                }
                // It is not a link.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => resolved = below,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(root.join(resolved))
}

/// The components of a path, the last one first.
fn components(path: &Path) -> Vec<PathBuf> {
    let is_step = |component: &Component<'_>| *component != Component::CurDir;
    path.components().rev().filter(is_step).map(|component| PathBuf::from(component.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    #[test]
    fn used_space_is_what_df_shows() {
        // Of 1,000 blocks 50 are reserved for root.
        assert_eq!(used_percent(1000, 430, 380), Some(60.0));
        assert_eq!(used_percent(1000, 50, 0), Some(100.0));
        assert_eq!(used_percent(1000, 1000, 950), Some(0.0));
        assert_eq!(used_percent(0, 0, 0), None);
        assert_eq!(used_percent(10, 20, 5), None, "more free blocks than there are");
    }

    #[test]
    fn a_file_system_whose_reserve_is_in_use_is_more_than_full() {
        let negative = |blocks: i64| blocks.cast_unsigned();
        assert_eq!(used_percent(2000, 60, negative(-40)), Some(102.1));
        assert_eq!(used_percent(100, 0, negative(-100)), Some(100.0));
    }

    #[test]
    fn a_path_is_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("var")).unwrap();
        let mut filesystems = FileSystems::new(root.path().to_owned());
        let mut read = |path: &str| {
            let index = filesystems.add(path).unwrap();
            filesystems.ask();
            filesystems.usage(index, Instant::now() + Duration::from_secs(30))
        };
        let (whole, var) = (read("/").unwrap().unwrap(), read("/var").unwrap().unwrap());
        assert!(whole.used_percent >= 0.0 && var.used_percent >= 0.0);
        assert_eq!(read("/gone"), Err("there is no such path".to_owned()));
        if cfg!(target_os = "linux") {
            assert_eq!(usage(Path::new("/"), Path::new("/proc")), Err("the file system has no size".to_owned()));
        }
    }

    #[test]
    fn links_stay_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("srv/data/deep")).unwrap();
        for (target, link) in [
            ("/srv/data", "absolute"),
            ("srv/./data", "relative"),
            ("/../../srv", "above"),
            ("absolute/deep", "chain"),
            ("loop", "loop"),
            ("/proc", "out"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let resolved = |path: &str| resolve(root.path(), Path::new(path));
        for (path, expected) in [
            ("/", ""),
            ("/absolute", "srv/data"),
            ("/relative/../data", "srv/data"),
            ("/above/data/deep", "srv/data/deep"),
            ("/chain", "srv/data/deep"),
            ("/../../..", ""),
        ] {
            assert_eq!(resolved(path).unwrap(), at(expected), "{path}");
        }
        assert_eq!(resolved("/out").unwrap_err().kind(), io::ErrorKind::NotFound, "/proc is not below the root");
        assert!(resolved("/loop").unwrap_err().to_string().contains("symbolic links"));
    }
}
