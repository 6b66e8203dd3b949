//! One suite for every store: in memory, in a directory, in Redis, in a Redis Cluster. They give the same answers.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use lizm::sample::{IdempotencyKey, Sample, Tags, decode_values};
use lizm::store::{BatchOutcome, HostState, LabelPage, Limit, Limits, Location, RecordOutcome, Store};
use lizm::summary::{KeyFilter, Summaries};
use serde_json::Value;
use smol_str::SmolStr;

const NOW: u64 = 1_465_001_814;

/// Opens an empty store with these limits.
type OpenLimited<'a> = &'a dyn Fn(Limits) -> Store;

/// Opens an empty store for so many series.
type Open<'a> = &'a dyn Fn(usize) -> Store;

/// Holds a store to all cases.
fn pass(open: OpenLimited<'_>) {
    CASES.iter().for_each(|case| case(&|series_max| open(Limits::from(series_max))));
    labels_of_a_host_are_bounded(open);
}

const CASES: [fn(Open<'_>); 14] = [
    golden_vectors_of_the_reference,
    a_sum_is_that_of_its_doubles_to_the_last_bit,
    a_retry_does_not_count_twice,
    sources_of_a_host_are_bounded_and_the_longest_unheard_gives_way,
    the_cap_refuses_new_series_and_serves_those_there_are,
    what_is_too_old_or_empty_makes_no_host,
    states_follow_the_learned_interval,
    the_skew_of_a_clock_is_the_greatest_difference_of_a_minute,
    series_and_hosts_are_sorted_whatever_their_names,
    what_has_left_its_windows_is_gone,
    a_host_that_is_down_stays_until_it_is_forgotten,
    machines_under_one_name_are_a_conflict,
    a_host_has_the_tags_that_were_set_last,
    whatever_comes_in_any_order_is_answered_as_by_memory,
];

#[test]
fn memory_passes() {
    pass(&|limits| Store::open(&Location::Memory, limits, NOW).unwrap());
}

#[cfg(feature = "disk")]
#[test]
fn a_directory_passes() {
    let root = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    // As much as the others keep without --keep.
    let asked = Some(lizm::summary::Keep::default());
    let keep = lizm::store::KeepOptions { asked, ..lizm::store::KeepOptions::default() };
    pass(&|limits| {
        opened.set(opened.get() + 1);
        let location = Location::Directory { path: root.path().join(opened.get().to_string()), fsync_always: false };
        Store::open_to_keep(&location, limits, &keep, NOW).unwrap()
    });
}

#[cfg(feature = "redis")]
mod shared {
    use lizm::store::RedisAddress;

    use super::*;
    use crate::servers::{Cluster, Redis};

    fn open<'a>(url: &str, nodes: &'a [Redis]) -> impl Fn(Limits) -> Store + use<'a> {
        let location = Location::Redis(RedisAddress::parse(url, None).unwrap());
        move |limits| {
            nodes.iter().for_each(|node| assert_eq!(node.ask(&["FLUSHALL"]), "+OK\r\n"));
            Store::open(&location, limits, NOW).unwrap()
        }
    }

    #[test]
    #[ignore = "needs redis-server"]
    fn redis_passes() {
        let nodes = [Redis::start(&[])];
        pass(&open(&nodes[0].url(), &nodes));
    }

    #[test]
    #[ignore = "needs redis-server"]
    fn a_cluster_passes() {
        let cluster = Cluster::start();
        pass(&open(&cluster.url(), &cluster.0));
    }

    /// What scripts a server had are gone with `SCRIPT FLUSH`, as with a restart.
    #[test]
    #[ignore = "needs redis-server"]
    fn scripts_that_are_missing_are_loaded_again() {
        let redis = Redis::start(&[]);
        let store = open(&redis.url(), std::slice::from_ref(&redis))(10.into());
        for count in 1..=3 {
            assert_eq!(redis.ask(&["SCRIPT", "FLUSH"]), "+OK\r\n");
            assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), None, NOW), stored(1));
            assert_eq!(answer(&store, "h", NOW)["summary:by-hour:cpu"]["averages"][0]["num-samples"], count);
        }
        assert!(redis.ask(&["SCRIPT", "FLUSH"]) == "+OK\r\n" && store.remove("h", NOW).unwrap());
    }

    /// The first sample of a source in a minute says how long the hash lasts, for all of that minute.
    #[test]
    #[ignore = "needs redis-server"]
    fn sources_last_for_25_hours_and_5_minutes_after_their_last_sample() {
        let redis = Redis::start(&[]);
        let store = open(&redis.url(), std::slice::from_ref(&redis))(10.into());
        let minute = NOW / 60 * 60;
        for (seq, now, set) in [(1, minute, true), (2, minute + 59, false), (3, minute + 60, true)] {
            assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key("s", seq), now), stored(1));
            let ttl = redis.ask(&["TTL", "lizm:{h}:sources"]);
            let ttl: u64 = ttl.trim_start_matches(':').trim_end().parse().unwrap();
            let least = 25 * 3600 + 300 + 60 - 10;
            assert!((set && ttl > least) || (!set && ttl <= 100), "{seq}: {ttl}");
            assert_eq!(redis.ask(&["EXPIRE", "lizm:{h}:sources", "100"]), ":1\r\n");
        }
    }

    /// Two receivers that share a store, neither of which has state of its own.
    #[test]
    #[ignore = "needs redis-server"]
    fn what_one_stores_the_other_knows() {
        let redis = Redis::start(&[]);
        let location = Location::Redis(RedisAddress::parse(&redis.url(), None).unwrap());
        let [a, b] = [(); 2].map(|()| Store::open(&location, 3, NOW).unwrap());
        assert_eq!(put(&a, &sample("h", NOW, &["cpu", "mem"]), key("s", 1), NOW), stored(2));
        assert!(put(&b, &sample("h", NOW, &["cpu"]), key("s", 1), NOW).duplicate);
        assert_eq!(put(&b, &sample("h", NOW, &["cpu"]), key("s", 2), NOW), stored(1));
        assert_eq!(answer(&a, "h", NOW), answer(&b, "h", NOW));
        // The limit is approximate: series that others have added are counted by the next sweep.
        b.sweep(NOW);
        assert_eq!((a.series_count(), b.series_count()), (2, 2));
        assert!(b.remove("h", NOW).unwrap() && !a.remove("h", NOW).unwrap());
        assert_eq!(put(&a, &sample("h", NOW, &["cpu"]), key("s", 1), NOW), stored(1));
        assert_eq!(b.hosts(NOW).unwrap(), ["h"]);
    }
}

