//! Who may submit, remove and read: what must be refused by every server and listener, and what must not.

use std::io::{Read, Write};
use std::net::UdpSocket;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use serde_json::{Value, json};

use crate::certificates::{
    Authority, Client, HS256, Identity, KEY, OTHER_KEY, Secured, Trust, Wanted, bearer, claims, request, token,
    token_of,
};
use crate::harness::{Answer, Served, await_some, lizm, now};

const ASK: &[u8] = b"POST /api/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

/// What a client with a certificate gets when it asks for a token: the answer, or why the connection ended.
fn ask(receiver: &Secured, root: &Authority, identity: &Identity) -> Result<Answer, String> {
    let client = Client::new(root, Some(identity));
    let mut stream = client.connect(receiver.https).map_err(|error| error.to_string())?;
    // The verdict on a certificate comes after the client's part of the handshake.
    stream.write_all(ASK).map_err(|error| error.to_string())?;
    let mut first = [0];
    stream.read_exact(&mut first).map_err(|error| error.to_string())?;
    Ok(Answer::read(&mut first.chain(stream)))
}

#[test]
fn certificates_that_are_not_trusted_are_refused_with_their_reason() {
    let (trust, stranger) = (Trust::new(), Authority::root("stranger"));
    let root = &trust.root;
    // The root under its own name, with another key.
    let (forged, middle) = (Authority::root("root"), root.intermediate("middle"));
    let (narrow, expired_middle) = (root.intermediate_for("narrow", "example.org"), stranger.intermediate("middle"));
    let good = || Wanted::client(&["jarvis"]);
    let hour = 3600;
    let without_usage = Wanted { usages: Vec::new(), ..good() };
    let no_chain = "no chain leads from it to a root";
    let rows: Vec<(&str, Identity, &str)> = vec![
        ("untrusted root", stranger.sign(&good()), no_chain),
        ("forged root", forged.sign(&good()), "InvalidSignature"),
        ("missing intermediate", middle.sign(&good()), no_chain),
        ("another's intermediate", middle.sign(&good()).and(&expired_middle), ""),
        ("intermediate of a stranger", expired_middle.sign(&good()).and(&expired_middle), no_chain),
        ("expired", root.sign(&Wanted { valid: (now() - 2 * hour, now() - hour), ..good() }), "has expired"),
        ("not valid yet", root.sign(&Wanted { valid: (now() + hour, now() + 2 * hour), ..good() }), "not valid yet"),
        ("usage of a server", root.sign(&Wanted { usages: vec![ServerAuth], ..good() }), "usage client-auth"),
        ("no usage", root.sign(&without_usage), "usage client-auth"),
        ("no usage, by an intermediate", middle.sign(&without_usage).and(&middle), "usage client-auth"),
        ("an authority as a client", root.sign_authority_as_client("jarvis"), "CaUsedAsEndEntity"),
        ("a name its authority may not give", narrow.sign(&good()).and(&narrow), "NameConstraintViolation"),
        (
            "a URI, about which the constraints of its authority say nothing",
            narrow.sign(&Wanted::client(&["lizm:jarvis"])).and(&narrow),
            "without name constraints",
        ),
        (
            "a client as an authority",
            {
                let client = root.sign_authority_as_client("jarvis");
                stranger.sign(&good()).with_chain_of(&client)
            },
            no_chain,
        ),
        ("another's key", root.sign(&good()).with_key_of(&stranger.sign(&good())), ""),
    ];
    for (what, identity, reason) in &rows {
        // Each has a receiver of its own, since the log has one such line in ten seconds.
        let receiver = trust.receiver(&[]);
        let refused = ask(&receiver, root, identity).map(|answer| answer.status);
        assert!(refused.is_err(), "{what}: {refused:?}");
        let alert = refused.unwrap_err();
        assert!(alert.contains("received fatal alert"), "{what}: {alert}");
        if !reason.is_empty() {
            let logged = receiver.served.process.line_with("Not trusted: ");
            let whose = ["subject \"jarvis\"", "certificate sha256:"];
            assert!(logged.contains(reason) && whose.iter().all(|part| logged.contains(part)), "{what}: {logged}");
        }
    }
}

