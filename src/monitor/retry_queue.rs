//! The samples that wait for one destination, in memory and, where asked for, in a file that outlives the process.
//!
//! The spool is a line a sample: path, idempotency key and body. A sample is appended when it comes, and the file is
//! emptied when nothing waits any more. Samples that were taken meanwhile are found again by the restart of a process that
//! was killed, and sent again under the keys they had, so that the receiver does not count them twice. There is no fsync:
//! the spool survives the process, not a power cut.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::sample::{Sample, check_host, decode_values, encode_values, parse_epoch, parse_key};
use crate::url::{decode, encode};

/// How often samples pushed out of a backlog, and faults of a spool, are told of.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A sample on its way, the same for every destination.
#[derive(Debug, PartialEq)]
pub(super) struct QueuedSample {
    pub(super) sample: Sample<'static>,
    /// What keeps a retry from counting twice.
    pub(super) key: String,
}

impl QueuedSample {
    fn to_line(&self) -> Vec<u8> {
        let Sample { host, epoch, values } = &self.sample;
        let before = format!("{}/{epoch} {} ", encode(host), self.key);
        [before.as_bytes(), &encode_values(values), b"\n"].concat()
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ' ');
        let (path, key, body) = (fields.next()?, fields.next()?, fields.next()?);
        let (host, epoch) = path.split_once('/')?;
        let host = decode(host).ok()?.into_owned();
        check_host(&host).ok()?;
        parse_key(key).ok()?;
        let values = decode_values(body.as_bytes()).ok()?;
        let values = values.into_iter().map(|(label, value)| (label.into_owned().into(), value)).collect();
        Some(Self {
            sample: Sample { host: host.into(), epoch: parse_epoch(epoch).ok()?, values },
            key: key.to_owned(),
        })
    }
}

/// The samples that wait for one destination, the oldest first.
#[derive(Debug)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    destination: String,
    samples_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    samples: VecDeque<Arc<QueuedSample>>,
    spool: Option<Spool>,
    pushed_out: u64,
    told_at: Option<Instant>,
    closed: bool,
}

