//! `disk`: used space of the root file system in percent, as `df` shows it; `disk:PATH`: that of the file system that
//! holds the path. By `statvfs(3)`.

use super::table::{About, Label};
use super::{Probe, Tick};

pub(super) const ABOUT: About = About {
    name: "disk",
    target: Some("PATH"),
    labels: &[Label { name: "disk", unit: "%", what: "used space of the root file system, or of that of PATH" }],
    source: "statvfs(3)",
    is_default: true,
    new: |setup| {
        let mut paths = Vec::new();
        for target in setup.targets {
            paths.push((setup.filesystems.add(target.as_deref().unwrap_or("/"))?, target));
        }
        Ok(Box::new(Disk { paths }))
    },
};

struct Disk {
    /// Each file system by its index, and the path that the label has.
    paths: Vec<(usize, Option<String>)>,
}

impl Probe for Disk {
    fn read(&mut self, tick: &mut Tick<'_>) {
        for (filesystem, path) in &self.paths {
            match tick.filesystems.usage(*filesystem, tick.until) {
                Ok(usage) => tick.give("disk", path.as_deref(), usage.map(|usage| usage.used_percent)),
                Err(why) => tick.report(path.as_deref(), &why),
            }
        }
    }
}
