//! The part of InfluxDB's API that its clients need: `/write` of 1.x and `/api/v2/write` of 2.x for lines, and enough of
//! `/ping` and `/query` for them to start.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::json;

use super::form::{decode_form, pairs};
use super::gzip;
use super::reply::Reply;
use super::request::RequestHead;
use crate::auth::Principal;
use crate::ingest::{Counts, Ingest, IngestError, LineOptions};
use crate::sample::OwnedKey;
use crate::sample::line::{self, LINES_BYTES_MAX, LINES_MAX, Precision};
use crate::store::{RecordOutcome, StoreError};

/// Most lines whose refusal an answer explains; the rest it counts.
const EXPLAINED_MAX: usize = 100;

/// Clients look for this header to know that they speak to InfluxDB; the version is that of the protocol.
const VERSION_HEADER: (&str, &str) = ("X-Influxdb-Version", "1.8.10");

/// A request to store lines, as far as its head goes.
#[derive(Debug)]
pub(super) struct Write {
    precision: Precision,
    key: Option<OwnedKey>,
    is_gzip: bool,
}

/// A line of which something was not stored.
#[derive(Debug, Serialize)]
struct RefusedLine {
    line: usize,
    error: String,
}

/// The outcome of the lines of a body.
#[derive(Debug, Default)]
struct Written {
    counts: Counts,
    /// Lines that the cap on series has refused.
    capped: usize,
    /// Lines whose times are ahead of the receiver's clock, which may be behind.
    ahead: usize,
    /// Lines of hosts that the principal may not submit for.
    untrusted: usize,
    /// The status and the challenge of the lines that came without a good token.
    challenge: Option<(u16, &'static str)>,
    /// How often something of a line was not stored.
    refused: usize,
    /// The first of those, by the numbers of their lines; at most [`EXPLAINED_MAX`].
    explained: Vec<RefusedLine>,
    /// Why the store could not take some of them, if so.
    store_error: Option<StoreError>,
}

impl Write {
    /// Whether the body is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.is_gzip
    }

    /// Reads the head of a write. What else InfluxDB knows in a query, such as the name of a database, means nothing
    /// here and is passed over.
    pub(super) fn parse(head: &RequestHead<'_>, query: &str, client: Option<IpAddr>) -> Result<Self, Reply> {
        let bad = |sentence: String| Reply::error(400, &sentence);
        let precision = pairs(query).find(|(name, _)| *name == "precision").map_or("", |(_, value)| value);
        let is_gzip = match head.content_encoding {
            None => false,
            Some(encoding) if encoding.eq_ignore_ascii_case("identity") => false,
            Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => true,
            Some(_) => return Err(Reply::error(415, "header Content-Encoding: only gzip is known here")),
        };
        Ok(Self {
            precision: Precision::parse(&decode_form("precision", precision)?).map_err(bad)?,
            key: head.key(client).map_err(bad)?,
            is_gzip,
        })
    }

    /// Stores the lines of a body, and names those that were refused.
    pub(super) fn reply(&self, ingest: &Ingest, principal: &Principal, body: &[u8], now: u64) -> Reply {
        let text = match self.text(body) {
            Ok(text) => text,
            Err(reply) => return reply,
        };
        if line::has_more_than(&text, LINES_MAX) {
            return Reply::error(413, &format!("body: more than {LINES_MAX} lines, the limit of one"));
        }
        // The line of tags that a monitor sends with a sample is as good as sent once.
        let is_sample = |(_, line): &(usize, Result<&str, String>)| !matches!(line, Ok(line) if line::is_tags(line));
        if self.key.is_some() && line::lines(&text).filter(is_sample).nth(1).is_some() {
            return Reply::error(400, "header Idempotency-Key: marks a body of one line, and this one has more");
        }
        let mut written = Written::default();
        let key = self.key.as_ref().map(OwnedKey::borrowed);
        let options = LineOptions { precision: self.precision, received_at: now, key };
        let lines = line::lines(&text).map(|(number, line)| (number, principal, line));
        written.counts = ingest.submit_lines(lines, &options, now, |number, outcome| {
            if let Err(IngestError::Store(_)) = outcome {
                ingest.stats().refused_unavailable.add(1);
            }
            written.add(number, outcome);
        });
        written.reply()
    }

    /// The text of the body, decompressed.
    fn text<'b>(&self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Reply> {
        if !self.is_gzip {
            return Ok(Cow::Borrowed(body));
        }
        gzip::decompress(body, LINES_BYTES_MAX).map(Cow::Owned)
    }
}

