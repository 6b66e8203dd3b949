//! Sources that are trusted: monitors with certificates and tokens, what other programs do, and the changes of keys.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::certificates::{
    Authority, Client, HS256, KEY, OTHER_KEY, Trust, Wanted, bearer, claims, request, token, token_of,
};
use crate::harness::{Answer, Process, Served, await_some, lizm, now};

/// Runs the binary to its end: exit code, and what it said on both streams.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = lizm(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_monitor_with_a_certificate_gets_and_renews_its_token() {
    let trust = Trust::new();
    trust.write_identity("jarvis", &trust.root.sign(&Wanted::client(&["jarvis"])));
    let receiver = trust.receiver(&["--token-valid", "10s"]);
    let monitor = trust.monitor("jarvis", &["--host", "jarvis", "--publish", &receiver.url()]);
    // More samples than a token lives for, a second each.
    for _ in 0..14 {
        monitor.line_with("INFO: Publish was successful to https://localhost:");
    }
    // The key is replaced: the sample that met it is answered 401 and published with another token.
    trust.write("token.key", OTHER_KEY);
    monitor.line_with("HTTP 401: token: signed by no key known here");
    monitor.line_with("INFO: Publish was successful to https://localhost:");
    let (status, lines) = monitor.stop(Signal::SIGTERM);
    assert!(status.success(), "{lines:?}");
}

#[test]
fn a_monitor_with_a_certificate_publishes_where_no_token_is_needed() {
    let trust = Trust::new();
    trust.write_identity("jarvis", &trust.root.sign(&Wanted::client(&["jarvis"])));
    let receiver = trust.open_receiver(&[]);
    let monitor = trust.monitor("jarvis", &["--host", "jarvis", "--publish", &receiver.url()]);
    assert!(monitor.line().starts_with("INFO: Publish was successful to https://localhost:"));
}

#[test]
fn a_monitor_shows_its_token_over_datagrams_and_plain_http() {
    let trust = Trust::new();
    trust.write_identity("jarvis", &trust.root.sign(&Wanted::client(&["jarvis"])));
    let (certificate, key) = (trust.text("receiver.pem"), trust.text("receiver.key"));
    let [ca, token_key] = ["ca.pem", "token.key"].map(|name| trust.text(name));
    let receiver = Served::start(&[
        "--tls-port",
        "0",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--trust",
        &ca,
        "--token-key",
        &token_key,
        "--udp",
        "127.0.0.1:0",
    ]);
    let https = receiver.process.line_with("INFO: Receiver is listening on https://");
    let from = format!("https://localhost:{}", https.rsplit(':').next().unwrap());
    let udp = format!("udp://{}", receiver.udp());
    let monitor = trust.monitor("jarvis", &["--host", "jarvis", "--token-from", &from, "--publish", &udp]);
    await_some("datagrams with a token", || (receiver.samples("jarvis", "mem") > 1).then_some(()));
    drop(monitor);
    // The same by a file, which is read again when it changes.
    trust.write("friday.token", &token(&["nobody"]));
    let file = trust.text("friday.token");
    let monitor =
        Process::start(lizm(&["monitor", "--host", "friday", "--token-file", &file, "--publish", &receiver.url("")]));
    let refused = monitor.line_with("HTTP 403: ");
    assert!(refused.contains("token: not for host \"friday\"; it is for nobody"), "{refused}");
    trust.write("friday.token", &(token(&["friday"]) + "\n"));
    monitor.line_with("INFO: Publish was successful to http://127.0.0.1:");
}

