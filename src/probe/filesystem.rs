//! How full file systems are, by `statvfs(3)`. Each is asked by a thread of its own, since the call hangs where the
//! server of a file system is gone. The root alone, where its answer comes out of this host's memory, is asked at
//! once: two threads that wake each other cost as much as a quarter of a tick.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[cfg(target_os = "linux")]
use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::background::BackgroundCall;
use super::percent;

/// One file system: the one that holds a path.
pub(super) struct Mount {
    path: PathBuf,
    /// Nothing where it is asked at once.
    aside: Option<BackgroundCall<Result<f64, String>>>,
}

impl Mount {
    /// The file system that holds `path` of the system whose root is mounted at `rootfs`.
    pub(super) fn new(rootfs: &Path, path: &str) -> io::Result<Self> {
        let path = rootfs.join(path.trim_start_matches('/'));
        if never_waits(&path) {
            return Ok(Self { path, aside: None });
        }
        let asked = path.clone();
        let aside = BackgroundCall::start("statvfs", move || used_percent(&asked))?;
        Ok(Self { path, aside: Some(aside) })
    }

    pub(super) fn ask(&mut self) {
        self.aside.iter_mut().for_each(BackgroundCall::ask);
    }

    /// Used space in percent.
    pub(super) fn answer(&mut self, until: Instant) -> Result<f64, String> {
        let Some(aside) = &mut self.aside else { return used_percent(&self.path) };
        let late = || Err(format!("the file system of {} does not answer", self.path.display()));
        aside.answer(until).unwrap_or_else(late)
    }
}

/// Whether a file system answers without a disk or a server, and cannot be replaced by one of another kind while this
/// process runs, as by a mount over it: no path but the root leads to what it did for sure.
#[cfg(target_os = "linux")]
fn never_waits(path: &Path) -> bool {
    // ext4 has the number of ext2 and ext3 too. XFS may wait for its disk, and overlayfs asks another file system.
    path == Path::new("/")
        && statfs(path).is_ok_and(|about| [EXT4_SUPER_MAGIC, TMPFS_MAGIC].contains(&about.filesystem_type()))
}

#[cfg(not(target_os = "linux"))]
fn never_waits(_path: &Path) -> bool {
    false
}

fn used_percent(path: &Path) -> Result<f64, String> {
    let said = statvfs(path).map_err(|error| format!("cannot read the file system of {}: {error}", path.display()))?;
    // The types of these differ between systems.
    #[allow(clippy::useless_conversion, reason = "they are of 32 bits on some systems")]
    let [blocks, free, available] = [said.blocks().into(), said.blocks_free().into(), said.blocks_available().into()];
    used(blocks, free, available).ok_or_else(|| format!("the file system of {} has no size", path.display()))
}

/// Used blocks in percent of those that others than the superuser may use, as `df` has it.
fn used(blocks: u64, free: u64, available: u64) -> Option<f64> {
    let used = blocks.saturating_sub(free);
    percent(used, used.saturating_add(available))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn used_is_what_df_says() {
        // Of 1,000 blocks 50 are kept for the superuser.
        assert_eq!(used(1000, 430, 380), Some(60.0));
        assert_eq!(used(1000, 50, 0), Some(100.0));
        assert_eq!(used(1000, 1000, 950), Some(0.0));
        assert_eq!(used(0, 0, 0), None);
        assert_eq!(used(10, 20, 5), Some(0.0), "more free blocks than there are");
    }

    #[test]
    fn a_path_is_below_the_root_and_its_problems_name_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("var")).unwrap();
        let read = |path: &str| {
            let mut mount = Mount::new(root.path(), path).unwrap();
            mount.ask();
            mount.answer(Instant::now() + Duration::from_secs(30))
        };
        let (whole, var) = (read("/").unwrap(), read("/var").unwrap());
        assert!((0.0..=100.0).contains(&whole) && (0.0..=100.0).contains(&var));
        let said = read("/gone").unwrap_err();
        assert!(said.contains(&format!("{}/gone: ", root.path().display())), "{said}");
        if cfg!(target_os = "linux") {
            let mut proc = Mount::new(Path::new("/"), "/proc").unwrap();
            proc.ask();
            assert!(proc.answer(Instant::now() + Duration::from_secs(30)).unwrap_err().contains("has no size"));
        }
    }
}
