//! Options, environment, help and exit codes.

use std::process::Command;

use crate::harness::{Process, Served, lizm, now};

/// Exit code, standard output, standard error.
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_usage_exits_2_and_names_the_option() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "no command"),
        (&["publish"], "\"publish\" is not known; 'lizm --help' lists them"),
        (&["reciever"], "did you mean receiver?"),
        (&["receiver", "--port", "70000"], "--port"),
        (&["receiver", "-p", "x"], "--port"),
        (&["receiver", "--bind", "localhost"], "--bind"),
        (&["receiver", "--max-series", "0"], "--max-series"),
        (&["receiver", "--metrics-hosts", "all"], "--metrics-hosts"),
        (&["receiver", "--port", "1", "--port", "2"], "option --port: given twice"),
        (&["receiver", "--verbose"], "option --verbose: not known; 'lizm receiver --help' lists them"),
        (&["receiver", "--prot", "3"], "option --prot: not known; did you mean --port?"),
        (&["receiver", "--max-serie=3"], "option --max-serie: not known; did you mean --max-series?"),
        (&["receiver", "--read-password", "f"], "did you mean --read-password-file?"),
        (&["receiver", "--port", "x"], "\"x\" is not a whole number from 0 to 65535"),
        (&["receiver", "--no-plain"], "option --no-plain: leaves no server"),
        (&["receiver", "--store", "redis:6379"], "looks like a Redis: write redis://redis:6379, or ./redis:6379"),
        (&["receiver", "8080"], "\"8080\""),
        (&["receiver", "--serve", "intake"], "--serve: another receiver would not know"),
        (&["receiver", "--serve", "summaries", "--store", "memory"], "--serve: another receiver would not know"),
        (&["receiver", "--serve", "both"], "--serve"),
        (&["receiver", "--store", "Cargo.toml"], "--store: \"Cargo.toml\" is a file; a directory is wanted"),
        (&["monitor", "--publish", "http://r", "--json"], "option --json: goes with --once alone"),
        (&["alerts", "http://r", "--on", "db-*"], "option --on: goes with --silence alone"),
        (&["alerts", "http://r", "--for", "2h"], "option --for: goes with --silence alone"),
        (&["alerts", "http://r", "--alerts", "rules"], "option --alerts: goes with test alone"),
        (&["receiver", "--archive-after=1m"], "option --archive-after: goes with --archive alone"),
        (&["receiver", "--token-valid", "1m"], "option --token-valid: goes with --trust alone"),
        (&["receiver", "--notify-ca", "ca.pem"], "option --notify-ca: goes with --alerts or --alert alone"),
        (
            &["monitor", "--host", "h", "--publish", "http://r", "--spool", "Cargo.toml"],
            "--spool: \"Cargo.toml\" is a file",
        ),
        (&["receiver", "--store", "http://r"], "--store"),
        (&["receiver", "--store", "redis://me@r"], "--store"),
        (&["receiver", "--store-ca", "ca.pem"], "--store-ca"),
        (&["receiver", "--log-level", "loud"], "--log-level: \"loud\" is not one of error, warning, "),
        (&["receiver", "--log-format=xml"], "--log-format"),
        (&["monitor", "--once", "-x"], "-x"),
        (&["monitor", "--host", "h"], "--publish"),
        (&["monitor", "--host", "--publish", "http://r"], "--host"),
        (&["monitor", "--host", "a/b", "--publish", "http://r"], "--host"),
        (&["monitor", "--host", "h", "--publish", "r:8080"], "--publish"),
        (&["monitor", "--host", "h", "--publish", "http://r", "ftp://r"], "\"ftp://r\""),
        (&["monitor", "--host", "h", "--publish", "http://r", "--interval", "0.5"], "--interval"),
        (&["monitor", "--host", "h", "--publish", "http://r", "-x"], "-x"),
        (&["monitor", "--host", "h", "--publish", "http://r", "--probes", "fans"], "--probes"),
        (&["monitor", "--host", "h", "--publish", "http://r", "--scope", "pod"], "--scope"),
        (&["check"], "URL"),
        (&["check", "localhost:8080"], "\"localhost:8080\": not a URL such as http://"),
        (&["watch", "udp://localhost:8089"], "does not begin with http:// or https://"),
        (&["watch"], "URL"),
        (&["watch", "http://a", "--twice"], "--twice"),
        (&["check", "http://a", "http://b"], "http://b"),
    ];
    #[cfg(feature = "builtin")]
    let cases = [
        cases,
        &[
            (&["receiver", "--max-connections", "9"], "goes with --tls-port or --http-server builtin alone"),
            (&["receiver", "--http-server", "builtin", "--workers", "9"], "goes with --http-server tiny_http alone"),
        ],
    ]
    .concat();
    #[cfg(not(feature = "builtin"))]
    let cases = [cases, &[(&["receiver", "--http-server", "builtin"], "--http-server: builtin needs")]].concat();
    for (arguments, part) in cases {
        let (code, stdout, stderr) = run(lizm(arguments));
        assert!(code == Some(2) && stdout.is_empty() && stderr.contains(part), "{arguments:?}: {code:?} {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn help_and_version_are_on_standard_output() {
    for command in ["receiver", "monitor", "watch", "check", "alerts", "token", "demo"] {
        let (code, stdout, _) = run(lizm(&[command, "--help"]));
        assert!(code == Some(0) && stdout.contains(&format!("Examples:\n  lizm {command}")), "{stdout}");
        assert_eq!(run(lizm(&["help", command])).1, stdout);
        assert!(run(lizm(&["--help"])).1.contains(&format!("lizm {command}")));
    }
    let version = format!("lizm {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(lizm(&["--version"])), (Some(0), version, String::new()));
}

#[test]
fn options_read_the_environment_and_the_command_line_wins() {
    let mut command = lizm(&["receiver", "--port=0", "--log-format", "text"]);
    command
        .env("LIZM_BIND", "127.0.0.1")
        .env("LIZM_PORT", "1")
        .env("LIZM_MAX_SERIES", "1")
        .env("LIZM_LOG_FORMAT", "json");
    let receiver = Served::from(Process::start(command));
    assert!(receiver.address.ip().is_loopback());
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"a\":1,\"b\":2}").1["refused"], 1);

    let receiver = Served::start(&[]);
    let mut command = lizm(&["monitor", "--this-host", "mine"]);
    command.env("LIZM_PUBLISH", format!("http://127.0.0.1:1 {}", receiver.url("")));
    let monitor = Process::start(command);
    assert!(monitor.line_with("successful").contains(&receiver.url("/api/perf/mine/")));

    let mut command = lizm(&["receiver"]);
    command.env("LIZM_MAX_SERIES", "many");
    let (code, _, stderr) = run(command);
    assert!(code == Some(2) && stderr.contains("--max-series"), "{stderr}");
}

