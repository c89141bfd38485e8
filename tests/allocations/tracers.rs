//! Once they are built, tracers and their documents take nothing from the heap: ticks, captures
//! asked for and answered, events written, shrunk or not, and scrapes.

use std::time::Duration;

use onset::capture_data::{
    Beyond, Capture, CaptureData, CaptureKind, Device, DeviceIo, DiskIo, Faults, FileIo, FlameNode,
    Interferer, IoObject, Latency, ProcessIo, Profile, Refusal, Request, Resident, Rows, Scope, StackNames,
    Stall, Task, TaskGroup, Ticket, TopProcess, Waited, Waits,
};
use onset::clock::{Now, Wall};
use onset::config::Config;
use onset::fixed_buf::FixedBuf;
use onset::host::{
    ContainerCpu, ContainerMemory, Containers, CpuTimes, Disk, Filter, HostCpu, Key, Load, Memory, Reading,
    Snapshot, TaskCounts, Unreclaimable, Watched,
};
use onset::log::{Id, RecordId};
use onset::metric::{Mishaps, Scrape};
use onset::tracer::{
    About, Capacity, CaptureCause, Data, Emitted, Event, Executor, Out, Spec, TRACERS, Tracer, document,
};

use crate::ALLOCATIONS;

const CONTAINERS: usize = 100;
const TEN: Duration = Duration::from_secs(10);
const TURNS: u32 = 16;

/// Answers captures later, and writes documents where there is room for them.
pub struct Bench<'a> {
    spec: &'static Spec,
    containers: &'a Containers,
    filter: &'a Filter,
    pub now: Now,
    pub open: [Option<(Ticket, CaptureKind)>; 64],
    next: u32,
    sheet: &'a mut [u8],
    /// Documents that had room.
    pub kept: u32,
}

impl<'a> Bench<'a> {
    pub fn new(
        spec: &'static Spec,
        containers: &'a Containers,
        filter: &'a Filter,
        sheet: &'a mut [u8],
    ) -> Bench<'a> {
        let now = Now { mono: Duration::from_secs(50), wall: Wall(1_700_000_000_000) };
        Bench { spec, containers, filter, now, open: [None; 64], next: 0, sheet, kept: 0 }
    }
}

impl Executor for Bench<'_> {
    fn capture(&mut self, request: Request, _: CaptureCause) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        if let Some(place) = self.open.iter_mut().find(|place| place.is_none()) {
            *place = Some((ticket, request.kind));
        }
        ticket
    }

    fn emit(&mut self, about: &About, data: &dyn Data) -> Emitted {
        let envelope = document::Envelope {
            hostname: "host",
            region: "here",
            container: about.subject.and_then(|key| self.containers.get(key)),
            tracer_name: self.spec.name,
            tracer_id: &format_args!("{:x}", self.next),
            about,
            now: self.now,
            event: self.spec.hook.is_some(),
        };
        let kept = document::write(&envelope, data, self.sheet).is_ok();
        self.kept += u32::from(kept);
        if !kept {
            return Emitted::Failed;
        }
        Emitted::Logged(RecordId { log: Id([0; 8]), seq: self.next.into() })
    }

    fn fault(&mut self, fault: &'static str) {
        assert_eq!(fault, "cases_full");
    }
}

/// Rows that are there for ever.
fn rows<T>(list: impl IntoIterator<Item = T>) -> Rows<'static, T> {
    Rows::from(&*list.into_iter().collect::<Vec<_>>().leak())
}

