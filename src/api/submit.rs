//! Submitting a sample: `POST /api/perf/HOST/EPOCH`.

use std::task::Waker;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use smol_str::SmolStr;

use super::reply::Reply;
use crate::auth::Principal;
use crate::ingest::{Ingest, IngestError};
use crate::sample::{self, OwnedKey, Sample, Tags};
use crate::store::{RecordOutcome, Recording};

/// A request to store a sample, as far as its head goes.
#[derive(Debug)]
pub(super) struct Submit {
    pub(super) host: SmolStr,
    pub(super) epoch: u64,
    pub(super) key: Option<OwnedKey>,
    pub(super) tags: Option<Tags>,
}

impl Submit {
    /// Begins to store the sample of a body; [`Ingest::begin`] says when `waker` is woken.
    pub(super) fn begin(
        &self,
        ingest: &Ingest,
        principal: &Principal,
        body: &[u8],
        now: u64,
        waker: Option<&Waker>,
    ) -> Submission {
        let began = Instant::now();
        let Self { host, epoch, key, .. } = self;
        let sample =
            sample::decode_values(body).map(|values| Sample { host: host.as_str().into(), epoch: *epoch, values });
        let sample = sample.map_err(IngestError::Malformed).inspect_err(|error| ingest.count_refused(error));
        let key = key.as_ref().map(OwnedKey::borrowed);
        let recording = sample.and_then(|sample| ingest.begin(principal, &sample, key, now, waker));
        Submission { host: host.clone(), recording, began }
    }
}

/// A sample that was submitted. The store may have yet to record it.
pub struct Submission {
    host: SmolStr,
    recording: Result<Recording, IngestError>,
    pub(super) began: Instant,
}

impl Submission {
    /// Whether [`super::Api::finish`] would not wait at `now`.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.recording.as_ref().map_or(true, |recording| recording.is_over(now))
    }

    /// Whether a thread that may wait has to call [`super::Api::finish`]: there is more to do.
    #[must_use]
    pub fn must_go_on(&self) -> bool {
        self.recording.as_ref().is_ok_and(Recording::must_go_on)
    }

    /// Waits until the sample is stored, and then replaces the tags of its host, if there are some.
    pub(super) fn finish(self, ingest: &Ingest, tags: Option<&Tags>) -> Reply {
        let recorded = self.recording.and_then(|recording| ingest.finish(&self.host, recording));
        let recorded = recorded.and_then(|recorded| {
            // A sample that is too old makes no host known.
            let set = tags.map_or(Ok(true), |tags| ingest.store().set_tags(&self.host, tags));
            set.map(|_| recorded).map_err(IngestError::Store)
        });
        match recorded {
            Ok(RecordOutcome { duplicate: true, .. }) => Reply::json(200, &json!({ "stored": 0, "duplicate": true })),
            Ok(RecordOutcome { stored, expired, refused, .. }) => {
                Reply::json(200, &Submitted { stored, expired, refused: (refused > 0).then_some(refused) })
            }
            Err(error) => Reply::from(&error),
        }
    }
}

/// How many values of a submission were stored, were too old, and were refused by the cap on series.
#[derive(Debug, Serialize)]
struct Submitted {
    stored: usize,
    expired: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
}
