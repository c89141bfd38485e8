//! A flame graph as text: the paths that most samples took, a line for each until it branches.

use std::io::{self, Write};

use super::line;
use crate::capture_data::FlameNode;

/// A branch with a smaller share of the samples is not shown, in percent.
const SHARE_MIN: u64 = 5;

/// A child with at least this percentage of its parent's samples continues the parent's path.
const SAME_PATH: u64 = 90;

/// How many frames of the beginning and of the end of a long path are shown.
const ENDS: usize = 6;

/// The most lines that are printed.
const LINES: usize = 40;

/// Shows a flame graph that was checked to be one.
pub(super) fn show(nodes: &[FlameNode<'_>], out: &mut dyn Write) -> io::Result<()> {
    let total = nodes.first().map_or(0, |root| root.value);
    // What is still to be shown, with its indentation; the last one is next.
    let mut next = vec![(0, 0)];
    let mut lines = 0;
    while let Some((start, indent)) = next.pop() {
        if lines == LINES {
            return writeln!(out, "  ...");
        }
        lines += 1;
        let (path, mut branches) = follow(nodes, start, total);
        let percent = share(nodes.get(start).map_or(0, |node| node.value), total);
        writeln!(out, "{percent:>6.1} %  {:indent$}{}", "", joined(&path))?;
        branches.reverse();
        next.extend(branches.into_iter().map(|branch| (branch, indent + 2)));
    }
    Ok(())
}

/// The frames from here to where the path branches or ends, and its branches.
fn follow<'n>(nodes: &[FlameNode<'n>], start: usize, total: u64) -> (Vec<&'n str>, Vec<usize>) {
    let mut path = Vec::new();
    let mut at = start;
    loop {
        let Some(node) = nodes.get(at) else { return (path, Vec::new()) };
        path.push(node.label);
        let branches = children(nodes, at, total);
        match branches[..] {
            [only] if nodes.get(only).is_some_and(|child| is_same(child, node)) => at = only,
            _ => return (path, branches),
        }
    }
}

fn is_same(child: &FlameNode<'_>, parent: &FlameNode<'_>) -> bool {
    u128::from(child.value) * 100 >= u128::from(parent.value) * u128::from(SAME_PATH)
}

/// The children that are large enough to be shown.
fn children(nodes: &[FlameNode<'_>], parent: usize, total: u64) -> Vec<usize> {
    let level = nodes.get(parent).map_or(0, |node| node.level);
    let below = nodes.iter().enumerate().skip(parent + 1).take_while(|(_, node)| node.level > level);
    let large =
        |node: &FlameNode<'_>| u128::from(node.value) * 100 >= u128::from(total) * u128::from(SHARE_MIN);
    below.filter(|(_, node)| node.level == level + 1 && large(node)).map(|(at, _)| at).collect()
}

fn joined(path: &[&str]) -> String {
    let clean =
        |labels: &[&str]| labels.iter().map(|label| line(label).to_string()).collect::<Vec<_>>().join(" > ");
    match path.len().checked_sub(2 * ENDS + 1) {
        Some(left_out @ 1..) => {
            let (first, rest) = path.split_at(ENDS);
            let last = rest.get(left_out + 1..).unwrap_or_default();
            format!("{} > ({} frames) > {}", clean(first), left_out + 1, clean(last))
        }
        _ => clean(path),
    }
}

#[allow(clippy::cast_precision_loss)] // shown with one digit
fn share(part: u64, total: u64) -> f64 {
    part as f64 * 100.0 / total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(nodes: &[(u32, u64, &'static str)]) -> String {
        let node = |(level, value, label): &(u32, u64, &'static str)| FlameNode {
            level: *level,
            value: *value,
            own: 0,
            label,
        };
        let nodes: Vec<FlameNode<'_>> = nodes.iter().map(node).collect();
        let mut out = Vec::new();
        show(&nodes, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_hottest_path_is_printed_until_it_branches_without_small_branches() {
        let text = shown(&[
            (0, 200, "all"),
            (1, 150, "java"),
            (2, 149, "main"),
            (3, 100, "spin"),
            (3, 49, "read\x1b[m"),
            (2, 1, "gc"),
            (1, 41, "nginx"),
            (1, 9, "small"),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                " 100.0 %  all",
                "  75.0 %    java > main",
                "  50.0 %      spin",
                "  24.5 %      read?[m",
                "  20.5 %    nginx",
            ]
        );
    }

    #[test]
    fn the_middle_of_a_long_path_is_left_out() {
        let nodes: Vec<(u32, u64, &str)> = (0..100).map(|level| (level, 7, "f")).collect();
        let text = shown(&nodes);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("f > (88 frames) > f"), "{text}");
        assert_eq!(text.matches('f').count() - 1, 12, "the word frames has one too: {text}");
        assert!(!shown(&nodes[..13]).contains("frames"));
    }
}
