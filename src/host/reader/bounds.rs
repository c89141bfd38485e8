//! What holds a cgroup back: its own quota, CPUs and memory limit. A container has them, and so
//! has each cgroup above it.

use super::source::{Io, Place, Source};
use super::tree::{Mode, Tree};
use crate::host::cgroup::cpuset;
use crate::host::cgroup::memory::{Limit, limit};
use crate::host::cgroup::quota::{self, Quota};

/// The files of one cgroup.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    quota: Source,
    period: Source,
    cpus: Source,
    limit: Source,
}

/// A cgroup in all hierarchies.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) tree: &'a Tree,
    pub(super) path: &'a str,
    /// Whether files that were not there are looked for again.
    pub(super) again: bool,
}

impl<'a> Group<'a> {
    pub(super) fn cpu(self) -> Place<'a> {
        Place { folder: self.tree.cpu.as_ref(), path: self.path, again: self.again }
    }

    pub(super) fn cpuacct(self) -> Place<'a> {
        Place { folder: self.tree.cpuacct.as_ref(), ..self.cpu() }
    }

    pub(super) fn memory(self) -> Place<'a> {
        Place { folder: self.tree.memory.as_ref(), ..self.cpu() }
    }

    fn cpuset(self) -> Place<'a> {
        Place { folder: self.tree.cpuset.as_ref(), ..self.cpu() }
    }

    pub(super) fn is_v2(self) -> bool {
        self.tree.mode == Mode::V2
    }
}

impl Bounds {
    /// Its own quota in cores, if it has one.
    pub(super) fn cores(&mut self, group: Group<'_>, io: &mut Io) -> Option<f64> {
        let quota = if group.is_v2() {
            self.quota.read(group.cpu(), "cpu.max", io, quota::v2)?
        } else {
            let quota = self.quota.read(group.cpu(), "cpu.cfs_quota_us", io, quota::v1_quota)??;
            self.period.read(group.cpu(), "cpu.cfs_period_us", io, |period| {
                quota::cores(quota, crate::host::text::number(period)?)
            })?
        };
        match quota {
            Quota::Cores(cores) => Some(cores),
            Quota::Unlimited => None,
        }
    }

    /// The CPUs that its tasks may run on, if its cpuset says so.
    pub(super) fn cpus(&mut self, group: Group<'_>, io: &mut Io) -> Option<u32> {
        let name = if group.is_v2() { "cpuset.cpus.effective" } else { "cpuset.effective_cpus" };
        self.cpus.read(group.cpuset(), name, io, cpuset::count).filter(|cpus| *cpus > 0)
    }

    /// Its own memory limit in bytes, if it has one.
    pub(super) fn memory(&mut self, group: Group<'_>, io: &mut Io) -> Option<u64> {
        let name = if group.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        match self.limit.read(group.memory(), name, io, limit)? {
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Unlimited => None,
        }
    }

    pub(super) fn close(&mut self, io: &mut Io) {
        for source in [&mut self.quota, &mut self.period, &mut self.cpus, &mut self.limit] {
            source.close(io);
        }
    }
}
