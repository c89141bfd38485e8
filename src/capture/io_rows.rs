//! Rows of the kernel's counts as processes with their files, and waits as stalls, all with names.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use super::disks::{Disks, Mounts};
use super::io_counters::{Bytes, Counters, counted};
use crate::bpf::{IoFile, IoKey, IoRow, IoStall, IoTarget};
use crate::capture_data::{Arena, Device, DeviceIo, FileIo, Latency, ProcessIo, Rows, Stall, Target, Texts};
use crate::host::Key;
use crate::symbol::{Image, Stack, Symbolizer};

/// What finds names of devices and files.
pub(super) struct Names<'n> {
    pub(super) disks: &'n Disks,
    pub(super) mounts: &'n Mounts,
    pub(super) paths: &'n HashMap<IoFile, Box<str>>,
    pub(super) proc: &'n Path,
    /// What processes see, of filesystems that the host does not.
    pub(super) seen: HashMap<u32, Mounts>,
}

impl Names<'_> {
    /// `None`: the arena has no room for its path.
    fn target<'a>(&mut self, key: &IoKey, arena: &'a Arena) -> Option<Target<'a>> {
        let within = |path: Option<Box<str>>| match path {
            Some(path) => arena.text(&path).map(Some),
            None => Some(None),
        };
        Some(match key.target {
            IoTarget::File(file) => {
                Target::File(file.filesystem, file.inode, within(self.path(file, key.pid))?)
            }
            IoTarget::Disk(device) => {
                let node = || self.disks.name_of(device).map(|name| format!("/dev/{name}").into());
                Target::Device(within(if self.mounts.has(device) { None } else { node() })?)
            }
            IoTarget::Unknown => Target::Unknown,
        })
    }

    /// As the host sees it; else as the process does, in its own namespace; else from the root of
    /// its filesystem, which is told before it.
    fn path(&mut self, file: IoFile, pid: u32) -> Option<Box<str>> {
        let (filesystem, inside) = (file.filesystem, self.paths.get(&file)?);
        if let Some(path) = self.mounts.path(filesystem, inside) {
            return Some(path);
        }
        let mountinfo = self.proc.join(pid.to_string()).join("mountinfo");
        let own = self.seen.entry(pid).or_insert_with(|| Mounts::read(&mountinfo));
        own.path(filesystem, inside).or_else(|| {
            let Device { major, minor } = filesystem;
            Some(format!("[{major}:{minor}]{inside}").into())
        })
    }
}

/// A row of the kernel's counts.
type Row<'r> = (&'r IoKey, &'r IoRow);

/// What the kernel counted of one device.
pub(super) struct DeviceRows<'r> {
    pub(super) device: Device,
    /// Bytes that moved meanwhile, by whoever.
    pub(super) moved: Option<Bytes>,
    pub(super) rows: Vec<Row<'r>>,
}

/// Devices with their processes, which have names and are in order.
pub(super) fn device_rows<'a>(
    devices: &[DeviceRows<'_>],
    names: &mut Names<'_>,
    counters: &Counters,
    arena: &'a Arena,
) -> Rows<'a, DeviceIo<'a>> {
    arena.rows(devices.iter(), |DeviceRows { device, moved, rows }| {
        let name = names.disks.name_of(*device).or_else(|| counted(counters, *device)).unwrap_or_default();
        Some(DeviceIo {
            device: *device,
            name: arena.text(name)?,
            read_bytes: moved.map(|(read, _)| read),
            write_bytes: moved.map(|(_, written)| written),
            processes: processes(rows, names, arena),
        })
    })
}

/// Rows of one device as processes with their files, both by bytes.
fn processes<'a>(rows: &[Row<'_>], names: &mut Names<'_>, arena: &'a Arena) -> Rows<'a, ProcessIo<'a>> {
    let mut by_process: BTreeMap<(u32, Option<Key>), Vec<Row<'_>>> = BTreeMap::new();
    for row in rows {
        by_process.entry((row.0.pid, row.0.container)).or_default().push(*row);
    }
    let mut processes: Vec<_> = by_process.into_iter().collect();
    for (_, files) in &mut processes {
        files.sort_by_key(|(_, row)| Reverse(weight(row)));
    }
    processes.sort_by_key(|(_, files)| {
        let bytes = files.iter().fold(0_u64, |sum, (_, row)| sum.saturating_add(weight(row).0));
        // Of those that moved nothing, who waits comes first.
        Reverse((bytes, files.iter().map(|(_, row)| weight(row)).max()))
    });
    arena.rows(processes.iter(), |((pid, container), files)| {
        let comm = files.first().map_or("", |(_, row)| &row.comm);
        let comm = arena.text(comm)?;
        let files = arena.rows(files.iter(), |(key, row)| Some(file(key, row, names.target(key, arena)?)));
        (!files.is_empty()).then_some(ProcessIo { pid: *pid, comm, container: *container, files })
    })
}

/// What files are ordered by: bytes on the device, then what waits for it.
fn weight(row: &IoRow) -> (u64, u64, u64) {
    (row.read.saturating_add(row.written), row.in_flight, row.fs_written)
}

fn file<'a>(key: &IoKey, row: &IoRow, target: Target<'a>) -> FileIo<'a> {
    let latency = |count: u64, (sum, max): (Duration, Duration)| Latency {
        average: sum.checked_div(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or_default(),
        max,
    };
    FileIo {
        target,
        direct: key.direct,
        dirtied_earlier: key.earlier,
        shared: key.shared,
        fs_write_bytes: (row.fs_written > 0).then_some(row.fs_written),
        read_bytes: row.read,
        write_bytes: row.written,
        finished: row.finished,
        in_flight: row.in_flight,
        whole: latency(row.finished, row.whole),
        device: latency(row.issued, row.device),
    }
}

/// Names the frames of all stalls in one pass over the kernel's symbols.
pub(super) fn stalls<'a>(waits: &[IoStall], proc: &Path, arena: &'a Arena) -> Rows<'a, Stall<'a>> {
    if waits.is_empty() {
        return Rows::default();
    }
    let stack = |wait: &IoStall| {
        let image = Image { pid: wait.pid, id: 0 };
        Stack { image, weight: 1, user: Vec::new(), kernel: wait.kernel.clone() }
    };
    let stacks: Vec<Stack> = waits.iter().map(stack).collect();
    let names = Symbolizer::new(proc).resolve(&stacks, Instant::now());
    let mut texts = Texts::new(arena);
    arena.rows(waits.iter().zip(&stacks), |(wait, stack)| {
        Some(Stall {
            pid: wait.pid,
            tid: wait.tid,
            cpu: wait.cpu,
            comm: texts.text(&wait.comm)?,
            container: wait.container,
            blocked: wait.blocked,
            in_iowait: wait.in_iowait,
            stack: texts.list(names.kernel(stack))?,
        })
    })
}
