//! A request that is to be answered. It gets its single answer even when the thread that it is with
//! breaks.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::capture_data::{Capture, CaptureData, Refusal, Request, Scope, Ticket};
use crate::clock::Now;

/// A ticket with its answer.
pub(super) type Answered = (Ticket, Result<Capture, Refusal>);

/// What is said when nobody is left to say more.
pub(super) const BROKEN: &str =
    "its thread could not be started, or ended early; the limit of threads may be reached";

/// Called when an answer waits.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// A request whose answer is owed.
pub(super) struct OpenRequest {
    request: Request,
    ticket: Ticket,
    to: SyncSender<Answered>,
    wake: Wake,
    answered: bool,
}

impl OpenRequest {
    pub(super) fn new(ticket: Ticket, request: Request, to: SyncSender<Answered>, wake: Wake) -> OpenRequest {
        OpenRequest { request, ticket, to, wake, answered: false }
    }

    /// What is asked for.
    pub(super) fn request(&self) -> Request {
        self.request
    }

    /// What is looked at.
    pub(super) fn scope(&self) -> Scope {
        self.request.scope
    }

    /// For how long.
    pub(super) fn lasting(&self) -> Duration {
        self.request.lasting
    }

    /// Answers with what was seen from `began` on.
    pub(super) fn finish(mut self, began: Now, lasted: Duration, lost: u64, seen: CaptureData) {
        self.send(Ok(Capture { scope: self.request.scope, began, lasted, lost, seen }));
    }

    /// Answers that there is no capture, and why.
    pub(super) fn refuse(mut self, why: Refusal) {
        self.send(Err(why));
    }

    fn send(&mut self, result: Result<Capture, Refusal>) {
        self.answered = true;
        // There is room for every request that may be open; who has gone wants no answer.
        if self.to.try_send((self.ticket, result)).is_ok() {
            (self.wake)();
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Err(Refusal::Failed(BROKEN)));
        }
    }
}
