//! What is shown of the pictures, and what keys do about it.

use std::time::Instant;

use unicode_width::UnicodeWidthStr;

use super::client::{HostRow, Hosts, LabelRow, Snapshot};
use super::format::{age, fit};
use super::render::{HostLayout, HostsLayout, Style, Tone};
use super::terminal::Key;
use super::{DEFAULT_LABELS, Options, Query};
use crate::sanitize::visible;

/// Lines that are not rows of the picture: title, notice, heading, help.
const FRAME_ROWS: usize = 4;
/// Longest filter in characters: as long as a host's name.
const FILTER_MAX: usize = 255;

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Ask(Query),
    Quit,
}

/// What is shown.
pub(super) struct View {
    url: String,
    want: Query,
    /// The list to go back to from a host.
    labels: Vec<String>,
    picture: Option<Snapshot>,
    /// Why there is no newer picture, and since when.
    trouble: Option<(String, Instant)>,
    hosts_filter: String,
    labels_filter: String,
    is_typing: bool,
    /// The label whose value the hosts are sorted by, the largest first; without one they are sorted by name.
    sorted_by: Option<usize>,
    /// The host that is marked, whatever its place.
    marked: Option<String>,
    /// The first row of the picture on the screen.
    top: usize,
}

impl View {
    pub(super) fn new(options: &Options) -> Self {
        let want = options.want();
        let labels = match &want {
            Query::Hosts { labels } => labels.clone(),
            Query::Host { .. } => DEFAULT_LABELS.map(str::to_owned).into(),
        };
        Self {
            url: options.url.clone(),
            want,
            labels,
            picture: None,
            trouble: None,
            hosts_filter: String::new(),
            labels_filter: String::new(),
            is_typing: false,
            sorted_by: None,
            marked: None,
            top: 0,
        }
    }

    /// Takes an answer that came at `now`. One to a question from before is left.
    pub(super) fn take(&mut self, answer: Result<Snapshot, String>, now: Instant) {
        match answer {
            Ok(picture) => {
                let is_wanted = match (&self.want, &picture) {
                    (Query::Hosts { .. }, Snapshot::Hosts(_)) => true,
                    (Query::Host { name, .. }, Snapshot::Host(host)) => *name == host.name,
                    _ => false,
                };
                if is_wanted {
                    (self.picture, self.trouble) = (Some(picture), None);
                }
            }
            Err(why) => {
                let since = self.trouble.as_ref().map_or(now, |(_, since)| *since);
                self.trouble = Some((why, since));
            }
        }
    }

    /// Does what a key asks for, on a screen of so many rows.
    pub(super) fn press(&mut self, key: Key, rows: usize) -> Next {
        let page = rows.saturating_sub(FRAME_ROWS).max(1).cast_signed();
        match key {
            Key::Interrupt => return Next::Quit,
            key if self.is_typing => self.type_filter(key),
            Key::Character('q') => return Next::Quit,
            Key::Character('/') => self.is_typing = true,
            Key::Character('s') => self.sort_by_next(),
            Key::Up | Key::Character('k') => self.go(-1),
            Key::Down | Key::Character('j') => self.go(1),
            Key::PageUp => self.go(-page),
            Key::PageDown | Key::Character(' ') => self.go(page),
            Key::Home | Key::Character('g') => self.go(isize::MIN),
            Key::End | Key::Character('G') => self.go(isize::MAX),
            Key::Enter => return self.open(),
            Key::Escape | Key::Backspace => return self.go_back(),
            Key::Character(_) => {}
        }
        Next::Stay
    }

