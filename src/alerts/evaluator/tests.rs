use proptest::prelude::*;

use super::super::event::{Comparison, Event, Severity};
use super::super::rules::{self, parse};
use super::*;
use crate::summary::{Keep, SampleTime, Series};

/// The first second of a minute and of an hour.
const START: u64 = 1_795_964_400;
const STEP_SEC: u64 = 10;

fn rules(text: &str) -> Arc<Rules> {
    let targets = "target ops: exec a\ntarget pager: exec b\n";
    Arc::new(parse(&[("f", &format!("{targets}{text}"))], rules::Retention::default(), |_| None).unwrap())
}

/// Hosts with their series, and an evaluator of what they keep.
struct World {
    evaluator: Evaluator,
    series: BTreeMap<String, BTreeMap<String, Series>>,
    pulses: BTreeMap<String, Pulse>,
    told: Vec<Transition>,
    stored: BTreeMap<AlertKey, Alert>,
    rules: Arc<Rules>,
}

impl World {
    fn new(text: &str) -> Self {
        let rules = rules(text);
        Self {
            evaluator: Evaluator::new(rules.clone(), Vec::new(), START),
            series: BTreeMap::new(),
            pulses: BTreeMap::new(),
            told: Vec::new(),
            stored: BTreeMap::new(),
            rules,
        }
    }

    fn put(&mut self, host: &str, label: &str, epoch: u64, value: f64, now: u64) {
        let series = self.series.entry(host.to_owned()).or_default().entry(label.to_owned()).or_default();
        series.record(&Keep::default(), &SampleTime::new(&Keep::default(), epoch, now), value);
        let pulse = self.pulses.entry(host.to_owned()).or_insert_with(|| Pulse {
            host: host.into(),
            last_epoch: 0,
            heard_at: 0,
            interval_sec: Some(STEP_SEC),
            skew_sec: None,
            late_samples: 0,
            tags: Tags::parse("role=db,rack=7").unwrap(),
        });
        if epoch + 66 < pulse.last_epoch {
            pulse.late_samples += 1;
        }
        pulse.last_epoch = pulse.last_epoch.max(epoch);
        pulse.heard_at = now;
        pulse.skew_sec = Some(epoch as i64 - now as i64);
    }

    fn look(&mut self, now: u64) -> Vec<Transition> {
        let pulses: Vec<Pulse> = self.pulses.values().cloned().collect();
        let (series, rules) = (&self.series, self.evaluator.rules.clone());
        let kept = |pulse: &Pulse, may_fire: bool| {
            let of_host = series.get(pulse.host.as_str()).into_iter().flatten();
            let tails = |(label, series): (&String, &Series)| {
                let intervals = rules.reach(label)?[usize::from(may_fire)];
                Some((label.into(), series.tails(&Keep::default(), intervals)))
            };
            Some(of_host.filter_map(tails).collect())
        };
        let outcome = self.evaluator.evaluate(now, &pulses, kept);
        for (key, alert) in outcome.changes {
            match alert {
                Some(alert) => drop(self.stored.insert(key, alert)),
                None => drop(self.stored.remove(&key)),
            }
        }
        self.told.extend(outcome.transitions.clone());
        outcome.transitions
    }

    /// Starts again with what was stored.
    fn restart(&mut self, now: u64) {
        let stored = serde_json::to_string(&self.stored.values().collect::<Vec<_>>()).unwrap();
        self.evaluator = Evaluator::new(self.rules.clone(), serde_json::from_str(&stored).unwrap(), now);
        self.pulses.values_mut().for_each(|pulse| pulse.heard_at = 0);
    }
}