fn sample(host: &str, epoch: u64, labels: &[&str]) -> Sample<'static> {
    let values = labels.iter().map(|label| (label.to_string().into(), 1.0)).collect();
    Sample { host: host.to_owned().into(), epoch, values }
}

fn put(store: &Store, sample: &Sample<'_>, key: Option<IdempotencyKey<'_>>, now: u64) -> RecordOutcome {
    store.record(sample.view(), key, now).unwrap()
}

fn key(source: &str, seq: u64) -> Option<IdempotencyKey<'_>> {
    Some(IdempotencyKey::new(source, seq))
}

fn stored(n: usize) -> RecordOutcome {
    RecordOutcome { stored: n, ..RecordOutcome::default() }
}

fn answer_of(store: &Store, host: &str, text: &str, now: u64) -> Value {
    let wanted = KeyFilter::containing(text);
    let series = store.series(host, &LabelPage::all(&wanted), now).unwrap();
    serde_json::to_value(Summaries { series: &series, filter: &wanted, keep: &store.keep(), now }).unwrap()
}

fn answer(store: &Store, host: &str, now: u64) -> Value {
    answer_of(store, host, "", now)
}

fn status(store: &Store, host: &str, now: u64) -> Option<lizm::store::Status> {
    store.statuses(&[host.into()], &[], now).unwrap().remove(0)
}