impl Written {
    fn add(&mut self, line: usize, outcome: Result<RecordOutcome, IngestError>) {
        match outcome {
            Ok(RecordOutcome { expired, refused, refused_by, .. }) => {
                if expired > 0 {
                    self.refuse(line, &"time: so long ago that no summary holds it any more");
                }
                if let Some(limit) = refused_by {
                    let error = format!("label: {refused} of its labels are new series, past {}", limit.option());
                    self.refuse(line, &error);
                }
            }
            Err(IngestError::Store(error)) => self.store_error = Some(error),
            Err(error) => {
                self.capped += usize::from(matches!(error, IngestError::SeriesLimit { .. }));
                self.ahead += usize::from(matches!(error, IngestError::Ahead { .. }));
                if let IngestError::Untrusted(error) = &error {
                    self.untrusted += 1;
                    // A token that is not good at all says more than one for other hosts.
                    let status = error.status();
                    self.challenge = Some(self.challenge.map_or(status, |known| known.min(status)));
                }
                self.refuse(line, &error);
            }
        }
    }

    /// Counts a refusal, and keeps it if it is one of the first by line. Refusals come out of order: malformed lines are
    /// known before those that the store refuses.
    fn refuse(&mut self, line: usize, error: &dyn fmt::Display) {
        self.refused += 1;
        let place = self.explained.partition_point(|before| before.line <= line);
        if place < EXPLAINED_MAX {
            self.explained.truncate(EXPLAINED_MAX - 1);
            self.explained.insert(place, RefusedLine { line, error: error.to_string() });
        }
    }

    fn reply(self) -> Reply {
        let Counts { lines, stored } = self.counts;
        if let Some(error) = self.store_error {
            let before = format!("{stored} values of the {lines} lines may be stored all the same");
            return Reply::error(503, &format!("{error}; {before}"));
        }
        let Some(RefusedLine { line, error }) = self.explained.first() else { return Reply::no_content() };
        let count = self.refused;
        let challenge = self.challenge.filter(|_| stored == 0 && self.untrusted == lines);
        let status = match (challenge, stored) {
            (Some((status, _)), _) => status,
            (None, 0) if self.capped == count => 429,
            (None, 0) if self.ahead == count => 422,
            _ => 400,
        };
        let sentence = format!("{count} of {lines} lines were not stored whole; line {line}: {error}");
        let reply = Reply::json(status, &json!({ "error": sentence, "stored": stored, "lines": self.explained }));
        match challenge {
            Some((_, challenge)) => reply.with("WWW-Authenticate", challenge),
            None => reply,
        }
    }
}

/// The answer to `/ping`.
pub(super) fn ping() -> Reply {
    let (name, version) = VERSION_HEADER;
    Reply::no_content().with(name, version)
}

/// The statement in the query of a request to `/query`; without one it is in the body, as a form.
pub(super) fn statement(query: &str) -> Result<Option<String>, Reply> {
    pairs(query).find(|(name, _)| *name == "q").map(|(_, value)| decode_form("q", value)).transpose()
}

/// The answer to a statement: clients make sure of their database before they write, and any will do.
pub(super) fn query(statement_of_query: Option<&str>, body: &[u8]) -> Reply {
    let in_body = match std::str::from_utf8(body).map(statement) {
        Ok(Ok(in_body)) => in_body.unwrap_or_default(),
        Ok(Err(reply)) => return reply,
        Err(_) => return Reply::error(400, "body: a form is not UTF-8"),
    };
    let words: Vec<String> =
        statement_of_query.unwrap_or(&in_body).split_ascii_whitespace().map(str::to_ascii_uppercase).collect();
    let words: Vec<&str> = words.iter().map(|word| word.trim_end_matches(';')).collect();
    match words[..] {
        ["CREATE", "DATABASE", _, ..] => Reply::json(200, &json!({"results": [{"statement_id": 0}]})),
        ["SHOW", "DATABASES"] => Reply::json(
            200,
            &json!({"results": [{"statement_id": 0, "series": [
                {"name": "databases", "columns": ["name"], "values": [["lizm"]]}]}]}),
        ),
        _ => Reply::error(
            400,
            "q: only CREATE DATABASE and SHOW DATABASES are answered here; GET /api/perf/HOST has the summaries",
        ),
    }
}
