//! Captures of run-queue waits: one pair of attached programs serves all that run at a time. The
//! kernel's sums are read when a request begins and when it ends, so each gets its own time only.
//! Cgroups that are no containers are named at the end, when nothing is attached any more.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::cgroup_names::cgroup_names;
use super::load::sentence;
use super::open_request::OpenRequest;
use super::session::{Programs, Session};
use crate::bpf::{self, Failed, Group, WaitSums};
use crate::capture_data::{
    Arena, CaptureData, CaptureKind, Interferer, Refusal, Rows, Scope, TaskGroup, Waited, Waiter, Waits,
};
use crate::host::Key;
use crate::sys;
use crate::thread_spawner::Worker;
use crate::work_queue::{WorkQueue, WorkerGuard};

/// No capture lasts longer; no clock overflows by it.
const LONGEST: Duration = Duration::from_secs(86_400);

const PROGRAMS: Programs = Programs {
    name: "the run-queue programs",
    refusal: Refusal::Failed(
        "the run-queue programs could not be attached: out of descriptors or rights; see onset doctor",
    ),
};

/// The part of a capture thread that outlives a run.
struct Waiting {
    program: Mutex<bpf::Waits>,
    queue: WorkQueue<OpenRequest>,
    lost: bpf::Lost,
    /// The hierarchy whose inodes are the cgroups' ids.
    root: Box<Path>,
}

struct Running {
    open: OpenRequest,
    began: Instant,
    until: Instant,
    before: Arc<WaitSums>,
}

/// A request that is over: only the names are missing.
struct Ended {
    open: OpenRequest,
    began: Instant,
    lasted: Duration,
    sums: WaitSums,
}

pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    let (site, release) = (loader.site()?, loader.release());
    let program = bpf::Waits::load(site.sys, site.followed, site.unified, release, loader.meter);
    let program = program.map_err(sentence)?;
    let lost = program.lost().map_err(sentence)?;
    let (program, queue) = (Mutex::new(program), WorkQueue::new(OPEN_MAX));
    Ok(Arc::new(Waiting { program, queue, lost, root: loader.hierarchy.root.into() }))
}

impl Backend for Waiting {
    fn method(&self) -> Method {
        Method { name: "tp_btf", degraded: None }
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        from.spawner.push(&self, open);
    }

    fn lost(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("waits", self.lost.samples());
    }

    fn try_attach(&self) {
        let _ = self.program.lock().unwrap_or_else(PoisonError::into_inner).arm();
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for Waiting {
    type Job = OpenRequest;

    fn name(&self) -> &'static str {
        "onset-waits"
    }

    fn queue(&self) -> &WorkQueue<OpenRequest> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, OpenRequest>) {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        PROGRAMS.serve(jobs, |jobs| {
            let armed = program.arm()?;
            WaitsSession { armed, running: Vec::new(), ended: Vec::new(), root: &self.root }.run(jobs);
            Ok(())
        });
    }
}

/// One run of the attached programs: it ends with its last request.
struct WaitsSession<'s> {
    armed: bpf::WaitsArmed<'s>,
    running: Vec<Running>,
    /// Those that are named when nothing is attached any more.
    ended: Vec<Ended>,
    root: &'s Path,
}

impl Session for WaitsSession<'_> {
    type Job = OpenRequest;

    /// One reading serves all requests that came together. What was added up before is not their own.
    fn begin(&mut self, first: OpenRequest, jobs: &WorkerGuard<'_, OpenRequest>) {
        let all: Vec<OpenRequest> = std::iter::once(first).chain(jobs.waiting()).collect();
        let asked = Instant::now();
        let read = read(&self.armed, all.iter().any(|open| !is_probe(open))).map(Arc::new);
        // Between the two this thread may have waited for a CPU, and longer than some captures last.
        let began = read.as_ref().ok().and_then(|sums| sums.at).unwrap_or(asked);
        for open in all {
            match &read {
                Ok(before) => {
                    let until = began + open.lasting().min(LONGEST);
                    self.running.push(Running { until, began, before: Arc::clone(before), open });
                }
                Err(_) => open.refuse(UNREADABLE),
            }
        }
    }

    fn due(&self) -> Option<Duration> {
        let next = self.running.iter().map(|running| running.until).min();
        next.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn turn(&mut self) -> ControlFlow<()> {
        let ended = end_due(&self.armed, &mut self.running);
        if self.running.is_empty() {
            self.ended = ended;
            return ControlFlow::Break(());
        }
        name_all(ended, self.root);
        ControlFlow::Continue(())
    }

    /// Naming takes a while, and needs nothing attached.
    fn end(self) {
        let WaitsSession { armed, ended, root, .. } = self;
        drop(armed);
        name_all(ended, root);
    }
}

