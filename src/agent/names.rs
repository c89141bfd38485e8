//! What containers are called: what was found out is taken in, and what may be different by now is found out anew.

use std::time::Duration;

use super::Agent;

/// Containers whose names are looked at again in one turn.
const RENAMED_MAX: usize = 512;

impl Agent {
    /// Has it seen to which containers were renamed, some in each turn.
    pub(super) fn look_for_renamed(&mut self) {
        let Some(first) = self.renamed else { return };
        let containers = self.reader.containers();
        let end = first.saturating_add(RENAMED_MAX).min(containers.slots());
        let left = self.resolver.recheck((first..end).filter_map(|slot| containers.in_slot(slot)));
        self.renamed = match left {
            // The threads are slower than the loop, which does not wait for them.
            Some(key) => {
                self.rename_from = key.slot.into();
                None
            }
            None => Some(end).filter(|end| *end < containers.slots()),
        };
    }

    /// Takes in the names that were found out. A container that is gone by now gets its names, too:
    /// its event may be written later.
    pub(super) fn name(&mut self) {
        while let Some((key, report)) = self.resolver.next_report() {
            if self.reader.learn(key, &report) {
                self.rescan = Duration::ZERO;
            }
        }
    }
}
