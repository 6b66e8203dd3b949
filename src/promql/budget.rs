//! How long a query may take.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Error;

/// Most processor time of a query.
pub const CPU_MAX: Duration = Duration::from_secs(2);

/// The time that a query has: of the processor, and by the clock.
#[derive(Debug)]
pub struct Budget {
    cpu_at_start: Duration,
    timeout: Option<(Instant, Duration)>,
}

impl Budget {
    /// The budget of a query that this thread begins now.
    #[must_use]
    pub fn start(timeout: Option<Duration>) -> Self {
        Self { cpu_at_start: thread_cpu(), timeout: timeout.map(|timeout| (Instant::now(), timeout)) }
    }

    /// Ends a query whose time is over.
    pub(super) fn check(&self) -> Result<(), Error> {
        if thread_cpu().saturating_sub(self.cpu_at_start) > CPU_MAX {
            let sec = CPU_MAX.as_secs();
            return Err(Error::Timeout(format!("query: took more than {sec} s of processor time, the limit")));
        }
        match self.timeout {
            Some((start, timeout)) if start.elapsed() > timeout => {
                Err(Error::Timeout("query: took longer than its timeout".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// The processor time of this thread.
fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
