//! Checkpoints: writing what has changed of the hosts, so that the batches they contain need not be kept.
//!
//! Meanwhile batches go to the other log. A checkpoint takes many steps, of so many series each, and posts are taken
//! between any two. So a chunk has the number of the newest batch in it, and the record of a host, which is written with
//! the last of its chunks, the number that was the newest when its first was: what a restart finds in the logs is applied
//! to the series that do not contain it yet. No checkpoint begins between two steps of another: it would clear the log of
//! series that the other has begun to write.
//!
//! In the same step what memory need not hold moves to the chunks of [`history`].

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch, PersistMode};
use smol_str::SmolStr;

use super::format::{
    archives_key, chunk_key, chunk_record, host_key, host_record, id_key, series_key, series_record, tags_key,
};
use super::history;
use super::journal::{CLEARED_BYTES_MAX, Journal, LATE_VALUE_BYTES, WAITING_BYTES_MAX};
use super::keyspaces::Keyspaces;
use super::unsynced::Unsynced;
use crate::store::StoreError;
use crate::summary::Outgoing;

/// Series that are copied and written at once: a millisecond or two.
const STEP_SERIES: usize = 256;

/// Bytes of chunks after which the device is to have them, so that they need not be kept to be written again.
const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// Intervals that one step moves to the disk, after which it gets no more series: those of one series may be as many again.
/// Each may take a read of its chunk, and posts wait meanwhile.
const STEP_INTERVALS: usize = 500;

/// Longest that posts wait for steps that catch up with late samples.
const CATCH_UP_WITHIN: Duration = Duration::from_millis(200);

/// Time between two looks at whether a log is on its way to a table, and longest time until it is not awaited any more.
const FLUSH_POLL: Duration = Duration::from_millis(5);
const FLUSH_WITHIN: Duration = Duration::from_secs(30);

/// What one step writes.
struct Step {
    batch: OwnedWriteBatch,
    series: usize,
    /// How many intervals it moves.
    intervals: usize,
}

impl Step {
    fn new(keyspaces: &Keyspaces) -> Self {
        Self { batch: keyspaces.db.batch(), series: 0, intervals: 0 }
    }
}

/// Whose turn it is after a step. Late samples may come faster than one step after each post moves them to the disk.
struct Turns {
    /// Bytes of memory that wait for the next checkpoint.
    waiting_bytes: u64,
    /// Bytes that steps are to move before the next posts are taken.
    owed_bytes: u64,
    taken_at: Instant,
}

impl Turns {
    fn new(now: Instant) -> Self {
        Self { waiting_bytes: 0, owed_bytes: 0, taken_at: now }
    }

    /// Whether posts are taken after a step that has moved so many bytes.
    fn is_of_posts(&mut self, moved_bytes: u64, now: Instant) -> bool {
        self.owed_bytes = self.owed_bytes.saturating_sub(moved_bytes);
        self.owed_bytes == 0 || now >= self.taken_at + CATCH_UP_WITHIN
    }

    /// Notes that posts were taken, after which so many bytes wait. Where that is much, steps move as much as came.
    fn note_posts(&mut self, waiting_bytes: u64, now: Instant) {
        let came = waiting_bytes.saturating_sub(self.waiting_bytes);
        self.owed_bytes = if waiting_bytes > WAITING_BYTES_MAX { self.owed_bytes + came } else { 0 };
        (self.waiting_bytes, self.taken_at) = (waiting_bytes, now);
    }
}

