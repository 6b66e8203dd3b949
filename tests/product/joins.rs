//! Hosts that join: one token for many machines, each of which is given one of its own, and hosts that are shut out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::certificates::{HS256, KEY, Secured, Trust, Wanted, bearer, request, token, token_of};
use crate::harness::{Answer, Process, Served, Treatment, await_some, connect, lizm, now, play_receiver};

const DAY_SEC: u64 = 86_400;

/// What `lizm token` prints: a token, or what it says.
fn lizm_token(arguments: &[&str]) -> (Option<i32>, String) {
    let output = lizm(&[&["token"], arguments].concat()).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap().trim().to_owned())
}

/// A token to join with.
fn join_token(key: &str, more: &[&str]) -> String {
    let (status, token) = lizm_token(&[&["--join", "--token-key", key], more].concat());
    assert_eq!(status, Some(0), "{token}");
    token
}

fn operator_file(trust: &Trust) -> String {
    let (_, operator) = lizm_token(&["--operator", "--token-key", &trust.text("token.key")]);
    trust.write("operator.token", &operator);
    trust.text("operator.token")
}

/// A receiver's plain server, or its HTTPS.
enum Guarded {
    Plain(Served),
    Https(Secured),
}

impl Guarded {
    /// One of each server, with a key for tokens.
    fn all(trust: &Trust) -> Vec<(&'static str, Self)> {
        let key = trust.text("token.key");
        let plain = |server: &str| Self::Plain(Served::start(&["--http-server", server, "--token-key", &key]));
        let https = trust.open_receiver(&["--token-key", &key]);
        vec![("tiny_http", plain("tiny_http")), ("builtin", plain("builtin")), ("https", Self::Https(https))]
    }

    fn raw(&self, request: &[u8]) -> Answer {
        match self {
            Self::Plain(served) => served.raw(request),
            Self::Https(secured) => secured.raw(request),
        }
    }

    /// The URL of its plain server, for an operator.
    fn url(&self) -> String {
        match self {
            Self::Plain(served) => served.url(""),
            Self::Https(secured) => secured.served.url(""),
        }
    }

    fn join(&self, token: &str, body: &Value) -> Answer {
        self.raw(&request("POST", "/api/token", &bearer(token), &body.to_string()))
    }

    /// Joins, and gives the host's own token.
    fn own(&self, token: &str, host: &str, asker: &str) -> String {
        access_token(&self.join(token, &json!({ "host": host, "asker": asker })))
    }

    fn submit(&self, host: &str, token: &str) -> Answer {
        self.raw(&request("POST", &format!("/api/perf/{host}/{}", now()), &bearer(token), "{\"cpu\":1}"))
    }
}

fn access_token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let issued: Value = serde_json::from_str(&answer.body).unwrap();
    issued["access_token"].as_str().unwrap().to_owned()
}

const ASKER: &str = "the-secret-of-jarvis";
const OTHER: &str = "the-secret-of-another";

