//! What the limits on series leave of a sample.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use super::MemoryStore;
#[cfg(feature = "disk")]
use crate::sample::IdempotencyKey;
use crate::store::host::Host;
use crate::store::{Limit, RecordOutcome};
#[cfg(feature = "disk")]
use crate::summary::SampleTime;

/// The values of a sample that are to be stored, which are mostly all of them.
pub(in crate::store) type Values<'s, 'v> = Cow<'s, [(Cow<'v, str>, f64)]>;

/// What recording a sample would do.
#[cfg(feature = "disk")]
pub(in crate::store) struct Plan<'s, 'v> {
    /// The values that would be stored.
    pub(in crate::store) values: Values<'s, 'v>,
    pub(in crate::store) outcome: RecordOutcome,
    /// Whether it has labels that the host has not, whether or not the limits leave them.
    pub(in crate::store) has_new_labels: bool,
}

#[cfg(feature = "disk")]
impl Plan<'_, '_> {
    fn nothing(outcome: RecordOutcome) -> Self {
        Self { values: Cow::Borrowed(&[]), outcome, has_new_labels: false }
    }
}

impl MemoryStore {
    /// The values of a sample that the limits on series leave, the outcome of storing them, and how many labels are new.
    /// `reserve` makes room for up to a number of new series, and returns for how many.
    pub(super) fn admit<'s, 'v>(
        &self,
        known: Option<&Host>,
        values: &'s [(Cow<'v, str>, f64)],
        reserve: impl FnOnce(usize) -> usize,
    ) -> (Values<'s, 'v>, RecordOutcome, usize) {
        let is_new = |label: &str, hint: &mut usize| match known.and_then(|host| host.series.place(label, *hint)) {
            Some(place) => {
                *hint = place + 1;
                false
            }
            None => true,
        };
        let mut hint = 0;
        let new = values.iter().filter(|(label, _)| is_new(label, &mut hint)).count();
        let labels = known.map_or(0, |host| host.series.len());
        let fits_host = new.min(self.limits.labels_per_host_max.saturating_sub(labels));
        // A host that was down counts as a series already.
        let counted = fits_host.min(known.map_or(0, |host| host.counted_series() - labels));
        let granted = if fits_host == counted { fits_host } else { counted + reserve(fits_host - counted) };
        let refused_by = match (granted < fits_host, fits_host < new) {
            (true, _) => Some(Limit::Series),
            (false, true) => Some(Limit::LabelsPerHost),
            (false, false) => None,
        };
        let mut left = granted;
        let values = if granted == new {
            Cow::Borrowed(values)
        } else {
            let mut fits =
                |label: &str| !is_new(label, &mut hint) || left.checked_sub(1).inspect(|less| left = *less).is_some();
            Cow::Owned(values.iter().filter(|(label, _)| fits(label)).cloned().collect())
        };
        let outcome =
            RecordOutcome { stored: values.len(), refused: new - granted, refused_by, ..RecordOutcome::default() };
        (values, outcome, new)
    }

    /// What recording a sample would do now. It holds as long as nothing else is recorded.
    #[cfg(feature = "disk")]
    pub(in crate::store) fn plan<'s, 'v>(
        &self,
        host: &str,
        values: &'s [(Cow<'v, str>, f64)],
        key: Option<IdempotencyKey<'_>>,
        time: &SampleTime,
    ) -> Plan<'s, 'v> {
        if time.is_expired(key.is_some()) {
            return Plan::nothing(RecordOutcome { expired: values.len(), ..RecordOutcome::default() });
        }
        let shard = self.shard(host);
        let known = shard.get(host);
        if known.zip(key).is_some_and(|(host, key)| host.is_duplicate(key)) {
            return Plan::nothing(RecordOutcome { duplicate: true, ..RecordOutcome::default() });
        }
        if known.is_some_and(|host| host.series.run(values).is_some()) {
            let outcome = RecordOutcome { stored: values.len(), ..RecordOutcome::default() };
            return Plan { values: Cow::Borrowed(values), outcome, has_new_labels: false };
        }
        let room = self.limits.series_max.saturating_sub(self.series_count());
        let (values, outcome, new) = self.admit(known, values, |wanted| wanted.min(room));
        Plan { values, outcome, has_new_labels: new > 0 }
    }

    /// Makes room for up to `wanted` series, and returns for how many.
    pub(super) fn reserve_series(&self, wanted: usize) -> usize {
        let granted = |count: usize| self.limits.series_max.saturating_sub(count).min(wanted);
        let before =
            self.series.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count + granted(count)));
        before.map_or(0, granted)
    }

    pub(super) fn release_series(&self, count: usize) {
        self.series.fetch_sub(count, Ordering::Relaxed);
    }
}