fn a_host_has_the_tags_that_were_set_last(open: Open<'_>) {
    let store = open(10);
    let set = |tags: &str| store.set_tags("h", &Tags::parse(tags).unwrap()).unwrap();
    let tags = || status(&store, "h", NOW).map(|status| status.tags.as_str().to_owned());
    assert!(!set("role=web") && tags().is_none() && store.hosts(NOW).unwrap().is_empty(), "tags alone make no host");
    put(&store, &sample("h", NOW, &["cpu"]), None, NOW);
    assert_eq!(tags().as_deref(), Some(""));
    for given in ["role=web,site=Köln", "role=db", "role=db", "", "a=1"] {
        assert!(set(given));
        put(&store, &sample("h", NOW, &["cpu"]), None, NOW);
        assert_eq!(tags().as_deref(), Some(given));
    }
    assert!(store.remove("h", NOW).unwrap() && !set("role=web"));
    put(&store, &sample("h", NOW, &["cpu"]), None, NOW);
    assert_eq!(tags().as_deref(), Some(""), "a host that was removed comes back without");
}

fn golden_vectors_of_the_reference(open: Open<'_>) {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/summaries.json")).unwrap();
    for vector in vectors.as_array().unwrap() {
        let store = open(100_000);
        let now = vector["now"].as_u64().unwrap();
        let bodies: Vec<String> = vector["samples"].as_array().unwrap().iter().map(|s| s[2].to_string()).collect();
        let samples = vector["samples"].as_array().unwrap().iter().zip(&bodies).map(|(sample, body)| Sample {
            host: sample[0].as_str().unwrap().into(),
            epoch: sample[1].as_u64().unwrap(),
            values: decode_values(body.as_bytes()).unwrap(),
        });
        let samples: Vec<Sample<'_>> = samples.collect();
        let views: Vec<_> = samples.iter().map(Sample::view).collect();
        for run in views.chunks(1000) {
            let BatchOutcome { others, .. } = store.record_many(run.len(), |place| run[place], now);
            others.into_iter().for_each(|(_, became)| assert!(became.is_ok(), "{became:?}"));
        }
        for (host, expected) in vector["summaries"].as_object().unwrap() {
            let mut answer = answer(&store, host, now);
            for summary in answer.as_object_mut().unwrap().values_mut() {
                for average in summary["averages"].as_array_mut().unwrap() {
                    let average = average.as_object_mut().unwrap();
                    let [min, mean, max] = ["min", "mean", "max"].map(|name| average.remove(name).unwrap().as_f64());
                    assert!(min <= mean && mean <= max);
                }
            }
            assert_eq!(&answer, expected, "{}: {host}", vector["name"]);
        }
    }
}

fn a_sum_is_that_of_its_doubles_to_the_last_bit(open: Open<'_>) {
    // Sums of a few digits, of 17, of a few again, out of range, and of 17 or fewer as it comes.
    let first = [1.5, 2.6, 0.2, -4.3, 0.1, 0.2, -0.300_000_000_000_000_04, f64::MAX, f64::MAX, -f64::MAX, 5e-324];
    let odd = (1..=1000).map(|n| f64::from(n).sqrt() * [0.1, -7.0, 1e9, 1.0 / 3.0][n as usize % 4]);
    let (store, mut sum) = (open(10), 0.0_f64);
    for (count, value) in (1..).zip(first.into_iter().chain(odd)) {
        let sample = Sample { values: vec![("cpu".into(), value)], ..sample("h", NOW, &[]) };
        assert_eq!(put(&store, &sample, None, NOW), stored(1));
        sum = (sum + value).clamp(-f64::MAX, f64::MAX);
        if count < 20 || count % 50 == 0 {
            let average = &answer(&store, "h", NOW)["summary:by-minute:cpu"]["averages"][0];
            assert_eq!(
                (average["num-samples"].as_u64(), average["mean"].as_f64()),
                (Some(count), Some(sum / count as f64))
            );
        }
    }
}

