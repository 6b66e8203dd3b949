//! `load`: the load average of one minute, by `/proc/loadavg`.

use super::table::{About, Label};
use super::{Probe, Tick};

pub(super) const ABOUT: About = About {
    name: "load",
    target: None,
    labels: &[Label { name: "load1", unit: "", what: "load average of one minute" }],
    source: "/proc/loadavg",
    is_default: true,
    new: |_| Ok(Box::new(Load)),
};

struct Load;

impl Probe for Load {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let load1 = tick.files.first_number("loadavg");
        let load1 = tick.ok(load1);
        tick.give("load1", None, load1);
    }
}
