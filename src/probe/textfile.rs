//! Textfiles: numbers that other programs write into files `*.txt` of a directory, a label and a value a line.
//!
//! A file is read again when it has changed. Whoever writes one writes it under another name and renames it, so that
//! it is never read half-written. The directory may be another user's, or on a file system that hangs: links lead only
//! to files of its owner, what is in a file never gets into the log, and a file that hangs is left out.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::background::BackgroundCall;
use super::lines::{Lines, parse_lines};
use super::selection::is_of_a_probe;
use super::{Probe, Tick};

/// Most files that are read.
const FILES_MAX: usize = 64;
/// Longest file in bytes: room for all values, with the longest labels, and for as much again of comments.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Most values of all files together.
const VALUES_MAX: usize = 128;
/// How long a file may take before the others are read without it.
const HANGS_AFTER: Duration = Duration::from_secs(5);
/// Most files that hang, each with its thread. When there are more, no file is read until one answers.
const HUNG_MAX: usize = 4;

/// The values of a directory, and what is wrong with its files.
#[derive(Debug, Default, PartialEq)]
struct Texts {
    values: Vec<(String, f64)>,
    problems: Vec<String>,
}

/// A directory of textfiles, which a thread of its own reads.
pub(super) struct Textfiles {
    path: PathBuf,
    call: BackgroundCall<Arc<Texts>>,
    progress: Arc<Progress>,
    /// Files whose reading hangs, each with the progress of its thread, which is gone once the thread ends.
    hung: Vec<(String, Weak<Progress>)>,
}

/// The file that a thread reads now, and since when.
#[derive(Default)]
struct Progress(Mutex<Option<(String, Instant)>>);

impl Progress {
    fn set(&self, file: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = file.map(|name| (name.to_owned(), Instant::now()));
    }

    /// The file that hangs, if one does.
    fn hung_file(&self) -> Option<String> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().filter(|(_, since)| since.elapsed() > HANGS_AFTER).map(|(name, _)| name.clone())
    }
}

impl Textfiles {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let (call, progress) = start(path, &[])?;
        Ok(Self { path: path.to_owned(), call, progress, hung: Vec::new() })
    }

    /// Leaves the thread behind that a file hangs in, and starts another one that reads the other files.
    fn leave_out(&mut self, file: String) {
        self.hung.retain(|(_, thread)| thread.strong_count() > 0);
        if self.hung.len() == HUNG_MAX {
            return;
        }
        self.hung.push((file, Arc::downgrade(&self.progress)));
        match start(&self.path, &self.hung) {
            Ok((call, progress)) => (self.call, self.progress) = (call, progress),
            // Without a thread the next tick tries again.
            Err(_) => drop(self.hung.pop()),
        }
    }
}

/// Starts a thread that reads the files of a directory but for those that hang in other threads.
fn start(path: &Path, hung: &[(String, Weak<Progress>)]) -> io::Result<(BackgroundCall<Arc<Texts>>, Arc<Progress>)> {
    let mut directory = Directory { hung: hung.to_owned(), ..Directory::new(path) };
    let progress = directory.progress.clone();
    Ok((BackgroundCall::start("textfile", move || directory.read())?, progress))
}

impl Probe for Textfiles {
    fn ask(&mut self, _at: Duration) {
        self.call.ask();
    }

    fn read(&mut self, tick: &mut Tick<'_>) {
        let Some(texts) = self.call.answer(tick.until) else {
            if self.call.hangs() {
                tick.report(None, &format!("{} does not answer", self.path.display()));
            }
            if let Some(file) = self.progress.hung_file() {
                self.leave_out(file);
            }
            return;
        };
        tick.reading.values.extend(texts.values.iter().map(|(label, value)| (label.clone().into(), *value)));
        texts.problems.iter().for_each(|problem| tick.report(None, problem));
    }
}

/// The files of a directory as they were read.
struct Directory {
    path: PathBuf,
    /// By name, so that of two files with the same label the same one counts each time.
    files: BTreeMap<String, Textfile>,
    texts: Arc<Texts>,
    progress: Arc<Progress>,
    hung: Vec<(String, Weak<Progress>)>,
}

/// One file as it was read.
struct Textfile {
    stamp: Stamp,
    /// The number of the line, its label and value.
    lines: Vec<(usize, String, f64)>,
    problem: Option<String>,
}

/// What differs between a file and the one that was there before: device, inode, length, and the times of its last
/// changes.
type Stamp = [i64; 7];

