//! waitrate: a container's tasks wait for a CPU, longer than is usual for it. A short probe of the run
//! queues is made now and then, if anyone waits: that the container's own pressure tells (cgroup v2), else
//! the host's. Pressure is time on the wall, at most all there is, so it says whether to probe and not how
//! long is waited: that is time of tasks, the same on v1 and v2. Told with who is to blame.

mod sample;

use std::time::Duration;

use super::detector::{CaptureAnswer, Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::fields::{COMMON, EventHead, all};
use super::percents::{Nanos, Percent};
use super::subjects::{Subjects, labels};
use super::trigger::{Trigger, TriggerState};
use super::waiting::{self, Waiting};
use super::{Capacity, Field, Settings, Spec};
use crate::capture_data::{CaptureData, CaptureKind, Request, Scope, Ticket, Waited};
use crate::clock::Now;
use crate::host::{Containers, Facts, Key, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};
use sample::{Counters, LEAST, Level, Numbers, OWN, Rules, Subject, WaitSource};

const RATIO: Metric = Metric {
    name: "onset_container_wait_ratio",
    help: "Time that the container's tasks waited for a CPU, as a share of waited and run time, by what held them up; of the last probe of the run queues. `unsplit` is not looked into.",
    kind: MetricKind::Gauge,
    labels: &["container_id", "container", "pod", "namespace", "cause"],
};

const THROTTLED: Metric = Metric {
    name: "onset_container_throttled_seconds_total",
    help: "Time that the container was held back by its quota, as the kernel counts it.",
    kind: MetricKind::Counter,
    labels: &["container_id", "container", "pod", "namespace"],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "waitrate",
    about: "Containers whose tasks wait for a CPU, and who has it meanwhile",
    facts: Facts { container_cpu: true, cpu_pressure: true, ..Facts::NONE },
    captures: &[CaptureKind::Waits, CaptureKind::Probe],
    containers: true,
    hook: None,
    pressure: None,
    every: Duration::from_secs(10),
    knobs: &KNOBS,
    metrics: &[RATIO, THROTTLED],
    fields: &FIELDS,
    build,
};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

const KNOBS: [Knob; 5] = [
    knob(
        "floor_percent",
        Value::Number(20.0),
        "A surge is a wait past this, in percent of waited and run time,",
    ),
    knob("deviations", Value::Number(3.0), "that is past its mean by more standard deviations than this"),
    knob(
        "history",
        Value::Time(MINUTE.saturating_mul(30), MINUTE, MINUTE.saturating_mul(1440)),
        "Mean and deviation are of this time",
    ),
    knob(
        "probe",
        Value::Time(SECOND, Duration::from_millis(100), SECOND.saturating_mul(10)),
        "How long a look at the run queues lasts; no [capture] budget is used up",
    ),
    knob(
        "probe_every",
        Value::Time(SECOND.saturating_mul(30), SECOND, MINUTE.saturating_mul(60)),
        "... and how often it is made, unless cpu.pressure (on cgroup v1: the host's) says that nobody waits",
    ),
];

const fn knob(key: &'static str, default: Value, about: &'static str) -> Knob {
    Knob { key, default, about }
}

const FIELDS: [Field; COMMON.len() + OWN.len() + waiting::FIELDS.len()] =
    all(&[&COMMON, &OWN, &waiting::FIELDS]);

/// A mean and a deviation of fewer samples say little of what is usual.
const BASELINE: u32 = 10;

fn build(settings: &Settings, capacity: Capacity) -> Box<dyn super::Tracer> {
    let (rules, subjects) = (rules(settings), Subjects::new(capacity.containers));
    Box::new(DetectorTracer::new(
        Waitrate { rules, subjects, probe: Probe::default(), ticked: Duration::ZERO },
        settings,
    ))
}

fn rules(settings: &Settings) -> Rules {
    let values = settings.values();
    let (history, probe_every) = (values.time("history"), values.time("probe_every"));
    let fitting = history.as_nanos() / probe_every.as_nanos().max(1);
    Rules {
        floor: values.number("floor_percent"),
        deviations: values.number("deviations"),
        history,
        // A short history never holds as many.
        baseline: u32::try_from(fitting / 3).unwrap_or(u32::MAX).clamp(2, BASELINE),
        probe: values.time("probe"),
        probe_every,
    }
}

struct Waitrate {
    rules: Rules,
    subjects: Subjects<Subject>,
    probe: Probe,
    /// The last tick.
    ticked: Duration,
}

/// The looks at the run queues.
#[derive(Debug, Default)]
struct Probe {
    open: Option<Ticket>,
    /// When one was last called for, and how long tasks of the host had waited until then.
    last: Option<(Duration, Option<Duration>)>,
}

impl Waitrate {
    /// Has the run queues probed, if it is time to and anyone waits.
    fn probe(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Level>>) {
        let last = self.probe.last;
        let due = last.is_none_or(|(at, _)| now.mono.saturating_sub(at) >= self.rules.probe_every);
        if !due || self.probe.open.is_some() {
            return;
        }
        self.probe.last = Some((now.mono, snapshot.cpu_stall));
        let elapsed = last.map_or(Duration::ZERO, |(at, _)| now.mono.saturating_sub(at));
        let host = last.zip(snapshot.cpu_stall).is_some_and(|((_, before), stall)| {
            let waited = before.and_then(|before| stall.checked_sub(before));
            waited.is_some_and(|waited| waited < elapsed / LEAST)
        });
        let mut calm = last.is_some();
        for (container, _) in snapshot.each() {
            let Some(subject) = self.subjects.get_mut(container.key()) else { continue };
            // Each takes note of where it stands, whoever was in the way before.
            calm &= subject.is_calm(elapsed, host);
        }
        if calm {
            self.sample(now, snapshot.containers, &[], elapsed, WaitSource::Pressure, sampler);
        } else {
            let lasting = self.rules.probe;
            self.probe.open =
                Some(sampler.look(Request { kind: CaptureKind::Probe, scope: Scope::Host, lasting }));
        }
    }

    /// Takes a look at the run queues as a sample of each container. Who is not in it did nothing.
    fn sample(
        &mut self,
        now: Now,
        containers: &Containers,
        seen: &[(Key, Waited)],
        lasted: Duration,
        source: WaitSource,
        sampler: &mut Sampler<'_, '_, Option<Level>>,
    ) {
        // One that was not in the last tick is not watched any more.
        let ticked = Some(self.ticked);
        for key in containers.iter().map(|container| container.key()) {
            let Some(subject) = self.subjects.get_mut(key).filter(|subject| subject.seen == ticked) else {
                continue;
            };
            let place = seen.binary_search_by_key(&key, |(key, _)| *key).ok();
            let time = place.and_then(|place| seen.get(place)).map(|(_, time)| *time).unwrap_or_default();
            let (edge, high) = subject.judge(now.mono, time, lasted, source, &self.rules);
            sampler.sample(&mut subject.trigger_state, Some(key), edge, high, subject.level);
        }
    }
}

impl Detector for Waitrate {
    type Readings = Option<Level>;
    const CAPTURE: CaptureKind = CaptureKind::Waits;

    fn reconfigure(&mut self, settings: &Settings) {
        self.rules = rules(settings);
    }

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Level>>) {
        self.ticked = now.mono;
        let mut any = false;
        for (container, reading) in snapshot.each() {
            let Some(subject) = self.subjects.of(container.key()) else { continue };
            let throttled = reading.throttling.map(|it| it.throttled);
            subject.counters = Counters { throttled, stall: reading.cpu_stall };
            subject.seen = reading.cpu.is_some().then_some(now.mono);
            any |= subject.seen.is_some();
        }
        if any {
            self.probe(now, snapshot, sampler);
        }
    }

    fn looked(
        &mut self,
        now: Now,
        ticket: Ticket,
        answer: CaptureAnswer<'_>,
        sampler: &mut Sampler<'_, '_, Option<Level>>,
    ) -> bool {
        if self.probe.open != Some(ticket) {
            return false;
        }
        self.probe.open = None;
        match answer.map(|(capture, containers)| (&capture.data, capture.lasted, containers)) {
            Some((CaptureData::Probe(seen), lasted, containers)) => {
                self.sample(now, containers, seen, lasted, WaitSource::Probe, sampler);
            }
            Some(_) => sampler.foreign(),
            None => {}
        }
        true
    }

    fn readings(&self, subject: Option<Key>) -> Option<Level> {
        self.subjects.get(subject?)?.level
    }

    fn trigger_state(&mut self, subject: Option<Key>, _: &Option<Level>) -> Option<&mut TriggerState> {
        Some(&mut self.subjects.get_mut(subject?)?.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Option<Level>>, sink: &mut EventSink<'_, '_>) -> bool {
        let CaptureData::Waits(waits) = &completed.capture.data else { return sink.foreign() };
        let trigger = completed.pending.trigger;
        // It is over: an event would only mute what comes next.
        if waits.whole.all.is_zero() && trigger != Trigger::Manual {
            return false;
        }
        let head = EventHead::new(completed.pending, completed.capture);
        let readings = Numbers::from(completed.pending.readings);
        sink.emit(&Waiting { head, readings, waits, containers: completed.containers })
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&RATIO, |family| {
            for container in containers.iter() {
                let Some(Level { time, .. }) = self.readings(Some(container.key())) else { continue };
                let [id, name, pod, namespace] = labels(container);
                for (cause, part) in [
                    ("inner", time.inner),
                    ("external", time.external),
                    ("throttled", time.throttled),
                    ("unheld", time.unheld),
                    ("unsplit", waiting::unsplit(&time)),
                ] {
                    let share = Percent::of(part, Nanos::from(time.all.saturating_add(time.ran)));
                    let ratio = share.map_or(0.0, Percent::ratio);
                    family.sample(&[id, name, pod, namespace, cause], ratio);
                }
            }
        });
        scrape.family(&THROTTLED, |family| {
            for container in containers.iter() {
                let subject = self.subjects.get(container.key());
                if let Some(throttled) = subject.and_then(|subject| subject.counters.throttled) {
                    let [id, name, pod, namespace] = labels(container);
                    family.sample(&[id, name, pod, namespace], throttled.as_secs_f64());
                }
            }
        });
    }
}
