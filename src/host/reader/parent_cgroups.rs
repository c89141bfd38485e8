//! The parents of containers: cgroups that can hold containers, among them containers that run others. They
//! are watched, and their limits hold for every cgroup below.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use super::bounds::{Bounds, Group, Turn};
use super::hierarchies::Hierarchies;
use super::source::Io;
use crate::host::containers::claim::Maker;
use crate::host::containers::paths::PathTable;
use crate::host::index::Index;

/// A cgroup that can hold containers.
#[derive(Debug)]
pub(super) struct ParentCgroup {
    pub(super) inode: u64,
    /// Who may make cgroups in it.
    pub(super) maker: Maker,
    /// The sweep that last saw it.
    pub(super) seen: u32,
    pub(super) settles: Duration,
    pub(super) watch: Option<i32>,
    above: Option<u16>,
    live: bool,
    queued: bool,
    bounds: Bounds,
}

impl ParentCgroup {
    pub(super) fn new(inode: u64, maker: Maker, above: Option<u16>) -> ParentCgroup {
        ParentCgroup {
            inode,
            maker,
            seen: 0,
            settles: Duration::ZERO,
            watch: None,
            above,
            live: true,
            queued: false,
            bounds: Bounds::default(),
        }
    }
}

/// The parents, in a table of a fixed size.
#[derive(Debug)]
pub(super) struct ParentCgroups {
    slots: Vec<ParentCgroup>,
    paths: PathTable,
    free: Vec<u16>,
    by_path: Index,
    by_watch: HashMap<i32, u16, BuildHasherDefault<DefaultHasher>>,
}

impl ParentCgroups {
    pub(super) fn with_capacity(capacity: usize) -> ParentCgroups {
        let capacity = capacity.min(usize::from(u16::MAX));
        ParentCgroups {
            slots: Vec::with_capacity(capacity),
            paths: PathTable::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            by_path: Index::with_capacity(capacity),
            // Twice the room, as for `Index`.
            by_watch: HashMap::with_capacity_and_hasher(capacity * 2, BuildHasherDefault::default()),
        }
    }

    pub(super) fn get(&self, slot: u16) -> Option<&ParentCgroup> {
        self.slots.get(usize::from(slot)).filter(|parent| parent.live)
    }

    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut ParentCgroup> {
        self.slots.get_mut(usize::from(slot)).filter(|parent| parent.live)
    }

    /// The path of the parent at `slot` as the kernel has it; the root's is empty.
    pub(super) fn path(&self, slot: u16) -> &[u8] {
        self.paths.raw(slot)
    }

    pub(super) fn at(&self, path: &[u8]) -> Option<u16> {
        self.by_path.find(path).filter(|slot| self.get(*slot).is_some() && self.path(*slot) == path)
    }

    pub(super) fn watched_by(&self, watch: i32) -> Option<u16> {
        self.by_watch.get(&watch).copied()
    }

    /// Slots in use so far, those of parent cgroups that are gone included.
    pub(super) fn slots(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// Takes `parent` in. `None`: the table is full.
    pub(super) fn add(&mut self, path: &[u8], mut parent: ParentCgroup) -> Option<u16> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.slots.capacity() => u16::try_from(self.slots.len()).ok()?,
            None => return None,
        };
        if !self.paths.set(slot, path) {
            if usize::from(slot) < self.slots.len() {
                self.free.push(slot);
            }
            return None;
        }
        self.by_path.insert(path, slot);
        match self.slots.get_mut(usize::from(slot)) {
            Some(old) => {
                // The queue may still hold this slot for the one before.
                parent.queued = old.queued;
                *old = parent;
            }
            None => self.slots.push(parent),
        }
        Some(slot)
    }

    /// Forgets the parent at `slot` and closes its files. The caller is to end the watch that is returned.
    pub(super) fn remove(&mut self, slot: u16, io: &mut Io) -> Option<i32> {
        let parent = self.slots.get_mut(usize::from(slot)).filter(|parent| parent.live)?;
        parent.live = false;
        parent.bounds.close(io);
        let watch = parent.watch.take();
        self.by_path.remove(self.paths.raw(slot));
        self.paths.clear(slot);
        self.free.push(slot);
        let watch = watch?;
        self.by_watch.remove(&watch);
        Some(watch)
    }

    /// Notes that `watch` watches the parent at `slot`.
    pub(super) fn watch(&mut self, slot: u16, watch: i32) {
        if let Some(parent) = self.get_mut(slot) {
            parent.watch = Some(watch);
            self.by_watch.insert(watch, slot);
        }
    }

    /// Notes that `watch` ended by itself.
    pub(super) fn watch_ended(&mut self, watch: i32) {
        if let Some(parent) = self.by_watch.remove(&watch).and_then(|slot| self.get_mut(slot)) {
            parent.watch = None;
        }
    }

    /// Notes whether the parent at `slot` is queued. False: that was noted already.
    pub(super) fn set_queued(&mut self, slot: u16, queued: bool) -> bool {
        let parent = self.slots.get_mut(usize::from(slot));
        parent.is_some_and(|parent| std::mem::replace(&mut parent.queued, queued) != queued)
    }

    /// Closes the open files of all parents.
    pub(super) fn rest(&mut self, io: &mut Io) {
        self.slots.iter_mut().for_each(|parent| parent.bounds.rest(io));
    }

    /// The number of parents.
    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// The lowest quota from here up to the root, in cores.
    pub(super) fn cores(
        &mut self,
        from: u16,
        turn: Turn,
        hierarchies: &Hierarchies,
        io: &mut Io,
    ) -> Option<f64> {
        self.lowest(from, |slot, path, ParentCgroup { settles, bounds, .. }, lowest: Option<f64>| {
            lower(
                lowest,
                bounds.cores(Group::new(hierarchies, path, turn, *settles, slot.into()), io),
                f64::min,
            )
        })
    }

    /// The lowest memory limit from here up to the root, in bytes.
    pub(super) fn limit(
        &mut self,
        from: u16,
        turn: Turn,
        hierarchies: &Hierarchies,
        io: &mut Io,
    ) -> Option<u64> {
        self.lowest(from, |slot, path, ParentCgroup { settles, bounds, .. }, lowest: Option<u64>| {
            lower(
                lowest,
                bounds.memory(Group::new(hierarchies, path, turn, *settles, slot.into()), io),
                u64::min,
            )
        })
    }

    /// The CPUs of the nearest cpuset from here up to the root.
    pub(super) fn cpus(
        &mut self,
        from: u16,
        turn: Turn,
        hierarchies: &Hierarchies,
        io: &mut Io,
    ) -> Option<u32> {
        self.lowest(from, |slot, path, ParentCgroup { settles, bounds, .. }, nearest: Option<u32>| {
            nearest.or_else(|| bounds.cpus(Group::new(hierarchies, path, turn, *settles, slot.into()), io))
        })
    }

    fn lowest<T>(
        &mut self,
        from: u16,
        mut step: impl FnMut(u16, &[u8], &mut ParentCgroup, Option<T>) -> Option<T>,
    ) -> Option<T> {
        let ParentCgroups { slots, paths, .. } = self;
        let (mut next, mut lowest) = (Some(from), None);
        while let Some(slot) = next
            && let Some(parent) = slots.get_mut(usize::from(slot)).filter(|parent| parent.live)
        {
            lowest = step(slot, paths.raw(slot), parent, lowest);
            next = parent.above;
        }
        lowest
    }
}

/// The lower of two, where `None` is no bound.
pub(super) fn lower<T>(one: Option<T>, other: Option<T>, least: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(least(one, other)),
        (one, other) => one.or(other),
    }
}
