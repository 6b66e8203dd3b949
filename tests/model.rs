//! Random operations, up to a million, on a store in a directory, beside a plain model that keeps every sample: late, early and
//! doubled samples of many hosts, steps of the clock, checkpoints, sweeps, hosts that are forgotten, and restarts, some of
//! which change what is kept.
//!
//! The model is asked for what the store must say: the number of samples of each interval, the smallest and the largest
//! are the same; a mean is as close as adding n numbers one by one can bring it, n·2⁻⁵² of the largest magnitude.

#![cfg(feature = "disk")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use lizm::sample::{IdempotencyKey, Sample};
use lizm::store::{BatchOutcome, KeepOptions, LabelPage, Location, RecordOutcome, Store};
use lizm::summary::{Bucket, IntervalRange, Keep, KeyFilter, Summaries, Window};
use serde_json::Value;

const BEGIN: u64 = 1_465_001_814;
const HOSTS: u64 = 40;
const LABELS: [&str; 5] = ["cpu", "mem", "disk /var", "net.rx,if=eth0", "ü"];
/// What is kept by turns.
const KEEPS: [&str; 4] = ["1m:1h,1h:1d", "1m:6h,10m:1d,1h:3d,1d:20d", "1m:1d,1d:90d", "1m:2h,1h:2d,1d:40d"];
/// How far the clock is off at most, ahead and behind. With what samples are early it stays below the limit of 300
/// seconds: past that a store forgets on purpose.
const SKEW_SEC: u64 = 120;
const EARLY_SEC: u64 = 50;

/// SplitMix64: the same numbers on every run, for one seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number of any sign and of a magnitude between 10⁻⁵ and 10¹².
    fn value(&mut self) -> f64 {
        let magnitude = 10_f64.powi(self.below(17) as i32 - 5);
        (self.below(2_000_001) as f64 / 1e6 - 1.0) * magnitude
    }
}

/// Every sample of every series that was said to be stored, in the order of their epochs.
type Model = BTreeMap<(String, &'static str), BTreeMap<u64, Vec<f64>>>;

struct Trial<'d> {
    directory: &'d Path,
    store: Option<Store>,
    model: Model,
    random: Random,
    /// The true time, the clock of the receiver, and the furthest that has been.
    true_sec: u64,
    now: u64,
    latest_now: u64,
    seq: u64,
    keep: Keep,
    /// Since when each window has all samples, by the length of its intervals: one that was not always kept is filled from
    /// finer intervals.
    whole_since: BTreeMap<u64, u64>,
}

fn open(directory: &Path, asked: Option<Keep>, now: u64) -> Store {
    let location = Location::Directory { path: directory.to_owned(), fsync_always: false };
    let options = KeepOptions { asked, may_drop: true, ..KeepOptions::default() };
    Store::open_to_keep(&location, usize::MAX, &options, now).unwrap()
}

