//! What a program of sampled stacks counts, by a clock or by page faults.

use std::path::Path;

use super::resident::{self, Holder, Members};
use crate::bpf;
use crate::capture_data::CaptureKind;

/// What a program samples, which says what its counts are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampled {
    /// What runs: in samples.
    Running,
    /// Page faults, weighed in bytes: a page for each sample.
    Faults {
        /// Of one page.
        page_bytes: u32,
    },
}

impl Sampled {
    /// Which capture it is.
    pub(super) const fn kind(self) -> CaptureKind {
        match self {
            Sampled::Running => CaptureKind::Stacks,
            Sampled::Faults { .. } => CaptureKind::Faults,
        }
    }

    /// Of this weight, how many samples there were; at least one.
    pub(super) fn samples(self, weight: u64) -> u64 {
        match self {
            Sampled::Running => weight,
            Sampled::Faults { page_bytes } => {
                let each = u64::from(page_bytes) * u64::from(bpf::FAULTS_EACH);
                weight.div_ceil(each.max(1))
            }
        }
    }

    /// Who holds most of the memory that is asked about.
    pub(super) fn resident(self, proc: &Path, members: &Members) -> Vec<Holder> {
        match self {
            Sampled::Running => Vec::new(),
            Sampled::Faults { page_bytes } => resident::top(proc, members, page_bytes.into()),
        }
    }
}
