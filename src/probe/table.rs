//! The table of the probes: a line each, which the list of `--probes` is read by.

use std::io;

use super::{Probe, Setup, cpu, disk, load, mem};
#[cfg(target_os = "linux")]
use super::{cpu_parts, io as disk_io, net, processes, swap, uptime};

/// One probe: what it is called, and what it measures.
pub(super) struct About {
    /// Its name in `--probes`.
    pub(super) name: &'static str,
    /// What may follow a colon behind the name, as the help calls it: `PATH`, `DEVICE`.
    pub(super) target: Option<&'static str>,
    /// Its labels; where a target was selected, each is followed by a colon and the target.
    pub(super) labels: &'static [Label],
    /// Whether it runs where `--probes` does not say otherwise.
    pub(super) is_default: bool,
    /// Makes the probe.
    pub(super) new: fn(Setup<'_>) -> io::Result<Box<dyn Probe>>,
}

/// One label of a probe.
pub(super) struct Label {
    pub(super) name: &'static str,
}

/// All probes, in the order of their values in a sample.
#[cfg(target_os = "linux")]
pub(super) const PROBES: &[About] = &[
    cpu::ABOUT,
    mem::ABOUT,
    swap::ABOUT,
    load::ABOUT,
    disk::ABOUT,
    disk_io::ABOUT,
    net::ABOUT,
    processes::ABOUT,
    uptime::ABOUT,
    cpu_parts::ABOUT,
];
#[cfg(target_os = "macos")]
pub(super) const PROBES: &[About] = &[
    About { new: super::macos::cpu, ..cpu::ABOUT },
    About { new: super::macos::mem, ..mem::ABOUT },
    About { new: super::macos::load, ..load::ABOUT },
    disk::ABOUT,
];
