//! Points as line protocol, and what the answers of `/write` mean.

use super::{Answer, INTERVAL_SEC, Outcome, Point};
use crate::sample::line::escape;

/// A point as a line: `lizm,host=a,label=cpu,interval=60 count=60i,sum=750,min=1.5,max=40 1465001760`. `None` where
/// InfluxDB would read another name: it has no way to write a backslash before a comma, a space, an equals sign or the end.
pub(super) fn line(point: &Point<'_>) -> Option<String> {
    if !is_writable(point.host) || !is_writable(point.label) {
        return None;
    }
    let mut line = String::from("lizm,host=");
    escape(point.host, &mut line);
    line.push_str(",label=");
    escape(point.label, &mut line);
    let (count, sum, min, max) = (point.bucket.count, point.bucket.sum, point.bucket.min, point.bucket.max);
    let start = point.start_sec();
    line.push_str(&format!(",interval={INTERVAL_SEC} count={count}i,sum={sum:?},min={min:?},max={max:?} {start}\n"));
    Some(line)
}

fn is_writable(name: &str) -> bool {
    !name.ends_with('\\') && !["\\,", "\\ ", "\\=", "\\\\"].iter().any(|pair| name.contains(pair))
}

/// What an answer means. InfluxDB writes the good lines of a body and answers 400 for the others.
pub(super) fn outcome(answer: &Answer) -> Outcome {
    match answer.status {
        200..=299 => Outcome::Taken { refused: 0, why: None },
        400 if answer.body.contains("partial write") => {
            let dropped = answer.body.split("dropped=").nth(1);
            let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
            Outcome::Taken { refused: dropped.and_then(digits).unwrap_or(0).max(1), why: Some(answer.said()) }
        }
        _ => answer.failure(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::line::{Precision, decode_line};
    use crate::summary::Bucket;
    use proptest::prelude::*;

    fn point<'a>(host: &'a str, label: &'a str) -> Point<'a> {
        Point { host, label, minute: 24_416_696, bucket: Bucket { count: 60, sum: 750.0, min: 1.5, max: 40.0 } }
    }

    #[test]
    fn a_point_is_a_line() {
        let expected = "lizm,host=a,label=cpu,interval=60 count=60i,sum=750.0,min=1.5,max=40.0 1465001760\n";
        assert_eq!(line(&point("a", "cpu")).unwrap(), expected);
        let expected = "lizm,host=jar\\ vis,label=net.rx\\,if\\=C:\\x,interval=60 ";
        assert!(line(&point("jar vis", "net.rx,if=C:\\x")).unwrap().starts_with(expected));
        for name in ["a\\", "a\\,b", "a\\ b", "a\\=b", "a\\\\b"] {
            assert_eq!(line(&point("a", name)), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_line_is_read_as_it_was_meant(host in "[a,= \"ü\\\\]{1,9}", label in "[a,= \"ü\\\\]{1,9}", sum in -1e300..1e300_f64) {
            let bucket = Bucket { count: 3, sum, min: -0.0, max: 1e300 };
            if let Some(line) = line(&Point { host: &host, label: &label, minute: 7, bucket }) {
                let read = decode_line(line.trim_end_matches('\n'), Precision::Seconds, 0).unwrap().sample;
                prop_assert_eq!(&*read.host, &host);
                prop_assert_eq!(read.epoch, 420);
                let sum = bucket.sum;
                let values: Vec<f64> = read.values.iter().map(|(_, value)| *value).collect();
                prop_assert_eq!(values, vec![3.0, sum, -0.0, 1e300]);
                let tags = format!(",interval=60,label={label}");
                prop_assert!(read.values.iter().all(|(name, _)| name.ends_with(&tags)));
            }
        }
    }

    #[test]
    fn an_answer_says_what_is_there() {
        let outcome = |status, body: &str| outcome(&Answer { status, retry_after: None, body: body.to_owned() });
        assert_eq!(outcome(204, ""), Outcome::Taken { refused: 0, why: None });
        let partial = r#"{"error":"partial write: points beyond retention policy dropped=2"}"#;
        assert!(matches!(outcome(400, partial), Outcome::Taken { refused: 2, why: Some(_) }));
        assert!(matches!(outcome(400, r#"{"error":"unable to parse"}"#), Outcome::TooMuch(_)));
        assert!(matches!(outcome(413, ""), Outcome::TooMuch(_)));
        for status in [301, 401, 403, 404, 429, 500, 503] {
            assert!(matches!(outcome(status, "\u{1b}[2J"), Outcome::Later { why, .. } if !why.contains('\u{1b}')));
        }
    }
}
