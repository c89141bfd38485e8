//! The containers of this host, in a table of a fixed size. One that is gone keeps its slot, and
//! can still be looked up by its key, until the slot is needed for another.

use super::Key;

/// One container: a cgroup that a container runtime made.
#[derive(Debug)]
pub struct Container {
    key: Key,
    live: bool,
    id: String,
    cgroup_path: String,
    cgroup_id: u64,
    runtime: Option<&'static str>,
    qos: Option<&'static str>,
    pod: String,
    name: String,
    namespace: String,
    hostname: String,
}

impl Container {
    /// Its place in the table.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }
    /// Whether its cgroup is still there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }
    /// The runtime's id: 64 hex digits for most.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Its cgroup's path below the hierarchy's mount point, with a leading `/`.
    #[must_use]
    pub fn cgroup_path(&self) -> &str {
        &self.cgroup_path
    }
    /// Its cgroup's id, the inode of its directory: in the cpu hierarchy on v1, in the unified one on v2.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }
    /// `docker`, `containerd`, `crio`, `podman`, where the path tells.
    #[must_use]
    pub fn runtime(&self) -> Option<&'static str> {
        self.runtime
    }
    /// The pod's QoS class: `guaranteed`, `burstable`, `besteffort`.
    #[must_use]
    pub fn qos(&self) -> Option<&'static str> {
        self.qos
    }
    /// The pod's uid; empty if it is in none.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }
    /// Its name; empty while nothing has told it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its Kubernetes namespace; empty while nothing has told it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
    /// Its host name; empty while nothing has told it.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Containers {
    slots: Vec<Container>,
}

impl Containers {
    /// Containers of these ids and cgroup paths that are in no file system: for tests and fuzzing.
    #[doc(hidden)]
    #[must_use]
    pub fn fixture(list: &[(&str, &str)]) -> Containers {
        let container = |(slot, (id, path)): (usize, &(&str, &str))| Container {
            key: Key { slot: u16::try_from(slot).unwrap_or(u16::MAX), generation: 1 },
            live: true,
            id: (*id).to_owned(),
            cgroup_path: (*path).to_owned(),
            cgroup_id: 0,
            runtime: None,
            qos: None,
            pod: String::new(),
            name: String::new(),
            namespace: String::new(),
            hostname: String::new(),
        };
        Containers { slots: list.iter().enumerate().map(container).collect() }
    }
    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Container> {
        self.slots.iter().filter(|container| container.live)
    }
    /// The one of this key, also when it is gone, until its slot is needed for another.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Container> {
        self.slots.get(usize::from(key.slot)).filter(|container| container.key == key)
    }
}
