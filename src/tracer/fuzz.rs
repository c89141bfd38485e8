//! Scripts of events made from bytes, played to one tracer: whatever the bytes are, it survives,
//! answers for each capture once, and says nothing that its spec does not declare.

use std::time::Duration;

use super::cases::CASES_MAX;
use super::play::{CAPACITY, Host, Play, Recorder};
use super::{Event, TRACERS, Trigger};
use crate::evidence::{
    Capture, Culprit, Device, DeviceIo, DiskIo, Faults, FileIo, FlameNode, Kind, ProcessIo, Profile, Refusal,
    Request, Resident, Scope, Seen, Stall, Target, Task, Ticket, Times, TopProcess, Waited, Waiter, Waits,
    Who,
};
use crate::host::{
    ContainerCpu, ContainerMemory, CpuTimes, Disk, HostCpu, Key, Load, Memory, Reading, TaskCounts,
    Throttling,
};

/// Configurations under which rules fire often, and one that is the default.
const CONFIGS: [&str; 3] = ["", "cooldown = \"0s\"\nsustained_samples = 1\n", "sustained_samples = 0\n"];

/// Sizes of a document: the least that can be configured, and more.
const SIZES: [usize; 3] = [16 << 10, 64 << 10, 1 << 20];

const NAMES: [(&str, &str); CAPACITY] = [
    ("a0", "/a"),
    ("a1", "/b"),
    ("a2", "/c"),
    ("a3", "/d"),
    ("a4", "/e"),
    ("a5", ""),
    ("a6", "/\n\""),
    ("a7", "/h"),
];

/// Plays the script that these bytes are. Panics where a tracer breaks its word.
pub fn events(data: &[u8]) {
    play(data);
}

/// Plays the script that these bytes are, and returns what was seen.
pub fn play(data: &[u8]) -> Recorder {
    let mut bytes = Bytes(data);
    let spec = TRACERS[bytes.below(TRACERS.len())];
    let config = format!("[tracer.{}]\n{}", spec.name, CONFIGS[bytes.below(CONFIGS.len())]);
    let mut play = Play::new(spec.name, &config, SIZES[bytes.below(SIZES.len())]);
    play.containers(&NAMES);
    let mut script = Script { play, bytes, watched: Vec::new(), manual: Vec::new() };
    while !script.bytes.0.is_empty() {
        script.step();
    }
    script.end()
}

/// A script that is being played.
struct Script<'a> {
    play: Play,
    bytes: Bytes<'a>,
    /// Open captures that rules asked for.
    watched: Vec<(Ticket, Scope)>,
    /// Open captures that someone asked for.
    manual: Vec<Ticket>,
}

