//! `pressure`: how much of the time some or all tasks waited for the processors, memory or I/O, in percent, by
//! `/proc/pressure` (pressure stall information, Linux 4.20 and later).

use std::time::Duration;

use super::{About, Label, Probe, Target, Tick, one_decimal};

pub(super) const ABOUT: About = About {
    name: "pressure",
    target: Target::None,
    labels: &[
        Label { name: "pressure-cpu", unit: "%", what: "time in which some task waited for a processor" },
        Label { name: "pressure-mem", unit: "%", what: "time in which some task waited for memory" },
        Label { name: "pressure-mem-full", unit: "%", what: "time in which all tasks that had work did" },
        Label { name: "pressure-io", unit: "%", what: "time in which some task waited for I/O" },
        Label { name: "pressure-io-full", unit: "%", what: "time in which all tasks that had work did" },
    ],
    source: "/proc/pressure",
    is_default: true,
    new: |_| Ok(Box::new(Pressure { before: [None; 3] })),
};

/// The files, and the label of each of their lines. Of the whole machine's processors the kernel has no `full` figure.
const FILES: [(&str, &[(&str, &str)]); 3] = [
    ("pressure/cpu", &[("some ", "pressure-cpu")]),
    ("pressure/memory", &[("some ", "pressure-mem"), ("full ", "pressure-mem-full")]),
    ("pressure/io", &[("some ", "pressure-io"), ("full ", "pressure-io-full")]),
];

struct Pressure {
    /// For each file the time of its last reading, and the waiting time until then of each of its lines.
    before: [Option<(Duration, [Option<Duration>; 2])>; 3],
}

impl Probe for Pressure {
    fn read(&mut self, tick: &mut Tick<'_>) {
        for ((file, lines), before) in FILES.iter().zip(&mut self.before) {
            let waited = match tick.files.text(file) {
                Ok(text) => {
                    let mut waited = [None; 2];
                    waited.iter_mut().zip(*lines).for_each(|(waited, (line, _))| *waited = parse(&text, line));
                    waited
                }
                Err(why) => {
                    *before = None;
                    tick.leave_out(&why);
                    continue;
                }
            };
            let Some((at_before, waited_before)) = before.replace((tick.at, waited)) else { continue };
            let elapsed = tick.at.saturating_sub(at_before);
            for ((now, before), (_, label)) in waited.into_iter().zip(waited_before).zip(*lines) {
                tick.give(
                    label,
                    None,
                    now.zip(before).and_then(|(now, before)| share(now.checked_sub(before)?, elapsed)),
                );
            }
        }
    }
}

/// The waiting time since the system started in the line that begins with `start`.
fn parse(text: &str, start: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix(start))?;
    let total_usec = line.split(' ').find_map(|field| field.strip_prefix("total="))?;
    Some(Duration::from_micros(total_usec.parse().ok()?))
}

/// `waited` of `elapsed` in percent. The kernel counts up to a moment a little before or after the tick's.
fn share(waited: Duration, elapsed: Duration) -> Option<f64> {
    let percent = waited.as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    (!elapsed.is_zero()).then(|| one_decimal(percent.min(100.0)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Host, is};
    use super::*;

    fn files(some: u64, full: u64) -> [(String, String); 3] {
        let line = |kind: &str, total| format!("{kind} avg10=1.00 avg60=2.00 avg300=3.00 total={total}\n");
        let both = line("some", some) + &line("full", full);
        [("cpu", line("some", 5 * some)), ("memory", both.clone()), ("io", both)]
            .map(|(name, text)| (format!("pressure/{name}"), text))
    }

    fn read(host: &mut Host, files: &[(String, String)]) -> Vec<(String, f64)> {
        host.values(&files.iter().map(|(name, text)| (&**name, &**text)).collect::<Vec<_>>())
    }

    #[test]
    fn waiting_time_is_in_percent_of_the_time_between_ticks() {
        let mut host = Host::new("pressure", &[]);
        assert_eq!(read(&mut host, &files(1_000_000, 500_000)), []);
        let expected = [
            is("pressure-cpu", 100.0),
            is("pressure-mem", 25.0),
            is("pressure-mem-full", 5.0),
            is("pressure-io", 25.0),
            is("pressure-io-full", 5.0),
        ];
        assert_eq!(read(&mut host, &files(1_500_000, 600_000)), expected, "over two seconds");
        assert_eq!(read(&mut host, &files(0, 600_000)), [is("pressure-mem-full", 0.0), is("pressure-io-full", 0.0)]);
    }

    #[test]
    fn kernels_without_pressure_are_no_problem() {
        let reading = Host::new("pressure", &[]).read(&[]);
        assert_eq!((reading.values.len(), reading.problems.len(), reading.left_out.len()), (0, 0, 3));
        assert!(reading.left_out[0].starts_with("probe pressure is left out: cannot read "), "{reading:?}");
        for wrong in ["", "some", "some avg10=0.00", "some avg10=0.00 total=x", "some avg10=0.00 total=-1"] {
            assert_eq!(parse(wrong, "some "), None, "{wrong:?}");
        }
    }
}
