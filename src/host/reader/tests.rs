use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::Wall;
use crate::host::{Reading, TaskState, Throttling};

const UID: &str = "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b";

const ALL: Facts = Facts {
    cpu: true,
    load: true,
    memory: true,
    disks: true,
    tasks: true,
    container_cpu: true,
    container_memory: true,
};

/// A host's trees, written by hand; gone when it is dropped.
struct Host {
    root: PathBuf,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Host {
    fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let host =
            Host { root: std::env::temp_dir().join(format!("onset-host-{}-{number}", std::process::id())) };
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (file, from) in [
            ("stat", "proc_stat/6.18"),
            ("loadavg", "loadavg/6.18"),
            ("meminfo", "meminfo/6.1"),
            ("diskstats", "diskstats/6.18"),
        ] {
            host.write(&format!("proc/{file}"), &fs::read(corpus.join(from)).expect("a corpus file"));
        }
        host.write("sys/devices/system/cpu/online", b"0-7\n");
        host.make("cgroup");
        host
    }

    fn v2() -> Host {
        let host = Host::new();
        host.write("cgroup/cgroup.controllers", b"cpuset cpu io memory pids\n");
        host
    }

    fn v1() -> Host {
        let host = Host::new();
        for controllers in ["cpu,cpuacct", "cpuset", "memory"] {
            host.make(&format!("cgroup/{controllers}"));
        }
        host
    }

    fn paths(&self) -> Paths {
        let below = |name: &str| self.root.join(name);
        Paths { proc: below("proc"), sys: below("sys"), cgroup: below("cgroup") }
    }

    fn open(&self) -> Reader {
        Reader::open(&self.paths(), 16).expect("a host")
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.root.join(path)).expect("a folder");
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.root.join(path)).expect("a folder");
    }

    fn write(&self, path: &str, text: &[u8]) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// A container of v2, with its files.
    fn v2_container(&self, path: &str) {
        let path = format!("cgroup{path}");
        self.write(&format!("{path}/cpu.stat"), include_bytes!("../../../fuzz/corpus/cpu_stat/v2-6.12"));
        self.write(&format!("{path}/cpu.max"), b"max 100000\n");
        self.write(&format!("{path}/memory.stat"), include_bytes!("../../../fuzz/corpus/memory_stat/v2-6.1"));
        self.write(&format!("{path}/memory.current"), b"50331648\n");
        self.write(&format!("{path}/memory.max"), b"max\n");
    }

    /// A container of v1, with its files in each hierarchy.
    fn v1_container(&self, path: &str) {
        let in_cpu = |file: &str| format!("cgroup/cpu,cpuacct{path}/{file}");
        self.write(&in_cpu("cpuacct.stat"), include_bytes!("../../../fuzz/corpus/cpuacct_stat/6.18"));
        self.write(&in_cpu("cpuacct.usage"), b"270123456789\n");
        self.write(&in_cpu("cpu.stat"), include_bytes!("../../../fuzz/corpus/cpu_stat/v1-6.18"));
        self.write(&in_cpu("cpu.cfs_quota_us"), b"-1\n");
        self.write(&in_cpu("cpu.cfs_period_us"), b"100000\n");
        self.write(&format!("cgroup/cpuset{path}/cpuset.effective_cpus"), b"0-3\n");
        self.v1_memory(path);
    }

    fn v1_memory(&self, path: &str) {
        let path = format!("cgroup/memory{path}");
        self.write(
            &format!("{path}/memory.stat"),
            include_bytes!("../../../fuzz/corpus/memory_stat/v1-6.18"),
        );
        self.write(&format!("{path}/memory.usage_in_bytes"), b"58720256\n");
        self.write(&format!("{path}/memory.limit_in_bytes"), b"9223372036854771712\n");
    }
}

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn pod(number: u32) -> String {
    format!("/kubepods/burstable/pod{UID}/{}", id(number))
}

fn at(ms: u64) -> Now {
    let mono = crate::sys::now().mono + Duration::from_millis(ms);
    Now { mono, wall: Wall(0) }
}

fn reading(reader: &Reader, id: &str) -> Reading {
    let key = reader.containers().find(id).expect("it is there");
    let snapshot = reader.snapshot();
    *snapshot.readings.get(usize::from(key.slot)).expect("each slot has a reading")
}

