//! What holds a cgroup back: its own quota, CPUs and memory limit. A container has them, and so
//! has each cgroup above it. They change seldom, so where open files run short, theirs are not kept open
//! and are read once a minute.

use std::time::Duration;

use super::hierarchies::{Hierarchies, Mode};
use super::source::{Io, Place, Source};
use crate::host::cgroup::cpuset;
use crate::host::cgroup::memory::{Limit, limit};
use crate::host::cgroup::quota::{self, Quota};

/// What is read seldom is at most this old, in milliseconds.
const SELDOM: u64 = 60_000;
/// Not of all containers at once: they are so far apart, as their ticks are.
const APART: u64 = 10_000;

/// The files of one cgroup, and what they said.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    quota: Source,
    period: Source,
    cpus: Source,
    limit: Source,
    read_cores: Cached<f64>,
    read_cpus: Cached<u32>,
    read_memory: Cached<u64>,
}

/// A value and the turn that it was read in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cached<T> {
    turn: Option<Duration>,
    value: Option<T>,
}

impl<T: Copy> Cached<T> {
    fn get(&mut self, group: &Group<'_>, read: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.turn.is_none_or(|turn| turn < group.since || turn > group.turn) {
            self.set(group, read());
        }
        self.value
    }

    pub(super) fn set(&mut self, group: &Group<'_>, value: Option<T>) {
        *self = Cached { turn: Some(group.turn), value };
    }

    /// What was last read, however long ago.
    pub(super) fn latest(&self) -> Option<T> {
        self.value
    }

    /// What was read, unless that is too long ago even if nothing has changed.
    pub(super) fn lasting(&self, group: &Group<'_>) -> Option<T> {
        self.value.filter(|_| self.turn.is_some_and(|turn| turn >= group.whole && turn < group.turn))
    }
}

/// A cgroup in all hierarchies.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) path: &'a [u8],
    /// Whether files that were not there are looked for again.
    pub(super) again: bool,
    turn: Duration,
    /// Bounds that were read then or later will do.
    since: Duration,
    /// What was read then or later still holds where what changes with it has not changed.
    whole: Duration,
    /// Whether the files of its bounds are kept open.
    keep: bool,
}

/// The current turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    pub(super) at: Duration,
    /// Open files run short: bounds are read seldom, and their files are not kept open.
    pub(super) rationed: bool,
}

/// When what is read seldom was last due.
fn last_due(now: Duration, number: usize) -> Duration {
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let shift = number as u64 % (SELDOM / APART) * APART;
    Duration::from_millis(now.saturating_sub(now.saturating_add(shift) % SELDOM))
}

impl<'a> Group<'a> {
    /// Until it `settles` files that are not there are looked for. What is read seldom, for another `number`
    /// it is at another time.
    pub(super) fn new(
        hierarchies: &'a Hierarchies,
        path: &'a [u8],
        turn: Turn,
        settles: Duration,
        number: usize,
    ) -> Group<'a> {
        let Turn { at, rationed } = turn;
        let (due, again) = (last_due(at, number), at < settles);
        let since = if rationed { due } else { at };
        let whole = if again { at } else { due };
        Group { hierarchies, path, again, turn: at, since, whole, keep: !rationed }
    }

    pub(super) fn cpu(self) -> Place<'a> {
        Place { folder: self.hierarchies.cpu.as_ref(), path: self.path, again: self.again, keep: true }
    }

    pub(super) fn cpuacct(self) -> Place<'a> {
        Place { folder: self.hierarchies.cpuacct.as_ref(), ..self.cpu() }
    }

    pub(super) fn memory(self) -> Place<'a> {
        Place { folder: self.hierarchies.memory.as_ref(), ..self.cpu() }
    }

    fn cpuset(self) -> Place<'a> {
        Place { folder: self.hierarchies.cpuset.as_ref(), ..self.cpu() }
    }

    /// For a file of its bounds.
    fn bound(self, place: Place<'a>) -> Place<'a> {
        Place { keep: self.keep, ..place }
    }

    pub(super) fn is_v2(self) -> bool {
        self.hierarchies.mode == Mode::V2
    }
}

impl Bounds {
    /// Its own quota in cores, if it has one.
    pub(super) fn cores(&mut self, group: Group<'_>, io: &mut Io) -> Option<f64> {
        let Bounds { quota, period, read_cores, .. } = self;
        read_cores.get(&group, || {
            let read = if group.is_v2() {
                quota.read(group.bound(group.cpu()), "cpu.max", io, quota::v2)
            } else {
                v1_quota(quota, period, group, io)
            };
            match read? {
                Quota::Cores(cores) => Some(cores),
                Quota::Unlimited => None,
            }
        })
    }

    /// The CPUs that its tasks may run on, if its cpuset says so.
    pub(super) fn cpus(&mut self, group: Group<'_>, io: &mut Io) -> Option<u32> {
        let Bounds { cpus, read_cpus, .. } = self;
        let name = if group.is_v2() { "cpuset.cpus.effective" } else { "cpuset.effective_cpus" };
        read_cpus.get(&group, || {
            cpus.read(group.bound(group.cpuset()), name, io, cpuset::count).filter(|cpus| *cpus > 0)
        })
    }

    /// Its own memory limit in bytes, if it has one.
    pub(super) fn memory(&mut self, group: Group<'_>, io: &mut Io) -> Option<u64> {
        let Bounds { limit: file, read_memory, .. } = self;
        let name = if group.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        read_memory.get(&group, || match file.read(group.bound(group.memory()), name, io, limit)? {
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Unlimited => None,
        })
    }

    /// Lets go of its open files. What they said still holds.
    pub(super) fn rest(&mut self, io: &mut Io) {
        for source in [&mut self.quota, &mut self.period, &mut self.cpus, &mut self.limit] {
            source.rest(io);
        }
    }

    pub(super) fn close(&mut self, io: &mut Io) {
        self.rest(io);
        *self = Bounds::default();
    }
}

fn v1_quota(quota: &mut Source, period: &mut Source, group: Group<'_>, io: &mut Io) -> Option<Quota> {
    let quota = quota.read(group.bound(group.cpu()), "cpu.cfs_quota_us", io, quota::v1_quota)??;
    period.read(group.bound(group.cpu()), "cpu.cfs_period_us", io, |period| {
        quota::cores(quota, crate::host::text::number(period)?)
    })
}
