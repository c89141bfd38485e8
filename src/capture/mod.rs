//! The I/O side of captures: a request goes in, exactly one answer comes out later. Programs are
//! loaded once, attached only while a capture runs, and waited for on threads that are there only
//! then. Nothing here blocks the loop.

mod answer;
mod disks;
#[doc(hidden)]
pub mod fuzz;
mod io;
mod io_rows;
mod load;
mod naming;
mod proc_task;
mod resident;
mod stacks;
mod tasks;
mod tried;
mod waits;
mod walk;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::starter::Starter;
use answer::{Answer, Answered, Wake};
pub use load::release;
use load::{page_bytes, sentence};
use resident::{Members, Residents};
use stacks::Sampler;
use tasks::{Looker, Walks};
use waits::Waiting;
use walk::Cgroups;

use crate::bpf::{self, Followed, Meter};
use crate::evidence::{Capture, Kind, Refusal, Request, Scope, Ticket};
use crate::host::{Containers, Key, TaskSample};

/// Requests of one kind that may be open at once.
pub const OPEN_MAX: usize = 64;

/// Requests that may be open at once, of all kinds.
pub const OPEN_ALL_MAX: usize = 256;

/// How long threads are waited for at the end.
const LEAVE: Duration = Duration::from_millis(900);

/// All captures there are.
pub struct Captures {
    followed: Option<Followed>,
    not_followed: u64,
    stacks: Result<Arc<Sampler>, &'static str>,
    faults: Result<Arc<Sampler>, &'static str>,
    residents: Arc<Residents>,
    tasks: Looks,
    unified: bool,
    waits: Result<(Arc<Waiting>, bpf::Lost), &'static str>,
    io: Result<(Arc<io::Tracing>, bpf::IoLost), &'static str>,
    meter: Meter,
    sys: Box<Path>,
    open: Vec<Open>,
    to: SyncSender<Answered>,
    from: Receiver<Answered>,
    wake: Wake,
    starter: Starter,
}

/// A request that has no answer yet.
struct Open {
    ticket: Ticket,
    request: Request,
}

/// How tasks are looked at.
enum Looks {
    Iterator { passers: bpf::Passers, looker: Arc<Looker> },
    Walks { walks: Arc<Walks>, why: &'static str },
}

impl Captures {
    /// Whether this thread has the rights to sample, as it is now.
    #[must_use]
    pub fn may_sample(&self) -> bool {
        bpf::may_sample(bpf::cpus::online_or_first(&self.sys).first().copied().unwrap_or(0))
    }

    /// The one who starts its threads; it is there as long as the captures are.
    #[must_use]
    pub fn starter(&self) -> Starter {
        self.starter.clone()
    }

    /// From now on captures get their threads, which have the rights that the caller has now. Before
    /// that they wait.
    pub fn staff(&self) {
        self.starter.begin();
    }

    /// Why this kind of capture cannot be made here.
    #[must_use]
    pub fn unsupported(&self, kind: Kind) -> Option<&'static str> {
        match kind {
            Kind::Tasks | Kind::Memory => None,
            Kind::Stacks | Kind::Faults => self.sampler(kind).and_then(|sampler| sampler.err()),
            Kind::Waits | Kind::Probe => self.waits.as_ref().err().copied(),
            Kind::Io => self.io.as_ref().err().copied(),
        }
    }

    /// From now on cgroups that are no containers are named by this hierarchy: the one whose
    /// inodes are the containers' ids.
    pub fn name_cgroups_in(&mut self, root: &Path) {
        if let Ok((waiting, _)) = &self.waits {
            *waiting.root.lock().unwrap_or_else(PoisonError::into_inner) = root.to_owned();
        }
    }

