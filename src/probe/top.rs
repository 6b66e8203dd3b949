//! `top`: the five commands that use most processor time, and the five that use most memory, each with all processes of
//! its name. Names only, for arguments hold secrets.
//!
//! A name is published while it is among the five and for a minute after, so that a series does not end with each
//! reading.

use std::collections::HashMap;
use std::time::Duration;

use super::process_table::{Pass, Usage};
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "top",
    target: Target::None,
    labels: &[
        Label { name: "top-cpu", unit: "%", what: "top-cpu:NAME, of the five busiest commands" },
        Label { name: "top-mem", unit: "B", what: "top-mem:NAME, of the five largest commands" },
    ],
    source: "/proc/PID/stat",
    is_default: false,
    new: |_| Ok(Box::new(Top { busiest: Ranking::default(), largest: Ranking::default() })),
};

/// How many commands are at the top.
const TOP: usize = 5;
/// Most names at once: those at the top, and as many that were.
const NAMES_MAX: usize = 10;
/// How long a name is published after it was among the first.
const PUBLISHED_FOR: Duration = Duration::from_secs(60);

struct Top {
    busiest: Ranking,
    largest: Ranking,
}

impl Probe for Top {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let pass = tick.processes.pass(tick.at, tick.until);
        let Some(Some(pass)) = tick.ok(pass) else { return };
        let cpu = |usage: &Usage| pass.cpu_percent(usage);
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
        let mem = |usage: &Usage| Some(usage.mem_bytes as f64);
        for (name, value) in self.busiest.names(&pass, tick.at, cpu) {
            tick.give("top-cpu", Some(&name), Some(value));
        }
        for (name, value) in self.largest.names(&pass, tick.at, mem) {
            tick.give("top-mem", Some(&name), Some(value));
        }
    }
}

/// The names that are published, each with the time at which it was among the first the last time.
#[derive(Default)]
struct Ranking(HashMap<String, Duration>);

impl Ranking {
    /// The names and their values, by name.
    fn names(&mut self, pass: &Pass, at: Duration, value: impl Fn(&Usage) -> Option<f64>) -> Vec<(String, f64)> {
        let used = |(name, usage): (&String, &Usage)| Some((name.clone(), value(usage).filter(|value| *value > 0.0)?));
        let mut ranked: Vec<(String, f64)> = pass.commands.iter().filter_map(used).collect();
        // Of equals the first by name, so that they do not take turns.
        ranked.sort_unstable_by(|(a, more), (b, less)| less.total_cmp(more).then_with(|| a.cmp(b)));
        self.0.extend(ranked.into_iter().take(TOP).map(|(name, _)| (name, at)));
        self.0.retain(|_, last| at.saturating_sub(*last) <= PUBLISHED_FOR);
        if self.0.len() > NAMES_MAX {
            let mut by_time: Vec<(Duration, String)> = self.0.drain().map(|(name, last)| (last, name)).collect();
            by_time.sort_unstable_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.cmp(other)));
            self.0 = by_time.into_iter().take(NAMES_MAX).map(|(last, name)| (name, last)).collect();
        }
        let of = |name: &String| value(&pass.commands.get(name).copied().unwrap_or_default());
        let mut names: Vec<(String, f64)> = self.0.keys().filter_map(|name| Some((name.clone(), of(name)?))).collect();
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_for_a_minute_and_there_are_only_so_many() {
        let pass = |names: &[(&str, u64)]| {
            let usage = |mem_bytes| Usage { mem_bytes, ..Usage::default() };
            let commands = names.iter().map(|(name, mem_bytes)| ((*name).to_owned(), usage(*mem_bytes))).collect();
            Pass { commands, ..Pass::default() }
        };
        let mut ranking = Ranking::default();
        let mut names = |sec, list: &[(&str, u64)]| -> Vec<(String, f64)> {
            ranking.names(&pass(list), Duration::from_secs(sec), |usage| Some(usage.mem_bytes as f64))
        };
        let of = |list: &[(&str, f64)]| -> Vec<(String, f64)> {
            list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        let six = [("a", 1), ("b", 2), ("c", 2), ("d", 9), ("e", 9), ("f", 9), ("idle", 0)];
        assert_eq!(names(0, &six), of(&[("b", 2.0), ("c", 2.0), ("d", 9.0), ("e", 9.0), ("f", 9.0)]));
        let less = [("a", 1), ("b", 2)];
        let held = of(&[("a", 1.0), ("b", 2.0), ("c", 0.0), ("d", 0.0), ("e", 0.0), ("f", 0.0)]);
        assert_eq!((names(60, &less), names(61, &less)), (held, of(&[("a", 1.0), ("b", 2.0)])));
        for sec in 62..100 {
            let new: Vec<String> = (0..5).map(|n| format!("{sec}-{n}")).collect();
            let new: Vec<(&str, u64)> = new.iter().map(|name| (&**name, 5)).collect();
            assert!(names(sec, &new).len() <= NAMES_MAX);
        }
    }
}
