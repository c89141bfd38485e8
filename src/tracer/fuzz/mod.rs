//! Scripts of events made from bytes, played to one tracer: whatever the bytes are, it survives and
//! takes no memory, answers for each capture once, keeps its cooldowns, and says nothing that its
//! spec does not declare and no share that is none.

mod bytes;
mod captures;
mod facts;

use std::time::Duration;

use super::pending::PENDING_MAX;
use super::play::{CAPACITY, Play, Recorder};
use super::{Event, Spec, TRACERS, Trigger};
use crate::capture_data::{Arena, CaptureKind, Refusal, Request, Scope, Ticket};
use crate::host::{Key, Reading};
use bytes::Bytes;
use captures::ARENA_BYTES;

/// Configurations under which rules fire often, one with a cooldown that a script outlasts, and the default.
const CONFIGS: [&str; 4] = [
    "",
    "cooldown = \"0s\"\nsustained_samples = 1\n",
    "sustained_samples = 0\n",
    "cooldown = \"1m\"\nsustained_samples = 1\n",
];

/// For a tracer that judges by a history.
const SOON_KNOWN: &str = "probe_every = \"10s\"\nhistory = \"1m\"\n";

/// Sizes of a document: the least that can be configured, and more.
const SIZES: [usize; 3] = [16 << 10, 64 << 10, 1 << 20];

const NAMES: [(&str, &str); CAPACITY] = [
    ("a0", "/a"),
    ("a1", "/b"),
    ("a2", "/c"),
    ("a3", "/d"),
    ("a4", "/e"),
    ("a5", ""),
    ("a6", "/\n\""),
    ("a7", "/h"),
];

/// A record of an OOM kill.
pub fn oom_kill(data: &[u8]) {
    super::oom::kill_fuzz(data);
}

/// Plays the script that these bytes are. Panics where a tracer breaks its word.
pub fn events(data: &[u8]) {
    play(data);
}

/// Plays the script that these bytes are to the tracer that they begin with, and returns what was seen.
pub fn play(data: &[u8]) -> Recorder {
    let mut bytes = Bytes(data);
    let spec = TRACERS[bytes.below(TRACERS.len())];
    play_to(spec, bytes.0)
}

/// Plays the script that these bytes are to this tracer, and returns what was seen.
pub fn play_to(spec: &'static Spec, data: &[u8]) -> Recorder {
    play_with(spec, data, &mut |_| {})
}

/// The same, but for what `before` does before each step.
pub(super) fn play_with(spec: &'static Spec, data: &[u8], before: &mut dyn FnMut(&mut Play)) -> Recorder {
    let mut bytes = Bytes(data);
    let keys = CONFIGS[bytes.below(CONFIGS.len())];
    // Scripts are short: what is usual is soon known in them.
    let more = if spec.facts.cpu_pressure && !keys.is_empty() { SOON_KNOWN } else { "" };
    let config = format!("[tracer.{}]\n{keys}{more}", spec.name);
    let mut play = Play::of(spec, &config, SIZES[bytes.below(SIZES.len())]);
    play.containers(&NAMES);
    let mut script = Script { play, bytes, watched: Vec::new(), manual: Vec::new(), quiet: Vec::new() };
    while !script.bytes.0.is_empty() {
        before(&mut script.play);
        script.step();
    }
    script.end()
}

/// A script that is being played.
struct Script<'a> {
    play: Play,
    bytes: Bytes<'a>,
    /// Open captures that rules asked for.
    watched: Vec<(Ticket, Scope)>,
    /// Open captures that someone asked for.
    manual: Vec<Ticket>,
    /// Whom a rule has told of, and when: no rule may ask for a capture of it in the cooldown.
    quiet: Vec<(Scope, Duration)>,
}

