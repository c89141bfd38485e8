//! What shipping counts and how it goes, for the metrics and the status. The thread that ships
//! writes, the loop reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShipState {
    /// No server is configured.
    #[default]
    Off,
    /// Records are sent as they come.
    Shipping,
    /// Something that will pass: it is tried again, with growing pauses.
    Waiting,
    /// Something that a person must change: it is tried again slowly.
    Refused,
}

impl ShipState {
    /// For a person.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ShipState::Off => "off",
            ShipState::Shipping => "shipping",
            ShipState::Waiting => "waiting",
            ShipState::Refused => "refused",
        }
    }
}

/// The counters, since start.
#[derive(Debug, Default)]
pub struct ShipStats {
    /// Documents that the server took.
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
    state: Mutex<(ShipState, String)>,
}

impl ShipStats {
    fn held(&self) -> MutexGuard<'_, (ShipState, String)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the counters.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// How it goes.
    #[must_use]
    pub fn state(&self) -> ShipState {
        self.held().0
    }

    /// What is wrong, if something is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let state = self.held();
        (!state.1.is_empty()).then(|| state.1.clone())
    }

    /// It goes so now. Returns whether it went otherwise before.
    pub(super) fn change(&self, state: ShipState, trouble: &str) -> bool {
        let mut held = self.held();
        if held.1 != trouble {
            held.1.clear();
            held.1.push_str(trouble);
        }
        std::mem::replace(&mut held.0, state) != state
    }
}
