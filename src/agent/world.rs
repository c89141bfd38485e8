//! What tracers ask for, carried out: captures begun or refused, events put into the log, faults
//! counted. Every capture asked for is answered exactly once, by a later event.

use std::collections::VecDeque;
use std::time::Duration;

use crate::capture::{Captures, OPEN_ALL_MAX};
use crate::clock::{Now, Wall};
use crate::control::Caller;
use crate::evidence::{Capture, Kind, Refusal, Request, Scope, Ticket};
use crate::host::{Container, Containers, Filter};
use crate::log::{RecordId, Writer};
use crate::tracer::{About, CASES_MAX, Data, Emitted, Trigger, World, document};

use super::budget::Budget;
use super::host_name::HostName;
use super::slot::{Counts, LastEvent};

/// A capture that was asked for and is not yet answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) ticket: Ticket,
    /// Which tracer's, and which of its lives.
    pub(super) slot: usize,
    pub(super) epoch: u32,
    /// Who waits for it on the socket.
    pub(super) caller: Option<Caller>,
    kind: Kind,
    scope: Scope,
    /// When it is over; of one that was refused as busy, when the one in its way is.
    until: Duration,
}

/// Everything that outlives a turn and that tracers act on.
pub(super) struct Desk {
    pub(super) captures: Captures,
    pub(super) log: Writer,
    pub(super) hostname: HostName,
    pub(super) region: String,
    pub(super) budget: Budget,
    /// By slot.
    pub(super) counts: Vec<Counts>,
    /// The log could not take an event; said once until it can again.
    log_fails: bool,
    tickets: u32,
    open: Vec<Open>,
    refused: VecDeque<(Open, Refusal)>,
}

impl Desk {
    pub(super) fn new(
        captures: Captures,
        log: Writer,
        hostname: HostName,
        region: String,
        percent: u32,
        slots: usize,
    ) -> Desk {
        Desk {
            captures,
            log,
            hostname,
            region,
            budget: Budget::new(percent),
            counts: std::iter::repeat_with(Counts::new).take(slots).collect(),
            log_fails: false,
            tickets: 0,
            open: Vec::with_capacity(OPEN_ALL_MAX),
            // Each is of a case; one that ended may have been opened anew in the same turn.
            refused: VecDeque::with_capacity(slots * 2 * CASES_MAX),
        }
    }

    /// The next answer, and whose it is. One that nobody waits for any more is dropped.
    pub(super) fn answer(&mut self) -> Option<(Open, Result<Capture, Refusal>)> {
        if let Some((open, refusal)) = self.refused.pop_front() {
            return Some((open, Err(refusal)));
        }
        loop {
            let (ticket, answer) = self.captures.finished()?;
            if let Some(place) = self.open.iter().position(|open| open.ticket == ticket) {
                return Some((self.open.swap_remove(place), answer));
            }
        }
    }

    /// Whether answers wait that the poll does not know of.
    pub(super) fn pending(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Captures that are not answered yet.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// When the capture is over that is in the way of one like this: of the same things, or of the same
    /// kind where there are too many of that, or any.
    fn busy_until(&self, kind: Kind, scope: Scope) -> Option<Duration> {
        let first =
            |alike: &dyn Fn(&&Open) -> bool| self.open.iter().filter(alike).map(|open| open.until).min();
        first(&|open| open.kind == kind && open.scope == scope)
            .or_else(|| first(&|open| open.kind == kind))
            .or_else(|| first(&|_| true))
    }
}

/// One tracer's reach into the desk, while it takes one event in.
pub(super) struct Hands<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) containers: &'a Containers,
    /// Which of them the tracer watches.
    pub(super) filter: &'a Filter,
    pub(super) now: Now,
    pub(super) slot: usize,
    pub(super) epoch: u32,
    pub(super) tracer: &'static str,
    /// Whether the kernel tells it of its events.
    pub(super) event: bool,
    /// Who asked for what it does now; captures for a person are not held to the budget.
    pub(super) caller: Option<Caller>,
    /// The event that it made of what someone asked for.
    pub(super) kept: Option<RecordId>,
    /// Captures that it asked for.
    pub(super) asked: usize,
}

