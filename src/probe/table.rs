//! The table of the probes. `--probes` selects from it, and the help and `docs/probes.md` show it.

use std::fmt::Write;

use super::{About, Label, cpu, disk, load, mem};
#[cfg(target_os = "linux")]
use super::{
    containers, cores, cpu_parts, exec, gpu, inodes, io as disk_io, net, pressure, processes, procs, readonly, swap,
    temp, top, units, uptime, zfs,
};

/// All probes, in the order of their values in a sample.
#[cfg(target_os = "linux")]
pub(super) const PROBES: &[About] = &[
    cpu::ABOUT,
    mem::ABOUT,
    swap::ABOUT,
    load::ABOUT,
    disk::ABOUT,
    inodes::ABOUT,
    disk_io::ABOUT,
    net::ABOUT,
    processes::ABOUT,
    uptime::ABOUT,
    cpu_parts::ABOUT,
    pressure::ABOUT,
    temp::ABOUT,
    cores::ABOUT,
    readonly::ABOUT,
    procs::ABOUT,
    top::ABOUT,
    containers::ABOUT,
    units::ABOUT,
    gpu::ABOUT,
    zfs::ABOUT,
    exec::ABOUT,
];
#[cfg(target_os = "macos")]
pub(super) const PROBES: &[About] = &[
    About { new: super::macos::cpu, ..cpu::ABOUT },
    About { new: super::macos::mem, ..mem::ABOUT },
    About { new: super::macos::load, ..load::ABOUT },
    disk::ABOUT,
];

/// The names of all probes.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|about| about.name)
}

/// The table as lines of a help text: forms of the name, with an asterisk where it runs by default, then a label a
/// line with its unit, and the source of them all.
#[must_use]
pub fn help() -> String {
    let mut help = String::new();
    for about in PROBES {
        let mut forms = about.forms() + if about.is_default { " *" } else { "" };
        let mut source = format!(" ({})", about.source);
        for Label { name, unit, what } in about.labels {
            let (forms, source) = (std::mem::take(&mut forms), std::mem::take(&mut source));
            let _ = writeln!(help, "  {forms:21} {name:17} {unit:3} {what}{source}");
        }
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Unit, unit_of};

    #[test]
    #[cfg(target_os = "linux")]
    fn the_page_of_the_docs_has_each_line_of_the_table() {
        let page = include_str!("../../docs/probes.md");
        for about in PROBES {
            let forms = about.forms().replace(", ", "`, `");
            let (mut forms, mut source) = (format!("`{forms}`"), format!("`{}`", about.source));
            for Label { name, unit, what } in about.labels {
                let line = format!("| {forms} | `{name}` | {unit} | {what} | {source} |\n");
                assert!(page.contains(&line), "docs/probes.md lacks the line\n{line}");
                (forms, source) = (String::new(), String::new());
            }
        }
    }

    #[test]
    fn units_are_those_that_the_page_and_the_terminal_show() {
        for Label { name, unit, .. } in PROBES.iter().flat_map(|about| about.labels) {
            let shown = match unit_of(name) {
                Unit::Time => "s",
                unit => unit.symbol(),
            };
            assert_eq!(*unit, shown, "{name}");
        }
    }

    #[test]
    fn the_help_fits_a_terminal() {
        let help = help();
        assert!(help.lines().count() >= PROBES.len() && help.lines().all(|line| line.chars().count() <= 120), "{help}");
    }
}
