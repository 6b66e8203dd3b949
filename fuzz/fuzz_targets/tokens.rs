#![no_main]

#[path = "../../tests/fuzz/asked.rs"]
#[allow(dead_code)]
mod asked;
#[path = "../../tests/fuzz/tokens.rs"]
mod tokens;

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokens::run(input));