    /// What samples for this kind of capture, or why nothing does; `None` for one that is not sampled.
    fn sampler(&self, kind: Kind) -> Option<Result<&Arc<Sampler>, &'static str>> {
        let sampler = match kind {
            Kind::Stacks => &self.stacks,
            Kind::Faults => &self.faults,
            Kind::Tasks | Kind::Memory | Kind::Waits | Kind::Probe | Kind::Io => return None,
        };
        Some(sampler.as_ref().map_err(|why| *why))
    }

    /// How this kind of capture is made here.
    #[must_use]
    pub fn mode(&self, kind: Kind) -> &'static str {
        match (kind, &self.tasks) {
            (Kind::Stacks, _) => "perf_event",
            (Kind::Faults, _) => "perf_event page-faults",
            (Kind::Memory, _) => "/proc",
            (Kind::Tasks, Looks::Iterator { .. }) => "iter/task",
            (Kind::Tasks, Looks::Walks { .. }) => "/proc walk",
            (Kind::Waits | Kind::Probe, _) => "tp_btf",
            (Kind::Io, _) => "tp_btf/block_bio_queue, block_rq_complete, sched_waking",
        }
    }

    /// Why it is made in a lesser way than it could be.
    #[must_use]
    pub fn lesser(&self, kind: Kind) -> Option<&'static str> {
        match (kind, &self.tasks) {
            (Kind::Tasks, Looks::Walks { why, .. }) => Some(why),
            _ => None,
        }
    }

    /// Attaches the program that tells of a tracer's events, with the containers that are followed.
    pub fn hook(&mut self, name: &'static str) -> Result<bpf::Hook, &'static str> {
        // The same kernel that refuses all programs refuses this one, for the same reason.
        let followed = self.followed.as_ref().ok_or_else(|| self.stacks.as_ref().err().copied());
        let followed = followed.map_err(|why| why.unwrap_or("BPF maps cannot be made; see onset doctor"))?;
        let site = bpf::Site { sys: &self.sys, followed, unified: self.unified, cpus: &[] };
        bpf::Hook::attach(name, &site, page_bytes(), &mut self.meter).map_err(sentence)
    }

    /// From now on this cgroup, and those below it, are that container.
    pub fn follow(&mut self, cgroup_id: u64, key: Key) {
        if let Some(followed) = &self.followed
            && !followed.follow(cgroup_id, key)
        {
            self.not_followed += 1;
        }
    }

    /// From now on it is no container.
    pub fn unfollow(&mut self, cgroup_id: u64) {
        if let Some(followed) = &self.followed {
            followed.unfollow(cgroup_id);
        }
    }

    /// Ok: exactly one answer follows through `finished`. Never blocks.
    pub fn begin(
        &mut self,
        ticket: Ticket,
        request: Request,
        containers: &Containers,
    ) -> Result<(), Refusal> {
        if let Scope::Container(key) = request.scope
            && !containers.get(key).is_some_and(|container| container.is_live())
        {
            return Err(Refusal::Gone);
        }
        self.start(ticket, request, &|each| {
            containers.iter().for_each(|container| each(container.cgroup_path(), container.key()));
        })
    }

    fn start(&mut self, ticket: Ticket, request: Request, containers: Cgroups<'_>) -> Result<(), Refusal> {
        let Request { kind, scope, lasting } = request;
        let alike = self.open.iter().filter(|open| open.request.kind == kind);
        let sampler = self.sampler(kind);
        let twice =
            (sampler.is_some() || kind == Kind::Io) && alike.clone().any(|open| open.request.scope == scope);
        if twice || alike.count() >= OPEN_MAX || self.open.len() >= OPEN_ALL_MAX {
            return Err(Refusal::Busy);
        }
        let sampler = sampler.transpose().map_err(Refusal::Unsupported)?.map(Arc::clone);
        if matches!(kind, Kind::Waits | Kind::Probe)
            && let Err(reason) = self.waits
        {
            return Err(Refusal::Unsupported(reason));
        }
        if kind == Kind::Io
            && let Err(reason) = self.io
        {
            return Err(Refusal::Unsupported(reason));
        }
        // From here on a job answers even if it is dropped, for want of a thread.
        let answer = Answer::new(ticket, self.to.clone(), Arc::clone(&self.wake));
        self.open.push(Open { ticket, request });
        let starter = &self.starter;
        match (kind, sampler, &self.tasks) {
            (Kind::Waits | Kind::Probe, ..) => {
                if let Ok((waiting, _)) = &self.waits {
                    let probe = kind == Kind::Probe;
                    waiting.bring(starter, waits::Job { answer, scope, lasting, probe });
                }
            }
            (Kind::Io, ..) => {
                if let Ok((tracing, ..)) = &self.io {
                    tracing.bring(starter, io::Job { answer, scope, lasting });
                }
            }
            (Kind::Memory, ..) => {
                let members = self.members(scope, containers);
                self.residents.bring(starter, resident::Job { answer, scope, members });
            }
            (_, Some(sampler), _) => {
                let whose = if kind == Kind::Faults { scope } else { Scope::Host };
                let members = self.members(whose, containers);
                sampler.bring(starter, stacks::Job { answer, scope, lasting, members });
            }
            (_, None, Looks::Iterator { looker, .. }) => looker.bring(starter, tasks::Job { answer, scope }),
            (_, None, Looks::Walks { walks, .. }) => {
                walks.capture(starter, tasks::Job { answer, scope }, containers);
            }
        }
        Ok(())
    }

    /// Whose memory is looked at in a capture of this scope.
    fn members(&self, scope: Scope, containers: Cgroups<'_>) -> Members {
        let Scope::Container(key) = scope else { return Members::HOST };
        // Of one that is not there, the root's: every process of the host.
        let mut members = Members::of("", self.unified);
        containers(&mut |path, other| {
            if other == key {
                members = Members::of(path, self.unified);
            }
        });
        members
    }

    /// The next answer, if one waits.
    pub fn finished(&mut self) -> Option<(Ticket, Result<Capture, Refusal>)> {
        let answered = self.from.try_recv().ok()?;
        self.open.retain(|open| open.ticket != answered.0);
        Some(answered)
    }

    /// Requests that have no answer yet.
    #[must_use]
    pub fn running(&self) -> usize {
        self.open.len()
    }

    /// The detector's look at all tasks. False: there is no look to be had now; where tasks are
    /// walked over, each call gives the walk that the call before began.
    pub fn sample_tasks(&mut self, containers: &Containers, each: &mut dyn FnMut(TaskSample)) -> bool {
        match &mut self.tasks {
            Looks::Iterator { passers, .. } => passers.look(|task| each(task.sample())).is_ok(),
            Looks::Walks { walks, .. } => walks.sample(&self.starter, containers, each),
        }
    }

    /// Each program's name, its run time and its runs as the kernel counts them: zero unless
    /// kernel.bpf_stats_enabled is set.
    pub fn run_time(&self, each: &mut dyn FnMut(&str, Duration, u64)) {
        self.meter.read(each);
    }

    /// What was lost since start, by where.
    pub fn lost(&self, each: &mut dyn FnMut(&'static str, u64)) {
        for sampler in [&self.stacks, &self.faults].into_iter().flatten() {
            each(sampler.sampled.kind().name(), sampler.lost.samples());
        }
        if let Ok((_, lost)) = &self.waits {
            each("waits", lost.samples());
        }
        if let Ok((_, lost)) = &self.io {
            each("io", lost.count());
        }
        each("containers", self.not_followed);
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        let deadline = Instant::now() + LEAVE;
        // One that is still there after this works for nobody, and ends with the process.
        for sampler in [&self.stacks, &self.faults].into_iter().flatten() {
            sampler.close(deadline);
        }
        self.residents.inbox.close(deadline);
        if let Ok((waiting, _)) = &self.waits {
            waiting.inbox.close(deadline);
        }
        if let Ok((tracing, ..)) = &self.io {
            tracing.inbox.close(deadline);
        }
        match &self.tasks {
            Looks::Iterator { looker, .. } => looker.inbox.close(deadline),
            Looks::Walks { walks, .. } => walks.inbox.close(deadline),
        };
        // Last: it may have been about to start a thread that one of these waits for.
        self.starter.close(deadline);
    }
}

#[cfg(test)]
mod tests;
