//! Stacks as a flame graph: folded from samples into a tree, and from a document's tree into the
//! formats that viewers read. Pure: names in, values out.

mod fold;
pub mod formats;
mod tree;

pub use fold::{Fold, Row, fold};
pub use tree::{Tree, TreeError};

#[cfg(test)]
mod tests;
