//! Rates of a block device between two readings of /proc/diskstats, the limits that they are held
//! against, and both as documents have them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::percents::{Nanos, Percent};
use crate::capture_data::Device;
use crate::host::{Disk, Text};

pub(super) const MIB: f64 = 1_048_576.0;

/// What a device must pass to be saturated or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) util_percent: f64,
    /// Bytes a second that an nvme must read or write beside that: it is never idle for long.
    pub(super) nvme_read: f64,
    pub(super) nvme_write: f64,
    pub(super) slow: Duration,
}

pub(super) type Name = Text<32>;

/// What a device did between two readings, each counter for itself: `None` of one that went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    read: Moved,
    write: Moved,
    busy: Option<Duration>,
    queued: Option<Duration>,
}

/// Reads, or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    bytes: Option<u64>,
    requests: Option<u64>,
    time: Option<Duration>,
}

/// One sample of a device: what is not known of it is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) read: Rate,
    pub(super) write: Rate,
    pub(super) util: Option<Percent>,
    pub(super) queue: Option<f64>,
    /// No counter went back.
    pub(super) whole: bool,
    /// Hidden paths that it is the sum of; 0: the device's own.
    pub(super) paths: u32,
}

/// Reads, or writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) bytes: Option<f64>,
    pub(super) requests: Option<f64>,
    /// How long one took on average. `None`: none came to its end.
    pub(super) took: Option<Duration>,
}

/// Which limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    IoUtil,
    ReadAwait,
    WriteAwait,
    Manual,
}

/// What was known of a device when a capture was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) name: Name,
    /// `None`: the kernel hides it.
    pub(super) device: Option<Device>,
    pub(super) rates: Rates,
    pub(super) reason: Reason,
}

impl Passed {
    /// Between two readings.
    pub(super) fn between(before: &Disk, now: &Disk) -> Passed {
        // A device that began anew did not run over.
        let anew = now.reads < before.reads || now.writes < before.writes;
        let time = |now: Duration, before: Duration| since(now, before, anew).map(|time| time.min(LONGEST));
        Passed {
            read: Moved {
                bytes: now.read_bytes.checked_sub(before.read_bytes),
                requests: now.reads.checked_sub(before.reads),
                time: time(now.read_time, before.read_time),
            },
            write: Moved {
                bytes: now.write_bytes.checked_sub(before.write_bytes),
                requests: now.writes.checked_sub(before.writes),
                time: time(now.write_time, before.write_time),
            },
            busy: time(now.busy, before.busy),
            queued: time(now.queued, before.queued),
        }
    }

    /// Whether a request came to its end, or was under way.
    pub(super) fn is_use(&self) -> bool {
        let Passed { read, write, busy, .. } = self;
        [read.requests, write.requests].iter().any(|requests| requests.is_some_and(|some| some > 0))
            || busy.is_some_and(|busy| !busy.is_zero())
    }

    /// Both paths of one device. They are busy at the same time or in turn: together they are so for at
    /// least as long as the busier one.
    pub(super) fn and(self, other: Passed) -> Passed {
        let both = |one: Option<Duration>, two: Option<Duration>| Some(one?.saturating_add(two?));
        Passed {
            read: self.read.and(other.read),
            write: self.write.and(other.write),
            busy: self.busy.max(other.busy),
            queued: both(self.queued, other.queued),
        }
    }
}

impl Moved {
    fn and(self, other: Moved) -> Moved {
        let both = |one: Option<u64>, two: Option<u64>| Some(one?.saturating_add(two?));
        Moved {
            bytes: both(self.bytes, other.bytes),
            requests: both(self.requests, other.requests),
            time: self.time.zip(other.time).map(|(one, two)| one.saturating_add(two)),
        }
    }

    fn rate(self, seconds: f64) -> Rate {
        let each = |count: u64| count as f64 / seconds;
        let took = |requests: u64| {
            let time = self.time.filter(|_| requests > 0)?;
            Some(Duration::from_secs_f64(time.as_secs_f64() / requests as f64))
        };
        Rate {
            bytes: self.bytes.map(each),
            requests: self.requests.map(each),
            took: self.requests.and_then(took),
        }
    }

    fn is_whole(self) -> bool {
        self.bytes.is_some() && self.requests.is_some() && self.time.is_some()
    }
}

impl Rates {
    /// The rates of what passed in `elapsed`, on the device itself (`paths` is 0) or on `paths` hidden paths to it.
    pub(super) fn of(passed: Passed, elapsed: Duration, paths: u32) -> Rates {
        let seconds = elapsed.as_secs_f64();
        let Passed { read, write, busy, queued } = passed;
        Rates {
            read: read.rate(seconds),
            write: write.rate(seconds),
            util: busy.and_then(|busy| Percent::of(busy, Nanos::from(elapsed))),
            queue: queued.map(|queued| queued.as_secs_f64() / seconds),
            whole: read.is_whole() && write.is_whole() && busy.is_some() && queued.is_some(),
            paths,
        }
    }
}

/// The kernel counts times in milliseconds of 32 bits, which run over: with 64 requests in flight, every
/// 18 hours.
const RUN_OVER: Duration = Duration::from_millis(1 << 32);

