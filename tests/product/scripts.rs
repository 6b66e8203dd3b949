//! Scripts: those that lizmon's users have go on working, and `deploy/make-certs.sh` makes what receivers take.

use std::path::Path;
use std::process::Command;

use crate::harness::{Process, Served, await_some, lizm};

/// Runs `deploy/make-certs.sh DIR`: whether it succeeded, its lines with DIR as `DIR`, and standard error likewise.
fn make_certs(directory: &Path, arguments: &[&str]) -> (bool, Vec<String>, Vec<String>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/make-certs.sh");
    let output = Command::new("sh").arg(script).arg(directory).args(arguments).output().unwrap();
    let lines = |bytes| {
        let text = String::from_utf8(bytes).unwrap().replace(directory.to_str().unwrap(), "DIR");
        text.replace(&format!("{script}: "), "").lines().map(str::to_owned).collect()
    };
    (output.status.success(), lines(output.stdout), lines(output.stderr))
}

#[test]
#[ignore = "needs openssl"]
fn make_certs_says_what_it_made_and_kept_and_what_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| make_certs(directory.path(), arguments);
    let file = |name: &str| directory.path().join(name);
    let alt_names = |name: &str| {
        let mut command = Command::new("openssl");
        let output = command.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(file(name)).output();
        String::from_utf8(output.unwrap().stdout).unwrap().lines().last().unwrap().trim().to_owned()
    };
    let (is_done, made, errors) = run(&["::1", "a.example.org", "*.b.example.org"]);
    let names = ["ca", "receiver", "a.example.org", "any.b.example.org"];
    assert_eq!(made, names.map(|name| format!("made DIR/{name}.pem DIR/{name}.key")));
    assert!(is_done && errors.is_empty(), "{errors:?}");
    let (is_done, kept, _) = run(&["0:0::1", "a.example.org", "*.b.example.org"]);
    assert_eq!((is_done, kept), (true, names.map(|name| format!("kept DIR/{name}.pem")).to_vec()));

    // Another receiver's name, names of files that are something else, and a certificate of another authority.
    std::fs::write(file("secret.key"), "mine").unwrap();
    std::fs::copy(file("receiver.pem"), file("copied.pem")).unwrap();
    let (is_done, _, errors) = run(&["192.0.2.1", "secret", "receiver", "a/b", "copied"]);
    assert_eq!((is_done, errors.len()), (false, 5), "{errors:?}");
    assert!(errors[0].contains("is for IPAddress:0:0:0:0:0:0:0:1, not for 192.0.2.1"), "{errors:?}");
    assert!(errors[1].contains("DIR/secret.key is there") && errors[4].contains("not for copied"), "{errors:?}");
    assert_eq!(std::fs::read_to_string(file("secret.key")).unwrap(), "mine");
    std::fs::remove_file(file("ca.pem")).unwrap();
    let (is_done, _, errors) = run(&["::1", "a.example.org"]);
    assert!(
        !is_done && errors.iter().any(|error| error.contains("a.example.org.pem has expired, or is not by DIR/ca.pem"))
    );

    // A host may be called as the file of a wildcard is.
    let (is_done, lines, _) = run(&["::1", "any.b.example.org"]);
    assert!(!is_done && lines.iter().any(|line| line.contains("to DIR/wildcard.b.example.org.pem")), "{lines:?}");
    assert_eq!(alt_names("any.b.example.org.pem"), "DNS:any.b.example.org");
    assert_eq!(alt_names("wildcard.b.example.org.pem"), "DNS:*.b.example.org");
}

#[cfg(feature = "tls")]
#[test]
#[ignore = "needs openssl"]
fn a_host_of_any_name_is_trusted_with_a_certificate_of_make_certs() {
    let directory = tempfile::tempdir().unwrap();
    let hosts = ["db.2", "192.0.2.7", "1", "a,DNS:b", "über host"];
    let (is_done, _, errors) = make_certs(directory.path(), &[&["127.0.0.1"], &hosts[..], &["*.home"]].concat());
    assert!(is_done, "{errors:?}");
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ca, certificate, key) = (file("ca.pem"), file("receiver.pem"), file("receiver.key"));
    let trust = ["--no-plain", "--tls-port", "0", "--tls-cert", &certificate, "--tls-key", &key, "--trust", &ca];
    let token_key = file("tokens");
    let arguments = [&["receiver", "--bind", "127.0.0.1", "--token-key", &token_key], &trust[..]].concat();
    let receiver = Process::start(lizm(&arguments));
    let line = receiver.line();
    let url = line.strip_prefix("INFO: Receiver is listening on ").expect(&line);
    for (host, name) in hosts.map(|host| (host, host)).into_iter().chain([("nas.home", "any.home")]) {
        let (own, own_key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        let arguments = ["monitor", "--host", host, "--publish", url, "--ca", &ca, "--cert", &own, "--key", &own_key];
        Process::start(lizm(&arguments)).line_with("INFO: Publish was successful to https://");
    }
}

/// The loop of lizmon's README, once: `curl` of the running averages through `python3 -m json.tool`.
#[test]
#[ignore = "needs curl and python3"]
fn the_loop_of_lizmons_readme_prints_the_averages() {
    let receiver = Served::start(&[]);
    let url = receiver.url("/api/perf");
    let _monitor = Process::start(lizm(&["monitor", "--this-host", "jarvis", "--publish", &url]));
    let script = format!("curl -s {url}/jarvis/by-minute:cpu | python3 -m json.tool");
    let printed = await_some("averages", || {
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        printed.contains("num-samples").then_some(printed)
    });
    let keys: Vec<&str> = printed.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect();
    let average = ["start-sec", "end-sec", "interval-size-sec", "num-samples", "avg", "mean", "min", "max"];
    let expected = [
        &["summary:by-minute:cpu", "start", "end", "averages"],
        &average[..],
        &["timeslice-size-sec", "average-count"],
    ];
    assert_eq!(keys, expected.concat());
}
