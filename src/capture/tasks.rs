//! Captures of the tasks in D state, and the detectors' look at all tasks. With the kernel's task
//! iterator the loop looks at some tasks in each turn; stacks and names, and the walk over /proc where
//! there is no iterator, have a thread.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission, TASKS_AT_ONCE, TaskSnapshot};
use super::load::sentence;
use super::open_request::{OpenRequest, Wake};
use super::walk::{Paths, Walker};
use crate::bpf;
use crate::capture_data::{CaptureData, Refusal, Scope, Task};
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
struct Looker {
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
            Ok(Arc::new(Looker { queue: WorkQueue::new(OPEN_MAX), stuck: Mutex::new(stuck), proc }))
        }
        Err(why) => {
            let walks = Arc::new(Walks::new(loader, why));
            loader.tasks = Some(Box::new(Arc::clone(&walks)));
            Ok(walks)
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

impl Backend for Looker {
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

impl Worker for Looker {
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
        let mut looked = Vec::new();
        loop {
            match jobs.next(Duration::ZERO) {
                Next::Job(open) => looked.push(Looked::now(open, &mut stuck)),
                Next::Nothing if !looked.is_empty() => name_all(std::mem::take(&mut looked), &self.proc),
                Next::Nothing if jobs.leave() => return,
                Next::Nothing => {}
                Next::Closed => return,
            }
        }
    }
}

/// Tasks, and how many more there were.
type Kept = (Vec<Task>, u64);

/// Answers with the tasks of a look, or that it broke off.
fn finish(open: OpenRequest, began: Instant, lasted: Duration, kept: io::Result<Kept>) {
    match kept {
        Ok((tasks, lost)) => open.finish(sys::at(began), lasted, lost, CaptureData::Tasks(tasks)),
        Err(error) => {
            bpf::Failed::Read.count("the list of tasks", &error);
            open.refuse(Refusal::Failed("the kernel's list of tasks could not be read to its end"));
        }
    }
}

fn is_within(scope: Scope, container: Option<Key>) -> bool {
    match scope {
        Scope::Host | Scope::Device(_) => true,
        Scope::Container(key) => container == Some(key),
    }
}

/// A request whose tasks were seen, but not named yet.
struct Looked {
    open: OpenRequest,
    began: Instant,
    lasted: Duration,
    seen: io::Result<(Vec<bpf::Stuck>, u64)>,
}

impl Looked {
    fn now(open: OpenRequest, iterator: &mut bpf::StuckTasks) -> Looked {
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
        found.sort_by_key(|task| std::cmp::Reverse(task.blocked));
        Looked { open, began, lasted: began.elapsed(), seen: whole.map(|()| (found, lost)) }
    }
}

/// Names the frames of all requests in one pass over the kernel's symbols. Nothing of a stuck
/// process is looked at.
fn name_all(mut looked: Vec<Looked>, proc: &Path) {
    let mut stacks = Vec::new();
    for task in looked.iter_mut().filter_map(|one| one.seen.as_mut().ok()).flat_map(|(tasks, _)| tasks) {
        let kernel = std::mem::take(&mut task.kernel);
        let image = Image { pid: task.pid, id: 0 };
        stacks.push(Stack { image, weight: 1, user: Vec::new(), kernel });
    }
    let names = Symbolizer::new(proc).resolve(&stacks, Instant::now());
    let mut stacks = stacks.iter();
    for Looked { open, began, lasted, seen } in looked {
        let kept = seen.map(|(tasks, lost)| (named(tasks, &names, &mut stacks), lost));
        finish(open, began, lasted, kept);
    }
}

fn named<'s>(
    found: Vec<bpf::Stuck>,
    names: &Names,
    stacks: &mut impl Iterator<Item = &'s Stack>,
) -> Vec<Task> {
    let task = |(task, stack): (bpf::Stuck, &Stack)| Task {
        pid: task.pid,
        tid: task.tid,
        comm: task.comm,
        state: 'D',
        blocked: task.blocked,
        in_iowait: task.in_iowait,
        container: task.container,
        stack: names.kernel(stack).into_iter().map(Box::from).collect(),
    };
    found.into_iter().zip(stacks).map(task).collect()
}

/// By walks over /proc: a thread that stays, as starting one at each sample would cost more.
struct Walks {
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

impl TaskSnapshot for Arc<Walks> {
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

impl Backend for Walks {
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

impl Worker for Walks {
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
                    let kept = walked(&mut walker, &containers, open.scope());
                    finish(open, began, began.elapsed(), kept);
                }
                Next::Job(WalkJob::Sample) => self.walk(&mut walker, &mut tasks),
                Next::Nothing => {}
                Next::Closed => return,
            }
        }
    }
}

impl Walks {
    fn new(loader: &Loader<'_>, why: &'static str) -> Walks {
        let asked = Mutex::new(Paths::with_capacity(loader.capacity));
        let containers = Paths::with_capacity(loader.capacity);
        let sampled = Mutex::new(Sampled { containers, tasks: Vec::new(), state: SampleState::Idle });
        // One more than the requests: the sample.
        let queue = WorkQueue::new(OPEN_MAX + 1);
        let (proc, unified) = (loader.paths.proc.as_path().into(), loader.hierarchy.unified);
        Walks { queue, sampled, asked, proc, unified, wake: Arc::clone(loader.wake), why }
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

fn walked(walker: &mut Walker, containers: &Paths, scope: Scope) -> io::Result<Kept> {
    let mut tasks = Vec::new();
    let mut lost = 0;
    walker.walk(containers, |walked| {
        let stuck = walked.sample.state == TaskState::Uninterruptible;
        if !stuck || !is_within(scope, walked.sample.container) {
        } else if tasks.len() < TASKS_MAX {
            tasks.push(walked.task());
        } else {
            lost += 1;
        }
    })?;
    tasks.sort_by_key(|task| std::cmp::Reverse(task.blocked));
    Ok((tasks, lost))
}
