//! Promises that something takes no memory, held by every target that knows of one. How much was
//! taken only the program's allocator can say: one that counts is told of here, and where there is
//! none nothing is held.

use std::cell::Cell;
use std::sync::OnceLock;

/// How often this thread took memory.
static TAKEN: OnceLock<fn() -> u64> = OnceLock::new();

thread_local! {
    /// What was taken by those who may.
    static ASIDE: Cell<u64> = const { Cell::new(0) };
}

/// From now on it is held: this says how often the calling thread has taken memory so far.
pub fn count_by(taken: fn() -> u64) {
    // The first stays: a process has one allocator.
    let _ = TAKEN.set(taken);
}

fn taken() -> u64 {
    TAKEN.get().map_or(0, |taken| taken())
}

/// Does this, which promises to take no memory.
///
/// # Panics
/// If it does take some.
#[track_caller]
pub fn untouched<T>(work: impl FnOnce() -> T) -> T {
    let before = (taken(), ASIDE.get());
    let done = work();
    let after = (taken(), ASIDE.get());
    assert_eq!(after.0 - before.0, after.1 - before.1, "it took memory, though it promises not to");
    done
}

/// Does this, which may take memory though it is a part of what may not: the world around it.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let (before, inner) = (taken(), ASIDE.get());
    let done = work();
    // What was put aside within it is in this already.
    ASIDE.set(inner + (taken() - before));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }

    fn take() {
        COUNT.set(COUNT.get() + 1);
    }

    #[test]
    fn heap_allocations_are_counted_unless_excluded() {
        count_by(|| COUNT.get());
        assert_eq!(untouched(|| 7), 7);
        untouched(|| aside(|| [take(), aside(take), take()]));
        let broken = |work: fn()| std::panic::catch_unwind(|| untouched(work)).is_err();
        assert!(broken(take));
        assert!(broken(|| {
            aside(take);
            take();
        }));
        untouched(|| ());
    }
}
