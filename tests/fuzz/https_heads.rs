//! Any bytes that a client of the HTTPS door may send, decrypted: it is answered by whole answers of HTTP, and by the
//! same whether its bytes come at once or one by one.

use std::io::{self, Read, Write};

use crate::asked::api;

/// A client whose bytes come in pieces, and which keeps what it is answered.
struct Client<'a> {
    sends: &'a [u8],
    piece_bytes: usize,
    gets: Vec<u8>,
}

impl Read for &mut Client<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.piece_bytes.min(to.len()).min(self.sends.len());
        let (piece, rest) = self.sends.split_at(bytes);
        to[..bytes].copy_from_slice(piece);
        self.sends = rest;
        Ok(bytes)
    }
}

impl Write for &mut Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gets.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn run(sends: &[u8]) {
    let answers = [usize::MAX, 1].map(|piece_bytes| {
        let mut client = Client { sends, piece_bytes, gets: Vec::new() };
        // An end before its time is the client's.
        let _ = lizm::tls::answer(&mut client, &api());
        client.gets
    });
    // The answer to HEAD has the length of a body that does not follow.
    if !sends.windows(4).any(|word| word == b"HEAD") {
        let [at_once, one_by_one] = answers.map(|answers| statuses(&answers));
        assert_eq!(at_once, one_by_one);
    }
}

/// The statuses of answers that follow each other without a byte between.
fn statuses(mut answers: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !answers.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head_bytes)) = answer.parse(answers) else {
            panic!("not an answer: {:?}", String::from_utf8_lossy(answers));
        };
        let status = answer.code.expect("a whole head has a status");
        let length = answer.headers.iter().find(|header| header.name == "Content-Length");
        let length = length.map(|length| std::str::from_utf8(length.value).expect("text").parse().expect("a number"));
        assert_eq!(length.is_none(), matches!(status, 100 | 204 | 304), "{status}");
        let body = answers[head_bytes..].get(..length.unwrap_or(0)).expect("the body is whole");
        if status >= 400 {
            serde_json::from_slice::<serde_json::Value>(body).expect("an error is JSON");
            assert_ne!(status, 500);
        }
        answers = &answers[head_bytes + body.len()..];
        // Whether a body is asked for depends on whether it is there already.
        if status != 100 {
            statuses.push(status);
        }
    }
    statuses
}
