//! What a shared store keeps: one setting for all its receivers, and how it changes.
//!
//! The key `lizm:keep` has it. In a cluster a script does not reach that key, so each host has the setting that it is at
//! beside its newest epoch, and the script that records a sample refuses one by another setting. Then the receiver reads
//! `lizm:keep`, takes it up if it is new, and brings the host to it: its hashes last as long as they are to, and intervals
//! that were not kept are merged from finer ones. Nothing is recorded of the host until that is done, so each sample is in
//! all its intervals once. The steps are short, and whoever finds a host half-way goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use ::redis::{Cmd, Value, cmd};
use smol_str::SmolStr;

use super::super::{KeepOptions, StoreError};
use super::layout::{
    self, FORGET_SEC_MAX, HostKeys, INDEX_PARTS, SPARE_SEC, Setting, interval_kept_sec, intervals_of_hash,
};
use super::nodes::{Command, slot_of};
use super::replies::{self, text};
use super::{Redis, not_understood};
use crate::sample::AHEAD_SEC_MAX;
use crate::store::host::source_kept_sec;
use crate::summary::{Keep, Window};

/// The key of the setting.
const KEY: &str = "lizm:keep";
/// Finer intervals that one script merges: some milliseconds of Redis's time.
const MERGED_MAX: u64 = 10_000;
/// Most labels of which one script merges intervals.
const LABELS_MAX: u64 = 64;
/// How often a setting is tried to be changed that other receivers change.
const TRIES: usize = 3;
/// Longest that a sweep brings hosts to a setting. The next one goes on.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// Hosts that are asked for their setting in one batch.
const HOSTS_PER_BATCH: usize = 500;
/// Hashes whose lengths or fields are asked for in one batch: some ten milliseconds of Redis's time.
const LENGTHS_PER_BATCH: usize = 500;

/// What this receiver knows of the setting.
pub(super) struct Known {
    options: KeepOptions,
    state: RwLock<State>,
    /// Whether there may be hosts that are at another setting.
    is_unsettled: AtomicBool,
}

struct State {
    setting: Setting,
    /// Whether the store's setting has been read, and this receiver was asked for no other.
    is_agreed: bool,
    /// Why this receiver takes nothing: it was asked for another setting.
    refusal: Option<StoreError>,
}

impl Known {
    pub(super) fn new(options: &KeepOptions) -> Self {
        let setting = Setting::new(0, Keep::default());
        let known =
            Self { options: *options, state: RwLock::new(State::of(setting)), is_unsettled: AtomicBool::new(false) };
        known.set(setting, false);
        known
    }

    pub(super) fn setting(&self) -> Setting {
        self.state.read().unwrap_or_else(PoisonError::into_inner).setting
    }

    pub(super) fn refusal(&self) -> Option<StoreError> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).refusal.clone()
    }

    pub(super) fn agreed(&self) -> Option<Setting> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.is_agreed.then_some(state.setting)
    }

    fn set(&self, setting: Setting, is_agreed: bool) {
        // Memory holds nothing, and rules read as much as they do of a directory.
        let keep = setting.keep.on_disk().with_retry_horizon(self.options.retry_horizon_sec);
        let setting = Setting { keep, ..setting };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = State { is_agreed, ..State::of(setting) };
    }

    fn refuse(&self, why: StoreError) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).refusal = Some(why);
    }
}

impl State {
    fn of(setting: Setting) -> Self {
        Self { setting, is_agreed: false, refusal: None }
    }
}

impl Redis {
    /// The setting, once the store's has been read and this receiver was asked for no other.
    pub(super) fn agreed(&self) -> Result<Setting, StoreError> {
        match (self.known.agreed(), self.known.refusal()) {
            (Some(setting), _) => Ok(setting),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => self.agree(),
        }
    }

    /// Reads the store's setting, and changes it where this receiver is to.
    pub(super) fn agree(&self) -> Result<Setting, StoreError> {
        for _ in 0..TRIES {
            let stored = self.read_setting()?;
            let options = &self.known.options;
            let (next, dropped) = match options.asked {
                Some(asked) if asked.to_string() != stored.keep.asked().to_string() => {
                    let (now, is_new) = (self.now()?, self.is_new(&stored)?);
                    let dropped =
                        asked.drops(&stored.keep, now, |window, end| self.count(&stored.keep, window, end, now));
                    if !options.may_drop && !is_new {
                        let refusal = StoreError::new(refusal(&stored.keep, &asked, dropped));
                        self.known.refuse(refusal.clone());
                        return Err(refusal);
                    }
                    // In a new store nothing is to be kept until it has left its window.
                    let keep = if is_new { asked } else { asked.following(&stored.keep, now) };
                    (Setting::new(stored.number + 1, keep), dropped.filter(|_| !is_new))
                }
                _ => (stored, None),
            };
            if next.is_same(&stored) || self.change(&stored, &next)? {
                if let Some(dropped) = dropped {
                    log::warn!("Store {} removes {dropped}", self.address);
                }
                self.take_up(next);
                return Ok(self.known.setting());
            }
        }
        Err(StoreError::new("what is kept is changed by other receivers again and again"))
    }