#[test]
fn the_address_of_a_kubernetes_service_is_not_a_port() {
    let service = |arguments: &[&str]| {
        let mut command = lizm(arguments);
        command.env("LIZM_PORT", "tcp://10.0.0.1:80");
        command
    };
    let receiver = Process::start(service(&["receiver", "--bind", "127.0.0.1", "--port", "0"]));
    assert!(receiver.line().starts_with("WARNING: LIZM_PORT is ignored"));
    // Without --port it is no error either: the first one is about another option.
    let (code, _, stderr) = run(service(&["receiver", "--bind", "nowhere"]));
    assert!(code == Some(2) && stderr.starts_with("lizm: option --bind: "), "{stderr}");
}

#[test]
fn a_variable_that_is_no_option_is_warned_of() {
    let mut command = lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1"]);
    command.env("LIZM_BNID", "127.0.0.1").env("LIZM_SERVICE_PORT", "80").env("LIZM_INTERVAL", "5");
    let receiver = Process::start(command);
    let warning = "WARNING: LIZM_BNID in the environment is no option of lizm; did you mean LIZM_BIND?";
    assert_eq!(receiver.line(), warning);
    assert!(receiver.line().starts_with("INFO: Receiver is listening"));
    // What a command prints is for programs: a warning is on standard error.
    let receiver = Served::start(&[]);
    let mut command = lizm(&["check", &receiver.url("")]);
    command.env("LIZM_WORDS_OF_NOBODY", "1");
    let (code, stdout, stderr) = run(command);
    assert_eq!((code, stdout), (Some(0), format!("{} is healthy\n", receiver.url(""))));
    assert_eq!(stderr, "lizm: LIZM_WORDS_OF_NOBODY in the environment is no option of lizm\n");
}
