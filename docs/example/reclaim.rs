//! reclaim: a task asked for memory and had to free some first. The kernel tells of each time that
//! took longer than `slow`; the event says who was held up, and who holds the memory.

use std::io;
use std::time::Duration;

use serde::Serialize;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, ForeignRecord, Occurrence, Sampler};
use super::fields::{COMMON, Head, Truncated, all, field};
use super::pending::PendingCapture;
use super::profile::CAPTURED;
use super::subjects::Subjects;
use super::trigger::{Trigger, TriggerState};
use super::{
    Capacity, Data, Field, FieldKind, HookKnob, HookSpec, KnobSource, Settings, Shrink, Spec, Tracer,
};
use crate::capture_data::{CaptureData, CaptureKind, Resident};
use crate::clock::Now;
use crate::config::{Knob, Value};
use crate::host::{Facts, Key, Snapshot, Text, Watched};
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
    captures: &[CaptureKind::Memory],
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

const OWN: [Field; 8] = [
    field("pid", FieldKind::Long, "The process that was held up, by its id on the host"),
    field("tid", FieldKind::Long, "Its thread"),
    field("comm", FieldKind::Keyword, "The thread's name"),
    field("held_up_ms", FieldKind::Double, "For how long, in milliseconds"),
    field("reclaimed_pages", FieldKind::Long, "Pages of memory that it freed"),
    field("top_memory_usage.pid", FieldKind::Long, "Process id on the host; most memory first"),
    field("top_memory_usage.comm", FieldKind::Keyword, "Name of the process"),
    field("top_memory_usage.rss_bytes", FieldKind::Long, "Its resident memory just after"),
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
}

impl Stall {
    /// Reads a record. `None` for one that is too short.
    fn parse(record: &[u8]) -> Option<Stall> {
        let (container, rest) = record.split_first_chunk()?;
        let (took_ns, rest) = rest.split_first_chunk()?;
        let (pages, rest) = rest.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (tid, rest) = rest.split_first_chunk()?;
        let comm: &[u8; 16] = rest.first_chunk()?;
        let comm = comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Stall {
            container: Key::from_bits(u64::from_ne_bytes(*container)),
            took: Duration::from_nanos(u64::from_ne_bytes(*took_ns)),
            pages: u64::from_ne_bytes(*pages),
            pid: u32::from_ne_bytes(*pid),
            tid: u32::from_ne_bytes(*tid),
            comm: Text::cut(std::str::from_utf8(comm).unwrap_or_default()),
        })
    }
}

impl Detector for Reclaim {
    /// `None`: someone asked.
    type Readings = Option<Stall>;
    const CAPTURE: CaptureKind = CaptureKind::Memory;

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
        let CaptureData::Memory(top) = &completed.capture.data else { return sink.foreign() };
        let head = Head::new(completed.pending.trigger, completed.capture);
        sink.emit(&StallEvent { head, stall: completed.pending.readings.as_ref(), top })
    }

    /// It has happened, whoever holds the memory.
    fn build_event_without_capture(
        &self,
        pending: &PendingCapture<Option<Stall>>,
        sink: &mut EventSink<'_, '_>,
    ) -> bool {
        let head = Head::alone(pending.trigger);
        sink.emit(&StallEvent { head, stall: pending.readings.as_ref(), top: &[] })
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&SLOW, |family| family.value(self.slow));
    }
}

/// What an event says.
struct StallEvent<'a> {
    head: Head,
    stall: Option<&'a Stall>,
    top: &'a [Resident<'a>],
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    stall: Option<Numbers<'a>>,
    #[serde(flatten)]
    truncated: Truncated,
    top_memory_usage: &'a [Resident<'a>],
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
        let top_memory_usage = self.top.get(..shrink.keep(self.top.len())).unwrap_or_default();
        let body = Body {
            head: self.head,
            stall: self.stall.map(|stall| Numbers {
                pid: stall.pid,
                tid: stall.tid,
                comm: &stall.comm,
                held_up_ms: stall.took.as_secs_f64() * 1e3,
                reclaimed_pages: stall.pages,
            }),
            truncated: Truncated::of(shrink, CaptureKind::Memory).and(
                "top_memory_usage",
                self.top.len(),
                CAPTURED,
                top_memory_usage.len(),
            ),
            top_memory_usage,
        };
        serde_json::to_writer(to, &body)
    }
}