impl Backlog {
    /// A backlog of up to `samples_max` samples, which begins with those that a spool of `destination` in the
    /// directory `spool` holds.
    ///
    /// # Errors
    /// When the spool cannot be read or written, or is held by another process; the message names it.
    pub(super) fn open(destination: &str, samples_max: usize, spool: Option<&Path>) -> io::Result<Self> {
        let mut waiting = Waiting::default();
        if let Some(directory) = spool {
            let (spool, samples) = Spool::open(directory, destination, samples_max)?;
            log::info!("Spool {} has {} samples for {destination}", spool.path.display(), samples.len());
            waiting.samples = samples;
            waiting.spool = Some(spool);
        }
        let waiting = Mutex::new(waiting);
        Ok(Self { waiting, changed: Condvar::new(), destination: destination.to_owned(), samples_max })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a sample; where there is no room the oldest goes.
    pub(super) fn push(&self, sample: Arc<QueuedSample>) {
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        if waiting.samples.len() >= self.samples_max {
            waiting.samples.pop_front();
            waiting.pushed_out += 1;
        }
        waiting.samples.push_back(sample);
        self.changed.notify_all();
        let fault = waiting.spool.as_mut().and_then(|spool| spool.append(&waiting.samples, self.samples_max).err());
        let is_due = waiting.told_at.is_none_or(|told_at| told_at.elapsed() >= TELL_EVERY);
        if is_due && (waiting.pushed_out > 0 || fault.is_some()) {
            waiting.told_at = Some(Instant::now());
            if let Some(fault) = fault {
                log::error!("The spool for {} cannot be written: {fault}", self.destination);
            }
            self.tell_pushed_out(waiting);
        }
    }

    fn tell_pushed_out(&self, waiting: &mut Waiting) {
        let pushed_out = std::mem::take(&mut waiting.pushed_out);
        if pushed_out > 0 {
            log::warn!("Backlog of {} is full: its {pushed_out} oldest samples were given up", self.destination);
        }
    }

    /// Waits for the oldest sample, which stays until [`Backlog::done`]; `None` when closed and empty.
    pub(super) fn front(&self) -> Option<Arc<QueuedSample>> {
        let waiting = self.lock();
        let open_and_empty = |waiting: &mut Waiting| waiting.samples.is_empty() && !waiting.closed;
        let waiting = self.changed.wait_while(waiting, open_and_empty).unwrap_or_else(PoisonError::into_inner);
        waiting.samples.front().cloned()
    }

    /// Removes the sample that [`Backlog::front`] gave, unless it was pushed out meanwhile. Says how many are left.
    pub(super) fn done(&self, sample: &Arc<QueuedSample>) -> usize {
        let mut waiting = self.lock();
        if waiting.samples.front().is_some_and(|front| Arc::ptr_eq(front, sample)) {
            waiting.samples.pop_front();
        }
        if waiting.samples.is_empty()
            && let Some(Err(error)) = waiting.spool.as_mut().map(Spool::empty)
        {
            log::debug!("The spool for {} cannot be emptied: {error}", self.destination);
        }
        waiting.samples.len()
    }

    /// Waits, and says whether it was closed before or meanwhile.
    pub(super) fn closes_within(&self, wait: Duration) -> bool {
        let waiting = self.lock();
        let waited = self.changed.wait_timeout_while(waiting, wait, |waiting| !waiting.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Leaves what waits in the spool and nothing else, and says in the log what is left and what was lost.
    pub(super) fn tell_end(&self) {
        let mut waiting = self.lock();
        let Waiting { samples, spool, .. } = &mut *waiting;
        let left = samples.len();
        let rewritten = spool.as_mut().filter(|_| left > 0).map(|spool| spool.rewrite(samples));
        if let Some(Err(error)) = rewritten {
            log::error!("The spool for {} cannot be written: {error}", self.destination);
        }
        if left > 0 && spool.as_ref().is_some_and(|spool| spool.is_whole) {
            log::info!("Monitor stopped with {left} samples in the spool for {}", self.destination);
        } else if left > 0 {
            log::warn!("Monitor stopped with {left} samples not published to {}", self.destination);
        }
        self.tell_pushed_out(&mut waiting);
    }
}

/// The file of one backlog, locked against other processes.
#[derive(Debug)]
struct Spool {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Whether what waits is in the file, each sample as a line: not once a write has failed.
    is_whole: bool,
}

impl Spool {
    fn open(
        directory: &Path,
        destination: &str,
        samples_max: usize,
    ) -> io::Result<(Self, VecDeque<Arc<QueuedSample>>)> {
        let path = directory.join(utf8_percent_encode(destination, NON_ALPHANUMERIC).to_string());
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("spool {}: {error}", path.display()));
        fs::create_dir_all(directory).map_err(failed)?;
        let mut file = open_locked(&path).map_err(failed)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        // What follows the last line's end was cut short by the end of the process.
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = String::from_utf8_lossy(&content[..whole]);
        let mut samples: VecDeque<_> = lines.lines().filter_map(QueuedSample::from_line).map(Arc::new).collect();
        samples.drain(..samples.len().saturating_sub(samples_max));
        let lines = lines.lines().count();
        file.set_len(whole as u64).map_err(failed)?;
        Ok((Self { path, file, lines, is_whole: true }, samples))
    }

    /// Appends the newest of `samples`; where the file has grown to twice what may wait, or is not whole, writes them all
    /// anew.
    fn append(&mut self, samples: &VecDeque<Arc<QueuedSample>>, samples_max: usize) -> io::Result<()> {
        if self.lines >= 2 * samples_max || !self.is_whole {
            return self.rewrite(samples);
        }
        let Some(newest) = samples.back() else { return Ok(()) };
        self.is_whole = false;
        self.file.write_all(&newest.to_line())?;
        (self.lines, self.is_whole) = (self.lines + 1, true);
        Ok(())
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.lines, self.is_whole) = (0, true);
        Ok(())
    }

    /// Writes samples to a new file that takes the place of this one when it is whole.
    fn rewrite(&mut self, samples: &VecDeque<Arc<QueuedSample>>) -> io::Result<()> {
        let lines: Vec<u8> = samples.iter().flat_map(|sample| sample.to_line()).collect();
        let path = self.path.with_extension("new");
        let mut file = open_locked(&path)?;
        let written =
            file.set_len(0).and_then(|()| file.write_all(&lines)).and_then(|()| fs::rename(&path, &self.path));
        if let Err(error) = written {
            // It would take room from what is to be written next.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        (self.file, self.lines, self.is_whole) = (file, samples.len(), true);
        Ok(())
    }
}

/// Opens a file to be read and appended to, and locks it against other processes.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(io::Error::other)?;
        // Whoever held it may have put another in its place meanwhile.
        let (locked, named) = (file.metadata()?, fs::metadata(path));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seq: u64) -> Arc<QueuedSample> {
        let sample = Sample { host: "h ?ü".into(), epoch: seq, values: vec![("a label".into(), 1.5)] };
        Arc::new(QueuedSample { sample, key: format!("s-{seq}") })
    }

