//! Any head, a field a line: method, target, key, encoding, what is held, and the body. A refused request changes
//! nothing, what is stored is found under the name it was sent to, and HEAD has the status and headers of GET.

use lizm::api::RequestHead;

use crate::asked::{api, ask};

pub(crate) fn run(input: &[u8]) {
    let mut parts = input.splitn(6, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let [method, target, key, encoding, held] = [(); 5].map(|()| std::str::from_utf8(part()).unwrap_or_default());
    let body = part();
    let given = |text: &'static str, value| if value == text { None } else { Some(value) };
    let head = RequestHead {
        method,
        target,
        idempotency_key: given("", key),
        content_encoding: given("", encoding),
        if_none_match: given("", held),
        ..RequestHead::default()
    };
    let api = api();
    let store = || (api.stats().stored.get(), api.ingest().store().series_count());
    let reply = ask(&api, &head, body);
    let (stored, series) = store();
    assert!(stored as usize >= series && (stored == 0) == (series == 0));
    if !matches!(method, "POST") {
        assert_eq!(stored, 0);
    }
    if let Some(path) = target.strip_prefix("/api/perf/")
        && method == "POST"
        && stored > 0
    {
        let host = path.split_once('/').map_or(path, |(host, _)| host);
        let target = format!("/api/perf/{host}");
        let found = ask(&api, &RequestHead { method: "GET", target: &target, ..RequestHead::default() }, b"");
        assert!(found.status == 200 && found.body.len() > b"{}".len());
        if head.idempotency_key.is_some() {
            assert_eq!(ask(&api, &head, body).status, 200);
            assert_eq!(store(), (stored, series), "a retry is not counted again");
        }
        let removed = ask(&api, &RequestHead { method: "DELETE", target: &target, ..RequestHead::default() }, b"");
        assert_eq!((removed.status, store().1), (200, 0));
    }
    // What the process counts goes on from request to request.
    if matches!(method, "GET") && !target.contains("/metrics") {
        let of_head = ask(&api, &RequestHead { method: "HEAD", ..head }, body);
        assert_eq!((of_head.status, &of_head.headers), (reply.status, &reply.headers));
        assert!(of_head.content_length().is_none_or(|length| length == reply.body.len()));
    }
}
