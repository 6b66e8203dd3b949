//! The documentation keeps its promises: its examples run as they stand, and its links lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{Process, Served, lizm};

/// README.md and the pages of docs/, by name.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<PathBuf> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    pages.insert(0, root.join("README.md"));
    pages
}

/// A fenced block: the word behind its fence, and its lines.
struct Block<'a> {
    kind: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            blocks.push(Block { kind, lines: lines.by_ref().take_while(|line| *line != "```").collect() });
        }
    }
    blocks
}

/// What runs a page: a directory of its own, a receiver, and the monitors that the page has started.
struct Shell {
    directory: TempDir,
    receiver: Served,
    monitors: Vec<Process>,
}

impl Shell {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = lizm(&[]).get_program().to_owned();
        std::os::unix::fs::symlink(program, directory.path().join("lizm")).unwrap();
        let mut shell = Self { directory, receiver: Served::start(&[]), monitors: Vec::new() };
        shell.monitor("lizm monitor --host jarvis --publish http://localhost:8080");
        shell
    }

    /// The command with the receiver's port in the place of 8080.
    fn here(&self, command: &str) -> String {
        command.replace("8080", &self.receiver.address.port().to_string())
    }

    fn daemon(&self, command: &str) -> Process {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let mut command = lizm(&words);
        command.current_dir(&self.directory).env("LIZM_BIND", "127.0.0.1");
        Process::start(command)
    }

    fn receiver(&mut self, command: &str) {
        self.receiver = Served::from(self.daemon(&command.replace("8080", "0")));
    }

    fn monitor(&mut self, command: &str) {
        let monitor = self.daemon(&self.here(command));
        monitor.line_with("Publish was successful");
        self.monitors.push(monitor);
    }

    /// Runs lines as one script, which must succeed, and gives what it prints.
    fn script(&self, lines: &[&str]) -> String {
        let path = format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-euc", &self.here(&lines.join("\n"))])
            .env("PATH", path)
            .current_dir(&self.directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{lines:#?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&mut self, block: &Block<'_>) -> String {
        let mut printed = String::new();
        for lines in block.lines.chunk_by(|one, next| !is_daemon(one) && !is_daemon(next)) {
            match lines {
                [line] if line.starts_with("lizm receiver") => self.receiver(line),
                [line] if line.starts_with("lizm monitor") && is_daemon(line) => self.monitor(line),
                lines => printed += &self.script(lines),
            }
        }
        printed
    }
}

fn is_daemon(line: &str) -> bool {
    line.starts_with("lizm receiver") || line.starts_with("lizm monitor") && !line.contains(" --once")
}

#[test]
#[ignore = "needs curl, gzip and python3"]
fn every_example_runs_as_it_stands() {
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        let blocks = blocks(&page);
        if !blocks.iter().any(|block| block.kind == "sh") {
            continue;
        }
        let mut shell = Shell::start();
        for (place, block) in blocks.iter().enumerate().filter(|(_, block)| block.kind == "sh") {
            let printed = shell.run(block);
            let shown = blocks.get(place + 1).filter(|next| next.kind == "text");
            let is_error_shown = shown.is_some_and(|next| next.lines.iter().any(|line| line.contains("\"error\"")));
            assert_eq!(printed.contains("\"error\""), is_error_shown, "{}: {printed}", path.display());
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_the_readme_to_every_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let others = ["SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "RELEASE.md"];
    for path in pages().into_iter().chain(others.iter().map(|name| root.join(name))) {
        let page = fs::read_to_string(&path).unwrap();
        let links = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(path.with_file_name(link).exists(), "{}: {link} is not there", path.display());
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for path in pages().iter().skip(1) {
        let link = format!("(docs/{})", path.file_name().unwrap().to_str().unwrap());
        assert!(readme.contains(&link), "README.md does not lead to {link}");
    }
}
