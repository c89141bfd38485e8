//! What a tracer did since it came.

use crate::capture_data::Refusal;
use crate::clock::Wall;
use crate::host::ContainerId;
use crate::log::RecordId;
use crate::tracer::Trigger;

use super::capture_ledger::EventCaptures;
use super::outcome::{OUTCOMES, outcome};

/// The last event of a tracer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastEvent {
    pub(super) id: RecordId,
    /// When it was put into the log.
    pub(super) at: Wall,
    /// Its `tracer_time`.
    pub(super) time: Wall,
    /// Its `container_id`; its container may be gone when someone asks.
    pub(super) container: Option<ContainerId>,
    /// The rule that fired.
    pub(super) trigger: Trigger,
    /// The captures that it was made of.
    pub(super) captures: EventCaptures,
}

/// Kinds of faults that are told apart; a tracer names them in its source, so this is plenty.
const FAULTS_MAX: usize = 16;

/// What a tracer did since it came.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) samples: u64,
    pub(super) events: u64,
    pub(super) captures: [u64; OUTCOMES.len()],
    pub(super) faults: Vec<(&'static str, u64)>,
    pub(super) last: Option<LastEvent>,
}

impl Counts {
    pub(super) fn new() -> Counts {
        Counts {
            samples: 0,
            events: 0,
            captures: [0; OUTCOMES.len()],
            faults: Vec::with_capacity(FAULTS_MAX),
            last: None,
        }
    }

    /// Counts a fault under its name.
    pub(super) fn fault(&mut self, fault: &'static str) {
        if let Some((_, count)) = self.faults.iter_mut().find(|(name, _)| *name == fault) {
            *count += 1;
        } else if self.faults.len() < FAULTS_MAX {
            self.faults.push((fault, 1));
        }
    }

    pub(super) fn captured(&mut self, refusal: Option<Refusal>) {
        if let Some(count) = self.captures.get_mut(outcome(refusal)) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_counted_under_its_name_and_names_are_bounded() {
        let mut counts = Counts::new();
        counts.fault("a");
        counts.fault("b");
        counts.fault("a");
        assert_eq!(counts.faults, [("a", 2), ("b", 1)]);
        for number in 0..100 {
            counts.fault(Box::leak(format!("{number}").into_boxed_str()));
        }
        assert_eq!(counts.faults.len(), FAULTS_MAX);
    }
}