#[test]
fn a_join_token_gives_each_host_one_of_its_own() {
    let trust = Trust::new();
    let key = trust.text("token.key");
    let join = join_token(&key, &["--valid", "1h"]);
    let claims = json!({ "sub": "join", "hosts": [], "join": [], "iat": now() - 60, "exp": now() - 1 });
    let expired = token_of(KEY, HS256, &claims);
    let narrow = join_token(&key, &["--host", "*.example.org", "--host", "friday"]);
    for (server, guarded) in Guarded::all(&trust) {
        let answer = guarded.join(&join, &json!({ "host": "jarvis", "asker": ASKER }));
        let issued: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{server}: {issued}");
        assert_eq!((&issued["hosts"], &issued["expires_in"]), (&json!(["jarvis"]), &json!(30 * DAY_SEC)), "{server}");
        let own = access_token(&answer);
        assert_eq!(
            (guarded.submit("jarvis", &own).status, guarded.submit("friday", &own).status),
            (200, 403),
            "{server}"
        );
        // The same asker is given an answer again, for the first may have been lost. Another is not, nor one unknown.
        assert_eq!(guarded.submit("jarvis", &guarded.own(&join, "jarvis", ASKER)).status, 200, "{server}");
        for again in [json!({ "host": "jarvis", "asker": OTHER }), json!({ "host": "jarvis" })] {
            let refused = guarded.join(&join, &again);
            assert!(refused.status == 409 && refused.error().contains("has joined already"), "{server}: {refused:?}");
        }
        // It is good many times, for other names, and for nothing else.
        let other_own = guarded.own(&join, "friday", OTHER);
        assert_eq!(
            (guarded.submit("friday", &other_own).status, guarded.submit("jarvis", &other_own).status),
            (200, 403)
        );
        assert_eq!(guarded.join(&join, &json!({ "host": "curl" })).status, 200, "{server}");
        let refused = guarded.submit("jarvis", &join);
        assert!(refused.status == 403 && refused.error().contains("lizm monitor --join"), "{server}: {refused:?}");
        let remove = request("DELETE", "/api/perf/jarvis", &bearer(&join), "");
        assert_eq!(guarded.raw(&remove).status, 403, "{server}");
        let refused = guarded.join(&expired, &json!({ "host": "late" }));
        assert!(refused.status == 401 && refused.error().starts_with("token: expired"), "{server}: {refused:?}");
        // One that names hosts is for these alone.
        let refused = guarded.join(&narrow, &json!({ "host": "jarvis2", "asker": ASKER }));
        assert!(refused.status == 403 && refused.error().contains("*.example.org, friday"), "{server}: {refused:?}");
        assert_eq!(guarded.join(&narrow, &json!({ "host": "a.example.org" })).status, 200, "{server}");
        // What is no name, no secret or no token of this kind.
        for (body, field) in [
            (json!({ "host": "*.example.org" }), "host"),
            (json!({ "host": "" }), "host"),
            (json!({ "host": "a/b" }), "host"),
            (json!({ "host": "h", "asker": "short" }), "asker"),
            (json!({ "host": "h", "asker": "a word and a space and more" }), "asker"),
            (json!({ "host": "h", "other": 1 }), "body"),
            (json!([]), "body"),
        ] {
            let refused = guarded.join(&join, &body);
            assert!(refused.status == 400 && refused.error().starts_with(field), "{server}: {body}: {refused:?}");
        }
        let refused = guarded.join(&token(&["jarvis"]), &json!({ "host": "jarvis" }));
        assert!(refused.status == 403 && refused.error().starts_with("token: neither"), "{server}: {refused:?}");
        // A host's own is renewed, without a body.
        let renewed = access_token(&guarded.raw(&request("POST", "/api/token", &bearer(&own), "")));
        assert_eq!((guarded.submit("jarvis", &renewed).status, guarded.submit("friday", &renewed).status), (200, 403));
        let forged = token_of(
            KEY,
            HS256,
            &json!({ "sub": "j", "hosts": ["jarvis"], "iat": 0, "exp": now() - 1,
            "joined": true }),
        );
        assert_eq!(guarded.raw(&request("POST", "/api/token", &bearer(&forged), "")).status, 401, "{server}");
    }
}

