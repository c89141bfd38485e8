//! Containers whose counters a source tells: it is believed where it may be, asked for no more than is
//! needed, and text stands in for what it does not tell.

use std::sync::{Arc, Mutex};

use super::*;
use crate::host::cgroup_source::{CgroupCounters, CgroupRequest, CpuSum, Told};
use crate::host::{Limit, Quota, Unreclaimable};

const OF_CONTAINERS: Facts = Facts { container_cpu: true, container_memory: true, ..Facts::NONE };

/// Tells of every cgroup what the test says, and remembers what it was asked.
#[derive(Clone)]
struct Scripted(Arc<Mutex<Script>>);

struct Script {
    tells: CgroupCounters,
    works: bool,
    asked: Vec<CgroupRequest>,
    reads: usize,
}

impl Scripted {
    fn new(tells: CgroupCounters) -> Scripted {
        Scripted(Arc::new(Mutex::new(Script { tells, works: true, asked: Vec::new(), reads: 0 })))
    }

    fn with<T>(&self, with: impl FnOnce(&mut Script) -> T) -> T {
        with(&mut self.0.lock().expect("nobody panicked"))
    }
}

impl CgroupSource for Scripted {
    fn most(&self) -> usize {
        2
    }

    fn ask(&mut self, index: usize, request: &CgroupRequest) {
        assert!(index < 2, "no more than it can take");
        self.with(|script| script.asked.push(*request));
    }

    fn read(&mut self, count: usize) -> bool {
        assert!(count > 0 && count <= 2);
        self.with(|script| script.reads += 1);
        self.with(|script| script.works)
    }

    fn counters(&self, _: usize) -> CgroupCounters {
        self.with(|script| script.tells)
    }
}

/// Other numbers than those of the text files.
fn everything() -> CgroupCounters {
    let held = Unreclaimable {
        anon_bytes: 1 << 20,
        shmem_bytes: Some(0),
        locked_bytes: Some(0),
        all_bytes: 1 << 20,
    };
    let ms = Duration::from_millis;
    CgroupCounters {
        nodes: [7; 4],
        cpu: Told::New(CpuSum { total: ms(30_000), user: ms(20), system: ms(10), last: [Duration::ZERO; 2] }),
        uncontrolled: false,
        throttling: Some(Throttling { periods: 3, throttled_periods: 2, throttled: ms(5) }),
        quota: Some(Quota::Cores(0.5)),
        cpus: Some(4),
        memory: Told::New((2 << 20, Limit::Bytes(8 << 20))),
        held: Some(held),
    }
}

/// A host of one v2 container and a reader by this source.
fn reader(source: &Scripted) -> (Host, Reader) {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    reader.read_by(Ok(Box::new(source.clone())));
    (host, reader)
}

fn read(reader: &mut Reader, ms: u64) -> Reading {
    reader.read(OF_CONTAINERS, at(ms));
    let snapshot = reader.snapshot();
    *snapshot.each().next().expect("the container").1
}

fn method(reader: &Reader, group: &str) -> String {
    reader.methods().find(|one| one.readings == group).expect("a group").method
}

#[test]
fn what_the_source_tells_is_read_from_no_text_file() {
    let source = Scripted::new(everything());
    let (_host, mut reader) = reader(&source);
    let reading = read(&mut reader, 20_000);
    let ms = Duration::from_millis;
    assert_eq!(
        reading.cpu.map(|cpu| (cpu.total, cpu.user, cpu.system)),
        Some((ms(30_000), ms(20_000), ms(10_000)))
    );
    assert_eq!(reading.throttling.map(|throttling| throttling.throttled), Some(ms(5)));
    assert_eq!(reading.capacity_cores, Some(0.5));
    let memory = reading.memory.expect("told");
    assert_eq!((memory.usage_bytes, memory.limit_bytes), (2 << 20, Some(8 << 20)));
    for group in ["cpu_time", "throttling", "cpu_bounds", "memory"] {
        assert_eq!(method(&reader, group), "bpf", "{group}");
    }
}