fn stamp(metadata: &Metadata) -> Stamp {
    let [device, inode, length] = [metadata.dev(), metadata.ino(), metadata.size()].map(u64::cast_signed);
    [device, inode, length, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

impl Directory {
    fn new(path: &Path) -> Self {
        let (texts, progress) = (Arc::default(), Arc::default());
        Self { path: path.to_owned(), files: BTreeMap::new(), texts, progress, hung: Vec::new() }
    }

    /// The values now: the same ones as before, unless a file has changed.
    fn read(&mut self) -> Arc<Texts> {
        let (owner, names) = match self.names() {
            Ok(listed) => listed,
            Err(problem) => {
                self.files.clear();
                self.texts = Arc::new(Texts { values: Vec::new(), problems: vec![problem] });
                return self.texts.clone();
            }
        };
        let before = self.files.len();
        self.files.retain(|name, _| names.contains(name));
        let mut has_changed = self.files.len() < before;
        for name in names {
            self.progress.set(Some(&name));
            has_changed |= self.update(name, owner);
        }
        self.progress.set(None);
        if has_changed || self.files.is_empty() {
            self.texts = Arc::new(merge(&self.files));
        }
        self.texts.clone()
    }

    /// The owner of the directory, and the names of its textfiles.
    fn names(&self) -> Result<(u32, Vec<String>), String> {
        let path = self.path.display();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => format!("{path}: there is no such directory"),
            _ => format!("cannot read {path}: {error}"),
        };
        let owner = fs::metadata(&self.path).map_err(failed)?.uid();
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".txt") && !name.starts_with('.') {
                names.push(name);
            }
            if names.len() > FILES_MAX {
                return Err(format!("{path} has more than {FILES_MAX} files, the limit; none is read"));
            }
        }
        names.sort_unstable();
        Ok((owner, names))
    }

    /// Reads a file if it has changed, and returns whether it has.
    fn update(&mut self, name: String, owner: u32) -> bool {
        let path = self.path.join(&name);
        let is_hung = self.hung.iter().any(|(hung, thread)| *hung == name && thread.strong_count() > 0);
        let found = if is_hung { Err("does not answer".to_owned()) } else { find(&path, owner) };
        let new = found.as_ref().map_or([0; 7], stamp);
        // A file that cannot be read is tried again each time.
        if found.is_ok() && self.files.get(&name).is_some_and(|file| file.stamp == new) {
            return false;
        }
        let file = match found.and_then(|_| read(&path, owner)) {
            Ok(text) => parse(&name, new, &text),
            Err(why) => Textfile { stamp: [0; 7], lines: Vec::new(), problem: Some(format!("file {name:?} {why}")) },
        };
        let is_same =
            self.files.get(&name).is_some_and(|before| before.stamp == [0; 7] && before.problem == file.problem);
        self.files.insert(name, file);
        !is_same
    }
}

/// What the path of a textfile leads to, without opening it.
fn find(path: &Path, owner: u32) -> Result<Metadata, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(failed)?;
    let is_link = fs::symlink_metadata(path).map_err(failed)?.is_symlink();
    check(&metadata, is_link, owner)?;
    Ok(metadata)
}

/// Checks that a textfile may be read. A link must not lead to a file that its maker could not read.
fn check(metadata: &Metadata, is_link: bool, owner: u32) -> Result<(), String> {
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if is_link && metadata.uid() != owner {
        return Err("is a link to a file that is not the directory owner's; it is not read".to_owned());
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("is {} bytes long, the limit is {FILE_BYTES_MAX}; it is not read", metadata.len()));
    }
    Ok(())
}

/// Reads a textfile. What was found at its path may be something else by now: it is checked again once it is open, and
/// opening it does not wait, as it would for a FIFO.
fn read(path: &Path, owner: u32) -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let open = |flags: OFlag| {
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
    };
    let (file, is_link): (File, _) = match open(OFlag::O_NOFOLLOW) {
        Ok(file) => (file, false),
        Err(_) => (open(OFlag::empty()).map_err(failed)?, true),
    };
    check(&file.metadata().map_err(failed)?, is_link, owner)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Parses the lines of a file. Its problem is the first wrong line, and how many more there are.
fn parse(name: &str, stamp: Stamp, text: &str) -> Textfile {
    // Some editors begin a file with a byte order mark.
    let Lines { values, first_wrong, wrong } = parse_lines(text.trim_start_matches('\u{feff}'), is_of_a_probe);
    let more = if wrong > 1 { format!("; and {} more lines", wrong - 1) } else { String::new() };
    let lines = values.into_iter().map(|(number, label, value)| (number, label.to_owned(), value)).collect();
    Textfile { stamp, lines, problem: first_wrong.map(|first| format!("file {name:?}: {first}{more}")) }
}

