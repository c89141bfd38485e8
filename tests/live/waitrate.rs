//! Containers that wait for a CPU: for another container's sake, for their own, or for their quota's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, KillOnDrop, await_that, chance, command, done, lab, number, only, root, text};

const WATCHING: &str = "every = \"500ms\"\nprobe = \"500ms\"\nprobe_every = \"1s\"\ncapture = \"2s\"";

/// Two probes, a capture and time to spare.
const LONG: Duration = Duration::from_secs(40);

/// One that is never done, on the second CPU.
fn spinner() -> Command {
    let mut taskset = command("taskset");
    taskset.args(["-c", "1", "sh", "-c", "while :; do :; done"]);
    taskset
}

fn weigh(cgroup: &Cgroup, shares: u32) {
    // v2 counts from 1 to 10,000, 100 being usual, v1 from 2 to 262,144, 1024 being usual.
    let weight = (shares / 10).clamp(1, 10_000);
    let set = cgroup.write("cpu.shares", &shares.to_string());
    assert!(set || cgroup.write("cpu.weight", &weight.to_string()));
}

/// What is in this file now, put back when this is dropped.
struct SavedSetting(PathBuf, String);

impl Drop for SavedSetting {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, &self.1);
    }
}

/// Lets the folder of all these cgroups outweigh whatever else runs on this machine.
fn outweighing() -> SavedSetting {
    let files =
        [("/sys/fs/cgroup/cpu/docker/cpu.shares", "262144"), ("/sys/fs/cgroup/docker/cpu.weight", "10000")];
    let (file, most) = files.into_iter().find(|(file, _)| Path::new(file).exists()).unwrap();
    let changed = SavedSetting(file.into(), fs::read_to_string(file).unwrap());
    fs::write(file, most).unwrap();
    changed
}

