use proptest::prelude::*;

use super::super::super::event::Severity;
use super::*;

fn variable(name: &str) -> Option<String> {
    (name == "PD_KEY").then(|| "secret".to_owned())
}

fn parsed(text: &str) -> Rules {
    parse(&[("file", text)], Retention::default(), variable)
        .unwrap_or_else(|mistakes| panic!("{text}: {}", mistakes[0]))
}

#[cfg(feature = "tls")]
const EXAMPLE: &str = r#"
default: notify ops; every 1d
target ops: ntfy http://ntfy.sh/lizm-4f1c
target pager: pagerduty ${PD_KEY}
disk: disk,disk:* > 90 for 10m until < 85 on web-*,!web-test
disk: disk,disk:* > 97 for 2m on web-*; severity critical; notify ops,pager     # same name: levels of one alert
disk-soon: forecast(disk,disk:*, 6h, 24h) > 99 for 30m
cpu-pinned: min(cpu, 5m) > 95                                             # every sample of five minutes
cpu: cpu > 98 for 15m on build-*                                          # of one severity the first that fits a host counts
cpu: cpu > 90 for 5m
leak: change(mem, 30m) > 20; every never
gone: host down; severity critical; notify pager
backup: no backup.ok for 2h on tag:role=db
silence disk,cpu on db-* sun 02:00-05:00 Europe/Berlin
"#;

#[cfg(feature = "tls")]
#[test]
fn the_example_of_the_docs() {
    let Rules { rules, targets, silences, .. } =
        parsed(&EXAMPLE.replace("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"));
    assert_eq!((rules.len(), targets.len(), silences.len()), (9, 2, 1));
    assert!(!format!("{targets:?}").contains("secret"));
    let disk = &rules[0];
    assert_eq!((disk.line, disk.source.as_str()), (5, "disk: disk,disk:* > 90 for 10m until < 85 on web-*,!web-test"));
    assert_eq!((disk.for_sec, disk.interval_sec, disk.every_sec), (600, 60, Some(86_400)));
    assert_eq!((disk.notify.as_slice(), disk.severity), (&["ops".to_owned()][..], Severity::Warning));
    assert_eq!(rules[1].source, "disk: disk,disk:* > 97 for 2m on web-*; severity critical; notify ops,pager");
    assert_eq!((rules[1].severity, rules[1].notify.len()), (Severity::Critical, 2));
    let Test::Series { function, .. } = &rules[2].test else { panic!() };
    assert_eq!((*function, rules[2].interval_sec), (Function::Forecast { over: 6, ahead_sec: 86_400 }, 3600));
    let Test::Series { function, .. } = &rules[3].test else { panic!() };
    assert_eq!((*function, rules[3].for_sec, rules[3].interval_sec), (Function::Min(5), 0, 60));
    assert_eq!(rules[6].every_sec, None);
    assert_eq!((&rules[7].test, &rules[7].notify[..]), (&Test::Down, &["pager".to_owned()][..]));
    let Test::Absent(series) = &rules[8].test else { panic!() };
    assert!(
        series.matches("backup.ok")
            && rules[8].hosts.matches_host("x", &crate::sample::Tags::parse("role=db").unwrap())
    );
    // A Sunday of November at 01:30 UTC is 02:30 in Berlin.
    assert!(silences[0].when.holds(1_795_915_800) && !silences[0].when.holds(1_795_915_800 - 3600));
}

#[cfg(feature = "tls")]
#[test]
fn forms_that_are_right() {
    for right in [
        "",
        "   # only a comment",
        "a: cpu>5",
        "a:cpu >= -1.5e3 for 90s",
        "a: min(cpu) < 1",
        "host: host > 5",
        "no: no > 5",
        "no: no x",
        "late: host late for 5m on !db",
        "a: no backup.* for 24h",
        "a: no backup.ok,other for 26h on *",
        "a: \"odd, name; here\",b > 1; text \"say \\\"it\\\"\"",
        "a: max( cpu , mem,1h ) > 1",
        "a: min > 5",
        "a: \"5m\" > 5",
        "a: avg(\"5m\", 5m) > 5",
        "a: cpu > 5 for 1h; severity info ;every 30m;needs 80%",
        "a: cpu < 5 until > 6 for 1m on x # y",
        "a: change(mem, 23h) > 1",
        "a: cpu > 1 for 24h",
        "silence * 22:00-06:00",
        "silence a mon,tue 00:00-24:00 UTC0",
        "silence a mon, tue , wed 00:00-24:00",
        "silence a on b 2026-11-29T02:00 to 2026-11-29T05:00:30+01:00",
        "silence a 1000 to 2000",
        "target x: exec /bin/mail -s \"a b\" root",
        "target x: telegram a b # c",
        "target x: slack http://h/%23c",
        "target: cpu > 1",
        "silence: cpu > 1",
        "default: severity info",
        "b: cpu > 1; text \"# no comment\"",
    ] {
        parsed(right);
    }
}

