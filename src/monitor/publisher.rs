//! Publishes what waits for one destination: strictly in order, one sample at a time, again where that may help.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::destination::Destination;
use super::retry_queue::{Backlog, QueuedSample};
use super::token_refresher::Token;
use super::{Credentials, random};
use crate::auth;
use crate::reload::Reloaded;
use crate::sample::encode_values;
use crate::sample::line::encode_line;
use crate::url::Url;

/// First and longest wait before a sample is tried again; the wait doubles in between.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Pause between samples of a backlog: a receiver that is back gets up to 250 a second from each monitor.
const REPLAY_PAUSE: Duration = Duration::from_millis(4);
/// Longest time for a connection, and for a whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of each of a connection's two buffers. Requests and answers fit it; what is longer goes through it in parts.
const BUFFER_BYTES: usize = 16 << 10;
/// Longest wait for the first token.
const TOKEN_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes read of an answer; the receiver's own are far shorter.
pub(super) const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Longest sentence in characters that the log has of an answer.
const SENTENCE_CHARS_MAX: usize = 1000;
/// Longest wait that a receiver's `Retry-After` is honoured for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What came of one attempt to publish a sample.
#[derive(Debug)]
enum Outcome {
    Published,
    /// The receiver will never take it.
    Refused(String),
    /// The receiver did not take it now, and may have said when it will.
    Later(String, Option<Duration>),
    /// The receiver has no room for it: it is tried once more.
    NoRoom(String, Option<Duration>),
    /// The connection has ended without an answer: the receiver may have it or not.
    Unanswered(String),
}

/// The HTTP client, made anew when the files of its certificates change.
pub(super) type Http = Arc<Reloaded<ureq::Agent>>;

/// Publishes the samples of one backlog to its destination.
pub(super) struct Publisher {
    destination: Destination,
    way: Transport,
    token: Arc<Token>,
}

/// What samples travel by.
enum Transport {
    Http(Http),
    #[cfg(feature = "zeromq")]
    Zmq(super::zeromq::Sender),
}

impl Publisher {
    /// Makes ready what the destination's scheme needs. Nothing is sent yet.
    pub(super) fn new(destination: &Destination, http: &Http, token: Arc<Token>) -> io::Result<Self> {
        let way = match destination {
            Destination::Api(_) | Destination::Lines { .. } => Transport::Http(http.clone()),
            Destination::Udp(_) => return Err(io::Error::other("datagrams are not published from a backlog")),
            #[cfg(feature = "zeromq")]
            Destination::Zmq(url) => {
                let failed = |error| io::Error::other(format!("cannot publish to {destination}: {error}"));
                Transport::Zmq(super::zeromq::Sender::connect(url.authority()).map_err(failed)?)
            }
            #[cfg(not(feature = "zeromq"))]
            Destination::Zmq(_) => return Err(io::Error::other(crate::listeners::WITHOUT_ZEROMQ)),
        };
        Ok(Self { destination: destination.clone(), way, token })
    }

    pub(super) fn run(&mut self, backlog: &Backlog) {
        let (mut retry, mut kept_connection, mut had_no_room) = (Retry::default(), false, false);
        while let Some(sample) = backlog.front() {
            let url = self.destination.url_of(&sample.sample.host, sample.sample.epoch);
            // The HTTP client panics where it can have no thread to look a name up.
            let published = catch_unwind(AssertUnwindSafe(|| self.publish(&url, &sample)));
            let again = match published.unwrap_or_else(|_| Outcome::Later("a panic".to_owned(), None)) {
                Outcome::Published => {
                    log::info!("Publish was successful to {url}");
                    None
                }
                // A kept connection may have ended since the sample before: that alone is no failure.
                Outcome::Unanswered(_) if kept_connection => {
                    kept_connection = false;
                    continue;
                }
                Outcome::NoRoom(details, after) if !had_no_room => {
                    had_no_room = true;
                    Some((details, after))
                }
                Outcome::Refused(details) | Outcome::NoRoom(details, _) => {
                    log::error!("Publish failed to {url}, details: {details}");
                    None
                }
                Outcome::Later(details, after) => Some((details, after)),
                Outcome::Unanswered(details) => Some((details, None)),
            };
            if let Some((details, after)) = again {
                log::error!("Publish failed to {url}, details: {details}");
                if backlog.closes_within(retry.next_wait(random()).max(after.unwrap_or_default())) {
                    return;
                }
                continue;
            }
            (retry, kept_connection, had_no_room) = (Retry::default(), true, false);
            if backlog.done(&sample) > 0 {
                backlog.closes_within(REPLAY_PAUSE);
            }
        }
    }

