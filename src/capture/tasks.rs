//! Captures of the tasks in D state, and the detectors' look at all tasks. With the kernel's task
//! iterator the loop looks at some tasks in each turn; stacks and names, and the walk over /proc where
//! there is no iterator, have a thread.

use std::cmp::Reverse;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission, TASKS_AT_ONCE, TaskSnapshot};
use super::load::sentence;
use super::open_request::{OpenRequest, Wake};
use super::walk::{Paths, StuckTask, Walker};
use crate::bpf;
use crate::capture_data::{Arena, CaptureData, Refusal, Rows, Scope, Task, Texts};
use crate::host::{Containers, Key, TaskLook, TaskSample, TaskState};
use crate::symbol::{Image, Names, Stack, Symbolizer};
use crate::sys;
use crate::thread_spawner::{ThreadSpawner, Worker};
use crate::work_queue::{Next, WorkQueue, WorkerGuard};

/// Tasks that one capture keeps. More cannot be read by anyone; what is beyond counts as lost.
const TASKS_MAX: usize = 4096;

/// No thread waits longer for work than this before it looks again; it only matters for a clock.
const LONG: Duration = Duration::from_secs(3600);

/// By the iterator: a thread is there while requests are.
struct IteratorTasks {
    queue: WorkQueue<OpenRequest>,
    stuck: Mutex<bpf::StuckTasks>,
    proc: Box<Path>,
}

/// Loads the iterator; without it tasks are walked over.
pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    match iterator(loader) {
        Ok(bpf::Tasks { passers, stuck }) => {
            loader.tasks = Some(Box::new(passers));
            let proc = loader.paths.proc.as_path().into();
            Ok(Arc::new(IteratorTasks { queue: WorkQueue::new(OPEN_MAX), stuck: Mutex::new(stuck), proc }))
        }
        Err(why) => {
            let walked = Arc::new(WalkedTasks::new(loader, why));
            loader.tasks = Some(Box::new(Arc::clone(&walked)));
            Ok(walked)
        }
    }
}

fn iterator(loader: &mut Loader<'_>) -> Result<bpf::Tasks, &'static str> {
    let (site, release) = (loader.site()?, loader.release());
    bpf::Tasks::load(site.sys, site.followed, site.unified, release, loader.meter).map_err(sentence)
}

impl TaskSnapshot for bpf::Passers {
    fn look(&mut self, _: &ThreadSpawner, _: &Containers, each: &mut dyn FnMut(TaskSample)) -> TaskLook {
        match bpf::Passers::look(self, TASKS_AT_ONCE, |task| each(task.sample())) {
            Ok(Some(began)) => TaskLook::Whole(began),
            Ok(None) => TaskLook::Partial,
            Err(_) => TaskLook::Failed,
        }
    }
}

impl Backend for IteratorTasks {
    fn method(&self) -> Method {
        Method { name: "iter/task", degraded: None }
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        from.spawner.push(&self, open);
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for IteratorTasks {
    type Job = OpenRequest;

    fn name(&self) -> &'static str {
        "onset-tasks"
    }

    fn queue(&self) -> &WorkQueue<OpenRequest> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, OpenRequest>) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        // Each request gets its look at once; finding names takes longer, and is done for all of them.
        let mut unnamed = Vec::new();
        loop {
            match jobs.next(Duration::ZERO) {
                Next::Job(open) => unnamed.push(Unnamed::look(open, &mut stuck)),
                Next::Nothing if !unnamed.is_empty() => name_all(std::mem::take(&mut unnamed), &self.proc),
                Next::Nothing if jobs.leave() => return,
                Next::Nothing => {}
                Next::Closed => return,
            }
        }
    }
}

/// Answers that a look broke off.
fn refuse(open: OpenRequest, error: &io::Error) {
    bpf::Failed::Read.count("the list of tasks", error);
    open.refuse(Refusal::Failed("the kernel's list of tasks could not be read to its end"));
}

fn is_within(scope: Scope, container: Option<Key>) -> bool {
    match scope {
        Scope::Host | Scope::Device(_) => true,
        Scope::Container(key) => container == Some(key),
    }
}

/// A request whose tasks were seen, but not named yet.
struct Unnamed {
    open: OpenRequest,
    began: Instant,
    lasted: Duration,
    /// Longest blocked first.
    stuck: io::Result<Vec<bpf::Stuck>>,
    lost: u64,
}

impl Unnamed {
    fn look(open: OpenRequest, iterator: &mut bpf::StuckTasks) -> Unnamed {
        let began = Instant::now();
        let (mut found, mut lost) = (Vec::new(), 0);
        let scope = open.scope();
        let whole = iterator.look(|task| {
            if !is_within(scope, task.container) {
            } else if found.len() < TASKS_MAX {
                found.push(task);
            } else {
                lost += 1;
            }
        });
        found.sort_by_key(|task| Reverse(task.blocked));
        Unnamed { open, began, lasted: began.elapsed(), stuck: whole.map(|()| found), lost }
    }

    fn answer(self, names: &Names) {
        let Unnamed { open, began, lasted, stuck, lost } = self;
        match stuck {
            Ok(found) => {
                open.finish(sys::at(began), lasted, lost, |arena| {
                    CaptureData::Tasks(named(&found, names, arena))
                });
            }
            Err(error) => refuse(open, &error),
        }
    }
}

/// Names the frames of all requests in one pass over the kernel's symbols. Nothing of a stuck
/// process is looked at.
fn name_all(unnamed: Vec<Unnamed>, proc: &Path) {
    let found = unnamed.iter().filter_map(|one| one.stuck.as_ref().ok()).flatten();
    let stacks: Vec<Stack<'_>> = found.map(stack).collect();
    let names = Symbolizer::new(proc).resolve(&stacks, Instant::now());
    unnamed.into_iter().for_each(|one| one.answer(&names));
}

fn stack(task: &bpf::Stuck) -> Stack<'_> {
    Stack { image: Image { pid: task.pid, id: 0 }, weight: 1, user: &[], kernel: &task.kernel }
}

fn named<'a>(found: &[bpf::Stuck], names: &Names, arena: &'a Arena) -> Rows<'a, Task<'a>> {
    let mut texts = Texts::new(arena);
    arena.rows(found.iter(), |task| {
        Some(Task {
            pid: task.pid,
            tid: task.tid,
            comm: texts.text(&task.comm)?,
            state: 'D',
            blocked: task.blocked,
            in_iowait: task.in_iowait,
            container: task.container,
            stack: texts.list(names.kernel(stack(task)))?,
        })
    })
}

/// By walks over /proc: a thread that stays, as starting one at each sample would cost more.
struct WalkedTasks {
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
enum WalkJob {
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
    /// The walk began at this time, and so many of its tasks were told of.
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
    fn new(loader: &Loader<'_>, why: &'static str) -> WalkedTasks {
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
