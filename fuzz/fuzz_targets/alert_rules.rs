#![no_main]

#[path = "../../tests/fuzz/alert_rules.rs"]
mod alert_rules;

libfuzzer_sys::fuzz_target!(|input: &[u8]| alert_rules::run(input));
