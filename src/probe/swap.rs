//! `swap`: swap that is used, in percent, by `/proc/meminfo`. A machine without swap has no value.

use super::mem::Meminfo;
use super::proc_file::ProcFiles;
use super::{About, Label, Memory, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "swap",
    target: Target::None,
    labels: &[Label { name: "swap", unit: "%", what: "swap that is used" }],
    source: "/proc/meminfo",
    is_default: true,
    new: |_| Ok(Box::new(Swap)),
};

struct Swap;

impl Probe for Swap {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let swap = read(tick.files);
        let swap = tick.ok(swap);
        if swap.is_some_and(|swap| swap.total_bytes == 0) {
            tick.leave_out("there is no swap");
        }
        tick.give("swap", None, swap.and_then(|swap| swap.used_percent()));
    }
}

fn read(files: &mut ProcFiles) -> Result<Memory, String> {
    let meminfo = Meminfo::read(files)?;
    // Sandboxes have no line of swap, and none of it.
    let total_bytes = meminfo.field("SwapTotal")?.unwrap_or(0);
    let available_bytes = if total_bytes > 0 { meminfo.required("SwapFree")? } else { 0 };
    Ok(Memory { total_bytes, available_bytes })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};

    #[test]
    fn a_machine_without_swap_has_no_value() {
        let mut host = Host::new("swap", &[("meminfo", "SwapTotal: 1000 kB\nSwapFree: 800 kB\n")]);
        assert_eq!(host.values(&[]), [is("swap", 20.0)]);
        assert_eq!(host.values(&[("meminfo", "SwapTotal: 0 kB\nSwapFree: 0 kB\n")]), []);
        assert_eq!(host.values(&[("meminfo", "MemTotal: 1000 kB\n")]), []);
        assert_eq!(host.read(&[]).left_out, ["probe swap is left out: there is no swap"]);
    }
}
