//! Values that are read from files, and again when the files change: keys, certificates, passwords.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often a use of the value checks whether the files have changed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

type Read<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// A value that is read from files.
pub(crate) struct Reloaded<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    current: RwLock<Arc<T>>,
    checked: Mutex<Checked>,
}

/// The state of the files at the last check.
struct Checked {
    at: Instant,
    /// Their stamps when they were last read.
    stamps: Vec<Stamp>,
    /// Why they cannot be read since.
    failed: Option<String>,
}

/// What changes with a file: time of change in seconds and nanoseconds, inode, length. `None` for a missing file.
type Stamp = Option<(i64, i64, u64, u64)>;

impl<T> Reloaded<T> {
    /// Reads the value with `read`, which reads `files`.
    ///
    /// # Errors
    /// The error of `read`, a sentence that names the file.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let checked = Checked { at: Instant::now(), stamps: stamps(&files), failed: None };
        let current = RwLock::new(Arc::new(read()?));
        Ok(Self { files, read: Box::new(read), current, checked: Mutex::new(checked) })
    }

    /// The current value. If the files have become unreadable, it is the last one, and the log says so once.
    pub(crate) fn current(&self) -> Arc<T> {
        if let Ok(mut checked) = self.checked.try_lock()
            && checked.at.elapsed() >= CHECK_EVERY
        {
            self.check(&mut checked);
        }
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the files cannot be read since they have changed, if so.
    pub(crate) fn error(&self) -> Option<String> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    fn check(&self, checked: &mut MutexGuard<'_, Checked>) {
        checked.at = Instant::now();
        let stamps = stamps(&self.files);
        if stamps == checked.stamps {
            checked.failed = None;
            return;
        }
        match (self.read)() {
            Ok(value) => {
                // A file that changes while it is read has another stamp at the next check.
                (checked.stamps, checked.failed) = (stamps, None);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                log::info!("{} was read again", self.names());
            }
            Err(error) if checked.failed.as_ref() == Some(&error) => {}
            Err(error) => {
                log::error!("The last content of {} stays in force: {error}", self.names());
                checked.failed = Some(error);
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
