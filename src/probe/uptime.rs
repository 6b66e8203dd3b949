//! `uptime`: whole seconds since the system started, by `/proc/uptime`.

use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "uptime",
    target: Target::None,
    labels: &[Label { name: "uptime", unit: "s", what: "time since the system started" }],
    source: "/proc/uptime",
    is_default: true,
    new: |_| Ok(Box::new(Uptime)),
};

struct Uptime;

impl Probe for Uptime {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let sec = tick.files.first_number("uptime");
        let sec = tick.ok(sec);
        tick.give("uptime", None, sec.map(f64::floor));
    }
}
