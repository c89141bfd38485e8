//! Whose code it is: programs that execute others while they are captured, files that share their
//! numbers or their build id, and code that was compiled into memory. Names are right, or unknown.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{
    Agent, Folder, KillOnDrop, SOON, await_that, command, done, lab, number, only, root, start, text,
};

/// Burns in a function until a file is there; then does what it is told to, and burns on.
const BURNER: &str = r#"
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
volatile unsigned long sink;
__attribute__((noinline)) void FUNCTION(const char *until)
{
	while (access(until, F_OK))
		for (int i = 0; i < 10000000; i++)
			sink += i;
}
int main(int argc, char **argv)
{
	__asm__ volatile(".skip PADDING, 0x90");
	if (argc > 1)
		FUNCTION(argv[1]);
	if (argc > 3 && !strcmp(argv[2], "exec"))
		execl(argv[3], argv[3], (char *)0);
	if (argc > 3 && !strcmp(argv[2], "name"))
		prctl(PR_SET_NAME, argv[3], 0, 0, 0);
	FUNCTION("/nonexistent");
}
"#;

/// A program at fixed addresses without a build id: only which file it is tells its code from others'.
const BARE: [&str; 3] = ["-static", "-no-pie", "-Wl,--build-id=none"];

/// A program `name` that burns in `name_burns`, `padding` bytes into its code.
fn burner(folder: &Folder, name: &str, padding: usize, flags: &[&str]) -> PathBuf {
    let binary = folder.0.join(name);
    let text = BURNER.replace("FUNCTION", &format!("{name}_burns")).replace("PADDING", &padding.to_string());
    let source = folder.file(&format!("{name}.c"), &text);
    let mut cc = command("cc");
    cc.args(["-O1", "-fno-omit-frame-pointer"]).args(flags);
    done(cc.arg("-o").arg(&binary).arg(&source));
    binary
}

/// A capture by hand of what is in a cgroup, with something done a second after it began.
fn captured(agent: &Agent, cgroup: &Cgroup, seconds: u32, middle: impl FnOnce()) -> Value {
    let seconds = seconds.to_string();
    let mut trigger = agent.onset(&["trigger", "cpuidle", "--container", &cgroup.id, "--seconds", &seconds]);
    let waiting = std::thread::spawn(move || done(&mut trigger));
    await_that("the capture", SOON, || {
        let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
        (status["captures_open"] == 1).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    middle();
    let id = waiting.join().unwrap();
    agent.event("the event", SOON, |event| event["tracer_id"] == id.trim())
}

/// The samples that have a function in them, below processes of this name.
fn below(event: &Value, comm: &str, function: &str) -> u64 {
    let (mut within, mut samples) = (false, 0);
    for node in event["tracer_data"]["flamedata"].as_array().unwrap() {
        if node["level"] == 1 {
            within = node["label"] == comm;
        }
        if within && node["label"] == function {
            samples += node["value"].as_u64().unwrap();
        }
    }
    samples
}

/// Each process burns in the function that has its own name, and in nobody else's.
fn assert_own(event: &Value, names: &[&str]) {
    for comm in names {
        for other in names {
            let samples = below(event, comm, &format!("{other}_burns"));
            assert_eq!(samples > 0, comm == other, "{comm} in {other}_burns: {samples}; {event:#}");
        }
    }
}

fn await_name(process: &KillOnDrop, name: &str) {
    await_that(name, SOON, || {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.0.id())).ok()?;
        (comm.trim() == name).then_some(())
    });
}

#[test]
fn samples_of_a_process_before_and_after_exec_or_rename_have_their_own_names() {
    if !root("a process that executes another program") {
        return;
    }
    let folder = Folder::new();
    let cgroup = Cgroup::new("exec");
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let first = burner(&folder, "first", 16, &BARE);
    let second = burner(&folder, "second", 100_000, &BARE);
    let named = burner(&folder, "older", 16, &[]);
    let go = folder.0.join("go");
    let execs = cgroup.start(command(&first).arg(&go).arg("exec").arg(&second));
    let renames = cgroup.start(command(&named).arg(&go).args(["name", "newer"]));
    await_name(&execs, "first");
    await_name(&renames, "older");
    let event = captured(&agent, &cgroup, 3, || std::fs::write(&go, "").unwrap());
    assert_own(&event, &["first", "second"]);
    assert!(below(&event, "newer", "older_burns") > 0 && below(&event, "older", "older_burns") == 0);
    let top = event["tracer_data"]["top_processes"].as_array().unwrap();
    let has = |process: &KillOnDrop, comm: &str| {
        top.iter().any(|row| row["pid"] == process.0.id() && row["comm"] == comm)
    };
    assert!(has(&execs, "first") && has(&execs, "second") && has(&renames, "newer"), "{top:?}");
    assert_eq!(top.len(), 3, "{top:?}");
}