impl Hands<'_> {
    fn begin(&mut self, ticket: Ticket, request: Request) -> Result<(), Refusal> {
        if let Some(reason) = self.desk.captures.unsupported(request.kind) {
            return Err(Refusal::Unsupported(reason));
        }
        let lasting = if request.kind.is_a_look() { Duration::ZERO } else { request.lasting };
        if self.caller.is_none() && !self.desk.budget.take(self.now.mono, lasting) {
            return Err(Refusal::OverBudget);
        }
        self.desk.captures.begin(ticket, request, self.containers)?;
        if self.caller.is_some() {
            self.desk.budget.add(self.now.mono, lasting);
        }
        Ok(())
    }
}

impl World for Hands<'_> {
    fn capture(&mut self, request: Request) -> Ticket {
        self.desk.tickets = self.desk.tickets.wrapping_add(1);
        let ticket = Ticket(self.desk.tickets);
        self.asked += 1;
        let Request { kind, scope, lasting } = request;
        let until = self.now.mono.saturating_add(lasting);
        let open =
            Open { ticket, slot: self.slot, epoch: self.epoch, caller: self.caller, kind, scope, until };
        let begun = if self.desk.open.len() >= OPEN_ALL_MAX {
            Err(Refusal::Busy)
        } else {
            self.begin(ticket, request)
        };
        match begun {
            Ok(()) => self.desk.open.push(open),
            Err(refusal) => {
                let until = self.desk.busy_until(kind, scope).unwrap_or(until);
                self.desk.refused.push_back((Open { until, ..open }, refusal));
            }
        }
        ticket
    }

    fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted {
        let container = about.subject.and_then(|key| self.containers.get(key));
        // The kernel tells of any container, and a name may come after a capture was asked for. What
        // someone asks for is told.
        if about.trigger != Trigger::Manual && container.is_some_and(|it| !self.filter.takes(it)) {
            return Emitted::Unwatched;
        }
        let Desk { log, hostname, region, counts, log_fails, .. } = &mut *self.desk;
        let Some(counts) = counts.get_mut(self.slot) else { return Emitted::Failed };
        let mut too_large = false;
        let appended = log.append(|id, to| {
            let envelope = document::Envelope {
                hostname: hostname.name(),
                region,
                container,
                tracer_name: self.tracer,
                tracer_id: &id,
                about,
                now: self.now,
                event: self.event,
            };
            let written = document::write(&envelope, data, to);
            too_large = written.is_err();
            written.ok()
        });
        match appended {
            Ok(Some(id)) => {
                if std::mem::take(log_fails) {
                    eprintln!("onset: the log takes events again");
                }
                counts.events += 1;
                counts.last = Some(LastEvent {
                    id,
                    at: self.now.wall,
                    time: about.time,
                    container: container.map(Container::own_id),
                });
                // Whoever asked waits for that event, whatever else the tracer makes of its input.
                if about.trigger == Trigger::Manual {
                    self.kept = Some(id);
                }
                Emitted::Logged(id)
            }
            Ok(None) => {
                counts.fault(if too_large { "document_too_large" } else { "document_not_written" });
                Emitted::Failed
            }
            Err(error) => {
                counts.fault("log_refused");
                if !std::mem::replace(log_fails, true) {
                    eprintln!(
                        "onset: an event of {} could not be kept: {error}; it is asked for again while it lasts",
                        self.tracer
                    );
                }
                Emitted::Failed
            }
        }
    }

    fn fault(&mut self, fault: &'static str) {
        if let Some(counts) = self.desk.counts.get_mut(self.slot) {
            counts.fault(fault);
        }
    }
}

impl Open {
    /// Why it was refused, for a person, and until when.
    pub(super) fn refused(&self, refusal: Refusal, now: Now) -> String {
        match refusal {
            Refusal::Busy => {
                let left = self.until.saturating_sub(now.mono);
                format!("busy: such a capture runs already, until about {}; try again then", at(now, left))
            }
            Refusal::Unsupported(reason) | Refusal::Failed(reason) => reason.into(),
            Refusal::OverBudget => {
                "over budget: captures had their share of the last ten minutes ([capture] budget_percent); onset status says until when".into()
            }
            Refusal::Gone => "the container is gone; onset containers lists those that are there".into(),
        }
    }
}

/// A time that is so far ahead, by the calendar and from now.
pub(super) fn at(now: Now, ahead: Duration) -> String {
    let ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
    format!("{} ({:.1} s from now)", Wall(now.wall.0.saturating_add(ms)), ahead.as_secs_f64())
}