#[test]
fn counts_of_pages_that_disagree_with_text_are_never_believed() {
    let source = Scripted::new(everything());
    let (_host, mut reader) = reader(&source);
    for round in 0..8 {
        let held = read(&mut reader, 20_000 + round).memory.expect("told").held;
        assert_eq!(held.anon_bytes, 41_943_040, "as in memory.stat");
        reader.forget();
    }
    let last = reader.methods().last().expect("memory that cannot be reclaimed");
    assert_eq!((last.readings, &*last.method), ("memory_unreclaimable", "text"));
    assert!(last.reason.is_some_and(|why| why.contains("not where they are looked for")), "{last:?}");
}

#[test]
fn counts_of_pages_are_believed_once_they_agree_with_text() {
    let text = Unreclaimable {
        anon_bytes: 41_943_040,
        shmem_bytes: Some(0),
        locked_bytes: Some(0),
        all_bytes: 41_943_040,
    };
    let source = Scripted::new(CgroupCounters { held: Some(text), ..everything() });
    let (_host, mut reader) = reader(&source);
    read(&mut reader, 20_000);
    assert_eq!(method(&reader, "memory_unreclaimable"), "text");
    reader.forget();
    let later = Unreclaimable { anon_bytes: 1, ..text };
    source.with(|script| script.tells.held = Some(later));
    assert_eq!(read(&mut reader, 20_001).memory.map(|memory| memory.held), Some(later));
    assert_eq!(method(&reader, "memory_unreclaimable"), "bpf");
}

#[test]
fn an_idle_container_s_last_reading_still_holds_where_the_source_says_so() {
    let source = Scripted::new(everything());
    let (_host, mut reader) = reader(&source);
    // A while after it came, when its files are not looked for any more, and a minute is not over.
    let first = read(&mut reader, 40_000);
    source.with(|script| {
        script.tells.cpu = Told::Same;
        script.tells.memory = Told::Same;
        script.tells.throttling = None;
    });
    let second = read(&mut reader, 40_001);
    assert_eq!((second.cpu, second.throttling), (first.cpu, first.throttling));
    assert_eq!((second.memory, second.capacity_cores), (first.memory, first.capacity_cores));
    let asked = source.with(|script| script.asked.last().copied()).expect("asked twice");
    assert_eq!(asked.known_total, first.cpu.map(|cpu| cpu.total));
    assert_eq!(asked.known_usage, first.memory.map(|memory| memory.usage_bytes));
    assert_eq!(asked.folders.nodes, [7; 4], "what was found behind the folders is handed back");
}

#[test]
fn a_source_that_fails_or_finds_nothing_leaves_all_to_the_text_files() {
    let source = Scripted::new(everything());
    let (_host, mut reader) = reader(&source);
    source.with(|script| script.works = false);
    let failed = read(&mut reader, 20_000);
    assert_eq!(failed.cpu.map(|cpu| cpu.total), Some(Duration::from_micros(8_123_456)));
    assert_eq!(method(&reader, "cpu_time"), "text");
    reader.forget();
    source.with(|script| (script.works, script.tells) = (true, CgroupCounters::NONE));
    let nothing = read(&mut reader, 20_001);
    assert_eq!((nothing.cpu, nothing.memory), (failed.cpu, failed.memory));
    assert_eq!((nothing.throttling, nothing.capacity_cores), (failed.throttling, failed.capacity_cores));
}

#[test]
fn containers_are_asked_for_in_batches_and_each_gets_its_own_reading() {
    let source = Scripted::new(everything());
    let (host, mut reader) = reader(&source);
    (2..=5).for_each(|number| host.v2_container(&pod(number)));
    let _ = reader.rescan(at(0));
    reader.read(OF_CONTAINERS, at(20_000));
    assert_eq!(reader.snapshot().each().filter(|(_, reading)| reading.cpu.is_some()).count(), 5);
    assert_eq!(source.with(|script| (script.asked.len(), script.reads)), (5, 3), "two at once");
}
