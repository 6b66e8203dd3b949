//! What of a host is due: pure arithmetic over minutes, which are given by their numbers.

use super::INTERVAL_SEC;
use crate::store::{Minutes, Pulse};
use crate::summary::{CLOSED_AFTER_SEC, RECENT};

/// Most minutes of a host that are read at a time.
pub(super) const SLICE_MINUTES: u64 = 240;

/// The time of a look at the hosts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The receiver's clock, in seconds.
    pub(super) now: u64,
    /// When the archive was started: of what was heard before, nothing says when.
    pub(super) started_at: u64,
    /// How old a minute is when it is sent, in seconds.
    pub(super) after_sec: u64,
}

impl Look {
    /// No minute from this one on is old enough.
    pub(super) fn limit(&self) -> u64 {
        self.now.saturating_sub(self.after_sec) / INTERVAL_SEC
    }

    /// The end of what may be sent of a host: the first minute that is not old enough, or not over by the host's own clock.
    ///
    /// A host that is behind, because its clock is or because it sends a backlog, is not asked for minutes that it is still
    /// to fill. One that has said nothing for a while has no more to say. What comes later is late, and sent again.
    pub(super) fn end(&self, pulse: &Pulse) -> u64 {
        if pulse.last_epoch == 0 {
            return 0;
        }
        let is_silent = self.now.saturating_sub(pulse.heard_at.max(self.started_at)) >= self.after_sec;
        let closed = match is_silent {
            true => RECENT.number(pulse.last_epoch) + 1,
            false => pulse.last_epoch.saturating_sub(CLOSED_AFTER_SEC) / INTERVAL_SEC,
        };
        closed.min(self.limit())
    }
}

/// The minutes from `first` to before `end` that are kept, in slices.
pub(super) fn slices(first: u64, end: u64, oldest: u64) -> impl Iterator<Item = Minutes> {
    let first = first.max(oldest);
    (first..end.max(first)).step_by(SLICE_MINUTES as usize).map(move |at| (at, (at + SLICE_MINUTES).min(end) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Tags;
    use proptest::prelude::*;

    const NOW: u64 = 1_465_001_814;

    fn pulse(last_epoch: u64, heard_at: u64) -> Pulse {
        Pulse {
            host: "h".into(),
            last_epoch,
            heard_at,
            interval_sec: Some(1),
            skew_sec: None,
            late_samples: 0,
            tags: Tags::default(),
        }
    }

    #[test]
    fn a_minute_is_due_when_it_is_old_and_over_by_the_clock_of_its_host() {
        let look = Look { now: NOW, started_at: NOW - 3600, after_sec: 300 };
        let limit = (NOW - 300) / 60;
        assert_eq!((look.limit(), look.end(&pulse(NOW, NOW))), (limit, limit));
        // A host whose clock is ten minutes behind, and one that sends a backlog.
        assert_eq!(look.end(&pulse(NOW - 600, NOW)), (NOW - 605) / 60);
        let minute = NOW / 60 - 100;
        assert_eq!(look.end(&pulse(minute * 60, NOW)), minute - 1);
        assert_eq!(look.end(&pulse(minute * 60 + 4, NOW)), minute - 1);
        assert_eq!(look.end(&pulse(minute * 60 + 5, NOW)), minute);
        // A host that is silent has its last minute sent, and none after it.
        assert_eq!(look.end(&pulse(minute * 60 + 1, NOW - 300)), minute + 1);
        assert_eq!(look.end(&pulse(minute * 60, NOW - 300)), minute);
        assert_eq!(look.end(&pulse(minute * 60 + 1, NOW - 299)), minute - 1);
        // After a restart nobody knows since when it is.
        assert_eq!(look.end(&pulse(minute * 60 + 1, 0)), minute + 1);
        assert_eq!(Look { started_at: NOW - 10, ..look }.end(&pulse(minute * 60 + 1, 0)), minute - 1);
        assert_eq!(look.end(&pulse(0, NOW)), 0);
    }

    proptest! {
        #[test]
        fn slices_are_what_is_kept_once(first in 0..500_u64, length in 0..500_u64, oldest in 0..700_u64) {
            let end = first + length;
            let minutes: Vec<u64> = slices(first, end, oldest).flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(minutes, (first.max(oldest)..end).collect::<Vec<u64>>());
            prop_assert!(slices(first, end, oldest).all(|(first, last)| last - first < SLICE_MINUTES));
        }
    }
}
