//! Traffic of devices, and what two readings of it make: the rates of `io` and `net`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use smol_str::SmolStr;

use super::Tick;

/// How long a decision stands which devices count towards the sum, while the same devices are there.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Bytes that a device has moved since the system started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) name: SmolStr,
    /// Read and written, or received and sent.
    pub(super) bytes: [u64; 2],
}

/// The lines of a file that are devices' traffic, and what is wrong with the first of the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) devices: Vec<Traffic>,
    pub(super) problem: Option<String>,
}

impl Lines {
    /// Parses each line that `is_of_device`; a line that `parse` takes for none of a device is a problem.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a str>, parse: fn(&str) -> Option<Traffic>) -> Self {
        let (mut devices, mut problem) = (Vec::new(), None);
        for (number, line) in (1..).zip(lines) {
            match parse(line) {
                Some(device) => devices.push(device),
                None if problem.is_none() => problem = Some(format!("line {number} of the devices cannot be parsed")),
                None => {}
            }
        }
        Self { devices, problem }
    }
}

/// Makes rates of the traffic of block devices or network interfaces.
pub(super) struct Meter {
    /// What a device is called in a problem.
    pub(super) device: &'static str,
    /// The label of each way of [`Traffic::bytes`].
    pub(super) labels: [&'static str; 2],
    /// The devices to measure; `None` is the sum of all that count.
    pub(super) targets: Vec<Option<String>>,
    /// Chooses those whose traffic no other one of them counts too, by the sysfs of the machine.
    pub(super) count: fn(&Path, &[Traffic]) -> Vec<SmolStr>,
    pub(super) sysfs: PathBuf,
    pub(super) before: Option<(Duration, Vec<Traffic>)>,
    /// The devices that count, and when they were chosen.
    pub(super) counted: Option<(Duration, Vec<SmolStr>)>,
}

impl Meter {
    pub(super) fn read(&mut self, tick: &mut Tick<'_>, lines: Result<Lines, String>) {
        let Some(Lines { devices, problem }) = tick.ok(lines) else {
            self.before = None;
            return;
        };
        if let Some(problem) = problem {
            tick.report(None, &problem);
        }
        let before = self.before.take();
        let elapsed = before.as_ref().and_then(|(at, _)| tick.at.checked_sub(*at)).unwrap_or_default();
        let before = before.map(|(_, devices)| devices).unwrap_or_default();
        let is_same = before.iter().map(|device| &device.name).eq(devices.iter().map(|device| &device.name));
        self.counted.take_if(|(at, _)| !is_same || tick.at.saturating_sub(*at) >= COUNTED_FOR);
        for target in &self.targets {
            let rates = match target {
                Some(name) if !devices.iter().any(|device| device.name == *name) => {
                    tick.report(Some(name), &format!("there is no such {}", self.device));
                    continue;
                }
                Some(name) => rates(&before, &devices, elapsed, |device| device == name),
                None => {
                    let choose = || (tick.at, (self.count)(&self.sysfs, &devices));
                    let (_, counted) = self.counted.get_or_insert_with(choose);
                    rates(&before, &devices, elapsed, |device| counted.iter().any(|name| name == device))
                }
            };
            for (label, rate) in self.labels.iter().zip(rates.into_iter().flatten()) {
                tick.give(label, target.as_deref(), Some(rate));
            }
        }
        self.before = Some((tick.at, devices));
    }
}

/// Bytes a second of the devices that `counts` accepts. A device that was not there before, or whose counter went
/// backwards because another one took its name, has no rate; `None` where no device has one.
fn rates(before: &[Traffic], after: &[Traffic], elapsed: Duration, counts: impl Fn(&str) -> bool) -> Option<[f64; 2]> {
    let moved = |device: &Traffic| {
        let old = before.iter().find(|old| old.name == device.name)?;
        let [first, second] = [0, 1].map(|way| device.bytes[way].checked_sub(old.bytes[way]));
        Some([first?, second?])
    };
    let counted = after.iter().filter(|device| counts(&device.name));
    let sum = counted.filter_map(moved).reduce(|sum, more| [0, 1].map(|way| sum[way].saturating_add(more[way])))?;
    #[expect(clippy::cast_precision_loss, reason = "whole bytes a second are kept of it")]
    let per_sec = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64()).round();
    (!elapsed.is_zero()).then(|| sum.map(per_sec))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn traffic(name: &str, bytes: [u64; 2]) -> Traffic {
        Traffic { name: name.into(), bytes }
    }

    #[test]
    fn rates_are_of_the_devices_that_were_there_before() {
        let any = |_: &str| true;
        let before = [traffic("a", [100, 1000]), traffic("b", [5000, 0])];
        let after = [traffic("a", [300, 1000]), traffic("b", [5100, 50]), traffic("c", [1 << 60, 1 << 60])];
        assert_eq!(rates(&before, &after, 2 * SECOND, any), Some([150.0, 25.0]), "c is new");
        assert_eq!(rates(&before, &before, SECOND, any), Some([0.0, 0.0]));
        assert_eq!(rates(&before, &after, SECOND, |name| name == "a"), Some([200.0, 0.0]));
        assert_eq!(rates(&before, &[], SECOND, any), None, "no device is not an idle device");
        assert_eq!(rates(&before, &after[2..], SECOND, any), None);
        assert_eq!(rates(&before, &after, Duration::ZERO, any), None);
        let most = [traffic("a", [u64::MAX; 2]), traffic("b", [u64::MAX; 2])];
        assert!(rates(&before, &most, SECOND, any).unwrap().iter().all(|rate| rate.is_finite()));
    }

    #[test]
    fn a_counter_that_goes_backwards_has_no_rate() {
        let before = [traffic("a", [100, 1000]), traffic("b", [5000, 0])];
        let replaced = [traffic("a", [300, 1000]), traffic("b", [0, 50])];
        assert_eq!(rates(&before, &replaced, SECOND, |_| true), Some([200.0, 0.0]), "the others have a rate");
        assert_eq!(rates(&before, &replaced, SECOND, |name| name == "b"), None);
    }
}