#[test]
fn a_host_that_is_shut_out_is_refused_by_every_server_until_it_joins_again() {
    let trust = Trust::new();
    let (key, operator) = (trust.text("token.key"), operator_file(&trust));
    for (server, guarded) in Guarded::all(&trust) {
        let (join, secret) = (join_token(&key, &[]), "a".repeat(16));
        let own = guarded.own(&join, "jarvis", &secret);
        let made = token(&["jarvis", "friday"]);
        assert_eq!(
            (guarded.submit("jarvis", &own).status, guarded.submit("jarvis", &made).status),
            (200, 200),
            "{server}"
        );
        let revoke = |more: &[&str]| lizm_token(&[&["--revoke", "jarvis", &*guarded.url()], more].concat());
        let (status, said) = revoke(&[]);
        assert!(status == Some(1) && said.contains("a token is needed here"), "{server}: {said}");
        trust.write("own.token", &own);
        let (status, said) = revoke(&["--token-file", &trust.text("own.token")]);
        assert!(status == Some(1) && said.contains("HTTP 403"), "{server}: {said}");
        // Tokens carry seconds: one that is made in the second of this is shut out by it too.
        let (status, said) = revoke(&["--token-file", &operator]);
        assert_eq!((status, &*said), (Some(0), "jarvis is shut out; its name is free for another join"), "{server}");
        for refused in [
            guarded.submit("jarvis", &own),
            guarded.submit("jarvis", &made),
            guarded.raw(&request("DELETE", "/api/perf/jarvis", &bearer(&own), "")),
            guarded.raw(&request("POST", "/write", &bearer(&own), "perf,host=jarvis cpu=1")),
            guarded.raw(&request("POST", "/api/token", &bearer(&own), "")),
        ] {
            assert!(refused.status == 401, "{server}: {refused:?}");
            let challenge = refused.header("www-authenticate").unwrap();
            assert!(challenge.contains("invalid_token"), "{server}: {challenge}");
            assert!(refused.body.contains("was shut out after it was made"), "{server}: {refused:?}");
        }
        assert_eq!(guarded.submit("friday", &made).status, 200, "{server}: another host of the same token");
        let (_, listed) = lizm_token(&["--list", &guarded.url()]);
        assert!(listed.starts_with("shut-out\tjarvis\t"), "{server}: {listed}");
        // Of the second of the shutting out there may be tokens to join with that are still good.
        let old = token_of(
            KEY,
            HS256,
            &json!({ "sub": "join", "hosts": [], "join": [], "iat": now() - 60,
            "exp": now() + 60 }),
        );
        let refused = guarded.join(&old, &json!({ "host": "jarvis", "asker": secret }));
        assert!(refused.status == 403 && refused.error().contains("a newer one lets it in"), "{server}: {refused:?}");
        // A newer one lets it in, or another by its name. What was shut out stays so.
        let back = guarded.own(&join_token(&key, &[]), "jarvis", &"b".repeat(16));
        assert_eq!(
            (guarded.submit("jarvis", &back).status, guarded.submit("jarvis", &own).status),
            (200, 401),
            "{server}"
        );
        let (_, listed) = lizm_token(&["--list", &guarded.url()]);
        assert!(listed.starts_with("joined\tjarvis\t") && listed.lines().count() == 1, "{server}: {listed}");
        assert_eq!(revoke(&["--token-file", &operator]).0, Some(0), "{server}: and out again");
        assert_eq!(guarded.submit("jarvis", &back).status, 401, "{server}");
        let (status, said) = lizm_token(&["--revoke", "nobody", &guarded.url(), "--token-file", &operator]);
        assert_eq!((status, &*said), (Some(0), "nobody is shut out; it had not joined"), "{server}");
    }
}

#[test]
fn a_certificate_does_not_let_a_host_in_that_is_shut_out() {
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let owner = crate::certificates::Client::new(&trust.root, Some(&trust.root.sign(&Wanted::client(&["jarvis"]))));
    let ask = || {
        let mut stream = owner.connect(receiver.https).unwrap();
        stream.write_all(&request("POST", "/api/token", "", "")).unwrap();
        access_token(&Answer::read(&mut stream))
    };
    let submit = |token: &str| {
        let target = format!("/api/perf/jarvis/{}", now());
        receiver.raw(&request("POST", &target, &bearer(token), "{\"cpu\":1}")).status
    };
    assert_eq!(submit(&ask()), 200);
    let url = receiver.served.url("");
    assert_eq!(lizm_token(&["--revoke", "jarvis", &url, "--token-file", &operator_file(&trust)]).0, Some(0));
    let newer = await_some("a token that is younger", || {
        let token = ask();
        let claims = token.split('.').nth(1).unwrap();
        let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let shut_out_at = receiver.served.get("/api/joins").1["shut-out"][0]["shut-out-at"].as_u64().unwrap();
        (claims["iat"].as_u64().unwrap() > shut_out_at).then_some(token)
    });
    assert_eq!(submit(&newer), 401);
    let guarded = Guarded::Https(receiver);
    guarded.own(&join_token(&trust.text("token.key"), &[]), "jarvis", &"a".repeat(16));
    assert_eq!(guarded.submit("jarvis", &newer).status, 200, "it has joined again");
}