#[test]
fn a_monitor_says_what_is_wrong_with_its_files() {
    let (trust, stranger) = (Trust::new(), Authority::root("stranger"));
    let (own, other) = (trust.root.sign(&Wanted::client(&["jarvis"])), stranger.sign(&Wanted::client(&["jarvis"])));
    trust.write_identity("jarvis", &own);
    trust.write_identity("unfit", &own.with_key_of(&other));
    trust.write("stranger.pem", &stranger.pem);
    trust.write("empty.pem", "");
    let monitor = |arguments: &[&str]| {
        let always = ["monitor", "--host", "jarvis", "--publish", "https://localhost:1"];
        run(&[&always[..], arguments].concat())
    };
    let file = |name: &str| trust.text(name);
    for (arguments, code, parts) in [
        (
            vec!["--cert", &file("unfit.pem"), "--key", &file("unfit.key")],
            1,
            ["unfit.key", "the key is not the certificate's"],
        ),
        (vec!["--cert", &file("empty.pem"), "--key", &file("jarvis.key")], 1, ["empty.pem", "no certificate in PEM"]),
        (vec!["--cert", &file("jarvis.pem"), "--key", &file("jarvis.pem")], 1, ["jarvis.pem", "no private key in PEM"]),
        (vec!["--ca", &file("none.pem")], 1, ["none.pem", "No such file"]),
        (vec!["--token-file", &file("empty.pem")], 1, ["empty.pem", "is not a token"]),
        (vec!["--cert", &file("jarvis.pem")], 2, ["--cert", "--key"]),
        (vec!["--token-from", "https://localhost:1"], 2, ["--token-from", "--cert"]),
    ] {
        let (ended, said) = monitor(&arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("panicked"), "{arguments:?}: {said}");
    }
    // A receiver whose authority is another is not published to.
    let receiver = trust.receiver(&[]);
    let (url, ca) = (receiver.url(), file("stranger.pem"));
    let monitor = Process::start(lizm(&["monitor", "--host", "jarvis", "--ca", &ca, "--publish", &url]));
    let failed = monitor.line_with("ERROR: Publish failed to https://localhost:");
    assert!(failed.contains("UnknownIssuer"), "{failed}");
}

#[test]
fn a_monitor_says_which_scheme_a_port_speaks() {
    let trust = Trust::new();
    let receiver = trust.open_receiver(&[]);
    let (plain_port, tls_port) = (receiver.served.address.port(), receiver.https.port());
    for (url, advice) in [
        (format!("http://localhost:{tls_port}"), "this port speaks TLS: use https://"),
        (format!("https://127.0.0.1:{plain_port}"), "use http://"),
    ] {
        let ca = trust.text("ca.pem");
        let monitor = Process::start(lizm(&["monitor", "--host", "jarvis", "--ca", &ca, "--publish", &url]));
        let failed = monitor.line_with(&format!("ERROR: Publish failed to {url}/"));
        assert!(failed.ends_with(advice), "{failed}");
        let (code, said) = run(&["check", "--ca", &ca, &url]);
        assert!(code == Some(1) && said.trim_end().ends_with(advice), "{said}");
    }
}

#[test]
fn lizm_token_prints_a_token_that_receivers_take() {
    let trust = Trust::new();
    let (key, receiver) = (trust.text("token.key"), trust.receiver(&[]));
    let (code, printed) = run(&["token", "--host", "jarvis", "--host", "*.example.org", "--token-key", &key]);
    assert_eq!(code, Some(0), "{printed}");
    for host in ["jarvis", "a.example.org"] {
        let posted = request("POST", &format!("/api/perf/{host}/{}", now()), &bearer(printed.trim()), "{\"cpu\":1}");
        assert_eq!(receiver.served.raw(&posted).status, 200, "{host}");
    }
    for (arguments, code, part) in [
        (&["token", "--token-key", &key][..], 2, "--host"),
        (&["token", "--host", "jarvis"], 2, "--token-key"),
        (&["token", "--host", "a/b", "--token-key", &key], 2, "--host"),
        (&["token", "--host", "h", "--token-key", &key, "--valid", "3651d"], 2, "--valid"),
        (&["token", "--host", "h", "--token-key", "/nowhere"], 1, "/nowhere"),
    ] {
        let (ended, said) = run(arguments);
        assert!(ended == Some(code) && said.contains(part), "{arguments:?}: {ended:?} {said}");
    }
}

