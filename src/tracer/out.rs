//! What a tracer can ask for, and nothing else: a capture, an event kept, a fault counted.

use std::io;

use crate::capture_data::{RecordStack, Request, Ticket};
use crate::clock::Wall;
use crate::host::Key;
use crate::record_id::RecordId;

use super::trigger::Trigger;

/// Whoever carries out what tracers ask for: the loop, or a test.
pub trait World {
    /// Begins a capture, or has it refused: either way one later event answers the ticket.
    fn capture(&mut self, request: Request) -> Ticket;
    /// The same for a capture of `CaptureKind::Names`, of this stack.
    fn name(&mut self, request: Request, stack: &RecordStack) -> Ticket {
        let _ = stack;
        self.capture(request)
    }
    /// Keeps an event for good.
    fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted;
    /// Counts something that went wrong, under this name in `onset_faults_total`.
    fn fault(&mut self, fault: &'static str);
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emitted {
    /// It is in the log, under this id.
    Logged(RecordId),
    /// The tracer does not watch its container: there is nothing to keep.
    Unwatched,
    /// It could not be kept, which is counted already.
    Failed,
}

impl Emitted {
    /// Whether it need not be emitted again.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self != Emitted::Failed
    }
}

/// What an event is about: the envelope's part that the tracer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The container; `None` is the host.
    pub subject: Option<Key>,
    /// The rule that fired.
    pub trigger: Trigger,
    /// When it fired: `tracer_time`.
    pub time: Wall,
}

/// An event's `tracer_data`, as JSON of any length that is asked for.
pub trait Data {
    /// Writes one JSON object, with its lists cut as `shrink` says and `Truncated` telling how
    /// much was left out, and why.
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()>;
}

/// How much of its lists an event keeps so that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// Of `WHOLE`.
    part: u32,
    /// Bytes that the whole document may have.
    room: usize,
}

impl Shrink {
    /// All of its lists.
    pub const WHOLE: u32 = 1 << 16;

    /// `part` of its lists, for a document of at most `room` bytes.
    #[must_use]
    pub fn new(part: u32, room: usize) -> Shrink {
        Shrink { part: part.min(Shrink::WHOLE), room }
    }

    /// How many of `len` rows are kept.
    #[must_use]
    pub fn keep(self, len: usize) -> usize {
        let kept = len as u128 * u128::from(self.part) / u128::from(Shrink::WHOLE);
        usize::try_from(kept).unwrap_or(len).min(len)
    }

    /// How many of `len` rows are kept where each takes about `each` bytes: rows that do not fit are not written
    /// just to be counted.
    #[must_use]
    pub fn keep_of(self, len: usize, each: usize) -> usize {
        self.keep(len.min(self.room / each.max(1)))
    }

    /// Whether nothing is left out for want of room.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.part == Shrink::WHOLE
    }

    /// Bytes that the whole document may have.
    #[must_use]
    pub fn room(self) -> usize {
        self.room
    }
}

/// What a tracer holds while it takes an event in.
pub struct Out<'a>(&'a mut dyn World);

impl<'a> Out<'a> {
    /// To this world.
    pub fn new(world: &'a mut dyn World) -> Out<'a> {
        Out(world)
    }

    /// Asks for a capture; one later event answers the ticket.
    pub fn capture(&mut self, request: Request) -> Ticket {
        self.0.capture(request)
    }

    /// Asks for the names of a stack; one later event answers the ticket.
    pub fn name(&mut self, request: Request, stack: &RecordStack) -> Ticket {
        self.0.name(request, stack)
    }

    /// Keeps an event.
    pub fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted {
        self.0.emit(about, data)
    }

    /// Counts what went wrong.
    pub fn fault(&mut self, fault: &'static str) {
        self.0.fault(fault);
    }
}
