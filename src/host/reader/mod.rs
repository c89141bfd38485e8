//! The one that knows where the host's files are: opened once, read into one buffer, parsed
//! without allocation. A turn begins with the first `read` at a new time; a fact is read once a turn.

mod bounds;
mod cgroup_folders;
mod cgroup_watcher;
mod container_readings;
mod counters;
mod hierarchies;
mod leaf;
mod missing_controllers;
mod parent_cgroups;
mod source;
mod task_counter;
mod tracked_containers;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::calls::Folder;
use super::cgroup_source::CgroupSource;
use super::containers::filter;
use super::proc::{diskstats, loadavg, meminfo, pressure, stat};
use super::{
    Container, Containers, Disk, Facts, HostCpu, Key, Load, Memory, NameReport, Paths, Snapshot, TaskCounts,
    TaskLook, TaskSample,
};
use crate::clock::Now;
use bounds::{Group, Turn};
use cgroup_watcher::{CgroupWatcher, WatcherContext};
use container_readings::Unread;
use counters::Counters;
use hierarchies::Hierarchies;
use leaf::Leaf;
use source::{Io, Place, Source};
use task_counter::TaskCounter;
use tracked_containers::TrackedContainers;

pub use cgroup_watcher::Scan;
pub use counters::ReadingMethod;
pub use hierarchies::Mode;
pub use missing_controllers::MissingController;

/// Block devices that are read, partitions included; more are counted as beyond capacity.
const DISKS_MAX: usize = 2048;

/// Open files that are left to the rest of the agent.
const FILES_KEPT_FREE: u64 = 512;

/// Why containers are read from text where nobody has said anything else.
const NO_SOURCE: &str = "nothing else was set up";

/// Files of each cgroup, its bounds and some more, that must have room before all are kept open again.
const ROOM_FOR_BOUNDS: usize = 6;

/// Why the host cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// procfs is elsewhere, or not whole.
    #[error("{path}: {source}; set [paths] proc to where the host's procfs is mounted", path = path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The cgroups' folder cannot be read.
    #[error("{path}: {source}; set [paths] cgroup to where the host's cgroups are mounted", path = path.display())]
    Cgroups {
        /// The folder.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// It can be read, but has no hierarchy with the cpu controller, and is none.
    #[error("{path} holds no cgroup hierarchy; [paths] cgroup must name one: {remedy}", path = path.display())]
    NoCgroups {
        /// The folder.
        path: PathBuf,
        /// What to do.
        remedy: String,
    },
    /// The kernel gives no inotify instance.
    #[error("cannot follow containers by inotify: {0}; raise fs.inotify.max_user_instances")]
    Inotify(std::io::Error),
}

/// What went wrong while reading, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Files that should be there and could not be read.
    pub unreadable: u64,
    /// Files that do not look as the kernel writes them.
    pub unparsable: u64,
    /// Sightings of containers or devices for which there was no room: raise [containers] capacity.
    pub beyond_capacity: u64,
    /// Sightings of cgroups that have the id of a container which is another: they are left out.
    pub claimed_twice: u64,
    /// Folders that got no watch: their containers are seen by sweeps alone. Raise
    /// fs.inotify.max_user_watches.
    pub unwatched: u64,
}

/// The reader.
#[derive(Debug)]
pub struct Reader {
    hierarchies: Hierarchies,
    proc: Folder,
    online: Option<Folder>,
    files: HostFiles,
    io: Io,
    watcher: CgroupWatcher,
    tracked: TrackedContainers,
    counters: Counters,
    turn: Turn,
    done: Facts,
    unread: Option<Unread>,
    host: Host,
    task_counter: TaskCounter,
}

/// Files that are one of a kind.
#[derive(Debug, Default)]
struct HostFiles {
    stat: Source,
    loadavg: Source,
    meminfo: Source,
    diskstats: Source,
    online: Source,
    cpu_pressure: Source,
}

/// This turn's facts of the host itself.
#[derive(Debug, Default)]
struct Host {
    cpu: Option<HostCpu>,
    load: Option<Load>,
    memory: Option<Memory>,
    disks: Vec<Disk>,
    disks_known: bool,
    tasks: Option<TaskCounts>,
    cpu_stall: Option<Duration>,
}

