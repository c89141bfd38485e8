//! Which containers there are: followed by watches on the folders that can hold some, and checked
//! now and then by a sweep through all of these. A folder is listed only after its watch is set, so
//! what comes in between is seen twice rather than never.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use super::branches::{Branch, Branches};
use super::population::{Population, Sighting};
use super::source::{Io, is_gone};
use super::tree::Tree;
use crate::host::calls::{About, Event, Watches, What, entries, events};
use crate::host::containers::{PATH_MAX, path};
use crate::host::inline::Text;

/// Of such steps, about a microsecond each, one call makes so many: the loop has other work.
const BUDGET: u32 = 4_000;

/// So many paths are compared in a step, when all that was below a folder is looked for.
const PASSED_IN_A_STEP: usize = 16;

/// Listing a folder is worth so many steps, and so is one that came or went.
const FOLDER: u32 = 8;

/// Runtimes have a container's files in all hierarchies after this time.
const SETTLE: Duration = Duration::from_secs(15);

/// Whether a look at the cgroups is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Scan {
    /// All is seen.
    Whole,
    /// The rest is for the next call: make it soon.
    Partial,
}

/// The one who looks.
#[derive(Debug)]
pub(super) struct Census {
    watches: Watches,
    pub(super) branches: Branches,
    /// Branches that are to be listed, each once.
    queue: VecDeque<u16>,
    bytes: Vec<u8>,
    /// The number of the last sweep begun, and whether it still runs.
    sweep: u32,
    sweeping: bool,
}

/// What a look needs besides.
pub(super) struct Scene<'a> {
    pub(super) tree: &'a Tree,
    pub(super) population: &'a mut Population,
    pub(super) io: &'a mut Io,
    pub(super) now: Duration,
}

