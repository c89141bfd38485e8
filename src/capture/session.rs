//! Programs that are attached only while requests run. One attached program serves all requests that
//! come while it is; each request has its own begin and end.

use std::ops::ControlFlow;
use std::time::Duration;

use super::open_request::OpenRequest;
use crate::bpf;
use crate::capture_data::Refusal;
use crate::work_queue::{Next, WorkerGuard};

/// What is done with an attached program, from its first request to its last. It is detached when this is
/// dropped.
pub(super) trait Session: Sized {
    /// A request, as its thread gets it.
    type Job;

    /// Begins a request; a session may take more of `jobs` along, should one reading serve them all.
    fn begin(&mut self, job: Self::Job, jobs: &WorkerGuard<'_, Self::Job>);

    /// How long `turn` is to be waited for; `None`: no request runs.
    fn due(&self) -> Option<Duration>;

    /// Reads what is to be read, and ends the requests that are due. `Break`: the session ends with it.
    fn turn(&mut self) -> ControlFlow<()>;

    /// Does what is left to do after a turn that ended it.
    fn end(self) {}

    /// Serves requests until none runs and none waits.
    fn run(mut self, jobs: &WorkerGuard<'_, Self::Job>) {
        loop {
            let due = self.due();
            // The first request is there already: the thread was started for it.
            match jobs.next(due.unwrap_or(Duration::ZERO)) {
                Next::Job(job) => self.begin(job, jobs),
                Next::Nothing if due.is_none() => return,
                Next::Nothing if self.turn().is_break() => return self.end(),
                Next::Nothing => {}
                Next::Closed => return,
            }
        }
    }
}

/// The programs of a backend, as errors are told of them.
pub(super) struct Programs {
    /// What they are called.
    pub(super) name: &'static str,
    /// What is answered when they cannot be attached.
    pub(super) refusal: Refusal,
}

impl Programs {
    /// The life of a thread: calls `attach_and_run` as long as requests wait. Where that fails, what waits
    /// is refused.
    pub(super) fn serve<J: Into<OpenRequest>>(
        &self,
        jobs: &mut WorkerGuard<'_, J>,
        mut attach_and_run: impl FnMut(&WorkerGuard<'_, J>) -> Result<(), bpf::Error>,
    ) {
        loop {
            if let Err(error) = attach_and_run(jobs) {
                bpf::Failed::Attach.count(self.name, &error);
                jobs.waiting().for_each(|job| job.into().refuse(self.refusal));
            }
            if jobs.leave() {
                return;
            }
        }
    }
}
