//! Tasks that cannot be interrupted.

use std::time::Duration;

use crate::host::Key;

/// One task that cannot be interrupted, and where in the kernel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task<'a> {
    /// Process (thread group) id in the host's pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name.
    pub comm: &'a str,
    /// As ps(1) shows it; `D` here.
    pub state: char,
    /// For how long it has been off the CPU in this state.
    pub blocked: Duration,
    /// Whether the kernel accounts this wait as iowait.
    pub in_iowait: bool,
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// Kernel frames, innermost first.
    pub stack: &'a [&'a str],
}

/// A task that could not be interrupted for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall<'a> {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The CPU that it was last on.
    pub cpu: u32,
    /// The thread's name.
    pub comm: &'a str,
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// For how long.
    pub blocked: Duration,
    /// Whether the kernel accounts the wait as iowait.
    pub in_iowait: bool,
    /// Kernel frames, innermost first.
    pub stack: &'a [&'a str],
}
