//! A container of many thousand threads: every one of them is counted, and no turn of the loop is spent on all
//! of them.

use std::fs;
use std::process::Stdio;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Folder, KillOnDrop, Lines, SOON, await_that, command, compile, only, root};

/// As many as a busy host has, if this one lets them be.
const THREADS: u64 = 20_000;

/// Tasks that a turn looks at, at most: `TASKS_AT_ONCE` of src/capture/backend.rs.
const IN_A_TURN: u64 = 1024;

/// Looks that are waited for.
const LOOKS: f64 = 3.0;

/// How many threads can be started here and leave some room.
fn possible() -> u64 {
    let limit = |file: &str| -> u64 {
        fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap().trim().parse().unwrap()
    };
    // The second number behind the slash: `0.00 0.00 0.00 1/120 4711`.
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let there: u64 = load.split(['/', ' ']).nth(4).unwrap().parse().unwrap();
    let room = limit("pid_max").min(limit("threads-max")).saturating_sub(there);
    THREADS.min(room / 4 * 3)
}

/// Threads that sleep in this cgroup.
fn sleepers(folder: &Folder, cgroup: &Cgroup, count: u64) -> (KillOnDrop, u64) {
    let program = compile(folder, "sleepers", include_str!("../../benches/sleepers.c"));
    let mut child = cgroup.start(command(program).arg(count.to_string()).stdout(Stdio::piped()));
    let said = Lines::of(child.0.stdout.take().unwrap());
    let started: u64 = said.wait("the count", SOON, |line| line.parse().ok());
    // The first one is a thread, too.
    (child, started + 1)
}

/// Tasks of a container in a state, as the page of metrics has them.
fn shown(agent: &Agent, cgroup: &Cgroup, state: &str) -> Option<u64> {
    let (_, page) = agent.get("/metrics");
    let ours = format!("onset_container_tasks{{container_id=\"{}\",", cgroup.id);
    let line =
        page.lines().find(|line| line.starts_with(&ours) && line.contains(&format!("state=\"{state}\"")))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The same by the kernel's own lists.
fn listed(cgroup: &Cgroup, pid: u32) -> [u64; 2] {
    let of_cgroup = cgroup.read("tasks").or_else(|| cgroup.read("cgroup.threads")).unwrap();
    let of_process = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    [of_cgroup.lines().count() as u64, of_process as u64]
}

fn every_thread_is_counted_in_small_parts(rest: &str) {
    let folder = Folder::new();
    let cgroup = Cgroup::new("many");
    let agent = Agent::start(&format!("{}{rest}", only("dload", "every = \"1s\"")));
    let (threads, count) = sleepers(&folder, &cgroup, possible());
    assert_eq!(listed(&cgroup, threads.0.id()), [count; 2]);
    await_that("all of them", SOON, || (shown(&agent, &cgroup, "sleeping") == Some(count)).then_some(()));
    assert_eq!(shown(&agent, &cgroup, "running"), Some(0));
    let looks = || agent.metric("onset_samples_total{tracer=\"dload\"}").unwrap();
    let turns = || agent.metric("onset_loop_turn_seconds_count").unwrap();
    // Looks first: those that are counted then have all their turns after.
    let (looked, turned) = (looks(), turns());
    let done = await_that("some looks", SOON, || Some(looks() - looked).filter(|done| *done >= LOOKS));
    let (turns, parts) = (turns() - turned, count / IN_A_TURN);
    println!(
        "{count} threads: {done} looks in {turns} turns; longest {:?} s",
        agent.metric("onset_loop_longest_turn_seconds")
    );
    // One that had begun before the first count may have done a part of its work by then.
    assert!(turns >= (done - 1.0) * parts as f64, "{done} looks at {count} threads in {turns} turns");
    assert_eq!(shown(&agent, &cgroup, "sleeping"), Some(count));
    drop(threads);
    await_that("their end", SOON, || (shown(&agent, &cgroup, "sleeping") == Some(0)).then_some(()));
    assert_eq!(agent.metric("onset_faults_total{tracer=\"dload\",fault=\"facts_missing\"}"), None);
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn every_thread_of_a_container_of_twenty_thousand_is_counted_and_no_turn_looks_at_all_of_them() {
    if root("a container of many threads") {
        every_thread_is_counted_in_small_parts("");
    }
}

#[test]
fn without_the_task_iterator_as_many_are_walked_over_on_a_thread_and_counted_in_small_parts() {
    if root("a walk over many threads") {
        let folder = Folder::new();
        every_thread_is_counted_in_small_parts(&format!("[paths]\nsys = \"{}\"\n", folder.0.display()));
    }
}
