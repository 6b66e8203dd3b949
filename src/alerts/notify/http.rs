//! How a target is asked over HTTP, and what its answer means.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::{Error, Timeout};

use super::{Outcome, Reason};
use crate::agent;
use crate::url::Url;

/// Longest time for a connection, and for a whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes that are read of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// The HTTP client of all targets. It follows no redirect: a target may hold a secret, which goes nowhere else.
pub struct Client {
    agent: ureq::Agent,
}

/// What came of one attempt.
pub(super) struct Attempt {
    /// What the target has answered, or why it has not.
    pub(super) said: String,
    pub(super) outcome: Outcome,
}

impl Client {
    /// A client that trusts the authorities in the file `ca`, or without one those of the web.
    ///
    /// # Errors
    /// When the file cannot be used; the sentence names it.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT));
        Ok(Self { agent: agent::new(config, ca, None)? })
    }

    /// Posts a body in JSON.
    pub(super) fn post(&self, url: &Url, key: Option<&str>, body: &Value) -> Attempt {
        let mut request = self.agent.post(url.to_request()).header("Content-Type", "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(authorization) = url.authorization() {
            request = request.header("Authorization", authorization);
        }
        self.attempt(request.send(body.to_string().as_bytes()))
    }

    /// Asks a URL.
    pub(super) fn get(&self, url: &Url) -> Attempt {
        let mut request = self.agent.get(url.to_request());
        if let Some(authorization) = url.authorization() {
            request = request.header("Authorization", authorization);
        }
        self.attempt(request.call())
    }

    fn attempt(&self, response: Result<ureq::http::Response<ureq::Body>, Error>) -> Attempt {
        let mut response = match response {
            Ok(response) => response,
            Err(error) => {
                let why = agent::explain(&self.agent, &error).replace("by --ca", "by --notify-ca");
                let (reason, may_have) = (Reason::Unanswered, may_have(&error));
                let outcome = Outcome::Later { why: why.clone(), reason, retry_after_ms: None, may_have };
                return Attempt { said: why, outcome };
            }
        };
        let status = response.status().as_u16();
        let header = response.headers().get("Retry-After").and_then(|value| value.to_str().ok());
        let header = header.and_then(|value| agent::parse_retry_after(value, SystemTime::now()));
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let body = body.unwrap_or_default();
        let said = format!("HTTP {status} {}", body.trim()).trim_end().to_owned();
        Attempt { outcome: outcome(status, header, &body, &said), said }
    }
}

/// What a status means: the one place that decides what is tried again.
///
/// | status | what is done |
/// |---|---|
/// | 2xx | it is delivered |
/// | 408, 425, 429, 5xx | it is tried again; after 504 the target may have it, behind a proxy that did not wait |
/// | any other | it is given up |
fn outcome(status: u16, header: Option<Duration>, body: &str, said: &str) -> Outcome {
    match status {
        200..=299 => Outcome::Delivered,
        408 | 425 | 429 | 500..=599 => {
            let wait = header.max(retry_after_of(body));
            let retry_after_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            let may_have = status == 504;
            Outcome::Later { why: said.to_owned(), reason: Reason::Busy, retry_after_ms, may_have }
        }
        300..=399 => Outcome::Refused(format!("{said}: redirects are not followed, name the URL where it leads")),
        _ => Outcome::Refused(said.to_owned()),
    }
}

/// The wait in seconds that a body asks for, as Discord's and Telegram's do.
fn retry_after_of(body: &str) -> Option<Duration> {
    let body: Value = serde_json::from_str(body).ok()?;
    let of_telegram = body["parameters"]["retry_after"].as_f64();
    Duration::try_from_secs_f64(of_telegram.or_else(|| body["retry_after"].as_f64())?).ok()
}

/// Whether a target may have taken a request that it did not answer.
fn may_have(error: &Error) -> bool {
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::BadUri(_)
        | Error::Timeout(Timeout::Resolve | Timeout::Connect) => false,
        #[cfg(feature = "tls")]
        Error::Rustls(_) => false,
        Error::Io(error) => !matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
        ),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_one_meaning() {
        let later = |status, header: Option<u64>, body| match outcome(status, header.map(Duration::from_secs), body, "")
        {
            Outcome::Later { retry_after_ms, may_have, .. } => (retry_after_ms, may_have),
            other => panic!("{status}: {other:?}"),
        };
        for status in [200, 201, 202, 204] {
            assert_eq!(outcome(status, None, "", ""), Outcome::Delivered);
        }
        for status in [408, 425, 429, 500, 502, 503, 507, 599] {
            assert_eq!(later(status, None, ""), (None, false), "{status}");
        }
        assert_eq!(later(504, None, "<html>"), (None, true));
        for status in [301, 307, 400, 401, 403, 404, 410, 413, 422, 451] {
            assert!(matches!(outcome(status, Some(Duration::ZERO), "", ""), Outcome::Refused(_)), "{status}");
        }
        assert_eq!(later(429, Some(30), "").0, Some(30_000));
        assert_eq!(later(429, None, r#"{"message":"You are being rate limited.","retry_after":0.65}"#).0, Some(650));
        let telegram = r#"{"ok":false,"error_code":429,"parameters":{"retry_after":5}}"#;
        assert_eq!(later(429, Some(3), telegram).0, Some(5000));
        for odd in [r#"{"retry_after":-1}"#, r#"{"retry_after":1e300}"#, r#"{"retry_after":"5"}"#, "[]", "5"] {
            assert_eq!(later(429, None, odd).0, None, "{odd}");
        }
    }
}
