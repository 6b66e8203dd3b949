//! The files of `--spool`: what waits for each destination, and the source of the idempotency keys, which lasts.
//!
//! The directory belongs to one monitor at a time. Its file `source` has the SOURCE of all keys, so that receivers know a
//! sample again after any number of restarts. Each destination has a file with a line a sample, `HOST/EPOCH KEY VALUES`,
//! and a line `done KEY` when the samples up to one are not needed any more. A sample is appended when it was read, a
//! `done` when it was published. There is no fsync: a spool survives the process, not a power cut.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::{QueuedSample, random};
use crate::sample::{BODY_BYTES_MAX, Sample, check_host, decode_values, encode_values, parse_epoch, parse_key};
use crate::url::{decode, encode};

/// Lines that a file has at least before those that are not needed are worth a rewrite.
const DEAD_LINES_MIN: usize = 256;
/// Longest line in bytes: a body, a host of 255 bytes that are all encoded, an epoch and a key.
const LINE_BYTES_MAX: u64 = BODY_BYTES_MAX as u64 + 2048;
/// The name of the file that has the source. A destination's file has an encoded `://` in its name.
const SOURCE_FILE: &str = "source";
/// What a file is called until it is whole. It has a character that no encoded name has.
const NEW: &str = "+new";
/// How a line begins that says how far the receiver has got.
const DONE: &str = "done ";

/// A directory of spools, locked against other processes.
pub(super) struct SpoolDir {
    path: PathBuf,
    /// The source of the keys of this monitor, whatever process it is.
    pub(super) source: String,
    _lock: File,
}

impl SpoolDir {
    /// Opens the directory, and makes it where there is none.
    ///
    /// # Errors
    /// When it cannot be written, or is in use by another process; the message names it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("spool {}: {error}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut file = open_private(&path.join(SOURCE_FILE)).map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => failed(io::Error::other("is in use by another monitor")),
            TryLockError::Error(error) => failed(error),
        })?;
        let mut source = String::new();
        let read = (&file).take(1024).read_to_string(&mut source);
        read.map_err(failed)?;
        let is_whole = source.ends_with('\n') && parse_key(&format!("{}-1", source.trim_end())).is_ok();
        if !is_whole {
            source = format!("{:016x}\n", random());
            if let Err(error) = file.set_len(0).and_then(|()| file.write_all(source.as_bytes())) {
                log::error!("Spool {} cannot be written: {error}", path.display());
            }
        }
        Ok(Self { path: path.to_owned(), source: source.trim_end().to_owned(), _lock: file })
    }

    /// Opens the spool of a destination.
    ///
    /// # Errors
    /// When it cannot be read or written; the message names it.
    pub(super) fn open_spool(&self, destination: &str, samples_max: usize) -> io::Result<(Spool, Restored)> {
        let path = self.path.join(encode(destination));
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("spool {}: {error}", path.display()));
        Spool::open(path.clone(), samples_max).map_err(failed)
    }
}

/// What a spool held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The samples that wait, the oldest first.
    pub(super) samples: VecDeque<Arc<QueuedSample>>,
    /// The newest key that the spool has.
    pub(super) last_key: Option<String>,
}

/// The file of one destination.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    lines: usize,
    /// The key of the newest `done`, which a rewrite keeps.
    last_done: Option<String>,
    /// Whether each sample that waits is in the file, as a line: not once a write has failed.
    is_whole: bool,
}

