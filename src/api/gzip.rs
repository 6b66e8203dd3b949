//! Gzip (RFC 1952): answers for clients that take it, and bodies, decompressed with a bound on the work and not only on
//! the length.
//!
//! A body of empty members or blocks keeps a processor busy for seconds, and gives nothing. Text that somebody has
//! compressed gives at least about as many bytes as it takes, so a body may not take more than that.

use std::io::{self, BufRead, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::reply::Reply;

/// Bytes that a body may take beyond what it gives.
const SLACK_BYTES: usize = 64 << 10;
/// Bytes that are decompressed at a time, before the body may take as many more: less than the slack.
const STEP_BYTES: u64 = 16 << 10;
/// Most members: some compressors split their work into a few dozen.
const MEMBERS_MAX: usize = 256;
/// The shortest answer in bytes that is compressed: a shorter one fits a packet anyway.
const ANSWER_BYTES_MIN: usize = 1 << 10;
/// The longest answer in bytes that is compressed, which takes half a second. Those of the store are shorter.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What an answer says that may be compressed: a cache keeps both forms.
pub(super) const VARY: (&str, &str) = ("Vary", "Accept-Encoding");
const TOO_LITTLE: &str = "too little comes out of it for what it is long";

/// Whether a client takes gzip, by its `Accept-Encoding` (RFC 9110, 12.5.3).
pub(super) fn is_accepted(accept_encoding: &str) -> bool {
    let weight_of = |wanted: &str| {
        let mut codings = accept_encoding.split(',').map(|item| item.split_once(';').unwrap_or((item, "")));
        let (_, parameters) = codings.find(|(coding, _)| coding.trim().eq_ignore_ascii_case(wanted))?;
        let weight = parameters.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
        Some(weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0)))
    };
    let weight: Option<f32> = weight_of("gzip").or_else(|| weight_of("*"));
    weight.is_some_and(|weight| weight > 0.0)
}

/// Compresses the body of an answer where the client takes it and it is worth it.
pub(super) fn compress_reply(reply: Reply, is_taken: bool) -> Reply {
    let mut reply = reply.with(VARY.0, VARY.1);
    if !is_taken || !(ANSWER_BYTES_MIN..=ANSWER_BYTES_MAX).contains(&reply.body.len()) {
        return reply;
    }
    reply.body = compress(&reply.body, Compression::fast());
    reply.with("Content-Encoding", "gzip")
}

/// Compresses `text` to one member.
fn compress(text: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), level);
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    // Memory takes what is written to it.
    written.unwrap_or_default()
}

/// Decompresses a body of up to `bytes_max` bytes of text.
///
/// # Errors
/// The reply to one that is no gzip, not whole, longer, or made to keep the receiver busy.
pub(super) fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Reply> {
    let bad = |why: &str| Reply::error(400, &format!("body: is not whole gzip, as Content-Encoding says: {why}"));
    let mut text = Vec::new();
    let mut input = Input { rest: body, allowed: SLACK_BYTES };
    for _ in 0..MEMBERS_MAX {
        let mut member = GzDecoder::new(&mut input);
        loop {
            let step = member.by_ref().take(STEP_BYTES).read_to_end(&mut text);
            let read = step.map_err(|error| bad(&error.to_string()))?;
            if text.len() > bytes_max {
                return Err(Reply::error(
                    413,
                    &format!("body: longer than {bytes_max} bytes once decompressed, the limit"),
                ));
            }
            if read == 0 {
                break;
            }
            member.get_mut().allowed += read;
        }
        if input.rest.is_empty() {
            return Ok(text);
        }
    }
    Err(bad(&format!("it has more than {MEMBERS_MAX} members, the limit")))
}

/// What is left of a body, and how much of it may be taken.
struct Input<'a> {
    rest: &'a [u8],
    allowed: usize,
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.allowed == 0 && !self.rest.is_empty() {
            return Err(io::Error::other(TOO_LITTLE));
        }
        Ok(&self.rest[..self.rest.len().min(self.allowed)])
    }

    fn consume(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.allowed -= bytes;
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use flate2::write::DeflateEncoder;

    use super::*;

    const MAX: usize = 8 << 20;

    fn gzip(text: &[u8], level: u32) -> Vec<u8> {
        compress(text, Compression::new(level))
    }

    #[test]
    fn a_client_says_whether_it_takes_gzip() {
        for yes in ["gzip", "gzip, deflate, br", "br;q=1.0, GZIP;q=0.8", "*", "identity;q=0.5, *;q=0.1", "gzip ; q=1"] {
            assert!(is_accepted(yes), "{yes}");
        }
        for no in ["", "identity", "br", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "gzip;q=x", "xgzip", "deflate"] {
            assert!(!is_accepted(no), "{no}");
        }
    }

    #[test]
    fn only_an_answer_that_is_long_enough_is_compressed() {
        for (length, is_taken, is_compressed) in [(1023, true, false), (1024, true, true), (1 << 20, false, false)] {
            let reply = compress_reply(Reply::new(200, vec![b'a'; length]), is_taken);
            assert!(reply.headers.contains(&("Vary", "Accept-Encoding".into())));
            assert_eq!(reply.headers.contains(&("Content-Encoding", "gzip".into())), is_compressed, "{length}");
            assert_eq!(reply.body.len() < length, is_compressed, "{length}");
        }
    }

    fn refusal(body: &[u8]) -> (u16, String) {
        let reply = decompress(body, MAX).unwrap_err();
        (reply.status, String::from_utf8(reply.body).unwrap())
    }

    #[test]
    fn what_somebody_has_compressed_is_text_again() {
        // Numbers without an order, which a compressor makes no shorter, and none at all.
        let mut state = 1_u64;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(1 << 20)
        .collect();
        for text in [&random[..], &vec![b'a'; MAX], b"perf,host=h cpu=1", b""] {
            for level in [0, 1, 9] {
                assert_eq!(decompress(&gzip(text, level), MAX).unwrap(), text, "{} bytes at {level}", text.len());
            }
        }
        let members = [gzip(&random, 1), gzip(b"", 1), gzip(b"perf", 1)].concat();
        assert_eq!(decompress(&members, MAX).unwrap(), [&random[..], b"perf"].concat());
    }

    #[test]
    fn what_gives_nothing_is_not_worked_through() {
        let long = refusal(&gzip(&vec![b'a'; MAX + 1], 9));
        assert_eq!(long.0, 413);
        let half = gzip(b"perf,host=h cpu=1", 9);
        assert_eq!(refusal(&half[..half.len() - 4]).0, 400);
        // Members of nothing, and blocks of nothing in one.
        let (status, sentence) = refusal(&gzip(b"", 9).repeat(100_000));
        assert!(status == 400 && sentence.contains("more than 256 members"), "{sentence}");
        let mut blocks = DeflateEncoder::new(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], Compression::fast());
        for _ in 0..20_000 {
            blocks.flush().unwrap();
            blocks.get_mut().extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        }
        let (status, sentence) = refusal(&blocks.finish().unwrap());
        assert!(status == 400 && sentence.contains(TOO_LITTLE), "{sentence}");
    }
}
