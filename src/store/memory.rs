//! The hosts of one process, behind locks that never leave this module.
//!
//! Hosts are spread over shards by a keyed hash of their name, a `Mutex` each. Under a lock there is only arithmetic and
//! copying: no JSON, no network, no disk. Whatever a caller gets is a copy.

mod admission;
mod copies;

#[cfg(feature = "disk")]
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use indexmap::IndexMap;
use indexmap::map::raw_entry_v1::RawEntryApiV1;
use smol_str::SmolStr;

#[cfg(feature = "disk")]
use super::Conflict;
use super::archived::Archives;
use super::host::Host;
use super::{ArchiveCursor, BatchOutcome, Limits, RecordOutcome};
use crate::sample::{IdempotencyKey, SampleRef, Tags};
use crate::summary::{Keep, SampleTime};
#[cfg(feature = "disk")]
pub(super) use admission::Plan;

/// Locks that hosts are spread over, up to 256: few posts meet at one, and the sweep holds each for a moment only.
pub(super) const SHARDS: usize = 128;

/// The hosts of a shard, each with a place: the table that finds a host by its name is small, and stays in the cache.
pub(super) type Shard = IndexMap<SmolStr, Host, RandomState>;

/// The hosts of one process.
pub(super) struct MemoryStore {
    shards: Vec<Mutex<Shard>>,
    /// The same for every shard: a name is hashed once, for its shard and for its place there.
    hasher: RandomState,
    series: AtomicUsize,
    limits: Limits,
    keep: Keep,
    /// The time of the last sweep, by which checkpoints move to the disk what memory need not hold.
    swept_at: AtomicU64,
}

