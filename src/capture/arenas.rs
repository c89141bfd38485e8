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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture_data::{CaptureData, Resident, Rows, Scope};

    fn capture<'a>(arena: &'a Arena, pids: std::ops::Range<u32>) -> Capture<'a> {
        let row = |pid| Some(Resident { pid, comm: arena.text("a name")?, rss_bytes: 1 });
        let data = CaptureData::Memory(arena.rows(pids, row));
        Capture { scope: Scope::Host, began: sys::now(), lasted: Duration::ZERO, lost: 0, data }
    }

    fn residents<'c>(owned: &'c OwnedCapture) -> Rows<'c, Resident<'c>> {
        let CaptureData::Memory(rows) = owned.capture().data else { panic!("memory was captured") };
        rows
    }

    #[test]
    fn an_arena_that_was_read_is_the_one_that_is_taken_next() {
        let pool = ArenaPool::new(1 << 20);
        let mut places = std::collections::HashSet::new();
        for round in 0..100 {
            let held = pool.take(Duration::ZERO).expect("one is there");
            let other = pool.take(Duration::ZERO).expect("and another");
            assert!(pool.take(Duration::ZERO).is_none() && pool.free() == 0, "there are no more");
            let owned = OwnedCapture::build(other, |arena| capture(arena, 0..1000));
            // It may move, and to another thread, as it does on its way to the loop.
            let owned = std::thread::spawn(move || owned).join().expect("it comes back");
            let rows = residents(&owned);
            assert!(rows.iter().zip(0..).all(|(row, pid)| row.pid == pid && row.comm == "a name"));
            places.insert(rows.as_ptr().addr());
            drop((owned, held));
            assert_eq!(pool.free(), ARENAS_EACH, "{round}");
        }
        assert!(places.len() <= ARENAS_EACH, "{places:?}");
    }

    #[test]
    fn what_one_capture_left_behind_is_not_in_the_next() {
        let pool = ArenaPool::new(8 << 10);
        let owned = |pids| {
            let lease = pool.take(Duration::ZERO).expect("an arena");
            OwnedCapture::build(lease, |arena| capture(arena, pids))
        };
        let full = residents(&owned(0..10_000)).len();
        assert!((100..300).contains(&full), "{full}");
        let again = owned(0..10_000);
        assert_eq!((residents(&again).len(), residents(&again).left_out()), (full, 10_000 - full));
    }

    #[test]
    fn whoever_finds_no_arena_gets_the_one_that_is_given_back() {
        let pool = ArenaPool::new(1024);
        let held: Vec<Lease> = std::iter::from_fn(|| pool.take(Duration::ZERO)).collect();
        let theirs = Arc::clone(&pool);
        let waiting = std::thread::spawn(move || theirs.take(Duration::from_secs(60)).is_some());
        drop(held);
        assert!(waiting.join().expect("it comes back"));
    }

    #[test]
    fn closing_a_pool_sends_away_whoever_waits_for_an_arena() {
        let pool = ArenaPool::new(1024);
        let _held: Vec<Lease> = std::iter::from_fn(|| pool.take(Duration::ZERO)).collect();
        let theirs = Arc::clone(&pool);
        let waiting = std::thread::spawn(move || theirs.take(Duration::from_secs(600)).is_some());
        pool.close();
        assert!(!waiting.join().expect("it comes back"));
        assert!(pool.take(Duration::ZERO).is_none());
    }

    #[test]
    fn an_arena_is_resident_only_while_something_lies_in_it() {
        const BYTES: usize = 8 << 20;
        let resident = |place: usize| {
            let mut pages = [0_u8; BYTES / 4096 - 1];
            // SAFETY: the kernel writes a byte for each page that it is asked about.
            let asked = unsafe {
                libc::mincore((place & !4095) as *mut libc::c_void, pages.len() * 4096, pages.as_mut_ptr())
            };
            assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
            pages.iter().filter(|page| **page & 1 == 1).count()
        };
        let pool = ArenaPool::new(BYTES);
        let lease = pool.take(Duration::ZERO).expect("an arena");
        let empty = lease.arena.plain_rows(0..1_u8).as_ptr().addr() - BYTES + 4096;
        assert!(resident(empty) <= 2, "{}", resident(empty));
        let owned = OwnedCapture::build(lease, |arena| capture(arena, 0..100_000));
        let full = resident(empty);
        assert!(full > 700, "{full}");
        drop(owned);
        assert!(resident(empty) <= 5, "{}", resident(empty));
    }
}
