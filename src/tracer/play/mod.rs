//! A stage for tests and fuzzing: it plays events to one tracer, records what the tracer asks
//! for, and holds every document and scrape against what its spec declares, and the tracer to its
//! promise to take no memory. It panics on a breach.

mod check;

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::{
    About, Capacity, CaptureCause, Data, Emitted, Event, Executor, Out, Spec, TRACERS, Tracer, Trigger,
    document,
};
use crate::capture_data::{Capture, CaptureKind, RecordStack, Refusal, Request, Ticket};
use crate::clock::{Now, Wall};
use crate::config::{Config, ConfiguredTracer};
use crate::fixed_buf::FixedBuf;
use crate::fuzz::heap;
use crate::host::{Containers, Disk, HostCpu, Key, Load, Memory, Reading, Snapshot, TaskCounts, Watched};
use crate::metric::Scrape;
use crate::record_id::{Id, RecordId};

/// Slots of the table of containers.
pub const CAPACITY: usize = 8;

/// One tracer on its stage.
pub struct Play {
    /// The tracer's spec.
    pub spec: &'static Spec,
    /// Its configuration.
    pub settings: super::Settings,
    /// What the tracer asked for, and what became of it.
    pub seen: Recorder,
    /// The time of the next event.
    pub now: Now,
    tracer: Box<dyn Tracer>,
    buf: FixedBuf,
}

/// What is known of the host in a tick.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// /proc/stat.
    pub cpu: Option<HostCpu>,
    /// /proc/loadavg.
    pub load: Option<Load>,
    /// /proc/meminfo.
    pub memory: Option<Memory>,
    /// /proc/diskstats.
    pub disks: Option<Vec<Disk>>,
    /// All tasks.
    pub tasks: Option<TaskCounts>,
    /// /proc/pressure/cpu.
    pub cpu_stall: Option<Duration>,
}

/// What a tracer asked for.
pub struct Recorder {
    /// Captures that are to be answered.
    pub open: Vec<(Ticket, Request)>,
    /// All captures asked for so far.
    pub asked: Vec<Request>,
    /// Why each of them was asked for.
    pub causes: Vec<(Ticket, CaptureCause)>,
    /// The stacks among them that were to be named.
    pub stacks: Vec<RecordStack>,
    /// All events kept so far: their triggers and documents.
    pub events: Vec<(About, Value)>,
    /// All faults counted so far.
    pub faults: Vec<&'static str>,
    /// While false, no event is kept.
    pub keeps: bool,
    /// The containers there are.
    pub containers: Rc<Containers>,
    spec: &'static Spec,
    next: u32,
    now: Now,
    sheet: Vec<u8>,
}

impl Executor for Recorder {
    fn capture(&mut self, request: Request, cause: CaptureCause) -> Ticket {
        assert_eq!(cause.at, self.now, "{request:?} is asked for by what happens now");
        assert!(self.spec.captures.contains(&request.kind), "{request:?} is not declared");
        let ticket = Ticket(self.next);
        self.next += 1;
        heap::aside(|| {
            self.open.push((ticket, request));
            self.asked.push(request);
            self.causes.push((ticket, cause));
        });
        ticket
    }

    fn name(&mut self, request: Request, stack: &RecordStack, cause: CaptureCause) -> Ticket {
        assert_eq!(request.kind, CaptureKind::Names, "a capture of another kind names nothing");
        heap::aside(|| self.stacks.push(*stack));
        self.capture(request, cause)
    }

    fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted {
        if !self.keeps {
            return Emitted::Failed;
        }
        let containers = Rc::clone(&self.containers);
        let envelope = document::Envelope {
            hostname: "host",
            region: "",
            container: about.subject.and_then(|key| containers.get(key)),
            tracer_name: self.spec.name,
            tracer_id: &self.next,
            about,
            now: self.now,
            event: self.spec.hook.is_some(),
        };
        let Ok(len) = document::write(&envelope, data, &mut self.sheet) else {
            panic!("{} bytes are not enough for an event of {}", self.sheet.len(), self.spec.name)
        };
        heap::aside(|| {
            let document = check::document(self.spec, self.sheet.get(..len).unwrap_or_default());
            self.events.push((*about, document));
        });
        Emitted::Logged(RecordId { log: Id([0; 8]), seq: self.next.into() })
    }

    fn fault(&mut self, fault: &'static str) {
        heap::aside(|| self.faults.push(fault));
    }
}

impl Play {
    /// The tracer of this name, configured by this TOML, with `document` bytes for a document.
    pub fn new(name: &str, config: &str, document: usize) -> Play {
        let Some(spec) = TRACERS.iter().find(|spec| spec.name == name) else { panic!("no {name}") };
        Play::of(spec, config, document)
    }

    /// This tracer, registered or not, configured by this TOML, with `document` bytes for a document.
    pub fn of(spec: &'static Spec, config: &str, document: usize) -> Play {
        let tracer = match Config::parse(config, &[spec]) {
            Ok(config) => config.tracers.into_iter().next(),
            Err(error) => panic!("{error}"),
        };
        let Some(tracer) = tracer else { panic!("no settings of {}", spec.name) };
        Play::configured(tracer, document)
    }

