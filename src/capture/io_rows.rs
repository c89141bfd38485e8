//! Rows of the kernel's counts as processes with their files, and waits as stalls, all with names.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use super::disks::{Disks, Mounts};
use super::io_counters::{Bytes, Counters, counted};
use crate::bpf::{IoFile, IoKey, IoRow, IoStall, IoTarget};
use crate::capture_data::{
    Arena, Beyond, Device, DeviceIo, FileIo, IoObject, Latency, ProcessIo, Rows, Stall, Texts,
};
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
    fn target<'a>(&mut self, key: &IoKey, arena: &'a Arena) -> Option<IoObject<'a>> {
        let within = |path: Option<Box<str>>| match path {
            Some(path) => arena.text(&path).map(Some),
            None => Some(None),
        };
        Some(match key.target {
            IoTarget::File(file) => {
                IoObject::File(file.filesystem, file.inode, within(self.path(file, key.pid))?)
            }
            IoTarget::Disk(device) => {
                let node = || self.disks.name_of(device).map(|name| format!("/dev/{name}").into());
                IoObject::Device(within(if self.mounts.has(device) { None } else { node() })?)
            }
            IoTarget::Unknown => IoObject::Unknown,
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
        let (name, processes) = (arena.text(name)?, processes(rows, names, arena));
        Some(DeviceIo {
            device: *device,
            name,
            read_bytes: moved.map(|(read, _)| read),
            write_bytes: moved.map(|(_, written)| written),
            beyond: beyond(rows, &processes),
            processes,
        })
    })
}

/// What the rows say that found no room among the processes.
fn beyond(rows: &[Row<'_>], processes: &[ProcessIo<'_>]) -> Beyond {
    let all = rows.iter().fold(Beyond::default(), |sum, (_, row)| sum.and(row.read, row.written));
    let kept = processes.iter().flat_map(|process| &process.files);
    let kept = kept.fold(Beyond::default(), |sum, file| sum.and(file.read_bytes, file.write_bytes));
    Beyond {
        files: all.files.saturating_sub(kept.files),
        read_bytes: all.read_bytes.saturating_sub(kept.read_bytes),
        write_bytes: all.write_bytes.saturating_sub(kept.write_bytes),
    }
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

fn file<'a>(key: &IoKey, row: &IoRow, target: IoObject<'a>) -> FileIo<'a> {
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
    let stacks: Vec<Stack<'_>> = waits.iter().map(stack).collect();
    let names = Symbolizer::new(proc).resolve(&stacks, Instant::now());
    let mut texts = Texts::new(arena);
    arena.rows(waits.iter(), |wait| {
        Some(Stall {
            pid: wait.pid,
            tid: wait.tid,
            cpu: wait.cpu,
            comm: texts.text(&wait.comm)?,
            container: wait.container,
            blocked: wait.blocked,
            in_iowait: wait.in_iowait,
            stack: texts.list(names.kernel(stack(wait)))?,
        })
    })
}

fn stack(wait: &IoStall) -> Stack<'_> {
    Stack { image: Image { pid: wait.pid, id: 0 }, weight: 1, user: &[], kernel: &wait.kernel }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Device = Device { major: 8, minor: 0 };

    fn row(pid: u32, inode: u64, written: u64) -> (IoKey, IoRow) {
        let file = IoFile { filesystem: DISK, superblock: 0, inode, tree: 0, generation: 0 };
        let key = IoKey {
            container: None,
            pid,
            disk: DISK,
            target: IoTarget::File(file),
            direct: false,
            earlier: false,
            shared: false,
        };
        (key, IoRow { comm: "dd".into(), read: 1, written, ..IoRow::default() })
    }

    /// The rows of one device in an arena of this size, each file with a path of this length.
    fn in_arena<'a>(rows: &[(IoKey, IoRow)], arena: &'a Arena, path: usize) -> DeviceIo<'a> {
        let (mounts, disks) = (Mounts::default(), Disks::default());
        let path = |(key, _): &(IoKey, IoRow)| match key.target {
            IoTarget::File(file) => Some((file, "x".repeat(path).into())),
            _ => None,
        };
        let paths = rows.iter().filter_map(path).collect();
        let proc = Path::new("/nonexistent");
        let mut names = Names { disks: &disks, mounts: &mounts, paths: &paths, proc, seen: HashMap::new() };
        let rows = rows.iter().map(|(key, row)| (key, row)).collect();
        let device = DeviceRows { device: DISK, moved: Some((7, 8)), rows };
        device_rows(&[device], &mut names, &Counters::new(), arena)[0]
    }

    #[test]
    fn processes_that_the_arena_has_no_room_for_are_the_least_and_their_bytes_are_counted() {
        let rows: Vec<_> = (0..3000).map(|pid| row(pid, 1, u64::from(pid) * 10)).collect();
        let arena = Arena::new(64 << 10);
        let device = in_arena(&rows, &arena, 20);
        let kept = device.processes.len();
        assert!(kept > 100 && kept < 1000, "{kept}");
        assert_eq!(kept + device.processes.left_out(), 3000);
        assert!(device.processes.iter().zip((0..3000).rev()).all(|(process, pid)| process.pid == pid));
        let left = 3000 - kept as u64;
        let want = Beyond { files: 3000 - kept, read_bytes: left, write_bytes: left * (left - 1) / 2 * 10 };
        assert_eq!(device.beyond, want);
        assert_eq!(
            device.processes[0].files[0].target,
            IoObject::File(DISK, 1, Some("[8:0]xxxxxxxxxxxxxxxxxxxx"))
        );
    }

    #[test]
    fn a_process_keeps_as_many_of_its_files_as_fit_however_long_their_paths_are() {
        let rows: Vec<_> = (0..100).map(|inode| row(5, inode, 1000 - inode)).collect();
        let arena = Arena::new(64 << 10);
        let device = in_arena(&rows, &arena, 4000);
        let files = device.processes[0].files;
        assert!((5..16).contains(&files.len()), "{}", files.len());
        assert_eq!((files.len() + files.left_out(), device.processes.left_out()), (100, 0));
        assert_eq!(device.beyond.files, files.left_out());
    }

    #[test]
    fn rows_that_all_fit_leave_nothing_beyond() {
        let arena = Arena::new(64 << 10);
        let device = in_arena(&[row(1, 1, 5), row(2, 2, 9)], &arena, 10);
        assert_eq!(device.beyond, Beyond::default());
        assert_eq!(device.processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [2, 1]);
    }
}