impl Reader {
    /// Opens what there is, and finds the containers that are there. `capacity` is how many are
    /// followed at once.
    pub fn open(paths: &Paths, capacity: usize) -> Result<Reader, Error> {
        let stat = paths.proc.join("stat");
        std::fs::File::open(&stat).map_err(|source| Error::Proc { path: stat, source })?;
        let proc = Folder::open(&paths.proc);
        let proc = proc.map_err(|source| Error::Proc { path: paths.proc.clone(), source })?;
        let hierarchies = Hierarchies::find(&paths.cgroup, &paths.proc)?;
        let open_files = crate::sys::raise_open_files().unwrap_or(1024);
        let tracked = TrackedContainers::with_capacity(capacity);
        let mut reader = Reader {
            task_counter: TaskCounter::with_capacity(tracked.containers.most_slots()),
            hierarchies,
            proc,
            online: Folder::open(&paths.sys.join("devices/system/cpu")).ok(),
            files: HostFiles::default(),
            io: Io::new(open_files.saturating_sub(FILES_KEPT_FREE).max(open_files / 2)),
            watcher: CgroupWatcher::new(capacity).map_err(Error::Inotify)?,
            tracked,
            counters: Counters::new(Err(NO_SOURCE)),
            turn: Turn::default(),
            done: Facts::NONE,
            unread: None,
            host: Host { disks: Vec::with_capacity(DISKS_MAX), ..Host::default() },
        };
        let now = crate::sys::now();
        while reader.rescan(now) == Scan::Partial {}
        // To open a file takes ten times as long as to read it: better now than in the first turn.
        reader.read(Facts { container_cpu: true, container_memory: true, ..Facts::NONE }, now);
        reader.begin(Duration::ZERO);
        Ok(reader)
    }

