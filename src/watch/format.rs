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

/// The text in exactly so many columns. What is too long is cut in the middle: names and labels differ at both ends.
pub(super) fn fit_middle(text: &str, columns: usize) -> String {
    let text = visible(text);
    if text.width() <= columns || columns < 5 {
        return fit(&text, columns);
    }
    let end_columns = (columns - 1) / 2;
    let mut end = text.len();
    for (place, _) in text.char_indices().rev() {
        if text[place..].width() > end_columns {
            break;
        }
        end = place;
    }
    let begin_columns = columns - text[end..].width();
    // `fit` puts the ellipsis and, before a wide character that has no room, a space.
    let begin = fit(&text, begin_columns);
    begin + &text[end..]
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
            '│' => '|',
            '└' => '+',
            '─' => '-',
            '━' => '=',
            dots @ '\u{2800}'..='\u{28ff}' => ascii_dots(dots),
            _ => '?',
        };
        ascii.extend(std::iter::repeat_n(replacement, character.width().unwrap_or(1)));
    }
    ascii
}

/// A character of braille by where its dots are: above, below or both.
fn ascii_dots(dots: char) -> char {
    let bits = dots as u32 & 0xff;
    match (bits & 0b0001_1011 > 0, bits & 0b1110_0100 > 0) {
        (false, false) => ' ',
        (true, false) => '\'',
        (false, true) => '.',
        (true, true) => ':',
    }
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

/// The values in so many columns, each the mean of those that fall into it. Fewer values than columns stay as they are.
pub(super) fn resample(values: &[Option<f64>], columns: usize) -> Vec<Option<f64>> {
    if values.len() <= columns {
        return values.to_vec();
    }
    let mean = |column: usize| {
        let part = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        let known = part.iter().flatten();
        #[expect(clippy::cast_precision_loss, reason = "a few values")]
        let count = known.clone().count() as f64;
        (count > 0.0).then(|| known.map(|value| value / count).sum())
    };
    (0..columns).map(mean).collect()
}

/// The least and the greatest value of a scale: percentages are drawn against 100, others against their range and 0.
fn bounds(label: &str, values: &[Option<f64>]) -> (f64, f64) {
    let known = || values.iter().flatten().copied();
    if is_percent(label) {
        return (0.0, known().fold(100.0, f64::max));
    }
    (known().fold(0.0, f64::min), known().fold(0.0, f64::max))
}

/// Where a value stands between two bounds, from 0 to 1.
fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    let share = ((value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)).clamp(0.0, 1.0);
    if share.is_nan() { 0.0 } else { share }
}

/// All values as bars of one column each, the newest at the right.
pub(super) fn sparkline(label: &str, values: &[Option<f64>], columns: usize) -> String {
    let shown = resample(values, columns);
    let bounds = bounds(label, &shown);
    let spark = |value: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        SPARKS[(share(value, bounds) * 7.0).round() as usize]
    };
    let line: String = shown.iter().map(|value| value.map_or(' ', spark)).collect();
    " ".repeat(columns - shown.len()) + &line
}

/// The axis below a graph: when it begins, and the parts of it, from 0 to 1, that are marked.
pub(super) struct Axis<'a> {
    pub(super) oldest: &'a str,
    pub(super) marks: Vec<(f64, f64)>,
}

impl Axis<'_> {
    /// The line of so many columns. Any column that a mark touches is a thick one.
    fn line(&self, width: usize) -> String {
        #[expect(clippy::cast_precision_loss, reason = "columns of a terminal")]
        let share = |column: usize| column as f64 / width as f64;
        let is_marked =
            |column: usize| self.marks.iter().any(|(from, to)| *from <= share(column + 1) && *to >= share(column));
        (0..width).map(|column| if is_marked(column) { '━' } else { '─' }).collect()
    }
}

