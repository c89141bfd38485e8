//! Slots by the paths they stand for, in a map that is set aside once. It keeps only a hash of
//! each path: whoever finds a slot compares the path that is there.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher as _};

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Index(HashMap<u64, u16, BuildHasherDefault<DefaultHasher>>);

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl Index {
    /// An empty one. Twice the room is set aside: below half of it, a map that has seen many
    /// removals cleans up in place and does not grow.
    pub(crate) fn with_capacity(slots: usize) -> Index {
        Index(HashMap::with_capacity_and_hasher(slots * 2, BuildHasherDefault::default()))
    }

    pub(crate) fn find(&self, path: &str) -> Option<u16> {
        self.0.get(&hash(path)).copied()
    }

    pub(crate) fn insert(&mut self, path: &str, slot: u16) {
        self.0.insert(hash(path), slot);
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.0.remove(&hash(path));
    }
}