    /// This tracer with its settings, with `document` bytes for a document.
    pub fn configured(ConfiguredTracer { spec, settings }: ConfiguredTracer, document: usize) -> Play {
        let now = Now { mono: Duration::from_secs(1000), wall: Wall(1_700_000_000_000) };
        let seen = Recorder {
            open: Vec::new(),
            asked: Vec::new(),
            causes: Vec::new(),
            stacks: Vec::new(),
            events: Vec::new(),
            faults: Vec::new(),
            keeps: true,
            containers: Rc::new(Containers::default()),
            spec,
            next: 1,
            now,
            sheet: vec![0; document],
        };
        let tracer = (spec.build)(&settings, Capacity { containers: CAPACITY });
        Play { spec, settings, seen, now, tracer, buf: FixedBuf::new(1 << 16) }
    }

    /// It is built anew, with these settings.
    #[cfg(test)]
    pub fn build(&mut self, settings: &super::Settings) {
        self.tracer = (self.spec.build)(settings, Capacity { containers: CAPACITY });
        self.settings = settings.clone();
    }

    /// It is given these settings, as a reload does it.
    pub fn reconfigure(&mut self, settings: &super::Settings) {
        self.tracer.reconfigure(settings);
        self.settings = settings.clone();
    }

    /// Lets time pass; on the calendar a day at most, for its years have four digits.
    pub fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.saturating_add(time);
        let ms = time.min(Duration::from_secs(86_400)).as_millis();
        self.now.wall.0 += u64::try_from(ms).unwrap_or_default();
    }

    /// These containers are there from now on, by id and cgroup path.
    pub fn containers(&mut self, list: &[(&str, &str)]) {
        self.seen.containers = Rc::new(Containers::fixture(list));
    }

    /// The container in this slot.
    pub fn key(slot: u16) -> Key {
        Key { slot, generation: 1 }
    }

    /// One event.
    pub fn event(&mut self, event: Event<'_>) {
        self.seen.now = self.now;
        heap::untouched(|| self.tracer.on(self.now, event, &mut Out::new(&mut self.seen)));
    }

    /// A tick that brings these facts, and these readings by slot.
    pub fn tick(&mut self, host: &Host, readings: &[Reading]) {
        let containers = Rc::clone(&self.seen.containers);
        let filter = self.settings.filter().clone();
        let before = self.seen.asked.len();
        self.event(Event::Tick(&Snapshot {
            cpu: host.cpu.as_ref(),
            load: host.load.as_ref(),
            memory: host.memory.as_ref(),
            disks: host.disks.as_deref(),
            tasks: host.tasks.as_ref(),
            cpu_stall: host.cpu_stall,
            containers: &containers,
            readings,
            filter: &filter,
        }));
        // How long a probe lasts is the tracer's own matter.
        let asked = self.seen.asked.get(before..).unwrap_or_default().iter();
        for request in asked.filter(|request| request.kind != CaptureKind::Probe) {
            assert_eq!(request.lasting, self.settings.capture(), "as long as configured");
        }
    }

    /// Someone asks. Returns the ticket, if a capture was asked for.
    pub fn ask(&mut self, subject: Option<Key>) -> Option<Ticket> {
        let before = self.seen.asked.len();
        self.event(Event::Asked(subject, Duration::from_secs(3)));
        let new = self.seen.asked.get(before..).unwrap_or_default();
        assert!(new.iter().all(|request| request.lasting == Duration::from_secs(3)), "as long as asked for");
        assert!(new.len() <= 1, "one capture for one wish");
        let ticket = self.seen.open.last().map(|(ticket, _)| *ticket);
        ticket.filter(|_| new.len() == 1)
    }

    /// Answers an open capture. Returns the trigger of the event that came of it.
    pub fn answer(&mut self, ticket: Ticket, answer: Result<&Capture<'_>, Refusal>) -> Option<Trigger> {
        let Some(at) = self.seen.open.iter().position(|(open, _)| *open == ticket) else {
            panic!("{ticket:?} is not open")
        };
        self.seen.open.swap_remove(at);
        let before = self.seen.events.len();
        let containers = Rc::clone(&self.seen.containers);
        self.event(match answer {
            Ok(capture) => Event::Captured(ticket, capture, &containers),
            Err(refusal) => Event::Refused(ticket, refusal),
        });
        assert!(self.seen.events.len() <= before + 1, "one capture is one event");
        let (about, _) = self.seen.events.get(before)?;
        self.is_linked(ticket, about);
        Some(about.trigger)
    }

    /// An event names the capture that it was made of, which was asked for by what the event is about.
    fn is_linked(&self, ticket: Ticket, about: &About) {
        assert!(about.captures.iter().eq([ticket]), "{about:?} is made of the answer to {ticket:?}");
        let cause = self.seen.causes.iter().rev().find(|(asked, _)| *asked == ticket);
        let of_event = |cause: &CaptureCause| (cause.subject, cause.trigger, cause.at.wall);
        let want = (about.subject, Some(about.trigger), about.time);
        assert_eq!(cause.map(|(_, cause)| of_event(cause)), Some(want));
    }

    /// Scrapes the tracer: the families of its spec, all of them and no others. Returns the text.
    pub fn scrape(&mut self) -> String {
        self.buf.clear();
        let mut scrape = Scrape::new(&mut self.buf, self.spec.metrics);
        let watched = Watched::new(&self.seen.containers, self.settings.filter());
        heap::untouched(|| self.tracer.scrape(watched, &mut scrape));
        assert_eq!(scrape.missing().map(|metric| metric.name).collect::<Vec<_>>(), Vec::<&str>::new());
        assert_eq!(scrape.mishaps(), crate::metric::Mishaps::default());
        check::scrape(&self.buf)
    }
}