fn ids(reader: &Reader) -> Vec<String> {
    let mut ids: Vec<_> = reader.containers().iter().map(|container| container.id().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn the_hosts_own_facts_are_read_when_asked_for() {
    let host = Host::v2();
    let mut reader = host.open();
    reader.read(Facts { cpu: true, ..Facts::NONE }, at(0));
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.cpu.map(|cpu| cpu.cpus), Some(2));
    assert!(snapshot.load.is_none() && snapshot.memory.is_none() && snapshot.disks.is_none());
    reader.read(ALL, at(1));
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.load.map(|load| load.one), Some(0.81));
    assert_eq!(snapshot.memory.map(|memory| memory.total_bytes), Some(16_302_508 * 1024));
    let names: Vec<_> = snapshot.disks.expect("read").iter().map(|disk| disk.name().to_owned()).collect();
    assert_eq!(names, ["loop0", "loop1", "vda", "zram0"]);
    assert_eq!(reader.faults(), Faults::default());
}

#[test]
fn a_fact_is_read_once_a_turn_and_forgotten_in_the_next() {
    let host = Host::v2();
    let mut reader = host.open();
    let turn = at(0);
    let load = Facts { load: true, ..Facts::NONE };
    reader.read(load, turn);
    host.write("proc/loadavg", b"9.00 9.00 9.00 1/1 1\n");
    reader.read(load.and(Facts { cpu: true, ..Facts::NONE }), turn);
    let one = |reader: &Reader| reader.snapshot().load.map(|load| load.one);
    assert_eq!(one(&reader), Some(0.81));
    assert!(reader.snapshot().cpu.is_some());
    reader.read(load, at(10));
    assert_eq!(one(&reader), Some(9.0));
    assert!(reader.snapshot().cpu.is_none());
    reader.read(Facts::NONE, at(20));
    assert_eq!(one(&reader), None);
}

#[test]
fn what_cannot_be_read_or_understood_is_counted_and_not_known() {
    let host = Host::v2();
    let mut reader = host.open();
    host.write("proc/loadavg", b"much\n");
    fs::remove_file(host.root.join("proc/diskstats")).expect("it was there");
    reader.read(ALL, at(0));
    let snapshot = reader.snapshot();
    assert!(snapshot.load.is_none() && snapshot.disks.is_none() && snapshot.memory.is_some());
    assert_eq!((reader.faults().unparsable, reader.faults().unreadable), (1, 1));
}

#[test]
fn a_v2_container_is_read() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    assert_eq!(reader.mode(), Mode::V2);
    assert_eq!(reader.cgroup_id_root(), host.root.join("cgroup"));
    reader.read(ALL, at(0));
    let read = reading(&reader, &id(1));
    assert_eq!(read.cpu.map(|cpu| cpu.total), Some(Duration::from_micros(8_123_456)));
    assert_eq!(read.throttling.map(|it| it.throttled_periods), Some(17));
    let memory = read.memory.expect("read");
    assert_eq!((memory.anon_bytes, memory.usage_bytes, memory.limit_bytes), (41_943_040, 50_331_648, None));
    assert_eq!(read.capacity_cores, Some(8.0), "no quota, no cpuset: all that are online");
    assert_eq!(reader.faults(), Faults::default());
}

#[test]
fn a_v1_container_is_read_from_all_its_hierarchies() {
    let host = Host::v1();
    host.v1_container(&pod(1));
    let mut reader = host.open();
    assert_eq!(reader.mode(), Mode::V1);
    assert_eq!(reader.cgroup_id_root(), host.root.join("cgroup/cpu,cpuacct"));
    reader.read(ALL, at(0));
    let read = reading(&reader, &id(1));
    let cpu = read.cpu.expect("read");
    assert_eq!((cpu.user, cpu.system), (Duration::from_millis(162_340), Duration::from_millis(93_070)));
    assert_eq!(cpu.total, Duration::from_nanos(270_123_456_789));
    let throttled = Duration::from_nanos(3_281_234_567);
    assert_eq!(read.throttling, Some(Throttling { periods: 42, throttled_periods: 41, throttled }));
    let memory = read.memory.expect("read");
    assert_eq!((memory.anon_bytes, memory.usage_bytes), (50_466_816, 58_720_256));
    assert_eq!(memory.limit_bytes, Some(64 << 20), "as its memory.stat says");
    assert_eq!(read.capacity_cores, Some(4.0));
}

