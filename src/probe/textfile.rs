//! Numbers of people's own: the files `*.txt` of a directory, each line of them a label and a value.
//!
//! A file is read again when it has changed. Whoever writes one writes it under another name and renames it, so that
//! it is never read half-written.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::background::BackgroundCall;
use super::selection::{PROBES_MAX, is_of_a_probe};
use crate::sample::{LABELS_MAX, check_label, check_value};

/// Most files that are read.
const FILES_MAX: usize = 64;
/// Longest file in bytes: all values that are taken, with labels of any length, and as much again of comments.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Most values of all files together.
const VALUES_MAX: usize = 128;

const _: () = assert!(VALUES_MAX + 4 * PROBES_MAX <= LABELS_MAX, "what is measured must fit one sample");

/// What a directory holds: labels and values, and what is wrong with it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Texts {
    pub(super) values: Vec<(String, f64)>,
    pub(super) problems: Vec<String>,
}

/// A directory of textfiles, read by a thread of its own since it may lie on any file system.
pub(super) struct Textfiles {
    path: PathBuf,
    aside: BackgroundCall<Arc<Texts>>,
}

impl Textfiles {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let mut directory = Directory { path: path.to_owned(), files: BTreeMap::new(), texts: Arc::default() };
        Ok(Self { path: path.to_owned(), aside: BackgroundCall::start("textfile", move || directory.read())? })
    }

    pub(super) fn ask(&mut self) {
        self.aside.ask();
    }

    pub(super) fn answer(&mut self, until: Instant) -> Result<Arc<Texts>, String> {
        self.aside.answer(until).ok_or_else(|| format!("textfile: {} does not answer", self.path.display()))
    }
}

struct Directory {
    path: PathBuf,
    /// By name, so that of two files with the same label it is always the same that counts.
    files: BTreeMap<String, File>,
    texts: Arc<Texts>,
}

struct File {
    stamp: Stamp,
    texts: Texts,
}

/// What tells a file from the one that was there before: device, inode, length, and its times of change.
type Stamp = [i64; 7];

fn stamp(metadata: &Metadata) -> Stamp {
    let [device, inode, length] = [metadata.dev(), metadata.ino(), metadata.size()].map(u64::cast_signed);
    [device, inode, length, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

impl Directory {
    /// What it holds now: the same as before, unless something has changed.
    fn read(&mut self) -> Arc<Texts> {
        let mut has_changed = false;
        match self.names() {
            Ok(names) => {
                let before = self.files.len();
                self.files.retain(|name, _| names.contains(name));
                has_changed |= self.files.len() < before;
                for name in names {
                    has_changed |= self.look_at(name);
                }
            }
            Err(problem) => {
                self.files.clear();
                self.texts = Arc::new(Texts { values: Vec::new(), problems: vec![problem] });
                return self.texts.clone();
            }
        }
        if has_changed || self.files.is_empty() {
            self.texts = Arc::new(merge(&self.files));
        }
        self.texts.clone()
    }

    fn names(&self) -> Result<Vec<String>, String> {
        let failed = |error: io::Error| format!("textfile: cannot read {}: {error}", self.path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".txt") && !name.starts_with('.') {
                names.push(name);
            }
            if names.len() > FILES_MAX {
                let path = self.path.display();
                return Err(format!("textfile: {path} has more than {FILES_MAX} files, the limit; none is read"));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a file that has changed, and says whether it has.
    fn look_at(&mut self, name: String) -> bool {
        let path = self.path.join(&name);
        // What a link leads to is looked at before it is opened: a pipe would never open.
        let found = fs::metadata(&path).map_err(|error| error.to_string());
        let new = found.as_ref().map_or([0; 7], stamp);
        if self.files.get(&name).is_some_and(|file| file.stamp == new) {
            return false;
        }
        let text = match found {
            Ok(metadata) if !metadata.is_file() => Err("is not a file".to_owned()),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                Err(format!("is {} bytes long, the limit is {FILE_BYTES_MAX}; it is not read", metadata.len()))
            }
            Ok(_) => fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}")),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        // What could not be read is tried again, though it has not changed.
        let (stamp, texts) = match text {
            Ok(text) => (new, parse(&name, &text)),
            Err(why) => ([0; 7], Texts { values: Vec::new(), problems: vec![format!("textfile {name:?} {why}")] }),
        };
        self.files.insert(name, File { stamp, texts });
        true
    }
}

/// Reads the lines of a file. Of what is wrong with them the first is told, and how many more there are.
fn parse(name: &str, text: &str) -> Texts {
    let (mut values, mut first_wrong, mut wrong): (Vec<(String, f64)>, _, _) = (Vec::new(), None, 0);
    for (number, line) in (1..).zip(text.lines()) {
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some((label, value))) => values.push((label.to_owned(), value)),
            Err(why) => {
                first_wrong.get_or_insert_with(|| format!("textfile {name:?}: line {number}: {why}"));
                wrong += 1;
            }
        }
    }
    let more = if wrong > 1 { format!("; and {} more lines", wrong - 1) } else { String::new() };
    Texts { values, problems: first_wrong.map(|first| first + &more).into_iter().collect() }
}

/// A label and a value; `None` for an empty line or a comment.
fn parse_line(line: &str) -> Result<Option<(&str, f64)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (label, value) = line.rsplit_once(char::is_whitespace).ok_or("has no value behind a label")?;
    let label = label.trim_end();
    check_label(label)?;
    if is_of_a_probe(label) {
        return Err(format!("label {label:?}: is the name of a probe's own"));
    }
    let value = value.parse().map_err(|_| format!("label {label:?}: {value:?} is not a number"))?;
    Ok(Some((label, check_value(label, value)?)))
}

