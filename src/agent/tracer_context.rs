//! A tracer's context carries out what the tracer asks for: captures begin or are refused, events go into the log, faults
//! are counted. Every capture asked for is answered exactly once, by a later event.

use std::collections::VecDeque;
use std::time::Duration;

use crate::capture::{Captures, OPEN_ALL_MAX, OwnedCapture};
use crate::capture_data::{CaptureKind, Refusal, Request, Scope, Ticket};
use crate::clock::{Now, Wall};
use crate::control::Caller;
use crate::host::{Container, Containers, Filter};
use crate::log::{RecordId, Writer};
use crate::tracer::{About, Data, Emitted, PENDING_MAX, Trigger, World, document};

use super::budget::Budget;
use super::host_name::HostName;
use super::slot::{Counts, LastEvent};

/// A capture that was asked for and is not yet answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenCapture {
    pub(super) ticket: Ticket,
    /// Which tracer's.
    pub(super) slot: usize,
    /// Who waits for it on the socket.
    pub(super) caller: Option<Caller>,
    kind: CaptureKind,
    scope: Scope,
    /// When it is over; of one that was refused as busy, when the one in its way is.
    until: Duration,
}

/// Everything that outlives a turn and that all tracers act on.
pub(super) struct SharedState {
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
    open: Vec<OpenCapture>,
    refused: VecDeque<(OpenCapture, Refusal)>,
}

impl SharedState {
    pub(super) fn new(
        captures: Captures,
        log: Writer,
        hostname: HostName,
        region: String,
        percent: u32,
        slots: usize,
    ) -> SharedState {
        SharedState {
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
            refused: VecDeque::with_capacity(slots * 2 * PENDING_MAX),
        }
    }

    /// The next answer, and the capture that it answers. An answer that nobody waits for any more is dropped.
    pub(super) fn answer(&mut self) -> Option<(OpenCapture, Result<OwnedCapture, Refusal>)> {
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

    /// When the capture ends that is in the way of a capture of `kind` in `scope`: one of the same scope, else of the same
    /// kind where too many of that kind run, else any.
    fn busy_until(&self, kind: CaptureKind, scope: Scope) -> Option<Duration> {
        let first = |alike: &dyn Fn(&&OpenCapture) -> bool| {
            self.open.iter().filter(alike).map(|open| open.until).min()
        };
        first(&|open| open.kind == kind && open.scope == scope)
            .or_else(|| first(&|open| open.kind == kind))
            .or_else(|| first(&|_| true))
    }
}

/// One tracer's reach into the shared, while it takes one event in.
pub(super) struct TracerContext<'a> {
    pub(super) shared: &'a mut SharedState,
    pub(super) containers: &'a Containers,
    /// Which of them the tracer watches.
    pub(super) filter: &'a Filter,
    pub(super) now: Now,
    pub(super) slot: usize,
    pub(super) tracer: &'static str,
    /// Whether the config has it run. One that is off tells what its captures bring, and asks for no more.
    pub(super) enabled: bool,
    /// Whether the kernel tells it of its events.
    pub(super) event: bool,
    /// Who asked for what it does now; captures for a person are not held to the budget.
    pub(super) caller: Option<Caller>,
    /// The event that it made of what someone asked for.
    pub(super) kept: Option<RecordId>,
    /// Captures that it asked for.
    pub(super) asked: usize,
}

impl TracerContext<'_> {
    fn begin(&mut self, ticket: Ticket, request: Request) -> Result<(), Refusal> {
        if !self.enabled {
            return Err(Refusal::Unsupported("the tracer is disabled in the config"));
        }
        self.shared.captures.support(request.kind).map_err(Refusal::Unsupported)?;
        let lasting = if request.kind.is_instant() { Duration::ZERO } else { request.lasting };
        if self.caller.is_none() && !self.shared.budget.take(self.now.mono, lasting) {
            return Err(Refusal::OverBudget);
        }
        self.shared.captures.begin(ticket, request, self.containers)?;
        if self.caller.is_some() {
            self.shared.budget.add(self.now.mono, lasting);
        }
        Ok(())
    }
}

impl World for TracerContext<'_> {
    fn capture(&mut self, request: Request) -> Ticket {
        self.shared.tickets = self.shared.tickets.wrapping_add(1);
        let ticket = Ticket(self.shared.tickets);
        self.asked += 1;
        let Request { kind, scope, lasting } = request;
        let until = self.now.mono.saturating_add(lasting);
        let open = OpenCapture { ticket, slot: self.slot, caller: self.caller, kind, scope, until };
        let begun = if self.shared.open.len() >= OPEN_ALL_MAX {
            Err(Refusal::Busy)
        } else {
            self.begin(ticket, request)
        };
        match begun {
            Ok(()) => self.shared.open.push(open),
            Err(refusal) => {
                let until = self.shared.busy_until(kind, scope).unwrap_or(until);
                self.shared.refused.push_back((OpenCapture { until, ..open }, refusal));
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
        let SharedState { log, hostname, region, counts, log_fails, .. } = &mut *self.shared;
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
        if let Some(counts) = self.shared.counts.get_mut(self.slot) {
            counts.fault(fault);
        }
    }
}

impl OpenCapture {
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

/// The time that lies `ahead` of `now`, by the calendar and from now.
pub(super) fn at(now: Now, ahead: Duration) -> String {
    let ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
    format!("{} ({:.1} s from now)", Wall(now.wall.0.saturating_add(ms)), ahead.as_secs_f64())
}
