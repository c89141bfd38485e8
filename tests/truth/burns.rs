//! Samples of a container whose processes burn CPU in different ways, some for a few milliseconds only,
//! against the CPU time that the kernel counted of it.

use std::time::Duration;

use serde_json::Value;

use crate::accounts::cpu_time;
use crate::cgroup::Cgroup;
use crate::programs::{Worker, pinned};
use crate::rig::number;
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{CAPTURE, Window};

pub const HZ: f64 = 99.0;

const WHOLE: &str = "CPU of a container whose processes come and go: samples";
const LOST: &str = "CPU of a container: samples lost";

pub const ROWS: [Row; 2] = [
    row(WHOLE, "cpuacct.usage x 99 Hz", "samples", Bound::Percent(3.0)),
    row(LOST, "none can be: the ring has room", "samples", Bound::Exact),
];

/// How many samples a process has.
pub fn samples_of(event: &Value, pid: u32) -> f64 {
    let all = event["tracer_data"]["top_processes"].as_array().unwrap();
    all.iter().filter(|row| row["pid"] == pid).map(|row| row["samples"].as_f64().unwrap()).sum()
}

/// What is said of CPU time, and what the kernel counted of it.
pub fn sampled(row: &'static str, said: f64, ran: Duration) -> Measured {
    let truth = ran.as_secs_f64() * HZ;
    measured(row, said, truth).of_samples(truth)
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let cgroup = Cgroup::new("burns");
    window.known(&cgroup);
    let mut workers = ["all", "half", "brief"].map(|way| {
        let mut burn = pinned(1, &window.stage.programs.burn);
        Worker::in_container(&cgroup, burn.arg(way), "burn")
    });
    let whole = cpu_time(cgroup.path());
    let mut asked = window.capture("cpuidle", Some(&cgroup), CAPTURE);
    let lasting = window.begin();
    workers.iter_mut().for_each(|worker| worker.go(lasting));
    workers.iter().for_each(Worker::is_done);
    let whole = cpu_time(cgroup.path()) - whole;
    asked.outlasts(window);
    let event = asked.event();
    vec![
        sampled(WHOLE, number(&event, "/tracer_data/samples"), whole),
        measured(LOST, number(&event, "/tracer_data/lost_samples"), 0.0),
    ]
}
