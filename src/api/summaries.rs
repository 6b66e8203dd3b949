//! The summaries of a host, a page of its labels at a time.

use smol_str::SmolStr;

use super::reply::Reply;
use crate::store::{LabelPage, Store, StoreError};
use crate::summary::{KeyFilter, Series, Summaries};
use crate::url;

/// Most labels of a page.
const LABELS_MAX: usize = 10_000;
/// Intervals after which a page ends: some 7 MB of JSON. A label has up to 84.
const INTERVALS_MAX: usize = 60_000;
/// Labels that the store is asked for at a time: it is locked while it copies them.
const STEP_LABELS: usize = 500;

/// A page of the labels of a host.
#[derive(Debug, Default)]
pub(super) struct SummaryPage {
    pub(super) series: Vec<(SmolStr, Series)>,
    /// Whether there are labels behind the page.
    pub(super) has_more: bool,
}

impl SummaryPage {
    /// Reads the page that begins behind the label `after`.
    pub(super) fn read(
        store: &Store,
        host: &str,
        filter: &KeyFilter,
        after: &str,
        now: u64,
    ) -> Result<Self, StoreError> {
        let (mut page, mut intervals) = (Self::default(), 0);
        loop {
            let after = page.last_label().unwrap_or(after);
            let step = store.series(host, &LabelPage { filter, after, labels_max: STEP_LABELS }, now)?;
            page.has_more = step.len() == STEP_LABELS;
            for (label, series) in step {
                if page.series.len() == LABELS_MAX || intervals >= INTERVALS_MAX {
                    page.has_more = true;
                    return Ok(page);
                }
                intervals += series.interval_count();
                page.series.push((label, series));
            }
            if !page.has_more {
                return Ok(page);
            }
        }
    }

    /// The last label of the page.
    pub(super) fn last_label(&self) -> Option<&str> {
        self.series.last().map(|(label, _)| label.as_str())
    }

    /// The page as an answer, with a link to the next one (RFC 8288).
    pub(super) fn reply(&self, filter: &KeyFilter, now: u64) -> Reply {
        let reply = Reply::json(200, &Summaries { series: &self.series, filter, now });
        match self.last_label().filter(|_| self.has_more) {
            Some(last) => reply.with("Link", format!("<?after={}>; rel=\"next\"", url::encode(last))),
            None => reply,
        }
    }
}
