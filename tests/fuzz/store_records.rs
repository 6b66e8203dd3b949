//! Any bytes as the records of a store's directory, as a restart may find them on a disk that has changed some: they are
//! said to be damaged, or what is read can be shown, recorded to and written again as the same.
//!
//! The input is records, each the length of its key (a byte), of its value (two, the low one first), key and value.

use std::borrow::Cow;
use std::sync::Arc;

use lizm::api::{Api, RequestHead};
use lizm::auth::{Authorizer, Principal, ReadAccess};
use lizm::ingest::Ingest;
use lizm::sample::Sample;
use lizm::store::{LabelPage, Store};
use lizm::summary::{Keep, KeyFilter, Series, Summaries};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::asked::{NOW, ask, get};

pub(crate) fn run(mut input: &[u8]) {
    let store = Arc::new(Store::new(usize::MAX));
    while let Some((key, value)) = next(&mut input) {
        // A directory with a record that is damaged is not opened at all.
        if store.restore_record(key, value, NOW).is_err() {
            return;
        }
    }
    let api =
        Api::new(Arc::new(Ingest::new(store.clone(), Authorizer::allow_all(), Arc::default())), ReadAccess::Anyone);
    get(&api, "/api/hosts?series=cpu");
    ask(&api, &RequestHead { method: "GET", target: "/metrics", ..RequestHead::default() }, b"");
    let all = KeyFilter::containing("");
    for host in store.hosts(NOW).expect("memory is read") {
        let series = store.series(&host, &LabelPage::all(&all), NOW).expect("memory is read");
        get(&api, &format!("/api/perf/{}", utf8_percent_encode(&host, NON_ALPHANUMERIC)));
        for (label, series) in &series {
            assert_eq!(shown(&rewritten(series)), shown(series), "{label:?} is not written as it was read");
        }
        let sample = Sample { host: Cow::Borrowed(&host), epoch: NOW, values: vec![("cpu".into(), 1.0)] };
        assert_eq!(api.ingest().submit(&Principal::Anyone, &sample, None, NOW).map(|recorded| recorded.stored), Ok(1));
    }
    store.sweep(NOW);
    store.sweep(NOW + 3 * 86_400);
    store.sweep(u64::MAX);
    assert_eq!(store.series_count(), 0, "what is old expires");
}

fn next<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (lengths, rest) = input.split_first_chunk::<3>()?;
    let (key, rest) = rest.split_at_checked(usize::from(lengths[0]))?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([lengths[1], lengths[2]])))?;
    *input = rest;
    Some((key, value))
}

/// A series as a checkpoint writes it and a restart reads it.
fn rewritten(series: &Series) -> Series {
    let (mut written, mut read) = (series.clone(), Series::default());
    let keep = Keep::default();
    written.mark_all_changed(&keep);
    written.take_changes(&keep, |window, chunk, bytes| {
        read.restore(&keep, window.name, window.interval_sec, chunk, bytes, NOW).expect("what is written is whole");
    });
    read
}

fn shown(series: &Series) -> Value {
    let all = KeyFilter::containing("");
    let series = [("cpu", series.clone())];
    serde_json::to_value(Summaries { series: &series, filter: &all, keep: &Keep::default(), now: NOW })
        .expect("summaries are JSON")
}
