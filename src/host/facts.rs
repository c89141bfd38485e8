//! What is known of the host at one moment, as plain values with their units in their types.
//! Counters are as the kernel gives them: whoever needs a rate keeps the reading before.

use std::time::Duration;

use super::TaskCounts;
use super::containers::filter::Filter;
use super::containers::{Container, Containers, Watched};

/// Which facts are to be read in a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `HostCpu`, from /proc/stat.
    pub cpu: bool,
    /// `Load`, from /proc/loadavg.
    pub load: bool,
    /// `Memory`, from /proc/meminfo.
    pub memory: bool,
    /// `Disk`s, from /proc/diskstats.
    pub disks: bool,
    /// `TaskCounts` of the host and of each container.
    pub tasks: bool,
    /// `ContainerCpu`, `Throttling` and the capacity of each container.
    pub container_cpu: bool,
    /// `ContainerMemory` of each container.
    pub container_memory: bool,
    /// CPU pressure, of the host and of each container that has a file for it.
    pub cpu_pressure: bool,
}

impl Facts {
    /// No facts at all: to be filled in with `..Facts::NONE`.
    pub const NONE: Facts = Facts {
        cpu: false,
        load: false,
        memory: false,
        disks: false,
        tasks: false,
        container_cpu: false,
        container_memory: false,
        cpu_pressure: false,
    };

    /// All that either needs.
    #[must_use]
    pub const fn and(self, other: Facts) -> Facts {
        Facts {
            cpu: self.cpu | other.cpu,
            load: self.load | other.load,
            memory: self.memory | other.memory,
            disks: self.disks | other.disks,
            tasks: self.tasks | other.tasks,
            container_cpu: self.container_cpu | other.container_cpu,
            container_memory: self.container_memory | other.container_memory,
            cpu_pressure: self.cpu_pressure | other.cpu_pressure,
        }
    }

    /// Those of these that the other has not.
    #[must_use]
    pub const fn but(self, other: Facts) -> Facts {
        Facts {
            cpu: self.cpu & !other.cpu,
            load: self.load & !other.load,
            memory: self.memory & !other.memory,
            disks: self.disks & !other.disks,
            tasks: self.tasks & !other.tasks,
            container_cpu: self.container_cpu & !other.container_cpu,
            container_memory: self.container_memory & !other.container_memory,
            cpu_pressure: self.cpu_pressure & !other.cpu_pressure,
        }
    }
}

/// CPU time since boot by mode, summed over CPUs (proc_stat(5)). `user` holds guest time, as there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In user mode.
    pub user: Duration,
    /// In user mode with low priority.
    pub nice: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Idle.
    pub idle: Duration,
    /// Idle while a task waits for I/O.
    pub iowait: Duration,
    /// In interrupts.
    pub irq: Duration,
    /// In soft interrupts.
    pub softirq: Duration,
    /// Taken by the hypervisor.
    pub steal: Duration,
}

impl CpuTimes {
    /// The modes by name, in the file's order.
    pub const MODES: [&'static str; 8] =
        ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

    /// The time of each, in that order. They add up to all there was: guest time is in `user` and `nice`.
    #[must_use]
    pub fn modes(&self) -> [Duration; CpuTimes::MODES.len()] {
        let CpuTimes { user, nice, system, idle, iowait, irq, softirq, steal } = *self;
        [user, nice, system, idle, iowait, irq, softirq, steal]
    }
}

/// /proc/stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCpu {
    /// The `cpu` line.
    pub times: CpuTimes,
    /// CPUs that are online: the `cpuN` lines.
    pub cpus: u32,
    /// `procs_running`.
    pub running: u64,
    /// `procs_blocked`: tasks in iowait. A writer to a frozen filesystem is not among them.
    pub blocked: u64,
}

/// /proc/loadavg.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Over 1 minute.
    pub one: f64,
    /// Over 5 minutes.
    pub five: f64,
    /// Over 15 minutes.
    pub fifteen: f64,
}

/// /proc/meminfo, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`.
    pub available_bytes: u64,
    /// What of it cannot be reclaimed.
    pub held: Unreclaimable,
}

/// Memory that the kernel cannot give to another use unless it swaps, by what it is. Each number is of one
/// kernel counter, the same for the host and for cgroups of both versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreclaimable {
    /// Anonymous pages that are mapped, huge ones and locked ones included (NR_ANON_MAPPED): `AnonPages` of
    /// meminfo; `anon` of v2's memory.stat; `total_rss` of v1's.
    pub anon_bytes: u64,
    /// Pages of shared memory and tmpfs, locked ones included (NR_SHMEM): `Shmem`; `shmem`; `total_shmem`.
    pub shmem_bytes: Option<u64>,
    /// Pages that are locked, anonymous, shared or of files, and those of ramfs (NR_UNEVICTABLE):
    /// `Unevictable`; `unevictable`; `total_unevictable`.
    pub locked_bytes: Option<u64>,
    /// All of it: a page is on one list only, so `Active(anon)` + `Inactive(anon)` + `Unevictable`. Where
    /// the file has no such lines, anonymous and shared memory.
    pub all_bytes: u64,
}

