//! Snapshots as lines of text. A narrower terminal shows fewer columns of the table, but always the name.

use unicode_width::UnicodeWidthStr;

use super::format::{age, bar, fit, fit_middle, is_percent, number, sparkline};
use super::snapshot::{HostDetail, HostList, HostRow, LabelRow, Severity, Snapshot};
use crate::sanitize::visible;

/// Columns of a value, of a bar, and of the gap between cells.
const VALUE: usize = 7;
const BAR: usize = 10;
const GAP: usize = 2;
/// Columns of the state and the age of a host.
const STATE: usize = 4;
const AGE: usize = 6;
/// Fewest columns of a sparkline, and those of an hour by minute and of a day by hour.
const SPARK_MIN: usize = 8;
const SPARK_HOUR: usize = 60;
const SPARK_DAY: usize = 24;
/// Percent from which a value is shown as high, and as very high.
const HIGH: f64 = 70.0;
const VERY_HIGH: f64 = 90.0;

/// How text may be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Not at all: for files, programs and dumb terminals.
    Plain,
    /// By bold and reverse.
    Uncoloured,
    /// By colour too.
    Colour,
}

/// What a part of a line means to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Bold,
    Faint,
    Good,
    Warning,
    Bad,
    Selected,
}

impl Style {
    /// The same for what no colour is to stand out in: the numbers of a host that is down are old.
    pub(super) fn without_colour(self) -> Self {
        if self == Self::Colour { Self::Uncoloured } else { self }
    }

    /// The text in a tone. The caller has made the text [`visible`].
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if self == Self::Plain => return text.to_owned(),
            Tone::Selected => "7",
            Tone::Bold => "1",
            Tone::Plain => return text.to_owned(),
            _ if self == Self::Uncoloured => return text.to_owned(),
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A whole snapshot, with the headings of its columns.
pub(super) fn table(snapshot: &Snapshot, columns: usize, style: Style) -> Vec<String> {
    let lines: Vec<String> = match snapshot {
        Snapshot::Hosts(hosts) => {
            let layout = HostsLayout::new(hosts, columns);
            let rows = hosts.rows.iter().map(|row| layout.row(row, style, Tone::Plain));
            [layout.heading(style)].into_iter().chain(rows).collect()
        }
        Snapshot::Host(host) => {
            let layout = HostLayout::new(host, columns);
            [layout.heading(style)]
                .into_iter()
                .chain(host.rows.iter().map(|row| layout.row(row, host.has_alert(row), style, Tone::Plain)))
                .collect()
        }
        Snapshot::Unknown(name) => vec![unknown(name)],
    };
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// What is said of a host that the receiver does not know.
pub(super) fn unknown(name: &str) -> String {
    format!("Host {} is not known there: it was removed, or it has never reported.", visible(name))
}

/// How many terminal columns each column of the list of hosts has.
pub(super) struct HostsLayout<'a> {
    name: usize,
    has_age: bool,
    /// The labels that fit, and the terminal columns of each.
    labels: &'a [String],
    cell: usize,
}

impl<'a> HostsLayout<'a> {
    pub(super) fn new(hosts: &'a HostList, columns: usize) -> Self {
        let longest = hosts.rows.iter().map(|row| visible(&row.host).width()).max().unwrap_or(0);
        let name = longest.clamp(4, (columns / 3).max(4));
        let has_age = columns >= 48;
        let taken = name + GAP + STATE + if has_age { GAP + AGE } else { 0 };
        let left = columns.saturating_sub(taken);
        let fitting = hosts.labels.len().min(left / (GAP + VALUE));
        let cell_max = VALUE + 1 + BAR + 1 + SPARK_HOUR;
        let cell = left.checked_div(fitting).map_or(0, |each| (each - GAP).min(cell_max));
        Self { name, has_age, labels: &hosts.labels[..fitting], cell }
    }

