//! Tasks that a frozen filesystem holds: how many, for how long, and where in the kernel they are.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::frozen::Disk;
use crate::rig::{KillOnDrop, Lines, SOON, await_that, command, number};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;

const COUNT: &str = "blocked tasks of a container";
const BLOCKED: &str = "for how long a task is blocked";
const FRAMES: &str = "frames of blocked tasks that are not theirs";
const CONTAINER: &str = "blocked tasks told of another container, or of none";

pub const ROWS: [Row; 4] = [
    row(COUNT, "their number", "tasks", Bound::Exact),
    row(
        BLOCKED,
        "each task's own clock, read before it wrote to a frozen filesystem; all were looked at at once",
        "ms",
        Bound::Within(100.0),
    ),
    row(FRAMES, "/proc/PID/stack", "frames", Bound::Exact),
    row(CONTAINER, "the container that it was started in", "tasks", Bound::Exact),
];

const TASKS: usize = 4;

/// One that is stuck, and since when, in milliseconds since 1970.
struct Stuck {
    child: KillOnDrop,
    since: f64,
}

fn stick(window: &Window<'_>, cgroup: &Cgroup, disk: &Disk, number: usize) -> Stuck {
    let mut stick = command(&window.stage.programs.stick);
    stick.arg(disk.path().join(format!("file{number}"))).stdout(Stdio::piped());
    let mut child = cgroup.start(&mut stick);
    let said = Lines::of(child.0.stdout.take().unwrap());
    let since = said.wait("a time", SOON, |line| line.parse().ok());
    let pid = child.0.id();
    await_that("a task in D state", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.contains("(stick) D ").then_some(())
    });
    Stuck { child, since }
}

/// Names of functions, without their offsets.
fn names<'t>(frames: impl Iterator<Item = &'t str>) -> Vec<String> {
    frames.map(|frame| frame.split('+').next().unwrap().to_owned()).collect()
}

/// Where the kernel says that it is.
fn stack_of(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap();
    names(text.lines().map(|line| line.split_once("] ").unwrap().1))
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    // Before the disk: it is thawed, and then they are gone.
    let cgroup = Cgroup::new("blocked");
    let mut disk = Disk::new();
    window.known(&cgroup);
    window.begin();
    disk.freeze();
    let stuck: Vec<Stuck> = (0..TASKS)
        .map(|number| {
            let one = stick(window, &cgroup, &disk, number);
            // What is measured is time.
            std::thread::sleep(Duration::from_millis(800));
            one
        })
        .collect();
    let asked = now_ms();
    let one = window.capture("dload", Some(&cgroup), Duration::from_secs(1)).event();
    let answered = now_ms();
    let host = window.capture("dload", None, Duration::from_secs(1)).event();
    let mut all = of_each(&one, &stuck, asked, answered);
    let strangers = stuck.iter().filter(|stuck| {
        let told = task(&host, stuck.child.0.id());
        told.is_none_or(|told| told["container_id"] != *cgroup.id)
    });
    all.push(measured(CONTAINER, strangers.count() as f64, 0.0));
    disk.thaw();
    all
}

/// Milliseconds since 1970.
fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

fn task(event: &Value, pid: u32) -> Option<&Value> {
    event["tracer_data"]["tasks"].as_array().unwrap().iter().find(|task| task["pid"] == pid)
}

/// What is told of each, in a document that was asked for and answered at these times. All were looked at
/// at one moment in between: the one that most of them tell.
fn of_each(event: &Value, stuck: &[Stuck], asked: f64, answered: f64) -> Vec<Measured> {
    let tasks = event["tracer_data"]["tasks"].as_array().unwrap();
    let blocked = |stuck: &Stuck| Some(number(task(event, stuck.child.0.id())?, "/blocked_ms"));
    let mut looked: Vec<f64> = stuck.iter().filter_map(|one| Some(one.since + blocked(one)?)).collect();
    looked.sort_by(f64::total_cmp);
    let at = looked.get(looked.len() / 2).map_or(asked, |at| at.clamp(asked, answered));
    let mut all = vec![measured(COUNT, tasks.len() as f64, stuck.len() as f64)];
    let mut wrong = 0.0;
    for Stuck { child, since } in stuck {
        let pid = child.0.id();
        let Some(told) = task(event, pid) else { continue };
        all.push(measured(BLOCKED, number(told, "/blocked_ms"), at - since));
        let said = names(told["stack"].as_array().unwrap().iter().map(|frame| frame.as_str().unwrap()));
        let truth = stack_of(pid);
        wrong += said.iter().filter(|frame| !truth.contains(frame)).count() as f64;
        assert!(!said.is_empty(), "no stack: {told:#}");
    }
    all.push(measured(FRAMES, wrong, 0.0));
    all
}
