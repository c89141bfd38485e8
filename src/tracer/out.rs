//! What a tracer can ask for, and nothing else: a capture, an event kept, a fault counted.

use std::io;

use crate::capture_data::{RecordStack, Request, Ticket};
use crate::clock::{Now, Wall};
use crate::host::Key;
use crate::record_id::RecordId;

use super::trigger::Trigger;

/// Carries out what tracers ask for: the loop does, and so does a test.
pub trait Executor {
    /// Begins a capture that `cause` calls for, or has it refused: either way one later event answers the
    /// ticket.
    fn capture(&mut self, request: Request, cause: CaptureCause) -> Ticket;
    /// The same for a capture of `CaptureKind::Names`, of this stack.
    fn name(&mut self, request: Request, stack: &RecordStack, cause: CaptureCause) -> Ticket {
        let _ = stack;
        self.capture(request, cause)
    }
    /// Keeps an event for good.
    fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted;
    /// Counts something that went wrong, under this name in `onset_faults_total`.
    fn fault(&mut self, fault: &'static str);
}

/// Why a tracer asks for a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureCause {
    /// Whose sample or record it was; `None` is the host.
    pub subject: Option<Key>,
    /// The rule that fired. `None`: the tracer looks closer before it judges.
    pub trigger: Option<Trigger>,
    /// When that was.
    pub at: Now,
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
    /// The captures that it was made of, or would have been if they had not been refused.
    pub captures: Tickets,
}

/// No event is made of more captures.
pub const TICKETS_MAX: usize = 4;

/// The captures that an event is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tickets([Option<Ticket>; TICKETS_MAX]);

impl Tickets {
    /// Each, in the order in which they were answered.
    pub fn iter(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.0.iter().flatten().copied()
    }
}

/// What is beyond the first `TICKETS_MAX` is left out.
impl FromIterator<Ticket> for Tickets {
    fn from_iter<I: IntoIterator<Item = Ticket>>(all: I) -> Tickets {
        let mut tickets = Tickets::default();
        tickets.0.iter_mut().zip(all).for_each(|(place, ticket)| *place = Some(ticket));
        tickets
    }
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
pub struct Out<'a>(&'a mut dyn Executor);

impl<'a> Out<'a> {
    /// What is asked for is carried out by `executor`.
    pub fn new(executor: &'a mut dyn Executor) -> Out<'a> {
        Out(executor)
    }

    /// Asks for a capture that `cause` calls for; one later event answers the ticket.
    pub fn capture(&mut self, request: Request, cause: CaptureCause) -> Ticket {
        self.0.capture(request, cause)
    }

    /// Asks for the names of a stack, for `cause`; one later event answers the ticket.
    pub fn name(&mut self, request: Request, stack: &RecordStack, cause: CaptureCause) -> Ticket {
        self.0.name(request, stack, cause)
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
