//! Which containers there are: followed by watches on the folders that can hold some, and checked
//! now and then by a sweep through all of these. A folder is listed only after its watch is set, so
//! what comes in between is seen twice rather than never.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use super::hierarchies::Hierarchies;
use super::parent_cgroups::{ParentCgroup, ParentCgroups};
use super::source::{Io, is_gone};
use super::tracked_containers::{Sighting, TrackedContainers};
use crate::host::calls::{Event, Watches, What, entries, events};
use crate::host::containers::claim::{Access, Maker};
use crate::host::containers::path;
use crate::host::containers::paths::{PATH_MAX, show};

/// The steps, of about a microsecond each, that one call makes: the loop has other work.
const BUDGET: u32 = 4_000;

/// The paths that are compared in one step, when all cgroups below a folder are looked for.
const PASSED_IN_A_STEP: usize = 16;

/// The steps that listing a folder takes, and that a folder takes which came or went.
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

/// Watches the parents and keeps `TrackedContainers` true.
#[derive(Debug)]
pub(super) struct CgroupWatcher {
    watches: Watches,
    pub(super) parents: ParentCgroups,
    /// Slots of the parents that are to be listed, each once.
    queue: VecDeque<u16>,
    bytes: Vec<u8>,
    /// The path that is looked at.
    path: Vec<u8>,
    /// That path as text.
    text: String,
    /// The path of a parent cgroup that is gone, while what was in it is looked for.
    removed: Vec<u8>,
    /// Whose the hierarchy is: the host's own cgroups are that user's alone.
    host: Access,
    /// The number of the last sweep begun, and whether it still runs.
    sweep: u32,
    sweeping: bool,
}

/// What the watcher works with: where it looks, and what it keeps true.
pub(super) struct WatcherContext<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) tracked: &'a mut TrackedContainers,
    pub(super) io: &'a mut Io,
    pub(super) now: Duration,
}

