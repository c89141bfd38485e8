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
use super::open_request::OpenRequest;
use super::stuck_tasks::{TASKS_MAX, is_within, refuse};
use super::walked_tasks::WalkedTasks;
use crate::bpf;
use crate::capture_data::{Arena, CaptureData, Rows, Task, Texts};
use crate::host::{Containers, TaskLook, TaskSample};
use crate::symbol::{Image, Names, Stack, Symbolizer};
use crate::sys;
use crate::thread_spawner::{ThreadSpawner, Worker};
use crate::work_queue::{Next, WorkQueue, WorkerGuard};

/// By the iterator: a thread is there while requests are.
struct IteratorTasks {
    queue: WorkQueue<OpenRequest>,
    stuck: Mutex<bpf::StuckTasks>,
    proc: Box<Path>,
}

/// Loads the iterator; without it tasks are walked over.
pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    match iterator(loader) {
        Ok(bpf::Tasks { summaries, stuck }) => {
            loader.tasks = Some(Box::new(summaries));
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

impl TaskSnapshot for bpf::TaskSummaries {
    fn look(&mut self, _: &ThreadSpawner, _: &Containers, each: &mut dyn FnMut(TaskSample)) -> TaskLook {
        match bpf::TaskSummaries::look(self, TASKS_AT_ONCE, |task| each(task.sample())) {
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
