//! reclaim: a task asked for memory and had to free some first. The kernel tells of each time that
//! took longer than `slow`; the event says who was held up, and what asked for the memory.

use std::io;
use std::time::Duration;

use serde::Serialize;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, ForeignRecord, Occurrence, Sampler};
use super::fields::{COMMON, EventHead, Truncated, all, field};
use super::pending::PendingCapture;
use super::profile::CAPTURED;
use super::subjects::Subjects;
use super::trigger::{Trigger, TriggerState};
use super::{
    Capacity, Data, Field, FieldKind, HookKnob, HookSpec, KnobSource, Settings, Shrink, Spec, Tracer,
};
use crate::capture_data::{CaptureData, CaptureKind, FRAMES_MAX, ProgramPlace, RecordStack, StackNames};
use crate::clock::Now;
use crate::config::{Knob, Value};
use crate::host::{Facts, Key, Snapshot, Text, Watched};
use crate::layout::{numbers, reclaim as layout};
use crate::metric::{Metric, MetricKind, Scrape};

const SLOW: Metric = Metric {
    name: "onset_slow_reclaims_total",
    help: "Times that a task was held up by reclaim for longer than `slow`, those that found no room in the ring included.",
    kind: MetricKind::Counter,
    labels: &[],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "reclaim",
    about: "Tasks that had to free memory before they got any, and for how long",
    facts: Facts::NONE,
    captures: &[CaptureKind::Names],
    containers: true,
    hook: Some(HookSpec {
        name: "reclaim",
        knobs: &[HookKnob { variable: "slow_ns", source: KnobSource::Key("slow") }],
    }),
    pressure: None,
    every: Duration::from_secs(3600),
    knobs: &[Knob {
        key: "slow",
        default: Value::Time(Duration::from_millis(100), Duration::ZERO, Duration::from_secs(60)),
        about: "A task that is held up for longer is an event",
    }],
    metrics: &[SLOW],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len()] = all(&[&COMMON, &OWN]);

const OWN: [Field; 7] = [
    field("pid", FieldKind::Long, "The process that was held up, by its id on the host"),
    field("tid", FieldKind::Long, "Its thread"),
    field("comm", FieldKind::Keyword, "The thread's name"),
    field("held_up_ms", FieldKind::Double, "For how long, in milliseconds"),
    field("reclaimed_pages", FieldKind::Long, "Pages of memory that it freed"),
    field("kernel_stack", FieldKind::Keyword, "Frames of the kernel that asked, innermost first"),
    field("user_stack", FieldKind::Keyword, "Frames of the process that called the kernel, innermost first"),
];

fn build(settings: &Settings, capacity: Capacity) -> Box<dyn Tracer> {
    let containers = Subjects::new(capacity.containers);
    let detector = Reclaim { containers, host: TriggerState::default(), slow: 0 };
    Box::new(DetectorTracer::new(detector, settings))
}

struct Reclaim {
    containers: Subjects<TriggerState>,
    /// Of tasks in no container.
    host: TriggerState,
    slow: u64,
}

/// A record of reclaim.bpf.c: `struct reclaim`.
#[derive(Clone, Copy)]
struct Stall {
    container: Option<Key>,
    took: Duration,
    pages: u64,
    pid: u32,
    tid: u32,
    comm: Text<64>,
    stack: RecordStack,
}

impl Stall {
    /// Reads a record. `None` for one that is too short.
    fn parse(record: &[u8]) -> Option<Stall> {
        let (reclaim, frames) = layout::Reclaim::read(record)?;
        let count = |bytes: u32| usize::try_from(bytes).unwrap_or(0) / size_of::<u64>();
        let kernel = numbers(frames).take(count(reclaim.kernel_bytes));
        let user = numbers(frames).skip(FRAMES_MAX).take(count(reclaim.user_bytes));
        let layout::Layout { start_code, end_code, start_stack } = reclaim.layout;
        let program = ProgramPlace { start_code, end_code, start_stack };
        let comm = reclaim.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Stall {
            container: Key::from_bits(reclaim.container),
            took: Duration::from_nanos(reclaim.took_ns),
            pages: reclaim.pages,
            pid: reclaim.pid,
            tid: reclaim.tid,
            comm: Text::cut(std::str::from_utf8(comm).unwrap_or_default()),
            stack: RecordStack::new(reclaim.pid, program, kernel, user),
        })
    }
}

