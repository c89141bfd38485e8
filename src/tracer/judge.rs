//! The daily work that tracers share: samples are judged, captures asked for and answered, events
//! told, quiet kept. What is anomalous, and what an event says, is each tracer's own: its `Judge`.

use std::time::Duration;

use crate::clock::Now;
use crate::evidence::{Capture, Kind, Request, Scope, Ticket};
use crate::host::{Containers, Key, Snapshot, Watched};
use crate::metric::Scrape;

use super::cases::{Case, Cases};
use super::watch::{Rule, Trigger, Watch};
use super::{About, Data, Event, Out, Settings, Tracer};

/// One tracer's own part.
pub trait Judge {
    /// What it knows of a subject when it asks for a capture.
    type Readings: Copy;
    /// The capture that it asks for.
    const CAPTURE: Kind;

    /// What its capture is to look at.
    fn scope(subject: Option<Key>, _: &Self::Readings) -> Scope {
        subject.map_or(Scope::Host, Scope::Container)
    }
    /// Judges one snapshot: every subject in it, each through `desk`.
    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, desk: &mut Desk<'_, '_, Self::Readings>);
    /// What it knows now of a subject that someone else asks about.
    fn readings(&self, subject: Option<Key>) -> Self::Readings;
    /// Takes the answer to a look that it asked for itself, `None` being a refusal. False: it did
    /// not ask for this look.
    fn looked(
        &mut self,
        _now: Now,
        _ticket: Ticket,
        _answer: Answer<'_>,
        _desk: &mut Desk<'_, '_, Self::Readings>,
    ) -> bool {
        false
    }
    /// The watch that a case came from. `None` if its subject is forgotten.
    fn watch(&mut self, case: &Case<Self::Readings>) -> Option<&mut Watch>;
    /// Makes an event of what was captured. False: there was nothing in it, or it was not kept.
    fn tell(&self, found: &Found<'_, Self::Readings>, keep: &mut Keep<'_, '_>) -> bool;
    /// Shows its live state.
    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>);
}

/// A finished capture with the case that it belongs to.
pub struct Found<'a, T> {
    /// What was known when it was asked for.
    pub case: &'a Case<T>,
    /// What it brought.
    pub capture: &'a Capture,
    /// To name the containers in it.
    pub containers: &'a Containers,
}

/// Keeps the event that an answered case becomes.
pub struct Keep<'a, 'o> {
    about: About,
    out: &'a mut Out<'o>,
}

impl Keep<'_, '_> {
    /// Keeps it. False: it could not be kept.
    pub fn event(&mut self, data: &dyn Data) -> bool {
        self.out.emit(&self.about, data).is_settled()
    }

    /// Counts a capture of a kind that was not asked for; no event.
    pub fn foreign(&mut self) -> bool {
        self.out.fault("foreign_capture");
        false
    }
}

/// Where a judge brings each sample.
pub struct Desk<'a, 'o, T> {
    now: Now,
    rule: &'a Rule,
    kind: Kind,
    scope: fn(Option<Key>, &T) -> Scope,
    lasting: Duration,
    cases: &'a mut Cases<T>,
    out: &'a mut Out<'o>,
}

impl<T> Desk<'_, '_, T> {
    /// Takes one sample of a subject: the rule that sees an edge in it, and whether its level is
    /// high. Asks for a capture where the subject's watch calls for one.
    pub fn sample(
        &mut self,
        watch: &mut Watch,
        subject: Option<Key>,
        edge: Option<Trigger>,
        high: bool,
        readings: T,
    ) {
        if let Some(trigger) = watch.sample(self.now, edge, high, self.rule)
            && !self.ask(subject, trigger, readings)
        {
            watch.missed();
        }
    }

    /// Asks for a look that is to judge by, and no event; `Judge::looked` gets its answer.
    pub fn look(&mut self, request: Request) -> Ticket {
        self.out.capture(request)
    }

    /// Counts a look of a kind that was not asked for.
    pub fn foreign(&mut self) {
        self.out.fault("foreign_capture");
    }

    fn ask(&mut self, subject: Option<Key>, trigger: Trigger, readings: T) -> bool {
        if !self.cases.room() {
            self.out.fault("cases_full");
            return false;
        }
        let scope = (self.scope)(subject, &readings);
        let ticket = self.out.capture(Request { kind: self.kind, scope, lasting: self.lasting });
        self.cases.open(Case { ticket, subject, trigger, began: self.now, readings });
        true
    }
}

/// A tracer made of a judge.
pub struct Judged<J: Judge> {
    judge: J,
    cases: Cases<J::Readings>,
    rule: Rule,
    lasting: Duration,
}

impl<J: Judge> Judged<J> {
    /// With these rules.
    pub fn new(judge: J, settings: &Settings) -> Judged<J> {
        Judged { judge, cases: Cases::new(), rule: settings.rule(), lasting: settings.capture() }
    }

    fn captured(&mut self, now: Now, ticket: Ticket, answer: Answer<'_>, out: &mut Out<'_>) {
        let Judged { judge, cases, rule, lasting } = self;
        let mut desk = Desk { now, rule, kind: J::CAPTURE, scope: J::scope, lasting: *lasting, cases, out };
        if judge.looked(now, ticket, answer, &mut desk) {
            return;
        }
        let Some(case) = self.cases.close(ticket) else { return out.fault("unknown_ticket") };
        let kept = answer.is_some_and(|(capture, containers)| {
            let found = Found { case: &case, capture, containers };
            let about = About { subject: case.subject, trigger: case.trigger, time: case.began.wall };
            self.judge.tell(&found, &mut Keep { about, out })
        });
        // Someone asking changes nothing for the rules.
        if case.trigger != Trigger::Manual
            && let Some(watch) = self.judge.watch(&case)
        {
            if kept { watch.told(now, &self.rule) } else { watch.missed() }
        }
    }
}

/// What a capture brought; `None` if it was refused.
pub type Answer<'a> = Option<(&'a Capture, &'a Containers)>;

impl<J: Judge> Tracer for Judged<J> {
    fn on(&mut self, now: Now, event: Event<'_>, out: &mut Out<'_>) {
        let Judged { judge, cases, rule, lasting } = self;
        match event {
            Event::Tick(snapshot) => {
                let mut desk =
                    Desk { now, rule, kind: J::CAPTURE, scope: J::scope, lasting: *lasting, cases, out };
                judge.tick(now, snapshot, &mut desk);
            }
            Event::Asked(subject, lasting) => {
                let mut desk = Desk { now, rule, kind: J::CAPTURE, scope: J::scope, lasting, cases, out };
                desk.ask(subject, Trigger::Manual, judge.readings(subject));
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
        self.judge.scrape(containers, scrape);
    }
}
