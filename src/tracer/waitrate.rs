//! waitrate: a container's tasks wait for a CPU, longer than is usual for it. Where cgroups have
//! files of pressure they are judged by these; elsewhere a short probe of the run queues is made
//! now and then, unless the host's pressure says that nobody waits. Told with who is to blame.

use std::time::Duration;

use serde::Serialize;

use super::cases::Case;
use super::fields::{COMMON, Head, all, field};
use super::history::{History, Usual};
use super::judge::{Answer, Desk, Found, Judge, Judged, Keep};
use super::percents::{Nanos, Percent};
use super::subjects::{Subjects, labels};
use super::waiting::{self, Waiting};
use super::watch::{Trigger, Watch};
use super::{Capacity, Field, FieldKind, Settings, Spec};
use crate::clock::Now;
use crate::config::{Knob, Value};
use crate::evidence::{Kind, Request, Scope, Seen, Ticket, Waited};
use crate::host::{Containers, Facts, Key, Reading, Snapshot, Watched};
use crate::metric::{Kind as MetricKind, Metric, Scrape};

const RATIO: Metric = Metric {
    name: "onset_container_wait_ratio",
    help: "Time that the container's tasks waited for a CPU, as a share of waited and run time, by what held them up; `unsplit` is not looked into.",
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
    captures: &[Kind::Waits, Kind::Probe],
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
        "How long a look at the run queues lasts, where containers have no cpu.pressure (cgroup v1); no [capture] budget is used up",
    ),
    knob(
        "probe_every",
        Value::Time(SECOND.saturating_mul(30), SECOND, MINUTE.saturating_mul(60)),
        "... and how often it is made, unless nobody waits",
    ),
];

const fn knob(key: &'static str, default: Value, about: &'static str) -> Knob {
    Knob { key, default, about }
}

const FIELDS: [Field; COMMON.len() + OWN.len() + waiting::FIELDS.len()] =
    all(&[&COMMON, &OWN, &waiting::FIELDS]);

const OWN: [Field; 6] = [
    field(
        "curr_waitrate",
        FieldKind::Double,
        "What it was asked for by: wait in percent of waited and run time",
    ),
    field("rel_waitrate_thres", FieldKind::Double, "Its threshold: mean and deviations, at least the floor"),
    field("mean", FieldKind::Double, "Its mean before, in percent"),
    field("std", FieldKind::Double, "Its standard deviation before, in percent"),
    field("curr_slope", FieldKind::Double, "How much it rose since the sample before, in percent a minute"),
    field(
        "slope_thres",
        FieldKind::Double,
        "The rise from its mean to its threshold in that time, in percent a minute",
    ),
];

/// So much of the time someone must have waited, lest two switches of an idle container are half
/// of all that it did.
const LEAST: u32 = 100;

fn build(settings: &Settings, capacity: Capacity) -> Box<dyn super::Tracer> {
    let values = settings.values();
    let rules = Rules {
        floor: values.number("floor_percent"),
        deviations: values.number("deviations"),
        history: values.time("history"),
        shortest: settings.every() / 2,
        probe: values.time("probe"),
        probe_every: values.time("probe_every"),
    };
    let subjects = Subjects::new(capacity.containers);
    Box::new(Judged::new(
        Waitrate { rules, subjects, probe: Probe::default(), ticked: Duration::ZERO },
        settings,
    ))
}

struct Waitrate {
    rules: Rules,
    subjects: Subjects<Subject>,
    probe: Probe,
    /// The last tick.
    ticked: Duration,
}

#[derive(Clone, Copy)]
struct Rules {
    floor: f64,
    deviations: f64,
    history: Duration,
    /// A sample of less time than this is more noise than waiting.
    shortest: Duration,
    probe: Duration,
    probe_every: Duration,
}

/// The looks at containers that have no file of pressure.
#[derive(Debug, Default)]
struct Probe {
    open: Option<Ticket>,
    /// When one was last called for, and how long tasks of the host had waited until then.
    last: Option<(Duration, Option<Duration>)>,
}

