//! The table itself: which containers there are, in which slot, and who is the container of an id.

mod claims;

use std::collections::VecDeque;

use super::Container;
use super::claim::{Maker, Standing};
use super::path::{ID_MAX, PathInfo};
use super::paths::PathTable;
use crate::host::Key;
use crate::host::identity::Identity;
use crate::host::index::Index;
use crate::host::inline::Text;

/// Why a container is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many as the table was made for are there already.
    #[error("there are more containers than [containers] capacity; raise it")]
    Full,
    /// Its path is longer than any that the kernel takes, or all paths together are.
    #[error("the cgroup's path is too long")]
    TooLong,
    /// Another cgroup is the container of this id.
    #[error("another cgroup has this id")]
    Rival,
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

/// Slots beyond the capacity, as a share of it: those that are gone wait there to be reported.
const SPARE: usize = 4;

/// Beside that share, this number of containers that are gone are kept for look-ups: an event is written up to
/// a minute after it began, and the container that it tells of may be gone by then.
pub(super) const REMEMBERED: usize = 64;

/// What is kept of a container beside its path.
#[derive(Debug)]
pub(super) struct ContainerEntry {
    pub(super) key: Key,
    pub(super) live: bool,
    changed: bool,
    /// Another cgroup has its id, too.
    pub(super) contested: bool,
    /// It took the place of one that its runtime spoke against.
    successor: bool,
    /// A container made it, and the host's runtime knows it by that place.
    proven: bool,
    pub(super) maker: Maker,
    standing: Standing,
    pub(super) stamp: u64,
    pub(super) id: Text<ID_MAX>,
    pub(super) cgroup_id: u64,
    pub(super) runtime: Option<&'static str>,
    pub(super) identity: Identity,
}

/// The table.
#[derive(Debug, Default)]
pub struct Containers {
    slots: Vec<ContainerEntry>,
    paths: PathTable,
    capacity: usize,
    live: usize,
    /// Those that are there, by their paths and by their ids.
    by_path: Index,
    by_id: Index,
    /// Slots of those that are gone, longest gone first.
    gone: VecDeque<u16>,
    /// Slots that changed since that was last asked.
    changed: VecDeque<u16>,
}

impl Containers {
    /// The slots of a table that has room for `capacity` containers at once: those that are gone need slots, too.
    #[must_use]
    pub fn slots_for(capacity: usize) -> usize {
        (capacity + capacity / SPARE + REMEMBERED).min(usize::from(u16::MAX))
    }

