//! The bodies in JSON that targets are told by.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::batch::Fnv;
use super::message::{line, rfc3339, text, title};
use super::{Batch, Item};
use crate::alerts::event::{Event, Severity};

/// How long an Alertmanager takes an alert to fire that it hears no more of; it is told each minute.
const ALERTMANAGER_KEEPS_SEC: u64 = 240;
/// Most bytes of a text: ntfy and Telegram take 4096, Discord 2000 characters with what stands around it.
const TEXT_BYTES_MAX: usize = 3800;
const SLACK_BYTES_MAX: usize = 1900;
const MAIL_BYTES_MAX: usize = 64 << 10;
/// Most characters that PagerDuty takes of a summary, and of a key.
const SUMMARY_CHARS_MAX: usize = 1024;
const DEDUP_KEY_BYTES_MAX: usize = 255;
/// What Alertmanager has in the place of a time that there is not.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The body of Alertmanager's webhook, version 4
/// (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).
pub(super) fn webhook(batch: &Batch, now_ms: u64) -> Value {
    let alerts: Vec<Value> = batch.items.iter().map(|item| webhook_alert(item, now_ms)).collect();
    let is_firing = batch.items.iter().any(|item| item.event.is_firing());
    let common = |field: &str| {
        let mut common = alerts.first().map_or(Value::Null, |alert| alert[field].clone());
        if let Value::Object(common) = &mut common {
            common.retain(|name, value| alerts.iter().all(|alert| alert[field].get(name) == Some(value)));
        }
        common
    };
    json!({
        "version": "4",
        "groupKey": format!("lizm:{}", batch.target),
        "truncatedAlerts": 0,
        "status": if is_firing { "firing" } else { "resolved" },
        "receiver": batch.target,
        "groupLabels": {},
        "commonLabels": common("labels"),
        "commonAnnotations": common("annotations"),
        "externalURL": "",
        "alerts": alerts,
    })
}

fn webhook_alert(item: &Item, now_ms: u64) -> Value {
    let event = &item.event;
    let mut annotations = annotations(event);
    annotations["summary"] = line(item, now_ms).into();
    json!({
        "status": if event.is_firing() { "firing" } else { "resolved" },
        "labels": labels(event),
        "annotations": annotations,
        "startsAt": rfc3339(event.fired_at),
        "endsAt": event.resolved_at.map_or(NO_TIME.to_owned(), rfc3339),
        "generatorURL": "",
        "fingerprint": fingerprint(event),
    })
}

/// The body of `POST /api/v2/alerts` of an Alertmanager, for what is new and what still fires
/// (<https://prometheus.io/docs/alerting/latest/alerts_api/>).
pub(super) fn alertmanager(batch: &Batch, now_ms: u64) -> Value {
    let ahead = now_ms / 1000 + ALERTMANAGER_KEEPS_SEC;
    let alert = |event: &Event| {
        json!({
            "labels": labels(event),
            "annotations": annotations(event),
            "startsAt": rfc3339(event.fired_at),
            "endsAt": rfc3339(event.resolved_at.unwrap_or(ahead)),
        })
    };
    batch.items.iter().map(|item| &item.event).chain(&batch.still).map(alert).collect()
}

/// A message of Slack's incoming webhooks. Its lines stand in a block of code, where neither Slack nor Mattermost nor
/// Discord sees a mention, a link or an emphasis.
pub(super) fn slack(batch: &Batch, now_ms: u64) -> Value {
    // What Slack asks to be escaped, and the sign that would end the block.
    let escape = |line: &str| line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'");
    json!({ "text": format!("```\n{}\n```", text(&batch.items, now_ms, SLACK_BYTES_MAX, escape)) })
}

/// A message of ntfy, published as JSON (<https://docs.ntfy.sh/publish/#publish-as-json>). Without `markdown` it is plain.
pub(super) fn ntfy(topic: &str, batch: &Batch, now_ms: u64) -> Value {
    let (priority, tag) = match worst(&batch.items) {
        Some(Severity::Critical) => (5, "rotating_light"),
        Some(Severity::Warning) => (4, "warning"),
        Some(Severity::Info) => (3, "information_source"),
        None => (3, "white_check_mark"),
    };
    let message = text(&batch.items, now_ms, TEXT_BYTES_MAX, str::to_owned);
    let title =
        if batch.items.len() == 1 { "lizm".to_owned() } else { format!("lizm: {}", title(&batch.items, now_ms)) };
    json!({ "topic": topic, "title": title, "message": message, "priority": priority, "tags": [tag] })
}

