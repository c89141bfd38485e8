//! Two processes that have a CPU each for themselves: one never stops, also before and after it is watched,
//! so that what it did is known only to those who ask at both ends; one sleeps half the time.

use std::time::{Duration, Instant};

use crate::accounts::Sched;
use crate::burns::{HZ, sampled, samples_of};
use crate::cgroup::Cgroup;
use crate::programs::{Worker, pinned};
use crate::rig::number;
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{Window, lasted};

const RAN: &str = "run time of a process that nothing interrupts";
const STEADY: &str = "CPU of a process that nothing interrupts: samples";
const HALF: &str = "CPU of a process that sleeps half the time: samples";

pub const ROWS: [Row; 3] = [
    row(STEADY, "its schedstat x 99 Hz", "samples", Bound::Percent(3.0)),
    row(HALF, "its schedstat x 99 Hz", "samples", Bound::Percent(3.0)),
    row(RAN, "its schedstat", "ms", Bound::Percent(3.0)),
];

const LASTING: Duration = Duration::from_secs(5);

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let cgroups = ["steady", "half"].map(Cgroup::new);
    cgroups.iter().for_each(|cgroup| window.known(cgroup));
    let [mut steady, mut half] = [0, 1].map(|place| {
        let mut burn = pinned(1 - place as u32, &window.stage.programs.burn);
        Worker::in_container(&cgroups[place], burn.arg(["all", "half"][place]), "burn")
    });
    steady.go(LASTING * 10);
    let (before, began) = (Sched::of(steady.pid()), Instant::now());
    let half_before = Sched::of(half.pid());
    let waits = window.capture("waitrate", Some(&cgroups[0]), LASTING);
    let [of_steady, mut of_half] =
        cgroups.each_ref().map(|cgroup| window.capture("cpuidle", Some(cgroup), LASTING));
    half.go(window.begin());
    half.is_done();
    of_half.outlasts(window);
    let half_ran = Sched::of(half.pid()).since(half_before).ran;
    let (waits, of_steady, of_half) = (waits.event(), of_steady.event(), of_half.event());
    let ran = Sched::of(steady.pid()).since(before).ran;
    // It ran all the time, so what it ran in a part of it is known.
    let share = ran.as_secs_f64() / began.elapsed().as_secs_f64();
    let expected = share * lasted(&of_steady) * HZ;
    let samples = measured(STEADY, samples_of(&of_steady, steady.pid()), expected);
    vec![
        measured(RAN, number(&waits, "/tracer_data/run_ms"), share * lasted(&waits) * 1000.0),
        // Each of its ends may fall on either side of a sample.
        Measured { chance: 100.0 / expected, ..samples },
        sampled(HALF, samples_of(&of_half, half.pid()), half_ran),
    ]
}
