//! The I/O side of captures: a request goes in, exactly one answer comes out later. Programs are
//! loaded once, attached only while a capture runs, and waited for on threads that are there only
//! then. Nothing here blocks the loop.

mod arenas;
mod backend;
mod cgroup_names;
mod disks;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hook_loader;
mod io;
mod io_counters;
mod io_rows;
mod load;
mod names;
mod naming;
mod open_request;
mod proc_task;
mod resident;
mod sampled;
mod session;
mod stacks;
mod stuck_tasks;
mod table;
mod tasks;
mod waits;
mod walk;
mod walked_tasks;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

pub use arenas::{ARENAS_EACH, ArenaPool, Lease, OwnedCapture};
use backend::{Backend, Cgroups, Loaded, Loader, Registration, Submission, TaskSnapshot};
pub use backend::{Hierarchy, Method, OPEN_MAX};
use hook_loader::HookLoader;
pub use hook_loader::LoadedHook;
pub use load::release;
use load::sentence;
use open_request::{Answered, OpenRequest, Wake};
use table::BACKENDS;

use crate::bpf::{self, Followed, Meter};
use crate::capture_data::{CaptureKind, RecordStack, Refusal, Request, Scope, Ticket};
use crate::config;
use crate::host::{Containers, Key, TaskLook, TaskSample};
use crate::thread_spawner::ThreadSpawner;

/// Requests that may be open at once, of all kinds.
pub const OPEN_ALL_MAX: usize = 256;

/// How long threads are waited for at the end.
const LEAVE: Duration = Duration::from_millis(900);

/// What is said of a kind that no line of the table has, which a test refuses.
const NO_BACKEND: &str = "this build has no backend for it";

/// All captures there are.
pub struct Captures {
    followed: Result<Arc<Followed>, &'static str>,
    not_followed: u64,
    backends: Vec<(&'static [CaptureKind], Loaded)>,
    /// Of each kind that can be captured here.
    arenas: Vec<(CaptureKind, Arc<ArenaPool>)>,
    tasks: Option<Box<dyn TaskSnapshot>>,
    hooks: HookLoader,
    unified: bool,
    meter: Meter,
    sys: Box<Path>,
    open: Vec<(Ticket, Request)>,
    to: SyncSender<Answered>,
    from: Receiver<Answered>,
    wake: Wake,
    spawner: ThreadSpawner,
}

impl Captures {
    /// Loads the programs; what cannot be loaded here is unsupported, with a reason. `wake` is called from
    /// helper threads when an answer waits. Up to `capacity` containers are followed at once.
    pub fn load(paths: &config::Paths, hierarchy: Hierarchy<'_>, capacity: usize, wake: Wake) -> Captures {
        Captures::of(BACKENDS, paths, hierarchy, capacity, wake)
    }

    fn of(
        table: &[Registration],
        paths: &config::Paths,
        hierarchy: Hierarchy<'_>,
        capacity: usize,
        wake: Wake,
    ) -> Captures {
        let mut meter = Meter::default();
        let followed = bpf::btf(&paths.sys).and_then(|()| Followed::create(capacity));
        let followed = followed.map(Arc::new).map_err(sentence);
        let cpus = bpf::cpus::online_or_first(&paths.sys);
        let mut loader = Loader {
            paths,
            hierarchy,
            capacity,
            cpus: &cpus,
            followed: followed.as_deref().map_err(|why| *why),
            wake: &wake,
            meter: &mut meter,
            tasks: None,
        };
        let load = |line: &Registration| (line.kinds, (line.load)(&mut loader));
        let backends: Vec<(_, Loaded)> = table.iter().map(load).collect();
        let tasks = loader.tasks;
        let (to, from) = sync_channel(OPEN_ALL_MAX);
        let hooks = HookLoader::new(followed.clone(), hierarchy.unified, &paths.sys, Arc::clone(&wake));
        Captures {
            followed,
            not_followed: 0,
            unified: hierarchy.unified,
            arenas: arenas(&backends),
            backends,
            tasks,
            hooks,
            meter,
            sys: paths.sys.as_path().into(),
            open: Vec::with_capacity(OPEN_ALL_MAX),
            to,
            from,
            wake,
            spawner: ThreadSpawner::new(),
        }
    }

    /// Whether this thread has the rights to sample, as it is now.
    #[must_use]
    pub fn may_sample(&self) -> bool {
        bpf::may_sample(bpf::cpus::online_or_first(&self.sys).first().copied().unwrap_or(0))
    }

    /// What starts its threads; it works as long as the captures are there.
    #[must_use]
    pub fn spawner(&self) -> ThreadSpawner {
        self.spawner.clone()
    }

    /// From now on captures get their threads, which have the rights that the caller has now. Before
    /// that they wait.
    pub fn begin_threads(&self) {
        self.spawner.begin();
    }

    /// How this kind of capture is made here, or why it cannot be.
    pub fn support(&self, kind: CaptureKind) -> Result<Method, &'static str> {
        self.backend(kind).map(|backend| backend.method())
    }