/// A message of Telegram's bots (<https://core.telegram.org/bots/api#sendmessage>). It is marked as preformatted by an
/// entity, so that nothing in it is a mention, a command or a link.
pub(super) fn telegram(chat: &str, batch: &Batch, now_ms: u64) -> Value {
    let text = text(&batch.items, now_ms, TEXT_BYTES_MAX, str::to_owned);
    let length = text.encode_utf16().count();
    json!({
        "chat_id": chat,
        "text": text,
        "entities": [{ "type": "pre", "offset": 0, "length": length }],
        "link_preview_options": { "is_disabled": true },
    })
}

/// The path and the body of an event of PagerDuty (<https://developer.pagerduty.com/docs/events-api-v2-overview>). What is
/// over and was never told is a change event, which wakes nobody.
pub(super) fn pagerduty(routing_key: &str, item: &Item, now_ms: u64) -> (&'static str, Value) {
    let event = &item.event;
    let summary: String = line(item, now_ms).chars().take(SUMMARY_CHARS_MAX).collect();
    let source = if event.key.host.is_empty() { "lizm" } else { &event.key.host };
    if item.is_past {
        let payload = json!({
            "summary": summary, "source": source, "timestamp": rfc3339(event.fired_at), "custom_details": annotations(event),
        });
        return ("/v2/change/enqueue", json!({ "routing_key": routing_key, "payload": payload }));
    }
    let mut body = json!({
        "routing_key": routing_key,
        "event_action": if event.is_firing() { "trigger" } else { "resolve" },
        "dedup_key": dedup_key(event),
        "client": "lizm",
    });
    if event.is_firing() {
        body["payload"] = json!({
            "summary": summary,
            "source": source,
            "severity": event.severity,
            "timestamp": rfc3339(event.fired_at),
            "component": event.key.series,
            "class": event.key.name,
            "custom_details": annotations(event),
        });
    }
    ("/v2/enqueue", body)
}

/// What PagerDuty knows an alert by.
fn dedup_key(event: &Event) -> String {
    let key = &event.key;
    let whole = format!("lizm/{}/{}/{}", key.name, key.host, key.series);
    if whole.len() <= DEDUP_KEY_BYTES_MAX { whole } else { format!("lizm/{}", fingerprint_of(&identity(event))) }
}

/// A mail (RFC 5322) for the program of a mail server, to the recipients that its arguments name.
pub(super) fn mail(recipients: &[&str], batch: &Batch, now_ms: u64) -> String {
    let title = title(&batch.items, now_ms);
    let text = text(&batch.items, now_ms, MAIL_BYTES_MAX, str::to_owned);
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(now_ms)).replace("GMT", "+0000");
    let to = if recipients.is_empty() { String::new() } else { format!("To: {}\n", recipients.join(", ")) };
    format!(
        "{to}Subject: {}\nDate: {date}\nMessage-ID: <{}@lizm.invalid>\nAuto-Submitted: auto-generated\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{text}\n",
        encoded_words(&format!("[lizm] {title}")),
        batch.key,
    )
}

/// A text in a header of a mail: as it is, or in encoded words of up to 75 characters (RFC 2047).
fn encoded_words(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut words = vec![String::new()];
    for character in text.chars() {
        if words.last().is_some_and(|word| word.len() + character.len_utf8() > 39) {
            words.push(String::new());
        }
        words.last_mut().iter_mut().for_each(|word| word.push(character));
    }
    let word = |word: String| format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word));
    words.into_iter().map(word).collect::<Vec<_>>().join("\n ")
}

/// The highest level of what fires.
fn worst(items: &[Item]) -> Option<Severity> {
    items.iter().filter(|item| item.event.is_firing()).map(|item| item.event.severity).max()
}

