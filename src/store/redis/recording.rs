//! Recording samples in Redis: the script is sent, and what it could not do at once is done, by whoever waits for the
//! samples or for one who may not wait.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use super::layout::{self, HostKeys, Index};
use super::nodes::{ANSWER_WITHIN, Command, Sent};
use super::replies::{ScriptReply, read_recorded};
use super::{Redis, understood};
use crate::sample::{IdempotencyKey, OwnedKey, Sample, SampleRef};
use crate::store::{BatchOutcome, Limit, RecordOutcome, StoreError};
use crate::summary::SampleTime;

/// How often samples are recorded whose host another receiver brings to another setting.
const ROUNDS: usize = 3;

/// A sample whose script was sent. Where that has done nothing yet, somebody who may wait goes on with the sample.
pub(in crate::store) struct Recording {
    redis: Arc<Redis>,
    sample: Sample<'static>,
    key: Option<OwnedKey>,
    now: u64,
    /// Nothing where there is more to do than to send the script.
    sent: Option<Sent>,
    until: Instant,
}

/// A host that must be written to the index before some of its samples are recorded.
#[derive(Default)]
struct Listing<'a> {
    /// The hour of its newest sample.
    hour: u64,
    /// How many labels it has.
    labels: u64,
    /// Whether it is known and has no labels: it counts as a series already.
    was_down: bool,
    /// The labels that would be new, and whether each may be added.
    new: HashMap<&'a str, bool>,
    /// Its samples by their place in the batch, each with the number of values for whose labels the host has no room, and
    /// the places of those whose labels would be new.
    samples: Vec<(usize, usize, Vec<usize>)>,
}