    fn backend(&self, kind: CaptureKind) -> Result<&Arc<dyn Backend>, &'static str> {
        let mut lines = self.backends.iter();
        let line = lines.find(|(kinds, _)| kinds.contains(&kind));
        line.map_or(Err(NO_BACKEND), |(_, loaded)| loaded.as_ref().map_err(|why| *why))
    }

    fn arenas(&self, kind: CaptureKind) -> Result<Arc<ArenaPool>, Refusal> {
        let found = self.arenas.iter().find(|(of, _)| *of == kind);
        found.map(|(_, arenas)| Arc::clone(arenas)).ok_or(Refusal::Unsupported(NO_BACKEND))
    }

    fn loaded(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.backends.iter().filter_map(|(_, loaded)| loaded.as_ref().ok())
    }

    /// Attaches every program of captures and detaches it again. What became of each is told by
    /// `bpf::each_program`, and so is why one was refused.
    pub fn try_attach(&self) {
        self.loaded().for_each(|backend| backend.try_attach());
    }

    /// Attaches the program that tells of a tracer's events, with the containers that are followed.
    pub fn hook(
        &mut self,
        name: &'static str,
        knobs: Vec<bpf::KnobValue>,
    ) -> Result<bpf::Hook, &'static str> {
        self.hooks.load(name, knobs, &mut self.meter)
    }

    /// Has a thread do that for the tracer of this slot: exactly one answer follows through `loaded_hook`. Never
    /// blocks.
    pub fn order_hook(&mut self, slot: usize, name: &'static str, knobs: Vec<bpf::KnobValue>) {
        self.hooks.order(&self.spawner, slot, name, knobs);
    }

    /// The next hook that was ordered, if one waits.
    pub fn loaded_hook(&mut self) -> Option<LoadedHook> {
        self.hooks.loaded(&mut self.meter)
    }

    /// Loads what reads the counters of many containers' cgroups at once.
    pub fn cgroup_source(&mut self, proc: &Path) -> Result<bpf::Cgroups, &'static str> {
        let followed = self.followed.as_ref().map_err(|why| *why)?;
        let site = bpf::Site { sys: &self.sys, followed, unified: self.unified, cpus: &[] };
        bpf::Cgroups::load(&site, release(proc), &mut self.meter).map_err(sentence)
    }

    /// From now on this cgroup, and those below it, are that container.
    pub fn follow(&mut self, cgroup_id: u64, key: Key) {
        if let Ok(followed) = &self.followed
            && !followed.follow(cgroup_id, key)
        {
            self.not_followed += 1;
        }
    }

    /// From now on it is no container.
    pub fn unfollow(&mut self, cgroup_id: u64) {
        if let Ok(followed) = &self.followed {
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

    /// The same for the names of a stack. Whose it was may be gone: its addresses can still be named.
    pub fn name(&mut self, ticket: Ticket, request: Request, stack: &RecordStack) -> Result<(), Refusal> {
        self.submit(ticket, request, &|_| (), Some(stack))
    }

    fn start(&mut self, ticket: Ticket, request: Request, containers: Cgroups<'_>) -> Result<(), Refusal> {
        self.submit(ticket, request, containers, None)
    }

    fn submit(
        &mut self,
        ticket: Ticket,
        request: Request,
        containers: Cgroups<'_>,
        stack: Option<&RecordStack>,
    ) -> Result<(), Refusal> {
        let backend = self.backend(request.kind).map_err(Refusal::Unsupported)?;
        let alike = self.open.iter().filter(|(_, open)| open.kind == request.kind);
        let twice = backend.one_per_scope() && alike.clone().any(|(_, open)| open.scope == request.scope);
        if twice || alike.count() >= OPEN_MAX || self.open.len() >= OPEN_ALL_MAX {
            return Err(Refusal::Busy);
        }
        // From here on a request is answered even if it is dropped, for want of a thread.
        let open = OpenRequest::new(
            ticket,
            request,
            self.to.clone(),
            Arc::clone(&self.wake),
            self.arenas(request.kind)?,
        );
        let from = Submission { spawner: &self.spawner, containers, stack };
        Arc::clone(backend).submit(open, &from);
        self.open.push((ticket, request));
        Ok(())
    }

    /// The next answer, if one waits.
    pub fn finished(&mut self) -> Option<(Ticket, Result<OwnedCapture, Refusal>)> {
        let answered = self.from.try_recv().ok()?;
        self.open.retain(|(ticket, _)| *ticket != answered.0);
        Some(answered)
    }

    /// Requests that have no answer yet.
    #[must_use]
    pub fn running(&self) -> usize {
        self.open.len()
    }

    /// Begins the detectors' look at all tasks, or goes on with it: each call takes a small part of the loop's time.
    pub fn sample_tasks(&mut self, containers: &Containers, each: &mut dyn FnMut(TaskSample)) -> TaskLook {
        let Captures { tasks, spawner, .. } = self;
        tasks.as_mut().map_or(TaskLook::Failed, |tasks| tasks.look(spawner, containers, each))
    }

    /// Each program's name, its run time and its runs as the kernel counts them: zero unless
    /// kernel.bpf_stats_enabled is set.
    pub fn run_time(&self, each: &mut dyn FnMut(&'static str, Duration, u64)) {
        self.meter.read(each);
    }

    /// What was lost since start, by where.
    pub fn lost(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.loaded().for_each(|backend| backend.lost(each));
        each("containers", self.not_followed);
    }
}

/// Arenas for each kind that has a backend.
fn arenas(backends: &[(&'static [CaptureKind], Loaded)]) -> Vec<(CaptureKind, Arc<ArenaPool>)> {
    let made = backends.iter().filter(|(_, loaded)| loaded.is_ok()).flat_map(|(kinds, _)| *kinds);
    made.map(|kind| (*kind, ArenaPool::new(kind.arena_bytes()))).collect()
}

impl Drop for Captures {
    fn drop(&mut self) {
        let deadline = Instant::now() + LEAVE;
        self.arenas.iter().for_each(|(_, arenas)| arenas.close());
        // A thread that is still there after this works for nobody, and ends with the process.
        self.loaded().for_each(|backend| backend.close(deadline));
        self.hooks.close(deadline);
        // Last: it may have been about to start a thread that one of these waits for.
        self.spawner.close(deadline);
    }
}

/// The backend that docs/how-to-add-a-capture.md makes.
#[cfg(test)]
#[path = "../../docs/example/offcpu.rs"]
mod offcpu;
#[cfg(test)]
mod tests;
