//! The loop: one thread that owns every descriptor, feeds the tracers with events and carries out
//! what they ask for. A turn begins when the poll returns and never blocks; what blocks runs on
//! helper threads that wake the poll. After `ready` faults are counted and the loop goes on.

mod budget;
mod capture_ledger;
mod control_requests;
mod counts;
mod elsewhere;
mod hooks;
mod host_name;
mod look;
mod metrics;
mod names;
mod outcome;
mod outputs;
mod pages;
mod pressure;
mod process;
mod reload;
mod rings;
mod slot;
mod start;
mod status;
mod support;
mod test_harness;
mod tracer_context;
mod tracer_slots;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::capture::OwnedCapture;
use crate::capture_data::{Capture, Refusal, Ticket};
use crate::clock::Now;
use crate::config::Config;
use crate::container_names::NameResolver;
use crate::control::{self, ConnectionId, ControlRequest};
use crate::host::{Key, Reader, Scan, Snapshot, TaskLook};
use crate::http;
use crate::log::RecordId;
use crate::metric::Mishaps;
use crate::sys::{self, Signals};
use crate::tracer::{Event, Out, Registry};

pub use start::Error;
pub(crate) use start::cgroup_source;
pub use support::{Support, supports};
#[doc(hidden)]
pub use test_harness::TestHarness;

use metrics::{Turns, View};
use outputs::Outputs;
use process::Process;
use tracer_context::{SharedState, TracerContext};
use tracer_slots::{SLOTS_MAX, TracerSlots};

/// Ready descriptors taken from the kernel at once; the rest come with the next poll.
const EVENTS_MAX: usize = 256;

/// Containers are found by inotify; a look at the whole tree is for what it may have missed, and one at their
/// names for those that were renamed.
const RESCAN: Duration = Duration::from_secs(60);

/// What the log and the server may take at the end: whoever ends the agent waits two seconds for it.
const LEAVE: Duration = Duration::from_millis(1900);

/// Answers handled in one turn; the rest wait for the next, which follows at once.
const ANSWERS_MAX: usize = 64;

const WAKE: Token = Token(0);
const SIGNALS: Token = Token(1);
const CONTAINERS: Token = Token(2);
const HOST_NAME: Token = Token(3);
const TIMERS: usize = 100;
const PRESSURES: usize = TIMERS + SLOTS_MAX;
const HOOKS: usize = PRESSURES + SLOTS_MAX;
const HTTP: usize = HOOKS + SLOTS_MAX;
const CONTROL: usize = HTTP + 100;

/// The agent, from its start on.
pub struct Agent {
    poll: Poll,
    signals: Signals,
    reader: Reader,
    resolver: NameResolver,
    shared: SharedState,
    outputs: Outputs,
    slots: TracerSlots,
    http: http::Server,
    control: control::Server,
    config: Config,
    /// What the last reload has to say once the hooks are there that it takes.
    reloaded: Option<String>,
    config_file: Option<PathBuf>,
    /// The tracers that a config may have.
    registry: Registry<'static>,
    process: Process,
    started: Now,
    turns: Turns,
    rescan: Duration,
    mishaps: Mishaps,
    requests: Vec<(ConnectionId, ControlRequest)>,
    /// More answers wait than one turn takes.
    backlog: bool,
    /// The cgroups were not looked through to the end.
    scanning: bool,
    /// How far the look at all tasks has come, until it is handed out.
    task_look: Option<TaskLook>,
    /// When the look began whose containers are not read to the end.
    looking: Option<Now>,
    /// From this slot on it is not seen to yet whether containers have other names.
    renamed: Option<usize>,
    /// The slot from which the next such look begins: the last one found no room there.
    rename_from: usize,
    faults: AgentFaults,
}

/// The agent's own faults.
#[derive(Clone, Copy, Debug, Default)]
struct AgentFaults {
    polls: u64,
    reloads: u64,
    timers: u64,
}

/// What one tracer is to be given, before the host's facts are put into it.
enum Input<'a> {
    Tick,
    Record(&'a [u8]),
    Lost(u64),
    Asked(Option<Key>, Duration),
    Captured(Ticket, &'a Capture<'a>),
    Refused(Ticket, Refusal),
}