/// The labels of an alert, by their names in order. Those without a value are left out, as Prometheus does.
fn identity(event: &Event) -> [(&'static str, &str); 4] {
    let key = &event.key;
    [("alertname", &key.name), ("host", &key.host), ("series", &key.series), ("severity", event.severity.word())]
}

fn labels(event: &Event) -> Value {
    identity(event).into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn annotations(event: &Event) -> Value {
    let mut annotations = serde_json::Map::new();
    let mut add = |name: &str, value: Option<String>| {
        annotations.extend(value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value.into())));
    };
    add("rule", Some(event.rule.clone()));
    add("text", event.text.clone());
    add("value", event.value.map(|value| value.to_string()));
    add("threshold", event.test.map(|(comparison, threshold)| format!("{} {threshold}", comparison.sign())));
    add("resolution", event.resolution.map(|resolution| resolution.words().to_owned()));
    annotations.into()
}

/// Alertmanager's fingerprint of the labels.
fn fingerprint(event: &Event) -> String {
    fingerprint_of(&identity(event))
}

fn fingerprint_of(labels: &[(&str, &str)]) -> String {
    let mut hash = Fnv::default();
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        hash.write(name);
        hash.write(value);
    }
    format!("{:016x}", hash.0)
}

#[cfg(test)]
mod tests {
    use smol_str::SmolStr;

    use super::*;
    use crate::alerts::event::{AlertKey, Comparison, Resolution};

    /// 2027-01-15 08:00 UTC.
    const NOW_MS: u64 = 1_800_000_000_000;

    fn batch(name: &str, host: &str) -> Batch {
        let event = Event {
            key: AlertKey { name: name.into(), host: host.into(), series: "disk:/".into() },
            severity: Severity::Critical,
            resolution: None,
            value: Some(97.5),
            test: Some((Comparison::Above, 97.0)),
            rule: "disk: disk,disk:* > 97".to_owned(),
            text: None,
            fired_at: NOW_MS / 1000 - 60,
            resolved_at: None,
            number: 5,
        };
        let item = Item { event, repeat: 0, is_past: false, queued_at: NOW_MS };
        Batch::new(SmolStr::from("ops"), vec![item])
    }

    fn over(mut batch: Batch) -> Batch {
        for item in &mut batch.items {
            (item.event.resolution, item.event.resolved_at) = (Some(Resolution::Good), Some(NOW_MS / 1000));
        }
        batch
    }

    #[test]
    fn a_webhook_has_the_body_of_alertmanagers() {
        let mut two = batch("disk", "a");
        two.items.extend(over(batch("disk", "b")).items);
        let body = webhook(&two, NOW_MS);
        let expected = json!({
            "version": "4",
            "groupKey": "lizm:ops",
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "ops",
            "groupLabels": {},
            "commonLabels": { "alertname": "disk", "series": "disk:/", "severity": "critical" },
            "commonAnnotations": { "rule": "disk: disk,disk:* > 97", "value": "97.5", "threshold": "> 97" },
            "externalURL": "",
            "alerts": [
                {
                    "status": "firing",
                    "labels": { "alertname": "disk", "host": "a", "series": "disk:/", "severity": "critical" },
                    "annotations": {
                        "rule": "disk: disk,disk:* > 97", "value": "97.5", "threshold": "> 97",
                        "summary": "FIRING critical: disk on a: disk:/ is 97.5 %, above 97 %, since 07:59 UTC",
                    },
                    "startsAt": "2027-01-15T07:59:00Z", "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "", "fingerprint": body["alerts"][0]["fingerprint"],
                },
                {
                    "status": "resolved",
                    "labels": { "alertname": "disk", "host": "b", "series": "disk:/", "severity": "critical" },
                    "annotations": {
                        "rule": "disk: disk,disk:* > 97", "value": "97.5", "threshold": "> 97",
                        "summary": "RESOLVED: disk on b: disk:/ is 97.5 %, fired 07:59–08:00 UTC",
                    },
                    "startsAt": "2027-01-15T07:59:00Z", "endsAt": "2027-01-15T08:00:00Z",
                    "generatorURL": "", "fingerprint": body["alerts"][1]["fingerprint"],
                },
            ],
        });
        assert_eq!(body, expected);
        assert_eq!(webhook(&over(two), NOW_MS)["status"], "resolved");
    }

