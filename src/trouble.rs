//! What the log says of something that fails again and again: the first time, once a minute, and that it is over.

use std::time::{Duration, Instant};

/// How often the log says that trouble goes on.
const GOES_ON_EVERY: Duration = Duration::from_secs(60);

/// Trouble, while there is some.
#[derive(Default)]
pub(crate) struct Trouble(Option<Lasting>);

struct Lasting {
    since: Instant,
    logged_at: Instant,
    failures: u64,
}

/// When the log is to have a line about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is the first.
    First,
    /// The last line is a minute old.
    GoesOn,
    No,
}

impl Trouble {
    /// Counts a failure at `now`.
    pub(crate) fn failed(&mut self, now: Instant) -> Due {
        let Some(lasting) = &mut self.0 else {
            self.0 = Some(Lasting { since: now, logged_at: now, failures: 1 });
            return Due::First;
        };
        lasting.failures += 1;
        if now.duration_since(lasting.logged_at) < GOES_ON_EVERY {
            return Due::No;
        }
        lasting.logged_at = now;
        Due::GoesOn
    }

    /// Ends the trouble, if there is some, and says how long it was, such as `after 3 failures in 12 s`.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<String> {
        let Lasting { since, failures, .. } = self.0.take()?;
        Some(format!("after {failures} failures in {} s", now.duration_since(since).as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_one_a_minute_and_the_end_are_due() {
        let start = Instant::now();
        let at = |sec| start + Duration::from_secs(sec);
        let mut trouble = Trouble::default();
        assert_eq!(trouble.ended(start), None);
        let due: Vec<_> =
            (0..=130).map(|sec| (sec, trouble.failed(at(sec)))).filter(|(_, due)| *due != Due::No).collect();
        assert_eq!(due, [(0, Due::First), (60, Due::GoesOn), (120, Due::GoesOn)]);
        assert_eq!(trouble.ended(at(131)).as_deref(), Some("after 131 failures in 131 s"));
        assert_eq!((trouble.ended(at(132)), trouble.failed(at(133))), (None, Due::First));
    }
}
