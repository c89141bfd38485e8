//! Work for a thread that is there only while there is some: an idle agent keeps no memory of
//! it. Who brings work learns whether a thread must be started; a thread leaves only when it has
//! seen, under the same lock, that nothing waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bounded queue with at most one thread behind it.
pub(crate) struct Inbox<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    room: usize,
}

struct State<J> {
    waiting: VecDeque<J>,
    staffed: bool,
    closed: bool,
}

/// What became of work that was brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Brought<J> {
    /// A thread has it, or will.
    Taken,
    /// It waits for a thread, which the bringer has to start.
    NeedsThread,
    /// There is no room; here it is back.
    Full(J),
}

/// What a thread finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<J> {
    /// Work.
    Job(J),
    /// None, for as long as it waited.
    Nothing,
    /// Nobody will bring any more, and nobody wants results.
    Closed,
}

impl<J> Inbox<J> {
    /// With room for so many.
    pub(crate) fn new(room: usize) -> Inbox<J> {
        let state = State { waiting: VecDeque::with_capacity(room), staffed: false, closed: false };
        Inbox { state: Mutex::new(state), changed: Condvar::new(), room }
    }

    /// A thread is on its way, whether there is work or not.
    pub(crate) fn staff(&self) {
        self.lock().staffed = true;
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings work. Never blocks.
    pub(crate) fn bring(&self, job: J) -> Brought<J> {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= self.room {
            return Brought::Full(job);
        }
        state.waiting.push_back(job);
        if std::mem::replace(&mut state.staffed, true) {
            self.changed.notify_all();
            return Brought::Taken;
        }
        Brought::NeedsThread
    }

    /// Brings work, and starts a thread for it if there is none, which takes memory: the loop has
    /// a `Starter` for that. Work that finds neither a thread nor room is dropped: false.
    pub(crate) fn bring_to(&self, name: &str, job: J, life: impl FnOnce() + Send + 'static) -> bool {
        match self.bring(job) {
            Brought::Taken => true,
            Brought::Full(_) => false,
            Brought::NeedsThread => {
                // Nobody joins it: `close` waits until it left.
                let started = std::thread::Builder::new().name(name.into()).spawn(life).is_ok();
                if !started {
                    drop(self.shift());
                }
                started
            }
        }
    }

    /// Whether a thread is here, or about to be.
    pub(crate) fn is_staffed(&self) -> bool {
        self.lock().staffed
    }

    /// Begins a thread's time here.
    pub(crate) fn shift(&self) -> Shift<'_, J> {
        Shift { inbox: self, on: true }
    }

    /// Tells the thread to leave, and waits for it, but not for ever. False: it is still there.
    pub(crate) fn close(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        while state.staffed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A thread's time at an inbox. However it ends, work that still waits is dropped then, unless
/// the thread left in order, when there is none.
pub(crate) struct Shift<'i, J> {
    inbox: &'i Inbox<J>,
    on: bool,
}

impl<J> Shift<'_, J> {
    /// Waits for work.
    pub(crate) fn next(&self, wait: Duration) -> Found<J> {
        let deadline = Instant::now().checked_add(wait);
        let mut state = self.inbox.lock();
        loop {
            if state.closed {
                return Found::Closed;
            }
            if let Some(job) = state.waiting.pop_front() {
                return Found::Job(job);
            }
            let left = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Found::Nothing;
            }
            state = self.inbox.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Leaves, if nothing waits.
    pub(crate) fn leave(&mut self) -> bool {
        let mut state = self.inbox.lock();
        if !state.closed && !state.waiting.is_empty() {
            return false;
        }
        self.end(&mut state);
        true
    }

    fn end(&mut self, state: &mut State<J>) {
        self.on = false;
        state.staffed = false;
        state.waiting.clear();
        self.inbox.changed.notify_all();
    }
}

impl<J> Drop for Shift<'_, J> {
    fn drop(&mut self) {
        if self.on {
            let inbox = self.inbox;
            self.end(&mut inbox.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_job_needs_a_thread_and_later_ones_find_it() {
        let inbox = Inbox::new(2);
        assert_eq!(inbox.bring(1), Brought::NeedsThread);
        let mut shift = inbox.shift();
        assert_eq!(inbox.bring(2), Brought::Taken);
        assert_eq!(inbox.bring(3), Brought::Full(3));
        assert_eq!(shift.next(Duration::ZERO), Found::Job(1));
        assert!(!shift.leave(), "one still waits");
        assert_eq!(shift.next(Duration::ZERO), Found::Job(2));
        assert_eq!(shift.next(Duration::ZERO), Found::Nothing);
        assert!(shift.leave());
        assert_eq!(inbox.bring(4), Brought::NeedsThread);
        drop(shift);
        assert_eq!(inbox.bring(5), Brought::Taken, "an old shift's end is not the new one's");
    }

    #[test]
    fn work_of_a_thread_that_broke_is_dropped_and_the_next_starts_another() {
        let inbox = Inbox::new(8);
        let job = std::sync::Arc::new(());
        inbox.bring(std::sync::Arc::clone(&job));
        drop(inbox.shift());
        assert_eq!(std::sync::Arc::strong_count(&job), 1);
        assert_eq!(inbox.bring(job), Brought::NeedsThread);
    }

    #[test]
    fn closing_wakes_the_thread_and_waits_until_it_left() {
        let inbox = Inbox::<()>::new(1);
        inbox.bring(());
        let long = Duration::from_secs(600);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let shift = inbox.shift();
                assert_eq!(shift.next(long), Found::Job(()));
                assert_eq!(shift.next(long), Found::Closed);
            });
            // Wait until the job was taken, so that the thread sees both.
            while !inbox.lock().waiting.is_empty() {
                std::thread::yield_now();
            }
            assert!(inbox.close(Instant::now() + Duration::from_secs(10)));
        });
        assert_eq!(inbox.bring(()), Brought::Full(()));
    }

    #[test]
    fn a_thread_that_does_not_leave_is_not_waited_for_for_ever() {
        let inbox = Inbox::new(1);
        inbox.bring(());
        let _busy = inbox.shift();
        assert!(!inbox.close(Instant::now() + Duration::from_millis(10)));
    }
}
