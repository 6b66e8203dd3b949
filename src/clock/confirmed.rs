//! The rule of the receiver's clock, as pure arithmetic on readings of other clocks.

use std::collections::HashMap;

use crate::sample::AHEAD_SEC_MAX;

/// Largest difference between the wall clock and the confirmed clock that needs no confirmation: as far as the clock of a
/// host may be ahead. It costs five minutes of a window at most.
const TOLERANCE_MS: i64 = AHEAD_SEC_MAX as i64 * 1000;
/// How near to a clock the samples of a host are that agrees with it.
const AGREE_MS: i64 = 60_000;
/// How far behind a wall clock that is ahead samples may be that agree with it: a monitor first sends what it has queued.
const QUEUED_MS: i64 = 3_600_000;
/// Hosts that confirm the wall clock, if they are the majority.
const HOSTS_TO_CONFIRM: usize = 3;
/// How long they have to agree. A host that sends what it has queued may pass by either clock.
const HOSTS_AGREE_FOR_MS: i64 = 5_000;
/// How long a host counts after its last sample.
const HEARD_WITHIN_MS: i64 = 300_000;
/// Most hosts that are noted.
const HOSTS_MAX: usize = 1000;
/// Time after which a wall clock without a step is confirmed if all hosts heard agree with it.
const STEADY_MS: i64 = 600_000;
/// The same for a wall clock that is behind the last run's: time does not run backwards, so it is likely wrong. By then
/// the windows have passed.
const STEADY_BEHIND_MARK_MS: i64 = 25 * 3_600_000;
/// Largest age of the last NTP synchronisation. timesyncd polls at least every 2048 seconds.
const NTP_WITHIN_MS: i64 = 2_100_000;

/// One reading of all clocks, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// The wall clock, since the Unix epoch.
    pub(super) wall_ms: i64,
    /// Time since boot, with that of suspends.
    pub(super) boot_ms: i64,
    /// The wall clock when NTP last synchronised it, if known.
    pub(super) ntp_ms: Option<i64>,
}

impl Reading {
    /// The wall clock less the time since boot, which changes only where the wall clock is set.
    fn wall_offset_ms(&self) -> i64 {
        self.wall_ms.saturating_sub(self.boot_ms)
    }
}

/// What an update has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The wall clock differs from the confirmed clock by this much, and nothing confirms it yet.
    Disputed {
        /// Seconds that the wall clock is ahead; below 0 behind.
        ahead_sec: i64,
    },
    /// The wall clock differs no more.
    Agreed,
    /// The confirmed clock was set to the wall clock.
    Confirmed(Confirmation),
}

/// What has confirmed a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// The store has no data that a wrong clock could expire.
    EmptyStore,
    /// NTP has synchronised it since it differs.
    Ntp,
    /// So many hosts agree with it.
    Hosts(usize),
    /// It has run without a step for long, and all hosts heard agree with it.
    Steady,
}

/// A clock that advances with the time since boot, and follows the wall clock as far as that is confirmed.
#[derive(Debug)]
pub(super) struct ConfirmedClock {
    /// The confirmed clock less the time since boot.
    offset_ms: i64,
    /// The last NTP synchronisation seen while the clocks agreed.
    ntp_seen_ms: Option<i64>,
    dispute: Option<Dispute>,
    /// Whether the clock has differed since the start.
    since_start: bool,
}

/// A wall clock that differs and that nothing has confirmed.
#[derive(Debug)]
struct Dispute {
    /// The wall clock less the time since boot, when it last stepped.
    wall_offset_ms: i64,
    /// Time since boot at that step.
    stepped_ms: i64,
    /// Time since boot from which on enough hosts have agreed with it.
    agreed_from_ms: Option<i64>,
    hosts: HashMap<Box<str>, Heard>,
}

/// The last sample of a host.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// Its epoch less the time since boot.
    offset_ms: i64,
    boot_ms: i64,
}

/// Which of the two clocks a sample fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Wall,
    Confirmed,
    /// It is ahead of both.
    Neither,
    /// It may have waited in a queue, and says nothing.
    Late,
}

impl ConfirmedClock {
    /// A clock that begins at `time_ms`, or at the wall clock.
    pub(super) fn new(time_ms: Option<i64>, reading: &Reading) -> Self {
        let offset_ms = time_ms.unwrap_or(reading.wall_ms).saturating_sub(reading.boot_ms);
        Self { offset_ms, ntp_seen_ms: None, dispute: None, since_start: true }
    }

