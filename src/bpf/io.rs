//! Reads and writes of block devices, by process and file. The kernel adds them up in rows, one
//! set for each capture that runs; paths and long waits come through a ring.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::mem::offset_of;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};

use super::containers::{Followed, unpack};
use super::error::{Error, attempt};
use super::meter::Meter;
use super::ring::{Drained, Ring};
use super::skeletons::io::{IoSkel, IoSkelBuilder, types};
use super::{btf, comm, place};
use crate::evidence::Device;
use crate::host::Key;

/// Captures that are told apart at a time.
pub const SLOTS: u32 = 8;

const WHAT: &str = "the io program";

/// How a watched device lies to the others, beside the slots' bits.
const BELOW: u32 = 1 << SLOTS;
const ABOVE: u32 = 1 << (SLOTS + 1);

/// The first kernels whose tracepoints are as they are now.
const WITHOUT_QUEUE: (u32, u32) = (5, 11);
const WITH_FOLIOS: (u32, u32) = (5, 16);

/// The function that ends direct I/O.
const DIRECT_END: &str = "iomap_dio_bio_end_io";

/// The loaded programs.
pub struct Io {
    skeleton: IoSkel<'static>,
    proc: Box<Path>,
    direct_end: Option<u64>,
    runs: u64,
}

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
}

/// What I/O was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoTarget {
    /// A file, by its filesystem and its inode.
    File(Device, u64),
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
        /// Its filesystem.
        filesystem: Device,
        /// Its inode.
        inode: u64,
        /// Its names, from the root down, each after a slash.
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

/// A device that is to be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// A bit for each slot that wants it.
    pub slots: u32,
    /// It lies under another one that is watched.
    pub below: bool,
    /// Another one that is watched lies under it.
    pub above: bool,
}

impl Io {
    /// Loads the programs.
    pub fn load(
        paths: &crate::config::Paths,
        followed: &Followed,
        unified: bool,
        release: Option<(u32, u32)>,
        meter: &mut Meter,
    ) -> Result<Io, Error> {
        btf(&paths.sys)?;
        // A kernel without ext4 has not its tracepoints.
        let skeleton =
            load(followed, unified, release, true).or_else(|_| load(followed, unified, release, false))?;
        let progs = &skeleton.progs;
        for (name, program) in [
            ("bio_queued", &progs.bio_queued),
            ("rq_issued", &progs.rq_issued),
            ("rq_completed", &progs.rq_completed),
            ("task_wakes", &progs.task_wakes),
        ] {
            meter.add(name, program.as_fd());
        }
        Ok(Io { skeleton, proc: paths.proc.as_path().into(), direct_end: None, runs: 0 })
    }

    /// Prepares to watch: nothing is attached until a device is named. Tasks that are in D state for as long as `stall` are told.
    pub fn arm(&mut self, stall: Duration) -> Result<IoArmed<'_>, Error> {
        self.runs += 1;
        if self.direct_end.is_none() {
            self.direct_end = Some(address(&self.proc.join("kallsyms"), DIRECT_END).unwrap_or(0));
        }
        let ring = attempt(WHAT, || Ring::open(&self.skeleton.maps.records))?;
        let mut armed = IoArmed { program: self, ring, links: Vec::new(), watched: BTreeMap::new() };
        armed.forget_old();
        armed.control(stall)?;
        Ok(armed)
    }

    /// The count of what found no room, to be read from any thread.
    pub fn lost(&self) -> Result<IoLost, Error> {
        attempt(WHAT, || MapHandle::try_from(&self.skeleton.maps.lost)).map(IoLost)
    }
}

fn load(
    followed: &Followed,
    unified: bool,
    release: Option<(u32, u32)>,
    ext4: bool,
) -> Result<IoSkel<'static>, Error> {
    attempt(WHAT, || {
        let mut open = IoSkelBuilder::default().open(place())?;
        open.maps.containers.reuse_fd(followed.as_fd())?;
        if let Some(knobs) = &mut open.maps.rodata_data {
            knobs.unified = unified;
            knobs.queue_first = release.is_some_and(|release| release < WITHOUT_QUEUE);
        }
        let pages = release.is_some_and(|release| release < WITH_FOLIOS);
        open.progs.folio_dirtied.set_autoload(!pages);
        open.progs.page_dirtied.set_autoload(pages);
        open.progs.ext4_delayed.set_autoload(ext4);
        open.progs.ext4_written.set_autoload(ext4);
        open.load()
    })
}

/// Bios, paths and waits that the kernel could not keep.
#[derive(Debug)]
pub struct IoLost(MapHandle);

impl IoLost {
    /// How many, since the programs were loaded.
    #[must_use]
    pub fn count(&self) -> u64 {
        number(&self.0)
    }
}

