//! What makes captures of one kind or more: the interface of all backends, and what one is loaded from
//! and handed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::load::release;
use super::open_request::{OpenRequest, Wake};
use crate::bpf::{Followed, Meter, Site};
use crate::capture_data::{CaptureKind, RecordStack};
use crate::config;
use crate::host::{Containers, Key, TaskLook, TaskSample};
use crate::thread_spawner::ThreadSpawner;

/// Requests of one kind that may be open at once.
pub const OPEN_MAX: usize = 64;

/// How a kind of capture is made on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// What it is made with.
    pub name: &'static str,
    /// Why it is made in a lesser way than it could be, if it is.
    pub degraded: Option<&'static str>,
}

/// The cgroup hierarchy that containers are told apart in.
#[derive(Clone, Copy, Debug)]
pub struct Hierarchy<'h> {
    /// Where it is mounted: the inodes of its folders are the cgroups' ids.
    pub root: &'h Path,
    /// Whether it is the unified one, else it is v1's cpu hierarchy.
    pub unified: bool,
}

/// Makes captures. What is called on the loop neither blocks nor takes memory.
pub(super) trait Backend: Send + Sync {
    /// How its captures are made here.
    fn method(&self) -> Method;

    /// Whether a second capture of one scope is refused while the first runs: it would be the same.
    fn one_per_scope(&self) -> bool {
        false
    }

    /// Takes a request, to answer it later from a thread of its own.
    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>);

    /// Tells what was lost since start, by where.
    fn lost(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let _ = each;
    }

    /// Attaches its programs and detaches them again: `bpf::each_program` then tells what became of each. It
    /// blocks, and is not for the loop.
    fn try_attach(&self) {}

    /// Tells its threads to leave, and waits for them until `deadline`.
    fn close(&self, deadline: Instant);
}

/// What a backend is handed along with a request.
pub(super) struct Submission<'s> {
    pub(super) spawner: &'s ThreadSpawner,
    /// The containers that there are now.
    pub(super) containers: Cgroups<'s>,
    /// Of `CaptureKind::Names`: what is to be named.
    pub(super) stack: Option<&'s RecordStack>,
}

/// Calls back with each container: the path of its cgroup, and its key.
pub(super) type Cgroups<'c> = &'c dyn Fn(&mut dyn FnMut(&str, Key));

/// Tasks that one call of `TaskSnapshot::look` tells of at most: each takes the kernel about a microsecond, twice that with
/// cold caches, and the loop has other things to do.
pub(super) const TASKS_AT_ONCE: usize = 1024;

/// The detectors' look at all tasks, which the backend of captures of tasks has.
pub(super) trait TaskSnapshot: Send {
    /// Begins a look or goes on with it. Tells of `TASKS_AT_ONCE` tasks at most.
    fn look(
        &mut self,
        spawner: &ThreadSpawner,
        containers: &Containers,
        each: &mut dyn FnMut(TaskSample),
    ) -> TaskLook;
}

/// A backend as loaded on this host, or why it cannot be.
pub(super) type Loaded = Result<Arc<dyn Backend>, &'static str>;

/// A line of the table of backends.
pub(super) struct Registration {
    /// What it captures.
    pub(super) kinds: &'static [CaptureKind],
    pub(super) load: fn(&mut Loader<'_>) -> Loaded,
}

/// What backends are loaded from.
pub(super) struct Loader<'l> {
    pub(super) paths: &'l config::Paths,
    pub(super) hierarchy: Hierarchy<'l>,
    /// Containers that are followed at most.
    pub(super) capacity: usize,
    /// The CPUs that are online.
    pub(super) cpus: &'l [u32],
    /// The map of containers, or why no BPF program can be loaded.
    pub(super) followed: Result<&'l Followed, &'static str>,
    /// Wakes the loop.
    pub(super) wake: &'l Wake,
    /// Is told of each program that is loaded.
    pub(super) meter: &'l mut Meter,
    /// Is set by the backend of captures of tasks.
    pub(super) tasks: Option<Box<dyn TaskSnapshot>>,
}

impl<'l> Loader<'l> {
    /// Where a BPF program is loaded, or why none can be.
    pub(super) fn site(&self) -> Result<Site<'l>, &'static str> {
        let Hierarchy { unified, .. } = self.hierarchy;
        Ok(Site { sys: &self.paths.sys, followed: self.followed?, unified, cpus: self.cpus })
    }

    /// The kernel's release.
    pub(super) fn release(&self) -> Option<(u32, u32)> {
        release(&self.paths.proc)
    }
}
