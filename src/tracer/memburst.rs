//! memburst: memory that the kernel cannot reclaim grows so fast that it will run out: the host's, or
//! a container's toward its limit. Anonymous, shared or locked, all of it counts. Growth is held against the lowest sample of a sliding window, so the second
//! sample after start is judged already, and what grows slowly never fires.

mod event;
mod rules;

use std::time::Duration;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::fields::{COMMON, all, field};
use super::subjects::{Subjects, labels};
use super::trigger::TriggerState;
use super::{Capacity, Field, FieldKind, Pressure, Settings, Spec};
use crate::capture_data::CaptureKind;
use crate::clock::Now;
use crate::host::{Facts, Key, Snapshot, Unreclaimable, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};
use rules::{ContainerRules, Growth, Held, HostRules, OfContainer, OfHost};

const CONTAINER: [Metric; KINDS.len()] = [
    container(
        "onset_container_memory_anon_bytes",
        "Anonymous memory of the container, locked memory included: `anon` of memory.stat, v1's `total_rss`.",
    ),
    container(
        "onset_container_memory_shmem_bytes",
        "Shared memory and tmpfs files of the container, locked memory included: `shmem` of memory.stat, v1's `total_shmem`.",
    ),
    container(
        "onset_container_memory_locked_bytes",
        "Memory of the container that is locked, be it anonymous, shared or of files: `unevictable` of memory.stat, v1's `total_unevictable`.",
    ),
];

const HOST: [Metric; KINDS.len()] = [
    host(
        "onset_host_memory_anon_bytes",
        "Anonymous memory of the host, locked memory included: `AnonPages` of /proc/meminfo.",
    ),
    host(
        "onset_host_memory_shmem_bytes",
        "Shared memory and tmpfs files of the host, locked memory included: `Shmem` of /proc/meminfo.",
    ),
    host(
        "onset_host_memory_locked_bytes",
        "Memory of the host that is locked, be it anonymous, shared or of files: `Unevictable` of /proc/meminfo.",
    ),
];

/// What each of the families shows.
const KINDS: [fn(&Unreclaimable) -> Option<u64>; 3] =
    [|held| Some(held.anon_bytes), |held| held.shmem_bytes, |held| held.locked_bytes];

const fn container(name: &'static str, help: &'static str) -> Metric {
    let labels = &["container_id", "container", "pod", "namespace"];
    Metric { name, help, kind: MetricKind::Gauge, labels }
}

const fn host(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, kind: MetricKind::Gauge, labels: &[] }
}

const METRICS: [Metric; 2 * KINDS.len()] = {
    let ([anon, shmem, locked], [host_anon, host_shmem, host_locked]) = (CONTAINER, HOST);
    [anon, shmem, locked, host_anon, host_shmem, host_locked]
};

const HOUR: Duration = Duration::from_secs(3600);

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "memburst",
    about: "Memory that cannot be reclaimed and grows fast, of the host or of a container toward its limit",
    facts: Facts { memory: true, container_memory: true, ..Facts::NONE },
    captures: &[CaptureKind::Faults],
    containers: true,
    // A container near its limit stalls in reclaim: then the next look is at once.
    hook: None,
    pressure: Some(Pressure {
        resource: "memory",
        stall: Duration::from_millis(200),
        window: Duration::from_secs(2),
    }),
    // A limit that is 30 s away must be seen with time left for a capture of 10 s.
    every: Duration::from_secs(5),
    knobs: &[
        number(
            "host_ratio",
            2.0,
            "A surge of the host is this multiple of the lowest of the last 10 min ...",
        ),
        number("host_percent", 70.0, "... and at least this percentage of MemTotal,"),
        number("host_rise_percent", 20.0, "or a rise by this percentage of MemTotal ..."),
        Knob {
            key: "host_window",
            default: Value::Time(Duration::from_secs(60), Duration::from_secs(1), HOUR),
            about: "... within this time",
        },
        number("container_rise_percent", 30.0, "A surge of a container is this percentage of its limit ..."),
        Knob {
            key: "container_window",
            default: Value::Time(Duration::from_secs(30), Duration::from_secs(1), HOUR),
            about: "... within this time, or its limit less than this away at its rate",
        },
        Knob {
            key: "top",
            default: Value::Count(10, 1, 100),
            about: "Processes with most memory that an event names",
        },
    ],
    metrics: &METRICS,
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len()] = all(&[&COMMON, &OWN]);

