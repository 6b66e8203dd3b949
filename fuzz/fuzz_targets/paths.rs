#![no_main]

#[path = "../../tests/fuzz/asked.rs"]
#[allow(dead_code)]
mod asked;
#[path = "../../tests/fuzz/paths.rs"]
mod paths;

libfuzzer_sys::fuzz_target!(|input: &[u8]| paths::run(input));
