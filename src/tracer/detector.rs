//! What all tracers do alike: they take samples and records in, ask for captures and take the answers,
//! emit events, keep cooldowns. What is anomalous, and what an event says, is each tracer's `Detector`.

use std::time::Duration;

use crate::capture_data::{Capture, CaptureKind, RecordStack, Request, Scope, Ticket};
use crate::clock::Now;
use crate::host::{Containers, Key, Snapshot, Watched};
use crate::metric::Scrape;

use super::pending::{PendingCapture, PendingCaptures};
use super::trigger::{Rule, Trigger, TriggerState};
use super::{About, CaptureCause, Data, Event, Out, Settings, Tracer};

/// One tracer's own part.
pub trait Detector {
    /// What it knows of a subject when it asks for a capture.
    type Readings: Copy;
    /// The capture that it asks for.
    const CAPTURE: CaptureKind;

    /// The capture that this one asks for, where its settings choose.
    fn capture(&self) -> CaptureKind {
        Self::CAPTURE
    }
    /// Takes its own keys anew; what it remembers stays.
    fn reconfigure(&mut self, settings: &Settings);
    /// What its capture is to look at.
    fn scope(subject: Option<Key>, _: &Self::Readings) -> Scope {
        subject.map_or(Scope::Host, Scope::Container)
    }
    /// The stack that a capture of `CaptureKind::Names` is to name, out of a record.
    fn stack(_: &Self::Readings) -> Option<&RecordStack> {
        None
    }
    /// Judges one snapshot: every subject in it, each through `sampler`.
    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Self::Readings>);
    /// Reads one record of its hook, and says what has happened, if anything that makes an event. A
    /// detector without a hook is sent none.
    fn record(
        &mut self,
        _now: Now,
        _record: &[u8],
    ) -> Result<Option<Occurrence<Self::Readings>>, ForeignRecord> {
        Err(ForeignRecord)
    }
    /// Takes in that its hook's ring had no room for `count` records.
    fn lost(&mut self, _count: u64) {}
    /// What it knows now of a subject that someone else asks about.
    fn readings(&self, subject: Option<Key>) -> Self::Readings;
    /// Takes the answer to a look that it asked for itself, `None` being a refusal. False: it did
    /// not ask for this look.
    fn looked(
        &mut self,
        _now: Now,
        _ticket: Ticket,
        _answer: CaptureAnswer<'_>,
        _sampler: &mut Sampler<'_, '_, Self::Readings>,
    ) -> bool {
        false
    }
    /// The trigger state of a subject. `None`: it has no cooldown, as every occurrence is an event, or
    /// it is forgotten.
    fn trigger_state(&mut self, subject: Option<Key>, _: &Self::Readings) -> Option<&mut TriggerState>;
    /// Makes an event of what was captured. False: there was nothing in it, or it was not kept.
    fn build_event(&self, completed: &Completed<'_, Self::Readings>, sink: &mut EventSink<'_, '_>) -> bool;
    /// Makes an event of `pending` alone, whose capture could not begin or was refused. False: it is no
    /// event without one, as a level is none that can be looked at again.
    fn build_event_without_capture(
        &self,
        _pending: &PendingCapture<Self::Readings>,
        _sink: &mut EventSink<'_, '_>,
    ) -> bool {
        false
    }
    /// Shows its live state.
    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>);
}

/// What a record tells of: something that has happened, and that is an event unless its subject has a
/// cooldown or a capture under way.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence<T> {
    /// Whose; `None` is the host.
    pub subject: Option<Key>,
    /// Why it is an event.
    pub trigger: Trigger,
    /// What the record says, and what else is known now.
    pub readings: T,
}

/// Bytes that are no record of the hook: counted as a fault.
#[derive(Clone, Copy, Debug)]
pub struct ForeignRecord;

/// A finished capture with what was known when it was asked for.
pub struct Completed<'a, T> {
    /// What was known when it was asked for.
    pub pending: &'a PendingCapture<T>,
    /// What it brought.
    pub capture: &'a Capture<'a>,
    /// To name the containers in it.
    pub containers: &'a Containers,
}

/// Takes the event that a pending capture becomes.
pub struct EventSink<'a, 'o> {
    about: About,
    out: &'a mut Out<'o>,
}

impl EventSink<'_, '_> {
    /// Keeps it. False: it could not be kept.
    pub fn emit(&mut self, data: &dyn Data) -> bool {
        self.out.emit(&self.about, data).is_settled()
    }

    /// Counts a capture of a kind that was not asked for; no event.
    pub fn foreign(&mut self) -> bool {
        self.out.fault("foreign_capture");
        false
    }
}

/// Where a detector brings each sample.
pub struct Sampler<'a, 'o, T> {
    now: Now,
    rule: &'a Rule,
    kind: CaptureKind,
    scope: fn(Option<Key>, &T) -> Scope,
    stack: fn(&T) -> Option<&RecordStack>,
    lasting: Duration,
    pending: &'a mut PendingCaptures<T>,
    out: &'a mut Out<'o>,
}

impl<T> Sampler<'_, '_, T> {
    /// Takes one sample of a subject: the rule that sees an edge in it, and whether its level is
    /// high. Asks for a capture where `state` calls for one.
    pub fn sample(
        &mut self,
        state: &mut TriggerState,
        subject: Option<Key>,
        edge: Option<Trigger>,
        high: bool,
        readings: T,
    ) {
        if let Some(trigger) = state.sample(self.now, edge, high, self.rule)
            && !self.ask(subject, trigger, readings)
        {
            state.event_missed();
        }
    }

