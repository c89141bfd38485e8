//! What is read of containers by one run of a program is what their text files say, of each reading, while
//! they work: held back by a quota, with memory of each kind, below a limit, with cgroups of their own.

use std::path::Path;
use std::time::Duration;

use onset::bpf::{Cgroups, Followed, Meter, Site};
use onset::capture::release;
use onset::host::cgroup_source::CgroupSource;
use onset::host::{Facts, Mode, Paths, Reader, Reading};
use onset::sys;

use crate::cgroup::Cgroup;
use crate::memburst::{KINDS, limit};
use crate::rig::{Agent, Folder, Lines, SOON, await_that, command, compile, done, only, root, run};

const OF_CONTAINERS: Facts = Facts { container_cpu: true, container_memory: true, ..Facts::NONE };

/// The first kernel on which the program can be loaded.
const SINCE: (u32, u32) = (5, 19);

/// v1's text counts user and system time in ticks of a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

fn host() -> Paths {
    Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() }
}

fn by_text() -> Reader {
    Reader::open(&host(), 1024).unwrap()
}

/// A reader by the program; on an older kernel the reason why there is none.
fn by_program() -> (Reader, Option<String>) {
    let mut reader = by_text();
    let followed = Followed::create(16).unwrap();
    let unified = reader.mode() == Mode::V2;
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified, cpus: &[] };
    let source = Cgroups::load(&site, release(Path::new("/proc")), &mut Meter::default());
    let why = source.as_ref().err().map(ToString::to_string);
    let source = source.map(|source| Box::new(source) as Box<dyn CgroupSource>);
    reader.read_by(source.map_err(|error| &*String::leak(error.to_string())));
    (reader, why)
}

/// All of it, of each container that is ours, in the order of `ids`.
fn read(reader: &mut Reader, ids: &[&str]) -> Vec<Reading> {
    let _ = reader.rescan(sys::now());
    reader.forget();
    reader.read(OF_CONTAINERS, sys::now());
    let snapshot = reader.snapshot();
    let of = |id: &&str| {
        let mut found = snapshot.each().filter(|(container, _)| container.id() == *id);
        *found.next().unwrap_or_else(|| panic!("{id} is not followed")).1
    };
    ids.iter().map(of).collect()
}

/// One of a container that works lies between what its text files said before and after.
fn lies_between(before: &Reading, told: &Reading, after: &Reading) {
    let lines = || format!("{before:#?}\n{told:#?}\n{after:#?}");
    let [first, cpu, last] = [before, told, after].map(|it| it.cpu.unwrap());
    // Text is cut: v1's total to nothing, v2's to microseconds; the modes on v1 to ticks.
    let within = |least: Duration, it: Duration, most: Duration, slack: Duration| {
        assert!(least <= it && it <= most + slack, "{least:?} {it:?} {most:?}: {}", lines());
    };
    within(first.total, cpu.total, last.total, Duration::from_micros(1));
    within(first.user, cpu.user + TICK, last.user, 3 * TICK);
    within(first.system, cpu.system + TICK, last.system, 3 * TICK);
    assert!(cpu.user + cpu.system <= cpu.total + Duration::from_micros(1), "{}", lines());
    let [first, it, last] = [before, told, after].map(|it| it.throttling.unwrap());
    assert!(first.periods <= it.periods && it.periods <= last.periods, "{}", lines());
    assert!(first.throttled_periods <= it.throttled_periods, "{}", lines());
    assert!(it.throttled_periods <= last.throttled_periods, "{}", lines());
    within(first.throttled, it.throttled, last.throttled, Duration::from_micros(1));
    assert_eq!(told.capacity_cores, before.capacity_cores, "{}", lines());
    let [first, it, last] = [before, told, after].map(|it| it.memory.unwrap());
    assert_eq!(it.limit_bytes, first.limit_bytes, "{}", lines());
    let [least, most] = [first.usage_bytes.min(last.usage_bytes), first.usage_bytes.max(last.usage_bytes)];
    // A process that was given a batch of pages gives back what it did not use.
    let slack = 64 * 4096 * std::thread::available_parallelism().unwrap().get() as u64;
    assert!(least <= it.usage_bytes + slack && it.usage_bytes <= most + slack, "{}", lines());
}

