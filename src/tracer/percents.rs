//! Shares of CPU time in percent, how they move, and the limits that they are held against.

use std::time::Duration;

use crate::config::Values;
use crate::host::CpuTimes;

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

    /// So many percent.
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
    /// So many CPUs for as long.
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

/// CPU time of the host between two readings. `None` if a counter went back, as they do when a
/// CPU goes offline. iowait alone may go back at any time (proc_stat(5)): then there was none.
pub fn since(now: &CpuTimes, before: &CpuTimes) -> Option<CpuTimes> {
    Some(CpuTimes {
        user: now.user.checked_sub(before.user)?,
        nice: now.nice.checked_sub(before.nice)?,
        system: now.system.checked_sub(before.system)?,
        idle: now.idle.checked_sub(before.idle)?,
        iowait: now.iowait.saturating_sub(before.iowait),
        irq: now.irq.checked_sub(before.irq)?,
        softirq: now.softirq.checked_sub(before.softirq)?,
        steal: now.steal.checked_sub(before.steal)?,
    })
}

/// All CPU time there was. Guest time is in `user` and `nice` already.
pub fn whole(times: &CpuTimes) -> Nanos {
    let CpuTimes { user, nice, system, idle, iowait, irq, softirq, steal } = *times;
    let all = [user, nice, system, idle, iowait, irq, softirq, steal];
    Nanos(all.into_iter().map(|time| Nanos::from(time).0).sum())
}
