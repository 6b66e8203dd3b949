//! Any bytes as the body of `POST /api/perf/:host/:epoch`: what is answered 200 is in the summary to the last bit, and of
//! what is refused nothing is.

use lizm::api::RequestHead;
use lizm::sample::{decode_values, encode_values};
use serde_json::json;

use crate::asked::{NOW, api, ask, get};

pub(crate) fn run(body: &[u8]) {
    let api = api();
    let target = format!("/api/perf/jarvis/{NOW}");
    let reply = ask(&api, &RequestHead { method: "POST", target: &target, ..RequestHead::default() }, body);
    let kept = get(&api, "/api/perf/jarvis");
    let Ok(values) = decode_values(body) else {
        assert_eq!((reply.status, kept), (400, json!({})));
        return;
    };
    assert_eq!(reply.status, 200);
    for window in ["by-minute", "by-hour"] {
        for (label, value) in &values {
            let average = &kept[format!("summary:{window}:{label}")]["averages"][0];
            assert_eq!(average["num-samples"], 1, "{label:?}");
            for of in ["min", "max"] {
                assert_eq!(average[of].as_f64(), Some(*value), "{of} of {label:?}");
            }
        }
    }
    assert_eq!(kept.as_object().map(serde_json::Map::len), Some(2 * values.len()));
    let written = encode_values(&values);
    assert_eq!(decode_values(&written).as_ref(), Ok(&values), "what is written is read as the same");
}