#[test]
fn readers_need_the_password_and_sources_do_not() {
    let trust = Trust::new();
    trust.write("password", "open: sesame\n");
    trust.write("wrong", "open: barley\n");
    let (right, wrong) = (trust.text("password"), trust.text("wrong"));
    let receiver = trust.open_receiver(&["--read-password-file", &right]);
    let post = request("POST", &format!("/api/perf/jarvis/{}", now()), "", "{\"cpu\":1}");
    assert_eq!(receiver.raw(&post).status, 200);
    // "me:open: sesame" and "me:open: barley".
    let (good, bad) =
        ("Authorization: Basic bWU6b3Blbjogc2VzYW1l\r\n", "Authorization: Basic bWU6b3BlbjogYmFybGV5\r\n");
    for path in ["/api/hosts", "/api/perf/jarvis", "/", "/ping", "/%68ealth", "/health/", "//health"] {
        for (headers, refused) in [("", true), (good, false)] {
            for answer in [
                receiver.raw(&request("GET", path, headers, "")),
                receiver.served.raw(&request("GET", path, headers, "")),
            ] {
                assert_eq!(answer.status == 401, refused, "{path} {headers}");
                let challenge = answer.header("www-authenticate");
                assert_eq!(challenge.is_some_and(|challenge| challenge.starts_with("Basic ")), refused, "{path}");
            }
        }
    }
    // An address has a few guesses, and these are fewer.
    assert_eq!(receiver.raw(&request("GET", "/api/hosts", bad, "")).status, 401);
    assert_eq!(receiver.served.raw(&request("GET", "/", bad, "")).status, 401);
    assert_eq!(receiver.raw(&request("GET", "/health", "", "")).status, 200);
    let (ca, url) = (trust.text("ca.pem"), receiver.url());
    for (arguments, code) in [
        (&["check", &url, "--ca", &ca][..], 0),
        (&["check", &url], 1),
        (&["check", &url, "--ca", &ca, "--host", "jarvis"], 1),
        (&["check", &url, "--ca", &ca, "--host", "jarvis", "--password-file", &wrong], 1),
        (&["check", &url, "--ca", &ca, "--host", "jarvis", "--password-file", &right], 0),
    ] {
        let (ended, said) = run(arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    }
}

#[test]
fn keys_of_tokens_are_replaced_under_load_without_a_refusal() {
    const LIFE_SEC: u64 = 5;
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    // Tokens are signed by this key, as a receiver beside this one would.
    let (signs_with_new, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..4 {
            let mut stream = receiver.connect();
            let (signs_with_new, stop, taken) = (&signs_with_new, &stop, &taken);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let key = if signs_with_new.load(Ordering::SeqCst) { OTHER_KEY } else { KEY };
                    let token = token_of(key, HS256, &claims(&["jarvis"], now() + LIFE_SEC));
                    let target = format!("/api/perf/jarvis/{}", now() - client);
                    stream.write_all(&request("POST", &target, &bearer(&token), "{\"cpu\":1}")).unwrap();
                    let answer = Answer::read(&mut stream);
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let read_again = || receiver.served.process.line_with("token.key was read again");
        let more = |what: &str| {
            let before = taken.load(Ordering::SeqCst);
            await_some(what, || (taken.load(Ordering::SeqCst) >= before + 200).then_some(()));
        };
        more("posts under the old key");
        trust.write("token.key", &format!("{KEY}\n{OTHER_KEY}\n"));
        read_again();
        more("posts under the old key, with the new one known");
        trust.write("token.key", &format!("{OTHER_KEY}\n{KEY}\n"));
        read_again();
        signs_with_new.store(true, Ordering::SeqCst);
        let last_signed = now();
        more("posts under the new key");
        await_some("the end of the last old token", || (now() > last_signed + LIFE_SEC).then_some(()));
        trust.write("token.key", OTHER_KEY);
        read_again();
        more("posts under the new key alone");
        stop.store(true, Ordering::SeqCst);
    });
    let old = request("POST", &format!("/api/perf/jarvis/{}", now()), &bearer(&token(&["jarvis"])), "{\"cpu\":1}");
    assert_eq!(receiver.raw(&old).status, 401, "the old key is gone");
}

#[test]
fn the_certificate_of_https_is_replaced_under_new_connections() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let mut kept = receiver.connect();
    let other = Authority::root("other");
    trust.write_identity("receiver", &other.sign_receiver());
    let client = Client::new(&other, None);
    // Every connection meanwhile succeeds with one of the two.
    let mut stream = await_some("the new certificate", || {
        let found = client.connect(receiver.https);
        found.inspect_err(|error| assert!(error.to_string().contains("UnknownIssuer"), "{error}")).ok()
    });
    let health = request("GET", "/health", "", "");
    for stream in [&mut kept, &mut stream] {
        stream.write_all(&health).unwrap();
        assert_eq!(Answer::read(stream).status, 200);
    }
    // A certificate that cannot be used changes nothing. The files are read again when somebody connects.
    trust.write("receiver.pem", "nonsense");
    let (address, is_logged) = (receiver.https, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_logged.load(Ordering::SeqCst) {
                drop(client.connect(address).unwrap());
            }
        });
        receiver.served.process.line_with("stays in force");
        is_logged.store(true, Ordering::SeqCst);
    });
    assert!(client.connect(receiver.https).is_ok());
}

