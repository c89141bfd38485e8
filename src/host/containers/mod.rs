//! The containers of this host, in a table of a fixed size. One that is gone keeps its slot, and
//! can still be looked up by its key, until the slot is needed for another. After the table is
//! made, nothing here allocates.

pub mod claim;
pub mod filter;
pub mod path;
pub(crate) mod paths;
mod table;

use super::Key;
use super::identity::Role;
use super::inline::Text;
use filter::Filter;
use paths::PathTable;
use table::ContainerEntry;

pub use table::{Containers, NotFound, Refused};

/// A container's id, apart from the table.
pub type ContainerId = Text<{ path::ID_MAX }>;

/// One container: a cgroup that a container runtime made.
#[derive(Clone, Copy, Debug)]
pub struct Container<'t> {
    row: &'t ContainerEntry,
    paths: &'t PathTable,
}

impl<'t> Container<'t> {
    /// Its place in the table.
    #[must_use]
    pub fn key(self) -> Key {
        self.row.key
    }
    /// Whether its cgroup is still there.
    #[must_use]
    pub fn is_live(self) -> bool {
        self.row.live
    }
    /// The runtime's id: 64 hex digits for most.
    #[must_use]
    pub fn id(self) -> &'t str {
        &self.row.id
    }
    /// The same, for whoever remembers it for longer than the table does.
    #[must_use]
    pub fn own_id(self) -> ContainerId {
        self.row.id
    }
    /// Its cgroup's path below the hierarchy's mount point, with a leading `/`; what is no UTF-8 is shown
    /// as U+FFFD.
    #[must_use]
    pub fn cgroup_path(self) -> &'t str {
        self.paths.text(self.row.key.slot)
    }
    /// Its cgroup's id, the inode of its directory: in the cpu hierarchy on v1, in the unified one on v2.
    #[must_use]
    pub fn cgroup_id(self) -> u64 {
        self.row.cgroup_id
    }
    /// What made it, as `docker`, where the path tells.
    #[must_use]
    pub fn runtime(self) -> Option<&'static str> {
        self.row.runtime
    }
    /// Whether its runtime has files that tell its names, or a kubelet may. Where it does not, a file of another
    /// runtime's container may have the same id: people choose both.
    #[must_use]
    pub fn has_files(self) -> bool {
        !self.row.runtime.is_some_and(path::has_no_files)
    }
    /// The pod's QoS class: `guaranteed`, `burstable`, `besteffort`.
    #[must_use]
    pub fn qos(self) -> Option<&'static str> {
        self.row.identity.qos
    }
    /// What it is to its pod, once something has told it.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        self.row.identity.role
    }
    /// The pod's name, or its uid while nothing has told the name; empty if it is in none.
    #[must_use]
    pub fn pod(self) -> &'t str {
        if self.row.identity.pod.is_empty() { &self.row.identity.pod_uid } else { &self.row.identity.pod }
    }
    /// The pod's uid; empty if it is in none.
    #[must_use]
    pub fn pod_uid(self) -> &'t str {
        &self.row.identity.pod_uid
    }
    /// Its name; empty while nothing has told it.
    #[must_use]
    pub fn name(self) -> &'t str {
        &self.row.identity.name
    }
    /// Its Kubernetes namespace; empty while nothing has told it.
    #[must_use]
    pub fn namespace(self) -> &'t str {
        &self.row.identity.namespace
    }
    /// Its host name; empty while nothing has told it.
    #[must_use]
    pub fn hostname(self) -> &'t str {
        &self.row.identity.hostname
    }
    /// Its cgroup's path as the kernel has it.
    pub(crate) fn raw_path(self) -> &'t [u8] {
        self.paths.raw(self.row.key.slot)
    }
    /// Whether only a record of its runtime can tell that it is what its id says.
    #[must_use]
    pub fn needs_proof(self) -> bool {
        self.row.contested || self.row.maker != claim::Maker::Host
    }
    /// What the file that told its name looked like then; 0 where no file that changes did.
    #[must_use]
    pub fn stamp(self) -> u64 {
        self.row.stamp
    }
}

/// The containers that a tracer watches: those that are there, but for those that its filter leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    containers: &'a Containers,
    filter: &'a Filter,
}

impl<'a> Watched<'a> {
    /// Those of the table that the filter takes.
    #[must_use]
    pub fn new(containers: &'a Containers, filter: &'a Filter) -> Watched<'a> {
        Watched { containers, filter }
    }

    /// All that are there.
    #[must_use]
    pub fn all(containers: &'a Containers) -> Watched<'a> {
        Watched { containers, filter: &filter::ALL }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Container<'a>> {
        self.containers.iter().filter(move |container| self.filter.takes(*container))
    }
}
