//! docs/openapi.json against both HTTP servers, by schemathesis: generated requests are answered as it says.

use std::path::Path;
use std::process::Command;

use crate::harness::{Served, python_program};

/// What it does not check: that each request which breaks the schema is refused, and each other one accepted. No schema
/// says that `to` needs `from`, and a host may be named in more ways than the schema's examples.
const UNCHECKED: &str = "negative_data_rejection,positive_data_acceptance";

/// Generates requests for each operation, as `more` says, and holds the answers to the document.
fn hold_to_document(server: &str, more: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = python_program("schemathesis");
    let directory = tempfile::tempdir().unwrap();
    let receiver = Served::start(&["--http-server", server, "--alert", "cpu: cpu > 50"]);
    let output = Command::new(program)
        .args(["run", "--url", &receiver.url(""), "--exclude-checks", UNCHECKED])
        .args(["--max-examples", "20", "--seed", "1", "--continue-on-failure", "--warnings", "off", "--no-color"])
        .args(more)
        .arg(root.join("docs/openapi.json"))
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("No issues found"), "{said}");
}

#[test]
#[ignore = "needs schemathesis"]
#[cfg(feature = "builtin")]
fn the_builtin_server_answers_as_the_document_says() {
    hold_to_document("builtin", &[]);
}

#[test]
#[ignore = "needs schemathesis"]
fn tiny_http_answers_as_the_document_says() {
    // It closes a connection at a byte above 0x7f in a head: docs/limits.md.
    hold_to_document("tiny_http", &["--phases", "examples,fuzzing", "--generation-codec", "ascii"]);
}

#[test]
fn the_document_is_served_and_is_of_this_version() {
    let receiver = Served::start(&[]);
    let (status, document) = receiver.get("/api/openapi.json");
    assert_eq!(status, 200);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
}
