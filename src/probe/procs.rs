//! `procs:PATTERN`: how many processes have a command like a pattern, their processor time and their memory. The
//! pattern, with `*` and `?`, is for the name of the command or for its whole line.

use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "procs",
    target: Target::Required("PATTERN"),
    labels: &[
        Label { name: "procs", unit: "", what: "processes whose name or command line is like PATTERN" },
        Label { name: "procs-cpu", unit: "%", what: "their part of all processors' time" },
        Label { name: "procs-mem", unit: "B", what: "their resident memory" },
    ],
    source: "/proc/PID/stat",
    is_default: false,
    new: |setup| {
        let patterns = setup.targets.into_iter().flatten();
        Ok(Box::new(Procs {
            patterns: patterns.map(|pattern| (setup.processes.add(pattern.clone()), pattern)).collect(),
        }))
    },
};

struct Procs {
    /// Each with its index in a pass.
    patterns: Vec<(usize, String)>,
}

impl Probe for Procs {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let pass = tick.processes.pass(tick.at, tick.until);
        let Some(Some(pass)) = tick.ok(pass) else { return };
        for (index, pattern) in &self.patterns {
            let usage = &pass.patterns[*index];
            tick.give("procs", Some(pattern), Some(f64::from(usage.count)));
            tick.give("procs-cpu", Some(pattern), pass.cpu_percent(usage));
            #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
            tick.give("procs-mem", Some(pattern), Some(usage.mem_bytes as f64));
        }
    }
}
