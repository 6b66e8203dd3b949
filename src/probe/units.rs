//! `units`: how many units of systemd have failed, by `systemctl show -p NFailedUnits`, every 30 seconds on a thread of
//! its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::background::BackgroundCall;
use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "units",
    target: Target::None,
    labels: &[Label { name: "units-failed", unit: "", what: "number of units of systemd that failed" }],
    source: "systemctl show",
    is_default: false,
    new: |_| {
        let call = BackgroundCall::start("units", ask_systemd)?;
        Ok(Box::new(Units { call, asked_at: None, answered_at: Duration::ZERO, failed: None }))
    },
};

const ASKED_EVERY: Duration = Duration::from_secs(30);
/// How long a number holds while systemd does not answer.
const HELD_FOR: Duration = Duration::from_secs(90);

struct Units {
    call: BackgroundCall<Result<f64, String>>,
    asked_at: Option<Duration>,
    answered_at: Duration,
    failed: Option<Result<f64, String>>,
}

impl Probe for Units {
    fn read(&mut self, tick: &mut Tick<'_>) {
        if let Some(failed) = self.call.poll() {
            (self.failed, self.answered_at) = (Some(failed), tick.at);
        }
        if self.asked_at.is_none_or(|at| tick.at.saturating_sub(at) >= ASKED_EVERY) {
            self.answered_at = if self.asked_at.is_none() { tick.at } else { self.answered_at };
            self.asked_at = Some(tick.at);
            self.call.ask();
        }
        if tick.at.saturating_sub(self.answered_at) >= HELD_FOR {
            return tick.report(None, "systemd does not answer");
        }
        match &self.failed {
            Some(Ok(failed)) => tick.give("units-failed", None, Some(*failed)),
            Some(Err(why)) => tick.leave_out(why),
            None => {}
        }
    }

    fn is_pending(&self) -> bool {
        self.failed.is_none()
    }
}

fn ask_systemd() -> Result<f64, String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=NFailedUnits"]).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot run systemctl: {error}"))?;
    parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| "systemd is not running here".to_owned())
}

fn parse(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("NFailedUnits=")?.parse::<u32>().ok()).map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stands_behind_its_name() {
        assert_eq!(parse("NFailedUnits=2\n"), Some(2.0));
        for wrong in ["", "NFailedUnits=", "NFailedUnits=-1\n", "System has not been booted with systemd\n"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
