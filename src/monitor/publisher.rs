//! Publishes what waits for one destination: strictly in order, one sample at a time, again where that may help.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::destination::Destination;
use super::http::{self, NotKept, Outcome, SharedAgent};
use super::retry_queue::RetryQueue;
use super::token::TokenSource;
use super::{Options, QueuedSample, random, udp};
use crate::auth::TOKEN_LINE;
use crate::clock::unix_now_sec;
use crate::sample::line::{Precision, encode_line, encode_tags};
use crate::sample::{AHEAD_SEC_MAX, Sample, TAGS_HEADER, Tags, encode_values};
use crate::trouble::{Due, Trouble};
use crate::url::Url;

/// First and longest wait before a sample is tried again; the wait doubles in between.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Pause between samples that have waited: a receiver that is back gets up to 250 a second from each monitor.
const REPLAY_PAUSE: Duration = Duration::from_millis(4);
/// Longest wait for the first token.
const TOKEN_WITHIN: Duration = Duration::from_secs(5);
/// How often the log says what receivers did not keep.
const NOT_KEPT_EVERY: Duration = Duration::from_secs(60);
/// Where the log has what changes: how often it counts samples.
const COUNTED_EVERY: Duration = Duration::from_secs(3600);
/// How often the tags of this host go with a sample, for a receiver that has forgotten the host, or never heard them.
const TAGS_EVERY: Duration = Duration::from_secs(60);
/// The status of a sample whose epoch is ahead of the receiver's clock.
const AHEAD: u16 = 422;

/// Publishes the samples of one queue to its destination.
pub(super) struct Publisher {
    destination: Destination,
    transport: Transport,
    token: Arc<TokenSource>,
    tags: Option<Tags>,
    /// When the tags were published; `None` while that is due.
    tagged_at: Option<Instant>,
    not_kept: NotKeptLog,
    log: PublishLog,
}

/// What samples travel by.
enum Transport {
    Http(SharedAgent),
    Udp(udp::Sender),
    #[cfg(feature = "zeromq")]
    Zmq(super::zeromq::Sender),
}

impl Publisher {
    /// Makes ready what the destination's scheme needs. Nothing is sent yet. The log has a line for each sample, or for
    /// what changes.
    pub(super) fn new(
        destination: &Destination,
        agent: &SharedAgent,
        token: Arc<TokenSource>,
        options: &Options,
    ) -> io::Result<Self> {
        let transport = match destination {
            Destination::Api(_) | Destination::Lines { .. } => Transport::Http(agent.clone()),
            Destination::Udp(url) => Transport::Udp(udp::Sender::new(url)),
            #[cfg(feature = "zeromq")]
            Destination::Zmq(url) => {
                let failed = |error| io::Error::other(format!("cannot publish to {destination}: {error}"));
                Transport::Zmq(super::zeromq::Sender::new(url).map_err(failed)?)
            }
            #[cfg(not(feature = "zeromq"))]
            Destination::Zmq(_) => return Err(io::Error::other(crate::features::WITHOUT_ZEROMQ)),
        };
        let log = PublishLog::new(options.logs_each, Instant::now());
        let (destination, tags, not_kept) = (destination.clone(), options.tags.clone(), NotKeptLog::default());
        Ok(Self { destination, transport, token, tags, tagged_at: None, not_kept, log })
    }

    /// Publishes until the queue is closed, and either empty or not taken.
    pub(super) fn run(&mut self, queue: &RetryQueue) {
        let (mut retry, mut kept_connection, mut had_no_room) = (Retry::default(), false, false);
        while let Some(queued) = queue.front() {
            let url = self.destination.url_of(&queued.sample.host, queued.sample.epoch);
            // The HTTP client panics where it can have no thread to look a name up.
            let published = catch_unwind(AssertUnwindSafe(|| self.publish(&queued, &url)));
            let published = published.unwrap_or_else(|_| Outcome::Later("a panic".to_owned(), None));
            // After any trouble it may be another receiver.
            let is_published = matches!(published, Outcome::Published(_));
            self.tagged_at = if is_published { self.tagged_at.or_else(|| Some(Instant::now())) } else { None };
            let again = match published {
                Outcome::Published(not_kept) => {
                    if !not_kept.is_all()
                        && let Some(line) = self.log.published(Instant::now(), &url, &self.destination)
                    {
                        log::info!("{line}");
                    }
                    self.not_kept.add(not_kept, &self.destination);
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
                    self.log_failure(&url, &details, queue);
                    None
                }
                Outcome::Later(details, after) => Some((details, after)),
                Outcome::Unanswered(details) => Some((details, None)),
            };
            if let Some((details, after)) = again {
                self.log_failure(&url, &details, queue);
                if queue.closes_within(retry.next_wait(random()).max(after.unwrap_or_default())) {
                    break;
                }
                continue;
            }
            (retry, kept_connection, had_no_room) = (Retry::default(), true, false);
            if queue.done(&queued) > 0 {
                queue.closes_within(REPLAY_PAUSE);
            }
        }
        self.not_kept.log(&self.destination);
    }