#[test]
fn mistakes_name_their_place() {
    for (line, column, why) in [
        ("disk", 5, "':' after disk is wanted"),
        (">", 1, "a rule NAME"),
        ("ü: cpu > 1", 1, "a rule NAME"),
        ("lizm-clock: cpu > 1", 1, "those of lizm itself"),
        ("a: cpu", 7, ">, >=, < or <= is wanted, not the end"),
        ("a: cpu = 5", 8, ">, >=, < or <="),
        ("a: cpu > x", 10, "a number is wanted, not \"x\""),
        ("a: cpu > inf", 10, "a number"),
        ("a: cpu > 1e301", 10, "a number"),
        ("a: cpu > 5 for", 15, "a time such as 30s"),
        ("a: cpu > 5 for 5", 16, "a time"),
        ("a: cpu > 5 for 5 m", 16, "a time"),
        ("a: cpu > 5 for 0m", 16, "a time"),
        ("a: cpu > 5 for 5m for 6m", 19, "for, until, on, ';' or the end"),
        ("a: cpu > 5 on x until < 3", 17, "for, until, on, ';' or the end"),
        ("a: cpu > 5 until > 3", 12, "until: > 3 must be the other side of > 5"),
        ("a: cpu > 5 until < 6", 12, "until"),
        ("a: host down until < 6", 14, "until: only a test of a series"),
        ("a: cpu > 5 for 25h", 11, "it looks back 25 hours, and 24 are kept"),
        ("a: no backup.* for 26h", 15, "a pattern finds what is kept, 24 hours"),
        ("a: min(cpu, 30m) > 5 for 45m", 21, "it looks back 74 minutes, and 60 are kept"),
        ("a: change(cpu, 1h) > 5", 4, "it looks back 61 minutes"),
        ("a: change(cpu, 24h) > 5", 4, "it looks back 25 hours"),
        ("a: forecast(disk, 3m, 1h) > 5", 4, "a line needs 4 averages"),
        ("a: forecast(disk, 6h) > 5", 4, "forecast(SERIES, OVER, AHEAD)"),
        ("a: change(disk) > 5", 4, "change(SERIES, TIME)"),
        ("a: min(5m) > 5", 4, "min(SERIES, …)"),
        ("a: min(cpu, 5m, mem) > 5", 17, "a time such as 5m is wanted"),
        ("a: min(cpu, 5m > 5", 16, "',' or ')'"),
        ("a: \"cpu > 5", 4, "the second \" is missing"),
        ("a: cpu,,mem > 5", 8, "a name or a pattern"),
        ("a: cpu > 5; severity bad", 22, "info, warning or critical"),
        ("a: cpu > 5; needs 0%", 20, "1% to 100%"),
        ("a: cpu > 5; notify", 19, "the name of a target"),
        ("a: cpu > 5; notify nobody", 20, "notify: there is no target nobody"),
        ("a: cpu > 5; every 1d; every 2d", 23, "every: given twice"),
        ("a: cpu > 5; loud", 13, "\"loud\" is no option"),
        ("a: cpu > 5; text hello", 18, "text between"),
        ("default: notify nobody", 17, "there is no target nobody"),
        ("target x: mail root", 11, "\"mail\" is no kind of target"),
        ("target x: slack hooks.slack.com", 11, "the URL: not a URL"),
        ("target x: telegram a", 11, "telegram TOKEN CHAT"),
        ("target x: pagerduty ${NO_KEY}", 21, "${NO_KEY}: not set"),
        ("target x: pagerduty ${NO_KEY", 21, "${ without }"),
        ("silence disk", 13, "HH:MM-HH:MM is wanted"),
        ("silence disk so 02:00-03:00", 14, "\"so\" is no day"),
        ("silence disk sun, so 02:00-03:00", 19, "\"so\" is no day"),
        ("silence disk 02:00-02:00", 14, "HH:MM-HH:MM"),
        ("silence disk 02:00-25:00", 14, "HH:MM-HH:MM"),
        ("silence disk 02:00-03:00 Europe/Nowhere", 26, "is no time zone"),
        ("silence disk 2026-02-30T00:00 to 2026-03-01T00:00", 14, "HH:MM-HH:MM"),
        ("silence disk 2026-03-30T00:00 to 2026-03-01T00:00", 34, "a time after the first"),
    ] {
        let mistakes = parse(&[("f", line)], Retention::default(), variable).expect_err(line);
        assert!(mistakes.len() == 1 && mistakes[0].why.contains(why), "{line}: {}", mistakes[0]);
        assert_eq!(mistakes[0].column, column, "{line}: {}", mistakes[0]);
    }
    let twice = parse(&[("f", "default: every 1d\ndefault: every 2d")], Retention::default(), variable).unwrap_err();
    assert_eq!(twice[0].to_string(), "f:2:1: default: every is given twice");
}