    fn take_up(&self, setting: Setting) {
        let before = self.known.agreed();
        self.known.set(setting, true);
        self.known.is_unsettled.store(setting.number > 0, Ordering::Relaxed);
        if before.is_some() {
            log::info!("Store {} keeps {} from now on", self.address, setting.keep);
        }
    }

    /// Reads the setting again, with that of a host. The newest of them and of this receiver's holds: where the store has
    /// lost it, its receivers give it again.
    fn refresh(&self, of_host: &Setting) -> Result<Setting, StoreError> {
        let (stored, own) = (self.read_setting()?, self.agreed()?);
        let newest = [stored, own, *of_host].into_iter().reduce(|a, b| if b.number > a.number { b } else { a });
        let newest = newest.unwrap_or(stored);
        if !newest.is_same(&stored) {
            self.change(&stored, &newest)?;
        }
        if !newest.is_same(&own) {
            self.take_up(newest);
        }
        Ok(self.known.setting())
    }

    fn read_setting(&self) -> Result<Setting, StoreError> {
        // It waits as long as what writes: at the start there are no connections yet.
        let reply = self.ask(&[on_key(cmd("GET").arg(KEY), true)]).pop().unwrap_or(Ok(Value::Nil))?;
        let setting = if reply == Value::Nil { Some("") } else { text(&reply) }.and_then(Setting::parse);
        setting
            .ok_or_else(|| StoreError::new(format!("Redis has {reply:?} in {KEY}, which this version does not know")))
    }

    /// Whether the store has neither a setting nor a host.
    fn is_new(&self, stored: &Setting) -> Result<bool, StoreError> {
        let commands: Vec<Command> = (0..INDEX_PARTS).map(layout::listed).collect();
        let mut is_new = stored.number == 0;
        for reply in self.ask(&commands) {
            is_new &= replies::pairs(&reply?).next().is_none();
        }
        Ok(is_new)
    }

    /// How many intervals of a window are before a number, if Redis says so.
    fn count(&self, keep: &Keep, window: &Window, end: u64, now: u64) -> Option<u64> {
        let mut count = 0;
        for hosts in self.listed_hosts(keep, now).ok()?.chunks(HOSTS_PER_BATCH) {
            let commands = hosts.iter().flat_map(|host| HostKeys::of(host).lengths(window, end, now));
            for commands in commands.collect::<Vec<_>>().chunks(LENGTHS_PER_BATCH) {
                for reply in self.ask(commands) {
                    let is_before = |(place, _): &(u64, SmolStr)| *place < end % intervals_of_hash(window);
                    count += match reply.ok()? {
                        Value::Int(length) => length.cast_unsigned(),
                        Value::Array(fields) => {
                            fields.iter().filter_map(replies::read_field).filter(is_before).count() as u64
                        }
                        _ => return None,
                    };
                }
            }
        }
        Some(count)
    }

    /// The time of one of its servers.
    pub(super) fn now(&self) -> Result<u64, StoreError> {
        let now = self.time_ms().and_then(|ms| u64::try_from(ms / 1000).ok());
        now.ok_or_else(|| StoreError::new("Redis does not say what time it is"))
    }

    /// Changes the store's setting, unless another receiver has meanwhile.
    fn change(&self, before: &Setting, after: &Setting) -> Result<bool, StoreError> {
        let mut script = cmd("EVALSHA");
        script.arg(&self.scripts.change).arg(1).arg(KEY).arg(before.text()).arg(after.text());
        self.was_done(on_key(&script, true))
    }

    /// Runs a script that returns whether it has done something.
    fn was_done(&self, script: Command) -> Result<bool, StoreError> {
        match self.ask(&[script]).pop().unwrap_or(Ok(Value::Nil))? {
            Value::Int(done) => Ok(done == 1),
            other => Err(not_understood(&other)),
        }
    }

    /// Reads the setting again, and brings hosts to it that are at another.
    pub(super) fn sweep_settings(&self, now: u64) -> Result<(), StoreError> {
        let mut setting = self.refresh(&self.agreed()?)?;
        // By the earlier clock: one that is ahead ends nothing for the others.
        let keep = setting.keep.at(now.min(self.now()?));
        if keep.windows().len() < setting.keep.windows().len() {
            let next = Setting::new(setting.number + 1, keep);
            if self.change(&setting, &next)? {
                self.take_up(next);
            }
            setting = self.known.setting();
        }
        if !self.known.is_unsettled.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let settled = self.settle_hosts(&setting, now);
        if settled.is_err() {
            self.known.is_unsettled.store(true, Ordering::Relaxed);
        }
        settled
    }

