//! A container whose memory grows toward its limit, allocated by two functions 3:1; a neighbour
//! that holds as much but grew slowly; and a burst right after start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Folder, SOON, await_that, chance, command, compile, number, only, root, text};

const MIB: u64 = 1 << 20;

/// `ARGUMENTS: MiB a step, ms between steps, MiB in all, a file to wait for`. Each step is written
/// to by two functions, 3:1; then it waits to be killed.
const GROWER: &str = r#"
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static void touch(char *at, unsigned long bytes) { for (unsigned long i = 0; i < bytes; i += 4096) at[i] = 1; }
__attribute__((noinline)) void takes_three(char *at, unsigned long bytes) { touch(at, bytes); }
__attribute__((noinline)) void takes_one(char *at, unsigned long bytes) { touch(at, bytes); }
int main(int argc, char **argv)
{
	unsigned long step = strtoul(argv[1], 0, 10) << 20, ms = strtoul(argv[2], 0, 10);
	unsigned long all = strtoul(argv[3], 0, 10) << 20;
	char *at = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* A huge page would be whoever's came first. */
	madvise(at, all, MADV_NOHUGEPAGE);
	while (access(argv[4], F_OK))
		usleep(1000);
	for (unsigned long done = 0; done + step <= all; done += step) {
		takes_three(at + done, step / 4 * 3);
		takes_one(at + done + step / 4 * 3, step / 4);
		usleep(ms * 1000);
	}
	for (;;)
		pause();
}
"#;

struct Grower {
    folder: Folder,
    binary: PathBuf,
}

impl Grower {
    fn new() -> Grower {
        let folder = Folder::new();
        let binary = compile(&folder, "grower", GROWER);
        Grower { folder, binary }
    }

    /// So many MiB each 100 ms, up to so many; begins when it is told to go.
    fn grows(&self, step: u64, all: u64, go: &str) -> Command {
        let mut grower = command(&self.binary);
        grower.args([step.to_string(), "100".into(), all.to_string()]).arg(self.folder.0.join(go));
        grower
    }

    fn go(&self, go: &str) {
        self.folder.file(go, "");
    }
}

pub fn limit(cgroup: &Cgroup, mib: u64) {
    let bytes = (mib * MIB).to_string();
    assert!(cgroup.write("memory.limit_in_bytes", &bytes) || cgroup.write("memory.max", &bytes));
}

/// Bytes in frames of this label.
fn bytes(event: &Value, label: &str) -> f64 {
    let flame = event["tracer_data"]["flamedata"].as_array().unwrap();
    let of = |node: &Value| node["value"].as_f64().unwrap();
    flame.iter().filter(|node| node["label"] == label).map(of).sum()
}

fn samples(agent: &Agent, want: f64) {
    await_that("samples", SOON, || {
        agent.metric("onset_samples_total{tracer=\"memburst\"}").filter(|samples| *samples >= want)
    });
}

