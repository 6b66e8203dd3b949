//! What a web page can make a browser do to a receiver that needs no password: nothing.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Served, now};

const FIREFOX: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n";

fn request(method: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {target} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn a_page_of_another_site_can_neither_submit_nor_delete_nor_read() {
    let receiver = Served::start(&["--allow-host", "metrics.example.org"]);
    let (at, own) = (now(), receiver.address);
    assert_eq!(receiver.post(&format!("/api/perf/jarvis/{at}"), "{\"cpu\":1}").0, 200);
    let submit = format!("/api/perf/forged/{at}");
    let line = "perf,host=forged cpu=99\n";
    for site in [
        format!("Host: {own}\r\nOrigin: https://shop.example\r\n{FIREFOX}"),
        format!("Host: {own}\r\nOrigin: http://localhost:3000\r\n"),
        format!("Host: {own}\r\nOrigin: null\r\n"),
        format!("Host: {own}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"),
        format!("Host: metrics.example.org\r\nSec-Fetch-Site: same-site\r\n{FIREFOX}"),
        // A name of the page's owner that points here.
        format!("Host: shop.example:8080\r\nOrigin: http://shop.example:8080\r\n{FIREFOX}"),
        "Host: shop.example\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
    ] {
        for (method, target, body) in
            [("POST", &*submit, "{\"cpu\":99}"), ("POST", "/write", line), ("DELETE", "/api/perf/jarvis", "")]
        {
            let answer = receiver.raw(&request(method, target, &site, body));
            let sentence = answer.error();
            assert!(answer.status == 403 && sentence.starts_with("header "), "{method} {site}: {sentence}");
        }
        if site.contains("shop.example:8080") {
            let answer = receiver.raw(&request("GET", "/api/hosts", &site, ""));
            assert!(answer.status == 403 && answer.error().contains("--allow-host"), "{answer:?}");
        }
    }
    let (_, list) = receiver.get("/api/hosts");
    assert_eq!((&list["count"], &list["hosts"][0]["host"]), (&json!(1), &json!("jarvis")));
    let (_, log) = receiver.process.stop(Signal::SIGTERM);
    assert!(
        log.iter().any(|line| line.contains("web page of another site") && line.contains("client 127.0.0.1")),
        "{log:?}"
    );
}

#[test]
fn the_receivers_own_page_and_clients_that_are_no_browsers_go_on() {
    let receiver = Served::start(&["--allow-host", "metrics.example.org"]);
    let (at, own) = (now(), receiver.address);
    let submit = format!("/api/perf/jarvis/{at}");
    for headers in [
        format!("Host: {own}\r\nOrigin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n{FIREFOX}"),
        format!("Host: {own}\r\nOrigin: http://{own}\r\n"),
        format!("Host: metrics.example.org\r\nOrigin: https://metrics.example.org\r\n{FIREFOX}"),
        "Host: whatever.example\r\nUser-Agent: Telegraf/1.30\r\n".to_owned(),
        "Host: whatever.example\r\n".to_owned(),
    ] {
        assert_eq!(receiver.raw(&request("POST", &submit, &headers, "{\"cpu\":1}")).status, 200, "{headers}");
        assert_eq!(receiver.raw(&request("GET", "/api/hosts", &headers, "")).status, 200, "{headers}");
        assert_eq!(receiver.raw(&request("GET", "/", &headers, "")).status, 200, "{headers}");
        assert_eq!(receiver.raw(&request("DELETE", "/api/perf/jarvis", &headers, "")).status, 200, "{headers}");
    }
    let output = crate::harness::lizm(&["receiver", "--port", "0", "--allow-host", "https://a"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("option --allow-host"), "{said}");
}
