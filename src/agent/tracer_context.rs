//! A tracer's context carries out what the tracer asks for: captures begin or are refused, events go into the log, faults
//! are counted. Every capture asked for is answered exactly once, by a later event.

use std::time::Duration;

use crate::capture::{Captures, OwnedCapture};
use crate::capture_data::{RecordStack, Refusal, Request, Ticket};
use crate::clock::{Now, Wall};
use crate::control::ConnectionId;
use crate::host::{Container, Containers, Filter};
use crate::log::{self, RecordId, Writer};
use crate::tracer::{About, CaptureCause, Data, Emitted, Executor, Trigger, document};

use super::budget::Budget;
use super::capture_ledger::{CaptureLedger, OpenCapture};
use super::counts::{Counts, LastEvent};
use super::host_name::HostName;

/// Everything that outlives a turn and that all tracers act on.
pub(super) struct SharedState {
    pub(super) captures: Captures,
    pub(super) log: Writer,
    pub(super) hostname: HostName,
    pub(super) region: String,
    pub(super) budget: Budget,
    pub(super) ledger: CaptureLedger,
    /// The log could not take an event; said once until it can again.
    log_fails: bool,
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
            ledger: CaptureLedger::new(slots),
            log_fails: false,
        }
    }

    /// The next answer, and the capture that it answers. An answer that nobody waits for any more is dropped.
    pub(super) fn answer(&mut self) -> Option<(OpenCapture, Result<OwnedCapture, Refusal>)> {
        if let Some((open, refusal)) = self.ledger.next_refused() {
            return Some((open, Err(refusal)));
        }
        loop {
            let (ticket, answer) = self.captures.finished()?;
            if let Some(open) = self.ledger.close(ticket) {
                return Some((open, answer));
            }
        }
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
    /// What it did since start.
    pub(super) counts: &'a mut Counts,
    /// Whether the config has it run. One that is off tells what its captures bring, and asks for no more.
    pub(super) enabled: bool,
    /// Whether the kernel tells it of its events.
    pub(super) event: bool,
    /// Who asked for what it does now; captures for a person are not held to the budget.
    pub(super) caller: Option<ConnectionId>,
    /// The event that it made of what someone asked for.
    pub(super) kept: Option<RecordId>,
    /// Captures that it asked for.
    pub(super) asked: usize,
}

impl TracerContext<'_> {
    fn begin(
        &mut self,
        ticket: Ticket,
        request: Request,
        stack: Option<&RecordStack>,
    ) -> Result<(), Refusal> {
        if !self.enabled {
            return Err(Refusal::Unsupported("the tracer is disabled in the config"));
        }
        self.shared.captures.support(request.kind).map_err(Refusal::Unsupported)?;
        let lasting = if request.kind.is_instant() { Duration::ZERO } else { request.lasting };
        if self.caller.is_none() && !self.shared.budget.take(self.now.mono, lasting) {
            return Err(Refusal::OverBudget);
        }
        match stack {
            Some(stack) => self.shared.captures.name(ticket, request, stack)?,
            None => self.shared.captures.begin(ticket, request, self.containers)?,
        }
        if self.caller.is_some() {
            self.shared.budget.add(self.now.mono, lasting);
        }
        Ok(())
    }

    /// Writes an event straight into the log. `None`: it is not there, for it was too large, or cannot be written.
    fn append(
        &mut self,
        about: &About,
        container: Option<Container<'_>>,
        data: &dyn Data,
        too_large: &mut bool,
    ) -> Result<Option<RecordId>, log::Error> {
        let SharedState { log, hostname, region, .. } = &mut *self.shared;
        log.append(|id, to| {
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
            *too_large = written.is_err();
            written.ok()
        })
    }

    /// Counts an event that is in the log, and links it to the captures that it was made of.
    fn logged(&mut self, id: RecordId, about: &About, container: Option<Container<'_>>) {
        if std::mem::take(&mut self.shared.log_fails) {
            eprintln!("onset: the log takes events again");
        }
        self.counts.events += 1;
        self.counts.last = Some(LastEvent {
            id,
            at: self.now.wall,
            time: about.time,
            container: container.map(Container::own_id),
            trigger: about.trigger,
            captures: self.shared.ledger.made_of(&about.captures),
        });
        // Whoever asked waits for that event, whatever else the tracer makes of its input.
        if about.trigger == Trigger::Manual {
            self.kept = Some(id);
        }
    }

    fn ask(&mut self, request: Request, cause: CaptureCause, stack: Option<&RecordStack>) -> Ticket {
        let ticket = self.shared.ledger.next_ticket();
        self.asked += 1;
        let Request { kind, scope, lasting } = request;
        let until = self.now.mono.saturating_add(lasting);
        let open = OpenCapture { ticket, slot: self.slot, caller: self.caller, cause, kind, scope, until };
        let begun = if self.shared.ledger.is_full() {
            Err(Refusal::Busy)
        } else {
            self.begin(ticket, request, stack)
        };
        let ledger = &mut self.shared.ledger;
        match begun {
            Ok(()) => ledger.begin(open),
            Err(refusal) => {
                let until = ledger.busy_until(kind, scope).unwrap_or(until);
                ledger.refuse(OpenCapture { until, ..open }, refusal);
            }
        }
        ticket
    }
}

impl Executor for TracerContext<'_> {
    fn capture(&mut self, request: Request, cause: CaptureCause) -> Ticket {
        self.ask(request, cause, None)
    }

    fn name(&mut self, request: Request, stack: &RecordStack, cause: CaptureCause) -> Ticket {
        self.ask(request, cause, Some(stack))
    }

    fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted {
        let container = about.subject.and_then(|key| self.containers.get(key));
        // The kernel tells of any container, and a name may come after a capture was asked for. What
        // someone asks for is told.
        if about.trigger != Trigger::Manual && container.is_some_and(|it| !self.filter.takes(it)) {
            return Emitted::Unwatched;
        }
        let mut too_large = false;
        let appended = self.append(about, container, data, &mut too_large);
        match appended {
            Ok(Some(id)) => {
                self.logged(id, about, container);
                Emitted::Logged(id)
            }
            Ok(None) => {
                self.counts.fault(if too_large { "document_too_large" } else { "document_not_written" });
                Emitted::Failed
            }
            Err(error) => {
                self.counts.fault("log_refused");
                if !std::mem::replace(&mut self.shared.log_fails, true) {
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
        self.counts.fault(fault);
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