/// The programs while they watch; they stop when this is dropped.
pub struct IoArmed<'p> {
    program: &'p mut Io,
    ring: Ring,
    links: Vec<Link>,
    watched: BTreeMap<u32, u32>,
}

impl IoArmed<'_> {
    /// Watches these devices and no others.
    pub fn watch(&mut self, devices: &BTreeMap<Device, Watched>) -> Result<(), Error> {
        let bits = |watched: &Watched| {
            watched.slots | if watched.below { BELOW } else { 0 } | if watched.above { ABOVE } else { 0 }
        };
        let wanted: BTreeMap<u32, u32> =
            devices.iter().map(|(device, watched)| (pack(*device), bits(watched))).collect();
        let disks = &self.program.skeleton.maps.disks;
        attempt("a device for the io program", || {
            for gone in self.watched.keys().filter(|device| !wanted.contains_key(device)) {
                disks.delete(&gone.to_ne_bytes())?;
            }
            for (device, bits) in &wanted {
                disks.update(&device.to_ne_bytes(), &bits.to_ne_bytes(), MapFlags::ANY)?;
            }
            Ok(())
        })?;
        self.watched = wanted;
        // Only now, so that all that is seen is of a device that is watched.
        if self.links.is_empty() { self.attach() } else { Ok(()) }
    }

    /// Hands out what came through the ring, at most `budget`.
    pub fn records(&mut self, budget: u32, mut each: impl FnMut(IoRecord)) -> Drained {
        self.ring.drain(budget, |record| {
            if let Some(record) = IoRecord::parse(record) {
                each(record);
            }
        })
    }

    /// The rows of a slot, which is empty after this. What is still under way counts as such.
    pub fn rows(&mut self, slot: u32, devices: &[Device]) -> BTreeMap<IoKey, IoRow> {
        let maps = &self.program.skeleton.maps;
        let mut all = BTreeMap::new();
        for raw in maps.rows.keys().collect::<Vec<_>>() {
            if raw.get(offset_of!(types::row_key, slot)).is_none_or(|byte| u32::from(*byte) != slot) {
                continue;
            }
            if let (Some(key), Ok(Some(row))) = (IoKey::parse(&raw), maps.rows.lookup(&raw, MapFlags::ANY))
                && let Some(row) = IoRow::parse(&row)
            {
                all.insert(key, row);
            }
            let _ = maps.rows.delete(&raw);
        }
        let now = monotonic();
        for raw in maps.flights.keys().collect::<Vec<_>>() {
            let Ok(Some(flight)) = maps.flights.lookup(&raw, MapFlags::ANY) else { continue };
            let Some((key, flight)) = IoRow::of_flight(&flight, now) else { continue };
            if devices.contains(&key.disk) {
                let row =
                    all.entry(key).or_insert_with(|| IoRow { comm: flight.comm.clone(), ..IoRow::default() });
                row.in_flight += 1;
                row.whole.1 = row.whole.1.max(flight.whole.1);
                row.device.1 = row.device.1.max(flight.device.1);
            }
        }
        all
    }

    /// What the kernel could not keep, since the programs were loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        number(&self.program.skeleton.maps.lost)
    }

    /// What an earlier run left behind.
    fn forget_old(&mut self) {
        while self.ring.drain(u32::MAX, |_| {}) == Drained::More {}
        let maps = &self.program.skeleton.maps;
        empty(&maps.disks);
        empty(&maps.flights);
        empty(&maps.vectors);
        empty(&maps.rows);
    }

    fn control(&self, stall: Duration) -> Result<(), Error> {
        let stall_ns = u64::try_from(stall.as_nanos()).unwrap_or(u64::MAX);
        let fields = [stall_ns, self.program.runs, self.program.direct_end.unwrap_or(0)];
        let value: Vec<u8> = fields.iter().flat_map(|field| field.to_ne_bytes()).collect();
        let control = &self.program.skeleton.maps.control;
        attempt("steering the io program", || control.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY))
    }

    fn attach(&mut self) -> Result<(), Error> {
        let progs = &mut self.program.skeleton.progs;
        let all = [
            &mut progs.bio_completed,
            &mut progs.rq_completed,
            &mut progs.rq_issued,
            &mut progs.bio_queued,
            &mut progs.folio_dirtied,
            &mut progs.page_dirtied,
            &mut progs.task_wakes,
            &mut progs.ext4_delayed,
            &mut progs.ext4_written,
        ];
        for program in all.into_iter().filter(|program| program.autoload()) {
            self.links.push(attempt("attaching the io program", || program.attach())?);
        }
        Ok(())
    }
}

