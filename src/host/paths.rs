//! Where the host's trees are.

use std::path::PathBuf;

/// Roots of the host's trees, for a container that sees them elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// procfs.
    pub proc: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
    /// The cgroup hierarchies.
    pub cgroup: PathBuf,
}