#[test]
fn certificates_that_are_trusted_are_given_tokens_for_their_names() {
    let trust = Trust::new();
    let (middle, second) = (trust.root.intermediate("middle"), trust.root.intermediate("second"));
    trust.write("ca.pem", &format!("{}{}", second.pem, trust.root.pem));
    let receiver = trust.receiver(&[]);
    let both = Wanted { usages: vec![ServerAuth, ClientAuth], ..Wanted::client(&["jarvis"]) };
    let rows: [(&str, Identity, &[&str]); 7] = [
        ("a root's", trust.root.sign(&Wanted::client(&["jarvis"])), &["jarvis"]),
        ("an intermediate that is sent", middle.sign(&Wanted::client(&["jarvis"])).and(&middle), &["jarvis"]),
        ("an intermediate that is known", second.sign(&Wanted::client(&["jarvis"])), &["jarvis"]),
        ("both usages", trust.root.sign(&both), &["jarvis"]),
        ("two names", trust.root.sign(&Wanted::client(&["jarvis", "friday"])), &["jarvis", "friday"]),
        (
            "names that DNS cannot have",
            middle.sign(&Wanted::client(&["jarvis", "lizm:web.1", "lizm:my%20host"])).and(&middle),
            &["jarvis", "web.1", "my host"],
        ),
        ("a wildcard", trust.root.sign(&Wanted::client(&["*.example.org"])), &["*.example.org"]),
    ];
    for (what, identity, hosts) in rows {
        for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
            let client = Client::of_versions(&trust.root, Some(&identity), versions);
            let mut stream = client.connect(receiver.https).unwrap();
            stream.write_all(ASK).unwrap();
            let answer = Answer::read(&mut stream);
            let issued: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{what}: {issued}");
            assert_eq!((&issued["hosts"], &issued["expires_in"]), (&json!(hosts), &json!(300)), "{what}");
            let host = hosts[0].replace('*', "one");
            let posted =
                post(&format!("/api/perf/{host}/{}", now()), &bearer(issued["access_token"].as_str().unwrap()));
            stream.write_all(&posted).unwrap();
            assert_eq!(Answer::read(&mut stream).status, 200, "{what}");
        }
    }
    // Certificates that name no host, or none at all, are nobody's.
    let nameless = trust.root.sign(&Wanted::client(&[]));
    assert_eq!(ask(&receiver, &trust.root, &nameless).unwrap().status, 403);
    assert_eq!(receiver.raw(ASK).status, 401);
    assert_eq!(receiver.served.raw(ASK).status, 403, "no token is given over plain HTTP");
}

#[test]
fn a_token_ends_with_its_certificate_on_a_kept_connection_too() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let end = now() + 8;
    let identity = trust.root.sign(&Wanted { valid: (now() - 3600, end), ..Wanted::client(&["jarvis"]) });
    let mut stream = Client::new(&trust.root, Some(&identity)).connect(receiver.https).unwrap();
    let mut ask = || {
        stream.write_all(ASK).unwrap();
        Answer::read(&mut stream)
    };
    let issued: Value = serde_json::from_str(&ask().body).unwrap();
    assert!(issued["expires_in"].as_u64().unwrap() <= 8, "{issued}");
    let submit = post(&format!("/api/perf/jarvis/{}", now()), &bearer(issued["access_token"].as_str().unwrap()));
    assert_eq!(receiver.served.raw(&submit).status, 200);
    let refused = await_some("the end of the certificate", || Some(ask()).filter(|answer| answer.status != 200));
    assert!(refused.status == 401 && refused.error().starts_with("certificate: expired"), "{refused:?}");
    assert!(now() >= end);
    assert_eq!((receiver.served.raw(&submit).status, receiver.raw(&submit).status), (401, 401));
}

fn post(target: &str, headers: &str) -> Vec<u8> {
    request("POST", target, headers, "{\"cpu\":99}")
}

