//! Memory that page faults brought, by who touched it, against the program's own count.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::programs::{Worker, pinned};
use crate::rig::number;
use crate::row::{Bound, Measured, Row, measured, row};
use crate::stage::{CAPTURE, Window};
use crate::who::{described, told};

const THREE: &str = "memory touched by a function";
const ONE: &str = "memory touched by another, a third of it";
const LARGE: &str = "memory touched in huge pages";
const ALL: &str = "memory touched by a container";
const COUNTED: &str = "page faults of a container";

pub const ROWS: [Row; 5] = [
    row(ALL, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(THREE, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(ONE, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(LARGE, "the program's own count", "bytes", Bound::Percent(2.0)),
    row(COUNTED, "ru_minflt of getrusage(2) x 4096", "bytes", Bound::Percent(2.0)),
];

/// One sample stands for this many bytes.
const SAMPLE: f64 = 64.0 * 4096.0;

/// Bytes in frames of this label.
fn bytes(event: &Value, label: &str) -> f64 {
    let flame = event["tracer_data"]["flamedata"].as_array().unwrap();
    flame.iter().filter(|node| node["label"] == label).map(|node| node["value"].as_f64().unwrap()).sum()
}

pub fn measure(window: &Window<'_>) -> Vec<Measured> {
    let cgroup = described(window, "touches");
    window.known(&cgroup);
    let mut touch = pinned(1, &window.stage.programs.touch);
    let mut worker = Worker::in_container(&cgroup, &mut touch, "touch");
    let mut asked = window.capture("memburst", Some(&cgroup), CAPTURE);
    worker.go(window.begin());
    let touched: BTreeMap<String, f64> = worker.says("what it touched", |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let pairs = words.chunks_exact(2).map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)));
        pairs.collect()
    });
    asked.outlasts(window);
    let event = asked.event();
    let (three, one, large) = (touched["three"], touched["one"], touched["large"]);
    let small = bytes(&event, "touches_three") + bytes(&event, "touches_one");
    let sampled = |row, said, truth: f64| measured(row, said, truth).of_samples(truth / SAMPLE);
    let mut all = told(&event, &cgroup, &[worker.pid()]);
    all.extend([
        sampled(ALL, number(&event, "/tracer_data/faulted_bytes"), three + one + large),
        sampled(THREE, bytes(&event, "touches_three"), three),
        sampled(ONE, bytes(&event, "touches_one"), one),
        // Of each large page there is a sample.
        measured(LARGE, bytes(&event, "touches_large"), large),
        sampled(COUNTED, small, touched["faults"] * 4096.0),
    ]);
    all
}
