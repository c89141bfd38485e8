//! Which program of a process is meant: an exec begins another one, and ids of processes come again.

use std::fs;
use std::path::Path;

/// A program as one process runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Image {
    /// The process, in the host's pid namespace.
    pub pid: u32,
    /// Tells apart what had that id: the kernel's start time and count of execs, mixed.
    pub id: u64,
}

/// Where a program and its first stack lie in memory. Each exec draws it anew, so it tells whether what
/// /proc shows of a process is still the program that was sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The first byte of the program's code.
    pub start_code: u64,
    /// The first byte after it.
    pub end_code: u64,
    /// Where its first stack began.
    pub start_stack: u64,
}

impl Layout {
    /// Of what a process runs now. `None` if it is gone, or for a kernel thread.
    #[must_use]
    pub fn now(proc: &Path, pid: u32) -> Option<Layout> {
        Layout::of_stat(&fs::read(proc.join(format!("{pid}/stat"))).ok()?)
    }

    /// Out of /proc/PID/stat. `None` where it is kept from us, which reads as a stack at 0.
    pub(super) fn of_stat(stat: &[u8]) -> Option<Layout> {
        // The name before it may hold anything.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace();
        // proc(5) counts from 1: startcode is its 26th, the state after the name its 3rd.
        let mut number = |skipped: usize| fields.nth(skipped)?.parse().ok();
        let layout = Layout { start_code: number(23)?, end_code: number(0)?, start_stack: number(0)? };
        (layout.start_stack != 0).then_some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] =
        b"7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 99 18446744073709551615 \
        4198400 4211111 140736123456789 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 1 2 3 4 5 6 7 0\n";

    #[test]
    fn the_address_range_of_a_program_is_parsed_after_any_comm() {
        let layout = Layout { start_code: 4198400, end_code: 4211111, start_stack: 140736123456789 };
        assert_eq!(Layout::of_stat(STAT), Some(layout));
    }

    #[test]
    fn an_unreadable_process_or_kernel_thread_has_no_layout() {
        let kept = String::from_utf8_lossy(STAT).replace("4198400 4211111 140736123456789", "1 1 0");
        for stat in [kept.as_bytes(), b"", b"7 (x)", b"7 (x) S 1 2", b"7 (x S"] {
            assert_eq!(Layout::of_stat(stat), None, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn a_running_process_keeps_its_layout_and_another_has_its_own() {
        let proc = Path::new("/proc");
        let own = Layout::now(proc, std::process::id());
        assert!(own.is_some());
        assert_eq!(Layout::now(proc, std::process::id()), own);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        assert_ne!(Layout::now(proc, child.id()), own);
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        assert_eq!(Layout::now(proc, u32::MAX), None);
    }
}