impl Journal {
    /// Writes all that has changed. Returns the database, and whether fjall is to free the memory of cleared logs.
    pub(super) fn checkpoint(&mut self) -> Result<(Keyspaces, bool), StoreError> {
        let (keyspaces, memory) = (self.keyspaces()?, self.memory());
        let (keep, swept_at) = (*memory.keep(), memory.swept_at());
        self.moves.waiting_bytes.store(0, Ordering::Relaxed);
        let newest_before = self.begin_checkpoint();
        let (mut step, mut turns) = (Step::new(&keyspaces), Turns::new(Instant::now()));
        for names in memory.changed_hosts() {
            for name in names {
                let first_batch = self.newest_batch();
                // From the last series to the first: those that come meanwhile are behind, and those that expire move
                // the others towards the first.
                let mut end = memory.with_host(&name, |host| {
                    host.changed = false;
                    host.series.len()
                });
                while let Some(series_end) = end {
                    let (series, intervals) = (STEP_SERIES - step.series, STEP_INTERVALS - step.intervals);
                    let start = memory.with_host(&name, |host| host.step_start(series_end, series, intervals));
                    let start = start.unwrap_or(0);
                    let newest = self.newest_batch();
                    if keep.has_older() {
                        self.begin_move(memory.shard_of(&name));
                    }
                    let (mut outgoing, mut removed, mut disk_id) = (Vec::new(), Vec::new(), 0_u64);
                    memory.with_host(&name, |host| {
                        for (label, series) in host.series.range_mut(start..series_end) {
                            series.age(&keep, swept_at);
                            series.take_changes(&keep, |window, chunk, intervals| {
                                let key = chunk_key(&name, label, window.name, window.interval_sec, chunk);
                                match intervals {
                                    [] => removed.push(key),
                                    _ => step.batch.insert(&keyspaces.state, key, chunk_record(newest, intervals)),
                                }
                            });
                            outgoing.extend(series.take_outgoing().map(|taken| (SmolStr::from(label), taken)));
                        }
                        if host.disk_id == 0 && !outgoing.is_empty() {
                            // There are fewer hosts in all the years of a directory.
                            host.disk_id = u32::try_from(self.next_disk_id).unwrap_or(u32::MAX);
                            self.next_disk_id += 1;
                        }
                        disk_id = u64::from(host.disk_id);
                        if start == 0 {
                            step.batch.insert(&keyspaces.state, host_key(&name), host_record(host, first_batch));
                            let tags = host.tags();
                            if !tags.is_empty() {
                                step.batch.insert(&keyspaces.state, tags_key(&name), tags.as_str());
                            }
                            if let Some(archives) = host.archives() {
                                step.batch.insert(&keyspaces.state, archives_key(&name), archives.encode());
                            }
                        }
                    });
                    if disk_id > 0 && (start == 0 || !outgoing.is_empty()) {
                        step.batch.insert(&keyspaces.state, id_key(&name), disk_id.to_le_bytes());
                    }
                    let taken = outgoing.iter().flat_map(|(_, taken)| &taken.intervals);
                    step.intervals += taken.map(Vec::len).sum::<usize>();
                    for key in removed {
                        self.put(&keyspaces, &mut step.batch, Unsynced::state(key, None));
                    }
                    self.move_out(&keyspaces, &mut step, &name, disk_id, newest, outgoing)?;
                    step.series += (series_end - start).max(1);
                    if step.series >= STEP_SERIES || step.intervals >= STEP_INTERVALS {
                        let moved_bytes = step.intervals as u64 * LATE_VALUE_BYTES;
                        self.write_step(std::mem::replace(&mut step, Step::new(&keyspaces)))?;
                        if turns.is_of_posts(moved_bytes, Instant::now()) {
                            self.carry_out_waiting();
                            turns.note_posts(self.moves.waiting_bytes.load(Ordering::Relaxed), Instant::now());
                        }
                    }
                    end = (start > 0).then_some(start);
                }
            }
        }
        self.write_step(step)?;
        self.carry_out_waiting();
        self.end_checkpoint(&keyspaces, newest_before)
    }

    fn write_step(&mut self, step: Step) -> Result<(), StoreError> {
        // Fails where a post that was taken meanwhile has found the disk faulty.
        self.keyspaces()?;
        step.batch.commit().map_err(|error| self.fail(&format!("cannot be written: {error}"), true))?;
        self.end_moves();
        let unsynced: usize = self.unsynced.iter().map(Unsynced::len).sum();
        if unsynced >= UNSYNCED_BYTES_MAX && !self.is_rewriting { self.sync() } else { Ok(()) }
    }

    /// Notes that intervals of a shard of hosts are on their way to the disk.
    fn begin_move(&mut self, shard: usize) {
        if !self.moving.contains(&shard) {
            self.moving.push(shard);
            self.moves.step(shard);
        }
    }

    /// Notes that what was on its way has arrived.
    pub(super) fn end_moves(&mut self) {
        std::mem::take(&mut self.moving).into_iter().for_each(|shard| self.moves.step(shard));
    }

    /// Adds to a step the chunks that what was taken of the series of a host is in, and what these series have there.
    fn move_out(
        &mut self,
        keyspaces: &Keyspaces,
        step: &mut Step,
        host: &str,
        disk_id: u64,
        newest: u64,
        outgoing: Vec<(SmolStr, Outgoing)>,
    ) -> Result<(), StoreError> {
        let memory = self.memory();
        let mut outgoing = outgoing.into_iter();
        while let Some((label, taken)) = outgoing.next() {
            let windows = memory.keep().windows().iter().zip(&taken.intervals);
            let merged = windows.map(|(window, more)| history::merged(keyspaces, disk_id, &label, window, more));
            match merged.collect::<Result<Vec<_>, String>>() {
                Ok(chunks) => {
                    for (key, value) in chunks.into_iter().flatten() {
                        self.put(keyspaces, &mut step.batch, Unsynced::history(key, value));
                    }
                    let record = series_record(newest, memory.keep(), &taken.ends);
                    step.batch.insert(&keyspaces.state, series_key(host, &label), record);
                }
                Err(why) => {
                    // It waits in memory again.
                    let left = [(label, taken)].into_iter().chain(outgoing);
                    memory.with_host(host, |host| {
                        left.for_each(|(label, taken)| host.series.get_or_make(&label, 0).1.put_back(taken));
                    });
                    return Err(self.fail(&format!("cannot be read: {why}"), true));
                }
            }
        }
        Ok(())
    }

