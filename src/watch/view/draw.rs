//! How the view is drawn: the title, what is wrong, the table or a graph, and the help.

use unicode_width::UnicodeWidthStr;

use super::{FRAME_ROWS, Line, Order, View};
use crate::sanitize::visible;
use crate::watch::Query;
use crate::watch::alerts::Alert;
use crate::watch::format::{Axis, age, fit, fit_middle, graph, number};
use crate::watch::graph::{Graph, Range};
use crate::watch::render::{HostLayout, HostsLayout, Style, Tone, unknown};
use crate::watch::snapshot::{HostDetail, HostList, HostRow, Severity, Snapshot};

/// Most problems in one line.
const PROBLEMS_MAX: usize = 20;

/// The keys, which are those of the page.
const HELP: [&str; 13] = [
    "/      filter: parts of names, is:down, is:problem, tag:key=value",
    "j k    down and up, as the arrows",
    "Enter  open a host; of a label, its graph",
    "Esc    back",
    "s S    sort by the next, and the other way round",
    "g      group by the first word of names, or a tag",
    "!      problems only",
    "r      another range of a graph",
    "p      pause",
    "Space  a screen down; Home, End",
    "q      quit",
    "",
    "Any key closes this.",
];

impl View {
    /// The whole screen, as at most `rows` lines.
    pub(in crate::watch) fn draw(&mut self, columns: usize, rows: usize, style: Style) -> Vec<String> {
        let body = rows.saturating_sub(FRAME_ROWS);
        if let Some(index) = self.selected_line() {
            self.top = self.top.clamp((index + 1).saturating_sub(body.max(1)), index);
        }
        self.top = self.top.min(self.line_count().saturating_sub(body));
        let mut lines =
            vec![style.paint(Tone::Selected, &fit(&self.title(columns), columns)), self.notice(columns, style)];
        lines.extend(self.table(columns, body, style));
        lines.resize(rows.saturating_sub(1).max(2), String::new());
        lines.push(style.paint(Tone::Faint, fit(&self.help(), columns.saturating_sub(1)).trim_end()));
        lines.truncate(rows);
        lines
    }

    fn table(&self, columns: usize, body: usize, style: Style) -> Vec<String> {
        let mut lines = Vec::with_capacity(body + 1);
        if self.shows_help {
            lines.extend(HELP.iter().take(body + 1).map(|line| fit(line, columns)));
            return lines;
        }
        match &self.snapshot {
            None => lines.push(format!("Asking {} …", self.url)),
            Some(Snapshot::Hosts(hosts)) => {
                let layout = HostsLayout::new(hosts, columns);
                lines.push(layout.heading(style));
                for line in self.lines().iter().skip(self.top).take(body) {
                    lines.push(match line {
                        Line::Group(head) => style.paint(Tone::Bold, &fit(head, columns)),
                        Line::Host(row) => {
                            let is_selected = self.selected.as_ref() == Some(&row.host);
                            layout.row(row, style, if is_selected { Tone::Selected } else { Tone::Plain })
                        }
                    });
                }
            }
            Some(Snapshot::Unknown(name)) => lines.push(fit(&unknown(name), columns)),
            Some(Snapshot::Host(host)) if self.shows_graph => lines.extend(self.graph(host, columns, body + 1, style)),
            Some(Snapshot::Host(host)) => {
                let layout = HostLayout::new(host, columns);
                lines.push(layout.heading(style));
                let shown = self.shown_labels();
                lines.extend(shown.iter().skip(self.top).take(body).map(|row| {
                    let is_selected = self.label.as_ref() == Some(&row.label);
                    layout.row(row, host.has_alert(row), style, if is_selected { Tone::Selected } else { Tone::Plain })
                }));
            }
        }
        lines
    }

    /// The graph of the selected label, with its figures above.
    fn graph(&self, host: &HostDetail, columns: usize, rows: usize, style: Style) -> Vec<String> {
        let Some(row) = host.rows.iter().find(|row| Some(&row.label) == self.label.as_ref()) else {
            return vec![fit("It is not reported any more.", columns)];
        };
        let is_asked = |graph: &&Graph| graph.query.label == row.label && graph.query.range == self.range;
        let asked = host.graph.as_ref().filter(is_asked);
        let values = match (self.range, asked) {
            (Range::Hour, _) => &row.minutes,
            (Range::Day, None) => &row.hours,
            (_, Some(graph)) => &graph.values,
            (_, None) => return vec![fit(&format!("Asking {} …", self.url), columns)],
        };
        let newest = values.iter().rev().find_map(|value| *value);
        let known = || values.iter().flatten().copied();
        let figures = [("now", newest), ("least", known().reduce(f64::min)), ("most", known().reduce(f64::max))];
        let figures = figures.map(|(name, value)| format!("  {name} {}", number(&row.label, value))).concat();
        let label = visible(&row.label);
        let head =
            format!("{}{figures}", fit_middle(&label, label.width().min(columns.saturating_sub(figures.width()))));
        let head = style.paint(Tone::Bold, &fit(&head, columns));
        let alerts = || host.alerts.iter().filter(|alert| alert.is_of(&row.label));
        let thresholds: Vec<f64> = alerts().filter_map(|alert| alert.threshold).collect();
        let fires = alerts().filter_map(|alert| Some((alert.fired_at?, host.now_sec)));
        let fired = asked.iter().flat_map(|graph| graph.fired.iter().copied()).chain(fires);
        let axis = Axis {
            oldest: self.range.oldest(),
            marks: fired.filter_map(|fired| share_of_range(fired, self.range, host.now_sec)).collect(),
        };
        let size = (columns, rows.saturating_sub(1));
        [head].into_iter().chain(graph(&row.label, values, &thresholds, &axis, size)).collect()
    }

