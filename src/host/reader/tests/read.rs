//! Facts out of written trees.

use super::*;

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
    assert_eq!(
        (memory.held.anon_bytes, memory.usage_bytes, memory.limit_bytes),
        (41_943_040, 50_331_648, None)
    );
    assert_eq!(read.capacity_cores, Some(8.0), "no quota, no cpuset: all that are online");
    assert_eq!(read.cpu_stall, Some(Duration::from_micros(123_456)));
    assert_eq!(reader.snapshot().cpu_stall, None, "a kernel without PSI");
    assert_eq!(reader.faults(), Faults::default());
    host.write("proc/pressure/cpu", include_bytes!("../../../../fuzz/corpus/pressure/cpu-5.10"));
    let mut reader = host.open();
    reader.read(ALL, at(0));
    assert!(reader.snapshot().cpu_stall.is_some_and(|stall| !stall.is_zero()));
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
    assert_eq!((memory.held.anon_bytes, memory.usage_bytes), (50_466_816, 58_720_256));
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
fn where_open_files_run_short_bounds_are_as_of_the_last_minute_and_never_older() {
    const CONTAINERS: u32 = 12;
    let host = Host::v2();
    for number in 0..CONTAINERS {
        host.v2_container(&pod(number));
    }
    let quota = |cores: u64| {
        for number in 0..CONTAINERS {
            let text = format!("{} 100000\n", cores * 100_000);
            host.write(&format!("cgroup{}/cpu.max", pod(number)), text.as_bytes());
        }
    };
    let known = |reader: &Reader, cores: f64| {
        (0..CONTAINERS).filter(|number| reading(reader, &id(*number)).capacity_cores == Some(cores)).count()
    };
    quota(1);
    let mut reader = host.open();
    // Room for the files that change with every reading (4 of each container, 5 of the host), not for all.
    reader.io.spare = 0;
    reader.tracked.each(|_, leaf, _| leaf.close(&mut reader.io));
    reader.io.spare = 5 + 5 * u64::from(CONTAINERS);
    let start = at(0).mono.as_secs() / 60 * 60;
    let tick = |number: u64| Now { mono: Duration::from_secs(start + 60 + 10 * number), wall: Wall(0) };
    reader.read(ALL, tick(0));
    reader.read(ALL, tick(1));
    assert!(reader.turn.rationed);
    assert_eq!(known(&reader, 1.0), 12);
    quota(2);
    let mut before = 0;
    for number in 2..8 {
        reader.read(ALL, tick(number));
        let now = known(&reader, 2.0);
        assert_eq!(now, before + 2, "not all at once: a sixth in tick {number}");
        before = now;
    }
    let open = reader.io.spare;
    reader.read(ALL, tick(8));
    assert_eq!(reader.io.spare, open, "nothing is opened and kept any more");
    assert!(!reader.io.refused, "all that change have room");
    // Some go: there is room for all again.
    for number in 3..CONTAINERS {
        host.remove(&format!("cgroup{}", pod(number)));
    }
    assert_eq!(reader.rescan(tick(8)), Scan::Whole);
    let now = reader.io.spare;
    quota(3);
    reader.read(ALL, tick(9));
    assert!(!reader.turn.rationed);
    let read = (0..3).filter(|number| reading(&reader, &id(*number)).capacity_cores == Some(3.0)).count();
    assert_eq!(read, 3, "each turn reads them again");
    assert!(reader.io.spare < now, "and they stay open");
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
    let now = at(0);
    reader.read(ALL, now);
    let task =
        |container, state| TaskSample { container, state, blocked: Duration::from_secs(3), in_iowait: true };
    let stale = Key { generation: key.generation + 1, ..key };
    let look = reader.count_tasks(now, |_, count| {
        count(task(Some(key), TaskState::Uninterruptible));
        count(task(Some(stale), TaskState::Uninterruptible));
        count(task(None, TaskState::Running));
        TaskLook::Whole(now.mono)
    });
    assert_eq!(look, TaskLook::Whole(now.mono));
    let of_container = reading(&reader, &id(1)).tasks.expect("counted");
    assert_eq!((of_container.uninterruptible, of_container.running), (1, 0));
    assert_eq!(of_container.longest, Duration::from_secs(3));
    let all = *reader.snapshot().tasks.expect("counted");
    assert_eq!((all.uninterruptible, all.iowait, all.running), (2, 2, 1));
    let next = at(5);
    reader.read(ALL, next);
    assert_eq!(reader.count_tasks(next, |_, _| TaskLook::Failed), TaskLook::Failed);
    assert_eq!((reading(&reader, &id(1)).tasks, reader.snapshot().tasks), (None, None));
}