    fn settle_hosts(&self, setting: &Setting, now: u64) -> Result<(), StoreError> {
        let deadline = Instant::now() + SETTLE_WITHIN;
        for hosts in self.hosts(now)?.chunks(HOSTS_PER_BATCH) {
            let commands: Vec<Command> = hosts.iter().map(|host| HostKeys::of(host).settled()).collect();
            for (host, reply) in hosts.iter().zip(self.ask(&commands)) {
                let reply = reply?;
                let found = text(&reply).unwrap_or_default();
                if found != setting.text() {
                    self.settle(host, found, now, deadline)?;
                }
            }
        }
        Ok(())
    }

    /// Brings a host that is at the setting `found` to the store's.
    pub(super) fn settle(&self, host: &str, found: &str, now: u64, deadline: Instant) -> Result<(), StoreError> {
        let unknown = || StoreError::new(format!("Redis has a host at {found:?}, which this version does not know"));
        let (to, from) = found.split_once('<').map_or((found, found), |halves| halves);
        let (to, mut from) = (Setting::parse(to).ok_or_else(unknown)?, Setting::parse(from).ok_or_else(unknown)?);
        let setting = self.refresh(&to)?;
        if found == setting.text() {
            return Ok(());
        }
        let (keys, half_way) = (HostKeys::of(host), format!("{}<{}", setting.text(), from.text()));
        from.keep = from.keep.at(now);
        let forget_sec = self.limits.forget_hosts_sec.min(FORGET_SEC_MAX);
        let step = |before: &str, after: &str, filled: &str, is_first: bool| {
            let step = Step { before, after, filled, is_first };
            self.was_done(keys.settle(&self.scripts.settle, &step, (&from, &setting), forget_sec, now))
        };
        // Where a step is not taken, another receiver has: its next sample finds where the host is.
        if found != half_way && !step(found, &half_way, "", true)? {
            return Ok(());
        }
        let new: Vec<(&Window, &Window)> =
            setting.keep.windows().iter().filter_map(|window| finer(&from.keep, window)).collect();
        if let Some(finest) = new.iter().map(|(finer, window)| window.interval_sec / finer.interval_sec).max() {
            let labels = (MERGED_MAX / finest).clamp(1, LABELS_MAX) as usize;
            for labels in self.labels_to_fill(&keys)?.chunks(labels) {
                if Instant::now() > deadline {
                    return Err(StoreError::new("what is kept of the host is being brought to another setting"));
                }
                let fill = |(finer, window): &(&Window, &Window)| {
                    keys.fill(&self.scripts.fill, &half_way, finer, window, labels, now)
                };
                let commands: Vec<Command> = new.iter().flat_map(fill).collect();
                for commands in commands.chunks(LABELS_MAX as usize) {
                    self.ask(commands).into_iter().try_for_each(|reply| reply.map(drop))?;
                }
                let last = labels.last().map_or("", SmolStr::as_str);
                if !step(&half_way, &half_way, last, false)? {
                    return Ok(());
                }
            }
        }
        step(&half_way, &setting.text(), "", false).map(drop)
    }

    /// The labels of a host that are not filled yet, sorted.
    fn labels_to_fill(&self, keys: &HostKeys) -> Result<Vec<SmolStr>, StoreError> {
        let mut replies = self.ask(&[keys.filled(), keys.labels()]).into_iter();
        let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
        let (filled, labels) = (next()?, next()?);
        let filled = text(&filled).unwrap_or_default();
        let labels = replies::pairs(&labels).filter_map(|(label, _)| text(label));
        let mut labels: Vec<SmolStr> = labels.filter(|label| *label > filled).map(SmolStr::new).collect();
        labels.sort_unstable();
        Ok(labels)
    }
}

/// The window of a setting from which one is filled that the setting lacks: the next finer one.
fn finer<'a>(from: &'a Keep, window: &'a Window) -> Option<(&'a Window, &'a Window)> {
    if from.window(window.interval_sec).is_some() {
        return None;
    }
    let finer = from.windows().iter().rfind(|finer| finer.interval_sec < window.interval_sec);
    finer.map(|finer| (finer, window))
}

/// What a receiver is told that was asked for another setting than the store's.
fn refusal(kept: &Keep, asked: &Keep, dropped: Option<String>) -> String {
    let removed = dropped.map_or_else(String::new, |dropped| format!(", and {dropped} goes"));
    format!(
        "its receivers keep {kept}, and --keep {asked} says otherwise; with --keep-change all of them keep that{removed}"
    )
}

