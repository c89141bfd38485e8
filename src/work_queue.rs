//! A queue of jobs for a thread that exists only while there are jobs, so that an idle agent needs no memory for it. A
//! push tells whether a thread must be started; the thread ends only when it has seen, under the same lock, that no job
//! waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bounded queue with at most one thread behind it.
pub(crate) struct WorkQueue<J> {
    inner: Mutex<Inner<J>>,
    changed: Condvar,
    room: usize,
}

struct Inner<J> {
    waiting: VecDeque<J>,
    has_worker: bool,
    closed: bool,
}

/// The result of pushing a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<J> {
    /// A thread has it, or will.
    Taken,
    /// It waits for a thread, which the caller has to start.
    NeedsThread,
    /// There is no room: the job comes back.
    Full(J),
}

/// What a worker's thread takes from its queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<J> {
    /// The job that waited longest.
    Job(J),
    /// No job came for as long as the thread waited.
    Nothing,
    /// The queue is closed.
    Closed,
}

impl<J> WorkQueue<J> {
    /// A queue in which `room` jobs can wait.
    pub(crate) fn new(room: usize) -> WorkQueue<J> {
        let inner = Inner { waiting: VecDeque::with_capacity(room), has_worker: false, closed: false };
        WorkQueue { inner: Mutex::new(inner), changed: Condvar::new(), room }
    }

    /// Says that a thread is on its way although no job waits.
    pub(crate) fn expect_worker(&self) {
        self.lock().has_worker = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job. Never blocks.
    pub(crate) fn push(&self, job: J) -> Pushed<J> {
        let mut inner = self.lock();
        if inner.closed || inner.waiting.len() >= self.room {
            return Pushed::Full(job);
        }
        inner.waiting.push_back(job);
        if std::mem::replace(&mut inner.has_worker, true) {
            self.changed.notify_all();
            return Pushed::Taken;
        }
        Pushed::NeedsThread
    }

    /// Whether a thread is here, or about to be.
    pub(crate) fn has_worker(&self) -> bool {
        self.lock().has_worker
    }

    /// Drops the jobs that wait: no thread could be started for them.
    pub(crate) fn abandon(&self) {
        drop(self.guard());
    }

    /// Makes the caller the thread of this queue.
    pub(crate) fn guard(&self) -> WorkerGuard<'_, J> {
        WorkerGuard { queue: self, on: true }
    }

    /// Tells the thread to end, and waits for that until `deadline`. False: it still runs.
    pub(crate) fn close(&self, deadline: Instant) -> bool {
        let mut inner = self.lock();
        inner.closed = true;
        self.changed.notify_all();
        while inner.has_worker {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A thread's hold on its queue. However it ends, jobs that still wait are dropped then, unless the
/// thread left in order, when none wait.
pub(crate) struct WorkerGuard<'q, J> {
    queue: &'q WorkQueue<J>,
    on: bool,
}

impl<J> WorkerGuard<'_, J> {
    /// Waits for a job.
    pub(crate) fn next(&self, wait: Duration) -> Next<J> {
        let deadline = Instant::now().checked_add(wait);
        let mut inner = self.queue.lock();
        loop {
            if inner.closed {
                return Next::Closed;
            }
            if let Some(job) = inner.waiting.pop_front() {
                return Next::Job(job);
            }
            let left = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Next::Nothing;
            }
            inner = self.queue.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The jobs that wait at this moment.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = J> {
        std::iter::from_fn(|| match self.next(Duration::ZERO) {
            Next::Job(job) => Some(job),
            Next::Nothing | Next::Closed => None,
        })
    }

    /// Runs job after job, and returns when none waits or the queue is closed.
    pub(crate) fn each(&mut self, mut work: impl FnMut(J)) {
        loop {
            match self.next(Duration::ZERO) {
                Next::Job(job) => work(job),
                Next::Nothing if self.leave() => return,
                Next::Nothing => {}
                Next::Closed => return,
            }
        }
    }

    /// Leaves, if no job waits.
    pub(crate) fn leave(&mut self) -> bool {
        let mut inner = self.queue.lock();
        if !inner.closed && !inner.waiting.is_empty() {
            return false;
        }
        self.end(&mut inner);
        true
    }

    fn end(&mut self, inner: &mut Inner<J>) {
        self.on = false;
        inner.has_worker = false;
        inner.waiting.clear();
        self.queue.changed.notify_all();
    }
}

impl<J> Drop for WorkerGuard<'_, J> {
    fn drop(&mut self) {
        if self.on {
            let queue = self.queue;
            self.end(&mut queue.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_job_needs_a_thread_and_later_ones_find_it() {
        let queue = WorkQueue::new(2);
        assert_eq!(queue.push(1), Pushed::NeedsThread);
        let mut guard = queue.guard();
        assert_eq!(queue.push(2), Pushed::Taken);
        assert_eq!(queue.push(3), Pushed::Full(3));
        assert_eq!(guard.next(Duration::ZERO), Next::Job(1));
        assert!(!guard.leave(), "one still waits");
        assert_eq!(guard.next(Duration::ZERO), Next::Job(2));
        assert_eq!(guard.next(Duration::ZERO), Next::Nothing);
        assert!(guard.leave());
        assert_eq!(queue.push(4), Pushed::NeedsThread);
        drop(guard);
        assert_eq!(queue.push(5), Pushed::Taken, "an old guard's end is not the new one's");
    }

    #[test]
    fn jobs_of_a_thread_that_broke_are_dropped_and_the_next_job_starts_another_thread() {
        let queue = WorkQueue::new(8);
        let job = std::sync::Arc::new(());
        queue.push(std::sync::Arc::clone(&job));
        queue.abandon();
        assert_eq!(std::sync::Arc::strong_count(&job), 1);
        assert_eq!(queue.push(job), Pushed::NeedsThread);
    }

    #[test]
    fn closing_wakes_the_thread_and_waits_until_it_left() {
        let queue = WorkQueue::<()>::new(1);
        queue.push(());
        let long = Duration::from_secs(600);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let guard = queue.guard();
                assert_eq!(guard.next(long), Next::Job(()));
                assert_eq!(guard.next(long), Next::Closed);
            });
            // Wait until the job was taken, so that the thread sees both.
            while !queue.lock().waiting.is_empty() {
                std::thread::yield_now();
            }
            assert!(queue.close(Instant::now() + Duration::from_secs(10)));
        });
        assert_eq!(queue.push(()), Pushed::Full(()));
    }

    #[test]
    fn waiting_for_a_hung_thread_is_bounded() {
        let queue = WorkQueue::new(1);
        queue.push(());
        let _busy = queue.guard();
        assert!(!queue.close(Instant::now() + Duration::from_millis(10)));
    }
}
