//! Tasks in D state: writers to a frozen filesystem, in cgroups that look like containers.

use std::time::Duration;

use onset::clock::Wall;
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::frozen::Disk;
use crate::rig::{Agent, SOON, apart, await_that, command, number, only, root, start, text};

const WRITERS: u32 = 8;

fn wall(event: &Value, path: &str) -> u64 {
    Wall::parse(text(event, path)).unwrap_or_else(|| panic!("{path} in {event:#}")).0
}

/// Writers that are stuck: the pid of each, and the moment when it was seen to be.
fn stuck(disk: &mut Disk, cgroup: &Cgroup, word: &str) -> Vec<(u32, u64)> {
    (0..WRITERS).map(|number| disk.stick(cgroup, &format!("{word}{number}"))).collect()
}

#[test]
fn stuck_writers_make_one_event_for_each_container_and_none_for_a_neighbour() {
    if !root("stuck writers") {
        return;
    }
    // Before the disk: it is thawed, and then they are emptied.
    let (one, two, idle) = (Cgroup::new("one"), Cgroup::new("two"), Cgroup::new("idle"));
    let mut disk = Disk::new();
    let _sleeper = idle.start(command("sleep").arg("600"));
    // 8 tasks bring a load average with a time constant of 60 s to 1.0 after 60 ln(8/7) = 8.0 s.
    let agent = Agent::start(&only(
        "dload",
        "every = \"1s\"\nload = 1.0\nstuck = \"10m\"\ncooldown = \"8s\"\ncapture = \"1s\"\nsustained_samples = 3",
    ));
    disk.freeze();
    let first = stuck(&mut disk, &one, "one");
    let second = stuck(&mut disk, &two, "two");
    let of = |cgroup: &Cgroup| {
        let id = cgroup.id.clone();
        move |event: &Value| event["container_id"] == id.as_str()
    };
    for (cgroup, writers) in [(&one, &first), (&two, &second)] {
        let event = agent.event("an event of the writers' container", Duration::from_secs(40), of(cgroup));
        let seen = || writers.iter().map(|(_, seen)| *seen + 8012);
        let fired = wall(&event, "/tracer_time");
        // The samples lie on a phase of their own, and the writers did not get stuck all at once.
        let (first, last) = (seen().min().unwrap() - 1200, seen().max().unwrap() + 3000);
        assert!((first..=last).contains(&fired), "fired {fired}, from {first} to {last} is right");
        assert_eq!(text(&event, "/tracer_name"), "dload");
        assert_eq!(text(&event, "/tracer_type"), "autotracing");
        assert_eq!(text(&event, "/tracer_data/trigger"), "surge");
        assert_eq!(text(&event, "/cgroup_path"), cgroup.path());
        assert_eq!(number(&event, "/tracer_data/nr_uninterruptible"), 8.0);
        assert!((1.0..2.0).contains(&number(&event, "/tracer_data/dload_avg")));
        let tasks = event["tracer_data"]["tasks"].as_array().unwrap();
        let mut named: Vec<_> = tasks.iter().map(|task| task["pid"].as_u64().unwrap()).collect();
        let mut true_pids: Vec<_> = writers.iter().map(|(pid, _)| u64::from(*pid)).collect();
        named.sort_unstable();
        true_pids.sort_unstable();
        assert_eq!(named, true_pids);
        for task in tasks {
            assert_eq!((text(task, "/comm"), text(task, "/state")), ("sh", "D"));
            let frames = task["stack"].as_array().unwrap();
            let waits = ["percpu_rwsem_wait", "__percpu_down_read", "sb_start_write", "mnt_want_write"];
            assert!(
                frames.iter().any(|frame| waits.iter().any(|wait| text(frame, "").contains(wait))),
                "{task:#}"
            );
            let (_, seen) = writers.iter().find(|(pid, _)| task["pid"] == *pid).unwrap();
            // The look is at once when the rule fires; naming what it saw takes longer.
            let since = fired - number(task, "/blocked_ms") as u64;
            assert!(since.abs_diff(*seen) <= apart(), "stuck since {since}, seen so at {seen}");
        }
        assert!(text(&event, "/tracer_data/stack").contains("sh"), "{event:#}");
    }
    // The cooldown holds; after it the level, which held, is told as sustained.
    let again = |event: &Value| of(&one)(event) && text(event, "/tracer_data/trigger") == "sustained";
    let sustained = agent.event("a sustained event", Duration::from_secs(30), again);
    let events: Vec<_> = agent.events().into_iter().filter(of(&one)).collect();
    let quiet = wall(&sustained, "/tracer_time") - wall(&events[0], "/time");
    assert!(quiet >= 7900, "{quiet} ms after the first");
    assert_eq!(text(&events[1], "/tracer_data/trigger"), "sustained", "and nothing between them");
    assert!(!agent.events().iter().any(of(&idle)), "the idle neighbour");
    disk.thaw();
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_task_blocked_for_long_is_an_event_though_the_load_is_low() {
    if !root("a blocked task") {
        return;
    }
    let cgroup = Cgroup::new("stuck");
    let mut disk = Disk::new();
    let agent = Agent::start(&only("dload", "every = \"1s\"\nstuck = \"3s\"\nsustained_samples = 0"));
    disk.freeze();
    disk.stick(&cgroup, "file");
    let event = agent.event("an event", SOON, |event| event["container_id"] == cgroup.id.as_str());
    assert_eq!(text(&event, "/tracer_data/trigger"), "stuck");
    let blocked = number(&event, "/tracer_data/tasks/0/blocked_ms");
    assert!((3000.0..6000.0).contains(&blocked), "{blocked}");
    disk.thaw();
}

#[test]
fn io_pressure_makes_dload_sample_before_its_interval() {
    if !root("pressure") {
        return;
    }
    let disk = Disk::new();
    let agent = Agent::start(&only("dload", "every = \"1h\""));
    let samples = || agent.metric("onset_samples_total{tracer=\"dload\"}").unwrap();
    assert_eq!(samples(), 1.0, "the next would be in an hour");
    let _load = start(
        command("stress-ng")
            .args([
                "--hdd",
                "4",
                "--hdd-opts",
                "sync,wr-rnd",
                "--hdd-bytes",
                "8m",
                "-t",
                "60",
                "-q",
                "--temp-path",
            ])
            .arg(disk.path()),
    );
    await_that("an early look", SOON * 3, || (samples() >= 2.0).then_some(()));
}
