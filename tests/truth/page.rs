//! The table as text, and its place in docs/accuracy.md.

use std::fmt::Write as _;
use std::fs;

use crate::rig::{command, done};
use crate::row::{Bound, RowResult};

/// Numbers of any size, in few letters.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1e7 => format!("{:.1}M", value / 1e6),
        large if large >= 1e5 => format!("{:.1}k", value / 1e3),
        large if large >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn error(bound: Bound, unit: &str, value: f64) -> String {
    match bound {
        Bound::Percent(_) => format!("{value:+.2} %"),
        Bound::Within(_) => format!("{value:+.0} {unit}"),
        Bound::Exact => format!("{value:.0}"),
        Bound::Shown => "-".into(),
    }
}

fn bound(bound: Bound, unit: &str) -> String {
    match bound {
        Bound::Percent(most) => format!("{most} %"),
        Bound::Within(most) => format!("{most} {unit}"),
        Bound::Exact => "exact".into(),
        Bound::Shown => "-".into(),
    }
}

/// A table in Markdown.
pub fn table(all: &[RowResult]) -> String {
    let mut page = String::from(
        "| what | against | n | truth | said | error: median | worst | bound |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for RowResult { row, rounds, said, truth, median, worst, kept } in all {
        let _ = writeln!(
            page,
            "| {} | {} | {rounds} | {} {} | {} | {} | {} | {}{} |",
            row.name,
            row.against,
            short(*truth),
            row.unit,
            short(*said),
            error(row.bound, row.unit, *median),
            error(row.bound, row.unit, *worst),
            bound(row.bound, row.unit),
            if *kept { "" } else { " **MISSED**" },
        );
    }
    page
}

/// Puts the table into the page that the environment names, between its marks.
pub fn keep(all: &[RowResult], rounds: usize) {
    let Some(page) = std::env::var_os("ONSET_TRUTH_PAGE").filter(|page| !page.is_empty()) else { return };
    let text = fs::read_to_string(&page).unwrap();
    let (begin, end) = ("<!-- truth: begin -->\n", "<!-- truth: end -->");
    let (before, rest) = text.split_once(begin).expect("the mark of its begin");
    let (_, after) = rest.split_once(end).expect("the mark of its end");
    let machine = format!("{} rounds; {}", rounds, machine());
    fs::write(&page, format!("{before}{begin}{machine}\n\n{}{end}{after}", table(all))).unwrap();
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = done(command("uname").arg("-r"));
    format!("{}, {count} CPUs; Linux {}", model.unwrap_or("a CPU"), kernel.trim())
}