#[derive(Debug, Default)]
struct Subject {
    watch: Watch,
    history: History,
    baseline: Option<Baseline>,
    level: Option<Level>,
    /// The tick that last found it without a file of pressure.
    blind: Option<Duration>,
    throttled: Option<Duration>,
    /// The same when a probe was last called for.
    throttled_before: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Baseline {
    at: Duration,
    ran: Duration,
    stall: Duration,
    throttled: Option<Duration>,
}

/// One sample, and what it is held against.
#[derive(Clone, Copy, Debug)]
struct Level {
    at: Duration,
    time: Waited,
    percent: f64,
    usual: Option<Usual>,
    threshold: f64,
    /// Percent a minute: its rise, and the rise that would take it from its mean to the threshold.
    slope: Option<(f64, f64)>,
}

impl Subject {
    /// Takes a reading in. `None`: it makes no new sample.
    fn read(&mut self, reading: &Reading, shortest: Duration) -> Option<(Waited, Duration)> {
        let before = self.baseline.filter(|before| reading.at >= before.at);
        if before.is_some_and(|before| reading.at - before.at < shortest) {
            return None;
        }
        let throttled = reading.throttling.map(|it| it.throttled);
        let (ran, stall) = (reading.cpu?.total, reading.cpu_stall?);
        self.baseline = Some(Baseline { at: reading.at, ran, stall, throttled });
        let before = before?;
        // One that began anew, or was not read before, tells nothing and blinds nobody.
        let throttled = throttled.zip(before.throttled);
        let throttled = throttled.map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        // Throttled time adds up over CPUs, pressure does not: it is the least that was waited.
        let all = stall.checked_sub(before.stall)?.max(throttled);
        let ran = ran.checked_sub(before.ran)?;
        Some((Waited { ran, all, throttled, ..Waited::default() }, reading.at - before.at))
    }

    /// Judges a sample of so much time. The rule that sees an edge in it, and whether it is high.
    fn judge(
        &mut self,
        at: Duration,
        time: Waited,
        elapsed: Duration,
        rules: &Rules,
    ) -> (Option<Trigger>, bool) {
        let much = time.all >= elapsed / LEAST;
        let percent = Percent::of(time.all, Nanos::from(time.all.saturating_add(time.ran)));
        let percent = percent.filter(|_| much).map_or(0.0, Percent::value);
        let usual = self.history.usual(at, rules.history);
        let threshold = usual.map_or(0.0, |usual| usual.mean + rules.deviations * usual.std).max(rules.floor);
        let slope = self.level.and_then(|last| {
            let minutes = at.checked_sub(last.at).filter(|time| !time.is_zero())?.as_secs_f64() / 60.0;
            Some(((percent - last.percent) / minutes, (threshold - usual?.mean) / minutes))
        });
        self.history.push(at, rules.history, percent);
        self.level = Some(Level { at, time, percent, usual, threshold, slope });
        ((percent > threshold).then_some(Trigger::Surge), percent > rules.floor)
    }
}

impl Waitrate {
    /// Has the run queues probed, for containers that have no files of pressure, if it is time to
    /// and anyone waits.
    fn probe(&mut self, now: Now, snapshot: &Snapshot<'_>, desk: &mut Desk<'_, '_, Option<Level>>) {
        let last = self.probe.last;
        let due = last.is_none_or(|(at, _)| now.mono.saturating_sub(at) >= self.rules.probe_every);
        if !due || self.probe.open.is_some() {
            return;
        }
        self.probe.last = Some((now.mono, snapshot.cpu_stall));
        let mut calm = last.zip(snapshot.cpu_stall).is_some_and(|((at, before), stall)| {
            let waited = before.and_then(|before| stall.checked_sub(before));
            waited.is_some_and(|waited| waited < now.mono.saturating_sub(at) / LEAST)
        });
        for (container, _) in snapshot.each() {
            let Some(subject) = self.subjects.get_mut(container.key()) else { continue };
            calm &= subject.throttled == subject.throttled_before;
            subject.throttled_before = subject.throttled;
        }
        if calm {
            self.sample_blind(now, snapshot.containers, &[], self.rules.probe_every, desk);
        } else {
            let lasting = self.rules.probe;
            self.probe.open = Some(desk.look(Request { kind: Kind::Probe, scope: Scope::Host, lasting }));
        }
    }

