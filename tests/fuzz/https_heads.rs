//! Any bytes that a client of the builtin server may send, decrypted: it is answered by whole answers of HTTP, and by the
//! same whether its bytes come at once or one by one.

use crate::asked::api;

pub(crate) fn run(sends: &[u8]) {
    let answers = [sends.len().max(1), 1].map(|piece_bytes| lizm::http::answer(sends.chunks(piece_bytes), &api()));
    // The answer to HEAD has the length of a body that does not follow.
    if !sends.windows(4).any(|word| word == b"HEAD") {
        let [at_once, one_by_one] = answers.map(|answers| statuses(&answers));
        assert_eq!(at_once, one_by_one);
    }
}

/// The statuses of answers that follow each other without a byte between.
pub(crate) fn statuses(mut answers: &[u8]) -> Vec<u16> {
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
