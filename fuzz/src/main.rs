//! One program for all fuzz targets: ONSET_FUZZ names the one that is run. `fuzz/run` builds it.
//! Its allocator counts, so that whatever promises to take no memory is held to that.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting by thread.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn target() -> fn(&[u8]) {
    onset::fuzz::heap::count_by(|| TAKEN.get());
    let before = TAKEN.get();
    let name = std::env::var("ONSET_FUZZ").unwrap_or_default();
    match onset::fuzz::TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) if TAKEN.get() > before => *target,
        Some(_) => panic!("memory was taken, and nobody counted"),
        None => panic!("ONSET_FUZZ must name a target, not {name:?}; see src/fuzz.rs"),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(target)(data));
