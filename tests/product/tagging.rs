//! The tags of hosts: by every transport, over a restart, and by those alone who may submit for the host.

use serde_json::{Value, json};

use crate::harness::{Process, Served, agent, answer, await_some, http_servers, lizm, now};

/// The tags of a host as the list has them; null where it has none.
fn tags(receiver: &Served, host: &str) -> Value {
    let (_, list) = receiver.get("/api/hosts");
    let hosts = list["hosts"].as_array().unwrap();
    hosts.iter().find(|entry| entry["host"] == host).map_or(Value::Null, |entry| entry["tags"].clone())
}

fn post(receiver: &Served, host: &str, tags: &str) -> (u16, Value) {
    let url = receiver.url(&format!("/api/perf/{host}/{}", now()));
    answer(agent().post(url).header("Lizm-Tags", tags).send("{\"cpu\":1}"))
}

#[test]
fn a_host_has_the_tags_that_it_sent_last_on_both_servers() {
    for server in http_servers() {
        let receiver = Served::start(&["--http-server", server]);
        assert_eq!(post(&receiver, "h", "role=web,site=K%C3%B6ln").0, 200);
        assert_eq!(tags(&receiver, "h"), json!({"role": "web", "site": "Köln"}));
        assert_eq!(receiver.get("/api/hosts?host=h").1["hosts"][0]["tags"]["role"], "web");
        let metrics = agent().get(receiver.url("/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        assert!(metrics.contains("\nlizm_host_info{host=\"h\",role=\"web\",site=\"Köln\"} 1\n"), "{metrics}");
        // What comes without the header changes nothing; an empty one removes them.
        assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":2}").0, 200);
        assert_eq!(tags(&receiver, "h")["role"], "web");
        assert_eq!(post(&receiver, "h", "role=db").0, 200);
        assert_eq!(tags(&receiver, "h"), json!({"role": "db"}));
        assert_eq!(post(&receiver, "h", "").0, 200);
        assert_eq!(tags(&receiver, "h"), Value::Null);
        for (wrong, part) in [
            ("role", "header Lizm-Tags: tag \"role\": is not NAME=VALUE"),
            ("a-b=x", "tag \"a-b\": a name has letters, digits and _"),
            ("role=%1b[2J", "a control character"),
            ("role=%ff", "not UTF-8"),
            (&format!("role={}", "x".repeat(60)), "65 bytes long with its value, the limit is 64"),
        ] {
            let (status, error) = post(&receiver, "h", wrong);
            assert!(status == 400 && error["error"].as_str().unwrap().contains(part), "{wrong}: {error}");
        }
        assert_eq!((tags(&receiver, "h"), receiver.samples("h", "cpu")), (Value::Null, 4), "and stores no sample");
    }
}

#[test]
fn lines_of_tags_stand_beside_samples() {
    let receiver = Served::start(&[]);
    let body = "lizm_tags,host=a role=\"web\"\nperf,host=a cpu=1\nperf,host=b cpu=1\n";
    assert_eq!(receiver.post("/write", body).0, 204);
    assert_eq!((tags(&receiver, "a"), tags(&receiver, "b")), (json!({"role": "web"}), Value::Null));
    let (status, error) = receiver.post("/write", "lizm_tags,host=c role=\"web\"\nlizm_tags,host=b role=1\n");
    assert_eq!(status, 400);
    assert_eq!(error["lines"][0], json!({"line": 1, "error": "tags: of a host that has sent no sample yet"}));
    assert_eq!(error["lines"][1]["error"], "field \"role\": is not a string in double quotes");
    assert_eq!(tags(&receiver, "c"), Value::Null);
    // A sample counts once by its key, whether or not the tags go with it.
    for count in 1..=2 {
        let body = format!("perf,host=a cpu=1 {}\nlizm_tags,host=a role=\"db{count}\"", now());
        assert_eq!(receiver.post_once("/write", "s-1", &body).0, 204);
        assert_eq!((receiver.samples("a", "cpu"), &tags(&receiver, "a")["role"]), (2, &json!(format!("db{count}"))));
    }
}

