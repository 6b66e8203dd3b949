use std::borrow::Cow;
use std::sync::mpsc;

use super::*;
use crate::sample::Sample;
use crate::store::LabelPage;
use crate::summary::{Keep, KeyFilter, Summaries};
use serde_json::Value;

const NOW: u64 = 1_465_001_814;

pub(super) fn open_as_it_is(path: &Path, now: u64) -> DiskStore {
    DiskStore::open(path, false, 1000.into(), &KeepOptions::default(), now).unwrap()
}

/// Opens a directory that keeps what memory holds, minutes for an hour and hours for a day.
pub(super) fn open(path: &Path, now: u64) -> DiskStore {
    let keep = KeepOptions { asked: Some(Keep::default()), ..KeepOptions::default() };
    DiskStore::open(path, false, 1000.into(), &keep, now).unwrap()
}

pub(super) fn put(
    store: &DiskStore,
    host: &str,
    epoch: u64,
    values: &[(&'static str, f64)],
    seq: u64,
    now: u64,
) -> RecordOutcome {
    let values = values.iter().map(|(label, value)| (Cow::Borrowed(*label), *value)).collect();
    store.record(Sample { host: host.into(), epoch, values }.view(), Some(IdempotencyKey::new("s", seq)), now).unwrap()
}

pub(super) fn answer(store: &DiskStore, host: &str, now: u64) -> Value {
    let filter = KeyFilter::containing("");
    let series = store.memory().series(host, &LabelPage::all(&filter), now);
    serde_json::to_value(Summaries { series: &series, filter: &filter, keep: store.memory().keep(), now }).unwrap()
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(fs::copy(entry.path(), target))
        }
    }
}

#[test]
fn checkpoints_and_logs_restore_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Value::Null;
    for round in 0..6_u64 {
        let store = open(dir.path(), NOW);
        if round > 0 {
            assert_eq!(answer(&store, "h", NOW), expected, "round {round}");
            assert!(put(&store, "h", NOW, &[("cpu", 1.0)], 10 * round, NOW).duplicate);
        }
        for step in 1..=10_u64 {
            let epoch = NOW - 600 * (step % 5) - 7000 * (step % 3);
            assert_eq!(put(&store, "h", epoch, &[("cpu", 0.5), ("mem", 8.0)], 10 * round + step, NOW).stored, 2);
            // Restarts after no checkpoint, one, and several, with and without samples after it.
            if step % (round + 1) == 0 && round > 0 {
                store.checkpoint().unwrap();
            }
        }
        assert_eq!(put(&store, "forgotten", NOW, &[("cpu", 0.5)], round, NOW).stored, 1);
        assert!(store.remove("forgotten").unwrap());
        expected = answer(&store, "h", NOW);
    }
}

#[test]
fn a_restart_keeps_the_last_hour_where_the_clock_was_ahead_or_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    let ahead = NOW + 5 * 3600;
    assert_eq!(put(&store, "h", ahead, &[("cpu", 9.0)], 1, ahead).stored, 1);
    store.checkpoint().unwrap();
    for minute in 0..60 {
        let now = NOW - 60 * (59 - minute);
        assert_eq!(put(&store, "h", now, &[("cpu", 1.0)], 2 + minute, now).stored, 1);
    }
    store.checkpoint().unwrap();
    let expected = answer(&store, "h", NOW);
    assert_eq!(expected["summary:by-minute:cpu"]["average-count"], 60);
    drop(store);
    for clock in [NOW, NOW - 2 * 3600] {
        assert_eq!(answer(&open(dir.path(), clock), "h", NOW), expected, "opened at {clock}");
    }
}

#[test]
fn what_has_expired_leaves_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    for host in ["a", "b"] {
        assert_eq!(put(&store, host, NOW, &[("cpu", 1.0)], 1, NOW).stored, 1);
    }
    store.checkpoint().unwrap();
    let later = NOW + 33 * 86_400;
    assert_eq!(put(&store, "a", later, &[("cpu", 2.0)], 2, later).stored, 1);
    store.checkpoint().unwrap();
    assert_eq!(store.memory().sweep(later), ["b"]);
    store.expire(later).unwrap();
    let keyspaces = store.ask(POST_WITHIN, Journal::keyspaces).unwrap();
    let keys: Vec<Vec<u8>> = keyspaces.state.iter().map(|guard| guard.key().unwrap().to_vec()).collect();
    assert_eq!(keys.iter().filter(|key| key.starts_with(b"b\0")).count(), 2, "a chunk of each window");
    assert_eq!(keys.iter().filter(|key| key.starts_with(b"h\0")).collect::<Vec<_>>(), [b"h\0a"]);
}

