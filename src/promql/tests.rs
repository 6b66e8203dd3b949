//! Queries over a store in memory, and the grammar.

use std::borrow::Cow;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::sample::{SampleRef, Tags};
use crate::store::{KeepOptions, Limits, Location, Store};

/// Ten seconds into a minute, and into an hour.
const NOW: u64 = 1_465_002_010;
const MINUTE: u64 = 1_465_002_000;

/// Three hosts: `a` and `b` with four samples in each of the last ten minutes, `c` with one an hour ago.
fn store() -> Store {
    let store = Store::new(1000);
    for minute in 0..10 {
        for second in 1..=4 {
            let n = (10 * minute + second) as f64;
            let values = [("cpu", n), ("cpu:0", n), ("cpu:1", 2.0 * n), ("disk.used,path=/var", 7.0), ("net-in", 1e6)];
            record(&store, "a", MINUTE - 60 * (9 - minute) - 60 + second, &values);
            record(
                &store,
                "b",
                MINUTE - 60 * (9 - minute) - 60 + second,
                &[("cpu", 100.0), ("a-b", 1.0), ("a.b", 2.0)],
            );
        }
    }
    record(&store, "a", MINUTE + 9, &[("cpu", 50.0), ("mem", 0.1)]);
    record(&store, "c", MINUTE - 3000, &[("cpu", 1.0)]);
    store.set_tags("b", &Tags::from_header("role=web").unwrap()).unwrap();
    store
}