/// Values as a line of braille dots, two across and four down in each character, with an axis to the left and one below;
/// `thresholds` are dotted lines. All of it has `rows` rows of `columns` columns.
pub(super) fn graph(
    label: &str,
    values: &[Option<f64>],
    thresholds: &[f64],
    axis: &Axis<'_>,
    (columns, rows): (usize, usize),
) -> Vec<String> {
    let (height, width) = (rows.saturating_sub(2).max(1), columns.saturating_sub(NUMBER_COLUMNS + 2).max(1));
    let with_thresholds: Vec<_> = values.iter().copied().chain(thresholds.iter().copied().map(Some)).collect();
    let bounds = bounds(label, &with_thresholds);
    let mut dots = vec![vec![0_u32; width]; height];
    // The bits of a character of braille, by row and column (Unicode, block Braille Patterns).
    let bits = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the rows"
    )]
    let row_of = |value: f64| ((1.0 - share(value, bounds)) * (4 * height - 1) as f64).round() as usize;
    for row in thresholds.iter().copied().map(row_of) {
        (0..width).for_each(|place| dots[row / 4][place] |= bits[row % 4][0]);
    }
    let mut before = None;
    for place in 0..2 * width {
        let value = values.get(place * values.len() / (2 * width)).copied().flatten();
        let row = value.map(row_of);
        // A step is a line from one row to the other.
        if let Some(row) = row {
            let from = before.unwrap_or(row);
            for row in from.min(row)..=from.max(row) {
                dots[row / 4][place / 2] |= bits[row % 4][place % 2];
            }
        }
        before = row;
    }
    let mut lines = Vec::with_capacity(rows);
    for (row, characters) in dots.iter().enumerate() {
        let at = match row {
            0 => number(label, Some(bounds.1)),
            _ if row + 1 == height => number(label, Some(bounds.0)),
            _ if row == height / 2 && height > 4 => number(label, Some(bounds.0 / 2.0 + bounds.1 / 2.0)),
            _ => String::new(),
        };
        let line: String = characters.iter().filter_map(|bits| char::from_u32(0x2800 + bits)).collect();
        lines.push(format!("{at:>NUMBER_COLUMNS$} │{line}"));
    }
    lines.push(format!("{:>NUMBER_COLUMNS$} └{}", "", axis.line(width)));
    let oldest = axis.oldest;
    let gap = width.saturating_sub(oldest.width() + 3).max(1);
    lines.push(fit(&format!("{:>NUMBER_COLUMNS$}  {oldest}{}now", "", " ".repeat(gap)), columns));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_in_the_middle() {
        assert_eq!(fit_middle("disk:/var/lib/docker", 13), "disk:/…docker");
        assert_eq!((fit_middle("short", 8), fit_middle("a longer one", 4)), ("short   ".into(), "a l…".into()));
        for columns in 5..20 {
            assert_eq!(fit_middle("漢字 and more of it 漢字", columns).width(), columns);
        }
    }

    #[test]
    fn an_hour_is_shown_whole_in_few_columns() {
        let hour: Vec<Option<f64>> = (0..60).map(|n| Some(f64::from(n / 30) * 100.0)).collect();
        assert_eq!(sparkline("cpu", &hour, 8), "▁▁▁▁████");
        assert_eq!(resample(&[None, None, Some(1.0), Some(3.0), None, Some(5.0)], 3), [None, Some(2.0), Some(5.0)]);
    }

    #[test]
    fn a_graph_has_its_size_and_its_axes() {
        let values: Vec<Option<f64>> = (0..60).map(|n| (n != 30).then(|| f64::from(n))).collect();
        let axis = Axis { oldest: "1 h ago", marks: vec![(0.5, 0.74), (1.0, 1.0)] };
        let lines = graph("cpu", &values, &[], &axis, (40, 10));
        assert!(lines.len() == 10 && lines.iter().all(|line| line.width() == 40), "{lines:#?}");
        assert!(lines[0].starts_with(" 100.0% │") && lines[7].starts_with("   0.0% │"), "{lines:#?}");
        assert!(lines[9].contains("1 h ago") && lines[9].ends_with("now"), "{lines:#?}");
        assert!(lines[8].ends_with(&format!("└{}{}{}━", "─".repeat(15), "━".repeat(8), "─".repeat(7))), "{lines:#?}");
        let with_threshold = graph("queue", &[Some(1.0)], &[4.0], &axis, (40, 10));
        assert!(with_threshold[0].contains("4 │⠁⠁⠁⠁"), "{with_threshold:#?}");
        let ascii = ascii(&lines.join("\n"));
        assert!(ascii.is_ascii() && !ascii.contains('?') && ascii.contains('.'), "{ascii}");
    }

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
        assert_eq!(sparkline("load1", &[Some(9.0), Some(1.0), Some(2.0), Some(4.0)], 3), "█▂▃");
        assert_eq!(sparkline("load1", &[Some(0.0), Some(0.0)], 2), "▁▁");
        assert_eq!(sparkline("x", &[Some(-1e300), Some(1e300)], 2), "▁█");
    }
}
