//! Every store merges exactly: where all minutes are still kept, ten minutes, an hour and a day are the merge of their
//! minutes, whenever samples came, how late, and since when the coarser interval is kept.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lizm::sample::{IdempotencyKey, Sample};
use lizm::store::{KeepOptions, LabelPage, Location, Store};
use lizm::summary::{Bucket, IntervalRange, Intervals, Keep, KeyFilter};

use crate::stores::Sequence;

const DAY: u64 = 86_400;
const NOW: u64 = 1_465_001_814;
const BEFORE: &str = "1m:2d,1h:20d";
const AFTER: &str = "1m:2d,10m:3d,1h:20d,1d:60d";
const HOSTS: [&str; 3] = ["a", "b", "down"];
const LABELS: [&str; 3] = ["cpu", "disk /var", "é"];

/// Opens the store again that there is, to keep this.
type Open<'a> = &'a dyn Fn(&str) -> Store;

/// The minutes of each label of each host that was recorded.
type Minutes = BTreeMap<(&'static str, &'static str), BTreeMap<u64, Bucket>>;

fn add(into: &mut BTreeMap<u64, Bucket>, number: u64, bucket: Bucket) {
    into.entry(number).or_default().merge(bucket);
}

/// Records samples that are up to `late_sec` late, a part of them twice under their key.
fn record(
    store: &Store,
    hosts: &[&'static str],
    late_sec: u64,
    first: u64,
    sequence: &mut Sequence,
    minutes: &mut Minutes,
) {
    let oldest = NOW - late_sec;
    for seq in first..first + 300 {
        let epoch = oldest + 1 + sequence.below(late_sec);
        let host = hosts[sequence.below(hosts.len() as u64) as usize];
        // Eighths, whose sums are exact in any order.
        let values = LABELS.iter().take(1 + sequence.below(3) as usize);
        let values: Vec<_> =
            values.map(|label| (Cow::Borrowed(*label), sequence.below(100_000) as f64 / 8.0 - 5000.0)).collect();
        let sample = Sample { host: host.into(), epoch, values };
        let key = (seq % 3 > 0).then(|| IdempotencyKey::new("s", seq));
        let outcome = store.record(sample.view(), key, NOW).unwrap();
        assert_eq!((outcome.stored, outcome.expired), (sample.values.len(), 0), "{epoch}");
        for (label, value) in &sample.values {
            let label = LABELS.iter().find(|known| **known == *label).unwrap();
            let bucket = Bucket { count: 1, sum: *value, min: *value, max: *value };
            add(minutes.entry((host, label)).or_default(), (epoch - 1) / 60, bucket);
        }
        if key.is_some() && seq % 7 == 0 {
            assert!(store.record(sample.view(), key, NOW).unwrap().duplicate);
        }
        if seq % 50 == 0 {
            store.checkpoint().unwrap();
        }
    }
}

/// Holds what the store has of each interval since `age_sec` to the minutes that were recorded.
fn compare(store: &Store, minutes: &Minutes, window: usize, age_sec: u64) {
    let window = store.keep().windows()[window];
    let (first, last) = ((NOW - age_sec).div_ceil(window.interval_sec), (NOW - 1) / window.interval_sec);
    for host in HOSTS {
        let all = KeyFilter::containing("");
        let ranges = store.range(host, &LabelPage::all(&all), IntervalRange { window, first, last }, NOW).unwrap();
        for (label, kept) in ranges {
            let label = *LABELS.iter().find(|known| **known == label).unwrap();
            let mut expected = BTreeMap::new();
            for (minute, bucket) in &minutes[&(host, label)] {
                let number = minute * 60 / window.interval_sec;
                if number >= first {
                    add(&mut expected, number, *bucket);
                }
            }
            assert_eq!(kept, expected.into_iter().collect::<Intervals>(), "{host} {label} {}", window.name);
        }
    }
}

/// `changes` says whether what is kept may be changed.
fn pass(open: Open<'_>, changes: bool) {
    let (mut sequence, mut minutes) = (Sequence::new(11), Minutes::new());
    let mut store = open(if changes { BEFORE } else { AFTER });
    record(&store, &HOSTS, 2 * DAY - 100, 1, &mut sequence, &mut minutes);
    if changes {
        [(0, 2 * DAY), (1, 20 * DAY)].iter().for_each(|(window, age)| compare(&store, &minutes, *window, *age));
        drop(store);
        store = open(AFTER);
    }
    record(&store, &HOSTS[..2], 2 * DAY - 100, 1000, &mut sequence, &mut minutes);
    store.sweep(NOW);
    store.checkpoint().unwrap();
    for round in 0..2 {
        for (window, age_sec) in [(0, 2 * DAY - 60), (1, 2 * DAY), (2, 20 * DAY), (3, 59 * DAY)] {
            // A day that minutes cover in part has what hours have of it.
            compare(&store, &minutes, window, age_sec);
        }
        // As late as the longest window lets them.
        if round == 0 {
            record(&store, &HOSTS[..2], 59 * DAY, 2000, &mut sequence, &mut minutes);
            compare(&store, &minutes, 3, 58 * DAY);
            compare(&store, &minutes, 2, 19 * DAY);
            drop(store);
            store = open(AFTER);
            if !changes {
                return;
            }
        }
    }
}

fn options(keep: &str) -> KeepOptions {
    let asked = Some(keep.parse::<Keep>().unwrap());
    KeepOptions { asked, may_drop: true, retry_horizon_sec: 60 * DAY }
}

#[test]
fn memory_merges_exactly() {
    pass(&|keep| Store::open_to_keep(&Location::Memory, 1000, &options(keep), NOW).unwrap(), false);
}

#[cfg(feature = "disk")]
#[test]
fn a_directory_merges_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Directory { path: dir.path().to_owned(), fsync_always: false };
    pass(&|keep| Store::open_to_keep(&location, 1000, &options(keep), NOW).unwrap(), true);
}

#[cfg(feature = "redis")]
mod shared {
    use lizm::store::RedisAddress;

    use super::*;
    use crate::servers::{Cluster, Redis};

    fn pass_at(url: &str) {
        let location = Location::Redis(RedisAddress::parse(url, None).unwrap());
        pass(&|keep| Store::open_to_keep(&location, 1000, &options(keep), NOW).unwrap(), true);
    }

    #[test]
    #[ignore = "needs redis-server"]
    fn redis_merges_exactly() {
        pass_at(&Redis::start(&[]).url());
    }

    #[test]
    #[ignore = "needs redis-server"]
    fn a_cluster_merges_exactly() {
        pass_at(&Cluster::start().url());
    }
}
