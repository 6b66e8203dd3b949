//! What people read: a title, and a line for each alert. Names are foreign text: nothing in a message steers a terminal,
//! ends a line or hides, and each kind of target adds what keeps its own markup away.

use std::cmp::Reverse;
use std::fmt::Write;

use super::Item;
use crate::clock::date;
use crate::sanitize;
use crate::units::unit_of;

/// Most lines of a message.
const LINES_MAX: usize = 20;
/// Most characters of a line; what is longer ends with an ellipsis.
const LINE_CHARS_MAX: usize = 300;
/// Most characters of a name within a line, so that the rest of the line is seen.
const NAME_CHARS_MAX: usize = 80;
/// An event that waits for longer is told late, and says so.
const LATE_MS: u64 = 120_000;
/// Where the line about those that are left out has its place in what a message may have.
const MORE_BYTES: usize = 20;

/// A title for a message.
pub(super) fn title(items: &[Item], now_ms: u64) -> String {
    if let [item] = items {
        return line(item, now_ms);
    }
    let count = |of: fn(&Item) -> bool| items.iter().filter(|item| of(item)).count();
    let counts = [
        (count(|item| item.event.is_firing()), "firing"),
        (count(|item| !item.event.is_firing() && !item.is_past), "resolved"),
        (count(|item| item.is_past), "told late"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// The lines of a message, the worst first, in at most `bytes_max` bytes once `escape` has been applied to each.
pub(super) fn text(items: &[Item], now_ms: u64, bytes_max: usize, escape: impl Fn(&str) -> String) -> String {
    let mut order: Vec<&Item> = items.iter().collect();
    order.sort_by_key(|item| (!item.event.is_firing(), Reverse(item.event.severity), &item.event.key));
    let mut text = String::new();
    let mut shown = 0;
    for item in order.iter().take(LINES_MAX) {
        let line = escape(&line(item, now_ms));
        if shown > 0 && text.len() + line.len() + 1 > bytes_max.saturating_sub(MORE_BYTES) {
            break;
        }
        text += &line;
        text.push('\n');
        shown += 1;
    }
    if shown < items.len() {
        _ = writeln!(text, "+{} more", items.len() - shown);
    }
    text.truncate(text.trim_end().len());
    text
}

/// One alert in one line.
pub(super) fn line(item: &Item, now_ms: u64) -> String {
    let event = &item.event;
    let name = |name: &str| sanitize::message(name, NAME_CHARS_MAX);
    let since = clock(event.fired_at, now_ms / 1000);
    let mut line = match event.resolved_at {
        _ if event.is_firing() => {
            let still = if item.repeat > 0 { "STILL FIRING" } else { "FIRING" };
            format!("{still} {}: ", event.severity)
        }
        until if item.is_past => {
            format!("WAS FIRING {since}–{} UTC, told late: ", clock(until.unwrap_or(event.fired_at), now_ms / 1000))
        }
        _ => "RESOLVED: ".to_owned(),
    };
    line += &name(&event.key.name);
    if !event.key.host.is_empty() {
        _ = write!(line, " on {}", name(&event.key.host));
    }
    let unit = unit_of(&event.key.series).symbol();
    let number = |value: f64| format!("{}{}{unit}", rounded(value), if unit.is_empty() { "" } else { " " });
    if !event.key.series.is_empty() {
        _ = write!(line, ": {}", name(&event.key.series));
    }
    match (event.value, event.test) {
        (Some(value), Some(_)) => _ = write!(line, " is {}", number(value)),
        // Of a rule without a number it is the silence in seconds.
        (Some(sec), None) if event.is_firing() => _ = write!(line, ", silent for {}", span(sec)),
        _ => {}
    }
    if let Some((comparison, threshold)) = event.test.filter(|_| event.is_firing() || item.is_past) {
        _ = write!(line, ", {} {}", comparison.words(), number(threshold));
    }
    if event.is_firing() {
        _ = write!(line, ", since {since} UTC");
    } else if !item.is_past {
        let until = clock(event.resolved_at.unwrap_or(event.fired_at), now_ms / 1000);
        _ = write!(line, ", fired {since}–{until} UTC");
    }
    let resolution = event.resolution.map_or("", super::super::event::Resolution::words);
    if !resolution.is_empty() {
        _ = write!(line, " ({resolution})");
    }
    if !item.is_past && now_ms.saturating_sub(item.queued_at) > LATE_MS {
        line += " (told late)";
    }
    if let Some(text) = &event.text {
        _ = write!(line, ": {}", sanitize::visible(text));
    }
    sanitize::message(&line, LINE_CHARS_MAX)
}

/// A time in seconds, rounded down.
fn span(sec: f64) -> String {
    match sec {
        _ if sec < 120.0 => format!("{sec:.0} s"),
        _ if sec < 7200.0 => format!("{:.0} min", (sec / 60.0).floor()),
        _ => format!("{:.0} h", (sec / 3600.0).floor()),
    }
}

/// A number with four digits that count.
fn rounded(value: f64) -> String {
    let whole = value.abs() >= 1000.0 || value == 0.0 || !value.is_finite();
    let decimals = if whole { 0.0 } else { (3.0 - value.abs().log10().floor()).clamp(0.0, 12.0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 12")]
    let text = format!("{value:.*}", decimals as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Hours and minutes of a time in seconds since the Unix epoch, with the date when it is not `now`'s, in UTC.
fn clock(sec: u64, now_sec: u64) -> String {
    let (hour, minute) = (sec / 3600 % 24, sec / 60 % 60);
    let date = if sec / 86_400 == now_sec / 86_400 { String::new() } else { format!("{} ", date(sec)) };
    format!("{date}{hour:02}:{minute:02}")
}

/// A time in seconds since the Unix epoch as RFC 3339 has it.
pub(in crate::alerts) fn rfc3339(sec: u64) -> String {
    format!("{}T{:02}:{:02}:{:02}Z", date(sec), sec / 3600 % 24, sec / 60 % 60, sec % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::event::{AlertKey, Comparison, Event, Resolution, Severity};

    /// 2027-01-15 08:00 UTC.
    const NOW_MS: u64 = 1_800_000_000_000;

    fn item(host: &str) -> Item {
        let event = Event {
            key: AlertKey { name: "disk".into(), host: host.into(), series: "disk:/var".into() },
            severity: Severity::Critical,
            resolution: None,
            value: Some(97.251),
            test: Some((Comparison::Above, 97.0)),
            rule: "disk: disk,disk:* > 97".to_owned(),
            text: None,
            fired_at: NOW_MS / 1000 - 600,
            resolved_at: None,
            number: 1,
        };
        Item { event, repeat: 0, is_past: false, queued_at: NOW_MS }
    }

    fn over(mut item: Item, resolution: Resolution) -> Item {
        (item.event.resolution, item.event.resolved_at) = (Some(resolution), Some(NOW_MS / 1000));
        item.event.value = Some(80.0);
        item
    }

    #[test]
    fn a_line_says_what_is_wrong() {
        let firing = item("web-1");
        let resolved = over(firing.clone(), Resolution::Good);
        let of = |change: fn(&mut Item)| {
            let mut changed = firing.clone();
            change(&mut changed);
            changed
        };
        for (item, expected) in [
            (firing.clone(), "FIRING critical: disk on web-1: disk:/var is 97.25 %, above 97 %, since 07:50 UTC"),
            (
                of(|item| item.repeat = 1),
                "STILL FIRING critical: disk on web-1: disk:/var is 97.25 %, above 97 %, since 07:50 UTC",
            ),
            (resolved.clone(), "RESOLVED: disk on web-1: disk:/var is 80 %, fired 07:50–08:00 UTC"),
            (
                Item { is_past: true, ..resolved.clone() },
                "WAS FIRING 07:50–08:00 UTC, told late: disk on web-1: disk:/var is 80 %, above 97 %",
            ),
            (
                over(firing.clone(), Resolution::HostRemoved),
                "RESOLVED: disk on web-1: disk:/var is 80 %, fired 07:50–08:00 UTC (the host was removed)",
            ),
            (
                of(|item| {
                    item.event.key.series = "backup.ok".into();
                    (item.event.value, item.event.test) = (Some(93_700.0), None);
                }),
                "FIRING critical: disk on web-1: backup.ok, silent for 26 h, since 07:50 UTC",
            ),
            (
                of(|item| item.queued_at -= 3_600_000),
                "FIRING critical: disk on web-1: disk:/var is 97.25 %, above 97 %, since 07:50 UTC (told late)",
            ),
            (
                of(|item| {
                    item.event.key = AlertKey { name: "gone".into(), host: "web-1".into(), series: "".into() };
                    (item.event.value, item.event.test, item.event.fired_at) = (None, None, NOW_MS / 1000 - 86_400);
                    item.event.text = Some("call\nthe owner\u{202e}".to_owned());
                }),
                "FIRING critical: gone on web-1, since 2027-01-14 08:00 UTC: call the owner\u{fffd}",
            ),
        ] {
            assert_eq!(line(&item, NOW_MS), expected);
        }
    }

    #[test]
    fn a_message_has_twenty_lines_and_the_worst_first() {
        let mut items: Vec<Item> = (0..300).map(|n| item(&format!("h{n:03}"))).collect();
        items[7].event.severity = Severity::Info;
        items.push(over(item("a"), Resolution::Good));
        let whole = text(&items, NOW_MS, 1 << 20, str::to_owned);
        let lines: Vec<&str> = whole.lines().collect();
        assert_eq!((lines.len(), lines[20]), (21, "+281 more"));
        assert!(lines[0].contains("h000") && lines[19].contains("h020"));
        assert_eq!(title(&items, NOW_MS), "300 firing, 1 resolved");
        items.truncate(20);
        assert_eq!(text(&items, NOW_MS, 1 << 20, str::to_owned).lines().count(), 20);
        // Long names are cut, and so is the whole, where markup makes it longer.
        items.iter_mut().for_each(|item| item.event.key.host = "<ä>".repeat(80).into());
        for bytes_max in [1900, 3800] {
            let cut = text(&items, NOW_MS, bytes_max, |line| line.replace('<', "&lt;"));
            assert!(cut.len() <= bytes_max && cut.contains("…") && cut.ends_with(" more"), "{cut}");
        }
    }

    #[test]
    fn numbers_and_times_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (97.0, "97"),
            (97.254_9, "97.25"),
            (-3.125, "-3.125"),
            (0.000_123_456, "0.0001235"),
            (12_345.678, "12346"),
        ] {
            assert_eq!(rounded(value), expected);
        }
        for (sec, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_800_000_000, "2027-01-15T08:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(sec), expected);
        }
    }
}
