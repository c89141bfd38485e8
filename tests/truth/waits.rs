//! Containers that wait for a CPU, against what the kernel counted of their processes.

use serde_json::Value;

use crate::accounts::{Sched, cpu_time, throttled_time};
use crate::burns::sampled;
use crate::cgroup::Cgroup;
use crate::programs::{Worker, pinned};
use crate::rig::number;
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{CAPTURE, Window};

const WAITED: &str = "wait of a container for a CPU";
const RAN: &str = "run time of a container that waits";
const INTERFERER: &str = "wait for another container's sake";
const SAMPLES: &str = "CPU of a container that has most of a CPU: samples";
const HELD_BACK: &str = "time that a quota held a container back";
const LIMITED_RAN: &str = "run time of a container at its quota";

pub const ROWS: [Row; 6] = [
    row(SAMPLES, "cpuacct.usage x 99 Hz", "samples", Bound::Percent(3.0)),
    row(WAITED, "schedstat of its process", "ms", Bound::Percent(3.0)),
    row(RAN, "schedstat of its process", "ms", Bound::Percent(3.0)),
    row(INTERFERER, "cpuacct.usage of the other; unsplit time may be its", "ms", Bound::Percent(3.0)),
    row(HELD_BACK, "throttled time of cpu.stat", "ms", Bound::Percent(5.0)),
    row(LIMITED_RAN, "cpuacct.usage", "ms", Bound::Percent(3.0)),
];

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn weigh(cgroup: &Cgroup, shares: u32) {
    let set = cgroup.write("cpu.shares", &shares.to_string());
    assert!(set || cgroup.write("cpu.weight", &(shares / 10).to_string()));
}

/// How long one in a list of containers waited, or was waited for.
fn listed(event: &Value, list: &str, cgroup: &Cgroup) -> f64 {
    let rows = event["tracer_data"][list].as_array().unwrap();
    rows.iter()
        .filter(|row| row["container_id"] == *cgroup.id)
        .map(|row| row["wait_ms"].as_f64().unwrap())
        .sum()
}

/// For how long the document blames a container. What it says it could not split (waits too short or too long
/// ago to look into) may be that one's, too: as far as it makes up for the truth it is no error.
fn blamed(event: &Value, interferer: &Cgroup, truth: f64) -> f64 {
    let (said, data) = (listed(event, "interferer_list", interferer), &event["tracer_data"]);
    let unsplit = data["unsplit_percent"].as_f64().unwrap() / 100.0 * data["wait_ms"].as_f64().unwrap();
    println!("blamed for {said} ms of {truth:.0}; {unsplit:.0} ms are unsplit");
    said.max(truth.min(said + unsplit))
}

/// Two on one CPU, 8 to 1.
pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let (strong, weak) = (Cgroup::new("strong"), Cgroup::new("weak"));
    weigh(&strong, 1024);
    weigh(&weak, 128);
    let mut workers = [&strong, &weak].map(|cgroup| {
        window.known(cgroup);
        let mut burn = pinned(0, &window.stage.programs.burn);
        Worker::in_container(cgroup, burn.arg("all"), "burn")
    });
    let before = workers.each_ref().map(|worker| Sched::of(worker.pid()));
    let used = cpu_time(strong.path());
    let asked = [("waitrate", &weak), ("cpuidle", &strong)];
    let mut asked = asked.map(|(tracer, cgroup)| window.capture(tracer, Some(cgroup), CAPTURE));
    let lasting = window.begin();
    workers.iter_mut().for_each(|worker| worker.go(lasting));
    workers.iter().for_each(Worker::is_done);
    let used = cpu_time(strong.path()) - used;
    let spent = [0, 1].map(|place| Sched::of(workers[place].pid()).since(before[place]));
    asked.iter_mut().for_each(|asked| asked.outlasts(window));
    let [of_weak, samples] = asked.map(|asked| asked.event());
    let told = |event: &Value, name: &str| number(event, &format!("/tracer_data/{name}"));
    vec![
        sampled(SAMPLES, told(&samples, "samples"), used),
        measured(WAITED, told(&of_weak, "wait_ms"), ms(spent[1].waited)),
        measured(RAN, told(&of_weak, "run_ms"), ms(spent[1].ran)),
        // The weak one wants to run all the time: while the other has the CPU, it waits for it.
        measured(INTERFERER, blamed(&of_weak, &strong, ms(used)), ms(used)),
    ]
}

/// One that may have a fifth of a CPU.
pub fn throttled(window: &Window<'_>) -> Vec<Measured> {
    let limited = Cgroup::new("limited");
    limited.quota(20);
    window.known(&limited);
    let mut burn = pinned(1, &window.stage.programs.burn);
    let mut worker = Worker::in_container(&limited, burn.arg("all"), "burn");
    let (used, held) = (cpu_time(limited.path()), throttled_time(&limited));
    let mut asked = window.capture("waitrate", Some(&limited), CAPTURE);
    worker.go(window.begin());
    worker.is_done();
    let (used, held) = (cpu_time(limited.path()) - used, throttled_time(&limited) - held);
    asked.outlasts(window);
    let event = asked.event();
    let share = number(&event, "/tracer_data/throttled_percent") / 100.0;
    vec![
        measured(HELD_BACK, share * number(&event, "/tracer_data/wait_ms"), ms(held)),
        measured(LIMITED_RAN, number(&event, "/tracer_data/run_ms"), ms(used)),
    ]
}
