//! What is read of containers at each tick: many at once by the source of counters, then each by itself, where
//! what the source did not tell is read from text.

use std::time::Duration;

use super::counters::Means;
use super::counters::ReadingGroup::{self, CpuBounds, CpuTime, Memory, Throttling, Unreclaimable};
use super::parent_cgroups::lower;
use super::source::Place;
use super::tracked_containers::TrackedContainers;
use super::{Reader, Scan, group};
use crate::host::Facts;
use crate::host::cgroup::cpuset;
use crate::host::cgroup::quota::Quota;
use crate::host::cgroup_source::{CgroupCounters, CgroupRequest};

/// Containers that are asked for at once at most.
const BATCH_MAX: usize = 64;

/// For so long containers are read before the loop sees to other things: what is left is read in its next turn.
const SLICE: Duration = Duration::from_millis(4);

/// Containers that are to be read in this turn of the tracers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread {
    due: Facts,
    /// The first of their slots.
    slot: usize,
    online: Option<u32>,
}

impl Reader {
    /// Reads CPU time, memory and pressure of all containers, as far as they are due, or of some.
    pub(super) fn read_containers(&mut self, due: Facts) -> Scan {
        let more = due.container_cpu || due.container_memory || due.cpu_pressure;
        let until = crate::sys::monotonic() + SLICE;
        while let Some(Unread { due, slot, online }) = self.unread
            && slot < self.tracked.containers.slots()
        {
            // What is due in addition is read at another pass; that happens seldom.
            if !more && crate::sys::monotonic() > until {
                return Scan::Partial;
            }
            let slot = self.read_batch(slot, due, online);
            self.unread = Some(Unread { due, slot, online });
        }
        self.unread = None;
        if !more {
            return Scan::Whole;
        }
        self.unread = Some(self.begin_containers(due));
        self.read_containers(Facts::NONE)
    }

    fn begin_containers(&mut self, due: Facts) -> Unread {
        let groups: &[ReadingGroup] = match (due.container_cpu, due.container_memory) {
            (true, true) => &[CpuTime, Throttling, CpuBounds, Memory, Unreclaimable],
            (true, false) => &[CpuTime, Throttling, CpuBounds],
            (false, true) => &[Memory, Unreclaimable],
            (false, false) => &[],
        };
        self.counters.begin(groups);
        let online = due.container_cpu.then(|| self.online_cpus()).flatten();
        Unread { due, slot: 0, online }
    }

    fn online_cpus(&mut self) -> Option<u32> {
        let Reader { online, files, io, .. } = self;
        let online = Place { folder: online.as_ref(), path: b"", again: false, keep: true };
        files.online.read(online, "online", io, cpuset::count).filter(|cpus| *cpus > 0)
    }

    /// Reads containers from this slot on, as many as can be asked for at once. Returns the slot that is next.
    fn read_batch(&mut self, from: usize, due: Facts, online: Option<u32>) -> usize {
        let most = self.counters.most().min(BATCH_MAX);
        let mut batch = [None; BATCH_MAX];
        let (mut asked, mut slot) = (0, from);
        let is_full = |asked: usize| most > 0 && asked >= most;
        while slot < self.tracked.containers.slots() && slot - from < BATCH_MAX && !is_full(asked) {
            if let Some(request) = self.request(slot, due)
                && let Some(place) = batch.get_mut(slot - from)
            {
                self.counters.ask(asked, &request);
                *place = Some(asked);
                asked += 1;
            }
            slot += 1;
        }
        let read = self.counters.read(asked);
        for (index, place) in batch.into_iter().take(slot - from).enumerate() {
            let place = place.filter(|_| read);
            let told = place.map_or(CgroupCounters::NONE, |place| self.counters.told(place));
            self.take(from + index, place.is_some(), &told, due, online);
        }
        slot
    }

    fn request(&mut self, slot: usize, due: Facts) -> Option<CgroupRequest> {
        let Reader { hierarchies, io, tracked, turn, counters, .. } = self;
        if counters.most() == 0 || !(due.container_cpu || due.container_memory) {
            return None;
        }
        let TrackedContainers { containers, leaves, .. } = tracked;
        let (container, leaf) = (containers.in_slot(slot)?, leaves.get_mut(slot)?);
        let group = group(container, leaf, hierarchies, *turn);
        leaf.request(group, io, due)
    }

    /// Makes the readings of the container in `slot` out of what was told of it.
    fn take(&mut self, slot: usize, asked: bool, told: &CgroupCounters, due: Facts, online: Option<u32>) {
        let Reader { hierarchies, io, watcher, tracked, turn, counters, .. } = self;
        let TrackedContainers { containers, leaves, readings } = tracked;
        let Some(container) = containers.in_slot(slot) else { return };
        let (Some(leaf), Some(reading)) = (leaves.get_mut(slot), readings.get_mut(slot)) else { return };
        let group = group(container, leaf, hierarchies, *turn);
        let parent = leaf.parent;
        if asked {
            leaf.found(told, io);
        }
        let mut means = Means { counters, io };
        if due.container_cpu {
            let cpu = leaf.cpu(group, told, &mut means, |bounds, Means { counters, io }| {
                counters.count(CpuBounds, told.quota.is_some());
                let quota = match told.quota {
                    Some(Quota::Cores(cores)) => Some(cores),
                    Some(Quota::Unlimited) => None,
                    None => {
                        let own = bounds.cores(group, io);
                        lower(own, watcher.parents.cores(parent, *turn, hierarchies, io), f64::min)
                    }
                };
                let cpus = told.cpus.or_else(|| bounds.cpus(group, io)).filter(|cpus| *cpus > 0);
                let cpus = cpus.or_else(|| watcher.parents.cpus(parent, *turn, hierarchies, io)).or(online);
                lower(quota, cpus.map(f64::from), f64::min)
            });
            (reading.cpu, reading.throttling) = (cpu.time, cpu.throttling);
            reading.capacity_cores = cpu.capacity_cores;
        }
        if due.container_memory {
            let above = |io: &mut _| watcher.parents.limit(parent, *turn, hierarchies, io);
            reading.memory = leaf.memory(group, told, &mut means, above);
        }
        if due.cpu_pressure {
            reading.cpu_stall = leaf.cpu_stall(group, means.io);
        }
    }
}
