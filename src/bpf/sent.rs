//! What the programs of bpf/sampled.h send: stacks, and how much each weighed.

use std::time::Duration;

use super::comm;
use crate::host::Key;
use crate::layout::{numbers, stacks as layout};
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

impl StackRecord {
    /// Reads a `struct stack`.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<StackRecord> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_stack", &[record]);
        let (stack, words) = layout::Stack::read(record)?;
        let (kernel, rest) = words.split_at_checked(stack.kernel_bytes.into())?;
        let user = rest.get(..stack.user_bytes.into())?;
        let frame = |raw: &[u8]| raw.first_chunk().and_then(UserFrame::parse);
        let layout::Layout { start_code, end_code, start_stack } = stack.layout;
        Some(StackRecord {
            hash: stack.hash,
            image: Image { pid: stack.tgid, id: stack.image },
            layout: Layout { start_code, end_code, start_stack },
            comm: comm(&stack.comm),
            execs: stack.execs != 0,
            user: user.chunks_exact(UserFrame::SIZE).filter_map(frame).collect(),
            kernel: numbers(kernel).collect(),
        })
    }
}

impl Count {
    /// Reads a `struct counted` and its sum.
    pub(super) fn parse(key: &[u8], sum: &[u8]) -> Option<Count> {
        #[cfg(test)]
        crate::fuzz::record::note("bpf_sums", &[&[0], key, sum]);
        let ((counted, _), (sum, _)) = (layout::Counted::read(key)?, layout::Sum::read(sum)?);
        Some(Count {
            container: Key::from_bits(counted.container),
            hash: counted.hash,
            pid: u32::try_from(counted.tgid).ok()?,
            weight: sum.weight,
            last: Duration::from_nanos(sum.last),
        })
    }
}
