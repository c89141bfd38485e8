//! The containers of this host, in a table of a fixed size. One that is gone keeps its slot, and
//! can still be looked up by its key, until the slot is needed for another. After the table is
//! made, nothing here allocates.

pub mod filter;
pub mod path;

use std::collections::VecDeque;

use super::Key;
use super::identity::{Identity, Role};
use super::index::Index;
use super::inline::Text;
use filter::Filter;
use path::Found;

/// Slots beyond the capacity, as a share of it: those that are gone wait there to be reported.
const SPARE: usize = 4;

/// Beside that share, so many that are gone are kept for look-ups: an event is written up to a minute
/// after it began, and what it tells of may be gone by then.
const REMEMBERED: usize = 64;

/// A container's id, apart from the table.
pub type ContainerId = Text<76>;

/// One container: a cgroup that a container runtime made.
#[derive(Debug)]
pub struct Container {
    key: Key,
    live: bool,
    changed: bool,
    id: ContainerId,
    cgroup_path: Text<PATH_MAX>,
    cgroup_id: u64,
    runtime: Option<&'static str>,
    identity: Identity,
}

/// A longer cgroup path is not followed: kind's, the longest known, are of 300 bytes.
pub(crate) const PATH_MAX: usize = 512;

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
    /// The same, for whoever remembers it for longer than the table does.
    #[must_use]
    pub fn own_id(&self) -> ContainerId {
        self.id
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
        self.identity.qos
    }
    /// What it is to its pod, once something has told it.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.identity.role
    }
    /// The pod's name, or its uid while nothing has told the name; empty if it is in none.
    #[must_use]
    pub fn pod(&self) -> &str {
        if self.identity.pod.is_empty() { &self.identity.pod_uid } else { &self.identity.pod }
    }
    /// The pod's uid; empty if it is in none.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        &self.identity.pod_uid
    }
    /// Its name; empty while nothing has told it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }
    /// Its Kubernetes namespace; empty while nothing has told it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.identity.namespace
    }
    /// Its host name; empty while nothing has told it.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.identity.hostname
    }
}

/// Why a container is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many as the table was made for are there already.
    #[error("there are more containers than [containers] capacity; raise it")]
    Full,
    /// Its path is longer than any that is followed.
    #[error("the cgroup's path is too long")]
    TooLong,
}

/// Why an id names no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No container that is there has this id.
    #[error("no container's id begins so; `onset containers` lists them")]
    None,
    /// More than one does.
    #[error("several containers' ids begin so; give more of it")]
    Several,
}

/// The table.
#[derive(Debug, Default)]
pub struct Containers {
    slots: Vec<Container>,
    capacity: usize,
    live: usize,
    /// Those that are there, by their paths.
    by_path: Index,
    /// Slots of those that are gone, longest gone first.
    gone: VecDeque<u16>,
    /// Slots that changed since that was last asked.
    changed: VecDeque<u16>,
}

impl Containers {
    /// So many slots has a table for so many at once: those that are gone need some, too.
    #[must_use]
    pub fn slots_for(capacity: usize) -> usize {
        (capacity + capacity / SPARE + REMEMBERED).min(usize::from(u16::MAX))
    }

