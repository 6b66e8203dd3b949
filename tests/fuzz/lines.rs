//! Any bytes as the body of `POST /write`: the lines of a body are stored as each would be alone, and a line that is
//! written is read as the same.

use lizm::api::RequestHead;
use lizm::auth::Principal;
use lizm::ingest::LineOptions;
use lizm::sample::line::{Precision, decode_line, decode_tags, encode_line, encode_tags, is_tags, lines};

use crate::asked::{NOW, api, ask, get};

pub(crate) fn run(text: &[u8]) {
    let precision = Precision::ByMagnitude;
    let (together, alone) = (api(), api());
    let reply = ask(&together, &RequestHead { method: "POST", target: "/write", ..RequestHead::default() }, text);
    let mut whole = true;
    // Tags are kept behind the samples of their body, which make hosts known.
    let (tags, samples): (Vec<_>, Vec<_>) =
        lines(text).map(|(_, line)| line).partition(|line| line.as_ref().is_ok_and(|line| is_tags(line)));
    for (host, tags) in tags.iter().flatten().filter_map(|line| decode_tags(line, precision).ok()) {
        let written = encode_tags(&host, &tags);
        assert_eq!(decode_tags(&written, precision), Ok((host, tags)), "{written:?}");
    }
    for line in samples.into_iter().chain(tags) {
        let options = LineOptions { precision, received_at: NOW, key: None };
        let one = [(1, &Principal::Anyone, line.clone())].into_iter();
        alone.ingest().submit_lines(one, &options, NOW, |_, outcome| {
            whole &= outcome.is_ok_and(|stored| stored.expired + stored.refused == 0);
        });
        if let Ok(read) = line.and_then(|line| decode_line(line, precision, NOW))
            && !read.sample.values.is_empty()
        {
            let written = encode_line(&read.sample, Precision::Seconds);
            let again = decode_line(&written, Precision::Seconds, NOW);
            assert_eq!(again.map(|line| line.sample).as_ref(), Ok(&read.sample), "{written:?}");
        }
    }
    assert_eq!(reply.status == 204, whole, "{}", String::from_utf8_lossy(&reply.body));
    // Past the cap on series it is a matter of order which of them are taken.
    if alone.stats().refused.get() + together.stats().refused.get() == 0 {
        assert_eq!(together.stats().stored.get(), alone.stats().stored.get());
        assert_eq!(together.stats().expired.get(), alone.stats().expired.get());
        let every_host = "/api/hosts?series=cpu";
        assert_eq!(get(&together, every_host), get(&alone, every_host));
    }
}
