//! The one way in for samples, whatever they came by: who speaks, the last check, the store, and the counting.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::auth::{AuthError, Authorizer, Principal};
use crate::sample::line::{self, Decoder, LineHead, Precision};
use crate::sample::{AHEAD_SEC_MAX, IdempotencyKey, Sample, SampleRef};
use crate::stats::Stats;
use crate::store::{BatchOutcome, RecordOutcome, Store, StoreError};

/// Lines of a text that are decoded before they are recorded, and values past which there are no more: they bound the
/// memory that takes, and how long a lock is held.
const RUN_LINES: usize = 1000;
const RUN_VALUES: usize = 4096;

/// Why nothing of a sample was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngestError {
    /// It is not a line of line protocol, or goes over a limit of one.
    Malformed(String),
    /// Who speaks may not speak for its host, or nobody knows who it is.
    Untrusted(AuthError),
    /// Its epoch lies too far ahead of the receiver's clock.
    Ahead {
        /// How far, in seconds.
        by_sec: u64,
    },
    /// The store cannot take it now.
    Store(StoreError),
    /// All its values belong to new series, and the store has as many as it may hold.
    SeriesCap {
        /// The cap.
        series_max: usize,
    },
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(sentence) => f.write_str(sentence),
            Self::Untrusted(refusal) => refusal.fmt(f),
            Self::Ahead { by_sec } => {
                write!(f, "epoch: {by_sec} seconds ahead of the receiver's clock, the limit is {AHEAD_SEC_MAX}")
            }
            Self::Store(error) => error.fmt(f),
            Self::SeriesCap { series_max } => {
                write!(
                    f,
                    "label: every label here is a new series, and the receiver holds --max-series {series_max} already"
                )
            }
        }
    }
}

/// How many lines there were, and how many of their values were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lines, whatever became of them.
    pub lines: usize,
    /// Values that were stored.
    pub stored: usize,
}

/// Where samples go in.
pub struct Ingest {
    store: Arc<Store>,
    gate: Authorizer,
    stats: Arc<Stats>,
}

impl Ingest {
    /// A way into `store`, through `gate`, that counts in `stats`.
    #[must_use]
    pub fn new(store: Arc<Store>, gate: Authorizer, stats: Arc<Stats>) -> Self {
        Self { store, gate, stats }
    }

    /// What stands before it.
    #[must_use]
    pub fn gate(&self) -> &Authorizer {
        &self.gate
    }

    /// Finds who speaks, by the token that came with what is said.
    ///
    /// # Errors
    /// When a token is needed, and this is none that is valid.
    pub fn admit(&self, token: Option<&str>, now: u64) -> Result<Principal, AuthError> {
        self.gate.admit(token, now).inspect_err(|refusal| self.distrust(refusal, now))
    }

