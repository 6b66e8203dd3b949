//! `readonly`: how many file systems became read-only while the monitor runs, as the kernel makes them on errors, by
//! the options of file systems in `/proc/self/mountinfo`.
//!
//! What was read-only when it was seen first is meant to be so. The state of a file system is the same in all mounts of
//! it, so that a read-only mount of a file system that is written elsewhere, as systemd makes for services, is none.

use std::collections::HashMap;
use std::time::Duration;

use super::mounts::{Mount, parse_mounts};
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "readonly",
    target: Target::None,
    labels: &[Label { name: "readonly", unit: "", what: "number of file systems that became read-only" }],
    source: "/proc/self/mountinfo",
    is_default: false,
    new: |setup| {
        let file = setup.options.mountinfo();
        Ok(Box::new(Readonly { file, read_at: None, count: None, was_writable: HashMap::new() }))
    },
};

/// How often the mounts are read: hosts of containers have thousands.
const READ_EVERY: Duration = Duration::from_secs(10);

struct Readonly {
    file: &'static str,
    read_at: Option<Duration>,
    count: Option<u32>,
    /// Of each device that is mounted, whether it could be written when it was seen first.
    was_writable: HashMap<String, bool>,
}

impl Probe for Readonly {
    fn read(&mut self, tick: &mut Tick<'_>) {
        if self.read_at.is_none_or(|at| tick.at.saturating_sub(at) >= READ_EVERY) {
            self.read_at = Some(tick.at);
            let mounts = tick.files.text(self.file).map(|text| parse_mounts(&text));
            self.count = tick.ok(mounts).map(|mounts| self.count(&mounts));
        }
        tick.give("readonly", None, self.count.map(f64::from));
    }
}

impl Readonly {
    fn count(&mut self, mounts: &[Mount]) -> u32 {
        let is_readonly = |mount: &Mount| mount.has_option("ro") || mount.has_option("emergency_ro");
        let mut now = HashMap::new();
        let mut count = 0;
        for mount in mounts {
            if now.contains_key(&mount.device) {
                continue;
            }
            // Nobody mounts a file system as an emergency.
            let first = || !is_readonly(mount) || mount.has_option("emergency_ro");
            let was_writable = self.was_writable.get(&mount.device).copied().unwrap_or_else(first);
            count += u32::from(was_writable && is_readonly(mount));
            now.insert(mount.device.clone(), was_writable);
        }
        self.was_writable = now;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};

    /// Mounts by device, options of the mount, and options of the file system.
    fn mountinfo(mounts: &[(&str, &str, &str)]) -> String {
        let line = |(device, mount, filesystem): &(_, _, _)| {
            format!("30 1 {device} / /mnt/{device} {mount},relatime shared:1 - ext4 /dev/sda1 {filesystem}\n")
        };
        mounts.iter().map(line).collect()
    }

    #[test]
    fn file_systems_that_become_read_only_are_counted_once() {
        let mut host = Host::new("readonly", &[]);
        // Ten seconds and more go by between two readings.
        let mut count = |mounts: &[(&str, &str, &str)]| {
            let text = mountinfo(mounts);
            (0..5).map(|_| host.values(&[("self/mountinfo", &text)])).last().unwrap()[0].1
        };
        let fine = [("8:1", "rw", "rw"), ("8:2", "ro", "ro"), ("8:3", "ro", "rw")];
        assert_eq!(count(&fine), 0.0, "one is meant to be read-only, and a mount of another one is");
        assert_eq!(count(&[("8:1", "ro", "ro,errors=remount-ro"), ("8:1", "rw", "ro"), fine[1], fine[2]]), 1.0);
        assert_eq!(count(&[fine[0], fine[1], ("8:3", "rw", "rw,emergency_ro")]), 1.0);
        assert_eq!(count(&fine), 0.0, "mended");
        assert_eq!(count(&[("8:9", "rw", "rw,emergency_ro"), ("8:10", "ro", "ro")]), 1.0, "both are new");
    }

    #[test]
    fn the_count_holds_between_two_readings_of_the_mounts() {
        let mut host = Host::new("readonly", &[("self/mountinfo", &mountinfo(&[("8:1", "rw", "rw")]))]);
        assert_eq!(host.values(&[]), [is("readonly", 0.0)]);
        let broken = mountinfo(&[("8:1", "rw", "ro")]);
        for _ in 0..4 {
            assert_eq!(host.values(&[("self/mountinfo", &broken)]), [is("readonly", 0.0)]);
        }
        assert_eq!(host.values(&[]), [is("readonly", 1.0)]);
    }
}
