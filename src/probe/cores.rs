//! `cores`: busy time of each processor in percent, by the lines of `/proc/stat`.

use super::cpu::CpuTimes;
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "cores",
    target: Target::None,
    labels: &[Label { name: "cpu", unit: "%", what: "cpu:0 and so on are each processor's" }],
    source: "/proc/stat",
    is_default: false,
    new: |_| Ok(Box::new(Cores { before: Vec::new() })),
};

/// Most processors that have a label: those with the lowest numbers.
const CORES_MAX: usize = 64;

struct Cores {
    /// Each processor's number, and its times at the last tick. A processor that was offline is not among them.
    before: Vec<(String, CpuTimes)>,
}

impl Probe for Cores {
    fn read(&mut self, tick: &mut Tick<'_>) {
        let stat = tick.files.text("stat").map(|stat| parse(&stat));
        let now = tick.ok(stat).unwrap_or_default();
        if now.len() > CORES_MAX {
            tick.leave_out(&format!("there are more than {CORES_MAX} processors, and the others have no label"));
        }
        for (number, times) in now.iter().take(CORES_MAX) {
            let before = self.before.iter().find(|(before, _)| before == number);
            let spent = before.and_then(|(_, before)| times.since(before));
            tick.give("cpu", Some(number), spent.and_then(|spent| spent.busy_percent()));
        }
        self.before = now;
    }
}

/// The numbers and times of the processors that are online.
fn parse(stat: &str) -> Vec<(String, CpuTimes)> {
    let lines = stat.lines().skip(1).map_while(|line| line.strip_prefix("cpu"));
    let parse = |line: &str| {
        let (number, columns) = line.split_once(' ')?;
        Some((number.to_owned(), CpuTimes::parse(columns)?))
    };
    lines.filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};

    #[test]
    fn each_processor_has_its_busy_time() {
        let mut host = Host::new("cores", &[]);
        let stat = |lines: &str| format!("cpu  9 9 9 9\n{lines}intr 5\n");
        assert_eq!(host.values(&[("stat", &stat("cpu0 100 0 0 100\ncpu1 100 0 0 100\n"))]), []);
        let values = host.values(&[("stat", &stat("cpu0 130 0 0 170\ncpu1 100 0 0 200\n"))]);
        assert_eq!(values, [is("cpu:0", 30.0), is("cpu:1", 0.0)]);
        let values = host.values(&[("stat", &stat("cpu1 150 0 0 250\ncpu2 1 0 0 1\n"))]);
        assert_eq!(values, [is("cpu:1", 50.0)], "one is gone, and one has just come");
        let values = host.values(&[("stat", &stat("cpu0 0 0 0 1\ncpu1 151 x 0 251\ncpu2 2 0 0 2\n"))]);
        assert_eq!(values, [is("cpu:2", 50.0)], "a line that is odd takes no other one away");
    }

    #[test]
    fn only_so_many_processors_have_a_label() {
        let stat =
            |busy: u32| (0..70).fold("cpu  1 1 1 1\n".to_owned(), |stat, n| format!("{stat}cpu{n} {busy} 0 0 1\n"));
        let mut host = Host::new("cores", &[("stat", &stat(1))]);
        assert!(host.values(&[]).is_empty());
        let reading = host.read(&[("stat", &stat(2))]);
        assert_eq!((reading.values.len(), reading.left_out.len()), (64, 1));
    }
}
