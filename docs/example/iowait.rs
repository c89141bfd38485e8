//! iowait: the host's CPUs wait for disks. Judged by iowait time in percent of all CPU time.

use std::time::Duration;

use serde::Serialize;

use super::blocked::{self, Blocked};
use super::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::fields::{COMMON, EventHead, all, field};
use super::percents::{Level, Limit, Percent, Shares};
use super::trigger::{Trigger, TriggerState};
use super::{Capacity, Field, FieldKind, Settings, Spec};
use crate::capture_data::{CaptureData, CaptureKind};
use crate::clock::Now;
use crate::host::{Facts, HostCpu, Key, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};

const RATIO: Metric = Metric {
    name: "onset_host_iowait_ratio",
    help: "CPU time spent idle while a task waits for I/O, as a share of all of it.",
    kind: MetricKind::Gauge,
    labels: &[],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "iowait",
    about: "A host whose CPUs wait for disks, in percent of all CPU time",
    facts: Facts { cpu: true, ..Facts::NONE },
    captures: &[CaptureKind::Tasks],
    containers: false,
    hook: None,
    pressure: None,
    every: Duration::from_secs(10),
    knobs: &[
        Knob { key: "percent", default: Value::Number(40.0), about: "A surge is iowait past this ..." },
        Knob {
            key: "rise",
            default: Value::Number(20.0),
            about: "... that rose by more than this since the sample before",
        },
    ],
    metrics: &[RATIO],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len() + blocked::FIELDS.len()] =
    all(&[&COMMON, &OWN, &blocked::FIELDS]);

const OWN: [Field; 2] = [
    field("iowait_percent", FieldKind::Double, "Idle time with a task in iowait, in percent of all CPU time"),
    field("iowait_percent_threshold", FieldKind::Double, "Its threshold"),
];

fn build(settings: &Settings, _: Capacity) -> Box<dyn super::Tracer> {
    let detector = Iowait {
        limit: limit(settings),
        trigger_state: TriggerState::default(),
        baseline: None,
        level: None,
    };
    Box::new(DetectorTracer::new(detector, settings))
}

fn limit(settings: &Settings) -> Limit {
    Limit::configured(settings.values(), "percent", "rise")
}

struct Iowait {
    limit: Limit,
    trigger_state: TriggerState,
    baseline: Option<(Duration, HostCpu)>,
    level: Option<Level>,
}

impl Detector for Iowait {
    type Readings = Option<Level>;
    const CAPTURE: CaptureKind = CaptureKind::Tasks;

    fn reconfigure(&mut self, settings: &Settings) {
        self.limit = limit(settings);
    }

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Level>>) {
        let last = self.level.take();
        let Some(cpu) = snapshot.cpu else { return };
        let Some((at, before)) = self.baseline.replace((now.mono, *cpu)) else { return };
        // A counter that went back, or CPUs that came or went: nothing is known of this time.
        let shares = Shares::between(&before, cpu, now.mono.saturating_sub(at));
        let Some(percent) = shares.and_then(|shares| shares.of("iowait")) else { return };
        let level = Level::after(percent, last);
        self.level = Some(level);
        let edge = self.limit.surged(level).then_some(Trigger::Surge);
        sampler.sample(&mut self.trigger_state, None, edge, self.limit.high(level), Some(level));
    }

    fn readings(&self, _: Option<Key>) -> Option<Level> {
        self.level
    }

    fn trigger_state(&mut self, _: Option<Key>, _: &Option<Level>) -> Option<&mut TriggerState> {
        Some(&mut self.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Option<Level>>, sink: &mut EventSink<'_, '_>) -> bool {
        let numbers = Numbers {
            iowait_percent: completed.pending.readings.map(|level| level.percent),
            iowait_percent_threshold: self.limit.percent,
        };
        let CaptureData::Tasks(tasks) = &completed.capture.data else { return sink.foreign() };
        if tasks.is_empty() && completed.pending.trigger != Trigger::Manual {
            return false; // It passed: a capture is asked for again while the level holds.
        }
        let head = EventHead::new(completed.pending, completed.capture);
        sink.emit(&Blocked::new(head, numbers, tasks, completed.containers, &[]))
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&RATIO, |family| {
            if let Some(level) = self.level {
                family.value(level.percent.ratio());
            }
        });
    }
}

/// What was read, as documents have it. What is not known is left out.
#[derive(Serialize)]
struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    iowait_percent: Option<Percent>,
    iowait_percent_threshold: f64,
}
