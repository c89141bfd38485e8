//! Captures of the tasks in D state, and the detector's look at all tasks. With the kernel's task
//! iterator a look at all tasks is short enough for the loop; stacks and names, and the walk over
//! /proc where there is no iterator, have a thread.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::walk::{Cgroups, Paths, Walker};
use crate::bpf;
use crate::evidence::{Capture, Refusal, Scope, Seen, Task};
use crate::host::{Containers, Key, TaskSample, TaskState};
use crate::inbox::{Found, Inbox};
use crate::starter::{Crew, Starter};
use crate::symbol::{Image, Names, Stack, Symbolizer};

/// Tasks that one capture keeps. More cannot be read by anyone; what is beyond counts as lost.
const TASKS_MAX: usize = 4096;

/// No thread waits longer for work than this before it looks again; it only matters for a clock.
const LONG: Duration = Duration::from_secs(3600);

/// One request.
pub(super) struct Job {
    pub(super) answer: Answer,
    pub(super) scope: Scope,
}

/// By the iterator: a thread is there while requests are.
pub(super) struct Looker {
    pub(super) inbox: Inbox<Job>,
    pub(super) stuck: Mutex<bpf::StuckTasks>,
    pub(super) proc: Box<Path>,
}

impl Looker {
    /// Takes a request.
    pub(super) fn bring(self: &Arc<Self>, starter: &Starter, job: Job) {
        starter.bring(&self.inbox, job, || Arc::clone(self) as _);
    }
}

impl Crew for Looker {
    fn name(&self) -> &'static str {
        "onset-tasks"
    }

    fn work(self: Arc<Self>) {
        look(&self);
    }

    fn give_up(&self) {
        drop(self.inbox.shift());
    }
}

/// The life of the thread that looks at stuck tasks.
fn look(looker: &Looker) {
    let mut shift = looker.inbox.shift();
    let mut stuck = looker.stuck.lock().unwrap_or_else(PoisonError::into_inner);
    // Each request gets its look at once; finding names takes longer, and is done for all of them.
    let mut looked = Vec::new();
    loop {
        match shift.next(Duration::ZERO) {
            Found::Job(job) => looked.push(Looked::now(job, &mut stuck)),
            Found::Nothing if !looked.is_empty() => name_all(std::mem::take(&mut looked), &looker.proc),
            Found::Nothing if shift.leave() => return,
            Found::Nothing => {}
            Found::Closed => return,
        }
    }
}

/// Tasks, and how many more there were.
type Kept = (Vec<Task>, u64);

