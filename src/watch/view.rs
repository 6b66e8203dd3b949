//! What is on the screen, and what keys change of it.

use std::time::Instant;

use unicode_width::UnicodeWidthStr;

use super::format::{age, fit};
use super::render::{HostLayout, HostsLayout, Style, Tone};
use super::snapshot::{HostList, HostRow, LabelRow, Snapshot};
use super::terminal::Key;
use super::{DEFAULT_LABELS, Options, Query};
use crate::sanitize::visible;

/// Lines of the screen that are no rows of the table: title, notice, heading, help.
const FRAME_ROWS: usize = 4;
/// Most characters of a filter: as long as a host's name can be.
const FILTER_MAX: usize = 255;

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Ask(Query),
    Quit,
}

/// The state of the screen.
pub(super) struct View {
    /// The receiver's URL, as it may be shown.
    url: String,
    query: Query,
    /// The labels of the list of hosts, also while a host is shown.
    labels: Vec<String>,
    snapshot: Option<Snapshot>,
    /// Why the last request failed, and when the first of the failures in a row was.
    error: Option<(String, Instant)>,
    hosts_filter: String,
    labels_filter: String,
    is_typing: bool,
    /// The index of the label that the hosts are sorted by, the largest value first; `None` sorts by name.
    sorted_by: Option<usize>,
    /// The selected host. It stays selected when its row moves.
    selected: Option<String>,
    /// The index of the first row on the screen.
    top: usize,
}

impl View {
    pub(super) fn new(options: &Options) -> Self {
        let query = options.query();
        let labels = match &query {
            Query::Hosts { labels } => labels.clone(),
            Query::Host { .. } => DEFAULT_LABELS.map(str::to_owned).into(),
        };
        Self {
            url: visible(&options.receiver.url.to_string()),
            query,
            labels,
            snapshot: None,
            error: None,
            hosts_filter: String::new(),
            labels_filter: String::new(),
            is_typing: false,
            sorted_by: None,
            selected: None,
            top: 0,
        }
    }

    /// Shows an answer that came at `now`. The answer to an earlier query is ignored.
    pub(super) fn update(&mut self, answer: Result<Snapshot, String>, now: Instant) {
        match answer {
            Ok(snapshot) => {
                let is_current = match (&self.query, &snapshot) {
                    (Query::Hosts { .. }, Snapshot::Hosts(_)) => true,
                    (Query::Host { name, .. }, Snapshot::Host(host)) => *name == host.name,
                    _ => false,
                };
                if is_current {
                    (self.snapshot, self.error) = (Some(snapshot), None);
                }
            }
            Err(why) => {
                let since = self.error.as_ref().map_or(now, |(_, since)| *since);
                self.error = Some((why, since));
            }
        }
    }

    /// Changes the view as a key asks for, on a screen of `rows` rows.
    pub(super) fn handle_key(&mut self, key: Key, rows: usize) -> Action {
        let page = rows.saturating_sub(FRAME_ROWS).max(1).cast_signed();
        match key {
            Key::Interrupt => return Action::Quit,
            key if self.is_typing => self.type_filter(key),
            Key::Character('q') => return Action::Quit,
            Key::Character('/') => self.is_typing = true,
            Key::Character('s') => self.sort_by_next_label(),
            Key::Up | Key::Character('k') => self.move_by(-1),
            Key::Down | Key::Character('j') => self.move_by(1),
            Key::PageUp => self.move_by(-page),
            Key::PageDown | Key::Character(' ') => self.move_by(page),
            Key::Home | Key::Character('g') => self.move_by(isize::MIN),
            Key::End | Key::Character('G') => self.move_by(isize::MAX),
            Key::Enter => return self.open(),
            Key::Escape | Key::Backspace => return self.back(),
            Key::Character(_) => {}
        }
        Action::None
    }

