//! Reads and writes of block devices, by process and file. The kernel adds them up in rows, one
//! set for each capture that runs; paths and long waits come through a ring.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use super::containers::Followed;
use super::error::{Error, attempt};
use super::failed::{Attached, Failed, counted};
use super::io_kernel::{Btrfs, Tracepoints, of_kernel};
use super::io_record::{IoKey, IoRecord, IoRow, pack};
use super::io_tracepoint::Tracepoint;
use super::lost::number;
use super::meter::Meter;
use super::programs::{self, Standing};
use super::ring::{Drained, Ring};
use super::skeletons::io::{IoSkel, IoSkelBuilder};
use super::{btf, place};
use crate::capture_data::Device;
use crate::layout::io as layout;

/// Captures that are told apart at a time.
pub const SLOTS: u32 = 8;

const WHAT: &str = "the io program";

/// How a watched device lies to the others, beside the slots' bits.
const BELOW: u32 = 1 << SLOTS;
const ABOVE: u32 = 1 << (SLOTS + 1);

/// Tracepoints of filesystems, in the order of their programs.
const FILESYSTEMS: [&str; 3] = ["ext4_da_write_end", "ext4_write_end", "xfs_file_buffered_write"];

/// The programs, as metrics have them: those that are attached first, in that order, and the one that is last.
const PROGRAMS: [&str; 10] = [
    "bio_completed",
    "rq_completed",
    "rq_issued",
    "bio_queued",
    "folio_dirtied",
    "page_dirtied",
    TASK_WAKES,
    FILESYSTEMS[0],
    FILESYSTEMS[1],
    FILESYSTEMS[2],
];
const TASK_WAKES: &str = "task_wakes";

/// The function that ends direct I/O.
const DIRECT_END: &str = "iomap_dio_bio_end_io";

