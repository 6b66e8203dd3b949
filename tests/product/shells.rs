//! Completions in shells that a terminal shows, and manual pages as man reads them.

use std::process::Command;

use crate::harness::lizm;
use crate::watching::Terminal;

fn printed(arguments: &[&str]) -> String {
    let output = lizm(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Has a shell complete commands, words, a list of words, options and files.
fn complete(shell: &str, start: &str, prepare: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("completions");
    std::fs::write(&file, printed(&["completions", shell])).unwrap();
    std::fs::write(directory.path().join("rules-of-night.conf"), "").unwrap();
    let start = format!("cd {}; {start}", directory.path().display());
    let terminal = Terminal::run(118, 30, &start);
    terminal.keys(&[&format!("{prepare} source {}; echo rea''dy", file.display()), "Enter"]);
    terminal.await_screen(&["\nready"]);
    for (typed, completed) in [
        ("lizm recei", "lizm receiver"),
        ("lizm receiver --http-server bui", "--http-server builtin"),
        ("lizm monitor --probes cpu,unit", "--probes cpu,units"),
        ("lizm receiver --max-connections-per", "--max-connections-per-address"),
        ("lizm receiver --alerts rules-of", "--alerts rules-of-night.conf"),
    ] {
        terminal.keys(&["C-l"]);
        terminal.keys(&["-l", typed]);
        terminal.await_screen(&[typed]);
        terminal.keys(&["Tab"]);
        terminal.await_screen(&[completed]);
        terminal.keys(&["C-u"]);
    }
}

#[test]
#[ignore = "needs tmux"]
fn bash_completes() {
    complete("bash", "exec bash --norc --noprofile -i", "");
}

#[test]
#[ignore = "needs tmux and zsh"]
fn zsh_completes() {
    complete("zsh", "exec zsh -f -i", "autoload -U compinit; compinit -u -D;");
}

#[test]
#[ignore = "needs tmux and zsh"]
fn zsh_loads_what_it_completes_from_its_path() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("_lizm"), printed(&["completions", "zsh"])).unwrap();
    let terminal = Terminal::run(118, 30, "exec zsh -f -i");
    let start =
        format!("fpath=({} $fpath); autoload -U compinit; compinit -u -D; echo rea''dy", directory.path().display());
    terminal.keys(&[&start, "Enter"]);
    terminal.await_screen(&["\nready"]);
    terminal.keys(&["lizm recei", "Tab"]);
    terminal.await_screen(&["lizm receiver"]);
}

#[test]
#[ignore = "needs tmux and fish"]
fn fish_completes() {
    complete("fish", "HOME=$PWD exec fish --no-config -i", "");
}

#[test]
#[ignore = "needs man-db"]
fn man_warns_of_nothing_and_shows_each_option() {
    let directory = tempfile::tempdir().unwrap();
    let help = printed(&["--help"]);
    let commands = help.lines().filter_map(|line| line.strip_prefix("  lizm ")?.split(' ').next());
    let pages: Vec<Vec<&str>> = std::iter::once(vec!["man"]).chain(commands.map(|name| vec!["man", name])).collect();
    assert!(pages.len() > 10, "{help}");
    for page in pages {
        let file = directory.path().join(format!("{}.1", page.join("-")));
        std::fs::write(&file, printed(&page)).unwrap();
        let mut man = Command::new("man");
        man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "100").env_remove("MANPAGER");
        let output = man.args(["--warnings", "-E", "UTF-8", "-l"]).arg(&file).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{page:?}: {output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        if page == ["man", "receiver"] {
            assert!(shown.contains("-p, --port PORT") && shown.contains("a free one (0 to 65535) [8080]"), "{shown}");
        }
    }
}

#[test]
fn a_shell_or_a_command_that_is_not_known_is_wrong_usage() {
    for (arguments, why) in [
        (vec!["completions"], "lizm: completions: takes the name of a shell: bash, zsh, fish\n"),
        (vec!["completions", "csh"], "lizm: completions: takes the name of a shell: bash, zsh, fish\n"),
        (vec!["man", "recever"], "lizm: man: takes the name of one command, or nothing\n"),
    ] {
        let output = lizm(&arguments).output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(2), why));
    }
}
