//! The monitor's HTTP client: how it connects, and what the answer to a sample means.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use ureq::typestate::WithBody;

use super::Credentials;
use crate::reload::Reloaded;
use crate::sanitize;
use crate::url::Url;
use crate::{agent, auth};

/// Longest time for a connection, and for a whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of each of a connection's two buffers. Requests and answers fit; longer ones go through it in parts.
const BUFFER_BYTES: usize = 16 << 10;
/// Most bytes read of an answer; the receiver's own are far shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Longest wait that a receiver's `Retry-After` is honoured for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Longest part of an answer in characters that the log shows.
const SENTENCE_CHARS_MAX: usize = 500;

/// What came of one attempt to publish a sample.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// The receiver has taken it, all but what it names.
    Published(NotKept),
    /// The receiver will never take it: the sample is given up.
    Refused(String),
    /// The receiver does not take it now, and may have said when it will.
    Later(String, Option<Duration>),
    /// The receiver has no room for it: it is tried once more.
    NoRoom(String, Option<Duration>),
    /// The connection has ended without an answer: the receiver may have it or not.
    Unanswered(String),
}

/// What a receiver did not keep of a sample that it took.
#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct NotKept {
    /// How many values it stored, if it says so.
    pub(super) stored: Option<u64>,
    /// How many values were too old for every summary.
    pub(super) expired: u64,
    /// How many values belong to series above the receiver's limit.
    pub(super) refused: u64,
}

impl NotKept {
    /// Whether nothing of the sample was kept. A sample that was stored before is kept.
    pub(super) fn is_all(&self) -> bool {
        self.stored == Some(0) && (self.expired > 0 || self.refused > 0)
    }
}

/// What a status says about a sample: the one place that decides what is tried again.
///
/// | status | what the monitor does |
/// |---|---|
/// | 2xx | the sample is done |
/// | 3xx, 5xx | waits and tries again: a proxy, or a receiver that is starting, stopping or short of something |
/// | 401, 407 | waits, with a new token where a receiver gives them |
/// | 408, 425 | waits: too slow or too early this time |
/// | 422 | waits: the epoch is ahead of the receiver's clock, which may be behind |
/// | 429 | tries once more: the receiver has no room for new series |
/// | any other | gives the sample up: the receiver will not change its mind |
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Done,
    TryAgain,
    TryOnceMore,
    GiveUp,
}

impl Verdict {
    fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Done,
            300..=399 | 401 | 407 | 408 | 422 | 425 | 500..=599 => Self::TryAgain,
            429 => Self::TryOnceMore,
            _ => Self::GiveUp,
        }
    }
}

/// The client, made again when the files of its certificates change.
pub(super) type SharedAgent = Arc<Reloaded<ureq::Agent>>;

/// Makes the client, with what it trusts and shows over HTTPS.
///
/// # Errors
/// When a file cannot be used, or the key is not the certificate's; the sentence names the files.
pub(super) fn shared_agent(credentials: &Credentials) -> Result<SharedAgent, String> {
    let Credentials { ca, certificate, key, .. } = credentials.clone();
    let files = [&ca, &certificate, &key].into_iter().flatten().cloned().collect();
    let make = move || {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES);
        agent::new(config, ca.as_deref(), certificate.as_deref().zip(key.as_deref()))
    };
    Reloaded::new(files, make).map(Arc::new)
}

/// Why there is no answer.
pub(super) struct NoAnswer {
    pub(super) details: String,
    is_timeout: bool,
}

impl NoAnswer {
    /// What it means for a sample.
    pub(super) fn outcome(self) -> Outcome {
        if self.is_timeout { Outcome::Later(self.details, None) } else { Outcome::Unanswered(self.details) }
    }
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The body, or why it could not be read.
    pub(super) body: Result<String, String>,
    retry_after: Option<Duration>,
}

/// Posts a body. Without a `bearer` token, user and password of the URL are shown.
///
/// # Errors
/// Why there is no answer.
pub(super) fn post(
    agent: &ureq::Agent,
    url: &Url,
    bearer: Option<&str>,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, NoAnswer> {
    let mut request = agent.post(url.to_request());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let authorization = bearer.map(|token| format!("Bearer {token}")).or_else(|| url.authorization());
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    send(agent, request, body)
}

fn send(agent: &ureq::Agent, request: ureq::RequestBuilder<WithBody>, body: &[u8]) -> Result<Answer, NoAnswer> {
    let explained = |error: &ureq::Error| sanitize::message(&agent::explain(agent, error), SENTENCE_CHARS_MAX);
    let mut response = match request.send(body) {
        Ok(response) => response,
        Err(error) => {
            let is_timeout = matches!(error, ureq::Error::Timeout(_));
            return Err(NoAnswer { details: explained(&error), is_timeout });
        }
    };
    let retry_after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|value| agent::parse_retry_after(value, SystemTime::now()));
    let retry_after = retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    Ok(Answer { status, body: body.map_err(|error| explained(&error)), retry_after })
}