#[test]
fn a_host_that_is_down_is_there_after_restarts_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    assert_eq!(put(&store, "a", NOW, &[("cpu", 1.0)], 1, NOW).stored, 1);
    store.checkpoint().unwrap();
    drop(store);
    let later = NOW + 20 * 86_400;
    for restart in 0..2 {
        let store = open(dir.path(), later);
        assert!(store.memory().sweep(later).is_empty());
        store.expire(later).unwrap();
        let status = store.memory().status("a", &[], later).unwrap();
        assert_eq!((status.last_epoch, status.labels.len()), (NOW, 0), "restart {restart}");
    }
    let later = NOW + 32 * 86_400;
    let store = open(dir.path(), later);
    assert_eq!(store.memory().sweep(later), ["a"]);
    store.expire(later).unwrap();
    drop(store);
    assert!(open(dir.path(), later).memory().hosts().is_empty());
}

fn record(store: &DiskStore, host: &str, labels: usize, seq: u64) -> Result<RecordOutcome, StoreError> {
    let values = (0..labels).map(|label| (format!("label-{label}").into(), 1.0)).collect();
    let sample = Sample { host: host.into(), epoch: NOW, values };
    store.record(sample.view(), Some(IdempotencyKey::new("s", seq)), NOW)
}

/// How many samples of each label are in the hour that runs.
fn counts(store: &DiskStore, host: &str) -> Vec<u64> {
    let summaries = answer(store, host, NOW);
    let hours = summaries.as_object().unwrap().iter().filter(|(key, _)| key.contains("by-hour"));
    hours.map(|(_, hour)| hour["averages"][0]["num-samples"].as_u64().unwrap()).collect()
}

fn await_available(store: &DiskStore) {
    while store.unavailable().is_some() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Has the journal's thread stand still until the returned sender is dropped.
pub(in crate::store) fn stall(store: &DiskStore) -> mpsc::Sender<()> {
    let ((begin, begun), (release, released)) = (mpsc::channel(), mpsc::channel());
    store.queue.push_task(move |_| {
        begin.send(()).unwrap();
        let _ = released.recv();
    });
    begun.recv().unwrap();
    release
}

#[test]
fn a_disk_that_stalls_refuses_posts_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    record(&store, "h", 1, 1).unwrap();
    let release = stall(&store);
    let refused = record(&store, "h", 1, 2).unwrap_err();
    assert!(refused.to_string().contains("the disk has not answered") && !refused.is_uncertain, "{refused}");
    assert!(store.unavailable().is_some());
    assert!(record(&store, "h", 1, 3).is_err() && store.remove("h").is_err());
    assert_eq!((store.memory().hosts(), counts(&store, "h")), (vec!["h".into()], vec![1]));
    drop(release);
    await_available(&store);
    // Neither was kept, so that the retry is no duplicate.
    assert_eq!(record(&store, "h", 1, 2).unwrap().stored, 1);
    assert!(record(&store, "h", 1, 2).unwrap().duplicate);
    assert_eq!(counts(&store, "h"), [2]);
}

#[test]
fn posts_that_come_together_are_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    (0..8).for_each(|host| assert_eq!(record(&store, &format!("h{host}"), 3, 1).unwrap().stored, 3));
    let newest = || store.ask(POST_WITHIN, |journal| Ok(journal.newest_batch())).unwrap();
    let before = newest();
    let release = stall(&store);
    thread::scope(|scope| {
        // The last is a retry that overtakes the answer to its first attempt.
        let posts: Vec<_> = (0..9)
            .map(|post| {
                let store = &store;
                scope.spawn(move || record(store, &format!("h{}", post % 8), 3, 2).unwrap())
            })
            .collect();
        while store.queue.waiting() < 9 {
            thread::yield_now();
        }
        drop(release);
        let outcomes: Vec<_> = posts.into_iter().map(|post| post.join().unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.stored == 3).count(), 8);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.duplicate).count(), 1);
    });
    assert!(newest() <= before + 2, "{} batches", newest() - before);
    drop(store);
    let store = open(dir.path(), NOW);
    (0..8).for_each(|host| assert_eq!(counts(&store, &format!("h{host}")), [2, 2, 2]));
}

