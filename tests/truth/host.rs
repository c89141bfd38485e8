//! The whole host: samples of all that ran, against the CPU time of all in the time that the document
//! says; the share of the kernel's time that is told, against /proc/stat.

use std::sync::mpsc;
use std::time::Duration;

use crate::accounts::{Growth, cpu_time, host_ticks};
use crate::burns::sampled;
use crate::rig::{SOON, await_that, number};
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{CAPTURE, Window};

const SAMPLES: &str = "CPU of the host: samples and lost samples";
const SYSTEM: &str = "share of time in the kernel";
const DURATION: &str = "how long a capture lasted";

pub const ROWS: [Row; 3] = [
    row(
        SAMPLES,
        "cpuacct.usage of the root cgroup x 99 Hz, from the document's begin to its end",
        "samples",
        Bound::Percent(3.0),
    ),
    row(SYSTEM, "/proc/stat, read beside it", "%", Bound::Percent(3.0)),
    row(DURATION, "what was asked for", "ms", Bound::Percent(5.0)),
];

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let (over, is_over) = mpsc::channel();
    std::thread::scope(|scope| {
        let used = scope.spawn(move || Growth::of(|| cpu_time("/"), is_over));
        let asked = window.capture("cpusys", None, CAPTURE);
        window.begin();
        let (said, truth) = system(window);
        let event = asked.event();
        drop(over);
        let ran = used.join().unwrap().during(&event);
        let samples = number(&event, "/tracer_data/samples") + number(&event, "/tracer_data/lost_samples");
        let asked = CAPTURE.as_secs_f64() * 1000.0;
        vec![
            sampled(SAMPLES, samples, ran),
            measured(SYSTEM, said, truth),
            measured(DURATION, number(&event, "/tracer_data/duration_ms"), asked),
        ]
    })
}

/// Intervals of the agent's that are held against /proc/stat together: what is read a moment too late at both
/// ends is then less of it.
const INTERVALS: u32 = 3;

/// The share that the agent shows, and that of /proc/stat over the same time, in percent.
fn system(window: &Window<'_>) -> (f64, f64) {
    let agent = &window.stage.agent;
    let samples = || agent.metric("onset_samples_total{tracer=\"cpusys\"}").unwrap();
    let next = |last: f64| {
        await_that("a sample of the host", SOON, || {
            std::thread::sleep(Duration::from_millis(5));
            let now = samples();
            (now > last).then(|| (now, host_ticks()))
        })
    };
    let (mut last, before) = next(samples());
    let (mut said, mut after) = (0.0, before);
    for _ in 0..INTERVALS {
        let (now, ticks) = next(last);
        if now != last + 1.0 {
            window.spoil(); // a sample came and went unseen
        }
        said += agent.metric("onset_host_cpu_ratio{mode=\"system\"}").unwrap() / f64::from(INTERVALS);
        (last, after) = (now, ticks);
    }
    (100.0 * said, 100.0 * (after.0 - before.0) as f64 / (after.1 - before.1) as f64)
}
