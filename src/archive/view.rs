//! The lines of `/metrics` on archives.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::service::Archives;

impl Archives {
    /// The lines of `/metrics`, at `now`.
    #[must_use]
    pub fn metrics(&self, now: u64) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&super::service::Counts) -> u64| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for archive in &self.archives {
                let target = archive.target.to_string().replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(text, "{name}{{archive=\"{target}\"}} {}", value(&archive.counts));
            }
        };
        let help = "Seconds since the end of the oldest minute that is due and not in the archive; 0 if none is.";
        family("lizm_archive_behind_seconds", "gauge", help, &|counts| counts.behind_sec(now));
        let help = "Intervals that the archive has taken.";
        family("lizm_archive_intervals_total", "counter", help, &|counts| counts.sent.load(Ordering::Relaxed));
        let help = "Intervals that the archive does not take for good.";
        family("lizm_archive_refused_total", "counter", help, &|counts| counts.refused.load(Ordering::Relaxed));
        let help =
            "Minutes of hosts that have changed late and are not sent again, because the archive would keep both.";
        family("lizm_archive_skipped_total", "counter", help, &|counts| counts.skipped.load(Ordering::Relaxed));
        let help = "Requests to the archive that have failed and are tried again.";
        family("lizm_archive_failures_total", "counter", help, &|counts| counts.failures.load(Ordering::Relaxed));
        text
    }
}