    fn publish(&mut self, url: &Url, outgoing: &QueuedSample) -> Outcome {
        let sample = &outgoing.sample;
        let token = match self.token.current(TOKEN_WITHIN) {
            Ok(token) => token,
            Err(details) => return Outcome::Later(details, None),
        };
        let (http, content_type, body) = match (&mut self.way, &self.destination) {
            (Transport::Http(http), Destination::Lines { precision, .. }) => {
                let line = encode_line(sample, *precision) + "\n";
                (http, "text/plain; charset=utf-8", line.into_bytes())
            }
            (Transport::Http(http), _) => (http, "application/json", encode_values(&sample.values)),
            #[cfg(feature = "zeromq")]
            (Transport::Zmq(sender), _) => {
                let sent = sender.send(sample, token.as_deref());
                return sent.map_or_else(|details| Outcome::Later(details, None), |()| Outcome::Published);
            }
        };
        let mut request = http.current().post(url.to_request());
        request = request.header("Content-Type", content_type).header("Idempotency-Key", &outgoing.key);
        let bearer = token.as_ref().map(|token| format!("Bearer {token}"));
        if let Some(authorization) = bearer.or_else(|| url.authorization()) {
            request = request.header("Authorization", authorization);
        }
        let (status, outcome) = send(request, &body);
        if status == Some(401) {
            self.token.refused(token.as_ref());
        }
        outcome
    }
}

/// Makes the HTTP client, with what it trusts and shows over HTTPS.
///
/// # Errors
/// When a file cannot be used, or the key is not the certificate's; the sentence names the files.
pub(super) fn http(credentials: &Credentials) -> Result<Http, String> {
    let Credentials { ca, certificate, key, .. } = credentials.clone();
    let files = [&ca, &certificate, &key].into_iter().flatten().cloned().collect();
    let make = move || {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The environment's proxy is for the web; a receiver is a neighbour.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .user_agent(concat!("lizm/", env!("CARGO_PKG_VERSION")));
        let own = certificate.as_deref().zip(key.as_deref());
        let config = auth::with_tls(config, ca.as_deref(), own)?;
        Ok(config.build().into())
    };
    Reloaded::new(files, make).map(Arc::new)
}

/// Sends a request, and says what came of it, with the status of its answer if there is one.
fn send(request: ureq::RequestBuilder<ureq::typestate::WithBody>, body: &[u8]) -> (Option<u16>, Outcome) {
    let mut response = match request.send(body) {
        Ok(response) => response,
        Err(error @ ureq::Error::Timeout(_)) => return (None, Outcome::Later(error.to_string(), None)),
        Err(error) => return (None, Outcome::Unanswered(error.to_string())),
    };
    let status = response.status().as_u16();
    let after = response.headers().get("Retry-After").and_then(|after| after.to_str().ok());
    let after = after.and_then(|after| retry_after(after, SystemTime::now()));
    let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    // Of a refusal the status is enough: what a proxy says of it may be of any length, in any letters.
    let details = match &answer {
        Ok(answer) => format!("HTTP {status}{}", said(answer)),
        Err(error) => format!("HTTP {status}, and its body: {error}"),
    };
    let outcome = match status {
        200..=299 if answer.is_err() => Outcome::Unanswered(details),
        200..=299 => Outcome::Published,
        429 => Outcome::NoRoom(details, after),
        // What leads elsewhere is a proxy's, for a while or by mistake.
        300..=399 | 401 | 408 | 500..=599 => Outcome::Later(details, after),
        _ => Outcome::Refused(details),
    };
    (Some(status), outcome)
}

/// The sentence of an error's JSON, as the end of another.
pub(super) fn said(answer: &str) -> String {
    let answer = serde_json::from_str::<serde_json::Value>(answer).ok();
    let sentence = answer.as_ref().and_then(|answer| answer["error"].as_str());
    sentence.map_or(String::new(), |sentence| format!(": {sentence:.SENTENCE_CHARS_MAX$}"))
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The wait before a sample is tried again.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    /// From a quarter of a second, doubled each time up to five, and of that between half and all by chance, so that
    /// the monitors of a fleet do not come back at one moment.
    fn next_wait(&mut self, random: u64) -> Duration {
        let longest = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        self.failures += 1;
        let half_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) / 2;
        Duration::from_millis(half_ms + random % (half_ms + 1)).max(RETRY_FIRST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_465_001_814);
        let wait = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!((wait("0"), wait(" 17 "), wait("86400")), (Some(0), Some(17), Some(300)));
        let later = httpdate::fmt_http_date(now + Duration::from_secs(20));
        assert_eq!((wait(&later), wait("Sat, 01 Jan 2000 00:00:00 GMT"), wait("soon")), (Some(20), Some(0), None));
    }

    #[test]
    fn waits_grow_to_five_seconds_and_start_anew() {
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let mut retry = Retry::default();
            let waits: Vec<Duration> = (0..40).map(|_| retry.next_wait(random)).collect();
            assert!(waits.iter().all(|wait| (RETRY_FIRST..=RETRY_LONGEST).contains(wait)), "{waits:?}");
            assert!(waits[10] >= RETRY_LONGEST / 2);
        }
    }
}
