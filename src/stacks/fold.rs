//! From sampled stacks to the tree of a flame graph.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::capture_data::{Arena, FlameNode, NO_ROOM, Profile, Rows, TopProcess};

/// What marks a kernel function, in labels and for the colours of flame graphs.
const KERNEL: &str = "_[k]";

/// The root's label: it holds every sample.
const ALL: &str = "all";

/// The list of processes may take one part of the arena in this many.
const TOP_PART: usize = 8;

/// One distinct stack of one process, named; both parts innermost frame first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// Merges stacks, sampled at `hz`, into a tree in `arena`: see [`Fold`].
pub fn fold<'a, 'n>(arena: &'a Arena, hz: u32, rows: impl IntoIterator<Item = Row<'n>>) -> Profile<'a> {
    let mut fold = Fold::new(arena);
    rows.into_iter().for_each(|row| fold.add(&row));
    fold.finish(hz)
}

/// Stacks that are being merged into a tree: all, the process's name, its functions from the outermost in, then
/// the kernel's. Siblings stand by samples, most first, then by label.
///
/// A stack for which the arena has no room is left out whole: its samples are those of one node of their own, so
/// that all samples are in the tree. Stacks that come first find room, so the heaviest are to come first.
pub struct Fold<'a> {
    tree: Tree<'a>,
    /// By id and name: a process that executed another program is there under both names.
    processes: HashMap<(u32, Label), u64>,
    /// Bytes of the arena that are left for processes.
    room: usize,
    samples: u64,
    left_out: LeftOut,
    path: Vec<Label>,
    scratch: String,
}

/// What the arena had no room for.
#[derive(Default)]
struct LeftOut {
    stacks: usize,
    samples: u64,
    processes: HashSet<u32>,
}

/// A text that lies in the arena, by its number.
type Label = u32;

/// A node, by its number.
type Index = u32;

/// No node: the root is nobody's child.
const ROOT: Index = 0;

/// Where stacks go that find no room: it is there from the beginning, and shown only if it is needed.
const BEYOND: Index = 1;

impl<'a> Fold<'a> {
    /// No stacks yet.
    #[must_use]
    pub fn new(arena: &'a Arena) -> Fold<'a> {
        let room = arena.room() / TOP_PART;
        Fold {
            tree: Tree::new(arena, arena.room() - room),
            processes: HashMap::new(),
            room,
            samples: 0,
            left_out: LeftOut::default(),
            path: Vec::new(),
            scratch: String::new(),
        }
    }

    /// Adds a stack with its samples.
    pub fn add(&mut self, row: &Row<'_>) {
        self.samples = self.samples.saturating_add(row.weight);
        self.count_process(row);
        match self.labels(row).and_then(|()| self.tree.reach(&self.path)) {
            Some(()) => self.tree.count(row.weight),
            None => {
                self.left_out.stacks += 1;
                self.left_out.samples = self.left_out.samples.saturating_add(row.weight);
            }
        }
    }

    /// Puts the labels of a stack's frames into `path`, outermost first. `None`: there is no room for one.
    fn labels(&mut self, row: &Row<'_>) -> Option<()> {
        self.path.clear();
        self.path.push(self.tree.label(row.comm)?);
        for function in row.user.iter().rev() {
            self.path.push(self.tree.label(function)?);
        }
        for function in row.kernel.iter().rev() {
            self.scratch.clear();
            self.scratch.push_str(function);
            self.scratch.push_str(KERNEL);
            self.path.push(self.tree.label(&self.scratch)?);
        }
        Some(())
    }

    fn count_process(&mut self, row: &Row<'_>) {
        let known = self.tree.labels.numbers.get(row.comm).copied();
        let counted = known.and_then(|comm| self.processes.get_mut(&(row.pid, comm)));
        if let Some(samples) = counted {
            *samples = samples.saturating_add(row.weight);
            return;
        }
        let cost = size_of::<TopProcess<'_>>();
        match self.room.checked_sub(cost).zip(self.tree.label(row.comm)) {
            Some((left, comm)) => {
                self.room = left;
                self.processes.insert((row.pid, comm), row.weight);
            }
            None => _ = self.left_out.processes.insert(row.pid),
        }
    }

    /// The tree of all that was added.
    #[must_use]
    pub fn finish(self, hz: u32) -> Profile<'a> {
        let Fold { tree, processes, samples, left_out, .. } = self;
        let mut top: Vec<TopProcess<'a>> = processes
            .into_iter()
            .map(|((pid, comm), samples)| TopProcess { pid, comm: tree.labels.text(comm), samples })
            .collect();
        top.sort_unstable_by_key(|process| (Reverse(process.samples), process.pid, process.comm));
        let top = tree.labels.arena.plain_rows(top.into_iter()).with_left_out(left_out.processes.len());
        let flame = tree.into_flame(samples, left_out.samples).with_left_out(left_out.stacks);
        Profile { hz, samples, flame, top }
    }
}

/// Texts that lie in the arena once each.
struct Labels<'a> {
    arena: &'a Arena,
    texts: Vec<&'a str>,
    numbers: HashMap<&'a str, Label>,
}

impl<'a> Labels<'a> {
    fn text(&self, label: Label) -> &'a str {
        usize::try_from(label).ok().and_then(|label| self.texts.get(label)).copied().unwrap_or_default()
    }
}

