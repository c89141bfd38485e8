//! A stack that a record of a hook brings as addresses, and the names of its frames.

use std::fmt;

use super::Rows;

/// Frames of the kernel, and of the process, that it has at most.
pub const FRAMES_MAX: usize = 64;

/// A stack as addresses, for `CaptureKind::Names`. They are all inside, for the loop takes no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordStack {
    /// The process.
    pub pid: u32,
    /// Where that process's program lay.
    pub program: ProgramPlace,
    kernel: Frames,
    user: Frames,
}

/// Where a program and its first stack lie in memory, as `struct layout` of bpf/layout.h has it: it is drawn
/// anew by each exec, so that no address is named by another program that has the process's id now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramPlace {
    /// The first byte of its code.
    pub start_code: u64,
    /// The first byte after it.
    pub end_code: u64,
    /// Where its first stack began.
    pub start_stack: u64,
}

/// The names of a stack's frames, innermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackNames<'a> {
    /// Of the kernel's.
    pub kernel: Rows<'a, &'a str>,
    /// Of the process's.
    pub user: Rows<'a, &'a str>,
}

impl RecordStack {
    /// With these addresses, innermost first; those past `FRAMES_MAX` are left out. The task must have been on
    /// a CPU when the record was made if it has `user` addresses: to look at a process that is stuck in the
    /// kernel can take as long as that is.
    #[must_use]
    pub fn new(
        pid: u32,
        program: ProgramPlace,
        kernel: impl Iterator<Item = u64>,
        user: impl Iterator<Item = u64>,
    ) -> RecordStack {
        RecordStack { pid, program, kernel: Frames::of(kernel), user: Frames::of(user) }
    }

    /// Addresses of the kernel, innermost first.
    #[must_use]
    pub fn kernel(&self) -> &[u64] {
        self.kernel.all()
    }

    /// Addresses of the process, innermost first.
    #[must_use]
    pub fn user(&self) -> &[u64] {
        self.user.all()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Frames {
    addresses: [u64; FRAMES_MAX],
    count: usize,
}

impl Frames {
    fn of(from: impl Iterator<Item = u64>) -> Frames {
        let mut frames = Frames::default();
        for (place, address) in frames.addresses.iter_mut().zip(from) {
            *place = address;
            frames.count += 1;
        }
        frames
    }

    fn all(&self) -> &[u64] {
        self.addresses.get(..self.count).unwrap_or_default()
    }
}

impl Default for Frames {
    fn default() -> Frames {
        Frames { addresses: [0; FRAMES_MAX], count: 0 }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:#x?}", self.all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_keeps_its_innermost_frames_up_to_what_it_has_room_for() {
        let stack = RecordStack::new(7, ProgramPlace::default(), 1..=3, 0..1000);
        assert_eq!((stack.kernel(), stack.user().len()), (&[1, 2, 3][..], FRAMES_MAX));
        assert!(stack.user().iter().copied().eq(0..64));
        assert_eq!(RecordStack::default().kernel(), [0; 0]);
    }
}
