//! What is on the screen, and what keys change of it.

mod draw;
mod groups;

use std::time::Instant;

use groups::{Grouping, has_tag};

use super::format::number;
use super::graph::{GraphQuery, Range};
use super::snapshot::{HostRow, LabelRow, Severity, Snapshot};
use super::terminal::Key;
use super::{DEFAULT_LABELS, Options, Query};
use crate::sanitize::visible;

/// Lines of the screen that are no rows of the table: title, notice, heading, help.
const FRAME_ROWS: usize = 4;
/// Most characters of a filter: as long as a host's name can be.
const FILTER_MAX: usize = 255;

/// What the hosts are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Problems,
    Name,
    /// The label of this index, the largest value first.
    Label(usize),
}

/// A line of the list of hosts.
enum Line<'a> {
    /// The head of a group.
    Group(String),
    Host(&'a HostRow),
}

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
    order: Order,
    is_reversed: bool,
    has_problems_only: bool,
    grouping: Option<Grouping>,
    is_paused: bool,
    shows_help: bool,
    /// The selected host. It stays selected when its row moves.
    selected: Option<String>,
    /// The selected label of the host that is shown, whether its graph is shown, and how far back that goes.
    label: Option<String>,
    shows_graph: bool,
    range: Range,
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
            order: Order::Problems,
            is_reversed: false,
            has_problems_only: false,
            grouping: None,
            is_paused: false,
            shows_help: false,
            selected: None,
            label: None,
            shows_graph: false,
            range: Range::default(),
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
                    (Query::Host { name, .. }, Snapshot::Unknown(host)) => name == host,
                    _ => false,
                };
                if is_current && !(self.is_paused && self.snapshot.is_some()) {
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
            _ if self.shows_help => self.shows_help = false,
            Key::Character('?') => self.shows_help = true,
            Key::Character('p') => self.is_paused = !self.is_paused,
            Key::Character('r') => {
                self.range = self.range.next();
                return self.ask_for_graph();
            }
            Key::Escape | Key::Backspace | Key::Enter if self.shows_graph => {
                self.shows_graph = false;
                return self.ask_for_graph();
            }
            Key::Character('/') => self.is_typing = !self.shows_graph,
            Key::Character('s') => self.sort_by_next(),
            Key::Character('S') => self.is_reversed = !self.is_reversed,
            Key::Character('!') => self.has_problems_only = !self.has_problems_only,
            Key::Character('g') => self.group_by_next(),
            Key::Up | Key::Character('k') => self.move_by(-1),
            Key::Down | Key::Character('j') => self.move_by(1),
            Key::PageUp => self.move_by(-page),
            Key::PageDown | Key::Character(' ') => self.move_by(page),
            Key::Home => self.move_by(isize::MIN),
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

    fn sort_by_next(&mut self) {
        self.order = match self.order {
            Order::Problems => Order::Name,
            Order::Name => Order::Label(0),
            Order::Label(index) => Order::Label(index + 1),
        };
        if matches!(self.order, Order::Label(index) if index >= self.labels.len()) {
            self.order = Order::Problems;
        }
        (self.is_reversed, self.top) = (false, 0);
    }

    fn group_by_next(&mut self) {
        let Some(Snapshot::Hosts(hosts)) = &self.snapshot else { return };
        self.grouping = Grouping::next(self.grouping.as_ref(), hosts.rows.iter());
    }

    /// Moves the selection by a number of rows.
    fn move_by(&mut self, by: isize) {
        let names = self.names();
        let index = self.selected_place(&names).unwrap_or(0);
        let next = index.saturating_add_signed(by.max(-index.cast_signed())).min(names.len().saturating_sub(1));
        let name = names.get(next).map(|name| (*name).to_owned());
        *self.selection() = name;
    }

    /// What can be selected, in the order of the screen: hosts, or labels.
    fn names(&self) -> Vec<&str> {
        match self.query {
            Query::Hosts { .. } => self.shown_hosts().iter().map(|row| &*row.host).collect(),
            Query::Host { .. } => self.shown_labels().iter().map(|row| &*row.label).collect(),
        }
    }

    fn selection(&mut self) -> &mut Option<String> {
        match self.query {
            Query::Hosts { .. } => &mut self.selected,
            Query::Host { .. } => &mut self.label,
        }
    }

    fn selected_place(&self, names: &[&str]) -> Option<usize> {
        let selected = match self.query {
            Query::Hosts { .. } => self.selected.as_deref(),
            Query::Host { .. } => self.label.as_deref(),
        };
        names.iter().position(|name| Some(*name) == selected)
    }

    fn open(&mut self) -> Action {
        let names = self.names();
        let selected = self.selected_place(&names).unwrap_or(0);
        if let Query::Host { .. } = self.query {
            let label = names.get(selected).map(|name| (*name).to_owned());
            (self.shows_graph, self.label) = (label.is_some(), label);
            return self.ask_for_graph();
        }
        let Some(row) = self.shown_hosts().get(selected).copied() else { return Action::None };
        let name = row.host.clone();
        self.selected = Some(name.clone());
        self.change_query(Query::Host { name, text: String::new(), graph: None })
    }

    /// Asks for the graph that is shown, or for none any more.
    fn ask_for_graph(&mut self) -> Action {
        let (label, range) = (self.label.clone().filter(|_| self.shows_graph), self.range);
        let Query::Host { graph, .. } = &mut self.query else { return Action::None };
        let shown = label.map(|label| GraphQuery { label, range });
        if *graph == shown {
            return Action::None;
        }
        *graph = shown;
        Action::Ask(self.query.clone())
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
        (self.label, self.shows_graph) = (None, false);
        self.labels_filter.clear();
        self.query = query.clone();
        Action::Ask(query)
    }

    /// The hosts that match the filter, in the order of the screen.
    fn shown_hosts(&self) -> Vec<&HostRow> {
        let Some(Snapshot::Hosts(hosts)) = &self.snapshot else { return Vec::new() };
        let filter = self.hosts_filter.to_lowercase();
        let is_shown = |row: &&HostRow| {
            let is_problem = row.severity() > Severity::Late;
            (is_problem || !self.has_problems_only) && filter.split_whitespace().all(|word| is_like(row, word))
        };
        let mut shown: Vec<&HostRow> = hosts.rows.iter().filter(is_shown).collect();
        match self.order {
            // They come so.
            Order::Problems => {}
            Order::Name => shown.sort_by(|a, b| a.host.cmp(&b.host)),
            Order::Label(index) => {
                let label = hosts.labels.get(index).map_or("", String::as_str);
                let load = |row: &HostRow| row.value(label).unwrap_or(f64::NEG_INFINITY);
                shown.sort_by(|a, b| load(b).total_cmp(&load(a)));
            }
        }
        if self.is_reversed {
            shown.reverse();
        }
        if let Some(grouping) = &self.grouping {
            shown.sort_by_key(|row| grouping.of(row));
        }
        shown
    }

    /// The list of hosts, with the heads of groups where there are some.
    fn lines(&self) -> Vec<Line<'_>> {
        let shown = self.shown_hosts();
        let Some(grouping) = &self.grouping else {
            return shown.into_iter().map(Line::Host).collect();
        };
        let groups = shown.chunk_by(|a, b| grouping.of(a) == grouping.of(b));
        let with_head = groups.flat_map(|members| {
            let hosts = members.iter().copied().map(Line::Host);
            let name = members.first().map_or("", |row| grouping.of(row));
            [Line::Group(self.group_head(name, members))].into_iter().chain(hosts)
        });
        with_head.collect()
    }

    /// The name of a group, how many hosts it has, the worst state and the means.
    fn group_head(&self, name: &str, members: &[&HostRow]) -> String {
        let name = if name.is_empty() { "no tag" } else { name };
        let worst = members.iter().max_by_key(|row| row.severity()).map_or("", |row| &row.state);
        let hosts = if members.len() == 1 { "host" } else { "hosts" };
        let mut head = format!("{}  {} {hosts}, {worst}", visible(name), members.len());
        for label in &self.labels {
            let values: Vec<f64> = members.iter().filter_map(|row| row.value(label)).collect();
            if !values.is_empty() {
                #[expect(clippy::cast_precision_loss, reason = "a count of hosts")]
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                head += &format!(", {} {}", visible(label), number(label, Some(mean)));
            }
        }
        head
    }

    /// The labels that match the filter.
    fn shown_labels(&self) -> Vec<&LabelRow> {
        let Some(Snapshot::Host(host)) = &self.snapshot else { return Vec::new() };
        let filter = self.labels_filter.to_lowercase();
        host.rows.iter().filter(|row| row.label.to_lowercase().contains(&filter)).collect()
    }

    /// The place of the selection among all lines of the screen's table.
    fn selected_line(&self) -> Option<usize> {
        match self.query {
            Query::Hosts { .. } => {
                let is_it =
                    |line: &Line<'_>| matches!(line, Line::Host(row) if Some(&row.host) == self.selected.as_ref());
                self.lines().iter().position(is_it)
            }
            Query::Host { .. } => self.selected_place(&self.names()),
        }
    }

    fn line_count(&self) -> usize {
        match self.query {
            Query::Hosts { .. } => self.lines().len(),
            Query::Host { .. } => self.shown_labels().len(),
        }
    }
}

