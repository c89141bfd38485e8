//! oom: every OOM kill, told by the kernel itself: who was killed, on whose behalf, in which
//! cgroup, and who holds the memory. No kill goes untold for want of a capture.

mod kill;
mod told;

use std::time::Duration;

use super::cases::{Case, Cases};
use super::fields::{COMMON, all, field};
use super::watch::Trigger;
use super::{About, Capacity, Event, Field, FieldKind, Out, Settings, Spec, Tracer};
use crate::clock::Now;
use crate::config::{Knob, Value};
use crate::evidence::{Capture, Kind, Request, Scope, Ticket};
use crate::host::{Containers, Facts, Key, Memory, Watched};
use crate::metric::{Kind as MetricKind, Metric, Scrape};
use kill::Kill;
#[doc(hidden)]
pub(super) use kill::fuzz as kill_fuzz;
#[cfg(test)]
pub(super) use kill::tests::record;
use told::Told;

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
    captures: &[Kind::Memory],
    containers: true,
    hook: Some("oom"),
    pressure: None,
    // Kills come by themselves: there is nothing to look for.
    every: HOUR,
    knobs: &[Knob {
        key: "top",
        default: Value::Count(10, 1, 100),
        about: "Processes with most memory that an event names",
    }],
    metrics: &[KILLS],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len()] = all(&[&COMMON, &OWN]);

const OWN: [Field; 19] = [
    field("victim.pid", FieldKind::Long, "The killed process's id on the host"),
    field("victim.comm", FieldKind::Keyword, "Its name"),
    field("victim.rss_bytes", FieldKind::Long, "Its resident memory when it was chosen, about"),
    field("victim.container_id", FieldKind::Keyword, "Its container"),
    field("killer.pid", FieldKind::Long, "The process that asked for memory when there was none"),
    field("killer.comm", FieldKind::Keyword, "Its name"),
    field("killer.container_id", FieldKind::Keyword, "Its container"),
    field("oom_cgroup_path", FieldKind::Keyword, "The cgroup with least room above the victim"),
    field(
        "oom_cgroup_path_cut",
        FieldKind::Boolean,
        "Whether names are missing at the path's beginning, which is `...` then; left out if not",
    ),
    field("limit_bytes", FieldKind::Long, "Its limit, if there is one"),
    field("usage_bytes", FieldKind::Long, "What it used"),
    field("host_memory.total_bytes", FieldKind::Long, "Memory of the host"),
    field("host_memory.available_bytes", FieldKind::Long, "What of it was available"),
    field("host_memory.anon_bytes", FieldKind::Long, "What of it was anonymous, locked or not"),
    field(
        "host_memory.shmem_bytes",
        FieldKind::Long,
        "What of it was shared memory and tmpfs, locked or not",
    ),
    field(
        "host_memory.locked_bytes",
        FieldKind::Long,
        "What of it was locked, be it anonymous, shared or of files",
    ),
    field("top_memory_usage.pid", FieldKind::Long, "Process id on the host; most memory first"),
    field("top_memory_usage.comm", FieldKind::Keyword, "Name of the process"),
    field("top_memory_usage.rss_bytes", FieldKind::Long, "Its resident memory just after the kill"),
];

fn build(settings: &Settings, _: Capacity) -> Box<dyn Tracer> {
    let (top, lasting) = rules(settings);
    Box::new(Oom { cases: Cases::new(), top, lasting, memory: None, kills: 0 })
}

/// How many processes an event names, and how long a capture lasts.
fn rules(settings: &Settings) -> (usize, Duration) {
    (settings.values().len("top"), settings.capture())
}

struct Oom {
    cases: Cases<Known>,
    /// Processes that an event names.
    top: usize,
    lasting: Duration,
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

impl Oom {
    /// The host's memory as it is in this turn.
    fn memory(&self, now: Now) -> Option<Memory> {
        self.memory.filter(|(at, _)| *at == now.mono).map(|(_, memory)| memory)
    }

    fn killed(&mut self, now: Now, kill: Kill, out: &mut Out<'_>) {
        self.kills = self.kills.saturating_add(1);
        let subject = kill.victim.container;
        let known = Known { kill: Some(kill), memory: self.memory(now) };
        if !self.ask(now, subject, Trigger::Kill, known, self.lasting, out) {
            let case =
                Case { ticket: Ticket(0), subject, trigger: Trigger::Kill, began: now, readings: known };
            self.tell(&case, None, out);
        }
    }

    fn ask(
        &mut self,
        now: Now,
        subject: Option<Key>,
        trigger: Trigger,
        readings: Known,
        lasting: Duration,
        out: &mut Out<'_>,
    ) -> bool {
        if !self.cases.room() {
            out.fault("cases_full");
            return false;
        }
        let scope = subject.map_or(Scope::Host, Scope::Container);
        let ticket = out.capture(Request { kind: Kind::Memory, scope, lasting });
        self.cases.open(Case { ticket, subject, trigger, began: now, readings });
        true
    }

    /// Ends a case with what was captured, if anything was. A wish that brought nothing is no event.
    fn answered(&mut self, ticket: Ticket, found: Option<(&Capture, &Containers)>, out: &mut Out<'_>) {
        let Some(case) = self.cases.close(ticket) else { return out.fault("unknown_ticket") };
        let found = found.filter(|(capture, _)| {
            let own = matches!(capture.seen, crate::evidence::Seen::Memory(_));
            if !own {
                out.fault("foreign_capture");
            }
            own
        });
        if found.is_some() || case.readings.kill.is_some() {
            self.tell(&case, found, out);
        }
    }

    fn tell(&self, case: &Case<Known>, found: Option<(&Capture, &Containers)>, out: &mut Out<'_>) {
        let about = About { subject: case.subject, trigger: case.trigger, time: case.began.wall };
        // One that cannot be kept is counted there, and is gone like the process.
        let _ = out.emit(&about, &Told::new(case.trigger, &case.readings, found, self.top));
    }
}

impl Tracer for Oom {
    fn on(&mut self, now: Now, event: Event<'_>, out: &mut Out<'_>) {
        match event {
            Event::Tick(snapshot) => {
                self.memory = snapshot.memory.map(|memory| (now.mono, *memory));
            }
            Event::Record(record) => match Kill::parse(record) {
                Some(kill) => self.killed(now, kill, out),
                None => out.fault("foreign_record"),
            },
            // They are killed all the same.
            Event::Lost(lost) => self.kills = self.kills.saturating_add(lost),
            Event::Asked(subject, lasting) => {
                let known = Known { kill: None, memory: self.memory.map(|(_, memory)| memory) };
                self.ask(now, subject, Trigger::Manual, known, lasting, out);
            }
            Event::Captured(ticket, capture, containers) => {
                self.answered(ticket, Some((capture, containers)), out);
            }
            Event::Refused(ticket, _) => self.answered(ticket, None, out),
        }
    }

    fn reconfigure(&mut self, settings: &Settings) {
        (self.top, self.lasting) = rules(settings);
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.family(&KILLS, |family| family.value(self.kills));
    }
}
