//! The whole host: samples of all that ran, against the CPU time of all; the share of the kernel's time
//! that is told, against /proc/stat; how long a capture lasted, against the clock on the wall.

use std::time::{Duration, Instant};

use crate::accounts::{cpu_time, host_ticks};
use crate::burns::sampled;
use crate::rig::{SOON, await_that, number};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{CAPTURE, Window};

const SAMPLES: &str = "CPU of the host: samples and lost samples";
const SYSTEM: &str = "share of time in the kernel";
const DURATION: &str = "how long a capture lasted";

pub const ROWS: [Row; 3] = [
    row(SAMPLES, "cpuacct.usage of the root cgroup x 99 Hz", "samples", Bound::Percent(3.0)),
    row(SYSTEM, "/proc/stat, read beside it", "%", Bound::Percent(3.0)),
    row(DURATION, "a clock, from the question to the answer", "ms", Bound::Percent(5.0)),
];

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let (whole, began) = (cpu_time("/"), Instant::now());
    let mut asked = window.capture("cpusys", None, CAPTURE);
    window.begin();
    let (said, truth) = system(window);
    // Its end is a time. The loads are over by then, so that a moment more or less is next to nothing.
    std::thread::sleep((began + CAPTURE).saturating_duration_since(Instant::now()));
    let ran = cpu_time("/") - whole;
    let answered = asked.answer();
    let event = answered.event;
    let samples = number(&event, "/tracer_data/samples") + number(&event, "/tracer_data/lost_samples");
    vec![
        sampled(SAMPLES, samples, ran),
        measured(SYSTEM, said, truth),
        measured(DURATION, number(&event, "/tracer_data/duration_ms"), answered.took.as_secs_f64() * 1000.0),
    ]
}

/// Between two of the agent's samples: the share that it shows, and that of /proc/stat, in percent.
fn system(window: &Window<'_>) -> (f64, f64) {
    let agent = &window.stage.agent;
    let samples = || agent.metric("onset_samples_total{tracer=\"cpusys\"}").unwrap();
    let next = |last: f64| {
        await_that("a sample of the host", SOON, || {
            std::thread::sleep(Duration::from_millis(10));
            let now = samples();
            (now > last).then(|| (now, host_ticks()))
        })
    };
    let (first, before) = next(samples());
    let (second, after) = next(first);
    assert_eq!(second, first + 1.0, "the test was too slow to see each sample");
    let said = agent.metric("onset_host_cpu_ratio{mode=\"system\"}").unwrap();
    (100.0 * said, 100.0 * (after.0 - before.0) as f64 / (after.1 - before.1) as f64)
}