/// Whether a word of the filter, in lower case, fits a host.
fn is_like(row: &HostRow, word: &str) -> bool {
    match word.split_once(':') {
        Some(("is", "problem")) => row.severity() > Severity::Late,
        Some(("is", state)) => row.state == state,
        Some(("tag", tag)) => has_tag(row, tag),
        _ => row.host.to_lowercase().contains(word),
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::client;
    use crate::url::Url;
    use crate::watch::graph::Graph;
    use crate::watch::render::Style;
    use crate::watch::snapshot::HostDetail;
    use crate::watch::snapshot::HostList;

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
            ..HostRow::default()
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
        press(&mut view, "ss");
        let shown = screen(&mut view);
        assert!(shown.contains("sorted by cpu") && shown.contains("host03"), "{shown}");
        press(&mut view, "ss");
        assert!(screen(&mut view).contains("sorted by problems"));
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
        let query = Query::Host { name: "host01".to_owned(), text: String::new(), graph: None };
        assert_eq!(view.handle_key(Key::Enter, 14), Action::Ask(query));
        let late = HostList { labels: options_labels(), rows: Vec::new(), count: 0 };
        view.update(Ok(Snapshot::Hosts(late)), Instant::now());
        assert!(screen(&mut view).contains("Asking http://r"), "the answer was to another query");
        view.update(Ok(Snapshot::Unknown("host01".to_owned())), Instant::now());
        let shown = screen(&mut view);
        assert!(shown.contains("Host host01 is not known there") && !shown.contains("No answer"), "{shown}");
        let row = LabelRow { label: "cpu".to_owned(), minutes: vec![Some(12.5)], ..LabelRow::default() };
        view.update(
            Ok(Snapshot::Host(HostDetail {
                name: "host01".to_owned(),
                state: "late".to_owned(),
                age_sec: 75,
                tags: [("role".to_owned(), "web".to_owned())].into(),
                alerts: vec![serde_json::from_str(
                    r#"{"name": "busy", "host": "host01", "series": "cpu", "state": "firing", "value": 12.5, "comparison": ">", "threshold": 5}"#,
                ).unwrap()],
                rows: vec![row],
                ..HostDetail::default()
            })),
            Instant::now(),
        );
        let shown = screen(&mut view);
        assert!(shown.starts_with(" host01  late, 75 s ago  role=web ") && shown.contains("cpu   !  12.5%"), "{shown}");
        assert!(shown.contains("busy cpu 12.5% (> 5.0%)"), "{shown}");
        view.handle_key(Key::Down, 14);
        view.handle_key(Key::Enter, 14);
        let shown = screen(&mut view);
        assert!(
            shown.contains("cpu  now 12.5%")
                && shown.contains(" 100.0% │")
                && shown.contains("60 min ago")
                && shown.contains("⠂⠂⠂⠂"),
            "{shown}"
        );
        for oldest in ["24 h ago", "7 days ago"] {
            assert!(matches!(view.handle_key(Key::Character('r'), 14), Action::Ask(_)));
            assert_eq!(screen(&mut view).contains(oldest), oldest == "24 h ago", "a week is asked for first");
        }
        let query = GraphQuery { label: "cpu".to_owned(), range: Range::Week };
        let graph = Some(Graph { query, values: vec![Some(1.0), Some(70.0)], fired: vec![(900_000, 950_000)] });
        let Some(Snapshot::Host(host)) = view.snapshot.clone() else { unreachable!("a host is shown") };
        view.update(Ok(Snapshot::Host(HostDetail { graph, now_sec: 1_000_000, ..host })), Instant::now());
        let shown = screen(&mut view);
        assert!(shown.contains("7 days ago") && shown.contains("now 70.0%") && shown.contains("─━━━━━━━─"), "{shown}");
        let query = Query::Host { name: "host01".to_owned(), text: String::new(), graph: None };
        assert_eq!(view.handle_key(Key::Escape, 14), Action::Ask(query));
        assert_eq!(view.handle_key(Key::Escape, 14), Action::Ask(Query::Hosts { labels: options_labels() }));
    }

    #[test]
    fn problems_come_first_and_may_be_alone() {
        let mut view = view();
        let Some(Snapshot::Hosts(hosts)) = &mut view.snapshot else { unreachable!("the list is shown") };
        hosts.rows[7].state = "down".to_owned();
        hosts.rows[9].latest = [("disk:/var".to_owned(), 93.0)].into();
        hosts.rows.sort_by_key(|row| std::cmp::Reverse(row.severity()));
        let names = |view: &View| view.shown_hosts().iter().map(|row| row.host.clone()).collect::<Vec<_>>();
        assert_eq!(names(&view)[..3], ["host07", "host09", "host00"]);
        press(&mut view, "!");
        assert_eq!(names(&view), ["host07", "host09"]);
        assert!(screen(&mut view).contains("host09  dsk!"));
        press(&mut view, "!/is:down host");
        assert_eq!(names(&view), ["host07"]);
        view.handle_key(Key::Escape, 14);
        press(&mut view, "gS");
        let shown = screen(&mut view);
        assert!(shown.contains("host  30 hosts, down, cpu "), "{shown}");
        press(&mut view, "?");
        assert!(screen(&mut view).contains("another range"));
        press(&mut view, "x");
        assert!(!screen(&mut view).contains("another range"));
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