#[test]
fn where_v1_does_not_tell_the_lowest_limit_it_is_looked_for() {
    let host = Host::v1();
    host.v1_container(&pod(1));
    host.write(&format!("cgroup/memory{}/memory.stat", pod(1)), b"rss 1\ntotal_rss 2\n");
    let mut reader = host.open();
    let limit = |reader: &Reader| reading(reader, &id(1)).memory.expect("read").limit_bytes;
    reader.read(ALL, at(0));
    assert_eq!(limit(&reader), None);
    host.write("cgroup/memory/kubepods/memory.limit_in_bytes", b"67108864\n");
    reader.read(ALL, at(10));
    assert_eq!(limit(&reader), Some(64 << 20));
}

#[test]
fn a_hybrid_hosts_controllers_are_in_v1() {
    let host = Host::v1();
    host.write("cgroup/unified/cgroup.controllers", b"hugetlb\n");
    host.v1_container("/docker/0000000000000000000000000000000000000000000000000000000000000001");
    let mut reader = host.open();
    assert_eq!(reader.mode(), Mode::Hybrid);
    reader.read(ALL, at(0));
    assert!(reading(&reader, &id(1)).cpu.is_some());
}

#[test]
fn a_v1_cpu_hierarchy_of_its_own_serves_too() {
    let host = Host::v1();
    fs::rename(host.root.join("cgroup/cpu,cpuacct"), host.root.join("cgroup/cpu")).expect("renamed");
    host.write(
        &format!("cgroup/cpu{}/cpu.stat", pod(1)),
        b"nr_periods 1\nnr_throttled 0\nthrottled_time 0\n",
    );
    let mut reader = host.open();
    reader.read(ALL, at(0));
    let read = reading(&reader, &id(1));
    assert_eq!(read.throttling.map(|it| it.periods), Some(1));
    assert!(read.cpu.is_none() && read.memory.is_none());
    assert_eq!(reader.faults(), Faults::default(), "a controller that is not there is no fault");
}

#[test]
fn the_lowest_bound_on_the_way_from_the_root_counts() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    host.v2_container(&pod(2));
    let above = format!("cgroup/kubepods/burstable/pod{UID}");
    host.write(&format!("{above}/cpu.max"), b"150000 100000\n");
    host.write(&format!("{above}/memory.max"), b"67108864\n");
    host.write("cgroup/kubepods/cpu.max", b"600000 100000\n");
    host.write("cgroup/kubepods/memory.max", b"134217728\n");
    host.write("cgroup/kubepods/cpuset.cpus.effective", b"0-4\n");
    host.write(&format!("cgroup{}/cpu.max", pod(2)), b"50000 100000\n");
    host.write(&format!("cgroup{}/memory.max", pod(2)), b"33554432\n");
    let mut reader = host.open();
    reader.read(ALL, at(0));
    let bounds = |reader: &Reader, number| {
        let read = reading(reader, &id(number));
        (read.capacity_cores, read.memory.and_then(|memory| memory.limit_bytes))
    };
    assert_eq!(bounds(&reader, 1), (Some(1.5), Some(64 << 20)), "its pod's");
    assert_eq!(bounds(&reader, 2), (Some(0.5), Some(32 << 20)), "its own");
    host.write(&format!("{above}/cpu.max"), b"max 100000\n");
    host.write(&format!("{above}/memory.max"), b"max\n");
    reader.read(ALL, at(10));
    assert_eq!(bounds(&reader, 1), (Some(5.0), Some(128 << 20)), "changed while it runs");
}

#[test]
fn a_v1_quota_and_an_empty_cpuset_are_understood() {
    let host = Host::v1();
    host.v1_container(&pod(1));
    host.write(&format!("cgroup/cpuset{}/cpuset.effective_cpus", pod(1)), b"\n");
    host.write("cgroup/cpuset/kubepods/cpuset.effective_cpus", b"0-1\n");
    let mut reader = host.open();
    reader.read(ALL, at(0));
    assert_eq!(reading(&reader, &id(1)).capacity_cores, Some(2.0), "of the nearest cpuset above");
    host.write("cgroup/cpu,cpuacct/kubepods/cpu.cfs_quota_us", b"25000\n");
    host.write("cgroup/cpu,cpuacct/kubepods/cpu.cfs_period_us", b"100000\n");
    reader.read(ALL, at(10));
    assert_eq!(reading(&reader, &id(1)).capacity_cores, Some(0.25));
}

