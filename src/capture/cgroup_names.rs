//! Names of cgroups that are no containers: their paths, found by their inodes.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::DirEntryExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Cgroups that are looked at to find names: more than any host has.
const CGROUPS_MAX: usize = 1 << 16;

/// The paths of these cgroups, `/` being the root's. Those that are gone have none.
pub(super) fn cgroup_names(root: &Path, mut wanted: HashSet<u64>) -> HashMap<u64, Box<str>> {
    let mut names = HashMap::new();
    if let Ok(found) = std::fs::metadata(root)
        && wanted.remove(&found.ino())
    {
        names.insert(found.ino(), "/".into());
    }
    let mut looked = 0;
    let mut open = vec![PathBuf::from("/")];
    while let Some(path) = open.pop()
        && !wanted.is_empty()
        && looked < CGROUPS_MAX
    {
        looked += 1;
        let folder = root.join(path.strip_prefix("/").unwrap_or(&path));
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let below = path.join(entry.file_name());
            if wanted.remove(&entry.ino()) {
                names.insert(entry.ino(), below.to_string_lossy().into());
            }
            open.push(below);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_named_by_their_inodes_and_those_that_are_gone_are_not() {
        let root = std::env::temp_dir().join(format!("onset-names-{}", std::process::id()));
        let deep = root.join("system.slice/x.service");
        std::fs::create_dir_all(&deep).expect("folders");
        std::fs::write(deep.join("cgroup.procs"), "").expect("a file");
        let id = |path: &Path| std::fs::metadata(path).expect("it is there").ino();
        let (top, below, file) = (id(&root), id(&deep), id(&deep.join("cgroup.procs")));
        let names = cgroup_names(&root, HashSet::from([top, below, file, 7]));
        std::fs::remove_dir_all(&root).expect("it goes away");
        let want = HashMap::from([(top, "/".into()), (below, "/system.slice/x.service".into())]);
        assert_eq!(names, want);
    }
}
