//! What a tracer asks of a capture, and what the capture brings back. Plain data: tracers read
//! it, captures make it, neither knows the other.

use std::time::Duration;

use crate::clock::Now;
use crate::host::Key;

mod arena;
mod io;
mod record_stack;
mod stacks;
mod tasks;
mod waits;

pub use arena::{Arena, Page, Rows, Texts};
pub use io::{Beyond, DeviceIo, DiskIo, FileIo, IoObject, Latency, ProcessIo};
pub use record_stack::{FRAMES_MAX, ProgramPlace, RecordStack, StackNames};
pub use stacks::{Faults, FlameNode, NO_ROOM, Profile, Resident, TopProcess};
pub use tasks::{Stall, Task};
pub use waits::{Interferer, TaskGroup, Waited, Waiter, Waits};

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

    /// Bytes of the arena that all of what one capture brings lies in; the rest is counted.
    #[must_use]
    pub const fn arena_bytes(self) -> usize {
        match self {
            // Some 80,000 frames with their names: more than any document takes.
            CaptureKind::Stacks | CaptureKind::Faults => 4 << 20,
            // 4,096 tasks with twenty frames each.
            CaptureKind::Tasks => 2 << 20,
            // 100 processes.
            CaptureKind::Memory => 16 << 10,
            // 3,000 groups of tasks that waited, and as many that held CPUs.
            CaptureKind::Waits => 1 << 20,
            // As many containers as the table of containers may have.
            CaptureKind::Probe => 2 << 20,
            // 5,000 files with paths of usual lengths.
            CaptureKind::Io => 2 << 20,
            // Twice 64 frames with the longest names that there are.
            CaptureKind::Names => 64 << 10,
        }
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capture<'a> {
    /// What it looked at.
    pub scope: Scope,
    /// When it began: it may have been under way before anyone asked for it.
    pub began: Now,
    /// How long it really lasted.
    pub lasted: Duration,
    /// Samples that the kernel could not hand over: their share of the evidence is missing.
    pub lost: u64,
    /// What was seen.
    pub data: CaptureData<'a>,
}

/// What was seen. All of it lies in the capture's arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CaptureData<'a> {
    /// Of `CaptureKind::Stacks`.
    Stacks(Profile<'a>),
    /// Of `CaptureKind::Tasks`, longest blocked first.
    Tasks(Rows<'a, Task<'a>>),
    /// Of `CaptureKind::Faults`.
    Faults(Faults<'a>),
    /// Of `CaptureKind::Memory`, most first.
    Memory(Rows<'a, Resident<'a>>),
    /// Of `CaptureKind::Waits`.
    Waits(Waits<'a>),
    /// Of `CaptureKind::Probe`: the containers that ran or waited.
    Probe(Rows<'a, (Key, Waited)>),
    /// Of `CaptureKind::Io`.
    Io(DiskIo<'a>),
    /// Of `CaptureKind::Names`.
    Names(StackNames<'a>),
}
