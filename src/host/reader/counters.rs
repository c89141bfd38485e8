//! The source of many cgroups' counters in one call, and whether what it tells is believed.

use super::source::Io;
use crate::host::Unreclaimable;
use crate::host::cgroup_source::{CgroupCounters, CgroupRequest, CgroupSource};

/// What is read of containers, each by itself from the source or from text.
pub(super) const GROUPS: [&str; 5] =
    ["cpu_time", "throttling", "cpu_bounds", "memory", "memory_unreclaimable"];

/// Places in `GROUPS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadingGroup {
    CpuTime,
    Throttling,
    CpuBounds,
    Memory,
    Unreclaimable,
}

/// By which way a group of readings is had.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReadingMethod {
    /// The group.
    pub readings: &'static str,
    /// `bpf`, `text`, or `bpf, text for 3 of 100`.
    pub method: String,
    /// Why it is read from text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// How many containers were read in which way.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    told: u32,
    text: u32,
}

/// Memory below this is too little to tell one counter from another.
const TELLING_BYTES: u64 = 64 << 10;
/// Two readings of one counter may lie apart by this part of it: one is made after the other.
const APART: u64 = 16;
/// So often in a row the counters may disagree before the text files alone are believed.
const DISAGREEMENTS_MAX: u32 = 8;

/// Whether the counts of pages are where they are looked for. Their places are not part of any interface
/// of the kernel, so they are held against the text file first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not believed yet, after this many disagreements.
    Open(u32),
    Believed,
    Refuted,
}

impl Proof {
    /// Takes in what both ways tell of the same memory.
    pub(super) fn compare(&mut self, told: &Unreclaimable, text: &Unreclaimable) {
        let Proof::Open(disagreements) = *self else { return };
        if text.anon_bytes < TELLING_BYTES && told.anon_bytes < TELLING_BYTES {
            return;
        }
        let near = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => one.abs_diff(other) <= text.anon_bytes / APART,
            _ => false,
        };
        let agrees = near(Some(told.anon_bytes), Some(text.anon_bytes))
            && near(told.shmem_bytes, text.shmem_bytes)
            && near(told.locked_bytes, text.locked_bytes)
            && near(Some(told.all_bytes), Some(text.all_bytes));
        *self = match disagreements + 1 {
            _ if agrees => Proof::Believed,
            DISAGREEMENTS_MAX.. => Proof::Refuted,
            more => Proof::Open(more),
        };
    }
}

/// The source, if there is one.
pub(super) struct Counters {
    source: Result<Box<dyn CgroupSource>, &'static str>,
    pub(super) proof: Proof,
    ways: [Ways; GROUPS.len()],
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Counters")
            .field("proof", &self.proof)
            .field("ways", &self.ways)
            .finish_non_exhaustive()
    }
}

impl Counters {
    pub(super) fn new(source: Result<Box<dyn CgroupSource>, &'static str>) -> Counters {
        Counters { source, proof: Proof::Open(0), ways: [Ways::default(); GROUPS.len()] }
    }

    /// How many can be asked for at once; 0: there is no source.
    pub(super) fn most(&self) -> usize {
        self.source.as_ref().map_or(0, |source| source.most())
    }

    pub(super) fn ask(&mut self, index: usize, request: &CgroupRequest) {
        if let Ok(source) = &mut self.source {
            source.ask(index, request);
        }
    }

    pub(super) fn read(&mut self, count: usize) -> bool {
        count > 0 && self.source.as_mut().is_ok_and(|source| source.read(count))
    }

    pub(super) fn told(&self, index: usize) -> CgroupCounters {
        self.source.as_ref().map_or(CgroupCounters::NONE, |source| source.counters(index))
    }

    /// Begins to count anew in which way containers are read.
    pub(super) fn begin(&mut self, groups: &[ReadingGroup]) {
        for group in groups {
            if let Some(ways) = self.ways.get_mut(*group as usize) {
                *ways = Ways::default();
            }
        }
    }

    /// Counts a container whose readings were told, or not; hands on what was told.
    pub(super) fn count(&mut self, group: ReadingGroup, told: bool) {
        if let Some(ways) = self.ways.get_mut(group as usize) {
            *(if told { &mut ways.told } else { &mut ways.text }) += 1;
        }
    }

    /// In which way each group was last read.
    pub(super) fn methods(&self) -> impl Iterator<Item = ReadingMethod> {
        GROUPS.iter().zip(self.ways).enumerate().map(|(place, (group, ways))| {
            let refuted = place == ReadingGroup::Unreclaimable as usize && self.proof == Proof::Refuted;
            let reason = match &self.source {
                Err(why) => Some(*why),
                Ok(_) if refuted => Some("this kernel's counts of pages are not where they are looked for"),
                Ok(_) => None,
            };
            let method = match ways {
                _ if reason.is_some() => "text".to_owned(),
                Ways { text: 0, .. } => "bpf".to_owned(),
                Ways { told: 0, .. } => "text".to_owned(),
                Ways { told, text } => format!("bpf, text for {text} of {}", told + text),
            };
            ReadingMethod { readings: group, method, reason }
        })
    }
}

/// What the groups of readings are had with: the source, and the text files of all.
pub(super) struct Means<'m> {
    pub(super) counters: &'m mut Counters,
    pub(super) io: &'m mut Io,
}
