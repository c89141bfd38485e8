//! The agent's own metrics, as contract.md names them; the tracers add theirs.

use std::time::Duration;

use crate::bpf;
use crate::fixed_buf::FixedBuf;
use crate::host::{Containers, Watched};
use crate::metric::{Family, Histogram, Metric, MetricKind, Mishaps, Scrape};
use crate::output::OutputStats;
use crate::ship;
use crate::sys;

use super::outcome::OUTCOMES;
use super::outputs::{self, Outputs};
use super::process::Process;
use super::slot::State;
use super::status::NamedFaults;
use super::tracer_context::SharedState;
use super::tracer_slots::TracerSlots;

/// Where turns are told apart: a tick takes about a millisecond, ten are the budget.
const TURN_BOUNDS: [Duration; 8] = [
    Duration::from_micros(50),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(100),
];

/// How long turns of the loop took.
pub(super) type Turns = Histogram<{ TURN_BOUNDS.len() }>;

/// None yet.
pub(super) fn turns() -> Turns {
    Histogram::new(TURN_BOUNDS)
}

const fn metric(
    name: &'static str,
    help: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
) -> Metric {
    Metric { name, help, kind, labels }
}

const BUILD: Metric =
    metric("onset_build_info", "The version that runs; always 1.", MetricKind::Gauge, &["version"]);
const STATE: Metric = metric(
    "onset_tracer_state",
    "Whether the tracer is in this state.",
    MetricKind::Gauge,
    &["tracer", "state"],
);
const SAMPLES: Metric = metric(
    "onset_samples_total",
    "Looks that the tracer took at the host.",
    MetricKind::Counter,
    &["tracer"],
);
const EVENTS: Metric = metric(
    "onset_events_total",
    "Events of the tracer that are in the log.",
    MetricKind::Counter,
    &["tracer"],
);
const CAPTURES: Metric = metric(
    "onset_captures_total",
    "Captures that the tracer asked for, by how they ended.",
    MetricKind::Counter,
    &["tracer", "outcome"],
);
const LAST: Metric = metric(
    "onset_last_event_timestamp_seconds",
    "When the tracer's last event was put into the log, since 1970.",
    MetricKind::Gauge,
    &["tracer"],
);
const LOST: Metric = metric(
    "onset_lost_records_total",
    "Records that a BPF ring or map could not hold.",
    MetricKind::Counter,
    &["source"],
);
const FAULTS: Metric = metric(
    "onset_faults_total",
    "What went wrong, by tracer and kind; `onset` is the agent itself.",
    MetricKind::Counter,
    &["tracer", "fault"],
);
const LOG_RECORDS: Metric =
    metric("onset_log_records_total", "Records appended to the log since start.", MetricKind::Counter, &[]);
const LOG_BYTES: Metric =
    metric("onset_log_bytes_total", "Bytes appended to the log since start.", MetricKind::Counter, &[]);
const LOG_DROPPED: Metric = metric(
    "onset_log_dropped_records_total",
    "Records that are gone: deleted to keep the budget; deleted for it and never shipped; found rotten when they were to be shipped.",
    MetricKind::Counter,
    &["reason"],
);
const SHIPPED: Metric = metric(
    "onset_ship_documents_total",
    "Documents that Elasticsearch took, had already, or will never take.",
    MetricKind::Counter,
    &["outcome"],
);
const SHIP_RETRIES: Metric = metric(
    "onset_ship_retries_total",
    "Requests to Elasticsearch that were sent again.",
    MetricKind::Counter,
    &[],
);
const SHIP_LAG: Metric = metric(
    "onset_ship_lag_records",
    "Records of the log that are still to be shipped to Elasticsearch; 0 where no server is configured.",
    MetricKind::Gauge,
    &[],
);
const TURN: Metric =
    metric("onset_loop_turn_seconds", "How long turns of the loop took.", MetricKind::Histogram, &[]);
const LONGEST: Metric = metric(
    "onset_loop_longest_turn_seconds",
    "The longest turn of the loop since start.",
    MetricKind::Gauge,
    &[],
);
const CONTAINERS: Metric =
    metric("onset_containers", "Containers that are followed.", MetricKind::Gauge, &[]);