/// Puts files together: a label counts once, and there is an end to their number. Each file tells of one label that is
/// there already.
fn merge(files: &BTreeMap<String, File>) -> Texts {
    let mut merged = Texts::default();
    for (name, file) in files {
        merged.problems.extend(file.texts.problems.iter().cloned());
        let mut repeated = None;
        for (label, value) in &file.texts.values {
            if merged.values.iter().any(|(known, _)| known == label) {
                repeated.get_or_insert_with(|| format!("textfile {name:?}: label {label:?}: is there already"));
            } else if merged.values.len() < VALUES_MAX {
                merged.values.push((label.clone(), *value));
            } else {
                repeated =
                    Some(format!("textfile {name:?}: label {label:?}: is over the limit of {VALUES_MAX} in all"));
                break;
            }
        }
        merged.problems.extend(repeated);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (Directory, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        (Directory { path: root.path().to_owned(), files: BTreeMap::new(), texts: Arc::default() }, root)
    }

    fn replace(root: &tempfile::TempDir, name: &str, text: &str) {
        let new = root.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, root.path().join(name)).unwrap();
    }

    #[test]
    fn lines_are_labels_and_values() {
        assert_eq!(parse_line("queue 7"), Ok(Some(("queue", 7.0))));
        assert_eq!(parse_line("  room \t -2.5e1  "), Ok(Some(("room", -25.0))));
        assert_eq!(parse_line("with spaces 1"), Ok(Some(("with spaces", 1.0))));
        assert_eq!((parse_line(""), parse_line("# queue 7")), (Ok(None), Ok(None)));
        for (line, part) in [
            ("queue", "no value"),
            ("queue many", "\"many\" is not a number"),
            ("queue NaN", "not a number between"),
            ("queue 1e301", "not a number between"),
            ("cpu 99", "a probe's own"),
            ("disk:/var 1", "a probe's own"),
            ("a\u{7}b 1", "control character"),
        ] {
            assert!(parse_line(line).unwrap_err().contains(part), "{line:?}");
        }
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
        assert!(first.problems[1].contains("\"b.txt\": label \"queue\": is there already"), "{first:?}");
        assert!(Arc::ptr_eq(&first, &directory.read()), "nothing has changed");
        replace(&root, "a.txt", "queue 2\n");
        fs::remove_file(root.path().join("b.txt")).unwrap();
        assert_eq!(*directory.read(), Texts { values: vec![("queue".to_owned(), 2.0)], problems: Vec::new() });
        fs::remove_file(root.path().join("a.txt")).unwrap();
        assert_eq!(*directory.read(), Texts::default());
    }

    #[test]
    fn what_is_no_file_or_too_much_is_said_and_not_read() {
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
        assert!(directory.read().problems[0].contains("cannot read "));
    }
}
