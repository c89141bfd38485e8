//! Two processes that have a CPU each for themselves: one never stops, also before and after it is watched,
//! so that what it did is known only to those who ask at both ends; one sleeps half the time.

use std::sync::mpsc;
use std::time::Duration;

use crate::accounts::{Growth, Sched};
use crate::burns::{sampled, samples_of};
use crate::cgroup::Cgroup;
use crate::programs::{Worker, pinned};
use crate::rig::number;
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::Window;

const RAN: &str = "run time of a process that nothing interrupts";
const STEADY: &str = "CPU of a process that nothing interrupts: samples";
const HALF: &str = "CPU of a process that sleeps half the time: samples";

pub const ROWS: [Row; 3] = [
    row(STEADY, "its schedstat x 99 Hz", "samples", Bound::Percent(3.0)),
    row(HALF, "its schedstat x 99 Hz", "samples", Bound::Percent(3.0)),
    row(RAN, "its schedstat", "ms", Bound::Percent(3.0)),
];

const LASTING: Duration = Duration::from_secs(5);

/// From now on this thread, and what it starts, leaves all CPUs but the first to others.
fn keeps_to_the_first_cpu() {
    // SAFETY: an all-zero set is a valid one, and the kernel only reads it.
    let done = unsafe {
        let mut first: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut first);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const first)
    };
    assert_eq!(done, 0);
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    keeps_to_the_first_cpu();
    let cgroups = ["steady", "half"].map(Cgroup::new);
    cgroups.iter().for_each(|cgroup| window.known(cgroup));
    let [mut steady, mut half] = [0, 1].map(|place| {
        let mut burn = pinned(1 - place as u32, &window.stage.programs.burn);
        Worker::in_container(&cgroups[place], burn.arg(["all", "half"][place]), "burn")
    });
    steady.go(LASTING * 10);
    let half_before = Sched::of(half.pid());
    let (pid, (over, is_over)) = (steady.pid(), mpsc::channel());
    std::thread::scope(|scope| {
        let ran = scope.spawn(move || Growth::of(|| Sched::of(pid).ran, is_over));
        let waits = window.capture("waitrate", Some(&cgroups[0]), LASTING);
        let [of_steady, mut of_half] =
            cgroups.each_ref().map(|cgroup| window.capture("cpuidle", Some(cgroup), LASTING));
        half.go(window.begin());
        half.is_done();
        of_half.outlasts(window);
        let half_ran = Sched::of(half.pid()).since(half_before).ran;
        let (waits, of_steady, of_half) = (waits.event(), of_steady.event(), of_half.event());
        drop(over);
        let ran = ran.join().unwrap();
        let truth = ran.during(&waits).as_secs_f64() * 1000.0;
        vec![
            measured(RAN, number(&waits, "/tracer_data/run_ms"), truth),
            sampled(STEADY, samples_of(&of_steady, pid), ran.during(&of_steady)),
            sampled(HALF, samples_of(&of_half, half.pid()), half_ran),
        ]
    })
}
