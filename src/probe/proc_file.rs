//! The files of `/proc`: each is read once a tick, whichever probes use it, and those of the kernel stay open.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

/// First length of a buffer: room for the files of most machines.
const BUFFER_BYTES: usize = 8 << 10;
/// Longest file in bytes: `/proc/stat` of the largest machines has a few hundred thousand.
const FILE_BYTES_MAX: usize = 4 << 20;

/// A first read of a kernel's file that has less than this has all of it: the kernel stops early only where the next
/// line does not fit its page of 4 KiB, and no line is half as long.
const SHORT_BYTES: usize = 2 << 10;

/// The files of one mount of the proc file system, as they are in this tick.
pub(super) struct ProcFiles {
    root: PathBuf,
    files: Vec<(&'static str, ProcFile)>,
}

impl ProcFiles {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: Vec::new() }
    }

    /// Lets each file be read again.
    pub(super) fn begin_tick(&mut self) {
        self.files.iter_mut().for_each(|(_, file)| file.read_bytes = None);
    }

    /// Text of the file of this name. Bytes that are not UTF-8 become U+FFFD.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Cow<'_, str>, String> {
        let known = self.files.iter().position(|(known, _)| *known == name);
        let index = known.unwrap_or_else(|| {
            self.files.push((name, ProcFile::new(self.root.join(name))));
            self.files.len() - 1
        });
        let file = &mut self.files[index].1;
        match file.read() {
            Ok(bytes) => Ok(String::from_utf8_lossy(&file.buffer[..bytes])),
            Err(error) => Err(format!("cannot read {}: {error}", file.path.display())),
        }
    }

    /// The number that a file begins with.
    pub(super) fn first_number(&mut self, name: &'static str) -> Result<f64, String> {
        let number = self.text(name)?.split_ascii_whitespace().next().and_then(|number| number.parse::<f64>().ok());
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        number.ok_or_else(|| self.wrong(name, "it does not begin with a number"))
    }

    /// Whether another file system is mounted over a file, as lxcfs is in containers.
    pub(super) fn is_covered(&self, name: &str) -> bool {
        let device = |path: PathBuf| fs::metadata(path).ok().map(|about| about.dev());
        device(self.root.clone()).zip(device(self.root.join(name))).is_some_and(|(root, file)| root != file)
    }

    /// Says what is wrong with the content of a file.
    pub(super) fn wrong(&self, name: &str, why: &str) -> String {
        format!("cannot parse {}: {why}", self.root.join(name).display())
    }
}

/// One file.
struct ProcFile {
    path: PathBuf,
    /// The open file, if it is the kernel's: whoever reads it from its start gets its present content. A file of
    /// another kind may be replaced by a new one, and is opened each time.
    kept: Option<File>,
    buffer: Vec<u8>,
    /// How much of the buffer this tick has read; `None` before it reads.
    read_bytes: Option<usize>,
}

impl ProcFile {
    fn new(path: PathBuf) -> Self {
        Self { path, kept: None, buffer: Vec::new(), read_bytes: None }
    }

    /// Reads the file into its buffer, unless this tick has, and returns how many bytes it has.
    fn read(&mut self) -> io::Result<usize> {
        if self.read_bytes.is_none() {
            self.read_bytes = Some(self.read_again()?);
        }
        Ok(self.read_bytes.unwrap_or_default())
    }

    fn read_again(&mut self) -> io::Result<usize> {
        let (mut file, is_kept) = match self.kept.take() {
            Some(file) => (file, true),
            None => (File::open(&self.path)?, false),
        };
        let mut bytes = 0;
        loop {
            if bytes == self.buffer.len() {
                if bytes == FILE_BYTES_MAX {
                    return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes, the limit")));
                }
                self.buffer.resize((bytes * 2).clamp(BUFFER_BYTES, FILE_BYTES_MAX), 0);
            }
            let rest = &mut self.buffer[bytes..];
            let more = if is_kept { file.read_at(rest, bytes as u64) } else { file.read(rest) };
            match more {
                Ok(0) => break,
                Ok(more) => {
                    bytes += more;
                    if is_kept && bytes < SHORT_BYTES {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if is_kept || is_of_the_kernel(&file) {
            self.kept = Some(file);
        }
        Ok(bytes)
    }
}

/// Whether a file is of the proc file system.
#[cfg(target_os = "linux")]
fn is_of_the_kernel(file: &File) -> bool {
    use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
    fstatfs(file).is_ok_and(|about| about.filesystem_type() == PROC_SUPER_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_of_the_kernel(_file: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_replaced_is_opened_again_and_a_long_one_is_read_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("stat");
        let mut files = ProcFiles::new(root.path().to_owned());
        for content in ["short\n".to_owned(), "long\n".repeat(BUFFER_BYTES), String::new()] {
            fs::write(root.path().join("new"), &content).unwrap();
            fs::rename(root.path().join("new"), &path).unwrap();
            files.begin_tick();
            assert_eq!(files.text("stat").unwrap(), *content);
        }
        fs::write(&path, vec![b' '; FILE_BYTES_MAX + 1]).unwrap();
        assert_eq!(files.text("stat").unwrap(), "", "what this tick has read");
        files.begin_tick();
        assert!(files.text("stat").unwrap_err().ends_with("longer than 4194304 bytes, the limit"));
        fs::write(&path, b"caf\xe9").unwrap();
        assert_eq!(files.text("stat").unwrap(), "caf\u{fffd}");
        drop(root);
        files.begin_tick();
        assert!(files.text("stat").unwrap_err().starts_with("cannot read "));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_of_the_kernel_stays_open_and_shows_its_present_content() {
        let mut file = ProcFile::new("/proc/thread-self/comm".into());
        assert!(file.read().is_ok() && file.kept.is_some());
        fs::write("/proc/thread-self/comm", "renamed").unwrap();
        file.read_bytes = None;
        assert_eq!(file.read().unwrap(), b"renamed\n".len());
        assert!(file.buffer.starts_with(b"renamed\n"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn long_files_of_the_kernel_are_read_whole_each_time() {
        for name in ["/proc/crypto", "/proc/cpuinfo", "/proc/version"] {
            let whole = fs::read(name).unwrap().len();
            let mut file = ProcFile::new(name.into());
            for _ in 0..2 {
                file.read_bytes = None;
                assert_eq!(file.read().unwrap(), whole, "{name}");
            }
        }
    }

    #[test]
    fn a_file_may_begin_with_a_number() {
        let root = tempfile::tempdir().unwrap();
        for (content, number) in [("1.5 2 3\n", Some(1.5)), ("nan 1", None), ("-1", None), ("inf", None), ("", None)] {
            fs::write(root.path().join("loadavg"), content).unwrap();
            assert_eq!(ProcFiles::new(root.path().to_owned()).first_number("loadavg").ok(), number, "{content:?}");
        }
    }
}
