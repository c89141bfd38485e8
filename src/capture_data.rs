//! What a tracer asks of a capture, and what the capture brings back. Plain data: tracers read
//! it, captures make it, neither knows the other.

mod record_stack;

use std::time::Duration;

pub use record_stack::{FRAMES_MAX, ProgramPlace, RecordStack, StackNames};

use crate::clock::Now;
use crate::host::Key;

/// Names one request from the moment it is made to its single answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u32);

/// The kinds of capture there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureKind {
    /// Sampled stacks of running code (99 Hz), folded into a flame graph.
    Stacks,
    /// The tasks in D state at this moment, with their kernel stacks.
    Tasks,
    /// Stacks of page faults in bytes, folded into a flame graph, and who holds most memory.
    Faults,
    /// Who holds most memory at this moment.
    Memory,
    /// Who waited for CPUs, and who held them meanwhile.
    Waits,
    /// A short look at how long each container waited: what stands in for a pressure file.
    Probe,
    /// Who reads and writes which files of a disk, and who waits for long.
    Io,
    /// Names of the stack that a hook's record brings as addresses.
    Names,
}

impl CaptureKind {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CaptureKind::Stacks => "stacks",
            CaptureKind::Tasks => "tasks",
            CaptureKind::Faults => "faults",
            CaptureKind::Memory => "memory",
            CaptureKind::Waits => "waits",
            CaptureKind::Probe => "probe",
            CaptureKind::Io => "io",
            CaptureKind::Names => "names",
        }
    }

    /// Whether it is one look rather than some seconds of tracing: it uses up no budget.
    #[must_use]
    pub const fn is_instant(self) -> bool {
        matches!(self, CaptureKind::Tasks | CaptureKind::Memory | CaptureKind::Probe | CaptureKind::Names)
    }
}

/// What a capture looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything on the host.
    Host,
    /// One container, with all cgroups below its own.
    Container(Key),
    /// One block device, with what lies under it and over it.
    Device(Device),
}

/// A block device's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Which driver's.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

/// One capture, as a tracer asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which capture.
    pub kind: CaptureKind,
    /// Of what.
    pub scope: Scope,
    /// For how long; a capture that is one look ignores it.
    pub lasting: Duration,
}

/// Why a capture did not start, or brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many captures of this kind run as can, or one of this scope does already.
    Busy,
    /// This kernel cannot, and this is what it lacks.
    Unsupported(&'static str),
    /// Captures have had their share of the last ten minutes (`[capture] budget_percent`).
    OverBudget,
    /// The container went away before the capture could begin.
    Gone,
    /// It started and broke; the words say where.
    Failed(&'static str),
}

/// A finished capture: the answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// What it looked at.
    pub scope: Scope,
    /// When it began: it may have been under way before anyone asked for it.
    pub began: Now,
    /// How long it really lasted.
    pub lasted: Duration,
    /// Samples that the kernel could not hand over: their share of the evidence is missing.
    pub lost: u64,
    /// What was seen.
    pub seen: CaptureData,
}

/// The evidence itself.
#[derive(Clone, Debug, PartialEq)]
pub enum CaptureData {
    /// Of `CaptureKind::Stacks`.
    Stacks(Profile),
    /// Of `CaptureKind::Tasks`, longest blocked first.
    Tasks(Vec<Task>),
    /// Of `CaptureKind::Faults`.
    Faults(Faults),
    /// Of `CaptureKind::Memory`, most first.
    Memory(Vec<Resident>),
    /// Of `CaptureKind::Waits`.
    Waits(Waits),
    /// Of `CaptureKind::Probe`: the containers that ran or waited.
    Probe(Vec<(Key, Waited)>),
    /// Of `CaptureKind::Io`.
    Io(DiskIo),
    /// Of `CaptureKind::Names`.
    Names(StackNames),
}

/// How tasks ran, and how they waited to; times of several tasks add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// On a CPU.
    pub ran: Duration,
    /// Ready to run, but on none. The parts below are of it; what they leave was too short to look into.
    pub all: Duration,
    /// While others of the same group ran there.
    pub inner: Duration,
    /// While other groups ran there.
    pub external: Duration,
    /// While a quota held them back.
    pub throttled: Duration,
    /// While nobody ran there.
    pub unheld: Duration,
    /// How often.
    pub waits: u64,
}

impl Waited {
    /// What came after this earlier reading.
    #[must_use]
    pub fn since(&self, before: &Waited) -> Waited {
        self.each(before, Duration::saturating_sub, self.waits.saturating_sub(before.waits))
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Waited) -> Waited {
        self.each(other, Duration::saturating_add, self.waits.saturating_add(other.waits))
    }

    fn each(&self, other: &Waited, with: fn(Duration, Duration) -> Duration, waits: u64) -> Waited {
        Waited {
            ran: with(self.ran, other.ran),
            all: with(self.all, other.all),
            inner: with(self.inner, other.inner),
            external: with(self.external, other.external),
            throttled: with(self.throttled, other.throttled),
            unheld: with(self.unheld, other.unheld),
            waits,
        }
    }
}

/// Waiting for CPUs, of the capture's whole scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waits {
    /// How all of it ran and waited.
    pub whole: Waited,
    /// CPUs whose last sums could not be read: what ran there last is not in it.
    pub unread_cpus: u32,
    /// Who held CPUs that it waited for, longest first.
    pub culprits: Vec<Culprit>,
    /// Who waited, longest first; of a container it is itself, and is left out.
    pub waiters: Vec<Waiter>,
}

