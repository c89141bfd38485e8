//! Captures of the tasks in D state, and the detectors' look at all tasks, by walks over /proc: for kernels without a
//! task iterator.

use std::cmp::Reverse;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loader, Method, OPEN_MAX, Submission, TASKS_AT_ONCE, TaskSnapshot};
use super::open_request::{OpenRequest, Wake};
use super::stuck_tasks::{TASKS_MAX, is_within, refuse};
use super::walk::{Paths, StuckTask, Walker};
use crate::capture_data::{Arena, CaptureData, Rows, Scope, Task, Texts};
use crate::host::{Containers, Key, TaskLook, TaskSample, TaskState};
use crate::sys;
use crate::thread_spawner::{ThreadSpawner, Worker};
use crate::work_queue::{Next, WorkQueue, WorkerGuard};

/// No thread waits longer for work than this before it looks again; it only matters for a clock.
const LONG: Duration = Duration::from_secs(3600);

/// By walks over /proc: a thread that stays, as starting one at each sample would cost more.
pub(super) struct WalkedTasks {
    queue: WorkQueue<WalkJob>,
    sampled: Mutex<Sampled>,
    /// The containers as they were when a capture was last asked for.
    asked: Mutex<Paths>,
    proc: Box<Path>,
    unified: bool,
    /// Tells the loop that a sample is ready.
    wake: Wake,
    /// Why there is no iterator.
    why: &'static str,
}

/// What the thread is asked for.
pub(super) enum WalkJob {
    /// The next sample.
    Sample,
    /// A capture.
    Capture(OpenRequest),
}

/// What a walk saw, until it is taken.
struct Sampled {
    containers: Paths,
    tasks: Vec<TaskSample>,
    state: SampleState,
}

#[derive(Clone, Copy)]
enum SampleState {
    Idle,
    Walking,
    /// The walk began at this time; the number is that of its tasks that were told of.
    Ready(Duration, usize),
    Failed,
}

impl TaskSnapshot for Arc<WalkedTasks> {
    /// Has a walk made, and tells of its tasks once it is over.
    fn look(
        &mut self,
        spawner: &ThreadSpawner,
        containers: &Containers,
        each: &mut dyn FnMut(TaskSample),
    ) -> TaskLook {
        // The thread holds this lock only to swap what it has.
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, look) = match sampled.state {
            SampleState::Idle => {
                let each_path = |each: &mut dyn FnMut(&str, Key)| {
                    containers.iter().for_each(|it| each(it.cgroup_path(), it.key()));
                };
                sampled.containers.fill(&each_path);
                let taken = spawner.push(self, WalkJob::Sample);
                if taken {
                    (SampleState::Walking, TaskLook::Elsewhere)
                } else {
                    (SampleState::Idle, TaskLook::Failed)
                }
            }
            SampleState::Walking if self.queue.has_worker() => (SampleState::Walking, TaskLook::Elsewhere),
            SampleState::Walking | SampleState::Failed => (SampleState::Idle, TaskLook::Failed),
            SampleState::Ready(began, told) => sampled.tell(began, told, each),
        };
        sampled.state = state;
        look
    }
}

impl Sampled {
    /// Tells of some of its tasks, of which `told` were told of before.
    fn tell(
        &self,
        began: Duration,
        told: usize,
        each: &mut dyn FnMut(TaskSample),
    ) -> (SampleState, TaskLook) {
        let rest = self.tasks.get(told..).unwrap_or_default();
        rest.iter().copied().take(TASKS_AT_ONCE).for_each(each);
        if rest.len() <= TASKS_AT_ONCE {
            (SampleState::Idle, TaskLook::Whole(began))
        } else {
            (SampleState::Ready(began, told + TASKS_AT_ONCE), TaskLook::Partial)
        }
    }
}