#[test]
fn every_mistake_of_a_long_file_is_named() {
    let line = |number: usize| match number % 10 {
        0 => format!("rule-{number}: cpu >> 5\n"),
        _ => format!("rule-{number}: cpu,disk:* > {number} for 5m on web-*; severity critical\n"),
    };
    let text: String = (1..=10_000).map(line).collect();
    let mistakes = parse(&[("f", &text)], Retention::default(), variable).unwrap_err();
    assert_eq!(mistakes.iter().map(|m| m.line).collect::<Vec<_>>(), (10..=10_000).step_by(10).collect::<Vec<_>>());
    let text: String = (0..=RULES_MAX).map(|number| format!("a{number}: cpu > 1\n")).collect();
    assert_eq!(parse(&[("f", &text)], Retention::default(), variable).unwrap_err()[0].line, RULES_MAX + 1);
}

#[test]
fn defaults_hold_wherever_they_stand() {
    let rules =
        parsed("a: cpu > 1\nb: cpu > 1; severity info; every never\ndefault: severity critical; every 1h; needs 90%")
            .rules;
    assert_eq!((rules[0].severity, rules[0].every_sec, rules[0].needs_percent), (Severity::Critical, Some(3600), 90));
    assert_eq!((rules[1].severity, rules[1].every_sec), (Severity::Info, None));
}

#[test]
fn stamps() {
    for (text, stamp) in [
        ("1970-01-01T00:00", Some(0)),
        ("2026-11-29T15:12:29Z", Some(1_795_965_149)),
        ("2026-11-29T15:12:29+01:00", Some(1_795_961_549)),
        ("2024-02-29T00:00", Some(1_709_164_800)),
        ("1795965149", Some(1_795_965_149)),
        ("2023-02-29T00:00", None),
        ("2023-00-01T00:00", None),
        ("2023-01-01", None),
        ("2023-01-01T24:00", None),
        ("2023-01-01T00:00x", None),
        ("", None),
    ] {
        assert_eq!(parse_stamp(text), stamp, "{text}");
    }
}

#[test]
fn a_silence_may_pass_midnight() {
    let silences = parsed("silence a sat 22:00-06:00").silences;
    // 2026-11-28 was a Saturday; 22:00 UTC.
    let begin = 1_795_903_200;
    for (now, holds) in [
        (begin - 1, false),
        (begin, true),
        (begin + 8 * 3600 - 1, true),
        (begin + 8 * 3600, false),
        (begin - 86_400, false),
    ] {
        assert_eq!(silences[0].when.holds(now), holds, "{now}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(default|target|silence|a): ?(cpu|min\\(|no|host)?[ -~ä\n]{0,60}") {
        if let Err(mistakes) = parse(&[("f", &text)], Retention::default(), variable) {
            prop_assert!(!mistakes.is_empty());
        }
    }
}
