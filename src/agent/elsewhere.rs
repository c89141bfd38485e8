//! What takes the kernel its time to take back is dropped by a thread of its own.

use std::thread::Builder;

/// A thread that only closes descriptors needs little.
const STACK: usize = 64 << 10;

/// Drops PSI triggers and attachments of programs: the kernel waits until no CPU can be in them. The loop waits for
/// that only where no thread is to be had.
pub(super) fn drop_elsewhere(things: impl Send + 'static) {
    let _ = Builder::new().name("drop".to_owned()).stack_size(STACK).spawn(move || drop(things));
}
