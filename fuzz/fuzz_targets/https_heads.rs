#![no_main]

#[path = "../../tests/fuzz/asked.rs"]
#[allow(dead_code)]
mod asked;
#[path = "../../tests/fuzz/https_heads.rs"]
mod https_heads;

libfuzzer_sys::fuzz_target!(|input: &[u8]| https_heads::run(input));
