use std::collections::HashMap;

use proptest::prelude::*;

use super::super::Item;
use super::*;

const PEOPLE: Semantics = Semantics { batch_max: 1000, knows_key: false, forgets: false };
const WEBHOOK: Semantics = Semantics { knows_key: true, ..PEOPLE };
const PAGER: Semantics = Semantics { batch_max: 1, ..PEOPLE };
const ALERTMANAGER: Semantics = Semantics { forgets: true, ..PEOPLE };
const START: u64 = 1_800_000_000_000;
const MIN: u64 = 60_000;
const HOUR: u64 = 60 * MIN;

fn outbox(targets: &[(&str, Semantics)]) -> Outbox {
    let targets = targets.iter().map(|(name, semantics)| (SmolStr::from(*name), *semantics));
    Outbox::restore(targets, [], 7, START)
}

fn firing(host: &str, number: u64) -> Event {
    Event {
        key: AlertKey { name: "disk".into(), host: host.into(), series: "disk:/".into() },
        severity: Severity::Warning,
        resolution: None,
        value: Some(96.5),
        test: None,
        rule: "disk: disk > 90".to_owned(),
        text: None,
        fired_at: START / 1000,
        resolved_at: None,
        number,
    }
}

fn resolved(host: &str, number: u64) -> Event {
    Event { resolution: Some(Resolution::Good), resolved_at: Some(START / 1000 + 60), ..firing(host, number) }
}

fn later(may_have: bool) -> Outcome {
    Outcome::Later { why: "HTTP 500".to_owned(), reason: Reason::Busy, retry_after_ms: None, may_have }
}

fn asked(retry_after_ms: u64) -> Outcome {
    let retry_after_ms = Some(retry_after_ms);
    Outcome::Later { why: "HTTP 429".to_owned(), reason: Reason::Busy, retry_after_ms, may_have: false }
}

/// Goes on to the next message of a target, within a day and an hour.
fn await_batch(outbox: &mut Outbox, target: &str, now: &mut u64) -> Option<Batch> {
    let end = *now + 25 * HOUR;
    while *now < end {
        match outbox.next(target, *now) {
            Next::Send(batch) => return Some(batch),
            Next::Idle => return None,
            Next::Wait(until) => {
                assert!(until > *now);
                *now = until;
            }
        }
    }
    panic!("it waits for ever");
}

/// What a message says: hosts with `+` firing, `-` resolved, `~` over and told late, `*` repeats.
fn said(batch: &Batch) -> String {
    let sign = |item: &Item| match item {
        Item { is_past: true, .. } => '~',
        Item { repeat: 1.., .. } => '*',
        item if item.event.is_firing() => '+',
        _ => '-',
    };
    batch.items.iter().map(|item| format!("{}{}", sign(item), item.event.key.host)).collect::<Vec<_>>().join(" ")
}

/// Takes the next message and its outcome.
fn tell(outbox: &mut Outbox, target: &str, now: &mut u64, outcome: &Outcome) -> String {
    let Some(batch) = await_batch(outbox, target, now) else { return String::new() };
    outbox.done(&batch, outcome, *now);
    said(&batch)
}

fn notifications(outbox: &mut Outbox) -> Vec<Notification> {
    outbox.queues.values().flat_map(|queue| queue.notifications.values().cloned()).collect()
}

#[test]
fn what_begins_within_ten_seconds_goes_together() {
    let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE), ("other", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["ops"], now);
    assert_eq!(outbox.next("ops", now), Next::Wait(START + 10_000));
    outbox.enqueue(&firing("b", 2), ["ops", "unknown"], now + 9999);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "+a +b");
    assert_eq!(now, START + 10_000);
    assert_eq!((outbox.next("ops", now), outbox.next("other", now)), (Next::Idle, Next::Idle));
    // What is enqueued while a message is under way goes with the next, a second later at least.
    outbox.enqueue(&resolved("a", 3), [], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "-a");
    let of_b = outbox.deliveries(&firing("b", 2).key);
    assert_eq!((of_b.len(), of_b[0].delivered_at, of_b[0].tries), (1, Some(START / 1000 + 10), 0));
    assert_eq!(outbox.deliveries(&firing("a", 1).key), [], "what is over is forgotten");
}

