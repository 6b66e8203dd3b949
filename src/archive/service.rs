//! A thread for each archive, which reads what is due and sends it until the archive has it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::client::Client;
use super::due::{Look, SLICE_MINUTES, slices};
use super::target::{Kind, Target};
use super::{INTERVAL_SEC, Options, Outcome, Point, Verdict, bulk, lines};
use crate::clock::ReceiverClock;
use crate::store::{ArchiveDone, LabelPage, Minutes, Pulse, Store, StoreError};
use crate::summary::{IntervalRange, KeyFilter, RECENT};
use crate::supervisor::spawn_supervised;
use crate::trouble::{Due, Trouble};

/// Time between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Points and bytes of a body past which it is sent.
const POINTS_MAX: usize = 5000;
const BYTES_MAX: usize = 4 << 20;
/// Labels of a host that are read at a time.
const LABELS_MAX: usize = 64;
/// How long the lease of a shared store lasts that is not renewed, and how often it is renewed.
const LEASE: Duration = Duration::from_secs(20);
const LEASE_RENEWED_EVERY: Duration = Duration::from_secs(5);
/// First and longest wait before something is tried again; the wait doubles in between.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// Longest wait that an archive's `Retry-After` is honoured for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How often the log says what is refused.
const REFUSED_EVERY: Duration = Duration::from_secs(60);

/// The archives of a receiver.
pub struct Archives {
    pub(super) archives: Vec<Arc<Archive>>,
    /// Closed when they are to stop.
    stop: Mutex<Vec<Sender<()>>>,
}

/// One archive.
pub(super) struct Archive {
    pub(super) target: Target,
    id: u64,
    client: Client,
    store: Arc<Store>,
    clock: Arc<ReceiverClock>,
    after_sec: u64,
    started_at: u64,
    /// The name of this process in the lease of a shared store, and when that was renewed.
    holder: String,
    renewed_at: Mutex<Option<Instant>>,
    pub(super) counts: Counts,
    log: Mutex<Log>,
}

/// What is counted of an archive.
#[derive(Default)]
pub(super) struct Counts {
    /// Intervals that it has taken.
    pub(super) sent: AtomicU64,
    /// Intervals that it refuses, or that cannot be written for it.
    pub(super) refused: AtomicU64,
    /// Minutes of hosts that have changed late, and are not sent again.
    pub(super) skipped: AtomicU64,
    /// Requests that have failed.
    pub(super) failures: AtomicU64,
    /// The end of the oldest minute that is due, in seconds since the Unix epoch; 0 if none is.
    pub(super) due_since: AtomicU64,
}

/// What was said in the log.
#[derive(Default)]
struct Log {
    trouble: Trouble,
    refused_at: Option<Instant>,
    /// Whether it is known that the store does not answer.
    store_failed: bool,
}

