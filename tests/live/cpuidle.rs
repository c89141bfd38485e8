//! A container's CPU surge: spinners whose functions have names, under a quota.

use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Folder, SOON, await_that, chance, command, compile, done, number, only, root, text};

/// A program that spends its time in one function, which has this name; once someone opens the
/// pipe that it is told, if it is told one.
pub fn spinner(folder: &Folder, function: &str) -> std::path::PathBuf {
    let source = format!(
        "#include <fcntl.h>\n\
         volatile unsigned long sink;\n\
         __attribute__((noinline)) void {function}(void) {{ for (unsigned long i = 0; i < 100000000UL; i++) sink += i; }}\n\
         int main(int argc, char **argv) {{\n\
         if (argc > 1) open(argv[1], O_RDONLY);\n\
         for (;;) {function}(); }}\n"
    );
    compile(folder, function, &source)
}

/// The share of samples in frames of this label.
pub fn share(event: &Value, label: &str) -> f64 {
    let flame = event["tracer_data"]["flamedata"].as_array().unwrap();
    let of = |node: &Value| node["value"].as_f64().unwrap();
    let all = flame.first().map_or(0.0, of);
    let named: f64 = flame.iter().filter(|node| node["label"] == label).map(of).sum();
    named / all
}

#[test]
fn a_spinner_at_its_quota_is_reported_with_its_function_and_without_neighbours() {
    if !root("a spinner") {
        return;
    }
    let folder = Folder::new();
    let (mine, other) = (Cgroup::new("mine"), Cgroup::new("other"));
    mine.quota(50);
    other.quota(30);
    let _other = other.start(&mut command(spinner(&folder, "neighbour_burns")));
    // The neighbour is at its quota from the start, so it never rises; it would be sustained later.
    let agent = Agent::start(&only(
        "cpuidle",
        // Whichever way two samples share the rise, one of them has this much of it.
        "every = \"1s\"\ncapture = \"3s\"\nsustained_samples = 0\ncooldown = \"1h\"\nuser_rise = 28\ntotal_rise = 28",
    ));
    let samples = || agent.metric("onset_samples_total{tracer=\"cpuidle\"}").unwrap();
    let go = folder.0.join("go");
    done(command("mkfifo").arg(&go));
    let spinner = mine.start(command(spinner(&folder, "burn_here")).arg(&go));
    await_that("the spinner", SOON, || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", spinner.0.id())).unwrap();
        (name.trim() == "burn_here").then_some(())
    });
    // Right after a sample: a rise that two samples share is none.
    let before = samples().max(2.0);
    await_that("the next sample", SOON, || (samples() > before).then_some(()));
    drop(std::fs::File::options().write(true).open(&go).unwrap());
    let event = agent.event("the spinner's event", SOON, |event| event["container_id"] == mine.id.as_str());
    assert_eq!(text(&event, "/tracer_name"), "cpuidle");
    assert_eq!(text(&event, "/tracer_data/trigger"), "surge");
    assert_eq!(number(&event, "/tracer_data/capacity_cores"), 0.5);
    // Of half a core: the spinner has all of it. A period of the quota may fall into the next sample.
    let percent = number(&event, "/tracer_data/total_percent");
    assert!((75.0..125.0).contains(&percent), "{percent} % of half a core");
    assert!(share(&event, "burn_here") > 0.8, "{event:#}");
    assert_eq!(share(&event, "neighbour_burns"), 0.0);
    let samples = number(&event, "/tracer_data/samples");
    // 99 Hz for 3 s of half a core.
    assert!((75.0 * (1.0 - chance())..230.0).contains(&samples), "{samples} samples");
    assert_eq!(text(&event, "/tracer_data/top_processes/0/comm"), "burn_here");
    assert!(agent.events().iter().all(|event| event["container_id"] == mine.id.as_str()), "one container");
    assert_eq!(agent.events().len(), 1);
    flames(&agent, &event, &folder);
    assert_eq!(agent.leave(), Some(0));
}

/// What people make of the event.
fn flames(agent: &Agent, event: &Value, folder: &Folder) {
    let id = text(event, "/tracer_id");
    let folded = done(&mut agent.onset(&["flame", id, "--format", "folded"]));
    assert!(folded.lines().any(|line| line.contains(";main;burn_here ")), "{folded}");
    let speedscope: Value =
        serde_json::from_str(&done(&mut agent.onset(&["flame", id, "--format", "speedscope"]))).unwrap();
    assert_eq!(speedscope["$schema"], "https://www.speedscope.app/file-format-schema.json");
    let picture = folder.0.join("flame.svg");
    done(agent.onset(&["flame", id, "-o"]).arg(&picture));
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.contains("<svg") && picture.contains("burn_here"));
    let shown = done(&mut agent.onset(&["show", id]));
    assert!(shown.contains("burn_here") && shown.contains(&id[..8]), "{shown}");
    let listed = done(&mut agent.onset(&["events", "--tracer", "cpuidle"]));
    assert!(listed.lines().count() == 1 && listed.contains("surge"), "{listed}");
}

#[test]
fn a_program_whose_file_is_deleted_is_still_named() {
    if !root("a deleted program") {
        return;
    }
    let folder = Folder::new();
    let cgroup = Cgroup::new("deleted");
    let agent = Agent::start(&only("cpuidle", "every = \"1h\""));
    let binary = spinner(&folder, "gone_but_named");
    let spinner = cgroup.start(&mut command(&binary));
    let mut trigger = agent.onset(&["trigger", "cpuidle", "--container", &cgroup.id, "--seconds", "3"]);
    let waiting = std::thread::spawn(move || done(&mut trigger));
    await_that("the capture", SOON, || {
        let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
        (status["captures_open"] == 1).then_some(())
    });
    std::fs::remove_file(&binary).unwrap();
    // It may end before its capture does, too.
    std::thread::sleep(Duration::from_millis(1500));
    drop(spinner);
    let id = waiting.join().unwrap();
    let event = agent.event("the event", SOON, |event| event["tracer_id"] == id.trim());
    assert_eq!(text(&event, "/tracer_type"), "manual");
    assert!(share(&event, "gone_but_named") > 0.8, "{event:#}");
}