impl Trial<'_> {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self) {
        self.true_sec += self.random.below(2);
        if self.random.one_in(20_000) {
            self.true_sec += self.random.below(7200);
        }
        if self.random.one_in(500) {
            self.now = self.true_sec + self.random.below(2 * SKEW_SEC) - SKEW_SEC;
        } else {
            self.now += self.true_sec.saturating_sub(self.now).min(1);
        }
        self.latest_now = self.latest_now.max(self.now);
        match self.random.below(20_000) {
            0..=1 => {
                self.store = None;
                let draw = |random: &mut Random| KEEPS[random.below(KEEPS.len() as u64) as usize].parse().unwrap();
                let asked = self.random.one_in(2).then(|| draw(&mut self.random));
                let store = open(self.directory, asked, self.now);
                self.change_keep(store.keep());
                self.store = Some(store);
                self.compare_all();
            }
            2..=11 => self.store().checkpoint().unwrap(),
            12..=19 => drop(self.store().sweep(self.now)),
            20..=21 => self.store().expire_disk(self.now).unwrap(),
            22 => self.store().sync_now().unwrap(),
            23 => {
                let host = self.host();
                self.store().remove(&host, self.now).unwrap();
                self.model.retain(|(known, _), _| *known != host);
            }
            24..=40 => {
                let host = self.host();
                self.compare(&host);
            }
            41..=2000 => self.record_many(),
            _ => self.record(),
        }
    }

    /// Notes what is kept from now on, and what is known of it. A window that was not asked for any more is still there until
    /// it ends.
    fn change_keep(&mut self, keep: Keep) {
        let has_ended = |window: &&Window| window.ends_sec <= self.now;
        for before in self.keep.windows().iter().filter(|window| !has_ended(window)) {
            assert!(keep.window(before.interval_sec).is_some(), "{} of {} at {}", before.name, self.keep, self.now);
        }
        assert!(!keep.windows().iter().any(|window| has_ended(&window)), "{keep} at {}", self.now);
        let before = std::mem::replace(&mut self.keep, keep);
        let mut whole_since = BTreeMap::new();
        let mut finer_since = 0;
        for window in keep.windows() {
            let since = match before.window(window.interval_sec) {
                Some(kept) if kept.ends_sec > self.now => {
                    oldest(kept, self.latest_now).max(oldest(window, self.latest_now)) * window.interval_sec
                }
                _ => finer_since,
            };
            finer_since = since.max(self.whole_since.get(&window.interval_sec).copied().unwrap_or(0));
            whole_since.insert(window.interval_sec, finer_since);
        }
        self.whole_since = whole_since;
    }

    /// Number of the oldest interval of a window that the store has all samples of.
    fn sure(&self, window: &Window) -> u64 {
        let since = self.whole_since.get(&window.interval_sec).copied().unwrap_or(0);
        // While the clock was ahead, what looked old was removed.
        oldest(window, self.latest_now).max(since.div_ceil(window.interval_sec))
    }

    fn host(&mut self) -> String {
        format!("host-{}", self.random.below(HOSTS))
    }

    /// An epoch: mostly of now, else early or late, and rarely so late that nothing holds it.
    fn epoch(&mut self) -> u64 {
        match self.random.below(20) {
            0 => self.now + self.random.below(EARLY_SEC),
            1..=3 => self.now - self.random.below(4000),
            4 => self.now - self.random.below(self.keep.windows().last().unwrap().span_sec + 100_000),
            _ => self.now - self.random.below(3),
        }
    }

    fn sample(&mut self) -> Sample<'static> {
        let first = self.random.below(LABELS.len() as u64) as usize;
        let count = 1 + self.random.below(LABELS.len() as u64) as usize;
        let labels = LABELS.iter().cycle().skip(first).take(count);
        let values = labels.map(|label| ((*label).into(), self.random.value())).collect();
        Sample { host: self.host().into(), epoch: self.epoch(), values }
    }

    fn record(&mut self) {
        let sample = self.sample();
        self.seq += 1;
        let key = Some(IdempotencyKey::new("monitor", self.seq));
        let became = self.store().record(sample.view(), key, self.now).unwrap();
        self.keep(&sample, became, true);
        if self.random.one_in(10) {
            let again = self.store().record(sample.view(), key, self.now).unwrap();
            assert_eq!(again.duplicate, became.stored > 0, "{sample:?}");
            assert_eq!(again.stored, 0);
        }
    }

    fn record_many(&mut self) {
        let samples: Vec<_> = (0..10).map(|_| self.sample()).collect();
        let views: Vec<_> = samples.iter().map(Sample::view).collect();
        let BatchOutcome { stored, others } = self.store().record_many(views.len(), |place| views[place], self.now);
        let mut others = others.into_iter().peekable();
        let mut stored_whole = 0;
        for (place, sample) in samples.iter().enumerate() {
            let whole = RecordOutcome { stored: sample.values.len(), ..RecordOutcome::default() };
            let became = others.next_if(|(other, _)| *other == place).map_or(Ok(whole), |(_, became)| became).unwrap();
            stored_whole += if became == whole { whole.stored } else { 0 };
            self.keep(sample, became, false);
        }
        assert_eq!(stored, stored_whole);
    }

    fn keep(&mut self, sample: &Sample<'_>, became: RecordOutcome, has_key: bool) {
        let is_old = |window: &Window| interval(window, sample.epoch) < oldest(window, self.now);
        let is_past_retry = sample.epoch + self.keep.retry_horizon_sec < self.now;
        let expired = self.keep.windows().iter().all(is_old) || (has_key && is_past_retry);
        let (stored, expired) = if expired { (0, sample.values.len()) } else { (sample.values.len(), 0) };
        assert_eq!(became, RecordOutcome { stored, expired, ..RecordOutcome::default() }, "{sample:?} at {}", self.now);
        if stored > 0 {
            for (label, value) in &sample.values {
                let label = LABELS.iter().find(|known| *known == label).unwrap();
                self.model
                    .entry((sample.host.to_string(), label))
                    .or_default()
                    .entry(sample.epoch)
                    .or_default()
                    .push(*value);
            }
        }
    }

    fn compare_all(&self) {
        (0..HOSTS).for_each(|host| self.compare(&format!("host-{host}")));
    }

    /// Compares all that the store says of a host with what the model has.
    fn compare(&self, host: &str) {
        let wanted = KeyFilter::containing("");
        let series = self.store().series(host, &LabelPage::all(&wanted), self.now).unwrap();
        let answer =
            serde_json::to_value(Summaries { series: &series, filter: &wanted, keep: &self.keep, now: self.now })
                .unwrap();
        for label in LABELS {
            let samples = self.model.get(&(host.to_owned(), label));
            for window in self.keep.windows() {
                let sure = self.sure(window);
                let mut expected: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
                for (epoch, values) in
                    samples.iter().flat_map(|samples| samples.range(sure * window.interval_sec + 1..))
                {
                    let number = interval(window, *epoch);
                    if number * window.interval_sec < self.now {
                        expected.entry(number).or_default().extend(values);
                    }
                }
                let listed = &answer[format!("summary:{}:{label}", window.name)]["averages"];
                let listed: BTreeMap<u64, &Value> = listed
                    .as_array()
                    .map_or(&[][..], Vec::as_slice)
                    .iter()
                    .map(|average| (average["start-sec"].as_u64().unwrap() / window.interval_sec, average))
                    .filter(|(number, _)| *number >= sure)
                    .collect();
                let about = format!("{host} {label} {} at {}", window.name, self.now);
                let range = IntervalRange { window: *window, first: sure, last: interval(window, self.now) };
                let page = LabelPage::all(&wanted);
                let ranges = self.store().range(host, &page, range, self.now).unwrap();
                let kept = ranges.into_iter().find(|(known, _)| known == label);
                let kept: BTreeMap<u64, Bucket> = kept.map(|(_, kept)| kept).unwrap_or_default().into_iter().collect();
                assert!(expected.keys().eq(kept.keys()), "{about}: {:?}, {:?}", expected.keys(), kept.keys());
                expected.iter().for_each(|(number, values)| compare_bucket(values, kept[number], &about));
                // Listed are the newest sixty of the last hour, ten hours, day and sixty days.
                let listed_sec = match window.interval_sec {
                    60 => 3600,
                    600 => 36_000,
                    3600 => 86_400,
                    _ => 60 * 86_400,
                };
                let first = (self.now - listed_sec.min(window.span_sec)) / window.interval_sec;
                let expected: BTreeMap<_, _> =
                    expected.into_iter().filter(|(number, _)| *number >= first).rev().take(60).collect();
                assert!(expected.keys().eq(listed.keys()), "{about}: {:?}, {:?}", expected.keys(), listed.keys());
                for (number, values) in expected {
                    compare_interval(&values, listed[&number], kept[&number].sum, &about);
                }
            }
        }
    }
}

