//! All tasks of the host by the kernel's task iterator: a summary of each, or those in D state with
//! their kernel stacks. Nothing is attached: it costs only while it is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _};
use std::path::Path;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{IterOpts, Link, libbpf_sys};

use super::containers::Followed;
use super::error::{Error, attempt};
use super::meter::Meter;
use super::programs;
use super::skeletons::tasks::TasksSkelBuilder;
use super::{btf, comm, place};
use crate::host::{Key, TaskSample, TaskState};
use crate::layout::{numbers, tasks as layout};
use crate::sys;

const WHAT: &str = "the task iterator";

/// The programs, as metrics have them.
const SUMMARIES: &str = "tasks";
const STUCK_TASKS: &str = "stuck_tasks";

/// The first kernel whose frozen tasks have a state of their own.
const FREEZER_STATE: (u32, u32) = (6, 1);

/// What one read asks for: the kernel gives at most 32 KiB at once.
const BUFFER: usize = 32 << 10;

/// Both uses of the iterator.
pub struct Tasks {
    /// A summary of each task.
    pub summaries: TaskSummaries,
    /// Those in D state, with their stacks.
    pub stuck: StuckTasks,
}

/// Looks at all tasks.
pub struct TaskSummaries {
    link: Link,
    buffer: Box<[u8]>,
    under_way: Option<Look>,
}

/// A look that has begun.
struct Look {
    /// The tasks that are still to come.
    tasks: File,
    /// Bytes of a task of which the rest is still to come, at the buffer's begin.
    held: usize,
    began: Duration,
}

/// Looks at the tasks in D state.
pub struct StuckTasks {
    link: Link,
    buffer: Box<[u8]>,
}

/// A task in short: what detectors want of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSummary {
    container: Option<Key>,
    blocked_for: Duration,
    state: u32,
    exit_state: u16,
    blocked: bool,
    in_iowait: bool,
}

/// A task in D state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its container.
    pub container: Option<Key>,
    /// For how long it has been off the CPU.
    pub blocked: Duration,
    /// Its process.
    pub pid: u32,
    /// Its own id.
    pub tid: u32,
    /// Whether its wait is accounted as iowait.
    pub in_iowait: bool,
    /// Its name.
    pub comm: Box<str>,
    /// Frames of the kernel, innermost first.
    pub kernel: Vec<u64>,
}

impl Tasks {
    /// Loads the programs.
    pub fn load(
        sys: &Path,
        followed: &Followed,
        unified: bool,
        release: Option<(u32, u32)>,
        meter: &mut Meter,
    ) -> Result<Tasks, Error> {
        let done = btf(sys).and_then(|()| load(followed, unified, release, meter));
        let tasks = programs::loaded(&[SUMMARIES, STUCK_TASKS], done)?;
        // The links of iterators last as long as they do.
        [SUMMARIES, STUCK_TASKS].into_iter().for_each(programs::attached);
        Ok(tasks)
    }
}

fn load(
    followed: &Followed,
    unified: bool,
    release: Option<(u32, u32)>,
    meter: &mut Meter,
) -> Result<Tasks, Error> {
    attempt(WHAT, || {
        let mut open = TasksSkelBuilder::default().open(place())?;
        open.maps.containers.reuse_fd(followed.as_fd())?;
        if let Some(knobs) = &mut open.maps.rodata_data {
            knobs.unified = unified;
            knobs.frozen_by_flag = release.is_some_and(|release| release < FREEZER_STATE);
        }
        let loaded = open.load()?;
        meter.add(SUMMARIES, loaded.progs.summarize_tasks.as_fd());
        meter.add(STUCK_TASKS, loaded.progs.stuck_tasks.as_fd());
        // The links keep the programs; the rest of the object is not needed any more.
        let link = loaded.progs.summarize_tasks.attach_iter_with_opts(IterOpts::None)?;
        let stuck = loaded.progs.stuck_tasks.attach_iter_with_opts(IterOpts::None)?;
        let buffer = || vec![0; BUFFER].into_boxed_slice();
        Ok(Tasks {
            summaries: TaskSummaries { link, buffer: buffer(), under_way: None },
            stuck: StuckTasks { link: stuck, buffer: buffer() },
        })
    })
}

impl TaskSummaries {
    /// Begins a look at every task of the host, or goes on with it, and hands out `most` tasks at most. Once all
    /// were handed out it gives the time, on the monotonic clock, at which the look began. Allocates nothing.
    pub fn look(&mut self, most: usize, mut each: impl FnMut(TaskSummary)) -> io::Result<Option<Duration>> {
        let mut look = match self.under_way.take() {
            Some(look) => look,
            None => Look { tasks: begin(&self.link)?, held: 0, began: sys::now().mono },
        };
        let each = |record: &[u8; layout::TaskSummary::SIZE]| {
            if let Some(task) = TaskSummary::parse(record) {
                each(task);
            }
        };
        let whole = some_records(&mut look.tasks, &mut self.buffer, &mut look.held, most, each)?;
        let began = look.began;
        Ok(if whole {
            Some(began)
        } else {
            self.under_way = Some(look);
            None
        })
    }
}