/// Whether only the containers' waits are wanted.
fn is_probe(open: &OpenRequest) -> bool {
    open.request().kind == CaptureKind::Probe
}

/// The sums so far; that they cannot be read is counted.
fn read(armed: &bpf::WaitsArmed<'_>, interferers: bool) -> Result<WaitSums, bpf::Error> {
    armed.read(interferers).inspect_err(|error| Failed::Read.count("the sums of waits", error))
}

const UNREADABLE: Refusal = Refusal::Failed("the kernel's sums of waits could not be read");

/// Ends what is due.
fn end_due(armed: &bpf::WaitsArmed<'_>, running: &mut Vec<Running>) -> Vec<Ended> {
    let now = Instant::now();
    let due: Vec<Running> = running.extract_if(.., |running| running.until <= now).collect();
    if due.is_empty() {
        return Vec::new();
    }
    let read = read(armed, due.iter().any(|running| !is_probe(&running.open)));
    let end = |Running { open, began, before, .. }: Running| match &read {
        Ok(sums) => {
            let lasted = sums.at.unwrap_or(now).saturating_duration_since(began);
            Some(Ended { open, began, lasted, sums: since(sums, &before) })
        }
        Err(_) => {
            open.refuse(UNREADABLE);
            None
        }
    };
    due.into_iter().filter_map(end).collect()
}

/// What was added up between two readings.
fn since(now: &WaitSums, before: &WaitSums) -> WaitSums {
    let groups = now.groups.iter().map(|(group, sum)| {
        let before = before.groups.get(group).copied().unwrap_or_default();
        (*group, sum.since(&before))
    });
    let interferers = now.interferers.iter().map(|(pair, sum)| {
        let before = before.interferers.get(pair).copied().unwrap_or_default();
        (*pair, sum.saturating_sub(before))
    });
    WaitSums {
        at: now.at,
        groups: groups.filter(|(_, sum)| *sum != Waited::default()).collect(),
        interferers: interferers.filter(|(_, sum)| !sum.is_zero()).collect(),
        lost: now.lost.saturating_sub(before.lost),
        // What is missing at one end is missing in between.
        unread_cpus: now.unread_cpus.max(before.unread_cpus),
    }
}

/// Names what is to be named, in one walk for all, and answers.
fn name_all(ended: Vec<Ended>, root: &Path) {
    let found: Vec<_> = ended.into_iter().map(|ended| (Found::of(&ended), ended)).collect();
    let nameless = found.iter().flat_map(|(found, _)| found.cgroups()).collect();
    let names = cgroup_names(root, nameless);
    for (found, Ended { open, began, lasted, sums }) in found {
        if !is_probe(&open) {
            open.finish(sys::at(began), lasted, sums.lost, |arena| {
                CaptureData::Waits(found.named(&names, arena))
            });
        } else if sums.unread_cpus > 0 {
            // It is to judge by: without a part of what ran, all waits seem to be long.
            open.refuse(UNREADABLE);
        } else {
            open.finish(sys::at(began), lasted, sums.lost, |arena| {
                CaptureData::Probe(containers(&sums, arena))
            });
        }
    }
}

/// The containers alone, in an order that does not change.
fn containers<'a>(sums: &WaitSums, arena: &'a Arena) -> Rows<'a, (Key, Waited)> {
    let key = |(group, sum): (&Group, &Waited)| match group {
        Group::Container(key) => Some((*key, *sum)),
        Group::Cgroup(_) => None,
    };
    let mut found: Vec<_> = sums.groups.iter().filter_map(key).collect();
    found.sort_by_key(|(key, _)| *key);
    arena.plain_rows(found.into_iter())
}

/// What a request asked for, longest first, without names.
#[derive(Default)]
struct Found {
    whole: Waited,
    unread_cpus: u32,
    interferers: Vec<(Group, Duration)>,
    waiters: Vec<(Group, Waited)>,
}

impl Found {
    fn of(ended: &Ended) -> Found {
        let Ended { open, sums, .. } = ended;
        if is_probe(open) {
            return Found::default();
        }
        let mut held: HashMap<Group, Duration> = HashMap::new();
        let mut found = Found { unread_cpus: sums.unread_cpus, ..Found::default() };
        let only = match open.scope() {
            Scope::Host | Scope::Device(_) => None,
            Scope::Container(key) => Some(Group::Container(key)),
        };
        for ((victim, interferer), time) in &sums.interferers {
            if only.is_none_or(|only| only == *victim) {
                *held.entry(*interferer).or_default() += *time;
            }
        }
        match only {
            Some(only) => found.whole = sums.groups.get(&only).copied().unwrap_or_default(),
            None => {
                found.whole = sums.groups.values().fold(Waited::default(), |all, one| all.and(one));
                found.waiters = sums.groups.iter().map(|(group, sum)| (*group, *sum)).collect();
                found.waiters.retain(|(_, sum)| !sum.all.is_zero());
                found.waiters.sort_by_key(|(_, sum)| Reverse(sum.all));
            }
        }
        found.interferers = held.into_iter().collect();
        found.interferers.sort_by_key(|(_, time)| Reverse(*time));
        found
    }

