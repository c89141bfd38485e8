//! Containers that wait for a CPU: for another container's sake, for their own, or for their quota's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, await_that, chance, command, done, lab, number, only, root, text};

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
struct Changed(PathBuf, String);

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, &self.1);
    }
}

/// Lets the folder of all these cgroups outweigh whatever else runs on this machine.
fn outweighing() -> Changed {
    let files =
        [("/sys/fs/cgroup/cpu/docker/cpu.shares", "262144"), ("/sys/fs/cgroup/docker/cpu.weight", "10000")];
    let (file, most) = files.into_iter().find(|(file, _)| Path::new(file).exists()).unwrap();
    let changed = Changed(file.into(), fs::read_to_string(file).unwrap());
    fs::write(file, most).unwrap();
    changed
}

/// Whether cgroups here tell their pressure (v2).
fn has_pressure() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// In microseconds: for how long any task of a cgroup has waited for a CPU, and how long they ran.
fn waited_and_ran(cgroup: &Cgroup) -> (f64, f64) {
    let number = |file: &str, before: &str| -> f64 {
        let text = fs::read_to_string(format!("/sys/fs/cgroup{}/{file}", cgroup.path())).unwrap();
        let (_, rest) = text.split_once(before).unwrap();
        rest.split_ascii_whitespace().next().unwrap().parse().unwrap()
    };
    (number("cpu.pressure", "total="), number("cpu.stat", "usage_usec "))
}

fn event_of(agent: &Agent, cgroup: &Cgroup, kind: &str) -> Value {
    let what = format!("an event of a container whose wait is {kind}");
    let event = agent.event(&what, LONG, |event| event["container_id"] == *cgroup.id);
    assert_eq!(text(&event, "/tracer_name"), "waitrate");
    assert_eq!(text(&event, "/tracer_data/warn_type"), kind, "{event:#}");
    assert!(number(&event, "/tracer_data/curr_waitrate") > number(&event, "/tracer_data/rel_waitrate_thres"));
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
    // Where it is the pressure that tells of a wait, nobody has looked into it.
    let cause = if has_pressure() { "unsplit" } else { "external" };
    await_that("a sample of it", LONG, || ratio(&agent, &weak, cause).filter(|ratio| *ratio > 0.5));
    // Its cost and its losses are shown, and the probes are not held to the budget for captures.
    assert_eq!(agent.metric("onset_lost_records_total{source=\"waits\"}"), Some(0.0));
    let shown = done(&mut agent.onset(&["show", text(&event, "/tracer_id")]));
    assert!(shown.contains(&weak.id), "{shown}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_container_that_is_in_its_own_way_is_told_so() {
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
fn a_container_that_its_quota_holds_back_is_told_so() {
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
fn who_asks_about_the_host_learns_who_waited_and_for_whom() {
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
fn where_cgroups_tell_their_pressure_that_is_the_source_and_no_run_queue_is_probed() {
    lab();
    let (strong, weak) = (Cgroup::new("strong"), Cgroup::new("weak"));
    weigh(&strong, 1024);
    weigh(&weak, 128);
    let agent = Agent::start(&only("waitrate", WATCHING));
    let _spinners = [strong.start(&mut spinner()), weak.start(&mut spinner())];
    event_of(&agent, &weak, "external");
    let before = waited_and_ran(&weak);
    await_that("a sample that says what the kernel says", LONG, || {
        let now = waited_and_ran(&weak);
        let (waited, ran) = (now.0 - before.0, now.1 - before.1);
        let told = ratio(&agent, &weak, "unsplit").filter(|told| *told > 0.5)?;
        ((waited / (waited + ran) - told).abs() < 0.1).then_some(())
    });
    let captures = |outcome: &str| {
        agent.metric(&format!("onset_captures_total{{tracer=\"waitrate\",outcome=\"{outcome}\"}}")).unwrap()
    };
    // One for each event, and probes would be captures too.
    assert_eq!(captures("done"), agent.metric("onset_events_total{tracer=\"waitrate\"}").unwrap());
    assert_eq!(agent.leave(), Some(0));
}
