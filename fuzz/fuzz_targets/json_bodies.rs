#![no_main]

#[path = "../../tests/fuzz/asked.rs"]
#[allow(dead_code)]
mod asked;
#[path = "../../tests/fuzz/json_bodies.rs"]
mod json_bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| json_bodies::run(input));
