//! Names of functions: programs of every kind, of which it is known where they are at all times, are
//! sampled, and perf(1) samples them beside it. A name that is not theirs is wrong; no name is not.

mod built;
mod perf;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{KillOnDrop, text};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;
pub use built::Built;
use built::Program;
use perf::Perf;

const WRONG: &str = "names of functions that are not the program's";
const HOT: &str = "samples in the function that burns";
const BESIDE: &str = "the same, of what perf can name";
const COMMS: &str = "names of processes that are not theirs";
const NAMED: &str = "frames of programs with a name";

pub const ROWS: [Row; 5] = [
    row(WRONG, "the programs' own symbols, and perf script on the same load", "names", Bound::Exact),
    row(HOT, "how the programs are made: all of them", "%", Bound::Percent(3.0)),
    row(BESIDE, "perf script on the same load", "%", Bound::Percent(3.0)),
    row(COMMS, "/proc/PID/comm at the end", "processes", Bound::Exact),
    row(NAMED, "perf script on the same load", "%", Bound::Shown),
];

const LASTING: Duration = Duration::from_secs(5);

/// A process of which perf has this many samples has some here, too, unless they are told of another.
const MANY: f64 = 20.0;

/// Nodes of a flame graph under one process's name: label and samples.
type Nodes<'v> = BTreeMap<&'v str, Vec<(&'v str, f64)>>;

fn by_comm(event: &Value) -> Nodes<'_> {
    let mut nodes = Nodes::new();
    let mut comm = "";
    for node in event["tracer_data"]["flamedata"].as_array().unwrap() {
        let label = text(node, "/label");
        if node["level"] == 1 {
            comm = label;
        }
        if node["level"].as_u64() > Some(0) {
            nodes.entry(comm).or_default().push((label, node["value"].as_f64().unwrap()));
        }
    }
    nodes
}

/// Whether a label of a frame is a name: not the kernel's, and neither unknown nor that of a file alone.
fn is_name(label: &str) -> bool {
    let file = label.starts_with("n_") || label.contains(".so");
    let function = label.contains("::");
    !label.ends_with("_[k]") && !label.starts_with('[') && !label.contains("+0x") && (function || !file)
}

/// Whether a label is that of a program's file, which is another's.
fn is_of_another(label: &str, comm: &str, built: &Built) -> bool {
    label != comm && built.of_comm(label).is_some()
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let built = &window.stage.programs.built;
    let cgroup = Cgroup::new("names");
    window.known(&cgroup);
    let perf = Perf::record(&built.folder, LASTING + Duration::from_secs(1));
    let asked = window.capture("cpuidle", Some(&cgroup), LASTING);
    window.begin();
    let began = Instant::now();
    let running: Vec<(&Program, KillOnDrop)> =
        built.started().map(|program| (program, cgroup.start(&mut program.command()))).collect();
    // They burn as long as the capture lasts; after that the CPUs are for those who find names.
    std::thread::sleep(LASTING.saturating_sub(began.elapsed()));
    for (_, program) in &running {
        // SAFETY: takes no pointers; the child is ours and not yet waited for.
        unsafe { libc::kill(program.0.id().cast_signed(), libc::SIGSTOP) };
    }
    let event = asked.event();
    let comms = comms(&event, &running);
    drop(running);
    let beside = perf.told();
    let nodes = by_comm(&event);
    let mut all = vec![measured(WRONG, wrong(built, &nodes, &beside), 0.0), measured(COMMS, comms, 0.0)];
    all.extend(shares(built, &nodes, &beside));
    all
}

/// Names of functions under a program's name that it has not, or that it never runs.
fn wrong(built: &Built, nodes: &Nodes<'_>, beside: &perf::PerfReport) -> f64 {
    let mut wrong = BTreeSet::new();
    for (comm, nodes) in nodes {
        // A shell, or a child of the test before its exec, is not a program of the table.
        let Some(program) = built.of_comm(comm) else { continue };
        for (label, _) in nodes.iter().skip(1) {
            let seen = beside.get(*comm).is_some_and(|it| it.names.contains(*label));
            let right = program.may_run(label) || seen || !is_name(label);
            if !right || is_of_another(label, comm, built) {
                wrong.insert((*comm, *label));
            }
        }
    }
    // Samples that are told of no such process are told of another.
    for (comm, _) in
        beside.iter().filter(|(comm, seen)| seen.samples >= MANY && built.of_comm(comm).is_some())
    {
        if !nodes.contains_key(&**comm) {
            wrong.insert((comm, "no samples"));
        }
    }
    for (comm, label) in &wrong {
        println!("WRONG NAME: {label} in {comm}");
    }
    wrong.len() as f64
}

/// Processes that are not told by the name that they have in the end.
fn comms(event: &Value, running: &[(&Program, KillOnDrop)]) -> f64 {
    let rows = event["tracer_data"]["top_processes"].as_array().unwrap();
    let wrong = running.iter().filter(|(program, child)| {
        let now = std::fs::read_to_string(format!("/proc/{}/comm", child.0.id())).unwrap();
        let mut told = rows.iter().filter(|row| row["pid"] == child.0.id()).map(|row| text(row, "/comm"));
        // One that got no CPU has no samples.
        if told.clone().next().is_none() {
            return false;
        }
        // One that was another program before may be told as both; all were this test before.
        let right = told.clone().any(|comm| comm == now.trim());
        let others = told.all(|comm| comm == now.trim() || comm == program.comm || !comm.starts_with("n_"));
        if !(right && others) {
            let rows: Vec<_> = rows.iter().filter(|row| row["pid"] == child.0.id()).collect();
            println!("WRONG COMM: {rows:?} for {}", now.trim());
        }
        !(right && others)
    });
    wrong.count() as f64
}

/// How many of the samples of these programs are where they burn, and how many frames have names.
fn shares(built: &Built, nodes: &Nodes<'_>, beside: &perf::PerfReport) -> Vec<Measured> {
    let (mut hot, mut all, mut hot_of_perf, mut all_of_perf, mut theirs, mut their_all) =
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    let (mut named, mut frames, mut named_beside, mut frames_beside) = (0.0, 0.0, 0.0, 0.0);
    for (comm, nodes) in nodes {
        let Some(program) = built.of_comm(comm) else { continue };
        let whole = nodes[0].1;
        let mine: f64 = nodes.iter().filter(|(label, _)| *label == program.hot).map(|(_, value)| value).sum();
        let user = nodes.iter().skip(1).filter(|(label, _)| !label.ends_with("_[k]"));
        for (label, value) in user {
            frames += value;
            named += if is_name(label) { *value } else { 0.0 };
        }
        let told = beside.get(*comm);
        (named_beside, frames_beside) = told
            .map_or((named_beside, frames_beside), |it| (named_beside + it.named, frames_beside + it.frames));
        if program.nameable {
            (hot, all) = (hot + mine, all + whole);
            println!("{comm}: {mine} of {whole} in {}", program.hot);
        }
        if let Some(told) = told.filter(|_| program.perf_names) {
            (hot_of_perf, all_of_perf) = (hot_of_perf + mine, all_of_perf + whole);
            (theirs, their_all) = (theirs + told.hot(program.hot), their_all + told.samples);
        }
    }
    let percent = |part: f64, whole: f64| 100.0 * part / whole;
    vec![
        measured(HOT, percent(hot, all), 100.0),
        measured(BESIDE, percent(hot_of_perf, all_of_perf), percent(theirs, their_all)),
        measured(NAMED, percent(named, frames), percent(named_beside, frames_beside)),
    ]
}
