//! The one path of a sample into the store, whatever transport it came by: authorize, check, record, count.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use crate::auth::{AuthError, Authorizer, LastToken, Principal};
use crate::clock::ReceiverClock;
use crate::joins::Joins;
use crate::sample::line::{Decoder, LineHead, Precision, decode_tags, is_tags};
use crate::sample::{AHEAD_SEC_MAX, IdempotencyKey, Sample, SampleRef, Tags};
use crate::stats::Stats;
use crate::store::{BatchOutcome, Conflict, Limit, Limits, RecordOutcome, Recording, Store, StoreError};

/// Lines that are decoded before they are recorded, and values after which a run ends. Both bound the memory of a run, and
/// how long the store is locked.
const RUN_LINES: usize = 1000;
const RUN_VALUES: usize = 4096;

/// Why nothing of a sample was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngestError {
    /// It breaks the grammar or a limit.
    Malformed(String),
    /// It came without a token that is good for its host.
    Untrusted(AuthError),
    /// Its epoch lies too far ahead of the receiver's clock.
    Ahead {
        /// How far, in seconds.
        by_sec: u64,
        /// Whether the receiver's clock waits until something confirms a jump of the wall clock.
        is_disputed: bool,
    },
    /// The store cannot take it now.
    Store(StoreError),
    /// All its values belong to new series, and a limit on series is reached.
    SeriesLimit {
        /// Which limit.
        limit: Limit,
        /// How many series it allows.
        series_max: usize,
    },
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(sentence) => f.write_str(sentence),
            Self::Untrusted(error) => error.fmt(f),
            Self::Ahead { by_sec, is_disputed } => {
                write!(f, "epoch: {by_sec} seconds ahead of the receiver's clock, the limit is {AHEAD_SEC_MAX}")?;
                let note =
                    "; it waits for NTP, three hosts or ten minutes to confirm that its machine's clock has jumped";
                f.write_str(if *is_disputed { note } else { "" })
            }
            Self::Store(error) => error.fmt(f),
            Self::SeriesLimit { limit: Limit::Series, series_max } => {
                write!(
                    f,
                    "label: every label here is a new series, and the receiver holds --max-series {series_max} already"
                )
            }
            Self::SeriesLimit { limit: Limit::LabelsPerHost, series_max } => {
                write!(f, "label: every label here is new, and the host has --max-labels-per-host {series_max} already")
            }
        }
    }
}

/// How many lines there were, and how many of their values were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lines, stored or not.
    pub lines: usize,
    /// Values that were stored.
    pub stored: usize,
}

/// How lines of line protocol are read.
#[derive(Debug, Clone, Copy)]
pub struct LineOptions<'k> {
    /// The unit of their timestamps.
    pub precision: Precision,
    /// The time of lines without a timestamp, in seconds since the Unix epoch: when they were received.
    pub received_at: u64,
    /// The key that marks a retry; only for a text of one line.
    pub key: Option<IdempotencyKey<'k>>,
}

/// Where samples go in.
pub struct Ingest {
    store: Arc<Store>,
    authorizer: Authorizer,
    stats: Arc<Stats>,
    clock: Arc<ReceiverClock>,
    joins: Joins,
}

impl Ingest {
    /// Records into `store` what `authorizer` lets pass, and counts in `stats`.
    #[must_use]
    pub fn new(store: Arc<Store>, authorizer: Authorizer, stats: Arc<Stats>) -> Self {
        let joins = Joins::new(store.clone());
        Self { store, authorizer, stats, clock: Arc::default(), joins }
    }