    /// Asks for a look that is to judge by, and no event; `Detector::looked` gets its answer.
    pub fn look(&mut self, request: Request) -> Ticket {
        let cause = CaptureCause { subject: None, trigger: None, at: self.now };
        self.out.capture(request, cause)
    }

    /// Counts a look of a kind that was not asked for.
    pub fn foreign(&mut self) {
        self.out.fault("foreign_capture");
    }

    fn ask(&mut self, subject: Option<Key>, trigger: Trigger, readings: T) -> bool {
        if !self.pending.room() {
            self.out.fault("cases_full");
            return false;
        }
        let scope = (self.scope)(subject, &readings);
        let request = Request { kind: self.kind, scope, lasting: self.lasting };
        let cause = CaptureCause { subject, trigger: Some(trigger), at: self.now };
        let ticket = match (self.stack)(&readings) {
            Some(stack) => self.out.name(request, stack, cause),
            None => self.out.capture(request, cause),
        };
        self.pending.open(ticket, PendingCapture { subject, trigger, fired: self.now, readings });
        true
    }
}

/// A tracer made of a detector.
pub struct DetectorTracer<D: Detector> {
    detector: D,
    pending: PendingCaptures<D::Readings>,
    rule: Rule,
    lasting: Duration,
}

impl<D: Detector> DetectorTracer<D> {
    /// With these rules.
    pub fn new(detector: D, settings: &Settings) -> DetectorTracer<D> {
        DetectorTracer {
            detector,
            pending: PendingCaptures::new(),
            rule: settings.rule(),
            lasting: settings.capture(),
        }
    }

    /// The detector, and what it asks through: captures of this length.
    fn split<'a, 'o>(
        &'a mut self,
        now: Now,
        lasting: Duration,
        out: &'a mut Out<'o>,
    ) -> (&'a mut D, Sampler<'a, 'o, D::Readings>) {
        let DetectorTracer { detector, pending, rule, .. } = self;
        let (kind, scope, stack) = (detector.capture(), D::scope, D::stack);
        (detector, Sampler { now, rule, kind, scope, stack, lasting, pending, out })
    }

    fn recorded(&mut self, now: Now, record: &[u8], out: &mut Out<'_>) {
        let Ok(occurrence) = self.detector.record(now, record) else { return out.fault("foreign_record") };
        let Some(Occurrence { subject, trigger, readings }) = occurrence else { return };
        if let Some(state) = self.detector.trigger_state(subject, &readings)
            && !state.occurred(now, trigger, &self.rule)
        {
            return;
        }
        let (_, mut sampler) = self.split(now, self.lasting, out);
        if !sampler.ask(subject, trigger, readings) {
            let pending = PendingCapture { subject, trigger, fired: now, readings };
            self.close(now, &pending, None, None, out);
        }
    }

    fn answered(&mut self, now: Now, ticket: Ticket, answer: CaptureAnswer<'_>, out: &mut Out<'_>) {
        let (detector, mut sampler) = self.split(now, self.lasting, out);
        if detector.looked(now, ticket, answer, &mut sampler) {
            return;
        }
        match self.pending.close(ticket) {
            Some(pending) => self.close(now, &pending, Some(ticket), answer, out),
            None => out.fault("unknown_ticket"),
        }
    }

    /// Makes an event of the capture that `answer` to `ticket` brought, or of what was known without it.
    fn close(
        &mut self,
        now: Now,
        pending: &PendingCapture<D::Readings>,
        ticket: Option<Ticket>,
        answer: CaptureAnswer<'_>,
        out: &mut Out<'_>,
    ) {
        let PendingCapture { subject, trigger, fired, ref readings } = *pending;
        let captures = ticket.into_iter().collect();
        let mut sink = EventSink { about: About { subject, trigger, time: fired.wall, captures }, out };
        let kept = match answer {
            Some((capture, containers)) => {
                self.detector.build_event(&Completed { pending, capture, containers }, &mut sink)
            }
            // Who asked for a capture gets none, and sees why.
            None if trigger == Trigger::Manual => false,
            None => self.detector.build_event_without_capture(pending, &mut sink),
        };
        // Someone asking changes nothing for the rules.
        if trigger != Trigger::Manual
            && let Some(state) = self.detector.trigger_state(subject, readings)
        {
            if kept { state.event_kept(now) } else { state.event_missed() }
        }
    }
}

/// What a capture brought; `None` if it was refused.
pub type CaptureAnswer<'a> = Option<(&'a Capture<'a>, &'a Containers)>;

impl<D: Detector> Tracer for DetectorTracer<D> {
    fn on(&mut self, now: Now, event: Event<'_>, out: &mut Out<'_>) {
        match event {
            Event::Tick(snapshot) => {
                let (detector, mut sampler) = self.split(now, self.lasting, out);
                detector.tick(now, snapshot, &mut sampler);
            }
            Event::Record(record) => self.recorded(now, record, out),
            Event::Lost(count) => self.detector.lost(count),
            Event::Asked(subject, lasting) => {
                let (detector, mut sampler) = self.split(now, lasting, out);
                sampler.ask(subject, Trigger::Manual, detector.readings(subject));
            }
            Event::Captured(ticket, capture, containers) => {
                self.answered(now, ticket, Some((capture, containers)), out);
            }
            Event::Refused(ticket, _) => self.answered(now, ticket, None, out),
        }
    }

    fn reconfigure(&mut self, settings: &Settings) {
        self.detector.reconfigure(settings);
        (self.rule, self.lasting) = (settings.rule(), settings.capture());
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        self.detector.scrape(containers, scrape);
    }
}
