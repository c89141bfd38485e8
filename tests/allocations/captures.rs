//! What a capture brings lies in an arena: the loop takes it in, makes a document of it and gives it back, and neither
//! takes memory for that nor frees any. Folding stacks into one takes little, and no more for more of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use onset::capture::{ARENAS_EACH, ArenaPool, OwnedCapture};
use onset::capture_data::{
    Arena, Beyond, Capture, CaptureData, CaptureKind, Device, DeviceIo, DiskIo, Faults, FileIo, Interferer,
    IoObject, Latency, NO_ROOM, ProcessIo, Resident, Scope, StackNames, Stall, Task, TaskGroup, Texts,
    Waited, Waiter, Waits,
};
use onset::clock::{Now, Wall};
use onset::config::Config;
use onset::host::{Containers, Key};
use onset::stacks::{Row, fold};
use onset::tracer::{Capacity, Event, Out, Settings, Spec, TRACERS};

use crate::tracers::Bench;
use crate::{ALLOCATIONS, FREES};

/// More rows of each kind than its arena has room for.
const MANY: u32 = 50_000;

const BEGAN: Now = Now { mono: Duration::from_secs(40), wall: Wall(1_699_999_990_000) };

const LONG: Duration = Duration::from_secs(3600);

/// Functions in this many stacks.
struct Stacks {
    names: Vec<String>,
    seed: u64,
}

impl Stacks {
    fn new() -> Stacks {
        let names = (0..3000).map(|number| format!("a_function_of_some_length_{number}")).collect();
        Stacks { names, seed: 7 }
    }

    fn draw(&mut self, below: u64) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((self.seed >> 33) % below).expect("small")
    }

    /// Stacks that branch more, the deeper they are.
    fn rows(&mut self, count: u32) -> Vec<Row<'_>> {
        let mut deep =
            |deep: u64| -> Vec<usize> { (0..deep).map(|depth| self.draw(4 + depth * 40)).rev().collect() };
        let drawn: Vec<_> = (0..count).map(|_| (deep(24), deep(8))).collect();
        let named = |numbers: Vec<usize>| numbers.into_iter().map(|it| self.names[it].as_str()).collect();
        let row = |(pid, (user, kernel)): (u32, (Vec<usize>, Vec<usize>))| Row {
            pid: pid % 50,
            comm: "nginx",
            weight: u64::from(count - pid),
            user: named(user),
            kernel: named(kernel),
        };
        (0..count).zip(drawn).map(row).collect()
    }
}

/// More than there is room for.
fn largest<'a>(kind: CaptureKind, arena: &'a Arena) -> CaptureData<'a> {
    let mut texts = Texts::new(arena);
    let resident = |pid| Some(Resident { pid, comm: arena.text("a name")?, rss_bytes: 1 });
    let waited = Waited { ran: LONG, all: LONG, external: LONG, ..Waited::default() };
    let group = |number: u32| arena.text(&format!("/system.slice/{number}")).map(Some).map(TaskGroup::Cgroup);
    match kind {
        CaptureKind::Stacks => CaptureData::Stacks(fold(arena, 99, Stacks::new().rows(10_000))),
        CaptureKind::Faults => {
            let top = arena.rows(0..100, resident);
            CaptureData::Faults(Faults { flame: fold(arena, 99, Stacks::new().rows(10_000)).flame, top })
        }
        CaptureKind::Tasks => CaptureData::Tasks(arena.rows(0..MANY, |tid| {
            let frames = ["io_schedule", "rpc_wait", "nfs_wait"];
            let stack =
                texts.list(frames.iter().copied().cycle().take(20).collect::<Vec<_>>().into_iter())?;
            let (pid, comm, container) = (tid, texts.text("dd")?, Some(Key { slot: 3, generation: 1 }));
            Some(Task { pid, tid, comm, state: 'D', blocked: LONG, in_iowait: true, container, stack })
        })),
        CaptureKind::Memory => CaptureData::Memory(arena.rows(0..MANY, resident)),
        CaptureKind::Waits => CaptureData::Waits(Waits {
            whole: waited,
            unread_cpus: 0,
            interferers: arena.rows(0..MANY, |number| Some(Interferer { group: group(number)?, held: LONG })),
            waiters: arena.rows(0..MANY, |number| Some(Waiter { group: group(number)?, time: waited })),
        }),
        CaptureKind::Probe => CaptureData::Probe(
            arena.plain_rows((0..50_000_u16).map(|slot| (Key { slot, generation: 1 }, waited))),
        ),
        CaptureKind::Io => CaptureData::Io(disk_io(arena)),
        CaptureKind::Names => {
            let names = |count: u32| arena.rows(0..count, |_| arena.text(&"name".repeat(300)));
            CaptureData::Names(StackNames { kernel: names(64), user: names(64) })
        }
    }
}

