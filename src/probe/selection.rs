//! Which probes a monitor runs: the list of `--probes`, and `--scope`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::exec::check_name;
use super::table::PROBES;
use super::{About, Target};
use crate::sample::check_label;

/// Most probes of one monitor, each path and device of one counted: their values must fit a sample.
const PROBES_MAX: usize = 32;

/// The probes of a monitor: of each in the table, by its index, the paths or devices behind a colon; `None` is the name
/// alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(BTreeMap<usize, BTreeSet<Option<String>>>);

impl Selection {
    /// The probes in the order of the table, each with what it is selected for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static About, impl Iterator<Item = &Option<String>>)> {
        self.0.iter().map(|(index, targets)| (&PROBES[*index], targets.iter()))
    }

    /// The names of the probes, with commas between them. Of programs their names alone: arguments may hold secrets.
    #[must_use]
    pub fn names(&self) -> String {
        let name = |name: &str, target: &Option<String>| match target.as_deref() {
            None => name.to_owned(),
            Some(target) if name == "exec" => format!("{name}:{}", target.split('=').next().unwrap_or_default()),
            Some(target) => format!("{name}:{target}"),
        };
        let names = self.iter().flat_map(|(about, targets)| targets.map(|target| name(about.name, target)));
        names.collect::<Vec<_>>().join(", ")
    }
}

impl Default for Selection {
    fn default() -> Self {
        let is_default = |(index, about): (usize, &About)| about.is_default.then(|| (index, BTreeSet::from([None])));
        Self(PROBES.iter().enumerate().filter_map(is_default).collect())
    }
}

impl FromStr for Selection {
    type Err = String;

    /// Parses names with commas between them; `default` stands for the probes that run where none are selected.
    fn from_str(list: &str) -> Result<Self, String> {
        let mut selection = Self(BTreeMap::new());
        for text in list.split(',') {
            if text == "default" {
                Self::default()
                    .0
                    .into_iter()
                    .for_each(|(index, targets)| selection.0.entry(index).or_default().extend(targets));
            } else {
                let (index, target) = parse_probe(text)?;
                selection.0.entry(index).or_default().insert(target);
            }
        }
        let count = selection.0.values().map(BTreeSet::len).sum::<usize>();
        if count > PROBES_MAX {
            return Err(format!("{count} probes, the limit is {PROBES_MAX}"));
        }
        Ok(selection)
    }
}

/// Parses the name of a probe, and the path or device behind its colon.
fn parse_probe(text: &str) -> Result<(usize, Option<String>), String> {
    let (name, target) = text.split_once(':').map_or((text, None), |(name, target)| (name, Some(target)));
    let index = PROBES.iter().position(|about| about.name == name && about.target.allows(target)).ok_or_else(|| {
        let forms: Vec<String> = PROBES.iter().map(About::forms).collect();
        format!("{text:?} is none of default, {}", forms.join(", "))
    })?;
    if let Some(target) = target {
        let about = &PROBES[index];
        if target.is_empty() {
            return Err(format!("{text:?} has nothing behind the colon"));
        }
        match about.target {
            Target::Optional("PATH") if !target.starts_with('/') => {
                return Err(format!("{text:?}: the path does not begin with /"));
            }
            Target::Required("NAME=PROGRAM") => {
                check_program(target).map_err(|why| format!("{text:?}: {why}"))?;
            }
            _ => {
                for label in about.labels {
                    check_label(&format!("{}:{target}", label.name)).map_err(|why| format!("{text:?}: {why}"))?;
                }
            }
        }
    }
    Ok((index, target.map(str::to_owned)))
}

/// Checks a name and a program with an `=` between them.
fn check_program(text: &str) -> Result<(), String> {
    let (name, program) = text.split_once('=').ok_or("has no = between a name and a program")?;
    check_name(name)?;
    let has_program = program.split(' ').any(|word| !word.is_empty());
    if has_program { Ok(()) } else { Err("has no program behind the =".to_owned()) }
}

/// Whether a label is one that some probe gives.
pub(super) fn is_of_a_probe(label: &str) -> bool {
    let name = label.split_once(':').map_or(label, |(name, _)| name);
    PROBES.iter().flat_map(|about| about.labels).any(|known| known.name == name)
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

    fn names(list: &str) -> Result<Vec<String>, String> {
        let selection: Selection = list.parse()?;
        Ok(selection.names().split(", ").map(str::to_owned).collect())
    }

    #[test]
    fn lists_are_put_in_the_order_of_the_table() {
        assert_eq!(names("mem,cpu,mem").unwrap(), ["cpu", "mem"]);
        assert_eq!(names("disk:/var,load,disk").unwrap(), ["load", "disk", "disk:/var"]);
        assert_eq!(names("exec:a=/bin/x --password y,procs:*x y*").unwrap(), ["procs:*x y*", "exec:a"]);
        assert_eq!("default".parse(), Ok(Selection::default()));
        let all = names("cpu-parts,default").unwrap();
        let order = "cpu mem swap load disk inodes io net processes uptime cpu-parts pressure temp";
        assert_eq!(all.join(" "), order);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_reported() {
        let many = (0..33).map(|n| format!("disk:/{n}")).collect::<Vec<_>>().join(",");
        let long = format!("net:{}", "x".repeat(121));
        for (list, part) in [
            ("", "\"\" is none of default, cpu, mem"),
            ("cpu,", "\"\" is none of"),
            ("CPU", "\"CPU\" is none of"),
            ("cpu:0", "\"cpu:0\" is none of"),
            ("disk:var", "does not begin with /"),
            ("net:", "has nothing behind the colon"),
            ("disk:/a\nb", "control character"),
            ("procs", "\"procs\" is none of"),
            ("exec:a", "has no = between"),
            ("exec:a= ", "has no program"),
            ("exec:a b=/bin/x", "the name is not of 1 to 64"),
            (&long, "the limit is 1 to 128"),
            (&many, "33 probes, the limit is 32"),
        ] {
            let problem = list.parse::<Selection>().unwrap_err();
            assert!(problem.contains(part), "{list:?}: {problem}");
        }
        assert!("process".parse::<Scope>().is_err());
        assert_eq!(Scope::Cgroup.to_string().parse(), Ok(Scope::Cgroup));
    }

    #[test]
    fn labels_of_probes_are_known() {
        assert!(["cpu", "disk:/var", "net-in:eth0", "load1"].iter().all(|label| is_of_a_probe(label)));
        assert!(["temperature", "cpus", "my:cpu", "disk-used"].iter().all(|label| !is_of_a_probe(label)));
    }
}
