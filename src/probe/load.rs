//! `load`: the load average of one minute, by `/proc/loadavg`, and the same over the processors that are online, which
//! `/proc/stat` has a line of each of.

use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "load",
    target: Target::None,
    labels: &[
        Label { name: "load1", unit: "", what: "load average of one minute" },
        Label { name: "load-per-core", unit: "", what: "the same over the number of processors" },
    ],
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
        let processors = tick.files.text("stat").map_or(0, |stat| count_processors(&stat));
        if processors == 0 {
            tick.leave_out("/proc/stat has no lines of processors for load-per-core");
        }
        let per_core = load1.filter(|_| processors > 0).map(|load1| load1 / f64::from(processors));
        tick.give("load-per-core", None, per_core.map(|load| (load * 100.0).round() / 100.0));
    }
}

/// How many processors are online: the lines `cpu0` and so on of `/proc/stat`, which come first.
fn count_processors(stat: &str) -> u32 {
    let of_processor = |line: &&str| line.starts_with("cpu");
    let is_numbered = |line: &&str| line.as_bytes().get(3).is_some_and(u8::is_ascii_digit);
    stat.lines().take_while(of_processor).filter(is_numbered).fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};

    #[test]
    fn load_per_core_is_over_the_processors_that_are_online() {
        let mut host = Host::new("load", &[("loadavg", "1.00 0 0 1/2 3\n")]);
        let stat = "cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu2 1 2 3 4\ncpu11 1 2 3 4\nintr 5\ncpu12 1\n";
        assert_eq!(host.values(&[("stat", stat)]), [is("load1", 1.0), is("load-per-core", 0.33)]);
        assert_eq!(host.values(&[("stat", "cpu  1 2 3 4\n")]), [is("load1", 1.0)]);
    }
}