#[test]
fn there_is_at_most_a_message_a_second() {
    let (mut outbox, mut now) = (outbox(&[("pager", PAGER)]), START);
    for number in 1..=20 {
        outbox.enqueue(&Event { severity: Severity::Info, ..firing(&format!("h{number:02}"), number) }, ["pager"], now);
    }
    outbox.enqueue(&Event { severity: Severity::Critical, ..firing("z", 21) }, ["pager"], now);
    assert_eq!(tell(&mut outbox, "pager", &mut now, &Outcome::Delivered), "+z", "the worst goes first");
    for number in 1..=20 {
        let before = now;
        assert_eq!(tell(&mut outbox, "pager", &mut now, &Outcome::Delivered), format!("+h{number:02}"));
        assert_eq!(now - before, 1000);
    }
}

#[test]
fn newer_replaces_older_and_what_is_over_is_told_as_one() {
    let ok = Outcome::Delivered;
    // Each: what is enqueued with its outcome of each attempt, and what is then told.
    let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["ops"], now);
    outbox.enqueue(&resolved("a", 2), [], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "~a", "neither was sent");
    assert_eq!(notifications(&mut outbox), []);
    // A rise replaces the first level, and what was told before is resolved in full.
    outbox.enqueue(&firing("a", 3), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+a");
    outbox.enqueue(&firing("a", 4), ["ops"], now);
    outbox.enqueue(&resolved("a", 5), [], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "-a");
    // Resolved and firing again before it is told: the target knows that it fires.
    outbox.enqueue(&firing("a", 6), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+a");
    outbox.enqueue(&resolved("a", 7), [], now);
    outbox.enqueue(&firing("a", 8), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+a");
    outbox.enqueue(&resolved("a", 9), [], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "-a");
    // What comes while the message is under way.
    outbox.enqueue(&firing("a", 10), ["ops"], now);
    let batch = await_batch(&mut outbox, "ops", &mut now).unwrap();
    outbox.enqueue(&resolved("a", 11), [], now);
    assert_eq!(outbox.next("ops", now), Next::Idle, "one at a time");
    outbox.done(&batch, &ok, now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "-a");
    // What failed for certain becomes one; what may have been told is resolved.
    for (may_have, expected) in [(false, "~a"), (true, "-a")] {
        let number = now;
        outbox.enqueue(&firing("a", number), ["ops"], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &later(may_have)), "+a");
        outbox.enqueue(&resolved("a", number + 1), [], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), expected);
    }
    // What nobody was told is not resolved, and an event is taken once.
    outbox.enqueue(&resolved("b", 1), [], now);
    assert_eq!(outbox.next("ops", now), Next::Idle);
    outbox.enqueue(&firing("c", 5), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &ok), "+c");
    outbox.enqueue(&firing("c", 5), ["ops"], now);
    outbox.enqueue(&firing("c", 4), ["ops"], now);
    assert_eq!(outbox.next("ops", now), Next::Idle);
}

#[test]
fn a_webhook_gets_a_message_of_unknown_outcome_again_as_it_was() {
    let (mut outbox, mut now) = (outbox(&[("hook", WEBHOOK)]), START);
    outbox.enqueue(&firing("a", 1), ["hook"], now);
    outbox.enqueue(&firing("b", 2), ["hook"], now);
    let first = await_batch(&mut outbox, "hook", &mut now).unwrap();
    outbox.done(&first, &later(true), now);
    outbox.enqueue(&resolved("a", 3), [], now);
    outbox.enqueue(&firing("c", 4), ["hook"], now);
    // Over a restart too.
    let kept = notifications(&mut outbox);
    outbox = Outbox::restore([("hook".into(), WEBHOOK)], kept, 1, now);
    let second = await_batch(&mut outbox, "hook", &mut now).unwrap();
    assert_eq!((&second.items, &second.key), (&first.items, &first.key));
    outbox.done(&second, &Outcome::Delivered, now);
    let third = await_batch(&mut outbox, "hook", &mut now).unwrap();
    assert_eq!(said(&third), "-a +c");
    assert_ne!(third.key, first.key);
    // An answer that says no is one: what is sent then has the newest state, and another key.
    outbox.done(&third, &later(false), now);
    outbox.enqueue(&firing("a", 5), ["hook"], now);
    let fourth = await_batch(&mut outbox, "hook", &mut now).unwrap();
    assert_eq!(said(&fourth), "+c +a", "a first try goes before a second");
}