/// A tree whose nodes are still being added, in any order.
struct Tree<'a> {
    labels: Labels<'a>,
    nodes: Vec<Node>,
    children: HashMap<(Index, Label), Index>,
    /// Bytes of the arena that are left for nodes and labels.
    room: usize,
    /// The nodes of the stack that was reached last, without the root.
    reached: Vec<Index>,
}

#[derive(Clone, Copy, Default)]
struct Node {
    label: Label,
    level: u32,
    value: u64,
    own: u64,
    /// The child that was added last, and the sibling that was added before this one; `ROOT` is none.
    child: Index,
    sibling: Index,
}

const NODE: usize = size_of::<FlameNode<'_>>();

impl<'a> Tree<'a> {
    fn new(arena: &'a Arena, room: usize) -> Tree<'a> {
        let labels = Labels { arena, texts: Vec::new(), numbers: HashMap::new() };
        let (children, reached) = (HashMap::new(), Vec::new());
        let mut tree = Tree { labels, nodes: Vec::new(), children, room, reached };
        for (level, text) in [(0, ALL), (1, NO_ROOM)] {
            tree.room = tree.room.saturating_sub(NODE + align_of::<FlameNode<'_>>());
            let label = tree.label(text).unwrap_or_default();
            tree.nodes.push(Node { label, level, ..Node::default() });
        }
        tree
    }

    /// The number of a text. `None`: the arena has no room for it.
    fn label(&mut self, text: &str) -> Option<Label> {
        let Labels { arena, texts, numbers } = &mut self.labels;
        if let Some(number) = numbers.get(text) {
            return Some(*number);
        }
        let left = self.room.checked_sub(text.len())?;
        let number = Label::try_from(texts.len()).ok()?;
        let text = arena.text(text)?;
        self.room = left;
        texts.push(text);
        numbers.insert(text, number);
        Some(number)
    }

    /// Adds what is missing of a path below the root. `None`: there is no room for all of it, and nothing is added.
    fn reach(&mut self, path: &[Label]) -> Option<()> {
        self.reached.clear();
        let mut at = ROOT;
        for label in path {
            let Some(child) = self.children.get(&(at, *label)) else { break };
            at = *child;
            self.reached.push(at);
        }
        let missing = path.get(self.reached.len()..).unwrap_or_default();
        self.room = self.room.checked_sub(missing.len() * NODE)?;
        Index::try_from(self.nodes.len() + missing.len()).ok()?;
        for label in missing {
            at = self.add(at, *label);
            self.reached.push(at);
        }
        Some(())
    }

    fn add(&mut self, parent: Index, label: Label) -> Index {
        let new = Index::try_from(self.nodes.len()).unwrap_or(Index::MAX);
        let Some(above) = self.nodes.get_mut(parent as usize) else { return parent };
        let node = Node { label, level: above.level + 1, sibling: above.child, ..Node::default() };
        above.child = new;
        self.nodes.push(node);
        self.children.insert((parent, label), new);
        new
    }

    /// Counts samples of the stack that was reached last.
    fn count(&mut self, weight: u64) {
        for index in &self.reached {
            if let Some(node) = self.nodes.get_mut(*index as usize) {
                node.value = node.value.saturating_add(weight);
            }
        }
        if let Some(node) = self.reached.last().and_then(|last| self.nodes.get_mut(*last as usize)) {
            node.own = node.own.saturating_add(weight);
        }
    }
    /// Puts the tree into the arena, where all of its nodes have room: with all samples, and those beyond.
    fn into_flame(mut self, samples: u64, beyond: u64) -> Rows<'a, FlameNode<'a>> {
        let Labels { arena, .. } = self.labels;
        let mut left = self.nodes.len();
        let last = self.nodes.first().map_or(ROOT, |root| root.child);
        if let Some(node) = self.nodes.get_mut(BEYOND as usize) {
            (node.value, node.own, node.sibling) = (beyond, beyond, last);
        }
        if let Some(root) = self.nodes.first_mut() {
            root.value = samples;
            if beyond > 0 {
                root.child = BEYOND;
            } else {
                left -= 1;
            }
        }
        arena.plain_rows(PreOrder { tree: &self, next: vec![ROOT], left })
    }

    fn node(&self, index: Index) -> Node {
        self.nodes.get(index as usize).copied().unwrap_or_default()
    }
}

/// The nodes of a tree, each before its children.
struct PreOrder<'t, 'a> {
    tree: &'t Tree<'a>,
    /// What comes next is at the end.
    next: Vec<Index>,
    /// Nodes that are still to come.
    left: usize,
}

impl<'a> Iterator for PreOrder<'_, 'a> {
    type Item = FlameNode<'a>;

    fn next(&mut self) -> Option<FlameNode<'a>> {
        let index = self.next.pop()?;
        self.left = self.left.saturating_sub(1);
        let tree = self.tree;
        let Node { label, level, value, own, mut child, .. } = tree.node(index);
        let first = self.next.len();
        while child != ROOT {
            self.next.push(child);
            child = tree.node(child).sibling;
        }
        if let Some(children) = self.next.get_mut(first..) {
            children.sort_unstable_by_key(|child| {
                let node = tree.node(*child);
                (node.value, Reverse(tree.labels.text(node.label)))
            });
        }
        Some(FlameNode { level, value, own, label: tree.labels.text(label) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for PreOrder<'_, '_> {}