    /// The same by `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Arc<ReceiverClock>) -> Self {
        Self { clock, ..self }
    }

    /// The receiver's clock.
    #[must_use]
    pub fn clock(&self) -> &ReceiverClock {
        &self.clock
    }

    /// Decides who may submit and remove.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Who has joined, and who is shut out.
    #[must_use]
    pub fn joins(&self) -> &Joins {
        &self.joins
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the process counts.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Finds the principal as [`Authorizer::authenticate`] does. A refusal is counted and logged.
    ///
    /// # Errors
    /// When a token is needed, and this one is missing or not valid.
    pub fn authenticate(&self, token: Option<&str>, last: &LastToken, now: u64) -> Result<Principal, AuthError> {
        self.authorizer.authenticate(token, last, now).inspect_err(|error| self.count_untrusted(error, now))
    }

    /// Checks that `principal` may submit samples of `host`. A refusal is counted and logged.
    ///
    /// # Errors
    /// When it may not.
    pub fn authorize(&self, principal: &Principal, host: &str, now: u64) -> Result<(), AuthError> {
        let authorized = principal.authorize(host, now).and_then(|()| self.joins.check(principal, host));
        authorized.inspect_err(|error| self.count_untrusted(error, now))
    }

    /// Checks that `principal` may remove `host`. A refusal is counted and logged.
    ///
    /// # Errors
    /// When it may not.
    pub fn authorize_removal(&self, principal: &Principal, host: &str, now: u64) -> Result<(), AuthError> {
        let authorized = principal.authorize_removal(host, now).and_then(|()| self.joins.check(principal, host));
        authorized.inspect_err(|error| self.count_untrusted(error, now))
    }

    fn count_untrusted(&self, error: &AuthError, now: u64) {
        self.stats.untrusted.add(1);
        self.authorizer.log(error, now);
    }

    /// Stores a sample that was decoded and checked by [`crate::sample`], once for each `key`. When this returns, the
    /// sample is as durable as the store promises.
    ///
    /// # Errors
    /// When nothing of the sample was stored. The error is counted.
    pub fn submit(
        &self,
        principal: &Principal,
        sample: &Sample<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, IngestError> {
        let recording = self.begin(principal, sample, key, now, None)?;
        self.finish(&sample.host, recording)
    }

    /// Begins what [`Ingest::submit`] does; [`Store::begin_record`] says when `waker` is woken. [`Ingest::finish`] is the rest.
    ///
    /// # Errors
    /// When the sample does not go to the store. The error is counted.
    pub fn begin(
        &self,
        principal: &Principal,
        sample: &Sample<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
        waker: Option<&Waker>,
    ) -> Result<Recording, IngestError> {
        let is_allowed = self.authorize(principal, &sample.host, now).map_err(IngestError::Untrusted);
        let checked = is_allowed.and_then(|()| self.check_epoch(&sample.host, sample.epoch, now));
        checked.inspect_err(|error| self.count_refused(error))?;
        Ok(self.store.begin_record(sample.view(), key, now, waker))
    }

    /// Waits until a sample of `host` is stored, and counts what became of it.
    ///
    /// # Errors
    /// When nothing of the sample was stored. The error is counted.
    pub fn finish(&self, host: &str, recording: Recording) -> Result<RecordOutcome, IngestError> {
        let recorded = recording.finish().map_err(IngestError::Store).and_then(|recorded| {
            self.count(host, &recorded);
            self.check_cap(recorded)
        });
        recorded.inspect_err(|error| self.count_refused(error))
    }

    /// Replaces the tags of a host; who may submit for it may do so. They are as durable as the store promises.
    ///
    /// # Errors
    /// When they are not kept. The error is not counted.
    pub fn set_tags(&self, principal: &Principal, host: &str, tags: &Tags, now: u64) -> Result<(), IngestError> {
        self.authorize(principal, host, now).map_err(IngestError::Untrusted)?;
        match self.store.set_tags(host, tags).map_err(IngestError::Store)? {
            true => Ok(()),
            false => Err(IngestError::Malformed("tags: of a host that has sent no sample yet".to_owned())),
        }
    }

    /// Counts a sample of which nothing was stored. Authorization errors were counted where they arose.
    pub fn count_refused(&self, error: &IngestError) {
        let counter = match error {
            IngestError::Malformed(_) => &self.stats.refused_malformed,
            IngestError::Untrusted(_) => return,
            IngestError::Ahead { .. } => &self.stats.refused_ahead,
            IngestError::Store(_) => &self.stats.refused_unavailable,
            IngestError::SeriesLimit { .. } => &self.stats.refused_series_cap,
        };
        counter.add(1);
    }

    /// Stores lines, each with its number and its principal. What is reported as stored is as durable as the store promises.
    ///
    /// Calls `report` for each line that was not stored whole. Lines that the store cannot take now are not counted here:
    /// the caller may submit them again.
    pub fn submit_lines<'l>(
        &self,
        lines: impl Iterator<Item = (usize, &'l Principal, Result<&'l str, String>)>,
        options: &LineOptions<'_>,
        now: u64,
        mut report: impl FnMut(usize, Result<RecordOutcome, IngestError>),
    ) -> Counts {
        let mut counts = Counts::default();
        let mut decoder = Decoder::new(options.precision, options.received_at);
        let (mut lines, mut heads) = (lines.peekable(), Vec::with_capacity(RUN_LINES));
        let mut tags = Vec::new();
        while lines.peek().is_some() {
            decoder.clear();
            heads.clear();
            while heads.len() < RUN_LINES && decoder.values.len() < RUN_VALUES {
                let Some((number, principal, line)) = lines.next() else { break };
                counts.lines += 1;
                if let Ok(line) = line
                    && is_tags(line)
                {
                    tags.push((number, principal, line));
                    continue;
                }
                let first = decoder.values.len();
                let head = line.and_then(|line| decoder.decode(line)).map_err(IngestError::Malformed);
                let checked = head.and_then(|head| {
                    self.authorize(principal, &head.host, now).map_err(IngestError::Untrusted)?;
                    // A line without a time says nothing of the clock of its host.
                    if head.has_time {
                        self.check_epoch(&head.host, head.epoch, now)?
                    };
                    Ok(head)
                });
                match checked {
                    Ok(head) => heads.push((number, head, first..decoder.values.len())),
                    Err(error) => {
                        self.stats.lines_refused.add(1);
                        self.count_refused(&error);
                        report(number, Err(error));
                    }
                }
            }
            let sample = |place: usize| {
                let (_, head, values): &(usize, LineHead<'_>, Range<usize>) = &heads[place];
                SampleRef { host: &head.host, epoch: head.epoch, values: &decoder.values[values.clone()] }
            };
            let BatchOutcome { stored, others } = match options.key {
                Some(key) if heads.len() == 1 => {
                    BatchOutcome { stored: 0, others: vec![(0, self.store.record(sample(0), Some(key), now))] }
                }
                _ => self.store.record_many(heads.len(), sample, now),
            };
            self.stats.stored.add(stored);
            counts.stored += stored;
            let mut strings: usize = heads.iter().map(|(_, head, _)| head.strings).sum();
            for (place, recorded) in others {
                let (number, head, _) = &heads[place];
                match &recorded {
                    Ok(recorded) => {
                        counts.stored += recorded.stored;
                        self.count(&head.host, recorded);
                        self.stats.lines_refused.add(usize::from(is_capped(recorded)));
                    }
                    Err(_) => strings -= head.strings,
                }
                let recorded = recorded.map_err(IngestError::Store).and_then(|recorded| self.check_cap(recorded));
                if let Err(capped @ IngestError::SeriesLimit { .. }) = &recorded {
                    self.count_refused(capped);
                }
                report(*number, recorded);
            }
            self.stats.strings.add(strings);
        }
        // Behind the samples, which make hosts known.
        for (number, principal, line) in tags {
            let decoded = decode_tags(line, options.precision).map_err(IngestError::Malformed);
            if let Err(error) = decoded.and_then(|(host, tags)| self.set_tags(principal, &host, &tags, now)) {
                if !matches!(error, IngestError::Store(_)) {
                    self.stats.lines_refused.add(1);
                    self.count_refused(&error);
                }
                report(number, Err(error));
            }
        }
        counts
    }

    /// Removes a host, durably. Returns whether it was known.
    ///
    /// # Errors
    /// When `principal` may not remove it, or the store cannot.
    pub fn remove(&self, principal: &Principal, host: &str, now: u64) -> Result<bool, IngestError> {
        self.authorize_removal(principal, host, now).map_err(IngestError::Untrusted)?;
        self.store.remove(host, now).map_err(IngestError::Store)
    }

    /// Refuses an epoch that is too far ahead. The clock hears of it all the same.
    fn check_epoch(&self, host: &str, epoch: u64, now: u64) -> Result<(), IngestError> {
        self.clock.hear(host, epoch);
        let by_sec = epoch.saturating_sub(now);
        if by_sec > AHEAD_SEC_MAX {
            return Err(IngestError::Ahead { by_sec, is_disputed: self.clock.is_disputed() });
        }
        Ok(())
    }

    /// Counts what became of a sample, and logs a conflict that it has shown.
    fn count(&self, host: &str, recorded: &RecordOutcome) {
        self.stats.stored.add(recorded.stored);
        self.stats.expired.add(recorded.expired);
        self.stats.refused.add(recorded.refused);
        self.stats.duplicates.add(usize::from(recorded.duplicate));
        if let Some(Conflict { addresses }) = recorded.conflict {
            let [one, other] =
                addresses.map(|address| address.map_or("an unknown address".to_owned(), |address| address.to_string()));
            log::warn!(
                "Two sources publish as {host:?}, from {one} and from {other}, and the averages mix them: give each machine a \
                 --host of its own"
            );
        }
    }

    /// Turns a sample of which the cap has refused every value into an error.
    fn check_cap(&self, recorded: RecordOutcome) -> Result<RecordOutcome, IngestError> {
        if is_capped(&recorded) {
            let Limits { series_max, labels_per_host_max, .. } = self.store.limits();
            return Err(match recorded.refused_by {
                Some(limit @ Limit::LabelsPerHost) => {
                    IngestError::SeriesLimit { limit, series_max: labels_per_host_max }
                }
                _ => IngestError::SeriesLimit { limit: Limit::Series, series_max },
            });
        }
        Ok(recorded)
    }
}

/// Whether the cap has refused all of a sample.
fn is_capped(recorded: &RecordOutcome) -> bool {
    recorded.stored == 0 && recorded.refused > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_may_be_five_minutes_ahead_and_no_more() {
        let stats = Arc::new(Stats::default());
        let ingest = Ingest::new(Arc::new(Store::new(1)), Authorizer::allow_all(), stats.clone());
        let sample = |epoch, label: &'static str| Sample { host: "h".into(), epoch, values: vec![(label.into(), 1.0)] };
        assert_eq!(ingest.submit(&Principal::Anyone, &sample(1300, "cpu"), None, 1000).unwrap().stored, 1);
        assert_eq!(
            ingest.submit(&Principal::Anyone, &sample(1301, "cpu"), None, 1000),
            Err(IngestError::Ahead { by_sec: 301, is_disputed: false })
        );
        assert_eq!(
            ingest.submit(&Principal::Anyone, &sample(1300, "mem"), None, 1000),
            Err(IngestError::SeriesLimit { limit: Limit::Series, series_max: 1 })
        );
        assert_eq!((stats.stored.get(), stats.refused.get()), (1, 1));
        assert_eq!((stats.refused_ahead.get(), stats.refused_series_cap.get()), (1, 1));
    }

    #[test]
    fn a_token_that_expires_before_the_body_has_come_is_refused() {
        let ingest = Ingest::new(Arc::new(Store::new(1)), Authorizer::allow_all(), Arc::default());
        let identity = crate::auth::Identity { hosts: vec!["h".into()], expires_at: Some(1010), ..Default::default() };
        let principal = Principal::Identity(Arc::new(identity));
        let sample = Sample { host: "h".into(), epoch: 1000, values: vec![("cpu".into(), 1.0)] };
        assert_eq!(ingest.submit(&principal, &sample, None, 1009).unwrap().stored, 1);
        for refused in
            [ingest.submit(&principal, &sample, None, 1010).err(), ingest.remove(&principal, "h", 1010).err()]
        {
            assert!(matches!(refused, Some(IngestError::Untrusted(AuthError::Expired { .. }))), "{refused:?}");
        }
        assert_eq!(ingest.remove(&principal, "h", 1009), Ok(true));
    }
}
