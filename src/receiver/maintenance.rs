//! The maintenance thread: keeps the clock, writes checkpoints, and removes what has expired.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::ReceiverClock;
use crate::ingest::Ingest;
use crate::stats::Stats;
use crate::store::{Store, StoreError};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks at who was shut out by another receiver.
const TICKS_PER_RELOAD: usize = 2;
/// Ticks between two looks at the clock of a shared store, and at what was refused.
const TICKS_PER_CHECK: usize = 5;
/// Ticks between two checkpoints and sweeps. A restart reads the samples of that time from the log again.
const TICKS_PER_SWEEP: usize = 30;
/// Ticks between two searches of the disk for what has left its window.
const TICKS_PER_DISK_EXPIRY: usize = 600;
/// Hosts that one line of the log names: the log cuts longer lines.
const HOSTS_PER_LINE: usize = 7;
/// Ticks between two warnings of the same kind.
const TICKS_PER_WARNING: usize = 60;

/// What the maintenance thread looks after.
pub(super) struct Maintenance {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<ReceiverClock>,
    pub(super) stats: Arc<Stats>,
    /// The directory of the store, which has the clock's mark.
    pub(super) directory: Option<PathBuf>,
    /// Whether other receivers share the store.
    pub(super) is_shared: bool,
    /// Whose list of hosts that are shut out is read again, where other receivers may change it.
    pub(super) reloaded: Option<Arc<Ingest>>,
}

impl Maintenance {
    /// Starts the thread, which ends when `stopped` is closed.
    pub(super) fn spawn(self, stopped: Receiver<()>) -> io::Result<JoinHandle<()>> {
        spawn(&self.stats.clone(), move || self.run(&stopped))
    }

    fn run(&self, stopped: &Receiver<()>) {
        let mut clock_is_wrong = false;
        self.update_clock(&mut clock_is_wrong);
        if self.is_shared {
            // Counts the series that other receivers have stored.
            self.sweep();
        }
        // The next restart need not read again what this one has read.
        self.checkpoint();
        let mut losses = LossReporter::new(Counts::of(&self.stats));
        let mut is_away = self.store.unavailable().is_some();
        for tick in 1.. {
            if stopped.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            if !self.is_shared || tick % TICKS_PER_CHECK == 0 {
                self.update_clock(&mut clock_is_wrong);
            }
            if tick % TICKS_PER_RELOAD == 0
                && let Some(ingest) = &self.reloaded
            {
                // What a store does not answer now it answers later, and takes no samples meanwhile.
                let _ = ingest.joins().reload();
            }
            if tick % TICKS_PER_CHECK == 0 {
                losses.report(Counts::of(&self.stats), tick, self.clock.is_disputed());
            }
            let was_away = std::mem::replace(&mut is_away, self.store.unavailable().is_some());
            // A shared store that is back may keep something else than this receiver was asked for.
            let is_back = self.is_shared && was_away && !is_away;
            if tick % TICKS_PER_SWEEP == 0 || is_back {
                self.checkpoint();
                self.sweep();
            } else if self.store.needs_checkpoint() {
                self.checkpoint();
            }
            if tick % TICKS_PER_DISK_EXPIRY == 0 {
                log_error(self.store.expire_disk(self.clock.now_sec()));
            }
        }
        self.write_mark();
    }

    /// Updates the clock, by that of a shared store if there is one, and logs where that shows this machine's to be wrong.
    fn update_clock(&self, is_wrong: &mut bool) {
        if !self.is_shared {
            self.clock.update(self.store.series_count() > 0);
        } else {
            self.clock.follow(self.store.time_ms());
        }
        let error = self.clock.error();
        if error.is_some() != std::mem::replace(is_wrong, error.is_some()) {
            match error {
                Some(error) => log::error!("The receiver goes by the store's clock, because {error}"),
                None => log::info!("Clock of this machine agrees with that of the store again"),
            }
        }
    }

    fn checkpoint(&self) {
        log_error(self.store.checkpoint());
        self.write_mark();
    }

    /// Removes what has expired, and logs which hosts are forgotten by that.
    fn sweep(&self) {
        let forgotten = self.store.sweep(self.clock.now_sec());
        for hosts in forgotten.chunks(HOSTS_PER_LINE) {
            log::info!("Forgotten, since --forget-hosts has passed after the last sample: {}", hosts.join(", "));
        }
    }