/// One that held CPUs that others waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Who.
    pub who: Who,
    /// The time that others waited meanwhile, added up.
    pub held: Duration,
}

/// One that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Who.
    pub who: Who,
    /// How.
    pub time: Waited,
}

/// A group of tasks that is told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// A container, with all cgroups below its own.
    Container(Key),
    /// Another cgroup, without those below it, by its path; `None`: it was gone before it was named.
    Cgroup(Option<Box<str>>),
}

/// Sampled stacks, folded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Samples a second on each CPU.
    pub hz: u32,
    /// Samples taken.
    pub samples: u64,
    /// The flame graph in pre-order; the first node is the root and holds every sample.
    pub flame: Vec<FlameNode>,
    /// Processes by samples, most first.
    pub top: Vec<TopProcess>,
}

/// One frame of a flame graph, in the shape that Grafana's panel and HUATUO's documents use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FlameNode {
    /// Depth below the root, which is 0.
    pub level: u32,
    /// Samples in this frame and all that it called.
    pub value: u64,
    /// Samples in this frame itself.
    #[serde(rename = "self")]
    pub own: u64,
    /// The function; kernel functions end in `_[k]`.
    pub label: Box<str>,
}

/// How many of a profile's samples fell on one process. One that executed another program, or whose id
/// came again, is there once for each name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TopProcess {
    /// Its id in the host's pid namespace.
    pub pid: u32,
    /// Its main thread's name, as of its last sample.
    pub comm: Box<str>,
    /// Its samples.
    pub samples: u64,
}

/// Page faults, and the processes that held most memory when the capture began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// The flame graph in pre-order, in bytes; the first node is the root and holds all of them.
    pub flame: Vec<FlameNode>,
    /// Processes by resident memory, most first.
    pub top: Vec<Resident>,
}

/// A process and its resident memory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resident {
    /// Its id in the host's pid namespace.
    pub pid: u32,
    /// Its main name.
    pub comm: Box<str>,
    /// Its resident memory; what it shares with others is counted for each.
    pub rss_bytes: u64,
}

/// One task that cannot be interrupted, and where in the kernel it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Process (thread group) id in the host's pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name.
    pub comm: Box<str>,
    /// As ps(1) shows it; `D` here.
    pub state: char,
    /// For how long it has been off the CPU in this state.
    pub blocked: Duration,
    /// Whether the kernel accounts this wait as iowait.
    pub in_iowait: bool,
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// Kernel frames, innermost first.
    pub stack: Vec<Box<str>>,
}

/// Reads and writes of some block devices, by who did them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskIo {
    /// The device that was asked about first, then what lies over and under it; of the whole host
    /// the busiest first.
    pub devices: Vec<DeviceIo>,
    /// The longest waits of tasks that use these devices, longest first.
    pub stalls: Vec<Stall>,
    /// Tracepoints that are there and could not be attached: what they count is missing.
    pub not_attached: Vec<&'static str>,
}

/// What happened on one block device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceIo {
    /// Its numbers.
    pub device: Device,
    /// Its name in /sys/block.
    pub name: Box<str>,
    /// All bytes read meanwhile, as /proc/diskstats counts them.
    pub read_bytes: Option<u64>,
    /// All bytes written meanwhile, as /proc/diskstats counts them.
    pub write_bytes: Option<u64>,
    /// Who did it, most bytes first.
    pub processes: Vec<ProcessIo>,
}

/// What one process did on one block device.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessIo {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// The name of its main thread.
    pub comm: Box<str>,
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// The files, most bytes first. Direct and buffered use of one file are two.
    pub files: Vec<FileIo>,
}

/// What a read or a write is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoObject {
    /// A file: the filesystem's numbers, its inode and, if it was told, its path.
    File(Device, u64, Option<Box<str>>),
    /// The block device itself: a mounted filesystem's metadata and journal.
    Device(Option<Box<str>>),
    /// Nobody can tell: a filesystem's own buffers, swap.
    Unknown,
}

/// Reads and writes of one file by one process.
#[derive(Clone, Debug, PartialEq)]
pub struct FileIo {
    /// Of what.
    pub target: IoObject,
    /// Past the page cache.
    pub direct: bool,
    /// What was written had been made dirty before the capture, so by whom is not known.
    pub dirtied_earlier: bool,
    /// Several processes wrote to the file, and by whom this was made dirty is not known.
    pub shared: bool,
    /// Bytes that the process wrote to the page cache, where the filesystem tells.
    pub fs_write_bytes: Option<u64>,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Bytes written to the device.
    pub write_bytes: u64,
    /// Reads and writes that came to their end.
    pub finished: u64,
    /// Those that were still under way at the end of the capture.
    pub in_flight: u64,
    /// From the queue to the end.
    pub whole: Times,
    /// From when the device got it to the end.
    pub device: Times,
}

/// How long some things took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// On average.
    pub average: Duration,
    /// At most.
    pub most: Duration,
}

/// A task that could not be interrupted for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The CPU that it was last on.
    pub cpu: u32,
    /// The thread's name.
    pub comm: Box<str>,
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// For how long.
    pub blocked: Duration,
    /// Whether the kernel accounts the wait as iowait.
    pub in_iowait: bool,
    /// Kernel frames, innermost first.
    pub stack: Vec<Box<str>>,
}
