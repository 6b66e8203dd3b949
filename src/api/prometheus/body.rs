//! The bodies of answers to queries, written as text: they may have two million points.

use std::fmt::Write;

use serde_json::Value;

use crate::promql::{Answer, Labels, Matrix};

/// The answer to an instant query at a time in milliseconds.
pub(super) fn of_answer(answer: &Answer, time_ms: i64) -> Vec<u8> {
    match answer {
        Answer::Scalar(value) => {
            let mut text = begun("scalar");
            push_point(&mut text, time_ms, *value);
            ended(text)
        }
        Answer::Vector(vector) => {
            let mut text = begun("vector");
            text.push('[');
            for (place, (labels, value)) in vector.iter().enumerate() {
                push_metric(&mut text, place, labels);
                text.push_str("\"value\":");
                push_point(&mut text, time_ms, *value);
                text.push('}');
            }
            text.push(']');
            ended(text)
        }
        Answer::Matrix(matrix) => of_matrix(matrix),
    }
}

/// The answer to a range query.
pub(super) fn of_matrix(matrix: &Matrix) -> Vec<u8> {
    let mut text = begun("matrix");
    text.push('[');
    for (place, (labels, points)) in matrix.iter().enumerate() {
        push_metric(&mut text, place, labels);
        text.push_str("\"values\":[");
        for (place, (time_ms, value)) in points.iter().enumerate() {
            text.push_str(if place == 0 { "" } else { "," });
            push_point(&mut text, *time_ms, *value);
        }
        text.push_str("]}");
    }
    text.push(']');
    ended(text)
}

/// Labels as an object.
pub(super) fn of_labels(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// Clients that read a stream want the type before the result.
fn begun(kind: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"{kind}\",\"result\":")
}

fn ended(text: String) -> Vec<u8> {
    (text + "}}").into_bytes()
}

fn push_metric(text: &mut String, place: usize, labels: &Labels) {
    let comma = if place == 0 { "" } else { "," };
    // Writing to a string does not fail.
    let _ = write!(text, "{comma}{{\"metric\":{},", of_labels(labels));
}

/// Adds a time in seconds and a value, as Go writes them.
fn push_point(text: &mut String, time_ms: i64, value: f64) {
    let (sec, ms) = (time_ms.div_euclid(1000), time_ms.rem_euclid(1000));
    let _ = match (ms, sec) {
        (0, _) => write!(text, "[{sec}"),
        (_, 0..) => write!(text, "[{}", format!("{sec}.{ms:03}").trim_end_matches('0')),
        #[expect(clippy::cast_precision_loss, reason = "a time long before 1970 means nothing here")]
        _ => write!(text, "[{}", time_ms as f64 / 1000.0),
    };
    let _ = match value {
        f64::INFINITY => write!(text, ",\"+Inf\"]"),
        f64::NEG_INFINITY => write!(text, ",\"-Inf\"]"),
        // Short where the digits of a whole number would be three hundred.
        value if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) && !value.is_nan() => {
            write!(text, ",\"{value:e}\"]")
        }
        value => write!(text, ",\"{value}\"]"),
    };
}