    /// An empty table for `capacity` containers at once.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Containers {
        let slots = Containers::slots_for(capacity);
        Containers {
            slots: Vec::with_capacity(slots),
            capacity: capacity.min(slots),
            live: 0,
            paths: PathTable::with_capacity(slots),
            by_path: Index::with_capacity(slots),
            by_id: Index::with_capacity(slots),
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
            let found = PathInfo { id, runtime: None, qos: None, pod: Text::EMPTY, name: Text::EMPTY };
            // A path that is too long is not in the table, as on a host.
            let _ = containers.appear(path.as_bytes(), &found, number as u64, Maker::Host);
        }
        for row in &mut containers.slots {
            row.key.generation = 1;
        }
        containers
    }

    fn seen<'t>(&'t self, row: &'t ContainerEntry) -> Container<'t> {
        Container { row, paths: &self.paths }
    }

    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = Container<'_>> {
        self.slots.iter().filter(|row| row.live).map(|row| self.seen(row))
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

    /// The number of slots that can come into use.
    pub(crate) fn most_slots(&self) -> usize {
        self.slots.capacity()
    }

    /// The one in this slot, if it is there.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<Container<'_>> {
        Some(self.seen(self.slots.get(slot).filter(|row| row.live)?))
    }

    /// The one of this key, also when it is gone, until its slot is needed for another.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Container<'_>> {
        Some(self.seen(self.slots.get(usize::from(key.slot)).filter(|row| row.key == key)?))
    }

    /// The one whose cgroup this is, of those that are there.
    #[must_use]
    pub fn at(&self, cgroup_path: &[u8]) -> Option<Container<'_>> {
        let container = self.in_slot(self.by_path.find(cgroup_path)?.into())?;
        (container.raw_path() == cgroup_path).then_some(container)
    }

    /// The one that has this id, but another cgroup, of those that are there.
    #[must_use]
    pub fn rival(&self, cgroup_path: &[u8], id: &str) -> Option<Container<'_>> {
        let container = self.in_slot(self.by_id.find(id.as_bytes())?.into())?;
        (container.id() == id && container.raw_path() != cgroup_path).then_some(container)
    }

    /// The one that holds a cgroup: whose own this is, or the nearest one above.
    #[must_use]
    pub fn holding(&self, cgroup_path: &str) -> Option<Container<'_>> {
        let mut path = cgroup_path;
        loop {
            if let Some(container) = self.at(path.as_bytes()) {
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
        for row in self.slots.iter().filter(|row| row.live && row.id.starts_with(id_or_prefix)) {
            if *row.id == *id_or_prefix {
                return Ok(row.key);
            }
            only = if only == Err(NotFound::None) { Ok(row.key) } else { Err(NotFound::Several) };
        }
        only
    }

    /// Takes one in that has appeared, or is there already. Who else has its id gives way before.
    pub fn appear(
        &mut self,
        cgroup_path: &[u8],
        found: &PathInfo<'_>,
        cgroup_id: u64,
        maker: Maker,
    ) -> Result<Key, Refused> {
        let id = Text::new(found.id).ok_or(Refused::TooLong)?;
        if let Some(known) = self.at(cgroup_path) {
            let (key, same) = (known.key(), known.cgroup_id() == cgroup_id);
            if same {
                self.made_by(key, maker, found);
                return Ok(key);
            }
            self.vanish(key);
        }
        if self.rival(cgroup_path, found.id).is_some() {
            return Err(Refused::Rival);
        }
        if self.live == self.capacity {
            return Err(Refused::Full);
        }
        let key = self.free_slot().ok_or(Refused::Full)?;
        let row = ContainerEntry {
            key,
            live: true,
            changed: false,
            contested: false,
            successor: false,
            proven: false,
            maker,
            standing: Standing::of(maker, None),
            stamp: 0,
            id,
            cgroup_id,
            runtime: found.runtime,
            identity: claims::identity(found, maker == Maker::Host),
        };
        if !self.paths.set(key.slot, cgroup_path) && !self.set_instead_of_gone(key.slot, cgroup_path) {
            if usize::from(key.slot) < self.slots.len() {
                self.gone.push_front(key.slot);
            }
            return Err(Refused::TooLong);
        }
        match self.slots.get_mut(usize::from(key.slot)) {
            Some(slot) => *slot = row,
            None => self.slots.push(row),
        }
        self.live += 1;
        self.by_path.insert(cgroup_path, key.slot);
        self.by_id.insert(found.id.as_bytes(), key.slot);
        self.note_change(key.slot);
        Ok(key)
    }

    /// Its cgroup is gone. What is gone already, or no longer known, stays so.
    pub fn vanish(&mut self, key: Key) {
        let Some(row) = self.slots.get_mut(usize::from(key.slot)) else { return };
        if row.key != key || !row.live {
            return;
        }
        row.live = false;
        self.live -= 1;
        self.by_path.remove(self.paths.raw(key.slot));
        self.by_id.remove(row.id.as_bytes());
        self.gone.push_back(key.slot);
        self.note_change(key.slot);
    }

    fn row(&mut self, key: Key) -> Option<&mut ContainerEntry> {
        self.slots.get_mut(usize::from(key.slot)).filter(|row| row.key == key)
    }

    /// Hands over those that appeared, went or are contested since this was last asked, each once and as it
    /// is now.
    pub fn changes(&mut self, mut each: impl FnMut(Container<'_>)) {
        while let Some(slot) = self.changed.pop_front() {
            if let Some(row) = self.slots.get_mut(usize::from(slot)) {
                row.changed = false;
                each(Container { row, paths: &self.paths });
            }
        }
    }

    /// Keeps a path for which there is no room beside those of containers that are gone.
    fn set_instead_of_gone(&mut self, slot: u16, cgroup_path: &[u8]) -> bool {
        for gone in &self.gone {
            self.paths.clear(*gone);
        }
        self.paths.set(slot, cgroup_path)
    }

    fn note_change(&mut self, slot: u16) {
        let Some(row) = self.slots.get_mut(usize::from(slot)) else { return };
        if !row.changed {
            row.changed = true;
            self.changed.push_back(slot);
        }
    }

    /// The number of gone containers that are remembered while there are fresh slots: fresh slots cost memory.
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

#[cfg(test)]
mod tests;