impl Job {
    fn finish(self, lasted: Duration, kept: io::Result<Kept>) {
        let result = match kept {
            Ok((tasks, lost)) => Ok(Capture { scope: self.scope, lasted, lost, seen: Seen::Tasks(tasks) }),
            Err(error) => {
                bpf::Failed::Read.count("the list of tasks", &error);
                Err(Refusal::Failed("the kernel's list of tasks could not be read to its end"))
            }
        };
        self.answer.give(result);
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
    job: Job,
    lasted: Duration,
    seen: io::Result<(Vec<bpf::Stuck>, u64)>,
}

impl Looked {
    fn now(job: Job, iterator: &mut bpf::StuckTasks) -> Looked {
        let began = Instant::now();
        let (mut found, mut lost) = (Vec::new(), 0);
        let scope = job.scope;
        let whole = iterator.look(|task| {
            if !is_within(scope, task.container) {
            } else if found.len() < TASKS_MAX {
                found.push(task);
            } else {
                lost += 1;
            }
        });
        found.sort_by_key(|task| std::cmp::Reverse(task.blocked));
        Looked { job, lasted: began.elapsed(), seen: whole.map(|()| (found, lost)) }
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
    for Looked { job, lasted, seen } in looked {
        let kept = seen.map(|(tasks, lost)| (named(tasks, &names, &mut stacks), lost));
        job.finish(lasted, kept);
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
pub(super) struct Walks {
    pub(super) inbox: Inbox<WalkJob>,
    sampled: Mutex<Sampled>,
    /// The containers as they were when a capture was last asked for.
    asked: Mutex<Paths>,
    proc: Box<Path>,
    unified: bool,
}

/// What the thread is asked for.
pub(super) enum WalkJob {
    /// The next sample.
    Sample,
    /// A capture.
    Capture(Job),
}

/// What a walk saw, until it is taken.
struct Sampled {
    containers: Paths,
    tasks: Vec<TaskSample>,
    state: SampleState,
}

#[derive(PartialEq)]
enum SampleState {
    Idle,
    Walking,
    Ready,
}

impl Walks {
    pub(super) fn new(proc: &Path, unified: bool, containers: usize, requests: usize) -> Walks {
        let asked = Mutex::new(Paths::with_capacity(containers));
        let containers = Paths::with_capacity(containers);
        let sampled = Mutex::new(Sampled { containers, tasks: Vec::new(), state: SampleState::Idle });
        // One more than the requests: the sample.
        Walks { inbox: Inbox::new(requests + 1), sampled, asked, proc: proc.into(), unified }
    }

    /// Hands out the last walk, if one was made since this was last called, and has the next made.
    pub(super) fn sample(
        self: &Arc<Self>,
        starter: &Starter,
        containers: &Containers,
        each: &mut dyn FnMut(TaskSample),
    ) -> bool {
        // The thread holds this lock only to swap what it has.
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        if sampled.state == SampleState::Walking && self.inbox.is_staffed() {
            return false;
        }
        let ready = sampled.state == SampleState::Ready;
        if ready {
            sampled.tasks.iter().copied().for_each(each);
        }
        sampled.containers.fill(&|each| containers.iter().for_each(|it| each(it.cgroup_path(), it.key())));
        let brought = self.bring(starter, WalkJob::Sample);
        sampled.state = if brought { SampleState::Walking } else { SampleState::Idle };
        ready
    }

    /// Takes a request.
    pub(super) fn capture(self: &Arc<Self>, starter: &Starter, job: Job, containers: Cgroups<'_>) {
        // The thread holds this lock only to copy what is there.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).fill(containers);
        self.bring(starter, WalkJob::Capture(job));
    }

    fn bring(self: &Arc<Self>, starter: &Starter, job: WalkJob) -> bool {
        starter.bring(&self.inbox, job, || Arc::clone(self) as _)
    }

    /// The life of the thread.
    fn look(&self) {
        let shift = self.inbox.shift();
        let mut walker = Walker::new(&self.proc, self.unified);
        let mut tasks = Vec::new();
        loop {
            match shift.next(LONG) {
                Found::Job(WalkJob::Capture(job)) => {
                    let began = Instant::now();
                    let containers = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let kept = walked(&mut walker, &containers, job.scope);
                    job.finish(began.elapsed(), kept);
                }
                Found::Job(WalkJob::Sample) => self.walk(&mut walker, &mut tasks),
                Found::Nothing => {}
                Found::Closed => return,
            }
        }
    }

    fn walk(&self, walker: &mut Walker, tasks: &mut Vec<TaskSample>) {
        let sampled = || self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let containers = std::mem::take(&mut sampled().containers);
        tasks.clear();
        let walked = walker.walk(&containers, |walked| tasks.push(walked.sample));
        let mut sampled = sampled();
        sampled.containers = containers;
        std::mem::swap(&mut sampled.tasks, tasks);
        sampled.state = if walked.is_ok() { SampleState::Ready } else { SampleState::Idle };
    }
}

impl Crew for Walks {
    fn name(&self) -> &'static str {
        "onset-walk"
    }

    fn work(self: Arc<Self>) {
        self.look();
    }

    fn give_up(&self) {
        drop(self.inbox.shift());
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