impl Spool {
    /// Opens a file, and reads the newest `samples_max` samples of it.
    pub(super) fn open(path: PathBuf, samples_max: usize) -> io::Result<(Self, Restored)> {
        let file = open_private(&path)?;
        let mut spool = Self { path, file, lines: 0, last_done: None, is_whole: true };
        let restored = spool.read(samples_max)?;
        if spool.lines > restored.samples.len() || !spool.is_whole {
            // A full disk does not keep a monitor from its work: what is not whole is written again later.
            if let Err(error) = spool.rewrite(&restored.samples, None) {
                log::error!("Spool {} cannot be written: {error}", spool.path.display());
            }
        }
        Ok((spool, restored))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self, samples_max: usize) -> io::Result<Restored> {
        let (mut restored, mut unreadable) = (Restored::default(), 0);
        let mut reader = BufReader::new(&self.file);
        loop {
            let mut line = Vec::new();
            if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            // The end of the process may have cut the last line short.
            let Some(line) = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()) else {
                self.is_whole = false;
                continue;
            };
            self.lines += 1;
            if let Some(done) = line.strip_prefix(DONE) {
                while restored.samples.front().is_some_and(|sample| is_up_to(&sample.key, done)) {
                    restored.samples.pop_front();
                }
                restored.last_key = Some(done.to_owned());
                self.last_done = Some(done.to_owned());
            } else if let Some(sample) = parse_line(line) {
                restored.last_key = Some(sample.key.clone());
                restored.samples.push_back(Arc::new(sample));
                if restored.samples.len() > samples_max {
                    restored.samples.pop_front();
                }
            } else {
                unreadable += 1;
            }
        }
        if unreadable > 0 {
            log::warn!("{unreadable} lines of spool {} are no samples, and are left out", self.path.display());
        }
        Ok(restored)
    }

    /// Whether to write all that waits to a new file, instead of a few lines more to this one.
    pub(super) fn needs_rewrite(&self, samples: usize) -> bool {
        !self.is_whole || self.lines.saturating_sub(samples) > samples.max(DEAD_LINES_MIN)
    }

    /// Appends samples, and that those up to the key `done` are not needed any more.
    pub(super) fn append(&mut self, samples: &[Arc<QueuedSample>], done: Option<&str>) -> io::Result<()> {
        let mut text: Vec<u8> = samples.iter().flat_map(|sample| line_of(sample)).collect();
        self.lines += samples.len();
        if let Some(done) = done {
            text.extend_from_slice(format!("{DONE}{done}\n").as_bytes());
            self.lines += 1;
            self.last_done = Some(done.to_owned());
        }
        self.is_whole = false;
        self.file.write_all(&text)?;
        self.is_whole = true;
        Ok(())
    }

    /// Writes all samples that wait to a new file, which takes the place of this one when it is whole.
    pub(super) fn rewrite<'a>(
        &mut self,
        samples: impl IntoIterator<Item = &'a Arc<QueuedSample>>,
        done: Option<&str>,
    ) -> io::Result<()> {
        if let Some(done) = done {
            self.last_done = Some(done.to_owned());
        }
        let mut path = self.path.clone().into_os_string();
        path.push(NEW);
        let path = PathBuf::from(path);
        let mut lines = 0;
        let write = || {
            let file = open_private(&path)?;
            file.set_len(0)?;
            let mut writer = BufWriter::new(file);
            if let Some(done) = &self.last_done {
                writer.write_all(format!("{DONE}{done}\n").as_bytes())?;
                lines += 1;
            }
            for sample in samples {
                writer.write_all(&line_of(sample))?;
                lines += 1;
            }
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            fs::rename(&path, &self.path).map(|()| file)
        };
        let written = write();
        if written.is_err() {
            // The unfinished file takes space that the next attempt needs.
            let _ = fs::remove_file(&path);
        }
        self.is_whole = written.is_ok();
        (self.file, self.lines) = (written?, lines);
        Ok(())
    }
}

/// Whether a key comes from the same source as another, and not after it.
fn is_up_to(key: &str, other: &str) -> bool {
    match (parse_key(key), parse_key(other)) {
        (Ok(key), Ok(other)) => key.source == other.source && key.seq <= other.seq,
        _ => false,
    }
}

fn line_of(queued: &QueuedSample) -> Vec<u8> {
    let Sample { host, epoch, values } = &queued.sample;
    let before = format!("{}/{epoch} {} ", encode(host), queued.key);
    [before.as_bytes(), &encode_values(values), b"\n"].concat()
}

fn parse_line(line: &str) -> Option<QueuedSample> {
    let mut fields = line.splitn(3, ' ');
    let (path, key, body) = (fields.next()?, fields.next()?, fields.next()?);
    let (host, epoch) = path.split_once('/')?;
    let host = decode(host).ok()?.into_owned();
    check_host(&host).ok()?;
    parse_key(key).ok()?;
    let values = decode_values(body.as_bytes()).ok()?;
    let values = values.into_iter().map(|(label, value)| (label.into_owned().into(), value)).collect();
    Some(QueuedSample {
        sample: Sample { host: host.into(), epoch: parse_epoch(epoch).ok()?, values },
        key: key.to_owned(),
    })
}

