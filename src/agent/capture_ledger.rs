//! Which capture is whose: what asked for each that is open, how those ended that were answered lately, and so which
//! captures an event was made of. Its size is fixed when it is made, or when tracers come.

use std::collections::VecDeque;
use std::time::Duration;

use crate::capture::OPEN_ALL_MAX;
use crate::capture_data::{Capture, CaptureKind, Refusal, Scope, Ticket};
use crate::clock::Now;
use crate::control::ConnectionId;
use crate::tracer::{CaptureCause, PENDING_MAX, TICKETS_MAX, Tickets};

use super::outcome::outcome_name;

/// A capture that was asked for and is not yet answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenCapture {
    pub(super) ticket: Ticket,
    /// Which tracer's.
    pub(super) slot: usize,
    /// Who waits for it on the socket.
    pub(super) caller: Option<ConnectionId>,
    /// Why the tracer asked for it.
    pub(super) cause: CaptureCause,
    pub(super) kind: CaptureKind,
    pub(super) scope: Scope,
    /// When it is over; of one that was refused as busy, when the one in its way is.
    pub(super) until: Duration,
}

/// A capture that was answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AnsweredCapture {
    ticket: Ticket,
    pub(super) kind: CaptureKind,
    pub(super) scope: Scope,
    /// A label of `onset_captures_total`.
    pub(super) outcome: &'static str,
    /// When it began, and how long it lasted; `None`: it was refused.
    pub(super) window: Option<(Now, Duration)>,
}

/// The captures that one event was made of.
pub(super) type EventCaptures = [Option<AnsweredCapture>; TICKETS_MAX];

/// Answers that are remembered, for events that are made of several captures.
const ANSWERED_MAX: usize = OPEN_ALL_MAX;

/// All captures that are open, and those that were answered lately.
#[derive(Debug)]
pub(super) struct CaptureLedger {
    tickets: u32,
    open: Vec<OpenCapture>,
    refused: VecDeque<(OpenCapture, Refusal)>,
    answered: VecDeque<AnsweredCapture>,
}

impl CaptureLedger {
    /// With room for the captures of `slots` tracers.
    pub(super) fn new(slots: usize) -> CaptureLedger {
        let mut ledger = CaptureLedger {
            tickets: 0,
            open: Vec::with_capacity(OPEN_ALL_MAX),
            refused: VecDeque::new(),
            answered: VecDeque::with_capacity(ANSWERED_MAX),
        };
        ledger.make_room(slots);
        ledger
    }

    /// Sees to it that the captures of `slots` tracers find room. May take memory.
    pub(super) fn make_room(&mut self, slots: usize) {
        // Each is of a pending capture; one that ended may have been opened anew in the same turn.
        let room = slots * 2 * PENDING_MAX;
        self.refused.reserve(room.saturating_sub(self.refused.len()));
    }

