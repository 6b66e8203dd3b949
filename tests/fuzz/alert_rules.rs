//! Any text as a file of rules: it is read or its mistakes name places in it, and each rule reads again from its own line.

use lizm::alerts::rules::{Retention, Rules, parse};

/// The rules and the number of targets of a file in which variables are their names.
fn read(text: &str) -> Result<Rules, usize> {
    parse(&[("file", text)], Retention::default(), |name| Some(name.to_owned())).map_err(|mistakes| {
        for mistake in &mistakes {
            let line = text.lines().nth(mistake.line - 1).unwrap_or_default();
            assert!(mistake.column >= 1 && mistake.column <= line.chars().count() + 1, "{mistake}: {line:?}");
        }
        mistakes.len()
    })
}

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(rules) = read(text) else { return };
    let targets = rules.targets.iter().map(|target| format!("target {}: exec x\n", target.name()));
    let targets: String = targets.collect();
    for rule in &rules.rules {
        let again = read(&format!("{targets}{}", rule.source)).expect("a rule alone").rules;
        assert_eq!((&again[0].name, &again[0].test), (&rule.name, &rule.test), "{}", rule.source);
        assert_eq!((again[0].for_sec, again[0].interval_sec), (rule.for_sec, rule.interval_sec), "{}", rule.source);
    }
    for silence in &rules.silences {
        let held = (0..8).filter(|day| silence.when.holds(1_795_965_149 + 86_399 * day)).count();
        assert!(held <= 8);
    }
}