    /// Checks that `speaker` may speak for `host`.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, speaker: &Principal, host: &str, now: u64) -> Result<(), AuthError> {
        speaker.check(host).inspect_err(|refusal| self.distrust(refusal, now))
    }

    fn distrust(&self, refusal: &AuthError, now: u64) {
        self.stats.untrusted.add(1);
        self.gate.tell(refusal, now);
    }

    /// The store it leads to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Stores a sample that was decoded and checked by [`crate::sample`], once for each `key`. When this returns it is
    /// as durable as the store promises.
    ///
    /// # Errors
    /// When nothing of the sample was stored, because of a limit or of the store.
    pub fn submit(
        &self,
        speaker: &Principal,
        sample: &Sample<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, IngestError> {
        let recorded = self.record(speaker, sample.view(), key, now);
        let recorded = recorded.and_then(|recorded| self.wait_durable().map(|()| recorded).map_err(IngestError::Store));
        recorded.inspect_err(|refused| self.count_refused(refused))
    }

    /// Counts a sample of which nothing was stored; one that is not trusted was counted as such.
    fn count_refused(&self, refused: &IngestError) {
        let counter = match refused {
            IngestError::Malformed(_) => &self.stats.refused_malformed,
            IngestError::Untrusted(_) => return,
            IngestError::Ahead { .. } => &self.stats.refused_ahead,
            IngestError::Store(_) => &self.stats.refused_unavailable,
            IngestError::SeriesCap { .. } => &self.stats.refused_series_cap,
        };
        counter.add(1);
    }

    /// Stores a line of line protocol, as [`line::lines`] gives it. [`Ingest::wait_durable`] makes it, and those before it,
    /// durable.
    ///
    /// # Errors
    /// When nothing of the line was stored, because of what it says, of a limit, or of the store.
    pub fn submit_line(
        &self,
        speaker: &Principal,
        line: Result<&str, String>,
        precision: Precision,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, IngestError> {
        let decoded = line.and_then(|line| line::decode_line(line, precision, now)).map_err(IngestError::Malformed);
        let strings = decoded.as_ref().map_or(0, |line| line.strings);
        let recorded = decoded.and_then(|line| self.record(speaker, line.sample.view(), key, now));
        match recorded {
            Err(IngestError::Store(_)) => {}
            Err(IngestError::Malformed(_) | IngestError::Untrusted(_) | IngestError::Ahead { .. }) => {
                self.stats.lines_refused.add(1)
            }
            Err(IngestError::SeriesCap { .. }) | Ok(_) => {
                self.stats.strings.add(strings);
                self.stats.lines_refused.add(usize::from(recorded.is_err()));
            }
        }
        recorded.inspect_err(|refused| self.count_refused(refused))
    }

    /// Stores lines, each as [`Ingest::submit_line`] does, and tells what became of those that were not stored whole, by
    /// their numbers. Each comes with who says it. Those that the store cannot take now are the caller's to count, who may
    /// submit them again.
    pub fn submit_lines<'l>(
        &self,
        lines: impl Iterator<Item = (usize, &'l Principal, Result<&'l str, String>)>,
        precision: Precision,
        now: u64,
        mut became: impl FnMut(usize, Result<RecordOutcome, IngestError>),
    ) -> Counts {
        let mut tally = Counts::default();
        let mut decoder = Decoder::new(precision, now);
        let (mut lines, mut heads) = (lines.peekable(), Vec::with_capacity(RUN_LINES));
        while lines.peek().is_some() {
            decoder.clear();
            heads.clear();
            while heads.len() < RUN_LINES && decoder.values.len() < RUN_VALUES {
                let Some((number, speaker, line)) = lines.next() else { break };
                tally.lines += 1;
                let first = decoder.values.len();
                let head = line.and_then(|line| decoder.decode(line)).map_err(IngestError::Malformed);
                let checked = head.and_then(|head| {
                    self.check(speaker, &head.host, now).map_err(IngestError::Untrusted)?;
                    check_ahead(head.epoch, now).map(|()| head)
                });
                match checked {
                    Ok(head) => heads.push((number, head, first..decoder.values.len())),
                    Err(why) => {
                        self.stats.lines_refused.add(1);
                        self.count_refused(&why);
                        became(number, Err(why));
                    }
                }
            }
            let view = |place: usize| {
                let (_, head, values): &(usize, LineHead<'_>, Range<usize>) = &heads[place];
                SampleRef { host: &head.host, epoch: head.epoch, values: &decoder.values[values.clone()] }
            };
            let BatchOutcome { stored, others } = self.store.record_many(heads.len(), view, now);
            let mut sum = RecordOutcome { stored, ..RecordOutcome::default() };
            let mut strings: usize = heads.iter().map(|(_, head, _)| head.strings).sum();
            for (place, recorded) in others {
                let (number, head, _) = &heads[place];
                match &recorded {
                    Ok(recorded) => {
                        sum.stored += recorded.stored;
                        sum.expired += recorded.expired;
                        sum.refused += recorded.refused;
                        self.stats.lines_refused.add(usize::from(is_capped(recorded)));
                    }
                    Err(_) => strings -= head.strings,
                }
                let recorded = recorded.map_err(IngestError::Store).and_then(|recorded| self.check_cap(recorded));
                if let Err(capped @ IngestError::SeriesCap { .. }) = &recorded {
                    self.count_refused(capped);
                }
                became(*number, recorded);
            }
            tally.stored += sum.stored;
            self.count(&sum);
            self.stats.strings.add(strings);
        }
        tally
    }

    /// Forgets a host, and says whether it was known.
    ///
    /// # Errors
    /// When the store cannot forget it now, or not make sure that it stays forgotten.
    pub fn remove(&self, host: &str, now: u64) -> Result<bool, StoreError> {
        let removed = self.store.remove(host, now)?;
        self.wait_durable()?;
        Ok(removed)
    }

    /// Returns when all that was stored is as durable as the store promises.
    ///
    /// # Errors
    /// When it could not be made so.
    pub fn wait_durable(&self) -> Result<(), StoreError> {
        self.store.wait_durable()
    }

    fn record(
        &self,
        speaker: &Principal,
        sample: SampleRef<'_>,
        key: Option<IdempotencyKey<'_>>,
        now: u64,
    ) -> Result<RecordOutcome, IngestError> {
        self.check(speaker, sample.host, now).map_err(IngestError::Untrusted)?;
        check_ahead(sample.epoch, now)?;
        let recorded = self.store.record(sample, key, now).map_err(IngestError::Store)?;
        self.count(&recorded);
        self.stats.duplicates.add(usize::from(recorded.duplicate));
        self.check_cap(recorded)
    }

    fn count(&self, recorded: &RecordOutcome) {
        self.stats.stored.add(recorded.stored);
        self.stats.expired.add(recorded.expired);
        self.stats.refused.add(recorded.refused);
    }

    /// Where the cap has refused all of a sample, it is refused.
    fn check_cap(&self, recorded: RecordOutcome) -> Result<RecordOutcome, IngestError> {
        if is_capped(&recorded) {
            return Err(IngestError::SeriesCap { series_max: self.store.series_max() });
        }
        Ok(recorded)
    }
}

/// Whether the cap has refused all of a sample.
fn is_capped(recorded: &RecordOutcome) -> bool {
    recorded.stored == 0 && recorded.refused > 0
}

fn check_ahead(epoch: u64, now: u64) -> Result<(), IngestError> {
    let by_sec = epoch.saturating_sub(now);
    if by_sec > AHEAD_SEC_MAX { Err(IngestError::Ahead { by_sec }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_may_be_five_minutes_ahead_and_no_more() {
        let stats = Arc::new(Stats::default());
        let ingest = Ingest::new(Arc::new(Store::new(1)), Authorizer::wide_open(), stats.clone());
        let sample = |epoch, label: &'static str| Sample { host: "h".into(), epoch, values: vec![(label.into(), 1.0)] };
        assert_eq!(ingest.submit(&Principal::Anyone, &sample(1300, "cpu"), None, 1000).unwrap().stored, 1);
        assert_eq!(
            ingest.submit(&Principal::Anyone, &sample(1301, "cpu"), None, 1000),
            Err(IngestError::Ahead { by_sec: 301 })
        );
        assert_eq!(
            ingest.submit(&Principal::Anyone, &sample(1300, "mem"), None, 1000),
            Err(IngestError::SeriesCap { series_max: 1 })
        );
        assert_eq!((stats.stored.get(), stats.refused.get()), (1, 1));
        assert_eq!((stats.refused_ahead.get(), stats.refused_series_cap.get()), (1, 1));
    }
}