    /// Lets batches go to the other log from now on, if it is empty. Returns the number of the newest batch.
    fn begin_checkpoint(&mut self) -> u64 {
        if self.spare_is_empty {
            self.active ^= 1;
            self.spare_is_empty = false;
        }
        self.newest_batch()
    }

    /// Clears the log whose batches are in the records now, once these are on the device.
    fn end_checkpoint(&mut self, keyspaces: &Keyspaces, newest_before: u64) -> Result<(Keyspaces, bool), StoreError> {
        let (cleared, begun) = (self.active ^ 1, Instant::now());
        // Its file would be left. Posts are taken meanwhile.
        while keyspaces.is_flushing(cleared).unwrap_or(false) && begun.elapsed() < FLUSH_WITHIN {
            thread::sleep(FLUSH_POLL);
            self.carry_out_waiting();
        }
        self.keyspaces()?;
        let ended = keyspaces
            .state
            .insert("c", newest_before.to_le_bytes())
            .and_then(|()| keyspaces.db.persist(PersistMode::SyncAll))
            .inspect(|()| self.note_synced())
            .and_then(|()| keyspaces.clear_log(cleared));
        ended.map_err(|error| self.fail(&format!("cannot be written: {error}"), true))?;
        self.spare_is_empty = true;
        let frees = self.logged_bytes >= CLEARED_BYTES_MAX;
        if frees {
            self.logged_bytes = 0;
        }
        Ok((keyspaces.clone(), frees))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, Mutex};

    use super::super::queue::Queue;
    use super::super::{DiskStore, MAINTENANCE_WITHIN, POST_WITHIN};
    use super::*;
    use crate::sample::Sample;
    use crate::store::memory::locked;
    use crate::store::{ArchiveCursor, ArchiveDone, ArchiveDue, KeepOptions, LabelPage, Records};
    use crate::summary::{IntervalRange, KeyFilter, WINDOWS};

    const NOW: u64 = 1_465_001_814;
    const DAY: u64 = 86_400;

    fn open(path: &Path) -> DiskStore {
        DiskStore::open(path, false, 1000.into(), &KeepOptions::default(), NOW).unwrap()
    }

    fn record(store: &DiskStore, age_sec: u64) {
        let sample = Sample { host: "h".into(), epoch: NOW - age_sec, values: vec![("cpu".into(), 1.0)] };
        assert_eq!(store.record(sample.view(), None, NOW).unwrap().stored, 1);
    }

    /// How many samples are kept by minute, by hour and by day.
    fn counts(store: &DiskStore) -> [u32; 3] {
        [0, 1, 2].map(|window| {
            let window = store.memory().keep().windows()[window];
            let (all, range) = (KeyFilter::containing(""), IntervalRange { window, first: 0, last: NOW });
            let series = store.range("h", &LabelPage::all(&all), range).unwrap();
            series.iter().flat_map(|(_, intervals)| intervals).map(|(_, bucket)| bucket.count).sum()
        })
    }

    #[test]
    fn what_an_archive_has_is_there_after_a_restart_and_what_came_late_is_late_again() {
        let (dir, end) = (tempfile::tempdir().unwrap(), NOW / 60 - 3);
        let late = WINDOWS[0].number(NOW - 600);
        let mut store = open(dir.path());
        record(&store, 600);
        let begin = |store: &DiskStore| store.memory().change_archives("h", |known| known.begin(1, NOW, end)).unwrap();
        let done = |has_late| [ArchiveDone { host: "h".into(), next: end, has_late }];
        let cursor = |store: &DiskStore| store.memory().archive_cursors(1, &["h".into()])[0];
        assert_eq!(begin(&store), ArchiveDue::default());
        store.note_archived(1, &done(false)).unwrap();
        for is_checkpointed in [false, true] {
            record(&store, 600);
            if is_checkpointed {
                store.checkpoint().unwrap();
            }
            drop(store);
            store = open(dir.path());
            assert_eq!(cursor(&store), ArchiveCursor { next: end, has_late: true }, "{is_checkpointed}");
            assert_eq!(begin(&store), ArchiveDue { next: end, late: vec![(late, late)] });
            store.note_archived(1, &done(true)).unwrap();
            assert!(!cursor(&store).has_late);
        }
        drop(store);
        let store = open(dir.path());
        assert_eq!(cursor(&store), ArchiveCursor { next: end, has_late: false });
        // A host that comes again is another.
        assert!(store.remove("h").unwrap());
        record(&store, 60);
        drop(store);
        assert_eq!(cursor(&open(dir.path())), ArchiveCursor::default());
    }