const BPF: Metric = metric(
    "onset_bpf_run_seconds_total",
    "Time in the BPF program; the kernel counts it while kernel.bpf_stats_enabled is 1.",
    MetricKind::Counter,
    &["program"],
);
const BPF_RUNS: Metric = metric(
    "onset_bpf_runs_total",
    "How often the BPF program ran; the kernel counts it while kernel.bpf_stats_enabled is 1.",
    MetricKind::Counter,
    &["program"],
);
const BPF_STATE: Metric = metric(
    "onset_bpf_program_state",
    "How the BPF program stands, as a label: loaded, attached, unneeded, absent or refused; always 1.",
    MetricKind::Gauge,
    &["program", "state"],
);
const CPU: Metric =
    metric("process_cpu_seconds_total", "CPU time that the agent used.", MetricKind::Counter, &[]);
const RESIDENT: Metric =
    metric("process_resident_memory_bytes", "Memory of the agent that is resident.", MetricKind::Gauge, &[]);
const FDS: Metric =
    metric("process_open_fds", "Descriptors that the agent has open.", MetricKind::Gauge, &[]);
const STARTED: Metric =
    metric("process_start_time_seconds", "When the agent was started, since 1970.", MetricKind::Gauge, &[]);

pub(super) const OWN: [Metric; 25] = [
    BUILD,
    STATE,
    SAMPLES,
    EVENTS,
    CAPTURES,
    LAST,
    LOST,
    FAULTS,
    LOG_RECORDS,
    LOG_BYTES,
    LOG_DROPPED,
    SHIPPED,
    SHIP_RETRIES,
    SHIP_LAG,
    TURN,
    LONGEST,
    CONTAINERS,
    BPF,
    BPF_RUNS,
    BPF_STATE,
    CPU,
    RESIDENT,
    FDS,
    STARTED,
    OVERFLOWS,
];
const OVERFLOWS: Metric = metric(
    "onset_scrape_truncated_total",
    "Families of metrics that were left out of a scrape because the page was full.",
    MetricKind::Counter,
    &[],
);

/// More programs than there are: what they cost is read into an array.
const PROGRAMS_MAX: usize = 64;

/// All that is shown.
pub(super) struct View<'a> {
    pub(super) slots: &'a TracerSlots,
    pub(super) shared: &'a SharedState,
    pub(super) outputs: &'a Outputs,
    pub(super) containers: &'a Containers,
    pub(super) agent_faults: NamedFaults,
    pub(super) turns: &'a Turns,
    pub(super) process: &'a Process,
    pub(super) mishaps: &'a mut Mishaps,
}

/// Seconds since 1970.
#[allow(clippy::cast_precision_loss)] // milliseconds fit 53 bits for 285,000 years
fn seconds(wall: crate::clock::Wall) -> f64 {
    wall.0 as f64 / 1000.0
}

