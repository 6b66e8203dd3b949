//! Mounted file systems, by `mountinfo` of a process (`proc_pid_mountinfo(5)`).

use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Device number of the file system, `MAJOR:MINOR`.
    pub(super) device: String,
    /// The directory of the file system that is mounted.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) kind: String,
    /// The block device, or the server and its path.
    pub(super) source: String,
    /// Options of the file system, whichever mount shows it: `ro` if it is read-only; of cgroups the controllers.
    pub(super) options: String,
}

impl Mount {
    /// Whether an option is among those of the file system.
    pub(super) fn has_option(&self, option: &str) -> bool {
        self.options.split(',').any(|known| known == option)
    }
}

/// Parses the lines of `mountinfo`; what is no mount is left out.
pub(super) fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let (mut head, mut tail) = (head.split(' ').skip(2), tail.split(' '));
        Some(Mount {
            device: head.next()?.to_owned(),
            root: unescape(head.next()?).into(),
            point: unescape(head.next()?).into(),
            kind: tail.next()?.to_owned(),
            source: unescape(tail.next()?),
            options: tail.next()?.to_owned(),
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// Decodes the octal escapes by which `mountinfo` writes space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => plain.extend([char::from(code).encode_utf8(&mut [0; 4]), &part[3..]]),
            None => plain.extend(["\\", part]),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_has_octal_escapes() {
        assert_eq!(unescape(r"/a\040b\011c\012d\134e"), "/a b\tc\nd\\e");
        assert_eq!(unescape(r"/\04\x\777\é\"), r"/\04\x\777\é\");
    }

    #[test]
    fn a_line_is_a_mount() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\nnonsense\n";
        let mounts = parse_mounts(text);
        let expected = Mount {
            device: "98:0".to_owned(),
            root: "/mnt1".into(),
            point: "/mnt 2".into(),
            kind: "ext3".to_owned(),
            source: "/dev/root".to_owned(),
            options: "rw,errors=continue".to_owned(),
        };
        assert_eq!(mounts, [expected]);
        assert!(mounts[0].has_option("rw") && !mounts[0].has_option("ro"));
    }
}
