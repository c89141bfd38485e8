//! The daily work that tracers share: samples are judged, captures asked for and answered, events
//! told, quiet kept. What is anomalous, and what an event says, is each tracer's own: its `Detector`.

use std::time::Duration;

use crate::clock::Now;
use crate::evidence::{Capture, Kind, Request, Scope, Ticket};
use crate::host::{Containers, Key, Snapshot, Watched};
use crate::metric::Scrape;

use super::pending::{PendingCapture, PendingCaptures};
use super::trigger::{Rule, Trigger, TriggerState};
use super::{About, Data, Event, Out, Settings, Tracer};

/// One tracer's own part.
pub trait Detector {
    /// What it knows of a subject when it asks for a capture.
    type Readings: Copy;
    /// The capture that it asks for.
    const CAPTURE: Kind;

    /// What its capture is to look at.
    fn scope(subject: Option<Key>, _: &Self::Readings) -> Scope {
        subject.map_or(Scope::Host, Scope::Container)
    }
    /// Judges one snapshot: every subject in it, each through `sampler`.
    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Self::Readings>);
    /// What it knows now of a subject that someone else asks about.
    fn readings(&self, subject: Option<Key>) -> Self::Readings;
    /// Takes the answer to a look that it asked for itself, `None` being a refusal. False: it did
    /// not ask for this look.
    fn looked(
        &mut self,
        _now: Now,
        _ticket: Ticket,
        _answer: Answer<'_>,
        _sampler: &mut Sampler<'_, '_, Self::Readings>,
    ) -> bool {
        false
    }
    /// The trigger state of the subject that `pending` is of. `None` if that subject is forgotten.
    fn trigger_state(&mut self, pending: &PendingCapture<Self::Readings>) -> Option<&mut TriggerState>;
    /// Makes an event of what was captured. False: there was nothing in it, or it was not kept.
    fn build_event(&self, completed: &Completed<'_, Self::Readings>, sink: &mut EventSink<'_, '_>) -> bool;
    /// Shows its live state.
    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>);
}

/// A finished capture with what was known when it was asked for.
pub struct Completed<'a, T> {
    /// What was known when it was asked for.
    pub pending: &'a PendingCapture<T>,
    /// What it brought.
    pub capture: &'a Capture,
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
        self.out.emit(&self.about, data)
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
    kind: Kind,
    scope: fn(Option<Key>, &T) -> Scope,
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

    /// Asks for a look that is to detector by, and no event; `Detector::looked` gets its answer.
    pub fn look(&mut self, request: Request) -> Ticket {
        self.out.capture(request)
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
        let ticket = self.out.capture(Request { kind: self.kind, scope, lasting: self.lasting });
        self.pending.open(PendingCapture { ticket, subject, trigger, began: self.now, readings });
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

    fn captured(&mut self, now: Now, ticket: Ticket, answer: Answer<'_>, out: &mut Out<'_>) {
        let DetectorTracer { detector, pending, rule, lasting } = self;
        let mut sampler =
            Sampler { now, rule, kind: D::CAPTURE, scope: D::scope, lasting: *lasting, pending, out };
        if detector.looked(now, ticket, answer, &mut sampler) {
            return;
        }
        let Some(pending) = self.pending.close(ticket) else { return out.fault("unknown_ticket") };
        let kept = answer.is_some_and(|(capture, containers)| {
            let completed = Completed { pending: &pending, capture, containers };
            let about =
                About { subject: pending.subject, trigger: pending.trigger, time: pending.began.wall };
            self.detector.build_event(&completed, &mut EventSink { about, out })
        });
        // Someone asking changes nothing for the rules.
        if pending.trigger != Trigger::Manual
            && let Some(state) = self.detector.trigger_state(&pending)
        {
            if kept { state.event_kept(now, &self.rule) } else { state.event_missed() }
        }
    }
}

/// What a capture brought; `None` if it was refused.
pub type Answer<'a> = Option<(&'a Capture, &'a Containers)>;

impl<D: Detector> Tracer for DetectorTracer<D> {
    fn on(&mut self, now: Now, event: Event<'_>, out: &mut Out<'_>) {
        let DetectorTracer { detector, pending, rule, lasting } = self;
        match event {
            Event::Tick(snapshot) => {
                let mut sampler =
                    Sampler { now, rule, kind: D::CAPTURE, scope: D::scope, lasting: *lasting, pending, out };
                detector.tick(now, snapshot, &mut sampler);
            }
            Event::Asked(subject, lasting) => {
                let mut sampler =
                    Sampler { now, rule, kind: D::CAPTURE, scope: D::scope, lasting, pending, out };
                sampler.ask(subject, Trigger::Manual, detector.readings(subject));
            }
            Event::Captured(ticket, capture, containers) => {
                self.captured(now, ticket, Some((capture, containers)), out);
            }
            Event::Refused(ticket, _) => self.captured(now, ticket, None, out),
            // None of these tracers has a ring of its own.
            Event::Record(_) => out.fault("foreign_record"),
            Event::Lost(_) => {}
        }
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        self.detector.scrape(containers, scrape);
    }
}