    /// Writes the clock's mark, unless the directory may be another one now.
    fn write_mark(&self) {
        if let Some(directory) = &self.directory
            && self.store.unavailable().is_none()
            && let Err(error) = self.clock.write_mark(directory)
        {
            log::error!("Clock's mark in {} cannot be written: {error}", directory.display());
        }
    }
}

fn log_error(result: Result<(), StoreError>) {
    if let Err(error) = result {
        log::error!("Maintenance of the store failed: {error}");
    }
}

/// Counts of what became of samples and values.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    ahead: u64,
    expired: u64,
    kept: u64,
}

impl Counts {
    fn of(stats: &Stats) -> Self {
        let kept = stats.stored.get() + stats.duplicates.get();
        Self { ahead: stats.refused_ahead.get(), expired: stats.expired.get(), kept }
    }
}

/// Warns of samples that are not kept because of a clock, once a minute for each reason.
struct LossReporter {
    before: Counts,
    ahead_at: Option<usize>,
    expired_at: Option<usize>,
    expired_reported: u64,
}

impl LossReporter {
    fn new(now: Counts) -> Self {
        Self { before: now, ahead_at: None, expired_at: None, expired_reported: now.expired }
    }

    /// Compares with the counts of the last call. Of a disputed clock the log has a line already. Returns whether it has
    /// warned of samples ahead, and of how many values that have expired.
    fn report(&mut self, now: Counts, tick: usize, is_disputed: bool) -> (bool, u64) {
        let is_due = |at: Option<usize>| at.is_none_or(|at| tick >= at + TICKS_PER_WARNING);
        let before = std::mem::replace(&mut self.before, now);
        let all_ahead = now.ahead > before.ahead && now.expired == before.expired && now.kept == before.kept;
        let warns_of_ahead = all_ahead && !is_disputed && is_due(self.ahead_at);
        if warns_of_ahead {
            self.ahead_at = Some(tick);
            log::warn!(
                "All samples of the last {TICKS_PER_CHECK} seconds are ahead of the receiver's clock, and are refused: it \
                 is likely that its own clock is behind"
            );
        }
        let expired = now.expired - self.expired_reported;
        if expired == 0 || !is_due(self.expired_at) {
            return (warns_of_ahead, 0);
        }
        (self.expired_at, self.expired_reported) = (Some(tick), now.expired);
        log::warn!(
            "{expired} values were too old for every summary, and are not kept: they have waited for over a day, the clocks \
             of their hosts are behind, or the receiver's is ahead"
        );
        (warns_of_ahead, expired)
    }
}

/// Starts the maintenance thread. If it panics, the process is not well: it may have left the store half changed.
fn spawn(stats: &Arc<Stats>, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let stats = stats.clone();
    thread::Builder::new().name("maintenance".into()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            stats.maintenance_ended.add(1);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_maintenance_is_counted() {
        let stats = Arc::new(Stats::default());
        spawn(&stats, || ()).unwrap().join().unwrap();
        assert_eq!(stats.maintenance_ended.get(), 0);
        spawn(&stats, || panic!("this is a test")).unwrap().join().unwrap();
        assert_eq!(stats.maintenance_ended.get(), 1);
    }

    #[test]
    fn samples_that_are_not_kept_are_reported_once_a_minute() {
        let mut losses = LossReporter::new(Counts { ahead: 5, expired: 5, kept: 5 });
        let mut report = |ahead, expired, kept, tick| losses.report(Counts { ahead, expired, kept }, tick, false);
        assert_eq!(report(5, 5, 5, 5), (false, 0));
        assert_eq!(report(6, 5, 6, 10), (false, 0), "one host of two is ahead");
        assert_eq!(report(7, 5, 6, 15), (true, 0), "all are");
        assert_eq!(report(8, 7, 6, 20), (false, 2));
        assert_eq!(report(9, 8, 6, 25), (false, 0));
        assert_eq!(report(10, 8, 6, 75), (true, 0));
        assert_eq!(report(10, 9, 7, 80), (false, 2), "those of the minute");
        assert_eq!(losses.report(Counts { ahead: 99, expired: 9, kept: 7 }, 200, true), (false, 0), "a disputed clock");
    }
}
