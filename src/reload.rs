//! What files say, read again when they change: keys, certificates and passwords are replaced while we run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often the files are looked at, where what they say is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Read<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What some files say.
pub(crate) struct Reloaded<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

/// The files as they were when they were last looked at.
struct Seen {
    at: Instant,
    /// What they were when they could be read.
    stamps: Vec<Stamp>,
    /// Why they could not be read since.
    failed: Option<String>,
}

/// What changes with a file: time of change, inode, length. Nothing of a file that is not there.
type Stamp = Option<(i64, i64, u64, u64)>;

impl<T> Reloaded<T> {
    /// Reads `files`, by `read`.
    ///
    /// # Errors
    /// Those of `read`, whose sentence names the file.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let seen = Seen { at: Instant::now(), stamps: stamps(&files), failed: None };
        let current = RwLock::new(Arc::new(read()?));
        Ok(Self { files, read: Box::new(read), current, seen: Mutex::new(seen) })
    }

    /// What the files say. Where they have become unreadable it is what they said before, and the log says so once.
    pub(crate) fn current(&self) -> Arc<T> {
        if let Ok(mut seen) = self.seen.try_lock()
            && seen.at.elapsed() >= LOOK_EVERY
        {
            self.look(&mut seen);
        }
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, seen: &mut MutexGuard<'_, Seen>) {
        seen.at = Instant::now();
        let stamps = stamps(&self.files);
        if stamps == seen.stamps {
            seen.failed = None;
            return;
        }
        match (self.read)() {
            Ok(value) => {
                // What changes while it is read has another stamp at the next look.
                (seen.stamps, seen.failed) = (stamps, None);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                log::info!("{} was read again", self.names());
            }
            Err(error) if seen.failed.as_ref() == Some(&error) => {}
            Err(error) => {
                log::error!("What {} said before stays in force: {error}", self.names());
                seen.failed = Some(error);
            }
        }
    }

    fn names(&self) -> String {
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file| {
        let about = fs::metadata(file).ok()?;
        Some((about.ctime(), about.ctime_nsec(), about.ino(), about.len()))
    };
    files.iter().map(stamp).collect()
}
