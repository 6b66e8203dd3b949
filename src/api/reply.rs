//! An answer, before a server writes it to a connection.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::auth::AuthError;
use crate::ingest::IngestError;
use crate::store::StoreError;

/// Bytes that most answers fit in.
const JSON_BYTES_FEW: usize = 128;

/// An answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers beyond those of every answer: name and value. The body is JSON where `Content-Type` is not among them.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body; empty for a 204 and a 304, and where [`Reply::content_length`] is not known.
    pub body: Vec<u8>,
    /// Whether the body was not built, since the request was a HEAD.
    is_head: bool,
}

impl Reply {
    /// An answer with a body.
    #[must_use]
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, is_head: false }
    }

    /// An error with one sentence for people.
    #[must_use]
    pub fn error(status: u16, sentence: &str) -> Self {
        Self::json(status, &json!({ "error": sentence }))
    }

    /// An error in the shape of Prometheus.
    pub(super) fn prometheus_error(status: u16, kind: &str, sentence: &str) -> Self {
        Self::json(status, &json!({ "status": "error", "errorType": kind, "error": sentence }))
    }

    /// The same; to a request of Prometheus's API an error has Prometheus's shape, with the closest of its kinds.
    #[must_use]
    pub fn shaped(self, is_prometheus: bool) -> Self {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sentence {
            error: String,
        }
        let sentence = Some(&self.body).filter(|_| is_prometheus && self.status >= 400);
        let Some(Ok(Sentence { error })) = sentence.map(|body| serde_json::from_slice(body)) else { return self };
        let kind = match self.status {
            404 => "not_found",
            408 => "timeout",
            500 => "internal",
            503 => "unavailable",
            _ => "bad_data",
        };
        Self { headers: self.headers, ..Self::prometheus_error(self.status, kind, &error) }
    }

    /// The same with a further header.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A 200 to a HEAD, whose body is not built: a long one would cost what it costs to a GET.
    pub(super) fn head() -> Self {
        Self { is_head: true, ..Self::new(200, Vec::new()) }
    }

    /// A 204.
    pub(super) fn no_content() -> Self {
        Self::new(204, Vec::new())
    }

    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        let mut text = JsonText(Vec::with_capacity(JSON_BYTES_FEW));
        match serde_json::to_writer(&mut text, body) {
            Ok(()) => Self::new(status, text.0),
            Err(error) => Self::error(500, &format!("the answer could not be written as JSON: {error}")),
        }
    }

    /// The value of `Content-Length`. `None` where the answer has none: a 204, a 304, and a HEAD whose body was not built.
    #[must_use]
    pub fn content_length(&self) -> Option<usize> {
        let has_none = matches!(self.status, 204 | 304) || self.is_head;
        (!has_none).then_some(self.body.len())
    }
}

/// Where JSON is written. Most pieces of it are one byte of punctuation. Where the compiler is asked for small code, each
/// would cost a call of `memcpy`, and all of them a quarter of the time that a long answer takes.
struct JsonText(Vec<u8>);

impl io::Write for JsonText {
    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let [byte] = bytes {
            self.0.push(*byte)
        } else {
            self.0.extend_from_slice(bytes)
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<&AuthError> for Reply {
    /// The refusal of a request that is not authorized, with its challenge.
    fn from(error: &AuthError) -> Self {
        let (status, challenge) = error.status();
        Self::error(status, &error.to_string()).with("WWW-Authenticate", challenge)
    }
}

impl From<&StoreError> for Reply {
    /// The answer where the store cannot be read.
    fn from(error: &StoreError) -> Self {
        Self::error(503, &error.to_string()).with("Retry-After", "1")
    }
}

impl From<&IngestError> for Reply {
    /// The refusal of a sample of which nothing was stored.
    fn from(error: &IngestError) -> Self {
        let status = match error {
            IngestError::Untrusted(error) => return error.into(),
            IngestError::Malformed(_) => 400,
            IngestError::Ahead { .. } => 422,
            IngestError::Store(_) => 503,
            IngestError::SeriesLimit { .. } => 429,
        };
        Self::error(status, &error.to_string())
    }
}
