//! The lock of a store's directory: held from the start to the end of a process, whatever happens to the directory.
//!
//! The lock is a file that holds a random name of the store. fjall has a lock of its own, which it gives back whenever it
//! is closed; this one stays while the directory is opened again after a fault. And it tells whether the path still
//! leads to the same directory: a volume may be unmounted, and a directory removed or replaced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A locked directory.
pub(super) struct DirectoryLock {
    directory: PathBuf,
    /// `None` where the directory cannot be written and has no lock yet.
    file: Option<File>,
    /// What the file holds.
    name: String,
    /// The file system that the directory was on.
    device: u64,
}

impl DirectoryLock {
    /// Locks a directory that exists.
    ///
    /// # Errors
    /// When another process has locked it, or when it cannot be read.
    pub(super) fn acquire(directory: &Path) -> Result<Self, String> {
        let device = fs::metadata(directory).map_err(cannot_lock)?.dev();
        let mut lock = Self { directory: directory.to_owned(), file: None, name: new_name(), device };
        match lock.open() {
            Ok(file) => lock.file = Some(file),
            // Of a directory that cannot be written, what is there can be read.
            Err(error) if is_unwritable(&error) => return Ok(lock),
            Err(error) => return Err(cannot_lock(error)),
        }
        if let Some(file) = &mut lock.file {
            try_lock(file)?;
            let mut name = String::new();
            file.read_to_string(&mut name).map_err(cannot_lock)?;
            if name.is_empty() {
                // On a full disk the name is written when the directory is opened again.
                let _ = file.write_all(lock.name.as_bytes());
            } else {
                lock.name = name;
            }
        }
        Ok(lock)
    }

    /// Whether the path still leads to the locked directory.
    pub(super) fn is_in_place(&self) -> bool {
        let Some(locked) = self.file.as_ref().and_then(|file| file.metadata().ok()) else { return true };
        fs::metadata(self.path()).is_ok_and(|found| (found.dev(), found.ino()) == (locked.dev(), locked.ino()))
    }

    /// Locks the directory again if its lock is not in place: when the same directory is back, or a removed one can be
    /// made again on the same file system.
    ///
    /// # Errors
    /// When the directory is not there, or is another one now.
    pub(super) fn reacquire(&mut self) -> Result<(), String> {
        if self.file.is_some() && self.is_in_place() {
            return Ok(());
        }
        match fs::read_to_string(self.path()) {
            Ok(name) if name == self.name || self.file.is_none() => {}
            Ok(_) => return Err("its directory belongs to another receiver since; restart this one".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The nearest directory of the path that is there. With an unmounted volume it is on another device.
                let there = self.directory.ancestors().find_map(|path| fs::metadata(path).ok());
                if there.is_none_or(|there| there.dev() != self.device) {
                    return Err("its directory is gone: is its volume mounted?".to_owned());
                }
                fs::create_dir_all(&self.directory).map_err(cannot_lock)?;
            }
            Err(error) => return Err(cannot_lock(error)),
        }
        let mut file = self.open().map_err(cannot_lock)?;
        try_lock(&file)?;
        if file.metadata().map_err(cannot_lock)?.len() == 0 {
            file.write_all(self.name.as_bytes()).map_err(cannot_lock)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path());
        match opened {
            Err(error) if is_unwritable(&error) => File::open(self.path()).map_err(|_| error),
            opened => opened,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("lock")
    }
}

/// Whether an error says that there is no room, or that nothing can be written at all.
pub(super) fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

fn try_lock(file: &File) -> Result<(), String> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err("it is held by another process".to_owned()),
        Err(TryLockError::Error(error)) => Err(cannot_lock(error)),
    }
}

/// A name that no other store has.
pub(super) fn new_name() -> String {
    format!("{:016x}{:016x}\n", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

fn cannot_lock(error: io::Error) -> String {
    format!("its directory cannot be locked: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_directory_is_made_again_and_another_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        fs::create_dir(&path).unwrap();
        let mut lock = DirectoryLock::acquire(&path).unwrap();
        assert!(lock.is_in_place() && DirectoryLock::acquire(&path).is_err());
        fs::remove_dir_all(&path).unwrap();
        assert!(!lock.is_in_place());
        lock.reacquire().unwrap();
        assert!(lock.is_in_place() && DirectoryLock::acquire(&path).is_err());
        // Moved away and back it is the same. What another process has made in its place meanwhile is another one.
        let away = dir.path().join("away");
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        let other = DirectoryLock::acquire(&path).unwrap();
        assert!(!lock.is_in_place() && lock.reacquire().unwrap_err().contains("another receiver"));
        drop(other);
        assert!(lock.reacquire().is_err(), "nor when that has ended");
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        lock.reacquire().unwrap();
        assert!(lock.is_in_place());
    }

    #[test]
    fn a_directory_on_another_device_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = DirectoryLock::acquire(dir.path()).unwrap();
        fs::remove_file(dir.path().join("lock")).unwrap();
        lock.device += 1;
        assert!(lock.reacquire().unwrap_err().contains("mounted"));
        assert!(!dir.path().join("lock").exists());
    }
}