fn on_key(command: &Cmd, writes: bool) -> Command {
    Command { slot: slot_of(KEY.as_bytes()), bytes: command.get_packed_command(), writes }
}

/// A step of a host from one setting to another, by the texts of the settings.
struct Step<'a> {
    before: &'a str,
    after: &'a str,
    /// The last label that is filled.
    filled: &'a str,
    /// Whether it is the first, which says how long everything is kept.
    is_first: bool,
}

impl HostKeys {
    /// `HGET` of the setting that the host is at.
    fn settled(&self) -> Command {
        self.command(cmd("HGET").arg(self.named("host")).arg("keep"), false)
    }

    /// `HGET` of the last label that is filled.
    fn filled(&self) -> Command {
        self.command(cmd("HGET").arg(self.named("host")).arg("filled"), false)
    }

    fn settle(
        &self,
        script: &str,
        step: &Step<'_>,
        (from, to): (&Setting, &Setting),
        forget_sec: u64,
        now: u64,
    ) -> Command {
        let (mut hashes, mut kept_sec) = (Vec::new(), Vec::new());
        for window in to.keep.windows().iter().filter(|_| step.is_first) {
            let Some(before) = from.keep.window(window.interval_sec) else { continue };
            let longer = if before.span_sec > window.span_sec { before } else { window };
            for (number, key) in self.kept_hashes(longer, now) {
                hashes.push(key);
                kept_sec.push(interval_kept_sec(window, number + intervals_of_hash(window) - 1, now));
            }
        }
        let longest = to.keep.longest();
        let labels_sec = longest.span_sec + 2 * longest.interval_sec + SPARE_SEC;
        let mut command = cmd("EVALSHA");
        command.arg(script).arg(3 + hashes.len());
        command.arg(self.named("host")).arg(self.named("labels")).arg(self.named("sources")).arg(hashes);
        command.arg(step.before).arg(step.after).arg(step.filled);
        command.arg(labels_sec + forget_sec).arg(labels_sec).arg(source_kept_sec(&to.keep));
        command.arg(if step.is_first { from.keep.longest().interval_sec } else { 0 }).arg(kept_sec);
        self.command(&command, true)
    }

    /// `HLEN` of the hashes of a window whose intervals are all before `end`, and `HKEYS` of that which has others too.
    fn lengths(&self, window: &Window, end: u64, now: u64) -> Vec<Command> {
        let size = intervals_of_hash(window);
        let hashes = self.kept_hashes(window, now).filter(|(first, _)| *first < end);
        let name = |first: u64| if first + size <= end { "HLEN" } else { "HKEYS" };
        hashes.map(|(first, key)| self.command(cmd(name(first)).arg(key), false)).collect()
    }

    /// The scripts that fill a window from a finer one, for some labels.
    fn fill(
        &self,
        script: &str,
        at: &str,
        finer: &Window,
        window: &Window,
        labels: &[SmolStr],
        now: u64,
    ) -> Vec<Command> {
        let ratio = window.interval_sec / finer.interval_sec;
        let intervals = (MERGED_MAX / (ratio * labels.len().max(1) as u64)).max(1);
        let (size, last) = (intervals_of_hash(window), window.number(now.saturating_add(AHEAD_SEC_MAX)));
        let (mut first, mut commands) = (finer.oldest(now) / ratio, Vec::new());
        while first <= last {
            let end = (first + intervals).min((first / size + 1) * size).min(last + 1);
            let targets = self.hashes(window, first, first).map(|(_, key)| key);
            let finer_keys = self.hashes(finer, first * ratio, end * ratio - 1).map(|(_, key)| key);
            let keys: Vec<String> = [self.named("host")].into_iter().chain(targets).chain(finer_keys).collect();
            let mut command = cmd("EVALSHA");
            command.arg(script).arg(keys.len()).arg(keys).arg(at).arg(interval_kept_sec(window, end - 1, now));
            command.arg(first % size).arg(end - first).arg(ratio).arg(intervals_of_hash(finer)).arg(first * ratio);
            for label in labels {
                command.arg(label.as_str());
            }
            commands.push(self.command(&command, true));
            first = end;
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_filled_from_the_next_finer_one() {
        let from: Keep = "1m:6h,1h:3d".parse().unwrap();
        let to: Keep = "1m:6h,10m:1d,1h:3d,1d:20d".parse().unwrap();
        let filled = to.windows().iter().filter_map(|window| finer(&from, window));
        let names: Vec<_> = filled.map(|(finer, window)| (finer.name, window.name)).collect();
        assert_eq!(names, [("by-minute", "by-10-minutes"), ("by-hour", "by-day")]);
    }
}