#[test]
fn datagrams_and_messages_of_a_host_that_is_shut_out_are_not_stored() {
    let trust = Trust::new();
    let (key, operator) = (trust.text("token.key"), operator_file(&trust));
    #[cfg(feature = "zeromq")]
    let receiver = Served::start(&["--udp", "127.0.0.1:0", "--zmq", "tcp://127.0.0.1:*", "--token-key", &key]);
    #[cfg(not(feature = "zeromq"))]
    let receiver = Served::start(&["--udp", "127.0.0.1:0", "--token-key", &key]);
    let (address, socket) = (receiver.udp(), UdpSocket::bind("127.0.0.1:0").unwrap());
    #[cfg(feature = "zeromq")]
    let (context, endpoint) = (zmq::Context::new(), receiver.zmq());
    #[cfg(feature = "zeromq")]
    let messages = context.socket(zmq::PUSH).unwrap();
    #[cfg(feature = "zeromq")]
    messages.connect(&endpoint).unwrap();
    let (join, guarded) = (join_token(&key, &[]), Guarded::Plain(receiver));
    let Guarded::Plain(receiver) = &guarded else { return };
    let own = guarded.own(&join, "jarvis", &"a".repeat(16));
    let send: &dyn Fn(&str) = &|text| {
        socket.send_to(text.as_bytes(), address).unwrap();
    };
    #[cfg(feature = "zeromq")]
    let by_message: &dyn Fn(&str) = &|text| messages.send(text, 0).unwrap();
    #[cfg(not(feature = "zeromq"))]
    let by_message = send;
    for (label, send) in [("udp", send), ("zmq", by_message)] {
        let lines = |token: &str, host: &str, label: &str| {
            format!("Authorization: Bearer {token}\nperf,host={host} {label}=1 {}", now())
        };
        let (before, after, with_join) = (format!("{label}-before"), format!("{label}-after"), format!("{label}-join"));
        let own = match label {
            "udp" => own.clone(),
            _ => guarded.own(&join_token(&key, &[]), "jarvis", &"a".repeat(16)),
        };
        send(&lines(&own, "jarvis", &before));
        receiver.await_samples("jarvis", &before, 1);
        assert_eq!(lizm_token(&["--revoke", "jarvis", &receiver.url(""), "--token-file", &operator]).0, Some(0));
        send(&lines(&own, "jarvis", &after));
        send(&lines(&join, "jarvis", &with_join));
        // What comes after them on the same socket has been looked at when this has.
        send(&lines(&token(&["friday"]), "friday", label));
        receiver.await_samples("friday", label, 1);
        assert_eq!((receiver.samples("jarvis", &after), receiver.samples("jarvis", &with_join)), (0, 0), "{label}");
    }
}

/// Has as many askers join by one name at once as there are receivers to ask: the statuses, sorted.
fn join_at_once(receivers: &[SocketAddr], join: &str, host: &str) -> Vec<u16> {
    let mut statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |(asker, receiver): (usize, &SocketAddr)| {
            let body = json!({ "host": host, "asker": format!("the-asker-number-{asker}") }).to_string();
            let (receiver, request) = (*receiver, request("POST", "/api/token", &bearer(join), &body));
            scope.spawn(move || {
                let mut stream = connect(receiver);
                stream.write_all(&request).unwrap();
                Answer::read(&mut stream).status
            })
        };
        let asking: Vec<_> = receivers.iter().enumerate().map(ask).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    statuses
}

#[test]
fn of_many_that_join_by_one_name_at_once_one_does() {
    let trust = Trust::new();
    let key = trust.text("token.key");
    let directory = trust.text("store");
    let join = join_token(&key, &[]);
    for store in ["memory", &directory] {
        let guarded = Guarded::Plain(Served::start(&["--store", store, "--token-key", &key]));
        let Guarded::Plain(served) = &guarded else { return };
        let statuses = join_at_once(&[served.address; 8], &join, "jarvis");
        assert_eq!(statuses, [&[200][..], &[409; 7]].concat(), "{store}");
    }
}

#[test]
fn a_directory_remembers_who_has_joined_and_memory_says_that_it_forgets() {
    let trust = Trust::new();
    let (key, directory, operator) = (trust.text("token.key"), trust.text("store"), operator_file(&trust));
    let join = join_token(&key, &[]);
    let start = || Guarded::Plain(Served::start(&["--store", &directory, "--token-key", &key]));
    let guarded = start();
    let own = guarded.own(&join, "jarvis", &"a".repeat(16));
    let out = guarded.own(&join, "friday", &"b".repeat(16));
    assert_eq!(lizm_token(&["--revoke", "friday", &guarded.url(), "--token-file", &operator]).0, Some(0));
    let Guarded::Plain(served) = guarded else { return };
    served.process.kill();
    let guarded = start();
    assert_eq!(guarded.join(&join, &json!({ "host": "jarvis" })).status, 409);
    assert_eq!((guarded.submit("jarvis", &own).status, guarded.submit("friday", &out).status), (200, 401));
    let memory = Served::start(&["--token-key", &key]);
    memory.process.line_with("Store is memory, which forgets who has joined and who is shut out");
    // It takes a host for one that has joined when its token is renewed.
    let guarded = Guarded::Plain(memory);
    access_token(&guarded.raw(&request("POST", "/api/token", &bearer(&own), "")));
    assert_eq!(guarded.join(&join, &json!({ "host": "jarvis" })).status, 409);
    // Without a key for tokens there is nothing to join.
    let open = Served::start(&[]);
    let (listed, left) = (open.get("/api/joins"), open.delete("/api/joins/jarvis"));
    assert_eq!((listed.0, left.0), (404, 404));
    assert_eq!(open.raw(&request("POST", "/api/token", &bearer(&join), "{}")).status, 404);
}

