//! The loop's part in the outputs: it wakes them, shows how they go, and says what was forced out of the log
//! before they had read it. `OUTPUTS` is the only registry.

use std::time::Duration;

use crate::config::Config;
use crate::control::OutputStatus;
use crate::log::{Counters, Writer};
use crate::metric::{Family, Metric, MetricKind, Scrape};
use crate::output::{Output, OutputSpec, OutputState, OutputStats};
use crate::ship;
use crate::sys;

/// Every output there is: adding one is its file and a line here.
pub(super) const OUTPUTS: &[OutputSpec] = &[ship::OUTPUT];

const fn metric(
    name: &'static str,
    help: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
) -> Metric {
    Metric { name, help, kind, labels }
}

const STATE: Metric = metric(
    "onset_output_state",
    "Whether the output is in this state: refused is what someone must mend.",
    MetricKind::Gauge,
    &["output", "state"],
);
const DOCUMENTS: Metric = metric(
    "onset_output_documents_total",
    "Documents that the output's other side took, had already, or will never take.",
    MetricKind::Counter,
    &["output", "outcome"],
);
const RETRIES: Metric =
    metric("onset_output_retries_total", "Requests that were sent again.", MetricKind::Counter, &["output"]);
const LAG: Metric = metric(
    "onset_output_lag_records",
    "Records of the log that the output has still to read; 0 while it is off.",
    MetricKind::Gauge,
    &["output"],
);
const DROPPED: Metric = metric(
    "onset_output_dropped_records_total",
    "Records that were deleted to keep the log's budget before the output had read them; 0 while it is off.",
    MetricKind::Counter,
    &["output"],
);
const FAULTS: Metric = metric(
    "onset_output_faults_total",
    "What the output could not note: how far it has read the log, or what was rejected.",
    MetricKind::Counter,
    &["output", "fault"],
);

/// What is shown of each output.
pub(super) const METRICS: [Metric; 6] = [STATE, DOCUMENTS, RETRIES, LAG, DROPPED, FAULTS];

/// One output, and what the loop remembers of it.
struct Running {
    name: &'static str,
    output: Box<dyn Output>,
    /// Records that were forced out before it had read them, and whether that was said.
    forced_out: u64,
    said: bool,
}

/// All outputs.
pub(super) struct Outputs {
    all: Vec<Running>,
    /// Records in the log when the outputs were last woken.
    woken: u64,
}

impl Outputs {
    /// Those of this table for this log. They take nothing before they are configured.
    pub(super) fn new(specs: &[OutputSpec], config: &Config, log: &Writer) -> Outputs {
        let start = |spec: &OutputSpec| Running {
            name: spec.name,
            output: (spec.start)(&config.log.dir, log.progress(spec.name)),
            forced_out: 0,
            said: false,
        };
        Outputs { all: specs.iter().map(start).collect(), woken: 0 }
    }

    /// Takes what the config says of each. That no thread can be had is said, and left.
    pub(super) fn configure(&mut self, config: &Config) {
        for Running { name, output, .. } in &mut self.all {
            if let Err(error) = output.configure(config) {
                eprintln!(
                    "onset: cannot start a thread to ship to {name}: {error}; events stay in the log; SIGHUP tries again"
                );
            }
        }
    }

    /// At the end of a turn.
    pub(super) fn turn(&mut self, log: &Counters) {
        let new = std::mem::replace(&mut self.woken, log.records) != log.records;
        for running in &mut self.all {
            if new {
                running.output.wake();
            }
            running.tell_of_forced_out();
        }
    }

    /// Has all send once more what there is, and waits for that, but not for longer than `patience`.
    pub(super) fn leave(&mut self, patience: Duration) {
        let until = sys::now().mono.saturating_add(patience);
        self.all.iter().for_each(|running| running.output.leave());
        for running in &mut self.all {
            running.output.wait_gone(until.saturating_sub(sys::now().mono));
        }
    }

    /// The output with this name.
    pub(super) fn named(&self, name: &str) -> Option<&dyn Output> {
        self.all.iter().find(|running| running.name == name).map(|running| &*running.output)
    }

    /// What a counter says of all outputs together.
    pub(super) fn sum(&self, counter: impl Fn(&OutputStats) -> u64) -> u64 {
        self.all.iter().map(|running| counter(running.output.stats())).sum()
    }

    /// Records of the log that had rotten: each output that comes to one counts it.
    pub(super) fn rotten(&self) -> u64 {
        let rotten = self.all.iter().map(|running| OutputStats::get(&running.output.stats().rotten));
        rotten.max().unwrap_or(0)
    }

    /// Shows each output under its name.
    pub(super) fn scrape(&self, scrape: &mut Scrape<'_>) {
        let each = |to: &mut Family<'_>, write: &dyn Fn(&mut Family<'_>, &'static str, &dyn Output)| {
            self.all.iter().for_each(|running| write(to, running.name, &*running.output));
        };
        scrape.family(&STATE, |to| {
            each(to, &|to, name, output| {
                let now = output.stats().state();
                for state in OutputState::ALL {
                    to.sample(&[name, state.name()], state == now);
                }
            });
        });
        scrape.family(&DOCUMENTS, |to| {
            each(to, &|to, name, output| {
                for (outcome, count) in output.stats().outcomes() {
                    to.sample(&[name, outcome], count);
                }
            });
        });
        scrape.family(&RETRIES, |to| {
            each(to, &|to, name, output| to.sample(&[name], OutputStats::get(&output.stats().retries)));
        });
        scrape.family(&LAG, |to| each(to, &|to, name, output| to.sample(&[name], output.progress().lag())));
        scrape.family(&DROPPED, |to| {
            each(to, &|to, name, output| to.sample(&[name], output.progress().dropped_unshipped()));
        });
        scrape.family(&FAULTS, |to| {
            each(to, &|to, name, output| {
                let stats = output.stats();
                to.sample(&[name, "cursor"], OutputStats::get(&stats.cursor_failures));
                to.sample(&[name, "reject_not_noted"], OutputStats::get(&stats.note_failures));
            });
        });
    }

    /// How each goes.
    pub(super) fn status(&self) -> Vec<OutputStatus> {
        self.all.iter().map(Running::status).collect()
    }
}

impl Running {
    fn tell_of_forced_out(&mut self) {
        let forced_out = self.output.progress().dropped_unshipped();
        let more = forced_out.saturating_sub(self.forced_out);
        self.forced_out = forced_out;
        if more > 0 && !std::mem::replace(&mut self.said, true) {
            eprintln!(
                "onset: the log is full: its oldest {more} events were deleted before they were shipped to {}, and more will be; \
                 raise [log] budget, or mend what onset status says of shipping",
                self.name
            );
        } else if more == 0 && self.said {
            // The next outage is told of anew.
            self.said = self.output.stats().state() != OutputState::Shipping;
        }
    }

    fn status(&self) -> OutputStatus {
        let stats = self.output.stats();
        OutputStatus {
            name: self.name.into(),
            target: self.output.target().into(),
            state: stats.state().name().into(),
            trouble: stats.trouble(),
            lag: self.output.progress().lag(),
            created: OutputStats::get(&stats.created),
            duplicates: OutputStats::get(&stats.duplicates),
            rejected: OutputStats::get(&stats.rejected),
            retries: OutputStats::get(&stats.retries),
            dropped: self.output.progress().dropped_unshipped(),
        }
    }
}

/// The output that docs/how-to-add-an-output.md makes: it is compiled and runs beside the real one in tests.
#[cfg(test)]
#[path = "../../docs/example/copies.rs"]
mod copies;
#[cfg(test)]
mod tests;