/// In nanoseconds: how long these processes have run and have waited for a CPU.
fn run_and_waited(spinners: &[KillOnDrop]) -> (f64, f64) {
    let of = |spinner: &KillOnDrop| {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", spinner.0.id())).unwrap();
        let mut fields = text.split_ascii_whitespace().map(|field| field.parse::<f64>().unwrap());
        (fields.next().unwrap(), fields.next().unwrap())
    };
    spinners.iter().map(of).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// In nanoseconds: for how long any task of a cgroup has waited for a CPU.
fn pressure(cgroup: &Cgroup) -> f64 {
    let text = fs::read_to_string(format!("/sys/fs/cgroup{}/cpu.pressure", cgroup.path())).unwrap();
    let (_, rest) = text.split_once("total=").unwrap();
    rest.split_ascii_whitespace().next().unwrap().parse::<f64>().unwrap() * 1e3
}

fn event_of(agent: &Agent, cgroup: &Cgroup, kind: &str) -> Value {
    let what = format!("an event of a container whose wait is {kind}");
    let event = agent.event(&what, LONG, |event| event["container_id"] == *cgroup.id);
    assert_eq!(text(&event, "/tracer_name"), "waitrate");
    assert_eq!(text(&event, "/tracer_data/warn_type"), kind, "{event:#}");
    // A level that lasts is told of though it has become usual.
    let surge = text(&event, "/tracer_data/trigger") == "surge";
    let past = if surge { number(&event, "/tracer_data/rel_waitrate_thres") } else { 20.0 };
    assert!(number(&event, "/tracer_data/curr_waitrate") > past, "{event:#}");
    event
}

fn ratio(agent: &Agent, cgroup: &Cgroup, cause: &str) -> Option<f64> {
    let id = &cgroup.id;
    agent.metric(&format!(
        "onset_container_wait_ratio{{container_id=\"{id}\",container=\"\",pod=\"\",namespace=\"\",cause=\"{cause}\"}}"
    ))
}

#[test]
fn a_container_that_waits_for_another_names_it() {
    if !root("waitrate, external") {
        return;
    }
    let (strong, weak) = (Cgroup::new("strong"), Cgroup::new("weak"));
    let _outweighing = outweighing();
    weigh(&strong, 1024);
    weigh(&weak, 128);
    let agent = Agent::start(&only("waitrate", WATCHING));
    let _spinners = [strong.start(&mut spinner()), weak.start(&mut spinner())];
    let event = event_of(&agent, &weak, "external");
    assert!(number(&event, "/tracer_data/wait_percent") > 70.0, "{event:#}");
    assert!(number(&event, "/tracer_data/external_percent") > 90.0, "{event:#}");
    assert_eq!(text(&event, "/tracer_data/interferer_list/0/container_id"), strong.id, "{event:#}");
    assert_eq!(text(&event, "/tracer_data/interferer_list/0/cgroup_path"), strong.path());
    let duration = number(&event, "/tracer_data/duration_ms");
    assert!((2000.0..3000.0).contains(&duration), "{event:#}");
    // Caught without a baseline it says so, and names no mean. A slow machine may have one by then.
    let known = number(&event, "/tracer_data/baseline_samples") >= 10.0;
    assert!(known || text(&event, "/tracer_data/trigger") == "sustained", "{event:#}");
    assert_eq!(text(&event, "/tracer_data/baseline"), if known { "history" } else { "none" }, "{event:#}");
    assert_eq!(event["tracer_data"].get("mean").is_some(), known, "{event:#}");
    assert_eq!(text(&event, "/tracer_data/source"), "probe", "{event:#}");
    await_that("a sample of it", LONG, || ratio(&agent, &weak, "external").filter(|ratio| *ratio > 0.5));
    // Its cost and its losses are shown, and the probes are not held to the budget for captures.
    assert_eq!(agent.metric("onset_lost_records_total{source=\"waits\"}"), Some(0.0));
    let shown = done(&mut agent.onset(&["show", text(&event, "/tracer_id")]));
    assert!(shown.contains(&weak.id), "{shown}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_container_that_waits_for_its_own_tasks_is_reported_as_inner() {
    if !root("waitrate, inner") {
        return;
    }
    let crowded = Cgroup::new("crowded");
    let _outweighing = outweighing();
    let agent = Agent::start(&only("waitrate", WATCHING));
    let _spinners = [(); 3].map(|()| crowded.start(&mut spinner()));
    let event = event_of(&agent, &crowded, "inner");
    assert!(number(&event, "/tracer_data/inner_percent") > 70.0, "{event:#}");
}

#[test]
fn a_container_held_back_by_its_quota_is_reported_as_throttled() {
    if !root("waitrate, throttled") {
        return;
    }
    let limited = Cgroup::new("limited");
    limited.quota(20);
    let _outweighing = outweighing();
    let agent = Agent::start(&only("waitrate", WATCHING));
    let _spinner = limited.start(&mut spinner());
    let event = event_of(&agent, &limited, "throttled");
    assert!(number(&event, "/tracer_data/throttled_percent") > 88.0 * (1.0 - chance()), "{event:#}");
    let throttled = format!(
        "onset_container_throttled_seconds_total{{container_id=\"{}\",container=\"\",pod=\"\",namespace=\"\"}}",
        limited.id
    );
    assert!(agent.metric(&throttled).is_some_and(|seconds| seconds > 1.0));
}

#[test]
fn a_manual_waitrate_of_the_host_names_waiters_and_interferers() {
    if !root("waitrate, asked") {
        return;
    }
    let (one, other) = (Cgroup::new("one"), Cgroup::new("other"));
    let _outweighing = outweighing();
    let agent = Agent::start(&only("waitrate", "probe_every = \"1h\""));
    let _spinners = [one.start(&mut spinner()), other.start(&mut spinner())];
    let id = done(&mut agent.onset(&["trigger", "waitrate", "--seconds", "2"]));
    let event = agent.event("what was asked for", LONG, |event| event["tracer_id"] == id.trim());
    assert_eq!(text(&event, "/tracer_type"), "manual");
    for list in ["waiters", "interferer_list"] {
        let rows = event["tracer_data"][list].as_array().unwrap();
        for container in [&one, &other] {
            let row = rows.iter().find(|row| row["container_id"] == *container.id);
            let ms = row.and_then(|row| row["wait_ms"].as_f64());
            assert!(ms.is_some_and(|ms| (300.0..2500.0).contains(&ms)), "{list}: {event:#}");
        }
    }
}

#[test]
#[ignore = "it wants cgroup v2 with its controllers: `make lab` runs it in VMs"]
fn a_containers_cpu_pressure_starts_a_probe_that_sums_its_tasks_waits() {
    lab();
    let crowd = Cgroup::new("crowd");
    let agent = Agent::start(&only("waitrate", WATCHING));
    let captures = || agent.metric("onset_captures_total{tracer=\"waitrate\",outcome=\"done\"}").unwrap();
    let told = || {
        let causes = ["inner", "external", "throttled", "unheld", "unsplit"];
        causes.iter().map(|cause| ratio(&agent, &crowd, cause)).sum::<Option<f64>>()
    };
    await_that("the probe at the start, and a sample", LONG, &told);
    let idle = captures();
    let looks = || agent.metric("onset_samples_total{tracer=\"waitrate\"}").unwrap();
    let before = looks();
    await_that("some looks", LONG, || (looks() > before + 8.0).then_some(()));
    assert_eq!(captures(), idle, "while its pressure says that nobody waits no run queue is probed");

    // Two for each of two CPUs: some task waits all the time, and two run.
    let spinners = ["0", "0", "1", "1"]
        .map(|cpu| crowd.start(command("taskset").args(["-c", cpu, "sh", "-c", "while :; do :; done"])));
    // Whether it is more in its own way or in that of the emulated machine's own work, who can say.
    let event = agent.event("its event", LONG, |event| event["container_id"] == *crowd.id);
    assert_eq!(text(&event, "/tracer_data/source"), "probe", "{event:#}");
    assert!(number(&event, "/tracer_data/pressure_percent") > 50.0, "{event:#}");
    let (ran, waited, stalled) = {
        let (before, stalled) = (run_and_waited(&spinners), pressure(&crowd));
        let looked = looks();
        await_that("some more looks", LONG, || (looks() > looked + 8.0).then_some(()));
        let now = run_and_waited(&spinners);
        (now.0 - before.0, now.1 - before.1, pressure(&crowd) - stalled)
    };
    let truth = waited / (waited + ran);
    assert!(truth - stalled / (stalled + ran) > 0.05, "that is no number of pressure: {truth}");
    await_that("a sample that says what its tasks' schedstat says", LONG, || {
        told().filter(|told| (told - truth).abs() < 0.05)
    });
    assert_eq!(agent.leave(), Some(0));
}
