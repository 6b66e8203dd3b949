//! Which probes a monitor has: the list of `--probes`, and the labels that each gives.

use std::fmt;
use std::str::FromStr;

use crate::sample::check_label;

/// Most probes of one monitor: each gives up to four labels, and those of textfiles must fit a sample as well.
pub const PROBES_MAX: usize = 32;

/// One thing that is measured. The order here is that of the values in a sample.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Busy time of the processors.
    Cpu,
    /// Memory that is not available.
    Mem,
    /// Swap that is used.
    Swap,
    /// Load average of one minute.
    Load,
    /// Used space of the root file system, or of the one that holds a path.
    Disk(Option<String>),
    /// Traffic of all disks, or of one block device.
    Io(Option<String>),
    /// Traffic of all network interfaces, or of one.
    Net(Option<String>),
    /// How many processes there are.
    Processes,
    /// Time since the system started.
    Uptime,
    /// What the busy time of the processors is made of, and their waiting for I/O.
    CpuParts,
}

/// Probes that `default` stands for.
#[cfg(target_os = "linux")]
const DEFAULT: &str = "cpu,mem,swap,load,disk,io,net,processes,uptime";
#[cfg(not(target_os = "linux"))]
const DEFAULT: &str = "cpu,mem,load,disk";

/// Every label that a probe gives; what follows a colon names a path or a device.
const LABELS: [&str; 15] = [
    "cpu",
    "mem",
    "swap",
    "load1",
    "disk",
    "disk-read",
    "disk-write",
    "net-in",
    "net-out",
    "processes",
    "uptime",
    "cpu-user",
    "cpu-system",
    "cpu-iowait",
    "cpu-steal",
];

/// Whether a label is one that some probe gives.
pub(super) fn is_of_a_probe(label: &str) -> bool {
    let stem = label.split_once(':').map_or(label, |(stem, _)| stem);
    LABELS.contains(&stem)
}

impl Kind {
    /// A label of this probe: `stem`, and what the probe was asked about behind a colon.
    pub(super) fn label(&self, stem: &str) -> String {
        match self {
            Self::Disk(Some(of)) | Self::Io(Some(of)) | Self::Net(Some(of)) => format!("{stem}:{of}"),
            _ => stem.to_owned(),
        }
    }
}

/// The probes of a monitor, each once, in the order of their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes(pub(super) Vec<Kind>);

impl Default for Probes {
    fn default() -> Self {
        DEFAULT.parse().unwrap_or(Self(vec![Kind::Cpu, Kind::Mem]))
    }
}

impl FromStr for Probes {
    type Err = String;

    /// Reads names with commas between them; `default` stands for those that run when none are named.
    fn from_str(list: &str) -> Result<Self, String> {
        let names = list.split(',').flat_map(|name| if name == "default" { DEFAULT } else { name }.split(','));
        let mut kinds = names.map(parse_kind).collect::<Result<Vec<Kind>, String>>()?;
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() > PROBES_MAX {
            return Err(format!("{} probes, the limit is {PROBES_MAX}", kinds.len()));
        }
        Ok(Self(kinds))
    }
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    let (name, of) = text.split_once(':').map_or((text, None), |(name, of)| (name, Some(of.to_owned())));
    let kind = match (name, of) {
        ("disk", of) => Kind::Disk(of),
        ("io", of) => Kind::Io(of),
        ("net", of) => Kind::Net(of),
        ("cpu", None) => Kind::Cpu,
        ("mem", None) => Kind::Mem,
        ("swap", None) => Kind::Swap,
        ("load", None) => Kind::Load,
        ("processes", None) => Kind::Processes,
        ("uptime", None) => Kind::Uptime,
        ("cpu-parts", None) => Kind::CpuParts,
        _ => {
            return Err(format!(
                "{text:?} is none of default, {DEFAULT}, cpu-parts, disk:PATH, io:DEVICE and net:INTERFACE"
            ));
        }
    };
    match &kind {
        Kind::Disk(Some(path)) if !path.starts_with('/') => return Err(format!("{text:?} has no path from / on")),
        Kind::Io(Some(device)) | Kind::Net(Some(device)) if device.is_empty() => {
            return Err(format!("{text:?} names no device"));
        }
        _ => {}
    }
    // The longest label of a probe with a device has a few bytes more than its name here.
    check_label(&kind.label("disk-write")).map_err(|why| format!("{text:?}: {why}"))?;
    let is_known_here = cfg!(target_os = "linux") || matches!(kind, Kind::Cpu | Kind::Mem | Kind::Load | Kind::Disk(_));
    if is_known_here { Ok(kind) } else { Err(format!("{text:?} is measured on Linux alone")) }
}

/// Whose processors and memory `cpu` and `mem` are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Those of the machine.
    #[default]
    Host,
    /// What the cgroup of the monitor uses of what it may use.
    Cgroup,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Cgroup => "cgroup",
        })
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host" => Ok(Self::Host),
            "cgroup" if cfg!(target_os = "linux") => Ok(Self::Cgroup),
            "cgroup" => Err("\"cgroup\" is a thing of Linux alone".to_owned()),
            other => Err(format!("{other:?} is not host or cgroup")),
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn lists_of_probes_are_read_in_one_order() {
        let read = |list: &str| list.parse::<Probes>().map(|probes| probes.0);
        assert_eq!(read("mem,cpu,mem"), Ok(vec![Kind::Cpu, Kind::Mem]));
        assert_eq!(read("default"), Ok(Probes::default().0));
        assert_eq!(Probes::default().0.len(), 9);
        let var = Kind::Disk(Some("/var".to_owned()));
        assert_eq!(read("disk:/var,disk"), Ok(vec![Kind::Disk(None), var.clone()]));
        assert_eq!(
            (var.label("disk").as_str(), Kind::Io(None).label("disk-read").as_str()),
            ("disk:/var", "disk-read")
        );
        assert_eq!(read("cpu-parts,default").map(|kinds| kinds.len()), Ok(10));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        let many = (0..33).map(|n| format!("disk:/{n}")).collect::<Vec<_>>().join(",");
        let long = format!("disk:/{}", "x".repeat(120));
        for (list, part) in [
            ("", "\"\" is none of default, cpu,mem"),
            ("cpu,", "\"\" is none of"),
            ("CPU", "\"CPU\" is none of"),
            ("cpu:0", "\"cpu:0\" is none of"),
            ("disk:var", "no path from /"),
            ("net:", "names no device"),
            ("disk:/a\nb", "control character"),
            (&long, "the limit is 1 to 128"),
            (&many, "33 probes, the limit is 32"),
        ] {
            let said = list.parse::<Probes>().unwrap_err();
            assert!(said.contains(part), "{list:?}: {said}");
        }
        assert!("process".parse::<Scope>().is_err());
        assert_eq!(Scope::Cgroup.to_string().parse(), Ok(Scope::Cgroup));
    }

    #[test]
    fn labels_of_probes_are_theirs() {
        assert!(["cpu", "disk:/var", "net-in:eth0", "load1"].iter().all(|label| is_of_a_probe(label)));
        assert!(["temperature", "cpus", "my:cpu", "disk-free"].iter().all(|label| !is_of_a_probe(label)));
    }
}
