//! What shipping counts and how it goes, for the metrics and the status. The thread that ships
//! writes, the loop reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Course {
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

impl Course {
    /// For a person.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Course::Off => "off",
            Course::Shipping => "shipping",
            Course::Waiting => "waiting",
            Course::Refused => "refused",
        }
    }
}

/// The counters, since start.
#[derive(Debug, Default)]
pub struct Tally {
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
    course: Mutex<(Course, String)>,
}

impl Tally {
    fn state(&self) -> MutexGuard<'_, (Course, String)> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the counters.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// How it goes.
    #[must_use]
    pub fn course(&self) -> Course {
        self.state().0
    }

    /// What is wrong, if something is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        (!state.1.is_empty()).then(|| state.1.clone())
    }

    /// It goes so now. Returns whether it went otherwise before.
    pub(super) fn change(&self, course: Course, trouble: &str) -> bool {
        let mut state = self.state();
        if state.1 != trouble {
            state.1.clear();
            state.1.push_str(trouble);
        }
        std::mem::replace(&mut state.0, course) != course
    }
}