impl StuckTasks {
    /// Hands out every task in D state.
    pub fn look(&mut self, mut each: impl FnMut(Stuck)) -> io::Result<()> {
        let mut tasks = begin(&self.link)?;
        each_record(&mut tasks, &mut self.buffer, |record: &[u8; layout::Stuck::WHOLE]| {
            if let Some(task) = Stuck::parse(record) {
                each(task);
            }
        })
    }
}

/// Begins a look. libbpf-rs takes memory to tell of an error, which the loop must not.
fn begin(link: &Link) -> io::Result<File> {
    // SAFETY: takes no pointers; the link is open.
    let fd = unsafe { libbpf_sys::bpf_iter_create(link.as_fd().as_raw_fd()) };
    match fd {
        // libbpf gives errors as negative numbers.
        ..0 => Err(io::Error::from_raw_os_error(-fd)),
        // SAFETY: the kernel has just made it, for us alone.
        0.. => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// Reads to the end and hands out each record whole, though a read may end within one.
pub(super) fn each_record<const SIZE: usize>(
    from: &mut impl Read,
    buffer: &mut [u8],
    each: impl FnMut(&[u8; SIZE]),
) -> io::Result<()> {
    some_records(from, buffer, &mut 0, usize::MAX, each).map(drop)
}

/// Reads on and hands out `most` records at most, each whole, though a read may end within one: `held` bytes of it
/// then stay in `buffer` for the next call. True: that was the end.
pub(super) fn some_records<const SIZE: usize>(
    from: &mut impl Read,
    buffer: &mut [u8],
    held: &mut usize,
    most: usize,
    mut each: impl FnMut(&[u8; SIZE]),
) -> io::Result<bool> {
    let mut left = most;
    while left > 0 {
        let end = left.saturating_mul(SIZE).min(buffer.len());
        let got = match from.read(buffer.get_mut(*held..end).unwrap_or_default()) {
            Ok(0) if *held == 0 => return Ok(true),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            // EAGAIN: the kernel paused after a million tasks that gave nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let filled = held.saturating_add(got).min(buffer.len());
        let (records, rest) = buffer.get(..filled).unwrap_or_default().as_chunks::<SIZE>();
        records.iter().for_each(&mut each);
        left = left.saturating_sub(records.len());
        *held = rest.len();
        buffer.copy_within(filled - *held..filled, 0);
    }
    Ok(false)
}

impl TaskSummary {
    pub(super) fn parse(record: &[u8]) -> Option<TaskSummary> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_task_summary", &[record]);
        let (task, _) = layout::TaskSummary::read(record)?;
        Some(TaskSummary {
            container: Key::from_bits(task.container),
            blocked_for: Duration::from_nanos(task.blocked_ns),
            state: task.state,
            exit_state: task.exit_state,
            blocked: task.blocked != 0,
            in_iowait: task.in_iowait != 0,
        })
    }

    /// What a tracer needs of it.
    #[must_use]
    pub fn sample(&self) -> TaskSample {
        TaskSample {
            container: self.container,
            state: self.state(),
            blocked: self.blocked_for,
            in_iowait: self.in_iowait,
        }
    }

    /// The bits of include/linux/sched.h, read as fs/proc/array.c reads them.
    fn state(&self) -> TaskState {
        const STOPPED_OR_TRACED: u32 = 0x4 | 0x8;
        const DEAD: u32 = 0x80;
        /// Interruptible, uninterruptible (of those that do not count as blocked), parked,
        /// waiting for a lock of a real-time kernel, frozen.
        const ASLEEP: u32 = 0x1 | 0x2 | 0x40 | 0x1000 | 0x8000;
        match self.state {
            _ if self.exit_state != 0 => TaskState::Dead,
            _ if self.blocked => TaskState::Uninterruptible,
            state if state & DEAD != 0 => TaskState::Dead,
            state if state & STOPPED_OR_TRACED != 0 => TaskState::Stopped,
            state if state & ASLEEP != 0 => TaskState::Sleeping,
            // Running, waking up or new.
            _ => TaskState::Running,
        }
    }
}

impl Stuck {
    pub(super) fn parse(record: &[u8]) -> Option<Stuck> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_stuck", &[record]);
        let (task, stack) = layout::Stuck::read(record)?;
        let frames = usize::try_from(task.stack_bytes).ok()? / 8;
        Some(Stuck {
            container: Key::from_bits(task.container),
            blocked: Duration::from_nanos(task.blocked_ns),
            pid: task.tgid,
            tid: task.pid,
            in_iowait: task.in_iowait != 0,
            comm: comm(&task.comm),
            kernel: numbers(stack).take(frames).collect(),
        })
    }
}
