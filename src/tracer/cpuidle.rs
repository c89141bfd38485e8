//! cpuidle: a container's CPU use leaps to its limit. Judged in percent of what it may use, so
//! half a core that is used up counts as much as a whole host; told with a flame graph of it.

use std::time::Duration;

use serde::Serialize;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::fields::{COMMON, all, field};
use super::percents::{Level, Limit, Nanos, Percent, counted};
use super::subjects::{Subjects, labels};
use super::trigger::{Trigger, TriggerState};
use super::{Capacity, Field, FieldKind, Settings, Spec, profile};
use crate::capture_data::CaptureKind;
use crate::clock::Now;
use crate::host::{ContainerCpu, Facts, Key, Reading, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};

const RATIO: Metric = Metric {
    name: "onset_container_cpu_ratio",
    help: "CPU time that the container used since the sample before, as a share of what it may use.",
    kind: MetricKind::Gauge,
    labels: &["container_id", "container", "pod", "namespace", "mode"],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "cpuidle",
    about: "Containers whose CPU use leaps, in percent of the CPUs that they may use",
    facts: Facts { container_cpu: true, ..Facts::NONE },
    captures: &[CaptureKind::Stacks],
    containers: true,
    hook: None,
    pressure: None,
    every: Duration::from_secs(10),
    knobs: &[
        knob("user_percent", 75.0, "A surge is user time past this ..."),
        knob("user_rise", 45.0, "... that rose by more than this since the sample before,"),
        knob("system_percent", 45.0, "or system time past this ..."),
        knob("system_rise", 20.0, "... that rose by more than this,"),
        knob("total_percent", 90.0, "or both together past this ..."),
        knob("total_rise", 55.0, "... that rose by more than this"),
    ],
    metrics: &[RATIO],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len() + profile::FIELDS.len()] =
    all(&[&COMMON, &OWN, &profile::FIELDS]);

const OWN: [Field; 13] = [
    percent("user_percent", "User time, in percent of capacity"),
    percent("user_percent_threshold", "Its threshold"),
    percent("user_percent_delta", "How much it rose since the sample before"),
    percent("user_percent_delta_threshold", "The threshold of its rise"),
    percent("system_percent", "System time, in percent of capacity"),
    percent("system_percent_threshold", "Its threshold"),
    percent("system_percent_delta", "How much it rose since the sample before"),
    percent("system_percent_delta_threshold", "The threshold of its rise"),
    percent("total_percent", "User and system time, in percent of capacity"),
    percent("total_percent_threshold", "Its threshold"),
    percent("total_percent_delta", "How much it rose since the sample before"),
    percent("total_percent_delta_threshold", "The threshold of its rise"),
    percent("capacity_cores", "CPUs that it may use: the lesser of its cpuset and its quota"),
];

const fn percent(name: &'static str, about: &'static str) -> Field {
    field(name, FieldKind::Double, about)
}

const fn knob(key: &'static str, default: f64, about: &'static str) -> Knob {
    Knob { key, default: Value::Number(default), about }
}

fn build(settings: &Settings, capacity: Capacity) -> Box<dyn super::Tracer> {
    let (limits, shortest) = rules(settings);
    let detector = Cpuidle { limits, shortest, subjects: Subjects::new(capacity.containers) };
    Box::new(DetectorTracer::new(detector, settings))
}

/// The limits, and the shortest sample.
fn rules(settings: &Settings) -> (Limits, Duration) {
    let values = settings.values();
    let limits = Limits {
        user: Limit::configured(values, "user_percent", "user_rise"),
        system: Limit::configured(values, "system_percent", "system_rise"),
        total: Limit::configured(values, "total_percent", "total_rise"),
    };
    (limits, settings.every() / 2)
}

struct Cpuidle {
    limits: Limits,
    /// A sample of less time than this is more noise than use.
    shortest: Duration,
    subjects: Subjects<Subject>,
}

#[derive(Clone, Copy)]
struct Limits {
    user: Limit,
    system: Limit,
    total: Limit,
}

#[derive(Debug, Default)]
struct Subject {
    trigger_state: TriggerState,
    baseline: Option<(Duration, ContainerCpu)>,
    usage: Option<Usage>,
}

/// One sample. `None` is what is not known: its counter went back.
#[derive(Clone, Copy, Debug)]
struct Usage {
    user: Option<Level>,
    system: Option<Level>,
    total: Option<Level>,
    capacity_cores: f64,
}

/// User and system time are shared out anew at each reading (cputime_adjust() in the kernel), so they
/// may step back where there was none; not by more than this.
const STEP: Duration = Duration::from_millis(100);