/// What a receiver says of a token that it gives (RFC 6749, 5.1).
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: u64,
}

impl Answer {
    /// The token of an answer to `POST /api/token`, and how long it lives; `None` where none is needed.
    pub(super) fn token(&self) -> Result<Option<(Arc<str>, Duration)>, String> {
        match (self.status, &self.body) {
            (200, Ok(body)) => {
                let TokenResponse { access_token, expires_in } = serde_json::from_str(body)
                    .map_err(|_| "the answer has no access_token and expires_in".to_owned())?;
                auth::check_token(&access_token).map_err(|why| format!("the access_token {why}"))?;
                Ok(Some((Arc::from(access_token), Duration::from_secs(expires_in))))
            }
            (404, _) => Ok(None),
            _ => Err(self.details()),
        }
    }

    /// What the answer to a sample means.
    pub(super) fn outcome(&self) -> Outcome {
        match (Verdict::of(self.status), &self.body) {
            (Verdict::Done, Ok(body)) => Outcome::Published(serde_json::from_str(body).unwrap_or_default()),
            (Verdict::Done, Err(_)) => Outcome::Unanswered(self.details()),
            (Verdict::TryAgain, _) => Outcome::Later(self.details(), self.retry_after),
            (Verdict::TryOnceMore, _) => Outcome::NoRoom(self.details(), self.retry_after),
            (Verdict::GiveUp, _) => Outcome::Refused(self.details()),
        }
    }

    /// The status, and the sentence of an error in JSON. Another body is not shown: a proxy's may be anything.
    pub(super) fn details(&self) -> String {
        let status = self.status;
        let body = match &self.body {
            Ok(body) => serde_json::from_str::<serde_json::Value>(body).unwrap_or_default(),
            Err(error) => return format!("HTTP {status}, and its body: {error}"),
        };
        match body["error"].as_str() {
            Some(sentence) => format!("HTTP {status}: {}", sanitize::message(sentence, SENTENCE_CHARS_MAX)),
            None => format!("HTTP {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: Ok(body.to_owned()), retry_after: None }
    }

    #[test]
    fn each_status_has_one_verdict() {
        for (verdict, statuses) in [
            (Verdict::Done, &[200, 204, 299][..]),
            (Verdict::TryAgain, &[301, 307, 401, 407, 408, 422, 425, 500, 502, 503, 504, 599]),
            (Verdict::TryOnceMore, &[429]),
            (Verdict::GiveUp, &[101, 400, 403, 404, 405, 411, 413, 415, 431, 600]),
        ] {
            statuses.iter().for_each(|status| assert_eq!(Verdict::of(*status), verdict, "{status}"));
        }
    }

    #[test]
    fn what_was_not_kept_is_counted() {
        let not_kept = |body| match answer(200, body).outcome() {
            Outcome::Published(not_kept) => (not_kept.expired, not_kept.refused, not_kept.is_all()),
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(not_kept(r#"{"stored":0,"expired":7}"#), (7, 0, true));
        assert_eq!(not_kept(r#"{"stored":0,"expired":0,"refused":2}"#), (0, 2, true));
        assert_eq!(not_kept(r#"{"stored":1,"expired":2,"refused":3}"#), (2, 3, false));
        assert_eq!(not_kept(r#"{"stored":0,"expired":0}"#), (0, 0, false), "a sample without values");
        assert_eq!(not_kept(r#"{"stored":0,"duplicate":true}"#), (0, 0, false));
        for other in ["", "OK", "[]", r#"{"expired":"some"}"#, r#"{"expired":-1}"#] {
            assert_eq!(not_kept(other), (0, 0, false), "{other}");
        }
    }

    #[test]
    fn foreign_text_is_harmless_and_short() {
        let Outcome::Refused(details) = answer(400, "{\"error\":\"a\\u001b[2Jb\\u202e\\nc\"}").outcome() else {
            panic!()
        };
        assert_eq!(details, "HTTP 400: a\u{fffd}[2Jb\u{fffd} c");
        let long = answer(503, &format!("{{\"error\":\"{}\"}}", "ü".repeat(10_000))).details();
        assert!(long.chars().count() < 600, "{long}");
        assert_eq!(answer(502, "<html>\u{1b}[2J").details(), "HTTP 502");
    }
}
