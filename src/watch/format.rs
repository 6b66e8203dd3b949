//! Text for a terminal: columns that fit, numbers, bars and sparklines.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::sanitize::visible;
use crate::units::{Unit, unit_of};

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

/// A line for a locale without UTF-8, in as many columns: marks of ours become ones of ASCII, all other characters `?`.
pub(super) fn ascii(line: &str) -> String {
    let mut ascii = String::with_capacity(line.len());
    for character in line.chars() {
        let replacement = match character {
            _ if character.is_ascii() => character,
            '▁' | '▏' => '_',
            '▂' => '.',
            '▃' => '-',
            '▄' | '▎' | '▍' | '▌' | '▋' | '▊' | '▉' => '=',
            '▅' => '+',
            '▆' => '*',
            '▇' => '%',
            '█' => '#',
            '…' => '~',
            '–' => '-',
            '°' => '\'',
            '↑' => '^',
            '↓' => 'v',
            _ => '?',
        };
        ascii.extend(std::iter::repeat_n(replacement, character.width().unwrap_or(1)));
    }
    ascii
}

/// Whether the values of a label are percentages. They are shown against 100, with a bar.
pub(super) fn is_percent(label: &str) -> bool {
    unit_of(label) == Unit::Percent
}

/// Columns of a value.
const NUMBER_COLUMNS: usize = 7;

/// A value in at most [`NUMBER_COLUMNS`], with its unit; a dash where there is none.
pub(super) fn number(label: &str, value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    // A percentage that does not fit has no percent sign.
    if is_percent(label) && (-999.95..9999.95).contains(&value) {
        return format!("{value:.1}%");
    }
    if unit_of(label) == Unit::Time && value >= 0.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds, and not below 0")]
        return age(value as u64);
    }
    let number = short(value);
    // A rate stands without its `/s`, and a number that fills its columns without a symbol.
    let with_symbol = number.clone() + unit_of(label).symbol().trim_end_matches("/s");
    if with_symbol.width() <= NUMBER_COLUMNS { with_symbol } else { number }
}

/// A number in at most seven columns, with a prefix of thousands or as a power of ten.
fn short(value: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let magnitude = value.abs();
    let step = units.iter().zip(0..).find(|(_, power)| magnitude < 999.95 * 1000_f64.powi(*power));
    match step {
        None => format!("{value:.0e}"),
        Some((_, 0)) if magnitude.fract() == 0.0 => format!("{value}"),
        Some((_, 0)) if magnitude < 0.005 => format!("{value:.0e}"),
        Some((_, 0)) if magnitude < 10.0 => format!("{value:.2}"),
        Some((unit, power)) => format!("{:.1}{unit}", value / 1000_f64.powi(power)),
    }
}

/// A length of time in at most six columns; 9999 days stand for any longer one.
pub(super) fn age(age_sec: u64) -> String {
    match age_sec {
        0..100 => format!("{age_sec} s"),
        100..6000 => format!("{} min", age_sec / 60),
        6000..172_800 => format!("{} h", age_sec / 3600),
        _ => format!("{} d", (age_sec / 86_400).min(9999)),
    }
}

/// A percentage as a bar.
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

/// The newest values as bars of one column each, the newest at the right. Percentages are drawn against 100, others
/// against the range of the values and 0.
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
    fn a_locale_without_utf_8_has_the_same_columns() {
        let spark = sparkline("cpu", &[0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0, 100.0].map(Some), 8);
        let line = format!("\x1b[1m漢e\u{301}…\x1b[0m –{}{spark}", bar(Some(56.25), 2));
        assert_eq!(ascii(&line), "\x1b[1m??e~\x1b[0m -#__.-=+*%#");
    }

    #[test]
    fn numbers_are_short() {
        let of = |value| number("net-in", Some(value));
        let expected = ["0B", "7B", "-3B", "0.25B", "12.3B", "999B", "1.5kB", "1.0MB", "-2.5GB", "1e300B"];
        assert_eq!([0.0, 7.0, -3.0, 0.25, 12.34, 999.0, 1500.0, 999_999.0, -2.5e9, 1e300].map(of), expected);
        let plain = |value| number("queue", Some(value));
        assert_eq!([0.000_002_7, 0.25, 1500.0].map(plain), ["3e-6", "0.25", "1.5k"]);
        assert_eq!((number("temp", Some(51.0)), number("took_seconds", Some(0.5))), ("51°C".into(), "0.50s".into()));
        assert_eq!((number("cpu", Some(4.98)), number("disk:/var", None)), ("5.0%".into(), "–".into()));
        assert_eq!(number("uptime", Some(86_400.0 * 3.0)), "3 d");
        assert_eq!((number("cpu", Some(-12_345.0)), number("mem", Some(1e300))), ("-12.3k%".into(), "1e300%".into()));
        assert_eq!([5, 99, 100, 7200, 200_000].map(age), ["5 s", "99 s", "1 min", "2 h", "2 d"]);
    }

    #[test]
    fn no_value_takes_more_columns_than_it_has() {
        for label in ["cpu", "disk:/", "uptime", "net-in"] {
            let extremes = [f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NAN, 0.0, 5e-324];
            let powers =
                (-20..300).flat_map(|power| [1.0, 9.9949, 9.9951, 9.9999].map(|digits| digits * 10_f64.powi(power)));
            for value in powers.chain(extremes).flat_map(|value| [value, -value]) {
                let shown = number(label, Some(value));
                assert!(shown.width() <= 7, "{label} {value:e}: {shown}");
            }
        }
        assert!((0..64).all(|bits| age(u64::MAX >> bits).width() <= 6));
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
