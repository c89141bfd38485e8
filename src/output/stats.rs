//! What an output counts and how it goes, for the metrics and the status. The output's thread
//! writes, the loop reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputState {
    /// The config does not want it.
    #[default]
    Off,
    /// Records are sent as they come.
    Shipping,
    /// Something that will pass: it is tried again, with growing pauses.
    Waiting,
    /// Something that a person must change: it is tried again slowly.
    Refused,
}

impl OutputState {
    /// All there are.
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
    /// Records that had rotted in the log before they were sent.
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

    /// One of the counters.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Documents by what became of them.
    #[must_use]
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        [("created", &self.created), ("duplicate", &self.duplicates), ("rejected", &self.rejected)]
            .map(|(outcome, counter)| (outcome, OutputStats::get(counter)))
    }

    /// How it goes.
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

    /// It goes so now. Returns whether it went otherwise before.
    pub fn change(&self, state: OutputState, trouble: &str) -> bool {
        let mut held = self.held();
        if held.1 != trouble {
            held.1.clear();
            held.1.push_str(trouble);
        }
        std::mem::replace(&mut held.0, state) != state
    }
}