    fn filter(&mut self) -> &mut String {
        match self.want {
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
        let next = self.sorted_by.map_or(0, |place| place + 1);
        self.sorted_by = (next < self.labels.len()).then_some(next);
        self.top = 0;
    }

    /// Moves the mark, or in a host the rows, by so many.
    fn go(&mut self, by: isize) {
        let last = self.row_count().saturating_sub(1);
        let place = self.marked_place().unwrap_or(self.top);
        let next = place.saturating_add_signed(by.max(-place.cast_signed())).min(last);
        match self.shown_hosts().get(next).map(|row| row.host.clone()) {
            Some(host) => self.marked = Some(host),
            None => self.top = next,
        }
    }

    fn open(&mut self) -> Next {
        let marked = self.marked_place();
        let Some(row) = self.shown_hosts().get(marked.unwrap_or(0)).copied() else { return Next::Stay };
        let name = row.host.clone();
        self.marked = Some(name.clone());
        self.want_now(Query::Host { name, text: String::new() })
    }

    fn go_back(&mut self) -> Next {
        let filter = self.filter();
        if !filter.is_empty() {
            filter.clear();
            return Next::Stay;
        }
        match &self.want {
            Query::Hosts { .. } => Next::Stay,
            Query::Host { name, .. } => {
                self.marked = Some(name.clone());
                self.want_now(Query::Hosts { labels: self.labels.clone() })
            }
        }
    }

    fn want_now(&mut self, want: Query) -> Next {
        (self.picture, self.trouble, self.top) = (None, None, 0);
        self.labels_filter.clear();
        self.want = want.clone();
        Next::Ask(want)
    }

    /// The hosts that the filter lets through, in their order.
    fn shown_hosts(&self) -> Vec<&HostRow> {
        let Some(Snapshot::Hosts(hosts)) = &self.picture else { return Vec::new() };
        let filter = self.hosts_filter.to_lowercase();
        let mut shown: Vec<&HostRow> =
            hosts.rows.iter().filter(|row| row.host.to_lowercase().contains(&filter)).collect();
        if let Some(label) = self.sorted_by.and_then(|place| hosts.labels.get(place)) {
            let load = |row: &HostRow| {
                let series = row.series.get(label).map_or(&[][..], Vec::as_slice);
                series.iter().rev().take(2).find_map(|value| *value).unwrap_or(f64::NEG_INFINITY)
            };
            shown.sort_by(|a, b| load(b).total_cmp(&load(a)));
        }
        shown
    }

    /// The labels that the filter lets through.
    fn shown_labels(&self) -> Vec<&LabelRow> {
        let Some(Snapshot::Host(host)) = &self.picture else { return Vec::new() };
        let filter = self.labels_filter.to_lowercase();
        host.rows.iter().filter(|row| row.label.to_lowercase().contains(&filter)).collect()
    }

    fn row_count(&self) -> usize {
        match self.want {
            Query::Hosts { .. } => self.shown_hosts().len(),
            Query::Host { .. } => self.shown_labels().len(),
        }
    }

    fn marked_place(&self) -> Option<usize> {
        let marked = self.marked.as_ref()?;
        self.shown_hosts().iter().position(|row| row.host == *marked)
    }

    /// The whole screen, of so many columns and rows.
    pub(super) fn draw(&mut self, columns: usize, rows: usize, style: Style) -> Vec<String> {
        let body = rows.saturating_sub(FRAME_ROWS);
        if let Some(place) = self.marked_place() {
            self.top = self.top.clamp((place + 1).saturating_sub(body.max(1)), place);
        }
        self.top = self.top.min(self.row_count().saturating_sub(body));
        let mut lines =
            vec![style.paint(Tone::Marked, &fit(&self.title(columns), columns)), self.notice(columns, style)];
        lines.extend(self.table(columns, body, style));
        lines.resize(rows.saturating_sub(1).max(2), String::new());
        lines.push(style.paint(Tone::Faint, fit(&self.help(), columns.saturating_sub(1)).trim_end()));
        lines.truncate(rows);
        lines
    }

    fn table(&self, columns: usize, body: usize, style: Style) -> Vec<String> {
        let mut lines = Vec::with_capacity(body + 1);
        match &self.picture {
            None => lines.push(format!("Asking {} …", visible(&self.url))),
            Some(Snapshot::Hosts(hosts)) => {
                let layout = HostsLayout::new(hosts, columns);
                lines.push(layout.heading(style));
                let shown = self.shown_hosts();
                let marked = self.marked_place();
                for (place, row) in shown.iter().enumerate().skip(self.top).take(body) {
                    let tone = if marked == Some(place) { Tone::Marked } else { Tone::Plain };
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

    /// What is shown, and at the right how many of it there are.
    fn title(&self, columns: usize) -> String {
        let (left, right) = match (&self.want, &self.picture) {
            (Query::Host { name, .. }, _) => (format!(" {}", visible(name)), format!("{} ", visible(&self.url))),
            (_, Some(Snapshot::Hosts(hosts))) => (format!(" lizm {}", visible(&self.url)), counts(hosts)),
            _ => (format!(" lizm {}", visible(&self.url)), String::new()),
        };
        let gap = columns.saturating_sub(left.width() + right.width()).max(1);
        left + &" ".repeat(gap) + &right
    }

    /// One line that is empty when all is well.
    fn notice(&self, columns: usize, style: Style) -> String {
        if let Some((why, since)) = &self.trouble {
            let kept = if self.picture.is_some() { "; this is what it said last" } else { "" };
            let text = format!("No answer for {}{kept}: {why}", age(since.elapsed().as_secs()));
            return style.paint(Tone::Bad, fit(&text, columns).trim_end());
        }
        match &self.picture {
            Some(Snapshot::Hosts(hosts)) if hosts.rows.is_empty() => "No host has reported yet.".to_owned(),
            Some(Snapshot::Hosts(hosts)) if hosts.rows.len() < hosts.count => {
                fit(&format!("The first {} of {} hosts.", hosts.rows.len(), hosts.count), columns)
            }
            Some(_) if self.row_count() == 0 => "Nothing has that in its name.".to_owned(),
            _ => String::new(),
        }
    }

    fn help(&self) -> String {
        let filter = match self.want {
            Query::Hosts { .. } => &self.hosts_filter,
            Query::Host { .. } => &self.labels_filter,
        };
        if self.is_typing {
            return format!("/{filter}▏  Enter keeps the filter, Esc clears it");
        }
        let filtered = if filter.is_empty() { "/ filter".to_owned() } else { format!("/ filter: {filter}") };
        match self.want {
            Query::Hosts { .. } => {
                let order = self.sorted_by.and_then(|place| self.labels.get(place)).map_or("name", String::as_str);
                format!("q quit   {filtered}   s sorted by {order}   ↑↓ Enter open a host")
            }
            Query::Host { .. } => format!("q quit   {filtered}   ↑↓ scroll   Esc back to the hosts"),
        }
    }
}

/// How many hosts there are, by state.
fn counts(hosts: &Hosts) -> String {
    let of = |state: &str| hosts.rows.iter().filter(|row| row.state == state).count();
    let states = ["up", "late", "down"].map(|state| (state, of(state)));
    let states = states.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {state} "));
    states.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::client::HostDetail;

    fn view() -> View {
        let options =
            Options { url: "http://r".to_owned(), host: None, label: None, once: false, ca: None, password_file: None };
        let mut view = View::new(&options);
        let row = |n: u32| HostRow {
            host: format!("host{n:02}"),
            state: "up".to_owned(),
            age_sec: 0,
            series: [("cpu".to_owned(), vec![Some(f64::from(n * 7 % 30))])].into(),
        };
        let hosts = Hosts { labels: options_labels(), rows: (0..30).map(row).collect(), count: 30 };
        view.take(Ok(Snapshot::Hosts(hosts)), Instant::now());
        view
    }

    fn options_labels() -> Vec<String> {
        DEFAULT_LABELS.map(str::to_owned).into()
    }

    fn screen(view: &mut View) -> String {
        view.draw(80, 14, Style::Plain).join("\n")
    }

    fn press(view: &mut View, keys: &str) {
        keys.chars().for_each(|key| assert_eq!(view.press(Key::Character(key), 14), Next::Stay));
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
        assert!(screen(&mut view).contains("Nothing has that"), "q is a letter while typing");
        view.press(Key::Backspace, 14);
        view.press(Key::Enter, 14);
        assert!(screen(&mut view).contains("/ filter: T2"));
        view.press(Key::Escape, 14);
        assert!(screen(&mut view).contains("host00"));
        assert_eq!(view.press(Key::Character('q'), 14), Next::Quit);
        press(&mut view, "/");
        assert_eq!(view.press(Key::Interrupt, 14), Next::Quit);
    }

    #[test]
    fn the_mark_stays_on_its_host_while_others_move() {
        let mut view = view();
        press(&mut view, "jjj");
        assert_eq!(view.marked.as_deref(), Some("host03"));
        press(&mut view, "s");
        let shown = screen(&mut view);
        assert!(shown.contains("sorted by cpu") && shown.contains("host03"), "{shown}");
        press(&mut view, "s");
        press(&mut view, "s");
        view.press(Key::End, 14);
        assert!(screen(&mut view).contains("host29") && !screen(&mut view).contains("host10"));
        view.press(Key::PageUp, 14);
        assert_eq!(view.marked.as_deref(), Some("host19"));
        view.press(Key::Home, 14);
        assert_eq!(view.marked.as_deref(), Some("host00"));
    }

    #[test]
    fn a_host_opens_and_closes() {
        let mut view = view();
        press(&mut view, "j");
        let want = Query::Host { name: "host01".to_owned(), text: String::new() };
        assert_eq!(view.press(Key::Enter, 14), Next::Ask(want));
        let late = Hosts { labels: options_labels(), rows: Vec::new(), count: 0 };
        view.take(Ok(Snapshot::Hosts(late)), Instant::now());
        assert!(screen(&mut view).contains("Asking http://r"), "the answer was to another question");
        let row = LabelRow { label: "cpu".to_owned(), minutes: vec![Some(12.5)], ..LabelRow::default() };
        view.take(Ok(Snapshot::Host(HostDetail { name: "host01".to_owned(), rows: vec![row] })), Instant::now());
        assert!(screen(&mut view).contains("12.5%"));
        view.press(Key::Down, 14);
        assert_eq!(view.press(Key::Escape, 14), Next::Ask(Query::Hosts { labels: options_labels() }));
    }

    #[test]
    fn the_last_picture_stays_while_the_receiver_is_away() {
        let mut view = view();
        view.take(Err("http://r: refused\u{1b}[2J".to_owned()), Instant::now());
        let shown = screen(&mut view);
        assert!(
            shown.contains("No answer for 0 s; this is what it said last: http://r: refused")
                && shown.contains("host00")
        );
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn any_size_of_screen_is_kept_to() {
        let mut view = view();
        press(&mut view, "jjjjjjjjjj");
        for (columns, rows) in [(1, 1), (5, 2), (10, 3), (20, 4), (39, 5), (80, 24), (300, 100)] {
            let lines = view.draw(columns, rows, Style::Plain);
            assert!(lines.len() <= rows, "{columns} x {rows}");
            assert!(columns < 20 || lines.iter().all(|line| line.width() <= columns), "{columns} x {rows}: {lines:?}");
        }
    }
}