/// Why a look has ended early.
enum Stop {
    /// The receiver stops.
    Stopping,
    /// Another receiver sends to the archive.
    NotLeading,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is to be sent, and what of the hosts the archive has then.
#[derive(Default)]
struct Batch {
    points: Vec<String>,
    bytes: usize,
    done: Vec<ArchiveDone>,
    /// Whether what is read has changed late: the archive is not behind for that.
    is_late: bool,
}

impl Archives {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the file of authorities cannot be used, or there is no thread left.
    pub fn start(
        options: &Options,
        store: &Arc<Store>,
        clock: &Arc<ReceiverClock>,
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let (mut archives, mut stop, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for target in &options.targets {
            let client = Client::new(target.clone(), options.ca.as_deref()).map_err(io::Error::other)?;
            archives.push(Arc::new(Archive {
                id: target.id(),
                client,
                target: target.clone(),
                store: store.clone(),
                clock: clock.clone(),
                after_sec: options.after.as_secs(),
                started_at: clock.now_sec(),
                holder: format!("{} {:016x}", process::id(), RandomState::new().hash_one(0)),
                renewed_at: Mutex::default(),
                counts: Counts::default(),
                log: Mutex::default(),
            }));
        }
        store.retain_archives(&archives.iter().map(|archive| archive.id).collect::<Vec<_>>());
        for archive in &archives {
            let (sender, stopped) = channel();
            stop.push(sender);
            let archive = archive.clone();
            threads.push(spawn_supervised("archive", move || drop(archive.run(&stopped)))?);
        }
        Ok((Arc::new(Self { archives, stop: Mutex::new(stop) }), threads))
    }

    /// One line on each.
    pub fn descriptions(&self) -> impl Iterator<Item = String> {
        self.archives.iter().map(|archive| {
            let (target, after_sec) = (&archive.target, archive.after_sec);
            format!("Archive is {target}, which gets each minute {after_sec} s after its end")
        })
    }

    /// Ends the threads, but for the requests that they wait for.
    pub fn stop(&self) {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Archive {
    fn run(&self, stopped: &Receiver<()>) -> Result<(), Stop> {
        self.prepare(stopped)?;
        loop {
            match self.look(stopped) {
                Err(Stop::Stopping) => {
                    // Another need not wait for its end.
                    let _ = self.store.lease_archive(self.id, &self.holder, Duration::ZERO);
                    return Err(Stop::Stopping);
                }
                Err(Stop::NotLeading) => self.counts.due_since.store(0, Ordering::Relaxed),
                Err(Stop::Store(error)) => self.log_store(Some(&error)),
                Ok(()) => self.log_store(None),
            }
            wait(stopped, LOOK_EVERY)?;
        }
    }

    fn prepare(&self, stopped: &Receiver<()>) -> Result<(), Stop> {
        let mut retry = RETRY_FIRST;
        loop {
            match self.client.prepare() {
                Outcome::Later { why, retry_after } => self.wait_after(&why, retry_after, &mut retry, stopped)?,
                Outcome::Taken { why, .. } => {
                    why.iter().for_each(|why| log::warn!("Archive {}: {why}", self.target));
                    return Ok(());
                }
                Outcome::Each(_) | Outcome::TooMuch(_) => return Ok(()),
            }
        }
    }

    /// Ends a look where another receiver sends to the archive.
    fn lead(&self) -> Result<(), Stop> {
        let mut renewed_at = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.store.is_shared() || renewed_at.is_some_and(|at| at.elapsed() < LEASE_RENEWED_EVERY) {
            return Ok(());
        }
        let (asked_at, was_leading) = (Instant::now(), renewed_at.is_some());
        let leads = self.store.lease_archive(self.id, &self.holder, LEASE)?;
        *renewed_at = leads.then_some(asked_at);
        match (was_leading, leads) {
            (false, true) => log::info!("Archive {}: this receiver sends to it from now on", self.target),
            (true, false) => log::warn!("Archive {}: another receiver sends to it now", self.target),
            _ => {}
        }
        if leads { Ok(()) } else { Err(Stop::NotLeading) }
    }

    /// Sends what is due of all hosts.
    fn look(&self, stopped: &Receiver<()>) -> Result<(), Stop> {
        self.lead()?;
        let look = Look { now: self.clock.now_sec(), started_at: self.started_at, after_sec: self.after_sec };
        let pulses = self.store.pulses(look.now)?;
        let hosts: Vec<SmolStr> = pulses.iter().map(|pulse| pulse.host.clone()).collect();
        let cursors = self.store.archive_cursors(self.id, &hosts)?;
        let oldest = self.store.keep().windows().first().map_or(0, |window| window.oldest(look.now));
        let mut batch = Batch::default();
        for (pulse, cursor) in pulses.iter().zip(cursors) {
            let (next, end) = (cursor.next.min(look.limit()).max(oldest), look.end(pulse));
            if next < end || cursor.has_late {
                self.send_host(pulse, (next, end), oldest, look, &mut batch, stopped)?;
            }
        }
        self.flush(&mut batch, stopped)?;
        self.counts.due_since.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Sends what has changed late of a host, and its minutes from `next` to before `end`, some at a time.
    fn send_host(
        &self,
        pulse: &Pulse,
        (mut next, end): Minutes,
        oldest: u64,
        look: Look,
        batch: &mut Batch,
        stopped: &Receiver<()>,
    ) -> Result<(), Stop> {
        loop {
            let slice_end = end.min(next.saturating_add(SLICE_MINUTES)).max(next);
            let begun = self.store.begin_archiving(self.id, &pulse.host, look.limit(), slice_end)?;
            let Some(begun) = begun else { return Ok(()) };
            let late = begun.late.iter().map(|(first, last)| (*first, last.saturating_add(1)));
            if self.target.is_append_only() {
                let minutes = late.map(|(first, end)| end.min(begun.next).saturating_sub(first)).sum();
                self.counts.skipped.fetch_add(minutes, Ordering::Relaxed);
            } else {
                batch.is_late = true;
                for (first, end) in late {
                    self.read(&pulse.host, (first, end.min(begun.next)), oldest, look.now, batch, stopped)?;
                }
                batch.is_late = false;
            }
            self.read(&pulse.host, (begun.next, slice_end), oldest, look.now, batch, stopped)?;
            let has_late = !begun.late.is_empty();
            batch.done.push(ArchiveDone { host: pulse.host.clone(), next: slice_end.max(begun.next), has_late });
            next = slice_end;
            if next >= end {
                return Ok(());
            }
            self.flush(batch, stopped)?;
        }
    }

    /// Reads minutes of a host, and sends them as bodies become full.
    fn read(
        &self,
        host: &str,
        (first, end): Minutes,
        oldest: u64,
        now: u64,
        batch: &mut Batch,
        stopped: &Receiver<()>,
    ) -> Result<(), Stop> {
        let all = KeyFilter::containing("");
        for (first, last) in slices(first, end, oldest) {
            let mut after = SmolStr::default();
            loop {
                let page = LabelPage { filter: &all, after: &after, labels_max: LABELS_MAX };
                let series = self.store.range(host, &page, IntervalRange { window: *RECENT, first, last }, now)?;
                for (label, intervals) in &series {
                    for (minute, bucket) in intervals {
                        if !batch.is_late {
                            self.counts.wait_since((minute + 1) * INTERVAL_SEC);
                        }
                        let point = Point { host, label, minute: *minute, bucket: *bucket };
                        match &self.target.kind {
                            Kind::Lines { .. } => match lines::line(&point) {
                                Some(line) => batch.push(line),
                                None => {
                                    self.refuse(1, &format!("{host} {label}: line protocol has no way to write it"))
                                }
                            },
                            Kind::Bulk(name) => batch.push(bulk::item(name, &point)),
                        }
                    }
                    if batch.is_full() {
                        self.flush(batch, stopped)?;
                    }
                }
                match series.last() {
                    Some((label, _)) if series.len() >= LABELS_MAX => after = label.clone(),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Sends a batch until the archive has it, and notes that in the store.
    fn flush(&self, batch: &mut Batch, stopped: &Receiver<()>) -> Result<(), Stop> {
        batch.bytes = 0;
        self.deliver(mem::take(&mut batch.points), stopped)?;
        let done = mem::take(&mut batch.done);
        if !done.is_empty() {
            self.store.note_archived(self.id, &done)?;
        }
        Ok(())
    }

    /// Sends points until the archive has each, or refuses it.
    fn deliver(&self, points: Vec<String>, stopped: &Receiver<()>) -> Result<(), Stop> {
        let (mut parts, mut retry) = (vec![points], RETRY_FIRST);
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            self.lead()?;
            match self.client.send(&part) {
                Outcome::Taken { refused, why } => {
                    self.taken(part.len().saturating_sub(refused));
                    why.iter().for_each(|why| self.refuse(refused, why));
                    retry = RETRY_FIRST;
                }
                Outcome::Each(verdicts) => {
                    let (mut again, mut why_again) = (Vec::new(), String::new());
                    let count = part.len();
                    for (point, verdict) in part.into_iter().zip(verdicts) {
                        match verdict {
                            Verdict::Taken => self.taken(1),
                            Verdict::Refused(why) => self.refuse(1, &why),
                            Verdict::Again(why) => {
                                again.push(point);
                                why_again = why;
                            }
                        }
                    }
                    if again.len() < count {
                        retry = RETRY_FIRST;
                    }
                    if !again.is_empty() {
                        parts.push(again);
                        self.wait_after(&why_again, None, &mut retry, stopped)?;
                    }
                }
                Outcome::TooMuch(why) if part.len() == 1 => self.refuse(1, &why),
                Outcome::TooMuch(_) => {
                    let half = part.split_off(part.len() / 2);
                    parts.extend([half, part]);
                }
                Outcome::Later { why, retry_after } => {
                    parts.push(part);
                    self.wait_after(&why, retry_after, &mut retry, stopped)?;
                }
            }
        }
        Ok(())
    }

    /// Logs a failure where that is due, and waits until the next attempt.
    fn wait_after(
        &self,
        why: &str,
        retry_after: Option<Duration>,
        retry: &mut Duration,
        stopped: &Receiver<()>,
    ) -> Result<(), Stop> {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        if self.log().trouble.failed(Instant::now()) != Due::No {
            let behind = self.counts.behind_sec(self.clock.now_sec());
            log::error!("Archive failed to {}, details: {why}; it is {behind} s behind", self.target);
        }
        let wait_for = retry_after.map_or(*retry, |asked| asked.min(RETRY_AFTER_MAX).max(*retry));
        *retry = RETRY_LONGEST.min(*retry * 2);
        wait(stopped, wait_for)
    }

    fn taken(&self, count: usize) {
        self.counts.sent.fetch_add(count as u64, Ordering::Relaxed);
        let ended = self.log().trouble.ended(Instant::now());
        ended.iter().for_each(|how_long| log::info!("Archive is successful again to {}, {how_long}", self.target));
    }

    /// Counts intervals that are given up, and logs why once a minute.
    fn refuse(&self, count: usize, why: &str) {
        let refused = self.counts.refused.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        let mut log = self.log();
        if log.refused_at.is_none_or(|at| at.elapsed() >= REFUSED_EVERY) {
            log.refused_at = Some(Instant::now());
            drop(log);
            log::warn!("Archive {} does not take {refused} intervals for good, the last: {why}", self.target);
        }
    }

    fn log_store(&self, error: Option<&StoreError>) {
        let had_failed = mem::replace(&mut self.log().store_failed, error.is_some());
        if let (Some(error), false) = (error, had_failed) {
            log::error!("Archive {} waits: {error}", self.target);
        }
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Notes that a minute which ended at `end` waits. Only the thread of the archive writes this.
    fn wait_since(&self, end: u64) {
        let since = self.due_since.load(Ordering::Relaxed);
        if since == 0 || end < since {
            self.due_since.store(end, Ordering::Relaxed);
        }
    }

    /// Seconds since the end of the oldest minute that is due; 0 if none is.
    pub(super) fn behind_sec(&self, now: u64) -> u64 {
        match self.due_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        }
    }
}

impl Batch {
    fn push(&mut self, point: String) {
        self.bytes += point.len();
        self.points.push(point);
    }

    fn is_full(&self) -> bool {
        self.points.len() >= POINTS_MAX || self.bytes >= BYTES_MAX
    }
}

/// Waits, but not beyond the end of the receiver.
fn wait(stopped: &Receiver<()>, span: Duration) -> Result<(), Stop> {
    match stopped.recv_timeout(span) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        _ => Err(Stop::Stopping),
    }
}
