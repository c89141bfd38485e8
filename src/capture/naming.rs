//! The end of a capture of sampled stacks: all names are found, and the answer is given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stacks::{Job, Sampled, Sampler};
use crate::bpf;
use crate::evidence::{Capture, Faults, Resident, Seen};
use crate::inbox::Found;
use crate::stacks::fold;
use crate::symbol::{Image, Stack, Symbolizer};

/// What has no name by then gets none, and says so: whoever asked waits.
const NAMING_MAX: Duration = Duration::from_secs(20);

/// A request that is over: only its names are missing.
pub(super) struct Ended {
    pub(super) job: Job,
    pub(super) lasted: Duration,
    pub(super) lost: u64,
    pub(super) stacks: Vec<Counted>,
    pub(super) symbols: Symbolizer,
    pub(super) resident: Vec<Resident>,
}

/// A stack with its weight, and when it was last seen.
pub(super) struct Counted {
    pub(super) sent: Arc<bpf::Sent>,
    pub(super) weight: u64,
    pub(super) last: Duration,
}

/// The life of the naming thread.
pub(super) fn find_names(sampler: &Sampler) {
    let mut shift = sampler.endings.shift();
    loop {
        match shift.next(Duration::ZERO) {
            Found::Job(ended) => ended.name(sampler.sampled),
            Found::Nothing if shift.leave() => return,
            Found::Nothing => {}
            Found::Closed => return,
        }
    }
}

impl Ended {
    fn name(self, sampled: Sampled) {
        let Ended { job, lasted, lost, stacks: counted, symbols, resident } = self;
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
            Sampled::Running => Seen::Stacks(profile),
            Sampled::Faults { .. } => Seen::Faults(Faults { flame: profile.flame, top: resident }),
        };
        job.answer.give(Ok(Capture { scope: job.scope, lasted, lost, seen }));
    }
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
    use crate::symbol::Layout;

    fn counted(image: Image, comm: &str, execs: bool, last: u64) -> Counted {
        let (user, kernel) = (Box::default(), Box::default());
        let sent = bpf::Sent {
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
