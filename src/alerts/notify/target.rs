//! A target: its kind, and how it is told.

use std::fmt;

use smol_str::SmolStr;

use super::http::{Attempt, Client};
use super::{Batch, Item, Outcome, Semantics, body, exec};
use crate::alerts::event::{AlertKey, Comparison, Event, Resolution, Severity};
use crate::features::WITHOUT_TLS;
use crate::sanitize;
use crate::url::Url;

/// Most alerts of one message in JSON, so that its body has some 500 KB at most.
const ALERTS_MAX: usize = 1000;
/// Most characters that are shown of an answer.
const ANSWER_CHARS_MAX: usize = 300;
/// What stands in the notification of a secret.
const HIDDEN: &str = "***";
/// Fewest bytes of what is hidden: what is shorter is no secret, and would hide half of each sentence.
const SECRET_BYTES_MIN: usize = 6;
const TELEGRAM: &str = "https://api.telegram.org";
const PAGERDUTY: &str = "https://events.pagerduty.com";
/// Programs that take a mail, and not JSON.
const MAILERS: [&str; 2] = ["sendmail", "msmtp"];

/// A target that is told alerts, as a line of the rules names it. `Debug` shows no secret.
#[derive(Clone)]
pub struct Target {
    name: SmolStr,
    kind: Kind,
    /// What no log and no answer may show.
    secrets: Vec<String>,
}

#[derive(Clone)]
enum Kind {
    Webhook(Url),
    Slack(Url),
    /// The server, and the topic.
    Ntfy(Url, String),
    /// The URL of the method, and the chat.
    Telegram(Url, String),
    /// The server, and the routing key.
    PagerDuty(Url, String),
    Alertmanager(Url),
    /// A program and its arguments.
    Exec(String, Vec<String>),
    Heartbeat(Url),
}

