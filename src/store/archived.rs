//! What archives have of a host: for each archive the minute that it needs next, and the minutes that have changed since it
//! got them.
//!
//! A minute is given by its number, of which minute `n` begins at `n` times 60 seconds. All before the next one are in the
//! archive as they were when they were read. A sample for one of them is late: recording it marks the minute, so that a
//! restart, which records again what the log has, marks it again.

use smol_str::SmolStr;

/// Most archives of a receiver. Each has a thread and a cursor for each host.
pub const ARCHIVES_MAX: usize = 8;
/// Ranges of late minutes that are told apart of one host and archive. Beyond that the two nearest become one: more is sent
/// again than has changed, and nothing is forgotten.
const RANGES_MAX: usize = 16;

/// The minutes from the first to the second, with both.
pub type Minutes = (u64, u64);

/// Where an archive is with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveCursor {
    /// The first minute that it has not got; 0 if it has got none.
    pub next: u64,
    /// Whether minutes before that have changed.
    pub has_late: bool,
}

/// What an archive is to get of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveDue {
    /// The first minute that it has not got.
    pub next: u64,
    /// Minutes before that which have changed, the oldest first.
    pub late: Vec<Minutes>,
}

/// What an archive has got of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveDone {
    /// The host.
    pub host: SmolStr,
    /// The first minute that it has not got.
    pub next: u64,
    /// Whether it has the late minutes of the last [`ArchiveDue`].
    pub has_late: bool,
}

/// Where the archives of a receiver are with one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Archives(Vec<Archive>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Archive {
    /// By which the archive is known again after a restart.
    id: u64,
    next: u64,
    /// The end of what is being read: minutes before it may be on their way. A restart reads from `next` again.
    reading_to: u64,
    /// Late minutes, and those of them that are being read.
    late: Ranges,
    sending: Ranges,
}

impl Archives {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that a sample of a minute was recorded.
    pub(super) fn note(&mut self, minute: u64) {
        for archive in self.0.iter_mut().filter(|archive| minute < archive.next.max(archive.reading_to)) {
            archive.late.add((minute, minute));
        }
    }

    /// Forgets all archives but those of `ids`.
    pub(super) fn retain(&mut self, ids: &[u64]) {
        self.0.retain(|archive| ids.contains(&archive.id));
    }

    pub(super) fn cursor(&self, id: u64) -> ArchiveCursor {
        let archive = self.0.iter().find(|archive| archive.id == id);
        archive.map_or_else(ArchiveCursor::default, |archive| ArchiveCursor {
            next: archive.next,
            has_late: !(archive.late.0.is_empty() && archive.sending.0.is_empty()),
        })
    }

    /// Begins to read for an archive what is late, and what is before the minute `end`. None from `limit` on is closed yet:
    /// where the cursor is past that, the clock was ahead.
    pub(super) fn begin(&mut self, id: u64, limit: u64, end: u64) -> ArchiveDue {
        let archive = self.archive(id);
        archive.next = archive.next.min(limit);
        archive.reading_to = end;
        let late = std::mem::take(&mut archive.late);
        late.0.into_iter().for_each(|range| archive.sending.add(range));
        ArchiveDue { next: archive.next, late: archive.sending.0.clone() }
    }

    /// Notes what an archive has got.
    pub(super) fn done(&mut self, id: u64, done: &ArchiveDone) {
        let archive = self.archive(id);
        archive.next = archive.next.max(done.next);
        if done.has_late {
            archive.sending = Ranges::default();
        }
    }