    /// Takes a look at the run queues as a sample of each container that has no file of pressure.
    /// Who is not in it did nothing.
    fn sample_blind(
        &mut self,
        now: Now,
        containers: &Containers,
        seen: &[(Key, Waited)],
        lasted: Duration,
        desk: &mut Desk<'_, '_, Option<Level>>,
    ) {
        // One that was not in the last tick is not watched any more.
        let ticked = Some(self.ticked);
        for key in containers.iter().map(|container| container.key()) {
            let Some(subject) = self.subjects.get_mut(key).filter(|subject| subject.blind == ticked) else {
                continue;
            };
            let place = seen.binary_search_by_key(&key, |(key, _)| *key).ok();
            let time = place.and_then(|place| seen.get(place)).map(|(_, time)| *time).unwrap_or_default();
            let (edge, high) = subject.judge(now.mono, time, lasted, &self.rules);
            desk.sample(&mut subject.watch, Some(key), edge, high, subject.level);
        }
    }
}

impl Judge for Waitrate {
    type Readings = Option<Level>;
    const CAPTURE: Kind = Kind::Waits;

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, desk: &mut Desk<'_, '_, Option<Level>>) {
        self.ticked = now.mono;
        let mut blind = false;
        for (container, reading) in snapshot.each() {
            let key = container.key();
            let Some(subject) = self.subjects.of(key) else { continue };
            subject.throttled = reading.throttling.map(|it| it.throttled);
            subject.blind = (reading.cpu.is_some() && reading.cpu_stall.is_none()).then_some(now.mono);
            blind |= subject.blind.is_some();
            let Some((time, elapsed)) = subject.read(reading, self.rules.shortest) else { continue };
            let (edge, high) = subject.judge(reading.at, time, elapsed, &self.rules);
            desk.sample(&mut subject.watch, Some(key), edge, high, subject.level);
        }
        if blind {
            self.probe(now, snapshot, desk);
        }
    }

    fn looked(
        &mut self,
        now: Now,
        ticket: Ticket,
        answer: Answer<'_>,
        desk: &mut Desk<'_, '_, Option<Level>>,
    ) -> bool {
        if self.probe.open != Some(ticket) {
            return false;
        }
        self.probe.open = None;
        match answer.map(|(capture, containers)| (&capture.seen, capture.lasted, containers)) {
            Some((Seen::Probe(seen), lasted, containers)) => {
                self.sample_blind(now, containers, seen, lasted, desk);
            }
            Some(_) => desk.foreign(),
            None => {}
        }
        true
    }

    fn readings(&self, subject: Option<Key>) -> Option<Level> {
        self.subjects.get(subject?)?.level
    }

    fn watch(&mut self, case: &Case<Option<Level>>) -> Option<&mut Watch> {
        Some(&mut self.subjects.get_mut(case.subject?)?.watch)
    }

    fn tell(&self, found: &Found<'_, Option<Level>>, keep: &mut Keep<'_, '_>) -> bool {
        let Seen::Waits(waits) = &found.capture.seen else { return keep.foreign() };
        let trigger = found.case.trigger;
        // It is over: an event would only mute what comes next.
        if waits.whole.all.is_zero() && trigger != Trigger::Manual {
            return false;
        }
        let head = Head::new(trigger, found.capture);
        let readings = Numbers::from(found.case.readings);
        keep.event(&Waiting { head, readings, waits, containers: found.containers })
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&RATIO, |family| {
            for container in containers.iter() {
                let Some(Level { time, .. }) = self.readings(Some(container.key())) else { continue };
                for (cause, part) in [
                    ("inner", time.inner),
                    ("external", time.external),
                    ("throttled", time.throttled),
                    ("unheld", time.unheld),
                    ("unsplit", waiting::unsplit(&time)),
                ] {
                    let share = Percent::of(part, Nanos::from(time.all.saturating_add(time.ran)));
                    family.sample(&labels(container, cause), share.map_or(0.0, Percent::ratio));
                }
            }
        });
        scrape.family(&THROTTLED, |family| {
            for container in containers.iter() {
                let subject = self.subjects.get(container.key());
                if let Some(throttled) = subject.and_then(|subject| subject.throttled) {
                    let [id, name, pod, namespace, _] = labels(container, "");
                    family.sample(&[id, name, pod, namespace], throttled.as_secs_f64());
                }
            }
        });
    }
}

/// A sample and its threshold, as documents have them.
#[derive(Serialize)]
struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    curr_waitrate: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rel_waitrate_thres: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    std: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curr_slope: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slope_thres: Option<Percent>,
}

impl From<Option<Level>> for Numbers {
    fn from(level: Option<Level>) -> Numbers {
        let usual = level.and_then(|level| level.usual);
        let slope = level.and_then(|level| level.slope);
        Numbers {
            curr_waitrate: level.map(|level| Percent::points(level.percent)),
            rel_waitrate_thres: level.map(|level| Percent::points(level.threshold)),
            mean: usual.map(|usual| Percent::points(usual.mean)),
            std: usual.map(|usual| Percent::points(usual.std)),
            curr_slope: slope.map(|(rise, _)| Percent::points(rise)),
            slope_thres: slope.map(|(_, threshold)| Percent::points(threshold)),
        }
    }
}