    /// A ticket that no open capture has.
    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.tickets = self.tickets.wrapping_add(1);
        Ticket(self.tickets)
    }

    /// Whether as many are open as may be.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= OPEN_ALL_MAX
    }

    /// A capture began.
    pub(super) fn begin(&mut self, open: OpenCapture) {
        if !self.is_full() {
            self.open.push(open);
        }
    }

    /// A capture could not begin: that is its answer, in its turn.
    pub(super) fn refuse(&mut self, open: OpenCapture, refusal: Refusal) {
        self.refused.push_back((open, refusal));
    }

    /// The next that could not begin.
    pub(super) fn next_refused(&mut self) -> Option<(OpenCapture, Refusal)> {
        self.refused.pop_front()
    }

    /// Whether answers wait that the poll does not know of.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// The open capture that this ticket answers, which is open no more.
    pub(super) fn close(&mut self, ticket: Ticket) -> Option<OpenCapture> {
        let place = self.open.iter().position(|open| open.ticket == ticket)?;
        Some(self.open.swap_remove(place))
    }

    /// Those that are open.
    pub(super) fn open(&self) -> &[OpenCapture] {
        &self.open
    }

    /// Whether a capture of this tracer is not answered yet.
    pub(super) fn waits(&self, slot: usize) -> bool {
        let refused = self.refused.iter().map(|(open, _)| open);
        self.open.iter().chain(refused).any(|open| open.slot == slot)
    }

    /// When the capture ends that is in the way of a capture of `kind` in `scope`: one of the same scope, else of the same
    /// kind where too many of that kind run, else any.
    pub(super) fn busy_until(&self, kind: CaptureKind, scope: Scope) -> Option<Duration> {
        let first = |alike: &dyn Fn(&&OpenCapture) -> bool| {
            self.open.iter().filter(alike).map(|open| open.until).min()
        };
        first(&|open| open.kind == kind && open.scope == scope)
            .or_else(|| first(&|open| open.kind == kind))
            .or_else(|| first(&|_| true))
    }

    /// Notes how a capture was answered, before its tracer makes an event of it.
    pub(super) fn answered(&mut self, open: &OpenCapture, answer: Result<&Capture<'_>, Refusal>) {
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(AnsweredCapture {
            ticket: open.ticket,
            kind: open.kind,
            scope: open.scope,
            outcome: outcome_name(answer.err()),
            window: answer.ok().map(|capture| (capture.began, capture.lasted)),
        });
    }

    /// The captures that an event was made of; one that was answered too long ago is left out.
    pub(super) fn made_of(&self, tickets: &Tickets) -> EventCaptures {
        let mut found = EventCaptures::default();
        let each = tickets.iter().filter_map(|ticket| {
            // Tickets begin anew after 2^32: the newest is meant.
            self.answered.iter().rev().find(|answered| answered.ticket == ticket)
        });
        found.iter_mut().zip(each).for_each(|(place, answered)| *place = Some(*answered));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture_data::{CaptureData, Rows};
    use crate::clock::Wall;
    use crate::host::Key;
    use crate::tracer::Trigger;

    const NOW: Now = Now { mono: Duration::from_secs(50), wall: Wall(50_000) };

    fn asked(ledger: &mut CaptureLedger, slot: usize, kind: CaptureKind, scope: Scope) -> OpenCapture {
        let cause = CaptureCause { subject: None, trigger: Some(Trigger::Surge), at: NOW };
        let until = NOW.mono + Duration::from_secs(slot as u64);
        OpenCapture { ticket: ledger.next_ticket(), slot, caller: None, cause, kind, scope, until }
    }

    fn capture(scope: Scope) -> Capture<'static> {
        let began = NOW.minus(Duration::from_secs(20));
        let lasted = Duration::from_secs(30);
        Capture { scope, began, lasted, lost: 0, data: CaptureData::Tasks(Rows::default()) }
    }

    #[test]
    fn an_event_is_linked_to_the_captures_it_was_made_of_though_one_was_refused() {
        let mut ledger = CaptureLedger::new(2);
        let [one, other, foreign] = [CaptureKind::Tasks, CaptureKind::Stacks, CaptureKind::Io]
            .map(|kind| asked(&mut ledger, 1, kind, Scope::Host));
        ledger.answered(&one, Ok(&capture(Scope::Host)));
        ledger.answered(&foreign, Ok(&capture(Scope::Host)));
        ledger.answered(&other, Err(Refusal::OverBudget));
        let made_of = ledger.made_of(&[one.ticket, other.ticket].into_iter().collect());
        let found: Vec<_> = made_of.iter().flatten().map(|it| (it.kind, it.outcome, it.window)).collect();
        let window = Some((NOW.minus(Duration::from_secs(20)), Duration::from_secs(30)));
        let want = [(CaptureKind::Tasks, "done", window), (CaptureKind::Stacks, "over_budget", None)];
        assert_eq!(found, want);
        assert_eq!(ledger.made_of(&Tickets::default()), EventCaptures::default());
    }

    #[test]
    fn answers_are_remembered_within_a_fixed_size_and_the_oldest_is_forgotten_first() {
        let mut ledger = CaptureLedger::new(1);
        let all: Vec<_> =
            (0..=ANSWERED_MAX).map(|_| asked(&mut ledger, 0, CaptureKind::Tasks, Scope::Host)).collect();
        let room = ledger.answered.capacity();
        all.iter().for_each(|open| ledger.answered(open, Err(Refusal::Busy)));
        let known = |open: &OpenCapture| {
            ledger.made_of(&std::iter::once(open.ticket).collect()).iter().flatten().count()
        };
        assert_eq!(all.iter().map(known).sum::<usize>(), ANSWERED_MAX);
        assert_eq!((known(&all[0]), ledger.answered.capacity()), (0, room));
    }

    #[test]
    fn a_tracer_waits_until_each_of_its_captures_is_answered_begun_or_not() {
        let mut ledger = CaptureLedger::new(2);
        let container = Scope::Container(Key { slot: 1, generation: 1 });
        let [begun, refused] =
            [Scope::Host, container].map(|scope| asked(&mut ledger, 1, CaptureKind::Stacks, scope));
        ledger.begin(begun);
        ledger.refuse(refused, Refusal::Busy);
        assert!(ledger.waits(1) && !ledger.waits(0) && ledger.has_refused());
        assert_eq!(ledger.busy_until(CaptureKind::Stacks, container), Some(begun.until), "of the same kind");
        assert!(ledger.close(Ticket(77)).is_none(), "nobody waits for it");
        assert_eq!(ledger.close(begun.ticket).map(|open| open.slot), Some(1));
        assert!(ledger.waits(1), "the refusal is not handed out yet");
        assert_eq!(ledger.next_refused().map(|(open, _)| open.ticket), Some(refused.ticket));
        assert!(!ledger.waits(1) && ledger.open().is_empty());
    }
}
