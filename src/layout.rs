//! How BPF objects lay out what they share with userspace: a module for each, written by build.rs out of the
//! object's own types. Bytes in, values out; a container's bits are `host::Key`'s.

include!(concat!(env!("OUT_DIR"), "/layouts.rs"));

/// The numbers of an array of them, as far as they are whole.
pub fn numbers(array: &[u8]) -> impl Iterator<Item = u64> {
    array.as_chunks().0.iter().map(|number| u64::from_ne_bytes(*number))
}

/// Bytes of a structure from a place on: no more than a load, also where a release is optimized for its size.
#[inline(always)]
fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Puts bytes to a place.
fn put<const N: usize>(bytes: &mut [u8], at: usize, part: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = part;
    }
}

#[cfg(test)]
mod tests;