const OWN: [Field; 18] = [
    field("scope", FieldKind::Keyword, "Whose memory: host or container"),
    field(
        "unreclaimable_bytes",
        FieldKind::Long,
        "Memory that cannot be reclaimed unless it is swapped, when the rule fired: anonymous, shared, and what is locked of files",
    ),
    field("unreclaimable_bytes_before", FieldKind::Long, "The lowest that it is held against"),
    field("anon_bytes", FieldKind::Long, "Of it: anonymous, locked or not (NR_ANON_MAPPED)"),
    field("anon_bytes_before", FieldKind::Long, "Anonymous memory at that lowest"),
    field("shmem_bytes", FieldKind::Long, "Of it: shared memory and tmpfs, locked or not (NR_SHMEM)"),
    field("shmem_bytes_before", FieldKind::Long, "Shared memory at that lowest"),
    field(
        "locked_bytes",
        FieldKind::Long,
        "Of it: locked, be it anonymous, shared or of files (NR_UNEVICTABLE)",
    ),
    field("locked_bytes_before", FieldKind::Long, "Locked memory at that lowest"),
    field("window_ms", FieldKind::Long, "How long before that was, in milliseconds"),
    field("total_bytes", FieldKind::Long, "Memory of the host"),
    field("limit_bytes", FieldKind::Long, "The container's limit, if it has one"),
    field("seconds_to_limit", FieldKind::Double, "When the limit is hit at the rate of the last sample"),
    field("faulted_bytes", FieldKind::Long, "Memory that page faults brought during the capture"),
    field("flamedata", FieldKind::Opaque, "Page faults in bytes, in pre-order: level, value, self, label"),
    field("top_memory_usage.pid", FieldKind::Long, "Process id on the host; most memory first"),
    field("top_memory_usage.comm", FieldKind::Keyword, "Name of the process"),
    field("top_memory_usage.rss_bytes", FieldKind::Long, "Its resident memory when the capture began"),
];

const fn number(key: &'static str, default: f64, about: &'static str) -> Knob {
    Knob { key, default: Value::Number(default), about }
}

fn build(settings: &Settings, capacity: Capacity) -> Box<dyn super::Tracer> {
    let containers = Subjects::new(capacity.containers);
    let detector = Memburst { rules: Rules::of(settings), host: OfHost::default(), containers };
    Box::new(DetectorTracer::new(detector, settings))
}

/// What its keys say.
struct Rules {
    host: HostRules,
    container: ContainerRules,
    /// A look so soon after another, as pressure may call for, tells nothing of a rate.
    shortest: Duration,
    /// Processes that an event names.
    top: usize,
}

impl Rules {
    fn of(settings: &Settings) -> Rules {
        let values = settings.values();
        Rules {
            host: HostRules {
                ratio: values.number("host_ratio"),
                percent: values.number("host_percent"),
                rise_percent: values.number("host_rise_percent"),
                window: values.time("host_window"),
            },
            container: ContainerRules {
                rise_percent: values.number("container_rise_percent"),
                window: values.time("container_window"),
            },
            shortest: settings.every() / 5,
            top: values.len("top"),
        }
    }
}

struct Memburst {
    rules: Rules,
    host: OfHost,
    containers: Subjects<OfContainer>,
}

/// Brings one subject's sample to the sampler.
fn sample(
    held: &mut Held,
    subject: Option<Key>,
    growth: Growth,
    sampler: &mut Sampler<'_, '_, Option<Growth>>,
) {
    let (edge, high) = held.take(&growth);
    sampler.sample(&mut held.trigger_state, subject, edge, high, Some(growth));
    held.judged();
}

impl Detector for Memburst {
    type Readings = Option<Growth>;
    const CAPTURE: CaptureKind = CaptureKind::Faults;

    fn reconfigure(&mut self, settings: &Settings) {
        self.rules = Rules::of(settings);
    }

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Growth>>) {
        if let Some(memory) = snapshot.memory
            && let Some(growth) = self.host.take(now.mono, memory, &self.rules.host, self.rules.shortest)
        {
            sample(&mut self.host.held, None, growth, sampler);
        }
        for (container, reading) in snapshot.each() {
            let key = container.key();
            let Some(subject) = self.containers.of(key) else { continue };
            let Some(memory) = &reading.memory else { continue };
            let growth = subject.take(reading.at, memory, &self.rules.container, self.rules.shortest);
            if let Some(growth) = growth {
                sample(&mut subject.held, Some(key), growth, sampler);
            }
        }
    }

    fn readings(&self, subject: Option<Key>) -> Option<Growth> {
        match subject {
            None => self.host.held.growth,
            Some(key) => self.containers.get(key)?.held.growth,
        }
    }

    fn trigger_state(&mut self, subject: Option<Key>, _: &Option<Growth>) -> Option<&mut TriggerState> {
        match subject {
            None => Some(&mut self.host.held.trigger_state),
            Some(key) => Some(&mut self.containers.get_mut(key)?.held.trigger_state),
        }
    }

    fn build_event(&self, completed: &Completed<'_, Option<Growth>>, sink: &mut EventSink<'_, '_>) -> bool {
        event::build_event(completed, self.rules.top, sink)
    }

    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>) {
        for (metric, kind) in CONTAINER.iter().zip(KINDS) {
            scrape.family(metric, |family| {
                for container in containers.iter() {
                    let growth = self.readings(Some(container.key()));
                    if let Some(bytes) = growth.and_then(|growth| kind(&growth.held)) {
                        let [id, name, pod, namespace] = labels(container);
                        family.sample(&[id, name, pod, namespace], bytes);
                    }
                }
            });
        }
        for (metric, kind) in HOST.iter().zip(KINDS) {
            scrape.family(metric, |family| {
                if let Some(bytes) = self.readings(None).and_then(|growth| kind(&growth.held)) {
                    family.value(bytes);
                }
            });
        }
    }
}