fn a_retry_does_not_count_twice(open: Open<'_>) {
    let store = open(10);
    assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key("a", 5), NOW), stored(1));
    for seq in [5, 4] {
        let again = put(&store, &sample("h", NOW, &["cpu"]), key("a", seq), NOW);
        assert_eq!(again, RecordOutcome { duplicate: true, ..RecordOutcome::default() });
    }
    let most = u64::MAX;
    for (host, source, seq) in [("h", "a", 6), ("h", "b", 1), ("g", "a", 5), ("h", "a", most - 1), ("h", "a", most)] {
        assert_eq!(
            put(&store, &sample(host, NOW, &["cpu"]), key(source, seq), NOW),
            stored(1),
            "{host} {source} {seq}"
        );
        assert!(put(&store, &sample(host, NOW, &["cpu"]), key(source, seq), NOW).duplicate);
    }
    assert!(put(&store, &sample("h", NOW, &[]), key("a", 1), NOW).duplicate);
    assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), None, NOW), stored(1));
    // A retry that is too old to count is answered so, whether it was counted or not.
    let late = put(&store, &sample("h", NOW, &["cpu"]), key("a", 5), NOW + 90_000);
    assert_eq!(late, RecordOutcome { expired: 1, ..RecordOutcome::default() });
}

fn sources_of_a_host_are_bounded_and_the_longest_unheard_gives_way(open: Open<'_>) {
    // Those heard within three hours stay beyond 64, up to 512.
    const HEARD_LATELY: u64 = 512;
    let store = open(10);
    let put_at = |source: u64, at| put(&store, &sample("h", NOW, &["cpu"]), key(&format!("s{source}"), 1), at);
    (0..=HEARD_LATELY).for_each(|source| assert_eq!(put_at(source, NOW + source), stored(1), "{source}"));
    assert!(put_at(1, NOW + 600).duplicate && put_at(HEARD_LATELY, NOW + 600).duplicate);
    assert_eq!(put_at(0, NOW + 600), stored(1), "the longest unheard has given way");
    // Of those that were silent for longer, one gives way to each that is new.
    let later = NOW + 600 + 3 * 3600;
    assert_eq!(put_at(1000, later), stored(1));
    assert!(put_at(3, later).duplicate && put_at(HEARD_LATELY, later).duplicate);
    assert_eq!(put_at(2, later), stored(1));
}

fn the_cap_refuses_new_series_and_serves_those_there_are(open: Open<'_>) {
    let store = open(2);
    assert_eq!(put(&store, &sample("a", NOW, &["cpu", "mem"]), None, NOW), stored(2));
    let refused_by = Some(Limit::Series);
    let refused = RecordOutcome { refused: 1, refused_by, ..RecordOutcome::default() };
    assert_eq!(put(&store, &sample("b", NOW, &["cpu"]), key("s", 1), NOW), refused);
    assert_eq!(store.hosts(NOW).unwrap(), ["a"]);
    let mixed = put(&store, &sample("a", NOW, &["disk", "cpu", "net"]), key("s", 1), NOW);
    assert_eq!(mixed, RecordOutcome { stored: 1, refused: 2, refused_by, ..RecordOutcome::default() });
    assert!(put(&store, &sample("a", NOW, &["cpu", "disk"]), key("s", 1), NOW).duplicate);
    assert!(store.remove("a", NOW).unwrap() && !store.remove("a", NOW).unwrap());
    assert!(store.hosts(NOW).unwrap().is_empty() && answer(&store, "a", NOW) == serde_json::json!({}));
    // What was refused was not remembered as counted.
    assert_eq!(put(&store, &sample("b", NOW, &["cpu"]), key("s", 1), NOW), stored(1));
    assert_eq!(store.series_count(), 1);
    // Samples that come together see the series that those before them made.
    let together = [&["cpu", "mem"][..], &["mem", "cpu"], &["mem", "disk"], &["net"]];
    let samples: Vec<_> = together.iter().map(|labels| sample("b", NOW, labels)).collect();
    let views: Vec<_> = samples.iter().map(Sample::view).collect();
    let partly = RecordOutcome { stored: 1, refused: 1, refused_by, ..RecordOutcome::default() };
    let expected = BatchOutcome { stored: 4, others: vec![(2, Ok(partly)), (3, Ok(refused))] };
    assert_eq!(store.record_many(views.len(), |place| views[place], NOW), expected);
    assert_eq!(store.hosts(NOW).unwrap(), ["b"]);
}

