//! How this host's cgroups stand, found from the layout of their folder, so that a host's tree
//! seen elsewhere, or one that was written by hand, is read the same way.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::host::calls::Folder;
use crate::host::proc::mounts::mounts;

/// How this host's cgroups stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A hierarchy for each controller.
    V1,
    /// V1's controllers, beside a unified tree that has none of those read here.
    Hybrid,
    /// One unified tree.
    V2,
}

/// The hierarchies; on v2 all are the same folder. A container's path is the same in each.
#[derive(Debug)]
pub(super) struct Hierarchies {
    pub(super) mode: Mode,
    /// The hierarchy in which containers are looked for, and whose inodes are their ids.
    pub(super) ids: Folder,
    pub(super) ids_path: PathBuf,
    pub(super) cpu: Option<Folder>,
    pub(super) cpuacct: Option<Folder>,
    pub(super) cpuset: Option<Folder>,
    pub(super) memory: Option<Folder>,
}

impl Hierarchies {
    /// Finds the hierarchies in `[paths] cgroup`.
    pub(super) fn find(root: &Path, proc: &Path) -> Result<Hierarchies, Error> {
        let unreadable = |source: io::Error| Error::Cgroups { path: root.to_owned(), source };
        if is_unified(root) {
            return Hierarchies::v2(root).map_err(unreadable);
        }
        let unified = root.join("unified");
        let Some(cpu) = controller(root, "cpu").map_err(unreadable)? else {
            if is_unified(&unified) {
                return Hierarchies::v2(&unified).map_err(unreadable);
            }
            let remedy = remedy(proc);
            return Err(Error::NoCgroups { path: root.to_owned(), remedy });
        };
        let open = |name: &str| controller(root, name)?.map(|path| Folder::open(&path)).transpose();
        Ok(Hierarchies {
            mode: if unified.is_dir() { Mode::Hybrid } else { Mode::V1 },
            ids: Folder::open(&cpu).map_err(unreadable)?,
            cpu: Some(Folder::open(&cpu).map_err(unreadable)?),
            cpuacct: open("cpuacct").map_err(unreadable)?,
            cpuset: open("cpuset").map_err(unreadable)?,
            memory: open("memory").map_err(unreadable)?,
            ids_path: cpu,
        })
    }

    fn v2(root: &Path) -> io::Result<Hierarchies> {
        Ok(Hierarchies {
            mode: Mode::V2,
            ids: Folder::open(root)?,
            ids_path: root.to_owned(),
            cpu: Some(Folder::open(root)?),
            cpuacct: None,
            cpuset: Some(Folder::open(root)?),
            memory: Some(Folder::open(root)?),
        })
    }
}

pub(super) fn is_unified(path: &Path) -> bool {
    path.join("cgroup.controllers").is_file() || path.join("cgroup.procs").is_file()
}

/// The folder of this controller: its own, or one that it shares, as `cpu,cpuacct`.
pub(super) fn controller(root: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let own = root.join(name);
    if own.is_dir() {
        return Ok(Some(own));
    }
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let shares = entry.file_name().to_str().is_some_and(|shared| shared.split(',').any(|it| it == name));
        if shares && entry.path().is_dir() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// What to do where there is no hierarchy: name one that is mounted elsewhere, if there is one.
fn remedy(proc: &Path) -> String {
    let text = std::fs::read(proc.join("self/mountinfo")).unwrap_or_default();
    let found = mounts(&text).flatten().find(|mount| mount.is_unified() || mount.is_v1("cpu"));
    match found {
        Some(mount) if mount.is_unified() => {
            format!("a unified one is mounted at {}: set it there", mount.point.escape_ascii())
        }
        Some(mount) => {
            format!("that of cpu is mounted at {}: set it to the folder above", mount.point.escape_ascii())
        }
        None => "mount one, with `mount -t cgroup2 none DIR`, and set it there".to_owned(),
    }
}
