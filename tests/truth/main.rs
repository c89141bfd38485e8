//! The truth table: what the confined agent says, against what something else measured of the same
//! load. All captures and tracers run side by side, ten rounds of them; docs/accuracy.md is the result.
//! `make truth`; it needs root.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod accounts;
mod blocked;
mod burns;
#[path = "../live/cgroup.rs"]
mod cgroup;
mod faults;
#[path = "../live/frozen.rs"]
mod frozen;
mod host;
mod io;
mod memory;
mod names;
mod neighbours;
mod oom;
mod page;
mod pinned_tasks;
mod programs;
#[path = "../live/rig.rs"]
mod rig;
mod row;
mod stage;
mod waits;
mod who;

use crate::rig::root;
use crate::row::{Measured, Row};
use crate::stage::{Stage, Subject};

/// What is measured at the same time, window after window: what wants the CPUs for itself is not in
/// the first.
const WINDOWS: [&[Subject]; 3] = [
    &[
        burns::measure,
        waits::measure,
        waits::throttled,
        faults::measure,
        io::measure,
        blocked::measure,
        oom::measure,
        host::measure,
    ],
    &[pinned_tasks::measure],
    &[names::measure, memory::measure, who::renamed],
];

fn rows() -> Vec<Row> {
    [
        &burns::ROWS[..],
        &pinned_tasks::ROWS,
        &host::ROWS,
        &waits::ROWS,
        &faults::ROWS,
        &memory::ROWS,
        &io::ROWS,
        &blocked::ROWS,
        &oom::ROWS,
        &names::ROWS,
        &who::ROWS,
    ]
    .concat()
}

/// A number that the environment gives.
fn given(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

#[test]
fn documents_report_what_an_independent_tool_measured() {
    if !root("the truth table") {
        return;
    }
    let stage = Stage::new();
    let mut all: Vec<Measured> = Vec::new();
    let rounds = given("ONSET_TRUTH_ROUNDS", 10);
    for round in 0..rounds {
        for window in WINDOWS {
            all.extend(stage.play(round, window));
        }
    }
    let told = row::tell(&rows(), &all);
    println!("{}", page::table(&told));
    page::keep(&told, rounds);
    let missed: Vec<_> = told.iter().filter(|told| !told.kept).map(|told| told.row.name).collect();
    assert!(missed.is_empty(), "past their bounds: {missed:#?}");
    assert_eq!(stage.leave(), Some(0));
}

#[test]
fn the_page_has_a_line_for_each_row() {
    if std::env::var_os("ONSET_TRUTH_PAGE").is_some_and(|page| !page.is_empty()) {
        return; // it is being written
    }
    let page = std::fs::read_to_string("docs/accuracy.md").unwrap();
    assert!(!page.contains("**MISSED**"), "a bound is not kept: make truth");
    for row in rows() {
        assert!(page.contains(&format!("| {} | {} |", row.name, row.against)), "{}: make truth", row.name);
    }
}