#[cfg(feature = "redis")]
#[test]
#[ignore = "needs redis-server"]
fn receivers_that_share_a_redis_share_who_has_joined() {
    let redis = crate::servers::Redis::start(&[]);
    let trust = Trust::new();
    let (key, operator) = (trust.text("token.key"), operator_file(&trust));
    let start = || Guarded::Plain(Served::start(&["--store", &redis.url(), "--token-key", &key]));
    let (one, other) = (start(), start());
    let join = join_token(&key, &[]);
    let own = one.own(&join, "jarvis", &"a".repeat(16));
    assert_eq!(other.join(&join, &json!({ "host": "jarvis" })).status, 409);
    assert_eq!(other.submit("jarvis", &other.own(&join, "jarvis", &"a".repeat(16))).status, 200);
    let (Guarded::Plain(here), Guarded::Plain(there)) = (&one, &other) else { return };
    let statuses = join_at_once(&[here.address, there.address, here.address, there.address], &join, "friday");
    assert_eq!(statuses, [200, 409, 409, 409]);
    assert_eq!(lizm_token(&["--revoke", "jarvis", &one.url(), "--token-file", &operator]).0, Some(0));
    assert_eq!(one.submit("jarvis", &own).status, 401);
    // No token is renewed from then on, and no sample taken after two seconds.
    assert_eq!(other.raw(&request("POST", "/api/token", &bearer(&own), "")).status, 401);
    await_some("the other receiver to hear of it", || (other.submit("jarvis", &own).status == 401).then_some(()));
}

/// A monitor that joins, with its join token in a file.
fn monitor(trust: &Trust, url: &str, more: &[&str]) -> Process {
    let (file, state) = (trust.text("join.token"), trust.text("state"));
    let arguments = ["monitor", "--host", "jarvis", "--probes", "cpu,mem", "--publish", url, "--state", &state];
    Process::start(lizm(&[&arguments[..], &["--join-file", &file], more].concat()))
}

