//! Reading a directory that cannot be written: its disk is full, or mounted read-only.
//!
//! fjall opens no database without writing to it. So what it may write is copied to the directory for temporary files,
//! where its tables, which it only reads, are links; and the copy is read and removed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use super::keyspaces::{FIRST_JOURNAL, Keyspaces};
use super::lock::{is_unwritable, new_name};
use super::restore::{Restored, restore};
use crate::store::{KeepOptions, Limits};

/// Bytes that a directory must have room for to be opened as usual.
const ROOM_BYTES: usize = 64 << 10;

/// Why a directory cannot be written, if its disk has no room or is mounted read-only.
pub(super) fn unwritable(directory: &Path) -> Option<io::Error> {
    let path = directory.join("room");
    let write = || File::create(&path)?.write_all(&[1; ROOM_BYTES]);
    let written = write();
    // Where it was made there is a directory to remove it from.
    let _ = fs::remove_file(&path);
    written.err().filter(is_unwritable)
}

/// Reads what such a directory holds.
pub(super) fn restore_copy(directory: &Path, limits: Limits, keep: &KeepOptions, now: u64) -> Result<Restored, String> {
    let copy = Copy(std::env::temp_dir().join(format!("lizm-{}", new_name().trim())));
    let cannot_copy = |error: io::Error| format!("it cannot be copied to {}: {error}", copy.0.display());
    copy.fill(directory).map_err(cannot_copy)?;
    let keyspaces = Keyspaces::open(&copy.0)?;
    restore(&keyspaces, limits, keep, now)
}

/// A directory that is removed when this is dropped.
struct Copy(PathBuf);

impl Copy {
    fn fill(&self, directory: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.0)?;
        let note = directory.join(FIRST_JOURNAL);
        if note.exists() {
            fs::copy(note, self.0.join(FIRST_JOURNAL))?;
        }
        copy_database(&fs::canonicalize(directory.join("fjall"))?, &self.0.join("fjall"))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("Cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Copies a directory of fjall's, with links to the tables.
fn copy_database(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_database(&entry.path(), &target)?;
        } else if from.ends_with("tables") {
            symlink(entry.path(), target)?;
        } else if is_journal(&entry.path()) {
            copy_journal(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Whether a file is one of fjall's journals.
pub(super) fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

/// Copies a journal without the up to 64 MiB of zeros at its end. fjall reads only whole batches, which end with a mark.
pub(super) fn copy_journal(from: &Path, to: &Path) -> io::Result<()> {
    const PAGE: usize = 4096;
    let content = fs::read(from)?;
    let pages = content.chunks(PAGE).rposition(|page| page != &[0; PAGE][..page.len()]).map_or(0, |last| last + 1);
    fs::write(to, &content[..content.len().min(pages * PAGE)])
}
