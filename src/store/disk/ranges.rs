//! Ranges: what memory holds of them and what is on disk, added up without a lock that posts need.

use std::thread;
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::{DiskStore, history};
use crate::store::{LabelPage, StoreError};
use crate::summary::{IntervalRange, Intervals, merge_intervals};

/// Longest that a range waits until what it reads is not on its way between memory and disk.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two attempts to read it.
const READ_PAUSE: Duration = Duration::from_millis(1);

impl DiskStore {
    /// Copies a range of the intervals of a page of labels, sorted by label.
    ///
    /// # Errors
    /// When a part of it is on disk, and that cannot be read.
    pub(in crate::store) fn range(
        &self,
        host: &str,
        page: &LabelPage<'_>,
        range: IntervalRange,
    ) -> Result<Vec<(SmolStr, Intervals)>, StoreError> {
        let (shard, begun) = (self.memory.shard_of(host), Instant::now());
        loop {
            let version = self.moves.version(shard);
            let series = self.memory.range_and_disk(host, page, range);
            if series.iter().all(|(_, (_, disk_id))| disk_id.is_none()) {
                return Ok(series.into_iter().map(|(label, (held, _))| (label, held)).collect());
            }
            if version.is_some() {
                let keyspaces = self.moves.keyspaces()?;
                let read = series.into_iter().map(|(label, (held, disk_id))| {
                    let id = disk_id.unwrap_or(0);
                    let older = history::read(&keyspaces, id, &label, &range.window, range.first, range.last)?;
                    Ok((label, merge_intervals(older, held)))
                });
                let read: Result<Vec<_>, String> = read.collect();
                if self.moves.version(shard) == version {
                    return read.map_err(StoreError::new);
                }
            }
            if begun.elapsed() > READ_WITHIN {
                let within = READ_WITHIN.as_secs();
                return Err(StoreError::new(format!("the disk has not answered within {within} seconds")));
            }
            thread::sleep(READ_PAUSE);
        }
    }

    /// Reads the chunks that late samples are to be added to, so that the journal's thread finds them in the memory of the
    /// kernel. What it needs besides it reads itself.
    pub(super) fn read_ahead(&self) {
        let Ok(keyspaces) = self.moves.keyspaces() else { return };
        for name in self.memory.changed_hosts().flatten() {
            let waiting = self.memory.with_host(&name, |host| {
                let waiting = host.series.iter_mut().map(|(label, series)| (SmolStr::from(label), series.waiting()));
                (u64::from(host.disk_id), waiting.filter(|(_, waiting)| !waiting.is_empty()).collect::<Vec<_>>())
            });
            let Some((disk_id, waiting)) = waiting else { continue };
            for (label, ranges) in waiting {
                for (place, first, last) in ranges {
                    // The journal's thread reports what fails.
                    let window = self.memory.keep().windows().get(place);
                    window.map(|window| history::read(&keyspaces, disk_id, &label, window, first, last));
                }
            }
        }
    }
}
