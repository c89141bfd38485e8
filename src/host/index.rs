//! Slots by the paths or ids they stand for, in a map that is set aside once. It keeps only a hash of
//! each: whoever finds a slot compares what is there.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher as _};

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Index(HashMap<u64, u16, BuildHasherDefault<DefaultHasher>>);

fn hash(path: &[u8]) -> u64 {
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

    pub(crate) fn find(&self, path: &[u8]) -> Option<u16> {
        self.0.get(&hash(path)).copied()
    }

    pub(crate) fn insert(&mut self, path: &[u8], slot: u16) {
        self.0.insert(hash(path), slot);
    }

    pub(crate) fn remove(&mut self, path: &[u8]) {
        self.0.remove(&hash(path));
    }
}
