//! The names of a stack that a record of a hook brings as addresses, found on a thread that is there while
//! some are asked for. It begins at once: a process may soon be gone.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::naming;
use super::open_request::OpenRequest;
use crate::capture_data::{CaptureData, RecordStack};
use crate::sys;
use crate::thread_spawner::Worker;
use crate::work_queue::{WorkQueue, WorkerGuard};

/// A stack that is to be named.
struct Job {
    open: OpenRequest,
    stack: RecordStack,
}

/// Names stacks.
struct Names {
    queue: WorkQueue<Job>,
    proc: Box<Path>,
}

/// Needs nothing but /proc: what that hides has no name.
pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    Ok(Arc::new(Names { queue: WorkQueue::new(OPEN_MAX), proc: loader.paths.proc.as_path().into() }))
}

impl Backend for Names {
    fn method(&self) -> Method {
        Method { name: "/proc", degraded: None }
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        // Whoever asks without a record has nothing to be named.
        let stack = from.stack.copied().unwrap_or_default();
        from.spawner.push(&self, Job { open, stack });
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for Names {
    type Job = Job;

    fn name(&self) -> &'static str {
        "onset-addresses"
    }

    fn queue(&self) -> &WorkQueue<Job> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Job>) {
        jobs.each(|Job { open, stack }| {
            let began = Instant::now();
            let proc = &self.proc;
            open.finish(sys::at(began), Duration::ZERO, 0, |arena| {
                CaptureData::Names(naming::of_record(proc, &stack, arena))
            });
        });
    }
}