fn labels_of_a_host_are_bounded(open: OpenLimited<'_>) {
    let store = open(Limits { labels_per_host_max: 3, ..Limits::from(5) });
    let refused =
        |stored, refused, limit| RecordOutcome { stored, refused, refused_by: Some(limit), ..RecordOutcome::default() };
    let four = sample("none", NOW, &["cpu", "mem", "swap", "net"]);
    assert_eq!(put(&store, &four, None, NOW), refused(3, 1, Limit::LabelsPerHost));
    assert!(store.remove("none", NOW).unwrap());
    assert_eq!(put(&store, &sample("a", NOW, &["cpu", "mem"]), None, NOW), stored(2));
    let more = sample("a", NOW, &["mem", "swap", "net", "disk"]);
    assert_eq!(put(&store, &more, None, NOW), refused(2, 2, Limit::LabelsPerHost));
    assert_eq!(put(&store, &sample("a", NOW, &["net"]), None, NOW), refused(0, 1, Limit::LabelsPerHost));
    // An hour later the host is listed again.
    let later = NOW + 3600;
    assert_eq!(put(&store, &sample("a", later, &["net"]), None, later), refused(0, 1, Limit::LabelsPerHost));
    assert_eq!(put(&store, &sample("b", NOW, &["cpu", "mem", "swap"]), None, NOW), refused(2, 1, Limit::Series));
    assert_eq!(put(&store, &sample("a", NOW, &["swap", "cpu"]), None, NOW), stored(2));
    // With no room in the store either, nothing of a new host is kept.
    assert_eq!(put(&store, &four, None, NOW), refused(0, 4, Limit::Series));
    assert_eq!(store.hosts(NOW).unwrap(), ["a", "b"]);
    // Samples that come together have one limit.
    let store = open(Limits { labels_per_host_max: 2, ..Limits::from(5) });
    let samples = [&["cpu"][..], &["mem", "net"], &["disk"]].map(|labels| sample("h", NOW, labels));
    let expected = BatchOutcome {
        stored: 1,
        others: vec![(1, Ok(refused(1, 1, Limit::LabelsPerHost))), (2, Ok(refused(0, 1, Limit::LabelsPerHost)))],
    };
    assert_eq!(store.record_many(samples.len(), |place| samples[place].view(), NOW), expected);
    store.sweep(NOW);
    assert_eq!(store.series_count(), 2);
}

fn what_is_too_old_or_empty_makes_no_host(open: Open<'_>) {
    let store = open(2);
    let old = put(&store, &sample("a", NOW - 90_000, &["cpu", "mem"]), None, NOW);
    assert_eq!(old, RecordOutcome { expired: 2, ..RecordOutcome::default() });
    assert_eq!(put(&store, &sample("a", NOW, &[]), None, NOW), stored(0));
    assert!(store.hosts(NOW).unwrap().is_empty() && status(&store, "a", NOW).is_none());
}

fn states_follow_the_learned_interval(open: Open<'_>) {
    let store = open(10);
    let state = |host: &str, now| status(&store, host, now).unwrap().state(now);
    assert_eq!(put(&store, &sample("once", NOW, &["cpu"]), None, NOW), stored(1));
    assert_eq!(status(&store, "once", NOW).unwrap().interval_sec, None);
    assert_eq!((state("once", NOW + 60), state("once", NOW + 61)), (HostState::Up, HostState::Down));
    for (host, interval) in [("second", 1), ("minute", 60)] {
        for tick in 0..4 {
            // One lost sample does not change what was learned.
            let epoch = NOW + interval * if tick == 3 { 4 } else { tick };
            assert_eq!(put(&store, &sample(host, epoch, &["cpu"]), None, epoch), stored(1));
        }
        assert_eq!(status(&store, host, NOW).unwrap().interval_sec, Some(interval));
        assert_eq!(status(&store, host, NOW).unwrap().last_epoch, NOW + 4 * interval);
    }
    // After a clock that was hours ahead was set back, the interval is learned again.
    assert_eq!(put(&store, &sample("second", NOW + 7200, &["cpu"]), None, NOW + 7200), stored(1));
    assert_eq!(put(&store, &sample("second", NOW + 10, &["cpu"]), None, NOW + 10), stored(1));
    assert_eq!((state("second", NOW + 10), state("second", NOW + 71)), (HostState::Up, HostState::Down));
}

