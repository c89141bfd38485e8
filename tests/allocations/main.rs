//! What runs on the loop takes nothing from the heap once it is built: the endpoint, the host's
//! readers and parsers, the tracers and their documents, and the loop of the real agent. Each thread's takings
//! are counted apart. `ONSET_SHOW_TAKINGS=1` shows where the real agent's first ones are made.
#![allow(missing_docs, clippy::unwrap_used)]

mod agent;
mod captures;
#[allow(dead_code)]
#[path = "../live/cgroup.rs"]
mod cgroup;
mod endpoint;
mod host;
mod parsers;
#[allow(dead_code)]
#[path = "../live/rig.rs"]
mod rig;
mod tracers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;

/// So many takings of a watched thread are shown: the first ones tell the cause.
const SHOWN_MAX: u32 = 8;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FREES: Cell<u64> = const { Cell::new(0) };
    /// Takings of C code, libbpf's and the C library's; Rust's are left out.
    static TAKEN_IN_C: Cell<u64> = const { Cell::new(0) };
    /// Set while Rust asks the C library for memory.
    static FOR_RUST: Cell<bool> = const { Cell::new(false) };
    /// Takings of this thread that are still to be shown.
    static TO_SHOW: Cell<u32> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct CountingAllocator;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        show();
        FOR_RUST.set(true);
        // SAFETY: the caller's promises are the same.
        let place = unsafe { System.alloc(layout) };
        FOR_RUST.set(false);
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        FREES.set(FREES.get() + 1);
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator;

/// The C library's own functions, under the names by which it lets programs put others in their place.
#[cfg(target_env = "gnu")]
mod c {
    use std::ffi::c_void;

    use super::{FOR_RUST, TAKEN_IN_C, show};

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(place: *mut c_void, size: usize) -> *mut c_void;
    }

    fn count() {
        if !FOR_RUST.get() {
            TAKEN_IN_C.set(TAKEN_IN_C.get() + 1);
            show();
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn malloc(size: usize) -> *mut c_void {
        count();
        // SAFETY: it is what would have been called.
        unsafe { __libc_malloc(size) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn calloc(count_of: usize, size: usize) -> *mut c_void {
        count();
        // SAFETY: it is what would have been called.
        unsafe { __libc_calloc(count_of, size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(place: *mut c_void, size: usize) -> *mut c_void {
        count();
        // SAFETY: it is what would have been called, with the caller's promises.
        unsafe { __libc_realloc(place, size) }
    }
}

/// Shows where this thread takes memory, if it is watched and someone wants to know.
fn show() {
    let left = TO_SHOW.get();
    if left > 0 {
        // Showing takes memory as well.
        TO_SHOW.set(0);
        let (counted, in_c, for_rust) = (ALLOCATIONS.get(), TAKEN_IN_C.get(), FOR_RUST.get());
        eprintln!("taken from the heap:\n{}", Backtrace::force_capture());
        ALLOCATIONS.set(counted);
        TAKEN_IN_C.set(in_c);
        FOR_RUST.set(for_rust);
        TO_SHOW.set(left - 1);
    }
}

/// From here on this thread's takings are shown, if the environment says so.
fn watch() {
    if std::env::var_os("ONSET_SHOW_TAKINGS").is_some() {
        TO_SHOW.set(SHOWN_MAX);
    }
}

/// How often this thread took memory while it did this.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}
