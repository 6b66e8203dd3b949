//! `cpu-parts`: what the busy time of the processors is made of, and their wait for I/O, in percent of all time, by the
//! first line of `/proc/stat`.

use super::cpu::{CpuSpent, CpuTimes};
use super::{About, Label, Probe, Target, Tick, percent};

pub(super) const ABOUT: About = About {
    name: "cpu-parts",
    target: Target::None,
    labels: &[
        Label { name: "cpu-user", unit: "%", what: "processor time of programs, nice ones with it" },
        Label { name: "cpu-system", unit: "%", what: "processor time of the kernel and of interrupts" },
        Label { name: "cpu-iowait", unit: "%", what: "idle processor time while I/O is under way" },
        Label { name: "cpu-steal", unit: "%", what: "processor time that the hypervisor gave to others" },
    ],
    source: "/proc/stat",
    is_default: false,
    new: |_| Ok(Box::new(CpuParts { before: None })),
};

struct CpuParts {
    before: Option<CpuTimes>,
}

impl Probe for CpuParts {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let times = CpuTimes::read(tick.files);
        let times = tick.ok(times);
        let before = std::mem::replace(&mut self.before, times);
        let Some(spent) = before.zip(times).and_then(|(before, times)| times.since(&before)) else { return };
        let CpuSpent { busy: [user, nice, system, irq, softirq, steal], iowait, total } = spent;
        tick.give("cpu-user", None, percent(user + nice, total));
        tick.give("cpu-system", None, percent(system + irq + softirq, total));
        tick.give("cpu-iowait", None, iowait.and_then(|iowait| percent(iowait, total)));
        tick.give("cpu-steal", None, percent(steal, total));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};

    #[test]
    fn the_parts_add_up_to_cpu_with_iowait_beside() {
        let mut host = Host::new("cpu,cpu-parts", &[("stat", "cpu  100 10 50 1000 100 5 5 1 0 0\n")]);
        assert_eq!(host.values(&[]), []);
        let values = host.values(&[("stat", "cpu  130 11 60 1140 115 6 6 3 0 0\n")]);
        let parts = [is("cpu-user", 15.5), is("cpu-system", 6.0), is("cpu-iowait", 7.5), is("cpu-steal", 1.0)];
        assert_eq!((&values[0], &values[1..]), (&is("cpu", 22.5), &parts[..]));
        let values = host.values(&[("stat", "cpu  150 11 60 1240 95 6 6 3 0 0\n")]);
        assert_eq!(values[1..], [is("cpu-user", 20.0), is("cpu-system", 0.0), is("cpu-steal", 0.0)]);
        assert_eq!(host.values(&[]), [], "no time went by");
    }
}
