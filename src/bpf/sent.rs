//! What the programs of bpf/sampled.h send: stacks, and how much each weighed.

use std::mem::offset_of;

use super::comm;
use super::skeletons::stacks::types;
use crate::host::Key;
use crate::symbol::UserFrame;

/// A stack, when it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Names it, together with its process.
    pub hash: u64,
    /// The process, in the initial pid namespace.
    pub pid: u32,
    /// The name of the process's main thread.
    pub comm: Box<str>,
    /// Frames of the process, innermost first.
    pub user: Box<[UserFrame]>,
    /// Frames of the kernel, innermost first.
    pub kernel: Box<[u64]>,
}

/// How much a stack weighed between two turns: in samples, or in bytes of page faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Of which container.
    pub container: Option<Key>,
    /// The stack's hash.
    pub hash: u64,
    /// The stack's process.
    pub pid: u32,
    /// How much.
    pub weight: u64,
}

// The parsers below read these, field by field.
const _: () = assert!(
    size_of::<types::counted>() == 24
        && size_of::<types::control>() == 16
        && offset_of!(types::stack, words) == 32
        && offset_of!(types::stack, comm) == 16
);

impl Sent {
    /// Reads a `struct stack`.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Sent> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_stack", &[record]);
        let (hash, rest) = record.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (kernel_bytes, rest) = rest.split_first_chunk()?;
        let (user_bytes, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (kernel, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*kernel_bytes)))?;
        let user = rest.get(..usize::from(u16::from_ne_bytes(*user_bytes)))?;
        let address = |raw: &[u8]| raw.first_chunk().map(|raw| u64::from_ne_bytes(*raw));
        let frame = |raw: &[u8]| raw.first_chunk().and_then(UserFrame::parse);
        Some(Sent {
            hash: u64::from_ne_bytes(*hash),
            pid: u32::from_ne_bytes(*pid),
            comm: comm(name),
            user: user.chunks_exact(UserFrame::SIZE).filter_map(frame).collect(),
            kernel: kernel.chunks_exact(8).filter_map(address).collect(),
        })
    }
}

impl Count {
    /// Reads a `struct counted` and its sum.
    pub(super) fn parse(key: &[u8], weight: &[u8]) -> Option<Count> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_sums", &[&[0], key, weight]);
        let (container, rest) = key.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        Some(Count {
            container: Key::from_bits(u64::from_ne_bytes(*container)),
            hash: u64::from_ne_bytes(*hash),
            pid: u32::try_from(u64::from_ne_bytes(*rest.first_chunk()?)).ok()?,
            weight: u64::from_ne_bytes(*weight.first_chunk()?),
        })
    }
}
