//! The log: its two formats, and what clients and servers cannot make of it.

use nix::sys::signal::Signal;

use crate::checking::{serve, write_answer};
use crate::harness::{Process, lizm};

#[test]
fn the_log_can_be_json() {
    let receiver = Process::start(lizm(&["receiver", "--port", "0", "--bind", "127.0.0.1", "--log-format", "json"]));
    let line: serde_json::Value = serde_json::from_str(&receiver.line()).unwrap();
    assert_eq!(line["level"], "info");
    assert!(line["message"].as_str().unwrap().starts_with("Receiver is listening on http://127.0.0.1:"));
    assert!(receiver.stop(Signal::SIGTERM).0.success());
}

#[test]
fn an_answer_of_a_receiver_is_part_of_one_line_and_steers_nothing() {
    let body = r#"{"error":"full\u2029INFO: Publish was successful\u0007 \u009d0;x\u061c\udb40\udc41"}"#;
    let receiver = serve(move |_, stream| write_answer(stream, "400 Bad Request", body));
    for format in ["text", "json"] {
        let url = format!("http://{receiver}");
        let monitor = Process::start(lizm(&["monitor", "--host", "h", "--publish", &url, "--log-format", format]));
        let line = monitor.line_with("Publish failed");
        let shown = "full\u{fffd}INFO: Publish was successful\u{fffd} \u{fffd}0;x\u{fffd}\u{fffd}";
        assert!(line.contains(shown), "{line:?}");
    }
}

/// A ClientHello of TLS 1.3 that asks for a server by `name`.
#[cfg(feature = "tls")]
fn client_hello(name: &[u8]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let extension = |kind: u8, body: &[u8]| [&[0, kind], &with_length(body)[..]].concat();
    let server_name = with_length(&[&[0], &with_length(name)[..]].concat());
    let extensions = [
        extension(0, &server_name),
        extension(10, &[0, 2, 0, 0x1d]),
        extension(13, &[0, 2, 4, 3]),
        extension(43, &[2, 3, 4]),
        extension(51, &with_length(&[&[0, 0x1d, 0, 32], &[7; 32][..]].concat())),
    ];
    let fields = [&[3, 3], &[1; 32][..], &[0, 0, 2, 0x13, 1, 1, 0], &with_length(&extensions.concat())].concat();
    let length = u32::try_from(fields.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &fields].concat();
    message.chunks(16_000).flat_map(|piece| [&[22, 3, 1], &with_length(piece)[..]].concat()).collect()
}

#[cfg(feature = "tls")]
#[test]
fn clients_cannot_fill_the_log_through_a_library() {
    use std::io::{Read, Write};

    let trust = crate::certificates::Trust::new();
    let receiver = trust.receiver(&[]);
    for size in [1, 300, 50_000, 3000, 50_000] {
        // A host name has no such characters, which rustls warns of, with the name.
        let mut stream = crate::harness::connect(receiver.https);
        let hello = client_hello("\u{9b}[2J".repeat(size / 5 + 1).as_bytes());
        // The server may have had enough of it.
        let _ = stream.write_all(&hello).and_then(|()| stream.read(&mut [0; 100]));
    }
    let (status, lines) = receiver.served.process.stop(Signal::SIGTERM);
    let of_rustls: Vec<&String> = lines.iter().filter(|line| line.contains("rustls")).collect();
    assert!(status.success() && of_rustls.len() == 1, "{lines:?}");
    assert!(of_rustls[0].len() < 1000 && !of_rustls[0].contains('\u{9b}'), "{of_rustls:?}");
}
