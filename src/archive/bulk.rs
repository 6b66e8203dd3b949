//! Points as documents of Elasticsearch and OpenSearch, and what the answers of `_bulk` mean
//! (<https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>).

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, INTERVAL_SEC, Outcome, Point, Verdict};

/// What `_bulk` is asked for: the statuses alone, and what is wrong.
pub(super) const QUERY: &str = "filter_path=errors,items.*.status,items.*.error";

/// A point as the two lines that index it.
///
/// The id names host, label, interval and start, so that sending a point again makes no second one. A host has no '/', so
/// that no two points have one id. It is at most 400 bytes long, of the 512 that an id may have. The version is the number
/// of samples: a retry is a conflict, and what came late replaces.
pub(super) fn item(name: &str, point: &Point<'_>) -> String {
    let Point { host, label, bucket, .. } = *point;
    let (count, sum, min, max) = (bucket.count, bucket.sum, bucket.min, bucket.max);
    let start = point.start_sec();
    let action = json!({ "index": {
        "_index": format!("{name}-{}", month(start)), "_id": format!("{INTERVAL_SEC}/{start}/{host}/{label}"),
        "version": count, "version_type": "external",
    } });
    let document = json!({
        "@timestamp": start * 1000, "host": host, "label": label, "interval": INTERVAL_SEC,
        "count": count, "sum": sum, "mean": bucket.mean(), "min": min, "max": max,
    });
    format!("{action}\n{document}\n")
}

/// The index template of all months: names are not taken apart, and numbers are numbers.
pub(super) fn template(name: &str) -> String {
    let double = json!({ "type": "double" });
    let template = json!({
        "index_patterns": [format!("{name}-*")],
        "priority": 100,
        "template": { "mappings": { "properties": {
            "@timestamp": { "type": "date" }, "host": { "type": "keyword" }, "label": { "type": "keyword" },
            "interval": { "type": "integer" }, "count": { "type": "long" },
            "sum": double, "mean": double, "min": double, "max": double,
        } } },
    });
    template.to_string()
}

/// The month of a second, such as `2016.06`.
fn month(sec: u64) -> String {
    crate::clock::date(sec)[..7].replace('-', ".")
}

#[derive(Deserialize)]
struct BulkAnswer {
    errors: bool,
    #[serde(default)]
    items: Vec<std::collections::BTreeMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    #[serde(default)]
    error: Value,
}

/// What an answer to `count` points means.
///
/// | status of an item | what is done |
/// |---|---|
/// | 2xx, 409 | it is there: a conflict is of a point that is there already |
/// | 429, 5xx | it is tried again, alone |
/// | any other | it is given up |
pub(super) fn outcome(answer: &Answer, count: usize) -> Outcome {
    if !(200..=299).contains(&answer.status) {
        return answer.failure();
    }
    let later = |why: String| Outcome::Later { why, retry_after: None };
    match serde_json::from_str::<BulkAnswer>(&answer.body) {
        Ok(read) if !read.errors => Outcome::Taken { refused: 0, why: None },
        Ok(read) if read.items.len() == count => {
            let verdict = |item: &Item| match item.status {
                200..=299 | 409 => Verdict::Taken,
                429 | 500..=599 => Verdict::Again(said(item)),
                _ => Verdict::Refused(said(item)),
            };
            let of_item = |actions: &std::collections::BTreeMap<String, Item>| {
                actions.values().next().map_or_else(|| Verdict::Again("has no status".to_owned()), verdict)
            };
            Outcome::Each(read.items.iter().map(of_item).collect())
        }
        Ok(read) => later(format!("the answer has {} items for {count} points", read.items.len())),
        Err(error) => later(format!("not an answer of _bulk: {error}")),
    }
}

