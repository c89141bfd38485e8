//! cpusys: the kernel itself takes the host's CPUs. Judged by system time in percent of all CPU
//! time; interrupts are measured beside it, for they are often where it comes from.

use std::time::Duration;

use serde::Serialize;

use super::cases::Case;
use super::fields::{COMMON, all, field};
use super::judge::{Desk, Found, Judge, Judged, Keep};
use super::percents::{Level, Limit, Percent, since, whole};
use super::watch::{Trigger, Watch};
use super::{Capacity, Field, FieldKind, Settings, Spec, profile};
use crate::clock::Now;
use crate::config::{Knob, Value};
use crate::evidence::Kind;
use crate::host::{CpuTimes, Facts, HostCpu, Key, Snapshot, Watched};
use crate::metric::{Kind as MetricKind, Metric, Scrape};

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
    captures: &[Kind::Stacks],
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
    let judge = Cpusys {
        limit: Limit::configured(settings.values(), "system_percent", "system_rise"),
        shortest: settings.every() / 2,
        watch: Watch::default(),
        baseline: None,
        usage: None,
    };
    Box::new(Judged::new(judge, settings))
}

struct Cpusys {
    limit: Limit,
    /// A sample of less time than this is more noise than use.
    shortest: Duration,
    watch: Watch,
    baseline: Option<(Duration, CpuTimes)>,
    usage: Option<Usage>,
}

/// One sample.
#[derive(Clone, Copy)]
struct Usage {
    system: Level,
    modes: [(&'static str, Percent); 8],
    irq: Percent,
    softirq: Percent,
    cpus: u32,
}

impl Usage {
    fn new(spent: &CpuTimes, cpus: u32, last: Option<Usage>) -> Option<Usage> {
        let all = whole(spent);
        let share = |part| Percent::of(part, all);
        let (system, irq, softirq) = (share(spent.system)?, share(spent.irq)?, share(spent.softirq)?);
        let modes = [
            ("user", share(spent.user)?),
            ("nice", share(spent.nice)?),
            ("system", system),
            ("idle", share(spent.idle)?),
            ("iowait", share(spent.iowait)?),
            ("irq", irq),
            ("softirq", softirq),
            ("steal", share(spent.steal)?),
        ];
        Some(Usage { system: Level::after(system, last.map(|last| last.system)), modes, irq, softirq, cpus })
    }
}

impl Cpusys {
    /// Takes a reading in. `None`: it makes no new sample.
    fn take(&mut self, now: Now, cpu: Option<&HostCpu>) -> Option<Usage> {
        let before = self.baseline.filter(|(at, _)| now.mono >= *at);
        if before.is_some_and(|(at, _)| now.mono - at < self.shortest) {
            return None;
        }
        let last = self.usage.take();
        let cpu = cpu?;
        self.baseline = Some((now.mono, cpu.times));
        self.usage = Usage::new(&since(&cpu.times, &before?.1)?, cpu.cpus, last);
        self.usage
    }
}

impl Judge for Cpusys {
    type Readings = Option<Usage>;
    const CAPTURE: Kind = Kind::Stacks;

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, desk: &mut Desk<'_, '_, Option<Usage>>) {
        if let Some(usage) = self.take(now, snapshot.cpu) {
            let edge = self.limit.surged(usage.system).then_some(Trigger::Surge);
            let high = self.limit.high(usage.system);
            desk.sample(&mut self.watch, None, edge, high, Some(usage));
        }
    }

    /// The host's, whomever one asks about.
    fn readings(&self, _: Option<Key>) -> Option<Usage> {
        self.usage
    }

    fn watch(&mut self, _: &Case<Option<Usage>>) -> Option<&mut Watch> {
        Some(&mut self.watch)
    }

    fn tell(&self, found: &Found<'_, Option<Usage>>, keep: &mut Keep<'_, '_>) -> bool {
        profile::tell(found, Numbers::new(&self.limit, found.case.readings), keep)
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&RATIO, |family| {
            for (mode, percent) in self.usage.iter().flat_map(|usage| usage.modes) {
                family.sample(&[mode], percent.ratio());
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
        Numbers {
            system_percent: usage.map(|usage| usage.system.percent),
            system_percent_threshold: limit.percent,
            system_percent_delta: usage.and_then(|usage| usage.system.delta),
            system_percent_delta_threshold: limit.rise,
            irq_percent: usage.map(|usage| usage.irq),
            softirq_percent: usage.map(|usage| usage.softirq),
            capacity_cores: usage.map(|usage| usage.cpus),
        }
    }
}