    fn filter(&mut self) -> &mut String {
        match self.query {
            Query::Hosts { .. } => &mut self.hosts_filter,
            Query::Host { .. } => &mut self.labels_filter,
        }
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Character(character) if self.filter().chars().count() < FILTER_MAX => self.filter().push(character),
            Key::Backspace => drop(self.filter().pop()),
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                self.filter().clear();
                self.is_typing = false;
            }
            _ => {}
        }
        self.top = 0;
    }

    fn sort_by_next_label(&mut self) {
        let next = self.sorted_by.map_or(0, |index| index + 1);
        self.sorted_by = (next < self.labels.len()).then_some(next);
        self.top = 0;
    }

    /// Moves the selection by a number of rows; in a host, scrolls.
    fn move_by(&mut self, by: isize) {
        let last = self.row_count().saturating_sub(1);
        let index = self.selected_index().unwrap_or(self.top);
        let next = index.saturating_add_signed(by.max(-index.cast_signed())).min(last);
        match self.shown_hosts().get(next).map(|row| row.host.clone()) {
            Some(host) => self.selected = Some(host),
            None => self.top = next,
        }
    }

    fn open(&mut self) -> Action {
        let selected = self.selected_index();
        let Some(row) = self.shown_hosts().get(selected.unwrap_or(0)).copied() else { return Action::None };
        let name = row.host.clone();
        self.selected = Some(name.clone());
        self.change_query(Query::Host { name, text: String::new() })
    }

    fn back(&mut self) -> Action {
        let filter = self.filter();
        if !filter.is_empty() {
            filter.clear();
            return Action::None;
        }
        match &self.query {
            Query::Hosts { .. } => Action::None,
            Query::Host { name, .. } => {
                self.selected = Some(name.clone());
                self.change_query(Query::Hosts { labels: self.labels.clone() })
            }
        }
    }

    fn change_query(&mut self, query: Query) -> Action {
        (self.snapshot, self.error, self.top) = (None, None, 0);
        self.labels_filter.clear();
        self.query = query.clone();
        Action::Ask(query)
    }

    /// The hosts that match the filter, in the order of the screen.
    fn shown_hosts(&self) -> Vec<&HostRow> {
        let Some(Snapshot::Hosts(hosts)) = &self.snapshot else { return Vec::new() };
        let filter = self.hosts_filter.to_lowercase();
        let mut shown: Vec<&HostRow> =
            hosts.rows.iter().filter(|row| row.host.to_lowercase().contains(&filter)).collect();
        if let Some(label) = self.sorted_by.and_then(|index| hosts.labels.get(index)) {
            let load = |row: &HostRow| {
                let series = row.series.get(label).map_or(&[][..], Vec::as_slice);
                series.iter().rev().take(2).find_map(|value| *value).unwrap_or(f64::NEG_INFINITY)
            };
            shown.sort_by(|a, b| load(b).total_cmp(&load(a)));
        }
        shown
    }

    /// The labels that match the filter.
    fn shown_labels(&self) -> Vec<&LabelRow> {
        let Some(Snapshot::Host(host)) = &self.snapshot else { return Vec::new() };
        let filter = self.labels_filter.to_lowercase();
        host.rows.iter().filter(|row| row.label.to_lowercase().contains(&filter)).collect()
    }

    fn row_count(&self) -> usize {
        match self.query {
            Query::Hosts { .. } => self.shown_hosts().len(),
            Query::Host { .. } => self.shown_labels().len(),
        }
    }

    fn selected_index(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.shown_hosts().iter().position(|row| row.host == *selected)
    }

    /// The whole screen, as at most `rows` lines.
    pub(super) fn draw(&mut self, columns: usize, rows: usize, style: Style) -> Vec<String> {
        let body = rows.saturating_sub(FRAME_ROWS);
        if let Some(index) = self.selected_index() {
            self.top = self.top.clamp((index + 1).saturating_sub(body.max(1)), index);
        }
        self.top = self.top.min(self.row_count().saturating_sub(body));
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
        match &self.snapshot {
            None => lines.push(format!("Asking {} …", self.url)),
            Some(Snapshot::Hosts(hosts)) => {
                let layout = HostsLayout::new(hosts, columns);
                lines.push(layout.heading(style));
                let shown = self.shown_hosts();
                let selected = self.selected_index();
                for (index, row) in shown.iter().enumerate().skip(self.top).take(body) {
                    let tone = if selected == Some(index) { Tone::Selected } else { Tone::Plain };
                    lines.push(layout.row(row, style, tone));
                }
            }
            Some(Snapshot::Host(host)) => {
                let layout = HostLayout::new(host, columns);
                lines.push(layout.heading(style));
                let shown = self.shown_labels();
                lines.extend(shown.iter().skip(self.top).take(body).map(|row| layout.row(row, style)));
            }
        }
        lines
    }

    /// What is shown, and at the right where it is from or how many there are.
    fn title(&self, columns: usize) -> String {
        let (left, right) = match (&self.query, &self.snapshot) {
            (Query::Host { name, .. }, _) => (format!(" {}", visible(name)), format!("{} ", self.url)),
            (_, Some(Snapshot::Hosts(hosts))) => (format!(" lizm {}", self.url), counts(hosts)),
            _ => (format!(" lizm {}", self.url), String::new()),
        };
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
            Some(_) if self.row_count() == 0 => "No name matches the filter.".to_owned(),
            _ => String::new(),
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
                let order = self.sorted_by.and_then(|index| self.labels.get(index)).map_or("name", String::as_str);
                format!("q quit   {filtered}   s sorted by {order}   ↑↓ Enter open a host")
            }
            Query::Host { .. } => format!("q quit   {filtered}   ↑↓ scroll   Esc back to the hosts"),
        }
    }
}

