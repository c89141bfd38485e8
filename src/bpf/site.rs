//! The host that a sampling program is fitted to.

use std::path::Path;

use super::containers::Followed;
use super::error::Error;
use super::{btf, perf};

/// The host that a sampling program is fitted to.
pub struct Site<'a> {
    /// Where /sys is.
    pub sys: &'a Path,
    /// The containers that are followed.
    pub followed: &'a Followed,
    /// Whether they are told apart in the unified hierarchy.
    pub unified: bool,
    /// The CPUs that are online, which it is sized for.
    pub cpus: &'a [u32],
}

impl Site<'_> {
    /// Whether samples can be taken is to be known at load, not at the first anomaly.
    pub(super) fn try_event(&self, event: perf::Event) -> Result<(), Error> {
        btf(self.sys)?;
        let cpu = self.cpus.first().copied().unwrap_or(0);
        perf::open(cpu, event).map(drop).map_err(|source| Error::Perf { event: event.name(), source })
    }
}