/// The samples of `x` in a minute, by a letter: g(ood) 10, m(iddle) 87, b(ad) 95, w(orse) 99, one bad peak among good ones
/// (p), one sample alone that is bad (s) or good (t), none of `x` (.), and none of the host (_). There may be a restart, with
/// (!) or without (^) a sign of the host.
fn minute(letter: char) -> Vec<f64> {
    match letter {
        'g' => vec![10.0; 6],
        'm' => vec![87.0; 6],
        'b' => vec![95.0; 6],
        'w' => vec![99.0; 6],
        'p' => [vec![10.0; 5], vec![1000.0]].concat(),
        's' => vec![95.0],
        't' => vec![10.0],
        _ => Vec::new(),
    }
}

/// What a look after each minute tells: F(ires), C(ritical), R(esolved), G(one); `,` pending and `~` firing but stale.
fn letters(world: &mut World, minutes: &str, from: u64) -> String {
    let mut said = String::new();
    for (number, letter) in minutes.chars().enumerate() {
        let start = START + 60 * (from + number as u64);
        if matches!(letter, '!' | '^') {
            world.restart(start);
        }
        for (place, value) in minute(letter).into_iter().enumerate() {
            let epoch = start + STEP_SEC * (place as u64 + 1);
            world.put("h", "x", epoch, value, epoch);
        }
        if !matches!(letter, '_' | '^') {
            (1..=7).for_each(|step| world.put("h", "beat", start + STEP_SEC * step, 1.0, start + STEP_SEC * step));
        }
        let told = world.look(start + 72);
        let alert = world.evaluator.alerts().find(|alert| alert.key.name == "a");
        said.push(match told.iter().rev().find(|transition| transition.event.key.name == "a") {
            Some(Transition { event, .. }) => match (event.resolution, event.severity) {
                (Some(Resolution::Good), _) => 'R',
                (Some(_), _) => 'G',
                (None, Severity::Critical) => 'C',
                (None, _) => 'F',
            },
            None if alert.is_some_and(|alert| alert.stale_since.is_some()) => '~',
            None if alert.is_some_and(|alert| alert.pending.is_some() && alert.severity().is_none()) => ',',
            None => '.',
        });
    }
    said
}

