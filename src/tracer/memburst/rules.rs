//! When memory bursts: what is remembered of the host and of a container, and the rules that each
//! new sample is held against.

use std::time::Duration;

use crate::host::{ContainerMemory, Memory, Unreclaimable};
use crate::tracer::trigger::{Trigger, TriggerState};
use crate::tracer::windowed_min::{Sample, WindowedMin};

/// What the ratio of the host's memory is taken to.
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// No rate holds for longer than this: then a limit is not in sight.
const SIGHT: Duration = Duration::from_secs(3600);

/// The rules of the host.
pub(super) struct HostRules {
    pub(super) ratio: f64,
    pub(super) percent: f64,
    pub(super) rise_percent: f64,
    pub(super) window: Duration,
}

/// The rules of a container.
pub(super) struct ContainerRules {
    pub(super) rise_percent: f64,
    pub(super) window: Duration,
}

/// One sample, and how it came to that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    pub(super) held: Unreclaimable,
    /// What it is held against.
    pub(super) before: Sample,
    /// How long ago that was.
    pub(super) window: Duration,
    /// The host's memory, where it is about the host.
    pub(super) total_bytes: Option<u64>,
    /// The container's limit.
    pub(super) limit_bytes: Option<u64>,
    /// When the limit is hit at the rate of this sample.
    pub(super) to_limit: Option<Duration>,
    /// The rule that it meets.
    pub(super) rule: Option<Trigger>,
}

/// Remembered of either: its last sample, and what the rules made of it.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) trigger_state: TriggerState,
    pub(super) growth: Option<Growth>,
    /// A rule held in the last sample: its edge is behind.
    bursting: bool,
    /// The trigger state was quiet after the last sample.
    quiet: bool,
    /// A burst whose memory is above this has no event yet.
    unreported: Option<u64>,
}

impl Held {
    /// The edge in this sample, and whether a rule holds or a burst that has no event yet is
    /// still there: its edge may have fallen into the quiet after an earlier one.
    pub(super) fn take(&mut self, growth: &Growth) -> (Option<Trigger>, bool) {
        let event_kept = self.trigger_state.is_quiet() && !self.quiet;
        let edge = growth.rule.filter(|_| !self.bursting);
        self.bursting = growth.rule.is_some();
        if event_kept {
            self.unreported = None;
        }
        if edge.is_some() {
            // Half of what came with it.
            let rise = growth.held.all_bytes.saturating_sub(growth.before.bytes());
            self.unreported = Some(growth.held.all_bytes.saturating_sub(rise / 2));
        }
        self.unreported = self.unreported.filter(|floor| growth.held.all_bytes >= *floor);
        (edge, self.bursting || self.unreported.is_some())
    }

    /// The trigger state has taken this sample in.
    pub(super) fn judged(&mut self) {
        self.quiet = self.trigger_state.is_quiet();
    }
}

/// Whether a sample comes too soon after another to be one.
fn too_soon(at: Duration, last: Option<Sample>, shortest: Duration) -> bool {
    last.is_some_and(|last| at >= last.at && at - last.at < shortest)
}

/// Remembered of the host: ten minutes in slices of 10 s, and the window of the rise.
#[derive(Debug, Default)]
pub(super) struct OfHost {
    pub(super) held: Held,
    last: Option<Sample>,
    ten_minutes: WindowedMin<61>,
    window: WindowedMin<13>,
}

impl OfHost {
    /// Takes a reading in. `None`: it comes too soon after the last.
    pub(super) fn take(
        &mut self,
        at: Duration,
        memory: &Memory,
        rules: &HostRules,
        shortest: Duration,
    ) -> Option<Growth> {
        if too_soon(at, self.last, shortest) {
            return None;
        }
        let now = Sample { at, held: memory.held };
        self.last = Some(now);
        self.ten_minutes.add(now, TEN_MINUTES);
        self.window.add(now, rules.window);
        let least = self.ten_minutes.lowest(at, TEN_MINUTES).unwrap_or(now);
        let lately = self.window.lowest(at, rules.window).unwrap_or(now);
        let percent = |bytes: u64| share(bytes, memory.total_bytes);
        let doubled = is_times(now.bytes(), rules.ratio, least.bytes())
            && percent(now.bytes()).is_some_and(|percent| percent >= rules.percent);
        let rose = rises(now.bytes(), lately.bytes(), rules.rise_percent, memory.total_bytes);
        let before = if doubled && !rose { least } else { lately };
        let growth = Growth {
            held: now.held,
            before,
            window: at.saturating_sub(before.at),
            total_bytes: Some(memory.total_bytes),
            limit_bytes: None,
            to_limit: None,
            rule: (doubled || rose).then_some(Trigger::Surge),
        };
        self.held.growth = Some(growth);
        Some(growth)
    }
}

/// Remembered of a container: the window of its rise.
#[derive(Debug, Default)]
pub(super) struct OfContainer {
    pub(super) held: Held,
    last: Option<Sample>,
    window: WindowedMin<7>,
}

impl OfContainer {
    /// Takes a reading in. `None`: it comes too soon after the last.
    pub(super) fn take(
        &mut self,
        at: Duration,
        memory: &ContainerMemory,
        rules: &ContainerRules,
        shortest: Duration,
    ) -> Option<Growth> {
        if too_soon(at, self.last, shortest) {
            return None;
        }
        let now = Sample { at, held: memory.held };
        let last = self.last.replace(now);
        self.window.add(now, rules.window);
        let lately = self.window.lowest(at, rules.window).unwrap_or(now);
        let to_limit = last.zip(memory.limit_bytes).and_then(|(last, limit)| to_limit(last, now, limit));
        let rose = memory
            .limit_bytes
            .is_some_and(|limit| rises(now.bytes(), lately.bytes(), rules.rise_percent, limit));
        let soon = to_limit.is_some_and(|time| time < rules.window);
        let growth = Growth {
            held: now.held,
            before: lately,
            window: at.saturating_sub(lately.at),
            total_bytes: None,
            limit_bytes: memory.limit_bytes,
            to_limit,
            rule: if rose { Some(Trigger::Surge) } else { soon.then_some(Trigger::Predicted) },
        };
        self.held.growth = Some(growth);
        Some(growth)
    }
}

/// In percent of a whole that is there.
#[allow(clippy::cast_precision_loss)] // 2^53 bytes are more than any host has
fn share(bytes: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| bytes as f64 * 100.0 / whole as f64)
}

/// Whether `bytes` is at least `ratio` times `least`.
#[allow(clippy::cast_precision_loss)]
fn is_times(bytes: u64, ratio: f64, least: u64) -> bool {
    bytes > least && bytes as f64 >= least as f64 * ratio
}

/// Whether the rise from `lowest` to `bytes` is at least `percent` of `whole`.
fn rises(bytes: u64, lowest: u64, percent: f64, whole: u64) -> bool {
    let rise = bytes.saturating_sub(lowest);
    rise > 0 && share(rise, whole).is_some_and(|share| share >= percent)
}

/// When a limit is hit at the rate between two samples. File pages that are not locked make room, so they
/// do not count. `None`: it does not grow, or not in sight.
#[allow(clippy::cast_precision_loss)]
fn to_limit(last: Sample, now: Sample, limit: u64) -> Option<Duration> {
    let grown = now.bytes().checked_sub(last.bytes()).filter(|grown| *grown > 0)?;
    let passed = now.at.checked_sub(last.at)?.as_secs_f64();
    let seconds = limit.saturating_sub(now.bytes()) as f64 * passed / grown as f64;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= SIGHT)
}
