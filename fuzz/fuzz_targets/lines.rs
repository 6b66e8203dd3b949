#![no_main]

#[path = "../../tests/fuzz/asked.rs"]
#[allow(dead_code)]
mod asked;
#[path = "../../tests/fuzz/lines.rs"]
mod lines;

libfuzzer_sys::fuzz_target!(|input: &[u8]| lines::run(input));
