//! The messages between the loop and an output's thread, behind a mutex that both hold briefly.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys;

/// The link between the loop and an output's thread, which is configured with `S`.
#[derive(Debug)]
pub struct Link<S> {
    messages: Mutex<Messages<S>>,
    changed: Condvar,
    thread_ended: Condvar,
}

/// Messages that the thread has not taken yet.
#[derive(Debug)]
struct Messages<S> {
    records: bool,
    leave: bool,
    change: Change<S>,
    /// The thread has ended.
    ended: bool,
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

/// Why an output's wait ended.
#[derive(Debug)]
pub struct Wakeup<S> {
    /// There are new records in the log.
    pub records: bool,
    /// The config was read again.
    pub settings: Option<S>,
    /// The agent leaves, or the output was turned off.
    pub leave: bool,
}

impl<S> Default for Link<S> {
    fn default() -> Link<S> {
        let messages = Messages { records: false, leave: false, change: Change::None, ended: false };
        Link { messages: Mutex::new(messages), changed: Condvar::new(), thread_ended: Condvar::new() }
    }
}

impl<S> Link<S> {
    fn messages(&self) -> MutexGuard<'_, Messages<S>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are new records.
    pub(super) fn records(&self) {
        let mut messages = self.messages();
        if !std::mem::replace(&mut messages.records, true) {
            drop(messages);
            self.changed.notify_one();
        }
    }

    /// The config was read again; `None`: the output is off. Where the thread has ended, the settings come back.
    pub(super) fn configure(&self, settings: Option<S>) -> Result<(), Option<S>> {
        let mut messages = self.messages();
        if messages.ended {
            return Err(settings);
        }
        messages.change = settings.map_or(Change::Off, Change::To);
        drop(messages);
        self.changed.notify_one();
        Ok(())
    }

    /// The output is to send the remaining records once, and end.
    pub(super) fn leave(&self) {
        self.messages().leave = true;
        self.changed.notify_one();
    }

    /// Waits until the thread has ended, but no longer than `patience`. Returns whether it has.
    pub(super) fn wait_gone(&self, patience: Duration) -> bool {
        let waited =
            self.thread_ended.wait_timeout_while(self.messages(), patience, |messages| !messages.ended);
        let (messages, _) = waited.unwrap_or_else(PoisonError::into_inner);
        messages.ended
    }

    /// The thread ends, unless it was configured anew meanwhile: then it goes on with that.
    pub(super) fn next(&self) -> Option<S> {
        let mut messages = self.messages();
        let next = match messages.change.take() {
            Change::To(settings) if !messages.leave => Some(settings),
            _ => None,
        };
        messages.ended = next.is_none();
        self.thread_ended.notify_all();
        next
    }

    /// Waits for `pause`; returns whether the output is to end.
    pub fn pause(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.messages(), pause, |messages| {
            !messages.leave && !matches!(messages.change, Change::Off)
        });
        let (_told, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// Waits until the monotonic clock reaches `until`, or until there are new records or other messages.
    pub fn wait(&self, until: Option<Duration>) -> Wakeup<S> {
        let mut messages = self.messages();
        loop {
            let records = std::mem::take(&mut messages.records);
            let (settings, off) = match messages.change.take() {
                Change::None => (None, false),
                Change::Off => (None, true),
                Change::To(settings) => (Some(settings), false),
            };
            let leave = messages.leave || off;
            if settings.is_some() || leave || records {
                return Wakeup { records, settings, leave };
            }
            messages = match until.map(|at| at.saturating_sub(sys::now().mono)) {
                Some(Duration::ZERO) => return Wakeup { records, settings, leave },
                Some(left) => {
                    self.changed.wait_timeout(messages, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(messages).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