/// The loaded programs.
pub struct Io {
    skeleton: IoSkel<'static>,
    proc: Box<Path>,
    direct_end: Option<u64>,
    runs: u64,
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
        paths: &crate::host::Paths,
        followed: &Followed,
        unified: bool,
        meter: &mut Meter,
    ) -> Result<Io, Error> {
        let done = btf(&paths.sys).and_then(|()| {
            let (tracepoints, btrfs) = of_kernel()?;
            Ok((load(followed, unified, tracepoints, btrfs)?, tracepoints))
        });
        let (skeleton, tracepoints) = programs::loaded(&PROGRAMS, done)?;
        let [.., xfs] = FILESYSTEMS;
        let folios = tracepoints.folios;
        for (name, needed) in [("folio_dirtied", folios), ("page_dirtied", !folios), (xfs, folios)] {
            if !needed {
                programs::stands(name, Standing::Unneeded);
            }
        }
        let progs = &skeleton.progs;
        for (name, program) in [
            ("bio_queued", &progs.bio_queued),
            ("rq_issued", &progs.rq_issued),
            ("rq_completed", &progs.rq_completed),
            (TASK_WAKES, &progs.task_wakes),
        ] {
            meter.add(name, program.as_fd());
        }
        Ok(Io { skeleton, proc: paths.proc.as_path().into(), direct_end: None, runs: 0 })
    }

    /// Prepares to watch: nothing is seen until they are attached and a device is named. Tasks that are in D state for as long as `stall` are told.
    pub fn arm(&mut self, stall: Duration) -> Result<IoArmed<'_>, Error> {
        self.runs += 1;
        if self.direct_end.is_none() {
            let kallsyms = File::open(self.proc.join("kallsyms")).ok();
            self.direct_end =
                Some(kallsyms.and_then(|file| address(BufReader::new(file), DIRECT_END)).unwrap_or(0));
        }
        let ring = attempt(WHAT, || Ring::open(&self.skeleton.maps.records))?;
        let mut armed = IoArmed {
            program: self,
            ring,
            links: Vec::new(),
            waits: None,
            filesystems: FILESYSTEMS.map(|name| (name, Tracepoint::Absent)),
            stall,
            watched: BTreeMap::new(),
        };
        armed.forget_old();
        armed.control()?;
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
    tracepoints: Tracepoints,
    btrfs: Option<Btrfs>,
) -> Result<IoSkel<'static>, Error> {
    attempt(WHAT, || {
        let mut open = IoSkelBuilder::default().open(place())?;
        open.maps.containers.reuse_fd(followed.as_fd())?;
        if let Some(knobs) = &mut open.maps.rodata_data {
            knobs.unified = unified;
            knobs.bio_after_queue = tracepoints.bio_after_queue;
            knobs.rq_after_queue = tracepoints.rq_after_queue;
            knobs.page_bits = crate::sys::page_size().map_or(12, u64::ilog2);
            if let Some(btrfs) = btrfs {
                knobs.btrfs_inode_at = btrfs.inode_at;
                knobs.btrfs_root_at = btrfs.root_at;
                knobs.btrfs_number_at = btrfs.number_at;
            }
        }
        open.progs.folio_dirtied.set_autoload(tracepoints.folios);
        open.progs.page_dirtied.set_autoload(!tracepoints.folios);
        // Before, a folio is a page, and a write to a dirty one changes nothing of whose it is.
        open.progs.xfs_writes.set_autoload(tracepoints.folios);
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
    links: Vec<Attached>,
    waits: Option<Attached>,
    /// Those of filesystems, which may be modules that come later, by their names.
    filesystems: [(&'static str, Tracepoint); 3],
    stall: Duration,
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
        let gone: Vec<u32> =
            self.watched.keys().filter(|device| !wanted.contains_key(device)).copied().collect();
        // Should it fail half way, these are the devices that may be watched.
        self.watched.extend(&wanted);
        let disks = &self.program.skeleton.maps.disks;
        attempt("a device for the io program", || {
            for device in gone {
                delete(disks, &device.to_ne_bytes())?;
            }
            for (device, bits) in &wanted {
                disks.update(&device.to_ne_bytes(), &bits.to_ne_bytes(), MapFlags::ANY)?;
            }
            Ok(())
        })?;
        self.watched = wanted;
        Ok(())
    }

    /// Counts no more for these slots, a bit each; what they alone want is no longer watched after the next `watch`.
    pub fn leave(&mut self, slots: u32) {
        let disks = &self.program.skeleton.maps.disks;
        for (device, bits) in self.watched.iter_mut().filter(|(_, bits)| **bits & slots != 0) {
            *bits &= !slots;
            let done = disks.update(&device.to_ne_bytes(), &bits.to_ne_bytes(), MapFlags::ANY);
            counted(Failed::Write, "a device that is watched", done);
        }
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
        for raw in self.keys_of(slot) {
            let row = counted(Failed::Read, "a row of I/O", maps.rows.lookup(&raw, MapFlags::ANY)).flatten();
            if let (Some(key), Some(row)) = (IoKey::parse(&raw), row) {
                #[cfg(test)]
                crate::fuzz::record::note("bpf_io_row", &[&[0], &raw, &row]);
                all.extend(IoRow::parse(&row).map(|row| (key, row)));
            }
            counted(Failed::Write, "a row of I/O", delete(&maps.rows, &raw));
        }
        let now = u64::try_from(crate::sys::monotonic().as_nanos()).unwrap_or(u64::MAX);
        // Each once: a walk begins anew whenever the flight at hand lands.
        for raw in maps.flights.keys().collect::<BTreeSet<_>>() {
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

    /// Drops the rows of a slot.
    pub fn forget(&mut self, slot: u32) {
        for raw in self.keys_of(slot) {
            counted(Failed::Write, "a row of I/O", delete(&self.program.skeleton.maps.rows, &raw));
        }
    }

    fn keys_of(&self, slot: u32) -> Vec<Vec<u8>> {
        let is =
            |raw: &Vec<u8>| layout::RowKey::read(raw).is_some_and(|(key, _)| u32::from(key.slot) == slot);
        self.program.skeleton.maps.rows.keys().filter(is).collect()
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
        empty(&maps.splits);
        empty(&maps.chunks);
        empty(&maps.owners);
    }

    fn control(&self) -> Result<(), Error> {
        let stall_ns = u64::try_from(self.stall.as_nanos()).unwrap_or(u64::MAX);
        let [delayed, written, xfs] = self
            .filesystems
            .each_ref()
            .map(|(_, tracepoint)| u32::from(matches!(tracepoint, Tracepoint::Attached(_))));
        let value = layout::Control {
            stall_ns,
            run: self.program.runs,
            direct_end: self.program.direct_end.unwrap_or(0),
            ext4_tells: delayed & written,
            xfs_tells: xfs,
        };
        let control = &self.program.skeleton.maps.control;
        attempt("steering the io program", || {
            control.update(&0_u32.to_ne_bytes(), &value.bytes(), MapFlags::ANY)
        })
    }

    /// Attaches the programs, if they are not. They see nothing until a device is named, so that all of
    /// them begin at the same moment.
    pub fn attach(&mut self) -> Result<(), Error> {
        self.attach_filesystems()?;
        if !self.links.is_empty() {
            return Ok(());
        }
        let progs = &mut self.program.skeleton.progs;
        let all = [
            &mut progs.bio_completed,
            &mut progs.rq_completed,
            &mut progs.rq_issued,
            &mut progs.bio_queued,
            &mut progs.folio_dirtied,
            &mut progs.page_dirtied,
        ];
        for (name, program) in PROGRAMS.into_iter().zip(all).filter(|(_, program)| program.autoload()) {
            self.links.push(Attached::of(name, attempt("attaching the io program", || program.attach()))?);
        }
        Ok(())
    }

    /// Attaches what tells of long waits, if it is not. It comes last, when devices are named: who sees it
    /// attached knows that all else is watched.
    pub fn attach_waits(&mut self) -> Result<(), Error> {
        if self.waits.is_none() {
            let program = &mut self.program.skeleton.progs.task_wakes;
            let done = attempt("attaching the io program", || program.attach());
            self.waits = Some(Attached::of(TASK_WAKES, done)?);
        }
        Ok(())
    }

    /// Tries those that are not attached: a filesystem may have been loaded since. Without them the bytes
    /// that processes wrote to ext4's files are missing, and of a shared file it cannot always be told whose
    /// its pages are.
    fn attach_filesystems(&mut self) -> Result<(), Error> {
        let progs = &mut self.program.skeleton.progs;
        let all = [&mut progs.ext4_delayed, &mut progs.ext4_written, &mut progs.xfs_writes];
        for ((name, tracepoint), program) in self.filesystems.iter_mut().zip(all) {
            if matches!(tracepoint, Tracepoint::Attached(_)) || !program.autoload() {
                continue;
            }
            *tracepoint = Tracepoint::of(name, program.attach());
        }
        self.control()
    }

    /// Tracepoints that this kernel has and would not attach.
    #[must_use]
    pub fn not_attached(&self) -> Vec<&'static str> {
        let refused =
            self.filesystems.iter().filter(|(_, tracepoint)| matches!(tracepoint, Tracepoint::Refused));
        refused.map(|(name, _)| *name).collect()
    }
}

fn empty(map: &impl MapCore) {
    for key in map.keys().collect::<Vec<_>>() {
        counted(Failed::Write, "what an earlier capture of I/O left", delete(map, &key));
    }
}

/// Deletes an entry that may be gone already: a program may have been faster.
fn delete(map: &impl MapCore, key: &[u8]) -> Result<(), libbpf_rs::Error> {
    map.delete(key).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// The address of a kernel function out of /proc/kallsyms; `None` where it is not told.
pub(super) fn address(kallsyms: impl BufRead, function: &str) -> Option<u64> {
    let mut lines = kallsyms.split(b'\n').map_while(Result::ok);
    lines.find_map(|line| {
        let line = std::str::from_utf8(&line).ok()?;
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        (fields.nth(1)? == function && address != 0).then_some(address)
    })
}
