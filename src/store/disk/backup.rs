//! Backups: a copy of a store's directory that is whole while a receiver writes to it.
//!
//! fjall appends to its journals, and to no other file: it writes new ones, moves one into the place of another, and removes
//! what is old. So a copy during which no file has come, gone or been replaced is what a kill of the receiver would have
//! left at some moment of the copy, and that is read back without a loss. Where files have changed, the copy is taken
//! again; what has not changed since, such as tables, is not copied twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::journal::{DURABLE_NOTE, read_note};
use super::keyspaces::{FIRST_JOURNAL, Keyspaces};
use super::read_only::{copy_journal, is_journal};
use super::restore::{Restored, restore};
use crate::store::KeepOptions;

/// Longest time until a moment without a change is found. A receiver changes files at its checkpoints, every 30 seconds.
const WITHIN: Duration = Duration::from_secs(300);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Files by their paths in a directory, each with its inode, length in bytes and time of change in nanoseconds; of
/// journals the inode alone.
type Files = BTreeMap<PathBuf, (u64, u64, i128)>;

/// Copies the store in `directory` to `target`, which must not exist, and reads the copy back at `now` to see that it is
/// whole. What was answered with 200 before this began is in it. Returns what it holds, as a sentence.
///
/// # Errors
/// When there is no store, the copy cannot be written, or it is not whole. There is no `target` then.
pub(in crate::store) fn backup(directory: &Path, target: &Path, now: u64) -> Result<String, String> {
    let failed = |why: String| format!("backup of {}: {why}", directory.display());
    if target.exists() {
        return Err(failed(format!("{} exists already", target.display())));
    }
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let copied = copy_whole(directory, &part).and_then(|()| {
        let held = check(&part, now)?;
        sync(&part).and_then(|()| fs::rename(&part, target)).map_err(cannot_copy)?;
        Ok(held)
    });
    if copied.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    copied.map(|held| format!("{} is backed up to {}: {held}", directory.display(), target.display())).map_err(failed)
}

fn cannot_copy(error: io::Error) -> String {
    format!("it cannot be copied: {error}")
}

