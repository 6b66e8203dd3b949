//! `processes`: how many processes there are, by the directories of `/proc` whose names are numbers.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "processes",
    target: Target::None,
    labels: &[Label { name: "processes", unit: "", what: "number of processes" }],
    source: "/proc",
    is_default: true,
    new: |setup| Ok(Box::new(Processes::new(setup.options.procfs.clone()))),
};

/// How many counts take the number of links before the directory is listed again. A directory that is no process, as
/// few drivers make one in `/proc`, counts as one until then.
const LISTED_EVERY: u32 = 60;

/// Counts processes.
///
/// Listing `/proc` costs more than everything else that is read, and more with each process. Its number of links is
/// cheap: two, and one for each directory in it. Less the directories that are no processes, it is the number of
/// processes. Where that differs from a listing, as in a container, whose links count the processes of the whole
/// machine, each count lists the directory.
struct Processes {
    procfs: PathBuf,
    /// Links that stand for no process.
    other_links: u64,
    /// How many counts take the number of links from here on.
    counts_by_links: u32,
}

impl Probe for Processes {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let count = self.count();
        #[expect(clippy::cast_precision_loss, reason = "no system has 2^53 processes")]
        let count = tick.ok(count).map(|count| count as f64);
        tick.give("processes", None, count);
    }
}

impl Processes {
    fn new(procfs: PathBuf) -> Self {
        Self { procfs, other_links: 0, counts_by_links: 0 }
    }

    fn count(&mut self) -> Result<u64, String> {
        let count = fs::metadata(&self.procfs).and_then(|about| self.count_with(about.nlink()));
        match count {
            Ok(0) => Err(format!("{} has no processes", self.procfs.display())),
            Ok(count) => Ok(count),
            Err(error) => Err(format!("cannot read {}: {error}", self.procfs.display())),
        }
    }

    /// Counts with the number of links of the directory.
    fn count_with(&mut self, links: u64) -> io::Result<u64> {
        if self.counts_by_links > 0 {
            self.counts_by_links -= 1;
            return Ok(links.saturating_sub(self.other_links));
        }
        let (mut count, mut sees_first) = (0, false);
        self.other_links = 2;
        for entry in fs::read_dir(&self.procfs)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                count += 1;
                sees_first |= name == "1";
            } else if entry.file_type()?.is_dir() {
                self.other_links += 1;
            }
        }
        // Every PID namespace has a process 1.
        if count > 0 && !sees_first {
            return Err(io::Error::other("processes of other users are hidden, as by the mount option hidepid"));
        }
        // A process that started or ended during the listing spoils the comparison, and the next count compares again.
        if links == self.other_links + count {
            self.counts_by_links = LISTED_EVERY;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories of two processes and of one that is none, and a file.
    fn procfs() -> (Processes, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        ["1", "22", "sys"].iter().for_each(|name| fs::create_dir(root.path().join(name)).unwrap());
        fs::write(root.path().join("stat"), "").unwrap();
        (Processes::new(root.path().to_owned()), root)
    }

    #[test]
    fn links_that_agree_with_a_listing_stand_for_it_a_minute_long() {
        let (mut processes, root) = procfs();
        assert_eq!(processes.count_with(5).unwrap(), 2, "listed: 2 links, `sys` and two processes");
        for links in 5..65 {
            assert_eq!(processes.count_with(links).unwrap(), links - 3, "by the links alone");
        }
        fs::create_dir(root.path().join("333")).unwrap();
        assert_eq!(processes.count_with(1000).unwrap(), 3, "listed again after {LISTED_EVERY} counts");
    }

    #[test]
    fn links_that_differ_from_a_listing_never_stand_for_it() {
        let (mut processes, root) = procfs();
        for name in ["333", "4444", "irq"] {
            let before = processes.count_with(1000).unwrap();
            fs::create_dir(root.path().join(name)).unwrap();
            assert_eq!(processes.count_with(1000).unwrap(), before + u64::from(name != "irq"));
        }
    }

    #[test]
    fn a_count_without_the_first_process_is_not_of_all() {
        let (mut processes, root) = procfs();
        fs::remove_dir(root.path().join("1")).unwrap();
        let problem = processes.count().unwrap_err();
        assert!(problem.ends_with("processes of other users are hidden, as by the mount option hidepid"), "{problem}");
    }

    #[test]
    fn no_processes_are_a_problem() {
        let (mut processes, root) = procfs();
        assert_eq!(processes.count(), Ok(2));
        drop(root);
        processes.counts_by_links = 0;
        assert!(processes.count().unwrap_err().starts_with("cannot read "));
        assert!(Processes::new("/proc/sys".into()).count().unwrap_err().ends_with("has no processes"));
    }
}