fn record(store: &Store, host: &str, epoch: u64, values: &[(&str, f64)]) {
    let values: Vec<(Cow<'_, str>, f64)> = values.iter().map(|(label, value)| ((*label).into(), *value)).collect();
    let sample = SampleRef { host, epoch, values: &values };
    assert_eq!(store.record(sample, None, NOW).unwrap().stored, values.len());
}

fn shown(labels: &Labels) -> String {
    let name = labels.get(NAME);
    let others: Vec<String> =
        labels.iter().filter(|(name, _)| *name != NAME).map(|(name, value)| format!("{name}={value}")).collect();
    format!("{name}{{{}}}", others.join(","))
}

/// The answer to an instant query, in words.
fn at(store: &Store, query: &str, time: u64) -> String {
    let budget = Budget::start(None);
    let answer = parse(query).and_then(|expr| instant(&expr, time as i64 * 1000, Selection::new(store, NOW), &budget));
    match answer {
        Err(error) => format!("{error:?}"),
        Ok(Answer::Scalar(value)) => value.to_string(),
        Ok(Answer::Vector(vector)) => {
            let values: Vec<String> =
                vector.iter().map(|(labels, value)| format!("{} {value}", shown(labels))).collect();
            values.join("; ")
        }
        Ok(Answer::Matrix(matrix)) => points(&matrix),
    }
}

fn points(matrix: &Matrix) -> String {
    let of = |(labels, points): &(Labels, Vec<(i64, f64)>)| {
        let points: Vec<String> =
            points.iter().map(|(ms, value)| format!("{}:{value}", ms / 1000 - MINUTE as i64)).collect();
        format!("{} {}", shown(labels), points.join(" "))
    };
    matrix.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// The answer to a range query, its times from the last full minute on.
fn over(store: &Store, query: &str, start: i64, end: i64, step: i64) -> String {
    let start_ms = (MINUTE as i64 + start) * 1000;
    let steps = Steps { start_ms, step_ms: step * 1000, count: ((end - start) / step + 1) as u64 };
    let budget = Budget::start(None);
    match parse(query).and_then(|expr| range(&expr, steps, Selection::new(store, NOW), &budget)) {
        Err(error) => format!("{error:?}"),
        Ok(matrix) => points(&matrix),
    }
}

#[test]
fn numbers_are_computed() {
    for (query, expected) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("-2 ^ 2", "-4"),
        ("2 ^ 3 ^ 2", "512"),
        ("2 ^ -1", "0.5"),
        ("10 - 3 - 2", "5"),
        ("-7 % 3", "-1"),
        ("1 / 0", "inf"),
        ("-1 > bool -2", "1"),
        ("1 == bool 2", "0"),
        ("0x1f + .5 + 1e3 + 1.5e-1 # a comment", "1031.65"),
        ("017 + 08", "23"),
        ("NaN", "NaN"),
        ("+Inf", "inf"),
    ] {
        assert_eq!(at(&store(), query, NOW), expected, "{query}");
    }
}

#[test]
fn an_instant_query_takes_the_newest_interval() {
    let store = store();
    for (query, expected) in [
        ("lizm_cpu", "lizm_cpu{host=a} 50; lizm_cpu{host=b} 100"),
        ("lizm_cpu{host=\"b\"}", "lizm_cpu{host=b} 100"),
        ("lizm_cpu{host!=\"b\"}", "lizm_cpu{host=a} 50"),
        ("lizm_cpu{host=~\"b|x\"}", "lizm_cpu{host=b} 100"),
        ("lizm_cpu{host!~'[ab]'}", ""),
        (r#"lizm_cpu{host="\x61",inf="",nan=""}"#, "lizm_cpu{host=a} 50"),
        (r#"lizm_cpu{host=~"\141|\u0062\U00000063|\xc3\xa4"}"#, "lizm_cpu{host=a} 50"),
        ("lizm_cpu_samples{host='b'}", "lizm_cpu_samples{host=b} 4"),
        ("lizm_cpu_core", "lizm_cpu_core{core=0,host=a} 92.5; lizm_cpu_core{core=1,host=a} 185"),
        ("lizm_cpu_core_max{core=`1`}", "lizm_cpu_core_max{core=1,host=a} 188"),
        ("lizm_disk_used", "lizm_disk_used{host=a,path=/var} 7"),
        ("lizm_a_b", "lizm_a_b{host=b,label=a-b} 1; lizm_a_b{host=b,label=a.b} 2"),
        (
            "{__name__=~\"lizm_c.*\",host=\"a\",core=\"\"}",
            "lizm_cpu{host=a} 50; lizm_cpu_max{host=a} 50; lizm_cpu_min{host=a} 50; lizm_cpu_samples{host=a} 1",
        ),
        ("lizm_host_up", "lizm_host_up{host=a} 1; lizm_host_up{host=b} 0; lizm_host_up{host=c} 0"),
        ("lizm_host_info{role='web'}", "lizm_host_info{host=b,role=web} 1"),
        ("lizm_nothing", ""),
        ("lizm_cpu offset 1m", "lizm_cpu{host=a} 92.5; lizm_cpu{host=b} 100"),
        ("lizm_cpu{host='a'} offset -1m", "lizm_cpu{host=a} 50"),
    ] {
        assert_eq!(at(&store, query, NOW), expected, "{query}");
    }
    assert_eq!(at(&store, "lizm_cpu", MINUTE - 2900), "lizm_cpu{host=c} 1");
    assert_eq!(at(&store, "lizm_cpu", MINUTE - 2500), "", "nothing within five minutes");
}

#[test]
fn series_are_computed() {
    let store = store();
    for (query, expected) in [
        ("sum(lizm_cpu)", "{} 150"),
        ("avg by (host) (lizm_cpu_core)", "{host=a} 138.75"),
        ("max without (core) (lizm_cpu_core)", "{host=a} 185"),
        ("min(lizm_cpu) by (none)", "{} 50"),
        ("count(lizm_cpu) by (host)", "{host=a} 1; {host=b} 1"),
        ("topk(1, lizm_cpu)", "lizm_cpu{host=b} 100"),
        ("topk(5, lizm_cpu)", "lizm_cpu{host=b} 100; lizm_cpu{host=a} 50"),
        ("bottomk by (host) (1, lizm_cpu_core)", "lizm_cpu_core{core=0,host=a} 92.5"),
        ("topk(0, lizm_cpu)", ""),
        ("lizm_cpu > 60", "lizm_cpu{host=b} 100"),
        ("60 < lizm_cpu", "lizm_cpu{host=b} 100"),
        ("lizm_cpu > bool 60", "{host=a} 0; {host=b} 1"),
        ("lizm_cpu * 2 + 1", "{host=a} 101; {host=b} 201"),
        ("-lizm_cpu", "{host=a} -50; {host=b} -100"),
        ("lizm_cpu_max - lizm_cpu_min", "{host=a} 0; {host=b} 0"),
        ("lizm_cpu - lizm_mem", "{host=a} 49.9"),
        ("lizm_cpu >= lizm_cpu_max", "lizm_cpu{host=a} 50; lizm_cpu{host=b} 100"),
        ("round(lizm_mem * 125, 5)", "{host=a} 15"),
        ("ceil(lizm_mem)", "{host=a} 1"),
        ("clamp_max(clamp_min(lizm_cpu, 60), 90)", "{host=a} 60; {host=b} 90"),
        ("abs(-lizm_mem)", "{host=a} 0.1"),
        ("floor(lizm_mem) + 1", "{host=a} 1"),
        ("avg_over_time(lizm_cpu{host='a'}[2m])", "{host=a} 84"),
        ("min_over_time(lizm_cpu[3m])", "{host=a} 50; {host=b} 100"),
        ("max_over_time(lizm_cpu_min{host='a'}[10m])", "{host=a} 91"),
        ("sum_over_time(lizm_cpu{host='b'}[5m])", "{host=b} 1600"),
        ("count_over_time(lizm_cpu{host='b'}[5m])", "{host=b} 16"),
        ("last_over_time(lizm_cpu{host='b'}[1h])", "lizm_cpu{host=b} 100"),
        ("avg_over_time(lizm_cpu{host='a'}[2m] offset 1m)", "{host=a} 87.5"),
        ("lizm_cpu{host='a'}[3m]", "lizm_cpu{host=a} -60:82.5 0:92.5 10:50"),
        ("abs({__name__=~'lizm_cpu(_max)?'})", "Execution(\"vector cannot contain metrics with the same labelset\")"),
    ] {
        assert_eq!(at(&store, query, NOW), expected, "{query}");
    }
    let many = at(&store, "lizm_cpu + on(host) lizm_mem", NOW);
    assert!(many.starts_with("Execution(\"query: \\\"on\\\" is not known here"), "{many}");
    let many = at(&store, "{__name__=~'lizm_cpu(_max)?'} + lizm_cpu", NOW);
    assert!(many.starts_with("Execution(\"query: several series of the left side"), "{many}");
}

#[test]
fn a_step_repeats_or_merges_intervals() {
    let store = store();
    for (query, steps, expected) in [
        (
            "lizm_cpu{host='a'}",
            (-60, 10, 10),
            "lizm_cpu{host=a} -60:82.5 -50:92.5 -40:92.5 -30:92.5 -20:92.5 -10:92.5 0:92.5 10:50",
        ),
        ("lizm_cpu{host='a'}", (-240, 0, 120), "lizm_cpu{host=a} -240:47.5 -120:67.5 0:87.5"),
        ("lizm_cpu_min{host='a'}", (-120, 0, 120), "lizm_cpu_min{host=a} -120:61 0:81"),
        ("lizm_cpu_max{host='a'}", (-120, 0, 120), "lizm_cpu_max{host=a} -120:74 0:94"),
        ("lizm_cpu_samples{host='a'}", (-120, 0, 120), "lizm_cpu_samples{host=a} -120:8 0:8"),
        // The time from the first step on is in one of the steps, each interval once.
        ("lizm_cpu_samples{host='a'}", (-330, 30, 90), "lizm_cpu_samples{host=a} -330:8 -240:4 -150:8 -60:4 30:5"),
        ("lizm_cpu{host='c'}", (-3060, -2940, 60), "lizm_cpu{host=c} -3000:1"),
        ("1 + 1", (0, 60, 60), "{} 0:2 60:2"),
        ("sum(lizm_cpu)", (0, 60, 60), "{} 0:192.5 60:50"),
        ("max_over_time(lizm_cpu{host='a'}[5m])", (-60, 0, 60), "{host=a} -60:84 0:94"),
        ("lizm_cpu > 90", (-60, 0, 60), "lizm_cpu{host=a} 0:92.5; lizm_cpu{host=b} -60:100 0:100"),
        ("topk(1, lizm_cpu)", (-3000, 0, 3000), "lizm_cpu{host=b} 0:100; lizm_cpu{host=c} -3000:1"),
        (
            "lizm_host_up{host=~'b|c'}",
            (-120, 60, 60),
            "lizm_host_up{host=b} -120:1 -60:1 0:1 60:0; lizm_host_up{host=c} -120:0 -60:0 0:0 60:0",
        ),
        (
            "lizm_cpu[5m]",
            (0, 60, 60),
            "BadData(\"invalid parameter \\\"query\\\": invalid expression type \\\"range vector\\\" for range query\")",
        ),
    ] {
        assert_eq!(over(&store, query, steps.0, steps.1, steps.2), expected, "{query} {steps:?}");
    }
}

#[test]
fn a_range_is_read_from_the_interval_that_covers_it() {
    let options = KeepOptions { asked: Some("1m:2h,1h:2d".parse().unwrap()), ..KeepOptions::default() };
    let store = Store::open_to_keep(&Location::Memory, Limits::from(100), &options, NOW).unwrap();
    for hour in 0..24 {
        for second in [1, 1801] {
            record(&store, "a", MINUTE / 3600 * 3600 - 3600 * hour + second, &[("cpu", hour as f64)]);
        }
    }
    let hour = (MINUTE % 3600) as i64;
    // Hours that are in the two hours of minutes too.
    let shown = over(&store, "lizm_cpu_samples", -3600 - hour, 3600 - hour, 3600);
    assert_eq!(shown, format!("lizm_cpu_samples{{host=a}} {}:2 {}:2 {}:2", -3600 - hour, -hour, 3600 - hour));
    // A day is read by hours, which a finer step repeats.
    let shown = over(&store, "lizm_cpu", -86_400 + 7200 - hour, -hour, 1800);
    assert_eq!(shown.split(' ').count(), 1 + 45, "{shown}");
    let two = format!(" {}:2 {}:2 ", -3600 - 1800 - hour, -3600 - hour);
    assert!(shown.contains(&two), "{shown} has {two}");
    assert_eq!(at(&store, "sum_over_time(lizm_cpu[1d])", MINUTE), format!("{{host=a}} {}", 23 * 24));
}

#[test]
fn what_is_wrong_or_not_known_is_named() {
    for (query, expected) in [
        ("", "1:1: parse error: unexpected end of input in an expression"),
        ("lizm_cpu{", "1:10: parse error: unexpected end of input in label matching, expected a label"),
        ("lizm_cpu{host}", "1:14: parse error: unexpected \"}\" in label matching, expected one of = != =~ !~"),
        (
            "lizm_cpu{host=~\"(\"}",
            "1:16: parse error: regular expression of host: found open group without closing ')'",
        ),
        ("sum(\n  lizm_cpu", "2:11: parse error: unexpected end of input in a call, expected \")\""),
        ("1 > 2", "comparisons between scalars must use BOOL modifier"),
        ("lizm_cpu + bool 1", "bool modifier can only be used on comparison operators"),
        ("{host=\"\"}", "vector selector must contain at least one non-empty matcher"),
        ("{}", "vector selector must contain at least one non-empty matcher"),
        ("lizm_cpu[5x]", "bad number or duration \"5x\""),
        ("lizm_cpu[30s1m]", "bad number or duration \"30s1m\""),
        ("lizm_cpu[1m1m]", "bad number or duration \"1m1m\""),
        ("lizm_cpu offset -9223372036854775807ms", "a duration is of up to 292y"),
        ("1e400", "bad number or duration \"1e400\""),
        (r#"lizm_cpu{host="\xff"}"#, "a string that is not UTF-8"),
        (r#"lizm_cpu{host="\x+1"}"#, "unknown escape sequence in a string"),
        (r#"lizm_cpu{host="\'"}"#, "unknown escape sequence in a string"),
        ("lizm_cpu[]", "unexpected \"]\" in a range selector, expected a duration such as 5m"),
        ("sum(1)", "expected an instant vector in aggregation sum"),
        ("topk(lizm_cpu)", "wrong number of arguments for aggregate expression topk"),
        ("abs(1)", "expected an instant vector, and then scalars, in call to abs"),
        ("abs(lizm_cpu[5m])", "a range vector stands only in a function such as avg_over_time"),
        ("avg_over_time(lizm_cpu)", "expected one range vector such as cpu[5m] in call to avg_over_time"),
        ("lizm_cpu lizm_mem", "unexpected \"lizm_mem\" after the query"),
        ("'a", "unterminated quoted string"),
        ("lizm_cpu ä", "unexpected character 'ä'"),
        (&"(".repeat(1000), "more than 50 expressions within each other, the limit"),
        (&format!("{{{}}}", "a=~'b',".repeat(11)), "more than 10 regular expressions, the limit"),
        (&"1+".repeat(1000), "more than 200 selectors, operators and calls, the limit"),
    ] {
        let error = parse(query).unwrap_err();
        assert!(
            matches!(&error, Error::BadData(why) if why.starts_with("invalid parameter \"query\": ") && why.contains(expected)),
            "{query}: {error:?}"
        );
    }
    for (query, what) in [
        ("rate(lizm_cpu[5m])", "the function \"rate\""),
        ("stddev by (host) (lizm_cpu)", "the aggregation \"stddev\""),
        ("lizm_cpu and lizm_mem", "the operator \"and\""),
        ("lizm_cpu * ignoring(x) lizm_mem", "\"ignoring\""),
        ("max_over_time(lizm_cpu[5m:1m])", "a subquery"),
        ("sum(lizm_cpu)[5m:]", "a subquery"),
        ("lizm_cpu @ 1", "the modifier \"@\""),
        ("\"text\"", "a string as an expression"),
    ] {
        let error = parse(query).unwrap_err();
        let sentence = format!("query: {what} is not known here; docs/grafana.md has what is");
        assert_eq!(error, Error::Execution(sentence), "{query}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_words_are_a_query_or_refused(words in proptest::collection::vec(select(WORDS), 0..12)) {
        let query = words.join(" ");
        let store = store();
        at(&store, &query, NOW);
        over(&store, &query, -600, 60, 30);
    }
}

/// Words that queries are made of.
const WORDS: &[&str] = &[
    "lizm_cpu",
    "lizm_cpu_core",
    "{host=~\"a|b\"}",
    "[5m]",
    "[1h]",
    "offset",
    "1m",
    "-",
    "+",
    "*",
    "/",
    "%",
    "^",
    "==",
    ">",
    "bool",
    "1",
    "0.5",
    "NaN",
    "(",
    ")",
    "sum",
    "topk",
    "bottomk",
    "(2,",
    "avg_over_time(",
    "last_over_time(",
    "round(",
    "clamp_min(",
    ",",
    "by (host)",
    "without (core)",
];

#[test]
fn the_longest_spans_and_the_last_times_are_answered() {
    let store = store();
    assert_eq!(at(&store, "avg_over_time(lizm_cpu{host='b'}[292y])", NOW), "{host=b} 100");
    assert_eq!(at(&store, "lizm_cpu offset 292y", NOW), "");
    for time in [-253_402_300_799, 0, NOW as i64, 253_402_300_799] {
        for query in
            ["lizm_cpu[292y] offset 292y", "lizm_cpu offset -292y", "avg_over_time(lizm_cpu[292y] offset -292y)"]
        {
            let steps = Steps { start_ms: time * 1000, step_ms: i64::from(u32::MAX), count: 2 };
            let (expr, budget) = (parse(query).unwrap(), Budget::start(None));
            let _ = instant(&expr, time * 1000, Selection::new(&store, NOW), &budget);
            let _ = range(&expr, steps, Selection::new(&store, NOW), &budget);
        }
    }
}

#[test]
fn a_query_has_limits() {
    let store = Store::new(5000);
    for n in 0..1001 {
        record(&store, &format!("h{n}"), NOW, &[("cpu", 1.0)]);
    }
    assert_eq!(at(&store, "lizm_cpu", NOW), "Execution(\"query: selects more than 1000 series, the limit\")");
    assert_eq!(at(&store, "count(lizm_cpu{host!='h0'})", NOW), "{} 1000");
    // An expression that takes long for each host.
    let slow = format!("lizm_cpu{{host=~'(?:{}){{900}}b'}}", "a?".repeat(10));
    let long = Store::new(5000);
    (0..1000).for_each(|n| record(&long, &format!("{}{n}", "a".repeat(200)), NOW, &[("cpu", 1.0)]));
    assert!(at(&long, &slow, NOW).starts_with("Timeout("));
    let points = over(&store, "lizm_cpu{host=~'h[0-9]{1,2}|h[1-4][0-9]{2}'}", -60_000, 0, 10);
    assert!(points.starts_with("Execution(\"query: ") && points.contains("2000000 points, the limit"), "{points}");
    let budget = Budget::start(Some(std::time::Duration::ZERO));
    let answer = instant(&parse("lizm_cpu").unwrap(), NOW as i64 * 1000, Selection::new(&store, NOW), &budget);
    assert!(matches!(answer, Err(Error::Timeout(_))), "{answer:?}");
}

#[test]
fn the_series_and_metrics_are_listed() {
    let store = store();
    let budget = Budget::start(None);
    let mut selection = Selection::new(&store, NOW);
    let mut listed = Vec::new();
    let selectors = ["lizm_net_in", "{role!=''}"].map(|query| parse_selector(query).unwrap());
    selection
        .visit(&selectors, &budget, |labels| {
            listed.push(shown(&labels));
            true
        })
        .unwrap();
    assert_eq!(listed, ["lizm_net_in{host=a}", "lizm_host_info{host=b,role=web}"]);
    let (metrics, names) = selection.metrics(&budget).unwrap();
    assert_eq!(names.iter().collect::<Vec<_>>(), ["__name__", "core", "host", "label", "path", "role"]);
    let info = &metrics["lizm_net_in_max"];
    assert_eq!(info.unit, "bytes_per_second");
    assert!(metrics.contains_key("lizm_host_up") && metrics.contains_key("lizm_cpu_core_samples"), "{metrics:?}");
    assert!(parse_selector("lizm_cpu[5m]").is_err() && parse_selector("1").is_err());
}