fn capture(kind: CaptureKind) -> Capture<'static> {
    let node = |index: u64| FlameNode { level: 1, value: index, own: index, label: "a_function" };
    let task = |tid| Task {
        pid: tid,
        tid,
        comm: "dd",
        state: 'D',
        blocked: Duration::from_secs(61),
        in_iowait: true,
        container: Some(Key { slot: 3, generation: 1 }),
        stack: &["io_schedule", "rpc_wait"],
    };
    let interferer = |slot: u16| Interferer {
        group: TaskGroup::Container(Key { slot: slot % 100, generation: 1 }),
        held: TEN,
    };
    let data = match kind {
        CaptureKind::Stacks => CaptureData::Stacks(Profile {
            hz: 99,
            samples: 1000,
            flame: rows((0..1200).map(node)),
            top: rows([TopProcess { pid: 1, comm: "sh", samples: 3 }; 50]),
        }),
        CaptureKind::Tasks => CaptureData::Tasks(rows((0..400).map(task))),
        CaptureKind::Memory => CaptureData::Memory(rows([Resident { pid: 1, comm: "sh", rss_bytes: 3 }; 50])),
        CaptureKind::Faults => CaptureData::Faults(Faults {
            flame: rows((0..1200).map(node)),
            top: rows([Resident { pid: 1, comm: "sh", rss_bytes: 3 }; 50]),
        }),
        CaptureKind::Waits => CaptureData::Waits(Waits {
            whole: Waited { ran: TEN, all: TEN, external: TEN, ..Waited::default() },
            interferers: rows((0..400).map(interferer)),
            waiters: Rows::default(),
            unread_cpus: 0,
        }),
        CaptureKind::Probe => {
            let waited = Waited { ran: TEN, all: TEN, inner: TEN, ..Waited::default() };
            CaptureData::Probe(rows((0..100).map(|slot| (Key { slot, generation: 1 }, waited))))
        }
        CaptureKind::Io => CaptureData::Io(disk_io()),
        CaptureKind::Names => {
            CaptureData::Names(StackNames { kernel: rows(["shrink_node"; 64]), user: rows(["main"; 64]) })
        }
    };
    let began = Now { mono: Duration::from_secs(40), wall: Wall(1_699_999_990_000) };
    Capture { scope: Scope::Host, began, lasted: TEN, lost: 0, data }
}

fn disk_io() -> DiskIo<'static> {
    let device = Device { major: 8, minor: 0 };
    let file = |inode| FileIo {
        target: IoObject::File(device, inode, Some("/data/file")),
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
    };
    let process = |pid| ProcessIo { pid, comm: "dd", container: None, files: rows((0..9).map(file)) };
    let processes = rows((0..200).map(process));
    let stall = |tid| Stall {
        pid: 1,
        tid,
        cpu: 0,
        comm: "dd",
        container: None,
        blocked: Duration::from_secs(1),
        in_iowait: true,
        stack: &["io_schedule"; 40],
    };
    let (name, beyond) = ("dddd", Beyond::default());
    let device =
        DeviceIo { device, name, read_bytes: Some(1 << 40), write_bytes: Some(1 << 40), processes, beyond };
    DiskIo { devices: rows([device]), stalls: rows((0..60).map(stall)), not_attached: &[] }
}

/// In odd turns everything is busy.
fn reading(at: Duration, turn: u32) -> Reading {
    let busy = Duration::from_secs(10) * (turn / 2);
    Reading {
        at,
        cpu: Some(ContainerCpu { user: busy, system: Duration::ZERO, total: busy }),
        capacity_cores: Some(1.0),
        cpu_stall: Some(busy),
        tasks: Some(TaskCounts {
            uninterruptible: 60 * (turn % 2),
            longest: Duration::from_secs(90) * (turn % 2),
            ..TaskCounts::default()
        }),
        memory: Some(ContainerMemory {
            held: Unreclaimable { all_bytes: 10 + u64::from(turn % 2) * 50, ..Unreclaimable::default() },
            usage_bytes: 90,
            limit_bytes: Some(100),
        }),
        ..Reading::default()
    }
}

