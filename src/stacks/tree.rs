//! A flame graph as a document holds it, once it is known to be one.

use crate::capture_data::FlameNode;

/// Deeper is no stack: the kernel hands over 127 frames of each kind.
const DEPTH_MAX: u32 = 1024;

/// Why nodes are no flame graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// there are no samples in it
    #[error("the flame graph holds no samples")]
    Empty,
    /// a node has no parent
    #[error("node {0} of the flame graph has no parent: its level is not within one of the node before")]
    Orphan(usize),
    /// too deep
    #[error("node {0} of the flame graph is deeper than {DEPTH_MAX} levels")]
    TooDeep(usize),
    /// the sum is wrong
    #[error("node {0} of the flame graph has fewer samples than it and its children are said to have")]
    Overfull(usize),
}

/// The nodes of a flame graph in pre-order, checked.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'n>(&'n [FlameNode<'n>]);

impl<'n> Tree<'n> {
    /// Checks nodes that came from a document: one root at level 0, no level skipped, and no node
    /// with fewer samples than itself and its children together.
    pub fn check(nodes: &'n [FlameNode<'n>]) -> Result<Tree<'n>, TreeError> {
        // The ancestors of the node at hand: which one, and how many samples it has left to give.
        let mut open: Vec<(usize, u64)> = Vec::new();
        let mut samples: u64 = 0;
        for (index, node) in nodes.iter().enumerate() {
            if node.level > DEPTH_MAX {
                return Err(TreeError::TooDeep(index));
            }
            let level = usize::try_from(node.level).map_err(|_| TreeError::TooDeep(index))?;
            if level > open.len() || (level == 0) != (index == 0) {
                return Err(TreeError::Orphan(index));
            }
            open.truncate(level);
            if let Some((parent, left)) = open.last_mut() {
                *left = left.checked_sub(node.value).ok_or(TreeError::Overfull(*parent))?;
            }
            let left = node.value.checked_sub(node.own).ok_or(TreeError::Overfull(index))?;
            open.push((index, left));
            // Cannot overflow: all of it fits the root's value, as was just checked.
            samples = samples.saturating_add(node.own);
        }
        if samples == 0 { Err(TreeError::Empty) } else { Ok(Tree(nodes)) }
    }

    /// Each stack that samples ended in, outermost frame first, with their number. The root is in
    /// no stack but its own: every viewer draws one of itself.
    pub(super) fn each_stack<E>(
        &self,
        mut each: impl FnMut(&[&'n FlameNode<'n>], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut path: Vec<&FlameNode<'_>> = Vec::new();
        for node in self.0 {
            path.truncate(usize::try_from(node.level).unwrap_or(usize::MAX));
            path.push(node);
            if node.own > 0 {
                each(path.get(1..).filter(|below| !below.is_empty()).unwrap_or(&path), node.own)?;
            }
        }
        Ok(())
    }
}
