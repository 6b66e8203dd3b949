//! An API over an empty store, and what it answers: what the targets ask and look at.

use std::sync::Arc;

use lizm::api::{Api, Reply, RequestHead};
use lizm::auth::{Authorizer, ReadAccess};
use lizm::ingest::Ingest;
use lizm::store::Store;
use serde_json::Value;

/// A clock that stands still in the middle of an interval.
pub(crate) const NOW: u64 = 1_465_001_814;

/// Series a store takes: few, so that its cap is met.
pub(crate) const SERIES_MAX: usize = 300;

pub(crate) fn api() -> Api {
    let ingest = Ingest::new(Arc::new(Store::new(SERIES_MAX)), Authorizer::allow_all(), Arc::default());
    Api::new(Arc::new(ingest), ReadAccess::Anyone)
}

/// The answer to a request, as a server finds it.
pub(crate) fn ask(api: &Api, head: &RequestHead<'_>, body: &[u8]) -> Reply {
    let reply = match api.route(head, NOW) {
        Ok(route) => api.reply(&route, body, NOW),
        Err(reply) => reply,
    };
    check(&reply);
    reply
}

/// The JSON that `GET` answers for a target that is known to be good.
pub(crate) fn get(api: &Api, target: &str) -> Value {
    let reply = ask(api, &RequestHead { method: "GET", target, ..RequestHead::default() }, b"");
    assert_eq!(reply.status, 200, "{target}");
    json(&reply)
}

pub(crate) fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).expect("the body is JSON")
}

/// What holds for every answer.
fn check(reply: &Reply) {
    if reply.content_length().is_none() {
        assert!(reply.body.is_empty());
        return;
    }
    assert!(reply.headers.iter().all(|(_, value)| !value.contains(['\r', '\n'])));
    if reply.headers.iter().any(|(name, _)| *name == "Content-Type") {
        return;
    }
    let body = json(reply);
    match reply.status {
        200 => assert!(body.is_object()),
        400..=499 => assert!(body["error"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{body}"),
        status => panic!("a request has led to {status}: {body}"),
    }
}
