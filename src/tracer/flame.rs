//! A flame graph cut to a number of nodes: the ones with the fewest samples go first, each with
//! all that it called; the root never goes. Nothing is copied, nothing allocated.

use crate::capture_data::FlameNode;

/// The nodes that stay.
#[derive(Clone, Copy, Debug)]
pub struct Flame<'a> {
    nodes: &'a [FlameNode<'a>],
    /// Nodes with more samples stay, and of those with as many the first `ties`.
    floor: u64,
    ties: usize,
}

impl<'a> Flame<'a> {
    /// At most `keep` nodes of a flame graph in pre-order, and at least its root.
    pub fn cut(nodes: &'a [FlameNode<'a>], keep: usize) -> Flame<'a> {
        let below_root = nodes.get(1..).unwrap_or_default();
        let budget = keep.saturating_sub(1);
        let above = |floor: u64| below_root.iter().filter(|node| node.value > floor).count();
        // The lowest floor with no more nodes above it than may stay.
        let (mut low, mut high) = (0, below_root.iter().map(|node| node.value).max().unwrap_or(0));
        while low < high {
            let middle = low + (high - low) / 2;
            if above(middle) <= budget { high = middle } else { low = middle + 1 }
        }
        Flame { nodes, floor: low, ties: budget.saturating_sub(above(low)) }
    }

    /// The nodes that stay, in pre-order. No node has more samples than its parent, so a parent
    /// never goes before its children; a node that is at odds with this goes with its parent.
    pub fn iter(&self) -> impl Iterator<Item = &'a FlameNode<'a>> + use<'a> {
        let Flame { nodes, floor, mut ties } = *self;
        let mut gone: Option<u32> = None;
        nodes.iter().enumerate().filter_map(move |(index, node)| {
            if index > 0 && gone.is_some_and(|level| node.level > level) {
                return None;
            }
            let tie = index > 0 && node.value == floor && ties > 0;
            ties -= usize::from(tie);
            let stays = index == 0 || node.value > floor || tie;
            gone = if stays { None } else { Some(node.level) };
            stays.then_some(node)
        })
    }

    /// How many went.
    pub fn truncated(&self) -> usize {
        self.nodes.len() - self.iter().count()
    }
}

impl serde::Serialize for Flame<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(level: u32, value: u64, label: &str) -> FlameNode<'_> {
        FlameNode { level, value, own: 0, label }
    }

    fn kept(nodes: &[FlameNode<'_>], keep: usize) -> String {
        let flame = Flame::cut(nodes, keep);
        let labels: Vec<&str> = flame.iter().map(|node| node.label).collect();
        assert_eq!(flame.truncated(), nodes.len() - labels.len());
        labels.concat()
    }

    #[test]
    fn the_least_go_first_with_all_that_they_called_and_the_root_stays() {
        let nodes = [
            node(0, 10, "r"),
            node(1, 7, "a"),
            node(2, 4, "b"),
            node(2, 3, "c"),
            node(3, 3, "d"),
            node(1, 3, "e"),
            node(2, 0, "f"),
        ];
        let cuts = ["r", "r", "ra", "rab", "rabc", "rabcd", "rabcde", "rabcdef", "rabcdef"];
        for (keep, want) in cuts.into_iter().enumerate() {
            assert_eq!(kept(&nodes, keep), want, "{keep}");
        }
        assert_eq!(kept(&[], 3), "");
    }

    #[test]
    fn a_child_with_more_samples_than_its_parent_goes_with_its_parent() {
        let nodes = [node(0, 9, "r"), node(1, 1, "a"), node(2, 8, "b"), node(1, 5, "c")];
        assert_eq!(kept(&nodes, 3), "rc");
        assert_eq!(kept(&[node(5, 1, "r"), node(9, 2, "x"), node(0, 1, "y")], 2), "rx");
    }
}