impl Detector for Reclaim {
    /// `None`: someone asked.
    type Readings = Option<Stall>;
    const CAPTURE: CaptureKind = CaptureKind::Names;

    fn stack(stall: &Option<Stall>) -> Option<&RecordStack> {
        stall.as_ref().map(|stall| &stall.stack)
    }

    /// Its own key is the hook's.
    fn reconfigure(&mut self, _: &Settings) {}

    fn tick(&mut self, _: Now, _: &Snapshot<'_>, _: &mut Sampler<'_, '_, Option<Stall>>) {}

    fn record(&mut self, _: Now, record: &[u8]) -> Result<Option<Occurrence<Option<Stall>>>, ForeignRecord> {
        let stall = Stall::parse(record).ok_or(ForeignRecord)?;
        self.slow = self.slow.saturating_add(1);
        Ok(Some(Occurrence { subject: stall.container, trigger: Trigger::Stuck, readings: Some(stall) }))
    }

    fn lost(&mut self, count: u64) {
        self.slow = self.slow.saturating_add(count);
    }

    fn readings(&self, _: Option<Key>) -> Option<Stall> {
        None
    }

    fn trigger_state(&mut self, subject: Option<Key>, _: &Option<Stall>) -> Option<&mut TriggerState> {
        match subject {
            None => Some(&mut self.host),
            Some(key) => self.containers.of(key),
        }
    }

    fn build_event(&self, completed: &Completed<'_, Option<Stall>>, sink: &mut EventSink<'_, '_>) -> bool {
        let CaptureData::Names(names) = &completed.capture.data else { return sink.foreign() };
        let head = EventHead::new(completed.pending, completed.capture);
        sink.emit(&StallEvent { head, stall: completed.pending.readings.as_ref(), names: Some(names) })
    }

    /// It has happened, whatever its frames are called.
    fn build_event_without_capture(
        &self,
        pending: &PendingCapture<Option<Stall>>,
        sink: &mut EventSink<'_, '_>,
    ) -> bool {
        let head = EventHead::alone(pending.trigger);
        sink.emit(&StallEvent { head, stall: pending.readings.as_ref(), names: None })
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&SLOW, |family| family.value(self.slow));
    }
}

/// What an event says.
struct StallEvent<'a> {
    head: EventHead,
    stall: Option<&'a Stall>,
    names: Option<&'a StackNames<'a>>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    head: EventHead,
    #[serde(flatten)]
    stall: Option<Numbers<'a>>,
    #[serde(flatten)]
    truncated: Truncated,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    kernel_stack: &'a [&'a str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    user_stack: &'a [&'a str],
}

#[derive(Serialize)]
struct Numbers<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    held_up_ms: f64,
    reclaimed_pages: u64,
}

impl Data for StallEvent<'_> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let (kernel, user) = self.names.map_or_else(Default::default, |names| (names.kernel, names.user));
        let kept = |all: &[&str]| shrink.keep(all.len());
        let body = Body {
            head: self.head,
            stall: self.stall.map(|stall| Numbers {
                pid: stall.pid,
                tid: stall.tid,
                comm: &stall.comm,
                held_up_ms: stall.took.as_secs_f64() * 1e3,
                reclaimed_pages: stall.pages,
            }),
            truncated: Truncated::of(shrink, CaptureKind::Names)
                .and("kernel_stack", &kernel, CAPTURED, kept(&kernel))
                .and("user_stack", &user, CAPTURED, kept(&user)),
            kernel_stack: kernel.list().get(..kept(&kernel)).unwrap_or_default(),
            user_stack: user.list().get(..kept(&user)).unwrap_or_default(),
        };
        serde_json::to_writer(to, &body)
    }
}
