//! Pure parsers of /proc: bytes in, a value out. Text that is not what the kernel writes is
//! `None`; nothing here allocates or panics.

pub mod cgroups;
pub mod diskstats;
pub mod loadavg;
pub mod meminfo;
pub mod mounts;
pub mod pressure;
pub mod stat;
pub mod task;