/// What a tracer asked for while it took one event in.
struct Effects {
    /// The event that it made of what someone asked for.
    kept: Option<RecordId>,
    /// Captures that it asked for.
    asked: usize,
}

impl Agent {
    /// Runs until a signal ends it; then the log is on the disk.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let patience = self.patience(sys::now().mono);
            if self.once(&mut events, patience).is_break() {
                return self.leave();
            }
        }
    }

    /// Waits for something to happen, and takes one turn. `Break`: the agent is to leave.
    fn once(&mut self, events: &mut Events, patience: Option<Duration>) -> ControlFlow<()> {
        if let Err(error) = self.poll.poll(events, patience)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Nothing that we do makes epoll_wait(2) fail; if it does, the timers go on.
            self.faults.polls += 1;
        }
        let now = sys::now();
        let tokens = events.iter().map(mio::event::Event::token);
        let flow = self.turn(now, tokens);
        self.turns.observe(sys::now().mono.saturating_sub(now.mono));
        flow
    }

    /// Ends in order: the log is on the disk, and what can be shipped is.
    fn leave(mut self) -> Result<(), Error> {
        eprintln!("onset: leaving");
        let until = sys::now().mono + LEAVE;
        let flushed = self.shared.log.flush().map_err(Error::Log);
        self.outputs.leave(until.saturating_sub(sys::now().mono));
        flushed
    }

    /// How long the poll may wait.
    fn patience(&self, now: Duration) -> Option<Duration> {
        let more = self.backlog
            || self.scanning
            || self.task_look == Some(TaskLook::Partial)
            || self.looking.is_some()
            || self.renamed.is_some()
            || self.shared.ledger.has_refused()
            || self.records_wait();
        if more || self.http.pending() || self.control.pending() {
            return Some(Duration::ZERO);
        }
        let deadlines = [self.http.deadline(), self.control.deadline(), Some(self.rescan)];
        deadlines.into_iter().flatten().min().map(|at| at.saturating_sub(now))
    }

    /// Takes one turn. `Break`: the agent is to leave.
    fn turn(&mut self, now: Now, tokens: impl Iterator<Item = Token>) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        for token in tokens {
            if self.ready(token, now).is_break() {
                flow = ControlFlow::Break(());
            }
        }
        if self.scanning {
            self.scanning = self.reader.changed(now) == Scan::Partial;
        }
        if now.mono >= self.rescan {
            self.rescan = now.mono.saturating_add(RESCAN);
            self.scanning |= self.reader.rescan(now) == Scan::Partial;
            self.renamed = Some(std::mem::take(&mut self.rename_from));
        }
        self.look_for_renamed();
        self.follow();
        self.name();
        self.take_hooks(now);
        self.read_for_records();
        if let Some(at) = self.look(now) {
            self.hand_out_records(at);
        }
        self.answers(now);
        self.remove_retired();
        self.http_view(|http, view| {
            http.resume(now.mono, view);
            http.expire(now.mono);
        });
        self.take_requests(now, |control, each| control.resume(now.mono, each));
        self.control.expire(now.mono);
        self.outputs.turn(&self.shared.log.counters());
        flow
    }

    fn ready(&mut self, token: Token, now: Now) -> ControlFlow<()> {
        match token.0 {
            _ if token == WAKE => {}
            _ if token == SIGNALS => return self.signalled(now),
            _ if token == CONTAINERS => self.scanning |= self.reader.changed(now) == Scan::Partial,
            _ if token == HOST_NAME => self.shared.hostname.follow(),
            CONTROL.. => self.take_requests(now, |control, each| control.ready(token, now.mono, each)),
            HTTP.. => self.http_view(|http, view| http.ready(token, now.mono, view)),
            HOOKS.. => {
                if let Some(slot) = self.slots.get_mut(token.0 - HOOKS)
                    && let Some(records) = &mut slot.records
                {
                    records.wake();
                }
            }
            PRESSURES.. => {
                if let Some(slot) = self.slots.get_mut(token.0 - PRESSURES) {
                    slot.due |= slot.pressure.as_mut().is_some_and(|trigger| trigger.due(now.mono));
                }
            }
            TIMERS.. => {
                if let Some(slot) = self.slots.get_mut(token.0 - TIMERS) {
                    slot.due |= slot.timer.fired() > 0;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn signalled(&mut self, now: Now) -> ControlFlow<()> {
        let mut reload = false;
        while let Some(signal) = self.signals.next() {
            match signal {
                libc::SIGHUP => reload = true,
                _ => return ControlFlow::Break(()),
            }
        }
        // Once in a turn, however many more come meanwhile: they are for the next.
        if reload {
            self.reload(now);
        }
        ControlFlow::Continue(())
    }

    /// Tells the kernel's side which containers came and went, and has those that came named.
    fn follow(&mut self) {
        let Agent { reader, resolver, shared, .. } = self;
        let captures = &mut shared.captures;
        reader.changes(|container| {
            if container.is_live() {
                captures.follow(container.cgroup_id(), container.key());
                resolver.resolve(container);
            } else {
                captures.unfollow(container.cgroup_id());
            }
        });
    }

    /// Hands one event to one tracer, and carries out what it asks for.
    fn feed(
        &mut self,
        index: usize,
        now: Now,
        caller: Option<ConnectionId>,
        input: &Input<'_>,
    ) -> Option<Effects> {
        let Agent { slots, shared, reader, .. } = self;
        let slot = slots.get_mut(index)?;
        let containers = reader.containers();
        let mut context = TracerContext {
            shared,
            containers,
            now,
            filter: slot.settings.filter(),
            slot: index,
            tracer: slot.spec.name,
            enabled: slot.settings.enabled() && !slot.retired,
            counts: &mut slot.counts,
            event: slot.spec.hook.is_some(),
            caller,
            kept: None,
            asked: 0,
        };
        let snapshot = Snapshot { filter: slot.settings.filter(), ..reader.snapshot() };
        let event = match *input {
            Input::Tick => Event::Tick(&snapshot),
            Input::Record(record) => Event::Record(record),
            Input::Lost(lost) => Event::Lost(lost),
            Input::Asked(key, lasting) => Event::Asked(key, lasting),
            Input::Captured(ticket, capture) => Event::Captured(ticket, capture, containers),
            Input::Refused(ticket, refusal) => Event::Refused(ticket, refusal),
        };
        slot.tracer.on(now, event, &mut Out::new(&mut context));
        Some(Effects { kept: context.kept, asked: context.asked })
    }

    /// Hands out the answers to captures that were asked for.
    fn answers(&mut self, now: Now) {
        for _ in 0..ANSWERS_MAX {
            let Some((open, answer)) = self.shared.answer() else {
                self.backlog = false;
                return;
            };
            if let Some(slot) = self.slots.get_mut(open.slot) {
                slot.counts.captured(answer.as_ref().err().copied());
            }
            self.shared
                .ledger
                .answered(&open, answer.as_ref().map(OwnedCapture::capture).map_err(|why| *why));
            let input = match &answer {
                Ok(capture) => Input::Captured(open.ticket, capture.capture()),
                Err(refusal) => Input::Refused(open.ticket, *refusal),
            };
            let kept = self.feed(open.slot, now, open.caller, &input).and_then(|effects| effects.kept);
            if open.caller.is_none() {
                continue; // words take memory, and nobody reads them
            }
            let result = match (kept, answer) {
                (Some(id), _) => Ok(id),
                (None, Err(refusal)) => Err(open.refused(refusal, now)),
                (None, Ok(_)) => {
                    Err("it was captured, but could not be kept in the log; see onset status".into())
                }
            };
            self.answer_caller(now, open.caller, result);
        }
        self.backlog = true;
    }

    /// Lets the endpoint answer, with all that it may show.
    fn http_view(&mut self, with: impl FnOnce(&mut http::Server, &mut View<'_>)) {
        let agent_faults = self.agent_faults();
        let Agent { http, slots, shared, outputs, reader, turns, process, mishaps, .. } = self;
        let containers = reader.containers();
        with(http, &mut View { slots, shared, outputs, containers, agent_faults, turns, process, mishaps });
    }
}

#[cfg(test)]
mod tests;
