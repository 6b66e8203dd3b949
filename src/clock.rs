//! The clocks: the wall clock, and the receiver's clock, which goes on by the time since boot where the wall clock jumps.
//!
//! Everything below the servers has the time as an argument.

mod confirmed;
mod mark;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use rustix::time::{ClockId, clock_gettime};

use confirmed::{Change, Confirmation, ConfirmedClock, Reading};
use mark::Mark;

/// systemd-timesyncd touches this file whenever it has synchronised the clock.
const TIMESYNCD_FILE: &str = "/run/systemd/timesync/synchronized";
/// Longest wait for the first answer of a shared store.
const FOLLOW_WITHIN: Duration = Duration::from_secs(3);
/// The kernel's name of this boot.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// The clock that counts suspends too.
#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

/// The time since the Unix epoch by this machine's wall clock; zero before 1970.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The date, such as `2016-06-04`, of a time in seconds since the Unix epoch, by the Gregorian calendar: years begin in March, so that the day
/// that is put in is the last.
#[must_use]
pub fn date(sec: u64) -> String {
    let days = sec.min(253_402_300_799) / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months + 2) / 5 + 1;
    let month = if months < 10 { months + 3 } else { months - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Seconds since the Unix epoch by this machine's wall clock; 0 before 1970.
#[must_use]
pub fn unix_now_sec() -> u64 {
    unix_now().as_secs()
}

/// The receiver's clock.
///
/// Time that has jumped is not time that has passed: the clock advances with the time since boot, from the last process's
/// mark if there is one. It follows the wall clock as long as the two differ by five minutes or less. A wall clock that
/// differs by more is followed once NTP or hosts confirm it. Until then nothing expires by it, and a sample of it is ahead.
pub struct ReceiverClock {
    /// The receiver's clock less the time since boot, in milliseconds.
    offset_ms: AtomicI64,
    /// Whether the samples of hosts are noted, to confirm the wall clock.
    is_disputed: AtomicBool,
    /// Seconds that the wall clock is ahead of a store's own clock, if that is too much; else 0.
    ahead_of_store_sec: AtomicI64,
    /// Whether readers wait for the first call of [`ReceiverClock::follow`].
    awaits_follow: AtomicBool,
    followed: Condvar,
    confirmed: Mutex<ConfirmedClock>,
}

impl Default for ReceiverClock {
    fn default() -> Self {
        Self::start(None)
    }
}

impl ReceiverClock {
    /// Starts the clock from the mark that the last process has left in its store's directory, if there is one; else from
    /// the wall clock.
    #[must_use]
    pub fn start(directory: Option<&Path>) -> Self {
        let reading = read_clocks();
        let mark = directory.and_then(Mark::read);
        let time_ms = mark.map(|mark| mark.time_at_ms(&boot_id(), reading.boot_ms));
        let mut confirmed = ConfirmedClock::new(time_ms, &reading);
        if let Some(Change::Disputed { .. }) = confirmed.update(&reading, true) {
            // The first update logs it, when the receiver's first line has named its address.
            confirmed = ConfirmedClock::new(time_ms, &reading);
        }
        Self {
            offset_ms: AtomicI64::new(confirmed.offset_ms()),
            is_disputed: AtomicBool::new(false),
            ahead_of_store_sec: AtomicI64::new(0),
            awaits_follow: AtomicBool::new(false),
            followed: Condvar::new(),
            confirmed: Mutex::new(confirmed),
        }
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn now_sec(&self) -> u64 {
        self.now_ms() / 1000
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        if self.awaits_follow.load(Ordering::Acquire) {
            let is_waiting = |_: &mut ConfirmedClock| self.awaits_follow.load(Ordering::Acquire);
            drop(self.followed.wait_timeout_while(self.confirmed(), FOLLOW_WITHIN, is_waiting));
        }
        let now_ms = boot_now_ms().saturating_add(self.offset_ms.load(Ordering::Relaxed));
        u64::try_from(now_ms).unwrap_or(0)
    }

    /// Whether the wall clock differs and nothing has confirmed it.
    #[must_use]
    pub fn is_disputed(&self) -> bool {
        self.is_disputed.load(Ordering::Relaxed)
    }

    /// Notes a sample of a host that its own clock has stamped. It says whether the wall clock is right.
    pub fn hear(&self, host: &str, epoch: u64) {
        if self.is_disputed() {
            self.confirmed().hear(host, epoch, boot_now_ms());
        }
    }

    /// Looks at the wall clock, and follows it if it is confirmed. To be called about once a second. `has_data` says
    /// whether the store has anything that a wrong clock could expire.
    pub fn update(&self, has_data: bool) {
        let (reading, mut confirmed) = (read_clocks(), self.confirmed());
        let change = confirmed.update(&reading, has_data);
        self.publish(&confirmed);
        match change {
            None => {}
            Some(Change::Disputed { ahead_sec }) => log::warn!(
                "Clock of this machine has jumped by {ahead_sec:+} seconds, or the machine was off: the receiver goes on \
                 without the jump until NTP, three hosts, or ten steady minutes that no host contradicts confirm it"
            ),
            Some(Change::Agreed) => log::info!("Clock of this machine is right again"),
            Some(Change::Confirmed(why)) => log::info!("Clock of this machine is believed: {}", reason(why)),
        }
    }

    /// Makes [`ReceiverClock::now_sec`] wait for the first call of [`ReceiverClock::follow`], or three seconds: no sample
    /// is to be judged by a wall clock that the store's shows to be wrong.
    pub fn await_follow(&self) {
        self.awaits_follow.store(true, Ordering::Release);
    }

    /// Goes by the clock of a store that receivers share, which shows `time_ms` now, if the wall clock differs from it by
    /// over five minutes. A store that does not answer changes nothing.
    pub fn follow(&self, time_ms: Option<i64>) {
        let (reading, mut confirmed) = (read_clocks(), self.confirmed());
        if let Some(time_ms) = time_ms {
            confirmed.follow(time_ms.saturating_sub(reading.boot_ms), &reading);
            self.publish(&confirmed);
            self.ahead_of_store_sec.store(confirmed.wall_ahead_sec(&reading), Ordering::Relaxed);
        }
        self.awaits_follow.store(false, Ordering::Release);
        self.followed.notify_all();
    }

    /// Why the clock of this machine is wrong for certain, if it is.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let ahead_sec = self.ahead_of_store_sec.load(Ordering::Relaxed);
        (ahead_sec != 0).then(|| format!("the clock of this machine is {ahead_sec:+} seconds from that of the store"))
    }

    /// Seconds that the wall clock is ahead of this clock; below 0 behind.
    #[must_use]
    pub fn wall_ahead_sec(&self) -> i64 {
        self.confirmed().wall_ahead_sec(&read_clocks())
    }

    /// Whether a process has left a mark in the directory of a store.
    #[must_use]
    pub fn has_mark(directory: &Path) -> bool {
        Mark::read(directory).is_some()
    }

    /// Leaves a mark in the directory of a store, from which the next process goes on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_mark(&self, directory: &Path) -> io::Result<()> {
        let boot_ms = boot_now_ms();
        let time_ms = boot_ms.saturating_add(self.offset_ms.load(Ordering::Relaxed));
        Mark { boot_id: boot_id(), boot_ms, time_ms }.write(directory)
    }

    fn publish(&self, confirmed: &ConfirmedClock) {
        self.offset_ms.store(confirmed.offset_ms(), Ordering::Relaxed);
        self.is_disputed.store(confirmed.is_disputed(), Ordering::Relaxed);
    }

    fn confirmed(&self) -> MutexGuard<'_, ConfirmedClock> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(confirmation: Confirmation) -> String {
    match confirmation {
        Confirmation::EmptyStore => "the store is empty".to_owned(),
        Confirmation::Ntp => "NTP has synchronised it".to_owned(),
        Confirmation::Hosts(hosts) => format!("{hosts} hosts agree with it"),
        Confirmation::Steady => "it has run without a jump, and all hosts agree with it".to_owned(),
    }
}

fn read_clocks() -> Reading {
    Reading { wall_ms: as_ms(unix_now()), boot_ms: boot_now_ms(), ntp_ms: ntp_synchronised_ms() }
}

fn boot_now_ms() -> i64 {
    let now = clock_gettime(BOOT_CLOCK);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

/// When NTP has last synchronised the wall clock, as far as files tell. Only the system call `adjtimex` knows what the
/// kernel knows, and no safe interface to it is among the dependencies.
fn ntp_synchronised_ms() -> Option<i64> {
    let modified = fs::metadata(TIMESYNCD_FILE).ok()?.modified().ok()?;
    modified.duration_since(UNIX_EPOCH).ok().map(as_ms)
}

fn boot_id() -> String {
    fs::read_to_string(BOOT_ID_FILE).unwrap_or_default().trim().to_owned()
}

fn as_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
