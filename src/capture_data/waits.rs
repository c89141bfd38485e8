//! Waiting for CPUs: how long, and because of whom.

use std::time::Duration;

use super::Rows;
use crate::host::Key;

/// How tasks ran, and how they waited to; times of several tasks add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// On a CPU.
    pub ran: Duration,
    /// Ready to run, but on none. The parts below are of it; what they leave was too short to look into.
    pub all: Duration,
    /// While others of the same group ran there.
    pub inner: Duration,
    /// While other groups ran there.
    pub external: Duration,
    /// While a quota held them back.
    pub throttled: Duration,
    /// While nobody ran there.
    pub unheld: Duration,
    /// How often.
    pub waits: u64,
}

impl Waited {
    /// What came after this earlier reading.
    #[must_use]
    pub fn since(&self, before: &Waited) -> Waited {
        self.each(before, Duration::saturating_sub, self.waits.saturating_sub(before.waits))
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Waited) -> Waited {
        self.each(other, Duration::saturating_add, self.waits.saturating_add(other.waits))
    }

    fn each(&self, other: &Waited, with: fn(Duration, Duration) -> Duration, waits: u64) -> Waited {
        Waited {
            ran: with(self.ran, other.ran),
            all: with(self.all, other.all),
            inner: with(self.inner, other.inner),
            external: with(self.external, other.external),
            throttled: with(self.throttled, other.throttled),
            unheld: with(self.unheld, other.unheld),
            waits,
        }
    }
}

/// Waiting for CPUs, of the capture's whole scope.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits<'a> {
    /// How all of it ran and waited.
    pub whole: Waited,
    /// CPUs whose last sums could not be read: what ran there last is not in it.
    pub unread_cpus: u32,
    /// Who held CPUs that it waited for, longest first.
    pub interferers: Rows<'a, Interferer<'a>>,
    /// Who waited, longest first; of a container it is itself, and is left out.
    pub waiters: Rows<'a, Waiter<'a>>,
}

/// A group that held CPUs while others waited for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interferer<'a> {
    /// Which group.
    pub group: TaskGroup<'a>,
    /// The time that others waited meanwhile, added up.
    pub held: Duration,
}

/// A group that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter<'a> {
    /// Which group.
    pub group: TaskGroup<'a>,
    /// How it ran and waited.
    pub time: Waited,
}

/// A group of tasks that is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskGroup<'a> {
    /// A container, with all cgroups below its own.
    Container(Key),
    /// Another cgroup, without those below it, by its path; `None`: it was gone before it was named.
    Cgroup(Option<&'a str>),
}