#[test]
fn a_memory_burst_is_reported_before_its_limit_with_both_functions_and_a_slow_neighbour_is_not() {
    if !root("a memory burst") {
        return;
    }
    let grower = Grower::new();
    let (mine, other) = (Cgroup::new("burst"), Cgroup::new("slow"));
    limit(&mine, 512);
    limit(&other, 512);
    // It has 200 MiB, and takes 1 MiB a second more: minutes from its limit.
    let _other = other.start(&mut grower.grows(100, 200, "neighbour"));
    grower.go("neighbour");
    let _slow = other
        .start(command(&grower.binary).args(["1", "1000", "100"]).arg(grower.folder.0.join("neighbour")));
    await_that("the neighbour's memory", SOON, || (other.rss() > 200 * MIB).then_some(()));
    let _mine = mine.start(&mut grower.grows(4, 480, "go"));
    let agent = Agent::start(&only("memburst", "every = \"1s\"\ncapture = \"3s\"\ncooldown = \"1h\""));
    samples(&agent, 3.0);
    assert_eq!(agent.events().len(), 0, "nothing grows fast yet");
    // 40 MiB a second: the limit is hit 12 s from now.
    grower.go("go");
    let event = agent.event("the burst's event", SOON, |event| event["tracer_name"] == "memburst");
    assert_eq!(text(&event, "/container_id"), mine.id.as_str());
    assert_eq!(text(&event, "/tracer_data/scope"), "container");
    assert!(["surge", "predicted"].contains(&text(&event, "/tracer_data/trigger")), "{event:#}");
    let (anon, limit) =
        (number(&event, "/tracer_data/anon_bytes"), number(&event, "/tracer_data/limit_bytes"));
    assert_eq!(limit, (512 * MIB) as f64);
    assert!(anon < limit / 2.0, "long before the limit: {anon}");
    assert!(number(&event, "/tracer_data/anon_bytes_before") < anon);
    let left = number(&event, "/tracer_data/seconds_to_limit");
    assert!((5.0..30.0).contains(&left), "{left} s");
    let (three, one) = (bytes(&event, "takes_three"), bytes(&event, "takes_one"));
    assert!((three / one / 3.0 - 1.0).abs() < chance(), "{three} to {one}: {event:#}");
    // 3 s of 40 MiB a second, or less where the machine is busy, and none of it is lost.
    let whole = number(&event, "/tracer_data/faulted_bytes");
    assert!((30.0 * (1.0 - chance())..200.0).contains(&(whole / MIB as f64)), "{whole} bytes");
    assert_eq!(number(&event, "/tracer_data/lost_samples"), 0.0, "{event:#}");
    assert_eq!(text(&event, "/tracer_data/top_memory_usage/0/comm"), "grower");
    assert_eq!(event["tracer_data"]["top_memory_usage"].as_array().unwrap().len(), 1, "the container's only");
    assert_eq!(agent.metric("onset_events_total{tracer=\"memburst\"}"), Some(1.0), "and no other's");
    let shown = agent.metric(&format!(
        "onset_container_memory_anon_bytes{{container_id=\"{}\",container=\"\",pod=\"\",namespace=\"\"}}",
        mine.id
    ));
    assert!(shown.is_some_and(|shown| shown >= anon), "{shown:?}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_burst_in_the_first_seconds_after_start_is_caught() {
    if !root("an early burst") {
        return;
    }
    let grower = Grower::new();
    let cgroup = Cgroup::new("early");
    limit(&cgroup, 256);
    let agent = Agent::start(&only("memburst", "every = \"1s\"\ncapture = \"1s\"\ncooldown = \"1h\""));
    // It appears after the agent, and bursts at once.
    grower.go("go");
    let _early = cgroup.start(&mut grower.grows(8, 200, "go"));
    let within = Duration::from_secs(20);
    let event = agent.event("an early event", within, |event| event["container_id"] == cgroup.id.as_str());
    assert_eq!(text(&event, "/tracer_name"), "memburst");
    let started: f64 = agent.metric("process_start_time_seconds").unwrap();
    let time = onset::clock::Wall::parse(text(&event, "/tracer_time")).unwrap();
    let after = time.0 as f64 / 1000.0 - started;
    assert!(after < 60.0, "{after} s after start");
    drop(fs::remove_file(grower.folder.0.join("go")));
}

/// `ARGUMENTS: MiB, a file to make`. Takes that much of each kind, then waits: plain and locked
/// anonymous memory, shared memory, and the file's pages locked.
pub const KINDS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char *map(int fd, unsigned long bytes, int flags)
{
	char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (at == MAP_FAILED)
		exit(1);
	madvise(at, bytes, MADV_NOHUGEPAGE);
	return at;
}
int main(int argc, char **argv)
{
	unsigned long bytes = strtoul(argv[1], 0, 10) << 20;
	int shared = memfd_create("shared", 0), file = open(argv[2], O_RDWR | O_CREAT, 0600);
	char *cached;
	char *locked = map(-1, 2 * bytes, MAP_PRIVATE | MAP_ANONYMOUS);

	memset(map(-1, bytes, MAP_PRIVATE | MAP_ANONYMOUS), 1, bytes);
	memset(locked, 1, 2 * bytes);
	if (ftruncate(shared, 3 * bytes) || mlock(locked, 2 * bytes))
		return 1;
	memset(map(shared, 3 * bytes, MAP_SHARED), 1, 3 * bytes);
	if (ftruncate(file, bytes))
		return 1;
	cached = map(file, bytes, MAP_SHARED);
	memset(cached, 1, bytes);
	if (mlock(cached, bytes))
		return 1;
	if (write(1, "held\n", 5) != 5)
		return 1;
	for (;;)
		pause();
}
"#;

/// Lines of a file of the kernel's, by their first word.
fn lines(text: &str, unit: u64) -> std::collections::HashMap<&str, u64> {
    let number = |line: &'_ str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    text.lines().filter_map(|line| Some((line.split([' ', ':']).next()?, number(line)? * unit))).collect()
}

#[test]
fn anonymous_shared_and_locked_memory_are_what_the_kernel_counts_on_the_host_and_in_a_container() {
    if !root("kinds of memory") {
        return;
    }
    const EACH: u64 = 64;
    let folder = Folder::new();
    let binary = compile(&folder, "kinds", KINDS);
    let file = folder.0.join("file");
    let cgroup = Cgroup::new("kinds");
    limit(&cgroup, 2048);
    let total = lines(&fs::read_to_string("/proc/meminfo").unwrap(), 1024)["MemTotal"];
    // Seven parts in all: a rise of six is past this, whatever others do meanwhile.
    let percent = (5 * EACH * MIB) as f64 * 100.0 / total as f64;
    let keys = format!(
        "every = \"1s\"\ncapture = \"1s\"\ncooldown = \"1h\"\nhost_rise_percent = {percent:.6}\ncontainer_rise_percent = 15\n"
    );
    let agent = Agent::start(&only("memburst", &keys));
    let host = |kind: &str| agent.metric(&format!("onset_host_memory_{kind}_bytes"));
    let own = |kind: &str| {
        agent.metric(&format!(
            "onset_container_memory_{kind}_bytes{{container_id=\"{}\",container=\"\",pod=\"\",namespace=\"\"}}",
            cgroup.id
        ))
    };
    await_that("a first sample", SOON, || own("anon").and(host("locked")));
    let before = ["anon", "shmem", "locked"].map(|kind| host(kind).unwrap());
    let mut holder =
        cgroup.start(command(&binary).arg(EACH.to_string()).arg(&file).stdout(std::process::Stdio::piped()));
    crate::rig::Lines::of(holder.0.stdout.take().unwrap()).wait("all of it", SOON, |_| Some(()));
    let near = |one: f64, other: f64, mib: u64| (one - other).abs() <= (mib * MIB) as f64;
    // In the container nobody else takes any. Pages wait in small batches to be put on their lists.
    for (kind, parts, v1, v2) in [
        ("anon", 3, "total_rss", "anon"),
        ("shmem", 3, "total_shmem", "shmem"),
        ("locked", 3, "total_unevictable", "unevictable"),
    ] {
        let seen = await_that(kind, SOON, || {
            let stat = cgroup.read("memory.stat").unwrap();
            let stat = lines(&stat, 1);
            let want = *stat.get(v1).unwrap_or_else(|| &stat[v2]) as f64;
            let seen = own(kind).filter(|seen| near(*seen, want, 1))?;
            (seen >= ((parts * EACH - 4) * MIB) as f64).then_some(seen)
        });
        // The file's pages are shared memory where its folder is a tmpfs.
        assert!(seen < (((parts + 1) * EACH + 4) * MIB) as f64, "{kind}: {seen}");
    }
    for (place, (kind, line)) in
        [("anon", "AnonPages"), ("shmem", "Shmem"), ("locked", "Unevictable")].into_iter().enumerate()
    {
        await_that(kind, SOON, || {
            let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
            let want = lines(&meminfo, 1024)[line] as f64;
            let seen = host(kind).filter(|seen| near(*seen, want, 4))?;
            (seen - before[place] >= (EACH * MIB * 2) as f64).then_some(())
        });
    }
    // All that cannot be reclaimed: three parts anonymous, three shared, one of a file; locked ones once.
    for scope in ["host", "container"] {
        let event = agent.event(scope, SOON, |event| event["tracer_data"]["scope"] == scope);
        let grown = |kind: &str| {
            number(&event, &format!("/tracer_data/{kind}_bytes"))
                - number(&event, &format!("/tracer_data/{kind}_bytes_before"))
        };
        let (all, known) = (grown("unreclaimable"), grown("anon") + grown("shmem"));
        let slack = (32 * MIB) as f64;
        // A page of a file is in neither of the two, and a locked one counts once.
        assert!(all >= known - slack && all <= known + (EACH * MIB) as f64 + slack, "{event:#}");
        assert!(scope == "container" || all >= (4 * EACH * MIB) as f64, "{event:#}");
    }
    assert_eq!(agent.leave(), Some(0));
}
