//! One container as waitrate sees it: what called for its last sample, and what that is held against.

use std::time::Duration;

use serde::Serialize;

use crate::capture_data::Waited;
use crate::tracer::fields::field;
use crate::tracer::history::{History, Usual};
use crate::tracer::percents::{Nanos, Percent};
use crate::tracer::trigger::{Trigger, TriggerState};
use crate::tracer::{Field, FieldKind};

/// A hundredth of the time someone must have waited, lest two switches of an idle container are half
/// of all that it did.
pub(super) const LEAST: u32 = 100;

/// What a sample adds to a document.
pub(super) const OWN: [Field; 10] = [
    field(
        "curr_waitrate",
        FieldKind::Double,
        "What it was asked for by: time that its tasks waited, in percent of waited and run time, on cgroup v1 and v2 alike",
    ),
    field(
        "source",
        FieldKind::Keyword,
        "Where that is from: `probe` of the run queues, or `pressure`, which said that nobody waits",
    ),
    field(
        "pressure_percent",
        FieldKind::Double,
        "Time in which any of its tasks waited, in percent of the time since the probe before (cpu.pressure, v2): what called for the probe",
    ),
    field(
        "baseline",
        FieldKind::Keyword,
        "What it was held against: `history`, or `none` yet: then the floor, for as many samples as `sustained` takes",
    ),
    field("baseline_samples", FieldKind::Long, "How many samples of it there were before"),
    field("rel_waitrate_thres", FieldKind::Double, "Its threshold: mean and deviations, at least the floor"),
    field("mean", FieldKind::Double, "Its mean before, in percent; left out without a baseline"),
    field("std", FieldKind::Double, "Its standard deviation before, in percent; left out without a baseline"),
    field("curr_slope", FieldKind::Double, "How much it rose since the sample before, in percent a minute"),
    field(
        "slope_thres",
        FieldKind::Double,
        "The rise from its mean to its threshold in that time, in percent a minute",
    ),
];

#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) floor: f64,
    pub(super) deviations: f64,
    pub(super) history: Duration,
    /// Samples that make a baseline.
    pub(super) baseline: u32,
    pub(super) probe: Duration,
    pub(super) probe_every: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) trigger_state: TriggerState,
    pub(super) history: History,
    pub(super) level: Option<Level>,
    /// The tick that last found it.
    pub(super) seen: Option<Duration>,
    pub(super) counters: Counters,
    /// The same when a probe was last called for.
    pub(super) before: Counters,
    /// Its pressure between the last two times that a probe was called for.
    pub(super) pressure: Option<Percent>,
}

/// What the kernel counts of a container, since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) throttled: Option<Duration>,
    /// Any of its tasks waited for a CPU. v1 does not tell.
    pub(super) stall: Option<Duration>,
}

/// Where a sample is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WaitSource {
    /// The run queues.
    Probe,
    /// Pressure said that nobody waits.
    Pressure,
}

/// What a sample is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Basis {
    /// What was usual before.
    History,
    /// The floor alone: too little is known.
    None,
}

/// One sample, and what it is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) at: Duration,
    pub(super) time: Waited,
    pub(super) percent: f64,
    pub(super) source: WaitSource,
    pub(super) pressure: Option<Percent>,
    /// Samples before it.
    pub(super) samples: u32,
    /// `None`: they are too few.
    pub(super) usual: Option<Usual>,
    pub(super) threshold: f64,
    /// Percent a minute: its rise, and the rise that would take it from its mean to the threshold.
    pub(super) slope: Option<(f64, f64)>,
}

impl Subject {
    /// Whether nobody in it waited since a probe was last called for, `elapsed` ago; where its own pressure
    /// is not told, as the host's says. A container that was not seen then may be new, and counts from zero;
    /// but it may be old as well, so its pressure in that time is not known.
    pub(super) fn is_calm(&mut self, elapsed: Duration, host: bool) -> bool {
        let now = self.counters;
        let before = std::mem::replace(&mut self.before, now);
        let waited = now.stall.map(|stall| stall.checked_sub(before.stall.unwrap_or_default()));
        let known = waited.flatten().filter(|_| before.stall.is_some());
        self.pressure = known.and_then(|waited| Percent::of(waited, Nanos::from(elapsed)));
        // A quota holds tasks back, which the host's pressure need not show.
        let held_back = now.throttled.unwrap_or_default() != before.throttled.unwrap_or_default();
        let calm = match waited {
            Some(waited) => waited.is_some_and(|waited| waited < elapsed / LEAST),
            None => host,
        };
        calm && !held_back
    }

    /// Judges a sample of `elapsed`. The rule that sees an edge in it, and whether it is high.
    pub(super) fn judge(
        &mut self,
        at: Duration,
        time: Waited,
        elapsed: Duration,
        source: WaitSource,
        rules: &Rules,
    ) -> (Option<Trigger>, bool) {
        let much = time.all >= elapsed / LEAST;
        let percent = Percent::of(time.all, Nanos::from(time.all.saturating_add(time.ran)));
        let percent = percent.filter(|_| much).map_or(0.0, Percent::value);
        let known = self.history.usual(at, rules.history);
        let usual = known.filter(|usual| usual.samples >= rules.baseline);
        let threshold = usual.map_or(0.0, |usual| usual.mean + rules.deviations * usual.std).max(rules.floor);
        let slope = self.level.and_then(|last| {
            let minutes = at.checked_sub(last.at).filter(|time| !time.is_zero())?.as_secs_f64() / 60.0;
            Some(((percent - last.percent) / minutes, (threshold - usual?.mean) / minutes))
        });
        self.history.push(at, rules.history, percent);
        let (pressure, samples) = (self.pressure, known.map_or(0, |usual| usual.samples));
        self.level = Some(Level { at, time, percent, source, pressure, samples, usual, threshold, slope });
        // Of what is not known to be unusual only that it lasts is told.
        ((usual.is_some() && percent > threshold).then_some(Trigger::Surge), percent > rules.floor)
    }
}

/// A sample and its threshold, as documents have them.
#[derive(Serialize)]
pub(super) struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) curr_waitrate: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<WaitSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pressure_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<Basis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline_samples: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rel_waitrate_thres: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mean: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) std: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) curr_slope: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slope_thres: Option<Percent>,
}

impl From<Option<Level>> for Numbers {
    fn from(level: Option<Level>) -> Numbers {
        let usual = level.and_then(|level| level.usual);
        let slope = level.and_then(|level| level.slope);
        Numbers {
            curr_waitrate: level.map(|level| Percent::points(level.percent)),
            source: level.map(|level| level.source),
            pressure_percent: level.and_then(|level| level.pressure),
            baseline: level.map(|level| if level.usual.is_some() { Basis::History } else { Basis::None }),
            baseline_samples: level.map(|level| level.samples),
            rel_waitrate_thres: level.map(|level| Percent::points(level.threshold)),
            mean: usual.map(|usual| Percent::points(usual.mean)),
            std: usual.map(|usual| Percent::points(usual.std)),
            curr_slope: slope.map(|(rise, _)| Percent::points(rise)),
            slope_thres: slope.map(|(_, threshold)| Percent::points(threshold)),
        }
    }
}
