//! What the io programs hand over, read field by field: rows, bios under way, paths, waits.

use std::time::Duration;

use super::comm;
use crate::capture_data::Device;
use crate::host::Key;
use crate::layout::{io as layout, numbers};

/// Whose I/O to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoKey {
    /// The container of the process.
    pub container: Option<Key>,
    /// The process.
    pub pid: u32,
    /// The device that it went to.
    pub disk: Device,
    /// What it was of.
    pub target: IoTarget,
    /// Past the page cache.
    pub direct: bool,
    /// Written pages were dirty before anyone watched.
    pub earlier: bool,
    /// Several processes wrote to the file, and whose pages these are is not known: the process is the one
    /// that handed them to the device.
    pub shared: bool,
}

/// A file for as long as it lives: another one may have its inode's number at the same time, in another
/// subvolume, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IoFile {
    /// Its filesystem's numbers, and what else tells that apart.
    pub filesystem: Device,
    /// The same.
    pub superblock: u64,
    /// Its inode.
    pub inode: u64,
    /// The subvolume.
    pub tree: u64,
    /// The inode's generation.
    pub generation: u32,
}

/// What I/O was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoTarget {
    /// A file.
    File(IoFile),
    /// A block device's own cache.
    Disk(Device),
    /// Nobody can tell.
    Unknown,
}

/// What was added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoRow {
    /// The process's name.
    pub comm: Box<str>,
    /// Bytes that a filesystem took into its cache.
    pub fs_written: u64,
    /// Bytes from the device.
    pub read: u64,
    /// Bytes to the device.
    pub written: u64,
    /// How many ended.
    pub finished: u64,
    /// How many are still under way.
    pub in_flight: u64,
    /// From the queue to the end: all of them, and the longest.
    pub whole: (Duration, Duration),
    /// How many of them were issued to the device.
    pub issued: u64,
    /// From then to the end: all of them, and the longest.
    pub device: (Duration, Duration),
}

/// What comes through the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoRecord {
    /// The path of a file inside its filesystem.
    Path {
        /// The file.
        file: IoFile,
        /// Its names, from the root down, each after a slash; `(deleted)` after them if that was gone.
        path: Box<str>,
    },
    /// A task that was in D state for long.
    Stall(IoStall),
}

/// A task that was in D state for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoStall {
    /// Its process.
    pub pid: u32,
    /// Its own id.
    pub tid: u32,
    /// Where it ran last.
    pub cpu: u32,
    /// Its container.
    pub container: Option<Key>,
    /// For how long.
    pub blocked: Duration,
    /// Whether its wait is accounted as iowait.
    pub in_iowait: bool,
    /// Its name.
    pub comm: Box<str>,
    /// Frames of the kernel, innermost first.
    pub kernel: Vec<u64>,
}

/// include/linux/kdev_t.h.
const MINOR_BITS: u32 = 20;

pub(super) fn pack(device: Device) -> u32 {
    device.major << MINOR_BITS | device.minor
}

fn unpack_device(raw: u32) -> Device {
    Device { major: raw >> MINOR_BITS, minor: raw & ((1 << MINOR_BITS) - 1) }
}

impl IoFile {
    fn of(file: &layout::FileId) -> IoFile {
        IoFile {
            filesystem: unpack_device(file.filesystem),
            superblock: file.superblock,
            inode: file.inode,
            tree: file.tree,
            generation: file.generation,
        }
    }
}

impl IoKey {
    /// Reads a `struct row_key`.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<IoKey> {
        layout::RowKey::read(raw).map(|(key, _)| IoKey::of(&key))
    }

    fn of(key: &layout::RowKey) -> IoKey {
        const FILE: u8 = 1;
        const DISK: u8 = 2;
        let file = IoFile::of(&key.file);
        let target = match key.target {
            FILE => IoTarget::File(file),
            DISK => IoTarget::Disk(file.filesystem),
            _ => IoTarget::Unknown,
        };
        IoKey {
            container: Key::from_bits(key.container),
            pid: key.tgid,
            disk: unpack_device(key.disk),
            target,
            direct: key.direct != 0,
            earlier: key.earlier != 0,
            shared: key.shared != 0,
        }
    }
}

impl IoRow {
    /// Reads a `struct row`.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<IoRow> {
        let (row, _) = layout::Row::read(raw)?;
        let time = Duration::from_nanos;
        Some(IoRow {
            fs_written: row.fs_written,
            read: row.read,
            written: row.written,
            finished: row.bios,
            in_flight: 0,
            whole: (time(row.q2c_ns), time(row.q2c_max_ns)),
            issued: row.issued,
            device: (time(row.d2c_ns), time(row.d2c_max_ns)),
            comm: comm(&row.comm),
        })
    }

    /// Reads a `struct flight` as it is now.
    pub(super) fn of_flight(raw: &[u8], now: u64) -> Option<(IoKey, IoRow)> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_io_row", &[&[1], raw]);
        let (flight, _) = layout::Flight::read(raw)?;
        let since = |at: u64| Duration::from_nanos(if at == 0 { 0 } else { now.saturating_sub(at) });
        let (queued, issued) = (since(flight.queued_ns), since(flight.issued_ns));
        let row = IoRow {
            comm: comm(&flight.comm),
            whole: (queued, queued),
            device: (issued, issued),
            ..IoRow::default()
        };
        Some((IoKey::of(&flight.key), row))
    }
}