    pub(super) fn heading(&self, style: Style) -> String {
        let age = if self.has_age { format!("{}{:>AGE$}", " ".repeat(GAP), "AGE") } else { String::new() };
        let cells: String = self
            .labels
            .iter()
            .map(|label| {
                let label = visible(label).to_uppercase();
                let indent = VALUE.saturating_sub(label.width());
                " ".repeat(GAP) + &fit(&(" ".repeat(indent) + &label), self.cell)
            })
            .collect();
        style.paint(Tone::Bold, &format!("{}{}{:STATE$}{age}{cells}", fit("HOST", self.name), " ".repeat(GAP), "STAT"))
    }

    /// The row of a host, its name in a tone.
    pub(super) fn row(&self, row: &HostRow, style: Style, name: Tone) -> String {
        let gap = " ".repeat(GAP);
        // What is wrong with a host that is up stands in the place of its state.
        let (tone, state) = match row.severity() {
            Severity::Well => (Tone::Good, &*row.state),
            Severity::Late => (Tone::Warning, &*row.state),
            Severity::Memory => (Tone::Bad, "mem!"),
            Severity::Disk => (Tone::Bad, "dsk!"),
            Severity::Alert => (Tone::Bad, "fire"),
            Severity::Down => (Tone::Bad, &*row.state),
        };
        let mut line = style.paint(name, &fit_middle(&row.host, self.name));
        line += &gap;
        line += &style.paint(tone, &fit(state, STATE));
        if self.has_age {
            line += &gap;
            line += &style.paint(Tone::Faint, &format!("{:>AGE$}", age(row.age_sec)));
        }
        for label in self.labels {
            let series = row.series.get(label).map_or(&[][..], Vec::as_slice);
            line += &gap;
            let style = if row.state == "down" { style.without_colour() } else { style };
            line += &cell(label, row.value(label), series, self.cell, style);
        }
        line
    }
}

/// A value, with a bar and a sparkline where they fit.
fn cell(label: &str, latest: Option<f64>, series: &[Option<f64>], columns: usize, style: Style) -> String {
    let tone = tone_of(label, latest);
    let mut cell = style.paint(tone, &format!("{:>VALUE$}", number(label, latest)));
    let mut left = columns - VALUE;
    if is_percent(label) && left > BAR {
        cell += " ";
        cell += &style.paint(tone, &bar(latest, BAR));
        left -= BAR + 1;
    }
    if left > SPARK_MIN {
        let columns = (left - 1).min(SPARK_HOUR);
        cell += " ";
        cell += &style.paint(Tone::Faint, &sparkline(label, series, columns));
        left -= columns + 1;
    }
    cell + &" ".repeat(left)
}

fn tone_of(label: &str, value: Option<f64>) -> Tone {
    match value {
        Some(value) if is_percent(label) && value >= VERY_HIGH => Tone::Bad,
        Some(value) if is_percent(label) && value >= HIGH => Tone::Warning,
        Some(value) if is_percent(label) && value >= 0.0 => Tone::Good,
        _ => Tone::Plain,
    }
}

/// How many terminal columns each column of a host's labels has.
pub(super) struct HostLayout {
    label: usize,
    has_figures: bool,
    hour: usize,
    day: usize,
}

impl HostLayout {
    pub(super) fn new(host: &HostDetail, columns: usize) -> Self {
        let longest = host.rows.iter().map(|row| visible(&row.label).width()).max().unwrap_or(0);
        let label = longest.clamp(5, (columns / 3).max(5));
        let has_figures = columns >= label + 4 * (GAP + VALUE) + GAP + SPARK_MIN;
        let figures = if has_figures { 4 } else { 1 };
        let left = columns.saturating_sub(label + figures * (GAP + VALUE));
        let day = if left >= 2 * GAP + SPARK_HOUR + SPARK_DAY { SPARK_DAY } else { 0 };
        let left = left.saturating_sub(if day > 0 { GAP + day } else { 0 });
        let hour = left.saturating_sub(GAP).min(SPARK_HOUR);
        Self { label, has_figures, hour: if hour >= SPARK_MIN { hour } else { 0 }, day }
    }

    pub(super) fn heading(&self, style: Style) -> String {
        let gap = " ".repeat(GAP);
        let mut line = fit("LABEL", self.label);
        let figures: &[&str] = if self.has_figures { &["NOW", "MEAN", "MIN", "MAX"] } else { &["NOW"] };
        figures.iter().for_each(|figure| line += &format!("{gap}{figure:>VALUE$}"));
        for (title, columns) in [("LAST HOUR", self.hour), ("LAST DAY", self.day)] {
            if columns > 0 {
                line += &gap;
                line += &fit(title, columns);
            }
        }
        style.paint(Tone::Bold, &line)
    }

