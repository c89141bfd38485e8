//! /proc/PID/cgroup: in which cgroup a process is, in each hierarchy.

use crate::host::text::{decimal, lines};

/// One line: `4:cpu,cpuacct:/path` of a v1 hierarchy, `0::/path` of the unified one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership<'t> {
    /// The hierarchy's number; 0 is the unified one.
    pub hierarchy: u32,
    /// Its controllers, between commas; a named one's `name=systemd`.
    pub controllers: &'t [u8],
    /// The path below its mount point, as the reader's cgroup namespace shows it.
    pub path: &'t [u8],
}

impl Membership<'_> {
    /// Whether the hierarchy has this controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(|byte| *byte == b',').any(|name| name == controller.as_bytes())
    }

    /// Whether it is the unified (v2) hierarchy.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.hierarchy == 0 && self.controllers.is_empty()
    }
}

/// Each line; `None` for one that is not understood.
pub fn memberships(text: &[u8]) -> impl Iterator<Item = Option<Membership<'_>>> {
    lines(text).map(membership)
}

fn membership(line: &[u8]) -> Option<Membership<'_>> {
    let mut parts = line.splitn(3, |byte| *byte == b':');
    let hierarchy = u32::try_from(decimal(parts.next()?)?).ok()?;
    let controllers = parts.next()?;
    let path = parts.next()?;
    // Of a cgroup that was removed while the process was still in it.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    path.starts_with(b"/").then_some(Membership { hierarchy, controllers, path })
}

/// Whether a process in the cgroup `seen` is in the cgroup `path`, or below it. A reader in a cgroup
/// namespace of its own, as in a container, sees what is outside by how to get there: `/../../pod/id`.
/// The last name of `path` is then to be a container's, which no other has.
#[must_use]
pub fn is_below(seen: &str, path: &str) -> bool {
    let within =
        |seen: &str| seen.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(mut outside) = seen.strip_prefix("/..") else { return within(seen) };
    while let Some(rest) = outside.strip_prefix("/..") {
        outside = rest;
    }
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    let ends =
        name.into_iter().flat_map(|name| outside.match_indices(name).map(|(at, name)| at + name.len()));
    ends.into_iter().any(|end| {
        let (head, rest) = outside.split_at(end);
        path.ends_with(head) && (rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Membership<'_>> {
        memberships(text).collect::<Option<Vec<_>>>().expect("every line is understood")
    }

    #[test]
    fn a_hybrid_hosts_process_has_a_path_in_each_hierarchy() {
        let all = all(include_bytes!("../../../fuzz/corpus/task_cgroup/hybrid"));
        let cpu = all.iter().find(|line| line.has("cpu")).expect("it is there");
        assert!(cpu.path.starts_with(b"/kubepods/burstable/pod") && !cpu.is_unified());
        assert!(!all.iter().any(|line| line.has("acct")));
        assert_eq!(all.iter().filter(|line| line.is_unified()).count(), 1);
    }

    #[test]
    fn a_cgroup_path_may_contain_colons_and_a_deleted_suffix() {
        let all = all(include_bytes!("../../../fuzz/corpus/task_cgroup/colons"));
        assert!(all.first().expect("a line").path.ends_with(b".slice:cri-containerd:0123"));
        assert_eq!(all.last().expect("a line").path, b"/gone");
    }

    #[test]
    fn broken_cgroup_lines_are_skipped() {
        for line in ["", "1", "1:cpu", "x:cpu:/", "1:cpu:relative", "::/"] {
            assert_eq!(membership(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_cgroup_is_found_from_within_another_namespace() {
        let path = "/kubepods/burstable/podA/c1";
        for inside in
            ["/kubepods/burstable/podA/c1", "/../c1", "/../../podA/c1", "/../../../burstable/podA/c1/deeper"]
        {
            assert!(is_below(inside, path), "{inside}");
        }
        for other in [
            "/",
            "/..",
            "/../c2",
            "/../../podB/c1",
            "/../c11",
            "/../xc1",
            "/kubepods/burstable/podA/c12",
            "/c1",
        ] {
            assert!(!is_below(other, path), "{other}");
        }
        assert!(is_below("/a", ""), "all is below the root");
    }
}