/// One turn: a tick, a wish, answers to all that was asked for, and a scrape.
fn turn(
    tracer: &mut dyn Tracer,
    bench: &mut Bench<'_>,
    (readings, number): (&mut [Reading], u32),
    page: &mut FixedBuf,
    [capture, probe]: [&Capture; 2],
) {
    let now = bench.now;
    let containers = bench.containers;
    readings.fill(reading(now.mono, number));
    let system = Duration::from_secs(u64::from(number / 2) * 100);
    let idle = Duration::from_secs(u64::from(number.div_ceil(2)) * 100);
    let cpu =
        HostCpu { times: CpuTimes { system, idle, ..CpuTimes::default() }, cpus: 10, ..HostCpu::default() };
    // In three turns of four it is busy.
    let busy = Duration::from_secs(u64::from(number - number / 4) * 10);
    let disk = Disk {
        major: 8,
        minor: 0,
        name: [b'd'; 32],
        reads: number.into(),
        read_bytes: 0,
        read_time: Duration::ZERO,
        writes: 1,
        write_bytes: 0,
        write_time: Duration::ZERO,
        in_flight: 0,
        busy,
        queued: busy,
    };
    let all_bytes = 10 + u64::from(number % 2) * 80;
    let held = Unreclaimable { all_bytes, ..Unreclaimable::default() };
    let memory = Memory { total_bytes: 100, available_bytes: 50, held };
    let snapshot = Snapshot {
        cpu: Some(&cpu),
        load: Some(&Load::default()),
        memory: Some(&memory),
        disks: Some(&[disk]),
        tasks: Some(&TaskCounts::default()),
        cpu_stall: None,
        containers,
        readings,
        filter: bench.filter,
    };
    tracer.on(now, Event::Tick(&snapshot), &mut Out::new(bench));
    if bench.spec.hook.is_some() {
        // Zeros are a record of any hook.
        tracer.on(now, Event::Record(&[0; 512]), &mut Out::new(bench));
    }
    tracer.on(now, Event::Asked(None, Duration::from_secs(1)), &mut Out::new(bench));
    let open = std::mem::replace(&mut bench.open, [None; 64]);
    for (index, (ticket, kind)) in open.into_iter().flatten().enumerate() {
        let event = match index % 3 {
            _ if kind == CaptureKind::Probe => Event::Captured(ticket, probe, containers),
            2 => Event::Refused(ticket, Refusal::Busy),
            _ => Event::Captured(ticket, capture, containers),
        };
        tracer.on(now, event, &mut Out::new(bench));
    }
    page.clear();
    let mut scrape = Scrape::new(page, bench.spec.metrics);
    tracer.scrape(Watched::new(containers, bench.filter), &mut scrape);
    assert_eq!(scrape.mishaps(), Mishaps::default());
}

fn plays_without_the_heap(spec: &'static Spec, config: &Config, place: usize) {
    let names: Vec<String> = (0..CONTAINERS).map(|index| format!("c{index}")).collect();
    let paths: Vec<String> = names.iter().map(|name| format!("/kubepods/{name}")).collect();
    let list: Vec<(&str, &str)> =
        names.iter().zip(&paths).map(|(name, path)| (name.as_str(), path.as_str())).collect();
    let containers = Containers::fixture(&list);
    let (mut sheet, mut page) = (vec![0; 32 << 10], FixedBuf::new(1 << 20));
    let mut readings = vec![Reading::default(); CONTAINERS];
    let (capture, probe) = (capture(spec.captures[0]), capture(CaptureKind::Probe));
    let mut tracer = (spec.build)(&config.tracers[place].settings, Capacity { containers: CONTAINERS });
    let mut bench = Bench::new(spec, &containers, config.tracers[place].settings.filter(), &mut sheet);
    let before = ALLOCATIONS.get();
    for number in 0..TURNS {
        bench.now.mono += Duration::from_secs(10);
        turn(&mut *tracer, &mut bench, (&mut readings, number), &mut page, [&capture, &probe]);
    }
    let after = ALLOCATIONS.get();
    assert!(bench.kept > TURNS, "{} kept only {} events", spec.name, bench.kept);
    assert_eq!(after - before, 0, "{} took from the heap", spec.name);
}

#[test]
fn no_tracer_allocates_once_built() {
    let text: Vec<String> = TRACERS
        .iter()
        .map(|spec| {
            let probed = if spec.captures.contains(&CaptureKind::Probe) {
                "probe_every = \"10s\"\nsustained_samples = 1\n"
            } else {
                ""
            };
            format!(
                "[tracer.{}]\ncooldown = \"20s\"\ninclude = [\"id:c*\"]\nexclude = [\"id:*99\", \"pod:?\"]\n{probed}",
                spec.name
            )
        })
        .collect();
    let config = Config::parse(&text.concat(), TRACERS).expect("valid");
    for (place, spec) in TRACERS.iter().enumerate() {
        plays_without_the_heap(spec, &config, place);
    }
}