#[test]
fn a_monitor_joins_once_and_keeps_its_own_token() {
    let trust = Trust::new();
    let (key, operator) = (trust.text("token.key"), operator_file(&trust));
    let receiver = Served::start(&["--udp", "127.0.0.1:0", "--token-key", &key]);
    let udp = format!("udp://{}", receiver.udp());
    trust.write("join.token", &join_token(&key, &[]));
    let first = monitor(&trust, &receiver.url(""), &[]);
    first.line_with("INFO: Host \"jarvis\" has joined at http://");
    first.line_with("over plain HTTP");
    first.line_with("Publish was successful");
    let line = receiver.process.line_with("Host \"jarvis\" has joined, client 127.0.0.1");
    assert!(line.contains("over plain HTTP"), "{line}");
    assert!(first.stop(Signal::SIGTERM).0.success());
    // From then on it needs no token to join with.
    fs::remove_file(trust.path("join.token")).unwrap();
    let (url, state) = (receiver.url(""), trust.text("state"));
    let second = Process::start(lizm(&["monitor", "--host", "jarvis", "--publish", &url, "--state", &state]));
    second.line_with("Publish was successful");
    assert!(second.stop(Signal::SIGTERM).0.success());
    // Its own is good for datagrams too, where the receiver is named that gives it.
    let token_from = receiver.url("");
    let third = monitor(&trust, &udp, &["--token-from", &token_from]);
    let before = receiver.samples("jarvis", "mem");
    await_some("samples by datagrams", || (receiver.samples("jarvis", "mem") > before).then_some(()));
    drop(third);
    // One that is shut out joins again by a newer token, and has lost nothing.
    let fourth = monitor(&trust, &receiver.url(""), &[]);
    fourth.line_with("Publish was successful");
    assert_eq!(lizm_token(&["--revoke", "jarvis", &receiver.url(""), "--token-file", &operator]).0, Some(0));
    fourth.line_with("was shut out after it was made");
    trust.write("join.token", &join_token(&key, &[]));
    fourth.line_with("INFO: Host \"jarvis\" has joined at http://");
    fourth.line_with("Publish was successful");
    let (_, log) = fourth.stop(Signal::SIGTERM);
    let files: Vec<_> = fs::read_dir(trust.path("state")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept: Value = serde_json::from_str(&fs::read_to_string(&files[0]).unwrap()).unwrap();
    assert!(files.len() == 1 && kept["host"] == "jarvis", "{files:?}");
    let is_secret = |line: &&String| line.contains(kept["token"].as_str().unwrap());
    assert_eq!(log.iter().find(is_secret), None, "no token is logged");
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_by_the_same_asker() {
    let trust = Trust::new();
    trust.write("join.token", &join_token(&trust.text("token.key"), &[]));
    let askers = Arc::new(Mutex::new(Vec::new()));
    let heard = askers.clone();
    let address = play_receiver(move |request| {
        if !request.path.ends_with("/api/token") {
            return Treatment::Answer("200 OK");
        }
        let mut askers = heard.lock().unwrap();
        askers.push(request.body["asker"].as_str().unwrap().to_owned());
        match askers.len() {
            1 => Treatment::Drop,
            2 => Treatment::Answer("503 Service Unavailable"),
            _ => Treatment::Json(r#"{"access_token": "own", "token_type": "Bearer", "expires_in": 2592000}"#),
        }
    });
    let url = format!("http://{address}");
    let first = monitor(&trust, &url, &[]);
    await_some("the first question", || (!askers.lock().unwrap().is_empty()).then_some(()));
    // Not even its end makes it another.
    first.kill();
    monitor(&trust, &url, &[]).line_with("Publish was successful");
    let askers: BTreeSet<String> = askers.lock().unwrap().drain(..).collect();
    assert!(askers.len() == 1 && askers.iter().all(|asker| asker.len() == 64), "{askers:?}");
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let trust = Trust::new();
    let (key, join) = (trust.text("token.key"), join_token(&trust.text("token.key"), &[]));
    let (status, said) = lizm_token(&["--host", "*", "--token-key", &key]);
    assert!(status == Some(2) && said.contains("lizm token --join"), "{said}");
    let state = trust.text("state");
    let state = ["--state", &*state];
    for (arguments, part) in [
        (&["--join", &*join][..], "option --state: missing"),
        (&["--join", "two words", "--state", "x"], "option --join: is not a token"),
        (&["--join", &join, "--join-file", &key, "--state", "x"], "only one has the token"),
        (&["--join", &join, "--token-file", &key, "--state", "x"], "goes neither with --cert nor with --token-file"),
    ] {
        let output = lizm(&[&["monitor", "--publish", "http://localhost:1"], arguments].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {said}");
        assert!(!said.contains(&join), "no token is shown: {said}");
    }
    for (url, more, part) in [
        ("udp://localhost:1", &["--join", &*join][..], "--token-from names one"),
        ("http://localhost:1", &["--join-file", "/nowhere/join.token"], "token file /nowhere/join.token"),
    ] {
        let arguments = ["monitor", "--host", "h", "--publish", url];
        let output = lizm(&[&arguments[..], &state, more].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(part), "{url}: {said}");
    }
    assert!(!Path::new("x").exists());
    let (status, said) = lizm_token(&["--join", "--operator", "--token-key", &key]);
    assert!(status == Some(2) && said.contains("one token cannot be both"), "{said}");
    let (status, said) = lizm_token(&["--host", "h", "--token-key", &key, "--ca", "x"]);
    assert!(status == Some(2) && said.contains("option --ca: given twice, or does not go with the others"), "{said}");
}

#[test]
fn a_receiver_that_others_reach_says_how_they_join_or_that_they_need_not() {
    let trust = Trust::new();
    let start = |more: &[&str]| Process::start(lizm(&[&["receiver", "--port", "0"], more].concat()));
    let open = Served::from(start(&[]));
    assert_eq!(open.get("/api/hosts").1["open"], true);
    drop(open);
    let key = trust.text("token.key");
    let guarded = start(&["--token-key", &key]);
    let here = guarded.line_with("For the next machine, here: ");
    assert!(here.ends_with(&format!("lizm token --join --token-key {key} > join.token")), "{here}");
    let there = guarded.line();
    assert!(there.contains("and there: lizm monitor --publish http://") && there.contains("--join-file"), "{there}");
    drop(guarded);
    let local = Served::start(&[]);
    assert_eq!(local.get("/api/hosts").1["open"], Value::Null);
}
