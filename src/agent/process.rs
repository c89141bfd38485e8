//! The agent's own process, as the `process_*` metrics show it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::clock::Wall;
use crate::sys;

/// Pages are of this size on every machine that onset is built for, unless the kernel says otherwise.
const PAGE_BYTES: u64 = 4096;

/// Kept open, so that a look at it needs neither a descriptor nor memory.
#[derive(Debug)]
pub(super) struct Process {
    statm: Option<File>,
    fds: Option<File>,
    page: u64,
    /// When it began.
    pub(super) started: Wall,
}

impl Process {
    pub(super) fn new(started: Wall) -> Process {
        Process {
            statm: File::open("/proc/self/statm").ok(),
            fds: File::open("/proc/self/fd").ok(),
            page: sys::page_size().unwrap_or(PAGE_BYTES),
            started,
        }
    }

    /// Resident memory in bytes (proc_pid_statm(5), second field).
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let len = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..len)?).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        pages.checked_mul(self.page)
    }

    /// Open descriptors: the size of /proc/self/fd (Linux 6.2, fs/proc/fd.c); before that its entries,
    /// which the kernel makes one by one.
    pub(super) fn open_fds(&self) -> Option<u64> {
        let folder = self.fds.as_ref()?;
        match folder.metadata().ok()?.len() {
            0 => sys::entries(folder).ok(),
            count => Some(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_are_those_of_this_process() {
        let process = Process::new(Wall(0));
        let resident = process.resident_bytes().expect("there is /proc");
        assert!(resident > 100_000, "{resident}");
        let listed = || std::fs::read_dir("/proc/self/fd").expect("there is /proc").count() as u64;
        // Other tests open and close files at the same time: some look must find no change.
        let same = (0..1000).any(|_| {
            let (before, seen, after) = (listed(), process.open_fds(), listed());
            // Listing them takes one itself.
            before == after && seen == Some(before - 1)
        });
        assert!(same, "{:?} beside {}", process.open_fds(), listed());
    }
}
