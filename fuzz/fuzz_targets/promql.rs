#![no_main]

#[path = "../../tests/fuzz/promql.rs"]
mod promql;

libfuzzer_sys::fuzz_target!(|input: &[u8]| promql::run(input));
