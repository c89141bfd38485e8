//! From sampled stacks to the tree of a flame graph.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::capture_data::{FlameNode, Profile, TopProcess};

/// What marks a kernel function, in labels and for the colours of flame graphs.
const KERNEL: &str = "_[k]";

/// The root's label: it holds every sample.
const ALL: &str = "all";

/// One distinct stack of one process, named; both parts innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'n> {
    /// The process, in the host's pid namespace.
    pub pid: u32,
    /// Its main thread's name.
    pub comm: &'n str,
    /// How many samples had this stack.
    pub weight: u64,
    /// Functions of the process.
    pub user: Vec<&'n str>,
    /// Functions of the kernel that ran on its behalf.
    pub kernel: Vec<&'n str>,
}

/// Merges stacks, sampled at `hz`, into a tree: all, the process's name, its functions from the
/// outermost in, then the kernel's. Siblings stand by samples, most first, then by label.
pub fn fold<'n>(hz: u32, rows: impl IntoIterator<Item = Row<'n>>) -> Profile {
    let mut growing = Growing::default();
    let mut top: HashMap<(u32, &str), u64> = HashMap::new();
    for row in rows {
        let mut node = growing.add(ROOT, row.weight);
        node = growing.child(node, row.comm, row.weight);
        for function in row.user.iter().rev() {
            node = growing.child(node, function, row.weight);
        }
        for function in row.kernel.iter().rev() {
            growing.scratch.clear();
            growing.scratch.push_str(function);
            growing.scratch.push_str(KERNEL);
            let label = std::mem::take(&mut growing.scratch);
            node = growing.child(node, &label, row.weight);
            growing.scratch = label;
        }
        growing.end(node, row.weight);
        // One that executed another program is there under both names.
        let samples = top.entry((row.pid, row.comm)).or_default();
        *samples = samples.saturating_add(row.weight);
    }
    let mut top: Vec<TopProcess> = top
        .into_iter()
        .map(|((pid, comm), samples)| TopProcess { pid, comm: comm.into(), samples })
        .collect();
    top.sort_unstable_by(|one, other| {
        (Reverse(one.samples), one.pid, &one.comm).cmp(&(Reverse(other.samples), other.pid, &other.comm))
    });
    let samples = growing.nodes.first().map_or(0, |root| root.value);
    Profile { hz, samples, flame: growing.into_flame(), top }
}

const ROOT: usize = 0;

/// A tree whose nodes are still being added, in any order.
struct Growing {
    nodes: Vec<Node>,
    labels: HashMap<Box<str>, usize>,
    children: HashMap<(usize, usize), usize>,
    scratch: String,
}

struct Node {
    label: usize,
    level: u32,
    value: u64,
    own: u64,
    below: Vec<usize>,
}

impl Default for Growing {
    fn default() -> Growing {
        let root = Node { label: 0, level: 0, value: 0, own: 0, below: Vec::new() };
        Growing {
            nodes: vec![root],
            labels: HashMap::from([(ALL.into(), 0)]),
            children: HashMap::new(),
            scratch: String::new(),
        }
    }
}

impl Growing {
    /// Counts samples in a node.
    fn add(&mut self, node: usize, weight: u64) -> usize {
        if let Some(node) = self.nodes.get_mut(node) {
            node.value = node.value.saturating_add(weight);
        }
        node
    }

    /// Counts samples that end in a node.
    fn end(&mut self, node: usize, weight: u64) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.own = node.own.saturating_add(weight);
        }
    }

    /// Counts samples in the child of that label, which is made if there is none.
    fn child(&mut self, parent: usize, label: &str, weight: u64) -> usize {
        let label = match self.labels.get(label) {
            Some(label) => *label,
            None => {
                let next = self.labels.len();
                self.labels.insert(label.into(), next);
                next
            }
        };
        let next = self.nodes.len();
        let child = *self.children.entry((parent, label)).or_insert(next);
        if child == next
            && let Some(parent) = self.nodes.get_mut(parent)
        {
            parent.below.push(child);
            let level = parent.level + 1;
            self.nodes.push(Node { label, level, value: 0, own: 0, below: Vec::new() });
        }
        self.add(child, weight)
    }

    fn into_flame(self) -> Vec<FlameNode> {
        let Growing { mut nodes, labels, .. } = self;
        let mut names = vec![Box::default(); labels.len()];
        for (name, label) in labels {
            if let Some(slot) = names.get_mut(label) {
                *slot = name;
            }
        }
        let name = |node: &Node| names.get(node.label).cloned().unwrap_or_default();
        let mut flame = Vec::with_capacity(nodes.len());
        let mut next = vec![ROOT];
        while let Some(index) = next.pop() {
            let Some(node) = nodes.get_mut(index) else { continue };
            let mut below = std::mem::take(&mut node.below);
            flame.push(FlameNode { level: node.level, value: node.value, own: node.own, label: name(node) });
            // The last one pushed is taken first.
            below.sort_by_cached_key(|child| nodes.get(*child).map(|node| (node.value, Reverse(name(node)))));
            next.append(&mut below);
        }
        flame
    }
}
