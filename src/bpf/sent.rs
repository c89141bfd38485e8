//! What the programs of bpf/sampled.h send: stacks, and how much each weighed.

use std::mem::offset_of;
use std::time::Duration;

use super::comm;
use super::skeletons::stacks::types;
use crate::host::Key;
use crate::symbol::{Image, Layout, UserFrame};

/// A stack, when it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackRecord {
    /// Names it, together with its process id: another image, and a process of another name, have others.
    pub hash: u64,
    /// The process, in the initial pid namespace, and which of its programs ran.
    pub image: Image,
    /// Where that program lay.
    pub layout: Layout,
    /// The name of the process's main thread.
    pub comm: Box<str>,
    /// Whether it was about to execute another program, whose name it may have had already.
    pub execs: bool,
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
    /// When it was last seen, on the monotonic clock.
    pub last: Duration,
}

// The parsers below read these, field by field.
const _: () = assert!(
    size_of::<types::counted>() == 24
        && size_of::<types::sum>() == 16
        && size_of::<types::control>() == 32
        && offset_of!(types::stack, layout) == 16
        && offset_of!(types::stack, tgid) == 40
        && offset_of!(types::stack, comm) == 48
        && offset_of!(types::stack, execs) == 64
        && offset_of!(types::stack, words) == 72
);

impl StackRecord {
    /// Reads a `struct stack`.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<StackRecord> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_stack", &[record]);
        let (hash, rest) = record.split_first_chunk()?;
        let (image, rest) = rest.split_first_chunk()?;
        let (layout, rest) = rest.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (kernel_bytes, rest) = rest.split_first_chunk()?;
        let (user_bytes, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (execs, rest) = rest.split_first_chunk()?;
        let (_unused, rest) = rest.split_at_checked(4)?;
        let (kernel, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*kernel_bytes)))?;
        let user = rest.get(..usize::from(u16::from_ne_bytes(*user_bytes)))?;
        let address = |raw: &[u8]| raw.first_chunk().map(|raw| u64::from_ne_bytes(*raw));
        let frame = |raw: &[u8]| raw.first_chunk().and_then(UserFrame::parse);
        Some(StackRecord {
            hash: u64::from_ne_bytes(*hash),
            image: Image { pid: u32::from_ne_bytes(*pid), id: u64::from_ne_bytes(*image) },
            layout: Layout::parse(layout),
            comm: comm(name),
            execs: u32::from_ne_bytes(*execs) != 0,
            user: user.chunks_exact(UserFrame::SIZE).filter_map(frame).collect(),
            kernel: kernel.chunks_exact(8).filter_map(address).collect(),
        })
    }
}

impl Count {
    /// Reads a `struct counted` and its sum.
    pub(super) fn parse(key: &[u8], sum: &[u8]) -> Option<Count> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_sums", &[&[0], key, sum]);
        let (weight, last) = sum.split_first_chunk()?;
        let (container, rest) = key.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        Some(Count {
            container: Key::from_bits(u64::from_ne_bytes(*container)),
            hash: u64::from_ne_bytes(*hash),
            pid: u32::try_from(u64::from_ne_bytes(*rest.first_chunk()?)).ok()?,
            weight: u64::from_ne_bytes(*weight),
            last: Duration::from_nanos(u64::from_ne_bytes(*last.first_chunk()?)),
        })
    }
}
