//! Shares of CPU time in percent, how they move, and the limits that they are held against.

use std::time::Duration;

use crate::host::{CpuTimes, HostCpu};
use crate::knob::Values;

/// A share in percent, or the difference of two. Documents hold it to two digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// `part` of `whole`, at most all of it: counters are read one after another, so a busy
    /// subject can seem to exceed its share a little. `None` of nothing.
    pub fn of(part: Duration, whole: Nanos) -> Option<Percent> {
        // Whole nanoseconds keep round shares exact, so that a limit that is met is not passed.
        let percent = Nanos::from(part).0 * 100.0 / whole.0;
        (whole.0 > 0.0 && percent.is_finite()).then_some(Percent(percent.clamp(0.0, 100.0)))
    }

    /// `points` percent.
    pub fn points(points: f64) -> Percent {
        Percent(points)
    }

    /// From 0 to 100.
    pub fn value(self) -> f64 {
        self.0
    }

    /// From 0 to 1.
    pub fn ratio(self) -> f64 {
        self.0 / 100.0
    }
}

impl serde::Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64((self.0 * 100.0).round() / 100.0)
    }
}

/// A length of time that shares are taken of.
#[derive(Clone, Copy, Debug)]
pub struct Nanos(f64);

impl From<Duration> for Nanos {
    fn from(time: Duration) -> Nanos {
        Nanos(time.as_nanos() as f64)
    }
}

impl Nanos {
    /// The time that `cores` CPUs have in `elapsed`.
    pub fn of_cores(elapsed: Duration, cores: f64) -> Nanos {
        Nanos(Nanos::from(elapsed).0 * cores)
    }
}

/// A share, and what it was in the sample before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Now.
    pub percent: Percent,
    /// Since the sample before, if there was one.
    pub delta: Option<Percent>,
}

impl Level {
    /// After another.
    pub fn after(percent: Percent, before: Option<Level>) -> Level {
        Level { percent, delta: before.map(|before| Percent(percent.0 - before.percent.0)) }
    }
}

/// What a level must pass, and how far it must have risen at once, to be a surge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Percent.
    pub percent: f64,
    /// Percent, since the sample before.
    pub rise: f64,
}

impl Limit {
    /// From these keys.
    pub fn configured(values: &Values, percent: &str, rise: &str) -> Limit {
        Limit { percent: values.number(percent), rise: values.number(rise) }
    }

    /// Whether the level is past it.
    pub fn high(&self, level: Level) -> bool {
        level.percent.0 > self.percent
    }

    /// Whether the level is past it and has risen as far.
    pub fn surged(&self, level: Level) -> bool {
        self.high(level) && level.delta.is_some_and(|delta| delta.0 > self.rise)
    }
}

/// What a counter of CPU time counted between two readings. Such counters step back a little where
/// there was nothing to count (proc_stat(5)): that is nothing. `None`: it went back by more than
/// `step`, so it began anew, and what it counted is not known.
pub fn counted(now: Duration, before: Duration, step: Duration) -> Option<Duration> {
    let short = before.saturating_sub(now);
    (short <= step).then(|| now.saturating_sub(before))
}

/// How the host's CPU time was spent between two readings, as shares of all of it. Each counter
/// stands for itself: `None` is one whose counter began anew.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// In the order of `CpuTimes::MODES`.
    modes: [Option<Percent>; CpuTimes::MODES.len()],
}

/// Each CPU's counter may be a tick off at both readings.
const STEP: Duration = Duration::from_millis(20);

/// What a counter may count beyond all the time that there was: the reading itself may have waited.
const LATE: Duration = Duration::from_secs(1);

impl Shares {
    /// Between two readings, the second `elapsed` after the first. `None`: CPUs came or went, and took the
    /// sums of what was before along, or nothing was counted.
    pub fn between(before: &HostCpu, now: &HostCpu, elapsed: Duration) -> Option<Shares> {
        if now.cpus != before.cpus {
            return None;
        }
        let all = elapsed.saturating_mul(now.cpus.max(1));
        // What leaps further than time passes began anew as well, from a higher sum.
        let most = all.saturating_mul(2).saturating_add(LATE);
        let step = STEP.saturating_mul(now.cpus.max(1));
        let (now, before) = (now.times.modes(), before.times.modes());
        let mut parts = [None; CpuTimes::MODES.len()];
        for ((part, now), before) in parts.iter_mut().zip(now).zip(before) {
            *part = counted(now, before, step).filter(|time| *time <= most);
        }
        let sum = parts.into_iter().flatten().fold(Duration::ZERO, Duration::saturating_add);
        // The time of a counter that began anew was spent all the same.
        let whole = if parts.contains(&None) { sum.max(all) } else { sum };
        let share = |part: Option<Duration>| Percent::of(part?, Nanos::from(whole));
        (!sum.is_zero()).then(|| Shares { modes: parts.map(share) })
    }

    /// Each mode by its name, and its share.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, Option<Percent>)> {
        CpuTimes::MODES.into_iter().zip(self.modes)
    }

    /// The share of the mode of this name.
    pub fn of(&self, mode: &str) -> Option<Percent> {
        self.each().find(|(name, _)| *name == mode)?.1
    }
}

#[cfg(test)]
mod tests;