    /// What is shown, and at the right where it is from or how many there are.
    fn title(&self, columns: usize) -> String {
        let (left, right) = match (&self.query, &self.snapshot) {
            (Query::Host { name, .. }, Some(Snapshot::Host(host))) => {
                let tags = host.tags.iter().map(|(key, value)| format!("  {}={}", visible(key), visible(value)));
                let tags = tags.collect::<String>();
                (
                    format!(" {}  {}, {} ago{tags}", visible(name), host.state, age(host.age_sec)),
                    format!("{} ", self.url),
                )
            }
            (Query::Host { name, .. }, _) => (format!(" {}", visible(name)), format!("{} ", self.url)),
            (_, Some(Snapshot::Hosts(hosts))) => (format!(" lizm {}", self.url), counts(hosts)),
            _ => (format!(" lizm {}", self.url), String::new()),
        };
        // What is counted is worth more than where it is from.
        let is_list = matches!(self.query, Query::Hosts { .. });
        let room = if is_list { columns.saturating_sub(right.width() + 1).max(1) } else { columns };
        let left = if left.width() > room { fit_middle(&left, room) } else { left };
        let gap = columns.saturating_sub(left.width() + right.width()).max(1);
        left + &" ".repeat(gap) + &right
    }

    /// One line about what is wrong, or empty.
    fn notice(&self, columns: usize, style: Style) -> String {
        if let Some((why, since)) = &self.error {
            let kept = if self.snapshot.is_some() { "; the last answer is shown" } else { "" };
            let text = format!("No answer for {}{kept}: {why}", age(since.elapsed().as_secs()));
            return style.paint(Tone::Bad, fit(&text, columns).trim_end());
        }
        match &self.snapshot {
            Some(Snapshot::Hosts(hosts)) if hosts.rows.is_empty() => "No host has reported yet.".to_owned(),
            Some(Snapshot::Hosts(hosts)) if hosts.rows.len() < hosts.count => {
                fit(&format!("The first {} of {} hosts.", hosts.rows.len(), hosts.count), columns)
            }
            Some(Snapshot::Hosts(_)) if self.line_count() == 0 && self.has_problems_only => {
                "No host has a problem.".to_owned()
            }
            Some(Snapshot::Unknown(_)) | None => String::new(),
            Some(_) if self.line_count() == 0 => "No name matches the filter.".to_owned(),
            Some(_) if self.is_paused => "Paused: p goes on.".to_owned(),
            Some(Snapshot::Hosts(hosts)) => style.paint(Tone::Bad, fit(&problems(hosts), columns).trim_end()),
            Some(Snapshot::Host(host)) => style.paint(Tone::Bad, fit(&texts(&host.alerts), columns).trim_end()),
        }
    }

    fn help(&self) -> String {
        let filter = match self.query {
            Query::Hosts { .. } => &self.hosts_filter,
            Query::Host { .. } => &self.labels_filter,
        };
        if self.is_typing {
            return format!("/{filter}▏  Enter keeps the filter, Esc clears it");
        }
        let filtered = if filter.is_empty() { "/ filter".to_owned() } else { format!("/ filter: {filter}") };
        match self.query {
            Query::Hosts { .. } => {
                let order = match self.order {
                    Order::Problems => "problems",
                    Order::Name => "name",
                    Order::Label(index) => self.labels.get(index).map_or("", String::as_str),
                };
                format!("q quit   ? help   {filtered}   s sorted by {order}   Enter open a host")
            }
            Query::Host { .. } if self.shows_graph => {
                "q quit   ? help   r another range   Esc back to the labels".to_owned()
            }
            Query::Host { .. } => format!("q quit   ? help   {filtered}   Enter a graph   Esc back to the hosts"),
        }
    }
}

/// Which part of a range that ends at `now` a time takes, from 0 to 1; `None` where it is over before.
fn share_of_range((from, to): (u64, u64), range: Range, now: u64) -> Option<(f64, f64)> {
    let sec = range.hours() * 3600;
    let begin = now.saturating_sub(sec);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a year at most")]
    let share = |at: u64| at.clamp(begin, now).saturating_sub(begin) as f64 / sec as f64;
    (to >= begin && from <= now).then(|| (share(from), share(to)))
}

/// What needs attention, the worst first, as far as a line can have it.
fn problems(hosts: &HostList) -> String {
    let value = |row: &HostRow, label| number(label, row.value(label));
    let problems = hosts.rows.iter().take(PROBLEMS_MAX).filter_map(|row| {
        let what = match row.severity() {
            Severity::Down => format!("down for {}", age(row.age_sec)),
            Severity::Alert => texts(&row.alerts),
            Severity::Disk => format!("disk {}", value(row, "disk")),
            Severity::Memory => format!("mem {}", value(row, "mem")),
            Severity::Late | Severity::Well => return None,
        };
        Some(format!("{} {what}", visible(&row.host)))
    });
    problems.collect::<Vec<_>>().join("  ")
}

/// Alerts, side by side.
fn texts(alerts: &[Alert]) -> String {
    alerts.iter().map(Alert::text).collect::<Vec<_>>().join("  ")
}

/// How many hosts there are in each state.
fn counts(hosts: &HostList) -> String {
    let of = |state: &str| hosts.rows.iter().filter(|row| row.state == state).count();
    let states = ["up", "late", "conflict", "down"].map(|state| (state, of(state)));
    let states = states.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {state} "));
    states.collect()
}
