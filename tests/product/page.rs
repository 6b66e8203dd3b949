//! The dashboard: what is served at `/`, and what people see and do there in Debian's Chromium. The scenes are in
//! `tests/browser/page.py`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::{Answer, Process, Served, lizm};

/// Debian's python, which is the one that finds Debian's selenium.
fn scene(name: &str, receiver: &Served, more: &[&str]) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/page.py");
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-B", script, name, &receiver.url("")]).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
    python.stderr(Stdio::piped()).spawn().unwrap()
}

fn play(name: &str) {
    let receiver = Served::start(&[]);
    assert_ended_well(scene(name, &receiver, &[]));
}

fn assert_ended_well(scene: Child) {
    let output = scene.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_is_served_with_what_keeps_it_to_itself() {
    let receiver = Served::start(&[]);
    let page = receiver.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.starts_with("<!doctype html>") && page.body.ends_with("</html>\n"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let tag = page.header("etag").unwrap();

    let held = format!("GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n");
    let held = receiver.raw(held.as_bytes());
    assert_eq!((held.status, held.header("etag"), held.header("content-length")), (304, Some(tag), None));
    let mut stream = receiver.connect();
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = Answer::read_head(&mut stream);
    assert_eq!((head.status, head.header("content-length")), (200, Some(&*page.body.len().to_string())));
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn a_live_host_is_seen_opened_and_refreshed() {
    play("live");
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn what_is_wrong_is_said_first() {
    play("attention");
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn columns_groups_and_keys_do_what_they_say() {
    play("columns");
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn sixty_labels_are_four_screens_of_families() {
    play("families");
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn of_many_hosts_those_in_sight_are_drawn() {
    play("many");
}

#[test]
#[ignore = "needs chromium-driver, python3-selenium and axe-core"]
fn axe_finds_nothing_in_any_view() {
    let axe = "target/axe/node_modules/axe-core/axe.min.js";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(axe);
    assert!(path.exists(), "axe-core is missing: `make {axe} TOOLS=npm` gets it from npm, as `make test` does");
    let receiver = Served::start(&[]);
    assert_ended_well(scene("accessible", &receiver, &[path.to_str().unwrap()]));
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn what_fires_is_seen_and_silenced() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.conf");
    std::fs::write(&rules, "queue: queue > 20\n").unwrap();
    let rules = rules.to_str().unwrap();
    let receiver = Served::start(&["--alerts", rules]);
    assert_ended_well(scene("alerts", &receiver, &[rules]));
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn a_host_is_seen_over_all_that_is_kept() {
    let receiver = Served::start(&["--keep", "1m:1h,1h:90d,1d:2y"]);
    assert_ended_well(scene("ranges", &receiver, &[]));
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn where_there_is_nothing_to_see_the_page_says_so() {
    play("states");
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn two_hundred_hostile_names_are_text() {
    play("hostile");
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn the_page_works_under_a_path_of_a_proxy() {
    play("subpath");
}

#[cfg(feature = "tls")]
#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn a_host_is_forgotten_by_who_may() {
    use crate::certificates::{Trust, bearer, request, token};

    let trust = Trust::new();
    let (receiver, secured) = (Served::start(&[]), trust.receiver(&[]));
    let path = format!("/api/perf/jarvis/{}", crate::harness::now());
    let submit = request("POST", &path, &bearer(&token(&["jarvis"])), "{\"cpu\": 1}");
    assert_eq!(secured.served.raw(&submit).status, 200);
    let key = trust.text("token.key");
    let operator = lizm(&["token", "--operator", "--token-key", &key]).output().unwrap();
    let operator = String::from_utf8(operator.stdout).unwrap();
    assert_ended_well(scene("forget", &receiver, &[&secured.served.url(""), operator.trim()]));
}

#[test]
#[ignore = "needs chromium-driver and python3-selenium"]
fn the_last_picture_stays_while_the_receiver_is_away() {
    let receiver = Served::start(&[]);
    let port = receiver.address.port().to_string();
    let mut scene = scene("away", &receiver, &[]);
    let (mut answers, mut asked) = (scene.stdin.take().unwrap(), BufReader::new(scene.stdout.take().unwrap()));
    let mut running = Some(receiver);
    let mut line = String::new();
    while asked.read_line(&mut line).unwrap() > 0 {
        match line.trim() {
            "stop" => assert!(running.take().unwrap().process.stop(Signal::SIGTERM).0.success()),
            _ => {
                running =
                    Some(Served::from(Process::start(lizm(&["receiver", "--bind", "127.0.0.1", "--port", &port]))))
            }
        }
        answers.write_all(line.as_bytes()).unwrap();
        line.clear();
    }
    assert_ended_well(scene);
}
