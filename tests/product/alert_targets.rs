//! Targets of alerts: `lizm alerts test` against servers that keep to what each target documents, and the real ones.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};

use crate::alerts::{await_state, put_minutes};
use crate::harness::{Heard, PATIENCE, Served, Treatment, await_some, lizm, now, play_receiver};

/// Tries out a target of this line: exit code, standard output, standard error.
fn try_out(line: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("target ops: {line}\n")).unwrap();
    let mut command = lizm(&[&["alerts", "test", "ops", "--alerts", file.path().to_str().unwrap()], more].concat());
    let output = command.env("SECRET", "5eCr3t-w0rd").env("PATH", std::env::var("PATH").unwrap()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A target that answers each request so, and what it hears.
fn play(status: &'static str, body: &'static str) -> (SocketAddr, Receiver<Heard>) {
    let (sender, heard) = mpsc::channel();
    let address = play_receiver(move |request| {
        let _ = sender.send(request.clone());
        Treatment::Whole(status, body)
    });
    (address, heard)
}

/// The two requests of a test that goes well.
fn both(line: impl Fn(SocketAddr) -> String, status: &'static str, body: &'static str) -> [Heard; 2] {
    let (address, heard) = play(status, body);
    let (code, stdout, stderr) = try_out(&line(address), &[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let status = status.split([' ', '\r']).next().unwrap();
    let said = format!("HTTP {status} {body}").trim_end().to_owned();
    assert_eq!(stdout, format!("firing: {said}\nresolved: {said}\n"));
    [(); 2].map(|()| heard.recv_timeout(PATIENCE).unwrap())
}

#[test]
fn a_webhook_gets_the_json_of_alertmanager_and_a_key() {
    let [firing, resolved] = both(|address| format!("webhook http://{address}/hook?a=b"), "200 OK", "");
    assert_eq!(
        (firing.path.as_str(), &firing.body["version"], &firing.body["status"]),
        ("/hook?a=b", &json!("4"), &json!("firing"))
    );
    assert_eq!((&resolved.body["status"], &resolved.body["receiver"]), (&json!("resolved"), &json!("ops")));
    assert_eq!(firing.body["alerts"][0]["labels"]["alertname"], "lizm-test");
    assert_eq!(firing.body["alerts"][0]["fingerprint"], resolved.body["alerts"][0]["fingerprint"]);
    assert!(firing.key.starts_with("lizm-") && firing.key != resolved.key, "{} {}", firing.key, resolved.key);
}

#[test]
fn slack_ntfy_and_telegram_are_told_in_words() {
    let text = |of: &Value| of.as_str().unwrap().to_owned();
    let [firing, resolved] = both(|address| format!("slack http://{address}/services/T0/B0/x"), "200 OK", "ok");
    assert!(text(&firing.body["text"]).starts_with("```\nFIRING info: lizm-test on test: test is 1, above 0, since "));
    assert!(text(&resolved.body["text"]).starts_with("```\nRESOLVED: lizm-test on test"));
    // ntfy takes JSON at its root.
    let ntfy_says = r#"{"id":"hwQ2YpKdmg","time":1635528741,"event":"message"}"#;
    let [firing, resolved] = both(|address| format!("ntfy http://{address}/base/lizm-4f1c"), "200 OK", ntfy_says);
    assert_eq!((firing.path.as_str(), &firing.body["topic"]), ("/base/", &json!("lizm-4f1c")));
    assert_eq!((&firing.body["priority"], &resolved.body["tags"]), (&json!(3), &json!(["white_check_mark"])));
    let telegram_says = r#"{"ok":true,"result":{"message_id":1}}"#;
    let [firing, _] =
        both(|address| format!("telegram 123:${{SECRET}} -1001 http://{address}"), "200 OK", telegram_says);
    assert_eq!((firing.path.as_str(), &firing.body["chat_id"]), ("/bot123:5eCr3t-w0rd/sendMessage", &json!("-1001")));
    assert_eq!(firing.body.get("parse_mode"), None);
}

#[test]
fn pagerduty_and_an_alertmanager_know_the_alert_again() {
    let pagerduty_says = r#"{"status":"success","message":"Event processed","dedup_key":"k"}"#;
    let [firing, resolved] =
        both(|address| format!("pagerduty ${{SECRET}} http://{address}"), "202 Accepted", pagerduty_says);
    assert_eq!((firing.path.as_str(), &firing.body["routing_key"]), ("/v2/enqueue", &json!("5eCr3t-w0rd")));
    assert_eq!((&firing.body["event_action"], &resolved.body["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(firing.body["dedup_key"], resolved.body["dedup_key"]);
    let [firing, resolved] = both(|address| format!("alertmanager http://{address}/"), "200 OK", "");
    assert_eq!(firing.path, "/api/v2/alerts");
    assert_eq!(firing.body[0]["labels"], resolved.body[0]["labels"]);
    assert!(firing.body[0]["endsAt"].as_str() > resolved.body[0]["endsAt"].as_str());
}

#[test]
fn an_answer_that_says_no_is_shown_without_secrets() {
    for (line, status, body) in [
        ("slack http://ADDRESS/services/${SECRET}", "404 Not Found", "no_service /services/5eCr3t-w0rd"),
        ("slack http://ADDRESS/services/${SECRET}", "403 Forbidden", "action_prohibited"),
        (
            "slack http://ADDRESS/api/${SECRET}/slack",
            "429 Too Many Requests\r\nRetry-After: 1",
            r#"{"message":"You are being rate limited.","retry_after":0.65,"global":false}"#,
        ),
        (
            "ntfy http://ADDRESS/${SECRET}",
            "429 Too Many Requests",
            r#"{"code":42901,"http":429,"error":"limit reached"}"#,
        ),
        (
            "telegram 1:${SECRET} 5 http://ADDRESS",
            "429 Too Many Requests",
            r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 5","parameters":{"retry_after":5}}"#,
        ),
        (
            "telegram 1:${SECRET} 5 http://ADDRESS",
            "401 Unauthorized",
            r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#,
        ),
        (
            "pagerduty ${SECRET} http://ADDRESS",
            "400 Bad Request",
            r#"{"status":"invalid event","message":"Event object is invalid","errors":["'routing_key' 5eCr3t-w0rd is invalid"]}"#,
        ),
        ("webhook http://me:${SECRET}@ADDRESS/", "500 Internal Server Error", "<html>\u{1b}[2J"),
        ("webhook http://ADDRESS/", "301 Moved Permanently\r\nLocation: http://127.0.0.1:1/5eCr3t-w0rd", ""),
        ("heartbeat http://ADDRESS/ping/${SECRET}", "404 Not Found", "(not found)"),
        ("webhook http://me:${SECRET}@ADDRESS/", "403 Forbidden", "wrong password 5eCr3t-w0rd"),
    ] {
        let (address, heard) = play(status, body);
        let (code, stdout, stderr) = try_out(&line.replace("ADDRESS", &address.to_string()), &[]);
        let status = status.split(' ').next().unwrap();
        assert!(code == Some(1) && stdout.starts_with(&format!("firing: HTTP {status}")), "{line}: {stdout}{stderr}");
        assert_eq!((stdout.lines().count(), stderr.as_str()), (1, "lizm: the target ops was not told\n"), "{stdout}");
        assert!(!stdout.contains("5eCr3t-w0rd") && !stdout.contains('\u{1b}'), "{stdout}");
        assert!(heard.recv_timeout(PATIENCE).is_ok() && heard.try_recv().is_err(), "one request");
    }
    let (code, stdout, _) = try_out("webhook http://127.0.0.1:1/${SECRET}", &[]);
    assert!(code == Some(1) && stdout.starts_with("firing: ") && !stdout.contains("5eCr3t"), "{stdout}");
    let (code, _, stderr) = try_out("webhook https//${SECRET}", &[]);
    assert!(code == Some(1) && stderr.contains(":1:13: the URL: ") && !stderr.contains("5eCr3t"), "{stderr}");
}

#[test]
fn a_program_gets_the_json_and_a_mailer_a_mail() {
    let directory = tempfile::tempdir().unwrap();
    let got = directory.path().join("got");
    let (code, stdout, _) = try_out(&format!("exec tee -a {}", got.display()), &[]);
    assert_eq!(code, Some(0), "{stdout}");
    let told: Vec<Value> =
        fs::read_to_string(&got).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((told.len(), &told[0]["status"], &told[1]["status"]), (2, &json!("firing"), &json!("resolved")));
    let (code, stdout, _) = try_out("exec false", &[]);
    assert_eq!((code, stdout.as_str()), (Some(1), "firing: false has exited 1\n"));
    // What comes from the environment is a secret, whoever prints it.
    let (code, stdout, _) = try_out("exec sh -c \"echo no: $0; exit 3\" ${SECRET}", &[]);
    assert_eq!((code, stdout.as_str()), (Some(1), "firing: sh has exited 3: no: ***\n"));
    // A shell's words are words: nothing expands.
    let (_, stdout, _) = try_out("exec echo $(id) \"a b;c\" *", &[]);
    assert!(stdout.starts_with("firing: exit 0 $(id) a b;c *\n"), "{stdout}");
}

#[cfg(feature = "tls")]
#[test]
fn a_target_of_https_is_trusted_by_its_authority() {
    use crate::certificates::Trust;
    let trust = Trust::new();
    let receiver = trust.receiver(&[]);
    let line = format!("heartbeat {}/health", receiver.url());
    let (code, stdout, _) = try_out(&line, &["--notify-ca", &trust.text("ca.pem")]);
    assert!(code == Some(0) && stdout.starts_with("firing: HTTP 200 "), "{stdout}");
    let (code, stdout, _) = try_out(&line, &[]);
    assert!(code == Some(1) && stdout.contains("--notify-ca"), "{stdout}");
    let (code, _, stderr) = try_out(&line, &["--notify-ca", "/nonexistent.pem"]);
    assert!(code == Some(1) && stderr.contains("/nonexistent.pem"), "{stderr}");
}

#[cfg(feature = "tls")]
#[test]
fn a_receiver_offers_the_days_of_its_own_certificate() {
    let trust = crate::certificates::Trust::new();
    let receiver = trust.open_receiver(&["--alert", "certificate: cert-days < 1000000; severity info"]);
    await_some("cert-days", || {
        let hosts = receiver.served.get("/api/hosts").1;
        hosts["hosts"].as_array().unwrap().iter().any(|host| host["labels"] == json!(["cert-days"])).then_some(())
    });
}

/// A mail server (RFC 5321) that takes mails, and gives each with its recipients.
fn play_mail_server() -> (SocketAddr, Receiver<(Vec<String>, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mails) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let _ = stream.get_mut().write_all(b"220 test ESMTP\r\n");
            let (mut recipients, mut line) = (Vec::new(), String::new());
            while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                let answer = match line.split([' ', ':', '\r']).next().unwrap().to_ascii_uppercase().as_str() {
                    "RCPT" => {
                        recipients.push(line.trim_end().to_owned());
                        "250 ok\r\n"
                    }
                    "DATA" => {
                        stream.get_mut().write_all(b"354 go on\r\n").unwrap();
                        let mut mail = String::new();
                        while !mail.ends_with("\r\n.\r\n") {
                            assert!(stream.read_line(&mut mail).unwrap() > 0);
                        }
                        sender.send((std::mem::take(&mut recipients), mail)).unwrap();
                        "250 queued\r\n"
                    }
                    "QUIT" => "221 bye\r\n",
                    _ => "250 ok\r\n",
                };
                let _ = stream.get_mut().write_all(answer.as_bytes());
                line.clear();
            }
        }
    });
    (address, mails)
}

#[test]
#[ignore = "needs msmtp"]
fn msmtp_delivers_a_mail() {
    let (address, mails) = play_mail_server();
    let (ip, port) = (address.ip(), address.port());
    let options = format!("--host={ip} --port={port} --from=lizm@example.org --auth=off --tls=off");
    let (code, stdout, stderr) = try_out(&format!("exec msmtp {options} ops@example.org"), &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for subject in ["FIRING info: lizm-test on test", "=?utf-8?B?"] {
        let (recipients, mail) = mails.recv_timeout(PATIENCE).unwrap();
        assert_eq!(recipients, ["RCPT TO:<ops@example.org>"]);
        assert!(mail.contains("\r\nSubject: ") && mail.contains(subject), "{mail}");
        assert!(mail.contains("To: ops@example.org\r\n") && mail.contains("lizm-test on test: test is 1"), "{mail}");
    }
}

/// A running Alertmanager, killed when dropped.
pub(crate) struct Alertmanager {
    child: std::process::Child,
    pub(crate) url: String,
    _directory: tempfile::TempDir,
}

impl Alertmanager {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("am.yml");
        fs::write(&file, "route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n").unwrap();
        let address = crate::harness::reserved_address();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", directory.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        let alertmanager = Self { child, url, _directory: directory };
        await_some("the Alertmanager", || {
            let ready = ureq::get(format!("{}/-/ready", alertmanager.url)).call();
            ready.is_ok().then_some(())
        });
        alertmanager
    }

    /// What amtool lists.
    pub(crate) fn alerts(&self) -> Vec<Value> {
        let output = Command::new("amtool")
            .args(["alert", "query", "--output=json", &format!("--alertmanager.url={}", self.url)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn metric(&self, line: &str) -> bool {
        let text = ureq::get(format!("{}/metrics", self.url)).call().unwrap().body_mut().read_to_string().unwrap();
        text.lines().any(|other| other == line)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs prometheus-alertmanager"]
fn the_real_alertmanager_takes_what_it_is_told() {
    let alertmanager = Alertmanager::start();
    let (code, stdout, stderr) = try_out(&format!("alertmanager {}", alertmanager.url), &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for status in ["firing", "resolved"] {
        let line = format!("alertmanager_alerts_received_total{{status=\"{status}\",version=\"v2\"}} 1");
        assert!(alertmanager.metric(&line), "{line}");
    }
    assert!(alertmanager.metric("alertmanager_alerts_invalid_total{version=\"v2\"} 0"));
    assert_eq!(alertmanager.alerts(), Vec::<Value>::new(), "it is resolved");
}

/// A receiver with these lines of rules.
fn judge(lines: &[String], more: &[&str]) -> Served {
    let lines = lines.join("\n");
    Served::start(&[&["--alert", &lines], more].concat())
}

fn metrics(receiver: &Served) -> String {
    receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").body
}

/// The next message that a webhook is told: its status, and the summary of its first alert.
fn next(heard: &Receiver<Heard>) -> (String, String) {
    let body = heard.recv_timeout(2 * PATIENCE).expect("a message").body;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&body["status"]), text(&body["alerts"][0]["annotations"]["summary"]))
}

#[test]
fn a_target_that_hangs_and_one_that_is_limited_delay_no_other() {
    // One that accepts and never answers, one that answers at once, and one that takes nothing until it may.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let (good, of_good) = play("200 OK", "");
    let is_open = Arc::new(AtomicBool::new(false));
    let (sender, of_limited) = mpsc::channel();
    let is_open_there = is_open.clone();
    let limited = play_receiver(move |heard| {
        if !is_open_there.load(Ordering::SeqCst) {
            return Treatment::Whole("429 Too Many Requests\r\nRetry-After: 1", "{}");
        }
        let _ = sender.send(heard.clone());
        Treatment::Answer("200 OK")
    });
    let receiver = judge(
        &[
            format!("target hanging: webhook http://{}", hanging.local_addr().unwrap()),
            format!("target good: webhook http://{good}"),
            format!("target limited: webhook http://{limited}"),
            "a: x > 90; notify hanging,good,limited".to_owned(),
        ],
        &[],
    );
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "a", "firing");
    let (status, summary) = next(&of_good);
    assert!(
        status == "firing" && summary.starts_with("FIRING warning: a on h: x is 95, above 90, since "),
        "{summary}"
    );
    let failed = |target: &str, reason: &str| {
        let line = format!("lizm_notifications_failed_total{{target=\"{target}\",reason=\"{reason}\"}} ");
        let text = metrics(&receiver);
        text.lines().find_map(|other| other.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or_default()
    };
    await_some("three answers of 429", || (failed("limited", "busy") >= 3).then_some(()));
    let told = await_state(&receiver, "a", "firing")["told"].clone();
    let of = |target: &str| told.as_array().unwrap().iter().find(|told| told["target"] == target).unwrap().clone();
    assert!(of("good")["delivered-at"].is_u64() && of("hanging")["delivered-at"].is_null(), "{told}");
    assert!(of("limited")["last-error"].as_str().unwrap().starts_with("HTTP 429"), "{told}");
    // It is over before the limited one could be told: it is told that late, and as one.
    put_minutes(&receiver, "h", now() + 240, 3, 10.0);
    assert_eq!(next(&of_good).0, "resolved");
    is_open.store(true, Ordering::SeqCst);
    let (status, summary) = next(&of_limited);
    assert!(
        status == "resolved" && summary.starts_with("WAS FIRING ") && summary.contains(", told late: a on h"),
        "{summary}"
    );
    assert!(of_good.try_recv().is_err() && of_limited.try_recv().is_err());
}

#[test]
fn a_target_that_refuses_is_an_alert_itself() {
    let (bad, _heard) = play("404 Not Found", "no_service");
    let rules = [format!("target bad: webhook http://{bad}"), "a: x > 90; notify bad".to_owned()];
    let receiver = judge(&rules, &[]);
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "lizm-notify", "firing");
    let line = r#"ALERTS{alertname="lizm-notify",host="",series="bad",alertstate="firing",severity="critical"} 1"#;
    assert!(metrics(&receiver).lines().any(|other| other == line));
}

#[cfg(feature = "disk")]
#[test]
fn a_kill_between_the_answer_and_its_note_tells_once_by_the_key() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let (sender, heard) = mpsc::channel();
    let (victims, of_victims) = mpsc::channel::<Option<Pid>>();
    let hook = play_receiver(move |request| {
        // The target has the message, and the process is gone before it can know.
        if let Ok(Some(pid)) = of_victims.recv() {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        let _ = sender.send(request.clone());
        Treatment::Answer("200 OK")
    });
    let lines = [format!("target hook: webhook http://{hook}"), "a: x > 90; notify hook".to_owned()];
    let start = || judge(&lines, &["--store", store.to_str().unwrap()]);
    let mut receiver = start();
    put_minutes(&receiver, "h", now(), 3, 95.0);
    let mut keys = Vec::new();
    for _ in 0..4 {
        victims.send(Some(receiver.process.pid())).unwrap();
        keys.push(heard.recv_timeout(2 * PATIENCE).expect("a message").key);
        let (status, _) = receiver.process.end();
        assert_eq!(status.code(), None, "it was killed");
        receiver = start();
    }
    victims.send(None).unwrap();
    keys.push(heard.recv_timeout(2 * PATIENCE).expect("a message").key);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    await_some("the note", || await_state(&receiver, "a", "firing")["told"][0]["delivered-at"].as_u64());
    // The note may be shown before the disk has it: what comes after this kill is at most the same message under the same
    // key, and then the end of it, once.
    receiver.process.kill();
    drop(victims);
    receiver = start();
    await_state(&receiver, "a", "firing");
    put_minutes(&receiver, "h", now() + 240, 3, 10.0);
    let after = || heard.recv_timeout(2 * PATIENCE).expect("a message");
    let end = std::iter::repeat_with(after).find(|message| message.key != keys[0]).expect("messages go on");
    assert_eq!(end.body["status"], "resolved");
    assert!(heard.try_recv().is_err());
}

#[test]
#[ignore = "needs prometheus-alertmanager"]
fn amtool_lists_what_fires() {
    let alertmanager = Alertmanager::start();
    let (hook, heard) = play("200 OK", "");
    let receiver = judge(
        &[
            format!("target am: alertmanager {}", alertmanager.url),
            format!("target hook: webhook http://{hook}"),
            "a: x > 90; severity critical; notify am,hook".to_owned(),
        ],
        &[],
    );
    put_minutes(&receiver, "h", now(), 3, 95.0);
    await_state(&receiver, "a", "firing");
    let alert = await_some("amtool", || alertmanager.alerts().pop());
    assert_eq!(alert["labels"], json!({ "alertname": "a", "host": "h", "series": "x", "severity": "critical" }));
    let told = heard.recv_timeout(2 * PATIENCE).unwrap().body;
    assert_eq!(
        (&told["alerts"][0]["labels"], &told["alerts"][0]["fingerprint"]),
        (&alert["labels"], &alert["fingerprint"])
    );
    put_minutes(&receiver, "h", now() + 240, 3, 10.0);
    assert_eq!(next(&heard).0, "resolved");
    await_some("the end of it", || alertmanager.alerts().is_empty().then_some(()));
}