/// Takes copies until there is one during which nothing has changed.
fn copy_whole(directory: &Path, target: &Path) -> Result<(), String> {
    if !directory.join("fjall").is_dir() {
        return Err("it is not the directory of a receiver's --store".to_owned());
    }
    let (mut copied, begun) = (Files::new(), Instant::now());
    // What an attempt has left that was killed.
    match fs::remove_dir_all(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_copy(error)),
        _ => fs::create_dir_all(target).map_err(cannot_copy)?,
    }
    loop {
        match copy(directory, target, &mut copied) {
            Ok(true) => return Ok(()),
            // A file that has gone is a change too.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_copy(error)),
            _ if begun.elapsed() > WITHIN => {
                return Err(format!("its files change all the time, for {} seconds", WITHIN.as_secs()));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

/// Copies the files that `copied` does not have as they are now. Returns whether none has changed meanwhile.
fn copy(directory: &Path, target: &Path, copied: &mut Files) -> io::Result<bool> {
    let before = files(directory)?;
    // First: it must not be ahead of the journals.
    if directory.join(DURABLE_NOTE).exists() {
        fs::copy(directory.join(DURABLE_NOTE), target.join(DURABLE_NOTE))?;
    }
    for (path, stamp) in &before {
        let (from, to) = (directory.join(path), target.join(path));
        if is_journal(&from) {
            fs::create_dir_all(to.parent().unwrap_or(target))?;
            copy_journal(&from, &to)?;
        } else if copied.get(path) != Some(stamp) {
            fs::create_dir_all(to.parent().unwrap_or(target))?;
            fs::copy(&from, &to)?;
            copied.insert(path.clone(), *stamp);
        }
    }
    let gone: BTreeSet<PathBuf> = files(target)?.into_keys().filter(|path| !before.contains_key(path)).collect();
    for path in gone {
        fs::remove_file(target.join(&path))?;
        copied.remove(&path);
    }
    // fjall wants the folders of keyspaces without a table, too.
    for keyspace in fs::read_dir(directory.join("fjall/keyspaces"))? {
        fs::create_dir_all(target.join("fjall/keyspaces").join(keyspace?.file_name()).join("tables"))?;
    }
    Ok(files(directory)? == before)
}

/// The files of a store that a restart reads, but for the note of what is durable.
fn files(directory: &Path) -> io::Result<Files> {
    let (mut found, mut folders) = (Files::new(), vec![PathBuf::from("fjall")]);
    let mut add = |path: PathBuf| -> io::Result<()> {
        let about = fs::metadata(directory.join(&path))?;
        let changed_ns = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
        let stamp = if is_journal(&path) { (about.ino(), 0, 0) } else { (about.ino(), about.len(), changed_ns) };
        found.insert(path, stamp);
        Ok(())
    };
    if directory.join(FIRST_JOURNAL).exists() {
        add(FIRST_JOURNAL.into())?;
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(directory.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(path) } else { add(path)? }
        }
    }
    Ok(found)
}

/// Reads a copy as a restart does, and says what it holds.
fn check(copy: &Path, now: u64) -> Result<String, String> {
    let keyspaces = Keyspaces::open(copy)?;
    let Restored { memory, newest, missing, .. } =
        restore(&keyspaces, usize::MAX.into(), &KeepOptions::default(), now)?;
    let lost = missing + read_note(copy).saturating_sub(newest);
    if lost > 0 {
        return Err(format!("it is damaged: {lost} batches of samples are missing"));
    }
    let (hosts, series) = (memory.hosts().len(), memory.series_count());
    Ok(format!("{hosts} hosts and {series} series, up to batch {newest}"))
}

/// Has a directory, and all in it, on the device.
fn sync(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync(&entry.path())? } else { File::open(entry.path())?.sync_all()? }
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::DiskStore;
    use super::*;
    use crate::sample::{IdempotencyKey, Sample};
    use crate::store::LabelPage;
    use crate::summary::KeyFilter;

    const NOW: u64 = 1_465_001_814;

    #[test]
    fn a_backup_is_whole_while_samples_come_and_checkpoints_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| super::super::tests::open(&dir.path().join(name), NOW);
        let record = |store: &DiskStore, seq: u64| {
            let values = (0..50).map(|label| (format!("label-{label}").into(), 1.0)).collect();
            let sample = Sample { host: format!("h{}", seq % 3).into(), epoch: NOW, values };
            store.record(sample.view(), Some(IdempotencyKey::new("s", seq)), NOW).unwrap()
        };
        let store = open("store");
        let (acknowledged, is_done) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                // Copies find no moment between checkpoints that come without a pause.
                let mut checkpoint_at = Instant::now();
                for seq in 1.. {
                    assert_eq!(record(&store, seq).stored, 50);
                    acknowledged.store(seq, Ordering::SeqCst);
                    if checkpoint_at.elapsed() > Duration::from_secs(2) {
                        store.checkpoint().unwrap();
                        checkpoint_at = Instant::now();
                    }
                    if is_done.load(Ordering::SeqCst) > 0 {
                        break;
                    }
                }
            });
            for round in 0..2 {
                while acknowledged.load(Ordering::SeqCst) < 700 * (round + 1) {
                    thread::sleep(PAUSE / 10);
                }
                let before = acknowledged.load(Ordering::SeqCst);
                let target = dir.path().join(format!("backup-{round}"));
                let held = backup(&dir.path().join("store"), &target, NOW).unwrap();
                assert!(held.contains("3 hosts and 150 series"), "{held}");
                let (restored, all) = (open(&format!("backup-{round}")), KeyFilter::containing("label-7"));
                let count = |host: &str| {
                    let series = restored.memory().series(host, &LabelPage::all(&all), NOW);
                    // In both windows.
                    series[0].1.running_samples() as u64 / 2
                };
                let held: u64 = ["h0", "h1", "h2"].map(count).iter().sum();
                let after = acknowledged.load(Ordering::SeqCst) + 1;
                assert!((before..=after).contains(&held), "{held} of {before} to {after}");
                // Each retry is known, and nothing else is.
                assert!((held - 2..=held).all(|seq| record(&restored, seq).duplicate));
                assert!((held + 1..=held + 3).all(|seq| !record(&restored, seq).duplicate));
            }
            is_done.store(1, Ordering::SeqCst);
        });
    }

    #[test]
    fn what_is_no_store_or_there_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (no_store, target) = (dir.path().join("none"), dir.path().join("target"));
        fs::create_dir(&no_store).unwrap();
        assert!(backup(&no_store, &target, NOW).unwrap_err().contains("is not the directory of"));
        assert!(!target.exists() && !dir.path().join("target.part").exists());
        assert!(backup(&target, &no_store, NOW).unwrap_err().contains("exists already"));
    }
}
