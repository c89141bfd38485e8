//! The files of one container.

use std::time::Duration;

use super::bounds::{Bounds, Group};
use super::source::{Io, Source};
use crate::host::cgroup::{cpu, memory};
use crate::host::text::number;
use crate::host::{ContainerCpu, ContainerMemory, Throttling};

/// One container's files, and where it hangs in the tree.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) bounds: Bounds,
    /// The branch that it is in.
    pub(super) branch: u16,
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
}

impl Leaf {
    /// Its CPU time and throttling.
    pub(super) fn cpu(
        &mut self,
        group: Group<'_>,
        io: &mut Io,
    ) -> (Option<ContainerCpu>, Option<Throttling>) {
        if group.is_v2() {
            return self
                .stat
                .read(group.cpu(), "cpu.stat", io, cpu::v2_stat)
                .map_or((None, None), |(time, it)| (Some(time), it));
        }
        let modes = self.modes.read(group.cpuacct(), "cpuacct.stat", io, cpu::v1_modes);
        let total = self.total.read(group.cpuacct(), "cpuacct.usage", io, cpu::v1_total);
        let throttling = self.stat.read(group.cpu(), "cpu.stat", io, cpu::v1_throttling);
        let time = modes.zip(total).map(|((user, system), total)| ContainerCpu { user, system, total });
        (time, throttling)
    }

    /// Its memory, with the limit that is its own.
    pub(super) fn memory(&mut self, group: Group<'_>, io: &mut Io) -> Option<ContainerMemory> {
        let place = group.memory();
        let v2 = group.is_v2();
        let anon = if v2 { memory::v2_anon } else { memory::v1_anon };
        let usage = if v2 { "memory.current" } else { "memory.usage_in_bytes" };
        Some(ContainerMemory {
            anon_bytes: self.memory_stat.read(place, "memory.stat", io, anon)?,
            usage_bytes: self.memory_usage.read(place, usage, io, number)?,
            limit_bytes: self.bounds.memory(group, io),
        })
    }

    /// Closes its files: the container is gone.
    pub(super) fn close(&mut self, io: &mut Io) {
        self.bounds.close(io);
        for source in
            [&mut self.stat, &mut self.modes, &mut self.total, &mut self.memory_stat, &mut self.memory_usage]
        {
            source.close(io);
        }
    }
}