#[test]
fn after_a_failed_fsync_nothing_depends_on_the_old_journal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    (1..=20).for_each(|seq| assert_eq!(record(&store, "h", 2, seq).unwrap().stored, 2));
    record(&store, "removed", 2, 1).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.remove("removed"), Ok(true));
    let failed: Result<(), _> = store.ask(POST_WITHIN, |journal| Err(journal.fail("cannot be written", true)));
    assert!(record(&store, "h", 2, 21).is_err(), "{failed:?}");
    await_available(&store);
    (21..=30).for_each(|seq| assert_eq!(record(&store, "h", 2, seq).unwrap().stored, 2));
    drop(store);
    // Of the old journal the device has lost a page, if it is there at all.
    if let Ok(mut old) = fs::read(dir.path().join("fjall/0.jnl")) {
        let written = old.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        old[written / 2..written].fill(0);
        fs::write(dir.path().join("fjall/0.jnl"), old).unwrap();
    }
    let store = open(dir.path(), NOW);
    assert_eq!((store.memory().hosts(), counts(&store, "h")), (vec!["h".into()], vec![30, 30]));
    assert!(record(&store, "h", 2, 30).unwrap().duplicate);
}

/// The process ends between two steps of a checkpoint, after samples that some of the chunks have.
#[test]
fn a_checkpoint_that_was_cut_short_counts_each_sample_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let store = open(&path, NOW);
    let labels = 700;
    (1..=3).for_each(|seq| assert_eq!(record(&store, "h", labels, seq).unwrap().stored, labels));
    let (queue, from, to) = (store.queue.clone(), path.clone(), cut.clone());
    let checkpoint = store.ask(MAINTENANCE_WITHIN, move |journal| {
        // Carried out between two steps: another sample, and after the next step the copy.
        let between = queue.clone();
        queue.push_task(move |_| {
            let mut entries = Vec::new();
            let values: Vec<_> = (0..labels).map(|label| (format!("label-{label}").into(), 1.0)).collect();
            let sample = SampleRef { host: "h", epoch: NOW, values: &values };
            put_sample(&mut entries, sample, Some(IdempotencyKey::new("s", 4)), NOW);
            let reply = Reply::new(POST_WITHIN, None);
            between.push_samples(Samples { entries, address: None, reply }).unwrap();
            between.push_task(move |_| copy(&from, &to));
        });
        journal.checkpoint().map(drop)
    });
    checkpoint.unwrap();
    assert_eq!(counts(&store, "h"), vec![4; labels]);
    let store = open(&cut, NOW);
    assert_eq!(counts(&store, "h"), vec![4; labels]);
    assert!(record(&store, "h", labels, 4).unwrap().duplicate);
    store.checkpoint().unwrap();
    drop(store);
    assert_eq!(counts(&open(&cut, NOW), "h"), vec![4; labels]);
}

/// Another checkpoint is asked for between two steps of one, and then the process ends.
#[test]
fn a_checkpoint_begins_when_the_one_before_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let store = open(&path, NOW);
    let labels = 700;
    (1..=3).for_each(|seq| assert_eq!(record(&store, "h", labels, seq).unwrap().stored, labels));
    let (queue, from, to, (begin, begun)) = (store.queue.clone(), path.clone(), cut.clone(), mpsc::channel());
    store.queue.push_task(move |journal| {
        begin.send(()).unwrap();
        while queue.waiting() == 0 {
            thread::yield_now();
        }
        queue.push_task(move |_| copy(&from, &to));
        journal.checkpoint().map(drop).unwrap();
    });
    begun.recv().unwrap();
    store.checkpoint().unwrap();
    assert_eq!(counts(&store, "h"), vec![3; labels]);
    assert_eq!(counts(&open(&cut, NOW), "h"), vec![3; labels]);
}

#[test]
fn a_post_that_comes_behind_a_checkpoint_is_recorded_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NOW);
    let (release, (seen, was_seen)) = (stall(&store), mpsc::channel());
    store.queue.push_long_task(move |journal| seen.send(journal.memory().has_host("h")).unwrap());
    let sample = Sample { host: "h".into(), epoch: NOW, values: vec![("cpu".into(), 1.0)] };
    store.begin_record(sample.view(), None, NOW, None).unwrap();
    drop(release);
    assert!(was_seen.recv().unwrap());
}
