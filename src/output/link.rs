//! What the loop tells an output's thread, and the thread the loop: through a mutex that both hold briefly.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys;

/// The link between the loop and an output's thread, which is configured with `S`.
#[derive(Debug)]
pub struct Link<S> {
    told: Mutex<Told<S>>,
    news: Condvar,
    gone: Condvar,
}

/// What was told and not yet heard.
#[derive(Debug)]
struct Told<S> {
    records: bool,
    leave: bool,
    change: Change<S>,
    /// The thread has ended.
    gone: bool,
}

#[derive(Debug)]
enum Change<S> {
    None,
    Off,
    To(S),
}

impl<S> Change<S> {
    fn take(&mut self) -> Change<S> {
        std::mem::replace(self, Change::None)
    }
}

/// What happened while an output waited.
#[derive(Debug)]
pub struct News<S> {
    /// There are new records in the log.
    pub records: bool,
    /// The config was read again.
    pub settings: Option<S>,
    /// The agent leaves, or the output was turned off.
    pub leave: bool,
}

impl<S> Default for Link<S> {
    fn default() -> Link<S> {
        let told = Told { records: false, leave: false, change: Change::None, gone: false };
        Link { told: Mutex::new(told), news: Condvar::new(), gone: Condvar::new() }
    }
}

impl<S> Link<S> {
    fn told(&self) -> MutexGuard<'_, Told<S>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are records.
    pub(super) fn records(&self) {
        let mut told = self.told();
        if !std::mem::replace(&mut told.records, true) {
            drop(told);
            self.news.notify_one();
        }
    }

    /// The config was read again; `None`: the output is off. A thread that has ended hears nothing: the settings
    /// come back.
    pub(super) fn configure(&self, settings: Option<S>) -> Result<(), Option<S>> {
        let mut told = self.told();
        if told.gone {
            return Err(settings);
        }
        told.change = settings.map_or(Change::Off, Change::To);
        drop(told);
        self.news.notify_one();
        Ok(())
    }

    /// The output is to send once more what is there, and end.
    pub(super) fn leave(&self) {
        self.told().leave = true;
        self.news.notify_one();
    }

    /// Waits until the thread is gone, but not for longer than `patience`. Returns whether it is.
    pub(super) fn wait_gone(&self, patience: Duration) -> bool {
        let waited = self.gone.wait_timeout_while(self.told(), patience, |told| !told.gone);
        let (told, _) = waited.unwrap_or_else(PoisonError::into_inner);
        told.gone
    }

    /// The thread ends, unless it was configured anew meanwhile: then it goes on with that.
    pub(super) fn next(&self) -> Option<S> {
        let mut told = self.told();
        let next = match told.change.take() {
            Change::To(settings) if !told.leave => Some(settings),
            _ => None,
        };
        told.gone = next.is_none();
        self.gone.notify_all();
        next
    }

    /// Waits as long as `pause`; returns whether the output is to end.
    pub fn pause(&self, pause: Duration) -> bool {
        let waited = self.news.wait_timeout_while(self.told(), pause, |told| {
            !told.leave && !matches!(told.change, Change::Off)
        });
        let (_told, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// Waits until the monotonic clock says `until`, or until there are records or news.
    pub fn wait(&self, until: Option<Duration>) -> News<S> {
        let mut told = self.told();
        loop {
            let records = std::mem::take(&mut told.records);
            let (settings, off) = match told.change.take() {
                Change::None => (None, false),
                Change::Off => (None, true),
                Change::To(settings) => (Some(settings), false),
            };
            let leave = told.leave || off;
            if settings.is_some() || leave || records {
                return News { records, settings, leave };
            }
            told = match until.map(|at| at.saturating_sub(sys::now().mono)) {
                Some(Duration::ZERO) => return News { records, settings, leave },
                Some(left) => self.news.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.news.wait(told).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
