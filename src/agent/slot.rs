//! One tracer in the loop: its state, its timer, what it is fed by.

use std::time::Duration;

use crate::bpf::Hook;
use crate::config::ConfiguredTracer;
use crate::host::{Facts, Snapshot};
use crate::sys::Timer;
use crate::tracer::{Capacity, Settings, Spec, Tracer};

use super::counts::Counts;
use super::pressure::PsiTrigger;
use super::rings::Records;

/// How a tracer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The config says so.
    Disabled,
    /// It is fed.
    Active,
    /// The hook that it is fed by is being loaded.
    Loading,
    /// This kernel or these rights lack what it needs; the others run.
    Unsupported(&'static str),
    /// What it reads could not be read; tried again at its next tick.
    Failed(&'static str),
}

/// Said of a tracer until the hook that it is fed by is attached.
const LOADING: &str = "its hook is being loaded";

/// Said of a tracer that has other settings than its hook.
const LOADING_ANEW: &str = "its hook is being loaded anew; until then the one before goes on";

impl State {
    /// All names, for the metric that shows one of them as 1.
    pub(super) const NAMES: [&'static str; 5] = ["active", "loading", "disabled", "unsupported", "failed"];

    pub(super) fn name(&self) -> &'static str {
        match self {
            State::Active => "active",
            State::Loading => "loading",
            State::Disabled => "disabled",
            State::Unsupported(_) => "unsupported",
            State::Failed(_) => "failed",
        }
    }

    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            State::Unsupported(reason) | State::Failed(reason) => Some(reason),
            State::Loading => Some(LOADING),
            State::Active | State::Disabled => None,
        }
    }

    /// Whether it is fed with ticks: a failed one is, to see whether it is well again.
    pub(super) fn ticks(&self) -> bool {
        matches!(self, State::Active | State::Failed(_))
    }
}

impl Slot {
    /// What it reads can be read. Said once, if it could not be before.
    pub(super) fn reads(&mut self) {
        if matches!(self.state, State::Failed(_)) {
            eprintln!("onset: {} is well again", self.spec.name);
            self.state = State::Active;
        }
        self.misses = 0;
    }

    /// What it reads cannot be read. Said once, the second time in a row, and tried again at its next tick.
    pub(super) fn fails(&mut self, reason: &'static str) {
        self.misses = self.misses.saturating_add(1);
        if self.misses > 1 && self.state != State::Failed(reason) {
            eprintln!(
                "onset: {} failed: {reason}; tried again each {:?}",
                self.spec.name,
                self.settings.every()
            );
            self.state = State::Failed(reason);
        }
    }
}

/// One tracer.
pub(super) struct Slot {
    pub(super) spec: &'static Spec,
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) tracer: Box<dyn Tracer>,
    pub(super) counts: Counts,
    pub(super) timer: Timer,
    pub(super) pressure: Option<PsiTrigger>,
    /// Its hook's, while it is attached.
    pub(super) records: Option<Records<Hook>>,
    /// A hook was ordered for it, and has not come yet.
    pub(super) loading: bool,
    /// It is to look in this turn.
    pub(super) due: bool,
    /// Looks in a row at which something that it reads was not there.
    pub(super) misses: u32,
    /// The config names it no more: it goes when its last capture is answered.
    pub(super) retired: bool,
}

impl Slot {
    /// One that is not fed yet: nothing wakes the loop for it.
    pub(super) fn new(tracer: &ConfiguredTracer, state: State, capacity: Capacity) -> std::io::Result<Slot> {
        let ConfiguredTracer { spec, settings } = tracer;
        Ok(Slot {
            spec,
            settings: settings.clone(),
            state,
            tracer: (spec.build)(settings, capacity),
            counts: Counts::new(),
            timer: Timer::new()?,
            pressure: None,
            records: None,
            loading: false,
            due: false,
            misses: 0,
            retired: false,
        })
    }

    /// Whether the tracer that this spec is of is this one: it may have other metrics or captures now, and goes on.
    pub(super) fn is(&self, spec: &Spec) -> bool {
        self.spec.name == spec.name && std::ptr::fn_addr_eq(self.spec.build, spec.build)
    }

    /// What a person is to know of its state.
    pub(super) fn reason(&self) -> Option<&'static str> {
        let anew = self.loading && self.state.ticks();
        self.state.reason().or_else(|| anew.then_some(LOADING_ANEW))
    }

    /// Sets its timer on the phase that all equal intervals share.
    pub(super) fn arm(&self, now: Duration) -> std::io::Result<()> {
        if !self.state.ticks() {
            return self.timer.set(Duration::ZERO, Duration::ZERO);
        }
        let every = self.settings.every();
        self.timer.set(next_on_phase(now, every), every)
    }
}

/// The next multiple of an interval: timers that were set at different times fire together.
fn next_on_phase(now: Duration, every: Duration) -> Duration {
    let every_ns = every.as_nanos().max(1);
    let next = (now.as_nanos() / every_ns + 1).saturating_mul(every_ns);
    let seconds = u64::try_from(next / 1_000_000_000).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(next % 1_000_000_000).unwrap_or(0))
}

/// What a tracer wants of the host and this snapshot has not.
pub(super) fn missing(facts: Facts, snapshot: &Snapshot<'_>) -> Option<&'static str> {
    let lacks = [
        (facts.cpu && snapshot.cpu.is_none(), "cannot read stat under [paths] proc"),
        (facts.load && snapshot.load.is_none(), "cannot read loadavg under [paths] proc"),
        (facts.memory && snapshot.memory.is_none(), "cannot read meminfo under [paths] proc"),
        (facts.disks && snapshot.disks.is_none(), "cannot read diskstats under [paths] proc"),
        (facts.tasks && snapshot.tasks.is_none(), "cannot look at the host's tasks"),
    ];
    lacks.into_iter().find_map(|(lacks, reason)| lacks.then_some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_intervals_fire_together_whenever_they_were_set() {
        let ms = Duration::from_millis;
        assert_eq!(next_on_phase(ms(12_345), ms(5000)), ms(15_000));
        assert_eq!(next_on_phase(ms(14_999), ms(5000)), ms(15_000));
        assert_eq!(next_on_phase(ms(15_000), ms(5000)), ms(20_000), "not now, but next");
        assert_eq!(next_on_phase(ms(12_345), ms(10_000)), ms(20_000), "10 s fall on every second 5 s");
    }
}