#[test]
fn containers_are_followed_as_their_cgroups_come_and_go() {
    let host = Host::v2();
    let mut reader = host.open();
    assert!(reader.containers().is_empty());
    host.v2_container(&pod(1));
    host.make(&format!("cgroup/docker/{}/init.scope/deep", id(2)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1), id(2)], "deep folders that came before any watch are seen");
    let mut told = Vec::new();
    reader.changes(|container| told.push((container.id().to_owned(), container.is_live())));
    told.sort();
    assert_eq!(told, [(id(1), true), (id(2), true)]);

    let key = reader.containers().find(&id(1)).expect("it is there");
    let inode = std::os::unix::fs::MetadataExt::ino(
        &fs::metadata(host.root.join(format!("cgroup{}", pod(1)))).expect("a folder"),
    );
    let container = reader.containers().get(key).expect("it is there");
    assert_eq!((container.cgroup_id(), container.cgroup_path()), (inode, &*pod(1)));
    assert_eq!((container.qos(), container.pod()), (Some("burstable"), UID));

    host.remove(&format!("cgroup{}", pod(1)));
    host.v2_container(&pod(3));
    assert_eq!(reader.changed(at(1)), Scan::Whole);
    assert_eq!(ids(&reader), [id(2), id(3)]);
    let mut told = Vec::new();
    reader.changes(|container| told.push((container.id().to_owned(), container.is_live())));
    assert_eq!(told, [(id(1), false), (id(3), true)]);
    reader.read(ALL, at(2));
    assert!(reading(&reader, &id(3)).cpu.is_some());

    host.remove("cgroup/kubepods");
    assert_eq!(reader.changed(at(3)), Scan::Whole);
    assert_eq!(ids(&reader), [id(2)]);
    assert_eq!(reader.faults(), Faults::default());
}

#[test]
fn a_pod_moved_away_takes_its_containers_along() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    let from = host.root.join("cgroup/kubepods");
    fs::rename(&from, host.root.join("elsewhere")).expect("renamed");
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert!(reader.containers().is_empty());
    fs::rename(host.root.join("elsewhere"), &from).expect("renamed");
    assert_eq!(reader.changed(at(1)), Scan::Whole);
    assert_eq!(ids(&reader), [id(1)]);
}

#[test]
fn a_sweep_finds_what_no_watch_told_and_forgets_what_is_gone() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    host.v2_container(&pod(2));
    let mut reader = host.open();
    host.remove(&format!("cgroup{}", pod(1)));
    host.make(&format!("cgroup/new/{}", id(3)));
    assert_eq!(reader.rescan(at(0)), Scan::Whole);
    assert_eq!(ids(&reader), [id(2), id(3)]);
    let key = reader.containers().find(&id(2)).expect("it is there");
    assert_eq!(reader.changed(at(1)), Scan::Whole, "the watches tell late, and change nothing");
    assert_eq!(ids(&reader), [id(2), id(3)]);
    assert_eq!(reader.containers().find(&id(2)), Ok(key), "who stayed is the same");
}

#[test]
fn lost_events_make_a_sweep() {
    let host = Host::v2();
    host.make("cgroup/docker");
    let mut reader = host.open();
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("the kernel has inotify");
    // Two events each; the queue is full half way, and the container comes after that.
    for number in 0..most / 2 + 10 {
        let other = host.root.join(format!("cgroup/docker/other-{number}"));
        fs::create_dir(&other).expect("a folder");
        fs::remove_dir(&other).expect("a folder");
    }
    host.make(&format!("cgroup/docker/{}", id(1)));
    while reader.changed(at(0)) == Scan::Partial {}
    assert_eq!(ids(&reader), [id(1)]);
}

#[test]
fn more_containers_than_the_capacity_are_counted() {
    let host = Host::v2();
    for number in 0..20 {
        host.make(&format!("cgroup/docker/{}", id(number)));
    }
    let mut reader = host.open();
    assert_eq!((reader.containers().len(), reader.faults().beyond_capacity), (16, 4));
    reader.changes(|_| ());
    let one = ids(&reader).pop().expect("sixteen");
    host.remove(&format!("cgroup/docker/{one}"));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    assert_eq!(reader.rescan(at(0)), Scan::Whole);
    assert_eq!(reader.containers().len(), 16, "the next sweep fills the room");
}

