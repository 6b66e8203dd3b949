//! `inodes`: inodes in use of the root file system in percent, or of the file system that holds a path. By
//! `statvfs(3)`. File systems without a fixed number of inodes, as btrfs and vfat, have no value.

use super::{About, Label, Probe, Target, Tick};

pub(super) const ABOUT: About = About {
    name: "inodes",
    target: Target::Optional("PATH"),
    labels: &[Label { name: "inodes", unit: "%", what: "inodes in use of the root file system, or of that of PATH" }],
    source: "statvfs(3)",
    is_default: true,
    new: |setup| {
        let mut paths = Vec::new();
        for target in setup.targets {
            paths.push((setup.filesystems.add(target.as_deref().unwrap_or("/"))?, target));
        }
        Ok(Box::new(Inodes { paths }))
    },
};

struct Inodes {
    /// Each file system by its index, and the path that the label has.
    paths: Vec<(usize, Option<String>)>,
}

impl Probe for Inodes {
    fn read(&mut self, tick: &mut Tick<'_>) {
        for (filesystem, path) in &self.paths {
            match tick.filesystems.usage(*filesystem, tick.until) {
                Ok(Some(usage)) if usage.inodes_percent.is_none() => {
                    tick.leave_out(&format!("the file system of {} has no inodes", path.as_deref().unwrap_or("/")));
                }
                Ok(usage) => tick.give("inodes", path.as_deref(), usage.and_then(|usage| usage.inodes_percent)),
                Err(why) => tick.report(path.as_deref(), &why),
            }
        }
    }
}
