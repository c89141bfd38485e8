//! The end of a capture of sampled stacks: all names are found, and the answer is given. Stacks of records are
//! named here, too.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::OPEN_MAX;
use super::open_request::OpenRequest;
use super::sampled::Sampled;
use crate::bpf;
use crate::capture_data::{CaptureData, Faults, ProgramPlace, RecordStack, Resident, StackNames};
use crate::clock::Now;
use crate::stacks::fold;
use crate::symbol::{Image, Layout, Stack, Symbolizer, UserFrame};
use crate::thread_spawner::Worker;
use crate::work_queue::{WorkQueue, WorkerGuard};

/// What has no name by then gets none, and says so: whoever asked waits.
const NAMING_MAX: Duration = Duration::from_secs(20);

/// A request that is over: only its names are missing.
pub(super) struct Ended {
    pub(super) open: OpenRequest,
    pub(super) began: Now,
    pub(super) lasted: Duration,
    pub(super) lost: u64,
    pub(super) stacks: Vec<Counted>,
    pub(super) symbols: Symbolizer,
    pub(super) resident: Vec<Resident>,
}

/// A stack with its weight, and when it was last seen.
pub(super) struct Counted {
    pub(super) sent: Arc<bpf::StackRecord>,
    pub(super) weight: u64,
    pub(super) last: Duration,
}

/// Finds names, on a thread that is there while requests end.
pub(super) struct Namer {
    queue: WorkQueue<Ended>,
    sampled: Sampled,
}

impl Namer {
    pub(super) fn new(sampled: Sampled) -> Namer {
        Namer { queue: WorkQueue::new(OPEN_MAX), sampled }
    }
}

impl Worker for Namer {
    type Job = Ended;

    fn name(&self) -> &'static str {
        "onset-names"
    }

    fn queue(&self) -> &WorkQueue<Ended> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Ended>) {
        jobs.each(|ended| ended.name(self.sampled));
    }
}

impl Ended {
    fn name(self, sampled: Sampled) {
        let Ended { open, began, lasted, lost, stacks: counted, symbols, resident } = self;
        let comms = newest_names(&counted);
        let stack = |counted: &Counted| Stack {
            image: counted.sent.image,
            weight: counted.weight,
            user: counted.sent.user.to_vec(),
            kernel: counted.sent.kernel.to_vec(),
        };
        let stacks: Vec<Stack> = counted.iter().map(stack).collect();
        let names = symbols.resolve(&stacks, Instant::now() + NAMING_MAX);
        let comm = |stack: &Stack| comms.get(&stack.image).copied().unwrap_or_default();
        let profile = fold(bpf::HZ, stacks.iter().map(|stack| names.row(stack, comm(stack))));
        let seen = match sampled {
            Sampled::Running => CaptureData::Stacks(profile),
            Sampled::Faults { .. } => CaptureData::Faults(Faults { flame: profile.flame, top: resident }),
        };
        open.finish(began, lasted, lost, seen);
    }
}

/// Names a stack of a record: the one place where addresses of hooks become names.
pub(super) fn of_record(proc: &Path, record: &RecordStack) -> StackNames {
    let ProgramPlace { start_code, end_code, start_stack } = record.program;
    let image = Image { pid: record.pid, id: 0 };
    let user: Vec<UserFrame> = record.user().iter().map(|address| UserFrame::Address(*address)).collect();
    let mut symbols = Symbolizer::new(proc);
    symbols.observe(image, Layout { start_code, end_code, start_stack }, &user, Instant::now());
    let stack = Stack { image, weight: 1, user, kernel: record.kernel().to_vec() };
    let names = symbols.resolve(std::slice::from_ref(&stack), Instant::now() + NAMING_MAX);
    let row = names.row(&stack, "");
    let owned = |names: &[&str]| names.iter().copied().map(Box::from).collect();
    StackNames { kernel: owned(&row.kernel), user: owned(&row.user) }
}

/// What each program was called when it was last sampled. While it executes another one it may be called
/// like that already, so such a sample counts only where there is no other.
fn newest_names(counted: &[Counted]) -> HashMap<Image, &str> {
    let mut newest: HashMap<Image, (bool, Duration, &str)> = HashMap::new();
    for Counted { sent, last, .. } in counted {
        let name = (!sent.execs, *last, &*sent.comm);
        let best = newest.entry(sent.image).or_insert(name);
        *best = (*best).max(name);
    }
    newest.into_iter().map(|(image, (_, _, comm))| (image, comm)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(image: Image, comm: &str, execs: bool, last: u64) -> Counted {
        let (user, kernel) = (Box::default(), Box::default());
        let sent = bpf::StackRecord {
            hash: last,
            image,
            layout: Layout::default(),
            comm: comm.into(),
            execs,
            user,
            kernel,
        };
        Counted { sent: Arc::new(sent), weight: 1, last: Duration::from_secs(last) }
    }

    #[test]
    fn a_renamed_program_has_the_name_of_its_last_sample_and_each_exec_its_own() {
        let [shell, tool] = [1, 2].map(|id| Image { pid: 7, id });
        let samples = [
            counted(shell, "sh", false, 10),
            counted(shell, "renamed", false, 30),
            counted(shell, "sh", false, 20),
            counted(shell, "tool", true, 40),
            counted(tool, "tool", true, 50),
        ];
        let names = newest_names(&samples);
        assert_eq!(names, HashMap::from([(shell, "renamed"), (tool, "tool")]));
    }
}
