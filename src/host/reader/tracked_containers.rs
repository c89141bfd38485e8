//! The containers with what belongs to each: its files and its latest reading, slot by slot.

use std::time::Duration;

use super::leaf::Leaf;
use super::source::Io;
use crate::host::containers::claim::Maker;
use crate::host::containers::path::PathInfo;
use crate::host::containers::paths::PATH_MAX;
use crate::host::containers::{Containers, Refused};
use crate::host::{Container, Key, Reading};

/// Containers that give way to one whose path has no room: the longest paths go first, so a few are enough.
const LONG_PATHS_MAX: u32 = 32;

/// The containers. The three tables have the same slots.
#[derive(Debug)]
pub(super) struct TrackedContainers {
    pub(super) containers: Containers,
    pub(super) leaves: Vec<Leaf>,
    pub(super) readings: Vec<Reading>,
}

/// A container where it was seen.
pub(super) struct Sighting<'a> {
    pub(super) path: &'a [u8],
    pub(super) found: PathInfo<'a>,
    pub(super) inode: u64,
    /// Who may have made it.
    pub(super) maker: Maker,
    pub(super) parent: u16,
    pub(super) sweep: u32,
    /// Until then its files are looked for.
    pub(super) settles: Duration,
}

impl TrackedContainers {
    pub(super) fn with_capacity(capacity: usize) -> TrackedContainers {
        let containers = Containers::with_capacity(capacity);
        let slots = containers.most_slots();
        TrackedContainers {
            containers,
            leaves: Vec::with_capacity(slots),
            readings: Vec::with_capacity(slots),
        }
    }

    /// Takes in that `it` was seen: a new container, a known one, or another at the same path.
    pub(super) fn observe(&mut self, it: &Sighting<'_>, io: &mut Io) {
        let old = self.containers.at(it.path).map(|known| (known.key(), known.cgroup_id()));
        if let Some((key, inode)) = old
            && inode != it.inode
        {
            self.vanish(key, io);
        }
        let rival = self.containers.rival(it.path, it.found.id).map(Container::key);
        if let Some(rival) = rival {
            io.faults.claimed_twice += 1;
            if !self.containers.contest(rival, it.maker) {
                self.vanish(rival, io);
            }
        }
        let key = match self.appear(it, io) {
            Ok(key) => key,
            Err(Refused::Rival) => return,
            Err(Refused::Full | Refused::TooLong) => {
                io.faults.beyond_capacity += 1;
                return;
            }
        };
        if rival.is_some() {
            self.containers.succeed(key);
        }
        self.leaves.resize_with(self.containers.slots(), Leaf::default);
        self.readings.resize(self.containers.slots(), Reading::default());
        let slot = usize::from(key.slot);
        if old.is_none_or(|(old, _)| old != key)
            && let Some(reading) = self.readings.get_mut(slot)
        {
            *reading = Reading::default();
        }
        if let Some(leaf) = self.leaves.get_mut(slot) {
            (leaf.parent, leaf.seen, leaf.settles) = (it.parent, it.sweep, it.settles);
        }
    }

    /// Takes `it` into the table. The host's containers have room before those that users and containers made:
    /// else whoever may make cgroups could keep a neighbour's out by making many.
    fn appear(&mut self, it: &Sighting<'_>, io: &mut Io) -> Result<Key, Refused> {
        let mut tries = 0;
        loop {
            let result = self.containers.appear(it.path, &it.found, it.inode, it.maker);
            let enough = match result {
                Ok(_) | Err(Refused::Rival) => true,
                Err(Refused::Full) => tries >= 1,
                Err(Refused::TooLong) => tries >= LONG_PATHS_MAX || it.path.len() >= PATH_MAX,
            };
            if enough || it.maker != Maker::Host {
                return result;
            }
            let Some(least) = self.containers.least() else { return result };
            io.faults.beyond_capacity += 1;
            self.vanish(least, io);
            tries += 1;
        }
    }

    /// The container of `key` is gone.
    pub(super) fn vanish(&mut self, key: Key, io: &mut Io) {
        self.containers.vanish(key);
        let slot = usize::from(key.slot);
        if let Some(leaf) = self.leaves.get_mut(slot) {
            leaf.close(io);
        }
        if let Some(reading) = self.readings.get_mut(slot) {
            *reading = Reading::default();
        }
    }

    /// Hands each container to `each`, with its files and its reading.
    pub(super) fn each(&mut self, mut each: impl FnMut(Container<'_>, &mut Leaf, &mut Reading)) {
        let TrackedContainers { containers, leaves, readings } = self;
        for container in containers.iter() {
            let slot = usize::from(container.key().slot);
            if let (Some(leaf), Some(reading)) = (leaves.get_mut(slot), readings.get_mut(slot)) {
                each(container, leaf, reading);
            }
        }
    }

    /// The containers for which `gone` holds are gone.
    pub(super) fn vanish_where(&mut self, io: &mut Io, mut gone: impl FnMut(&[u8], &Leaf) -> bool) {
        for slot in 0..self.containers.slots() {
            let Some(container) = self.containers.in_slot(slot) else { continue };
            if self.leaves.get(slot).is_some_and(|leaf| gone(container.raw_path(), leaf)) {
                self.vanish(container.key(), io);
            }
        }
    }
}
