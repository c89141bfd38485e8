//! The files of one container. Most containers of a host are idle: where the one counter that moves with
//! all the others stands still, those are not read, but for once a minute.

use std::time::Duration;

use super::bounds::{Bounds, Cached, Group};
use super::cgroup_folders::Folders;
use super::counters::{Means, Proof, ReadingGroup};
use super::parent_cgroups::lower;
use super::source::{Io, Source};
use crate::host::cgroup::cpu;
use crate::host::cgroup::memory::{self, Limit};
use crate::host::cgroup_source::{CgroupCounters, CgroupRequest, CpuSum, Told};
use crate::host::proc::pressure;
use crate::host::text::number;
use crate::host::{ContainerCpu, ContainerMemory, Facts, Throttling, Unreclaimable};

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
    folders: Folders,
    last_cpu: Cached<Cpu>,
    last_memory: Cached<ContainerMemory>,
}

/// What text files told of CPU time; `same` is the last reading, where nothing has changed since.
struct Read {
    time: Option<ContainerCpu>,
    throttling: Option<Throttling>,
    same: Option<Cpu>,
}

/// A container's CPU time, and what it may use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) time: Option<ContainerCpu>,
    pub(super) throttling: Option<Throttling>,
    pub(super) capacity_cores: Option<f64>,
}

impl Leaf {
    /// What of this container a source of counters is to be asked for; of what has not changed since a minute
    /// ago, it need not tell more. `None`: its folders cannot be had.
    pub(super) fn request(&mut self, group: Group<'_>, io: &mut Io, facts: Facts) -> Option<CgroupRequest> {
        let last_cpu = self.last_cpu.lasting(&group).and_then(|last| last.time);
        let last_memory = self.last_memory.lasting(&group).filter(has_room);
        Some(CgroupRequest {
            folders: self.folders.opened(group, io)?,
            cpu: facts.container_cpu,
            memory: facts.container_memory,
            known_total: last_cpu.map(|time| time.total),
            known_usage: last_memory.map(|memory| memory.usage_bytes),
        })
    }

    /// Takes in what a source found. Where it found nothing the folders are opened anew: others may be there.
    pub(super) fn found(&mut self, told: &CgroupCounters, io: &mut Io) {
        if told.nodes.iter().any(|node| *node != 0) {
            self.folders.found(told.nodes);
        } else {
            self.folders.close(io);
        }
    }

