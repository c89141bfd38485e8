//! The host as facts: pure parsers of /proc and cgroup files, the containers found among the
//! cgroups, and the one reader that knows where those files are.

/// A container's place in the table of containers. The generation tells apart two that had the
/// same slot at different times, so a key outlives its container without naming another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Index below the table's capacity.
    pub slot: u16,
    /// Grows by one each time that the slot is given away.
    pub generation: u32,
}