#[test]
fn one_run_of_a_program_reads_of_each_container_what_its_text_files_say() {
    if !root("both ways to read containers") {
        return;
    }
    let folder = Folder::new();
    let binary = compile(&folder, "kinds", KINDS);
    let (held_back, holder, nested) = (Cgroup::new("burner"), Cgroup::new("holder"), Cgroup::new("nests"));
    let idle = Cgroup::new("idler");
    held_back.quota(5);
    limit(&holder, 1024);
    let _burner = held_back.start(command("sh").args(["-c", "while :; do :; done"]));
    let mut kinds = command(&binary);
    let kinds = kinds.arg("8").arg(folder.0.join("file")).stdout(std::process::Stdio::piped());
    let mut holds = holder.start(kinds);
    Lines::of(holds.0.stdout.take().unwrap()).wait("all of its memory", SOON, |_| Some(()));
    let below = Cgroup::at(&format!("{}/below", nested.path().trim_start_matches('/')), "none");
    let _within = below.start(command("sh").args(["-c", "while :; do read -r _ </proc/self/stat; done"]));

    let ids = [&*held_back.id, &*holder.id, &*nested.id, &*idle.id];
    let (mut text, (mut program, why)) = (by_text(), by_program());
    if let Some(why) = why {
        assert!(release(Path::new("/proc")).unwrap() < SINCE && why.contains("5.19"), "{why}");
        read(&mut program, &ids);
        assert!(program.methods().all(|one| one.method == "text" && one.reason == Some(&*why)));
        return;
    }
    for _ in 0..20 {
        let before = read(&mut text, &ids);
        let told = read(&mut program, &ids);
        let after = read(&mut text, &ids);
        for ((before, told), after) in before.iter().zip(&told).zip(&after) {
            lies_between(before, told, after);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Memory that nobody touches is the same to the byte. The kernel's text may be behind for a moment.
    await_that("the same memory by both ways", SOON, || {
        let (text, told) = (read(&mut text, &ids), read(&mut program, &ids));
        let same = |place: usize| text.get(place).unwrap().memory == told.get(place).unwrap().memory;
        (same(1) && same(3)).then_some(())
    });
    let told = await_that("it to be held back", SOON, || {
        let told = read(&mut program, &ids);
        let throttling = told.first()?.throttling?;
        (throttling.throttled_periods > 3 && throttling.throttled > Duration::from_millis(100))
            .then_some(told)
    });
    assert_eq!(told.first().unwrap().capacity_cores, Some(0.05));
    let memory = told.get(1).unwrap().memory.unwrap();
    assert!(memory.held.anon_bytes >= 24 << 20 && memory.held.anon_bytes < 28 << 20, "{memory:?}");
    assert!(memory.held.shmem_bytes >= Some(24 << 20) && memory.held.locked_bytes >= Some(24 << 20));
    assert_eq!(memory.limit_bytes, Some(1 << 30));
    let below = told.get(2).unwrap().cpu.unwrap();
    assert!(below.total > Duration::from_millis(100), "what runs in a cgroup below counts: {below:?}");
    // What is below another cgroup is not told of it yet: that container alone is read from text.
    let methods: Vec<_> = program.methods().collect();
    let of = |name: &str| &*methods.iter().find(|one| one.readings == name).unwrap().method;
    for readings in ["throttling", "memory"] {
        assert_eq!(of(readings), "bpf", "{methods:?}");
    }
    assert!(of("memory_unreclaimable").starts_with("bpf, text for "), "{methods:?}");
    assert!(of("cpu_time") == "bpf" || of("cpu_time").starts_with("bpf, text for "), "{methods:?}");
}

#[test]
fn status_and_doctor_say_by_which_way_containers_are_read() {
    if !root("the way that containers are read") {
        return;
    }
    let _cgroup = Cgroup::new("shown");
    let agent = Agent::start(&only("cpuidle", "every = \"1s\""));
    let old = release(Path::new("/proc")).unwrap() < SINCE;
    let wanted = if old {
        "cpu_time by text: the program that reads cgroups needs Linux 5.19"
    } else {
        "cpu_time by bpf"
    };
    await_that("the way that CPU time is read", SOON, || {
        let status = done(&mut agent.onset(&["status"]));
        status.contains(&format!("readings    {wanted}")).then_some(())
    });
    let doctor = run(&mut agent.onset(&["doctor"]));
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains(&format!("readings {wanted}")), "{doctor}");
    let state = if old { "unneeded" } else { "loaded" };
    let state = format!("onset_bpf_program_state{{program=\"cgroups\",state=\"{state}\"}}");
    assert_eq!(agent.metric(&state), Some(1.0), "{state}");
    assert_eq!(agent.leave(), Some(0));
}
