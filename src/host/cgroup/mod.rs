//! Pure parsers of cgroup files, v1 and v2: bytes in, a value out. Text that is not what the
//! kernel writes is `None`; nothing here allocates or panics.

pub mod cpu;
pub mod cpuset;
pub mod memory;
pub mod quota;