#[test]
fn a_look_that_is_too_long_goes_on_in_the_next_call() {
    let host = Host::v2();
    for number in 0..900 {
        host.make(&format!("cgroup/a.slice/b{number}.service"));
    }
    let mut reader = host.open();
    host.make(&format!("cgroup/a.slice/b700.service/docker/{}", id(1)));
    let mut calls = 1;
    while reader.rescan(at(0)) == Scan::Partial {
        calls += 1;
        assert!(calls < 100, "it comes to an end");
    }
    assert!(calls > 1);
    assert_eq!(ids(&reader), [id(1)]);
}

#[test]
fn files_that_come_after_the_cgroup_are_found() {
    let host = Host::v1();
    host.make(&format!("cgroup/cpu,cpuacct{}", pod(1)));
    let mut reader = host.open();
    reader.read(ALL, at(0));
    assert!(reading(&reader, &id(1)).memory.is_none());
    host.v1_container(&pod(1));
    reader.read(ALL, at(10));
    let read = reading(&reader, &id(1));
    assert!(read.memory.is_some() && read.cpu.is_some());

    host.make(&format!("cgroup/cpu,cpuacct{}", pod(2)));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    reader.read(ALL, at(100_000));
    host.v1_memory(&pod(2));
    reader.read(ALL, at(100_010));
    assert!(reading(&reader, &id(2)).memory.is_none(), "later they are looked for only after a sweep");
    assert_eq!(reader.rescan(at(100_020)), Scan::Whole);
    reader.read(ALL, at(100_030));
    assert!(reading(&reader, &id(2)).memory.is_some());
}

#[test]
fn without_open_files_to_spare_each_reading_opens_its_own() {
    let host = Host::v2();
    for number in 0..10 {
        host.v2_container(&pod(number));
    }
    let mut reader = host.open();
    reader.io = Io::new(3);
    for turn in 0..3 {
        reader.read(ALL, at(turn));
        let read = reader.snapshot().each().filter(|(_, it)| it.cpu.is_some() && it.memory.is_some()).count();
        assert_eq!(read, 10);
    }
    assert_eq!(reader.faults(), Faults::default());
}

#[test]
fn a_reading_of_one_that_is_gone_is_not_given_to_the_next_in_its_slot() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    let turn = at(0);
    reader.read(ALL, turn);
    let key = reader.containers().find(&id(1)).expect("it is there");
    host.remove(&format!("cgroup{}", pod(1)));
    assert_eq!(reader.changed(turn), Scan::Whole);
    let left = reader.snapshot().readings.get(usize::from(key.slot)).copied();
    assert_eq!(left, Some(Reading::default()));
}

#[test]
fn tasks_are_counted_by_container() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    let key = reader.containers().find(&id(1)).expect("it is there");
    reader.read(ALL, at(0));
    let task =
        |container, state| TaskSample { container, state, blocked: Duration::from_secs(3), in_iowait: true };
    let stale = Key { generation: key.generation + 1, ..key };
    reader.count_tasks(|count| {
        count(task(Some(key), TaskState::Uninterruptible));
        count(task(Some(stale), TaskState::Uninterruptible));
        count(task(None, TaskState::Running));
        true
    });
    let of_container = reading(&reader, &id(1)).tasks.expect("counted");
    assert_eq!((of_container.uninterruptible, of_container.running), (1, 0));
    assert_eq!(of_container.longest, Duration::from_secs(3));
    let all = *reader.snapshot().tasks.expect("counted");
    assert_eq!((all.uninterruptible, all.iowait, all.running), (2, 2, 1));
    reader.count_tasks(|_| false);
    assert_eq!((reading(&reader, &id(1)).tasks, reader.snapshot().tasks), (None, None));
}

#[test]
fn a_host_that_cannot_be_read_is_refused_with_a_remedy() {
    let host = Host::new();
    let error = Reader::open(&host.paths(), 16).expect_err("there is no hierarchy").to_string();
    assert!(error.contains("cgroup holds no cgroup hierarchy; [paths] cgroup must name one"), "{error}");
    host.write("proc/self/mountinfo", include_bytes!("../../../fuzz/corpus/mountinfo/co_mounted"));
    let error = Reader::open(&host.paths(), 16).expect_err("there is no hierarchy").to_string();
    assert!(error.contains("/sys/fs/cgroup/unified"), "{error}");
    host.remove("cgroup");
    let error = Reader::open(&host.paths(), 16).expect_err("there is no folder").to_string();
    assert!(error.contains("set [paths] cgroup"), "{error}");
    host.remove("proc");
    let error = Reader::open(&host.paths(), 16).expect_err("there is no procfs").to_string();
    assert!(error.contains("proc/stat") && error.contains("set [paths] proc"), "{error}");
}