/// Requests that must be refused, with their status.
fn hostile_requests() -> Vec<(String, Vec<u8>, u16)> {
    let (good, others) = (token(&["jarvis"]), token(&["friday"]));
    let wildcard = token(&["*.example.org"]);
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let of = |header: &str| token_of(KEY, header, &claims(&["jarvis"], now() + 300));
    let saying = |claims: Value| token_of(KEY, HS256, &claims);
    let unsigned = token_of(KEY, r#"{"alg":"none"}"#, &claims(&["jarvis"], now() + 300));
    let tokens: Vec<(&str, String, u16)> = vec![
        ("another host's", others.clone(), 403),
        ("expired", saying(claims(&["jarvis"], now() - 1)), 401),
        ("altered payload", format!("{header}.{}.{signature}", others.split('.').nth(1).unwrap()), 401),
        ("another key", token_of(OTHER_KEY, HS256, &claims(&["jarvis"], now() + 300)), 401),
        ("alg none, unsigned", unsigned.rsplit_once('.').unwrap().0.to_owned() + ".", 401),
        ("alg none, signed", unsigned, 401),
        ("alg HS512", of(r#"{"alg":"HS512","typ":"JWT"}"#), 401),
        ("alg RS256", of(r#"{"alg":"RS256","typ":"JWT"}"#), 401),
        ("a key of its own", of(r#"{"alg":"HS256","typ":"JWT","jwk":{"k":"AA"}}"#), 401),
        ("header in another order", of(r#"{"typ":"JWT","alg":"HS256"}"#), 401),
        ("no signature", format!("{header}.{payload}"), 401),
        ("empty signature", format!("{header}.{payload}."), 401),
        ("half a signature", format!("{header}.{payload}.{}", &signature[..20]), 401),
        ("padded signature", format!("{good}="), 401),
        ("four parts", format!("{good}.{signature}"), 401),
        ("longer than the limit", "a".repeat(5000), 401),
        ("no life", saying(json!({ "sub": "jarvis", "hosts": ["jarvis"], "iat": 0 })), 401),
        ("a life in words", saying(json!({ "sub": "j", "hosts": ["jarvis"], "iat": 0, "exp": "9999999999" })), 401),
        ("no hosts", saying(json!({ "sub": "", "hosts": [], "iat": 0, "exp": now() + 9 })), 403),
        ("hosts in a subject", saying(json!({ "sub": "jarvis", "hosts": [], "iat": 0, "exp": now() + 9 })), 403),
        ("any host", token(&["*"]), 403),
        ("a wildcard in the middle", token(&["jar*"]), 403),
        ("another case", token(&["JARVIS"]), 403),
        ("a name with a space", token(&["jarvis "]), 403),
        ("a name with a dot", token(&["jarvis."]), 403),
        ("an escaped name", token(&["%6Aarvis"]), 403),
        ("empty", String::new(), 401),
        ("two words", format!("{good} {good}"), 401),
    ];
    let at = format!("/api/perf/jarvis/{}", now());
    let mut rows: Vec<(String, Vec<u8>, u16)> = Vec::new();
    for (what, token, status) in tokens {
        rows.push((format!("POST, {what}"), post(&at, &bearer(&token)), status));
        rows.push((format!("DELETE, {what}"), request("DELETE", "/api/perf/jarvis", &bearer(&token), ""), status));
    }
    for (what, headers, status) in [
        ("no token", String::new(), 401),
        ("scheme Basic", format!("Authorization: Basic {good}\r\n"), 401),
        ("scheme Token, of another host", format!("Authorization: Token {others}\r\n"), 403),
        ("no scheme", format!("Authorization: {good}\r\n"), 401),
        ("another header", format!("X-Authorization: Bearer {good}\r\n"), 401),
        ("a proxy's header", format!("Proxy-Authorization: Bearer {good}\r\n"), 401),
        ("a cookie", format!("Cookie: access_token={good}\r\n"), 401),
        ("twice", bearer(&good) + &bearer(&good), 400),
        ("good, then bad", bearer(&good) + &bearer("bad"), 400),
        ("bad, then good", bearer("bad") + &bearer(&good), 400),
        ("an oversized header", bearer(&format!("{good}{}", "a".repeat(9000))), 431),
    ] {
        rows.push((format!("POST, {what}"), post(&at, &headers), status));
    }
    rows.push(("in the query".into(), post(&format!("{at}?access_token={good}"), ""), 401));
    rows.push(("in the body".into(), request("POST", &at, "", &format!("access_token={good}")), 401));
    let epoch = now();
    for (host, token, status) in [
        ("JARVIS", &good, 403),
        ("Jarvis", &good, 403),
        ("JARVI%53", &good, 403),
        ("jarvis%20", &good, 403),
        ("jarvis.", &good, 403),
        ("%6Aarvi%2573", &good, 403),
        ("jarvis%00", &good, 400),
        ("jarvis%2Ffriday", &good, 400),
        ("%C1%AAarvis", &good, 400),
        ("jarvi%5", &good, 400),
        ("example.org", &wildcard, 403),
        ("a.b.example.org", &wildcard, 403),
        (".example.org", &wildcard, 403),
        ("%2A.example.org", &wildcard, 403),
        ("a.EXAMPLE.org", &wildcard, 403),
        ("a.example.org.evil", &wildcard, 403),
        ("%C3%A4.example.org", &wildcard, 403),
    ] {
        rows.push((format!("POST for {host}"), post(&format!("/api/perf/{host}/{epoch}"), &bearer(token)), status));
    }
    let line = format!("perf,host=jarvis cpu=99 {epoch}");
    for (what, headers, body, status) in [
        ("line, no token", String::new(), line.clone(), 401),
        ("line of another host", bearer(&others), line.clone(), 403),
        ("lines of other hosts", bearer(&others), format!("{line}\n{line}"), 403),
        ("line with a key", bearer(&others) + "Idempotency-Key: abc-1\r\n", line.clone(), 403),
        ("token as a line", String::new(), format!("Authorization: Bearer {good}\n{line}"), 401),
        ("escaped host", bearer(&good), format!("perf,host=jarvis\\ x cpu=99 {epoch}"), 403),
        ("host twice", bearer(&good), format!("perf,host=jarvis,host=friday cpu=99 {epoch}"), 400),
    ] {
        rows.push((format!("/write, {what}"), request("POST", "/write", &headers, &body), status));
    }
    let user = format!("/write?u=jarvis&p={good}");
    rows.push(("/write, as a password".into(), request("POST", &user, "", &line), 401));
    rows
}

#[test]
fn requests_without_a_token_for_their_host_are_refused_by_both_servers() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let at = format!("/api/perf/jarvis/{}", now());
    assert_eq!(receiver.raw(&post(&at, &bearer(&token(&["jarvis"])))).status, 200);
    let before = receiver.served.averages("jarvis");
    let rows = hostile_requests();
    assert!(rows.len() >= 40, "{}", rows.len());
    for (what, request, status) in &rows {
        for (server, answer) in [("https", receiver.raw(request)), ("plain", receiver.served.raw(request))] {
            assert_eq!(answer.status, *status, "{what} ({server}): {}", answer.body);
            let challenge = answer.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer "));
            assert_eq!(challenge, matches!(status, 401 | 403), "{what} ({server})");
            assert!(!answer.body.contains("eyJ"), "{what} ({server}) shows a token: {}", answer.body);
            assert_eq!(receiver.served.get("/api/hosts").1["count"], 1, "{what} ({server})");
            assert_eq!(receiver.served.averages("jarvis"), before, "{what} ({server})");
        }
    }
    let (_, lines) = receiver.served.process.stop(nix::sys::signal::Signal::SIGTERM);
    assert!(lines.iter().any(|line| line.contains("Not trusted: token: ")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("eyJ")), "a token is in the log: {lines:?}");
}

#[test]
fn requests_with_a_token_for_their_host_are_accepted_by_both_servers() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let (good, wildcard, epoch) = (token(&["jarvis"]), token(&["*.example.org"]), now());
    let line = format!("perf,host=jarvis cpu=1 {epoch}");
    for (what, request, status) in [
        ("a post", post(&format!("/api/perf/jarvis/{epoch}"), &bearer(&good)), 200),
        (
            "the scheme of InfluxDB 2",
            post(&format!("/api/perf/jarvis/{epoch}"), &format!("Authorization: Token {good}\r\n")),
            200,
        ),
        (
            "the scheme in lower case",
            post(&format!("/api/perf/jarvis/{epoch}"), &format!("authorization: bearer {good}\r\n")),
            200,
        ),
        ("an escaped host", post(&format!("/api/perf/%6aarvi%73/{epoch}"), &bearer(&good)), 200),
        ("a wildcard", post(&format!("/api/perf/a.example.org/{epoch}"), &bearer(&wildcard)), 200),
        ("a line", request("POST", "/write", &bearer(&good), &line), 204),
        ("a line of a wildcard", request("POST", "/write", &bearer(&wildcard), "perf,host=b.example.org cpu=1"), 204),
        (
            "good and bad lines",
            request("POST", "/write", &bearer(&good), &format!("perf,host=friday cpu=1\n{line}")),
            400,
        ),
        ("a removal", request("DELETE", "/api/perf/jarvis", &bearer(&good), ""), 200),
    ] {
        assert_eq!(receiver.raw(&request).status, status, "{what}, https");
        let known = receiver.served.get("/api/perf/jarvis").1 != json!({});
        assert_eq!(known, what != "a removal", "{what}");
        let again = if what == "a removal" { 404 } else { status };
        assert_eq!(receiver.served.raw(&request).status, again, "{what}, plain");
    }
    assert_eq!(receiver.served.get("/api/perf/friday").1, json!({}), "of good and bad lines the good ones are stored");
    // A receiver with another key knows none of these tokens; one with the same knows all.
    let elsewhere = Trust::new();
    let request = post(&format!("/api/perf/jarvis/{epoch}"), &bearer(&good));
    assert_eq!(elsewhere.receiver(&[]).raw(&request).status, 200);
    elsewhere.write("token.key", OTHER_KEY);
    assert_eq!(elsewhere.receiver(&[]).raw(&request).status, 401);
}

/// Beginnings of a datagram or a message that are no credential for host jarvis.
fn hostile_beginnings() -> Vec<(&'static str, String)> {
    let good = token(&["jarvis"]);
    let line = |token: &str| format!("Authorization: Bearer {token}\n");
    vec![
        ("no token", String::new()),
        ("another host's", line(&token(&["friday"]))),
        ("expired", line(&token_of(KEY, HS256, &claims(&["jarvis"], now() - 1)))),
        ("another key's", line(&token_of(OTHER_KEY, HS256, &claims(&["jarvis"], now() + 300)))),
        ("nonsense", line("nonsense")),
        ("not UTF-8 to be", line("\u{fffd}")),
        ("an empty one", line("")),
        ("another case", line(&good).to_lowercase()),
        ("another scheme", format!("Authorization: Basic {good}\n")),
        ("an empty line before", format!("\n{}", line(&good))),
        ("a line before", format!("perf,host=jarvis cpu=99\n{}", line(&good))),
        ("a second token", line("bad") + &line(&good)),
        ("a space before", format!(" {}", line(&good))),
        ("no end of its line", format!("Authorization: Bearer {good} ")),
    ]
}

#[test]
fn datagrams_need_a_token_of_their_own() {
    let trust = Trust::new();
    let key = trust.text("token.key");
    let receiver = Served::start(&["--udp", "127.0.0.1:0", "--token-key", &key]);
    let (address, socket) = (receiver.udp(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let send = |datagram: String| socket.send_to(datagram.as_bytes(), address).unwrap();
    for (what, beginning) in hostile_beginnings() {
        send(format!("{beginning}perf,host=jarvis cpu=99\nperf,host=jarvis mem=99\n"));
        // What comes after it on the same socket has been looked at when this has.
        let host = what.replace(' ', "-");
        send(format!("Authorization: Bearer {}\nperf,host={host} cpu=1", token(&[&host])));
        receiver.await_samples(&host, "cpu", 1);
        assert_eq!(receiver.get("/api/perf/jarvis").1, json!({}), "{what}");
    }
    send(format!("Authorization: Bearer {}\r\nperf,host=jarvis cpu=1\nperf,host=friday cpu=1\n", token(&["jarvis"])));
    receiver.await_samples("jarvis", "cpu", 1);
    assert_eq!(receiver.get("/api/perf/friday").1, json!({}), "a line of another host");
}

#[cfg(feature = "zeromq")]
#[test]
fn messages_need_a_token_of_their_own() {
    let trust = Trust::new();
    let receiver = Served::start(&["--zmq", "tcp://127.0.0.1:*", "--token-key", &trust.text("token.key")]);
    let socket = zmq::Context::new().socket(zmq::PUSH).unwrap();
    socket.connect(&receiver.zmq()).unwrap();
    for (what, beginning) in hostile_beginnings() {
        socket.send(&*format!("{beginning}perf,host=jarvis cpu=99"), 0).unwrap();
        let host = what.replace(' ', "-");
        socket.send(&*format!("Authorization: Bearer {}\nperf,host={host} cpu=1", token(&[&host])), 0).unwrap();
        receiver.await_samples(&host, "cpu", 1);
        assert_eq!(receiver.get("/api/perf/jarvis").1, json!({}), "{what}");
    }
    socket.send(&*format!("Authorization: Bearer {}\nperf,host=jarvis cpu=1", token(&["jarvis"])), 0).unwrap();
    receiver.await_samples("jarvis", "cpu", 1);
}

#[test]
fn an_operator_removes_any_host_and_submits_for_none() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let key = trust.text("token.key");
    let run = |arguments: &[&str]| {
        let output = lizm(&[&["token", "--token-key", &key], arguments].concat()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (status, operator, _) = run(&["--operator"]);
    assert_eq!(status, Some(0));
    let submit =
        |host: &str, token: &str| post(&format!("/api/perf/{}/{}", host.replace(' ', "%20"), now()), &bearer(token));
    for host in ["jarvis", "a.example.org"] {
        assert_eq!(receiver.raw(&submit(host, &token(&[host]))).status, 200);
        assert_eq!(receiver.raw(&submit(host, &operator)).status, 403, "{host}");
        let remove = request("DELETE", &format!("/api/perf/{host}"), &bearer(&operator), "");
        assert_eq!(receiver.raw(&remove).status, 200, "{host}");
        assert_eq!(receiver.served.raw(&remove).status, 404, "{host} is gone");
    }
    // lizm forget does the same.
    assert_eq!(receiver.raw(&submit("j 1", &token(&["j 1"]))).status, 200);
    let (url, file) = (receiver.served.url(""), trust.text("operator.token"));
    std::fs::write(&file, &operator).unwrap();
    let forget = |arguments: &[&str]| {
        let output = lizm(&[&["forget", &*url, "j 1"], arguments].concat()).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (status, said) = forget(&[]);
    assert!(status == Some(1) && said.contains("/api/perf/j%201: a token is needed here"), "{said}");
    let token_file = ["--token-file", &*file];
    assert_eq!(forget(&token_file), (Some(0), "j 1 is forgotten; it comes back if it still reports\n".to_owned()));
    let (status, said) = forget(&token_file);
    assert!(status == Some(1) && said.contains("HTTP 404 Not Found: host: not known here"), "{said}");
    let (status, both, _) = run(&["--operator", "--host", "jarvis"]);
    assert_eq!((status, receiver.raw(&submit("jarvis", &both)).status), (Some(0), 200));
    for hosts in [&["--host", "*"][..], &["--host", "jarvis", "--host", "*"], &[]] {
        let (status, printed, said) = run(hosts);
        assert!(status == Some(2) && printed.is_empty() && said.contains("--operator"), "{hosts:?}: {said}");
    }
}

#[test]
fn guesses_of_one_client_of_a_proxy_do_not_slow_its_other_clients() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "open sesame\n").unwrap();
    let receiver = Served::start(&["--read-password-file", file.to_str().unwrap(), "--trust-proxy", "127.0.0.1"]);
    let get = |client: &str, password: &str| {
        let given = STANDARD.encode(format!("reader:{password}"));
        let headers = format!("Authorization: Basic {given}\r\nX-Forwarded-For: 10.0.0.9, {client}\r\n");
        receiver.raw(&request("GET", "/api/hosts", &headers, "")).status
    };
    await_some("a guess that has to wait", || (get("192.0.2.1", "guess") == 429).then_some(()));
    assert_eq!((get("192.0.2.2", "guess"), get("192.0.2.2", "open sesame")), (401, 200));
}

#[test]
fn guesses_at_the_password_are_counted_logged_and_slowed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "open sesame\n").unwrap();
    let receiver = Served::start(&["--read-password-file", file.to_str().unwrap()]);
    let get = |target: &str, password: &str| {
        let given = STANDARD.encode(format!("reader:{password}"));
        receiver.raw(&request("GET", target, &format!("Authorization: Basic {given}\r\n"), ""))
    };
    for _ in 0..20 {
        assert_eq!(receiver.raw(&request("GET", "/api/hosts", "", "")).status, 401, "a browser that asks first");
        assert_eq!(get("/api/hosts", "open sesame").status, 200);
    }
    assert_eq!((get("/", "sesame").status, get("/api/hosts", "").status), (401, 401));
    let metrics = get("/metrics", "open sesame").body;
    assert!(metrics.contains("lizm_http_requests_forbidden_total{reason=\"wrong_password\"} 2\n"), "{metrics}");
    // One is forgiven each 5 seconds: on a slow machine it takes a few more until one has to wait.
    let slowed =
        await_some("a guess that has to wait", || Some(get("/", "guess")).filter(|answer| answer.status != 401));
    assert_eq!((slowed.status, slowed.header("retry-after")), (429, Some("5")));
    assert!(slowed.error().contains("too many wrong ones from this address"), "{slowed:?}");
    assert_eq!(receiver.raw(&request("GET", "/health", "", "")).status, 200, "load balancers need no password");
    let (_, log) = receiver.process.stop(nix::sys::signal::Signal::SIGTERM);
    let is_guess = |line: &&String| line.contains("Not trusted: password: ") && line.contains("client 127.0.0.1");
    assert!(log.iter().any(|line| is_guess(&line)), "{log:?}");
    assert!(
        log.last().unwrap().contains(" wrong passwords") && !log.iter().any(|line| line.contains("guess\"")),
        "{log:?}"
    );
}
