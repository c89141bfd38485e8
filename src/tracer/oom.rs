//! oom: every OOM kill, told by the kernel itself: who was killed, on whose behalf, in which
//! cgroup, and who holds the memory. No kill goes untold for want of a capture.

mod event;
mod kill;

use std::time::Duration;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, ForeignRecord, Occurrence, Sampler};
use super::pending::PendingCapture;
use super::trigger::{Trigger, TriggerState};
use super::{Capacity, HookKnob, HookSpec, KnobSource, Settings, Spec, Tracer};
use crate::capture_data::CaptureKind;
use crate::clock::Now;
use crate::host::{Facts, Key, Memory, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};
use event::OomEvent;
use kill::Kill;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub(super) use kill::fuzz as kill_fuzz;
#[cfg(test)]
pub(super) use kill::tests::record;

const KILLS: Metric = Metric {
    name: "onset_oom_kills_total",
    help: "Processes that the kernel killed for want of memory since start, those that found no room in the ring included.",
    kind: MetricKind::Counter,
    labels: &[],
};

const HOUR: Duration = Duration::from_secs(3600);

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "oom",
    about: "Every process that the kernel kills for want of memory",
    facts: Facts { memory: true, ..Facts::NONE },
    captures: &[CaptureKind::Memory],
    containers: true,
    hook: Some(HookSpec {
        name: "oom",
        knobs: &[HookKnob { variable: "page_bytes", source: KnobSource::PageBytes }],
    }),
    pressure: None,
    // Kills come by themselves: there is nothing to look for.
    every: HOUR,
    knobs: &[Knob {
        key: "top",
        default: Value::Count(10, 1, 100),
        about: "Processes with most memory that an event names",
    }],
    metrics: &[KILLS],
    fields: &event::FIELDS,
    build,
};

fn build(settings: &Settings, _: Capacity) -> Box<dyn Tracer> {
    let detector = Oom { top: top(settings), memory: None, kills: 0 };
    Box::new(DetectorTracer::new(detector, settings))
}

/// How many processes an event names.
fn top(settings: &Settings) -> usize {
    settings.values().len("top")
}

struct Oom {
    /// Processes that an event names.
    top: usize,
    /// The host's memory, and when it was read.
    memory: Option<(Duration, Memory)>,
    kills: u64,
}

/// What is known when who holds the memory is asked for. No kill: someone asked.
#[derive(Clone, Copy, Debug)]
struct Known {
    kill: Option<Kill>,
    memory: Option<Memory>,
}

impl Detector for Oom {
    type Readings = Known;
    const CAPTURE: CaptureKind = CaptureKind::Memory;

    fn reconfigure(&mut self, settings: &Settings) {
        self.top = top(settings);
    }

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, _: &mut Sampler<'_, '_, Known>) {
        self.memory = snapshot.memory.map(|memory| (now.mono, *memory));
    }

    fn record(&mut self, now: Now, record: &[u8]) -> Result<Option<Occurrence<Known>>, ForeignRecord> {
        let kill = Kill::parse(record).ok_or(ForeignRecord)?;
        self.kills = self.kills.saturating_add(1);
        // The facts are read in the turn in which a record comes: older ones are not of this kill.
        let memory = self.memory.filter(|(at, _)| *at == now.mono).map(|(_, memory)| memory);
        let readings = Known { kill: Some(kill), memory };
        Ok(Some(Occurrence { subject: kill.victim.container, trigger: Trigger::Kill, readings }))
    }

    /// They are killed all the same.
    fn lost(&mut self, count: u64) {
        self.kills = self.kills.saturating_add(count);
    }

    fn readings(&self, _: Option<Key>) -> Known {
        Known { kill: None, memory: self.memory.map(|(_, memory)| memory) }
    }

    /// Every kill is an event, however soon after another.
    fn trigger_state(&mut self, _: Option<Key>, _: &Known) -> Option<&mut TriggerState> {
        None
    }

    fn build_event(&self, completed: &Completed<'_, Known>, sink: &mut EventSink<'_, '_>) -> bool {
        match OomEvent::of(completed, self.top) {
            Some(event) => sink.emit(&event),
            None => {
                sink.foreign();
                self.build_event_without_capture(completed.pending, sink)
            }
        }
    }

    fn build_event_without_capture(
        &self,
        pending: &PendingCapture<Known>,
        sink: &mut EventSink<'_, '_>,
    ) -> bool {
        pending.readings.kill.is_some() && sink.emit(&OomEvent::without_capture(pending))
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&KILLS, |family| family.value(self.kills));
    }
}