/// Opens a file to be read and appended to, which its owner alone may read. A link is not followed, and what is no file
/// is refused.
fn open_private(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path);
    let file = file.map_err(|error| match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => io::Error::other("is a link, which is not followed"),
        _ => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sample whose host and label have every kind of character.
    pub(in super::super) fn sample(seq: u64) -> Arc<QueuedSample> {
        let sample = Sample { host: "h ?ü".into(), epoch: seq, values: vec![("a label".into(), 1.5)] };
        Arc::new(QueuedSample { sample, key: format!("s-{seq}") })
    }

    pub(in super::super) fn keys(samples: &VecDeque<Arc<QueuedSample>>) -> Vec<&str> {
        samples.iter().map(|sample| sample.key.as_str()).collect()
    }

    fn samples(seqs: std::ops::RangeInclusive<u64>) -> Vec<Arc<QueuedSample>> {
        seqs.map(sample).collect()
    }

    #[test]
    fn a_spool_has_what_was_appended_and_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let open = || Spool::open(path.clone(), 3).unwrap();
        let (mut spool, restored) = open();
        assert!(restored.samples.is_empty() && restored.last_key.is_none());
        spool.append(&samples(1..=2), None).unwrap();
        spool.append(&samples(3..=6), Some("s-4")).unwrap();
        let (mut spool, restored) = open();
        assert_eq!((keys(&restored.samples), restored.last_key.as_deref()), (vec!["s-5", "s-6"], Some("s-4")));
        assert_eq!(restored.samples[0], sample(5));
        // A sample that was done before it was appended takes those before it along.
        spool.append(&[], Some("s-7")).unwrap();
        let restored = open().1;
        assert_eq!((keys(&restored.samples), restored.last_key.as_deref()), (vec![], Some("s-7")));
        spool.rewrite(&samples(8..=12), None).unwrap();
        assert_eq!(keys(&open().1.samples), ["s-10", "s-11", "s-12"], "no more than fit the queue");
        // The end of the process may cut the last line short.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"h/51 s-51 {\"a").unwrap();
        assert_eq!(keys(&open().1.samples), ["s-10", "s-11", "s-12"]);
        assert!(fs::read(&path).unwrap().ends_with(b"}\n"), "what was cut is gone");
    }

    #[test]
    fn a_file_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut spool, _) = Spool::open(path.clone(), 10).unwrap();
        for seq in 1..=2000 {
            let waiting = samples(seq..=seq + 4);
            if spool.needs_rewrite(waiting.len()) {
                spool.rewrite(&waiting, Some(&format!("s-{}", seq - 1))).unwrap();
            } else {
                spool.append(&waiting[4..], Some(&format!("s-{}", seq - 1))).unwrap();
            }
        }
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= DEAD_LINES_MIN + 20, "{lines}");
        assert_eq!(keys(&Spool::open(path, 10).unwrap().1.samples), ["s-2000", "s-2001", "s-2002", "s-2003", "s-2004"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_costs_nothing_that_still_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let (mut spool, _) = Spool::open(path.clone(), 10).unwrap();
        spool.append(&samples(1..=1), None).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let written = std::mem::replace(&mut spool.file, full);
        assert!(spool.append(&samples(2..=2), None).is_err() && spool.needs_rewrite(2));
        // A full disk may have taken the beginning of a line.
        (&written).write_all(b"h/2 s-2 {\"a").unwrap();
        spool.rewrite(&samples(1..=3), None).unwrap();
        assert!(!spool.needs_rewrite(3));
        assert_eq!(keys(&Spool::open(path, 10).unwrap().1.samples), ["s-1", "s-2", "s-3"]);
    }

    #[test]
    fn a_directory_has_one_source_and_one_monitor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/here");
        let opened = SpoolDir::open(&path).unwrap();
        let source = opened.source.clone();
        let busy = SpoolDir::open(&path).err().unwrap().to_string();
        assert!(busy.contains("in use by another monitor") && busy.contains("here"), "{busy}");
        drop(opened);
        assert_eq!(SpoolDir::open(&path).unwrap().source, source);
        // The end of the process may have cut it short.
        fs::write(path.join(SOURCE_FILE), "abc").unwrap();
        assert_eq!(SpoolDir::open(&path).unwrap().source.len(), 16);
    }

    #[test]
    fn files_are_private_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "secret\n").unwrap();
        for name in [SOURCE_FILE, "http%3A%2F%2Fr", "http%3A%2F%2Fr+new"] {
            let spools = tempfile::tempdir().unwrap();
            symlink(&target, spools.path().join(name)).unwrap();
            let opened = SpoolDir::open(spools.path()).and_then(|dir| {
                let (mut spool, _) = dir.open_spool("http://r", 10)?;
                spool.rewrite(&samples(1..=1), None)
            });
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("is a link") && !error.contains("secret"), "{name}: {error}");
            assert_eq!(fs::read_to_string(&target).unwrap(), "secret\n");
        }
        let spools = tempfile::tempdir().unwrap();
        fs::write(spools.path().join("http%3A%2F%2Fr"), "").unwrap();
        let opened = SpoolDir::open(spools.path()).unwrap();
        opened.open_spool("http://r", 10).unwrap().0.rewrite(&samples(1..=1), None).unwrap();
        for entry in fs::read_dir(spools.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        }
        fs::create_dir(spools.path().join("http%3A%2F%2Fdirectory")).unwrap();
        assert!(opened.open_spool("http://directory", 10).is_err());
    }

    #[test]
    fn what_is_no_sample_is_left_out() {
        for line in ["", "h/1 s-1", "h/1 s {\"a\":1}", "/1 s-1 {\"a\":1}", "a%2fb/1 s-1 {\"a\":1}", "h/x s-1 {\"a\":1}"]
        {
            assert_eq!(parse_line(line), None, "{line}");
        }
        assert!(parse_line("h/1 s-1 {\"a\":1}").is_some());
    }
}