    fn log_failure(&mut self, url: &Url, details: &str, queue: &RetryQueue) {
        if let Some(line) = self.log.failed(Instant::now(), url, details, queue.waiting()) {
            log::error!("{line}");
        }
    }

    fn publish(&mut self, queued: &QueuedSample, url: &Url) -> Outcome {
        let sample = &queued.sample;
        if self.tagged_at.is_some_and(|at| at.elapsed() >= TAGS_EVERY) {
            self.tagged_at = None;
        }
        let tags = self.tags.as_ref().filter(|_| self.tagged_at.is_none());
        let token = match self.token.current(TOKEN_WITHIN) {
            Ok(token) => token,
            Err(details) => return Outcome::Later(details, None),
        };
        let agent = match &mut self.transport {
            Transport::Http(agent) => agent.current(),
            Transport::Udp(sender) => {
                let datagram = message(sample, tags, token.as_deref());
                if datagram.len() > udp::DATAGRAM_BYTES_MAX {
                    return Outcome::Refused(format!(
                        "longer than {} bytes, a datagram's limit",
                        udp::DATAGRAM_BYTES_MAX
                    ));
                }
                return sent(sender.send(datagram.as_bytes()));
            }
            #[cfg(feature = "zeromq")]
            Transport::Zmq(sender) => return sent(sender.send(message(sample, tags, token.as_deref()).as_bytes())),
        };
        let (content_type, body) = match &self.destination {
            Destination::Lines { precision, .. } => {
                ("text/plain; charset=utf-8", (lines(sample, tags, *precision) + "\n").into_bytes())
            }
            _ => ("application/json", encode_values(&sample.values)),
        };
        let is_lines = matches!(self.destination, Destination::Lines { .. });
        let tags = tags.filter(|_| !is_lines).map(Tags::to_header);
        let headers = [("Content-Type", content_type), ("Idempotency-Key", &queued.key)];
        let headers: Vec<_> = headers.into_iter().chain(tags.as_deref().map(|tags| (TAGS_HEADER, tags))).collect();
        let answer = match http::post(&agent, url, token.as_deref(), &headers, &body) {
            Ok(answer) => answer,
            Err(error) => return error.outcome(),
        };
        if answer.status == 401 {
            self.token.refused(token.as_ref());
        }
        // This host's own clock was set back since: no receiver's clock will ever catch up in time.
        if answer.status == AHEAD && sample.epoch > unix_now_sec().saturating_add(AHEAD_SEC_MAX) {
            return Outcome::Refused(format!("{}; and ahead of this host's own clock", answer.details()));
        }
        answer.outcome()
    }
}

/// What the log says of the samples of a destination: a line for each, or what changes.
struct PublishLog {
    logs_each: bool,
    trouble: Trouble,
    /// Samples that were published since the last line about them.
    published: u64,
    counted_since: Instant,
}

impl PublishLog {
    fn new(logs_each: bool, now: Instant) -> Self {
        Self { logs_each, trouble: Trouble::default(), published: 0, counted_since: now }
    }

    /// The line that is due when a sample was published, if one is.
    fn published(&mut self, now: Instant, url: &Url, destination: &Destination) -> Option<String> {
        self.published += 1;
        if self.logs_each {
            return Some(format!("Publish was successful to {url}"));
        }
        if let Some(how_long) = self.trouble.ended(now) {
            return Some(format!("Publish is successful again to {destination}, {how_long}"));
        }
        if now.duration_since(self.counted_since) < COUNTED_EVERY {
            return None;
        }
        self.counted_since = now;
        let published = std::mem::take(&mut self.published);
        Some(format!("Publish was successful to {destination}, {published} samples in the last hour"))
    }

    /// The line that is due when publishing has failed, if one is. `waiting` samples have not left yet.
    fn failed(&mut self, now: Instant, url: &Url, details: &str, waiting: usize) -> Option<String> {
        let line = format!("Publish failed to {url}, details: {details}");
        if self.logs_each {
            return Some(line);
        }
        match self.trouble.failed(now) {
            Due::First => Some(line),
            Due::GoesOn => Some(format!("{line}; {waiting} samples wait")),
            Due::No => None,
        }
    }
}

/// What came of a transport without answers: success means that the sample has left.
fn sent(sent: Result<(), String>) -> Outcome {
    sent.map_or_else(|details| Outcome::Later(details, None), |()| Outcome::Published(NotKept::default()))
}