#[test]
fn a_start_says_what_is_open_and_what_is_wrong() {
    let trust = Trust::new();
    let [certificate, key, ca] = ["receiver.pem", "receiver.key", "ca.pem"].map(|name| trust.text(name));
    let (code, none) = (Some(2), trust.text("none.key"));
    let https = ["receiver", "--tls-port", "0", "--tls-cert", &certificate, "--tls-key", &key];
    for (arguments, option) in [
        (&["receiver", "--tls-port", "0"][..], "--tls-cert"),
        (&["receiver", "--tls-cert", &certificate], "--tls-port"),
        (&["receiver", "--trust", &ca], "--trust"),
        (&["receiver", "--no-plain"], "--no-plain"),
        (&["receiver", "--token-valid", "9s"], "--token-valid"),
        (&["receiver", "--max-connections", "0"], "--max-connections"),
        (&[&https[..], &["--trust", &ca]].concat(), "--trust"),
    ] {
        let (ended, said) = run(arguments);
        assert!(ended == code && said.contains(option), "{arguments:?}: {ended:?} {said}");
    }
    trust.write("short.key", "short");
    trust.write("leaf.pem", &trust.root.sign(&Wanted::client(&["jarvis"])).pem);
    let [short, leaf] = ["short.key", "leaf.pem"].map(|name| trust.text(name));
    for (arguments, part) in [
        (&["receiver", "--port", "0", "--token-key", &short][..], "5 bytes long; 32"),
        (&["receiver", "--port", "0", "--read-password-file", &none], "none.key"),
        (&[&https[..], &["--port", "0", "--trust", &leaf, "--token-key", &none]].concat(), "holds no root"),
    ] {
        let (ended, said) = run(arguments);
        assert!(ended == Some(1) && said.contains(part), "{arguments:?}: {ended:?} {said}");
    }
    // The key was made for its owner alone.
    let mode = std::fs::metadata(trust.path("none.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A start that is open to more than loopback is warned of, once.
    let start = |arguments: &[&str]| {
        let receiver = Process::start(lizm(&[&["receiver", "--port", "0"], arguments].concat()));
        receiver.line_with("INFO: Store is memory");
        let (_, lines) = receiver.stop(Signal::SIGTERM);
        lines
            .iter()
            .filter(|line| line.contains("Anyone who reaches this receiver may submit, read and delete"))
            .count()
    };
    assert_eq!(start(&[]), 1);
    assert_eq!(start(&["--bind", "127.0.0.1"]), 0);
    assert_eq!(start(&["--token-key", &none]), 0);
}

/// Runs a shell script with the environment's proxy left out: its output.
fn shell(script: &str, directory: &std::path::Path) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(directory).env("no_proxy", "*").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs curl and openssl"]
fn make_certs_curl_and_openssl_go_the_readmes_way() {
    let directory = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/make-certs.sh");
    shell(&format!("{script} certs localhost jarvis '*.example.org'"), directory.path());
    let before = shell("cat certs/*.pem certs/*.key | sha256sum", directory.path());
    shell(&format!("{script} certs localhost jarvis"), directory.path());
    assert_eq!(shell("cat certs/*.pem certs/*.key | sha256sum", directory.path()), before, "what is there is kept");
    let file = |name: &str| directory.path().join("certs").join(name).to_str().unwrap().to_owned();
    let (certificate, key, ca, token_key) =
        (file("receiver.pem"), file("receiver.key"), file("ca.pem"), file("token.key"));
    let receiver = Process::start(lizm(&[
        "receiver",
        "--no-plain",
        "--bind",
        "127.0.0.1",
        "--tls-port",
        "0",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--trust",
        &ca,
        "--token-key",
        &token_key,
    ]));
    let line = receiver.line();
    let port = line.strip_prefix("INFO: Receiver is listening on https://127.0.0.1:").expect(&line);
    let curl = |arguments: &str| {
        shell(
            &format!(
                "curl -sS --cacert certs/ca.pem {}",
                arguments.replace("URL", &format!("https://localhost:{port}"))
            ),
            directory.path(),
        )
    };
    let issued = curl("-X POST --cert certs/jarvis.pem --key certs/jarvis.key URL/api/token");
    let issued: Value = serde_json::from_str(&issued).expect(&issued);
    assert_eq!((&issued["hosts"], &issued["token_type"]), (&json!(["jarvis"]), &json!("Bearer")));
    let wildcard = curl("-X POST --cert certs/any.example.org.pem --key certs/any.example.org.key URL/api/token");
    assert!(wildcard.contains("[\"*.example.org\"]"), "{wildcard}");
    let post = |host: &str| {
        let token = issued["access_token"].as_str().unwrap();
        curl(&format!(
            "-o /dev/null -w '%{{http_code}}' -d '{{\"cpu\":1}}' -H 'Authorization: Bearer {token}' URL/api/perf/{host}/$(date +%s)"
        ))
    };
    assert_eq!((post("jarvis").as_str(), post("friday").as_str()), ("200", "403"));
    let chunked = curl(&format!(
        "-o /dev/null -w '%{{http_code}}' --http1.1 -H 'Transfer-Encoding: chunked' -H 'Authorization: Bearer {}' --data-binary 'perf,host=jarvis cpu=1' URL/write",
        issued["access_token"].as_str().unwrap()
    ));
    assert_eq!(chunked, "204");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = shell(
            &format!(
                "(printf 'POST /api/token HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | \
                 openssl s_client {version} -quiet -verify_return_error -connect localhost:{port} -CAfile certs/ca.pem \
                 -cert certs/jarvis.pem -key certs/jarvis.key -ign_eof 2>/dev/null"
            ),
            directory.path(),
        );
        assert!(said.starts_with("HTTP/1.1 200 OK") && said.contains("access_token"), "{version}: {said}");
    }
    let url = format!("https://localhost:{port}");
    let (own, own_key) = (file("jarvis.pem"), file("jarvis.key"));
    let monitor = Process::start(lizm(&[
        "monitor",
        "--host",
        "jarvis",
        "--publish",
        &url,
        "--ca",
        &ca,
        "--cert",
        &own,
        "--key",
        &own_key,
    ]));
    monitor.line_with("INFO: Publish was successful to https://localhost:");
}