    fn left(backlog: &Backlog) -> Vec<String> {
        backlog.close();
        let mut left = Vec::new();
        while let Some(sample) = backlog.front() {
            left.push(sample.key.clone());
            backlog.done(&sample);
        }
        left
    }

    #[test]
    fn it_is_bounded_and_keeps_its_order() {
        let backlog = Backlog::open("http://r", 3, None).unwrap();
        (1..=3).for_each(|seq| backlog.push(sample(seq)));
        let in_flight = backlog.front().unwrap();
        assert_eq!(in_flight.key, "s-1");
        backlog.push(sample(4));
        assert_eq!(backlog.done(&in_flight), 3, "what was pushed out does not take the next with it");
        backlog.push(sample(5));
        assert_eq!(left(&backlog), ["s-3", "s-4", "s-5"]);
    }

    #[test]
    fn a_spool_survives_and_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Backlog::open("http://r:8080/api/perf", 3, Some(dir.path()));
        let backlog = open().unwrap();
        let size = || fs::metadata(fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path()).unwrap().len();
        backlog.push(sample(1));
        assert_eq!(backlog.done(&backlog.front().unwrap()), 0);
        assert_eq!(size(), 0, "emptied when nothing waits");
        (2..=50).for_each(|seq| backlog.push(sample(seq)));
        assert!(size() < 8 * sample(50).to_line().len() as u64);
        assert!(open().unwrap_err().to_string().contains("spool "), "it is held");
        drop(backlog);
        // The end of the process may cut the last line short.
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let mut content = fs::read(&path).unwrap();
        content.extend_from_slice(b"h/51 s-51 {\"a");
        fs::write(&path, content).unwrap();
        let backlog = open().unwrap();
        assert_eq!(*backlog.front().unwrap(), *sample(48));
        assert_eq!(left(&backlog), ["s-48", "s-49", "s-50"]);
        drop(backlog);
        assert!(left(&open().unwrap()).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_spool_that_was_full_has_all_that_waits_when_there_is_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Backlog::open("http://r", 10, Some(dir.path())).unwrap();
        let backlog = open();
        backlog.push(sample(1));
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let written = std::mem::replace(&mut backlog.lock().spool.as_mut().unwrap().file, full);
        backlog.push(sample(2));
        // A line that there was no room for may have been begun.
        (&written).write_all(b"h/2 s-2 {\"a").unwrap();
        drop(written);
        backlog.push(sample(3));
        drop(backlog);
        assert_eq!(left(&open()), ["s-1", "s-2", "s-3"]);
    }

    #[test]
    fn an_end_leaves_what_waits_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Backlog::open("http://r", 10, Some(dir.path())).unwrap();
        let backlog = open();
        (1..=3).for_each(|seq| backlog.push(sample(seq)));
        backlog.done(&backlog.front().unwrap());
        backlog.tell_end();
        drop(backlog);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(left(&open()), ["s-2", "s-3"]);
    }

    #[test]
    fn what_is_no_sample_in_a_spool_is_left_out() {
        for line in ["", "h/1 s-1", "h/1 s {\"a\":1}", "/1 s-1 {\"a\":1}", "a%2fb/1 s-1 {\"a\":1}", "h/x s-1 {\"a\":1}"]
        {
            assert_eq!(QueuedSample::from_line(line), None, "{line}");
        }
        assert!(QueuedSample::from_line("h/1 s-1 {\"a\":1}").is_some());
    }
}
