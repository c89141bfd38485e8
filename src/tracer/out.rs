//! What a tracer can ask for, and nothing else: a capture, an event kept, a fault counted.

use std::io;

use crate::clock::Wall;
use crate::evidence::{Request, Ticket};
use crate::host::Key;

use super::watch::Trigger;

/// Whoever carries out what tracers ask for: the loop, or a test.
pub trait World {
    /// Begins a capture, or has it refused: either way one later event answers the ticket.
    fn capture(&mut self, request: Request) -> Ticket;
    /// Keeps an event for good. False: it could not be kept, which is counted there.
    fn emit(&mut self, about: &About, data: &dyn Data) -> bool;
    /// Counts something that went wrong, under this name in `onset_faults_total`.
    fn fault(&mut self, fault: &'static str);
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
    /// Writes one JSON object, with its lists cut as `shrink` says and `truncated` telling how
    /// much was left out.
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()>;
}

/// How much of its lists an event keeps so that it fits: each step halves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shrink(pub u32);

impl Shrink {
    /// How many of so many are kept.
    #[must_use]
    pub fn keep(self, len: usize) -> usize {
        len.checked_shr(self.0).unwrap_or(0)
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

    /// Keeps an event. False: it could not be kept.
    pub fn emit(&mut self, about: &About, data: &dyn Data) -> bool {
        self.0.emit(about, data)
    }

    /// Counts what went wrong.
    pub fn fault(&mut self, fault: &'static str) {
        self.0.fault(fault);
    }
}