impl CgroupWatcher {
    /// With room for the parents of `containers` containers: each may be in a pod of its own, and system
    /// services are such parents as well.
    pub(super) fn new(containers: usize) -> io::Result<CgroupWatcher> {
        let capacity = (containers * 2 + 1024).min(usize::from(u16::MAX));
        Ok(CgroupWatcher {
            watches: Watches::new()?,
            parents: ParentCgroups::with_capacity(capacity),
            queue: VecDeque::with_capacity(capacity),
            bytes: vec![0; 32 << 10],
            path: Vec::with_capacity(PATH_MAX),
            // Each byte that is no UTF-8 is shown by three.
            text: String::with_capacity(3 * PATH_MAX),
            removed: Vec::with_capacity(PATH_MAX),
            host: Access::default(),
            sweep: 0,
            sweeping: false,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.watches.as_raw_fd()
    }

    /// Takes in what the watches tell.
    pub(super) fn follow(&mut self, context: &mut WatcherContext<'_>) -> Scan {
        let mut left = BUDGET;
        let mut bytes = std::mem::take(&mut self.bytes);
        let read = loop {
            let read = match self.watches.read(&mut bytes) {
                Ok([]) => break Scan::Whole,
                Ok(read) => read,
                Err(_) => {
                    context.io.faults.unreadable += 1;
                    break Scan::Whole;
                }
            };
            for event in events(read) {
                left = left.saturating_sub(self.take(event, context));
            }
            if left == 0 {
                break Scan::Partial;
            }
        };
        self.bytes = bytes;
        match read {
            Scan::Whole => self.list_queued(left, context),
            Scan::Partial => Scan::Partial,
        }
    }

    /// Takes `event` in. Returns the steps that this took.
    fn take(&mut self, event: Event<'_>, context: &mut WatcherContext<'_>) -> u32 {
        match (event.what, self.parents.watched_by(event.watch)) {
            (What::Lost, _) => self.start_sweep(context),
            (What::Ended, _) => self.parents.watch_ended(event.watch),
            (What::Came, Some(parent)) => self.came(parent, event.name, context),
            (What::Went, Some(parent)) => return self.went(parent, event.name, context),
            (What::Came | What::Went, None) | (What::Other, _) => {}
        }
        FOLDER
    }

    /// Looks at everything, or goes on with that.
    pub(super) fn sweep(&mut self, context: &mut WatcherContext<'_>) -> Scan {
        if !self.sweeping {
            self.start_sweep(context);
        }
        self.list_queued(BUDGET, context)
    }

    /// Has everything listed once more, from the start.
    fn start_sweep(&mut self, context: &mut WatcherContext<'_>) {
        self.sweep = self.sweep.wrapping_add(1);
        self.sweeping = true;
        for slot in self.parents.slots() {
            self.enqueue(slot);
        }
        match self.parents.at(b"").and_then(|root| self.parents.get_mut(root)) {
            Some(root) => (root.seen, root.settles) = (self.sweep, context.now + SETTLE),
            None => {
                let about = context.hierarchies.ids.about(c".").ok().flatten();
                self.host = about.map_or(Access::default(), |about| about.access);
                self.add(b"", ParentCgroup::new(0, Maker::Host, None), context);
            }
        }
    }

    fn enqueue(&mut self, slot: u16) {
        if self.parents.set_queued(slot, true) {
            self.queue.push_back(slot);
        }
    }

    fn list_queued(&mut self, mut left: u32, context: &mut WatcherContext<'_>) -> Scan {
        while let Some(slot) = self.queue.pop_front() {
            self.parents.set_queued(slot, false);
            left = left.saturating_sub(FOLDER + self.list(slot, context));
            if left == 0 && !self.queue.is_empty() {
                return Scan::Partial;
            }
        }
        if std::mem::take(&mut self.sweeping) {
            self.forget_unseen(context);
        }
        Scan::Whole
    }

    /// Looks at each folder in the parent at `slot`, once that is watched. Returns the number of folders.
    fn list(&mut self, slot: u16, context: &mut WatcherContext<'_>) -> u32 {
        self.watch(slot, context);
        if self.parents.get(slot).is_none() {
            return 0;
        }
        let Some(path) = context.io.path(&[below(self.parents.path(slot))]) else { return 0 };
        let folder = match context.hierarchies.ids.folder(path) {
            Ok(folder) => folder,
            Err(error) => {
                context.io.faults.unreadable += u64::from(!is_gone(&error));
                return 0;
            }
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut seen = 0;
        while let Ok(listed) = folder.list(&mut bytes)
            && !listed.is_empty()
        {
            for name in entries(listed) {
                self.came(slot, name, context);
                seen += 1;
            }
        }
        self.bytes = bytes;
        seen
    }

    /// The cgroup `parent` holds a folder called `name`.
    fn came(&mut self, parent: u16, name: &[u8], context: &mut WatcherContext<'_>) {
        let path = self.joined(parent, name);
        match path.len() {
            0..PATH_MAX => self.look_at(parent, name, &path, context),
            _ => context.io.faults.beyond_capacity += 1,
        }
        self.path = path;
    }

    fn look_at(&mut self, parent: u16, name: &[u8], path: &[u8], context: &mut WatcherContext<'_>) {
        let about = context
            .io
            .path(&[below(path)])
            .and_then(|path| context.hierarchies.ids.about(path).ok().flatten());
        // It may be gone again; then it needs no more.
        let Some(about) = about else { return };
        let mut text = std::mem::take(&mut self.text);
        show(path, &mut text);
        let found = path::recognise(&text);
        let is_container = found.is_some();
        if let Some(found) = found
            && let Some(maker) = self.renewed_maker(parent, context)
        {
            forget_if_gone(context, path, found.id);
            let (inode, sweep, settles) = (about.inode, self.sweep, context.now + SETTLE);
            let sighting = Sighting { path, found, inode, maker, parent, sweep, settles };
            context.tracked.observe(&sighting, context.io);
        }
        self.text = text;
        // A container may run containers itself (kind, docker in docker). Most have no cgroups of their own and
        // need no watch; one that begins to have some is a parent cgroup from the next sweep on.
        if !is_container || about.has_folders || self.parents.at(path).is_some() {
            let name = std::str::from_utf8(name).unwrap_or_default();
            let maker = self.parents.get(parent).map(|parent| parent.maker);
            let maker = maker.map(|maker| maker.within(name, about.access, self.host, is_container));
            self.keep_parent(
                path,
                ParentCgroup::new(about.inode, maker.unwrap_or(Maker::Others), Some(parent)),
                context,
            );
        }
    }

    /// Who may make cgroups in the parent at `slot` by now: a service manager first makes a cgroup, and then gives it to
    /// its user.
    fn renewed_maker(&mut self, slot: u16, context: &mut WatcherContext<'_>) -> Option<Maker> {
        let (known, path) = (self.parents.get(slot)?.maker, below(self.parents.path(slot)));
        if known != Maker::Host || path.is_empty() {
            return Some(known);
        }
        let about =
            context.io.path(&[path]).and_then(|path| context.hierarchies.ids.about(path).ok().flatten());
        let maker = about.map_or(Maker::Others, |about| about.access.maker(self.host));
        self.parents.get_mut(slot)?.maker = maker;
        Some(maker)
    }

    /// Takes `parent` in, or notes that it is still there and whose it is now.
    fn keep_parent(&mut self, path: &[u8], parent: ParentCgroup, context: &mut WatcherContext<'_>) {
        if let Some(slot) = self.parents.at(path) {
            match self.parents.get_mut(slot).filter(|known| known.inode == parent.inode) {
                Some(known) => {
                    (known.seen, known.settles) = (self.sweep, context.now + SETTLE);
                    known.maker = parent.maker;
                    return;
                }
                None => self.remove(slot, context),
            }
        }
        self.add(path, parent, context);
    }

    /// The folder called `name` is gone from the cgroup `parent`. Returns the steps that this took.
    fn went(&mut self, parent: u16, name: &[u8], context: &mut WatcherContext<'_>) -> u32 {
        let path = self.joined(parent, name);
        let steps = if path.len() < PATH_MAX { self.miss(&path, context) } else { 1 };
        self.path = path;
        steps
    }

    fn miss(&mut self, path: &[u8], context: &mut WatcherContext<'_>) -> u32 {
        let now = inode(context.hierarchies, context.io, path);
        // One that is there again by now is another, unless it was listed after that.
        let gone = |inode: u64| now != Some(inode);
        if let Some(container) = context.tracked.containers.at(path) {
            let key = container.key();
            if gone(container.cgroup_id()) {
                context.tracked.vanish(key, context.io);
            }
        }
        if let Some(slot) = self.parents.at(path)
            && self.parents.get(slot).is_some_and(|parent| gone(parent.inode))
        {
            self.remove(slot, context);
            let passed = self.parents.slots().len() + context.tracked.containers.slots();
            return FOLDER + u32::try_from(passed / PASSED_IN_A_STEP).unwrap_or(u32::MAX);
        }
        FOLDER
    }

    /// The path of the folder `name` in `parent`, or its first `PATH_MAX` bytes if it is too long, by which the
    /// caller sees that. The caller gives it back to `self.path`.
    fn joined(&mut self, parent: u16, name: &[u8]) -> Vec<u8> {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        for part in [self.parents.path(parent), b"/", name] {
            let room = path.capacity().min(PATH_MAX).saturating_sub(path.len());
            path.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        path
    }

    /// Takes `parent` in and has it listed.
    fn add(&mut self, path: &[u8], mut parent: ParentCgroup, context: &mut WatcherContext<'_>) {
        (parent.seen, parent.settles) = (self.sweep, context.now + SETTLE);
        match self.parents.add(path, parent) {
            Some(slot) => self.enqueue(slot),
            None => context.io.faults.unwatched += 1,
        }
    }

    /// Watches the parent at `slot` if it has no watch yet: where none could be had, each sweep tries again.
    fn watch(&mut self, slot: u16, context: &mut WatcherContext<'_>) {
        if self.parents.get(slot).is_none_or(|parent| parent.watch.is_some()) {
            return;
        }
        let root = context.hierarchies.ids_path.as_os_str().as_encoded_bytes();
        let path = context.io.path(&[root, self.parents.path(slot)]);
        match path.map(|path| self.watches.add(path)) {
            Some(Ok(watch)) => self.parents.watch(slot, watch),
            Some(Err(error)) if is_gone(&error) => {}
            Some(Err(_)) | None => context.io.faults.unwatched += 1,
        }
    }

    /// The parent at `slot` is gone, and with it each cgroup below.
    fn remove(&mut self, slot: u16, context: &mut WatcherContext<'_>) {
        let inode = self.parents.get(slot).map(|parent| parent.inode);
        let mut path = std::mem::take(&mut self.removed);
        path.clear();
        path.extend_from_slice(self.parents.path(slot));
        for other in self.parents.slots() {
            let gone = other == slot || is_below(self.parents.path(other), &path);
            if gone && let Some(watch) = self.parents.remove(other, context.io) {
                self.watches.remove(watch);
            }
        }
        if inode.is_some() {
            context.tracked.vanish_where(context.io, |container, _| is_below(container, &path));
        }
        self.removed = path;
    }

    /// The sweep is over: what it did not see is gone.
    fn forget_unseen(&mut self, context: &mut WatcherContext<'_>) {
        let sweep = self.sweep;
        for slot in self.parents.slots() {
            if self.parents.get(slot).is_some_and(|parent| parent.seen != sweep) {
                self.remove(slot, context);
            }
        }
        context.tracked.vanish_where(context.io, |_, leaf| leaf.seen != sweep);
    }
}

/// The container of an id may have been moved, or be gone without a word: it does not hold its id for ever.
fn forget_if_gone(context: &mut WatcherContext<'_>, path: &[u8], id: &str) {
    let Some(rival) = context.tracked.containers.rival(path, id) else { return };
    let (key, cgroup_id) = (rival.key(), rival.cgroup_id());
    if inode(context.hierarchies, context.io, rival.raw_path()) != Some(cgroup_id) {
        context.tracked.vanish(key, context.io);
    }
}

fn inode(hierarchies: &Hierarchies, io: &mut Io, path: &[u8]) -> Option<u64> {
    hierarchies.ids.inode(io.path(&[below(path)])?).ok().flatten()
}

fn below(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}