fn the_skew_of_a_clock_is_the_greatest_difference_of_a_minute(open: Open<'_>) {
    let store = open(10);
    let after = |host: &str, epoch, now| {
        assert_eq!(put(&store, &sample(host, epoch, &["cpu"]), None, now), stored(1));
        status(&store, host, now).unwrap().clock_skew_sec
    };
    assert_eq!((after("behind", NOW - 600, NOW), after("ahead", NOW + 240, NOW)), (Some(-600), Some(240)));
    // What is late, from a backlog or by another way, says nothing of a clock that was heard on time a moment ago.
    assert_eq!(
        (after("h", NOW, NOW), after("h", NOW - 3600, NOW + 1), after("h", NOW, NOW + 2)),
        (Some(0), Some(0), Some(0))
    );
    assert_eq!(after("h", NOW - 541, NOW + 59), Some(0));
    assert_eq!(after("h", NOW - 540, NOW + 60), Some(-600));
    // A difference that is seen again is as new as its last sample.
    assert_eq!((after("again", NOW, NOW), after("again", NOW + 50, NOW + 50)), (Some(0), Some(0)));
    assert_eq!((after("again", NOW, NOW + 109), after("again", NOW, NOW + 110)), (Some(0), Some(-110)));
    // The receiver's clock a day ahead and back, and an hour back.
    assert_eq!(after("h", NOW + 61, NOW + 86_461), Some(-86_400));
    assert_eq!((after("h", NOW + 62, NOW + 62), after("h", NOW - 3600, NOW - 3599)), (Some(0), Some(-1)));
}

fn series_and_hosts_are_sorted_whatever_their_names(open: Open<'_>) {
    let store = open(1000);
    let names = ["a}b{c", "{}", "}", "ü 1%", "b:c", "jarvis", "\"q\" 'r'", "%7D"];
    for host in names {
        assert_eq!(
            put(&store, &sample(host, NOW, &["mem", "cpu", "CPU idle", "1 2", "disk /var,a={b}"]), None, NOW),
            stored(5)
        );
    }
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(store.hosts(NOW).unwrap(), sorted);
    let hosts: Vec<SmolStr> = sorted.iter().map(|host| (*host).into()).collect();
    for status in store.statuses(&hosts, &["cpu", "none"], NOW).unwrap() {
        let status = status.unwrap();
        assert_eq!(status.labels, ["1 2", "CPU idle", "cpu", "disk /var,a={b}", "mem"]);
        assert_eq!((status.recent.len(), &*status.recent[0].0, status.recent[0].1[59]), (1, "cpu", Some(1.0)));
    }
    let labels = |text| answer_of(&store, "}", text, NOW).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels("cPu").len(), 4);
    assert_eq!(labels("by-minute:m"), ["summary:by-minute:mem"]);
    assert!(labels("nothing").is_empty() && answer(&store, "nobody", NOW) == serde_json::json!({}));
    assert!(store.remove("}", NOW).unwrap() && status(&store, "{}", NOW).is_some());
    assert_eq!(store.hosts(NOW).unwrap().len(), names.len() - 1);
}

fn what_has_left_its_windows_is_gone(open: Open<'_>) {
    let store = open(10);
    assert_eq!(put(&store, &sample("a", NOW, &["cpu", "mem"]), key("s", 1), NOW), stored(2));
    assert_eq!(put(&store, &sample("b", NOW - 3600, &["cpu"]), None, NOW), stored(1));
    let later = NOW + 7200;
    assert_eq!(put(&store, &sample("a", later, &["mem"]), None, later), stored(1));
    store.sweep(NOW + 82_000);
    assert_eq!(store.hosts(NOW + 82_000).unwrap(), ["a", "b"]);
    let later = NOW + 86_400 + 3600;
    store.sweep(later);
    assert_eq!(status(&store, "a", later).unwrap().labels, ["mem"]);
    assert!(status(&store, "b", later).unwrap().labels.is_empty());
    assert!(put(&store, &sample("a", NOW + 7200, &["mem"]), key("s", 1), later).duplicate);
    let later = NOW + 90_300;
    store.sweep(later);
    assert_eq!(put(&store, &sample("a", NOW + 7200, &["mem"]), key("s", 1), later), stored(1));
    // A shared store counts a label until its host is listed again, an hour later.
    assert!((2..=3).contains(&store.series_count()));
    store.sweep(NOW + 3 * 86_400);
    assert_eq!(store.series_count(), 2, "none is left, and each host counts as one");
}