/// What a counter of times counted between two readings. `None`: it went back, as all do when a device begins anew.
fn since(now: Duration, before: Duration, anew: bool) -> Option<Duration> {
    if let Some(passed) = now.checked_sub(before) {
        return Some(passed);
    }
    let passed = now.checked_add(RUN_OVER)?.checked_sub(before)?;
    // To run over by more than half of it takes 25 days of requests in one sample: it went back by a little.
    (!anew && before < RUN_OVER && passed < RUN_OVER / 2).then_some(passed)
}

/// No time that is added up here is longer: a thousand years of requests.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

impl Limits {
    /// The first limit that this sample passes.
    pub(super) fn passed(&self, name: &str, rates: &Rates) -> Option<Reason> {
        let slow = |rate: Rate| rate.took.is_some_and(|took| took > self.slow);
        let busy = rates.util.is_some_and(|util| util.value() > self.util_percent);
        let past = |rate: Rate, limit: f64| rate.bytes.is_some_and(|bytes| bytes > limit);
        let fast = past(rates.read, self.nvme_read) || past(rates.write, self.nvme_write);
        if busy && (fast || !name.starts_with("nvme")) {
            Some(Reason::IoUtil)
        } else if slow(rates.read) {
            Some(Reason::ReadAwait)
        } else {
            slow(rates.write).then_some(Reason::WriteAwait)
        }
    }
}

/// Whether a line of diskstats is a partition: they stand below the disk that they are of, with
/// its name, a `p` if that ends in a digit, and a number.
pub(super) fn is_partition(name: &str, whole: &str) -> bool {
    let Some(rest) = name.strip_prefix(whole).filter(|_| !whole.is_empty()) else { return false };
    let number = if whole.ends_with(|last: char| last.is_ascii_digit()) {
        rest.strip_prefix('p').unwrap_or_default()
    } else {
        rest
    };
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[derive(Serialize)]
pub(super) struct Readings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason_snapshot: Option<Snap>,
}

/// A sample, as documents have it.
#[derive(Serialize)]
pub(super) struct Snap {
    #[serde(rename = "type")]
    reason: Reason,
    #[serde(serialize_with = "text")]
    device: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    major_num: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minor_num: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<u32>,
    iostatus: Status,
    summary: Summary,
}

#[derive(Clone, Copy, Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_iops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_await: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_iops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_await: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_util: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_size: Option<f64>,
}

impl Snap {
    pub(super) fn new(sample: Sample, limits: Limits) -> Snap {
        let Rates { read, write, util, queue, paths, .. } = sample.rates;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // no rate is negative, and `as` saturates
        let whole = |rate: f64| rate as u64;
        let iostatus = Status {
            read_bps: read.bytes.map(whole),
            read_iops: read.requests.map(hundredths),
            read_await: read.took.map(millis),
            write_bps: write.bytes.map(whole),
            write_iops: write.requests.map(hundredths),
            write_await: write.took.map(millis),
            io_util: util,
            queue_size: queue.map(hundredths),
        };
        Snap {
            reason: sample.reason,
            device: sample.name,
            major_num: sample.device.map(|device| device.major),
            minor_num: sample.device.map(|device| device.minor),
            paths: (paths > 0).then_some(paths),
            iostatus,
            summary: Summary { name: sample.name, reason: sample.reason, rates: sample.rates, limits },
        }
    }
}

/// To two digits.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn millis(time: Duration) -> f64 {
    hundredths(time.as_secs_f64() * 1000.0)
}

fn text<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name)
}

/// A sample in words.
struct Summary {
    name: Name,
    reason: Reason,
    rates: Rates,
    limits: Limits,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { read, write, util, paths, .. } = self.rates;
        write!(f, "{}", &*self.name)?;
        if paths > 0 {
            write!(f, " (counted on its {paths} hidden paths)")?;
        }
        match util {
            Some(util) => write!(f, " was busy for {:.1} % of the time", util.value())?,
            None => f.write_str(" was busy for a time that is not known")?,
        }
        for (rate, word) in [(read, "reads"), (write, "writes")] {
            if let Rate { took: Some(took), bytes: Some(bytes), requests: Some(requests) } = rate {
                let (mib, ms) = (bytes / MIB, millis(took));
                write!(f, "; {requests:.0} {word}/s, {mib:.1} MiB/s, {ms:.1} ms each")?;
            }
        }
        match self.reason {
            Reason::IoUtil => write!(f, "; past the limit of {} %", self.limits.util_percent),
            Reason::ReadAwait | Reason::WriteAwait => {
                write!(f, "; past the limit of {} ms", millis(self.limits.slow))
            }
            Reason::Manual => Ok(()),
        }
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::is_partition;

    #[test]
    fn a_partition_has_the_name_of_the_disk_above_it_and_a_number() {
        for (name, whole, want) in [
            ("sda1", "sda", true),
            ("sda12", "sda", true),
            ("nvme0n1p2", "nvme0n1", true),
            ("loop0p1", "loop0", true),
            ("sdaa", "sda", false),
            ("sda", "sda", false),
            ("dm-10", "dm-1", false),
            ("loop10", "loop1", false),
            ("nvme0n10", "nvme0n1", false),
            ("sdb1", "sda", false),
            ("1", "", false),
        ] {
            assert_eq!(is_partition(name, whole), want, "{name} below {whole}");
        }
    }
}
