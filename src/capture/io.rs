//! Captures of block and file I/O: the armed programs serve all that run at a time, each of which
//! has its own devices, deadline and rows. Names are found at the end, on the same thread.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::{Backend, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::disks::{Disks, Mounts};
use super::io_rows::{Names, processes, stalls};
use super::load::sentence;
use super::open_request::OpenRequest;
use super::session::{Programs, Session};
use crate::bpf::{self, IO_SLOTS, IoFile, IoKey, IoRecord, IoRow, IoStall, Watched};
use crate::capture_data::{CaptureData, Device, DeviceIo, DiskIo, Refusal, Scope};
use crate::host::Disk;
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

/// Bytes read and written.
type Bytes = (u64, u64);

/// What diskstats has counted since boot.
type Counters = Vec<Disk>;

struct Running {
    open: OpenRequest,
    slot: u32,
    /// The one that was asked about first.
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
        for (running, rows) in ended {
            let lasted = now.saturating_duration_since(running.began);
            let lost = lost.saturating_sub(running.lost_before);
            let mut names = Names {
                disks: &disks,
                mounts: &mounts,
                paths: &self.paths,
                proc: &self.tracing.proc,
                seen: HashMap::new(),
            };
            running.end(rows, &after, &mut names, lasted, lost, &not_attached);
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
            self.waits.sort_by_key(|wait| std::cmp::Reverse(wait.blocked));
            self.waits.truncate(WAITS_MAX);
        }
    }

    fn end(
        mut self,
        rows: BTreeMap<IoKey, IoRow>,
        after: &Counters,
        names: &mut Names<'_>,
        lasted: Duration,
        lost: u64,
        not_attached: &[&'static str],
    ) {
        let wanted = match self.open.scope() {
            Scope::Container(key) => Some(key),
            Scope::Host | Scope::Device(_) => None,
        };
        let rows: Vec<(IoKey, IoRow)> =
            rows.into_iter().filter(|(key, _)| wanted.is_none() || key.container == wanted).collect();
        let pids: HashSet<u32> = rows.iter().map(|(key, _)| key.pid).collect();
        let mut devices: Vec<DeviceIo> = self
            .devices
            .iter()
            .map(|device| {
                let moved = moved(*device, &self.before, after);
                let mine = rows.iter().filter(|(key, _)| key.disk == *device);
                DeviceIo {
                    device: *device,
                    name: names
                        .disks
                        .name_of(*device)
                        .or_else(|| counted(after, *device))
                        .unwrap_or_default()
                        .into(),
                    read_bytes: moved.map(|(read, _)| read),
                    write_bytes: moved.map(|(_, written)| written),
                    processes: processes(mine, names),
                }
            })
            .collect();
        if !matches!(self.open.scope(), Scope::Device(_)) {
            devices.retain(|device| !device.processes.is_empty());
            devices.sort_by_key(|device| std::cmp::Reverse(device.read_bytes.max(device.write_bytes)));
        }
        self.waits.retain(|wait| pids.contains(&wait.pid));
        self.waits.sort_by_key(|wait| std::cmp::Reverse(wait.blocked));
        self.waits.truncate(STALLS_MAX);
        let stalls = stalls(self.waits, names.proc);
        let seen = CaptureData::Io(DiskIo { devices, stalls, not_attached: not_attached.into() });
        self.open.finish(sys::at(self.began), lasted, lost, seen);
    }
}

/// The name that diskstats has for a device.
fn counted(disks: &Counters, device: Device) -> Option<&str> {
    disks.iter().find(|disk| is(disk, device)).map(|disk| disk.name())
}

fn is(disk: &Disk, device: Device) -> bool {
    !disk.is_hidden() && (disk.major, disk.minor) == (device.major, device.minor)
}

/// What moved meanwhile: on the device, or where the kernel counts only on its hidden paths, on all of them.
fn moved(device: Device, before: &Counters, after: &Counters) -> Option<Bytes> {
    let own = after.iter().find(|disk| is(disk, device))?;
    let of_paths = || {
        let mut paths = after.iter().filter(|disk| disk.is_path_of(own.name())).peekable();
        paths.peek()?;
        Some(paths.map(|path| difference(path, before)).try_fold((0, 0), |sum: Bytes, path| {
            let (read, written) = path?;
            Some((sum.0.saturating_add(read), sum.1.saturating_add(written)))
        }))
    };
    match difference(own, before) {
        Some((0, 0)) => of_paths().unwrap_or(Some((0, 0))),
        moved => moved,
    }
}

/// `None` if a counter went back, as it does when a device goes and comes. One that came meanwhile began at
/// nothing.
fn difference(now: &Disk, before: &Counters) -> Option<Bytes> {
    let same = |disk: &&Disk| disk.name == now.name && (disk.major, disk.minor) == (now.major, now.minor);
    let before = before.iter().find(same).map_or((0, 0), |disk| (disk.read_bytes, disk.write_bytes));
    Some((now.read_bytes.checked_sub(before.0)?, now.write_bytes.checked_sub(before.1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_on_hidden_paths_is_the_devices_that_they_are_of() {
        let text = |paths: [u64; 2], head: u64| -> Counters {
            let line = |numbers: &str, name: &str, sectors: u64| {
                format!("{numbers} {name} 1 0 {sectors} 1 1 0 {} 1 0 1 1\n", 2 * sectors)
            };
            let [one, two] = paths;
            let all = line("0 0", "nvme0c0n1", one)
                + &line("0 0", "nvme0c1n1", two)
                + &line("259 1", "nvme0n1", head);
            diskstats::disks(all.as_bytes()).flatten().collect()
        };
        let head = Device { major: 259, minor: 1 };
        let between = |before, after| moved(head, &before, &after);
        assert_eq!(between(text([8, 80], 0), text([10, 90], 0)), Some((12 * 512, 24 * 512)), "of both paths");
        assert_eq!(between(text([8, 80], 5), text([10, 90], 16)), Some((11 * 512, 22 * 512)), "of its own");
        assert_eq!(between(text([8, 80], 0), text([8, 80], 0)), Some((0, 0)));
        assert_eq!(between(text([8, 80], 0), text([10, 70], 0)), None, "one of them went back");
        assert_eq!(moved(Device { major: 0, minor: 0 }, &text([0, 0], 0), &text([9, 9], 9)), None);
        assert_eq!(counted(&text([0, 0], 0), head), Some("nvme0n1"));
    }
}