fn said(item: &Item) -> String {
    let said = match (item.error["type"].as_str(), item.error["reason"].as_str()) {
        (Some(kind), Some(reason)) => format!("status {} {kind}: {reason}", item.status),
        _ => format!("status {}", item.status),
    };
    crate::sanitize::message(&said, super::SENTENCE_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{EPOCH_MAX, HOST_BYTES_MAX, LABEL_BYTES_MAX, check_host, check_label};
    use crate::summary::Bucket;

    #[test]
    fn a_point_is_an_action_and_a_document() {
        let bucket = Bucket { count: 60, sum: 750.0, min: 1.5, max: 40.0 };
        let item = item("lizm", &Point { host: "a b", label: "net/in:\"x\"", minute: 24_416_696, bucket });
        let lines: Vec<Value> = item.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0]["index"],
            json!({"_index": "lizm-2016.06", "_id": "60/1465001760/a b/net/in:\"x\"", "version": 60, "version_type": "external"})
        );
        assert_eq!((&lines[1]["@timestamp"], &lines[1]["mean"]), (&json!(1_465_001_760_000_u64), &json!(12.5)));
        assert!(item.ends_with("}\n") && lines.len() == 2);
    }

    #[test]
    fn the_longest_id_is_short_enough() {
        // A quote is two bytes in the JSON that is sent, and one in the id.
        let (host, label) = ("\"".repeat(HOST_BYTES_MAX), "\"".repeat(LABEL_BYTES_MAX));
        check_host(&host).and_then(|()| check_label(&label)).unwrap();
        let bucket = Bucket { count: 60, sum: 750.0, min: 1.5, max: 40.0 };
        let item = item("lizm", &Point { host: &host, label: &label, minute: EPOCH_MAX / INTERVAL_SEC, bucket });
        let action: Value = serde_json::from_str(item.lines().next().unwrap()).unwrap();
        let id = action["index"]["_id"].as_str().unwrap();
        assert_eq!(id, format!("60/999999999960/{host}/{label}"));
        assert_eq!(id.len(), 400, "Elasticsearch takes 512 bytes");
    }

    #[test]
    fn months_begin_where_the_calendar_has_them() {
        for (sec, expected) in [
            (0, "1970.01"),
            (951_782_399, "2000.02"),
            (951_868_799, "2000.02"),
            (951_868_800, "2000.03"),
            (1_709_164_800, "2024.02"),
            (1_709_251_200, "2024.03"),
            (1_767_225_599, "2025.12"),
            (1_767_225_600, "2026.01"),
            (4_107_542_400, "2100.03"),
        ] {
            assert_eq!(month(sec), expected, "{sec}");
        }
    }

    #[test]
    fn items_are_read_one_by_one() {
        let outcome = |status, body: &str| outcome(&Answer { status, retry_after: None, body: body.to_owned() }, 4);
        assert_eq!(outcome(200, r#"{"errors":false,"items":[]}"#), Outcome::Taken { refused: 0, why: None });
        let mixed = r#"{"errors":true,"items":[{"index":{"status":201}},{"index":{"status":409,"error":{"type":"c","reason":"r"}}},
            {"index":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
            {"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"bad\u001b"}}}]}"#;
        let again = Verdict::Again("status 429 es_rejected_execution_exception: full".to_owned());
        let refused = Verdict::Refused("status 400 mapper_parsing_exception: bad\u{fffd}".to_owned());
        assert_eq!(outcome(200, mixed), Outcome::Each(vec![Verdict::Taken, Verdict::Taken, again, refused]));
        for odd in ["", "[]", "{}", r#"{"errors":true}"#, r#"{"errors":true,"items":[{"index":{"status":201}}]}"#] {
            assert!(matches!(outcome(200, odd), Outcome::Later { .. }), "{odd}");
        }
        assert!(matches!(outcome(413, ""), Outcome::TooMuch(_)));
        assert!(matches!(outcome(429, ""), Outcome::Later { .. }) && matches!(outcome(401, ""), Outcome::Later { .. }));
    }
}
