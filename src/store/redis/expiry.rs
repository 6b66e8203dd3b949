//! Removing what has left its window from hashes that hold more than a day. All others expire as a whole in time.

use std::time::{Duration, Instant};

use ::redis::cmd;
use smol_str::SmolStr;

use super::layout::{HostKeys, Setting, intervals_of_hash};
use super::nodes::Command;
use super::replies::text;
use super::{Redis, StoreError, not_understood};
use crate::store::memory::locked;
use crate::summary::Window;

/// Seconds of the longest interval, which is the only one of which a hash holds more than a day.
const DAY: u64 = 86_400;
/// Hosts whose hashes are searched in one batch: a millisecond or two of Redis's time.
const HOSTS_PER_BATCH: usize = 8;
/// Longest that a sweep searches. The next one goes on.
const TRIM_WITHIN: Duration = Duration::from_secs(5);

/// How far the search for days that have left their window is.
#[derive(Default)]
pub(super) struct Trimmed {
    /// The number of the setting, and the first day that is kept by it.
    by: (u64, u64),
    /// The last host that was searched for days before it; `None` where all were.
    after: Option<SmolStr>,
}

impl Trimmed {
    /// The host after which the search goes on; `None` where it has ended.
    fn begin(&mut self, by: (u64, u64)) -> Option<SmolStr> {
        if self.by != by {
            *self = Self { by, after: Some(SmolStr::default()) };
        }
        self.after.clone()
    }
}

impl Redis {
    /// Removes the days of all hosts that have left their window, once a day and for a while. The next call goes on.
    pub(super) fn trim_days(&self, now: u64) -> Result<(), StoreError> {
        let (setting, now) = (self.agreed()?, now.min(self.now()?));
        let Some(window) = setting.keep.window(DAY) else { return Ok(()) };
        let oldest = window.oldest(now);
        let Some(after) = locked(&self.trimmed).begin((setting.number, oldest)) else { return Ok(()) };
        let (hosts, deadline) = (self.hosts(now)?, Instant::now() + TRIM_WITHIN);
        let start = hosts.partition_point(|host| *host <= after);
        for hosts in hosts[start..].chunks(HOSTS_PER_BATCH) {
            if Instant::now() > deadline {
                return Ok(());
            }
            self.trim_hosts(&setting, window, oldest, hosts)?;
            locked(&self.trimmed).after = hosts.last().cloned();
        }
        locked(&self.trimmed).after = None;
        Ok(())
    }

    /// The same of hosts that the index does not have any more, and so no later call.
    pub(super) fn trim_forgotten(&self, hosts: &[SmolStr], now: u64) -> Result<(), StoreError> {
        let setting = self.agreed()?;
        let Some(window) = setting.keep.window(DAY) else { return Ok(()) };
        let mut batches = hosts.chunks(HOSTS_PER_BATCH);
        batches.try_for_each(|hosts| self.trim_hosts(&setting, window, window.oldest(now), hosts))
    }

    fn trim_hosts(&self, setting: &Setting, window: &Window, oldest: u64, hosts: &[SmolStr]) -> Result<(), StoreError> {
        let mut waiting: Vec<(&SmolStr, String)> = hosts.iter().map(|host| (host, "0".to_owned())).collect();
        while !waiting.is_empty() {
            let command = |(host, from): &(&SmolStr, String)| {
                HostKeys::of(host).trim(&self.scripts.trim, setting, window, oldest, from)
            };
            let replies = self.ask(&waiting.iter().map(command).collect::<Vec<_>>());
            for ((_, from), reply) in waiting.iter_mut().zip(replies) {
                let reply = reply?;
                *from = text(&reply).ok_or_else(|| not_understood(&reply))?.to_owned();
            }
            waiting.retain(|(_, from)| from != "0");
        }
        Ok(())
    }
}

impl HostKeys {
    fn trim(&self, script: &str, setting: &Setting, window: &Window, oldest: u64, from: &str) -> Command {
        let mut command = cmd("EVALSHA");
        command.arg(script).arg(2).arg(self.named("host")).arg(self.of_interval(window, oldest));
        command.arg(setting.text()).arg(oldest % intervals_of_hash(window)).arg(from);
        self.command(&command, true)
    }
}