impl View<'_> {
    /// Writes the whole page of metrics.
    pub(super) fn scrape(&mut self, page: &mut FixedBuf) {
        let mut scrape = Scrape::new(page, &OWN);
        self.agent(&mut scrape);
        self.tracers(&mut scrape);
        let mut mishaps = scrape.mishaps();
        let mut scrape = Scrape::new(page, &outputs::METRICS);
        self.outputs.scrape(&mut scrape);
        mishaps.add(scrape.mishaps());
        for slot in self.slots.named().filter(|slot| slot.state == State::Active) {
            let mut scrape = Scrape::new(page, slot.spec.metrics);
            let watched = Watched::new(self.containers, slot.settings.filter());
            slot.tracer.scrape(watched, &mut scrape);
            mishaps.add(scrape.mishaps());
        }
        self.mishaps.add(mishaps);
    }

    fn agent(&self, scrape: &mut Scrape<'_>) {
        let log = self.shared.log.counters();
        scrape.family(&BUILD, |to| to.sample(&[env!("CARGO_PKG_VERSION")], 1_u64));
        scrape.family(&LOST, |to| {
            self.shared.captures.lost(&mut |source, lost| to.sample(&[source], lost));
            for records in self.slots.all().filter_map(|slot| slot.records.as_ref()) {
                to.sample(&[records.source().name()], records.lost());
            }
        });
        scrape.family(&LOG_RECORDS, |to| to.value(log.records));
        scrape.family(&LOG_BYTES, |to| to.value(log.bytes));
        scrape.family(&LOG_DROPPED, |to| {
            let in_time = log.dropped_by_budget.saturating_sub(log.dropped_unshipped);
            to.sample(&["budget"], in_time);
            to.sample(&["unshipped"], log.dropped_unshipped);
            to.sample(&["rotten"], self.outputs.rotten());
        });
        self.elasticsearch(scrape);
        scrape.family(&TURN, |to| to.histogram::<&str, _>(&[], self.turns));
        scrape.family(&LONGEST, |to| to.value(self.turns.max()));
        scrape.family(&CONTAINERS, |to| to.value(self.containers.len()));
        self.programs(scrape);
        scrape.family(&BPF_STATE, |to| {
            bpf::each_program(&mut |program| to.sample(&[program.program, program.standing.name()], 1_u64));
        });
        scrape.family(&CPU, |to| to.value(sys::process_cpu()));
        optional(scrape, &RESIDENT, self.process.resident_bytes());
        optional(scrape, &FDS, self.process.open_fds());
        scrape.family(&STARTED, |to| to.value(seconds(self.process.started)));
        scrape.family(&OVERFLOWS, |to| to.value(self.mishaps.truncated));
    }

    /// What the programs cost. The kernel is asked once for both families: it takes its time for each program.
    fn programs(&self, scrape: &mut Scrape<'_>) {
        let (mut programs, mut count) = ([("", Duration::ZERO, 0); PROGRAMS_MAX], 0);
        self.shared.captures.run_time(&mut |name, time, runs| {
            if let Some(place) = programs.get_mut(count) {
                *place = (name, time, runs);
                count += 1;
            }
        });
        let known = programs.get(..count).unwrap_or_default();
        scrape.family(&BPF, |to| known.iter().for_each(|(name, time, _)| to.sample(&[name], *time)));
        scrape.family(&BPF_RUNS, |to| known.iter().for_each(|(name, _, runs)| to.sample(&[name], *runs)));
    }

    /// The families that were there before there were several outputs.
    fn elasticsearch(&self, scrape: &mut Scrape<'_>) {
        let Some(output) = self.outputs.named(ship::OUTPUT.name) else { return };
        scrape.family(&SHIPPED, |to| {
            for (outcome, count) in output.stats().outcomes() {
                to.sample(&[outcome], count);
            }
        });
        scrape.family(&SHIP_RETRIES, |to| to.value(OutputStats::get(&output.stats().retries)));
        scrape.family(&SHIP_LAG, |to| to.value(output.progress().lag()));
    }

    fn tracers(&self, scrape: &mut Scrape<'_>) {
        let each = || self.slots.named().map(|slot| (slot, &slot.counts));
        scrape.family(&STATE, |to| {
            for slot in self.slots.named() {
                for state in State::NAMES {
                    to.sample(&[slot.spec.name, state], slot.state.name() == state);
                }
            }
        });
        let per_tracer = |to: &mut Family<'_>, value: fn(&super::counts::Counts) -> u64| {
            each().for_each(|(slot, counts)| to.sample(&[slot.spec.name], value(counts)));
        };
        scrape.family(&SAMPLES, |to| per_tracer(to, |counts| counts.samples));
        scrape.family(&EVENTS, |to| per_tracer(to, |counts| counts.events));
        scrape.family(&CAPTURES, |to| {
            for (slot, counts) in each() {
                for (outcome, count) in OUTCOMES.iter().zip(counts.captures) {
                    to.sample(&[slot.spec.name, outcome], count);
                }
            }
        });
        scrape.family(&LAST, |to| {
            for (slot, counts) in each() {
                if let Some(last) = counts.last {
                    to.sample(&[slot.spec.name], seconds(last.at));
                }
            }
        });
        scrape.family(&FAULTS, |to| {
            for (fault, count) in self.agent_faults {
                to.sample(&["onset", fault], count);
            }
            bpf::failures(&mut |fault, count| to.sample(&["onset", fault], count));
            for (slot, counts) in each() {
                for (fault, count) in &counts.faults {
                    to.sample(&[slot.spec.name, fault], *count);
                }
            }
        });
    }
}

/// What could not be read does not show.
fn optional(scrape: &mut Scrape<'_>, metric: &Metric, value: Option<u64>) {
    scrape.family(metric, |to| {
        if let Some(value) = value {
            to.value(value);
        }
    });
}
