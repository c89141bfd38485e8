//! /proc/PID/stat and /proc/PID/task/TID/stat. The name may hold anything, parentheses and
//! newlines too: it ends at the last `)`, and only numbers follow.

use std::time::Duration;

use crate::host::TaskState;
use crate::host::text::{decimal, fields, ticks};

/// What the line of one task says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStat<'t> {
    /// Its id.
    pub pid: u32,
    /// Its name: at most 15 bytes, 63 for kernel threads; not always UTF-8.
    pub comm: &'t [u8],
    /// What it does.
    pub state: TaskState,
    /// Its parent's id.
    pub parent: u32,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Threads of its process.
    pub threads: u32,
    /// When it started, since boot.
    pub started: Duration,
    /// Pages in memory, as its process has them.
    pub rss_pages: u64,
}

/// Reads the file.
#[must_use]
pub fn parse(text: &[u8]) -> Option<TaskStat<'_>> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = u32::try_from(decimal(text.get(..open)?.trim_ascii())?).ok()?;
    let comm = text.get(open.checked_add(1)?..close)?;
    // Field 3 comes first: an index here is the number in proc_pid_stat(5) less 3.
    let mut rest = fields(text.get(close.checked_add(1)?..)?.trim_ascii());
    let state = state(rest.next()?)?;
    let parent = rest.next()?;
    let (user, system) = (rest.nth(9)?, rest.next()?);
    let threads = rest.nth(4)?;
    let started = rest.nth(1)?;
    let rss = rest.nth(1)?;
    Some(TaskStat {
        pid,
        comm,
        state,
        parent: u32::try_from(decimal(parent)?).ok()?,
        user: ticks(decimal(user)?),
        system: ticks(decimal(system)?),
        threads: u32::try_from(decimal(threads)?).ok()?,
        started: ticks(decimal(started)?),
        rss_pages: decimal(rss)?,
    })
}

fn state(letter: &[u8]) -> Option<TaskState> {
    match letter {
        b"R" => Some(TaskState::Running),
        // P: parked, a kernel thread of a CPU that is off; W: waking, before 4.14.
        b"S" | b"I" | b"P" | b"W" | b"K" => Some(TaskState::Sleeping),
        b"D" => Some(TaskState::Uninterruptible),
        b"T" | b"t" => Some(TaskState::Stopped),
        b"Z" | b"X" | b"x" => Some(TaskState::Dead),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_is_read() {
        let task = parse(include_bytes!("../../../fuzz/corpus/task_stat/fio-6.1")).expect("a real file");
        assert_eq!((task.pid, task.parent, task.comm), (4_711, 4_700, b"fio".as_slice()));
        assert_eq!(task.state, TaskState::Uninterruptible);
        assert_eq!((task.user, task.system), (Duration::from_millis(1_230), Duration::from_millis(4_560)));
        assert_eq!((task.threads, task.rss_pages), (2, 1_985));
        assert_eq!(task.started, Duration::from_millis(98_765_430));
    }

    #[test]
    fn a_name_may_hold_spaces_parentheses_and_newlines() {
        let odd = include_bytes!("../../../fuzz/corpus/task_stat/odd_name");
        let task = parse(odd).expect("a real file");
        assert_eq!(task.comm, b"a) R 1\n(b");
        assert_eq!((task.pid, task.state), (815, TaskState::Sleeping));
    }

    #[test]
    fn a_kernel_thread_is_read() {
        let task = parse(include_bytes!("../../../fuzz/corpus/task_stat/kworker-6.18")).expect("a real file");
        assert_eq!((task.state, task.rss_pages), (TaskState::Sleeping, 0));
        assert!(task.comm.starts_with(b"kworker/"));
    }

    #[test]
    fn a_truncated_line_is_refused() {
        for cut in ["", "1", "1 (x", "1 )x(", "1 (x)", "1 (x) S", "1 (x) S 0 0 0 0", "x (x) S 0 0 0 0"] {
            assert_eq!(parse(cut.as_bytes()), None, "{cut}");
        }
    }
}