impl Script<'_> {
    fn step(&mut self) {
        match self.bytes.below(16) {
            0 => self.play.pass(self.bytes.time()),
            1..=6 => self.tick(),
            7 => {
                let mut record: Vec<u8> = (0..self.bytes.below(64)).map(|_| self.bytes.byte()).collect();
                if self.play.spec.hook.is_some() {
                    record.resize(self.bytes.below(256), 0);
                }
                let events = self.play.seen.events.len();
                self.play.event(Event::Record(&record));
                assert!(self.play.seen.events.len() <= events + 1, "one record is one event");
            }
            8 => self.play.event(Event::Lost(self.bytes.number())),
            9 => self.ask(),
            10..=12 => self.answer(),
            13 => self.strangers(),
            14 => drop(self.play.scrape()),
            _ => {
                self.play.seen.keeps = self.bytes.flag();
                let there = self.bytes.below(CAPACITY + 1);
                self.play.containers(NAMES.get(..there).unwrap_or_default());
            }
        }
    }

    fn tick(&mut self) {
        self.play.pass(self.bytes.interval());
        let at = self.play.now.mono;
        let mut host = self.bytes.host(at, self.play.spec.facts.disks);
        let mut readings: Vec<Reading> =
            (0..self.bytes.below(CAPACITY + 2)).map(|_| self.bytes.reading(at)).collect();
        if self.play.spec.facts.cpu_pressure {
            host.cpu_stall = self.bytes.maybe(|b| b.spent(at));
            for reading in &mut readings {
                reading.cpu_stall = self.bytes.maybe(|b| b.spent(at));
            }
        }
        let (before, events) = (self.play.seen.open.len(), self.play.seen.events.len());
        self.play.tick(&host, &readings);
        assert_eq!(self.play.seen.events.len(), events, "an event is what a capture brought");
        self.watch(before);
    }

    /// What rules asked for since `before` captures were open. A probe is not pending for an event.
    fn watch(&mut self, before: usize) {
        let new = self.play.seen.open.get(before..).unwrap_or_default().iter();
        for (ticket, Request { scope, .. }) in new.filter(|(_, request)| request.kind != CaptureKind::Probe) {
            let one = self.watched.iter().all(|(_, other)| other != scope);
            assert!(one, "{scope:?} is being captured already");
            let now = self.play.now.mono;
            let cooldown = self.play.settings.rule().cooldown;
            let quiet = self
                .quiet
                .iter()
                .any(|(other, since)| other == scope && now < since.saturating_add(cooldown));
            assert!(!quiet, "{scope:?} is asked for in its cooldown");
            self.watched.push((*ticket, *scope));
        }
    }

    fn ask(&mut self) {
        let key =
            Key { slot: u16::from(self.bytes.byte() % 12), generation: u32::from(self.bytes.byte() % 3) };
        let subject = self.bytes.flag().then_some(key);
        let pending = self.play.seen.open.iter().filter(|(_, request)| request.kind != CaptureKind::Probe);
        let room = pending.count() < PENDING_MAX;
        let ticket = self.play.ask(subject);
        assert_eq!(ticket.is_some(), room, "a wish is refused only for want of room");
        self.manual.extend(ticket);
    }

    /// Answers any of the open captures, in any order.
    fn answer(&mut self) {
        let open = self.play.seen.open.len();
        if open == 0 {
            return;
        }
        let (ticket, request) = self.play.seen.open[self.bytes.below(open)];
        let kind = if self.bytes.byte() < 16 { other(request.kind) } else { request.kind };
        let refused = self.bytes.below(4) == 0;
        let arena = Arena::new(ARENA_BYTES);
        let capture = self.bytes.capture(&arena, kind, request.scope);
        let told = self.play.answer(ticket, if refused { Err(Refusal::Busy) } else { Ok(&capture) });
        let manual = self.manual.contains(&ticket);
        self.manual.retain(|open| *open != ticket);
        self.watched.retain(|(open, _)| *open != ticket);
        // A kill is told, however soon after another.
        if !manual && told.is_some() && self.play.spec.hook.is_none() {
            self.quiet.retain(|(scope, _)| *scope != request.scope);
            self.quiet.push((request.scope, self.play.now.mono));
        }
        // What the kernel told of is an event, whatever a capture brings.
        let happened = self.play.spec.hook.is_some() && !manual;
        // The answer to a probe may call for captures.
        self.watch(open - 1);
        if !happened && (refused || kind != request.kind) || !self.play.seen.keeps {
            assert_eq!(told, None);
        } else if manual {
            assert_eq!(told, Some(Trigger::Manual), "who asked gets what was found");
        } else {
            assert_ne!(told, Some(Trigger::Manual));
        }
    }

    /// Answers to captures that nobody asked for.
    fn strangers(&mut self) {
        let events = self.play.seen.events.len();
        let containers = crate::host::Containers::default();
        let ticket = Ticket(u32::MAX - u32::from(self.bytes.byte()));
        let arena = Arena::new(ARENA_BYTES);
        let capture = self.bytes.capture(&arena, CaptureKind::Tasks, Scope::Host);
        self.play.event(Event::Captured(ticket, &capture, &containers));
        self.play.event(Event::Refused(ticket, Refusal::Gone));
        assert_eq!(self.play.seen.events.len(), events, "no event of a stranger's capture");
    }

    /// All that is open is answered; then there is room for as many captures as ever.
    fn end(mut self) -> Recorder {
        while let Some((ticket, _)) = self.play.seen.open.last().copied() {
            self.play.answer(ticket, Err(Refusal::OverBudget));
        }
        for _ in 0..PENDING_MAX {
            assert!(self.play.ask(None).is_some(), "a capture was answered, and stays pending");
        }
        assert!(self.play.ask(None).is_none(), "pending captures have a limit");
        self.play.scrape();
        let faults = ["cases_full", "foreign_capture", "foreign_record", "unknown_ticket"];
        assert!(self.play.seen.faults.iter().all(|fault| faults.contains(fault)));
        self.play.seen
    }
}

fn other(kind: CaptureKind) -> CaptureKind {
    match kind {
        CaptureKind::Stacks => CaptureKind::Tasks,
        CaptureKind::Tasks => CaptureKind::Waits,
        CaptureKind::Waits => CaptureKind::Probe,
        _ => CaptureKind::Stacks,
    }
}
