//! dload: tasks of a container that nothing can interrupt. Judged by a load average of them with
//! a true time constant of a minute, and by how long any of them has been blocked; told with
//! where in the kernel each of them is.

use std::time::Duration;

use serde::Serialize;

use super::blocked::{self, Blocked};
use super::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::fields::{COMMON, EventHead, all, field};
use super::subjects::{Subjects, labels};
use super::trigger::{Trigger, TriggerState};
use super::{Capacity, Field, FieldKind, KnownIssue, Pressure, Settings, Spec};
use crate::capture_data::{CaptureData, CaptureKind};
use crate::clock::Now;
use crate::host::{Facts, Key, Reading, Snapshot, TaskCounts, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};

/// As the kernel's 1-minute load average is meant.
const TIME_CONSTANT: Duration = Duration::from_secs(60);

const DLOAD: Metric = Metric {
    name: "onset_container_dload",
    help: "Load average over one minute of the container's uninterruptible tasks.",
    kind: MetricKind::Gauge,
    labels: &["container_id", "container", "pod", "namespace"],
};

const TASKS: Metric = Metric {
    name: "onset_container_tasks",
    help: "Tasks of the container by state.",
    kind: MetricKind::Gauge,
    labels: &["container_id", "container", "pod", "namespace", "state"],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "dload",
    about: "Containers whose tasks are blocked in the kernel (state D)",
    facts: Facts { tasks: true, load: true, ..Facts::NONE },
    captures: &[CaptureKind::Tasks],
    containers: true,
    hook: None,
    pressure: Some(Pressure {
        resource: "io",
        stall: Duration::from_millis(300),
        window: Duration::from_secs(2),
    }),
    every: Duration::from_secs(5),
    knobs: &[
        Knob {
            key: "load",
            default: Value::Number(5.0),
            about: "A surge is a load average of uninterruptible tasks past this",
        },
        Knob {
            key: "stuck",
            default: Value::Time(
                Duration::from_secs(60),
                Duration::from_millis(100),
                Duration::from_secs(86_400),
            ),
            about: "A task blocked for longer is stuck",
        },
    ],
    metrics: &[DLOAD, TASKS],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len() + blocked::FIELDS.len()] =
    all(&[&COMMON, &OWN, &blocked::FIELDS]);

const OWN: [Field; 8] = [
    field("threshold", FieldKind::Double, "The load average that is a surge"),
    field("nr_sleeping", FieldKind::Long, "Tasks that sleep"),
    field("nr_running", FieldKind::Long, "Tasks that run or wait for a CPU"),
    field("nr_stopped", FieldKind::Long, "Tasks that are stopped"),
    field("nr_uninterruptible", FieldKind::Long, "Tasks that cannot be interrupted"),
    field("nr_iowait", FieldKind::Long, "Those of them that wait for I/O"),
    field("load_avg", FieldKind::Double, "The host's load average over one minute"),
    field("dload_avg", FieldKind::Double, "Load average over one minute of uninterruptible tasks"),
];

fn build(settings: &Settings, capacity: Capacity) -> Box<dyn super::Tracer> {
    let (threshold, stuck, known_issues) = rules(settings);
    let subjects = Subjects::new(capacity.containers);
    let detector = Dload { threshold, stuck, known_issues, subjects, host: Sample::default() };
    Box::new(DetectorTracer::new(detector, settings))
}

/// The load average that is a surge, how long a task is blocked that is stuck, and what is known of stacks.
fn rules(settings: &Settings) -> (f64, Duration, Vec<KnownIssue>) {
    let values = settings.values();
    (values.number("load"), values.time("stuck"), settings.known_issues().to_vec())
}

struct Dload {
    threshold: f64,
    stuck: Duration,
    known_issues: Vec<KnownIssue>,
    subjects: Subjects<Subject>,
    host: Sample,
}

/// What is known of the host or of one container.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    counts: Option<TaskCounts>,
    /// The host's load average.
    load: Option<f64>,
    /// The container's load average of uninterruptible tasks.
    dload: Option<f64>,
}

#[derive(Debug, Default)]
struct Subject {
    trigger_state: TriggerState,
    average: Average,
    counts: Option<TaskCounts>,
}

/// A load average: it moves towards each sample the more, the longer the sample lasted.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    at: Option<Duration>,
    value: f64,
}

impl Average {
    fn add(&mut self, at: Duration, tasks: u32) -> f64 {
        let elapsed = self.at.map_or(Duration::ZERO, |before| at.saturating_sub(before));
        let kept = (-elapsed.as_secs_f64() / TIME_CONSTANT.as_secs_f64()).exp();
        self.value = self.value * kept + f64::from(tasks) * (1.0 - kept);
        self.at = Some(at);
        self.value
    }
}