impl Script<'_> {
    fn step(&mut self) {
        match self.bytes.below(16) {
            0 => self.play.pass(self.bytes.time()),
            1..=6 => self.tick(),
            7 => {
                let mut record: Vec<u8> = (0..self.bytes.below(64)).map(|_| self.bytes.byte()).collect();
                if self.play.spec.hook.is_some() {
                    record.resize(self.bytes.below(256), 0);
                }
                self.play.event(Event::Record(&record));
            }
            8 => self.play.event(Event::Lost(self.bytes.number())),
            9 => self.ask(),
            10..=12 => self.answer(),
            13 => self.strangers(),
            14 => drop(self.play.scrape()),
            _ => {
                self.play.seen.keeps = self.bytes.flag();
                let there = self.bytes.below(CAPACITY + 1);
                self.play.containers(NAMES.get(..there).unwrap_or_default());
            }
        }
    }

    fn tick(&mut self) {
        self.play.pass(self.bytes.interval());
        let at = self.play.now.mono;
        let mut host = self.bytes.host(at, self.play.spec.facts.disks);
        let mut readings: Vec<Reading> =
            (0..self.bytes.below(CAPACITY + 2)).map(|_| self.bytes.reading(at)).collect();
        if self.play.spec.facts.cpu_pressure {
            host.cpu_stall = self.bytes.maybe(|b| b.spent(at));
            for reading in &mut readings {
                reading.cpu_stall = self.bytes.maybe(|b| b.spent(at));
            }
        }
        let before = self.play.seen.open.len();
        self.play.tick(&host, &readings);
        self.watch(before);
    }

    /// What rules asked for since so many captures were open. A probe is no case.
    fn watch(&mut self, before: usize) {
        let new = self.play.seen.open.get(before..).unwrap_or_default().iter();
        for (ticket, Request { scope, .. }) in new.filter(|(_, request)| request.kind != Kind::Probe) {
            let one = self.watched.iter().all(|(_, other)| other != scope);
            assert!(one, "{scope:?} is being captured already");
            self.watched.push((*ticket, *scope));
        }
    }

    fn ask(&mut self) {
        let key =
            Key { slot: u16::from(self.bytes.byte() % 12), generation: u32::from(self.bytes.byte() % 3) };
        let subject = self.bytes.flag().then_some(key);
        let cases = self.play.seen.open.iter().filter(|(_, request)| request.kind != Kind::Probe);
        let room = cases.count() < CASES_MAX;
        let ticket = self.play.ask(subject);
        assert_eq!(ticket.is_some(), room, "a wish is refused only for want of room");
        self.manual.extend(ticket);
    }

    /// Answers any of the open captures, in any order.
    fn answer(&mut self) {
        let open = self.play.seen.open.len();
        if open == 0 {
            return;
        }
        let (ticket, request) = self.play.seen.open[self.bytes.below(open)];
        let kind = if self.bytes.byte() < 16 { other(request.kind) } else { request.kind };
        let refused = self.bytes.below(4) == 0;
        let capture = self.bytes.capture(kind, request.scope);
        let told = self.play.answer(ticket, if refused { Err(Refusal::Busy) } else { Ok(&capture) });
        let manual = self.manual.contains(&ticket);
        self.manual.retain(|open| *open != ticket);
        self.watched.retain(|(open, _)| *open != ticket);
        // What the kernel told of is an event, whatever a capture brings.
        let happened = self.play.spec.hook.is_some() && !manual;
        // The answer to a probe may call for captures.
        self.watch(open - 1);
        if !happened && (refused || kind != request.kind) || !self.play.seen.keeps {
            assert_eq!(told, None);
        } else if manual {
            assert_eq!(told, Some(Trigger::Manual), "who asked gets what was found");
        } else {
            assert_ne!(told, Some(Trigger::Manual));
        }
    }

    /// Answers to captures that nobody asked for.
    fn strangers(&mut self) {
        let events = self.play.seen.events.len();
        let containers = crate::host::Containers::default();
        let ticket = Ticket(u32::MAX - u32::from(self.bytes.byte()));
        let capture = self.bytes.capture(Kind::Tasks, Scope::Host);
        self.play.event(Event::Captured(ticket, &capture, &containers));
        self.play.event(Event::Refused(ticket, Refusal::Gone));
        assert_eq!(self.play.seen.events.len(), events, "no event of a stranger's capture");
    }

    /// All that is open is answered; then there is room for as many cases as ever.
    fn end(mut self) -> Recorder {
        while let Some((ticket, _)) = self.play.seen.open.last().copied() {
            self.play.answer(ticket, Err(Refusal::OverBudget));
        }
        for _ in 0..CASES_MAX {
            assert!(self.play.ask(None).is_some(), "a case was never closed");
        }
        assert!(self.play.ask(None).is_none(), "cases have a limit");
        self.play.scrape();
        let faults = ["cases_full", "foreign_capture", "foreign_record", "unknown_ticket"];
        assert!(self.play.seen.faults.iter().all(|fault| faults.contains(fault)));
        self.play.seen
    }
}

fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Stacks => Kind::Tasks,
        Kind::Faults | Kind::Memory => Kind::Stacks,
        Kind::Tasks => Kind::Waits,
        Kind::Waits => Kind::Probe,
        Kind::Probe | Kind::Io => Kind::Stacks,
    }
}

