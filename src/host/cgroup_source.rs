//! The counters of many cgroups at once, by whoever can hand them over: the reader asks, and does not
//! know how they are had. What is not told is read from the cgroup's text files.

use std::os::fd::RawFd;
use std::time::Duration;

use super::Throttling;
use super::Unreclaimable;
use super::cgroup::memory::Limit;
use super::cgroup::quota::Quota;

/// The hierarchies of v1 that are read: cpu, cpuacct, memory, cpuset. On v2 all are the first.
pub const HIERARCHIES: usize = 4;

/// The folders of a cgroup, and what a source knows of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupFolders {
    /// An open descriptor of the folder in each hierarchy; negative: there is none.
    pub descriptors: [RawFd; HIERARCHIES],
    /// What the source found behind them, to be handed back with the same descriptors. 0: not looked yet.
    pub nodes: [u64; HIERARCHIES],
}

impl CgroupFolders {
    /// No folders.
    pub const NONE: CgroupFolders = CgroupFolders { descriptors: [-1; HIERARCHIES], nodes: [0; HIERARCHIES] };
}

/// What is asked of one cgroup.
#[derive(Clone, Copy, Debug)]
pub struct CgroupRequest {
    /// Where it is.
    pub folders: CgroupFolders,
    /// Whether CPU time, throttling and what bounds it are wanted.
    pub cpu: bool,
    /// Whether memory is wanted.
    pub memory: bool,
    /// Its CPU time as known: if that still holds, nothing more of its CPU is wanted.
    pub known_total: Option<Duration>,
    /// Its memory usage as known: if that still holds, nothing more of its memory is wanted.
    pub known_usage: Option<u64>,
}

/// CPU time as the kernel counts it: all of it exactly, its modes by ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSum {
    /// All of it.
    pub total: Duration,
    /// Ticks in user mode.
    pub user: Duration,
    /// Ticks in the kernel.
    pub system: Duration,
    /// User and system time as its text file last told them, which never go back.
    pub last: [Duration; 2],
}

impl CpuSum {
    /// User and system time that add up to the total, in the proportion of the ticks, none of them less than
    /// `before`: cputime_adjust() in the kernel's kernel/sched/cputime.c.
    #[must_use]
    pub fn modes(&self, before: [Duration; 2]) -> [Duration; 2] {
        let ([user, system], [last_user, last_system]) = (before, self.last);
        let (least_user, least_system) = (user.max(last_user), system.max(last_system));
        if least_user.saturating_add(least_system) >= self.total {
            return [least_user, least_system];
        }
        let ticks = self.user.as_nanos() + self.system.as_nanos();
        let share = match (self.system.as_nanos(), self.user.as_nanos()) {
            (0, _) => 0,
            (_, 0) => self.total.as_nanos(),
            (system, _) => (system * self.total.as_nanos() / ticks).min(self.total.as_nanos()),
        };
        let share = Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX));
        let system = share.max(least_system);
        let user = self.total.saturating_sub(system);
        if user < least_user { [least_user, self.total.saturating_sub(least_user)] } else { [user, system] }
    }
}

/// What is told of something that may be as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told<T> {
    /// Nothing.
    #[default]
    Unknown,
    /// What is known still holds.
    Same,
    /// This.
    New(T),
}

/// What is told of one cgroup.
#[derive(Clone, Copy, Debug, Default)]
pub struct CgroupCounters {
    /// What was found behind the descriptors.
    pub nodes: [u64; HIERARCHIES],
    /// Its CPU time.
    pub cpu: Told<CpuSum>,
    /// The cpu controller is off for it: it is not throttled, and has no quota of its own.
    pub uncontrolled: bool,
    /// Its throttling.
    pub throttling: Option<Throttling>,
    /// The lowest quota on the way from the root to it.
    pub quota: Option<Quota>,
    /// How many CPUs its cpuset has; 0: it has none of its own.
    pub cpus: Option<u32>,
    /// Its memory usage in bytes, and the lowest limit on the way from the root to it.
    pub memory: Told<(u64, Limit)>,
    /// What of its memory cannot be reclaimed.
    pub held: Option<Unreclaimable>,
}

impl CgroupCounters {
    /// Nothing is told.
    pub const NONE: CgroupCounters = CgroupCounters {
        nodes: [0; HIERARCHIES],
        cpu: Told::Unknown,
        uncontrolled: false,
        throttling: None,
        quota: None,
        cpus: None,
        memory: Told::Unknown,
        held: None,
    };
}

/// Hands over the counters of many cgroups in one call. Takes no memory.
pub trait CgroupSource: Send {
    /// How many can be asked for at once.
    fn most(&self) -> usize;

    /// Asks for a cgroup, the `index`th of those that the next `read` is for.
    fn ask(&mut self, index: usize, request: &CgroupRequest);

    /// Reads the first `count` that were asked for. False: nothing was read.
    fn read(&mut self, count: usize) -> bool;

    /// What was read of the `index`th.
    fn counters(&self, index: usize) -> CgroupCounters;
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sum(total: u64, user: u64, system: u64) -> CpuSum {
        CpuSum { total: ms(total), user: ms(user), system: ms(system), last: [Duration::ZERO; 2] }
    }

    #[test]
    fn user_and_system_time_share_the_total_by_their_ticks() {
        assert_eq!(sum(1000, 8, 4).modes([Duration::ZERO; 2]), [ms(1000) - ms(1000) / 3, ms(1000) / 3]);
        assert_eq!(sum(7, 0, 0).modes([Duration::ZERO; 2]), [ms(7), ms(0)], "no tick yet");
        assert_eq!(sum(7, 0, 4).modes([Duration::ZERO; 2]), [ms(0), ms(7)]);
    }

    #[test]
    fn neither_mode_goes_back_when_the_other_gets_more_ticks() {
        assert_eq!(sum(1000, 1, 1).modes([ms(700), ms(100)]), [ms(700), ms(300)]);
        assert_eq!(sum(1000, 9, 1).modes([ms(100), ms(400)]), [ms(600), ms(400)]);
        assert_eq!(sum(1000, 1, 1).modes([ms(800), ms(300)]), [ms(800), ms(300)], "ahead of the total");
        let read = CpuSum { last: [ms(600), ms(0)], ..sum(1000, 1, 1) };
        assert_eq!(read.modes([ms(500), ms(350)]), [ms(600), ms(400)], "its text file told more");
    }
}