    /// The confirmed clock less the time since boot.
    pub(super) fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// Whether the wall clock differs and nothing has confirmed it.
    pub(super) fn is_disputed(&self) -> bool {
        self.dispute.is_some()
    }

    /// Seconds that the wall clock of a reading is ahead; below 0 behind.
    pub(super) fn wall_ahead_sec(&self, reading: &Reading) -> i64 {
        reading.wall_offset_ms().saturating_sub(self.offset_ms).saturating_add(500).div_euclid(1000)
    }

    /// Notes a sample of a host.
    pub(super) fn hear(&mut self, host: &str, epoch: u64, boot_ms: i64) {
        let Some(dispute) = &mut self.dispute else { return };
        let epoch_ms = i64::try_from(epoch).unwrap_or(i64::MAX).saturating_mul(1000);
        let heard = Heard { offset_ms: epoch_ms.saturating_sub(boot_ms), boot_ms };
        if let Some(known) = dispute.hosts.get_mut(host) {
            *known = heard;
        } else if dispute.hosts.len() < HOSTS_MAX {
            dispute.hosts.insert(host.into(), heard);
        }
    }

    /// Sets the clock to a reference that is right by definition, or to the wall clock if that differs little from it.
    pub(super) fn follow(&mut self, reference_offset_ms: i64, reading: &Reading) {
        let wall_offset_ms = reading.wall_offset_ms();
        let is_near = wall_offset_ms.saturating_sub(reference_offset_ms).saturating_abs() <= TOLERANCE_MS;
        self.offset_ms = if is_near { wall_offset_ms } else { reference_offset_ms };
    }

    /// Follows the wall clock, if that is confirmed. `has_data` says whether a wrong clock can expire anything.
    pub(super) fn update(&mut self, reading: &Reading, has_data: bool) -> Option<Change> {
        let wall_offset_ms = reading.wall_offset_ms();
        let was_disputed = self.is_disputed();
        let is_near = wall_offset_ms.saturating_sub(self.offset_ms).saturating_abs() <= TOLERANCE_MS;
        let change = if is_near {
            was_disputed.then_some(Change::Agreed)
        } else if let Some(confirmation) = self.confirmation(reading, has_data) {
            // Of an empty store there is nothing to say, unless the log has a line of a dispute.
            (was_disputed || confirmation != Confirmation::EmptyStore).then_some(Change::Confirmed(confirmation))
        } else {
            return (!was_disputed).then(|| Change::Disputed { ahead_sec: self.wall_ahead_sec(reading) });
        };
        (self.offset_ms, self.ntp_seen_ms, self.dispute) = (wall_offset_ms, reading.ntp_ms, None);
        self.since_start = false;
        change
    }

    /// What confirms a wall clock that differs.
    fn confirmation(&mut self, reading: &Reading, has_data: bool) -> Option<Confirmation> {
        if !has_data {
            return Some(Confirmation::EmptyStore);
        }
        let (wall_offset_ms, boot_ms) = (reading.wall_offset_ms(), reading.boot_ms);
        let ntp_ms = reading.ntp_ms.filter(|_| reading.ntp_ms != self.ntp_seen_ms);
        if ntp_ms.is_some_and(|ntp_ms| (0..=NTP_WITHIN_MS).contains(&reading.wall_ms.saturating_sub(ntp_ms))) {
            return Some(Confirmation::Ntp);
        }
        let dispute = self.dispute.get_or_insert_with(|| Dispute {
            wall_offset_ms,
            stepped_ms: boot_ms,
            agreed_from_ms: None,
            hosts: HashMap::new(),
        });
        if wall_offset_ms.saturating_sub(dispute.wall_offset_ms).saturating_abs() > TOLERANCE_MS {
            (dispute.wall_offset_ms, dispute.stepped_ms) = (wall_offset_ms, boot_ms);
        }
        dispute.hosts.retain(|_, heard| boot_ms.saturating_sub(heard.boot_ms) <= HEARD_WITHIN_MS);
        let fits = dispute.hosts.values().map(|heard| fit(heard.offset_ms, wall_offset_ms, self.offset_ms));
        let (mut agree, mut contradict) = (0, 0);
        fits.for_each(|fit| match fit {
            Fit::Wall => agree += 1,
            Fit::Confirmed | Fit::Neither => contradict += 1,
            Fit::Late => {}
        });
        if agree >= HOSTS_TO_CONFIRM && agree > contradict {
            let agreed_from_ms = *dispute.agreed_from_ms.get_or_insert(boot_ms);
            if boot_ms.saturating_sub(agreed_from_ms) >= HOSTS_AGREE_FOR_MS {
                return Some(Confirmation::Hosts(agree));
            }
        } else {
            dispute.agreed_from_ms = None;
        }
        let is_behind_mark = self.since_start && wall_offset_ms < self.offset_ms;
        let steady_ms = if is_behind_mark { STEADY_BEHIND_MARK_MS } else { STEADY_MS };
        let is_steady = boot_ms.saturating_sub(dispute.stepped_ms) >= steady_ms;
        (is_steady && contradict == 0 && !dispute.hosts.is_empty()).then_some(Confirmation::Steady)
    }
}

