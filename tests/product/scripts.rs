//! The scripts that lizmon's users have go on working.

use std::process::Command;

use crate::harness::{Process, Served, await_some, lizm};

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
    let average = ["start-sec", "end-sec", "interval-size-sec", "num-samples", "avg", "min", "max"];
    let expected = [
        &["summary:by-minute:cpu", "start", "end", "averages"],
        &average[..],
        &["timeslice-size-sec", "average-count"],
    ];
    assert_eq!(keys, expected.concat());
}
