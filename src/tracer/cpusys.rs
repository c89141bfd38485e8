//! cpusys: the kernel itself takes the host's CPUs. Judged by system time in percent of all CPU
//! time; interrupts are measured beside it, for they are often where it comes from.

use std::time::Duration;

use serde::Serialize;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::fields::{COMMON, all, field};
use super::percents::{Level, Limit, Percent, Shares};
use super::trigger::{Trigger, TriggerState};
use super::{Capacity, Field, FieldKind, Settings, Spec, profile};
use crate::capture_data::CaptureKind;
use crate::clock::Now;
use crate::host::{Facts, HostCpu, Key, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};

const RATIO: Metric = Metric {
    name: "onset_host_cpu_ratio",
    help: "How the host's CPU time was spent since the sample before, as shares of all of it.",
    kind: MetricKind::Gauge,
    labels: &["mode"],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "cpusys",
    about: "A host whose kernel takes the CPUs, in percent of all CPU time",
    facts: Facts { cpu: true, ..Facts::NONE },
    captures: &[CaptureKind::Stacks],
    containers: false,
    hook: None,
    pressure: None,
    every: Duration::from_secs(10),
    knobs: &[
        Knob {
            key: "system_percent",
            default: Value::Number(45.0),
            about: "A surge is system time past this ...",
        },
        Knob {
            key: "system_rise",
            default: Value::Number(20.0),
            about: "... that rose by more than this since the sample before",
        },
    ],
    metrics: &[RATIO],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len() + profile::FIELDS.len()] =
    all(&[&COMMON, &OWN, &profile::FIELDS]);

const OWN: [Field; 7] = [
    field("system_percent", FieldKind::Double, "System time, in percent of all CPU time"),
    field("system_percent_threshold", FieldKind::Double, "Its threshold"),
    field("system_percent_delta", FieldKind::Double, "How much it rose since the sample before"),
    field("system_percent_delta_threshold", FieldKind::Double, "The threshold of its rise"),
    field("irq_percent", FieldKind::Double, "Time in interrupts, in percent of all CPU time"),
    field("softirq_percent", FieldKind::Double, "Time in soft interrupts, in percent of all CPU time"),
    field("capacity_cores", FieldKind::Double, "CPUs that are online"),
];

fn build(settings: &Settings, _: Capacity) -> Box<dyn super::Tracer> {
    let (limit, shortest) = rules(settings);
    let detector = Cpusys {
        limit,
        shortest,
        trigger_state: TriggerState::default(),
        baseline: None,
        last: None,
        usage: None,
    };
    Box::new(DetectorTracer::new(detector, settings))
}

/// The limit, and the shortest sample.
fn rules(settings: &Settings) -> (Limit, Duration) {
    let limit = Limit::configured(settings.values(), "system_percent", "system_rise");
    (limit, settings.every() / 2)
}

struct Cpusys {
    limit: Limit,
    /// A sample of less time than this is more noise than use.
    shortest: Duration,
    trigger_state: TriggerState,
    baseline: Option<(Duration, HostCpu)>,
    /// The last level that was known: readings are missing now and then, and it rose meanwhile.
    last: Option<Level>,
    usage: Option<Usage>,
}

/// One sample.
#[derive(Clone, Copy)]
struct Usage {
    system: Option<Level>,
    shares: Shares,
    cpus: u32,
}

impl Cpusys {
    /// Takes a reading in. `None`: it makes no new sample.
    fn take(&mut self, now: Now, cpu: Option<&HostCpu>) -> Option<Usage> {
        let before = self.baseline.filter(|(at, _)| now.mono >= *at);
        if before.is_some_and(|(at, _)| now.mono - at < self.shortest) {
            return None;
        }
        self.usage = None;
        let cpu = cpu?;
        self.baseline = Some((now.mono, *cpu));
        let (at, before) = before?;
        let shares = Shares::between(&before, cpu, now.mono - at)?;
        let system = shares.of("system").map(|percent| Level::after(percent, self.last));
        self.last = system.or(self.last);
        self.usage = Some(Usage { system, shares, cpus: cpu.cpus });
        self.usage
    }
}

impl Detector for Cpusys {
    type Readings = Option<Usage>;
    const CAPTURE: CaptureKind = CaptureKind::Stacks;

    fn reconfigure(&mut self, settings: &Settings) {
        (self.limit, self.shortest) = rules(settings);
    }

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Usage>>) {
        if let Some(usage) = self.take(now, snapshot.cpu)
            && let Some(system) = usage.system
        {
            let edge = self.limit.surged(system).then_some(Trigger::Surge);
            let high = self.limit.high(system);
            sampler.sample(&mut self.trigger_state, None, edge, high, Some(usage));
        }
    }

    /// The host's, whomever one asks about.
    fn readings(&self, _: Option<Key>) -> Option<Usage> {
        self.usage
    }

    fn trigger_state(&mut self, _: Option<Key>, _: &Option<Usage>) -> Option<&mut TriggerState> {
        Some(&mut self.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Option<Usage>>, sink: &mut EventSink<'_, '_>) -> bool {
        profile::build_event(completed, Numbers::new(&self.limit, completed.pending.readings), sink)
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&RATIO, |family| {
            for (mode, share) in self.usage.iter().flat_map(|usage| usage.shares.each()) {
                if let Some(share) = share {
                    family.sample(&[mode], share.ratio());
                }
            }
        });
    }
}

/// A sample and its limits, as documents have them.
#[derive(Serialize)]
struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_percent: Option<Percent>,
    system_percent_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_percent_delta: Option<Percent>,
    system_percent_delta_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    irq_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    softirq_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_cores: Option<u32>,
}

impl Numbers {
    fn new(limit: &Limit, usage: Option<Usage>) -> Numbers {
        let system = usage.and_then(|usage| usage.system);
        let share = |mode| usage.and_then(|usage| usage.shares.of(mode));
        Numbers {
            system_percent: system.map(|system| system.percent),
            system_percent_threshold: limit.percent,
            system_percent_delta: system.and_then(|system| system.delta),
            system_percent_delta_threshold: limit.rise,
            irq_percent: share("irq"),
            softirq_percent: share("softirq"),
            capacity_cores: usage.map(|usage| usage.cpus),
        }
    }
}
