//! Anonymous memory of the host and of a container, against what all processes have of it, each page
//! shared out among those who map it. Some of it is locked, and beside it lie files in memory, which are
//! something else.

use std::fs;
use std::process::Stdio;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Lines, SOON, await_that, command};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;

const HOST: &str = "anonymous memory of the host";
const CONTAINER: &str = "anonymous memory of a container";

pub const ROWS: [Row; 2] = [
    row(HOST, "Pss_Anon of all processes' smaps_rollup", "bytes", Bound::Percent(3.0)),
    row(CONTAINER, "Pss_Anon of its processes", "bytes", Bound::Percent(2.0)),
];

/// Anonymous memory of one process, its share of what it has together with others. It may be gone.
fn anonymous(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn of_host() -> u64 {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter_map(|pid| anonymous(&pid)).sum()
}

fn shown(agent: &Agent, family: &str, label: &str) -> Option<f64> {
    let page = agent.get("/metrics").1;
    let line = page.lines().find(|line| line.starts_with(family) && line.contains(label))?;
    line.rsplit(' ').next()?.parse().ok()
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let cgroup = Cgroup::new("memory");
    window.known(&cgroup);
    let agent = &window.stage.agent;
    let programs = &window.stage.programs;
    let mut children = [("private", "192"), ("locked", "96"), ("shared", "64")].map(|(kind, mib)| {
        let mut eater = command(&programs.eat);
        cgroup.start(eater.args([mib, kind]).stdout(Stdio::piped()))
    });
    for child in &mut children {
        let said = Lines::of(child.0.stdout.take().unwrap());
        said.wait("word that it has its memory", SOON, |line| (line == "done").then_some(()));
    }
    window.begin();
    let samples = || agent.metric("onset_samples_total{tracer=\"memburst\"}").unwrap();
    let before = samples();
    // The first may have begun to read before.
    await_that("samples of it", SOON, || (samples() >= before + 2.0).then_some(()));
    let host = agent.metric("onset_host_memory_anon_bytes").unwrap();
    let container = shown(agent, "onset_container_memory_anon_bytes{", &cgroup.id).unwrap();
    let own: u64 = children.iter().filter_map(|child| anonymous(&child.0.id().to_string())).sum();
    vec![measured(HOST, host, of_host() as f64), measured(CONTAINER, container, own as f64)]
}
