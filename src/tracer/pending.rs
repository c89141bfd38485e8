//! The captures that a tracer waits for: which ticket is whose, and what it knew when it asked.

use crate::capture_data::Ticket;
use crate::clock::Now;
use crate::host::Key;

use super::trigger::Trigger;

/// Captures that a tracer waits for at once; it asks for no more.
pub const PENDING_MAX: usize = 64;

/// One capture asked for, with what was known then.
#[derive(Clone, Debug)]
pub struct PendingCapture<T> {
    /// Whose it is; `None` is the host.
    pub subject: Option<Key>,
    /// The rule that fired.
    pub trigger: Trigger,
    /// When it fired.
    pub fired: Now,
    /// The readings that led to it.
    pub readings: T,
}

/// All of a tracer's pending captures.
#[derive(Debug)]
pub struct PendingCaptures<T>(Vec<(Ticket, PendingCapture<T>)>);

impl<T> PendingCaptures<T> {
    /// None yet.
    pub fn new() -> PendingCaptures<T> {
        PendingCaptures(Vec::with_capacity(PENDING_MAX))
    }

    /// Whether another can be opened; to be asked before a capture is.
    pub fn room(&self) -> bool {
        self.0.len() < PENDING_MAX
    }

    /// Keeps `pending` until `ticket` is answered; without room, nothing is kept.
    pub fn open(&mut self, ticket: Ticket, pending: PendingCapture<T>) {
        if self.room() {
            self.0.push((ticket, pending));
        }
    }

    /// Closes the one that this ticket answers. `None` for a ticket that is not ours.
    pub fn close(&mut self, ticket: Ticket) -> Option<PendingCapture<T>> {
        let at = self.0.iter().position(|(own, _)| *own == ticket)?;
        Some(self.0.swap_remove(at).1)
    }
}
