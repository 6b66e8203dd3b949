//! The head of a request: where it ends, and what of it matters.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use crate::api::{ClientTransport, HEAD_BYTES_MAX, Reply, RequestHead};
use crate::http::{head_error, header};

/// Most header lines: browsers send twenty, proxies a few more.
const HEADERS_MAX: usize = 64;

/// What of a head matters.
pub(super) struct Head<'a> {
    pub(super) request: RequestHead<'a>,
    pub(super) length: Option<usize>,
    pub(super) is_chunked: bool,
    /// Whether the client waits for a 100.
    pub(super) expects: bool,
    pub(super) is_http_1_0: bool,
    /// The header `Connection`.
    pub(super) connection: Option<&'a str>,
}

/// Finds the end of the head or the trailers at the start of `bytes`. Where it has not come yet, all of them are searched
/// again with the next, 8 KiB at most. Every line ends in CRLF: parsers differ on whether LF alone ends one, and so on where
/// a request ends.
///
/// # Errors
/// The reply where they have no end, or a line another one.
pub(super) fn find_end(what: &str, bytes: &[u8]) -> Result<Option<usize>, Reply> {
    let bytes = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    for line_end in memchr::memchr_iter(b'\n', bytes) {
        if !bytes[..line_end].ends_with(b"\r") {
            return Err(Reply::error(400, &format!("{what}: a line ends in LF without CR")));
        }
        if bytes[..line_end].ends_with(b"\r\n\r") {
            return Ok(Some(line_end + 1));
        }
    }
    if bytes.len() == HEAD_BYTES_MAX {
        return Err(Reply::error(431, &format!("{what}: longer than {HEAD_BYTES_MAX} bytes, the limit")));
    }
    Ok(None)
}

/// The target of the head at the start of `bytes`, as far as it has come, for the answer to a head that is refused.
pub(super) fn target(bytes: &[u8]) -> &str {
    let target = bytes.splitn(3, |byte| *byte == b' ').nth(1);
    target.and_then(|target| std::str::from_utf8(target).ok()).unwrap_or_default()
}

/// Reads a whole head that came by `transport` from `peer`.
///
/// # Errors
/// The reply to a head that is refused whatever it asks for.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    transport: ClientTransport<'a>,
    peer: Option<IpAddr>,
) -> Result<Head<'a>, Reply> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Reply::error(400, "head: ends before its time")),
        Err(httparse::Error::Version) => {
            return Err(Reply::error(505, "head: only HTTP/1.0 and HTTP/1.1 are spoken here"));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Reply::error(431, &format!("head: more than {HEADERS_MAX} header lines, the limit")));
        }
        Err(error) => return Err(Reply::error(400, &format!("head: {error}"))),
    }
    // What is not UTF-8 is none of the values that mean anything here.
    let text = |value| std::str::from_utf8(value).unwrap_or("\u{fffd}");
    let pairs = || request.headers.iter().map(|header| (header.name, text(header.value)));
    let field = |name| header(pairs(), name);
    let is_http_1_0 = request.version == Some(0);
    if let Some(sentence) = head_error(pairs()) {
        return Err(Reply::error(400, sentence));
    }
    if !is_http_1_0 && field("Host").is_none() {
        return Err(Reply::error(400, "header Host: missing, and HTTP/1.1 needs it"));
    }
    let is_chunked = field("Transfer-Encoding").is_some();
    if is_chunked && is_http_1_0 {
        return Err(Reply::error(400, "header Transfer-Encoding: HTTP/1.0 knows none"));
    }
    let expects = field("Expect");
    if expects.is_some_and(|expects| !expects.eq_ignore_ascii_case("100-continue")) {
        return Err(Reply::error(417, "header Expect: only 100-continue is known here"));
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    Ok(Head {
        request: RequestHead::new(method, target, transport, peer, pairs()),
        length: field("Content-Length").map(|digits| digits.parse().unwrap_or(usize::MAX)),
        is_chunked,
        expects: expects.is_some(),
        is_http_1_0,
        connection: field("Connection"),
    })
}
