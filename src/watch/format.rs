//! Text for a terminal: columns that fit, numbers, bars and sparklines.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::sanitize::visible;

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A cell filled from the left by so many eighths.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The text in exactly so many columns, cut with an ellipsis or filled with spaces.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let text = visible(text);
    let width = text.width();
    if width <= columns {
        return text + &" ".repeat(columns - width);
    }
    let (mut cut, mut used) = (String::new(), 0);
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        if used + width + 1 > columns {
            break;
        }
        used += width;
        cut.push(character);
    }
    if columns > 0 {
        cut.push('…');
        used += 1;
    }
    cut + &" ".repeat(columns - used)
}

/// Whether the values of a label are percent, so that a bar shows them.
pub(super) fn is_percent(label: &str) -> bool {
    let stem = label.split(':').next().unwrap_or_default();
    matches!(stem, "cpu" | "mem" | "swap" | "disk" | "cpu-user" | "cpu-system" | "cpu-iowait" | "cpu-steal")
}

/// A value in up to seven columns; nothing where there is none.
pub(super) fn number(label: &str, value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    if is_percent(label) {
        return format!("{value:.1}%");
    }
    if label == "uptime" && value >= 0.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds, and not below 0")]
        return age(value as u64);
    }
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let magnitude = value.abs();
    let step = units.iter().zip(0..).find(|(_, power)| magnitude < 999.95 * 1000_f64.powi(*power));
    match step {
        None => format!("{value:.0e}"),
        Some((_, 0)) if magnitude.fract() == 0.0 => format!("{value}"),
        Some((_, 0)) if magnitude < 10.0 => format!("{value:.2}"),
        Some((unit, power)) => format!("{:.1}{unit}", value / 1000_f64.powi(power)),
    }
}

/// Seconds as people say them.
pub(super) fn age(age_sec: u64) -> String {
    match age_sec {
        0..100 => format!("{age_sec} s"),
        100..6000 => format!("{} min", age_sec / 60),
        6000..172_800 => format!("{} h", age_sec / 3600),
        _ => format!("{} d", age_sec / 86_400),
    }
}

/// A bar of percent.
pub(super) fn bar(percent: Option<f64>, columns: usize) -> String {
    let Some(percent) = percent else { return " ".repeat(columns) };
    #[expect(clippy::cast_precision_loss, reason = "a few columns")]
    let eighths = (percent.clamp(0.0, 100.0) / 100.0 * columns as f64 * 8.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the columns")]
    let eighths = eighths as usize;
    let mut bar: String = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    let filled = eighths.div_ceil(8);
    bar + &" ".repeat(columns - filled)
}

/// The newest values as a line of bars, one a column, the newest at its right; percent against 100, others against the
/// largest and smallest of them, with 0 among them.
pub(super) fn sparkline(label: &str, values: &[Option<f64>], columns: usize) -> String {
    let shown = &values[values.len().saturating_sub(columns)..];
    let known = || shown.iter().flatten().copied();
    let (low, high) =
        if is_percent(label) { (0.0, 100.0) } else { (known().fold(0.0, f64::min), known().fold(0.0, f64::max)) };
    let spark = |value: f64| {
        let share = ((value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)).clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        SPARKS[if share.is_nan() { 0 } else { (share * 7.0).round() as usize }]
    };
    let line: String = shown.iter().map(|value| value.map_or(' ', spark)).collect();
    " ".repeat(columns - shown.len()) + &line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_their_columns_whatever_their_characters() {
        assert_eq!((fit("abc", 5), fit("abcdef", 5), fit("abc", 3)), ("abc  ".into(), "abcd…".into(), "abc".into()));
        assert_eq!(
            (fit("漢字漢字", 5), fit("漢字", 4), fit("漢字漢", 4)),
            ("漢字…".into(), "漢字".into(), "漢… ".into())
        );
        assert_eq!((fit("abc", 0), fit("abc", 1)), (String::new(), "…".into()));
        for text in ["e\u{301}e\u{301}e\u{301}", "👩‍💻👩‍💻", "ab漢"] {
            assert!((1..8).all(|columns| fit(text, columns).width() == columns), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let of = |value| number("net-in", Some(value));
        let expected = ["0", "7", "-3", "0.25", "12.3", "999", "1.5k", "1.0M", "-2.5G", "1e300"];
        assert_eq!([0.0, 7.0, -3.0, 0.25, 12.34, 999.0, 1500.0, 999_999.0, -2.5e9, 1e300].map(of), expected);
        assert_eq!((number("cpu", Some(4.98)), number("disk:/var", None)), ("5.0%".into(), "–".into()));
        assert_eq!(number("uptime", Some(86_400.0 * 3.0)), "3 d");
        assert_eq!([5, 99, 100, 7200, 200_000].map(age), ["5 s", "99 s", "1 min", "2 h", "2 d"]);
    }

    #[test]
    fn bars_and_sparklines_have_their_columns() {
        assert_eq!(bar(Some(50.0), 4), "██  ");
        assert_eq!(
            (bar(Some(0.0), 3), bar(Some(1e9), 3), bar(Some(-5.0), 3), bar(None, 3)),
            ("   ".into(), "███".into(), "   ".into(), "   ".into())
        );
        assert_eq!(bar(Some(56.25), 2), "█▏");
        assert_eq!(sparkline("cpu", &[Some(100.0), None, Some(0.0), Some(50.0)], 6), "  █ ▁▅");
        assert_eq!(sparkline("load1", &[Some(9.0), Some(1.0), Some(2.0), Some(4.0)], 3), "▃▅█");
        assert_eq!(sparkline("load1", &[Some(0.0), Some(0.0)], 2), "▁▁");
        assert_eq!(sparkline("x", &[Some(-1e300), Some(1e300)], 2), "▁█");
    }
}