    /// How this host's cgroups stand.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.hierarchies.mode
    }

    /// The hierarchy whose inodes are the containers' cgroup ids: that of cpu, or the unified one.
    #[must_use]
    pub fn cgroup_id_root(&self) -> &Path {
        &self.hierarchies.ids_path
    }

    /// From now on what is read of containers comes from this source, where it tells it; or why there is none.
    pub fn read_by(&mut self, source: Result<Box<dyn CgroupSource>, &'static str>) {
        let Reader { tracked, io, counters, .. } = self;
        if source.is_ok() {
            tracked.each(|_, leaf, _| leaf.close_text(io));
        }
        *counters = Counters::new(source);
    }

    /// In which way each group of a container's readings was last had.
    pub fn methods(&self) -> impl Iterator<Item = ReadingMethod> {
        self.counters.methods()
    }

    /// Reads these facts, but for those that were read in this turn already. The first call with
    /// another time begins a turn and forgets the facts of the one before.
    pub fn read(&mut self, facts: Facts, now: Now) {
        while self.read_some(facts, now) == Scan::Partial {}
    }

    /// Reads these facts as `read` does, as far as it gets in a few milliseconds. `Scan::Partial`: call it again
    /// soon, with the same time, and it goes on where it stopped.
    pub fn read_some(&mut self, facts: Facts, now: Now) -> Scan {
        if self.turn.at != now.mono {
            self.begin(now.mono);
        }
        let due = facts.but(self.done);
        self.done = self.done.and(facts);
        let Reader { files, io, proc, host, .. } = self;
        if due.cpu {
            host.cpu = files.stat.read_on(proc, "stat", io, stat::parse);
        }
        if due.load {
            host.load = files.loadavg.read_on(proc, "loadavg", io, loadavg::parse);
        }
        if due.memory {
            host.memory = files.meminfo.read_on(proc, "meminfo", io, meminfo::parse);
        }
        if due.disks {
            self.read_disks();
        }
        if due.cpu_pressure {
            self.read_cpu_pressure();
        }
        self.read_containers(due)
    }

    /// Has tasks counted, in as many calls as `sample` takes for a look at all of them: it is given the containers
    /// and a counter to tell of each task. Once the look is whole its counts are among this turn's facts.
    pub fn count_tasks(
        &mut self,
        now: Now,
        sample: impl FnOnce(&Containers, &mut dyn FnMut(TaskSample)) -> TaskLook,
    ) -> TaskLook {
        let look = self.task_counter.count(&self.tracked.containers, sample);
        if let TaskLook::Whole(at) = look {
            if self.turn.at != now.mono {
                self.begin(now.mono);
            }
            let TrackedContainers { containers, readings, .. } = &mut self.tracked;
            self.host.tasks = Some(self.task_counter.store(at, containers, readings));
        }
        look
    }

    /// Has the next reading be of all files, also of containers that are idle: for measuring.
    #[doc(hidden)]
    pub fn forget(&mut self) {
        self.tracked.each(|_, leaf, _| leaf.forget());
    }

    /// The facts of this turn.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_> {
        let host = &self.host;
        Snapshot {
            cpu: host.cpu.as_ref(),
            load: host.load.as_ref(),
            memory: host.memory.as_ref(),
            disks: host.disks_known.then_some(&*host.disks),
            tasks: host.tasks.as_ref(),
            cpu_stall: host.cpu_stall,
            containers: &self.tracked.containers,
            readings: &self.tracked.readings,
            filter: &filter::ALL,
        }
    }

    /// The containers there are.
    #[must_use]
    pub fn containers(&self) -> &Containers {
        &self.tracked.containers
    }

    /// Takes in what the runtime or the kubelet tells of a container. True: by that another cgroup is the container
    /// of its id, so `rescan` is due.
    pub fn learn(&mut self, key: Key, report: &NameReport) -> bool {
        self.tracked.containers.learn(key, report)
    }

    /// Hands over the containers that appeared or went since this was last asked: which, `is_live`
    /// tells. Ask after each `changed` and `rescan`: a slot is not used again before its end is told.
    pub fn changes(&mut self, each: impl FnMut(Container<'_>)) {
        self.tracked.containers.changes(each);
    }

    /// The descriptor that is readable once cgroups came or went.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.watcher.fd()
    }

    /// Follows what came and went, after `fd` was readable. `Scan::Partial`: call it again soon,
    /// for the descriptor may not tell again.
    pub fn changed(&mut self, now: Now) -> Scan {
        self.look(now, CgroupWatcher::follow)
    }

    /// Looks through all cgroups that can hold containers, in case a watch told too little. Seldom.
    /// `Scan::Partial`: call it again soon, it goes on where it stopped.
    pub fn rescan(&mut self, now: Now) -> Scan {
        self.look(now, CgroupWatcher::sweep)
    }

    /// What went wrong so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.io.faults
    }

    fn look(
        &mut self,
        now: Now,
        how: impl FnOnce(&mut CgroupWatcher, &mut WatcherContext<'_>) -> Scan,
    ) -> Scan {
        let Reader { hierarchies, io, watcher, tracked, .. } = self;
        how(watcher, &mut WatcherContext { hierarchies, tracked, io, now: now.mono })
    }

    fn begin(&mut self, turn: Duration) {
        self.turn = Turn { at: turn, rationed: self.ration() };
        self.done = Facts::NONE;
        self.unread = None;
        let host = &mut self.host;
        (host.cpu, host.load, host.memory, host.tasks) = (None, None, None, None);
        host.cpu_stall = None;
        host.disks.clear();
        host.disks_known = false;
        for reading in &mut self.tracked.readings {
            *reading = super::Reading { at: turn, ..super::Reading::default() };
        }
    }

    /// Opening a file costs several readings of it. Where not all can stay open, those that change with
    /// every reading do, and bounds give way.
    fn ration(&mut self) -> bool {
        let Reader { io, watcher, tracked, turn, .. } = self;
        if std::mem::take(&mut io.refused) {
            if !turn.rationed {
                tracked.each(|_, leaf, _| leaf.bounds.rest(io));
                watcher.parents.rest(io);
            }
            return true;
        }
        let room = ROOM_FOR_BOUNDS * (tracked.containers.len() + watcher.parents.len());
        turn.rationed && io.spare < room as u64
    }

    fn read_disks(&mut self) {
        let Reader { files, io, proc, host, .. } = self;
        let disks = &mut host.disks;
        let (mut odd, mut beyond) = (0, 0);
        let read = files.diskstats.read_on(proc, "diskstats", io, |text| {
            for disk in diskstats::disks(text) {
                match disk {
                    Some(disk) if disks.len() < disks.capacity() => disks.push(disk),
                    Some(_) => beyond += 1,
                    None => odd += 1,
                }
            }
            Some(())
        });
        host.disks_known = read.is_some();
        io.faults.unparsable += odd;
        io.faults.beyond_capacity += beyond;
    }

    /// A kernel without PSI has no such file, and is not asked again.
    fn read_cpu_pressure(&mut self) {
        let Reader { io, files, proc, host, .. } = self;
        let place = Place { folder: Some(proc), path: b"pressure", again: false, keep: true };
        let stalls = files.cpu_pressure.read(place, "cpu", io, pressure::parse);
        host.cpu_stall = stalls.map(|stalls| stalls.some.total);
    }
}

fn group<'a>(container: Container<'a>, leaf: &Leaf, hierarchies: &'a Hierarchies, turn: Turn) -> Group<'a> {
    Group::new(hierarchies, container.raw_path(), turn, leaf.settles, container.key().slot.into())
}

#[cfg(test)]
mod tests;