impl Backend for WalkedTasks {
    fn method(&self) -> Method {
        Method { name: "/proc walk", degraded: Some(self.why) }
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        // The thread holds this lock only to copy what is there.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).fill(from.containers);
        from.spawner.push(&self, WalkJob::Capture(open));
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for WalkedTasks {
    type Job = WalkJob;

    fn name(&self) -> &'static str {
        "onset-walk"
    }

    fn queue(&self) -> &WorkQueue<WalkJob> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, WalkJob>) {
        let mut walker = Walker::new(&self.proc, self.unified);
        let mut tasks = Vec::new();
        loop {
            match jobs.next(LONG) {
                Next::Job(WalkJob::Capture(open)) => {
                    let began = Instant::now();
                    let containers = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    match stuck(&mut walker, &containers, open.scope()) {
                        Ok((tasks, lost)) => {
                            let (began, lasted) = (sys::at(began), began.elapsed());
                            open.finish(began, lasted, lost, |arena| CaptureData::Tasks(rows(&tasks, arena)));
                        }
                        Err(error) => refuse(open, &error),
                    }
                }
                Next::Job(WalkJob::Sample) => self.walk(&mut walker, &mut tasks),
                Next::Nothing => {}
                Next::Closed => return,
            }
        }
    }
}

impl WalkedTasks {
    pub(super) fn new(loader: &Loader<'_>, why: &'static str) -> WalkedTasks {
        let asked = Mutex::new(Paths::with_capacity(loader.capacity));
        let containers = Paths::with_capacity(loader.capacity);
        let sampled = Mutex::new(Sampled { containers, tasks: Vec::new(), state: SampleState::Idle });
        // One more than the requests: the sample.
        let queue = WorkQueue::new(OPEN_MAX + 1);
        let (proc, unified) = (loader.paths.proc.as_path().into(), loader.hierarchy.unified);
        WalkedTasks { queue, sampled, asked, proc, unified, wake: Arc::clone(loader.wake), why }
    }

    fn walk(&self, walker: &mut Walker, tasks: &mut Vec<TaskSample>) {
        let sampled = || self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let containers = std::mem::take(&mut sampled().containers);
        tasks.clear();
        let began = sys::now().mono;
        let walked = walker.walk(&containers, |walked| tasks.push(walked.sample));
        let mut sampled = sampled();
        sampled.containers = containers;
        std::mem::swap(&mut sampled.tasks, tasks);
        sampled.state = if walked.is_ok() { SampleState::Ready(began, 0) } else { SampleState::Failed };
        drop(sampled);
        (self.wake)();
    }
}

/// The tasks in D state, longest blocked first, and how many more there were.
fn stuck(walker: &mut Walker, containers: &Paths, scope: Scope) -> io::Result<(Vec<StuckTask>, u64)> {
    let mut tasks = Vec::new();
    let mut lost = 0;
    walker.walk(containers, |walked| {
        let stuck = walked.sample.state == TaskState::Uninterruptible;
        if !stuck || !is_within(scope, walked.sample.container) {
        } else if tasks.len() < TASKS_MAX {
            tasks.push(walked.stuck());
        } else {
            lost += 1;
        }
    })?;
    tasks.sort_by_key(|task| Reverse(task.sample.blocked));
    Ok((tasks, lost))
}

fn rows<'a>(tasks: &[StuckTask], arena: &'a Arena) -> Rows<'a, Task<'a>> {
    let mut texts = Texts::new(arena);
    arena.rows(tasks.iter(), |task| {
        Some(Task {
            pid: task.pid,
            tid: task.tid,
            comm: texts.text(&task.comm)?,
            state: 'D',
            blocked: task.sample.blocked,
            in_iowait: task.sample.in_iowait,
            container: task.sample.container,
            stack: texts.list(task.stack.iter().map(|frame| &**frame))?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_the_arena_has_no_room_for_are_counted() {
        let stack: Vec<Box<str>> = (0..20).map(|depth| format!("a_function_{depth}").into()).collect();
        let sample = |blocked| TaskSample {
            container: None,
            state: TaskState::Uninterruptible,
            blocked,
            in_iowait: false,
        };
        let task = |tid: u32| StuckTask {
            pid: 1,
            tid,
            comm: "dd".into(),
            sample: sample(Duration::from_secs(60) - Duration::from_millis(tid.into())),
            stack: stack.clone(),
        };
        let tasks: Vec<StuckTask> = (0..4096).map(task).collect();
        let arena = Arena::new(256 << 10);
        let few = rows(&tasks, &arena);
        assert!(few.len() > 400 && few.left_out() > 0, "{}", few.len());
        assert_eq!(few.len() + few.left_out(), TASKS_MAX);
        assert!(few.iter().zip(0..).all(|(task, tid)| task.tid == tid && task.stack.len() == 20));
        // The size that captures have takes them all.
        let arena = Arena::new(crate::capture_data::CaptureKind::Tasks.arena_bytes());
        assert_eq!(rows(&tasks, &arena).len(), TASKS_MAX);
    }
}