    #[test]
    fn a_fingerprint_is_alertmanagers() {
        // What `model.LabelSet.Fingerprint` of Prometheus has in its own test: FNV-1a over names and values.
        assert_eq!(fingerprint_of(&[]), "cbf29ce484222325");
        assert_eq!(
            fingerprint_of(&[("name", "garland, briggs"), ("fear", "")]),
            fingerprint_of(&[("name", "garland, briggs")])
        );
        assert_eq!(fingerprint_of(&[("a", "b")]).len(), 16);
    }

    #[test]
    fn an_alertmanager_hears_four_minutes_ahead() {
        let mut batch = batch("disk", "");
        batch.still = over(self::batch("disk", "b")).items.into_iter().map(|item| item.event).collect();
        let body = alertmanager(&batch, NOW_MS);
        assert_eq!(
            (&body[0]["endsAt"], &body[1]["endsAt"]),
            (&json!("2027-01-15T08:04:00Z"), &json!("2027-01-15T08:00:00Z"))
        );
        assert_eq!(body[0]["labels"].get("host"), None);
    }

    #[test]
    fn no_markup_of_a_target_is_in_a_name() {
        let hostile = batch("*disk*", "<!channel> @everyone ```& [x](http://y) @here\u{1b}[2J\n\u{202e}");
        let slack = slack(&hostile, NOW_MS)["text"].as_str().unwrap().to_owned();
        assert!(
            slack.starts_with("```\nFIRING critical: *disk* on &lt;!channel&gt; @everyone '''&amp; [x]("),
            "{slack}"
        );
        assert_eq!((slack.matches("```").count(), slack.lines().count()), (2, 3));
        let telegram = telegram("-100", &hostile, NOW_MS);
        assert_eq!(telegram.get("parse_mode"), None);
        assert_eq!(telegram["entities"][0]["length"], telegram["text"].as_str().unwrap().encode_utf16().count());
        let ntfy = ntfy("lizm", &hostile, NOW_MS);
        assert_eq!((&ntfy["topic"], &ntfy["priority"], ntfy.get("markdown")), (&json!("lizm"), &json!(5), None));
        for text in [&slack, telegram["text"].as_str().unwrap(), ntfy["message"].as_str().unwrap()] {
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        }
        assert_eq!(self::ntfy("lizm", &over(hostile), NOW_MS)["priority"], 3);
    }

    #[test]
    fn pagerduty_knows_an_alert_by_its_key() {
        let firing = batch("disk", "a");
        let (path, body) = pagerduty("R", &firing.items[0], NOW_MS);
        assert_eq!(
            (path, &body["event_action"], &body["dedup_key"]),
            ("/v2/enqueue", &json!("trigger"), &json!("lizm/disk/a/disk:/"))
        );
        assert_eq!((&body["payload"]["severity"], &body["payload"]["source"]), (&json!("critical"), &json!("a")));
        let over = over(firing);
        let (path, resolve) = pagerduty("R", &over.items[0], NOW_MS);
        assert_eq!(
            (path, &resolve["event_action"], &resolve["dedup_key"]),
            ("/v2/enqueue", &json!("resolve"), &body["dedup_key"])
        );
        let past = Item { is_past: true, ..over.items[0].clone() };
        let (path, change) = pagerduty("R", &past, NOW_MS);
        assert!(
            path == "/v2/change/enqueue" && change["payload"]["summary"].as_str().unwrap().starts_with("WAS FIRING")
        );
        let long = batch(&"n".repeat(200), &"h".repeat(200));
        assert_eq!(pagerduty("R", &long.items[0], NOW_MS).1["dedup_key"].as_str().unwrap().len(), 21);
    }

    #[test]
    fn a_mail_has_its_headers_in_ascii() {
        let mail = mail(&["ops@example.org"], &over(batch("disk", "ä")), NOW_MS);
        let (head, body) = mail.split_once("\n\n").unwrap();
        assert!(head.is_ascii() && head.starts_with("To: ops@example.org\nSubject: =?utf-8?B?"), "{head}");
        assert!(head.contains("\nDate: Fri, 15 Jan 2027 08:00:00 +0000\n") && head.lines().all(|line| line.len() < 79));
        assert_eq!(body, "RESOLVED: disk on ä: disk:/ is 97.5 %, fired 07:59–08:00 UTC\n");
    }
}