    /// Its CPU time, throttling, and how many cores it may use, which `capacity` reads: of a container that
    /// used no CPU since then, a minute ago.
    pub(super) fn cpu(
        &mut self,
        group: Group<'_>,
        told: &CgroupCounters,
        means: &mut Means<'_>,
        capacity: impl FnOnce(&mut Bounds, &mut Means<'_>) -> Option<f64>,
    ) -> Cpu {
        let last = self.last_cpu.lasting(&group);
        let Means { counters, io } = means;
        let is_told = told.cpu != Told::Unknown;
        counters.count(ReadingGroup::CpuTime, is_told);
        let read = match (told.cpu, last) {
            (Told::Same, Some(last)) => return last,
            (Told::New(sum), _) => Read { time: Some(self.modes(&sum)), throttling: None, same: None },
            _ => self.cpu_text(group, io),
        };
        if let Some(same) = read.same {
            return same;
        }
        let of_text = !is_told && read.time.is_some() && group.is_v2();
        let throttling = match told.throttling {
            Some(throttling) => Some(throttling),
            None if told.uncontrolled => None,
            None if of_text => read.throttling,
            None => self.throttling_text(group, io),
        };
        counters.count(ReadingGroup::Throttling, told.throttling.is_some() || told.uncontrolled);
        let read = Cpu { time: read.time, throttling, capacity_cores: capacity(&mut self.bounds, means) };
        self.last_cpu.set(&group, Some(read));
        read
    }

    /// A source's sum as the text file would have it.
    fn modes(&self, sum: &CpuSum) -> ContainerCpu {
        let before = self.last_cpu.latest().and_then(|last| last.time);
        let before = before.map_or([Duration::ZERO; 2], |time| [time.user, time.system]);
        let [user, system] = sum.modes(before);
        ContainerCpu { user, system, total: sum.total }
    }

    /// Its CPU time out of its text files, and on v2 its throttling, which is in the same one.
    fn cpu_text(&mut self, group: Group<'_>, io: &mut Io) -> Read {
        let last = self.last_cpu.lasting(&group);
        let idle = |total: Duration| last.filter(|last| last.time.is_some_and(|time| time.total == total));
        if group.is_v2() {
            let read = self.stat.read(group.cpu(), "cpu.stat", io, cpu::v2_stat);
            let (time, throttling) =
                (read.map(|(time, _)| time), read.and_then(|(_, throttling)| throttling));
            let same = time.and_then(|time| idle(time.total)).map(|last| Cpu { throttling, ..last });
            return Read { time, throttling, same };
        }
        let total = self.total.read(group.cpuacct(), "cpuacct.usage", io, cpu::v1_total);
        if let Some(same) = total.and_then(idle) {
            return Read { time: None, throttling: None, same: Some(same) };
        }
        let modes = self.modes.read(group.cpuacct(), "cpuacct.stat", io, cpu::v1_modes);
        let time = modes.zip(total).map(|((user, system), total)| ContainerCpu { user, system, total });
        Read { time, throttling: None, same: None }
    }

    fn throttling_text(&mut self, group: Group<'_>, io: &mut Io) -> Option<Throttling> {
        if group.is_v2() {
            return self.stat.read(group.cpu(), "cpu.stat", io, cpu::v2_stat)?.1;
        }
        self.stat.read(group.cpu(), "cpu.stat", io, cpu::v1_throttling)
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
        told: &CgroupCounters,
        means: &mut Means<'_>,
        above: impl FnOnce(&mut Io) -> Option<u64>,
    ) -> Option<ContainerMemory> {
        let last = self.last_memory.lasting(&group).filter(has_room);
        let Means { counters, io } = means;
        counters.count(ReadingGroup::Memory, told.memory != Told::Unknown);
        let (usage_bytes, lowest) = match (told.memory, last) {
            (Told::Same, Some(last)) => return Some(last),
            (Told::New((usage, limit)), _) => (usage, Some(limit)),
            _ => {
                let name = if group.is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
                let usage = self.memory_usage.read(group.memory(), name, io, number)?;
                if let Some(last) = last.filter(|last| last.usage_bytes == usage) {
                    return Some(last);
                }
                (usage, None)
            }
        };
        let held = told.held.filter(|_| usage_bytes == 0 || counters.proof == Proof::Believed);
        counters.count(ReadingGroup::Unreclaimable, held.is_some());
        let (held, by_text) = match held {
            Some(held) => (held, None),
            None => {
                let (held, by_text) = self.memory_text(group, io)?;
                if let Some(told) = told.held {
                    counters.proof.compare(&told, &held);
                }
                (held, by_text)
            }
        };
        let limit_bytes = match lowest.or(by_text) {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) => None,
            None => lower(self.bounds.memory(group, io), above(io), u64::min),
        };
        let read = ContainerMemory { held, usage_bytes, limit_bytes };
        self.last_memory.set(&group, Some(read));
        Some(read)
    }

    /// What memory.stat tells: what cannot be reclaimed, and on v1 the lowest limit above it.
    fn memory_text(&mut self, group: Group<'_>, io: &mut Io) -> Option<(Unreclaimable, Option<Limit>)> {
        let stat = |text: &[u8]| {
            let (held, lowest) =
                if group.is_v2() { (memory::v2_stat(text), None) } else { memory::v1_stat(text) };
            Some((held?, lowest))
        };
        self.memory_stat.read(group.memory(), "memory.stat", io, stat)
    }

    /// Has the next reading be of all files, whatever has changed.
    pub(super) fn forget(&mut self) {
        (self.last_cpu, self.last_memory) = (Cached::default(), Cached::default());
    }

    /// Closes its files: the container is gone.
    pub(super) fn close(&mut self, io: &mut Io) {
        self.bounds.close(io);
        self.folders.close(io);
        self.forget();
        self.close_text(io);
    }

    /// Closes the text files of what changes with each reading: another source tells it.
    pub(super) fn close_text(&mut self, io: &mut Io) {
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
