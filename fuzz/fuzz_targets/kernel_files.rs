#![no_main]

#[path = "../../tests/fuzz/kernel_files.rs"]
mod kernel_files;

libfuzzer_sys::fuzz_target!(|input: &[u8]| kernel_files::run(input));