fn empty(map: &impl MapCore) {
    for key in map.keys().collect::<Vec<_>>() {
        // Another may have been faster.
        let _ = map.delete(&key);
    }
}

/// The only value of an array.
fn number(map: &impl MapCore) -> u64 {
    let mut value = [0; 8];
    match map.lookup_into(&0_u32.to_ne_bytes(), &mut value, MapFlags::ANY) {
        Ok(true) => u64::from_ne_bytes(value),
        _ => 0,
    }
}

/// The clock of bpf_ktime_get_ns.
fn monotonic() -> u64 {
    u64::try_from(crate::sys::now().mono.as_nanos()).unwrap_or(u64::MAX)
}

/// The address of a kernel function; `None` where it is not told.
fn address(kallsyms: &Path, function: &str) -> Option<u64> {
    let mut lines = BufReader::new(File::open(kallsyms).ok()?).split(b'\n').map_while(Result::ok);
    lines.find_map(|line| {
        let line = std::str::from_utf8(&line).ok()?;
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        (fields.nth(1)? == function && address != 0).then_some(address)
    })
}

/// include/linux/kdev_t.h.
const MINOR_BITS: u32 = 20;

fn pack(device: Device) -> u32 {
    device.major << MINOR_BITS | device.minor
}

fn unpack_device(raw: u32) -> Device {
    Device { major: raw >> MINOR_BITS, minor: raw & ((1 << MINOR_BITS) - 1) }
}

// The parsers below read these, field by field.
const _: () = assert!(
    size_of::<types::row_key>() == 32
        && offset_of!(types::row_key, slot) == 31
        && size_of::<types::row>() == 88
        && size_of::<types::flight>() == 80
        && size_of::<types::control>() == 24
        && offset_of!(types::path_record, names) == 24
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

impl IoKey {
    /// Reads a `struct row_key`.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<IoKey> {
        const FILE: u8 = 1;
        const DISK: u8 = 2;
        let mut fields = Fields(raw);
        let (container, inode) = (unpack(fields.long()?), fields.long()?);
        let (pid, disk) = (fields.word()?, unpack_device(fields.word()?));
        let filesystem = unpack_device(fields.word()?);
        let target = match fields.byte()? {
            FILE => IoTarget::File(filesystem, inode),
            DISK => IoTarget::Disk(filesystem),
            _ => IoTarget::Unknown,
        };
        let (direct, earlier) = (fields.byte()? != 0, fields.byte()? != 0);
        Some(IoKey { container, pid, disk, target, direct, earlier })
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
    fn of_flight(raw: &[u8], now: u64) -> Option<(IoKey, IoRow)> {
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

fn path(mut fields: Fields<'_>) -> Option<IoRecord> {
    let (filesystem, inode) = (unpack_device(fields.word()?), fields.long()?);
    let (whole, bytes) = (fields.word()? != 0, usize::try_from(fields.word()?).ok()?);
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
    Some(IoRecord::Path { filesystem, inode, path: path.into() })
}

fn stall(mut fields: Fields<'_>) -> Option<IoStall> {
    let (pid, tid, cpu) = (fields.word()?, fields.word()?, fields.word()?);
    let (container, blocked) = (unpack(fields.long()?), fields.time()?);
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
    fn a_path_is_read_from_its_end_and_says_if_its_beginning_is_missing() {
        let names = b"file\0b\0a\0garbage";
        let at = |whole: u32, bytes: u32| record(&[1, 7 << 20 | 3, 12, 0, whole, bytes], names);
        let path = |raw: &[u8]| match IoRecord::parse(raw) {
            Some(IoRecord::Path { filesystem, inode, path }) => {
                assert_eq!((filesystem, inode), (Device { major: 7, minor: 3 }, 12));
                Some(String::from(path))
            }
            _ => None,
        };
        assert_eq!(path(&at(1, 9)).as_deref(), Some("/a/b/file"));
        assert_eq!(path(&at(0, 9)).as_deref(), Some("/.../a/b/file"));
        assert_eq!(path(&at(1, 0)).as_deref(), Some("/"));
        assert_eq!(path(&at(1, 1000)), None, "it claims more than it has");
    }

    #[test]
    fn a_record_that_is_cut_or_of_no_kind_is_refused() {
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
        assert_eq!(IoKey::parse(&[0; 20]), None);
        assert_eq!(IoRow::parse(&[0; 60]), None);
    }

    #[test]
    fn a_devices_numbers_survive_the_way_through_the_kernel() {
        for device in [Device { major: 254, minor: 0 }, Device { major: 7, minor: (1 << 20) - 1 }] {
            assert_eq!(unpack_device(pack(device)), device);
        }
    }
}
