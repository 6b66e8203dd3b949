//! `lizm check`, against a receiver and against servers that answer as none does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::{Served, lizm, now};

/// Exit code and standard error of `lizm check`.
fn check(arguments: &[&str]) -> (Option<i32>, String) {
    let output = lizm(&[&["check"], arguments].concat()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A server that answers each request by its target, on a connection of its own.
pub(crate) fn serve(answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let head: Vec<String> =
                stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let target = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
            // The client may have gone.
            let _ = answer(target, stream.get_mut());
        }
    });
    address
}

/// Writes an answer that ends with its connection.
pub(crate) fn write_answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}")
}

#[test]
fn the_exit_code_says_how_the_receiver_and_a_host_are() {
    let receiver = Served::start(&[]);
    assert_eq!(check(&[&receiver.url("/")]).0, Some(0));
    for (host, age) in [("up", 0), ("gone", 200)] {
        for sample in 0..2 {
            let path = format!("/api/perf/{host}/{}", now() - age - 5 + 5 * sample);
            assert_eq!(receiver.post(&path, "{\"cpu\":1}").0, 200);
        }
    }
    assert_eq!(check(&[&receiver.url(""), "--host", "up"]).0, Some(0));
    for (host, state) in [("gone", "gone is down"), ("nobody", "nobody is not known")] {
        let (code, stderr) = check(&["--host", host, &receiver.url("")]);
        assert!(code == Some(1) && stderr.contains(state), "{stderr}");
    }
    let (code, stderr) = check(&["http://127.0.0.1:1"]);
    assert!(code == Some(1) && stderr.starts_with("lizm: http://127.0.0.1:1/health: "), "{stderr}");
}

#[test]
fn an_error_is_a_sentence_that_steers_no_terminal() {
    let unwell = r#"{"status":"failing","reason":"disk\u0085 full\u2067 \u001b[2J"}"#;
    for (status, body, sentence) in [
        ("503 Service Unavailable", unwell, "HTTP 503 Service Unavailable: disk\u{fffd} full\u{fffd} \u{fffd}[2J"),
        ("404 Not Found", "{\"error\":\"no such path\"}", "HTTP 404 Not Found: no such path"),
        ("502 Bad Gateway", "<html>\u{1b}c</html>", "HTTP 502 Bad Gateway"),
        ("200 OK", "<html>\u{1b}c</html>", "not the answer of a receiver: expected value at line 1 column 1"),
        ("401 Unauthorized", "{}", "a password is needed to read here; --password-file names the file that has it"),
    ] {
        let server = serve(move |_, stream| write_answer(stream, status, body));
        let expected = format!("lizm: http://{server}/health: {sentence}\n");
        assert_eq!(check(&[&format!("http://{server}")]), (Some(1), expected));
    }
    // A state is foreign text too.
    let server = serve(|target, stream| match target {
        "/health" => write_answer(stream, "200 OK", "{\"status\":\"ok\"}"),
        _ => write_answer(stream, "200 OK", r#"{"hosts":[{"host":"j","state":"up\u009b1A\n\u202eok"}]}"#),
    });
    let (code, stderr) = check(&[&format!("http://{server}"), "--host", "j"]);
    assert_eq!((code, stderr.as_str()), (Some(1), "lizm: j is up\u{fffd}1A \u{fffd}ok\n"));
}

#[test]
fn an_answer_that_does_not_end_is_given_up() {
    // One that comes a byte at a time, within every limit of one read.
    let dripping = serve(|_, stream| {
        write_answer(stream, "200 OK", "{\"status\":\"")?;
        loop {
            stream.write_all(b"o")?;
            thread::sleep(Duration::from_millis(50));
        }
    });
    let (code, stderr) = check(&[&format!("http://{dripping}")]);
    assert!(code == Some(1) && stderr.ends_with("/health: no answer in 5 s\n"), "{stderr}");
    // One as fast as it can be read, which never has the host that is asked for.
    let endless = serve(|target, stream| match target {
        "/health" => write_answer(stream, "200 OK", "{\"status\":\"ok\"}"),
        _ => {
            write_answer(stream, "200 OK", "{\"hosts\":[")?;
            let many = "{\"host\":\"other\",\"state\":\"up\"},".repeat(1000);
            loop {
                stream.write_all(many.as_bytes())?;
            }
        }
    });
    let (code, stderr) = check(&[&format!("http://{endless}"), "--host", "j"]);
    assert!(code == Some(1) && stderr.starts_with(&format!("lizm: http://{endless}/api/hosts: ")), "{stderr}");
}

#[cfg(feature = "tls")]
#[test]
fn a_password_may_be_in_a_file_or_in_the_url_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, password: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, password).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right", "open sesame\n"), file("wrong", "hush\n"));
    let receiver = Served::start(&["--read-password-file", &right]);
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), "{\"cpu\":1}").0, 200);
    let url = receiver.url("");
    let with = |login: &str| url.replace("http://", &format!("http://{login}@"));
    for (arguments, sentence) in [
        (vec![url.as_str(), "--host", "h", "--password-file", &right], ""),
        (vec![&with("me:open%20sesame"), "--host", "h"], ""),
        (vec![&url, "--host", "h"], "a password is needed to read here; --password-file names the file that has it"),
        (vec![&url, "--host", "h", "--password-file", &wrong], "the password is not the one that reading needs here"),
        (vec![&with("me:hush"), "--host", "h"], "the password is not the one that reading needs here"),
    ] {
        let (code, stderr) = check(&arguments);
        assert_eq!(code, Some(if sentence.is_empty() { 0 } else { 1 }), "{arguments:?}: {stderr}");
        assert!(stderr.contains(sentence) && !stderr.contains("hush"), "{arguments:?}: {stderr}");
    }
    let url = "http://me:hush@127.0.0.1:port";
    for arguments in [
        &["check", url][..],
        &["watch", url],
        &["check", "http://r", url],
        &["receiver", url],
        &["receiver", "--store", "me:hush@redis:6379"],
        &["receiver", "--udp", url],
        &["monitor", "--host", "h", "--publish", url],
    ] {
        let output = lizm(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && !stderr.contains("hush"), "{arguments:?}: {stderr}");
    }
}