/// How many hosts there are in each state.
fn counts(hosts: &HostList) -> String {
    let of = |state: &str| hosts.rows.iter().filter(|row| row.state == state).count();
    let states = ["up", "late", "conflict", "down"].map(|state| (state, of(state)));
    let states = states.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {state} "));
    states.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client;
    use crate::url::Url;
    use crate::watch::snapshot::HostDetail;

    fn view() -> View {
        let url = Url::parse("http://r").unwrap();
        let receiver = client::Options { url, ca: None, password_file: None };
        let options = Options { receiver, host: None, label: None, once: false };
        let mut view = View::new(&options);
        let row = |n: u32| HostRow {
            host: format!("host{n:02}"),
            state: "up".to_owned(),
            age_sec: 0,
            series: [("cpu".to_owned(), vec![Some(f64::from(n * 7 % 30))])].into(),
            start_sec: 0,
        };
        let hosts = HostList { labels: options_labels(), rows: (0..30).map(row).collect(), count: 30 };
        view.update(Ok(Snapshot::Hosts(hosts)), Instant::now());
        view
    }

    fn options_labels() -> Vec<String> {
        DEFAULT_LABELS.map(str::to_owned).into()
    }

    fn screen(view: &mut View) -> String {
        view.draw(80, 14, Style::Plain).join("\n")
    }

    fn press(view: &mut View, keys: &str) {
        keys.chars().for_each(|key| assert_eq!(view.handle_key(Key::Character(key), 14), Action::None));
    }

    #[test]
    fn the_filter_narrows_as_it_is_typed() {
        let mut view = view();
        assert!(screen(&mut view).contains("host09") && !screen(&mut view).contains("host10"));
        press(&mut view, "/T2");
        let shown = screen(&mut view);
        assert!(shown.contains("host20") && shown.contains("host29") && !shown.contains("host02"), "{shown}");
        assert!(shown.contains("/T2▏"));
        press(&mut view, "q");
        assert!(screen(&mut view).contains("No name matches"), "q is a letter while typing");
        view.handle_key(Key::Backspace, 14);
        view.handle_key(Key::Enter, 14);
        assert!(screen(&mut view).contains("/ filter: T2"));
        view.handle_key(Key::Escape, 14);
        assert!(screen(&mut view).contains("host00"));
        assert_eq!(view.handle_key(Key::Character('q'), 14), Action::Quit);
        press(&mut view, "/");
        assert_eq!(view.handle_key(Key::Interrupt, 14), Action::Quit);
    }

    #[test]
    fn the_selection_stays_on_its_host_when_rows_move() {
        let mut view = view();
        press(&mut view, "jjj");
        assert_eq!(view.selected.as_deref(), Some("host03"));
        press(&mut view, "s");
        let shown = screen(&mut view);
        assert!(shown.contains("sorted by cpu") && shown.contains("host03"), "{shown}");
        press(&mut view, "s");
        press(&mut view, "s");
        view.handle_key(Key::End, 14);
        assert!(screen(&mut view).contains("host29") && !screen(&mut view).contains("host10"));
        view.handle_key(Key::PageUp, 14);
        assert_eq!(view.selected.as_deref(), Some("host19"));
        view.handle_key(Key::Home, 14);
        assert_eq!(view.selected.as_deref(), Some("host00"));
    }

    #[test]
    fn a_host_opens_and_closes() {
        let mut view = view();
        press(&mut view, "j");
        let query = Query::Host { name: "host01".to_owned(), text: String::new() };
        assert_eq!(view.handle_key(Key::Enter, 14), Action::Ask(query));
        let late = HostList { labels: options_labels(), rows: Vec::new(), count: 0 };
        view.update(Ok(Snapshot::Hosts(late)), Instant::now());
        assert!(screen(&mut view).contains("Asking http://r"), "the answer was to another query");
        let row = LabelRow { label: "cpu".to_owned(), minutes: vec![Some(12.5)], ..LabelRow::default() };
        view.update(Ok(Snapshot::Host(HostDetail { name: "host01".to_owned(), rows: vec![row] })), Instant::now());
        assert!(screen(&mut view).contains("12.5%"));
        view.handle_key(Key::Down, 14);
        assert_eq!(view.handle_key(Key::Escape, 14), Action::Ask(Query::Hosts { labels: options_labels() }));
    }

    #[test]
    fn the_last_snapshot_stays_while_the_receiver_is_away() {
        let mut view = view();
        view.update(Err("http://r: refused\u{1b}[2J".to_owned()), Instant::now());
        let shown = screen(&mut view);
        assert!(
            shown.contains("No answer for 0 s; the last answer is shown: http://r: refused")
                && shown.contains("host00")
        );
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn the_screen_fits_any_terminal() {
        let mut view = view();
        press(&mut view, "jjjjjjjjjj");
        for (columns, rows) in [(1, 1), (5, 2), (10, 3), (20, 4), (39, 5), (80, 24), (300, 100)] {
            let lines = view.draw(columns, rows, Style::Plain);
            assert!(lines.len() <= rows, "{columns} x {rows}");
            assert!(columns < 20 || lines.iter().all(|line| line.width() <= columns), "{columns} x {rows}: {lines:?}");
        }
    }
}
