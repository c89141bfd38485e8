//! Counts that programs keep in arrays, such as that of the samples that found no room.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

/// Samples that the kernel could not keep.
#[derive(Debug)]
pub struct Lost(pub(super) MapHandle);

impl Lost {
    /// How many, since the program was loaded.
    #[must_use]
    pub fn samples(&self) -> u64 {
        number(&self.0)
    }
}

/// The first value of an array.
pub(super) fn number(map: &impl MapCore) -> u64 {
    number_at(map, 0)
}

/// The value at `index` of an array; 0 where it cannot be read.
pub(super) fn number_at(map: &impl MapCore, index: u32) -> u64 {
    let mut value = [0; 8];
    match map.lookup_into(&index.to_ne_bytes(), &mut value, MapFlags::ANY) {
        Ok(true) => u64::from_ne_bytes(value),
        _ => 0,
    }
}
