//! A sample on its way into Redis, of somebody who may not wait for it.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::Redis;
use super::nodes::{ANSWER_WITHIN, Sent};
use super::replies::{ScriptReply, read_recorded};
use crate::sample::{IdempotencyKey, OwnedKey, Sample, SampleRef};
use crate::store::{RecordOutcome, StoreError};

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

impl Redis {
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