    fn cgroups(&self) -> impl Iterator<Item = u64> {
        let groups = self.interferers.iter().map(|(group, _)| group);
        groups.chain(self.waiters.iter().map(|(group, _)| group)).filter_map(|group| match group {
            Group::Container(_) => None,
            Group::Cgroup(id) => Some(*id),
        })
    }

    fn named<'a>(&self, names: &HashMap<u64, Box<str>>, arena: &'a Arena) -> Waits<'a> {
        let named = |group| match group {
            Group::Container(key) => Some(TaskGroup::Container(key)),
            Group::Cgroup(id) => {
                let path = names.get(&id).map(|path| arena.text(path));
                path.map_or(Some(None), |path| path.map(Some)).map(TaskGroup::Cgroup)
            }
        };
        let interferers = arena.rows(self.interferers.iter(), |(group, held)| {
            Some(Interferer { group: named(*group)?, held: *held })
        });
        let waiters = arena
            .rows(self.waiters.iter(), |(group, time)| Some(Waiter { group: named(*group)?, time: *time }));
        Waits { whole: self.whole, unread_cpus: self.unread_cpus, interferers, waiters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_what_came_after_it_began() {
        let (a, b) = (Group::Cgroup(1), Group::Cgroup(2));
        let ms = Duration::from_millis;
        let waited = |all| Waited { all: ms(all), waits: all, ..Waited::default() };
        let before = WaitSums {
            at: None,
            groups: [(a, waited(5))].into(),
            interferers: [((a, b), ms(4))].into(),
            lost: 1,
            unread_cpus: 2,
        };
        let now = WaitSums {
            at: None,
            groups: [(a, waited(5)), (b, waited(3))].into(),
            interferers: [((a, b), ms(9)), ((b, a), ms(2))].into(),
            lost: 4,
            unread_cpus: 1,
        };
        let part = since(&now, &before);
        assert_eq!(part.groups, [(b, waited(3))].into(), "who did nothing is not in it");
        assert_eq!(part.interferers, [((a, b), ms(5)), ((b, a), ms(2))].into());
        assert_eq!((part.lost, part.unread_cpus), (3, 2));
    }

    #[test]
    fn groups_that_the_arena_has_no_room_for_are_the_ones_that_waited_least() {
        let ms = |ms| Duration::from_millis(ms);
        let names: HashMap<u64, Box<str>> =
            (0..2000).map(|id| (id, format!("/kubepods/pod{id:0100}").into())).collect();
        let waiter = |id| (Group::Cgroup(id), Waited { all: ms(2000 - id), ..Waited::default() });
        let found = Found {
            interferers: (0..2000).map(|id| (Group::Cgroup(id), ms(2000 - id))).collect(),
            waiters: (0..2000).map(waiter).collect(),
            ..Found::default()
        };
        let arena = Arena::new(128 << 10);
        let Waits { interferers, waiters, .. } = found.named(&names, &arena);
        assert!(interferers.len() > 200 && interferers.left_out() > 0, "{}", interferers.len());
        assert_eq!(interferers.len() + interferers.left_out(), 2000);
        assert_eq!(waiters.len() + waiters.left_out(), 2000);
        assert!(interferers.iter().zip((1..=2000).rev()).all(|(one, held)| one.held == ms(held)));
        assert_eq!(interferers[7].group, TaskGroup::Cgroup(Some(&names[&7])));
        let arena = Arena::new(1 << 20);
        let Waits { interferers, waiters, .. } = found.named(&HashMap::new(), &arena);
        assert_eq!((interferers.len(), waiters.len()), (2000, 2000));
        assert_eq!(waiters[0].group, TaskGroup::Cgroup(None), "it is gone");
    }

    #[test]
    fn as_many_containers_as_may_be_configured_fit_into_a_probes_arena() {
        let key = |slot| Group::Container(Key { slot, generation: 1 });
        let waited = Waited { ran: Duration::from_secs(1), ..Waited::default() };
        let sums =
            WaitSums { groups: (0..16_384).map(|slot| (key(slot), waited)).collect(), ..WaitSums::default() };
        let arena = Arena::new(CaptureKind::Probe.arena_bytes());
        let rows = containers(&sums, &arena);
        assert_eq!((rows.len(), rows.left_out()), (16_384, 0));
    }
}