#[test]
fn a_stripped_program_is_named_by_an_unstripped_one_with_its_build_id() {
    if !root("a stripped program") {
        return;
    }
    let folder = Folder::new();
    let cgroup = Cgroup::new("stripped");
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let whole = burner(&folder, "whole", 16, &["-Wl,--build-id"]);
    let bare = folder.0.join("bare");
    done(command("strip").arg("-o").arg(&bare).arg(&whole));
    let stripped = cgroup.start(&mut command(&bare));
    await_name(&stripped, "bare");
    let mut later = None;
    let event = captured(&agent, &cgroup, 3, || later = Some(cgroup.start(&mut command(&whole))));
    for comm in ["bare", "whole"] {
        assert!(below(&event, comm, "whole_burns") > 0, "{comm}: {event:#}");
    }
}

/// Copies a loop into memory of a kind, tells of it in a perf map, and runs it.
const COMPILER: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
enum { LEN = 1 << 20, ALL = PROT_READ | PROT_WRITE | PROT_EXEC };
__attribute__((noinline)) static void loop(void) { for (;;) __asm__ volatile(""); }
static void *memory(const char *kind)
{
	int fd = -1;
	if (!strcmp(kind, "heap")) {
		char *at = (char *)(((long)sbrk(2 * LEN) + 4095) & ~4095L);
		return mprotect(at, LEN, ALL) ? MAP_FAILED : at;
	}
	if (!strcmp(kind, "memfd")) {
		fd = memfd_create("code", 0);
		return ftruncate(fd, LEN) ? MAP_FAILED : mmap(0, LEN, ALL, MAP_SHARED, fd, 0);
	}
	return mmap(0, LEN, ALL, (strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS, -1, 0);
}
int main(int argc, char **argv)
{
	void *at = memory(argv[1]);
	char name[64];
	FILE *map;
	memcpy(at, (void *)loop, 64);
	__builtin___clear_cache(at, at + 64);
	sprintf(name, "/tmp/perf-%d.map", getpid());
	map = fopen(name, "w");
	fprintf(map, "%lx 40 %s_burns\n", (long)at, argv[1]);
	fclose(map);
	((void (*)(void))at)();
}
"#;

#[test]
fn jit_code_is_named_in_every_kind_of_memory() {
    const KINDS: [&str; 4] = ["anonymous", "heap", "memfd", "shared"];
    if !root("compiled code") {
        return;
    }
    let folder = Folder::new();
    let cgroup = Cgroup::new("compiled");
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let (binary, source) = (folder.0.join("compiler"), folder.file("compiler.c", COMPILER));
    done(command("cc").args(["-O1", "-fno-omit-frame-pointer", "-o"]).arg(&binary).arg(&source));
    let running = KINDS.map(|kind| {
        let own = folder.0.join(kind);
        std::fs::copy(&binary, &own).unwrap();
        cgroup.start(command(&own).arg(kind))
    });
    let maps = running.each_ref().map(|process| PathBuf::from(format!("/tmp/perf-{}.map", process.0.id())));
    for map in &maps {
        await_that("a perf map", SOON, || map.exists().then_some(()));
    }
    let event = captured(&agent, &cgroup, 3, || ());
    for map in &maps {
        let _ = std::fs::remove_file(map);
    }
    assert_own(&event, &KINDS);
}

/// A btrfs on a loop device, with its files in its image's folder.
struct Btrfs(PathBuf, Folder);

impl Btrfs {
    fn new() -> Btrfs {
        let folder = Folder::new();
        let (image, mount) = (folder.0.join("image"), folder.0.join("mount"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        done(command("mkfs.btrfs").arg("-q").arg(&image));
        done(command("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Btrfs(mount, folder)
    }

    /// A subvolume of its own with a program in it.
    fn subvolume(&self, program: &Path) -> PathBuf {
        let name = program.file_name().unwrap();
        let volume = self.0.join("of").with_extension(name);
        done(command("btrfs").args(["-q", "subvolume", "create"]).arg(&volume));
        std::fs::copy(program, volume.join(name)).unwrap();
        volume.join(name)
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = command("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn five_programs_with_one_inode_number_on_subvolumes_of_btrfs_have_their_own_names() {
    const NAMES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "omega"];
    if !root("btrfs") {
        return;
    }
    let disk = Btrfs::new();
    let cgroup = Cgroup::new("btrfs");
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let programs = NAMES.map(|name| {
        let padding = 16 + 5_000 * NAMES.iter().position(|other| *other == name).unwrap();
        let flags: &[&str] = if name == "omega" { &[] } else { &BARE };
        disk.subvolume(&burner(&disk.1, name, padding, flags))
    });
    let running: Vec<KillOnDrop> =
        programs.iter().map(|program| cgroup.start(&mut command(program))).collect();
    for (process, name) in running.iter().zip(NAMES) {
        await_name(process, name);
    }
    let numbers = programs.each_ref().map(|program| std::fs::metadata(program).unwrap());
    assert!(numbers.windows(2).all(|two| two[0].ino() == two[1].ino() && two[0].dev() != two[1].dev()));
    let event = captured(&agent, &cgroup, 5, || ());
    assert_own(&event, &NAMES);
}

/// The CPU time of the host in ticks: all of it, and that of it which was idle or stolen.
fn ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap()
        .split_ascii_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap())
        .collect();
    (fields[..8].iter().sum(), fields[3] + fields[4] + fields[7])
}

#[test]
fn a_capture_beside_64_spinners_is_on_time_and_its_sums_add_up() {
    if !root("64 spinners") {
        return;
    }
    let folder = Folder::new();
    let agent = Agent::start(&only("cpusys", "every = \"1h\""));
    let spinner = burner(&folder, "spinner", 16, &BARE);
    // Beside the agent, not in a group that has its own share of the CPUs.
    let running: Vec<KillOnDrop> = (0..64).map(|_| start(&mut command(&spinner))).collect();
    let (all, idle) = ticks();
    let began = std::time::Instant::now();
    let id = done(&mut agent.onset(&["trigger", "cpusys", "--seconds", "2"]));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let (all, idle) = (ticks().0 - all, ticks().1 - idle);
    drop(running);
    let event = agent.event("the event", SOON, |event| event["tracer_id"] == id.trim());
    assert_eq!(text(&event, "/tracer_type"), "manual");
    let lasted = number(&event, "/tracer_data/duration_ms");
    assert!((2000.0..2100.0).contains(&lasted), "{lasted} ms");
    let cpus = std::thread::available_parallelism().unwrap().get() as f64;
    let busy = 1.0 - idle as f64 / all as f64;
    let want = 99.0 * cpus * lasted / 1000.0 * busy;
    let counted = number(&event, "/tracer_data/samples") + number(&event, "/tracer_data/lost_samples");
    println!("{counted} samples with the lost ones, {want:.1} expected, after {:?}", began.elapsed());
    assert!((counted - want).abs() <= want * 0.05, "{counted}, not {want:.1}: {busy} of the CPUs were busy");
}

/// A CPU that is off until this is dropped.
struct Off(&'static str);

impl Off {
    fn new(file: &'static str) -> Off {
        std::fs::write(file, "0").unwrap();
        Off(file)
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        std::fs::write(self.0, "1").unwrap();
    }
}

/// Runs in a VM of the lab only, whose CPUs may be switched off.
#[test]
#[ignore = "it switches a CPU off: run it by `make lab`"]
fn a_cpu_that_comes_online_during_a_capture_is_sampled() {
    lab();
    let off = Off::new("/sys/devices/system/cpu/cpu1/online");
    let folder = Folder::new();
    let cgroup = Cgroup::new("online");
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let program = burner(&folder, "pinned", 16, &BARE);
    let mut running = None;
    let event = captured(&agent, &cgroup, 8, || {
        drop(off);
        let pinned = command("taskset").args(["-c", "1"]).arg(&program).spawn();
        let pinned = KillOnDrop(pinned.unwrap());
        let procs = format!("{}\n", pinned.0.id());
        assert!(cgroup.write("cgroup.procs", &procs));
        running = Some(pinned);
    });
    assert!(below(&event, "pinned", "pinned_burns") > 5, "{event:#}");
}