    fn archive(&mut self, id: u64) -> &mut Archive {
        let place = self.0.iter().position(|archive| archive.id == id).unwrap_or_else(|| {
            self.0.push(Archive { id, ..Archive::default() });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// As a record: of each archive its id (8 bytes), the next minute (8), how many late ranges (2), and these (2 × 8 each).
    #[cfg(feature = "disk")]
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = Vec::new();
        for archive in &self.0 {
            let mut late = archive.late.clone();
            archive.sending.0.iter().for_each(|range| late.add(*range));
            record.extend_from_slice(&archive.id.to_le_bytes());
            record.extend_from_slice(&archive.next.to_le_bytes());
            record.extend_from_slice(&(late.0.len() as u16).to_le_bytes());
            late.0.iter().flat_map(|(first, last)| [first, last]).for_each(|at| record.extend(at.to_le_bytes()));
        }
        record
    }

    /// Reads such a record; `None` where it is malformed.
    #[cfg(feature = "disk")]
    pub(super) fn decode(mut record: &[u8]) -> Option<Self> {
        fn take<const N: usize>(record: &mut &[u8]) -> Option<[u8; N]> {
            let (taken, rest) = record.split_first_chunk()?;
            *record = rest;
            Some(*taken)
        }
        let number = |record: &mut &[u8]| take(record).map(u64::from_le_bytes);
        let mut archives = Self::default();
        while !record.is_empty() {
            let (id, next) = (number(&mut record)?, number(&mut record)?);
            let mut late = Ranges::default();
            for _ in 0..take(&mut record).map(u16::from_le_bytes)? {
                let range = (number(&mut record)?, number(&mut record)?);
                (range.0 <= range.1).then(|| late.add(range))?;
            }
            archives.0.push(Archive { id, next, late, ..Archive::default() });
        }
        (archives.0.len() <= 2 * ARCHIVES_MAX).then_some(archives)
    }
}

/// Ranges of minutes, the oldest first, with a gap between any two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ranges(Vec<Minutes>);

impl Ranges {
    fn add(&mut self, (mut first, mut last): Minutes) {
        if self.0.iter().any(|known| known.0 <= first && last <= known.1) {
            return;
        }
        self.0.retain(|known| {
            let is_apart = known.1.saturating_add(1) < first || last.saturating_add(1) < known.0;
            if !is_apart {
                (first, last) = (first.min(known.0), last.max(known.1));
            }
            is_apart
        });
        let place = self.0.partition_point(|known| known.0 < first);
        self.0.insert(place, (first, last));
        if self.0.len() > RANGES_MAX {
            let gap = |place: &usize| self.0[place + 1].0 - self.0[*place].1;
            let nearest = (0..self.0.len() - 1).min_by_key(gap).unwrap_or(0);
            let (_, end) = self.0.remove(nearest + 1);
            self.0[nearest].1 = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_have_every_minute_and_are_few(minutes in proptest::collection::vec(0..200_u64, 0..60)) {
            let mut ranges = Ranges::default();
            let mut exact = std::collections::BTreeSet::new();
            for minute in minutes {
                ranges.add((minute, minute));
                exact.insert(minute);
                prop_assert!(ranges.0.len() <= RANGES_MAX);
                prop_assert!(exact.iter().all(|at| ranges.0.iter().any(|(first, last)| first <= at && at <= last)));
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
            let apart = exact.iter().filter(|at| !exact.contains(&(*at + 1))).count();
            if apart <= 2 {
                let count: u64 = ranges.0.iter().map(|(first, last)| last - first + 1).sum();
                prop_assert_eq!(count, exact.len() as u64);
            }
        }
    }

    fn done(next: u64, has_late: bool) -> ArchiveDone {
        ArchiveDone { host: "h".into(), next, has_late }
    }

    #[test]
    fn a_sample_for_what_was_read_is_late_until_the_archive_has_it() {
        let mut archives = Archives::default();
        archives.note(5);
        assert_eq!(archives.begin(1, 20, 10), ArchiveDue { next: 0, late: vec![] });
        // While it is on its way.
        archives.note(9);
        archives.note(10);
        assert_eq!(archives.cursor(1), ArchiveCursor { next: 0, has_late: true });
        archives.done(1, &done(10, false));
        assert_eq!(archives.begin(1, 20, 10), ArchiveDue { next: 10, late: vec![(9, 9)] });
        archives.note(9);
        archives.note(2);
        archives.done(1, &done(10, true));
        // Those that came after the second was begun.
        assert_eq!(archives.begin(1, 20, 12).late, [(2, 2), (9, 9)]);
        archives.done(1, &done(12, true));
        assert_eq!(archives.cursor(1), ArchiveCursor { next: 12, has_late: false });
        // A clock that was ahead.
        assert_eq!(archives.begin(1, 7, 7).next, 7);
        // Another archive is by itself, and one that is not named any more is forgotten.
        assert_eq!(archives.cursor(2), ArchiveCursor::default());
        archives.retain(&[2]);
        assert!(archives.is_empty());
    }

    #[cfg(feature = "disk")]
    #[test]
    fn a_record_has_what_is_late_and_what_is_on_its_way() {
        let mut archives = Archives::default();
        archives.begin(7, 100, 50);
        archives.done(7, &done(50, false));
        archives.note(3);
        archives.begin(7, 100, 60);
        archives.note(40);
        archives.begin(8, 100, 1);
        let record = archives.encode();
        let mut read = Archives::decode(&record).unwrap();
        assert_eq!(read.encode(), record);
        assert_eq!(read.begin(7, 100, 50), ArchiveDue { next: 50, late: vec![(3, 3), (40, 40)] });
        for length in 1..record.len() {
            assert!(length == 50 || Archives::decode(&record[..length]).is_none(), "{length} bytes");
        }
    }
}
