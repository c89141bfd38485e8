//! Captures of block and file I/O: the armed programs serve all that run at a time, each of which
//! has its own devices, deadline and rows. Names are found at the end, on the same thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::disks::{Disks, Mounts};
use super::io_counters::{Counters, moved};
use super::io_rows::{DeviceRows, Names, device_rows, stalls};
use super::load::sentence;
use super::open_request::OpenRequest;
use super::session::{Programs, Session};
use crate::bpf::{self, IO_SLOTS, IoFile, IoKey, IoRecord, IoRow, IoStall, Watched};
use crate::capture_data::{CaptureData, Device, DiskIo, Refusal, Scope};
use crate::host::proc::diskstats;
use crate::sys;
use crate::thread_spawner::Worker;
use crate::work_queue::{WorkQueue, WorkerGuard};

/// The ring is emptied this often.
const TURN: Duration = Duration::from_millis(100);

/// Records taken out of the ring at once.
const BATCH: u32 = 256;

/// Portions taken in one turn: more than the ring holds.
const BATCHES_MAX: u32 = 512;

/// Waits shorter than this are no stalls; a tracer may want only longer ones.
pub const STALL_LEAST: Duration = Duration::from_millis(10);

/// The longest waits that are kept until it is known whose devices they are of, and after that.
const WAITS_MAX: usize = 512;
const STALLS_MAX: usize = 64;

/// Paths that are kept. A file without one still has its inode.
const PATHS_MAX: usize = 16_384;

/// The major number of RAM disks, which nobody waits for.
const RAM: u32 = 1;

const PROGRAMS: Programs = Programs {
    name: "the io programs",
    refusal: Refusal::Failed("watching I/O could not begin: out of descriptors or rights; see onset doctor"),
};

/// The part of a capture thread that outlives a run.
struct Tracing {
    program: Mutex<bpf::Io>,
    queue: WorkQueue<OpenRequest>,
    lost: bpf::IoLost,
    proc: Box<Path>,
    sys: Box<Path>,
}

pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    let (site, paths) = (loader.site()?, loader.paths);
    let program = bpf::Io::load(paths, site.followed, site.unified, loader.meter).map_err(sentence)?;
    let lost = program.lost().map_err(sentence)?;
    let (program, queue) = (Mutex::new(program), WorkQueue::new(OPEN_MAX));
    let (proc, sys) = (paths.proc.as_path().into(), paths.sys.as_path().into());
    Ok(Arc::new(Tracing { program, queue, lost, proc, sys }))
}

impl Backend for Tracing {
    fn method(&self) -> Method {
        Method { name: "tp_btf/block_bio_queue, block_rq_complete, sched_waking", degraded: None }
    }

    fn one_per_scope(&self) -> bool {
        true
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        from.spawner.push(&self, open);
    }

    fn lost(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("io", self.lost.count());
    }

    fn try_attach(&self) {
        if let Ok(mut armed) = self.program.lock().unwrap_or_else(PoisonError::into_inner).arm(STALL_LEAST) {
            let _ = armed.attach().and_then(|()| armed.attach_waits());
        }
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for Tracing {
    type Job = OpenRequest;

    fn name(&self) -> &'static str {
        "onset-io"
    }

    fn queue(&self) -> &WorkQueue<OpenRequest> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, OpenRequest>) {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        PROGRAMS.serve(jobs, |jobs| {
            let armed = program.arm(STALL_LEAST)?;
            IoSession { armed, running: Vec::new(), paths: HashMap::new(), tracing: self }.run(jobs);
            Ok(())
        });
    }
}

struct Running {
    open: OpenRequest,
    slot: u32,
    /// The device that was asked about comes first.
    devices: Vec<Device>,
    began: Instant,
    until: Instant,
    lost_before: u64,
    before: Counters,
    waits: Vec<IoStall>,
}

struct IoSession<'s> {
    armed: bpf::IoArmed<'s>,
    running: Vec<Running>,
    paths: HashMap<IoFile, Box<str>>,
    tracing: &'s Tracing,
}

impl Session for IoSession<'_> {
    type Job = OpenRequest;

    fn begin(&mut self, open: OpenRequest, _: &WorkerGuard<'_, OpenRequest>) {
        let Some(slot) = (0..IO_SLOTS).find(|slot| self.running.iter().all(|running| running.slot != *slot))
        else {
            return open.refuse(Refusal::Busy);
        };
        self.drain();
        // What ended after the rows of the slot's last capture were read is nobody's.
        self.armed.forget(slot);
        let disks = self.disks(&self.mounts());
        let devices = match open.scope() {
            Scope::Device(device) => disks.around(disks.whole(device)),
            Scope::Host | Scope::Container(_) => {
                disks.all().into_iter().filter(|device| device.major != RAM).collect()
            }
        };
        // To attach may take longer than a short capture: its time is that in which they watch.
        let attached = self.armed.attach();
        let before = self.counters();
        let began = Instant::now();
        self.running.push(Running {
            slot,
            devices,
            began,
            // No clock reaches the end of a time that overflows it; a day is longer than any capture.
            until: began.checked_add(open.lasting()).unwrap_or(began + Duration::from_secs(86_400)),
            lost_before: self.armed.lost(),
            before,
            waits: Vec::new(),
            open,
        });
        if let Err(error) = attached.and_then(|()| self.aim(&disks)).and_then(|()| self.armed.attach_waits())
            && let Some(running) = self.running.pop()
        {
            bpf::Failed::Attach.count("the io programs", &error);
            self.armed.leave(1 << slot);
            let refusal = Refusal::Failed("the io programs could not be aimed at the device");
            running.open.refuse(refusal);
        }
    }

    fn due(&self) -> Option<Duration> {
        let next = self.running.iter().map(|running| running.until).min();
        next.map(|until| until.saturating_duration_since(Instant::now()).min(TURN))
    }

    fn turn(&mut self) -> ControlFlow<()> {
        self.drain();
        let now = Instant::now();
        let due: Vec<Running> = self.running.extract_if(.., |running| running.until <= now).collect();
        if due.is_empty() {
            return ControlFlow::Continue(());
        }
        // One right after the other: what moves between the two is not in both.
        let after = self.counters();
        let ended: Vec<_> = due
            .into_iter()
            .map(|running| {
                let rows = self.armed.rows(running.slot, &running.devices);
                self.armed.leave(1 << running.slot);
                (running, rows)
            })
            .collect();
        let (lost, not_attached) = (self.armed.lost(), self.armed.not_attached());
        let mounts = self.mounts();
        let disks = self.disks(&mounts);
        // Rows are told apart by what was read just now: names may take longer. Should this fail,
        // more is watched than is asked for, and nobody reads it.
        if let Err(error) = self.aim(&disks) {
            bpf::Failed::Write.count("the devices that are watched", &error);
        }
        self.drain();
        let end = End { at: now, counters: &after, lost, not_attached: &not_attached };
        for (running, rows) in ended {
            let mut names = Names {
                disks: &disks,
                mounts: &mounts,
                paths: &self.paths,
                proc: &self.tracing.proc,
                seen: HashMap::new(),
            };
            running.end(rows, &mut names, &end);
        }
        ControlFlow::Continue(())
    }
}

