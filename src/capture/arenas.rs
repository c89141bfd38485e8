//! The arenas of one kind of capture, taken at start. A thread takes one to put in what its capture brought, the
//! loop reads that and drops it, and the arena is there for the next: neither takes memory, neither frees any.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::capture_data::{Arena, Capture};
use crate::sys;

/// Arenas of each kind: one is filled while the loop reads the other.
pub const ARENAS_EACH: usize = 2;

/// All arenas of one kind of capture.
#[derive(Debug)]
pub struct ArenaPool {
    free: Mutex<Free>,
    changed: Condvar,
}

#[derive(Debug)]
struct Free {
    arenas: Vec<Arena>,
    /// Nobody reads what is captured any more.
    closed: bool,
}

impl ArenaPool {
    /// `ARENAS_EACH` arenas of this size.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<ArenaPool> {
        let arenas = std::iter::repeat_with(|| Arena::new(bytes)).take(ARENAS_EACH).collect();
        Arc::new(ArenaPool { free: Mutex::new(Free { arenas, closed: false }), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an arena, once the loop has given one back if need be. `None`: none was given back within
    /// `patience`, or nobody reads what is captured any more.
    pub fn take(self: &Arc<Self>, patience: Duration) -> Option<Lease> {
        let deadline = Instant::now() + patience;
        let mut free = self.lock();
        while !free.closed {
            if let Some(arena) = free.arenas.pop() {
                return Some(Lease { arena, pool: Arc::clone(self) });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            free = self.changed.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// Has whoever waits for an arena give up.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Arenas that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.lock().arenas.len()
    }

    fn put(&self, arena: Arena) {
        self.lock().arenas.push(arena);
        self.changed.notify_one();
    }
}

/// An arena that goes back to its pool.
#[derive(Debug)]
pub struct Lease {
    arena: Arena,
    pool: Arc<ArenaPool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut arena = std::mem::take(&mut self.arena);
        arena.reset(sys::discard_unset);
        self.pool.put(arena);
    }
}

/// A finished capture with the arena that it lies in, which goes back to its pool when this is dropped.
#[derive(Debug)]
pub struct OwnedCapture {
    /// It lives as long as the lease, and nobody is shown it for longer.
    capture: Capture<'static>,
    _lease: Lease,
}

impl OwnedCapture {
    /// Has a capture made in an arena.
    pub fn build(lease: Lease, make: impl for<'a> FnOnce(&'a Arena) -> Capture<'a>) -> OwnedCapture {
        let capture = make(&lease.arena);
        // SAFETY: what it borrows lies in memory of the lease's arena, which does not move with the lease, and which
        // is reset only when this is dropped; until then it is shown only for as long as this is borrowed.
        let capture = unsafe { std::mem::transmute::<Capture<'_>, Capture<'static>>(capture) };
        OwnedCapture { capture, _lease: lease }
    }

    /// What was captured.
    #[must_use]
    pub fn capture(&self) -> &Capture<'_> {
        &self.capture
    }

    /// Keeps what was captured for ever, and gives the pool another arena.
    #[cfg(test)]
    pub(super) fn keep(mut self) -> Capture<'static> {
        let new = Arena::new(self._lease.arena.size());
        std::mem::forget(std::mem::replace(&mut self._lease.arena, new));
        self.capture
    }
}
