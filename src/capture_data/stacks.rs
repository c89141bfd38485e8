//! Sampled stacks as a flame graph, and the processes that they and memory are of.

use super::Rows;

/// The label of the node whose samples had stacks for which the capture's arena had no room.
pub const NO_ROOM: &str = "[no room for its stack]";

/// Sampled stacks, folded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile<'a> {
    /// Samples a second on each CPU.
    pub hz: u32,
    /// Samples taken.
    pub samples: u64,
    /// The flame graph in pre-order; the first node is the root and holds every sample. Stacks that are left out
    /// are samples of the node `NO_ROOM`.
    pub flame: Rows<'a, FlameNode<'a>>,
    /// Processes by samples, most first.
    pub top: Rows<'a, TopProcess<'a>>,
}

/// One frame of a flame graph, in the shape that Grafana's panel and HUATUO's documents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlameNode<'a> {
    /// Depth below the root, which is 0.
    pub level: u32,
    /// Samples in this frame and all that it called.
    pub value: u64,
    /// Samples in this frame itself.
    #[serde(rename = "self")]
    pub own: u64,
    /// The function; kernel functions end in `_[k]`.
    pub label: &'a str,
}

/// How many of a profile's samples fell on one process. A process that executed another program, or whose id
/// came again, is there once for each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TopProcess<'a> {
    /// Its id in the host's pid namespace.
    pub pid: u32,
    /// Its main thread's name, as of its last sample.
    pub comm: &'a str,
    /// Its samples.
    pub samples: u64,
}

/// Page faults, and the processes that held most memory when the capture began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults<'a> {
    /// The flame graph in pre-order, in bytes; the first node is the root and holds all of them. Stacks that are
    /// left out are bytes of the node `NO_ROOM`.
    pub flame: Rows<'a, FlameNode<'a>>,
    /// Processes by resident memory, most first.
    pub top: Rows<'a, Resident<'a>>,
}

/// A process and its resident memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resident<'a> {
    /// Its id in the host's pid namespace.
    pub pid: u32,
    /// Its main name.
    pub comm: &'a str,
    /// Its resident memory; what it shares with others is counted for each.
    pub rss_bytes: u64,
}