impl Redis {
    pub(in crate::store) fn record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, StoreError> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let sent = self.send_record(sample, key, now, None);
        let outcome = sent.and_then(|sent| self.outcome(&sent, deadline));
        outcome.unwrap_or_else(|| self.record_until(sample, key, now, deadline))
    }

    /// Sends the script that records a sample, and has `waker` woken when its reply has come. `None` where there is more to do
    /// first.
    fn send_record(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        waker: Option<&Waker>,
    ) -> Option<Sent> {
        let setting = self.known.agreed()?;
        if SampleTime::new(&setting.keep, sample.epoch, now).is_expired(key.is_some()) {
            return None;
        }
        let keys = HostKeys::of(sample.host);
        let command = keys.record(&self.scripts, &setting, &sample, key, Index::Unknown, now);
        self.nodes.begin(command, waker).ok()
    }

    /// Waits for what the script says until the deadline. `None` where it has done nothing.
    fn outcome(&self, sent: &Sent, deadline: Instant) -> Option<Result<RecordOutcome, StoreError>> {
        match understood(self.nodes.finish(sent, deadline)?, read_recorded) {
            Ok(ScriptReply::Recorded(outcome)) => Some(Ok(outcome)),
            Ok(ScriptReply::Unsettled(_) | ScriptReply::Unlisted { .. }) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Records a sample with all that may have to be done first.
    fn record_until(
        &self,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        deadline: Instant,
    ) -> Result<RecordOutcome, StoreError> {
        let mut outcomes = self.record_all(&[sample], key, now, deadline);
        outcomes.pop().unwrap_or_else(|| Ok(RecordOutcome::default()))
    }

    pub(in crate::store) fn record_many(&self, samples: &[SampleRef<'_>], now: u64) -> BatchOutcome {
        let mut batch = BatchOutcome::default();
        let outcomes = self.record_all(samples, None, now, Instant::now() + ANSWER_WITHIN);
        outcomes.into_iter().enumerate().for_each(|(place, outcome)| batch.add(place, outcome));
        batch
    }

    /// Records samples: in one round trip where the index has all their hosts and labels, in three where not.
    fn record_all(
        &self,
        samples: &[SampleRef<'_>],
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        mut deadline: Instant,
    ) -> Vec<Result<RecordOutcome, StoreError>> {
        let mut setting = match self.agreed() {
            Ok(setting) => setting,
            Err(error) => return samples.iter().map(|_| Err(error.clone())).collect(),
        };
        let expired =
            |sample: &SampleRef<'_>| Ok(RecordOutcome { expired: sample.values.len(), ..RecordOutcome::default() });
        let mut outcomes: Vec<Result<RecordOutcome, StoreError>> = samples.iter().map(expired).collect();
        let mut listings: BTreeMap<&str, Listing<'_>> = BTreeMap::new();
        let mut places: Vec<usize> = (0..samples.len()).collect();
        for _ in 0..ROUNDS {
            let time = |place: &usize| SampleTime::new(&setting.keep, samples[*place].epoch, now);
            places.retain(|place| !time(place).is_expired(key.is_some()));
            let commands = places.iter().map(|place| {
                let keys = HostKeys::of(samples[*place].host);
                keys.record(&self.scripts, &setting, &samples[*place], key, Index::Unknown, now)
            });
            let replies = self.nodes.run(&commands.collect::<Vec<_>>(), deadline);
            let mut unsettled: BTreeMap<&str, (String, Vec<usize>)> = BTreeMap::new();
            for (place, reply) in std::mem::take(&mut places).into_iter().zip(replies) {
                let sample = &samples[place];
                match understood(reply, read_recorded) {
                    Ok(ScriptReply::Recorded(outcome)) => outcomes[place] = Ok(outcome),
                    Ok(ScriptReply::Unsettled(found)) => {
                        outcomes[place] = Err(changing());
                        unsettled.entry(sample.host).or_insert_with(|| (found, Vec::new())).1.push(place);
                    }
                    Ok(ScriptReply::Unlisted { labels, hour, over, new }) => {
                        let listing = listings.entry(sample.host).or_default();
                        listing.hour = listing.hour.max(hour.unwrap_or(0)).max(layout::hour_of(sample.epoch));
                        listing.labels = listing.labels.max(labels);
                        listing.was_down = labels == 0 && hour.is_some();
                        listing.samples.push((place, over, new));
                    }
                    Err(error) => outcomes[place] = Err(error),
                }
            }
            for (host, (found, waiting)) in unsettled {
                match self.settle(host, &found, now, deadline) {
                    Ok(()) => places.extend(waiting),
                    Err(error) => waiting.iter().for_each(|place| outcomes[*place] = Err(error.clone())),
                }
            }
            if places.is_empty() {
                break;
            }
            places.sort_unstable();
            places.iter().for_each(|place| outcomes[*place] = expired(&samples[*place]));
            (setting, deadline) = (self.known.setting(), deadline.max(Instant::now() + ANSWER_WITHIN / 4));
        }
        places.iter().for_each(|place| outcomes[*place] = Err(changing()));
        if !listings.is_empty() {
            self.list_and_record(samples, key, now, deadline, listings, &mut outcomes);
        }
        outcomes
    }

    /// Writes hosts to the index, then records those of their samples for which there is room.
    ///
    /// A node that is away takes its part of the index with it, and no host of another node: where the index cannot be
    /// written the samples are recorded as unlisted, and the next sample of the host tries again.
    fn list_and_record<'a>(
        &self,
        samples: &[SampleRef<'a>],
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        deadline: Instant,
        mut listings: BTreeMap<&'a str, Listing<'a>>,
        outcomes: &mut [Result<RecordOutcome, StoreError>],
    ) {
        let (mut commands, mut again) = (Vec::new(), Vec::new());
        for (host, Listing { hour, labels, was_down, new, samples: waiting }) in &mut listings {
            let keys = HostKeys::of(host);
            let before = again.len();
            let mut room = (self.limits.labels_per_host_max as u64).saturating_sub(*labels);
            for (place, over, new_values) in waiting {
                let values = samples[*place].values;
                let mut granted = String::from(" ");
                for at in new_values.iter().filter(|at| **at < values.len()) {
                    let is_granted = new.entry(&*values[*at].0).or_insert_with(|| {
                        let is_granted = room > 0 && (std::mem::take(was_down) || self.reserve_series());
                        room -= u64::from(is_granted);
                        is_granted
                    });
                    if *is_granted {
                        let _ = write!(granted, "{} ", at + 1);
                    }
                }
                if granted == " " && new_values.len() + *over == values.len() {
                    let limit = if room == 0 { Limit::LabelsPerHost } else { Limit::Series };
                    outcomes[*place] = Ok(RecordOutcome {
                        refused: values.len(),
                        refused_by: Some(limit),
                        ..RecordOutcome::default()
                    });
                } else {
                    again.push((*place, commands.len(), granted));
                }
            }
            if again.len() > before {
                let labels = *labels + new.values().filter(|is_granted| **is_granted).count() as u64;
                commands.push(layout::list(keys.index_part(), host, *hour, labels));
            }
        }
        let listed = self.nodes.run(&commands, deadline);
        let setting = &self.known.setting();
        let commands: Vec<Command> = again
            .iter()
            .map(|(place, host, granted)| {
                let is_listed = listed.get(*host).is_some_and(Result::is_ok);
                let index = if is_listed { Index::Listed { granted } } else { Index::Away { granted } };
                HostKeys::of(samples[*place].host).record(&self.scripts, setting, &samples[*place], key, index, now)
            })
            .collect();
        // The first deadline may have passed in waiting for a node that is away, and which is known to be by now.
        let deadline = deadline.max(Instant::now() + ANSWER_WITHIN / 4);
        for ((place, ..), reply) in again.iter().zip(self.nodes.run(&commands, deadline)) {
            let outcome = understood(reply, |reply| match read_recorded(reply)? {
                ScriptReply::Recorded(outcome) => Some(Ok(outcome)),
                ScriptReply::Unsettled(_) => Some(Err(changing())),
                ScriptReply::Unlisted { .. } => None,
            });
            outcomes[*place] = outcome.and_then(|outcome| outcome);
        }
    }

    /// Takes room for one more series; false where there is none.
    fn reserve_series(&self) -> bool {
        let has_room = |count: usize| (count < self.limits.series_max).then_some(count + 1);
        self.series.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok()
    }

    /// Sends the script that records a sample, and has `waker` woken when its reply has come.
    pub(in crate::store) fn begin_record(
        self: &Arc<Self>,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        waker: &Waker,
    ) -> Recording {
        let until = Instant::now() + ANSWER_WITHIN;
        let sent = self.send_record(sample, key, now, Some(waker));
        let values = sample.values.iter().map(|(label, value)| (Cow::Owned(label.to_string()), *value)).collect();
        let sample = Sample { host: Cow::Owned(sample.host.to_owned()), epoch: sample.epoch, values };
        Recording { redis: self.clone(), sample, key: key.map(OwnedKey::from), now, sent, until }
    }
}

impl Recording {
    /// Whether [`Recording::finish`] would not wait at `now`.
    pub(in crate::store) fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.has_outcome() == Some(true)
    }

    /// Whether a thread that may wait has to call [`Recording::finish`]: there is more to do.
    pub(in crate::store) fn must_go_on(&self) -> bool {
        self.has_outcome() == Some(false)
    }

    /// Whether sending the script was enough: it has recorded the sample, or has failed. `None` where it has not replied yet.
    fn has_outcome(&self) -> Option<bool> {
        let is_outcome = |reply: &_| matches!(read_recorded(reply), Some(ScriptReply::Recorded(_)));
        self.sent.as_ref().map_or(Some(false), |sent| sent.has_result(is_outcome))
    }

    /// Waits until the sample is recorded.
    ///
    /// # Errors
    /// As [`Redis::record`] has them.
    pub(in crate::store) fn finish(self) -> Result<RecordOutcome, StoreError> {
        let Self { redis, sample, key, now, sent, until } = self;
        if let Some(outcome) = sent.and_then(|sent| redis.outcome(&sent, until)) {
            return outcome;
        }
        if Instant::now() >= until {
            return Err(StoreError::new("Redis was to be asked again, and no time was left for it"));
        }
        redis.record_until(sample.view(), key.as_ref().map(OwnedKey::borrowed), now, until)
    }
}

fn changing() -> StoreError {
    StoreError::new("what is kept is being changed")
}