fn disk_io(arena: &Arena) -> DiskIo<'_> {
    let device = Device { major: 8, minor: 0 };
    let file = |inode: u64, path: &str| {
        Some(FileIo {
            target: IoObject::File(device, inode, Some(arena.text(path)?)),
            direct: false,
            dirtied_earlier: false,
            shared: false,
            fs_write_bytes: Some(7),
            read_bytes: 1 << 20,
            write_bytes: 1 << 20,
            finished: 9,
            in_flight: 0,
            whole: Latency::default(),
            device: Latency::default(),
        })
    };
    let process = |pid: u32| {
        let path = format!("/{}/{pid}", "long/".repeat(50));
        let files = arena.rows(0..9_u32, |inode| file(inode.into(), &path));
        let comm = arena.text("dd")?;
        (!files.is_empty()).then_some(ProcessIo { pid, comm, container: None, files })
    };
    let stalls = arena.rows(0..64, |tid| {
        let stack = arena.whole(0..40, |_| Some("io_schedule"))?;
        let comm = arena.text("dd")?;
        Some(Stall { pid: 1, tid, cpu: 0, comm, container: None, blocked: LONG, in_iowait: true, stack })
    });
    let devices = arena.rows(0..1, |_| {
        let (read_bytes, write_bytes) = (Some(1 << 40), Some(1 << 40));
        let (name, processes) = (arena.text("sda")?, arena.rows(0..MANY, process));
        let beyond = Beyond { files: 1, read_bytes: 1, write_bytes: 1 };
        Some(DeviceIo { device, name, read_bytes, write_bytes, processes, beyond })
    });
    DiskIo { devices, stalls, not_attached: &[] }
}

/// How many rows the arena had no room for.
fn left_out(data: &CaptureData<'_>) -> usize {
    match data {
        CaptureData::Stacks(profile) => profile.flame.left_out(),
        CaptureData::Faults(faults) => faults.flame.left_out(),
        CaptureData::Tasks(tasks) => tasks.left_out(),
        CaptureData::Memory(residents) => residents.left_out(),
        CaptureData::Waits(waits) => waits.interferers.left_out(),
        CaptureData::Probe(rows) => rows.left_out(),
        CaptureData::Io(io) => io.devices[0].processes.left_out(),
        CaptureData::Names(names) => names.user.left_out(),
    }
}

/// A thread that makes captures; it says when one is ready.
fn captures(kind: CaptureKind, pool: Arc<ArenaPool>, count: u32) -> (Receiver<()>, Receiver<OwnedCapture>) {
    let ((say, ready), (to, from)) = (sync_channel(0), sync_channel(1));
    std::thread::spawn(move || {
        for _ in 0..count {
            let lease = pool.take(LONG).expect("one is given back");
            let capture = OwnedCapture::build(lease, |arena| Capture {
                scope: Scope::Host,
                began: BEGAN,
                lasted: LONG,
                lost: 0,
                data: largest(kind, arena),
            });
            to.send(capture).expect("it is wanted");
            say.send(()).expect("it is waited for");
        }
    });
    (ready, from)
}

/// Has each tracer tell of captures of the largest size, which come from another thread.
fn tell_of_the_largest(spec: &'static Spec, settings: &Settings) {
    const TURNS: u32 = 3;
    let kind = spec.captures[0];
    let pool = ArenaPool::new(kind.arena_bytes());
    let (ready, from) = captures(kind, Arc::clone(&pool), TURNS);
    let (containers, mut sheet) = (Containers::default(), vec![0; 1 << 20]);
    let mut bench = Bench::new(spec, &containers, settings.filter(), &mut sheet);
    let mut tracer = (spec.build)(settings, Capacity { containers: 0 });
    for turn in 1..=TURNS {
        tracer.on(bench.now, Event::Asked(None, LONG), &mut Out::new(&mut bench));
        let (ticket, _) = bench.open.iter_mut().find_map(Option::take).expect("a capture is asked for");
        ready.recv().expect("it makes one");
        let (taken, freed) = (ALLOCATIONS.get(), FREES.get());
        let owned = from.try_recv().expect("a capture");
        tracer.on(
            bench.now,
            Event::Captured(ticket, owned.capture(), &containers),
            &mut Out::new(&mut bench),
        );
        let left_out = left_out(&owned.capture().data);
        drop(owned);
        assert_eq!((ALLOCATIONS.get() - taken, FREES.get() - freed), (0, 0), "{} {turn}", spec.name);
        assert!(left_out > 0, "all of the largest {kind:?} fits");
        assert_eq!(bench.kept, turn, "{} told of each", spec.name);
    }
    assert_eq!(pool.free(), ARENAS_EACH, "all arenas of {kind:?} came back");
}

#[test]
fn a_capture_of_the_largest_size_is_told_and_given_back_without_the_heap() {
    let config = Config::parse("", TRACERS).expect("valid");
    config.tracers.iter().for_each(|tracer| tell_of_the_largest(tracer.spec, &tracer.settings));
}

#[test]
fn stacks_are_folded_into_their_arena_with_few_takings_and_all_samples() {
    let mut takings = Vec::new();
    for count in [1000, 10_000] {
        let mut stacks = Stacks::new();
        let rows = stacks.rows(count);
        let arena = Arena::new(CaptureKind::Stacks.arena_bytes());
        let (taken, freed) = (ALLOCATIONS.get(), FREES.get());
        let profile = fold(&arena, 99, rows.iter().cloned());
        let of_rows = u64::from(2 * count);
        let (taken, freed) = (ALLOCATIONS.get() - taken - of_rows, FREES.get() - freed - of_rows);
        println!("{count} stacks, {} nodes: taken {taken} times, freed {freed}", profile.flame.len());
        takings.push(taken);
        let samples = u64::from(count) * u64::from(count + 1) / 2;
        assert_eq!((profile.samples, profile.flame[0].value), (samples, samples));
        let fits = profile.flame.iter().all(|node| node.label != NO_ROOM);
        assert_eq!(fits, profile.flame.left_out() == 0);
    }
    // Tables that grow take memory some dozen times, whatever is in them.
    assert!(takings.iter().all(|taken| *taken < 200), "{takings:?}");
}
