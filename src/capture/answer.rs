//! The single answer to a request. It is given even when the thread that owes it breaks.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::evidence::{Capture, Refusal, Ticket};

/// A ticket with its answer.
pub(super) type Answered = (Ticket, Result<Capture, Refusal>);

/// What is said when nobody is left to say more.
const BROKEN: &str = "its thread could not be started, or ended early; the limit of threads may be reached";

/// Called when an answer waits.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// What owes an answer.
pub(super) struct Answer {
    ticket: Ticket,
    to: SyncSender<Answered>,
    wake: Wake,
    given: bool,
}

impl Answer {
    pub(super) fn new(ticket: Ticket, to: SyncSender<Answered>, wake: Wake) -> Answer {
        Answer { ticket, to, wake, given: false }
    }

    /// Gives it.
    pub(super) fn give(mut self, result: Result<Capture, Refusal>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<Capture, Refusal>) {
        self.given = true;
        // There is room for every request that may be open; who has gone wants no answer.
        if self.to.try_send((self.ticket, result)).is_ok() {
            (self.wake)();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            self.send(Err(Refusal::Failed(BROKEN)));
        }
    }
}
