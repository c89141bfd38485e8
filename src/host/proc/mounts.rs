//! /proc/PID/mountinfo, as far as it says where the cgroup hierarchies are.

use crate::host::text::{fields, lines};

/// One mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'t> {
    /// The numbers of the filesystem, as `254:0`.
    pub device: &'t [u8],
    /// What of the filesystem is mounted: `/` for all of it.
    pub root: &'t [u8],
    /// Where; spaces, tabs, newlines and backslashes are in octal (`\040`), as in the file.
    pub point: &'t [u8],
    /// The type of the filesystem.
    pub kind: &'t [u8],
    /// Its own options, between commas: a v1 hierarchy's controllers are among them.
    pub options: &'t [u8],
}

impl Mount<'_> {
    /// Whether it is a v1 hierarchy with this controller.
    #[must_use]
    pub fn is_v1(&self, controller: &str) -> bool {
        self.kind == b"cgroup" && self.options.split(|byte| *byte == b',').any(|o| o == controller.as_bytes())
    }

    /// Whether it is the unified (v2) hierarchy.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.kind == b"cgroup2"
    }
}

/// Each line; `None` for one that is not understood.
pub fn mounts(text: &[u8]) -> impl Iterator<Item = Option<Mount<'_>>> {
    lines(text).map(mount)
}

fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = fields(line);
    let device = fields.nth(2)?;
    let root = fields.next()?;
    let point = fields.next()?;
    // Any number of optional fields, then a dash.
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?;
    let options = fields.nth(1)?;
    Some(Mount { device, root, point, kind, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Mount<'_>> {
        mounts(text).collect::<Option<Vec<_>>>().expect("every line is understood")
    }

    #[test]
    fn mountinfo_identifies_hierarchies_by_their_controllers() {
        let mounts = all(include_bytes!("../../../fuzz/corpus/mountinfo/hybrid-6.18"));
        let point = |controller| mounts.iter().find(|mount| mount.is_v1(controller)).map(|mount| mount.point);
        assert_eq!(point("cpu"), Some(b"/sys/fs/cgroup/cpu".as_slice()));
        assert_eq!(point("memory"), Some(b"/sys/fs/cgroup/memory".as_slice()));
        assert_eq!(point("io"), None);
        assert!(mounts.iter().any(|mount| mount.is_unified() && mount.point == b"/sys/fs/cgroup/unified"));
    }

    #[test]
    fn optional_mountinfo_fields_are_skipped() {
        let mounts = all(include_bytes!("../../../fuzz/corpus/mountinfo/co_mounted"));
        let both = mounts.iter().find(|mount| mount.is_v1("cpuacct")).expect("it is there");
        assert!(both.is_v1("cpu") && both.point == b"/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(mounts.last().expect("a line").point, br"/mnt/with\040space");
    }

    #[test]
    fn broken_mountinfo_lines_are_skipped() {
        for line in ["", "1 2 3:4 /", "1 2 3:4 / /a rw", "1 2 3:4 / /a rw - cgroup", "1 2 3:4 / /a rw - c x"]
        {
            assert_eq!(mount(line.as_bytes()), None, "{line}");
        }
    }
}