fn compare_bucket(values: &[f64], kept: Bucket, about: &str) {
    let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(*value), max.max(*value)));
    let Bucket { count, sum, min: kept_min, max: kept_max } = kept;
    assert_eq!((count as usize, kept_min, kept_max), (values.len(), min, max), "{about}");
    let n = values.len() as f64;
    let bound = n * 2_f64.powi(-52) * min.abs().max(max.abs());
    let error = sum / n - exact_sum(values) / n;
    assert!(error.abs() <= bound, "{about}: off by {error:e} of {n} samples, the bound is {bound:e}");
}

fn compare_interval(values: &[f64], listed: &Value, sum: f64, about: &str) {
    let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(*value), max.max(*value)));
    assert_eq!(listed["num-samples"], values.len(), "{about}");
    assert_eq!((listed["min"].as_f64(), listed["max"].as_f64()), (Some(min), Some(max)), "{about}");
    let rounded: f64 = format!("{:.2}", sum / values.len() as f64).parse().unwrap();
    assert_eq!(listed["avg"].as_f64(), Some(rounded), "{about}");
}

/// A sum whose error is that of one rounding, or nearly so (Neumaier).
fn exact_sum(values: &[f64]) -> f64 {
    let (sum, lost) = values.iter().fold((0.0_f64, 0.0), |(sum, lost), value| {
        let next = sum + value;
        let more = if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        (next, lost + more)
    });
    sum + lost
}

/// The interval of an epoch: it begins after its start, and ends with its end.
fn interval(window: &Window, epoch: u64) -> u64 {
    epoch.div_ceil(window.interval_sec) - 1
}

fn oldest(window: &Window, now: u64) -> u64 {
    if now < window.ends_sec { (now - window.span_sec) / window.interval_sec } else { u64::MAX / window.interval_sec }
}

fn try_operations(count: usize, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut trial = Trial {
        directory: directory.path(),
        store: Some(open(directory.path(), Some(Keep::default()), BEGIN)),
        model: Model::new(),
        random: Random(seed),
        true_sec: BEGIN,
        now: BEGIN,
        latest_now: BEGIN,
        seq: 0,
        keep: Keep::default(),
        whole_since: BTreeMap::new(),
    };
    (0..count).for_each(|_| trial.step());
    trial.compare_all();
    let kept: usize = trial.model.values().flat_map(BTreeMap::values).map(Vec::len).sum();
    println!("{count} operations over {} s kept {kept} values", trial.true_sec - BEGIN);
}

#[test]
fn a_store_says_what_a_model_says_that_keeps_every_sample() {
    for seed in 1..=3 {
        try_operations(20_000, seed);
    }
}

#[test]
#[ignore = "takes a minute or more; a million operations by LIZM_TEST_OPERATIONS=1000000"]
fn a_store_says_what_a_model_says_over_many_operations() {
    let count = std::env::var("LIZM_TEST_OPERATIONS").map_or(100_000, |count| count.parse().unwrap());
    try_operations(count, 20_261_124);
}