/// Cgroups on this very host, in each hierarchy that there is; gone when it is dropped.
struct RealGroups {
    hierarchies: Vec<PathBuf>,
    top: String,
}

impl RealGroups {
    /// `None` where this process may not make any.
    fn new(reader: &Reader) -> Option<RealGroups> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = match reader.mode() {
            Mode::V2 => vec![reader.cgroup_id_root().to_owned()],
            Mode::V1 | Mode::Hybrid => {
                let mut all: Vec<_> = ["cpu", "cpuacct", "cpuset", "memory"]
                    .map(|name| root.join(name))
                    .into_iter()
                    .filter_map(|path| fs::canonicalize(path).ok())
                    .collect();
                all.dedup();
                all
            }
        };
        let groups = RealGroups { hierarchies, top: format!("onset-test-{}", std::process::id()) };
        groups.make("").then_some(groups)
    }

    fn make(&self, path: &str) -> bool {
        self.hierarchies.iter().all(|root| fs::create_dir_all(root.join(&self.top).join(path)).is_ok())
    }

    fn remove(&self) {
        for root in &self.hierarchies {
            remove_groups(&root.join(&self.top));
        }
    }

    fn write(&self, file: &str, text: &str) -> bool {
        let written = |root: &PathBuf| fs::write(root.join(&self.top).join(file), text).is_ok();
        self.hierarchies.iter().filter(|root| written(root)).count() > 0
    }
}

impl Drop for RealGroups {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Only the folders of a cgroup can be removed; the files go with them.
fn remove_groups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

fn watches(reader: &Reader) -> usize {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", reader.fd())).expect("an open descriptor");
    info.lines().filter(|line| line.starts_with("inotify")).count()
}

#[test]
fn a_real_cgroup_is_followed_read_and_forgotten() {
    let paths = Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() };
    let Ok(mut reader) = Reader::open(&paths, 64) else { return };
    let Some(groups) = RealGroups::new(&reader) else { return };
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    let id = format!("{:064x}", std::process::id());
    let pod = format!("kubepods/pod{UID}");
    let container = format!("{pod}/{id}");
    let before = watches(&reader);
    assert!(groups.make(&container));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    let found = reader.containers().get(reader.containers().find(&id).expect("it is there"));
    assert_eq!(found.and_then(Container::qos), Some("guaranteed"));

    if reader.mode() != Mode::V2 {
        assert!(groups.write(&format!("{pod}/cpu.cfs_quota_us"), "20000"));
        assert!(groups.write(&format!("{pod}/memory.limit_in_bytes"), "67108864"));
        let joins: Vec<_> = groups
            .hierarchies
            .iter()
            .filter(|root| !root.ends_with("cpuset"))
            .map(|root| format!("echo $$ > {}/{}/{container}/cgroup.procs", root.display(), groups.top))
            .collect();
        let work = format!("{}; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", joins.join(" && "));
        let done = std::process::Command::new("sh").arg("-c").arg(work).status().expect("a shell");
        assert!(done.success());
        reader.read(ALL, at(1));
        let read = reading(&reader, &id);
        assert_eq!(read.capacity_cores, Some(0.2), "the pod's quota");
        assert_eq!(read.memory.expect("read").limit_bytes, Some(64 << 20), "the pod's limit");
        let cpu = read.cpu.expect("read");
        assert!(cpu.total > Duration::from_millis(20), "{cpu:?}");
        assert!((cpu.user + cpu.system).abs_diff(cpu.total) < Duration::from_millis(40), "{cpu:?}");
        assert!(read.throttling.is_some());
    }

    remove_groups(&groups.hierarchies.first().expect("one").join(&groups.top).join("kubepods"));
    reader.read(ALL, at(2));
    assert_eq!(reader.snapshot().each().filter(|(it, _)| it.id() == id).count(), 1, "nobody has told yet");
    groups.remove();
    assert_eq!(reader.changed(at(3)), Scan::Whole);
    assert!(reader.containers().find(&id).is_err());
    assert!(watches(&reader) < before, "a cgroup that is gone keeps no watch");
    assert_eq!(reader.faults().unreadable + reader.faults().unparsable, 0, "cgroups that go are no fault");
}
