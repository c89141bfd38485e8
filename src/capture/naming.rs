//! The end of a capture of sampled stacks: all names are found, and the answer is given. Stacks of records are
//! named here, too.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::OPEN_MAX;
use super::open_request::OpenRequest;
use super::resident::{self, Holder};
use super::sampled::Sampled;
use crate::bpf;
use crate::capture_data::{
    Arena, CaptureData, Faults, Profile, ProgramPlace, RecordStack, StackNames, Texts,
};
use crate::clock::Now;
use crate::stacks::{Fold, Row};
use crate::symbol::{Image, Layout, Names, Stack, Symbolizer, UserFrame};
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
    pub(super) resident: Vec<Holder>,
}

/// A stack with its weight, and when it was last seen.
pub(super) struct Counted {
    pub(super) sent: Arc<bpf::StackRecord>,
    pub(super) weight: u64,
    pub(super) last: Duration,
}

impl Counted {
    fn stack(&self) -> Stack<'_> {
        let Counted { sent, weight, .. } = self;
        Stack { image: sent.image, weight: *weight, user: &sent.user, kernel: &sent.kernel }
    }
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
        let Ended { open, began, lasted, lost, stacks: mut counted, symbols, resident } = self;
        // Where the arena has no room for all stacks, it is the lightest that are left out.
        counted.sort_unstable_by_key(|stack| (Reverse(stack.weight), stack.sent.image.pid, stack.sent.hash));
        let stacks: Vec<Stack<'_>> = counted.iter().map(Counted::stack).collect();
        let names = symbols.resolve(&stacks, Instant::now() + NAMING_MAX);
        let comms = newest_names(&counted);
        open.finish(began, lasted, lost, |arena| {
            // First: stacks may take all of the arena.
            let top = resident::rows(&resident, arena);
            let profile = folded(&stacks, &names, &comms, arena);
            match sampled {
                Sampled::Running => CaptureData::Stacks(profile),
                Sampled::Faults { .. } => CaptureData::Faults(Faults { flame: profile.flame, top }),
            }
        });
    }
}

/// The stacks as a flame graph of the names of their functions.
fn folded<'a>(
    stacks: &[Stack<'_>],
    names: &Names,
    comms: &HashMap<Image, &str>,
    arena: &'a Arena,
) -> Profile<'a> {
    let mut fold = Fold::new(arena);
    let mut row = Row::default();
    for stack in stacks {
        row.comm = comms.get(&stack.image).copied().unwrap_or_default();
        names.fill(*stack, &mut row);
        fold.add(&row);
    }
    fold.finish(bpf::HZ)
}

/// Names a stack of a record, and puts the names into `arena`: the one place where addresses of hooks become names.
pub(super) fn of_record<'a>(proc: &Path, record: &RecordStack, arena: &'a Arena) -> StackNames<'a> {
    let ProgramPlace { start_code, end_code, start_stack } = record.program;
    let image = Image { pid: record.pid, id: 0 };
    let user: Vec<UserFrame> = record.user().iter().map(|address| UserFrame::Address(*address)).collect();
    let mut symbols = Symbolizer::new(proc);
    symbols.observe(image, Layout { start_code, end_code, start_stack }, &user, Instant::now());
    let stack = Stack { image, weight: 1, user: &user, kernel: record.kernel() };
    let names = symbols.resolve(&[stack], Instant::now() + NAMING_MAX);
    let row = names.row(stack, "");
    let mut texts = Texts::new(arena);
    let mut rows = |names: &[&str]| arena.rows(names.iter(), |name| texts.text(name));
    StackNames { kernel: rows(&row.kernel), user: rows(&row.user) }
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
