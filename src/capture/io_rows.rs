//! Rows of the kernel's counts as processes with their files, and waits as stalls, all with names.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use super::disks::{Disks, Mounts};
use crate::bpf::{IoFile, IoKey, IoRow, IoStall, IoTarget};
use crate::capture_data::{Device, FileIo, IoObject, ProcessIo, Stall, Times};
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
    fn target(&mut self, key: &IoKey) -> IoObject {
        match key.target {
            IoTarget::File(file) => IoObject::File(file.filesystem, file.inode, self.path(file, key.pid)),
            IoTarget::Disk(device) => {
                let node = || self.disks.name_of(device).map(|name| format!("/dev/{name}").into());
                IoObject::Device(if self.mounts.has(device) { None } else { node() })
            }
            IoTarget::Unknown => IoObject::Unknown,
        }
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

/// Rows of one device as processes with their files, both by bytes.
pub(super) fn processes<'r>(
    rows: impl Iterator<Item = &'r (IoKey, IoRow)>,
    names: &mut Names<'_>,
) -> Vec<ProcessIo> {
    let mut by_process: BTreeMap<(u32, Option<Key>), ProcessIo> = BTreeMap::new();
    for (key, row) in rows {
        let process = by_process.entry((key.pid, key.container)).or_insert_with(|| ProcessIo {
            pid: key.pid,
            comm: row.comm.clone(),
            container: key.container,
            files: Vec::new(),
        });
        process.files.push(file(key, row, names.target(key)));
    }
    let mut processes: Vec<ProcessIo> = by_process.into_values().collect();
    for process in &mut processes {
        process.files.sort_by_key(|file| std::cmp::Reverse(weight(file)));
    }
    processes.sort_by_key(|process| {
        let bytes = process.files.iter().fold(0_u64, |sum, file| sum.saturating_add(weight(file).0));
        // Of those that moved nothing, who waits comes first.
        std::cmp::Reverse((bytes, process.files.iter().map(weight).max()))
    });
    processes
}

/// What files are ordered by: bytes on the device, then what waits for it.
fn weight(file: &FileIo) -> (u64, u64, u64) {
    let bytes = file.read_bytes.saturating_add(file.write_bytes);
    (bytes, file.in_flight, file.fs_write_bytes.unwrap_or(0))
}

fn file(key: &IoKey, row: &IoRow, target: IoObject) -> FileIo {
    let times = |count: u64, (sum, most): (Duration, Duration)| Times {
        average: sum.checked_div(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or_default(),
        most,
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
        whole: times(row.finished, row.whole),
        device: times(row.issued, row.device),
    }
}

/// Names the frames of all stalls in one pass over the kernel's symbols.
pub(super) fn stalls(waits: Vec<IoStall>, proc: &Path) -> Vec<Stall> {
    if waits.is_empty() {
        return Vec::new();
    }
    let stack = |wait: &IoStall| {
        let image = Image { pid: wait.pid, id: 0 };
        Stack { image, weight: 1, user: Vec::new(), kernel: wait.kernel.clone() }
    };
    let stacks: Vec<Stack> = waits.iter().map(stack).collect();
    let names = Symbolizer::new(proc).resolve(&stacks, Instant::now());
    let stall = |(wait, stack): (IoStall, &Stack)| Stall {
        pid: wait.pid,
        tid: wait.tid,
        cpu: wait.cpu,
        comm: wait.comm,
        container: wait.container,
        blocked: wait.blocked,
        in_iowait: wait.in_iowait,
        stack: names.kernel(stack).into_iter().map(Box::from).collect(),
    };
    waits.into_iter().zip(&stacks).map(stall).collect()
}