#[test]
fn what_a_rule_means() {
    let mut wrong = Vec::new();
    for (rule, minutes, said) in [
        // Without `for` one minute decides, both ways.
        ("a: x > 90", "ggbg", "..FR"),
        ("a: x > 90", "ggbbbg", "..F..R"),
        ("a: x > 90", "gggggg", "......"),
        ("a: x >= 95", "ggbg", "..FR"),
        ("a: x > 95", "ggbg", "...."),
        ("a: x < 50", "bbgb", "..FR"),
        ("a: x <= 10", "bbgb", "..FR"),
        ("a: x < 10", "bbgb", "...."),
        ("a: x > 90", "b", "F"),
        // `for`: every minute is bad.
        ("a: x > 90 for 3m", "ggbbbg", "..,,F."),
        ("a: x > 90 for 3m", "ggbbgbb", "..,,.,,"),
        ("a: x > 90 for 3m", "ggbbbggg", "..,,F..R"),
        ("a: x > 90 for 3m", "ggbbbggbggg", "..,,F.....R"),
        ("a: x > 90 for 90s", "ggbbgg", "..,F.R"),
        ("a: x > 90 for 1m", "ggbg", "..FR"),
        // It resolves after five minutes at most.
        ("a: x > 90 for 7m", "gbbbbbbbggggg", ".,,,,,,F....R"),
        ("a: x > 90 for 2m", "gbbgg", ".,F.R"),
        // A gap neither starts `for` again nor ends it.
        ("a: x > 90 for 5m", "gbb.bb", ".,,,,F"),
        ("a: x > 90 for 5m", "gbb..bb", ".,,,,,,"),
        ("a: x > 90 for 5m", "gbb..bbb", ".,,,,,,,"),
        ("a: x > 90 for 5m", "gbb..bbbb", ".,,,,,,,F"),
        ("a: x > 90 for 3m", "gbb.b", ".,,,,"),
        // It does not fire on scraps.
        ("a: x > 90", "gggs", "...."),
        ("a: x > 90 for 3m", "gggbsb", "...,,,"),
        ("a: x > 90 for 5m", "gggbbsbb", "...,,,,F"),
        ("a: x > 90; needs 10%", "gggs", "...F"),
        ("a: x > 90; needs 100%", "gggb", "...F"),
        // A scrap does not resolve, either.
        ("a: x > 90", "ggbtg", "..F.R"),
        ("a: x > 90", "ggbt", "..F."),
        // A gap while it fires: it goes on, and is stale.
        ("a: x > 90", "ggb....g", "..F...~R"),
        ("a: x > 90", "ggb....b", "..F...~."),
        ("a: x > 90", "ggb___g", "..F..~R"),
        ("a: x > 90", "ggb_____b", "..F..~~~."),
        // What is not reported while its host reports is gone.
        ("a: x > 90", "ggb................", "..F...~~~~~~~~~~~~G"),
        ("a: x > 90", "ggb________________", "..F..~~~~~~~~~~~~~~"),
        ("a: x > 90", "gg................", ".................."),
        ("a: x > 90", "ggb____________________...g", "..F..~~~~~~~~~~~~~~~~~~~~~R"),
        // `until`: between the thresholds nothing changes.
        ("a: x > 90 until < 85", "ggbmmg", "..F..R"),
        ("a: x > 90 until < 85", "ggmmm", "....."),
        ("a: x > 90 until < 85 for 2m", "ggbgg", "..F.R"),
        ("a: x > 90 until < 85 for 2m", "ggbgmgg", "..F...R"),
        ("a: x < 50 until >= 87", "bbgmb", "..FR."),
        ("a: x > 90 for 3m until < 85", "gbbbggg", ".,,F..R"),
        // Levels of one alert.
        ("a: x > 90\na: x > 98; severity critical", "gbwg", ".FCR"),
        ("a: x > 90\na: x > 98; severity critical", "gwbg", ".C.R"),
        ("a: x > 90\na: x > 98; severity critical", "gwbwg", ".C..R"),
        ("a: x > 98; severity critical\na: x > 90", "gbwg", ".FCR"),
        ("a: x > 90 for 3m\na: x > 98; severity critical", "gwwwg", ".C..."),
        ("a: x > 90; severity info\na: x > 98", "gbwg", ".FFR"),
        // Of one severity the first that fits counts.
        ("a: x > 98 on h\na: x > 90", "gbwg", "..FR"),
        ("a: x > 98 on other\na: x > 90", "gbwg", ".F.R"),
        ("a: x > 98 on !other\na: x > 90", "gbwg", "..FR"),
        ("a: x > 98 on !h\na: x > 90", "gbwg", ".F.R"),
        ("a: x > 90 on h*", "gb", ".F"),
        ("a: x > 90 on tag:role=db", "gb", ".F"),
        ("a: x > 90 on tag:role=web", "gb", ".."),
        ("a: x > 90 on *,!tag:rack=7", "gb", ".."),
        ("a: no y for 2m on tag:role=db,h", "gggg", ",F.."),
        ("a: y > 90", "gb", ".."),
        ("a: * > 90", "gb", ".F"),
        ("a: !x > 90", "gb", ".."),
        // Functions.
        ("a: min(x, 3m) > 90", "gbbb", "...F"),
        ("a: min(x, 3m) > 90", "gbpb", "...."),
        ("a: min(x) > 90", "gbg", ".FR"),
        ("a: max(x, 3m) > 500", "gpgggg", ".F..R."),
        ("a: max(x) > 500", "gpg", ".FR"),
        ("a: x > 500", "gpg", "..."),
        ("a: avg(x, 2m) > 50", "ggbgg", "..F.R"),
        ("a: avg(x, 3m) > 50", "gggbg", "....."),
        ("a: avg(x, 3m) > 50", "gggbb", "....F"),
        ("a: change(x, 2m) > 50", "gggbbg", "...F.R"),
        ("a: change(x, 2m) < -50", "bbbgb", "...FR"),
        ("a: change(x, 2m) > 50", "g..b", "...."),
        ("a: forecast(x, 5m, 5m) > 98", "gggmmm", "...F.."),
        ("a: forecast(x, 4m, 1h) > 98", "mmm", "..."),
        ("a: forecast(x, 4m, 1h) > 98", "mmmb", "...F"),
        ("a: forecast(x, 4m, 1h) < 20", "bbbm", "...F"),
        ("a: max(x, 3m) < 50", "bggg", "...F"),
        // Flapping: right for twice as long, each time that it fires again.
        ("a: x > 90", "gbgbggbgggg", ".FRF.RF...R"),
        ("a: x > 90 for 2m", "gbbggbbgggg", ".,F.R,F...R"),
        ("a: x > 90", "gbgbgbgg", ".FRF...R"),
        ("a: x > 90", "gbgbggbggggbgggggggg", ".FRF.RF...RF.......R"),
        ("a: x > 90 until < 85 for 12m", "gbgggggggggggg", ".F...........R"),
        // A restart changes nothing.
        ("a: x > 90", "ggb!g", "..F.R"),
        ("a: x > 90", "ggb!b", "..F.."),
        ("a: x > 90 for 5m", "gbb!bb", ".,,,,F"),
        ("a: x > 90", "gg!gb", "....F"),
        // The host's own silence.
        ("a: host down", "gg___g", "...F.R"),
        ("a: host late", "gg__g", "..F.R"),
        ("a: host down for 3m", "gg______g", "...,,,F.R"),
        ("a: no x", "gg...g", "..F..R"),
        ("a: no x for 3m", "gg....g", "..,,F.R"),
        ("a: no y for 3m on h", "ggggg", ",,F.."),
        // Until something is heard, a restart ends no silence.
        ("a: host down", "gg___^___g", "...F.....R"),
        ("a: no x", "gg..!..g", "..F....R"),
        ("a: host down on other", "gg!ggg", "F....."),
        ("a: no x for 3m", "gg..!....g", "..,,,,F..R"),
        // Of one severity the first that is about a series counts.
        ("b: no x for 9m\na: no z on h\na: no y for 3m on h", "ggggg", "F,F.."),
        ("a: no y for 9m on h\na: no y on h", "ggggg", ",,,,,"),
        ("a: no y for 9m on other\na: no y on other", "ggggg", ",,,,,"),
        ("a: x > 98\na: no x on h", "gg...", "....."),
        ("a: host late for 9m\na: host down", "gg___", "..,,,"),
        ("a: no y for 9m on h\na: host down", "gg____", ",,,F.."),
        ("a: no y for 3m", "ggggg", "....."),
        ("a: no y,z for 3m on other", "ggggg", ",,F.."),
        ("a: host down on other", "ggggg", "F...."),
        ("a: host down on oth*", "ggggg", "....."),
        // Beside what hosts publish.
        ("a: clock-skew >= 0 for 2m", "ggg", ",F."),
        // Silences: judged on, told at their end.
        ("a: x > 90\nsilence a 1795964400 to 1795964640", "gbbbbb", "...F.."),
        ("a: x > 90\nsilence a 1795964400 to 1795964640", "gbgggg", "......"),
        ("a: x > 90\nsilence a 1795964520 to 1795964760", "bgggggg", "F....R."),
        ("a: x > 90\nsilence b 1795964400 to 1795964640", "gb", ".F"),
        ("a: x > 90\nsilence a on i* 1795964400 to 1795964640", "gb", ".F"),
        ("a: x > 90\nsilence * on h 1795964400 to 1795964640", "gbbbb", "...F."),
        // A host that is down mutes its other alerts; one that is late does not.
        ("a: no x for 2m\nd: host late\nd: host down for 1h; severity critical", "gg____", "..,F.."),
        ("a: no x for 3m\nd: host down", "gg_____", "..,,..."),
    ] {
        let mut world = World::new(rule);
        let found = letters(&mut world, minutes, 0);
        if found != said {
            wrong.push(format!("{rule}\n  {minutes}\n  {said} is right\n  {found} was found"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn said(told: &[Transition]) -> Vec<(String, Severity, Option<Resolution>)> {
    told.iter().map(|t| (t.event.key.name.to_string(), t.event.severity, t.event.resolution)).collect()
}

#[test]
fn each_level_tells_its_targets_and_the_end_tells_all() {
    let rule = "a: x > 90; notify ops\na: x > 98; severity critical; notify pager\nb: x > 90 on other";
    let mut world = World::new(rule);
    assert_eq!(letters(&mut world, "gbwg", 0), ".FCR");
    let targets: Vec<Vec<&str>> = world.told.iter().map(|t| t.targets.iter().map(SmolStr::as_str).collect()).collect();
    assert_eq!(targets, [vec!["ops"], vec!["pager"], vec!["ops", "pager"]]);
    let [fired, risen, resolved] = [0, 1, 2].map(|place| &world.told[place].event);
    assert_eq!((fired.value, fired.test), (Some(95.0), Some((Comparison::Above, 90.0))));
    assert_eq!((risen.rule.as_str(), risen.fired_at), (rule.lines().nth(1).unwrap(), fired.fired_at));
    assert_eq!((resolved.severity, resolved.resolved_at), (Severity::Critical, Some(START + 252)));
    assert!(fired.number < risen.number && risen.number < resolved.number);
    assert!(world.stored.is_empty());
}

#[test]
fn reports_every_five_minutes_fire_and_resolve() {
    for (rule, fires) in [("a: x > 90", "...bbbgg"), ("a: x > 90 for 10m", "....bbgg")] {
        let mut world = World::new(rule);
        for (number, value) in [10.0, 10.0, 10.0, 95.0, 95.0, 95.0, 10.0, 10.0].into_iter().enumerate() {
            let epoch = START + 300 * (number as u64 + 1);
            world.put("h", "x", epoch, value, epoch);
            world.look(epoch + 2);
            // The minute is closed once the host's clock has passed it, by another series here.
            for look in 1..29 {
                world.put("h", "beat", epoch + 10 * look, 1.0, epoch + 10 * look);
                world.look(epoch + 10 * look + 2);
            }
            let is_firing = world.evaluator.alerts().any(|alert| alert.severity().is_some());
            assert_eq!(is_firing, fires.as_bytes()[number] == b'b', "{rule}: {number}");
        }
    }
}

#[test]
fn long_windows_go_by_closed_hours() {
    let mut world = World::new("a: x > 90 for 2h");
    let mut fired = Vec::new();
    for minute in 0..360 {
        let start = START + 60 * minute;
        let value = if (60..240).contains(&minute) { 95.0 } else { 10.0 };
        (1..=6).for_each(|step| world.put("h", "x", start + 10 * step, value, start + 10 * step));
        world.put("h", "beat", start + 70, 1.0, start + 70);
        fired.extend(world.look(start + 72).iter().map(|t| (minute, t.event.is_firing())));
    }
    assert_eq!(fired, [(179, true), (299, false)]);
}

#[test]
fn history_does_not_notify() {
    let mut world = World::new("a: x > 90");
    // An hour that was bad comes within two minutes, and now all is well.
    let now = START + 7200;
    for step in 0..12 {
        let (from, at) = (START + 3600 + 300 * step, now + 10 * step);
        (0..30).for_each(|place| world.put("h", "x", from + 10 * place, if step < 11 { 95.0 } else { 10.0 }, at));
        assert_eq!(said(&world.look(at + 1)), [], "{step}");
    }
    (0..12).for_each(|step| world.put("h", "x", now + 120 + 10 * step, 10.0, now + 120 + 10 * step));
    assert_eq!(said(&world.look(now + 240)), []);
    // A clock that is wrong by a steady offset hides nothing.
    let mut world = World::new("a: x > 90");
    for step in 0..60 {
        world.put("h", "x", START + 10 * step, 95.0, START + 4000 + 10 * step);
        world.look(START + 4001 + 10 * step);
    }
    let names: Vec<_> = said(&world.told).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a", "lizm-clock"]);
    world.pulses.clear();
    let gone = said(&world.look(START + 5000));
    assert_eq!(gone.iter().map(|(_, _, why)| *why).collect::<Vec<_>>(), [Some(Resolution::HostRemoved); 2]);
}

#[test]
fn what_is_removed_is_resolved_and_says_why() {
    let why = |world: &mut World| world.look(START + 200).iter().map(|t| t.event.resolution).collect::<Vec<_>>();
    let mut world = World::new("a: x > 90");
    letters(&mut world, "gbb", 0);
    world.pulses.clear();
    assert_eq!(why(&mut world), [Some(Resolution::HostRemoved)]);
    let mut world = World::new("a: x > 90");
    letters(&mut world, "gbb", 0);
    world.evaluator.set_rules(rules("b: x > 98"));
    assert_eq!(why(&mut world), [Some(Resolution::RuleRemoved)]);
    // Another threshold is judged again.
    let mut world = World::new("a: x > 90");
    letters(&mut world, "gbb", 0);
    world.evaluator.set_rules(rules("a: x > 98"));
    assert_eq!(why(&mut world), [Some(Resolution::Good)]);
}

#[test]
fn a_silence_may_be_longer_than_what_is_kept() {
    let mut world = World::new("a: no x for 26h");
    letters(&mut world, "gg", 0);
    for hour in 1..=26 {
        // The store keeps a day.
        if hour == 25 {
            world.series.get_mut("h").unwrap().remove("x");
        }
        for second in [0, 60, 3599] {
            let now = START + 3600 * hour + second;
            world.put("h", "beat", now, 1.0, now);
            let told = world.look(now);
            assert_eq!(told.len(), usize::from(hour == 26 && second == 3599), "{hour} {second}");
        }
    }
}

#[test]
fn a_mistake_in_the_file_is_an_alert() {
    let mut world = World::new("a: x > 90");
    world.evaluator.set_config_error(Some("f:1:1: a mistake".to_owned()));
    let told = world.look(START);
    assert_eq!((told[0].event.key.name.as_str(), told[0].targets.len()), (CONFIG_ALERT, 2));
    assert_eq!(told[0].event.text.as_deref(), Some("f:1:1: a mistake"));
    world.evaluator.set_config_error(None);
    let good = (CONFIG_ALERT.to_owned(), Severity::Warning, Some(Resolution::Good));
    assert_eq!(said(&world.look(START + 10)), [good]);
}

#[test]
fn reminders_stop_while_nothing_is_known() {
    let mut world = World::new("a: x > 90; every 1h; notify ops");
    letters(&mut world, "gbb", 0);
    let pulses: Vec<Pulse> = world.pulses.values().cloned().collect();
    let mut reminded = |now| world.evaluator.evaluate(now, &pulses, |_, _| Some(Vec::new())).reminders;
    let reminders = reminded(START + 195);
    assert_eq!((reminders.len(), reminders[0].every_sec), (1, 3600));
    assert_eq!(reminders[0].event.number, world.told[0].event.number);
    assert_eq!(reminded(START + 900), []);
}

proptest! {
    /// Samples of ten minutes in any order, each of which comes before its minute is closed, and looks at any part of a
    /// minute.
    #[test]
    fn order_and_lateness_do_not_matter(
        values in proptest::collection::vec(prop_oneof![Just(10.0), Just(95.0), Just(f64::NAN)], 60),
        orders in proptest::collection::vec(any::<u64>(), 60),
        looks in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let rule = "a: x > 90 for 2m\na: x > 94 for 4m; severity critical\nb: min(x, 2m) > 90 until < 50";
        let (mut plain, mut mixed) = (World::new(rule), World::new(rule));
        for minute in 0..10_usize {
            let start = START + 60 * minute as u64;
            let put = |world: &mut World, place: usize| {
                let (value, epoch) = (values[6 * minute + place], start + 10 * (place as u64 + 1));
                if !value.is_nan() {
                    world.put("h", "x", epoch, value, epoch);
                }
            };
            let mut places: Vec<usize> = (0..6).collect();
            places.iter().for_each(|place| put(&mut plain, *place));
            places.sort_by_key(|place| orders[6 * minute + place]);
            for place in places {
                put(&mut mixed, place);
                if looks[6 * minute + place] {
                    mixed.look(start + 61);
                }
            }
            for world in [&mut plain, &mut mixed] {
                world.put("h", "beat", start + 66, 1.0, start + 66);
                world.look(start + 67);
            }
        }
        let state = |world: &World| world.evaluator.alerts().map(|alert| format!("{alert:?}")).collect::<Vec<_>>();
        prop_assert_eq!(state(&plain), state(&mixed));
        prop_assert_eq!(plain.told, mixed.told);
    }

    /// Whatever comes (gaps, restarts, steps of a host's clock, removals, backlogs), firing and resolved take turns, and
    /// what was told is what is stored.
    #[test]
    fn what_is_told_is_consistent(steps in proptest::collection::vec((0..8_u8, 0..120_u64, 0..3_usize), 1..120)) {
        let rule = "a: x > 90 for 2m; notify ops\na: x > 98; severity critical\nd: host down\nn: no x for 3m";
        let mut world = World::new(rule);
        let (mut now, mut ahead) = (START + 7200, 0_i64);
        let mut open: BTreeMap<AlertKey, Severity> = BTreeMap::new();
        for (step, sec, value) in steps {
            now += sec;
            let epoch = now.saturating_add_signed(ahead);
            let value = [10.0, 95.0, 99.0][value];
            match step {
                0..=3 => (0..sec / 10).for_each(|place| world.put("h", "x", epoch - 10 * place, value, now)),
                4 => ahead = if ahead == 0 { -3600 } else { 0 },
                5 => world.restart(now),
                6 if value > 98.0 => {
                    world.pulses.clear();
                    world.series.clear();
                }
                6 => (0..60).for_each(|place| world.put("h", "x", epoch - 600 + 10 * place, value, now)),
                _ => {}
            }
            for transition in world.look(now) {
                let Event { key, severity, resolution, .. } = transition.event;
                match resolution {
                    None => prop_assert!(open.insert(key, severity).is_none_or(|before| before < severity)),
                    Some(_) => prop_assert!(open.remove(&key).is_some()),
                }
            }
            prop_assert!(open.keys().all(|key| world.stored.contains_key(key)));
        }
    }
}

#[test]
fn series_are_read_once_a_minute_unless_one_may_be_silent() {
    let mut world = World::new("a: no x for 3m\nb: x > 90");
    let mut reads = Vec::new();
    for second in (10..=600).step_by(10) {
        let epoch = START + second;
        world.put("h", "beat", epoch, 1.0, epoch);
        if second <= 240 {
            world.put("h", "x", epoch, 10.0, epoch);
        }
        let (pulses, series) = (world.pulses.values().cloned().collect::<Vec<_>>(), &world.series["h"]);
        let mut count = 0;
        world.evaluator.evaluate(epoch + 1, &pulses, |_, _| {
            count += 1;
            Some(
                series.iter().map(|(label, series)| (label.into(), series.tails(&Keep::default(), [70, 26]))).collect(),
            )
        });
        reads.push(count);
    }
    // The first evaluation, then each closed minute; each evaluation while `x` may be silent.
    assert_eq!(reads[..29].iter().sum::<u32>(), 5, "{reads:?}");
    assert_eq!(reads[32..].iter().sum::<u32>(), 28, "{reads:?}");
    assert!(world.evaluator.alerts().any(|alert| alert.key.name == "a" && alert.severity().is_some()));
}