impl Census {
    /// With room for the branches of so many containers: each may be in a pod of its own, and
    /// system services are branches as well.
    pub(super) fn new(containers: usize) -> io::Result<Census> {
        let capacity = (containers * 2 + 1024).min(usize::from(u16::MAX));
        Ok(Census {
            watches: Watches::new()?,
            branches: Branches::with_capacity(capacity),
            queue: VecDeque::with_capacity(capacity),
            bytes: vec![0; 32 << 10],
            sweep: 0,
            sweeping: false,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.watches.as_raw_fd()
    }

    /// Takes in what the watches tell.
    pub(super) fn follow(&mut self, scene: &mut Scene<'_>) -> Scan {
        let mut left = BUDGET;
        let mut bytes = std::mem::take(&mut self.bytes);
        let read = loop {
            let read = match self.watches.read(&mut bytes) {
                Ok([]) => break Scan::Whole,
                Ok(read) => read,
                Err(_) => {
                    scene.io.faults.unreadable += 1;
                    break Scan::Whole;
                }
            };
            for event in events(read) {
                left = left.saturating_sub(self.take(event, scene));
            }
            if left == 0 {
                break Scan::Partial;
            }
        };
        self.bytes = bytes;
        match read {
            Scan::Whole => self.list_queued(left, scene),
            Scan::Partial => Scan::Partial,
        }
    }

    /// Takes one event in. Returns its steps.
    fn take(&mut self, event: Event<'_>, scene: &mut Scene<'_>) -> u32 {
        match (event.what, self.branches.watched_by(event.watch)) {
            (What::Lost, _) => self.start_sweep(scene),
            (What::Ended, _) => self.branches.watch_ended(event.watch),
            (What::Came, Some(branch)) => self.came(branch, event.name, scene),
            (What::Went, Some(branch)) => return self.went(branch, event.name, scene),
            (What::Came | What::Went, None) | (What::Other, _) => {}
        }
        FOLDER
    }

    /// Looks at everything, or goes on with that.
    pub(super) fn sweep(&mut self, scene: &mut Scene<'_>) -> Scan {
        if !self.sweeping {
            self.start_sweep(scene);
        }
        self.list_queued(BUDGET, scene)
    }

    /// Has everything listed once more, from the start.
    fn start_sweep(&mut self, scene: &mut Scene<'_>) {
        self.sweep = self.sweep.wrapping_add(1);
        self.sweeping = true;
        for slot in self.branches.slots() {
            self.enqueue(slot);
        }
        match self.branches.at("").and_then(|root| self.branches.get_mut(root)) {
            Some(root) => (root.seen, root.settles) = (self.sweep, scene.now + SETTLE),
            None => self.add(Branch::new(Text::EMPTY, 0, None), scene),
        }
    }

    fn enqueue(&mut self, slot: u16) {
        if self.branches.set_queued(slot, true) {
            self.queue.push_back(slot);
        }
    }

    fn list_queued(&mut self, mut left: u32, scene: &mut Scene<'_>) -> Scan {
        while let Some(slot) = self.queue.pop_front() {
            self.branches.set_queued(slot, false);
            left = left.saturating_sub(FOLDER + self.list(slot, scene));
            if left == 0 && !self.queue.is_empty() {
                return Scan::Partial;
            }
        }
        if std::mem::take(&mut self.sweeping) {
            self.forget_unseen(scene);
        }
        Scan::Whole
    }

    /// Looks at each folder in a branch, once it is watched. Returns how many there were.
    fn list(&mut self, slot: u16, scene: &mut Scene<'_>) -> u32 {
        self.watch(slot, scene);
        let Some(branch) = self.branches.get(slot) else { return 0 };
        let Some(path) = scene.io.path(&[below(&branch.path)]) else { return 0 };
        let folder = match scene.tree.ids.folder(path) {
            Ok(folder) => folder,
            Err(error) => {
                scene.io.faults.unreadable += u64::from(!is_gone(&error));
                return 0;
            }
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut seen = 0;
        while let Ok(listed) = folder.list(&mut bytes)
            && !listed.is_empty()
        {
            for name in entries(listed) {
                self.came(slot, name, scene);
                seen += 1;
            }
        }
        self.bytes = bytes;
        seen
    }

    /// There is a folder of this name in a branch.
    fn came(&mut self, parent: u16, name: &[u8], scene: &mut Scene<'_>) {
        let Some(path) = self.path_of(parent, name) else {
            scene.io.faults.beyond_capacity += u64::from(std::str::from_utf8(name).is_ok());
            return;
        };
        let about = scene.io.path(&[below(&path)]).and_then(|path| scene.tree.ids.about(path).ok().flatten());
        // It may be gone again; then it needs no more.
        let Some(About { inode, has_folders }) = about else { return };
        let settles = scene.now + SETTLE;
        if let Some(found) = path::recognise(&path) {
            let sighting = Sighting { path: &path, found, inode, branch: parent, sweep: self.sweep, settles };
            scene.population.sight(&sighting, scene.io);
            // It may run containers itself (kind, docker in docker). Most have no cgroups of their own and
            // need no watch; one that begins to have some is a branch from the next sweep on.
            if !has_folders && self.branches.at(&path).is_none() {
                return;
            }
        }
        if let Some(slot) = self.branches.at(&path) {
            match self.branches.get_mut(slot).filter(|known| known.inode == inode) {
                Some(known) => {
                    (known.seen, known.settles) = (self.sweep, settles);
                    return;
                }
                None => self.remove(slot, scene),
            }
        }
        self.add(Branch::new(path, inode, Some(parent)), scene);
    }

    /// A folder of this name is gone from a branch. Returns the steps that it took.
    fn went(&mut self, parent: u16, name: &[u8], scene: &mut Scene<'_>) -> u32 {
        let Some(path) = self.path_of(parent, name) else { return 1 };
        let now = scene.io.path(&[below(&path)]).and_then(|path| scene.tree.ids.inode(path).ok().flatten());
        // One that is there again by now is another, unless it was listed after that.
        let gone = |inode: u64| now != Some(inode);
        if let Some(container) = scene.population.containers.at(&path) {
            let key = container.key();
            if gone(container.cgroup_id()) {
                scene.population.vanish(key, scene.io);
            }
        }
        if let Some(slot) = self.branches.at(&path)
            && self.branches.get(slot).is_some_and(|branch| gone(branch.inode))
        {
            self.remove(slot, scene);
            let passed = self.branches.slots().len() + scene.population.containers.slots();
            return FOLDER + u32::try_from(passed / PASSED_IN_A_STEP).unwrap_or(u32::MAX);
        }
        FOLDER
    }

    fn path_of(&self, parent: u16, name: &[u8]) -> Option<Text<PATH_MAX>> {
        Text::joined(&[&self.branches.get(parent)?.path, "/", std::str::from_utf8(name).ok()?])
    }

    /// Takes a branch in and has it listed.
    fn add(&mut self, mut branch: Branch, scene: &mut Scene<'_>) {
        (branch.seen, branch.settles) = (self.sweep, scene.now + SETTLE);
        match self.branches.add(branch) {
            Some(slot) => self.enqueue(slot),
            None => scene.io.faults.unwatched += 1,
        }
    }

    /// Watches a branch, if it is not; one that got no watch gets another chance in each sweep.
    fn watch(&mut self, slot: u16, scene: &mut Scene<'_>) {
        let Some(branch) = self.branches.get(slot).filter(|branch| branch.watch.is_none()) else { return };
        let root = scene.tree.ids_path.to_str();
        let path = root.and_then(|root| scene.io.path(&[root, &branch.path]));
        match path.map(|path| self.watches.add(path)) {
            Some(Ok(watch)) => self.branches.watch(slot, watch),
            Some(Err(error)) if is_gone(&error) => {}
            Some(Err(_)) | None => scene.io.faults.unwatched += 1,
        }
    }

    /// A branch is gone, and all that is below it.
    fn remove(&mut self, slot: u16, scene: &mut Scene<'_>) {
        let Some(path) = self.branches.get(slot).map(|branch| branch.path) else { return };
        for other in self.branches.slots() {
            let below = self.branches.get(other).is_some_and(|other| is_below(&other.path, &path));
            if (below || other == slot)
                && let Some(watch) = self.branches.remove(other, scene.io)
            {
                self.watches.remove(watch);
            }
        }
        scene.population.vanish_where(scene.io, |container, _| is_below(container, &path));
    }

    /// The sweep is over: what it did not see is gone.
    fn forget_unseen(&mut self, scene: &mut Scene<'_>) {
        let sweep = self.sweep;
        for slot in self.branches.slots() {
            if self.branches.get(slot).is_some_and(|branch| branch.seen != sweep) {
                self.remove(slot, scene);
            }
        }
        scene.population.vanish_where(scene.io, |_, leaf| leaf.seen != sweep);
    }
}

fn below(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}