    /// An empty table for so many at once.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Containers {
        let slots = Containers::slots_for(capacity);
        Containers {
            slots: Vec::with_capacity(slots),
            capacity: capacity.min(slots),
            live: 0,
            by_path: Index::with_capacity(slots),
            gone: VecDeque::with_capacity(slots),
            changed: VecDeque::with_capacity(slots),
        }
    }

    /// A table for tests: these ids at these paths, in slots from 0 on, of generation 1.
    #[doc(hidden)]
    #[must_use]
    pub fn fixture(list: &[(&str, &str)]) -> Containers {
        let mut containers = Containers::with_capacity(list.len().max(1));
        for (number, (id, path)) in list.iter().enumerate() {
            let found = Found { id, runtime: None, qos: None, pod: Text::EMPTY };
            // A path that is too long is not in the table, as on a host.
            let _ = containers.appear(path, &found, number as u64);
        }
        for container in &mut containers.slots {
            container.key.generation = 1;
        }
        containers
    }

    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Container> {
        self.slots.iter().filter(|container| container.live)
    }

    /// How many are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether none is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Slots in use so far, gone containers' included: no key's slot is at or above it.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// So many slots can come into use.
    pub(crate) fn most_slots(&self) -> usize {
        self.slots.capacity()
    }

    /// The one in this slot, if it is there.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<&Container> {
        self.slots.get(slot).filter(|container| container.live)
    }

    /// The one of this key, also when it is gone, until its slot is needed for another.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Container> {
        self.slots.get(usize::from(key.slot)).filter(|container| container.key == key)
    }

    /// The one whose cgroup this is, of those that are there.
    #[must_use]
    pub fn at(&self, cgroup_path: &str) -> Option<&Container> {
        let slot = self.by_path.find(cgroup_path)?;
        self.slots.get(usize::from(slot)).filter(|it| it.live && *it.cgroup_path == *cgroup_path)
    }

    /// The one that holds a cgroup: whose own this is, or the nearest one above.
    #[must_use]
    pub fn holding(&self, cgroup_path: &str) -> Option<&Container> {
        let mut path = cgroup_path;
        loop {
            if let Some(container) = self.at(path) {
                return Some(container);
            }
            path = path.rsplit_once('/')?.0;
        }
    }

    /// The one of this id, or the only one whose id begins so, of those that are there.
    pub fn find(&self, id_or_prefix: &str) -> Result<Key, NotFound> {
        if id_or_prefix.is_empty() {
            return Err(NotFound::None);
        }
        let mut only = Err(NotFound::None);
        for container in self.iter().filter(|it| it.id.starts_with(id_or_prefix)) {
            if *container.id == *id_or_prefix {
                return Ok(container.key);
            }
            only = if only == Err(NotFound::None) { Ok(container.key) } else { Err(NotFound::Several) };
        }
        only
    }

    /// Takes one in that has appeared, or is there already.
    pub fn appear(&mut self, cgroup_path: &str, found: &Found<'_>, cgroup_id: u64) -> Result<Key, Refused> {
        let path = Text::new(cgroup_path).ok_or(Refused::TooLong)?;
        let id = Text::new(found.id).ok_or(Refused::TooLong)?;
        if let Some(known) = self.at(cgroup_path) {
            let (key, same) = (known.key, known.cgroup_id == cgroup_id);
            if same {
                return Ok(key);
            }
            self.vanish(key);
        }
        if self.live == self.capacity {
            return Err(Refused::Full);
        }
        let key = self.free_slot().ok_or(Refused::Full)?;
        let container = Container {
            key,
            live: true,
            changed: false,
            id,
            cgroup_path: path,
            cgroup_id,
            runtime: found.runtime,
            identity: Identity { pod_uid: found.pod, qos: found.qos, ..Identity::UNKNOWN },
        };
        match self.slots.get_mut(usize::from(key.slot)) {
            Some(slot) => *slot = container,
            None => self.slots.push(container),
        }
        self.live += 1;
        self.by_path.insert(cgroup_path, key.slot);
        self.note_change(key.slot);
        Ok(key)
    }

    /// Its cgroup is gone. What is gone already, or no longer known, stays so.
    pub fn vanish(&mut self, key: Key) {
        let Some(container) = self.slots.get_mut(usize::from(key.slot)) else { return };
        if container.key != key || !container.live {
            return;
        }
        container.live = false;
        self.live -= 1;
        self.by_path.remove(&container.cgroup_path);
        self.gone.push_back(key.slot);
        self.note_change(key.slot);
    }

    /// Tells its names: what is not known by them stays. A key that is no longer known is left alone.
    pub fn describe(&mut self, key: Key, told: &Identity) {
        let slot = self.slots.get_mut(usize::from(key.slot)).filter(|container| container.key == key);
        if let Some(container) = slot {
            container.identity.learn(told);
        }
    }

    /// Hands over those that appeared or went since this was last asked, each once and as it is now.
    pub fn changes(&mut self, mut each: impl FnMut(&Container)) {
        while let Some(slot) = self.changed.pop_front() {
            if let Some(container) = self.slots.get_mut(usize::from(slot)) {
                container.changed = false;
                each(container);
            }
        }
    }

    fn note_change(&mut self, slot: u16) {
        let Some(container) = self.slots.get_mut(usize::from(slot)) else { return };
        if !container.changed {
            container.changed = true;
            self.changed.push_back(slot);
        }
    }

    /// So many that are gone are remembered while there are fresh slots: fresh ones cost memory.
    fn remembered(&self) -> usize {
        REMEMBERED + self.capacity / SPARE
    }

    /// A fresh slot, or that of the longest gone: never of one whose going was not yet told, for
    /// whoever listens would keep it for ever.
    fn free_slot(&mut self) -> Option<Key> {
        let fresh = self.slots.len() < self.slots.capacity().min(usize::from(u16::MAX));
        let told = self.gone.front().and_then(|slot| self.slots.get(usize::from(*slot)));
        let told = told.filter(|oldest| !oldest.changed).map(|oldest| oldest.key);
        match told {
            Some(key) if !fresh || self.gone.len() >= self.remembered() => {
                self.gone.pop_front();
                Some(Key { slot: key.slot, generation: key.generation.wrapping_add(1) })
            }
            _ if fresh => Some(Key { slot: u16::try_from(self.slots.len()).ok()?, generation: 0 }),
            _ => None,
        }
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
    pub fn iter(self) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(move |container| self.filter.takes(container))
    }
}

#[cfg(test)]
mod tests;
