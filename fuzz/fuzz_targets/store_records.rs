#![no_main]

#[path = "../../tests/fuzz/asked.rs"]
#[allow(dead_code)]
mod asked;
#[path = "../../tests/fuzz/store_records.rs"]
mod store_records;

libfuzzer_sys::fuzz_target!(|input: &[u8]| store_records::run(input));
