//! Facts of a host, as a tick brings them.

use std::time::Duration;

use super::bytes::Bytes;
use crate::host::{
    ContainerCpu, ContainerMemory, CpuTimes, Disk, HostCpu, Load, Memory, Reading, TaskCounts, Throttling,
    Unreclaimable,
};
use crate::tracer::play::Host;

impl Bytes<'_> {
    pub(super) fn host(&mut self, at: Duration, disks: bool) -> Host {
        let mut spent = || self.spent(at);
        let times = CpuTimes {
            user: spent(),
            nice: spent(),
            // The kernel has a large share, so that rules see something.
            system: spent().saturating_mul(4),
            idle: spent(),
            iowait: spent(),
            irq: spent(),
            softirq: spent(),
            steal: spent(),
        };
        Host {
            cpu: self.maybe(|b| HostCpu { times, cpus: b.cpus(), running: b.number(), blocked: b.number() }),
            load: self.maybe(|b| Load { one: b.float(), five: b.float(), fifteen: b.float() }),
            memory: self.maybe(|b| Memory {
                total_bytes: b.number(),
                available_bytes: b.number(),
                held: b.held(),
            }),
            // They take many bytes: only who asks for them gets any.
            disks: disks.then(|| (0..self.below(4)).map(|_| self.disk(at)).collect()),
            tasks: self.maybe(|b| b.tasks(at)),
            cpu_stall: None,
        }
    }

    /// Mostly the same, for where they change there is no sample.
    fn cpus(&mut self) -> u32 {
        if self.byte() < 16 { self.small() } else { 4 }
    }

    /// Mostly one of a few, with counters that grow; it is busy most of the time.
    fn disk(&mut self, at: Duration) -> Disk {
        const DISKS: [&[u8]; 5] = [b"sda", b"sda1", b"sdb", b"nvme0n1", b"nvme0c1n1"];
        const HIDDEN: usize = 4;
        let which = self.below(6);
        let letter = self.byte();
        let mut name = [letter; 32];
        if let Some(known) = DISKS.get(which) {
            name.fill(0);
            name.iter_mut().zip(*known).for_each(|(to, from)| *to = *from);
        }
        let count = |b: &mut Self| u64::try_from(b.spent(at).as_millis()).unwrap_or(u64::MAX);
        Disk {
            major: if which == HIDDEN { 0 } else { 8 + u32::from(which > HIDDEN) },
            // No two names have the same numbers.
            minor: if which == HIDDEN {
                0
            } else if which < HIDDEN {
                u32::try_from(which).unwrap_or(0)
            } else {
                letter.into()
            },
            name,
            reads: count(self),
            read_bytes: count(self).saturating_mul(1 << 20),
            read_time: self.spent(at),
            writes: count(self),
            write_bytes: count(self).saturating_mul(1 << 20),
            write_time: self.spent(at),
            in_flight: self.number(),
            busy: self.spent(at).saturating_mul(2),
            queued: self.spent(at),
        }
    }

    fn held(&mut self) -> Unreclaimable {
        Unreclaimable {
            anon_bytes: self.number(),
            shmem_bytes: self.maybe(Self::number),
            locked_bytes: self.maybe(Self::number),
            all_bytes: self.number(),
        }
    }

    fn tasks(&mut self, at: Duration) -> TaskCounts {
        TaskCounts {
            at,
            running: self.small(),
            sleeping: self.small(),
            stopped: self.small(),
            uninterruptible: self.small(),
            iowait: self.small(),
            longest: self.time(),
        }
    }

    pub(super) fn reading(&mut self, now: Duration) -> Reading {
        let at = if self.byte() == 0 { self.time() } else { now };
        Reading {
            at,
            cpu: self.maybe(|b| ContainerCpu { user: b.spent(at), system: b.spent(at), total: b.spent(at) }),
            capacity_cores: self.maybe(Self::float),
            throttling: self.maybe(|b| Throttling {
                periods: b.number(),
                throttled_periods: b.number(),
                throttled: b.time(),
            }),
            cpu_stall: None,
            memory: self.maybe(|b| ContainerMemory {
                held: b.held(),
                usage_bytes: b.number(),
                limit_bytes: b.maybe(Self::number),
            }),
            tasks: self.maybe(|b| b.tasks(at)),
        }
    }
}