/// A sample as a line, and behind it one with the tags of its host, if they are to go with it.
fn lines(sample: &Sample<'_>, tags: Option<&Tags>, precision: Precision) -> String {
    let line = encode_line(sample, precision);
    tags.map_or_else(|| line.clone(), |tags| format!("{line}\n{}", encode_tags(&sample.host, tags)))
}

/// A sample as a datagram or a message: its lines, and before them one with the token, if there is one.
fn message(sample: &Sample<'_>, tags: Option<&Tags>, token: Option<&str>) -> String {
    let lines = lines(sample, tags, Precision::Nanoseconds);
    token.map_or_else(|| lines.clone(), |token| format!("{TOKEN_LINE}{token}\n{lines}"))
}

/// Counts what a receiver did not keep, and says so in the log once a minute.
#[derive(Default)]
struct NotKeptLog {
    pending: NotKept,
    logged_at: Option<Instant>,
}

impl NotKeptLog {
    fn add(&mut self, not_kept: NotKept, destination: &Destination) {
        self.pending.expired = self.pending.expired.saturating_add(not_kept.expired);
        self.pending.refused = self.pending.refused.saturating_add(not_kept.refused);
        if self.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= NOT_KEPT_EVERY) {
            self.log(destination);
        }
    }

    fn log(&mut self, destination: &Destination) {
        if let Some(reasons) = reasons(std::mem::take(&mut self.pending)) {
            self.logged_at = Some(Instant::now());
            log::warn!("Values not kept by {destination}: {reasons}");
        }
    }
}

/// How many values were not kept for which reason, if any.
fn reasons(NotKept { expired, refused, .. }: NotKept) -> Option<String> {
    let expired = (expired > 0).then(|| {
        format!("{expired} too old for every summary (is this host's clock behind, or the receiver's ahead?)")
    });
    let refused = (refused > 0).then(|| format!("{refused} of series above the receiver's limit"));
    let reasons: Vec<String> = [expired, refused].into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// The wait before a sample is tried again.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    /// A quarter of a second, doubled each time up to five, and of that between half and all by chance, so that the
    /// monitors of a fleet do not come back at one moment.
    fn next_wait(&mut self, random: u64) -> Duration {
        let longest = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        self.failures += 1;
        let half_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) / 2;
        Duration::from_millis(half_ms + random % (half_ms + 1)).max(RETRY_FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_changes_has_trouble_once_a_minute_recovery_and_a_line_an_hour() {
        let start = Instant::now();
        let at = |sec| start + Duration::from_secs(sec);
        let destination = Destination::parse("http://r").unwrap();
        let url = destination.url_of("h", 7);
        let mut log = PublishLog::new(false, start);
        let lines: Vec<_> = (1..=3600).filter_map(|sec| log.published(at(sec), &url, &destination)).collect();
        assert_eq!(lines, ["Publish was successful to http://r/api/perf, 3600 samples in the last hour"]);
        let lines: Vec<_> = (3601..=3700).filter_map(|sec| log.failed(at(sec), &url, "gone", sec as usize)).collect();
        let first = "Publish failed to http://r/api/perf/h/7, details: gone";
        assert_eq!(lines, [first.to_owned(), format!("{first}; 3661 samples wait")]);
        let again = log.published(at(3701), &url, &destination).unwrap();
        assert_eq!(again, "Publish is successful again to http://r/api/perf, after 100 failures in 100 s");
        assert_eq!(log.published(at(3702), &url, &destination), None);
        let mut each = PublishLog::new(true, start);
        assert!((0..3).all(|sec| each.failed(at(sec), &url, "gone", 1).as_deref() == Some(first)));
        assert_eq!(each.published(at(4), &url, &destination).unwrap(), format!("Publish was successful to {url}"));
    }

    #[test]
    fn waits_grow_to_five_seconds_and_begin_again() {
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let mut retry = Retry::default();
            let waits: Vec<Duration> = (0..40).map(|_| retry.next_wait(random)).collect();
            assert!(waits.iter().all(|wait| (RETRY_FIRST..=RETRY_LONGEST).contains(wait)), "{waits:?}");
            assert!(waits[10] >= RETRY_LONGEST / 2);
        }
    }

    #[test]
    fn reasons_name_what_there_is() {
        let not_kept = |expired, refused| NotKept { expired, refused, ..NotKept::default() };
        assert_eq!(reasons(not_kept(0, 0)), None);
        let both = reasons(not_kept(3, 2)).unwrap();
        assert!(both.starts_with("3 too old") && both.contains("; 2 of series"), "{both}");
        assert_eq!(reasons(not_kept(0, 1)).unwrap(), "1 of series above the receiver's limit");
    }
}