impl MemoryStore {
    /// An empty store.
    pub(super) fn new(limits: Limits, keep: Keep) -> Self {
        let hasher = RandomState::default();
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::with_hasher(hasher.clone()))).collect(),
            hasher,
            series: AtomicUsize::new(0),
            limits,
            keep,
            swept_at: AtomicU64::new(0),
        }
    }

    /// What it keeps of each series.
    pub(super) fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Records a sample, unless `key` says that it was recorded before.
    pub(super) fn record(&self, sample: SampleRef<'_>, key: Option<IdempotencyKey<'_>>, now: u64) -> RecordOutcome {
        let time = SampleTime::new(&self.keep, sample.epoch, now);
        let hash = self.hasher.hash_one(sample.host);
        let mut shard = locked(&self.shards[shard_of(hash)]);
        let place = place_of(&shard, hash, sample.host);
        self.record_at(&mut shard, place, sample, key, &time)
    }

    /// Records `count` samples, each as [`MemoryStore::record`] does. Those of one host are recorded in their order, and
    /// each lock is taken once.
    pub(super) fn record_many<'v>(
        &self,
        count: usize,
        sample: impl Fn(usize) -> SampleRef<'v>,
        now: u64,
    ) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        let hashes: Vec<u64> = (0..count).map(|index| self.hasher.hash_one(sample(index).host)).collect();
        let mut ends = [0; SHARDS];
        hashes.iter().for_each(|hash| ends[shard_of(*hash)] += 1);
        (1..SHARDS).for_each(|place| ends[place] += ends[place - 1]);
        let mut order = vec![0; count];
        // Most samples of a batch have the same epoch.
        let (mut starts, mut places, mut time) = (ends, Vec::new(), SampleTime::new(&self.keep, now, now));
        for (index, hash) in hashes.iter().enumerate().rev() {
            let start = &mut starts[shard_of(*hash)];
            *start -= 1;
            order[*start] = index;
        }
        for ((shard, start), end) in self.shards.iter().zip(starts).zip(ends).filter(|((_, start), end)| start < end) {
            let mut shard = locked(shard);
            // The memory of many hosts is fetched side by side when nothing else is done between the reads.
            places.clear();
            places.extend(order[start..end].iter().map(|index| place_of(&shard, hashes[*index], sample(*index).host)));
            for place in places.iter().flatten() {
                black_box(shard.get_index(*place).map(|(_, host)| host.series.prefetch()));
            }
            for (index, place) in order[start..end].iter().zip(&places) {
                let sample = sample(*index);
                if sample.epoch != time.epoch() {
                    time = SampleTime::new(&self.keep, sample.epoch, now);
                }
                outcome.add(*index, Ok(self.record_at(&mut shard, *place, sample, None, &time)));
            }
        }
        outcome.others.sort_unstable_by_key(|(place, _)| *place);
        outcome
    }

    /// Records a sample of a host whose place in its shard may be known.
    fn record_at(
        &self,
        shard: &mut Shard,
        place: Option<usize>,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        time: &SampleTime,
    ) -> RecordOutcome {
        if time.is_expired(key.is_some()) {
            return RecordOutcome { expired: sample.values.len(), ..RecordOutcome::default() };
        }
        let place = place.or_else(|| shard.get_index_of(sample.host));
        let mut known = place.and_then(|place| shard.get_index_mut(place)).map(|(_, host)| host);
        if known.as_deref().zip(key).is_some_and(|(host, key)| host.is_duplicate(key)) {
            return RecordOutcome { duplicate: true, ..RecordOutcome::default() };
        }
        if let Some(host) = &mut known
            && let Some(place) = host.series.run(sample.values)
        {
            for (series, (_, value)) in host.series.series_from(place).zip(sample.values) {
                series.record(&self.keep, time, *value);
            }
            let conflict = host.note_sample(time, sample.values, key);
            return RecordOutcome { stored: sample.values.len(), conflict, ..RecordOutcome::default() };
        }
        let (values, mut outcome, _) = self.admit(known.as_deref(), sample.values, |new| self.reserve_series(new));
        if !values.is_empty() {
            let host = match known {
                Some(host) => host,
                None => shard.entry(sample.host.into()).or_default(),
            };
            outcome.conflict = host.apply(&self.keep, time, &values, key);
        }
        outcome
    }

    /// Records values that [`MemoryStore::plan`] has admitted, or that were stored before a restart. Returns a conflict of
    /// sources that has begun with them.
    #[cfg(feature = "disk")]
    pub(super) fn apply(
        &self,
        host: &str,
        time: &SampleTime,
        values: &[(Cow<'_, str>, f64)],
        key: Option<IdempotencyKey<'_>>,
    ) -> Option<Conflict> {
        self.change_series(host, |host| host.apply(&self.keep, time, values, key))
    }

    /// Changes a host, which is made if it is not known, and counts the series it has got or lost.
    #[cfg(feature = "disk")]
    pub(super) fn change_series<T>(&self, host: &str, change: impl FnOnce(&mut Host) -> T) -> T {
        let mut shard = self.shard(host);
        let (before, host) = match shard.get_index_of(host) {
            Some(place) => (shard[place].counted_series(), &mut shard[place]),
            None => (0, shard.entry(host.into()).or_default()),
        };
        let changed = change(host);
        self.series.fetch_add(host.counted_series() - before, Ordering::Relaxed);
        changed
    }

    /// Gives a host to `read` that is known.
    #[cfg(feature = "disk")]
    pub(super) fn with_host<T>(&self, host: &str, read: impl FnOnce(&mut Host) -> T) -> Option<T> {
        self.shard(host).get_mut(host).map(read)
    }

    /// The names of hosts that have changed since they were last written to disk, those of one shard a vector.
    #[cfg(feature = "disk")]
    pub(super) fn changed_hosts(&self) -> impl Iterator<Item = Vec<SmolStr>> {
        self.shards.iter().map(|shard| {
            let shard = locked(shard);
            shard.iter().filter(|(_, host)| host.changed).map(|(name, _)| name.clone()).collect()
        })
    }

    /// Has the next checkpoint look at the hosts of which memory need not hold all at `now`.
    #[cfg(feature = "disk")]
    pub(super) fn note_aged(&self, now: u64) {
        self.swept_at.store(now, Ordering::Relaxed);
        for shard in &self.shards {
            locked(shard).values_mut().for_each(|host| host.note_aged(&self.keep, now));
        }
    }

    /// The time of the last sweep.
    #[cfg(feature = "disk")]
    pub(super) fn swept_at(&self) -> u64 {
        self.swept_at.load(Ordering::Relaxed)
    }

    /// Makes the next checkpoint write all hosts.
    #[cfg(feature = "disk")]
    pub(super) fn mark_all_changed(&self) {
        for shard in &self.shards {
            locked(shard).values_mut().for_each(|host| host.mark_all_changed(&self.keep));
        }
    }

    /// Whether a series is known.
    #[cfg(feature = "disk")]
    pub(super) fn has_series(&self, host: &str, label: &str) -> bool {
        self.shard(host).get(host).is_some_and(|host| host.series.get(label).is_some())
    }

    /// The numbers by which the chunks of the hosts are found that memory does not hold.
    #[cfg(feature = "disk")]
    pub(super) fn disk_ids(&self) -> Vec<u64> {
        let ids = |shard: &Mutex<Shard>| locked(shard).values().map(|host| u64::from(host.disk_id)).collect::<Vec<_>>();
        let mut ids: Vec<u64> = self.shards.iter().flat_map(ids).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether a host is known.
    #[cfg(feature = "disk")]
    pub(super) fn has_host(&self, host: &str) -> bool {
        self.shard(host).contains_key(host)
    }

    /// Replaces the tags of a host, and returns whether it is known.
    pub(super) fn set_tags(&self, host: &str, tags: &Tags) -> bool {
        self.shard(host).get_mut(host).map(|host| host.set_tags(tags)).is_some()
    }

    /// Where an archive is with each of some hosts.
    pub(super) fn archive_cursors(&self, id: u64, hosts: &[SmolStr]) -> Vec<ArchiveCursor> {
        let cursor = |name: &SmolStr| self.shard(name).get(name).and_then(Host::archives).map(|known| known.cursor(id));
        hosts.iter().map(|name| cursor(name).unwrap_or_default()).collect()
    }

    /// Gives what archives have of a host to `change`, if the host is known.
    pub(super) fn change_archives<T>(&self, host: &str, change: impl FnOnce(&mut Archives) -> T) -> Option<T> {
        self.shard(host).get_mut(host).map(|host| change(host.archives_mut()))
    }

    /// Forgets all archives but those of `ids`.
    pub(super) fn retain_archives(&self, ids: &[u64]) {
        for shard in &self.shards {
            for host in locked(shard).values_mut().filter(|host| host.archives().is_some()) {
                host.archives_mut().retain(ids);
                host.changed = true;
            }
        }
    }

    /// Removes a host, and returns whether it was known.
    pub(super) fn remove(&self, host: &str) -> bool {
        let removed = self.shard(host).swap_remove(host);
        if let Some(host) = &removed {
            self.release_series(host.counted_series());
        }
        removed.is_some()
    }

    /// Removes the buckets, series and idempotency records whose windows have passed, and the hosts that are to be
    /// forgotten, a shard at a time. Returns the names of these hosts.
    pub(super) fn sweep(&self, now: u64) -> Vec<SmolStr> {
        let mut forgotten = Vec::new();
        self.swept_at.store(now, Ordering::Relaxed);
        for shard in &self.shards {
            let mut removed = 0;
            let mut shard = locked(shard);
            shard.retain(|name, host| {
                let before = host.counted_series();
                host.expire(&self.keep, now);
                let is_forgotten = host.is_forgotten(now, self.limits.forget_hosts_sec);
                if is_forgotten {
                    forgotten.push(name.clone());
                }
                removed += before - if is_forgotten { 0 } else { host.counted_series() };
                !is_forgotten
            });
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
            drop(shard);
            self.release_series(removed);
        }
        forgotten
    }

    /// How many series it holds; a host that has none left counts as one.
    pub(super) fn series_count(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    /// Which shard a host is in, up to [`SHARDS`].
    #[cfg(feature = "disk")]
    pub(super) fn shard_of(&self, host: &str) -> usize {
        shard_of(self.hasher.hash_one(host))
    }

    fn shard(&self, host: &str) -> MutexGuard<'_, Shard> {
        locked(&self.shards[shard_of(self.hasher.hash_one(host))])
    }
}

/// Which shard a host of this hash is in, by bits that the table of a shard does not use.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// The place in its shard of a host of this hash.
fn place_of(shard: &Shard, hash: u64, host: &str) -> Option<usize> {
    shard.raw_entry_v1().index_from_hash(hash, |known| known == host)
}

/// A panic while a lock was held leaves buckets that are each whole: the data stays in use.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::host::{SOURCE_SILENT_SEC, SOURCES_PER_HOST_MAX, source_kept_sec};
    use super::super::{HostState, LabelPage};
    use super::*;
    use crate::sample::Sample;
    use crate::store::Limit;
    use crate::summary::{Keep, KeyFilter};

    const NOW: u64 = 1_465_001_814;

    fn sample(host: &str, epoch: u64, labels: &[&str]) -> Sample<'static> {
        let values = labels.iter().map(|label| (label.to_string().into(), 1.0)).collect();
        Sample { host: host.to_owned().into(), epoch, values }
    }

    fn put(store: &MemoryStore, sample: &Sample<'_>, key: Option<IdempotencyKey<'_>>, now: u64) -> RecordOutcome {
        store.record(sample.view(), key, now)
    }

    fn key(source: &str, seq: u64) -> Option<IdempotencyKey<'_>> {
        Some(IdempotencyKey::new(source, seq))
    }

    fn stored(n: usize) -> RecordOutcome {
        RecordOutcome { stored: n, ..RecordOutcome::default() }
    }

    fn means(store: &MemoryStore, host: &str, label: &str, now: u64) -> Vec<f64> {
        let status = store.status(host, &[label], now).unwrap();
        status.recent[0].1.iter().flatten().copied().collect()
    }

    #[test]
    fn a_retry_does_not_count_twice() {
        let store = MemoryStore::new(10.into(), Keep::default());
        assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key("a", 5), NOW), stored(1));
        for seq in [5, 4] {
            let again = put(&store, &sample("h", NOW, &["cpu"]), key("a", seq), NOW);
            assert_eq!(again, RecordOutcome { duplicate: true, ..RecordOutcome::default() });
        }
        assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key("a", 6), NOW), stored(1));
        assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key("b", 1), NOW), stored(1));
        assert_eq!(put(&store, &sample("g", NOW, &["cpu"]), key("a", 5), NOW), stored(1));
        assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), None, NOW), stored(1));
    }

    #[test]
    fn sources_of_a_host_are_bounded_and_the_longest_unheard_gives_way() {
        let store = MemoryStore::new(10.into(), Keep::default());
        for source in 0..=SOURCES_PER_HOST_MAX as u64 {
            let name = format!("s{source}");
            assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key(&name, 1), NOW + source), stored(1));
        }
        assert_eq!(put(&store, &sample("h", NOW, &["cpu"]), key("s0", 1), NOW + 300), stored(1));
        assert!(put(&store, &sample("h", NOW, &["cpu"]), key("s2", 1), NOW + 300).duplicate);
    }

    #[test]
    fn a_source_that_was_heard_lately_is_not_forgotten() {
        let store = MemoryStore::new(10.into(), Keep::default());
        let put_at = |name: &str, at| put(&store, &sample("h", NOW, &["cpu"]), key(name, 1), at);
        (0..200).for_each(|source| assert_eq!(put_at(&format!("s{source}"), NOW), stored(1)));
        assert!(put_at("s0", NOW + SOURCE_SILENT_SEC - 1).duplicate);
        // One that was silent for longer gives way.
        assert_eq!(put_at("new", NOW + SOURCE_SILENT_SEC), stored(1));
        assert_eq!((0..200).filter(|source| put_at(&format!("s{source}"), NOW).duplicate).count(), 199);
    }

    #[test]
    fn the_limit_on_series_refuses_new_ones_and_serves_the_others() {
        let store = MemoryStore::new(2.into(), Keep::default());
        assert_eq!(put(&store, &sample("a", NOW, &["cpu", "mem"]), None, NOW), stored(2));
        assert_eq!(
            put(&store, &sample("b", NOW, &["cpu"]), key("s", 1), NOW),
            RecordOutcome { refused: 1, refused_by: Some(Limit::Series), ..RecordOutcome::default() }
        );
        assert_eq!(store.hosts(), ["a"]);
        let mixed = put(&store, &sample("a", NOW, &["cpu", "disk"]), key("s", 1), NOW);
        assert_eq!(
            mixed,
            RecordOutcome { stored: 1, refused: 1, refused_by: Some(Limit::Series), ..RecordOutcome::default() }
        );
        assert!(put(&store, &sample("a", NOW, &["cpu", "disk"]), key("s", 1), NOW).duplicate);
        assert!(store.remove("a") && !store.remove("a"));
        // What was refused was not remembered as counted.
        assert_eq!(put(&store, &sample("b", NOW, &["cpu"]), key("s", 1), NOW), stored(1));
        assert_eq!(store.series_count(), 1);
    }

    #[test]
    fn what_is_too_old_or_empty_makes_no_host() {
        let store = MemoryStore::new(2.into(), Keep::default());
        let old = put(&store, &sample("a", NOW - 90_000, &["cpu", "mem"]), None, NOW);
        assert_eq!(old, RecordOutcome { expired: 2, ..RecordOutcome::default() });
        assert_eq!(put(&store, &sample("a", NOW, &[]), None, NOW), stored(0));
        assert!(store.hosts().is_empty());
    }

    #[test]
    fn the_sweep_removes_what_has_left_its_windows() {
        let store = MemoryStore::new(10.into(), Keep::default());
        assert_eq!(put(&store, &sample("a", NOW, &["cpu", "mem"]), key("s", 1), NOW), stored(2));
        assert_eq!(put(&store, &sample("b", NOW - 3600, &["cpu"]), None, NOW), stored(1));
        assert_eq!(put(&store, &sample("a", NOW + 7200, &["mem"]), None, NOW + 7200), stored(1));
        store.sweep(NOW + 82_000);
        assert_eq!(store.series_count(), 3);
        store.sweep(NOW + 86_400 + 3600);
        assert_eq!(store.status("a", &[], NOW).unwrap().labels, ["mem"]);
        assert_eq!(store.series_count(), 2, "of b none is left, and it counts as one");
        assert!(put(&store, &sample("a", NOW + 7200, &["mem"]), key("s", 1), NOW + 86_400).duplicate);
        store.sweep(NOW + source_kept_sec(&Keep::default()));
        assert_eq!(put(&store, &sample("a", NOW + 7200, &["mem"]), key("s", 1), NOW + 86_400), stored(1));
        assert!(store.sweep(NOW + 3 * 86_400).is_empty());
        assert_eq!((store.hosts(), store.series_count()), (vec!["a".into(), "b".into()], 2));
        assert_eq!(store.sweep(NOW + 32 * 86_400).len(), 2);
        assert_eq!((store.hosts().len(), store.series_count()), (0, 0));
    }

    #[test]
    fn states_follow_the_learned_interval() {
        let store = MemoryStore::new(10.into(), Keep::default());
        let state = |host: &str, now| store.status(host, &[], now).unwrap().state(now);
        assert_eq!(put(&store, &sample("once", NOW, &["cpu"]), None, NOW), stored(1));
        assert_eq!(store.status("once", &[], NOW).unwrap().interval_sec, None);
        assert_eq!((state("once", NOW + 60), state("once", NOW + 61)), (HostState::Up, HostState::Down));
        for (host, interval) in [("second", 1), ("minute", 60)] {
            for tick in 0..4 {
                // One lost sample does not change what was learned.
                let epoch = NOW + interval * if tick == 3 { 4 } else { tick };
                assert_eq!(put(&store, &sample(host, epoch, &["cpu"]), None, epoch), stored(1));
            }
            assert_eq!(store.status(host, &[], NOW).unwrap().interval_sec, Some(interval));
        }
        let at = NOW + 4;
        assert_eq!((state("second", at + 3), state("second", at + 4)), (HostState::Up, HostState::Late));
        assert_eq!((state("second", at + 60), state("second", at + 61)), (HostState::Late, HostState::Down));
        let at = NOW + 240;
        assert_eq!((state("minute", at + 180), state("minute", at + 181)), (HostState::Up, HostState::Late));
        assert_eq!((state("minute", at + 600), state("minute", at + 601)), (HostState::Late, HostState::Down));
        assert_eq!(state("second", NOW - 100), HostState::Up);
        // After a clock that was hours ahead was set back, the interval is learned again.
        assert_eq!(put(&store, &sample("second", NOW + 7200, &["cpu"]), None, NOW + 7200), stored(1));
        assert_eq!(put(&store, &sample("second", NOW + 10, &["cpu"]), None, NOW + 10), stored(1));
        assert_eq!((state("second", NOW + 10), state("second", NOW + 71)), (HostState::Up, HostState::Down));
    }

    #[test]
    fn series_are_copied_sorted_and_filtered_by_their_key() {
        let store = MemoryStore::new(10.into(), Keep::default());
        assert_eq!(put(&store, &sample("h", NOW, &["mem", "cpu", "CPU-idle"]), None, NOW), stored(3));
        let labels = |text| {
            let series = store.series("h", &LabelPage::all(&KeyFilter::containing(text)), NOW);
            series.into_iter().map(|(label, _)| label.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(labels(""), ["CPU-idle", "cpu", "mem"]);
        assert_eq!(labels("cPu"), ["CPU-idle", "cpu"]);
        assert_eq!(labels("by-minute:m"), ["mem"]);
        assert!(labels("disk").is_empty());
        assert!(store.series("nobody", &LabelPage::all(&KeyFilter::containing("")), NOW).is_empty());
        assert_eq!(means(&store, "h", "cpu", NOW), [1.0]);
        let all = KeyFilter::containing("");
        for (after, labels_max, expected) in [("", 2, &["CPU-idle", "cpu"][..]), ("cpu", 2, &["mem"]), ("mem", 2, &[])]
        {
            let page = store.series("h", &LabelPage { filter: &all, after, labels_max }, NOW);
            assert!(page.iter().map(|(label, _)| label).eq(expected), "after {after}");
        }
    }

    #[test]
    fn many_threads_record_every_sample_once() {
        let store = MemoryStore::new(1000.into(), Keep::default());
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let store = &store;
                scope.spawn(move || {
                    for seq in 0..1000 {
                        let host = format!("h{}", seq % 10);
                        let source = format!("t{thread}");
                        let once = put(store, &sample(&host, NOW, &["cpu"]), key(&source, seq), NOW);
                        let again = put(store, &sample(&host, NOW, &["cpu"]), key(&source, seq), NOW);
                        assert!(once.stored == 1 && again.duplicate);
                    }
                });
            }
        });
        let mut count = 0;
        for host in store.hosts() {
            let series = store.series(&host, &LabelPage::all(&KeyFilter::containing("by-minute")), NOW);
            let answer = serde_json::to_value(crate::summary::Summaries {
                series: &series,
                filter: &KeyFilter::containing("by-minute"),
                keep: &Keep::default(),
                now: NOW,
            });
            count += answer.unwrap()["summary:by-minute:cpu"]["averages"][0]["num-samples"].as_u64().unwrap();
        }
        assert_eq!(count, 4000);
    }
}