    /// The row of a label, its name in a tone.
    /// A mark before the value says that an alert fires.
    pub(super) fn row(&self, row: &LabelRow, has_alert: bool, style: Style, name: Tone) -> String {
        let gap = " ".repeat(GAP);
        let latest = row.minutes.iter().rev().take(2).find_map(|value| *value);
        let mut line = style.paint(name, &fit_middle(&row.label, self.label));
        line += if has_alert { " !" } else { &gap };
        let tone = if has_alert { Tone::Bad } else { tone_of(&row.label, latest) };
        line += &style.paint(tone, &format!("{:>VALUE$}", number(&row.label, latest)));
        if self.has_figures {
            for figure in [row.mean, row.min, row.max] {
                line += &format!("{gap}{:>VALUE$}", number(&row.label, figure));
            }
        }
        for (values, columns) in [(&row.minutes, self.hour), (&row.hours, self.day)] {
            if columns > 0 {
                line += &gap;
                line += &style.paint(Tone::Faint, &sparkline(&row.label, values, columns));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Snapshot {
        let row = |host: &str, state: &str, age_sec, cpu: &[Option<f64>]| HostRow {
            host: host.to_owned(),
            state: state.to_owned(),
            age_sec,
            series: [("cpu".to_owned(), cpu.to_vec())].into(),
            ..HostRow::default()
        };
        let rows = vec![
            row("jarvis", "up", 0, &[Some(10.0), Some(50.0), None]),
            row("a\u{1b}[2J漢", "down", 7200, &[None, None, Some(95.0)]),
        ];
        Snapshot::Hosts(HostList { labels: vec!["cpu".to_owned(), "mem".to_owned()], rows, count: 2 })
    }

    #[test]
    fn a_wider_terminal_shows_more_of_the_list() {
        assert_eq!(
            table(&hosts(), 30, Style::Plain),
            ["HOST     STAT      CPU", "jarvis   up      50.0%", "a\u{fffd}[2J漢  down    95.0%"]
        );
        let wide = table(&hosts(), 100, Style::Plain);
        assert_eq!(wide[0], "HOST     STAT     AGE      CPU                                    MEM");
        assert_eq!(wide[1], "jarvis   up       0 s    50.0% █████                     ▂▅         –");
        assert_eq!(wide[2], "a\u{fffd}[2J漢  down     2 h    95.0% █████████▌                  █        –");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let row = LabelRow {
            label: "disk-read".into(),
            minutes: vec![Some(1e9); 60],
            hours: vec![Some(2.0); 24],
            mean: Some(1.0),
            min: None,
            max: Some(1e300),
        };
        let host = Snapshot::Host(HostDetail {
            name: "h".into(),
            state: "up".into(),
            rows: vec![row],
            ..HostDetail::default()
        });
        for columns in 20..250 {
            for snapshot in [&hosts(), &host] {
                assert!(table(snapshot, columns, Style::Plain).iter().all(|line| line.width() <= columns), "{columns}");
            }
        }
        let day = table(&host, 200, Style::Plain);
        assert!(
            day[0].ends_with("LAST DAY") && day[1].contains("1.0G") && day[1].ends_with(&"█".repeat(24)),
            "{day:?}"
        );
    }

    #[test]
    fn colour_is_around_text_and_nowhere_else() {
        let plain = table(&hosts(), 100, Style::Plain).join("\n");
        assert!(!plain.contains('\x1b'));
        let colour = table(&hosts(), 100, Style::Colour).join("\n");
        assert!(colour.contains("\x1b[32mup  \x1b[0m") && colour.contains("\x1b[31mdown\x1b[0m"));
        let mut stripped = colour;
        for code in ["0", "1", "2", "31", "32", "33"] {
            stripped = stripped.replace(&format!("\x1b[{code}m"), "");
        }
        let trimmed: Vec<&str> = stripped.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n"), plain);
    }
}
