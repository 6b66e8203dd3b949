//! The HTTP client of an archive.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::Response;
use ureq::{Body, Error};

use super::target::{Kind, Target};
use super::{Answer, Outcome, bulk, lines};
use crate::agent;

/// Longest time for a connection, and for a whole request: a database that is busy takes its time for some thousand points.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes that are read of an answer: `_bulk` says a hundred of each point.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// A client of one archive. It follows no redirect: a password goes nowhere else.
pub(super) struct Client {
    agent: ureq::Agent,
    target: Target,
}

impl Client {
    /// A client that trusts the authorities in the file `ca`, or without one those of the web.
    ///
    /// # Errors
    /// When the file cannot be used; the sentence names it.
    pub(super) fn new(target: Target, ca: Option<&Path>) -> Result<Self, String> {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT));
        Ok(Self { agent: agent::new(config, ca, None)?, target })
    }

    /// Sends points, each as its kind of archive has it.
    pub(super) fn send(&self, points: &[String]) -> Outcome {
        let body = points.concat();
        let sent = match &self.target.kind {
            Kind::Lines { .. } => {
                self.post(&self.target.url.to_request(), "text/plain; charset=utf-8", &body).map(|a| lines::outcome(&a))
            }
            Kind::Bulk(_) => {
                let url = self.target.url.with_target(format!("{}/_bulk", self.target.url.path()), Some(bulk::QUERY));
                let answer = self.post(&url.to_request(), "application/x-ndjson", &body);
                answer.map(|answer| bulk::outcome(&answer, points.len()))
            }
        };
        sent.unwrap_or_else(|why| Outcome::Later { why, retry_after: None })
    }

    /// Puts what the archive needs before the first point. One that refuses it may do without.
    pub(super) fn prepare(&self) -> Outcome {
        let Kind::Bulk(name) = &self.target.kind else { return Outcome::Taken { refused: 0, why: None } };
        let path = format!("{}/_index_template/{name}", self.target.url.path());
        let request = self.agent.put(self.target.url.with_target(path, None).to_request());
        let put = self.target.authorization().and_then(|authorization| {
            let request = request.header("Content-Type", "application/json");
            let request = authorization.iter().fold(request, |request, value| request.header("Authorization", value));
            self.answer(request.send(bulk::template(name)))
        });
        match put {
            Ok(answer) if (200..=299).contains(&answer.status) => Outcome::Taken { refused: 0, why: None },
            Ok(answer) if matches!(answer.status, 400 | 403 | 404 | 405) => {
                Outcome::Taken { refused: 0, why: Some(format!("the index template is not put: {}", answer.said())) }
            }
            Ok(answer) => Outcome::Later { why: answer.said(), retry_after: answer.retry_after },
            Err(why) => Outcome::Later { why, retry_after: None },
        }
    }

    fn post(&self, url: &str, content_type: &str, body: &str) -> Result<Answer, String> {
        let mut request = self.agent.post(url).header("Content-Type", content_type).header("Content-Encoding", "gzip");
        if let Some(authorization) = self.target.authorization()? {
            request = request.header("Authorization", authorization);
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        let body = encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish());
        let body = body.map_err(|error| error.to_string())?;
        self.answer(request.send(&body))
    }

    fn answer(&self, response: Result<Response<Body>, Error>) -> Result<Answer, String> {
        let explain = |error: &Error| agent::explain(&self.agent, error).replace("by --ca", "by --archive-ca");
        let mut response = response.map_err(|error| explain(&error))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| agent::parse_retry_after(value, SystemTime::now()));
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let body = body.map_err(|error| explain(&error))?;
        Ok(Answer { status, retry_after, body })
    }
}