fn a_host_that_is_down_stays_until_it_is_forgotten(open: Open<'_>) {
    const DAY: u64 = 86_400;
    let store = open(3);
    assert_eq!(put(&store, &sample("a", NOW, &["cpu", "mem"]), key("s", 1), NOW), stored(2));
    assert_eq!(put(&store, &sample("b", NOW, &["cpu"]), None, NOW), stored(1));
    let later = NOW + 10 * DAY;
    assert!(store.sweep(later).is_empty());
    assert_eq!((store.hosts(later).unwrap(), store.series_count()), (vec!["a".into(), "b".into()], 2));
    let a = status(&store, "a", later).unwrap();
    assert_eq!((a.state(later), a.last_epoch, a.labels), (HostState::Down, NOW, Vec::<String>::new()));
    assert_eq!(answer(&store, "a", later), serde_json::json!({}));
    // It counts towards the limit on series. One that comes back has the place of its first series.
    assert_eq!(put(&store, &sample("c", later, &["cpu"]), None, later), stored(1));
    let refused = RecordOutcome { refused: 1, refused_by: Some(Limit::Series), ..RecordOutcome::default() };
    assert_eq!(put(&store, &sample("d", later, &["cpu"]), None, later), refused);
    assert_eq!(put(&store, &sample("b", later, &["cpu", "mem"]), None, later), RecordOutcome { stored: 1, ..refused });
    // It is forgotten after 31 days, counted from the end of the hour of its last sample.
    let end = (NOW / 3600 + 1) * 3600 + 31 * DAY;
    assert!(store.sweep(end - 1).is_empty() && status(&store, "a", end - 1).is_some());
    assert_eq!(store.sweep(end), ["a"]);
    assert_eq!(store.hosts(end).unwrap(), ["b", "c"]);
    assert!(status(&store, "a", end).is_none() && store.series_count() == 2);
    assert!(store.remove("b", end).unwrap() && !store.remove("b", end).unwrap());
    assert_eq!((store.hosts(end).unwrap(), store.series_count()), (vec!["c".into()], 1));
}

fn machines_under_one_name_are_a_conflict(open: Open<'_>) {
    let store = open(100);
    let address = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
    // Posts each source every ten seconds of its time, and returns the conflicts with their seconds.
    let run = |host: &str, sources: &[(&str, &str, RangeInclusive<u64>)]| {
        let mut found = Vec::new();
        for after in (0..=400).step_by(10) {
            for (place, (source, label, _)) in (1..).zip(sources).filter(|(_, (_, _, when))| when.contains(&after)) {
                let key = IdempotencyKey { source, seq: after + 1, address: address(place) };
                let key = Some(key).filter(|_| !source.is_empty());
                let now = NOW + after;
                let outcome = put(&store, &sample(host, now, &[label, "mem"]), key, now);
                assert_eq!(outcome, RecordOutcome { conflict: outcome.conflict, ..stored(2) });
                found.extend(outcome.conflict.map(|conflict| (after, conflict.addresses)));
            }
        }
        found
    };
    let state = |host: &str, after| status(&store, host, NOW + after).unwrap().state(NOW + after);
    // They are looked at once a minute, and reported once.
    let found = run("both", &[("a", "cpu", 0..=400), ("b", "cpu", 0..=120)]);
    assert_eq!(found, [(70, [address(2), address(1)])]);
    assert_eq!(run("always", &[("a", "cpu", 0..=400), ("b", "cpu", 0..=400)]).len(), 1);
    assert_eq!((state("both", 400), state("always", 400)), (HostState::Up, HostState::Conflict));
    assert_eq!(state("always", 501), HostState::Down);
    for (host, sources) in [
        ("restarted", [("a", "cpu", 0..=150), ("b", "cpu", 160..=400)]),
        ("replaced by another that was started before it ended", [("a", "cpu", 0..=150), ("b", "cpu", 120..=400)]),
        ("a monitor and a job", [("a", "cpu", 0..=400), ("b", "queue", 0..=400)]),
        ("without keys", [("", "cpu", 0..=400), ("", "cpu", 0..=400)]),
        ("a monitor and curl", [("a", "cpu", 0..=400), ("", "cpu", 0..=400)]),
    ] {
        assert_eq!(run(host, &sources), [], "{host}");
        assert_eq!(state(host, 400), HostState::Up, "{host}");
    }
    // One takes over while the other is silent, and the other comes back.
    let turns = [("a", "cpu", 0..=100), ("b", "cpu", 110..=200), ("a", "cpu", 210..=400)];
    assert_eq!(run("in turns", &turns), []);
    // A monitor that moves, or has two addresses, is one source.
    assert_eq!(run("on the move", &[("a", "cpu", 0..=90), ("a", "cpu", 100..=400)]), []);
}

