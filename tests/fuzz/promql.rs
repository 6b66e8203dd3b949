//! Any text as a query: it is read or refused with a place, and what is read is evaluated within its limits.

use std::sync::OnceLock;

use lizm::promql::{Answer, Budget, Error, Selection, Steps, instant, parse, parse_selector, range};
use lizm::sample::SampleRef;
use lizm::store::Store;

const NOW: u64 = 1_465_002_010;

fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(|| {
        let store = Store::new(100);
        for host in ["a", "b"] {
            for epoch in [NOW - 300, NOW - 60, NOW] {
                let values = [("cpu".into(), 1.5), ("cpu:0".into(), 2.0), ("disk.used,path=/".into(), 3.0)];
                store.record(SampleRef { host, epoch, values: &values }, None, NOW).unwrap();
            }
        }
        store
    })
}

pub(crate) fn run(input: &[u8]) {
    let Ok(query) = std::str::from_utf8(input) else { return };
    let _ = parse_selector(query);
    let expr = match parse(query) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(matches!(error, Error::BadData(_) | Error::Execution(_)), "{query:?}: {error:?}");
            assert!(error.to_string().len() < 1000, "{query:?}: {error:?}");
            return;
        }
    };
    let selection = || Selection::new(store(), NOW);
    let now_ms = i64::try_from(NOW).unwrap() * 1000;
    let at_once = instant(&expr, now_ms, selection(), &Budget::start(None));
    let steps = Steps { start_ms: now_ms - 600_000, step_ms: 30_000, count: 21 };
    let over_time = range(&expr, steps, selection(), &Budget::start(None));
    for error in [at_once.as_ref().err(), over_time.as_ref().err()].into_iter().flatten() {
        assert!(!matches!(error, Error::Store(_)), "{query:?}: {error:?}");
    }
    for (_, points) in over_time.unwrap_or_default() {
        assert!((1..=21).contains(&points.len()) && points.is_sorted_by(|one, next| one.0 < next.0), "{query:?}");
    }
    if let Ok(Answer::Vector(vector)) = at_once {
        assert!(vector.len() < 100, "{query:?}");
    }
}