/// Puts the values of all files together. A label counts once, and only so many values do; each file reports its first
/// line that does not count.
fn merge(files: &BTreeMap<String, Textfile>) -> Texts {
    let mut merged = Texts::default();
    for (name, file) in files {
        merged.problems.extend(file.problem.clone());
        let mut left_out = None;
        for (line, label, value) in &file.lines {
            let why = if merged.values.iter().any(|(known, _)| known == label) {
                "its label is in an earlier line or file"
            } else if merged.values.len() == VALUES_MAX {
                "it is over the limit of 128 values of all files"
            } else {
                merged.values.push((label.clone(), *value));
                continue;
            };
            left_out.get_or_insert_with(|| format!("file {name:?}: line {line}: {why}"));
        }
        merged.problems.extend(left_out);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn directory() -> (Directory, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        (Directory::new(root.path()), root)
    }

    fn replace(root: &tempfile::TempDir, name: &str, text: &str) {
        let new = root.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, root.path().join(name)).unwrap();
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_label() {
        let marked = parse("a.txt", [0; 7], "\u{feff}queue 7\n");
        assert_eq!((marked.lines, marked.problem), (vec![(1, "queue".to_owned(), 7.0)], None));
    }

    #[test]
    fn files_that_are_replaced_are_read_again_and_others_are_not() {
        let (mut directory, root) = directory();
        assert_eq!(*directory.read(), Texts::default());
        replace(&root, "b.txt", "queue 7\nqueue 8\nnonsense\nmore nonsense\n");
        replace(&root, "a.txt", "queue 1\nroom 21.5\n");
        replace(&root, "a.text", "ignored 1\n");
        let first = directory.read();
        assert_eq!(first.values, [("queue".to_owned(), 1.0), ("room".to_owned(), 21.5)]);
        assert!(first.problems[0].contains("\"b.txt\": line 3: ") && first.problems[0].ends_with("; and 1 more lines"));
        assert_eq!(first.problems[1], "file \"b.txt\": line 1: its label is in an earlier line or file");
        assert!(Arc::ptr_eq(&first, &directory.read()), "nothing has changed");
        replace(&root, "a.txt", "queue 2\n");
        fs::remove_file(root.path().join("b.txt")).unwrap();
        assert_eq!(*directory.read(), Texts { values: vec![("queue".to_owned(), 2.0)], problems: Vec::new() });
        fs::remove_file(root.path().join("a.txt")).unwrap();
        assert_eq!(*directory.read(), Texts::default());
    }

    #[test]
    fn what_is_no_file_or_too_much_is_reported_and_not_read() {
        let (mut directory, root) = directory();
        fs::create_dir(root.path().join("d.txt")).unwrap();
        nix::unistd::mkfifo(&root.path().join("p.txt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        replace(&root, "l.txt", &"# long\n".repeat(10_000));
        fs::write(root.path().join("u.txt"), b"caf\xe9 1\n").unwrap();
        let texts = directory.read();
        assert!(texts.values.is_empty());
        let parts =
            ["\"d.txt\" is not a file", "\"l.txt\" is 70000 bytes", "\"p.txt\" is not a file", "\"u.txt\" cannot"];
        assert!(texts.problems.iter().zip(parts).all(|(problem, part)| problem.contains(part)), "{texts:?}");
        assert_eq!(texts.problems.len(), parts.len());
        let many: String = (0..200).map(|n| format!("n{n} {n}\n")).collect();
        replace(&root, "many.txt", &many);
        let texts = directory.read();
        assert_eq!(texts.values.len(), VALUES_MAX);
        assert!(texts.problems.iter().any(|problem| problem.contains("over the limit of 128")), "{texts:?}");
        (0..70).for_each(|n| replace(&root, &format!("{n}.txt"), "a 1"));
        assert!(directory.read().values.is_empty() && directory.read().problems[0].contains("more than 64 files"));
        drop(root);
        assert!(directory.read().problems[0].ends_with(": there is no such directory"));
    }

    #[test]
    fn links_lead_to_files_of_the_directorys_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("target"), "queue 7\n").unwrap();
        symlink(at("target"), at("link.txt")).unwrap();
        let owner = fs::metadata(root.path()).unwrap().uid();
        let text = |owner| find(&at("link.txt"), owner).and_then(|_| read(&at("link.txt"), owner));
        assert_eq!(text(owner), Ok("queue 7\n".to_owned()));
        assert!(text(owner + 1).unwrap_err().contains("not the directory owner's"));
        assert!(read(&at("link.txt"), owner + 1).unwrap_err().contains("not the directory owner's"), "once open too");
        assert_eq!(read(&at("target"), owner + 1), Ok("queue 7\n".to_owned()), "it is no link");
    }

    #[test]
    fn opening_a_fifo_does_not_wait() {
        let root = tempfile::tempdir().unwrap();
        let fifo = root.path().join("f.txt");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&fifo, 0), Err("is not a file".to_owned()), "as if it took a file's place after the look");
    }

    #[test]
    fn a_file_that_hangs_is_left_out_until_its_thread_ends() {
        let (mut directory, root) = directory();
        replace(&root, "a.txt", "a 1\n");
        replace(&root, "b.txt", "b 1\n");
        let thread = Arc::<Progress>::default();
        directory.hung.push(("a.txt".to_owned(), Arc::downgrade(&thread)));
        let texts = directory.read();
        assert_eq!(texts.values, [("b".to_owned(), 1.0)]);
        assert_eq!(texts.problems, ["file \"a.txt\" does not answer"]);
        drop(thread);
        assert_eq!(directory.read().values.len(), 2);
    }
}
