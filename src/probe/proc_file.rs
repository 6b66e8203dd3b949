//! What `/proc` costs: its files read without opening them each time, and its processes counted without listing them.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// Room for the files of most machines; those of a hundred processors and more have it grow.
const FILE_BYTES: usize = 8 << 10;
/// Longest file in bytes: `/proc/stat` of the largest machines has a few hundred thousand.
const FILE_BYTES_MAX: usize = 4 << 20;
/// How many counts of processes go by before they are listed again. Until then a directory that the kernel has made
/// in `/proc` meanwhile, as few drivers do, counts as one.
const LISTED_EVERY: u32 = 60;

/// A file of `/proc`.
pub(super) struct ProcFile {
    path: PathBuf,
    /// The file, where it is the kernel's: it stays open, since its content is made anew for who reads from its start.
    /// A file of any other kind may be replaced, and is opened each time.
    kept: Option<File>,
}

impl ProcFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, kept: None }
    }

    /// What is wrong with its content.
    pub(super) fn wrong(&self, why: &str) -> String {
        format!("cannot parse {}: {why}", self.path.display())
    }

    /// Reads it into `buffer`, which grows where it is too short and is of use for the next file.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], String> {
        let read = self.try_read(buffer).map_err(|error| format!("cannot read {}: {error}", self.path.display()));
        read.map(|bytes| &buffer[..bytes])
    }

    pub(super) fn read_text<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Result<&'a str, String> {
        str::from_utf8(self.read(buffer)?).map_err(|_| self.wrong("it is not UTF-8"))
    }

    fn try_read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (mut file, is_kept) = match self.kept.take() {
            Some(mut file) => {
                file.rewind()?;
                (file, true)
            }
            None => (File::open(&self.path)?, false),
        };
        let mut bytes = 0;
        loop {
            if bytes == buffer.len() {
                if bytes == FILE_BYTES_MAX {
                    return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes, the limit")));
                }
                buffer.resize((bytes * 2).clamp(FILE_BYTES, FILE_BYTES_MAX), 0);
            }
            match file.read(&mut buffer[bytes..]) {
                Ok(0) => break,
                Ok(more) => bytes += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_the_kernels = || fstatfs(&file).is_ok_and(|about| about.filesystem_type() == PROC_SUPER_MAGIC);
        if is_kept || is_the_kernels() {
            self.kept = Some(file);
        }
        Ok(bytes)
    }
}

/// The processes in `/proc`: its directories whose names are numbers.
///
/// To list them costs more than all else that is read, and the more the more there are. But the links of `/proc` are
/// two and one for each directory in it, so that with the number of the other directories they tell it too. Where that
/// does not hold, as in the `/proc` of a container, whose links count the processes of the whole machine, they are
/// listed each time.
pub(super) struct Processes {
    procfs: PathBuf,
    /// Links that stand for no process.
    others: u64,
    /// How many counts may do with the links.
    by_links: u32,
}

impl Processes {
    pub(super) fn new(procfs: PathBuf) -> Self {
        Self { procfs, others: 0, by_links: 0 }
    }

    pub(super) fn count(&mut self) -> Result<u64, String> {
        let count = self.try_count().map_err(|error| format!("cannot read {}: {error}", self.procfs.display()))?;
        if count > 0 { Ok(count) } else { Err(format!("{} has no processes", self.procfs.display())) }
    }

    fn try_count(&mut self) -> io::Result<u64> {
        let links = fs::metadata(&self.procfs)?.nlink();
        if self.by_links > 0 {
            self.by_links -= 1;
            return Ok(links.saturating_sub(self.others));
        }
        let mut count = 0;
        self.others = 2;
        for entry in fs::read_dir(&self.procfs)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                count += 1;
            } else if entry.file_type()?.is_dir() {
                self.others += 1;
            }
        }
        // One that came or went meanwhile spoils the comparison: the next count is another try.
        if links == self.others + count {
            self.by_links = LISTED_EVERY;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_read_anew_and_a_long_one_whole() {
        let root = tempfile::tempdir().unwrap();
        let (path, mut buffer) = (root.path().join("stat"), Vec::new());
        let mut file = ProcFile::new(path.clone());
        for content in ["short\n".to_owned(), "long\n".repeat(FILE_BYTES), String::new()] {
            fs::write(root.path().join("new"), &content).unwrap();
            fs::rename(root.path().join("new"), &path).unwrap();
            assert_eq!(file.read_text(&mut buffer), Ok(&*content));
        }
        fs::write(&path, vec![b' '; FILE_BYTES_MAX + 1]).unwrap();
        assert!(file.read(&mut buffer).unwrap_err().ends_with("longer than 4194304 bytes, the limit"));
        fs::write(&path, b"caf\xe9").unwrap();
        assert_eq!(file.read_text(&mut buffer), Err(file.wrong("it is not UTF-8")));
        drop(root);
        assert!(file.read(&mut buffer).unwrap_err().starts_with("cannot read "));
    }

    #[test]
    fn a_file_of_the_kernel_stays_open_and_is_never_stale() {
        let (mut file, mut buffer) = (ProcFile::new("/proc/thread-self/comm".into()), Vec::new());
        assert!(file.read(&mut buffer).is_ok() && file.kept.is_some());
        fs::write("/proc/thread-self/comm", "renamed").unwrap();
        assert_eq!(file.read_text(&mut buffer), Ok("renamed\n"));
    }

    #[test]
    fn processes_are_counted_by_links_where_these_agree() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir(root.path().join(name)).unwrap();
        ["1", "22", "sys"].into_iter().for_each(make);
        fs::write(root.path().join("stat"), "").unwrap();
        let mut processes = Processes::new(root.path().to_owned());
        assert_eq!(processes.count(), Ok(2));
        // Not every file system counts links as the kernel's does: it is then as in the next case.
        let by_links = processes.by_links;
        make("333");
        assert_eq!((processes.count(), processes.by_links), (Ok(3), by_links.saturating_sub(1)));
        // What is listed is right whatever the links say.
        processes.by_links = 0;
        make("4444");
        make("irq");
        assert_eq!(processes.count(), Ok(4));
        fs::remove_dir(root.path().join("1")).unwrap();
        assert_eq!(processes.count(), Ok(3));
        drop(root);
        assert!(processes.count().unwrap_err().starts_with("cannot read "));
        assert!(Processes::new("/proc/sys".into()).count().unwrap_err().ends_with("has no processes"));
    }
}
