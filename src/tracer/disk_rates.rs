//! Rates of a block device between two readings of /proc/diskstats, the limits that they are held
//! against, and both as documents have them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::percents::{Nanos, Percent};
use crate::evidence::Device;
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

/// One sample of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) read: Rate,
    pub(super) write: Rate,
    pub(super) util: Percent,
    pub(super) queue: f64,
}

/// Reads, or writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) bytes: f64,
    pub(super) requests: f64,
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
    pub(super) device: Device,
    pub(super) rates: Rates,
    pub(super) reason: Reason,
}

impl Rates {
    /// Between two readings. `None` if a counter went back.
    pub(super) fn between(before: &Disk, now: &Disk, elapsed: Duration) -> Option<Rates> {
        let seconds = elapsed.as_secs_f64();
        let rate = |bytes: u64, requests: u64, time: Duration| Rate {
            bytes: bytes as f64 / seconds,
            requests: requests as f64 / seconds,
            took: (requests > 0).then(|| Duration::from_secs_f64(time.as_secs_f64() / requests as f64)),
        };
        let read_time = now.read_time.checked_sub(before.read_time)?.min(LONGEST);
        let write_time = now.write_time.checked_sub(before.write_time)?.min(LONGEST);
        let busy = now.busy.checked_sub(before.busy)?;
        let queued = now.queued.checked_sub(before.queued)?;
        let read_bytes = now.read_bytes.checked_sub(before.read_bytes)?;
        let write_bytes = now.write_bytes.checked_sub(before.write_bytes)?;
        Some(Rates {
            read: rate(read_bytes, now.reads.checked_sub(before.reads)?, read_time),
            write: rate(write_bytes, now.writes.checked_sub(before.writes)?, write_time),
            util: Percent::of(busy, Nanos::from(elapsed))?,
            queue: queued.as_secs_f64() / seconds,
        })
    }
}

/// No time that is added up here is longer: a thousand years of requests.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

impl Limits {
    /// The first limit that this sample passes.
    pub(super) fn passed(&self, name: &str, rates: &Rates) -> Option<Reason> {
        let slow = |rate: Rate| rate.took.is_some_and(|took| took > self.slow);
        let busy = rates.util.ratio() * 100.0 > self.util_percent;
        let fast = rates.read.bytes > self.nvme_read || rates.write.bytes > self.nvme_write;
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
    major_num: u32,
    minor_num: u32,
    iostatus: Status,
    summary: Summary,
}

#[derive(Clone, Copy, Serialize)]
struct Status {
    read_bps: u64,
    read_iops: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_await: Option<f64>,
    write_bps: u64,
    write_iops: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_await: Option<f64>,
    io_util: Percent,
    queue_size: f64,
}

impl Snap {
    pub(super) fn new(sample: Sample, limits: Limits) -> Snap {
        let Rates { read, write, util, queue } = sample.rates;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // no rate is negative, and `as` saturates
        let whole = |rate: f64| rate as u64;
        let iostatus = Status {
            read_bps: whole(read.bytes),
            read_iops: hundredths(read.requests),
            read_await: read.took.map(millis),
            write_bps: whole(write.bytes),
            write_iops: hundredths(write.requests),
            write_await: write.took.map(millis),
            io_util: util,
            queue_size: hundredths(queue),
        };
        Snap {
            reason: sample.reason,
            device: sample.name,
            major_num: sample.device.major,
            minor_num: sample.device.minor,
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
        let Rates { read, write, util, .. } = self.rates;
        let (name, percent) = (&*self.name, util.ratio() * 100.0);
        write!(f, "{name} was busy for {percent:.1} % of the time")?;
        for (rate, word) in [(read, "reads"), (write, "writes")] {
            if let Some(took) = rate.took {
                let (mib, ms) = (rate.bytes / MIB, millis(took));
                write!(f, "; {:.0} {word}/s, {mib:.1} MiB/s, {ms:.1} ms each", rate.requests)?;
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
