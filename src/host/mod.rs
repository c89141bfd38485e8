//! The host as facts: pure parsers of /proc and cgroup files, the containers found among the
//! cgroups, and the one reader that knows where those files are.

mod calls;
pub mod cgroup;
pub mod cgroup_source;
pub mod containers;
mod facts;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod identity;
mod index;
mod inline;
mod key;
mod paths;
pub mod proc;
pub mod reader;
mod task_facts;
mod text;

pub use cgroup::memory::Limit;
pub use cgroup::quota::Quota;
pub use containers::filter::Filter;
pub use containers::{Container, ContainerId, Containers, Watched};
pub use facts::{
    ContainerCpu, ContainerMemory, CpuTimes, Disk, Facts, HostCpu, Load, Memory, Reading, Snapshot,
    Throttling, Unreclaimable,
};
pub use identity::{Identity, NameReport, NameSource, Record, Role};
pub use inline::Text;
pub use key::Key;
pub use paths::Paths;
pub use reader::{Error, Faults, MissingController, Mode, Reader, ReadingMethod, Scan};
pub use task_facts::{TaskCounts, TaskLook, TaskSample, TaskState};
