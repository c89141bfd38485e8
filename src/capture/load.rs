//! What is asked of this host once, when backends are loaded.

use std::path::Path;

use crate::bpf;
use crate::sys;

pub(super) fn page_bytes() -> u32 {
    sys::page_size().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(4096)
}

/// A reason, to be kept for the life of the process: there is at most one for each program.
pub(super) fn sentence(error: bpf::Error) -> &'static str {
    String::leak(error.to_string())
}

/// The kernel's release: `6.18.44-generic` is (6, 18).
#[must_use]
pub fn release(proc: &Path) -> Option<(u32, u32)> {
    release_of(&std::fs::read_to_string(proc.join("sys/kernel/osrelease")).ok()?)
}

pub(super) fn release_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
