//! The open folders of one container, by which a `CgroupSource` finds its cgroups. They are kept open in
//! place of its text files, of which there are twice as many.

use std::os::fd::{AsRawFd as _, OwnedFd};

use super::bounds::Group;
use super::hierarchies::Hierarchies;
use super::source::{Io, is_gone};
use crate::host::calls::Folder;
use crate::host::cgroup_source::{CgroupFolders, HIERARCHIES};

/// The folders.
#[derive(Debug, Default)]
pub(super) struct Folders {
    open: [Option<OwnedFd>; HIERARCHIES],
    nodes: [u64; HIERARCHIES],
    /// The folders that are not there were looked for.
    looked: bool,
}

impl Folders {
    /// Opens those that are not open. `None`: there is no room for all, or none of them is there.
    pub(super) fn opened(&mut self, group: Group<'_>, io: &mut Io) -> Option<CgroupFolders> {
        if !self.looked || group.again {
            self.looked = self.open(group, io);
        }
        let descriptor = |folder: &Option<OwnedFd>| folder.as_ref().map_or(-1, |folder| folder.as_raw_fd());
        let descriptors = self.open.each_ref().map(descriptor);
        (self.looked && descriptors.iter().any(|one| *one >= 0))
            .then_some(CgroupFolders { descriptors, nodes: self.nodes })
    }

    /// Keeps what the source found behind the descriptors.
    pub(super) fn found(&mut self, nodes: [u64; HIERARCHIES]) {
        self.nodes = nodes;
    }

    /// Closes all: they are opened again when they are next asked for.
    pub(super) fn close(&mut self, io: &mut Io) {
        io.spare += self.open.iter().flatten().count() as u64;
        *self = Folders::default();
    }

    /// True: those that are there are open.
    fn open(&mut self, group: Group<'_>, io: &mut Io) -> bool {
        for (hierarchy, place) in hierarchies(group.hierarchies).into_iter().zip(&mut self.open) {
            let Some(hierarchy) = hierarchy.filter(|_| place.is_none()) else { continue };
            if io.spare == 0 {
                return false;
            }
            let path = group.path.strip_prefix(b"/").unwrap_or(group.path);
            match io.path(&[path]).map(|path| hierarchy.handle(path)) {
                Some(Ok(folder)) => {
                    io.spare -= 1;
                    *place = Some(folder);
                }
                Some(Err(error)) if is_gone(&error) => {}
                Some(Err(_)) | None => return false,
            }
        }
        true
    }
}

/// In the order of `CgroupFolders`.
fn hierarchies(all: &Hierarchies) -> [Option<&Folder>; HIERARCHIES] {
    if all.mode == super::Mode::V2 {
        return [all.cpu.as_ref(), None, None, None];
    }
    [all.cpu.as_ref(), all.cpuacct.as_ref(), all.memory.as_ref(), all.cpuset.as_ref()]
}
