//! The mark of the receiver's clock in the store's directory, from which the next process goes on.

use std::path::Path;
use std::{fs, io};

/// Name of the file in the directory.
pub(crate) const FILE: &str = "clock";

/// What the receiver's clock showed at a time since boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Identifies the boot; empty if unknown.
    pub(crate) boot_id: String,
    /// Milliseconds since boot.
    pub(crate) boot_ms: i64,
    /// Milliseconds since the Unix epoch by the receiver's clock.
    pub(crate) time_ms: i64,
}

impl Mark {
    /// Reads the mark of a directory. A file that is not there, or is no mark, is none.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(directory.join(FILE)).ok()?)
    }

    /// Replaces the mark of a directory.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{FILE}.new"));
        fs::write(&new, self.encode())?;
        fs::File::open(&new)?.sync_data()?;
        fs::rename(&new, directory.join(FILE))
    }

    /// The receiver's clock at `boot_ms` of the boot `boot_id`. How long the machine was off before another boot is not
    /// known, so the clock then begins at the mark.
    pub(crate) fn time_at_ms(&self, boot_id: &str, boot_ms: i64) -> i64 {
        let is_same_boot = !boot_id.is_empty() && *boot_id == self.boot_id && boot_ms >= self.boot_ms;
        if is_same_boot { self.time_ms.saturating_add(boot_ms - self.boot_ms) } else { self.time_ms }
    }

    fn encode(&self) -> String {
        format!("{} {} {}\n", self.time_ms, self.boot_ms, self.boot_id)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_suffix('\n')?.splitn(3, ' ');
        let mut number = || fields.next()?.parse().ok().filter(|number| *number >= 0);
        let (time_ms, boot_ms) = (number()?, number()?);
        Some(Self { boot_id: fields.next()?.to_owned(), boot_ms, time_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(directory.path()), None);
        for boot_id in ["51fbbe5c-f1c5", ""] {
            let mark = Mark { boot_id: boot_id.to_owned(), boot_ms: 7, time_ms: 1_465_001_814_123 };
            mark.write(directory.path()).unwrap();
            assert_eq!(Mark::read(directory.path()), Some(mark));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        for text in ["", "\n", "1 2", "1 2 b", "-1 2 b\n", "1 -2 b\n", "1\n", "a 2 b\n", "99999999999999999999 2 b\n"] {
            assert_eq!(Mark::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_clock_goes_on_within_a_boot_and_begins_at_the_mark_after_another() {
        let mark = Mark { boot_id: "a".to_owned(), boot_ms: 1000, time_ms: 50_000 };
        assert_eq!(mark.time_at_ms("a", 4000), 53_000);
        assert_eq!(mark.time_at_ms("b", 4000), 50_000);
        assert_eq!(mark.time_at_ms("a", 999), 50_000, "no time of the same boot");
        assert_eq!(Mark { boot_id: String::new(), ..mark }.time_at_ms("", 4000), 50_000);
    }
}