#[test]
fn a_restart_tells_what_may_not_have_been_told() {
    for (semantics, expected) in [(PEOPLE, "+a"), (WEBHOOK, "+a"), (PAGER, "+a"), (ALERTMANAGER, "+a")] {
        let (mut outbox, mut now) = (outbox(&[("ops", semantics)]), START);
        outbox.enqueue(&firing("a", 1), ["ops"], now);
        let batch = await_batch(&mut outbox, "ops", &mut now).unwrap();
        let kept = notifications(&mut outbox);
        // The process ends here: the message is sent again, and then no more.
        outbox = Outbox::restore([("ops".into(), semantics)], kept, 1, now);
        let again = await_batch(&mut outbox, "ops", &mut now).unwrap();
        assert_eq!((said(&again), again.key == batch.key), (expected.to_owned(), true));
        outbox.done(&again, &Outcome::Delivered, now);
        let kept = notifications(&mut outbox);
        outbox = Outbox::restore([("ops".into(), semantics)], kept.clone(), 1, now);
        if !semantics.forgets {
            assert_eq!(outbox.next("ops", now + HOUR), Next::Idle);
        }
        // It is resolved to those who may know.
        outbox.enqueue(&resolved("a", 2), [], now);
        assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "-a");
        // A target that is gone takes its notifications with it.
        outbox = Outbox::restore([], kept, 1, now);
        let changes = outbox.changes().unwrap();
        assert!(
            changes.notifications.iter().all(|(target, _, notification)| target == "ops" && notification.is_none())
        );
    }
}

#[test]
fn waits_double_and_have_an_end() {
    let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+a");
    let mut waits = Vec::new();
    for _ in 0..14 {
        let before = now;
        assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+a");
        waits.push(now - before);
    }
    for (tries, wait) in waits.iter().enumerate() {
        let whole = (1000 << tries).min(300_000);
        assert!((whole / 2).max(1000) <= *wait && *wait <= whole, "{tries}: {wait}");
    }
    let delivery = &outbox.deliveries(&firing("a", 1).key)[0];
    assert_eq!((delivery.tries, delivery.last_error.as_deref()), (15, Some("HTTP 500")));
    // The target's own wait wins, up to an hour, and the next failure does not.
    for (ask, wait) in [(0, 1000), (20_000, 20_000), (HOUR, HOUR), (u64::MAX, HOUR)] {
        assert_eq!(tell(&mut outbox, "ops", &mut now, &asked(ask)), "+a");
        let before = now;
        assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+a");
        assert_eq!(now - before, wait);
    }
    assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "+a");
    outbox.enqueue(&firing("b", 2), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &later(false)), "+b");
    let before = now;
    assert_eq!(tell(&mut outbox, "ops", &mut now, &Outcome::Delivered), "+b");
    assert_eq!(now - before, 1000, "the first wait is the shortest again");
    assert_eq!(outbox.counts().next().unwrap().1, Counts { delivered: 2, failed: [0, 24, 0, 0], queued: 0 });
}