#[test]
fn a_look_at_tasks_that_takes_several_turns_is_counted_whole_and_bears_the_time_of_its_begin() {
    let host = Host::v2();
    host.v2_container(&pod(1));
    let mut reader = host.open();
    let key = |reader: &Reader, number| reader.containers().find(&id(number)).expect("it is there");
    let first = key(&reader, 1);
    let asleep = |container| TaskSample {
        container: Some(container),
        state: TaskState::Sleeping,
        blocked: Duration::ZERO,
        in_iowait: false,
    };
    let turns: Vec<Now> = (0..5).map(at).collect();
    for turn in &turns[..3] {
        reader.read(ALL, *turn);
        let look = reader.count_tasks(*turn, |_, count| {
            (0..10).for_each(|_| count(asleep(first)));
            TaskLook::Partial
        });
        assert!(look.is_under_way());
        assert_eq!((reading(&reader, &id(1)).tasks, reader.snapshot().tasks), (None, None), "not whole yet");
    }
    // One comes meanwhile, and another takes the place of one that goes.
    host.v2_container(&pod(2));
    host.remove(&format!("cgroup{}", pod(1)));
    host.v2_container(&pod(3));
    assert_eq!(reader.changed(turns[3]), Scan::Whole);
    let second = key(&reader, 2);
    reader.count_tasks(turns[3], |containers, count| {
        assert!(containers.get(second).is_some());
        (0..7).for_each(|_| count(asleep(second)));
        TaskLook::Whole(turns[0].mono)
    });
    let counts = |sleeping| TaskCounts { at: turns[0].mono, sleeping, ..TaskCounts::default() };
    assert_eq!(reading(&reader, &id(2)).tasks, Some(counts(7)));
    assert_eq!(reading(&reader, &id(3)).tasks, Some(counts(0)), "whoever had its slot before");
    assert_eq!(reader.snapshot().tasks, Some(&counts(37)));
    // The next look begins from nothing.
    reader.count_tasks(turns[4], |_, _| TaskLook::Whole(turns[4].mono));
    assert_eq!(reader.snapshot().tasks, Some(&TaskCounts { at: turns[4].mono, ..TaskCounts::default() }));
}

#[test]
fn a_host_that_cannot_be_read_is_refused_with_a_remedy() {
    let host = Host::new();
    let error = Reader::open(&host.paths(), 16).expect_err("there is no hierarchy").to_string();
    assert!(error.contains("cgroup holds no cgroup hierarchy; [paths] cgroup must name one"), "{error}");
    host.write("proc/self/mountinfo", include_bytes!("../../../../fuzz/corpus/mountinfo/co_mounted"));
    let error = Reader::open(&host.paths(), 16).expect_err("there is no hierarchy").to_string();
    assert!(error.contains("/sys/fs/cgroup/unified"), "{error}");
    host.remove("cgroup");
    let error = Reader::open(&host.paths(), 16).expect_err("there is no folder").to_string();
    assert!(error.contains("set [paths] cgroup"), "{error}");
    host.remove("proc");
    let error = Reader::open(&host.paths(), 16).expect_err("there is no procfs").to_string();
    assert!(error.contains("proc/stat") && error.contains("set [paths] proc"), "{error}");
}
