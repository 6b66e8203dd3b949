//! What people read: a title, and a line for each alert. Names are foreign text: nothing in a message steers a terminal,
//! ends a line or hides, and each kind of target adds what keeps its own markup away.

use std::cmp::Reverse;
use std::fmt::Write;

use super::Item;
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
    if !event.key.series.is_empty() || event.value.is_some() {
        let series = if event.key.series.is_empty() { "value".to_owned() } else { name(&event.key.series) };
        _ = write!(line, ": {series}");
        if let Some(value) = event.value {
            _ = write!(line, " is {}", number(value));
        }
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
pub(super) fn rfc3339(sec: u64) -> String {
    format!("{}T{:02}:{:02}:{:02}Z", date(sec), sec / 3600 % 24, sec / 60 % 60, sec % 60)
}

/// The date of a time in seconds since the Unix epoch, by the Gregorian calendar: years begin in March, so that the day
/// that is put in is the last.
fn date(sec: u64) -> String {
    let days = sec.min(253_402_300_799) / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months + 2) / 5 + 1;
    let month = if months < 10 { months + 3 } else { months - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
