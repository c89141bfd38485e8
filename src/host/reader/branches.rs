//! The cgroups above containers: folders that can hold some, also containers that run others. They
//! are watched, and their limits hold for all that is in them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use super::bounds::{Bounds, Group, Turn};
use super::hierarchies::Hierarchies;
use super::source::Io;
use crate::host::containers::claim::Maker;
use crate::host::containers::paths::Paths;
use crate::host::index::Index;

/// A cgroup above containers.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) inode: u64,
    /// Who may make cgroups in it.
    pub(super) maker: Maker,
    /// The sweep that last saw it.
    pub(super) seen: u32,
    pub(super) settles: Duration,
    pub(super) watch: Option<i32>,
    parent: Option<u16>,
    live: bool,
    queued: bool,
    bounds: Bounds,
}

impl Branch {
    pub(super) fn new(inode: u64, maker: Maker, parent: Option<u16>) -> Branch {
        Branch {
            inode,
            maker,
            seen: 0,
            settles: Duration::ZERO,
            watch: None,
            parent,
            live: true,
            queued: false,
            bounds: Bounds::default(),
        }
    }
}

/// All of them, in a table of a fixed size.
#[derive(Debug)]
pub(super) struct Branches {
    slots: Vec<Branch>,
    paths: Paths,
    free: Vec<u16>,
    by_path: Index,
    by_watch: HashMap<i32, u16, BuildHasherDefault<DefaultHasher>>,
}

impl Branches {
    pub(super) fn with_capacity(capacity: usize) -> Branches {
        let capacity = capacity.min(usize::from(u16::MAX));
        Branches {
            slots: Vec::with_capacity(capacity),
            paths: Paths::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            by_path: Index::with_capacity(capacity),
            // Twice the room, as for `Index`.
            by_watch: HashMap::with_capacity_and_hasher(capacity * 2, BuildHasherDefault::default()),
        }
    }

    pub(super) fn get(&self, slot: u16) -> Option<&Branch> {
        self.slots.get(usize::from(slot)).filter(|branch| branch.live)
    }

    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut Branch> {
        self.slots.get_mut(usize::from(slot)).filter(|branch| branch.live)
    }

    /// Its path as the kernel has it; empty is the root's.
    pub(super) fn path(&self, slot: u16) -> &[u8] {
        self.paths.raw(slot)
    }

    pub(super) fn at(&self, path: &[u8]) -> Option<u16> {
        self.by_path.find(path).filter(|slot| self.get(*slot).is_some() && self.path(*slot) == path)
    }

    pub(super) fn watched_by(&self, watch: i32) -> Option<u16> {
        self.by_watch.get(&watch).copied()
    }

    /// Slots in use so far, those of branches that are gone included.
    pub(super) fn slots(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// Takes one in. `None`: the table is full.
    pub(super) fn add(&mut self, path: &[u8], mut branch: Branch) -> Option<u16> {
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
                branch.queued = old.queued;
                *old = branch;
            }
            None => self.slots.push(branch),
        }
        Some(slot)
    }

    /// Forgets one and closes its files. Its watch is for the caller to end.
    pub(super) fn remove(&mut self, slot: u16, io: &mut Io) -> Option<i32> {
        let branch = self.slots.get_mut(usize::from(slot)).filter(|branch| branch.live)?;
        branch.live = false;
        branch.bounds.close(io);
        let watch = branch.watch.take();
        self.by_path.remove(self.paths.raw(slot));
        self.paths.clear(slot);
        self.free.push(slot);
        let watch = watch?;
        self.by_watch.remove(&watch);
        Some(watch)
    }

    /// It is watched now.
    pub(super) fn watch(&mut self, slot: u16, watch: i32) {
        if let Some(branch) = self.get_mut(slot) {
            branch.watch = Some(watch);
            self.by_watch.insert(watch, slot);
        }
    }

    /// Its watch ended by itself.
    pub(super) fn watch_ended(&mut self, watch: i32) {
        if let Some(branch) = self.by_watch.remove(&watch).and_then(|slot| self.get_mut(slot)) {
            branch.watch = None;
        }
    }

    /// Notes that it is queued, or no longer is. False: that was so already.
    pub(super) fn set_queued(&mut self, slot: u16, queued: bool) -> bool {
        let branch = self.slots.get_mut(usize::from(slot));
        branch.is_some_and(|branch| std::mem::replace(&mut branch.queued, queued) != queued)
    }

    /// Lets go of the open files of all.
    pub(super) fn rest(&mut self, io: &mut Io) {
        self.slots.iter_mut().for_each(|branch| branch.bounds.rest(io));
    }

    /// How many there are.
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
        self.lowest(from, |slot, path, Branch { settles, bounds, .. }, lowest: Option<f64>| {
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
        self.lowest(from, |slot, path, Branch { settles, bounds, .. }, lowest: Option<u64>| {
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
        self.lowest(from, |slot, path, Branch { settles, bounds, .. }, nearest: Option<u32>| {
            nearest.or_else(|| bounds.cpus(Group::new(hierarchies, path, turn, *settles, slot.into()), io))
        })
    }

    fn lowest<T>(
        &mut self,
        from: u16,
        mut step: impl FnMut(u16, &[u8], &mut Branch, Option<T>) -> Option<T>,
    ) -> Option<T> {
        let Branches { slots, paths, .. } = self;
        let (mut next, mut lowest) = (Some(from), None);
        while let Some(slot) = next
            && let Some(branch) = slots.get_mut(usize::from(slot)).filter(|branch| branch.live)
        {
            lowest = step(slot, paths.raw(slot), branch, lowest);
            next = branch.parent;
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
