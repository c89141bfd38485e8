//! The host as facts: pure parsers of /proc and cgroup files, the containers found among the
//! cgroups, and the one reader that knows where those files are.

pub mod containers;
mod facts;

pub use containers::{Container, Containers};
pub use facts::{
    ContainerCpu, ContainerMemory, CpuTimes, Disk, Facts, HostCpu, Key, Load, Memory, Reading, Snapshot,
    TaskCounts, TaskSample, TaskState, Throttling,
};