/// Which clock a sample fits; all three are offsets to the time since boot.
///
/// A sample comes when its second has ended or later, never earlier. So a sample contradicts a clock that it is ahead of,
/// and one that is behind a clock may have waited in a queue.
fn fit(sample_ms: i64, wall_ms: i64, confirmed_ms: i64) -> Fit {
    let is_ahead_of = |clock_ms: i64| sample_ms > clock_ms.saturating_add(AGREE_MS);
    let wall_is_ahead = wall_ms > confirmed_ms;
    let late_ms = if wall_is_ahead { QUEUED_MS } else { AGREE_MS };
    match (is_ahead_of(wall_ms), is_ahead_of(confirmed_ms)) {
        (true, true) => Fit::Neither,
        (true, false) => Fit::Confirmed,
        (false, false) if wall_is_ahead => Fit::Confirmed,
        (false, _) if sample_ms >= wall_ms.saturating_sub(late_ms) => Fit::Wall,
        (false, _) => Fit::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: i64 = 86_400_000;
    const NOW_MS: i64 = 1_465_001_814_000;
    /// Time since boot at `NOW_MS`.
    const BOOT_MS: i64 = 5_000_000;

    /// A clock, the time that passes, and how far the wall clock is from the true time.
    struct World {
        clock: ConfirmedClock,
        passed_ms: i64,
        wall_error_ms: i64,
        ntp_ms: Option<i64>,
        changes: Vec<Change>,
    }

    impl World {
        /// A receiver that starts with a mark that is right.
        fn start(wall_error_ms: i64) -> Self {
            Self::start_after(0, wall_error_ms)
        }

        /// A receiver that starts with a mark of another boot, which is so old.
        fn start_after(outage_ms: i64, wall_error_ms: i64) -> Self {
            let mark_ms = Some(NOW_MS - outage_ms);
            let clock = ConfirmedClock::new(mark_ms, &Reading { wall_ms: NOW_MS, boot_ms: BOOT_MS, ntp_ms: None });
            Self { clock, passed_ms: 0, wall_error_ms, ntp_ms: None, changes: Vec::new() }
        }

        fn true_ms(&self) -> i64 {
            NOW_MS + self.passed_ms
        }

        fn reading(&self) -> Reading {
            let wall_ms = self.true_ms() + self.wall_error_ms;
            Reading { wall_ms, boot_ms: BOOT_MS + self.passed_ms, ntp_ms: self.ntp_ms }
        }

        /// Updates the clock each second, while hosts send samples that are so far from the true time.
        fn run(&mut self, sec: i64, hosts_ms: &[i64]) {
            for _ in 0..sec {
                self.passed_ms += 1000;
                let reading = self.reading();
                for (host, error_ms) in hosts_ms.iter().enumerate() {
                    let epoch = (self.true_ms() + error_ms).max(0).unsigned_abs() / 1000;
                    self.clock.hear(&format!("h{host}"), epoch, reading.boot_ms);
                }
                self.changes.extend(self.clock.update(&reading, true));
            }
        }

        /// How far the clock is from the true time.
        fn error_ms(&self) -> i64 {
            BOOT_MS + self.passed_ms + self.clock.offset_ms() - self.true_ms()
        }

        fn steps_to(&mut self, wall_error_ms: i64, for_sec: i64, hosts_ms: &[i64]) {
            self.wall_error_ms = wall_error_ms;
            self.run(for_sec, hosts_ms);
        }
    }

    #[test]
    fn a_step_for_a_while_moves_nothing() {
        for step_ms in [-DAY_MS, -3_600_000, 301_000, 3_600_000, 2 * DAY_MS] {
            // The monitor on the same machine has the same clock; the other hosts are right.
            for hosts in [&[step_ms][..], &[], &[step_ms, 0], &[step_ms, step_ms, step_ms, 0, 0, 0], &[0, 0, 0]] {
                let mut world = World::start(0);
                world.run(60, &[0]);
                world.steps_to(step_ms, 590, hosts);
                assert_eq!(world.error_ms(), 0, "{step_ms} {hosts:?}");
                assert_eq!(world.changes, [Change::Disputed { ahead_sec: step_ms / 1000 }]);
                world.steps_to(0, 2, hosts);
                assert_eq!((world.error_ms(), world.changes.last()), (0, Some(&Change::Agreed)));
            }
        }
    }

    #[test]
    fn small_corrections_are_followed() {
        let mut world = World::start(0);
        for error_ms in [299_000, 0, -250_000, -1, 500] {
            world.steps_to(error_ms, 1, &[]);
            assert_eq!(world.error_ms(), error_ms);
        }
        assert_eq!(world.changes, []);
    }

    #[test]
    fn a_start_with_a_wrong_clock_goes_on_from_the_mark() {
        // Two days ahead before NTP; 1970 on a board without a clock of its own.
        for wall_error_ms in [2 * DAY_MS, -NOW_MS] {
            let mut world = World::start(wall_error_ms);
            world.run(590, &[wall_error_ms]);
            assert_eq!(world.error_ms(), 0);
            world.ntp_ms = Some(world.true_ms());
            world.steps_to(0, 2, &[0]);
            assert_eq!((world.error_ms(), world.changes.last()), (0, Some(&Change::Agreed)));
        }
    }

    #[test]
    fn after_an_outage_ntp_confirms_the_wall_clock_at_once() {
        let mut world = World::start_after(7 * DAY_MS, 0);
        world.run(1, &[]);
        assert_eq!(world.error_ms(), -7 * DAY_MS);
        world.ntp_ms = Some(world.true_ms() - 60_000);
        world.run(1, &[]);
        assert_eq!((world.error_ms(), world.changes.last()), (0, Some(&Change::Confirmed(Confirmation::Ntp))));
        // A step that comes after that synchronisation is not confirmed by it.
        world.steps_to(1_800_000, 60, &[1_800_000]);
        assert_eq!(world.error_ms(), 0);
        world.ntp_ms = Some(world.reading().wall_ms);
        world.run(1, &[]);
        assert_eq!(world.error_ms(), 1_800_000);
        // Nor is one by a synchronisation of long ago, or of the future.
        for ntp_ms in [-NTP_WITHIN_MS - 120_000, 60_000] {
            let mut world = World::start_after(7 * DAY_MS, 0);
            world.ntp_ms = Some(NOW_MS + ntp_ms);
            world.run(30, &[]);
            assert_eq!(world.error_ms(), -7 * DAY_MS);
        }
    }

    #[test]
    fn after_an_outage_three_hosts_confirm_the_wall_clock() {
        // They may send first what they have queued.
        for hosts in [&[0, 0, 0][..], &[-3_000_000, -60_000, -1000], &[0, 0, 0, -7 * DAY_MS, -7 * DAY_MS], &[0; 9]] {
            let mut world = World::start_after(7 * DAY_MS, 0);
            world.run(10, hosts);
            let Some(Change::Confirmed(Confirmation::Hosts(agree))) = world.changes.last() else {
                panic!("{:?}", world.changes)
            };
            assert!(*agree >= 3 && world.error_ms() == 0, "{hosts:?}");
        }
        for hosts in [&[0, 0][..], &[0, 0, 0, -7 * DAY_MS, -7 * DAY_MS, -7 * DAY_MS], &[900_000, 900_000, 900_000]] {
            let mut world = World::start_after(7 * DAY_MS, 0);
            world.run(590, hosts);
            assert_eq!(world.error_ms(), -7 * DAY_MS, "{hosts:?}");
        }
    }

    #[test]
    fn ten_steady_minutes_confirm_a_wall_clock_that_no_host_contradicts() {
        for hosts in [&[0][..], &[0, -1000], &[-3 * DAY_MS]] {
            let mut world = World::start_after(7 * DAY_MS, 0);
            world.run(602, hosts);
            assert_eq!((world.error_ms(), world.changes.last()), (0, Some(&Change::Confirmed(Confirmation::Steady))));
        }
        // A step begins the wait again; without a host, or against one, it has no end.
        let mut world = World::start_after(7 * DAY_MS, DAY_MS);
        world.run(400, &[DAY_MS]);
        world.steps_to(0, 590, &[0]);
        assert_eq!(world.error_ms(), -7 * DAY_MS);
        world.run(20, &[0]);
        assert_eq!(world.error_ms(), 0);
        for hosts in [&[][..], &[0, -7 * DAY_MS]] {
            let mut world = World::start_after(7 * DAY_MS, 0);
            world.run(4000, hosts);
            assert_eq!(world.error_ms(), -7 * DAY_MS);
        }
    }

    #[test]
    fn a_wall_clock_behind_the_mark_waits_until_the_windows_have_passed() {
        let mut world = World::start(-NOW_MS / 2);
        world.run(3600, &[-NOW_MS / 2]);
        assert_eq!(world.error_ms(), 0);
        world.run(25 * 3600, &[-NOW_MS / 2]);
        assert_eq!(world.error_ms(), -NOW_MS / 2);
        // A step back in a process that has run is not at the start.
        let mut world = World::start(DAY_MS * 3);
        world.clock.update(&world.reading(), false);
        assert_eq!(world.error_ms(), 3 * DAY_MS);
        world.steps_to(0, 602, &[0]);
        assert_eq!(world.error_ms(), 0);
    }

    #[test]
    fn queues_that_pass_by_a_wall_clock_that_is_behind_do_not_confirm_it() {
        let mut world = World::start(0);
        world.run(1, &[0]);
        world.wall_error_ms = -1_800_000;
        for second in 0..20 {
            let late_ms = -3_600_000 + second * 250_000;
            world.run(1, &[late_ms.min(0); 5]);
        }
        assert_eq!(world.error_ms(), 0);
    }

    #[test]
    fn an_empty_store_follows_the_wall_clock() {
        let mut world = World::start(-NOW_MS);
        assert_eq!(world.clock.update(&world.reading(), false), None);
        assert_eq!(world.error_ms(), -NOW_MS);
        let mut world = World::start(-NOW_MS);
        world.run(1, &[]);
        let confirmed = Change::Confirmed(Confirmation::EmptyStore);
        assert_eq!(world.clock.update(&world.reading(), false), Some(confirmed));
    }

    #[test]
    fn a_reference_is_followed_where_the_wall_clock_differs() {
        for (wall_error_ms, error_ms) in [(300_000, 300_000), (301_000, 0), (-300_000, -300_000), (-DAY_MS, 0)] {
            let mut world = World::start(wall_error_ms);
            world.clock.follow(NOW_MS - BOOT_MS, &world.reading());
            assert_eq!(world.error_ms(), error_ms);
        }
    }

    #[test]
    fn what_is_noted_of_hosts_is_bounded() {
        let mut world = World::start(DAY_MS);
        world.run(1, &[]);
        for host in 0..2 * HOSTS_MAX {
            world.clock.hear(&host.to_string(), u64::MAX, BOOT_MS);
        }
        assert_eq!(world.clock.dispute.as_ref().unwrap().hosts.len(), HOSTS_MAX);
        world.run(400, &[]);
        assert!(world.clock.dispute.as_ref().unwrap().hosts.is_empty(), "old samples count for nothing");
    }

    proptest! {
        #[test]
        fn the_clock_is_right_while_most_hosts_are(
            steps in proptest::collection::vec(
                (prop_oneof![Just(0), 301_000..3 * DAY_MS, -3 * DAY_MS..-301_000], 1..300_i64), 1..12
            ),
            right in 2..5_usize,
        ) {
            let mut world = World::start(0);
            for (wall_error_ms, sec) in steps {
                // A monitor on the same machine, and hosts that are right.
                let mut hosts = vec![0; right];
                hosts.push(wall_error_ms);
                world.steps_to(wall_error_ms, sec, &hosts);
                prop_assert_eq!(world.error_ms(), 0);
            }
        }

        #[test]
        fn the_clock_never_runs_but_with_boot_time_or_to_the_wall_clock(
            readings in proptest::collection::vec((any::<i64>(), 0..1_000_000_000_000_i64, any::<Option<i64>>(), any::<bool>()), 1..50),
        ) {
            let mut clock = ConfirmedClock::new(None, &Reading::default());
            for (wall_ms, boot_ms, ntp_ms, has_data) in readings {
                let (before, reading) = (clock.offset_ms(), Reading { wall_ms, boot_ms, ntp_ms });
                clock.update(&reading, has_data);
                clock.hear("h", boot_ms.unsigned_abs(), boot_ms);
                prop_assert!([before, reading.wall_offset_ms()].contains(&clock.offset_ms()));
            }
        }
    }
}
