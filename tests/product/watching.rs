//! `lizm watch` in a terminal, which tmux plays, and out of one.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::checking::{serve, write_answer};
use crate::harness::{Process, Served, await_some, lizm, now};

/// A terminal of a size in which a command runs, with a server of tmux of its own.
pub(crate) struct Terminal {
    socket: tempfile::TempDir,
}

impl Terminal {
    /// Runs `lizm` with arguments, and then says how it has ended.
    fn start(columns: usize, rows: usize, environment: &str, arguments: &str) -> Self {
        let lizm = env!("CARGO_BIN_EXE_lizm");
        let command = format!("echo before; {environment} {lizm} {arguments}; echo ended with $?; stty -a; cat");
        Self::run(columns, rows, &command)
    }

    /// Runs a command.
    pub(crate) fn run(columns: usize, rows: usize, command: &str) -> Self {
        let terminal = Self { socket: tempfile::tempdir().unwrap() };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, command]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").stdin(Stdio::null());
        let output = command.arg("-S").arg(self.socket.path().join("tmux")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// What the screen shows once it has all of `parts`.
    pub(crate) fn await_screen(&self, parts: &[&str]) -> String {
        await_some(&format!("a screen with {parts:?}, not {}", self.tmux(&["capture-pane", "-p"])), || {
            Some(self.tmux(&["capture-pane", "-p"])).filter(|screen| parts.iter().all(|part| screen.contains(part)))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.socket.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").stderr(Stdio::null()).status();
    }
}

/// A receiver of three hosts, one of which has a name of wide characters.
fn receiver() -> Served {
    let receiver = Served::start(&[]);
    for (host, cpu) in [("jarvis", 12.5), ("friday", 97.5), ("%E6%BC%A2%E5%AD%97%20%22x%22", 50.0)] {
        for age_sec in [61, 1, 0] {
            let body = format!("{{\"cpu\": {cpu}, \"mem\": 35, \"net-in\": 2500000}}");
            assert_eq!(receiver.post(&format!("/api/perf/{host}/{}", now() - age_sec), &body).0, 200);
        }
    }
    receiver
}

/// What a command prints, and whether it succeeds.
fn printed(arguments: &[&str]) -> (bool, String, String) {
    printed_with(&[], arguments)
}

/// The same with variables of the environment.
fn printed_with(environment: &[(&str, &str)], arguments: &[&str]) -> (bool, String, String) {
    let output = lizm(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn one_snapshot_is_plain_text_for_pipes() {
    let receiver = receiver();
    let url = receiver.url("/");
    let (is_well, hosts, _) = printed(&["watch", &url, "--once"]);
    let lines: Vec<&str> = hosts.lines().collect();
    assert!(is_well && lines.len() == 4 && lines[0].starts_with("HOST "), "{hosts}");
    assert!(lines[1].starts_with("friday") && lines[1].contains(" 97.5% █████████▊ "), "{hosts}");
    assert!(lines[3].starts_with("漢字 \"x\""), "{hosts}");
    assert!(!hosts.contains('\x1b'));
    let (_, loads, _) = printed(&["watch", &url, "--once", "--label", "net-in"]);
    assert!(loads.lines().nth(1).unwrap().contains("2.5M"), "{loads}");
    assert_eq!(receiver.post(&format!("/api/perf/jarvis/{}", now()), "{\"io,dev=sda\": 64}").0, 200);
    let (_, tagged, _) = printed(&["watch", &url, "--once", "--label", "cpu,io%2Cdev=sda"]);
    let row = tagged.lines().find(|line| line.starts_with("jarvis")).unwrap();
    assert!(row.contains("12.5%") && row.contains("64"), "{tagged}");
    let (_, labels, _) = printed(&["watch", "--host", "jarvis", "--label", "CPU", &url, "--once"]);
    assert!(labels.lines().count() == 2 && labels.contains("\ncpu "), "{labels}");
    let (is_well, nothing, said) = printed(&["watch", &url, "--host", "nobody", "--once"]);
    assert!(!is_well && nothing.is_empty() && said.contains("host nobody is not known there"), "{said}");
    let (is_well, _, said) = printed(&["watch", "http://127.0.0.1:1", "--once"]);
    assert!(!is_well && said.starts_with("lizm: http://127.0.0.1:1/api/hosts: "), "{said}");
}

#[test]
fn the_environment_says_how_wide_and_of_what_characters_plain_text_is() {
    let receiver = receiver();
    let url = receiver.url("");
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max();
    let (_, wide, _) = printed(&["watch", &url, "--once"]);
    let (_, narrow, _) = printed_with(&[("COLUMNS", "40")], &["watch", &url, "--once"]);
    assert!(wide.contains("AGE") && !narrow.contains("AGE") && widest(&narrow) <= Some(40), "{narrow}");
    for nonsense in ["0", "-1", "many", "1000000000"] {
        assert_eq!(widest(&printed_with(&[("COLUMNS", nonsense)], &["watch", &url, "--once"]).1), widest(&wide));
    }
    for locale in [("LC_ALL", "C"), ("LANG", "de_DE.ISO-8859-1")] {
        let (_, ascii, _) = printed_with(&[locale], &["watch", &url, "--once"]);
        assert!(ascii.is_ascii() && ascii.contains("???? \"x\"") && ascii.contains(" 97.5% #########"), "{ascii}");
        assert_eq!(ascii.lines().count(), wide.lines().count());
    }
    let (_, unicode, _) = printed_with(&[("LC_ALL", "C.UTF-8"), ("LANG", "C")], &["watch", &url, "--once"]);
    assert!(unicode.contains("漢字"), "{unicode}");
}

#[test]
fn pages_are_put_together_and_have_an_end() {
    // Every page names a next one, so that there is no last.
    let server = serve(|target, stream| {
        let after = target.split("after=").nth(1).unwrap_or("0").parse::<u32>().unwrap();
        let summary = r#"{"end": 60, "timeslice-size-sec": 60, "averages": []}"#;
        let host = format!(
            r#"{{"host": "h{after}", "state": "up", "age-sec": 1, "summaries": {{"summary:by-minute:l{after}": {summary}}}}}"#
        );
        let (next, name) = (after + 1, if target.contains("host=h") { "next-label-after" } else { "next-after" });
        write_answer(stream, "200 OK", &format!(r#"{{"hosts": [{host}], "count": 7, "{name}": "{next}"}}"#))
    });
    for (arguments, name) in [(&[][..], "h"), (&["--host", "h"], "l")] {
        let (is_well, shown, said) = printed(&[&["watch", &format!("http://{server}"), "--once"], arguments].concat());
        assert!(is_well, "{said}");
        assert!([0, 1, 2].iter().all(|number| shown.contains(&format!("\n{name}{number} "))), "{shown}");
    }
}

#[test]
fn no_value_is_wider_than_its_column() {
    let receiver = Served::start(&[]);
    for age_sec in [61, 0] {
        let body = "{\"cpu\": -9.99e299, \"mem\": 99999.96, \"disk:/\": 1e300, \"uptime\": 1e300, \"net-in\": -999960}";
        assert_eq!(receiver.post(&format!("/api/perf/evil/{}", now() - age_sec), body).0, 200);
    }
    for arguments in [&["--host", "evil"][..], &[], &["--label", "cpu,mem,disk:/,uptime,net-in"]] {
        let (_, shown, _) = printed(&[&["watch", &receiver.url(""), "--once"], arguments].concat());
        assert!(shown.contains("evil") || shown.contains("uptime"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    }
}

/// The page has the same table of units: `src/units.rs` compares both.
#[test]
fn a_value_has_the_unit_of_its_label_here_and_is_in_that_unit_in_the_metrics() {
    let receiver = Served::start(&[]);
    let values = [
        ("cpu", "12.5", "12.5%"),
        ("net-in", "2500000", "2.5MB"),
        ("temp:a", "51", "51°C"),
        ("uptime", "7200", "2 h"),
        ("wait_seconds", "0.5", "0.50s"),
        ("heap_bytes", "1500", "1.5kB"),
        ("queue", "1500", "1.5k"),
    ];
    let body: Vec<String> = values.iter().map(|(label, value, _)| format!("\"{label}\": {value}")).collect();
    assert_eq!(receiver.post(&format!("/api/perf/h/{}", now()), &format!("{{{}}}", body.join(","))).0, 200);
    let (_, shown, _) = printed(&["watch", &receiver.url(""), "--host", "h", "--once"]);
    let metrics = receiver.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body;
    for (label, value, text) in values {
        let row = shown.lines().find(|line| line.starts_with(label)).unwrap();
        assert!(row.contains(&format!(" {text} ")), "{label}: {shown}");
        let sample = format!("lizm_host_value{{host=\"h\",label=\"{label}\",stat=\"avg\"}} {value}\n");
        assert!(metrics.contains(&sample), "{sample}{metrics}");
    }
}

#[test]
fn a_pipe_gets_snapshot_after_snapshot() {
    let receiver = receiver();
    let watch = Process::start(lizm(&["watch", &receiver.url("")]));
    for _ in 0..2 {
        assert!(watch.line_with("HOST").starts_with("HOST"));
        assert!(watch.line_with("jarvis").contains("12.5%"));
    }
}

#[test]
#[ignore = "needs tmux"]
fn hosts_are_shown_opened_and_filtered_in_a_wide_terminal() {
    let receiver = receiver();
    let terminal = Terminal::start(120, 20, "", &format!("watch {}", receiver.url("")));
    let screen = terminal.await_screen(&["jarvis", "3 up", "q quit"]);
    assert!(screen.contains(" 97.5% █████████▊ ") && screen.contains("漢字 \"x\""), "{screen}");
    assert!(!screen.contains("before"), "it has a screen of its own");
    for (key, said) in
        [("s", "sorted by name"), ("p", "Paused: p goes on."), ("?", "Any key closes this."), ("?", "HOST")]
    {
        terminal.keys(&[key]);
        terminal.await_screen(&[said]);
    }
    terminal.keys(&["p", "/", "j", "a", "r"]);
    let screen = terminal.await_screen(&["/jar▏", "jarvis"]);
    assert!(!screen.contains("friday"), "{screen}");
    terminal.keys(&["Enter", "Down", "Enter"]);
    let screen = terminal.await_screen(&["LABEL", "net-in", "2.5M", "LAST HOUR"]);
    assert!(screen.lines().next().unwrap().starts_with(" jarvis "), "{screen}");
    assert_eq!(receiver.post(&format!("/api/perf/jarvis/{}", now()), "{\"fresh\": 7}").0, 200);
    terminal.await_screen(&["fresh"]);
    terminal.keys(&["Escape"]);
    terminal.await_screen(&["HOST", "/ filter: jar"]);
    terminal.keys(&["q"]);
    let screen = terminal.await_screen(&["before", "ended with 0", "icanon", " echo "]);
    assert!(!screen.contains("HOST"), "the screen is as it was: {screen}");
}

#[test]
#[ignore = "needs tmux"]
fn five_hundred_hosts_are_usable_in_any_terminal() {
    let receiver = Served::start(&[]);
    let line = |n: usize, ago: u64| {
        let (disk, at) = (if n == 320 { 97 } else { 40 }, now() - ago - if n == 250 { 900 } else { 0 });
        format!("perf,host=web-{n:03} cpu={},mem=50,disk={disk}.5 {at}\n", n % 80)
    };
    let lines: String = (0..500).flat_map(|n| [line(n, 120), line(n, 60), line(n, 0)]).collect();
    let body = format!("POST /write?precision=s HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{lines}", lines.len());
    assert_eq!(receiver.raw(body.as_bytes()).status, 204);
    for (columns, rows, environment) in
        [(40, 12, ""), (80, 24, "LC_ALL=C"), (120, 40, "NO_COLOR=1"), (200, 50, "LC_ALL=C.UTF-8")]
    {
        let terminal = Terminal::start(columns, rows, environment, &format!("watch {}", receiver.url("")));
        let is_ascii = environment == "LC_ALL=C";
        let check = |screen: &str| {
            assert!(screen.lines().all(|line| line.chars().count() <= columns), "{columns}: {screen}");
            assert!(screen.lines().count() <= rows && (!is_ascii || screen.is_ascii()), "{columns}: {screen}");
        };
        let screen = terminal.await_screen(&["web-250", "web-320", "1 down"]);
        check(&screen);
        let place = |name: &str| screen.lines().skip(2).position(|line| line.starts_with(name)).unwrap();
        assert_eq!((place("web-250"), place("web-320"), place("web-000")), (1, 2, 3), "problems come first: {screen}");
        assert!(screen.contains("dsk!"), "{screen}");
        terminal.keys(&["!", "j", "j", "Enter"]);
        check(&terminal.await_screen(&["web-320  up, ", "LABEL", "disk"]));
        terminal.keys(&["j", "Enter"]);
        let screen = terminal.await_screen(&["disk  now 97.5%", "60 min ago", "100.0%"]);
        check(&screen);
        terminal.tmux(&["resize-window", "-x", "60", "-y", "15"]);
        let screen = terminal.await_screen(&["60 min ago", "r another range"]);
        assert!(screen.lines().all(|line| line.chars().count() <= 60), "{screen}");
        terminal.keys(&["r"]);
        terminal.await_screen(&["24 h ago"]);
        terminal.keys(&["r"]);
        terminal.await_screen(&["7 days ago", "disk  now 97.5%"]);
        terminal.keys(&["q"]);
        terminal.await_screen(&["ended with 0"]);
    }
}

#[test]
#[ignore = "needs tmux"]
fn what_fires_is_said_first_and_tags_filter_and_group() {
    let receiver = Served::start(&["--alert", "queue: queue > 20", "--alert", "gone: host down"]);
    let line = |host: &str, queue: u32, ago: u64| format!("perf,host={host} queue={queue} {}\n", now() - ago);
    let lines: String = (0..20).flat_map(|n| [line("web-1", 50, n * 30), line("db-1", 5, n * 30)]).collect();
    let tags = "lizm_tags,host=web-1 role=\"front\"\nlizm_tags,host=db-1 role=\"store\"\n";
    for body in [&*lines, tags] {
        let post =
            format!("POST /write?precision=s HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(receiver.raw(post.as_bytes()).status, 204);
    }
    for (columns, rows) in [(40, 12), (120, 40)] {
        let terminal = Terminal::start(columns, rows, "", &format!("watch {} --label queue", receiver.url("")));
        let screen = terminal.await_screen(&["web-1 queue 50", "fire"]);
        let place = |name: &str| screen.lines().skip(2).position(|line| line.starts_with(name)).unwrap();
        assert_eq!((place("web-1"), place("db-1")), (1, 2), "what fires comes first: {screen}");
        terminal.keys(&["/", "tag:role=store", "Enter"]);
        terminal.await_screen(&["/ filter: tag:r", "db-1"]);
        terminal.keys(&["Escape", "g", "g"]);
        terminal.await_screen(&["front  1 host, up", "store  1 host, up"]);
        terminal.keys(&["g", "Home", "Enter"]);
        let screen = terminal.await_screen(&["web-1  up, ", "role=front", "queue 50 (> 20)", "queue !"]);
        assert!(screen.lines().all(|line| line.chars().count() <= columns), "{screen}");
        terminal.keys(&["Enter"]);
        let screen = terminal.await_screen(&["queue  now 50", "60 min ago", " now\n"]);
        let dotted = screen.lines().filter(|line| {
            line.matches('⠁').count()
                + line.matches('⠂').count()
                + line.matches('⠄').count()
                + line.matches('⡀').count()
                > 10
        });
        assert_eq!(dotted.count(), 1, "its threshold is a line: {screen}");
        terminal.keys(&["q"]);
        terminal.await_screen(&["icanon"]);
    }
}

#[test]
#[ignore = "needs tmux"]
fn a_narrow_terminal_shows_less_and_a_resize_is_followed() {
    let receiver = receiver();
    let terminal = Terminal::start(40, 8, "NO_COLOR=1", &format!("watch {}", receiver.url("")));
    let screen = terminal.await_screen(&["jarvis", "97.5%"]);
    assert!(screen.lines().all(|line| line.chars().count() <= 40) && !screen.contains("AGE"), "{screen}");
    let coloured = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(coloured.contains("\x1b[7m"), "what is marked is reverse: {coloured}");
    assert!(["31", "32", "33"].iter().all(|colour| !coloured.contains(&format!("\x1b[{colour}m"))), "{coloured}");
    terminal.tmux(&["resize-window", "-x", "150", "-y", "30"]);
    terminal.await_screen(&["AGE", "█████████▊", "q quit"]);
    terminal.keys(&["C-c"]);
    terminal.await_screen(&["before", "ended with 0", "icanon"]);
}

#[test]
#[ignore = "needs tmux"]
fn a_terminal_that_cannot_move_its_cursor_gets_plain_text() {
    let receiver = receiver();
    let terminal = Terminal::start(100, 40, "TERM=dumb LC_ALL=C", &format!("watch {}", receiver.url("")));
    let screen = terminal.await_screen(&["before", "HOST", "jarvis", "97.5% ####"]);
    assert!(!screen.contains("q quit"), "{screen}");
    let screen = terminal.await_screen(&["\n\nHOST"]);
    assert!(screen.is_ascii() && !terminal.tmux(&["capture-pane", "-p", "-e"]).contains('\x1b'), "{screen}");
}

#[test]
#[ignore = "needs tmux"]
fn colour_is_there_and_a_signal_gives_the_terminal_back() {
    let receiver = receiver();
    let arguments = format!("watch {} --host friday", receiver.url(""));
    let terminal = Terminal::start(100, 30, "", &arguments);
    terminal.await_screen(&["friday", "97.5%"]);
    assert!(terminal.tmux(&["capture-pane", "-p", "-e"]).contains("\x1b[31m"), "97.5% is red");
    // The process of the pane is the shell, and what it waits for is its child.
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.trim())).unwrap();
    let pid = Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    terminal.await_screen(&["before", "ended with 0", "icanon", " echo "]);
}

#[test]
#[ignore = "needs tmux"]
fn the_last_snapshot_stays_while_the_receiver_is_away() {
    let receiver = receiver();
    let terminal = Terminal::start(100, 12, "", &format!("watch {}", receiver.url("")));
    terminal.await_screen(&["jarvis", "97.5%"]);
    let port = receiver.address.port().to_string();
    receiver.process.kill();
    terminal.await_screen(&["No answer for", "the last answer is shown", "jarvis", "97.5%"]);
    let _again = Process::start(lizm(&["receiver", "--bind", "127.0.0.1", "--port", &port]));
    terminal.await_screen(&["No host has reported yet."]);
}