#[test]
fn one_target_that_fails_delays_no_other() {
    let (mut outbox, mut now) = (outbox(&[("bad", WEBHOOK), ("good", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["bad", "good"], now);
    let hanging = await_batch(&mut outbox, "bad", &mut now).unwrap();
    assert_eq!(tell(&mut outbox, "good", &mut now, &Outcome::Delivered), "+a");
    for number in 1..50 {
        outbox.enqueue(&resolved("a", 2 * number), [], now);
        assert_eq!(tell(&mut outbox, "good", &mut now, &Outcome::Delivered), "-a");
        outbox.enqueue(&firing("a", 2 * number + 1), ["bad", "good"], now);
        assert_eq!(tell(&mut outbox, "good", &mut now, &Outcome::Delivered), "+a");
    }
    let bad = outbox.counts().next().unwrap();
    assert_eq!((bad.0.as_str(), bad.1.queued), ("bad", 1), "one notification for an alert");
    outbox.done(&hanging, &Outcome::Delivered, now);
}

#[test]
fn what_a_target_refuses_is_told_through_the_others_once() {
    let (mut outbox, mut now) = (outbox(&[("bad", PEOPLE), ("good", PEOPLE)]), START);
    let refused = Outcome::Refused("HTTP 404 no_service\u{1b}".to_owned());
    outbox.enqueue(&firing("a", 1), ["bad"], now);
    assert_eq!(tell(&mut outbox, "bad", &mut now, &refused), "+a");
    assert_eq!(outbox.next("bad", now + HOUR), Next::Idle, "it is given up");
    let batch = await_batch(&mut outbox, "good", &mut now).unwrap();
    let event = &batch.items[0].event;
    assert_eq!((&*event.key.name, &*event.key.series), (NOTIFY_ALERT, "bad"));
    assert_eq!(event.text.as_deref(), Some("the target bad is not told: HTTP 404 no_service\u{fffd}"));
    outbox.done(&batch, &Outcome::Delivered, now);
    assert_eq!(outbox.problems().count(), 1);
    // What was refused is not resolved, and further ones are not told again.
    outbox.enqueue(&resolved("a", 2), [], now);
    outbox.enqueue(&firing("b", 3), ["bad"], now);
    assert_eq!(tell(&mut outbox, "bad", &mut now, &refused), "+b");
    assert_eq!(outbox.next("good", now + HOUR), Next::Idle);
    // A restart remembers it; what is delivered again resolves it.
    let kept = notifications(&mut outbox);
    outbox = Outbox::restore([("bad".into(), PEOPLE), ("good".into(), PEOPLE)], kept, 1, now);
    outbox.enqueue(&firing("c", 4), ["bad"], now);
    assert_eq!(tell(&mut outbox, "bad", &mut now, &Outcome::Delivered), "+c");
    let batch = await_batch(&mut outbox, "good", &mut now).unwrap();
    assert_eq!((batch.items[0].event.resolution, batch.items[0].is_past), (Some(Resolution::Good), false));
    outbox.done(&batch, &Outcome::Delivered, now);
    assert_eq!((outbox.problems().count(), outbox.deliveries(&event.key).len()), (0, 0));
    // Two that refuse do not tell each other for ever.
    for number in 10..30 {
        outbox.enqueue(&firing("d", number), ["bad", "good"], now);
        tell(&mut outbox, "bad", &mut now, &refused);
        tell(&mut outbox, "good", &mut now, &refused);
    }
    assert!(notifications(&mut outbox).len() <= 6, "{:?}", notifications(&mut outbox));
}

#[test]
fn a_target_that_fails_for_long_is_told_of_and_what_is_a_day_old_is_dropped() {
    let (mut outbox, mut now) = (outbox(&[("gone", PEOPLE), ("good", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["gone"], now);
    while now < START + 14 * MIN {
        assert_eq!(outbox.problems().count(), 0);
        assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "+a");
    }
    while now < START + 22 * MIN {
        assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "+a");
    }
    assert_eq!(outbox.problems().count(), 1);
    // A newer event begins its own day.
    now = START + 23 * HOUR;
    outbox.enqueue(&resolved("a", 2), [], now);
    now = START + 40 * HOUR;
    assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "~a");
    now = START + 47 * HOUR + 1;
    assert_eq!(outbox.next("gone", now), Next::Idle);
    let (_, counts) = outbox.counts().next().unwrap();
    assert_eq!((counts.failed[Reason::Expired as usize], counts.queued), (1, 0));
    assert_eq!(outbox.deliveries(&firing("a", 1).key), []);
}

#[test]
fn what_is_told_after_hours_says_so() {
    let (mut outbox, mut now) = (outbox(&[("gone", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["gone"], now);
    outbox.enqueue(&firing("b", 2), ["gone"], now);
    while now < START + 5 * HOUR {
        assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "+a +b");
        if now > START + 2 * HOUR {
            outbox.enqueue(&resolved("b", 3), [], now);
            break;
        }
    }
    while now < START + 23 * HOUR {
        assert_eq!(tell(&mut outbox, "gone", &mut now, &later(false)), "+a ~b");
    }
    let batch = await_batch(&mut outbox, "gone", &mut now).unwrap();
    let lines: Vec<String> = batch.items.iter().map(|item| super::super::message::line(item, now)).collect();
    assert!(lines[0].starts_with("FIRING warning: disk on a") && lines[0].ends_with(" (told late)"), "{lines:?}");
    assert!(lines[1].starts_with("WAS FIRING ") && lines[1].contains(", told late: disk on b"), "{lines:?}");
}

#[test]
fn repeats_run_from_the_last_one_delivered() {
    let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
    let event = firing("a", 1);
    outbox.remind(&event, ["ops"], HOUR, now);
    outbox.enqueue(&event, ["ops"], now);
    outbox.remind(&event, ["ops"], 0, now);
    let first = await_batch(&mut outbox, "ops", &mut now).unwrap();
    now += 5 * HOUR;
    outbox.remind(&event, ["ops"], HOUR, now);
    outbox.done(&first, &Outcome::Delivered, now);
    outbox.remind(&event, ["ops"], HOUR, now + HOUR - 1);
    assert_eq!(outbox.next("ops", now + HOUR - 1), Next::Idle, "not before it was delivered for an hour");
    now += HOUR;
    let newer = Event { value: Some(99.0), ..event.clone() };
    outbox.remind(&newer, ["ops"], HOUR, now);
    outbox.remind(&newer, ["ops"], HOUR, now);
    let second = await_batch(&mut outbox, "ops", &mut now).unwrap();
    assert_eq!((said(&second), second.items[0].event.value), ("*a".to_owned(), Some(99.0)));
    assert_ne!(second.key, first.key);
    outbox.done(&second, &Outcome::Delivered, now);
    assert_eq!(outbox.next("ops", now + HOUR), Next::Idle);
}

#[test]
fn an_alertmanager_is_told_each_minute_what_still_fires() {
    let (mut outbox, mut now) = (outbox(&[("am", ALERTMANAGER)]), START);
    outbox.enqueue(&firing("a", 1), ["am"], now);
    let batch = await_batch(&mut outbox, "am", &mut now).unwrap();
    assert_eq!((said(&batch).as_str(), batch.still.len()), ("+a", 0));
    outbox.done(&batch, &Outcome::Delivered, now);
    outbox.stored(outbox.serial());
    _ = outbox.changes();
    for _ in 0..3 {
        let before = now;
        let batch = await_batch(&mut outbox, "am", &mut now).unwrap();
        assert_eq!((batch.items.len(), batch.still.len()), (0, 1));
        outbox.done(&batch, &Outcome::Delivered, now);
        assert!(now - before <= MIN && outbox.changes().is_none(), "nothing is written for it");
    }
    // After a restart at once, and no more when it is resolved.
    let kept = notifications(&mut outbox);
    outbox = Outbox::restore([("am".into(), ALERTMANAGER)], kept, 1, now);
    let before = now;
    let batch = await_batch(&mut outbox, "am", &mut now).unwrap();
    assert_eq!((batch.still.len(), now), (1, before));
    outbox.done(&batch, &later(false), now);
    outbox.enqueue(&resolved("a", 2), [], now);
    assert_eq!(tell(&mut outbox, "am", &mut now, &Outcome::Delivered), "-a");
    assert_eq!(outbox.next("am", now + HOUR), Next::Idle);
}

#[test]
fn a_clock_that_is_set_back_delays_nothing_for_long() {
    let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
    outbox.enqueue(&firing("a", 1), ["ops"], now);
    assert_eq!(tell(&mut outbox, "ops", &mut now, &asked(HOUR)), "+a");
    let mut before = now - 100 * HOUR;
    assert_eq!(tell(&mut outbox, "ops", &mut before, &Outcome::Delivered), "+a");
    assert_eq!(before, now - 100 * HOUR);
}

#[test]
fn a_place_is_kept_as_it_is() {
    let (mut outbox, mut now) = (outbox(&[("ops", PEOPLE)]), START);
    let test = Some((crate::alerts::event::Comparison::AtLeast, 0.1));
    outbox.enqueue(&Event { test, text: Some("ä\n".to_owned()), ..firing("a", 1) }, ["ops"], now);
    let changes = outbox.changes().unwrap();
    assert!(outbox.changes().is_none() && !outbox.is_stored(changes.serial));
    outbox.not_stored(changes.clone());
    assert_eq!(outbox.changes(), Some(changes.clone()));
    outbox.stored(changes.serial);
    let batch = await_batch(&mut outbox, "ops", &mut now).unwrap();
    assert!(!outbox.is_stored(batch.serial), "that it is being sent is kept before it is");
    for notification in notifications(&mut outbox) {
        let text = serde_json::to_string(&notification).unwrap();
        assert_eq!(serde_json::from_str::<Notification>(&text).unwrap(), notification, "{text}");
    }
}

/// One step of the property test.
#[derive(Debug, Clone)]
enum Step {
    Fire(u8),
    Resolve(u8),
    Pass(u64),
    Send(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4u8).prop_map(Step::Fire),
        (0..4u8).prop_map(Step::Resolve),
        (0..400_000u64).prop_map(Step::Pass),
        (0..6u8).prop_map(Step::Send),
        (0..6u8).prop_map(Step::Send),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever fails, a target knows in the end what fires, nothing is told twice to one that knows keys, and
    /// nothing is resolved that it was not told.
    #[test]
    fn a_target_knows_in_the_end_what_fires(steps in steps(), knows_key: bool, is_pager: bool) {
        let semantics = Semantics { batch_max: if is_pager { 1 } else { 1000 }, knows_key, forgets: false };
        let mut outbox = Outbox::restore([("t".into(), semantics)], [], 3, START);
        let (mut now, mut number, mut last_sent) = (START, 0, 0);
        let mut truth: HashMap<String, bool> = HashMap::new();
        // What the target has taken: of each alert whether it fires; keys; events, with how often.
        let mut known: HashMap<String, bool> = HashMap::new();
        let mut keys = BTreeSet::new();
        let mut taken: HashMap<(String, u64), u32> = HashMap::new();
        let mut unsure = 0;
        for step in steps.into_iter().chain((0..30).map(|_| Step::Pass(400_000))) {
            let is_end = matches!(step, Step::Pass(400_000));
            match &step {
                Step::Fire(host) | Step::Resolve(host) => {
                    number += 1;
                    let (host, fires) = (format!("h{host}"), matches!(step, Step::Fire(_)));
                    let event = if fires { firing(&host, number) } else { resolved(&host, number) };
                    outbox.enqueue(&event, ["t"], now);
                    truth.insert(host, fires);
                }
                Step::Pass(ms) => now += ms,
                Step::Restart => {
                    let kept = notifications(&mut outbox);
                    outbox = Outbox::restore([("t".into(), semantics)], kept, 5, now);
                    last_sent = 0;
                }
                Step::Send(_) => {}
            }
            let kind = match step { Step::Send(kind) => kind, _ if is_end => 0, _ => continue };
            let Next::Send(batch) = outbox.next("t", now) else { continue };
            prop_assert!(now >= last_sent + PAUSE_MS);
            last_sent = now;
            let is_taken = matches!(kind, 0..=2 | 4);
            if is_taken && (!knows_key || keys.insert(batch.key.clone())) {
                for item in &batch.items {
                    let host = item.event.key.host.to_string();
                    *taken.entry((host.clone(), item.event.number)).or_default() += 1;
                    let knew = known.insert(host, item.event.is_firing()) == Some(true);
                    if !item.event.is_firing() && knows_key {
                        prop_assert!(knew != item.is_past, "resolved what was not told, or late what was");
                    }
                }
            }
            match kind {
                0..=2 => outbox.done(&batch, &Outcome::Delivered, now),
                3 => outbox.done(&batch, &later(false), now),
                4 => { unsure += 1; outbox.done(&batch, &later(true), now) }
                // The process ends before it has sent.
                _ => {
                    let kept = notifications(&mut outbox);
                    outbox = Outbox::restore([("t".into(), semantics)], kept, 5, now);
                    last_sent = 0;
                }
            }
        }
        for (host, fires) in truth {
            prop_assert_eq!(known.get(&host).copied().unwrap_or(false), fires, "{}", host);
        }
        for (event, count) in taken {
            prop_assert!(count <= 1 + if knows_key { 0 } else { unsure }, "{:?}: {}", event, count);
        }
        prop_assert_eq!(outbox.counts().next().unwrap().1.queued, 0);
    }
}