impl Subject {
    /// Takes a reading in: how many tasks there are, and the load average before and after.
    fn take(&mut self, reading: &Reading) -> Option<(TaskCounts, f64, f64)> {
        self.counts = reading.tasks;
        let counts = reading.tasks?;
        let before = self.average.value;
        Some((counts, before, self.average.add(counts.at, counts.uninterruptible)))
    }
}

impl Detector for Dload {
    type Readings = Sample;
    const CAPTURE: CaptureKind = CaptureKind::Tasks;

    fn reconfigure(&mut self, settings: &Settings) {
        (self.threshold, self.stuck, self.known_issues) = rules(settings);
    }

    fn tick(&mut self, _: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Sample>) {
        let load = snapshot.load.map(|load| load.one).filter(|load| load.is_finite());
        self.host = Sample { counts: snapshot.tasks.copied(), load, dload: None };
        for (container, reading) in snapshot.each() {
            let key = container.key();
            let Some(subject) = self.subjects.of(key) else { continue };
            let Some((counts, before, dload)) = subject.take(reading) else { continue };
            let crossed = before <= self.threshold && dload > self.threshold;
            let stuck = counts.longest > self.stuck;
            let edge = if crossed { Some(Trigger::Surge) } else { stuck.then_some(Trigger::Stuck) };
            let sample = Sample { counts: Some(counts), load, dload: Some(dload) };
            sampler.sample(
                &mut subject.trigger_state,
                Some(key),
                edge,
                dload > self.threshold || stuck,
                sample,
            );
        }
    }

    fn readings(&self, subject: Option<Key>) -> Sample {
        let Some(key) = subject else { return self.host };
        let known = self.subjects.get(key);
        Sample {
            counts: known.and_then(|subject| subject.counts),
            load: self.host.load,
            dload: known.filter(|subject| subject.average.at.is_some()).map(|subject| subject.average.value),
        }
    }

    fn trigger_state(&mut self, subject: Option<Key>, _: &Sample) -> Option<&mut TriggerState> {
        Some(&mut self.subjects.get_mut(subject?)?.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Sample>, sink: &mut EventSink<'_, '_>) -> bool {
        let CaptureData::Tasks(tasks) = &completed.capture.data else { return sink.foreign() };
        let trigger = completed.pending.trigger;
        // It has passed: there is nothing to show, and an event would only mute what comes next.
        if tasks.is_empty() && trigger != Trigger::Manual {
            return false;
        }
        let head = EventHead::new(completed.pending, completed.capture);
        let numbers = Numbers::new(self.threshold, &completed.pending.readings);
        sink.emit(&Blocked::new(head, numbers, tasks, completed.containers, &self.known_issues))
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        let known = |container: crate::host::Container<'_>| {
            let subject = self.subjects.get(container.key())?;
            Some((subject.average.value, subject.counts?))
        };
        scrape.family(&DLOAD, |family| {
            for container in containers.iter() {
                if let Some((dload, _)) = known(container) {
                    let [id, name, pod, namespace] = labels(container);
                    family.sample(&[id, name, pod, namespace], dload);
                }
            }
        });
        scrape.family(&TASKS, |family| {
            for container in containers.iter() {
                let Some((_, counts)) = known(container) else { continue };
                let [id, name, pod, namespace] = labels(container);
                for (state, count) in [
                    ("running", counts.running),
                    ("sleeping", counts.sleeping),
                    ("stopped", counts.stopped),
                    ("uninterruptible", counts.uninterruptible),
                ] {
                    family.sample(&[id, name, pod, namespace, state], count);
                }
            }
        });
    }
}

/// A sample and its limit, as documents have them.
#[derive(Serialize)]
struct Numbers {
    threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nr_sleeping: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nr_running: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nr_stopped: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nr_uninterruptible: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nr_iowait: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_avg: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dload_avg: Option<f64>,
}

impl Numbers {
    fn new(threshold: f64, sample: &Sample) -> Numbers {
        let counts = sample.counts;
        Numbers {
            threshold,
            nr_sleeping: counts.map(|counts| counts.sleeping),
            nr_running: counts.map(|counts| counts.running),
            nr_stopped: counts.map(|counts| counts.stopped),
            nr_uninterruptible: counts.map(|counts| counts.uninterruptible),
            nr_iowait: counts.map(|counts| counts.iowait),
            load_avg: sample.load,
            dload_avg: sample.dload,
        }
    }
}