#[test]
fn a_monitor_sends_its_tags_by_each_transport() {
    let zmq: &[&str] = if cfg!(feature = "zeromq") { &["--zmq", "tcp://127.0.0.1:*"] } else { &[] };
    let receiver = Served::start(&[&["--udp", "127.0.0.1:0"], zmq].concat());
    let urls = [
        receiver.url(""),
        receiver.url("/write"),
        format!("udp://{}", receiver.udp()),
        #[cfg(feature = "zeromq")]
        receiver.zmq().replace("tcp://", "zmq://"),
    ];
    for (number, url) in urls.iter().enumerate() {
        let host = format!("host {number}");
        let arguments = ["monitor", "--host", &host, "--probes", "load", "--tag", "role=web", "--tag", "site=K\"ö\\ln"];
        let _monitor = Process::start(lizm(&[&arguments[..], &["--publish", url]].concat()));
        let expected = json!({"role": "web", "site": "K\"ö\\ln"});
        await_some(&format!("tags by {url}"), || (tags(&receiver, &host) == expected).then_some(()));
    }
    // A restart with others replaces them, by the environment too; an empty one removes them.
    let mut command = lizm(&["monitor", "--host", "host 0", "--probes", "load", "--publish", &urls[0]]);
    command.env("LIZM_TAG", "role=db,env=prod");
    let monitor = Process::start(command);
    await_some("other tags", || (tags(&receiver, "host 0") == json!({"env": "prod", "role": "db"})).then_some(()));
    drop(monitor);
    for (host, url) in [("host 0", &urls[0]), ("host 2", &urls[2])] {
        let arguments = ["monitor", "--host", host, "--probes", "load", "--tag", "", "--publish", url];
        let _monitor = Process::start(lizm(&arguments));
        await_some("no tags", || tags(&receiver, host).is_null().then_some(()));
    }
}

#[test]
fn a_wrong_tag_is_refused_at_the_start() {
    for (wrong, part) in [("role", "is not NAME=VALUE"), ("host=x", "the host's own name"), ("a=\u{7}", "control")] {
        let output = lizm(&["monitor", "--tag", wrong, "--publish", "http://r"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("option --tag: tag ") && said.contains(part), "{said}");
    }
}

#[cfg(feature = "disk")]
#[test]
fn a_directory_has_the_tags_after_a_stop_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let receiver = Served::start(&["--store", path]);
    assert_eq!((post(&receiver, "stopped", "role=web").0, post(&receiver, "removed", "role=web").0), (200, 200));
    receiver.process.stop(nix::sys::signal::Signal::SIGTERM);
    let receiver = Served::start(&["--store", path]);
    assert_eq!(tags(&receiver, "stopped"), json!({"role": "web"}));
    assert_eq!(post(&receiver, "killed", "role=db").0, 200);
    assert_eq!(post(&receiver, "stopped", "").0, 200);
    assert_eq!(receiver.delete("/api/perf/removed").0, 200);
    receiver.process.kill();
    let receiver = Served::start(&["--store", path]);
    assert_eq!((tags(&receiver, "killed"), tags(&receiver, "stopped")), (json!({"role": "db"}), Value::Null));
    // Those of a host that was removed do not come back with it.
    assert_eq!(receiver.post(&format!("/api/perf/removed/{}", now()), "{\"cpu\":1}").0, 200);
    assert_eq!(tags(&receiver, "removed"), Value::Null);
}

#[cfg(feature = "tls")]
#[test]
fn who_may_submit_for_a_host_may_set_its_tags_and_nobody_else() {
    use crate::certificates::{Trust, token};

    let trust = Trust::new();
    let key = trust.text("token.key");
    let receiver = Served::start(&["--token-key", &key]);
    let write = |token: &str, body: &str| {
        let authorization = format!("Bearer {token}");
        answer(agent().post(receiver.url("/write")).header("Authorization", authorization).send(body))
    };
    let (web, db) = (token(&["web"]), token(&["db"]));
    assert_eq!(write(&web, "perf,host=web cpu=1\nlizm_tags,host=web role=\"web\"\n").0, 204);
    let (status, error) = write(&db, "lizm_tags,host=web role=\"mine\"\n");
    assert_eq!(status, 403, "{error}");
    let url = receiver.url(&format!("/api/perf/web/{}", now()));
    let request = agent().post(url).header("Authorization", format!("Bearer {db}")).header("Lizm-Tags", "role=mine");
    assert_eq!(answer(request.send("{\"cpu\":1}")).0, 403);
    assert_eq!(tags(&receiver, "web"), json!({"role": "web"}));
}