impl IoRecord {
    /// Reads a record of the ring.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<IoRecord> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_io_record", &[raw]);
        const PATH: u32 = 1;
        const STALL: u32 = 2;
        match raw.first_chunk().map(|kind| u32::from_ne_bytes(*kind))? {
            PATH => path(raw),
            STALL => stall(raw).map(IoRecord::Stall),
            _ => None,
        }
    }
}

/// What the kernel puts after a name that is gone, in /proc/PID/maps too.
const DELETED: &str = " (deleted)";

fn path(raw: &[u8]) -> Option<IoRecord> {
    let (record, names) = layout::PathRecord::read(raw)?;
    let bytes = usize::try_from(record.bytes).ok()?;
    let names = names.get(..bytes)?;
    let names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let mut path = String::with_capacity(bytes + 4);
    if record.whole == 0 {
        path.push_str("/...");
    }
    for name in names.iter().rev() {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    if path.is_empty() {
        path.push('/');
    }
    if record.deleted != 0 {
        path.push_str(DELETED);
    }
    Some(IoRecord::Path { file: IoFile::of(&record.file), path: path.into() })
}

fn stall(raw: &[u8]) -> Option<IoStall> {
    let (record, stack) = layout::StallRecord::read(raw)?;
    let frames = usize::try_from(record.stack_bytes).ok()? / 8;
    Some(IoStall {
        pid: record.tgid,
        tid: record.pid,
        cpu: record.cpu,
        container: Key::from_bits(record.container),
        blocked: Duration::from_nanos(record.blocked_ns),
        in_iowait: record.in_iowait != 0,
        comm: comm(&record.comm),
        kernel: numbers(stack).take(frames).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_record_is_read_backwards_and_marks_a_missing_beginning() {
        let names = b"file\0b\0a\0garbage";
        let file =
            layout::FileId { superblock: 6, inode: 12, tree: 256, filesystem: 7 << 20 | 3, generation: 77 };
        let at = |whole: u32, bytes: u32, deleted: u32| {
            let record = layout::PathRecord { kind: 1, whole, file, bytes, deleted };
            [&record.bytes()[..], names].concat()
        };
        let path = |raw: &[u8]| match IoRecord::parse(raw) {
            Some(IoRecord::Path { file, path }) => {
                let filesystem = Device { major: 7, minor: 3 };
                let want = IoFile { filesystem, superblock: 6, inode: 12, tree: 256, generation: 77 };
                assert_eq!(file, want);
                Some(String::from(path))
            }
            _ => None,
        };
        assert_eq!(path(&at(1, 9, 0)).as_deref(), Some("/a/b/file"));
        assert_eq!(path(&at(0, 9, 0)).as_deref(), Some("/.../a/b/file"));
        assert_eq!(path(&at(1, 9, 1)).as_deref(), Some("/a/b/file (deleted)"));
        assert_eq!(path(&at(1, 0, 0)).as_deref(), Some("/"));
        assert_eq!(path(&at(1, 1000, 0)), None, "it claims more than it has");
    }

    #[test]
    fn a_truncated_record_or_one_of_unknown_kind_is_refused() {
        let head = layout::StallRecord {
            kind: 2,
            tgid: 7,
            pid: 8,
            cpu: 1,
            container: 0,
            blocked_ns: 1_500_000_000,
            in_iowait: 1,
            stack_bytes: 8,
            comm: *b"dd\0garbage!!!!!!",
        };
        let frame = 0xffff_ffff_8100_0000_u64.to_ne_bytes();
        let stall = [&head.bytes()[..], &frame, &[0xff; 16]].concat();
        let Some(IoRecord::Stall(read)) = IoRecord::parse(&stall) else { panic!("a whole record") };
        assert_eq!((read.pid, read.tid, read.cpu, read.in_iowait), (7, 8, 1, true));
        assert_eq!((read.blocked, &*read.comm), (Duration::from_millis(1500), "dd"));
        assert_eq!(read.kernel, [0xffff_ffff_8100_0000]);
        for len in 0..layout::StallRecord::SIZE {
            assert_eq!(IoRecord::parse(stall.get(..len).expect("shorter")), None, "{len} bytes");
        }
        assert_eq!(IoRecord::parse(&[9; 120]), None);
        assert_eq!(IoKey::parse(&[0; layout::RowKey::SIZE - 1]), None);
        assert_eq!(IoRow::parse(&[0; layout::Row::SIZE - 1]), None);
    }

    #[test]
    fn device_numbers_survive_the_kernels_encoding() {
        for device in [Device { major: 254, minor: 0 }, Device { major: 7, minor: (1 << 20) - 1 }] {
            assert_eq!(unpack_device(pack(device)), device);
        }
    }
}
