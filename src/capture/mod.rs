//! The I/O side of captures: a request goes in, exactly one answer comes out later. Programs are
//! loaded once, attached only while a capture runs, and waited for on threads that are there only
//! then. Nothing here blocks the loop.

mod answer;
mod disks;
#[doc(hidden)]
pub mod fuzz;
mod io;
mod io_rows;
mod proc_task;
mod resident;
mod stacks;
mod tasks;
mod waits;
mod walk;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::inbox::Inbox;
use crate::starter::Starter;
use answer::{Answer, Answered, Wake};
use resident::{Members, Residents};
use stacks::{Sampled, Sampler};
use tasks::{Looker, Walks};
use waits::Waiting;
use walk::Cgroups;

use crate::bpf::{self, Followed, Meter};
use crate::config;
use crate::evidence::{Capture, Kind, Refusal, Request, Scope, Ticket};
use crate::host::{Containers, Key, TaskSample};
use crate::sys;

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
    /// Loads the programs; what cannot be loaded here is unsupported, with a reason. `wake` is
    /// called from helper threads when an answer waits. Containers are told apart in the unified
    /// hierarchy or in v1's cpu hierarchy; so many are followed at once.
    pub fn load(paths: &config::Paths, unified: bool, capacity: usize, wake: Wake) -> Captures {
        let mut meter = Meter::default();
        let followed = bpf::btf(&paths.sys).and_then(|()| Followed::create(capacity)).map_err(sentence);
        let cpus = online_cpus(&paths.sys);
        let site = followed.as_ref().map_err(|why| *why);
        let site = site.map(|followed| bpf::Site { sys: &paths.sys, followed, unified, cpus: &cpus });
        let [stacks, faults] = samplers(&site, &paths.proc, &mut meter);
        let tasks = followed.as_ref().map_err(|why| *why).and_then(|followed| {
            let release = release(&paths.proc);
            bpf::Tasks::load(&paths.sys, followed, unified, release, &mut meter).map_err(sentence)
        });
        let io = followed.as_ref().map_err(|why| *why).and_then(|followed| {
            let program = bpf::Io::load(paths, followed, unified, &mut meter).map_err(sentence)?;
            let lost = program.lost().map_err(sentence)?;
            let (proc, sys) = (paths.proc.as_path().into(), paths.sys.as_path().into());
            let (program, inbox) = (Mutex::new(program), Inbox::new(OPEN_MAX));
            Ok((Arc::new(io::Tracing { program, inbox, proc, sys }), lost))
        });
        let waits = followed.as_ref().map_err(|why| *why).and_then(|followed| {
            let release = release(&paths.proc);
            let program =
                bpf::Waits::load(&paths.sys, followed, unified, release, &mut meter).map_err(sentence)?;
            let lost = program.lost().map_err(sentence)?;
            let (inbox, root) = (Inbox::new(OPEN_MAX), Mutex::new(paths.cgroup.clone()));
            Ok((Arc::new(Waiting { program: Mutex::new(program), inbox, root }), lost))
        });
        let proc: Box<Path> = paths.proc.as_path().into();
        let tasks = match tasks {
            Ok(bpf::Tasks { passers, stuck }) => {
                let inbox = Inbox::new(OPEN_MAX);
                Looks::Iterator {
                    passers,
                    looker: Arc::new(Looker { inbox, stuck: Mutex::new(stuck), proc }),
                }
            }
            Err(why) => Looks::Walks { walks: Arc::new(Walks::new(&proc, unified, capacity, OPEN_MAX)), why },
        };
        let (to, from) = sync_channel(OPEN_ALL_MAX);
        Captures {
            followed: followed.ok(),
            not_followed: 0,
            stacks,
            faults,
            residents: Arc::new(Residents::new(&paths.proc)),
            tasks,
            unified,
            waits,
            io,
            meter,
            sys: paths.sys.as_path().into(),
            open: Vec::with_capacity(OPEN_ALL_MAX),
            to,
            from,
            wake,
            starter: Starter::new(),
        }
    }

    /// Whether this thread has the rights to sample, as it is now.
    #[must_use]
    pub fn may_sample(&self) -> bool {
        bpf::may_sample(online_cpus(&self.sys).first().copied().unwrap_or(0))
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
                if let Ok((tracing, _)) = &self.io {
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
        if let Ok((tracing, _)) = &self.io {
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

/// What samples for `Kind::Stacks` and for `Kind::Faults`.
type Samplers = [Result<Arc<Sampler>, &'static str>; 2];

fn samplers(site: &Result<bpf::Site<'_>, &'static str>, proc: &Path, meter: &mut Meter) -> Samplers {
    let page_bytes = page_bytes();
    [Sampled::Running, Sampled::Faults { page_bytes }].map(|sampled| {
        let site = site.as_ref().map_err(|why| *why)?;
        let program = match sampled {
            Sampled::Running => bpf::Stacks::by_clock(site, meter),
            Sampled::Faults { page_bytes } => bpf::Stacks::by_faults(site, page_bytes, meter),
        };
        program.and_then(|program| Sampler::new(program, sampled, proc)).map(Arc::new).map_err(sentence)
    })
}

fn page_bytes() -> u32 {
    sys::page_size().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(4096)
}

/// A reason, to be kept for the life of the process: there is at most one for each program.
fn sentence(error: bpf::Error) -> &'static str {
    String::leak(error.to_string())
}

/// The numbers of the CPUs that are online; the first one where that is not told.
fn online_cpus(sys: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(sys.join("devices/system/cpu/online")).unwrap_or_default();
    let cpus = cpu_list(&text);
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// `0-3,8`.
fn cpu_list(text: &str) -> Vec<u32> {
    /// As many as any kernel is built for.
    const CPUS_MAX: u32 = 8192;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(CPUS_MAX))
    };
    // Named again and again they are still no more.
    text.trim().split(',').filter_map(range).flatten().take(CPUS_MAX as usize).collect()
}

/// The kernel's release: `6.18.44-generic` is (6, 18).
#[must_use]
pub fn release(proc: &Path) -> Option<(u32, u32)> {
    release_of(&std::fs::read_to_string(proc.join("sys/kernel/osrelease")).ok()?)
}

fn release_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