    fn records(names: &[&str]) -> Records {
        names.iter().map(|name| ((*name).to_owned(), Some(name.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn steps_catch_up_where_late_samples_come_faster_than_they_move() {
        let start = Instant::now();
        let mut turns = Turns::new(start);
        assert!(turns.is_of_posts(0, start));
        turns.note_posts(WAITING_BYTES_MAX, start);
        assert!(turns.is_of_posts(0, start), "what waits is no more than may");
        turns.note_posts(WAITING_BYTES_MAX + 100, start);
        assert!(!turns.is_of_posts(60, start) && turns.is_of_posts(40, start));
        turns.note_posts(WAITING_BYTES_MAX + 1100, start);
        let later = start + CATCH_UP_WITHIN;
        assert!(!turns.is_of_posts(100, start) && turns.is_of_posts(100, later));
        turns.note_posts(WAITING_BYTES_MAX + 1200, later);
        assert!(!turns.is_of_posts(899, later) && turns.is_of_posts(1, later), "what was owed before is still");
    }

    /// Has the journal's thread note how much was written since the last sync, between any two steps, while `is_on`.
    fn watch(queue: Arc<Queue<Journal>>, is_on: Arc<AtomicBool>, written: Arc<Mutex<Vec<usize>>>) {
        queue.clone().push_task(move |journal| {
            locked(&written).push(journal.unsynced.len());
            if is_on.load(Ordering::Relaxed) {
                watch(queue, is_on, written);
            }
        });
    }

    #[test]
    fn posts_are_taken_while_many_late_samples_of_a_few_series_move_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (labels, hours) = (36, 60);
        let values: Vec<_> = (0..labels).map(|label| (format!("label-{label}").into(), 1.0)).collect();
        for (host, hour) in ["g", "h"].iter().flat_map(|host| (0..hours).map(move |hour| (*host, hour))) {
            let sample = Sample { host: host.into(), epoch: NOW - 5 * DAY - hour * 3600, values: values.clone() };
            assert_eq!(store.record(sample.view(), None, NOW).unwrap().stored, labels);
        }
        let (is_on, written) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        watch(store.queue.clone(), is_on.clone(), written.clone());
        store.checkpoint().unwrap();
        is_on.store(false, Ordering::Relaxed);
        let written = locked(&written);
        let most = written.windows(2).map(|step| step[1].saturating_sub(step[0])).max().unwrap();
        // Of nine series. The hours of one are in up to six chunks, and its days in one or two.
        assert!((1..=9 * 8).contains(&most), "{most} chunks in a step");
    }

    /// An fsync fails after which the device has nothing of what was written since the last one: neither the chunks of a
    /// checkpoint that runs, whose samples memory does not hold any more, nor records of alerts.
    #[test]
    fn what_memory_does_not_hold_is_written_again_after_a_failed_fsync() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        [0, 3 * 3600, 20 * DAY, 400 * DAY].iter().for_each(|age| record(&store, *age));
        store.write_records(&records(&["xa", "xb"])).unwrap();
        store.checkpoint().unwrap();
        [5 * 3600, 20 * DAY, 400 * DAY].iter().for_each(|age| record(&store, *age));
        store.sync_now().unwrap();
        let journal_file = dir.path().join("fjall/0.jnl");
        let synced = fs::metadata(&journal_file).unwrap().len();
        let expected = counts(&store);
        assert_eq!(expected, [3, 5, 7]);
        let removed = Records::from([("xb".to_owned(), None)]);
        store.write_records(&removed).unwrap();
        store.write_records(&records(&["xc"])).unwrap();
        let queue = store.queue.clone();
        let checkpoint = store.ask(MAINTENANCE_WITHIN, move |journal| {
            // Carried out after the step that writes the chunks.
            queue.push_task(move |journal| {
                assert!(journal.unsynced.iter().filter(|write| write.is_history()).count() >= 3);
                journal.fail("cannot be written", true);
                fs::OpenOptions::new().write(true).open(journal_file).unwrap().set_len(synced).unwrap();
            });
            journal.checkpoint().map(drop)
        });
        assert!(checkpoint.is_err());
        while store.unavailable().is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        let alerts = |store: &DiskStore| store.records('x').unwrap();
        assert_eq!((counts(&store), alerts(&store)), (expected, records(&["xa", "xc"])));
        drop(store);
        let store = open(dir.path());
        assert_eq!((counts(&store), alerts(&store)), (expected, records(&["xa", "xc"])));
        // Nothing waits any more.
        store.checkpoint().unwrap();
        assert_eq!(store.ask(POST_WITHIN, |journal| Ok(journal.unsynced.len())), Ok(0));
        assert_eq!(counts(&store), expected);
    }
}
