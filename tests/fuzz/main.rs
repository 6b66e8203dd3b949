//! What the fuzzer tries, a file a target, and a replay of what it has found to try: `fuzz/corpus/TARGET`. The fuzzer runs
//! the same functions; see `make fuzz`.

#![cfg(all(feature = "disk", feature = "tls"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alert_rules;
mod asked;
mod https_heads;
mod json_bodies;
mod kernel_files;
mod lines;
mod paths;
mod promql;
mod requests;
mod store_records;
mod tokens;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() > 4, "{}", corpus.display());
    for input in inputs {
        println!("{}", input.display());
        run(&fs::read(&input).unwrap());
    }
}

#[test]
fn alert_rules_again() {
    replay("alert_rules", alert_rules::run);
}

#[test]
fn json_bodies_again() {
    replay("json_bodies", json_bodies::run);
}

#[test]
#[cfg(target_os = "linux")]
fn kernel_files_again() {
    replay("kernel_files", kernel_files::run);
}

#[test]
fn lines_again() {
    replay("lines", lines::run);
}

#[test]
fn paths_again() {
    replay("paths", paths::run);
}

#[test]
fn promql_again() {
    replay("promql", promql::run);
}

#[test]
fn tokens_again() {
    replay("tokens", tokens::run);
}

#[test]
fn https_heads_again() {
    replay("https_heads", https_heads::run);
}

#[test]
fn store_records_again() {
    replay("store_records", store_records::run);
}
