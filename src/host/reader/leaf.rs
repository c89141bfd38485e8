//! The files of one container. Most containers of a host are idle: where the one counter that moves with
//! all the others stands still, those are not read, but for once a minute.

use std::time::Duration;

use super::bounds::{Bounds, Cached, Group};
use super::parent_cgroups::lower;
use super::source::{Io, Source};
use crate::host::cgroup::cpu;
use crate::host::cgroup::memory::{self, Limit};
use crate::host::proc::pressure;
use crate::host::text::number;
use crate::host::{ContainerCpu, ContainerMemory, Throttling};

/// One container's files, and where it hangs in the tree.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) bounds: Bounds,
    /// The cgroup that holds it.
    pub(super) parent: u16,
    /// The sweep that last saw it.
    pub(super) seen: u32,
    /// Until then files that are not there are looked for: a runtime makes a container's cgroups
    /// in one hierarchy after the other.
    pub(super) settles: Duration,
    stat: Source,
    modes: Source,
    total: Source,
    memory_stat: Source,
    memory_usage: Source,
    cpu_pressure: Source,
    last_cpu: Cached<Cpu>,
    last_memory: Cached<ContainerMemory>,
}

/// A container's CPU time, and what it may use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) time: Option<ContainerCpu>,
    pub(super) throttling: Option<Throttling>,
    pub(super) capacity_cores: Option<f64>,
}

impl Leaf {
    /// Its CPU time, throttling, and how many cores it may use, which `capacity` reads: of a container that
    /// used no CPU since then, a minute ago.
    pub(super) fn cpu(
        &mut self,
        group: Group<'_>,
        io: &mut Io,
        capacity: impl FnOnce(&mut Bounds, &mut Io) -> Option<f64>,
    ) -> Cpu {
        let last = self.last_cpu.lasting(&group);
        let idle = |total: Duration| last.filter(|last| last.time.is_some_and(|time| time.total == total));
        let (time, throttling) = if group.is_v2() {
            let read = self.stat.read(group.cpu(), "cpu.stat", io, cpu::v2_stat);
            let (time, throttling) =
                (read.map(|(time, _)| time), read.and_then(|(_, throttling)| throttling));
            if let Some(last) = time.and_then(|time| idle(time.total)) {
                return Cpu { throttling, ..last };
            }
            (time, throttling)
        } else {
            let total = self.total.read(group.cpuacct(), "cpuacct.usage", io, cpu::v1_total);
            if let Some(last) = total.and_then(idle) {
                return last;
            }
            let modes = self.modes.read(group.cpuacct(), "cpuacct.stat", io, cpu::v1_modes);
            let throttling = self.stat.read(group.cpu(), "cpu.stat", io, cpu::v1_throttling);
            let time = modes.zip(total).map(|((user, system), total)| ContainerCpu { user, system, total });
            (time, throttling)
        };
        let read = Cpu { time, throttling, capacity_cores: capacity(&mut self.bounds, io) };
        self.last_cpu.set(&group, Some(read));
        read
    }

    /// For how long any of its tasks waited for a CPU. v1 does not tell.
    pub(super) fn cpu_stall(&mut self, group: Group<'_>, io: &mut Io) -> Option<Duration> {
        if !group.is_v2() {
            return None;
        }
        Some(self.cpu_pressure.read(group.cpu(), "cpu.pressure", io, pressure::parse)?.some.total)
    }

    /// Its memory. `above` reads the lowest limit above it, where no file of its own tells that.
    pub(super) fn memory(
        &mut self,
        group: Group<'_>,
        io: &mut Io,
        above: impl FnOnce(&mut Io) -> Option<u64>,
    ) -> Option<ContainerMemory> {
        let place = group.memory();
        let usage = if group.is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
        let usage_bytes = self.memory_usage.read(place, usage, io, number)?;
        if let Some(last) = self.last_memory.lasting(&group)
            && last.usage_bytes == usage_bytes
            && has_room(&last)
        {
            return Some(last);
        }
        let (held, lowest) = if group.is_v2() {
            self.memory_stat.read(place, "memory.stat", io, |text| Some((memory::v2_stat(text)?, None)))?
        } else {
            let stat = |text: &[u8]| {
                let (held, lowest) = memory::v1_stat(text);
                Some((held?, lowest))
            };
            self.memory_stat.read(place, "memory.stat", io, stat)?
        };
        let limit_bytes = match lowest {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) => None,
            None => lower(self.bounds.memory(group, io), above(io), u64::min),
        };
        let read = ContainerMemory { held, usage_bytes, limit_bytes };
        self.last_memory.set(&group, Some(read));
        Some(read)
    }

    /// Has the next reading be of all files, whatever has changed.
    pub(super) fn forget(&mut self) {
        (self.last_cpu, self.last_memory) = (Cached::default(), Cached::default());
    }

    /// Closes its files: the container is gone.
    pub(super) fn close(&mut self, io: &mut Io) {
        self.bounds.close(io);
        self.forget();
        for source in
            [&mut self.stat, &mut self.modes, &mut self.total, &mut self.memory_stat, &mut self.memory_usage]
        {
            source.close(io);
        }
        self.cpu_pressure.close(io);
    }
}

/// Whether its memory can grow without its usage: at its limit, anonymous memory takes the place of the
/// page cache.
fn has_room(memory: &ContainerMemory) -> bool {
    memory.limit_bytes.is_none_or(|limit| memory.usage_bytes < limit - limit / 8)
}