impl Unreclaimable {
    /// Out of the counters; `active` and `inactive` are those of anonymous and shared memory that is not
    /// locked. `None`: nothing says how much is anonymous.
    #[must_use]
    pub fn of(
        anon: Option<u64>,
        shmem: Option<u64>,
        locked: Option<u64>,
        [active, inactive]: [Option<u64>; 2],
    ) -> Option<Unreclaimable> {
        let anon_bytes = anon?;
        let all_bytes = match (active, inactive, locked) {
            (Some(active), Some(inactive), Some(locked)) => {
                active.checked_add(inactive)?.checked_add(locked)?
            }
            _ => anon_bytes.checked_add(shmem.unwrap_or(0))?,
        };
        Some(Unreclaimable { anon_bytes, shmem_bytes: shmem, locked_bytes: locked, all_bytes })
    }
}

/// A line of /proc/diskstats (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Device numbers.
    pub major: u32,
    /// Device numbers.
    pub minor: u32,
    /// Its name, filled up with zeros (DISK_NAME_LEN in the kernel's blkdev.h is 32).
    pub name: [u8; 32],
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Time that reads took, queueing included, added up.
    pub read_time: Duration,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Time that writes took, queueing included, added up.
    pub write_time: Duration,
    /// Requests in flight.
    pub in_flight: u64,
    /// Time with any request in flight.
    pub busy: Duration,
    /// Time of all requests, weighted by their number.
    pub queued: Duration,
}

impl Disk {
    /// Whether the kernel gave it no numbers, as it does with those that it hides.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        (self.major, self.minor) == (0, 0)
    }

    /// Whether it is one of the hidden paths of the disk of this name: nvme0c1n1 is of nvme0n1.
    #[must_use]
    pub fn is_path_of(&self, head: &str) -> bool {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parts = || {
            let (subsystem, rest) = self.name().split_once('c')?;
            let (controller, namespace) = rest.split_at_checked(rest.find('n')?)?;
            let known = subsystem.strip_prefix("nvme").is_some_and(number) && number(controller);
            known.then_some((subsystem, namespace))
        };
        self.is_hidden()
            && parts().is_some_and(|(subsystem, namespace)| head.strip_prefix(subsystem) == Some(namespace))
    }

    /// Its name as text; what is no UTF-8 ends it.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        match std::str::from_utf8(name) {
            Ok(name) => name,
            Err(error) => {
                std::str::from_utf8(name.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
            }
        }
    }
}

/// CPU time of one container since it began, everything below its cgroup included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerCpu {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Both; finer than their sum on cgroup v1.
    pub total: Duration,
}

/// How its quota held a container back (cpu.stat).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which it could run.
    pub periods: u64,
    /// Periods in which it was throttled.
    pub throttled_periods: u64,
    /// Time throttled, summed over CPUs.
    pub throttled: Duration,
}

/// Memory of one container, everything below its cgroup included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerMemory {
    /// What of it cannot be reclaimed.
    pub held: Unreclaimable,
    /// `memory.current`, or `memory.usage_in_bytes`.
    pub usage_bytes: u64,
    /// The lowest limit on the way from the root to it; `None` is no limit.
    pub limit_bytes: Option<u64>,
}

/// What was read of one container. `None` is not known, or not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// When, on the clock of `Now::mono`.
    pub at: Duration,
    /// Its CPU time.
    pub cpu: Option<ContainerCpu>,
    /// CPUs that it can use: the lesser of its cpuset and the lowest quota/period on the way from
    /// the root to it.
    pub capacity_cores: Option<f64>,
    /// Its throttling.
    pub throttling: Option<Throttling>,
    /// For how long any of its tasks waited for a CPU (`some` of cpu.pressure), since it began.
    pub cpu_stall: Option<Duration>,
    /// Its memory.
    pub memory: Option<ContainerMemory>,
    /// Its tasks.
    pub tasks: Option<TaskCounts>,
}

/// The host at one moment. A fact that was not asked for, or could not be read, is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// /proc/stat.
    pub cpu: Option<&'a HostCpu>,
    /// /proc/loadavg.
    pub load: Option<&'a Load>,
    /// /proc/meminfo.
    pub memory: Option<&'a Memory>,
    /// /proc/diskstats.
    pub disks: Option<&'a [Disk]>,
    /// All tasks of the host.
    pub tasks: Option<&'a TaskCounts>,
    /// For how long any task waited for a CPU (`some` of /proc/pressure/cpu), since boot.
    pub cpu_stall: Option<Duration>,
    /// The containers there are, watched or not: anyone may be to blame.
    pub containers: &'a Containers,
    /// What was read of each, by its slot.
    pub readings: &'a [Reading],
    /// Which of them are watched.
    pub filter: &'a Filter,
}

impl<'a> Snapshot<'a> {
    /// The containers that are watched.
    #[must_use]
    pub fn watched(&self) -> Watched<'a> {
        Watched::new(self.containers, self.filter)
    }

    /// Each container that is watched, with what was read of it.
    pub fn each(&self) -> impl Iterator<Item = (Container<'a>, &'a Reading)> {
        let readings = self.readings;
        self.watched()
            .iter()
            .filter_map(move |container| Some((container, readings.get(usize::from(container.key().slot))?)))
    }
}