/// A sequence that looks random and is the same each time (Knuth's MMIX constants).
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn whatever_comes_in_any_order_is_answered_as_by_memory(open: Open<'_>) {
    let (store, memory, mut sequence) = (open(1000), Store::new(1000), Sequence::new(7));
    let mut now = NOW;
    for round in 0..30 {
        // Of samples that come together Redis may take some later, so that their sums have to be exact in any order.
        let together = round % 2 == 0;
        let divisors = if together { [8.0; 5] } else { [7.0, 1000.0, -3.0, 1e-290, 1e290] };
        let mut samples = Vec::new();
        for _ in 0..40 {
            // Early, late, too late, and most of them of now.
            let epoch = match sequence.below(10) {
                0 => now + sequence.below(300),
                1 => now - sequence.below(100_000),
                2 | 3 => now - sequence.below(7200),
                _ => now - sequence.below(90),
            };
            let value = |sequence: &mut Sequence| {
                (sequence.below(100_000) as f64 / divisors[sequence.below(5) as usize]).clamp(-1e300, 1e300)
            };
            let labels = ["cpu", "mem", "disk /var", "é"].iter().take(1 + sequence.below(4) as usize);
            let values = labels.map(|label| (Cow::Borrowed(*label), value(&mut sequence))).collect();
            let host = format!("{}-{}", if together { "together" } else { "alone" }, sequence.below(2));
            samples.push(Sample { host: host.into(), epoch, values });
        }
        let views: Vec<_> = samples.iter().map(Sample::view).collect();
        if together {
            let many = |store: &Store| store.record_many(views.len(), |place| views[place], now);
            assert_eq!(many(&store), many(&memory));
        } else {
            let source = format!("s{}", sequence.below(3));
            for (seq, view) in (0..).zip(&views) {
                let key = key(&source, round * 35 + seq);
                assert_eq!(store.record(*view, key, now), memory.record(*view, key, now));
            }
        }
        [&store, &memory].iter().for_each(|store| drop(store.sweep(now)));
        assert_eq!(store.hosts(now), memory.hosts(now));
        let hosts = memory.hosts(now).unwrap();
        let statuses = |store: &Store| store.statuses(&hosts, &["mem", "é"], now).unwrap();
        for ((host, status), expected) in hosts.iter().zip(statuses(&store)).zip(statuses(&memory)) {
            let (mut status, expected) = (status.unwrap(), expected.unwrap());
            if host.starts_with("together") {
                status.interval_sec = expected.interval_sec;
            }
            assert_eq!(format!("{status:?}"), format!("{expected:?}"), "round {round}, {host}");
        }
        for host in &hosts {
            assert_eq!(answer(&store, host, now), answer(&memory, host, now), "round {round}, {host}");
        }
        now += 1 + sequence.below(9000);
    }
}
