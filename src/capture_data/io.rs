//! Reads and writes of block devices, by who did them to which files.

use std::time::Duration;

use super::{Device, Rows, Stall};
use crate::host::Key;

/// Reads and writes of some block devices, by who did them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DiskIo<'a> {
    /// The device that was asked about first, then what lies over and under it; of the whole host
    /// the busiest first.
    pub devices: Rows<'a, DeviceIo<'a>>,
    /// The longest waits of tasks that use these devices, longest first.
    pub stalls: Rows<'a, Stall<'a>>,
    /// Tracepoints that are there and could not be attached: what they count is missing.
    pub not_attached: &'a [&'static str],
}

/// What happened on one block device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceIo<'a> {
    /// Its numbers.
    pub device: Device,
    /// Its name in /sys/block.
    pub name: &'a str,
    /// All bytes read meanwhile, as /proc/diskstats counts them.
    pub read_bytes: Option<u64>,
    /// All bytes written meanwhile, as /proc/diskstats counts them.
    pub write_bytes: Option<u64>,
    /// Who did it, most bytes first.
    pub processes: Rows<'a, ProcessIo<'a>>,
    /// What is in none of `processes`, for the arena had no room for it.
    pub beyond: Beyond,
}

/// Reads and writes of files that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// How many files, of each process.
    pub files: usize,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Bytes written to the device.
    pub write_bytes: u64,
}

impl Beyond {
    /// One more file.
    #[must_use]
    pub fn and(self, read_bytes: u64, write_bytes: u64) -> Beyond {
        Beyond {
            files: self.files.saturating_add(1),
            read_bytes: self.read_bytes.saturating_add(read_bytes),
            write_bytes: self.write_bytes.saturating_add(write_bytes),
        }
    }
}

/// What one process did on one block device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessIo<'a> {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// The name of its main thread.
    pub comm: &'a str,
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// The files, most bytes first. Direct and buffered use of one file are two.
    pub files: Rows<'a, FileIo<'a>>,
}

/// What a read or a write is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoObject<'a> {
    /// A file: the filesystem's numbers, its inode and, if it was told, its path.
    File(Device, u64, Option<&'a str>),
    /// The block device itself: a mounted filesystem's metadata and journal.
    Device(Option<&'a str>),
    /// Nobody can tell: a filesystem's own buffers, swap.
    Unknown,
}

/// Reads and writes of one file by one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileIo<'a> {
    /// Of what.
    pub target: IoObject<'a>,
    /// Past the page cache.
    pub direct: bool,
    /// What was written had been made dirty before the capture, so by whom is not known.
    pub dirtied_earlier: bool,
    /// Several processes wrote to the file, and by whom this was made dirty is not known.
    pub shared: bool,
    /// Bytes that the process wrote to the page cache, where the filesystem tells.
    pub fs_write_bytes: Option<u64>,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Bytes written to the device.
    pub write_bytes: u64,
    /// Reads and writes that came to their end.
    pub finished: u64,
    /// Those that were still under way at the end of the capture.
    pub in_flight: u64,
    /// From the queue to the end.
    pub whole: Latency,
    /// From when the device got it to the end.
    pub device: Latency,
}

/// How long requests took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// On average.
    pub average: Duration,
    /// At most.
    pub max: Duration,
}
