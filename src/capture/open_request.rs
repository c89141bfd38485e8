//! A request that is to be answered. It gets its single answer even when the thread that it is with
//! breaks.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::arenas::{ArenaPool, OwnedCapture};
use crate::capture_data::{Arena, Capture, CaptureData, Refusal, Request, Scope, Ticket};
use crate::clock::Now;

/// A ticket with its answer.
pub(super) type Answered = (Ticket, Result<OwnedCapture, Refusal>);

/// What is said when nobody is left to say more.
pub(super) const BROKEN: &str =
    "its thread could not be started, or ended early; the limit of threads may be reached";

/// What is said when the loop reads no answers.
const UNREAD: &str = "earlier captures of its kind were not taken in: the loop is stuck";

/// How long an arena is waited for: a turn of the loop gives one back.
const ARENA_WAIT: Duration = Duration::from_secs(10);

/// Called when an answer waits.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// A request whose answer is owed.
pub(super) struct OpenRequest {
    request: Request,
    ticket: Ticket,
    to: SyncSender<Answered>,
    wake: Wake,
    /// Of its kind.
    arenas: Arc<ArenaPool>,
    answered: bool,
}

impl OpenRequest {
    pub(super) fn new(
        ticket: Ticket,
        request: Request,
        to: SyncSender<Answered>,
        wake: Wake,
        arenas: Arc<ArenaPool>,
    ) -> OpenRequest {
        OpenRequest { request, ticket, to, wake, arenas, answered: false }
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

    /// Answers with what was seen from `began` on, which `data` puts into an arena of the size of its kind.
    pub(super) fn finish(
        mut self,
        began: Now,
        lasted: Duration,
        lost: u64,
        data: impl for<'a> FnOnce(&'a Arena) -> CaptureData<'a>,
    ) {
        let scope = self.request.scope;
        match self.arenas.take(ARENA_WAIT) {
            Some(lease) => self.send(Ok(OwnedCapture::build(lease, |arena| Capture {
                scope,
                began,
                lasted,
                lost,
                data: data(arena),
            }))),
            None => self.send(Err(Refusal::Failed(UNREAD))),
        }
    }

    /// Answers that there is no capture, and why.
    pub(super) fn refuse(mut self, why: Refusal) {
        self.send(Err(why));
    }

    fn send(&mut self, result: Result<OwnedCapture, Refusal>) {
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
