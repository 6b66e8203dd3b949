//! Checkpoints: writing what has changed of the hosts, so that the batches they contain need not be kept.
//!
//! Meanwhile batches go to the other log. A checkpoint takes many steps, of so many series each, and posts are taken
//! between any two. So a chunk has the number of the newest batch in it, and the record of a host, which is written with
//! the last of its chunks, the number that was the newest when its first was: what a restart finds in the logs is applied
//! to the series that do not contain it yet.

use fjall::{OwnedWriteBatch, PersistMode};

use super::format::{chunk_key, chunk_record, host_key, host_record, tags_key};
use super::journal::{CLEARED_BYTES_MAX, Journal};
use super::keyspaces::Keyspaces;
use crate::store::StoreError;

/// Series that are copied and written at once: a millisecond or two.
const STEP_SERIES: usize = 256;

/// What one step writes.
struct Step {
    batch: OwnedWriteBatch,
    series: usize,
}

impl Step {
    fn new(keyspaces: &Keyspaces) -> Self {
        Self { batch: keyspaces.db.batch(), series: 0 }
    }
}

impl Journal {
    /// Writes all that has changed. Returns the database, and whether fjall is to free the memory of cleared logs.
    pub(super) fn checkpoint(&mut self) -> Result<(Keyspaces, bool), StoreError> {
        let (keyspaces, memory) = (self.keyspaces()?, self.memory());
        let newest_before = self.begin_checkpoint();
        let mut step = Step::new(&keyspaces);
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
                    let start = series_end.saturating_sub(STEP_SERIES - step.series);
                    let newest = self.newest_batch();
                    memory.with_host(&name, |host| {
                        for (label, series) in host.series.range_mut(start..series_end) {
                            series.take_changes(memory.keep(), |window, chunk, intervals| {
                                let key = chunk_key(&name, label, window.name, window.interval_sec, chunk);
                                step.batch.insert(&keyspaces.state, key, chunk_record(newest, intervals));
                            });
                        }
                        if start == 0 {
                            step.batch.insert(&keyspaces.state, host_key(&name), host_record(host, first_batch));
                            let tags = host.tags();
                            if !tags.is_empty() {
                                step.batch.insert(&keyspaces.state, tags_key(&name), tags.as_str());
                            }
                        }
                    });
                    step.series += (series_end - start).max(1);
                    if step.series >= STEP_SERIES {
                        self.write_step(std::mem::replace(&mut step, Step::new(&keyspaces)))?;
                        self.carry_out_waiting();
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
        step.batch.commit().map_err(|error| self.fail(&format!("cannot be written: {error}"), true))
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
        self.keyspaces()?;
        let ended = keyspaces
            .state
            .insert("c", newest_before.to_le_bytes())
            .and_then(|()| keyspaces.db.persist(PersistMode::SyncAll))
            .and_then(|()| keyspaces.logs[self.active ^ 1].clear());
        ended.map_err(|error| self.fail(&format!("cannot be written: {error}"), true))?;
        self.spare_is_empty = true;
        let frees = self.logged_bytes >= CLEARED_BYTES_MAX;
        if frees {
            self.logged_bytes = 0;
        }
        Ok((keyspaces.clone(), frees))
    }
}