impl Subject {
    /// Takes a reading in. `None`: it makes no new sample.
    fn take(&mut self, reading: &Reading, shortest: Duration) -> Option<Usage> {
        let before = self.baseline.filter(|(at, _)| reading.at >= *at);
        if before.is_some_and(|(at, _)| reading.at - at < shortest) {
            return None;
        }
        let last = self.usage.take();
        let cpu = reading.cpu?;
        self.baseline = Some((reading.at, cpu));
        let (at, before) = before?;
        let capacity_cores = reading.capacity_cores.filter(|cores| cores.is_finite())?;
        let whole = Nanos::of_cores(reading.at - at, capacity_cores);
        let level = |now: Duration, before: Duration, last: Option<Level>| {
            Some(Level::after(Percent::of(counted(now, before, STEP)?, whole)?, last))
        };
        let usage = Usage {
            user: level(cpu.user, before.user, last.and_then(|last| last.user)),
            system: level(cpu.system, before.system, last.and_then(|last| last.system)),
            total: level(cpu.total, before.total, last.and_then(|last| last.total)),
            capacity_cores,
        };
        self.usage = Some(usage).filter(|usage| usage.each().iter().any(Option::is_some));
        self.usage
    }
}

impl Usage {
    fn each(&self) -> [Option<Level>; 3] {
        [self.user, self.system, self.total]
    }
}

impl Limits {
    /// Whether any level that is known is past its limit, as `past` tells.
    fn any(&self, usage: &Usage, past: impl Fn(&Limit, Level) -> bool) -> bool {
        let limits = [self.user, self.system, self.total];
        limits.iter().zip(usage.each()).any(|(limit, level)| level.is_some_and(|level| past(limit, level)))
    }
}

impl Detector for Cpuidle {
    type Readings = Option<Usage>;
    const CAPTURE: CaptureKind = CaptureKind::Stacks;

    fn reconfigure(&mut self, settings: &Settings) {
        (self.limits, self.shortest) = rules(settings);
    }

    fn tick(&mut self, _: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Usage>>) {
        for (container, reading) in snapshot.each() {
            let key = container.key();
            let Some(subject) = self.subjects.of(key) else { continue };
            let Some(usage) = subject.take(reading, self.shortest) else { continue };
            let edge = self.limits.any(&usage, Limit::surged).then_some(Trigger::Surge);
            let high = self.limits.any(&usage, Limit::high);
            sampler.sample(&mut subject.trigger_state, Some(key), edge, high, Some(usage));
        }
    }

    fn readings(&self, subject: Option<Key>) -> Option<Usage> {
        self.subjects.get(subject?)?.usage
    }

    fn trigger_state(&mut self, subject: Option<Key>, _: &Option<Usage>) -> Option<&mut TriggerState> {
        Some(&mut self.subjects.get_mut(subject?)?.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Option<Usage>>, sink: &mut EventSink<'_, '_>) -> bool {
        profile::build_event(completed, Numbers::new(&self.limits, completed.pending.readings), sink)
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&RATIO, |family| {
            for container in containers.iter() {
                if let Some(usage) = self.readings(Some(container.key())) {
                    let [id, name, pod, namespace] = labels(container);
                    for (mode, level) in [("user", usage.user), ("system", usage.system)] {
                        if let Some(level) = level {
                            family.sample(&[id, name, pod, namespace, mode], level.percent.ratio());
                        }
                    }
                }
            }
        });
    }
}

/// A sample and its limits, as documents have them.
#[derive(Serialize)]
struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_percent: Option<Percent>,
    user_percent_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_percent_delta: Option<Percent>,
    user_percent_delta_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_percent: Option<Percent>,
    system_percent_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_percent_delta: Option<Percent>,
    system_percent_delta_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_percent: Option<Percent>,
    total_percent_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_percent_delta: Option<Percent>,
    total_percent_delta_threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_cores: Option<f64>,
}

impl Numbers {
    fn new(limits: &Limits, usage: Option<Usage>) -> Numbers {
        let [user, system, total] = usage.map_or([None; 3], |usage| usage.each());
        let percent = |level: Option<Level>| level.map(|level| level.percent);
        let delta = |level: Option<Level>| level.and_then(|level| level.delta);
        Numbers {
            user_percent: percent(user),
            user_percent_threshold: limits.user.percent,
            user_percent_delta: delta(user),
            user_percent_delta_threshold: limits.user.rise,
            system_percent: percent(system),
            system_percent_threshold: limits.system.percent,
            system_percent_delta: delta(system),
            system_percent_delta_threshold: limits.system.rise,
            total_percent: percent(total),
            total_percent_threshold: limits.total.percent,
            total_percent_delta: delta(total),
            total_percent_delta_threshold: limits.total.rise,
            capacity_cores: usage.map(|usage| usage.capacity_cores),
        }
    }
}