impl Target {
    /// The target of a line `target NAME: KIND ARGUMENT…`. `secrets` are what of it no log and no answer may show; those that
    /// the kind has by itself are added.
    ///
    /// # Errors
    /// What is wrong with the kind or an argument; the sentence shows no secret.
    pub fn new(name: &str, kind: &str, arguments: &[String], mut secrets: Vec<String>) -> Result<Self, String> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let form = |form: &str| Err(format!("a target of the kind {kind} is: {kind} {form}"));
        let (kind, own_secrets) = match (kind, &*arguments) {
            ("webhook", [given]) => of_url(Kind::Webhook, given)?,
            ("slack", [given]) => of_url(Kind::Slack, given)?,
            ("heartbeat", [given]) => of_url(Kind::Heartbeat, given)?,
            ("alertmanager", [given]) => {
                let below = |url: Url| {
                    url.with_target(format!("{}/api/v2/alerts", url.path().trim_end_matches('/')), url.query())
                };
                of_url(|url| Kind::Alertmanager(below(url)), given)?
            }
            ("webhook" | "slack" | "heartbeat" | "alertmanager", _) => return form("URL"),
            ("ntfy", [given]) => {
                let url = parse_url(given)?;
                let (above, topic) = url.path().trim_end_matches('/').rsplit_once('/').unwrap_or_default();
                if topic.is_empty() {
                    return Err("ntfy: the URL ends with no topic, such as https://ntfy.sh/TOPIC".to_owned());
                }
                let server = url.with_target(format!("{above}/"), url.query());
                let topic = crate::url::decode(topic).map_err(|why| format!("ntfy: the topic {why}"))?.into_owned();
                (Kind::Ntfy(server, topic), secrets_of(&url))
            }
            ("ntfy", _) => return form("URL"),
            ("telegram", [token, chat, rest @ ..]) if rest.len() <= 1 => {
                if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(&byte)) || token.is_empty()
                {
                    return Err("telegram: the token is not one such as 123456:ABC-def".to_owned());
                }
                let server = parse_url(rest.first().unwrap_or(&TELEGRAM))?;
                let path = format!("{}/bot{token}/sendMessage", server.path().trim_end_matches('/'));
                (Kind::Telegram(server.with_target(path, None), (*chat).to_owned()), vec![(*token).to_owned()])
            }
            ("telegram", _) => return form("TOKEN CHAT [URL]"),
            ("pagerduty", [key, rest @ ..]) if rest.len() <= 1 => {
                if key.is_empty() {
                    return Err("pagerduty: the key is empty".to_owned());
                }
                let server = parse_url(rest.first().unwrap_or(&PAGERDUTY))?;
                (Kind::PagerDuty(server, (*key).to_owned()), vec![(*key).to_owned()])
            }
            ("pagerduty", _) => return form("KEY [URL]"),
            ("exec", [program, rest @ ..]) if !program.is_empty() => {
                (Kind::Exec((*program).to_owned(), rest.iter().map(|word| (*word).to_owned()).collect()), Vec::new())
            }
            ("exec", _) => return form("PROGRAM [ARGUMENT…]"),
            (unknown, _) => {
                let kinds = "webhook, slack, ntfy, telegram, pagerduty, alertmanager, exec, heartbeat";
                return Err(format!("{unknown:?} is no kind of target; there are {kinds}"));
            }
        };
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.extend(own_secrets);
        Ok(Self { name: name.into(), kind, secrets })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its queue has to do; `None` for a heartbeat, which is told no alerts.
    #[must_use]
    pub fn semantics(&self) -> Option<Semantics> {
        let people = Semantics { batch_max: ALERTS_MAX, knows_key: false, forgets: false };
        Some(match &self.kind {
            Kind::Webhook(_) => Semantics { knows_key: true, ..people },
            Kind::Alertmanager(_) => Semantics { forgets: true, ..people },
            Kind::PagerDuty(..) => Semantics { batch_max: 1, ..people },
            Kind::Slack(_) | Kind::Ntfy(..) | Kind::Telegram(..) | Kind::Exec(..) => people,
            Kind::Heartbeat(_) => return None,
        })
    }

    /// Sends a message. The outcome shows no secret.
    pub(super) fn send(&self, client: &Client, batch: &Batch, now_ms: u64) -> Outcome {
        self.attempt(client, batch, now_ms).outcome
    }

    /// Tries the target out with an alert that fires and is resolved; a heartbeat is asked once. What it has answered to
    /// each, and whether it took both.
    #[must_use]
    pub fn try_out(&self, client: &Client, now_ms: u64) -> (Vec<String>, bool) {
        let mut event = Event {
            key: AlertKey { name: "lizm-test".into(), host: "test".into(), series: "test".into() },
            severity: Severity::Info,
            resolution: None,
            value: Some(1.0),
            test: Some((Comparison::Above, 0.0)),
            rule: "lizm-test: test > 0".to_owned(),
            text: Some("somebody tries out this target".to_owned()),
            fired_at: now_ms / 1000,
            resolved_at: None,
            number: now_ms,
        };
        let mut said = Vec::new();
        for word in ["firing", "resolved"] {
            let (name, item) =
                (self.name.clone(), Item { event: event.clone(), repeat: 0, is_past: false, queued_at: now_ms });
            let attempt = self.attempt(client, &Batch::new(name, vec![item]), now_ms);
            said.push(format!("{word}: {}", self.shown(&attempt.said)));
            if attempt.outcome != Outcome::Delivered {
                return (said, false);
            }
            if matches!(self.kind, Kind::Heartbeat(_)) {
                break;
            }
            (event.resolution, event.resolved_at) = (Some(Resolution::Good), Some(now_ms / 1000));
            event.number += 1;
        }
        (said, true)
    }

    /// Asks a heartbeat's URL.
    pub(super) fn beat(&self, client: &Client) -> Outcome {
        self.attempt(client, &Batch::new(self.name.clone(), Vec::new()), 0).outcome
    }

    fn attempt(&self, client: &Client, batch: &Batch, now_ms: u64) -> Attempt {
        let attempt = match &self.kind {
            Kind::Webhook(url) => client.post(url, Some(&batch.key), &body::webhook(batch, now_ms)),
            Kind::Slack(url) => client.post(url, None, &body::slack(batch, now_ms)),
            Kind::Ntfy(server, topic) => client.post(server, None, &body::ntfy(topic, batch, now_ms)),
            Kind::Telegram(url, chat) => client.post(url, None, &body::telegram(chat, batch, now_ms)),
            Kind::PagerDuty(server, key) => self.page(client, server, key, &batch.items, now_ms),
            Kind::Alertmanager(url) => Self::feed(client, url, batch, now_ms),
            Kind::Exec(program, arguments) => {
                let name = program.rsplit('/').next().unwrap_or_default();
                let input = if MAILERS.contains(&name) {
                    let is_address = |word: &&str| word.contains('@') && !word.starts_with('-');
                    let recipients: Vec<&str> = arguments.iter().map(String::as_str).filter(is_address).collect();
                    body::mail(&recipients, batch, now_ms)
                } else {
                    body::webhook(batch, now_ms).to_string() + "\n"
                };
                exec::run(program, arguments, input.as_bytes())
            }
            Kind::Heartbeat(url) => client.get(url),
        };
        let outcome = match attempt.outcome {
            Outcome::Delivered => Outcome::Delivered,
            Outcome::Refused(why) => Outcome::Refused(self.shown(&why)),
            Outcome::Later { why, reason, retry_after_ms, may_have } => {
                Outcome::Later { why: self.shown(&why), reason, retry_after_ms, may_have }
            }
        };
        Attempt { outcome, ..attempt }
    }

    /// Sends an event for each item: there is one, as its queue has it.
    fn page(&self, client: &Client, server: &Url, key: &str, items: &[Item], now_ms: u64) -> Attempt {
        let mut attempt = Attempt { said: format!("{} has nothing to say", self.name), outcome: Outcome::Delivered };
        for item in items {
            let (path, body) = body::pagerduty(key, item, now_ms);
            let url = server.with_target(format!("{}{path}", server.path().trim_end_matches('/')), None);
            attempt = client.post(&url, None, &body);
            if attempt.outcome != Outcome::Delivered {
                break;
            }
        }
        attempt
    }

    /// Posts to an Alertmanager, in parts that it takes. What it has twice is the same to it.
    fn feed(client: &Client, url: &Url, batch: &Batch, now_ms: u64) -> Attempt {
        let parts = batch.still.chunks(ALERTS_MAX).map(|still| Batch {
            items: Vec::new(),
            still: still.to_vec(),
            ..batch.clone()
        });
        let first = Batch { still: Vec::new(), ..batch.clone() };
        let mut attempt = None;
        for part in [first].into_iter().chain(parts).filter(|part| part.items.len() + part.still.len() > 0) {
            let answer = client.post(url, None, &body::alertmanager(&part, now_ms));
            if answer.outcome != Outcome::Delivered {
                return answer;
            }
            attempt = Some(answer);
        }
        attempt.unwrap_or_else(|| Attempt { said: "nothing to say".to_owned(), outcome: Outcome::Delivered })
    }

    /// An answer as a log may show it: in one line, without secrets that a server has sent back.
    fn shown(&self, said: &str) -> String {
        let hidden = |said: String, secret: &String| said.replace(secret, HIDDEN);
        sanitize::message(&self.secrets.iter().fold(said.to_owned(), hidden), ANSWER_CHARS_MAX)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

fn of_url(kind: impl FnOnce(Url) -> Kind, given: &str) -> Result<(Kind, Vec<String>), String> {
    let url = parse_url(given)?;
    let secrets = secrets_of(&url);
    Ok((kind(url), secrets))
}

/// Reads the URL of a target. Any part of it may be a secret, so that no error shows it.
fn parse_url(given: &str) -> Result<Url, String> {
    let url = Url::parse(given).map_err(|error| match error.rsplit_once("\": ") {
        Some((_, why)) => format!("the URL: {why}"),
        None => "the URL cannot be read".to_owned(),
    })?;
    match url.scheme() {
        "http" => Ok(url),
        "https" if cfg!(feature = "tls") => Ok(url),
        "https" => Err(WITHOUT_TLS.to_owned()),
        _ => Err("the URL: does not begin with http:// or https://".to_owned()),
    }
}

/// The parts of a URL that may be secrets: of its path, of its query, and what it logs in with.
fn secrets_of(url: &Url) -> Vec<String> {
    let query = url.query().unwrap_or_default();
    let login = url.authorization().and_then(|basic| basic.strip_prefix("Basic ").map(str::to_owned));
    let parts = url.path().split('/').chain(query.split(['&', '='])).map(str::to_owned).chain(login);
    parts.filter(|part| part.len() >= SECRET_BYTES_MIN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(line: &str) -> Result<Target, String> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let kind = words.next().unwrap_or_default();
        Target::new("t", &kind, &words.collect::<Vec<_>>(), Vec::new())
    }

    #[test]
    fn a_line_names_a_kind_and_what_it_takes() {
        for good in [
            "webhook http://127.0.0.1:1/a?b=c",
            "slack http://r/services/T/B/x",
            "ntfy http://ntfy/base/topic",
            "telegram 123456:ABC-def_1 -1001 http://r",
            "pagerduty 0123456789abcdef http://r",
            "alertmanager http://r:9093/am/",
            "exec /usr/sbin/sendmail -t",
            "heartbeat http://r/ping/uuid",
        ] {
            assert!(target(good).is_ok(), "{good}");
        }
        for (bad, part) in [
            ("", "no kind of target"),
            ("mail a@b", "no kind of target; there are webhook, slack"),
            ("webhook", "is: webhook URL"),
            ("webhook http://a http://b", "is: webhook URL"),
            ("webhook ftp://a", "http:// or https://"),
            ("webhook a:secret", "the URL: not a URL such as"),
            ("ntfy http://secret.example/", "the URL ends with no topic"),
            ("ntfy http://r/secret%zz", "two hexadecimal digits"),
            ("telegram secret", "is: telegram TOKEN CHAT"),
            ("telegram sec/ret 1", "the token is not one"),
            ("pagerduty", "is: pagerduty KEY"),
            ("exec", "is: exec PROGRAM"),
            ("slack http://me:secret@:80/secret#x", "names no host"),
        ] {
            let why = target(bad).unwrap_err();
            assert!(why.contains(part) && !why.contains("secret"), "{bad}: {why}");
        }
        assert_eq!(target("webhook https://r/").is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn no_secret_is_shown() {
        let slack = target("slack http://user:password9@r/services/T0000/B0000/secretXYZ?token=hush42").unwrap();
        let said = slack.shown("HTTP 404 no /services/T0000/B0000/secretXYZ?token=hush42\r\n<html>");
        assert!(!said.contains("secretXYZ") && !said.contains("hush42") && said.contains("HTTP 404"), "{said}");
        assert_eq!(format!("{slack:?}"), "Target { name: \"t\", .. }");
        let telegram = target("telegram 123456:ABC-def -1001").map(|telegram| telegram.shown("no bot123456:ABC-def"));
        assert_eq!(telegram.unwrap_or("no bot***".to_owned()), "no bot***");
    }
}
