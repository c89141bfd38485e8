//! The files of one container.

use std::time::Duration;

use super::bounds::{Bounds, Group};
use super::branches::lower;
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
    cpu_pressure: Source,
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
        let (anon_bytes, lowest) = if group.is_v2() {
            self.memory_stat.read(place, "memory.stat", io, |text| Some((memory::v2_anon(text)?, None)))?
        } else {
            let stat = |text: &[u8]| Some((memory::v1_anon(text)?, memory::v1_lowest_limit(text)));
            self.memory_stat.read(place, "memory.stat", io, stat)?
        };
        let usage = if group.is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
        let usage_bytes = self.memory_usage.read(place, usage, io, number)?;
        let limit_bytes = match lowest {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) => None,
            None => lower(self.bounds.memory(group, io), above(io), u64::min),
        };
        Some(ContainerMemory { anon_bytes, usage_bytes, limit_bytes })
    }

    /// Closes its files: the container is gone.
    pub(super) fn close(&mut self, io: &mut Io) {
        self.bounds.close(io);
        for source in
            [&mut self.stat, &mut self.modes, &mut self.total, &mut self.memory_stat, &mut self.memory_usage]
        {
            source.close(io);
        }
        self.cpu_pressure.close(io);
    }
}