impl IoSession<'_> {
    /// Watches all devices that a running capture wants.
    fn aim(&mut self, disks: &Disks) -> Result<(), bpf::Error> {
        let mut wanted: BTreeMap<Device, Watched> = BTreeMap::new();
        for running in &self.running {
            for device in &running.devices {
                wanted.entry(*device).or_default().slots |= 1 << running.slot;
            }
        }
        let all: Vec<Device> = wanted.keys().copied().collect();
        for (device, watched) in &mut wanted {
            (watched.above, watched.below) = disks.hands(*device, &all);
        }
        self.armed.watch(&wanted)
    }

    fn mounts(&self) -> Mounts {
        // Those of the host; its first process always runs.
        Mounts::read(&self.tracing.proc.join("1/mountinfo"))
    }

    fn disks(&self, mounts: &Mounts) -> Disks {
        Disks::read(&self.tracing.sys, mounts)
    }

    fn counters(&self) -> Counters {
        let text = std::fs::read(self.tracing.proc.join("diskstats")).unwrap_or_default();
        diskstats::disks(&text).flatten().collect()
    }

    fn drain(&mut self) {
        let (paths, running) = (&mut self.paths, &mut self.running);
        for _ in 0..BATCHES_MAX {
            let left = self.armed.records(BATCH, |record| match record {
                IoRecord::Path { file, path } => {
                    // The latest is told: a file may have been renamed, or deleted.
                    if paths.len() < PATHS_MAX || paths.contains_key(&file) {
                        paths.insert(file, path);
                    }
                }
                IoRecord::Stall(stall) => {
                    running.iter_mut().for_each(|running| running.wait(&stall));
                }
            });
            if left == bpf::Drained::Empty {
                break;
            }
        }
    }
}

impl Running {
    /// Keeps a wait, if it is among the longest.
    fn wait(&mut self, stall: &IoStall) {
        self.waits.push(stall.clone());
        if self.waits.len() >= 2 * WAITS_MAX {
            self.waits.sort_by_key(|wait| Reverse(wait.blocked));
            self.waits.truncate(WAITS_MAX);
        }
    }

    fn end(mut self, rows: BTreeMap<IoKey, IoRow>, names: &mut Names<'_>, end: &End<'_>) {
        let wanted = match self.open.scope() {
            Scope::Container(key) => Some(key),
            Scope::Host | Scope::Device(_) => None,
        };
        let mine = rows.iter().filter(|(key, _)| wanted.is_none() || key.container == wanted);
        let rows: Vec<(&IoKey, &IoRow)> = mine.collect();
        let pids: HashSet<u32> = rows.iter().map(|(key, _)| key.pid).collect();
        let mut devices: Vec<DeviceRows<'_>> = self
            .devices
            .iter()
            .map(|device| DeviceRows {
                device: *device,
                moved: moved(*device, &self.before, end.counters),
                rows: rows.iter().copied().filter(|(key, _)| key.disk == *device).collect(),
            })
            .collect();
        if !matches!(self.open.scope(), Scope::Device(_)) {
            devices.retain(|device| !device.rows.is_empty());
            devices.sort_by_key(|device| Reverse(device.moved.map(|(read, written)| read.max(written))));
        }
        self.waits.retain(|wait| pids.contains(&wait.pid));
        self.waits.sort_by_key(|wait| Reverse(wait.blocked));
        self.waits.truncate(STALLS_MAX);
        let lasted = end.at.saturating_duration_since(self.began);
        let lost = end.lost.saturating_sub(self.lost_before);
        self.open.finish(sys::at(self.began), lasted, lost, |arena| {
            // What there are few of first: files may take all of the arena.
            let stalls = stalls(&self.waits, names.proc, arena);
            let not_attached = arena.whole(end.not_attached.iter(), |name| Some(*name)).unwrap_or_default();
            let devices = device_rows(&devices, names, end.counters, arena);
            CaptureData::Io(DiskIo { devices, stalls, not_attached })
        });
    }
}

/// What is read once for all requests that end together.
struct End<'e> {
    at: Instant,
    counters: &'e Counters,
    /// Records that the kernel could not hand over since the programs were loaded.
    lost: u64,
    not_attached: &'e [&'static str],
}
