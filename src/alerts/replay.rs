//! What rules would have done over what is kept, for `lizm alerts check`.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;

use super::evaluator::{Evaluator, HostSeries};
use super::rules::Rules;
use crate::sample::Tags;
use crate::store::Pulse;
use crate::summary::CLOSED_AFTER_SEC;

const MINUTE_SEC: u64 = 60;
const HOUR_SEC: u64 = 3600;

/// A host with what is kept of it.
pub struct KeptHost {
    /// Its name.
    pub host: SmolStr,
    /// Its tags.
    pub tags: Tags,
    /// Its newest epoch.
    pub last_epoch: u64,
    /// Seconds between its samples, if known.
    pub interval_sec: Option<u64>,
    /// Its minutes and hours.
    pub series: HostSeries,
}

/// What one rule would have done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// How often an alert of it has begun to fire.
    pub fired: u64,
    /// Of each alert that fires or is pending at the end: its state, host and series.
    pub now: Vec<(&'static str, SmolStr, SmolStr)>,
}

/// Evaluates `rules` over what is kept of `hosts` (sorted by name) until `now`: at each minute that is kept, and before
/// that at each hour. For each rule, by its line as it was written, what it would have done.
#[must_use]
pub fn replay(rules: &Arc<Rules>, hosts: &[KeptHost], now: u64) -> BTreeMap<String, Replayed> {
    let mut replayed: BTreeMap<String, Replayed> =
        rules.rules.iter().map(|rule| (rule.source.clone(), Replayed::default())).collect();
    let start = |window: usize, sec| {
        let first = |host: &KeptHost| host.series.iter().filter_map(|(_, tails)| tails[window].held().next()).min();
        hosts.iter().filter_map(first).map(|(number, _)| number * sec).min()
    };
    let minutes_from = start(0, MINUTE_SEC).unwrap_or(now);
    let hours_from = start(1, HOUR_SEC).unwrap_or(now).min(minutes_from);
    let ends: Vec<Vec<u64>> = hosts.iter().map(ends).collect();
    let mut evaluator = Evaluator::new(rules.clone(), Vec::new(), hours_from);
    let hours = (hours_from..minutes_from).step_by(HOUR_SEC as usize);
    let minutes = (minutes_from..now).step_by(MINUTE_SEC as usize);
    for at in hours.chain(minutes).map(|at| at + CLOSED_AFTER_SEC + 1).filter(|at| *at < now).chain([now]) {
        let pulse = |(host, ends): (&KeptHost, &Vec<u64>)| {
            // What was kept until then. An interval says that there were samples until its end.
            let newest = ends.partition_point(|end| *end <= at.saturating_sub(CLOSED_AFTER_SEC + 1));
            let last_epoch = newest.checked_sub(1).and_then(|place| ends.get(place)).copied()?;
            let last_epoch = if at - last_epoch <= MINUTE_SEC { at } else { last_epoch }.min(host.last_epoch);
            Some(Pulse {
                host: host.host.clone(),
                last_epoch,
                heard_at: last_epoch,
                interval_sec: host.interval_sec,
                skew_sec: None,
                late_samples: 0,
                tags: host.tags.clone(),
            })
        };
        let pulses: Vec<Pulse> = hosts.iter().zip(&ends).filter_map(pulse).collect();
        let of = |name: &str| {
            let place = hosts.binary_search_by(|host| host.host.as_str().cmp(name)).ok();
            place.and_then(|place| hosts.get(place))
        };
        let kept = |pulse: &Pulse, _| of(&pulse.host).map(|host| host.series.clone());
        let outcome = evaluator.evaluate(at, &pulses, kept);
        for event in outcome.transitions.into_iter().map(|transition| transition.event).filter(|e| e.is_firing()) {
            replayed.entry(event.rule).or_default().fired += 1;
        }
    }
    for alert in evaluator.alerts().filter(|alert| alert.is_shown()) {
        let now = &mut replayed.entry(alert.rule.clone()).or_default().now;
        now.push((alert.shown().state, alert.key.host.clone(), alert.key.series.clone()));
    }
    replayed
}

/// The ends of the intervals in which a host has reported something, in ascending order.
fn ends(host: &KeptHost) -> Vec<u64> {
    let of = |window: usize, sec: u64| {
        let held = host.series.iter().flat_map(move |(_, tails)| tails[window].held());
        held.map(move |(number, _)| (number + 1) * sec)
    };
    let mut ends: Vec<u64> = of(0, MINUTE_SEC).chain(of(1, HOUR_SEC)).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Retention, parse};
    use super::*;
    use crate::summary::{Bucket, Tail};

    #[test]
    fn rules_are_tried_on_what_is_kept() {
        let text = "a: x > 90\nb: x > 90 for 5m; severity critical\nlong: x > 90 for 3h\ngone: host down\nno: no y for 5m on h";
        let rules = Arc::new(parse(&[("f", text)], Retention::default(), |_| None).unwrap());
        let start = 1_795_964_400;
        // Of an hour every tenth minute is bad, and the last three; the hours before were bad.
        let (mut minutes, mut hours) = (Tail::default(), Tail::default());
        for minute in 0..60 {
            let is_bad = minute % 10 == 5 || minute >= 57;
            let bucket = Bucket::of(if is_bad { 95.0 } else { 10.0 });
            minutes.push(start / 60 + minute, bucket, 70);
        }
        (1..=6).rev().for_each(|hour| hours.push(start / 3600 - hour, Bucket::of(99.0), 30));
        hours.push(start / 3600, Bucket::of(20.0), 30);
        let host = |host: &str, last_epoch| KeptHost {
            host: host.into(),
            tags: Tags::default(),
            last_epoch,
            interval_sec: Some(10),
            series: vec![("x".into(), [minutes.clone(), hours.clone()])],
        };
        let now = start + 3606;
        let replayed = replay(&rules, &[host("h", now)], now);
        let of = |line: usize| &replayed[&rules.rules[line].source];
        // It fires again while it is resolved later and later.
        assert!((2..=7).contains(&of(0).fired), "{replayed:?}");
        assert_eq!(of(0).now, [("firing", "h".into(), "x".into())]);
        assert_eq!(*of(1), Replayed { fired: 0, now: vec![("pending", "h".into(), "x".into())] });
        assert_eq!((of(2).fired, of(2).now.len()), (1, 0), "{replayed:?}");
        assert_eq!((of(3).fired, of(4).fired, of(4).now.len()), (0, 1, 1), "{replayed:?}");
        let replayed = replay(&rules, &[host("h", start + 3606)], start + 7200);
        assert_eq!(replayed["gone: host down"].now, [("firing", "h".into(), "".into())], "{replayed:?}");
    }
}
