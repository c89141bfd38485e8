//! An output's counters and state, for the metrics and the status. The output's thread writes them, the loop reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputState {
    /// The config does not want it.
    #[default]
    Off,
    /// Records are sent as they come.
    Shipping,
    /// The last request failed in a way that passes by itself: it is sent again, with growing pauses.
    Waiting,
    /// The last request failed in a way that only a person can mend: it is sent again slowly.
    Refused,
}

impl OutputState {
    /// All states.
    pub const ALL: [OutputState; 4] =
        [OutputState::Off, OutputState::Shipping, OutputState::Waiting, OutputState::Refused];

    /// For a person.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OutputState::Off => "off",
            OutputState::Shipping => "shipping",
            OutputState::Waiting => "waiting",
            OutputState::Refused => "refused",
        }
    }
}

/// The counters, since start.
#[derive(Debug, Default)]
pub struct OutputStats {
    /// Documents that the other side took.
    pub created: AtomicU64,
    /// Documents that it had already.
    pub duplicates: AtomicU64,
    /// Documents that it will never take.
    pub rejected: AtomicU64,
    /// Requests that were sent again.
    pub retries: AtomicU64,
    /// Records that were corrupt in the log before they were sent.
    pub rotten: AtomicU64,
    /// The cursor could not be written.
    pub cursor_failures: AtomicU64,
    /// A rejection could not be noted.
    pub note_failures: AtomicU64,
    state: Mutex<(OutputState, String)>,
}

impl OutputStats {
    fn held(&self) -> MutexGuard<'_, (OutputState, String)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a counter.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Documents by outcome.
    #[must_use]
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        [("created", &self.created), ("duplicate", &self.duplicates), ("rejected", &self.rejected)]
            .map(|(outcome, counter)| (outcome, OutputStats::get(counter)))
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> OutputState {
        self.held().0
    }

    /// What is wrong, if something is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let state = self.held();
        (!state.1.is_empty()).then(|| state.1.clone())
    }

    /// Changes the state and its trouble. Returns whether the state was another one before.
    pub fn change(&self, state: OutputState, trouble: &str) -> bool {
        let mut held = self.held();
        if held.1 != trouble {
            held.1.clear();
            held.1.push_str(trouble);
        }
        std::mem::replace(&mut held.0, state) != state
    }
}
