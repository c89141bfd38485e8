//! What the io programs hand over, read field by field: rows, bios under way, paths, waits.

use std::mem::offset_of;
use std::time::Duration;

use super::comm;
use super::skeletons::io::types;
use crate::capture_data::Device;
use crate::host::Key;

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

// The parsers below read these, field by field.
const _: () = assert!(
    size_of::<types::row_key>() == 56
        && offset_of!(types::row_key, slot) == 51
        && size_of::<types::row>() == 88
        && size_of::<types::flight>() == 104
        && size_of::<types::control>() == 32
        && offset_of!(types::path_record, names) == 48
);

/// Fields of a record, one after the other.
struct Fields<'r>(&'r [u8]);

impl<'r> Fields<'r> {
    fn take<const N: usize>(&mut self) -> Option<&'r [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| *byte)
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(|raw| u32::from_ne_bytes(*raw))
    }

    fn long(&mut self) -> Option<u64> {
        self.take().map(|raw| u64::from_ne_bytes(*raw))
    }

    fn time(&mut self) -> Option<Duration> {
        self.long().map(Duration::from_nanos)
    }
}

impl IoFile {
    /// Reads a `struct file_id`.
    fn take(fields: &mut Fields<'_>) -> Option<IoFile> {
        let (superblock, inode, tree) = (fields.long()?, fields.long()?, fields.long()?);
        let (filesystem, generation) = (unpack_device(fields.word()?), fields.word()?);
        Some(IoFile { filesystem, superblock, inode, tree, generation })
    }
}

impl IoKey {
    /// Reads a `struct row_key`.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<IoKey> {
        const FILE: u8 = 1;
        const DISK: u8 = 2;
        let mut fields = Fields(raw);
        let (container, file) = (Key::from_bits(fields.long()?), IoFile::take(&mut fields)?);
        let (pid, disk) = (fields.word()?, unpack_device(fields.word()?));
        let target = match fields.byte()? {
            FILE => IoTarget::File(file),
            DISK => IoTarget::Disk(file.filesystem),
            _ => IoTarget::Unknown,
        };
        let (direct, earlier, _slot) = (fields.byte()? != 0, fields.byte()? != 0, fields.byte()?);
        let shared = fields.byte()? != 0;
        Some(IoKey { container, pid, disk, target, direct, earlier, shared })
    }
}

impl IoRow {
    /// Reads a `struct row`.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<IoRow> {
        let mut fields = Fields(raw);
        Some(IoRow {
            fs_written: fields.long()?,
            read: fields.long()?,
            written: fields.long()?,
            finished: fields.long()?,
            in_flight: 0,
            whole: (fields.time()?, fields.time()?),
            issued: fields.long()?,
            device: (fields.time()?, fields.time()?),
            comm: comm(fields.take()?),
        })
    }

    /// Reads a `struct flight` as it is now.
    pub(super) fn of_flight(raw: &[u8], now: u64) -> Option<(IoKey, IoRow)> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_io_row", &[&[1], raw]);
        let (key, rest) = raw.split_at_checked(size_of::<types::row_key>())?;
        let mut fields = Fields(rest);
        let since = |at: u64| Duration::from_nanos(if at == 0 { 0 } else { now.saturating_sub(at) });
        let (queued, issued) = (since(fields.long()?), since(fields.long()?));
        fields.take::<8>()?;
        let row = IoRow {
            comm: comm(fields.take()?),
            whole: (queued, queued),
            device: (issued, issued),
            ..IoRow::default()
        };
        Some((IoKey::parse(key)?, row))
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
        let mut fields = Fields(raw);
        match fields.word()? {
            PATH => path(fields),
            STALL => stall(fields).map(IoRecord::Stall),
            _ => None,
        }
    }
}

/// What the kernel puts after a name that is gone, in /proc/PID/maps too.
const DELETED: &str = " (deleted)";

fn path(mut fields: Fields<'_>) -> Option<IoRecord> {
    let (whole, file) = (fields.word()? != 0, IoFile::take(&mut fields)?);
    let (bytes, deleted) = (usize::try_from(fields.word()?).ok()?, fields.word()? != 0);
    let names = fields.0.get(..bytes)?;
    let names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let mut path = String::with_capacity(bytes + 4);
    if !whole {
        path.push_str("/...");
    }
    for name in names.iter().rev() {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    if path.is_empty() {
        path.push('/');
    }
    if deleted {
        path.push_str(DELETED);
    }
    Some(IoRecord::Path { file, path: path.into() })
}

fn stall(mut fields: Fields<'_>) -> Option<IoStall> {
    let (pid, tid, cpu) = (fields.word()?, fields.word()?, fields.word()?);
    let (container, blocked) = (Key::from_bits(fields.long()?), fields.time()?);
    let (in_iowait, bytes) = (fields.word()? != 0, usize::try_from(fields.word()?).ok()?);
    let comm = comm(fields.take()?);
    let address = |raw: &[u8]| raw.first_chunk().map(|raw| u64::from_ne_bytes(*raw));
    let kernel = fields.0.chunks_exact(8).take(bytes / 8).filter_map(address).collect();
    Some(IoStall { pid, tid, cpu, container, blocked, in_iowait, comm, kernel })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(words: &[u32], tail: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).chain(tail.iter().copied()).collect()
    }

    #[test]
    fn a_path_record_is_read_backwards_and_marks_a_missing_beginning() {
        let names = b"file\0b\0a\0garbage";
        let at = |whole: u32, bytes: u32, deleted: u32| {
            record(&[1, whole, 6, 0, 12, 0, 256, 0, 7 << 20 | 3, 77, bytes, deleted], names)
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
        let mut stall = record(&[2, 7, 8, 1, 0, 0, 1_500_000_000, 0, 1, 8], b"dd\0garbage!!!!!!");
        stall.truncate(56);
        assert_eq!(stall.len(), 56);
        stall.extend(0xffff_ffff_8100_0000_u64.to_ne_bytes());
        stall.extend([0xff; 16]);
        let Some(IoRecord::Stall(read)) = IoRecord::parse(&stall) else { panic!("a whole record") };
        assert_eq!((read.pid, read.tid, read.cpu, read.in_iowait), (7, 8, 1, true));
        assert_eq!((read.blocked, &*read.comm), (Duration::from_millis(1500), "dd"));
        assert_eq!(read.kernel, [0xffff_ffff_8100_0000]);
        for len in 0..56 {
            assert_eq!(IoRecord::parse(stall.get(..len).expect("shorter")), None, "{len} bytes");
        }
        assert_eq!(IoRecord::parse(&record(&[9; 30], b"")), None);
        assert_eq!(IoKey::parse(&[0; 52]), None);
        assert_eq!(IoRow::parse(&[0; 60]), None);
    }

    #[test]
    fn device_numbers_survive_the_kernels_encoding() {
        for device in [Device { major: 254, minor: 0 }, Device { major: 7, minor: (1 << 20) - 1 }] {
            assert_eq!(unpack_device(pack(device)), device);
        }
    }
}