/// Values read from bytes; zeros when there are no more.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Small, large, and at the edges.
    fn number(&mut self) -> u64 {
        match self.byte() {
            0 => u64::MAX,
            1 => u64::from(u32::MAX),
            2 => (1 << 53) + 1,
            3..=19 => 0,
            20..=99 => u64::from(self.byte()) << 16 | u64::from(self.byte()),
            _ => u64::from(self.byte()),
        }
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number()).unwrap_or(u32::MAX)
    }

    fn float(&mut self) -> f64 {
        match self.byte() {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => f64::MAX,
            4 => f64::MIN_POSITIVE,
            5 => -1.0,
            6 => 0.0,
            _ => f64::from(self.byte()) / 8.0,
        }
    }

    fn time(&mut self) -> Duration {
        match self.byte() {
            0 => Duration::MAX,
            1 => Duration::from_nanos(1),
            2 => Duration::from_secs(self.number()),
            _ => Duration::from_millis(self.number()),
        }
    }

    /// From one tick to the next: mostly as it should be.
    fn interval(&mut self) -> Duration {
        match self.byte() {
            0..=15 => Duration::ZERO,
            16..=31 => self.time(),
            _ => Duration::from_secs(10),
        }
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let there = self.byte() > 25;
        there.then(|| value(self))
    }

    /// CPU time that mostly grows with the clock: half of it, and up to 5 s more.
    fn spent(&mut self, at: Duration) -> Duration {
        match self.byte() {
            0..=3 => self.time(),
            _ => (at / 2).saturating_add(Duration::from_millis(20) * u32::from(self.byte())),
        }
    }

    fn host(&mut self, at: Duration, disks: bool) -> Host {
        let mut spent = || self.spent(at);
        let times = CpuTimes {
            user: spent(),
            nice: spent(),
            // The kernel has a large share, so that rules see something.
            system: spent().saturating_mul(4),
            idle: spent(),
            iowait: spent(),
            irq: spent(),
            softirq: spent(),
            steal: spent(),
        };
        Host {
            cpu: self.maybe(|b| HostCpu { times, cpus: b.small(), running: b.number(), blocked: b.number() }),
            load: self.maybe(|b| Load { one: b.float(), five: b.float(), fifteen: b.float() }),
            memory: self.maybe(|b| Memory {
                total_bytes: b.number(),
                available_bytes: b.number(),
                anon_bytes: b.number(),
            }),
            // They take many bytes: only who asks for them gets any.
            disks: disks.then(|| (0..self.below(4)).map(|_| self.disk(at)).collect()),
            tasks: self.maybe(Self::tasks),
            cpu_stall: None,
        }
    }

    /// Mostly one of a few, with counters that grow; it is busy most of the time.
    fn disk(&mut self, at: Duration) -> Disk {
        const DISKS: [&[u8]; 4] = [b"sda", b"sda1", b"sdb", b"nvme0n1"];
        let which = self.below(5);
        let letter = self.byte();
        let mut name = [letter; 32];
        if let Some(known) = DISKS.get(which) {
            name.fill(0);
            name.iter_mut().zip(*known).for_each(|(to, from)| *to = *from);
        }
        let count = |b: &mut Self| u64::try_from(b.spent(at).as_millis()).unwrap_or(u64::MAX);
        Disk {
            major: if which < DISKS.len() { 8 } else { 9 },
            // No two names have the same numbers.
            minor: if which < DISKS.len() { u32::try_from(which).unwrap_or(0) } else { letter.into() },
            name,
            reads: count(self),
            read_bytes: count(self).saturating_mul(1 << 20),
            read_time: self.spent(at),
            writes: count(self),
            write_bytes: count(self).saturating_mul(1 << 20),
            write_time: self.spent(at),
            in_flight: self.number(),
            busy: self.spent(at).saturating_mul(2),
            queued: self.spent(at),
        }
    }

    fn tasks(&mut self) -> TaskCounts {
        TaskCounts {
            running: self.small(),
            sleeping: self.small(),
            stopped: self.small(),
            uninterruptible: self.small(),
            iowait: self.small(),
            longest: self.time(),
        }
    }

    fn reading(&mut self, now: Duration) -> Reading {
        let at = if self.byte() == 0 { self.time() } else { now };
        Reading {
            at,
            cpu: self.maybe(|b| ContainerCpu { user: b.spent(at), system: b.spent(at), total: b.spent(at) }),
            capacity_cores: self.maybe(Self::float),
            throttling: self.maybe(|b| Throttling {
                periods: b.number(),
                throttled_periods: b.number(),
                throttled: b.time(),
            }),
            cpu_stall: None,
            memory: self.maybe(|b| ContainerMemory {
                anon_bytes: b.number(),
                usage_bytes: b.number(),
                limit_bytes: b.maybe(Self::number),
            }),
            tasks: self.maybe(Self::tasks),
        }
    }

    fn text(&mut self) -> Box<str> {
        let letters = ['a', '_', '"', '\\', '\n', '\0', '\u{1f}', 'é', '\u{fffd}', '🦀'];
        (0..self.below(40)).map(|_| letters[self.below(letters.len())]).collect()
    }

    fn capture(&mut self, kind: Kind, scope: Scope) -> Capture {
        let many = if self.byte() < 8 { 200 } else { 1 };
        let seen = match kind {
            Kind::Stacks => Seen::Stacks(self.profile(many)),
            Kind::Tasks => Seen::Tasks((0..self.below(8) * many).map(|_| self.task()).collect()),
            Kind::Faults => Seen::Faults(self.faults(many)),
            Kind::Memory => Seen::Memory(self.faults(many).top),
            Kind::Waits => Seen::Waits(self.waits(many)),
            Kind::Probe => Seen::Probe((0..self.below(16)).map(|_| (self.key(), self.waited())).collect()),
            Kind::Io => Seen::Io(self.disk_io(many)),
        };
        Capture { scope, lasted: self.time(), lost: self.number(), seen }
    }

    /// Mostly no tree at all.
    fn profile(&mut self, many: usize) -> Profile {
        let flame = (0..self.below(16) * many).map(|_| FlameNode {
            level: u32::from(self.byte() % 8),
            value: self.number(),
            own: self.number(),
            label: self.text(),
        });
        let flame = flame.collect();
        let top = (0..self.below(8) * many).map(|_| TopProcess {
            pid: self.small(),
            comm: self.text(),
            samples: self.number(),
        });
        let top = top.collect();
        Profile { hz: self.small(), samples: self.number(), flame, top }
    }

    fn faults(&mut self, many: usize) -> Faults {
        let flame = self.profile(many).flame;
        let top = (0..self.below(8) * many).map(|_| Resident {
            pid: self.small(),
            comm: self.text(),
            rss_bytes: self.number(),
        });
        Faults { top: top.collect(), flame }
    }

    fn key(&mut self) -> Key {
        Key { slot: u16::from(self.byte() % 12), generation: u32::from(self.byte() % 3) }
    }

    fn waited(&mut self) -> Waited {
        Waited {
            ran: self.time(),
            all: self.time(),
            inner: self.time(),
            external: self.time(),
            throttled: self.time(),
            unheld: self.time(),
            waits: self.number(),
        }
    }

    fn waits(&mut self, many: usize) -> Waits {
        let culprits = (0..self.below(8) * many).map(|_| Culprit { who: self.who(), held: self.time() });
        let culprits = culprits.collect();
        let waiters = (0..self.below(8) * many).map(|_| Waiter { who: self.who(), time: self.waited() });
        let waiters = waiters.collect();
        Waits { whole: self.waited(), culprits, waiters }
    }

    fn who(&mut self) -> Who {
        if self.flag() { Who::Container(self.key()) } else { Who::Cgroup(self.maybe(Self::text)) }
    }

    fn disk_io(&mut self, many: usize) -> DiskIo {
        let devices = (0..self.below(4)).map(|_| self.device_io(many)).collect();
        DiskIo { devices, stalls: (0..self.below(4) * many).map(|_| self.stall()).collect() }
    }

    fn device(&mut self) -> Device {
        Device { major: self.small(), minor: self.small() }
    }

    fn device_io(&mut self, many: usize) -> DeviceIo {
        DeviceIo {
            device: self.device(),
            name: self.text(),
            read_bytes: self.maybe(Self::number),
            write_bytes: self.maybe(Self::number),
            processes: (0..self.below(4) * many).map(|_| self.process_io()).collect(),
        }
    }

    fn process_io(&mut self) -> ProcessIo {
        ProcessIo {
            pid: self.small(),
            comm: self.text(),
            container: self.maybe(|b| Key { slot: u16::from(b.byte() % 10), generation: 1 }),
            files: (0..self.below(8)).map(|_| self.file_io()).collect(),
        }
    }

    fn file_io(&mut self) -> FileIo {
        let target = match self.below(3) {
            0 => Target::File(self.device(), self.number(), self.maybe(Self::text)),
            1 => Target::Device(self.maybe(Self::text)),
            _ => Target::Unknown,
        };
        let times = |b: &mut Self| Times { average: b.time(), most: b.time() };
        FileIo {
            target,
            direct: self.flag(),
            dirtied_earlier: self.flag(),
            fs_write_bytes: self.maybe(Self::number),
            read_bytes: self.number(),
            write_bytes: self.number(),
            finished: self.number(),
            in_flight: self.number(),
            whole: times(self),
            device: times(self),
        }
    }

    fn stall(&mut self) -> Stall {
        let Task { pid, tid, comm, blocked, in_iowait, container, stack, .. } = self.task();
        Stall { pid, tid, cpu: self.small(), comm, container, blocked, in_iowait, stack }
    }

    fn task(&mut self) -> Task {
        Task {
            pid: self.small(),
            tid: self.small(),
            comm: self.text(),
            state: char::from(self.byte()),
            blocked: self.time(),
            in_iowait: self.flag(),
            container: self.maybe(|b| Key { slot: u16::from(b.byte() % 10), generation: 1 }),
            stack: (0..self.below(12)).map(|_| self.text()).collect(),
        }
    }
}
